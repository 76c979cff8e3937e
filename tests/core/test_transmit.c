/*
 * test_transmit.c - batches sent as bytes: to another handle, another engine, or
 * broken on the way.
 */
#include "core/state_codec.h"
#include "tests/core/batches.h"
#include "tests/core/suites.h"

static struct core_buf transmit(struct core_built *b)
{
	struct core_buf bytes;
	struct kv_err err;

	ck_ok(core_built_transmit(b, &bytes, &err), err);
	core_built_free(b);
	return bytes;
}

static struct core_buf send_rows(struct core_writer *w, const char *lower, const char *upper,
				 const char *rows)
{
	return transmit(build(w, lower, upper, rows));
}

static enum kv_rc receive(struct core_writer *w, struct core_buf bytes, struct core_built **out)
{
	struct kv_err err;
	enum kv_rc rc = core_writer_receive(w, bytes.data, bytes.len, out, &err);

	ck_assert((*out != NULL) == (rc == KV_OK));
	return rc;
}

static struct core_built *received(struct core_writer *w, struct core_buf bytes)
{
	struct core_built *b;

	ck_assert_int_eq(receive(w, bytes, &b), KV_OK);
	return b;
}

START_TEST(a_batch_is_sent_as_bytes_and_appended_once_elsewhere)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = _i == 0 ? (struct second){.shard = rig.shard} : second_open(&rig);
	struct core_writer *from = writer_on(rig.shard), *to = writer_on(other.shard);
	struct core_buf bytes = send_rows(from, "0", "4", "1 1 1 one;2 1 2 two;3 1 3 three;");
	struct core_built *a = received(to, bytes), *b = received(to, bytes), *twice[2] = {a, b}, *none;

	ck_assert_uint_eq(core_built_rows(a), 3);
	ck_assert_uint_eq(core_built_lower(a).t, 0);
	ck_assert_uint_eq(core_built_upper(a).t, 4);
	ck_assert_str_eq(commit_built(to, "expected_upper=0 new_upper=4", twice, 2), "BadSyntax");
	ck_assert_str_eq(commit_one(to, "expected_upper=9 new_upper=10", a),
			 "InvalidBatchBounds lower=9 upper=10 batch_lower=0 batch_upper=4");
	ck_assert_str_eq(commit_one(to, "expected_upper=1 new_upper=4", a),
			 "UpperMismatch expected_upper=1 current_upper=0");
	ck_assert_str_eq(commit_one(to, "expected_upper=0 new_upper=4", a), "ok 0 4 updates=3");
	ck_assert_int_eq(strncmp(commit_one(to, "expected_upper=4 new_upper=4", b), "UnknownBatch", 12), 0);
	ck_assert_int_eq(receive(from, bytes, &none), KV_NO_BATCH);
	ck_assert_int_eq(receive(to, bytes, &none), KV_NO_BATCH);
	core_built_free(a);
	core_built_free(b);
	check_content(other.shard, 3, "1 one 1;2 two 1;3 three 1;");
	ck_assert_uint_eq(staged_count(other.shard), 0);
	check_blobs(rig.disk, other.shard, true);
	core_buf_fini(&bytes);
	core_writer_close(from);
	core_writer_close(to);
	if (_i != 0)
		second_close(&other);
	rig_free(&rig);
}
END_TEST

START_TEST(what_was_sent_survives_a_crash_and_a_receiver_who_drops_it)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_buf bytes = send_rows(w, "0", "4", "1 1 a x;"), empty = send_rows(w, "0", "4", "");
	struct core_built *b;

	core_writer_close(w);
	rig_crash_and_reopen(&rig);
	w = writer_on(rig.shard);
	core_built_free(received(w, bytes));
	check_blobs(rig.disk, rig.shard, true);
	ck_assert_uint_eq(staged_count(rig.shard), 2);
	b = received(w, bytes);
	ck_assert_str_eq(commit_one(w, "lower=0 upper=4", b), "ok 0 4 updates=1");
	core_built_free(b);
	b = received(w, empty);
	ck_assert_str_eq(commit_one(w, "lower=0 upper=4", b), "same 4 4 updates=0");
	core_built_free(b);
	check_content(rig.shard, 3, "a x 1;");
	ck_assert_uint_eq(staged_count(rig.shard), 0);
	check_blobs(rig.disk, rig.shard, true);
	core_buf_fini(&bytes);
	core_buf_fini(&empty);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

START_TEST(a_sent_batch_that_is_there_already_is_gone_with_its_blobs)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_buf bytes = send_rows(w, "0", "4", "1 1 a x;");
	struct core_built *b = received(w, bytes);

	verdict(rig.shard, "expected_upper=0 new_upper=9", "");
	ck_assert_str_eq(commit_one(w, "lower=0 upper=4", b), "same 9 9 updates=0");
	core_built_free(b);
	ck_assert_int_eq(receive(w, bytes, &b), KV_NO_BATCH);
	check_blobs(rig.disk, rig.shard, true);
	core_buf_fini(&bytes);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

START_TEST(a_rewrite_travels_with_the_batch)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	struct core_writer *from = writer_on(rig.shard), *to = writer_on(other.shard);
	struct core_built *b = build(from, "0", "5", "1 1 a x;4 1 b x;");
	struct core_staged *list;
	struct core_buf bytes;
	struct kv_err err;
	size_t count;

	ck_ok(core_built_rewrite_ts(b, 3, core_frontier_at(20), &err), err);
	bytes = transmit(b);
	ck_ok(core_staged_list(rig.shard, &list, &count, &err), err);
	ck_assert_uint_eq(count, 1);
	check_staged(rig.shard, list[0].name, "bounds 0 20;3 1 a x;4 1 b x;");
	free(list);
	b = received(to, bytes);
	ck_assert_str_eq(commit_one(to, "expected_upper=0 new_upper=19", b),
			 "InvalidRewrite lower=0 upper=19 batch_lower=0 batch_upper=20");
	ck_assert_str_eq(commit_one(to, "expected_upper=0 new_upper=20", b), "ok 0 20 updates=2");
	core_built_free(b);
	check_content(other.shard, 2, "");
	check_content(other.shard, 3, "a x 1;");
	check_content(other.shard, 4, "a x 1;b x 1;");
	core_buf_fini(&bytes);
	core_writer_close(from);
	core_writer_close(to);
	second_close(&other);
	rig_free(&rig);
}
END_TEST

/* It is a staged batch like any: somebody finds it by its name and writes on. */
START_TEST(a_sent_batch_that_is_written_to_keeps_the_times_it_was_lifted_to)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_built *b = build(w, "0", "15", "1 1 a x;14 1 b x;");
	struct core_staged *list;
	struct core_stage *g;
	struct core_buf bytes;
	struct kv_err err;
	size_t count;

	ck_ok(core_built_rewrite_ts(b, 9, core_frontier_at(20), &err), err);
	bytes = transmit(b);
	ck_ok(core_staged_list(rig.shard, &list, &count, &err), err);
	g = stage_at(rig.shard, list[0].name);
	ck_assert_uint_eq(core_stage_size(g), list[0].size);
	stage_put(g, "3 1 c x;");
	check_staged(rig.shard, list[0].name, "bounds 0 20;9 1 a x;14 1 b x;3 1 c x;");
	core_stage_close(g);
	check_staged(rig.shard, list[0].name, "bounds 0 20;9 1 a x;14 1 b x;3 1 c x;");
	free(list);
	core_buf_fini(&bytes);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

START_TEST(a_batch_of_another_shard_is_refused)
{
	struct rig rig = rig_new(DISK_SOLE), rig2 = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard), *other = writer_on(rig2.shard);
	struct core_buf bytes = send_rows(w, "0", "4", "1 1 a x;");
	struct core_built *b;

	ck_assert_int_eq(receive(other, bytes, &b), KV_OTHER_SHARD);
	core_buf_fini(&bytes);
	core_writer_close(w);
	core_writer_close(other);
	rig_free(&rig);
	rig_free(&rig2);
}
END_TEST

/* The bytes in a block of their own, so that reading behind them is found. */
static enum kv_rc receive_copy(struct core_writer *w, const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len + (len == 0));
	struct core_built *b;
	enum kv_rc rc;

	if (len != 0)
		memcpy(copy, data, len);
	rc = receive(w, (struct core_buf){.data = copy, .len = len}, &b);
	core_built_free(b);
	free(copy);
	return rc;
}

START_TEST(broken_bytes_are_refused_whatever_is_wrong_with_them)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_buf bytes = send_rows(w, "0", "4", "1 1 a x;"), framed;
	struct rng rng = rng_new(5);
	uint8_t noise[200];
	struct kv_err err;
	enum kv_rc rc;

	for (size_t len = 0; len < bytes.len; len++)
		ck_assert_int_eq(receive_copy(w, bytes.data, len), KV_CORRUPT);
	for (size_t bit = 0; bit < 8 * bytes.len; bit++) {
		bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		rc = receive_copy(w, bytes.data, bytes.len);
		ck_assert_msg(rc == KV_CORRUPT || rc == KV_NEWER, "bit %zu: %s", bit, kv_rc_name(rc));
		bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (unsigned i = 0; i < 2000; i++) {
		size_t len = rng_below(&rng, sizeof(noise));

		for (size_t j = 0; j < len; j++)
			noise[j] = (uint8_t)rng_next(&rng);
		ck_assert_int_ne(receive_copy(w, noise, len), KV_OK);
		/* The same with a frame that is right. */
		ck_ok(core_frame('T', 0, noise, len, &framed, &err), err);
		rc = receive_copy(w, framed.data, framed.len);
		ck_assert_msg(rc == KV_CORRUPT, "%s", kv_rc_name(rc));
		core_buf_fini(&framed);
	}
	ck_assert_int_eq(receive_copy(w, bytes.data, bytes.len), KV_OK);
	core_buf_fini(&bytes);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

START_TEST(there_is_a_limit_and_a_batch_above_it_is_whole)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	struct core_staged entry;
	struct core_built *b;
	struct core_buf bytes;
	struct kv_err err;
	char name[20];

	for (unsigned i = 0; i < CORE_STAGED_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		ck_ok(core_staged_create(rig.shard, name, &entry, &err), err);
	}
	ck_assert_int_eq(core_staged_create(rig.shard, "more", &entry, &err), KV_QUOTA);
	b = build(w, "0", "5", "1 1 a x;");
	ck_assert_int_eq(core_built_transmit(b, &bytes, &err), KV_QUOTA);
	ck_assert_str_eq(commit_one(w, "expected_upper=0 new_upper=5", b), "ok 0 5 updates=1");
	core_built_free(b);
	b = build(w, "5", "7", "5 1 a x;");
	ck_ok(core_staged_remove(rig.shard, "n7", &err), err);
	bytes = transmit(b);
	b = received(w, bytes);
	ck_assert_str_eq(commit_one(w, "expected_upper=5 new_upper=7", b), "ok 5 7 updates=1");
	core_built_free(b);
	core_buf_fini(&bytes);
	check_blobs(rig.disk, rig.shard, true);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

static bool fail_transmit(enum kv_fault kind, unsigned nth, bool forever)
{
	struct rig rig = rig_new(nth % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_writer *w = writer_on(rig.shard);
	struct core_built *b = build(w, "0", "5", "1 1 a x;"), *got;
	struct core_buf bytes = {0};
	struct kv_err err;
	bool fired;
	enum kv_rc rc;

	kv_faults_arm(rig.disk->faults, nth, kind, forever);
	rc = core_built_transmit(b, &bytes, &err);
	fired = kv_faults_fired(rig.disk->faults);
	disk_heal(rig.disk);
	ck_assert_msg(rc == KV_OK || fired, "%s", err.msg);
	if (rc == KV_UNKNOWN) /* it may be staged, and so must not be appended beside */
		ck_assert_str_eq(commit_one(w, "expected_upper=0 new_upper=5", b), "OutcomeUnknown");
	if (rc != KV_OK)
		ck_ok(core_built_transmit(b, &bytes, &err), err);
	core_built_free(b);
	ck_assert_uint_eq(staged_count(rig.shard), 1);
	got = received(w, bytes);
	ck_assert_str_eq(commit_one(w, "expected_upper=0 new_upper=5", got), "ok 0 5 updates=1");
	core_built_free(got);
	core_buf_fini(&bytes);
	check_content(rig.shard, 4, "a x 1;");
	check_blobs(rig.disk, rig.shard, rc == KV_OK);
	core_writer_close(w);
	rig_free(&rig);
	return fired;
}

START_TEST(whichever_call_fails_a_batch_is_sent_once)
{
	static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
					      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};

	for (unsigned nth = 1; fail_transmit(kinds[_i], nth, false); nth++)
		;
	for (unsigned nth = 1; fail_transmit(kinds[_i], nth, true); nth++)
		;
}
END_TEST

Suite *transmit_suite(void)
{
	Suite *s = suite_create("transmit");
	TCase *t = tcase_create("transmit");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, a_batch_is_sent_as_bytes_and_appended_once_elsewhere, 0, 2);
	tcase_add_test(t, what_was_sent_survives_a_crash_and_a_receiver_who_drops_it);
	tcase_add_test(t, a_sent_batch_that_is_there_already_is_gone_with_its_blobs);
	tcase_add_test(t, a_rewrite_travels_with_the_batch);
	tcase_add_test(t, a_sent_batch_that_is_written_to_keeps_the_times_it_was_lifted_to);
	tcase_add_test(t, a_batch_of_another_shard_is_refused);
	tcase_add_test(t, broken_bytes_are_refused_whatever_is_wrong_with_them);
	tcase_add_test(t, there_is_a_limit_and_a_batch_above_it_is_whole);
	tcase_add_loop_test(t, whichever_call_fails_a_batch_is_sent_once, 0, 5);
	suite_add_tcase(s, t);
	return s;
}
