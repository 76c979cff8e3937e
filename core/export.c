/*
 * export.c - see export.h.
 *
 * A shard's state is copied, which pins its batches here; they are merged with their times advanced to since
 * (merge.h), in bounded memory. Where another process owns the store it may delete what is read: then the
 * shard is taken back, looked up anew, and read again.
 */
#include "core/export.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/compact.h"
#include "core/engine_impl.h"
#include "core/merge.h"
#include "core/names.h"

enum { OUT_LEN = 64 << 10, LINE_LEN = 1024, TRIES = 8, LOOK_UP_ROWS = 4096, LIST_PAGE = 1024 };

struct export
{
	struct core_engine *engine;
	const struct core_export_sink *sink;
	struct core_exported *sum;
	XXH3_state_t *all;
	XXH3_state_t *one;
	bool in_shard;
	char *row;
	size_t row_cap;
	uint64_t done; /* updates read */
	uint64_t total;
	size_t len;
	char out[OUT_LEN];
};

/* --- bytes ----------------------------------------------------------------------------------------- */

static enum kv_rc flush(struct export *x, struct kv_err *err)
{
	enum kv_rc rc = x->len != 0 ? x->sink->write(x->sink->arg, x->out, x->len, err) : KV_OK;

	x->len = 0;
	return rc;
}

static enum kv_rc put(struct export *x, const void *data, size_t len, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	XXH3_64bits_update(x->all, data, len);
	if (x->in_shard)
		XXH3_64bits_update(x->one, data, len);
	x->sum->bytes += len;
	if (x->len + len > OUT_LEN)
		rc = flush(x, err);
	if (rc == KV_OK && len > OUT_LEN)
		return x->sink->write(x->sink->arg, data, len, err);
	if (rc == KV_OK) {
		memcpy(x->out + x->len, data, len);
		x->len += len;
	}
	return rc;
}

KV_PRINTF(3, 4)
static enum kv_rc put_line(struct export *x, struct kv_err *err, const char *fmt, ...)
{
	char line[LINE_LEN];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	return put(x, line, (size_t)len, err);
}

static enum kv_rc put_row(struct export *x, const struct core_update *u, struct kv_err *err)
{
	size_t need = core_row_text_len(u);

	if (need > x->row_cap) {
		char *grown = realloc(x->row, need);

		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		x->row = grown;
		x->row_cap = need;
	}
	return put(x, x->row, core_row_format(u, x->row), err);
}

/* --- a shard --------------------------------------------------------------------------------------- */

static enum kv_rc put_holds(struct export *x, const struct core_state *s, struct kv_err *err)
{
	char since[CORE_FRONTIER_LEN];
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < s->hold_count && rc == KV_OK; i++)
		rc = put_line(x, err, "hold %s since=%s token=%" PRIu64 " follow=%" PRIu64 "\n",
			      s->holds[i].name, core_frontier_format(s->holds[i].since, since),
			      s->holds[i].token, s->holds[i].follow);
	return rc;
}

static enum kv_rc put_tokens(struct export *x, const struct core_state *s, struct kv_err *err)
{
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN], id[CORE_ID_LEN];
	char asked[2 * CORE_ASKED_LEN + 1];
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < s->token_count && rc == KV_OK; i++) {
		const struct core_done *done = &s->tokens[(s->token_first + i) % CORE_TOKENS_MAX];

		for (size_t j = 0; j < CORE_ASKED_LEN; j++)
			snprintf(asked + 2 * j, 3, "%02x", done->asked.b[j]);
		rc = put_line(x, err,
			      "token %s asked=%s rows=%" PRIu64 " batch_rows=%" PRIu64 " lower=%s upper=%s\n",
			      core_uuid_format('i', done->token.u, id), asked, done->rows, done->batch_rows,
			      core_frontier_format(done->lower, lower),
			      core_frontier_format(done->upper, upper));
	}
	return rc;
}

static void tell(struct export *x)
{
	if (x->sink->progress != NULL)
		x->sink->progress(x->sink->arg, x->done, x->total > x->done ? x->total : x->done);
}

static enum kv_rc put_rows(struct export *x, const struct core_home *home, const struct core_state *s,
			   uint64_t *updates, struct kv_err *err)
{
	struct core_merge *merge;
	struct core_update u;
	bool end = false;
	enum kv_rc rc;

	if (s->since.empty || s->batch_count == 0) /* nothing can be read any more, or yet */
		return KV_OK;
	rc = core_merge_open(home, s->batches, s->batch_count, CORE_MERGE_ADVANCE,
			     core_merge_advance(s, s->upper), &merge, err);
	while (rc == KV_OK && !end) {
		rc = core_merge_next(merge, &u, &end, err);
		if (rc != KV_OK || end)
			break;
		rc = put_row(x, &u, err);
		x->done++;
		if (++*updates % LOOK_UP_ROWS == 0)
			tell(x);
	}
	core_merge_close(merge);
	return rc;
}

static enum kv_rc put_state(struct export *x, struct core_shard *shard, const struct core_state *s,
			    struct kv_err *err)
{
	char id[CORE_ID_LEN], since[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];
	uint64_t updates = 0, began = x->done;
	enum kv_rc rc;

	XXH3_64bits_reset(x->one);
	x->in_shard = true;
	rc = put_line(x, err, "shard %s since=%s upper=%s uid=%u gid=%u mode=%04o created_ms=%" PRIu64 "\n",
		      core_uuid_format('s', core_shard_id(shard).u, id),
		      core_frontier_format(s->since, since), core_frontier_format(s->upper, upper),
		      s->owner.uid, s->owner.gid, s->owner.mode, s->created_ms);
	if (rc == KV_OK)
		rc = put_holds(x, s, err);
	if (rc == KV_OK)
		rc = put_tokens(x, s, err);
	if (rc == KV_OK)
		rc = put_rows(x, core_shard_home(shard), s, &updates, err);
	x->in_shard = false;
	if (rc == KV_OK)
		rc = put_line(x, err, "end updates=%" PRIu64 " xxh3=%016" PRIx64 "\n", updates,
			      (uint64_t)XXH3_64bits_digest(x->one));
	if (rc == KV_OK) {
		x->sum->updates += updates;
		x->done = began + core_state_totals(s).rows; /* what was summed away is done too */
		tell(x);
	} else {
		x->done = began;
	}
	return rc;
}

static enum kv_rc put_once(struct export *x, struct core_shard_id id, bool again, struct kv_err *err)
{
	struct core_shard *shard;
	struct core_state state = {0};
	enum kv_rc rc = core_shard_visit(x->engine, id, &shard, err);

	if (rc != KV_OK)
		return rc;
	if (again) { /* it is as it was when it was loaded */
		struct core_info info;

		rc = core_shard_info(shard, true, &info, err);
	}
	if (rc == KV_OK)
		rc = core_shard_state(shard, &state, err);
	if (rc == KV_OK && state.tombstone)
		rc = kv_fail_rc(err, KV_NO_SHARD);
	if (rc == KV_OK)
		rc = put_state(x, shard, &state, err);
	core_state_fini(&state);
	core_shard_close(shard);
	return rc;
}

/* Again from a newer state, for as long as its owner replaces what is read. */
static enum kv_rc put_shard(struct export *x, struct core_shard_id id, struct kv_err *err)
{
	uint64_t bytes = x->sum->bytes;
	enum kv_rc rc = put_once(x, id, false, err);

	for (unsigned tries = 1; rc == KV_GONE && tries < TRIES; tries++) {
		kv_store_keep_still(x->engine->store, false);
		x->sum->one_moment = false;
		x->sum->retries++;
		rc = x->sum->bytes != bytes ? put_line(x, err, "again\n") : KV_OK;
		bytes = x->sum->bytes;
		if (rc == KV_OK)
			rc = put_once(x, id, true, err);
	}
	return rc;
}

/* --- the store ------------------------------------------------------------------------------------- */

typedef enum kv_rc each_fn(struct export *x, struct core_shard_id id, struct kv_err *err);

static enum kv_rc each_shard(struct export *x, each_fn *fn, struct kv_err *err)
{
	char after[CORE_ID_LEN] = "";
	size_t count = 1;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count != 0) {
		struct kv_keys keys;

		rc = core_shard_list(x->engine, after, LIST_PAGE, &keys, err);
		count = keys.count;
		for (size_t i = 0; i < keys.count && rc == KV_OK; i++) {
			struct core_shard_id id;

			snprintf(after, sizeof after, "%s", keys.keys[i]);
			if (!core_uuid_parse('s', keys.keys[i], strlen(keys.keys[i]), &id.u))
				continue;
			rc = fn(x, id, err);
			rc = rc == KV_NO_SHARD ? KV_OK : rc; /* it is being removed */
		}
		kv_keys_free(&keys);
	}
	return rc;
}

/* For the one who shows how far it is. */
static enum kv_rc count_shard(struct export *x, struct core_shard_id id, struct kv_err *err)
{
	struct core_shard *shard;
	struct core_state state;
	enum kv_rc rc = core_shard_visit(x->engine, id, &shard, err);

	if (rc != KV_OK)
		return rc;
	rc = core_shard_state(shard, &state, err);
	x->total += core_state_totals(&state).rows;
	core_state_fini(&state);
	core_shard_close(shard);
	return rc;
}

static enum kv_rc export_one(struct export *x, struct core_shard_id id, struct kv_err *err)
{
	enum kv_rc rc = put_shard(x, id, err);

	x->sum->shards += rc == KV_OK;
	return rc;
}

static bool is_asked_for(const struct core_shard_id *ids, size_t count, struct core_shard_id id)
{
	bool found = ids == NULL;

	for (size_t i = 0; i < count && !found; i++)
		found = core_uuid_eq(ids[i].u, id.u);
	return found;
}

static enum kv_rc put_names(struct export *x, const struct core_shard_id *ids, size_t count,
			    struct kv_err *err)
{
	struct core_name *names;
	size_t name_count;
	char text[4 * CORE_NAME_LEN], id[CORE_ID_LEN];
	enum kv_rc rc = core_name_list(x->engine, &names, &name_count, err);

	for (size_t i = 0; i < name_count && rc == KV_OK; i++) {
		if (!is_asked_for(ids, count, names[i].target))
			continue;
		core_name_escape(names[i].name, text);
		rc = put(x, "name ", 5, err);
		if (rc == KV_OK)
			rc = put(x, text, strlen(text), err);
		if (rc == KV_OK)
			rc = put_line(x, err, " target=%s uid=%u gid=%u made_ms=%" PRIu64 "\n",
				      core_uuid_format('s', names[i].target.u, id), names[i].uid,
				      names[i].gid, names[i].made_ms);
		x->sum->names++;
	}
	free(names);
	return rc;
}

static enum kv_rc export_all(struct export *x, const struct core_shard_id *ids, size_t count,
			     struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	if (x->sink->progress != NULL && ids == NULL)
		rc = each_shard(x, count_shard, err);
	for (size_t i = 0; i < count && rc == KV_OK && ids != NULL; i++)
		rc = count_shard(x, ids[i], err);
	if (rc == KV_OK)
		rc = put_line(x, err, "shardfs-export 1\n");
	if (rc == KV_OK && ids == NULL)
		rc = each_shard(x, export_one, err);
	for (size_t i = 0; i < count && rc == KV_OK && ids != NULL; i++)
		rc = export_one(x, ids[i], err);
	if (rc == KV_OK)
		rc = put_names(x, ids, count, err);
	if (rc == KV_OK)
		rc = put_line(x, err,
			      "total shards=%" PRIu64 " updates=%" PRIu64 " names=%" PRIu64
			      " moment=%s xxh3=%016" PRIx64 "\n",
			      x->sum->shards, x->sum->updates, x->sum->names,
			      x->sum->one_moment ? "one" : "several", (uint64_t)XXH3_64bits_digest(x->all));
	return rc == KV_OK ? flush(x, err) : rc;
}

enum kv_rc core_export(struct core_engine *e, const struct core_shard_id *ids, size_t count,
		       const struct core_export_sink *sink, struct core_exported *out, struct kv_err *err)
{
	struct export *x = calloc(1, sizeof *x);
	enum kv_rc rc = KV_NOMEM;

	*out = (struct core_exported){.one_moment = true};
	if (x != NULL) {
		*x = (struct export){.engine = e, .sink = sink, .sum = out};
		x->all = XXH3_createState();
		x->one = XXH3_createState();
	}
	if (x == NULL || x->all == NULL || x->one == NULL) {
		kv_fail_rc(err, rc);
	} else {
		XXH3_64bits_reset(x->all);
		kv_store_keep_still(e->store, true);
		rc = export_all(x, ids, count, err);
		kv_store_keep_still(e->store, false);
	}
	if (x != NULL) {
		XXH3_freeState(x->all);
		XXH3_freeState(x->one);
		free(x->row);
		free(x);
	}
	return rc;
}
