/*
 * test_pace.c - who works for long gives way to those who commit, and to nobody else.
 */
#include "tests/core/suites.h"

#include "core/metrics.h"
#include "core/pace.h"

/* Work of about so many us. */
static void work(struct core_pace *p, _Atomic(uint64_t) *commits, uint64_t each, uint64_t us)
{
	uint64_t began = core_ticks_us();

	while (core_ticks_us() - began < us) {
		*commits += each;
		core_give_way(p);
	}
}

START_TEST(work_beside_commits_pauses)
{
	_Atomic(uint64_t) commits = 7;
	struct core_pace p;

	core_pace_init(&p, &commits);
	for (int i = 0; i < 10000 && p.pauses < 10; i++)
		work(&p, &commits, 1, 1000);
	ck_assert_uint_ge(p.pauses, 10);
}
END_TEST

START_TEST(a_pause_comes_at_the_first_call_behind_a_stint_and_a_commit)
{
	_Atomic(uint64_t) commits = 7;
	struct core_pace p;

	core_pace_init(&p, &commits);
	commits++;
	work(&p, &commits, 0, 2 * CORE_STINT_US);
	core_give_way(&p);
	ck_assert_uint_ge(p.pauses, 1);
}
END_TEST

START_TEST(work_alone_does_not_pause)
{
	_Atomic(uint64_t) commits = 7;
	struct core_pace p;

	core_pace_init(&p, &commits);
	work(&p, &commits, 0, 20 * CORE_STINT_US);
	ck_assert_uint_eq(p.pauses, 0);
}
END_TEST

START_TEST(work_that_is_waited_for_does_not_pause)
{
	_Atomic(uint64_t) commits = 7;
	struct core_pace p;

	core_pace_init(&p, &commits);
	p.off = true;
	work(&p, &commits, 1, 20 * CORE_STINT_US);
	ck_assert_uint_eq(p.pauses, 0);
	core_give_way(NULL); /* and in the foreground nobody asks for it */
}
END_TEST

Suite *pace_suite(void)
{
	Suite *s = suite_create("pace");
	TCase *t = tcase_create("pace");

	tcase_add_test(t, work_beside_commits_pauses);
	tcase_add_test(t, a_pause_comes_at_the_first_call_behind_a_stint_and_a_commit);
	tcase_add_test(t, work_alone_does_not_pause);
	tcase_add_test(t, work_that_is_waited_for_does_not_pause);
	suite_add_tcase(s, t);
	return s;
}
