/*
 * read.h - the read handle: a since of one's own, and what is read under it.
 *
 * A handle holds the shard's since back at its own, which begins where the shard's
 * is and is moved forward by its owner; what it reads must not lie below that.
 * The hold is that of a process: it ends with the handle, with the process at the
 * latest, where others write to the store when its lease is over. What is to
 * outlive processes is a hold (core_hold_set in shard.h).
 *
 * Snapshots, listeners and subscriptions that were opened by a handle hold what
 * they need themselves, and outlive it.
 *
 * Threads: a handle belongs to one thread at a time. The shard stays open until
 * all of them are closed. Codes as in shard.h.
 */
#ifndef CORE_READ_H
#define CORE_READ_H

#include "core/listen.h"
#include "core/shard.h"

struct core_read;

/* purpose: words for those who look who reads (cut to CORE_PURPOSE_LEN - 1 bytes). */
enum kv_rc core_read_open(struct core_shard *s, const char *purpose, struct core_read **out,
			  struct kv_err *err) KV_MUST_CHECK;

/* Let go of its since. NULL is allowed. */
void core_read_expire(struct core_read *r);

/* Times at or beyond it may be read by this handle. */
struct core_frontier core_read_since(const struct core_read *r);

/* Move it forward; a frontier that is not beyond it changes nothing. The empty one: nothing more is read. The
 * shard's since follows with its next version. */
void core_read_downgrade_since(struct core_read *r, struct core_frontier since);

/*
 * core_snapshot_open under the handle's since.
 * KV_COMPACTED    the time is below it
 * KV_WOULD_BLOCK  the time is not complete yet: wait for it (core_read_wait)
 */
enum kv_rc core_read_snapshot(struct core_read *r, struct core_as_of as_of, struct core_snapshot **out,
			      struct kv_err *err) KV_MUST_CHECK;

/* core_listen_open under the handle's since. KV_COMPACTED: the frontier is not above it (nor are both 0). */
enum kv_rc core_read_listen(struct core_read *r, struct core_frontier from, struct core_listen **out,
			    struct kv_err *err) KV_MUST_CHECK;

/*
 * A subscription: what the collection is as of a time, and all that comes after it. *listen begins behind the
 * time and holds it from now on, so *snapshot may be opened later too: it is NULL when the time is not complete
 * yet (wait until the upper has passed it, then core_read_snapshot gives it).
 * KV_COMPACTED  the time is below the handle's since
 */
enum kv_rc core_read_subscribe(struct core_read *r, uint64_t as_of, struct core_snapshot **snapshot,
			       struct core_listen **listen, struct kv_err *err) KV_MUST_CHECK;

/* Wait until the upper has passed a time, for timeout_ms at most (-1: for ever). KV_WOULD_BLOCK: it has not.
 * KV_NO_SHARD */
enum kv_rc core_read_wait(struct core_read *r, uint64_t time, int timeout_ms,
			  struct kv_err *err) KV_MUST_CHECK;

#endif
