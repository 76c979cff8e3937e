/*
 * transition.c - see transition.h.
 *
 * An append goes through these steps; each may end it:
 *
 *  1. the inputs alone: bounds, every part's times, the rewrite, data in an empty interval
 *  2. the token: known with the same bounds and count is the recorded success again
 *  3. a tombstone or a finished shard is a mismatch with the empty frontier
 *  4. `*` becomes the upper; the checks of step 1 that had to wait for it
 *  5. the upper must be the expected one; an idempotent append is cut, is a no-op, or has a gap
 *  6. the splice; the holds that follow the upper and the `since` option
 */
#include "core/transition.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

/* --- the inputs alone ------------------------------------------------------------------------------ */

struct core_asked core_append_asked(const struct core_append *a)
{
	struct core_asked asked = {{0}};
	/* The bounds, and which of the two kinds they are: nothing else tells one append under a token from
	 * another. */
	asked.b[0] = (uint8_t)(a->lower_star | a->upper_plus << 1 | a->lower.empty << 2 |
			       a->upper.empty << 3 | a->idempotent << 4);
	memcpy(asked.b + 8, &a->lower.t, 8);
	memcpy(asked.b + 16, &a->upper.t, 8);
	memcpy(asked.b + 24, &a->plus, 8);
	return asked;
}

static enum kv_rc bad_rewrite(uint64_t ts, struct core_frontier lower, struct core_frontier upper,
			      struct kv_err *err)
{
	char lo[CORE_FRONTIER_LEN], up[CORE_FRONTIER_LEN];

	core_frontier_format(lower, lo);
	core_frontier_format(upper, up);
	kv_fail(err, KV_BAD_REWRITE, "rewrite_ts %" PRIu64 " does not lie in [%s, %s)", ts, lo, up);
	kv_detail(err, "rewrite_ts=%" PRIu64 " lower=%s upper=%s", ts, lo, up);
	return KV_BAD_REWRITE;
}

enum kv_rc core_append_check(const struct core_append *a, struct kv_err *err)
{
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];

	if (a->lower.empty && !a->lower_star)
		return KV_OK; /* a mismatch in any case, and that is said at commit */
	if (a->lower_star)
		return a->has_rewrite && core_frontier_covers(a->upper, a->rewrite_ts) && !a->upper_plus
			       ? bad_rewrite(a->rewrite_ts, core_frontier_at(0), a->upper, err)
			       : KV_OK;
	if (core_frontier_lt(a->upper, a->lower)) {
		core_frontier_format(a->lower, lower);
		core_frontier_format(a->upper, upper);
		kv_fail(err, KV_BAD_BOUNDS, "the new upper %s lies below the lower %s", upper, lower);
		kv_detail(err, "lower=%s upper=%s", lower, upper);
		return KV_BAD_BOUNDS;
	}
	if (a->has_rewrite &&
	    (!core_frontier_covers(a->lower, a->rewrite_ts) || core_frontier_covers(a->upper, a->rewrite_ts)))
		return bad_rewrite(a->rewrite_ts, a->lower, a->upper, err);
	return KV_OK;
}

static enum kv_rc check_time(uint64_t time, struct core_frontier lower, struct core_frontier upper,
			     struct kv_err *err)
{
	char text[CORE_FRONTIER_LEN];

	if (!core_frontier_covers(lower, time)) {
		core_frontier_format(lower, text);
		kv_fail(err, KV_NOT_BEYOND_LOWER, "an update at time %" PRIu64 " lies below the lower %s",
			time, text);
		kv_detail(err, "time=%" PRIu64 " lower=%s", time, text);
		return KV_NOT_BEYOND_LOWER;
	}
	if (core_frontier_covers(upper, time)) {
		core_frontier_format(upper, text);
		kv_fail(err, KV_BEYOND_UPPER, "an update at time %" PRIu64 " is not below the upper %s", time,
			text);
		kv_detail(err, "time=%" PRIu64 " upper=%s", time, text);
		return KV_BEYOND_UPPER;
	}
	return KV_OK;
}

enum kv_rc core_append_check_time(const struct core_append *a, uint64_t time, struct kv_err *err)
{
	if (a->lower.empty && !a->lower_star)
		return KV_OK;
	return check_time(time, a->lower_star ? core_frontier_at(0) : a->lower,
			  a->upper_plus ? core_frontier_empty() : a->upper, err);
}

/* Every part's times, as they will be read, against the bounds. */
static enum kv_rc check_batch_times(const struct core_append *a, struct core_frontier lower,
				    struct core_frontier upper, uint64_t lift, struct kv_err *err)
{
	for (size_t i = 0; a->batch != NULL && i < a->batch->part_count; i++) {
		const struct core_part *part = &a->batch->parts[i];
		uint64_t min = part->min_time > lift ? part->min_time : lift;
		uint64_t max = part->max_time > lift ? part->max_time : lift;
		enum kv_rc rc = KV_OK;

		if (part->rows > part->stars)
			rc = check_time(min, lower, upper, err);
		if (rc == KV_OK && part->rows > part->stars)
			rc = check_time(max, lower, upper, err);
		if (rc != KV_OK)
			return rc;
	}
	return KV_OK;
}

static bool has_rows(const struct core_append *a)
{
	return a->batch != NULL && a->batch->part_count != 0;
}

static enum kv_rc check_inputs(const struct core_append *a, struct kv_err *err)
{
	char text[CORE_FRONTIER_LEN];
	enum kv_rc rc = core_append_check(a, err);

	if (rc != KV_OK || a->lower_star || a->lower.empty)
		return rc;
	rc = check_batch_times(a, a->lower, a->upper, 0, err);
	if (rc == KV_OK && core_frontier_eq(a->lower, a->upper) && has_rows(a)) {
		core_frontier_format(a->lower, text);
		rc = kv_fail(err, KV_EMPTY_INTERVAL, "updates in the empty interval [%s, %s)", text, text);
	}
	return rc;
}

/* --- on the state ---------------------------------------------------------------------------------- */

static enum kv_rc mismatch(const struct core_append *a, const struct core_state *s, struct kv_err *err)
{
	char expected[CORE_FRONTIER_LEN] = "*", current[CORE_FRONTIER_LEN];
	const char *word = a->idempotent ? "lower" : "expected_upper";
	struct core_frontier upper = s->tombstone ? core_frontier_empty() : s->upper;

	core_frontier_format(upper, current);
	if (!a->lower_star)
		core_frontier_format(a->lower, expected);
	if (upper.empty)
		kv_fail(err, KV_UPPER_MISMATCH, "the shard is finished");
	else if (a->lower_star)
		kv_fail(err, KV_UPPER_MISMATCH, "the new upper is not above the current upper %s", current);
	else if (a->idempotent)
		kv_fail(err, KV_UPPER_MISMATCH,
			"the append begins at %s, which leaves a gap above the upper %s", expected, current);
	else
		kv_fail(err, KV_UPPER_MISMATCH, "the upper is %s, not %s as expected", current, expected);
	kv_detail(err, "%s=%s current_upper=%s", word, expected, current);
	return KV_UPPER_MISMATCH;
}

static enum kv_rc answer_token(const struct core_append *a, const struct core_done *done,
			       struct core_appended *r, struct kv_err *err)
{
	struct core_asked asked = core_append_asked(a);

	if (memcmp(asked.b, done->asked.b, sizeof asked.b) != 0 || done->rows != a->rows) {
		kv_fail(err, KV_TOKEN_REUSED,
			"the token stands for an append of %" PRIu64 " updates with %s bounds", done->rows,
			memcmp(asked.b, done->asked.b, sizeof asked.b) == 0 ? "these" : "other");
		kv_detail(err, "updates=%" PRIu64, done->rows);
		return KV_TOKEN_REUSED;
	}
	*r = (struct core_appended){
		.lower = done->lower, .upper = done->upper, .seqno = done->seqno, .updates = done->rows};
	return KV_OK;
}

/* `*`: the bounds become absolute, and what could not be checked before is. */
static enum kv_rc resolve_star(struct core_append *a, const struct core_state *s, struct core_appended *r,
			       struct kv_err *err)
{
	uint64_t at = s->upper.t;

	if (s->upper.empty)
		return mismatch(a, s, err);
	r->lower = s->upper;
	r->upper = a->upper;
	if (a->upper_plus) {
		if (a->plus > UINT64_MAX - at) {
			kv_fail(err, KV_BAD_BOUNDS,
				"the upper %" PRIu64 " plus %" PRIu64 " leaves u64; finish with -", at,
				a->plus);
			kv_detail(err, "current_upper=%" PRIu64 " plus=%" PRIu64, at, a->plus);
			return KV_BAD_BOUNDS;
		}
		r->upper = core_frontier_at(at + a->plus);
	}
	if (core_frontier_le(r->upper, r->lower))
		return mismatch(a, s, err);
	if (a->has_rewrite && (a->rewrite_ts < at || core_frontier_covers(r->upper, a->rewrite_ts)))
		return bad_rewrite(a->rewrite_ts, r->lower, r->upper, err);
	for (size_t i = 0; a->batch != NULL && i < a->batch->part_count; i++)
		if (a->rewrite_star || a->batch->parts[i].stars > 0)
			a->batch->parts[i].rewrite_ts = at;
	return check_batch_times(a, r->lower, r->upper, a->rewrite_star ? at : 0, err);
}

/* The since that the holds allow, as d changes them; it never goes back. */
static void settle_since(const struct core_state *s, struct core_diff *d)
{
	struct core_frontier least = core_frontier_empty();

	for (size_t i = 0; i < s->hold_count; i++) {
		struct core_frontier since = s->holds[i].since;

		for (size_t j = 0; j < d->hold_count; j++)
			if (strcmp(d->holds[j].name, s->holds[i].name) == 0)
				since = d->holds[j].since;
		least = core_frontier_min(least, since);
	}
	if (s->hold_count == 0 || core_frontier_le(least, s->since))
		return;
	d->has_since = true;
	d->since = least;
}

/* Where a hold that follows the upper at distance n stands; it stays where it was when the shard finishes. */
static struct core_frontier followed(struct core_frontier was, struct core_frontier upper, uint64_t n)
{
	if (upper.empty || upper.t <= n)
		return was;
	return core_frontier_max(was, core_frontier_at(upper.t - n));
}

static enum kv_rc move_holds(const struct core_append *a, const struct core_state *s,
			     struct core_frontier upper, struct core_diff *d, struct kv_err *err)
{
	for (size_t i = 0; i < s->hold_count; i++) {
		struct core_hold hold = s->holds[i];
		bool asked = a->has_since && strcmp(hold.name, CORE_DEFAULT_HOLD) == 0;

		if (hold.follow != 0)
			hold.since = followed(hold.since, upper, hold.follow);
		if (asked) {
			hold.since = core_frontier_max(hold.since, a->since);
			hold.follow = 0; /* a plain frontier ends the policy */
		}
		if (core_frontier_eq(hold.since, s->holds[i].since) && hold.follow == s->holds[i].follow)
			continue;
		enum kv_rc rc = core_diff_hold(d, &hold, err);
		if (rc != KV_OK)
			return rc;
	}
	settle_since(s, d);
	return KV_OK;
}

/* The new batch behind the others; an empty one makes one with an empty one before it. */
static enum kv_rc push_batch(const struct core_append *a, const struct core_state *s,
			     const struct core_appended *r, struct core_diff *d, struct kv_err *err)
{
	struct core_batch *last = s->batch_count != 0 ? s->batches[s->batch_count - 1] : NULL;
	struct core_frontier from = r->lower;
	struct core_batch *b;
	enum kv_rc rc;

	if (has_rows(a)) {
		b = core_batch_ref(a->batch);
		b->lower = r->lower;
		b->upper = r->upper;
	} else {
		if (last != NULL && last->part_count == 0)
			from = last->lower;
		b = core_batch_new(from, r->upper);
		if (b == NULL)
			return kv_fail_rc(err, KV_NOMEM);
	}
	rc = core_diff_splice(d, from, r->lower, &b, 1, err);
	if (rc != KV_OK) {
		core_batch_unref(b);
		return rc;
	}
	d->has_upper = true;
	d->upper = r->upper;
	return KV_OK;
}

enum kv_rc core_do_append(const struct core_state *s, struct core_append *a, struct core_diff *d,
			  struct core_appended *r, struct kv_err *err)
{
	const struct core_done *done = a->has_token ? core_state_token(s, a->token) : NULL;
	struct core_frontier upper = s->tombstone ? core_frontier_empty() : s->upper;
	enum kv_rc rc = check_inputs(a, err);

	if (rc != KV_OK)
		return rc;
	if (done != NULL)
		return answer_token(a, done, r, err);

	if (a->staged != NULL) { /* a state holds none: nobody can stage a batch yet */
		kv_fail(err, KV_NO_BATCH, "no staged batch %s", a->staged);
		kv_detail(err, "batch=%s", a->staged);
		return KV_NO_BATCH;
	}
	*r = (struct core_appended){.lower = a->lower, .upper = a->upper};
	if (a->lower_star) {
		rc = resolve_star(a, s, r, err);
		if (rc != KV_OK)
			return rc;
	} else if (a->idempotent && core_frontier_le(a->upper, upper)) {
		/* All of it is there already. */
		*r = (struct core_appended){.lower = upper, .upper = upper, .seqno = s->seqno};
		return KV_OK;
	} else if (a->idempotent && core_frontier_le(a->lower, upper)) {
		r->lower = upper; /* cut, never extended */
	}
	if (r->lower.empty || s->tombstone || !core_frontier_eq(r->lower, s->upper))
		return mismatch(a, s, err);

	r->seqno = s->seqno + 1;
	r->updates = a->rows;
	r->committed = true;
	d->seqno = r->seqno;
	if (!core_frontier_eq(r->lower, r->upper))
		rc = push_batch(a, s, r, d, err);
	if (rc == KV_OK)
		rc = move_holds(a, s, r->upper, d, err);
	if (a->has_token) {
		d->has_token = true;
		d->token = (struct core_done){
			.token = a->token,
			.asked = core_append_asked(a),
			.rows = a->rows,
			.lower = r->lower,
			.upper = r->upper,
			.seqno = r->seqno,
		};
	}
	return rc;
}

enum kv_rc core_do_hold(const struct core_state *s, const char *name, struct core_frontier since,
			uint64_t follow, struct core_diff *d, bool *changed, struct kv_err *err)
{
	const struct core_hold *was = core_state_hold(s, name);
	struct core_hold hold;
	enum kv_rc rc;

	*changed = false;
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (was == NULL)
		return kv_fail(err, KV_NOTFOUND, "no hold %s", name);
	hold = *was;
	hold.follow = follow;
	hold.since =
		follow != 0 ? followed(was->since, s->upper, follow) : core_frontier_max(was->since, since);
	if (core_frontier_eq(hold.since, was->since) && hold.follow == was->follow)
		return KV_OK;
	*changed = true;
	d->seqno = s->seqno + 1;
	rc = core_diff_hold(d, &hold, err);
	if (rc == KV_OK)
		settle_since(s, d);
	return rc;
}

enum kv_rc core_do_owner(const struct core_state *s, struct core_owner owner, struct core_diff *d,
			 struct kv_err *err)
{
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	d->seqno = s->seqno + 1;
	d->has_owner = true;
	d->owner = owner;
	return KV_OK;
}

enum kv_rc core_do_remove(const struct core_state *s, struct core_diff *d, struct kv_err *err)
{
	char text[CORE_FRONTIER_LEN];

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (!s->upper.empty)
		return kv_fail(err, KV_NOT_FINISHED,
			       "the upper is %s; finish the shard first, with new_upper=-",
			       core_frontier_format(s->upper, text));
	for (size_t i = 0; i < s->hold_count; i++)
		if (!s->holds[i].since.empty)
			return kv_fail(err, KV_NOT_FINISHED, "hold %s is at %s; give it up first, with -",
				       s->holds[i].name, core_frontier_format(s->holds[i].since, text));
	d->seqno = s->seqno + 1;
	d->tombstone = true;
	return KV_OK;
}

enum kv_rc core_do_rollup(const struct core_state *s, const struct core_rollup *rollup, struct core_diff *d,
			  struct kv_err *err)
{
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	assert(rollup->seqno <= s->seqno);
	if (s->rollup_count != 0 && s->rollups[s->rollup_count - 1].seqno >= rollup->seqno)
		return kv_fail(err, KV_EXISTS, "a rollup of version %" PRIu64 " or later is there",
			       rollup->seqno);
	d->seqno = s->seqno + 1;
	d->has_rollup = true;
	d->rollup = *rollup;
	return KV_OK;
}
