/* holds.c - holds/<name>: durable holds of named consumers, and what they do to since. */
#include "tests/fs/fixture.h"

#include <poll.h>

static const char *hold(const char *name)
{
	return at(at(shard, "holds"), name);
}

/* One write(2) to it, made if it is not there: 0, or errno. */
static int set_hold(const char *name, const char *text)
{
	int fd = open(hold(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	ssize_t n;

	if (fd < 0)
		return errno;
	n = put(fd, text);
	ck_works(close(fd));
	if (n >= 0)
		ck_assert_int_eq(n, strlen(text));
	return n < 0 ? (int)-n : 0;
}

static void want_hold(const char *name, const char *want)
{
	struct stat st;
	char *got = slurp(hold(name));

	ck_assert_str_eq(got, want);
	ck_works(stat(hold(name), &st));
	ck_assert_int_eq(st.st_size, strlen(want));
	ck_assert(S_ISREG(st.st_mode));
	free(got);
}

static void want_holds(const char *want)
{
	char *out = want_sh("ls %s/holds | tr '\\n' ' '", shard);

	ck_assert_str_eq(out, want);
	free(out);
}

static void want_since(const char *want)
{
	want_file(shard, "since", want);
}

static void upper_to(const char *bounds)
{
	char text[200];

	snprintf(text, sizeof text, "begin %s\ncommit\n", bounds);
	want_txn(shard, text);
}

START_TEST(the_first_valid_write_makes_it)
{
	struct stat st;
	int fd;

	want_holds("default ");
	want_hold("default", "0\t0\n");
	free(want_sh("touch %s", hold("b")));
	fd = open(hold("b"), O_RDWR | O_CREAT | O_EXCL, 0600);
	ck_assert_int_ge(fd, 0);
	ck_works(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 0);
	ck_works(ftruncate(fd, 0));
	want_holds("default ");
	ck_fails(stat(hold("b"), &st), ENOENT);
	ck_fails(open(hold("b"), O_RDONLY), ENOENT);
	ck_assert_int_eq(put(fd, "nonsense\n"), -EINVAL);
	want_holds("default ");
	ck_assert_int_eq(put(fd, "7\n"), 2); /* a refused line is over */
	want_holds("b default ");
	want_hold("b", "7\t0\n");
	/* what is read on the descriptor is what it is now */
	char buf[32] = "";

	ck_assert_int_eq(pread(fd, buf, sizeof buf, 0), 4);
	ck_assert_str_eq(buf, "7\t0\n");
	ck_assert_int_eq(put(fd, "9"), 1);
	ck_assert_int_eq(pread(fd, buf, sizeof buf, 0), 4);
	ck_assert_str_eq(buf, "9\t0\n");
	ck_works(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 4);
	close(fd);
	ck_fails(open(hold("b"), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	ck_errno(write_once(hold("c"), "7"), ENOENT);
	ck_errno(set_hold("c", "18446744073709551615"), 0);
	want_hold("c", "18446744073709551615\t0\n");
	ck_errno(set_hold("c", "-"), 0);
	want_hold("c", "-\t0\n");
	ck_errno(set_hold("c", "5"), 0); /* it is at the end of all times */
	want_hold("c", "-\t0\n");
}
END_TEST

START_TEST(one_cannot_be_made_below_since)
{
	upper_to("expected_upper=0 new_upper=10 since=5");
	want_since("5\n");
	ck_errno(set_hold("b", "4"), ENODATA);
	ck_errno(set_hold("b", "listen=5"), ENODATA);
	ck_errno(set_hold("b", "expected=0 token=1 since=4"), ENODATA);
	want_holds("default ");
	ck_errno(set_hold("b", "listen=6"), 0);
	want_hold("b", "5\t0\n");
	ck_errno(set_hold("b", "4"), 0); /* a smaller one changes nothing */
	ck_errno(set_hold("b", "listen=0"), 0);
	want_hold("b", "5\t0\n");
}
END_TEST

START_TEST(listen_holds_what_a_listener_needs)
{
	static const char *const lines[][2] = {{"listen=0", "0\t0\n"},	       {"listen=1\n", "0\t0\n"},
					       {"listen=2", "1\t0\n"},	       {"listen=100", "99\t0\n"},
					       {"listen=18446744073709551615", "18446744073709551614\t0\n"},
					       {"listen=-\n", "-\t0\n"}};

	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		ck_errno(set_hold("b", lines[i][0]), 0);
		want_hold("b", lines[i][1]);
	}
}
END_TEST

START_TEST(a_line_that_is_none_changes_nothing)
{
	static const char *const lines[] = {
		"\n", "x", " 9", "9 ", "09", "+9", "-1", "9\n\n", "9\n10\n", "\n9", "--", "listen=", "listen=x", "listen=9 ",
		"listen= 9", "LISTEN=9", "listen=9 token=1", "upper-5", "18446744073709551616", "9\r\n", "expected=0",
		"expected=0 token=1", "token=1 since=9", "expected=0 since=9", "expected=0 token=1 since=",
		"expected=- token=1 since=9", "expected=0 token=-1 since=9", "expected=0  token=1 since=9",
		"expected=0 token=1 since=9 ", " expected=0 token=1 since=9", "expected=0 token=1 since=9 since=9",
		"expected=0 expected=0 since=9", "expected=00 token=1 since=9", "expected=0 token=18446744073709551616 since=9",
		"expected=0 token=1 since=9 more=1", "expected=0\ttoken=1\tsince=9", "expected=0 token=1 since=9\n8", "=", "a=b",
	};

	ck_errno(set_hold("b", "5"), 0);
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
		ck_assert_msg(set_hold("b", lines[i]) == EINVAL, "\"%s\"", lines[i]);
	want_hold("b", "5\t0\n");
	/* NUL is no end */
	int fd = open(hold("b"), O_WRONLY);

	ck_assert_int_eq(put_len(fd, "9\0", 2), -EINVAL);
	ck_assert_int_eq(put_len(fd, "9\0\n", 3), -EINVAL);
	ck_assert_int_eq(put(fd, "6"), 1);
	ck_assert_int_eq(pwrite(fd, "7", 1, 100), 1); /* offsets mean nothing */
	close(fd);
	want_hold("b", "7\t0\n");
	free(want_sh("echo 8 > %s && echo 9 >> %s && printf 10 | tee %s && printf 'token=0 since=11 expected=0' > %s", hold("b"),
		     hold("b"), hold("b"), hold("b")));
	want_hold("b", "11\t0\n");
}
END_TEST

START_TEST(a_token_fences_off_who_does_not_have_it)
{
	ck_errno(set_hold("b", "expected=7 token=8 since=5"), ESTALE);
	want_holds("default ");
	ck_errno(set_hold("b", "expected=0 token=7 since=5\n"), 0);
	want_hold("b", "5\t7\n");
	ck_errno(set_hold("b", "6"), ESTALE);
	ck_errno(set_hold("b", "1"), ESTALE);
	ck_errno(set_hold("b", "listen=9"), ESTALE);
	ck_errno(set_hold("b", "expected=0 token=8 since=9"), ESTALE);
	ck_errno(set_hold("b", "expected=8 token=7 since=9"), ESTALE);
	want_hold("b", "5\t7\n");
	ck_errno(set_hold("b", "expected=7 token=7 since=6"), 0);
	want_hold("b", "6\t7\n");
	/* taken over, which does not move it back */
	ck_errno(set_hold("b", "since=2 token=18446744073709551615 expected=7"), 0);
	want_hold("b", "6\t18446744073709551615\n");
	ck_errno(set_hold("b", "expected=7 token=7 since=9"), ESTALE);
	/* unlink and rename */
	ck_fails(unlink(hold("b")), EPERM);
	ck_fails(rename(hold("b"), hold("c")), EPERM);
	ck_errno(set_hold("b", "expected=18446744073709551615 token=3 since=-"), 0);
	want_hold("b", "-\t3\n");
	ck_errno(set_hold("b", "-"), ESTALE);
	ck_works(unlink(hold("b")));
	want_holds("default ");
	/* one made anew begins at 0 */
	ck_errno(set_hold("b", "6"), 0);
	want_hold("b", "6\t0\n");
	/* to 0 again: plain forms work */
	ck_errno(set_hold("b", "expected=0 token=1 since=6"), 0);
	ck_errno(set_hold("b", "expected=1 token=0 since=6"), 0);
	ck_errno(set_hold("b", "7"), 0);
	want_hold("b", "7\t0\n");
}
END_TEST

static int take_over(void *arg)
{
	char text[100];

	snprintf(text, sizeof text, "expected=%d token=%d since=%d", ((int *)arg)[0], ((int *)arg)[0] + 1, ((int *)arg)[0]);
	return set_hold("b", text);
}

START_TEST(of_several_who_take_it_over_one_does)
{
	enum { ROUNDS = 15, RIVALS = 6 };
	pid_t pids[RIVALS];

	for (int round = 0; round < ROUNDS; round++) {
		int won = 0;

		for (int i = 0; i < RIVALS; i++)
			pids[i] = spawn(take_over, &round);
		for (int i = 0; i < RIVALS; i++) {
			int e = join(pids[i]);

			ck_assert(e == 0 || e == ESTALE);
			won += e == 0;
		}
		ck_assert_int_eq(won, 1);
	}
	want_hold("b", "14\t15\n");
}
END_TEST

START_TEST(names_are_those_of_batches)
{
	char name[200], path[400];

	memset(name, 'a', sizeof name);
	name[128] = '\0';
	ck_errno(set_hold(name, "5"), 0);
	want_hold(name, "5\t0\n");
	ck_works(unlink(hold(name)));
	name[128] = 'a';
	name[129] = '\0';
	ck_errno(set_hold(name, "5"), ENAMETOOLONG);
	static const char *const bad[] = {"1", "-", "0-5", ".x", "a b", "a:b", "\xc3\xa4", "a\nb", "4913", "x~"};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ck_errno(set_hold(bad[i], "5"), EINVAL);
		ck_fails(open(hold(bad[i]), O_RDONLY), ENOENT);
		ck_fails(unlink(hold(bad[i])), ENOENT);
	}
	ck_errno(set_hold("_a.B-9", "5"), 0);
	want_holds("_a.B-9 default ");
	ck_fails(mkdir(hold("d"), 0700), EPERM);
	ck_fails(symlink("x", hold("l")), EPERM);
	ck_fails(link(hold("default"), hold("l")), EPERM);
	ck_fails(mknod(hold("p"), S_IFREG | 0600, 0), EPERM);
	ck_fails(mknod(hold("p"), S_IFIFO | 0600, 0), EPERM);
	ck_fails(rename(hold("default"), hold("l")), EPERM);
	ck_fails(rename(hold("_a.B-9"), hold("default")), EPERM);
	snprintf(path, sizeof path, "%s/batches/x", shard);
	ck_fails(rename(hold("_a.B-9"), path), EPERM);
	ck_fails(unlink(hold("default")), EPERM);
	ck_fails(unlink(hold("none")), ENOENT);
	ck_works(chmod(hold("_a.B-9"), 0600)); /* taken and ignored */
	ck_works(truncate(hold("_a.B-9"), 0));
	want_hold("_a.B-9", "5\t0\n");
}
END_TEST

static int try_set(void *arg)
{
	return set_hold(arg, "9");
}

static int try_unlink(void *arg)
{
	return unlink(hold(arg)) == 0 ? 0 : errno;
}

START_TEST(those_who_may_not_write_the_shard_may_not_hold)
{
	char b[] = "b", c[] = "c";

	world_stop(&w);
	world_start(&w, "allow_other");
	ck_errno(set_hold("b", "5"), 0);
	ck_errno(as_user(1234, try_set, b), EACCES);
	ck_errno(as_user(1234, try_set, c), EACCES);
	ck_errno(as_user(1234, try_unlink, b), EACCES);
	ck_works(chmod(shard, 0777));
	ck_errno(as_user(1234, try_set, b), 0);
	ck_errno(as_user(1234, try_set, c), 0);
	want_hold("b", "9\t0\n");
	want_holds("b c default ");
}
END_TEST

START_TEST(they_outlive_the_mount)
{
	upper_to("expected_upper=0 new_upper=10");
	ck_errno(set_hold("a", "expected=0 token=9 since=5"), 0);
	ck_errno(set_hold("b", "7"), 0);
	ck_errno(set_hold("c", "7"), 0);
	ck_works(unlink(hold("c")));
	ck_errno(write_once(at(shard, "since"), "-"), 0);
	world_stop(&w);
	world_start(&w, NULL);
	want_holds("a b default ");
	want_hold("a", "5\t9\n");
	want_hold("default", "-\t0\n");
	ck_errno(set_hold("b", "8"), 0);
	ck_errno(set_hold("d", "6"), 0);
	world_kill(&w);
	world_start(&w, NULL);
	want_hold("b", "8\t0\n");
	want_hold("d", "6\t0\n");
	want_since("5\n");
	ck_errno(set_hold("a", "6"), ESTALE);
	world_stop(&w);
	world_start(&w, "ro");
	want_hold("b", "8\t0\n");
	ck_errno(set_hold("b", "9"), EROFS);
	ck_errno(set_hold("e", "9"), EROFS);
	ck_fails(unlink(hold("b")), EROFS);
}
END_TEST

START_TEST(since_is_the_least_of_them)
{
	upper_to("expected_upper=0 new_upper=100");
	ck_errno(set_hold("a", "10"), 0);
	ck_errno(set_hold("b", "20"), 0);
	want_since("0\n");
	ck_errno(write_once(at(shard, "since"), "50"), 0);
	want_since("10\n");
	want_hold("default", "50\t0\n");
	ck_errno(set_hold("a", "30"), 0);
	want_since("20\n");
	ck_works(unlink(hold("b")));
	want_since("30\n");
	ck_errno(set_hold("a", "-"), 0);
	want_since("50\n");
	ck_errno(set_hold("c", "40"), ENODATA);
	ck_errno(set_hold("c", "60"), 0);
	ck_errno(set_hold("default", "70\n"), 0);
	want_since("60\n");
	ck_works(unlink(hold("c")));
	want_since("70\n");
	ck_works(unlink(hold("a")));
	ck_errno(write_once(at(shard, "since"), "-"), 0);
	want_since("-\n");
	ck_errno(set_hold("c", "1000"), ENODATA);
	ck_errno(set_hold("c", "-"), 0);
}
END_TEST

START_TEST(a_policy_goes_on_beside_the_others)
{
	ck_errno(write_once(at(shard, "since"), "upper-5"), 0);
	ck_errno(set_hold("a", "2"), 0);
	upper_to("expected_upper=0 new_upper=20");
	want_hold("default", "15\t0\n");
	want_since("2\n");
	ck_errno(set_hold("a", "17"), 0);
	want_since("15\n");
	upper_to("expected_upper=20 new_upper=30");
	want_hold("default", "25\t0\n");
	want_since("17\n");
	ck_works(unlink(hold("a")));
	want_since("25\n");
	/* a plain frontier ends it, by either name of it, also one that does not move it */
	ck_errno(set_hold("default", "1"), 0);
	upper_to("expected_upper=30 new_upper=40");
	want_hold("default", "25\t0\n");
	ck_errno(write_once(at(shard, "since"), "upper-5"), 0);
	want_since("35\n");
	ck_errno(write_once(at(shard, "since"), "1"), 0);
	upper_to("expected_upper=40 new_upper=50");
	want_hold("default", "35\t0\n");
	ck_errno(write_once(at(shard, "since"), "upper-5"), 0);
	upper_to("expected_upper=50 new_upper=-");
	want_since("45\n");
	ck_errno(set_hold("b", "upper-5"), EINVAL);
}
END_TEST

START_TEST(the_file_since_against_a_fenced_default)
{
	upper_to("expected_upper=0 new_upper=10");
	ck_errno(set_hold("default", "expected=0 token=4 since=3"), 0);
	want_hold("default", "3\t4\n");
	ck_errno(write_once(at(shard, "since"), "5"), ESTALE);
	ck_errno(write_once(at(shard, "since"), "1"), ESTALE);
	ck_errno(write_once(at(shard, "since"), "upper-1"), ESTALE);
	ck_errno(set_hold("default", "5"), ESTALE);
	want_since("3\n");
	ck_errno(set_hold("default", "expected=4 token=4 since=-"), 0);
	want_since("-\n");
	ck_fails(unlink(hold("default")), EPERM);
}
END_TEST

START_TEST(rmdir_needs_all_of_them_given_up)
{
	upper_to("expected_upper=0 new_upper=-");
	ck_errno(set_hold("b", "5"), 0);
	ck_errno(set_hold("c", "expected=0 token=1 since=5"), 0);
	ck_errno(write_once(at(shard, "since"), "-"), 0);
	ck_fails(rmdir(shard), ENOTEMPTY);
	ck_works(unlink(hold("b")));
	ck_fails(rmdir(shard), ENOTEMPTY);
	ck_errno(set_hold("c", "expected=1 token=1 since=18446744073709551615"), 0);
	ck_fails(rmdir(shard), ENOTEMPTY);
	int fd = open(hold("c"), O_RDWR), late = open(hold("late"), O_RDWR | O_CREAT, 0600);
	char buf[32];

	ck_errno(set_hold("c", "expected=1 token=1 since=-"), 0);
	ck_works(rmdir(shard));
	ck_assert_int_eq(put(fd, "expected=1 token=2 since=-"), -ENOENT);
	ck_assert_int_eq(put(late, "-"), -ENOENT);
	ck_assert_int_ge(pread(fd, buf, sizeof buf, 0), 0);
	ck_fails(pread(fd, buf, sizeof buf, 0), ENOENT);
	close(fd);
	close(late);
}
END_TEST

START_TEST(rm_rf_of_a_live_shard_takes_what_is_unfenced)
{
	char *before, *after;
	int fd = open(at(shard, "batches/staged"), O_WRONLY | O_CREAT, 0600);

	ck_assert_int_eq(put(fd, "7\t1\ta\t\n"), 7);
	close(fd);
	want_txn(shard, "begin expected_upper=0 new_upper=7\n0\t1\ta\t\ncommit\n");
	ck_errno(set_hold("a", "1"), 0);
	ck_errno(set_hold("b", "expected=0 token=1 since=2"), 0);
	ck_errno(set_hold("c", "expected=0 token=1 since=-"), 0);
	before = want_sh("cd %s && cat upper since snapshot && ls batches | grep -", shard);
	ck_assert_int_ne(sh(NULL, "rm -rf %s", shard), 0);
	after = want_sh("cd %s && cat upper since snapshot && ls batches", shard);
	ck_assert_str_eq(before, after);
	want_holds("b default ");
	want_hold("b", "2\t1\n");
	want_hold("default", "0\t0\n");
	free(before);
	free(after);
}
END_TEST

START_TEST(there_are_at_most_1024)
{
	char name[16];

	for (int i = 1; i < 1024; i++) {
		snprintf(name, sizeof name, "h%d", i);
		ck_errno(set_hold(name, "5"), 0);
	}
	ck_errno(set_hold("more", "5"), EDQUOT);
	ck_errno(set_hold("h7", "6"), 0);
	char *out = want_sh("ls %s/holds | wc -l; cat %s/holds/h* | sort | uniq -c | tr -s ' \\t' '  '", shard, shard);

	ck_assert_str_eq(out, "1024\n 1022 5 0\n 1 6 0\n");
	free(out);
	ck_works(unlink(hold("h9")));
	ck_errno(set_hold("more", "5"), 0);
	want_since("0\n");
}
END_TEST

START_TEST(a_hold_keeps_history_for_its_listener)
{
	char *out, name[40];

	ck_errno(write_once(at(shard, "since"), "upper-1"), 0);
	ck_errno(set_hold("b", "listen=0"), 0);
	for (int i = 0; i < 300; i++) {
		int from = i < 20 ? 0 : i - 20;

		want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\ta\t\ncommit\n");
		snprintf(name, sizeof name, "listen=%d", from);
		ck_errno(set_hold("b", name), 0);
		if (i % 29 != 0)
			continue;
		out = want_sh("timeout 10 head -n %d %s/listen/%d | grep -c a; cat %s/since", i - from + 2, shard, from, shard);
		snprintf(name, sizeof name, "%d\n%d\n", i + 1 - from, from == 0 ? 0 : from - 1);
		ck_assert_str_eq(out, name);
		free(out);
	}
	ck_works(unlink(hold("b")));
	snprintf(name, sizeof name, "listen/%d", 280);
	ck_fails(open(at(shard, name), O_RDONLY), ENODATA);
}
END_TEST

START_TEST(they_are_always_ready)
{
	int fd = open(hold("default"), O_RDWR | O_NONBLOCK);
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};

	ck_assert_int_eq(poll(&p, 1, 0), 1);
	ck_assert_int_eq(p.revents, POLLIN | POLLOUT);
	close(fd);
}
END_TEST

Suite *holds_suite(void)
{
	Suite *s = suite_create("holds");
	TCase *tc = shard_case(s, "holds", 120);

	tcase_add_test(tc, the_first_valid_write_makes_it);
	tcase_add_test(tc, one_cannot_be_made_below_since);
	tcase_add_test(tc, listen_holds_what_a_listener_needs);
	tcase_add_test(tc, a_line_that_is_none_changes_nothing);
	tcase_add_test(tc, a_token_fences_off_who_does_not_have_it);
	tcase_add_test(tc, of_several_who_take_it_over_one_does);
	tcase_add_test(tc, names_are_those_of_batches);
	tcase_add_test(tc, those_who_may_not_write_the_shard_may_not_hold);
	tcase_add_test(tc, they_outlive_the_mount);
	tcase_add_test(tc, since_is_the_least_of_them);
	tcase_add_test(tc, a_policy_goes_on_beside_the_others);
	tcase_add_test(tc, the_file_since_against_a_fenced_default);
	tcase_add_test(tc, rmdir_needs_all_of_them_given_up);
	tcase_add_test(tc, rm_rf_of_a_live_shard_takes_what_is_unfenced);
	tcase_add_test(tc, there_are_at_most_1024);
	tcase_add_test(tc, a_hold_keeps_history_for_its_listener);
	tcase_add_test(tc, they_are_always_ready);
	return s;
}
