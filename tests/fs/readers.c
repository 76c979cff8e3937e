/* readers.c - readers/: who reads now, and what since waits for. */
#include "tests/fs/follower.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The purposes and needs of all, sorted: "listen/5 4;snapshot -;". Given. */
static char *readers(void)
{
	return want_sh("cd %s/readers; for f in *; do test -e $f || continue; "
		       "echo \"$(sed -n 's/^purpose=//p' $f) $(sed -n 's/^needs=//p' $f)\"; done | sort | tr '\\n' ';'",
		       shard);
}

static void want_readers(const char *want)
{
	char *got = readers();

	ck_assert_str_eq(got, want);
	free(got);
}

/* The mount hears of a close(2), or of a death, a moment after it. */
static void want_none_soon(void)
{
	uint64_t since = 0;
	char *got = readers();

	while (*got != '\0' && until_deadline(&since)) {
		free(got);
		got = readers();
	}
	ck_assert_str_eq(got, "");
	free(got);
}

START_TEST(each_kind_of_reader_is_shown)
{
	int fds[6];

	want_readers("");
	want_txn(shard, "begin expected_upper=0 new_upper=10\n0\t1\ta\t\ncommit\n");
	fds[0] = follow("snapshot", 0);
	fds[1] = follow("as_of/3", 0);
	fds[2] = follow("as_of/77", 0);
	fds[3] = follow("listen/5", 0);
	fds[4] = follow("listen/now", 0);
	fds[5] = follow("subscribe/8", 0);
	/* the content that is pinned needs no time; a listener that of before its frontier */
	want_readers("as_of/3 -;as_of/77 77;listen/5 4;listen/now 9;snapshot -;subscribe/8 8;");
	want_text(fds[3], "begin lower=5 upper=10\ncommit\n");
	want_readers("as_of/3 -;as_of/77 77;listen/5 9;listen/now 9;snapshot -;subscribe/8 8;");
	for (int i = 0; i < 6; i++)
		close(fds[i]);
	want_none_soon();
	/* other files have no readers */
	fds[0] = follow("upper", 0);
	fds[1] = follow("state", 0);
	fds[2] = follow("wait/100", 0);
	fds[3] = follow("batches/0-10", 0);
	want_readers("");
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}
END_TEST

static void *open_in_thread(void *arg)
{
	*(int *)arg = follow("listen/0", 0);
	return NULL;
}

START_TEST(a_file_tells_who_and_since_when)
{
	struct stat st, st2;
	char *out, *name;
	pthread_t thread;
	int fd;

	/* whichever of its threads opened it */
	ck_assert_int_eq(pthread_create(&thread, NULL, open_in_thread, &fd), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	name = want_sh("ls %s/readers", shard);
	ck_assert_uint_eq(strlen(name), 38);
	ck_assert_int_eq(name[0], 'r');
	name[37] = '\0';
	out = slurp(at(at(shard, "readers"), name));
	ck_works(stat(at(at(shard, "readers"), name), &st));
	ck_assert_int_eq(st.st_size, strlen(out));
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0444);
	free(out);
	out = want_sh("cd %s/readers; test \"$(sed -n 's/^host=//p' *)\" = \"$(hostname)\" && grep -x 'pid=%d' * > /dev/null && "
		      "grep -qxE 'since=20[0-9-]+T[0-9:]+[.][0-9]{3}Z' * && sed 's/=.*//' *",
		      shard, (int)getpid());
	ck_assert_str_eq(out, "host\npid\npurpose\nneeds\nsince\n");
	free(out);
	ck_fails(open(at(at(shard, "readers"), name), O_WRONLY), EPERM);
	ck_fails(unlink(at(at(shard, "readers"), name)), EPERM);
	ck_fails(open(at(shard, "readers/x"), O_WRONLY | O_CREAT, 0600), EPERM);
	ck_works(stat(at(at(shard, "readers"), name), &st2));
	ck_assert_uint_eq(st.st_ino, st2.st_ino);
	int it = open(at(at(shard, "readers"), name), O_RDONLY);

	close(fd);
	want_none_soon();
	ck_fails(stat(at(at(shard, "readers"), name), &st), ENOENT);
	ck_works(fstat(it, &st)); /* an open one goes on */
	ck_assert_str_ne(read_text(it), "");
	close(it);
	free(name);
}
END_TEST

static int wait_for_more(void *arg)
{
	char buf[10];

	return read(*(int *)arg, buf, sizeof buf) > 0 ? 0 : errno;
}

START_TEST(it_goes_with_the_last_who_has_it_open)
{
	int fd = follow("listen/3", 0), status;
	pid_t pid = spawn(wait_for_more, &fd);

	want_in_call(pid, SYS_read);
	close(fd);
	want_readers("listen/3 2;");
	ck_works(kill(pid, SIGKILL));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	want_none_soon();
	want_txn(shard, "begin expected_upper=0 new_upper=10 since=9\ncommit\n");
	want_file(shard, "since", "9\n");
}
END_TEST

START_TEST(those_of_a_mount_that_died_hold_nothing)
{
	int fd = follow("listen/3", 0);

	world_kill(&w);
	world_start(&w, NULL);
	want_readers("");
	want_txn(shard, "begin expected_upper=0 new_upper=10 since=9\ncommit\n");
	want_file(shard, "since", "9\n");
	close(fd);
}
END_TEST

static void want_pinned_by(const char *want)
{
	char *got = want_sh("python3 -c 'import json; print(json.load(open(\"%s/state\"))[\"since_pinned_by\"])'", shard);

	got[strcspn(got, "\n")] = '\0';
	ck_assert_str_eq(got, want);
	free(got);
}

START_TEST(state_names_what_pins_since)
{
	char *name;
	int fd;

	want_txn(shard, "begin expected_upper=0 new_upper=100\ncommit\n");
	want_pinned_by("default");
	ck_errno(write_once(at(shard, "since"), "50"), 0);
	fd = open(at(shard, "holds/slow"), O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(put(fd, "60"), 2);
	ck_errno(write_once(at(shard, "since"), "70"), 0);
	want_file(shard, "since", "60\n");
	want_pinned_by("slow");
	int reader = follow("listen/66", O_NONBLOCK);

	ck_assert_int_eq(put(fd, "90"), 2);
	close(fd);
	want_file(shard, "since", "65\n");
	name = want_sh("ls %s/readers", shard);
	name[strcspn(name, "\n")] = '\0';
	want_pinned_by(name);
	free(name);
	close(reader);
	want_none_soon();
	want_pinned_by(""); /* it moves with the next commit */
	want_txn(shard, "begin expected_upper=100 new_upper=101\ncommit\n");
	want_file(shard, "since", "70\n");
	want_pinned_by("default");
	name = want_sh("python3 -c 'import json; s = json.load(open(\"%s/state\")); print(s[\"readers\"], sorted(s[\"holds\"]), s[\"holds\"][\"slow\"])'",
		       shard);
	ck_assert_str_eq(name, "0 ['default', 'slow'] {'since': 90, 'token': 0}\n");
	free(name);
}
END_TEST

START_TEST(hundreds_come_and_go)
{
	enum { MANY = 400 };
	int fds[MANY];
	DIR *dir;
	struct dirent *e;
	int n = 0;

	for (int i = 0; i < MANY; i++) {
		char name[32];

		snprintf(name, sizeof name, "listen/%d", i);
		fds[i] = follow(name, 0);
	}
	dir = opendir(at(shard, "readers"));
	while ((e = readdir(dir)) != NULL) {
		n += e->d_name[0] == 'r';
		if (n % 3 == 0 && n < MANY)
			close(fds[n]); /* while it is listed */
	}
	closedir(dir);
	ck_assert_int_eq(n, MANY);
	for (int i = 0; i < MANY; i++)
		if (i % 3 != 0 || i == 0)
			close(fds[i]);
	want_none_soon();
}
END_TEST

Suite *readers_suite(void)
{
	Suite *s = suite_create("readers");
	TCase *tc = shard_case(s, "readers", 120);

	tcase_add_test(tc, each_kind_of_reader_is_shown);
	tcase_add_test(tc, a_file_tells_who_and_since_when);
	tcase_add_test(tc, it_goes_with_the_last_who_has_it_open);
	tcase_add_test(tc, those_of_a_mount_that_died_hold_nothing);
	tcase_add_test(tc, state_names_what_pins_since);
	tcase_add_test(tc, hundreds_come_and_go);
	return s;
}
