/*
 * test_write.c - the write handle: which upper it tells, how it waits, and how a shard knows who writes.
 */
#include "tests/core/batches.h"
#include "tests/core/suites.h"

static struct core_frontier at(uint64_t t)
{
	return core_frontier_at(t);
}

static void advance(struct core_writer *w, uint64_t from, uint64_t to)
{
	struct core_appended r;
	struct kv_err err;

	ck_ok(core_writer_compare_and_append(w, NULL, 0, at(from), at(to), &r, &err), err);
}

static uint64_t shared_upper(struct core_writer *w)
{
	struct core_frontier f;
	struct kv_err err;

	ck_ok(core_writer_shared_upper(w, &f, &err), err);
	return f.t;
}

static uint64_t recent_upper(struct core_writer *w)
{
	struct core_frontier f;
	struct kv_err err;

	ck_ok(core_writer_fetch_recent_upper(w, &f, &err), err);
	ck_assert(core_frontier_eq(f, core_writer_upper(w)));
	return f.t;
}

/* --- the upper --------------------------------------------------------------------------------------- */

START_TEST(each_upper_is_as_fresh_as_it_says)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	struct core_writer *a = writer_on(rig.shard), *neighbour = writer_on(rig.shard);
	struct core_writer *b = writer_on(other.shard);

	advance(a, 0, 3);
	ck_assert_uint_eq(core_writer_upper(a).t, 3);
	ck_assert_uint_eq(core_writer_upper(neighbour).t, 0);
	ck_assert_uint_eq(shared_upper(neighbour), 3);
	ck_assert_uint_eq(core_writer_upper(neighbour).t, 0);
	ck_assert_uint_eq(shared_upper(b), 0);
	ck_assert_uint_eq(recent_upper(b), 3);
	ck_assert_uint_eq(shared_upper(b), 3);
	advance(b, 3, 5);
	ck_assert_uint_eq(shared_upper(a), 3);
	ck_assert_uint_eq(recent_upper(a), 5);
	ck_assert_uint_eq(core_writer_upper(neighbour).t, 0);
	core_writer_close(a);
	core_writer_close(b);
	core_writer_close(neighbour);
	second_close(&other);
	rig_free(&rig);
}
END_TEST

START_TEST(a_handle_opens_at_the_upper_that_is_known_and_learns_from_its_appends)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_writer *w, *v = writer_on(rig.shard);
	struct core_appended r;
	struct kv_err err;

	advance(v, 0, 3);
	w = writer_on(rig.shard);
	ck_assert_uint_eq(core_writer_upper(w).t, 3);
	advance(v, 3, 7);
	ck_assert_int_eq(core_writer_append(w, NULL, 0, at(9), at(8), &r, &err), KV_BAD_BOUNDS);
	ck_assert_uint_eq(core_writer_upper(w).t, 3);
	ck_assert_int_eq(core_writer_compare_and_append(w, NULL, 0, at(3), at(4), &r, &err),
			 KV_UPPER_MISMATCH);
	ck_assert_uint_eq(core_writer_upper(w).t, 7);
	advance(v, 7, 9);
	ck_ok(core_writer_append(w, NULL, 0, at(0), at(8), &r, &err), err); /* done already */
	ck_assert_uint_eq(core_writer_upper(w).t, 9);
	ck_assert_int_eq(core_writer_append(v, NULL, 0, at(20), at(21), &r, &err), KV_UPPER_MISMATCH);
	ck_ok(core_writer_compare_and_append(v, NULL, 0, at(9), core_frontier_empty(), NULL, &err), err);
	ck_assert(core_writer_upper(v).empty);
	core_writer_close(v);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

struct told {
	struct core_shard *shard;
	_Atomic(uint64_t) upper; /* acknowledged */
	uint64_t last;
};

static void *ask_uppers(void *arg)
{
	struct told *told = arg;
	struct core_writer *w = writer_on(told->shard);
	uint64_t upper = 0;

	while (upper < told->last) {
		uint64_t known = atomic_load(&told->upper);

		upper = recent_upper(w);
		ck_assert_msg(upper >= known, "%llu, but %llu was acknowledged", (unsigned long long)upper,
			      (unsigned long long)known);
	}
	core_writer_close(w);
	return NULL;
}

START_TEST(a_recent_upper_is_never_older_than_what_was_acknowledged)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SHARED : DISK_SOLE);
	struct second other = _i == 0 ? second_open(&rig) : (struct second){.shard = rig.shard};
	struct told told = {.shard = other.shard, .last = 1000};
	struct core_writer *w = writer_on(rig.shard);
	pthread_t thread;

	pthread_create(&thread, NULL, ask_uppers, &told);
	for (uint64_t t = 0; t < told.last; t++) {
		advance(w, t, t + 1);
		atomic_store(&told.upper, t + 1);
	}
	pthread_join(thread, NULL);
	core_writer_close(w);
	if (_i == 0)
		second_close(&other);
	rig_free(&rig);
}
END_TEST

/* --- waiting ----------------------------------------------------------------------------------------- */

static enum kv_rc wait_past(struct core_writer *w, uint64_t t, int timeout_ms)
{
	struct kv_err err;

	return core_writer_wait_for_upper_past(w, at(t), timeout_ms, &err);
}

START_TEST(waiting_ends_when_the_upper_is_past_and_not_at_it)
{
	struct rig rig = rig_new(_i == 0 ? DISK_MEM : DISK_SHARED);
	struct core_writer *w = writer_on(rig.shard);
	struct kv_err err;

	ck_assert_int_eq(wait_past(w, 5, 0), KV_WOULD_BLOCK);
	advance(w, 0, 5);
	ck_assert_int_eq(wait_past(w, 5, 0), KV_WOULD_BLOCK);
	ck_assert_int_eq(wait_past(w, 5, 5), KV_WOULD_BLOCK);
	ck_assert_int_eq(wait_past(w, 4, 0), KV_OK);
	advance(w, 5, 7);
	ck_assert_int_eq(wait_past(w, 5, -1), KV_OK);
	ck_assert_uint_eq(core_writer_upper(w).t, 7);
	ck_assert_int_eq(wait_past(w, 2, -1), KV_OK);
	ck_assert_uint_eq(core_writer_upper(w).t, 7);
	ck_assert_int_eq(core_writer_wait_for_upper_past(w, core_frontier_empty(), -1, &err), KV_BAD_BOUNDS);
	ck_ok(core_writer_compare_and_append(w, NULL, 0, at(7), core_frontier_empty(), NULL, &err), err);
	ck_assert_int_eq(wait_past(w, UINT64_MAX, -1), KV_OK);
	ck_assert(core_writer_upper(w).empty);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

struct sleeping {
	pthread_t thread;
	struct core_writer *w;
	uint64_t time;
	enum kv_rc rc;
};

static void *sleep_past(void *arg)
{
	struct sleeping *s = arg;

	s->rc = wait_past(s->w, s->time, 60000);
	return NULL;
}

START_TEST(sleepers_are_woken_by_appends_here_and_elsewhere)
{
	enum { COUNT = 8 };
	struct rig rig = rig_new(_i == 0 ? DISK_MEM : DISK_SHARED);
	struct second other = _i == 2 ? second_open(&rig) : (struct second){.shard = rig.shard};
	struct core_writer *w = writer_on(other.shard);
	struct sleeping sleeping[COUNT];

	for (unsigned i = 0; i < COUNT; i++) {
		sleeping[i] = (struct sleeping){.w = writer_on(rig.shard), .time = i};
		pthread_create(&sleeping[i].thread, NULL, sleep_past, &sleeping[i]);
	}
	for (unsigned i = 0; i < COUNT; i++)
		advance(w, i, i + 1);
	for (unsigned i = 0; i < COUNT; i++) {
		pthread_join(sleeping[i].thread, NULL);
		ck_assert_int_eq(sleeping[i].rc, KV_OK);
		ck_assert_uint_gt(core_writer_upper(sleeping[i].w).t, i);
		core_writer_close(sleeping[i].w);
	}
	core_writer_close(w);
	if (_i == 2)
		second_close(&other);
	rig_free(&rig);
}
END_TEST

START_TEST(removing_the_shard_ends_a_wait)
{
	struct rig rig = rig_new(_i == 0 ? DISK_MEM : DISK_SHARED);
	struct second other = _i == 2 ? second_open(&rig) : (struct second){.shard = rig.shard};
	struct sleeping s = {.w = writer_on(other.shard), .time = UINT64_MAX};
	struct core_frontier upper;
	struct kv_err err;

	verdict(rig.shard, "expected_upper=0 new_upper=18446744073709551615 since=-", "");
	/* Nothing passes the last time but the empty upper, so the waiter is woken by the end at the latest.
	 */
	pthread_create(&s.thread, NULL, sleep_past, &s);
	verdict(rig.shard, "expected_upper=* new_upper=-", "");
	ck_ok(core_shard_remove(rig.shard, &err), err);
	pthread_join(s.thread, NULL);
	ck_assert_msg(s.rc == KV_OK || s.rc == KV_NO_SHARD, "%s", kv_rc_name(s.rc));
	if (_i == 2) /* until it asks, another process knows the empty upper, which has passed every time */
		ck_assert_int_eq(core_writer_fetch_recent_upper(s.w, &upper, &err), KV_NO_SHARD);
	ck_assert_int_eq(wait_past(s.w, 3, -1), KV_NO_SHARD);
	core_writer_close(s.w);
	if (_i == 2)
		second_close(&other);
	rig_free(&rig);
}
END_TEST

static void count_wake(struct core_waiter *w)
{
	(void)w;
}

START_TEST(thousands_may_wait)
{
	enum { COUNT = 5000 };
	struct rig rig = rig_new(DISK_MEM);
	struct core_waiter *waiters = calloc(COUNT, sizeof(*waiters));
	struct core_writer *w = writer_on(rig.shard);

	for (unsigned i = 0; i < COUNT; i++) {
		waiters[i] = (struct core_waiter){.time = (i * 7919u) % COUNT, .wake = count_wake};
		ck_assert(core_shard_wait(rig.shard, &waiters[i]));
	}
	ck_assert_int_eq(wait_past(w, 1, 1), KV_WOULD_BLOCK);
	advance(w, 0, COUNT / 2);
	ck_assert_int_eq(wait_past(w, 1, 0), KV_OK);
	for (unsigned i = 0; i < COUNT; i++) /* those that still wait are the ones above */
		ck_assert(core_shard_unwait(rig.shard, &waiters[i]) == (waiters[i].time >= COUNT / 2));
	core_engine_drain(rig.engine); /* those that are being woken */
	free(waiters);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

/* --- who writes -------------------------------------------------------------------------------------- */

static struct rig rig_at(uint64_t now_ms, const char *host, const char *purpose)
{
	struct disk *d = disk_new(DISK_SHARED);

	d->now_us = now_ms * 1000;
	d->host = host;
	d->purpose = purpose;
	return rig_on(d);
}

static size_t writers(struct core_shard *s)
{
	struct core_writer_state *list;
	struct kv_err err;
	size_t count;

	ck_ok(core_shard_writers(s, &list, &count, &err), err);
	free(list);
	return count;
}

/* The writer as the shard has it; lease_ms 0: it has not. */
static struct core_writer_state entry(struct core_shard *s, const struct core_writer *w)
{
	struct core_writer_state *list, found = {0};
	struct kv_err err;
	size_t count;

	ck_ok(core_shard_writers(s, &list, &count, &err), err);
	for (size_t i = 0; i < count; i++)
		if (core_uuid_eq(list[i].id, core_writer_id(w)))
			found = list[i];
	free(list);
	return found;
}

START_TEST(a_writer_is_registered_by_its_first_commit_and_no_sooner)
{
	struct rig rig = rig_at(1000, "a host", "a mount");
	struct core_writer *w = writer_on(rig.shard);
	struct core_writer_state *list, e;
	struct core_appended r;
	struct kv_err err;
	size_t count;

	ck_assert_uint_eq(writers(rig.shard), 0);
	ck_assert_int_eq(core_writer_append(w, NULL, 0, at(5), at(4), &r, &err), KV_BAD_BOUNDS);
	ck_assert_int_eq(core_writer_compare_and_append(w, NULL, 0, at(5), at(6), &r, &err),
			 KV_UPPER_MISMATCH);
	ck_ok(core_writer_append(w, NULL, 0, at(0), at(0), &r, &err), err); /* nothing to do */
	ck_assert(!r.committed);
	ck_assert_uint_eq(writers(rig.shard), 0);
	advance(w, 0, 0);
	e = entry(rig.shard, w);
	ck_assert_str_eq(e.host, "a host");
	ck_assert_str_eq(e.purpose, "a test");
	ck_assert_uint_eq(e.lease_ms, 3600000);
	ck_assert_uint_eq(e.last_upper.t, 0);
	advance(w, 0, 4);
	ck_assert_uint_eq(entry(rig.shard, w).last_upper.t, 4);
	ck_assert_uint_eq(writers(rig.shard), 1);
	verdict(rig.shard, "expected_upper=4 new_upper=5", "");
	verdict(rig.shard, "expected_upper=5 new_upper=6", "");
	ck_ok(core_shard_writers(rig.shard, &list, &count, &err), err);
	ck_assert_uint_eq(count, 2); /* the engine's own stands once */
	ck_assert_str_eq(list[1].host, "a host");
	ck_assert_str_eq(list[1].purpose, "a mount");
	ck_assert_uint_eq(list[1].last_upper.t, 6);
	ck_assert_uint_eq(entry(rig.shard, w).last_upper.t, 4);
	free(list);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

START_TEST(texts_are_cut_between_characters)
{
	static const char e_acute[] = "\xc3\xa9", euro[] = "\xe2\x82\xac";
	char host[200] = "", purpose[600] = "";
	struct rig rig;
	struct core_writer *w, *none;
	struct core_writer_state e;
	struct kv_err err;

	for (unsigned i = 0; i < 40; i++) /* "h" and 40 of 2 bytes: 64 end inside the 32nd */
		strcat(strcpy(host + strlen(host), i == 0 ? "h" : ""), e_acute);
	for (unsigned i = 0; i < 100; i++) /* 128 end inside the 43rd of 3 bytes */
		strcat(purpose, euro);
	rig = rig_at(1000, host, NULL);
	ck_ok(core_writer_open(rig.shard, purpose, &w, &err), err);
	ck_ok(core_writer_open(rig.shard, NULL, &none, &err), err);
	advance(w, 0, 1);
	advance(none, 1, 2);
	e = entry(rig.shard, w);
	ck_assert_uint_eq(strlen(e.host), 63);
	ck_assert(strncmp(e.host, host, 63) == 0);
	ck_assert_uint_eq(strlen(e.purpose), 126);
	ck_assert(strncmp(e.purpose, purpose, 126) == 0);
	ck_assert_str_eq(entry(rig.shard, none).purpose, "");
	core_writer_close(w);
	core_writer_close(none);
	rig_free(&rig);
}
END_TEST

START_TEST(every_commit_renews_its_writer_and_nobody_else)
{
	struct rig rig = rig_at(1000000, NULL, NULL);
	struct core_writer *w = writer_on(rig.shard), *v = writer_on(rig.shard);

	advance(w, 0, 1);
	rig.disk->now_us = 2000000000;
	advance(v, 1, 2);
	ck_assert_uint_eq(entry(rig.shard, w).heartbeat_ms, 1000000);
	ck_assert_uint_eq(entry(rig.shard, v).heartbeat_ms, 2000000);
	rig.disk->now_us = 3000000000;
	advance(w, 2, 2); /* a heartbeat */
	ck_assert_uint_eq(entry(rig.shard, w).heartbeat_ms, 3000000);
	ck_assert_uint_eq(entry(rig.shard, v).heartbeat_ms, 2000000);
	rig.disk->now_us = 1500000000; /* a clock that went back */
	advance(v, 2, 3);
	ck_assert_uint_eq(entry(rig.shard, v).heartbeat_ms, 3000000);
	core_writer_close(w);
	core_writer_close(v);
	rig_free(&rig);
}
END_TEST

START_TEST(who_is_silent_for_a_lease_is_dropped_by_the_next_commit_unless_it_is_his)
{
	static const uint64_t hour = 3600000;
	struct rig rig = rig_at(1000000, NULL, NULL);
	struct core_writer *w = writer_on(rig.shard), *v = writer_on(rig.shard);

	advance(w, 0, 1);
	advance(v, 1, 2);
	rig.disk->now_us = (1000000 + hour) * 1000; /* the last moment of the lease */
	advance(v, 2, 3);
	ck_assert_uint_eq(writers(rig.shard), 2);
	rig.disk->now_us = (1000000 + hour + 1) * 1000;
	ck_assert_uint_eq(writers(rig.shard), 2); /* nobody commits: nothing happens */
	advance(w, 3, 4);
	ck_assert_uint_eq(writers(rig.shard), 2); /* his own came in time */
	rig.disk->now_us = (1000000 + 2 * hour + 2) * 1000;
	advance(v, 4, 5);
	ck_assert_uint_eq(writers(rig.shard), 1);
	ck_assert_uint_eq(entry(rig.shard, w).lease_ms, 0);
	advance(w, 5, 6); /* and is registered again */
	ck_assert_uint_eq(writers(rig.shard), 2);
	ck_assert_uint_eq(entry(rig.shard, w).last_upper.t, 6);
	core_writer_close(w);
	core_writer_close(v);
	rig_free(&rig);
}
END_TEST

START_TEST(an_expired_writer_is_struck_and_may_come_again)
{
	struct rig rig = rig_at(1000, NULL, NULL);
	struct core_writer *w = writer_on(rig.shard);
	struct kv_err err;
	uint64_t before;

	ck_ok(core_writer_expire(w, &err), err); /* nobody knows it yet */
	before = rig.shard->state.seqno;
	core_writer_close(writer_on(rig.shard));
	ck_assert_uint_eq(rig.shard->state.seqno, before);
	advance(w, 0, 1);
	ck_ok(core_writer_expire(w, &err), err);
	ck_assert_uint_eq(writers(rig.shard), 0);
	ck_ok(core_writer_expire(w, &err), err);
	advance(w, 1, 2);
	ck_assert_uint_eq(writers(rig.shard), 1);
	core_writer_close(w);
	ck_assert_uint_eq(writers(rig.shard), 0);
	rig_free(&rig);
}
END_TEST

START_TEST(writers_go_with_their_engine_and_a_crash_leaves_them)
{
	struct rig rig = rig_at(1000, "here", "first");
	struct second other;

	verdict(rig.shard, "expected_upper=0 new_upper=1", "");
	ck_assert_uint_eq(writers(rig.shard), 1);
	rig_crash_and_reopen(&rig); /* nothing reaches the disk any more */
	ck_assert_uint_eq(writers(rig.shard), 1);
	verdict(rig.shard, "expected_upper=1 new_upper=2", "");
	ck_assert_uint_eq(writers(rig.shard), 2);
	core_shard_close(rig.shard);
	core_engine_close(rig.engine);
	rig_open(&rig);
	ck_assert_uint_eq(writers(rig.shard), 1); /* the one that crashed */
	other = second_open(&rig);
	verdict(other.shard, "expected_upper=2 new_upper=3", "");
	second_close(&other);
	ck_assert_uint_eq(upper_of(rig.shard), 3);
	ck_assert_uint_eq(writers(rig.shard), 1);
	rig_free(&rig);
}
END_TEST

START_TEST(above_the_limit_the_one_silent_longest_goes)
{
	struct rig rig = rig_at(1000, NULL, NULL);
	struct core_writer *w[CORE_WRITERS_MAX + 1];
	struct core_appended r;
	struct kv_err err;

	for (unsigned i = 0; i <= CORE_WRITERS_MAX; i++)
		w[i] = writer_on(rig.shard);
	for (unsigned i = 0; i < CORE_WRITERS_MAX; i++) {
		rig.disk->now_us += 1000;
		ck_ok(core_writer_compare_and_append(w[i], NULL, 0, at(0), at(0), &r, &err), err);
	}
	rig.disk->now_us += 1000;
	advance(w[0], 0, 0);
	ck_assert_uint_eq(writers(rig.shard), CORE_WRITERS_MAX);
	rig.disk->now_us += 1000;
	advance(w[CORE_WRITERS_MAX], 0, 0);
	ck_assert_uint_eq(writers(rig.shard), CORE_WRITERS_MAX);
	ck_assert_uint_ne(entry(rig.shard, w[CORE_WRITERS_MAX]).lease_ms, 0);
	ck_assert_uint_ne(entry(rig.shard, w[0]).lease_ms, 0);
	ck_assert_uint_eq(entry(rig.shard, w[1]).lease_ms, 0);
	check_sound(rig.shard);
	/* Nothing reaches the disk any more, so that none of them is struck. */
	kv_faults_arm(rig.disk->faults, 1, KV_FAULT_BEFORE, true);
	for (unsigned i = 0; i <= CORE_WRITERS_MAX; i++)
		core_writer_close(w[i]);
	rig_crash(&rig);
	rig_open(&rig);
	ck_assert_uint_eq(writers(rig.shard), CORE_WRITERS_MAX);
	rig_free(&rig);
}
END_TEST

START_TEST(heartbeats_and_empty_appends_are_versions_without_blobs)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_appended r;
	struct core_state state;
	struct kv_err err;
	size_t blobs;

	verdict(rig.shard, "expected_upper=0 new_upper=3", "1 1 one x;2 1 two x;");
	append_many(rig.shard, 3, 4, 9000); /* one that has a blob */
	blobs = disk_blob_count(rig.disk);
	for (uint64_t t = 4; t < 9; t++) {
		uint64_t before = rig.shard->state.seqno;

		ck_ok(core_writer_compare_and_append(w, NULL, 0, at(t), at(t + 1), &r, &err), err);
		ck_assert_uint_eq(r.seqno, before + 1);
		ck_ok(core_writer_append(w, NULL, 0, at(t + 1), at(t + 1), &r, &err), err);
		ck_assert(!r.committed);
		ck_assert_uint_eq(rig.shard->state.seqno, before + 1);
		ck_ok(core_writer_compare_and_append(w, NULL, 0, at(t + 1), at(t + 1), &r, &err), err);
		ck_assert(r.committed && r.seqno == before + 2);
	}
	ck_assert_uint_eq(disk_blob_count(rig.disk), blobs);
	ck_ok(core_shard_state(rig.shard, &state, &err), err);
	ck_assert_uint_eq(state.batch_count, 3); /* neighbouring empty ones are one */
	core_state_fini(&state);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

/* Another host removed the shard, which this one does not know yet. */
START_TEST(nothing_is_committed_on_a_tombstone)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	struct core_writer *w = writer_on(other.shard);
	struct core_appended r;
	struct kv_err err;

	stage_whole(rig.shard, "a", NULL, "1 1 a x;");
	ck_assert_uint_eq(upper_of(other.shard), 0); /* and so it knows the batch */
	advance(w, 0, 0);
	verdict(rig.shard, "expected_upper=0 new_upper=- since=-", "");
	ck_ok(core_shard_remove(rig.shard, &err), err);
	uint64_t tombstone = rig.shard->state.seqno;
	enum kv_rc rc = append_staged(other.shard, "lower=0 upper=2", "a", "", &r, &err);
	ck_assert_msg(rc == KV_NO_SHARD || (rc == KV_OK && !r.committed), "%s: %s", kv_rc_name(rc), err.msg);
	rc = core_writer_append(w, NULL, 0, at(0), at(2), &r, &err);
	ck_assert_msg(rc == KV_NO_SHARD || (rc == KV_OK && !r.committed), "%s: %s", kv_rc_name(rc), err.msg);
	ck_assert_int_ne(core_writer_compare_and_append(w, NULL, 0, at(0), at(2), &r, &err), KV_OK);
	core_writer_close(w);
	second_close(&other);
	ck_assert_uint_eq(rig.shard->state.seqno, tombstone);
	core_shard_close(rig.shard);
	rig.shard = NULL;
	rig_settle(&rig);
	ck_assert_uint_eq(disk_blob_count(rig.disk), 0);
	ck_assert_uint_eq(disk_key_count(rig.disk), 0);
	rig_free(&rig);
}
END_TEST

Suite *write_suite(void)
{
	Suite *s = suite_create("write");
	TCase *t = tcase_create("upper");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, each_upper_is_as_fresh_as_it_says);
	tcase_add_test(t, a_handle_opens_at_the_upper_that_is_known_and_learns_from_its_appends);
	tcase_add_loop_test(t, a_recent_upper_is_never_older_than_what_was_acknowledged, 0, 2);
	tcase_add_loop_test(t, waiting_ends_when_the_upper_is_past_and_not_at_it, 0, 2);
	tcase_add_loop_test(t, sleepers_are_woken_by_appends_here_and_elsewhere, 0, 3);
	tcase_add_loop_test(t, removing_the_shard_ends_a_wait, 0, 3);
	tcase_add_test(t, thousands_may_wait);
	suite_add_tcase(s, t);
	t = tcase_create("writers");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_writer_is_registered_by_its_first_commit_and_no_sooner);
	tcase_add_test(t, texts_are_cut_between_characters);
	tcase_add_test(t, every_commit_renews_its_writer_and_nobody_else);
	tcase_add_test(t, who_is_silent_for_a_lease_is_dropped_by_the_next_commit_unless_it_is_his);
	tcase_add_test(t, an_expired_writer_is_struck_and_may_come_again);
	tcase_add_test(t, writers_go_with_their_engine_and_a_crash_leaves_them);
	tcase_add_test(t, above_the_limit_the_one_silent_longest_goes);
	tcase_add_test(t, heartbeats_and_empty_appends_are_versions_without_blobs);
	tcase_add_test(t, nothing_is_committed_on_a_tombstone);
	suite_add_tcase(s, t);
	return s;
}
