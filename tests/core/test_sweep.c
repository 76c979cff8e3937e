/*
 * test_sweep.c - blobs that nobody names go, and nothing else does.
 */
#include "tests/core/chores.h"
#include "tests/core/suites.h"

#include <unistd.h>

#include "kv/blob_impl.h"

static struct core_shard *open_shard(struct core_engine *e, struct core_shard_id id)
{
	struct core_shard *s;
	struct kv_err err;

	ck_ok(core_shard_open(e, id, &s, &err), err);
	return s;
}

static struct core_snapshot *snapshot_at(struct core_shard *s, uint64_t time)
{
	struct core_snapshot *n;
	struct kv_err err;

	ck_ok(core_snapshot_open(s, (struct core_as_of){.time = time}, &n, &err), err);
	return n;
}

static bool has_any(struct disk *d, char keys[][CORE_BLOB_KEY_LEN], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (has_blob(d, keys[i]))
			return true;
	return false;
}

/* An engine, of whose calls the nth after its opening fails: the visit goes slowly until then. */
static struct core_engine *disk_open_then_fail(struct disk *d, unsigned nth)
{
	struct core_engine *e;

	kv_faults_set_delay_us(d->faults, 3000);
	kv_faults_arm(d->faults, 1, KV_FAULT_SLOW, true);
	e = disk_open(d);
	disk_fail(d, nth, KV_FAULT_BEFORE);
	return e;
}

START_TEST(orphans_of_an_instance_that_is_over_go_and_all_that_is_named_stays)
{
	struct rig rig = rig_new(DISK_SOLE);
	char part[CORE_BLOB_KEY_LEN], rollup[CORE_BLOB_KEY_LEN], id[CORE_ID_LEN], over[CORE_ID_LEN];

	put_hollow(rig.shard, "0 1 a x;", 5000);
	put_hollow(rig.shard, "1 1 b x;", 5000);
	stage_whole(rig.shard, "mine", NULL, "5 1 s s;");
	fold_to_blob(rig.shard);
	reopen_well(&rig);
	plant(rig.disk, stray_key(rig.id, part));
	snprintf(rollup, sizeof rollup, "%s/v12/%s-7", core_uuid_format('s', rig.id.u, id),
		 core_uuid_format('n', core_uuid_new(), over));
	plant(rig.disk, rollup);
	ck_assert_uint_eq(chore(rig.shard, CORE_GC).blobs, 2);
	ck_assert(!has_blob(rig.disk, part));
	ck_assert(!has_blob(rig.disk, rollup));
	check_blobs(rig.disk, rig.shard, true);
	check_staged(rig.shard, "mine", "5 1 s s;");
	rig_free(&rig);
}
END_TEST

START_TEST(what_the_running_instance_wrote_and_keys_of_others_stay)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_part part = {.id.u = core_uuid_new(), .instance = rig.engine->instance};
	char own[CORE_BLOB_KEY_LEN], id[CORE_ID_LEN], odd[CORE_BLOB_KEY_LEN];
	const char *foreign[] = {"LIVENESS", "a/b/c", "s-not-an-id/n/p", "zzz/n1/p1"};

	plant(rig.disk, core_part_key(rig.id, &part, own));
	snprintf(odd, sizeof odd, "%s/notes", core_uuid_format('s', rig.id.u, id));
	plant(rig.disk, odd);
	for (size_t i = 0; i < 4; i++)
		plant(rig.disk, foreign[i]);
	ck_assert_uint_eq(chore(rig.shard, CORE_GC).blobs, 0);
	ck_assert(has_blob(rig.disk, own));
	rig.disk->upkeep = true;
	reopen_well(&rig); /* that visits all */
	core_upkeep_settle(rig.engine);
	ck_assert(!has_blob(rig.disk, own));
	ck_assert(has_blob(rig.disk, odd));
	for (size_t i = 0; i < 4; i++)
		ck_assert(has_blob(rig.disk, foreign[i]));
	rig_free(&rig);
}
END_TEST

START_TEST(a_start_sweeps_every_shard_and_what_has_none)
{
	enum { SHARDS = 5 };
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard_id others[SHARDS];
	char keys[2 * SHARDS][CORE_BLOB_KEY_LEN];
	struct kv_err err;

	for (int i = 0; i < SHARDS; i++) {
		others[i].u = core_uuid_new();
		ck_ok(core_shard_create(rig.engine, others[i], any_owner, &err), err);
		struct core_shard *s = open_shard(rig.engine, others[i]);
		put_hollow(s, "0 1 a x;", 5000);
		core_shard_close(s);
		plant(rig.disk, stray_key(others[i], keys[i]));
		plant(rig.disk, stray_key((struct core_shard_id){.u = core_uuid_new()}, keys[SHARDS + i]));
	}
	rig.disk->upkeep = true;
	reopen_well(&rig);
	core_upkeep_settle(rig.engine);
	for (int i = 0; i < 2 * SHARDS; i++)
		ck_assert(!has_blob(rig.disk, keys[i]));
	for (int i = 0; i < SHARDS; i++) {
		struct core_shard *s = open_shard(rig.engine, others[i]);
		char *text = content(s, 0);
		ck_assert_int_eq(strncmp(text, "a x 1;pad ", 10), 0);
		free(text);
		core_shard_close(s);
	}
	rig_free(&rig);
}
END_TEST

/* A sweep of more than one page of blobs, with orphans among those that are named. */
START_TEST(orphans_are_found_among_many_blobs)
{
	enum { PARTS = 300, STRAYS = 600 };
	struct rig rig = rig_new(DISK_SOLE);
	char key[CORE_BLOB_KEY_LEN];

	put_runs(rig.shard, PARTS);
	reopen_well(&rig);
	for (int i = 0; i < STRAYS; i++)
		plant(rig.disk, stray_key(rig.id, key));
	ck_assert_uint_eq(chore(rig.shard, CORE_GC).blobs, STRAYS);
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

/* Any one call of the visit fails: what was not visited then is visited later. */
START_TEST(a_start_whose_visit_the_store_fails_once_comes_to_all_shards_in_the_end)
{
	enum { SHARDS = 3 };
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = rig_new(DISK_SOLE);
		char keys[SHARDS][CORE_BLOB_KEY_LEN];
		struct kv_err err;

		for (int i = 0; i < SHARDS; i++) {
			struct core_shard_id id = {.u = core_uuid_new()};

			ck_ok(core_shard_create(rig.engine, id, any_owner, &err), err);
			plant(rig.disk, stray_key(id, keys[i]));
		}
		core_shard_close(rig.shard);
		core_engine_close(rig.engine);
		rig.shard = NULL;
		rig.disk->upkeep = true;
		/* The engine's own calls at its start come first: they do not fail. */
		rig.engine = disk_open_then_fail(rig.disk, nth);
		core_upkeep_settle(rig.engine);
		fired = kv_faults_fired(rig.disk->faults);
		disk_heal(rig.disk);
		for (int tries = 0; tries < 40 && has_any(rig.disk, keys, SHARDS); tries++) {
			usleep(100000);
			core_upkeep_settle(rig.engine);
		}
		ck_assert_msg(!has_any(rig.disk, keys, SHARDS), "call %u failed, and blobs stay", nth);
		rig_free(&rig);
	}
}
END_TEST

/* --- what somebody reads still --------------------------------------------------------------------- */

START_TEST(a_removed_staged_batch_that_is_read_stays_until_it_is_closed)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_staged_view view;
	struct kv_err err;
	char *row = large_row("5", "s", 400000), *before, *after;

	stage_whole(rig.shard, "one", NULL, row);
	if (_i == 1)
		reopen_well(&rig); /* its parts are of an instance that is over */
	ck_ok(core_staged_open(rig.shard, staged_entry(rig.shard, "one").id, &view, &err), err);
	ck_assert(view.batch->part_count == 1 && view.batch->parts[0].inline_data == NULL);
	before = view_text(rig.shard, &view);
	ck_ok(core_staged_remove(rig.shard, "one", &err), err);
	chore(rig.shard, CORE_GC);
	after = view_text(rig.shard, &view);
	ck_assert_msg(strcmp(after, before) == 0, "%.300s", after);
	core_staged_close(rig.shard, &view);
	rig_settle(&rig);
	chore(rig.shard, CORE_GC);
	check_blobs(rig.disk, rig.shard, true);
	free(row);
	free(before);
	free(after);
	rig_free(&rig);
}
END_TEST

START_TEST(a_removed_shard_that_is_read_stays_though_the_one_made_anew_is_swept)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_snapshot *n;
	struct kv_err err;
	char *before, *after;

	put_hollow(rig.shard, "0 1 a x;", 400000);
	if (_i == 1)
		reopen_well(&rig); /* what it wrote is of an instance that is over */
	n = snapshot_at(rig.shard, 0);
	before = snapshot_text(n);
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=1 new_upper=- since=-", ""), "ok 1 - updates=0");
	ck_ok(core_shard_remove(rig.shard, &err), err);
	core_shard_close(rig.shard);
	ck_ok(core_shard_create(rig.engine, rig.id, any_owner, &err), err);
	rig.shard = open_shard(rig.engine, rig.id);
	put_hollow(rig.shard, "0 1 b x;", 5000);
	chore(rig.shard, CORE_GC);
	after = snapshot_text(n);
	ck_assert_msg(strcmp(after, before) == 0, "%.300s", after);
	core_snapshot_close(n);
	rig_settle(&rig);
	reopen_well(&rig);
	chore(rig.shard, CORE_GC);
	check_blobs(rig.disk, rig.shard, true);
	free(before);
	free(after);
	rig_free(&rig);
}
END_TEST

START_TEST(staged_batches_that_are_being_written_are_not_swept)
{
	struct rig rig = rig_new(DISK_SOLE);
	char *row = large_row("5", "s", 6000), *more = large_row("6", "t", 6000), *text;
	struct core_stage *g;
	struct kv_err err;

	stage_whole(rig.shard, "one", NULL, row);
	reopen_well(&rig);
	g = stage_at(rig.shard, "one");
	stage_put(g, more);
	chore(rig.shard, CORE_GC);
	ck_ok(core_stage_sync(g, &err), err);
	chore(rig.shard, CORE_GC);
	core_stage_close(g);
	chore(rig.shard, CORE_GC);
	text = staged_text(rig.shard, "one");
	ck_assert_uint_gt(strlen(text), 12000);
	ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=9", "one", ""),
			 "ok 0 9 updates=2");
	chore(rig.shard, CORE_GC);
	rig_settle(&rig);
	reopen_well(&rig);
	chore(rig.shard, CORE_GC);
	check_blobs(rig.disk, rig.shard, true);
	free(text);
	free(row);
	free(more);
	rig_free(&rig);
}
END_TEST

/* A layer that commits the staged batch "one" as the sweep, which has named everything, begins to list. */
struct meddler {
	struct kv_blobs base;
	struct kv_blobs *to;
	struct core_shard *shard; /* NULL: it only passes on */
};

static struct meddler *meddler(struct kv_blobs *b)
{
	return (struct meddler *)b;
}

static enum kv_rc meddler_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			      size_t *got, struct kv_err *err)
{
	return kv_blob_get(meddler(b)->to, key, offset, buf, len, got, err);
}

static enum kv_rc meddler_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			      struct kv_err *err)
{
	return kv_blob_set(meddler(b)->to, key, data, len, err);
}

static enum kv_rc meddler_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
				 struct kv_err *err)
{
	return kv_blob_delete(meddler(b)->to, key, existed, size, err);
}

static enum kv_rc meddler_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			       struct kv_blob_list *out, struct kv_err *err)
{
	struct core_shard *shard = meddler(b)->shard;

	meddler(b)->shard = NULL;
	if (shard != NULL)
		ck_assert_str_eq(verdict_staged(shard, "expected_upper=0 new_upper=9", "one", ""),
				 "ok 0 9 updates=1");
	return kv_blob_list(meddler(b)->to, prefix, after, limit, out, err);
}

static void meddler_close(struct kv_blobs *b)
{
	kv_blobs_close(meddler(b)->to);
}

static const struct kv_blob_ops meddler_ops = {
	.name = "meddler",
	.get = meddler_get,
	.set = meddler_set,
	.delete = meddler_delete,
	.list = meddler_list,
	.close = meddler_close,
};

START_TEST(a_batch_staged_before_a_restart_may_be_committed_while_its_shard_is_swept)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct meddler between = {.base.ops = &meddler_ops, .to = rig.disk->blobs};
	char *row = large_row("5", "s", 6000);

	stage_whole(rig.shard, "one", NULL, row);
	rig.disk->blobs = &between.base;
	reopen_well(&rig);
	between.shard = rig.shard;
	chore(rig.shard, CORE_GC);
	ck_assert_ptr_null(between.shard);
	check_blobs(rig.disk, rig.shard, true);
	free(row);
	rig_free(&rig);
}
END_TEST

START_TEST(a_store_that_others_write_to_is_not_swept)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	char key[CORE_BLOB_KEY_LEN];

	put_hollow(other.shard, "0 1 a x;", 5000);
	plant(rig.disk, stray_key(rig.id, key));
	chore(rig.shard, CORE_GC);
	ck_assert(has_blob(rig.disk, key));
	check_blobs(rig.disk, rig.shard, false);
	second_close(&other);
	rig_free(&rig);
}
END_TEST

/* Whichever call of it fails, a sweep deletes nothing that is named, and the next one does the rest. */
START_TEST(a_sweep_that_fails_at_any_call_harms_nothing)
{
	static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
					      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = rig_new(DISK_SOLE);
		char key[CORE_BLOB_KEY_LEN];
		struct kv_err err;

		put_hollow(rig.shard, "0 1 a x;", 5000);
		stage_whole(rig.shard, "one", NULL, "5 1 s s;");
		reopen_well(&rig);
		for (int i = 0; i < 3; i++)
			plant(rig.disk, stray_key(rig.id, key));
		disk_fail(rig.disk, nth, kinds[_i]);
		enum kv_rc rc = chore_rc(rig.shard, CORE_GC, &err);
		fired = kv_faults_fired(rig.disk->faults);
		ck_assert(rc == KV_OK || fired);
		disk_heal(rig.disk);
		check_blobs(rig.disk, rig.shard, false);
		chore(rig.shard, CORE_GC);
		check_blobs(rig.disk, rig.shard, true);
		rig_free(&rig);
	}
}
END_TEST

Suite *sweep_suite(void)
{
	Suite *s = suite_create("sweep");
	TCase *t = tcase_create("sweep");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, orphans_of_an_instance_that_is_over_go_and_all_that_is_named_stays);
	tcase_add_test(t, what_the_running_instance_wrote_and_keys_of_others_stay);
	tcase_add_test(t, a_start_sweeps_every_shard_and_what_has_none);
	tcase_add_test(t, a_start_whose_visit_the_store_fails_once_comes_to_all_shards_in_the_end);
	tcase_add_test(t, orphans_are_found_among_many_blobs);
	tcase_add_loop_test(t, a_removed_staged_batch_that_is_read_stays_until_it_is_closed, 0, 2);
	tcase_add_loop_test(t, a_removed_shard_that_is_read_stays_though_the_one_made_anew_is_swept, 0, 2);
	tcase_add_test(t, staged_batches_that_are_being_written_are_not_swept);
	tcase_add_test(t, a_batch_staged_before_a_restart_may_be_committed_while_its_shard_is_swept);
	tcase_add_test(t, a_store_that_others_write_to_is_not_swept);
	tcase_add_loop_test(t, a_sweep_that_fails_at_any_call_harms_nothing, 0, 5);
	suite_add_tcase(s, t);
	return s;
}
