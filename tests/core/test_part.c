/*
 * test_part.c - the bytes of parts: they come back, and no damage to them goes unnoticed.
 */
#include "core/block.h"
#include "core/part.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

/* A part over the settled model, hollow or inline; what it is made of is for the caller to free. */
struct made {
	struct core_part part;
	uint8_t *data;
	size_t len;
};

static struct made make(struct world *w, const struct model *m, bool compress)
{
	struct made made;
	struct kv_err err;

	ck_ok(core_part_encode(&w->home, m->u, m->star, m->count, compress, &made.part, &made.data, &made.len,
			       &err),
	      err);
	ck_assert_uint_eq(made.len, made.part.size);
	return made;
}

static struct made make_inline(struct world *w, const struct model *m)
{
	struct made made = make(w, m, false);

	made.part.inline_data = made.data;
	return made;
}

static void store_as(struct world *w, const struct core_part *part, const uint8_t *data, size_t len)
{
	char key[CORE_BLOB_KEY_LEN];
	struct kv_err err;

	core_part_key(w->home.shard, part, key);
	/* Blobs are write-once; a test that damages them deletes first. */
	ck_ok(kv_blob_delete(w->home.blobs, key, NULL, NULL, &err), err);
	ck_ok(kv_blob_set(w->home.blobs, key, data, len, &err), err);
}

static struct model random_rows(struct rng *r, size_t count, bool wide)
{
	struct model m = {0};
	uint8_t buf[512];

	for (size_t i = 0; i < count; i++) {
		struct core_update u = random_update(r, wide, buf);

		u.diff += u.diff == 0;
		model_add(&m, &u, false);
	}
	model_settle(&m);
	return m;
}

/* Read a damaged part: it must fail as corrupt, and what came before must be right. */
static void must_be_corrupt(struct world *w, const struct core_part *part, const struct model *want,
			    const char *what, size_t at)
{
	struct model got = {0};
	struct kv_err err;

	enum kv_rc rc = part_rows(&w->home, part, &got, &err);
	ck_assert_msg(rc == KV_CORRUPT, "%s %zu: rc %d", what, at, rc);
	ck_assert_msg(strstr(err.msg, "byte") != NULL && strstr(err.msg, "shard s") != NULL, "%s", err.msg);
	ck_assert_uint_le(got.count, want->count);
	struct model first = *want;
	first.count = got.count;
	model_same(&got, &first);
	model_free(&got);
}

START_TEST(rows_come_back_as_they_were_encoded)
{
	struct world w = world_new();
	struct rng r = rng_new(10);

	for (int round = 0; round < 60; round++) {
		struct model m =
			random_rows(&r, 1 + rng_below(&r, round % 10 == 0 ? 5000 : 200), round % 2 == 0);
		struct model got = {0};
		struct kv_err err;

		struct made made = round % 3 == 0 ? make_inline(&w, &m) : make(&w, &m, round % 3 == 1);
		if (round % 3 != 0)
			store_as(&w, &made.part, made.data, made.len);
		ck_ok(part_rows(&w.home, &made.part, &got, &err), err);
		model_same(&got, &m);
		free(made.data);
		model_free(&got);
		model_free(&m);
	}
	world_free(&w);
}
END_TEST

START_TEST(rows_of_sixteen_mebibytes_come_back)
{
	struct world w = world_new();
	struct rng r = rng_new(11);
	struct model m = {0}, got = {0};
	struct kv_err err;
	uint8_t *big = malloc(CORE_ROW_MAX);

	for (size_t i = 0; i < CORE_ROW_MAX; i++)
		big[i] = (uint8_t)(i % 3 == 0 ? rng_next(&r) : i);
	for (uint64_t i = 0; i < 3; i++) {
		uint32_t key = i == 0 ? 0 : i == 1 ? 17 : CORE_ROW_MAX;
		struct core_update u = {.key = {.data = big, .len = key},
					.val = {.data = big + key, .len = (uint32_t)CORE_ROW_MAX - key},
					.time = i,
					.diff = 1};
		model_add(&m, &u, false);
		u.val = bytes_of("small");
		u.key = bytes_of("small");
		model_add(&m, &u, false);
	}
	model_settle(&m);
	struct made made = make(&w, &m, true);
	store_as(&w, &made.part, made.data, made.len);
	ck_ok(part_rows(&w.home, &made.part, &got, &err), err);
	model_same(&got, &m);
	free(made.data);
	free(big);
	model_free(&got);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_part_is_described_as_its_rows_are)
{
	struct world w = world_new();
	struct model m = {0};
	static const uint64_t times[] = {0, 7, 100, UINT64_MAX};
	uint64_t text = 0;

	for (size_t i = 0; i < 4; i++) {
		struct core_update u = {
			.key = bytes_of("k\t"), .val = bytes_of(NULL), .time = times[i], .diff = -5};

		model_add(&m, &u, i == 0);
		text += core_row_text_len(&u);
	}
	struct made made = make_inline(&w, &m);
	ck_assert_uint_eq(made.part.rows, 4);
	ck_assert_uint_eq(made.part.stars, 1);
	ck_assert_uint_eq(made.part.min_time, 7);
	ck_assert_uint_eq(made.part.max_time, UINT64_MAX);
	ck_assert_uint_eq(made.part.time_digits, 1 + 3 + 20);
	ck_assert_uint_eq(made.part.text_base + made.part.time_digits + 1, text);
	ck_assert_uint_eq(made.part.diffs_sum, 0 - (uint64_t)20);

	uint64_t len;
	struct core_frontier zero = core_frontier_at(0), none = core_frontier_empty();
	ck_assert(core_part_text_len(&made.part, zero, none, &len) && len == text);
	ck_assert(core_part_may_hide(&made.part, core_frontier_at(1), none));
	ck_assert(core_part_may_hide(&made.part, zero, core_frontier_at(UINT64_MAX)));
	ck_assert(!core_part_text_len(&made.part, core_frontier_at(1), none, &len));
	made.part.rewrite_ts = 7;
	ck_assert(core_part_text_len(&made.part, core_frontier_at(1), none, &len) && len == text);
	made.part.rewrite_ts = 1000;
	ck_assert(!core_part_text_len(&made.part, zero, none, &len));
	ck_assert(core_part_hidden(&made.part, zero, core_frontier_at(1000)));
	made.part.rewrite_ts = UINT64_MAX;
	ck_assert(core_part_text_len(&made.part, zero, none, &len) && len == made.part.text_base + 80);
	free(made.data);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(every_flipped_byte_of_a_small_part_is_noticed)
{
	struct world w = world_new();
	struct rng r = rng_new(12);
	struct model m = random_rows(&r, 40, false);

	for (int kind = 0; kind < 3; kind++) {
		struct made made = kind == 0 ? make_inline(&w, &m) : make(&w, &m, kind == 1);

		for (size_t at = 0; at < made.len; at++) {
			uint8_t flip = (uint8_t)(1 + rng_below(&r, 255));

			made.data[at] ^= flip;
			if (kind > 0)
				store_as(&w, &made.part, made.data, made.len);
			must_be_corrupt(&w, &made.part, &m, "flip at", at);
			made.data[at] ^= flip;
		}
		free(made.data);
	}
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_flipped_byte_of_a_large_part_is_noticed)
{
	struct world w = world_new();
	struct rng r = rng_new(13);
	struct model m = random_rows(&r, 4000, true);
	struct made made = make(&w, &m, true);

	ck_assert_uint_gt(made.len, 400000); /* more than one window */
	for (int i = 0; i < 60; i++) {
		size_t at = rng_below(&r, made.len);

		made.data[at] ^= 1;
		store_as(&w, &made.part, made.data, made.len);
		must_be_corrupt(&w, &made.part, &m, "flip at", at);
		made.data[at] ^= 1;
	}
	free(made.data);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_blob_cut_short_or_missing_is_noticed)
{
	struct world w = world_new();
	struct rng r = rng_new(14);
	struct model m = random_rows(&r, 40, false);
	struct made made = make(&w, &m, true);

	must_be_corrupt(&w, &made.part, &m, "missing", 0);
	for (size_t len = 0; len < made.len; len++) {
		store_as(&w, &made.part, made.data, len);
		must_be_corrupt(&w, &made.part, &m, "cut to", len);
	}
	free(made.data);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(the_bytes_of_another_part_are_noticed)
{
	struct world w = world_new();
	struct rng r = rng_new(15);
	struct model m = random_rows(&r, 40, false);
	struct made one = make(&w, &m, true);
	struct made two = make(&w, &m, true);

	ck_assert_uint_eq(one.len, two.len);
	store_as(&w, &one.part, two.data, two.len);
	must_be_corrupt(&w, &one.part, &m, "other part", 0);
	free(one.data);
	free(two.data);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_description_that_is_not_of_these_bytes_is_noticed)
{
	struct world w = world_new();
	struct rng r = rng_new(16);
	struct model m = random_rows(&r, 40, false);
	struct made made = make(&w, &m, true);

	store_as(&w, &made.part, made.data, made.len);
	for (size_t i = 0; i < 9; i++) {
		struct core_part part = made.part;
		uint64_t *const fields[] = {&part.size,      &part.rows,        &part.stars,
					    &part.text_base, &part.time_digits, &part.min_time,
					    &part.max_time,  &part.diffs_sum,   &part.checksum};

		++*fields[i];
		must_be_corrupt(&w, &part, &m, "field", i);
		*fields[i] -= 2;
		must_be_corrupt(&w, &part, &m, "field", i);
		*fields[i] += (uint64_t)1 << 63; /* far off, whatever it was: a sum of diffs may be anything small */
		must_be_corrupt(&w, &part, &m, "field", i);
	}
	free(made.data);
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(random_bytes_never_crash_the_reader)
{
	struct world w = world_new();
	struct rng r = rng_new(17);
	struct model none = {0};

	for (int i = 0; i < 20000; i++) {
		size_t len = rng_below(&r, 400);
		struct core_part part = {.id.u = core_uuid_new(), .size = len, .rows = rng_below(&r, 10)};
		uint8_t *data = malloc(len + 1);

		for (size_t at = 0; at < len; at++)
			data[at] = (uint8_t)rng_next(&r);
		if (len >= 12)
			memcpy(data + 8, rng_below(&r, 2) == 0 ? "SFB1" : "SFF1", 4);
		if (len >= CORE_BLOCK_HEAD && rng_below(&r, 2) == 0)
			core_put_le32(data + 16, (uint32_t)rng_below(&r, len));
		part.inline_data = data;
		must_be_corrupt(&w, &part, &none, "random", (size_t)i);
		free(data);
	}
	world_free(&w);
}
END_TEST

/* Past the checksum: what a collision or a forger could bring. */
START_TEST(damage_under_a_right_checksum_never_crashes_and_is_noticed_at_the_end)
{
	struct world w = world_new();
	struct rng r = rng_new(18);
	struct model m = random_rows(&r, 40, false);

	for (int kind = 0; kind < 2; kind++) {
		struct made made = make(&w, &m, kind == 1);
		uint8_t *good = malloc(made.len);

		memcpy(good, made.data, made.len);
		made.part.inline_data = made.data;
		for (int i = 0; i < 20000; i++) {
			size_t size = CORE_BLOCK_HEAD + (size_t)core_le32(good + 16);
			size_t at = 12 + rng_below(&r, rng_below(&r, 2) == 0 ? 16 : size - 12);
			struct model got = {0};

			made.data[at] = (uint8_t)(rng_below(&r, 3) == 0 ? 0xff : rng_next(&r));
			if (made.data[at] == good[at])
				continue;
			size = CORE_BLOCK_HEAD + (size_t)core_le32(made.data + 16);
			if (size <= made.len)
				core_put_le64(made.data,
					      core_block_checksum(made.part.id, 0, made.data + 8, size - 8));
			ck_assert_int_eq(part_rows(&w.home, &made.part, &got, NULL), KV_CORRUPT);
			model_free(&got);
			memcpy(made.data, good, made.len);
		}
		free(good);
		free(made.data);
	}
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(seeking_to_any_place_told_goes_on_from_there)
{
	struct world w = world_new();
	struct rng r = rng_new(19);
	struct model m = random_rows(&r, 3000, true);

	for (int kind = 0; kind < 2; kind++) {
		struct made made = kind == 0 ? make_inline(&w, &m) : make(&w, &m, true);
		struct core_part_pos *pos = calloc(m.count + 1, sizeof(*pos));
		struct core_part_reader *reader;
		struct core_update u;
		struct kv_err err;
		bool end;

		if (kind == 1)
			store_as(&w, &made.part, made.data, made.len);
		ck_ok(core_part_open(&w.home, &made.part, &reader, &err), err);
		if (kind == 1)
			core_part_set_window(reader, 100);
		for (size_t i = 0; i <= m.count; i++) {
			pos[i] = core_part_tell(reader);
			ck_ok(core_part_next(reader, &u, &end, &err), err);
			ck_assert(end == (i == m.count));
		}
		for (int n = 0; n < 300; n++) {
			size_t i = n == 0 ? m.count : rng_below(&r, m.count + 1);

			ck_ok(core_part_seek(reader, pos[i], &err), err);
			struct core_part_pos told = core_part_tell(reader);
			ck_assert(i == m.count ||
				  (told.block == pos[i].block && told.rows_past == pos[i].rows_past));
			for (size_t k = i; k < i + 5; k++) {
				ck_ok(core_part_next(reader, &u, &end, &err), err);
				ck_assert(end == (k >= m.count));
				if (!end)
					ck_assert(core_update_cmp(&u, &m.u[k]) == 0 && u.diff == m.u[k].diff);
			}
		}
		ck_assert_int_eq(core_part_seek(reader, (struct core_part_pos){.block = 5}, &err),
				 KV_CORRUPT);
		core_part_close(reader);
		free(pos);
		free(made.data);
	}
	model_free(&m);
	world_free(&w);
}
END_TEST

START_TEST(a_read_that_fails_says_so_and_works_again_later)
{
	struct world w = world_new();
	struct rng r = rng_new(20);
	struct model m = random_rows(&r, 4000, true);
	struct made made = make(&w, &m, true);
	struct kv_err err;
	bool fired = true;

	store_as(&w, &made.part, made.data, made.len);
	for (int kind = KV_FAULT_BEFORE; kind <= KV_FAULT_TORN; kind++) {
		if (kind == KV_FAULT_SLOW || kind == KV_FAULT_NOSPACE)
			continue;
		fired = true;
		for (unsigned nth = 1; fired; nth++) {
			struct model got = {0};

			kv_faults_arm(w.faults, nth, (enum kv_fault)kind, false);
			enum kv_rc rc = part_rows(&w.home, &made.part, &got, &err);
			fired = kv_faults_fired(w.faults);
			world_heal(&w);
			ck_assert_msg((rc == KV_OK) == !fired, "call %u kind %d: rc %d", nth, kind, rc);
			if (fired)
				ck_assert_int_eq(rc, kind == KV_FAULT_TORN ? KV_CORRUPT : KV_UNREACHABLE);
			model_free(&got);
			ck_ok(part_rows(&w.home, &made.part, &got, &err), err);
			model_free(&got);
		}
	}
	free(made.data);
	model_free(&m);
	world_free(&w);
}
END_TEST

Suite *part_suite(void)
{
	Suite *s = suite_create("core/part");
	TCase *t = tcase_create("bytes");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, rows_come_back_as_they_were_encoded);
	tcase_add_test(t, rows_of_sixteen_mebibytes_come_back);
	tcase_add_test(t, a_part_is_described_as_its_rows_are);
	tcase_add_test(t, seeking_to_any_place_told_goes_on_from_there);
	suite_add_tcase(s, t);
	t = tcase_create("damage");
	tcase_set_timeout(t, 120);
	tcase_add_test(t, every_flipped_byte_of_a_small_part_is_noticed);
	tcase_add_test(t, a_flipped_byte_of_a_large_part_is_noticed);
	tcase_add_test(t, a_blob_cut_short_or_missing_is_noticed);
	tcase_add_test(t, the_bytes_of_another_part_are_noticed);
	tcase_add_test(t, a_description_that_is_not_of_these_bytes_is_noticed);
	tcase_add_test(t, random_bytes_never_crash_the_reader);
	tcase_add_test(t, damage_under_a_right_checksum_never_crashes_and_is_noticed_at_the_end);
	tcase_add_test(t, a_read_that_fails_says_so_and_works_again_later);
	suite_add_tcase(s, t);
	return s;
}
