/*
 * transition_append.c - compare-and-append and append; see transition.h.
 *
 * An append goes through these steps; each may end it:
 *
 *  1. the inputs alone: bounds, every part's times, the rewrite, data in an empty interval
 *  2. the token: known with the same bounds and counts is the recorded success again
 *  3. `*` becomes the upper, staged batches are looked up; the checks of step 1 that had to wait for it
 *  4. a tombstone or a finished shard is a mismatch with the empty frontier
 *  5. the upper must be the expected one; an idempotent append is cut, is a no-op, or has a gap
 *  6. a `since` option for a hold with a token is refused
 *  7. the splice; the holds that follow the upper and the `since` option; the writer, if it is new
 *
 * Where several batches are committed as one, the one is made here: descriptions of parts are copied, parts
 * are not touched. Inline parts stay inline if all of it is inline and the shard's limit allows; else they
 * become loose, blobs with the bytes they have, which go with the commit. (persist answers the writer
 * "backpressure" there and has it store the parts and come again; with the blobs in the commit's own step
 * there is nothing to come again for.)
 */
#include "core/transition.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/transition_impl.h"

/* --- the inputs alone ------------------------------------------------------------------------------ */

struct core_asked core_append_asked(const struct core_append *a)
{
	struct core_asked asked = {{0}};
	/* The bounds, which of the two kinds they are, and the number of batches: nothing else tells one
	 * append under a token from another. */
	uint16_t inputs = (uint16_t)a->input_count;
	memcpy(asked.b + 1, &inputs, 2);
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

enum kv_rc core_check_time(uint64_t time, struct core_frontier lower, struct core_frontier upper,
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
	return core_check_time(time, a->lower_star ? core_frontier_at(0) : a->lower,
			       a->upper_plus ? core_frontier_empty() : a->upper, err);
}

/* Every part's times, as they will be read, against the bounds. */
static enum kv_rc check_batch_times(const struct core_batch *b, struct core_frontier lower,
				    struct core_frontier upper, uint64_t lift, struct kv_err *err)
{
	for (size_t i = 0; b != NULL && i < b->part_count; i++) {
		const struct core_part *part = &b->parts[i];
		uint64_t least = part->stars == 0 && part->rewrite_ts > lift ? part->rewrite_ts : lift;
		uint64_t min = part->min_time > least ? part->min_time : least;
		uint64_t max = part->max_time > least ? part->max_time : least;
		enum kv_rc rc = KV_OK;

		if (part->rows > part->stars)
			rc = core_check_time(min, lower, upper, err);
		if (rc == KV_OK && part->rows > part->stars)
			rc = core_check_time(max, lower, upper, err);
		if (rc != KV_OK)
			return rc;
	}
	return KV_OK;
}

static bool has_rows(const struct core_append *a)
{
	bool rows = a->batch != NULL && a->batch->part_count != 0;

	for (size_t i = 0; !rows && i < a->input_count; i++)
		rows = a->inputs[i].batch != NULL && a->inputs[i].batch->part_count != 0;
	return rows;
}

static enum kv_rc empty_interval(struct core_frontier at, struct kv_err *err)
{
	char text[CORE_FRONTIER_LEN];

	core_frontier_format(at, text);
	return kv_fail(err, KV_EMPTY_INTERVAL, "updates in the empty interval [%s, %s)", text, text);
}

/* What the append lifts the times of its inputs to. */
struct lift {
	bool any; /* it lifts, or one of the inputs was lifted before: then all bounds count as new */
	bool all;
	uint64_t ts;
};

static struct lift lift_of(const struct core_append *a, uint64_t star)
{
	struct lift lift = {.all = a->has_rewrite || a->rewrite_star,
			    .ts = a->rewrite_star ? star : a->rewrite_ts};

	if (!lift.all)
		lift.ts = 0;
	lift.any = lift.all;
	for (size_t i = 0; i < a->input_count; i++)
		lift.any = lift.any || a->inputs[i].has_rewrite;
	return lift;
}

/* A batch with bounds may be cut by the append's, never extended; if any is rewritten, the ends must meet and
 * nothing may be lifted to below the append. */
static enum kv_rc check_bounds(const struct core_input *in, struct core_frontier lower,
			       struct core_frontier upper, struct lift lift, struct kv_err *err)
{
	char text[4][CORE_FRONTIER_LEN];
	bool lifted = lift.all || in->has_rewrite;
	uint64_t ts = in->has_rewrite && in->rewrite_ts > lift.ts ? in->rewrite_ts : lift.ts;
	struct core_frontier from = lifted ? core_frontier_at(ts) : in->lower;
	enum kv_rc rc;

	core_frontier_format(lower, text[0]);
	core_frontier_format(upper, text[1]);
	core_frontier_format(in->lower, text[2]);
	core_frontier_format(in->upper, text[3]);
	if (lift.any && (!core_frontier_eq(upper, in->upper) || core_frontier_lt(from, in->lower) ||
			 core_frontier_lt(from, lower))) {
		rc = kv_fail(
			err, KV_BAD_REWRITE,
			"the append [%s, %s) with rewritten times must end where the batch [%s, %s) does, "
			"and lift within both",
			text[0], text[1], text[2], text[3]);
	} else if (core_frontier_lt(lower, in->lower) || core_frontier_lt(in->upper, upper)) {
		rc = kv_fail(err, KV_BATCH_BOUNDS, "the append [%s, %s) is wider than the batch [%s, %s)",
			     text[0], text[1], text[2], text[3]);
	} else {
		return KV_OK;
	}
	kv_detail(err, "lower=%s upper=%s batch_lower=%s batch_upper=%s", text[0], text[1], text[2], text[3]);
	return rc;
}

/* The inputs of one sort, staged or not, against bounds that are known. */
static enum kv_rc check_batches(const struct core_append *a, bool staged, struct core_frontier lower,
				struct core_frontier upper, struct kv_err *err)
{
	struct lift lift = lift_of(a, lower.t);
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < a->input_count && rc == KV_OK; i++) {
		const struct core_input *in = &a->inputs[i];

		if (in->is_staged != staged)
			continue;
		if (in->has_bounds)
			rc = check_bounds(in, lower, upper, lift, err);
		if (rc == KV_OK && core_frontier_eq(lower, upper) && in->batch->part_count != 0)
			rc = empty_interval(lower, err);
		if (rc == KV_OK && !in->has_bounds)
			rc = check_batch_times(in->batch, lower, upper, lift.ts, err);
	}
	return rc;
}

enum kv_rc core_check_inputs(const struct core_append *a, struct kv_err *err)
{
	enum kv_rc rc = core_append_check(a, err);

	if (rc != KV_OK || a->lower_star || a->lower.empty)
		return rc;
	rc = check_batch_times(a->batch, a->lower, a->upper, 0, err);
	if (rc == KV_OK && core_frontier_eq(a->lower, a->upper) && a->batch != NULL &&
	    a->batch->part_count != 0)
		rc = empty_interval(a->lower, err);
	return rc == KV_OK ? check_batches(a, false, a->lower, a->upper, err) : rc;
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

static bool consumes_staged(const struct core_append *a)
{
	bool staged = false;

	for (size_t i = 0; i < a->input_count; i++)
		staged = staged || a->inputs[i].is_staged;
	return staged;
}

/* Rows of the inputs, handed over. */
static uint64_t input_rows(const struct core_append *a)
{
	uint64_t rows = 0;

	for (size_t i = 0; i < a->input_count; i++)
		rows += a->inputs[i].rows;
	return rows;
}

static enum kv_rc answer_token(const struct core_append *a, const struct core_done *done,
			       struct core_appended *r, struct kv_err *err)
{
	struct core_asked asked = core_append_asked(a);
	/* Staged batches went with what the token stands for: of them nothing is known any more. */
	bool other = !consumes_staged(a) && done->batch_rows != input_rows(a);

	if (memcmp(asked.b, done->asked.b, sizeof asked.b) != 0 || done->rows != a->rows || other) {
		kv_fail(err, KV_TOKEN_REUSED,
			"the token stands for an append of %" PRIu64 " updates with %s bounds", done->rows,
			memcmp(asked.b, done->asked.b, sizeof asked.b) == 0 ? "these" : "other");
		kv_detail(err, "updates=%" PRIu64, done->rows);
		return KV_TOKEN_REUSED;
	}
	*r = (struct core_appended){
		.lower = done->lower,
		.upper = done->upper,
		.seqno = done->seqno,
		.updates = done->rows + done->batch_rows,
		.known = true,
	};
	return KV_OK;
}

/* The staged batches, as the state has them. */
static enum kv_rc resolve_staged(const struct core_append *a, const struct core_state *s, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < a->input_count && rc == KV_OK; i++) {
		const struct core_input *in = &a->inputs[i];
		const struct core_staged *entry = core_state_staged_by_id(s, in->staged);

		if (!in->is_staged)
			continue;
		if (entry == NULL)
			rc = kv_fail(err, KV_NO_BATCH, "no staged batch %s", in->name);
		else if (entry->lost)
			rc = kv_fail(err, KV_BATCH_LOST,
				     "rows that were written to batch %s were lost; write it anew", in->name);
		else if (entry->unfinished)
			rc = kv_fail(err, KV_BAD_SYNTAX, "the last row of batch %s has no newline", in->name);
		else if (!core_uuid_eq(entry->manifest, in->manifest))
			rc = kv_fail(err, KV_BATCH_TAKEN, "batch %s was changed since it was read", in->name);
		if (rc != KV_OK)
			kv_detail(err, "batch=%s", in->name);
	}
	return rc;
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
	enum kv_rc rc = check_batch_times(a->batch, r->lower, r->upper, a->rewrite_star ? at : 0, err);
	return rc == KV_OK ? check_batches(a, false, r->lower, r->upper, err) : rc;
}

/* The since option is a plain form: it does not move a hold that somebody has fenced. */
static enum kv_rc check_since(const struct core_append *a, const struct core_state *s, struct kv_err *err)
{
	const struct core_hold *hold = a->has_since ? core_state_hold(s, CORE_DEFAULT_HOLD) : NULL;

	return hold != NULL && hold->token != 0 ? core_hold_fenced(hold, err) : KV_OK;
}

static enum kv_rc move_holds(const struct core_append *a, const struct core_state *s,
			     struct core_frontier upper, struct core_diff *d, struct kv_err *err)
{
	for (size_t i = 0; i < s->hold_count; i++) {
		struct core_hold hold = s->holds[i];
		bool asked = a->has_since && strcmp(hold.name, CORE_DEFAULT_HOLD) == 0;

		if (hold.follow != 0)
			hold.since = core_followed(hold.since, upper, hold.follow);
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
	core_settle_since(s, d);
	return KV_OK;
}

/* Copy the descriptions of b's parts to the end of `to`, lifted. KV_NOMEM. */
static enum kv_rc copy_parts(const struct core_batch *b, uint64_t lift, struct core_batch *to,
			     struct kv_err *err)
{
	size_t run = 0;

	for (size_t i = 0; i < b->part_count; i++) {
		struct core_part part = b->parts[i];
		bool first = run < b->run_count && b->run_starts[run] == i;

		run += first;
		if (part.inline_data != NULL) {
			part.inline_data = malloc(part.size != 0 ? part.size : 1);
			if (part.inline_data == NULL)
				return kv_fail_rc(err, KV_NOMEM);
			memcpy(part.inline_data, b->parts[i].inline_data, part.size);
		}
		if (part.rewrite_ts < lift)
			part.rewrite_ts = lift;
		if (!core_batch_push(to, &part, first)) {
			core_part_fini(&part);
			return kv_fail_rc(err, KV_NOMEM);
		}
	}
	return KV_OK;
}

/* Rows and inputs as one batch, a reference in *out. */
static enum kv_rc combine(const struct core_append *a, const struct core_appended *r, struct core_batch **out,
			  struct kv_err *err)
{
	struct lift lift = lift_of(a, r->lower.t);
	struct core_batch *b;
	enum kv_rc rc = KV_OK;

	if (a->input_count == 0) {
		*out = core_batch_ref(a->batch);
		return KV_OK;
	}
	b = core_batch_new(r->lower, r->upper);
	if (b == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	if (a->batch != NULL)
		rc = copy_parts(a->batch, 0, b, err);
	for (size_t i = 0; i < a->input_count && rc == KV_OK; i++)
		rc = copy_parts(a->inputs[i].batch, lift.ts, b, err);
	if (rc == KV_OK)
		*out = b;
	else
		core_batch_unref(b);
	return rc;
}

/* Inline bytes of the shard: only batches at the end have any (fold.c). */
static uint64_t inline_bytes(const struct core_state *s)
{
	uint64_t sum = 0;

	for (size_t i = s->batch_count; i > 0; i--) {
		uint64_t bytes = core_batch_inline_bytes(s->batches[i - 1]);

		if (bytes == 0 && s->batches[i - 1]->part_count != 0)
			break;
		sum += bytes;
	}
	return sum;
}

/* A batch is inline as a whole and within the limit, or not at all. */
static void limit_inline(const struct core_state *s, struct core_batch *b)
{
	uint64_t bytes = core_batch_inline_bytes(b);
	bool all = true;

	for (size_t i = 0; i < b->part_count && all; i++)
		all = b->parts[i].inline_data != NULL && !b->parts[i].loose;
	if (bytes == 0 || (all && bytes + inline_bytes(s) <= CORE_INLINE_TOTAL))
		return;
	for (size_t i = 0; i < b->part_count; i++)
		b->parts[i].loose = b->parts[i].inline_data != NULL;
}

/* The new batch behind the others; an empty one makes one with an empty one before it. */
static enum kv_rc push_batch(const struct core_append *a, const struct core_state *s,
			     const struct core_appended *r, struct core_diff *d, struct kv_err *err)
{
	struct core_batch *last = s->batch_count != 0 ? s->batches[s->batch_count - 1] : NULL;
	struct core_frontier from = r->lower;
	struct core_batch *b;
	enum kv_rc rc = KV_OK;

	if (has_rows(a)) {
		rc = combine(a, r, &b, err);
		if (rc != KV_OK)
			return rc;
		limit_inline(s, b);
	} else {
		if (last != NULL && last->part_count == 0)
			from = last->lower;
		b = core_batch_new(from, r->upper);
		if (b == NULL)
			return kv_fail_rc(err, KV_NOMEM);
	}
	b->lower = from;
	b->upper = r->upper;
	rc = core_diff_splice(d, from, r->lower, &b, 1, err);
	if (rc != KV_OK) {
		core_batch_unref(b);
		return rc;
	}
	return KV_OK;
}

/* What goes with an append that changes anything: consumed staged batches, and the writer. */
static enum kv_rc record(const struct core_append *a, const struct core_state *s, struct core_appended *r,
			 struct core_diff *d, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	r->changes = true;
	r->seqno = s->seqno + 1;
	d->seqno = r->seqno;
	d->has_upper = true; /* the same after a heartbeat: its writer's last upper is told so */
	d->upper = r->upper;
	for (size_t i = 0; i < a->input_count && rc == KV_OK; i++)
		if (a->inputs[i].is_staged)
			rc = core_diff_staged_removed(d, a->inputs[i].staged, err);
	if (a->writer != NULL && core_state_writer(s, a->writer->id) == NULL) {
		d->has_writer = true;
		d->writer = *a->writer;
		d->writer.last_upper = r->upper;
	}
	return rc;
}

/* The data: the splice, the holds, the token. */
static enum kv_rc append_data(const struct core_append *a, const struct core_state *s,
			      struct core_appended *r, struct core_diff *d, struct kv_err *err)
{
	uint64_t batch_rows = input_rows(a);
	enum kv_rc rc = KV_OK;

	r->updates = a->rows + batch_rows;
	r->committed = true;
	if (!core_frontier_eq(r->lower, r->upper))
		rc = push_batch(a, s, r, d, err);
	if (rc == KV_OK)
		rc = move_holds(a, s, r->upper, d, err);
	d->has_token = a->has_token;
	if (a->has_token)
		d->token = (struct core_done){
			.token = a->token,
			.asked = core_append_asked(a),
			.rows = a->rows,
			.batch_rows = batch_rows,
			.lower = r->lower,
			.upper = r->upper,
			.seqno = r->seqno,
		};
	return rc;
}

enum kv_rc core_do_append(const struct core_state *s, struct core_append *a, struct core_diff *d,
			  struct core_appended *r, struct kv_err *err)
{
	const struct core_done *done = a->has_token ? core_state_token(s, a->token) : NULL;
	struct core_frontier upper = s->tombstone ? core_frontier_empty() : s->upper;
	enum kv_rc rc = core_check_inputs(a, err);

	if (rc != KV_OK)
		return rc;
	if (done != NULL)
		return answer_token(a, done, r, err);

	*r = (struct core_appended){.lower = a->lower, .upper = a->upper};
	if (a->lower_star)
		rc = resolve_star(a, s, r, err);
	if (rc == KV_OK)
		rc = resolve_staged(a, s, err);
	if (rc == KV_OK && !r->lower.empty)
		rc = check_batches(a, true, r->lower, r->upper, err);
	if (rc != KV_OK)
		return rc;
	if (a->idempotent && core_frontier_le(a->upper, upper)) {
		/* All of it is there already. */
		*r = (struct core_appended){.lower = upper, .upper = upper, .seqno = s->seqno};
		/* On a tombstone they go with the shard: nothing may come after it. */
		return consumes_staged(a) && !s->tombstone ? record(a, s, r, d, err) : KV_OK;
	}
	if (a->idempotent && core_frontier_le(a->lower, upper))
		r->lower = upper; /* cut, never extended */
	if (r->lower.empty || s->tombstone || !core_frontier_eq(r->lower, s->upper))
		return mismatch(a, s, err);

	rc = check_since(a, s, err);
	if (rc == KV_OK)
		rc = record(a, s, r, d, err);
	return rc == KV_OK ? append_data(a, s, r, d, err) : rc;
}
