/*
 * test_export.c - what is exported and imported is the same collection at each time that can be read; what is
 * not a whole export is refused, and leaves nothing.
 */
#include "core/export.h"
#include "core/import.h"
#include "tests/core/found.h"
#include "tests/core/suites.h"

struct bytes {
	char *data;
	size_t len;
	size_t cap;
};

static enum kv_rc take(void *arg, const void *data, size_t len, struct kv_err *err)
{
	struct bytes *b = arg;

	(void)err;
	if (b->len + len > b->cap) {
		b->cap = 2 * (b->len + len);
		b->data = realloc(b->data, b->cap);
		ck_assert_ptr_nonnull(b->data);
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return KV_OK;
}

static struct bytes export_ids(struct core_engine *e, const struct core_shard_id *ids, size_t count)
{
	struct bytes b = {0};
	const struct core_export_sink sink = {.write = take, .arg = &b};
	struct core_exported sum;
	struct kv_err err;

	ck_ok(core_export(e, ids, count, &sink, &sum, &err), err);
	ck_assert_uint_eq(sum.bytes, b.len);
	ck_assert(sum.one_moment);
	return b;
}

/* In pieces of any length. */
struct stream {
	const char *data;
	size_t len;
	size_t at;
	size_t piece;
};

static enum kv_rc give(void *arg, void *buf, size_t len, size_t *got, struct kv_err *err)
{
	struct stream *f = arg;

	(void)err;
	*got = f->len - f->at < len ? f->len - f->at : len;
	*got = f->piece != 0 && f->piece < *got ? f->piece : *got;
	memcpy(buf, f->data + f->at, *got);
	f->at += *got;
	return KV_OK;
}

static enum kv_rc check_only(const char *data, size_t len, struct core_imported *sum,
			     struct core_shard_id **ids, struct kv_err *err)
{
	struct stream feed = {.data = data, .len = len};
	const struct core_import_source source = {.read = give, .arg = &feed};

	return core_import_check(&source, sum, ids, err);
}

static enum kv_rc import_as(struct core_engine *e, const char *data, size_t len,
			    const struct core_shard_id *as, bool skip, struct core_imported *sum,
			    struct kv_err *err)
{
	struct stream feed = {.data = data, .len = len, .piece = 777};
	const struct core_import_source source = {.read = give, .arg = &feed};
	struct core_import how = {.as = as, .skip_existing = skip};
	struct core_shard_id *ids;
	enum kv_rc rc = check_only(data, len, sum, &ids, err);

	if (rc != KV_OK)
		return rc;
	how.ids = ids;
	how.id_count = (size_t)sum->shards;
	rc = core_import(e, &how, &source, sum, err);
	free(ids);
	return rc;
}

static struct core_shard *opened(struct core_engine *e, struct core_shard_id id)
{
	struct core_shard *s;
	struct kv_err err;

	ck_ok(core_shard_open(e, id, &s, &err), err);
	return s;
}

/* Through an export into a store that is empty: the same at each time, and as an export the same bytes. */
static void check_round_trip(struct rig *r)
{
	struct bytes a = export_ids(r->engine, NULL, 0), b;
	struct disk *d = disk_new(DISK_SOLE);
	struct core_engine *e = disk_open(d);
	char *want = picture(r->shard);
	struct core_imported sum;
	struct core_shard *s;
	struct kv_err err;

	ck_ok(import_as(e, a.data, a.len, NULL, false, &sum, &err), err);
	ck_assert_uint_eq(sum.shards, 1);
	s = opened(e, r->id);
	check_picture(s, want, "imported");
	check_sound(s);
	want_clean(e, 0);
	b = export_ids(e, NULL, 0);
	ck_assert_uint_eq(a.len, b.len);
	ck_assert_int_eq(memcmp(a.data, b.data, a.len), 0);
	core_shard_close(s);
	core_engine_close(e);
	e = disk_open(d);
	s = opened(e, r->id);
	check_picture(s, want, "opened again");
	core_shard_close(s);
	core_engine_close(e);
	disk_free(d);
	free(want);
	free(a.data);
	free(b.data);
}

START_TEST(a_shard_of_all_kinds_of_rows_is_the_same_in_another_store)
{
	struct rng r = rng_new(9100 + (uint64_t)_i);
	struct rig rig = rig_new(DISK_SOLE);

	fill_mixed(rig.shard, &r);
	check_round_trip(&rig);
	hold_at(rig.shard, core_frontier_at(upper_of(rig.shard) - 1));
	check_round_trip(&rig);
	hold_at(rig.shard,
		core_frontier_at(upper_of(rig.shard) + 3)); /* beyond the upper: nothing is readable yet */
	check_round_trip(&rig);
	rig_free(&rig);
}
END_TEST

START_TEST(empty_and_finished_shards_and_those_without_history_come_through)
{
	struct rig rig = rig_new(DISK_SOLE);

	check_round_trip(&rig);
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=3", ""), "ok 0 3 updates=0");
	check_round_trip(&rig);
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=3 new_upper=-",
				 "18446744073709551615 1 a x;18446744073709551615 9223372036854775807 b y;"
				 "3 9223372036854775807 b y;"),
			 "ok 3 - updates=3");
	check_round_trip(&rig);
	hold_at(rig.shard, core_frontier_empty());
	check_round_trip(&rig);
	rig_free(&rig);
}
END_TEST

START_TEST(holds_tokens_owner_and_names_come_along)
{
	struct rig rig = rig_new(DISK_SOLE);
	const struct core_hold_ask ask = {.since = core_frontier_at(2), .compare = true, .token = 42};
	const struct core_owner owner = {.uid = 1000, .gid = 100, .mode = 0751};
	struct core_name name = {.name = "a b\\c\x7f\xff", .target = rig.id, .uid = 3, .gid = 4}, got;
	struct disk *d = disk_new(DISK_SOLE);
	struct core_engine *e = disk_open(d);
	struct core_imported sum;
	struct core_hold hold;
	struct core_info info;
	struct core_shard *s;
	struct bytes b;
	struct kv_err err;

	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=9 token=5", "3 1 a x;"),
			 "ok 0 9 updates=1");
	ck_ok(core_hold_set(rig.shard, "consumer", &ask, NULL, &err), err);
	ck_ok(core_shard_move_hold(rig.shard, "default", core_frontier_at(0), 4, &err), err);
	ck_ok(core_shard_set_owner(rig.shard, owner, &err), err);
	ck_ok(core_name_add(rig.engine, &name, &err), err);
	b = export_ids(rig.engine, &rig.id, 1);
	ck_ok(import_as(e, b.data, b.len, NULL, false, &sum, &err), err);
	ck_assert_uint_eq(sum.names, 1);
	s = opened(e, rig.id);
	ck_ok(core_hold_get(s, "consumer", &hold, &err), err);
	ck_assert(hold.token == 42 && core_frontier_eq(hold.since, core_frontier_at(2)));
	ck_ok(core_hold_get(s, "default", &hold, &err), err);
	ck_assert_uint_eq(hold.follow, 4);
	ck_ok(core_shard_info(s, true, &info, &err), err);
	ck_assert(info.owner.uid == 1000 && info.owner.gid == 100 && info.owner.mode == 0751);
	ck_ok(core_name_get(e, name.name, &got, &err), err);
	ck_assert(core_uuid_eq(got.target.u, rig.id.u) && got.uid == 3 && got.gid == 4);
	ck_assert_str_eq(verdict(s, "expected_upper=0 new_upper=9 token=5", "3 1 a x;"),
			 "same 0 9 updates=1");
	core_shard_close(s);
	core_engine_close(e);
	disk_free(d);
	free(b.data);
	rig_free(&rig);
}
END_TEST

START_TEST(what_is_there_is_refused_or_skipped_and_another_id_can_be_given)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard_id other = {.u = core_uuid_new()};
	struct core_name name = {.name = "fruit", .target = rig.id};
	struct core_imported sum;
	struct core_shard *s;
	struct kv_err err;
	char *want;
	struct bytes b;

	append_many(rig.shard, 0, 5, 20);
	ck_ok(core_name_add(rig.engine, &name, &err), err);
	b = export_ids(rig.engine, NULL, 0);
	append_many(rig.shard, 5, 6, 20);
	want = picture(rig.shard);
	ck_assert_int_eq(import_as(rig.engine, b.data, b.len, NULL, false, &sum, &err), KV_SHARD_EXISTS);
	ck_ok(import_as(rig.engine, b.data, b.len, NULL, true, &sum, &err), err);
	ck_assert_uint_eq(sum.skipped, 1);
	ck_assert_uint_eq(sum.shards, 0);
	check_picture(rig.shard, want, "skipped");
	ck_ok(import_as(rig.engine, b.data, b.len, &other, false, &sum, &err), err);
	s = opened(rig.engine, other);
	check_appends(s, 5);
	check_picture(rig.shard, want, "another id");
	core_shard_close(s);
	free(b.data);
	free(want);
	rig_free(&rig);
}
END_TEST

/* The store must be as if nobody had tried. */
static void want_refused(struct disk *d, struct core_engine *e, const char *data, size_t len, const char *how,
			 size_t at)
{
	size_t blobs = disk_blob_count(d), keys = disk_key_count(d);
	struct stream feed = {.data = data, .len = len};
	const struct core_import_source source = {.read = give, .arg = &feed};
	const struct core_import unchecked = {0};
	struct core_shard_id *ids;
	struct core_imported sum;
	struct kv_err err = {0};
	enum kv_rc rc = check_only(data, len, &sum, &ids, &err);

	ck_assert_msg(rc == KV_BAD_SYNTAX || rc == KV_NEWER, "%s at %zu: %s", how, at, kv_rc_name(rc));
	ck_assert(err.msg[0] != '\0' && ids == NULL);
	/* Nor does the second reading make a shard of what is not right. */
	rc = core_import(e, &unchecked, &source, &sum, &err);
	ck_assert_msg(rc != KV_OK, "%s at %zu: imported", how, at);
	ck_assert_msg(disk_blob_count(d) == blobs && disk_key_count(d) == keys, "%s at %zu: left something",
		      how, at);
}

START_TEST(what_is_cut_off_flipped_or_shuffled_is_refused_and_leaves_nothing)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct disk *d = disk_new(DISK_SOLE);
	struct core_engine *e = disk_open(d);
	struct rng r = rng_new(9200);
	struct bytes b;
	char *copy;

	append_many(rig.shard, 0, 12, 25);
	b = export_ids(rig.engine, NULL, 0);
	copy = malloc(2 * b.len);
	ck_assert_ptr_nonnull(copy);
	for (size_t len = 0; len < b.len; len += 1 + rng_below(&r, 3)) {
		/* Cut behind the end of the shard it is right that far, so only the first reading sees it. */
		if (strstr(b.data, "total ") - b.data <= (ptrdiff_t)len) {
			struct core_imported sum;
			struct core_shard_id *ids;
			struct kv_err err;

			ck_assert_int_eq(check_only(b.data, len, &sum, &ids, &err), KV_BAD_SYNTAX);
		} else {
			want_refused(d, e, b.data, len, "cut", len);
		}
	}
	for (size_t at = 0; at < b.len; at++) {
		struct core_imported sum;
		struct core_shard_id *ids;
		struct kv_err err;

		memcpy(copy, b.data, b.len);
		copy[at] ^= (char)(1u << rng_below(&r, 8));
		if (strstr(b.data, "total ") - b.data <= (ptrdiff_t)at)
			ck_assert_int_ne(check_only(copy, b.len, &sum, &ids, &err), KV_OK);
		else
			want_refused(d, e, copy, b.len, "flip", at);
	}
	memcpy(copy, b.data, b.len);
	memcpy(copy + b.len, b.data, b.len);
	{
		struct core_imported sum;
		struct core_shard_id *ids;
		struct kv_err err;

		ck_assert_int_eq(check_only(copy, 2 * b.len, &sum, &ids, &err), KV_BAD_SYNTAX);
	}
	free(copy);
	free(b.data);
	core_engine_close(e);
	disk_free(d);
	rig_free(&rig);
}
END_TEST

/* Whichever call of the store fails: a shard is there with all it has, or not at all; and the next start
 * leaves nothing of one that is not. */
START_TEST(an_import_that_is_cut_short_makes_whole_shards_or_none)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct rng r = rng_new(9300);
	struct core_shard_id second = {.u = core_uuid_new()};
	char *want;
	struct bytes b;
	bool fired = true;
	struct kv_err err;

	fill_mixed(rig.shard, &r);
	want = picture(rig.shard);
	ck_ok(core_shard_create(rig.engine, second, any_owner, &err), err);
	b = export_ids(rig.engine, NULL, 0);
	for (unsigned nth = 1; fired; nth++) {
		static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_DONE_UNKNOWN,
						      KV_FAULT_LOST_UNKNOWN};
		struct disk *d = disk_new(DISK_SOLE);
		struct core_engine *e = disk_open(d);
		struct core_imported sum;
		struct core_shard *s;
		enum kv_rc rc;

		disk_fail(d, nth, kinds[_i]);
		rc = import_as(e, b.data, b.len, NULL, false, &sum, &err);
		fired = kv_faults_fired(d->faults);
		disk_heal(d);
		ck_assert(rc == KV_OK || fired);
		core_engine_close(e);
		d->upkeep = true;
		e = disk_open(d);
		core_upkeep_settle(e);
		rc = core_shard_open(e, rig.id, &s, &err);
		ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD, "%s", err.msg);
		if (rc == KV_OK) {
			check_picture(s, want, "cut short");
			core_shard_close(s);
		}
		ck_ok(import_as(e, b.data, b.len, NULL, true, &sum, &err), err);
		s = opened(e, rig.id);
		check_picture(s, want, "again");
		core_shard_close(s);
		core_engine_close(e);
		disk_free(d);
	}
	free(want);
	free(b.data);
	rig_free(&rig);
}
END_TEST

START_TEST(what_is_taken_back_by_again_comes_once)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct disk *d = disk_new(DISK_SOLE);
	struct core_engine *e = disk_open(d);
	struct core_imported sum;
	struct core_shard *s;
	char id[CORE_ID_LEN], text[4096], *end;
	XXH3_state_t *hash = XXH3_createState();
	struct bytes b;
	struct kv_err err;
	size_t len;

	append_many(rig.shard, 0, 3, 25);
	b = export_ids(rig.engine, NULL, 0);
	/* The first two lines, half the shard and `again`, then all of it, with the checksum of all made
	 * anew. */
	end = memmem(b.data, b.len, "2\t1\t", 4);
	ck_assert_ptr_nonnull(end);
	len = (size_t)sprintf(text, "%.*sagain\n", (int)(end - b.data), b.data);
	end = memmem(b.data, b.len, "total ", 6);
	len += (size_t)sprintf(text + len, "%.*s", (int)(end - b.data - 17), b.data + 17);
	XXH3_64bits_reset(hash);
	XXH3_64bits_update(hash, text, len);
	len += (size_t)sprintf(text + len, "total shards=1 updates=3 names=0 moment=several xxh3=%016llx\n",
			       (unsigned long long)XXH3_64bits_digest(hash));
	XXH3_freeState(hash);
	ck_ok(import_as(e, text, len, NULL, false, &sum, &err), err);
	ck_assert(!sum.one_moment);
	s = opened(e, rig.id);
	check_appends(s, 3);
	ck_assert_uint_eq(rows_of(s), 3);
	core_shard_close(s);
	/* Without the shard's end behind it nothing is there. */
	len = (size_t)sprintf(
		text,
		"shardfs-export 1\nshard %s since=0 upper=0 uid=0 gid=0 mode=0700 created_ms=1\nagain\n",
		core_uuid_format('s', core_uuid_new(), id));
	want_refused(d, e, text, len, "again", 0);
	core_engine_close(e);
	disk_free(d);
	free(b.data);
	rig_free(&rig);
}
END_TEST

/* An export beside one who merges and deletes all the time. */
static void *export_often(void *arg)
{
	for (int i = 0; i < 25; i++) {
		struct bytes b = {0};
		const struct core_export_sink sink = {.write = take, .arg = &b};
		struct core_exported sum;
		struct core_imported in;
		struct core_shard_id *ids;
		struct kv_err err;
		enum kv_rc rc = core_export(arg, NULL, 0, &sink, &sum, &err);

		ck_assert_msg(rc == KV_OK || rc == KV_GONE, "%s", err.msg);
		if (rc == KV_OK) {
			ck_ok(check_only(b.data, b.len, &in, &ids, &err), err);
			ck_assert_uint_eq(in.updates, sum.updates);
			free(ids);
		}
		free(b.data);
	}
	return NULL;
}

START_TEST(an_export_beside_one_who_replaces_what_it_reads_is_whole)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	pthread_t thread;

	put_hollow(rig.shard, "0 1 a x;", 5000);
	ck_assert_int_eq(pthread_create(&thread, NULL, export_often, other.engine), 0);
	for (unsigned i = 1; i < 50; i++) {
		char row[40];

		snprintf(row, sizeof row, "%u 1 a x;", i);
		put_hollow(rig.shard, row, 5000);
		chore(rig.shard, CORE_COMPACT);
		chore(rig.shard, CORE_GC);
	}
	pthread_join(thread, NULL);
	second_close(&other);
	rig_free(&rig);
}
END_TEST

Suite *export_suite(void)
{
	Suite *s = suite_create("export");
	TCase *tc = tcase_create("export");

	tcase_set_timeout(tc, 180);
	tcase_add_loop_test(tc, a_shard_of_all_kinds_of_rows_is_the_same_in_another_store, 0, 6);
	tcase_add_test(tc, empty_and_finished_shards_and_those_without_history_come_through);
	tcase_add_test(tc, holds_tokens_owner_and_names_come_along);
	tcase_add_test(tc, what_is_there_is_refused_or_skipped_and_another_id_can_be_given);
	tcase_add_test(tc, what_is_cut_off_flipped_or_shuffled_is_refused_and_leaves_nothing);
	tcase_add_loop_test(tc, an_import_that_is_cut_short_makes_whole_shards_or_none, 0, 3);
	tcase_add_test(tc, what_is_taken_back_by_again_comes_once);
	tcase_add_test(tc, an_export_beside_one_who_replaces_what_it_reads_is_whole);
	suite_add_tcase(s, tc);
	return s;
}
