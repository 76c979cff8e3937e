/*
 * test_check_repair.c - repairs lose nothing that can be read, unless they are told to, and say what.
 */
#include "core/repair.h"
#include "tests/core/found.h"
#include "tests/core/suites.h"

struct deeds {
	unsigned count;
	unsigned losses;
	char last_loss[600];
	bool refuse; /* to lose anything */
};

static enum kv_rc note_mending(void *arg, const struct core_mending *m, struct kv_err *err)
{
	struct deeds *deeds = arg;

	deeds->count++;
	if (!m->loses)
		return KV_OK;
	deeds->losses++;
	snprintf(deeds->last_loss, sizeof deeds->last_loss, "%s", m->what);
	return deeds->refuse ? kv_fail(err, KV_IO, "it cannot be noted") : KV_OK;
}

static struct deeds mend(struct core_engine *e, bool drop_damaged)
{
	struct deeds deeds = {0};
	const struct core_repair how = {.drop_damaged = drop_damaged, .mending = note_mending, .arg = &deeds};
	struct kv_err err;

	ck_ok(core_repair_store(e, &how, &err), err);
	return deeds;
}

static void fill(struct rig *r)
{
	put_hollow(r->shard, "0 1 a x;", 5000);
	put_hollow(r->shard, "1 1 b x;", 5000);
	append_many(r->shard, 2, 9, 30);
	stage_whole(r->shard, "mine", NULL, "5 1 s s;6 1 t t;");
}

/* Another engine, whose shard is not loaded. */
static void close_shard(struct rig *r)
{
	core_shard_close(r->shard);
	core_engine_close(r->engine);
	r->shard = NULL;
	r->engine = disk_open(r->disk);
}

static void open_shard(struct rig *r)
{
	struct kv_err err;

	core_engine_close(r->engine);
	r->engine = disk_open(r->disk);
	ck_ok(core_shard_open(r->engine, r->id, &r->shard, &err), err);
}

START_TEST(nothing_is_done_where_all_is_well)
{
	struct rig rig = rig_new(DISK_SOLE);
	char *want;

	fill(&rig);
	want = picture(rig.shard);
	close_shard(&rig);
	ck_assert_uint_eq(mend(rig.engine, true).count, 0);
	open_shard(&rig);
	check_picture(rig.shard, want, "repaired");
	free(want);
	rig_free(&rig);
}
END_TEST

START_TEST(orphans_are_deleted_and_nothing_else)
{
	struct rig rig = rig_new(DISK_SOLE);
	char key[CORE_BLOB_KEY_LEN], other[CORE_BLOB_KEY_LEN], *want;

	fill(&rig);
	want = picture(rig.shard);
	plant(rig.disk, stray_key(rig.id, key));
	plant(rig.disk, stray_key((struct core_shard_id){.u = core_uuid_new()}, other));
	close_shard(&rig);
	ck_assert_uint_eq(mend(rig.engine, false).losses, 0);
	ck_assert(!has_blob(rig.disk, key) && !has_blob(rig.disk, other));
	want_clean(rig.engine, 0);
	open_shard(&rig);
	check_picture(rig.shard, want, "repaired");
	check_blobs(rig.disk, rig.shard, true);
	free(want);
	rig_free(&rig);
}
END_TEST

/* _i 0: only the first version's rollup was there; 1: an older one. 2, 3: it is missing. */
START_TEST(a_broken_rollup_is_written_anew_from_what_was_before_it)
{
	struct rig rig = rig_new(DISK_SOLE);
	const struct core_owner owner = {.uid = 7, .gid = 8, .mode = 0640};
	char key[KV_KEY_MAX + 1], *want;
	struct core_state state;
	struct kv_err err;

	rig_free(&rig);
	rig.disk = disk_new(DISK_SOLE);
	rig.engine = disk_open(rig.disk);
	rig.id.u = core_uuid_new();
	ck_ok(core_shard_create(rig.engine, rig.id, owner, &err), err);
	ck_ok(core_shard_open(rig.engine, rig.id, &rig.shard, &err), err);
	fill(&rig);
	if (_i % 2 == 1)
		chore(rig.shard, CORE_ROLLUP);
	want = picture(rig.shard);
	state = state_of(rig.shard);
	snprintf(key, sizeof key, "%s", state.rollups[state.rollup_count - 1].key);
	core_state_fini(&state);
	close_shard(&rig);
	if (_i < 2)
		blob_flip(rig.disk, key, 40, 1);
	else
		blob_drop(rig.disk, key);
	want_damage(rig.engine, key);
	ck_assert_uint_eq(mend(rig.engine, false).losses, 0);
	ck_assert_uint_eq(check_all(rig.engine).sum.damages, 0);
	open_shard(&rig);
	check_picture(rig.shard, want, "repaired");
	state = state_of(rig.shard);
	ck_assert_uint_eq(state.owner.uid, owner.uid);
	ck_assert_uint_eq(state.owner.gid, owner.gid);
	ck_assert_uint_eq(state.owner.mode, owner.mode);
	core_state_fini(&state);
	chore(rig.shard, CORE_GC);
	want_clean(rig.engine, 0);
	free(want);
	rig_free(&rig);
}
END_TEST

START_TEST(a_rollup_that_nothing_can_rebuild_is_left_as_it_is)
{
	struct rig rig = rig_new(DISK_SOLE);
	char key[KV_KEY_MAX + 1];
	struct core_state state;
	size_t blobs;

	fill(&rig);
	chore(rig.shard, CORE_ROLLUP);
	chore(rig.shard, CORE_GC);
	state = state_of(rig.shard);
	snprintf(key, sizeof key, "%s", state.rollups[state.rollup_count - 1].key);
	core_state_fini(&state);
	close_shard(&rig);
	blob_flip(rig.disk, key, 40, 1);
	blobs = disk_blob_count(rig.disk);
	ck_assert_uint_eq(mend(rig.engine, true).count, 0);
	ck_assert_uint_eq(disk_blob_count(rig.disk), blobs);
	want_damage(rig.engine, key);
	core_engine_close(rig.engine);
	disk_free(rig.disk);
}
END_TEST

START_TEST(a_damaged_part_is_kept_until_it_is_to_be_dropped_and_then_only_its_rows_go)
{
	struct rig rig = rig_new(DISK_SOLE);
	char key[KV_KEY_MAX + 1], part[CORE_BLOB_KEY_LEN], *text;
	struct core_state state;
	struct deeds deeds;

	fill(&rig);
	state = state_of(rig.shard);
	core_part_key(rig.id, &state.batches[1]->parts[0], part);
	snprintf(key, sizeof key, "%s", part);
	core_state_fini(&state);
	close_shard(&rig);
	blob_flip(rig.disk, key, 100, 1);
	ck_assert_uint_eq(mend(rig.engine, false).count, 0);
	want_damage(rig.engine, key);
	deeds = mend(rig.engine, true);
	ck_assert_uint_eq(deeds.losses, 1);
	ck_assert_msg(strstr(deeds.last_loss, "batch 1-2: 2 of 2 updates") != NULL &&
			      strstr(deeds.last_loss, "times 1 to 1") != NULL,
		      "%s", deeds.last_loss);
	ck_assert_uint_eq(check_all(rig.engine).sum.damages, 0);
	open_shard(&rig);
	text = content_latest(rig.shard);
	ck_assert_ptr_nonnull(strstr(text, "a x 1;"));
	ck_assert_ptr_null(strstr(text, "b x 1;"));
	ck_assert_ptr_nonnull(strstr(text, "k000008 "));
	ck_assert_str_eq(frontiers(rig.shard), "0 9");
	chore(rig.shard, CORE_GC);
	ck_assert(!has_blob(rig.disk, key));
	want_clean(rig.engine, 0);
	free(text);
	rig_free(&rig);
}
END_TEST

/* A part of several blocks, damaged in the last: rows of the blocks before it stay. */
/* The commit that drops rows makes a rollup due, which another thread writes. */
START_TEST(a_rollup_that_is_written_meanwhile_is_no_orphan)
{
	struct rig rig = rig_new(DISK_SOLE);
	char key[CORE_BLOB_KEY_LEN];
	struct core_state state;
	uint64_t upper = 9, left;

	fill(&rig);
	state = state_of(rig.shard);
	core_part_key(rig.id, &state.batches[1]->parts[0], key);
	left = CORE_ROLLUP_VERSIONS - 1 - (state.seqno - state.rollups[state.rollup_count - 1].seqno);
	core_state_fini(&state);
	append_many(rig.shard, upper, upper + left, 30);
	close_shard(&rig);
	blob_flip(rig.disk, key, 100, 1);
	ck_assert_uint_eq(mend(rig.engine, true).losses, 1);
	open_shard(&rig);
	state = state_of(rig.shard);
	ck_assert_uint_gt(state.rollup_count, 1);
	core_state_fini(&state);
	ck_assert_uint_eq(check_all(rig.engine).sum.damages, 0);
	rig_free(&rig);
}
END_TEST

START_TEST(rows_before_the_damaged_block_of_a_part_are_kept)
{
	struct rig rig = rig_new(DISK_SOLE);
	char key[KV_KEY_MAX + 1], *text, *rows = malloc(400 * 700 + 1);
	struct core_state state;
	struct deeds deeds;
	size_t len = 0;
	unsigned kept = 0;

	ck_assert_ptr_nonnull(rows);
	for (unsigned i = 0; i < 400; i++)
		len += (size_t)sprintf(rows + len, "0 1 key%04u %0600u;", i, i);
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=1", rows), "ok 0 1 updates=400");
	state = state_of(rig.shard);
	ck_assert_ptr_null(state.batches[0]->parts[0].inline_data);
	core_part_key(rig.id, &state.batches[0]->parts[0], key);
	blob_flip(rig.disk, key, state.batches[0]->parts[0].size - 2000, 1);
	core_state_fini(&state);
	close_shard(&rig);
	deeds = mend(rig.engine, true);
	ck_assert_uint_eq(deeds.losses, 1);
	open_shard(&rig);
	text = content_latest(rig.shard);
	for (char *p = strstr(text, "key"); p != NULL; p = strstr(p + 1, "key"))
		kept++;
	ck_assert_uint_gt(kept, 0);
	ck_assert_uint_lt(kept, 400);
	ck_assert_msg(strstr(deeds.last_loss, "of 400 updates") != NULL, "%s", deeds.last_loss);
	ck_assert_uint_eq(check_all(rig.engine).sum.damages, 0);
	free(text);
	free(rows);
	rig_free(&rig);
}
END_TEST

START_TEST(damaged_staged_batches_and_names_go_only_when_they_are_to)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_name name = {.name = "fruit", .target = rig.id}, *names;
	struct kv_version head;
	struct kv_err err;
	char key[KV_KEY_MAX + 1], *want;
	size_t count;

	fill(&rig);
	ck_ok(core_name_add(rig.engine, &name, &err), err);
	want = picture(rig.shard);
	close_shard(&rig);
	blob_flip(rig.disk, blob_named(&rig, "/m", 0, key), 30, 0);
	ck_ok(kv_consensus_head(rig.disk->consensus, "names", &head, &err), err);
	ck_ok(kv_consensus_compare_and_set(rig.disk->consensus, "names", head.seqno, head.seqno + 1, "?", 1,
					   KV_SYNC, &err),
	      err);
	free(head.data);
	ck_assert_uint_eq(mend(rig.engine, false).losses, 0);
	ck_assert_uint_eq(check_all(rig.engine).sum.damages, 2);
	ck_assert_uint_eq(mend(rig.engine, true).losses, 2);
	want_clean(rig.engine, 0);
	ck_ok(core_name_list(rig.engine, &names, &count, &err), err);
	ck_assert_uint_eq(count, 0);
	free(names);
	open_shard(&rig);
	check_picture(rig.shard, want, "repaired");
	ck_assert_uint_eq(staged_count(rig.shard), 0);
	free(want);
	rig_free(&rig);
}
END_TEST

START_TEST(what_cannot_be_noted_is_not_dropped)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct deeds deeds = {.refuse = true};
	const struct core_repair how = {.drop_damaged = true, .mending = note_mending, .arg = &deeds};
	struct core_state state;
	char key[KV_KEY_MAX + 1];
	struct kv_err err;
	struct found before;

	fill(&rig);
	state = state_of(rig.shard);
	core_part_key(rig.id, &state.batches[0]->parts[0], key);
	core_state_fini(&state);
	close_shard(&rig);
	blob_flip(rig.disk, key, 100, 1);
	before = check_all(rig.engine);
	(void)!core_repair_store(rig.engine, &how, &err);
	ck_assert_uint_eq(deeds.losses, 1);
	ck_assert_uint_eq(check_all(rig.engine).sum.updates, before.sum.updates);
	want_damage(rig.engine, key);
	core_engine_close(rig.engine);
	disk_free(rig.disk);
}
END_TEST

/* Whichever call of the store fails, what could be read before can be read after, and another repair
 * completes it. */
START_TEST(a_repair_that_fails_half_way_loses_nothing_more)
{
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = rig_new(DISK_SOLE);
		struct deeds deeds = {0};
		const struct core_repair how = {.drop_damaged = true, .mending = note_mending, .arg = &deeds};
		char key[KV_KEY_MAX + 1], *want;
		struct core_state state;
		struct kv_err err;

		fill(&rig);
		want = picture(rig.shard);
		state = state_of(rig.shard);
		snprintf(key, sizeof key, "%s", state.rollups[0].key);
		core_state_fini(&state);
		close_shard(&rig);
		blob_flip(rig.disk, key, 40, 1);
		disk_fail(rig.disk, nth, _i == 0 ? KV_FAULT_BEFORE : KV_FAULT_DONE_UNKNOWN);
		(void)!core_repair_store(rig.engine, &how, &err);
		fired = kv_faults_fired(rig.disk->faults);
		disk_heal(rig.disk);
		ck_assert_uint_eq(deeds.losses, 0);
		(void)mend(rig.engine, false);
		open_shard(&rig);
		check_picture(rig.shard, want, "repaired");
		free(want);
		rig_free(&rig);
	}
}
END_TEST

Suite *repair_suite(void)
{
	Suite *s = suite_create("repair");
	TCase *tc = tcase_create("repair");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, nothing_is_done_where_all_is_well);
	tcase_add_test(tc, orphans_are_deleted_and_nothing_else);
	tcase_add_loop_test(tc, a_broken_rollup_is_written_anew_from_what_was_before_it, 0, 4);
	tcase_add_test(tc, a_rollup_that_nothing_can_rebuild_is_left_as_it_is);
	tcase_add_test(tc, a_damaged_part_is_kept_until_it_is_to_be_dropped_and_then_only_its_rows_go);
	tcase_add_loop_test(tc, a_rollup_that_is_written_meanwhile_is_no_orphan, 0, 8);
	tcase_add_test(tc, rows_before_the_damaged_block_of_a_part_are_kept);
	tcase_add_test(tc, damaged_staged_batches_and_names_go_only_when_they_are_to);
	tcase_add_test(tc, what_cannot_be_noted_is_not_dropped);
	tcase_add_loop_test(tc, a_repair_that_fails_half_way_loses_nothing_more, 0, 2);
	suite_add_tcase(s, tc);
	return s;
}
