/*
 * import.c - see import.h. The lines are read by import_text.c.
 *
 * The rows of a shard go through a builder into parts, in bounded memory, and the batch [0, upper) of them
 * stands in the rollup of the shard's first version: so there is no version before it, and the shard is there
 * with all it has or not at all.
 */
#include "core/import.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/builder.h"
#include "core/compact.h"
#include "core/import_impl.h"
#include "core/names.h"

struct taking {
	struct core_engine *engine; /* NULL: it is read, and no more */
	const struct core_import *how;
	struct core_imported *sum;
	struct core_home home;
	struct core_builder *builder;
	bool skips;       /* the shard at hand is there already */
	uint64_t updates; /* of the shard at hand */
	struct core_shard_id *ids;
	size_t id_cap;
	struct core_name *names;
	size_t name_count;
	size_t name_cap;
};

/* --- the first version ----------------------------------------------------------------------------- */

static enum kv_rc fill_lists(const struct core_content *c, struct core_state *s, struct kv_err *err)
{
	free(s->holds);
	s->holds = calloc(c->hold_count + 1, sizeof *s->holds);
	s->tokens = calloc(c->token_count + 1, sizeof *s->tokens);
	s->batches = calloc(1, sizeof(struct core_batch *));
	if (s->holds == NULL || s->tokens == NULL || s->batches == NULL) {
		s->hold_count = 0;
		return kv_fail_rc(err, KV_NOMEM);
	}
	s->hold_count = c->hold_count;
	s->token_count = s->token_cap = c->token_count;
	s->batch_cap = 1;
	if (c->hold_count != 0)
		memcpy(s->holds, c->holds, c->hold_count * sizeof *s->holds);
	for (size_t i = 0; i < c->token_count; i++) {
		s->tokens[i] = c->tokens[i];
		s->tokens[i].seqno = s->seqno;
	}
	return KV_OK;
}

enum kv_rc core_content_fill(const struct core_content *c, struct core_state *s, struct kv_err *err)
{
	enum kv_rc rc = fill_lists(c, s, err);

	if (rc != KV_OK)
		return rc;
	s->since = c->since;
	s->upper = c->upper;
	s->created_ms = c->created_ms != 0 ? c->created_ms : s->created_ms;
	if (c->batch != NULL)
		s->batches[s->batch_count++] = core_batch_ref(c->batch);
	return KV_OK;
}

static struct core_content content_of(const struct core_import_shard *s, struct core_batch *batch)
{
	return (struct core_content){
		.since = s->since,
		.upper = s->upper,
		.batch = batch,
		.holds = s->holds,
		.hold_count = s->hold_count,
		.tokens = s->tokens,
		.token_count = s->token_count,
		.created_ms = s->created_ms,
	};
}

/* Whether a state of these lines would be sound, before anything is stored. */
static enum kv_rc check_shard(const struct core_import_shard *s, struct kv_err *err)
{
	struct core_batch *batch =
		s->upper.empty || s->upper.t != 0 ? core_batch_new(core_frontier_at(0), s->upper) : NULL;
	struct core_content content = content_of(s, batch);
	struct core_state state = {0};
	enum kv_rc rc = core_state_init(&state, 1, 1, s->owner, err);

	if (rc == KV_OK)
		rc = core_content_fill(&content, &state, err);
	if (rc == KV_OK)
		rc = core_state_check(&state, err);
	if (rc == KV_OK && core_state_hold(&state, CORE_DEFAULT_HOLD) == NULL)
		rc = kv_fail(err, KV_CORRUPT, "it has no hold " CORE_DEFAULT_HOLD);
	core_state_fini(&state);
	core_batch_unref(batch);
	return rc == KV_CORRUPT ? kv_wrap(err, KV_BAD_SYNTAX, "the shard's lines") : rc;
}

/* --- what the lines are for ------------------------------------------------------------------------ */

static enum kv_rc is_there(struct core_engine *e, struct core_shard_id id, bool *there, struct kv_err *err)
{
	struct core_shard *shard;
	enum kv_rc rc = core_shard_visit(e, id, &shard, err);

	*there = rc == KV_OK;
	if (rc == KV_OK)
		core_shard_close(shard);
	return rc == KV_NO_SHARD ? KV_OK : rc;
}

static enum kv_rc exists(struct core_shard_id id, struct kv_err *err)
{
	char text[CORE_ID_LEN];

	return kv_fail(err, KV_SHARD_EXISTS, "shard %s exists", core_uuid_format('s', id.u, text));
}

static enum kv_rc add_id(struct taking *t, struct core_shard_id id, struct kv_err *err)
{
	if (t->sum->shards == t->id_cap) {
		size_t cap = t->id_cap != 0 ? 2 * t->id_cap : 16;
		struct core_shard_id *grown = reallocarray(t->ids, cap, sizeof *grown);

		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		t->ids = grown;
		t->id_cap = cap;
	}
	t->ids[t->sum->shards] = id;
	return KV_OK;
}

static enum kv_rc begin(void *arg, struct core_import_shard *s, struct kv_err *err)
{
	struct taking *t = arg;
	enum kv_rc rc;

	t->updates = 0;
	if (t->engine == NULL)
		return add_id(t, s->id, err);
	t->home.shard = t->how->as != NULL ? *t->how->as : s->id;
	rc = is_there(t->engine, t->home.shard, &t->skips, err);
	if (rc == KV_OK && t->skips && !t->how->skip_existing)
		rc = exists(t->home.shard, err);
	if (rc == KV_OK && !t->skips)
		rc = core_builder_new(&t->home, (struct core_builder_config){0}, &t->builder, err);
	return rc;
}

static enum kv_rc row(void *arg, const struct core_import_shard *s, const struct core_update *u,
		      struct kv_err *err)
{
	struct taking *t = arg;

	if (s->since.empty || core_frontier_covers(s->upper, u->time))
		return kv_fail(err, KV_BAD_SYNTAX, "a time that the shard does not have");
	t->updates++;
	return t->builder != NULL ? core_builder_add(t->builder, u, false, err) : KV_OK;
}

static void again(void *arg)
{
	struct taking *t = arg;

	core_builder_free(t->builder);
	t->builder = NULL;
}

/* The batch of all rows; NULL where the upper is 0. */
static enum kv_rc finish(struct taking *t, const struct core_import_shard *s, struct core_batch **out,
			 struct kv_err *err)
{
	const struct core_state frontiers = {.since = s->since, .upper = s->upper};
	enum kv_rc rc;

	*out = NULL;
	if (!s->upper.empty && s->upper.t == 0)
		return KV_OK;
	rc = core_builder_finish(t->builder, core_frontier_at(0), s->upper, out, err);
	if (rc == KV_OK) {
		(*out)->since = core_frontier_min(s->since,
						  core_frontier_at(core_merge_advance(&frontiers, s->upper)));
		(*out)->committed_ms = core_now_us(t->engine) / 1000;
	}
	return rc;
}

static enum kv_rc end(void *arg, const struct core_import_shard *s, struct kv_err *err)
{
	struct taking *t = arg;
	struct core_batch *batch = NULL;
	struct core_content content;
	enum kv_rc rc = check_shard(s, err);

	if (rc == KV_OK && t->builder != NULL) {
		rc = finish(t, s, &batch, err);
		content = content_of(s, batch);
		if (rc == KV_OK)
			rc = core_shard_create_with(t->engine, t->home.shard, s->owner, &content, err);
		if (rc != KV_OK && rc != KV_UNKNOWN && batch != NULL)
			core_batch_delete_blobs(&t->home, batch);
		core_batch_unref(batch);
	}
	again(t);
	if (rc != KV_OK)
		return rc;
	if (t->engine != NULL && t->skips) {
		t->sum->skipped++;
	} else {
		t->sum->shards++;
		t->sum->updates += t->updates;
	}
	return KV_OK;
}

static enum kv_rc name(void *arg, const struct core_name *n, struct kv_err *err)
{
	struct taking *t = arg;

	if (t->engine == NULL) {
		t->sum->names++;
		return KV_OK;
	}
	if (t->how->as != NULL)
		return KV_OK;
	if (t->name_count == t->name_cap) {
		size_t cap = t->name_cap != 0 ? 2 * t->name_cap : 16;
		struct core_name *grown =
			cap <= (size_t)2 * CORE_NAMES_MAX ? reallocarray(t->names, cap, sizeof *grown) : NULL;

		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		t->names = grown;
		t->name_cap = cap;
	}
	t->names[t->name_count++] = *n;
	return KV_OK;
}

static const struct core_import_lines lines = {
	.begin = begin, .row = row, .again = again, .end = end, .name = name};

/* --- a stream -------------------------------------------------------------------------------------- */

static int cmp_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct core_shard_id));
}

static enum kv_rc check_differ(struct taking *t, struct kv_err *err)
{
	char text[CORE_ID_LEN];

	if (t->sum->shards > 1)
		qsort(t->ids, (size_t)t->sum->shards, sizeof *t->ids, cmp_id);
	for (size_t i = 1; i < t->sum->shards; i++)
		if (cmp_id(&t->ids[i - 1], &t->ids[i]) == 0)
			return kv_fail(err, KV_BAD_SYNTAX, "the shard %s is in it twice",
				       core_uuid_format('s', t->ids[i].u, text));
	return KV_OK;
}

enum kv_rc core_import_check(const struct core_import_source *source, struct core_imported *out,
			     struct core_shard_id **ids, struct kv_err *err)
{
	struct taking t = {.sum = out};
	enum kv_rc rc;

	*out = (struct core_imported){0};
	*ids = NULL;
	rc = core_import_read(source, &lines, &t, &out->bytes, &out->one_moment, err);
	if (rc == KV_OK)
		rc = check_differ(&t, err);
	if (rc == KV_OK)
		*ids = t.ids;
	else
		free(t.ids);
	return rc;
}

/* Before anything is made. */
static enum kv_rc refuse_existing(struct core_engine *e, const struct core_import *how, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < how->id_count && rc == KV_OK && !how->skip_existing; i++) {
		struct core_shard_id id = how->as != NULL ? *how->as : how->ids[i];
		bool there;

		rc = is_there(e, id, &there, err);
		if (rc == KV_OK && there)
			rc = exists(id, err);
	}
	return rc;
}

enum kv_rc core_import(struct core_engine *e, const struct core_import *how,
		       const struct core_import_source *source, struct core_imported *out, struct kv_err *err)
{
	struct taking t = {.engine = e, .how = how, .sum = out};
	enum kv_rc rc;

	assert(how->as == NULL || how->id_count == 1);
	*out = (struct core_imported){0};
	t.home = (struct core_home){.blobs = kv_store_blobs(e->store),
				    .instance = e->instance,
				    .builders = &e->builders,
				    .stops = &e->stops};
	/* What is left of a removed shard goes before one of its id is made: burying takes all below it. */
	core_worker_drain(e->worker);
	rc = refuse_existing(e, how, err);
	if (rc == KV_OK)
		rc = core_import_read(source, &lines, &t, &out->bytes, &out->one_moment, err);
	again(&t);
	if (rc == KV_OK && t.name_count != 0)
		rc = core_name_add_all(e, t.names, t.name_count, &out->names, &out->names_taken, err);
	free(t.names);
	return rc;
}
