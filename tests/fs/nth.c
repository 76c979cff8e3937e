/* nth.c - the n-th allocation of a mount fails, for n = 1, 2, ...; see nth.h. */
#include "tests/fs/nth.h"

#include "tests/alloc.h"

static struct alloc_plan *plan;

/* The mount whose allocations can be failed. */
static void start(void)
{
	const char *given = getenv("SHARDFS"), *name = given != NULL ? strrchr(given, '/') : NULL;
	char *path, *program;

	ck_assert_msg(name != NULL, "SHARDFS is no path");

	world_new(&w);
	ck_assert_int_gt(asprintf(&path, "%s/plan", w.dir), 0);
	ck_assert_int_gt(asprintf(&program, "%.*s/alloc/shardfs", (int)(name - given), given), 0);
	plan = alloc_plan_at(path);
	ck_works(setenv("ALLOC_PLAN", path, 1));
	ck_works(setenv("SHARDFS", program, 1));
	free(path);
	free(program);
	world_start(&w, NULL);
}

/* What is open is closed in the end: the kernel tells the mount a little later. */
static void want_all_closed(void)
{
	uint64_t since = 0;
	bool closed = false;

	while (!closed && until_deadline(&since)) {
		char *text = slurp(at(w.mnt, "metrics"));
		const char *line = strstr(text, "\nshardfs_open_files ");

		ck_assert_ptr_nonnull(line);
		closed = strtoul(strchr(line, ' '), NULL, 10) <= 1; /* metrics itself */
		free(text);
	}
	ck_assert(closed);
}

static unsigned run(const struct nth_scene *scene, const struct nth_want *want, struct rng *rng)
{
	bool all = getenv("NTH_ALL") != NULL, fired = true;
	unsigned skip = all ? 1 : 40, failed = 0;
	char when[100];

	for (unsigned n = 1 + (unsigned)rng_below(rng, skip); fired;
	     n += 1 + (unsigned)rng_below(rng, skip)) {
		struct stage_set s = nth_prepare();
		int rc;

		alloc_fail(plan, n);
		rc = nth_run(scene, &s);
		fired = atomic_load(&plan->failed) != 0;
		atomic_store(&plan->nth, 0);
		snprintf(when, sizeof when, "allocation %u at %#lx", n,
			 (unsigned long)atomic_load(&plan->where));
		/* EIO: it was made, and could not be shown; a batch lost rows, or something before it failed.
		 */
		ck_assert_msg(rc == 0 || (fired && (rc == ENOMEM ||
						    (rc == EIO && (scene->done == EEXIST || scene->steps)))),
			      "%s: %s: %s", scene->name, when, strerrorname_np(rc));
		nth_check(scene, want, &s, rc, when);
		nth_again(scene, want, &s, when);
		failed += fired;
		nth_free(&s);
	}
	return failed;
}

START_TEST(whichever_allocation_of_the_mount_fails_is_enomem_and_the_next_try_works)
{
	const char *only = getenv("NTH_SCENE");
	struct rng rng = rng_new(61);
	struct nth_want *want;
	unsigned failed = 0;

	start();
	want = nth_rehearse();
	for (size_t i = 0; i < nth_scene_count; i++) {
		if (only == NULL || strcmp(only, nth_scenes[i].name) == 0)
			failed += run(&nth_scenes[i], &want[i], &rng);
		free(want[i].before);
		free(want[i].after);
		free(want[i].heard);
	}
	free(want);
	printf("nth: %u allocations of the mount failed\n", failed);
	ck_assert(failed > 0 || only != NULL);
	want_all_closed();
	world_close(&w);
}
END_TEST

Suite *nth_suite(void)
{
	Suite *s = suite_create("nth");
	TCase *tc = world_case(s, "nth", 3000);

	tcase_add_test(tc, whichever_allocation_of_the_mount_fails_is_enomem_and_the_next_try_works);
	return s;
}
