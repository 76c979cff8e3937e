/*
 * shard.h - the engine: shards in a store. The header for those who embed it.
 *
 * A shard is a durable collection of updates ((key, val), time, diff) with two
 * frontiers. All updates at times not at or beyond the upper are known; times
 * at or beyond since are still told apart. A time t is readable iff
 * since <= t < upper.
 *
 *     struct kv_store *store;
 *     struct core_engine *engine;
 *     struct core_shard *shard;
 *     kv_store_embedded_open("/var/lib/mystore", false, "myprogram", &store, &err);
 *     core_engine_open(store, NULL, &engine, &err);
 *     core_shard_open(engine, id, &shard, &err);
 *     core_txn_begin(shard, &options, &txn, &err);    compare-and-append
 *     core_txn_add(txn, &row, &err);
 *     core_txn_commit(txn, &appended, &err);
 *
 * Threads: an engine and its shards may be used by any number of threads; a
 * transaction or a snapshot by one at a time. Handles are closed before the
 * shard, shards before the engine.
 *
 * Codes any call that reads or writes the store may return besides those listed
 * with it: KV_NOMEM, KV_CORRUPT, KV_NEWER, KV_IO, KV_UNREACHABLE, and writes
 * KV_NOSPACE, KV_QUOTA, KV_READONLY (nothing was done) and KV_UNKNOWN.
 */
#ifndef CORE_SHARD_H
#define CORE_SHARD_H

#include "core/batch.h"
#include "core/state.h"
#include "core/transition.h"
#include "kv/store.h"

struct core_engine;
struct core_shard;
struct core_txn;
struct core_snapshot;

struct core_engine_config {
	const char *host;    /* where writers write from, as the state shows it; NULL: not told. Copied */
	const char *purpose; /* of the writer that core_txn_begin uses; NULL: not told. Copied */
	/* A notice from background work: one sentence. Any thread. NULL: not told. */
	void (*notice)(void *arg, const char *sentence);
	void *notice_arg;
	uint64_t (*now_us)(void *arg); /* the time since 1970 in us; NULL: the system's clock */
	void *now_arg;
	/* How often the leases of readers are looked after, on a store that others write to as well; 0: once
	 * a minute. */
	unsigned keeper_ms;
	bool no_upkeep;   /* nothing is merged or collected but what is asked for (core/upkeep.h) */
	unsigned rest_ms; /* after its last commit a shard rests, and is tidied up further; 0: after 5 seconds
			   */
};

/* store is taken, also on failure. config is copied; NULL: all defaults. */
enum kv_rc core_engine_open(struct kv_store *store, const struct core_engine_config *config,
			    struct core_engine **out, struct kv_err *err) KV_MUST_CHECK;

/* Finish background work and close the store. Every shard is closed before. NULL is allowed. */
void core_engine_close(struct core_engine *e);

/* Until all have been told that the calls which have returned were to wake (core_shard_wait). NULL is
 * allowed. */
void core_engine_drain(struct core_engine *e);

bool core_engine_read_only(const struct core_engine *e);
enum kv_rc core_engine_usage(struct core_engine *e, struct kv_usage *out, struct kv_err *err) KV_MUST_CHECK;

/* --- shards ---------------------------------------------------------------------------------------- */

/* Make an empty shard. KV_SHARD_EXISTS. */
enum kv_rc core_shard_create(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
			     struct kv_err *err) KV_MUST_CHECK;

/* A handle on a shard; close it. KV_NO_SHARD. */
enum kv_rc core_shard_open(struct core_engine *e, struct core_shard_id id, struct core_shard **out,
			   struct kv_err *err) KV_MUST_CHECK;
struct core_shard *core_shard_ref(struct core_shard *s);
void core_shard_close(struct core_shard *s); /* NULL is allowed */

struct core_shard_id core_shard_id(const struct core_shard *s);

/*
 * End a shard and everything of it. Handles that are open see it gone.
 * KV_NOT_FINISHED  its upper or a hold is not empty; nothing was done
 * KV_NO_SHARD      it is gone already
 */
enum kv_rc core_shard_remove(struct core_shard *s, struct kv_err *err) KV_MUST_CHECK;

/* Up to limit ids of shards, as text, greater than `after` (""), ascending. Fewer do not mean that there are
 * no more; none do. */
enum kv_rc core_shard_list(struct core_engine *e, const char *after, size_t limit, struct kv_keys *out,
			   struct kv_err *err) KV_MUST_CHECK;

/* What is known of a shard, copied. */
struct core_info {
	uint64_t seqno;
	uint64_t first_seqno;
	struct core_frontier since;
	struct core_frontier upper;
	uint64_t created_ms;
	uint64_t changed_ms;
	struct core_owner owner;
};

/*
 * As known here: never older than what this process was told, a little behind other writers of a shared
 * store. With recent: asked of consensus, so not older than any append acknowledged before the call.
 * KV_NO_SHARD
 */
enum kv_rc core_shard_info(struct core_shard *s, bool recent, struct core_info *out,
			   struct kv_err *err) KV_MUST_CHECK;

/* A copy of the whole state, its batches by reference; free with core_state_fini. KV_NO_SHARD. */
enum kv_rc core_shard_state(struct core_shard *s, struct core_state *out, struct kv_err *err) KV_MUST_CHECK;

/* Bytes that such a state takes where it is stored. KV_NOMEM */
enum kv_rc core_state_size(struct core_shard_id id, const struct core_state *s, uint64_t *bytes,
			   struct kv_err *err) KV_MUST_CHECK;

/* The committed batch [lower, upper), a reference. KV_NO_BATCH, KV_NO_SHARD. */
enum kv_rc core_shard_batch(struct core_shard *s, struct core_frontier lower, struct core_frontier upper,
			    struct core_batch **out, struct kv_err *err) KV_MUST_CHECK;

/* Where its parts are, for core_scan; valid while the shard is open. */
const struct core_home *core_shard_home(const struct core_shard *s);

/* Who appends, as registered in the state; given, free with free(). KV_NO_SHARD */
enum kv_rc core_shard_writers(struct core_shard *s, struct core_writer_state **out, size_t *count,
			      struct kv_err *err) KV_MUST_CHECK;

/* KV_NO_SHARD */
enum kv_rc core_shard_set_owner(struct core_shard *s, struct core_owner owner,
				struct kv_err *err) KV_MUST_CHECK;

/* Move the hold `name` to since, or let it follow the upper at distance follow (if not 0). Moving it back
 * changes nothing. KV_NO_SHARD, KV_NOTFOUND, KV_FENCED (its token is not 0). */
enum kv_rc core_shard_move_hold(struct core_shard *s, const char *name, struct core_frontier since,
				uint64_t follow, struct kv_err *err) KV_MUST_CHECK;

/*
 * Holds are durable and critical: they outlive every process, and since does not pass them. Each has a
 * fencing token, at first 0, by which one who took a hold over keeps the one before from moving it.
 */
/*
 * Move a hold forward, or make it. A since below that of the hold leaves it where it is (its token is set all
 * the same). out (may be NULL): the hold as it is then.
 * KV_FENCED     its token is another one, or it has one and ask does not compare; out says which, and where
 * KV_COMPACTED  a hold cannot be made below the shard's since
 * KV_QUOTA      there are CORE_HOLDS_MAX
 * KV_BAD_NAME, KV_NO_SHARD
 */
enum kv_rc core_hold_set(struct core_shard *s, const char *name, const struct core_hold_ask *ask,
			 struct core_hold *out, struct kv_err *err) KV_MUST_CHECK;

/* KV_NOTFOUND, KV_NO_SHARD */
enum kv_rc core_hold_get(struct core_shard *s, const char *name, struct core_hold *out,
			 struct kv_err *err) KV_MUST_CHECK;

/* All holds; given, free with free(). KV_NO_SHARD */
enum kv_rc core_hold_list(struct core_shard *s, struct core_hold **out, size_t *count,
			  struct kv_err *err) KV_MUST_CHECK;

/* Give a hold up. KV_NOT_HERE: that of CORE_DEFAULT_HOLD; one with a token whose since is not empty yet.
 * KV_NOTFOUND, KV_NO_SHARD */
enum kv_rc core_hold_drop(struct core_shard *s, const char *name, struct kv_err *err) KV_MUST_CHECK;

/* --- waiting --------------------------------------------------------------------------------------- */

/*
 * Told once when the shard's upper has passed `time` (time < upper), or the shard is gone. The callback runs
 * on the thread that made the change or on one of the engine's, without locks; it must not block.
 */
struct core_waiter {
	struct core_waiter *next; /* the engine's, while it waits; NULL before, as at */
	struct core_waiter **at;
	uint64_t time;
	void (*wake)(struct core_waiter *w);
};

/* Whether appends with data may soon have to wait for merges; costs nothing. Who lets many append at a time
 * should let few until it is over: these wait in their threads. */
bool core_shard_is_slow(const struct core_shard *s);

/* True: w waits now, and must stay where it is until it is woken or removed. False: there is nothing to
 * wait for, and wake is not called. */
bool core_shard_wait(struct core_shard *s, struct core_waiter *w);

/* True: w does not wait any more and will not be woken. False: it was or is being woken (core_engine_drain
 * waits for the end of that). */
bool core_shard_unwait(struct core_shard *s, struct core_waiter *w);

/*
 * Wait until the upper has passed a time, for timeout_ms at most (-1: for ever); the calling thread sleeps.
 * *upper: as it was then. A time that the upper known here has passed is not asked of consensus.
 * KV_WOULD_BLOCK  the time is over
 * KV_NO_SHARD     the shard is gone, as far as this process knows
 */
enum kv_rc core_shard_wait_past(struct core_shard *s, uint64_t time, int timeout_ms,
				struct core_frontier *upper, struct kv_err *err) KV_MUST_CHECK;

/* Who reads, for those who look. */
struct core_reader {
	char purpose[CORE_PURPOSE_LEN]; /* "listen", "as_of/7" ... */
	int64_t pid;                    /* 0: not told */
	uint64_t since_ms;              /* when it began, ms since 1970 */
};

/*
 * A time that somebody here still needs: since does not pass it. It holds from core_shard_need on; the one
 * who reads checks since after that. It is not durable: it ends with the process. Where others write to the
 * store too, the least time of all needs of the process stands in the state as a leased reader, which
 * core_shard_need makes sure of, and which is renewed while there are needs.
 */
struct core_need {
	struct core_need *next; /* the engine's, while it holds */
	struct core_need **at;
	bool pins_only; /* needs no time: it has what it reads, and is on the list for those who look */
	uint64_t time;
	struct core_uuid id;       /* set by core_shard_need */
	struct core_reader reader; /* set by the caller before */
};

/* KV_OK, and codes of a commit where the state has to say it. */
enum kv_rc core_shard_need(struct core_shard *s, struct core_need *need, uint64_t time,
			   struct kv_err *err) KV_MUST_CHECK;
void core_shard_move_need(struct core_shard *s, struct core_need *need, uint64_t time); /* forward */
void core_shard_release(struct core_shard *s, struct core_need *need);

/* Who reads here, and who else holds a lease. */
struct core_reading {
	struct core_uuid id;
	char host[CORE_HOST_LEN];
	struct core_reader reader;
	bool pins_only;
	uint64_t time;         /* needed */
	uint64_t heartbeat_ms; /* of a lease of another process; 0: it reads here */
};

/* Given, free with free(). KV_NO_SHARD */
enum kv_rc core_shard_readers(struct core_shard *s, struct core_reading **out, size_t *count,
			      struct kv_err *err) KV_MUST_CHECK;

/* --- writing --------------------------------------------------------------------------------------- */

/*
 * Begin an append. Of ask everything but batch and rows is read, and copied. The shard must stay open until
 * the transaction is freed. Nothing of the shard's state is looked at before the commit.
 * KV_BAD_BOUNDS, KV_BAD_REWRITE
 */
enum kv_rc core_txn_begin(struct core_shard *s, const struct core_append *ask, struct core_txn **out,
			  struct kv_err *err) KV_MUST_CHECK;

/*
 * Add a row; its bytes are copied. What is large goes to the blob store while it comes in.
 * KV_NOT_BEYOND_LOWER, KV_BEYOND_UPPER, KV_EMPTY_INTERVAL, KV_ROW_TOO_LARGE, KV_BAD_SYNTAX (a `*` time
 * without a `*` lower): the transaction can then only be freed
 */
enum kv_rc core_txn_add(struct core_txn *t, const struct core_row *row, struct kv_err *err) KV_MUST_CHECK;

/*
 * Add a staged batch of the shard (core/staged.h), by name, to what is committed. It is looked up at commit,
 * which takes what has been written to it until then; success, also of a no-op append, consumes it.
 * KV_BAD_SYNTAX  it was added before, or CORE_TXN_BATCHES were
 */
enum { CORE_TXN_BATCHES = 1024 };
enum kv_rc core_txn_add_staged(struct core_txn *t, const char *name, struct kv_err *err) KV_MUST_CHECK;

/*
 * Commit atomically. KV_OK: durable, and visible to everyone who looks from now on. The transaction can only
 * be freed after it, whatever it returns.
 * KV_UPPER_MISMATCH   nothing was done; detail: expected_upper, current_upper
 * KV_TOKEN_REUSED, KV_BAD_BOUNDS, KV_BAD_REWRITE, KV_NOT_BEYOND_LOWER, KV_BEYOND_UPPER
 * KV_NO_BATCH         there is no such staged batch
 * KV_BATCH_BOUNDS     the append is wider than a staged batch with bounds
 * KV_BATCH_LOST       what was written to a staged batch is not all in it
 * KV_BAD_SYNTAX       the last row of a staged batch has no newline
 * KV_FENCED           since is to move the default hold, which has a token
 * KV_NO_SHARD, KV_SHARD_REPLACED   the shard is gone, or another one is under its id now
 * KV_UNKNOWN          done or not; the same append with the same token tells
 */
enum kv_rc core_txn_commit(struct core_txn *t, struct core_appended *r, struct kv_err *err) KV_MUST_CHECK;

/*
 * The same, but who is small enough to be committed with others waits for that without a thread: over is
 * called once, with no lock of the engine held, when the commit has ended as core_txn_commit tells; on this
 * thread, before this returns, or on another one. The transaction may be freed in it (*r and *err are its),
 * the shard stays open until then. Before it returns this thread may commit what others submit, for as long
 * as they do.
 */
typedef void core_txn_over(void *arg, enum kv_rc rc, const struct core_appended *r, struct kv_err *err);
void core_txn_submit(struct core_txn *t, core_txn_over *over, void *arg);
void core_txn_free(struct core_txn *t); /* NULL is allowed */

/* --- reading --------------------------------------------------------------------------------------- */

/* Which time a snapshot is of. */
struct core_as_of {
	bool latest;   /* the latest complete time, upper - 1; nothing at all when the upper is 0 */
	uint64_t time; /* else this one */
};

/*
 * Pin what the collection is as of a time. It stays the same until close, whatever happens to the shard.
 * KV_COMPACTED    the time is below since
 * KV_WOULD_BLOCK  the time is not complete yet: wait for it
 * KV_NO_SHARD
 */
enum kv_rc core_snapshot_open(struct core_shard *s, struct core_as_of as_of, struct core_snapshot **out,
			      struct kv_err *err) KV_MUST_CHECK;

/* The next row, sorted by key, then val, diff never 0, time as asked; *end instead when there is none. Key
 * and val are borrowed until the next call. KV_OVERFLOW: a sum of diffs leaves i64. */
enum kv_rc core_snapshot_next(struct core_snapshot *n, struct core_update *out, bool *end,
			      struct kv_err *err) KV_MUST_CHECK;

/* It is not read for a while: give back buffers, until it is. The row given last is gone. */
void core_snapshot_rest(struct core_snapshot *n);

/* Bytes of memory in buffers: that it has now; and about how many it takes to go on. */
size_t core_snapshot_held(const struct core_snapshot *n);
size_t core_snapshot_need(const struct core_snapshot *n);

/* Begin again; the same content comes. */
void core_snapshot_rewind(struct core_snapshot *n);
void core_snapshot_close(struct core_snapshot *n); /* NULL is allowed */

#endif
