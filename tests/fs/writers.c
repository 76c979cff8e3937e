/* writers.c - who writes (writers/), and waiting for the upper (wait/). */
#include "tests/fs/fixture.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* --- writers --------------------------------------------------------------------------------------- */

START_TEST(writers_lists_who_appends)
{
	char *out, *name;
	struct stat st, st2;

	out = want_sh("ls %s/writers", shard);
	ck_assert_str_eq(out, ""); /* nobody has */
	free(out);
	want_txn(shard, "begin expected_upper=0 new_upper=7\n0\t1\ta\tb\ncommit\n");
	name = want_sh("ls %s/writers", shard);
	ck_assert_uint_eq(strlen(name), 38);
	name[37] = '\0';
	ck_works(stat(at(at(shard, "writers"), name), &st));
	out = slurp(at(at(shard, "writers"), name));
	ck_assert_int_eq(st.st_size, strlen(out));
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0444);
	free(out);
	out = want_sh("cd %s/writers; test \"$(sed -n 's/^host=//p' *)\" = \"$(hostname)\"; grep -qx 'purpose=shardfs mounted on %s (pid %d)' *; "
		      "grep -qxE 'heartbeat=20[0-9-]+T[0-9:]+[.][0-9]{3}Z' *; sed -n 's/=[^=]*$//p' *; grep -h ^l *",
		      shard, w.mnt, (int)w.pid);
	ck_assert_str_eq(out, "host\npurpose\nheartbeat\nlease_s\nlast_upper\nlease_s=3600\nlast_upper=7\n");
	free(out);
	want_txn(shard, "begin expected_upper=7 new_upper=1000\ncommit\n");
	ck_works(stat(at(at(shard, "writers"), name), &st2));
	ck_assert_uint_eq(st2.st_ino, st.st_ino);
	ck_assert_int_eq(st2.st_size, st.st_size + 3);
	out = want_sh("cat %s/writers/w* | grep last_upper; ls %s/writers | wc -l", shard, shard);
	ck_assert_str_eq(out, "last_upper=1000\n1\n");
	free(out);
	ck_fails(open(at(shard, "writers/x"), O_RDONLY), ENOENT);
	ck_fails(open(at(shard, "writers/w11111111-1111-4111-8111-111111111111"), O_RDONLY), ENOENT);
	ck_assert_int_eq(open(at(at(shard, "writers"), name), O_WRONLY), -1);
	ck_fails(unlink(at(at(shard, "writers"), name)), EPERM);
	ck_fails(rename(at(at(shard, "writers"), name), at(shard, "writers/x")), EPERM);
	free(name);
}
END_TEST

START_TEST(each_mount_is_a_writer)
{
	char *out;

	want_txn(shard, "begin expected_upper=* new_upper=+1\ncommit\n");
	world_kill(&w); /* it cannot say goodbye */
	world_start(&w, NULL);
	want_txn(shard, "begin expected_upper=* new_upper=+1\ncommit\n");
	out = want_sh("cd %s/writers; ls | wc -l; cat * | grep last_upper | sort; "
		      "python3 -c 'import json; s = json.load(open(\"../state\")); print(s[\"writer_count\"], "
		      "sorted(w[\"last_upper\"] for w in s[\"writers\"].values()), "
		      "all(w[\"host\"] and w[\"heartbeat\"].endswith(\"Z\") for w in s[\"writers\"].values()))'",
		      shard);
	ck_assert_str_eq(out, "2\nlast_upper=1\nlast_upper=2\n2 [1, 2] True\n");
	free(out);
}
END_TEST

/* A mount has one id in all shards it writes to; what is cached of a file in one must not show in another. */
START_TEST(a_writer_of_two_shards_has_a_file_in_each)
{
	char *other = shard_new(&w), *out;
	struct stat st, st2;

	want_txn(shard, "begin expected_upper=0 new_upper=7\ncommit\n");
	want_txn(other, "begin expected_upper=0 new_upper=1000\ncommit\n");
	ck_works(chmod(other, 0700));
	out = want_sh("cd %s/writers; exec 3< $(ls); cd %s/writers; grep -h last_upper w*; "
		      "stat -c %%a w*; grep -h last_upper /dev/fd/3",
		      shard, other);
	ck_assert_str_eq(out, "last_upper=1000\n400\nlast_upper=7\n");
	free(out);
	out = want_sh("basename %s/writers/w*", shard);
	out[37] = '\0';
	ck_works(stat(at(at(shard, "writers"), out), &st));
	ck_works(stat(at(at(other, "writers"), out), &st2));
	ck_assert_uint_ne(st.st_ino, st2.st_ino);
	free(out);
	free(other);
}
END_TEST

START_TEST(odd_words_of_a_writer_are_made_harmless)
{
	char *mnt, *out;

	world_stop(&w);
	mnt = check_path(w.dir, "odd\nhost=you\x01\xff dir");
	ck_works(mkdir(mnt, 0755));
	free(w.mnt);
	w.mnt = mnt;
	out = want_sh("%s %s '%s'", shardfs_path(), w.store, mnt);
	free(out);
	w.pid = world_find(&w);
	ck_assert_int_ne(w.pid, 0);
	out = want_sh("cd '%s'/shard/s*; printf 'begin expected_upper=0 new_upper=1\\ncommit\\n' > append; cat writers/* | wc -l; "
		      "grep -c '^host=' writers/*; python3 -m json.tool state > /dev/null",
		      mnt);
	ck_assert_str_eq(out, "5\n1\n");
	free(out);
}
END_TEST

/* --- wait ------------------------------------------------------------------------------------------ */

static const char *wait_for(unsigned long long time)
{
	char name[40];

	snprintf(name, sizeof name, "wait/%llu", time);
	return at(shard, name);
}

struct reader {
	char *path;
	const char *want;
};

/* Read the file whole; 0 if it is as wanted, or errno. */
static int read_it(void *arg)
{
	const struct reader *r = arg;
	char *got = slurp_rc(r->path);

	return got == NULL ? errno : strcmp(got, r->want) == 0 ? 0 : 255;
}

static pid_t spawn_reader(unsigned long long time, const char *want)
{
	struct reader r = {.path = strdup(wait_for(time)), .want = want};
	pid_t pid = spawn(read_it, &r);

	free(r.path);
	want_in_call(pid, SYS_read);
	return pid;
}

START_TEST(wait_blocks_until_the_upper_has_passed)
{
	char buf[32];
	pid_t reader;
	int fd;

	reader = spawn_reader(5, "12\n");
	want_txn(shard, "begin expected_upper=0 new_upper=5\n3\t1\ta\t\ncommit\n");
	want_in_call(reader, SYS_read);
	want_txn(shard, "begin expected_upper=5 new_upper=12\ncommit\n");
	ck_errno(join(reader), 0);
	want_file(shard, "wait/0", "12\n");
	want_file(shard, "wait/11", "12\n");
	fd = open(wait_for(3), O_RDONLY);
	ck_assert_int_eq(read(fd, buf, 1), 1);
	ck_assert_int_eq(read(fd, buf, sizeof buf), 2);
	ck_assert_int_eq(read(fd, buf, sizeof buf), 0);
	reader = spawn_reader(18446744073709551615ull, "-\n");
	want_txn(shard, "begin expected_upper=12 new_upper=1000\ncommit\n");
	ck_assert_int_eq(pread(fd, buf, sizeof buf, 0), 5); /* fresh */
	ck_assert_int_eq(memcmp(buf, "1000\n", 5), 0);
	close(fd);
	want_txn(shard, "begin expected_upper=1000 new_upper=-\ncommit\n");
	ck_errno(join(reader), 0);
	want_file(shard, "wait/18446744073709551615", "-\n");
	want_file(shard, "wait/0", "-\n");
}
END_TEST

START_TEST(only_times_can_be_waited_for)
{
	static const char *const bad[] = {"x", "now", "-", "01", "+1", "18446744073709551616", "1-2"};
	struct stat st;
	char *out;
	int fd;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_fails(open(at(at(shard, "wait"), bad[i]), O_RDONLY), ENOENT);
	out = want_sh("ls -A %s/wait", shard);
	ck_assert_str_eq(out, "");
	free(out);
	fd = open(wait_for(7), O_RDONLY); /* does not wait */
	ck_works(fstat(fd, &st));
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0444);
	close(fd);
	ck_assert_int_eq(open(wait_for(7), O_WRONLY), -1);
	ck_fails(unlink(wait_for(7)), EPERM);
}
END_TEST

static void nothing(int sig)
{
	(void)sig;
}

static int read_with_handler(void *arg)
{
	struct sigaction sa = {.sa_handler = nothing};
	char buf[64];
	int fd = open(arg, O_RDONLY);

	sigaction(SIGUSR1, &sa, NULL);
	return read(fd, buf, sizeof buf) < 0 ? errno : 255;
}

START_TEST(a_signal_ends_a_wait)
{
	char *path = strdup(wait_for(7));
	pid_t pid = spawn(read_with_handler, path);
	int status;

	want_in_call(pid, SYS_read);
	ck_works(kill(pid, SIGUSR1));
	ck_errno(join(pid), EINTR);
	pid = spawn(read_with_handler, path);
	want_in_call(pid, SYS_read);
	ck_works(kill(pid, SIGKILL));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	want_txn(shard, "begin expected_upper=0 new_upper=8\ncommit\n");
	want_file(shard, "wait/7", "8\n");
	free(path);
}
END_TEST

START_TEST(the_end_of_the_shard_ends_a_wait)
{
	pid_t reader;

	want_txn(shard, "begin expected_upper=0 new_upper=3 since=-\ncommit\n");
	reader = spawn_reader(9, "-\n");
	want_txn(shard, "begin expected_upper=3 new_upper=-\ncommit\n");
	ck_errno(join(reader), 0);
	int fd = open(wait_for(9), O_RDONLY);

	ck_works(rmdir(shard));
	ck_fails(read(fd, (char[8]){0}, 8), ENOENT);
	close(fd);
}
END_TEST

static bool polled(int fd, int timeout)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, timeout) == 1 && (p.revents & POLLIN) != 0;
}

static int poll_long(void *arg)
{
	return polled(*(int *)arg, DEADLINE_MS) ? 0 : 1;
}

START_TEST(wait_can_be_polled_and_read_without_blocking)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET}, got;
	char buf[32];
	int fd = open(wait_for(3), O_RDONLY | O_NONBLOCK), ep = epoll_create1(0);
	pid_t pid;

	ck_fails(read(fd, buf, sizeof buf), EAGAIN);
	ck_assert(!polled(fd, 0));
	ck_works(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	want_txn(shard, "begin expected_upper=0 new_upper=2\ncommit\n");
	ck_assert(!polled(fd, 0));
	ck_assert_int_eq(epoll_wait(ep, &got, 1, 0), 0);
	pid = spawn(poll_long, &fd);
	want_in_call(pid, SYS_poll);
	want_txn(shard, "begin expected_upper=2 new_upper=4\ncommit\n");
	ck_assert_int_eq(join(pid), 0);
	ck_assert_int_eq(epoll_wait(ep, &got, 1, DEADLINE_MS), 1);
	ck_assert(polled(fd, 0));
	ck_assert_int_eq(read(fd, buf, sizeof buf), 2);
	ck_assert_int_eq(memcmp(buf, "4\n", 2), 0);
	ck_assert_int_eq(read(fd, buf, sizeof buf), 0);
	close(fd);
	close(ep);
}
END_TEST

enum { READERS = 300 };

static void *read_in_thread(void *arg)
{
	char buf[64];
	int fd = open(wait_for(1), O_RDONLY);

	*(ssize_t *)arg = read(fd, buf, sizeof buf);
	close(fd);
	return NULL;
}

START_TEST(hundreds_wait_and_delay_nobody)
{
	pthread_t threads[READERS];
	ssize_t got[READERS];
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (int i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], &attr, read_in_thread, &got[i]), 0);
	for (int i = 0; i < 20; i++)
		want_txn(shard, "begin expected_upper=0 new_upper=0\ncommit\n");
	want_txn(shard, "begin expected_upper=0 new_upper=2\ncommit\n");
	for (int i = 0; i < READERS; i++) {
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
		ck_assert_int_eq(got[i], 2);
	}
	pthread_attr_destroy(&attr);
}
END_TEST

START_TEST(walks_over_all_of_it_end)
{
	char *out;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tneedle\tx\ncommit\n");
	ck_errno(write_once(at(shard, "batches"), ""), EISDIR);
	out = want_sh("cd %s && printf '1\\t1\\tneedle\\t\\n' > batches/staged && timeout 60 grep -rl needle . | sort && "
		      "timeout 60 find . -type f -exec cat {} + > /dev/null && timeout 60 ls -laR . > /dev/null && "
		      "timeout 60 du -s . > /dev/null && timeout 60 tar cf - . | tar tf - | grep -c ./batches/staged",
		      shard);
	ck_assert_str_eq(out, "./batches/0-1\n./batches/staged\n./snapshot\n1\n");
	free(out);
}
END_TEST

Suite *writers_suite(void)
{
	Suite *s = suite_create("writers and wait");
	TCase *tc = shard_case(s, "writers and wait", 120);

	tcase_add_test(tc, writers_lists_who_appends);
	tcase_add_test(tc, each_mount_is_a_writer);
	tcase_add_test(tc, a_writer_of_two_shards_has_a_file_in_each);
	tcase_add_test(tc, odd_words_of_a_writer_are_made_harmless);
	tcase_add_test(tc, wait_blocks_until_the_upper_has_passed);
	tcase_add_test(tc, only_times_can_be_waited_for);
	tcase_add_test(tc, a_signal_ends_a_wait);
	tcase_add_test(tc, the_end_of_the_shard_ends_a_wait);
	tcase_add_test(tc, wait_can_be_polled_and_read_without_blocking);
	tcase_add_test(tc, hundreds_wait_and_delay_nobody);
	tcase_add_test(tc, walks_over_all_of_it_end);
	return s;
}
