/*
 * store_impl.h - for those who write a store. Rules as in consensus_impl.h.
 */
#ifndef KV_STORE_IMPL_H
#define KV_STORE_IMPL_H

#include "kv/store.h"

struct kv_store_ops {
	const char *name;
	void (*commit)(struct kv_store *s, struct kv_run *runs, size_t count,
		       enum kv_sync sync); /* as kv_store_commit_runs */
	enum kv_rc (*tidy)(struct kv_store *s, struct kv_err *err);
	enum kv_rc (*usage)(struct kv_store *s, struct kv_usage *out, struct kv_err *err);
	enum kv_rc (*verify)(struct kv_store *s, kv_damage_fn *found, void *arg, struct kv_err *err);
	void (*keep_still)(struct kv_store *s, bool still);
	void (*close)(struct kv_store *s); /* closes consensus and blobs too */
};

struct kv_store {
	const struct kv_store_ops *ops;
	struct kv_store_traits traits;
	struct kv_consensus *consensus;
	struct kv_blobs *blobs;
};

#endif
