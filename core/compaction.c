/*
 * compaction.c - one merge: read its inputs, write their rows as one run, put that in their place.
 *
 *     pick (compact.c) -> merge (merge.c) -> builder -> parts in the blob store -> core_do_merge -> commit
 *
 * 1. Inputs are pinned by reference while they are read, and claimed on the shard's list, so that merges that
 *    run at the same time have different ones.
 * 2. The result is committed in a synced version: once it is known, its inputs may be deleted.
 * 3. A result that was not committed is deleted; unless the store did not tell, or it is found in the state:
 *    then its blobs are left, for the sweep at worst.
 * 4. Memory: windows of the cursors and three heaps of the builder (merge.h, builder.h).
 * 5. Reading, merging and encoding run in a thread of the lowest priority, which holds no lock that commits
 *    take for more than a moment. Committing the result and deleting run at the priority of everybody else:
 * who is put off while he holds a lock puts off those who wait for it.
 * 6. While commits come it also gives way (pace.h), unless it is waited for.
 */
#include <assert.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/builder.h"
#include "core/merge.h"
#include "core/pace.h"
#include "core/upkeep_impl.h"

/* Rows in memory before a part is written: few for what is small, for several merges may run at a time. */
enum { SMALL_PART = 4 << 20, LARGE_PART = 12 << 20, LONG_BYTES = 64 << 10 };

enum {
	LOOK_UP_ROWS = 1024,
	GIVE_WAY_ROWS = 64,
	PRESSED_RUNS = 64,
	PRESSED_QUEUE = 4,
	STARVING_US = 3000000,
	STARVING_SHARE = 20
};

/* --- picking --------------------------------------------------------------------------------------- */

/* Where the batches begin that no running merge has. Under mu. */
static size_t unclaimed(const struct core_shard *s)
{
	size_t from = 0;

	for (const struct core_merge_run *run = s->merging; run != NULL; run = run->next) {
		struct core_frontier upper = run->inputs[run->count - 1]->upper;

		while (from < s->state.batch_count && core_frontier_lt(s->state.batches[from]->lower, upper))
			from++;
	}
	return from;
}

/* Fill run with the batches of the range. Under mu. */
static bool claim(struct core_shard *s, struct core_merge_range range, struct core_merge_run *run)
{
	const struct core_state *st = &s->state;

	*run = (struct core_merge_run){
		.count = range.end - range.first,
		.forgets = st->since.empty,
		.since = core_merge_advance(st, st->batches[range.end - 1]->upper),
		.begun_ms = core_now_us(s->engine) / 1000,
	};
	run->inputs = calloc(run->count, sizeof(struct core_batch *));
	if (run->inputs == NULL)
		return false;
	for (size_t i = 0; i < run->count; i++) {
		run->inputs[i] = core_batch_ref(st->batches[range.first + i]);
		run->bytes += run->inputs[i]->bytes;
		run->rows += run->inputs[i]->rows;
	}
	run->next = s->merging;
	s->merging = run;
	return true;
}

bool core_compact_begin(struct core_shard *s, const struct core_merge_ask *ask, struct core_frontier upto,
			struct core_merge_run *run)
{
	struct core_merge_range range;
	size_t from, end;
	bool picked = false;

	pthread_mutex_lock(&s->mu);
	if (s->loaded && !s->gone && !s->state.tombstone &&
	    (ask->aim != CORE_AIM_ONE || s->merging == NULL)) {
		from = unclaimed(s);
		end = core_merge_prefix(&s->state);
		while (end > from && !core_frontier_lt(s->state.batches[end - 1]->lower, upto))
			end--;
		picked = core_merge_pick(&s->state, from, end, ask, &range) && claim(s, range, run);
	}
	pthread_mutex_unlock(&s->mu);
	return picked;
}

void core_compact_drop(struct core_shard *s, struct core_merge_run *run)
{
	pthread_mutex_lock(&s->mu);
	for (struct core_merge_run **p = &s->merging; *p != NULL; p = &(*p)->next) {
		if (*p == run) {
			*p = run->next;
			break;
		}
	}
	pthread_mutex_unlock(&s->mu);
	for (size_t i = 0; i < run->count; i++)
		core_batch_unref(run->inputs[i]);
	free(run->inputs);
	run->inputs = NULL;
}

bool core_is_due_at_rest(struct core_shard *s)
{
	struct core_merge_ask ask = {.aim = CORE_AIM_REST};
	struct core_merge_range range;
	size_t prefix;
	bool due;

	pthread_mutex_lock(&s->mu);
	prefix = core_merge_prefix(&s->state);
	due = core_gc_is_due(s) || s->state.batch_count - prefix > 1 ||
	      core_merge_pick(&s->state, 0, prefix, &ask, &range);
	pthread_mutex_unlock(&s->mu);
	return due;
}

bool core_compact_is_small_running(const struct core_shard *s)
{
	for (const struct core_merge_run *run = s->merging; run != NULL; run = run->next)
		if (run->bytes <= CORE_MERGE_LARGE)
			return true;
	return false;
}

/* --- merging --------------------------------------------------------------------------------------- */

/* A merge on its way; it may go from one thread to another between two rows. */
struct building {
	struct core_shard *shard;
	struct core_merge_run *run;
	struct core_home home;
	struct core_pace pace;
	struct core_merge *merge;
	struct core_builder *builder;
	uint64_t rows;
	bool idly;     /* it runs at idle priority */
	bool put_down; /* it stopped for another to go on */
	bool end;
	struct core_frontier lower, upper;
	struct core_batch *out; /* at the end */
	uint64_t began_us;
	struct kv_err err;
	enum kv_rc rc;
};

static uint64_t cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Whether the merge must not wait for idle processors any longer: appends are about to wait for it, others of
 * the queue do, or there are none. */
static bool is_pressed(const struct building *b)
{
	const struct core_metrics *m = &b->shard->engine->metrics;
	uint64_t took_us = core_ticks_us() - b->began_us;

	return atomic_load_explicit(&b->shard->runs, memory_order_relaxed) > PRESSED_RUNS ||
	       atomic_load_explicit(&m->gauges[CORE_G_UPKEEP_QUEUE], memory_order_relaxed) > PRESSED_QUEUE ||
	       (took_us > STARVING_US && cpu_us() < took_us / STARVING_SHARE);
}

/* Put down what others wait for; from there on it gives way to nobody. */
static void look_up(struct building *b)
{
	b->put_down = b->idly && is_pressed(b);
	if (b->put_down)
		b->pace.off = true;
}

/* Rows of the inputs into the builder, to the end, or until the merge is put down. */
static void go_on(struct building *b)
{
	while (b->rc == KV_OK) {
		struct core_update u;

		b->rc = core_merge_next(b->merge, &u, &b->end, &b->err);
		if (b->rc != KV_OK || b->end)
			break;
		b->rc = core_builder_add(b->builder, &u, false, &b->err);
		if (b->rc == KV_OK && core_upkeep_stops(b->shard->engine)) /* each time: rows may be large */
			b->rc = kv_fail_rc(&b->err, KV_SHUTDOWN);
		if (++b->rows % GIVE_WAY_ROWS == 0)
			core_give_way(b->home.pace);
		if (b->rows % LOOK_UP_ROWS != 0)
			continue;
		atomic_store(&b->run->rows_done, b->rows);
		look_up(b);
		if (b->put_down)
			break;
	}
	if (b->end)
		look_up(b); /* the last part is as much work as any */
}

static void finish(struct building *b)
{
	if (b->rc == KV_OK && b->end && !b->put_down)
		b->rc = core_builder_finish(b->builder, b->lower, b->upper, &b->out, &b->err);
}

static void open_and_go_on(struct building *b)
{
	struct core_builder_config config = {
		.target_bytes = b->run->bytes > CORE_MERGE_LARGE ? LARGE_PART : SMALL_PART,
		.never_inline = true,
		.no_helper = true, /* it would keep the priority of the thread that first had it */
	};

	b->rc = core_builder_new(&b->home, config, &b->builder, &b->err);
	if (b->rc == KV_OK)
		b->rc = core_merge_open(&b->home, b->run->inputs, b->run->count, CORE_MERGE_ADVANCE,
					b->run->since, &b->merge, &b->err);
	if (b->rc == KV_OK)
		go_on(b);
	finish(b);
}

static void *build_idly(void *arg)
{
	struct building *b = arg;

	/* If that cannot be had, at the usual priority. */
	(void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &(struct sched_param){0});
	open_and_go_on(b);
	return NULL;
}

/* At idle priority, in a thread for it, unless the merge is small or has to be done now; what that one puts
 * down is taken up here. */
static void merge_all(struct building *b)
{
	pthread_t thread;

	bool pressed = is_pressed(b);

	b->pace.off = pressed;
	b->idly = b->run->bytes >= LONG_BYTES && !pressed;
	if (b->idly && pthread_create(&thread, NULL, build_idly, b) == 0) {
		pthread_join(thread, NULL);
		b->idly = false;
		if (b->put_down) {
			b->put_down = false;
			if (!b->end)
				go_on(b);
			finish(b);
		}
		return;
	}
	b->idly = false;
	open_and_go_on(b);
}

/* The batch that is to take the inputs' place; given. */
static enum kv_rc build(struct core_shard *s, struct core_merge_run *run, struct core_batch **out,
			struct kv_err *err)
{
	struct building b = {.shard = s,
			     .run = run,
			     .home = s->home,
			     .lower = run->inputs[0]->lower,
			     .upper = run->inputs[run->count - 1]->upper,
			     .began_us = core_ticks_us()};

	core_pace_init(&b.pace, &s->engine->metrics.counters[CORE_M_VERSIONS]);
	b.home.pace = &b.pace;
	b.home.builders = NULL; /* not the engine's turns: who commits must not wait for a merge */
	if (run->forgets) {
		b.out = core_batch_new(b.lower, b.upper);
		b.rc = b.out != NULL ? KV_OK : kv_fail_rc(&b.err, KV_NOMEM);
	} else {
		merge_all(&b);
		core_merge_close(b.merge);
		core_builder_free(b.builder);
	}
	core_count(s->engine, CORE_M_MERGE_PAUSES, b.pace.pauses);
	assert((b.rc == KV_OK) == (b.out != NULL));
	*out = b.out;
	if (b.rc == KV_OK)
		(*out)->since = core_frontier_at(run->since);
	else if (err != NULL)
		*err = b.err;
	return b.rc;
}

struct merge_change {
	struct core_change change;
	struct core_merged merged;
	bool fits;
	bool there;
};

static enum kv_rc run_merge(struct core_change *change, const struct core_state *s, struct core_diff *d,
			    bool *skip, struct kv_err *err)
{
	struct merge_change *c = (struct merge_change *)change;
	enum kv_rc rc = core_do_merge(s, &c->merged, d, &c->fits, &c->there, err);

	*skip = rc == KV_OK && (!c->fits || c->there);
	return rc;
}

static void count_merge(struct core_engine *e, const struct core_merge_run *run, const struct core_batch *out,
			struct core_upkeep_result *result)
{
	core_count(e, CORE_M_MERGES, 1);
	core_count(e, CORE_M_MERGE_IN_UPDATES, run->rows);
	core_count(e, CORE_M_MERGE_OUT_UPDATES, out->rows);
	core_count(e, CORE_M_MERGE_IN_BYTES, run->bytes);
	core_count(e, CORE_M_MERGE_OUT_BYTES, out->bytes);
	result->merges++;
	result->in_updates += run->rows;
	result->in_bytes += run->bytes;
	result->out_updates += out->rows;
	result->out_bytes += out->bytes;
}

/* Another host may have merged the inputs, and deleted them, while they were read here. Whether that is why
 * a part was gone, as far as can be told now. */
static bool were_replaced(struct core_shard *s, const struct core_merged *merged)
{
	struct kv_err err;
	bool replaced = core_machine_load(s, true, &err) == KV_OK;

	if (replaced) {
		pthread_mutex_lock(&s->mu);
		replaced = !core_merge_is_open(&s->state, merged);
		pthread_mutex_unlock(&s->mu);
	}
	return replaced;
}

enum kv_rc core_compact_do(struct core_shard *s, struct core_merge_run *run, bool *fits,
			   struct core_upkeep_result *result, struct kv_err *err)
{
	struct merge_change c = {
		/* It lets space be given back, so it may use what a full store has left. */
		.change = {.run = run_merge, .sync = KV_RELEASE, .rearranges = true},
		.merged = {.inputs = run->inputs, .count = run->count, .forgets = run->forgets},
	};
	uint64_t began = core_ticks_us();
	enum kv_rc rc = build(s, run, &c.merged.output, err);

	if (rc == KV_OK)
		rc = core_machine_commit(s, &c.change, err);
	else if (rc == KV_GONE && were_replaced(s, &c.merged))
		rc = KV_OK; /* and it does not fit */
	*fits = rc == KV_OK && c.fits;
	if (*fits)
		count_merge(s->engine, run, c.merged.output, result);
	else if (rc == KV_OK)
		core_count(s->engine, CORE_M_MERGES_DROPPED, 1);
	else if (rc != KV_SHUTDOWN)
		core_count(s->engine, CORE_M_MERGES_FAILED, 1);
	if (c.merged.output != NULL && !*fits && rc != KV_UNKNOWN)
		core_batch_delete_blobs(&s->home, c.merged.output);
	core_batch_unref(c.merged.output);
	core_timed(s->engine, CORE_T_MERGE, began);
	core_compact_drop(s, run);
	return rc;
}

/* --- for those who look ---------------------------------------------------------------------------- */

static struct core_merging describe(struct core_batch *const *batches, size_t count)
{
	struct core_merging m = {
		.lower = batches[0]->lower, .upper = batches[count - 1]->upper, .batches = count};

	for (size_t i = 0; i < count; i++) {
		m.runs += batches[i]->run_count;
		m.updates += batches[i]->rows;
		m.bytes += batches[i]->bytes;
	}
	return m;
}

/* Under mu; out has room. */
static size_t list_merging(const struct core_shard *s, struct core_merging *out)
{
	struct core_merge_ask ask = {.aim = CORE_AIM_LEVELS};
	struct core_merge_range range;
	size_t count = 0;

	for (const struct core_merge_run *run = s->merging; run != NULL; run = run->next) {
		out[count] = describe(run->inputs, run->count);
		out[count].running = true;
		out[count].begun_ms = run->begun_ms;
		out[count++].updates_done = atomic_load(&run->rows_done);
	}
	if (core_merge_pick(&s->state, unclaimed(s), core_merge_prefix(&s->state), &ask, &range))
		out[count++] = describe(s->state.batches + range.first, range.end - range.first);
	return count;
}

enum kv_rc core_shard_merging(struct core_shard *s, struct core_merging **out, size_t *count,
			      struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, false, err);
	size_t room = 2;

	*out = NULL;
	*count = 0;
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	for (const struct core_merge_run *run = s->merging; run != NULL; run = run->next)
		room++;
	*out = calloc(room, sizeof **out);
	if (s->gone || s->state.tombstone)
		rc = kv_fail(err, KV_NO_SHARD, "the shard was removed");
	else if (*out == NULL)
		rc = kv_fail_rc(err, KV_NOMEM);
	else
		*count = list_merging(s, *out);
	pthread_mutex_unlock(&s->mu);
	if (rc != KV_OK) {
		free(*out);
		*out = NULL;
	}
	return rc;
}
