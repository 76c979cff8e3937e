/*
 * shared_fd.c - one open `append` that several use at once, and writers that die while the mount commits for
 * them: a commit goes on without the thread that its write came in on, and all else on the descriptor waits
 * for it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "tests/fs/fixture.h"

enum { THREADS = 8, EACH = 60, TOTAL = THREADS * EACH, VERDICT_LEN = 200 };

#define BLIND "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n"

struct user {
	pthread_t thread;
	int fd;
	_Atomic(bool) *over;
	unsigned failed;
	unsigned lines;
};

static void *append_on(void *arg)
{
	struct user *u = arg;

	for (int i = 0; i < EACH; i++)
		u->failed += put(u->fd, BLIND) != (ssize_t)strlen(BLIND);
	return NULL;
}

/* Verdicts are read while others write. */
static void *read_on(void *arg)
{
	struct user *u = arg;
	char line[VERDICT_LEN];
	ssize_t n = 1;

	while (n > 0 || !atomic_load(u->over)) {
		bool last = atomic_load(u->over);

		n = read(u->fd, line, sizeof line);
		u->failed += n < 0 || (n > 0 && (strncmp(line, "ok lower=", 9) != 0 || line[n - 1] != '\n'));
		u->lines += n > 0;
		if (n == 0 && last)
			break;
	}
	return NULL;
}

static void *cut_on(void *arg)
{
	struct user *u = arg;

	while (!atomic_load(u->over)) {
		int fd = dup(u->fd);

		u->failed += ftruncate(u->fd, 0) != 0 || fd < 0 || close(fd) != 0;
	}
	return NULL;
}

/* Threads append on one descriptor, and another one does what `beside` does. */
static void append_beside(void *(*beside)(void *arg), struct user *other)
{
	struct user users[THREADS] = {0};
	_Atomic(bool) over = false;
	int fd = append_open(shard);
	char *upper;

	*other = (struct user){.fd = fd, .over = &over};
	ck_assert_int_eq(pthread_create(&other->thread, NULL, beside, other), 0);
	for (int i = 0; i < THREADS; i++) {
		users[i].fd = fd;
		ck_assert_int_eq(pthread_create(&users[i].thread, NULL, append_on, &users[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(users[i].thread, NULL);
		ck_assert_uint_eq(users[i].failed, 0);
	}
	atomic_store(&over, true);
	pthread_join(other->thread, NULL);
	ck_assert_uint_eq(other->failed, 0);
	upper = want_sh("cat '%s/upper'", shard);
	ck_assert_int_eq(atoi(upper), TOTAL);
	free(upper);
	close(fd);
}

START_TEST(threads_on_one_descriptor_have_each_append_once_and_a_verdict_for_each)
{
	struct user reader;

	append_beside(read_on, &reader);
	ck_assert_uint_eq(reader.lines, TOTAL);
}
END_TEST

START_TEST(to_cut_and_close_a_duplicate_beside_a_commit_takes_nothing_of_it)
{
	struct user cutter;

	append_beside(cut_on, &cutter);
}
END_TEST

/* A client with several descriptors, a thread for each, until it is killed. */
static int append_until_killed(void *arg)
{
	struct user users[THREADS] = {0};

	(void)arg;
	for (int i = 0; i < THREADS; i++) {
		users[i].fd = append_open(shard);
		pthread_create(&users[i].thread, NULL, append_on, &users[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(users[i].thread, NULL);
	return 0;
}

/* What is open and not answered. */
static char *in_use(void)
{
	return want_sh("grep -E '^shardfs_(open_files|requests_in_flight) ' '%s/metrics'", w.mnt);
}

START_TEST(clients_that_are_killed_while_they_append_leave_no_request_and_no_half_transaction)
{
	struct rng r = rng_new(1);
	uint64_t since = 0;
	char *upper, *rows, *before = in_use(), *after;

	for (int round = 0; round < 12; round++) {
		pid_t pid = spawn(append_until_killed, NULL);

		usleep((useconds_t)rng_below(&r, 30000));
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	}
	want_txn(shard, BLIND);
	upper = want_sh("cat '%s/upper'", shard);
	rows = want_sh("cat '%s'/batches/* | cut -f1 | sort -n | uniq | wc -l", shard);
	ck_assert_int_eq(atoi(rows), atoi(upper)); /* each time has its row */
	free(rows);
	free(upper);
	for (after = in_use(); strcmp(after, before) != 0 && until_deadline(&since); after = in_use())
		free(after);
	ck_assert_str_eq(after, before);
	free(before);
	free(after);
}
END_TEST

Suite *shared_fd_suite(void)
{
	Suite *s = suite_create("shared_fd");
	TCase *tc = shard_case(s, "shared_fd", 120);

	tcase_add_test(tc, threads_on_one_descriptor_have_each_append_once_and_a_verdict_for_each);
	tcase_add_test(tc, to_cut_and_close_a_duplicate_beside_a_commit_takes_nothing_of_it);
	tcase_add_test(tc,
		       clients_that_are_killed_while_they_append_leave_no_request_and_no_half_transaction);
	return s;
}
