/*
 * test_limits.c - the limits that a store reaches only after very long: so many names, and a state larger
 * than a blob may be. What is refused there changes nothing, and all else goes on.
 */
#include "tests/core/chores.h"
#include "tests/core/suites.h"
#include "tests/core/world.h"

/* --- names ----------------------------------------------------------------------------------------- */

/* As long as a name may be. */
static struct core_name long_name(unsigned n)
{
	struct core_name name = {.target.u.b = {1}, .uid = n, .gid = UINT32_MAX};

	memset(name.name, 'n', CORE_NAME_LEN - 1);
	snprintf(name.name + CORE_NAME_LEN - 11, 11, "%010u", n);
	return name;
}

static enum kv_rc add(struct core_engine *e, unsigned n, struct kv_err *err)
{
	struct core_name name = long_name(n);

	return core_name_add(e, &name, err);
}

static struct core_name *long_names(unsigned from, unsigned count)
{
	struct core_name *names = calloc(count, sizeof *names);

	ck_assert_ptr_nonnull(names);
	for (unsigned i = 0; i < count; i++)
		names[i] = long_name(from + i);
	return names;
}

static void want_names(struct core_engine *e, unsigned first, unsigned last, size_t want)
{
	struct core_name *names, one = long_name(first), other = long_name(last);
	struct kv_err err;
	size_t count;

	ck_ok(core_name_list(e, &names, &count, &err), err);
	ck_assert_uint_eq(count, want);
	ck_assert_str_eq(names[0].name, one.name);
	ck_assert_str_eq(names[count - 1].name, other.name);
	free(names);
}

START_TEST(names_end_at_their_limit_and_none_is_lost_there)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_name *names = long_names(0, CORE_NAMES_MAX + 1), last = long_name(CORE_NAMES_MAX - 1),
			 next = long_name(CORE_NAMES_MAX);
	uint64_t added, taken;
	struct kv_err err;

	/* All or none of those that come at once. */
	ck_assert_int_eq(core_name_add_all(rig.engine, names, CORE_NAMES_MAX + 1, &added, &taken, &err),
			 KV_QUOTA);
	ck_assert_uint_eq(added, 0);
	ck_ok(core_name_add_all(rig.engine, names, CORE_NAMES_MAX - 1, &added, &taken, &err), err);
	ck_assert_uint_eq(added, CORE_NAMES_MAX - 1);
	ck_assert_int_eq(core_name_add_all(rig.engine, names, CORE_NAMES_MAX + 1, &added, &taken, &err),
			 KV_QUOTA);
	want_names(rig.engine, 0, CORE_NAMES_MAX - 2, CORE_NAMES_MAX - 1);
	ck_ok(add(rig.engine, CORE_NAMES_MAX - 1, &err), err);
	ck_assert_int_eq(add(rig.engine, CORE_NAMES_MAX, &err), KV_QUOTA);
	ck_assert_ptr_nonnull(strstr(err.msg, "100000"));
	ck_assert_int_eq(add(rig.engine, 7, &err), KV_EXISTS); /* that is said first */
	ck_ok(core_name_add_all(rig.engine, names, CORE_NAMES_MAX, &added, &taken, &err), err);
	ck_assert_uint_eq(added, 0);
	rig_crash_and_reopen(&rig);
	want_names(rig.engine, 0, CORE_NAMES_MAX - 1, CORE_NAMES_MAX);
	/* What makes no more of them works, and what makes room. */
	ck_ok(core_name_rename(rig.engine, last.name, next.name, true, false, &err), err);
	ck_assert_int_eq(add(rig.engine, CORE_NAMES_MAX - 1, &err), KV_QUOTA);
	ck_ok(core_name_remove(rig.engine, names[0].name, &err), err);
	ck_ok(add(rig.engine, CORE_NAMES_MAX - 1, &err), err);
	want_names(rig.engine, 1, CORE_NAMES_MAX, CORE_NAMES_MAX);
	free(names);
	rig_free(&rig);
}
END_TEST

/* --- states ---------------------------------------------------------------------------------------- */

/* A batch [0, 1) of so many parts, which nobody reads: their blobs are not there. */
static struct core_batch *batch_of(size_t parts)
{
	struct core_batch *b = core_batch_new(core_frontier_at(0), core_frontier_at(1));

	ck_assert_ptr_nonnull(b);
	for (size_t i = 0; i < parts; i++) {
		/* Numbers that take much room, so that it needs fewer of them. */
		struct core_part part = {.instance.u.b = {1},
					 .size = 4096,
					 .rows = 1,
					 .text_base = UINT64_MAX >> 1,
					 .time_digits = UINT64_MAX >> 1,
					 .diffs_sum = 1,
					 .checksum = 1};

		memcpy(part.id.u.b, &i, sizeof i);
		ck_assert(core_batch_push(b, &part, false));
	}
	return b;
}

static enum kv_rc create_of(struct rig *rig, struct core_shard_id id, struct core_batch *b,
			    struct kv_err *err)
{
	const struct core_hold hold = {.name = CORE_DEFAULT_HOLD, .since = core_frontier_at(0)};
	const struct core_content content = {.since = core_frontier_at(0),
					     .upper = core_frontier_at(1),
					     .batch = b,
					     .holds = &hold,
					     .hold_count = 1};

	return core_shard_create_with(rig->engine, id, any_owner, &content, err);
}

static size_t state_len(struct core_shard *s)
{
	struct core_state state;
	struct core_buf bytes;
	struct kv_err err;
	size_t len;

	ck_ok(core_shard_state(s, &state, &err), err);
	ck_ok(core_state_encode(s->home.shard, &state, &bytes, &err), err);
	len = bytes.len;
	core_state_fini(&state);
	core_buf_fini(&bytes);
	return len;
}

/* What a part takes of a state. */
static size_t part_len(struct rig *rig)
{
	enum { FEW = 1000 };
	struct core_shard_id id = {.u = core_uuid_new()};
	struct core_batch *b = batch_of(FEW);
	struct core_shard *s;
	struct kv_err err;
	size_t len;

	ck_ok(create_of(rig, id, b, &err), err);
	ck_ok(core_shard_open(rig->engine, id, &s, &err), err);
	len = (state_len(s) - state_len(rig->shard)) / FEW;
	core_shard_close(s);
	core_batch_unref(b);
	return len;
}

START_TEST(a_shard_that_would_begin_with_too_large_a_state_is_not_made)
{
	struct rig rig = rig_new(DISK_SOLE);
	size_t count = KV_VALUE_MAX / part_len(&rig) + 1000, blobs, keys;
	struct core_shard_id id = {.u = core_uuid_new()};
	struct core_batch *b = batch_of(count);
	struct core_shard *s;
	struct kv_err err;

	rig_settle(&rig);
	blobs = disk_blob_count(rig.disk);
	keys = disk_key_count(rig.disk);
	ck_assert_int_eq(create_of(&rig, id, b, &err), KV_QUOTA);
	ck_assert_ptr_nonnull(strstr(err.msg, "larger than a blob may be"));
	ck_assert_uint_eq(disk_blob_count(rig.disk), blobs);
	ck_assert_uint_eq(disk_key_count(rig.disk), keys);
	ck_assert_int_eq(core_shard_open(rig.engine, id, &s, &err), KV_NO_SHARD);
	core_batch_unref(b);
	rig_free(&rig);
}
END_TEST

/* It has no newer rollup then, and no other harm: versions stand behind the last one. */
START_TEST(a_shard_whose_state_grew_too_large_goes_on_without_rollups)
{
	struct rig rig = rig_new(DISK_SOLE);
	size_t count = (KV_VALUE_MAX - 2048) / part_len(&rig);
	struct core_shard_id id = {.u = core_uuid_new()};
	struct core_batch *b = batch_of(count);
	struct kv_err err;

	ck_ok(create_of(&rig, id, b, &err), err);
	core_batch_unref(b);
	core_shard_close(rig.shard);
	rig.id = id;
	ck_ok(core_shard_open(rig.engine, id, &rig.shard, &err), err);
	append_many(rig.shard, 1, 2, 3000);
	ck_assert_int_eq(chore_rc(rig.shard, CORE_ROLLUP, &err), KV_QUOTA);
	ck_assert_ptr_nonnull(strstr(err.msg, "larger than a blob may be"));
	append_many(rig.shard, 2, 3, 100);
	rig_crash_and_reopen(&rig);
	ck_assert_uint_eq(upper_of(rig.shard), 3);
	append_many(rig.shard, 3, 4, 100);
	rig_free(&rig);
}
END_TEST

Suite *limits_suite(void)
{
	Suite *s = suite_create("limits");
	TCase *t = tcase_create("limits");

	tcase_set_timeout(t, 600);
	tcase_add_test(t, names_end_at_their_limit_and_none_is_lost_there);
	tcase_add_test(t, a_shard_that_would_begin_with_too_large_a_state_is_not_made);
	tcase_add_test(t, a_shard_whose_state_grew_too_large_goes_on_without_rollups);
	suite_add_tcase(s, t);
	return s;
}
