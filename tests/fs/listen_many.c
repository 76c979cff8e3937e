/*
 * listen_many.c - many who follow, each with its replay window: the mount's memory is one budget for all of
 * them, and what one reads again is the same all the same.
 */
#include "tests/fs/fixture.h"

enum { LISTENERS = 400, KIB = 2048 };

/* Rows that do not compress well, in small transactions, so that there are many steps. */
static void append_much(struct rng *r)
{
	char *text = malloc(64 << 10), *p;

	for (unsigned n = 0; n < KIB;) {
		p = stpcpy(text, "begin expected_upper=* new_upper=+1\n");
		for (int i = 0; i < 20; i++, n++) {
			p += sprintf(p, "*\t1\tkey%07u\t", n);
			for (int c = 0; c < 1000; c++)
				*p++ = (char)('a' + rng_below(r, 26));
			*p++ = '\n';
		}
		strcpy(p, "commit\n");
		want_txn(shard, text);
	}
	free(text);
}

START_TEST(many_windows_are_one_budget_and_each_reads_the_same_again)
{
	enum { SIZE = KIB * 1000 };
	struct rng r = rng_new(711);
	char *all = malloc(SIZE), *buf = malloc(SIZE);
	unsigned long before, after;
	int fd[LISTENERS];

	append_much(&r);
	/* Or a merge in between makes other steps of it for those who come later. */
	ck_errno(write_once(at(shard, "ctl"), "compact\n"), 0);
	fd[0] = open(at(shard, "listen/0"), O_RDONLY | O_NONBLOCK);
	for (size_t done = 0; done < SIZE;) {
		ssize_t n = read(fd[0], all + done, SIZE - done);

		ck_assert_int_gt(n, 0);
		done += (size_t)n;
	}
	before = status_kib(&w, "VmRSS:");
	for (unsigned i = 1; i < LISTENERS; i++) {
		fd[i] = open(at(shard, "listen/0"), O_RDONLY | O_NONBLOCK);
		ck_assert_int_ge(fd[i], 0);
		for (size_t done = 0; done < SIZE;) {
			size_t ask = SIZE - done < 100000 ? SIZE - done : 100000;
			ssize_t n = read(fd[i], buf, ask);

			ck_assert_int_gt(n, 0);
			ck_assert(memcmp(buf, all + done, (size_t)n) == 0);
			done += (size_t)n;
		}
	}
	after = status_kib(&w, "VmRSS:");
	/* One window each would be 400 MiB. */
	if (!keeps_freed(&w))
		ck_assert_msg(after < before + (130 << 10), "%lu KiB, before them %lu", after, before);
	for (unsigned i = 0; i < LISTENERS; i += 7) {
		size_t back = 1 + rng_below(&r, 1 << 20), ask = 1 + rng_below(&r, back);

		ck_assert_int_eq(pread(fd[i], buf, ask, (off_t)(SIZE - back)), ask);
		ck_assert(memcmp(buf, all + SIZE - back, ask) == 0);
	}
	for (unsigned i = 0; i < LISTENERS; i++)
		close(fd[i]);
	free(all);
	free(buf);
}
END_TEST

START_TEST(what_listeners_remember_of_small_steps_is_counted_and_given_back)
{
	enum { STEPS = 500 };
	char text[200];
	int a = open(at(shard, "listen/now"), O_RDONLY), b = open(at(shard, "listen/now"), O_RDONLY);
	double past;
	uint64_t since = 0;

	ck_works(a);
	ck_works(b);
	ck_assert_double_eq(world_metric(&w, "shardfs_listen_past_bytes"), 0);
	for (int i = 0; i < STEPS; i++) {
		want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\tk\tv\ncommit\n");
		ck_assert_int_gt(read(a, text, sizeof text), 0);
		ck_assert_int_gt(read(b, text, sizeof text), 0);
	}
	past = world_metric(&w, "shardfs_listen_past_bytes");
	ck_assert_double_gt(past, 2 * STEPS * 100);
	ck_assert_double_lt(past, 2 * STEPS * 1000);
	close(a);
	while (world_metric(&w, "shardfs_listen_past_bytes") > past * 0.7 && until_deadline(&since))
		;
	ck_assert_double_gt(world_metric(&w, "shardfs_listen_past_bytes"), 0);
	close(b);
	since = 0;
	while (world_metric(&w, "shardfs_listen_past_bytes") != 0 && until_deadline(&since))
		;
	ck_assert_double_eq(world_metric(&w, "shardfs_listen_past_bytes"), 0);
}
END_TEST

Suite *listen_many_suite(void)
{
	Suite *s = suite_create("listen_many");
	TCase *tc = shard_case(s, "listen_many", 300);

	tcase_add_test(tc, what_listeners_remember_of_small_steps_is_counted_and_given_back);
	tcase_add_test(tc, many_windows_are_one_budget_and_each_reads_the_same_again);
	return s;
}
