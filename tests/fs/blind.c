/*
 * blind.c - expected_upper=*: many who know nothing of each other append, one line of shell each time.
 *
 * Each row says who wrote it and as how many-eth. In the end every append must have had a time of its own, without
 * gaps, and each writer's rows must stand in the order it wrote them.
 */
#include "tests/fs/fixture.h"

enum { WRITERS = 16, EACH = 1000, TOTAL = WRITERS * EACH };

/* One writer: opens the file each time, as a script does. */
static int append_all(void *arg)
{
	const unsigned *writer = arg;

	return sh(NULL,
		  "i=0; while [ $i -lt %d ]; do "
		  "printf 'begin expected_upper=* new_upper=+1\\n*\\t1\\t%02u\\t%%d\\ncommit\\n' $i > '%s/append' || exit 1; "
		  "i=$((i + 1)); done",
		  EACH, *writer, shard);
}

/* One writer: keeps the file open. */
static int append_all_kept(void *arg)
{
	const unsigned *writer = arg;

	return sh(NULL,
		  "exec 3> '%s/append'; i=0; while [ $i -lt %d ]; do "
		  "printf 'begin expected_upper=* new_upper=+1\\n*\\t1\\t%02u\\t%%d\\ncommit\\n' $i >&3 || exit 1; "
		  "i=$((i + 1)); done",
		  shard, EACH, *writer);
}

static void want_each_once_in_order(void)
{
	static int writer_at[TOTAL], nth_at[TOTAL];
	int next[WRITERS] = {0};
	/* The committed batches have every update at its own time. */
	char *rows = want_sh("cat '%s'/batches/*", shard);
	char *save = NULL;
	unsigned count = 0;

	memset(writer_at, -1, sizeof writer_at);
	for (char *line = strtok_r(rows, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		unsigned time;
		int writer, nth;

		ck_assert_msg(sscanf(line, "%u\t1\t%d\t%d", &time, &writer, &nth) == 3, "%s", line);
		ck_assert_msg(time < TOTAL && writer_at[time] == -1, "time %u twice, or too late", time);
		writer_at[time] = writer;
		nth_at[time] = nth;
		count++;
	}
	ck_assert_uint_eq(count, TOTAL);
	for (unsigned t = 0; t < TOTAL; t++) {
		ck_assert_msg(nth_at[t] == next[writer_at[t]], "time %u: writer %d wrote %d before %d", t,
			      writer_at[t], nth_at[t], next[writer_at[t]]);
		next[writer_at[t]]++;
	}
	free(rows);
}

START_TEST(sixteen_who_append_blindly_have_each_append_once_in_order_without_gaps)
{
	unsigned writers[WRITERS];
	pid_t pids[WRITERS];
	char *upper;

	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = i;
		pids[i] = spawn(i % 2 == 0 ? append_all : append_all_kept, &writers[i]);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		ck_assert_int_eq(join(pids[i]), 0);
	upper = want_sh("cat '%s/upper'", shard);
	ck_assert_str_eq(upper, "16000\n");
	free(upper);
	want_each_once_in_order();
}
END_TEST

Suite *blind_suite(void)
{
	Suite *s = suite_create("blind appends");
	TCase *tc = shard_case(s, "blind", 120);

	tcase_add_test(tc, sixteen_who_append_blindly_have_each_append_once_in_order_without_gaps);
	return s;
}
