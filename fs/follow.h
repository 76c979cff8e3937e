/*
 * follow.h - `listen/<f>` and `subscribe/<t>`: a shard as transactions, in the
 * grammar that `append` takes.
 *
 *     begin lower=<f> upper=<u>            each step of a listener
 *     <row> ...
 *     commit
 *
 * A subscription begins with what the collection is as of t, in a transaction that
 * an empty shard takes and any other refuses:
 *
 *     begin expected_upper=0 new_upper=<t+1> since=<t>
 *
 * Threads: one at a time per open file.
 */
#ifndef FS_FOLLOW_H
#define FS_FOLLOW_H

#include "core/listen.h"
#include "fs/stream.h"

struct fs_follow;

/*
 * Listen from a frontier on; or, with now, from the upper on. shard and budget are borrowed until the source is
 * closed.
 * KV_COMPACTED, KV_NO_SHARD
 */
enum kv_rc fs_follow_listen(struct core_shard *shard, struct core_frontier from, bool now,
			    const struct core_reader *reader, struct fs_budget *budget,
			    struct fs_follow **out, struct kv_err *err) KV_MUST_CHECK;

/* Subscribe to what is as of a time, and on. KV_COMPACTED, KV_NO_SHARD */
enum kv_rc fs_follow_subscribe(struct core_shard *shard, struct core_as_of as_of,
			       const struct core_reader *reader, struct fs_budget *budget,
			       struct fs_follow **out, struct kv_err *err) KV_MUST_CHECK;

/* Its text; taken by the stream that is made of it. */
struct fs_source *fs_follow_source(struct fs_follow *f);

/* The time that the upper has to pass before there is more, after KV_WOULD_BLOCK. */
uint64_t fs_follow_waits_for(const struct fs_follow *f);

#endif
