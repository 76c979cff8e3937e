/*
 * built.c - batches that are built ahead of their append; see write.h.
 *
 * A batch that was built is a description of parts that are stored, or small and
 * in memory. It is appended by a transaction that has it as an input (txn.c). Made
 * transmittable it is a staged batch with a name of its own, and the bytes that
 * stand for it are message Transmitted of state.proto in a frame of kind 'T'.
 *
 * No part may be named twice. So after an unknown outcome the batch can only go
 * the same way again: that append finds out, or does nothing where it was done.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/builder.h"
#include "core/codec_impl.h"
#include "core/engine_impl.h"
#include "core/manifest.h"
#include "core/scan.h"
#include "core/staged.h"
#include "core/staged_impl.h"
#include "core/transition_impl.h"
#include "core/txn.h"
#include "core/write_impl.h"

struct core_batch_builder {
	struct core_writer *writer;
	struct core_builder *builder; /* NULL: no rows yet */
	struct core_frontier lower;
	bool has_rows;     /* with a diff */
	uint64_t max_time; /* of them */
	bool ended;
};

struct core_built {
	struct core_shard *shard; /* a reference */
	struct core_batch *batch;
	struct core_frontier lower;
	struct core_frontier upper;
	uint64_t rows;
	bool has_rewrite;
	uint64_t rewrite_ts;
	bool keep; /* its blobs are, or may be, named by the shard */
	bool is_staged;
	bool consumed;
	bool tried;               /* an append of it failed */
	struct core_staged entry; /* if staged, or staging */
	bool is_staging;          /* it may be staged: the outcome is unknown */
	bool doubtful;            /* it may be appended: the outcome is unknown of an append that asked */
	struct core_asked asked;  /* this */
	bool has_token;
	struct core_token token;
};

/* --- building -------------------------------------------------------------------------------------- */

enum kv_rc core_writer_builder(struct core_writer *w, struct core_frontier lower,
			       struct core_batch_builder **out, struct kv_err *err)
{
	struct core_batch_builder *b = calloc(1, sizeof *b);
	enum kv_rc rc;

	*out = NULL;
	if (b == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	b->writer = w;
	b->lower = lower;
	rc = core_builder_new(&w->shard->home, (struct core_builder_config){.loose_max = CORE_LOOSE_MAX},
			      &b->builder, err);
	if (rc == KV_OK)
		*out = b;
	else
		free(b);
	return rc;
}

enum kv_rc core_batch_builder_add(struct core_batch_builder *b, const struct core_update *row,
				  struct kv_err *err)
{
	enum kv_rc rc = core_check_time(row->time, b->lower, core_frontier_empty(), err);

	assert(!b->ended);
	if (rc == KV_OK && core_update_bytes(row) > CORE_ROW_MAX)
		rc = kv_fail_rc(err, KV_ROW_TOO_LARGE);
	if (rc == KV_OK)
		rc = core_surely_not(core_builder_add(b->builder, row, false, err), err);
	if (rc != KV_OK || row->diff == 0)
		return rc;
	if (!b->has_rows || row->time > b->max_time)
		b->max_time = row->time;
	b->has_rows = true;
	return KV_OK;
}

enum kv_rc core_batch_builder_finish(struct core_batch_builder *b, struct core_frontier upper,
				     struct core_built **out, struct kv_err *err)
{
	struct core_append bounds = {.lower = b->lower, .upper = upper};
	struct core_built *built = calloc(1, sizeof *built);
	enum kv_rc rc;

	assert(!b->ended);
	b->ended = true;
	*out = NULL;
	if (built == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	rc = core_append_check(&bounds, err);
	if (rc == KV_OK && core_frontier_lt(upper, b->lower))
		rc = kv_fail(err, KV_BAD_BOUNDS, "the upper lies below the empty lower");
	if (rc == KV_OK && b->has_rows)
		rc = core_check_time(b->max_time, core_frontier_at(0), upper, err);
	if (rc == KV_OK)
		rc = core_surely_not(core_builder_finish(b->builder, b->lower, upper, &built->batch, err),
				     err);
	if (rc != KV_OK) {
		free(built);
		return rc;
	}
	built->shard = core_shard_ref(b->writer->shard);
	built->lower = b->lower;
	built->upper = upper;
	built->rows = core_builder_added(b->builder);
	*out = built;
	return KV_OK;
}

void core_batch_builder_free(struct core_batch_builder *b)
{
	if (b == NULL)
		return;
	core_builder_free(b->builder);
	free(b);
}

enum kv_rc core_writer_batch(struct core_writer *w, const struct core_update *rows, size_t count,
			     struct core_frontier lower, struct core_frontier upper, struct core_built **out,
			     struct kv_err *err)
{
	struct core_batch_builder *b;
	enum kv_rc rc = core_writer_builder(w, lower, &b, err);

	*out = NULL;
	for (size_t i = 0; i < count && rc == KV_OK; i++)
		rc = core_batch_builder_add(b, &rows[i], err);
	if (rc == KV_OK)
		rc = core_batch_builder_finish(b, upper, out, err);
	core_batch_builder_free(b);
	return rc;
}

struct core_frontier core_built_lower(const struct core_built *b)
{
	return b->lower;
}

struct core_frontier core_built_upper(const struct core_built *b)
{
	return b->upper;
}

uint64_t core_built_rows(const struct core_built *b)
{
	return b->rows;
}

enum kv_rc core_built_rewrite_ts(struct core_built *b, uint64_t ts, struct core_frontier new_upper,
				 struct kv_err *err)
{
	assert(!b->consumed && !b->is_staged);
	if (core_frontier_covers(new_upper, ts))
		return kv_fail(err, KV_BAD_REWRITE, "the times are not below the new upper");
	if (core_frontier_lt(new_upper, b->upper))
		return kv_fail(err, KV_BAD_REWRITE, "the new upper lies below the batch's");
	if (!core_frontier_covers(b->lower, ts))
		return kv_fail(err, KV_BAD_REWRITE, "the times would lie below the batch's lower");
	if (b->has_rewrite && ts < b->rewrite_ts)
		return kv_fail(err, KV_BAD_REWRITE, "an earlier rewrite went further");
	for (size_t i = 0; i < b->batch->part_count; i++)
		b->batch->parts[i].rewrite_ts = ts;
	b->has_rewrite = true;
	b->rewrite_ts = ts;
	b->upper = new_upper;
	return KV_OK;
}

void core_built_free(struct core_built *b)
{
	if (b == NULL)
		return;
	if (!b->keep && !b->is_staged)
		core_delete_refused(&b->shard->home, b->batch, b->tried);
	core_batch_unref(b->batch);
	core_shard_close(b->shard);
	free(b);
}

/* --- appending ------------------------------------------------------------------------------------- */

static struct core_input input_of(const struct core_built *b)
{
	if (b->is_staged)
		return core_input_of(&b->entry, b->batch);
	return (struct core_input){
		.batch = b->batch,
		.has_bounds = true,
		.lower = b->lower,
		.upper = b->upper,
		.has_rewrite = b->has_rewrite,
		.rewrite_ts = b->rewrite_ts,
		.rows = b->rows,
	};
}

static struct core_asked asked_of(const struct core_append *ask, size_t count)
{
	struct core_append a = *ask;

	a.input_count = count;
	return core_append_asked(&a);
}

/* After an unknown outcome: whether the append cannot do again what may be done. */
static enum kv_rc check_doubt(const struct core_built *b, const struct core_append *ask, size_t count,
			      struct kv_err *err)
{
	struct core_asked asked = asked_of(ask, count);
	bool same = memcmp(asked.b, b->asked.b, sizeof asked.b) == 0 && ask->has_token == b->has_token &&
		    (ask->has_token ? core_uuid_eq(ask->token.u, b->token.u) : !ask->lower_star);

	if (b->is_staging || (b->doubtful && !same))
		return kv_fail(err, KV_UNKNOWN,
			       "the store did not tell what became of the batch; do the same with it again, "
			       "or build it anew");
	return KV_OK;
}

/* What came of the append for one of its batches. */
static void conclude(struct core_built *b, const struct core_append *ask, size_t count, enum kv_rc rc,
		     const struct core_appended *r)
{
	b->keep = b->keep || rc == KV_UNKNOWN;
	b->tried = b->tried || rc != KV_OK;
	if (rc == KV_UNKNOWN && !b->is_staged) {
		b->doubtful = true;
		b->asked = asked_of(ask, count);
		b->has_token = ask->has_token;
		b->token = ask->token;
	} else if (rc == KV_UPPER_MISMATCH && ask->has_token) {
		b->doubtful = false; /* the token would have been known */
	}
	if (rc != KV_OK)
		return;
	b->consumed = true;
	/* A token seen before may stand for this very batch. */
	b->keep = b->keep || r->committed || r->known;
	if (b->is_staged && r->changes)
		core_staged_consumed(b->shard, &b->entry, r->committed ? NULL : b->batch);
}

enum kv_rc core_writer_commit(struct core_writer *w, const struct core_append *ask,
			      struct core_built *const *batches, size_t count, struct core_appended *r,
			      struct kv_err *err)
{
	struct core_append bounds = *ask;
	struct core_appended appended = {0};
	struct core_txn *t = NULL;
	enum kv_rc rc;

	bounds.has_rewrite = false;
	rc = core_append_check(&bounds, err);
	for (size_t i = 0; i < count && rc == KV_OK; i++) {
		assert(!batches[i]->consumed);
		if (!core_uuid_eq(batches[i]->shard->home.shard.u, w->shard->home.shard.u))
			rc = kv_fail_rc(err, KV_OTHER_SHARD);
	}
	for (size_t i = 0; i < count && rc == KV_OK; i++)
		rc = check_doubt(batches[i], ask, count, err);
	if (rc == KV_OK)
		rc = core_writer_begin(w, ask, &t, err);
	for (size_t i = 0; i < count && rc == KV_OK; i++) {
		struct core_input in = input_of(batches[i]);

		rc = core_txn_add_input(t, &in, err);
	}
	if (rc == KV_OK) {
		rc = core_txn_commit(t, &appended, err);
		for (size_t i = 0; i < count; i++)
			conclude(batches[i], ask, count, rc, &appended);
	}
	core_txn_free(t);
	if (r != NULL)
		*r = appended;
	return rc;
}

enum kv_rc core_writer_compare_and_append_batch(struct core_writer *w, struct core_built *const *batches,
						size_t count, struct core_frontier expected_upper,
						struct core_frontier new_upper, struct core_appended *r,
						struct kv_err *err)
{
	struct core_append ask = {.lower = expected_upper, .upper = new_upper};

	return core_writer_commit(w, &ask, batches, count, r, err);
}

enum kv_rc core_writer_append_batch(struct core_writer *w, struct core_built *batch,
				    struct core_frontier lower, struct core_frontier upper,
				    struct core_appended *r, struct kv_err *err)
{
	struct core_append ask = {.idempotent = true, .lower = lower, .upper = upper};

	return core_writer_commit(w, &ask, &batch, 1, r, err);
}

/* --- transmitting ---------------------------------------------------------------------------------- */

static enum kv_rc stage(struct core_built *b, struct kv_err *err)
{
	struct core_batch *all = b->batch;
	struct core_frontier lower = all->lower, upper = all->upper;
	char line[CORE_BOUNDS_LINE_LEN], id[CORE_ID_LEN];
	struct core_buf manifest = {0};
	struct core_uuid none = {0};
	struct core_staged now = {
		.id = b->is_staging ? b->entry.id : core_uuid_new(),
		.manifest = core_uuid_new(),
		.instance = b->shard->home.instance,
		.rows = b->rows,
		.has_bounds = true,
		.lower = b->lower,
		.upper = b->upper,
		.changed_ms = core_now_us(b->shard->engine) / 1000,
	};
	enum kv_rc rc;

	if (b->doubtful)
		return kv_fail(err, KV_UNKNOWN, "the store did not tell whether the batch was appended");
	snprintf(now.name, sizeof now.name, "transmitted-%s", core_uuid_format('b', now.id, id));
	/* As a file it shows all its rows. */
	all->lower = core_frontier_at(0);
	all->upper = core_frontier_empty();
	rc = core_scan_size(&b->shard->home, all, &now.size, err);
	now.size += strlen(core_staged_bounds_line(&now, line));
	if (rc == KV_OK && all->part_count != 0)
		rc = core_manifest_encode(b->shard->home.shard, now.manifest, all, NULL, 0, &manifest, err);
	all->lower = lower;
	all->upper = upper;
	now.manifest_bytes = manifest.len;
	if (rc == KV_OK)
		rc = core_staged_store(b->shard, &none, none, &now, &manifest, err);
	core_buf_fini(&manifest);
	if (rc == KV_EXISTS && b->is_staging) /* so the try before had landed */
		rc = core_staged_get_by_id(b->shard, now.id, &now, err);
	b->keep = b->keep || rc == KV_UNKNOWN;
	if (rc != KV_OK && rc != KV_UNKNOWN)
		return rc;
	b->entry = now;
	b->is_staging = rc == KV_UNKNOWN;
	b->is_staged = rc == KV_OK;
	return rc;
}

enum kv_rc core_built_transmit(struct core_built *b, struct core_buf *out, struct kv_err *err)
{
	Pb__Transmitted pb = PB__TRANSMITTED__INIT;
	uint8_t *bytes;
	size_t len;
	enum kv_rc rc = KV_OK;

	*out = (struct core_buf){0};
	assert(!b->consumed);
	if (!b->is_staged)
		rc = stage(b, err);
	if (rc != KV_OK)
		return rc;
	pb.shard = (ProtobufCBinaryData){.data = b->shard->home.shard.u.b, .len = sizeof(struct core_uuid)};
	pb.staged = (ProtobufCBinaryData){.data = b->entry.id.b, .len = sizeof(struct core_uuid)};
	len = pb__transmitted__get_packed_size(&pb);
	bytes = malloc(len);
	if (bytes == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	pb__transmitted__pack(&pb, bytes);
	rc = core_frame('T', 0, bytes, len, out, err);
	free(bytes);
	if (rc == KV_OK)
		b->consumed = true;
	return rc;
}

static enum kv_rc parse(const void *data, size_t len, struct core_shard_id *shard, struct core_uuid *staged,
			struct kv_err *err)
{
	const uint8_t *payload;
	size_t payload_len;
	struct core_unpacking u;
	Pb__Transmitted *pb;
	enum kv_rc rc = core_unframe('T', 0, data, len, &payload, &payload_len, err);
	bool good;

	if (rc != KV_OK)
		return rc;
	core_unpacking_init(&u);
	pb = pb__transmitted__unpack(&u.memory, payload_len, payload);
	good = pb != NULL && pb->shard.len == sizeof shard->u.b && pb->staged.len == sizeof staged->b;
	if (good) {
		memcpy(shard->u.b, pb->shard.data, sizeof shard->u.b);
		memcpy(staged->b, pb->staged.data, sizeof staged->b);
	}
	pb__transmitted__free_unpacked(pb, &u.memory);
	if (u.nomem)
		return kv_fail_rc(err, KV_NOMEM);
	return good ? KV_OK : kv_fail(err, KV_CORRUPT, "%zu bytes that stand for no batch", len);
}

enum kv_rc core_writer_receive(struct core_writer *w, const void *data, size_t len, struct core_built **out,
			       struct kv_err *err)
{
	struct core_manifest manifest = {0};
	struct core_shard_id shard = {0};
	struct core_uuid staged = {0};
	struct core_built *b;
	enum kv_rc rc = parse(data, len, &shard, &staged, err);

	*out = NULL;
	if (rc == KV_OK && !core_uuid_eq(shard.u, w->shard->home.shard.u))
		rc = kv_fail_rc(err, KV_OTHER_SHARD);
	if (rc == KV_OK) /* it may have been staged elsewhere, a moment ago */
		rc = core_machine_load(w->shard, true, err);
	if (rc != KV_OK)
		return rc;
	b = calloc(1, sizeof *b);
	if (b == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	rc = core_staged_read(w->shard, staged, &b->entry, &manifest, err);
	if (rc != KV_OK) {
		free(b);
		return rc;
	}
	core_buf_fini(&manifest.rest);
	b->batch = manifest.batch;
	b->shard = core_shard_ref(w->shard);
	b->lower = b->entry.lower;
	b->upper = b->entry.upper;
	b->rows = b->entry.rows;
	b->is_staged = true;
	*out = b;
	return KV_OK;
}
