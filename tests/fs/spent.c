/* spent.c - descriptors after a failure, abandoned transactions, and how verdicts are read. */
#include "tests/fs/fixture.h"

#include <signal.h>
#include <sys/wait.h>

static const char good[] = "begin expected_upper=* new_upper=+1\n*\t1\tk\tv\ncommit\n";

static const struct {
	const char *text;
	int errnum;
} failures[] = {
	{"begin expected_upper=9 new_upper=10\ncommit\n", ESTALE},
	{"begin expected_upper=0 new_upper=5\n9\t1\ta\tb\n", EINVAL},
	{"rubbish\n", EINVAL},
	{"begin expected_upper=0 new_upper=5\nbatch none\ncommit\n", ENOENT},
};
enum { FAILURES = sizeof failures / sizeof failures[0] };

START_TEST(after_a_failure_every_write_gets_its_errno_until_ftruncate_0)
{
	const int e = failures[_i].errnum;
	int fd = append_open(shard), other;

	ck_assert_int_eq(put(fd, failures[_i].text), -e);
	ck_assert_int_eq(put(fd, good), -e);
	ck_assert_int_eq(put(fd, "x"), -e);
	ck_assert_int_eq(put(fd, "commit\n"), -e);
	want_verdict_like(fd, "error ");
	want_verdict(fd, "");
	ck_assert_int_eq(put(fd, good), -e);
	ck_works(fsync(fd));
	ck_works(fdatasync(fd));
	ck_assert_int_eq(put(fd, good), -e);
	other = dup(fd);
	ck_works(close(other));
	ck_assert_int_eq(put(fd, good), -e);
	ck_works(lseek(fd, 0, SEEK_SET));
	ck_assert_int_eq(put(fd, good), -e);
	ck_works(ftruncate(fd, 1));
	ck_works(ftruncate(fd, 1 << 20));
	ck_assert_int_eq(put(fd, good), -e);
	ck_works(truncate(at(shard, "append"), 0)); /* another file */
	ck_assert_int_eq(put(fd, good), -e);
	ck_works(fchmod(fd, 0644));
	ck_assert_int_eq(put(fd, good), -e);
	want_txn(shard, good); /* another open is another file */
	want_file(shard, "upper", "1\n");
	ck_works(ftruncate(fd, 0));
	ck_assert_int_eq(put(fd, good), strlen(good));
	want_verdict(fd, "ok lower=1 new_upper=2 seqno=N updates=1\n");
	want_file(shard, "upper", "2\n");
	close(fd);
}
END_TEST

START_TEST(it_stays_spent_even_when_it_would_work_now)
{
	const char text[] = "begin expected_upper=1 new_upper=2\n1\t1\tlate\tx\ncommit\n";
	int fd = append_open(shard);

	ck_assert_int_eq(put(fd, text), -ESTALE);
	want_txn(shard, good);
	ck_assert_int_eq(put(fd, text), -ESTALE);
	want_file(shard, "upper", "1\n");
	close(fd);
	want_file(shard, "upper", "1\n");
}
END_TEST

START_TEST(a_failure_hidden_by_a_short_count_spends)
{
	char text[256];
	int fd = append_open(shard);

	snprintf(text, sizeof text, "%srubbish\n", good);
	ck_assert_int_eq(put(fd, text), strlen(good));
	ck_assert_int_eq(put(fd, good), -EINVAL);
	want_file(shard, "upper", "1\n");
	close(fd);
}
END_TEST

START_TEST(ftruncate_0_drops_what_was_begun_and_unread_verdicts)
{
	int fd = append_open(shard);

	ck_assert_int_gt(put(fd, good), 0);
	ck_assert_int_gt(put(fd, "begin expected_upper=1 new_upper=2\n1\t1\ta"), 0);
	ck_works(ftruncate(fd, 0));
	want_verdict(fd, "");
	ck_assert_int_eq(put(fd, good), strlen(good));
	want_verdict(fd, "ok lower=1 new_upper=2 seqno=N updates=1\n");
	want_file(shard, "snapshot", "1\t2\tk\tv\n");
	close(fd);
}
END_TEST

START_TEST(ftruncate_to_a_length_and_fsync_change_nothing_in_the_middle)
{
	int fd = append_open(shard);

	for (const char *p = good; *p != '\0'; p++) {
		ck_assert_int_eq(put_len(fd, p, 1), 1);
		ck_works(fsync(fd));
		ck_works(ftruncate(fd, 77));
		ck_works(close(dup(fd)));
	}
	want_file(shard, "upper", "1\n");
	close(fd);
}
END_TEST

START_TEST(a_shell_redirection_flushes_before_the_first_byte)
{
	free(want_sh("exec 3<> %s/append; { true; cat /dev/null; } >&3; (printf 'begin expected_upper=0 new_upper=1\\n' >&3);"
		     "printf 'commit\\n' >&3; read -r line <&3; test \"${line%%%% seqno*}\" = 'ok lower=0 new_upper=1'",
		     shard));
	want_file(shard, "upper", "1\n");
}
END_TEST

START_TEST(a_transaction_cut_short_by_close_changes_nothing)
{
	const char text[] = "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit";
	char *before = print_shard(shard), *after, *line;

	for (size_t len = 1; len <= strlen(text); len++) {
		int fd = append_open(shard);

		ck_assert_int_eq(put_len(fd, text, len), len);
		ck_works(close(fd));
		after = print_shard(shard);
		ck_assert_str_eq(after, before);
		free(after);
	}
	/* Release comes after close returns. */
	for (uint64_t since = 0; until_deadline(&since);) {
		line = slurp(at(shard, "errors"));
		size_t lines = count_lines(line);

		free(line);
		if (lines == 32)
			break;
	}
	line = last_error(shard);
	ck_assert_msg(strncmp(line, "Abandoned updates=", 18) == 0, "%s", line);
	free(line);
	free(before);
}
END_TEST

START_TEST(a_commit_that_became_part_of_the_last_row_is_pointed_out)
{
	const char text[] = "begin expected_upper=0 new_upper=1\n0\t1\ta\tbcommit\n";
	char *line = NULL;
	int fd = append_open(shard);

	ck_assert_int_eq(put(fd, text), strlen(text));
	ck_works(close(fd));
	for (uint64_t since = 0; line == NULL && until_deadline(&since);) { /* release comes after close returns */
		char *all = slurp(at(shard, "errors"));

		if (count_lines(all) == 1)
			line = last_error(shard);
		free(all);
	}
	ck_assert_ptr_nonnull(line);
	ck_assert_msg(strstr(line, "the last row ends in commit, as if its newline were missing") != NULL, "%s", line);
	free(line);
	want_file(shard, "upper", "0\n");
}
END_TEST

struct beginning {
	const char *text;
	size_t len;
	int ready; /* where to tell that it is written */
};

/* Write it, and wait to be killed. */
static int write_and_hang(void *arg)
{
	const struct beginning *a = arg;
	int fd = append_open(shard);

	put_len(fd, a->text, a->len);
	if (write(a->ready, "x", 1) != 1)
		return 1;
	pause();
	return 0;
}

START_TEST(a_producer_killed_at_any_byte_changes_nothing)
{
	struct beginning a = {.text = "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit"};
	char *before = print_shard(shard), *after, c, *text = NULL, pids[32];
	int p[2], status;
	bool found = false;

	ck_works(pipe(p));
	a.ready = p[1];
	for (a.len = 1; a.len <= strlen(a.text); a.len++) {
		pid_t pid = spawn(write_and_hang, &a);

		ck_assert_int_eq(read(p[0], &c, 1), 1);
		ck_works(kill(pid, SIGKILL));
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		snprintf(pids, sizeof pids, "pid=%d ", (int)pid);
	}
	for (uint64_t since = 0; !found && until_deadline(&since);) {
		free(text);
		text = slurp(at(shard, "errors"));
		found = strstr(text, pids) != NULL;
	}
	ck_assert_msg(found && strstr(strstr(text, pids), "Abandoned updates=1 ") != NULL, "%s in %s", pids, text);
	free(text);
	after = print_shard(shard);
	ck_assert_str_eq(after, before);
	free(before);
	free(after);
}
END_TEST

START_TEST(a_verdict_a_read_then_the_end_at_whatever_offset)
{
	char buf[512];
	int fd = append_open(shard);

	for (int i = 0; i < 5; i++)
		ck_assert_int_gt(put(fd, good), 0);
	want_verdict(fd, "ok lower=0 new_upper=1 seqno=N updates=1\n");
	ck_assert_int_gt(pread(fd, buf, sizeof buf, 100000), 0);
	ck_assert_int_eq(memcmp(buf, "ok lower=1 ", 11), 0);
	ck_works(lseek(fd, 0, SEEK_SET));
	want_verdict(fd, "ok lower=2 new_upper=3 seqno=N updates=1\n");
	ck_works(lseek(fd, 123456789, SEEK_SET));
	want_verdict(fd, "ok lower=3 new_upper=4 seqno=N updates=1\n");
	ck_assert_int_eq(read(fd, buf, 3), 3); /* a short read takes a piece */
	ck_assert_int_eq(memcmp(buf, "ok ", 3), 0);
	want_verdict(fd, "lower=4 new_upper=5 seqno=N updates=1\n");
	want_verdict(fd, "");
	want_verdict(fd, "");
	ck_assert_int_gt(put(fd, good), 0);
	want_verdict(fd, "ok lower=5 new_upper=6 seqno=N updates=1\n");
	want_verdict(fd, "");
	close(fd);
}
END_TEST

START_TEST(verdicts_are_kept_up_to_64_kib_the_oldest_go)
{
	enum { ROUNDS = 2000 };
	int fd = append_open(shard);
	size_t bytes = 0, lines = 0;
	char *line, last[64];

	for (int i = 0; i < ROUNDS; i++)
		ck_assert_int_gt(put(fd, good), 0);
	for (;; lines++) {
		char raw[512] = "";
		ssize_t n = read(fd, raw, sizeof raw - 1);

		ck_assert_int_ge(n, 0);
		if (n == 0)
			break;
		ck_assert(raw[n - 1] == '\n' && strncmp(raw, "ok lower=", 9) == 0);
		if (lines == 0)
			ck_assert_int_gt(atoi(raw + 9), 0);
		bytes += (size_t)n;
		snprintf(last, sizeof last, "%.*s", (int)strcspn(raw + 9, " "), raw + 9);
	}
	ck_assert_uint_le(bytes, 64 << 10);
	ck_assert_uint_gt(bytes, (64 << 10) - 200);
	ck_assert_int_eq(atoi(last), ROUNDS - 1);
	line = verdict(fd);
	ck_assert_str_eq(line, "");
	free(line);
	close(fd);
}
END_TEST

START_TEST(errors_keeps_the_last_32)
{
	char *text;

	want_file(shard, "errors", "");
	for (int i = 0; i < 40; i++) {
		char bad[64];

		snprintf(bad, sizeof bad, "begin expected_upper=%d new_upper=99\ncommit\n", i + 1);
		ck_errno(txn(shard, bad), ESTALE);
	}
	text = slurp(at(shard, "errors"));
	ck_assert_uint_eq(count_lines(text), 32);
	ck_assert_ptr_nonnull(strstr(text, "expected_upper=40 "));
	ck_assert_ptr_nonnull(strstr(text, "expected_upper=9 "));
	ck_assert_ptr_null(strstr(text, "expected_upper=8 "));
	char *line = text + strlen(text) - 1;

	while (line > text && line[-1] != '\n')
		line--;
	int year, pid;
	unsigned uid;

	ck_assert_int_eq(sscanf(line, "%d-%*d-%*dT%*d:%*d:%*d.%*dZ pid=%d uid=%u UpperMismatch", &year, &pid, &uid), 3);
	ck_assert_int_eq(pid, getpid());
	ck_assert_uint_eq(uid, 0);
	free(text);
}
END_TEST

START_TEST(nothing_written_is_nothing_abandoned)
{
	close(append_open(shard));
	int fd = append_open(shard);

	ck_assert_int_gt(put(fd, good), 0);
	close(fd);
	want_txn(shard, good);
	want_file(shard, "errors", "");
}
END_TEST

Suite *spent_suite(void)
{
	Suite *s = suite_create("spent and abandoned");
	TCase *tc = shard_case(s, "spent", 120);

	tcase_add_loop_test(tc, after_a_failure_every_write_gets_its_errno_until_ftruncate_0, 0, FAILURES);
	tcase_add_test(tc, it_stays_spent_even_when_it_would_work_now);
	tcase_add_test(tc, a_failure_hidden_by_a_short_count_spends);
	tcase_add_test(tc, ftruncate_0_drops_what_was_begun_and_unread_verdicts);
	tcase_add_test(tc, ftruncate_to_a_length_and_fsync_change_nothing_in_the_middle);
	tcase_add_test(tc, a_shell_redirection_flushes_before_the_first_byte);
	tcase_add_test(tc, a_transaction_cut_short_by_close_changes_nothing);
	tcase_add_test(tc, a_commit_that_became_part_of_the_last_row_is_pointed_out);
	tcase_add_test(tc, a_producer_killed_at_any_byte_changes_nothing);
	tcase_add_test(tc, a_verdict_a_read_then_the_end_at_whatever_offset);
	tcase_add_test(tc, verdicts_are_kept_up_to_64_kib_the_oldest_go);
	tcase_add_test(tc, errors_keeps_the_last_32);
	tcase_add_test(tc, nothing_written_is_nothing_abandoned);
	return s;
}
