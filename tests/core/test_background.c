/*
 * test_background.c - maintenance that nobody asks for: it comes, it stays out of the way, and it ends.
 */
#include "tests/core/chores.h"
#include "tests/core/suites.h"

#include <unistd.h>

#include "kv/blob_impl.h"

/* --- a store that is full for large blobs ------------------------------------------------------------- */

struct picky {
	struct kv_blobs base;
	struct kv_blobs *to; /* borrowed */
	_Atomic(size_t) max; /* a set of more fails */
	_Atomic(unsigned) refused;
	_Atomic(unsigned) pause_us; /* before each set above 1 KiB */
	_Atomic(unsigned) sets;
	_Atomic(size_t) gate; /* sets of more wait while it is not 0 */
	_Atomic(unsigned) waiting;
};

static struct picky *picky(struct kv_blobs *b)
{
	return (struct picky *)b;
}

static enum kv_rc picky_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			    size_t *got, struct kv_err *err)
{
	return kv_blob_get(picky(b)->to, key, offset, buf, len, got, err);
}

static enum kv_rc picky_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			    struct kv_err *err)
{
	struct picky *p = picky(b);

	p->sets++;
	if (len > p->max) {
		p->refused++;
		return kv_fail(err, KV_NOSPACE, "the store is full");
	}
	p->waiting++;
	while (p->gate != 0 && len > p->gate)
		usleep(200);
	p->waiting--;
	if (p->pause_us != 0 && len > 1024)
		usleep(p->pause_us);
	return kv_blob_set(p->to, key, data, len, err);
}

static enum kv_rc picky_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			       struct kv_err *err)
{
	return kv_blob_delete(picky(b)->to, key, existed, size, err);
}

static enum kv_rc picky_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			     struct kv_blob_list *out, struct kv_err *err)
{
	return kv_blob_list(picky(b)->to, prefix, after, limit, out, err);
}

static void picky_close(struct kv_blobs *b)
{
	(void)b; /* its owner looks at it afterwards */
}

static const struct kv_blob_ops picky_ops = {
	.name = "picky",
	.get = picky_get,
	.set = picky_set,
	.delete = picky_delete,
	.list = picky_list,
	.close = picky_close,
};

struct shop {
	struct kv_blobs *blobs;
	struct picky picky;
	struct core_engine *engine;
	struct core_shard_id id;
	struct core_shard *shard;
};

/* In place. */
static void shop_open(struct shop *h)
{
	struct core_engine_config config = {.rest_ms = 1};
	struct kv_err err;

	*h = (struct shop){.blobs = kv_blob_mem_new(), .id.u = core_uuid_new()};
	h->picky.base.ops = &picky_ops;
	h->picky.to = h->blobs;
	h->picky.max = SIZE_MAX;
	ck_ok(core_engine_open(kv_store_pair(kv_consensus_mem_new(), &h->picky.base,
					     (struct kv_store_traits){.sole_owner = true}),
			       &config, &h->engine, &err),
	      err);
	ck_ok(core_shard_create(h->engine, h->id, any_owner, &err), err);
	ck_ok(core_shard_open(h->engine, h->id, &h->shard, &err), err);
}

static void shop_close(struct shop *h)
{
	core_shard_close(h->shard);
	core_engine_close(h->engine);
	kv_blobs_close(h->blobs);
}

static uint64_t counter(struct core_engine *e, enum core_counter which)
{
	return e->metrics.counters[which];
}

static struct rig upkeep_rig(enum disk_kind kind)
{
	struct disk *d = disk_new(kind);

	d->upkeep = true;
	return rig_on(d);
}

/* --- by itself ------------------------------------------------------------------------------------- */

START_TEST(merges_come_by_themselves_and_at_rest_little_is_left)
{
	struct rig rig = upkeep_rig((enum disk_kind)_i);
	uint64_t count = 300;

	append_many(rig.shard, 0, count, 5000);
	core_upkeep_settle(rig.engine);
	check_appends(rig.shard, count);
	ck_assert_uint_le(batches_of(rig.shard), 8);
	ck_assert_uint_le(runs_of(rig.shard), 8);
	for (int i = 0; i < 100 && dead_of(rig.shard) != 0;
	     i++) { /* a merge read them while they were collected */
		usleep(100000);
		core_upkeep_settle(rig.engine);
	}
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	reopen_well(&rig);
	check_appends(rig.shard, count);
	rig_free(&rig);
}
END_TEST

START_TEST(what_was_due_is_done_after_a_start_without_anybody_asking)
{
	struct rig rig = rig_new((enum disk_kind)_i);

	append_many(rig.shard, 0, 200, 5000);
	for (int i = 0; i < 5; i++)
		chore(rig.shard, CORE_ROLLUP);
	hold_at(rig.shard, core_frontier_at(150));
	ck_assert_uint_ge(batches_of(rig.shard), 200);
	core_shard_close(rig.shard);
	core_engine_close(rig.engine);
	rig.disk->upkeep = true;
	rig.engine = disk_open(rig.disk); /* nobody opens the shard */
	core_upkeep_settle(rig.engine);
	rig_settle(&rig);
	core_upkeep_settle(rig.engine);
	rig.disk->upkeep = false;
	core_engine_close(rig.engine);
	rig_open(&rig);
	ck_assert_uint_le(batches_of(rig.shard), 8);
	ck_assert_uint_eq(dead_of(rig.shard), 0);
	check_appends(rig.shard, 200);
	rig_free(&rig);
}
END_TEST

/* Due on a crash, done after it. */
START_TEST(what_a_crash_has_left_undone_is_done_after_the_next_start)
{
	for (unsigned nth = 1; nth < 60; nth += 7) {
		struct rig rig = rig_new(DISK_SOLE);

		append_many(rig.shard, 0, 30, 5000);
		kv_faults_arm(rig.disk->faults, nth, KV_FAULT_BEFORE, true);
		struct kv_err err;
		(void)!chore_rc(rig.shard, CORE_COMPACT, &err);
		rig.disk->upkeep = true;
		rig_crash(&rig);
		rig_open(&rig);
		core_upkeep_settle(rig.engine);
		check_appends(rig.shard, 30);
		ck_assert_uint_le(batches_of(rig.shard), 6);
		ck_assert_uint_eq(dead_of(rig.shard), 0);
		rig_settle(&rig);
		core_upkeep_settle(rig.engine);
		check_blobs(rig.disk, rig.shard, true);
		rig_free(&rig);
	}
}
END_TEST

START_TEST(what_is_due_on_a_shared_store_is_done_after_a_start_too)
{
	struct rig rig = rig_new(DISK_SHARED);
	size_t batches = 200;

	append_many(rig.shard, 0, 200, 5000);
	rig.disk->upkeep = true;
	reopen_well(&rig); /* it is open, and read, but not written to */
	check_appends(rig.shard, 200);
	for (int tries = 0; tries < 30 && batches > 8; tries++) {
		core_upkeep_settle(rig.engine);
		usleep(100000);
		batches = batches_of(rig.shard);
	}
	ck_assert_msg(batches <= 8, "%zu batches stay for ever", batches);
	rig_free(&rig);
}
END_TEST

/* --- appends that are too fast --------------------------------------------------------------------- */

struct stalled {
	struct core_shard *shard;
	enum kv_rc rc;
	_Atomic(bool) done;
};

static void *append_stalled(void *arg)
{
	struct stalled *w = arg;
	struct core_appended r;
	struct kv_err err;

	w->rc = append(w->shard, "expected_upper=* new_upper=+1", "* 1 late v;", &r, &err);
	w->done = true;
	return NULL;
}

/* 300 runs, a merge of them that does not get on, and an append that waits for it. */
static pthread_t begin_stall(struct shop *h, struct stalled *w)
{
	pthread_t thread;

	h->picky.gate = 20000;
	put_runs(h->shard, 300);
	*w = (struct stalled){.shard = h->shard};
	pthread_create(&thread, NULL, append_stalled, w);
	while (h->engine->metrics.gauges[CORE_G_STALLED] == 0 && !w->done)
		usleep(500);
	ck_assert_msg(!w->done, "it did not wait");
	return thread;
}

START_TEST(appends_above_256_runs_wait_for_a_merge_and_go_on)
{
	struct stalled w;
	struct shop h;
	pthread_t thread;

	shop_open(&h);
	thread = begin_stall(&h, &w);
	usleep(50000);
	ck_assert(!w.done);
	ck_assert_uint_eq(runs_of(h.shard), 300);
	/* What has no rows does not wait, nor does who reads. */
	ck_assert_str_eq(verdict(h.shard, "expected_upper=* new_upper=+1", ""), "ok 300 301 updates=0");
	h.picky.gate = 0;
	pthread_join(thread, NULL);
	ck_assert_int_eq(w.rc, KV_OK);
	ck_assert_uint_le(runs_of(h.shard), 256);
	core_upkeep_settle(h.engine);
	ck_assert_uint_le(runs_of(h.shard), 8);
	ck_assert_uint_eq(rows_of(h.shard), 301);
	shop_close(&h);
}
END_TEST

START_TEST(a_merge_that_keeps_failing_blocks_no_append_for_ever)
{
	struct shop h;

	shop_open(&h);
	h.picky.max = 100000; /* merges write more */
	put_runs(h.shard, 400);
	for (int i = 0; i < 10; i++)
		put_hollow(h.shard, "", 5000);
	ck_assert_uint_gt(h.picky.refused, 0);
	ck_assert_uint_gt(counter(h.engine, CORE_M_MERGES_FAILED), 0);
	ck_assert_uint_gt(runs_of(h.shard), 256);
	h.picky.max = SIZE_MAX;
	put_hollow(h.shard, "", 5000);
	for (int i = 0; i < 200 && runs_of(h.shard) > 8; i++) { /* it is tried again after a while */
		usleep(100000);
		core_upkeep_settle(h.engine);
	}
	ck_assert_uint_le(runs_of(h.shard), 8);
	ck_assert_uint_eq(rows_of(h.shard), 411);
	shop_close(&h);
}
END_TEST

START_TEST(merges_that_keep_failing_do_not_keep_what_is_dead)
{
	struct core_snapshot *n;
	struct kv_err err;
	struct shop h;

	shop_open(&h);
	put_runs(h.shard, 100);
	ck_ok(core_snapshot_open(h.shard, (struct core_as_of){.time = 99}, &n, &err), err);
	put_runs(h.shard, 100);
	core_upkeep_settle(h.engine);
	ck_assert_uint_ne(dead_of(h.shard), 0);
	h.picky.max = 5000; /* merges write more */
	put_runs(h.shard, 60);
	core_snapshot_close(n);
	for (int i = 0; i < 300 && dead_of(h.shard) != 0; i++)
		usleep(100000);
	ck_assert_uint_gt(counter(h.engine, CORE_M_MERGES_FAILED), 0);
	ck_assert_uint_eq(dead_of(h.shard), 0);
	shop_close(&h);
}
END_TEST

/* The one that ran when the append came fails; the next try may come minutes later. */
START_TEST(an_append_that_waits_for_a_merge_that_then_fails_goes_on)
{
	struct stalled w;
	struct shop h;
	pthread_t thread;

	shop_open(&h);
	thread = begin_stall(&h, &w);
	usleep(100000); /* the other thread of maintenance has looked at the shard */
	h.picky.max = 20000;
	h.picky.gate = 0;
	for (int i = 0; i < 500 && !w.done; i++)
		usleep(10000);
	pthread_join(thread, NULL);
	ck_assert_msg(counter(h.engine, CORE_M_MERGES_FAILED) == 1, "it waited for another try");
	ck_assert_int_eq(w.rc, KV_OK);
	shop_close(&h);
}
END_TEST

START_TEST(an_append_that_waits_for_a_merge_is_told_when_the_shard_is_removed)
{
	struct stalled w;
	struct shop h;
	struct kv_err err;
	pthread_t thread;

	shop_open(&h);
	thread = begin_stall(&h, &w);
	ck_assert_str_eq(verdict(h.shard, "expected_upper=* new_upper=- since=-", ""), "ok 300 - updates=0");
	ck_ok(core_shard_remove(h.shard, &err), err);
	h.picky.gate = 0;
	for (int i = 0; i < 300 && !w.done; i++)
		usleep(10000);
	ck_assert_msg(w.done, "it waits for ever");
	pthread_join(thread, NULL);
	ck_assert_int_eq(w.rc, KV_NO_SHARD);
	shop_close(&h);
}
END_TEST

START_TEST(an_append_to_a_removed_shard_that_had_many_runs_does_not_wait)
{
	struct stalled w;
	struct shop h;
	struct kv_err err;
	pthread_t thread;

	shop_open(&h);
	h.picky.gate = 20000;
	put_runs(h.shard, 300);
	ck_assert_str_eq(verdict(h.shard, "expected_upper=* new_upper=- since=-", ""), "ok 300 - updates=0");
	ck_ok(core_shard_remove(h.shard, &err), err);
	h.picky.gate = 0;
	while (h.engine->metrics.gauges[CORE_G_MERGES_RUNNING] != 0)
		usleep(500);
	w = (struct stalled){.shard = h.shard};
	pthread_create(&thread, NULL, append_stalled, &w);
	for (int i = 0; i < 300 && !w.done; i++)
		usleep(10000);
	ck_assert_msg(w.done, "it waits for ever");
	pthread_join(thread, NULL);
	ck_assert_int_eq(w.rc, KV_NO_SHARD);
	shop_close(&h);
}
END_TEST

START_TEST(an_append_that_waits_for_a_merge_does_not_keep_an_engine_from_its_end)
{
	struct stalled w;
	struct shop h;
	pthread_t thread;

	shop_open(&h);
	thread = begin_stall(&h, &w);
	atomic_store(&h.engine->stops, true); /* what a close begins with */
	h.picky.gate = 0;
	pthread_join(thread, NULL);
	shop_close(&h);
}
END_TEST

/* --- the end ----------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
	return core_ticks_us() / 1000;
}

START_TEST(an_engine_that_closes_in_the_middle_of_a_large_merge_does_so_soon)
{
	struct shop h;
	uint64_t began;
	unsigned sets;

	shop_open(&h);
	/* Merged at once, or (more than 64 runs) in passes first. Each part that is written takes a while. */
	h.picky.gate = 300000;
	put_large_runs(h.shard, _i == 0 ? 60 : 250, _i == 0 ? 400000 : 200000);
	while (h.picky.waiting == 0)
		usleep(500);
	h.picky.pause_us = 100000;
	sets = h.picky.sets;
	began = now_ms();
	core_shard_close(h.shard);
	h.shard = NULL;
	atomic_store(&h.engine->stops, true); /* what a close begins with */
	h.picky.gate = 0;
	core_engine_close(h.engine);
	ck_assert_msg(h.picky.sets - sets <= 4, "%u blobs were written on the way out", h.picky.sets - sets);
	ck_assert_msg(now_ms() - began < 5000, "it took %u ms", (unsigned)(now_ms() - began));
	kv_blobs_close(h.blobs);
}
END_TEST

/* --- beside appends --------------------------------------------------------------------------------- */

START_TEST(a_merge_gives_way_to_appends)
{
	struct shop h;

	shop_open(&h);
	h.picky.gate = 300000;
	put_large_runs(h.shard, 60, 400000);
	while (h.picky.waiting == 0)
		usleep(500);
	ck_assert_uint_eq(counter(h.engine, CORE_M_MERGES), 0);
	do {
		put_hollow(h.shard, "", 10);
		h.picky.gate = 0;
	} while (h.engine->metrics.gauges[CORE_G_MERGES_RUNNING] != 0);
	core_upkeep_settle(h.engine);
	ck_assert_uint_gt(counter(h.engine, CORE_M_MERGE_PAUSES), 0);
	ck_assert_uint_le(runs_of(h.shard), 8);
	shop_close(&h);
}
END_TEST

/* --- removal -------------------------------------------------------------------------------------- */

static void *remove_now(void *arg)
{
	struct core_shard *s = arg;
	struct kv_err err;

	ck_ok(core_shard_remove(s, &err), err);
	return NULL;
}

START_TEST(a_shard_removed_while_it_is_merged_and_collected_leaves_nothing)
{
	for (unsigned wait_us = 0; wait_us < 20000; wait_us += 1000) {
		struct rig rig = rig_new(DISK_SOLE);
		struct core_upkeep_result r;
		struct kv_err err;
		pthread_t thread;

		put_runs(rig.shard, 40);
		for (int i = 0; i < 4; i++)
			put_hollow(rig.shard, "", 400000);
		chore(rig.shard, CORE_ROLLUP);
		ck_assert_str_eq(verdict(rig.shard, "expected_upper=* new_upper=-", ""), "ok 44 - updates=0");
		hold_at(rig.shard, core_frontier_empty());
		struct core_shard *again = core_shard_ref(rig.shard);
		if (wait_us % 2000 == 0) {
			pthread_create(&thread, NULL, remove_now, again);
			usleep(wait_us);
			(void)!core_upkeep_run(rig.shard, CORE_COMPACT, &r, &err);
		} else {
			(void)!core_upkeep_run(rig.shard, _i == 0 ? CORE_COMPACT : CORE_GC, &r, &err);
			pthread_create(&thread, NULL, remove_now, again);
			(void)!core_upkeep_run(rig.shard, CORE_GC, &r, &err);
		}
		pthread_join(thread, NULL);
		core_shard_close(again);
		core_shard_close(rig.shard);
		rig.shard = NULL;
		core_upkeep_settle(rig.engine);
		rig_settle(&rig);
		ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
		ck_assert_uint_eq(disk_key_count(rig.disk), 0);
		rig_free(&rig);
	}
}
END_TEST

Suite *background_suite(void)
{
	Suite *s = suite_create("background");
	TCase *t = tcase_create("background");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, merges_come_by_themselves_and_at_rest_little_is_left, DISK_MEM,
			    DISK_EMBEDDED + 1);
	tcase_add_loop_test(t, what_was_due_is_done_after_a_start_without_anybody_asking, DISK_MEM,
			    DISK_SOLE + 1);
	tcase_add_test(t, what_a_crash_has_left_undone_is_done_after_the_next_start);
	tcase_add_test(t, what_is_due_on_a_shared_store_is_done_after_a_start_too);
	tcase_add_test(t, appends_above_256_runs_wait_for_a_merge_and_go_on);
	tcase_add_test(t, a_merge_that_keeps_failing_blocks_no_append_for_ever);
	tcase_add_test(t, merges_that_keep_failing_do_not_keep_what_is_dead);
	tcase_add_test(t, an_append_that_waits_for_a_merge_that_then_fails_goes_on);
	tcase_add_test(t, an_append_that_waits_for_a_merge_is_told_when_the_shard_is_removed);
	tcase_add_test(t, an_append_to_a_removed_shard_that_had_many_runs_does_not_wait);
	tcase_add_test(t, an_append_that_waits_for_a_merge_does_not_keep_an_engine_from_its_end);
	tcase_add_loop_test(t, an_engine_that_closes_in_the_middle_of_a_large_merge_does_so_soon, 0, 2);
	tcase_add_test(t, a_merge_gives_way_to_appends);
	tcase_add_loop_test(t, a_shard_removed_while_it_is_merged_and_collected_leaves_nothing, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
