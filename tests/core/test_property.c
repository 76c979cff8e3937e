/*
 * test_property.c - random operations on a shard by several handles, each answer
 * and what is read now and then compared with a plain model of the contract.
 *
 * A round is one shard and one seed. A round that fails prints its seed; with the
 * kind of its disk it becomes a line of tests/regress/property.seeds.
 */
#include <inttypes.h>
#include <stdarg.h>

#include "tests/core/suites.h"
#include "tests/core/world.h"

enum { KEYS = 4, VALS = 2, TOKENS = 6, ROWS = 4, ROUND = 500 };

struct op_row {
	bool star;
	uint64_t time;
	int64_t diff;
	unsigned row; /* key * VALS + val */
};

struct op {
	bool idempotent, star, plus, rewrite, rewrite_star, has_token, has_since;
	struct core_frontier lower, upper, since;
	uint64_t n, rewrite_ts;
	unsigned token;
	struct op_row rows[ROWS];
	unsigned count;
	char options[200];
	char text[400];
};

struct fact {
	uint64_t time;
	int64_t diff;
	unsigned row;
};

struct shadow_token {
	bool used;
	char asked[200];
	unsigned count;
	char verdict[100];
};

struct shadow {
	struct core_frontier upper, since;
	uint64_t follow;
	struct shadow_token tokens[TOKENS];
	struct fact *facts;
	size_t fact_count;
	char verdict[300];
};

/* --- the contract, said again ---------------------------------------------------------------------- */

static const char *word(struct core_frontier f)
{
	static char buf[4][CORE_FRONTIER_LEN];
	static unsigned next;

	return core_frontier_format(f, buf[next++ % 4]);
}

static bool say(struct shadow *m, const char *fmt, ...) KV_PRINTF(2, 3);
static bool say(struct shadow *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m->verdict, sizeof(m->verdict), fmt, ap);
	va_end(ap);
	return false;
}

static bool in_bounds(struct shadow *m, uint64_t t, struct core_frontier lower, struct core_frontier upper)
{
	if (lower.empty || t < lower.t)
		return say(m, "UpdateNotBeyondLower time=%" PRIu64 " lower=%s", t, word(lower));
	if (!upper.empty && t >= upper.t)
		return say(m, "UpdateBeyondUpper time=%" PRIu64 " upper=%s", t, word(upper));
	return true;
}

static bool text_is_right(struct shadow *m, struct op *op)
{
	struct core_frontier lower = op->star ? core_frontier_at(0) : op->lower;
	struct core_frontier upper = op->plus ? core_frontier_empty() : op->upper;

	if (!op->star && op->lower.empty)
		return true;
	if (!op->star && core_frontier_lt(op->upper, op->lower))
		return say(m, "InvalidBounds lower=%s upper=%s", word(op->lower), word(op->upper));
	if (op->rewrite && !op->plus &&
	    (op->rewrite_ts < lower.t || (!upper.empty && op->rewrite_ts >= upper.t)))
		return say(m, "InvalidRewrite rewrite_ts=%" PRIu64 " lower=%s upper=%s", op->rewrite_ts,
			   word(lower), word(upper));
	return true;
}

/* As they come in; the rows are lifted to an absolute rewrite. */
static bool rows_are_right(struct shadow *m, struct op *op)
{
	struct core_frontier lower = op->star ? core_frontier_at(0) : op->lower;
	struct core_frontier upper = op->plus ? core_frontier_empty() : op->upper;

	for (unsigned i = 0; i < op->count; i++) {
		struct op_row *row = &op->rows[i];

		if (row->star && !op->star)
			return say(m, "BadSyntax");
		if (op->rewrite && (row->star || row->time < op->rewrite_ts)) {
			row->time = op->rewrite_ts;
			row->star = false;
		}
		if (row->diff == 0)
			continue;
		if (!op->star && !op->lower.empty && core_frontier_eq(op->lower, op->upper))
			return say(m, "InvalidEmptyTimeInterval lower=%s upper=%s", word(op->lower),
				   word(op->lower));
		if (!row->star && !lower.empty && !in_bounds(m, row->time, lower, upper))
			return false;
	}
	return true;
}

/* Rows that cancel out within the transaction are as if they had not been there. */
static void cancel(struct op *op)
{
	for (unsigned i = 0; i < op->count; i++) {
		__int128 sum = 0;

		for (unsigned j = 0; j < op->count; j++)
			if (op->rows[j].row == op->rows[i].row && op->rows[j].star == op->rows[i].star &&
			    op->rows[j].time == op->rows[i].time)
				sum += op->rows[j].diff;
		for (unsigned j = 0; sum == 0 && j < op->count; j++)
			if (j != i && op->rows[j].row == op->rows[i].row &&
			    op->rows[j].star == op->rows[i].star && op->rows[j].time == op->rows[i].time)
				op->rows[j].diff = 0;
		if (sum == 0)
			op->rows[i].diff = 0;
	}
}

static bool star_is_right(struct shadow *m, struct op *op, struct core_frontier *upper)
{
	uint64_t least = UINT64_MAX, most = 0, at = m->upper.t;
	bool any = false;

	*upper = op->plus ? core_frontier_at(at + op->n) : op->upper;
	if (m->upper.empty || core_frontier_le(*upper, m->upper))
		return say(m, "UpperMismatch expected_upper=* current_upper=%s", word(m->upper));
	if (op->rewrite && (op->rewrite_ts < at || (!upper->empty && op->rewrite_ts >= upper->t)))
		return say(m, "InvalidRewrite rewrite_ts=%" PRIu64 " lower=%s upper=%s", op->rewrite_ts,
			   word(m->upper), word(*upper));
	for (unsigned i = 0; i < op->count; i++) {
		uint64_t t = op->rows[i].time;

		if (op->rows[i].star || op->rows[i].diff == 0)
			continue;
		t = op->rewrite_star && t < at ? at : t;
		least = t < least ? t : least;
		most = t > most ? t : most;
		any = true;
	}
	return !any || (in_bounds(m, least, m->upper, *upper) && in_bounds(m, most, m->upper, *upper));
}

static void remember_rows(struct shadow *m, const struct op *op, struct core_frontier lower,
			  struct core_frontier upper)
{
	for (unsigned i = 0; i < op->count; i++) {
		uint64_t t = op->rows[i].star || (op->rewrite_star && op->rows[i].time < lower.t)
				     ? lower.t
				     : op->rows[i].time;

		if (op->rows[i].diff == 0 || t < lower.t || (!upper.empty && t >= upper.t))
			continue;
		m->facts = realloc(m->facts, (m->fact_count + 1) * sizeof(*m->facts));
		m->facts[m->fact_count++] =
			(struct fact){.time = t, .diff = op->rows[i].diff, .row = op->rows[i].row};
	}
}

static void move(struct shadow *m, struct core_frontier to)
{
	if (core_frontier_lt(m->since, to))
		m->since = to;
}

static void follow(struct shadow *m)
{
	if (m->follow != 0 && !m->upper.empty && m->upper.t > m->follow)
		move(m, core_frontier_at(m->upper.t - m->follow));
}

static bool bounds_of(struct shadow *m, struct op *op, struct core_frontier *lower,
		      struct core_frontier *upper)
{
	*lower = op->lower;
	*upper = op->upper;
	if (op->star) {
		*lower = m->upper;
		return star_is_right(m, op, upper);
	}
	if (op->idempotent && core_frontier_le(op->upper, m->upper))
		return say(m, "same %s %s updates=0", word(m->upper), word(m->upper));
	if (op->idempotent && core_frontier_lt(op->lower, m->upper))
		*lower = m->upper;
	if (lower->empty || !core_frontier_eq(*lower, m->upper))
		return say(m, "UpperMismatch %s=%s current_upper=%s",
			   op->idempotent ? "lower" : "expected_upper", word(op->lower), word(m->upper));
	return true;
}

/* The verdict in m->verdict. */
static void shadow_append(struct shadow *m, struct op *op)
{
	struct shadow_token *token = &m->tokens[op->token];
	struct core_frontier lower, upper;
	char asked[200];

	if (!text_is_right(m, op) || !rows_are_right(m, op))
		return;
	snprintf(asked, sizeof(asked), "%d%d%d %s %s %" PRIu64, op->idempotent, op->star, op->plus,
		 op->star ? "" : word(op->lower), op->plus ? "" : word(op->upper), op->plus ? op->n : 0);
	if (op->has_token && token->used) {
		if (strcmp(asked, token->asked) == 0 && token->count == op->count)
			say(m, "same %s", token->verdict);
		else
			say(m, "TokenReused updates=%u", token->count);
		return;
	}
	cancel(op);
	if (!bounds_of(m, op, &lower, &upper))
		return;
	remember_rows(m, op, lower, upper);
	m->upper = upper;
	follow(m);
	if (op->has_since) {
		move(m, op->since);
		m->follow = 0;
	}
	say(m, "ok %s %s updates=%u", word(lower), word(upper), op->count);
	if (op->has_token) {
		token->used = true;
		token->count = op->count;
		snprintf(token->asked, sizeof(token->asked), "%s", asked);
		snprintf(token->verdict, sizeof(token->verdict), "%.90s", m->verdict + 3);
	}
}

static void shadow_content(const struct shadow *m, uint64_t t, char *out, size_t room)
{
	size_t at = 0;

	out[0] = '\0';
	if (m->since.empty || t < m->since.t) {
		snprintf(out, room, "CompactedAway");
		return;
	}
	if (!m->upper.empty && t >= m->upper.t) {
		snprintf(out, room, "WouldBlock");
		return;
	}
	for (unsigned row = 0; row < KEYS * VALS; row++) {
		__int128 sum = 0;

		for (size_t i = 0; i < m->fact_count; i++)
			if (m->facts[i].row == row && m->facts[i].time <= t)
				sum += m->facts[i].diff;
		if (sum > INT64_MAX || sum < INT64_MIN) {
			snprintf(out + at, room - at, "DiffOverflow");
			return;
		}
		if (sum != 0)
			at += (size_t)snprintf(out + at, room - at, "k%u v%u %" PRId64 ";", row / VALS,
					       row % VALS, (int64_t)sum);
	}
}

/* --- random operations ----------------------------------------------------------------------------- */

static struct core_frontier around(struct rng *r, struct core_frontier f)
{
	if (rng_below(r, 400) == 0)
		return core_frontier_empty();
	uint64_t t = f.empty ? rng_below(r, 50) : f.t + (rng_below(r, 4) == 0 ? rng_below(r, 5) : 2);
	return core_frontier_at(t < 2 ? 0 : t - 2);
}

static void random_rows(struct rng *r, const struct shadow *m, struct op *op)
{
	uint64_t base = op->star || op->lower.empty ? m->upper.t : op->lower.t;
	size_t at = 0;

	op->count = (unsigned)rng_below(r, ROWS + 1);
	for (unsigned i = 0; i < op->count; i++) {
		struct op_row *row = &op->rows[i];

		row->star = rng_below(r, 2) == 0 && (op->star || rng_below(r, 100) == 0);
		row->time = row->star ? 0 : base + rng_below(r, 3);
		if (!row->star && rng_below(r, 12) == 0)
			row->time = rng_below(r, base + 6);
		row->diff = (int64_t)rng_below(r, 7) - 3;
		if (rng_below(r, 150) == 0)
			row->diff = rng_below(r, 2) == 0 ? INT64_MAX : INT64_MIN;
		row->row = (unsigned)rng_below(r, KEYS * VALS);
		if (row->star)
			at += (size_t)sprintf(op->text + at, "* ");
		else
			at += (size_t)sprintf(op->text + at, "%" PRIu64 " ", row->time);
		at += (size_t)sprintf(op->text + at, "%" PRId64 " k%u v%u;", row->diff, row->row / VALS,
				      row->row % VALS);
	}
}

static void random_op(struct rng *r, const struct shadow *m, struct op *op)
{
	size_t at;

	*op = (struct op){.star = rng_below(r, 3) == 0};
	op->idempotent = !op->star && rng_below(r, 4) == 0;
	op->lower = rng_below(r, 5) == 0 ? around(r, m->upper) : m->upper;
	op->upper = core_frontier_at((op->lower.empty ? 3 : op->lower.t) + rng_below(r, 4));
	if (rng_below(r, 300) == 0)
		op->upper = core_frontier_empty();
	if (rng_below(r, 30) == 0)
		op->upper = around(r, op->upper);
	op->plus = op->star && rng_below(r, 3) != 0;
	op->n = 1 + rng_below(r, 3);
	op->rewrite = rng_below(r, 10) == 0;
	op->rewrite_ts = m->upper.t + rng_below(r, 3);
	op->rewrite_star = op->star && !op->rewrite && rng_below(r, 4) == 0;
	op->has_token = rng_below(r, 15) == 0;
	op->token = (unsigned)rng_below(r, TOKENS);
	op->has_since = rng_below(r, 25) == 0;
	op->since = core_frontier_at(rng_below(r, m->upper.t + 3));
	if (op->star)
		at = (size_t)sprintf(op->options, "expected_upper=* ");
	else
		at = (size_t)sprintf(op->options, "%s=%s ", op->idempotent ? "lower" : "expected_upper",
				     word(op->lower));
	if (op->plus)
		at += (size_t)sprintf(op->options + at, "new_upper=+%" PRIu64, op->n);
	else
		at += (size_t)sprintf(op->options + at, "%s=%s", op->idempotent ? "upper" : "new_upper",
				      word(op->upper));
	if (op->rewrite)
		at += (size_t)sprintf(op->options + at, " rewrite_ts=%" PRIu64, op->rewrite_ts);
	if (op->rewrite_star)
		at += (size_t)sprintf(op->options + at, " rewrite_ts=*");
	if (op->has_token)
		at += (size_t)sprintf(op->options + at, " token=%u", op->token);
	if (op->has_since)
		sprintf(op->options + at, " since=%s", word(op->since));
	random_rows(r, m, op);
}

/* --- rounds ---------------------------------------------------------------------------------------- */

struct round {
	uint64_t seed;
	struct rng r;
	struct rig rig;
	struct core_engine *engines[2];
	struct core_shard *handles[3];
	struct shadow m;
};

static void open_handles(struct round *o)
{
	struct kv_err err;

	o->engines[0] = o->rig.engine;
	o->engines[1] = o->rig.disk->kind == DISK_SHARED ? disk_open(o->rig.disk) : NULL;
	for (int i = 0; i < 3; i++)
		ck_ok(core_shard_open(o->engines[o->engines[1] != NULL ? i % 2 : 0], o->rig.id,
				      &o->handles[i], &err),
		      err);
}

static void close_handles(struct round *o)
{
	for (int i = 0; i < 3; i++)
		core_shard_close(o->handles[i]);
	core_engine_close(o->engines[1]);
}

static void compare(struct round *o, const char *what, const char *got, const char *want)
{
	ck_assert_msg(strcmp(got, want) == 0, "seed %" PRIu64 ", disk %d: %s: got \"%s\", not \"%s\"",
		      o->seed, (int)o->rig.disk->kind, what, got, want);
}

static void compare_content(struct round *o, struct core_shard *s, uint64_t t)
{
	char want[2000], what[50];
	char *got;
	struct kv_err err;
	struct core_info info;

	if (o->engines[1] != NULL) /* what others appended is seen when one asks */
		ck_ok(core_shard_info(s, true, &info, &err), err);
	got = content(s, t);
	shadow_content(&o->m, t, want, sizeof(want));
	snprintf(what, sizeof(what), "as of %" PRIu64, t);
	compare(o, what, got, want);
	free(got);
}

static void move_or_follow(struct round *o, struct core_shard *s)
{
	bool policy = rng_below(&o->r, 2) == 0;
	uint64_t n = 1 + rng_below(&o->r, 9);
	struct core_frontier to = core_frontier_at(rng_below(&o->r, o->m.upper.t + 2));
	struct kv_err err;

	ck_ok(core_shard_move_hold(s, CORE_DEFAULT_HOLD, to, policy ? n : 0, &err), err);
	o->m.follow = policy ? n : 0;
	if (policy)
		follow(&o->m);
	else
		move(&o->m, to);
}

static void step(struct round *o, struct op *op)
{
	struct core_shard *s = o->handles[rng_below(&o->r, 3)];
	uint64_t what = rng_below(&o->r, 100);
	char both[2 * CORE_FRONTIER_LEN];

	if (what < 72) {
		random_op(&o->r, &o->m, op);
		const char *got = verdict(s, op->options, op->text);
		shadow_append(&o->m, op);
		char line[700];
		snprintf(line, sizeof(line), "%s | %s", op->options, op->text);
		compare(o, line, got, o->m.verdict);
	} else if (what < 75) {
		move_or_follow(o, s);
	} else if (what < 85) {
		snprintf(both, sizeof(both), "%s %s", word(o->m.since), word(o->m.upper));
		compare(o, "frontiers", frontiers(s), both);
	} else {
		compare_content(o, s, rng_below(&o->r, o->m.upper.t + 3));
	}
}

static void run_round(enum disk_kind kind, uint64_t seed, unsigned steps, bool reopen)
{
	struct round o = {
		.seed = seed, .r.state = seed, .rig = rig_new(kind), .m.upper = core_frontier_at(0)};
	struct op op;

	open_handles(&o);
	for (unsigned i = 0; i < steps; i++) {
		step(&o, &op);
		if (reopen && rng_below(&o.r, 60) == 0) {
			close_handles(&o);
			rig_crash_and_reopen(&o.rig);
			open_handles(&o);
		}
	}
	for (uint64_t t = o.m.upper.empty ? 0 : o.m.since.t; t < o.m.upper.t; t += 1 + t / 9)
		compare_content(&o, o.handles[0], t);
	check_sound(o.handles[1]);
	close_handles(&o);
	rig_free(&o.rig);
	free(o.m.facts);
}

START_TEST(every_answer_is_the_model_s)
{
	static const struct {
		enum disk_kind kind;
		unsigned rounds;
		bool reopen;
	} runs[] = {{DISK_MEM, 200, false},
		    {DISK_SOLE, 20, true},
		    {DISK_SHARED, 30, true},
		    {DISK_EMBEDDED, 3, true}};
	struct rng seeds = rng_new(700 + (uint64_t)_i);

	for (unsigned i = 0; i < runs[_i].rounds; i++)
		run_round(runs[_i].kind, rng_next(&seeds), ROUND, runs[_i].reopen);
}
END_TEST

START_TEST(what_was_found_before_stays_found)
{
	FILE *f = fopen("tests/regress/property.seeds", "r");
	uint64_t seed;
	int kind, reopen;
	char line[200];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "%" SCNu64 " %d %d", &seed, &kind, &reopen) == 3)
			run_round((enum disk_kind)kind, seed, ROUND, reopen != 0);
	if (f != NULL)
		fclose(f);
}
END_TEST

Suite *property_suite(void)
{
	Suite *s = suite_create("property");
	TCase *t = tcase_create("property");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, every_answer_is_the_model_s, 0, 4);
	tcase_add_test(t, what_was_found_before_stays_found);
	suite_add_tcase(s, t);
	return s;
}
