/*
 * test_upkeep_stress.c - threads that append, read, listen, compact, collect, remove and make anew, all at
 * once, while maintenance comes by itself. For ThreadSanitizer as well.
 *
 * The writer appends time i with the row "n v 1" and, of every time before but the last ten, nothing is taken
 * back: so as of t there are t + 1 of it, whatever was merged.
 */
#include <unistd.h>

#include "tests/core/chores.h"
#include "tests/core/suites.h"

struct stress {
	struct rig *rig;
	_Atomic(bool) stop;
	_Atomic(uint64_t) upper;
	_Atomic(unsigned) reads, heard, chores, places;
};

static void *keep_appending(void *arg)
{
	struct stress *o = arg;
	struct core_appended r;
	struct kv_err err;
	char options[100], *large = large_row("*", "large", 5000), *rows = malloc(2 * strlen(large) + 100);

	for (uint64_t i = 0; !o->stop; i++) {
		snprintf(options, sizeof options, "expected_upper=* new_upper=+1 since=%llu",
			 (unsigned long long)(i > 10 ? i - 10 : 0));
		sprintf(rows, "* 1 n v;%s", i % 3 == 0 ? large : "");
		if (i % 3 == 1)
			sprintf(rows + strlen(rows), "* -1 %s", large + 4);
		ck_ok(append(o->rig->shard, options, rows, &r, &err), err);
		o->upper = r.upper.t;
	}
	free(large);
	free(rows);
	return NULL;
}

static void *keep_reading(void *arg)
{
	struct stress *o = arg;

	while (!o->stop) {
		uint64_t t = o->upper;
		struct core_snapshot *n;
		struct core_update u;
		struct kv_err err;
		bool end = false, seen = false;
		enum kv_rc rc;

		if (t-- == 0)
			continue;
		rc = core_snapshot_open(o->rig->shard, (struct core_as_of){.time = t}, &n, &err);
		if (rc == KV_COMPACTED)
			continue;
		ck_ok(rc, err);
		if (t % 7 == 0)
			usleep(2000);
		do {
			ck_ok(core_snapshot_next(n, &u, &end, &err), err);
			if (!end && u.key.len == 1) {
				ck_assert_int_eq(u.diff, (int64_t)t + 1);
				seen = true;
			}
		} while (!end);
		ck_assert(seen);
		core_snapshot_close(n);
		o->reads++;
	}
	return NULL;
}

static void *keep_listening(void *arg)
{
	struct stress *o = arg;
	uint64_t from = since_now(o->rig->shard).t + 1, rows = 0;
	struct core_place *place = NULL;
	struct core_listen *l;
	struct core_step step;
	struct core_update u;
	struct kv_err err;
	bool end, done;
	enum kv_rc rc;

	while ((rc = core_listen_open(o->rig->shard, core_frontier_at(from), &who, &l, &err)) == KV_COMPACTED)
		from = since_now(o->rig->shard).t + 4;
	ck_ok(rc, err);
	while (!o->stop) {
		rc = core_listen_step(l, &step, &end, &err);
		if (rc == KV_WOULD_BLOCK) {
			usleep(200);
			continue;
		}
		ck_ok(rc, err);
		for (done = false; !done;) {
			ck_ok(core_listen_next(l, &u, &done, &err), err);
			rows += !done && u.key.len == 1;
		}
		ck_assert_uint_eq(rows, step.upper.t - from);
		if (place != NULL && o->heard % 5 == 0) {
			core_listen_go(l, place);
			for (done = false; !done;)
				ck_ok(core_listen_next(l, &u, &done, &err), err);
			core_place_free(place);
			place = NULL;
			o->places++;
		} else if (place == NULL && o->heard % 3 == 0) {
			place = core_listen_place(l);
		}
		o->heard++;
	}
	core_place_free(place);
	core_listen_close(l);
	return NULL;
}

static void *keep_cleaning(void *arg)
{
	struct stress *o = arg;
	struct rng rng = rng_new(3);
	struct kv_err err;

	while (!o->stop) {
		ck_ok(chore_rc(o->rig->shard, (enum core_upkeep_kind)rng_below(&rng, 3), &err), err);
		o->chores++;
		usleep(500);
	}
	return NULL;
}

START_TEST(threads_that_append_read_listen_and_clean_agree)
{
	struct disk *d = disk_new(_i == 0 ? DISK_SOLE : DISK_EMBEDDED);
	void *(*const work[])(void *) = {keep_appending, keep_reading, keep_reading, keep_listening,
					 keep_cleaning};
	pthread_t threads[5];
	struct stress o = {0};
	struct rig rig;

	d->upkeep = true;
	rig = rig_on(d);
	o.rig = &rig;
	for (int i = 0; i < 5; i++)
		pthread_create(&threads[i], NULL, work[i], &o);
	sleep(2);
	o.stop = true;
	for (int i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	ck_assert(o.reads > 0 && o.heard > 0 && o.chores > 0);
	hold_at(rig.shard, core_frontier_at(o.upper - 1));
	d->upkeep = false;
	reopen_well(&rig);
	chore(rig.shard, CORE_COMPACT);
	chore(rig.shard, CORE_GC);
	ck_assert_uint_le(rows_of(rig.shard), 2);
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	if (_i == 0)
		check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

/* --- shards that come and go ---------------------------------------------------------------------------- */

struct churner {
	pthread_t thread;
	struct rig *rig;
	unsigned seed;
};

static void *churn(void *arg)
{
	struct churner *c = arg;
	struct rng rng = rng_new(c->seed);
	uint64_t began = core_ticks_us();
	char *large = large_row("*", "large", 5000);

	while (core_ticks_us() - began < 1500000) {
		struct core_shard *s = NULL;
		struct core_snapshot *n = NULL;
		struct core_appended r;
		struct kv_err err;
		enum kv_rc rc = core_shard_open(c->rig->engine, c->rig->id, &s, &err);

		if (rc == KV_NO_SHARD) {
			rc = core_shard_create(c->rig->engine, c->rig->id, any_owner, &err);
			ck_assert_msg(rc == KV_OK || rc == KV_SHARD_EXISTS, "create: %s", err.msg);
			continue;
		}
		ck_ok(rc, err);
		for (uint64_t i = rng_below(&rng, 12); i > 0; i--)
			(void)!append(s, "expected_upper=* new_upper=+1", large, &r, &err);
		if (core_snapshot_open(s, (struct core_as_of){.latest = true}, &n, &err) != KV_OK)
			n = NULL;
		rc = chore_rc(s, (enum core_upkeep_kind)rng_below(&rng, 3), &err);
		ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD || rc == KV_SHARD_REPLACED, "chore: %s",
			      err.msg);
		if (rng_below(&rng, 3) == 0) {
			(void)!append(s, "expected_upper=* new_upper=- since=-", "", &r, &err);
			rc = core_shard_remove(s, &err);
			ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD || rc == KV_NOT_FINISHED ||
					      rc == KV_SHARD_REPLACED,
				      "remove: %s", err.msg);
		}
		core_shard_close(s);
		if (n != NULL) {
			char *text = snapshot_text(n);
			ck_assert_msg(strstr(text, ": ") == NULL, "read: %s", text);
			free(text);
		}
		core_snapshot_close(n);
	}
	free(large);
	return NULL;
}

START_TEST(shards_that_come_and_go_while_they_are_merged_leave_nothing)
{
	enum { THREADS = 4 };
	struct disk *d = disk_new(DISK_SOLE);
	struct churner c[THREADS];
	struct core_shard *s;
	struct kv_err err;
	struct rig rig;

	d->upkeep = true;
	rig = rig_on(d);
	core_shard_close(rig.shard);
	rig.shard = NULL;
	for (unsigned i = 0; i < THREADS; i++) {
		c[i] = (struct churner){.rig = &rig, .seed = i};
		pthread_create(&c[i].thread, NULL, churn, &c[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(c[i].thread, NULL);
	if (core_shard_open(rig.engine, rig.id, &s, &err) == KV_OK) {
		struct core_appended r;

		(void)!append(s, "expected_upper=* new_upper=- since=-", "", &r, &err);
		hold_at(s, core_frontier_empty());
		ck_ok(core_shard_remove(s, &err), err);
		core_shard_close(s);
	}
	core_upkeep_settle(rig.engine);
	rig_settle(&rig);
	core_upkeep_settle(rig.engine);
	rig_settle(&rig);
	for (int i = 0; i < 50 && disk_key_count(rig.disk) != 0; i++) {
		usleep(100000);
		core_upkeep_settle(rig.engine);
		rig_settle(&rig);
	}
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	ck_assert_uint_eq(disk_key_count(rig.disk), 0);
	rig_free(&rig);
}
END_TEST

Suite *upkeep_stress_suite(void)
{
	Suite *s = suite_create("upkeep_stress");
	TCase *t = tcase_create("upkeep_stress");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, threads_that_append_read_listen_and_clean_agree, 0, 2);
	tcase_add_test(t, shards_that_come_and_go_while_they_are_merged_leave_nothing);
	suite_add_tcase(s, t);
	return s;
}
