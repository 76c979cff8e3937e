/*
 * look.c - whether a store keeps what clients were told.
 *
 * How it works: the store is opened with the engine itself, as its owner. Every shard's state is checked
 * whole and its rows are read; each row must be one that a client sent, each transaction whole or absent, and
 * there if it was acknowledged before the limit. At the end a shard takes an append.
 */
#include "tests/power/power.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/names.h"
#include "core/scan.h"
#include "core/shard.h"
#include "core/staged.h"
#include "core/upkeep.h"
#include "core/write.h"

struct looking {
	const struct notes *notes;
	uint64_t limit;
	struct core_engine *engine;
	struct core_shard *shard;
	unsigned number;  /* of the shard */
	unsigned **rows;  /* of each client and transaction, how many were seen; churned ones have none */
	int64_t *churned; /* of each client, the newest transaction whose row was seen; -1 */
	char *why;
};

/* The first reason stays. Always false. */
__attribute__((format(printf, 2, 3))) static bool bad(struct looking *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!l->why && vasprintf(&l->why, fmt, ap) < 0)
		abort();
	va_end(ap);
	return false;
}

static bool before(const struct looking *l, uint64_t time_ns)
{
	return time_ns != NEVER && time_ns < l->limit;
}

static unsigned shard_of(const struct client *c, unsigned n)
{
	return c->kind == LIVES ? c->shard + n : c->shard;
}

/* --- rows ------------------------------------------------------------------------------------------ */

/* Which row of whom it is. */
static bool parse_row(struct looking *l, const struct core_update *u, const struct client **client,
		      unsigned *n, unsigned *i)
{
	char head[64], pad[1 << 17];
	unsigned id;
	int used = 0;
	const struct client *c;

	snprintf(head, sizeof head, "%.*s", (int)u->key.len, (const char *)u->key.data);
	if (sscanf(head, "c%u", &id) != 1 || id >= l->notes->client_count)
		return bad(l, "a row has the key %s", head);
	snprintf(head, sizeof head, "%.*s", (int)(u->val.len < 40 ? u->val.len : 40),
		 (const char *)u->val.data);
	c = &l->notes->clients[id];
	if (sscanf(head, "%u.%u.%n", n, i, &used) != 2 || used == 0 || *n >= c->begun || *i >= c->rows)
		return bad(l, "client %u never sent the row %s", id, head);
	row_pad(c, *n, *i, pad);
	if (u->val.len != (unsigned)used + c->pad || memcmp(u->val.data + used, pad, c->pad) != 0)
		return bad(l, "row %u of transaction %u of client %u has other bytes", *i, *n, id);
	*client = c;
	return true;
}

static bool take_row(struct looking *l, const struct core_update *u)
{
	const struct client *c;
	unsigned n, i;

	if (!parse_row(l, u, &c, &n, &i))
		return false;
	if (u->diff != 1 || shard_of(c, n) != l->number)
		return bad(l, "row %u of transaction %u of client %u has diff %" PRId64 " in shard %u", i, n,
			   c->id, u->diff, l->number);
	if (c->kind == CHURNS && l->churned[c->id] >= 0)
		return bad(l, "churning client %u has the rows of two transactions", c->id);
	l->churned[c->id] = n;
	l->rows[c->id][n]++;
	return true;
}

static bool read_rows(struct looking *l)
{
	struct core_snapshot *snapshot = NULL;
	struct core_update u;
	struct kv_err err;
	bool end = false, good = true;
	enum kv_rc rc = core_snapshot_open(l->shard, (struct core_as_of){.latest = true}, &snapshot, &err);

	while (rc == KV_OK && !end && good) {
		rc = core_snapshot_next(snapshot, &u, &end, &err);
		if (rc == KV_OK && !end)
			good = take_row(l, &u);
	}
	core_snapshot_close(snapshot);
	return rc == KV_OK ? good : bad(l, "shard %u cannot be read: %s", l->number, err.msg);
}

/* --- staged batches -------------------------------------------------------------------------------- */

static bool scan_rows(struct looking *l, const struct core_staged_view *view, const struct client *c,
		      unsigned n, unsigned *rows)
{
	struct core_row_scratch scratch = {0};
	struct core_scan *scan = NULL;
	struct kv_err err;
	size_t len = 0, cap = (size_t)view->entry.size + 1;
	char *text = malloc(cap);
	enum kv_rc rc = core_scan_open(core_shard_home(l->shard), view->batch, &scan, &err);
	bool good = true;

	*rows = 0;
	if (rc == KV_OK)
		rc = core_scan_read(scan, 0, text, cap, &len, &err);
	for (char *p = text, *end; rc == KV_OK && good && p < text + len; p = end + 1) {
		const struct client *of;
		struct core_row row;
		unsigned number, i;

		end = memchr(p, '\n', (size_t)(text + len - p));
		rc = core_row_parse(p, (size_t)(end - p), &scratch, &row, &err);
		if (rc == KV_OK)
			good = parse_row(l, &row.update, &of, &number, &i) &&
			       ((of == c && number == n) || bad(l, "a staged batch has rows of another"));
		++*rows;
	}
	core_scan_close(scan);
	core_row_scratch_free(&scratch);
	free(text);
	return rc == KV_OK ? good : bad(l, "a staged batch cannot be read: %s", err.msg);
}

/* Transaction n of c is not in the shard: then its batch has what was synced, unless a commit may have taken
 * it. */
static bool look_staged(struct looking *l, const struct client *c, unsigned n)
{
	const struct txn_note *t = &c->txns[n];
	struct core_staged_view view = {0};
	struct core_staged entry;
	struct kv_err err;
	char name[32];
	unsigned rows = 0, want = 0;
	bool good;

	for (unsigned half = 0; half < 2; half++)
		want = before(l, t->synced[half]) ? t->synced_rows[half] : want;
	snprintf(name, sizeof name, "b%u_%u", c->id, n);
	enum kv_rc rc = core_staged_get(l->shard, name, &entry, &err);

	if (rc == KV_NO_BATCH)
		return want == 0 ||
		       bad(l, "%u rows of staged batch %s were synced and it is lost", want, name);
	if (rc == KV_OK)
		rc = core_staged_open(l->shard, entry.id, &view, &err);
	if (rc != KV_OK)
		return bad(l, "staged batch %s: %s", name, err.msg);
	good = scan_rows(l, &view, c, n, &rows);
	core_staged_close(l->shard, &view);
	return good && (rows >= want ||
			bad(l, "%u rows of staged batch %s were synced, %u are there", want, name, rows));
}

/* --- a shard --------------------------------------------------------------------------------------- */

/* *present: whether the transaction is in the shard. */
static bool look_txn(struct looking *l, const struct client *c, unsigned n, bool *present)
{
	const struct txn_note *t = &c->txns[n];
	unsigned rows = l->rows[c->id][n];

	*present = rows != 0;
	if (c->kind == CHURNS) { /* its row may have been retracted */
		*present = l->churned[c->id] >= (int64_t)n;
		rows = *present ? c->rows : 0;
	}
	if (*present && rows != c->rows)
		return bad(l, "%u of %u rows of transaction %u of client %u are there", rows, c->rows, n,
			   c->id);
	if (*present && (t->refused || t->begun == NEVER))
		return bad(l, "transaction %u of client %u is there, and was refused or never sent", n,
			   c->id);
	if (!*present && before(l, t->done))
		return bad(l, "transaction %u of client %u was acknowledged and is lost", n, c->id);
	return *present || !t->staged || look_staged(l, c, n);
}

static bool look_rows(struct looking *l, struct core_frontier upper)
{
	uint64_t count = 0;
	bool present;

	if (!read_rows(l))
		return false;
	for (size_t i = 0; i < l->notes->client_count; i++) {
		const struct client *c = &l->notes->clients[i];

		for (unsigned n = 0; n < c->begun; n++) {
			if (shard_of(c, n) != l->number)
				continue;
			if (!look_txn(l, c, n, &present))
				return false;
			count += present;
		}
	}
	return upper.t == count || bad(l, "shard %u has %" PRIu64 " transactions and the upper %" PRIu64,
				       l->number, count, upper.t);
}

static bool look_open_shard(struct looking *l, const struct shard_note *s)
{
	struct core_state state;
	struct kv_err err;
	enum kv_rc rc = core_shard_state(l->shard, &state, &err);
	struct core_frontier upper;

	if (rc != KV_OK)
		return bad(l, "shard %u has no state: %s", l->number, err.msg);
	rc = core_state_check(&state, &err);
	upper = state.upper;
	core_state_fini(&state);
	if (rc != KV_OK)
		return bad(l, "the state of shard %u is not sound: %s", l->number, err.msg);
	if (before(l, s->removed))
		return bad(l, "shard %u was removed and is there", l->number);
	if (before(l, s->finished) && !upper.empty)
		return bad(l, "shard %u was finished and is not", l->number);
	return upper.empty ? (before(l, s->finishing) || bad(l, "shard %u is finished", l->number))
			   : look_rows(l, upper);
}

static bool look_shard(struct looking *l)
{
	const struct shard_note *s = &l->notes->shards[l->number];
	struct core_shard_id id;
	struct core_name name;
	struct kv_err err;
	bool good;

	if (!core_uuid_parse('s', s->id, strlen(s->id), &id.u))
		return bad(l, "%s is no id", s->id);
	if (before(l, s->named)) {
		char text[64];

		snprintf(text, sizeof text, "n%s", s->id);
		if (core_name_get(l->engine, text, &name, &err) != KV_OK)
			return bad(l, "the name of shard %u is lost", l->number);
	}

	enum kv_rc rc = core_shard_open(l->engine, id, &l->shard, &err);

	if (rc == KV_OK) {
		good = look_open_shard(l, s);
		core_shard_close(l->shard);
		return good;
	}
	if (rc != KV_NO_SHARD)
		return bad(l, "shard %u cannot be opened: %s", l->number, err.msg);
	return !before(l, s->made) || before(l, s->removing) ||
	       bad(l, "shard %u was made and is lost", l->number);
}

/* The store takes an append. */
static bool go_on(struct looking *l)
{
	static const struct core_owner owner = {.mode = 0700};
	const struct core_shard_id id = {core_uuid_new()};
	struct core_writer *w = NULL;
	struct core_shard *s = NULL;
	struct kv_err err;
	const struct core_update row = {
		.key = {(const uint8_t *)"k", 1}, .val = {.len = CORE_ABSENT}, .diff = 1};
	enum kv_rc rc = core_shard_create(l->engine, id, owner, &err);

	if (rc == KV_OK)
		rc = core_shard_open(l->engine, id, &s, &err);
	if (rc == KV_OK)
		rc = core_writer_open(s, "after the power cut", &w, &err);
	if (rc == KV_OK)
		rc = core_writer_compare_and_append(w, &row, 1, core_frontier_at(0), core_frontier_at(1),
						    NULL, &err);
	core_writer_close(w);
	core_shard_close(s);
	return rc == KV_OK || bad(l, "the store takes no append: %s", err.msg);
}

static bool look_all(struct looking *l)
{
	bool good = true;

	for (size_t i = 0; i < l->notes->client_count; i++) {
		if (l->notes->clients[i].count)
			memset(l->rows[i], 0, l->notes->clients[i].count * sizeof **l->rows);
		l->churned[i] = -1;
	}
	for (l->number = 0; good && l->number < l->notes->shard_count; l->number++)
		good = look_shard(l);
	return good;
}

bool look(const char *dir, const struct notes *n, uint64_t limit_ns, bool thorough, char **why)
{
	const struct core_engine_config config = {.no_upkeep = !thorough};
	struct looking l = {.notes = n, .limit = limit_ns};
	char path[4096];
	struct kv_store *store;
	struct kv_err err;
	bool good;

	snprintf(path, sizeof path, "%s/store", dir);
	l.rows = calloc(n->client_count, sizeof *l.rows);
	l.churned = calloc(n->client_count, sizeof *l.churned);
	for (size_t i = 0; i < n->client_count; i++)
		l.rows[i] = calloc(n->clients[i].count + 1, sizeof **l.rows);
	if (kv_store_embedded_open(path, false, "tests/power", &store, &err) != KV_OK ||
	    core_engine_open(store, &config, &l.engine, &err) != KV_OK) {
		good = bad(&l, "the store cannot be opened: %s", err.msg);
	} else {
		good = look_all(&l) && go_on(&l);
		if (good && thorough) {
			core_upkeep_settle(l.engine);
			good = look_all(&l);
		}
		core_engine_close(l.engine);
	}
	for (size_t i = 0; i < n->client_count; i++)
		free(l.rows[i]);
	free(l.rows);
	free(l.churned);
	*why = l.why;
	return good;
}
