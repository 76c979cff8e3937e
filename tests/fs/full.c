/* full.c - a small device that is full, at every stage of what is written, and has room again. */
#include "tests/fs/fixture.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

enum { DEVICE_MIB = 120 };

static char *disk;

/* An ext4 of its own on a loop device, where the machine has one; else a tmpfs. */
static void mount_disk(void)
{
	if (sh(NULL,
	       "truncate -s %dM %s/image && mkfs.ext4 -q -m 0 -O ^has_journal %s/image && "
	       "mount -o loop %s/image %s",
	       DEVICE_MIB, w.dir, w.dir, w.dir, disk) == 0)
		return;
	ck_works(mount("tmpfs", disk, "tmpfs", 0, "size=120m"));
}

static void setup(void)
{
	world_new(&w);
	disk = check_path(w.dir, "disk");
	ck_works(mkdir(disk, 0755));
	mount_disk();
	free(w.store);
	w.store = check_path(disk, "store");
	world_start(&w, NULL);
	shard = shard_new(&w);
}

static void teardown(void)
{
	if (w.pid != 0)
		world_stop(&w);
	free(want_sh("%s fsck %s", shardctl_path(), w.store));
	ck_works(umount2(disk, MNT_DETACH));
	free(disk);
	free(shard);
	world_close(&w);
}

/* Take all that is left of the device but so many KiB; more calls take more. */
static void fill_but(unsigned long leave_kib)
{
	struct statvfs st;
	unsigned long avail;

	ck_works(statvfs(disk, &st));
	avail = (unsigned long)(st.f_bavail * (st.f_frsize >> 10));
	if (avail > leave_kib)
		(void)sh(NULL, "head -c %luK /dev/zero >> %s/filler", avail - leave_kib, disk);
}

static void make_room(void)
{
	ck_works(unlink(at(disk, "filler")));
}

/* A transaction of so many rows of 100 bytes that do not compress; given. */
static char *random_txn(struct rng *r, const char *begin, unsigned rows)
{
	char *text = malloc(200 + rows * 160), *p = text + sprintf(text, "%s", begin);

	for (unsigned i = 0; i < rows; i++) {
		p += sprintf(p, "%s\t1\t%08u\t", begin[0] != '\0' ? "*" : "0",
			     (unsigned)rng_below(r, 100000000));
		for (int k = 0; k < 100; k++)
			*p++ = (char)('0' + rng_below(r, 40));
		*p++ = '\n';
	}
	strcpy(p, begin[0] != '\0' ? "commit\n" : "");
	return text;
}

static const char blind[] = "begin expected_upper=* new_upper=+1\n";

static int append_rows(struct rng *r, unsigned rows)
{
	char *text = random_txn(r, blind, rows);
	int rc = txn(shard, text);

	free(text);
	return rc;
}

START_TEST(all_that_changes_is_enospc_and_all_that_reads_goes_on)
{
	struct rng r = rng_new(61);
	char *before, *after, *made = shard_id();
	int fd;

	ck_errno(append_rows(&r, 20000), 0);
	check_write(at(shard, "batches/b"), "0\t1\ta\tb\n");
	before = print_shard(shard);
	fill_but(0);
	ck_errno(append_rows(&r, 1), ENOSPC);      /* the log */
	ck_errno(append_rows(&r, 100000), ENOSPC); /* blobs */
	ck_errno(txn(shard, "begin expected_upper=1 new_upper=2\ncommit\n"), ENOSPC);
	ck_fails(mkdir(at(at(w.mnt, "shard"), made), 0755), ENOSPC);
	ck_fails(symlink(shard, at(w.mnt, "name/n")), ENOSPC);
	ck_fails(open(at(shard, "batches/c"), O_CREAT | O_WRONLY, 0666), ENOSPC);
	fd = open(at(shard, "holds/h"), O_CREAT | O_WRONLY, 0666);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(put(fd, "0\n"), -ENOSPC);
	close(fd);
	after = print_shard(shard);
	ck_assert_str_eq(after, before);
	want_file(shard, "batches/b", "0\t1\ta\tb\n");
	free(slurp(at(shard, "state")));
	free(slurp(at(w.mnt, "metrics")));
	make_room();
	ck_errno(append_rows(&r, 1), 0); /* without a new start */
	ck_errno(append_rows(&r, 100000), 0);
	ck_works(mkdir(at(at(w.mnt, "shard"), made), 0755));
	want_file(shard, "upper", "3\n");
	free(made);
	free(before);
	free(after);
}
END_TEST

enum { OTHER_BYTES = 4000000 }; /* of 60,000 such rows, with 5.3 bits a character, at least */

START_TEST(what_gives_space_back_works_on_a_full_device)
{
	struct rng r = rng_new(62);
	char *other = shard_new(&w), *text = random_txn(&r, blind, 60000);
	struct statvfs st;
	uint64_t since = 0;
	int rc;

	ck_errno(txn(other, text), 0);
	for (int i = 0; i < 6; i++)
		ck_errno(append_rows(&r, 20000), 0);
	want_txn(other, "begin expected_upper=* new_upper=- since=-\ncommit\n");
	fill_but(0);
	ck_errno(append_rows(&r, 1), ENOSPC);
	ck_works(rmdir(other));
	do {
		ck_works(statvfs(disk, &st));
	} while (st.f_bavail * st.f_frsize < OTHER_BYTES && until_deadline(&since));
	ck_assert_uint_ge(st.f_bavail * st.f_frsize, OTHER_BYTES);
	ck_errno(write_once(at(shard, "ctl"), "gc\n"), 0);
	fill_but(0);
	rc = write_once(at(shard, "since"), "-\n"); /* it gives space back */
	ck_assert_msg(rc == 0 || rc == ENOSPC, "%s", strerrorname_np(rc));
	fill_but(0);
	rc = write_once(at(shard, "ctl"), "gc\n"); /* where not a block is left, its version may not fit */
	ck_assert_msg(rc == 0 || rc == ENOSPC, "%s", strerrorname_np(rc));
	make_room();
	ck_errno(write_once(at(shard, "since"), "-\n"), 0);
	ck_errno(write_once(at(shard, "ctl"), "compact\n"), 0);
	ck_errno(write_once(at(shard, "ctl"), "gc\n"), 0);
	free(text);
	free(other);
}
END_TEST

static const char commit_big[] = "begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch big\ncommit\n";
enum { BIG_ROWS = 300000 };

static void want_committed_big(void)
{
	char *rows;

	want_txn(shard, commit_big);
	ck_fails(access(at(shard, "batches/big"), F_OK), ENOENT);
	rows = want_sh("awk '{ n += $2 } END { print n }' %s/snapshot", shard);
	ck_assert_int_eq(atoi(rows), BIG_ROWS);
	free(rows);
}

/* Until the device is full: the bytes that were taken. */
static size_t write_until_full(int fd, const char *rows)
{
	size_t len = strlen(rows), done = 0;
	ssize_t n;

	do {
		n = write(fd, rows + done, len - done);
		done += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	ck_assert_int_eq(n, -1);
	ck_assert_int_eq(errno, ENOSPC);
	return done;
}

START_TEST(who_has_a_staged_batch_open_goes_on_with_it_when_a_full_device_has_room)
{
	struct rng r = rng_new(63);
	char *rows = random_txn(&r, "", BIG_ROWS);
	int fd = open(at(shard, "batches/big"), O_CREAT | O_WRONLY, 0666);
	struct stat before, after;
	size_t done;

	fill_but(18 << 10); /* three MiB above the reserve, and less than the first part */
	done = write_until_full(fd, rows);
	ck_assert_uint_gt(done, 0);
	fill_but(0); /* not even that much */
	ck_works(fstat(fd, &before));
	ck_assert_int_eq(write(fd, rows + done, 1000), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_fails(fsync(fd), ENOSPC);
	ck_errno(txn(shard, commit_big), ENOSPC);
	ck_works(fstat(fd, &after));
	ck_assert_int_eq(after.st_size, before.st_size);
	make_room();
	ck_errno(put_all(fd, rows + done, strlen(rows) - done), 0);
	close(fd);
	want_committed_big();
	free(rows);
}
END_TEST

START_TEST(a_full_device_takes_no_more_of_a_staged_batch_than_it_has_room_for)
{
	struct rng r = rng_new(65);
	char *rows = random_txn(&r, "", BIG_ROWS);
	int fd = open(at(shard, "batches/big"), O_CREAT | O_WRONLY, 0666);
	size_t done;

	fill_but(18 << 10);
	done = write_until_full(fd, rows);
	ck_assert_uint_gt(done, 0);
	ck_works(close(fd));
	make_room();
	fd = open(at(shard, "batches/big"), O_WRONLY | O_APPEND);
	ck_errno(put_all(fd, rows + done, strlen(rows) - done), 0);
	ck_works(close(fd));
	want_committed_big();
	free(rows);
}
END_TEST

START_TEST(a_staged_batch_that_was_closed_on_a_full_device_says_what_it_lost_until_it_is_written_anew)
{
	struct rng r = rng_new(64);
	char *rows = random_txn(&r, "", BIG_ROWS);
	int fd = open(at(shard, "batches/big"), O_CREAT | O_WRONLY, 0666);

	fill_but(18 << 10);
	(void)write_until_full(fd, rows);
	fill_but(0); /* there was room for what was taken */
	ck_fails(close(fd), ENOSPC);
	ck_errno(txn(shard, commit_big), EIO);
	make_room();
	ck_errno(txn(shard, commit_big), EIO);
	fd = open(at(shard, "batches/big"), O_WRONLY | O_APPEND);
	ck_assert_int_eq(write(fd, rows, 1000), -1);
	ck_works(ftruncate(fd, 0));
	ck_works(lseek(fd, 0, SEEK_SET));
	ck_errno(put_all(fd, rows, strlen(rows)), 0);
	close(fd);
	want_committed_big();
	free(rows);
}
END_TEST

/* --- full and not, over and over ------------------------------------------------------------------- */

struct writer {
	unsigned acknowledged;
	unsigned refused;
	int other; /* an errno that is none of those a full device has */
	int stop;
};
static struct writer *board;

static int write_on(void *unused)
{
	struct rng r = rng_new((uint64_t)getpid());

	(void)unused;
	while (__atomic_load_n(&board->stop, __ATOMIC_SEQ_CST) == 0) {
		int rc = append_rows(&r, rng_below(&r, 3) == 0 ? 20000 : 1 + (unsigned)rng_below(&r, 200));

		if (rc == 0)
			__atomic_add_fetch(&board->acknowledged, 1, __ATOMIC_SEQ_CST);
		else if (rc == ENOSPC || rc == ETIMEDOUT)
			__atomic_add_fetch(&board->refused, 1, __ATOMIC_SEQ_CST);
		else
			board->other = rc;
	}
	return 0;
}

START_TEST(a_device_that_fills_up_under_writers_loses_nothing_that_was_acknowledged)
{
	enum { ROUNDS = 6 };
	unsigned long upper;
	pid_t pid;
	char *text;

	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(board, MAP_FAILED);
	pid = spawn(write_on, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		unsigned refused = board->refused;
		uint64_t since = 0;

		while (board->refused == refused && until_deadline(&since))
			fill_but(0); /* below the reserve too: what the check before a write let pass fails in
					it */
		ck_assert_uint_gt(board->refused, refused);
		free(slurp(at(shard, "upper")));
		make_room();
		ck_errno(write_once(at(shard, "since"), "upper-1\n"), 0);
	}
	__atomic_store_n(&board->stop, 1, __ATOMIC_SEQ_CST);
	ck_assert_int_eq(join(pid), 0);
	ck_assert_msg(board->other == 0, "%s", strerrorname_np(board->other));
	text = slurp(at(shard, "upper"));
	upper = strtoul(text, NULL, 10);
	free(text);
	ck_assert_uint_eq(upper, board->acknowledged);
	want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n");
	world_kill(&w);
	world_start(&w, NULL);
	text = slurp(at(shard, "upper"));
	ck_assert_uint_eq(strtoul(text, NULL, 10), upper + 1);
	free(text);
	free(slurp(at(shard, "snapshot")));
}
END_TEST

Suite *full_suite(void)
{
	Suite *s = suite_create("full");
	TCase *tc = world_case(s, "full", 300);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, all_that_changes_is_enospc_and_all_that_reads_goes_on);
	tcase_add_test(tc, what_gives_space_back_works_on_a_full_device);
	tcase_add_test(tc, who_has_a_staged_batch_open_goes_on_with_it_when_a_full_device_has_room);
	tcase_add_test(tc, a_full_device_takes_no_more_of_a_staged_batch_than_it_has_room_for);
	tcase_add_test(
		tc,
		a_staged_batch_that_was_closed_on_a_full_device_says_what_it_lost_until_it_is_written_anew);
	tcase_add_test(tc, a_device_that_fills_up_under_writers_loses_nothing_that_was_acknowledged);
	return s;
}
