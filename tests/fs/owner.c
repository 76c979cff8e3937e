/* owner.c - who may do what, and what may not be made, moved or removed at all. */
#include "tests/fs/world.h"

#include <dirent.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

enum { ALICE = 4001, BOB = 4002, GROUP = 4002 };

static struct world w;
static char *shard;

static void setup(void)
{
	world_new(&w);
	world_start(&w, "allow_other");
	shard = shard_new(&w);
}

static void teardown(void)
{
	free(shard);
	world_close(&w);
}

/* --- what others try; the path is the argument, the errno the result ------------------------------- */

static int do_mkdir(void *path)
{
	umask(027);
	return mkdir(path, 0777) == 0 ? 0 : errno;
}

static int do_read(void *path)
{
	char *text = slurp_rc(path);

	return text != NULL ? 0 : errno;
}

static int do_append(void *dir)
{
	return write_once(at(dir, "append"), "begin expected_upper=* new_upper=+1\ncommit\n");
}

static int do_since(void *dir)
{
	return write_once(at(dir, "since"), "0\n");
}

static int do_rmdir(void *path)
{
	return rmdir(path) == 0 ? 0 : errno;
}

static int do_list(void *path)
{
	DIR *dir = opendir(path);

	return dir != NULL ? 0 : errno;
}

static int do_chmod(void *path)
{
	return chmod(path, 0777) == 0 ? 0 : errno;
}

static int do_chown(void *path)
{
	return chown(path, ALICE, ALICE) == 0 ? 0 : errno;
}

static int do_utimes(void *path)
{
	return utimensat(AT_FDCWD, path, NULL, 0) == 0 ? 0 : errno;
}

static int do_unlink(void *path)
{
	return unlink(path) == 0 ? 0 : errno;
}

static void want_owner(const char *path, unsigned uid, unsigned gid, mode_t mode)
{
	struct stat st;

	ck_works(stat(path, &st));
	ck_assert_msg(st.st_uid == uid && st.st_gid == gid && (st.st_mode & 07777) == mode, "%s: %u %u %o",
		      path, st.st_uid, st.st_gid, st.st_mode);
}

START_TEST(a_shard_belongs_to_who_made_it_and_keeps_that)
{
	char *id = shard_id(), *mine;

	ck_assert_int_ge(asprintf(&mine, "%s/shard/%s", w.mnt, id), 0);
	ck_errno(as_user(ALICE, do_mkdir, mine), 0);
	want_owner(mine, ALICE, ALICE, 0750);
	want_owner(at(mine, "append"), ALICE, ALICE, 0640);
	want_owner(at(mine, "snapshot"), ALICE, ALICE, 0440);
	want_owner(at(mine, "batches"), ALICE, ALICE, 0750);
	ck_errno(as_user(ALICE, do_append, mine), 0);
	ck_errno(as_user(ALICE, do_since, mine), 0);
	ck_errno(as_user(BOB, do_append, mine), EACCES);
	ck_errno(as_user(BOB, do_list, mine), EACCES);
	world_kill(&w);
	world_start(&w, "allow_other");
	want_owner(mine, ALICE, ALICE, 0750);
	ck_errno(as_user(ALICE, do_append, mine), 0);
	ck_errno(as_user(BOB, do_append, mine), EACCES);
	ck_errno(as_user(BOB, do_rmdir, mine), EPERM); /* sticky */
	ck_errno(as_user(BOB, do_chmod, mine), EPERM);
	want_txn(mine, "begin expected_upper=* new_upper=- since=-\ncommit\n");
	ck_errno(as_user(BOB, do_rmdir, mine), EPERM);
	ck_errno(as_user(ALICE, do_rmdir, mine), 0);
	free(mine);
	free(id);
}
END_TEST

START_TEST(mode_governs_the_files_r_to_read_w_to_write)
{
	char *snapshot = check_path(shard, "snapshot"), *upper = check_path(shard, "upper");

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	ck_errno(as_user(BOB, do_read, snapshot), 0);
	ck_errno(as_user(BOB, do_append, shard), EACCES);
	ck_errno(as_user(BOB, do_since, shard), EACCES);
	ck_works(chmod(shard, 0757));
	ck_errno(as_user(BOB, do_append, shard), 0);
	ck_errno(as_user(BOB, do_since, shard), 0);
	ck_works(chmod(shard, 0753)); /* -wx: write, not read */
	ck_errno(as_user(BOB, do_append, shard), 0);
	ck_errno(as_user(BOB, do_read, snapshot), EACCES);
	ck_errno(as_user(BOB, do_read, upper), EACCES);
	ck_errno(as_user(BOB, do_list, shard), EACCES);
	ck_works(chmod(shard, 0754)); /* r--: seen, not entered */
	ck_errno(as_user(BOB, do_read, upper), EACCES);
	ck_errno(as_user(BOB, do_list, shard), 0);
	ck_works(chmod(shard, 02750));
	want_owner(shard, 0, 0, 02750);
	ck_errno(as_user(BOB, do_append, shard), EACCES);
	ck_works(chown(shard, 0, GROUP));
	ck_works(chmod(shard, 0770));
	ck_errno(as_user(BOB, do_append, shard), 0);
	ck_works(chown(shard, BOB, 0));
	ck_works(chmod(shard, 0700));
	ck_errno(as_user(BOB, do_append, shard), 0);
	ck_errno(as_user(ALICE, do_append, shard), EACCES);
	world_stop(&w);
	world_start(&w, "allow_other");
	want_owner(shard, BOB, 0, 0700);
	ck_errno(as_user(BOB, do_append, shard), 0);
	ck_errno(as_user(ALICE, do_append, shard), EACCES);
	ck_errno(as_user(BOB, do_chmod, shard), 0);
	ck_errno(as_user(BOB, do_chown, shard), EPERM);
	want_owner(shard, BOB, 0, 0777);
	free(snapshot);
	free(upper);
}
END_TEST

START_TEST(chmod_counts_from_the_next_open_on)
{
	int fd = append_open(shard);

	ck_works(chmod(shard, 0500));
	ck_assert_int_gt(put(fd, "begin expected_upper=0 new_upper=1\ncommit\n"), 0); /* as everywhere */
	close(fd);
	for (int i = 0; i < 20; i++) {
		ck_works(chmod(shard, 0777));
		ck_errno(as_user(BOB, do_append, shard), 0);
		ck_works(chmod(shard, 0755));
		ck_errno(as_user(BOB, do_append, shard), EACCES);
	}
}
END_TEST

START_TEST(modes_times_and_lengths_of_control_files_are_taken_and_ignored)
{
	static const char *const names[] = {"append", "since"};
	struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 6}};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char *path = check_path(shard, names[i]);

		ck_works(chmod(path, 0600));
		ck_works(chown(path, BOB, BOB));
		ck_works(utimensat(AT_FDCWD, path, times, 0));
		ck_works(truncate(path, 0));
		ck_works(truncate(path, 5000));
		want_owner(path, 0, 0, 0644);
		free(want_sh("touch %s", path));
		ck_errno(as_user(BOB, do_chmod, path), EPERM);
		ck_errno(as_user(BOB, do_utimes, path), EACCES);
		free(path);
	}
	ck_works(chmod(at(shard, "upper"), 0600));
	want_owner(at(shard, "upper"), 0, 0, 0444);
	ck_works(utimensat(AT_FDCWD, shard, times, 0));
	want_file(shard, "since", "0\n");
	want_file(shard, "errors", "");
	/* cp -p and dd seek= */
	check_write(at(w.dir, "t"), "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	free(want_sh("cp -p %s/t %s/append", w.dir, shard));
	check_write(at(w.dir, "t"), "begin expected_upper=1 new_upper=2\n1\t1\ta\tb\ncommit\n");
	free(want_sh("dd if=%s/t of=%s/append bs=7 seek=3 status=none", w.dir, shard));
	want_file(shard, "snapshot", "1\t2\ta\tb\n");
}
END_TEST

START_TEST(fixed_files_stay)
{
	static const char *const names[] = {"README",     "metrics",   "shard",         "name",
					    "S",          "S/upper",   "S/since",       "S/append",
					    "S/snapshot", "S/ctl",     "S/errors",      "S/state",
					    "S/as_of",    "S/batches", "S/batches/0-1", "S/as_of/0"};
	char *before, *after;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	before = want_sh("cd %s && find . | sort", w.mnt);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char *path =
			names[i][0] == 'S' ? check_path(shard, names[i] + 1) : check_path(w.mnt, names[i]);
		struct stat st;

		ck_works(stat(path, &st));
		if (S_ISDIR(st.st_mode)) {
			if (names[i][0] == 'S' && names[i][1] == '\0')
				ck_fails(rmdir(path), ENOTEMPTY);
			else
				ck_fails(rmdir(path), EPERM);
		} else {
			ck_fails(unlink(path), EPERM);
		}
		ck_fails(rename(path, at(w.mnt, "elsewhere")), EPERM);
		if (!S_ISDIR(st.st_mode)) { /* a directory into itself is EINVAL already */
			ck_fails(rename(path, at(w.mnt, "name/elsewhere")), EPERM);
			ck_fails(rename(path, at(shard, "elsewhere")), EPERM);
			ck_fails(link(path, at(shard, "other")), EPERM);
		}
		free(path);
	}
	ck_fails(rename(at(shard, "upper"), at(shard, "append")), EPERM);
	ck_fails(renameat2(AT_FDCWD, at(shard, "upper"), AT_FDCWD, at(shard, "since"), RENAME_EXCHANGE),
		 EPERM);
	ck_assert_int_ne(sh(NULL, "rm -rf %s", shard), 0);
	after = want_sh("cd %s && find . | sort", w.mnt);
	ck_assert_str_eq(after, before);
	want_file(shard, "snapshot", "0\t1\ta\tb\n");
	free(before);
	free(after);
}
END_TEST

START_TEST(stray_files_are_refused_and_leave_nothing)
{
	static const char *const dirs[] = {".", "name", "shard", "S", "S/as_of"};
	char *before = want_sh("cd %s && find . | sort", w.mnt), *after;

	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
		char *dir = dirs[i][0] == 'S' ? check_path(shard, dirs[i] + 1) : check_path(w.mnt, dirs[i]);
		char *path = check_path(dir, "stray");

		ck_fails(open(path, O_CREAT | O_WRONLY, 0644), EPERM);
		ck_fails(open(path, O_CREAT | O_EXCL | O_RDWR, 0644), EPERM);
		ck_fails(mknod(path, S_IFIFO | 0644, 0), EPERM);
		ck_fails(mknod(path, S_IFREG | 0644, 0), EPERM);
		ck_fails(link(at(shard, "upper"), path), EPERM);
		ck_fails(mkdir(path, 0755), strcmp(dirs[i], "shard") == 0 ? EINVAL : EPERM);
		if (strcmp(dirs[i], "name") != 0)
			ck_fails(symlink(shard, path), EPERM);
		ck_fails(open(dir, O_TMPFILE | O_RDWR, 0644), EOPNOTSUPP);
		ck_fails(open(path, O_RDONLY), ENOENT);
		free(path);
		free(dir);
	}
	ck_assert_int_ne(sh(NULL, "sed -i s/0/1/ %s/since", shard), 0);
	ck_assert_int_ne(sh(NULL, "touch %s/new", shard), 0);
	ck_assert_int_ne(sh(NULL, "cp /etc/passwd %s/", shard), 0);
	ck_assert_int_ne(sh(NULL, "mv %s/README %s/README", w.mnt, w.dir), 0);
	ck_assert_int_ne(sh(NULL, "install -m 644 /etc/hostname %s/append", shard), 0);
	after = want_sh("cd %s && find . | sort", w.mnt);
	ck_assert_str_eq(after, before);
	want_file(shard, "upper", "0\n");
	free(before);
	free(after);
}
END_TEST

START_TEST(ids_of_shards)
{
	static const char *const bad[] = {"x",
					  "s",
					  "s123",
					  "S0b5b5c3e-0000-4000-8000-000000000000",
					  "s0B5B5C3E-0000-4000-8000-000000000000",
					  "0b5b5c3e-0000-4000-8000-000000000000",
					  "s0b5b5c3e-0000-4000-8000-00000000000",
					  "s0b5b5c3e-0000-4000-8000-0000000000000",
					  "s0b5b5c3e00000400080000000000000000",
					  "s0b5b5c3g-0000-4000-8000-000000000000",
					  "i0b5b5c3e-0000-4000-8000-000000000000",
					  "s{0b5b5c3e-0000-4000-8000-000000000000}"};
	char *dir = check_path(w.mnt, "shard");

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_fails(mkdir(at(dir, bad[i]), 0755), EINVAL);
	ck_fails(mkdir(shard, 0755), EEXIST);
	ck_fails(mkdir(at(w.mnt, "shard"), 0755), EEXIST);
	ck_works(mkdir(at(dir, "s00000000-0000-0000-0000-000000000000"), 0755));
	free(dir);
}
END_TEST

START_TEST(rmdir_needs_the_end_and_takes_all)
{
	char *out;

	want_txn(shard, "begin expected_upper=0 new_upper=5\n0\t1\ta\tb\ncommit\n");
	ck_fails(rmdir(shard), ENOTEMPTY);
	ck_errno(write_once(at(shard, "since"), "-"), 0);
	ck_fails(rmdir(shard), ENOTEMPTY);
	want_txn(shard, "begin expected_upper=5 new_upper=-\ncommit\n");
	world_stop(&w);
	world_start(&w, "allow_other");
	ck_works(rmdir(shard));
	ck_fails(rmdir(shard), ENOENT);
	ck_fails(open(at(shard, "upper"), O_RDONLY), ENOENT);
	out = want_sh("ls %s/shard", w.mnt);
	ck_assert_str_eq(out, "");
	free(out);
	world_kill(&w);
	world_start(&w, "allow_other");
	ck_fails(access(shard, F_OK), ENOENT);
	ck_works(mkdir(shard, 0700));
	want_file(shard, "upper", "0\n");
	want_file(shard, "since", "0\n");
	want_file(shard, "errors", "");
}
END_TEST

START_TEST(errors_of_a_removed_shard_are_gone)
{
	ck_errno(txn(shard, "begin expected_upper=7 new_upper=8\ncommit\n"), ESTALE);
	want_txn(shard, "begin expected_upper=0 new_upper=- since=-\ncommit\n");
	ck_works(rmdir(shard));
	ck_works(mkdir(shard, 0755));
	want_file(shard, "errors", "");
}
END_TEST

START_TEST(a_thousand_shards_are_listed_each_once)
{
	enum { COUNT = 1200 };
	char *out;

	for (int i = 1; i < COUNT; i++)
		free(shard_new(&w));
	out = want_sh("ls %s/shard | sort -u | wc -l; ls -U %s/shard | wc -l; find %s/shard -mindepth 1 "
		      "-maxdepth 1 -type d | wc -l",
		      w.mnt, w.mnt, w.mnt);
	ck_assert_str_eq(out, "1200\n1200\n1200\n");
	free(out);
}
END_TEST

START_TEST(st_ino_of_append_is_constant)
{
	struct stat a, b, c;
	int fd = append_open(shard);

	ck_works(stat(at(shard, "append"), &a));
	ck_works(stat(at(shard, "append"), &b));
	ck_works(fstat(fd, &c));
	ck_assert_uint_eq(a.st_ino, b.st_ino);
	ck_assert_uint_eq(a.st_ino, c.st_ino);
	ck_assert_int_ge(a.st_blksize, 1 << 20);
	close(fd);
}
END_TEST

START_TEST(others_cannot_remove_names_or_root_files)
{
	char *name = check_path(w.mnt, "name/mine"), *readme = check_path(w.mnt, "README");

	ck_works(symlink(shard, name));
	ck_errno(as_user(BOB, do_unlink, name), EPERM); /* sticky */
	ck_assert_int_ne(as_user(BOB, do_unlink, readme), 0);
	ck_works(access(readme, F_OK));
	free(name);
	free(readme);
}
END_TEST

Suite *owner_suite(void)
{
	Suite *s = suite_create("owners");
	TCase *tc = world_case(s, "owners", 120);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_shard_belongs_to_who_made_it_and_keeps_that);
	tcase_add_test(tc, mode_governs_the_files_r_to_read_w_to_write);
	tcase_add_test(tc, chmod_counts_from_the_next_open_on);
	tcase_add_test(tc, modes_times_and_lengths_of_control_files_are_taken_and_ignored);
	tcase_add_test(tc, fixed_files_stay);
	tcase_add_test(tc, stray_files_are_refused_and_leave_nothing);
	tcase_add_test(tc, ids_of_shards);
	tcase_add_test(tc, rmdir_needs_the_end_and_takes_all);
	tcase_add_test(tc, errors_of_a_removed_shard_are_gone);
	tcase_add_test(tc, a_thousand_shards_are_listed_each_once);
	tcase_add_test(tc, st_ino_of_append_is_constant);
	tcase_add_test(tc, others_cannot_remove_names_or_root_files);
	return s;
}
