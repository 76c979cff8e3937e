/*
 * test_state.c - diffs are applied whole or not at all, and states are checked.
 */
#include "tests/core/states.h"
#include "tests/core/suites.h"

START_TEST(a_new_state_is_empty_and_sound)
{
	struct core_state s;
	struct kv_err err;

	ck_ok(core_state_init(&s, 9, 5, any_owner, &err), err);
	ck_ok(core_state_check(&s, &err), err);
	ck_assert_uint_eq(s.first_seqno, 9);
	ck_assert_ptr_nonnull(core_state_hold(&s, CORE_DEFAULT_HOLD));
	ck_assert_uint_eq(s.upper.t, 0);
	ck_assert_uint_eq(core_state_batch_at(&s, core_frontier_at(0)), s.batch_count);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_splice_in_the_middle_replaces_what_tiles_its_bounds)
{
	struct rng r = rng_new(100);
	struct core_state s = random_state(&r, 5);
	struct core_batch *two[2] = {random_batch(&r, core_frontier_at(10), core_frontier_at(25)),
				     random_batch(&r, core_frontier_at(25), core_frontier_at(40))};
	struct core_diff d;
	struct kv_err err;

	core_diff_init(&d);
	d.seqno = s.seqno + 1;
	ck_ok(core_diff_splice(&d, core_frontier_at(10), core_frontier_at(40), two, 2, &err), err);
	ck_ok(core_state_apply(&s, &d, &err), err);
	core_diff_fini(&d);
	ck_ok(core_state_check(&s, &err), err);
	ck_assert_uint_eq(s.batch_count, 4);
	ck_assert_ptr_eq(s.batches[1], two[0]);
	ck_assert_ptr_eq(s.batches[2], two[1]);
	ck_assert_uint_eq(core_state_batch_at(&s, core_frontier_at(25)), 2);
	ck_assert_uint_eq(core_state_batch_at(&s, core_frontier_at(26)), 4);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_diff_that_does_not_fit_changes_nothing)
{
	/* Bounds of splices that meet no batches of [0,10) [10,20) ... [40,50); -1: no second splice. */
	static const int misfits[][4] = {{5, 10, -1, 0},   {10, 15, -1, 0},  {40, 60, -1, 0},
					 {60, 60, -1, 0},  {55, 70, -1, 0},  {0, 10, 15, 20},
					 {0, 10, 60, 60},  {20, 30, 40, 55}, {20, 30, 0, 10},
					 {20, 30, 20, 30}, {50, 50, 20, 30}, {10, 30, 20, 40}};
	struct rng r = rng_new(101);

	for (size_t i = 0; i < sizeof(misfits) / sizeof(misfits[0]); i++) {
		struct core_state s = random_state(&r, 5);
		struct core_buf before = state_bytes(&s), after;
		struct core_diff d;
		struct kv_err err;

		for (random_diff(&r, 0, &d); d.splice_count != 0; random_diff(&r, 0, &d))
			core_diff_fini(&d);
		d.seqno = s.seqno + 1;
		for (int j = 0; j < 4 && misfits[i][j] >= 0; j += 2) {
			struct core_frontier lower = core_frontier_at((uint64_t)misfits[i][j]);
			struct core_frontier upper = core_frontier_at((uint64_t)misfits[i][j + 1]);
			struct core_batch *b =
				random_batch(&r, lower, core_frontier_at(upper.t + (lower.t == upper.t)));

			ck_ok(core_diff_splice(&d, lower, upper, &b, 1, &err), err);
		}
		ck_assert_msg(core_state_apply(&s, &d, &err) == KV_CORRUPT, "misfit %zu", i);
		after = state_bytes(&s);
		ck_assert_msg(before.len == after.len && memcmp(before.data, after.data, after.len) == 0,
			      "misfit %zu", i);
		core_diff_fini(&d);
		core_buf_fini(&before);
		core_buf_fini(&after);
		core_state_fini(&s);
	}
}
END_TEST

START_TEST(only_the_next_version_can_be_applied)
{
	struct rng r = rng_new(102);
	struct core_state s = random_state(&r, 3);
	struct core_diff d;
	struct kv_err err;

	core_diff_init(&d);
	for (uint64_t seqno = s.seqno - 1; seqno < s.seqno + 4; seqno++) {
		d.seqno = seqno;
		if (seqno != s.seqno + 1)
			ck_assert_int_eq(core_state_apply(&s, &d, &err), KV_CORRUPT);
	}
	core_state_fini(&s);
}
END_TEST

START_TEST(the_oldest_of_1024_tokens_makes_room)
{
	struct core_state s, again;
	struct core_diff d;
	struct kv_err err;
	struct core_buf bytes;

	ck_ok(core_state_init(&s, 1, 5, any_owner, &err), err);
	for (uint64_t i = 0; i < 2500; i++) {
		core_diff_init(&d);
		d.seqno = s.seqno + 1;
		d.has_token = true;
		d.token = (struct core_done){.token = token_of(i), .rows = i};
		ck_ok(core_state_apply(&s, &d, &err), err);
		core_diff_fini(&d);
		ck_assert_ptr_nonnull(core_state_token(&s, token_of(i)));
		ck_assert_uint_eq(core_state_token(&s, token_of(i))->rows, i);
		if (i >= CORE_TOKENS_MAX) {
			ck_assert_ptr_null(core_state_token(&s, token_of(i - CORE_TOKENS_MAX)));
			ck_assert_ptr_nonnull(core_state_token(&s, token_of(i - CORE_TOKENS_MAX + 1)));
		}
		if (i % 500 != 17)
			continue;
		/* From here on the decoded one, whose oldest stands first. */
		bytes = state_bytes(&s);
		ck_ok(core_state_decode(states_shard, bytes.data, bytes.len, &again, &err), err);
		core_state_fini(&s);
		core_buf_fini(&bytes);
		s = again;
	}
	ck_ok(core_state_check(&s, &err), err);
	core_state_fini(&s);
}
END_TEST

/* One invariant each. */
static void spoil(struct core_state *s, int how)
{
	struct core_batch *b = s->batches[1];

	switch (how) {
	case 0:
		s->first_seqno = 0;
		break;
	case 1:
		s->first_seqno = s->seqno + 1;
		break;
	case 2:
		b->lower.t++;
		break;
	case 3:
		b->upper = b->lower;
		break;
	case 4:
		s->upper.t++;
		break;
	case 5:
		s->upper = core_frontier_empty();
		break;
	case 6:
		s->batches[0]->lower.t = 1;
		break;
	case 7:
		b->since = core_frontier_at(1);
		break;
	case 8:
		s->since = core_frontier_at(1);
		break;
	case 9:
		b->rows++;
		break;
	case 10:
		b->parts[0].rows = 0;
		break;
	case 11:
		b->parts[0].stars = b->parts[0].rows + 1;
		break;
	case 12:
		b->run_starts[0] = 1;
		break;
	case 13:
		b->run_count = 0;
		break;
	case 14:
		b->parts[0].id = s->batches[2]->parts[0].id;
		break;
	case 15:
		s->token_count = CORE_TOKENS_MAX + 1;
		break;
	case 16:
		strcpy(s->holds[1].name, CORE_DEFAULT_HOLD);
		break;
	case 17:
		s->rollups[0].seqno = s->seqno + 1;
		break;
	case 18:
		s->rollups[1].seqno = s->rollups[0].seqno;
		break;
	case 19:
		s->staged_count = CORE_STAGED_MAX + 1;
		break;
	case 20:
		s->writer_count = CORE_WRITERS_MAX + 1;
		break;
	case 21:
		s->staged[3].id = s->staged[7].id;
		break;
	case 22:
		strcpy(s->staged[3].name, s->staged[7].name);
		break;
	case 23:
		s->writers[0].id = s->writers[1].id;
		break;
	default:
		ck_abort();
	}
}

START_TEST(every_invariant_is_watched)
{
	struct rng r = rng_new(103);
	struct core_state s;
	struct kv_err err;

	do {
		s = random_state(&r, 12);
		if (s.batches[1]->part_count > 0 && s.batches[2]->part_count > 0 && s.hold_count > 1 &&
		    s.rollup_count > 1 && s.writer_count > 1)
			break;
		core_state_fini(&s);
	} while (true);
	s.holds[0].since = core_frontier_at(0);
	ck_ok(core_state_check(&s, &err), err);
	size_t tokens = s.token_count, runs = s.batches[1]->run_count;
	size_t staged = s.staged_count, writers = s.writer_count;
	spoil(&s, _i);
	ck_assert_int_eq(core_state_check(&s, &err), KV_CORRUPT);
	ck_assert_uint_gt(strlen(err.msg), 10);
	s.token_count = tokens;
	s.staged_count = staged;
	s.writer_count = writers;
	s.batches[1]->run_count = runs;
	core_state_fini(&s);
}
END_TEST

Suite *state_suite(void)
{
	Suite *s = suite_create("state");
	TCase *t = tcase_create("state");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_new_state_is_empty_and_sound);
	tcase_add_test(t, a_splice_in_the_middle_replaces_what_tiles_its_bounds);
	tcase_add_test(t, a_diff_that_does_not_fit_changes_nothing);
	tcase_add_test(t, only_the_next_version_can_be_applied);
	tcase_add_test(t, the_oldest_of_1024_tokens_makes_room);
	tcase_add_loop_test(t, every_invariant_is_watched, 0, 24);
	suite_add_tcase(s, t);
	return s;
}
