/*
 * bury.c - removed shards, until they are deleted.
 *
 * A removal commits a tombstone and takes the shard from the engine's table to the list of the dying. Its
 * last reader has it buried: in the background everything it had is deleted, its versions last (life.c). It
 * leaves the list after that, so that nobody loads the tombstone meanwhile. A new shard may be made under the
 * id of one that is dying: what both could name is then kept until the last of them goes.
 */
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"
#include "core/staged_impl.h"

struct core_shard *core_dying_locked(struct core_engine *e, struct core_shard_id id)
{
	struct core_shard *s = e->dying;

	while (s != NULL && !core_uuid_eq(s->home.shard.u, id.u))
		s = s->next_dying;
	return s;
}

bool core_is_dying(struct core_engine *e, struct core_shard_id id)
{
	bool dying;

	pthread_mutex_lock(&e->mu);
	dying = core_dying_locked(e, id) != NULL;
	pthread_mutex_unlock(&e->mu);
	return dying;
}

void core_dying_add(struct core_shard *s)
{
	struct core_engine *e = s->engine;

	pthread_mutex_lock(&e->mu);
	if (s->hashed) {
		HASH_DEL(e->shards, s);
		s->hashed = false;
		s->next_dying = e->dying;
		e->dying = s;
	}
	pthread_mutex_unlock(&e->mu);
}

bool core_dying_stands(struct core_engine *e, const char *text)
{
	struct core_shard_id id;
	struct kv_version head;
	struct core_shard *s;
	uint64_t tombstone = KV_NO_VERSION;
	bool dying;

	if (!core_uuid_parse('s', text, strlen(text), &id.u))
		return false;
	pthread_mutex_lock(&e->mu);
	s = core_dying_locked(e, id);
	if (s != NULL)
		tombstone = s->state.seqno;
	pthread_mutex_unlock(&e->mu);
	if (s == NULL || kv_consensus_head(kv_store_consensus(e->store), text, &head, NULL) != KV_OK)
		return false;
	dying = head.seqno == tombstone;
	free(head.data);
	return dying;
}

/* --- the removal ------------------------------------------------------------------------------------- */

static enum kv_rc run_remove(struct core_change *c, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	(void)c;
	*skip = false;
	return core_do_remove(s, d, err);
}

enum kv_rc core_shard_remove(struct core_shard *s, struct kv_err *err)
{
	struct core_change c = {.run = run_remove, .sync = KV_RELEASE};
	struct core_info info;
	enum kv_rc rc = core_shard_info(s, true, &info, err);

	/* What is not finished is refused below; most of those who try never will be, and leave no mark. */
	if (rc == KV_OK && info.upper.empty && !s->engine->traits.read_only)
		rc = core_dying_mark(s->engine, s->home.shard, err);
	if (rc == KV_OK)
		rc = core_machine_commit(s, &c, err);
	if (rc == KV_NOT_FINISHED && info.upper.empty &&
	    core_dying_unmark(s->engine, s->home.shard, NULL) != KV_OK)
		core_notice(s->engine, "a mark of a removal that was refused stays until the next start");
	if (rc != KV_OK)
		return rc;
	core_machine_end(s);
	core_stages_let_go(s);
	core_dying_add(s);
	return KV_OK;
}

/* --- the deleting ------------------------------------------------------------------------------------ */

/* What of a removed shard may go: others of its id may still be read, of an earlier or a later life. One in
 * the table may have its tombstone already, and be on its way to the list of the dying. */
static enum core_burial burial_of(struct core_shard *s)
{
	enum core_burial burial;
	struct core_shard *later;

	pthread_mutex_lock(&s->engine->mu);
	HASH_FIND(hh, s->engine->shards, &s->home.shard, sizeof s->home.shard, later);
	burial = later != NULL ? CORE_BURY_NAMED : CORE_BURY_ALL;
	for (const struct core_shard *o = s->engine->dying; o != NULL; o = o->next_dying) {
		if (o == s || !core_uuid_eq(o->home.shard.u, s->home.shard.u))
			continue;
		if (o->state.seqno == s->state.seqno)
			burial = CORE_BURY_NOTHING; /* the same one again; its last reader does it */
		else if (burial == CORE_BURY_ALL)
			burial = CORE_BURY_NAMED;
	}
	pthread_mutex_unlock(&s->engine->mu);
	return burial;
}

/* Nobody else holds the removed shard: delete what it had, and drop the last reference. True: it was that.
 * It stays on the list of the dying until it is deleted, so that nobody loads the tombstone meanwhile; and
 * leaves it under make_mu, so that of several the last one knows that it is. */
static bool bury(struct core_shard *s)
{
	struct core_engine *e = s->engine;
	struct kv_err err;
	bool last;

	pthread_mutex_lock(&e->make_mu);
	if (core_machine_bury(s, burial_of(s), &err) == KV_OK)
		core_count(e, CORE_M_BURIED, 1);
	else
		core_notice(e, "a removed shard is not deleted until it is looked at again: %s", err.msg);
	pthread_mutex_lock(&e->mu);
	for (struct core_shard **p = &e->dying; *p != NULL; p = &(*p)->next_dying) {
		if (*p == s) {
			*p = s->next_dying;
			break;
		}
	}
	last = --s->refs == 0;
	pthread_mutex_unlock(&e->mu);
	pthread_mutex_unlock(&e->make_mu);
	return last;
}

struct bury_job {
	struct core_job job;
	struct core_engine *engine;
	struct core_shard *shard; /* the last reference */
};

/* Also when the engine closes: what is small is gone then, and what is large would hold up the next start. */
static void do_bury_job(struct core_job *job, bool stopping)
{
	struct bury_job *j = (struct bury_job *)job;

	(void)stopping;
	if (bury(j->shard))
		core_shard_free(j->shard);
	core_gauge_add(j->engine, CORE_G_JOBS, -1);
	free(j);
}

/* Nobody waits for the deleting. Without memory, or a thread any more, it is done here. */
void core_queue_burial(struct core_shard *s)
{
	struct core_engine *e = s->engine;
	struct bury_job *j = e->worker != NULL ? malloc(sizeof *j) : NULL;

	if (j == NULL) {
		if (bury(s))
			core_shard_free(s);
		return;
	}
	*j = (struct bury_job){.job.run = do_bury_job, .shard = s, .engine = e};
	core_gauge_add(e, CORE_G_JOBS, 1);
	core_worker_queue(e->worker, &j->job);
}
