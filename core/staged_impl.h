/*
 * staged_impl.h - what a commit asks of the writers of staged batches.
 *
 * Threads: any.
 */
#ifndef CORE_STAGED_IMPL_H
#define CORE_STAGED_IMPL_H

#include "core/manifest.h"
#include "core/shard.h"

/*
 * The staged batch is to be committed: have all that was written to it stored, and take no more from the
 * writer that has it open, whatever becomes of the commit. KV_OK also if there is no such batch.
 * Without locks. Codes of core_stage_sync.
 */
enum kv_rc core_stage_seal(struct core_shard *s, const char *name, struct kv_err *err) KV_MUST_CHECK;

/* Whether somebody has the batch open for writing and was not sealed. Under commit_mu. */
bool core_stage_is_writing(struct core_shard *s, struct core_uuid id);

/* A version without the entry was committed: delete its manifest, and the blobs of parts (unless NULL) as
 * soon as nobody here reads them. */
void core_staged_consumed(struct core_shard *s, const struct core_staged *entry, struct core_batch *parts);

/*
 * Store a manifest (empty: there is none) and commit the entry that names it, in place of one whose manifest
 * is *was, or `maybe` if an outcome was unknown before, which *was becomes if it is found; *was all zero: a
 * new one. Codes of core_do_stage.
 */
enum kv_rc core_staged_store(struct core_shard *s, struct core_uuid *was, struct core_uuid maybe,
			     const struct core_staged *now, const struct core_buf *manifest,
			     struct kv_err *err) KV_MUST_CHECK;

/* The entry as stored, and what its manifest has; given. KV_NO_BATCH */
enum kv_rc core_staged_read(struct core_shard *s, struct core_uuid id, struct core_staged *entry,
			    struct core_manifest *manifest, struct kv_err *err) KV_MUST_CHECK;

/* Delete a manifest nobody names any more, as well as that goes. */
void core_staged_delete_manifest(struct core_shard *s, const struct core_staged *entry);

/* Delete the blobs of parts nobody names any more, at once or when those who read the batch are done. Without
 * locks, or under that of its stage. */
void core_staged_doom(struct core_shard *s, struct core_uuid id, struct core_batch *parts);

/* Add to a stored entry what its writer has that is not stored yet. Without locks. */
void core_stage_describe(struct core_shard *s, struct core_staged *entry);

/* The batch was removed here: its writer goes on for nobody. Without locks. */
void core_stage_removed(struct core_shard *s, struct core_uuid id);

/* The shard was removed: nobody cares any more for losses that could not be marked. Without locks. */
void core_stages_let_go(struct core_shard *s);

/* Free what a shard that nobody uses still has of stages: those whose loss could not be marked. */
void core_staged_end(struct core_shard *s);

#endif
