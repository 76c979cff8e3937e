/*
 * writers.c - who appends to a shard, as its state knows it.
 *
 * A writer is registered by its first append and renewed by each version that it
 * makes (state.h). The engine has one writer for all its shards; it is struck from
 * them when the engine closes, and from a shard that leaves the cache.
 */
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"
#include "core/upkeep.h"

bool core_own_writer_stands(const struct core_shard *s)
{
	return s->loaded && !s->gone && !s->state.tombstone &&
	       core_state_writer(&s->state, s->engine->writer.id) != NULL;
}

struct expire_change {
	struct core_change change;
	struct core_uuid id;
};

static enum kv_rc run_expire(struct core_change *c, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	enum kv_rc rc = core_do_expire(s, ((struct expire_change *)c)->id, d, err);

	*skip = rc == KV_NOTFOUND || rc == KV_NO_SHARD;
	return *skip ? KV_OK : rc;
}

enum kv_rc core_expire(struct core_shard *s, struct core_uuid id, enum kv_sync sync, struct kv_err *err)
{
	/* Under the engine's own tag: a version of the writer's would renew what it strikes. */
	struct expire_change c = {.change = {.run = run_expire, .sync = sync}, .id = id};
	enum kv_rc rc = core_machine_commit(s, &c.change, err);

	return rc == KV_NO_SHARD || rc == KV_SHARD_REPLACED ? KV_OK : rc;
}

enum kv_rc core_shard_writers(struct core_shard *s, struct core_writer_state **out, size_t *count,
			      struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, false, err);

	*out = NULL;
	*count = 0;
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	*out = calloc(s->state.writer_count + 1, sizeof **out);
	if (*out != NULL) {
		*count = s->state.writer_count;
		if (*count != 0)
			memcpy(*out, s->state.writers, *count * sizeof **out);
	}
	pthread_mutex_unlock(&s->mu);
	return *out != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

struct expire_job {
	struct core_job job;
	struct core_shard *shard; /* a reference */
};

static void do_expire_job(struct core_job *job, bool stopping)
{
	struct expire_job *j = (struct expire_job *)job;
	struct core_shard *s = j->shard;

	/* What fails here is done by the lease. */
	if (!stopping && core_expire(s, s->engine->writer.id, KV_RIDE, NULL) != KV_OK)
		core_notice(s->engine, "a writer was not struck from a shard; its lease will be");
	free(j);
	core_shard_close(s);
}

bool core_queue_expire(struct core_shard *s)
{
	struct expire_job *j = s->engine->worker != NULL ? malloc(sizeof *j) : NULL;

	if (j == NULL)
		return false;
	*j = (struct expire_job){.job.run = do_expire_job, .shard = s};
	core_worker_queue(s->engine->worker, &j->job);
	return true;
}

/* --- on demand ------------------------------------------------------------------------------------- */

static enum kv_rc run_strike(struct core_change *c, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	*skip = false;
	return core_do_expire(s, ((struct expire_change *)c)->id, d, err);
}

static enum kv_rc run_end_lease(struct core_change *c, const struct core_state *s, struct core_diff *d,
				bool *skip, struct kv_err *err)
{
	*skip = false;
	return core_do_end_lease(s, ((struct expire_change *)c)->id, d, err);
}

/* A reader of ours keeps what it has pinned, and holds its time no longer. False: there is none. */
static bool take_need(struct core_shard *s, struct core_uuid id)
{
	struct core_need *need;

	pthread_mutex_lock(&s->mu);
	need = s->needs;
	while (need != NULL && !core_uuid_eq(need->id, id))
		need = need->next;
	if (need != NULL)
		need->pins_only = true;
	pthread_mutex_unlock(&s->mu);
	return need != NULL;
}

enum kv_rc core_shard_expire(struct core_shard *s, char kind, struct core_uuid id, struct kv_err *err)
{
	struct expire_change c = {
		.change = {.run = kind == 'w' ? run_strike : run_end_lease, .sync = KV_SYNC}, .id = id};

	if (s->engine->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	if (kind == 'r' && take_need(s, id))
		return KV_OK;
	return core_machine_commit(s, &c.change, err);
}
