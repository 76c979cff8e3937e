/*
 * transition_upkeep.c - what maintenance changes; see transition.h.
 *
 * A merge takes place or it does not; there is no in-between. What it read is known
 * by bounds and by the ids of the parts, never by position or by bounds alone: two
 * batches of the same bounds may follow each other, and a result that comes late,
 * or twice, must not bring back what was replaced.
 */
#include "core/transition.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool same_parts(const struct core_batch *a, const struct core_batch *b)
{
	if (a == b)
		return true;
	if (!core_frontier_eq(a->lower, b->lower) || !core_frontier_eq(a->upper, b->upper) ||
	    a->part_count != b->part_count)
		return false;
	for (size_t i = 0; i < a->part_count; i++)
		if (!core_uuid_eq(a->parts[i].id.u, b->parts[i].id.u))
			return false;
	return true;
}

static bool inputs_are_there(const struct core_state *s, const struct core_merged *m)
{
	size_t at = core_state_batch_at(s, m->inputs[0]->lower);

	if (at + m->count > s->batch_count)
		return false;
	for (size_t i = 0; i < m->count; i++)
		if (!same_parts(s->batches[at + i], m->inputs[i]))
			return false;
	return true;
}

static bool output_is_there(const struct core_state *s, const struct core_merged *m)
{
	size_t at = core_state_batch_at(s, m->output->lower);

	return m->output->part_count != 0 && at < s->batch_count && same_parts(s->batches[at], m->output);
}

/* The sum of all diffs modulo 2^64, as the parts have it; *hides: bounds hide some of them. */
static uint64_t sum_of(const struct core_batch *b, bool *hides)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < b->part_count; i++) {
		sum += b->parts[i].diffs_sum;
		*hides = *hides || core_part_may_hide(&b->parts[i], b->lower, b->upper);
	}
	return sum;
}

static enum kv_rc check_merge(const struct core_state *s, const struct core_merged *m, struct kv_err *err)
{
	const struct core_batch *out = m->output;
	uint64_t in = 0, rows = 0;
	bool hides = m->forgets, unused = false;

	for (size_t i = 0; i < m->count; i++) {
		in += sum_of(m->inputs[i], &hides);
		rows += m->inputs[i]->rows;
		if (core_frontier_lt(out->since, m->inputs[i]->since))
			return kv_fail(err, KV_CORRUPT, "a merge has an older since than what it read");
	}
	if (core_frontier_lt(s->since, out->since))
		return kv_fail(err, KV_CORRUPT, "a merge has advanced times beyond since");
	if (m->forgets && (!s->since.empty || out->part_count != 0))
		return kv_fail(err, KV_CORRUPT, "a merge has forgotten what can be read");
	if (out->rows > rows)
		return kv_fail(err, KV_CORRUPT, "a merge of %" PRIu64 " rows has %" PRIu64, rows, out->rows);
	if (!hides && sum_of(out, &unused) != in)
		return kv_fail(err, KV_CORRUPT, "the diffs of a merge do not add up to those that it read");
	return KV_OK;
}

bool core_merge_is_open(const struct core_state *s, const struct core_merged *m)
{
	return !s->tombstone && inputs_are_there(s, m);
}

enum kv_rc core_do_merge(const struct core_state *s, const struct core_merged *m, struct core_diff *d,
			 bool *fits, bool *there, struct kv_err *err)
{
	enum kv_rc rc;

	*there = !s->tombstone && output_is_there(s, m);
	*fits = *there || core_merge_is_open(s, m);
	if (!*fits || *there)
		return KV_OK;
	rc = check_merge(s, m, err);
	if (rc != KV_OK)
		return rc;
	d->seqno = s->seqno + 1;
	core_batch_ref(m->output);
	rc = core_diff_splice(d, m->output->lower, m->output->upper, &m->output, 1, err);
	if (rc != KV_OK)
		core_batch_unref(m->output);
	return rc;
}

enum kv_rc core_do_collect(const struct core_state *s, const struct core_part_id *gone, size_t count,
			   uint64_t rollups_from, struct core_diff *d, bool *changed, struct kv_err *err)
{
	*changed = false;
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	d->seqno = s->seqno + 1;
	if (s->rollup_count > 1 && s->rollups[0].seqno < rollups_from) {
		d->rollups_from = rollups_from;
		*changed = true;
	}
	if (count == 0)
		return KV_OK;
	d->gone = calloc(count, sizeof *d->gone);
	if (d->gone == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	memcpy(d->gone, gone, count * sizeof *gone);
	d->gone_count = count;
	for (size_t i = 0; i < s->dead_count && !*changed; i++)
		for (size_t j = 0; j < count && !*changed; j++)
			*changed = core_uuid_eq(s->dead[i].id.u, gone[j].u);
	return KV_OK;
}
