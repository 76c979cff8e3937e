/*
 * test_codec.c - states and diffs are the same again after a way through bytes,
 * and no bytes whatever do harm.
 */
#include <xxhash.h>

#include "core/state.pb-c.h"
#include "kv/blob_impl.h"
#include "tests/core/format1.h"
#include "tests/core/states.h"
#include "tests/core/suites.h"

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

		ck_ok(core_state_decode(states_shard, sb.data, sb.len, &s2, &err), err);
		again = state_bytes(&s2);
		same_bytes(sb, again);
		core_buf_fini(&again);
		ck_ok(core_diff_decode(states_shard, db.data, db.len, &d2, &err), err);
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
	ck_ok(decode(_i, states_shard, b.data, b.len, &err), err);
	for (size_t len = 0; len < b.len; len++) {
		uint8_t *cut = malloc(len + 1); /* of its own, so that a read beyond is seen */

		memcpy(cut, b.data, len);
		ck_assert_int_eq(decode(_i, states_shard, cut, len, &err), KV_CORRUPT);
		free(cut);
	}
	for (size_t at = 0; at < b.len; at++) {
		b.data[at] ^= (uint8_t)(1 + rng_below(&r, 255));
		enum kv_rc rc = decode(_i, states_shard, b.data, b.len, &err);
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
	ck_assert_int_eq(decode(0, states_shard, b.data, b.len, &err), KV_NEWER);
	ck_assert_ptr_nonnull(strstr(err.msg, "format 4"));
	core_buf_fini(&b);
	core_diff_fini(&d);
}
END_TEST

START_TEST(what_format_1_has_written_is_read)
{
	struct core_state s, again;
	struct core_diff d;
	struct core_buf b;
	struct kv_err err;

	ck_ok(core_state_decode(states_shard, format1_state, sizeof(format1_state), &s, &err), err);
	ck_ok(core_diff_decode(states_shard, format1_diff, sizeof(format1_diff), &d, &err), err);
	ck_assert_uint_eq(s.seqno, 1001);
	ck_assert_uint_eq(s.upper.t, 10);
	ck_assert_uint_eq(s.rollup_count, 1);
	ck_assert_uint_eq(s.staged_count + s.writer_count + s.lease_count, 0);
	ck_assert_uint_eq(d.staged_count + d.staged_removed_count, 0);
	ck_assert(!d.has_writer && !d.expires_writer && !d.has_lease && !d.ends_lease);

	ck_ok(core_state_apply(&s, &d, &err), err);
	ck_ok(core_state_check(&s, &err), err);
	ck_assert_uint_eq(s.upper.t, 20);
	ck_assert_uint_eq(s.owner.uid, 1000);
	ck_assert_uint_eq(s.token_count, 2);
	ck_assert_uint_eq(s.tokens[1].rows, 903);
	ck_assert_uint_eq(s.tokens[1].batch_rows, 0);
	ck_assert_uint_eq(core_state_hold(&s, "reader")->follow, 5);
	ck_assert_uint_eq(s.batches[1]->part_count, 2);
	ck_assert_mem_eq(s.batches[1]->parts[0].inline_data, "bytes", 5);

	/* It is written on in the format of today. */
	b = state_bytes(&s);
	ck_assert_uint_eq(b.data[4], CORE_FORMAT);
	ck_ok(core_state_decode(states_shard, b.data, b.len, &again, &err), err);
	core_state_fini(&again);
	core_buf_fini(&b);
	core_diff_fini(&d);
	core_state_fini(&s);
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
	ck_assert_int_eq(decode(1, states_shard, db.data, db.len, &err), KV_CORRUPT);
	ck_assert_int_eq(decode(0, states_shard, sb.data, sb.len, &err), KV_CORRUPT);
	sb.data[3] = 'D';
	ck_assert_int_eq(decode(0, states_shard, sb.data, sb.len, &err), KV_CORRUPT);
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

	ck_ok(core_frame(which == 0 ? 'D' : 'R', XXH3_64bits(states_shard.u.b, 16), payload, len, &b, &err),
	      err);
	if (which == 1) {
		rc = core_state_decode(states_shard, b.data, b.len, &s2, &err);
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
	rc = core_diff_decode(states_shard, b.data, b.len, &d, &err);
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

/* One thing that is not well-formed in the staged batches, writers and leases of a version. */
static char *too_long(void)
{
	static char text[CORE_STAGED_NAME_LEN + 1];

	_Static_assert(CORE_STAGED_NAME_LEN >= CORE_HOST_LEN && CORE_STAGED_NAME_LEN >= CORE_PURPOSE_LEN, "");
	memset(text, 'x', CORE_STAGED_NAME_LEN);
	return text;
}

static void spoil_staged(Pb__Staged *staged, int how)
{
	switch (how) {
	case 0:
		staged->id.len--;
		break;
	case 1:
		staged->manifest.len = 0;
		break;
	case 2:
		staged->instance.len--;
		break;
	case 3:
		staged->name[0] = '\0';
		break;
	case 4:
		staged->name = too_long();
		break;
	case 5:
		staged->lower = NULL;
		break;
	case 6:
		staged->upper = NULL;
		break;
	case 7:
		staged->lower->n_times = 2;
		break;
	case 8:
		staged->upper->n_times = 2;
		break;
	default:
		ck_abort();
	}
}

static void spoil_diff(Pb__Diff *d, int how)
{
	switch (how) {
	case 9:
		d->n_staged = CORE_STAGED_MAX + 1;
		break;
	case 10:
		d->staged_removed[0].len--;
		break;
	case 11:
		d->n_staged_removed = CORE_STAGED_MAX + 1;
		break;
	case 12:
		d->writer->id.len--;
		break;
	case 13:
		d->writer->host = too_long();
		break;
	case 14:
		d->writer->purpose = too_long();
		break;
	case 15:
		d->writer->last_upper = NULL;
		break;
	case 16:
		d->writer->last_upper->n_times = 2;
		break;
	case 17:
		d->expired_writer.len = 15;
		break;
	case 18:
		d->lease->id.len--;
		break;
	case 19:
		d->lease->host = too_long();
		break;
	case 20:
		d->lease->purpose = too_long();
		break;
	case 21:
		d->lease->since = NULL;
		break;
	case 22:
		d->lease->since->n_times = 2;
		break;
	case 23:
		d->ended_lease.len = 17;
		break;
	default:
		spoil_staged(d->staged[0], how);
	}
}

START_TEST(staged_batches_writers_and_leases_are_well_formed_or_corrupt)
{
	uint64_t two_times[2] = {1, 2};
	uint8_t id[17] = {1};
	Pb__Frontier lower, upper;
	Pb__Staged staged, *list[CORE_STAGED_MAX + 1];
	ProtobufCBinaryData ids[CORE_STAGED_MAX + 1];
	Pb__Writer writer;
	Pb__Lease lease;
	Pb__Rollup rollup;
	Pb__Diff pb;
	char name[] = "a", host[] = "h", key[] = "s/v1/n";
	struct core_diff d;
	struct core_buf b;
	struct kv_err err;

	pb__frontier__init(&lower);
	pb__frontier__init(&upper);
	pb__staged__init(&staged);
	pb__writer__init(&writer);
	pb__lease__init(&lease);
	pb__rollup__init(&rollup);
	pb__diff__init(&pb);
	upper.times = lower.times = two_times;
	for (size_t i = 0; i <= CORE_STAGED_MAX; i++) {
		ids[i] = (ProtobufCBinaryData){.data = id, .len = 16};
		list[i] = &staged;
	}
	upper.n_times = lower.n_times = 1;
	staged.id = staged.manifest = staged.instance = writer.id = lease.id = ids[0];
	staged.name = name;
	staged.lower = &lower;
	staged.upper = writer.last_upper = lease.since = &upper;
	writer.host = writer.purpose = lease.host = lease.purpose = host;
	rollup.key = key;
	pb.attempt = pb.expired_writer = pb.ended_lease = ids[0];
	pb.rollup = &rollup;
	pb.staged = list;
	pb.staged_removed = ids;
	pb.n_staged = pb.n_staged_removed = 1;
	pb.writer = &writer;
	pb.lease = &lease;
	for (int spoilt = 0; spoilt < 2; spoilt++) {
		uint8_t *payload;
		size_t len;

		if (spoilt)
			spoil_diff(&pb, _i);
		payload = malloc(pb__diff__get_packed_size(&pb));
		len = pb__diff__pack(&pb, payload);
		ck_ok(core_frame('D', XXH3_64bits(states_shard.u.b, 16), payload, len, &b, &err), err);
		ck_assert_int_eq(core_diff_decode(states_shard, b.data, b.len, &d, &err),
				 spoilt ? KV_CORRUPT : KV_OK);
		core_diff_fini(&d);
		core_buf_fini(&b);
		free(payload);
	}
}
END_TEST

/* A rollup with so many leases, of which the last `same` have one id and the since of the first lies below
 * the shard's by `below`. */
static enum kv_rc decode_leases(size_t count, size_t same, uint64_t below, struct kv_err *err)
{
	struct core_lease *leases = calloc(count, sizeof(*leases));
	struct core_state s, again;
	struct core_buf b;
	enum kv_rc rc;

	ck_ok(core_state_init(&s, 9, 5, (struct core_owner){1, 2, 0644}, err), *err);
	s.since = s.holds[0].since = core_frontier_at(3);
	for (size_t i = 0; i < count; i++) {
		size_t n = i + same >= count ? count : i;

		leases[i].since = core_frontier_at(i == 0 ? 3 - below : 3 + i);
		memcpy(leases[i].id.b + 4, &n, sizeof(n));
	}
	s.leases = leases;
	s.lease_count = count;
	b = state_bytes(&s);
	rc = core_state_decode(states_shard, b.data, b.len, &again, err);
	if (rc == KV_OK) {
		ck_assert_uint_eq(again.lease_count, count);
		ck_assert_mem_eq(again.leases, leases, count * sizeof(*leases));
	}
	core_state_fini(&again);
	core_buf_fini(&b);
	core_state_fini(&s);
	return rc;
}

START_TEST(leases_of_a_rollup_keep_the_invariants)
{
	struct kv_err err;

	ck_ok(decode_leases(1, 1, 0, &err), err);
	ck_ok(decode_leases(CORE_READERS_MAX, 1, 0, &err), err);
	ck_assert_int_eq(decode_leases(CORE_READERS_MAX + 1, 1, 0, &err), KV_CORRUPT);
	ck_assert_int_eq(decode_leases(5, 2, 0, &err), KV_CORRUPT);
	ck_assert_int_eq(decode_leases(5, 1, 1, &err), KV_CORRUPT);
}
END_TEST

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

Suite *codec_suite(void)
{
	Suite *s = suite_create("codec");
	TCase *t = tcase_create("codec");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, states_and_diffs_are_the_same_after_a_way_through_bytes);
	tcase_add_loop_test(t, every_cut_and_every_flipped_byte_is_corrupt, 0, 2);
	tcase_add_test(t, a_newer_format_is_refused_in_words);
	tcase_add_test(t, what_format_1_has_written_is_read);
	tcase_add_loop_test(t, staged_batches_writers_and_leases_are_well_formed_or_corrupt, 0, 24);
	tcase_add_test(t, leases_of_a_rollup_keep_the_invariants);
	tcase_add_test(t, a_document_of_another_shard_or_kind_fails);
	tcase_add_loop_test(t, forged_bytes_under_a_good_checksum_never_crash, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
