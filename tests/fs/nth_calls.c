/*
 * nth_calls.c - the n-th system call of a mount on its store fails, for n = 1, 2, ...: see nth.h. The calls
 * are those of an interposed library, tests/shim/shim.c.
 */
#include "tests/fs/nth.h"

#include <dirent.h>
#include <limits.h>

/* The scenes of a run, in this order; each on its own shard. */
static const char *const played[] = {"append",
				     "append and read a blob",
				     "snapshot",
				     "write a staged batch",
				     "commit a staged batch",
				     "rename a staged batch",
				     "since",
				     "make a hold",
				     "make a name",
				     "owner",
				     "compact",
				     "gc",
				     "mkdir",
				     "rmdir",
				     "rollup",
				     "list"};
enum { PLAYED = sizeof played / sizeof played[0] };

static const struct nth_scene *scenes[PLAYED];
static const struct nth_want *wants[PLAYED];

static void find_scenes(const struct nth_want *all)
{
	for (size_t i = 0; i < PLAYED; i++)
		for (size_t j = 0; j < nth_scene_count; j++)
			if (strcmp(nth_scenes[j].name, played[i]) == 0) {
				scenes[i] = &nth_scenes[j];
				wants[i] = &all[j];
			}
}

/* --- mounts that fail ----------------------------------------------------------------------------------- */

static void set(const char *variable, const char *value)
{
	ck_works(value != NULL ? setenv(variable, value, 1) : unsetenv(variable));
}

/* A mount under the shim; fail: what it is to do once it is armed, or NULL. */
static void start(const char *fail)
{
	char shim[PATH_MAX];
	const char *end = strrchr(shardfs_path(), '/');

	snprintf(shim, sizeof shim, "%.*s/shim.so", (int)(end - shardfs_path()), shardfs_path());
	set("SHIM_DIR", w.store);
	set("SHIM_ARM", at(w.dir, "arm"));
	set("SHIM_COUNT", at(w.dir, "count"));
	set("SHIM_FAIL", fail);
	set("LD_PRELOAD", shim);
	world_start(&w, NULL);
	set("LD_PRELOAD", NULL);
	set("SHIM_FAIL", NULL);
}

static void arm(void)
{
	check_write(at(w.dir, "arm"), "");
}

/* Calls of a class as the shim counted them; "any": all that change or sync. */
static unsigned long count_of(const char *counts, const char *class)
{
	char *copy = strdup(counts), *rest = copy, *line;
	unsigned long sum = 0;

	while ((line = strsep(&rest, "\n")) != NULL) {
		char name[32];
		unsigned long n;
		bool changes;

		if (sscanf(line, "%31s %lu", name, &n) != 2)
			continue;
		changes =
			strcmp(name, "open") != 0 && strcmp(name, "read") != 0 && strcmp(name, "reply") != 0;
		if (strcmp(class, "any") == 0 ? changes : strcmp(class, name) == 0)
			sum += n;
	}
	free(copy);
	return sum;
}

/* --- one run -------------------------------------------------------------------------------------------- */

struct run {
	const char *class;
	const char *how; /* behind the number */
	unsigned long nth;
	bool always;
	const char *also;
	struct stage_set sets[PLAYED];
	int rc[PLAYED];
	char when[100];
};

/* What a user may be told when a call failed in that way. */
static bool may_say(const char *fail, int rc)
{
	if (rc == 0 || rc == EIO || rc == ETIMEDOUT)
		return true;
	return rc == ENOSPC && strstr(fail, "ENOSPC") != NULL;
}

/* It works when it is tried again; the call that fails may be one of the first such try. */
static void again(struct run *r, size_t i)
{
	int rc = nth_run(scenes[i], &r->sets[i]);

	if (rc != 0 && rc != scenes[i]->done && may_say(r->when, rc))
		nth_again(scenes[i], wants[i], &r->sets[i], r->when);
	else
		nth_check(scenes[i], wants[i], &r->sets[i], 0, r->when);
}

static void play_all(struct run *r)
{
	for (size_t i = 0; i < PLAYED; i++) {
		r->rc[i] = nth_run(scenes[i], &r->sets[i]);
		ck_assert_msg(may_say(r->when, r->rc[i]), "%s: %s: %s", scenes[i]->name, r->when,
			      strerrorname_np(r->rc[i]));
		if (r->always)
			continue;
		nth_check(scenes[i], wants[i], &r->sets[i], r->rc[i], r->when);
		again(r, i);
	}
}

/* Whether all is still there when another mount looks. */
static void look_anew(struct run *r)
{
	if (r->always || r->nth % 2 == 0) {
		world_kill(&w);
		ck_works(unlink(at(w.dir, "arm")));
	} else {
		world_stop(&w);
	}
	world_start(&w, NULL);
	for (size_t i = 0; i < PLAYED; i++) {
		if (r->always) {
			r->sets[i].heard[0] = '\0';
			if (strcmp(wants[i]->before, wants[i]->after) != 0)
				nth_check(scenes[i], wants[i], &r->sets[i], r->rc[i], r->when);
			nth_again(scenes[i], wants[i], &r->sets[i], r->when);
		} else {
			char *got = nth_print(&r->sets[i]);

			ck_assert_msg(strcmp(got, wants[i]->after) == 0, "%s: %s: after a restart: %s",
				      scenes[i]->name, r->when, got);
			free(got);
		}
		nth_free(&r->sets[i]);
	}
	world_stop(&w);
	free(want_sh("%s fsck %s", shardctl_path(), w.store));
	world_close(&w);
}

static void run(struct run *r)
{
	char fail[100];

	snprintf(fail, sizeof fail, "%s:%lu:%s%s%s", r->class, r->nth, r->how, r->always ? ":always" : "",
		 r->also);
	snprintf(r->when, sizeof r->when, "%s", fail);
	world_new(&w);
	start(fail);
	for (size_t i = 0; i < PLAYED; i++)
		r->sets[i] = nth_prepare();
	arm();
	play_all(r);
	look_anew(r);
}

/* --- all ------------------------------------------------------------------------------------------------ */

struct way {
	const char *class;
	const char *how;
	unsigned samples; /* of the numbers that there are */
	bool always;
	const char *also; /* fails */
};

static const struct way ways[] = {
	{"any", "EIO", 4, false, ""},
	{"any", "ENOSPC", 2, false, ""},
	{"any", "EINTR", 1, false, ""},
	{"write-log", "EIO:short", 1, false, ""},
	{"write-log", "ENOSPC:count", 1, false, ""},
	{"write-blob", "EIO:short", 1, false, ""},
	{"write-blob", "ENOSPC:count", 1, false, ""},
	{"sync-log", "EIO", 2, false, ""},
	{"sync-blob", "EIO", 1, false, ""},
	{"sync-dir", "EIO", 1, false, ""},
	{"rename", "EIO", 1, false, ""},
	{"unlink", "EIO", 1, false, ""},
	{"mkdir", "EIO", 1, false, ""},
	{"create", "ENFILE", 1, false, ""},
	{"open", "EMFILE", 1, false, ""},
	{"read", "EIO", 2, false, ""},
	{"any", "EIO", 2, true, ""},
	{"any", "ENOSPC", 1, true, ""},
	{"sync-log", "EIO", 1, true, ""},
	/* Then the store is opened anew, and that fails too. */
	{"sync-log", "EIO", 1, false, ",write-other:1:EIO"},
	{"sync-log", "EIO", 1, false, ",sync-other:1:EIO"},
	{"write-log", "EIO:short", 1, false, ",create:1:ENFILE"},
	{"sync-log", "EIO", 1, false, ",rename:1:ENOSPC"},
};
enum { WAYS = sizeof ways / sizeof ways[0] };

/* How many calls a run makes when none fails. */
static void rehearse(struct nth_want **all, unsigned long made[WAYS])
{
	struct stage_set sets[PLAYED];
	char *before, *after;

	world_new(&w);
	start(NULL);
	*all = nth_rehearse();
	find_scenes(*all);
	for (size_t i = 0; i < PLAYED; i++)
		sets[i] = nth_prepare();
	arm();
	before = slurp(at(w.dir, "count"));
	for (size_t i = 0; i < PLAYED; i++) {
		ck_assert_int_eq(nth_run(scenes[i], &sets[i]), 0);
		nth_free(&sets[i]);
	}
	after = slurp(at(w.dir, "count"));
	for (size_t i = 0; i < WAYS; i++) {
		made[i] = count_of(after, ways[i].class) - count_of(before, ways[i].class);
		if (made[i] == 0 && strcmp(ways[i].class, "unlink") == 0)
			made[i] = 1; /* what is removed is deleted a little later */
		ck_assert_msg(made[i] != 0, "no %s", ways[i].class);
	}
	free(before);
	free(after);
	world_close(&w);
}

static void run_way(const struct way *way, unsigned long nth)
{
	struct run r = {
		.class = way->class, .how = way->how, .always = way->always, .also = way->also, .nth = nth};

	run(&r);
}

START_TEST(whichever_call_of_the_store_fails_what_was_acknowledged_stays)
{
	bool all = getenv("NTH_ALL") != NULL;
	const char *only = getenv("NTH_WAY");
	struct rng rng = rng_new(62);
	unsigned long made[WAYS];
	struct nth_want *want;
	unsigned runs = 0;

	rehearse(&want, made);
	for (size_t i = 0; i < WAYS; i++) {
		if (only != NULL && i != strtoul(only, NULL, 10))
			continue;
		for (unsigned long n = 0; n < (all ? made[i] : ways[i].samples); n++) {
			unsigned long nth = 1 + (all ? n : rng_below(&rng, made[i]));

			if (!all && only == NULL && rng_below(&rng, 5) != 0)
				continue; /* a few are enough for every day */
			run_way(&ways[i], nth);
			runs++;
		}
	}
	for (size_t i = 0; i < nth_scene_count; i++) {
		free(want[i].before);
		free(want[i].after);
		free(want[i].heard);
	}
	free(want);
	printf("nth: %u mounts with a call that failed\n", runs);
}
END_TEST

/* The names of the logs in the store, in order; given. */
static char *logs(void)
{
	return want_sh("cd %s/consensus && ls *.log | sort", w.store);
}

/*
 * A failed fsync may have marked pages as clean that are not on the disk, and the next one will not say so.
 * So nothing that is acknowledged afterwards may need that log: it is gone when the next append has been
 * acknowledged.
 */
START_TEST(after_a_failed_fsync_nothing_acknowledged_rests_on_that_log)
{
	char *before, *after, *line, *rest;
	int rc;

	world_new(&w);
	start("sync-log:1:EIO");
	shard = shard_new(&w);
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tx\ncommit\n");
	before = logs();
	arm();
	rc = txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\tb\tx\ncommit\n");
	ck_assert_msg(rc == 0 || rc == EIO || rc == ETIMEDOUT, "%s", strerrorname_np(rc));
	want_file(shard, "upper", rc == 0 ? "2\n" : "1\n");
	if (rc != 0)
		want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\tb\tx\ncommit\n");
	want_txn(shard, "begin expected_upper=2 new_upper=3\n2\t1\tc\tx\ncommit\n");
	after = logs();
	for (rest = before; (line = strsep(&rest, "\n")) != NULL;)
		ck_assert_msg(line[0] == '\0' || strstr(after, line) == NULL, "%s is still used", line);
	free(before);
	free(after);
	world_kill(&w);
	ck_works(unlink(at(w.dir, "arm")));
	world_start(&w, NULL);
	want_file(shard, "snapshot", "2\t1\ta\tx\n2\t1\tb\tx\n2\t1\tc\tx\n");
	free(shard);
	world_close(&w);
}
END_TEST

/* A transaction whose blob reaches the disk in several pieces; given. */
static char *large_txn(void)
{
	enum { ROWS = 40000 };
	struct rng r = rng_new(77);
	char *text = malloc(ROWS * 48 + 100), *p = text;

	p += sprintf(p, "begin expected_upper=0 new_upper=1\n");
	for (int i = 0; i < ROWS; i++)
		p += sprintf(p, "0\t1\t%016llx%016llx\tv\n", (unsigned long long)rng_below(&r, 0),
			     (unsigned long long)rng_below(&r, 0));
	strcpy(p, "commit\n");
	return text;
}

/* The kernel tells of a page that it could not write only once, and not by which call the program asks. */
START_TEST(a_blob_of_which_any_piece_did_not_reach_the_disk_is_not_committed)
{
	char *text = large_txn(), *counts;
	unsigned long pieces = 1;

	for (unsigned long nth = 1; nth <= pieces; nth++) {
		char fail[60];

		snprintf(fail, sizeof fail, "sync-blob:%lu:EIO", nth);
		world_new(&w);
		start(fail);
		shard = shard_new(&w);
		arm();
		ck_assert_int_ne(txn(shard, text), 0);
		want_file(shard, "upper", "0\n");
		want_txn(shard, text);
		want_file(shard, "upper", "1\n");
		world_stop(&w);
		if (nth == 1) {
			counts = want_sh("cat %s", at(w.dir, "count"));
			pieces = count_of(counts, "sync-blob") - 1; /* the first try ended at once */
			ck_assert_uint_gt(pieces, 2);
			free(counts);
		}
		free(shard);
		world_close(&w);
	}
	free(text);
}
END_TEST

/* The library of a sanitizer must come first; then ours cannot. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif

Suite *nth_calls_suite(void)
{
	Suite *s = suite_create("nth_calls");
	TCase *tc = world_case(s, "nth_calls", 6000);

	if (IS_SANITIZED)
		return s;
	tcase_add_test(tc, whichever_call_of_the_store_fails_what_was_acknowledged_stays);
	tcase_add_test(tc, after_a_failed_fsync_nothing_acknowledged_rests_on_that_log);
	tcase_add_test(tc, a_blob_of_which_any_piece_did_not_reach_the_disk_is_not_committed);
	return s;
}
