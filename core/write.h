/*
 * write.h - the write handle: appends, batches built ahead, and the upper.
 *
 * A writer is known to its shard: the first append registers it, with host and
 * purpose, each append renews it, core_writer_expire or its lease ends it. The
 * appends of core_txn_begin are those of a writer that the engine keeps for each
 * shard.
 *
 *     core_writer_open(shard, "ingest of orders", &w, &err);
 *     core_writer_builder(w, lower, &builder, &err);
 *     core_batch_builder_add(builder, &row, &err);             any number of times
 *     core_batch_builder_finish(builder, upper, &built, &err);
 *     core_writer_compare_and_append_batch(w, &built, 1, lower, upper, &appended, &err);
 *     core_built_free(built);
 *
 * What an append refuses as invalid usage depends on its arguments alone, and
 * changes nothing. After KV_UPPER_MISMATCH core_writer_upper tells the current
 * upper, and the batches are as before: they may be appended again with other
 * frontiers, or freed.
 *
 * Threads: a writer, a builder and a built batch belong to one thread at a time.
 * The shard stays open until all of them are freed.
 *
 * Codes as in shard.h.
 */
#ifndef CORE_WRITE_H
#define CORE_WRITE_H

#include "core/buf.h"
#include "core/shard.h"

struct core_writer;
struct core_batch_builder;
struct core_built;

/* --- the handle ------------------------------------------------------------------------------------ */

/* purpose: words for those who look who writes (cut to CORE_PURPOSE_LEN - 1 bytes). Nothing is stored yet. */
enum kv_rc core_writer_open(struct core_shard *s, const char *purpose, struct core_writer **out,
			    struct kv_err *err) KV_MUST_CHECK;
void core_writer_close(struct core_writer *w); /* expires it, as well as that goes; NULL is allowed */

struct core_uuid core_writer_id(const struct core_writer *w);

/* Strike the writer from the shard's state. It may be used on; its next append registers it again. */
enum kv_rc core_writer_expire(struct core_writer *w, struct kv_err *err) KV_MUST_CHECK;

/* The upper this handle has met last: no lock, no store. Never beyond the shard's. */
struct core_frontier core_writer_upper(const struct core_writer *w);

/* The newest upper this process knows. */
enum kv_rc core_writer_shared_upper(struct core_writer *w, struct core_frontier *out,
				    struct kv_err *err) KV_MUST_CHECK;

/* The upper, not older than any append that was acknowledged before the call, on any host. */
enum kv_rc core_writer_fetch_recent_upper(struct core_writer *w, struct core_frontier *out,
					  struct kv_err *err) KV_MUST_CHECK;

/*
 * Wait until the frontier lies below the upper, for timeout_ms at most (-1: for ever). Where the upper this
 * process knows has passed it, consensus is not asked: an upper never falls.
 * KV_WOULD_BLOCK  the time is over
 * KV_BAD_BOUNDS   the frontier is empty: no upper passes it
 * KV_NO_SHARD     the shard is gone, as far as this process knows
 */
enum kv_rc core_writer_wait_for_upper_past(struct core_writer *w, struct core_frontier frontier,
					   int timeout_ms, struct kv_err *err) KV_MUST_CHECK;

/* --- appends --------------------------------------------------------------------------------------- */

/* As core_txn_begin, by this writer, which stays open until the transaction is freed. */
enum kv_rc core_writer_begin(struct core_writer *w, const struct core_append *ask, struct core_txn **out,
			     struct kv_err *err) KV_MUST_CHECK;

/* All rows at once; codes of core_txn_begin, core_txn_add and core_txn_commit. r may be NULL. */
enum kv_rc core_writer_append(struct core_writer *w, const struct core_update *rows, size_t count,
			      struct core_frontier lower, struct core_frontier upper, struct core_appended *r,
			      struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_writer_compare_and_append(struct core_writer *w, const struct core_update *rows, size_t count,
					  struct core_frontier expected_upper, struct core_frontier new_upper,
					  struct core_appended *r, struct kv_err *err) KV_MUST_CHECK;

/* --- batches built ahead --------------------------------------------------------------------------- */

/* Rows go to the blob store while they come in; memory is bounded. */
enum kv_rc core_writer_builder(struct core_writer *w, struct core_frontier lower,
			       struct core_batch_builder **out, struct kv_err *err) KV_MUST_CHECK;

/* KV_NOT_BEYOND_LOWER: the row is not in, the builder goes on. */
enum kv_rc core_batch_builder_add(struct core_batch_builder *b, const struct core_update *row,
				  struct kv_err *err) KV_MUST_CHECK;

/*
 * The batch [lower, upper) of all that was added. The builder can only be freed after it.
 * KV_BAD_BOUNDS, KV_BEYOND_UPPER
 */
enum kv_rc core_batch_builder_finish(struct core_batch_builder *b, struct core_frontier upper,
				     struct core_built **out, struct kv_err *err) KV_MUST_CHECK;
void core_batch_builder_free(struct core_batch_builder *b); /* NULL is allowed */

/* Builder, rows and finish in one. */
enum kv_rc core_writer_batch(struct core_writer *w, const struct core_update *rows, size_t count,
			     struct core_frontier lower, struct core_frontier upper, struct core_built **out,
			     struct kv_err *err) KV_MUST_CHECK;

struct core_frontier core_built_lower(const struct core_built *b);
struct core_frontier core_built_upper(const struct core_built *b);
uint64_t core_built_rows(const struct core_built *b); /* handed over */

/*
 * Read every time as max(time, ts), and end the batch at new_upper. Parts are not touched. Not for a batch
 * that was made transmittable.
 * KV_BAD_REWRITE  not lower <= ts < new_upper, new_upper below the batch's, or ts below an earlier rewrite
 */
enum kv_rc core_built_rewrite_ts(struct core_built *b, uint64_t ts, struct core_frontier new_upper,
				 struct kv_err *err) KV_MUST_CHECK;

/* Free it; if it was neither appended nor made transmittable, its blobs are deleted. NULL is allowed. */
void core_built_free(struct core_built *b);

/*
 * Append one or several batches as one, atomically; their runs become runs of the one that is committed.
 * Success consumes them: they can only be freed. A no-op append does too.
 * Of ask everything but batch, rows and inputs is read.
 * KV_OTHER_SHARD   one is of another shard
 * KV_BATCH_BOUNDS  the append is wider than one of them
 * KV_BAD_REWRITE, KV_EMPTY_INTERVAL and the codes of core_txn_commit
 * KV_BAD_SYNTAX    one is given twice
 * KV_UNKNOWN       done or not: with a token or an absolute lower the same append tells. Any other one of
 *                  the same batches gets KV_UNKNOWN too, and does nothing
 */
enum kv_rc core_writer_commit(struct core_writer *w, const struct core_append *ask,
			      struct core_built *const *batches, size_t count, struct core_appended *r,
			      struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_writer_compare_and_append_batch(struct core_writer *w, struct core_built *const *batches,
						size_t count, struct core_frontier expected_upper,
						struct core_frontier new_upper, struct core_appended *r,
						struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_writer_append_batch(struct core_writer *w, struct core_built *batch,
				    struct core_frontier lower, struct core_frontier upper,
				    struct core_appended *r, struct kv_err *err) KV_MUST_CHECK;

/* --- transmittable batches ------------------------------------------------------------------------- */

/*
 * Stage the batch under a name of its own and give bytes that stand for it: another handle, process or host
 * can append it, once. b can only be freed after KV_OK. *out: given, free with core_buf_fini.
 * KV_QUOTA    the shard has CORE_STAGED_MAX staged batches
 * KV_UNKNOWN  it may be staged, and can only be made transmittable again
 */
enum kv_rc core_built_transmit(struct core_built *b, struct core_buf *out, struct kv_err *err) KV_MUST_CHECK;

/*
 * The batch that bytes stand for.
 * KV_OTHER_SHARD  it is of another shard
 * KV_NO_BATCH     it was appended or removed
 * KV_CORRUPT, KV_NEWER  the bytes are not what core_built_transmit gave
 */
enum kv_rc core_writer_receive(struct core_writer *w, const void *data, size_t len, struct core_built **out,
			       struct kv_err *err) KV_MUST_CHECK;

#endif
