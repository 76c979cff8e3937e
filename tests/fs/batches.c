/* batches.c - committed batches as files. */
#include "tests/fs/fixture.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

static const char *batch(const char *name)
{
	return at(at(shard, "batches"), name);
}

START_TEST(names_tell_bounds_and_sizes_are_true)
{
	struct stat st;
	char *out, *text;

	want_txn(shard, "begin expected_upper=0 new_upper=3\n0\t1\tk\tv\n2\t-5\ttab\\t\t\\N\ncommit\n");
	want_txn(shard, "begin expected_upper=3 new_upper=100\n99\t1\tx\\x00\ty\ncommit\n");
	want_txn(shard, "begin expected_upper=100 new_upper=-\n18446744073709551615\t1\tlast\t\ncommit\n");
	out = want_sh("cd %s/batches && for f in *; do printf '%%s %%s %%s\\n' \"$f\" \"$(stat -c %%s "
		      "\"$f\")\" \"$(cat \"$f\" | wc -c)\"; done",
		      shard);
	ck_assert_str_eq(out, "0-3 22 22\n100-- 29 29\n3-100 10 10\n");
	free(out);
	want_file(shard, "batches/0-3", "0\t1\tk\tv\n2\t-5\ttab\\t\t\\N\n");
	want_file(shard, "batches/100--", "18446744073709551615\t1\tlast\t\n");
	size_t len;

	text = slurp_len(batch("3-100"), &len);
	ck_assert_uint_eq(len, 10);
	ck_assert_int_eq(memcmp(text, "99\t1\tx\0\ty\n", 10), 0);
	free(text);
	ck_works(stat(batch("0-3"), &st));
	ck_assert_uint_gt(st.st_blocks, 0);
	ck_assert(S_ISREG(st.st_mode) && (st.st_mode & 0222) == 0);
	ck_fails(open(batch("0-4"), O_RDONLY), ENOENT);
	ck_fails(open(batch("0-100"), O_RDONLY), ENOENT);
	ck_fails(open(batch("00-3"), O_RDONLY), ENOENT);
}
END_TEST

START_TEST(empty_neighbours_are_fused)
{
	char *out;

	want_txn(shard, "begin expected_upper=0 new_upper=3\ncommit\n");
	want_txn(shard, "begin expected_upper=3 new_upper=5\ncommit\n");
	want_txn(shard, "begin expected_upper=5 new_upper=6\n5\t1\ta\t\ncommit\n");
	want_txn(shard, "begin expected_upper=6 new_upper=7\ncommit\n");
	want_txn(shard, "begin expected_upper=7 new_upper=-\ncommit\n");
	out = want_sh("cd %s/batches && stat -c '%%n %%s' *", shard);
	ck_assert_str_eq(out, "0-5 0\n5-6 7\n6-- 0\n");
	free(out);
	want_file(shard, "batches/0-5", "");
}
END_TEST

/* Several parts: 20 MiB. The rows that were written, in the order of the batch. */
static char *make_large(size_t *len)
{
	size_t cap = 22 << 20;
	char *text = malloc(cap + 4096), *p = stpcpy(text, "begin expected_upper=0 new_upper=1\n"), *rows = p;
	struct rng r = rng_new(300);
	int fd = append_open(shard);

	for (unsigned i = 0; p < text + (20 << 20); i++) {
		p += sprintf(p, "0\t1\tkey%08u\t", i);
		for (int j = 0; j < 1000; j++)
			*p++ = (char)('a' + rng_below(&r, 26));
		*p++ = '\n';
	}
	*len = (size_t)(p - rows);
	p = stpcpy(p, "commit\n");
	ck_errno(put_all(fd, text, (size_t)(p - text)), 0);
	close(fd);
	memmove(text, rows, *len);
	text[*len] = '\0';
	return text;
}

static void want_same(const char *path, const char *want, size_t len)
{
	size_t got_len;
	char *got = slurp_len(path, &got_len);

	ck_assert_ptr_nonnull(got);
	ck_assert_uint_eq(got_len, len);
	ck_assert(memcmp(got, want, len) == 0);
	free(got);
}

START_TEST(every_way_of_reading_gives_the_same_bytes)
{
	size_t len, done = 0;
	char *want = make_large(&len), *copy = check_path(w.dir, "copy");
	int in = open(batch("0-1"), O_RDONLY), out = open(copy, O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct stat st;
	void *map;

	ck_works(fstat(in, &st));
	ck_assert_int_eq(st.st_size, len);
	want_same(batch("0-1"), want, len);

	for (ssize_t n = 1; n > 0; done += (size_t)n) {
		n = sendfile(out, in, NULL, 1 << 20);
		ck_assert_int_ge(n, 0);
	}
	ck_assert_uint_eq(done, len);
	want_same(copy, want, len);

	ck_works(ftruncate(out, 0));
	loff_t from = 0, to = 0;

	while ((size_t)to < len) {
		ssize_t n = copy_file_range(in, &from, out, &to, len, 0);

		if (n < 0 && errno == EXDEV) /* this kernel does not do it between file systems */
			break;
		ck_assert_int_gt(n, 0);
	}
	if (to != 0)
		want_same(copy, want, len);

	map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, in, 0);
	ck_assert(map != MAP_FAILED);
	ck_assert(memcmp(map, want, len) == 0);
	munmap(map, len);
	map = mmap(NULL, len, PROT_READ, MAP_SHARED, in, 0);
	ck_assert(map != MAP_FAILED);
	ck_assert(memcmp(map, want, len) == 0);
	munmap(map, len);
	close(in);
	close(out);
	free(want_sh(
		"cd %s && cp %s/batches/0-1 cp && cmp cp %s/batches/0-1 && tar cf t.tar -C %s batches && "
		"tar xf t.tar && cmp batches/0-1 cp && dd if=%s/batches/0-1 bs=12345 skip=3 status=none | "
		"cmp -i 37035:0 cp -",
		w.dir, shard, shard, shard, shard));
	free(copy);
	free(want);
}
END_TEST

START_TEST(a_batch_is_read_at_any_place)
{
	struct rng r = rng_new(301);
	size_t len;
	char *want = make_large(&len), *buf = malloc(1 << 20);
	int fd = open(batch("0-1"), O_RDONLY);

	for (int i = 0; i < 200; i++) {
		size_t from = rng_below(&r, len + 5000), ask = 1 + rng_below(&r, i % 5 == 0 ? 1 << 20 : 3000);
		size_t expect = from >= len ? 0 : len - from < ask ? len - from : ask;

		ck_assert_int_eq(pread(fd, buf, ask, (off_t)from), expect);
		ck_assert(expect == 0 || memcmp(buf, want + from, expect) == 0);
	}
	close(fd);
	free(buf);
	free(want);
}
END_TEST

START_TEST(an_open_batch_outlives_its_name)
{
	char text[128], buf[64], *out;
	struct stat st;
	int fd, late, n = 0;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tfirst\tx\ncommit\n");
	fd = open(batch("0-1"), O_RDONLY);
	late = open(batch("0-1"), O_RDONLY);
	ck_assert_int_eq(read(fd, buf, 4), 4);
	while (access(batch("0-1"), F_OK) == 0 && n++ < 5000)
		want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\tmore\tx\ncommit\n");
	ck_fails(open(batch("0-1"), O_RDONLY), ENOENT);
	ck_assert_int_eq(read(fd, buf + 4, 60), 8);
	ck_assert_int_eq(memcmp(buf, "0\t1\tfirst\tx\n", 12), 0);
	ck_assert_int_eq(read(late, buf, 64), 12);
	ck_assert_int_eq(memcmp(buf, "0\t1\tfirst\tx\n", 12), 0);
	ck_works(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 12);
	close(fd);
	close(late);
	/* the rows are there once, in whatever batch */
	out = want_sh("cat %s/batches/* | awk -F'\t' '$3 == \"more\" { s += $2 } $3 == \"first\" { f += $2 } "
		      "END { print s, f }'",
		      shard);
	snprintf(text, sizeof text, "%d 1\n", n);
	ck_assert_str_eq(out, text);
	free(out);
}
END_TEST

static const char *want_fd(int fd)
{
	static char text[16];

	snprintf(text, sizeof text, "%d", fd);
	return text;
}

/* Transactions whose rows do not stay inline, so that each batch has a blob. */
static void append_blobs(unsigned count)
{
	struct rng r = rng_new(303);
	char *text = malloc(32 << 10), *p;

	for (unsigned i = 0; i < count; i++) {
		p = text + sprintf(text, "begin expected_upper=%u new_upper=%u\n", i, i + 1);
		for (int row = 0; row < 20; row++) {
			p += sprintf(p, "%u\t1\tkey%02d\t", i, row);
			for (int c = 0; c < 1000; c++)
				*p++ = (char)('a' + rng_below(&r, 26));
			*p++ = '\n';
		}
		strcpy(p, "commit\n");
		want_txn(shard, text);
	}
	free(text);
}

static uint64_t state_number(const char *key)
{
	char *json = slurp(at(shard, "state"));
	uint64_t n = json_number(json, key);

	free(json);
	return n;
}

/* Nobody reads what was replaced. The mount hears of a close(2) a moment after it. */
static void want_collected(void)
{
	uint64_t since = 0;

	do
		ck_errno(write_once(at(shard, "ctl"), "gc\n"), 0);
	while (state_number("dead_parts") != 0 && until_deadline(&since));
	ck_assert_uint_eq(state_number("dead_parts"), 0);
}

START_TEST(what_was_listed_keeps_nothing_on_disk)
{
	struct stat st;
	char *out;

	append_blobs(3);
	free(want_sh("ls -l %s/batches && cat %s/batches/* | wc -c", shard, shard));
	ck_works(stat(batch("0-1"), &st));
	ck_errno(write_once(at(shard, "ctl"), "compact\n"), 0);
	want_collected();
	ck_fails(stat(batch("0-1"), &st), ENOENT);
	ck_fails(open(batch("0-1"), O_RDONLY), ENOENT);
	out = want_sh(
		"cd %s/batches && for f in *; do test $(stat -c %%s $f) = $(cat $f | wc -c) || echo $f; done",
		shard);
	ck_assert_str_eq(out, "");
	free(out);
}
END_TEST

START_TEST(an_open_batch_is_kept_while_it_is_open)
{
	size_t len;
	char *want, buf[64 << 10];
	int fd, by_path;

	append_blobs(3);
	want = slurp_len(batch("0-1"), &len);
	ck_assert_uint_lt(len, sizeof buf);
	fd = open(batch("0-1"), O_RDONLY);
	ck_assert_int_eq(read(fd, buf, 1), 1);
	by_path = open(batch("0-1"), O_PATH);
	ck_assert_int_ge(by_path, 0);
	ck_errno(write_once(at(shard, "ctl"), "compact\n"), 0);
	ck_errno(write_once(at(shard, "ctl"), "gc\n"), 0);
	ck_assert_uint_gt(state_number("dead_parts"), 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	for (size_t done = 1; done < len;) {
		ssize_t n = read(fd, buf + done, len - done);

		ck_assert_int_gt(n, 0);
		done += (size_t)n;
	}
	ck_assert(memcmp(buf, want, len) == 0);
	close(fd);
	/* who only remembers the inode has not kept it */
	ck_fails(open(at("/proc/self/fd", want_fd(by_path)), O_RDONLY), ENOENT);
	close(by_path);
	want_collected();
	free(want);
}
END_TEST

static unsigned rows_of_time_0(int fd)
{
	FILE *f = fdopen(dup(fd), "r");
	char *line = NULL;
	size_t cap = 0;
	unsigned n = 0;

	rewind(f);
	while (getline(&line, &cap, f) > 0)
		n += line[0] == '0';
	free(line);
	fclose(f);
	return n;
}

START_TEST(another_batch_of_the_same_name_is_another_file)
{
	struct stat one, other, st;
	int was, is;

	append_blobs(2);
	ck_errno(write_once(at(shard, "ctl"), "compact\n"), 0);
	ck_works(stat(batch("0-2"), &one));
	was = open(batch("0-2"), O_RDONLY);
	/* what is past moves up */
	ck_errno(write_once(at(shard, "since"), "1\n"), 0);
	ck_errno(write_once(at(shard, "ctl"), "compact\n"), 0);
	is = open(batch("0-2"), O_RDONLY);
	ck_works(stat(batch("0-2"), &other));
	ck_assert_uint_ne(one.st_ino, other.st_ino);
	ck_works(fstat(is, &st));
	ck_assert(st.st_ino == other.st_ino && st.st_size == other.st_size);
	ck_works(fstat(was, &st));
	ck_assert(st.st_ino == one.st_ino && st.st_size == one.st_size);
	ck_assert_uint_eq(rows_of_time_0(was), 20);
	ck_assert_uint_eq(rows_of_time_0(is), 0);
	close(was);
	close(is);
	/* and the same one is the same file, also when the state is loaded again */
	world_stop(&w);
	world_start(&w, NULL);
	ck_works(stat(batch("0-2"), &st));
	ck_assert_uint_eq(st.st_ino, other.st_ino);
}
END_TEST

static int ascending(const void *a, const void *b)
{
	const unsigned long long *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

START_TEST(batches_tile_the_time_below_upper)
{
	struct rng r = rng_new(302);
	unsigned long long bounds[1024][2], upper = 0;
	char text[128];
	struct dirent *e;

	for (int i = 0; i < 400; i++) {
		unsigned step = 1 + (unsigned)rng_below(&r, 9);

		snprintf(text, sizeof text, "begin expected_upper=* new_upper=+%u\n%scommit\n", step,
			 rng_below(&r, 3) == 0 ? "" : "*\t1\ta\tb\n");
		want_txn(shard, text);
		upper += step;
		if (i % 20 != 19)
			continue;
		DIR *dir = opendir(at(shard, "batches"));
		size_t n = 0;

		while ((e = readdir(dir)) != NULL) {
			if (e->d_name[0] == '.')
				continue;
			ck_assert_int_eq(sscanf(e->d_name, "%llu-%llu", &bounds[n][0], &bounds[n][1]), 2);
			n++;
		}
		closedir(dir);
		qsort(bounds, n, sizeof *bounds, ascending);
		ck_assert_uint_eq(bounds[0][0], 0);
		for (size_t j = 1; j < n; j++)
			ck_assert_uint_eq(bounds[j][0], bounds[j - 1][1]);
		ck_assert_uint_eq(bounds[n - 1][1], upper);
	}
}
END_TEST

Suite *batches_suite(void)
{
	Suite *s = suite_create("batches");
	TCase *tc = shard_case(s, "batches", 120);

	tcase_add_test(tc, names_tell_bounds_and_sizes_are_true);
	tcase_add_test(tc, empty_neighbours_are_fused);
	tcase_add_test(tc, every_way_of_reading_gives_the_same_bytes);
	tcase_add_test(tc, a_batch_is_read_at_any_place);
	tcase_add_test(tc, an_open_batch_outlives_its_name);
	tcase_add_test(tc, what_was_listed_keeps_nothing_on_disk);
	tcase_add_test(tc, an_open_batch_is_kept_while_it_is_open);
	tcase_add_test(tc, another_batch_of_the_same_name_is_another_file);
	tcase_add_test(tc, batches_tile_the_time_below_upper);
	return s;
}
