/*
 * engine_impl.h - what the files of the engine share; not for its users.
 *
 * Locks, in the order they may be taken (core/LOCKS.md):
 *   core_engine.make_mu  >  core_stage.mu  >  core_shard.commit_mu  >  core_upkeeper.mu  >  core_engine.mu  >
 *   core_shard.mu  >  core_worker.mu
 *   core_keeper.mu (leases.c) is taken alone
 */
#ifndef CORE_ENGINE_IMPL_H
#define CORE_ENGINE_IMPL_H

#include <pthread.h>

#include "core/builder.h"
#include "core/hash.h"
#include "core/metrics.h"
#include "core/part.h"
#include "core/shard.h"
#include "core/state_codec.h"
#include "core/worker.h"

enum {
	CORE_CACHED_SHARDS = 4096,     /* states kept without a handle on them */
	CORE_CACHED_BYTES = 8 << 20,   /* of them, about */
	CORE_ROLLUP_VERSIONS = 128,    /* versions after which a rollup is due */
	CORE_ROLLUP_SMALL = 256 << 10, /* bytes of a rollup above which its weight counts too (machine.c) */
	CORE_FOLD_BATCHES = 64,        /* small batches at the end that are folded into one */
	CORE_FOLD_MEMORY_MAX =
		32 << 10, /* bytes in memory (core/rows.h) up to which a folded batch stays inline */
	CORE_UNKNOWN_TRIES = 5,
	CORE_WRITER_LEASE_MS = 60 * 60 * 1000,
	CORE_READER_LEASE_MS = 15 * 60 * 1000, /* renewed when a quarter is over */
	CORE_KEEPER_MS = 60 * 1000,
	CORE_LOOSE_MAX = 256 << 10, /* parts up to this size go with the commit, in one durable step; above it
				       the copy costs more than a step */
	CORE_LOOSE_TOTAL = 4 << 20, /* of one commit; what is more is stored before */
};

/* The changes that wait for the commit under way (group.c). */
struct core_group {
	pthread_mutex_t mu;
	struct core_change *first;
	struct core_change **last; /* where the next one is linked */
	bool led;
	pthread_cond_t idle; /* it is not led */
	struct core_worker *worker;
	struct core_job job; /* of the worker, when it is to lead */

	struct core_making **makings; /* the leader's; in use is count */
	size_t count;
};

struct core_engine {
	/* Making a shard and burying a removed one under the same id exclude each other; held across store
	 * calls, which are rare and wait for nobody. */
	pthread_mutex_t make_mu;

	pthread_mutex_t mu;        /* the two below, and refs of every shard */
	struct core_shard *shards; /* by id; only those that may be used */
	struct core_shard *dying;  /* removed ones that somebody still reads */
	uint64_t idle_bytes;       /* of the states of those that nobody has open, about */

	pthread_mutex_t names_mu;     /* the two below, and refs of each document */
	struct core_names_doc *names; /* as decoded last, or NULL */
	uint64_t names_changes;

	struct kv_store *store;
	struct kv_store_traits traits;
	struct core_instance_id instance;
	_Atomic(uint64_t) rollup_tries; /* of this instance: each has a key of its own (life.c) */
	struct core_engine_config config;
	struct core_writer_state
		writer;             /* of transactions that have none of their own; its id is instance's */
	struct core_worker *worker; /* NULL while the engine closes */
	struct core_follower *follower; /* NULL: a sole owner hears of every change itself */
	struct core_worker *waker;      /* wakes those who wait, where they are many (waiters.c) */
	struct core_keeper
		*keeper; /* leases.c; NULL where there are no leases, and while the engine closes */
	struct core_upkeeper *upkeeper; /* upkeep.c; NULL: a read-only store, or the engine closes */
	_Atomic(bool) stops;            /* the engine closes: what runs in the background ends soon */
	_Atomic(uint64_t) attempts;     /* to commit, to tell them apart */
	struct core_metrics metrics;
	struct core_builders builders;
	struct core_group group;
};

/* A batch that left the state, and the version that replaced it. */
struct core_held {
	struct core_batch *batch; /* a reference */
	uint64_t seqno;
};

/* What upkeep.c keeps of a shard; under its lock but for the atomic ones. */
struct core_shard_upkeep {
	struct core_shard *next; /* on the queue */
	struct core_shard *next_recent;
	struct core_upkeep *asked;
	bool queued;
	bool rests;       /* for the next pass */
	bool waits_large; /* it is put on the queue when a large merge ends */
	uint64_t
		retry_us; /* what failed waits for so long, and twice as long the next time; 0: nothing did */
	uint64_t retry_due_us;
	uint64_t retry_at_us; /* before that nothing is merged or collected of itself */
	uint64_t begun;       /* passes, numbered from 1 */
	uint64_t useless;     /* the last one that merged nothing, and nothing was to be merged */
	_Atomic(bool) recent;
	_Atomic(bool) put_off;    /* what is on the recent list is there to be tried again */
	_Atomic(uint64_t) due_us; /* when it is looked at */
};

struct core_shard {
	/* Serializes commits and loading. It is held across store calls on purpose: versions of one shard
	 * follow each other anyway, and readers do not take it. */
	pthread_mutex_t commit_mu;
	uint64_t rollup_weight;    /* bytes of versions since the newest rollup */
	uint64_t rollup_bytes;     /* of the newest rollup */
	struct core_rollup rollup; /* where loading begins */
	bool rollup_queued;
	/* The tail: the batches at the end that have no blobs. Only they have inline parts (fold.c). */
	size_t tail;
	uint64_t inline_bytes;
	_Atomic(uint64_t) runs; /* of the batches before it; changed under commit_mu */

	pthread_mutex_t mu; /* the rest; held for moments */
	struct core_state state;
	bool loaded;
	bool doubtful; /* a commit may have landed that the state does not have: consensus must be asked */
	bool gone;     /* removed; never loaded again */
	struct core_waiter *waiters; /* ascending by time */
	struct core_need *needs;
	struct core_frontier letting_go; /* by the commit under way: needs below it come too late for it */
	struct core_stage *stages;       /* staged.c: staged batches that are open for writing */
	struct core_staged_pin *pins;    /* staged.c: those that are read */
	struct core_merge_run *merging;  /* compaction.c */
	struct core_held *held;          /* gc.c: batches that left the state, while somebody may read them */
	size_t held_count;
	size_t held_cap;

	struct core_shard_upkeep upkeep;

	unsigned refs;       /* these under core_engine.mu */
	uint64_t idle_bytes; /* counted in the engine's while nobody has it open */
	UT_hash_handle hh;
	bool hashed;
	bool cold; /* only visited: it is not kept when it is closed */
	struct core_shard *next_dying;

	struct core_engine *engine;
	struct core_home home; /* home.shard is its id */
};

struct core_content; /* below */

/* names.c: the document was changed. Also to let it go at the end. */
void core_names_forget(struct core_engine *e);

uint64_t core_now_us(const struct core_engine *e);
void core_notice(const struct core_engine *e, const char *fmt, ...) KV_PRINTF(2, 3);

enum core_turn_is { CORE_TURN_WAITS, CORE_TURN_LEADS, CORE_TURN_OVER };

/* Where a change stands in the queue; under core_group.mu, and the leader's while it works. */
struct core_turn {
	struct core_change *next;
	struct core_shard *shard;
	void (*over)(struct core_change *c); /* it has ended; NULL: somebody waits for that */
	enum core_turn_is is;                /* these two: if somebody waits */
	pthread_cond_t changed;
	enum kv_rc rc;
	struct kv_err *err; /* may be NULL */
	bool committed;
	uint64_t began_us;
};

/* A transition with its inputs, run once per attempt on the newest state. KV_OK: commit d. Otherwise the
 * call ends with its code (KV_OK with *skip: nothing to commit). */
struct core_change {
	enum kv_rc (*run)(struct core_change *c, const struct core_state *s, struct core_diff *d, bool *skip,
			  struct kv_err *err);
	enum kv_sync sync;
	const struct core_uuid *writer;  /* whose attempts these are; NULL: the engine's */
	bool appends_rows;               /* set by run: the first splice pushes a batch with rows */
	bool rearranges;                 /* it replaces batches: counts are made anew */
	bool folds;                      /* the tail is to be folded, and nothing else */
	bool hollow;                     /* to a blob */
	const struct kv_blob_put *blobs; /* to go with it */
	size_t blob_count;
	/* It may be committed with others of its kind: no blobs, no loose parts, and run looks at nothing but
	 * the state it is given. */
	bool groups;
	struct core_turn turn; /* group.c */
};

/*
 * Commit a change: run it, store the version, apply it, wake those who wait. Codes: those of c->run, and
 * KV_NO_SHARD, KV_SHARD_REPLACED, KV_UNKNOWN and those of the store.
 */
enum kv_rc core_machine_commit(struct core_shard *s, struct core_change *c, struct kv_err *err) KV_MUST_CHECK;

/*
 * The same, but the thread need not stay for it: over is called once, without locks, when c->turn.rc and *err
 * say how it ended; on this thread, before this returns, or another one. c is its caller's again from there
 * on, and until then the shard stays open. This thread may first commit what others bring, for as long as
 * they do.
 */
void core_machine_submit(struct core_shard *s, struct core_change *c, void (*over)(struct core_change *c),
			 struct kv_err *err);

/* machine.c: what follows commits, with and without commit_mu. synced: one of them was no mere housekeeping.
 */
void core_machine_after_locked(struct core_shard *s);
void core_machine_after(struct core_shard *s, bool synced, bool due);

/* group.c: as core_machine_commit and core_machine_submit, together with other changes that group and come at
 * the same time. */
enum kv_rc core_group_commit(struct core_shard *s, struct core_change *c, struct kv_err *err) KV_MUST_CHECK;
void core_group_submit(struct core_shard *s, struct core_change *c, void (*over)(struct core_change *c),
		       struct kv_err *err);
bool core_group_init(struct core_group *g); /* false: no memory or no thread; to be ended all the same */
void core_group_fini(struct core_group *g); /* when the last change has ended */

/* shard.c: a copy, to be freed with core_state_fini; it shares the batches. False: out of memory. */
bool core_state_copy(const struct core_state *s, struct core_state *out);

/* load.c. The _locked ones and the two after them run under commit_mu. */
char *core_shard_key(const struct core_shard *s, char buf[CORE_ID_LEN]);
enum kv_rc core_refresh_locked(struct core_shard *s, bool recent, struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_catch_up(struct core_shard *s, struct kv_err *err) KV_MUST_CHECK; /* to consensus' head */
/* Apply a version of so many bytes, which is stored. */
enum kv_rc core_apply_version(struct core_shard *s, const struct core_diff *d, size_t bytes,
			      struct kv_err *err) KV_MUST_CHECK;
/* load.c: all bytes of a blob; given. KV_CORRUPT: there are more than a blob may have; codes of kv_blob_get.
 */
enum kv_rc core_blob_read(struct kv_blobs *blobs, const char *key, struct core_buf *out,
			  struct kv_err *err) KV_MUST_CHECK;
/* load.c: room for what leaves the state with d and may be read still. Under mu. KV_NOMEM */
enum kv_rc core_reserve_held(struct core_shard *s, const struct core_diff *d,
			     struct kv_err *err) KV_MUST_CHECK;
/* Count tail and inline_bytes from the whole state; later core_fold_count keeps them up to date. */
void core_fold_recount(struct core_shard *s);

/* One reference more on a shard that may be idle. Under core_engine.mu. */
static inline void core_shard_take_locked(struct core_shard *s)
{
	s->engine->idle_bytes -= s->idle_bytes;
	s->idle_bytes = 0;
	s->refs++;
}

static inline void core_count(struct core_engine *e, enum core_counter which, uint64_t n)
{
	atomic_fetch_add_explicit(&e->metrics.counters[which], n, memory_order_relaxed);
}

static inline void core_gauge_add(struct core_engine *e, enum core_gauge which, int n)
{
	atomic_fetch_add_explicit(&e->metrics.gauges[which], (uint64_t)(int64_t)n, memory_order_relaxed);
}

static inline void core_timed(struct core_engine *e, enum core_time which, uint64_t began_us)
{
	core_histogram_add(&e->metrics.times[which], core_ticks_us() - began_us);
}

/* engine.c: where the blobs of a shard live; it need not be open. */
struct core_home core_home_of(struct core_engine *e, struct core_shard_id id);

/* engine.c: nobody has it any more, and it is in no table. */
void core_shard_free(struct core_shard *s);

/* bury.c: a removed shard of that id which is still read or not deleted yet; NULL: none. Under mu. */
struct core_shard *core_dying_locked(struct core_engine *e, struct core_shard_id id);
bool core_is_dying(struct core_engine *e, struct core_shard_id id);
/* bury.c: whether the newest version under this key of consensus is the tombstone of such a shard. */
bool core_dying_stands(struct core_engine *e, const char *key);
/* bury.c: the shard was removed: from the table to the list of the dying. */
void core_dying_add(struct core_shard *s);
/* bury.c: delete what a removed shard had, in the background; the last reference, which is taken. */
void core_queue_burial(struct core_shard *s);

/* engine.c: as core_shard_create, with content. KV_CORRUPT: the content breaks what must hold for a state. */
enum kv_rc core_shard_create_with(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
				  const struct core_content *content, struct kv_err *err) KV_MUST_CHECK;

/* engine.c: as core_shard_open, for a look that is not to fill the cache. */
enum kv_rc core_shard_visit(struct core_engine *e, struct core_shard_id id, struct core_shard **out,
			    struct kv_err *err) KV_MUST_CHECK;

/* upkeep.c: the threads. False: no memory or no thread. */
bool core_upkeeper_start(struct core_engine *e);
/* Nothing is begun any more, and what runs has ended; later, with no other thread there, the rest. */
void core_upkeeper_stop(struct core_engine *e);
void core_upkeeper_free(struct core_engine *e);
/* upkeep.c: whether what runs in the background should end. */
bool core_upkeep_stops(const struct core_engine *e);
/* upkeep.c: something is due in the shard; or something was committed, so that it may be when it rests. */
void core_upkeep_queue(struct core_shard *s);
void core_upkeep_touch(struct core_shard *s);
/* upkeep.c: wait while the shard has too many runs, for as long as merges of it go on. Without locks. */
void core_upkeep_admit(struct core_shard *s);

/*
 * gc.c: batches that left the state. Room for count more, KV_NOMEM; one that version seqno replaced (there is
 * room); the newest version all of whose parts that somebody here reads stand in it still. All under mu. The
 * end: with nobody else there.
 */
enum kv_rc core_held_reserve(struct core_shard *s, size_t count, struct kv_err *err) KV_MUST_CHECK;
void core_held_add(struct core_shard *s, struct core_batch *b, uint64_t seqno);
uint64_t core_held_seqno(struct core_shard *s);
void core_held_end(struct core_shard *s);

/* life.c: have a rollup written in the background. Under commit_mu. */
void core_queue_rollup(struct core_shard *s);

/* write.c: copy a text (NULL: an empty one), cut to size between two characters of UTF-8. */
void core_copy_text(char *to, size_t size, const char *from);

/* write.c: a writer as it is registered; the texts are copied, and cut. */
struct core_writer_state core_writer_describe(struct core_uuid id, const char *host, const char *purpose);

/* writers.c: strike the writer `id` if the shard has it. KV_OK also if it has not, or is gone. */
enum kv_rc core_expire(struct core_shard *s, struct core_uuid id, enum kv_sync sync,
		       struct kv_err *err) KV_MUST_CHECK;
/* writers.c: whether the engine's own writer is registered. Under mu, or with nobody else there. */
bool core_own_writer_stands(const struct core_shard *s);
/* writers.c: strike the engine's writer in the background, with a reference, which is taken. False: no
 * memory, nothing done. */
bool core_queue_expire(struct core_shard *s);

/*
 * leases.c: before a diff that is stamped, and follows st, is committed, add what is due of our lease, and
 * settle since: as far as all who hold it let it go. Under commit_mu; core_since_held comes when the commit
 * has ended.
 */
void core_hold_since(struct core_shard *s, const struct core_state *st, struct core_diff *d);
void core_since_held(struct core_shard *s);
/* leases.c: whether the state has a lease of ours. Under mu, or with nobody else there. */
bool core_own_lease_stands(const struct core_shard *s);
/* leases.c: end our lease, if nobody reads here; at once, or in the background as core_queue_expire does. */
void core_end_lease(struct core_shard *s);
bool core_queue_end_lease(struct core_shard *s);
/* leases.c: one pass over the shards, committing what is due of our leases: the keeper's work. */
void core_leases_keep(struct core_engine *e);
/* leases.c: the thread that does so, where there can be leases. False: no memory or no thread. */
bool core_keeper_start(struct core_engine *e);
void core_keeper_stop(struct core_engine *e);

/* Make sure the state is loaded; with recent, that it is as new as consensus. KV_NO_SHARD. */
enum kv_rc core_machine_load(struct core_shard *s, bool recent, struct kv_err *err) KV_MUST_CHECK;

/* What a new shard has from its first version on (import.c). All borrowed, the batch by reference. */
struct core_content {
	struct core_frontier since;
	struct core_frontier upper;
	struct core_batch *batch; /* [0, upper); NULL: the upper is 0 */
	const struct core_hold *holds;
	size_t hold_count;
	const struct core_done *tokens; /* oldest first; their seqnos become that of the first version */
	size_t token_count;
	uint64_t created_ms; /* 0: now */
};
/* import.c: into a state as core_state_init leaves it. KV_NOMEM */
enum kv_rc core_content_fill(const struct core_content *content, struct core_state *s,
			     struct kv_err *err) KV_MUST_CHECK;

/* Store the first version of a new shard over version `over` (KV_NO_VERSION, or that of a tombstone whose
 * readers are not done). KV_MISMATCH: there is something else. */
enum kv_rc core_machine_init(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
			     const struct core_content *content, uint64_t over,
			     struct kv_err *err) KV_MUST_CHECK;

/* waiters.c: ask consensus for those who wait, every now and then, where others write. False: no memory or no
 * thread. */
bool core_follower_start(struct core_engine *e);
void core_follower_stop(struct core_engine *e);

/* Wake those whose time the upper has passed. Without locks. */
void core_machine_wake(struct core_shard *s);

/*
 * life.c: a durable mark that a shard is being removed, made before the tombstone and taken away when all of
 * it is deleted, so that the next start finds what was cut short. KV_OK also if it is there, or not, already.
 */
enum kv_rc core_dying_mark(struct core_engine *e, struct core_shard_id id, struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_dying_unmark(struct core_engine *e, struct core_shard_id id,
			     struct kv_err *err) KV_MUST_CHECK;
/* Go on with the removals that were cut short. */
enum kv_rc core_dying_resume(struct core_engine *e, struct kv_err *err) KV_MUST_CHECK;

/* Mark the shard gone and wake all who wait for it. */
void core_machine_end(struct core_shard *s);

enum core_burial {
	CORE_BURY_ALL,   /* everything under its id, then the versions */
	CORE_BURY_NAMED, /* what it names itself; others of its id are still read */
	CORE_BURY_NOTHING,
};

/* Delete what is left of a tombstone, then its versions; nobody holds it. A live shard under its id keeps
 * what it has. Under make_mu. Resumable. */
enum kv_rc core_machine_bury(struct core_shard *s, enum core_burial burial, struct kv_err *err) KV_MUST_CHECK;

/*
 * If that is due, replace the tail by one batch (fold.c), as a splice of d before that of the append. A
 * hollow result's bytes are in *blob (given, free) and its key in key; otherwise *blob is empty.
 */
enum kv_rc core_fold(struct core_shard *s, struct core_diff *d, struct core_buf *blob,
		     char key[CORE_BLOB_KEY_LEN], struct kv_err *err) KV_MUST_CHECK;

/* What a diff that was committed makes of tail and inline_bytes. */
void core_fold_count(struct core_shard *s, const struct core_diff *d);

/* Fold the tail, due or not, as the only splice of d; hollow: to a blob. */
enum kv_rc core_fold_tail(struct core_shard *s, bool hollow, struct core_diff *d, struct core_buf *blob,
			  char key[CORE_BLOB_KEY_LEN], struct kv_err *err) KV_MUST_CHECK;

#endif
