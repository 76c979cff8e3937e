/*
 * engine.c - an open store and its shards in memory.
 *
 * Each shard that is used has one structure here, found by id; its state is
 * loaded at the first use and stays while it is used or there is room. A removed
 * shard leaves the table at once and stays on a second list until its last
 * reader has closed it; then what it had on disk is deleted.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/engine_impl.h"
#include "core/staged_impl.h"

uint64_t core_now_us(const struct core_engine *e)
{
	struct timespec ts;

	if (e->config.now_us != NULL)
		return e->config.now_us(e->config.now_arg);
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void core_notice(const struct core_engine *e, const char *fmt, ...)
{
	char sentence[512];
	va_list ap;

	if (e->config.notice == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, ap);
	va_end(ap);
	e->config.notice(e->config.notice_arg, sentence);
}

enum kv_rc core_engine_open(struct kv_store *store, const struct core_engine_config *config,
			    struct core_engine **out, struct kv_err *err)
{
	struct core_engine *e = calloc(1, sizeof *e);

	*out = NULL;
	if (e == NULL) {
		kv_store_close(store);
		return kv_fail_rc(err, KV_NOMEM);
	}
	e->store = store;
	e->traits = kv_store_traits(store);
	e->instance.u = core_uuid_new();
	if (config != NULL)
		e->config = *config;
	e->writer = core_writer_describe(e->instance.u, e->config.host, e->config.purpose);
	e->config.host = e->writer.host; /* the copy */
	e->config.purpose = e->writer.purpose;
	pthread_mutex_init(&e->make_mu, NULL);
	pthread_mutex_init(&e->mu, NULL);
	pthread_mutex_init(&e->names_mu, NULL);
	core_builders_init(&e->builders);
	e->worker = core_worker_start();
	e->waker = core_worker_start();
	if (e->worker == NULL || e->waker == NULL || !core_keeper_start(e) || !core_follower_start(e) ||
	    !core_upkeeper_start(e)) {
		core_engine_close(e);
		return kv_fail_rc(err, KV_NOMEM);
	}
	if (!e->traits.read_only) {
		enum kv_rc rc = core_dying_resume(e, err);

		if (rc != KV_OK) {
			core_engine_close(e);
			return rc;
		}
	}
	*out = e;
	return KV_OK;
}

static void shard_free(struct core_shard *s)
{
	core_staged_end(s);
	core_held_end(s);
	core_state_fini(&s->state);
	core_group_fini(&s->group);
	pthread_mutex_destroy(&s->commit_mu);
	pthread_mutex_destroy(&s->mu);
	free(s);
}

void core_engine_close(struct core_engine *e)
{
	struct core_shard *s, *next;

	if (e == NULL)
		return;
	atomic_store(&e->stops, true);
	core_keeper_stop(e);
	core_follower_stop(e);
	core_upkeeper_stop(e);
	core_worker_stop(e->worker);
	e->worker = NULL; /* what follows leaves nothing to do */
	core_upkeeper_free(e);
	core_worker_stop(e->waker);
	e->waker = NULL;
	HASH_ITER(hh, e->shards, s, next)
	{
		/* Unsynced is enough: what a power cut takes back, the lease does. */
		if (!e->traits.read_only && core_own_writer_stands(s) &&
		    core_expire(s, e->writer.id, KV_RIDE, NULL) != KV_OK)
			core_notice(e, "a writer was not struck from a shard; its lease will be");
		core_end_lease(s);
		if (s->hashed)                  /* else it was found removed by others just now */
			HASH_DEL(e->shards, s); /* NOLINT(clang-analyzer-*): it does not follow uthash */
		shard_free(s);
	}
	core_names_forget(e);
	kv_store_close(e->store);
	core_builders_fini(&e->builders);
	pthread_mutex_destroy(&e->names_mu);
	pthread_mutex_destroy(&e->mu);
	pthread_mutex_destroy(&e->make_mu);
	free(e);
}

void core_engine_drain(struct core_engine *e)
{
	if (e != NULL)
		core_worker_drain(e->waker);
}

bool core_engine_read_only(const struct core_engine *e)
{
	return e->traits.read_only;
}

enum kv_rc core_engine_usage(struct core_engine *e, struct kv_usage *out, struct kv_err *err)
{
	return kv_store_usage(e->store, out, err);
}

/* --- handles --------------------------------------------------------------------------------------- */

static struct core_shard *dying_locked(struct core_engine *e, struct core_shard_id id)
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
	dying = dying_locked(e, id) != NULL;
	pthread_mutex_unlock(&e->mu);
	return dying;
}

/* The shard's structure with a reference, made if it is not there; NULL: out of memory. */
static struct core_shard *shard_get(struct core_engine *e, struct core_shard_id id, bool cold)
{
	struct core_shard *s;

	pthread_mutex_lock(&e->mu);
	HASH_FIND(hh, e->shards, &id, sizeof id, s);
	if (s == NULL) {
		s = calloc(1, sizeof *s);
		if (s == NULL)
			goto out;
		pthread_mutex_init(&s->commit_mu, NULL);
		core_group_init(&s->group);
		pthread_mutex_init(&s->mu, NULL);
		s->engine = e;
		s->home = (struct core_home){
			.blobs = kv_store_blobs(e->store),
			.shard = id,
			.instance = e->instance,
			.may_vanish = !e->traits.sole_owner,
			.builders = &e->builders,
			.stops = &e->stops,
		};
		HASH_ADD(hh, e->shards, home.shard, sizeof id, s);
		s->hashed = core_hashed(s);
		if (!s->hashed) {
			shard_free(s);
			s = NULL;
			goto out;
		}
	}
	s->cold = cold && (s->cold || !s->loaded);
	core_shard_take_locked(s);
out:
	pthread_mutex_unlock(&e->mu);
	return s;
}

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
		shard_free(j->shard);
	core_gauge_add(j->engine, CORE_G_JOBS, -1);
	free(j);
}

/* Nobody waits for the deleting. Without memory, or a thread any more, it is done here. */
static void queue_burial(struct core_shard *s)
{
	struct core_engine *e = s->engine;
	struct bury_job *j = e->worker != NULL ? malloc(sizeof *j) : NULL;

	if (j == NULL) {
		if (bury(s))
			shard_free(s);
		return;
	}
	*j = (struct bury_job){.job.run = do_bury_job, .shard = s, .engine = e};
	core_gauge_add(e, CORE_G_JOBS, 1);
	core_worker_queue(e->worker, &j->job);
}

/* The table is in order of last use: of those nobody uses, the first has been idle longest. NULL: there is
 * none among the first few, which is good enough: the next close looks again. One that knows our writer or
 * has a lease of ours has it struck first, and is kept a while longer. */
static struct core_shard *evict_locked(struct core_engine *e)
{
	struct core_shard *s, *next;
	unsigned looks = 0;

	HASH_ITER(hh, e->shards, s, next)
	{
		bool writes = s->refs == 0 && core_own_writer_stands(s);

		if (s->refs == 0 && (writes || core_own_lease_stands(s))) {
			core_shard_take_locked(s);
			if (writes ? core_queue_expire(s) : core_queue_end_lease(s))
				break;
			s->refs--;
		} else if (s->refs == 0) {
			HASH_DEL(e->shards, s);
			e->idle_bytes -= s->idle_bytes;
			return s;
		}
		if (++looks == 64)
			break;
	}
	return NULL;
}

static bool is_full_locked(const struct core_engine *e)
{
	/* At the end nothing is evicted: writers would be struck in the background, and nobody does that. */
	return !core_upkeep_stops(e) &&
	       (HASH_COUNT(e->shards) > CORE_CACHED_SHARDS || e->idle_bytes > CORE_CACHED_BYTES);
}

/* The last handle was closed: keep the shard, as the one used last, and evict another; what cannot be kept is
 * given back to be freed. */
static struct core_shard *idle_locked(struct core_shard *s)
{
	struct core_engine *e = s->engine;
	bool keeps = s->loaded && !s->cold;
	bool moves = !keeps || HASH_COUNT(e->shards) > 1; /* alone it is the last one already */

	if (!s->hashed)
		return s;
	if (moves)
		HASH_DEL(e->shards, s);
	if (keeps && moves)
		HASH_ADD(hh, e->shards, home.shard, sizeof s->home.shard, s);
	if (!keeps || !core_hashed(s))
		return s;
	/* As bytes: decoded a state takes some three times what it does encoded. */
	s->idle_bytes = sizeof *s + 3 * (s->rollup_bytes + s->rollup_weight);
	e->idle_bytes += s->idle_bytes;
	return is_full_locked(e) ? evict_locked(e) : NULL;
}

/* One more that has to go, or NULL. */
static struct core_shard *evict(struct core_engine *e)
{
	struct core_shard *s;

	pthread_mutex_lock(&e->mu);
	s = is_full_locked(e) ? evict_locked(e) : NULL;
	pthread_mutex_unlock(&e->mu);
	return s;
}

void core_shard_close(struct core_shard *s)
{
	struct core_shard *drop = NULL;
	struct core_engine *e;
	bool dead;

	if (s == NULL)
		return;
	e = s->engine;
	pthread_mutex_lock(&e->mu);
	dead = s->refs == 1 && !s->hashed && s->gone && s->state.tombstone;
	if (!dead && --s->refs == 0)
		drop = idle_locked(s);
	pthread_mutex_unlock(&e->mu);
	if (dead)
		queue_burial(s);
	while (drop != NULL) {
		shard_free(drop);
		drop = evict(e);
	}
}

struct core_shard *core_shard_ref(struct core_shard *s)
{
	pthread_mutex_lock(&s->engine->mu);
	s->refs++;
	pthread_mutex_unlock(&s->engine->mu);
	return s;
}

struct core_shard_id core_shard_id(const struct core_shard *s)
{
	return s->home.shard;
}

const struct core_home *core_shard_home(const struct core_shard *s)
{
	return &s->home;
}

/* From the table to the list of the dying. */
static void unhash(struct core_shard *s)
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

static enum kv_rc open_once(struct core_engine *e, struct core_shard_id id, bool cold,
			    struct core_shard **out, struct kv_err *err)
{
	struct core_shard *s;
	char text[CORE_ID_LEN];
	enum kv_rc rc;
	bool dying;

	*out = NULL;
	pthread_mutex_lock(&e->mu);
	HASH_FIND(hh, e->shards, &id, sizeof id, s);
	dying = s == NULL && dying_locked(e, id) != NULL;
	pthread_mutex_unlock(&e->mu);
	if (dying) {
		struct kv_version head;

		/* Its readers are not done; a new shard may stand over it all the same. */
		rc = kv_consensus_head(kv_store_consensus(e->store), core_uuid_format('s', id.u, text), &head,
				       err);
		if (rc == KV_OK) {
			pthread_mutex_lock(&e->mu);
			s = dying_locked(e, id);
			dying = s != NULL && s->state.seqno == head.seqno;
			pthread_mutex_unlock(&e->mu);
			free(head.data);
		} else if (rc != KV_NOTFOUND) {
			return rc;
		}
		if (dying)
			return kv_fail(err, KV_NO_SHARD, "no shard %s", text);
	}
	s = shard_get(e, id, cold);
	if (s == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	rc = core_machine_load(s, false, err);
	pthread_mutex_lock(&s->mu);
	dying = s->state.tombstone;
	pthread_mutex_unlock(&s->mu);
	if (rc == KV_OK && dying) {
		/* A removal that was cut short: go on with it. */
		rc = kv_fail(err, KV_NO_SHARD, "no shard %s", core_uuid_format('s', id.u, text));
		core_machine_end(s);
		unhash(s);
	}
	if (rc != KV_OK) {
		core_shard_close(s);
		return rc;
	}
	*out = s;
	return KV_OK;
}

static enum kv_rc open_shard(struct core_engine *e, struct core_shard_id id, bool cold,
			     struct core_shard **out, struct kv_err *err)
{
	enum kv_rc rc = open_once(e, id, cold, out, err);

	/* Found just before it was removed and made anew: the next look finds the new one. */
	while (rc == KV_SHARD_REPLACED)
		rc = open_once(e, id, cold, out, err);
	return rc;
}

enum kv_rc core_shard_open(struct core_engine *e, struct core_shard_id id, struct core_shard **out,
			   struct kv_err *err)
{
	return open_shard(e, id, false, out, err);
}

enum kv_rc core_shard_visit(struct core_engine *e, struct core_shard_id id, struct core_shard **out,
			    struct kv_err *err)
{
	return open_shard(e, id, true, out, err);
}

enum kv_rc core_shard_create(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
			     struct kv_err *err)
{
	return core_shard_create_with(e, id, owner, NULL, err);
}

enum kv_rc core_shard_create_with(struct core_engine *e, struct core_shard_id id, struct core_owner owner,
				  const struct core_content *content, struct kv_err *err)
{
	struct core_shard *s;
	uint64_t over = KV_NO_VERSION;
	char text[CORE_ID_LEN];
	enum kv_rc rc;

	if (e->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	/* An open finishes a removal that was cut short. */
	rc = core_shard_open(e, id, &s, err);
	core_shard_close(s);
	if (rc == KV_OK)
		return kv_fail(err, KV_SHARD_EXISTS, "shard %s exists", core_uuid_format('s', id.u, text));
	if (rc != KV_NO_SHARD)
		return rc;
	pthread_mutex_lock(&e->make_mu);
	pthread_mutex_lock(&e->mu);
	s = dying_locked(e, id);
	if (s != NULL)
		over = s->state.seqno;
	pthread_mutex_unlock(&e->mu);
	rc = core_machine_init(e, id, owner, content, over, err);
	pthread_mutex_unlock(&e->make_mu);
	if (rc == KV_MISMATCH)
		return kv_fail(err, KV_SHARD_EXISTS, "shard %s exists", core_uuid_format('s', id.u, text));
	return rc;
}

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
	unhash(s);
	return KV_OK;
}

/* Whether the newest version under this id is the tombstone of a shard whose readers are not done. */
static bool is_dying(struct core_engine *e, const char *text)
{
	struct core_shard_id id;
	struct kv_version head;
	struct core_shard *s;
	uint64_t tombstone = KV_NO_VERSION;
	bool dying;

	if (!core_uuid_parse('s', text, strlen(text), &id.u))
		return false;
	pthread_mutex_lock(&e->mu);
	s = dying_locked(e, id);
	if (s != NULL)
		tombstone = s->state.seqno;
	pthread_mutex_unlock(&e->mu);
	if (s == NULL || kv_consensus_head(kv_store_consensus(e->store), text, &head, NULL) != KV_OK)
		return false;
	dying = head.seqno == tombstone;
	free(head.data);
	return dying;
}

/* Drop from a page of keys what is no shard; the others move up. */
static void keep_shards(struct core_engine *e, struct kv_keys *keys)
{
	size_t kept = 0;

	for (size_t i = 0; i < keys->count; i++) {
		if (keys->keys[i][0] == 's' && !is_dying(e, keys->keys[i]))
			keys->keys[kept++] = keys->keys[i];
		else
			free(keys->keys[i]);
	}
	keys->count = kept;
}

enum kv_rc core_shard_list(struct core_engine *e, const char *after, size_t limit, struct kv_keys *out,
			   struct kv_err *err)
{
	char from[KV_KEY_MAX + 1] = "s"; /* keys of shards begin with it, and those of nothing else do */
	bool more = true;
	enum kv_rc rc;

	if (after[0] != '\0')
		snprintf(from, sizeof from, "%s", after);
	do {
		rc = kv_consensus_list_keys(kv_store_consensus(e->store), from, limit, out, err);
		if (rc != KV_OK)
			return rc;
		more = out->count == limit;
		if (out->count != 0)
			snprintf(from, sizeof from, "%s", out->keys[out->count - 1]);
		keep_shards(e, out);
		if (out->count == 0)
			kv_keys_free(out);
	} while (out->count == 0 && more);
	return KV_OK;
}
