/*
 * ears.c - see ears.h.
 */
#include "tests/core/ears.h"

/* --- what was committed ---------------------------------------------------------------------------- */

struct feed feed_new(enum disk_kind kind)
{
	struct feed d = {.rig = rig_new(kind)};

	d.by = d.rig.shard;
	if (kind == DISK_SHARED) {
		d.other = second_open(&d.rig);
		d.by = d.other.shard;
	}
	return d;
}

void feed_free(struct feed *d)
{
	if (d->other.engine != NULL)
		second_close(&d->other);
	rig_free(&d->rig);
	model_free(&d->all);
}

/* Rows that [lower, upper) shows: a star at its lower, none below lift. */
void remember(struct feed *d, struct core_frontier lower, struct core_frontier upper, uint64_t lift,
	      const char *rows)
{
	struct model m = {0};

	parse_rows(rows, &m);
	for (size_t i = 0; i < m.count; i++) {
		struct core_update u = m.u[i];

		if (m.star[i])
			u.time = lower.t;
		if (u.time < lift)
			u.time = lift;
		if (core_frontier_covers(lower, u.time) && !core_frontier_covers(upper, u.time))
			model_add(&d->all, &u, false);
	}
	model_free(&m);
}

void put(struct feed *d, const char *options, const char *rows)
{
	struct core_append ask = parse_ask(options);
	struct core_appended r;
	struct kv_err err;

	ck_ok(append(d->by, options, rows, &r, &err), err);
	remember(d, r.lower, r.upper, ask.rewrite_star ? r.lower.t : 0, rows);
}

void put_many(struct feed *d, unsigned count, const char *rows)
{
	while (count-- > 0)
		put(d, "expected_upper=* new_upper=+1", rows);
}

void move_since(struct feed *d, struct core_frontier to)
{
	struct kv_err err;

	ck_ok(core_shard_move_hold(d->by, CORE_DEFAULT_HOLD, to, 0, &err), err);
}

struct core_frontier since_now(struct core_shard *s)
{
	struct core_info info;
	struct kv_err err;

	ck_ok(core_shard_info(s, true, &info, &err), err);
	return info.since;
}

/* --- who listens ----------------------------------------------------------------------------------- */

const struct core_reader who = {.purpose = "listen", .pid = 7};

struct ear ear_at(struct core_shard *s, struct core_frontier from)
{
	struct ear e = {.s = s, .from = from};
	struct kv_err err;

	ck_ok(core_listen_open(s, from, &who, &e.l, &err), err);
	ck_assert(core_frontier_eq(core_listen_frontier(e.l), from));
	return e;
}

void ear_free(struct ear *e)
{
	core_listen_close(e->l);
	model_free(&e->got);
}

/* The next step: KV_OK, KV_WOULD_BLOCK, or KV_NOTFOUND at the end. It is one of whole batches. */
enum kv_rc ear_step(struct ear *e)
{
	struct core_frontier was = core_listen_frontier(e->l);
	struct core_step step;
	struct core_state state;
	struct kv_err err;
	bool end, whole = false;
	enum kv_rc rc;

	(void)since_now(e->s); /* as one does who was told */
	rc = core_listen_step(e->l, &step, &end, &err);
	if (rc != KV_OK || end) {
		ck_assert(core_frontier_eq(core_listen_frontier(e->l), was));
		ck_assert(rc == KV_OK || rc == KV_WOULD_BLOCK);
		return rc == KV_OK ? KV_NOTFOUND : rc;
	}
	ck_assert(core_frontier_eq(step.lower, was) && core_frontier_lt(step.lower, step.upper));
	ck_assert(core_frontier_eq(core_listen_frontier(e->l), step.upper));
	ck_ok(core_shard_state(e->s, &state, &err), err);
	for (size_t i = 0; i < state.batch_count; i++)
		whole = whole || core_frontier_eq(state.batches[i]->upper, step.upper);
	ck_assert(whole);
	core_state_fini(&state);
	e->step = step;
	e->reading = true;
	e->steps++;
	return KV_OK;
}

/* Up to `limit` rows of the step in hand. */
void ear_read(struct ear *e, size_t limit)
{
	struct core_update u;
	struct kv_err err;
	bool end = false;

	while (e->reading && limit-- > 0) {
		ck_ok(core_listen_next(e->l, &u, &end, &err), err);
		e->reading = !end;
		if (end)
			break;
		e->rows++;
		ck_assert(core_frontier_covers(e->step.lower, u.time) &&
			  !core_frontier_covers(e->step.upper, u.time));
		model_add(&e->got, &u, false);
	}
}

enum kv_rc ear_drain(struct ear *e)
{
	enum kv_rc rc = KV_OK;

	ear_read(e, SIZE_MAX);
	while ((rc = ear_step(e)) == KV_OK)
		ear_read(e, SIZE_MAX);
	return rc;
}

/* What it has got so far is what was committed from its beginning to its frontier. */
void ear_check(struct ear *e, const struct feed *d)
{
	struct model want = {0}, got = {0};

	ear_read(e, SIZE_MAX);
	for (size_t i = 0; i < d->all.count; i++)
		if (core_frontier_covers(e->from, d->all.u[i].time) &&
		    !core_frontier_covers(core_listen_frontier(e->l), d->all.u[i].time))
			model_add(&want, &d->all.u[i], false);
	for (size_t i = 0; i < e->got.count; i++)
		model_add(&got, &e->got.u[i], false);
	model_settle(&want);
	model_settle(&got);
	model_same(&got, &want);
	model_free(&want);
	model_free(&got);
}

void ear_check_all(struct ear *e, const struct feed *d)
{
	ck_assert_int_eq(ear_drain(e), KV_WOULD_BLOCK);
	ear_check(e, d);
}

/* Rows that no compressor makes small: "* 1 <key> <len bytes>;". Given. */
char *large_row(const char *time, const char *key, size_t len)
{
	char *row = malloc(len + 100);
	struct rng rng = rng_new(len);
	size_t n = (size_t)sprintf(row, "%s 1 %s ", time, key);

	for (size_t i = 0; i < len; i++)
		row[n++] = (char)('0' + rng_below(&rng, 64));
	for (size_t i = n - len; i < n; i++)
		row[i] = row[i] == ';' || row[i] == '\\' ? 'x' : row[i];
	strcpy(row + n, ";");
	return row;
}
