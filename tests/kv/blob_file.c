/* blob_file.c - what is particular to blobs as files. */
#include "tests/kv/worlds.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct world w;

static void setup(void)
{
	world_open(&w, WORLD_FILE);
}

static void teardown(void)
{
	world_close(&w);
}

static bool exists(const char *name)
{
	char *path = check_path(w.dir, name);
	bool there = access(path, F_OK) == 0;

	free(path);
	return there;
}

static int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

START_TEST(reopen_sees_everything)
{
	want_set(w.b, "a/b/c", "x", KV_OK);
	want_set(w.b, "d", "y", KV_OK);
	world_reopen(&w);
	want_blob(w.b, "a/b/c", "x");
	ck_assert_str_eq(blobs(w.b, "", "", 9), "a/b/c d");
}
END_TEST

START_TEST(what_a_crash_left_in_tmp_is_cleared_by_an_owner_not_by_a_reader)
{
	char *left = check_path(w.dir, "tmp/0000000000000000");
	struct kv_blobs *reader;

	want_set(w.b, "a", "x", KV_OK);
	check_write(left, "half");
	ck_assert_int_eq(kv_blob_file_open(w.dir, true, &reader, NULL), KV_OK);
	ck_assert_int_eq(access(left, F_OK), 0);
	want_blob(reader, "a", "x");
	want_set(reader, "b", "x", KV_READONLY);
	ck_assert_int_eq(kv_blob_delete(reader, "a", NULL, NULL, NULL), KV_READONLY);
	kv_blobs_close(reader);
	world_reopen(&w);
	ck_assert_int_ne(access(left, F_OK), 0);
	want_set(w.b, "b", "x", KV_OK);
	free(left);
}
END_TEST

START_TEST(directories_go_with_their_last_blob)
{
	want_set(w.b, "a/b/c/1", "x", KV_OK);
	want_set(w.b, "a/b/2", "x", KV_OK);
	ck_assert_int_eq(kv_blob_delete(w.b, "a/b/c/1", NULL, NULL, NULL), KV_OK);
	ck_assert(!exists("data/a/b/c"));
	ck_assert(exists("data/a/b"));
	ck_assert_int_eq(kv_blob_delete(w.b, "a/b/2", NULL, NULL, NULL), KV_OK);
	ck_assert(!exists("data/a"));
	ck_assert(exists("data"));
}
END_TEST

static void make_dirs(const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char *path = check_path(w.dir, names[i]);

		ck_assert_int_eq(mkdir(path, 0700), 0);
		free(path);
	}
}

/* A kill between unlink and rmdir, or between mkdir and rename. */
START_TEST(directories_that_a_crash_left_empty_go_with_an_owners_next_listing)
{
	static const char *const left[] = {"data/a/e", "data/a/e/f", "data/b", "data/b/c"};
	struct kv_blobs *reader;

	want_set(w.b, "a/1", "x", KV_OK);
	want_set(w.b, "z/1", "x", KV_OK);
	make_dirs(left, 4);
	ck_assert_int_eq(kv_blob_file_open(w.dir, true, &reader, NULL), KV_OK);
	ck_assert_str_eq(blobs(reader, "", "", 9), "a/1 z/1");
	kv_blobs_close(reader);
	ck_assert(exists("data/a/e/f") && exists("data/b/c"));
	ck_assert_str_eq(blobs(w.b, "a/", "", 9), "a/1");
	ck_assert(!exists("data/a/e") && exists("data/b/c"));
	ck_assert_str_eq(blobs(w.b, "", "", 9), "a/1 z/1");
	ck_assert(!exists("data/b"));
	want_blob(w.b, "a/1", "x");
}
END_TEST

enum { TURNS = 40 };

static void *list_on(void *stop)
{
	while (!atomic_load((_Atomic(bool) *)stop)) {
		struct kv_blob_list list;

		if (kv_blob_list(w.b, "", "", 9, &list, NULL) != KV_OK)
			return stop;
		kv_blob_list_free(&list);
	}
	return NULL;
}

START_TEST(a_listing_takes_no_directory_from_a_set_under_way)
{
	_Atomic(bool) stop = false;
	pthread_t lister;
	void *failed;

	ck_assert_int_eq(pthread_create(&lister, NULL, list_on, &stop), 0);
	for (int i = 0; i < TURNS; i++) {
		want_set(w.b, "a/b/c", "x", KV_OK);
		want_blob(w.b, "a/b/c", "x");
		ck_assert_int_eq(kv_blob_delete(w.b, "a/b/c", NULL, NULL, NULL), KV_OK);
	}
	atomic_store(&stop, true);
	ck_assert_int_eq(pthread_join(lister, &failed), 0);
	ck_assert_ptr_null(failed);
	ck_assert(!exists("data/a"));
}
END_TEST

START_TEST(a_set_that_does_not_fit_leaves_nothing)
{
	static char data[64 << 10];
	struct rlimit old, l;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	l = old;
	l.rlim_cur = 4096;
	/* Check writes to a file too: no assertion under the limit. */
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &l), 0);

	enum kv_rc rc = kv_blob_set(w.b, "a/b", data, sizeof(data), NULL);

	setrlimit(RLIMIT_FSIZE, &old);
	ck_assert_int_eq(rc, KV_UNREACHABLE);
	want_blob(w.b, "a/b", NULL);
	ck_assert(!exists("tmp/0000000000000000"));
	ck_assert(!exists("data/a"));
	ck_assert_int_eq(kv_blob_set(w.b, "a/b", data, sizeof(data), NULL), KV_OK);
}
END_TEST

START_TEST(no_call_leaks_a_descriptor)
{
	int before = open_files();

	for (int i = 0; i < 3; i++) {
		want_set(w.b, "a/b/c", "x", KV_OK);
		want_set(w.b, "a/b/c", "x", KV_OK);
		want_blob(w.b, "a/b/c", "x");
		want_blob(w.b, "a/b", NULL);
		want_blob(w.b, "none", NULL);
		(void)blobs(w.b, "a/", "", 9);
		(void)blobs(w.b, "none/", "", 9);
		ck_assert_int_eq(kv_blob_delete(w.b, "a/b/c", NULL, NULL, NULL), KV_OK);
	}
	ck_assert_int_eq(open_files(), before);
	world_reopen(&w);
	ck_assert_int_eq(open_files(), before);
}
END_TEST

START_TEST(opening_a_missing_directory_is_not_found)
{
	char *path = check_path(w.dir, "none");
	struct kv_blobs *b;

	ck_assert_int_eq(kv_blob_file_open(path, false, &b, NULL), KV_NOTFOUND);
	ck_assert_int_eq(kv_blob_file_open(path, true, &b, NULL), KV_NOTFOUND);
	free(path);
}
END_TEST

Suite *blob_file_suite(void)
{
	Suite *s = suite_create("kv/blob_file");
	TCase *t = tcase_create("file");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, reopen_sees_everything);
	tcase_add_test(t, what_a_crash_left_in_tmp_is_cleared_by_an_owner_not_by_a_reader);
	tcase_add_test(t, directories_go_with_their_last_blob);
	tcase_add_test(t, directories_that_a_crash_left_empty_go_with_an_owners_next_listing);
	tcase_add_test(t, a_listing_takes_no_directory_from_a_set_under_way);
	tcase_add_test(t, a_set_that_does_not_fit_leaves_nothing);
	tcase_add_test(t, no_call_leaks_a_descriptor);
	tcase_add_test(t, opening_a_missing_directory_is_not_found);
	suite_add_tcase(s, t);
	return s;
}
