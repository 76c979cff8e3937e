/* greedy.c - users who take all they can get of a mount that all share: of descriptors, memory, disk and
 * names each has a bound, others have theirs, and what was taken comes back. */
#include "tests/fs/hostile.h"

#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static double metric(const char *name)
{
	return world_metric(&w, name);
}

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

	hostile_stop();
	hostile_start("allow_other,max_user_open=40,max_open=100");
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

	hostile_stop();
	hostile_start("allow_other,max_user_open=1000,max_open=100");
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

/* Each file that is open on a batch has a copy of its last line, which has no end. */
START_TEST(lines_without_end_count_for_those_who_open_them_too)
{
	char *piece = malloc(1 << 20), *path = strdup(at(shard, "batches/b"));
	int fd = open(path, O_WRONLY | O_CREAT, 0666), fds[10], count = 0, held;

	ck_works(fd);
	memset(piece, 'x', 1 << 20);
	for (int i = 0; i < 40; i++)
		ck_errno(put_all(fd, piece, 1 << 20), 0);
	close(fd);
	want_back("shardfs_unfinished_bytes", 0);
	while (count < 10 && (fds[count] = open(path, count == 0 ? O_RDWR : O_RDONLY)) >= 0)
		count++;
	held = errno;
	ck_assert_int_eq(count, 4); /* 160 MiB for all */
	ck_errno(held, ENOMEM);
	while (count > 0)
		close(fds[--count]);
	want_back("shardfs_unfinished_bytes", 0);
	free(piece);
	free(path);
}
END_TEST

/* --- transactions without end ---------------------------------------------------------------------- */

static blkcnt_t blocks;

static int add_blocks(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)path;
	(void)where;
	blocks += type == FTW_NS ? 0 : st->st_blocks;
	return 0;
}

/* Not du, whose words of what vanished meanwhile would be taken for a number. */
static unsigned long disk_kib(void)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof dir, "%s/blobs", w.store);
	do
		blocks = 0;
	while (nftw(dir, add_blocks, 16, FTW_PHYS) != 0 && errno == ENOENT);
	return (unsigned long)blocks / 2;
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
		ck_errno(hostile_hold(name, "1\n"), i < 1023 ? 0 : EDQUOT);
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
	hostile_start("allow_other");
}

Suite *greedy_suite(void)
{
	Suite *s = suite_create("greedy");
	TCase *tc = world_case(s, "greedy", 200);

	tcase_add_checked_fixture(tc, share, hostile_stop);
	tcase_add_test(tc, one_user_has_so_many_files_open_and_others_theirs);
	tcase_add_test(tc, all_users_have_so_many_files_open_and_root_can_still_look);
	tcase_add_test(tc, what_one_user_has_not_finished_is_bounded_and_given_back);
	tcase_add_test(tc, lines_without_end_count_for_those_who_open_them_too);
	tcase_add_test(tc, a_transaction_without_commit_takes_disk_not_memory_and_gives_it_back);
	tcase_add_test(tc, staged_batches_end_at_1024_with_edquot);
	tcase_add_test(tc, slots_of_shards_that_have_gone_are_given_again);
	tcase_add_test(tc, errors_are_of_one_life_of_a_shard);
	tcase_add_test(tc, a_crowd_of_readers_ends_nobody);
	return s;
}
