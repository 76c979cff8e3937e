/*
 * txn.c - one append from its first row to its verdict.
 *
 * Rows go to a builder, which keeps small ones in memory and ships large parts
 * as they come. The commit makes the batch and has the machine run the
 * transition. What was shipped for an append that was refused is deleted; after
 * an unknown outcome nothing is, for it may have landed.
 *
 * Staged batches are named by name and committed by id: each try looks the names
 * up in the state it runs on and reads their manifests. Where it finds a writer
 * that is not sealed, the writers are sealed, without locks, and all is done
 * again. A token that is known is answered before that: what has the names now
 * may be for another append.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/builder.h"
#include "core/engine_impl.h"
#include "core/manifest.h"
#include "core/staged_impl.h"
#include "core/transition_impl.h"
#include "core/txn.h"

struct append_change {
	struct core_change change;
	struct core_txn *txn;
	struct core_appended *result;
	bool again;
};

struct core_txn {
	struct core_shard *shard;
	struct core_writer_state registered;
	struct core_frontier *met; /* the writer's, or NULL */
	struct core_append ask;
	struct core_builder *builder; /* NULL until the first row */
	/* Batches to commit; of a staged one that is named, what was read from its manifest. As long. */
	struct core_input *inputs;
	struct named *named;
	size_t input_count;
	bool ended;
	uint64_t began_us;           /* the commit */
	struct append_change append; /* this and the rest: core_txn_submit's */
	struct core_appended result;
	struct kv_err err;
	core_txn_over *over;
	void *over_arg;
};

struct named {
	char name[CORE_STAGED_NAME_LEN]; /* "": not named, but given by id or built here */
	struct core_manifest manifest;
	struct core_staged entry; /* it was read from; all zero: none yet */
};

enum kv_rc core_txn_begin_as(struct core_shard *s, const struct core_append *ask,
			     const struct core_writer_state *writer, struct core_frontier *met,
			     struct core_txn **out, struct kv_err *err)
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
	t->registered = *writer;
	t->met = met;
	t->ask = *ask;
	t->ask.batch = NULL;
	t->ask.rows = 0;
	t->ask.inputs = NULL;
	t->ask.input_count = 0;
	t->ask.writer = &t->registered;
	*out = t;
	return KV_OK;
}

enum kv_rc core_txn_begin(struct core_shard *s, const struct core_append *ask, struct core_txn **out,
			  struct kv_err *err)
{
	return core_txn_begin_as(s, ask, &s->engine->writer, NULL, out, err);
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

enum kv_rc core_surely_not(enum kv_rc rc, struct kv_err *err)
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
	if (rc == KV_OK && core_update_bytes(&row->update) > CORE_ROW_MAX)
		rc = kv_fail_rc(err, KV_ROW_TOO_LARGE);
	if (rc != KV_OK)
		return rc;
	if (t->builder == NULL)
		rc = core_builder_new(&t->shard->home,
				      (struct core_builder_config){.loose_max = CORE_LOOSE_MAX}, &t->builder,
				      err);
	if (rc == KV_OK)
		rc = core_surely_not(core_builder_add(t->builder, &lifted.update, lifted.star, err), err);
	t->ask.rows += rc == KV_OK;
	return rc;
}

/* --- batches --------------------------------------------------------------------------------------- */

static enum kv_rc add_input(struct core_txn *t, const struct core_input *in, const char *name,
			    struct kv_err *err)
{
	struct core_input *inputs;
	struct named *named;

	assert(!t->ended);
	if (t->input_count == CORE_TXN_BATCHES)
		return kv_fail(err, KV_BAD_SYNTAX, "more than %d batches in one transaction",
			       CORE_TXN_BATCHES);
	inputs = reallocarray(t->inputs, t->input_count + 1, sizeof *inputs);
	if (inputs == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	t->inputs = inputs;
	named = reallocarray(t->named, t->input_count + 1, sizeof *named);
	if (named == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	t->named = named;
	inputs[t->input_count] = *in;
	named[t->input_count] = (struct named){0};
	memcpy(named[t->input_count].name, name, strlen(name) + 1);
	t->input_count++;
	return KV_OK;
}

enum kv_rc core_txn_add_staged(struct core_txn *t, const char *name, struct kv_err *err)
{
	struct core_input in = {.is_staged = true};

	assert(strlen(name) < CORE_STAGED_NAME_LEN);
	for (size_t i = 0; i < t->input_count; i++)
		if (strcmp(t->named[i].name, name) == 0)
			return kv_fail(err, KV_BAD_SYNTAX, "batch %s is named twice", name);
	return add_input(t, &in, name, err);
}

enum kv_rc core_txn_add_input(struct core_txn *t, const struct core_input *in, struct kv_err *err)
{
	for (size_t i = 0; i < t->input_count; i++)
		if (t->inputs[i].batch == in->batch || (in->is_staged && t->inputs[i].is_staged &&
							core_uuid_eq(t->inputs[i].staged, in->staged)))
			return kv_fail(err, KV_BAD_SYNTAX, "a batch is given twice");
	return add_input(t, in, "", err);
}

struct core_input core_input_of(const struct core_staged *entry, struct core_batch *batch)
{
	struct core_input in = {
		.batch = batch,
		.is_staged = true,
		.staged = entry->id,
		.name = entry->name,
		.manifest = entry->manifest,
		.has_bounds = entry->has_bounds,
		.lower = entry->lower,
		.upper = entry->upper,
		.rows = entry->rows,
	};

	/* All parts of a batch are rewritten together. */
	if (batch->part_count != 0 && batch->parts[0].rewrite_ts != 0) {
		in.has_rewrite = true;
		in.rewrite_ts = batch->parts[0].rewrite_ts;
	}
	return in;
}

/* What the state has under the name; *again: it is written to, and was not sealed. */
static enum kv_rc look_up(struct core_txn *t, const struct core_state *s, size_t i, bool *again,
			  struct kv_err *err)
{
	const struct core_staged *entry = core_state_staged(s, t->named[i].name);
	struct core_input *in = &t->inputs[i];
	struct named *named = &t->named[i];
	enum kv_rc rc = KV_OK;

	*in = (struct core_input){.is_staged = true, .name = named->name};
	if (entry == NULL)
		return KV_OK; /* for the transition to say, in its order */
	if (core_stage_is_writing(t->shard, entry->id)) {
		*again = true;
		return KV_OK;
	}
	if (!core_uuid_eq(entry->manifest, named->entry.manifest)) {
		core_manifest_fini(&named->manifest);
		named->entry = (struct core_staged){0};
		rc = core_manifest_read(&t->shard->home, entry, &named->manifest, err);
		if (rc == KV_NOTFOUND) /* under commit_mu nobody here takes it away */
			rc = kv_fail(err, KV_CORRUPT, "the manifest of batch %s is missing", named->name);
		if (rc != KV_OK)
			return rc;
		named->entry = *entry;
	}
	*in = core_input_of(&named->entry, named->manifest.batch);
	return KV_OK;
}

/* --- the commit ------------------------------------------------------------------------------------ */

static enum kv_rc run_append(struct core_change *c, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	struct append_change *a = (struct append_change *)c;
	struct core_txn *t = a->txn;
	bool known = t->ask.has_token && core_state_token(s, t->ask.token) != NULL;
	enum kv_rc rc = KV_OK;

	a->again = false;
	for (size_t i = 0; i < t->input_count && rc == KV_OK && !known; i++)
		if (t->named[i].name[0] != '\0')
			rc = look_up(t, s, i, &a->again, err);
	*skip = a->again;
	if (rc != KV_OK || a->again)
		return rc;
	rc = core_do_append(s, &t->ask, d, a->result, err);
	*skip = rc == KV_OK && !a->result->changes;
	c->appends_rows = rc == KV_OK && d->splice_count != 0 && d->splices[0].batches[0]->part_count != 0;
	return rc;
}

/* Rows alone, all of them inline: the append looks at nothing but the state. */
static bool groups(const struct core_txn *t)
{
	const struct core_batch *b = t->ask.batch;

	if (t->input_count != 0)
		return false;
	for (size_t i = 0; b != NULL && i < b->part_count; i++)
		if (b->parts[i].inline_data == NULL || b->parts[i].loose)
			return false;
	return true;
}

static void note_upper(struct core_txn *t, enum kv_rc rc, const struct core_appended *r)
{
	struct core_shard *s = t->shard;
	struct core_frontier upper = r->upper;

	if (t->met == NULL || (rc != KV_OK && rc != KV_UPPER_MISMATCH))
		return;
	if (rc == KV_UPPER_MISMATCH) {
		pthread_mutex_lock(&s->mu);
		upper = s->state.upper;
		pthread_mutex_unlock(&s->mu);
	}
	*t->met = core_frontier_max(*t->met, upper);
}

/* After the commit: what was consumed leaves its manifest, and after a no-op its parts too. */
static void clean_up(struct core_txn *t, const struct core_appended *r)
{
	for (size_t i = 0; i < t->input_count; i++) {
		const struct core_input *in = &t->inputs[i];

		if (in->is_staged && t->named[i].name[0] != '\0')
			core_staged_consumed(t->shard, &t->named[i].entry,
					     r->committed ? NULL : t->named[i].manifest.batch);
	}
}

void core_delete_refused(const struct core_home *home, struct core_batch *batch, bool combined)
{
	for (size_t i = 0; i < batch->part_count && combined; i++)
		batch->parts[i].loose = batch->parts[i].inline_data != NULL;
	core_batch_delete_blobs(home, batch);
}

static void count_append(struct core_txn *t, enum kv_rc rc, const struct core_appended *r)
{
	struct core_engine *e = t->shard->engine;
	uint64_t bytes = t->ask.batch != NULL ? t->ask.batch->bytes : 0;

	core_timed(e, CORE_T_APPEND, t->began_us);
	core_count(e, rc == KV_OK ? CORE_M_APPENDS : CORE_M_APPENDS_REFUSED, 1);
	if (rc != KV_OK || !r->committed)
		return;
	for (size_t i = 0; i < t->input_count; i++)
		bytes += t->inputs[i].batch != NULL ? t->inputs[i].batch->bytes : 0;
	core_count(e, CORE_M_APPEND_UPDATES, r->updates);
	core_count(e, CORE_M_APPEND_BYTES, bytes);
}

/* The change that t's rows and batches are. */
static enum kv_rc make_change(struct core_txn *t, struct append_change *c, struct core_appended *r,
			      struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	assert(!t->ended);
	t->ended = true;
	t->began_us = core_ticks_us();
	*r = (struct core_appended){0};
	if (t->builder != NULL)
		/* The bounds are set by the transition, which knows them. */
		rc = core_surely_not(core_builder_finish(t->builder, core_frontier_at(0),
							 core_frontier_empty(), &t->ask.batch, err),
				     err);
	if (rc != KV_OK)
		return rc;
	t->ask.inputs = t->inputs;
	t->ask.input_count = t->input_count;
	*c = (struct append_change){
		.change = {.run = run_append,
			   .sync = KV_SYNC,
			   .writer = &t->registered.id,
			   .groups = groups(t)},
		.txn = t,
		.result = r,
	};
	return KV_OK;
}

/* Before anything is asked of the store. */
static enum kv_rc admit(struct core_txn *t, struct kv_err *err)
{
	enum kv_rc rc = core_check_inputs(&t->ask, err);

	if (rc == KV_OK && (t->ask.batch != NULL || t->input_count != 0))
		core_upkeep_admit(t->shard);
	return rc;
}

/* The commit ended with rc, which is returned. */
static enum kv_rc ended(struct core_txn *t, enum kv_rc rc, struct core_appended *r)
{
	/* The transition may have said what would be done, and the store then refused it. */
	if (rc != KV_OK)
		*r = (struct core_appended){0};
	if (t->ask.batch != NULL && rc != KV_UNKNOWN && !r->committed)
		core_delete_refused(&t->shard->home, t->ask.batch, t->input_count != 0);
	if (r->changes)
		clean_up(t, r);
	note_upper(t, rc, r);
	count_append(t, rc, r);
	return rc;
}

static enum kv_rc commit(struct core_txn *t, struct append_change *c, struct kv_err *err)
{
	enum kv_rc rc = admit(t, err);

	while (rc == KV_OK) {
		rc = core_machine_commit(t->shard, &c->change, err);
		if (rc != KV_OK || !c->again)
			break;
		for (size_t i = 0; i < t->input_count && rc == KV_OK; i++)
			if (t->named[i].name[0] != '\0')
				rc = core_surely_not(core_stage_seal(t->shard, t->named[i].name, err), err);
	}
	return ended(t, rc, c->result);
}

enum kv_rc core_txn_commit(struct core_txn *t, struct core_appended *r, struct kv_err *err)
{
	struct append_change c;
	enum kv_rc rc = make_change(t, &c, r, err);

	return rc == KV_OK ? commit(t, &c, err) : rc;
}

static void append_over(struct core_change *c)
{
	struct core_txn *t = ((struct append_change *)c)->txn;
	enum kv_rc rc = ended(t, c->turn.rc, &t->result);

	t->over(t->over_arg, rc, &t->result, &t->err);
}

void core_txn_submit(struct core_txn *t, core_txn_over *over, void *arg)
{
	struct append_change *c = &t->append;
	enum kv_rc rc = make_change(t, c, &t->result, &t->err);

	t->over = over;
	t->over_arg = arg;
	if (rc == KV_OK && !c->change.groups) {
		rc = commit(t, c, &t->err);
	} else if (rc == KV_OK) {
		rc = admit(t, &t->err);
		if (rc == KV_OK) {
			core_machine_submit(t->shard, &c->change, append_over, &t->err);
			return;
		}
		rc = ended(t, rc, &t->result);
	}
	over(arg, rc, &t->result, &t->err);
}

void core_txn_free(struct core_txn *t)
{
	if (t == NULL)
		return;
	core_builder_free(t->builder);
	core_batch_unref(t->ask.batch);
	for (size_t i = 0; i < t->input_count; i++)
		core_manifest_fini(&t->named[i].manifest);
	free(t->inputs);
	free(t->named);
	free(t);
}
