/*
 * read.c - the read handle; see read.h.
 *
 * Its since is a need of the shard (leases.c): at time t for since t. What it opens
 * takes a need of its own before the handle's can have moved.
 */
#include "core/read.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/engine_impl.h"

struct core_read {
	struct core_shard *shard; /* a reference */
	struct core_need need;
	struct core_frontier since;
};

static uint64_t held(struct core_frontier since)
{
	return since.empty ? UINT64_MAX : since.t;
}

enum kv_rc core_read_open(struct core_shard *s, const char *purpose, struct core_read **out,
			  struct kv_err *err)
{
	struct core_read *r = calloc(1, sizeof *r);
	struct core_info info;
	enum kv_rc rc;

	*out = NULL;
	if (r == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	r->need.reader.since_ms = core_now_us(s->engine) / 1000;
	core_copy_text(r->need.reader.purpose, sizeof r->need.reader.purpose, purpose);
	/* A need below since holds nothing: it may have moved between the question and the need. */
	for (;;) {
		rc = core_shard_info(s, true, &info, err);
		if (rc != KV_OK)
			break;
		r->since = info.since;
		rc = core_shard_need(s, &r->need, held(r->since), err);
		if (rc != KV_OK)
			break;
		rc = core_shard_info(s, false, &info, err);
		if (rc == KV_OK && core_frontier_eq(info.since, r->since))
			break;
		core_shard_release(s, &r->need);
		if (rc != KV_OK)
			break;
	}
	if (rc != KV_OK) {
		free(r);
		return rc;
	}
	r->shard = core_shard_ref(s);
	*out = r;
	return KV_OK;
}

void core_read_expire(struct core_read *r)
{
	if (r == NULL)
		return;
	core_shard_release(r->shard, &r->need);
	core_shard_close(r->shard);
	free(r);
}

struct core_frontier core_read_since(const struct core_read *r)
{
	return r->since;
}

void core_read_downgrade_since(struct core_read *r, struct core_frontier since)
{
	if (!core_frontier_lt(r->since, since))
		return;
	r->since = since;
	core_shard_move_need(r->shard, &r->need, held(since));
	if (since.empty) { /* not even the last time there is */
		pthread_mutex_lock(&r->shard->mu);
		r->need.pins_only = true;
		pthread_mutex_unlock(&r->shard->mu);
	}
}

static enum kv_rc compacted(const struct core_read *r, const char *what, struct core_frontier f,
			    struct kv_err *err)
{
	char at[CORE_FRONTIER_LEN], since[CORE_FRONTIER_LEN];

	core_frontier_format(f, at);
	core_frontier_format(r->since, since);
	kv_fail(err, KV_COMPACTED, "%s %s is not readable under the since %s of this reader", what, at, since);
	kv_detail(err, "since=%s", since);
	return KV_COMPACTED;
}

/* The latest complete time is not below the handle's since, and will not be: the upper does not go back. */
static enum kv_rc check_latest(const struct core_read *r, struct kv_err *err)
{
	struct core_info info;
	enum kv_rc rc = core_shard_info(r->shard, true, &info, err);
	uint64_t latest = info.upper.empty ? UINT64_MAX : info.upper.t - 1;

	if (rc != KV_OK)
		return rc;
	if (!r->since.empty &&
	    (core_frontier_eq(info.upper, core_frontier_at(0)) || core_frontier_covers(r->since, latest)))
		return KV_OK;
	return compacted(r, "upper", info.upper, err);
}

enum kv_rc core_read_snapshot(struct core_read *r, struct core_as_of as_of, struct core_snapshot **out,
			      struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	*out = NULL;
	if (!as_of.latest && !core_frontier_covers(r->since, as_of.time))
		return compacted(r, "time", core_frontier_at(as_of.time), err);
	if (as_of.latest)
		rc = check_latest(r, err);
	return rc != KV_OK ? rc : core_snapshot_open(r->shard, as_of, out, err);
}

enum kv_rc core_read_listen(struct core_read *r, struct core_frontier from, struct core_listen **out,
			    struct kv_err *err)
{
	struct core_frontier zero = core_frontier_at(0);

	*out = NULL;
	if (!from.empty && !core_frontier_lt(r->since, from) &&
	    !(core_frontier_eq(from, zero) && core_frontier_eq(r->since, zero)))
		return compacted(r, "frontier", from, err);
	return core_listen_open(r->shard, from, &r->need.reader, out, err);
}

enum kv_rc core_read_subscribe(struct core_read *r, uint64_t as_of, struct core_snapshot **snapshot,
			       struct core_listen **listen, struct kv_err *err)
{
	struct core_frontier from = as_of == UINT64_MAX ? core_frontier_empty() : core_frontier_at(as_of + 1);
	enum kv_rc rc;

	*snapshot = NULL;
	*listen = NULL;
	if (!core_frontier_covers(r->since, as_of))
		return compacted(r, "time", core_frontier_at(as_of), err);
	rc = core_listen_open(r->shard, from, &r->need.reader, listen, err);
	if (rc != KV_OK)
		return rc;
	rc = core_snapshot_open(r->shard, (struct core_as_of){.time = as_of}, snapshot, err);
	if (rc == KV_WOULD_BLOCK)
		return KV_OK;
	if (rc != KV_OK) {
		core_listen_close(*listen);
		*listen = NULL;
	}
	return rc;
}

enum kv_rc core_read_wait(struct core_read *r, uint64_t time, int timeout_ms, struct kv_err *err)
{
	struct core_frontier upper;

	return core_shard_wait_past(r->shard, time, timeout_ms, &upper, err);
}
