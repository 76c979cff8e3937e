/* store_embedded.c - the directory of an embedded store: who may have it, and what it must hold. */
#include "tests/kv/worlds.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *dir;

static void setup(void)
{
	dir = check_dir();
}

static void teardown(void)
{
	check_rmtree(dir);
	free(dir);
}

static struct kv_store *open_ok(bool read_only)
{
	struct kv_store *s;
	struct kv_err err = {0};
	enum kv_rc rc = kv_store_embedded_open(dir, read_only, "a test", &s, &err);

	ck_assert_msg(rc == KV_OK, "%s: %s", kv_rc_name(rc), err.msg);
	return s;
}

static void open_fails(bool read_only, enum kv_rc want, struct kv_err *err)
{
	struct kv_store *s;
	enum kv_rc rc = kv_store_embedded_open(dir, read_only, "a test", &s, err);

	ck_assert_msg(rc == want, "%s: %s", kv_rc_name(rc), err->msg);
	ck_assert_ptr_null(s);
}

static void write_in(const char *name, const char *text)
{
	char *path = check_path(dir, name);

	check_write(path, text);
	free(path);
}

static int count_entries(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void make_with_state(void)
{
	const struct kv_blob_put put = {"p/1", "one", 3};
	struct kv_store *s = open_ok(false);

	ck_assert_int_eq(kv_store_commit(s, "k", 0, 1, "v", 1, &put, 1, KV_SYNC, NULL), KV_OK);
	want_set(kv_store_blobs(s), "p/2", "two", KV_OK);
	kv_store_close(s);
}

static void expect_state(struct kv_store *s)
{
	want_head(kv_store_consensus(s), "k", 1, "v");
	ck_assert_str_eq(blobs(kv_store_blobs(s), "", "", 9), "p/1 p/2");
	want_blob(kv_store_blobs(s), "p/1", "one");
	want_blob(kv_store_blobs(s), "p/2", "two");
}

START_TEST(reopen_sees_everything)
{
	make_with_state();

	struct kv_store *s = open_ok(false);

	expect_state(s);
	kv_store_close(s);
}
END_TEST

START_TEST(a_missing_directory_is_made_private_but_not_its_parent)
{
	struct kv_store *s;
	struct stat st;

	ck_assert_int_eq(rmdir(dir), 0);
	s = open_ok(false);
	ck_assert_int_eq(stat(dir, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
	kv_store_close(s);

	char *deep = check_path(dir, "no/such");

	ck_assert_int_eq(kv_store_embedded_open(deep, false, "", &s, NULL), KV_NOTFOUND);
	free(deep);
}
END_TEST

START_TEST(the_files_are_those_of_the_table)
{
	char *format = check_path(dir, "FORMAT"), *owner = check_path(dir, "OWNER");
	char expected[64];

	struct kv_store *s = open_ok(false);
	char *text = check_read(format);

	ck_assert_str_eq(text, "shardfs-store 1\n");
	free(text);
	text = check_read(owner);
	snprintf(expected, sizeof(expected), " pid=%d purpose=a test\n", (int)getpid());
	ck_assert_int_eq(strncmp(text, "host=", 5), 0);
	ck_assert_ptr_nonnull(strstr(text, expected));
	free(text);
	ck_assert_int_eq(count_entries(), 4);
	kv_store_close(s);
	free(format);
	free(owner);
}
END_TEST

START_TEST(a_second_owner_is_refused_with_a_sentence_naming_the_first)
{
	struct kv_store *s = open_ok(false);
	struct kv_err err = {0};
	char pid[32];

	open_fails(false, KV_BUSY, &err);
	snprintf(pid, sizeof(pid), "pid=%d", (int)getpid());
	ck_assert_ptr_nonnull(strstr(err.msg, pid));
	ck_assert_ptr_nonnull(strstr(err.msg, "purpose=a test"));
	ck_assert_ptr_nonnull(strstr(err.detail, pid));

	pid_t child = fork();

	if (child == 0) {
		struct kv_store *t;
		const char *told =
			kv_store_embedded_open(dir, false, "x", &t, NULL) == KV_BUSY ? "true" : "false";

		execlp(told, told, (char *)NULL); /* to valgrind, what a fork has open at its exit is lost */
		_exit(2);
	}

	int status;

	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	want_cas(kv_store_consensus(s), "k", 0, 1, "v", KV_OK);
	kv_store_close(s);
	kv_store_close(open_ok(false));
}
END_TEST

START_TEST(a_reader_sits_beside_the_owner_and_changes_nothing)
{
	struct kv_usage u;

	make_with_state();

	struct kv_store *s = open_ok(false), *r = open_ok(true);

	ck_assert(kv_store_traits(r).read_only && !kv_store_traits(r).sole_owner);
	/* Else it looks for the owner's writes, 20 times a second. */
	kv_store_keep_still(r, true);
	expect_state(r);
	want_cas(kv_store_consensus(s), "k", 1, 2, "w", KV_OK);
	expect_state(r);
	ck_assert_int_eq(kv_store_commit(r, "k", 1, 2, "x", 1, NULL, 0, KV_SYNC, NULL), KV_READONLY);
	want_cas(kv_store_consensus(r), "k", 1, 2, "x", KV_READONLY);
	want_set(kv_store_blobs(r), "q", "x", KV_READONLY);
	ck_assert_int_eq(kv_blob_delete(kv_store_blobs(r), "p/2", NULL, NULL, NULL), KV_READONLY);
	ck_assert_int_eq(kv_store_usage(r, &u, NULL), KV_OK);
	ck_assert_uint_gt(u.total_bytes, 0);
	kv_store_close(r);
	kv_store_close(s);
}
END_TEST

/* Names, sizes and times of change of a directory, as one number. */
static uint64_t fingerprint(const char *path)
{
	DIR *d = opendir(path);
	uint64_t sum = 0;

	for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
		struct stat st;
		uint64_t h = 14695981039346656037u;

		for (const char *p = e->d_name; *p; p++)
			h = (h ^ (unsigned char)*p) * 1099511628211u;
		if (strcmp(e->d_name, "..") != 0 && fstatat(dirfd(d), e->d_name, &st, 0) == 0)
			sum += h ^ (uint64_t)st.st_size ^ (uint64_t)st.st_mtim.tv_nsec;
	}
	closedir(d);
	return sum;
}

START_TEST(a_reader_leaves_no_trace)
{
	char *consensus = check_path(dir, "consensus");

	make_with_state();

	uint64_t before = fingerprint(dir), inside = fingerprint(consensus);

	struct kv_store *r = open_ok(true);

	expect_state(r);
	kv_store_close(r);
	ck_assert_uint_eq(fingerprint(dir), before);
	ck_assert_uint_eq(fingerprint(consensus), inside);
	free(consensus);
}
END_TEST

START_TEST(a_reader_finds_no_store_where_none_is_and_makes_none)
{
	struct kv_err err = {0};

	open_fails(true, KV_NOTFOUND, &err);
	ck_assert_int_eq(count_entries(), 0);
	write_in("OWNER", "");
	open_fails(true, KV_NOTFOUND, &err);
	check_rmtree(dir);
	open_fails(true, KV_NOTFOUND, &err);
}
END_TEST

START_TEST(a_newer_format_is_refused_naming_both)
{
	struct kv_err err = {0};

	make_with_state();
	write_in("FORMAT", "shardfs-store 27\n");
	open_fails(false, KV_NEWER, &err);
	ck_assert_ptr_nonnull(strstr(err.msg, "27"));
	ck_assert_ptr_nonnull(strstr(err.msg, "knows 1"));
	open_fails(true, KV_NEWER, &err);
	write_in("FORMAT", "shardfs-store 1\n");

	struct kv_store *s = open_ok(false);

	expect_state(s);
	kv_store_close(s);
}
END_TEST

START_TEST(a_garbled_format_is_refused)
{
	static const char *const texts[] = {"",
					    "shardfs-store 1",
					    "shardfs-store \n",
					    "shardfs-store 0\n",
					    "shardfs-store 1x\n",
					    "shardfs-store 1\n\n",
					    "another-store 1\n",
					    "shardfs-store 99999999999999999999\n"};
	struct kv_err err = {0};

	make_with_state();
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		write_in("FORMAT", texts[i]);
		open_fails(false, KV_CORRUPT, &err);
		open_fails(true, KV_CORRUPT, &err);
	}
}
END_TEST

START_TEST(a_directory_with_other_things_is_refused_and_left_alone)
{
	struct kv_err err = {0};

	write_in("thesis.tex", "x");
	open_fails(false, KV_NOTFOUND, &err);
	ck_assert_ptr_nonnull(strstr(err.msg, "holds no shardfs store and is not empty"));
	open_fails(true, KV_NOTFOUND, &err);
	ck_assert_int_eq(count_entries(), 1);

	char *blobs_dir = check_path(dir, "blobs"), *file = check_path(dir, "thesis.tex");

	ck_assert_int_eq(rename(file, blobs_dir), 0);
	open_fails(false, KV_NOTFOUND, &err);
	ck_assert_int_eq(count_entries(), 1);
	free(blobs_dir);
	free(file);
}
END_TEST

START_TEST(a_file_is_no_store)
{
	struct kv_err err = {0};

	ck_assert_int_eq(rmdir(dir), 0);
	check_write(dir, "x");
	open_fails(false, KV_CORRUPT, &err);
	open_fails(true, KV_CORRUPT, &err);
}
END_TEST

START_TEST(lost_and_found_does_not_make_a_directory_foreign)
{
	char *path = check_path(dir, "lost+found");

	ck_assert_int_eq(mkdir(path, 0700), 0);
	kv_store_close(open_ok(false));
	kv_store_close(open_ok(false));
	free(path);
}
END_TEST

/* As after a crash at each step of making: FORMAT is the last of them. */
START_TEST(a_half_made_store_is_resumed)
{
	static const char *const steps[] = {"OWNER", "blobs", "consensus", "FORMAT.tmp"};

	for (int i = 0; i <= _i; i++) {
		char *path = check_path(dir, steps[i]);

		if (i == 1 || i == 2)
			ck_assert_int_eq(mkdir(path, 0700), 0);
		else
			check_write(path, i ? "shardf" : "");
		free(path);
	}
	make_with_state();

	struct kv_store *s = open_ok(false);

	expect_state(s);
	kv_store_close(s);
}
END_TEST

START_TEST(a_store_whose_database_is_gone_is_not_made_anew)
{
	struct kv_err err = {0};
	char *path = check_path(dir, _i ? "blobs" : "consensus");

	make_with_state();
	check_rmtree(path);
	open_fails(false, KV_CORRUPT, &err);
	open_fails(true, KV_CORRUPT, &err);
	free(path);
}
END_TEST

START_TEST(small_blobs_of_a_commit_are_no_files_and_others_are)
{
	char *small = check_path(dir, "blobs/data/p/1"), *large = check_path(dir, "blobs/data/p/2");

	make_with_state();
	ck_assert_int_ne(access(small, F_OK), 0);
	ck_assert_int_eq(access(large, F_OK), 0);
	free(small);
	free(large);
}
END_TEST

START_TEST(no_descriptor_survives_closing_or_a_refusal)
{
	struct kv_err err = {0};

	make_with_state();

	int before = open("/dev/null", O_RDONLY);

	close(before);
	for (int i = 0; i < 3; i++) {
		kv_store_close(open_ok(false));
		kv_store_close(open_ok(true));
		write_in("FORMAT", "x");
		open_fails(false, KV_CORRUPT, &err);
		write_in("FORMAT", "shardfs-store 1\n");
	}

	int after = open("/dev/null", O_RDONLY);

	close(after);
	ck_assert_int_eq(after, before);
}
END_TEST

/* Needs a mount of its own; where that is not allowed there is nothing to see. */
START_TEST(a_full_device_refuses_growth_and_still_reads_and_deletes)
{
	static char filler[1 << 20];
	uid_t uid = getuid();

	/* Root can do it, and must: who cannot has not run this test. */
	if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0 ||
	    mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", dir, "tmpfs", 0, "size=64m") != 0) {
		ck_assert_msg(uid != 0, "no small device could be made: %s", strerror(errno));
		return;
	}

	struct kv_store *s = open_ok(false);
	uint64_t seqno = 0, removed;
	enum kv_rc rc = KV_OK;
	char key[32];

	for (int i = 0; i < 100 && rc == KV_OK; i++) {
		snprintf(key, sizeof(key), "p/%03d", i);
		rc = kv_blob_set(kv_store_blobs(s), key, filler, sizeof(filler), NULL);
	}
	ck_assert_int_eq(rc, KV_NOSPACE);
	do {
		rc = kv_consensus_compare_and_set(kv_store_consensus(s), "k", seqno, seqno + 1, filler,
						  64 << 10, KV_SYNC, NULL);
		seqno += rc == KV_OK;
	} while (rc == KV_OK);
	ck_assert_int_eq(rc, KV_NOSPACE);
	ck_assert_str_eq(keys(kv_store_consensus(s), "", 9), "k");
	kv_store_close(s);
	s = open_ok(false);
	want_blob(kv_store_blobs(s), key, NULL);
	ck_assert_int_eq(kv_consensus_truncate(kv_store_consensus(s), "k", seqno, &removed, NULL), KV_OK);
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "p/%03d", i);
		ck_assert_int_eq(kv_blob_delete(kv_store_blobs(s), key, NULL, NULL, NULL), KV_OK);
	}
	want_cas(kv_store_consensus(s), "k", seqno, seqno + 1, "v", KV_OK);
	kv_store_close(s);
	ck_assert_int_eq(umount(dir), 0);
}
END_TEST

Suite *store_embedded_suite(void)
{
	Suite *s = suite_create("kv/store_embedded");
	TCase *t = tcase_create("embedded");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, reopen_sees_everything);
	tcase_add_test(t, a_missing_directory_is_made_private_but_not_its_parent);
	tcase_add_test(t, the_files_are_those_of_the_table);
	tcase_add_test(t, a_second_owner_is_refused_with_a_sentence_naming_the_first);
	tcase_add_test(t, a_reader_sits_beside_the_owner_and_changes_nothing);
	tcase_add_test(t, a_reader_leaves_no_trace);
	tcase_add_test(t, a_reader_finds_no_store_where_none_is_and_makes_none);
	tcase_add_test(t, a_newer_format_is_refused_naming_both);
	tcase_add_test(t, a_garbled_format_is_refused);
	tcase_add_test(t, a_directory_with_other_things_is_refused_and_left_alone);
	tcase_add_test(t, a_file_is_no_store);
	tcase_add_test(t, lost_and_found_does_not_make_a_directory_foreign);
	tcase_add_loop_test(t, a_half_made_store_is_resumed, 0, 4);
	tcase_add_loop_test(t, a_store_whose_database_is_gone_is_not_made_anew, 0, 2);
	tcase_add_test(t, small_blobs_of_a_commit_are_no_files_and_others_are);
	tcase_add_test(t, no_descriptor_survives_closing_or_a_refusal);
	tcase_add_test(t, a_full_device_refuses_growth_and_still_reads_and_deletes);
	suite_add_tcase(s, t);
	return s;
}
