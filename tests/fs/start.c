/* start.c - starting and stopping: interface.md section 2. */
#include "tests/fs/world.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct world w;

static void setup(void)
{
	world_new(&w);
}

static void teardown(void)
{
	world_close(&w);
}

/* The command must fail with one sentence that has `part` in it, and leave nothing mounted. */
static void want_refused(const char *part, const char *args)
{
	char *out;
	int status = sh(&out, "%s %s", shardfs_path(), args);

	ck_assert_msg(status != 0, "shardfs %s worked", args);
	ck_assert_msg(status < 126, "shardfs %s: exit %d", args, status);
	ck_assert_msg(count_lines(out) == 1 && out[strlen(out) - 1] == '\n', "%s: not one sentence: \"%s\"", args,
		      out);
	ck_assert_msg(strncmp(out, "shardfs: ", 9) == 0 && strstr(out, part) != NULL, "%s: \"%s\" without \"%s\"",
		      args, out, part);
	ck_assert(!is_mounted(w.mnt));
	free(out);
}

static void want_refused_both(const char *part, const char *options)
{
	char args[2048];

	snprintf(args, sizeof args, "%s %s %s", options, w.store, w.mnt);
	want_refused(part, args);
	snprintf(args, sizeof args, "-f %s %s %s", options, w.store, w.mnt);
	want_refused(part, args);
}

START_TEST(it_answers_when_it_returns)
{
	for (int i = 0; i < 5; i++) {
		char *text;
		struct stat st;
		pid_t pid;

		ck_assert_int_eq(sh(NULL, "%s %s %s", shardfs_path(), w.store, w.mnt), 0);
		ck_works(stat(at(w.mnt, "shard"), &st));
		text = slurp(at(w.mnt, "README"));
		ck_assert_int_eq(strlen(text), 0 + (ck_assert(stat(at(w.mnt, "README"), &st) == 0), st.st_size));
		free(text);
		pid = world_find(&w);
		ck_assert_int_ne(pid, 0);
		w.pid = pid;
		world_stop(&w);
	}
}
END_TEST

START_TEST(missing_or_too_many_words_are_refused)
{
	char args[1024];

	want_refused("", "");
	want_refused("", w.store);
	snprintf(args, sizeof args, "%s %s third", w.store, w.mnt);
	want_refused("", args);
	ck_assert_int_ne(access(w.store, F_OK), 0);
}
END_TEST

START_TEST(unknown_options_are_refused)
{
	want_refused_both("nonsense", "-o nonsense");
	want_refused_both("nonsense", "-o ro,nonsense=3");
	want_refused_both("", "--nonsense");
	want_refused_both("", "-o uid=someone");
	want_refused_both("", "-o umask=9");
	want_refused_both("", "-o gid=");
}
END_TEST

START_TEST(a_mountpoint_that_is_none_is_refused)
{
	char args[2048];

	snprintf(args, sizeof args, "%s %s/nowhere", w.store, w.dir);
	want_refused("nowhere", args);
	snprintf(args, sizeof args, "%s %s/no/where", w.store, w.dir);
	want_refused("where", args);
	check_write(at(w.dir, "file"), "text");
	snprintf(args, sizeof args, "%s %s/file", w.store, w.dir);
	want_refused("file", args);
	free(want_sh("grep -q text %s/file", w.dir));
	ck_assert_int_ne(access(w.store, F_OK), 0); /* a start that is refused makes no store */
}
END_TEST

START_TEST(a_foreign_directory_is_no_store)
{
	ck_works(mkdir(w.store, 0755));
	check_write(at(w.store, "letter"), "dear");
	want_refused_both(w.store, "");
	ck_assert_int_eq(sh(NULL, "%s fsck %s", shardctl_path(), w.store), 4); /* 1 is damage */
	char *out = want_sh("ls -A %s", w.store);

	ck_assert_str_eq(out, "letter\n");
	free(out);
}
END_TEST

START_TEST(a_store_is_made_but_not_the_directory_it_is_in)
{
	char args[2048];

	snprintf(args, sizeof args, "%s/no/store %s/nowhere", w.dir, w.dir);
	want_refused("/no/store: No such file or directory", args);
}
END_TEST

START_TEST(a_store_that_is_no_directory_is_refused)
{
	check_write(w.store, "text");
	want_refused_both(w.store, "");
}
END_TEST

START_TEST(a_store_in_use_is_refused_with_its_holders_pid)
{
	char args[1024], holder[32];
	char *mnt2 = check_path(w.dir, "mnt2");

	world_start(&w, NULL);
	ck_works(mkdir(mnt2, 0755));
	snprintf(args, sizeof args, "%s %s >%s/out 2>&1", w.store, mnt2, w.dir);
	ck_assert_int_ne(sh(NULL, "%s %s", shardfs_path(), args), 0);
	char *out = slurp(at(w.dir, "out"));

	snprintf(holder, sizeof holder, "pid=%d", (int)w.pid);
	ck_assert_msg(strstr(out, holder) != NULL && count_lines(out) == 1, "%s", out);
	ck_assert(!is_mounted(mnt2));
	free(out);
	free(mnt2);
}
END_TEST

START_TEST(a_mountpoint_in_use_is_refused)
{
	char *store2 = check_path(w.dir, "store2"), *out;

	world_start(&w, NULL);
	ck_assert_int_ne(sh(&out, "%s %s %s", shardfs_path(), store2, w.mnt), 0);
	ck_assert_msg(count_lines(out) == 1 && strstr(out, w.mnt) != NULL, "%s", out);
	free(out);
	free(slurp(at(w.mnt, "README")));
	free(store2);
}
END_TEST

START_TEST(store_and_mountpoint_must_not_lie_within_each_other)
{
	char args[1024];

	snprintf(args, sizeof args, "%s/store %s", w.mnt, w.mnt);
	want_refused("within", args);
	snprintf(args, sizeof args, "%s %s", w.mnt, w.mnt);
	want_refused("within", args);
	snprintf(args, sizeof args, "%s %s", w.dir, w.mnt);
	want_refused("within", args);
	ck_works(symlink(w.mnt, at(w.dir, "link")));
	snprintf(args, sizeof args, "%s/link/store %s", w.dir, w.mnt);
	want_refused("within", args);
	snprintf(args, sizeof args, "%s/store %s/link", w.mnt, w.dir);
	want_refused("within", args);
}
END_TEST

START_TEST(the_options_of_fstab_and_systemd_are_accepted)
{
	world_start(&w, "_netdev,noauto,nofail,x-systemd.automount,x-systemd.requires=net,comment=hello,defaults,user,"
			"rw,nosuid,nodev,noexec,noatime,relatime,default_permissions,auto,exec,suid,dev");
	free(slurp(at(w.mnt, "README")));
	world_stop(&w);
}
END_TEST

START_TEST(uid_gid_umask_and_fsname_have_effect)
{
	struct stat st;

	world_start(&w, "uid=65534,gid=7,umask=027,fsname=my_store,allow_other");
	for (int i = 0; i < 3; i++) {
		ck_works(stat(i == 0 ? w.mnt : at(w.mnt, i == 1 ? "shard" : "name"), &st));
		ck_assert_uint_eq(st.st_uid, 65534);
		ck_assert_uint_eq(st.st_gid, 7);
		ck_assert_uint_eq(st.st_mode & 0777 & 027, 0);
		ck_assert_uint_eq(st.st_mode & 0750, 0750);
	}
	ck_works(stat(at(w.mnt, "README"), &st));
	ck_assert_uint_eq(st.st_mode & 07777, 0440);
	char *line = want_sh("grep ' %s ' /proc/self/mounts", w.mnt);

	ck_assert_msg(strncmp(line, "my_store ", 9) == 0 && strstr(line, " fuse.shardfs ") != NULL, "%s", line);
	ck_assert_msg(strstr(line, "default_permissions") != NULL && strstr(line, "allow_other") != NULL, "%s", line);
	free(line);
	world_stop(&w);
}
END_TEST

static int read_readme(void *arg)
{
	int fd = open(at(arg, "README"), O_RDONLY);

	return fd < 0 ? errno : 0;
}

static int write_append(void *arg)
{
	return write_once(at(arg, "append"), "begin expected_upper=0 new_upper=1\ncommit\n");
}

START_TEST(without_allow_other_others_see_nothing)
{
	world_start(&w, NULL);
	ck_errno(as_user(65534, read_readme, w.mnt), EACCES);
}
END_TEST

START_TEST(allow_other_brings_default_permissions)
{
	world_start(&w, "allow_other");
	char *shard = shard_new(&w);

	ck_errno(as_user(65534, read_readme, w.mnt), 0);
	ck_errno(as_user(65534, write_append, shard), EACCES);
	want_file(shard, "upper", "0\n");
	free(shard);
}
END_TEST

START_TEST(mount_of_util_linux_works)
{
	char *out = want_sh("mount -t fuse '%s#%s' %s -o _netdev,noauto,x-systemd.automount,comment=x,allow_other",
			    shardfs_path(), w.store, w.mnt);

	free(out);
	w.pid = world_find(&w);
	ck_assert_int_ne(w.pid, 0);
	ck_assert(is_mounted(w.mnt));
	free(slurp(at(w.mnt, "README")));
	free(want_sh("umount %s", w.mnt));
	ck_assert_int_eq(world_wait(&w), 0);
}
END_TEST

/* In a mount namespace of its own, where /usr/local/bin is a directory with our program in it. */
START_TEST(mount_with_the_type_fuse_shardfs_works)
{
	char *out;
	int status;

	ck_works(mkdir(at(w.dir, "bin"), 0755));
	ck_works(symlink(shardfs_path(), at(w.dir, "bin/shardfs")));
	status = sh(&out,
		    "unshare -m sh -ec 'mount --bind %s/bin /usr/local/bin; mkdir -p %s;"
		    "mount -t fuse.shardfs %s %s -o _netdev,umask=022,nofail; cat %s/README; umount %s'",
		    w.dir, w.store, w.store, w.mnt, w.mnt, w.mnt);
	ck_assert_msg(status == 0, "exit %d: %s", status, out);
	ck_assert_msg(strncmp(out, "shardfs", 7) == 0, "%s", out);
	free(out);
	/* In that namespace the process was ours all the same. */
	w.pid = world_find(&w);
	if (w.pid != 0)
		ck_assert_int_eq(world_wait(&w), 0);
}
END_TEST

static int read_as_of(void *arg)
{
	char buf[64];
	int fd = open(at(arg, "as_of/7"), O_RDONLY);

	if (fd < 0)
		return 254;
	return read(fd, buf, sizeof buf) < 0 ? errno : 253;
}

static void stops_at(int sig)
{
	world_start(&w, NULL);
	char *shard = shard_new(&w);
	int fd = append_open(shard);
	int cwd = open(shard, O_RDONLY | O_DIRECTORY);
	pid_t reader = spawn(read_as_of, shard);

	ck_assert_int_ge(cwd, 0);
	ck_assert_int_eq(put(fd, "begin expected_upper=0 new_upper=1\n0\t1\ta\t"), 41);
	want_in_call(reader, SYS_read);
	ck_works(kill(w.pid, sig));
	ck_assert_int_eq(world_wait(&w), 0);
	ck_assert(!is_mounted(w.mnt));
	ck_errno(join(reader), ESHUTDOWN);
	ck_assert_int_lt(put(fd, "b\ncommit\n"), 0);
	close(fd);
	close(cwd);
	world_start(&w, NULL);
	want_file(shard, "upper", "0\n");
	free(shard);
}

START_TEST(term_and_int_end_it_with_0_whatever_is_open)
{
	stops_at(SIGTERM);
	world_stop(&w);
	stops_at(SIGINT);
}
END_TEST

/* The one who waits for a start may go; the start goes on. */
START_TEST(a_parent_that_is_killed_does_not_take_the_mount_along)
{
	world_start(&w, NULL);
	/* It waits a while for the store, which we hold; when its child is there its parent is killed, and we let go.
	 * On a busy machine that while may be over before we have looked: then again. */
	free(want_sh("mkdir %s/two; c=; until [ -n \"$c\" ]; do $SHARDFS %s %s/two 2> /dev/null & p=$!;"
		     "while [ -z \"$c\" ] && kill -0 $p 2> /dev/null; do read c < /proc/$p/task/$p/children; done; done;"
		     "kill -9 $p; umount %s;"
		     "i=0; until [ -d %s/two/shard ]; do i=$((i + 1)); [ $i -lt 400 ] || exit 1; sleep 0.05; done;"
		     "umount %s/two",
		     w.dir, w.store, w.dir, w.mnt, w.dir, w.dir));
	w.pid = 0;
}
END_TEST

START_TEST(umount_ends_the_process_with_0)
{
	world_start(&w, NULL);
	ck_works(umount(w.mnt));
	ck_assert_int_eq(world_wait(&w), 0);
	world_start(&w, NULL);
	int fd = open(at(w.mnt, "README"), O_RDONLY);

	ck_works(umount2(w.mnt, MNT_DETACH));
	ck_works(kill(w.pid, 0));
	close(fd);
	ck_assert_int_eq(world_wait(&w), 0);
}
END_TEST

START_TEST(after_kill_9_it_starts_again_without_a_manual_step)
{
	world_start(&w, NULL);
	char *shard = shard_new(&w);

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	world_kill(&w);
	world_start(&w, NULL);
	want_file(shard, "snapshot", "0\t1\ta\tb\n");
	ck_assert_int_eq(sh(NULL, "test $(grep -c ' %s ' /proc/self/mounts) = 1", w.mnt), 0);
	free(shard);
}
END_TEST

START_TEST(after_kill_9_with_open_files_it_starts_again)
{
	char text[8];

	world_start(&w, NULL);
	char *shard = shard_new(&w);
	int fd = append_open(shard), dir = open(shard, O_RDONLY | O_DIRECTORY), upper = open(at(shard, "upper"), O_RDONLY);
	pid_t reader = spawn(read_as_of, shard);

	ck_assert(dir >= 0 && upper >= 0);
	ck_assert_int_gt(put(fd, "begin expected_upper=0 new_upper=1\n"), 0);
	want_in_call(reader, SYS_read);
	world_kill(&w);
	ck_errno(join(reader), ECONNABORTED);
	ck_assert_int_eq(put(fd, "commit\n"), -ENOTCONN);
	for (int i = 0; i < 3; i++) { /* and once more, over the first dead one */
		world_start(&w, NULL);
		want_file(shard, "upper", "0\n");
		ck_fails(read(upper, text, sizeof text), ENOTCONN);
		world_kill(&w);
	}
	world_start(&w, NULL);
	ck_assert_int_eq(sh(NULL, "test $(grep -c ' %s ' /proc/self/mounts) = 1", w.mnt), 0);
	close(fd);
	close(dir);
	close(upper);
	free(shard);
}
END_TEST

START_TEST(a_mountpoint_may_be_reached_by_a_link)
{
	struct world l = w;

	l.mnt = check_path(w.dir, "link");
	ck_works(symlink("mnt", l.mnt));
	for (int i = 0; i < 3; i++) {
		free(want_sh("%s %s %s", shardfs_path(), w.store, l.mnt));
		w.pid = world_find(&l);
		ck_assert_int_ne(w.pid, 0);
		ck_assert_int_eq(sh(NULL, "test $(grep -c ' %s ' /proc/self/mounts) = 1", w.mnt), 0);
		free(slurp(at(w.mnt, "README")));
		world_kill(&w);
	}
	world_start(&w, NULL);
	free(l.mnt);
}
END_TEST

START_TEST(in_the_foreground_it_stays)
{
	uint64_t since = 0;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execl(shardfs_path(), "shardfs", "-f", w.store, w.mnt, (char *)NULL);
		_exit(127);
	}
	while (until_deadline(&since) && !is_mounted(w.mnt))
		ck_assert_int_eq(waitpid(pid, &status, WNOHANG), 0);
	free(slurp(at(w.mnt, "README")));
	ck_assert_int_eq(waitpid(pid, &status, WNOHANG), 0);
	w.pid = pid;
	world_stop(&w);
}
END_TEST

START_TEST(a_second_process_may_read)
{
	struct world r = {.dir = w.dir, .store = w.store, .mnt = check_path(w.dir, "mnt2")};

	world_start(&w, NULL);
	char *shard = shard_new(&w), *there;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	ck_works(mkdir(r.mnt, 0755));
	world_start(&r, "ro");
	ck_assert_int_ge(asprintf(&there, "%s/shard/%s", r.mnt, strrchr(shard, '/') + 1), 0);
	want_file(there, "upper", "1\n");
	want_file(there, "snapshot", "0\t1\ta\tb\n");
	want_file(there, "batches/0-1", "0\t1\ta\tb\n");
	ck_fails(open(at(there, "append"), O_WRONLY), EROFS);
	ck_fails(mkdir(at(r.mnt, "shard/s0b5b5c3e-0000-4000-8000-000000000000"), 0755), EROFS);
	ck_fails(symlink(there, at(r.mnt, "name/x")), EROFS);
	ck_fails(rmdir(there), EROFS);
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\tc\td\ncommit\n");
	world_stop(&r);
	want_file(shard, "upper", "2\n");
	world_start(&r, "ro");
	want_file(there, "upper", "2\n");
	world_stop(&r);
	free(r.mnt);
	free(there);
	free(shard);
}
END_TEST

START_TEST(statfs_tells_the_stores_space)
{
	struct statvfs a, b;

	world_start(&w, NULL);
	ck_works(statvfs(w.mnt, &a));
	ck_works(statvfs(w.store, &b));
	ck_assert_uint_eq(a.f_blocks * a.f_frsize / (64 << 20), b.f_blocks * b.f_frsize / (64 << 20));
	ck_assert_uint_gt(a.f_bavail, 0);
	ck_assert_uint_le(a.f_bavail, a.f_bfree);
	ck_assert_uint_le(a.f_bfree, a.f_blocks);
	ck_assert_uint_ge(a.f_namemax, 128);
}
END_TEST

Suite *start_suite(void)
{
	Suite *s = suite_create("start and stop");
	TCase *tc = world_case(s, "start", 120);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, it_answers_when_it_returns);
	tcase_add_test(tc, missing_or_too_many_words_are_refused);
	tcase_add_test(tc, unknown_options_are_refused);
	tcase_add_test(tc, a_mountpoint_that_is_none_is_refused);
	tcase_add_test(tc, a_foreign_directory_is_no_store);
	tcase_add_test(tc, a_store_is_made_but_not_the_directory_it_is_in);
	tcase_add_test(tc, a_store_that_is_no_directory_is_refused);
	tcase_add_test(tc, a_store_in_use_is_refused_with_its_holders_pid);
	tcase_add_test(tc, a_mountpoint_in_use_is_refused);
	tcase_add_test(tc, store_and_mountpoint_must_not_lie_within_each_other);
	tcase_add_test(tc, the_options_of_fstab_and_systemd_are_accepted);
	tcase_add_test(tc, uid_gid_umask_and_fsname_have_effect);
	tcase_add_test(tc, without_allow_other_others_see_nothing);
	tcase_add_test(tc, allow_other_brings_default_permissions);
	tcase_add_test(tc, mount_of_util_linux_works);
	tcase_add_test(tc, mount_with_the_type_fuse_shardfs_works);
	tcase_add_test(tc, term_and_int_end_it_with_0_whatever_is_open);
	tcase_add_test(tc, a_parent_that_is_killed_does_not_take_the_mount_along);
	tcase_add_test(tc, umount_ends_the_process_with_0);
	tcase_add_test(tc, after_kill_9_it_starts_again_without_a_manual_step);
	tcase_add_test(tc, after_kill_9_with_open_files_it_starts_again);
	tcase_add_test(tc, a_mountpoint_may_be_reached_by_a_link);
	tcase_add_test(tc, in_the_foreground_it_stays);
	tcase_add_test(tc, a_second_process_may_read);
	tcase_add_test(tc, statfs_tells_the_stores_space);
	return s;
}
