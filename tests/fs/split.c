/*
 * split.c - how the text of transactions is cut into writes makes no difference.
 *
 * Each text is written to a fresh shard whose upper is 0, in pieces, by a client that goes on after short counts.
 * Its outcome (errno, verdicts, upper, snapshot, batches, the line in errors) must be the one of the table.
 */
#include "tests/fs/world.h"

#include <sys/uio.h>
#include <sys/wait.h>

static struct world w;

static void setup(void)
{
	world_open(&w);
}

static void teardown(void)
{
	world_close(&w);
}

struct text {
	const char *text;
	int errnum;
	const char *verdicts; /* without what stands behind message= */
	const char *shard;    /* print_shard() */
};

static const struct text texts[] = {
	{"begin expected_upper=0 new_upper=3\n0\t1\tk\tv\n2\t2\tx\\ty\t\\N\ncommit\n", 0,
	 "ok lower=0 new_upper=3 seqno=N updates=2\n", "upper 3\n2\t1\tk\tv\n2\t2\tx\\ty\t\\N\nseqno +1\n0-3 20\n"},
	{"begin expected_upper=1 new_upper=3\n1\t1\tk\tv\ncommit\n", ESTALE,
	 "error UpperMismatch errno=ESTALE expected_upper=1 current_upper=0 ", "upper 0\nseqno +0\n"},
	{"begin lower=0 upper=2\n1\t1\tk\tv\n2\t1\tk\tv\ncommit\n", EINVAL,
	 "error UpdateBeyondUpper errno=EINVAL time=2 upper=2 ", "upper 0\nseqno +0\n"},
	{"begin expected_upper=0 new_upper=1\n0\t1\ta\t1\ncommit\n"
	 "begin lower=0 upper=2\n1\t1\tb\t2\ncommit\n"
	 "begin expected_upper=* new_upper=+1\n*\t1\tc\t3\ncommit\n",
	 0,
	 "ok lower=0 new_upper=1 seqno=N updates=1\nok lower=1 new_upper=2 seqno=N updates=1\n"
	 "ok lower=2 new_upper=3 seqno=N updates=1\n",
	 "upper 3\n2\t1\ta\t1\n2\t1\tb\t2\n2\t1\tc\t3\nseqno +3\n0-1 8\n1-2 8\n2-3 8\n"},
	{"begin expected_upper=0 new_upper=1\n0\t1\ta\t1\ncommit\n"
	 "begin expected_upper=0 new_upper=1\n0\t1\ta\t1\ncommit\n"
	 "begin expected_upper=1 new_upper=2\n1\t1\tb\t1\ncommit\n",
	 ESTALE,
	 "ok lower=0 new_upper=1 seqno=N updates=1\nerror UpperMismatch errno=ESTALE expected_upper=0 current_upper=1 ",
	 "upper 1\n0\t1\ta\t1\nseqno +1\n0-1 8\n"},
	{"begin expected_upper=* new_upper=+2\ncommit\nbegin expected_upper=* new_upper=+1\n*\t1\ta\\q\tb\ncommit\n", EINVAL,
	 "ok lower=0 new_upper=2 seqno=N updates=0\nerror BadSyntax errno=EINVAL field=key ",
	 "upper 2\nseqno +1\n0-2 0\n"},
	{"begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\nhello\n", EINVAL,
	 "ok lower=0 new_upper=1 seqno=N updates=1\nerror BadSyntax errno=EINVAL ",
	 "upper 1\n0\t1\ta\tb\nseqno +1\n0-1 8\n"},
};
enum { TEXTS = sizeof texts / sizeof texts[0] };

/* Compare what became of t, written in the way `how` tells. Closes fd. */
static void want_outcome(const struct text *t, const char *shard, int fd, int errnum, const char *how)
{
	char verdicts[TEXT_MAX] = "", *line, *shown;

	ck_assert_msg(errnum == t->errnum, "%s, %s: %s, not %s", t->text, how, strerrorname_np(errnum),
		      strerrorname_np(t->errnum));
	for (line = verdict(fd); line[0] != '\0'; line = verdict(fd)) {
		char *message = strstr(line, "message=");

		if (message != NULL)
			*message = '\0';
		strcat(verdicts, line);
		free(line);
	}
	free(line);
	ck_assert_msg(strcmp(verdicts, t->verdicts) == 0, "%s, %s: verdicts %s, not %s", t->text, how, verdicts,
		      t->verdicts);
	ck_assert_int_eq(close(fd), 0);
	shown = print_shard(shard);
	ck_assert_msg(strcmp(shown, t->shard) == 0, "%s, %s: %s, not %s", t->text, how, shown, t->shard);
	free(shown);
	line = last_error(shard);
	shown = strstr(t->verdicts, "error ");
	ck_assert_msg(shown == NULL ? line[0] == '\0' : strncmp(line, shown + 6, strlen(shown + 6)) == 0,
		      "%s, %s: errors has %s", t->text, how, line);
	free(line);
}

/* Write text cut at the count ascending offsets. */
static int put_cut(int fd, const char *text, const size_t *cuts, size_t count)
{
	size_t from = 0, len = strlen(text);
	int e = 0;

	for (size_t i = 0; i <= count && e == 0; i++) {
		size_t to = i < count ? cuts[i] : len;

		e = put_all(fd, text + from, to - from);
		from = to;
	}
	return e;
}

static void try_cuts(const struct text *t, const size_t *cuts, size_t count)
{
	char *shard = shard_new(&w), how[64];
	int fd = append_open(shard);

	snprintf(how, sizeof how, "%zu cuts, the first at %zu", count, count != 0 ? cuts[0] : 0);
	want_outcome(t, shard, fd, put_cut(fd, t->text, cuts, count), how);
	free(shard);
}

START_TEST(a_text_in_one_write)
{
	const struct text *t = &texts[_i];
	char *shard = shard_new(&w);
	int fd = append_open(shard);
	ssize_t n = put(fd, t->text);
	size_t len = strlen(t->text);

	/* The count is that of the transactions done, the rest gets the errno and does nothing. */
	if (t->errnum == 0) {
		ck_assert_int_eq(n, len);
	} else if (strncmp(t->verdicts, "ok ", 3) == 0) {
		ck_assert_int_eq(n, strstr(t->text, "commit\n") + 7 - t->text);
		ck_assert_int_eq(put_len(fd, t->text + n, len - (size_t)n), -t->errnum);
	} else {
		ck_assert_int_eq(n, -t->errnum);
	}
	want_outcome(t, shard, fd, t->errnum, "one write");
	free(shard);
}
END_TEST

START_TEST(a_text_cut_at_every_point)
{
	for (size_t i = 1; i < strlen(texts[_i].text); i++)
		try_cuts(&texts[_i], &i, 1);
}
END_TEST

START_TEST(a_text_byte_by_byte)
{
	size_t cuts[512], n = 0;

	for (size_t i = 1; i < strlen(texts[_i].text); i++)
		cuts[n++] = i;
	try_cuts(&texts[_i], cuts, n);
}
END_TEST

START_TEST(a_short_text_cut_at_every_two_points)
{
	static const struct text shorter = {"begin expected_upper=0 new_upper=-\n7\t1\t\t\\N\ncommit\n", 0,
				     "ok lower=0 new_upper=- seqno=N updates=1\n",
				     "upper -\n18446744073709551615\t1\t\t\\N\nseqno +1\n0-- 8\n"};

	for (size_t i = 1; i < strlen(shorter.text); i++)
		for (size_t j = i + 1; j < strlen(shorter.text); j++)
			try_cuts(&shorter, (const size_t[]){i, j}, 2);
}
END_TEST

static int ascending(const void *a, const void *b)
{
	const size_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

START_TEST(a_text_cut_at_random)
{
	struct rng r = rng_new(100 + (uint64_t)_i);
	size_t cuts[24];

	for (int round = 0; round < 40; round++) {
		size_t n = 1 + rng_below(&r, 24);

		for (size_t i = 0; i < n; i++)
			cuts[i] = rng_below(&r, strlen(texts[_i].text) + 1);
		qsort(cuts, n, sizeof *cuts, ascending);
		try_cuts(&texts[_i], cuts, n);
	}
}
END_TEST

START_TEST(offsets_and_open_flags_mean_nothing)
{
	static const int flags[] = {O_APPEND, O_TRUNC, O_NONBLOCK, O_SYNC, O_APPEND | O_TRUNC | O_CREAT, O_DSYNC};
	const struct text *t = &texts[_i];

	for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++) {
		char *shard = shard_new(&w);
		int fd = open(at(shard, "append"), O_RDWR | flags[f], 0644);

		ck_assert_int_ge(fd, 0);
		want_outcome(t, shard, fd, put_cut(fd, t->text, (const size_t[]){5, 20}, 2), "flags");
		free(shard);
	}
	char *shard = shard_new(&w);
	int fd = append_open(shard), e = 0;
	off_t offset = 1 << 20;

	for (const char *p = t->text; *p != '\0' && e == 0; offset = offset * 7 % 100003) {
		size_t len = strlen(p) < 11 ? strlen(p) : 11;
		ssize_t n = pwrite(fd, p, len, offset);

		e = n < 0 ? errno : 0;
		p += n < 0 ? 0 : n;
	}
	want_outcome(t, shard, fd, e, "pwrite");
	free(shard);
}
END_TEST

START_TEST(writev_is_one_write)
{
	const struct text *t = &texts[_i];
	char *shard = shard_new(&w), copy[512];
	struct iovec v[64];
	int fd = append_open(shard), count = 0, e = 0;
	size_t len = strlen(t->text), step = len / 40 + 1;
	ssize_t n;

	strcpy(copy, t->text);
	for (size_t i = 0; i < len; i += step, count++)
		v[count] = (struct iovec){copy + i, len - i < step ? len - i : step};
	n = writev(fd, v, count);
	if (n < 0)
		e = errno;
	else
		e = put_all(fd, t->text + n, len - (size_t)n);
	want_outcome(t, shard, fd, e, "writev");
	free(shard);
}
END_TEST

START_TEST(duplicates_and_children_write_the_same_transaction)
{
	const struct text *t = &texts[_i];
	char *shard = shard_new(&w);
	int fd = append_open(shard), e = 0, fds[2] = {fd, dup(fd)};
	size_t len = strlen(t->text);

	ck_assert_int_ge(fds[1], 0);
	for (size_t i = 0; i < len && e == 0; i += 9) {
		size_t n = len - i < 9 ? len - i : 9;
		pid_t pid;

		if (i / 9 % 3 < 2) {
			e = put_all(fds[i / 9 % 3], t->text + i, n);
			continue;
		}
		pid = fork();
		if (pid == 0) {
			int rc = put_all(fds[0], t->text + i, n);

			close(fds[0]); /* a FLUSH in the middle */
			close(fds[1]);
			_exit(rc);
		}
		e = join(pid);
	}
	close(fds[1]);
	want_outcome(t, shard, fd, e, "dup and fork");
	free(shard);
}
END_TEST

START_TEST(splice_writes_too)
{
	const struct text *t = &texts[_i];
	char *shard = shard_new(&w);
	int fd = append_open(shard), p[2], e = 0;
	size_t len = strlen(t->text);
	ssize_t n;

	ck_works(pipe(p));
	for (size_t i = 0; i < len && e == 0; i += 16) {
		size_t left = len - i < 16 ? len - i : 16;

		ck_assert_int_eq(put_len(p[1], t->text + i, left), left);
		while (left != 0 && e == 0) {
			n = splice(p[0], NULL, fd, NULL, left, 0);
			e = n < 0 ? errno : 0;
			left -= n < 0 ? 0 : (size_t)n;
		}
	}
	close(p[0]);
	close(p[1]);
	want_outcome(t, shard, fd, e, "splice");
	free(shard);
}
END_TEST

/* --- large ones ------------------------------------------------------------------------------------ */

/* A transaction [lower, lower + 1) of rows of 1000 bytes, `size` bytes in all or a little more; the last row is
 * `last`. */
static char *large(char *p, unsigned lower, size_t size, const char *last)
{
	char *end = p + size;

	p += sprintf(p, "begin expected_upper=%u new_upper=%u\n", lower, lower + 1);
	for (unsigned i = 0; p < end; i++) {
		p += sprintf(p, "%u\t1\tkey%06u\t", lower, i);
		p = (char *)memset(p, 'a' + (int)(i % 26), 980) + 980;
		*p++ = '\n';
	}
	return p + sprintf(p, "%scommit\n", last);
}

START_TEST(a_large_write_that_fails_in_its_last_piece)
{
	char *text = malloc(12 << 20), *end = large(large(text, 0, 100000, ""), 1, 4 << 20, "7\t1\ta\tb\n");
	size_t len = (size_t)(end - text);
	char *shard = shard_new(&w);
	int fd = append_open(shard);
	ssize_t n = put_len(fd, text, len);

	/* Pieces of 1 MiB go in; the last one fails. */
	ck_assert_int_gt(n, 1 << 20);
	ck_assert_int_lt(n, len);
	ck_assert_int_eq(put_len(fd, text + n, len - (size_t)n), -EINVAL);
	ck_assert_int_eq(put_len(fd, text, len), -EINVAL);
	want_verdict_like(fd, "ok lower=0 new_upper=1 seqno=N updates=10");
	want_verdict_like(fd, "error UpdateBeyondUpper errno=EINVAL time=7 upper=2 ");
	want_file(shard, "upper", "1\n");
	close(fd);

	/* The good one, in one write. */
	fd = append_open(shard);
	end = large(text, 1, 9 << 20, "");
	len = (size_t)(end - text);
	ck_assert_int_eq(put_len(fd, text, len), len);
	want_verdict_like(fd, "ok lower=1 new_upper=2 seqno=N updates=9");
	close(fd);
	want_file(shard, "upper", "2\n");
	char *rows = want_sh("wc -l < %s/batches/1-2", shard);

	ck_assert_int_eq(atoi(rows), (int)count_lines(text) - 2);
	free(rows);
	free(text);
	free(shard);
}
END_TEST

START_TEST(many_transactions_in_one_large_write_stop_at_the_first_failure)
{
	char *text = malloc(6 << 20), *p = text, *bad = NULL, *shard = shard_new(&w);
	unsigned good = 1500;
	int fd = append_open(shard);
	size_t len;

	for (unsigned i = 0; i < 4000; i++) {
		if (i == good)
			bad = p;
		p += sprintf(p, "begin expected_upper=%u new_upper=%u\n%u\t1\tk%u\t", i == good ? 0 : i, i + 1, i, i % 7);
		p = (char *)memset(p, 'x', 1000) + 1000;
		p += sprintf(p, "\ncommit\n");
	}
	len = (size_t)(p - text);
	ssize_t n = put_len(fd, text, len);

	/* The kernel's cut and the failure are both told by the count. */
	ck_assert_int_gt(n, 0);
	while (n >= 0 && n < bad - text) {
		ssize_t more = put_len(fd, text + n, len - (size_t)n);

		ck_assert_int_gt(more, 0);
		n += more;
	}
	ck_assert_int_eq(n, bad - text);
	ck_assert_int_eq(put_len(fd, bad, len - (size_t)n), -ESTALE);
	close(fd);
	want_file(shard, "upper", "1500\n");
	free(text);
	free(shard);
}
END_TEST

Suite *split_suite(void)
{
	Suite *s = suite_create("cuts");
	TCase *tc = world_case(s, "cuts", 240);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_text_in_one_write, 0, TEXTS);
	tcase_add_loop_test(tc, a_text_cut_at_every_point, 0, TEXTS);
	tcase_add_loop_test(tc, a_text_byte_by_byte, 0, TEXTS);
	tcase_add_test(tc, a_short_text_cut_at_every_two_points);
	tcase_add_loop_test(tc, a_text_cut_at_random, 0, TEXTS);
	tcase_add_loop_test(tc, offsets_and_open_flags_mean_nothing, 0, TEXTS);
	tcase_add_loop_test(tc, writev_is_one_write, 0, TEXTS);
	tcase_add_loop_test(tc, duplicates_and_children_write_the_same_transaction, 0, TEXTS);
	tcase_add_loop_test(tc, splice_writes_too, 0, TEXTS);
	tcase_add_test(tc, a_large_write_that_fails_in_its_last_piece);
	tcase_add_test(tc, many_transactions_in_one_large_write_stop_at_the_first_failure);
	return s;
}
