/* property_staged.c - the random operations of property.c on staged batches, as files. */
#include "tests/fs/property.h"

#include <inttypes.h>

static const char *const names[] = {"a", "b", "_c.1", "Dd", "e-2"};
enum { NAMES = sizeof names / sizeof names[0], ROWS_MAX = 40 };

static long or_errno(long rc)
{
	return rc < 0 ? -errno : 0;
}

static struct sh_staged *entry_of(struct pm *o, const struct pm_stage *g)
{
	return g->staged != 0 ? shadow_staged_by_id(&o->m[g->shard], g->staged) : NULL;
}

static struct pm_stage *stage_of(struct pm *o, int shard, unsigned id)
{
	for (int i = 0; i < PM_STAGES; i++)
		if (o->stages[i].fd >= 0 && o->stages[i].shard == shard && o->stages[i].staged == id)
			return &o->stages[i];
	return NULL;
}

static void close_one(struct pm *o, struct pm_stage *g)
{
	struct sh_staged *s = g->fd >= 0 ? entry_of(o, g) : NULL;

	if (s != NULL && !o->killed)
		shadow_closed(s);
	if (g->fd >= 0)
		close(g->fd);
	*g = (struct pm_stage){.fd = -1};
}

void pm_close_stages(struct pm *o)
{
	for (int i = 0; i < PM_STAGES; i++)
		close_one(o, &o->stages[i]);
}

void pm_sealed(struct pm *o, int shard, unsigned id)
{
	struct pm_stage *g = id != 0 ? stage_of(o, shard, id) : NULL;

	if (g == NULL)
		return;
	g->sealed = true;
	shadow_stored(entry_of(o, g));
}

void pm_consumed(struct pm *o, int shard, unsigned id)
{
	struct sh_staged *s = shadow_staged_by_id(&o->m[shard], id);
	struct pm_stage *g = stage_of(o, shard, id);

	if (g != NULL)
		g->staged = 0;
	if (s != NULL)
		shadow_drop(s);
}

/* --- reading --------------------------------------------------------------------------------------- */

static void compare_one(struct pm *o, int shard, struct sh_staged *s)
{
	const char *path = pm_batch(o, shard, s->name);
	char *want = sh_batch_text(&s->now, s->rest), *got = slurp_rc(path);
	struct stat st = {0};

	if (got == NULL)
		pm_differs(o, s->name, strerrorname_np(errno), want);
	pm_same(o, s->name, sh_sort_lines(got), want);
	if (stat(path, &st) != 0 || (size_t)st.st_size != strlen(want))
		pm_differs(o, "size of a staged batch", "another", "that of its text");
	shadow_stored(s);
	free(got);
	free(want);
}

void pm_compare_staged(struct pm *o, int shard)
{
	pm_tell(o, "compare staged batches of %d", shard);
	for (int i = 0; i < SH_STAGED; i++)
		if (o->m[shard].staged[i].there)
			compare_one(o, shard, &o->m[shard].staged[i]);
}

void pm_crashed(struct pm *o)
{
	for (int i = 0; i < PM_SHARDS * SH_STAGED; i++) {
		struct sh_staged *s = &o->m[i / SH_STAGED].staged[i % SH_STAGED];
		char *text, name[sizeof s->name];
		bool vague;

		if (!s->there)
			continue;
		snprintf(name, sizeof name, "%s", s->name);
		text = slurp_rc(pm_batch(o, i / SH_STAGED, name));
		vague = !s->was_synced || s->cleared || s->synced.rows.count != s->now.rows.count;
		if (!shadow_crashed(s, text != NULL ? sh_sort_lines(text) : NULL, SIZE_MAX))
			pm_differs(o, name, text != NULL ? text : "(gone)", "what was synced, or more");
		if (s->there && vague)
			s->now.vague = true;
		free(text);
	}
}

/* --- names ----------------------------------------------------------------------------------------- */

static const char *any_name(struct pm *o)
{
	static const char *const odd[] = {"-", "a b", "x+y", "0x"};

	return pm_one_in(o, 40) ? odd[pm_below(o, 4)] : names[pm_below(o, NAMES)];
}

static void rename_one(struct pm *o, int shard)
{
	struct shadow *m = &o->m[shard];
	const char *from = any_name(o), *to = any_name(o);
	bool noreplace = pm_one_in(o, 4), exchange = !noreplace && pm_one_in(o, 4), there;
	struct sh_staged *t = shadow_staged(m, to);
	unsigned replaced = t != NULL ? t->id : 0, flags = noreplace  ? RENAME_NOREPLACE
							   : exchange ? RENAME_EXCHANGE
								      : 0;
	enum kv_rc rc;
	int want;

	pm_tell(o, "rename %s to %s, flags %u, in %d", from, to, flags, shard);
	there = shadow_staged(m, from) != NULL;
	rc = shadow_rename(m, from, to, noreplace, exchange);
	/* The kernel looks names up first. */
	want = !there ? ENOENT : noreplace && t != NULL ? EEXIST : kv_rc_errno(rc);
	if (there && t == NULL && exchange)
		want = ENOENT;
	pm_errno(o, "rename",
		 or_errno(renameat2(AT_FDCWD, pm_batch(o, shard, from), AT_FDCWD, pm_batch(o, shard, to),
				    flags)),
		 want);
	if (replaced != 0 && shadow_staged_by_id(m, replaced) == NULL && stage_of(o, shard, replaced) != NULL)
		stage_of(o, shard, replaced)->staged = 0;
}

static void unlink_one(struct pm *o, int shard)
{
	const char *name = any_name(o);
	struct sh_staged *s = shadow_staged(&o->m[shard], name);

	pm_tell(o, "unlink %s of %d", name, shard);
	pm_errno(o, "unlink", or_errno(unlink(pm_batch(o, shard, name))), s != NULL ? 0 : ENOENT);
	if (s != NULL)
		pm_consumed(o, shard, s->id);
}

/* --- writing --------------------------------------------------------------------------------------- */

static void open_one(struct pm *o, int shard)
{
	const char *name = any_name(o);
	bool excl = pm_one_in(o, 4), trunc = pm_one_in(o, 6), append = pm_one_in(o, 3);
	struct sh_staged *s = shadow_staged(&o->m[shard], name);
	struct pm_stage *g = o->stages;
	int fd, want = 0;
	enum kv_rc rc = KV_OK;

	while (g < o->stages + PM_STAGES && g->fd >= 0)
		g++;
	if (g == o->stages + PM_STAGES)
		return;
	if (s == NULL)
		rc = shadow_create(&o->m[shard], name, &s);
	else if (excl)
		rc = KV_EXISTS;
	else if (stage_of(o, shard, s->id) != NULL)
		rc = KV_BATCH_BUSY;
	want = kv_rc_errno(rc);
	if (rc == KV_QUOTA)
		return;
	pm_tell(o, "open %s of %d%s%s%s", name, shard, excl ? " EXCL" : "", trunc ? " TRUNC" : "",
		append ? " APPEND" : "");
	fd = open(pm_batch(o, shard, name),
		  O_RDWR | O_CREAT | O_CLOEXEC | (excl ? O_EXCL : 0) | (trunc ? O_TRUNC : 0) |
			  (append ? O_APPEND : 0),
		  0644);
	pm_errno(o, "open for writing", or_errno(fd), want);
	if (fd < 0)
		return;
	if (trunc)
		shadow_stage_clear(s);
	*g = (struct pm_stage){.fd = fd, .shard = shard, .staged = s->id};
	if (!append)
		lseek(fd, 0, SEEK_END);
	g->begun = s->now.rows.count != 0 || s->now.has_bounds;
}

/* A line for it, at text; what comes of it, if those before it were taken. */
static enum kv_rc random_line(struct pm *o, struct pm_stage *g, struct sh_staged *s, bool taken, char *text,
			      size_t *len, struct sh_row *row)
{
	struct core_frontier bounds[2];
	uint64_t upper = o->m[g->shard].upper.t;
	char a[CORE_FRONTIER_LEN], b[CORE_FRONTIER_LEN];

	row->kind = SH_KINDS;
	if (pm_one_in(o, g->begun ? 60 : 2)) {
		bounds[0] = pm_one_in(o, 3) ? pm_around(o, core_frontier_at(upper)) : core_frontier_at(upper);
		bounds[1] = pm_one_in(o, 30) ? core_frontier_empty()
					     : core_frontier_at(bounds[0].t + pm_below(o, 5));
		*len += (size_t)sprintf(text + *len, "bounds %s %s\n", core_frontier_format(bounds[0], a),
					core_frontier_format(bounds[1], b));
		return g->begun || !taken ? KV_BAD_SYNTAX : shadow_stage_bounds(s, bounds[0], bounds[1]);
	}
	if (pm_one_in(o, 50)) {
		*len += (size_t)sprintf(text + *len, "%s", pm_one_in(o, 2) ? "commit\n" : "1\t1\ta\n");
		return KV_BAD_SYNTAX;
	}
	*row = pm_row(o, s->now.has_bounds && !s->now.lower.empty ? s->now.lower.t : upper, false);
	*len = pm_print_row(row, text, *len);
	return shadow_stage_row(s, row);
}

/* Some lines in one write, cut behind one of them; what it returns is told line by line. */
static void write_lines(struct pm *o, struct pm_stage *g, struct sh_staged *s)
{
	char *text = malloc(100000);
	size_t len = 0, done = 0, from = strlen(s->rest);
	enum kv_rc rc = KV_OK;
	ssize_t got, want;

	memcpy(text, s->rest, from); /* the line that was begun is ended first */
	if (from != 0)
		len = done = from;
	for (uint64_t n = 1 + pm_below(o, 4); n > 0; n--) {
		struct sh_row row;
		enum kv_rc line;

		if (from != 0 && len == from) { /* every rest is the beginning of this row */
			row = (struct sh_row){.kind = 0, .time = strtoull(s->rest, NULL, 10), .diff = 1};
			len = pm_print_row(&row, text, 0);
			line = shadow_stage_row(s, &row);
		} else {
			line = random_line(o, g, s, rc == KV_OK, text, &len, &row);
		}
		if (rc == KV_OK)
			rc = line;
		if (rc != KV_OK)
			continue;
		if (row.kind < SH_KINDS)
			sh_rows_add(&s->now.rows, row);
		g->begun = true;
		s->rest[0] = '\0';
		done = len;
	}
	pm_more(o, " %.300s", text);
	want = rc == KV_OK ? (ssize_t)(len - from) : done > from ? (ssize_t)(done - from) : -kv_rc_errno(rc);
	got = pm_write(o, g->fd, false, 0, text + from, len - from);
	free(text);
	pm_errno(o, "write to a staged batch", got, want < 0 ? (int)-want : 0);
	if (got != want)
		pm_differs(o, "write to a staged batch", "another count", "all, or up to the bad line");
}

/* The beginning of a row, which stays the last that was written. */
static void write_rest(struct pm *o, struct pm_stage *g, struct sh_staged *s)
{
	char row[40];
	size_t from = strlen(s->rest), len;
	uint64_t time = from != 0 ? strtoull(s->rest, NULL, 10) : 100 + pm_below(o, 900);

	snprintf(row, sizeof row, "%" PRIu64 "\t1\tk0\tv", time);
	if (from >= strlen(row))
		return;
	len = from < 3 ? 3 : from + 1 + pm_below(o, strlen(row) - from);
	pm_tell(o, "write to %s: %.*s", s->name, (int)(len - from), row + from);
	pm_errno(o, "write of a beginning", pm_write(o, g->fd, false, 0, row + from, len - from), 0);
	memcpy(s->rest, row, len);
	s->rest[len] = '\0';
}

static void write_some(struct pm *o, struct pm_stage *g)
{
	struct sh_staged *s = entry_of(o, g);

	if (g->sealed) {
		pm_tell(o, "write to a sealed one");
		pm_errno(o, "write to a named batch", pm_write(o, g->fd, false, 0, "7", 1), ESTALE);
		close_one(o, g);
	} else if (s == NULL) {
		close_one(o, g); /* it was removed: in vain */
	} else if (s->now.rows.count > ROWS_MAX) {
		return;
	} else if (pm_one_in(o, 8)) {
		write_rest(o, g, s);
	} else {
		pm_tell(o, "write to %s of %d:", s->name, g->shard);
		write_lines(o, g, s);
	}
}

static void sync_one(struct pm *o, struct pm_stage *g)
{
	struct sh_staged *s = entry_of(o, g);

	if (s == NULL)
		return;
	pm_tell(o, "fsync of %s", s->name);
	pm_errno(o, "fsync", or_errno(pm_one_in(o, 2) ? fsync(g->fd) : fdatasync(g->fd)), 0);
	shadow_synced(s);
}

static void empty_one(struct pm *o, struct pm_stage *g)
{
	struct sh_staged *s = entry_of(o, g);

	if (s == NULL || g->sealed)
		return;
	pm_tell(o, "ftruncate of %s", s->name);
	pm_errno(o, "ftruncate", or_errno(ftruncate(g->fd, 0)), 0);
	lseek(g->fd, 0, SEEK_SET);
	shadow_stage_clear(s);
	g->begun = false;
}

/* Written anywhere but at the end. */
static void misplace(struct pm *o, struct pm_stage *g)
{
	struct sh_staged *s = entry_of(o, g);

	if (s == NULL || g->sealed || (fcntl(g->fd, F_GETFL) & O_APPEND) != 0)
		return;
	pm_tell(o, "pwrite far behind %s", s->name);
	pm_errno(o, "pwrite elsewhere", or_errno(pwrite(g->fd, "1\t1\tk0\tv0\n", 10, 1 << 20)), EINVAL);
}

void pm_step_staged(struct pm *o)
{
	uint64_t what = pm_below(o, 100);
	int shard = (int)pm_below(o, PM_SHARDS);
	struct pm_stage *g = &o->stages[pm_below(o, PM_STAGES)];
	struct sh_staged *s = &o->m[shard].staged[pm_below(o, SH_STAGED)];

	if (what < 8) {
		rename_one(o, shard);
	} else if (what < 12) {
		unlink_one(o, shard);
	} else if (what < 20) {
		if (s->there)
			compare_one(o, shard, s);
	} else if (g->fd < 0) {
		open_one(o, shard);
	} else if (what < 80) {
		write_some(o, g);
	} else if (what < 87) {
		sync_one(o, g);
	} else if (what < 90) {
		empty_one(o, g);
	} else if (what < 92) {
		misplace(o, g);
	} else {
		pm_tell(o, "close stage %td", g - o->stages);
		close_one(o, g);
	}
}
