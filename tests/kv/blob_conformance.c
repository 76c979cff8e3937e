/* blob_conformance.c - what blob.h promises, asked of every implementation. */
#include "tests/kv/worlds.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world w;

static void open_world(int i)
{
	world_open(&w, (enum world_kind)i);
}

START_TEST(a_blob_that_was_set_is_there)
{
	open_world(_i);
	want_blob(w.b, "a/b", NULL);
	want_set(w.b, "a/b", "bytes", KV_OK);
	want_blob(w.b, "a/b", "bytes");
	want_blob(w.b, "a/c", NULL);
	want_blob(w.b, "a", NULL);
	want_blob(w.b, "a/b/c", NULL);
	world_close(&w);
}
END_TEST

START_TEST(set_again_with_the_same_bytes_is_ok)
{
	open_world(_i);
	want_set(w.b, "k", "same", KV_OK);
	want_set(w.b, "k", "same", KV_OK);
	want_blob(w.b, "k", "same");
	ck_assert_str_eq(blobs(w.b, "", "", 9), "k");
	world_close(&w);
}
END_TEST

START_TEST(ranges_are_read_and_end_where_the_blob_ends)
{
	char buf[8];
	size_t got;

	open_world(_i);
	want_set(w.b, "k", "0123456789", KV_OK);
	ck_assert_int_eq(kv_blob_get(w.b, "k", 3, buf, 4, &got, NULL), KV_OK);
	ck_assert_uint_eq(got, 4);
	ck_assert_mem_eq(buf, "3456", 4);
	ck_assert_int_eq(kv_blob_get(w.b, "k", 8, buf, 8, &got, NULL), KV_OK);
	ck_assert_uint_eq(got, 2);
	ck_assert_mem_eq(buf, "89", 2);
	ck_assert_int_eq(kv_blob_get(w.b, "k", 10, buf, 8, &got, NULL), KV_OK);
	ck_assert_uint_eq(got, 0);
	ck_assert_int_eq(kv_blob_get(w.b, "k", UINT64_MAX, buf, 8, &got, NULL), KV_OK);
	ck_assert_uint_eq(got, 0);
	ck_assert_int_eq(kv_blob_get(w.b, "k", 0, NULL, 0, &got, NULL), KV_OK);
	ck_assert_uint_eq(got, 0);
	world_close(&w);
}
END_TEST

START_TEST(blobs_may_be_empty_or_large)
{
	size_t len = ((size_t)2 << 20) + 7, got;
	uint8_t *data = malloc(len), *back = malloc(len + 1);

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 7 >> 2);
	open_world(_i);
	ck_assert_int_eq(kv_blob_set(w.b, "empty", NULL, 0, NULL), KV_OK);
	want_blob(w.b, "empty", "");
	ck_assert_int_eq(kv_blob_set(w.b, "large", data, len, NULL), KV_OK);
	ck_assert_int_eq(kv_blob_get(w.b, "large", 0, back, len + 1, &got, NULL), KV_OK);
	ck_assert_uint_eq(got, len);
	ck_assert_int_eq(memcmp(data, back, len), 0);
	free(data);
	free(back);
	world_close(&w);
}
END_TEST

START_TEST(delete_is_idempotent_and_tells_the_size)
{
	bool existed = true;
	uint64_t size = 99;

	open_world(_i);
	ck_assert_int_eq(kv_blob_delete(w.b, "a/b/c", &existed, &size, NULL), KV_OK);
	ck_assert(!existed);
	ck_assert_uint_eq(size, 0);
	want_set(w.b, "a/b/c", "12345", KV_OK);
	want_set(w.b, "a/d", "1", KV_OK);
	ck_assert_int_eq(kv_blob_delete(w.b, "a/b", &existed, &size, NULL), KV_OK);
	ck_assert(!existed);
	ck_assert_int_eq(kv_blob_delete(w.b, "a/b/c", &existed, &size, NULL), KV_OK);
	ck_assert(existed);
	ck_assert_uint_eq(size, 5);
	want_blob(w.b, "a/b/c", NULL);
	ck_assert_int_eq(kv_blob_delete(w.b, "a/b/c", &existed, &size, NULL), KV_OK);
	ck_assert(!existed);
	ck_assert_int_eq(kv_blob_delete(w.b, "a/d", NULL, NULL, NULL), KV_OK);
	ck_assert_str_eq(blobs(w.b, "", "", 9), "");
	want_set(w.b, "a/b/c", "12345", KV_OK);
	want_blob(w.b, "a/b/c", "12345");
	world_close(&w);
}
END_TEST

static const char *const tangle[] = {"a/y",   "a/x",   "a-b/z", "a.b",   "a0",   "a-",
				     "b/c/d", "b/c/e", "b/cc",  "tmp/x", "data", "Z"};

START_TEST(list_order_with_slash_dash_dot_keys)
{
	open_world(_i);
	for (size_t i = 0; i < sizeof(tangle) / sizeof(tangle[0]); i++)
		want_set(w.b, tangle[i], tangle[i], KV_OK);
	ck_assert_str_eq(blobs(w.b, "", "", 99), "Z a- a-b/z a.b a/x a/y a0 b/c/d b/c/e b/cc data tmp/x");
	world_close(&w);
}
END_TEST

START_TEST(list_takes_prefix_after_and_limit)
{
	open_world(_i);
	for (size_t i = 0; i < sizeof(tangle) / sizeof(tangle[0]); i++)
		want_set(w.b, tangle[i], "x", KV_OK);
	ck_assert_str_eq(blobs(w.b, "a", "", 99), "a- a-b/z a.b a/x a/y a0");
	ck_assert_str_eq(blobs(w.b, "a/", "", 99), "a/x a/y");
	ck_assert_str_eq(blobs(w.b, "a/y", "", 99), "a/y");
	ck_assert_str_eq(blobs(w.b, "b/c", "", 99), "b/c/d b/c/e b/cc");
	ck_assert_str_eq(blobs(w.b, "b/c/", "b/c/d", 99), "b/c/e");
	ck_assert_str_eq(blobs(w.b, "a", "a.b", 2), "a/x a/y");
	ck_assert_str_eq(blobs(w.b, "b", "a", 1), "b/c/d");
	ck_assert_str_eq(blobs(w.b, "a", "b", 9), "");
	ck_assert_str_eq(blobs(w.b, "", "a-b", 1), "a-b/z");
	ck_assert_str_eq(blobs(w.b, "", "a/", 1), "a/x");
	ck_assert_str_eq(blobs(w.b, "", "tmp/x", 9), "");
	ck_assert_str_eq(blobs(w.b, "nothing/", "", 9), "");
	ck_assert_str_eq(blobs(w.b, "../", "", 9), "");
	ck_assert_str_eq(blobs(w.b, "/", "", 9), "");
	world_close(&w);
}
END_TEST

START_TEST(pages_of_any_size_join_to_the_whole_list)
{
	open_world(_i);
	for (size_t i = 0; i < sizeof(tangle) / sizeof(tangle[0]); i++)
		want_set(w.b, tangle[i], "x", KV_OK);
	for (size_t limit = 1; limit < 6; limit++) {
		char after[KV_KEY_MAX + 1] = "";
		size_t seen = 0;

		for (;;) {
			struct kv_blob_list l;

			ck_assert_int_eq(kv_blob_list(w.b, "", after, limit, &l, NULL), KV_OK);
			seen += l.count;
			if (l.count)
				snprintf(after, sizeof(after), "%s", l.e[l.count - 1].key);

			size_t count = l.count;

			kv_blob_list_free(&l);
			if (count < limit)
				break;
		}
		ck_assert_uint_eq(seen, sizeof(tangle) / sizeof(tangle[0]));
	}
	world_close(&w);
}
END_TEST

START_TEST(list_tells_sizes)
{
	struct kv_blob_list l;

	open_world(_i);
	want_set(w.b, "a/1", "1", KV_OK);
	want_set(w.b, "a/3", "333", KV_OK);
	ck_assert_int_eq(kv_blob_list(w.b, "a/", "", 9, &l, NULL), KV_OK);
	ck_assert_uint_eq(l.count, 2);
	ck_assert_uint_eq(l.e[0].size, 1);
	ck_assert_uint_eq(l.e[1].size, 3);
	kv_blob_list_free(&l);
	world_close(&w);
}
END_TEST

START_TEST(keys_may_have_200_bytes)
{
	char flat[KV_KEY_MAX + 1], deep[KV_KEY_MAX + 1];

	for (size_t i = 0; i < KV_KEY_MAX; i++) {
		flat[i] = 'z';
		deep[i] = i % 2 && i + 1 < KV_KEY_MAX ? '/' : 'd';
	}
	flat[KV_KEY_MAX] = deep[KV_KEY_MAX] = '\0';
	open_world(_i);
	want_set(w.b, flat, "f", KV_OK);
	want_set(w.b, deep, "d", KV_OK);
	want_blob(w.b, flat, "f");
	want_blob(w.b, deep, "d");
	ck_assert_str_eq(blobs(w.b, "d", "", 9), deep);
	ck_assert_str_eq(blobs(w.b, "", deep, 9), flat);
	ck_assert_int_eq(kv_blob_delete(w.b, deep, NULL, NULL, NULL), KV_OK);
	ck_assert_str_eq(blobs(w.b, "", "", 9), flat);
	world_close(&w);
}
END_TEST

enum { THREADS = 4, ROUNDS = 20 };

/* All work in one directory, which comes and goes. */
static void *come_and_go(void *arg)
{
	const char *key = arg;

	for (int i = 0; i < ROUNDS; i++) {
		char buf[8];
		size_t got;
		bool existed;

		if (kv_blob_set(w.b, key, "abc", 3, NULL) != KV_OK)
			abort();
		if (kv_blob_get(w.b, key, 0, buf, sizeof(buf), &got, NULL) != KV_OK || got != 3)
			abort();
		if (kv_blob_delete(w.b, key, &existed, NULL, NULL) != KV_OK || !existed)
			abort();
	}
	return NULL;
}

START_TEST(sets_and_deletes_in_one_directory_do_not_disturb_each_other)
{
	static char names[THREADS][8] = {"d/e/1", "d/e/2", "d/e/3", "d/4"};
	pthread_t threads[THREADS];

	open_world(_i);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, come_and_go, names[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_str_eq(blobs(w.b, "", "", 9), "");
	world_close(&w);
}
END_TEST

static void *delete_counted(void *arg)
{
	bool existed;

	(void)arg;
	if (kv_blob_delete(w.b, "k", &existed, NULL, NULL) != KV_OK)
		abort();
	return existed ? &w : NULL;
}

START_TEST(of_concurrent_deletes_one_finds_the_blob)
{
	open_world(_i);
	for (int round = 0; round < 10; round++) {
		pthread_t threads[THREADS];
		int found = 0;

		want_set(w.b, "k", "x", KV_OK);
		for (int i = 0; i < THREADS; i++)
			ck_assert_int_eq(pthread_create(&threads[i], NULL, delete_counted, NULL), 0);
		for (int i = 0; i < THREADS; i++) {
			void *existed;

			pthread_join(threads[i], &existed);
			found += existed != NULL;
		}
		ck_assert_int_eq(found, 1);
	}
	world_close(&w);
}
END_TEST

Suite *blob_conformance_suite(void)
{
	const TTest *const tests[] = {
		a_blob_that_was_set_is_there,
		set_again_with_the_same_bytes_is_ok,
		ranges_are_read_and_end_where_the_blob_ends,
		blobs_may_be_empty_or_large,
		delete_is_idempotent_and_tells_the_size,
		list_order_with_slash_dash_dot_keys,
		list_takes_prefix_after_and_limit,
		pages_of_any_size_join_to_the_whole_list,
		list_tells_sizes,
		keys_may_have_200_bytes,
		sets_and_deletes_in_one_directory_do_not_disturb_each_other,
		of_concurrent_deletes_one_finds_the_blob,
	};
	Suite *s = suite_create("kv/blob");
	TCase *t = tcase_create("conformance");

	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_loop_test(t, tests[i], 0, WORLD_COUNT);
	suite_add_tcase(s, t);
	return s;
}
