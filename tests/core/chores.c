/*
 * chores.c - see chores.h.
 */
#include "tests/core/chores.h"

enum kv_rc chore_rc(struct core_shard *s, enum core_upkeep_kind kind, struct kv_err *err)
{
	struct core_upkeep_result result;

	return core_upkeep_run(s, kind, &result, err);
}

struct core_upkeep_result chore(struct core_shard *s, enum core_upkeep_kind kind)
{
	struct core_upkeep_result result;
	struct kv_err err;

	ck_ok(core_upkeep_run(s, kind, &result, &err), err);
	return result;
}

void fold_to_blob(struct core_shard *s)
{
	struct kv_err err;
	bool folded;

	ck_ok(core_fold_now(s, true, &folded, &err), err);
}

void put_hollow(struct core_shard *s, const char *rows, size_t pad)
{
	static _Atomic(uint64_t) salt;
	struct rng rng = rng_new(9000 + salt++);
	char *all = malloc(strlen(rows) + pad + 60);
	int at = sprintf(all, "%s* 1 pad ", rows);
	struct core_appended r;
	struct kv_err err;

	for (size_t i = 0; i < pad; i++)
		all[at++] = (char)('a' + rng_below(&rng, 26));
	strcpy(all + at, ";");
	ck_ok(append(s, "expected_upper=* new_upper=+1", all, &r, &err), err);
	free(all);
}

void put_runs(struct core_shard *s, unsigned runs)
{
	put_large_runs(s, runs, 5000);
}

void put_large_runs(struct core_shard *s, unsigned runs, size_t len)
{
	static _Atomic(uint64_t) salt;
	struct rng rng = rng_new(19000 + salt++);
	struct core_writer *w = writer_on(s);
	struct core_built **built = calloc(runs, sizeof(struct core_built *));
	uint64_t lower = upper_of(s);
	char from[30], to[30], time[30], key[30], options[120];
	const char *said;

	sprintf(from, "%llu", (unsigned long long)lower);
	sprintf(to, "%llu", (unsigned long long)lower + runs);
	for (unsigned i = 0; i < runs; i++) {
		sprintf(time, "%llu", (unsigned long long)lower + i);
		sprintf(key, "r%u", i);
		char *row = malloc(len + 100);
		int at = sprintf(row, "%s 1 %s ", time, key);
		for (size_t j = 0; j < len; j++)
			row[at++] = (char)('a' + rng_below(&rng, 26));
		strcpy(row + at, ";");
		built[i] = build(w, from, to, row);
		free(row);
	}
	sprintf(options, "expected_upper=%s new_upper=%s", from, to);
	said = commit_built(w, options, built, runs);
	ck_assert_msg(strncmp(said, "ok", 2) == 0, "%s", said);
	for (unsigned i = 0; i < runs; i++)
		core_built_free(built[i]);
	free(built);
	core_writer_close(w);
}

struct core_state state_of(struct core_shard *s)
{
	struct core_state state;
	struct kv_err err;

	ck_ok(core_shard_state(s, &state, &err), err);
	ck_ok(core_state_check(&state, &err), err);
	return state;
}

size_t batches_of(struct core_shard *s)
{
	struct core_state state = state_of(s);
	size_t count = state.batch_count;

	core_state_fini(&state);
	return count;
}

uint64_t rows_of(struct core_shard *s)
{
	struct core_state state = state_of(s);
	struct core_totals totals = core_state_totals(&state);

	core_state_fini(&state);
	return totals.rows;
}

uint64_t runs_of(struct core_shard *s)
{
	struct core_state state = state_of(s);
	struct core_totals totals = core_state_totals(&state);

	core_state_fini(&state);
	return totals.runs;
}

size_t dead_of(struct core_shard *s)
{
	struct core_state state = state_of(s);
	size_t count = state.dead_count;

	core_state_fini(&state);
	return count;
}

void hold_at(struct core_shard *s, struct core_frontier to)
{
	struct kv_err err;

	ck_ok(core_shard_move_hold(s, CORE_DEFAULT_HOLD, to, 0, &err), err);
}

size_t version_count(struct rig *r, uint64_t *least)
{
	struct kv_versions versions;
	struct kv_err err;
	char key[CORE_ID_LEN];

	ck_ok(kv_consensus_scan(r->disk->consensus, core_uuid_format('s', r->id.u, key), 0, 1000000, &versions,
				&err),
	      err);
	size_t count = versions.count;
	*least = count != 0 ? versions.v[0].seqno : 0;
	kv_versions_free(&versions);
	return count;
}

void check_tidy(struct rig *r)
{
	size_t keep = r->disk->kind == DISK_SHARED ? 2 : 1;
	struct core_state state = state_of(r->shard);
	uint64_t least;

	ck_assert_uint_eq(state.dead_count, 0);
	ck_assert_uint_le(state.rollup_count, keep);
	if (r->disk->kind != DISK_EMBEDDED) {
		version_count(r, &least);
		ck_assert_uint_eq(least, state.rollups[0].seqno);
		check_blobs(r->disk, r->shard, true);
	}
	core_state_fini(&state);
}

void reopen_well(struct rig *r)
{
	core_shard_close(r->shard);
	core_engine_close(r->engine);
	rig_open(r);
}

void plant(struct disk *d, const char *key)
{
	struct kv_err err;

	ck_ok(kv_blob_set(d->blobs, key, "stray", 5, &err), err);
}

bool has_blob(struct disk *d, const char *key)
{
	struct kv_err err;
	size_t got;
	char buf[8];
	enum kv_rc rc = kv_blob_get(d->blobs, key, 0, buf, sizeof buf, &got, &err);

	ck_assert_msg(rc == KV_OK || rc == KV_NOTFOUND, "%s", err.msg);
	return rc == KV_OK;
}

char *stray_key(struct core_shard_id id, char key[CORE_BLOB_KEY_LEN])
{
	struct core_part part = {.id.u = core_uuid_new(), .instance.u = core_uuid_new()};

	return core_part_key(id, &part, key);
}

char *snapshot_text(struct core_snapshot *n)
{
	struct core_update u;
	struct kv_err err;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	bool end = false;
	enum kv_rc rc = KV_OK;

	core_snapshot_rewind(n);
	while (rc == KV_OK && !end) {
		rc = core_snapshot_next(n, &u, &end, &err);
		if (rc == KV_OK && !end)
			fprintf(out, "%.*s %.*s %lld;", (int)u.key.len, (const char *)u.key.data, (int)u.val.len,
				(const char *)u.val.data, (long long)u.diff);
	}
	if (rc != KV_OK)
		fprintf(out, "%s: %s", kv_rc_name(rc), err.msg);
	fclose(out);
	return text;
}
