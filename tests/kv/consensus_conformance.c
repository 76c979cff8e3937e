/* consensus_conformance.c - what consensus.h promises, asked of every implementation. */
#include "tests/kv/worlds.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world w;

static void open_world(int i)
{
	world_open(&w, (enum world_kind)i);
}

START_TEST(a_key_without_versions_has_no_head)
{
	open_world(_i);
	want_head(w.c, "k", 0, NULL);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "");
	ck_assert_str_eq(keys(w.c, "", 10), "");
	world_close(&w);
}
END_TEST

START_TEST(compare_and_set_makes_the_head)
{
	open_world(_i);
	want_cas(w.c, "k", KV_NO_VERSION, 1, "one", KV_OK);
	want_head(w.c, "k", 1, "one");
	want_cas(w.c, "k", 1, 2, "two", KV_OK);
	want_head(w.c, "k", 2, "two");
	want_head(w.c, "other", 0, NULL);
	world_close(&w);
}
END_TEST

START_TEST(compare_and_set_on_a_stale_head_is_a_mismatch_and_changes_nothing)
{
	open_world(_i);
	want_cas(w.c, "k", 7, 8, "x", KV_MISMATCH);
	want_head(w.c, "k", 0, NULL);
	ck_assert_str_eq(keys(w.c, "", 10), "");
	want_cas(w.c, "k", KV_NO_VERSION, 5, "five", KV_OK);
	want_cas(w.c, "k", 5, 9, "nine", KV_OK);
	want_cas(w.c, "k", 5, 10, "x", KV_MISMATCH);
	want_cas(w.c, "k", KV_NO_VERSION, 10, "x", KV_MISMATCH);
	want_cas(w.c, "k", 10, 11, "x", KV_MISMATCH);
	want_head(w.c, "k", 9, "nine");
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "5 9");
	world_close(&w);
}
END_TEST

START_TEST(seqno_may_jump_and_start_anywhere_above_zero)
{
	open_world(_i);
	want_cas(w.c, "k", KV_NO_VERSION, 1700000000000000, "t", KV_OK);
	want_cas(w.c, "k", 1700000000000000, UINT64_MAX, "end", KV_OK);
	want_head(w.c, "k", UINT64_MAX, "end");
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "1700000000000000 18446744073709551615");
	ck_assert_str_eq(seqnos(w.c, "k", UINT64_MAX, 10), "18446744073709551615");
	world_close(&w);
}
END_TEST

START_TEST(values_may_be_empty_or_large_and_hold_any_byte)
{
	size_t len = (size_t)3 << 20;
	uint8_t *data = malloc(len);
	struct kv_version v;

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 31 >> 3);
	open_world(_i);
	ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", 0, 1, NULL, 0, KV_SYNC, NULL), KV_OK);
	want_head(w.c, "k", 1, "");
	ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", 1, 2, data, len, KV_SYNC, NULL), KV_OK);
	ck_assert_int_eq(kv_consensus_head(w.c, "k", &v, NULL), KV_OK);
	ck_assert_uint_eq(v.len, len);
	ck_assert_int_eq(memcmp(v.data, data, len), 0);
	free(v.data);
	free(data);
	world_close(&w);
}
END_TEST

START_TEST(scan_gives_versions_ascending_from_and_at_most_limit)
{
	struct kv_versions v;

	open_world(_i);
	want_cas(w.c, "k", 0, 2, "b", KV_OK);
	want_cas(w.c, "k", 2, 4, "d", KV_OK);
	want_cas(w.c, "k", 4, 256, "z", KV_OK);
	want_cas(w.c, "k/", 0, 3, "other", KV_OK);
	want_cas(w.c, "k0", 0, 3, "other", KV_OK);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "2 4 256");
	ck_assert_str_eq(seqnos(w.c, "k", 3, 10), "4 256");
	ck_assert_str_eq(seqnos(w.c, "k", 4, 1), "4");
	ck_assert_int_eq(kv_consensus_scan(w.c, "k", 3, 10, &v, NULL), KV_OK);
	ck_assert_mem_eq(v.v[0].data, "d", 1);
	ck_assert_mem_eq(v.v[1].data, "z", 1);
	kv_versions_free(&v);
	world_close(&w);
}
END_TEST

START_TEST(scan_from_beyond_head_is_empty)
{
	open_world(_i);
	want_cas(w.c, "k", 0, 2, "b", KV_OK);
	ck_assert_str_eq(seqnos(w.c, "k", 3, 10), "");
	world_close(&w);
}
END_TEST

START_TEST(truncate_forgets_what_lies_below_and_counts_it)
{
	uint64_t removed = 99;

	open_world(_i);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 1, &removed, NULL), KV_NOTFOUND);
	ck_assert_uint_eq(removed, 0);
	for (uint64_t i = 1; i <= 5; i++)
		want_cas(w.c, "k", i - 1, i, "v", KV_OK);
	want_cas(w.c, "k2", 0, 1, "v", KV_OK);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 3, &removed, NULL), KV_OK);
	ck_assert_uint_eq(removed, 2);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "3 4 5");
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 3, &removed, NULL), KV_OK);
	ck_assert_uint_eq(removed, 0);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 5, NULL, NULL), KV_OK);
	want_head(w.c, "k", 5, "v");
	want_cas(w.c, "k", 5, 6, "six", KV_OK);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "5 6");
	ck_assert_str_eq(seqnos(w.c, "k2", 0, 10), "1");
	world_close(&w);
}
END_TEST

START_TEST(a_next_life_may_begin_below_what_was_truncated_in_the_one_before)
{
	uint64_t removed;

	open_world(_i);
	for (uint64_t i = 0; i < 5; i++)
		want_cas(w.c, "k", i == 0 ? 0 : 100 + i - 1, 100 + i, "v", KV_OK);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 103, NULL, NULL), KV_OK);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 101, &removed, NULL), KV_OK);
	ck_assert_uint_eq(removed, 0);
	ck_assert_int_eq(kv_consensus_remove(w.c, "k", 104, NULL), KV_OK);
	for (uint64_t i = 1; i <= 4; i++)
		want_cas(w.c, "k", i - 1, i, "v", KV_OK);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 3, &removed, NULL), KV_OK);
	ck_assert_uint_eq(removed, 2);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "3 4");
	ck_assert_int_eq(kv_consensus_remove(w.c, "k", 4, NULL), KV_OK);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "");
	world_close(&w);
}
END_TEST

START_TEST(truncate_beyond_the_head_is_refused)
{
	uint64_t removed = 99;

	open_world(_i);
	want_cas(w.c, "k", 0, 1, "a", KV_OK);
	want_cas(w.c, "k", 1, 2, "b", KV_OK);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 3, &removed, NULL), KV_RANGE);
	ck_assert_uint_eq(removed, 0);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "1 2");
	world_close(&w);
}
END_TEST

START_TEST(truncate_of_many_versions_forgets_them_all)
{
	uint64_t removed;

	open_world(_i);
	for (uint64_t i = 1; i <= 1200; i++)
		ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", i - 1, i, "v", 1, KV_RIDE, NULL),
				 KV_OK);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 1199, &removed, NULL), KV_OK);
	ck_assert_uint_eq(removed, 1198);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "1199 1200");
	world_close(&w);
}
END_TEST

START_TEST(remove_forgets_the_key_only_at_the_expected_head)
{
	open_world(_i);
	ck_assert_int_eq(kv_consensus_remove(w.c, "k", 1, NULL), KV_NOTFOUND);
	want_cas(w.c, "k", 0, 1, "a", KV_OK);
	want_cas(w.c, "k", 1, 2, "b", KV_OK);
	want_cas(w.c, "k-", 0, 1, "a", KV_OK);
	ck_assert_int_eq(kv_consensus_remove(w.c, "k", 1, NULL), KV_MISMATCH);
	want_head(w.c, "k", 2, "b");
	ck_assert_int_eq(kv_consensus_remove(w.c, "k", 2, NULL), KV_OK);
	want_head(w.c, "k", 0, NULL);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "");
	ck_assert_str_eq(keys(w.c, "", 10), "k-");
	ck_assert_int_eq(kv_consensus_remove(w.c, "k", 2, NULL), KV_NOTFOUND);
	want_cas(w.c, "k", 0, 2, "again", KV_OK);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 10), "2");
	world_close(&w);
}
END_TEST

START_TEST(keys_are_listed_in_byte_order_page_by_page)
{
	open_world(_i);
	want_cas(w.c, "b/x", 0, 1, "", KV_OK);
	want_cas(w.c, "b-x", 0, 1, "", KV_OK);
	want_cas(w.c, "b", 0, 1, "", KV_OK);
	want_cas(w.c, "Z", 0, 1, "", KV_OK);
	want_cas(w.c, "a", 0, 1, "", KV_OK);
	ck_assert_str_eq(keys(w.c, "", 10), "Z a b b-x b/x");
	ck_assert_str_eq(keys(w.c, "", 2), "Z a");
	ck_assert_str_eq(keys(w.c, "a", 2), "b b-x");
	ck_assert_str_eq(keys(w.c, "b-x", 2), "b/x");
	ck_assert_str_eq(keys(w.c, "b/x", 2), "");
	ck_assert_str_eq(keys(w.c, "aa", 1), "b");
	world_close(&w);
}
END_TEST

START_TEST(keys_may_have_200_bytes)
{
	char key[KV_KEY_MAX + 1];

	memset(key, 'k', KV_KEY_MAX);
	key[KV_KEY_MAX] = '\0';
	open_world(_i);
	want_cas(w.c, key, 0, 1, "a", KV_OK);
	want_cas(w.c, key, 1, 2, "b", KV_OK);
	ck_assert_str_eq(seqnos(w.c, key, 0, 5), "1 2");
	ck_assert_str_eq(keys(w.c, "", 5), key);
	ck_assert_int_eq(kv_consensus_remove(w.c, key, 2, NULL), KV_OK);
	ck_assert_str_eq(keys(w.c, "", 5), "");
	world_close(&w);
}
END_TEST

START_TEST(what_rides_is_seen_at_once)
{
	open_world(_i);
	ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", 0, 1, "a", 1, KV_RIDE, NULL), KV_OK);
	want_head(w.c, "k", 1, "a");
	want_cas(w.c, "k", 1, 2, "b", KV_OK);
	world_close(&w);
}
END_TEST

enum { THREADS = 4, ROUNDS = 25 };

static atomic_uint wins;

static void *race(void *arg)
{
	const char *who = arg;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		enum kv_rc rc = kv_consensus_compare_and_set(w.c, "k", i, i + 1, who, 1, KV_RIDE, NULL);

		if (rc == KV_OK)
			atomic_fetch_add(&wins, 1);
		else if (rc != KV_MISMATCH)
			abort();
	}
	return NULL;
}

START_TEST(concurrent_compare_and_sets_let_exactly_one_win)
{
	static char names[THREADS][2] = {"a", "b", "c", "d"};
	pthread_t threads[THREADS];

	open_world(_i);
	wins = 0;
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, race, names[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);

	struct kv_versions v;

	/* Every success is one version, and each links to the one before. */
	ck_assert_int_eq(kv_consensus_scan(w.c, "k", 0, 1000, &v, NULL), KV_OK);
	ck_assert_uint_eq(v.count, atomic_load(&wins));
	for (size_t i = 0; i < v.count; i++)
		ck_assert_uint_eq(v.v[i].seqno, i + 1);
	ck_assert_uint_eq(v.count, ROUNDS);
	kv_versions_free(&v);
	world_close(&w);
}
END_TEST

static void *write_own_key(void *arg)
{
	const char *key = arg;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		struct kv_version v;

		if (kv_consensus_compare_and_set(w.c, key, i, i + 1, key, 1, KV_SYNC, NULL) != KV_OK)
			abort();
		if (kv_consensus_head(w.c, key, &v, NULL) != KV_OK || v.seqno != i + 1)
			abort();
		free(v.data);
		if (i % 8 == 7 && kv_consensus_truncate(w.c, key, i, NULL, NULL) != KV_OK)
			abort();
	}
	return NULL;
}

START_TEST(writers_of_different_keys_do_not_meet)
{
	static char names[THREADS][2] = {"a", "b", "c", "d"};
	pthread_t threads[THREADS];

	open_world(_i);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, write_own_key, names[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < THREADS; i++)
		want_head(w.c, names[i], ROUNDS, names[i]);
	world_close(&w);
}
END_TEST

static atomic_bool stop;

/* A key that always has a version never looks as if it had none or a broken one. */
static void *read_heads(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		struct kv_version v;

		if (kv_consensus_head(w.c, "k", &v, NULL) != KV_OK)
			abort();
		free(v.data);
	}
	return NULL;
}

START_TEST(a_head_is_whole_while_it_moves_and_is_truncated)
{
	pthread_t reader;

	open_world(_i);
	want_cas(w.c, "k", 0, 1, "v", KV_OK);
	stop = false;
	ck_assert_int_eq(pthread_create(&reader, NULL, read_heads, NULL), 0);
	for (uint64_t i = 1; i < 300; i++) {
		ck_assert_int_eq(kv_consensus_compare_and_set(w.c, "k", i, i + 1, "v", 1, KV_RIDE, NULL),
				 KV_OK);
		ck_assert_int_eq(kv_consensus_truncate(w.c, "k", i + 1, NULL, NULL), KV_OK);
	}
	stop = true;
	pthread_join(reader, NULL);
	world_close(&w);
}
END_TEST

Suite *consensus_conformance_suite(void)
{
	const TTest *const tests[] = {
		a_key_without_versions_has_no_head,
		compare_and_set_makes_the_head,
		compare_and_set_on_a_stale_head_is_a_mismatch_and_changes_nothing,
		seqno_may_jump_and_start_anywhere_above_zero,
		values_may_be_empty_or_large_and_hold_any_byte,
		scan_gives_versions_ascending_from_and_at_most_limit,
		scan_from_beyond_head_is_empty,
		truncate_forgets_what_lies_below_and_counts_it,
		a_next_life_may_begin_below_what_was_truncated_in_the_one_before,
		truncate_beyond_the_head_is_refused,
		truncate_of_many_versions_forgets_them_all,
		remove_forgets_the_key_only_at_the_expected_head,
		keys_are_listed_in_byte_order_page_by_page,
		keys_may_have_200_bytes,
		what_rides_is_seen_at_once,
		concurrent_compare_and_sets_let_exactly_one_win,
		writers_of_different_keys_do_not_meet,
		a_head_is_whole_while_it_moves_and_is_truncated,
	};
	Suite *s = suite_create("kv/consensus");
	TCase *t = tcase_create("conformance");

	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_loop_test(t, tests[i], 0, WORLD_CONSENSUS_COUNT);
	suite_add_tcase(s, t);
	return s;
}
