/*
 * test_check.c - the checker finds what is damaged, says where, and finds nothing else.
 */
#include "tests/core/found.h"
#include "tests/core/suites.h"

static void fill(struct rig *r)
{
	put_hollow(r->shard, "0 1 a x;", 200000);
	put_hollow(r->shard, "1 1 b x;", 5000);
	append_many(r->shard, 2, 9, 30);
	stage_whole(r->shard, "mine", NULL, "5 1 s s;6 1 t t;");
}

START_TEST(a_store_in_which_all_is_well_has_no_findings)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct rng r = rng_new(9001);
	struct found found;

	fill(&rig);
	found = check_all(rig.engine);
	ck_assert_uint_eq(found.sum.damages, 0);
	ck_assert_uint_eq(found.sum.notes, 0);
	ck_assert_uint_eq(found.sum.shards, 1);
	ck_assert_uint_eq(found.sum.staged, 1);
	ck_assert_uint_ge(found.sum.updates, 13);
	rig_free(&rig);
	rig = rig_new(DISK_SOLE);
	fill_mixed(rig.shard, &r);
	want_clean(rig.engine, 0);
	chore(rig.shard, CORE_COMPACT);
	want_clean(rig.engine, 0);
	chore(rig.shard, CORE_ROLLUP);
	chore(rig.shard, CORE_GC);
	want_clean(rig.engine, 0);
	rig_free(&rig);
}
END_TEST

/* Each byte of the small ones, some of the large. */
START_TEST(a_flipped_bit_in_any_blob_is_found_there_and_not_behind_its_place)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct rng r = rng_new(9002);
	struct kv_blob_list list;
	struct kv_err err;

	fill(&rig);
	fold_to_blob(rig.shard);
	rig_open(&rig);
	chore(rig.shard, CORE_GC);
	want_clean(rig.engine, 0);
	ck_ok(kv_blob_list(rig.disk->blobs, "", "", 1000, &list, &err), err);
	ck_assert_uint_ge(list.count, 5);
	for (size_t i = 0; i < list.count; i++) {
		const char *key = list.e[i].key;

		for (unsigned n = 0; n < 40; n++) {
			uint64_t at = n < 10   ? n
				      : n < 20 ? list.e[i].size - 1 - (n - 10)
					       : rng_below(&r, list.e[i].size);
			struct core_buf before = blob_bytes(rig.disk, key);
			struct found found;

			blob_flip(rig.disk, key, at, (unsigned)rng_below(&r, 8));
			found = check_all(rig.engine);
			ck_assert_msg(found.sum.damages == 1, "%s, byte %llu: %llu damages", key,
				      (unsigned long long)at, (unsigned long long)found.sum.damages);
			ck_assert_str_eq(found.file, key);
			ck_assert(!found.has_offset || found.offset <= at);
			blob_put(rig.disk, key, before.data, before.len);
			core_buf_fini(&before);
		}
	}
	kv_blob_list_free(&list);
	want_clean(rig.engine, 0);
	rig_free(&rig);
}
END_TEST

START_TEST(a_blob_that_is_missing_or_cut_off_is_found)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct kv_blob_list list;
	struct kv_err err;

	fill(&rig);
	ck_ok(kv_blob_list(rig.disk->blobs, "", "", 1000, &list, &err), err);
	for (size_t i = 0; i < list.count; i++) {
		struct core_buf b = blob_bytes(rig.disk, list.e[i].key);

		blob_drop(rig.disk, list.e[i].key);
		want_damage(rig.engine, list.e[i].key);
		ck_ok(kv_blob_set(rig.disk->blobs, list.e[i].key, b.data, b.len / 2, &err), err);
		want_damage(rig.engine, list.e[i].key);
		blob_put(rig.disk, list.e[i].key, b.data, b.len);
		core_buf_fini(&b);
	}
	kv_blob_list_free(&list);
	want_clean(rig.engine, 0);
	rig_free(&rig);
}
END_TEST

START_TEST(versions_and_names_that_are_no_such_thing_are_found)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_name name = {.name = "fruit", .target = rig.id};
	struct kv_version head;
	char key[CORE_ID_LEN];
	struct kv_err err;

	ck_ok(core_name_add(rig.engine, &name, &err), err);
	fill(&rig);
	want_clean(rig.engine, 0);
	ck_ok(kv_consensus_head(rig.disk->consensus, "names", &head, &err), err);
	ck_ok(kv_consensus_compare_and_set(rig.disk->consensus, "names", head.seqno, head.seqno + 1, "?", 1,
					   KV_SYNC, &err),
	      err);
	free(head.data);
	want_damage(rig.engine, "names");
	core_uuid_format('s', rig.id.u, key);
	ck_ok(kv_consensus_head(rig.disk->consensus, key, &head, &err), err);
	ck_ok(kv_consensus_compare_and_set(rig.disk->consensus, key, head.seqno, head.seqno + 1, "?", 1,
					   KV_SYNC, &err),
	      err);
	free(head.data);
	want_damage(rig.engine, "");
	ck_assert_ptr_nonnull(strstr(check_all(rig.engine).file, "version "));
	rig_crash(&rig);
	disk_free(rig.disk);
}
END_TEST

START_TEST(blobs_that_nobody_names_are_noted)
{
	struct rig rig = rig_new(DISK_SOLE);
	char key[CORE_BLOB_KEY_LEN];
	struct core_shard_id nobody = {.u = core_uuid_new()};

	fill(&rig);
	plant(rig.disk, stray_key(rig.id, key));
	want_clean(rig.engine, 1);
	plant(rig.disk, stray_key(nobody, key));
	plant(rig.disk, stray_key(nobody, key));
	want_clean(rig.engine, 3);
	ck_assert_uint_eq(check_all(rig.engine).sum.orphans, 3);
	rig_free(&rig);
}
END_TEST

/* A second engine checks while the first one merges and deletes: what is gone was replaced, and is no
 * finding. */
static void *check_often(void *arg)
{
	struct core_engine *e = arg;

	for (int i = 0; i < 30; i++)
		ck_assert_uint_eq(check_all(e).sum.damages, 0);
	return NULL;
}

START_TEST(what_others_replace_meanwhile_is_no_damage)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	pthread_t thread;

	fill(&rig);
	ck_assert_int_eq(pthread_create(&thread, NULL, check_often, other.engine), 0);
	for (unsigned i = 9; i < 60; i++) {
		char row[40];

		snprintf(row, sizeof row, "%u 1 a x;", i);
		put_hollow(rig.shard, row, 5000);
		if (i % 5 == 0)
			chore(rig.shard, CORE_COMPACT);
		if (i % 10 == 0)
			chore(rig.shard, CORE_ROLLUP);
		chore(rig.shard, CORE_GC);
	}
	pthread_join(thread, NULL);
	second_close(&other);
	rig_free(&rig);
}
END_TEST

Suite *check_suite(void)
{
	Suite *s = suite_create("check");
	TCase *tc = tcase_create("check");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_store_in_which_all_is_well_has_no_findings);
	tcase_add_test(tc, a_flipped_bit_in_any_blob_is_found_there_and_not_behind_its_place);
	tcase_add_test(tc, a_blob_that_is_missing_or_cut_off_is_found);
	tcase_add_test(tc, versions_and_names_that_are_no_such_thing_are_found);
	tcase_add_test(tc, blobs_that_nobody_names_are_noted);
	tcase_add_test(tc, what_others_replace_meanwhile_is_no_damage);
	suite_add_tcase(s, tc);
	return s;
}
