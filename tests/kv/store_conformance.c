/* store_conformance.c - what store.h promises, asked of every implementation. */
#include "tests/kv/worlds.h"

#include <pthread.h>
#include <stdio.h>
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

/* Version seqno of each of count keys, expected to follow the one before. */
static void make_runs(struct kv_run *runs, char keys[][8], const struct kv_version_put *version, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		snprintf(keys[i], sizeof keys[i], "k%u", (unsigned)i % 1000);
		runs[i] = (struct kv_run){.key = keys[i],
					  .expected = version->seqno - 1,
					  .versions = version,
					  .version_count = 1,
					  .rc = KV_IO};
	}
}

START_TEST(as_many_keys_as_may_be_are_committed_at_once)
{
	const struct kv_version_put versions[] = {{1, "v", 1}, {2, "w", 1}};
	struct kv_run runs[KV_RUNS_MAX];
	char key[KV_RUNS_MAX][8];

	open_world(_i);
	for (int round = 0; round < 2; round++) {
		make_runs(runs, key, &versions[round], KV_RUNS_MAX);
		kv_store_commit_runs(w.store, runs, KV_RUNS_MAX, KV_SYNC);
		for (size_t i = 0; i < KV_RUNS_MAX; i++) {
			ck_assert_int_eq(runs[i].rc, KV_OK);
			want_head(w.c, key[i], (uint64_t)round + 1, versions[round].data);
		}
	}
	ck_assert_str_eq(seqnos(w.c, "k7", 0, 9), "1 2");
	world_close(&w);
}
END_TEST

START_TEST(a_mismatch_of_one_key_leaves_the_others_to_land)
{
	const struct kv_version_put version = {1, "v", 1};
	const struct kv_blob_put puts[] = {{"p/0", "zero", 4}, {"p/1", "one", 3}, {"p/2", "two", 3}};
	struct kv_run runs[3];
	char key[3][8];

	for (size_t odd = 0; odd < 3; odd++) { /* the first, one between, the last */
		struct kv_err err[3] = {0};

		open_world(_i);
		make_runs(runs, key, &version, 3);
		want_cas(w.c, key[odd], 0, 5, "there", KV_OK);
		for (size_t i = 0; i < 3; i++) {
			runs[i].blobs = &puts[i];
			runs[i].blob_count = 1;
			runs[i].err = &err[i];
		}
		kv_store_commit_runs(w.store, runs, 3, KV_SYNC);
		for (size_t i = 0; i < 3; i++) {
			ck_assert_int_eq(runs[i].rc, i == odd ? KV_MISMATCH : KV_OK);
			ck_assert_int_eq(err[i].rc, runs[i].rc);
			want_head(w.c, key[i], i == odd ? 5 : 1, i == odd ? "there" : "v");
			if (i != odd)
				want_blob(w.b, puts[i].key, puts[i].data);
		}
		world_close(&w);
	}
}
END_TEST

START_TEST(where_every_key_mismatches_nothing_is_done)
{
	const struct kv_version_put version = {3, "v", 1};
	struct kv_run runs[2];
	char key[2][8];

	open_world(_i);
	make_runs(runs, key, &version, 2);
	kv_store_commit_runs(w.store, runs, 2, KV_SYNC);
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(runs[i].rc, KV_MISMATCH);
		want_head(w.c, key[i], 0, NULL);
	}
	world_close(&w);
}
END_TEST

/* Many at once on the same keys: each version is stored once, and the head is always a whole one. */
struct rival {
	pthread_t thread;
	size_t won[4];
	int number;
};

static void *rival_main(void *arg)
{
	struct rival *r = arg;

	for (uint64_t seqno = 1; seqno <= 50; seqno++) {
		const struct kv_version_put version = {seqno, "v", 1};
		struct kv_run runs[4], turned[4];
		char key[4][8];

		make_runs(runs, key, &version, 4);
		for (size_t i = 0; i < 4; i++)
			turned[i] = runs[((size_t)r->number + i) % 4]; /* each in another order */
		kv_store_commit_runs(w.store, turned, 4, KV_RIDE);
		for (size_t i = 0; i < 4; i++) {
			ck_assert(turned[i].rc == KV_OK || turned[i].rc == KV_MISMATCH);
			r->won[turned[i].key[1] - '0'] += turned[i].rc == KV_OK;
		}
	}
	return NULL;
}

START_TEST(of_rivals_for_several_keys_one_wins_each_version)
{
	struct rival rivals[4] = {0};
	size_t won[4] = {0};

	open_world(_i);
	for (int i = 0; i < 4; i++) {
		rivals[i].number = i;
		pthread_create(&rivals[i].thread, NULL, rival_main, &rivals[i]);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(rivals[i].thread, NULL);
		for (size_t k = 0; k < 4; k++)
			won[k] += rivals[i].won[k];
	}
	for (size_t k = 0; k < 4; k++) {
		char key[] = {'k', (char)('0' + k), '\0'};
		struct kv_version head;

		ck_assert_int_eq(kv_consensus_head(w.c, key, &head, NULL), KV_OK);
		ck_assert_uint_eq(head.seqno, won[k]); /* without gaps, so as many as were won */
		free(head.data);
	}
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
		commit_brings_version_and_blobs,
		blobs_of_a_commit_are_like_any,
		commit_on_a_stale_head_is_a_mismatch,
		a_blob_set_alone_and_again_with_a_commit_is_one_blob,
		a_commit_may_bring_large_blobs,
		usage_is_told_or_unknown,
		as_many_keys_as_may_be_are_committed_at_once,
		a_mismatch_of_one_key_leaves_the_others_to_land,
		where_every_key_mismatches_nothing_is_done,
		of_rivals_for_several_keys_one_wins_each_version,
	};
	Suite *s = suite_create("kv/store");
	TCase *t = tcase_create("conformance");

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_loop_test(t, tests[i], 0, (int)(sizeof(kinds) / sizeof(kinds[0])));
	suite_add_tcase(s, t);
	return s;
}
