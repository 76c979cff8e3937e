/*
 * state.c - see state.h.
 *
 * Applying a diff is all or nothing: everything that can fail (room in arrays,
 * splices that must fit) is done on the side or checked first, then the fields
 * are changed by steps that cannot fail. An append at the end costs the same
 * whatever the number of batches. Staged batches, writers and leases: state_staged.c.
 */
#include "core/state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/state_dead.h"
#include "core/state_staged.h"

/* Make room for want elements; doubling keeps the cost of growing constant per element. */
static bool reserve(void **array, size_t *cap, size_t want, size_t elem_size)
{
	size_t new_cap = *cap != 0 ? *cap : 1; /* most shards have one of most things, or none */
	void *grown;

	if (want <= *cap)
		return true;
	while (new_cap < want)
		new_cap *= 2;
	grown = reallocarray(*array, new_cap, elem_size);
	if (grown == NULL)
		return false;
	*array = grown;
	*cap = new_cap;
	return true;
}

enum kv_rc core_state_init(struct core_state *s, uint64_t seqno, uint64_t now_ms, struct core_owner owner,
			   struct kv_err *err)
{
	*s = (struct core_state){
		.seqno = seqno,
		.first_seqno = seqno,
		.walltime_ms = now_ms,
		.created_ms = now_ms,
		.owner = owner,
	};
	s->holds = calloc(1, sizeof *s->holds);
	if (s->holds == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	s->hold_count = 1;
	strcpy(s->holds[0].name, CORE_DEFAULT_HOLD); /* fits: a constant */
	return KV_OK;
}

void core_state_fini(struct core_state *s)
{
	for (size_t i = 0; i < s->batch_count; i++)
		core_batch_unref(s->batches[i]);
	free(s->batches);
	free(s->holds);
	free(s->tokens);
	free(s->rollups);
	free(s->staged);
	free(s->writers);
	free(s->leases);
	free(s->dead);
	*s = (struct core_state){0};
}

void core_diff_init(struct core_diff *d)
{
	*d = (struct core_diff){0};
	d->holds = d->hold_space;
}

void core_diff_fini(struct core_diff *d)
{
	for (size_t i = 0; i < d->splice_count; i++) {
		for (size_t j = 0; j < d->splices[i].count; j++)
			core_batch_unref(d->splices[i].batches[j]);
		free(d->splices[i].batches);
	}
	if (d->holds != d->hold_space)
		free(d->holds);
	free(d->holds_removed);
	free(d->staged);
	free(d->staged_removed);
	free(d->gone);
	core_diff_init(d);
}

enum kv_rc core_diff_splice(struct core_diff *d, struct core_frontier lower, struct core_frontier upper,
			    struct core_batch *const *batches, size_t count, struct kv_err *err)
{
	struct core_splice *splice;
	struct core_batch **copy;

	assert(d->splice_count < CORE_DIFF_SPLICES && count > 0);
	copy = calloc(count, sizeof(struct core_batch *));
	if (copy == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	memcpy(copy, batches, count * sizeof(struct core_batch *));
	splice = &d->splices[d->splice_count++];
	*splice = (struct core_splice){.lower = lower, .upper = upper, .batches = copy, .count = count};
	return KV_OK;
}

enum kv_rc core_diff_hold(struct core_diff *d, const struct core_hold *hold, struct kv_err *err)
{
	struct core_hold *grown;

	for (size_t i = 0; i < d->hold_count; i++) {
		if (strcmp(d->holds[i].name, hold->name) == 0) {
			d->holds[i] = *hold;
			return KV_OK;
		}
	}
	if (d->holds == d->hold_space && d->hold_count < CORE_DIFF_HOLDS) {
		d->hold_space[d->hold_count++] = *hold;
		return KV_OK;
	}
	grown = reallocarray(d->holds == d->hold_space ? NULL : d->holds, d->hold_count + 1, sizeof *grown);
	if (grown == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	if (d->holds == d->hold_space)
		memcpy(grown, d->hold_space, d->hold_count * sizeof *grown);
	grown[d->hold_count++] = *hold;
	d->holds = grown;
	return KV_OK;
}

/* --- finding ------------------------------------------------------------------------------------- */

struct core_hold *core_state_hold(const struct core_state *s, const char *name)
{
	for (size_t i = 0; i < s->hold_count; i++)
		if (strcmp(s->holds[i].name, name) == 0)
			return &s->holds[i];
	return NULL;
}

const struct core_done *core_state_token(const struct core_state *s, struct core_token token)
{
	for (size_t i = 0; i < s->token_count; i++)
		if (core_uuid_eq(s->tokens[i].token.u, token.u))
			return &s->tokens[i];
	return NULL;
}

size_t core_state_batch_at(const struct core_state *s, struct core_frontier lower)
{
	size_t lo = 0, hi = s->batch_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (core_frontier_lt(s->batches[mid]->lower, lower))
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < s->batch_count && core_frontier_eq(s->batches[lo]->lower, lower))
		return lo;
	return s->batch_count;
}

struct core_totals core_state_totals(const struct core_state *s)
{
	struct core_totals t = {0};

	for (size_t i = 0; i < s->batch_count; i++) {
		const struct core_batch *b = s->batches[i];

		t.rows += b->rows;
		t.runs += b->run_count;
		t.parts += b->part_count;
		for (size_t j = 0; j < b->part_count; j++) {
			if (b->parts[j].inline_data != NULL) {
				t.inline_parts++;
				t.inline_bytes += b->parts[j].size;
			} else {
				t.blob_bytes += b->parts[j].size;
			}
		}
	}
	return t;
}

/* --- applying ------------------------------------------------------------------------------------ */

bool core_state_splice_range(const struct core_state *s, const struct core_splice *splice, size_t *first,
			     size_t *end)
{
	bool at_end =
		core_frontier_eq(splice->lower, s->batch_count != 0 ? s->batches[s->batch_count - 1]->upper
								    : core_frontier_at(0));

	/* The common case, an append, without a search. */
	*first = at_end ? s->batch_count : core_state_batch_at(s, splice->lower);
	*end = *first;
	if (*first == s->batch_count && !at_end)
		return false;
	if (core_frontier_eq(splice->lower, splice->upper))
		return true;
	while (*end < s->batch_count && core_frontier_lt(s->batches[*end]->upper, splice->upper))
		(*end)++;
	if (*end == s->batch_count)
		return false;
	(*end)++;
	return core_frontier_eq(s->batches[*end - 1]->upper, splice->upper);
}

struct range {
	size_t first;
	size_t end;
};

/* Where each splice goes, in the state before all of them. */
static enum kv_rc splice_plan(const struct core_state *s, const struct core_diff *d,
			      struct range plan[CORE_DIFF_SPLICES], struct kv_err *err)
{
	for (size_t i = 0; i < d->splice_count; i++) {
		/* Later splices of a diff lie behind earlier ones, in batches those do not touch. */
		if (!core_state_splice_range(s, &d->splices[i], &plan[i].first, &plan[i].end) ||
		    (i > 0 && plan[i].first < plan[i - 1].end))
			return kv_fail(err, KV_CORRUPT,
				       "version %" PRIu64 " replaces batches that are not there", d->seqno);
	}
	return KV_OK;
}

static void splice_apply(struct core_state *s, const struct core_splice *splice, struct range range,
			 uint64_t now_ms)
{
	size_t first = range.first, end = range.end;

	for (size_t i = first; i < end; i++)
		core_batch_unref(s->batches[i]);
	memmove(&s->batches[first + splice->count], &s->batches[end],
		(s->batch_count - end) * sizeof(struct core_batch *));
	for (size_t i = 0; i < splice->count; i++) {
		s->batches[first + i] = core_batch_ref(splice->batches[i]);
		if (s->batches[first + i]->committed_ms == 0)
			s->batches[first + i]->committed_ms = now_ms;
	}
	s->batch_count = s->batch_count - (end - first) + splice->count;
}

/* Room for the batches of the diff, and for what dies of those they replace. */
static enum kv_rc reserve_splices(struct core_state *s, const struct core_diff *d, struct kv_err *err)
{
	size_t batches = s->batch_count, dead = 0, first, end;

	for (size_t i = 0; i < d->splice_count; i++) {
		batches += d->splices[i].count;
		if (!core_frontier_eq(d->splices[i].lower, d->splices[i].upper) &&
		    core_state_splice_range(s, &d->splices[i], &first, &end))
			dead += core_state_count_blobs(s, first, end);
	}
	if (!reserve((void **)&s->batches, &s->batch_cap, batches, sizeof(struct core_batch *)))
		return kv_fail_rc(err, KV_NOMEM);
	return core_state_reserve_dead(s, dead, err);
}

enum kv_rc core_state_reserve(struct core_state *s, const struct core_diff *d, struct kv_err *err)
{
	enum kv_rc rc = reserve_splices(s, d, err);

	if (rc != KV_OK)
		return rc;
	if (d->hold_count != 0 &&
	    !reserve((void **)&s->holds, &s->hold_cap, s->hold_count + d->hold_count, sizeof *s->holds))
		return kv_fail_rc(err, KV_NOMEM);
	if (d->has_rollup &&
	    !reserve((void **)&s->rollups, &s->rollup_cap, s->rollup_count + 1, sizeof *s->rollups))
		return kv_fail_rc(err, KV_NOMEM);
	if (d->has_token && s->token_count < CORE_TOKENS_MAX &&
	    !reserve((void **)&s->tokens, &s->token_cap, s->token_count + 1, sizeof *s->tokens))
		return kv_fail_rc(err, KV_NOMEM);
	if (d->staged_count != 0 && !reserve((void **)&s->staged, &s->staged_cap,
					     s->staged_count + d->staged_count, sizeof *s->staged))
		return kv_fail_rc(err, KV_NOMEM);
	if (d->has_writer &&
	    !reserve((void **)&s->writers, &s->writer_cap, s->writer_count + 1, sizeof *s->writers))
		return kv_fail_rc(err, KV_NOMEM);
	if (d->has_lease &&
	    !reserve((void **)&s->leases, &s->lease_cap, s->lease_count + 1, sizeof *s->leases))
		return kv_fail_rc(err, KV_NOMEM);
	return KV_OK;
}

static void apply_holds(struct core_state *s, const struct core_diff *d)
{
	for (size_t i = 0; i < d->hold_count; i++) {
		struct core_hold *hold = core_state_hold(s, d->holds[i].name);

		if (hold == NULL)
			hold = &s->holds[s->hold_count++];
		*hold = d->holds[i];
	}
	for (size_t i = 0; i < d->removed_count; i++) {
		struct core_hold *hold = core_state_hold(s, d->holds_removed[i]);

		if (hold != NULL)
			*hold = s->holds[--s->hold_count];
	}
}

static void apply_token(struct core_state *s, const struct core_done *done)
{
	if (s->token_count < CORE_TOKENS_MAX) {
		s->tokens[s->token_count++] = *done;
		return;
	}
	s->tokens[s->token_first] = *done; /* the oldest makes room */
	s->token_first = (s->token_first + 1) % CORE_TOKENS_MAX;
}

enum kv_rc core_state_apply(struct core_state *s, const struct core_diff *d, struct kv_err *err)
{
	struct range plan[CORE_DIFF_SPLICES];
	bool stages = d->staged_count != 0 || d->staged_removed_count != 0;
	enum kv_rc rc;

	if (d->seqno != s->seqno + 1)
		return kv_fail(err, KV_CORRUPT, "version %" PRIu64 " does not follow version %" PRIu64,
			       d->seqno, s->seqno);
	rc = splice_plan(s, d, plan, err);
	if (rc == KV_OK && stages)
		rc = core_state_plan_staged(s, d, err);
	if (rc == KV_OK)
		rc = core_state_reserve(s, d, err);
	if (rc != KV_OK)
		return rc;

	for (size_t i = 0; i < d->splice_count; i++)
		core_state_apply_dead(s, plan[i].first, plan[i].end, d->seqno);
	/* From the last, so that the places of those before it stay. */
	for (size_t i = d->splice_count; i > 0; i--)
		splice_apply(s, &d->splices[i - 1], plan[i - 1], d->walltime_ms);
	apply_holds(s, d);
	if (d->has_token)
		apply_token(s, &d->token);
	if (d->has_rollup)
		s->rollups[s->rollup_count++] = d->rollup;
	if (d->gone_count != 0)
		core_state_forget_dead(s, d->gone, d->gone_count);
	if (d->rollups_from != 0)
		core_state_forget_rollups(s, d->rollups_from);
	if (d->has_since)
		s->since = d->since;
	if (d->has_upper)
		s->upper = d->upper;
	if (d->has_owner)
		s->owner = d->owner;
	if (stages)
		core_state_apply_staged(s, d);
	if (s->writer_count != 0 || d->has_writer)
		core_state_apply_writers(s, d);
	if (s->lease_count != 0 || d->has_lease)
		core_state_apply_leases(s, d);
	s->tombstone = s->tombstone || d->tombstone;
	s->seqno = d->seqno;
	s->walltime_ms = d->walltime_ms;
	s->attempt = d->attempt;
	return KV_OK;
}

/* --- checking ------------------------------------------------------------------------------------ */

static enum kv_rc check_batch(const struct core_state *s, const struct core_batch *b, struct kv_err *err)
{
	uint64_t rows = 0;
	size_t run = 0;

	if (core_frontier_lt(s->since, b->since))
		return kv_fail(err, KV_CORRUPT, "a batch was advanced beyond the shard's since");
	if ((b->part_count == 0) != (b->run_count == 0))
		return kv_fail(err, KV_CORRUPT, "a batch has runs without parts or parts without runs");
	for (size_t i = 0; i < b->part_count; i++) {
		rows += b->parts[i].rows;
		if (b->parts[i].rows == 0 || b->parts[i].stars > b->parts[i].rows)
			return kv_fail(err, KV_CORRUPT, "a part has wrong counts");
	}
	if (rows != b->rows)
		return kv_fail(err, KV_CORRUPT, "a batch counts %" PRIu64 " rows, its parts %" PRIu64,
			       b->rows, rows);
	for (; run < b->run_count; run++)
		if (b->run_starts[run] >= b->part_count ||
		    (run == 0 ? b->run_starts[0] != 0 : b->run_starts[run] <= b->run_starts[run - 1]))
			return kv_fail(err, KV_CORRUPT, "a batch has an empty run");
	return KV_OK;
}

static int cmp_part_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct core_part_id));
}

static enum kv_rc check_parts_differ(const struct core_state *s, struct kv_err *err)
{
	size_t count = (size_t)core_state_totals(s).parts, n = 0;
	struct core_part_id *ids = calloc(count + 1, sizeof *ids);
	enum kv_rc rc = KV_OK;

	if (ids == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	for (size_t i = 0; i < s->batch_count; i++)
		for (size_t j = 0; j < s->batches[i]->part_count; j++)
			ids[n++] = s->batches[i]->parts[j].id;
	qsort(ids, n, sizeof *ids, cmp_part_id);
	for (size_t i = 1; i < n && rc == KV_OK; i++)
		if (cmp_part_id(&ids[i - 1], &ids[i]) == 0)
			rc = kv_fail(err, KV_CORRUPT, "a part is named twice");
	free(ids);
	return rc;
}

static enum kv_rc check_holds(const struct core_state *s, struct kv_err *err)
{
	for (size_t i = 0; i < s->hold_count; i++) {
		if (core_frontier_lt(s->holds[i].since, s->since))
			return kv_fail(err, KV_CORRUPT, "hold %s lies below the shard's since",
				       s->holds[i].name);
		if (core_state_hold(s, s->holds[i].name) != &s->holds[i])
			return kv_fail(err, KV_CORRUPT, "hold %s stands twice", s->holds[i].name);
	}
	return KV_OK;
}

enum kv_rc core_state_check(const struct core_state *s, struct kv_err *err)
{
	struct core_frontier at = core_frontier_at(0);
	enum kv_rc rc;

	if (s->first_seqno == 0 || s->seqno < s->first_seqno)
		return kv_fail(err, KV_CORRUPT, "version %" PRIu64 " lies before the first, %" PRIu64,
			       s->seqno, s->first_seqno);
	for (size_t i = 0; i < s->batch_count; i++) {
		const struct core_batch *b = s->batches[i];

		if (!core_frontier_eq(b->lower, at) || !core_frontier_lt(b->lower, b->upper))
			return kv_fail(err, KV_CORRUPT,
				       "batch %zu of %zu does not begin where the one before ends", i,
				       s->batch_count);
		at = b->upper;
		rc = check_batch(s, b, err);
		if (rc != KV_OK)
			return rc;
	}
	if (!core_frontier_eq(at, s->upper))
		return kv_fail(err, KV_CORRUPT, "the batches end elsewhere than the upper");
	rc = check_holds(s, err);
	if (rc != KV_OK)
		return rc;
	if (s->token_count > CORE_TOKENS_MAX)
		return kv_fail(err, KV_CORRUPT, "%zu tokens", s->token_count);
	for (size_t i = 0; i < s->rollup_count; i++)
		if (s->rollups[i].seqno > s->seqno ||
		    (i > 0 && s->rollups[i].seqno <= s->rollups[i - 1].seqno))
			return kv_fail(err, KV_CORRUPT, "rollups out of order");
	rc = core_state_check_staged(s, err);
	if (rc == KV_OK)
		rc = core_state_check_dead(s, err);
	if (rc != KV_OK)
		return rc;
	return check_parts_differ(s, err);
}
