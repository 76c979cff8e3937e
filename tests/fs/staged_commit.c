/* staged_commit.c - what a commit makes of staged batches, and how long they last. */
#include "tests/fs/stage.h"

#include <sys/mount.h>

/* The transaction is refused so, and the batch x stays. */
static void want_refusal(const char *text, int errnum, const char *begins)
{
	int fd = append_open(shard);

	ck_assert_int_eq(put(fd, text), -errnum);
	want_verdict_like(fd, begins);
	close(fd);
}

/* --- commit ---------------------------------------------------------------------------------------- */

START_TEST(a_commit_takes_what_was_written_until_then)
{
	char buf[64];
	struct stat st;
	int fd = stage_open("x", O_WRONLY | O_CREAT), ro;

	ck_assert_int_eq(put(fd, "0\t1\ta\tb\n1\t1\tc\td\n"), 16);
	ro = stage_open("x", O_RDONLY);
	ck_assert_int_eq(put(fd, "2\t1\te\tf\n"), 8);
	want_txn(shard, "begin expected_upper=0 new_upper=5\nbatch x\ncommit\n");
	want_gone("x");
	want_file(shard, "snapshot", "4\t1\ta\tb\n4\t1\tc\td\n4\t1\te\tf\n");
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(put(fd, "3\t1\tg\th\n"), -ESTALE);
		ck_works(fsync(fd)); /* all that was taken is durable */
		ck_fails(ftruncate(fd, 0), EIO);
	}
	close(fd);
	ck_works(fstat(ro, &st));
	ck_assert_int_eq(st.st_size, 16);
	ck_assert_int_eq(read(ro, buf, 5), 5);
	ck_assert_int_eq(read(ro, buf + 5, sizeof buf - 5), 11);
	ck_assert_int_eq(memcmp(buf, "0\t1\ta\tb\n1\t1\tc\td\n", 16), 0);
	close(ro);
	/* the name is free again */
	stage("x", "6\t1\ta\tb\n");
	want_batch("x", "6\t1\ta\tb\n");
	want_file(shard, "snapshot", "4\t1\ta\tb\n4\t1\tc\td\n4\t1\te\tf\n");
}
END_TEST

START_TEST(rows_and_batches_are_committed_together)
{
	int fd = append_open(shard);

	stage("x", "0\t1\ta\tx\n1\t1\tb\tx\n");
	stage("y", "bounds 0 5\n4\t1\ta\tx\n");
	stage("empty", "");
	ck_assert_int_gt(put(fd, "begin expected_upper=0 new_upper=5\n2\t1\tc\tx\nbatch x\n3\t1\td\tx\nbatch "
				 "y\nbatch empty\ncommit\n"),
			 0);
	want_verdict(fd, "ok lower=0 new_upper=5 seqno=N updates=5\n");
	close(fd);
	want_file(shard, "snapshot", "4\t2\ta\tx\n4\t1\tb\tx\n4\t1\tc\tx\n4\t1\td\tx\n");
	want_gone("x");
	want_gone("y");
	want_gone("empty");
	char *out = want_sh("cd %s/batches; ls; sort 0-5; stat -c %%s *", shard);

	ck_assert_str_eq(out, "0-5\n0\t1\ta\tx\n1\t1\tb\tx\n2\t1\tc\tx\n3\t1\td\tx\n4\t1\ta\tx\n40\n");
	free(out);
}
END_TEST

START_TEST(a_failed_commit_keeps_them_for_another_try)
{
	stage("x", "bounds 2 9\n3\t1\ta\tx\n");
	stage("y", "4\t1\tb\tx\n");
	want_refusal("begin expected_upper=2 new_upper=9\nbatch x\nbatch y\ncommit\n", ESTALE,
		     "error UpperMismatch ");
	want_refusal("begin expected_upper=0 new_upper=9\nbatch x\nbatch y\ncommit\n", EINVAL,
		     "error InvalidBatchBounds ");
	want_refusal("begin lower=0 upper=12\nbatch x\ncommit\n", EINVAL, "error InvalidBatchBounds ");
	want_refusal("begin expected_upper=0 new_upper=4\nbatch y\ncommit\n", EINVAL,
		     "error UpdateBeyondUpper ");
	want_refusal("begin expected_upper=0 new_upper=9\nbatch y\nbatch none\ncommit\n", ENOENT,
		     "error UnknownBatch ");
	want_refusal("begin expected_upper=0 new_upper=9\nbatch y\nbatch y\ncommit\n", EINVAL,
		     "error BadSyntax ");
	want_batch("x", "bounds 2 9\n3\t1\ta\tx\n");
	want_batch("y", "4\t1\tb\tx\n");
	want_file(shard, "upper", "0\n");
	want_txn(shard, "begin expected_upper=0 new_upper=2\ncommit\n");
	want_txn(shard, "begin expected_upper=2 new_upper=9\nbatch x\nbatch y\ncommit\n");
	want_file(shard, "snapshot", "8\t1\ta\tx\n8\t1\tb\tx\n");
	stage("z", "5\t1\tb\tx\n");
	want_refusal("begin expected_upper=9 new_upper=12\nbatch z\ncommit\n", EINVAL,
		     "error UpdateNotBeyondLower ");
	want_refusal("begin expected_upper=* new_upper=+1\nbatch z\ncommit\n", EINVAL,
		     "error UpdateNotBeyondLower ");
	want_txn(shard, "begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch z\ncommit\n");
	want_file(shard, "snapshot", "9\t1\ta\tx\n9\t2\tb\tx\n");
}
END_TEST

START_TEST(an_append_cuts_a_batch_with_bounds)
{
	stage("x", "bounds 0 9\n1\t1\ta\tx\n4\t1\tb\tx\n8\t1\tc\tx\n");
	want_txn(shard, "begin expected_upper=0 new_upper=3\ncommit\n");
	want_txn(shard, "begin lower=0 upper=6\nbatch x\ncommit\n");
	want_file(shard, "upper", "6\n");
	want_file(shard, "snapshot", "5\t1\tb\tx\n");
	want_gone("x");
	want_file(shard, "batches/3-6", "4\t1\tb\tx\n");
	/* one that is there already is consumed */
	stage("y", "bounds 0 5\n1\t1\td\tx\n");
	want_txn(shard, "begin lower=0 upper=5\nbatch y\ncommit\n");
	want_gone("y");
	want_file(shard, "snapshot", "5\t1\tb\tx\n");
	/* without bounds only what is there already is cut */
	stage("z", "2\t1\te\tx\n7\t1\tf\tx\n");
	want_txn(shard, "begin lower=2 upper=8\nbatch z\ncommit\n");
	want_file(shard, "snapshot", "7\t1\tb\tx\n7\t1\tf\tx\n");
}
END_TEST

START_TEST(a_last_row_without_newline_is_not_committed)
{
	char *state;
	int fd = stage_open("x", O_WRONLY | O_CREAT);

	ck_assert_int_eq(put(fd, "0\t1\ta\tb\n1\t1\tc"), 13);
	want_refusal("begin expected_upper=0 new_upper=5\nbatch x\ncommit\n", EINVAL, "error BadSyntax ");
	close(fd);
	want_refusal("begin expected_upper=0 new_upper=5\nbatch x\ncommit\n", EINVAL, "error BadSyntax ");
	state = slurp(at(shard, "state"));
	ck_assert_ptr_nonnull(strstr(state, "\"unfinished\": true"));
	free(state);
	want_batch("x", "0\t1\ta\tb\n1\t1\tc");
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "\td\n"), 3);
	want_txn(shard, "begin expected_upper=0 new_upper=5\nbatch x\ncommit\n");
	close(fd);
	want_file(shard, "snapshot", "4\t1\ta\tb\n4\t1\tc\td\n");
}
END_TEST

START_TEST(a_commit_meets_a_writer_at_work)
{
	char text[32];
	unsigned long rows, total = 0;
	int fd;

	/* whatever was acknowledged is committed once */
	for (unsigned round = 0; round < 20; round++) {
		pid_t pid;
		ssize_t n;

		fd = stage_open("x", O_WRONLY | O_CREAT);
		pid = fork();
		if (pid == 0) {
			int a = append_open(shard);

			usleep(2000 * (round % 5));
			_exit(put(a, "begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch x\ncommit\n") >
					      0
				      ? 0
				      : 1);
		}
		for (rows = 0, n = 1; n > 0; rows += n > 0) {
			snprintf(text, sizeof text, "0\t1\t%u\t%lu\n", round, rows);
			n = put(fd, text);
		}
		ck_assert_int_eq(n, -ESTALE);
		ck_assert_int_eq(join(pid), 0);
		close(fd);
		total += rows;
		char *snapshot = slurp(at(shard, "snapshot"));

		ck_assert_uint_eq(count_lines(snapshot), total);
		free(snapshot);
	}
}
END_TEST

static int commit_x(void *arg)
{
	usleep(*(useconds_t *)arg);
	return write_once(at(shard, "append"),
			  "begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch x\ncommit\n");
}

/* Rows in two pieces: a commit is refused while half of one is there, takes all of what was acknowledged, or
 * leaves it as it was. */
START_TEST(a_commit_never_meets_half_a_row)
{
	enum { HALF = 7 };
	char row[64], *got;
	size_t total = 0;
	struct rng r = rng_new(504);

	for (unsigned round = 0; round < 100; round++) {
		useconds_t pause = (useconds_t)rng_below(&r, 3000);
		int fd = stage_open("x", O_WRONLY | O_CREAT | O_TRUNC), rc;
		pid_t pid = spawn(commit_x, &pause);
		bool half = true;
		size_t rows;

		for (rows = 0; half; rows += half) {
			sprintf(row, "0\t1\t%03u\t%06zu\n", round, rows);
			half = put_len(fd, row, HALF) == HALF;
			if (half && put(fd, row + HALF) < 0)
				break;
		}
		close(fd);
		rc = join(pid);
		total += rc == 0 ? rows : 0;
		if (rc == 0) {
			ck_assert(!half);
			want_gone("x");
			continue;
		}
		ck_errno(rc, EINVAL);
		got = slurp(batch("x"));
		ck_assert_uint_eq(count_lines(got), rows);
		row[half ? HALF : 0] = '\0';
		ck_assert_str_eq(rows != 0 ? strrchr(got, '\n') + 1 : got, row);
		free(got);
	}
	got = slurp(at(shard, "snapshot"));
	ck_assert_uint_eq(count_lines(got), total);
	free(got);
}
END_TEST

START_TEST(state_tells_of_staged_batches)
{
	char *out;

	stage("x", "bounds 0 -\n1\t1\ta\tx\n2\t1\ta\tx\n");
	stage("y", "1\t1");
	out = want_sh(
		"python3 -c 'import json,sys; s = json.load(open(sys.argv[1])); x = s[\"staged\"][\"x\"]; "
		"y = s[\"staged\"][\"y\"]; print(s[\"staged_batches\"], x[\"rows\"], x[\"size\"], "
		"x[\"lower\"], x[\"upper\"], "
		"x[\"unfinished\"], x[\"lost\"], y[\"rows\"], y[\"size\"], y[\"unfinished\"], \"lower\" in "
		"y)' %s/state",
		shard);
	ck_assert_str_eq(out, "2 2 27 0 - False False 0 3 True False\n");
	free(out);
}
END_TEST

/* --- how long they last ---------------------------------------------------------------------------- */

START_TEST(they_survive_a_remount)
{
	struct stat st, st2;
	int fd = stage_open("x", O_WRONLY | O_CREAT);

	ck_assert_int_eq(put(fd, "bounds 0 9\n0\t1\ta\tb\n1\t1"), 22);
	close(fd);
	stage("y", "0\t1\ta\tb\n");
	ck_works(rename(batch("y"), batch("z")));
	stage("empty", "");
	fd = stage_open("open", O_WRONLY | O_CREAT);
	ck_assert_int_eq(put(fd, "0\t1\topen\tb\n"), 11);
	ck_works(stat(batch("x"), &st));
	world_stop(&w);
	close(fd);
	world_start(&w, NULL);
	ck_works(stat(batch("x"), &st2));
	ck_assert_uint_eq(st.st_ino, st2.st_ino);
	want_batch("x", "bounds 0 9\n0\t1\ta\tb\n1\t1");
	want_batch("z", "0\t1\ta\tb\n");
	want_batch("empty", "");
	want_batch("open", "0\t1\topen\tb\n");
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "\tc\td\n"), 5);
	close(fd);
	want_txn(shard, "begin expected_upper=0 new_upper=9\nbatch x\nbatch z\nbatch empty\ncommit\n");
	want_file(shard, "snapshot", "8\t2\ta\tb\n8\t1\tc\td\n");
}
END_TEST

START_TEST(fsync_makes_them_durable)
{
	int fd = stage_open("x", O_WRONLY | O_CREAT), fd2 = stage_open("y", O_WRONLY | O_CREAT);

	ck_assert_int_eq(put(fd, "0\t1\ta\tb\n1\t1"), 11);
	ck_works(fsync(fd));
	ck_assert_int_eq(put(fd2, "0\t1\tc\td\n"), 8);
	ck_works(fdatasync(fd2));
	ck_assert_int_eq(put(fd2, "2\t1\tc\td\n"), 8);
	stage("z", "0\t1\tz\tz\n");
	free(want_sh("sync %s", batch("z"))); /* opens it for reading */
	world_kill(&w);
	close(fd);
	close(fd2);
	world_start(&w, NULL);
	want_batch("x", "0\t1\ta\tb\n1\t1");
	want_batch("z", "0\t1\tz\tz\n");
	/* y is as of its last fsync, or later */
	char *y = slurp(batch("y"));

	ck_assert_msg(strcmp(y, "0\t1\tc\td\n") == 0 || strcmp(y, "0\t1\tc\td\n2\t1\tc\td\n") == 0, "%s", y);
	free(y);
	want_txn(shard, "begin expected_upper=0 new_upper=5\nbatch y\nbatch z\ncommit\n");
	world_kill(&w);
	world_start(&w, NULL);
	want_gone("y");
	want_file(shard, "upper", "5\n");
	world_stop(&w);
	free(want_sh("%s fsck %s", shardctl_path(), w.store));
	world_start(&w, NULL);
}
END_TEST

/* Without fsync: as of the last one, or gone; never anything else. */
START_TEST(a_crash_leaves_nothing_half)
{
	struct rng r = rng_new(501);
	char text[64], *got;

	stage("x", "");
	free(want_sh("sync %s", batch("x")));
	for (unsigned round = 0; round < 10; round++) {
		unsigned rows = (unsigned)rng_below(&r, 3000), synced = 0;
		int fd = stage_open("x", O_WRONLY | O_TRUNC);

		for (unsigned i = 0; i < rows; i++) {
			snprintf(text, sizeof text, "%u\t1\tround%u\tx\n", i, round);
			ck_assert_int_gt(put(fd, text), 0);
			if (rng_below(&r, 400) == 0) {
				ck_works(fsync(fd));
				synced = i + 1;
			}
		}
		world_kill(&w);
		close(fd);
		world_start(&w, NULL);
		got = slurp(batch("x"));
		snprintf(text, sizeof text, "\tround%u\t", round);
		if (synced != 0 || strstr(got, text) != NULL) {
			ck_assert_uint_ge(count_lines(got), synced);
			ck_assert_uint_le(count_lines(got), rows);
			free(want_sh("test -z \"$(grep -v round%u %s)\"", round, batch("x")));
		}
		free(got);
	}
}
END_TEST

/* --- a full store ---------------------------------------------------------------------------------- */

static char *disk;

static void small_disk(void)
{
	world_new(&w);
	disk = check_path(w.dir, "disk");
	ck_works(mkdir(disk, 0755));
	ck_works(mount("tmpfs", disk, "tmpfs", 0, "size=96m"));
	free(w.store);
	w.store = check_path(disk, "store");
	free(want_sh("head -c 40000000 /dev/zero > %s/filler", disk));
	world_start(&w, NULL);
	shard = shard_new(&w);
}

static void no_disk(void)
{
	if (w.pid != 0)
		world_stop(&w);
	ck_works(umount2(disk, MNT_DETACH));
	free(disk);
	free(shard);
	world_close(&w);
}

START_TEST(what_lost_a_write_is_marked_until_it_is_emptied)
{
	enum { PIECE = 1 << 20 };
	char *text = malloc(PIECE + 200), *p, *state;
	struct rng r = rng_new(503);
	int fd = stage_open("x", O_WRONLY | O_CREAT), rc = 0;

	stage("y", "0\t1\ty\ty\n");
	for (int i = 0; rc == 0 && i < 200; i++) {
		for (p = text; p < text + PIECE;) {
			p += sprintf(p, "0\t1\t");
			for (int k = 0; k < 8; k++)
				p += sprintf(p, "%016llx", (unsigned long long)rng_below(&r, 0));
			p += sprintf(p, "\t\n");
		}
		rc = put_all(fd, text, (size_t)(p - text));
	}
	if (rc == 0)
		rc = fsync(fd) == 0 ? 0 : errno;
	ck_errno(rc, ENOSPC);
	(void)sh(NULL, "cat /dev/zero >> %s/filler", disk); /* there was room for what was taken */
	ck_fails(fsync(fd), ENOSPC);
	want_refusal("begin expected_upper=0 new_upper=1\nbatch x\nbatch y\ncommit\n", ENOSPC,
		     "error StoreFull ");
	ck_fails(close(fd), ENOSPC); /* with it goes what there was no room for */
	want_refusal("begin expected_upper=0 new_upper=1\nbatch x\nbatch y\ncommit\n", EIO,
		     "error BatchIncomplete ");
	ck_works(unlink(at(disk, "filler")));
	want_refusal("begin expected_upper=0 new_upper=1\nbatch x\nbatch y\ncommit\n", EIO,
		     "error BatchIncomplete ");
	world_stop(&w);
	world_start(&w, NULL);
	want_refusal("begin expected_upper=0 new_upper=1\nbatch x\nbatch y\ncommit\n", EIO,
		     "error BatchIncomplete ");
	state = slurp(at(shard, "state"));
	ck_assert_ptr_nonnull(strstr(state, "\"lost\": true"));
	free(state);
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "1\t1\tmore\t\n"), -EIO);
	close(fd);
	fd = stage_open("x", O_WRONLY | O_TRUNC);
	ck_assert_int_eq(put(fd, "0\t1\tx\tx\n"), 8);
	ck_works(fsync(fd));
	close(fd);
	want_batch("x", "0\t1\tx\tx\n");
	want_txn(shard, "begin expected_upper=0 new_upper=1\nbatch x\nbatch y\ncommit\n");
	want_file(shard, "snapshot", "0\t1\tx\tx\n0\t1\ty\ty\n");
	free(text);
}
END_TEST

/* --- memory ---------------------------------------------------------------------------------------- */

static unsigned long peak_kib(pid_t pid)
{
	char path[64], line[256];
	unsigned long kib = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "VmHWM: %lu kB", &kib) == 1)
			break;
	if (f != NULL)
		fclose(f);
	return kib;
}

START_TEST(a_large_one_costs_bounded_memory)
{
	enum { PIECE = 1 << 20, PIECES = 200 };
	char *text = malloc(PIECE + 200), *p;
	struct rng r = rng_new(502);
	struct stat st;
	unsigned long n = 0;
	off_t size = 0;
	int fd = stage_open("x", O_WRONLY | O_CREAT);

	for (int i = 0; i < PIECES; i++) {
		for (p = text; p < text + PIECE; n++) {
			p += sprintf(p, "0\t1\t%016llx\t", (unsigned long long)rng_below(&r, 0));
			p = (char *)memset(p, 'a' + (int)(n % 26), 100) + 100;
			*p++ = '\n';
		}
		ck_errno(put_all(fd, text, (size_t)(p - text)), 0);
		size += p - text;
	}
	ck_works(fsync(fd));
	ck_works(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, size);
	ck_works(close(fd));
	fd = append_open(shard);
	ck_assert_int_gt(put(fd, "begin expected_upper=0 new_upper=1\nbatch x\ncommit\n"), 0);
	close(fd);
	ck_works(stat(batch("0-1"), &st));
	ck_assert_int_eq(st.st_size, size);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they need some of their own */
	ck_assert_uint_lt(peak_kib(w.pid), 256 << 10);
#else
	ck_assert_uint_gt(peak_kib(w.pid), 0);
#endif
	free(text);
}
END_TEST

Suite *staged_commit_suite(void)
{
	Suite *s = suite_create("staged commits");
	TCase *tc = shard_case(s, "staged commits", 120);

	tcase_add_test(tc, a_commit_takes_what_was_written_until_then);
	tcase_add_test(tc, rows_and_batches_are_committed_together);
	tcase_add_test(tc, a_failed_commit_keeps_them_for_another_try);
	tcase_add_test(tc, an_append_cuts_a_batch_with_bounds);
	tcase_add_test(tc, a_last_row_without_newline_is_not_committed);
	tcase_add_test(tc, a_commit_meets_a_writer_at_work);
	tcase_add_test(tc, a_commit_never_meets_half_a_row);
	tcase_add_test(tc, state_tells_of_staged_batches);
	tcase_add_test(tc, they_survive_a_remount);
	tcase_add_test(tc, fsync_makes_them_durable);
	tcase_add_test(tc, a_crash_leaves_nothing_half);
	tcase_add_test(tc, a_large_one_costs_bounded_memory);
	tc = world_case(s, "full", 120);
	tcase_add_checked_fixture(tc, small_disk, no_disk);
	tcase_add_test(tc, what_lost_a_write_is_marked_until_it_is_emptied);
	return s;
}
