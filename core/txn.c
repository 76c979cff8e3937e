/*
 * txn.c - one append from its first row to its verdict.
 *
 * Rows go to a builder, which keeps small ones in memory and ships large parts
 * as they come. The commit makes the batch and has the machine run the
 * transition. What was shipped for an append that was refused is deleted; after
 * an unknown outcome nothing is, for it may have landed.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/builder.h"
#include "core/engine_impl.h"

/* Parts up to this size go with the commit, in one durable step; above it the copy costs more than a step. */
enum { LOOSE_MAX = 256 << 10 };

struct core_txn {
	struct core_shard *shard;
	struct core_append ask;
	struct core_builder *builder; /* NULL until the first row */
	char (*staged)[CORE_BATCH_NAME_LEN];
	size_t staged_count;
	bool ended;
};

enum kv_rc core_txn_begin(struct core_shard *s, const struct core_append *ask, struct core_txn **out,
			  struct kv_err *err)
{
	struct core_txn *t;
	enum kv_rc rc = core_append_check(ask, err);

	*out = NULL;
	if (rc != KV_OK)
		return rc;
	t = calloc(1, sizeof *t);
	if (t == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	t->shard = s;
	t->ask = *ask;
	t->ask.batch = NULL;
	t->ask.rows = 0;
	*out = t;
	return KV_OK;
}

static enum kv_rc check_row(const struct core_txn *t, const struct core_row *row, struct kv_err *err)
{
	const struct core_append *a = &t->ask;
	char text[CORE_FRONTIER_LEN];

	if (row->star && !a->lower_star)
		return kv_fail(err, KV_BAD_SYNTAX, "a time of * needs expected_upper=*");
	if (row->update.diff == 0)
		return KV_OK;
	if (!a->lower_star && !a->lower.empty && core_frontier_eq(a->lower, a->upper)) {
		core_frontier_format(a->lower, text);
		kv_fail(err, KV_EMPTY_INTERVAL, "an update in the empty interval [%s, %s)", text, text);
		kv_detail(err, "lower=%s upper=%s", text, text);
		return KV_EMPTY_INTERVAL;
	}
	return row->star ? KV_OK : core_append_check_time(a, row->update.time, err);
}

/* A part whose storing has an unknown outcome is named by nobody: of the append, nothing was done. */
static enum kv_rc surely_not(enum kv_rc rc, struct kv_err *err)
{
	if (rc != KV_UNKNOWN)
		return rc;
	if (err != NULL)
		err->rc = KV_UNREACHABLE;
	return KV_UNREACHABLE;
}

enum kv_rc core_txn_add(struct core_txn *t, const struct core_row *row, struct kv_err *err)
{
	struct core_row lifted = *row;
	enum kv_rc rc = KV_OK;

	assert(!t->ended);
	if (t->ask.has_rewrite && (row->star || row->update.time < t->ask.rewrite_ts)) {
		if (row->star && !t->ask.lower_star)
			return check_row(t, row, err);
		lifted.update.time = t->ask.rewrite_ts;
		lifted.star = false;
	}
	rc = check_row(t, &lifted, err);
	if (rc != KV_OK)
		return rc;
	if (t->builder == NULL)
		rc = core_builder_new(&t->shard->home, (struct core_builder_config){.loose_max = LOOSE_MAX},
				      &t->builder, err);
	if (rc == KV_OK)
		rc = surely_not(core_builder_add(t->builder, &lifted.update, lifted.star, err), err);
	t->ask.rows += rc == KV_OK;
	return rc;
}

struct append_change {
	struct core_change change;
	struct core_append *ask;
	struct core_appended *result;
};

static enum kv_rc run_append(struct core_change *c, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	struct append_change *a = (struct append_change *)c;
	enum kv_rc rc = core_do_append(s, a->ask, d, a->result, err);

	*skip = rc == KV_OK && !a->result->committed;
	return rc;
}

enum kv_rc core_txn_add_staged(struct core_txn *t, const char *name, struct kv_err *err)
{
	char(*grown)[CORE_BATCH_NAME_LEN];

	assert(!t->ended && strlen(name) < CORE_BATCH_NAME_LEN);
	for (size_t i = 0; i < t->staged_count; i++)
		if (strcmp(t->staged[i], name) == 0)
			return kv_fail(err, KV_BAD_SYNTAX, "batch %s is named twice", name);
	if (t->staged_count == CORE_TXN_BATCHES)
		return kv_fail(err, KV_BAD_SYNTAX, "more than %d batches in one transaction",
			       CORE_TXN_BATCHES);
	grown = reallocarray(t->staged, t->staged_count + 1, sizeof *t->staged);
	if (grown == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	t->staged = grown;
	memcpy(t->staged[t->staged_count++], name, strlen(name) + 1);
	return KV_OK;
}

enum kv_rc core_txn_commit(struct core_txn *t, struct core_appended *r, struct kv_err *err)
{
	struct append_change c = {
		.change = {.run = run_append, .sync = KV_SYNC}, .ask = &t->ask, .result = r};
	enum kv_rc rc = KV_OK;

	assert(!t->ended);
	t->ended = true;
	t->ask.staged =
		t->staged_count != 0 ? t->staged[0] : NULL; /* none can be there: one is enough to say so */
	*r = (struct core_appended){0};
	if (t->builder != NULL)
		/* The bounds are set by the transition, which knows them. */
		rc = surely_not(core_builder_finish(t->builder, core_frontier_at(0), core_frontier_empty(),
						    &t->ask.batch, err),
				err);
	if (rc != KV_OK)
		return rc;
	c.change.appends_rows = t->ask.batch != NULL && t->ask.batch->part_count != 0;
	rc = core_machine_commit(t->shard, &c.change, err);
	/* The transition may have said what would be done, and the store then refused it. */
	if (rc != KV_OK)
		*r = (struct core_appended){0};
	if (t->ask.batch != NULL && rc != KV_UNKNOWN && !r->committed)
		core_batch_delete_blobs(&t->shard->home, t->ask.batch);
	return rc;
}

void core_txn_free(struct core_txn *t)
{
	if (t == NULL)
		return;
	core_builder_free(t->builder);
	core_batch_unref(t->ask.batch);
	free(t->staged);
	free(t);
}
