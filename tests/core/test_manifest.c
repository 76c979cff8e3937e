/*
 * test_manifest.c - the parts of a staged batch are the same after a way through
 * the store, and no bytes whatever do harm.
 */
#include <xxhash.h>

#include "core/manifest.h"
#include "core/state.pb-c.h"
#include "kv/blob_impl.h"
#include "tests/core/states.h"
#include "tests/core/suites.h"

/* With parts in the store, in memory as loose ones, and in memory otherwise. */
static struct core_batch *random_parts(struct rng *r)
{
	struct core_batch *b = random_batch(r, core_frontier_at(0), core_frontier_empty());

	for (size_t i = 0; i < b->part_count; i++) {
		struct core_part *part = &b->parts[i];

		for (uint64_t at = 0; part->inline_data != NULL && at < part->size; at++)
			part->inline_data[at] = (uint8_t)rng_next(r);
		part->loose = part->inline_data != NULL && rng_below(r, 2) == 0;
	}
	return b;
}

static struct core_batch *parts_of(struct rng *r, size_t at_least)
{
	struct core_batch *b = random_parts(r);

	while (b->part_count < at_least) {
		core_batch_unref(b);
		b = random_parts(r);
	}
	return b;
}

static const struct core_uuid an_id = {.b = {3, 1, 4}};

static struct core_buf manifest_bytes(const struct core_batch *b, const char *rest)
{
	struct core_buf out;
	struct kv_err err;

	ck_ok(core_manifest_encode(states_shard, an_id, b, rest, strlen(rest), &out, &err), err);
	return out;
}

static void same_parts(const struct core_batch *got, const struct core_batch *want)
{
	ck_assert_uint_eq(got->part_count, want->part_count);
	ck_assert_uint_eq(got->run_count, want->run_count);
	ck_assert_uint_eq(got->rows, want->rows);
	ck_assert(core_frontier_eq(got->lower, core_frontier_at(0)) && got->upper.empty);
	for (size_t i = 0; i < got->run_count; i++)
		ck_assert_uint_eq(got->run_starts[i], want->run_starts[i]);
	for (size_t i = 0; i < got->part_count; i++) {
		struct core_part a = got->parts[i], b = want->parts[i];

		ck_assert_int_eq(a.loose, a.inline_data != NULL);
		ck_assert_int_eq(a.inline_data == NULL, b.inline_data == NULL);
		if (a.inline_data != NULL)
			ck_assert_mem_eq(a.inline_data, b.inline_data, b.size);
		ck_assert(core_uuid_eq(a.id.u, b.id.u) && core_uuid_eq(a.instance.u, b.instance.u));
		ck_assert(a.size == b.size && a.rows == b.rows && a.stars == b.stars &&
			  a.text_base == b.text_base && a.time_digits == b.time_digits &&
			  a.min_time == b.min_time && a.max_time == b.max_time &&
			  a.diffs_sum == b.diffs_sum && a.checksum == b.checksum &&
			  a.rewrite_ts == b.rewrite_ts);
	}
}

START_TEST(parts_and_rest_are_the_same_after_a_way_through_bytes)
{
	struct rng r = rng_new(120);

	for (int round = 0; round < 400; round++) {
		struct core_batch *b = random_parts(&r);
		const char *rest = rng_below(&r, 2) == 0 ? "" : "5 +1 half a ro";
		struct core_buf bytes = manifest_bytes(b, rest);
		struct core_manifest m;
		struct kv_err err;

		ck_ok(core_manifest_decode(states_shard, an_id, bytes.data, bytes.len, &m, &err), err);
		memset(bytes.data, 0xee, bytes.len); /* nothing points there */
		same_parts(m.batch, b);
		ck_assert_uint_eq(m.rest.len, strlen(rest));
		if (m.rest.len != 0)
			ck_assert_mem_eq(m.rest.data, rest, m.rest.len);
		core_manifest_fini(&m);
		core_manifest_fini(&m);
		core_buf_fini(&bytes);
		core_batch_unref(b);
	}
}
END_TEST

START_TEST(whatever_bounds_the_batch_had_all_rows_show)
{
	struct rng r = rng_new(121);
	struct core_batch *b = parts_of(&r, 1);
	struct core_frontier lower[] = {core_frontier_at(7), core_frontier_empty(), core_frontier_at(0)};
	struct core_frontier upper[] = {core_frontier_at(9), core_frontier_empty(), core_frontier_at(0)};

	for (size_t i = 0; i < sizeof(lower) / sizeof(lower[0]); i++) {
		struct core_buf bytes;
		struct core_manifest m;
		struct kv_err err;

		b->lower = lower[i];
		b->upper = upper[i];
		bytes = manifest_bytes(b, "");
		ck_ok(core_manifest_decode(states_shard, an_id, bytes.data, bytes.len, &m, &err), err);
		same_parts(m.batch, b);
		ck_assert(core_frontier_eq(b->lower, lower[i]) && core_frontier_eq(b->upper, upper[i]));
		core_manifest_fini(&m);
		core_buf_fini(&bytes);
	}
	core_batch_unref(b);
}
END_TEST

static enum kv_rc decode(struct core_shard_id shard, struct core_uuid id, const uint8_t *data, size_t len)
{
	struct core_manifest m;
	struct kv_err err;
	enum kv_rc rc = core_manifest_decode(shard, id, data, len, &m, &err);

	ck_assert(rc == KV_OK || (m.batch == NULL && m.rest.data == NULL));
	core_manifest_fini(&m);
	return rc;
}

START_TEST(every_cut_and_every_flipped_byte_of_a_manifest_is_corrupt)
{
	struct rng r = rng_new(122);
	struct core_batch *b = parts_of(&r, 2);
	struct core_buf bytes = manifest_bytes(b, "rest");

	for (size_t len = 0; len < bytes.len; len++) {
		uint8_t *cut = malloc(len + 1); /* of its own, so that a read beyond is seen */

		memcpy(cut, bytes.data, len);
		ck_assert_int_eq(decode(states_shard, an_id, cut, len), KV_CORRUPT);
		free(cut);
	}
	for (size_t at = 0; at < bytes.len; at++) {
		uint8_t flip = (uint8_t)(1 + rng_below(&r, 255));
		enum kv_rc rc;

		bytes.data[at] ^= flip;
		rc = decode(states_shard, an_id, bytes.data, bytes.len);
		ck_assert_msg(rc == KV_CORRUPT || (at >= 4 && at < 8 && rc == KV_NEWER), "byte %zu", at);
		bytes.data[at] ^= flip;
	}
	ck_assert_int_eq(decode(states_shard, an_id, bytes.data, bytes.len), KV_OK);
	core_buf_fini(&bytes);
	core_batch_unref(b);
}
END_TEST

START_TEST(a_manifest_of_another_shard_or_id_or_a_newer_format_is_refused)
{
	struct rng r = rng_new(123);
	struct core_batch *b = parts_of(&r, 1);
	struct core_buf bytes = manifest_bytes(b, "");
	struct core_shard_id other = {.u.b = {8}};

	ck_assert_int_eq(decode(other, an_id, bytes.data, bytes.len), KV_CORRUPT);
	ck_assert_int_eq(decode(states_shard, other.u, bytes.data, bytes.len), KV_CORRUPT);
	bytes.data[4] = CORE_FORMAT + 1;
	ck_assert_int_eq(decode(states_shard, an_id, bytes.data, bytes.len), KV_NEWER);
	core_buf_fini(&bytes);
	core_batch_unref(b);
}
END_TEST

/* As decode(), of a payload under a good checksum. */
static enum kv_rc decode_forged(const uint8_t *payload, size_t len)
{
	struct core_buf bytes;
	struct kv_err err;
	enum kv_rc rc;

	ck_ok(core_frame('M', XXH3_64bits(states_shard.u.b, 16), payload, len, &bytes, &err), err);
	rc = decode(states_shard, an_id, bytes.data, bytes.len);
	core_buf_fini(&bytes);
	return rc;
}

START_TEST(forged_manifests_never_crash)
{
	struct rng r = rng_new(124);

	for (int round = 0; round < 200; round++) {
		struct core_batch *b = random_parts(&r);
		struct core_buf bytes = manifest_bytes(b, "rest");
		size_t len = bytes.len - 16;

		for (int i = 0; i < 20; i++) {
			uint8_t *payload = malloc(len + 1);
			enum kv_rc rc;

			memcpy(payload, bytes.data + 16, len);
			for (uint64_t flips = 1 + rng_below(&r, 4); flips > 0; flips--)
				payload[rng_below(&r, len)] = (uint8_t)rng_next(&r);
			rc = decode_forged(payload, rng_below(&r, 4) == 0 ? rng_below(&r, len + 1) : len);
			ck_assert(rc == KV_OK || rc == KV_CORRUPT);
			free(payload);
		}
		core_buf_fini(&bytes);
		core_batch_unref(b);
	}
}
END_TEST

/* Part 0 is in memory, part 1 in the store. */
static void spoil(Pb__Manifest *m, int how)
{
	static uint8_t text[] = "more bytes than the part has";
	static ProtobufCBinaryData inline_data;

	inline_data = (ProtobufCBinaryData){.data = text, .len = m->batch->parts[0]->size};
	switch (how) {
	case 0:
		m->id.len--;
		break;
	case 1:
		m->batch = NULL;
		break;
	case 2:
		m->n_loose--;
		break;
	case 3:
		m->n_loose++;
		break;
	case 4:
		m->loose[0].len--;
		break;
	case 5: /* another part's */
		m->loose[1] = m->loose[0];
		break;
	case 6:
		m->batch->parts[0]->inline_data = inline_data;
		break;
	case 7:
		m->batch->parts[1]->rows = 0;
		break;
	case 8:
		m->batch->parts[1]->stars = m->batch->parts[1]->rows + 1;
		break;
	case 9:
		m->batch->lower->times[0] = 1;
		break;
	case 10:
		m->batch->lower->n_times = 0;
		break;
	case 11:
		m->batch->upper->n_times = 1;
		break;
	case 12:
		m->batch->n_run_starts = 0;
		break;
	case 13:
		m->batch->since = NULL;
		break;
	default:
		ck_abort();
	}
}

START_TEST(a_manifest_is_well_formed_or_corrupt)
{
	struct core_batch *b = core_batch_new(core_frontier_at(0), core_frontier_empty());
	struct core_part loose = {.size = 5, .rows = 2, .inline_data = (uint8_t *)strdup("bytes")};
	struct core_part hollow = {.size = 70000, .rows = 900, .id.u.b = {1}};
	struct core_buf bytes;
	Pb__Manifest *pb, m;
	Pb__Batch batch;
	Pb__Frontier lower, upper;
	Pb__Part parts[2], *list[2] = {&parts[0], &parts[1]};
	ProtobufCBinaryData loose_bytes[3] = {0};
	uint64_t times[2] = {0};
	uint8_t *payload;

	ck_assert(core_batch_push(b, &loose, true) && core_batch_push(b, &hollow, false));
	bytes = manifest_bytes(b, "rest");
	ck_assert_int_eq(decode_forged(bytes.data + 16, bytes.len - 16), KV_OK);
	pb = pb__manifest__unpack(NULL, bytes.len - 16, bytes.data + 16);

	/* A copy to spoil, so that all that was unpacked can be freed again. */
	m = *pb;
	batch = *pb->batch;
	memcpy(loose_bytes, pb->loose, 2 * sizeof(loose_bytes[0]));
	lower = *batch.lower;
	upper = *batch.upper;
	parts[0] = *batch.parts[0];
	parts[1] = *batch.parts[1];
	m.loose = loose_bytes;
	m.batch = &batch;
	batch.parts = list;
	batch.lower = &lower;
	batch.upper = &upper;
	lower.times = &times[0];
	upper.times = &times[1];
	spoil(&m, _i);
	payload = malloc(pb__manifest__get_packed_size(&m));
	ck_assert_int_eq(decode_forged(payload, pb__manifest__pack(&m, payload)), KV_CORRUPT);
	free(payload);
	pb__manifest__free_unpacked(pb, NULL);
	core_buf_fini(&bytes);
	core_batch_unref(b);
}
END_TEST

/* --- in the store -------------------------------------------------------------------------------- */

static struct core_staged entry_of(const struct world *w, size_t bytes)
{
	return (struct core_staged){
		.id = staged_id(1), .manifest = an_id, .instance = w->home.instance, .manifest_bytes = bytes};
}

START_TEST(what_an_entry_names_is_read_from_the_store)
{
	struct rng r = rng_new(125);
	struct world w = world_new();
	struct core_batch *b = parts_of(&r, 2);
	struct core_buf bytes;
	struct core_staged entry;
	struct core_manifest m;
	char key[CORE_BLOB_KEY_LEN];
	struct kv_err err;

	w.home.shard = states_shard;
	bytes = manifest_bytes(b, "rest");
	entry = entry_of(&w, bytes.len);
	ck_assert_ptr_eq(core_manifest_key(states_shard, &entry, key), key);
	ck_assert(kv_blob_key_valid(key));
	ck_assert_uint_eq(strlen(key), 3 * CORE_ID_LEN - 1);
	ck_assert_str_eq(strrchr(key, '/'), "/m03010400-0000-0000-0000-000000000000");

	/* Gone, or not there yet. */
	ck_assert_int_eq(core_manifest_read(&w.home, &entry, &m, &err), KV_NOTFOUND);
	ck_assert_ptr_null(m.batch);

	ck_ok(kv_blob_set(w.home.blobs, key, bytes.data, bytes.len, &err), err);
	ck_ok(core_manifest_read(&w.home, &entry, &m, &err), err);
	same_parts(m.batch, b);
	ck_assert_uint_eq(m.rest.len, 4);
	core_manifest_fini(&m);

	/* The shard says how long it is. */
	static const int64_t off[] = {-1, 1, 1000, INT64_MAX / 2};
	for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
		entry.manifest_bytes = (uint64_t)((int64_t)bytes.len + off[i]);
		ck_assert_int_eq(core_manifest_read(&w.home, &entry, &m, &err), KV_CORRUPT);
		ck_assert_ptr_null(m.batch);
		ck_assert_ptr_nonnull(strstr(err.msg, key));
	}
	entry.manifest_bytes = UINT64_MAX;
	ck_assert_int_eq(core_manifest_read(&w.home, &entry, &m, &err), KV_CORRUPT);
	core_buf_fini(&bytes);
	core_batch_unref(b);
	world_free(&w);
}
END_TEST

START_TEST(an_entry_without_a_manifest_has_an_empty_batch_and_the_store_is_not_asked)
{
	struct core_home home = {.shard = states_shard}; /* there is no store */
	struct core_staged entry = {.id = staged_id(1)};
	struct core_manifest m;
	struct kv_err err;

	ck_ok(core_manifest_read(&home, &entry, &m, &err), err);
	ck_assert_uint_eq(m.batch->part_count, 0);
	ck_assert(core_frontier_eq(m.batch->lower, core_frontier_at(0)) && m.batch->upper.empty);
	ck_assert_uint_eq(m.rest.len, 0);
	core_manifest_fini(&m);
}
END_TEST

START_TEST(a_manifest_is_at_most_as_long_as_a_blob)
{
	struct world w = world_new();
	struct core_batch *b = core_batch_new(core_frontier_at(0), core_frontier_empty());
	char *rest = calloc(1, KV_VALUE_MAX);
	struct core_staged entry = entry_of(&w, KV_VALUE_MAX);
	size_t most = KV_VALUE_MAX - 16;
	char key[CORE_BLOB_KEY_LEN];
	struct core_manifest m;
	struct core_buf out;
	struct kv_err err;

	while (core_manifest_encode(states_shard, an_id, b, rest, most, &out, &err) != KV_OK) {
		ck_assert_int_eq(err.rc, KV_QUOTA);
		ck_assert_uint_gt(strlen(err.msg), 30);
		ck_assert_ptr_null(out.data);
		most--;
	}
	ck_assert_uint_eq(out.len, KV_VALUE_MAX);
	w.home.shard = states_shard;
	core_manifest_key(states_shard, &entry, key);
	ck_ok(kv_blob_set(w.home.blobs, key, out.data, out.len, &err), err);
	core_buf_fini(&out);
	ck_ok(core_manifest_read(&w.home, &entry, &m, &err), err);
	ck_assert_uint_eq(m.rest.len, most);
	core_manifest_fini(&m);
	free(rest);
	core_batch_unref(b);
	world_free(&w);
}
END_TEST

Suite *manifest_suite(void)
{
	Suite *s = suite_create("manifest");
	TCase *t = tcase_create("manifest");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, parts_and_rest_are_the_same_after_a_way_through_bytes);
	tcase_add_test(t, whatever_bounds_the_batch_had_all_rows_show);
	tcase_add_test(t, every_cut_and_every_flipped_byte_of_a_manifest_is_corrupt);
	tcase_add_test(t, a_manifest_of_another_shard_or_id_or_a_newer_format_is_refused);
	tcase_add_test(t, forged_manifests_never_crash);
	tcase_add_loop_test(t, a_manifest_is_well_formed_or_corrupt, 0, 14);
	tcase_add_test(t, what_an_entry_names_is_read_from_the_store);
	tcase_add_test(t, an_entry_without_a_manifest_has_an_empty_batch_and_the_store_is_not_asked);
	tcase_add_test(t, a_manifest_is_at_most_as_long_as_a_blob);
	suite_add_tcase(s, t);
	return s;
}
