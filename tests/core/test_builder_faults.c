/*
 * test_builder_faults.c - builders on stores that fail or are full, and builders that are given up.
 */
#include "core/builder.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

static const struct core_frontier zero = {.t = 0};
static const struct core_frontier none = {.empty = true};

/* Build until done or failed; heal the store; what was built is right, and gone afterwards. */
static enum kv_rc try_build(struct world *w, size_t target, const struct model *m,
			    const struct model *settled, bool *fired)
{
	struct core_builder *b =
		builder_of(w, (struct core_builder_config){.target_bytes = target, .never_inline = true});
	struct core_batch *batch = NULL;
	enum kv_rc rc = KV_OK;
	struct kv_err err = {0};

	for (size_t i = 0; i < m->count && rc == KV_OK; i++)
		rc = core_builder_add(b, &m->u[i], m->star[i], &err);
	if (rc == KV_OK)
		rc = core_builder_finish(b, zero, none, &batch, &err);
	if (rc != KV_OK) {
		ck_assert_int_eq(err.rc, rc);
		ck_assert_ptr_eq(batch, NULL);
		/* It stays failed. */
		ck_assert_int_eq(core_builder_add(b, &m->u[0], false, NULL), rc);
		ck_assert_int_eq(core_builder_finish(b, zero, none, &batch, NULL), rc);
	}
	core_builder_free(b);
	*fired = kv_faults_fired(w->faults);
	world_heal(w);
	if (batch != NULL)
		check_and_drop(w, batch, settled);
	return rc;
}

START_TEST(a_failed_store_call_fails_the_builder_and_leaves_nothing)
{
	static const struct {
		enum kv_fault fault;
		enum kv_rc rc;
	} kinds[] = {{KV_FAULT_BEFORE, KV_UNREACHABLE},
		     {KV_FAULT_NOSPACE, KV_NOSPACE},
		     {KV_FAULT_DONE_UNKNOWN, KV_UNKNOWN},
		     {KV_FAULT_LOST_UNKNOWN, KV_UNKNOWN}};
	struct world w = world_new();
	struct rng r = rng_new(34);
	struct model m = model_random(&r, 600, true, true);
	struct model settled = settled_of(&m);
	bool fired;

	for (size_t kind = 0; kind < 4; kind++) {
		fired = true;
		for (unsigned nth = 1; fired; nth++) {
			kv_faults_arm(w.faults, nth, kinds[kind].fault, false);
			enum kv_rc rc = try_build(&w, 20000, &m, &settled, &fired);

			ck_assert_int_eq(rc, fired ? kinds[kind].rc : KV_OK);
			ck_assert_uint_eq(world_blobs(&w), 0);
		}
	}
	model_free(&settled);
	model_free(&m);
	world_free(&w);
}
END_TEST

/* Build on a store that is full from the nth call on; each refusal twice, then there is room again. */
static bool build_on_a_full_store(struct world *w, size_t target, const struct model *m,
				  const struct model *settled, unsigned nth, bool no_helper)
{
	struct core_builder *b = builder_of(w, (struct core_builder_config){.target_bytes = target,
									    .never_inline = true,
									    .patient = true,
									    .no_helper = no_helper});
	struct core_batch *batch = NULL;
	struct kv_err err = {0};
	enum kv_rc rc;
	bool refused = false;

	kv_faults_arm(w->faults, nth, KV_FAULT_NOSPACE, true);
	for (size_t i = 0; i < m->count; i++) {
		rc = core_builder_add(b, &m->u[i], m->star[i], &err);
		if (rc == KV_OK)
			continue;
		refused = true;
		ck_assert_int_eq(rc, KV_NOSPACE);
		ck_assert_int_eq(err.rc, rc);
		ck_assert_int_eq(core_builder_add(b, &m->u[i], m->star[i], NULL), KV_NOSPACE);
		ck_assert_int_eq(core_builder_finish(b, zero, none, &batch, NULL), KV_NOSPACE);
		world_heal(w);
		ck_ok(core_builder_add(b, &m->u[i], m->star[i], &err), err);
	}
	rc = core_builder_finish(b, zero, none, &batch, &err);
	if (rc != KV_OK) {
		refused = true;
		ck_assert_int_eq(rc, KV_NOSPACE);
		ck_assert_int_eq(err.rc, rc);
		ck_assert_ptr_null(batch);
		world_heal(w);
		ck_ok(core_builder_finish(b, zero, none, &batch, &err), err);
	}
	refused = refused || kv_faults_fired(w->faults);
	world_heal(w);
	core_builder_free(b);
	check_and_drop(w, batch, settled);
	ck_assert_uint_eq(world_blobs(w), 0);
	return refused;
}

START_TEST(a_patient_builder_goes_on_when_a_full_store_has_room_again)
{
	struct world w = world_new();
	struct rng r = rng_new(35);
	struct model m = model_random(&r, 1200, true, true);
	struct model settled = settled_of(&m);
	unsigned nth;

	for (nth = 1; build_on_a_full_store(&w, 20000, &m, &settled, nth, _i == 1); nth++)
		;
	ck_assert_uint_gt(nth, 3);
	model_free(&settled);
	model_free(&m);
	world_free(&w);
}
END_TEST

/* Rows that make parts so large that the last one is encoded beside the helper. */
static struct model large_model(struct rng *r)
{
	struct model m = {0};
	uint8_t key[512], val[600];

	memset(val, 'v', sizeof(val));
	for (size_t i = 0; i < 6000; i++) {
		struct core_update u = random_update(r, true, key);

		u.val = (struct core_bytes){.data = val, .len = (uint32_t)rng_below(r, sizeof(val))};
		model_add(&m, &u, false);
	}
	return m;
}

START_TEST(a_batch_of_large_parts_holds_what_was_added_or_nothing_is_left_of_it)
{
	struct world w = world_new();
	struct rng r = rng_new(37);
	struct model m = large_model(&r);
	struct model settled = settled_of(&m);
	bool fired = true;
	unsigned nth;

	for (nth = 1; fired; nth++) {
		/* The tail is of another length each time. */
		size_t target = (size_t)(400 + rng_below(&r, 400)) << 10;

		kv_faults_arm(w.faults, nth, KV_FAULT_NOSPACE, false);
		enum kv_rc rc = try_build(&w, target, &m, &settled, &fired);

		ck_assert_int_eq(rc, fired ? KV_NOSPACE : KV_OK);
		ck_assert_uint_eq(world_blobs(&w), 0);
	}
	ck_assert_uint_gt(nth, 3);
	model_free(&settled);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_patient_builder_of_large_parts_goes_on_when_a_full_store_has_room_again)
{
	struct world w = world_new();
	struct rng r = rng_new(38);
	struct model m = large_model(&r);
	struct model settled = settled_of(&m);
	bool refused = true;
	unsigned nth;

	for (nth = 1; refused; nth++) {
		size_t target = (size_t)(400 + rng_below(&r, 400)) << 10;

		refused = build_on_a_full_store(&w, target, &m, &settled, nth, false);
	}
	ck_assert_uint_gt(nth, 3);
	model_free(&settled);
	model_free(&m);
	world_free(&w);
}
END_TEST

/* Whoever gives it up does not know what is with the thread that stores. */
START_TEST(a_builder_that_is_given_up_while_parts_are_stored_leaves_no_blob)
{
	struct world w = world_new();
	struct rng r = rng_new(39);
	struct model m = large_model(&r);

	for (size_t given_up = 0; given_up < m.count; given_up += 500) {
		struct core_builder *b = builder_of(
			&w, (struct core_builder_config){.target_bytes = 20000, .never_inline = true});
		struct kv_err err;

		for (size_t i = 0; i < given_up; i++)
			ck_ok(core_builder_add(b, &m.u[i], m.star[i], &err), err);
		core_builder_free(b);
		ck_assert_uint_eq(world_blobs(&w), 0);
	}
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_patient_builder_that_is_given_up_while_the_store_is_full_leaves_nothing)
{
	struct world w = world_new();
	struct rng r = rng_new(36);
	struct model m = model_random(&r, 1200, true, true);
	struct core_builder *b = builder_of(
		&w,
		(struct core_builder_config){.target_bytes = 20000, .never_inline = true, .patient = true});
	enum kv_rc rc = KV_OK;

	kv_faults_arm(w.faults, 2, KV_FAULT_NOSPACE, true);
	for (size_t i = 0; i < m.count && rc == KV_OK; i++)
		rc = core_builder_add(b, &m.u[i], m.star[i], NULL);
	world_heal(&w);
	core_builder_free(b);
	ck_assert_uint_eq(world_blobs(&w), 0);
	model_free(&m);
	world_free(&w);
}
END_TEST

Suite *builder_faults_suite(void)
{
	Suite *s = suite_create("core/builder_faults");
	TCase *t = tcase_create("builder_faults");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_failed_store_call_fails_the_builder_and_leaves_nothing);
	tcase_add_loop_test(t, a_patient_builder_goes_on_when_a_full_store_has_room_again, 0, 2);
	tcase_add_test(t, a_batch_of_large_parts_holds_what_was_added_or_nothing_is_left_of_it);
	tcase_add_test(t, a_patient_builder_of_large_parts_goes_on_when_a_full_store_has_room_again);
	tcase_add_test(t, a_builder_that_is_given_up_while_parts_are_stored_leaves_no_blob);
	tcase_add_test(t, a_patient_builder_that_is_given_up_while_the_store_is_full_leaves_nothing);
	suite_add_tcase(s, t);
	return s;
}
