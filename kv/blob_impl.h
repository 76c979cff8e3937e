/*
 * blob_impl.h - for those who write a blob store. Rules as in consensus_impl.h.
 */
#ifndef KV_BLOB_IMPL_H
#define KV_BLOB_IMPL_H

#include "kv/blob.h"

struct kv_blob_ops {
	const char *name;
	enum kv_rc (*get)(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			  size_t *got, struct kv_err *err);
	enum kv_rc (*set)(struct kv_blobs *b, const char *key, const void *data, size_t len,
			  struct kv_err *err);
	enum kv_rc (*delete)(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			     struct kv_err *err); /* existed and size are never NULL here */
	enum kv_rc (*list)(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			   struct kv_blob_list *out, struct kv_err *err);
	void (*close)(struct kv_blobs *b);
};

struct kv_blobs {
	const struct kv_blob_ops *ops;
};

/* Append a copy of key to a growing result. False: out of memory, the result is as before. */
bool kv_blob_list_push(struct kv_blob_list *list, const char *key, uint64_t size);

/* Whether key has the form blob.h demands: a valid key whose components are neither empty, "." nor "..". */
bool kv_blob_key_valid(const char *key);

#endif
