/*
 * log.c - damage in RocksDB's logs that it would take for the end of them: what was acknowledged must not go
 * in silence; and what a crash leaves of a log must not be taken for damage.
 */
#include "tests/kv/worlds.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COMMITS = 120, HEAD = 7, BLOCK = 32 << 10, ZEROS = 70000, SECTOR = 512 };

static struct world w;
static char *dir;  /* the database */
static char *file; /* its log */
static unsigned char *log_bytes;
static size_t log_len; /* its records */
static bool ahead;     /* zeros come behind them */

/* Commits that lie in the log, whose bytes are read while it is open: as a kill leaves it. */
static void setup(void)
{
	char key[32], text[400];
	struct dirent *e;
	FILE *f;
	DIR *d;

	world_open(&w, WORLD_ROCKS);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < COMMITS; i++) {
		snprintf(key, sizeof(key), "k%03d", i);
		want_cas(w.c, key, 0, 1, text, KV_OK);
	}
	dir = check_path(w.dir, "killed");
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	d = opendir(w.dir);
	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d)) != NULL) {
		char line[1024];

		if (strcmp(e->d_name, "killed") == 0 || e->d_name[0] == '.')
			continue;
		snprintf(line, sizeof(line), "cp -r '%s/%s' '%s/'", w.dir, e->d_name, dir);
		ck_assert_int_eq(system(line), 0);
	}
	closedir(d);
	d = opendir(dir);
	while ((e = readdir(d)) != NULL)
		if (strstr(e->d_name, ".log"))
			file = check_path(dir, e->d_name);
	closedir(d);
	ck_assert_ptr_nonnull(file);
	f = fopen(file, "r");
	ck_assert_ptr_nonnull(f);
	log_bytes = malloc(1 << 20);
	log_len = fread(log_bytes, 1, 1 << 20, f);
	ck_assert_uint_gt(log_len, (size_t)log_end(fileno(f)));
	log_len = (size_t)log_end(fileno(f));
	fclose(f);
	ck_assert_uint_gt(log_len, BLOCK + 3000);
}

static void teardown(void)
{
	free(log_bytes);
	free(file);
	free(dir);
	world_close(&w);
}

/* Put these bytes in place of the log, zeros behind them if `ahead`, and open; how many of the commits are
 * there, or -1: refused as damaged, in words that name the log. */
static int open_with(const unsigned char *bytes, size_t len, bool read_only)
{
	struct kv_rocks *r;
	struct kv_err err;
	int count = 0, fd = open(file, O_WRONLY | O_TRUNC);
	enum kv_rc rc;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	if (ahead)
		ck_assert_int_eq(ftruncate(fd, (off_t)(len + ZEROS)), 0);
	close(fd);
	rc = kv_rocks_open(dir, read_only, &r, &err);
	if (rc == KV_CORRUPT) {
		ck_assert_msg(strstr(err.msg, ".log, byte ") != NULL, "%s", err.msg);
		return -1;
	}
	ck_assert_msg(rc == KV_OK, "%s", err.msg);
	for (int i = 0; i < COMMITS; i++) {
		struct kv_version head;
		char key[32];

		snprintf(key, sizeof(key), "k%03d", i);
		rc = kv_consensus_head(kv_rocks_consensus(r), key, &head, &err);
		ck_assert(rc == KV_OK || rc == KV_NOTFOUND);
		if (rc == KV_OK) {
			ck_assert_int_eq(count, i); /* no hole */
			count++;
			free(head.data);
		}
	}
	kv_rocks_close(r);
	return count;
}

static size_t record_at(size_t n)
{
	size_t pos = 0;

	for (size_t i = 0; i < n; i++) {
		pos += HEAD + log_bytes[pos + 4] + ((size_t)log_bytes[pos + 5] << 8);
		if (BLOCK - pos % BLOCK < HEAD)
			pos += BLOCK - pos % BLOCK;
	}
	return pos;
}

static size_t last_record(void)
{
	size_t n = 0;

	while (record_at(n + 1) < log_len)
		n++;
	return n;
}

/* Read-only, so that the store stays as it is. */
START_TEST(a_wrong_length_near_the_end_of_the_log_is_damage)
{
	size_t last = last_record();

	ahead = _i != 0;
	ck_assert_int_eq(open_with(log_bytes, log_len, true), COMMITS);
	for (size_t n = last; n > last - 20; n--) {
		size_t pos = record_at(n);

		for (unsigned bit = 0; bit < 16; bit++) {
			log_bytes[pos + 4 + bit / 8] ^= (unsigned char)(1u << bit % 8);
			ck_assert_msg(open_with(log_bytes, log_len, true) == -1, "record %zu of %zu, bit %u",
				      n, last, bit);
			log_bytes[pos + 4 + bit / 8] ^= (unsigned char)(1u << bit % 8);
		}
	}
}
END_TEST

START_TEST(zeros_before_more_records_are_damage)
{
	ahead = _i != 0;
	for (size_t at = 0; at + 4096 < log_len; at += 4096) {
		unsigned char *bytes = malloc(log_len);

		memcpy(bytes, log_bytes, log_len);
		memset(bytes + at, 0, 4096);
		ck_assert_int_eq(open_with(bytes, log_len, true), -1);
		free(bytes);
	}
}
END_TEST

/* Cut anywhere in its last records it opens with what was whole. Over zeros whole sectors are written, or
 * not. */
START_TEST(a_log_that_a_crash_cut_off_is_no_damage)
{
	size_t from = record_at(last_record() - 1), step = _i == 0 ? 13 : SECTOR;

	ahead = _i != 0;
	for (size_t len = (from + step - 1) / step * step; len < log_len; len += step) {
		int count = open_with(log_bytes, len, true);

		ck_assert_msg(count >= COMMITS - 2 && count <= COMMITS, "cut at %zu of %zu: %d", len, log_len,
			      count);
	}
	if (!ahead)
		ck_assert_int_ge(open_with(log_bytes, record_at(last_record()) + 3, false), COMMITS - 1);
}
END_TEST

/* In a database that was closed well. Damaged copies of each file of it. */
START_TEST(a_file_of_a_closed_database_that_is_gone_or_shorter_is_missed)
{
	struct kv_err err;
	struct dirent *e;
	unsigned looked = 0;
	DIR *d;

	kv_rocks_close(w.rocks);
	w.rocks = NULL;
	d = opendir(w.dir);
	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d)) != NULL) {
		bool sealed = strstr(e->d_name, ".log") || strstr(e->d_name, ".sst") ||
			      strstr(e->d_name, "MANIFEST");
		struct stat st;
		char line[2048], *copy = check_path(w.dir, "copy"), *path = check_path(copy, e->d_name);

		for (int cut = 0; sealed && cut < 4; cut++) {
			struct kv_rocks *r;

			snprintf(line, sizeof(line),
				 "rm -rf '%s' && mkdir '%s' && find '%s' -maxdepth 1 -type f -exec cp '{}' "
				 "'%s' \\;",
				 copy, copy, w.dir, copy);
			ck_assert_int_eq(system(line), 0);
			ck_assert_int_eq(stat(path, &st), 0);
			if (st.st_size == 0)
				continue;
			ck_assert_int_eq(cut == 3 ? unlink(path) : truncate(path, st.st_size * cut / 3), 0);
			ck_assert_int_ne(kv_rocks_open(copy, false, &r, &err), KV_OK);
			ck_assert_msg(strstr(err.msg, e->d_name) != NULL, "%s: %s", e->d_name, err.msg);
			looked++;
		}
		free(path);
		free(copy);
	}
	closedir(d);
	ck_assert_uint_ge(looked, 8);
	ck_assert_int_eq(kv_rocks_open(w.dir, false, &w.rocks, &err), KV_OK);
	w.c = kv_rocks_consensus(w.rocks);
	ck_assert_str_eq(seqnos(w.c, "k007", 0, 9), "1");
}
END_TEST

/* The seal of a session that was killed says nothing of what came after it began. */
START_TEST(a_killed_database_whose_log_was_deleted_well_opens)
{
	struct kv_rocks *r;
	struct kv_err err;
	char line[2048];

	/* Opened, and so with another log and manifest, then as if killed. */
	ck_assert_int_eq(kv_rocks_open(dir, false, &r, &err), KV_OK);
	snprintf(line, sizeof(line), "cp -r '%s' '%s2'", dir, dir);
	ck_assert_int_eq(system(line), 0);
	kv_rocks_close(r);
	snprintf(line, sizeof(line), "%s2", dir);
	ck_assert_int_eq(kv_rocks_open(line, false, &r, &err), KV_OK);
	ck_assert_str_eq(seqnos(kv_rocks_consensus(r), "k119", 0, 9), "1");
	kv_rocks_close(r);
	check_rmtree(line);
}
END_TEST

Suite *log_suite(void)
{
	Suite *s = suite_create("log");
	TCase *tc = tcase_create("log");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_wrong_length_near_the_end_of_the_log_is_damage, 0, 2);
	tcase_add_loop_test(tc, zeros_before_more_records_are_damage, 0, 2);
	tcase_add_loop_test(tc, a_log_that_a_crash_cut_off_is_no_damage, 0, 2);
	tcase_add_test(tc, a_file_of_a_closed_database_that_is_gone_or_shorter_is_missed);
	tcase_add_test(tc, a_killed_database_whose_log_was_deleted_well_opens);
	suite_add_tcase(s, tc);
	return s;
}
