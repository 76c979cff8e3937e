/*
 * consensus_impl.h - for those who write a consensus.
 *
 * An instance embeds struct kv_consensus first. Methods are called by the
 * wrappers in consensus.c only, which have checked the arguments, cleared the
 * outputs and check the result: a method may return the codes its wrapper's
 * contract lists and must leave the outputs cleared when it fails. No method
 * may be NULL. Methods may be called from any thread at any time.
 */
#ifndef KV_CONSENSUS_IMPL_H
#define KV_CONSENSUS_IMPL_H

#include "kv/consensus.h"

struct kv_consensus_ops {
	const char *name;
	enum kv_rc (*head)(struct kv_consensus *c, const char *key, struct kv_version *out,
			   struct kv_err *err);
	enum kv_rc (*compare_and_set)(struct kv_consensus *c, const char *key, uint64_t expected,
				      uint64_t seqno, const void *data, size_t len, enum kv_sync sync,
				      struct kv_err *err);
	enum kv_rc (*scan)(struct kv_consensus *c, const char *key, uint64_t from, size_t limit,
			   struct kv_versions *out, struct kv_err *err);
	enum kv_rc (*truncate)(struct kv_consensus *c, const char *key, uint64_t seqno, uint64_t *removed,
			       struct kv_err *err);
	enum kv_rc (*remove)(struct kv_consensus *c, const char *key, uint64_t expected, struct kv_err *err);
	enum kv_rc (*list_keys)(struct kv_consensus *c, const char *after, size_t limit, struct kv_keys *out,
				struct kv_err *err);
	void (*close)(struct kv_consensus *c);
};

struct kv_consensus {
	const struct kv_consensus_ops *ops;
};

/* Append a copy of (seqno, data) / of key to a growing result. False: out of memory, the result is as before.
 */
bool kv_versions_push(struct kv_versions *versions, uint64_t seqno, const void *data, size_t len);
bool kv_keys_push(struct kv_keys *keys, const char *key, size_t len);

/* Whether key has the form consensus.h demands. Blob keys: see kv_blob_key_valid. */
bool kv_key_valid(const char *key);

#endif
