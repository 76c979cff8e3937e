/*
 * repair.c - see repair.h.
 *
 * 1. Each step is one version, or the deletion of blobs that no version names: a crash leaves the store as it
 * was or one step farther.
 * 2. A new rollup is of the state that rebuilding gave, checked; it is made by the transition that makes all
 * others.
 * 3. Rows that are kept of a damaged part stand in blocks whose checksums are right, up to the first that is
 * not.
 */
#include "core/repair.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/check_impl.h"
#include "core/cursor.h"
#include "core/names.h"
#include "core/upkeep_impl.h"

enum { WHAT_LEN = KV_ERR_MSG_LEN + 200, SALVAGE_PART = 12 << 20 };

struct mender {
	struct core_engine *engine;
	const struct core_repair *repair;
	bool sound; /* the store's own files are */
	char shard[CORE_ID_LEN];
	struct core_shard_id id;
};

static enum kv_rc say(struct mender *m, bool loses, const char *what, struct kv_err *err)
{
	const struct core_mending mending = {.loses = loses, .shard = m->shard, .what = what};

	return m->repair->mending(m->repair->arg, &mending, err);
}

/* --- rollups --------------------------------------------------------------------------------------- */

/* A version that names the rollup of the state, with the blob. */
static enum kv_rc write_rollup(struct mender *m, const struct core_state *s, struct kv_err *err)
{
	char instance[CORE_ID_LEN];
	struct core_rollup rollup = {.seqno = s->seqno};
	struct core_buf bytes = {0}, version = {0};
	struct core_diff d;
	struct kv_blob_put put;
	enum kv_rc rc;

	snprintf(rollup.key, sizeof rollup.key, "%s/v%" PRIu64 "/%s-%" PRIu64, m->shard, rollup.seqno,
		 core_uuid_format('n', m->engine->instance.u, instance),
		 atomic_fetch_add(&m->engine->rollup_tries, 1));
	core_diff_init(&d);
	rc = core_do_rollup(s, &rollup, &d, err);
	d.walltime_ms = s->walltime_ms;
	d.attempt = core_uuid_new();
	d.newest_rollup = rollup;
	if (rc == KV_OK)
		rc = core_state_encode(m->id, s, &bytes, err);
	if (rc == KV_OK)
		rc = core_diff_encode(m->id, &d, &version, err);
	put = (struct kv_blob_put){.key = rollup.key, .data = bytes.data, .len = bytes.len};
	if (rc == KV_OK)
		rc = kv_store_commit(m->engine->store, m->shard, s->seqno, d.seqno, version.data, version.len,
				     &put, 1, KV_SYNC, err);
	core_diff_fini(&d);
	core_buf_fini(&bytes);
	core_buf_fini(&version);
	return rc;
}

static enum kv_rc mend_chain(struct mender *m, const struct core_chain *broken, struct kv_err *err)
{
	struct core_chain chain;
	bool owner_lost;
	char what[WHAT_LEN];
	enum kv_rc rc;

	if (broken->rollup.seqno == 0 || strcmp(broken->link, broken->rollup.key) != 0)
		return KV_OK;
	rc = core_chain_rebuild(m->engine, m->id, &chain, &owner_lost, err);
	if (rc == KV_OK) {
		snprintf(
			what, sizeof what,
			"the rollup %.90s is broken; another one was written at version %" PRIu64 "%s",
			broken->rollup.key, chain.state.seqno,
			owner_lost
				? "; who owned the shard is not known any more: it belongs to root, mode 0700"
				: "");
		rc = owner_lost ? say(m, true, what, err) : KV_OK;
		if (rc == KV_OK)
			rc = write_rollup(m, &chain.state, err);
		if (rc == KV_OK && !owner_lost)
			rc = say(m, false, what, err);
	} else if (core_is_damage(rc)) {
		rc = KV_OK;
	}
	core_chain_fini(&chain);
	return rc;
}

/* --- damaged parts --------------------------------------------------------------------------------- */

struct salvage {
	struct core_builder *builder;
	uint64_t kept;
	uint64_t lost;              /* hidden ones too */
	struct core_frontier least; /* times of parts with lost rows */
	uint64_t greatest;
};

/* The rows of one part that show, up to the first that cannot be read. */
static enum kv_rc salvage_part(const struct core_home *home, const struct core_batch *b,
			       const struct core_part *part, struct salvage *v, struct kv_err *err)
{
	struct core_part_reader *reader;
	struct core_update u;
	uint64_t rows = 0;
	bool end = false;
	enum kv_rc rc = core_part_open(home, part, &reader, err), read = KV_OK;

	while (rc == KV_OK && read == KV_OK && !end) {
		read = core_part_next(reader, &u, &end, err);
		if (read != KV_OK || end)
			break;
		rows++;
		if (core_time_shown(part, b->lower, b->upper, &u.time))
			rc = core_builder_add(v->builder, &u, false, err);
	}
	core_part_close(reader);
	v->kept += rows;
	if (rc != KV_OK || read == KV_OK)
		return rc;
	if (!core_is_damage(read))
		return read;
	v->lost += part->rows - rows;
	if (part->min_time < v->least.t || v->least.empty)
		v->least = core_frontier_at(part->min_time > part->rewrite_ts ? part->min_time
									      : part->rewrite_ts);
	if (part->max_time > v->greatest)
		v->greatest = part->max_time;
	if (part->rewrite_ts > v->greatest)
		v->greatest = part->rewrite_ts;
	return KV_OK;
}

static enum kv_rc salvage_batch(const struct core_home *home, const struct core_batch *b, struct salvage *v,
				struct core_batch **out, struct kv_err *err)
{
	struct core_builder_config config = {
		.target_bytes = SALVAGE_PART, .never_inline = true, .no_helper = true};
	enum kv_rc rc = core_builder_new(home, config, &v->builder, err);

	*out = NULL;
	for (size_t i = 0; i < b->part_count && rc == KV_OK; i++)
		rc = salvage_part(home, b, &b->parts[i], v, err);
	if (rc == KV_OK)
		rc = core_builder_finish(v->builder, b->lower, b->upper, out, err);
	core_builder_free(v->builder);
	if (rc == KV_OK) {
		(*out)->since = b->since;
		(*out)->committed_ms = b->committed_ms;
	}
	return rc;
}

struct replacement {
	struct core_change change;
	const struct core_batch *old;
	struct core_batch *new;
};

static enum kv_rc run_replace(struct core_change *change, const struct core_state *s, struct core_diff *d,
			      bool *skip, struct kv_err *err)
{
	struct replacement *r = (struct replacement *)change;
	size_t at = core_state_batch_at(s, r->old->lower);
	enum kv_rc rc;

	*skip = false;
	if (at == s->batch_count || !core_frontier_eq(s->batches[at]->upper, r->old->upper))
		return kv_fail(err, KV_NO_BATCH, "the damaged batch is not there any more");
	d->seqno = s->seqno + 1;
	core_batch_ref(r->new);
	rc = core_diff_splice(d, r->old->lower, r->old->upper, &r->new, 1, err);
	if (rc != KV_OK)
		core_batch_unref(r->new);
	return rc;
}

static enum kv_rc replace_batch(struct mender *m, struct core_shard *s, const struct core_batch *b,
				struct kv_err *err)
{
	struct replacement r = {.change = {.run = run_replace, .sync = KV_RELEASE, .rearranges = true},
				.old = b};
	struct salvage v = {.least = core_frontier_empty()};
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN], what[WHAT_LEN];
	enum kv_rc rc = salvage_batch(core_shard_home(s), b, &v, &r.new, err);

	if (rc != KV_OK)
		return rc;
	snprintf(what, sizeof what,
		 "batch %s-%s: %" PRIu64 " of %" PRIu64
		 " updates cannot be read and are dropped, of times %" PRIu64 " to %" PRIu64,
		 core_frontier_format(b->lower, lower), core_frontier_format(b->upper, upper), v.lost,
		 v.lost + v.kept, v.least.t, v.greatest);
	rc = say(m, true, what, err);
	if (rc == KV_OK)
		rc = core_machine_commit(s, &r.change, err);
	if (rc != KV_OK && rc != KV_UNKNOWN)
		core_batch_delete_blobs(core_shard_home(s), r.new);
	core_batch_unref(r.new);
	return rc;
}

/* KV_CORRUPT: a part of it cannot be read. */
static enum kv_rc check_batch(const struct core_home *home, const struct core_batch *b, struct kv_err *err)
{
	struct core_last_row *last = core_last_row_new();
	enum kv_rc rc = last != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);

	for (size_t i = 0; i < b->part_count && rc == KV_OK; i++) {
		core_last_row_forget(last);
		rc = core_check_part(home, &b->parts[i], last, err);
	}
	core_last_row_free(last);
	return rc != KV_OK && core_is_damage(rc) ? KV_CORRUPT : rc;
}

/* --- staged batches -------------------------------------------------------------------------------- */

struct removal {
	struct core_change change;
	struct core_uuid id;
};

static enum kv_rc run_remove(struct core_change *change, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	d->seqno = s->seqno + 1;
	*skip = false;
	return core_diff_staged_removed(d, ((struct removal *)change)->id, err);
}

static enum kv_rc drop_staged(struct mender *m, struct core_shard *s, const struct core_staged *entry,
			      struct kv_err *err)
{
	struct removal r = {.change = {.run = run_remove, .sync = KV_RELEASE}, .id = entry->id};
	const struct core_home *home = core_shard_home(s);
	struct core_manifest manifest;
	char what[WHAT_LEN];
	enum kv_rc rc = core_manifest_read(home, entry, &manifest, err);

	if (rc == KV_OK) {
		rc = check_batch(home, manifest.batch, err);
		core_manifest_fini(&manifest);
	}
	if (!core_is_damage(rc))
		return rc;
	snprintf(what, sizeof what,
		 "staged batch %s of %" PRIu64 " updates cannot be read whole and is removed", entry->name,
		 entry->rows);
	rc = say(m, true, what, err);
	return rc == KV_OK ? core_machine_commit(s, &r.change, err) : rc;
}

/* --- a shard --------------------------------------------------------------------------------------- */

static enum kv_rc drop_damaged(struct mender *m, struct kv_err *err)
{
	struct core_shard *s;
	struct core_state state = {0};
	enum kv_rc rc = core_shard_open(m->engine, m->id, &s, err);

	if (rc != KV_OK)
		return core_is_damage(rc) || rc == KV_NO_SHARD ? KV_OK : rc;
	rc = core_shard_state(s, &state, err);
	for (size_t i = 0; i < state.batch_count && rc == KV_OK; i++) {
		rc = check_batch(core_shard_home(s), state.batches[i], err);
		if (rc == KV_CORRUPT)
			rc = replace_batch(m, s, state.batches[i], err);
	}
	for (size_t i = 0; i < state.staged_count && rc == KV_OK; i++)
		rc = drop_staged(m, s, &state.staged[i], err);
	core_state_fini(&state);
	core_shard_close(s);
	/* The commits may have made a rollup due: its blob would be taken for an orphan. */
	core_worker_drain(m->engine->worker);
	return rc;
}

static enum kv_rc delete_orphan(void *arg, const char *key, uint64_t size, struct kv_err *err)
{
	struct mender *m = arg;
	char what[WHAT_LEN];
	enum kv_rc rc = kv_blob_delete(kv_store_blobs(m->engine->store), key, NULL, NULL, err);

	snprintf(what, sizeof what, "the blob %s of %" PRIu64 " bytes, which nobody names, was deleted", key,
		 size);
	return rc == KV_OK ? say(m, false, what, err) : rc;
}

static enum kv_rc mend_shard(void *arg, struct core_shard_id id, struct kv_err *err)
{
	struct mender *m = arg;
	struct core_chain chain;
	enum kv_rc rc;

	m->id = id;
	core_uuid_format('s', id.u, m->shard);
	rc = core_chain_read(m->engine, id, &chain, err);
	if (core_is_damage(rc)) {
		rc = mend_chain(m, &chain, err);
		core_chain_fini(&chain);
		if (rc == KV_OK)
			rc = core_chain_read(m->engine, id, &chain, err);
	}
	if (rc == KV_OK && !chain.tombstone && m->repair->drop_damaged) {
		rc = drop_damaged(m, err);
		core_chain_fini(&chain);
		if (rc == KV_OK)
			rc = core_chain_read(m->engine, id, &chain, err);
	}
	if (rc == KV_OK && !chain.tombstone && m->sound)
		rc = core_orphans_of(m->engine, id, &chain.state, delete_orphan, m, err);
	core_chain_fini(&chain);
	m->shard[0] = '\0';
	return core_is_damage(rc) ? KV_OK : rc; /* it stays as it is */
}

/* --- the store ------------------------------------------------------------------------------------- */

static void found_damage(void *arg, const struct kv_damage *damage)
{
	struct mender *m = arg;

	(void)damage;
	m->sound = false;
}

static enum kv_rc drop_names(struct mender *m, struct kv_err *err)
{
	struct kv_version head;
	struct core_name *names;
	size_t count;
	enum kv_rc rc = core_name_list(m->engine, &names, &count, err);

	free(names);
	if (rc != KV_CORRUPT && rc != KV_NEWER)
		return rc;
	rc = say(m, true, "the names cannot be read, and are all forgotten", err);
	if (rc == KV_OK)
		rc = kv_consensus_head(kv_store_consensus(m->engine->store), "names", &head, err);
	if (rc != KV_OK)
		return rc;
	rc = kv_consensus_remove(kv_store_consensus(m->engine->store), "names", head.seqno, err);
	free(head.data);
	core_names_forget(m->engine);
	return rc;
}

enum kv_rc core_repair_store(struct core_engine *e, const struct core_repair *repair, struct kv_err *err)
{
	struct mender m = {.engine = e, .repair = repair, .sound = true};
	enum kv_rc rc;

	if (!e->traits.sole_owner)
		return kv_fail_rc(err, KV_READONLY);
	rc = kv_store_verify(e->store, found_damage, &m, err);
	if (core_is_damage(rc)) {
		m.sound = false;
		rc = KV_OK;
	}
	if (rc == KV_OK && repair->drop_damaged)
		rc = drop_names(&m, err);
	if (rc == KV_OK || core_is_damage(rc))
		rc = core_each_shard(e, mend_shard, &m, err);
	m.shard[0] = '\0';
	if (rc == KV_OK && m.sound)
		rc = core_orphans_of_nobody(e, delete_orphan, &m, err);
	return core_is_damage(rc) ? KV_OK : rc;
}
