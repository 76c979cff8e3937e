/*
 * shard.c - what one asks of a shard and changes about it, beside its data.
 *
 * Questions are answered from the cached state under its lock; changes are
 * transitions that the machine commits.
 */
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"

enum kv_rc core_shard_info(struct core_shard *s, bool recent, struct core_info *out, struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, recent, err);
	char text[CORE_ID_LEN];

	*out = (struct core_info){0};
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	*out = (struct core_info){
		.seqno = s->state.seqno,
		.first_seqno = s->state.first_seqno,
		.since = s->state.since,
		.upper = s->state.upper,
		.created_ms = s->state.created_ms,
		.changed_ms = s->state.walltime_ms,
		.owner = s->state.owner,
	};
	if (s->gone || s->state.tombstone)
		rc = KV_NO_SHARD;
	pthread_mutex_unlock(&s->mu);
	if (rc != KV_OK)
		return kv_fail(err, rc, "no shard %s", core_uuid_format('s', s->home.shard.u, text));
	return KV_OK;
}

/* Arrays copied, batches by reference. */
bool core_state_copy(const struct core_state *s, struct core_state *out)
{
	*out = *s;
	out->batch_cap = s->batch_count;
	out->batches = calloc(s->batch_count + 1, sizeof(struct core_batch *));
	out->holds = calloc(s->hold_count + 1, sizeof *out->holds);
	out->hold_cap = s->hold_count;
	out->rollup_cap = s->rollup_count;
	out->token_cap = s->token_count;
	out->tokens = calloc(s->token_count + 1, sizeof *out->tokens);
	out->rollups = calloc(s->rollup_count + 1, sizeof *out->rollups);
	out->staged_cap = s->staged_count;
	out->staged = calloc(s->staged_count + 1, sizeof *out->staged);
	out->writer_cap = s->writer_count;
	out->writers = calloc(s->writer_count + 1, sizeof *out->writers);
	out->lease_cap = s->lease_count;
	out->leases = calloc(s->lease_count + 1, sizeof *out->leases);
	out->dead_cap = s->dead_count;
	out->dead = calloc(s->dead_count + 1, sizeof *out->dead);
	if (out->batches == NULL || out->holds == NULL || out->rollups == NULL || out->tokens == NULL ||
	    out->staged == NULL || out->writers == NULL || out->leases == NULL || out->dead == NULL) {
		out->batch_count = 0;
		core_state_fini(out);
		return false;
	}
	for (size_t i = 0; i < s->batch_count; i++)
		out->batches[i] = core_batch_ref(s->batches[i]);
	if (s->hold_count != 0)
		memcpy(out->holds, s->holds, s->hold_count * sizeof *out->holds);
	if (s->token_count != 0)
		memcpy(out->tokens, s->tokens, s->token_count * sizeof *out->tokens);
	if (s->rollup_count != 0)
		memcpy(out->rollups, s->rollups, s->rollup_count * sizeof *out->rollups);
	if (s->staged_count != 0)
		memcpy(out->staged, s->staged, s->staged_count * sizeof *out->staged);
	if (s->writer_count != 0)
		memcpy(out->writers, s->writers, s->writer_count * sizeof *out->writers);
	if (s->lease_count != 0)
		memcpy(out->leases, s->leases, s->lease_count * sizeof *out->leases);
	if (s->dead_count != 0)
		memcpy(out->dead, s->dead, s->dead_count * sizeof *out->dead);
	return true;
}

enum kv_rc core_shard_state(struct core_shard *s, struct core_state *out, struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, false, err);
	bool copied;

	*out = (struct core_state){0};
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	copied = core_state_copy(&s->state, out);
	pthread_mutex_unlock(&s->mu);
	return copied ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

enum kv_rc core_state_size(struct core_shard_id id, const struct core_state *s, uint64_t *bytes,
			   struct kv_err *err)
{
	struct core_buf encoded = {0};
	enum kv_rc rc = core_state_encode(id, s, &encoded, err);

	*bytes = encoded.len;
	core_buf_fini(&encoded);
	return rc;
}

enum kv_rc core_shard_batch(struct core_shard *s, struct core_frontier lower, struct core_frontier upper,
			    struct core_batch **out, struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, false, err);
	size_t at;

	*out = NULL;
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	at = core_state_batch_at(&s->state, lower);
	if (at < s->state.batch_count && core_frontier_eq(s->state.batches[at]->upper, upper))
		*out = core_batch_ref(s->state.batches[at]);
	pthread_mutex_unlock(&s->mu);
	return *out != NULL ? KV_OK : kv_fail_rc(err, KV_NO_BATCH);
}

struct owner_change {
	struct core_change change;
	struct core_owner owner;
};

static enum kv_rc run_owner(struct core_change *c, const struct core_state *s, struct core_diff *d,
			    bool *skip, struct kv_err *err)
{
	*skip = false;
	return core_do_owner(s, ((struct owner_change *)c)->owner, d, err);
}

enum kv_rc core_shard_set_owner(struct core_shard *s, struct core_owner owner, struct kv_err *err)
{
	struct owner_change c = {.change = {.run = run_owner, .sync = KV_SYNC}, .owner = owner};

	return core_machine_commit(s, &c.change, err);
}
