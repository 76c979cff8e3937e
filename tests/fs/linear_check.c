/*
 * linear_check.c - see linear_check.h.
 *
 * What happened is a chain: each append that took effect moved the upper from one frontier to a greater one, and
 * names both, so the order of the commits c1 < c2 < ... is that of their uppers, whatever the clocks say; state j
 * is what there is after the first j of them. An append whose outcome is not known is in the chain iff its own
 * key is in the truth; one without rows, iff the chain has a gap where it fits. So for all readers an unknown
 * outcome is one and the same.
 *
 * Then only the moments are left. Let p1 <= p2 <= ... be when the commits took effect:
 *
 *     start of the append j <= pj <= its end, if it was acknowledged
 *     pj <= end of whatever saw state j or a later one
 *     start of whatever saw state j or an earlier one <= p(j+1)
 *
 * where a read of the upper, a refusal and a snapshot see exactly one state, and a listener and an as_of at least
 * one. Take lo_j, the greatest lower bound of p1 .. pj, and hi_j, the least upper bound of pj .. pn. If lo_j >
 * hi_j for a j, no moment is left for it. Else pj = lo_j, and max(start, lo_j) for what saw state j, are moments
 * in the order of a plain shard: so the check is exact, and takes O(n log n). What it lets pass: a snapshot
 * without rows fits each state that has none, one at a time; gaps that several unknown appends fit are filled by
 * one of them, with the freest bounds.
 *
 * Contents are compared with the sums of the committed rows, byte by byte.
 */
#include "tests/fs/linear_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bound {
	uint64_t at;
	const char *by;
};

struct commit {
	uint64_t lower;
	uint64_t upper;
	const struct lin_append *append; /* NULL: one of several of unknown outcome, without rows */
	struct bound lo;
	struct bound hi;
};

struct check {
	const struct lin_history *h;
	char *why;
	struct lin_row *truth; /* sorted */
	size_t truth_count;
	struct commit *commits;
	size_t commit_count;
	const struct lin_append **loose; /* may have happened, and left no rows */
	size_t loose_count;
	struct lin_row *rows; /* of the model; sorted, summed */
	size_t row_count;
};

static bool fail(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(struct check *c, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->why, LIN_WHY, format, args);
	va_end(args);
	return false;
}

/* --- rows ------------------------------------------------------------------------------------------ */

static int by_key_and_time(const void *a, const void *b)
{
	const struct lin_row *x = a, *y = b;
	int c = strcmp(x->key, y->key);

	return c != 0 ? c : (x->time > y->time) - (x->time < y->time);
}

/* Sort them, and sum those of one key and time; how many are left. */
static size_t consolidate(struct lin_row *rows, size_t count)
{
	size_t out = 0;

	if (count != 0)
		qsort(rows, count, sizeof *rows, by_key_and_time);
	for (size_t i = 0; i < count;) {
		struct lin_row sum = rows[i];

		for (i++; i < count && by_key_and_time(&sum, &rows[i]) == 0; i++)
			sum.diff += rows[i].diff;
		if (sum.diff != 0)
			rows[out++] = sum;
	}
	return out;
}

static struct lin_row *copy_rows(const struct lin_listener *l, size_t *count)
{
	struct lin_row *rows = calloc(l->row_count + 1, sizeof *rows);

	if (rows == NULL)
		abort();
	if (l->row_count != 0)
		memcpy(rows, l->rows, l->row_count * sizeof *rows);
	*count = consolidate(rows, l->row_count);
	return rows;
}

/* Where in the truth an append's own key begins; *count: how often it is there. */
static const struct lin_row *in_truth(const struct check *c, const struct lin_append *a, size_t *count)
{
	size_t lo = 0, hi = c->truth_count;

	*count = 0;
	if (a->row_count == 0)
		return NULL;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(c->truth[mid].key, a->rows[0].key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (lo + *count < c->truth_count && strcmp(c->truth[lo + *count].key, a->rows[0].key) == 0)
		(*count)++;
	return &c->truth[lo];
}

/* --- the chain ------------------------------------------------------------------------------------- */

static const char *name_of(const struct lin_append *a)
{
	return a->row_count != 0 ? a->rows[0].key : "one without rows";
}

static void add_commit(struct check *c, const struct lin_append *a, uint64_t lower, uint64_t upper, uint64_t end)
{
	c->commits[c->commit_count++] = (struct commit){.lower = lower,
							.upper = upper,
							.append = a,
							.lo = {a->start, "its start"},
							.hi = {end, "its acknowledgement"}};
}

/* Where it took effect, by the truth or else by what it was told. */
static bool add_effective(struct check *c, const struct lin_append *a, const struct lin_row *found)
{
	uint64_t end = a->outcome == LIN_DONE ? a->end : UINT64_MAX, lower = a->lower, upper = a->upper;

	if (a->form == LIN_INTERVAL && found == NULL)
		lower = a->told_lower;
	else if (a->form != LIN_CAS)
		lower = found->time;
	if (a->form == LIN_BLIND && upper != LIN_END)
		upper += lower;
	if (a->told && (a->told_lower != lower || a->told_upper != upper))
		return fail(c, "append %s was told [%" PRIu64 ", %" PRIu64 "), and is there at [%" PRIu64 ", %" PRIu64 ")",
			    name_of(a), a->told_lower, a->told_upper, lower, upper);
	add_commit(c, a, lower, upper, end);
	return true;
}

/* Whether it was one that has nothing to do. */
static bool is_no_op(const struct lin_append *a)
{
	if (a->form == LIN_CAS)
		return a->lower == a->upper;
	return a->form == LIN_INTERVAL && a->told && a->told_lower == a->told_upper;
}

static bool place(struct check *c, const struct lin_append *a)
{
	size_t count;
	const struct lin_row *found = in_truth(c, a, &count);

	if (count != 0 && a->outcome == LIN_REFUSED)
		return fail(c, "append %s was refused, and is there", name_of(a));
	if (count != 0 && is_no_op(a))
		return fail(c, "append %s had nothing to do, and is there", name_of(a));
	if (count > 1 && a->form != LIN_INTERVAL)
		return fail(c, "append %s is there more than once", name_of(a));
	if (a->outcome == LIN_REFUSED || is_no_op(a))
		return true;
	if (count != 0)
		return add_effective(c, a, found);
	if (a->outcome == LIN_DONE && (a->told || a->form != LIN_INTERVAL)) {
		if (a->row_count != 0)
			return fail(c, "append %s was acknowledged, and is not there", name_of(a));
		return add_effective(c, a, NULL);
	}
	if (a->row_count == 0)
		c->loose[c->loose_count++] = a;
	return true;
}

static int by_lower(const void *a, const void *b)
{
	const struct commit *x = a, *y = b;

	return (x->lower > y->lower) - (x->lower < y->lower);
}

static bool fits(const struct lin_append *a, uint64_t from, uint64_t to)
{
	bool begins = a->form == LIN_CAS ? a->lower == from : a->lower <= from;

	return begins && from < a->upper && a->upper <= to;
}

/* Find loose appends that lead from one frontier to another, and add them. */
static bool fill(struct check *c, uint64_t from, uint64_t to)
{
	uint64_t start = UINT64_MAX;

	if (from == to)
		return true;
	for (size_t i = 0; i < c->loose_count; i++)
		if (fits(c->loose[i], from, to) && c->loose[i]->start < start)
			start = c->loose[i]->start;
	for (size_t i = 0; i < c->loose_count; i++) {
		if (!fits(c->loose[i], from, to) || !fill(c, c->loose[i]->upper, to))
			continue;
		c->commits[c->commit_count++] = (struct commit){.lower = from,
								.upper = c->loose[i]->upper,
								.lo = {start, "its start"},
								.hi = {UINT64_MAX, "nothing"}};
		return true;
	}
	return false;
}

static bool make_chain(struct check *c)
{
	uint64_t at = 0;
	size_t known;

	for (size_t i = 0; i < c->h->append_count; i++)
		if (!place(c, &c->h->appends[i]))
			return false;
	known = c->commit_count;
	if (known != 0)
		qsort(c->commits, known, sizeof *c->commits, by_lower);
	for (size_t i = 0; i < known; i++) {
		if (c->commits[i].lower < at)
			return fail(c, "two appends took effect where the upper was %" PRIu64, c->commits[i].lower);
		if (!fill(c, at, c->commits[i].lower))
			return fail(c, "nothing moved the upper from %" PRIu64 " to %" PRIu64, at, c->commits[i].lower);
		at = c->commits[i].upper;
	}
	if (at != LIN_END)
		return fail(c, "the shard was not finished");
	qsort(c->commits, c->commit_count, sizeof *c->commits, by_lower);
	return true;
}

/* The state whose upper that is; false: there was none. */
static bool state_of(const struct check *c, uint64_t upper, size_t *state)
{
	size_t lo = 0, hi = c->commit_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (c->commits[mid].upper < upper)
			lo = mid + 1;
		else
			hi = mid;
	}
	*state = upper == 0 ? 0 : lo + 1;
	return upper == 0 || (lo < c->commit_count && c->commits[lo].upper == upper);
}

/* The first state that has an upper of at least that. */
static size_t state_past(const struct check *c, uint64_t upper)
{
	size_t state = 0;

	while (state < c->commit_count && (state == 0 ? 0 : c->commits[state - 1].upper) < upper)
		state++;
	return state;
}

/* --- moments --------------------------------------------------------------------------------------- */

static void saw_at_least(struct check *c, size_t state, uint64_t end, const char *by)
{
	if (state != 0 && end < c->commits[state - 1].hi.at)
		c->commits[state - 1].hi = (struct bound){end, by};
}

static void saw(struct check *c, size_t state, uint64_t start, uint64_t end, const char *by)
{
	saw_at_least(c, state, end, by);
	if (state < c->commit_count && start > c->commits[state].lo.at)
		c->commits[state].lo = (struct bound){start, by};
}

static bool saw_upper(struct check *c, uint64_t upper, uint64_t start, uint64_t end, const char *by)
{
	size_t state;

	if (!state_of(c, upper, &state))
		return fail(c, "%s: the upper never was %" PRIu64, by, upper);
	saw(c, state, start, end, by);
	return true;
}

static bool saw_refusal(struct check *c, const struct lin_append *a)
{
	bool right = a->form == LIN_CAS	       ? a->told_upper != a->lower
		     : a->form == LIN_INTERVAL ? a->told_upper < a->lower
					       : a->told_upper == LIN_END;

	if (!right)
		return fail(c, "append %s from %" PRIu64 " was refused at the upper %" PRIu64, name_of(a), a->lower,
			    a->told_upper);
	return saw_upper(c, a->told_upper, a->last_start, a->end, "a refusal");
}

static bool look_at_append(struct check *c, const struct lin_append *a)
{
	size_t count;

	in_truth(c, a, &count);
	if (a->outcome == LIN_REFUSED)
		return !a->told || saw_refusal(c, a);
	if (a->outcome != LIN_DONE)
		return true;
	if (is_no_op(a) && a->form == LIN_CAS)
		/* Of several tries under a token the first one may have been it, and the others were told so. */
		return saw_upper(c, a->lower, a->start, a->end, "a heartbeat");
	if (is_no_op(a) && a->told_upper < a->upper)
		return fail(c, "append %s had nothing to do at %" PRIu64 ", below its upper", name_of(a), a->told_upper);
	if (is_no_op(a))
		return saw_upper(c, a->told_upper, a->last_start, a->end, "an append with nothing to do");
	if (count == 0 && !a->told && a->form == LIN_INTERVAL)
		saw_at_least(c, state_past(c, a->upper), a->end, "an append");
	return true;
}

/* Every pj finds a moment. */
static bool order(struct check *c)
{
	for (size_t i = 1; i < c->commit_count; i++)
		if (c->commits[i].lo.at < c->commits[i - 1].lo.at)
			c->commits[i].lo = c->commits[i - 1].lo;
	for (size_t i = c->commit_count; i-- > 1;)
		if (c->commits[i - 1].hi.at > c->commits[i].hi.at)
			c->commits[i - 1].hi = c->commits[i].hi;
	for (size_t i = 0; i < c->commit_count; i++) {
		const struct commit *k = &c->commits[i];

		if (k->lo.at > k->hi.at)
			return fail(c,
				    "the upper came to %" PRIu64 " after %" PRIu64 " (%s) and before %" PRIu64 " (%s)",
				    k->upper, k->lo.at, k->lo.by, k->hi.at, k->hi.by);
	}
	return true;
}

/* --- contents -------------------------------------------------------------------------------------- */

static void make_model(struct check *c)
{
	size_t count = 0;

	for (size_t i = 0; i < c->commit_count; i++)
		count += c->commits[i].append != NULL ? c->commits[i].append->row_count : 0;
	c->rows = calloc(count + 1, sizeof *c->rows);
	if (c->rows == NULL)
		abort();
	for (size_t i = 0; i < c->commit_count; i++) {
		const struct commit *k = &c->commits[i];

		for (size_t n = 0; k->append != NULL && n < k->append->row_count; n++) {
			struct lin_row row = k->append->rows[n];

			if (row.time == LIN_STAR)
				row.time = k->lower;
			if (row.time >= k->lower) /* an append is cut */
				c->rows[c->row_count++] = row;
		}
	}
	c->row_count = consolidate(c->rows, c->row_count);
}

/* What the collection is as of a time; given. */
static char *model_text(const struct check *c, uint64_t time)
{
	char *text = malloc(c->row_count * (LIN_KEY + 48) + 1), *p = text;

	if (text == NULL)
		abort();
	*p = '\0';
	for (size_t i = 0; i < c->row_count;) {
		const char *key = c->rows[i].key;
		int64_t sum = 0;

		for (; i < c->row_count && strcmp(c->rows[i].key, key) == 0; i++)
			sum += c->rows[i].time <= time ? c->rows[i].diff : 0;
		if (sum != 0)
			p += sprintf(p, "%" PRIu64 "\t%" PRId64 "\t%s\tv\n", time, sum, key);
	}
	return text;
}

static bool same_text(struct check *c, uint64_t time, const char *text, const char *by)
{
	char *want = model_text(c, time);
	size_t n = 0, line = 1;

	for (; want[n] != '\0' && want[n] == text[n]; n++)
		line += want[n] == '\n';
	if (want[n] != text[n])
		fail(c, "%s at %" PRIu64 ": line %zu is not \"%.60s\", but \"%.60s\"", by, time, line, want + n, text + n);
	bool same = want[n] == text[n];
	free(want);
	return same;
}

static uint64_t latest_of(uint64_t upper)
{
	return upper == LIN_END ? LIN_END : upper - 1;
}

static bool look_at_snapshot(struct check *c, const struct lin_read *r)
{
	uint64_t time = strtoull(r->text, NULL, 10);

	if (r->text[0] == '\0')
		return true;
	return saw_upper(c, time == LIN_END ? LIN_END : time + 1, r->start, r->end, "a snapshot") &&
	       same_text(c, time, r->text, "a snapshot");
}

/* After order(). */
static bool look_at_empty_snapshot(struct check *c, const struct lin_read *r)
{
	for (size_t state = 0; state <= c->commit_count; state++) {
		bool before = state == 0 || c->commits[state - 1].lo.at <= r->end;
		bool after = state == c->commit_count || c->commits[state].hi.at >= r->start;
		char *text;
		bool empty;

		if (!before || !after)
			continue;
		text = model_text(c, state == 0 ? 0 : latest_of(c->commits[state - 1].upper));
		empty = state == 0 || text[0] == '\0';
		free(text);
		if (empty)
			return true;
	}
	return fail(c, "a snapshot is empty at a time when no state was");
}

static bool look_at_read(struct check *c, const struct lin_read *r)
{
	if (r->kind == LIN_UPPER)
		return saw_upper(c, r->value, r->start, r->end, "a read of the upper");
	if (r->kind == LIN_SNAPSHOT)
		return look_at_snapshot(c, r);
	saw_at_least(c, state_past(c, r->value == LIN_END ? LIN_END : r->value + 1), r->end, "an as_of");
	return same_text(c, r->value, r->text, "an as_of");
}

/* The rows of each step lie in it, and the steps follow each other. */
static bool look_at_steps(struct check *c, const struct lin_listener *l, uint64_t *to)
{
	size_t row = 0, state;

	*to = l->from;
	for (size_t i = 0; i < l->step_count; i++) {
		const struct lin_step *s = &l->steps[i];

		if (s->lower != *to || s->upper <= s->lower)
			return fail(c, "a listener at %" PRIu64 " got [%" PRIu64 ", %" PRIu64 ")", *to, s->lower, s->upper);
		if (!state_of(c, s->upper, &state))
			return fail(c, "a listener: the upper never was %" PRIu64, s->upper);
		saw_at_least(c, state, s->seen, "a listener");
		for (size_t n = 0; n < s->row_count; n++, row++)
			if (l->rows[row].time < s->lower || l->rows[row].time >= s->upper)
				return fail(c, "a listener got %s at %" PRIu64 " in [%" PRIu64 ", %" PRIu64 ")",
					    l->rows[row].key, l->rows[row].time, s->lower, s->upper);
		*to = s->upper;
	}
	if (l->ended && *to != LIN_END)
		return fail(c, "a listener ended at %" PRIu64, *to);
	return true;
}

static bool look_at_listener(struct check *c, const struct lin_listener *l)
{
	struct lin_row *rows;
	size_t count, n = 0;
	uint64_t to;
	bool same = true;

	if (!look_at_steps(c, l, &to))
		return false;
	rows = copy_rows(l, &count);
	for (size_t i = 0; i < c->row_count && same; i++) {
		const struct lin_row *want = &c->rows[i];

		if (want->time < l->from || want->time >= to)
			continue;
		same = n < count && by_key_and_time(want, &rows[n]) == 0 && want->diff == rows[n].diff;
		if (!same)
			fail(c, "a listener from %" PRIu64 " to %" PRIu64 " has not just %s at %" PRIu64, l->from, to,
			     want->key, want->time);
		n++;
	}
	if (same && n != count) {
		same = false;
		fail(c, "a listener from %" PRIu64 " has %s at %" PRIu64 ", which never was", l->from, rows[n].key,
		     rows[n].time);
	}
	free(rows);
	return same;
}

static bool look(struct check *c)
{
	const struct lin_history *h = c->h;

	for (size_t i = 0; i < h->append_count; i++)
		if (!look_at_append(c, &h->appends[i]))
			return false;
	for (size_t i = 0; i < h->listener_count; i++)
		if (!look_at_listener(c, &h->listeners[i]))
			return false;
	for (size_t i = 0; i < h->read_count; i++)
		if (!look_at_read(c, &h->reads[i]))
			return false;
	if (!order(c))
		return false;
	for (size_t i = 0; i < h->read_count; i++)
		if (h->reads[i].kind == LIN_SNAPSHOT && h->reads[i].text[0] == '\0' &&
		    !look_at_empty_snapshot(c, &h->reads[i]))
			return false;
	return true;
}

bool lin_check(const struct lin_history *h, char why[LIN_WHY])
{
	struct check c = {.h = h, .why = why};
	bool ok;

	if (h->listener_count == 0 || h->listeners[0].from != 0 || !h->listeners[0].ended)
		return fail(&c, "the truth is not known");
	c.truth = copy_rows(&h->listeners[0], &c.truth_count);
	/* Fillings: a loose append is used once in a chain that only goes up. */
	c.commits = calloc(2 * h->append_count + 1, sizeof *c.commits);
	c.loose = calloc(h->append_count + 1, sizeof *c.loose);
	if (c.commits == NULL || c.loose == NULL)
		abort();
	ok = make_chain(&c);
	if (ok) {
		make_model(&c);
		ok = look(&c);
	}
	free(c.truth);
	free(c.commits);
	free(c.loose);
	free(c.rows);
	return ok;
}
