/*
 * batches.c - see batches.h.
 */
#include "tests/core/batches.h"

#include "core/manifest.h"
#include "core/scan.h"

/* --- batches built ahead --------------------------------------------------------------------------- */

static struct core_frontier frontier_of(const char *word)
{
	struct core_frontier f;

	ck_assert_msg(core_frontier_parse(word, strlen(word), &f), "%s", word);
	return f;
}

struct core_writer *writer_on(struct core_shard *s)
{
	struct core_writer *w;
	struct kv_err err;

	ck_ok(core_writer_open(s, "a test", &w, &err), err);
	return w;
}

struct core_built *build(struct core_writer *w, const char *lower, const char *upper, const char *rows)
{
	struct core_built *b;
	struct model m = {0};
	struct kv_err err;

	parse_rows(rows, &m);
	ck_ok(core_writer_batch(w, m.u, m.count, frontier_of(lower), frontier_of(upper), &b, &err), err);
	model_free(&m);
	return b;
}

const char *commit_built(struct core_writer *w, const char *options, struct core_built *const *batches,
			 size_t count)
{
	struct core_append ask = parse_ask(options);
	struct core_appended r;
	struct kv_err err = {0};
	enum kv_rc rc = core_writer_commit(w, &ask, batches, count, &r, &err);

	return verdict_of(rc, &r, &err);
}

const char *commit_one(struct core_writer *w, const char *options, struct core_built *batch)
{
	return commit_built(w, options, &batch, 1);
}

/* --- staged batches -------------------------------------------------------------------------------- */

struct core_stage *stage_at(struct core_shard *s, const char *name)
{
	struct core_stage *g;
	struct kv_err err;

	ck_ok(core_stage_open(s, staged_entry(s, name).id, &g, &err), err);
	return g;
}

struct core_stage *stage_new(struct core_shard *s, const char *name)
{
	struct core_staged entry;
	struct core_stage *g;
	struct kv_err err;

	ck_ok(core_staged_create(s, name, &entry, &err), err);
	ck_ok(core_stage_open(s, entry.id, &g, &err), err);
	return g;
}

enum kv_rc stage_rows(struct core_stage *g, const char *rows, struct kv_err *err)
{
	struct model m = {0};
	enum kv_rc rc = KV_OK;

	parse_rows(rows, &m);
	for (size_t i = 0; i < m.count && rc == KV_OK; i++)
		rc = core_stage_add(g, &(struct core_row){.update = m.u[i], .star = m.star[i]}, err);
	model_free(&m);
	return rc;
}

void stage_put(struct core_stage *g, const char *rows)
{
	struct kv_err err;

	ck_ok(stage_rows(g, rows, &err), err);
}

void stage_whole(struct core_shard *s, const char *name, const char *bounds, const char *rows)
{
	struct core_stage *g = stage_new(s, name);
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];
	struct kv_err err;

	if (bounds != NULL) {
		ck_assert_int_eq(sscanf(bounds, "%23s %23s", lower, upper), 2);
		ck_ok(core_stage_bounds(g, frontier_of(lower), frontier_of(upper), &err), err);
	}
	stage_put(g, rows);
	ck_ok(core_stage_sync(g, &err), err);
	core_stage_close(g);
}

enum kv_rc append_staged(struct core_shard *s, const char *options, const char *names, const char *rows,
			 struct core_appended *r, struct kv_err *err)
{
	struct core_append ask = parse_ask(options);
	char *copy = strdup(names), *rest = copy, *name;
	struct model m = {0};
	struct core_txn *t;
	enum kv_rc rc = core_txn_begin(s, &ask, &t, err);

	*r = (struct core_appended){0};
	parse_rows(rows, &m);
	for (size_t i = 0; i < m.count && rc == KV_OK; i++)
		rc = core_txn_add(t, &(struct core_row){.update = m.u[i], .star = m.star[i]}, err);
	while (rc == KV_OK && (name = strsep(&rest, " ")) != NULL)
		if (name[0] != '\0')
			rc = core_txn_add_staged(t, name, err);
	if (rc == KV_OK)
		rc = core_txn_commit(t, r, err);
	core_txn_free(t);
	model_free(&m);
	free(copy);
	return rc;
}

const char *verdict_staged(struct core_shard *s, const char *options, const char *names, const char *rows)
{
	struct core_appended r;
	struct kv_err err = {0};
	enum kv_rc rc = append_staged(s, options, names, rows, &r, &err);

	return verdict_of(rc, &r, &err);
}

struct core_staged staged_entry(struct core_shard *s, const char *name)
{
	struct core_staged entry;
	struct kv_err err;

	ck_ok(core_staged_get(s, name, &entry, &err), err);
	ck_assert_str_eq(entry.name, name);
	return entry;
}

bool staged_there(struct core_shard *s, const char *name)
{
	struct core_staged entry;
	struct kv_err err;
	enum kv_rc rc = core_staged_get(s, name, &entry, &err);

	ck_assert_msg(rc == KV_OK || rc == KV_NO_BATCH, "%s: %s", kv_rc_name(rc), err.msg);
	return rc == KV_OK;
}

size_t staged_count(struct core_shard *s)
{
	struct core_staged *list;
	struct kv_err err;
	size_t count;

	ck_ok(core_staged_list(s, &list, &count, &err), err);
	free(list);
	return count;
}

/* --- reading --------------------------------------------------------------------------------------- */

char *view_text(struct core_shard *s, struct core_staged_view *view)
{
	char line[CORE_BOUNDS_LINE_LEN], buf[5000], *text = NULL;
	struct core_scan *scan;
	struct kv_err err;
	size_t len = 0, got = sizeof(buf);
	FILE *out = open_memstream(&text, &len);

	fputs(core_staged_bounds_line(&view->entry, line), out);
	ck_ok(core_scan_open(core_shard_home(s), view->batch, &scan, &err), err);
	for (uint64_t at = 0; got == sizeof(buf); at += got) {
		ck_ok(core_scan_read(scan, at, buf, sizeof(buf), &got, &err), err);
		fwrite(buf, 1, got, out);
	}
	core_scan_close(scan);
	if (view->rest_len != 0)
		fwrite(view->rest, 1, view->rest_len, out);
	fclose(out);
	ck_assert_uint_eq(len, view->entry.size);
	for (size_t i = 0; i < len; i++)
		text[i] = (char)(text[i] == '\t' ? ' ' : text[i] == '\n' ? ';' : text[i]);
	return text;
}

char *staged_text(struct core_shard *s, const char *name)
{
	struct core_staged_view view = {0};
	struct core_staged entry;
	struct kv_err err;
	char *text;
	enum kv_rc rc = core_staged_get(s, name, &entry, &err);

	if (rc == KV_OK)
		rc = core_staged_open(s, entry.id, &view, &err);
	text = rc == KV_OK ? view_text(s, &view) : strdup(kv_rc_name(rc));
	core_staged_close(s, &view);
	return text;
}

void check_staged(struct core_shard *s, const char *name, const char *want)
{
	char *got = staged_text(s, name);

	ck_assert_str_eq(got, want);
	free(got);
}

/* --- blobs ----------------------------------------------------------------------------------------- */

struct names {
	char (*keys)[CORE_BLOB_KEY_LEN];
	size_t count;
};

static char *add_name(struct names *n)
{
	n->keys = realloc(n->keys, (n->count + 1) * sizeof(*n->keys));
	ck_assert(n->keys != NULL);
	return n->keys[n->count++];
}

static void name_parts(struct core_shard *s, const struct core_batch *b, struct names *n)
{
	for (size_t i = 0; i < b->part_count; i++)
		if (b->parts[i].inline_data == NULL)
			core_part_key(s->home.shard, &b->parts[i], add_name(n));
}

/* Loose parts of a manifest: a commit that failed may have made blobs of them already, which the next one
 * needs. */
static void name_loose(struct core_shard *s, const struct core_batch *b, struct names *may)
{
	for (size_t i = 0; i < b->part_count; i++)
		if (b->parts[i].inline_data != NULL && b->parts[i].loose)
			core_part_key(s->home.shard, &b->parts[i], add_name(may));
}

static bool is_named(const struct names *n, const char *key)
{
	for (size_t i = 0; i < n->count; i++)
		if (strcmp(key, n->keys[i]) == 0)
			return true;
	return false;
}

static void name_all(struct core_shard *s, const struct core_state *state, struct names *n, struct names *may)
{
	struct core_manifest manifest;
	struct kv_err err;

	for (size_t i = 0; i < state->batch_count; i++)
		name_parts(s, state->batches[i], n);
	for (size_t i = 0; i < state->rollup_count; i++)
		strcpy(add_name(n), state->rollups[i].key);
	for (size_t i = 0; i < state->staged_count; i++) {
		if (state->staged[i].manifest_bytes == 0)
			continue;
		core_manifest_key(s->home.shard, &state->staged[i], add_name(n));
		ck_ok(core_manifest_read(&s->home, &state->staged[i], &manifest, &err), err);
		name_parts(s, manifest.batch, n);
		name_loose(s, manifest.batch, may);
		core_manifest_fini(&manifest);
	}
}

static void read_all_parts(struct core_shard *s, const struct core_state *state)
{
	struct model rows = {0};

	for (size_t i = 0; i < state->batch_count; i++)
		batch_rows(&s->home, state->batches[i], &rows);
	model_free(&rows);
}

void check_blobs(struct disk *d, struct core_shard *s, bool exact)
{
	struct names n = {0}, may = {0};
	struct kv_blob_list list;
	struct core_state state;
	struct kv_err err;
	size_t found = 0;

	ck_ok(core_shard_state(s, &state, &err), err);
	ck_ok(core_state_check(&state, &err), err);
	name_all(s, &state, &n, &may);
	read_all_parts(s, &state);
	ck_ok(kv_blob_list(d->blobs, "", "", 1000000, &list, &err), err);
	for (size_t i = 0; i < list.count; i++) {
		bool named = is_named(&n, list.e[i].key);

		found += named;
		ck_assert_msg(named || !exact || is_named(&may, list.e[i].key), "nobody names %s",
			      list.e[i].key);
	}
	ck_assert_msg(found == n.count, "of %zu blobs %zu are there", n.count, found);
	kv_blob_list_free(&list);
	core_state_fini(&state);
	free(n.keys);
	free(may.keys);
}

/* --- another engine -------------------------------------------------------------------------------- */

struct second second_open(struct rig *r)
{
	struct second o = {.engine = disk_open(r->disk)};
	struct kv_err err;

	ck_ok(core_shard_open(o.engine, r->id, &o.shard, &err), err);
	return o;
}

void second_close(struct second *o)
{
	core_shard_close(o->shard);
	core_engine_close(o->engine);
}
