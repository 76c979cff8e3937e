/* hostile.c - users who mean harm, or do it: on a mount that all share nobody reads or writes what is
 * another's, nobody takes all of the mount, and nonsense has its errno. */
#include "tests/fs/world.h"

#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sys/xattr.h>

enum { ALICE = 4001, BOB = 4002 };

static struct world w;
static char *shard;

/* Write a hold that need not be there. 0, or errno. */
static int hold(const char *name, const char *text)
{
	int fd = open(at(at(shard, "holds"), name), O_CREAT | O_WRONLY, 0666);
	ssize_t n = fd >= 0 ? put(fd, text) : -errno;

	close(fd);
	return n < 0 ? (int)-n : 0;
}

static void start_with(const char *opts)
{
	world_new(&w);
	world_start(&w, opts);
	shard = shard_new(&w);
	ck_works(chown(shard, ALICE, ALICE));
	ck_works(chmod(shard, 0700));
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tsecret\tx\ncommit\n");
	check_write(at(shard, "batches/mine"), "0\t1\tstaged\ty\n");
	ck_errno(hold("h", "0\n"), 0);
}

static void setup(void)
{
	start_with("allow_other");
}

static void teardown(void)
{
	free(shard);
	world_close(&w);
}

static double metric(const char *name)
{
	char *text = slurp(at(w.mnt, "metrics")), *p = text;
	size_t len = strlen(name);
	double value = -1;

	while (p != NULL && value < 0) {
		if (strncmp(p, name, len) == 0 && p[len] == ' ')
			value = strtod(p + len, NULL);
		p = strchr(p, '\n');
		p = p != NULL ? p + 1 : NULL;
	}
	free(text);
	ck_assert_msg(value >= 0, "no %s in /metrics", name);
	return value;
}

/* --- what is another's ----------------------------------------------------------------------------- */

static const char *const readable[] = {
	"append",      "since",        "ctl",         "upper",   "snapshot",     "errors",
	"state",       "as_of/0",      "as_of/now",   "wait/0",  "listen/0",     "listen/1",
	"subscribe/0", "batches/mine", "batches/0-1", "holds/h", "holds/default"};
static const char *const dirs[] = {"",        "as_of", "listen",  "subscribe", "wait",
				   "batches", "holds", "writers", "readers"};
static const char *const writable[] = {"append", "since", "ctl", "batches/mine", "holds/h", "holds/default"};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

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

/* --- taking all ------------------------------------------------------------------------------------ */

struct taken {
	const char *name;
	size_t opened;
	int errnum;
	int go;
};
static struct taken *taken; /* shared with children */

static int take_descriptors(void *name)
{
	const char *path = at(shard, name);

	while (open(path, O_RDONLY) >= 0)
		taken->opened++;
	taken->errnum = errno;
	__atomic_store_n(&taken->go, 1, __ATOMIC_SEQ_CST);
	pause();
	return 0;
}

static int as_bob(void *name)
{
	if (setgid(BOB) != 0 || setuid(BOB) != 0)
		return 255;
	return take_descriptors(name);
}

static int open_one(void *path)
{
	return open(path, O_RDONLY) >= 0 ? 0 : errno;
}

/* A child of BOB's that takes all it can get of path; it waits then. */
static pid_t let_bob_take(const char *name)
{
	uint64_t since = 0;
	pid_t pid;

	*taken = (struct taken){.name = name};
	pid = spawn(as_bob, (void *)(uintptr_t)name);
	while (__atomic_load_n(&taken->go, __ATOMIC_SEQ_CST) == 0 && until_deadline(&since))
		;
	ck_assert_int_eq(taken->go, 1);
	return pid;
}

static void end_child(pid_t pid)
{
	int status;

	ck_works(kill(pid, SIGKILL));
	ck_works(waitpid(pid, &status, 0));
}

static void want_back(const char *name, double most)
{
	uint64_t since = 0;

	while (metric(name) > most && until_deadline(&since))
		;
	ck_assert_msg(metric(name) <= most, "%s: %f", name, metric(name));
}

START_TEST(one_user_has_so_many_files_open_and_others_theirs)
{
	static const char *const kinds[] = {"upper", "append", "as_of", "listen/0"};
	char *upper;
	pid_t bob;

	world_close(&w);
	start_with("allow_other,max_user_open=40,max_open=100");
	ck_works(chmod(shard, 0777));
	upper = check_path(shard, "upper");
	for (size_t i = 0; i < COUNT(kinds); i++) {
		bob = let_bob_take(kinds[i]);
		ck_errno(taken->errnum, EMFILE);
		ck_assert_uint_eq(taken->opened, i == 3 ? 10 : 40); /* a listener keeps more than others */
		ck_errno(as_user(BOB, open_one, upper), EMFILE);
		ck_errno(as_user(ALICE, open_one, upper), 0);
		end_child(bob);
		want_back("shardfs_open_files", 1);
		ck_errno(as_user(BOB, open_one, upper), 0);
	}
	ck_assert(metric("shardfs_limits_refused_total") >= 8);
	free(upper);
}
END_TEST

START_TEST(all_users_have_so_many_files_open_and_root_can_still_look)
{
	char *upper;
	pid_t bob;

	world_close(&w);
	start_with("allow_other,max_user_open=1000,max_open=100");
	ck_works(chmod(shard, 0777));
	upper = check_path(shard, "upper");
	bob = let_bob_take("upper");
	ck_errno(taken->errnum, ENFILE);
	ck_assert_uint_eq(taken->opened, 100);
	ck_errno(as_user(ALICE, open_one, upper), ENFILE);
	ck_assert(metric("shardfs_open_files") >= 100);
	want_txn(shard, "begin expected_upper=1 new_upper=2\ncommit\n");
	end_child(bob);
	want_back("shardfs_open_files", 1);
	ck_errno(as_user(ALICE, open_one, upper), 0);
	free(upper);
}
END_TEST

static int write_lines_without_end(void *name)
{
	char *piece = malloc(1 << 20);
	int fd = -1, rc = 0;

	if (setgid(BOB) != 0 || setuid(BOB) != 0)
		return 255;
	memset(piece, 'x', 1 << 20);
	for (int i = 0; i < 100 && rc == 0; i++) {
		char path[512];

		snprintf(path, sizeof path, strcmp(name, "append") == 0 ? "%s/%s" : "%s/%s%d", shard,
			 (char *)name, i);
		fd = open(path, O_WRONLY | O_CREAT, 0666);
		if (fd < 0)
			return 254;
		rc = strcmp(name, "append") == 0 ? put_all(fd, "begin expected_upper=* new_upper=+1\n", 36)
						 : 0;
		for (int k = 0; k < 10 && rc == 0; k++, taken->opened += rc == 0)
			rc = put_all(fd, piece, 1 << 20);
	}
	taken->errnum = rc;
	__atomic_store_n(&taken->go, 1, __ATOMIC_SEQ_CST);
	pause();
	return 0;
}

START_TEST(what_one_user_has_not_finished_is_bounded_and_given_back)
{
	static const char *const names[] = {"append", "batches/b"};

	ck_works(chmod(shard, 0777));
	for (size_t i = 0; i < COUNT(names); i++) {
		uint64_t since = 0;
		pid_t bob;

		*taken = (struct taken){.name = names[i]};
		bob = spawn(write_lines_without_end, (void *)(uintptr_t)names[i]);
		while (__atomic_load_n(&taken->go, __ATOMIC_SEQ_CST) == 0 && until_deadline(&since))
			;
		ck_errno(taken->errnum, ENOMEM);
		ck_assert_uint_ge(taken->opened, 64); /* MiB: the longest row that there can be */
		ck_assert_uint_le(taken->opened, 80);
		want_txn(shard, "begin expected_upper=* new_upper=+1\ncommit\n");
		if (!keeps_freed(&w))
			ck_assert_uint_lt(status_kib(&w, "VmHWM:"), 330 << 10);
		end_child(bob);
		want_back("shardfs_unfinished_bytes", 0);
	}
}
END_TEST

/* --- transactions without end ---------------------------------------------------------------------- */

static unsigned long disk_kib(void)
{
	char *out = want_sh("du -sk %s/blobs | cut -f1", w.store);
	unsigned long kib = strtoul(out, NULL, 10);

	free(out);
	return kib;
}

START_TEST(a_transaction_without_commit_takes_disk_not_memory_and_gives_it_back)
{
	enum { MIB = 96 };
	struct rng r = rng_new(41);
	char *piece = malloc(1 << 20), *p;
	unsigned long before = disk_kib();
	uint64_t since = 0;
	int fd = append_open(shard);

	ck_assert_int_gt(put(fd, "begin expected_upper=* new_upper=+1\n"), 0);
	for (int i = 0; i < MIB; i++) {
		for (p = piece; p < piece + (1 << 20) - 64;)
			p += sprintf(p, "*\t1\t%016llx%016llx\tv\n", (unsigned long long)rng_below(&r, 0),
				     (unsigned long long)rng_below(&r, 0));
		ck_errno(put_all(fd, piece, (size_t)(p - piece)), 0);
	}
	ck_assert_uint_gt(disk_kib(), before + (16 << 10));
	if (!keeps_freed(&w))
		ck_assert_uint_lt(status_kib(&w, "VmHWM:"), 256 << 10);
	close(fd);
	while (disk_kib() > before + 64 && until_deadline(&since))
		;
	ck_assert_uint_le(disk_kib(), before + 64);
	want_file(shard, "upper", "1\n");
	free(piece);
}
END_TEST

START_TEST(staged_batches_end_at_1024_with_edquot)
{
	char name[64];
	int fd;

	for (int i = 1; i < 1024; i++) { /* with the one that is there */
		snprintf(name, sizeof name, "batches/b%d", i);
		fd = open(at(shard, name), O_CREAT | O_WRONLY, 0666);
		ck_assert_msg(fd >= 0, "%s: %s", name, strerrorname_np(errno));
		if (i % 8 == 0)
			ck_assert_int_gt(put(fd, "5\t1\tunfinished"), 0);
		close(fd);
	}
	ck_fails(open(at(shard, "batches/more"), O_CREAT | O_WRONLY, 0666), EDQUOT);
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\ta\tb\ncommit\n");
	ck_works(unlink(at(shard, "batches/b8")));
	fd = open(at(shard, "batches/more"), O_CREAT | O_WRONLY, 0666);
	ck_assert_int_ge(fd, 0);
	close(fd);
	for (int i = 1; i < 1024; i++) { /* and holds: those of the fixture and default are there */
		snprintf(name, sizeof name, "c%d", i);
		ck_errno(hold(name, "1\n"), i < 1023 ? 0 : EDQUOT);
	}
}
END_TEST

/* --- lives of a shard ------------------------------------------------------------------------------ */

START_TEST(slots_of_shards_that_have_gone_are_given_again)
{
	double before = metric("shardfs_node_shards");

	for (int i = 0; i < 200; i++) {
		char *made = shard_new(&w);

		want_txn(made, "begin expected_upper=0 new_upper=- since=-\ncommit\n");
		ck_works(rmdir(made));
		free(made);
	}
	want_back("shardfs_node_shards", before + 20);
	want_file(shard, "upper", "1\n");
}
END_TEST

START_TEST(errors_are_of_one_life_of_a_shard)
{
	char *made = shard_new(&w);
	int fd = append_open(made);

	ck_assert_int_gt(put(fd, "begin expected_upper=0 new_upper=1\n"), 0);
	want_txn(made, "begin expected_upper=0 new_upper=- since=-\ncommit\n");
	ck_works(rmdir(made));
	ck_works(mkdir(made, 0755));
	close(fd); /* abandoned in the life before */
	ck_errno(txn(made, "begin expected_upper=7 new_upper=8\ncommit\n"), ESTALE);
	char *text = slurp(at(made, "errors"));

	ck_assert_uint_eq(count_lines(text), 1);
	ck_assert_ptr_nonnull(strstr(text, "UpperMismatch"));
	free(text);
	free(made);
}
END_TEST

/* --- many readers ---------------------------------------------------------------------------------- */

static int read_for_ever(void *unused)
{
	(void)unused;
	for (;;) {
		char *text = slurp_rc(at(shard, "snapshot"));

		if (text == NULL)
			return 1;
		free(text);
	}
}

START_TEST(a_crowd_of_readers_ends_nobody)
{
	enum { READERS = 80, APPENDS = 20 };
	pid_t pids[READERS];
	char *text = malloc(4 << 20), *p = text;
	struct rng r = rng_new(42);

	p += sprintf(p, "begin expected_upper=1 new_upper=2\n");
	while (p < text + (3 << 20))
		p += sprintf(p, "1\t1\t%016llx\tv\n", (unsigned long long)rng_below(&r, 0));
	p = stpcpy(p, "commit\n");
	int fd = append_open(shard);

	ck_errno(put_all(fd, text, (size_t)(p - text)), 0);
	close(fd);
	for (int i = 0; i < READERS; i++)
		pids[i] = spawn(read_for_ever, NULL);
	for (int i = 0; i < APPENDS; i++)
		want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n");
	for (int i = 0; i < READERS; i++)
		end_child(pids[i]);
	if (!keeps_freed(&w))
		ck_assert_uint_lt(status_kib(&w, "VmHWM:"), 256 << 10);
	want_back("shardfs_requests_in_flight", 1);
	want_back("shardfs_open_files", 1);
	free(text);
}
END_TEST

static void share(void)
{
	taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(taken, MAP_FAILED);
	setup();
}

Suite *hostile_suite(void)
{
	Suite *s = suite_create("hostile");
	TCase *tc = world_case(s, "hostile", 200);

	tcase_add_checked_fixture(tc, share, teardown);
	tcase_add_test(tc, a_shard_of_another_can_neither_be_read_nor_changed);
	tcase_add_test(tc, who_may_read_may_not_change);
	tcase_add_test(tc, names_that_are_none_have_their_errno);
	tcase_add_test(tc, paths_lead_where_they_say);
	tcase_add_test(tc, calls_that_make_no_sense_have_an_errno_and_change_nothing);
	tcase_add_test(tc, one_user_has_so_many_files_open_and_others_theirs);
	tcase_add_test(tc, all_users_have_so_many_files_open_and_root_can_still_look);
	tcase_add_test(tc, what_one_user_has_not_finished_is_bounded_and_given_back);
	tcase_add_test(tc, a_transaction_without_commit_takes_disk_not_memory_and_gives_it_back);
	tcase_add_test(tc, staged_batches_end_at_1024_with_edquot);
	tcase_add_test(tc, slots_of_shards_that_have_gone_are_given_again);
	tcase_add_test(tc, errors_are_of_one_life_of_a_shard);
	tcase_add_test(tc, a_crowd_of_readers_ends_nobody);
	return s;
}
