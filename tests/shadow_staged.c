/* shadow_staged.c - see shadow.h: staged batches. */
#include "tests/shadow.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sh_staged *shadow_staged(struct shadow *m, const char *name)
{
	for (size_t i = 0; i < SH_STAGED; i++)
		if (m->staged[i].there && strcmp(m->staged[i].name, name) == 0)
			return &m->staged[i];
	return NULL;
}

struct sh_staged *shadow_staged_by_id(struct shadow *m, unsigned id)
{
	for (size_t i = 0; i < SH_STAGED; i++)
		if (m->staged[i].there && m->staged[i].id == id)
			return &m->staged[i];
	return NULL;
}

/* [A-Za-z_][A-Za-z0-9._-]{0,127} */
static bool name_is_right(const char *name)
{
	size_t len = strlen(name);
	bool right = len >= 1 && len <= 128 && (isalpha((unsigned char)name[0]) || name[0] == '_');

	for (size_t i = 1; i < len; i++)
		right = right && (isalnum((unsigned char)name[i]) || strchr("._-", name[i]) != NULL);
	return right;
}

enum kv_rc shadow_create(struct shadow *m, const char *name, struct sh_staged **out)
{
	*out = NULL;
	if (!name_is_right(name))
		return KV_BAD_NAME;
	if (shadow_staged(m, name) != NULL)
		return KV_EXISTS;
	for (size_t i = 0; i < SH_STAGED && *out == NULL; i++)
		if (!m->staged[i].there)
			*out = &m->staged[i];
	if (*out == NULL)
		return KV_QUOTA;
	**out = (struct sh_staged){.there = true, .id = m->next_id++};
	snprintf((*out)->name, sizeof(*out)->name, "%s", name);
	return KV_OK;
}

void shadow_drop(struct sh_staged *s)
{
	sh_batch_free(&s->now);
	sh_batch_free(&s->synced);
	sh_batch_free(&s->stored);
	sh_batch_free(&s->closed);
	*s = (struct sh_staged){0};
}

enum kv_rc shadow_rename(struct shadow *m, const char *from, const char *to, bool noreplace, bool exchange)
{
	struct sh_staged *f = shadow_staged(m, from), *t = shadow_staged(m, to);
	char name[sizeof f->name];

	if (!name_is_right(to))
		return KV_BAD_NAME;
	if (f == NULL)
		return KV_NO_BATCH;
	if (noreplace && t != NULL)
		return KV_EXISTS;
	if (exchange && t == NULL)
		return KV_NO_BATCH;
	if (f == t)
		return KV_OK;
	snprintf(name, sizeof name, "%s", to);
	if (exchange)
		snprintf(t->name, sizeof t->name, "%s", f->name);
	else if (t != NULL)
		shadow_drop(t);
	snprintf(f->name, sizeof f->name, "%s", name);
	return KV_OK;
}

enum kv_rc shadow_stage_row(const struct sh_staged *s, const struct sh_row *row)
{
	if (row->star)
		return KV_BAD_SYNTAX;
	if (!s->now.has_bounds)
		return KV_OK;
	if (s->now.lower.empty || row->time < s->now.lower.t)
		return KV_NOT_BEYOND_LOWER;
	return !s->now.upper.empty && row->time >= s->now.upper.t ? KV_BEYOND_UPPER : KV_OK;
}

enum kv_rc shadow_stage_bounds(struct sh_staged *s, struct core_frontier lower, struct core_frontier upper)
{
	if (s->now.rows.count != 0 || s->now.has_bounds)
		return KV_BAD_SYNTAX;
	if (core_frontier_lt(upper, lower))
		return KV_BAD_BOUNDS;
	s->now.has_bounds = true;
	s->now.lower = lower;
	s->now.upper = upper;
	return KV_OK;
}

void shadow_stage_clear(struct sh_staged *s)
{
	sh_batch_free(&s->now);
	s->rest[0] = '\0';
	s->cleared = true;
}

void shadow_synced(struct sh_staged *s)
{
	sh_batch_free(&s->synced);
	s->synced = sh_batch_copy(&s->now);
	memcpy(s->synced_rest, s->rest, sizeof s->rest);
	s->was_synced = true;
	s->cleared = false;
	shadow_stored(s);
}

void shadow_stored(struct sh_staged *s)
{
	sh_batch_free(&s->stored);
	s->stored = sh_batch_copy(&s->now);
	memcpy(s->stored_rest, s->rest, sizeof s->rest);
	s->was_stored = true;
	sh_batch_free(&s->closed);
	s->was_closed = false;
}

void shadow_closed(struct sh_staged *s)
{
	struct sh_batch before = sh_batch_copy(&s->stored);
	char rest[sizeof s->rest];
	bool was_stored = s->was_stored;

	memcpy(rest, s->stored_rest, sizeof rest);
	shadow_stored(s);
	s->closed = before;
	memcpy(s->closed_rest, rest, sizeof rest);
	s->was_closed = was_stored;
}

/* --- text ------------------------------------------------------------------------------------------ */

static void print_row(FILE *f, const struct sh_row *row, uint64_t lift)
{
	fprintf(f, "%" PRIu64 "\t%" PRId64 "\t%s\t%s\n", row->time < lift ? lift : row->time, row->diff,
		sh_key(row->kind), sh_val(row->kind));
}

char *sh_batch_text(const struct sh_batch *b, const char *rest)
{
	struct sh_rows settled = sh_rows_settled(&b->rows);
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN], *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert(f != NULL);
	if (b->has_bounds)
		fprintf(f, "bounds %s %s\n", core_frontier_format(b->lower, lower),
			core_frontier_format(b->upper, upper));
	for (size_t i = 0; i < settled.count; i++)
		print_row(f, &settled.r[i], b->has_rewrite ? b->rewrite_ts : 0);
	fprintf(f, "%s", rest);
	fclose(f);
	sh_rows_free(&settled);
	return sh_sort_lines(text);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *sh_sort_lines(char *text)
{
	size_t len = strlen(text), count = 0, at = 0;
	char *copy = strdup(text), *rest = copy, *end = strrchr(copy, '\n');
	char **lines = calloc(len + 1, sizeof *lines);

	assert(copy != NULL && lines != NULL);
	if (end == NULL) {
		free(lines);
		free(copy);
		return text;
	}
	*end = '\0'; /* what stands behind the last newline stays there */
	if (strncmp(copy, "bounds ", 7) == 0) {
		const char *first = strsep(&rest, "\n");

		at = strlen(first) + 1;
	}
	while (rest != NULL)
		lines[count++] = strsep(&rest, "\n");
	qsort(lines, count, sizeof *lines, by_text);
	for (size_t i = 0; i < count; i++) {
		memcpy(text + at, lines[i], strlen(lines[i]));
		at += strlen(lines[i]);
		text[at++] = '\n';
	}
	free(lines);
	free(copy);
	return text;
}

/* --- crashes --------------------------------------------------------------------------------------- */

static bool is_left(const struct sh_batch *b, const char *rest, const char *text, size_t rows)
{
	char *want = sh_batch_text(b, rest);
	bool same = strcmp(want, text) == 0 && (rows == SIZE_MAX || rows == b->rows.count);

	free(want);
	return same;
}

static void become(struct sh_staged *s, const struct sh_batch *b, const char *rest)
{
	struct sh_batch copy = sh_batch_copy(b);

	sh_batch_free(&s->now);
	s->now = copy;
	memmove(s->rest, rest, strlen(rest) + 1);
	shadow_synced(s);
}

bool shadow_crashed(struct sh_staged *s, const char *text, size_t rows)
{
	bool from_synced = s->was_synced && !s->cleared;
	struct sh_batch some = s->now;
	const char *rest;

	if (text == NULL) {
		bool may = !s->was_synced;

		shadow_drop(s);
		return may;
	}
	if (is_left(&s->now, s->rest, text, rows)) {
		become(s, &s->now, s->rest);
		return true;
	}
	if (s->was_synced && is_left(&s->synced, s->synced_rest, text, rows)) {
		become(s, &s->synced, s->synced_rest);
		return true;
	}
	if (s->was_stored && is_left(&s->stored, s->stored_rest, text, rows)) {
		become(s, &s->stored, s->stored_rest);
		return true;
	}
	if (s->was_closed && is_left(&s->closed, s->closed_rest, text, rows)) {
		become(s, &s->closed, s->closed_rest);
		return true;
	}
	/* Flushed in between, by one who looked; with the beginning of a row that it had then. */
	rest = strrchr(text, '\n') != NULL ? strrchr(text, '\n') + 1 : text;
	if (strlen(rest) >= sizeof s->rest)
		return false;
	for (size_t n = from_synced ? s->synced.rows.count : 0; n <= s->now.rows.count; n++) {
		some.rows.count = n;
		if (!is_left(&some, rest, text, rows))
			continue;
		become(s, &some, rest);
		return true;
	}
	some = (struct sh_batch){0};
	if (from_synced || !is_left(&some, rest, text, rows)) /* as it was made, or emptied */
		return false;
	become(s, &some, rest);
	return true;
}
