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

#include "core/builder.h"
#include "core/engine_impl.h"

/* Parts up to this size go with the commit, in one durable step; above it the copy costs more than a step. */
enum { LOOSE_MAX = 256 << 10 };

struct core_txn {
	struct core_shard *shard;
	struct core_append ask;
	struct core_builder *builder; /* NULL until the first row */
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
		rc = core_builder_add(t->builder, &lifted.update, lifted.star, err);
	t->ask.rows += rc == KV_OK;
	return rc;
}

struct append_change {
	struct core_change change;
	struct core_append *ask;
	struct core_appended *result;
};

static enum kv_rc run_append(struct core_change *c, const struct core_state *s, struct core_diff *d, bool *skip,
			     struct kv_err *err)
{
	struct append_change *a = (struct append_change *)c;
	enum kv_rc rc = core_do_append(s, a->ask, d, a->result, err);

	*skip = rc == KV_OK && !a->result->committed;
	return rc;
}

enum kv_rc core_txn_commit(struct core_txn *t, const char *staged, struct core_appended *r,
			   struct kv_err *err)
{
	struct append_change c = {
		.change = {.run = run_append, .sync = KV_SYNC}, .ask = &t->ask, .result = r};
	enum kv_rc rc = KV_OK;

	assert(!t->ended);
	t->ended = true;
	t->ask.staged = staged;
	*r = (struct core_appended){0};
	if (t->builder != NULL)
		/* The bounds are set by the transition, which knows them. */
		rc = core_builder_finish(t->builder, core_frontier_at(0), core_frontier_empty(), &t->ask.batch, err);
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
	free(t);
}
