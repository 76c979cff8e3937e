/*
 * transition.c - the changes of a shard that are no appends; see transition.h.
 *
 * A tombstone takes none of them but rollups: the shard is gone for everybody.
 */
#include "core/transition.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "core/transition_impl.h"

/* --- holds ----------------------------------------------------------------------------------------- */

void core_settle_since(const struct core_state *s, struct core_diff *d)
{
	struct core_frontier least = core_frontier_empty();

	for (size_t i = 0; i < s->hold_count; i++) {
		struct core_frontier since = s->holds[i].since;

		for (size_t j = 0; j < d->hold_count; j++)
			if (strcmp(d->holds[j].name, s->holds[i].name) == 0)
				since = d->holds[j].since;
		least = core_frontier_min(least, since);
	}
	if (s->hold_count == 0 || core_frontier_le(least, s->since))
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
	assert(rollup->seqno <= s->seqno);
	if (s->rollup_count != 0 && s->rollups[s->rollup_count - 1].seqno >= rollup->seqno)
		return kv_fail(err, KV_EXISTS, "a rollup of version %" PRIu64 " or later is there",
			       rollup->seqno);
	d->seqno = s->seqno + 1;
	d->has_rollup = true;
	d->rollup = *rollup;
	return KV_OK;
}
