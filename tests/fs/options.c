/* options.c - what begin takes: tokens, since=, rewrite_ts, `*`, +n; appends that are cut or nothing to do. */
#include "tests/fs/fixture.h"

#define TOKEN_A "token=iaaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
#define TOKEN_B "token=ibbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"

/* One transaction on a fresh descriptor, its verdict, and upper after it. */
static void want_ok(const char *text, const char *want, const char *upper)
{
	int fd = append_open(shard);

	ck_errno(put_all(fd, text, strlen(text)), 0);
	want_verdict(fd, want);
	close(fd);
	want_file(shard, "upper", upper);
}

static void want_error(const char *text, int errnum)
{
	char *before = print_shard(shard), *after;

	ck_errno(txn(shard, text), errnum);
	after = print_shard(shard);
	ck_assert_str_eq(after, before);
	free(before);
	free(after);
}

START_TEST(a_token_is_done_once)
{
	const char again[] = "begin expected_upper=0 new_upper=1 " TOKEN_A "\n0\t1\ta\tb\n0\t1\tc\td\ncommit\n";
	const char recorded[] = "ok lower=0 new_upper=1 seqno=N updates=2\n";

	want_ok(again, recorded, "1\n");
	want_ok(again, recorded, "1\n");
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\te\tf\ncommit\n");
	want_ok(again, recorded, "2\n");
	/* other rows of the same number are not looked at */
	want_ok("begin expected_upper=0 new_upper=1 " TOKEN_A "\n0\t1\tx\ty\n0\t1\tc\td\ncommit\n", recorded, "2\n");
	want_error("begin expected_upper=0 new_upper=1 " TOKEN_A "\n0\t1\ta\tb\ncommit\n", EINVAL);
	want_error("begin expected_upper=0 new_upper=2 " TOKEN_A "\n0\t1\ta\tb\n0\t1\tc\td\ncommit\n", EINVAL);
	want_error("begin lower=0 upper=1 " TOKEN_A "\n0\t1\ta\tb\n0\t1\tc\td\ncommit\n", EINVAL);
	want_file(shard, "snapshot", "1\t1\ta\tb\n1\t1\tc\td\n1\t1\te\tf\n");
	world_stop(&w);
	world_start(&w, NULL);
	want_ok(again, recorded, "2\n");
	world_kill(&w);
	world_start(&w, NULL);
	want_ok(again, recorded, "2\n");
	want_txn(shard, "begin expected_upper=2 new_upper=-\ncommit\n");
	want_ok(again, recorded, "-\n");
}
END_TEST

START_TEST(a_token_makes_blind_appends_safe_to_repeat)
{
	const char again[] = "begin expected_upper=* new_upper=+3 " TOKEN_B "\n*\t1\ta\tb\ncommit\n";

	want_txn(shard, "begin expected_upper=0 new_upper=5\ncommit\n");
	want_ok(again, "ok lower=5 new_upper=8 seqno=N updates=1\n", "8\n");
	want_ok(again, "ok lower=5 new_upper=8 seqno=N updates=1\n", "8\n");
	want_error("begin expected_upper=* new_upper=+2 " TOKEN_B "\n*\t1\ta\tb\ncommit\n", EINVAL);
	want_file(shard, "snapshot", "7\t1\ta\tb\n");
}
END_TEST

START_TEST(a_refused_append_records_no_token)
{
	want_error("begin expected_upper=1 new_upper=2 " TOKEN_A "\n1\t1\ta\tb\ncommit\n", ESTALE);
	want_txn(shard, "begin expected_upper=0 new_upper=1\ncommit\n");
	want_ok("begin expected_upper=1 new_upper=3 " TOKEN_A "\n1\t1\ta\tb\ncommit\n",
		"ok lower=1 new_upper=3 seqno=N updates=1\n", "3\n");
	/* nor does one that had nothing to do */
	want_ok("begin lower=0 upper=2 " TOKEN_B "\n1\t1\ta\tb\ncommit\n", "ok lower=3 new_upper=3 seqno=N updates=0\n",
		"3\n");
	want_ok("begin expected_upper=3 new_upper=4 " TOKEN_B "\n3\t1\tc\td\ncommit\n",
		"ok lower=3 new_upper=4 seqno=N updates=1\n", "4\n");
}
END_TEST

START_TEST(the_last_1024_tokens_are_remembered)
{
	char text[256];
	int fd = append_open(shard);

	for (unsigned i = 0; i < 1025; i++) {
		snprintf(text, sizeof text,
			 "begin expected_upper=* new_upper=+1 token=i00000000-0000-4000-8000-%012x\ncommit\n", i);
		ck_errno(put_all(fd, text, strlen(text)), 0);
	}
	close(fd);
	world_kill(&w);
	world_start(&w, NULL);
	want_ok("begin expected_upper=* new_upper=+1 token=i00000000-0000-4000-8000-000000000001\ncommit\n",
		"ok lower=1 new_upper=2 seqno=N updates=0\n", "1025\n");
	want_ok("begin expected_upper=* new_upper=+1 token=i00000000-0000-4000-8000-000000000000\ncommit\n",
		"ok lower=1025 new_upper=1026 seqno=N updates=0\n", "1026\n");
}
END_TEST

START_TEST(since_moves_with_the_commit)
{
	want_ok("begin expected_upper=0 new_upper=10 since=4\n3\t1\ta\tb\n7\t1\tc\td\ncommit\n",
		"ok lower=0 new_upper=10 seqno=N updates=2\n", "10\n");
	want_file(shard, "since", "4\n");
	want_txn(shard, "begin expected_upper=10 new_upper=10 since=2\ncommit\n");
	want_file(shard, "since", "4\n");
	want_error("begin expected_upper=9 new_upper=11 since=6\ncommit\n", ESTALE);
	want_file(shard, "since", "4\n");
	want_txn(shard, "begin expected_upper=* new_upper=+1 since=-\ncommit\n");
	want_file(shard, "since", "-\n");
}
END_TEST

START_TEST(rewrite_ts_lifts_the_times_below_it)
{
	want_ok("begin expected_upper=0 new_upper=10 rewrite_ts=6\n0\t1\ta\t\n7\t1\tb\t\n5\t1\tc\t\ncommit\n",
		"ok lower=0 new_upper=10 seqno=N updates=3\n", "10\n");
	want_file(shard, "as_of/5", "");
	want_file(shard, "as_of/6", "6\t1\ta\t\n6\t1\tc\t\n");
	want_file(shard, "as_of/7", "7\t1\ta\t\n7\t1\tb\t\n7\t1\tc\t\n");
	want_txn(shard, "begin expected_upper=10 new_upper=12\n10\t1\td\t\ncommit\n"); /* of its own transaction only */
	want_file(shard, "as_of/10", "10\t1\ta\t\n10\t1\tb\t\n10\t1\tc\t\n10\t1\td\t\n");
	/* a row below the lower is lifted into the interval */
	want_txn(shard, "begin expected_upper=12 new_upper=20 rewrite_ts=15\n3\t1\te\t\n18\t1\tf\t\ncommit\n");
	want_file(shard, "as_of/14", "14\t1\ta\t\n14\t1\tb\t\n14\t1\tc\t\n14\t1\td\t\n");
	want_file(shard, "as_of/15", "15\t1\ta\t\n15\t1\tb\t\n15\t1\tc\t\n15\t1\td\t\n15\t1\te\t\n");
	want_error("begin expected_upper=20 new_upper=22 rewrite_ts=21\n22\t1\tg\t\ncommit\n", EINVAL);
}
END_TEST

START_TEST(star_is_the_upper_at_commit)
{
	int fd = append_open(shard);

	want_ok("begin expected_upper=* new_upper=+5\n*\t1\ta\t\n3\t1\tb\t\ncommit\n",
		"ok lower=0 new_upper=5 seqno=N updates=2\n", "5\n");
	/* the upper of the commit, not of the begin */
	ck_assert_int_gt(put(fd, "begin expected_upper=* new_upper=+2\n*\t1\tc\t\n*\t-1\ta\t\n"), 0);
	want_txn(shard, "begin expected_upper=5 new_upper=8\ncommit\n");
	ck_assert_int_gt(put(fd, "commit\n"), 0);
	want_verdict(fd, "ok lower=8 new_upper=10 seqno=N updates=2\n");
	close(fd);
	want_file(shard, "as_of/7", "7\t1\ta\t\n7\t1\tb\t\n");
	want_file(shard, "as_of/8", "8\t1\tb\t\n8\t1\tc\t\n");
	want_file(shard, "batches/8-10", "8\t-1\ta\t\n8\t1\tc\t\n");
	want_ok("begin expected_upper=* new_upper=20 rewrite_ts=*\n0\t1\td\t\n15\t1\te\t\n*\t1\tf\t\ncommit\n",
		"ok lower=10 new_upper=20 seqno=N updates=3\n", "20\n");
	want_file(shard, "as_of/10", "10\t1\tb\t\n10\t1\tc\t\n10\t1\td\t\n10\t1\tf\t\n");
	want_ok("begin expected_upper=* new_upper=-\n*\t1\tg\t\n18446744073709551615\t1\th\t\ncommit\n",
		"ok lower=20 new_upper=- seqno=N updates=2\n", "-\n");
	want_file(shard, "as_of/20", "20\t1\tb\t\n20\t1\tc\t\n20\t1\td\t\n20\t1\te\t\n20\t1\tf\t\n20\t1\tg\t\n");
}
END_TEST

START_TEST(an_append_is_cut_is_nothing_or_has_a_gap)
{
	want_ok("begin lower=0 upper=5\n0\t1\ta\t\n4\t1\tb\t\ncommit\n", "ok lower=0 new_upper=5 seqno=N updates=2\n", "5\n");
	/* the same by another */
	want_ok("begin lower=0 upper=5\n0\t1\ta\t\n4\t1\tb\t\ncommit\n", "ok lower=5 new_upper=5 seqno=N updates=0\n", "5\n");
	want_ok("begin lower=2 upper=4\n3\t1\tx\t\ncommit\n", "ok lower=5 new_upper=5 seqno=N updates=0\n", "5\n");
	/* cut: what lies below the upper is there already */
	want_ok("begin lower=3 upper=8\n3\t1\tcut\t\n4\t1\tcut\t\n5\t1\tc\t\n7\t1\td\t\ncommit\n",
		"ok lower=5 new_upper=8 seqno=N updates=4\n", "8\n");
	want_file(shard, "snapshot", "7\t1\ta\t\n7\t1\tb\t\n7\t1\tc\t\n7\t1\td\t\n");
	want_error("begin lower=9 upper=12\n9\t1\tx\t\ncommit\n", ESTALE);
	/* all of it cut away, but the upper moves */
	want_ok("begin lower=0 upper=9\n1\t1\tcut\t\ncommit\n", "ok lower=8 new_upper=9 seqno=N updates=1\n", "9\n");
	want_file(shard, "snapshot", "8\t1\ta\t\n8\t1\tb\t\n8\t1\tc\t\n8\t1\td\t\n");
	char *rows = want_sh("cat %s/batches/*", shard);

	ck_assert_ptr_null(strstr(rows, "cut"));
	free(rows);
	want_ok("begin lower=9 upper=9\ncommit\n", "ok lower=9 new_upper=9 seqno=N updates=0\n", "9\n");
	want_ok("begin lower=- upper=3\ncommit\n", "ok lower=9 new_upper=9 seqno=N updates=0\n", "9\n");
	want_ok("begin lower=1 upper=-\n20\t1\te\t\ncommit\n", "ok lower=9 new_upper=- seqno=N updates=1\n", "-\n");
	want_ok("begin lower=- upper=-\ncommit\n", "ok lower=- new_upper=- seqno=N updates=0\n", "-\n");
}
END_TEST

START_TEST(a_heartbeat_is_committed)
{
	want_ok("begin expected_upper=0 new_upper=0\ncommit\n", "ok lower=0 new_upper=0 seqno=N updates=0\n", "0\n");
	want_ok("begin expected_upper=0 new_upper=4\ncommit\n", "ok lower=0 new_upper=4 seqno=N updates=0\n", "4\n");
	want_ok("begin expected_upper=4 new_upper=4\ncommit\n", "ok lower=4 new_upper=4 seqno=N updates=0\n", "4\n");
	want_file(shard, "snapshot", "");
}
END_TEST

START_TEST(rows_that_cancel_and_zeros_leave_nothing)
{
	want_ok("begin expected_upper=0 new_upper=1\n0\t+0\tz\t\n0\t5\ta\t\n0\t-5\ta\t\n0\t-0\ty\t\ncommit\n",
		"ok lower=0 new_upper=1 seqno=N updates=4\n", "1\n");
	want_file(shard, "snapshot", "");
	want_file(shard, "batches/0-1", "");
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t+7\ta\t\n1\t-9223372036854775808\tb\t\ncommit\n");
	want_file(shard, "snapshot", "1\t7\ta\t\n1\t-9223372036854775808\tb\t\n");
}
END_TEST

START_TEST(the_policy_upper_minus_n_follows_the_upper)
{
	char *since = check_path(shard, "since");

	want_txn(shard, "begin expected_upper=0 new_upper=10\ncommit\n");
	ck_errno(write_once(since, "upper-3\n"), 0);
	want_file(shard, "since", "7\n");
	want_txn(shard, "begin expected_upper=10 new_upper=12\ncommit\n");
	want_file(shard, "since", "9\n");
	ck_errno(write_once(since, "upper-100"), 0);
	want_file(shard, "since", "9\n");
	want_txn(shard, "begin expected_upper=12 new_upper=50\ncommit\n");
	want_file(shard, "since", "9\n");
	want_txn(shard, "begin expected_upper=50 new_upper=120\ncommit\n");
	want_file(shard, "since", "20\n");
	world_kill(&w);
	world_start(&w, NULL);
	want_txn(shard, "begin expected_upper=120 new_upper=130\ncommit\n");
	want_file(shard, "since", "30\n");
	ck_errno(write_once(since, "40"), 0); /* ends the policy */
	want_txn(shard, "begin expected_upper=130 new_upper=200\ncommit\n");
	want_file(shard, "since", "40\n");
	ck_errno(write_once(since, "upper-5"), 0);
	want_txn(shard, "begin expected_upper=200 new_upper=-\ncommit\n");
	want_file(shard, "since", "195\n");
	ck_errno(write_once(since, "-\n"), 0);
	want_file(shard, "since", "-\n");
	free(since);
}
END_TEST

Suite *options_suite(void)
{
	Suite *s = suite_create("options");
	TCase *tc = shard_case(s, "options", 120);

	tcase_add_test(tc, a_token_is_done_once);
	tcase_add_test(tc, a_token_makes_blind_appends_safe_to_repeat);
	tcase_add_test(tc, a_refused_append_records_no_token);
	tcase_add_test(tc, the_last_1024_tokens_are_remembered);
	tcase_add_test(tc, since_moves_with_the_commit);
	tcase_add_test(tc, rewrite_ts_lifts_the_times_below_it);
	tcase_add_test(tc, star_is_the_upper_at_commit);
	tcase_add_test(tc, an_append_is_cut_is_nothing_or_has_a_gap);
	tcase_add_test(tc, a_heartbeat_is_committed);
	tcase_add_test(tc, rows_that_cancel_and_zeros_leave_nothing);
	tcase_add_test(tc, the_policy_upper_minus_n_follows_the_upper);
	return s;
}
