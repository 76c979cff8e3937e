/*
 * test_transition.c - what each append and each other change answers, word by
 * word, in the order of the checks that docs/engine.md gives.
 *
 * A case is a script on a new shard: appends and what they answer, "hold" lines
 * "since=5" or "follow=2", "=> since upper". What is refused must change nothing.
 */
#include "tests/core/suites.h"
#include "tests/core/world.h"

struct step {
	const char *options; /* of an append; "since <f>" and "follow <n>" move the hold */
	const char *rows;
	const char *want;  /* the verdict */
	const char *after; /* "since upper", or NULL: as before */
};

struct script {
	const char *promise;
	struct step steps[9];
};

static const struct script scripts[] = {
	{"compare-and-append at the upper commits",
	 {{"expected_upper=0 new_upper=3", "1 1 a x;2 1 b y;", "ok 0 3 updates=2", "0 3"},
	  {"expected_upper=3 new_upper=4", "3 -1 a x;", "ok 3 4 updates=1", "0 4"}}},
	{"another upper is a mismatch that tells both",
	 {{"expected_upper=0 new_upper=3", "", "ok 0 3 updates=0", "0 3"},
	  {"expected_upper=0 new_upper=5", "1 1 a x;", "UpperMismatch expected_upper=0 current_upper=3",
	   NULL},
	  {"expected_upper=5 new_upper=7", "5 1 a x;", "UpperMismatch expected_upper=5 current_upper=3",
	   NULL}}},
	{"the vectors of the study",
	 {{"expected_upper=4 new_upper=5", "3 1 a x;", "UpdateNotBeyondLower time=3 lower=4", NULL},
	  {"expected_upper=2 new_upper=3", "3 1 a x;", "UpdateBeyondUpper time=3 upper=3", NULL},
	  {"expected_upper=3 new_upper=2", "", "InvalidBounds lower=3 upper=2", NULL},
	  {"expected_upper=3 new_upper=3", "3 1 a x;", "InvalidEmptyTimeInterval lower=3 upper=3", NULL},
	  {"expected_upper=0 new_upper=5", "", "ok 0 5 updates=0", "0 5"},
	  {"expected_upper=5 new_upper=5", "", "ok 5 5 updates=0", "0 5"}}},
	{"invalid usage is said before a mismatch",
	 {{"expected_upper=9 new_upper=8", "", "InvalidBounds lower=9 upper=8", NULL},
	  {"expected_upper=9 new_upper=9", "9 1 a x;", "InvalidEmptyTimeInterval lower=9 upper=9", NULL},
	  {"expected_upper=9 new_upper=12", "8 1 a x;", "UpdateNotBeyondLower time=8 lower=9", NULL},
	  {"expected_upper=9 new_upper=12 rewrite_ts=8", "", "InvalidRewrite rewrite_ts=8 lower=9 upper=12",
	   NULL},
	  {"lower=9 upper=8", "", "InvalidBounds lower=9 upper=8", NULL}}},
	{"a heartbeat needs the upper",
	 {{"expected_upper=0 new_upper=0", "", "ok 0 0 updates=0", "0 0"},
	  {"expected_upper=1 new_upper=1", "", "UpperMismatch expected_upper=1 current_upper=0", NULL},
	  {"expected_upper=0 new_upper=0", "0 0 a x;", "ok 0 0 updates=1", "0 0"}}},
	{"rows that cancel out are counted and leave nothing",
	 {{"expected_upper=0 new_upper=2", "1 1 a x;1 -1 a x;1 0 b y;", "ok 0 2 updates=3", "0 2"}}},
	{"the empty frontier is never the expected one",
	 {{"expected_upper=- new_upper=-", "", "UpperMismatch expected_upper=- current_upper=0", NULL},
	  {"expected_upper=- new_upper=3", "1 1 a x;", "UpperMismatch expected_upper=- current_upper=0",
	   NULL},
	  {"lower=- upper=-", "", "UpperMismatch lower=- current_upper=0", NULL},
	  {"expected_upper=0 new_upper=4", "", "ok 0 4 updates=0", "0 4"},
	  {"lower=- upper=3", "", "same 4 4 updates=0", NULL},
	  {"lower=- upper=5", "", "UpperMismatch lower=- current_upper=4", NULL}}},
	{"finishing with data",
	 {{"expected_upper=0 new_upper=-", "18446744073709551615 1 a x;7 1 b y;", "ok 0 - updates=2", "0 -"},
	  {"expected_upper=0 new_upper=1", "", "UpperMismatch expected_upper=0 current_upper=-", NULL},
	  {"expected_upper=- new_upper=-", "", "UpperMismatch expected_upper=- current_upper=-", NULL},
	  {"expected_upper=* new_upper=+1", "", "UpperMismatch expected_upper=* current_upper=-", NULL},
	  {"expected_upper=* new_upper=-", "", "UpperMismatch expected_upper=* current_upper=-", NULL},
	  {"lower=0 upper=9", "3 1 a x;", "same - - updates=0", NULL},
	  {"lower=0 upper=-", "3 1 a x;", "same - - updates=0", NULL},
	  {"lower=- upper=-", "", "same - - updates=0", NULL}}},
	{"finishing without data",
	 {{"expected_upper=0 new_upper=3", "1 1 a x;", "ok 0 3 updates=1", "0 3"},
	  {"expected_upper=3 new_upper=-", "", "ok 3 - updates=0", "0 -"},
	  {"expected_upper=3 new_upper=-", "", "UpperMismatch expected_upper=3 current_upper=-", NULL}}},
	{"finishing with a star",
	 {{"expected_upper=0 new_upper=3", "1 1 a x;", "ok 0 3 updates=1", "0 3"},
	  {"expected_upper=* new_upper=-", "* 1 b y;", "ok 3 - updates=1", "0 -"}}},
	{"the last time needs the empty upper",
	 {{"expected_upper=0 new_upper=18446744073709551615", "18446744073709551615 1 a x;",
	   "UpdateBeyondUpper time=18446744073709551615 upper=18446744073709551615", NULL},
	  {"expected_upper=0 new_upper=18446744073709551615", "18446744073709551614 1 a x;",
	   "ok 0 18446744073709551615 updates=1", "0 18446744073709551615"},
	  {"expected_upper=* new_upper=+1", "", "InvalidBounds current_upper=18446744073709551615 plus=1",
	   NULL},
	  {"expected_upper=* new_upper=-", "* 1 a x;", "ok 18446744073709551615 - updates=1", "0 -"}}},
	{"an idempotent append is cut to what is new",
	 {{"lower=0 upper=3", "0 1 a x;2 1 b y;", "ok 0 3 updates=2", "0 3"},
	  {"lower=0 upper=5", "0 1 a x;2 1 b y;4 1 c z;", "ok 3 5 updates=3", "0 5"},
	  {"lower=3 upper=6", "3 1 q x;5 1 d z;", "ok 5 6 updates=2", "0 6"},
	  {"lower=0 upper=6", "0 1 a x;", "same 6 6 updates=0", NULL},
	  {"lower=2 upper=4", "", "same 6 6 updates=0", NULL},
	  {"lower=7 upper=8", "7 1 a x;", "UpperMismatch lower=7 current_upper=6", NULL},
	  {"lower=6 upper=6", "", "same 6 6 updates=0", NULL},
	  {"lower=0 upper=-", "6 1 e z;", "ok 6 - updates=1", "0 -"}}},
	{"a no-op append remembers no token",
	 {{"lower=0 upper=3", "", "ok 0 3 updates=0", "0 3"},
	  {"lower=0 upper=2 token=1", "", "same 3 3 updates=0", NULL},
	  {"lower=0 upper=4 token=1", "3 1 a x;", "ok 3 4 updates=1", "0 4"},
	  {"lower=0 upper=4 token=1", "3 1 a x;", "same 3 4 updates=1", NULL}}},
	{"a star takes whatever the upper is",
	 {{"expected_upper=* new_upper=+2", "* 1 a x;", "ok 0 2 updates=1", "0 2"},
	  {"expected_upper=* new_upper=+1", "* 1 a x;", "ok 2 3 updates=1", "0 3"},
	  {"expected_upper=* new_upper=9", "* 1 a x;8 1 b y;", "ok 3 9 updates=2", "0 9"},
	  {"expected_upper=* new_upper=9", "", "UpperMismatch expected_upper=* current_upper=9", NULL},
	  {"expected_upper=* new_upper=4", "", "UpperMismatch expected_upper=* current_upper=9", NULL},
	  {"expected_upper=* new_upper=+1", "8 1 a x;", "UpdateNotBeyondLower time=8 lower=9", NULL},
	  {"expected_upper=* new_upper=+1", "10 1 a x;", "UpdateBeyondUpper time=10 upper=10", NULL},
	  {"expected_upper=* new_upper=11", "11 1 a x;", "UpdateBeyondUpper time=11 upper=11", NULL},
	  {"expected_upper=0 new_upper=11", "* 1 a x;", "BadSyntax", NULL}}},
	{"an absolute rewrite lies within the bounds",
	 {{"expected_upper=0 new_upper=5 rewrite_ts=5", "", "InvalidRewrite rewrite_ts=5 lower=0 upper=5",
	   NULL},
	  {"expected_upper=2 new_upper=5 rewrite_ts=1", "", "InvalidRewrite rewrite_ts=1 lower=2 upper=5",
	   NULL},
	  {"expected_upper=0 new_upper=0 rewrite_ts=0", "", "InvalidRewrite rewrite_ts=0 lower=0 upper=0",
	   NULL},
	  {"expected_upper=0 new_upper=5 rewrite_ts=4", "0 1 a x;4 1 b y;", "ok 0 5 updates=2", "0 5"},
	  {"expected_upper=5 new_upper=8 rewrite_ts=6", "1 1 a x;7 1 b y;", "ok 5 8 updates=2", "0 8"},
	  {"expected_upper=8 new_upper=9 rewrite_ts=8", "9 1 a x;", "UpdateBeyondUpper time=9 upper=9", NULL},
	  {"expected_upper=* new_upper=9 rewrite_ts=9", "", "InvalidRewrite rewrite_ts=9 lower=0 upper=9",
	   NULL},
	  {"expected_upper=* new_upper=+2 rewrite_ts=7", "", "InvalidRewrite rewrite_ts=7 lower=8 upper=10",
	   NULL},
	  {"expected_upper=* new_upper=+2 rewrite_ts=9", "* 1 a x;3 1 b y;", "ok 8 10 updates=2", "0 10"}}},
	{"rewrite_ts=* lifts everything to the upper",
	 {{"expected_upper=0 new_upper=5", "", "ok 0 5 updates=0", "0 5"},
	  {"expected_upper=* new_upper=+2 rewrite_ts=*", "0 1 a x;6 1 b y;* 1 c z;", "ok 5 7 updates=3",
	   "0 7"},
	  {"expected_upper=* new_upper=+1 rewrite_ts=*", "8 1 a x;", "UpdateBeyondUpper time=8 upper=8",
	   NULL}}},
	{"a token gives the recorded success again",
	 {{"expected_upper=0 new_upper=3 token=1", "1 1 a x;", "ok 0 3 updates=1", "0 3"},
	  {"expected_upper=3 new_upper=4", "", "ok 3 4 updates=0", "0 4"},
	  {"expected_upper=0 new_upper=3 token=1", "1 1 a x;", "same 0 3 updates=1", NULL},
	  {"expected_upper=0 new_upper=3 token=1", "1 1 a x;2 1 b x;", "TokenReused updates=1", NULL},
	  {"expected_upper=0 new_upper=4 token=1", "1 1 a x;", "TokenReused updates=1", NULL},
	  {"expected_upper=4 new_upper=5 token=1", "4 1 a x;", "TokenReused updates=1", NULL},
	  {"lower=0 upper=3 token=1", "1 1 a x;", "TokenReused updates=1", NULL},
	  {"expected_upper=* new_upper=3 token=1", "1 1 a x;", "TokenReused updates=1", NULL},
	  {"expected_upper=4 new_upper=3 token=1", "", "InvalidBounds lower=4 upper=3", NULL}}},
	{"a token is known before finishing, stars and rewrites are looked at",
	 {{"expected_upper=* new_upper=+1 token=1 rewrite_ts=*", "* 1 a x;", "ok 0 1 updates=1", "0 1"},
	  {"expected_upper=1 new_upper=- token=2", "", "ok 1 - updates=0", "0 -"},
	  {"expected_upper=* new_upper=+1 token=1 rewrite_ts=*", "* 1 a x;", "same 0 1 updates=1", NULL},
	  {"expected_upper=1 new_upper=- token=2", "", "same 1 - updates=0", NULL},
	  {"expected_upper=* new_upper=+1 token=1", "* 1 a x;", "same 0 1 updates=1", NULL},
	  {"expected_upper=1 new_upper=- token=3", "", "UpperMismatch expected_upper=1 current_upper=-",
	   NULL}}},
	{"a refused append leaves its token unused",
	 {{"expected_upper=1 new_upper=2 token=1", "", "UpperMismatch expected_upper=1 current_upper=0",
	   NULL},
	  {"expected_upper=0 new_upper=2 token=1", "", "ok 0 2 updates=0", "0 2"}}},
	{"a heartbeat remembers its token",
	 {{"expected_upper=0 new_upper=0 token=1", "", "ok 0 0 updates=0", NULL},
	  {"expected_upper=0 new_upper=0 token=1", "", "same 0 0 updates=0", NULL}}},
	{"the since option moves the default hold in the same commit",
	 {{"expected_upper=0 new_upper=3 since=2", "1 1 a x;", "ok 0 3 updates=1", "2 3"},
	  {"expected_upper=3 new_upper=4 since=1", "", "ok 3 4 updates=0", "2 4"},
	  {"expected_upper=4 new_upper=4 since=9", "", "ok 4 4 updates=0", "9 4"},
	  {"expected_upper=0 new_upper=4 since=99", "", "UpperMismatch expected_upper=0 current_upper=4",
	   NULL},
	  {"lower=0 upper=4 since=99", "", "same 4 4 updates=0", NULL},
	  {"expected_upper=4 new_upper=- since=-", "", "ok 4 - updates=0", "- -"}}},
	{"a hold that follows moves inside each append",
	 {{"expected_upper=0 new_upper=3", "", "ok 0 3 updates=0", "0 3"},
	  {"follow 2", "", "Ok", "1 3"},
	  {"expected_upper=3 new_upper=10", "", "ok 3 10 updates=0", "8 10"},
	  {"follow 100", "", "Ok", "8 10"},
	  {"expected_upper=10 new_upper=90", "", "ok 10 90 updates=0", "8 90"},
	  {"expected_upper=90 new_upper=120", "", "ok 90 120 updates=0", "20 120"},
	  {"since 30", "", "Ok", "30 120"},
	  {"expected_upper=120 new_upper=900", "", "ok 120 900 updates=0", "30 900"}}},
	{"a hold that follows stays when the shard finishes",
	 {{"follow 1", "", "Ok", "0 0"},
	  {"expected_upper=0 new_upper=5", "", "ok 0 5 updates=0", "4 5"},
	  {"expected_upper=5 new_upper=-", "", "ok 5 - updates=0", "4 -"},
	  {"since -", "", "Ok", "- -"}}},
	{"the since option ends the policy",
	 {{"follow 1", "", "Ok", "0 0"},
	  {"expected_upper=0 new_upper=5 since=2", "", "ok 0 5 updates=0", "4 5"},
	  {"expected_upper=5 new_upper=9", "", "ok 5 9 updates=0", "4 9"}}},
	{"a hold never goes back",
	 {{"since 5", "", "Ok", "5 0"},
	  {"since 3", "", "Ok", NULL},
	  {"since -", "", "Ok", "- 0"},
	  {"since 9", "", "Ok", NULL}}},
};

static struct core_info look(struct core_shard *s)
{
	struct core_info info;
	struct kv_err err;

	ck_ok(core_shard_info(s, true, &info, &err), err);
	return info;
}

static enum kv_rc hold_step(struct core_shard *s, const char *words)
{
	struct core_frontier f = core_frontier_at(0);
	uint64_t follow = 0;
	struct kv_err err;

	if (strncmp(words, "follow ", 7) == 0)
		follow = strtoull(words + 7, NULL, 10);
	else
		ck_assert(core_frontier_parse(words + 6, strlen(words + 6), &f));
	return core_shard_move_hold(s, CORE_DEFAULT_HOLD, f, follow, &err);
}

START_TEST(every_answer_is_the_contract_s)
{
	const struct script *script = &scripts[_i];
	struct rig rig = rig_new(_i % 2 == 0 ? DISK_MEM : DISK_SHARED);

	for (size_t i = 0; i < 9 && script->steps[i].options != NULL; i++) {
		const struct step *step = &script->steps[i];
		bool hold = strchr(step->options, '=') == NULL;
		uint64_t before = look(rig.shard).seqno;
		char was[64];
		const char *got;

		snprintf(was, sizeof(was), "%s", frontiers(rig.shard));
		got = hold ? kv_rc_name(hold_step(rig.shard, step->options))
			   : verdict(rig.shard, step->options, step->rows);
		ck_assert_msg(strcmp(got, step->want) == 0, "%s: step %zu, %s: got \"%s\", not \"%s\"",
			      script->promise, i, step->options, got, step->want);
		got = frontiers(rig.shard);
		ck_assert_msg(strcmp(got, step->after != NULL ? step->after : was) == 0,
			      "%s: step %zu: frontiers %s", script->promise, i, got);
		if (!hold)
			ck_assert_msg(look(rig.shard).seqno == before + (strncmp(step->want, "ok", 2) == 0),
				      "%s: step %zu: versions", script->promise, i);
	}
	check_sound(rig.shard);
	rig_free(&rig);
}
END_TEST

START_TEST(rows_are_where_stars_rewrites_and_cuts_put_them)
{
	struct rig rig = rig_new(DISK_MEM);

	verdict(rig.shard, "expected_upper=0 new_upper=5", "");
	verdict(rig.shard, "expected_upper=* new_upper=+3 rewrite_ts=*", "1 1 low x;6 1 mid x;* 1 star x;");
	verdict(rig.shard, "expected_upper=* new_upper=+2", "* 1 star y;9 1 late y;");
	verdict(rig.shard, "expected_upper=10 new_upper=20 rewrite_ts=15", "3 1 low z;17 1 late z;");
	verdict(rig.shard, "lower=0 upper=25", "3 1 cut q;19 1 cut q;20 1 new q;");
	check_content(rig.shard, 4, "");
	check_content(rig.shard, 5, "low x 1;star x 1;");
	check_content(rig.shard, 6, "low x 1;mid x 1;star x 1;");
	check_content(rig.shard, 8, "low x 1;mid x 1;star x 1;star y 1;");
	check_content(rig.shard, 9, "late y 1;low x 1;mid x 1;star x 1;star y 1;");
	check_content(rig.shard, 14, "late y 1;low x 1;mid x 1;star x 1;star y 1;");
	check_content(rig.shard, 15, "late y 1;low x 1;low z 1;mid x 1;star x 1;star y 1;");
	check_content(rig.shard, 20, "late y 1;late z 1;low x 1;low z 1;mid x 1;new q 1;star x 1;star y 1;");
	rig_free(&rig);
}
END_TEST

START_TEST(neighbouring_empty_batches_are_one)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_state state;
	struct kv_err err;

	verdict(rig.shard, "expected_upper=0 new_upper=2", "");
	verdict(rig.shard, "expected_upper=2 new_upper=4", "");
	verdict(rig.shard, "expected_upper=4 new_upper=5", "4 1 a x;");
	verdict(rig.shard, "expected_upper=5 new_upper=6", "5 1 a x;5 -1 a x;");
	verdict(rig.shard, "expected_upper=6 new_upper=6", "");
	verdict(rig.shard, "expected_upper=6 new_upper=-", "");
	ck_ok(core_shard_state(rig.shard, &state, &err), err);
	ck_assert_uint_eq(state.batch_count, 3);
	ck_assert_uint_eq(state.batches[0]->upper.t, 4);
	ck_assert_uint_eq(state.batches[2]->lower.t, 5);
	ck_assert(state.batches[2]->upper.empty);
	core_state_fini(&state);
	rig_free(&rig);
}
END_TEST

START_TEST(a_staged_name_nobody_made_is_unknown_after_tokens_and_before_the_upper)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_append ask = parse_ask("expected_upper=7 new_upper=9");
	struct core_appended r;
	struct core_txn *t;
	struct kv_err err;

	ck_ok(core_txn_begin(rig.shard, &ask, &t, &err), err);
	ck_ok(core_txn_add_staged(t, "mine", &err), err);
	ck_assert_int_eq(core_txn_add_staged(t, "mine", &err), KV_BAD_SYNTAX);
	ck_assert_int_eq(core_txn_commit(t, &r, &err), KV_NO_BATCH);
	ck_assert_str_eq(err.detail, "batch=mine");
	core_txn_free(t);
	rig_free(&rig);
}
END_TEST

START_TEST(only_a_finished_shard_without_holds_can_be_removed)
{
	struct rig rig = rig_new(DISK_MEM);
	struct kv_err err;

	ck_assert_int_eq(core_shard_remove(rig.shard, &err), KV_NOT_FINISHED);
	verdict(rig.shard, "expected_upper=0 new_upper=-", "");
	ck_assert_int_eq(core_shard_remove(rig.shard, &err), KV_NOT_FINISHED);
	hold_step(rig.shard, "since -");
	ck_ok(core_shard_remove(rig.shard, &err), err);
	ck_assert_int_eq(core_shard_remove(rig.shard, &err), KV_NO_SHARD);
	ck_assert_int_eq(hold_step(rig.shard, "since -"), KV_NO_SHARD);
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=1", ""), "UnknownShard");
	rig_free(&rig);
}
END_TEST

START_TEST(a_hold_nobody_made_is_not_found)
{
	struct rig rig = rig_new(DISK_MEM);
	struct kv_err err;

	ck_assert_int_eq(core_shard_move_hold(rig.shard, "other", core_frontier_at(3), 0, &err), KV_NOTFOUND);
	rig_free(&rig);
}
END_TEST

/* The pure function on a tombstone, which the machine never shows it. */
START_TEST(a_tombstone_answers_as_a_finished_shard)
{
	struct core_append ask = parse_ask("expected_upper=0 new_upper=1");
	struct core_state s;
	struct core_diff d;
	struct core_appended r;
	struct kv_err err;
	bool changed;

	ck_ok(core_state_init(&s, 5, 1, any_owner, &err), err);
	s.tombstone = true;
	core_diff_init(&d);
	ck_assert_int_eq(core_do_append(&s, &ask, &d, &r, &err), KV_UPPER_MISMATCH);
	ck_assert_str_eq(err.detail, "expected_upper=0 current_upper=-");
	ck_assert_int_eq(core_do_hold(&s, "default", core_frontier_at(1), 0, &d, &changed, &err),
			 KV_NO_SHARD);
	ck_assert_int_eq(core_do_owner(&s, any_owner, &d, &err), KV_NO_SHARD);
	ck_assert_int_eq(core_do_remove(&s, &d, &err), KV_NO_SHARD);
	core_diff_fini(&d);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_rollup_not_newer_than_the_last_is_refused)
{
	struct core_rollup rollup = {.seqno = 5, .key = "s/v5/n"};
	struct core_state s;
	struct core_diff d;
	struct kv_err err;

	ck_ok(core_state_init(&s, 5, 1, any_owner, &err), err);
	core_diff_init(&d);
	ck_ok(core_do_rollup(&s, &rollup, &d, &err), err);
	ck_ok(core_state_apply(&s, &d, &err), err);
	core_diff_fini(&d);
	ck_assert_int_eq(core_do_rollup(&s, &rollup, &d, &err), KV_EXISTS);
	core_diff_fini(&d);
	core_state_fini(&s);
}
END_TEST

Suite *transition_suite(void)
{
	Suite *s = suite_create("transition");
	TCase *t = tcase_create("transition");

	tcase_add_loop_test(t, every_answer_is_the_contract_s, 0, sizeof(scripts) / sizeof(scripts[0]));
	tcase_add_test(t, rows_are_where_stars_rewrites_and_cuts_put_them);
	tcase_add_test(t, neighbouring_empty_batches_are_one);
	tcase_add_test(t, a_staged_name_nobody_made_is_unknown_after_tokens_and_before_the_upper);
	tcase_add_test(t, only_a_finished_shard_without_holds_can_be_removed);
	tcase_add_test(t, a_hold_nobody_made_is_not_found);
	tcase_add_test(t, a_tombstone_answers_as_a_finished_shard);
	tcase_add_test(t, a_rollup_not_newer_than_the_last_is_refused);
	suite_add_tcase(s, t);
	return s;
}
