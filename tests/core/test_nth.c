/*
 * test_nth.c - the n-th store call or allocation of all that users do fails: see nth.h.
 */
#include "tests/core/nth.h"
#include "tests/core/suites.h"

static bool is_wanted(const struct nth_scene *scene)
{
	const char *only = getenv("NTH_SCENE");

	return only == NULL || strcmp(only, scene->name) == 0;
}

/* One case for each way and kind of store; NTH_ALL=1 takes all n, NTH_SCENE=... one scene. */
static void run_all(enum disk_kind kind, enum nth_way way)
{
	unsigned failed = 0;

	for (size_t i = 0; i < nth_scene_count; i++)
		if (is_wanted(&nth_scenes[i]))
			failed += nth_run(&nth_scenes[i], kind, way);
	for (size_t i = 0; i < nth_write_count; i++)
		if (is_wanted(&nth_writes[i]))
			failed += nth_run(&nth_writes[i], kind, way);
	printf("nth: way %d on %s: %u calls failed\n", (int)way, kind == DISK_SHARED ? "shared" : "sole",
	       failed);
	ck_assert(failed > 0 || getenv("NTH_SCENE") != NULL);
}

START_TEST(whichever_store_call_fails_the_world_is_as_before_or_as_after)
{
	run_all(_i % 2 == 0 ? DISK_SOLE : DISK_SHARED, (enum nth_way)(_i / 2));
}
END_TEST

START_TEST(whichever_allocation_fails_the_world_is_as_before_or_as_after)
{
	run_all(_i == 0 ? DISK_SOLE : DISK_SHARED, NTH_MEMORY);
}
END_TEST

Suite *nth_suite(void)
{
	Suite *s = suite_create("nth");
	TCase *t = tcase_create("nth");

	tcase_set_timeout(t, 3000);
	tcase_add_loop_test(t, whichever_store_call_fails_the_world_is_as_before_or_as_after, 0,
			    2 * NTH_MEMORY);
	tcase_add_loop_test(t, whichever_allocation_fails_the_world_is_as_before_or_as_after, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
