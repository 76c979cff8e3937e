/*
 * read_many.c - many who read snapshots at a time, of rows that are large: the mount's memory stays one
 * budget, and what each reads is right, however often its buffers were taken from it.
 */
#include "tests/fs/fixture.h"

#include <signal.h>
#include <sys/wait.h>

enum { SHARDS = 40, STEPS = 4, ROWS = 10, VAL_MAX = 90000, HALF = 500000 };
enum { LOOP_SHARDS = 6, LOOP_READERS = 4, LOOP_MS = 8000 };

static char *put_val(char *p, struct rng *r)
{
	for (size_t n = 1 + rng_below(r, VAL_MAX / 8); n > 0; n--)
		p += sprintf(p, "%08x", (unsigned)rng_below(r, UINT32_MAX));
	return p;
}

/* Large rows in several transactions, so that there are several runs. */
static void fill(const char *of, struct rng *r, unsigned steps)
{
	char *text = malloc((size_t)ROWS * (VAL_MAX + 100) + 200), *p;
	int fd = append_open(of);

	for (unsigned s = 0; s < steps; s++) {
		p = text + sprintf(text, "begin expected_upper=* new_upper=+1\n");
		for (unsigned i = 0; i < ROWS; i++) {
			p += sprintf(p, "*\t1\tkey%03u\t", (unsigned)rng_below(r, 1000));
			p = put_val(p, r);
			*p++ = '\n';
		}
		p = stpcpy(p, "commit\n");
		ck_errno(put_all(fd, text, (size_t)(p - text)), 0);
	}
	close(fd);
	free(text);
}

static size_t read_on(int fd, char *buf, size_t from, size_t to)
{
	while (from < to) {
		ssize_t n = read(fd, buf + from, to - from < 60000 ? to - from : 60000);

		ck_assert_int_ge(n, 0);
		if (n == 0)
			break;
		from += (size_t)n;
	}
	return from;
}

START_TEST(half_read_snapshots_are_one_budget_and_each_is_right)
{
	enum { SIZE = STEPS * ROWS * (VAL_MAX + 100) };
	struct rng r = rng_new(720);
	char *path[SHARDS], *want[SHARDS], *buf = malloc(SIZE);
	unsigned long before, after;
	size_t len[SHARDS];
	int fd[SHARDS];

	for (unsigned i = 0; i < SHARDS; i++) {
		char *made = shard_new(&w);

		fill(made, &r, STEPS);
		path[i] = strdup(at(made, i % 4 == 3 ? "as_of/2" : "snapshot"));
		free(made);
	}
	for (unsigned i = 0; i < SHARDS; i++) {
		want[i] = slurp_len(path[i], &len[i]);
		ck_assert_uint_gt(len[i], HALF);
	}
	before = status_kib(&w, "VmRSS:");
	for (unsigned i = 0; i < SHARDS; i++) {
		fd[i] = open(path[i], O_RDONLY);
		ck_assert_int_ge(fd[i], 0);
		ck_assert_uint_eq(read_on(fd[i], buf, 0, HALF), HALF);
		ck_assert(memcmp(buf, want[i], HALF) == 0);
	}
	after = status_kib(&w, "VmRSS:");
	if (!keeps_freed(&w)) {
		ck_assert_msg(after < before + (80 << 10), "%lu KiB, before them %lu", after, before);
		ck_assert_uint_lt(status_kib(&w, "VmHWM:"), 256 << 10);
	}
	for (unsigned n = 0; n < SHARDS; n++) {
		unsigned i = n * 7 % SHARDS;

		if (n % 5 == 0) { /* from the start again */
			ck_works(lseek(fd[i], 0, SEEK_SET));
			ck_assert_uint_eq(read_on(fd[i], buf, 0, SIZE), len[i]);
		} else {
			ck_assert_uint_eq(read_on(fd[i], buf, HALF, SIZE), len[i]);
		}
		ck_assert(memcmp(buf + HALF, want[i] + HALF, len[i] - HALF) == 0);
	}
	for (unsigned i = 0; i < SHARDS; i++) {
		close(fd[i]);
		free(path[i]);
		free(want[i]);
	}
	free(buf);
}
END_TEST

/* --- while others write ---------------------------------------------------------------------------- */

static int write_for_ever(void *arg)
{
	struct rng r = rng_new((uint64_t)getpid());

	for (;;)
		fill(arg, &r, 20);
	return 0;
}

static int read_for_ever(void *arg)
{
	const char *path = at(arg, "snapshot");

	for (;;) {
		size_t len;
		char *text = slurp_len(path, &len);

		if (text == NULL)
			return 1;
		free(text);
	}
}

START_TEST(readers_and_writers_stay_within_the_memory_of_a_mount)
{
	pid_t pids[LOOP_SHARDS * (1 + LOOP_READERS)];
	unsigned count = 0;
	uint64_t begun;
	int status;

	for (unsigned i = 0; i < LOOP_SHARDS; i++) {
		char *made = shard_new(&w);

		ck_errno(write_once(at(made, "since"), "upper-20\n"), 0);
		pids[count++] = spawn(write_for_ever, made);
		for (unsigned j = 0; j < LOOP_READERS; j++)
			pids[count++] = spawn(read_for_ever, made);
		free(made);
	}
	begun = now_ms();
	while (now_ms() < begun + LOOP_MS) {
		usleep(100000);
		for (unsigned i = 0; i < count; i++)
			ck_assert_int_eq(waitpid(pids[i], &status, WNOHANG), 0);
	}
	for (unsigned i = 0; i < count; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], &status, 0);
	}
	if (!keeps_freed(&w))
		ck_assert_uint_lt(status_kib(&w, "VmHWM:"), 256 << 10);
}
END_TEST

Suite *read_many_suite(void)
{
	Suite *s = suite_create("read_many");
	TCase *tc = shard_case(s, "read_many", 300);

	tcase_add_test(tc, half_read_snapshots_are_one_budget_and_each_is_right);
	tcase_add_test(tc, readers_and_writers_stay_within_the_memory_of_a_mount);
	return s;
}
