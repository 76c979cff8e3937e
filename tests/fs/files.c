/* files.c - upper, since, snapshot, state, README: what they say and how they are read. */
#include "tests/fs/fixture.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

static void want_size(const char *name, off_t size)
{
	struct stat st;

	ck_works(stat(at(shard, name), &st));
	ck_assert_int_eq(st.st_size, size);
}

START_TEST(upper_and_since_have_true_sizes)
{
	want_size("upper", 2);
	want_size("since", 2);
	want_txn(shard, "begin expected_upper=0 new_upper=1000000 since=12345\ncommit\n");
	want_size("upper", 8);
	want_size("since", 6);
	want_file(shard, "upper", "1000000\n");
	want_file(shard, "since", "12345\n");
	/* sendfile and cp see all of it, as the size is true */
	char *copy = want_sh("cp %s/upper %s/copy && cat %s/copy", shard, w.dir, w.dir);

	ck_assert_str_eq(copy, "1000000\n");
	free(copy);
	want_txn(shard, "begin expected_upper=1000000 new_upper=-\ncommit\n");
	want_size("upper", 2);
}
END_TEST

START_TEST(reading_upper_at_0_again_refreshes_it)
{
	char buf[32] = "";
	int fd = open(at(shard, "upper"), O_RDONLY);

	ck_assert_int_ge(fd, 0);
	want_txn(shard, "begin expected_upper=0 new_upper=7\ncommit\n");
	ck_assert_int_ge(read(fd, buf, sizeof buf), 2); /* either is right: it was opened before */
	ck_assert_int_eq(read(fd, buf, sizeof buf), 0);
	ck_assert_int_eq(pread(fd, buf, sizeof buf, 0), 2);
	ck_assert_int_eq(memcmp(buf, "7\n", 2), 0);
	want_txn(shard, "begin expected_upper=7 new_upper=123\ncommit\n");
	ck_assert_int_eq(pread(fd, buf, sizeof buf, 1), 1); /* not at 0: as it was */
	ck_works(lseek(fd, 0, SEEK_SET));
	ck_assert_int_eq(read(fd, buf, sizeof buf), 4);
	ck_assert_int_eq(memcmp(buf, "123\n", 4), 0);
	close(fd);
}
END_TEST

START_TEST(since_takes_one_line_a_write)
{
	static const char *const bad[] = {"x", "5x", "", "\n", "-5", "5 ", " 5", "05", "+5", "upper", "upper-", "upper-0",
					  "upper-x", "upper+1", "5\n6\n", "5\n\n", "18446744073709551616", "--"};
	char *since = check_path(shard, "since");
	int fd = open(since, O_RDWR);

	want_txn(shard, "begin expected_upper=0 new_upper=100\ncommit\n");
	ck_assert_int_eq(put(fd, "5\n"), 2);
	ck_assert_int_eq(put(fd, "6"), 1); /* the second line, at whatever offset */
	want_file(shard, "since", "6\n");
	ck_assert_int_eq(put(fd, "3\n"), 2); /* a smaller one changes nothing */
	want_file(shard, "since", "6\n");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ssize_t n = put(fd, bad[i]);

		/* a write of nothing does not reach us */
		ck_assert_msg(bad[i][0] == '\0' ? n == 0 : n == -EINVAL, "\"%s\": %zd", bad[i], n);
	}
	want_file(shard, "since", "6\n");
	ck_assert_int_eq(put(fd, "7\n"), 2); /* a failure does not spend it */
	ck_works(ftruncate(fd, 0));
	ck_assert_int_eq(put(fd, "18446744073709551615\n"), 21);
	want_file(shard, "since", "18446744073709551615\n");
	ck_assert_int_eq(put(fd, "-"), 1);
	want_file(shard, "since", "-\n");
	close(fd);
	free(want_sh("echo 5 > %s; echo 5 >> %s; printf 6 | tee %s | grep -q 6", since, since, since));
	free(since);
	ck_fails(open(at(shard, "snapshot"), O_RDONLY), ENODATA);
}
END_TEST

START_TEST(readme_has_its_size_and_fits_a_screen)
{
	struct stat st;
	char *text = slurp(at(w.mnt, "README"));

	ck_works(stat(at(w.mnt, "README"), &st));
	ck_assert_int_eq(st.st_size, strlen(text));
	ck_assert_uint_le(count_lines(text), 50);
	ck_assert_ptr_nonnull(strstr(text, "tar"));
	free(text);
}
END_TEST

START_TEST(state_is_json)
{
	char *out;

	want_txn(shard, "begin expected_upper=0 new_upper=18446744073709551615 since=3 " /* not a signed number */
			"token=iaaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa\n7\t1\ta\tb\ncommit\n");
	out = want_sh("python3 -c 'import json,sys; s = json.load(open(sys.argv[1])); "
		      "print(int(s[\"upper\"]), s[\"since\"], s[\"since_pinned_by\"], s[\"batches\"], s[\"updates\"], "
		      "s[\"tokens\"], s[\"shard\"] in sys.argv[1])' %s/state",
		      shard);
	ck_assert_str_eq(out, "18446744073709551615 3 default 1 1 1 True\n");
	free(out);
	want_txn(shard, "begin expected_upper=18446744073709551615 new_upper=-\ncommit\n");
	ck_errno(write_once(at(shard, "since"), "-"), 0);
	free(want_sh("python3 -m json.tool %s/state", shard));
}
END_TEST

/* --- snapshots against a model --------------------------------------------------------------------- */

struct bytes {
	int len; /* -1: absent */
	unsigned char b[12];
};

struct row {
	struct bytes key;
	struct bytes val;
	int64_t diff;
};

static int bytes_cmp(const struct bytes *a, const struct bytes *b)
{
	int order;

	if (a->len < 0 || b->len < 0)
		return (b->len < 0) - (a->len < 0);
	order = memcmp(a->b, b->b, (size_t)(a->len < b->len ? a->len : b->len));
	return order != 0 ? order : a->len - b->len;
}

static int row_cmp(const void *x, const void *y)
{
	const struct row *a = x, *b = y;
	int order = bytes_cmp(&a->key, &b->key);

	return order != 0 ? order : bytes_cmp(&a->val, &b->val);
}

/* Few values, of the bytes that are hard. */
static struct bytes random_bytes(struct rng *r)
{
	static const unsigned char hard[] = {0, '\\', '\t', '\n', '\r', 0xff, 0x80, 'N', 'a', 0xc3, '\b', ' '};
	struct bytes b = {.len = (int)rng_below(r, 4) - 1};

	for (int i = 0; i < b.len; i++)
		b.b[i] = hard[rng_below(r, sizeof hard)];
	return b;
}

/* The text of a field; canonical, or with escapes picked at random. */
static char *put_bytes(char *p, const struct bytes *b, struct rng *r)
{
	if (b->len < 0)
		return stpcpy(p, "\\N");
	for (int i = 0; i < b->len; i++) {
		unsigned char c = b->b[i];
		const char *at_letter = strchr("\\\\\tt\nn\rr", c);

		if (r != NULL && rng_below(r, 3) == 0)
			p += rng_below(r, 2) != 0 ? sprintf(p, "\\%03o", c) : sprintf(p, "\\x%02x", c);
		else if (c != '\0' && at_letter != NULL)
			p += sprintf(p, "\\%c", at_letter[1]);
		else if (r != NULL && c == '\b')
			p = stpcpy(p, "\\b");
		else
			*p++ = (char)c;
	}
	return p;
}

static char *put_row(char *p, const char *time, const struct row *row, struct rng *r)
{
	p += sprintf(p, "%s\t%" PRId64 "\t", time, row->diff);
	p = put_bytes(p, &row->key, r);
	*p++ = '\t';
	p = put_bytes(p, &row->val, r);
	*p++ = '\n';
	return p;
}

/* What the snapshot of these rows is; returns its end. */
static char *put_snapshot(char *p, uint64_t time, struct row *rows, size_t count)
{
	char at_time[24];

	snprintf(at_time, sizeof at_time, "%" PRIu64, time);
	qsort(rows, count, sizeof *rows, row_cmp);
	for (size_t i = 0; i < count;) {
		struct row sum = rows[i];

		for (i++; i < count && row_cmp(&rows[i], &sum) == 0; i++)
			sum.diff += rows[i].diff;
		if (sum.diff != 0)
			p = put_row(p, at_time, &sum, NULL);
	}
	return p;
}

START_TEST(a_snapshot_is_the_consolidated_and_sorted_collection)
{
	enum { TXNS = 40, ROWS = 60 };
	struct rng r = rng_new(200);
	struct row *rows = calloc(TXNS * ROWS, sizeof *rows);
	char *text = malloc(64 * ROWS), *want = malloc(64 * TXNS * ROWS), *got, name[32];
	size_t count = 0, len;

	for (unsigned t = 0; t < TXNS; t++) {
		char *p = text + sprintf(text, "begin expected_upper=* new_upper=+1\n");
		size_t n = rng_below(&r, ROWS);
		int fd = append_open(shard);

		for (size_t i = 0; i < n; i++, count++) {
			rows[count] = (struct row){random_bytes(&r), random_bytes(&r), (int64_t)rng_below(&r, 5) - 2};
			p = put_row(p, "*", &rows[count], &r);
		}
		p = stpcpy(p, "commit\n");
		ck_errno(put_all(fd, text, (size_t)(p - text)), 0);
		close(fd);
		snprintf(name, sizeof name, "as_of/%u", t);
		char *end = put_snapshot(want, t, rows, count);

		for (int i = 0; i < 3; i++) {
			got = slurp_len(at(shard, i == 0 ? "snapshot" : i == 1 ? name : "as_of/now"), &len);
			ck_assert_ptr_nonnull(got);
			ck_assert_uint_eq(len, (size_t)(end - want));
			ck_assert_msg(memcmp(got, want, len) == 0, "after %u transactions: %s, not %s", t, got, want);
			free(got);
		}
	}
	free(rows);
	free(text);
	free(want);
}
END_TEST

START_TEST(absent_comes_before_empty_and_both_differ)
{
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\t\t\n0\t1\t\\N\t\n0\t1\t\t\\N\n0\t1\t\\N\t\\N\n"
			"0\t1\t\\\\N\ta\n0\t1\ta\t\\\\\ncommit\n");
	want_file(shard, "snapshot",
		  "0\t1\t\\N\t\\N\n0\t1\t\\N\t\n0\t1\t\t\\N\n0\t1\t\t\n0\t1\t\\\\N\ta\n0\t1\ta\t\\\\\n");
}
END_TEST

START_TEST(every_escape_is_understood_and_only_four_are_written)
{
	want_txn(shard, "begin expected_upper=0 new_upper=1\n"
			"0\t1\t\\\\\\t\\n\\r\\b\\f\\v\t\\7\\60\\101\\x4\\x41\\xC3\\377Z\ncommit\n");
	want_file(shard, "snapshot", "0\t1\t\\\\\\t\\n\\r\b\f\v\t\a0A\x04"
				     "A\xc3\xffZ\n");
}
END_TEST

/* 3 MiB of snapshot. */
static char *make_large(size_t *len)
{
	char *text = malloc(4 << 20), *p = stpcpy(text, "begin expected_upper=0 new_upper=1\n"), *rows = p;
	int fd = append_open(shard);

	for (unsigned i = 0; i < 3000; i++) {
		p += sprintf(p, "0\t1\tkey%08u\t", i);
		p = (char *)memset(p, 'a' + (int)(i % 26), 1000 + i % 100) + 1000 + i % 100;
		*p++ = '\n';
	}
	*len = (size_t)(p - rows);
	p = stpcpy(p, "commit\n");
	ck_errno(put_all(fd, text, (size_t)(p - text)), 0);
	close(fd);
	memmove(text, rows, *len);
	return text;
}

START_TEST(a_snapshot_is_read_in_any_pieces_and_again_from_0)
{
	struct rng r = rng_new(201);
	size_t len, at_byte = 0, rounds = 0;
	char *want = make_large(&len), *buf = malloc(2 << 20);
	int fd = open(at(shard, "snapshot"), O_RDONLY);

	ck_assert_int_ge(fd, 0);
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t-1\tkey00000000\tx\ncommit\n"); /* it is pinned */
	for (ssize_t n = 1; n > 0; at_byte += (size_t)n, rounds++) {
		size_t ask = 1 + rng_below(&r, rounds % 2 != 0 ? 100 : 200000);

		n = read(fd, buf, ask);
		ck_assert_int_ge(n, 0);
		ck_assert_uint_le(at_byte + (size_t)n, len);
		ck_assert(memcmp(buf, want + at_byte, (size_t)n) == 0);
	}
	ck_assert_uint_eq(at_byte, len);
	for (int i = 0; i < 60; i++) { /* back and forth, beyond the window too */
		size_t from = i % 7 == 0 ? 0 : rng_below(&r, len + 1000), ask = 1 + rng_below(&r, 100000);
		ssize_t n = pread(fd, buf, ask, (off_t)from);
		size_t expect = from >= len ? 0 : len - from < ask ? len - from : ask;

		ck_assert_int_eq(n, expect);
		ck_assert(expect == 0 || memcmp(buf, want + from, expect) == 0);
	}
	close(fd);
	/* readers of one descriptor at odd places: dd, head, tail */
	char *out = want_sh("cd %s && dd if=snapshot bs=777 status=none | cksum; cat as_of/0 | cksum; head -c 100 as_of/0", shard);

	ck_assert_ptr_nonnull(strstr(out, "key00000000"));
	free(out);
	free(buf);
	free(want);
}
END_TEST

START_TEST(a_snapshot_with_upper_0_is_empty)
{
	want_file(shard, "snapshot", "");
	want_file(shard, "as_of/now", "");
	ck_errno(write_once(at(shard, "since"), "3"), 0);
	want_file(shard, "snapshot", "");
	want_file(shard, "as_of/now", "");
}
END_TEST

START_TEST(walks_over_the_whole_mount_end)
{
	char *out;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tneedle\tx\ncommit\n");
	free(shard_new(&w));
	ck_works(symlink(shard, at(w.mnt, "name/n")));
	out = want_sh("cd %s && timeout 60 grep -rl needle . | sort && timeout 60 find . -type f -exec cat {} + > /dev/null && "
		      "timeout 60 ls -laR . | wc -l && timeout 60 du -sL . && timeout 60 tar cf /dev/null .",
		      w.mnt);
	ck_assert_msg(strstr(out, "/snapshot\n") != NULL && strstr(out, "/batches/0-1\n") != NULL, "%s", out);
	ck_assert_msg(strstr(out, "rror") == NULL, "%s", out);
	free(out);
}
END_TEST

START_TEST(control_files_refuse_what_they_do_not_do)
{
	static const char *const read_only[] = {"upper", "snapshot", "errors", "state", "as_of/0", "batches/0-1"};

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	for (size_t i = 0; i < sizeof read_only / sizeof read_only[0]; i++) {
		const char *path = at(shard, read_only[i]);
		int fd = open(path, O_WRONLY);

		ck_assert_msg(fd < 0 && (errno == EPERM || errno == EACCES), "%s: %s", path, strerrorname_np(errno));
		ck_assert_int_eq(truncate(path, 0), -1);
		ck_assert_msg(errno == EPERM || errno == EACCES, "%s: %s", path, strerrorname_np(errno));
	}
	ck_fails(open(at(shard, "since"), O_RDONLY | O_DIRECTORY), ENOTDIR);
	ck_fails(open(shard, O_WRONLY), EISDIR);
	want_file(shard, "snapshot", "0\t1\ta\tb\n");
}
END_TEST

/* cp, for one, looks at what it opened, and takes no other file. */
START_TEST(a_name_of_a_time_is_one_file)
{
	static const char *const names[] = {"as_of/1", "as_of/2", "as_of/now", "wait/1", "listen/1", "listen/-", "subscribe/1"};
	enum { NAMES = sizeof names / sizeof names[0] };
	struct stat st[NAMES], again;

	want_txn(shard, "begin expected_upper=0 new_upper=-\n0\t1\ta\tb\ncommit\n");
	for (size_t i = 0; i < NAMES; i++) {
		int fd = open(at(shard, names[i]), O_RDONLY);

		ck_works(stat(at(shard, names[i]), &st[i]));
		ck_works(fstat(fd, &again));
		ck_assert_uint_eq(st[i].st_ino, again.st_ino);
		close(fd);
		for (size_t j = 0; j < i; j++)
			ck_assert_uint_ne(st[i].st_ino, st[j].st_ino);
	}
	free(want_sh("cd %s && cp as_of/1 listen/0 subscribe/now wait/3 %s && cmp as_of/1 %s/1 && cmp listen/0 %s/0 && "
		     "cmp subscribe/now %s/now && cmp wait/3 %s/3",
		     shard, w.dir, w.dir, w.dir, w.dir, w.dir));
}
END_TEST

Suite *files_suite(void)
{
	Suite *s = suite_create("files");
	TCase *tc = shard_case(s, "files", 120);

	tcase_add_test(tc, upper_and_since_have_true_sizes);
	tcase_add_test(tc, reading_upper_at_0_again_refreshes_it);
	tcase_add_test(tc, since_takes_one_line_a_write);
	tcase_add_test(tc, readme_has_its_size_and_fits_a_screen);
	tcase_add_test(tc, state_is_json);
	tcase_add_test(tc, a_snapshot_is_the_consolidated_and_sorted_collection);
	tcase_add_test(tc, absent_comes_before_empty_and_both_differ);
	tcase_add_test(tc, every_escape_is_understood_and_only_four_are_written);
	tcase_add_test(tc, a_snapshot_is_read_in_any_pieces_and_again_from_0);
	tcase_add_test(tc, a_snapshot_with_upper_0_is_empty);
	tcase_add_test(tc, walks_over_the_whole_mount_end);
	tcase_add_test(tc, control_files_refuse_what_they_do_not_do);
	tcase_add_test(tc, a_name_of_a_time_is_one_file);
	return s;
}
