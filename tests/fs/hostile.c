/* hostile.c - users who mean harm: on a mount that all share nobody reads or writes what is another's, and
 * nonsense has its errno. What takes all of the mount is in greedy.c. */
#include "tests/fs/hostile.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/xattr.h>

int hostile_hold(const char *name, const char *text)
{
	int fd = open(at(at(shard, "holds"), name), O_CREAT | O_WRONLY, 0666);
	ssize_t n = fd >= 0 ? put(fd, text) : -errno;

	close(fd);
	return n < 0 ? (int)-n : 0;
}

void hostile_start(const char *opts)
{
	world_new(&w);
	world_start(&w, opts);
	shard = shard_new(&w);
	ck_works(chown(shard, ALICE, ALICE));
	ck_works(chmod(shard, 0700));
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tsecret\tx\ncommit\n");
	check_write(at(shard, "batches/mine"), "0\t1\tstaged\ty\n");
	ck_errno(hostile_hold("h", "0\n"), 0);
}

static void setup(void)
{
	hostile_start("allow_other");
}

void hostile_stop(void)
{
	free(shard);
	world_close(&w);
}

/* --- what is another's ----------------------------------------------------------------------------- */

static const char *const readable[] = {
	"append",      "since",        "ctl",         "upper",   "snapshot",     "errors",
	"state",       "as_of/0",      "as_of/now",   "wait/0",  "listen/0",     "listen/1",
	"subscribe/0", "batches/mine", "batches/0-1", "holds/h", "holds/default"};
static const char *const dirs[] = {"",        "as_of", "listen",  "subscribe", "wait",
				   "batches", "holds", "writers", "readers"};
static const char *const writable[] = {"append", "since", "ctl", "batches/mine", "holds/h", "holds/default"};

/* In a child: a call that must fail with EACCES or EPERM; else it says which, and the child fails. */
static int refused(const char *what, const char *path, long result)
{
	if (result == -1 && (errno == EACCES || errno == EPERM))
		return 0;
	fprintf(stderr, "%s of %s: %s\n", what, path, result == -1 ? strerrorname_np(errno) : "worked");
	return 1;
}

static int change_all(void)
{
	char *to = strdup(at(shard, "batches/theirs"));
	int bad = 0;

	for (size_t i = 0; i < COUNT(writable); i++) {
		const char *path = at(shard, writable[i]);

		bad |= refused("open to write", path, open(path, O_WRONLY));
		bad |= refused("open to write and read", path, open(path, O_RDWR));
		bad |= refused("open to truncate", path, open(path, O_RDONLY | O_TRUNC));
		bad |= refused("truncate", path, truncate(path, 0));
		bad |= refused("utimes", path, utimensat(AT_FDCWD, path, NULL, 0));
		bad |= refused("chmod", path, chmod(path, 0777));
		bad |= refused("chown", path, chown(path, BOB, BOB));
		bad |= refused("unlink", path, unlink(path));
	}
	bad |= refused("create", to, open(to, O_CREAT | O_WRONLY, 0666));
	bad |= refused("mknod", to, mknod(to, S_IFREG | 0666, 0));
	bad |= refused("rename", to, rename(at(shard, "batches/mine"), to));
	bad |= refused("create", "holds/x", open(at(shard, "holds/x"), O_CREAT | O_WRONLY, 0666));
	bad |= refused("chmod", shard, chmod(shard, 0777));
	bad |= refused("chown", shard, chown(shard, BOB, BOB));
	bad |= refused("rmdir", shard, rmdir(shard));
	free(to);
	return bad;
}

static int try_all(void *unused)
{
	int bad = 0;

	(void)unused;
	for (size_t i = 0; i < COUNT(readable); i++) {
		const char *path = at(shard, readable[i]);
		struct stat st;

		bad |= refused("open", path, open(path, O_RDONLY));
		bad |= refused("stat", path, stat(path, &st));
		bad |= refused("access", path, access(path, F_OK));
	}
	for (size_t i = 0; i < COUNT(dirs); i++)
		bad |= refused("opendir", dirs[i], opendir(at(shard, dirs[i])) != NULL ? 0 : -1);
	bad |= refused("chdir", shard, chdir(shard));
	return bad | change_all();
}

static int read_all_change_none(void *unused)
{
	int bad = 0;

	(void)unused;
	for (size_t i = 0; i < COUNT(readable); i++) {
		const char *path = at(shard, readable[i]);
		int fd = open(path, O_RDONLY | O_NONBLOCK);

		if (fd < 0)
			bad |= refused("nothing", path, 0);
		close(fd);
	}
	for (size_t i = 0; i < COUNT(dirs); i++)
		bad |= opendir(at(shard, dirs[i])) == NULL;
	return bad | change_all();
}

START_TEST(a_shard_of_another_can_neither_be_read_nor_changed)
{
	char *before = print_shard(shard), *after;

	ck_assert_int_eq(as_user(BOB, try_all, NULL), 0);
	after = print_shard(shard);
	ck_assert_str_eq(after, before);
	free(before);
	free(after);
}
END_TEST

START_TEST(who_may_read_may_not_change)
{
	char *before, *after;

	ck_works(chmod(shard, 0755));
	ck_assert_int_eq(as_user(BOB, read_all_change_none, NULL), 0);
	ck_works(chown(shard, ALICE, BOB)); /* by the group */
	ck_works(chmod(shard, 0750));
	before = print_shard(shard);
	ck_assert_int_eq(as_user(BOB, read_all_change_none, NULL), 0);
	after = print_shard(shard);
	ck_works(chmod(shard, 0707)); /* the group is asked first, and it may nothing */
	ck_assert_int_eq(as_user(BOB, try_all, NULL), 0);
	ck_assert_str_eq(after, before);
	want_file(shard, "holds/h", "0\t0\n");
	free(before);
	free(after);
}
END_TEST

/* --- nonsense -------------------------------------------------------------------------------------- */

START_TEST(names_that_are_none_have_their_errno)
{
	static const char *const odd[] = {"\x01", "\xff\xfe", "a\nb",   "..\x7f", "\xed\xa0\x80",
					  "-",    "now ",     "%2e%2e", "*",      "\xe2\x80\xae"};
	char *longest = malloc(5000), *path;

	for (size_t d = 0; d < COUNT(dirs); d++) {
		for (size_t i = 0; i < COUNT(odd); i++) {
			path = check_path(at(shard, dirs[d]), odd[i]);
			if (strcmp(dirs[d], "listen") == 0 && strcmp(odd[i], "-") == 0)
				goto next; /* is one */
			ck_fails(open(path, O_RDONLY), ENOENT);
			ck_assert_int_eq(open(path, O_CREAT | O_WRONLY, 0666), -1);
			ck_assert_msg(errno == EPERM || errno == EINVAL, "%s: %s", path,
				      strerrorname_np(errno));
			ck_fails(unlink(path), ENOENT);
		next:
			free(path);
		}
	}
	memset(longest, 'a', 4999);
	longest[4999] = '\0';
	ck_fails(open(longest, O_RDONLY), ENAMETOOLONG);
	longest[256] = '\0';
	ck_fails(open(at(shard, longest), O_RDONLY), ENAMETOOLONG);
	ck_fails(open(at(at(shard, "batches"), longest), O_CREAT | O_WRONLY, 0666), ENAMETOOLONG);
	longest[255] = '\0';
	ck_fails(open(at(at(shard, "as_of"), longest), O_RDONLY), ENOENT);
	ck_fails(open(at(at(shard, "batches"), longest), O_CREAT | O_WRONLY, 0666), ENAMETOOLONG);
	longest[128] = '\0';
	ck_works(mknod(at(at(shard, "batches"), longest), S_IFREG | 0666, 0));
	free(longest);
}
END_TEST

START_TEST(paths_lead_where_they_say)
{
	char *path, *a, *b;

	ck_assert_int_gt(asprintf(&path, "%s//.//as_of/../../../name/..//shard/%s/./snapshot", shard,
				  strrchr(shard, '/') + 1),
			 0);
	a = slurp(path);
	b = slurp(at(shard, "snapshot"));
	ck_assert_str_eq(a, b);
	free(a);
	free(b);
	free(path);
	ck_fails(open(at(shard, "snapshot/"), O_RDONLY), ENOTDIR);
	ck_fails(open(at(shard, "snapshot/.."), O_RDONLY), ENOTDIR);
	ck_fails(mkdir(at(shard, "."), 0777), EEXIST);
	ck_fails(rmdir(at(shard, "as_of/..")), ENOTEMPTY);
	ck_fails(rename(at(shard, "batches/mine"), at(shard, "holds/mine")), EPERM);
	ck_fails(rename(at(shard, "batches/mine"), at(shard, "batches/../upper")), EPERM);
	ck_fails(link(at(shard, "batches/mine"), at(shard, "batches/other")), EPERM);
	ck_fails(symlink("x", at(shard, "batches/link")), EPERM);
	ck_fails(mknod(at(shard, "batches/fifo"), S_IFIFO | 0666, 0), EPERM);
	ck_fails(mknod(at(shard, "batches/dev"), S_IFCHR | 0666, 259), EPERM);
	ck_fails(mkdir(at(shard, "batches/dir"), 0777), EPERM);
}
END_TEST

/* What no file here can do. */
static void want_refusals(const char *path, int flags)
{
	char buf[64];
	int fd;

	ck_assert_int_eq(setxattr(path, "user.x", "1", 1, 0), -1);
	ck_assert_msg(errno == ENOTSUP || errno == EPERM, "%s: %s", path, strerrorname_np(errno));
	ck_assert_int_eq(getxattr(path, "security.capability", buf, sizeof buf), -1);
	ck_assert_msg(errno == ENOTSUP || errno == ENODATA, "%s: %s", path, strerrorname_np(errno));
	ck_assert_int_le(listxattr(path, buf, sizeof buf), 0);
	fd = open(path, flags | O_NONBLOCK);
	ck_assert_msg(fd >= 0, "%s: %s", path, strerrorname_np(errno));
	ck_assert_int_eq(fallocate(fd, 0, 0, 100), -1);
	ck_assert_msg(errno == EOPNOTSUPP || errno == EBADF, "%s: %s", path, strerrorname_np(errno));
	ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1), -1);
	ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	ck_assert_int_eq(pread(fd, buf, sizeof buf, -1), -1);
	ck_fails(lseek(fd, -1, SEEK_SET), EINVAL);
	(void)!pread(fd, buf, sizeof buf, INT64_MAX - 4096); /* whatever it says, it says it */
	(void)lseek(fd, 0, SEEK_END);
	(void)lseek(fd, 0, SEEK_DATA);
	ck_assert_int_eq(ftruncate(fd, INT64_MAX) == 0 && (flags & O_ACCMODE) == O_RDONLY, 0);
	close(fd);
}

START_TEST(calls_that_make_no_sense_have_an_errno_and_change_nothing)
{
	char *before = print_shard(shard), *after;
	int fd;

	for (size_t i = 0; i < COUNT(readable); i++)
		want_refusals(at(shard, readable[i]), O_RDONLY);
	for (size_t i = 0; i < COUNT(writable); i++)
		if (strcmp(writable[i], "batches/mine") != 0)
			want_refusals(at(shard, writable[i]), O_RDWR);
	for (size_t i = 0; i < COUNT(readable); i++) {
		char buf[8];

		fd = open(at(shard, readable[i]), O_RDONLY | O_DIRECT | O_NONBLOCK | O_SYNC | O_NOATIME);
		ck_assert_int_ge(fd, 0);
		(void)!read(fd, buf, 1);
		close(fd);
	}
	fd = open(at(shard, "append"), O_RDWR | O_TRUNC | O_APPEND | O_CREAT, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, "begin expected_upper=7 ", 23, INT64_MAX - 100),
			 23); /* offsets mean nothing */
	ck_assert_int_eq(put(fd, "new_upper=8\ncommit\n"), -ESTALE);
	close(fd);
	ck_fails(open(at(shard, "append"), O_CREAT | O_EXCL | O_RDWR, 0666), EEXIST);
	ck_fails(open(at(shard, "append"), O_DIRECTORY), ENOTDIR);
	after = print_shard(shard);
	ck_assert_str_eq(after, before);
	free(before);
	free(after);
}
END_TEST

Suite *hostile_suite(void)
{
	Suite *s = suite_create("hostile");
	TCase *tc = world_case(s, "hostile", 200);

	tcase_add_checked_fixture(tc, setup, hostile_stop);
	tcase_add_test(tc, a_shard_of_another_can_neither_be_read_nor_changed);
	tcase_add_test(tc, who_may_read_may_not_change);
	tcase_add_test(tc, names_that_are_none_have_their_errno);
	tcase_add_test(tc, paths_lead_where_they_say);
	tcase_add_test(tc, calls_that_make_no_sense_have_an_errno_and_change_nothing);
	return s;
}
