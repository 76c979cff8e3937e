/*
 * transition.c - the changes of a shard that are no appends; see transition.h.
 *
 * A tombstone takes none of them but rollups: the shard is gone for everybody.
 */
#include "core/transition.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/transition_impl.h"

/* --- holds ----------------------------------------------------------------------------------------- */

static bool is_removed(const struct core_diff *d, const char *name)
{
	for (size_t i = 0; i < d->removed_count; i++)
		if (strcmp(d->holds_removed[i], name) == 0)
			return true;
	return false;
}

/* The least since of the holds as d leaves them. *any: there are holds. */
static struct core_frontier least_hold(const struct core_state *s, const struct core_diff *d, bool *any)
{
	struct core_frontier least = core_frontier_empty();

	for (size_t i = 0; i < s->hold_count; i++) {
		const struct core_hold *hold = &s->holds[i];
		bool changed = false;

		for (size_t j = 0; j < d->hold_count && !changed; j++)
			changed = strcmp(d->holds[j].name, hold->name) == 0;
		if (changed || is_removed(d, hold->name))
			continue;
		*any = true;
		least = core_frontier_min(least, hold->since);
	}
	for (size_t j = 0; j < d->hold_count; j++) {
		*any = true;
		least = core_frontier_min(least, d->holds[j].since);
	}
	return least;
}

/* The least since of the leases as d leaves them. */
static struct core_frontier least_lease(const struct core_state *s, const struct core_diff *d, bool *any)
{
	struct core_frontier least = core_frontier_empty();

	for (size_t i = 0; i < s->lease_count; i++) {
		const struct core_lease *lease = &s->leases[i];

		if ((d->ends_lease && core_uuid_eq(d->ended_lease, lease->id)) ||
		    (d->has_lease && core_uuid_eq(d->lease.id, lease->id)))
			continue;
		*any = true;
		least = core_frontier_min(least, lease->since);
	}
	if (d->has_lease) {
		*any = true;
		least = core_frontier_min(least, d->lease.since);
	}
	return least;
}

void core_settle_since(const struct core_state *s, struct core_diff *d)
{
	bool any = false;
	struct core_frontier least = core_frontier_min(least_hold(s, d, &any), least_lease(s, d, &any));

	if (!any || core_frontier_le(least, s->since))
		return;
	d->has_since = true;
	d->since = least;
}

struct core_frontier core_followed(struct core_frontier was, struct core_frontier upper, uint64_t n)
{
	if (upper.empty || upper.t <= n)
		return was;
	return core_frontier_max(was, core_frontier_at(upper.t - n));
}

enum kv_rc core_hold_fenced(const struct core_hold *hold, struct kv_err *err)
{
	char since[CORE_FRONTIER_LEN];

	core_frontier_format(hold->since, since);
	kv_fail(err, KV_FENCED, "hold %s is at %s with token %" PRIu64, hold->name, since, hold->token);
	kv_detail(err, "hold=%s since=%s token=%" PRIu64, hold->name, since, hold->token);
	return KV_FENCED;
}

/* A hold that is not there yet, at or above the shard's since. */
static enum kv_rc make_hold(const struct core_state *s, const char *name, struct core_frontier since,
			    struct core_hold *out, struct kv_err *err)
{
	char at[CORE_FRONTIER_LEN], shard[CORE_FRONTIER_LEN];

	if (core_frontier_lt(since, s->since)) {
		core_frontier_format(since, at);
		core_frontier_format(s->since, shard);
		kv_fail(err, KV_COMPACTED, "a hold cannot be made at %s, below since, %s", at, shard);
		kv_detail(err, "since=%s shard_since=%s", at, shard);
		return KV_COMPACTED;
	}
	if (s->hold_count >= CORE_HOLDS_MAX)
		return kv_fail(err, KV_QUOTA, "the shard has %d holds, which is the limit", CORE_HOLDS_MAX);
	*out = (struct core_hold){.since = since};
	memcpy(out->name, name, strlen(name) + 1);
	return KV_OK;
}

enum kv_rc core_do_set_hold(const struct core_state *s, const char *name, const struct core_hold_ask *ask,
			    struct core_diff *d, struct core_hold *out, bool *changed, struct kv_err *err)
{
	const struct core_hold *was = core_state_hold(s, name);
	struct core_hold hold = was != NULL ? *was : (struct core_hold){0};
	enum kv_rc rc = KV_OK;

	*changed = false;
	*out = hold;
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (hold.token != (ask->compare ? ask->expected : 0)) {
		memcpy(hold.name, name, strlen(name) + 1); /* one that is not there has token 0 */
		return core_hold_fenced(&hold, err);
	}
	if (was == NULL)
		rc = make_hold(s, name, ask->since, &hold, err);
	if (rc != KV_OK)
		return rc;
	hold.since = core_frontier_max(hold.since, ask->since);
	if (ask->compare)
		hold.token = ask->token;
	hold.follow = 0; /* a frontier ends the policy; who fences a hold moves it alone */
	*out = hold;
	if (was != NULL && core_frontier_eq(was->since, hold.since) && was->token == hold.token &&
	    was->follow == 0)
		return KV_OK;
	*changed = true;
	d->seqno = s->seqno + 1;
	rc = core_diff_hold(d, &hold, err);
	if (rc == KV_OK)
		core_settle_since(s, d);
	return rc;
}

enum kv_rc core_do_drop_hold(const struct core_state *s, const char *name, struct core_diff *d,
			     struct kv_err *err)
{
	const struct core_hold *was = core_state_hold(s, name);

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (was == NULL)
		return kv_fail(err, KV_NOTFOUND, "no hold %s", name);
	if (strcmp(name, CORE_DEFAULT_HOLD) == 0)
		return kv_fail(err, KV_NOT_HERE, "the hold %s stays; give its history up with -", name);
	if (was->token != 0 && !was->since.empty)
		return kv_fail(err, KV_NOT_HERE, "hold %s has token %" PRIu64 "; move it to - first", name,
			       was->token);
	assert(d->holds_removed == NULL);
	d->holds_removed = calloc(1, sizeof *d->holds_removed);
	if (d->holds_removed == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	d->removed_count = 1;
	memcpy(d->holds_removed[0], was->name, sizeof was->name);
	d->seqno = s->seqno + 1;
	core_settle_since(s, d);
	return KV_OK;
}

enum kv_rc core_do_hold(const struct core_state *s, const char *name, struct core_frontier since,
			uint64_t follow, struct core_diff *d, bool *changed, struct kv_err *err)
{
	const struct core_hold *was = core_state_hold(s, name);
	struct core_hold hold;
	enum kv_rc rc;

	*changed = false;
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (was == NULL)
		return kv_fail(err, KV_NOTFOUND, "no hold %s", name);
	if (was->token != 0)
		return core_hold_fenced(was, err);
	hold = *was;
	hold.follow = follow;
	hold.since = follow != 0 ? core_followed(was->since, s->upper, follow)
				 : core_frontier_max(was->since, since);
	if (core_frontier_eq(hold.since, was->since) && hold.follow == was->follow)
		return KV_OK;
	*changed = true;
	d->seqno = s->seqno + 1;
	rc = core_diff_hold(d, &hold, err);
	if (rc == KV_OK)
		core_settle_since(s, d);
	return rc;
}

/* --- staged batches and writers ---------------------------------------------------------------------- */

static enum kv_rc no_batch(const char *name, struct kv_err *err)
{
	kv_fail(err, KV_NO_BATCH, "no staged batch %s", name);
	kv_detail(err, "batch=%s", name);
	return KV_NO_BATCH;
}

enum kv_rc core_do_stage(const struct core_state *s, struct core_uuid was, const struct core_staged *now,
			 struct core_diff *d, struct kv_err *err)
{
	static const struct core_uuid none;
	const struct core_staged *there = core_state_staged_by_id(s, now->id);

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	d->seqno = s->seqno + 1;
	if (core_uuid_eq(was, none)) {
		if (core_state_staged(s, now->name) != NULL)
			return kv_fail(err, KV_EXISTS, "a staged batch %s is there", now->name);
		if (s->staged_count >= CORE_STAGED_MAX)
			return kv_fail(err, KV_QUOTA, "the shard has %d staged batches, which is the limit",
				       CORE_STAGED_MAX);
		return core_diff_staged(d, now, err);
	}
	if (there == NULL)
		return no_batch(now->name, err);
	if (!core_uuid_eq(there->manifest, was))
		return kv_fail(err, KV_BATCH_TAKEN, "the batch %s was written to elsewhere", there->name);
	struct core_staged renamed = *now; /* its name is the state's business */
	memcpy(renamed.name, there->name, sizeof renamed.name);
	return core_diff_staged(d, &renamed, err);
}

enum kv_rc core_do_unstage(const struct core_state *s, struct core_uuid id, struct core_diff *d,
			   struct kv_err *err)
{
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (core_state_staged_by_id(s, id) == NULL)
		return kv_fail_rc(err, KV_NO_BATCH);
	d->seqno = s->seqno + 1;
	return core_diff_staged_removed(d, id, err);
}

static enum kv_rc put_named(const struct core_staged *entry, const char *name, struct core_diff *d,
			    struct kv_err *err)
{
	struct core_staged renamed = *entry;

	memset(renamed.name, 0, sizeof renamed.name);
	strncpy(renamed.name, name, sizeof renamed.name - 1);
	return core_diff_staged(d, &renamed, err);
}

enum kv_rc core_do_rename_staged(const struct core_state *s, const char *from, const char *to, bool noreplace,
				 bool exchange, struct core_diff *d, struct kv_err *err)
{
	const struct core_staged *a = core_state_staged(s, from);
	const struct core_staged *b = core_state_staged(s, to);
	enum kv_rc rc = KV_OK;

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (a == NULL || (exchange && b == NULL))
		return no_batch(a == NULL ? from : to, err);
	if (b != NULL && noreplace)
		return kv_fail(err, KV_EXISTS, "a staged batch %s is there", to);
	d->seqno = s->seqno + 1;
	if (b != NULL && b != a)
		rc = exchange ? put_named(b, from, d, err) : core_diff_staged_removed(d, b->id, err);
	return rc == KV_OK ? put_named(a, to, d, err) : rc;
}

enum kv_rc core_do_expire(const struct core_state *s, struct core_uuid writer, struct core_diff *d,
			  struct kv_err *err)
{
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (core_state_writer(s, writer) == NULL)
		return kv_fail(err, KV_NOTFOUND, "no such writer");
	d->seqno = s->seqno + 1;
	d->expires_writer = true;
	d->expired_writer = writer;
	return KV_OK;
}

/* --- the shard ------------------------------------------------------------------------------------- */

enum kv_rc core_do_owner(const struct core_state *s, struct core_owner owner, struct core_diff *d,
			 struct kv_err *err)
{
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	d->seqno = s->seqno + 1;
	d->has_owner = true;
	d->owner = owner;
	return KV_OK;
}

enum kv_rc core_do_remove(const struct core_state *s, struct core_diff *d, struct kv_err *err)
{
	char text[CORE_FRONTIER_LEN];

	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (!s->upper.empty)
		return kv_fail(err, KV_NOT_FINISHED,
			       "the upper is %s; finish the shard first, with new_upper=-",
			       core_frontier_format(s->upper, text));
	for (size_t i = 0; i < s->hold_count; i++)
		if (!s->holds[i].since.empty)
			return kv_fail(err, KV_NOT_FINISHED, "hold %s is at %s; give it up first, with -",
				       s->holds[i].name, core_frontier_format(s->holds[i].since, text));
	d->seqno = s->seqno + 1;
	d->tombstone = true;
	return KV_OK;
}

enum kv_rc core_do_rollup(const struct core_state *s, const struct core_rollup *rollup, struct core_diff *d,
			  struct kv_err *err)
{
	if (s->tombstone)
		return kv_fail_rc(err, KV_NO_SHARD);
	if (rollup->seqno > s->seqno) /* of a version that was lost, with a log whose sync failed */
		return kv_fail(err, KV_EXISTS, "the shard has no version %" PRIu64, rollup->seqno);
	if (s->rollup_count != 0 && s->rollups[s->rollup_count - 1].seqno >= rollup->seqno)
		return kv_fail(err, KV_EXISTS, "a rollup of version %" PRIu64 " or later is there",
			       rollup->seqno);
	d->seqno = s->seqno + 1;
	d->has_rollup = true;
	d->rollup = *rollup;
	return KV_OK;
}
