/*
 * crash.c - what was acknowledged survives a kill.
 *
 * A child commits and tells each acknowledged seqno through a pipe; the parent kills it after it has heard of
 * some, and another child looks at the store. This shows the order of our writes, not that the device keeps
 * them. The parent never opens a store: RocksDB's threads would not follow it through the next fork.
 */
#include "tests/kv/worlds.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 5, BYTES = 3000 };

static char *dir;

/* Let a child run look(arg), which may assert. */
static void in_child(void (*look)(uint64_t arg), uint64_t arg)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		look(arg);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "the child that looked ended with %x", (unsigned)status);
}

/* Commits for ever: a version that names a small blob and a file. */
static void child(int out)
{
	char value[BYTES];
	struct kv_version v;
	struct kv_store *s;

	memset(value, 'v', sizeof(value));
	if (kv_store_embedded_open(dir, false, "child", &s, NULL) != KV_OK)
		_exit(1);

	struct kv_consensus *c = kv_store_consensus(s);
	enum kv_rc rc = kv_consensus_head(c, "k", &v, NULL);
	uint64_t head = rc == KV_OK ? v.seqno : 0;

	for (;; head++) {
		char small[32], large[32];
		const struct kv_blob_put put = {small, value, sizeof(value)};

		snprintf(small, sizeof(small), "s/%llu", (unsigned long long)head + 1);
		snprintf(large, sizeof(large), "l/%llu/x", (unsigned long long)head + 1);
		if (kv_blob_set(kv_store_blobs(s), large, value, sizeof(value), NULL) != KV_OK)
			_exit(2);
		if (kv_consensus_compare_and_set(c, "ride", head, head + 1, "r", 1, KV_RIDE, NULL) != KV_OK)
			_exit(3);
		if (kv_store_commit(s, "k", head, head + 1, value, sizeof(value), &put, 1, KV_SYNC, NULL) !=
		    KV_OK)
			_exit(4);

		uint64_t done = head + 1;

		if (write(out, &done, sizeof(done)) != sizeof(done))
			_exit(5);
	}
}

/* Run the child until it has told `count` more commits; the last it told before it died. */
static uint64_t run_and_kill(int count)
{
	int fds[2], status;
	uint64_t last = 0, seqno;

	ck_assert_int_eq(pipe(fds), 0);

	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(fds[0]);
		child(fds[1]);
	}
	close(fds[1]);
	while (read(fds[0], &seqno, sizeof(seqno)) == sizeof(seqno)) {
		last = seqno;
		if (--count == 0)
			kill(pid, SIGKILL);
	}
	close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child ended with %x", status);
	return last;
}

static void check_after(uint64_t acknowledged)
{
	struct kv_store *s;
	struct kv_version v, ride;
	struct kv_err err = {0};

	ck_assert_msg(kv_store_embedded_open(dir, false, "parent", &s, &err) == KV_OK, "%s", err.msg);
	ck_assert_int_eq(kv_consensus_head(kv_store_consensus(s), "k", &v, NULL), KV_OK);
	ck_assert_uint_ge(v.seqno, acknowledged);
	ck_assert_uint_le(v.seqno, acknowledged + 1);
	ck_assert_int_eq(kv_consensus_head(kv_store_consensus(s), "ride", &ride, NULL), KV_OK);
	ck_assert_uint_ge(ride.seqno, v.seqno);
	/* The child begins where the head is, so both keys must agree. */
	if (ride.seqno > v.seqno)
		ck_assert_int_eq(kv_consensus_remove(kv_store_consensus(s), "ride", ride.seqno, NULL), KV_OK);
	if (ride.seqno > v.seqno)
		ck_assert_int_eq(kv_consensus_compare_and_set(kv_store_consensus(s), "ride", 0, v.seqno, "r",
							      1, KV_SYNC, NULL),
				 KV_OK);

	for (uint64_t i = 1; i <= v.seqno; i++) {
		char key[32], buf[BYTES + 1];
		size_t got;

		snprintf(key, sizeof(key), "s/%llu", (unsigned long long)i);
		ck_assert_int_eq(kv_blob_get(kv_store_blobs(s), key, 0, buf, sizeof(buf), &got, NULL), KV_OK);
		ck_assert_uint_eq(got, BYTES);
		snprintf(key, sizeof(key), "l/%llu/x", (unsigned long long)i);
		ck_assert_int_eq(kv_blob_get(kv_store_blobs(s), key, 0, buf, sizeof(buf), &got, NULL), KV_OK);
		ck_assert_uint_eq(got, BYTES);
	}
	free(v.data);
	free(ride.data);
	kv_store_close(s);
}

START_TEST(acknowledged_commits_survive_a_kill)
{
	dir = check_dir();
	for (int round = 0; round < ROUNDS; round++)
		in_child(check_after, run_and_kill(5 + 7 * round));
	check_rmtree(dir);
	free(dir);
}
END_TEST

static void make_and_use(uint64_t unused)
{
	struct kv_store *s;
	struct kv_err err = {0};

	(void)unused;
	ck_assert_msg(kv_store_embedded_open(dir, false, "parent", &s, &err) == KV_OK, "%s", err.msg);
	want_cas(kv_store_consensus(s), "k", 0, 1, "v", KV_OK);
	kv_store_close(s);
}

START_TEST(a_store_killed_while_it_is_made_is_resumed)
{
	for (int round = 0; round < 8; round++) {
		struct kv_store *s;
		int fds[2];

		dir = check_dir();
		ck_assert_int_eq(pipe(fds), 0);

		pid_t pid = fork();

		if (pid == 0) {
			ssize_t ignored = write(fds[1], "", 1);

			(void)ignored;
			_exit(kv_store_embedded_open(dir, false, "child", &s, NULL) == KV_OK ? 0 : 1);
		}

		char byte;

		/* Somewhere between the beginning and, by the rounds of spinning, well inside. */
		ck_assert_int_eq((int)read(fds[0], &byte, 1), 1);
		for (volatile int spin = 0; spin < round * 400000; spin++)
			;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(fds[0]);
		close(fds[1]);
		in_child(make_and_use, 0);
		check_rmtree(dir);
		free(dir);
	}
}
END_TEST

Suite *crash_suite(void)
{
	Suite *s = suite_create("kv/crash");
	TCase *t = tcase_create("crash");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, acknowledged_commits_survive_a_kill);
	tcase_add_test(t, a_store_killed_while_it_is_made_is_resumed);
	suite_add_tcase(s, t);
	return s;
}
