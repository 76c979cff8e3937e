/*
 * test_state_staged.c - staged batches come, go and change their names in one
 * step; writers live as long as they are renewed.
 */
#include "tests/core/states.h"
#include "tests/core/suites.h"

/* --- staged batches ------------------------------------------------------------------------------ */

static struct core_diff next_diff(const struct core_state *s)
{
	struct core_diff d = {.seqno = s->seqno + 1, .walltime_ms = s->walltime_ms};

	return d; /* without holds: it points nowhere */
}

static void apply(struct core_state *s, struct core_diff *d)
{
	struct kv_err err;

	ck_ok(core_state_apply(s, d, &err), err);
	core_diff_fini(d);
	ck_ok(core_state_check(s, &err), err);
}

static void stage(struct core_diff *d, uint8_t id, const char *name, uint64_t rows)
{
	struct core_staged staged = {.id = staged_id(id), .rows = rows};
	struct kv_err err;

	snprintf(staged.name, sizeof(staged.name), "%s", name);
	ck_ok(core_diff_staged(d, &staged, &err), err);
}

static void unstage(struct core_diff *d, uint8_t id)
{
	struct kv_err err;

	ck_ok(core_diff_staged_removed(d, staged_id(id), &err), err);
}

/* With the staged batches "a", "b" and "c" of ids 1, 2 and 3. */
static struct core_state state_of_three(void)
{
	struct core_state s;
	struct core_diff d;
	struct kv_err err;

	ck_ok(core_state_init(&s, 9, 5, any_owner, &err), err);
	d = next_diff(&s);
	stage(&d, 1, "a", 1);
	stage(&d, 2, "b", 2);
	stage(&d, 3, "c", 3);
	apply(&s, &d);
	return s;
}

/* The id's number of the staged batch of that name; 0: there is none. */
static uint8_t who(const struct core_state *s, const char *name)
{
	const struct core_staged *staged = core_state_staged(s, name);

	if (staged == NULL)
		return 0;
	ck_assert_ptr_eq(core_state_staged_by_id(s, staged->id), staged);
	return staged->id.b[1];
}

START_TEST(staged_batches_come_change_and_go)
{
	struct core_state s = state_of_three();
	struct core_diff d = next_diff(&s);

	ck_assert_uint_eq(s.staged_count, 3);
	ck_assert_uint_eq(who(&s, "b"), 2);
	ck_assert_uint_eq(who(&s, "x"), 0);
	ck_assert_ptr_null(core_state_staged_by_id(&s, staged_id(4)));

	unstage(&d, 1);
	stage(&d, 2, "b", 7);
	stage(&d, 2, "b", 8); /* the last word counts */
	stage(&d, 4, "d", 4);
	apply(&s, &d);
	ck_assert_uint_eq(s.staged_count, 3);
	ck_assert_uint_eq(who(&s, "a"), 0);
	ck_assert_uint_eq(core_state_staged(&s, "b")->rows, 8);
	ck_assert_uint_eq(who(&s, "c"), 3);
	ck_assert_uint_eq(who(&s, "d"), 4);
	core_state_fini(&s);
}
END_TEST

START_TEST(names_are_swapped_passed_on_and_taken_over_in_one_version)
{
	struct core_state s = state_of_three();
	struct core_diff d = next_diff(&s);

	stage(&d, 1, "b", 0);
	stage(&d, 2, "a", 0);
	apply(&s, &d);
	ck_assert_uint_eq(who(&s, "a"), 2);
	ck_assert_uint_eq(who(&s, "b"), 1);

	d = next_diff(&s); /* over one that goes */
	stage(&d, 1, "c", 0);
	unstage(&d, 3);
	apply(&s, &d);
	ck_assert_uint_eq(who(&s, "c"), 1);
	ck_assert_uint_eq(who(&s, "b"), 0);

	d = next_diff(&s); /* a new one under the old name of one that is renamed */
	stage(&d, 4, "a", 0);
	stage(&d, 2, "z", 0);
	apply(&s, &d);
	ck_assert_uint_eq(who(&s, "a"), 4);
	ck_assert_uint_eq(who(&s, "z"), 2);
	ck_assert_uint_eq(s.staged_count, 3);
	core_state_fini(&s);
}
END_TEST

START_TEST(the_last_word_of_a_diff_about_a_staged_batch_counts)
{
	struct core_state s = state_of_three();
	struct core_diff d = next_diff(&s);

	stage(&d, 1, "x", 0);
	unstage(&d, 1);
	unstage(&d, 1);
	unstage(&d, 2);
	stage(&d, 2, "y", 0);
	apply(&s, &d);
	ck_assert_uint_eq(s.staged_count, 2);
	ck_assert_uint_eq(who(&s, "y"), 2);
	ck_assert_uint_eq(who(&s, "c"), 3);
	core_state_fini(&s);
}
END_TEST

START_TEST(staged_batches_that_do_not_fit_change_nothing)
{
	struct core_state s = state_of_three();
	struct core_buf before = state_bytes(&s), after;
	struct core_diff d = next_diff(&s);
	struct kv_err err;

	d.has_upper = true; /* what would be seen if half of it was done */
	d.has_writer = true;
	d.has_token = true;
	switch (_i) {
	case 0: /* not there */
		unstage(&d, 1);
		unstage(&d, 4);
		break;
	case 1: /* twice */
		unstage(&d, 1);
		unstage(&d, 2);
		d.staged_removed[1] = d.staged_removed[0];
		break;
	case 2:
		stage(&d, 4, "b", 0);
		break;
	case 3:
		stage(&d, 1, "b", 0);
		break;
	case 4: /* "a" is free, "b" is not */
		unstage(&d, 1);
		stage(&d, 3, "b", 0);
		break;
	case 5:
		stage(&d, 4, "x", 0);
		stage(&d, 5, "x", 0);
		break;
	case 6:
		stage(&d, 4, "x", 0);
		stage(&d, 5, "y", 0);
		d.staged[1].id = staged_id(4);
		break;
	case 7: /* three and 1022 */
		for (int i = 0; i < CORE_STAGED_MAX - 2; i++) {
			char name[32];

			snprintf(name, sizeof(name), "more%d", i);
			stage(&d, 9, name, 0);
			d.staged[i].id.b[15] = (uint8_t)i;
			d.staged[i].id.b[14] = (uint8_t)(1 + (i >> 8));
		}
		break;
	default:
		ck_abort();
	}
	ck_assert_int_eq(core_state_apply(&s, &d, &err), KV_CORRUPT);
	after = state_bytes(&s);
	same_bytes(before, after);
	if (_i == 7) { /* with one less they are just enough */
		unstage(&d, 1);
		apply(&s, &d);
		ck_assert_uint_eq(s.staged_count, CORE_STAGED_MAX);
	}
	core_buf_fini(&before);
	core_buf_fini(&after);
	core_diff_fini(&d);
	core_state_fini(&s);
}
END_TEST

/* --- writers ------------------------------------------------------------------------------------- */

/* A version at that time by writer `by` (0: nobody); upper 0: it moves none. */
static struct core_diff version_by(const struct core_state *s, uint8_t by, uint64_t at_ms)
{
	struct core_diff d = next_diff(s);

	d.walltime_ms = at_ms;
	memcpy(d.attempt.b, writer_id(by).b, CORE_WRITER_TAG);
	d.attempt.b[CORE_WRITER_TAG] = 77; /* the rest of it is the attempt's own */
	return d;
}

static void enrol(struct core_state *s, uint8_t id, uint64_t lease_ms, uint64_t at_ms)
{
	struct core_diff d = version_by(s, 0, at_ms);

	d.has_writer = true;
	d.writer = (struct core_writer_state){.id = writer_id(id), .host = "here", .lease_ms = lease_ms};
	apply(s, &d);
}

/* Batches up to that time, in one version of writer `by`. */
static void move_upper(struct core_state *s, uint8_t by, uint64_t upper, uint64_t at_ms)
{
	struct core_diff d = version_by(s, by, at_ms);
	struct core_batch *b = core_batch_new(s->upper, core_frontier_at(upper));
	struct kv_err err;

	ck_ok(core_diff_splice(&d, s->upper, s->upper, &b, 1, &err), err);
	d.has_upper = true;
	d.upper = core_frontier_at(upper);
	apply(s, &d);
}

static void check_writer(const struct core_state *s, uint8_t id, uint64_t heartbeat_ms, uint64_t last_upper)
{
	const struct core_writer_state *w = core_state_writer(s, writer_id(id));

	ck_assert_ptr_nonnull(w);
	ck_assert_str_eq(w->host, "here");
	ck_assert_uint_eq(w->heartbeat_ms, heartbeat_ms);
	ck_assert_uint_eq(w->last_upper.t, last_upper);
}

static struct core_state state_at(uint64_t at_ms)
{
	struct core_state s;
	struct kv_err err;

	ck_ok(core_state_init(&s, 9, at_ms, any_owner, &err), err);
	return s;
}

START_TEST(a_version_renews_the_writer_whose_tag_it_has)
{
	struct core_state s = state_at(100);
	struct core_diff d;

	enrol(&s, 1, 1000, 100);
	enrol(&s, 2, 1000, 110);
	move_upper(&s, 1, 7, 120);
	check_writer(&s, 1, 120, 7);
	check_writer(&s, 2, 110, 0);

	d = version_by(&s, 2, 130); /* that moves no upper */
	apply(&s, &d);
	check_writer(&s, 1, 120, 7);
	check_writer(&s, 2, 130, 0);

	d = version_by(&s, 2, 125); /* by a clock that went back */
	apply(&s, &d);
	check_writer(&s, 2, 130, 0);

	move_upper(&s, 9, 8, 140); /* by somebody else */
	check_writer(&s, 1, 120, 7);
	check_writer(&s, 2, 130, 0);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_writer_is_registered_with_the_time_and_the_upper_of_its_version)
{
	struct core_state s = state_at(100);
	struct core_diff d = version_by(&s, 0, 200);

	d.has_writer = true;
	d.writer = (struct core_writer_state){.id = writer_id(1),
					      .host = "here",
					      .lease_ms = 1,
					      .heartbeat_ms = 9999,
					      .last_upper = core_frontier_at(4)};
	apply(&s, &d);
	check_writer(&s, 1, 200, 4);

	/* Once more, in a version that moves the upper: the same one is put anew. */
	struct core_batch *b = core_batch_new(s.upper, core_frontier_at(5));
	struct kv_err err;
	d = version_by(&s, 1, 201);
	ck_ok(core_diff_splice(&d, s.upper, s.upper, &b, 1, &err), err);
	d.has_upper = true;
	d.upper = core_frontier_at(5);
	d.has_writer = true;
	d.writer = (struct core_writer_state){.id = writer_id(1), .host = "here", .lease_ms = 50};
	apply(&s, &d);
	check_writer(&s, 1, 201, 5);
	ck_assert_uint_eq(s.writer_count, 1);
	ck_assert_uint_eq(core_state_writer(&s, writer_id(1))->lease_ms, 50);
	core_state_fini(&s);
}
END_TEST

START_TEST(an_expired_writer_goes_and_one_that_is_not_there_is_no_matter)
{
	struct core_state s = state_at(100);
	struct core_diff d;

	for (uint8_t i = 1; i <= 3; i++)
		enrol(&s, i, 1000, 100);
	for (int round = 0; round < 2; round++) {
		d = version_by(&s, 0, 100);
		d.expires_writer = true;
		d.expired_writer = writer_id(1);
		apply(&s, &d);
		ck_assert_ptr_null(core_state_writer(&s, writer_id(1)));
		ck_assert_uint_eq(s.writer_count, 2);
		check_writer(&s, 2, 100, 0);
		check_writer(&s, 3, 100, 0);
	}
	core_state_fini(&s);
}
END_TEST

START_TEST(a_writer_whose_lease_is_over_goes_with_the_next_version)
{
	struct core_state s = state_at(100);
	struct core_diff d;

	enrol(&s, 1, 50, 100);
	enrol(&s, 2, 60, 100);
	enrol(&s, 3, 50, 100);
	enrol(&s, 4, UINT64_MAX, 100); /* for ever; the sum does not fit */
	d = version_by(&s, 0, 150);    /* the last moment of 1 and 3 */
	apply(&s, &d);
	ck_assert_uint_eq(s.writer_count, 4);
	d = version_by(&s, 3, 151); /* the own sign of life counts first */
	apply(&s, &d);
	ck_assert_ptr_null(core_state_writer(&s, writer_id(1)));
	check_writer(&s, 2, 100, 0);
	check_writer(&s, 3, 151, 0);
	d = version_by(&s, 0, UINT64_MAX);
	apply(&s, &d);
	ck_assert_uint_eq(s.writer_count, 1);
	check_writer(&s, 4, 100, 0);
	core_state_fini(&s);
}
END_TEST

START_TEST(of_1025_writers_the_one_renewed_longest_ago_goes)
{
	struct core_state s = state_at(100);
	struct core_diff d;

	for (unsigned i = 0; i <= CORE_WRITERS_MAX; i++) {
		d = next_diff(&s);
		d.walltime_ms = 100 + (i + 500) % 1000; /* number 500 has the least */
		d.has_writer = true;
		d.writer = (struct core_writer_state){.lease_ms = 10000};
		memcpy(d.writer.id.b + 8, &i, sizeof(i));
		memcpy(d.writer.id.b, "\xff", 1); /* not the tag of these versions */
		apply(&s, &d);
	}
	ck_assert_uint_eq(s.writer_count, CORE_WRITERS_MAX);
	for (unsigned i = 0; i <= CORE_WRITERS_MAX; i++) {
		struct core_uuid id = {.b = {0xff}};

		memcpy(id.b + 8, &i, sizeof(i));
		ck_assert_msg((core_state_writer(&s, id) == NULL) == (i == 500), "writer %u", i);
	}
	core_state_fini(&s);
}
END_TEST

START_TEST(with_room_reserved_applying_takes_no_memory)
{
	struct rng r = rng_new(109);

	for (int round = 0; round < 200; round++) {
		size_t batches = rng_below(&r, 6);
		struct core_state s = random_state(&r, batches);
		struct core_buf before = state_bytes(&s), after;
		struct core_diff d;
		struct kv_err err;

		random_diff(&r, batches, &d);
		ck_ok(core_state_reserve(&s, &d, &err), err);
		after = state_bytes(&s);
		same_bytes(before, after);

		const void *staged = s.staged, *writers = s.writers, *leases = s.leases, *in_order = s.batches;
		ck_ok(core_state_apply(&s, &d, &err), err);
		ck_assert_ptr_eq(s.staged, staged);
		ck_assert_ptr_eq(s.writers, writers);
		ck_assert_ptr_eq(s.leases, leases);
		ck_assert_ptr_eq(s.batches, in_order);
		ck_assert_uint_le(s.staged_count, s.staged_cap);
		ck_assert_uint_le(s.writer_count, s.writer_cap);
		ck_assert_uint_le(s.lease_count, s.lease_cap);
		core_buf_fini(&before);
		core_buf_fini(&after);
		core_diff_fini(&d);
		core_state_fini(&s);
	}
}
END_TEST

START_TEST(a_copy_of_a_shards_state_has_all_of_it)
{
	struct rng r = rng_new(110);
	struct rig rig = rig_new(DISK_MEM);
	struct core_state s = random_state(&r, 6), own, copy;
	struct core_buf a = state_bytes(&s), b;
	struct core_diff d;
	struct kv_err err;

	ck_ok(core_shard_state(rig.shard, &copy, &err), err); /* loads it */
	core_state_fini(&copy);
	own = rig.shard->state;
	rig.shard->state = s;
	ck_ok(core_shard_state(rig.shard, &copy, &err), err);
	rig.shard->state = own;
	b = state_bytes(&copy);
	same_bytes(a, b);
	core_state_fini(&s);
	random_diff(&r, 6, &d); /* there is room where it says so */
	ck_ok(core_state_apply(&copy, &d, &err), err);
	core_diff_fini(&d);
	core_state_fini(&copy);
	core_buf_fini(&a);
	core_buf_fini(&b);
	rig_free(&rig);
}
END_TEST

Suite *state_staged_suite(void)
{
	Suite *s = suite_create("state_staged");
	TCase *t = tcase_create("state_staged");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, staged_batches_come_change_and_go);
	tcase_add_test(t, names_are_swapped_passed_on_and_taken_over_in_one_version);
	tcase_add_test(t, the_last_word_of_a_diff_about_a_staged_batch_counts);
	tcase_add_loop_test(t, staged_batches_that_do_not_fit_change_nothing, 0, 8);
	tcase_add_test(t, a_version_renews_the_writer_whose_tag_it_has);
	tcase_add_test(t, a_writer_is_registered_with_the_time_and_the_upper_of_its_version);
	tcase_add_test(t, an_expired_writer_goes_and_one_that_is_not_there_is_no_matter);
	tcase_add_test(t, a_writer_whose_lease_is_over_goes_with_the_next_version);
	tcase_add_test(t, of_1025_writers_the_one_renewed_longest_ago_goes);
	tcase_add_test(t, with_room_reserved_applying_takes_no_memory);
	tcase_add_test(t, a_copy_of_a_shards_state_has_all_of_it);
	suite_add_tcase(s, t);
	return s;
}
