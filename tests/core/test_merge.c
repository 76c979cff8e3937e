/*
 * test_merge.c - merges against a plain model: bounds, rewrites, stars, passes, overflow, failing stores.
 */
#include "core/builder.h"
#include "core/merge.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

static const struct core_frontier zero = {.t = 0};
static const struct core_frontier none = {.empty = true};

struct batches {
	struct core_batch **b;
	size_t count;
	struct model seen; /* what a reader sees of them: times lifted, bounds applied */
};

static void batches_free(struct batches *all)
{
	for (size_t i = 0; i < all->count; i++)
		core_batch_unref(all->b[i]);
	free(all->b);
	model_free(&all->seen);
}

/* A random batch of some rows: random bounds, rewrite and inlining; what it shows is added to seen. */
static void add_random(struct world *w, struct rng *r, struct batches *all, size_t rows, bool wide)
{
	struct core_builder_config config = {.target_bytes = 1000 + rng_below(r, 30000),
					     .never_inline = rng_below(r, 2) == 0};
	uint64_t rewrite = rng_below(r, 3) == 0 ? rng_below(r, 20) : 0;
	struct core_frontier lower = rng_below(r, 3) == 0 ? core_frontier_at(rng_below(r, 10)) : zero;
	struct core_frontier upper = rng_below(r, 3) == 0 ? core_frontier_at(rng_below(r, 500)) : none;
	struct core_builder *b;
	struct kv_err err;
	uint8_t buf[512];

	ck_ok(core_builder_new(&w->home, config, &b, &err), err);
	for (size_t i = 0; i < rows; i++) {
		struct core_update u = random_update(r, wide, buf);
		bool star = rewrite > 0 && rng_below(r, 3) == 0;

		if (star)
			u.time = 0;
		ck_ok(core_builder_add(b, &u, star, &err), err);
		u.time = u.time < rewrite ? rewrite : u.time;
		if (core_frontier_covers(lower, u.time) && !core_frontier_covers(upper, u.time))
			model_add(&all->seen, &u, false);
	}
	all->b = realloc(all->b, (all->count + 1) * sizeof(struct core_batch *));
	ck_ok(core_builder_finish(b, lower, upper, &all->b[all->count], &err), err);
	core_builder_free(b);
	for (size_t i = 0; i < all->b[all->count]->part_count; i++)
		all->b[all->count]->parts[i].rewrite_ts = rewrite;
	all->count++;
}

/* The model of a merge over what is seen. */
static struct model merged_model(const struct batches *all, enum core_merge_mode mode, uint64_t time)
{
	struct model m = {0};

	for (size_t i = 0; i < all->seen.count; i++) {
		struct core_update u = all->seen.u[i];

		if (mode == CORE_MERGE_AS_OF && u.time > time)
			continue;
		u.time = u.time < time ? time : u.time;
		model_add(&m, &u, false);
	}
	model_settle(&m);
	return m;
}

/* Resting before one in `rare` rows, at random; 0: never. */
static enum kv_rc merge_resting(struct world *w, const struct batches *all, enum core_merge_mode mode,
				uint64_t time, struct rng *r, uint64_t rare, struct model *got,
				struct kv_err *err)
{
	struct core_merge *m;
	bool end = false;

	enum kv_rc rc = core_merge_open(&w->home, all->b, all->count, mode, time, &m, err);
	while (rc == KV_OK) {
		struct core_update u;

		if (rare != 0 && rng_below(r, rare) == 0) {
			core_merge_rest(m);
			core_merge_rest(m);
		}
		rc = core_merge_next(m, &u, &end, err);
		if (rc != KV_OK || end)
			break;
		ck_assert_int_ne(u.diff, 0);
		model_add(got, &u, false);
	}
	core_merge_close(m);
	return rc;
}

static enum kv_rc merge_rows(struct world *w, const struct batches *all, enum core_merge_mode mode,
			     uint64_t time, struct model *got, struct kv_err *err)
{
	return merge_resting(w, all, mode, time, NULL, 0, got, err);
}

/* Whether two rows of the model have the same (key, val, time): a sum that left i64. */
static bool has_apart(const struct model *m)
{
	for (size_t i = 1; i < m->count; i++) {
		if (core_update_cmp(&m->u[i - 1], &m->u[i]) == 0)
			return true;
	}
	return false;
}

static void check_merges(struct world *w, const struct batches *all, uint64_t time)
{
	size_t blobs = world_blobs(w);

	for (int mode = CORE_MERGE_AS_OF; mode <= CORE_MERGE_ADVANCE; mode++) {
		struct model want = merged_model(all, (enum core_merge_mode)mode, time);
		struct model got = {0};
		struct kv_err err = {0};

		enum kv_rc rc = merge_rows(w, all, (enum core_merge_mode)mode, time, &got, &err);
		if (mode == CORE_MERGE_AS_OF && has_apart(&want)) {
			ck_assert_int_eq(rc, KV_OVERFLOW);
		} else {
			ck_assert_msg(rc == KV_OK, "%s", err.msg);
			model_same(&got, &want);
		}
		model_free(&want);
		model_free(&got);
	}
	ck_assert_uint_eq(world_blobs(w), blobs);
}

START_TEST(a_merge_is_the_sum_of_what_the_batches_show)
{
	struct rng r = rng_new(40);

	for (int round = 0; round < 40; round++) {
		struct world w = world_new();
		struct batches all = {0};

		for (size_t n = rng_below(&r, 8); n > 0; n--)
			add_random(&w, &r, &all, rng_below(&r, 600), round % 4 == 0);
		check_merges(&w, &all, rng_below(&r, 30));
		check_merges(&w, &all, 0);
		check_merges(&w, &all, UINT64_MAX);
		batches_free(&all);
		world_free(&w);
	}
}
END_TEST

START_TEST(more_runs_than_ways_go_in_passes_and_leave_no_blob)
{
	static const size_t counts[] = {63, 64, 65, 66, 127, 128, 200, 700};
	struct rng r = rng_new(41);

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct world w = world_new();
		struct batches all = {0};

		for (size_t n = 0; n < counts[i]; n++)
			add_random(&w, &r, &all, 1 + rng_below(&r, 40), i % 2 == 0);
		check_merges(&w, &all, rng_below(&r, 30));
		batches_free(&all);
		world_free(&w);
	}
}
END_TEST

START_TEST(thousands_of_runs_are_merged_too)
{
	struct world w = world_new();
	struct rng r = rng_new(42);
	struct batches all = {0};

	for (size_t n = 0; n < 4300; n++)
		add_random(&w, &r, &all, 1 + rng_below(&r, 3), false);
	check_merges(&w, &all, 5);
	for (size_t i = 0; i < all.count; i++)
		ck_assert_int_eq(core_batch_flush_inline(&w.home, all.b[i], NULL), KV_OK);
	check_merges(&w, &all, 5);
	batches_free(&all);
	world_free(&w);
}
END_TEST

/* A batch of one row. */
static void add_one(struct world *w, struct batches *all, const char *key, uint64_t time, int64_t diff)
{
	struct core_update u = {.key = bytes_of(key), .val = bytes_of("v"), .time = time, .diff = diff};
	struct core_builder *b;
	struct kv_err err;

	ck_ok(core_builder_new(&w->home, (struct core_builder_config){.never_inline = true}, &b, &err), err);
	ck_ok(core_builder_add(b, &u, false, &err), err);
	all->b = realloc(all->b, (all->count + 1) * sizeof(struct core_batch *));
	ck_ok(core_builder_finish(b, zero, none, &all->b[all->count++], &err), err);
	core_builder_free(b);
	model_add(&all->seen, &u, false);
}

START_TEST(sums_overflow_only_if_the_final_sum_does)
{
	struct world w = world_new();
	struct batches all = {0};
	struct model got = {0};
	struct kv_err err;

	for (uint64_t i = 0; i < 40; i++)
		add_one(&w, &all, "key", i, INT64_MAX);
	ck_assert_int_eq(merge_rows(&w, &all, CORE_MERGE_AS_OF, 100, &got, &err), KV_OVERFLOW);
	ck_assert_ptr_ne(strstr(err.msg, "\"key\""), NULL);
	ck_assert_uint_eq(got.count, 0);
	ck_assert_int_eq(merge_rows(&w, &all, CORE_MERGE_AS_OF, 0, &got, &err), KV_OK);
	ck_assert_uint_eq(got.count, 1);
	check_merges(&w, &all, 3);
	/* What brings it back, behind passes too. */
	for (uint64_t i = 0; i < 40; i++)
		add_one(&w, &all, "key", i, -INT64_MAX);
	add_one(&w, &all, "key", 7, 5);
	model_free(&got);
	ck_ok(merge_rows(&w, &all, CORE_MERGE_AS_OF, 100, &got, &err), err);
	ck_assert_uint_eq(got.count, 1);
	ck_assert_int_eq(got.u[0].diff, 5);
	check_merges(&w, &all, 100);
	model_free(&got);
	batches_free(&all);
	world_free(&w);
}
END_TEST

START_TEST(a_merge_of_nothing_ends_at_once)
{
	struct world w = world_new();
	struct batches all = {0};

	check_merges(&w, &all, 0);
	core_merge_close(NULL);
	batches_free(&all);
	world_free(&w);
}
END_TEST

START_TEST(a_failed_store_call_fails_the_merge_and_leaves_nothing)
{
	struct world w = world_new();
	struct rng r = rng_new(43);
	struct batches all = {0};

	for (size_t n = 0; n < 70; n++)
		add_random(&w, &r, &all, 1 + rng_below(&r, 20), false);
	for (size_t n = 0; n < all.count; n++)
		ck_assert_int_eq(core_batch_flush_inline(&w.home, all.b[n], NULL), KV_OK);
	size_t blobs = world_blobs(&w);
	struct model want = merged_model(&all, CORE_MERGE_ADVANCE, 3);
	for (int kind = KV_FAULT_BEFORE; kind <= KV_FAULT_TORN; kind++) {
		bool fired = true;

		if (kind == KV_FAULT_SLOW)
			continue;
		for (unsigned nth = 1; fired; nth++) {
			struct model got = {0};

			kv_faults_arm(w.faults, nth, (enum kv_fault)kind, false);
			enum kv_rc rc = merge_rows(&w, &all, CORE_MERGE_ADVANCE, 3, &got, NULL);
			fired = kv_faults_fired(w.faults);
			world_heal(&w);
			ck_assert(fired || rc == KV_OK);
			/* A full store is gone around; a deletion may fail in silence. */
			if (rc == KV_OK)
				model_same(&got, &want);
			ck_assert_uint_le(world_blobs(&w), blobs + (rc == KV_OK && fired));
			model_free(&got);
			struct kv_blob_list list;
			ck_assert_int_eq(kv_blob_list(w.home.blobs, "", "", 100000, &list, NULL), KV_OK);
			if (list.count > blobs) /* what a failed deletion left: forget it */
				blobs = list.count;
			kv_blob_list_free(&list);
		}
	}
	model_free(&want);
	batches_free(&all);
	world_free(&w);
}
END_TEST

START_TEST(a_merge_that_rests_gives_the_same_rows)
{
	struct rng r = rng_new(44);

	for (int round = 0; round < 60; round++) {
		struct world w = world_new();
		struct batches all = {0};

		for (size_t n = rng_below(&r, round % 10 == 0 ? 80 : 8); n > 0; n--)
			add_random(&w, &r, &all, rng_below(&r, 400), round % 4 == 0);
		for (int mode = CORE_MERGE_AS_OF; mode <= CORE_MERGE_ADVANCE; mode++) {
			uint64_t time = rng_below(&r, 30);
			struct model want = {0}, got = {0};
			struct kv_err err = {0};
			enum kv_rc rc = merge_rows(&w, &all, (enum core_merge_mode)mode, time, &want, NULL);

			ck_assert_int_eq(merge_resting(&w, &all, (enum core_merge_mode)mode, time, &r,
						       1 + rng_below(&r, 100), &got, &err),
					 rc);
			model_same(&got, &want);
			model_free(&want);
			model_free(&got);
		}
		batches_free(&all);
		world_free(&w);
	}
}
END_TEST

START_TEST(a_failed_store_call_while_it_wakes_fails_the_merge)
{
	struct world w = world_new();
	struct rng r = rng_new(45);
	struct batches all = {0};
	unsigned failed = 0;
	bool fired = true;

	for (size_t n = 0; n < 5; n++)
		add_random(&w, &r, &all, 20, false);
	for (size_t n = 0; n < all.count; n++)
		ck_assert_int_eq(core_batch_flush_inline(&w.home, all.b[n], NULL), KV_OK);
	struct model want = merged_model(&all, CORE_MERGE_ADVANCE, 3);
	for (unsigned nth = 1; fired; nth++) {
		struct model got = {0};

		kv_faults_arm(w.faults, nth, KV_FAULT_BEFORE, false);
		enum kv_rc rc = merge_resting(&w, &all, CORE_MERGE_ADVANCE, 3, &r, 1, &got, NULL);
		fired = kv_faults_fired(w.faults);
		world_heal(&w);
		ck_assert(fired || rc == KV_OK);
		failed += rc != KV_OK;
		if (rc == KV_OK)
			model_same(&got, &want);
		model_free(&got);
	}
	ck_assert_uint_gt(failed, 5); /* more than opening calls */
	model_free(&want);
	batches_free(&all);
	world_free(&w);
}
END_TEST

/* Runs of few rows with vals of that many bytes, which do not compress. */
static void add_large(struct world *w, struct rng *r, struct batches *all, size_t runs, size_t len)
{
	uint8_t *val = malloc(len);
	struct core_builder *b;
	struct kv_err err;

	all->b = calloc(runs, sizeof(struct core_batch *));
	for (; all->count < runs; all->count++) {
		ck_ok(core_builder_new(&w->home, (struct core_builder_config){.never_inline = true}, &b,
				       &err),
		      err);
		for (int i = 0; i < 4; i++) {
			struct core_update u = {.key = {.data = val, .len = 8},
						.val = {.data = val, .len = (uint32_t)len},
						.diff = 1};

			for (size_t c = 0; c < len; c++)
				val[c] = (uint8_t)('a' + rng_below(r, 26));
			ck_ok(core_builder_add(b, &u, false, &err), err);
		}
		ck_ok(core_builder_finish(b, zero, none, &all->b[all->count], &err), err);
		core_builder_free(b);
	}
	free(val);
}

START_TEST(what_a_merge_takes_is_known_before_and_given_back_at_rest)
{
	static const size_t lens[] = {10, 3000, 90000, 1 << 20};
	struct rng r = rng_new(47);

	for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
		struct world w = world_new();
		struct batches all = {0};
		struct core_merge *m;
		struct core_update u;
		struct kv_err err;
		bool end;

		add_large(&w, &r, &all, 6, lens[i]);
		size_t need = core_merge_need_of(all.b, all.count);
		ck_ok(core_merge_open(&w.home, all.b, all.count, CORE_MERGE_AS_OF, 0, &m, &err), err);
		ck_ok(core_merge_next(m, &u, &end, &err), err);
		size_t held = core_merge_held(m);
		ck_assert_msg(held <= need + need / 2, "%zu of %zu", held, need);
		ck_assert_msg(need <= 3 * held, "%zu of %zu", held, need);
		ck_assert_uint_ge(core_merge_need(m), held);
		core_merge_rest(m);
		ck_assert_uint_eq(core_merge_held(m), 0);
		ck_assert_uint_ge(core_merge_need(m), held);
		ck_ok(core_merge_next(m, &u, &end, &err), err);
		ck_assert_uint_gt(core_merge_held(m), 0);
		core_merge_close(m);
		batches_free(&all);
		world_free(&w);
	}
}
END_TEST

START_TEST(a_full_store_does_not_keep_anybody_from_reading)
{
	struct world w = world_new();
	struct batches all = {0};
	struct model got = {0};
	struct kv_err err;
	char key[16];

	for (uint64_t i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "%03d", (int)i);
		add_one(&w, &all, key, 1, 1);
	}
	struct model want = merged_model(&all, CORE_MERGE_AS_OF, 5);
	unsigned gone_around = 0;
	bool fired = true;
	for (unsigned nth = 1; fired; nth++) {
		kv_faults_arm(w.faults, nth, KV_FAULT_NOSPACE, false);
		enum kv_rc rc = merge_rows(&w, &all, CORE_MERGE_AS_OF, 5, &got, &err);
		fired = kv_faults_fired(w.faults);
		world_heal(&w);
		/* A read that the fault strikes does not answer; a set that it strikes is not needed. */
		ck_assert(rc == KV_OK || rc == KV_UNREACHABLE);
		if (rc == KV_OK) {
			model_same(&got, &want);
			gone_around += fired;
		}
		model_free(&got);
	}
	ck_assert_uint_gt(gone_around, 0);
	model_free(&want);
	batches_free(&all);
	world_free(&w);
}
END_TEST

START_TEST(damage_in_one_run_fails_the_merge)
{
	struct world w = world_new();
	struct batches all = {0};
	struct model got = {0};
	struct kv_err err;
	char key[CORE_BLOB_KEY_LEN];

	add_one(&w, &all, "a", 1, 1);
	add_one(&w, &all, "b", 1, 1);
	core_part_key(w.home.shard, &all.b[1]->parts[0], key);
	ck_ok(kv_blob_delete(w.home.blobs, key, NULL, NULL, &err), err);
	ck_assert_int_eq(merge_rows(&w, &all, CORE_MERGE_AS_OF, 5, &got, &err), KV_CORRUPT);
	model_free(&got);
	batches_free(&all);
	world_free(&w);
}
END_TEST

Suite *merge_suite(void)
{
	Suite *s = suite_create("core/merge");
	TCase *t = tcase_create("merge");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_merge_of_nothing_ends_at_once);
	tcase_add_test(t, a_merge_is_the_sum_of_what_the_batches_show);
	tcase_add_test(t, more_runs_than_ways_go_in_passes_and_leave_no_blob);
	tcase_add_test(t, thousands_of_runs_are_merged_too);
	tcase_add_test(t, sums_overflow_only_if_the_final_sum_does);
	tcase_add_test(t, a_failed_store_call_fails_the_merge_and_leaves_nothing);
	tcase_add_test(t, a_full_store_does_not_keep_anybody_from_reading);
	tcase_add_test(t, damage_in_one_run_fails_the_merge);
	tcase_add_test(t, a_merge_that_rests_gives_the_same_rows);
	tcase_add_test(t, a_failed_store_call_while_it_wakes_fails_the_merge);
	tcase_add_test(t, what_a_merge_takes_is_known_before_and_given_back_at_rest);
	suite_add_tcase(s, t);
	return s;
}
