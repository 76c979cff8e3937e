/* rocks.c - the RocksDB store when the device refuses, and when its bytes rot. */
#include "tests/kv/worlds.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct world w;

static void setup(void)
{
	world_open(&w, WORLD_ROCKS);
}

static void teardown(void)
{
	world_close(&w);
}

/*
 * Files may not grow beyond this from now on: a device that refuses, without a device. Check keeps its
 * messages in a file too, so below its size nothing may be asserted until the limit is lifted.
 */
static void limit_files(rlim_t bytes)
{
	struct rlimit l;

	signal(SIGXFSZ, SIG_IGN);
	if (getrlimit(RLIMIT_FSIZE, &l) != 0)
		abort();
	l.rlim_cur = bytes == RLIM_INFINITY ? l.rlim_max : bytes;
	if (setrlimit(RLIMIT_FSIZE, &l) != 0)
		abort();
}

START_TEST(reopen_sees_everything)
{
	const struct kv_blob_put put = {"p/1", "one", 3};
	const struct kv_version_put version = {4, "b", 1};

	struct kv_run run = {.key = "k",
			     .expected = 3,
			     .versions = &version,
			     .version_count = 1,
			     .blobs = &put,
			     .blob_count = 1};

	want_cas(w.c, "k", 0, 3, "a", KV_OK);
	kv_rocks_commit(w.rocks, &run, 1, 100, KV_SYNC);
	ck_assert_int_eq(run.rc, KV_OK);
	want_set(w.b, "p/2", "two", KV_OK);
	ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", 4, 5, "c", 1, KV_RIDE, NULL), KV_OK);
	world_reopen(&w);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 9), "3 4 5");
	want_head(w.c, "k", 5, "c");
	ck_assert_str_eq(blobs(w.b, "", "", 9), "p/1 p/2");
}
END_TEST

START_TEST(a_second_opener_is_busy)
{
	struct kv_rocks *r;
	struct kv_err err = {0};

	ck_assert_int_eq(kv_rocks_open(w.dir, false, &r, &err), KV_BUSY);
	ck_assert_ptr_null(r);
}
END_TEST

/* The head is that before long. */
static void want_head_soon(struct kv_consensus *c, const char *key, uint64_t seqno, const char *data)
{
	struct kv_version v = {0};

	for (int i = 0; i < 500 && v.seqno != seqno; i++) {
		free(v.data);
		usleep(10 * 1000);
		ck_assert_int_eq(kv_consensus_head(c, key, &v, NULL), KV_OK);
	}
	free(v.data);
	want_head(c, key, seqno, data);
}

START_TEST(a_reader_follows_the_owner_and_changes_nothing)
{
	struct kv_rocks *r;
	struct kv_err err = {0};

	want_cas(w.c, "k", 0, 1, "a", KV_OK);
	want_set(w.b, "p", "x", KV_OK);
	ck_assert_msg(kv_rocks_open(w.dir, true, &r, &err) == KV_OK, "%s", err.msg);

	struct kv_consensus *c = kv_rocks_consensus(r);

	want_head(c, "k", 1, "a");
	want_blob(kv_rocks_blobs(r), "p", "x");
	want_cas(w.c, "k", 1, 2, "b", KV_OK);
	want_set(w.b, "later", "y", KV_OK);
	want_head_soon(c, "k", 2, "b");
	want_blob(kv_rocks_blobs(r), "later", "y");
	want_cas(c, "k", 1, 2, "c", KV_READONLY);
	ck_assert_int_eq(kv_consensus_truncate(c, "k", 1, NULL, NULL), KV_READONLY);
	ck_assert_int_eq(kv_consensus_remove(c, "k", 1, NULL), KV_READONLY);
	want_set(kv_rocks_blobs(r), "q", "x", KV_READONLY);
	ck_assert_int_eq(kv_blob_delete(kv_rocks_blobs(r), "p", NULL, NULL, NULL), KV_READONLY);
	kv_rocks_close(r);
	want_head(w.c, "k", 2, "b");
}
END_TEST

START_TEST(a_reader_finds_no_database_where_none_is_and_makes_none)
{
	char *dir = check_dir();
	struct kv_rocks *r;

	ck_assert_int_eq(kv_rocks_open(dir, true, &r, NULL), KV_NOTFOUND);
	ck_assert_int_eq(rmdir(dir), 0);
	free(dir);
}
END_TEST

START_TEST(a_write_that_did_not_fit_is_surely_not_done_and_the_store_goes_on)
{
	size_t len = (size_t)4 << 20;
	char *data = calloc(1, len);
	struct kv_err err = {0};

	want_cas(w.c, "k", 0, 1, "a", KV_OK);
	ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", 1, 2, "b", 1, KV_RIDE, NULL), KV_OK);
	limit_files((rlim_t)1 << 20);
	ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", 2, 3, data, len, KV_SYNC, &err),
			 KV_UNREACHABLE);
	want_head(w.c, "k", 2, "b");
	want_cas(w.c, "k", 2, 3, "small", KV_OK);
	ck_assert_int_eq(kv_blob_set(w.b, "p", data, len, NULL), KV_UNREACHABLE);
	want_blob(w.b, "p", NULL);
	limit_files(RLIM_INFINITY);
	ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", 3, 4, data, len, KV_SYNC, NULL), KV_OK);
	world_reopen(&w);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 9), "1 2 3 4");
	free(data);
}
END_TEST

START_TEST(a_write_of_several_keys_that_did_not_fit_is_done_for_none_and_one_of_unknown_outcome_is_so_for_all)
{
	size_t len = (size_t)4 << 20;
	char *data = calloc(1, len);
	const struct kv_version_put large = {1, data, len}, small = {1, "s", 1};
	/* b is refused before the write, and so knows better. */
	struct kv_run runs[] = {{.key = "a", .versions = &small, .version_count = 1},
				{.key = "b", .versions = &small, .version_count = 1, .expected = 0},
				{.key = "c", .versions = &large, .version_count = 1},
				{.key = "d", .versions = &small, .version_count = 1}};
	enum kv_rc want = _i == 0 ? KV_UNREACHABLE : KV_UNKNOWN;

	want_cas(w.c, "b", 0, 1, "b", KV_OK);
	limit_files(_i == 0 ? (rlim_t)1 << 20 : 16);
	kv_rocks_commit(w.rocks, runs, 4, 0, KV_SYNC);
	limit_files(RLIM_INFINITY);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(runs[i].rc, i == 1 ? KV_MISMATCH : want);
	want_head(w.c, "b", 1, "b");
	for (int i = 0; i < 4; i++) {
		if (i != 1)
			want_head(w.c, runs[i].key, 0, NULL);
		runs[i].rc = KV_OK;
	}
	kv_rocks_commit(w.rocks, runs, 4, 0, KV_SYNC);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(runs[i].rc, i == 1 ? KV_MISMATCH : KV_OK);
	free(data);
}
END_TEST

START_TEST(when_reopening_fails_the_outcome_is_unknown_and_nothing_is_answered_until_it_succeeds)
{
	struct kv_version v;
	struct kv_blob_list l;
	size_t len = (size_t)1 << 20;
	char *data = calloc(1, len);

	want_cas(w.c, "k", 0, 1, "a", KV_OK);
	limit_files(16);

	enum kv_rc cas = kv_consensus_compare_and_set(w.c, "k", 1, 2, data, len, KV_SYNC, NULL);
	enum kv_rc head = kv_consensus_head(w.c, "k", &v, NULL);
	enum kv_rc list = kv_blob_list(w.b, "", "", 1, &l, NULL);
	enum kv_rc again = kv_consensus_compare_and_set(w.c, "k", 1, 2, "b", 1, KV_SYNC, NULL);

	limit_files(RLIM_INFINITY);
	ck_assert_int_eq(cas, KV_UNKNOWN);
	ck_assert_int_eq(head, KV_UNREACHABLE);
	ck_assert_int_eq(list, KV_UNREACHABLE);
	ck_assert_int_eq(again, KV_UNREACHABLE);
	want_head(w.c, "k", 1, "a");
	want_cas(w.c, "k", 1, 2, "b", KV_OK);
	want_head(w.c, "k", 2, "b");
	free(data);
}
END_TEST

static const rlim_t limits[] = {0, 1, 50, 200, 1000, 4096, 6000, 10000, 33000, 70000, 200000};

enum { LIMITS = sizeof(limits) / sizeof(limits[0]) };

/* Wherever the device ends, RocksDB must not end the process, and no answer may be wrong. */
START_TEST(a_device_that_ends_anywhere_costs_no_truth)
{
	size_t len = (size_t)300 << 10;
	char *data = calloc(1, len);
	uint64_t head = 1;

	want_cas(w.c, "k", 0, 1, "a", KV_OK);
	for (int round = 0; round < 3; round++) {
		struct kv_version v[3];
		enum kv_rc cas, heads[3], gone;

		limit_files(limits[_i]);
		cas = kv_consensus_compare_and_set(w.c, "k", head, head + 1, data, len, KV_SYNC, NULL);
		for (int i = 0; i < 3; i++)
			heads[i] = kv_consensus_head(w.c, "k", &v[i], NULL);
		gone = kv_consensus_remove(w.c, "k", head + 1, NULL);
		if (round == 1) { /* closing is no better off */
			kv_rocks_close(w.rocks);
			w.rocks = NULL;
			w.b = NULL;
		}
		limit_files(RLIM_INFINITY);
		ck_assert(cas == KV_UNKNOWN || cas == KV_UNREACHABLE);
		ck_assert(gone == KV_MISMATCH || gone == KV_UNREACHABLE);
		for (int i = 0; i < 3; i++) {
			ck_assert(heads[i] == KV_OK ? v[i].seqno == head : heads[i] == KV_UNREACHABLE);
			free(v[i].data);
		}
		if (round == 1)
			world_reopen(&w);
		want_cas(w.c, "k", head, head + 1, "b", KV_OK);
		want_head(w.c, "k", ++head, "b");
	}
	free(data);
}
END_TEST

static atomic_bool stop;

static void *keep_reading(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		struct kv_version v;

		if (kv_consensus_head(w.c, "k", &v, NULL) != KV_OK || v.len != 1 || v.data[0] != 'a')
			abort();
		free(v.data);
	}
	return NULL;
}

static void *fail_to_write(void *arg)
{
	static char data[2 << 20];

	for (int i = 0; i < 5; i++) {
		enum kv_rc rc =
			kv_consensus_compare_and_set(w.c, arg, 0, 1, data, sizeof(data), KV_SYNC, NULL);

		if (rc != KV_UNREACHABLE)
			abort();
	}
	return NULL;
}

START_TEST(readers_and_writers_survive_reopening_under_them)
{
	static char names[3][2] = {"x", "y", "z"};
	pthread_t reader, writers[3];

	want_cas(w.c, "k", 0, 1, "a", KV_OK);
	limit_files((rlim_t)1 << 20);
	stop = false;
	ck_assert_int_eq(pthread_create(&reader, NULL, keep_reading, NULL), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&writers[i], NULL, fail_to_write, names[i]), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(writers[i], NULL);
	stop = true;
	pthread_join(reader, NULL);
	limit_files(RLIM_INFINITY);
	ck_assert_str_eq(keys(w.c, "", 9), "k");
}
END_TEST

/* The log of the database that is being written; given. */
static char *find_newest_log(const char *dir)
{
	DIR *d = opendir(dir);
	char *found = NULL;

	for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
		size_t len = strlen(e->d_name);

		if (len > 4 && strcmp(e->d_name + len - 4, ".log") == 0) {
			char *path = check_path(dir, e->d_name);

			if (!found || strcmp(path, found) > 0) {
				free(found);
				found = path;
			} else {
				free(path);
			}
		}
	}
	closedir(d);
	ck_assert_ptr_nonnull(found);
	return found;
}

START_TEST(a_log_that_rotted_in_the_middle_refuses_to_open)
{
	struct kv_rocks *r;
	struct kv_err err = {0};
	char byte;

	for (uint64_t i = 0; i < 20; i++)
		want_cas(w.c, "k", i, i + 1, "some bytes of a version", KV_OK);

	char *log = find_newest_log(w.dir);
	int fd = open(log, O_RDWR);

	kv_rocks_close(w.rocks);
	/* Another byte: what is there may be random. */
	ck_assert_int_eq((int)pread(fd, &byte, 1, 300), 1);
	byte = (char)~byte;
	ck_assert_int_eq((int)pwrite(fd, &byte, 1, 300), 1);
	ck_assert_int_eq(kv_rocks_open(w.dir, false, &r, &err), KV_CORRUPT);
	ck_assert_int_eq(err.rc, KV_CORRUPT);
	close(fd);
	free(log);
	free(w.dir);
	world_open(&w, WORLD_ROCKS);
}
END_TEST

START_TEST(a_log_cut_in_its_last_record_opens_without_it)
{
	for (uint64_t i = 0; i < 20; i++)
		want_cas(w.c, "k", i, i + 1, "some bytes of a version", KV_OK);

	char *log = find_newest_log(w.dir);
	int fd = open(log, O_RDWR);
	off_t len = log_end(fd);

	kv_rocks_close(w.rocks);
	w.rocks = NULL;
	w.b = NULL;
	/* Closed well, a log that is shorter then is damage (log.c); what died has left no such seal. */
	char *seal = check_path(w.dir, "SEAL");

	ck_assert_int_eq(unlink(seal), 0);
	free(seal);
	ck_assert_int_eq(ftruncate(fd, len - 3), 0);
	close(fd);
	free(log);
	world_reopen(&w);
	want_head(w.c, "k", 19, "some bytes of a version");
	ck_assert_str_eq(seqnos(w.c, "k", 18, 9), "18 19");
}
END_TEST

/* How much longer the newest log is than its records. */
static off_t zeros_ahead(void)
{
	char *log = find_newest_log(w.dir);
	int fd = open(log, O_RDONLY | O_CLOEXEC);
	off_t ahead = lseek(fd, 0, SEEK_END) - log_end(fd);

	close(fd);
	free(log);
	return ahead;
}

START_TEST(commits_overwrite_zeros_instead_of_growing_the_log)
{
	static char data[3000];
	char *first = find_newest_log(w.dir), *last;
	unsigned grown = 0, logs = 1;

	memset(data, 'v', sizeof(data));
	for (uint64_t i = 0; i < 6000; i++) {
		ck_assert_int_eq(
			kv_consensus_compare_and_set(w.c, "k", i, i + 1, data, sizeof(data), KV_RIDE, NULL),
			KV_OK);
		if (i % 100 != 0)
			continue;
		last = find_newest_log(w.dir);
		logs += strcmp(first, last) != 0;
		free(first);
		first = last;
		grown += zeros_ahead() <= 0;
	}
	free(first);
	ck_assert_uint_gt(logs, 1);
	ck_assert_uint_le(grown, logs); /* a log is some commits old before it is seen */
	world_reopen(&w);
	ck_assert_str_eq(seqnos(w.c, "k", 5999, 9), "5999 6000");
}
END_TEST

START_TEST(a_clean_close_leaves_no_zeros)
{
	want_cas(w.c, "k", 0, 1, "v", KV_OK);
	ck_assert_int_gt(zeros_ahead(), 0);
	kv_rocks_close(w.rocks);
	ck_assert_int_eq(zeros_ahead(), 0);
	free(w.dir);
	world_open(&w, WORLD_ROCKS);
}
END_TEST

/* A write of the owner's that came after the reader has read the zeros. */
START_TEST(a_reader_beside_the_owner_sees_what_was_written_over_zeros)
{
	struct kv_rocks *beside;
	struct kv_err err;

	want_cas(w.c, "k", 0, 1, "v", KV_OK);
	ck_assert_int_eq(kv_rocks_open(w.dir, true, &beside, &err), KV_OK);
	for (uint64_t i = 1; i < 6; i++) {
		struct kv_version head = {0};

		want_cas(w.c, "k", i, i + 1, "v", KV_OK);
		for (int tries = 0; head.seqno != i + 1; tries++) {
			ck_assert_int_lt(tries, 1000);
			usleep(10000);
			free(head.data);
			ck_assert_int_eq(kv_consensus_head(kv_rocks_consensus(beside), "k", &head, &err),
					 KV_OK);
		}
		free(head.data);
	}
	kv_rocks_close(beside);
}
END_TEST

Suite *rocks_suite(void)
{
	Suite *s = suite_create("kv/rocks");
	TCase *t = tcase_create("rocks");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, reopen_sees_everything);
	tcase_add_test(t, a_second_opener_is_busy);
	tcase_add_test(t, a_reader_follows_the_owner_and_changes_nothing);
	tcase_add_test(t, a_reader_finds_no_database_where_none_is_and_makes_none);
	tcase_add_test(t, a_write_that_did_not_fit_is_surely_not_done_and_the_store_goes_on);
	tcase_add_loop_test(
		t,
		a_write_of_several_keys_that_did_not_fit_is_done_for_none_and_one_of_unknown_outcome_is_so_for_all,
		0, 2);
	tcase_add_test(t,
		       when_reopening_fails_the_outcome_is_unknown_and_nothing_is_answered_until_it_succeeds);
	tcase_add_loop_test(t, a_device_that_ends_anywhere_costs_no_truth, 0, LIMITS);
	tcase_add_test(t, readers_and_writers_survive_reopening_under_them);
	tcase_add_test(t, a_log_that_rotted_in_the_middle_refuses_to_open);
	tcase_add_test(t, a_log_cut_in_its_last_record_opens_without_it);
	tcase_add_test(t, commits_overwrite_zeros_instead_of_growing_the_log);
	tcase_add_test(t, a_clean_close_leaves_no_zeros);
	tcase_add_test(t, a_reader_beside_the_owner_sees_what_was_written_over_zeros);
	suite_add_tcase(s, t);
	return s;
}
