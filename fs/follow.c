/*
 * follow.c - see follow.h.
 *
 *     SNAPSHOT -> SNAPSHOT_ROWS -> STEP -> ROWS -> STEP ...
 *
 * A subscription is a listener from t + 1 on, which holds t; so the snapshot can
 * be taken when t is complete, however late that is.
 */
#include "fs/follow.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum phase { SNAPSHOT, SNAPSHOT_ROWS, STEP, ROWS };

struct fs_follow {
	struct fs_source source;
	struct core_shard *shard;
	struct core_listen *listen;
	struct core_snapshot *snapshot;
	uint64_t time; /* of the snapshot */
	enum phase phase;
};

static enum kv_rc put_text(struct fs_stream *to, const char *text, struct kv_err *err)
{
	size_t len = strlen(text);
	char *p = fs_stream_put(to, len);

	if (p == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	memcpy(p, text, len);
	return KV_OK;
}

static enum kv_rc begin_snapshot(struct fs_follow *f, struct fs_stream *to, struct kv_err *err)
{
	struct core_frontier upper = core_listen_frontier(f->listen);
	char text[CORE_FRONTIER_LEN], line[160];
	enum kv_rc rc = core_snapshot_open(f->shard, (struct core_as_of){.time = f->time}, &f->snapshot, err);

	if (rc != KV_OK)
		return rc;
	snprintf(line, sizeof line, "begin expected_upper=0 new_upper=%s since=%" PRIu64 "\n",
		 core_frontier_format(upper, text), f->time);
	f->phase = SNAPSHOT_ROWS;
	return put_text(to, line, err);
}

static enum kv_rc begin_step(struct fs_follow *f, struct fs_stream *to, bool *ended, struct kv_err *err)
{
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN], line[160];
	struct core_step step;
	enum kv_rc rc = core_listen_step(f->listen, &step, ended, err);

	if (rc != KV_OK || *ended)
		return rc;
	snprintf(line, sizeof line, "begin lower=%s upper=%s\n", core_frontier_format(step.lower, lower),
		 core_frontier_format(step.upper, upper));
	f->phase = ROWS;
	return put_text(to, line, err);
}

static enum kv_rc put_row(struct fs_follow *f, struct fs_stream *to, struct kv_err *err)
{
	struct core_update u;
	bool end = false;
	enum kv_rc rc = f->phase == ROWS ? core_listen_next(f->listen, &u, &end, err)
					 : core_snapshot_next(f->snapshot, &u, &end, err);

	if (rc != KV_OK)
		return rc;
	if (!end)
		return fs_stream_put_row(to, &u, err);
	core_snapshot_close(f->snapshot);
	f->snapshot = NULL;
	f->phase = STEP;
	return put_text(to, "commit\n", err);
}

static enum kv_rc produce(struct fs_source *source, struct fs_stream *to, bool *ended, struct kv_err *err)
{
	struct fs_follow *f = (struct fs_follow *)source;

	switch (f->phase) {
	case SNAPSHOT:
		return begin_snapshot(f, to, err);
	case STEP:
		return begin_step(f, to, ended, err);
	case SNAPSHOT_ROWS:
	case ROWS:
		break;
	}
	return put_row(f, to, err);
}

static bool cannot_rewind(struct fs_source *source)
{
	(void)source;
	return false;
}

static void close_follow(struct fs_source *source)
{
	struct fs_follow *f = (struct fs_follow *)source;

	core_snapshot_close(f->snapshot);
	core_listen_close(f->listen);
	free(f);
}

static enum kv_rc follow_new(struct core_shard *shard, struct core_frontier from,
			     const struct core_reader *reader, struct fs_follow **out, struct kv_err *err)
{
	static const struct fs_source_ops ops = {produce, cannot_rewind, close_follow};
	struct fs_follow *f = calloc(1, sizeof *f);
	enum kv_rc rc;

	*out = NULL;
	if (f == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	f->source.ops = &ops;
	f->shard = shard;
	f->phase = STEP;
	rc = core_listen_open(shard, from, reader, &f->listen, err);
	if (rc == KV_OK)
		*out = f;
	else
		free(f);
	return rc;
}

/* What `now` stands for is asked again when since has passed it meanwhile. */
static enum kv_rc listen_now(struct core_shard *shard, const struct core_reader *reader,
			     struct fs_follow **out, struct kv_err *err)
{
	struct core_info info, again;
	enum kv_rc rc = core_shard_info(shard, true, &info, err);

	while (rc == KV_OK) {
		rc = follow_new(shard, info.upper, reader, out, err);
		if (rc != KV_COMPACTED || core_shard_info(shard, true, &again, err) != KV_OK ||
		    core_frontier_eq(again.upper, info.upper))
			break;
		info = again;
		rc = KV_OK;
	}
	return rc;
}

enum kv_rc fs_follow_listen(struct core_shard *shard, struct core_frontier from, bool now,
			    const struct core_reader *reader, struct fs_follow **out, struct kv_err *err)
{
	return now ? listen_now(shard, reader, out, err) : follow_new(shard, from, reader, out, err);
}

static enum kv_rc subscribe_at(struct core_shard *shard, uint64_t time, const struct core_reader *reader,
			       struct fs_follow **out, struct kv_err *err)
{
	struct core_frontier from = time == UINT64_MAX ? core_frontier_empty() : core_frontier_at(time + 1);
	struct core_info info;
	enum kv_rc rc = follow_new(shard, from, reader, out, err);

	if (rc != KV_OK)
		return rc;
	(*out)->time = time;
	(*out)->phase = SNAPSHOT;
	/* The listener holds the time now; of the last time there is it does not know. */
	rc = core_shard_info(shard, true, &info, err);
	if (rc == KV_OK && !core_frontier_covers(info.since, time)) {
		rc = kv_fail(err, KV_COMPACTED, "time %" PRIu64 " is below since: its history was given up",
			     time);
		kv_detail(err, "time=%" PRIu64, time);
	}
	if (rc != KV_OK) {
		close_follow(&(*out)->source);
		*out = NULL;
	}
	return rc;
}

static enum kv_rc subscribe_now(struct core_shard *shard, const struct core_reader *reader,
				struct fs_follow **out, struct kv_err *err)
{
	struct core_info info, again;
	enum kv_rc rc = core_shard_info(shard, true, &info, err);

	while (rc == KV_OK) {
		if (!info.upper.empty && info.upper.t == 0)
			return follow_new(shard, info.upper, reader, out, err);
		rc = subscribe_at(shard, info.upper.empty ? UINT64_MAX : info.upper.t - 1, reader, out, err);
		if (rc != KV_COMPACTED || core_shard_info(shard, true, &again, err) != KV_OK ||
		    core_frontier_eq(again.upper, info.upper))
			break;
		info = again;
		rc = KV_OK;
	}
	return rc;
}

enum kv_rc fs_follow_subscribe(struct core_shard *shard, struct core_as_of as_of,
			       const struct core_reader *reader, struct fs_follow **out, struct kv_err *err)
{
	return as_of.latest ? subscribe_now(shard, reader, out, err)
			    : subscribe_at(shard, as_of.time, reader, out, err);
}

struct fs_source *fs_follow_source(struct fs_follow *f)
{
	return &f->source;
}

uint64_t fs_follow_waits_for(const struct fs_follow *f)
{
	return f->phase == SNAPSHOT ? f->time : core_listen_frontier(f->listen).t;
}
