/*
 * manifest.h - the parts of a staged batch, as one blob.
 *
 *     <shard>/<instance>/m<uuid>      a document of kind 'M' (state.proto: Manifest)
 *
 * Beside the parts it holds what is not worth a blob of its own: the bytes of a
 * last small part, which become a blob when the batch is committed, and the
 * beginning of a row whose end was not written yet.
 *
 * Threads: pure functions on their arguments, but for reading the store.
 */
#ifndef CORE_MANIFEST_H
#define CORE_MANIFEST_H

#include "core/part.h"
#include "core/state_codec.h"

struct core_manifest {
	struct core_batch *batch; /* [0, -): all rows show; parts with inline_data are loose. A reference */
	struct core_buf rest;
};

/* The key of the manifest that entry names. Returns buf. */
char *core_manifest_key(struct core_shard_id shard, const struct core_staged *entry,
			char buf[CORE_BLOB_KEY_LEN]);

/* *out: given, free with core_buf_fini. KV_NOMEM, KV_QUOTA: more than a blob may have. */
enum kv_rc core_manifest_encode(struct core_shard_id shard, struct core_uuid id, const struct core_batch *batch,
				const void *rest, size_t rest_len, struct core_buf *out,
				struct kv_err *err) KV_MUST_CHECK;

/* *out: given, free with core_manifest_fini. KV_CORRUPT, KV_NEWER, KV_NOMEM. */
enum kv_rc core_manifest_decode(struct core_shard_id shard, struct core_uuid id, const void *data, size_t len,
				struct core_manifest *out, struct kv_err *err) KV_MUST_CHECK;

/*
 * Read what entry names (an empty batch if it has no manifest).
 * KV_NOTFOUND  it is gone: the entry was changed or committed since
 * KV_CORRUPT, KV_NEWER, KV_NOMEM and what reading a blob can fail with
 */
enum kv_rc core_manifest_read(const struct core_home *home, const struct core_staged *entry,
			      struct core_manifest *out, struct kv_err *err) KV_MUST_CHECK;

void core_manifest_fini(struct core_manifest *m); /* {0} is allowed */

#endif
