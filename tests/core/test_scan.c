/*
 * test_scan.c - batches as text at any offset, against the whole text.
 */
#include "core/builder.h"
#include "core/scan.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

/* A batch and the text it should have. */
struct text {
	struct core_batch *batch;
	char *p;
	size_t len;
};

static struct text random_text(struct world *w, struct rng *r, size_t rows, bool wide)
{
	struct core_builder_config config = {.target_bytes = 2000 + rng_below(r, 400000)};
	uint64_t rewrite = rng_below(r, 2) == 0 ? rng_below(r, 20) : 0;
	struct core_frontier lower = core_frontier_at(rng_below(r, 2) == 0 ? rng_below(r, 10) : 0);
	struct core_frontier upper =
		rng_below(r, 2) == 0 ? core_frontier_at(rng_below(r, 500)) : core_frontier_empty();
	struct model stored = {0};
	struct text text = {0};
	struct core_builder *b;
	struct kv_err err;
	uint8_t buf[512];

	ck_ok(core_builder_new(&w->home, config, &b, &err), err);
	for (size_t i = 0; i < rows; i++) {
		struct core_update u = random_update(r, wide, buf);

		ck_ok(core_builder_add(b, &u, false, &err), err);
	}
	ck_ok(core_builder_finish(b, lower, upper, &text.batch, &err), err);
	core_builder_free(b);
	batch_rows(&w->home, text.batch, &stored);
	for (size_t i = 0; i < text.batch->part_count; i++)
		text.batch->parts[i].rewrite_ts = rewrite;
	text.p = malloc(stored.count * 1200 + 1);
	for (size_t i = 0; i < stored.count; i++) {
		struct core_update u = stored.u[i];

		u.time = u.time < rewrite ? rewrite : u.time;
		if (core_frontier_covers(lower, u.time) && !core_frontier_covers(upper, u.time))
			text.len += core_row_format(&u, text.p + text.len);
	}
	model_free(&stored);
	return text;
}

static void text_free(struct text *t)
{
	core_batch_unref(t->batch);
	free(t->p);
}

static void check_read(struct core_scan *s, const struct text *t, uint64_t offset, size_t len)
{
	char *buf = malloc(len + 1);
	size_t left = offset < t->len ? t->len - (size_t)offset : 0;
	size_t want = left < len ? left : len;
	struct kv_err err;
	size_t got;

	ck_ok(core_scan_read(s, offset, buf, len, &got, &err), err);
	ck_assert_uint_eq(got, want);
	if (want > 0)
		ck_assert_mem_eq(buf, t->p + offset, want);
	free(buf);
}

START_TEST(the_text_of_a_batch_is_its_rows_from_any_offset)
{
	struct rng r = rng_new(50);

	for (int round = 0; round < 30; round++) {
		struct world w = world_new();
		struct text t = random_text(&w, &r, round == 0 ? 0 : 1 + rng_below(&r, 4000), round % 2 == 0);
		struct core_scan *s;
		struct kv_err err;
		uint64_t size;

		ck_ok(core_scan_size(&w.home, t.batch, &size, &err), err);
		ck_assert_uint_eq(size, t.len);
		ck_ok(core_scan_open(&w.home, t.batch, &s, &err), err);
		if (round % 3 == 0) {
			check_read(s, &t, 0, t.len + 100);
		} else if (round % 3 == 1) {
			for (uint64_t at = 0; at <= t.len; at += 4096)
				check_read(s, &t, at, 4096);
		}
		for (int n = 0; n < 100; n++)
			check_read(s, &t, rng_below(&r, t.len + 50),
				   rng_below(&r, rng_below(&r, 2) == 0 ? 50 : 100000));
		check_read(s, &t, UINT64_MAX - 5, 10);
		check_read(s, &t, 0, t.len);
		core_scan_close(s);
		text_free(&t);
		world_free(&w);
	}
	core_scan_close(NULL);
}
END_TEST

START_TEST(reading_on_and_going_back_a_little_cost_no_more_store_calls_than_bytes)
{
	struct world w = world_new();
	struct rng r = rng_new(51);
	struct core_scan *s;
	struct kv_err err;
	struct text t = random_text(&w, &r, 8000, true);

	while (t.len < 400000) {
		text_free(&t);
		t = random_text(&w, &r, 8000, true);
	}
	ck_ok(core_scan_open(&w.home, t.batch, &s, &err), err);
	world_heal(&w);
	for (uint64_t at = 0; at < t.len; at += 100)
		check_read(s, &t, at, 100);
	unsigned through = kv_faults_calls(w.faults);
	ck_assert_uint_le(through, 2 * (unsigned)t.batch->part_count + (unsigned)(t.len / 100000));
	/* Within the row that was cut, and within the block. */
	check_read(s, &t, t.len / 2, 10);
	world_heal(&w);
	check_read(s, &t, t.len / 2 + 5, 5);
	check_read(s, &t, t.len / 2 + 10, 10);
	ck_assert_uint_eq(kv_faults_calls(w.faults), 0);
	core_scan_close(s);
	text_free(&t);
	world_free(&w);
}
END_TEST

START_TEST(going_back_costs_one_block)
{
	struct world w = world_new();
	struct rng r = rng_new(53);
	struct text t = {0};
	struct core_builder *b;
	struct core_scan *s;
	struct kv_err err;
	uint8_t buf[512];

	ck_ok(core_builder_new(&w.home, (struct core_builder_config){0}, &b, &err), err);
	for (int i = 0; i < 10000; i++) {
		struct core_update u = random_update(&r, true, buf);

		ck_ok(core_builder_add(b, &u, false, &err), err);
	}
	ck_ok(core_builder_finish(b, core_frontier_at(0), core_frontier_empty(), &t.batch, &err), err);
	core_builder_free(b);
	ck_assert_uint_eq(t.batch->part_count, 1);
	ck_assert_uint_gt(t.batch->parts[0].size, 5 * 256 << 10); /* many windows */
	t.p = malloc(10000 * 1200);
	ck_ok(core_scan_open(&w.home, t.batch, &s, &err), err);
	ck_ok(core_scan_read(s, 0, t.p, 10000 * 1200, &t.len, &err), err);
	for (int i = 0; i < 50; i++) {
		world_heal(&w);
		check_read(s, &t, rng_below(&r, t.len), 1); /* more might reach into the next block */
		ck_assert_uint_le(kv_faults_calls(w.faults), 1);
	}
	core_scan_close(s);
	text_free(&t);
	world_free(&w);
}
END_TEST

START_TEST(a_failed_read_says_so_and_works_again_later)
{
	struct world w = world_new();
	struct rng r = rng_new(52);
	struct text t = random_text(&w, &r, 5000, true);

	for (int kind = KV_FAULT_BEFORE; kind <= KV_FAULT_TORN; kind++) {
		bool fired = true;

		if (kind == KV_FAULT_SLOW || kind == KV_FAULT_NOSPACE)
			continue;
		for (unsigned nth = 1; fired; nth++) {
			char *buf = malloc(t.len + 1);
			struct core_scan *s;
			struct kv_err err;
			size_t got;
			bool failed = false;

			ck_ok(core_scan_open(&w.home, t.batch, &s, &err), err);
			kv_faults_arm(w.faults, nth, (enum kv_fault)kind, false);
			for (uint64_t at = 0; at < t.len; at += 30000) {
				enum kv_rc rc = core_scan_read(s, at, buf, 30000, &got, &err);

				if (rc == KV_OK)
					continue;
				failed = true;
				ck_assert_uint_eq(got, 0);
				check_read(s, &t, at, 30000);
			}
			fired = kv_faults_fired(w.faults);
			ck_assert(failed == fired);
			world_heal(&w);
			check_read(s, &t, 0, t.len);
			core_scan_close(s);
			free(buf);
		}
	}
	text_free(&t);
	world_free(&w);
}
END_TEST

START_TEST(a_row_larger_than_the_buffer_is_read_in_pieces)
{
	struct world w = world_new();
	struct core_builder *b;
	struct core_scan *s;
	struct kv_err err;
	const uint32_t big = 3 << 20;
	uint8_t *data = malloc(big);
	struct text t = {.p = malloc(2 * big + 100)};

	memset(data, '\n', big);
	struct core_update u = {
		.key = bytes_of("k"), .val = {.data = data, .len = big}, .time = 3, .diff = 1};
	ck_ok(core_builder_new(&w.home, (struct core_builder_config){0}, &b, &err), err);
	ck_ok(core_builder_add(b, &u, false, &err), err);
	ck_ok(core_builder_finish(b, core_frontier_at(0), core_frontier_empty(), &t.batch, &err), err);
	core_builder_free(b);
	t.len = core_row_format(&u, t.p);
	ck_ok(core_scan_open(&w.home, t.batch, &s, &err), err);
	for (uint64_t at = 0; at < t.len; at += 70000)
		check_read(s, &t, at, 70000);
	check_read(s, &t, 12345, 70000);
	core_scan_close(s);
	text_free(&t);
	free(data);
	world_free(&w);
}
END_TEST

Suite *scan_suite(void)
{
	Suite *s = suite_create("core/scan");
	TCase *t = tcase_create("scan");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, the_text_of_a_batch_is_its_rows_from_any_offset);
	tcase_add_test(t, reading_on_and_going_back_a_little_cost_no_more_store_calls_than_bytes);
	tcase_add_test(t, going_back_costs_one_block);
	tcase_add_test(t, a_failed_read_says_so_and_works_again_later);
	tcase_add_test(t, a_row_larger_than_the_buffer_is_read_in_pieces);
	suite_add_tcase(s, t);
	return s;
}
