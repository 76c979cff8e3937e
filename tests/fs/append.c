/* append.c - what an append is refused for: errno, verdict, line in errors, and that nothing else changed. */
#include "tests/fs/fixture.h"

struct refusal {
	const char *text;
	int errnum;
	const char *verdict; /* how it begins */
};

#define BAD "error BadSyntax errno=EINVAL "

/* On a shard whose upper is 5. */
static const struct refusal refusals[] = {
	/* the upper */
	{"begin expected_upper=0 new_upper=6\n5\t1\ta\tb\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=0 current_upper=5 message=\""},
	{"begin expected_upper=6 new_upper=7\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=6 current_upper=5 message=\""},
	{"begin expected_upper=4 new_upper=4\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=4 current_upper=5 message=\""},
	{"begin expected_upper=- new_upper=7\n5\t1\ta\tb\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=- current_upper=5 message=\""},
	{"begin expected_upper=- new_upper=-\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=- current_upper=5 message=\""},
	{"begin expected_upper=* new_upper=5\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=* current_upper=5 message=\""},
	{"begin expected_upper=* new_upper=4\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=* current_upper=5 message=\""},
	{"begin lower=6 upper=7\n6\t1\ta\tb\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE lower=6 current_upper=5 message=\""},
	{"begin lower=- upper=-\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE lower=- current_upper=5 message=\""},
	{"begin lower=- upper=6\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE lower=- current_upper=5 message=\""},
	/* the inputs alone */
	{"begin expected_upper=5 new_upper=3\ncommit\n", EINVAL,
	 "error InvalidBounds errno=EINVAL lower=5 upper=3 message=\""},
	{"begin lower=7 upper=6\ncommit\n", EINVAL, "error InvalidBounds errno=EINVAL lower=7 upper=6 message=\""},
	{"begin expected_upper=5 new_upper=8\n4\t1\ta\tb\ncommit\n", EINVAL,
	 "error UpdateNotBeyondLower errno=EINVAL time=4 lower=5 message=\""},
	{"begin expected_upper=5 new_upper=8\n8\t1\ta\tb\ncommit\n", EINVAL,
	 "error UpdateBeyondUpper errno=EINVAL time=8 upper=8 message=\""},
	{"begin lower=5 upper=8\n9\t1\ta\tb\ncommit\n", EINVAL,
	 "error UpdateBeyondUpper errno=EINVAL time=9 upper=8 message=\""},
	{"begin lower=2 upper=8\n1\t1\ta\tb\ncommit\n", EINVAL,
	 "error UpdateNotBeyondLower errno=EINVAL time=1 lower=2 message=\""},
	{"begin expected_upper=* new_upper=+2\n7\t1\ta\tb\ncommit\n", EINVAL,
	 "error UpdateBeyondUpper errno=EINVAL time=7 upper=7 message=\""},
	{"begin expected_upper=* new_upper=+2\n4\t1\ta\tb\ncommit\n", EINVAL,
	 "error UpdateNotBeyondLower errno=EINVAL time=4 lower=5 message=\""},
	{"begin expected_upper=5 new_upper=5\n5\t1\ta\tb\ncommit\n", EINVAL, "error InvalidEmptyTimeInterval errno=EINVAL "},
	{"begin lower=5 upper=5\n5\t1\ta\tb\ncommit\n", EINVAL, "error InvalidEmptyTimeInterval errno=EINVAL "},
	{"begin expected_upper=5 new_upper=8 rewrite_ts=4\ncommit\n", EINVAL,
	 "error InvalidRewrite errno=EINVAL rewrite_ts=4 lower=5 upper=8 message=\""},
	{"begin expected_upper=5 new_upper=8 rewrite_ts=8\n5\t1\ta\tb\ncommit\n", EINVAL,
	 "error InvalidRewrite errno=EINVAL rewrite_ts=8 lower=5 upper=8 message=\""},
	{"begin expected_upper=* new_upper=+1 rewrite_ts=9\n5\t1\ta\tb\ncommit\n", EINVAL,
	 "error InvalidRewrite errno=EINVAL rewrite_ts=9 lower=5 upper=6 message=\""},
	{"begin expected_upper=* new_upper=+18446744073709551615\ncommit\n", EINVAL,
	 "error InvalidBounds errno=EINVAL current_upper=5 plus=18446744073709551615 message=\""},
	{"begin expected_upper=5 new_upper=8 token=i11111111-1111-4111-8111-111111111111\n5\t1\ta\tb\ncommit\n", EINVAL,
	 "error TokenReused errno=EINVAL updates=2 message=\""},
	/* a batch that is not there */
	{"begin expected_upper=5 new_upper=8\nbatch nothing\ncommit\n", ENOENT,
	 "error UnknownBatch errno=ENOENT batch=nothing message=\""},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\tb\nbatch some.thing-2\ncommit\n", ENOENT,
	 "error UnknownBatch errno=ENOENT batch=some.thing-2 message=\""},
	/* not in the grammar */
	{"begin expected_upper=5 new_upper=8\nbatch a\nbatch a\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\nbatch 5-6\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\nbatch \ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\nbatch\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\nbatch a b\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\nbegin expected_upper=5 new_upper=8\ncommit\n", EINVAL, BAD},
	{"begin lower=* upper=8\ncommit\n", EINVAL, BAD},
	{"begin lower=5 upper=*\ncommit\n", EINVAL, BAD},
	{"begin lower=5 upper=+1\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=+1\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=* new_upper=+0\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=* new_upper=+\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=* new_upper=*\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=* new_upper=+18446744073709551616\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n*\t1\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin lower=5 upper=8\n*\t1\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 rewrite_ts=*\n5\t1\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 rewrite_ts=x\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 rewrite_ts=-\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 since=upper-1\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 since=\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 token=11111111-1111-4111-8111-111111111111\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 token=i1\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 colour=red\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8 \ncommit\n", EINVAL, BAD},
	{"begin  expected_upper=5 new_upper=8\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5\tnew_upper=8\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\r\ncommit\r\n", EINVAL, BAD},
	{"begin expected_upper=5 expected_upper=5 new_upper=8\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5\ncommit\n", EINVAL, BAD},
	{"begin new_upper=5\ncommit\n", EINVAL, BAD},
	{"begin lower=5\ncommit\n", EINVAL, BAD},
	{"begin\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 upper=8\ncommit\n", EINVAL, BAD},
	{"begin lower=5 upper=8 expected_upper=5 new_upper=8\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=08\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=+8\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=18446744073709551616\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=-1 new_upper=8\ncommit\n", EINVAL, BAD},
	{"begin expected_upper= new_upper=8\ncommit\n", EINVAL, BAD},
	{"commit\n", EINVAL, BAD},
	{"5\t1\ta\tb\n", EINVAL, BAD},
	{"batch a\n", EINVAL, BAD},
	{"\n", EINVAL, BAD},
	{"hello\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\ncommit \n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\nCOMMIT\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\tb\tc\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5 1 a b\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\tx\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t9223372036854775808\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t-9223372036854775809\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n05\t1\ta\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\\q\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\tb\\\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\\N\tb\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\t\\x\ncommit\n", EINVAL, BAD},
	{"begin expected_upper=5 new_upper=8\n5\t1\ta\t\\400\ncommit\n", EINVAL, BAD},
};

static void make_upper_5(void)
{
	want_txn(shard, "begin expected_upper=0 new_upper=5 token=i11111111-1111-4111-8111-111111111111\n"
			"0\t1\tone\tx\n4\t2\ttwo\ty\ncommit\n");
}

/* Refused as r says, and nothing but `errors` tells of it. */
static void want_refusal(const char *dir, const struct refusal *r)
{
	char *before = print_shard(dir), *after, *got, *line;
	int fd = append_open(dir);
	ssize_t n = put(fd, r->text);

	ck_assert_msg(n == -r->errnum, "%s: write gives %zd (%s), not %s", r->text, n,
		      n < 0 ? strerrorname_np((int)-n) : "worked", strerrorname_np(r->errnum));
	got = verdict(fd);
	ck_assert_msg(strncmp(got, r->verdict, strlen(r->verdict)) == 0, "%s: verdict %s, not %s", r->text, got,
		      r->verdict);
	ck_assert_msg(count_lines(got) == 1 && strcmp(got + strlen(got) - 2, "\"\n") == 0, "%s: %s", r->text, got);
	ck_assert_msg(strstr(got, "message=\"\"") == NULL, "%s: no message: %s", r->text, got);
	want_verdict(fd, "");
	got[strlen(got) - 1] = '\0';
	line = last_error(dir);
	ck_assert_str_eq(line, got + strlen("error "));
	free(line);
	/* the same again, and at close nothing more */
	ck_assert_int_eq(put(fd, r->text), -r->errnum);
	close(fd);
	line = last_error(dir);
	ck_assert_str_eq(line, got + strlen("error "));
	after = print_shard(dir);
	ck_assert_msg(strcmp(before, after) == 0, "%s: left a trace: %s was %s", r->text, after, before);
	free(line);
	free(got);
	free(before);
	free(after);
}

START_TEST(each_refusal_has_its_errno_verdict_and_line_and_leaves_no_trace)
{
	make_upper_5();
	for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
		want_refusal(shard, &refusals[i]);
}
END_TEST

START_TEST(a_finished_shard_refuses_as_a_mismatch)
{
	static const struct refusal all[] = {
		{"begin expected_upper=5 new_upper=6\n5\t1\ta\tb\ncommit\n", ESTALE,
		 "error UpperMismatch errno=ESTALE expected_upper=5 current_upper=- message=\""},
		{"begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n", ESTALE,
		 "error UpperMismatch errno=ESTALE expected_upper=* current_upper=- message=\""},
		{"begin expected_upper=* new_upper=-\ncommit\n", ESTALE,
		 "error UpperMismatch errno=ESTALE expected_upper=* current_upper=- message=\""},
		{"begin expected_upper=- new_upper=-\ncommit\n", ESTALE,
		 "error UpperMismatch errno=ESTALE expected_upper=- current_upper=- message=\""},
	};

	make_upper_5();
	want_txn(shard, "begin expected_upper=5 new_upper=-\n18446744073709551615\t1\tlast\tx\ncommit\n");
	want_file(shard, "upper", "-\n");
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		want_refusal(shard, &all[i]);
	want_file(shard, "as_of/18446744073709551615",
		  "18446744073709551615\t1\tlast\tx\n18446744073709551615\t1\tone\tx\n18446744073709551615\t2\ttwo\ty\n");
	want_txn(shard, "begin lower=5 upper=-\n5\t1\tlate\tx\ncommit\n");
	want_txn(shard, "begin lower=9 upper=12\n10\t1\tlate\tx\ncommit\n");
}
END_TEST

START_TEST(the_last_time_needs_the_empty_upper)
{
	static const struct refusal at_upper = {
		"begin expected_upper=5 new_upper=18446744073709551615\n18446744073709551615\t1\ta\tb\ncommit\n", EINVAL,
		"error UpdateBeyondUpper errno=EINVAL time=18446744073709551615 upper=18446744073709551615 message=\""};

	make_upper_5();
	want_refusal(shard, &at_upper);
}
END_TEST

/* A row of a key of key bytes and a val of val bytes. */
static char *big_txn(size_t key, size_t val, size_t *len)
{
	const char *begin = "begin expected_upper=0 new_upper=1\n0\t1\t", *end = "\ncommit\n";
	char *text = malloc(key + val + 128), *p = text;

	ck_assert_ptr_nonnull(text);
	p = stpcpy(p, begin);
	p = (char *)memset(p, 'k', key) + key;
	*p++ = '\t';
	p = (char *)memset(p, 'v', val) + val;
	p = stpcpy(p, end);
	*len = (size_t)(p - text);
	return text;
}

START_TEST(a_row_of_16_mib_is_taken_and_one_byte_more_is_too_large)
{
	const size_t max = (size_t)16 << 20;
	size_t len, got_len;
	char *text = big_txn(1000, max - 1000 + 1, &len), *got;
	int fd = append_open(shard);

	ck_errno(put_all(fd, text, len), EMSGSIZE);
	want_verdict_like(fd, "error RowTooLarge errno=EMSGSIZE ");
	ck_assert_int_eq(put(fd, "x"), -EMSGSIZE);
	close(fd);
	free(text);
	want_file(shard, "upper", "0\n");
	got = last_error(shard);
	ck_assert_msg(strncmp(got, "RowTooLarge errno=EMSGSIZE ", 27) == 0, "%s", got);
	free(got);

	text = big_txn(1000, max - 1000, &len);
	fd = append_open(shard);
	ck_errno(put_all(fd, text, len), 0);
	want_verdict(fd, "ok lower=0 new_upper=1 seqno=N updates=1\n");
	close(fd);
	got = slurp_len(at(shard, "snapshot"), &got_len);
	ck_assert_uint_eq(got_len, 4 + max + 2);
	ck_assert_int_eq(memcmp(got, strchr(text, '\n') + 1, got_len), 0);
	free(got);
	free(text);
}
END_TEST

START_TEST(a_row_without_end_is_too_large_and_costs_no_more)
{
	char *piece = malloc(1 << 20);
	int fd = append_open(shard);
	ssize_t n = put(fd, "begin expected_upper=0 new_upper=1\n0\t1\t");

	ck_assert_int_gt(n, 0);
	ck_assert_ptr_nonnull(piece);
	memset(piece, 'x', 1 << 20);
	for (int i = 0; i < 80 && n > 0; i++)
		n = put_len(fd, piece, 1 << 20);
	ck_assert_int_eq(n, -EMSGSIZE);
	close(fd);
	free(piece);
}
END_TEST

START_TEST(a_sum_that_leaves_i64_is_told_when_it_is_read)
{
	char buf[256];
	int fd;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t9223372036854775807\ta\tb\ncommit\n");
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\ta\tb\ncommit\n");
	want_file(shard, "as_of/0", "0\t9223372036854775807\ta\tb\n");
	fd = open(at(shard, "snapshot"), O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_fails(read(fd, buf, sizeof buf), EOVERFLOW);
	close(fd);
	want_txn(shard, "begin expected_upper=2 new_upper=3\n2\t-1\ta\tb\ncommit\n");
	want_file(shard, "snapshot", "2\t9223372036854775807\ta\tb\n");
}
END_TEST

START_TEST(what_is_not_there_is_enoent)
{
	char *none = shard_id(), *path;

	ck_assert_int_ge(asprintf(&path, "%s/shard/%s", w.mnt, none), 0);
	ck_fails(open(at(path, "append"), O_WRONLY), ENOENT);
	ck_fails(open(path, O_RDONLY), ENOENT);
	ck_fails(rmdir(path), ENOENT);
	ck_fails(open(at(shard, "batches/0-1"), O_RDONLY), ENOENT);
	ck_fails(open(at(shard, "batches/x"), O_RDONLY), ENOENT);
	ck_fails(open(at(shard, "as_of/x"), O_RDONLY), ENOENT);
	ck_fails(open(at(shard, "as_of/01"), O_RDONLY), ENOENT);
	ck_fails(open(at(shard, "as_of/-"), O_RDONLY), ENOENT);
	ck_fails(open(at(shard, "as_of/18446744073709551616"), O_RDONLY), ENOENT);
	ck_fails(open(at(w.mnt, "nothing"), O_RDONLY), ENOENT);
	ck_fails(open(at(w.mnt, "name/nothing"), O_RDONLY), ENOENT);
	free(path);
	free(none);
}
END_TEST

START_TEST(time_below_since_is_enodata)
{
	make_upper_5();
	ck_errno(write_once(at(shard, "since"), "3\n"), 0);
	ck_fails(open(at(shard, "as_of/2"), O_RDONLY), ENODATA);
	want_file(shard, "as_of/3", "3\t1\tone\tx\n");
	ck_errno(write_once(at(shard, "since"), "9\n"), 0);
	ck_fails(open(at(shard, "snapshot"), O_RDONLY), ENODATA);
	ck_fails(open(at(shard, "as_of/now"), O_RDONLY), ENODATA);
	want_txn(shard, "begin expected_upper=5 new_upper=10\ncommit\n");
	want_file(shard, "snapshot", "9\t1\tone\tx\n9\t2\ttwo\ty\n");
}
END_TEST

START_TEST(a_shard_made_anew_is_another_one)
{
	int fd = append_open(shard), fd2 = append_open(shard);

	want_txn(shard, "begin expected_upper=0 new_upper=-\ncommit\n");
	ck_fails(rmdir(shard), ENOTEMPTY);
	ck_errno(write_once(at(shard, "since"), "-"), 0);
	ck_works(rmdir(shard));
	ck_assert_int_eq(put(fd, "begin expected_upper=0 new_upper=1\ncommit\n"), -ENOENT);
	want_verdict_like(fd, "error UnknownShard errno=ENOENT ");
	ck_works(mkdir(shard, 0755));
	want_file(shard, "upper", "0\n");
	ck_assert_int_eq(put(fd2, "begin expected_upper=0 new_upper=1\ncommit\n"), -ESTALE);
	want_verdict_like(fd2, "error ShardReplaced errno=ESTALE ");
	want_file(shard, "upper", "0\n");
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	close(fd);
	close(fd2);
}
END_TEST

Suite *append_suite(void)
{
	Suite *s = suite_create("append");
	TCase *tc = shard_case(s, "refusals", 120);

	tcase_add_test(tc, each_refusal_has_its_errno_verdict_and_line_and_leaves_no_trace);
	tcase_add_test(tc, a_finished_shard_refuses_as_a_mismatch);
	tcase_add_test(tc, the_last_time_needs_the_empty_upper);
	tcase_add_test(tc, a_row_of_16_mib_is_taken_and_one_byte_more_is_too_large);
	tcase_add_test(tc, a_row_without_end_is_too_large_and_costs_no_more);
	tcase_add_test(tc, a_sum_that_leaves_i64_is_told_when_it_is_read);
	tcase_add_test(tc, what_is_not_there_is_enoent);
	tcase_add_test(tc, time_below_since_is_enodata);
	tcase_add_test(tc, a_shard_made_anew_is_another_one);
	return s;
}
