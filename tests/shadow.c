/* shadow.c - see shadow.h: rows, and appends. */
#include "tests/shadow.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- kinds ----------------------------------------------------------------------------------------- */

const char *sh_key(unsigned kind)
{
	static const char keys[SH_KEYS][3] = {"k0", "k1", "k2", "k3"};

	return keys[kind / SH_VALS];
}

const char *sh_val(unsigned kind)
{
	static char large[5000];

	if (kind != SH_KINDS - 1)
		return kind % SH_VALS == 0 ? "v0" : "v1";
	if (large[0] == '\0') {
		memset(large, 'x', sizeof large - 1);
		memcpy(large, "v1", 2);
	}
	return large;
}

int sh_kind(const char *key, size_t key_len, const char *val, size_t val_len)
{
	for (unsigned kind = 0; kind < SH_KINDS; kind++)
		if (strlen(sh_key(kind)) == key_len && strncmp(key, sh_key(kind), key_len) == 0 &&
		    strlen(sh_val(kind)) == val_len && strncmp(val, sh_val(kind), val_len) == 0)
			return (int)kind;
	return -1;
}

unsigned sh_kind_of(uint64_t chance)
{
	return chance % 60 == 0 ? SH_KINDS - 1 : (unsigned)(chance % (SH_KINDS - 1));
}

/* --- rows ------------------------------------------------------------------------------------------ */

void sh_rows_add(struct sh_rows *rows, struct sh_row row)
{
	if ((rows->count & (rows->count - 1)) == 0) {
		rows->r = realloc(rows->r, (rows->count == 0 ? 1 : 2 * rows->count) * sizeof *rows->r);
		assert(rows->r != NULL);
	}
	rows->r[rows->count++] = row;
}

struct sh_rows sh_rows_copy(const struct sh_rows *rows)
{
	struct sh_rows copy = {0};

	for (size_t i = 0; i < rows->count; i++)
		sh_rows_add(&copy, rows->r[i]);
	return copy;
}

void sh_rows_free(struct sh_rows *rows)
{
	free(rows->r);
	*rows = (struct sh_rows){0};
}

static int row_cmp(const void *a, const void *b)
{
	const struct sh_row *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return (int)x->star - (int)y->star;
}

struct sh_rows sh_rows_settled(const struct sh_rows *rows)
{
	struct sh_rows sorted = sh_rows_copy(rows), out = {0};

	if (sorted.count != 0)
		qsort(sorted.r, sorted.count, sizeof *sorted.r, row_cmp);
	for (size_t i = 0; i < sorted.count;) {
		struct sh_row row = sorted.r[i];
		__int128 sum = 0;

		for (; i < sorted.count && row_cmp(&row, &sorted.r[i]) == 0; i++)
			sum += sorted.r[i].diff;
		while (sum != 0) {
			row.diff = sum > INT64_MAX ? INT64_MAX : sum < INT64_MIN ? INT64_MIN : (int64_t)sum;
			sum -= row.diff;
			sh_rows_add(&out, row);
		}
	}
	sh_rows_free(&sorted);
	return out;
}

struct sh_batch sh_batch_copy(const struct sh_batch *b)
{
	struct sh_batch copy = *b;

	copy.rows = sh_rows_copy(&b->rows);
	return copy;
}

void sh_batch_free(struct sh_batch *b)
{
	sh_rows_free(&b->rows);
	*b = (struct sh_batch){0};
}

static bool has_data(const struct sh_batch *b)
{
	struct sh_rows settled = sh_rows_settled(&b->rows);
	bool data = settled.count != 0;

	sh_rows_free(&settled);
	return data;
}

/* --- words ----------------------------------------------------------------------------------------- */

static const char *word(struct core_frontier f)
{
	static char buf[4][CORE_FRONTIER_LEN];
	static unsigned next;

	return core_frontier_format(f, buf[next++ % 4]);
}

char *sh_ask_text(const struct sh_ask *ask, char out[SH_TEXT])
{
	char lower[64], upper[64], rewrite[48] = "", token[24] = "", since[48] = "";

	snprintf(lower, sizeof lower, "%s=%s", ask->idempotent ? "lower" : "expected_upper",
		 ask->star ? "*" : word(ask->lower));
	snprintf(upper, sizeof upper, "%s=%s", ask->idempotent ? "upper" : "new_upper", word(ask->upper));
	if (ask->plus)
		snprintf(upper, sizeof upper, "new_upper=+%" PRIu64, ask->n);
	if (ask->rewrite)
		snprintf(rewrite, sizeof rewrite, " rewrite_ts=%" PRIu64, ask->rewrite_ts);
	if (ask->rewrite_star)
		snprintf(rewrite, sizeof rewrite, " rewrite_ts=*");
	if (ask->has_token)
		snprintf(token, sizeof token, " token=%u", ask->token);
	if (ask->has_since)
		snprintf(since, sizeof since, " since=%s", word(ask->since));
	snprintf(out, SH_TEXT, "%s %s%s%s%s", lower, upper, rewrite, token, since);
	return out;
}

char *sh_answer_text(const struct sh_answer *a, char out[SH_TEXT])
{
	if (a->rc == KV_OK)
		snprintf(out, SH_TEXT, "%s %s %s updates=%" PRIu64, a->same ? "same" : "ok", word(a->lower),
			 word(a->upper), a->updates);
	else
		snprintf(out, SH_TEXT, "%s%s%s", kv_rc_name(a->rc), a->detail[0] != '\0' ? " " : "",
			 a->detail);
	return out;
}

static bool say(struct sh_answer *a, enum kv_rc rc, const char *fmt, ...) KV_PRINTF(3, 4);
static bool say(struct sh_answer *a, enum kv_rc rc, const char *fmt, ...)
{
	va_list ap;

	*a = (struct sh_answer){.rc = rc};
	va_start(ap, fmt);
	vsnprintf(a->detail, sizeof a->detail, fmt, ap);
	va_end(ap);
	return false;
}

/* --- what the inputs tell -------------------------------------------------------------------------- */

static bool below(struct core_frontier f, uint64_t t) /* t lies below f */
{
	return f.empty || t < f.t;
}

static bool in_bounds(struct sh_answer *a, uint64_t t, struct core_frontier lower, struct core_frontier upper)
{
	if (below(lower, t))
		return say(a, KV_NOT_BEYOND_LOWER, "time=%" PRIu64 " lower=%s", t, word(lower));
	if (!below(upper, t))
		return say(a, KV_BEYOND_UPPER, "time=%" PRIu64 " upper=%s", t, word(upper));
	return true;
}

static bool bad_rewrite(struct sh_answer *a, uint64_t ts, struct core_frontier lower,
			struct core_frontier upper)
{
	return say(a, KV_BAD_REWRITE, "rewrite_ts=%" PRIu64 " lower=%s upper=%s", ts, word(lower),
		   word(upper));
}

static bool ask_is_right(const struct sh_ask *ask, const struct sh_input *in, size_t count,
			 struct sh_answer *a)
{
	struct core_frontier lower = ask->star ? core_frontier_at(0) : ask->lower;
	struct core_frontier upper = ask->plus ? core_frontier_empty() : ask->upper;

	if (!ask->star && !ask->lower.empty && core_frontier_lt(ask->upper, ask->lower))
		return say(a, KV_BAD_BOUNDS, "lower=%s upper=%s", word(ask->lower), word(ask->upper));
	for (size_t i = 0; i < count; i++)
		if (in[i].foreign)
			return say(a, KV_OTHER_SHARD, "%s", "");
	if (!ask->star && ask->lower.empty)
		return true;
	if (ask->rewrite && !ask->plus && (below(lower, ask->rewrite_ts) || !below(upper, ask->rewrite_ts)))
		return bad_rewrite(a, ask->rewrite_ts, lower, upper);
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < i; j++)
			if (in[i].id != 0 && in[i].id == in[j].id)
				return say(a, KV_BAD_SYNTAX, "%s", "");
	return true;
}

/* One after the other; they are lifted to an absolute rewrite. */
static bool rows_are_right(const struct sh_ask *ask, struct sh_rows *rows, struct sh_answer *a)
{
	struct core_frontier lower = ask->star ? core_frontier_at(0) : ask->lower;
	struct core_frontier upper = ask->plus ? core_frontier_empty() : ask->upper;

	for (size_t i = 0; i < rows->count; i++) {
		struct sh_row *row = &rows->r[i];

		if (row->star && !ask->star)
			return say(a, KV_BAD_SYNTAX, "%s", "");
		if (ask->rewrite && (row->star || row->time < ask->rewrite_ts)) {
			row->time = ask->rewrite_ts;
			row->star = false;
		}
		if (row->diff == 0)
			continue;
		if (!ask->star && !ask->lower.empty && core_frontier_eq(ask->lower, ask->upper))
			return say(a, KV_EMPTY_INTERVAL, "lower=%s upper=%s", word(ask->lower),
				   word(ask->lower));
		if (!row->star && !lower.empty && !in_bounds(a, row->time, lower, upper))
			return false;
	}
	return true;
}

/* Every row's time, lifted, of those that are no stars: the least and the greatest. */
static bool times_are_right(const struct sh_rows *rows, uint64_t lift, struct core_frontier lower,
			    struct core_frontier upper, struct sh_answer *a)
{
	struct sh_rows settled = sh_rows_settled(rows);
	uint64_t least = UINT64_MAX, most = 0;

	for (size_t i = 0; i < settled.count; i++) {
		uint64_t t = settled.r[i].time < lift ? lift : settled.r[i].time;

		if (settled.r[i].star)
			continue;
		least = t < least ? t : least;
		most = t > most ? t : most;
	}
	sh_rows_free(&settled);
	return least > most || (in_bounds(a, least, lower, upper) && in_bounds(a, most, lower, upper));
}

/* What the times of an input are lifted to by the append, and by what was done to it before. */
static uint64_t lift_of(const struct sh_ask *ask, const struct sh_batch *b, uint64_t at, bool *any)
{
	uint64_t lift = ask->rewrite ? ask->rewrite_ts : ask->rewrite_star ? at : 0;

	*any = ask->rewrite || ask->rewrite_star || (b != NULL && b->has_rewrite);
	return b != NULL && b->has_rewrite && b->rewrite_ts > lift ? b->rewrite_ts : lift;
}

/*
 * Bounds of one batch: batch.lower <= lower and upper <= batch.upper. If any batch of the call is rewritten,
 * the uppers must be equal, and no batch may then reach below the append: its least time, which is the
 * rewrite's or else its lower, must be in the append (as in the seed: with a rewrite nothing is truncated).
 */
static bool bounds_are_right(const struct sh_ask *ask, const struct sh_batch *b, bool any,
			     struct core_frontier lower, struct core_frontier upper, struct sh_answer *a)
{
	bool own;
	uint64_t lift = lift_of(ask, b, lower.t, &own);

	if (any && !core_frontier_eq(upper, b->upper))
		return say(a, KV_BAD_REWRITE, "%s", "");
	if (own && (below(lower, lift) || below(b->lower, lift)))
		return say(a, KV_BAD_REWRITE, "%s", "");
	if (any && !own && core_frontier_lt(b->lower, lower))
		return say(a, KV_BAD_REWRITE, "%s", "");
	if (core_frontier_lt(lower, b->lower) || core_frontier_lt(b->upper, upper))
		return say(a, KV_BATCH_BOUNDS, "%s", "");
	return true;
}

static bool inputs_are_right(const struct sh_ask *ask, const struct sh_input *in, size_t count, bool staged,
			     struct core_frontier lower, struct core_frontier upper, struct sh_answer *a)
{
	bool any = false, own;

	for (size_t i = 0; i < count; i++) {
		(void)lift_of(ask, in[i].batch, lower.t, &own);
		any = any || own;
	}
	for (size_t i = 0; i < count; i++) {
		const struct sh_batch *b = in[i].batch;

		if (in[i].staged != staged)
			continue;
		if (b->has_bounds && !bounds_are_right(ask, b, any, lower, upper, a))
			return false;
		if (core_frontier_eq(lower, upper) && has_data(b))
			return say(a, KV_EMPTY_INTERVAL, "%s", "");
		if (!b->has_bounds &&
		    !times_are_right(&b->rows, lift_of(ask, b, lower.t, &own), lower, upper, a))
			return false;
	}
	return true;
}

/* --- appends --------------------------------------------------------------------------------------- */

static bool mismatch(const struct shadow *m, const struct sh_ask *ask, struct sh_answer *a)
{
	return say(a, KV_UPPER_MISMATCH, "%s=%s current_upper=%s",
		   ask->idempotent ? "lower" : "expected_upper", ask->star ? "*" : word(ask->lower),
		   word(m->upper));
}

static void asked_text(const struct sh_ask *ask, size_t inputs, char asked[200])
{
	snprintf(asked, 200, "%d%d%d %s %s %" PRIu64 " %zu", ask->idempotent, ask->star, ask->plus,
		 ask->star ? "" : word(ask->lower), ask->plus ? "" : word(ask->upper), ask->plus ? ask->n : 0,
		 inputs);
}

/* Rows of the inputs handed over; *known: none of them is staged, of which a retry knows no rows. */
static uint64_t input_rows(const struct sh_input *in, size_t count, bool *known)
{
	uint64_t sum = 0;

	*known = true;
	for (size_t i = 0; i < count; i++) {
		sum += in[i].batch != NULL ? in[i].batch->rows.count : 0;
		*known = *known && !in[i].staged;
	}
	return sum;
}

/* True: the token says it all. */
static bool token_tells(const struct shadow *m, const struct sh_ask *ask, size_t own,
			const struct sh_input *in, size_t count, struct sh_answer *a)
{
	const struct sh_token *token = &m->tokens[ask->token];
	char asked[200];
	bool known;
	uint64_t built = input_rows(in, count, &known);

	if (!ask->has_token || !token->used)
		return false;
	asked_text(ask, count, asked);
	if (strcmp(asked, token->asked) != 0 || token->own != own || (known && built != token->built)) {
		say(a, KV_TOKEN_REUSED, "updates=%" PRIu64, token->own);
		return true;
	}
	*a = token->answer;
	a->same = true;
	a->by_token = true;
	return true;
}

static bool star_is_right(const struct shadow *m, const struct sh_ask *ask, const struct sh_rows *rows,
			  const struct sh_input *in, size_t count, struct core_frontier *upper,
			  struct sh_answer *a)
{
	uint64_t at = m->upper.t;

	*upper = ask->plus ? core_frontier_at(at + ask->n) : ask->upper;
	if (m->upper.empty || core_frontier_le(*upper, m->upper))
		return mismatch(m, ask, a);
	if (ask->rewrite && (ask->rewrite_ts < at || !below(*upper, ask->rewrite_ts)))
		return bad_rewrite(a, ask->rewrite_ts, m->upper, *upper);
	return times_are_right(rows, ask->rewrite_star ? at : 0, m->upper, *upper, a) &&
	       inputs_are_right(ask, in, count, false, m->upper, *upper, a);
}

static bool staged_are_right(const struct sh_input *in, size_t count, struct sh_answer *a)
{
	for (size_t i = 0; i < count; i++) {
		if (in[i].staged && (in[i].batch == NULL || in[i].gone))
			return say(a, KV_NO_BATCH, "%s", "");
		if (in[i].staged && in[i].unfinished)
			return say(a, KV_BAD_SYNTAX, "%s", "");
	}
	return true;
}

/* On the state: the bounds as used, or a no-op, or why not. */
static bool state_is_right(const struct shadow *m, const struct sh_ask *ask, const struct sh_rows *rows,
			   const struct sh_input *in, size_t count, struct core_frontier *lower,
			   struct core_frontier *upper, struct sh_answer *a)
{
	*lower = ask->star ? m->upper : ask->lower;
	*upper = ask->upper;
	if (ask->star && !star_is_right(m, ask, rows, in, count, upper, a))
		return false;
	if (!staged_are_right(in, count, a))
		return false;
	if (!lower->empty && !inputs_are_right(ask, in, count, true, *lower, *upper, a))
		return false;
	if (ask->idempotent && core_frontier_le(ask->upper, m->upper)) {
		*a = (struct sh_answer){.same = true, .lower = m->upper, .upper = m->upper};
		return false;
	}
	if (ask->idempotent && core_frontier_lt(ask->lower, m->upper))
		*lower = m->upper;
	return (!lower->empty && core_frontier_eq(*lower, m->upper)) || mismatch(m, ask, a);
}

static void remember(struct shadow *m, const struct sh_rows *rows, uint64_t lift, struct core_frontier lower,
		     struct core_frontier upper)
{
	for (size_t i = 0; i < rows->count; i++) {
		struct sh_row row = rows->r[i];

		row.time = row.star ? lower.t : row.time;
		row.time = row.time < lift ? lift : row.time;
		row.star = false;
		if (row.diff != 0 && !below(lower, row.time) && below(upper, row.time))
			sh_rows_add(&m->facts, row);
	}
}

static void move_since(struct shadow *m, struct core_frontier to)
{
	m->since = core_frontier_max(m->since, to);
}

static void follow_upper(struct shadow *m)
{
	if (m->follow != 0 && !m->upper.empty && m->upper.t > m->follow)
		move_since(m, core_frontier_at(m->upper.t - m->follow));
}

static void add_edge(struct shadow *m, struct core_frontier f)
{
	m->edges = realloc(m->edges, (m->edge_count + 1) * sizeof *m->edges);
	assert(m->edges != NULL);
	m->edges[m->edge_count++] = f;
}

static void commit(struct shadow *m, const struct sh_ask *ask, struct core_frontier lower,
		   struct core_frontier upper, uint64_t own, uint64_t built, size_t inputs, bool vague,
		   struct sh_answer *a)
{
	m->upper = upper;
	add_edge(m, upper);
	follow_upper(m);
	if (ask->has_since) {
		move_since(m, ask->since);
		m->follow = 0;
	}
	*a = (struct sh_answer){.lower = lower, .upper = upper, .updates = own + built, .vague = vague};
	if (!ask->has_token)
		return;
	m->tokens[ask->token] = (struct sh_token){
		.used = true, .ask = *ask, .inputs = inputs, .own = own, .built = built, .answer = *a};
	asked_text(ask, inputs, m->tokens[ask->token].asked);
}

bool shadow_text(const struct sh_ask *ask, const struct sh_rows *given, struct sh_answer *a)
{
	struct sh_rows rows = sh_rows_copy(given);
	bool right;

	*a = (struct sh_answer){0};
	right = ask_is_right(ask, NULL, 0, a) && rows_are_right(ask, &rows, a);
	sh_rows_free(&rows);
	return right;
}

void shadow_append(struct shadow *m, const struct sh_ask *ask, const struct sh_rows *given,
		   const struct sh_input *in, size_t count, struct sh_answer *a)
{
	struct sh_rows rows = sh_rows_copy(given), settled = {0};
	struct core_frontier lower, upper;
	bool any, looked = false, vague = false;

	*a = (struct sh_answer){0};
	if (!ask_is_right(ask, in, count, a) || !rows_are_right(ask, &rows, a))
		goto out;
	if (!ask->star && !ask->lower.empty &&
	    !inputs_are_right(ask, in, count, false, ask->lower, ask->upper, a))
		goto out;
	if (token_tells(m, ask, given->count, in, count, a))
		goto out;
	settled = sh_rows_settled(&rows);
	looked = true;
	if (!state_is_right(m, ask, &settled, in, count, &lower, &upper, a))
		goto out;
	remember(m, &settled, ask->rewrite_star ? lower.t : 0, lower, upper);
	for (size_t i = 0; i < count;
	     i++) /* cut, never extended: what is lifted lies where it is lifted to */
		remember(m, &in[i].batch->rows,
			 lift_of(ask, in[i].batch, ask->star ? lower.t : ask->lower.t, &any), lower, upper);
	for (size_t i = 0; i < count; i++)
		vague = vague || in[i].batch->vague;
	commit(m, ask, lower, upper, given->count, input_rows(in, count, &any), count, vague, a);
out:
	a->looked = looked;
	sh_rows_free(&rows);
	sh_rows_free(&settled);
}

/* --- the rest -------------------------------------------------------------------------------------- */

void shadow_init(struct shadow *m)
{
	*m = (struct shadow){.upper = core_frontier_at(0), .next_id = 1};
}

void shadow_free(struct shadow *m)
{
	for (size_t i = 0; i < SH_STAGED; i++)
		shadow_drop(&m->staged[i]);
	sh_rows_free(&m->facts);
	free(m->edges);
	*m = (struct shadow){0};
}

void shadow_move_hold(struct shadow *m, struct core_frontier to, uint64_t follow)
{
	m->follow = follow;
	if (follow != 0)
		follow_upper(m);
	else
		move_since(m, to);
}

void shadow_sums_between(const struct shadow *m, struct core_frontier lower, struct core_frontier upper,
			 __int128 sums[SH_KINDS])
{
	memset(sums, 0, SH_KINDS * sizeof *sums);
	for (size_t i = 0; i < m->facts.count; i++)
		if (!below(lower, m->facts.r[i].time) && below(upper, m->facts.r[i].time))
			sums[m->facts.r[i].kind] += m->facts.r[i].diff;
}

enum kv_rc shadow_sums(const struct shadow *m, uint64_t t, __int128 sums[SH_KINDS])
{
	if (below(m->since, t))
		return KV_COMPACTED;
	if (!below(m->upper, t))
		return KV_WOULD_BLOCK;
	shadow_sums_between(m, core_frontier_at(0), core_frontier_above(t), sums);
	return KV_OK;
}

bool shadow_has_edge(const struct shadow *m, struct core_frontier f)
{
	for (size_t i = 0; i < m->edge_count; i++)
		if (core_frontier_eq(m->edges[i], f))
			return true;
	return core_frontier_eq(f, core_frontier_at(0));
}
