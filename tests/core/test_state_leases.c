/*
 * test_state_leases.c - leases of readers are made, renewed and dropped, and since
 * does not pass them.
 */
#include "tests/core/states.h"
#include "tests/core/suites.h"

static struct core_state state_at(uint64_t at_ms)
{
	struct core_state s;
	struct kv_err err;

	ck_ok(core_state_init(&s, 9, at_ms, any_owner, &err), err);
	return s;
}

static struct core_diff version_at(const struct core_state *s, uint64_t at_ms)
{
	struct core_diff d = {.seqno = s->seqno + 1, .walltime_ms = at_ms};

	return d; /* without holds: it points nowhere */
}

static void apply(struct core_state *s, struct core_diff *d)
{
	struct kv_err err;

	ck_ok(core_state_apply(s, d, &err), err);
	core_diff_fini(d);
	ck_ok(core_state_check(s, &err), err);
}

static struct core_lease lease_of(uint8_t id, uint64_t lease_ms, uint64_t since)
{
	return (struct core_lease){
		.id = lease_id(id), .host = "there", .lease_ms = lease_ms, .since = core_frontier_at(since)};
}

static void lend(struct core_state *s, uint8_t id, uint64_t lease_ms, uint64_t since, uint64_t at_ms)
{
	struct core_lease lease = lease_of(id, lease_ms, since);
	struct core_diff d = version_at(s, at_ms);
	struct kv_err err;

	ck_ok(core_do_lease(s, &lease, &d, &err), err);
	apply(s, &d);
}

static void end(struct core_state *s, uint8_t id, uint64_t at_ms)
{
	struct core_diff d = version_at(s, at_ms);
	struct kv_err err;

	ck_ok(core_do_end_lease(s, lease_id(id), &d, &err), err);
	apply(s, &d);
}

static void check_lease(const struct core_state *s, uint8_t id, uint64_t heartbeat_ms, uint64_t since)
{
	const struct core_lease *lease = core_state_lease(s, lease_id(id));

	ck_assert_ptr_nonnull(lease);
	ck_assert_str_eq(lease->host, "there");
	ck_assert_uint_eq(lease->heartbeat_ms, heartbeat_ms);
	ck_assert(core_frontier_eq(lease->since, core_frontier_at(since)));
}

/* The default hold goes to since. */
static void hold(struct core_state *s, uint64_t since, uint64_t at_ms)
{
	struct core_diff d;
	struct kv_err err;
	bool changed;

	core_diff_init(&d);
	d.walltime_ms = at_ms;
	ck_ok(core_do_hold(s, CORE_DEFAULT_HOLD, core_frontier_at(since), 0, &d, &changed, &err), err);
	apply(s, &d);
}

START_TEST(a_lease_is_made_and_renewed_with_the_time_of_its_version)
{
	struct core_state s = state_at(100);

	lend(&s, 1, 50, 4, 110);
	lend(&s, 2, 50, 7, 120);
	check_lease(&s, 1, 110, 4);
	check_lease(&s, 2, 120, 7);
	lend(&s, 1, 60, 5, 130);
	check_lease(&s, 1, 130, 5);
	check_lease(&s, 2, 120, 7);
	ck_assert_uint_eq(core_state_lease(&s, lease_id(1))->lease_ms, 60);
	ck_assert_uint_eq(s.lease_count, 2);
	core_state_fini(&s);
}
END_TEST

START_TEST(since_does_not_pass_a_lease)
{
	struct core_state s = state_at(100);

	lend(&s, 1, 1000, 4, 100);
	lend(&s, 2, 1000, 6, 100);
	hold(&s, 9, 100);
	ck_assert_uint_eq(s.since.t, 4);
	lend(&s, 1, 1000, 7, 100);
	ck_assert_uint_eq(s.since.t, 6);
	end(&s, 2, 100);
	ck_assert_uint_eq(s.since.t, 7);
	end(&s, 1, 100);
	ck_assert_uint_eq(s.since.t, 9);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_lease_never_lies_below_since)
{
	struct core_state s = state_at(100);
	struct core_lease nothing = lease_of(3, 1000, 0);
	struct core_diff d = version_at(&s, 100);
	struct kv_err err;

	hold(&s, 5, 100);
	lend(&s, 1, 1000, 4, 100);
	check_lease(&s, 1, 100, 5);
	lend(&s, 1, 1000, 8, 100);
	lend(&s, 1, 1000, 2, 100); /* back, as far as that goes */
	check_lease(&s, 1, 100, 5);

	nothing.since = core_frontier_empty();
	d = version_at(&s, 100);
	ck_ok(core_do_lease(&s, &nothing, &d, &err), err);
	apply(&s, &d);
	ck_assert(core_state_lease(&s, lease_id(3))->since.empty);
	core_state_fini(&s);
}
END_TEST

START_TEST(the_oldest_version_that_is_read_never_goes_back)
{
	struct core_state s = state_at(100);
	struct core_lease lease = lease_of(1, 1000, 4);
	static const uint64_t asked[] = {10, 12, 11}, got[] = {10, 12, 12};
	struct kv_err err;

	for (size_t i = 0; i < 3; i++) {
		struct core_diff d = version_at(&s, 100);

		lease.seqno = asked[i];
		ck_ok(core_do_lease(&s, &lease, &d, &err), err);
		apply(&s, &d);
		ck_assert_uint_eq(core_state_lease(&s, lease.id)->seqno, got[i]);
	}
	core_state_fini(&s);
}
END_TEST

START_TEST(what_ends_goes_and_what_is_not_there_is_no_matter)
{
	struct core_state s = state_at(100);
	struct kv_err err;

	for (uint8_t i = 1; i <= 3; i++)
		lend(&s, i, 1000, i, 100);
	for (int round = 0; round < 2; round++) {
		struct core_diff d = version_at(&s, 100);

		d.ends_lease = true;
		d.ended_lease = lease_id(1);
		apply(&s, &d);
		ck_assert_ptr_null(core_state_lease(&s, lease_id(1)));
		check_lease(&s, 2, 100, 2);
		check_lease(&s, 3, 100, 3);
		ck_assert_uint_eq(s.lease_count, 2);
	}
	struct core_diff d = version_at(&s, 100);
	ck_assert_int_eq(core_do_end_lease(&s, lease_id(1), &d, &err), KV_NOTFOUND);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_lease_that_is_over_goes_with_the_next_version)
{
	struct core_state s = state_at(100);
	struct core_diff d;

	lend(&s, 1, 50, 1, 100);
	lend(&s, 2, 60, 2, 100);
	lend(&s, 3, 50, 3, 100);
	lend(&s, 4, UINT64_MAX, 4, 100); /* for ever; the sum does not fit */
	d = version_at(&s, 150);         /* the last moment of 1 and 3 */
	apply(&s, &d);
	ck_assert_uint_eq(s.lease_count, 4);
	lend(&s, 3, 50, 3, 151); /* the own sign of life counts first */
	ck_assert_ptr_null(core_state_lease(&s, lease_id(1)));
	check_lease(&s, 2, 100, 2);
	check_lease(&s, 3, 151, 3);
	d = version_at(&s, UINT64_MAX);
	apply(&s, &d);
	ck_assert_uint_eq(s.lease_count, 1);
	check_lease(&s, 4, 100, 4);
	core_state_fini(&s);
}
END_TEST

START_TEST(of_1025_leases_the_one_renewed_longest_ago_goes)
{
	struct core_state s = state_at(100);

	for (unsigned i = 0; i <= CORE_READERS_MAX; i++) {
		struct core_diff d = version_at(&s, 100 + (i + 500) % 1000); /* number 500 has the least */

		d.has_lease = true;
		d.lease = (struct core_lease){.lease_ms = 10000};
		memcpy(d.lease.id.b + 8, &i, sizeof(i));
		apply(&s, &d);
	}
	ck_assert_uint_eq(s.lease_count, CORE_READERS_MAX);
	for (unsigned i = 0; i <= CORE_READERS_MAX; i++) {
		struct core_uuid id = {0};

		memcpy(id.b + 8, &i, sizeof(i));
		ck_assert_msg((core_state_lease(&s, id) == NULL) == (i == 500), "lease %u", i);
	}
	core_state_fini(&s);
}
END_TEST

START_TEST(a_tombstone_takes_no_lease)
{
	struct core_state s = state_at(100);
	struct core_lease lease = lease_of(1, 1000, 0);
	struct core_diff d = version_at(&s, 100);
	struct kv_err err;

	d.tombstone = true;
	apply(&s, &d);
	d = version_at(&s, 100);
	ck_assert_int_eq(core_do_lease(&s, &lease, &d, &err), KV_NO_SHARD);
	ck_assert_int_eq(core_do_end_lease(&s, lease.id, &d, &err), KV_NO_SHARD);
	core_state_fini(&s);
}
END_TEST

Suite *state_leases_suite(void)
{
	Suite *s = suite_create("state_leases");
	TCase *t = tcase_create("state_leases");

	tcase_add_test(t, a_lease_is_made_and_renewed_with_the_time_of_its_version);
	tcase_add_test(t, since_does_not_pass_a_lease);
	tcase_add_test(t, a_lease_never_lies_below_since);
	tcase_add_test(t, the_oldest_version_that_is_read_never_goes_back);
	tcase_add_test(t, what_ends_goes_and_what_is_not_there_is_no_matter);
	tcase_add_test(t, a_lease_that_is_over_goes_with_the_next_version);
	tcase_add_test(t, of_1025_leases_the_one_renewed_longest_ago_goes);
	tcase_add_test(t, a_tombstone_takes_no_lease);
	suite_add_tcase(s, t);
	return s;
}
