/*
 * nth_scenes.c - see nth.h: what users of an engine do.
 */
#include "core/names.h"
#include "core/read.h"
#include "core/scan.h"
#include "tests/core/nth.h"

/* --- making and ending ------------------------------------------------------------------------------ */

static enum kv_rc make_shard(struct nth_world *w, struct kv_err *err)
{
	return core_shard_create(w->rig.engine, w->other, any_owner, err);
}

static enum kv_rc open_shard(struct nth_world *w, struct kv_err *err)
{
	struct core_shard *s;
	struct core_info info = {0};
	enum kv_rc rc = core_shard_open(w->rig.engine, w->rig.id, &s, err);

	if (rc == KV_OK)
		rc = core_shard_info(s, true, &info, err);
	if (rc == KV_OK)
		fprintf(w->heard, "%llu %o", (unsigned long long)info.upper.t, info.owner.mode);
	core_shard_close(s);
	return rc;
}

void nth_forget(struct nth_world *w)
{
	reopen_well(&w->rig);
}

static void finish(struct nth_world *w)
{
	struct kv_err err;

	ck_assert_int_eq(strncmp(verdict(w->rig.shard, "expected_upper=* new_upper=- since=-", ""), "ok", 2),
			 0);
	ck_ok(core_hold_drop(w->rig.shard, "ear", &err), err);
}

static enum kv_rc remove_shard(struct nth_world *w, struct kv_err *err)
{
	return core_shard_remove(w->rig.shard, err);
}

static enum kv_rc list_shards(struct nth_world *w, struct kv_err *err)
{
	struct kv_keys keys;
	enum kv_rc rc = core_shard_list(w->rig.engine, "", 10, &keys, err);

	if (rc == KV_OK)
		fprintf(w->heard, "%zu shards", keys.count);
	kv_keys_free(&keys);
	return rc;
}

static enum kv_rc own(struct nth_world *w, struct kv_err *err)
{
	return core_shard_set_owner(w->rig.shard, (struct core_owner){.uid = 7, .gid = 8, .mode = 0700}, err);
}

/* --- holds and names ---------------------------------------------------------------------------------- */

static enum kv_rc hold(struct nth_world *w, const char *name, struct core_hold_ask ask, struct kv_err *err)
{
	struct core_hold out;

	return core_hold_set(w->rig.shard, name, &ask, &out, err);
}

static enum kv_rc hold_make(struct nth_world *w, struct kv_err *err)
{
	return hold(w, "new", (struct core_hold_ask){.since = core_frontier_at(3)}, err);
}

static enum kv_rc hold_fence(struct nth_world *w, struct kv_err *err)
{
	return hold(w, "ear",
		    (struct core_hold_ask){.since = core_frontier_at(4), .compare = true, .token = 9}, err);
}

static enum kv_rc hold_drop(struct nth_world *w, struct kv_err *err)
{
	return core_hold_drop(w->rig.shard, "ear", err);
}

static enum kv_rc hold_default(struct nth_world *w, struct kv_err *err)
{
	return core_shard_move_hold(w->rig.shard, CORE_DEFAULT_HOLD, core_frontier_at(2), 0, err);
}

static enum kv_rc hold_list(struct nth_world *w, struct kv_err *err)
{
	struct core_hold *list = NULL;
	size_t count;
	enum kv_rc rc = core_hold_list(w->rig.shard, &list, &count, err);

	if (rc == KV_OK)
		fprintf(w->heard, "%zu", count);
	free(list);
	return rc;
}

static enum kv_rc name_add(struct nth_world *w, struct kv_err *err)
{
	struct core_name name = {.name = "two", .target = w->rig.id};

	return core_name_add(w->rig.engine, &name, err);
}

static enum kv_rc name_rename(struct nth_world *w, struct kv_err *err)
{
	return core_name_rename(w->rig.engine, "one", "moved", false, false, err);
}

static enum kv_rc name_remove(struct nth_world *w, struct kv_err *err)
{
	return core_name_remove(w->rig.engine, "one", err);
}

static enum kv_rc name_list(struct nth_world *w, struct kv_err *err)
{
	struct core_name *list = NULL, one = {0};
	size_t count = 0;
	enum kv_rc rc = core_name_list(w->rig.engine, &list, &count, err);

	if (rc == KV_OK)
		rc = core_name_get(w->rig.engine, "one", &one, err);
	if (rc == KV_OK)
		rc = core_name_get_by_id(w->rig.engine, one.id, &one, err);
	if (rc == KV_OK)
		fprintf(w->heard, "%zu %s", count, one.name);
	free(list);
	return rc;
}

/* --- reading ------------------------------------------------------------------------------------------ */

static void hear(struct nth_world *w, const struct core_update *u)
{
	fprintf(w->heard, "%llu %lld %.*s %u;", (unsigned long long)u->time, (long long)u->diff,
		(int)u->key.len, (const char *)u->key.data, (unsigned)u->val.len);
}

static enum kv_rc read_all(struct nth_world *w, struct core_as_of as_of, struct kv_err *err)
{
	struct core_snapshot *n = NULL;
	struct core_update u;
	bool end = false;
	enum kv_rc rc = core_snapshot_open(w->rig.shard, as_of, &n, err);

	while (rc == KV_OK && !end) {
		rc = core_snapshot_next(n, &u, &end, err);
		if (rc == KV_OK && !end)
			hear(w, &u);
	}
	core_snapshot_close(n);
	return rc;
}

static enum kv_rc snapshot(struct nth_world *w, struct kv_err *err)
{
	return read_all(w, (struct core_as_of){.latest = true}, err);
}

static enum kv_rc as_of(struct nth_world *w, struct kv_err *err)
{
	return read_all(w, (struct core_as_of){.time = 3}, err);
}

static void many_runs(struct nth_world *w)
{
	nth_put_runs(w->rig.shard, 70, 10);
	chore(w->rig.shard, CORE_ROLLUP);
}

static enum kv_rc step_all(struct nth_world *w, struct core_listen *l, struct kv_err *err)
{
	struct core_step step;
	struct core_update u;
	bool end = false, done;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && !end) {
		rc = core_listen_step(l, &step, &end, err);
		for (done = false; rc == KV_OK && !end && !done;) {
			rc = core_listen_next(l, &u, &done, err);
			if (rc == KV_OK && !done)
				hear(w, &u);
		}
		if (rc == KV_OK && !end) {
			struct core_place *p = core_listen_place(l);

			if (p == NULL)
				rc = kv_fail_rc(err, KV_NOMEM);
			core_place_free(p);
		}
	}
	return rc == KV_WOULD_BLOCK ? KV_OK : rc;
}

static enum kv_rc follow(struct nth_world *w, struct kv_err *err)
{
	struct core_listen *l = NULL;
	enum kv_rc rc = core_listen_open(w->rig.shard, core_frontier_at(1), &who, &l, err);

	if (rc == KV_OK)
		rc = step_all(w, l, err);
	core_listen_close(l);
	return rc;
}

static enum kv_rc subscribe(struct nth_world *w, struct kv_err *err)
{
	struct core_read *r = NULL;
	struct core_snapshot *n = NULL;
	struct core_listen *l = NULL;
	struct core_update u;
	bool end = false;
	enum kv_rc rc = core_read_open(w->rig.shard, "nth", &r, err);

	if (rc == KV_OK)
		rc = core_read_subscribe(r, 2, &n, &l, err);
	while (rc == KV_OK && n != NULL && !end) {
		rc = core_snapshot_next(n, &u, &end, err);
		if (rc == KV_OK && !end)
			hear(w, &u);
	}
	if (rc == KV_OK)
		rc = step_all(w, l, err);
	core_snapshot_close(n);
	core_listen_close(l);
	core_read_expire(r);
	return rc;
}

static enum kv_rc scan(struct nth_world *w, struct kv_err *err)
{
	struct core_state state = {0};
	struct core_scan *scan = NULL;
	uint64_t size = 0;
	size_t got;
	char buf[300];
	enum kv_rc rc = core_shard_state(w->rig.shard, &state, err);

	for (size_t i = 0; rc == KV_OK && i < state.batch_count; i++) {
		rc = core_scan_size(core_shard_home(w->rig.shard), state.batches[i], &size, err);
		if (rc == KV_OK)
			rc = core_scan_open(core_shard_home(w->rig.shard), state.batches[i], &scan, err);
		for (uint64_t at = 0; rc == KV_OK && at < size; at += 5000) {
			rc = core_scan_read(scan, at, buf, sizeof buf, &got, err);
			if (rc == KV_OK)
				fprintf(w->heard, "%.*s", (int)got, buf);
		}
		core_scan_close(scan);
		scan = NULL;
	}
	core_state_fini(&state);
	return rc;
}

struct told {
	struct core_waiter w;
	_Atomic(bool) woken;
};

static void tell(struct core_waiter *w)
{
	atomic_store(&((struct told *)w)->woken, true);
}

/* Who waits for the upper is woken by an append that got through, whatever failed; and by no other. */
static enum kv_rc wait_past(struct nth_world *w, struct kv_err *err)
{
	struct told told = {.w = {.time = 6, .wake = tell}};
	bool waits = core_shard_wait(w->rig.shard, &told.w);
	enum kv_rc rc = nth_append_inline(w, err);

	if (waits && core_shard_unwait(w->rig.shard, &told.w))
		ck_assert_int_ne(rc, KV_OK);
	core_engine_drain(w->rig.engine);
	if (rc == KV_OK)
		ck_assert(!waits || atomic_load(&told.woken));
	return rc;
}

static enum kv_rc look(struct nth_world *w, struct kv_err *err)
{
	struct core_writer_state *writers = NULL;
	struct core_reading *readers = NULL;
	struct core_merging *merging = NULL;
	struct core_need need = {.reader.purpose = "nth"};
	size_t a = 0, b = 0, c = 0;
	uint64_t bytes = 0;
	struct core_state state = {0};
	enum kv_rc rc = core_shard_need(w->rig.shard, &need, 5, err);

	if (rc != KV_OK)
		return rc;
	rc = core_shard_writers(w->rig.shard, &writers, &a, err);
	if (rc == KV_OK)
		rc = core_shard_readers(w->rig.shard, &readers, &b, err);
	if (rc == KV_OK)
		rc = core_shard_merging(w->rig.shard, &merging, &c, err);
	if (rc == KV_OK)
		rc = core_shard_state(w->rig.shard, &state, err);
	if (rc == KV_OK) {
		rc = core_state_size(w->rig.id, &state, &bytes, err);
		core_state_fini(&state);
	}
	if (rc == KV_OK)
		fprintf(w->heard, "%zu %zu", a, c);
	core_shard_release(w->rig.shard, &need);
	free(writers);
	free(readers);
	free(merging);
	return rc;
}

/* --- maintenance, start, stop ------------------------------------------------------------------------- */

static enum kv_rc compact(struct nth_world *w, struct kv_err *err)
{
	return chore_rc(w->rig.shard, CORE_COMPACT, err);
}

static enum kv_rc collect(struct nth_world *w, struct kv_err *err)
{
	return chore_rc(w->rig.shard, CORE_GC, err);
}

static enum kv_rc roll_up(struct nth_world *w, struct kv_err *err)
{
	return chore_rc(w->rig.shard, CORE_ROLLUP, err);
}

static void make_garbage(struct nth_world *w)
{
	struct core_snapshot *n;
	struct kv_err err;

	ck_ok(core_snapshot_open(w->rig.shard, (struct core_as_of){.time = 4}, &n, &err), err);
	chore(w->rig.shard, CORE_COMPACT);
	core_snapshot_close(n);
	ck_ok(core_staged_remove(w->rig.shard, "also", &err), err);
	for (int i = 0; i < 2; i++)
		chore(w->rig.shard, CORE_ROLLUP);
}

static void make_strays(struct nth_world *w)
{
	char key[CORE_BLOB_KEY_LEN];

	if (w->rig.disk->kind != DISK_EMBEDDED)
		for (int i = 0; i < 3; i++)
			plant(w->rig.disk, stray_key(w->rig.id, key));
	reopen_well(&w->rig);
}

/* The store that the engine is opened on may fail too; the world keeps the engine it had if this one does. */
static enum kv_rc restart(struct nth_world *w, struct kv_err *err)
{
	core_shard_close(w->rig.shard);
	core_engine_close(w->rig.engine);
	w->rig.shard = NULL;
	w->rig.engine = NULL;
	enum kv_rc rc = disk_try_open(w->rig.disk, &w->rig.engine, err);

	if (rc == KV_OK)
		rc = core_shard_open(w->rig.engine, w->rig.id, &w->rig.shard, err);
	return rc;
}

const struct nth_scene nth_scenes[] = {
	{"make a shard", NULL, make_shard, KV_SHARD_EXISTS, false},
	{"open a shard", nth_forget, open_shard, KV_OK, false},
	{"remove a shard", finish, remove_shard, KV_NO_SHARD, false},
	{"list shards", NULL, list_shards, KV_OK, false},
	{"owner and mode", NULL, own, KV_OK, false},
	{"make a hold", NULL, hold_make, KV_OK, false},
	{"fence a hold", NULL, hold_fence, KV_FENCED, false},
	{"drop a hold", NULL, hold_drop, KV_NOTFOUND, false},
	{"move since", NULL, hold_default, KV_OK, false},
	{"list holds", nth_forget, hold_list, KV_OK, false},
	{"add a name", NULL, name_add, KV_EXISTS, false},
	{"rename a name", nth_forget, name_rename, KV_NOTFOUND, false},
	{"remove a name", NULL, name_remove, KV_NOTFOUND, false},
	{"list names", nth_forget, name_list, KV_OK, false},
	{"snapshot", nth_forget, snapshot, KV_OK, false},
	{"as of", NULL, as_of, KV_OK, false},
	{"merge in passes", many_runs, snapshot, KV_OK, false},
	{"follow", nth_forget, follow, KV_OK, false},
	{"subscribe", NULL, subscribe, KV_OK, false},
	{"scan batches", nth_forget, scan, KV_OK, false},
	{"wait", NULL, wait_past, KV_OK, false},
	{"look at all", nth_forget, look, KV_OK, false},
	{"compact", NULL, compact, KV_OK, false},
	{"collect", make_garbage, collect, KV_OK, false},
	{"sweep", make_strays, collect, KV_OK, false},
	{"roll up", NULL, roll_up, KV_OK, false},
	{"restart", NULL, restart, KV_OK, false},
};
const size_t nth_scene_count = sizeof nth_scenes / sizeof nth_scenes[0];
