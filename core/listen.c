/*
 * listen.c - see listen.h.
 *
 * A step is one committed batch, or several that follow each other where they are
 * small, so that one who is far behind catches up in few steps. A batch may cover
 * times that were given already (it was merged meanwhile): the rows below the
 * frontier are left out by giving the cursor a lower bound of its own.
 *
 * Invariants:
 *  1. need.time = max(frontier - 1, 0) for the frontier of the step in hand, taken
 *     before since is checked; it moves when the next step's batches are pinned.
 *  2. the batches in hand cover [lower, upper) of the step.
 */
#include "core/listen.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/cursor.h"
#include "core/engine_impl.h"

/* Batches of a step together have at most so many bytes of parts and are at most so many; one alone may be
 * larger. */
enum { STEP_BYTES = 64 << 10, STEP_BATCHES = 256, WINDOW = 256 << 10 };

struct core_listen {
	struct core_shard *shard;
	struct core_need need;
	struct core_frontier frontier; /* where the next step begins */
	struct core_step step;
	struct core_batch *batches[STEP_BATCHES];
	size_t count;
	size_t at; /* the batch the cursor is in */
	bool reading;
	struct core_cursor cursor;
};

static uint64_t time_held(struct core_frontier f)
{
	/* A listener from the empty frontier on has all it wants: it holds the last time there is. */
	if (f.empty)
		return UINT64_MAX;
	return f.t == 0 ? 0 : f.t - 1;
}

static bool readable(struct core_frontier since, struct core_frontier from)
{
	struct core_frontier zero = core_frontier_at(0);

	return from.empty || core_frontier_lt(since, from) ||
	       (core_frontier_eq(from, zero) && core_frontier_eq(since, zero));
}

static enum kv_rc compacted(struct core_frontier since, struct core_frontier from, struct kv_err *err)
{
	char at[CORE_FRONTIER_LEN], text[CORE_FRONTIER_LEN];

	core_frontier_format(from, at);
	core_frontier_format(since, text);
	kv_fail(err, KV_COMPACTED, "frontier %s is not above since, %s: what happened there was given up", at,
		text);
	kv_detail(err, "frontier=%s since=%s", at, text);
	return KV_COMPACTED;
}

enum kv_rc core_listen_open(struct core_shard *s, struct core_frontier from, const struct core_reader *reader,
			    struct core_listen **out, struct kv_err *err)
{
	struct core_listen *l = calloc(1, sizeof *l);
	struct core_info info;
	enum kv_rc rc;

	*out = NULL;
	if (l == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	l->shard = s;
	l->frontier = from;
	l->need.reader = *reader;
	/* First the hold, then the check: what is readable now stays so. */
	rc = core_shard_need(s, &l->need, time_held(from), err);
	if (rc != KV_OK) {
		free(l);
		return rc;
	}
	rc = core_shard_info(s, true, &info, err);
	if (rc == KV_OK && !readable(info.since, from))
		rc = compacted(info.since, from, err);
	if (rc == KV_OK)
		*out = l;
	else
		core_listen_close(l);
	return rc;
}

static void drop_step(struct core_listen *l)
{
	if (l->reading)
		core_cursor_fini(&l->cursor);
	l->reading = false;
	for (size_t i = 0; i < l->count; i++)
		core_batch_unref(l->batches[i]);
	l->count = 0;
	l->at = 0;
}

static uint64_t bytes_of(const struct core_batch *b)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < b->part_count; i++)
		bytes += b->parts[i].size;
	return bytes;
}

/* The number of the batch with lower <= f < upper. Under mu; there is one. */
static size_t batch_of(const struct core_state *s, struct core_frontier f)
{
	size_t lo = 0, hi = s->batch_count;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (core_frontier_le(s->batches[mid]->lower, f))
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* References on the batches of the next step. Under mu; the upper has passed the frontier. */
static void take_step(struct core_listen *l, const struct core_state *s)
{
	size_t i = batch_of(s, l->frontier);
	uint64_t bytes = 0;

	l->step = (struct core_step){.lower = l->frontier, .upper = l->frontier};
	for (; i < s->batch_count && l->count < STEP_BATCHES; i++) {
		bytes += bytes_of(s->batches[i]);
		if (l->count != 0 && bytes > STEP_BYTES)
			break;
		l->batches[l->count++] = core_batch_ref(s->batches[i]);
		l->step.upper = s->batches[i]->upper;
	}
	l->frontier = l->step.upper;
}

enum kv_rc core_listen_step(struct core_listen *l, struct core_step *step, bool *end, struct kv_err *err)
{
	struct core_shard *s = l->shard;
	enum kv_rc rc = KV_OK;
	bool gone;

	*end = l->frontier.empty;
	drop_step(l);
	if (*end)
		return KV_OK;
	pthread_mutex_lock(&s->mu);
	gone = s->gone || s->state.tombstone;
	pthread_mutex_unlock(&s->mu);
	/* A shard that was removed is finished, and what it had stays while somebody has it open. */
	if (!gone)
		rc = core_machine_load(s, false, err);
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	if (core_frontier_le(s->state.upper, l->frontier))
		rc = gone ? kv_fail(err, KV_NO_SHARD, "the shard was removed")
			  : kv_fail(err, KV_WOULD_BLOCK, "nothing new yet");
	else if (!readable(s->state.since, l->frontier))
		rc = compacted(s->state.since, l->frontier, err); /* our lease ran out, or nothing held it */
	else
		take_step(l, &s->state);
	pthread_mutex_unlock(&s->mu);
	if (rc != KV_OK)
		return rc;
	core_shard_move_need(s, &l->need, time_held(l->frontier));
	*step = l->step;
	return KV_OK;
}

enum kv_rc core_listen_next(struct core_listen *l, struct core_update *out, bool *end, struct kv_err *err)
{
	for (;;) {
		bool batch_end = false;
		enum kv_rc rc;

		*end = l->at == l->count;
		if (*end)
			return KV_OK;
		struct core_batch *b = l->batches[l->at];
		if (!l->reading) {
			/* Not a merge: nothing is advanced, and runs come one after the other. */
			l->cursor = core_cursor_at(&l->shard->home, b, 0, b->part_count, CORE_MERGE_ADVANCE,
						   0, WINDOW);
			l->reading = true;
		}
		rc = core_cursor_next(&l->cursor, &batch_end, err);
		if (rc != KV_OK)
			return rc;
		if (batch_end) {
			core_cursor_fini(&l->cursor);
			l->reading = false;
			l->at++;
		} else if (core_frontier_covers(l->step.lower, l->cursor.row.time)) {
			*out = l->cursor.row;
			return KV_OK;
		}
	}
}

/* --- going back ------------------------------------------------------------------------------------ */

enum { MALLOC_BYTES = 16, BATCH_BYTES = 400 }; /* of a small batch: itself, its part, its runs */

struct core_place {
	struct core_step step;
	size_t count;
	struct core_batch *batches[]; /* a reference each */
};

struct core_place *core_listen_place(const struct core_listen *l)
{
	struct core_place *p = malloc(sizeof *p + l->count * sizeof(struct core_batch *));

	if (p == NULL)
		return NULL;
	p->step = l->step;
	p->count = l->count;
	for (size_t i = 0; i < l->count; i++)
		p->batches[i] = core_batch_ref(l->batches[i]);
	return p;
}

struct core_step core_place_step(const struct core_place *p)
{
	return p->step;
}

size_t core_place_bytes(const struct core_place *p)
{
	size_t bytes = MALLOC_BYTES + sizeof *p;

	for (size_t i = 0; i < p->count; i++) {
		const struct core_batch *b = p->batches[i];
		size_t pinned = BATCH_BYTES + (size_t)core_batch_inline_bytes(b);
		unsigned refs = atomic_load(&b->refs);

		/* Two do not last: of the shard's state, and of the step in hand. */
		bytes += sizeof(struct core_batch *) + pinned / (refs > 2 ? refs - 2 : 1);
	}
	return bytes;
}

void core_place_free(struct core_place *p)
{
	for (size_t i = 0; p != NULL && i < p->count; i++)
		core_batch_unref(p->batches[i]);
	free(p);
}

void core_listen_go(struct core_listen *l, const struct core_place *p)
{
	drop_step(l);
	l->step = p->step;
	for (; l->count < p->count; l->count++)
		l->batches[l->count] = core_batch_ref(p->batches[l->count]);
}

struct core_frontier core_listen_frontier(const struct core_listen *l)
{
	return l->frontier;
}

void core_listen_rest(struct core_listen *l)
{
	if (l->reading)
		core_cursor_rest(&l->cursor);
}

size_t core_listen_held(const struct core_listen *l)
{
	return l->reading ? core_cursor_held(&l->cursor) : 0;
}

size_t core_listen_need(const struct core_listen *l)
{
	return l->reading ? core_cursor_need(&l->cursor) : 0;
}

void core_listen_close(struct core_listen *l)
{
	if (l == NULL)
		return;
	drop_step(l);
	core_shard_release(l->shard, &l->need);
	free(l);
}
