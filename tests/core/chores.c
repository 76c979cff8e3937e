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

	ck_ok(core_fold_now(s, true, false, &folded, &err), err);
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

void put_runs_of(struct core_shard *s, unsigned runs,
		 char *(*row)(void *arg, unsigned i, const char *time, const char *key), void *arg)
{
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
		char *text = row(arg, i, time, key);
		built[i] = build(w, from, to, text);
		free(text);
	}
	sprintf(options, "expected_upper=%s new_upper=%s", from, to);
	said = commit_built(w, options, built, runs);
	ck_assert_msg(strncmp(said, "ok", 2) == 0, "%s", said);
	for (unsigned i = 0; i < runs; i++)
		core_built_free(built[i]);
	free(built);
	core_writer_close(w);
}

struct random_rows {
	struct rng rng;
	size_t len;
};

static char *random_row(void *arg, unsigned i, const char *time, const char *key)
{
	struct random_rows *r = arg;
	char *row = malloc(r->len + 100);
	int at = sprintf(row, "%s 1 %s ", time, key);

	(void)i;
	for (size_t j = 0; j < r->len; j++)
		row[at++] = (char)('a' + rng_below(&r->rng, 26));
	strcpy(row + at, ";");
	return row;
}

void put_large_runs(struct core_shard *s, unsigned runs, size_t len)
{
	static _Atomic(uint64_t) salt;
	struct random_rows rows = {.rng = rng_new(19000 + salt++), .len = len};

	put_runs_of(s, runs, random_row, &rows);
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

	ck_ok(kv_consensus_scan(r->disk->consensus, core_uuid_format('s', r->id.u, key), 0, 1000000,
				&versions, &err),
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
			fprintf(out, "%.*s %.*s %lld;", (int)u.key.len, (const char *)u.key.data,
				(int)u.val.len, (const char *)u.val.data, (long long)u.diff);
	}
	if (rc != KV_OK)
		fprintf(out, "%s: %s", kv_rc_name(rc), err.msg);
	fclose(out);
	return text;
}

/* --- pictures ------------------------------------------------------------------------------------------ */

static void print_bytes(FILE *out, struct core_bytes b)
{
	uint64_t hash = 14695981039346656037u;

	if (b.len == CORE_ABSENT) {
		fprintf(out, "?");
		return;
	}
	if (b.len <= 24) {
		fprintf(out, "'%.*s'", (int)b.len, (const char *)b.data);
		return;
	}
	for (size_t i = 0; i < b.len; i++)
		hash = (hash ^ b.data[i]) * 1099511628211u;
	fprintf(out, "%u:%016llx", (unsigned)b.len, (unsigned long long)hash);
}

static void print_row(FILE *out, const struct core_update *u)
{
	print_bytes(out, u->key);
	fputc(' ', out);
	print_bytes(out, u->val);
	fprintf(out, " %llu %lld;", (unsigned long long)u->time, (long long)u->diff);
}

static void print_as_of(FILE *out, struct core_shard *s, uint64_t t)
{
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	bool end = false;
	enum kv_rc rc = core_snapshot_open(s, (struct core_as_of){.time = t}, &n, &err);

	fprintf(out, "\n@%llu ", (unsigned long long)t);
	while (rc == KV_OK && !end) {
		rc = core_snapshot_next(n, &u, &end, &err);
		if (rc == KV_OK && !end)
			print_row(out, &u);
	}
	core_snapshot_close(n);
	if (rc != KV_OK)
		fprintf(out, "%s", rc == KV_OVERFLOW ? kv_rc_name(rc) : err.msg);
}

static void print_heard(FILE *out, struct core_shard *s, struct core_frontier from)
{
	struct core_listen *l;
	struct core_step step;
	struct model got = {0};
	struct kv_err err;
	bool end = false, done;
	enum kv_rc rc = core_listen_open(s, from, &who, &l, &err);

	while (rc == KV_OK && !end) {
		rc = core_listen_step(l, &step, &end, &err);
		for (done = false; rc == KV_OK && !end && !done;) {
			struct core_update u;

			rc = core_listen_next(l, &u, &done, &err);
			if (rc == KV_OK && !done)
				model_add(&got, &u, false);
		}
	}
	core_listen_close(l);
	model_settle(&got);
	fprintf(out, "\nheard ");
	for (size_t i = 0; i < got.count; i++)
		print_row(out, &got.u[i]);
	if (rc != KV_OK && rc != KV_WOULD_BLOCK)
		fprintf(out, "%s", err.msg);
	model_free(&got);
}

char *picture(struct core_shard *s)
{
	struct core_info info;
	struct kv_err err;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	fprintf(out, "%s", frontiers(s));
	ck_ok(core_shard_info(s, true, &info, &err), err);
	if (!info.since.empty) {
		uint64_t end = info.upper.empty ? info.since.t + 40 : info.upper.t;

		for (uint64_t t = info.since.t; t < end; t++)
			print_as_of(out, s, t);
		print_heard(out, s, core_frontier_at(info.since.t + 1));
		if (info.since.t == 0)
			print_heard(out, s, core_frontier_at(0));
	}
	fclose(out);
	return text;
}

void check_picture(struct core_shard *s, const char *want, const char *when)
{
	char *got = picture(s);
	size_t at = 0;

	while (got[at] != '\0' && got[at] == want[at])
		at++;
	at -= at < 60 ? at : 60;
	ck_assert_msg(strcmp(got, want) == 0, "%s: ...%.250s... instead of ...%.250s...", when, got + at,
		      want + at);
	free(got);
}

static void random_rows(struct rng *rng, uint64_t lower, uint64_t upper, bool star, char out[2000])
{
	static const char *keys[] = {"a", "b", "\\N", "", "k"}, *vals[] = {"x", "\\N", ""};
	unsigned count = (unsigned)rng_below(rng, 9);
	int at = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < count; i++) {
		long long diff = (long long)rng_below(rng, 5) - 2;
		uint64_t span = upper > lower ? upper - lower : 1;

		if (rng_below(rng, 20) == 0)
			diff = rng_below(rng, 2) == 0 ? INT64_MAX : -INT64_MAX;
		if (diff == 0)
			diff = 1;
		if (star && rng_below(rng, 3) == 0)
			at += sprintf(out + at, "* ");
		else
			at += sprintf(out + at, "%llu ", (unsigned long long)(lower + rng_below(rng, span)));
		at += sprintf(out + at, "%lld %s %s;", diff, keys[rng_below(rng, 5)],
			      vals[rng_below(rng, 3)]);
	}
}

/* Two or three batches with bounds, cut by the append, or rewritten. */
static void put_built(struct core_shard *s, struct rng *rng, uint64_t span)
{
	struct core_writer *w = writer_on(s);
	struct core_built *built[3];
	unsigned count = 1 + (unsigned)rng_below(rng, 3);
	uint64_t lower = upper_of(s), upper = lower + span,
		 from = lower - (lower != 0 && rng_below(rng, 2) == 0);
	char rows[2000], a[30], b[30], options[150];
	bool rewrite = rng_below(rng, 3) == 0;
	const char *said;

	from = rewrite ? lower : from;
	for (unsigned i = 0; i < count; i++) {
		uint64_t to = rewrite ? upper : upper + rng_below(rng, 3);

		random_rows(rng, from, to, false, rows);
		sprintf(a, "%llu", (unsigned long long)from);
		sprintf(b, "%llu", (unsigned long long)to);
		built[i] = build(w, a, b, rows);
	}
	sprintf(options, "expected_upper=%llu new_upper=%llu", (unsigned long long)lower,
		(unsigned long long)upper);
	if (rewrite)
		sprintf(options + strlen(options), " rewrite_ts=%llu",
			(unsigned long long)(lower + rng_below(rng, span)));
	said = commit_built(w, options, built, count);
	ck_assert_msg(strncmp(said, "ok", 2) == 0, "%s: %s", options, said);
	for (unsigned i = 0; i < count; i++)
		core_built_free(built[i]);
	core_writer_close(w);
}

void fill_mixed(struct core_shard *s, struct rng *rng)
{
	unsigned count = 3 + (unsigned)rng_below(rng, 20);

	for (unsigned i = 0; i < count; i++) {
		uint64_t lower = upper_of(s), span = 1 + rng_below(rng, 4);
		char rows[2000], options[100];

		if (rng_below(rng, 3) == 0) {
			put_built(s, rng, span);
		} else {
			bool star = rng_below(rng, 2) == 0;

			random_rows(rng, lower, lower + span, star, rows);
			if (star)
				sprintf(options, "expected_upper=* new_upper=+%llu",
					(unsigned long long)span);
			else
				sprintf(options, "expected_upper=%llu new_upper=%llu",
					(unsigned long long)lower, (unsigned long long)(lower + span));
			const char *said = verdict(s, options, rows);
			ck_assert_msg(strncmp(said, "ok", 2) == 0, "%s: %s: %s", options, rows, said);
		}
		if (rng_below(rng, 12) == 0)
			put_runs(s, 1 + (unsigned)rng_below(rng, 3));
		if (i + 1 < count && rng_below(rng, 2) == 0)
			fold_to_blob(s);
		if (rng_below(rng, 6) == 0)
			hold_at(s, core_frontier_at(rng_below(rng, upper_of(s) + 2)));
		if (rng_below(rng, 10) == 0)
			chore(s, CORE_COMPACT);
	}
}
