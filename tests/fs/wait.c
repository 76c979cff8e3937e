/* wait.c - reads that wait: as_of of a time to come, signals, O_NONBLOCK, poll and epoll. */
#include "tests/fs/fixture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const char *as_of(unsigned long long time)
{
	char name[40];

	snprintf(name, sizeof name, "as_of/%llu", time);
	return at(shard, name);
}

struct reader {
	const char *path;
	const char *want;
};

/* Read the file whole; 0 if it is as wanted, or errno. */
static int read_it(void *arg)
{
	const struct reader *r = arg;
	char *got = slurp_rc(r->path);

	return got == NULL ? errno : strcmp(got, r->want) == 0 ? 0 : 255;
}

START_TEST(as_of_waits_for_its_time)
{
	struct reader r = {.path = as_of(5), .want = "5\t1\ta\t\n5\t1\tb\t\n"};
	char *path = strdup(r.path);

	r.path = path;
	pid_t reader = spawn(read_it, &r);

	want_in_call(reader, SYS_read);
	want_txn(shard, "begin expected_upper=0 new_upper=5\n3\t1\ta\t\ncommit\n");
	want_in_call(reader, SYS_read);
	want_txn(shard, "begin expected_upper=5 new_upper=9\n5\t1\tb\t\n6\t1\tc\t\ncommit\n");
	ck_errno(join(reader), 0);
	/* and with the end of the shard */
	snprintf(path, strlen(path) + 1, "%s", as_of(9));
	r.want = "9\t1\ta\t\n9\t1\tb\t\n9\t1\tc\t\n";
	reader = spawn(read_it, &r);
	want_in_call(reader, SYS_read);
	want_txn(shard, "begin expected_upper=9 new_upper=-\ncommit\n");
	ck_errno(join(reader), 0);
	free(path);
}
END_TEST

START_TEST(stat_and_open_of_an_as_of_to_come_do_not_wait)
{
	struct stat st;
	int fd = open(as_of(1000), O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_works(fstat(fd, &st));
	ck_works(stat(as_of(1001), &st));
	ck_assert_int_eq(st.st_size, 0);
	close(fd);
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

START_TEST(a_signal_ends_a_waiting_read)
{
	char *path = strdup(as_of(7));
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
	/* the mount is well */
	want_txn(shard, "begin expected_upper=0 new_upper=8\n7\t1\ta\t\ncommit\n");
	want_file(shard, "as_of/7", "7\t1\ta\t\n");
	free(path);
}
END_TEST

START_TEST(o_nonblock_gives_eagain_until_it_is_complete)
{
	char buf[64];
	int fd = open(as_of(3), O_RDONLY | O_NONBLOCK);
	int late = open(as_of(3), O_RDONLY);

	ck_fails(read(fd, buf, sizeof buf), EAGAIN);
	ck_works(fcntl(late, F_SETFL, O_NONBLOCK));
	ck_fails(read(late, buf, sizeof buf), EAGAIN);
	want_txn(shard, "begin expected_upper=0 new_upper=4\n3\t1\ta\t\ncommit\n");
	ck_assert_int_eq(read(fd, buf, sizeof buf), 7);
	ck_assert_int_eq(read(fd, buf, sizeof buf), 0);
	ck_assert_int_eq(read(late, buf, sizeof buf), 7);
	close(fd);
	close(late);
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

START_TEST(poll_wakes_on_as_of)
{
	int fd = open(as_of(3), O_RDONLY);

	ck_assert(!polled(fd, 0));
	want_txn(shard, "begin expected_upper=0 new_upper=2\ncommit\n");
	ck_assert(!polled(fd, 0));
	pid_t pid = spawn(poll_long, &fd);

	want_in_call(pid, SYS_poll);
	want_txn(shard, "begin expected_upper=2 new_upper=4\ncommit\n");
	ck_assert_int_eq(join(pid), 0);
	ck_assert(polled(fd, 0));
	close(fd);
}
END_TEST

START_TEST(poll_wakes_on_a_new_upper)
{
	char buf[32];
	int fd = open(at(shard, "upper"), O_RDONLY);

	ck_assert(polled(fd, 0)); /* nothing was read yet */
	ck_assert_int_eq(read(fd, buf, sizeof buf), 2);
	ck_assert(!polled(fd, 0));
	for (unsigned i = 0; i < 5; i++) {
		pid_t pid = spawn(poll_long, &fd);

		want_in_call(pid, SYS_poll);
		want_txn(shard, "begin expected_upper=* new_upper=+1\ncommit\n");
		ck_assert_int_eq(join(pid), 0);
		ck_assert(polled(fd, 0));
		ck_assert_int_eq(pread(fd, buf, sizeof buf, 0), 2);
		ck_assert_int_eq(buf[0], '1' + (int)i);
		ck_assert(!polled(fd, 0));
	}
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	ck_assert(polled(fd, 0));
	close(fd);
}
END_TEST

START_TEST(epoll_wakes_edge_and_level)
{
	struct epoll_event e = {.events = EPOLLIN}, got;
	char buf[32];
	int ep = epoll_create1(0), edge = open(at(shard, "upper"), O_RDONLY | O_NONBLOCK),
	    level = open(as_of(2), O_RDONLY | O_NONBLOCK);

	ck_assert_int_eq(read(edge, buf, sizeof buf), 2);
	e.events = EPOLLIN | EPOLLET;
	e.data.fd = edge;
	ck_works(epoll_ctl(ep, EPOLL_CTL_ADD, edge, &e));
	ck_assert_int_eq(epoll_wait(ep, &got, 1, 0), 0);
	for (int i = 0; i < 3; i++) {
		want_txn(shard, "begin expected_upper=* new_upper=+1\ncommit\n");
		ck_assert_int_eq(epoll_wait(ep, &got, 1, DEADLINE_MS), 1);
		ck_assert_int_eq(got.data.fd, edge);
		ck_assert_int_eq(pread(edge, buf, sizeof buf, 0), 2);
		ck_assert_int_eq(epoll_wait(ep, &got, 1, 0), 0);
	}
	ck_works(epoll_ctl(ep, EPOLL_CTL_DEL, edge, NULL));
	close(level);
	level = open(as_of(5), O_RDONLY | O_NONBLOCK);
	e.events = EPOLLIN;
	e.data.fd = level;
	ck_works(epoll_ctl(ep, EPOLL_CTL_ADD, level, &e));
	ck_assert_int_eq(epoll_wait(ep, &got, 1, 0), 0);
	want_txn(shard, "begin expected_upper=* new_upper=+9\n*\t1\ta\t\ncommit\n");
	ck_assert_int_eq(epoll_wait(ep, &got, 1, DEADLINE_MS), 1);
	ck_assert_int_eq(got.data.fd, level);
	ck_assert_int_eq(read(level, buf, sizeof buf), 7);
	ck_assert_int_eq(epoll_wait(ep, &got, 1, 0), 1);
	close(level);
	close(edge);
	close(ep);
}
END_TEST

START_TEST(other_files_are_always_ready)
{
	static const char *const names[] = {"since",  "append", "ctl",          "snapshot",
					    "errors", "state",  "../../metrics"};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		int fd = open(at(shard, names[i]), O_RDONLY);
		struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};

		ck_assert_int_eq(poll(&p, 1, 0), 1);
		ck_assert_int_eq(p.revents, POLLIN | POLLOUT);
		close(fd);
	}
}
END_TEST

/* --- many ------------------------------------------------------------------------------------------ */

enum { READERS = 500 };

static void *read_in_thread(void *arg)
{
	char buf[64];
	int fd = open(as_of(1), O_RDONLY);

	*(ssize_t *)arg = read(fd, buf, sizeof buf);
	close(fd);
	return NULL;
}

START_TEST(hundreds_wait_and_delay_no_writer)
{
	pthread_t threads[READERS];
	ssize_t got[READERS];
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (int i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], &attr, read_in_thread, &got[i]), 0);
	for (int i = 0; i < 20; i++) {
		want_txn(shard, "begin expected_upper=0 new_upper=0\ncommit\n");
		want_file(shard, "upper", "0\n");
	}
	want_txn(shard, "begin expected_upper=0 new_upper=2\n1\t1\ta\t\ncommit\n");
	for (int i = 0; i < READERS; i++) {
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
		ck_assert_int_eq(got[i], 7);
	}
	pthread_attr_destroy(&attr);
}
END_TEST

START_TEST(a_waiting_as_of_holds_its_time)
{
	char *path = strdup(as_of(4));
	struct reader r = {.path = path, .want = "4\t1\ta\t\n"};
	pid_t reader = spawn(read_it, &r);

	want_in_call(reader, SYS_read);
	ck_errno(write_once(at(shard, "since"), "8"), 0);
	want_txn(shard, "begin expected_upper=0 new_upper=10\n4\t1\ta\t\n6\t1\tb\t\ncommit\n");
	ck_errno(join(reader), 0);
	free(path);
}
END_TEST

START_TEST(an_open_snapshot_outlives_its_time_and_its_shard)
{
	char buf[64];
	struct stat st;
	int fd, fd2;

	want_txn(shard, "begin expected_upper=0 new_upper=5\n1\t1\ta\t\ncommit\n");
	fd = open(as_of(2), O_RDONLY);
	fd2 = open(at(shard, "snapshot"), O_RDONLY);
	want_txn(shard, "begin expected_upper=5 new_upper=- since=-\n5\t-1\ta\t\ncommit\n");
	ck_works(rmdir(shard));
	ck_assert_int_eq(read(fd, buf, sizeof buf), 7);
	ck_assert_int_eq(memcmp(buf, "2\t1\ta\t\n", 7), 0);
	ck_assert_int_eq(pread(fd2, buf, sizeof buf, 0), 7);
	ck_works(fstat(fd, &st)); /* cat and most others ask first */
	ck_assert(S_ISREG(st.st_mode));
	ck_works(fstat(fd2, &st));
	ck_assert_int_ne(stat(at(shard, "upper"), &st), 0);
	close(fd);
	close(fd2);
}
END_TEST

Suite *wait_suite(void)
{
	Suite *s = suite_create("waiting");
	TCase *tc = shard_case(s, "waiting", 120);

	tcase_add_test(tc, as_of_waits_for_its_time);
	tcase_add_test(tc, stat_and_open_of_an_as_of_to_come_do_not_wait);
	tcase_add_test(tc, a_signal_ends_a_waiting_read);
	tcase_add_test(tc, o_nonblock_gives_eagain_until_it_is_complete);
	tcase_add_test(tc, poll_wakes_on_as_of);
	tcase_add_test(tc, poll_wakes_on_a_new_upper);
	tcase_add_test(tc, epoll_wakes_edge_and_level);
	tcase_add_test(tc, other_files_are_always_ready);
	tcase_add_test(tc, hundreds_wait_and_delay_no_writer);
	tcase_add_test(tc, a_waiting_as_of_holds_its_time);
	tcase_add_test(tc, an_open_snapshot_outlives_its_time_and_its_shard);
	return s;
}
