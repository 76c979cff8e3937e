/*
 * test_builder.c - batches and builders against a plain model.
 */
#include "core/builder.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

static const struct core_frontier zero = {.t = 0};
static const struct core_frontier none = {.empty = true};

/* Add all of the model and finish. */
static struct core_batch *build(struct world *w, struct core_builder_config config, const struct model *m)
{
	struct core_builder *b = builder_of(w, config);
	struct core_batch *batch;
	struct kv_err err;

	for (size_t i = 0; i < m->count; i++)
		ck_ok(core_builder_add(b, &m->u[i], m->star[i], &err), err);
	ck_assert_uint_eq(core_builder_added(b), m->count);
	ck_ok(core_builder_finish(b, zero, none, &batch, &err), err);
	core_builder_free(b);
	return batch;
}

/* Each run is in order and its parts' descriptions add up. */
static void check_runs(struct world *w, const struct core_batch *batch)
{
	uint64_t rows = 0;

	ck_assert(batch->part_count == 0 || batch->run_starts[0] == 0);
	for (size_t run = 0; run < batch->run_count; run++) {
		size_t end = run + 1 < batch->run_count ? batch->run_starts[run + 1] : batch->part_count;
		struct model got = {0};

		ck_assert_uint_lt(batch->run_starts[run], end);
		for (size_t i = batch->run_starts[run]; i < end; i++) {
			ck_assert_int_eq(part_rows(&w->home, &batch->parts[i], &got, NULL), KV_OK);
			rows += batch->parts[i].rows;
		}
		for (size_t i = 1; i < got.count; i++)
			ck_assert_int_le(core_update_cmp(&got.u[i - 1], &got.u[i]), 0);
		model_free(&got);
	}
	ck_assert_uint_eq(rows, batch->rows);
}

START_TEST(a_batch_holds_the_sums_of_what_was_added)
{
	struct world w = world_new();
	struct rng r = rng_new(30);

	for (int round = 0; round < 60; round++) {
		struct model m = model_random(&r, rng_below(&r, 3000), round % 2 == 0, round % 3 == 0);
		struct core_builder_config config = {.target_bytes =
							     round % 4 == 0 ? 0 : 1 + rng_below(&r, 40000),
						     .never_inline = round % 5 == 0,
						     .no_helper = rng_below(&r, 2) == 0};
		struct model got = {0};

		if (config.target_bytes > 0 && config.target_bytes < 1000 && m.count > 300)
			config.target_bytes = 1000;
		struct core_batch *batch = build(&w, config, &m);
		check_runs(&w, batch);
		batch_rows(&w.home, batch, &got);
		/* Stars are counted, not kept row by row. */
		uint64_t stars = 0;
		for (size_t i = 0; i < batch->part_count; i++)
			stars += batch->parts[i].stars;
		struct model settled = {0};
		for (size_t i = 0; i < m.count; i++)
			model_add(&settled, &m.u[i], m.star[i]);
		model_settle(&settled);
		if (config.target_bytes == 0) {
			uint64_t want = 0;

			for (size_t i = 0; i < settled.count; i++)
				want += settled.star[i];
			ck_assert_uint_eq(stars, want);
			ck_assert_uint_le(batch->part_count, 1);
		}
		for (size_t i = 0; i < m.count; i++)
			m.star[i] = false;
		model_settle(&m);
		model_settle(&got);
		model_same(&got, &m);
		core_batch_delete_blobs(&w.home, batch);
		ck_assert_uint_eq(world_blobs(&w), 0);
		core_batch_unref(batch);
		model_free(&settled);
		model_free(&got);
		model_free(&m);
	}
	world_free(&w);
}
END_TEST

/* Its chunks are as large as they get, and rows of many lengths come to lie in them. */
START_TEST(a_heap_that_is_used_again_for_each_part_loses_no_row)
{
	struct world w = world_new();
	struct rng r = rng_new(36);
	struct model m = {0}, got = {0};
	static uint8_t buf[2 << 20];

	for (size_t i = 0; i < sizeof buf; i++)
		buf[i] = (uint8_t)rng_below(&r, 256);
	for (uint64_t i = 0; i < 400; i++) {
		/* A few that are longer than a chunk usually is. */
		size_t len = rng_below(&r, i % 50 == 0 ? sizeof buf / 2 : 60000);
		uint64_t time = i % 7 == 0 && i < 100 ? 0 : i;
		struct core_update u = {.key = {.data = buf + rng_below(&r, sizeof buf / 2), .len = 9},
					.val = {.data = buf + rng_below(&r, sizeof buf / 2), .len = len},
					.time = time,
					.diff = 1};

		model_add(&m, &u, i % 7 == 0 && i < 100); /* stars at the beginning alone */
	}
	struct core_batch *batch =
		build(&w, (struct core_builder_config){.target_bytes = 3 << 20, .no_helper = true}, &m);
	ck_assert_uint_gt(batch->part_count, 3);
	ck_assert_uint_eq(batch->parts[batch->part_count - 1].stars, 0);
	check_runs(&w, batch);
	batch_rows(&w.home, batch, &got);
	for (size_t i = 0; i < m.count; i++)
		m.star[i] = false;
	model_settle(&m);
	model_settle(&got);
	model_same(&got, &m);
	core_batch_unref(batch);
	model_free(&got);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(rows_in_order_make_one_run_and_others_more)
{
	struct world w = world_new();
	struct rng r = rng_new(31);
	struct model m = model_random(&r, 4000, false, false);

	struct core_batch *batch = build(&w, (struct core_builder_config){.target_bytes = 5000}, &m);
	ck_assert_uint_gt(batch->part_count, 10);
	ck_assert_uint_gt(batch->run_count, 1);
	core_batch_unref(batch);
	model_settle(&m);
	batch = build(&w, (struct core_builder_config){.target_bytes = 5000}, &m);
	ck_assert_uint_gt(batch->part_count, 3);
	ck_assert_uint_eq(batch->run_count, 1);
	check_runs(&w, batch);
	core_batch_unref(batch);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_star_never_stands_in_one_run_with_its_like_in_another_part)
{
	struct world w = world_new();

	for (int star = 0; star < 2; star++) {
		struct model m = {0};

		for (uint64_t i = 0; i < 100; i++) {
			struct core_update u = {
				.key = bytes_of("k"), .val = bytes_of("v"), .time = i, .diff = 1};

			model_add(&m, &u, star == 1 && i == 0);
		}
		struct core_batch *batch = build(
			&w, (struct core_builder_config){.target_bytes = 1000, .never_inline = true}, &m);
		ck_assert_uint_gt(batch->part_count, 2);
		ck_assert_uint_eq(batch->run_count, star == 1 ? 2 : 1);
		core_batch_unref(batch);
		model_free(&m);
	}
	world_free(&w);
}
END_TEST

START_TEST(what_cancels_out_is_not_written)
{
	struct world w = world_new();
	struct model m = {0};

	for (uint64_t i = 0; i < 1000; i++) {
		struct core_update u = {
			.key = bytes_of("k"), .val = bytes_of(NULL), .time = i / 4, .diff = i % 2 ? 1 : -1};
		model_add(&m, &u, false);
	}
	for (size_t target = 0; target < 3000; target += 1000) {
		struct core_batch *batch =
			build(&w, (struct core_builder_config){.target_bytes = 50 * 4 * target}, &m);
		ck_assert_uint_eq(batch->part_count, 0);
		ck_assert_uint_eq(batch->run_count, 0);
		core_batch_unref(batch);
	}
	ck_assert_uint_eq(world_blobs(&w), 0);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(sums_that_leave_i64_stay_apart)
{
	struct world w = world_new();
	struct model m = {0}, got = {0};
	struct core_update u = {.key = bytes_of("k"), .val = bytes_of("v"), .time = 1, .diff = INT64_MAX};

	model_add(&m, &u, false);
	model_add(&m, &u, false);
	u.diff = 3;
	model_add(&m, &u, false);
	u.val = bytes_of("w");
	u.diff = INT64_MIN;
	model_add(&m, &u, false);
	model_add(&m, &u, false);
	struct core_batch *batch = build(&w, (struct core_builder_config){0}, &m);
	ck_assert_uint_eq(batch->rows, 5);
	batch_rows(&w.home, batch, &got);
	model_settle(&m);
	model_same(&got, &m);
	core_batch_unref(batch);
	model_free(&got);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_small_batch_stays_inline_and_flushing_stores_the_same_rows)
{
	struct world w = world_new();
	struct rng r = rng_new(32);
	struct model m = model_random(&r, 20, false, false);
	struct model want = {0}, got = {0};
	struct kv_err err;

	struct core_batch *batch = build(&w, (struct core_builder_config){.inline_max = 100000}, &m);
	struct core_part *only = &batch->parts[0];
	ck_assert_uint_eq(batch->part_count, 1);
	ck_assert(only->inline_data != NULL && only->size < 100000);
	ck_assert_uint_eq(core_batch_inline_bytes(batch), only->size);
	ck_assert_uint_eq(world_blobs(&w), 0);
	batch_rows(&w.home, batch, &want);
	struct core_part before = *only;
	only->rewrite_ts = 9;

	kv_faults_arm(w.faults, 1, KV_FAULT_LOST_UNKNOWN, false);
	ck_assert_int_eq(core_batch_flush_inline(&w.home, batch, &err), KV_UNKNOWN);
	world_heal(&w);
	ck_ok(core_batch_flush_inline(&w.home, batch, &err), err);
	ck_assert(only->inline_data == NULL && only->size == before.size && only->rewrite_ts == 9);
	ck_assert(only->checksum == before.checksum && core_uuid_eq(only->id.u, before.id.u));
	ck_assert_uint_eq(core_batch_inline_bytes(batch), 0);
	ck_assert_uint_eq(world_blobs(&w), 1);
	only->rewrite_ts = 0;
	batch_rows(&w.home, batch, &got);
	model_same(&got, &want);
	core_batch_unref(batch);
	model_free(&want);
	model_free(&got);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_batch_of_several_parts_has_none_inline)
{
	struct world w = world_new();
	struct rng r = rng_new(32);
	struct model m = model_random(&r, 2000, false, false);

	struct core_batch *batch = build(&w, (struct core_builder_config){.target_bytes = 20000}, &m);
	ck_assert_uint_gt(batch->part_count, 1);
	ck_assert_uint_eq(core_batch_inline_bytes(batch), 0);
	ck_assert_uint_eq(world_blobs(&w), batch->part_count);
	core_batch_unref(batch);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(many_large_builders_ship_smaller_parts)
{
	enum { BUILDERS = 8, ROWS = 40000 };
	struct world w = world_new();
	struct core_builders builders;
	struct core_builder *b[BUILDERS];
	struct kv_err err;
	uint8_t key[64] = {0};
	size_t parts[2] = {0};

	core_builders_init(&builders);
	w.home.builders = &builders;
	for (int round = 0; round < 2; round++) { /* alone, and together */
		unsigned count = round == 0 ? 1 : BUILDERS;

		for (unsigned i = 0; i < count; i++)
			b[i] = builder_of(&w, (struct core_builder_config){.target_bytes = 2 << 20});
		for (unsigned row = 0; row < ROWS; row++) {
			memcpy(key, &row, sizeof row);
			for (unsigned i = 0; i < count; i++)
				ck_ok(core_builder_add(
					      b[i],
					      &(struct core_update){.key = {key, sizeof key}, .diff = 1},
					      false, &err),
				      err);
		}
		ck_assert_uint_eq(atomic_load(&builders.large), count);
		for (unsigned i = 0; i < count; i++) {
			struct core_batch *batch;

			ck_ok(core_builder_finish(b[i], core_frontier_at(0), core_frontier_at(1), &batch,
						  &err),
			      err);
			ck_assert_uint_eq(batch->rows, ROWS);
			parts[round] = batch->part_count;
			core_batch_unref(batch);
			core_builder_free(b[i]);
		}
		ck_assert_uint_eq(atomic_load(&builders.large), 0);
	}
	ck_assert_uint_ge(parts[1], 3 * parts[0]);
	world_free(&w);
}
END_TEST

START_TEST(a_builder_that_is_given_up_leaves_no_blob)
{
	struct world w = world_new();
	struct rng r = rng_new(33);
	struct model m = model_random(&r, 2000, true, false);

	for (size_t stop = 0; stop <= 2000; stop += 500) {
		struct core_builder *b = builder_of(&w, (struct core_builder_config){.target_bytes = 3000});
		struct kv_err err;

		for (size_t i = 0; i < stop; i++)
			ck_ok(core_builder_add(b, &m.u[i], false, &err), err);
		core_builder_free(b);
		ck_assert_uint_eq(world_blobs(&w), 0);
	}
	core_builder_free(NULL);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_builder_is_left_empty_by_finishing)
{
	struct world w = world_new();
	struct core_builder *b = builder_of(&w, (struct core_builder_config){0});
	struct core_update u = {.key = bytes_of("k"), .val = bytes_of("v"), .time = 1, .diff = 1};
	struct core_batch *batch;
	struct kv_err err;

	ck_ok(core_builder_add(b, &u, false, &err), err);
	ck_ok(core_builder_finish(b, core_frontier_at(1), core_frontier_at(2), &batch, &err), err);
	ck_assert_uint_eq(batch->rows, 1);
	ck_assert(core_frontier_eq(batch->lower, core_frontier_at(1)) &&
		  core_frontier_eq(batch->upper, core_frontier_at(2)));
	core_batch_unref(batch);
	ck_ok(core_builder_finish(b, core_frontier_at(1), core_frontier_at(2), &batch, &err), err);
	ck_assert_uint_eq(batch->rows, 0);
	core_batch_unref(batch);
	core_builder_free(b);
	world_free(&w);
}
END_TEST

START_TEST(batches_grow_and_die_with_their_last_holder)
{
	struct core_batch *b = core_batch_new(zero, none);

	for (uint64_t i = 0; i < 1000; i++) {
		struct core_part part = {.rows = i, .inline_data = malloc(10), .size = 10};

		ck_assert(core_batch_push(b, &part, i % 3 == 0));
		ck_assert_ptr_eq(part.inline_data, NULL);
	}
	ck_assert_uint_eq(b->part_count, 1000);
	ck_assert_uint_eq(b->run_count, 334);
	ck_assert_uint_eq(b->rows, 999 * 500);
	ck_assert_uint_eq(b->run_starts[333], 999);
	ck_assert_uint_eq(core_batch_inline_bytes(b), 10000);
	ck_assert_ptr_eq(core_batch_ref(b), b);
	core_batch_unref(b);
	ck_assert_uint_eq(b->parts[999].rows, 999);
	core_batch_unref(b);
	core_batch_unref(NULL);
}
END_TEST

Suite *builder_suite(void)
{
	Suite *s = suite_create("core/builder");
	TCase *t = tcase_create("builder");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, batches_grow_and_die_with_their_last_holder);
	tcase_add_test(t, a_batch_holds_the_sums_of_what_was_added);
	tcase_add_test(t, a_heap_that_is_used_again_for_each_part_loses_no_row);
	tcase_add_test(t, rows_in_order_make_one_run_and_others_more);
	tcase_add_test(t, a_star_never_stands_in_one_run_with_its_like_in_another_part);
	tcase_add_test(t, what_cancels_out_is_not_written);
	tcase_add_test(t, sums_that_leave_i64_stay_apart);
	tcase_add_test(t, a_small_batch_stays_inline_and_flushing_stores_the_same_rows);
	tcase_add_test(t, a_batch_of_several_parts_has_none_inline);
	tcase_add_test(t, many_large_builders_ship_smaller_parts);
	tcase_add_test(t, a_builder_that_is_given_up_leaves_no_blob);
	tcase_add_test(t, a_builder_is_left_empty_by_finishing);
	suite_add_tcase(s, t);
	return s;
}
