/*
 * upkeep_impl.h - what the files of maintenance share: upkeep.c (who does what, when), compaction.c (a
 * merge), gc.c (deleting what was replaced), sweep.c (deleting what nobody names).
 */
#ifndef CORE_UPKEEP_IMPL_H
#define CORE_UPKEEP_IMPL_H

#include "core/compact.h"
#include "core/engine_impl.h"
#include "core/upkeep.h"

/* A merge under way; on its shard's list, under the shard's mu. */
struct core_merge_run {
	struct core_merge_run *next;
	struct core_batch **inputs; /* a reference each */
	size_t count;
	uint64_t since; /* times are advanced to it */
	bool forgets;   /* nothing is readable any more: all rows go */
	uint64_t bytes;
	uint64_t rows;
	uint64_t begun_ms;
	_Atomic(uint64_t) rows_done;
};

/* --- compaction.c ---------------------------------------------------------------------------------- */

/*
 * Pick the merge that is due behind those that run (which CORE_AIM_ONE waits for: nothing is picked while any
 * runs) and among batches that begin below upto, and put it on the list. False: there is none; or no memory.
 */
bool core_compact_begin(struct core_shard *s, const struct core_merge_ask *ask, struct core_frontier upto,
			struct core_merge_run *run);

/*
 * Do it, and take it off the list. *fits: its result was committed.
 * KV_SHUTDOWN: the engine closes. Codes of reading and writing the store
 */
enum kv_rc core_compact_do(struct core_shard *s, struct core_merge_run *run, bool *fits,
			   struct core_upkeep_result *result, struct kv_err *err) KV_MUST_CHECK;

/* Take it off the list without doing it. */
void core_compact_drop(struct core_shard *s, struct core_merge_run *run);

/* Whether a merge runs that is not large. Under mu. */
bool core_compact_is_small_running(const struct core_shard *s);

#define CORE_MERGE_LARGE ((uint64_t)64 << 20) /* bytes of inputs above which a merge is large */

/* --- gc.c ------------------------------------------------------------------------------------------ */

/* Whether there may be something to delete. Under mu. */
bool core_gc_is_due(const struct core_shard *s);

/* Delete what can be. Each step can be the last: what is left is found again. */
enum kv_rc core_gc(struct core_shard *s, struct core_upkeep_result *result, struct kv_err *err) KV_MUST_CHECK;

/* --- sweep.c --------------------------------------------------------------------------------------- */

/* Delete the blobs under the shard's id that it does not name and whose writer is over. On a store that
 * others write to, nothing: who is over there nobody knows. */
enum kv_rc core_sweep_shard(struct core_shard *s, struct core_upkeep_result *result,
			    struct kv_err *err) KV_MUST_CHECK;

/* A visit of all shards, and of what is left of others, one by one. {0} to begin with. */
struct core_visit {
	char after[KV_KEY_MAX + 1]; /* where the next page begins */
	struct core_shard_id *ids;  /* the page's */
	size_t count;
	size_t at;
	unsigned tries;         /* of the one at hand */
	uint64_t not_before_us; /* these are upkeep.c's */
	uint64_t wait_us;
	bool runs;
	bool done;
};
void core_visit_fini(struct core_visit *v);

/* The next one: sweep it. *visited: the shard, a reference, or NULL; v->done at the end. After a failure the
 * same one is next, a few times. */
enum kv_rc core_sweep_next(struct core_engine *e, struct core_visit *v, struct core_shard **visited,
			   struct kv_err *err) KV_MUST_CHECK;

/* Whether something of a shard is due, at the latest when it rests. */
bool core_is_due_at_rest(struct core_shard *s);

/* --- life.c ---------------------------------------------------------------------------------------- */

/* Write a rollup of the newest version. KV_OK also if there is one. */
enum kv_rc core_write_rollup(struct core_shard *s, struct kv_err *err) KV_MUST_CHECK;

/* --- fold.c ---------------------------------------------------------------------------------------- */

/* Fold the tail now if it has two batches, or one that must be a blob; thorough: or that would change by it.
 * *folded: a version was committed. */
enum kv_rc core_fold_now(struct core_shard *s, bool hollow, bool thorough, bool *folded,
			 struct kv_err *err) KV_MUST_CHECK;

/* --- upkeep.c -------------------------------------------------------------------------------------- */

enum { CORE_UPKEEP_THREADS = 2 };

struct core_upkeeper {
	pthread_mutex_t mu; /* all below, and the upkeep fields of every shard */
	pthread_cond_t changed;
	struct core_shard *queue;
	struct core_shard **queue_end;
	struct core_shard *recent;
	uint64_t looked_us; /* at the recent ones */
	unsigned working;
	uint64_t tickets;
	bool large_runs;
	bool untidy; /* something was committed since the store was tidied up */
	struct core_visit visit;

	struct core_engine *engine;
	pthread_t threads[CORE_UPKEEP_THREADS];
	unsigned thread_count;
};

/* Have a pass made over the shard. Under core_upkeeper.mu. */
void core_upkeep_enqueue_locked(struct core_upkeeper *k, struct core_shard *s);

/* Run a merge that was begun. *ran: it ran, whatever came of it; else it is put off until a large one ends.
 */
enum kv_rc core_upkeep_merge(struct core_upkeeper *k, struct core_shard *s, struct core_merge_run *run,
			     bool *ran, struct core_upkeep_result *result, struct kv_err *err) KV_MUST_CHECK;

/*
 * Collect after a merge or fold that ended with rc: what is dead goes whatever became of that, or one that
 * fails each time, for want of room or for a damaged part, would be in the way of what makes room. rc, or if
 * that is KV_OK the codes of core_gc.
 */
enum kv_rc core_upkeep_collect(struct core_shard *s, enum kv_rc rc, struct core_upkeep_result *result,
			       struct kv_err *err) KV_MUST_CHECK;

/* --- upkeep_ask.c ---------------------------------------------------------------------------------- */

/* Do what was asked of the shard and nobody does, in the pass of that number. */
void core_upkeep_serve(struct core_upkeeper *k, struct core_shard *s, uint64_t pass);

/* Whether the tail has rows of batches that begin below upto; *hollow: there are batches before it. */
bool core_upkeep_tail_has_rows(struct core_shard *s, struct core_frontier upto, bool *hollow);

/* Whether a merge of the shard runs. core_upkeeper.mu may be held. */
bool core_upkeep_is_merging(struct core_shard *s);

#endif
