/*
 * merge.h - batches read as one sorted, consolidated stream, in bounded memory.
 *
 * A k-way merge over the runs of all batches, block by block. Above
 * CORE_MERGE_WAYS runs it goes in passes: groups of runs are merged into
 * temporary parts first, which are deleted at close.
 *
 * Threads: a merge belongs to one thread at a time.
 */
#ifndef CORE_MERGE_H
#define CORE_MERGE_H

#include "core/part.h"

enum { CORE_MERGE_WAYS = 64 };

struct core_merge;

enum core_merge_mode {
	CORE_MERGE_AS_OF,   /* times above `time` dropped, the others become `time`; (key, val) summed */
	CORE_MERGE_ADVANCE, /* times below `time` become `time`; (key, val, time) summed */
};

/*
 * Merge count batches, which are borrowed until close, as is home. Each batch shows what lies within its own
 * bounds, rewritten as its parts say.
 * Passes write temporary parts, all within this call. A store that is full or read-only is gone around: then
 * all runs are read at once, which takes more memory (some 300 KiB for each run).
 * KV_CORRUPT and what reading and writing can fail with; nothing is left behind, as well as that goes
 */
enum kv_rc core_merge_open(const struct core_home *home, struct core_batch *const *batches, size_t count,
			   enum core_merge_mode mode, uint64_t time, struct core_merge **out,
			   struct kv_err *err) KV_MUST_CHECK;

/*
 * The next update in order of (key, val, time), diff never 0; *end instead when there is none. Key and val
 * are borrowed until the next call.
 * KV_OVERFLOW  AS_OF: the sum of a (key, val) leaves i64. ADVANCE: never; such rows stay apart
 * KV_CORRUPT and what reading can fail with
 * After a failure the merge can only be closed.
 */
enum kv_rc core_merge_next(struct core_merge *m, struct core_update *out, bool *end,
			   struct kv_err *err) KV_MUST_CHECK;

/*
 * It is not read for a while: give back buffers until it is. The row given last is gone; the next one comes
 * all the same, for a seek in each run.
 */
void core_merge_rest(struct core_merge *m);

/*
 * Bytes of memory in buffers: that it has now; about how many it takes to go on; and to open and read one,
 * but for what passes take.
 */
size_t core_merge_held(const struct core_merge *m);
size_t core_merge_need(const struct core_merge *m);
size_t core_merge_need_of(struct core_batch *const *batches, size_t count);

void core_merge_close(struct core_merge *m); /* NULL is allowed */

#endif
