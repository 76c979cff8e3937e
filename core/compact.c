/*
 * compact.c - see compact.h.
 *
 * Weights are bytes as stored, and a little for each batch, so that empty ones count.
 */
#include "core/compact.h"

/* Each batch weighs something; ends that weigh less than SMALL wait for company. */
enum { BATCH_WEIGHT = 512, SMALL = 1 << 20 };

/* A batch is inline as a whole or not at all. */
static bool has_blobs(const struct core_batch *b)
{
	return b->part_count != 0 && b->parts[0].inline_data == NULL;
}

size_t core_merge_prefix(const struct core_state *s)
{
	size_t end = s->batch_count;

	while (end > 0 && !has_blobs(s->batches[end - 1]))
		end--;
	return end;
}

uint64_t core_merge_advance(const struct core_state *s, struct core_frontier upper)
{
	uint64_t to = s->since.empty ? UINT64_MAX : s->since.t;

	return core_frontier_covers(upper, to) ? upper.t - 1 : to;
}

static uint64_t weight(const struct core_batch *b)
{
	return b->bytes + BATCH_WEIGHT;
}

/* The times of its rows, as they are read; false: it has none. */
static bool times_of(const struct core_batch *b, uint64_t *least, uint64_t *greatest)
{
	*least = UINT64_MAX;
	*greatest = 0;
	for (size_t i = 0; i < b->part_count; i++) {
		const struct core_part *p = &b->parts[i];
		uint64_t min = p->stars != 0 ? 0 : p->min_time;

		min = min > p->rewrite_ts ? min : p->rewrite_ts;
		*least = *least < min ? *least : min;
		min = p->max_time > p->rewrite_ts ? p->max_time : p->rewrite_ts;
		*greatest = *greatest > min ? *greatest : min;
	}
	return b->part_count != 0;
}

/* Whether rows of b may become one that were apart when it was made, if times are advanced to `to`: all of
 * those that can, or at least half of the times that were apart. */
static bool is_stale(const struct core_batch *b, uint64_t to, bool all)
{
	uint64_t least, greatest, from;

	if (!times_of(b, &least, &greatest) || least == greatest)
		return false;
	from = b->since.empty || b->since.t > greatest ? greatest : b->since.t;
	from = from > least ? from : least;
	to = to < greatest ? to : greatest;
	if (to <= from)
		return false;
	return all || to - from > (greatest - from) / 2;
}

/* The longest end of [from, end) that is not in levels. */
static bool pick_levels(const struct core_state *s, size_t from, size_t end, uint64_t bytes_max,
			struct core_merge_range *out)
{
	uint64_t behind = 0;
	bool found = false;

	for (size_t i = end; i > from; i--) {
		uint64_t w = weight(s->batches[i - 1]);
		uint64_t limit = i == 1 ? w / 2 : w;
		bool enough = end - i + 1 >= CORE_MERGE_COUNT || behind >= SMALL;

		if (i < end && behind >= limit && enough && (bytes_max == 0 || behind + w <= bytes_max)) {
			*out = (struct core_merge_range){.first = i - 1, .end = end};
			found = true;
		}
		behind += w;
		if (bytes_max != 0 && behind > bytes_max)
			break;
	}
	return found;
}

static bool pick_runs(const struct core_state *s, size_t from, size_t end, uint64_t max, uint64_t bytes_max,
		      struct core_merge_range *out)
{
	for (size_t i = from; i < end; i++) {
		*out = (struct core_merge_range){.first = i, .end = i + 1};
		if (s->batches[i]->run_count > max && (bytes_max == 0 || s->batches[i]->bytes <= bytes_max))
			return true;
	}
	return false;
}

/* Everything readable was given up: nothing of it is needed. */
static bool pick_all_rows(const struct core_state *s, size_t from, size_t end, struct core_merge_range *out)
{
	while (from < end && s->batches[from]->part_count == 0)
		from++;
	while (end > from && s->batches[end - 1]->part_count == 0)
		end--;
	*out = (struct core_merge_range){.first = from, .end = end};
	return from < end;
}

static bool pick_rest(const struct core_state *s, size_t from, size_t end, struct core_merge_range *out)
{
	uint64_t behind = 0;

	if (pick_runs(s, from, end, 1, 0, out))
		return true;
	for (size_t i = from + 1; i < end; i++)
		behind += weight(s->batches[i]);
	if (end - from > 1 && behind >= weight(s->batches[from]) / 8) {
		*out = (struct core_merge_range){.first = from, .end = end};
		return true;
	}
	for (size_t i = from; i < end; i++) {
		*out = (struct core_merge_range){.first = i, .end = i + 1};
		if (is_stale(s->batches[i], core_merge_advance(s, s->batches[i]->upper), false))
			return true;
	}
	return false;
}

static bool pick_one(const struct core_state *s, size_t from, size_t end, struct core_frontier since,
		     struct core_merge_range *out)
{
	uint64_t to = core_merge_advance(s, s->batches[from]->upper);

	*out = (struct core_merge_range){.first = from, .end = end};
	if (end - from != 1)
		return true;
	if (!since.empty && since.t < to)
		to = since.t;
	return s->batches[from]->run_count > 1 || is_stale(s->batches[from], to, true);
}

bool core_merge_pick(const struct core_state *s, size_t from, size_t end, const struct core_merge_ask *ask,
		     struct core_merge_range *out)
{
	if (from >= end)
		return false;
	if (s->since.empty)
		return pick_all_rows(s, from, end, out);
	if (ask->aim == CORE_AIM_ONE)
		return pick_one(s, from, end, ask->since, out);
	if (ask->aim == CORE_AIM_REST && pick_rest(s, from, end, out))
		return true;
	return pick_levels(s, from, end, ask->bytes_max, out) ||
	       pick_runs(s, from, end, CORE_MERGE_RUNS, ask->bytes_max, out);
}

bool core_merge_would_change(const struct core_state *s, const struct core_batch *b)
{
	return b->run_count > 1 || is_stale(b, core_merge_advance(s, b->upper), true);
}

bool core_merge_is_due(const struct core_state *s)
{
	struct core_merge_ask ask = {.aim = CORE_AIM_LEVELS};
	struct core_merge_range range;

	return core_merge_pick(s, 0, core_merge_prefix(s), &ask, &range);
}
