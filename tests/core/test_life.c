/*
 * test_life.c - how shards begin and end: creation and removal whichever call
 * fails, and those who still read while everything goes.
 */
#include "tests/core/suites.h"
#include "tests/core/world.h"

static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
				      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* One inline row, three hollow ones. */
static void fill(struct core_shard *s)
{
	char *big = malloc(6000);
	struct rng rng = rng_new(3);

	verdict(s, "expected_upper=0 new_upper=1", "0 1 a x;");
	for (int i = 0; i < 3; i++) {
		int at = sprintf(big, "* 1 big%d ", i);

		while (at < 5900)
			big[at++] = (char)('a' + rng_below(&rng, 26));
		strcpy(big + at, ";");
		ck_assert_int_eq(strncmp(verdict(s, "expected_upper=* new_upper=+1", big), "ok", 2), 0);
	}
	free(big);
}

static void finish(struct core_shard *s)
{
	ck_assert_int_eq(strncmp(verdict(s, "expected_upper=* new_upper=- since=-", ""), "ok", 2), 0);
}

static size_t rows_left(struct core_snapshot *n, enum kv_rc *rc, struct kv_err *err)
{
	struct core_update u;
	size_t rows = 0;
	bool end = false;

	for (*rc = KV_OK; *rc == KV_OK && !end; rows += *rc == KV_OK && !end)
		*rc = core_snapshot_next(n, &u, &end, err);
	return rows;
}

static void remove_rig(struct rig *r)
{
	struct kv_err err;

	ck_ok(core_shard_remove(r->shard, &err), err);
	core_shard_close(r->shard);
	r->shard = NULL;
}

START_TEST(a_removed_shard_leaves_nothing_in_the_store)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard *s;
	struct kv_err err;

	fill(rig.shard);
	finish(rig.shard);
	ck_assert_uint_gt(disk_blob_count(rig.disk), 3);
	remove_rig(&rig);
	rig_settle(&rig);
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	ck_assert_uint_eq(disk_key_count(rig.disk), 0);
	ck_assert_int_eq(core_shard_open(rig.engine, rig.id, &s, &err), KV_NO_SHARD);
	rig_free(&rig);
}
END_TEST

START_TEST(a_reader_reads_to_its_end_after_the_removal_and_then_all_is_gone)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_snapshot *n;
	struct core_shard *s;
	struct kv_err err;
	enum kv_rc rc;

	fill(rig.shard);
	ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.latest = true}, &n, &err), err);
	finish(rig.shard);
	remove_rig(&rig);
	ck_assert_int_eq(core_shard_open(rig.engine, rig.id, &s, &err), KV_NO_SHARD);
	ck_assert_uint_eq(rows_left(n, &rc, &err), 4);
	ck_ok(rc, err);
	core_snapshot_rewind(n);
	ck_assert_uint_eq(rows_left(n, &rc, &err), 4);
	core_snapshot_close(n);
	rig_settle(&rig);
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	ck_assert_uint_eq(disk_key_count(rig.disk), 0);
	rig_free(&rig);
}
END_TEST

START_TEST(a_shard_made_anew_while_the_old_one_is_read_is_another_one)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard *old;
	struct core_snapshot *n;
	struct core_appended r;
	struct kv_err err;
	enum kv_rc rc;

	fill(rig.shard);
	ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.time = 3}, &n, &err), err);
	finish(rig.shard);
	ck_ok(core_shard_remove(rig.shard, &err), err);
	old = rig.shard;
	ck_ok(core_shard_create(rig.engine, rig.id, any_owner, &err), err);
	ck_assert_int_eq(core_shard_create(rig.engine, rig.id, any_owner, &err), KV_SHARD_EXISTS);
	ck_ok(core_shard_open(rig.engine, rig.id, &rig.shard, &err), err);
	ck_assert_int_eq(append(old, "expected_upper=0 new_upper=1", "", &r, &err), KV_SHARD_REPLACED);
	ck_assert_str_eq(frontiers(rig.shard), "0 0");
	fill(rig.shard);
	core_shard_close(old);
	ck_assert_uint_eq(rows_left(n, &rc, &err), 4);
	ck_ok(rc, err);
	core_snapshot_close(n);
	rig_crash_and_reopen(&rig);
	ck_assert_str_eq(frontiers(rig.shard), "0 4");
	finish(rig.shard);
	remove_rig(&rig);
	rig_settle(&rig);
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	ck_assert_uint_eq(disk_key_count(rig.disk), 0);
	rig_free(&rig);
}
END_TEST

/* A first life is still read while a second one under the same id comes and goes. */
START_TEST(a_second_life_s_removal_leaves_what_readers_of_the_first_need)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_snapshot *n;
	struct kv_err err;
	enum kv_rc rc;

	fill(rig.shard);
	ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.time = 3}, &n, &err), err);
	finish(rig.shard);
	remove_rig(&rig);
	ck_ok(core_shard_create(rig.engine, rig.id, any_owner, &err), err);
	ck_ok(core_shard_open(rig.engine, rig.id, &rig.shard, &err), err);
	fill(rig.shard);
	finish(rig.shard);
	remove_rig(&rig);
	ck_assert_uint_eq(rows_left(n, &rc, &err), 4);
	ck_ok(rc, err);
	core_snapshot_close(n);
	rig_settle(&rig);
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	ck_assert_uint_eq(disk_key_count(rig.disk), 0);
	rig_free(&rig);
}
END_TEST

/* Fill, finish and remove, with one call of that kind failing, and all from there on if it goes on; whether
 * it got so far. */
static bool remove_cut_short(struct rig *rig, unsigned nth, enum kv_fault kind, bool goes_on, enum kv_rc *rc)
{
	struct kv_err err;

	fill(rig->shard);
	finish(rig->shard);
	kv_faults_arm(rig->disk->faults, nth, kind, goes_on);
	*rc = core_shard_remove(rig->shard, &err);
	core_shard_close(rig->shard);
	rig->shard = NULL;
	rig_settle(rig);
	return kv_faults_fired(rig->disk->faults);
}

START_TEST(a_removal_cut_short_at_any_call_goes_on_at_the_next_start)
{
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = rig_new(DISK_SOLE);
		struct core_shard *s = NULL;
		struct kv_err err;
		enum kv_rc rc;

		fired = remove_cut_short(&rig, nth, KV_FAULT_BEFORE, true, &rc);
		rig_crash(&rig);
		disk_heal(rig.disk);
		rig.engine = disk_open(rig.disk);
		/* Nobody looks at the shard: what is left is all of it, or nothing at all. */
		if (rc != KV_OK) {
			ck_ok(core_shard_open(rig.engine, rig.id, &s, &err), err);
			core_shard_close(s);
			ck_assert_uint_eq(disk_key_count(rig.disk), 1);
		} else {
			rig_settle(&rig);
			ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
			ck_assert_uint_eq(disk_key_count(rig.disk), 0);
		}
		rig_free(&rig);
	}
}
END_TEST

START_TEST(a_removal_cut_short_at_any_call_goes_on_when_it_is_looked_at)
{
	for (unsigned kind = 0; kind < KINDS; kind++) {
		bool fired = true;

		for (unsigned nth = 1; fired; nth++) {
			struct rig rig = rig_new(DISK_SOLE);
			struct core_shard *s = NULL;
			struct kv_err err;
			enum kv_rc rc;

			/* Both: one call fails and the process lives, or all from there on and it dies. */
			fired = remove_cut_short(&rig, nth, kinds[kind], _i == 1, &rc);
			if (_i == 1) {
				rig_crash(&rig);
				rig.engine = disk_open(rig.disk);
			}
			disk_heal(rig.disk);
			enum kv_rc then = core_shard_open(rig.engine, rig.id, &s, &err);
			ck_assert_msg(then == KV_NO_SHARD || (then == KV_OK && rc != KV_OK),
				      "call %u, kind %u: %s", nth, kind,
				      then == KV_OK ? "still there" : err.msg);
			if (then == KV_OK) {
				ck_ok(core_shard_remove(s, &err), err);
				core_shard_close(s);
			}
			rig_settle(&rig);
			ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
			if (disk_key_count(rig.disk) != 0) { /* the mark: the next start takes it away */
				rig_crash(&rig);
				rig.engine = disk_open(rig.disk);
			}
			ck_assert_uint_eq(disk_key_count(rig.disk), 0);
			ck_ok(core_shard_create(rig.engine, rig.id, any_owner, &err), err);
			rig_free(&rig);
		}
	}
}
END_TEST

/* On a store of which another is an owner, what is missing may have been deleted. */
START_TEST(a_removal_cut_short_at_any_call_is_no_damage_to_those_beside)
{
	bool fired = true;

	for (unsigned nth = 1; fired; nth++) {
		struct rig rig = rig_new(DISK_SHARED);
		struct core_shard *s = NULL;
		struct kv_err err;
		enum kv_rc rc, then;

		fired = remove_cut_short(&rig, nth, KV_FAULT_BEFORE, true, &rc);
		rig_crash(&rig);
		disk_heal(rig.disk);
		rig.engine = disk_open(rig.disk);
		then = core_shard_open(rig.engine, rig.id, &s, &err);
		ck_assert_msg(then == (rc == KV_OK ? KV_NO_SHARD : KV_OK), "call %u: %s", nth,
			      then == KV_OK ? "still there" : err.msg);
		core_shard_close(s);
		rig_free(&rig);
	}
}
END_TEST

START_TEST(a_creation_is_whole_or_absent_whichever_call_fails)
{
	for (unsigned kind = 0; kind < KINDS; kind++) {
		bool fired = true;

		for (unsigned nth = 1; fired; nth++) {
			struct rig rig = {.disk = disk_new(_i == 0 ? DISK_SOLE : DISK_SHARED),
					  .id.u = core_uuid_new()};
			struct kv_err err;
			enum kv_rc rc, opened;

			rig.engine = disk_open(rig.disk);
			disk_fail(rig.disk, nth, kinds[kind]);
			rc = core_shard_create(rig.engine, rig.id, any_owner, &err);
			fired = kv_faults_fired(rig.disk->faults);
			ck_assert_msg(rc == KV_OK || fired, "%s", err.msg);
			ck_assert_msg(rc != KV_UNKNOWN, "kind %u, call %u: an outcome that could be told",
				      kind, nth);
			rig_crash(&rig);
			rig.engine = disk_open(rig.disk);
			opened = core_shard_open(rig.engine, rig.id, &rig.shard, &err);
			ck_assert_int_eq(opened, rc == KV_OK ? KV_OK : KV_NO_SHARD);
			if (opened != KV_OK) {
				ck_ok(core_shard_create(rig.engine, rig.id, any_owner, &err), err);
				ck_ok(core_shard_open(rig.engine, rig.id, &rig.shard, &err), err);
			}
			ck_assert_str_eq(frontiers(rig.shard), "0 0");
			check_sound(rig.shard);
			rig_free(&rig);
		}
	}
}
END_TEST

START_TEST(a_shard_can_be_made_once)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard *s;
	struct kv_err err;
	struct core_shard_id other = {.u = core_uuid_new()};

	ck_assert_int_eq(core_shard_create(rig.engine, rig.id, any_owner, &err), KV_SHARD_EXISTS);
	ck_assert_int_eq(core_shard_open(rig.engine, other, &s, &err), KV_NO_SHARD);
	rig_crash_and_reopen(&rig);
	ck_assert_int_eq(core_shard_create(rig.engine, rig.id, any_owner, &err), KV_SHARD_EXISTS);
	rig_free(&rig);
}
END_TEST

START_TEST(shards_are_listed_page_by_page_and_names_are_not)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_name name = {.name = "zebra", .target = rig.id};
	struct kv_keys keys;
	struct kv_err err;
	char after[64] = "";
	size_t seen = 0;

	ck_ok(core_name_add(rig.engine, &name, &err), err);
	for (int i = 0; i < 10; i++)
		ck_ok(core_shard_create(rig.engine, (struct core_shard_id){.u = core_uuid_new()}, any_owner,
					&err),
		      err);
	do {
		ck_ok(core_shard_list(rig.engine, after, 4, &keys, &err), err);
		for (size_t i = 0; i < keys.count; i++, seen++) {
			ck_assert_int_gt(strcmp(keys.keys[i], after), 0);
			snprintf(after, sizeof(after), "%s", keys.keys[i]);
		}
		kv_keys_free(&keys);
	} while (seen < 11);
	ck_ok(core_shard_list(rig.engine, after, 4, &keys, &err), err);
	ck_assert_uint_eq(keys.count, 0);
	kv_keys_free(&keys);
	rig_free(&rig);
}
END_TEST

START_TEST(a_removed_shard_is_not_listed_while_it_is_still_read)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_snapshot *n;
	struct kv_keys keys;
	struct kv_err err;

	fill(rig.shard);
	ck_ok(core_snapshot_open(rig.shard, (struct core_as_of){.time = 3}, &n, &err), err);
	finish(rig.shard);
	remove_rig(&rig);
	ck_ok(core_shard_list(rig.engine, "", 10, &keys, &err), err);
	size_t count = keys.count;
	kv_keys_free(&keys);
	core_snapshot_close(n);
	ck_assert_uint_eq(count, 0);
	rig_free(&rig);
}
END_TEST

struct churner {
	pthread_t thread;
	struct rig *rig;
	unsigned seed;
};

static void *churn(void *arg)
{
	struct churner *c = arg;
	struct rng rng = rng_new(c->seed);

	for (int i = 0; i < 300; i++) {
		struct core_shard *s = NULL;
		struct core_snapshot *n = NULL;
		struct core_appended r;
		struct kv_err err;
		enum kv_rc rc;

		if (rng_below(&rng, 3) == 0) {
			rc = core_shard_create(c->rig->engine, c->rig->id, any_owner, &err);
			ck_assert_msg(rc == KV_OK || rc == KV_SHARD_EXISTS, "create: %s", err.msg);
		}
		rc = core_shard_open(c->rig->engine, c->rig->id, &s, &err);
		ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD, "open: %s", err.msg);
		if (rc != KV_OK)
			continue;
		(void)!append(s, "expected_upper=* new_upper=+1", "* 1 a x;", &r, &err);
		if (rng_below(&rng, 2) == 0)
			(void)!append(s, "expected_upper=* new_upper=- since=-", "* 1 a x;", &r, &err);
		rc = core_snapshot_open(s, (struct core_as_of){.latest = true}, &n, &err);
		ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD || rc == KV_COMPACTED ||
				      rc == KV_SHARD_REPLACED,
			      "snapshot: %s", err.msg);
		rc = core_shard_remove(s, &err);
		ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD || rc == KV_NOT_FINISHED ||
				      rc == KV_SHARD_REPLACED,
			      "remove: %s", err.msg);
		core_shard_close(s);
		if (n != NULL) {
			(void)rows_left(n, &rc, &err);
			ck_assert_msg(rc == KV_OK, "read: %s", err.msg);
		}
		core_snapshot_close(n);
	}
	return NULL;
}

START_TEST(threads_that_make_read_and_remove_one_shard_agree)
{
	enum { THREADS = 4 };
	struct rig rig = rig_new(DISK_SOLE);
	struct churner c[THREADS];
	struct core_shard *s;
	struct kv_err err;

	core_shard_close(rig.shard);
	rig.shard = NULL;
	for (unsigned i = 0; i < THREADS; i++) {
		c[i] = (struct churner){.rig = &rig, .seed = 4 * (unsigned)_i + i};
		pthread_create(&c[i].thread, NULL, churn, &c[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(c[i].thread, NULL);
	if (core_shard_open(rig.engine, rig.id, &s, &err) == KV_OK) {
		struct core_appended r;

		(void)!append(s, "expected_upper=* new_upper=- since=-", "", &r, &err);
		(void)!core_shard_move_hold(s, CORE_DEFAULT_HOLD, core_frontier_empty(), 0, &err);
		ck_ok(core_shard_remove(s, &err), err);
		core_shard_close(s);
	}
	rig_settle(&rig);
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	ck_assert_uint_eq(disk_key_count(rig.disk), 0);
	rig_free(&rig);
}
END_TEST

Suite *life_suite(void)
{
	Suite *s = suite_create("life");
	TCase *t = tcase_create("life");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_removed_shard_leaves_nothing_in_the_store);
	tcase_add_test(t, a_reader_reads_to_its_end_after_the_removal_and_then_all_is_gone);
	tcase_add_test(t, a_shard_made_anew_while_the_old_one_is_read_is_another_one);
	tcase_add_test(t, a_second_life_s_removal_leaves_what_readers_of_the_first_need);
	tcase_add_test(t, a_removal_cut_short_at_any_call_goes_on_at_the_next_start);
	tcase_add_test(t, a_removal_cut_short_at_any_call_is_no_damage_to_those_beside);
	tcase_add_loop_test(t, a_removal_cut_short_at_any_call_goes_on_when_it_is_looked_at, 0, 2);
	tcase_add_loop_test(t, a_creation_is_whole_or_absent_whichever_call_fails, 0, 2);
	tcase_add_test(t, a_shard_can_be_made_once);
	tcase_add_test(t, shards_are_listed_page_by_page_and_names_are_not);
	tcase_add_loop_test(t, threads_that_make_read_and_remove_one_shard_agree, 0, 8);
	tcase_add_test(t, a_removed_shard_is_not_listed_while_it_is_still_read);
	suite_add_tcase(s, t);
	return s;
}
