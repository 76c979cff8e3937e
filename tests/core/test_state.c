/*
 * test_state.c - states and diffs: applied whole or not at all, checked, and the
 * same again after a way through bytes, whatever those bytes are.
 */
#include <xxhash.h>

#include "kv/blob_impl.h"
#include "tests/core/suites.h"
#include "tests/core/world.h"

static const struct core_shard_id home_id = {.u.b = {7}};

static struct core_uuid random_uuid(struct rng *r)
{
	struct core_uuid u;
	uint64_t a = rng_next(r), b = rng_next(r);

	memcpy(u.b, &a, 8);
	memcpy(u.b + 8, &b, 8);
	return u;
}

static struct core_frontier random_frontier(struct rng *r, uint64_t limit)
{
	return rng_below(r, 8) == 0 ? core_frontier_empty() : core_frontier_at(rng_below(r, limit));
}

static struct core_batch *random_batch(struct rng *r, struct core_frontier lower, struct core_frontier upper)
{
	struct core_batch *b = core_batch_new(lower, upper);

	for (uint64_t i = rng_below(r, 4); i > 0; i--) {
		struct core_part part = {.id.u = random_uuid(r),
					 .instance.u = random_uuid(r),
					 .size = 1 + rng_below(r, 40),
					 .rows = 1 + rng_below(r, 100),
					 .text_base = rng_next(r),
					 .time_digits = rng_below(r, 1000),
					 .min_time = rng_next(r),
					 .max_time = rng_next(r),
					 .diffs_sum = rng_next(r),
					 .checksum = rng_next(r)};

		part.stars = rng_below(r, part.rows + 1);
		part.rewrite_ts = rng_below(r, 2) * rng_next(r);
		if (rng_below(r, 2) == 0)
			part.inline_data = calloc(1, part.size);
		ck_assert(core_batch_push(b, &part, rng_below(r, 2) == 0));
	}
	b->committed_ms = rng_next(r) | 1;
	return b;
}

static void random_key(struct rng *r, struct core_rollup *rollup)
{
	char shard[CORE_ID_LEN], instance[CORE_ID_LEN];

	snprintf(rollup->key, sizeof(rollup->key), "%s/v%llu/%s", core_uuid_format('s', home_id.u, shard),
		 (unsigned long long)rollup->seqno, core_uuid_format('n', random_uuid(r), instance));
}

static struct core_done random_done(struct rng *r)
{
	struct core_done done = {.token.u = random_uuid(r), .rows = rng_next(r), .seqno = rng_next(r)};

	memcpy(done.asked.b, &done.token, 16);
	done.lower = random_frontier(r, 100);
	done.upper = random_frontier(r, 100);
	return done;
}

/* A sound state at version 1000 whose batches end at 10, 20, ... */
static struct core_state random_state(struct rng *r, size_t batches)
{
	struct core_state s;
	struct kv_err err;

	ck_ok(core_state_init(&s, 1000, 5, (struct core_owner){1, 2, 0644}, &err), err);
	s.first_seqno = 1 + rng_below(r, 1000);
	for (size_t i = 0; i < batches; i++) {
		struct core_frontier lower = core_frontier_at(10 * i), upper = core_frontier_at(10 * i + 10);
		struct core_batch *b = random_batch(r, lower, upper);
		struct core_diff d;

		core_diff_init(&d);
		d.seqno = s.seqno + 1;
		d.has_upper = true;
		d.upper = upper;
		d.walltime_ms = rng_next(r) >> 20;
		d.attempt = random_uuid(r);
		ck_ok(core_diff_splice(&d, lower, lower, &b, 1, &err), err);
		d.has_token = rng_below(r, 2) == 0;
		d.token = random_done(r);
		d.has_rollup = rng_below(r, 4) == 0;
		d.rollup.seqno = s.seqno;
		random_key(r, &d.rollup);
		for (uint64_t h = rng_below(r, 3); h > 0; h--) {
			struct core_hold hold = {.since = random_frontier(r, 100),
						 .token = rng_next(r),
						 .follow = rng_below(r, 9)};

			snprintf(hold.name, sizeof(hold.name), "h%d", (int)rng_below(r, 12));
			ck_ok(core_diff_hold(&d, &hold, &err), err);
		}
		ck_ok(core_state_apply(&s, &d, &err), err);
		core_diff_fini(&d);
	}
	ck_ok(core_state_check(&s, &err), err);
	return s;
}

/* Any diff that the codec takes and that fits a state of version 1000 + batches. In place, as it holds
 * pointers into itself. */
static void random_diff(struct rng *r, size_t batches, struct core_diff *d)
{
	struct kv_err err;

	core_diff_init(d);
	d->seqno = 1000 + batches + 1;
	d->walltime_ms = rng_next(r) >> 20;
	d->attempt = random_uuid(r);
	d->newest_rollup.seqno = rng_next(r);
	random_key(r, &d->newest_rollup);
	d->has_since = rng_below(r, 2) == 0;
	d->since = random_frontier(r, 100);
	d->has_owner = rng_below(r, 2) == 0;
	d->owner = (struct core_owner){(uint32_t)rng_next(r), (uint32_t)rng_next(r),
				       (uint32_t)rng_below(r, 07777)};
	d->has_token = rng_below(r, 2) == 0;
	d->token = random_done(r);
	d->has_rollup = rng_below(r, 2) == 0;
	d->rollup.seqno = rng_next(r);
	random_key(r, &d->rollup);
	d->tombstone = rng_below(r, 9) == 0;
	for (uint64_t i = rng_below(r, 7); i > 0; i--) {
		struct core_hold hold = {.since = random_frontier(r, 100)};

		snprintf(hold.name, sizeof(hold.name), "h%d", (int)rng_below(r, 12));
		ck_ok(core_diff_hold(d, &hold, &err), err);
	}
	d->removed_count = rng_below(r, 3);
	d->holds_removed = calloc(d->removed_count + 1, sizeof(*d->holds_removed));
	for (size_t i = 0; i < d->removed_count; i++)
		snprintf(d->holds_removed[i], CORE_HOLD_NAME_LEN, "h%d", (int)rng_below(r, 12));
	if (batches > 0 && rng_below(r, 2) == 0) {
		size_t first = rng_below(r, batches), end = first + 1 + rng_below(r, batches - first);
		struct core_frontier lower = core_frontier_at(10 * first), upper = core_frontier_at(10 * end);
		struct core_batch *b = random_batch(r, lower, upper);

		ck_ok(core_diff_splice(d, lower, upper, &b, 1, &err), err);
	}
	if (rng_below(r, 2) == 0) {
		struct core_frontier at = core_frontier_at(10 * batches),
				     upper = core_frontier_at(10 * batches + 7);
		struct core_batch *b = random_batch(r, at, upper);

		ck_ok(core_diff_splice(d, at, at, &b, 1, &err), err);
		d->has_upper = true;
		d->upper = upper;
	}
}

static struct core_buf state_bytes(const struct core_state *s)
{
	struct core_buf b;
	struct kv_err err;

	ck_ok(core_state_encode(home_id, s, &b, &err), err);
	return b;
}

static struct core_buf diff_bytes(const struct core_diff *d)
{
	struct core_buf b;
	struct kv_err err;

	ck_ok(core_diff_encode(home_id, d, &b, &err), err);
	return b;
}

static void same_bytes(struct core_buf a, struct core_buf b)
{
	ck_assert_uint_eq(a.len, b.len);
	ck_assert_mem_eq(a.data, b.data, a.len);
}

/* --- applying -------------------------------------------------------------------------------------- */

START_TEST(a_new_state_is_empty_and_sound)
{
	struct core_state s;
	struct kv_err err;

	ck_ok(core_state_init(&s, 9, 5, any_owner, &err), err);
	ck_ok(core_state_check(&s, &err), err);
	ck_assert_uint_eq(s.first_seqno, 9);
	ck_assert_ptr_nonnull(core_state_hold(&s, CORE_DEFAULT_HOLD));
	ck_assert_uint_eq(s.upper.t, 0);
	ck_assert_uint_eq(core_state_batch_at(&s, core_frontier_at(0)), s.batch_count);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_splice_in_the_middle_replaces_what_tiles_its_bounds)
{
	struct rng r = rng_new(100);
	struct core_state s = random_state(&r, 5);
	struct core_batch *two[2] = {random_batch(&r, core_frontier_at(10), core_frontier_at(25)),
				     random_batch(&r, core_frontier_at(25), core_frontier_at(40))};
	struct core_diff d;
	struct kv_err err;

	core_diff_init(&d);
	d.seqno = s.seqno + 1;
	ck_ok(core_diff_splice(&d, core_frontier_at(10), core_frontier_at(40), two, 2, &err), err);
	ck_ok(core_state_apply(&s, &d, &err), err);
	core_diff_fini(&d);
	ck_ok(core_state_check(&s, &err), err);
	ck_assert_uint_eq(s.batch_count, 4);
	ck_assert_ptr_eq(s.batches[1], two[0]);
	ck_assert_ptr_eq(s.batches[2], two[1]);
	ck_assert_uint_eq(core_state_batch_at(&s, core_frontier_at(25)), 2);
	ck_assert_uint_eq(core_state_batch_at(&s, core_frontier_at(26)), 4);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_diff_that_does_not_fit_changes_nothing)
{
	/* Bounds of splices that meet no batches of [0,10) [10,20) ... [40,50); -1: no second splice. */
	static const int misfits[][4] = {{5, 10, -1, 0},   {10, 15, -1, 0},  {40, 60, -1, 0},
					 {60, 60, -1, 0},  {55, 70, -1, 0},  {0, 10, 15, 20},
					 {0, 10, 60, 60},  {20, 30, 40, 55}, {20, 30, 0, 10},
					 {20, 30, 20, 30}, {50, 50, 20, 30}, {10, 30, 20, 40}};
	struct rng r = rng_new(101);

	for (size_t i = 0; i < sizeof(misfits) / sizeof(misfits[0]); i++) {
		struct core_state s = random_state(&r, 5);
		struct core_buf before = state_bytes(&s), after;
		struct core_diff d;
		struct kv_err err;

		for (random_diff(&r, 0, &d); d.splice_count != 0; random_diff(&r, 0, &d))
			core_diff_fini(&d);
		d.seqno = s.seqno + 1;
		for (int j = 0; j < 4 && misfits[i][j] >= 0; j += 2) {
			struct core_frontier lower = core_frontier_at((uint64_t)misfits[i][j]);
			struct core_frontier upper = core_frontier_at((uint64_t)misfits[i][j + 1]);
			struct core_batch *b =
				random_batch(&r, lower, core_frontier_at(upper.t + (lower.t == upper.t)));

			ck_ok(core_diff_splice(&d, lower, upper, &b, 1, &err), err);
		}
		ck_assert_msg(core_state_apply(&s, &d, &err) == KV_CORRUPT, "misfit %zu", i);
		after = state_bytes(&s);
		ck_assert_msg(before.len == after.len && memcmp(before.data, after.data, after.len) == 0,
			      "misfit %zu", i);
		core_diff_fini(&d);
		core_buf_fini(&before);
		core_buf_fini(&after);
		core_state_fini(&s);
	}
}
END_TEST

START_TEST(only_the_next_version_can_be_applied)
{
	struct rng r = rng_new(102);
	struct core_state s = random_state(&r, 3);
	struct core_diff d;
	struct kv_err err;

	core_diff_init(&d);
	for (uint64_t seqno = s.seqno - 1; seqno < s.seqno + 4; seqno++) {
		d.seqno = seqno;
		if (seqno != s.seqno + 1)
			ck_assert_int_eq(core_state_apply(&s, &d, &err), KV_CORRUPT);
	}
	core_state_fini(&s);
}
END_TEST

START_TEST(the_oldest_of_1024_tokens_makes_room)
{
	struct core_state s, again;
	struct core_diff d;
	struct kv_err err;
	struct core_buf bytes;

	ck_ok(core_state_init(&s, 1, 5, any_owner, &err), err);
	for (uint64_t i = 0; i < 2500; i++) {
		core_diff_init(&d);
		d.seqno = s.seqno + 1;
		d.has_token = true;
		d.token = (struct core_done){.token = token_of(i), .rows = i};
		ck_ok(core_state_apply(&s, &d, &err), err);
		core_diff_fini(&d);
		ck_assert_ptr_nonnull(core_state_token(&s, token_of(i)));
		ck_assert_uint_eq(core_state_token(&s, token_of(i))->rows, i);
		if (i >= CORE_TOKENS_MAX) {
			ck_assert_ptr_null(core_state_token(&s, token_of(i - CORE_TOKENS_MAX)));
			ck_assert_ptr_nonnull(core_state_token(&s, token_of(i - CORE_TOKENS_MAX + 1)));
		}
		if (i % 500 != 17)
			continue;
		/* From here on the decoded one, whose oldest stands first. */
		bytes = state_bytes(&s);
		ck_ok(core_state_decode(home_id, bytes.data, bytes.len, &again, &err), err);
		core_state_fini(&s);
		core_buf_fini(&bytes);
		s = again;
	}
	ck_ok(core_state_check(&s, &err), err);
	core_state_fini(&s);
}
END_TEST

/* One invariant each. */
static void spoil(struct core_state *s, int how)
{
	struct core_batch *b = s->batches[1];

	switch (how) {
	case 0:
		s->first_seqno = 0;
		break;
	case 1:
		s->first_seqno = s->seqno + 1;
		break;
	case 2:
		b->lower.t++;
		break;
	case 3:
		b->upper = b->lower;
		break;
	case 4:
		s->upper.t++;
		break;
	case 5:
		s->upper = core_frontier_empty();
		break;
	case 6:
		s->batches[0]->lower.t = 1;
		break;
	case 7:
		b->since = core_frontier_at(1);
		break;
	case 8:
		s->since = core_frontier_at(1);
		break;
	case 9:
		b->rows++;
		break;
	case 10:
		b->parts[0].rows = 0;
		break;
	case 11:
		b->parts[0].stars = b->parts[0].rows + 1;
		break;
	case 12:
		b->run_starts[0] = 1;
		break;
	case 13:
		b->run_count = 0;
		break;
	case 14:
		b->parts[0].id = s->batches[2]->parts[0].id;
		break;
	case 15:
		s->token_count = CORE_TOKENS_MAX + 1;
		break;
	case 16:
		strcpy(s->holds[1].name, CORE_DEFAULT_HOLD);
		break;
	case 17:
		s->rollups[0].seqno = s->seqno + 1;
		break;
	case 18:
		s->rollups[1].seqno = s->rollups[0].seqno;
		break;
	default:
		ck_abort();
	}
}

START_TEST(every_invariant_is_watched)
{
	struct rng r = rng_new(103);
	struct core_state s;
	struct kv_err err;

	do {
		s = random_state(&r, 12);
		if (s.batches[1]->part_count > 0 && s.batches[2]->part_count > 0 && s.hold_count > 1 &&
		    s.rollup_count > 1)
			break;
		core_state_fini(&s);
	} while (true);
	s.holds[0].since = core_frontier_at(0);
	ck_ok(core_state_check(&s, &err), err);
	size_t tokens = s.token_count, runs = s.batches[1]->run_count;
	spoil(&s, _i);
	ck_assert_int_eq(core_state_check(&s, &err), KV_CORRUPT);
	ck_assert_uint_gt(strlen(err.msg), 10);
	s.token_count = tokens;
	s.batches[1]->run_count = runs;
	core_state_fini(&s);
}
END_TEST

/* --- bytes ----------------------------------------------------------------------------------------- */

START_TEST(states_and_diffs_are_the_same_after_a_way_through_bytes)
{
	struct rng r = rng_new(104);

	for (int round = 0; round < 400; round++) {
		size_t batches = rng_below(&r, 8);
		struct core_state s = random_state(&r, batches), s2;
		struct core_diff d, d2;
		struct core_buf sb, db, again;
		struct kv_err err;

		random_diff(&r, batches, &d);
		sb = state_bytes(&s);
		db = diff_bytes(&d);

		ck_ok(core_state_decode(home_id, sb.data, sb.len, &s2, &err), err);
		again = state_bytes(&s2);
		same_bytes(sb, again);
		core_buf_fini(&again);
		ck_ok(core_diff_decode(home_id, db.data, db.len, &d2, &err), err);
		again = diff_bytes(&d2);
		same_bytes(db, again);
		core_buf_fini(&again);
		/* Both make the same next state. */
		ck_assert_int_eq(core_state_apply(&s, &d, &err), KV_OK);
		ck_assert_int_eq(core_state_apply(&s2, &d2, &err), KV_OK);
		core_buf_fini(&sb);
		sb = state_bytes(&s);
		again = state_bytes(&s2);
		same_bytes(sb, again);
		core_buf_fini(&again);
		core_buf_fini(&sb);
		core_buf_fini(&db);
		core_diff_fini(&d);
		core_diff_fini(&d2);
		core_state_fini(&s);
		core_state_fini(&s2);
	}
}
END_TEST

static enum kv_rc decode(int which, struct core_shard_id id, const uint8_t *data, size_t len,
			 struct kv_err *err)
{
	struct core_state s;
	struct core_diff d;
	enum kv_rc rc;

	if (which == 0) {
		rc = core_diff_decode(id, data, len, &d, err);
		core_diff_fini(&d);
	} else {
		rc = core_state_decode(id, data, len, &s, err);
		core_state_fini(&s);
	}
	return rc;
}

START_TEST(every_cut_and_every_flipped_byte_is_corrupt)
{
	struct rng r = rng_new(105);
	struct core_state s = random_state(&r, 4);
	struct core_diff d;
	struct core_buf b;
	struct kv_err err;

	random_diff(&r, 4, &d);
	b = _i == 0 ? diff_bytes(&d) : state_bytes(&s);
	ck_ok(decode(_i, home_id, b.data, b.len, &err), err);
	for (size_t len = 0; len < b.len; len++) {
		uint8_t *cut = malloc(len + 1); /* of its own, so that a read beyond is seen */

		memcpy(cut, b.data, len);
		ck_assert_int_eq(decode(_i, home_id, cut, len, &err), KV_CORRUPT);
		free(cut);
	}
	for (size_t at = 0; at < b.len; at++) {
		b.data[at] ^= (uint8_t)(1 + rng_below(&r, 255));
		enum kv_rc rc = decode(_i, home_id, b.data, b.len, &err);
		bool format = at >= 4 && at < 8;
		ck_assert_msg(rc == KV_CORRUPT || (format && rc == KV_NEWER), "byte %zu", at);
		core_buf_fini(&b);
		b = _i == 0 ? diff_bytes(&d) : state_bytes(&s);
	}
	core_buf_fini(&b);
	core_diff_fini(&d);
	core_state_fini(&s);
}
END_TEST

START_TEST(a_newer_format_is_refused_in_words)
{
	struct rng r = rng_new(106);
	struct core_diff d;
	struct core_buf b;
	struct kv_err err;

	random_diff(&r, 4, &d);
	b = diff_bytes(&d);
	b.data[4] = CORE_FORMAT + 1;
	ck_assert_int_eq(decode(0, home_id, b.data, b.len, &err), KV_NEWER);
	ck_assert_ptr_nonnull(strstr(err.msg, "format 2"));
	core_buf_fini(&b);
	core_diff_fini(&d);
}
END_TEST

START_TEST(a_document_of_another_shard_or_kind_fails)
{
	struct rng r = rng_new(107);
	struct core_state s = random_state(&r, 4);
	struct core_diff d;
	struct core_buf sb = state_bytes(&s), db;
	struct core_shard_id other = {.u.b = {8}};
	const uint8_t *payload;
	size_t len;
	struct kv_err err;

	random_diff(&r, 4, &d);
	db = diff_bytes(&d);
	ck_assert_int_eq(decode(0, other, db.data, db.len, &err), KV_CORRUPT);
	ck_assert_int_eq(decode(1, other, sb.data, sb.len, &err), KV_CORRUPT);
	ck_assert_int_eq(decode(1, home_id, db.data, db.len, &err), KV_CORRUPT);
	ck_assert_int_eq(decode(0, home_id, sb.data, sb.len, &err), KV_CORRUPT);
	sb.data[3] = 'D';
	ck_assert_int_eq(decode(0, home_id, sb.data, sb.len, &err), KV_CORRUPT);
	ck_assert_int_eq(core_unframe('N', 1, db.data, db.len, &payload, &len, &err), KV_CORRUPT);
	core_buf_fini(&sb);
	core_buf_fini(&db);
	core_diff_fini(&d);
	core_state_fini(&s);
}
END_TEST

/* Under a good checksum: what is taken for a diff or a state can be used as one. */
static void use_forged(int which, const uint8_t *payload, size_t len, struct core_state *s)
{
	struct core_buf b, before, after;
	struct core_state s2;
	struct core_diff d;
	struct kv_err err;
	enum kv_rc rc;

	ck_ok(core_frame(which == 0 ? 'D' : 'R', XXH3_64bits(home_id.u.b, 16), payload, len, &b, &err), err);
	if (which == 1) {
		rc = core_state_decode(home_id, b.data, b.len, &s2, &err);
		ck_assert(rc == KV_OK || rc == KV_CORRUPT);
		if (rc == KV_OK) {
			ck_ok(core_state_check(&s2, &err), err);
			after = state_bytes(&s2);
			core_buf_fini(&after);
			for (size_t i = 0; i < s2.rollup_count; i++)
				ck_assert_msg(kv_blob_key_valid(s2.rollups[i].key), "%s", s2.rollups[i].key);
		}
		core_state_fini(&s2);
		core_buf_fini(&b);
		return;
	}
	rc = core_diff_decode(home_id, b.data, b.len, &d, &err);
	ck_assert(rc == KV_OK || rc == KV_CORRUPT);
	if (rc == KV_OK) {
		ck_assert_msg(kv_blob_key_valid(d.newest_rollup.key), "%s", d.newest_rollup.key);
		after = diff_bytes(&d);
		core_buf_fini(&after);
		before = state_bytes(s);
		d.seqno = s->seqno + 1;
		rc = core_state_apply(s, &d, &err);
		after = state_bytes(s);
		if (rc != KV_OK)
			same_bytes(before, after);
		core_buf_fini(&before);
		core_buf_fini(&after);
	}
	core_diff_fini(&d);
	core_buf_fini(&b);
}

START_TEST(forged_bytes_under_a_good_checksum_never_crash)
{
	struct rng r = rng_new(108 + (uint64_t)_i);
	uint8_t noise[300];

	for (int round = 0; round < 300; round++) {
		size_t batches = rng_below(&r, 5);
		struct core_state s = random_state(&r, batches), source = random_state(&r, batches);
		struct core_diff d;
		struct core_buf b;

		random_diff(&r, batches, &d);
		b = _i == 0 ? diff_bytes(&d) : state_bytes(&source);

		for (int i = 0; i < 20; i++) {
			size_t len = b.len - 16;
			uint8_t *payload = malloc(len + 1);

			memcpy(payload, b.data + 16, len);
			for (uint64_t flips = 1 + rng_below(&r, 4); flips > 0 && len > 0; flips--)
				payload[rng_below(&r, len)] = (uint8_t)rng_next(&r);
			use_forged(_i, payload, rng_below(&r, 4) == 0 ? rng_below(&r, len + 1) : len, &s);
			free(payload);
			/* One that grew too odd makes room for a sound one. */
			struct kv_err err;
			if (core_state_check(&s, &err) != KV_OK) {
				core_state_fini(&s);
				s = random_state(&r, batches);
			}
		}
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)rng_next(&r);
		use_forged(_i, noise, rng_below(&r, sizeof(noise)), &s);
		core_buf_fini(&b);
		core_diff_fini(&d);
		core_state_fini(&source);
		core_state_fini(&s);
	}
}
END_TEST

Suite *state_suite(void)
{
	Suite *s = suite_create("state");
	TCase *t = tcase_create("state");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_new_state_is_empty_and_sound);
	tcase_add_test(t, a_splice_in_the_middle_replaces_what_tiles_its_bounds);
	tcase_add_test(t, a_diff_that_does_not_fit_changes_nothing);
	tcase_add_test(t, only_the_next_version_can_be_applied);
	tcase_add_test(t, the_oldest_of_1024_tokens_makes_room);
	tcase_add_loop_test(t, every_invariant_is_watched, 0, 19);
	tcase_add_test(t, states_and_diffs_are_the_same_after_a_way_through_bytes);
	tcase_add_loop_test(t, every_cut_and_every_flipped_byte_is_corrupt, 0, 2);
	tcase_add_test(t, a_newer_format_is_refused_in_words);
	tcase_add_test(t, a_document_of_another_shard_or_kind_fails);
	tcase_add_loop_test(t, forged_bytes_under_a_good_checksum_never_crash, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
