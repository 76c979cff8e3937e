/*
 * replicate.c - `cat a/listen/$(cat b/upper) > b/append` makes b what a is, whoever is killed meanwhile.
 *
 * REPLICATE_KILLS is how many there are, of cats or of the mount.
 */
#include "tests/fs/fixture.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

static uint64_t number_in(const char *dir, const char *name)
{
	char *text = slurp(at(dir, name));
	uint64_t n = strcmp(text, "-\n") == 0 ? UINT64_MAX : strtoull(text, NULL, 10);

	free(text);
	return n;
}

/* The texts of both at a time, which must be readable. */
static void want_same_at(const char *a, const char *b, uint64_t time)
{
	char name[40], *x, *y;

	snprintf(name, sizeof name, "as_of/%" PRIu64, time);
	x = slurp(at(a, name));
	y = slurp(at(b, name));
	ck_assert_msg(strcmp(x, y) == 0, "as_of/%" PRIu64 ": %zu and %zu bytes", time, strlen(x), strlen(y));
	free(x);
	free(y);
}

/* All updates, summed. Given. */
static char *updates(const char *dir)
{
	return want_sh("awk -F'\t' 'NF == 4 { s[$1 \" \" $3 \" \" length($4) \" \" substr($4, 1, 40)] += $2 } "
		       "END { for (k in s) if (s[k] != 0) print k, s[k] }' %s/listen/0 | sort",
		       dir);
}

/*
 * Both, which are finished, are the same at every time up to `last` that both can tell. With many times that is
 * looked at by their updates, and by some of the times.
 */
static void want_same(const char *a, const char *b, uint64_t last)
{
	enum { TIMES = 100 };
	uint64_t sa = number_in(a, "since"), sb = number_in(b, "since"), from = sa > sb ? sa : sb;

	ck_assert_uint_eq(number_in(a, "upper"), UINT64_MAX);
	ck_assert_uint_eq(number_in(b, "upper"), UINT64_MAX);
	for (uint64_t t = from; t <= last; t += 1 + (last - from) / TIMES)
		want_same_at(a, b, t);
	if (from == 0) {
		char *x = updates(a), *y = updates(b);

		ck_assert_uint_gt(strlen(x), 0);
		ck_assert(strcmp(x, y) == 0);
		free(x);
		free(y);
	}
}

/* --- in peace -------------------------------------------------------------------------------------- */

static void fill(const char *dir)
{
	char *text = malloc(3 << 20), *p = stpcpy(text, "begin expected_upper=2 new_upper=9\n");

	want_txn(dir, "begin expected_upper=0 new_upper=2\n0\t1\ta\\tb\t\\N\n1\t-7\t\\N\tx\\n\ncommit\n");
	for (int i = 0; i < 2000; i++)
		p += sprintf(p, "%d\t1\tk%d\t%01000d\n", 2 + i % 7, i, i);
	strcpy(p, "commit\n");
	want_txn(dir, text);
	want_txn(dir, "begin expected_upper=9 new_upper=12\ncommit\n");
	want_txn(dir, "begin expected_upper=12 new_upper=13\n12\t1\tz\t\n12\t7\t\\N\tx\\n\ncommit\n");
	free(text);
}

/* How one may copy $A/listen/$(cat $B/upper) to $B/append. */
static const char *const ways[] = {
	"cat $A/listen/$(cat $B/upper) > $B/append",
	"cat $A/listen/0 > $B/append",
	"cp $A/listen/$(cat $B/upper) $B/append",
	"dd if=$A/listen/$(cat $B/upper) of=$B/append bs=7777 status=none",
	"dd if=$A/listen/$(cat $B/upper) of=$B/append bs=3M status=none",
	"tee $B/append < $A/listen/$(cat $B/upper) > /dev/null",
	"cat $A/listen/$(cat $B/upper) | tee $B/append > /dev/null",
	"sed '' $A/listen/$(cat $B/upper) > $B/append",
	"head -c 2000 $A/listen/0 > $B/append; cat $A/listen/$(cat $B/upper) > $B/append",
	"cat $A/subscribe/3 > $B/append",
	"cat $A/subscribe/now > $B/append",
	"(cat $A/subscribe/0; :) | dd of=$B/append bs=1 count=50 status=none; cat $A/subscribe/0 > $B/append",
	"cat $A/listen/0 > $B/append & cat $A/listen/0 > $B/append & cat $A/listen/0 > $B/append; wait",
};
enum { WAYS = sizeof ways / sizeof ways[0] };

START_TEST(programs_replicate_a_shard)
{
	char *b = shard_new(&w), *out;

	fill(shard);
	if (_i == 4) { /* on from what is there */
		want_txn(b, "begin lower=0 upper=2\n0\t1\ta\\tb\t\\N\n1\t-7\t\\N\tx\\n\ncommit\n");
	}
	want_txn(shard, "begin expected_upper=13 new_upper=-\ncommit\n");
	out = want_sh("export A=%s B=%s; %s", shard, b, ways[_i]);
	ck_assert_str_eq(out, "");
	free(out);
	want_same(shard, b, 15);
	free(b);
}
END_TEST

START_TEST(a_subscription_is_refused_by_a_shard_that_is_not_empty)
{
	char *b = shard_new(&w), *before, *after, *out;

	fill(shard);
	want_txn(shard, "begin expected_upper=13 new_upper=-\ncommit\n");
	want_txn(b, "begin expected_upper=0 new_upper=1\n0\t1\tmine\t\ncommit\n");
	before = print_shard(b);
	ck_assert_int_ne(sh(&out, "cat %s/subscribe/5 > %s/append", shard, b), 0);
	ck_assert_msg(strstr(out, "Stale file handle") != NULL, "%s", out);
	free(out);
	/* nor is a gap taken */
	ck_assert_int_ne(sh(&out, "cat %s/listen/5 > %s/append", shard, b), 0);
	ck_assert_msg(strstr(out, "Stale file handle") != NULL, "%s", out);
	free(out);
	after = print_shard(b);
	ck_assert_str_eq(before, after);
	free(before);
	free(after);
	free(b);
}
END_TEST

START_TEST(what_since_took_is_copied_by_a_subscription)
{
	char *b = shard_new(&w), *out;

	fill(shard);
	ck_errno(write_once(at(shard, "since"), "7"), 0);
	ck_assert_int_ne(sh(&out, "cat %s/listen/$(cat %s/upper) > %s/append", shard, b, b), 0);
	ck_assert_msg(strstr(out, "No data available") != NULL, "%s", out);
	free(out);
	want_txn(shard, "begin expected_upper=13 new_upper=-\n13\t1\tlast\t\ncommit\n");
	free(want_sh("cat %s/subscribe/7 > %s/append", shard, b));
	ck_assert_uint_eq(number_in(b, "since"), 7);
	want_same(shard, b, 14);
	free(b);
}
END_TEST

/* --- under fire ------------------------------------------------------------------------------------ */

enum { CATS = 3, LARGE = 3 << 19 };

struct shared {
	_Atomic bool stop;
};

static struct shared *shared;

/* Appends to the fixture's shard, over the deaths of the mount, until it is told to stop. */
static int write_on(void *arg)
{
	struct rng r = rng_new(*(uint64_t *)arg);
	char *text = malloc(LARGE + TEXT_MAX);
	bool large = false;

	for (unsigned n = 0; !atomic_load(&shared->stop); n++) {
		const struct timespec rest = {.tv_nsec = 1000 + (long)rng_below(&r, 3000000)};
		char *p = text + sprintf(text, "begin expected_upper=* new_upper=+%u\n", 1 + (unsigned)rng_below(&r, 3));

		for (size_t i = rng_below(&r, 6); i > 0; i--)
			p += sprintf(p, "*\t%d\tk%u\t%u\n", rng_below(&r, 3) != 0 ? 1 : -1, (unsigned)rng_below(&r, 50),
				     (unsigned)rng_below(&r, 3));
		if (large || rng_below(&r, 10) == 0) { /* it is taken back by the next one */
			p += sprintf(p, "*\t%d\tlarge\t", large ? -1 : 1);
			memset(p, 'L', LARGE);
			p = stpcpy(p + LARGE, "\n");
			large = !large;
		}
		strcpy(p, "commit\n");
		int fd = open(at(shard, "append"), O_WRONLY | O_CLOEXEC);

		if (fd >= 0)
			(void)put_all(fd, text, strlen(text)); /* the mount may die: then nothing is promised */
		close(fd);
		nanosleep(&rest, NULL);
	}
	return 0;
}

static pid_t start_cat(const char *b, const char *errors)
{
	pid_t pid = fork();

	if (pid == 0) {
		char line[1024];

		snprintf(line, sizeof line, "exec 2>> %s; exec cat %s/listen/$(cat %s/upper) > %s/append", errors, shard, b, b);
		execl("/bin/sh", "sh", "-c", line, (char *)NULL);
		_exit(127);
	}
	ck_assert_int_gt(pid, 0);
	return pid;
}

static unsigned kills(void)
{
	const char *given = getenv("REPLICATE_KILLS");

	return given != NULL ? (unsigned)strtoul(given, NULL, 10) : 12;
}

static void move_hold(const char *b)
{
	free(want_sh("echo listen=$(cat %s/upper) > %s/holds/b", b, shard));
}

/* The cats, or the mount under them and then the cats. */
static void kill_some(struct rng *r, bool mount, pid_t cats[CATS], size_t count)
{
	const struct timespec rest = {.tv_nsec = 1000 + (long)rng_below(r, 40000000)};
	int status;

	nanosleep(&rest, NULL);
	if (mount)
		world_kill(&w);
	for (size_t i = 0; i < count; i++) {
		ck_works(kill(cats[i], SIGKILL));
		ck_assert_int_eq(waitpid(cats[i], &status, 0), cats[i]);
		ck_assert_msg(mount || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL), "a cat ended: %x", (unsigned)status);
	}
}

/* What cats may say when the mount dies under them. */
static void want_no_complaint(const char *path, bool mount_died)
{
	char *text = check_read(path), *rest = NULL;

	for (char *l = strtok_r(text, "\n", &rest); l != NULL; l = strtok_r(NULL, "\n", &rest))
		ck_assert_msg(mount_died && strstr(l, "Stale") == NULL && strstr(l, "No data") == NULL &&
				      strstr(l, "Invalid") == NULL, "%s", l);
	free(text);
	ck_works(truncate(path, 0));
}

START_TEST(it_is_exactly_once_whoever_is_killed)
{
	bool hold = _i == 1;
	char *b = shard_new(&w), *errors = check_path(w.dir, "errors");
	unsigned mounts = 0, count = kills();
	struct rng r = rng_new(800 + (uint64_t)_i);
	uint64_t salt = 900 + (uint64_t)_i, upper;
	pid_t writer, cats[CATS];

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_write(errors, "");
	if (hold) {
		move_hold(b);
		ck_errno(write_once(at(shard, "since"), "upper-1"), 0);
	}
	writer = spawn(write_on, &salt);
	for (unsigned n = 0; n < count; n++) {
		size_t some = 1 + rng_below(&r, CATS);
		bool died = n % 4 == 1;

		if (hold)
			move_hold(b);
		for (size_t i = 0; i < some; i++)
			cats[i] = start_cat(b, errors);
		kill_some(&r, died, cats, some);
		if (died) {
			mounts++;
			world_start(&w, NULL);
		}
		want_no_complaint(errors, died);
		upper = number_in(b, "upper");
		if (upper != 0)
			want_same_at(shard, b, upper - 1);
	}
	atomic_store(&shared->stop, true);
	ck_assert_int_eq(join(writer), 0);
	upper = number_in(shard, "upper");
	want_txn(shard, "begin expected_upper=* new_upper=-\ncommit\n");
	free(want_sh("cat %s/listen/$(cat %s/upper) > %s/append", shard, b, b));
	want_same(shard, b, upper);
	if (hold) {
		move_hold(b);
		ck_assert_uint_eq(number_in(shard, "since"), upper == 0 ? 0 : upper - 1);
	}
	printf("replicate: %u kills, %u of the mount, upper %" PRIu64 "\n", count, mounts, upper);
	munmap(shared, sizeof *shared);
	free(errors);
	free(b);
}
END_TEST

Suite *replicate_suite(void)
{
	Suite *s = suite_create("replicate");
	TCase *tc = shard_case(s, "replicate", 900);

	tcase_add_loop_test(tc, programs_replicate_a_shard, 0, WAYS);
	tcase_add_test(tc, a_subscription_is_refused_by_a_shard_that_is_not_empty);
	tcase_add_test(tc, what_since_took_is_copied_by_a_subscription);
	tcase_add_loop_test(tc, it_is_exactly_once_whoever_is_killed, 0, 2);
	return s;
}
