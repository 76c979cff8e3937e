/*
 * test_machine.c - commits against stores that fail, that lie about the outcome
 * and that others write to.
 */
#include "tests/core/suites.h"
#include "tests/core/world.h"

static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
				      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

START_TEST(reopening_sees_everything)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_EMBEDDED);
	struct kv_err err;

	append_many(rig.shard, 0, 70, 20);
	append_many(rig.shard, 70, 71, 9000);
	ck_ok(core_shard_move_hold(rig.shard, CORE_DEFAULT_HOLD, core_frontier_at(3), 0, &err), err);
	ck_ok(core_shard_set_owner(rig.shard, (struct core_owner){7, 8, 0700}, &err), err);
	rig_crash_and_reopen(&rig);
	check_appends(rig.shard, 71);
	ck_assert_str_eq(frontiers(rig.shard), "3 71");
	struct core_info info;
	ck_ok(core_shard_info(rig.shard, false, &info, &err), err);
	ck_assert_uint_eq(info.owner.uid, 7);
	ck_assert_uint_eq(info.owner.mode, 0700);
	struct core_appended r;
	ck_ok(append_nth(rig.shard, 5, 20, &r, &err), err);
	ck_assert(!r.committed);
	rig_free(&rig);
}
END_TEST

/* --- outcomes -------------------------------------------------------------------------------------- */

START_TEST(an_unknown_outcome_is_settled_and_done_once)
{
	struct rig rig = rig_new(_i < 2 ? DISK_SOLE : DISK_SHARED);
	struct core_appended r;
	struct kv_err err;

	append_many(rig.shard, 0, 3, 10);
	disk_fail(rig.disk, 1, _i % 2 == 0 ? KV_FAULT_DONE_UNKNOWN : KV_FAULT_LOST_UNKNOWN);
	ck_ok(append_nth(rig.shard, 3, 10, &r, &err), err);
	ck_assert(kv_faults_fired(rig.disk->faults));
	ck_assert(r.committed);
	check_appends(rig.shard, 4);
	rig_crash_and_reopen(&rig);
	check_appends(rig.shard, 4);
	rig_free(&rig);
}
END_TEST

/* The store fails for good: the append landed or not, nobody knows. The next ones must be told the truth. */
START_TEST(after_an_outcome_that_stays_unknown_nothing_is_answered_from_memory)
{
	for (int done = 0; done < 2; done++) {
		for (int retry = 0; retry < 2; retry++) {
			struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
			struct core_appended r;
			struct kv_err err;

			append_many(rig.shard, 0, 3, 10);
			kv_faults_arm(rig.disk->faults, 1,
				      done ? KV_FAULT_DONE_UNKNOWN : KV_FAULT_LOST_UNKNOWN, true);
			ck_assert_int_eq(append_nth(rig.shard, 3, 10, &r, &err), KV_UNKNOWN);
			disk_heal(rig.disk);
			if (retry) {
				ck_ok(append_nth(rig.shard, 3, 10, &r, &err), err);
				ck_assert(r.committed == !done);
			} else {
				check_appends(rig.shard, done ? 4 : 3);
			}
			append_many(rig.shard, upper_of(rig.shard), 6, 10);
			check_appends(rig.shard, 6);
			rig_free(&rig);
		}
	}
}
END_TEST

/* --- the n-th call fails --------------------------------------------------------------------------- */

struct act {
	const char *name;
	uint64_t before; /* appends that are there */
	uint64_t after;  /* and those that are tried */
	size_t len;      /* of each row */
	unsigned step;
	bool reopen; /* so that the state must be loaded first */
};

static const struct act acts[] = {
	{"small", 3, 5, 10, 1, false},         {"small after loading", 3, 5, 10, 1, true},
	{"hollow", 2, 4, 9000, 1, false},      {"many parts", 1, 2, 34 << 20, 1, false},
	{"inline fold", 62, 67, 10, 1, false}, {"hollow fold", 62, 67, 500, 1, false},
	{"rollup", 125, 131, 10, 1, false},    {"two hundred", 0, 200, 10, 17, false},
};

static void rows_of_34_mib(struct core_shard *s, enum kv_rc *rc, struct kv_err *err)
{
	struct core_append ask = parse_ask("expected_upper=1 new_upper=2 token=1");
	uint8_t *val = calloc(1, 1 << 20);
	struct core_appended r;
	struct core_txn *t;
	char key[30];

	*rc = core_txn_begin(s, &ask, &t, err);
	for (unsigned i = 0; i < 34 && *rc == KV_OK; i++) {
		struct core_row row = {.update = {.val = {val, 1 << 20}, .time = 1, .diff = 1}};

		snprintf(key, sizeof(key), "k%06u", i + 1);
		row.update.key = bytes_of(key);
		*rc = core_txn_add(t, &row, err);
	}
	if (*rc == KV_OK)
		*rc = core_txn_commit(t, &r, err);
	core_txn_free(t);
	free(val);
}

static enum kv_rc try_nth(struct core_shard *s, const struct act *act, uint64_t i, struct kv_err *err)
{
	struct core_appended r;
	enum kv_rc rc;

	if (act->len > 1 << 20 && i > 0) {
		rows_of_34_mib(s, &rc, err);
		return rc;
	}
	return append_nth(s, i, act->len > 1 << 20 ? 10 : act->len, &r, err);
}

static void check_act(struct core_shard *s, const struct act *act, uint64_t done)
{
	char *got;

	if (act->len <= 1 << 20) {
		check_appends(s, done);
		return;
	}
	ck_assert_uint_eq(upper_of(s), done);
	got = content_latest(s);
	size_t rows = 0;
	for (const char *p = got; *p != '\0'; p++)
		rows += *p == ';';
	ck_assert_uint_eq(rows, done == 1 ? 1 : 35);
	free(got);
}

static bool fail_one(const struct act *act, enum kv_fault kind, unsigned nth)
{
	struct rig rig = rig_new(nth % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	uint64_t done = act->before;
	enum kv_rc rc = KV_OK;
	struct kv_err err;
	bool fired;

	append_many(rig.shard, 0, act->before, act->len > 1 << 20 ? 10 : act->len);
	rig_settle(&rig);
	if (act->reopen)
		rig_crash_and_reopen(&rig);
	disk_fail(rig.disk, nth, kind);
	while (done < act->after && rc == KV_OK) {
		rc = try_nth(rig.shard, act, done, &err);
		done += rc == KV_OK;
	}
	rig_settle(&rig);
	fired = kv_faults_fired(rig.disk->faults);
	disk_heal(rig.disk);
	ck_assert_msg(rc == KV_OK || fired, "%s: %s", act->name, err.msg);
	ck_assert_msg(kind != KV_FAULT_BEFORE || rc == KV_OK || rc == KV_UNREACHABLE, "%s: %s", act->name,
		      err.msg);

	/* The one that failed is tried again under its token, by the same engine or after a crash. */
	if (nth / 2 % 2 == 0)
		rig_crash_and_reopen(&rig);
	uint64_t upper = upper_of(rig.shard);
	ck_assert_msg(upper == done || (upper == done + 1 && rc == KV_UNKNOWN),
		      "%s, call %u, %s: upper %llu, done %llu", act->name, nth, rc == KV_OK ? "ok" : err.msg,
		      (unsigned long long)upper, (unsigned long long)done);
	check_act(rig.shard, act, upper);
	for (; done < act->after; done++)
		ck_ok(try_nth(rig.shard, act, done, &err), err);
	rig_crash_and_reopen(&rig);
	check_act(rig.shard, act, act->after);
	rig_free(&rig);
	return fired;
}

START_TEST(whichever_call_fails_each_append_is_whole_or_absent)
{
	const struct act *act = &acts[_i];

	for (unsigned kind = 0; kind < KINDS; kind++) {
		unsigned nth = 1;

		while (fail_one(act, kinds[kind], nth))
			nth += act->step;
	}
}
END_TEST

static bool fail_change(unsigned what, enum kv_fault kind, unsigned nth)
{
	struct rig rig = rig_new(nth % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_owner owner = {5, 6, 0711};
	struct core_info info;
	struct kv_err err;
	bool fired;
	enum kv_rc rc;

	append_many(rig.shard, 0, 3, 10);
	disk_fail(rig.disk, nth, kind);
	rc = what == 0 ? core_shard_move_hold(rig.shard, CORE_DEFAULT_HOLD, core_frontier_at(2), 0, &err)
		       : core_shard_set_owner(rig.shard, owner, &err);
	fired = kv_faults_fired(rig.disk->faults);
	disk_heal(rig.disk);
	rig_crash_and_reopen(&rig);
	ck_ok(core_shard_info(rig.shard, true, &info, &err), err);
	bool there = what == 0 ? info.since.t == 2 : info.owner.uid == 5;
	ck_assert(rc == KV_UNKNOWN || there == (rc == KV_OK));
	rig_free(&rig);
	return fired;
}

START_TEST(whichever_call_fails_holds_and_owners_are_as_answered)
{
	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned nth = 1; fail_change((unsigned)_i, kinds[kind], nth); nth++)
			;
}
END_TEST

/* What was shipped for an append that surely did not happen must not stay. */
START_TEST(a_commit_that_surely_failed_leaves_no_blob)
{
	static const enum kv_fault sure[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE};
	struct rig rig = rig_new(DISK_SOLE);
	struct core_appended r;
	struct kv_err err;
	size_t blobs;

	append_many(rig.shard, 0, 1, 9000);
	blobs = disk_blob_count(rig.disk);
	for (unsigned nth = 1; nth <= 2; nth++) { /* the part, then the version */
		disk_fail(rig.disk, nth, sure[_i]);
		ck_assert_int_ne(append_nth(rig.shard, 1, 9000, &r, &err), KV_OK);
		disk_heal(rig.disk);
		ck_assert_msg(disk_blob_count(rig.disk) == blobs, "call %u leaves %zu blobs", nth,
			      disk_blob_count(rig.disk) - blobs);
	}
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=7 new_upper=8", "7 1 a x;"),
			 "UpperMismatch expected_upper=7 current_upper=1");
	ck_assert_uint_eq(disk_blob_count(rig.disk), blobs);
	rig_free(&rig);
}
END_TEST

/* --- several engines ------------------------------------------------------------------------------- */

struct pair {
	struct rig a;
	struct core_engine *engine;
	struct core_shard *b;
};

static struct pair pair_new(void)
{
	struct pair p = {.a = rig_new(DISK_SHARED)};
	struct kv_err err;

	p.engine = disk_open(p.a.disk);
	ck_ok(core_shard_open(p.engine, p.a.id, &p.b, &err), err);
	return p;
}

static void pair_free(struct pair *p)
{
	disk_heal(p->a.disk);
	core_shard_close(p->b);
	core_engine_close(p->engine);
	rig_free(&p->a);
}

START_TEST(a_stale_cache_refuses_nothing)
{
	struct pair p = pair_new();

	ck_assert_str_eq(verdict(p.a.shard, "expected_upper=0 new_upper=3 token=1", "1 1 a x;"),
			 "ok 0 3 updates=1");
	ck_assert_str_eq(verdict(p.b, "expected_upper=3 new_upper=4", "3 1 b x;"), "ok 3 4 updates=1");
	ck_assert_str_eq(verdict(p.a.shard, "expected_upper=3 new_upper=5", ""),
			 "UpperMismatch expected_upper=3 current_upper=4");
	ck_assert_str_eq(verdict(p.a.shard, "expected_upper=4 new_upper=6 since=2", ""), "ok 4 6 updates=0");
	ck_assert_str_eq(verdict(p.b, "lower=6 upper=7", "6 1 c x;"), "ok 6 7 updates=1");
	ck_assert_str_eq(verdict(p.b, "expected_upper=0 new_upper=3 token=1", "1 1 a x;"),
			 "same 0 3 updates=1");
	ck_assert_str_eq(frontiers(p.a.shard), "2 7");
	ck_assert_str_eq(frontiers(p.b), "2 7");
	check_content(p.b, 6, "a x 1;b x 1;c x 1;");
	pair_free(&p);
}
END_TEST

START_TEST(what_another_engine_appended_is_seen)
{
	struct pair p = pair_new();

	verdict(p.a.shard, "expected_upper=0 new_upper=3", "1 1 a x;");
	/* The other engine's cache ends at 0. */
	check_content(p.b, 2, "a x 1;");
	pair_free(&p);
}
END_TEST

START_TEST(a_shard_removed_by_another_engine_is_gone)
{
	struct pair p = pair_new();
	struct kv_err err;
	struct core_info info;

	verdict(p.a.shard, "expected_upper=0 new_upper=- since=-", "");
	ck_ok(core_shard_remove(p.a.shard, &err), err);
	if (_i > 0) {
		core_shard_close(p.a.shard);
		p.a.shard = NULL;
		rig_settle(&p.a);
	}
	if (_i > 1)
		ck_ok(core_shard_create(p.a.engine, p.a.id, any_owner, &err), err);
	enum kv_rc want = _i > 1 ? KV_SHARD_REPLACED : KV_NO_SHARD;
	if (_i == 0) { /* still there as a tombstone: finished, and then gone */
		ck_assert_int_eq(core_shard_info(p.b, true, &info, &err), want);
	} else {
		struct core_appended r;
		enum kv_rc rc = append(p.b, "expected_upper=0 new_upper=1", "", &r, &err);

		ck_assert_msg(rc == want, "%s: %s", kv_rc_name(rc), err.msg);
	}
	pair_free(&p);
}
END_TEST

struct racer {
	pthread_t thread;
	struct core_shard *shard;
	unsigned number;
	unsigned count;
};

static void *race(void *arg)
{
	struct racer *racer = arg;
	struct core_appended r;
	struct kv_err err;
	char rows[60];

	for (unsigned i = 0; i < racer->count; i++) {
		snprintf(rows, sizeof(rows), "* 1 t%u r%u;", racer->number, i);
		ck_ok(append(racer->shard, "expected_upper=* new_upper=+1", rows, &r, &err), err);
	}
	return NULL;
}

START_TEST(threads_of_two_engines_lose_and_double_nothing)
{
	enum { THREADS = 4, EACH = 100 };
	struct pair p = pair_new();
	struct racer racers[THREADS];
	char *got;
	unsigned rows = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		racers[i] = (struct racer){
			.shard = _i == 1 && i % 2 == 1 ? p.b : p.a.shard, .number = i, .count = EACH};
		pthread_create(&racers[i].thread, NULL, race, &racers[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(racers[i].thread, NULL);
	ck_assert_uint_eq(upper_of(p.b), THREADS * EACH);
	got = content_latest(p.b);
	for (char *rest = got, *row; (row = strsep(&rest, ";")) != NULL && row[0] != '\0'; rows++)
		ck_assert_msg(strcmp(row + strlen(row) - 2, " 1") == 0, "%s", row);
	ck_assert_uint_eq(rows, THREADS * EACH);
	free(got);
	check_sound(p.a.shard);
	pair_free(&p);
}
END_TEST

/* B's look ahead breaks off in the middle of versions that folded what B counts on. */
START_TEST(a_broken_look_at_others_versions_does_no_harm)
{
	for (unsigned nth = 1; nth < 3; nth++) {
		struct pair p = pair_new();
		struct core_info info;
		struct kv_err err;

		append_many(p.a.shard, 0, 63, 10);
		ck_assert_uint_eq(upper_of(p.b), 63);
		append_many(p.b, 63, 64, 10);
		append_many(p.a.shard, 64, 400, 10);
		rig_settle(&p.a);
		disk_fail(p.a.disk, nth, _i == 0 ? KV_FAULT_BEFORE : KV_FAULT_TORN);
		ck_assert_int_ne(core_shard_info(p.b, true, &info, &err), KV_OK);
		disk_heal(p.a.disk);
		ck_assert_str_eq(verdict(p.b, "expected_upper=* new_upper=+1", "* 1 k000400 x;"),
				 "ok 400 401 updates=1");
		check_appends(p.b, 401);
		check_appends(p.a.shard, 401);
		pair_free(&p);
	}
}
END_TEST

Suite *machine_suite(void)
{
	Suite *s = suite_create("machine");
	TCase *t = tcase_create("machine");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, reopening_sees_everything, 0, 2);
	tcase_add_loop_test(t, an_unknown_outcome_is_settled_and_done_once, 0, 4);
	tcase_add_loop_test(t, after_an_outcome_that_stays_unknown_nothing_is_answered_from_memory, 0, 2);
	tcase_add_loop_test(t, whichever_call_fails_each_append_is_whole_or_absent, 0,
			    sizeof(acts) / sizeof(acts[0]));
	tcase_add_loop_test(t, whichever_call_fails_holds_and_owners_are_as_answered, 0, 2);
	tcase_add_loop_test(t, a_commit_that_surely_failed_leaves_no_blob, 0, 2);
	tcase_add_test(t, a_stale_cache_refuses_nothing);
	tcase_add_loop_test(t, a_shard_removed_by_another_engine_is_gone, 0, 1);
	tcase_add_loop_test(t, a_broken_look_at_others_versions_does_no_harm, 0, 2);
	suite_add_tcase(s, t);
	t = tcase_create("threads");
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, threads_of_two_engines_lose_and_double_nothing, 0, 2);
	tcase_add_test(t, what_another_engine_appended_is_seen);
	tcase_add_loop_test(t, a_shard_removed_by_another_engine_is_gone, 1, 3);
	suite_add_tcase(s, t);
	return s;
}
