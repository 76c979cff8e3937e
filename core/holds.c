/*
 * holds.c - durable holds of named consumers; what they do to since is decided by
 * the transitions (transition.c).
 */
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"
#include "core/staged.h"

struct hold_change {
	struct core_change change;
	const char *name;
	const struct core_hold_ask *ask; /* NULL: a plain move, or a policy */
	struct core_frontier since;
	uint64_t follow;
	struct core_hold is;
};

static enum kv_rc run_move(struct core_change *c, const struct core_state *s, struct core_diff *d, bool *skip,
			   struct kv_err *err)
{
	struct hold_change *h = (struct hold_change *)c;
	bool changed;
	enum kv_rc rc = core_do_hold(s, h->name, h->since, h->follow, d, &changed, err);

	*skip = rc == KV_OK && !changed;
	return rc;
}

enum kv_rc core_shard_move_hold(struct core_shard *s, const char *name, struct core_frontier since,
				uint64_t follow, struct kv_err *err)
{
	struct hold_change c = {.change = {.run = run_move, .sync = KV_RELEASE},
				.name = name,
				.since = since,
				.follow = follow};

	return core_machine_commit(s, &c.change, err);
}

static enum kv_rc run_set(struct core_change *c, const struct core_state *s, struct core_diff *d, bool *skip,
			  struct kv_err *err)
{
	struct hold_change *h = (struct hold_change *)c;
	bool changed;
	enum kv_rc rc = core_do_set_hold(s, h->name, h->ask, d, &h->is, &changed, err);

	/* To move one lets space be given back; to make one does not. */
	c->sync = core_state_hold(s, h->name) != NULL ? KV_RELEASE : KV_SYNC;
	*skip = rc == KV_OK && !changed;
	return rc;
}

enum kv_rc core_hold_set(struct core_shard *s, const char *name, const struct core_hold_ask *ask,
			 struct core_hold *out, struct kv_err *err)
{
	struct hold_change c = {.change = {.run = run_set, .sync = KV_SYNC}, .name = name, .ask = ask};
	enum kv_rc rc;

	_Static_assert(CORE_HOLD_NAME_LEN == CORE_STAGED_NAME_LEN, "they share their grammar");
	if (!core_staged_name_ok(name))
		return kv_fail(err, KV_BAD_NAME, "a hold cannot be called that");
	rc = core_machine_commit(s, &c.change, err);
	if (out != NULL)
		*out = c.is;
	return rc;
}

static enum kv_rc run_drop(struct core_change *c, const struct core_state *s, struct core_diff *d, bool *skip,
			   struct kv_err *err)
{
	*skip = false;
	return core_do_drop_hold(s, ((struct hold_change *)c)->name, d, err);
}

enum kv_rc core_hold_drop(struct core_shard *s, const char *name, struct kv_err *err)
{
	struct hold_change c = {.change = {.run = run_drop, .sync = KV_RELEASE}, .name = name};

	return core_machine_commit(s, &c.change, err);
}

/* A tombstone still has its holds, for nobody. Under mu. KV_NO_SHARD */
static enum kv_rc still_there(const struct core_shard *s, struct kv_err *err)
{
	return s->gone || s->state.tombstone ? kv_fail(err, KV_NO_SHARD, "the shard was removed") : KV_OK;
}

enum kv_rc core_hold_get(struct core_shard *s, const char *name, struct core_hold *out, struct kv_err *err)
{
	const struct core_hold *hold;
	enum kv_rc rc = core_machine_load(s, true, err);

	*out = (struct core_hold){0};
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	rc = still_there(s, err);
	hold = rc == KV_OK ? core_state_hold(&s->state, name) : NULL;
	if (hold != NULL)
		*out = *hold;
	else if (rc == KV_OK)
		rc = kv_fail(err, KV_NOTFOUND, "no hold %s", name);
	pthread_mutex_unlock(&s->mu);
	return rc;
}

enum kv_rc core_hold_list(struct core_shard *s, struct core_hold **out, size_t *count, struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, true, err);

	*out = NULL;
	*count = 0;
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	rc = still_there(s, err);
	if (rc == KV_OK)
		*out = calloc(s->state.hold_count + 1, sizeof **out);
	if (*out != NULL) {
		*count = s->state.hold_count;
		if (*count != 0)
			memcpy(*out, s->state.holds, *count * sizeof **out);
	} else if (rc == KV_OK) {
		rc = kv_fail_rc(err, KV_NOMEM);
	}
	pthread_mutex_unlock(&s->mu);
	return rc;
}
