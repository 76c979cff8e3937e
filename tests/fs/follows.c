/*
 * follows.c - the readers of examples/, in each language as its users write them, on `listen/<f>` and
 * `upper`: they see what others write, once and in order, end by themselves, and a signal ends them.
 */
#include <dirent.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/fs/fixture.h"

#define JAVA "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp $BUILT " /* starts fast */

/* SHARD [FROM [SEEN]] */
static const char *const followers[] = {
	"examples/bash/follow.sh", "/usr/bin/python3 examples/python/follow.py",
	"examples/node/follow.js", JAVA "Follow",
	"$BUILT/follow",           "$BUILT/go/follow",
};
enum { FOLLOWERS = sizeof followers / sizeof followers[0] };

#define MANY "/usr/bin/python3 examples/python/follow_many.py" /* FROM SHARD ... */
#define UPPERS "/usr/bin/python3 examples/python/uppers.py"    /* SHARD ... */

enum {
	TRANSACTIONS = 120,
	UPDATES = 1000,
	LARGE_EACH = 40,
	LARGE_ROWS = 150,
	LARGE_VAL = 7000,
	TERM_MS = 1000 /* a JVM waits 300 ms for a thread in a system call; the others take some 10 */
};

/* --- a program in the background ------------------------------------------------------------------- */

static void set_built(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s", shardfs_path());
	setenv("BUILT", at(dirname(path), "examples"), 1);
}

/* `command args`, which becomes the process itself; what it says is added to w.dir/out and w.dir/err. */
static pid_t start(const char *command, const char *args)
{
	char *line;
	pid_t pid;

	set_built();
	ck_assert_int_ge(asprintf(&line, "exec %s %s >>%s/out 2>>%s/err", command, args, w.dir, w.dir), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", line, (char *)NULL);
		_exit(127);
	}
	free(line);
	return pid;
}

static char *said(void)
{
	return slurp(at(w.dir, "err"));
}

/* It ends before the deadline; its status as sh has it. */
static int end_of(pid_t pid)
{
	uint64_t since = 0;
	pid_t got = 0;
	int status;

	while (got == 0 && until_deadline(&since))
		got = waitpid(pid, &status, WNOHANG);
	if (got != pid)
		kill(pid, SIGKILL);
	ck_assert_msg(got == pid, "it did not end; it said %.500s", said());
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void want_end(pid_t pid, int want)
{
	int status = end_of(pid);

	ck_assert_msg(status == want, "exit %d, not %d: %.500s", status, want, said());
}

static void want_fails(pid_t pid)
{
	int status = end_of(pid);

	ck_assert_msg(status == 1, "exit %d: %.500s", status, said());
}

/* Wait until somebody listens to the shard. */
static void want_listener(void)
{
	uint64_t since = 0;
	bool found = false;

	while (!found && until_deadline(&since)) {
		DIR *readers = opendir(at(shard, "readers"));
		struct dirent *e;

		ck_assert_ptr_nonnull(readers);
		while ((e = readdir(readers)) != NULL)
			found = found || e->d_name[0] != '.';
		closedir(readers);
	}
	ck_assert_msg(found, "nobody listens; it said %.500s", said());
}

/* Wait until the file w.dir/name has this text. */
static void want_text(const char *name, const char *want)
{
	uint64_t since = 0;
	bool same = false;
	char *text = NULL;

	while (!same && until_deadline(&since)) {
		free(text);
		text = slurp_rc(at(w.dir, name));
		same = text != NULL && strcmp(text, want) == 0;
	}
	ck_assert_msg(same, "%s is %.500s, not %.500s; it said %.500s", name, text, want, said());
	free(text);
}

static void want_seen(int upper)
{
	char want[16];

	snprintf(want, sizeof want, "%d\n", upper);
	want_text("seen", want);
}

/* --- what is written ------------------------------------------------------------------------------- */

/* The keys of a run rise with the times: whatever is merged, and however it is sorted, the order is one. */
struct run {
	int fd;
	int time, updates;
	FILE *all; /* the rows of all transactions */
};

static void put_row(struct run *r, FILE *txn, bool large)
{
	char val[LARGE_VAL + 1] = "\\t\\r\\n \\\\N\xff"; /* escaped as they are written again */
	char row[LARGE_VAL + 64];

	if (large) {
		for (int i = 0; i < LARGE_VAL;
		     i++) { /* bytes of which no encoding is true, and some lines' ends */
			val[i] = (char)((r->updates + i) % 224 + ' ');
			if (val[i] == '\\')
				val[i] = '/';
		}
		val[LARGE_VAL] = '\0';
	}
	snprintf(row, sizeof row, "%d\t1\t%06d\t%s\n", r->time, r->updates, val);
	fputs(row, txn);
	fputs(row, r->all);
	r->updates++;
}

/* The next transaction, of so many rows; the last one finishes the shard. */
static void commit(struct run *r, int rows, bool last)
{
	char *text, upper[16] = "-";
	size_t len;
	FILE *txn = open_memstream(&text, &len);

	if (!last)
		snprintf(upper, sizeof upper, "%d", r->time + 1);
	fprintf(txn, "begin expected_upper=%d new_upper=%s\n", r->time, upper);
	for (int i = 0; i < rows; i++)
		put_row(r, txn, rows == LARGE_ROWS);
	fputs("commit\n", txn);
	fclose(txn);
	ck_errno(put_all(r->fd, text, len), 0);
	r->time++;
	free(text);
}

/* Empty ones, small ones, and some of a MiB. Now and then the follower is waited for, so that it has to be
 * woken. */
static void commit_until(struct run *r, int time)
{
	while (r->time < time) {
		commit(r, r->time % LARGE_EACH == LARGE_EACH / 2 ? LARGE_ROWS : r->time % 3 * 4, false);
		if (r->time % 10 == 0)
			want_seen(r->time);
	}
}

/* --- promises -------------------------------------------------------------------------------------- */

START_TEST(each_language_follows_and_goes_on_where_it_was)
{
	char args[PATH_MAX], *all, *out;
	struct run r = {.fd = append_open(shard)};
	size_t len;
	uint64_t began;
	pid_t pid;

	r.all = open_memstream(&all, &len);
	snprintf(args, sizeof args, "%s now %s/seen", shard, w.dir);
	pid = start(followers[_i], args);
	want_listener();
	commit_until(&r, TRANSACTIONS / 2);

	want_seen(TRANSACTIONS / 2);
	usleep(20000); /* it waits, or is about to */
	began = now_ms();
	ck_works(kill(pid, SIGTERM));
	ck_assert_int_ne(end_of(pid), 0);
	ck_assert_uint_lt(now_ms() - began, TERM_MS);
	check_write(at(w.dir, "err"), ""); /* Go has said so, bash may */

	commit(&r, 1, false); /* while nobody looks */
	pid = start(followers[_i], args);
	commit_until(&r, TRANSACTIONS);
	commit(&r, UPDATES - r.updates, true);
	want_end(pid, 0);
	want_text("seen", "-\n");
	want_end(start(followers[_i], args), 0);

	fclose(r.all);
	want_text("err", "");
	out = slurp(at(w.dir, "out"));
	ck_assert_uint_eq(count_lines(out), UPDATES);
	ck_assert_msg(strcmp(out, all) == 0, "it is another text: %.1000s", out);
	free(out);
	free(all);
	close(r.fd);
}
END_TEST

START_TEST(a_start_from_what_was_given_up_is_told)
{
	char args[PATH_MAX], *out;

	want_txn(shard, "begin expected_upper=0 new_upper=10 since=5\n1\t1\tkey\t\ncommit\n");
	snprintf(args, sizeof args, "%s 3", shard);
	want_fails(start(followers[_i], args));
	out = said();
	ck_assert_msg(strstr(out, "since is 5") != NULL, "%s", out);
	free(out);
}
END_TEST

START_TEST(what_could_not_be_printed_was_not_seen)
{
	char *out;
	int status;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tkey\t\ncommit\n");
	set_built();
	status = sh(&out, "timeout 10 %s %s 0 %s/seen >/dev/full", followers[_i], shard, w.dir);
	ck_assert_msg(status != 0 && status != 124 && status != 126 && status != 127, "exit %d: %s", status,
		      out);
	ck_fails(access(at(w.dir, "seen"), F_OK), ENOENT);
	free(out);
}
END_TEST

START_TEST(a_mount_that_stops_is_told)
{
	char *out;
	pid_t pid = start(followers[_i], shard);

	want_listener();
	world_stop(&w);
	want_fails(pid);
	out = said();
	ck_assert_str_ne(out, "");
	free(out);
}
END_TEST

enum { SHARDS = 3 };

START_TEST(one_selector_follows_several_shards)
{
	char *shards[SHARDS], *args, *want, *out, text[128];
	size_t len, want_len;
	FILE *f = open_memstream(&args, &len), *g = open_memstream(&want, &want_len);
	pid_t pid;

	fprintf(f, "0");
	for (int i = 0; i < SHARDS; i++)
		fprintf(f, " %s", shards[i] = i == 0 ? strdup(shard) : shard_new(&w));
	fclose(f);
	pid = start(MANY, args);
	want_listener();
	for (int i = 0; i < 100; i++) {
		const char *to = shards[i % SHARDS];

		snprintf(text, sizeof text, "begin expected_upper=* new_upper=+1\n%d\t1\tkey\t%d\ncommit\n",
			 i / SHARDS, i);
		want_txn(to, text);
		fprintf(g, "%s\t%d\t1\tkey\t%d\n", to, i / SHARDS, i);
		fflush(g);
		want_text("out", want); /* it is woken each time, by another one */
	}
	for (int i = 0; i < SHARDS; i++) {
		want_txn(shards[i], "begin expected_upper=* new_upper=-\ncommit\n");
		free(shards[i]);
	}
	want_end(pid, 0);
	fclose(g);
	out = slurp(at(w.dir, "out"));
	ck_assert_str_eq(out, want);
	free(out);
	free(want);
	free(args);
}
END_TEST

START_TEST(one_selector_tells_the_uppers_of_several_shards)
{
	char *other = shard_new(&w), args[PATH_MAX], *want;
	size_t len;
	FILE *g = open_memstream(&want, &len);
	pid_t pid;

	snprintf(args, sizeof args, "%s %s", shard, other);
	pid = start(UPPERS, args);
	fprintf(g, "%s\t0\n%s\t0\n", shard, other);
	for (int i = 0; i < 50; i++) {
		const char *to = i % 2 == 0 ? shard : other;
		fflush(g);
		want_text("out", want);
		want_txn(to, i < 48 ? "begin expected_upper=* new_upper=+1\ncommit\n"
				    : "begin expected_upper=* new_upper=-\ncommit\n");
		if (i < 48)
			fprintf(g, "%s\t%d\n", to, i / 2 + 1);
		else
			fprintf(g, "%s\t-\n", to);
	}
	want_end(pid, 0);
	fclose(g);
	want_text("out", want);
	free(want);
	free(other);
}
END_TEST

Suite *follows_suite(void)
{
	Suite *s = suite_create("follows");
	TCase *tc = shard_case(s, "follows", 60);

	tcase_add_loop_test(tc, each_language_follows_and_goes_on_where_it_was, 0, FOLLOWERS);
	tcase_add_loop_test(tc, a_start_from_what_was_given_up_is_told, 0, FOLLOWERS);
	tcase_add_loop_test(tc, what_could_not_be_printed_was_not_seen, 0, FOLLOWERS);
	tcase_add_loop_test(tc, a_mount_that_stops_is_told, 0, FOLLOWERS);
	tcase_add_test(tc, one_selector_follows_several_shards);
	tcase_add_test(tc, one_selector_tells_the_uppers_of_several_shards);
	return s;
}
