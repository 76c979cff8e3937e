/* names.c - /name: links that are kept. */
#include "tests/fs/world.h"

#include <dirent.h>
#include <sys/syscall.h>

static struct world w;
static char *a, *b;

static void setup(void)
{
	world_open(&w);
	a = shard_new(&w);
	b = shard_new(&w);
}

static void teardown(void)
{
	free(a);
	free(b);
	world_close(&w);
}

static const char *name(const char *n)
{
	return at(at(w.mnt, "name"), n);
}

/* The name leads to this shard, and its text is ../shard/<id>. */
static void want_name(const char *n, const char *shard)
{
	char text[256] = "", want[256];
	struct stat st, there;

	ck_works(readlink(name(n), text, sizeof text - 1));
	snprintf(want, sizeof want, "../shard/%s", strrchr(shard, '/') + 1);
	ck_assert_str_eq(text, want);
	ck_works(lstat(name(n), &st));
	ck_assert(S_ISLNK(st.st_mode));
	ck_assert_int_eq(st.st_size, strlen(want));
	ck_works(stat(name(n), &st));
	ck_works(stat(shard, &there));
	ck_assert_uint_eq(st.st_ino, there.st_ino);
}

static void want_list(const char *want)
{
	char *out = want_sh("ls %s/name | tr '\\n' ' '", w.mnt);

	ck_assert_str_eq(out, want);
	free(out);
}

START_TEST(ln_mv_and_rm)
{
	free(want_sh("ln -s %s %s/name/one", a, w.mnt));
	want_name("one", a);
	free(want_sh("cd %s/name && ln -s ../shard/%s two", w.mnt, strrchr(b, '/') + 1));
	want_name("two", b);
	ck_fails(symlink(a, name("one")), EEXIST);
	ck_fails(symlink(b, name("one")), EEXIST);
	free(want_sh("ln -sfn %s %s/name/one", b, w.mnt));
	want_name("one", b);
	want_list("one two ");
	free(want_sh("mv %s/name/one %s/name/three", w.mnt, w.mnt));
	want_name("three", b);
	want_list("three two ");
	free(want_sh("ln -sfn %s %s/name/one", a, w.mnt));
	free(want_sh("mv -T %s/name/one %s/name/two", w.mnt, w.mnt));
	want_name("two", a);
	want_list("three two ");
	free(want_sh("rm %s/name/three", w.mnt));
	ck_fails(lstat(name("three"), &(struct stat){0}), ENOENT);
	want_list("two ");
	want_txn(name("two"), "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	want_file(a, "upper", "1\n");
}
END_TEST

START_TEST(exchange_and_noreplace)
{
	ck_works(symlink(a, name("x")));
	ck_works(symlink(b, name("y")));
	ck_works(renameat2(AT_FDCWD, name("x"), AT_FDCWD, name("y"), RENAME_EXCHANGE));
	want_name("x", b);
	want_name("y", a);
	ck_fails(renameat2(AT_FDCWD, name("x"), AT_FDCWD, name("y"), RENAME_NOREPLACE), EEXIST);
	ck_fails(renameat2(AT_FDCWD, name("x"), AT_FDCWD, name("z"), RENAME_EXCHANGE), ENOENT);
	ck_works(renameat2(AT_FDCWD, name("x"), AT_FDCWD, name("z"), RENAME_NOREPLACE));
	ck_fails(rename(name("none"), name("z")), ENOENT);
	ck_works(rename(name("z"), name("z")));
	want_name("z", b);
	want_name("y", a);
	want_list("y z ");
}
END_TEST

START_TEST(names_survive)
{
	ck_works(symlink(a, name("x")));
	ck_works(symlink(b, name("y")));
	ck_works(rename(name("y"), name("z")));
	world_kill(&w);
	world_start(&w, NULL);
	want_name("x", a);
	want_name("z", b);
	want_list("x z ");
	ck_works(unlink(name("x")));
	world_stop(&w);
	world_start(&w, NULL);
	want_list("z ");
	/* a name may lead to what is gone, or is not there yet */
	want_txn(b, "begin expected_upper=0 new_upper=- since=-\ncommit\n");
	ck_works(rmdir(b));
	ck_fails(stat(name("z"), &(struct stat){0}), ENOENT);
	ck_works(lstat(name("z"), &(struct stat){0}));
	ck_works(mkdir(b, 0755));
	want_name("z", b);
}
END_TEST

START_TEST(a_target_is_a_shard)
{
	static const char *const bad[] = {"x", "..", "/etc/passwd", "../shard", "../shard/", "../shard/x",
					  "../name/s0b5b5c3e-0000-4000-8000-000000000000",
					  "s0b5b5c3e-0000-4000-8000-000000000000",
					  "../shard/s0b5b5c3e-0000-4000-8000-000000000000/upper",
					  "../xshard/s0b5b5c3e-0000-4000-8000-000000000000",
					  "../shard/S0b5b5c3e-0000-4000-8000-000000000000",
					  "../shard/s0b5b5c3e-0000-4000-8000-0000000000000"};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_fails(symlink(bad[i], name("n")), EINVAL);
	want_list("");
	ck_works(symlink("../shard/s0b5b5c3e-0000-4000-8000-000000000000", name("n")));
	ck_works(symlink("shard/s0b5b5c3e-0000-4000-8000-000000000000/", name("m")));
	want_list("m n ");
	ck_fails(symlink(a, at(w.mnt, "n")), EPERM);
	ck_fails(symlink(a, at(w.mnt, "shard/n")), EPERM);
	ck_fails(symlink(a, at(a, "n")), EPERM);
}
END_TEST

START_TEST(any_bytes_up_to_255_are_a_name)
{
	char *longest = malloc(257);

	memset(longest, 'n', 256);
	longest[256] = '\0';
	ck_fails(symlink(a, name(longest)), ENAMETOOLONG);
	longest[255] = '\0';
	ck_works(symlink(a, name(longest)));
	ck_works(symlink(a, name("with space and \n newline")));
	ck_works(symlink(a, name("\xc3\xa4\xf0\x9f\x98\x80")));
	ck_works(symlink(b, name(" ")));
	ck_works(symlink(b, name("-rf")));
	world_kill(&w);
	world_start(&w, NULL);
	want_name(longest, a);
	want_name("with space and \n newline", a);
	want_name("\xc3\xa4\xf0\x9f\x98\x80", a);
	want_name("-rf", b);
	ck_works(unlink(name(longest)));
	free(longest);
}
END_TEST

START_TEST(a_name_that_is_no_utf_8_is_kept_or_refused)
{
	if (symlink(a, name("\xff\xfe")) != 0)
		return;
	world_kill(&w);
	world_start(&w, NULL);
	want_name("\xff\xfe", a);
	want_list("\xff\xfe ");
}
END_TEST

START_TEST(many_names_are_listed_each_once)
{
	char text[64], *out;

	for (int i = 0; i < 700; i++) {
		snprintf(text, sizeof text, "a-rather-long-name-of-number-%d", i);
		ck_works(symlink(i % 2 == 0 ? a : b, name(text)));
	}
	out = want_sh("ls -U %s/name | wc -l; ls -l %s/name | sort -u | wc -l", w.mnt, w.mnt);
	ck_assert_str_eq(out, "700\n701\n");
	free(out);
	free(want_sh("rm %s/name/*", w.mnt));
	want_list("");
}
END_TEST

Suite *names_suite(void)
{
	Suite *s = suite_create("names");
	TCase *tc = world_case(s, "names", 120);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, ln_mv_and_rm);
	tcase_add_test(tc, exchange_and_noreplace);
	tcase_add_test(tc, names_survive);
	tcase_add_test(tc, a_target_is_a_shard);
	tcase_add_test(tc, any_bytes_up_to_255_are_a_name);
	tcase_add_test(tc, a_name_that_is_no_utf_8_is_kept_or_refused);
	tcase_add_test(tc, many_names_are_listed_each_once);
	return s;
}
