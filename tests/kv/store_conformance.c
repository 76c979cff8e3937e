/* store_conformance.c - what store.h promises, asked of every implementation. */
#include "tests/kv/worlds.h"

#include <stdlib.h>
#include <string.h>

static const enum world_kind kinds[] = {WORLD_MEM, WORLD_FAULT, WORLD_EMBEDDED};

static struct world w;

static void open_world(int i)
{
	world_open(&w, kinds[i]);
}

START_TEST(commit_brings_version_and_blobs)
{
	const struct kv_blob_put puts[] = {{"p/1", "one", 3}, {"p/2", "two", 3}};

	open_world(_i);
	ck_assert_int_eq(kv_store_commit(w.store, "k", 0, 1, "v", 1, puts, 2, KV_SYNC, NULL), KV_OK);
	want_head(w.c, "k", 1, "v");
	want_blob(w.b, "p/1", "one");
	want_blob(w.b, "p/2", "two");
	ck_assert_int_eq(kv_store_commit(w.store, "k", 1, 2, "w", 1, NULL, 0, KV_RIDE, NULL), KV_OK);
	want_head(w.c, "k", 2, "w");
	world_close(&w);
}
END_TEST

START_TEST(blobs_of_a_commit_are_like_any)
{
	const struct kv_blob_put put = {"p/2", "two", 3};
	bool existed;
	uint64_t size;

	open_world(_i);
	want_set(w.b, "p/1", "one", KV_OK);
	want_set(w.b, "p/3", "three", KV_OK);
	ck_assert_int_eq(kv_store_commit(w.store, "k", 0, 1, "v", 1, &put, 1, KV_SYNC, NULL), KV_OK);
	ck_assert_str_eq(blobs(w.b, "p/", "", 9), "p/1 p/2 p/3");
	ck_assert_str_eq(blobs(w.b, "p/", "p/1", 1), "p/2");
	ck_assert_str_eq(blobs(w.b, "p/", "", 2), "p/1 p/2");
	ck_assert_int_eq(kv_blob_delete(w.b, "p/2", &existed, &size, NULL), KV_OK);
	ck_assert(existed);
	ck_assert_uint_eq(size, 3);
	want_blob(w.b, "p/2", NULL);
	world_close(&w);
}
END_TEST

START_TEST(commit_on_a_stale_head_is_a_mismatch)
{
	const struct kv_blob_put put = {"p", "x", 1};

	open_world(_i);
	want_cas(w.c, "k", 0, 1, "v", KV_OK);
	ck_assert_int_eq(kv_store_commit(w.store, "k", 0, 2, "w", 1, &put, 1, KV_SYNC, NULL), KV_MISMATCH);
	want_head(w.c, "k", 1, "v");
	world_close(&w);
}
END_TEST

START_TEST(a_blob_set_alone_and_again_with_a_commit_is_one_blob)
{
	const struct kv_blob_put put = {"p", "x", 1};
	bool existed;

	open_world(_i);
	want_set(w.b, "p", "x", KV_OK);
	ck_assert_int_eq(kv_store_commit(w.store, "k", 0, 2, "w", 1, &put, 1, KV_SYNC, NULL), KV_OK);
	ck_assert_str_eq(blobs(w.b, "", "", 9), "p");
	ck_assert_int_eq(kv_blob_delete(w.b, "p", &existed, NULL, NULL), KV_OK);
	ck_assert(existed);
	want_blob(w.b, "p", NULL);
	ck_assert_str_eq(blobs(w.b, "", "", 9), "");
	world_close(&w);
}
END_TEST

START_TEST(a_commit_may_bring_large_blobs)
{
	size_t len = (size_t)1 << 20, got;
	char *data = calloc(1, len);
	const struct kv_blob_put puts[] = {{"large", data, len}, {"small", "s", 1}};

	open_world(_i);
	ck_assert_int_eq(kv_store_commit(w.store, "k", 0, 2, "w", 1, puts, 2, KV_SYNC, NULL), KV_OK);
	want_blob(w.b, "small", "s");
	ck_assert_int_eq(kv_blob_get(w.b, "large", len - 1, data, 2, &got, NULL), KV_OK);
	ck_assert_uint_eq(got, 1);
	free(data);
	world_close(&w);
}
END_TEST

START_TEST(usage_is_told_or_unknown)
{
	struct kv_usage u;

	open_world(_i);
	ck_assert_int_eq(kv_store_usage(w.store, &u, NULL), KV_OK);
	ck_assert_uint_le(u.free_bytes, u.total_bytes);
	ck_assert_uint_le(u.avail_bytes, u.free_bytes);
	ck_assert(kv_store_traits(w.store).sole_owner);
	ck_assert(!kv_store_traits(w.store).read_only);
	world_close(&w);
}
END_TEST

Suite *store_conformance_suite(void)
{
	const TTest *const tests[] = {
		commit_brings_version_and_blobs,      blobs_of_a_commit_are_like_any,
		commit_on_a_stale_head_is_a_mismatch, a_blob_set_alone_and_again_with_a_commit_is_one_blob,
		a_commit_may_bring_large_blobs,       usage_is_told_or_unknown,
	};
	Suite *s = suite_create("kv/store");
	TCase *t = tcase_create("conformance");

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_loop_test(t, tests[i], 0, (int)(sizeof(kinds) / sizeof(kinds[0])));
	suite_add_tcase(s, t);
	return s;
}
