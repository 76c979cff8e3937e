/*
 * beside.c - a second mount of the store, which only reads, beside the owner's.
 */
#include "tests/fs/fixture.h"

static struct world r;
static char *there; /* the shard, through the second mount */

static void setup(void)
{
	world_open(&w);
	shard = shard_new(&w);
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	r = (struct world){.dir = w.dir, .store = w.store, .mnt = check_path(w.dir, "mnt2")};
	ck_works(mkdir(r.mnt, 0755));
	world_start(&r, "ro");
	ck_assert_int_ge(asprintf(&there, "%s/shard/%s", r.mnt, strrchr(shard, '/') + 1), 0);
}

static void teardown(void)
{
	world_stop(&r);
	free(r.mnt);
	free(there);
	free(shard);
	world_close(&w);
}

static void want_soon(const char *name, const char *want)
{
	uint64_t since = 0;
	char *text = slurp(at(there, name));

	while (strcmp(text, want) != 0 && until_deadline(&since)) {
		free(text);
		text = slurp(at(there, name));
	}
	ck_assert_str_eq(text, want);
	free(text);
}

START_TEST(a_reader_beside_the_owner_sees_what_is_appended_a_moment_later)
{
	char *id = shard_id(), path[256];

	want_file(there, "upper", "1\n");
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\tc\td\ncommit\n");
	want_soon("upper", "2\n");
	want_file(there, "snapshot", "1\t1\ta\tb\n1\t1\tc\td\n");
	want_file(there, "as_of/0", "0\t1\ta\tb\n");
	free(want_sh("printf '2\\t1\\te\\tf\\n' > '%s/batches/x' && sync '%s/batches/x'", shard, shard));
	for (uint64_t since = 0; access(at(there, "batches/x"), F_OK) != 0 && until_deadline(&since);)
		;
	want_file(there, "batches/x", "2\t1\te\tf\n");
	snprintf(path, sizeof path, "%s/shard/%s", w.mnt, id);
	ck_works(mkdir(path, 0755));
	snprintf(path, sizeof path, "%s/shard/%s", r.mnt, id);
	for (uint64_t since = 0; access(path, F_OK) != 0 && until_deadline(&since);)
		;
	ck_works(access(path, F_OK));
	free(id);
}
END_TEST

static int append_two(void *arg)
{
	(void)arg;
	usleep(300 * 1000);
	return txn(shard, "begin expected_upper=1 new_upper=3\n1\t1\tc\td\ncommit\n") |
	       txn(shard, "begin expected_upper=3 new_upper=-\n3\t1\te\tf\ncommit\n");
}

START_TEST(reads_that_wait_beside_the_owner_are_woken_by_its_appends)
{
	int wait = open(at(there, "wait/1"), O_RDONLY), as_of = open(at(there, "as_of/1"), O_RDONLY);
	pid_t pid = spawn(append_two, NULL);
	char buf[64] = "", *all;
	ssize_t n = read(wait, buf, sizeof buf - 1);

	ck_assert(n > 0 && (strcmp(buf, "3\n") == 0 || strcmp(buf, "-\n") == 0));
	memset(buf, 0, sizeof buf);
	ck_assert_int_gt(read(as_of, buf, sizeof buf - 1), 0);
	ck_assert_str_eq(buf, "1\t1\ta\tb\n1\t1\tc\td\n");
	all = want_sh("cat '%s/listen/1'", there); /* ends: the shard is finished */
	ck_assert_msg(strstr(all, "1\t1\tc\td\n") != NULL && strstr(all, "3\t1\te\tf\n") != NULL &&
			      strstr(all, " upper=-\n") != NULL,
		      "%s", all);
	free(all);
	ck_assert_int_eq(join(pid), 0);
	close(wait);
	close(as_of);
}
END_TEST

/* Rows that do not compress: several blobs as files. */
static void stage_much(const char *name)
{
	free(want_sh("head -c 6000000 /dev/urandom | base64 -w 1000 | awk '{ print \"1\\t1\\t\" NR \"\\t\" "
		     "$0 }' > "
		     "'%s/batches/%s' && sync '%s/batches/%s'",
		     shard, name, shard, name));
}

START_TEST(what_the_owner_removed_meanwhile_is_estale_and_never_wrong)
{
	char buf[4096];
	ssize_t n;
	int fd;

	stage_much("big");
	for (uint64_t since = 0; access(at(there, "batches/big"), F_OK) != 0 && until_deadline(&since);)
		;
	fd = open(at(there, "batches/big"), O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(read(fd, buf, sizeof buf), sizeof buf);
	ck_works(unlink(at(shard, "batches/big")));
	while ((n = read(fd, buf, sizeof buf)) > 0)
		;
	ck_fails(n, ESTALE);
	close(fd);
	want_file(there, "upper", "1\n"); /* and the mount goes on */
}
END_TEST

Suite *beside_suite(void)
{
	Suite *s = suite_create("beside");
	TCase *tc = world_case(s, "beside", 60);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_reader_beside_the_owner_sees_what_is_appended_a_moment_later);
	tcase_add_test(tc, reads_that_wait_beside_the_owner_are_woken_by_its_appends);
	tcase_add_test(tc, what_the_owner_removed_meanwhile_is_estale_and_never_wrong);
	suite_add_tcase(s, tc);
	return s;
}
