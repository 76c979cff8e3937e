/*
 * test_property_staged.c - the random operations of test_property.c on staged batches: making, writing,
 * syncing, reading, renaming and removing them.
 */
#include "tests/core/property.h"

#include <inttypes.h>

#include "core/scan.h"

static const char *const names[] = {"a", "b", "_c.1", "Dd", "e-2"};
enum { NAMES = sizeof names / sizeof names[0], ROWS_MAX = 40 };

static const char *any_name(struct round *o)
{
	static const char *const odd[] = {"1a", "", "a/b", ".x", "-", "a b"};
	unsigned i = (unsigned)below(o, SH_STAGED);

	if (one_in(o, 40))
		return odd[below(o, sizeof odd / sizeof odd[0])];
	if (one_in(o, 12) && o->m.staged[i].there)
		return o->m.staged[i].name;
	return names[below(o, NAMES)];
}

/* --- what is there --------------------------------------------------------------------------------- */

static struct core_uuid id_of(struct round *o, int handle, const char *name)
{
	struct core_staged entry;
	struct kv_err err;

	freshen(o, handle);
	works(o, "get a staged batch", core_staged_get(o->handles[handle], name, &entry, &err), &err);
	return entry.id;
}

static struct pr_stage *stage_of(struct round *o, unsigned id)
{
	for (int i = 0; i < PR_STAGES; i++)
		if (o->stages[i].g != NULL && o->stages[i].staged == id)
			return &o->stages[i];
	return NULL;
}

static void close_stage(struct round *o, struct pr_stage *g)
{
	struct sh_staged *s = g->g != NULL ? shadow_staged_by_id(&o->m, g->staged) : NULL;

	if (s != NULL && !o->crashed)
		shadow_stored(s);
	core_stage_close(g->g);
	*g = (struct pr_stage){0};
}

void close_stages(struct round *o)
{
	for (int i = 0; i < PR_STAGES; i++)
		close_stage(o, &o->stages[i]);
}

void close_elsewhere(struct round *o, unsigned id, int handle)
{
	struct pr_stage *g = id != 0 ? stage_of(o, id) : NULL;

	if (g == NULL || o->handles[g->handle] == o->handles[handle])
		return;
	tell_more(o, " (closed elsewhere)");
	close_stage(o, g);
	freshen(o, handle);
}

/* Before a call about a name. */
static void prepare(struct round *o, int handle, const char *name)
{
	struct sh_staged *s = shadow_staged(&o->m, name);

	if (s != NULL)
		close_elsewhere(o, s->id, handle);
	freshen(o, handle);
}

static void gone(struct round *o, unsigned id)
{
	struct pr_stage *g = stage_of(o, id);

	if (g != NULL)
		g->staged = 0;
}

void staged_sealed(struct round *o, unsigned id)
{
	struct pr_stage *g = id != 0 ? stage_of(o, id) : NULL;

	if (g == NULL)
		return;
	g->sealed = true;
	shadow_stored(shadow_staged_by_id(&o->m, id));
}

void staged_consumed(struct round *o, unsigned id)
{
	struct sh_staged *s = shadow_staged_by_id(&o->m, id);

	if (s != NULL)
		shadow_drop(s);
	gone(o, id);
}

void name_staged(struct round *o, int handle, const char **out, size_t *count)
{
	for (uint64_t n = 1 + below(o, 2); n > 0; n--) {
		struct sh_staged *s = &o->m.staged[below(o, SH_STAGED)];

		for (int i = 0; i < 3 && !s->there; i++)
			s = &o->m.staged[below(o, SH_STAGED)];

		if (!s->there && !one_in(o, 20))
			continue;
		out[(*count)++] = s->there ? s->name : "nosuch";
		if (s->there)
			close_elsewhere(o, s->id, handle);
	}
}

void adopt_transmitted(struct round *o, int handle, struct sh_batch *b, unsigned *id)
{
	struct core_staged *list;
	struct sh_staged *s = NULL;
	struct kv_err err;
	size_t count;

	freshen(o, handle);
	works(o, "list", core_staged_list(o->handles[handle], &list, &count, &err), &err);
	for (size_t i = 0; i < count; i++) {
		if (shadow_staged(&o->m, list[i].name) != NULL)
			continue;
		if (s != NULL)
			differs(o, "a transmission", "two new staged batches", "one");
		want_rc(o, "the name of a transmitted batch", shadow_create(&o->m, list[i].name, &s), &err,
			KV_OK);
	}
	free(list);
	if (s == NULL)
		differs(o, "a transmission", "no new staged batch", "one");
	s->now = sh_batch_copy(b);
	s->transmitted = true;
	shadow_synced(s);
	*id = s->id;
}

/* --- reading --------------------------------------------------------------------------------------- */

/* The text, sorted; NULL: it is not there. Given. */
static char *read_staged(struct round *o, int handle, const char *name, struct core_staged *entry)
{
	struct core_shard *s = o->handles[handle];
	struct core_staged_view view;
	struct core_scan *scan;
	struct kv_err err;
	char *text = malloc(1 << 20);
	size_t at, len;

	freshen(o, handle);
	if (core_staged_get(s, name, entry, &err) == KV_NO_BATCH) {
		free(text);
		return NULL;
	}
	works(o, "open a staged batch", core_staged_open(s, entry->id, &view, &err), &err);
	at = strlen(core_staged_bounds_line(&view.entry, text));
	works(o, "scan", core_scan_open(core_shard_home(s), view.batch, &scan, &err), &err);
	works(o, "read", core_scan_read(scan, 0, text + at, (1 << 20) - 1 - at, &len, &err), &err);
	core_scan_close(scan);
	at += len;
	if (view.rest_len != 0)
		memcpy(text + at, view.rest, view.rest_len);
	text[at + view.rest_len] = '\0';
	core_staged_close(s, &view);
	return sh_sort_lines(text);
}

static void compare_one(struct round *o, int handle, struct sh_staged *s)
{
	struct core_staged entry;
	char *want = sh_batch_text(&s->now, s->rest), *got, sizes[2][100];

	close_elsewhere(o, s->id, handle);
	got = read_staged(o, handle, s->name, &entry);
	compare(o, s->name, got != NULL ? got : "(not there)", want);
	snprintf(sizes[0], sizeof sizes[0], "%" PRIu64 " bytes, %" PRIu64 " rows, %d %d", entry.size,
		 entry.rows, entry.unfinished, entry.has_bounds);
	snprintf(sizes[1], sizeof sizes[1], "%zu bytes, %zu rows, %d %d", strlen(want), s->now.rows.count,
		 s->rest[0] != '\0', s->now.has_bounds);
	compare(o, s->name, sizes[0], sizes[1]);
	shadow_stored(s);
	free(want);
	free(got);
}

void compare_staged(struct round *o)
{
	int handle = any_handle(o);
	struct core_staged *list;
	size_t count, there = 0;
	struct kv_err err;

	tell(o, "compare staged batches by handle %d", handle);
	for (int i = 0; i < SH_STAGED; i++) {
		there += o->m.staged[i].there;
		if (o->m.staged[i].there)
			compare_one(o, handle, &o->m.staged[i]);
	}
	freshen(o, handle);
	works(o, "list", core_staged_list(o->handles[handle], &list, &count, &err), &err);
	for (size_t i = 0; i < count; i++)
		if (shadow_staged(&o->m, list[i].name) == NULL)
			differs(o, "list of staged batches", list[i].name, "nothing of that name");
	if (count != there)
		differs(o, "list of staged batches", "fewer", "all");
	free(list);
}

void adopt_after_crash(struct round *o)
{
	struct core_staged entry;

	for (int i = 0; i < SH_STAGED; i++) {
		struct sh_staged *s = &o->m.staged[i];
		char *text, name[sizeof s->name];

		if (!s->there)
			continue;
		snprintf(name, sizeof name, "%s", s->name);
		text = read_staged(o, 0, name, &entry);
		if (!shadow_crashed(s, text, entry.rows))
			differs(o, name, text != NULL ? text : "(gone)", "what was synced, or more");
		free(text);
	}
}

/* --- names ----------------------------------------------------------------------------------------- */

static void make(struct round *o, int handle, const char *name)
{
	struct core_staged entry;
	struct sh_staged *s;
	struct kv_err err;
	enum kv_rc want;

	tell(o, "create %s", name);
	want = shadow_create(&o->m, name, &s);
	if (want == KV_QUOTA)
		return;
	want_rc(o, "create", core_staged_create(o->handles[handle], name, &entry, &err), &err, want);
}

static void rename_one(struct round *o, int handle)
{
	const char *from = any_name(o), *to = any_name(o);
	char old[130], new[130];
	bool noreplace = one_in(o, 4), exchange = !noreplace && one_in(o, 4);
	unsigned replaced;
	struct sh_staged *t;
	struct kv_err err;
	enum kv_rc want;

	snprintf(old, sizeof old, "%s", from);
	snprintf(new, sizeof new, "%s", to);
	tell(o, "rename %s to %s%s%s", old, new, noreplace ? ", not over another" : "",
	     exchange ? ", exchange" : "");
	prepare(o, handle, old);
	prepare(o, handle, new);
	t = shadow_staged(&o->m, new);
	replaced = t != NULL ? t->id : 0;
	want = shadow_rename(&o->m, old, new, noreplace, exchange);
	want_rc(o, "rename", core_staged_rename(o->handles[handle], old, new, noreplace, exchange, &err),
		&err, want);
	if (replaced != 0 && shadow_staged_by_id(&o->m, replaced) == NULL)
		gone(o, replaced);
}

static void remove_one(struct round *o, int handle)
{
	char name[130];
	struct sh_staged *s;
	struct kv_err err;

	snprintf(name, sizeof name, "%s", any_name(o));
	tell(o, "remove %s", name);
	prepare(o, handle, name);
	s = shadow_staged(&o->m, name);
	want_rc(o, "remove", core_staged_remove(o->handles[handle], name, &err), &err,
		s != NULL ? KV_OK : KV_NO_BATCH);
	if (s != NULL)
		staged_consumed(o, s->id);
}

/* --- writing --------------------------------------------------------------------------------------- */

static void open_one(struct round *o, int handle)
{
	struct sh_staged *s = &o->m.staged[below(o, SH_STAGED)];
	struct pr_stage *g = o->stages, *busy;
	struct core_stage *got;
	struct kv_err err;
	enum kv_rc rc;

	while (g < o->stages + PR_STAGES && g->g != NULL)
		g++;
	if (!s->there || s->transmitted || g == o->stages + PR_STAGES)
		return;
	tell(o, "open %s by handle %d", s->name, handle);
	close_elsewhere(o, s->id, handle);
	busy = stage_of(o, s->id);
	rc = core_stage_open(o->handles[handle], id_of(o, handle, s->name), &got, &err);
	want_rc(o, "open for writing", rc, &err, busy != NULL ? KV_BATCH_BUSY : KV_OK);
	if (rc == KV_OK)
		*g = (struct pr_stage){.g = got, .handle = handle, .staged = s->id};
}

static void add_rows(struct round *o, struct pr_stage *g, struct sh_staged *s)
{
	uint64_t base = s != NULL && s->now.has_bounds && !s->now.lower.empty ? s->now.lower.t : o->m.upper.t;
	struct kv_err err;

	for (uint64_t n = 1 + below(o, 4); n > 0; n--) {
		struct sh_row row = random_row(o, base, false);
		struct core_row in = {.update = update_of(&row), .star = row.star};
		enum kv_rc want = s != NULL ? shadow_stage_row(s, &row) : row.star ? KV_BAD_SYNTAX : KV_OK;

		tell(o, "add to %s: %s%" PRIu64 " %" PRId64 " #%u", s != NULL ? s->name : "(removed)",
		     row.star ? "* " : "", row.time, row.diff, row.kind);
		want = g->sealed ? KV_BATCH_TAKEN : want;
		if (s == NULL && !g->sealed) /* in vain; its bounds are not known any more */
			(void)!core_stage_add(g->g, &in, &err);
		else
			want_rc(o, "add", core_stage_add(g->g, &in, &err), &err, want);
		if (s == NULL || want != KV_OK)
			continue;
		sh_rows_add(&s->now.rows, row);
		s->rest[0] = '\0'; /* the row stands for its beginning */
	}
}

static void set_bounds(struct round *o, struct pr_stage *g, struct sh_staged *s)
{
	struct core_frontier lower = one_in(o, 3) ? around(o, o->m.upper) : o->m.upper;
	struct core_frontier upper = core_frontier_at(lower.t + 1 + below(o, 5));
	struct kv_err err;
	enum kv_rc want;

	upper = one_in(o, 20) ? around(o, o->m.upper) : one_in(o, 30) ? core_frontier_empty() : upper;
	tell(o, "bounds of %s: %" PRIu64 " %" PRIu64, s->name, lower.t, upper.t);
	want = g->sealed ? KV_BATCH_TAKEN : shadow_stage_bounds(s, lower, upper);
	want_rc(o, "bounds", core_stage_bounds(g->g, lower, upper, &err), &err, want);
	if (want == KV_OK)
		s->rest[0] = '\0';
}

static void keep_rest(struct round *o, struct pr_stage *g, struct sh_staged *s)
{
	static const char *const rests[] = {"", "", "1", "12\t1\tk0", "7\t-1\tk0\tv1"};
	const char *rest = rests[below(o, sizeof rests / sizeof rests[0])];
	bool other = strcmp(rest, s->rest) != 0;
	struct kv_err err;

	tell(o, "keep \"%s\" of %s", rest, s->name);
	want_rc(o, "keep", core_stage_keep(g->g, rest, strlen(rest), &err), &err,
		g->sealed && other ? KV_BATCH_TAKEN : KV_OK);
	if (!g->sealed)
		snprintf(s->rest, sizeof s->rest, "%s", rest);
}

static void clear(struct round *o, struct pr_stage *g, struct sh_staged *s)
{
	struct kv_err err;

	tell(o, "clear %s", s->name);
	want_rc(o, "clear", core_stage_clear(g->g, &err), &err, g->sealed ? KV_BATCH_TAKEN : KV_OK);
	if (!g->sealed)
		shadow_stage_clear(s);
}

static void sync_stage(struct round *o, struct pr_stage *g, struct sh_staged *s)
{
	struct kv_err err;

	tell(o, "sync %s", s->name);
	want_rc(o, "sync", core_stage_sync(g->g, &err), &err, KV_OK);
	shadow_synced(s);
}

static void measure(struct round *o, struct pr_stage *g, struct sh_staged *s)
{
	char *want = sh_batch_text(&s->now, s->rest), sizes[2][30];

	snprintf(sizes[0], sizeof sizes[0], "%" PRIu64, core_stage_size(g->g));
	snprintf(sizes[1], sizeof sizes[1], "%zu", strlen(want));
	compare(o, "size of a stage", sizes[0], sizes[1]);
	free(want);
}

static void step_stage(struct round *o)
{
	struct pr_stage *g = &o->stages[below(o, PR_STAGES)];
	struct sh_staged *s = g->g != NULL ? shadow_staged_by_id(&o->m, g->staged) : NULL;
	uint64_t what = below(o, 20);

	if (g->g == NULL) {
		open_one(o, any_handle(o));
	} else if (what < 3) {
		tell(o, "close %s", s != NULL ? s->name : "(removed)");
		close_stage(o, g);
	} else if (what < 12) {
		if (s == NULL || s->now.rows.count < ROWS_MAX)
			add_rows(o, g, s);
	} else if (s == NULL) {
		return;
	} else if (what < 14) {
		set_bounds(o, g, s);
	} else if (what < 16) {
		keep_rest(o, g, s);
	} else if (what < 17) {
		clear(o, g, s);
	} else if (what < 19) {
		sync_stage(o, g, s);
	} else {
		measure(o, g, s);
	}
}

void step_staged(struct round *o)
{
	uint64_t what = below(o, 100);
	int handle = any_handle(o);
	struct sh_staged *s = &o->m.staged[below(o, SH_STAGED)];

	if (what < 14) {
		freshen(o, handle);
		make(o, handle, any_name(o));
	} else if (what < 22) {
		rename_one(o, handle);
	} else if (what < 26) {
		remove_one(o, handle);
	} else if (what < 34) {
		if (s->there)
			compare_one(o, handle, s);
	} else {
		step_stage(o);
	}
}
