/*
 * rocks_mend.c - logs as a power cut leaves them, and logs that rot.
 *
 * The files are copied while the database is open, so the log has what an open would have written to tables.
 */
#include "tests/kv/worlds.h"

#include <fcntl.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/rocks_log.h"

enum { SYNCED = 12, ALL = 18, BYTES = 21000 };

static struct world w;
static char *copy; /* a directory beside w.dir */
static off_t synced_len, all_len;

static void setup(void)
{
	world_open(&w, WORLD_ROCKS);
	copy = check_path(w.dir, "../mend-copy");
}

static void teardown(void)
{
	world_close(&w);
	free(copy);
}

/* The directory, as it is now, becomes the copy. */
static void copy_from(const char *dir)
{
	char line[1024];

	snprintf(line, sizeof line, "rm -rf %s && cp -r %s %s", copy, dir, copy);
	ck_assert_int_eq(system(line), 0);
}

/* The newest log of the copy. */
static int open_log(void)
{
	char path[512], line[1024];
	FILE *f;

	snprintf(line, sizeof line, "ls %s/*.log | tail -n 1", copy);
	f = popen(line, "r");
	ck_assert(f != NULL && fscanf(f, "%511s", path) == 1);
	pclose(f);

	int fd = open(path, O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static off_t log_len(void)
{
	int fd = open_log();
	off_t len = log_end(fd);

	close(fd);
	return len;
}

/* Version i is i times as long as BYTES / ALL. */
static void commit(uint64_t i, enum kv_sync sync)
{
	static char data[BYTES];

	memset(data, 'a' + (int)i, sizeof data);
	ck_assert_int_eq(
		kv_consensus_compare_and_set(w.c, "k", i - 1, i, data, (size_t)(BYTES / ALL) * i, sync, NULL),
		KV_OK);
}

/* SYNCED versions that are synced and ALL - SYNCED that ride; the copy is made. */
static void write_all(void)
{
	for (uint64_t i = 1; i <= SYNCED; i++)
		commit(i, KV_SYNC);
	copy_from(w.dir);
	synced_len = log_len();
	for (uint64_t i = SYNCED + 1; i <= ALL; i++)
		commit(i, KV_RIDE);
	copy_from(w.dir);
	all_len = log_len();
}

/* Opens the copy: its head, after a look at all versions up to that. The rest is as kv_rocks_open says. */
static enum kv_rc open_copy(bool read_only, uint64_t *head)
{
	struct kv_rocks *r;
	struct kv_versions all = {0};
	enum kv_rc rc = kv_rocks_open(copy, read_only, &r, NULL);

	*head = 0;
	if (rc != KV_OK)
		return rc;
	ck_assert_int_eq(kv_consensus_scan(kv_rocks_consensus(r), "k", 0, 100, &all, NULL), KV_OK);
	for (size_t i = 0; i < all.count; i++) {
		ck_assert_uint_eq(all.v[i].seqno, i + 1);
		ck_assert_uint_eq(all.v[i].len, (size_t)(BYTES / ALL) * (i + 1));
		ck_assert_int_eq(all.v[i].data[0], 'a' + (int)(i + 1));
	}
	*head = all.count;
	kv_versions_free(&all);
	kv_rocks_close(r);
	return KV_OK;
}

static void fill(int fd, off_t from, off_t to, int byte)
{
	for (off_t at = from; at < to; at++)
		ck_assert_int_eq((int)pwrite(fd, &(char){(char)byte}, 1, at), 1);
}

/* A piece of what was not synced is gone: zeros, other bytes, or the end. A reader sees the same first. With
 * the zeros ahead of the log, and without. */
START_TEST(what_was_not_synced_may_be_torn_in_any_way)
{
	static const int bytes[] = {0, 0xff, -1};
	uint64_t seen, head;

	write_all();
	for (off_t from = synced_len; from < all_len; from += 4001) {
		for (int i = 0; i < 3; i++) {
			off_t to = from + 3000 < all_len ? from + 3000 : all_len;
			int fd;

			copy_from(w.dir);
			fd = open_log();
			if (_i == 0)
				ck_assert_int_eq(ftruncate(fd, all_len), 0);
			if (bytes[i] < 0)
				ck_assert_int_eq(ftruncate(fd, from), 0);
			else
				fill(fd, from, to, bytes[i]);
			close(fd);
			if (bytes[i] > 0) { /* what was not written is zeros: these were changed */
				ck_assert_int_eq(open_copy(true, &seen), KV_CORRUPT);
				ck_assert_int_eq(open_copy(false, &head), KV_CORRUPT);
				continue;
			}
			ck_assert_int_eq(open_copy(true, &seen), KV_OK);
			ck_assert_int_eq(open_copy(false, &head), KV_OK);
			ck_assert_uint_ge(head, SYNCED);
			ck_assert_uint_lt(head, ALL);
			ck_assert_uint_le(seen, ALL);
			ck_assert_uint_ge(seen, SYNCED);
		}
	}
}
END_TEST

START_TEST(a_log_that_was_extended_with_zeros_is_whole)
{
	uint64_t head;

	write_all();
	int fd = open_log();

	ck_assert_int_gt(lseek(fd, 0, SEEK_END), all_len);
	ck_assert_int_eq(ftruncate(fd, all_len), 0);
	ck_assert_int_eq(ftruncate(fd, all_len + _i), 0);
	close(fd);
	ck_assert_int_eq(open_copy(true, &head), KV_OK);
	ck_assert_uint_eq(head, ALL);
	ck_assert_int_eq(open_copy(false, &head), KV_OK);
	ck_assert_uint_eq(head, ALL);
}
END_TEST

/* Up to what the marks behind it vouch for: all but the last synced one. */
START_TEST(damage_in_what_was_synced_is_reported_and_left_alone)
{
	off_t vouched;
	uint64_t head;

	for (uint64_t i = 1; i < SYNCED; i++)
		commit(i, KV_SYNC);
	copy_from(w.dir);
	vouched = log_len();
	commit(SYNCED, KV_SYNC);
	copy_from(w.dir);
	for (off_t at = 0; at < vouched; at += 1193) {
		char was, flipped;
		int fd = open_log();
		off_t len = lseek(fd, 0, SEEK_END);

		ck_assert_int_eq((int)pread(fd, &was, 1, at), 1);
		flipped = (char)(was ^ 0x10);
		ck_assert_int_eq((int)pwrite(fd, &flipped, 1, at), 1);
		ck_assert_msg(open_copy(false, &head) == KV_CORRUPT, "byte %ld", (long)at);
		ck_assert_msg(open_copy(true, &head) == KV_CORRUPT, "byte %ld, a reader", (long)at);
		ck_assert_int_eq(lseek(fd, 0, SEEK_END), len);
		ck_assert_int_eq((int)pwrite(fd, &was, 1, at), 1);
		close(fd);
	}
	ck_assert_int_eq(open_copy(false, &head), KV_OK);
	ck_assert_uint_eq(head, SYNCED);
}
END_TEST

/* RocksDB keeps a log of which nothing was whole, and goes on in another: that is no hole. */
START_TEST(a_log_that_a_kill_cut_in_its_first_record_may_lie_behind_others)
{
	struct kv_rocks *r;
	uint64_t head;
	int fd;

	commit(1, KV_SYNC);
	copy_from(w.dir);
	fd = open_log();
	ck_assert_int_eq(ftruncate(fd, 200), 0);
	close(fd);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(kv_rocks_open(copy, false, &r, NULL), KV_OK);
		ck_assert_int_eq(kv_consensus_compare_and_set(kv_rocks_consensus(r), "other", (uint64_t)i,
							      (uint64_t)i + 1, "x", 1, KV_SYNC, NULL),
				 KV_OK);
		kv_rocks_close(r);
	}
	ck_assert_int_eq(open_copy(true, &head), KV_OK);
	ck_assert_uint_eq(head, 0);
}
END_TEST

/* A page of zeros, as a disk may give back for a lost one, where a torn write would leave them too. */
START_TEST(a_clean_close_vouches_for_all_of_the_log)
{
	uint64_t head;
	off_t end;

	for (uint64_t i = 1; i <= SYNCED; i++)
		commit(i, i < SYNCED ? KV_SYNC : KV_RIDE);
	kv_rocks_close(w.rocks);
	w.rocks = NULL;
	copy_from(w.dir);
	end = log_len();
	for (off_t at = 0; at + 1000 < end; at += 4096) {
		int fd;

		copy_from(w.dir);
		fd = open_log();
		fill(fd, at, at + 900, 0);
		close(fd);
		ck_assert_msg(open_copy(false, &head) == KV_CORRUPT, "zeros at %ld of %ld", (long)at,
			      (long)end);
	}
	ck_assert_int_eq(kv_rocks_open(w.dir, false, &w.rocks, NULL), KV_OK);
}
END_TEST

/* A log that another program wrote says nothing about what was synced. */
START_TEST(a_log_without_marks_is_not_cut)
{
	rocksdb_options_t *options = rocksdb_options_create();
	rocksdb_writeoptions_t *how = rocksdb_writeoptions_create();
	char *dir = check_path(w.dir, "../mend-plain"), *text = NULL, data[30000] = "x";
	struct kv_rocks *r;

	rocksdb_options_set_create_if_missing(options, 1);

	rocksdb_t *db = rocksdb_open(options, dir, &text);

	ck_assert_ptr_nonnull(db);
	for (char key = 'a'; key < 'e'; key++)
		rocksdb_put(db, how, &key, 1, data, sizeof data, &text);
	ck_assert_ptr_null(text);
	copy_from(dir);

	int fd = open_log();
	off_t len = lseek(fd, 0, SEEK_END);

	fill(fd, 35000, 36000, 'y');
	ck_assert_int_eq(kv_rocks_open(copy, false, &r, NULL), KV_CORRUPT);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), len);
	close(fd);
	rocksdb_close(db);
	rocksdb_writeoptions_destroy(how);
	rocksdb_options_destroy(options);
	free(dir);
}
END_TEST

static void *commit_many(void *key)
{
	for (uint64_t i = 0; i < 40; i++)
		if (kv_consensus_compare_and_set(w.c, key, i, i + 1, "v", 1, KV_SYNC, NULL) != KV_OK)
			abort();
	return NULL;
}

/* Of writers that met in one group too, RocksDB tells each which sequence numbers it got. */
START_TEST(a_batch_vouches_for_all_that_was_synced_before_it)
{
	static char names[4][2] = {"a", "b", "c", "d"};
	struct rocks_log log = {0};
	pthread_t threads[4];
	uint8_t *bytes;

	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, commit_many, names[i]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	want_cas(w.c, "k", 0, 1, "v", KV_OK);
	copy_from(w.dir);

	int fd = open_log();
	off_t len = lseek(fd, 0, SEEK_END);

	bytes = malloc((size_t)len);
	ck_assert_int_eq(pread(fd, bytes, (size_t)len, 0), len);
	close(fd);
	rocks_log_read(bytes, (size_t)len, &log);
	free(bytes);
	ck_assert(log.any && !log.unmarked && log.end == ROCKS_LOG_WHOLE);
	ck_assert_uint_eq(log.next - log.first, (4 * 40 + 1) * 2); /* a version and a head each */
	ck_assert_uint_eq(log.mark, log.next - 3);
}
END_TEST

Suite *rocks_mend_suite(void)
{
	Suite *s = suite_create("kv/rocks_mend");
	TCase *t = tcase_create("mend");

	tcase_set_timeout(t, 300);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, what_was_not_synced_may_be_torn_in_any_way, 0, 2);
	tcase_add_loop_test(t, a_log_that_was_extended_with_zeros_is_whole, 0, 10);
	tcase_add_loop_test(t, a_log_that_was_extended_with_zeros_is_whole, 100000, 100001);
	tcase_add_test(t, damage_in_what_was_synced_is_reported_and_left_alone);
	tcase_add_test(t, a_clean_close_vouches_for_all_of_the_log);
	tcase_add_test(t, a_log_that_a_kill_cut_in_its_first_record_may_lie_behind_others);
	tcase_add_test(t, a_log_without_marks_is_not_cut);
	tcase_add_test(t, a_batch_vouches_for_all_that_was_synced_before_it);
	suite_add_tcase(s, t);
	return s;
}
