/*
 * test_read.c - the read handle: a since of one's own and what may be read under it.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "core/read.h"
#include "tests/core/batches.h"
#include "tests/core/suites.h"

static struct core_frontier at(uint64_t t)
{
	return core_frontier_at(t);
}

/* Two handles on a shard with [0, 10) appended: the same one, or with another engine on a shared disk. */
struct pair {
	struct rig rig;
	struct second other;
	struct core_shard *a;
	struct core_shard *b;
};

static struct pair pair_new(bool shared)
{
	struct pair p = {.rig = rig_new(shared ? DISK_SHARED : DISK_SOLE)};

	p.a = p.b = p.rig.shard;
	if (shared) {
		p.other = second_open(&p.rig);
		p.b = p.other.shard;
	}
	ck_assert_str_eq(verdict(p.b, "expected_upper=0 new_upper=10", "1 1 k v;4 1 l v;9 1 m v;"),
			 "ok 0 10 updates=3");
	return p;
}

static void pair_free(struct pair *p)
{
	if (p->other.engine != NULL)
		second_close(&p->other);
	rig_free(&p->rig);
}

static struct core_read *reader_on(struct core_shard *s)
{
	struct core_read *r;
	struct kv_err err;

	ck_ok(core_read_open(s, "a test", &r, &err), err);
	return r;
}

static void move_since(struct core_shard *s, struct core_frontier to)
{
	struct kv_err err;

	ck_ok(core_shard_move_hold(s, CORE_DEFAULT_HOLD, to, 0, &err), err);
}

/* Any version by the reader's engine: what it let go goes with it. */
static void any_version(struct core_shard *s)
{
	struct kv_err err;

	ck_ok(core_shard_set_owner(s, any_owner, &err), err);
}

static void advance(struct core_shard *s)
{
	struct core_appended r;
	struct kv_err err;

	ck_ok(append(s, "expected_upper=* new_upper=+1", "* 1 n v;", &r, &err), err);
}

/* "3" rows, or the name of the code. */
static const char *rows_at(struct core_read *r, struct core_as_of as_of, struct kv_err *err)
{
	static char text[20];
	struct core_snapshot *n;
	struct core_update u;
	bool end = false;
	int rows = -1;
	enum kv_rc rc = core_read_snapshot(r, as_of, &n, err);

	ck_assert_int_eq(n == NULL, rc != KV_OK);
	for (; rc == KV_OK && !end; rows++)
		ck_ok(core_snapshot_next(n, &u, &end, err), *err);
	core_snapshot_close(n);
	snprintf(text, sizeof text, "%d", rows);
	return rc == KV_OK ? text : kv_rc_name(rc);
}

static const char *rows(struct core_read *r, uint64_t t)
{
	struct kv_err err;

	return rows_at(r, (struct core_as_of){.time = t}, &err);
}

static const char *latest(struct core_read *r)
{
	struct kv_err err;

	return rows_at(r, (struct core_as_of){.latest = true}, &err);
}

static enum kv_rc listens(struct core_read *r, struct core_frontier from, struct kv_err *err)
{
	struct core_listen *l;
	enum kv_rc rc = core_read_listen(r, from, &l, err);

	ck_assert_int_eq(l == NULL, rc != KV_OK);
	core_listen_close(l);
	return rc;
}

/* --- its since ------------------------------------------------------------------------------------- */

START_TEST(a_handle_begins_at_since_and_holds_it_back)
{
	struct pair p = pair_new(_i == 1);
	struct core_read *r;

	move_since(p.b, at(3));
	r = reader_on(p.a);
	ck_assert(core_frontier_eq(core_read_since(r), at(3)));
	move_since(p.b, at(9));
	ck_assert_str_eq(frontiers(p.b), "3 10");
	ck_assert_str_eq(rows(r, 3), "1");
	core_read_downgrade_since(r, at(5));
	ck_assert(core_frontier_eq(core_read_since(r), at(5)));
	core_read_downgrade_since(r, at(5));
	core_read_downgrade_since(r, at(4));
	ck_assert(core_frontier_eq(core_read_since(r), at(5)));
	ck_assert_str_eq(frontiers(p.b), "3 10"); /* with the next version */
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "5 10");
	core_read_downgrade_since(r, at(30)); /* beyond the upper */
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "9 10");
	core_read_expire(r);
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "9 10");
	core_read_expire(NULL);
	pair_free(&p);
}
END_TEST

START_TEST(a_handle_lets_go_when_it_is_expired)
{
	struct pair p = pair_new(_i == 1);
	struct core_read *r = reader_on(p.a), *other = reader_on(p.a);

	move_since(p.b, at(9));
	core_read_downgrade_since(other, at(6));
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "0 10");
	core_read_expire(r);
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "6 10");
	core_read_expire(other);
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "9 10");
	pair_free(&p);
}
END_TEST

START_TEST(a_handle_at_the_empty_frontier_reads_nothing_and_holds_nothing)
{
	struct pair p = pair_new(_i == 1);
	struct core_read *r = reader_on(p.a), *late;

	move_since(p.b, core_frontier_empty());
	core_read_downgrade_since(r, at(UINT64_MAX));
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "18446744073709551615 10");
	core_read_downgrade_since(r, core_frontier_empty());
	ck_assert(core_read_since(r).empty);
	core_read_downgrade_since(r, at(3));
	ck_assert(core_read_since(r).empty);
	ck_assert_str_eq(rows(r, 9), "CompactedAway");
	ck_assert_str_eq(rows(r, UINT64_MAX), "CompactedAway");
	ck_assert_str_eq(latest(r), "CompactedAway");
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "- 10");
	late = reader_on(p.a);
	ck_assert(core_read_since(late).empty);
	ck_assert_str_eq(latest(late), "CompactedAway");
	core_read_expire(late);
	core_read_expire(r);
	pair_free(&p);
}
END_TEST

START_TEST(who_reads_is_told)
{
	struct pair p = pair_new(_i == 1);
	char longest[2 * CORE_PURPOSE_LEN];
	struct core_reading *list;
	struct core_read *r;
	struct kv_err err;
	size_t count;

	memset(longest, 'p', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	ck_ok(core_read_open(p.a, longest, &r, &err), err);
	core_read_downgrade_since(r, at(4));
	ck_ok(core_shard_readers(p.a, &list, &count, &err), err);
	ck_assert_uint_eq(count, 1);
	ck_assert_uint_eq(strlen(list[0].reader.purpose), CORE_PURPOSE_LEN - 1);
	ck_assert_uint_eq(list[0].time, 4);
	ck_assert_uint_gt(list[0].reader.since_ms, 1600000000000);
	free(list);
	core_read_expire(r);
	ck_ok(core_shard_readers(p.a, &list, &count, &err), err);
	ck_assert_uint_eq(count, 0);
	free(list);
	pair_free(&p);
}
END_TEST

/* --- reading under it ------------------------------------------------------------------------------ */

START_TEST(what_is_read_does_not_lie_below_its_since)
{
	struct pair p = pair_new(_i == 1);
	struct core_read *r = reader_on(p.a);
	struct kv_err err;

	ck_assert_str_eq(rows(r, 0), "0");
	ck_assert_str_eq(rows(r, 9), "3");
	ck_assert_str_eq(rows(r, 10), "WouldBlock");
	ck_assert_int_eq(listens(r, at(0), &err), KV_OK); /* both 0 */
	core_read_downgrade_since(r, at(4));
	ck_assert_str_eq(rows(r, 3), "CompactedAway"); /* though the shard still has it */
	ck_assert_str_eq(rows_at(r, (struct core_as_of){.time = 0}, &err), "CompactedAway");
	ck_assert_str_eq(err.detail, "since=4");
	ck_assert_str_eq(rows(r, 4), "2");
	ck_assert_str_eq(latest(r), "3");
	ck_assert_int_eq(listens(r, at(0), &err), KV_COMPACTED);
	ck_assert_int_eq(listens(r, at(4), &err), KV_COMPACTED);
	ck_assert_int_eq(listens(r, at(5), &err), KV_OK);
	ck_assert_int_eq(listens(r, at(99), &err), KV_OK);
	ck_assert_int_eq(listens(r, core_frontier_empty(), &err), KV_OK);
	core_read_downgrade_since(r, at(11));
	ck_assert_str_eq(latest(r), "CompactedAway"); /* which is 9 */
	ck_assert_str_eq(rows(r, 11), "WouldBlock");
	advance(p.b);
	advance(p.b);
	ck_assert_str_eq(latest(r), "4"); /* 11 */
	ck_assert_str_eq(rows(r, 11), "4");
	core_read_expire(r);
	pair_free(&p);
}
END_TEST

START_TEST(the_latest_of_an_empty_shard_is_nothing)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_read *r = reader_on(rig.shard);

	ck_assert_str_eq(latest(r), "0");
	ck_assert_str_eq(rows(r, 0), "WouldBlock");
	core_read_expire(r);
	rig_free(&rig);
}
END_TEST

/* Rows of all steps until nothing new comes. */
static size_t drain(struct core_listen *l, struct core_frontier *to)
{
	struct core_step step;
	struct core_update u;
	struct kv_err err;
	size_t count = 0;
	bool end = false;

	while (core_listen_step(l, &step, &end, &err) == KV_OK && !end)
		for (; !end; count += !end)
			ck_ok(core_listen_next(l, &u, &end, &err), err);
	*to = core_listen_frontier(l);
	return count;
}

START_TEST(a_subscription_is_what_is_there_and_all_that_comes_after)
{
	struct pair p = pair_new(_i == 1);
	struct core_read *r = reader_on(p.a);
	struct core_snapshot *n;
	struct core_listen *l;
	struct core_update u;
	struct core_frontier to;
	struct kv_err err;
	bool end = false;
	size_t count = 0;

	core_read_downgrade_since(r, at(3));
	ck_assert_int_eq(core_read_subscribe(r, 2, &n, &l, &err), KV_COMPACTED);
	ck_assert(n == NULL && l == NULL);
	ck_ok(core_read_subscribe(r, 4, &n, &l, &err), err);
	ck_assert(n != NULL && core_frontier_eq(core_listen_frontier(l), at(5)));
	core_read_expire(r); /* they outlive it */
	move_since(p.b, at(9));
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "4 10");
	advance(p.b);
	(void)upper_of(p.a);
	ck_assert_uint_eq(drain(l, &to), 2);
	ck_assert_uint_eq(to.t, 11);
	for (; !end; count++)
		ck_ok(core_snapshot_next(n, &u, &end, &err), err);
	ck_assert_uint_eq(count, 3);
	core_snapshot_close(n);
	core_listen_close(l);
	pair_free(&p);
}
END_TEST

START_TEST(a_subscription_from_a_time_to_come_waits_for_it)
{
	struct pair p = pair_new(_i == 1);
	struct core_read *r = reader_on(p.a);
	struct core_snapshot *n;
	struct core_listen *l;
	struct core_frontier to;
	struct kv_err err;

	ck_ok(core_read_subscribe(r, 11, &n, &l, &err), err);
	ck_assert_ptr_null(n);
	ck_assert_uint_eq(core_listen_frontier(l).t, 12);
	move_since(p.b, at(40));
	core_read_downgrade_since(r, at(11));
	any_version(p.a);
	ck_assert_str_eq(frontiers(p.b), "11 10");
	for (int i = 0; i < 3; i++)
		advance(p.b);
	ck_assert_int_eq(core_read_wait(r, 11, -1, &err), KV_OK);
	ck_assert_str_eq(rows(r, 11), "4");
	ck_assert_uint_eq(drain(l, &to), 1);
	ck_assert_uint_eq(to.t, 13);
	core_listen_close(l);

	ck_ok(core_read_subscribe(r, UINT64_MAX, &n, &l, &err), err);
	ck_assert(n == NULL && core_listen_frontier(l).empty);
	ck_assert_str_eq(verdict(p.b, "expected_upper=13 new_upper=-", ""), "ok 13 - updates=0");
	ck_assert_int_eq(core_read_wait(r, UINT64_MAX, 0, &err), KV_OK);
	ck_assert_str_eq(rows(r, UINT64_MAX), "4");
	ck_assert_uint_eq(drain(l, &to), 0);
	core_listen_close(l);
	core_read_expire(r);
	pair_free(&p);
}
END_TEST

struct mover {
	struct core_shard *s;
	_Atomic(bool) over;
};

static void *move_on(void *arg)
{
	struct mover *m = arg;

	for (uint64_t t = 11; !atomic_load(&m->over); t++) {
		struct core_appended r;
		struct kv_err err;
		char options[80];

		snprintf(options, sizeof options, "expected_upper=* new_upper=+1 since=%llu",
			 (unsigned long long)t - 2);
		ck_ok(append(m->s, options, "", &r, &err), err);
	}
	return NULL;
}

START_TEST(a_handle_that_is_opened_while_since_moves_holds_what_it_says)
{
	struct pair p = pair_new(_i == 1);
	struct mover m = {.s = p.b};
	pthread_t thread;

	pthread_create(&thread, NULL, move_on, &m);
	for (int i = 0; i < 150; i++) {
		struct core_read *r = reader_on(p.a);
		struct core_frontier since = core_read_since(r);
		struct kv_err err;

		ck_assert_int_eq(core_read_wait(r, since.t, 20000, &err), KV_OK);
		ck_assert_str_eq(rows(r, since.t), since.t < 1   ? "0"
						   : since.t < 4 ? "1"
						   : since.t < 9 ? "2"
								 : "3");
		ck_assert_int_eq(listens(r, at(since.t + 1), &err), KV_OK);
		core_read_expire(r);
	}
	atomic_store(&m.over, true);
	pthread_join(thread, NULL);
	pair_free(&p);
}
END_TEST

/* --- whichever call fails -------------------------------------------------------------------------- */

START_TEST(whichever_call_fails_nothing_is_held_without_a_handle)
{
	static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_DONE_UNKNOWN, KV_FAULT_LOST_UNKNOWN};
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct pair p = pair_new(true);
		struct core_snapshot *n = NULL;
		struct core_listen *l = NULL;
		struct core_read *r;
		struct kv_err err;
		enum kv_rc rc;

		kv_faults_arm(p.rig.disk->faults, nth, kinds[_i % 3], _i >= 3);
		rc = core_read_open(p.a, "a test", &r, &err);
		ck_assert_int_eq(r == NULL, rc != KV_OK);
		if (rc == KV_OK)
			rc = core_read_subscribe(r, 4, &n, &l, &err);
		ck_assert(rc == KV_OK || (rc == KV_UNREACHABLE && n == NULL && l == NULL));
		fired = kv_faults_fired(p.rig.disk->faults);
		disk_heal(p.rig.disk);
		core_snapshot_close(n);
		core_read_expire(r);
		ck_assert_int_eq(p.a->needs == NULL, l == NULL);
		core_listen_close(l);
		move_since(p.b, at(7));
		any_version(p.a);
		ck_assert_str_eq(frontiers(p.b), "7 10"); /* nor a lease */
		pair_free(&p);
	}
}
END_TEST

Suite *read_suite(void)
{
	Suite *s = suite_create("read");
	TCase *t = tcase_create("read");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, a_handle_begins_at_since_and_holds_it_back, 0, 2);
	tcase_add_loop_test(t, a_handle_lets_go_when_it_is_expired, 0, 2);
	tcase_add_loop_test(t, a_handle_at_the_empty_frontier_reads_nothing_and_holds_nothing, 0, 2);
	tcase_add_loop_test(t, who_reads_is_told, 0, 2);
	tcase_add_loop_test(t, what_is_read_does_not_lie_below_its_since, 0, 2);
	tcase_add_test(t, the_latest_of_an_empty_shard_is_nothing);
	tcase_add_loop_test(t, a_subscription_is_what_is_there_and_all_that_comes_after, 0, 2);
	tcase_add_loop_test(t, a_subscription_from_a_time_to_come_waits_for_it, 0, 2);
	tcase_add_loop_test(t, a_handle_that_is_opened_while_since_moves_holds_what_it_says, 0, 2);
	tcase_add_loop_test(t, whichever_call_fails_nothing_is_held_without_a_handle, 0, 6);
	suite_add_tcase(s, t);
	return s;
}
