/*
 * test_staged_faults.c - staged batches on stores that fail.
 */
#include "tests/core/batches.h"
#include "tests/core/suites.h"

enum { BIG = 300 << 10 }; /* more than a manifest keeps to itself: becomes a blob */

static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
				      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* Those that take rows which were not stored. */
static const enum kv_fault losses[] = {KV_FAULT_BEFORE, KV_FAULT_DONE_UNKNOWN, KV_FAULT_LOST_UNKNOWN,
				       KV_FAULT_TORN};
enum { LOSSES = sizeof(losses) / sizeof(losses[0]) };

static enum kv_rc add_big(struct core_stage *g, const char *key, size_t len, struct kv_err *err)
{
	struct rng rng = rng_new(len);
	uint8_t *val = malloc(len);
	struct core_row row = {
		.update = {.key = bytes_of(key), .val = {val, (uint32_t)len}, .time = 2, .diff = 1}};
	enum kv_rc rc;

	for (size_t i = 0; i < len; i++)
		val[i] = (uint8_t)('a' + rng_next(&rng) % 26);
	rc = core_stage_add(g, &row, err);
	free(val);
	return rc;
}

/* --- losses ------------------------------------------------------------------------------------------ */

static void check_lost(struct core_stage *g)
{
	struct kv_err err;

	ck_assert_int_eq(stage_rows(g, "1 1 a x;", &err), KV_BATCH_LOST);
	ck_assert_int_eq(core_stage_keep(g, "x", 1, &err), KV_BATCH_LOST);
	ck_assert_int_eq(core_stage_bounds(g, core_frontier_at(0), core_frontier_at(9), &err), KV_BATCH_LOST);
	ck_assert_int_eq(core_stage_sync(g, &err), KV_BATCH_LOST);
}

static void check_commit_lost(struct core_shard *s)
{
	struct core_appended r;
	struct kv_err err;

	ck_assert_int_eq(append_staged(s, "expected_upper=0 new_upper=5", "a", "", &r, &err), KV_BATCH_LOST);
	ck_assert(staged_entry(s, "a").lost);
}

static void heal(struct rig *rig, struct core_stage *g)
{
	struct kv_err err;

	ck_ok(core_stage_clear(g, &err), err);
	ck_assert(!staged_entry(rig->shard, "a").lost);
	stage_put(g, "3 1 new x;");
	core_stage_close(g);
	check_staged(rig->shard, "a", "3 1 new x;");
	ck_assert_str_eq(verdict_staged(rig->shard, "expected_upper=0 new_upper=5", "a", ""),
			 "ok 0 5 updates=1");
	check_content(rig->shard, 4, "new x 1;");
	check_blobs(rig->disk, rig->shard, false);
}

/* The part of a sync is refused; what was synced before is stored and does not count any more. */
START_TEST(rows_that_the_store_lost_are_told_until_the_batch_is_begun_anew)
{
	for (unsigned when = 0; when < 4; when++) {
		struct rig rig = rig_new(when % 2 == 0 ? DISK_SOLE : DISK_SHARED);
		struct core_stage *g = stage_new(rig.shard, "a");
		struct kv_err err;

		stage_put(g, "1 1 old x;");
		ck_ok(core_stage_sync(g, &err), err);
		ck_ok(add_big(g, "k", BIG, &err), err);
		disk_fail(rig.disk, 1, losses[_i]);
		ck_assert_int_ne(core_stage_sync(g, &err), KV_OK);
		ck_assert_int_ne(err.rc, KV_UNKNOWN); /* of the batch it is known that it is not whole */
		disk_heal(rig.disk);
		check_lost(g);
		check_commit_lost(rig.shard);
		if (when == 0) {
			heal(&rig, g);
			rig_free(&rig);
			continue;
		}
		core_stage_close(g);
		check_commit_lost(rig.shard);
		if (when > 1)
			rig_crash_and_reopen(&rig);
		check_commit_lost(rig.shard);
		g = stage_at(rig.shard, "a");
		check_lost(g);
		if (when == 2)
			heal(&rig, g);
		else
			core_stage_close(g);
		rig_free(&rig);
	}
}
END_TEST

START_TEST(a_loss_that_cannot_be_noted_is_known_while_the_process_lives)
{
	struct rig rig = rig_new(_i % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct kv_err err;

	stage_put(g, "1 1 old x;");
	ck_ok(core_stage_sync(g, &err), err);
	stage_put(g, "2 1 gone x;");
	kv_faults_arm(rig.disk->faults, 1, KV_FAULT_BEFORE, true);
	core_stage_close(g);
	disk_heal(rig.disk);
	check_commit_lost(rig.shard);
	if (_i < 2) {
		g = stage_at(rig.shard, "a");
		check_lost(g);
		heal(&rig, g);
	} else {
		ck_ok(core_staged_remove(rig.shard, "a", &err), err);
		stage_whole(rig.shard, "a", NULL, "3 1 new x;");
		ck_assert_str_eq(verdict_staged(rig.shard, "expected_upper=0 new_upper=-", "a", ""),
				 "ok 0 - updates=1");
		verdict(rig.shard, "lower=0 upper=0", "");
		ck_ok(core_shard_move_hold(rig.shard, CORE_DEFAULT_HOLD, core_frontier_empty(), 0, &err),
		      err);
		ck_ok(core_shard_remove(rig.shard, &err), err);
		core_shard_close(rig.shard); /* the last one: nothing of it stays */
		rig.shard = NULL;
		rig_settle(&rig);
		ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	}
	rig_free(&rig);
}
END_TEST

START_TEST(a_part_that_is_lost_on_its_way_is_told_by_the_next_calls)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a");
	enum kv_rc rc = KV_OK;
	struct kv_err err;
	size_t blobs = disk_blob_count(rig.disk);

	kv_faults_arm(rig.disk->faults, 1, losses[_i], true);
	for (unsigned i = 0; i < 50 && rc == KV_OK; i++)
		rc = add_big(g, "k", 1 << 20, &err);
	ck_assert_int_ne(rc, KV_OK);
	ck_assert_int_ne(rc, KV_UNKNOWN);
	disk_heal(rig.disk);
	check_lost(g);
	core_stage_close(g);
	check_commit_lost(rig.shard);
	heal(&rig, stage_at(rig.shard, "a"));
	ck_assert(disk_blob_count(rig.disk) <= blobs + 2 || losses[_i] == KV_FAULT_DONE_UNKNOWN);
	rig_free(&rig);
}
END_TEST

/* Rows that a store takes which then says nothing from its nth call on. */
static enum kv_rc sync_in_the_dark(struct rig *rig, struct core_stage *g, const char *rows, unsigned nth,
				   enum kv_fault fault)
{
	struct kv_err err;
	enum kv_rc rc;

	stage_put(g, rows);
	kv_faults_arm(rig->disk->faults, nth, fault, true);
	rc = core_stage_sync(g, &err);
	disk_heal(rig->disk);
	return rc;
}

START_TEST(a_batch_outlasts_two_syncs_of_unknown_outcome)
{
	static const enum kv_fault dark[] = {KV_FAULT_DONE_UNKNOWN, KV_FAULT_LOST_UNKNOWN};
	unsigned twice = 0;

	for (unsigned when = 0; when < 16; when++) {
		struct rig rig = rig_new(_i < 4 ? DISK_SOLE : DISK_SHARED);
		struct core_stage *g = stage_new(rig.shard, "a");
		struct kv_err err;

		stage_put(g, "1 1 old x;");
		ck_ok(core_stage_sync(g, &err), err);
		if (sync_in_the_dark(&rig, g, "2 1 a x;", 1 + when / 4, dark[_i % 2]) == KV_UNKNOWN &&
		    sync_in_the_dark(&rig, g, "3 1 b x;", 1 + when % 4, dark[_i / 2 % 2]) == KV_UNKNOWN) {
			twice++;
			stage_put(g, "4 1 c x;");
			ck_ok(core_stage_sync(g, &err), err);
			core_stage_close(g);
			check_staged(rig.shard, "a", "2 1 a x;3 1 b x;4 1 c x;1 1 old x;");
		} else { /* lost, which is told elsewhere */
			core_stage_close(g);
		}
		rig_free(&rig);
	}
	ck_assert_uint_ne(twice, 0);
}
END_TEST

/* Until the store is full: the rows that were taken. */
static unsigned fill(struct core_stage *g, struct kv_err *err)
{
	char key[8];
	unsigned taken = 0;
	enum kv_rc rc = KV_OK;

	for (; taken < 100; taken += rc == KV_OK) {
		snprintf(key, sizeof key, "k%02u", (taken * 37) % 100);
		rc = add_big(g, key, 1 << 20, err);
		if (rc != KV_OK)
			break;
	}
	ck_assert_int_eq(rc, KV_NOSPACE);
	return taken;
}

START_TEST(a_full_store_takes_nothing_from_a_batch_while_it_is_open)
{
	struct rig rig = rig_new(DISK_SOLE); /* elsewhere a commit reads first, and faults do not tell */
	struct core_stage *g = stage_new(rig.shard, "a");
	struct core_appended r;
	struct kv_err err;
	unsigned taken;
	uint64_t size;

	stage_put(g, "1 1 old x;");
	ck_ok(core_stage_sync(g, &err), err);
	kv_faults_arm(rig.disk->faults, 1, KV_FAULT_NOSPACE, true);
	taken = fill(g, &err);
	ck_assert_uint_gt(taken, 10);
	size = core_stage_size(g);
	ck_assert_uint_gt(size, (uint64_t)taken << 20);
	ck_assert_int_eq(stage_rows(g, "1 1 b x;", &err), KV_NOSPACE);
	ck_assert_int_eq(core_stage_sync(g, &err), KV_NOSPACE);
	ck_assert_int_eq(append_staged(rig.shard, "expected_upper=0 new_upper=5", "a", "", &r, &err),
			 KV_NOSPACE);
	ck_assert_uint_eq(core_stage_size(g), size);
	ck_assert(!staged_entry(rig.shard, "a").lost);
	disk_heal(rig.disk);
	stage_put(g, "1 1 b x;");
	ck_ok(core_stage_sync(g, &err), err);
	ck_assert_uint_eq(staged_entry(rig.shard, "a").rows, taken + 2);
	core_stage_close(g);
	rig_crash_and_reopen(&rig);
	check_blobs(rig.disk, rig.shard, false);
	ck_ok(append_staged(rig.shard, "expected_upper=0 new_upper=5", "a", "", &r, &err), err);
	ck_assert_uint_eq(r.updates, taken + 2);
	rig_free(&rig);
}
END_TEST

START_TEST(what_a_full_store_has_not_taken_at_the_close_is_lost_and_told)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct kv_err err;

	kv_faults_arm(rig.disk->faults, 1, KV_FAULT_NOSPACE, true);
	ck_assert_uint_gt(fill(g, &err), 10);
	core_stage_close(g);
	disk_heal(rig.disk);
	check_commit_lost(rig.shard);
	heal(&rig, stage_at(rig.shard, "a"));
	rig_free(&rig);
}
END_TEST

/* --- whichever call fails ---------------------------------------------------------------------------- */

/* What is done, step by step; `g` writes to "a". */
struct work {
	struct rig rig;
	struct core_stage *g;
};

enum step {
	CREATE,
	WRITE,
	SYNC,
	WRITE_BIG,
	SYNC_BIG,
	OTHER,
	RENAME,
	THIRD,
	EXCHANGE,
	REPLACE,
	MORE,
	FLUSH,
	COMMIT,
	AGAIN,
	REMOVE,
	LAST,
	NO_OP,
	STEPS
};

static enum kv_rc create(struct work *w, const char *name, struct kv_err *err)
{
	struct core_staged entry;

	return core_staged_create(w->rig.shard, name, &entry, err);
}

/* All of one step that can fail. */
static enum kv_rc do_step(struct work *w, enum step step, bool model, struct kv_err *err)
{
	struct core_shard *s = w->rig.shard;
	struct core_appended r;
	struct core_staged entry;
	enum kv_rc rc = KV_OK;

	switch (step) {
	case CREATE:
		rc = core_staged_create(s, "a", &entry, err);
		return rc == KV_OK ? core_stage_open(s, entry.id, &w->g, err) : rc;
	case WRITE:
		return stage_rows(w->g, "1 1 a x;2 1 b x;", err);
	case WRITE_BIG:
		rc = add_big(w->g, "big", BIG, err);
		return rc == KV_OK ? stage_rows(w->g, "3 1 c x;", err) : rc;
	case MORE:
		return stage_rows(w->g, "4 1 d x;", err);
	case SYNC:
	case SYNC_BIG:
		return core_stage_sync(w->g, err);
	case FLUSH: /* the commit does it */
		return model ? core_stage_sync(w->g, err) : KV_OK;
	case OTHER:
		return create(w, "b", err);
	case RENAME:
		return core_staged_rename(s, "b", "c", true, false, err);
	case THIRD:
		return create(w, "d", err);
	case EXCHANGE:
		return core_staged_rename(s, "a", "d", false, true, err);
	case REPLACE:
		return core_staged_rename(s, "c", "a", false, false, err);
	case COMMIT:
		return append_staged(s, "expected_upper=0 new_upper=9", "a d", "5 1 row x;", &r, err);
	case AGAIN:
		return create(w, "e", err);
	case REMOVE:
		return core_staged_remove(s, "e", err);
	case LAST:
		return create(w, "f", err);
	case NO_OP:
	case STEPS:
		return append_staged(s, "lower=0 upper=5", "f", "", &r, err);
	}
	return rc;
}

static int cmp_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Everything a user sees, without the middles of long values. Given. */
static char *seen(struct core_shard *s)
{
	struct core_staged *list;
	char *lines[10], *all = NULL;
	struct kv_err err;
	size_t count, len = 0;
	FILE *out = open_memstream(&all, &len);

	ck_ok(core_staged_list(s, &list, &count, &err), err);
	ck_assert_uint_lt(count, 10);
	for (size_t i = 0; i < count; i++) {
		char *text = staged_text(s, list[i].name);

		ck_assert(asprintf(&lines[i], "%s%s: %zu %.20s\n", list[i].name, list[i].lost ? " lost" : "",
				   strlen(text), text) > 0);
		free(text);
	}
	qsort(lines, count, sizeof(char *), cmp_text);
	for (size_t i = 0; i < count; i++) {
		fputs(lines[i], out);
		free(lines[i]);
	}
	char *rows = content_latest(s);
	fprintf(out, "%s %zu %.20s", frontiers(s), strlen(rows), rows);
	free(rows);
	free(list);
	fclose(out);
	return all;
}

static void crash(struct work *w)
{
	kv_faults_arm(w->rig.disk->faults, 1, KV_FAULT_BEFORE, true);
	core_stage_close(w->g);
	w->g = NULL;
	rig_crash_and_reopen(&w->rig);
}

/* What a crash after so many steps leaves. */
static char *after_steps(unsigned steps)
{
	struct work w = {.rig = rig_new(DISK_SOLE)};
	struct kv_err err;
	char *text;

	for (unsigned i = 0; i < steps; i++)
		ck_ok(do_step(&w, (enum step)i, true, &err), err);
	crash(&w);
	check_blobs(w.rig.disk, w.rig.shard, true);
	text = seen(w.rig.shard);
	rig_free(&w.rig);
	return text;
}

/* Fail the nth call; false: there are not so many. */
static bool fail_step(char *const points[STEPS + 1], enum kv_fault kind, unsigned nth, bool forever)
{
	struct work w = {.rig = rig_new(nth % 2 == 0 ? DISK_SOLE : DISK_SHARED)};
	unsigned step = 0, first;
	enum kv_rc rc = KV_OK;
	struct kv_err err;
	bool fired, crashes = nth / 2 % 2 == 0, found = false;
	char *text;

	kv_faults_arm(w.rig.disk->faults, nth, kind, forever);
	for (; step < STEPS && rc == KV_OK; step++)
		rc = do_step(&w, (enum step)step, false, &err);
	fired = kv_faults_fired(w.rig.disk->faults);
	disk_heal(w.rig.disk);
	ck_assert_msg(rc == KV_OK || fired, "step %u: %s", step - 1, err.msg);
	if (crashes)
		crash(&w);
	else
		core_stage_close(w.g);
	check_blobs(w.rig.disk, w.rig.shard, !fired);
	text = seen(w.rig.shard);
	/* What was acknowledged; more only of the step that failed, and of what the commit has stored first.
	 */
	first = rc == KV_OK ? step : step - 1;
	if (rc != KV_OK && step - 1 == COMMIT)
		first = FLUSH;
	for (unsigned i = first; i <= step; i++)
		found = found || strcmp(text, points[i]) == 0;
	/* Closed without a crash the batch has its last rows too, or says that it lost some. */
	found = found || (!crashes && rc != KV_OK);
	ck_assert_msg(found, "call %u of kind %u in step %u (%s):\n%s\nnot\n%s\nor\n%s", nth, (unsigned)kind,
		      step - 1, rc == KV_OK ? "ok" : err.msg, text, points[first], points[step]);
	free(text);
	rig_free(&w.rig);
	return fired;
}

START_TEST(whichever_call_fails_what_was_acknowledged_is_there_and_all_is_whole)
{
	char *points[STEPS + 1];

	for (unsigned i = 0; i <= STEPS; i++)
		points[i] = after_steps(i);
	for (unsigned nth = 1; fail_step(points, kinds[_i], nth, false); nth++)
		;
	for (unsigned nth = 1; fail_step(points, kinds[_i], nth, true); nth++)
		;
	for (unsigned i = 0; i <= STEPS; i++)
		free(points[i]);
}
END_TEST

START_TEST(a_shard_with_a_loss_that_was_not_noted_can_still_be_deleted)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct kv_err err;

	stage_put(g, "2 1 gone x;");
	kv_faults_arm(rig.disk->faults, 1, KV_FAULT_BEFORE, true);
	core_stage_close(g);
	disk_heal(rig.disk);
	verdict(rig.shard, "expected_upper=0 new_upper=- since=-", "");
	ck_ok(core_shard_remove(rig.shard, &err), err);
	core_shard_close(rig.shard); /* the last one: nothing of it stays */
	rig.shard = NULL;
	rig_settle(&rig);
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	rig_free(&rig);
}
END_TEST

Suite *staged_faults_suite(void)
{
	Suite *s = suite_create("staged_faults");
	TCase *t = tcase_create("staged_faults");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, rows_that_the_store_lost_are_told_until_the_batch_is_begun_anew, 0, LOSSES);
	tcase_add_loop_test(t, a_loss_that_cannot_be_noted_is_known_while_the_process_lives, 0, 4);
	tcase_add_test(t, a_shard_with_a_loss_that_was_not_noted_can_still_be_deleted);
	tcase_add_loop_test(t, a_part_that_is_lost_on_its_way_is_told_by_the_next_calls, 0, LOSSES);
	tcase_add_loop_test(t, a_batch_outlasts_two_syncs_of_unknown_outcome, 0, 8);
	tcase_add_test(t, what_a_full_store_has_not_taken_at_the_close_is_lost_and_told);
	tcase_add_test(t, a_full_store_takes_nothing_from_a_batch_while_it_is_open);
	tcase_add_loop_test(t, whichever_call_fails_what_was_acknowledged_is_there_and_all_is_whole, 0,
			    KINDS);
	suite_add_tcase(s, t);
	return s;
}
