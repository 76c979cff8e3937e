/*
 * test_group.c - appends that come while another one is being stored share the next step, to whichever shards
 * they go, and whether somebody waits for them or not.
 */
#include "tests/core/gated.h"
#include "tests/core/suites.h"

START_TEST(appends_that_wait_share_the_next_step_in_the_order_they_came)
{
	struct scene *s = scene_new();
	char want[40];

	scene_begin(s, NO_TROUBLE);
	for (int i = 0; i < 5; i++)
		scene_join(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	scene_let_go(s);
	ck_assert_uint_eq(s->gated.step_count, 2);
	ck_assert_uint_eq(s->gated.steps[0], 1);
	ck_assert_uint_eq(s->gated.steps[1], 5);
	for (int i = 0; i < 5; i++) {
		snprintf(want, sizeof want, "ok %d %d updates=1", i + 1, i + 2);
		ck_assert_str_eq(client_said(&s->clients[i]), want);
	}
	check_sound(s->shard);
	for (int round = 0; round < 2; round++, scene_reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "0 6");
		check_content(s->shard, 0, "first x 1;");
		check_content(s->shard, 3, "a x 3;first x 1;");
		check_content(s->shard, 5, "a x 5;first x 1;");
	}
	scene_free(s);
}
END_TEST

START_TEST(each_of_a_group_is_judged_by_what_those_before_it_left)
{
	struct scene *s = scene_new();
	const struct client *c = s->clients;

	scene_begin(s, NO_TROUBLE);
	scene_join(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	scene_join(s, "expected_upper=1 new_upper=2", "1 1 late x;");
	scene_join(s, "expected_upper=2 new_upper=4", "3 1 b x;");
	scene_join(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	scene_join(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	scene_join(s, "expected_upper=5 new_upper=5 since=4", "");
	scene_let_go(s);
	ck_assert_uint_eq(s->gated.steps[1], 4);
	ck_assert_str_eq(client_said(&c[0]), "ok 1 2 updates=1");
	ck_assert_int_eq(c[1].rc, KV_UPPER_MISMATCH);
	ck_assert_ptr_nonnull(strstr(c[1].err.detail, "current_upper=2"));
	ck_assert_str_eq(client_said(&c[2]), "ok 2 4 updates=1");
	ck_assert_str_eq(client_said(&c[3]), "ok 4 5 updates=1");
	ck_assert_str_eq(client_said(&c[4]), "same 4 5 updates=1");
	ck_assert_int_eq(c[5].rc, KV_OK);
	for (int round = 0; round < 2; round++, scene_reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "4 5");
		check_content(s->shard, 4, "a x 1;b x 1;first x 1;once x 1;");
	}
	scene_free(s);
}
END_TEST

START_TEST(a_group_that_the_store_refuses_is_not_done_and_each_is_told)
{
	struct scene *s = scene_new();

	scene_begin(s, REFUSED);
	for (int i = 0; i < 4; i++)
		scene_join(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	scene_let_go(s);
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(s->clients[i].rc, KV_NOSPACE);
		ck_assert_str_eq(s->clients[i].err.msg, "there is no room");
	}
	ck_assert_str_eq(frontiers(s->shard), "0 1");
	ck_assert_str_eq(verdict(s->shard, "expected_upper=1 new_upper=2", "1 1 a x;"), "ok 1 2 updates=1");
	scene_reopen(s);
	check_content(s->shard, 1, "a x 1;first x 1;");
	scene_free(s);
}
END_TEST

START_TEST(who_was_judged_by_what_the_store_then_refused_is_judged_anew)
{
	struct scene *s = scene_new();
	const struct client *c = s->clients;

	scene_begin(s, REFUSED);
	scene_join(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	scene_join(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	scene_join(s, "expected_upper=2 new_upper=3", "2 1 b x;");
	scene_join(s, "expected_upper=1 new_upper=2", "1 1 late x;");
	scene_let_go(s);
	ck_assert_int_eq(c[0].rc, KV_NOSPACE);
	ck_assert_str_eq(client_said(&c[1]), "ok 1 2 updates=1");
	ck_assert_int_eq(c[2].rc, KV_NOSPACE);
	ck_assert_int_eq(c[3].rc, KV_UPPER_MISMATCH);
	ck_assert_ptr_nonnull(strstr(c[3].err.detail, "current_upper=2"));
	for (int round = 0; round < 2; round++, scene_reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "0 2");
		check_content(s->shard, 1, "first x 1;once x 1;");
	}
	scene_free(s);
}
END_TEST

/* A row of 3 to 4 KB as it is encoded; given. */
static char *large_row(struct rng *r)
{
	enum { LEN = 3900 };
	static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
	char *text = malloc(LEN + 16), *p = text + sprintf(text, "* 1 ");

	for (int i = 0; i < LEN; i++)
		*p++ = letters[rng_below(r, 64)];
	strcpy(p, " x;");
	return text;
}

START_TEST(rows_beyond_what_a_shard_keeps_inline_are_no_part_of_a_group)
{
	enum { BEFORE = 30, TOGETHER = 16 };
	struct scene *s = scene_new();
	struct rng r = rng_new(901);
	char *rows[TOGETHER], want[40];
	struct core_appended done;
	struct kv_err err;

	for (int i = 0; i < BEFORE; i++) {
		rows[0] = large_row(&r);
		ck_ok(append(s->shard, "expected_upper=* new_upper=+1", rows[0], &done, &err), err);
		free(rows[0]);
	}
	scene_begin(s, NO_TROUBLE);
	for (int i = 0; i < TOGETHER; i++)
		scene_join(s, "expected_upper=* new_upper=+1", rows[i] = large_row(&r));
	scene_let_go(s);
	ck_assert_uint_gt(s->gated.step_count, 2); /* one of them had to be stored by itself */
	for (int i = 0; i < TOGETHER; i++) {
		ck_ok(s->clients[i].rc, s->clients[i].err);
		free(rows[i]);
	}
	snprintf(want, sizeof want, "0 %d", BEFORE + 1 + TOGETHER);
	for (int round = 0; round < 2; round++, scene_reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), want);
		check_sound(s->shard);
	}
	scene_free(s);
}
END_TEST

START_TEST(a_group_of_unknown_outcome_is_done_once)
{
	struct scene *s = scene_new();

	scene_begin(s, _i == 0 ? DONE_UNKNOWN : LOST_UNKNOWN);
	for (int i = 0; i < 4; i++)
		scene_join(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	scene_let_go(s);
	for (int i = 0; i < 4; i++)
		ck_ok(s->clients[i].rc, s->clients[i].err);
	ck_assert_uint_eq(s->gated.step_count, _i == 0 ? 2 : 3);
	for (int round = 0; round < 2; round++, scene_reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "0 5");
		check_content(s->shard, 4, "a x 4;first x 1;");
	}
	scene_free(s);
}
END_TEST

START_TEST(more_than_one_step_can_take_share_several)
{
	struct scene *s = scene_new();
	size_t sum = 0;

	scene_begin(s, NO_TROUBLE);
	for (int i = 0; i < CLIENTS_MAX; i++)
		scene_join(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	scene_let_go(s);
	for (size_t i = 0; i < s->gated.step_count; i++)
		sum += s->gated.steps[i];
	ck_assert_uint_eq(sum, CLIENTS_MAX + 1);
	ck_assert_uint_le(s->gated.step_count, 3);
	check_sound(s->shard);
	scene_reopen(s);
	check_content(s->shard, CLIENTS_MAX, "a x 40;first x 1;");
	scene_free(s);
}
END_TEST

START_TEST(appends_to_several_shards_share_the_next_step)
{
	struct scene *s = scene_new();

	scene_open_others(s);
	scene_begin(s, NO_TROUBLE);
	for (int i = 0; i < OTHERS; i++)
		scene_join_at(s, s->others[i], "expected_upper=0 new_upper=1", "0 1 a x;");
	scene_join(s, "expected_upper=1 new_upper=2", "1 1 a x;");
	scene_join_at(s, s->others[0], "expected_upper=* new_upper=+1", "* 1 b x;");
	scene_join_at(s, s->others[1], "expected_upper=0 new_upper=1", "0 1 late x;");
	scene_let_go(s);
	ck_assert_uint_eq(s->gated.step_count, 2);
	ck_assert_uint_eq(s->gated.shards[1], OTHERS + 1);
	ck_assert_uint_eq(s->gated.steps[1], OTHERS + 2);
	for (int i = 0; i < OTHERS; i++) {
		ck_assert_str_eq(client_said(&s->clients[i]), "ok 0 1 updates=1");
		check_content(s->others[i], 0, "a x 1;");
		check_sound(s->others[i]);
	}
	ck_assert_str_eq(client_said(&s->clients[OTHERS]), "ok 1 2 updates=1");
	ck_assert_str_eq(client_said(&s->clients[OTHERS + 1]), "ok 1 2 updates=1");
	ck_assert_int_eq(s->clients[OTHERS + 2].rc, KV_UPPER_MISMATCH);
	check_content(s->others[0], 1, "a x 1;b x 1;");
	check_content(s->shard, 1, "a x 1;first x 1;");
	scene_close_others(s);
	scene_free(s);
}
END_TEST

START_TEST(a_step_of_several_shards_that_fails_does_so_for_each_and_is_done_once_if_nobody_knows)
{
	static const enum trouble troubles[] = {REFUSED, DONE_UNKNOWN, LOST_UNKNOWN};
	struct scene *s = scene_new();
	bool refused = troubles[_i] == REFUSED;

	scene_open_others(s);
	scene_begin(s, troubles[_i]);
	for (int i = 0; i < OTHERS; i++)
		scene_join_at(s, s->others[i], "expected_upper=* new_upper=+1", "* 1 a x;");
	scene_let_go(s);
	for (int i = 0; i < OTHERS; i++) {
		ck_assert_int_eq(s->clients[i].rc, refused ? KV_NOSPACE : KV_OK);
		ck_assert_str_eq(frontiers(s->others[i]), refused ? "0 0" : "0 1");
		if (refused)
			ck_assert_str_eq(s->clients[i].err.msg, "there is no room");
		else
			check_content(s->others[i], 0, "a x 1;");
		ck_assert_int_eq(
			strncmp(verdict(s->others[i], "expected_upper=* new_upper=+1", "* 1 b x;"), "ok", 2),
			0);
		check_sound(s->others[i]);
	}
	scene_close_others(s);
	scene_free(s);
}
END_TEST

START_TEST(who_submits_goes_on_and_each_is_told_once_how_it_ended)
{
	struct scene *s = scene_new();
	struct client *c = s->clients;

	scene_open_others(s);
	client_submit(&c[0], s->shard); /* with nobody there it is over at once */
	ck_assert_uint_eq(c[0].told, 1);
	ck_assert_str_eq(client_said(&c[0]), "ok 0 1 updates=1");
	scene_begin(s, _i == 0 ? NO_TROUBLE : REFUSED);
	for (int i = 1; i <= OTHERS; i++)
		client_submit(&c[i], s->others[i % 2]);
	for (int i = 1; i <= OTHERS; i++)
		ck_assert_uint_eq(c[i].told, 0);
	scene_let_go(s);
	for (int i = 1; i <= OTHERS; i++)
		client_wait_told(&c[i]);
	for (int i = 1; i <= OTHERS; i++)
		ck_assert_int_eq(c[i].rc, _i == 0 ? KV_OK : KV_NOSPACE);
	for (int i = 0; i < 2 && _i == 0; i++)
		check_content(s->others[i], 1, "a x 2;");
	scene_close_others(s);
	for (int i = 0; i <= OTHERS; i++)
		ck_assert_uint_eq(c[i].told, 1);
	scene_free(s); /* which closes the engine: after the last step was left */
}
END_TEST

START_TEST(who_waits_for_his_own_is_not_kept_by_what_others_submit)
{
	struct scene *s = scene_new();
	struct client *c = s->clients;

	scene_open_others(s);
	scene_begin(s, NO_TROUBLE);
	client_submit(&c[0], s->others[0]);
	scene_open_gate(s, 1); /* it is shut again for the step of those who came */
	pthread_join(s->first.thread, NULL);
	ck_ok(s->first.rc, s->first.err);
	ck_assert_uint_eq(c[0].told, 0);
	client_submit(&c[1], s->others[1]);
	scene_open_gate(s, 0);
	client_wait_told(&c[0]);
	client_wait_told(&c[1]);
	check_content(s->others[0], 0, "a x 1;");
	check_content(s->others[1], 0, "a x 1;");
	scene_close_others(s);
	scene_free(s);
}
END_TEST

START_TEST(a_shard_that_is_busy_keeps_no_other_one_waiting)
{
	struct scene *s = scene_new();
	struct client *c = s->clients;

	scene_open_others(s);
	scene_begin(s, NO_TROUBLE);
	client_submit(&c[0], s->others[0]);
	client_submit(&c[1], s->others[1]);
	client_submit(&c[2], s->others[0]);
	pthread_mutex_lock(&s->others[0]->commit_mu);
	scene_let_go(s);
	client_wait_told(&c[1]);
	check_content(s->others[1], 0, "a x 1;");
	ck_assert_uint_eq(c[0].told + c[2].told, 0);
	pthread_mutex_unlock(&s->others[0]->commit_mu);
	client_wait_told(&c[0]);
	client_wait_told(&c[2]);
	check_content(s->others[0], 1, "a x 2;");
	scene_close_others(s);
	scene_free(s);
}
END_TEST

Suite *group_suite(void)
{
	Suite *s = suite_create("group");
	TCase *t = tcase_create("group");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, appends_that_wait_share_the_next_step_in_the_order_they_came);
	tcase_add_test(t, each_of_a_group_is_judged_by_what_those_before_it_left);
	tcase_add_test(t, a_group_that_the_store_refuses_is_not_done_and_each_is_told);
	tcase_add_test(t, who_was_judged_by_what_the_store_then_refused_is_judged_anew);
	tcase_add_test(t, rows_beyond_what_a_shard_keeps_inline_are_no_part_of_a_group);
	tcase_add_loop_test(t, a_group_of_unknown_outcome_is_done_once, 0, 2);
	tcase_add_test(t, more_than_one_step_can_take_share_several);
	tcase_add_test(t, appends_to_several_shards_share_the_next_step);
	tcase_add_loop_test(
		t, a_step_of_several_shards_that_fails_does_so_for_each_and_is_done_once_if_nobody_knows, 0,
		3);
	tcase_add_loop_test(t, who_submits_goes_on_and_each_is_told_once_how_it_ended, 0, 2);
	tcase_add_test(t, who_waits_for_his_own_is_not_kept_by_what_others_submit);
	tcase_add_test(t, a_shard_that_is_busy_keeps_no_other_one_waiting);
	suite_add_tcase(s, t);
	return s;
}
