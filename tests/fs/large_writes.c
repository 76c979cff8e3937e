/* large_writes.c - writes that may last take turns: a crowd of them holds no thread that others need, and
 * each is whole or refused. */
#include "tests/fs/world.h"

#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* A transaction is of some 1.5 MiB, in long rows, so that it is looked through quickly. */
enum { BOB = 4002, CROWD = 90, ROWS = 1500, ROW_LEN = 1024 };

static struct world w;
static char *shard;
static pid_t pids[CROWD];
static unsigned count;

static struct board {
	unsigned committed; /* acknowledged */
	unsigned wrong;     /* an errno that is none of a refusal, or a refused transaction that went on */
} * board;

static void setup(void)
{
	world_new(&w);
	world_start(&w, "allow_other");
	shard = shard_new(&w);
	ck_works(chmod(shard, 0777));
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(board, MAP_FAILED);
}

static void teardown(void)
{
	munmap(board, sizeof *board);
	free(shard);
	world_close(&w);
}

static double metric(const char *name)
{
	return world_metric(&w, name);
}

static void want_rest(void)
{
	static const char *const gauges[] = {"shardfs_waiting_turns", "shardfs_unfinished_bytes"};

	for (size_t i = 0; i < sizeof gauges / sizeof gauges[0]; i++) {
		uint64_t since = 0;

		while (metric(gauges[i]) > 0 && until_deadline(&since))
			;
		ck_assert(metric(gauges[i]) == 0);
	}
}

/* Wait until writes have to wait for their turn. */
static void want_waiting(void)
{
	uint64_t since = 0;

	while (metric("shardfs_waiting_turns") < 8 && until_deadline(&since))
		;
	ck_assert(metric("shardfs_waiting_turns") > 0);
}

/* --- the crowd ------------------------------------------------------------------------------------- */

/* What one of the crowd does: transactions of rows with his number as key. */
struct job {
	unsigned rows; /* of a KiB, in each */
	unsigned times;
	size_t piece; /* in writes of so many bytes */
	bool staged;
};

/* 0, or errno. */
static int put_pieces(int fd, const char *p, size_t len, size_t piece)
{
	int rc = 0;

	for (size_t done = 0; done < len && rc == 0; done += piece)
		rc = put_all(fd, p + done, len - done < piece ? len - done : piece);
	return rc;
}

static bool is_refusal(int errnum)
{
	return errnum == ENOMEM || errnum == ESHUTDOWN || errnum == ENOTCONN || errnum == ECONNABORTED;
}

static char *make_rows(unsigned rows, unsigned number, char time)
{
	char *text = malloc((size_t)rows * ROW_LEN + 64), *p = text;

	for (unsigned i = 0; i < rows; i++)
		p += sprintf(p, "%c\t1\t%u\t%0*u\n", time, number, ROW_LEN - 16, i);
	return text;
}

/* What was refused is not taken up again by what is written after it. */
static int append_once(const char *rows, size_t piece)
{
	int fd = open(at(shard, "append"), O_WRONLY), rc, commit_rc;

	if (fd < 0)
		_exit(0); /* stopped */
	rc = put_all(fd, "begin expected_upper=* new_upper=+1\n", 36);
	if (rc == 0)
		rc = put_pieces(fd, rows, strlen(rows), piece);
	commit_rc = put_all(fd, "commit\n", 7);
	if (rc != 0 && commit_rc == 0)
		__atomic_fetch_add(&board->wrong, 1, __ATOMIC_SEQ_CST);
	close(fd);
	return rc != 0 ? rc : commit_rc;
}

static int stage_once(const char *rows, size_t piece, unsigned number)
{
	char name[32], text[128];
	int fd, rc;

	snprintf(name, sizeof name, "batches/b%u", number);
	fd = open(at(shard, name), O_WRONLY | O_CREAT, 0666);
	if (fd < 0)
		return errno;
	rc = put_pieces(fd, rows, strlen(rows), piece);
	close(fd);
	snprintf(text, sizeof text, "begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch b%u\ncommit\n",
		 number);
	return rc == 0 ? txn(shard, text) : rc;
}

static void work(const struct job *job, unsigned number)
{
	char *rows = make_rows(job->rows, number, job->staged ? '0' : '*');
	int rc;

	if (setgid(BOB) != 0 || setuid(BOB) != 0)
		_exit(255);
	for (unsigned i = 0; i < job->times; i++) {
		rc = job->staged ? stage_once(rows, job->piece, number) : append_once(rows, job->piece);
		if (rc == 0)
			__atomic_fetch_add(&board->committed, 1, __ATOMIC_SEQ_CST);
		else if (!is_refusal(rc))
			__atomic_fetch_add(&board->wrong, 1, __ATOMIC_SEQ_CST);
	}
	_exit(0);
}

static void gather(unsigned crowd, const struct job *job)
{
	for (count = 0; count < crowd; count++) {
		pids[count] = fork();
		if (pids[count] == 0)
			work(job, count);
		ck_assert_int_gt(pids[count], 0);
	}
}

static void wait_for_all(void)
{
	for (unsigned i = 0; i < count; i++)
		waitpid(pids[i], NULL, 0);
}

static void kill_all(void)
{
	for (unsigned i = 0; i < count; i++)
		kill(pids[i], SIGKILL);
	wait_for_all();
}

/* All that was acknowledged is there, and of each transaction all rows: as many of each number in each row.
 */
static void want_whole(unsigned rows)
{
	char *out = want_sh("cut -f2,3 %s/snapshot | sort | uniq -c | awk '$1 != %d || seen[$3]++ {print "
			    "\"torn:\", $0} {n += $2} END {print n + 0}'",
			    shard, rows);
	char *upper = slurp(at(shard, "upper"));

	ck_assert_str_eq(out, upper);
	ck_assert_uint_ge(strtoul(upper, NULL, 10), board->committed);
	ck_assert_uint_eq(board->wrong, 0);
	free(upper);
	free(out);
}

/* --- tests ----------------------------------------------------------------------------------------- */

START_TEST(of_a_crowd_each_large_transaction_is_whole_or_refused)
{
	static const struct job jobs[] = {{.rows = ROWS, .times = 2, .piece = 1 << 20},
					  {.rows = ROWS, .times = 1, .piece = 20000},
					  {.rows = 30, .times = 20, .piece = 1 << 20}};

	gather(CROWD, &jobs[_i]);
	wait_for_all();
	ck_assert_uint_gt(board->committed, 0);
	want_whole(jobs[_i].rows);
	want_rest();
}
END_TEST

START_TEST(a_crowd_within_its_limit_is_served_to_the_last)
{
	static const struct job jobs[] = {{.rows = ROWS, .times = 2, .piece = 1 << 20},
					  {.rows = ROWS, .times = 2, .piece = 1 << 20, .staged = true}};

	gather(40, &jobs[_i]);
	wait_for_all();
	ck_assert_uint_eq(board->committed, 80);
	want_whole(ROWS);
	want_rest();
}
END_TEST

START_TEST(beside_large_writes_that_wait_a_small_append_goes_on_and_killed_ones_leave_nothing)
{
	static const struct job endless[] = {{.rows = ROWS, .times = UINT_MAX, .piece = 1 << 20},
					     {.rows = 30, .times = UINT_MAX, .piece = 1 << 20}};
	char *other = shard_new(&w);

	gather(CROWD, &endless[_i]);
	want_waiting();
	for (int i = 0; i < 20; i++)
		want_txn(other, "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n");
	kill_all();
	want_rest();
	want_whole(endless[_i].rows);
	want_file(other, "upper", "20\n");
	free(other);
}
END_TEST

START_TEST(a_stop_answers_large_writes_that_wait)
{
	static const struct job endless = {.rows = ROWS, .times = UINT_MAX, .piece = 1 << 20};

	gather(CROWD, &endless);
	want_waiting();
	world_stop(&w);
	kill_all();
	free(want_sh("%s fsck %s", shardctl_path(), w.store));
	world_start(&w, "allow_other");
	want_whole(ROWS);
}
END_TEST

Suite *large_writes_suite(void)
{
	Suite *s = suite_create("large_writes");
	TCase *tc = world_case(s, "large_writes", 300);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, of_a_crowd_each_large_transaction_is_whole_or_refused, 0, 3);
	tcase_add_loop_test(tc, a_crowd_within_its_limit_is_served_to_the_last, 0, 2);
	tcase_add_loop_test(
		tc, beside_large_writes_that_wait_a_small_append_goes_on_and_killed_ones_leave_nothing, 0, 2);
	tcase_add_test(tc, a_stop_answers_large_writes_that_wait);
	return s;
}
