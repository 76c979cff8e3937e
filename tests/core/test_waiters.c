/*
 * test_waiters.c - those who wait for a shard's upper: threads that sleep, and thousands without a thread.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "core/read.h"
#include "tests/core/batches.h"
#include "tests/core/suites.h"

static void advance(struct core_shard *s)
{
	struct core_appended r;
	struct kv_err err;

	ck_ok(append(s, "expected_upper=* new_upper=+1", "* 1 n v;", &r, &err), err);
}

/* --- sleeping -------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct sleeping {
	pthread_t thread;
	struct core_shard *s;
	uint64_t time;
	enum kv_rc rc;
	struct core_frontier upper;
};

static void *sleep_past(void *arg)
{
	struct sleeping *z = arg;
	struct kv_err err;

	z->rc = core_shard_wait_past(z->s, z->time, 60000, &z->upper, &err);
	return NULL;
}

START_TEST(waiting_ends_with_the_upper_the_time_or_the_shard)
{
	struct rig rig = rig_new(_i == 1 ? DISK_SHARED : DISK_SOLE);
	struct second other = _i == 1 ? second_open(&rig) : (struct second){.shard = rig.shard};
	struct core_shard *a = rig.shard, *b = other.shard;
	struct sleeping z = {.s = a, .time = 11};
	struct core_read *r;
	struct core_frontier upper = core_frontier_at(77);
	struct kv_err err;
	int64_t from = now_ms();
	enum kv_rc rc;

	for (int i = 0; i < 10; i++)
		advance(b);
	ck_ok(core_read_open(a, "a test", &r, &err), err);
	ck_ok(core_shard_wait_past(a, 9, 0, &upper, &err), err); /* which another engine appended */
	ck_assert_uint_eq(upper.t, 10);
	ck_assert_int_eq(core_shard_wait_past(a, 10, 30, &upper, &err), KV_WOULD_BLOCK);
	ck_assert_uint_eq(upper.t, 10);
	ck_assert_int_ge(now_ms() - from, 28);
	ck_assert_int_lt(now_ms() - from, 5000);
	ck_assert_int_eq(core_read_wait(r, 10, 0, &err), KV_WOULD_BLOCK);
	advance(b);
	ck_assert_int_eq(core_read_wait(r, 10, 0, &err), KV_OK); /* no stale state says it has not */

	pthread_create(&z.thread, NULL, sleep_past, &z);
	advance(b);
	pthread_join(z.thread, NULL);
	ck_assert(z.rc == KV_OK && z.upper.t == 12);
	ck_assert_str_eq(verdict(b, "expected_upper=12 new_upper=- since=-", ""), "ok 12 - updates=0");
	ck_assert_int_eq(core_read_wait(r, UINT64_MAX, -1, &err), KV_OK);
	core_read_expire(r);
	ck_ok(core_read_open(a, "a test", &r, &err), err);
	ck_ok(core_shard_remove(b, &err), err);
	ck_assert_int_eq(core_shard_wait_past(b, 5, -1, &upper, &err), KV_NO_SHARD);
	/* As known here, the upper may have passed all times; what it cannot do is to wait for ever. */
	rc = core_shard_wait_past(a, UINT64_MAX, -1, &upper, &err);
	ck_assert(rc == KV_NO_SHARD || (rc == KV_OK && _i == 1));
	core_read_expire(r);
	if (_i == 1)
		second_close(&other);
	rig_free(&rig);
}
END_TEST

/* --- thousands ------------------------------------------------------------------------------------- */

struct waiting {
	struct core_waiter w;
	_Atomic(unsigned) woken;
};

static void count_wake(struct core_waiter *w)
{
	atomic_fetch_add(&((struct waiting *)w)->woken, 1);
}

START_TEST(thousands_are_woken_once_each_and_no_others)
{
	enum { COUNT = 4000 };
	struct rig rig = rig_new(DISK_SOLE);
	struct waiting *w = calloc(COUNT, sizeof *w);
	struct rng rng = rng_new(11);
	struct kv_err err;
	size_t unwaited = 0;

	for (size_t i = 0; i < COUNT; i++) {
		w[i].w = (struct core_waiter){.wake = count_wake, .time = _i == 0 ? 2 : rng_below(&rng, 9)};
		ck_assert(core_shard_wait(rig.shard, &w[i].w));
	}
	for (uint64_t upper = 1; upper < 6; upper++) {
		advance(rig.shard);
		core_engine_drain(rig.engine);
		for (size_t i = 0; i < COUNT; i++)
			if (atomic_load(&w[i].woken) != UINT32_MAX)
				ck_assert_uint_eq(atomic_load(&w[i].woken), w[i].w.time < upper);
		for (size_t i = rng_below(&rng, 5); i < COUNT; i += 5) {
			unsigned woken = atomic_load(&w[i].woken);

			ck_assert_int_eq(core_shard_unwait(rig.shard, &w[i].w), woken == 0);
			if (woken == 0) {
				atomic_store(&w[i].woken, UINT32_MAX);
				unwaited++;
			}
		}
	}
	ck_assert_uint_gt(unwaited, 0);
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=5 new_upper=- since=-", ""), "ok 5 - updates=0");
	ck_ok(core_shard_remove(rig.shard, &err), err);
	core_engine_drain(rig.engine);
	for (size_t i = 0; i < COUNT; i++)
		ck_assert(atomic_load(&w[i].woken) == 1 || atomic_load(&w[i].woken) == UINT32_MAX);
	ck_assert_ptr_null(rig.shard->waiters);
	w[0].w = (struct core_waiter){.wake = count_wake, .time = 99};
	ck_assert(!core_shard_wait(rig.shard, &w[0].w));
	free(w);
	rig_free(&rig);
}
END_TEST

struct fickle {
	pthread_t thread;
	struct core_shard *s;
	uint64_t salt;
	uint64_t last;
	size_t woken;
	size_t left;
};

/* Wait and leave, at times that the writer is passing. */
static void *come_and_go(void *arg)
{
	enum { AT_ONCE = 40 };
	struct fickle *f = arg;
	struct rng rng = rng_new(f->salt);
	struct waiting w[AT_ONCE];
	struct core_info info = {0};
	struct kv_err err;

	while (info.upper.t < f->last) {
		bool waits[AT_ONCE];

		ck_ok(core_shard_info(f->s, false, &info, &err), err);
		for (size_t i = 0; i < AT_ONCE; i++) {
			w[i] = (struct waiting){.w.wake = count_wake,
						.w.time = info.upper.t + rng_below(&rng, 3)};
			waits[i] = core_shard_wait(f->s, &w[i].w);
		}
		for (size_t i = 0; i < AT_ONCE; i++) {
			bool off = core_shard_unwait(f->s, &w[i].w);

			f->left += off;
			if (!waits[i] || off) {
				ck_assert(!off || waits[i]);
				ck_assert_uint_eq(atomic_load(&w[i].woken), 0);
				continue;
			}
			while (atomic_load(&w[i].woken) == 0)
				nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
			f->woken++;
		}
	}
	return NULL;
}

START_TEST(who_leaves_while_being_woken_is_woken_or_has_left)
{
	enum { THREADS = 4, LAST = 400 };
	struct rig rig = rig_new(DISK_SOLE);
	struct fickle f[THREADS];
	struct sleeping z[THREADS];
	size_t woken = 0, left = 0;

	for (size_t i = 0; i < THREADS; i++) {
		f[i] = (struct fickle){.s = rig.shard, .salt = 20 + i, .last = LAST};
		z[i] = (struct sleeping){.s = rig.shard, .time = LAST / 2 + i};
		pthread_create(&f[i].thread, NULL, come_and_go, &f[i]);
		pthread_create(&z[i].thread, NULL, sleep_past, &z[i]);
	}
	for (int i = 0; i < LAST; i++)
		advance(rig.shard);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(f[i].thread, NULL);
		pthread_join(z[i].thread, NULL);
		ck_assert(z[i].rc == KV_OK && z[i].upper.t > z[i].time);
		woken += f[i].woken;
		left += f[i].left;
	}
	ck_assert_uint_gt(left, 0);
	ck_assert_uint_gt(woken, 0);
	ck_assert_ptr_null(rig.shard->waiters);
	rig_free(&rig);
}
END_TEST

Suite *waiters_suite(void)
{
	Suite *s = suite_create("waiters");
	TCase *t = tcase_create("waiters");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, waiting_ends_with_the_upper_the_time_or_the_shard, 0, 2);
	tcase_add_loop_test(t, thousands_are_woken_once_each_and_no_others, 0, 2);
	tcase_add_test(t, who_leaves_while_being_woken_is_woken_or_has_left);
	suite_add_tcase(s, t);
	return s;
}
