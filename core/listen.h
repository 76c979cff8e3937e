/*
 * listen.h - following a shard from a frontier on, step by step.
 *
 * A step is all updates with times in [lower, upper), each at its own time, in no
 * promised order and not consolidated. The first lower is the frontier listened
 * from, each next one the upper before, so that every update comes exactly once;
 * a step without updates tells progress alone.
 *
 * A listener holds the time before its frontier: since does not pass it, so that
 * the times it has not given yet stay apart. The parts of the step in hand are
 * pinned; the hold moves on when the step is taken.
 *
 * Threads: a listener belongs to one thread at a time. The shard must stay open
 * until it is closed. Codes as in shard.h.
 */
#ifndef CORE_LISTEN_H
#define CORE_LISTEN_H

#include "core/shard.h"

struct core_listen;

/*
 * Listen from a frontier on, which may lie beyond the upper. reader says who asks; copied.
 * KV_COMPACTED  the frontier is not above since (nor are both 0): what happened there was given up
 * KV_NO_SHARD
 */
enum kv_rc core_listen_open(struct core_shard *s, struct core_frontier from, const struct core_reader *reader,
			    struct core_listen **out, struct kv_err *err) KV_MUST_CHECK;

struct core_step {
	struct core_frontier lower;
	struct core_frontier upper;
};

/*
 * The next step; its updates come by core_listen_next, and those of the step before that were not taken are
 * skipped. *end instead: the shard is finished, and all was given.
 * KV_WOULD_BLOCK  nothing new: wait until the upper has passed core_listen_frontier
 * KV_NO_SHARD     the shard was removed, and there is no more of it; one that was removed is given to its end
 * before
 */
enum kv_rc core_listen_step(struct core_listen *l, struct core_step *step, bool *end,
			    struct kv_err *err) KV_MUST_CHECK;

/* The next update of the step; *end instead when there is none. Key and val are borrowed until the next call.
 */
enum kv_rc core_listen_next(struct core_listen *l, struct core_update *out, bool *end,
			    struct kv_err *err) KV_MUST_CHECK;

/*
 * A step that may be gone back to, with what it pins. It gives the same updates in the same order each time.
 * Given: free with core_place_free, before the listener is closed. NULL: out of memory.
 */
struct core_place;
struct core_place *core_listen_place(const struct core_listen *l); /* the step in hand */
struct core_step core_place_step(const struct core_place *p);
void core_place_free(struct core_place *p); /* NULL is allowed */

/* The memory it takes, about, with its share of batches that others have too. */
size_t core_place_bytes(const struct core_place *p);

/* That step is in hand again, before its first update. The next new step is what it was. */
void core_listen_go(struct core_listen *l, const struct core_place *p);

/* Where the next step begins. */
struct core_frontier core_listen_frontier(const struct core_listen *l);

/* It is not read for a while: give back buffers, until it is. The update given last is gone. */
void core_listen_rest(struct core_listen *l);

/* Bytes of memory in buffers: that it has now; and about how many it takes to go on. */
size_t core_listen_held(const struct core_listen *l);
size_t core_listen_need(const struct core_listen *l);

void core_listen_close(struct core_listen *l); /* NULL is allowed */

#endif
