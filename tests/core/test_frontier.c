/*
 * test_frontier.c - frontiers, numbers and ids: order and text.
 */
#include <uuid/uuid.h>

#include "core/frontier.h"
#include "core/id.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

START_TEST(the_empty_frontier_is_the_greatest)
{
	struct core_frontier none = core_frontier_empty();
	struct core_frontier last = core_frontier_at(UINT64_MAX);
	struct core_frontier zero = core_frontier_at(0);

	ck_assert(core_frontier_lt(last, none) && core_frontier_lt(zero, last) &&
		  core_frontier_le(none, none));
	ck_assert(core_frontier_eq(core_frontier_max(none, zero), none));
	ck_assert(core_frontier_eq(core_frontier_min(none, zero), zero));
	ck_assert(core_frontier_eq(core_frontier_above(UINT64_MAX), none));
	ck_assert(core_frontier_eq(core_frontier_above(6), core_frontier_at(7)));
}
END_TEST

START_TEST(a_frontier_covers_the_times_at_or_beyond_it)
{
	ck_assert(core_frontier_covers(core_frontier_at(5), 5));
	ck_assert(!core_frontier_covers(core_frontier_at(5), 4));
	ck_assert(core_frontier_covers(core_frontier_at(0), 0));
	ck_assert(!core_frontier_covers(core_frontier_empty(), UINT64_MAX));
}
END_TEST

START_TEST(frontier_text_is_read_as_written_and_nothing_else)
{
	static const char *const good[] = {
		"-", "0", "7", "10", "9999999999999999999", "18446744073709551615"};
	static const char *const bad[] = {"",
					  "--",
					  "+1",
					  "-1",
					  "01",
					  "00",
					  " 1",
					  "1 ",
					  "0x1",
					  "1.0",
					  "a",
					  "18446744073709551616",
					  "99999999999999999999",
					  "100000000000000000000"};
	char buf[CORE_FRONTIER_LEN];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct core_frontier f;
		ck_assert_msg(core_frontier_parse(good[i], strlen(good[i]), &f), "%s", good[i]);
		ck_assert_str_eq(core_frontier_format(f, buf), good[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct core_frontier f = core_frontier_at(42);
		ck_assert_msg(!core_frontier_parse(bad[i], strlen(bad[i]), &f), "%s", bad[i]);
		ck_assert_uint_eq(f.t, 42);
	}
}
END_TEST

START_TEST(digits_are_counted_at_every_power_of_ten)
{
	uint64_t power = 1;

	ck_assert_uint_eq(core_u64_digits(0), 1);
	for (unsigned digits = 1; digits <= 20; digits++) {
		ck_assert_uint_eq(core_u64_digits(power), digits);
		if (digits > 1)
			ck_assert_uint_eq(core_u64_digits(power - 1), digits - 1);
		power *= 10;
	}
	ck_assert_uint_eq(core_u64_digits(UINT64_MAX), 20);
}
END_TEST

START_TEST(ids_are_read_as_written_and_nothing_else)
{
	char buf[CORE_ID_LEN];
	struct core_uuid u = core_uuid_new();
	struct core_uuid back;
	uuid_t other; /* as libuuid reads it */

	ck_assert(!core_uuid_eq(u, core_uuid_new()));
	core_uuid_format('s', u, buf);
	ck_assert_uint_eq(strlen(buf), CORE_ID_LEN - 1);
	ck_assert(core_uuid_parse('s', buf, strlen(buf), &back) && core_uuid_eq(u, back));
	ck_assert(!core_uuid_parse('p', buf, strlen(buf), &back));
	ck_assert(!core_uuid_parse('s', buf, strlen(buf) - 1, &back));
	ck_assert_int_eq(uuid_parse(buf + 1, other), 0);
	ck_assert_mem_eq(other, u.b, sizeof(other));
	ck_assert_int_eq(uuid_type(other), UUID_TYPE_DCE_RANDOM);
	ck_assert_int_eq(uuid_variant(other), UUID_VARIANT_DCE);
	for (size_t i = 0; i < CORE_ID_LEN - 1; i++) {
		char wrong[CORE_ID_LEN];

		memcpy(wrong, buf, sizeof(wrong));
		wrong[i] = 'G';
		ck_assert(!core_uuid_parse('s', wrong, CORE_ID_LEN - 1, &back));
		wrong[i] = wrong[i + 1] == 'A' ? 'B' : 'A'; /* upper case */
		ck_assert(!core_uuid_parse('s', wrong, CORE_ID_LEN - 1, &back));
	}
}
END_TEST

Suite *frontier_suite(void)
{
	Suite *s = suite_create("core/frontier");
	TCase *t = tcase_create("frontiers and ids");

	tcase_add_test(t, the_empty_frontier_is_the_greatest);
	tcase_add_test(t, a_frontier_covers_the_times_at_or_beyond_it);
	tcase_add_test(t, frontier_text_is_read_as_written_and_nothing_else);
	tcase_add_test(t, digits_are_counted_at_every_power_of_ten);
	tcase_add_test(t, ids_are_read_as_written_and_nothing_else);
	suite_add_tcase(s, t);
	return s;
}
