/* listen_wait.c - listeners that wait: signals, poll, the end of the shard and of the mount, and hundreds of them. */
#include "tests/fs/follower.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>

struct wanted {
	int fd;
	const char *text;
	off_t at;
	bool by_offset;
};

/* One read(2): 0 if it gives that text, or errno. */
static int read_one(void *arg)
{
	const struct wanted *r = arg;
	char text[TEXT_MAX];
	ssize_t n = r->by_offset ? pread(r->fd, text, sizeof text - 1, r->at) : read(r->fd, text, sizeof text - 1);

	if (n < 0)
		return errno;
	text[n] = '\0';
	return strcmp(text, r->text) == 0 ? 0 : 255;
}

static void tick(void)
{
	want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\ta\t\ncommit\n");
}

START_TEST(a_read_waits_until_there_is_something)
{
	struct wanted r = {.fd = follow("listen/0", 0), .text = "begin lower=0 upper=1\n0\t1\ta\t\ncommit\n"};
	pid_t pid = spawn(read_one, &r);

	want_in_call(pid, SYS_read);
	tick();
	ck_errno(join(pid), 0);
	r.text = "begin lower=1 upper=-\ncommit\n";
	pid = spawn(read_one, &r);
	want_in_call(pid, SYS_read);
	want_txn(shard, "begin expected_upper=1 new_upper=-\ncommit\n");
	ck_errno(join(pid), 0);
	r.text = "";
	ck_errno(read_one(&r), 0);
	close(r.fd);
}
END_TEST

START_TEST(a_subscription_waits_for_its_time)
{
	struct wanted r = {.fd = follow("subscribe/2", 0),
			   .text = "begin expected_upper=0 new_upper=3 since=2\n2\t3\ta\t\ncommit\n"};
	pid_t pid = spawn(read_one, &r);

	want_in_call(pid, SYS_read);
	tick();
	tick();
	want_in_call(pid, SYS_read);
	tick();
	ck_errno(join(pid), 0);
	close(r.fd);
}
END_TEST

static void nothing(int sig)
{
	(void)sig;
}

static int read_with_handler(void *arg)
{
	struct sigaction sa = {.sa_handler = nothing};

	sigaction(SIGUSR1, &sa, NULL);
	return read_one(arg);
}

START_TEST(a_signal_ends_it_at_once)
{
	struct wanted r = {.fd = follow("listen/0", 0), .text = "begin lower=0 upper=1\n0\t1\ta\t\ncommit\n"};
	int status;

	for (int i = 0; i < 20; i++) {
		pid_t pid = spawn(read_with_handler, &r);
		uint64_t start;

		want_in_call(pid, SYS_read);
		start = now_ms();
		ck_works(kill(pid, i % 2 == 0 ? SIGUSR1 : SIGKILL));
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert(i % 2 == 0 ? WIFEXITED(status) && WEXITSTATUS(status) == EINTR : WIFSIGNALED(status));
		/* one at least must be as quick as a machine that does other things too allows */
		if (now_ms() - start < 100)
			break;
		ck_assert_int_lt(i, 19);
	}
	tick();
	ck_errno(read_one(&r), 0);
	close(r.fd);
}
END_TEST

START_TEST(o_nonblock_gives_eagain)
{
	char buf[64];
	int fd = follow("listen/0", O_NONBLOCK), late = follow("listen/0", 0), sub = follow("subscribe/0", O_NONBLOCK);

	ck_fails(read(fd, buf, sizeof buf), EAGAIN);
	ck_fails(read(sub, buf, sizeof buf), EAGAIN);
	ck_works(fcntl(late, F_SETFL, O_NONBLOCK));
	ck_fails(read(late, buf, sizeof buf), EAGAIN);
	tick();
	want_text(fd, "begin lower=0 upper=1\n0\t1\ta\t\ncommit\n");
	want_text(late, "begin lower=0 upper=1\n0\t1\ta\t\ncommit\n");
	want_text(sub, "begin expected_upper=0 new_upper=1 since=0\n0\t1\ta\t\ncommit\n");
	ck_fails(read(fd, buf, sizeof buf), EAGAIN);
	close(fd);
	close(late);
	close(sub);
}
END_TEST

/* --- poll ------------------------------------------------------------------------------------------ */

static bool polled(int fd, int timeout)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, timeout) == 1 && (p.revents & POLLIN) != 0;
}

static int poll_long(void *arg)
{
	return polled(*(int *)arg, DEADLINE_MS) ? 0 : 1;
}

static int select_long(void *arg)
{
	struct timeval tv = {.tv_sec = DEADLINE_MS / 1000};
	int fd = *(int *)arg;
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, NULL, NULL, &tv) == 1 && FD_ISSET(fd, &set) ? 0 : 1;
}

START_TEST(poll_and_select_tell_when_there_is_more)
{
	int fd = follow("listen/0", O_NONBLOCK);

	for (int i = 0; i < 6; i++) {
		ck_assert(!polled(fd, 0));
		pid_t pid = spawn(i % 2 == 0 ? poll_long : select_long, &fd);

		want_in_call(pid, i % 2 == 0 ? SYS_poll : SYS_pselect6);
		tick();
		ck_assert_int_eq(join(pid), 0);
		ck_assert(polled(fd, 0));
		ck_assert_str_ne(read_text(fd), "");
	}
	ck_assert(!polled(fd, 0));
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	ck_assert(polled(fd, 0));
	ck_assert_str_ne(read_text(fd), "");
	ck_assert(polled(fd, 0)); /* the end */
	want_text(fd, "");
	ck_assert(polled(fd, 0));
	close(fd);
}
END_TEST

START_TEST(poll_of_what_begins_later_tells_when_it_begins)
{
	int fd = follow("listen/3", O_NONBLOCK), sub = follow("subscribe/2", O_NONBLOCK);
	pid_t a, b;

	ck_assert(!polled(fd, 0) && !polled(sub, 0));
	a = spawn(poll_long, &fd);
	b = spawn(poll_long, &sub);
	want_in_call(a, SYS_poll);
	want_in_call(b, SYS_poll);
	tick();
	tick();
	ck_assert(!polled(fd, 0) && !polled(sub, 0));
	tick();
	ck_assert_int_eq(join(b), 0);
	ck_assert(!polled(fd, 0) && polled(sub, 0));
	tick();
	ck_assert_int_eq(join(a), 0);
	ck_assert(polled(fd, 0));
	close(fd);
	close(sub);
}
END_TEST

/* Read all there is: as one with an edge-triggered epoll must. */
static void drain(int fd)
{
	char buf[100];
	ssize_t n = 1;

	while (n > 0)
		n = read(fd, buf, sizeof buf);
	ck_assert(n < 0 && errno == EAGAIN);
}

START_TEST(an_edge_comes_for_each_change)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET}, got;
	int ep = epoll_create1(0), fd = follow("listen/0", O_NONBLOCK);

	tick(); /* ready when it is added */
	ck_works(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(epoll_wait(ep, &got, 1, DEADLINE_MS), 1);
		if (i % 3 == 0)
			tick(); /* before it was read, and after it was told */
		drain(fd);
		if (i % 3 == 0)
			ck_assert_int_le(epoll_wait(ep, &got, 1, 0), 1);
		if (i % 3 != 2)
			drain(fd);
		tick();
	}
	ck_assert_int_eq(epoll_wait(ep, &got, 1, DEADLINE_MS), 1);
	drain(fd);
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	ck_assert_int_eq(epoll_wait(ep, &got, 1, DEADLINE_MS), 1);
	close(fd);
	close(ep);
}
END_TEST

START_TEST(a_level_stays_until_it_is_read)
{
	struct epoll_event e = {.events = EPOLLIN}, got;
	int ep = epoll_create1(0), fd = follow("listen/0", O_NONBLOCK);

	ck_works(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(epoll_wait(ep, &got, 1, 0), 0);
		tick();
		ck_assert_int_eq(epoll_wait(ep, &got, 1, DEADLINE_MS), 1);
		ck_assert_int_eq(epoll_wait(ep, &got, 1, 0), 1);
		drain(fd);
	}
	close(fd);
	close(ep);
}
END_TEST

/* A program like those in Go: never asks but when it was told, and reads until EAGAIN. */
static int follow_by_edges(void *arg)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET}, got;
	struct follower *f = arg;
	int ep = epoll_create1(0);
	ssize_t n = 1;

	epoll_ctl(ep, EPOLL_CTL_ADD, f->fd, &e);
	while (!f->ended) {
		do
			n = follower_read(f, 300);
		while (n > 0);
		if (n == -EAGAIN && epoll_wait(ep, &got, 1, DEADLINE_MS) != 1)
			return 1;
		if (n < 0 && n != -EAGAIN)
			return 2;
	}
	return f->rows == 2000 ? 0 : 3;
}

START_TEST(one_who_follows_by_edges_alone_misses_nothing)
{
	struct follower f;
	pid_t pid;
	int fd;

	follower_open(&f, at(shard, "listen/0"), 0, O_NONBLOCK);
	pid = spawn(follow_by_edges, &f);
	fd = append_open(shard);
	for (int i = 0; i < 2000; i++)
		ck_assert_int_gt(put(fd, "begin expected_upper=* new_upper=+1\n*\t1\ta\t\ncommit\n"), 0);
	ck_assert_int_gt(put(fd, "begin expected_upper=* new_upper=-\ncommit\n"), 0);
	close(fd);
	ck_assert_int_eq(join(pid), 0);
	follower_close(&f);
}
END_TEST

/* --- two at once ----------------------------------------------------------------------------------- */

START_TEST(two_wait_on_one_descriptor)
{
	const char *first = "begin lower=0 upper=1\n0\t1\ta\t\ncommit\n";
	struct wanted a = {.fd = follow("listen/0", 0), .text = first, .by_offset = true},
		      b = {.fd = a.fd, .text = "begin lower=1 upper=2\n1\t1\ta\t\ncommit\n", .by_offset = true,
			   .at = (off_t)strlen(first)};
	pid_t one = spawn(read_one, &a), other = spawn(read_one, &a), behind = spawn(read_one, &b);

	want_in_call(one, SYS_pread64);
	want_in_call(other, SYS_pread64);
	want_in_call(behind, SYS_pread64);
	tick();
	ck_errno(join(one), 0);
	ck_errno(join(other), 0);
	want_in_call(behind, SYS_pread64);
	tick();
	ck_errno(join(behind), 0);
	close(a.fd);
}
END_TEST

static void *read_in_thread(void *arg)
{
	char buf[64];

	return (void *)(intptr_t)(syscall(SYS_read, *(int *)arg, buf, sizeof buf) < 0 ? errno : 0);
}

START_TEST(a_close_while_another_thread_waits_leaves_it_waiting)
{
	struct sigaction sa = {.sa_handler = nothing};
	const struct timespec rest = {.tv_nsec = 20000000};

	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < 10; i++) {
		char name[32];
		int fd;
		pthread_t thread;
		void *rc;

		snprintf(name, sizeof name, "listen/%d", i / 2);
		fd = follow(name, 0);
		ck_assert_int_eq(pthread_create(&thread, NULL, read_in_thread, &fd), 0);
		nanosleep(&rest, NULL); /* it may wait by now, or not: either must work */
		syscall(SYS_close, fd); /* tsan need not tell that it is a race */
		if (i % 2 == 0) {
			uint64_t since = 0;

			while (until_deadline(&since) && pthread_tryjoin_np(thread, &rc) != 0)
				pthread_kill(thread, SIGUSR1);
		} else {
			tick();
			ck_assert_int_eq(pthread_join(thread, &rc), 0);
		}
		ck_assert((intptr_t)rc == (i % 2 == 0 ? EINTR : 0) || (intptr_t)rc == EBADF);
	}
}
END_TEST

static int tick_on(void *arg)
{
	int fd = append_open(shard);

	for (int i = 0; i < *(int *)arg; i++)
		if (put(fd, "begin expected_upper=* new_upper=+1\n*\t1\ta\t\ncommit\n") < 0)
			return 1;
	return 0;
}

START_TEST(now_is_taken_again_when_since_moves_meanwhile)
{
	int ticks = 1500, status = 0, opens = 0;
	pid_t pid;

	ck_errno(write_once(at(shard, "since"), "upper-1"), 0);
	tick();
	for (pid = spawn(tick_on, &ticks); waitpid(pid, &status, WNOHANG) == 0; opens++) {
		int fd = follow(opens % 2 == 0 ? "listen/now" : "subscribe/now", O_NONBLOCK);
		char text[64] = "";
		ssize_t n = read(fd, text, sizeof text - 1);

		ck_assert(n < 0 ? errno == EAGAIN && opens % 2 == 0 : strncmp(text, "begin ", 6) == 0);
		close(fd);
	}
	ck_assert_int_eq(status, 0);
	ck_assert_int_gt(opens, 10);
}
END_TEST

/* --- ends ------------------------------------------------------------------------------------------ */

START_TEST(a_removed_shard_is_read_to_its_end_by_who_has_it_open)
{
	int fd = follow("listen/0", 0), sub = follow("subscribe/0", 0), part = follow("listen/0", 0);
	struct stat st;
	char buf[10], all[512] = "";
	size_t len = 0;
	ssize_t n;

	tick();
	ck_assert_int_eq(read(part, buf, sizeof buf), sizeof buf);
	want_txn(shard, "begin expected_upper=* new_upper=- since=-\ncommit\n");
	ck_works(rmdir(shard));
	while ((n = read(fd, all + len, sizeof all - 1 - len)) > 0)
		len += (size_t)n;
	ck_assert_int_eq(n, 0);
	ck_assert_msg(strncmp(all, "begin lower=0 upper=", 20) == 0 && strstr(all, "\t1\t") != NULL &&
			      strstr(all, " upper=-\n") != NULL && strcmp(all + len - 7, "commit\n") == 0,
		      "%s", all);
	while ((n = read(part, buf, sizeof buf)) > 0)
		;
	ck_assert_int_eq(n, 0);
	ck_fails(read(sub, buf, sizeof buf), ENOENT); /* it had nothing pinned yet */
	ck_works(fstat(fd, &st));
	ck_assert(polled(fd, 0) && polled(sub, 0));
	close(fd);
	close(sub);
	close(part);
}
END_TEST

START_TEST(a_stop_of_the_mount_ends_all_who_wait)
{
	struct wanted r = {.fd = follow("listen/0", 0), .text = "?"}, q = {.fd = follow("subscribe/9", 0), .text = "?"},
		      v = {.fd = follow("wait/9", 0), .text = "?"};
	pid_t pids[3] = {spawn(read_one, &r), spawn(read_one, &q), spawn(read_one, &v)};
	char buf[8];

	for (int i = 0; i < 3; i++)
		want_in_call(pids[i], SYS_read);
	world_stop(&w);
	for (int i = 0; i < 3; i++) {
		int e = join(pids[i]);

		ck_assert_msg(e == ESHUTDOWN || e == ENOTCONN || e == ECONNABORTED, "%s", strerrorname_np(e));
	}
	ck_fails(read(r.fd, buf, sizeof buf), ENOTCONN);
	close(r.fd);
	close(q.fd);
	close(v.fd);
	world_start(&w, NULL);
}
END_TEST

START_TEST(the_death_of_the_mount_ends_all_who_wait)
{
	struct wanted r = {.fd = follow("listen/0", 0), .text = "?"};
	pid_t pid = spawn(read_one, &r);
	int e;

	want_in_call(pid, SYS_read);
	world_kill(&w);
	e = join(pid);
	ck_assert_msg(e == ENOTCONN || e == ECONNABORTED, "%s", strerrorname_np(e));
	close(r.fd);
	world_start(&w, NULL);
	r.fd = follow("listen/0", 0);
	r.text = "begin lower=0 upper=1\n0\t1\ta\t\ncommit\n";
	tick();
	ck_errno(read_one(&r), 0);
	close(r.fd);
}
END_TEST

/* --- many ------------------------------------------------------------------------------------------ */

/* libfuse makes up to 64 when many ask at once, and keeps them. */
enum { MANY = 500, COMMITS = 30, THREADS_MAX = 80 };

static unsigned long status_of_mount(const char *field)
{
	char path[64], line[256];
	unsigned long n = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)w.pid);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, field, strlen(field)) == 0)
			n = strtoul(line + strlen(field) + 1, NULL, 10);
	fclose(f);
	return n;
}

static void *follow_to_the_end(void *arg)
{
	struct follower *f = arg;

	while (!f->ended && follower_read(f, 4096) >= 0)
		continue;
	return NULL;
}

START_TEST(hundreds_wait_and_hold_no_thread)
{
	struct follower *f = calloc(MANY, sizeof *f);
	pthread_t threads[MANY];
	pthread_attr_t attr;
	uint64_t start;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (int i = 0; i < MANY; i++) {
		follower_open(&f[i], at(shard, "listen/0"), 0, 0);
		ck_assert_int_eq(pthread_create(&threads[i], &attr, follow_to_the_end, &f[i]), 0);
	}
	start = now_ms();
	for (int i = 0; i < COMMITS; i++)
		tick();
	ck_assert_uint_lt(now_ms() - start, 10000);
	ck_assert_uint_le(status_of_mount("Threads:"), THREADS_MAX);
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
		ck_assert(f[i].ended);
		ck_assert_uint_eq(f[i].rows, COMMITS);
		follower_close(&f[i]);
	}
	pthread_attr_destroy(&attr);
	free(f);
}
END_TEST

static void append_mib(int mib)
{
	char *text = malloc((1 << 20) + 4096);

	for (int i = 0; i < mib; i++) {
		char *p = stpcpy(text, "begin expected_upper=* new_upper=+1\n");

		for (int row = 0; row < 256; row++)
			p += sprintf(p, "*\t1\t%06d.%03d\t%04070d\n", i, row, row);
		strcpy(p, "commit\n");
		want_txn(shard, text);
	}
	free(text);
}

START_TEST(one_who_is_slow_costs_no_memory)
{
	enum { SLOW = 8, MIB = 40 };
	struct follower f[SLOW];
	unsigned long before, after;

	append_mib(MIB); /* what appending takes is taken */
	before = status_of_mount("VmRSS:");
	for (int i = 0; i < SLOW; i++) {
		follower_open(&f[i], at(shard, "listen/0"), 0, 0);
		ck_assert_int_gt(follower_read(&f[i], 1000), 0);
	}
	append_mib(MIB);
	for (int i = 0; i < SLOW; i++)
		while (f[i].at < (unsigned)i * 2)
			ck_assert_int_gt(follower_read(&f[i], 1 << 20), 0);
	after = status_of_mount("VmRSS:");
	/* Sanitizers keep what was freed; one sees it by the terabytes they map. */
	if (status_of_mount("VmSize:") < 1ul << 30)
		ck_assert_msg(after < before + (SLOW * 5 << 10) + (16 << 10), "%lu kB, before %lu kB", after, before);
	for (int i = 0; i < SLOW; i += 7)
		follower_to(&f[i], 2 * MIB);
	ck_assert_uint_eq(f[0].rows, 2 * MIB * 256);
	for (int i = 0; i < SLOW; i++)
		follower_close(&f[i]);
}
END_TEST

Suite *listen_wait_suite(void)
{
	Suite *s = suite_create("listen_wait");
	TCase *tc = shard_case(s, "listen_wait", 120);

	tcase_add_test(tc, a_read_waits_until_there_is_something);
	tcase_add_test(tc, a_subscription_waits_for_its_time);
	tcase_add_test(tc, a_signal_ends_it_at_once);
	tcase_add_test(tc, o_nonblock_gives_eagain);
	tcase_add_test(tc, poll_and_select_tell_when_there_is_more);
	tcase_add_test(tc, poll_of_what_begins_later_tells_when_it_begins);
	tcase_add_test(tc, an_edge_comes_for_each_change);
	tcase_add_test(tc, a_level_stays_until_it_is_read);
	tcase_add_test(tc, one_who_follows_by_edges_alone_misses_nothing);
	tcase_add_test(tc, two_wait_on_one_descriptor);
	tcase_add_test(tc, a_close_while_another_thread_waits_leaves_it_waiting);
	tcase_add_test(tc, now_is_taken_again_when_since_moves_meanwhile);
	tcase_add_test(tc, a_removed_shard_is_read_to_its_end_by_who_has_it_open);
	tcase_add_test(tc, a_stop_of_the_mount_ends_all_who_wait);
	tcase_add_test(tc, the_death_of_the_mount_ends_all_who_wait);
	tcase_add_test(tc, hundreds_wait_and_hold_no_thread);
	tcase_add_test(tc, one_who_is_slow_costs_no_memory);
	return s;
}
