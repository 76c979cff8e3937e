/* listen.c - listen/<f> and subscribe/<t>: what they say, in every way of writing and of reading. */
#include "tests/fs/follower.h"

#include <inttypes.h>

/* --- the grammar ----------------------------------------------------------------------------------- */

START_TEST(each_step_is_a_transaction_of_append)
{
	int fd = follow("listen/0", O_NONBLOCK);

	want_txn(shard, "begin expected_upper=0 new_upper=3\n2\t-5\ttab\\x09\t\\N\ncommit\n");
	want_text(fd, "begin lower=0 upper=3\n2\t-5\ttab\\t\t\\N\ncommit\n");
	/* an advance without rows is told too */
	want_txn(shard, "begin expected_upper=3 new_upper=10\ncommit\n");
	want_text(fd, "begin lower=3 upper=10\ncommit\n");
	/* a heartbeat is none */
	want_txn(shard, "begin expected_upper=10 new_upper=10\ncommit\n");
	want_txn(shard, "begin lower=0 upper=4\ncommit\n");
	ck_fails(read(fd, (char[9]){0}, 9), EAGAIN);
	/* steps may be merged */
	want_txn(shard, "begin expected_upper=10 new_upper=11\ncommit\n");
	want_txn(shard, "begin expected_upper=11 new_upper=20\n11\t1\t\t\ncommit\n");
	want_text(fd, "begin lower=10 upper=20\n11\t1\t\t\ncommit\n");
	want_txn(shard, "begin expected_upper=20 new_upper=-\n18446744073709551615\t1\tlast\tx\ncommit\n");
	want_text(fd, "begin lower=20 upper=-\n18446744073709551615\t1\tlast\tx\ncommit\n");
	for (int i = 0; i < 3; i++)
		want_text(fd, "");
	close(fd);
}
END_TEST

START_TEST(it_begins_at_the_frontier_asked_for)
{
	int fds[4], late;

	want_txn(shard, "begin expected_upper=0 new_upper=6\n1\t1\ta\t\n5\t1\tb\t\ncommit\n");
	fds[0] = follow("listen/2", O_NONBLOCK);
	fds[1] = follow("listen/5", O_NONBLOCK);
	fds[2] = follow("listen/6", O_NONBLOCK);
	fds[3] = follow("listen/now", O_NONBLOCK);
	late = follow("listen/100", O_NONBLOCK);
	want_text(fds[0], "begin lower=2 upper=6\n5\t1\tb\t\ncommit\n");
	want_text(fds[1], "begin lower=5 upper=6\n5\t1\tb\t\ncommit\n");
	ck_fails(read(fds[2], (char[9]){0}, 9), EAGAIN);
	want_txn(shard, "begin expected_upper=6 new_upper=7\n6\t1\tc\t\ncommit\n");
	for (int i = 0; i < 4; i++) {
		want_text(fds[i], "begin lower=6 upper=7\n6\t1\tc\t\ncommit\n");
		close(fds[i]);
	}
	ck_fails(read(late, (char[9]){0}, 9), EAGAIN);
	want_txn(shard, "begin expected_upper=7 new_upper=100\n99\t1\tc\t\ncommit\n");
	ck_fails(read(late, (char[9]){0}, 9), EAGAIN);
	want_txn(shard, "begin expected_upper=100 new_upper=200\n100\t1\td\t\ncommit\n");
	want_text(late, "begin lower=100 upper=200\n100\t1\td\t\ncommit\n");
	close(late);
	late = follow("listen/18446744073709551615", O_NONBLOCK);
	want_txn(shard, "begin expected_upper=200 new_upper=-\n201\t1\td\t\n18446744073709551615\t1\te\t\ncommit\n");
	want_text(late, "begin lower=18446744073709551615 upper=-\n18446744073709551615\t1\te\t\ncommit\n");
	want_text(late, "");
	close(late);
}
END_TEST

START_TEST(names_that_are_no_frontier_are_not_there)
{
	static const char *const names[] = {
		"listen/x",	"listen/01",   "listen/+1",   "listen/-1",  "listen/--", "listen/18446744073709551616",
		"listen/1 ",	"subscribe/-", "subscribe/x", "wait/now",   "wait/-",	 "subscribe/00",
		"listen/1.0", "listen/NOW",
	};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		ck_errno(try_follow(names[i]), ENOENT);
	ck_fails(open(at(shard, "listen/7"), O_WRONLY), EPERM);
	ck_fails(open(at(shard, "listen/x"), O_WRONLY | O_CREAT, 0600), EPERM);
	ck_fails(unlink(at(shard, "listen/7")), EPERM);
	ck_fails(mkdir(at(shard, "subscribe/7"), 0700), EEXIST); /* it is there for who asks */
	ck_fails(truncate(at(shard, "subscribe/7"), 0), EPERM);
}
END_TEST

START_TEST(the_empty_frontier_is_the_end)
{
	want_file(shard, "listen/-", "");
	want_txn(shard, "begin expected_upper=0 new_upper=5\n0\t1\ta\t\ncommit\n");
	want_file(shard, "listen/-", "");
	want_txn(shard, "begin expected_upper=5 new_upper=-\ncommit\n");
	want_file(shard, "listen/-", "");
	want_file(shard, "listen/now", "");
	want_file(shard, "listen/5", "begin lower=5 upper=-\ncommit\n");
	/* Who has read to the end holds the last time there is until it has let go. */
	free(want_sh("until [ -z \"$(ls %s/readers)\" ]; do :; done", shard));
	ck_errno(write_once(at(shard, "since"), "-"), 0);
	want_file(shard, "listen/-", "");
	want_file(shard, "listen/now", "");
	ck_errno(try_follow("listen/18446744073709551615"), ENODATA);
	ck_errno(try_follow("subscribe/18446744073709551615"), ENODATA);
}
END_TEST

START_TEST(what_since_has_passed_is_enodata)
{
	ck_errno(try_follow("listen/0"), 0); /* since = f = 0 */
	want_txn(shard, "begin expected_upper=0 new_upper=10 since=5\n2\t1\ta\t\n6\t1\tb\t\ncommit\n");
	ck_errno(try_follow("listen/0"), ENODATA);
	ck_errno(try_follow("listen/4"), ENODATA);
	ck_errno(try_follow("listen/5"), ENODATA);
	ck_errno(try_follow("listen/6"), 0);
	ck_errno(try_follow("subscribe/4"), ENODATA);
	ck_errno(try_follow("subscribe/5"), 0);
	/* since beyond the upper */
	ck_errno(write_once(at(shard, "since"), "20"), 0);
	ck_errno(try_follow("listen/10"), ENODATA);
	ck_errno(try_follow("listen/now"), ENODATA);
	ck_errno(try_follow("subscribe/now"), ENODATA);
	ck_errno(try_follow("subscribe/19"), ENODATA);
	ck_errno(try_follow("listen/20"), ENODATA);
	ck_errno(try_follow("listen/21"), 0);
	ck_errno(try_follow("subscribe/20"), 0);
}
END_TEST

START_TEST(a_subscription_begins_with_the_collection)
{
	int fd = follow("subscribe/now", O_NONBLOCK), late = follow("subscribe/7", O_NONBLOCK);

	want_txn(shard, "begin expected_upper=0 new_upper=2\n0\t1\tb\tx\n1\t2\ta\ty\ncommit\n");
	want_text(fd, "begin lower=0 upper=2\n1\t2\ta\ty\n0\t1\tb\tx\ncommit\n"); /* it was listen/0 */
	want_txn(shard, "begin expected_upper=2 new_upper=4\n2\t-1\tb\tx\n3\t1\tc\t\ncommit\n");
	close(fd);
	ck_fails(read(late, (char[9]){0}, 9), EAGAIN);
	fd = follow("subscribe/2", O_NONBLOCK);
	want_text(fd, "begin expected_upper=0 new_upper=3 since=2\n2\t2\ta\ty\ncommit\n"
		      "begin lower=3 upper=4\n3\t1\tc\t\ncommit\n");
	close(fd);
	fd = follow("subscribe/now", O_NONBLOCK);
	want_text(fd, "begin expected_upper=0 new_upper=4 since=3\n3\t2\ta\ty\n3\t1\tc\t\ncommit\n");
	want_txn(shard, "begin expected_upper=4 new_upper=9\n7\t1\td\t\n8\t1\te\t\ncommit\n");
	want_text(fd, "begin lower=4 upper=9\n7\t1\td\t\n8\t1\te\t\ncommit\n");
	want_text(late, "begin expected_upper=0 new_upper=8 since=7\n7\t2\ta\ty\n7\t1\tc\t\n7\t1\td\t\ncommit\n"
			"begin lower=8 upper=9\n8\t1\te\t\ncommit\n");
	want_txn(shard, "begin expected_upper=9 new_upper=-\ncommit\n");
	want_text(fd, "begin lower=9 upper=-\ncommit\n");
	want_text(fd, "");
	close(fd);
	close(late);
	fd = follow("subscribe/now", 0);
	want_text(fd, "begin expected_upper=0 new_upper=- since=18446744073709551615\n"
		      "18446744073709551615\t2\ta\ty\n18446744073709551615\t1\tc\t\n"
		      "18446744073709551615\t1\td\t\n18446744073709551615\t1\te\t\ncommit\n");
	want_text(fd, "");
	close(fd);
}
END_TEST

START_TEST(rows_that_were_given_are_not_repeated_when_batches_are_merged)
{
	struct follower f;
	struct stat st;
	int i = 0;

	follower_open(&f, at(shard, "listen/0"), 0, O_NONBLOCK);
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\t\ncommit\n");
	follower_drain(&f, NULL);
	ck_assert_uint_eq(f.rows, 1);
	/* until the batch it was in is part of another one */
	while (stat(at(shard, "batches/0-1"), &st) == 0 && i++ < 2000)
		want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\tb\t\ncommit\n");
	ck_assert_int_lt(i, 2000);
	follower_drain(&f, NULL);
	ck_assert_uint_eq(f.rows, 1 + (unsigned)i);
	follower_close(&f);
}
END_TEST

/* --- exactly once ---------------------------------------------------------------------------------- */

enum { KEYS = 60000, FOLLOWERS = 5 };

/* What became of each key: the time its row has, or none. */
struct model {
	struct rng r;
	uint64_t time[KEYS];
	bool there[KEYS];
	unsigned count;
	uint64_t upper, since;
};

struct seen {
	const struct model *m;
	uint64_t from;
	unsigned char count[KEYS];
};

static void check_row(struct follower *f, const struct row *row)
{
	struct seen *s = f->arg;
	unsigned long n = strtoul(row->key, NULL, 10);

	ck_assert_uint_lt(n, s->m->count);
	ck_assert_msg(s->m->there[n] && s->m->time[n] == row->time && row->diff == (int64_t)(1 + n % 3),
		      "row %lu at %" PRIu64 ", not %" PRIu64, n, row->time, s->m->time[n]);
	ck_assert_msg(s->count[n]++ == 0, "row %lu twice", n);
}

static char *put_row(struct model *m, char *p, const char *time_text, uint64_t time, bool there, size_t val)
{
	unsigned n = m->count++;

	ck_assert_uint_lt(n, KEYS);
	m->time[n] = time;
	m->there[n] = there;
	p += sprintf(p, "%s\t%u\t%u\t", time_text, 1 + n % 3, n);
	memset(p, 'a' + (int)(n % 26), val);
	p[val] = '\n';
	return p + val + 1;
}

/* Rows with times from lower to below upper; below the upper there is they will be cut away. */
static char *put_rows(struct model *m, char *p, uint64_t lower, uint64_t upper, uint64_t rewrite)
{
	bool large = rng_below(&m->r, 12) == 0;
	size_t n = rng_below(&m->r, large ? 400 : 6);

	for (size_t i = 0; i < n; i++) {
		uint64_t time = lower + rng_below(&m->r, upper - lower), is = time > rewrite ? time : rewrite;
		char text[24];

		snprintf(text, sizeof text, "%" PRIu64, time);
		p = put_row(m, p, text, is, is >= m->upper, large ? 1000 : rng_below(&m->r, 30));
	}
	return p;
}

static void write_something(struct model *m, char *text)
{
	uint64_t lower = m->upper, upper = m->upper + 1 + rng_below(&m->r, 9), rewrite = 0;
	char *p = text, *rows;

	switch (rng_below(&m->r, 6)) {
	case 0: /* at whatever it is */
		p += sprintf(p, "begin expected_upper=* new_upper=%" PRIu64 "\n", upper);
		for (size_t i = rng_below(&m->r, 4); i > 0; i--)
			p = put_row(m, p, "*", lower, true, 9);
		break;
	case 1: /* an append that begins too early, and is cut */
		lower -= rng_below(&m->r, lower < 20 ? lower + 1 : 20);
		p += sprintf(p, "begin lower=%" PRIu64 " upper=%" PRIu64 "\n", lower, upper);
		p = put_rows(m, p, lower, upper, 0);
		break;
	case 2:
		rewrite = lower + rng_below(&m->r, upper - lower);
		p += sprintf(p, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 " rewrite_ts=%" PRIu64 "\n",
			     lower, upper, rewrite);
		p = put_rows(m, p, lower, upper, rewrite);
		break;
	case 3: /* staged */
		rows = put_rows(m, p, lower, upper, 0);
		*rows = '\0';
		int fd = open(at(shard, "batches/x"), O_WRONLY | O_CREAT, 0600);

		ck_errno(put_all(fd, p, (size_t)(rows - p)), 0);
		close(fd);
		p += sprintf(p, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\nbatch x\n", lower, upper);
		break;
	default:
		if (rng_below(&m->r, 4) == 0 && m->upper > 12)
			m->since = m->upper - 10 > m->since ? m->upper - 10 : m->since;
		p += sprintf(p, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 " since=%" PRIu64 "\n", lower,
			     upper, m->since);
		p = put_rows(m, p, lower, upper, 0);
	}
	strcpy(p, "commit\n");
	want_txn(shard, text);
	m->upper = upper;
}

static void open_one(struct follower *f, struct model *m)
{
	struct seen *s = calloc(1, sizeof *s);
	uint64_t least = m->since == 0 ? 0 : m->since + 1;
	char name[64];

	s->m = m;
	s->from = least + rng_below(&m->r, m->upper + 5 - least);
	snprintf(name, sizeof name, "listen/%" PRIu64, s->from);
	follower_open(f, at(shard, name), s->from, O_NONBLOCK);
	f->row = check_row;
	f->arg = s;
}

/* Everything below its frontier that it had to see was seen. */
static void check_all(const struct follower *f, const struct model *m)
{
	const struct seen *s = f->arg;

	for (unsigned n = 0; n < m->count; n++) {
		bool due = m->there[n] && m->time[n] >= s->from && (f->finished || m->time[n] < f->at);

		ck_assert_msg(f->inside || due == (s->count[n] == 1), "row %u at %" PRIu64 ": seen %d times by one from %" PRIu64, n,
			      m->time[n], s->count[n], s->from);
	}
}

START_TEST(every_update_comes_once_however_it_is_written)
{
	struct model *m = calloc(1, sizeof *m);
	struct follower f[FOLLOWERS];
	char *text = malloc(1 << 20);

	m->r = rng_new(700 + (uint64_t)_i);
	for (int i = 0; i < FOLLOWERS; i++)
		open_one(&f[i], m);
	for (int step = 0; step < 300; step++) {
		int i = (int)rng_below(&m->r, FOLLOWERS);

		write_something(m, text);
		if (rng_below(&m->r, 3) != 0)
			continue;
		follower_drain(&f[i], &m->r);
		check_all(&f[i], m);
		if (rng_below(&m->r, 6) == 0) {
			free(f[i].arg);
			follower_close(&f[i]);
			open_one(&f[i], m);
		}
	}
	snprintf(text, 200, "begin expected_upper=%" PRIu64 " new_upper=-\ncommit\n", m->upper);
	want_txn(shard, text);
	for (int i = 0; i < FOLLOWERS; i++) {
		follower_drain(&f[i], &m->r);
		ck_assert(f[i].ended);
		check_all(&f[i], m);
		free(f[i].arg);
		follower_close(&f[i]);
	}
	free(text);
	free(m);
}
END_TEST

/* --- offsets --------------------------------------------------------------------------------------- */

/* rows of about 1 KiB each, in transactions of 100. */
static void append_kib(unsigned kib)
{
	char *text = malloc(120 << 10), *p;

	for (unsigned n = 0; n < kib;) {
		p = stpcpy(text, "begin expected_upper=* new_upper=+1\n");
		for (int i = 0; i < 100 && n < kib; i++, n++)
			p += sprintf(p, "*\t1\tkey%07u\t%01000u\n", n, n);
		strcpy(p, "commit\n");
		want_txn(shard, text);
	}
	free(text);
}

START_TEST(what_was_read_within_a_mib_can_be_read_again)
{
	enum { SIZE = 5000000 };
	struct rng r = rng_new(710);
	char *all = malloc(SIZE + 1), *buf = malloc(1 << 20);
	size_t done = 0;
	int fd = follow("listen/0", O_NONBLOCK);

	append_kib(5 * 1024);
	while (done < SIZE) {
		size_t ask = 1 + rng_below(&r, rng_below(&r, 4) == 0 ? 1 << 20 : 30000), back;
		ssize_t n = read(fd, all + done, ask < SIZE - done ? ask : SIZE - done);

		ck_assert_int_gt(n, 0);
		done += (size_t)n;
		back = rng_below(&r, (done < 1 << 20 ? done : 1 << 20) + 1);
		ask = 1 + rng_below(&r, 1 << 20);
		if (ask > back)
			ask = back;
		ck_assert_int_eq(pread(fd, buf, ask, (off_t)(done - back)), ask);
		ck_assert(memcmp(buf, all + done - back, ask) == 0);
		ck_assert_int_eq(lseek(fd, (off_t)(done - back), SEEK_SET), done - back);
		for (size_t at = done - back; at < done; at += (size_t)n) {
			n = read(fd, buf, done - at < 100000 ? done - at : 100000);
			ck_assert_int_gt(n, 0);
			ck_assert(memcmp(buf, all + at, (size_t)n) == 0);
		}
	}
	/* Farther back it comes again too, or not at all, but never otherwise. */
	for (off_t far = 0; far < 2000; far += 1000) {
		ssize_t n = pread(fd, buf, 10, far);

		ck_assert(n == 10 ? memcmp(buf, all + far, 10) == 0 : n == -1 && errno == EINVAL);
	}
	/* on from where it was */
	ck_assert_int_eq(pread(fd, buf, 10, (off_t)done), 10);
	close(fd);
	free(buf);
	free(all);
}
END_TEST

START_TEST(reads_of_any_size_give_the_same_text)
{
	static const size_t sizes[] = {1, 2, 3, 7, 4095, 4096, 4097, 65536, 1 << 20, 3 << 20};
	char *want = NULL, *got = malloc(8 << 20);
	size_t want_len = 0;

	append_kib(40);
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		int fd = follow("listen/0", 0);
		size_t len = 0;
		ssize_t n = 1;

		while (n > 0) {
			n = read(fd, got + len, sizes[i]);
			ck_assert_int_ge(n, 0);
			len += (size_t)n;
		}
		close(fd);
		if (want == NULL) {
			want = malloc(len);
			memcpy(want, got, len);
			want_len = len;
		}
		ck_assert_uint_eq(len, want_len);
		ck_assert(memcmp(got, want, len) == 0);
	}
	free(want);
	free(got);
}
END_TEST

/* A read(2) of more than a MiB is sent in pieces; where nothing follows a full one, it must be back. */
START_TEST(a_text_of_a_mib_does_not_hang_in_a_larger_read)
{
	static const char begin[] = "begin lower=0 upper=1\n0\t1\tk\t", end[] = "\ncommit\n";
	size_t val = (1 << 20) - (sizeof begin - 1) - (sizeof end - 1);
	char *text = malloc(2 << 20), *buf = aligned_alloc(4096, 4 << 20), *p;
	int fd = follow("listen/0", 0);
	ssize_t n;
	size_t len = 0;

	p = stpcpy(text, "begin expected_upper=0 new_upper=1\n0\t1\tk\t");
	memset(p, 'v', val);
	strcpy(p + val, "\ncommit\n");
	want_txn(shard, text);
	alarm(20);
	while (len < 1 << 20) {
		n = read(fd, buf + len, (4 << 20) - len);
		ck_assert_int_gt(n, 0);
		len += (size_t)n;
	}
	alarm(0);
	ck_assert_uint_eq(len, 1 << 20);
	ck_assert_int_eq(memcmp(buf, begin, sizeof begin - 1), 0);
	ck_assert_int_eq(memcmp(buf + len - 8, "\ncommit\n", 8), 0);
	close(fd);
	free(text);
	free(buf);
}
END_TEST

START_TEST(a_shell_reads_line_by_line)
{
	char *out;

	append_kib(300);
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	out = want_sh("bash -c 'while IFS= read -r l; do echo \"$l\"; done < %s' | cmp - %s && echo same",
		      at(shard, "listen/0"), at(shard, "listen/0"));
	ck_assert_str_eq(out, "same\n");
	free(out);
	out = want_sh("bash -c 'exec 3< %s; read -r a <&3; read -r b <&3; head -n 1 <&3 | cut -c 1-15; echo \"$a\"; echo \"${b:0:15}\"'",
		      at(shard, "listen/0"));
	ck_assert_ptr_nonnull(strstr(out, "begin lower=0 upper="));
	ck_assert_ptr_nonnull(strstr(out, "0\t1\tkey0000000\t"));
	free(out);
}
END_TEST

START_TEST(descriptors_that_share_an_offset_share_the_text)
{
	struct follower f;
	int other;
	char *buf = malloc(3000);

	append_kib(50);
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	follower_open(&f, at(shard, "listen/0"), 0, 0);
	other = dup(f.fd);
	for (int i = 0; !f.ended; i++) {
		int was = f.fd;
		pid_t pid;

		f.fd = i % 2 == 0 ? f.fd : other;
		follower_read(&f, 1777);
		f.fd = was;
		if (i % 5 != 0)
			continue;
		/* and in a child, whose bytes are ours no more: give them back */
		pid = fork();
		if (pid == 0)
			_exit(read(other, buf, 100) >= 0 ? 0 : 1);
		ck_assert_int_eq(join(pid), 0);
		ck_works(lseek(f.fd, (off_t)f.bytes, SEEK_SET));
	}
	ck_assert_uint_eq(f.rows, 50);
	close(other);
	follower_close(&f);
	free(buf);
}
END_TEST

/* --- the hold -------------------------------------------------------------------------------------- */

START_TEST(since_does_not_pass_what_it_still_needs)
{
	int fd, sub;

	want_txn(shard, "begin expected_upper=0 new_upper=10\n2\t1\ta\t\n8\t1\tb\t\ncommit\n");
	fd = follow("listen/5", O_NONBLOCK);
	ck_errno(write_once(at(shard, "since"), "9"), 0);
	want_file(shard, "since", "4\n");
	ck_errno(try_follow("listen/4"), ENODATA);
	ck_errno(try_follow("listen/5"), 0);
	want_text(fd, "begin lower=5 upper=10\n8\t1\tb\t\ncommit\n");
	want_txn(shard, "begin expected_upper=10 new_upper=20 since=15\ncommit\n");
	want_file(shard, "since", "9\n"); /* the next one begins at 10 */
	want_text(fd, "begin lower=10 upper=20\ncommit\n");
	sub = follow("subscribe/12", O_NONBLOCK);
	want_txn(shard, "begin expected_upper=20 new_upper=30 since=25\ncommit\n");
	want_file(shard, "since", "12\n");
	want_text(sub, "begin expected_upper=0 new_upper=13 since=12\n12\t1\ta\t\n12\t1\tb\t\ncommit\n"
		       "begin lower=13 upper=30\ncommit\n");
	close(sub);
	want_text(fd, "begin lower=20 upper=30\ncommit\n");
	close(fd);
	want_txn(shard, "begin expected_upper=30 new_upper=31\ncommit\n");
	want_file(shard, "since", "25\n");
}
END_TEST

START_TEST(a_listener_that_is_ahead_holds_its_place)
{
	int fd = follow("listen/50", O_NONBLOCK);

	want_txn(shard, "begin expected_upper=0 new_upper=100 since=90\n60\t1\ta\t\n49\t1\tb\t\ncommit\n");
	want_file(shard, "since", "49\n");
	want_text(fd, "begin lower=50 upper=100\n60\t1\ta\t\ncommit\n");
	close(fd);
}
END_TEST

START_TEST(programs_that_walk_the_tree_come_to_an_end)
{
	char *out;

	want_txn(shard, "begin expected_upper=0 new_upper=9\n0\t1\tneedle\t\ncommit\n");
	ck_errno(write_once(at(shard, "since"), "3"), 0);
	out = want_sh("cd %s && timeout 20 grep -rl needle shard | sed 's,.*/,,' | sort | tr '\\n' ' '; "
		      "timeout 20 find . -type f ! -name append -exec cat {} + > /dev/null && "
		      "timeout 20 tar cf /dev/null . && timeout 20 ls -lR . > /dev/null && timeout 20 du -s . > /dev/null && "
		      "ls %s/listen %s/subscribe %s/wait %s/as_of | grep -v :; true",
		      w.mnt, shard, shard, shard, shard);
	ck_assert_msg(strncmp(out, "0-9 snapshot ", 13) == 0, "%s", out);
	for (const char *p = out + 13; *p != '\0'; p++)
		ck_assert_msg(*p == '\n', "%s", out);
	free(out);
}
END_TEST

Suite *listen_suite(void)
{
	Suite *s = suite_create("listen");
	TCase *tc = shard_case(s, "listen", 120);

	tcase_add_test(tc, each_step_is_a_transaction_of_append);
	tcase_add_test(tc, it_begins_at_the_frontier_asked_for);
	tcase_add_test(tc, names_that_are_no_frontier_are_not_there);
	tcase_add_test(tc, the_empty_frontier_is_the_end);
	tcase_add_test(tc, what_since_has_passed_is_enodata);
	tcase_add_test(tc, a_subscription_begins_with_the_collection);
	tcase_add_test(tc, rows_that_were_given_are_not_repeated_when_batches_are_merged);
	tcase_add_loop_test(tc, every_update_comes_once_however_it_is_written, 0, 3);
	tcase_add_test(tc, what_was_read_within_a_mib_can_be_read_again);
	tcase_add_test(tc, reads_of_any_size_give_the_same_text);
	tcase_add_test(tc, a_text_of_a_mib_does_not_hang_in_a_larger_read);
	tcase_add_test(tc, a_shell_reads_line_by_line);
	tcase_add_test(tc, descriptors_that_share_an_offset_share_the_text);
	tcase_add_test(tc, since_does_not_pass_what_it_still_needs);
	tcase_add_test(tc, a_listener_that_is_ahead_holds_its_place);
	tcase_add_test(tc, programs_that_walk_the_tree_come_to_an_end);
	return s;
}
