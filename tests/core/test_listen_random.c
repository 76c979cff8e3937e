/*
 * test_listen_random.c - listeners that are opened, moved and closed at random while all kinds of appends and
 * since moves go on, compared with a plain list (SEED=<n> repeats a run); and all of it in threads.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/core/ears.h"
#include "tests/core/suites.h"

static struct core_frontier at(uint64_t t)
{
	return core_frontier_at(t);
}

/* --- at random ------------------------------------------------------------------------------------- */

/* "<time> <diff> <key> <val>;" some times, times in [from, to] or a star. */
static void random_rows(struct rng *r, uint64_t from, uint64_t to, bool stars, char *out)
{
	int n = (int)rng_below(r, 6);

	*out = '\0';
	for (; n > 0; n--) {
		if (stars && rng_below(r, 2) == 0)
			out += sprintf(out, "*");
		else
			out += sprintf(out, "%llu", (unsigned long long)(from + rng_below(r, to - from + 1)));
		out += sprintf(out, " %d k%llu v;", rng_below(r, 3) == 0 ? -1 : 1,
			       (unsigned long long)rng_below(r, 3));
	}
}

static void staged_append(struct feed *d, struct rng *r, uint64_t upper, uint64_t to)
{
	char names[100] = "", rows[2][400], options[100], bounds[60];
	struct core_appended done;
	struct kv_err err;
	uint64_t below = upper > 3 ? upper - 3 : 0;

	for (int i = 0; i < 2; i++) {
		char *name = names + strlen(names);

		sprintf(name, "b%u", d->batches++);
		snprintf(bounds, sizeof bounds, "%llu %llu", (unsigned long long)below,
			 (unsigned long long)to + 3);
		random_rows(r, i == 0 ? below : upper, i == 0 ? to + 2 : to - 1, false, rows[i]);
		stage_whole(d->by, name, i == 0 ? bounds : NULL, rows[i]);
		strcat(names, " ");
	}
	snprintf(options, sizeof options, "expected_upper=%llu new_upper=%llu", (unsigned long long)upper,
		 (unsigned long long)to);
	ck_ok(append_staged(d->by, options, names, "", &done, &err), err);
	for (int i = 0; i < 2; i++)
		remember(d, at(upper), at(to), 0, rows[i]);
}

static void built_append(struct feed *d, struct rng *r, uint64_t upper, uint64_t to)
{
	struct core_writer *w = writer_on(d->by);
	char rows[400], lower_text[24], upper_text[24], options[100];
	uint64_t lift = upper + rng_below(r, to - upper);
	struct core_built *b;
	struct kv_err err;

	sprintf(lower_text, "%llu", (unsigned long long)upper / 2);
	sprintf(upper_text, "%llu", (unsigned long long)to);
	sprintf(options, "expected_upper=%llu new_upper=%llu", (unsigned long long)upper,
		(unsigned long long)to);
	random_rows(r, upper / 2, to - 1, false, rows);
	b = build(w, lower_text, upper_text, rows);
	ck_ok(core_built_rewrite_ts(b, lift, at(to), &err), err);
	ck_assert(strncmp(commit_one(w, options, b), "ok", 2) == 0);
	remember(d, at(upper), at(to), lift, rows);
	core_built_free(b);
	core_writer_close(w);
}

static void random_append(struct feed *d, struct rng *r, const char *big)
{
	uint64_t upper = upper_of(d->by), to = upper + 1 + rng_below(r, 5);
	char rows[400], options[100];

	switch (rng_below(r, 16)) {
	case 0:
		put(d, "expected_upper=* new_upper=+2", big);
		return;
	case 1:
		put(d, "expected_upper=* new_upper=+3", "");
		return;
	case 2:
		staged_append(d, r, upper, to);
		return;
	case 3:
		built_append(d, r, upper, to);
		return;
	case 4: /* truncated */
		random_rows(r, upper > 4 ? upper - 4 : 0, to - 1, false, rows);
		sprintf(options, "lower=%llu upper=%llu", (unsigned long long)(upper > 4 ? upper - 4 : 0),
			(unsigned long long)to);
		break;
	case 5:
		random_rows(r, 0, to - 1, true, rows);
		sprintf(options, "expected_upper=* new_upper=%llu rewrite_ts=*", (unsigned long long)to);
		break;
	default:
		random_rows(r, upper, to - 1, true, rows);
		sprintf(options, "expected_upper=* new_upper=%llu", (unsigned long long)to);
	}
	put(d, options, rows);
}

static void random_open(struct feed *d, struct rng *r, struct ear *e)
{
	struct core_frontier from = at(rng_below(r, upper_of(d->rig.shard) + 4));
	struct core_frontier since = since_now(d->rig.shard);
	struct kv_err err;
	bool ok = core_frontier_lt(since, from) || (since.t == 0 && from.t == 0);
	enum kv_rc rc;

	*e = (struct ear){.s = d->rig.shard, .from = from};
	rc = core_listen_open(e->s, from, &who, &e->l, &err);
	ck_assert_int_eq(rc, ok ? KV_OK : KV_COMPACTED);
}

START_TEST(at_random_listeners_agree_with_the_list)
{
	enum { EARS = 8, STEPS = 250 };
	struct feed d = feed_new(_i % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	struct rng r = rng_new(100 + (uint64_t)_i);
	struct ear ears[EARS] = {{0}};
	char *big = large_row("*", "big", 5000);

	for (int step = 0; step < STEPS; step++) {
		struct ear *e = &ears[rng_below(&r, EARS)];
		uint64_t what = rng_below(&r, 10);

		if (what < 5) {
			random_append(&d, &r, big);
		} else if (what == 5) {
			move_since(&d, at(rng_below(&r, upper_of(d.by) + 3)));
		} else if (e->l == NULL) {
			random_open(&d, &r, e);
		} else if (what == 6 && rng_below(&r, 4) == 0) {
			ear_check(e, &d);
			ear_free(e);
			*e = (struct ear){0};
		} else {
			ear_read(e, rng_below(&r, 2) == 0 ? SIZE_MAX : rng_below(&r, 4));
			if (!e->reading)
				(void)ear_step(e);
		}
	}
	put(&d, "expected_upper=* new_upper=-", "* 1 last x;");
	for (int i = 0; i < EARS; i++) {
		if (ears[i].l == NULL)
			continue;
		ck_assert_int_eq(ear_drain(&ears[i]), KV_NOTFOUND);
		ear_check(&ears[i], &d);
		ear_free(&ears[i]);
	}
	check_sound(d.by);
	free(big);
	feed_free(&d);
}
END_TEST

/* Time i has two rows of append i; a listener counts them while they come. */
struct counting {
	pthread_t thread;
	struct core_shard *s;
	uint64_t count;
	uint64_t from;
	_Atomic(uint64_t) *reached; /* for since to follow */
};

static void count_step(struct core_listen *l, uint8_t *seen)
{
	struct core_update u;
	struct kv_err err;
	bool end = false;

	while (!end) {
		ck_ok(core_listen_next(l, &u, &end, &err), err);
		if (!end)
			seen[u.time] = (uint8_t)(seen[u.time] + u.diff);
	}
}

static void *count_rows(void *arg)
{
	struct counting *c = arg;
	uint8_t *seen = calloc(c->count, 1);
	struct core_frontier upper;
	struct core_listen *l;
	struct core_step step;
	struct kv_err err;
	bool end = false;
	enum kv_rc rc;

	while ((rc = core_listen_open(c->s, at(c->from), &who, &l, &err)) == KV_COMPACTED)
		c->from++;
	ck_ok(rc, err);
	while (core_listen_frontier(l).t < c->count) {
		rc = core_listen_step(l, &step, &end, &err);
		if (rc == KV_WOULD_BLOCK) {
			ck_ok(core_shard_wait_past(c->s, core_listen_frontier(l).t, 20000, &upper, &err),
			      err);
			continue;
		}
		ck_ok(rc, err);
		count_step(l, seen);
		atomic_store(c->reached, step.upper.t);
	}
	core_listen_close(l);
	for (uint64_t t = c->from; t < c->count; t++)
		ck_assert_msg(seen[t] == 2, "time %llu: %d", (unsigned long long)t, (int)seen[t]);
	free(seen);
	return NULL;
}

START_TEST(at_the_same_time_each_update_comes_once)
{
	enum { COUNT = 600, LISTENERS = 4 };
	struct feed d = feed_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct counting c[LISTENERS];
	_Atomic(uint64_t) reached = 0;
	struct rng r = rng_new(7);

	for (uint64_t i = 0; i < LISTENERS; i++) {
		c[i] = (struct counting){.s = d.rig.shard,
					 .count = COUNT,
					 .from = i * rng_below(&r, 100),
					 .reached = &reached};
		pthread_create(&c[i].thread, NULL, count_rows, &c[i]);
	}
	for (uint64_t i = 0; i < COUNT; i++) {
		struct core_appended done;
		struct kv_err err;

		ck_ok(append(d.by, "expected_upper=* new_upper=+1", "* 1 a x;* 1 b x;", &done, &err), err);
		if (i % 5 == 0)
			move_since(&d, at(atomic_load(&reached)));
	}
	for (int i = 0; i < LISTENERS; i++)
		pthread_join(c[i].thread, NULL);
	check_sound(d.by);
	feed_free(&d);
}
END_TEST

Suite *listen_random_suite(void)
{
	Suite *s = suite_create("listen_random");
	TCase *t = tcase_create("listen_random");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, at_random_listeners_agree_with_the_list, 0, 12);
	tcase_add_loop_test(t, at_the_same_time_each_update_comes_once, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
