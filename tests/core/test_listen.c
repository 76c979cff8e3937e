/*
 * test_listen.c - a listener gives every update exactly once, in steps that follow each other, whatever
 * happens to the batches meanwhile: compared with a plain list of what was committed. At random and in
 * threads: test_listen_random.c.
 */
#include <malloc.h>

#include "tests/core/ears.h"
#include "tests/core/hosts.h"
#include "tests/core/suites.h"

static struct core_frontier at(uint64_t t)
{
	return core_frontier_at(t);
}

/* --- folds ----------------------------------------------------------------------------------------- */

START_TEST(folds_with_listeners_at_every_point_of_the_tail)
{
	enum { EARS = CORE_FOLD_BATCHES };
	struct feed d = feed_new(_i % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	struct ear ears[EARS];
	char *big = large_row("*", "big", 6000);

	put_many(&d, EARS - 1, "* 1 a x;* 1 a y;");
	for (uint64_t i = 0; i < EARS; i++)
		ears[i] = ear_at(d.rig.shard, at(i));
	for (uint64_t i = 0; i < EARS; i += 2) { /* half of them within a step */
		(void)ear_step(&ears[i]);
		ear_read(&ears[i], i % 3);
	}
	if (_i >= 2)
		put_many(&d, 1, big); /* folds them into a blob */
	put_many(&d, 2 * EARS, "* 1 a x;* -1 a y;");
	for (uint64_t i = 0; i < EARS; i++)
		ear_check_all(&ears[i], &d);
	for (uint64_t i = 0; i < EARS; i++)
		ear_free(&ears[i]);
	check_sound(d.by);
	free(big);
	feed_free(&d);
}
END_TEST

START_TEST(since_behind_a_listener_never_blurs_what_it_has_not_given)
{
	struct feed d = feed_new(DISK_SOLE);
	struct ear e;

	put_many(&d, 40, "* 1 a x;* 1 b x;");
	e = ear_at(d.rig.shard, at(17));
	move_since(&d, at(39));
	ck_assert_uint_eq(since_now(d.by).t, 16);
	put_many(&d, 100, "* 1 a x;"); /* folded, and advanced to since */
	ear_check_all(&e, &d);
	put_many(&d, 1, "");
	ck_assert_uint_eq(since_now(d.by).t, 39);
	ear_free(&e);
	feed_free(&d);
}
END_TEST

/* --- kinds of batches ------------------------------------------------------------------------------ */

START_TEST(every_kind_of_append_comes_once)
{
	struct feed d = feed_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_writer *w = writer_on(d.by);
	struct core_built *b[2];
	struct core_appended r;
	struct kv_err err;
	struct ear ears[2] = {ear_at(d.rig.shard, at(0)), ear_at(d.rig.shard, at(7))};
	char *big = large_row("1", "big", 9000);

	put(&d, "expected_upper=0 new_upper=3", "0 1 a x;2 5 b y;2 -1 \\N z;");
	put(&d, "expected_upper=3 new_upper=4", "");
	put(&d, "expected_upper=4 new_upper=6", ""); /* one with the one before */
	put(&d, "expected_upper=6 new_upper=6", "");
	put(&d, "expected_upper=* new_upper=+4", "* 1 a x;8 1 a x;");
	put(&d, "expected_upper=* new_upper=+2 rewrite_ts=*", "1 1 a x;11 1 c x;");
	ck_ok(ear_step(&ears[0]), err);
	ear_read(&ears[0], 2);
	put(&d, "lower=5 upper=14", "5 1 a cut;11 1 a cut;12 1 a in;13 1 b in;");
	put(&d, "lower=5 upper=14", "12 1 a in;"); /* it is there */

	/* Truncated, of several runs, with blobs. */
	stage_whole(d.by, "one", "10 30", "11 1 a cut;14 1 s one;19 1 s one;20 1 s cut;");
	stage_whole(d.by, "two", NULL, "14 3 s two;15 1 s two;");
	ck_ok(append_staged(d.by, "expected_upper=* new_upper=20", "one two", "16 1 r r;* 1 star r;", &r,
			    &err),
	      err);
	remember(&d, r.lower, r.upper, 0,
		 "11 1 a cut;14 1 s one;19 1 s one;20 1 s cut;14 3 s two;15 1 s two;"
		 "16 1 r r;* 1 star r;");
	b[0] = build(w, "0", "30", big);
	b[1] = build(w, "15", "30", "15 1 t u;29 1 t u;");
	for (int i = 0; i < 2; i++)
		ck_ok(core_built_rewrite_ts(b[i], 22, at(30), &err), err);
	ck_assert_str_eq(commit_built(w, "expected_upper=20 new_upper=30", b, 2), "ok 20 30 updates=3");
	remember(&d, at(20), at(30), 22, big);
	remember(&d, at(20), at(30), 22, "15 1 t u;29 1 t u;");
	core_built_free(b[0]);
	core_built_free(b[1]);
	put_many(&d, 70, "* 1 a x;");
	for (int i = 0; i < 2; i++) {
		ear_check_all(&ears[i], &d);
		ear_free(&ears[i]);
	}
	core_writer_close(w);
	free(big);
	feed_free(&d);
}
END_TEST

/* --- what may be listened to ----------------------------------------------------------------------- */

START_TEST(readable_is_what_lies_above_since)
{
	struct feed d = feed_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_listen *l;
	struct kv_err err;

	put_many(&d, 10, "* 1 a x;");
	ck_ok(core_listen_open(d.rig.shard, at(0), &who, &l, &err), err); /* since = f = 0 */
	core_listen_close(l);
	put_many(&d, 1, "");
	move_since(&d, at(4));
	/* On a shared store the lease ends with its engine's next commit. */
	ck_ok(core_shard_set_owner(d.rig.shard, any_owner, &err), err);
	ck_assert_uint_eq(since_now(d.rig.shard).t, 4);
	for (uint64_t f = 0; f < 7; f++) {
		enum kv_rc rc = core_listen_open(d.rig.shard, at(f), &who, &l, &err);

		ck_assert_int_eq(rc, f > 4 ? KV_OK : KV_COMPACTED);
		ck_assert_int_eq(l == NULL, rc != KV_OK);
		if (f == 3)
			ck_assert_str_eq(err.detail, "frontier=3 since=4");
		core_listen_close(l);
	}
	ck_assert_ptr_null(d.rig.shard->needs);
	move_since(&d, core_frontier_empty());
	ck_ok(core_shard_set_owner(d.rig.shard, any_owner, &err), err);
	ck_assert_int_eq(core_listen_open(d.rig.shard, at(UINT64_MAX), &who, &l, &err), KV_COMPACTED);
	ck_assert_str_eq(err.detail, "frontier=18446744073709551615 since=-");
	ck_ok(core_listen_open(d.rig.shard, core_frontier_empty(), &who, &l, &err), err);
	core_listen_close(l);
	feed_free(&d);
}
END_TEST

START_TEST(the_hold_is_below_the_frontier_and_moves_with_the_steps)
{
	struct feed d = feed_new(DISK_SOLE);
	struct core_reading *readers;
	struct kv_err err;
	struct ear e;
	size_t count;
	char *big = large_row("*", "big", 70000);

	put_many(&d, 3, big); /* a step each */
	e = ear_at(d.rig.shard, at(0));
	ck_ok(core_shard_readers(d.rig.shard, &readers, &count, &err), err);
	ck_assert_uint_eq(count, 1);
	ck_assert_str_eq(readers[0].reader.purpose, "listen");
	ck_assert_int_eq(readers[0].reader.pid, 7);
	free(readers);
	for (uint64_t i = 0; i < 3; i++) {
		uint64_t held = i == 0 ? 0 : i - 1;

		move_since(&d, at(50 + i));
		ck_assert_uint_eq(since_now(d.by).t, held);
		ck_ok(ear_step(&e), err);
		ck_assert_uint_eq(e.step.upper.t, i + 1);
		ck_assert_uint_eq(d.rig.shard->needs->time, i);
		ear_read(&e, SIZE_MAX);
	}
	ck_assert_int_eq(ear_step(&e), KV_WOULD_BLOCK);
	ear_check(&e, &d);
	ear_free(&e);
	put_many(&d, 1, "");
	ck_assert_uint_eq(since_now(d.by).t, 52);
	free(big);
	feed_free(&d);
}
END_TEST

START_TEST(one_may_listen_from_beyond_the_upper)
{
	struct feed d = feed_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct ear e = ear_at(d.rig.shard, at(5));

	move_since(&d, at(9));
	ck_assert_uint_eq(since_now(d.rig.shard).t, 4);
	put(&d, "expected_upper=0 new_upper=4", "3 1 a x;");
	ck_assert_int_eq(ear_step(&e), KV_WOULD_BLOCK);
	put(&d, "expected_upper=4 new_upper=5", "4 1 a x;");
	ck_assert_int_eq(ear_step(&e), KV_WOULD_BLOCK);
	put(&d, "expected_upper=5 new_upper=6", "5 1 a x;");
	put(&d, "expected_upper=6 new_upper=9", "");
	ear_check_all(&e, &d);
	ck_assert_uint_eq(e.got.count, 1);
	ck_assert_uint_eq(core_listen_frontier(e.l).t, 9);
	ear_free(&e);

	e = ear_at(d.rig.shard, at(12)); /* the batch that is met covers times below */
	put(&d, "expected_upper=9 new_upper=20", "9 1 a x;11 1 b x;12 1 c x;19 1 d x;");
	ear_check_all(&e, &d);
	ck_assert_uint_eq(e.got.count, 2);
	ear_free(&e);
	feed_free(&d);
}
END_TEST

START_TEST(a_listener_whose_lease_ran_out_is_told_what_it_lost)
{
	struct core_listen *l, *beyond;
	struct core_step got;
	struct hosts h;
	struct kv_err err;
	bool end;

	hosts_begin(&h, DISK_SHARED);
	ck_ok(core_listen_open(h.a.shard, at(5), &who, &l, &err), err);
	ck_ok(core_listen_open(h.a.shard, at(9), &who, &beyond, &err), err);
	later(&h, HOUR_MS);
	step(&h.b, 8);
	ck_assert_uint_eq(since_of(&h.a), 8);
	ck_assert_int_eq(core_listen_step(l, &got, &end, &err), KV_COMPACTED);
	ck_assert_str_eq(err.detail, "frontier=5 since=8");
	ck_assert_uint_eq(core_listen_frontier(l).t, 5);
	ck_ok(core_listen_step(beyond, &got, &end, &err), err); /* has lost nothing */
	ck_assert_uint_eq(got.lower.t, 9);
	core_listen_close(l);
	core_listen_close(beyond);
	hosts_end(&h);
}
END_TEST

/* --- the end --------------------------------------------------------------------------------------- */

START_TEST(the_end_comes_when_a_finished_shard_has_given_all)
{
	struct feed d = feed_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct ear e = ear_at(d.rig.shard, at(0)), none = ear_at(d.rig.shard, core_frontier_empty());
	struct core_update u;
	struct kv_err err;
	bool end = false;

	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(ear_step(&none), KV_NOTFOUND); /* at once */
	ck_ok(core_listen_next(none.l, &u, &end, &err), err);
	ck_assert(end);
	put(&d, "expected_upper=0 new_upper=4", "3 1 a x;");
	put(&d, "expected_upper=4 new_upper=-", "4 1 a x;18446744073709551615 1 last x;");
	ck_ok(ear_step(&e), err);
	ear_read(&e, 1);
	ck_assert_int_eq(ear_drain(&e), KV_NOTFOUND);
	ck_assert_int_eq(ear_drain(&e), KV_NOTFOUND);
	ear_check(&e, &d);
	ck_assert_uint_eq(e.got.count, 3);
	ck_ok(core_listen_next(e.l, &u, &end, &err), err);
	ck_assert(end);
	ear_free(&none);
	ear_free(&e);
	e = ear_at(d.rig.shard, at(UINT64_MAX)); /* the last time alone */
	ck_assert_int_eq(ear_drain(&e), KV_NOTFOUND);
	ck_assert_uint_eq(e.got.count, 1);
	ear_free(&e);
	feed_free(&d);
}
END_TEST

START_TEST(the_end_leaves_nothing_of_the_step_before_in_hand)
{
	struct feed d = feed_new(DISK_SOLE);
	struct ear e = ear_at(d.rig.shard, at(0));
	struct core_update u;
	struct kv_err err;
	bool end = false;

	put(&d, "expected_upper=0 new_upper=-", "3 1 a x;4 1 a x;");
	ck_ok(ear_step(&e), err);
	ck_ok(core_listen_next(e.l, &u, &end, &err), err);
	ck_assert(!end);
	ck_assert_int_eq(ear_step(&e), KV_NOTFOUND);
	ck_ok(core_listen_next(e.l, &u, &end, &err), err);
	ck_assert(end);
	ear_free(&e);
	feed_free(&d);
}
END_TEST

static size_t rows_to_the_end(struct core_listen *l)
{
	struct core_step step;
	struct core_update u;
	struct kv_err err;
	bool end = false, step_end;
	size_t rows = 0;

	for (;;) {
		ck_ok(core_listen_step(l, &step, &end, &err), err);
		if (end)
			return rows;
		for (step_end = false; !step_end; rows += !step_end)
			ck_ok(core_listen_next(l, &u, &step_end, &err), err);
	}
}

START_TEST(a_removed_shard_is_read_to_its_end_by_who_listens_already)
{
	struct feed d = feed_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct ear in_step, behind, over = {0};
	struct core_step step;
	struct core_listen *l;
	struct kv_err err;
	bool end;
	char *big = large_row("*", "big", 70000);

	put_many(&d, 3, big);
	in_step = ear_at(d.rig.shard, at(0));
	behind = ear_at(d.rig.shard, at(2));
	over = ear_at(d.rig.shard, core_frontier_empty());
	ck_ok(ear_step(&in_step), err);
	put(&d, "expected_upper=3 new_upper=- since=-", "");
	ck_ok(core_shard_remove(d.rig.shard, &err), err);
	ear_read(&in_step, SIZE_MAX);
	ck_assert_uint_eq(in_step.got.count, 1);
	ck_assert_uint_eq(rows_to_the_end(in_step.l), 2);
	ck_assert_uint_eq(rows_to_the_end(behind.l), 1);
	ck_ok(core_listen_step(over.l, &step, &end, &err), err);
	ck_assert(end);
	ck_assert_int_eq(core_listen_open(d.rig.shard, at(2), &who, &l, &err), KV_NO_SHARD);
	ck_assert_ptr_null(l);
	ear_free(&in_step);
	ear_free(&behind);
	ear_free(&over);
	free(big);
	feed_free(&d);
}
END_TEST

/* --- steps ----------------------------------------------------------------------------------------- */

START_TEST(many_small_batches_are_few_steps_and_what_is_skipped_is_gone)
{
	struct feed d = feed_new(DISK_SOLE);
	struct ear e;
	struct kv_err err;
	char *mid = large_row("*", "mid", 5000);

	for (int i = 0; i < 100; i++) /* small ones with blobs, which are not folded */
		put(&d, "expected_upper=* new_upper=+1", mid);
	put_many(&d, 500, "* 1 a x;");
	e = ear_at(d.rig.shard, at(0));
	ck_ok(ear_step(&e), err);
	ck_assert_uint_gt(e.step.upper.t, 8);
	ck_assert_uint_lt(e.step.upper.t, 20);
	ck_ok(ear_step(&e), err); /* nothing of the first was taken */
	ear_read(&e, 1);
	ck_assert_uint_eq(e.got.u[0].time, e.step.lower.t);
	e.from = e.step.lower;
	ear_check_all(&e, &d);
	ck_assert_uint_lt(e.steps, 20);
	ear_free(&e);
	free(mid);
	feed_free(&d);
}
END_TEST

START_TEST(a_step_of_a_hundred_thousand_rows_takes_little_memory)
{
	enum { ROWS = 100000, VAL = 96 };
	struct feed d = feed_new(DISK_MEM);
	struct core_append ask = parse_ask("expected_upper=0 new_upper=5");
	struct core_appended r;
	struct core_txn *t;
	struct kv_err err;
	struct rng rng = rng_new(3);
	struct core_listen *l;
	struct core_step step;
	struct core_update u;
	size_t rows = 0, base, most = 0;
	bool end = false;

	ck_ok(core_txn_begin(d.by, &ask, &t, &err), err);
	for (uint64_t i = 0; i < ROWS; i++) {
		uint64_t val[VAL / 8];

		for (size_t j = 0; j < VAL / 8; j++)
			val[j] = rng_next(&rng);
		struct core_row row = {.update = {.key = {.data = (const uint8_t *)&i, .len = 8},
						  .val = {.data = (const uint8_t *)val, .len = VAL},
						  .time = i % 5,
						  .diff = 1}};
		ck_ok(core_txn_add(t, &row, &err), err);
	}
	ck_ok(core_txn_commit(t, &r, &err), err);
	core_txn_free(t);
	base = mallinfo2().uordblks + mallinfo2().hblkhd;
	ck_ok(core_listen_open(d.rig.shard, at(2), &who, &l, &err), err);
	ck_ok(core_listen_step(l, &step, &end, &err), err);
	ck_assert_uint_eq(step.upper.t, 5);
	for (; !end; rows++) {
		ck_ok(core_listen_next(l, &u, &end, &err), err);
		if (rows % 512 == 0) {
			size_t now = mallinfo2().uordblks + mallinfo2().hblkhd;

			most = now > most ? now : most;
		}
	}
	ck_assert_uint_eq(rows, ROWS / 5 * 3 + 1);
	ck_assert_msg(most < base + (2 << 20), "%zu bytes more", most - base);
	core_listen_close(l);
	feed_free(&d);
}
END_TEST

/* When reading fails, the same row is next. */
START_TEST(a_failed_read_can_be_made_again)
{
	struct feed d = feed_new(DISK_SOLE);
	bool fired = true;
	char *big = large_row("*", "big", 9000);

	put_many(&d, 3, big);
	put_many(&d, 3, "* 1 a x;");
	for (unsigned nth = 1; fired; nth++) {
		struct ear e = ear_at(d.rig.shard, at(0));
		struct core_update u;
		struct kv_err err;
		bool end = false;

		ck_ok(ear_step(&e), err);
		disk_fail(d.rig.disk, nth, KV_FAULT_BEFORE);
		while (!end) {
			enum kv_rc rc = core_listen_next(e.l, &u, &end, &err);

			if (rc == KV_OK && !end)
				model_add(&e.got, &u, false);
			ck_assert(rc == KV_OK || kv_faults_fired(d.rig.disk->faults));
		}
		fired = kv_faults_fired(d.rig.disk->faults);
		disk_heal(d.rig.disk);
		e.reading = false;
		ear_check_all(&e, &d);
		ear_free(&e);
	}
	free(big);
	feed_free(&d);
}
END_TEST

Suite *listen_suite(void)
{
	Suite *s = suite_create("listen");
	TCase *t = tcase_create("listen");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, folds_with_listeners_at_every_point_of_the_tail, 0, 4);
	tcase_add_test(t, since_behind_a_listener_never_blurs_what_it_has_not_given);
	tcase_add_loop_test(t, every_kind_of_append_comes_once, 0, 2);
	tcase_add_loop_test(t, readable_is_what_lies_above_since, 0, 2);
	tcase_add_test(t, the_hold_is_below_the_frontier_and_moves_with_the_steps);
	tcase_add_loop_test(t, one_may_listen_from_beyond_the_upper, 0, 2);
	tcase_add_test(t, a_listener_whose_lease_ran_out_is_told_what_it_lost);
	tcase_add_loop_test(t, the_end_comes_when_a_finished_shard_has_given_all, 0, 2);
	tcase_add_test(t, the_end_leaves_nothing_of_the_step_before_in_hand);
	tcase_add_loop_test(t, a_removed_shard_is_read_to_its_end_by_who_listens_already, 0, 2);
	tcase_add_test(t, many_small_batches_are_few_steps_and_what_is_skipped_is_gone);
	tcase_add_test(t, a_step_of_a_hundred_thousand_rows_takes_little_memory);
	tcase_add_test(t, a_failed_read_can_be_made_again);
	suite_add_tcase(s, t);
	return s;
}
