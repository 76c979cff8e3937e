/* ctl.c - maintenance asked for by hand: verbs to ctl, their verdicts, and how long a write waits. */
#include "tests/fs/fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { ALICE = 4001, BATCHES = 8, ROWS = 150000 };

static const char *ctl(void)
{
	return at(shard, "ctl");
}

static int ctl_open(void)
{
	int fd = open(ctl(), O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

/* So many rows in several batches that to compact them takes a while. */
static void fill(void)
{
	size_t cap = ROWS * 64 + 256, len;
	char *text = malloc(cap);
	int fd = append_open(shard);

	for (int b = 0; b < BATCHES; b++) {
		len = (size_t)snprintf(text, cap, "begin expected_upper=%d new_upper=%d\n", b, b + 1);
		for (int i = 0; i < ROWS; i++)
			len += (size_t)snprintf(text + len, cap - len, "%d\t1\tkey%08d\tval of %d\n", b,
						i * 7 % ROWS, b);
		len += (size_t)snprintf(text + len, cap - len, "commit\n");
		ck_errno(put_all(fd, text, len), 0);
	}
	close(fd);
	free(text);
}

/* --- verbs ----------------------------------------------------------------------------------------- */

START_TEST(a_verb_is_done_when_its_write_returns)
{
	static const char *const lines[][2] = {
		{"compact\n", "ok compact seqno="}, {"compact", "ok compact seqno="},
		{"gc\n", "ok gc seqno="},           {"gc", "ok gc seqno="},
		{"rollup\n", "ok rollup seqno="},   {"rollup", "ok rollup seqno="}};
	char *before, *after;
	int fd = ctl_open();

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\tc\td\ncommit\n");
	before = slurp(at(shard, "snapshot"));
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		ck_assert_int_eq(put(fd, lines[i][0]), strlen(lines[i][0]));
		want_verdict_like(fd, lines[i][1]);
		want_verdict(fd, "");
	}
	close(fd);
	after = slurp(at(shard, "snapshot"));
	ck_assert_str_eq(before, after);
	want_file(shard, "upper", "2\n");
	want_file(shard, "errors", "");
	free(before);
	free(after);
}
END_TEST

/* A directory of the shard's blobs as a kill between the removal of the last blob and its own leaves it. */
static char *empty_directory(const char *instance)
{
	char *made = want_sh("d=%s/blobs/data/%s/%s; mkdir -p $d; printf %%s $d", w.store,
			     strrchr(shard, '/') + 1, instance);

	ck_works(access(made, F_OK));
	return made;
}

START_TEST(directories_that_a_kill_left_empty_go_with_gc_and_with_the_next_start)
{
	char *left = empty_directory("n11111111-2222-4333-8444-555555555555");
	uint64_t since = 0;

	ck_errno(write_once(ctl(), "gc\n"), 0);
	ck_fails(access(left, F_OK), ENOENT);
	free(left);
	world_kill(&w);
	left = empty_directory("n11111111-2222-4333-8444-555555555556");
	world_start(&w, NULL);
	while (access(left, F_OK) == 0)
		ck_assert(until_deadline(&since));
	free(left);
}
END_TEST

START_TEST(a_wrong_line_is_einval_and_says_why)
{
	static const char *const bad[] = {"compat",
					  "\n",
					  " ",
					  "compact ",
					  " compact",
					  "compact\n\n",
					  "compact\ngc\n",
					  "compact gc",
					  "Compact",
					  "compact\r\n",
					  "expire",
					  "expire ",
					  "expire w",
					  "expire x",
					  "expire w00000000-0000-4000-8000-00000000000",
					  "expire s00000000-0000-4000-8000-000000000000",
					  "expire w00000000-0000-4000-8000-000000000000 ",
					  "expire  w00000000-0000-4000-8000-000000000000",
					  "expirew",
					  "5"};
	int fd = ctl_open();
	char *line;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ssize_t n = put(fd, bad[i]);

		ck_assert_msg(n == -EINVAL, "\"%s\": %zd", bad[i], n);
		want_verdict_like(fd, "error BadSyntax errno=EINVAL message=\"");
	}
	ck_assert_int_eq(put_len(fd, "gc\0", 3), -EINVAL);
	want_verdict_like(fd, "error BadSyntax errno=EINVAL message=\"");
	want_verdict(fd, "");
	ck_assert_int_eq(put(fd, "gc\n"), 3); /* a failure says nothing about the next line */
	want_verdict_like(fd, "ok gc ");
	close(fd);
	ck_errno(write_once(ctl(), "compat\n"), EINVAL);
	line = last_error(shard);
	ck_assert_str_eq(line, "BadSyntax errno=EINVAL message=\"none of compact, gc, rollup, expire <id>: "
			       "\\\"compat\\\"\"");
	free(line);
}
END_TEST

START_TEST(a_long_line_is_einval)
{
	size_t len = 3 << 20;
	char *text = malloc(len);
	int fd = ctl_open();

	memset(text, 'c', len);
	ck_assert_int_eq(put_len(fd, text, len), -EINVAL);
	ck_assert_int_eq(put(fd, "gc"), 2);
	close(fd);
	free(text);
}
END_TEST

START_TEST(expire_strikes_the_one_it_names)
{
	char line[128], want[160], *name, *out;
	int fd = ctl_open();

	want_txn(shard, "begin expected_upper=0 new_upper=1\ncommit\n");
	name = want_sh("ls %s/writers | tr -d '\\n'", shard);
	ck_assert_int_eq(name[0], 'w');
	snprintf(line, sizeof line, "expire %s\n", name);
	snprintf(want, sizeof want, "ok expire id=%s\n", name);
	ck_assert_int_eq(put(fd, line), strlen(line));
	want_verdict(fd, want);
	out = want_sh("ls %s/writers", shard);
	ck_assert_str_eq(out, "");
	free(out);
	ck_assert_int_eq(put(fd, line), -ENOENT);
	want_verdict_like(fd, "error NotFound errno=ENOENT ");
	ck_assert_int_eq(put(fd, "expire r00000000-0000-4000-8000-000000000000"), -ENOENT);
	want_verdict_like(fd, "error NotFound errno=ENOENT ");
	close(fd);
	free(name);
	want_txn(shard, "begin expected_upper=1 new_upper=2\ncommit\n"); /* which registers anew */
}
END_TEST

START_TEST(of_a_removed_shard_it_is_enoent)
{
	int fd = ctl_open();

	want_txn(shard, "begin expected_upper=* new_upper=- since=-\ncommit\n");
	ck_works(rmdir(shard));
	ck_assert_int_eq(put(fd, "compact\n"), -ENOENT);
	want_verdict_like(fd, "error UnknownShard errno=ENOENT ");
	close(fd);
}
END_TEST

/* --- verdicts -------------------------------------------------------------------------------------- */

START_TEST(nothing_written_nothing_to_read)
{
	struct stat st;
	int fd = ctl_open();

	want_file(shard, "ctl", "");
	want_verdict(fd, "");
	ck_works(stat(ctl(), &st));
	ck_assert_int_eq(st.st_size, 0);
	close(fd);
}
END_TEST

START_TEST(verdicts_come_one_a_read_at_whatever_offset)
{
	char buf[64] = "";
	int fd = ctl_open();

	ck_assert_int_eq(pwrite(fd, "gc\n", 3, 123456), 3);
	ck_assert_int_eq(pwrite(fd, "nothing", 7, 0), -1);
	ck_assert_int_eq(put(fd, "rollup"), 6);
	ck_assert_int_eq(pread(fd, buf, 3, 1 << 20), 3); /* a piece of the line, then its rest */
	ck_assert_str_eq(buf, "ok ");
	want_verdict_like(fd, "gc seqno=");
	want_verdict_like(fd, "error BadSyntax ");
	want_verdict_like(fd, "ok rollup ");
	want_verdict(fd, "");
	close(fd);
}
END_TEST

START_TEST(at_most_64_kib_of_verdicts_are_kept_the_oldest_go)
{
	char line[2048], last[64];
	size_t total = 0;
	ssize_t n;
	int fd = ctl_open();

	for (int i = 0; i < 2000; i++) {
		snprintf(last, sizeof last, "nonsense%d", i);
		ck_assert_int_eq(put(fd, last), -EINVAL);
	}
	for (ssize_t had = 0; (n = read(fd, line, sizeof line - 1)) > 0; had = n) {
		line[n] = '\0';
		ck_assert_int_eq(strncmp(line, "error BadSyntax ", 16), 0);
		ck_assert_int_eq(line[n - 1], '\n');
		ck_assert_int_eq(count_lines(line), 1);
		ck_assert(had == 0 || had <= n); /* the numbers only grow */
		total += (size_t)n;
	}
	ck_assert_int_eq(n, 0);
	ck_assert_ptr_nonnull(strstr(line, "nonsense1999"));
	ck_assert_uint_le(total, 64 << 10);
	ck_assert_uint_ge(total, 60 << 10);
	close(fd);
}
END_TEST

/* --- clients --------------------------------------------------------------------------------------- */

START_TEST(shells_and_tools_can_say_it)
{
	char *path = strdup(ctl()), *out;

	free(want_sh("echo compact > %s; echo gc >> %s; printf rollup | tee %s | grep -q rollup", path, path,
		     path));
	free(want_sh("echo gc | dd of=%s conv=notrunc status=none; echo gc | dd of=%s seek=9 status=none",
		     path, path));
	free(want_sh("cd %s && echo gc > line && cp line %s && cat line > %s", w.dir, path, path));
	free(want_sh("python3 -c 'import sys; f = open(sys.argv[1], \"r+b\", 0); f.write(b\"gc\"); "
		     "assert f.read(999).startswith(b\"ok gc \"), 1' %s",
		     path));
	out = want_sh("bash -c 'exec 3<>%s; echo gc >&3; echo compat 2>&- >&3; cat <&3' | cut -d' ' -f1-2",
		      path);
	ck_assert_str_eq(out, "ok gc\nerror BadSyntax\n");
	free(out);
	ck_assert_int_ne(sh(&out, "bash -c 'echo nothing > %s' 2>&1", path), 0);
	ck_assert_ptr_nonnull(strstr(out, "Invalid argument"));
	free(out);
	free(path);
}
END_TEST

START_TEST(what_tools_set_is_ignored_and_it_stays)
{
	struct stat before, after;
	int fd;

	ck_works(stat(ctl(), &before));
	ck_works(chmod(ctl(), 0));
	ck_works(chown(ctl(), ALICE, ALICE));
	ck_works(utimensat(AT_FDCWD, ctl(), NULL, 0));
	ck_works(truncate(ctl(), 7));
	fd = ctl_open();
	ck_works(ftruncate(fd, 0));
	ck_works(fsync(fd));
	close(fd);
	ck_works(stat(ctl(), &after));
	ck_assert_int_eq(before.st_ino, after.st_ino);
	ck_assert_int_eq(before.st_mode, after.st_mode);
	ck_assert_int_eq(before.st_uid, after.st_uid);
	ck_assert_int_eq(after.st_size, 0);
	ck_fails(unlink(ctl()), EPERM);
	ck_fails(rename(ctl(), at(shard, "other")), EPERM);
	ck_fails(rename(at(shard, "since"), ctl()), EPERM);
	ck_errno(write_once(ctl(), "gc\n"), 0);
}
END_TEST

static int say_gc(void *path)
{
	return write_once(path, "gc\n");
}

START_TEST(who_may_write_the_shard_may_maintain_it)
{
	char *path = strdup(ctl());
	struct stat st;

	world_stop(&w);
	world_start(&w, "allow_other");
	ck_works(chmod(shard, 0755));
	ck_works(stat(ctl(), &st));
	ck_assert_int_eq(st.st_mode & 07777, 0644);
	ck_errno(as_user(ALICE, say_gc, path), EACCES);
	ck_works(chown(shard, ALICE, ALICE));
	ck_errno(as_user(ALICE, say_gc, path), 0);
	ck_works(chmod(shard, 0555));
	ck_errno(as_user(ALICE, say_gc, path), EACCES);
	free(path);
}
END_TEST

START_TEST(on_a_mount_for_reading_it_is_erofs)
{
	int fd;

	world_stop(&w);
	world_start(&w, "ro");
	ck_fails(open(ctl(), O_WRONLY), EROFS);
	fd = open(ctl(), O_RDONLY);
	want_verdict(fd, "");
	close(fd);
}
END_TEST

/* --- waiting --------------------------------------------------------------------------------------- */

static void nothing(int sig)
{
	(void)sig;
}

static int say_compact(void *path)
{
	struct sigaction sa = {.sa_handler = nothing};
	int fd = open(path, O_RDWR), status;
	char line[200] = "";

	sigaction(SIGUSR1, &sa, NULL);
	status = write(fd, "compact\n", 8) == 8 ? 0 : errno;
	/* the verdict is there with the answer */
	if (read(fd, line, sizeof line - 1) <= 0 && status != ESHUTDOWN)
		return 254;
	if (status == EINTR && strncmp(line, "error Interrupted errno=EINTR ", 30) != 0)
		return 253;
	return status == 0 && strncmp(line, "ok compact ", 11) != 0 ? 252 : status;
}

START_TEST(a_signal_ends_a_write_that_waits)
{
	char *path = strdup(ctl());
	uint64_t before;
	pid_t pid;
	int status;

	fill();
	pid = spawn(say_compact, path);
	want_in_call(pid, SYS_write);
	before = now_ms();
	ck_works(kill(pid, SIGUSR1));
	ck_errno(join(pid), EINTR);
	pid = spawn(say_compact, path);
	want_in_call(pid, SYS_write);
	ck_works(kill(pid, SIGKILL));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_uint_lt(now_ms() - before, 5000);
	/* the mount is well */
	ck_errno(write_once(path, "gc\n"), 0);
	want_file(shard, "upper", "8\n");
	free(path);
}
END_TEST

START_TEST(while_one_waits_others_are_served)
{
	char *path = strdup(ctl()), *out;
	pid_t pid;
	int fd;

	fill();
	fd = ctl_open();
	pid = spawn(say_compact, path);
	want_in_call(pid, SYS_write);
	ck_assert_int_eq(put(fd, "nonsense\n"), -EINVAL); /* another open of the same file */
	ck_errno(write_once(path, "nonsense\n"), EINVAL);
	want_txn(shard, "begin expected_upper=8 new_upper=9\ncommit\n");
	out = want_sh(
		"python3 -c 'import json,sys; print([m for m in json.load(open(sys.argv[1]))[\"merges\"] "
		"if m[\"running\"]] != [])' %s/state",
		shard);
	ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0); /* all that while */
	ck_assert_str_eq(out, "True\n");
	ck_errno(join(pid), 0);
	close(fd);
	free(out);
	free(path);
}
END_TEST

enum { MANY = 100 }; /* more than a mount has threads */

START_TEST(many_wait_and_hold_no_thread)
{
	char *path = strdup(ctl());
	pid_t pids[MANY];

	fill();
	for (int i = 0; i < MANY; i++)
		pids[i] = spawn(say_compact, path);
	for (int i = 0; i < 20; i++) {
		want_txn(shard, "begin expected_upper=8 new_upper=8\ncommit\n");
		want_file(shard, "upper", "8\n");
	}
	for (int i = 0; i < MANY; i++)
		ck_errno(join(pids[i]), 0);
	free(path);
}
END_TEST

START_TEST(a_stop_answers_who_waits)
{
	char *path = strdup(ctl());
	pid_t pid;
	uint64_t before;
	int status;

	fill();
	pid = spawn(say_compact, path);
	want_in_call(pid, SYS_write);
	before = now_ms();
	ck_works(kill(w.pid, SIGTERM));
	status = join(pid);
	ck_assert_msg(status == ESHUTDOWN || status == 0, "%s", strerrorname_np(status));
	ck_assert_int_eq(world_wait(&w), 0);
	ck_assert_uint_lt(now_ms() - before, 10000);
	world_start(&w, NULL);
	want_file(shard, "upper", "8\n");
	ck_errno(write_once(path, "rollup\n"), 0);
	free(path);
}
END_TEST

START_TEST(a_mount_that_is_killed_ends_it_too)
{
	char *path = strdup(ctl());
	pid_t pid;
	int status;

	fill();
	pid = spawn(say_compact, path);
	want_in_call(pid, SYS_write);
	world_kill(&w);
	status = join(pid);
	ck_assert_msg(status == ENOTCONN || status == ECONNABORTED || status == 254, "%d", status);
	world_start(&w, NULL);
	ck_errno(write_once(path, "compact\n"), 0);
	want_file(shard, "upper", "8\n");
	free(path);
}
END_TEST

Suite *ctl_suite(void)
{
	Suite *s = suite_create("ctl");
	TCase *tc = shard_case(s, "ctl", 120);

	tcase_add_test(tc, a_verb_is_done_when_its_write_returns);
	tcase_add_test(tc, directories_that_a_kill_left_empty_go_with_gc_and_with_the_next_start);
	tcase_add_test(tc, a_wrong_line_is_einval_and_says_why);
	tcase_add_test(tc, a_long_line_is_einval);
	tcase_add_test(tc, expire_strikes_the_one_it_names);
	tcase_add_test(tc, of_a_removed_shard_it_is_enoent);
	tcase_add_test(tc, nothing_written_nothing_to_read);
	tcase_add_test(tc, verdicts_come_one_a_read_at_whatever_offset);
	tcase_add_test(tc, at_most_64_kib_of_verdicts_are_kept_the_oldest_go);
	tcase_add_test(tc, shells_and_tools_can_say_it);
	tcase_add_test(tc, what_tools_set_is_ignored_and_it_stays);
	tcase_add_test(tc, who_may_write_the_shard_may_maintain_it);
	tcase_add_test(tc, on_a_mount_for_reading_it_is_erofs);
	tcase_add_test(tc, a_signal_ends_a_write_that_waits);
	tcase_add_test(tc, while_one_waits_others_are_served);
	tcase_add_test(tc, many_wait_and_hold_no_thread);
	tcase_add_test(tc, a_stop_answers_who_waits);
	tcase_add_test(tc, a_mount_that_is_killed_ends_it_too);
	return s;
}
