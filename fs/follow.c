/*
 * follow.c - see follow.h.
 *
 *     SNAPSHOT -> SNAPSHOT_ROWS -> STEP -> ROWS -> STEP ...
 *
 * A subscription is a listener from t + 1 on, which holds t; so the snapshot can
 * be taken when t is complete, however late that is.
 *
 * The steps of the last REPLAY bytes are remembered by where their text began; to
 * go back is to give them again, one after the other, and then to go on. They pin
 * their batches, which all who follow the shard share. Of small steps that is many
 * times their text: when all followers together remember more than PAST_TOTAL,
 * whoever takes a step forgets but the last REPLAY_LEAST bytes.
 *
 * 1. past[i].offset ascends from i = first on; that one begins at least REPLAY (or
 *    REPLAY_LEAST) before the end of the text, or is the beginning.
 * 2. what comes next is past[replay], or a new step where replay == past_count.
 * 3. a step that was taken and could not be remembered breaks the stream: going on
 *    without it would be a gap.
 */
#include "fs/follow.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum phase { SNAPSHOT, SNAPSHOT_ROWS, STEP, ROWS };

/* Text is made ahead of who reads it, by a read's size at most. */
enum { REPLAY = 3 << 20, REPLAY_LEAST = 64 << 10, PAST_TOTAL = 64 << 20 };

struct past {
	uint64_t offset;
	struct core_place *place; /* NULL: the snapshot */
	size_t bytes;             /* of memory, as counted for all */
};

struct fs_follow {
	struct fs_source source;
	struct fs_budget *budget; /* of the mount */
	struct core_shard *shard;
	struct core_listen *listen;
	struct core_snapshot *snapshot;
	uint64_t time; /* of the snapshot */
	enum phase phase;
	uint64_t offset; /* of the text made so far */
	struct past *past;
	size_t first; /* those before it are forgotten */
	size_t past_count;
	size_t past_cap;
	size_t replay;
	bool broken;
};

static enum kv_rc put_text(struct fs_follow *f, struct fs_stream *to, const char *text, struct kv_err *err)
{
	size_t len = strlen(text);
	char *p = fs_stream_put(to, len);

	if (p == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	memcpy(p, text, len);
	f->offset += len;
	return KV_OK;
}

static void forget_first(struct fs_follow *f)
{
	struct past *p = &f->past[f->first++];

	if (p->place == NULL) {
		core_snapshot_close(f->snapshot);
		f->snapshot = NULL;
	}
	core_place_free(p->place);
	atomic_fetch_sub(&f->budget->past, p->bytes);
}

/* Forget what is farther back than it has to be. */
static void forget(struct fs_follow *f)
{
	uint64_t least = atomic_load(&f->budget->past) > PAST_TOTAL ? REPLAY_LEAST : REPLAY;

	while (f->first + 1 < f->past_count && f->past[f->first + 1].offset + least <= f->offset)
		forget_first(f);
	if (f->first <= f->past_count / 2)
		return;
	f->past_count -= f->first;
	memmove(f->past, f->past + f->first, f->past_count * sizeof *f->past);
	f->first = 0;
}

/* Room to remember one more. */
static enum kv_rc reserve(struct fs_follow *f, struct kv_err *err)
{
	size_t cap = f->past_cap != 0 ? 2 * f->past_cap : 4;
	struct past *grown;

	forget(f);
	f->replay = f->past_count;
	if (f->past_count < f->past_cap)
		return KV_OK;
	grown = reallocarray(f->past, cap, sizeof *grown);
	if (grown == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	f->past = grown;
	f->past_cap = cap;
	return KV_OK;
}

/* Remember that a step begins here, for which there is room; place is taken. */
static void remember(struct fs_follow *f, struct core_place *place)
{
	size_t bytes = sizeof *f->past + (place != NULL ? core_place_bytes(place) : 0);

	atomic_fetch_add(&f->budget->past, bytes);
	f->past[f->past_count++] = (struct past){.offset = f->offset, .place = place, .bytes = bytes};
	f->replay = f->past_count;
}

static enum kv_rc put_snapshot_begin(struct fs_follow *f, struct fs_stream *to, struct kv_err *err)
{
	char text[CORE_FRONTIER_LEN], line[160];
	struct core_frontier upper =
		f->time == UINT64_MAX ? core_frontier_empty() : core_frontier_at(f->time + 1);

	snprintf(line, sizeof line, "begin expected_upper=0 new_upper=%s since=%" PRIu64 "\n",
		 core_frontier_format(upper, text), f->time);
	f->phase = SNAPSHOT_ROWS;
	fs_stream_grows(to);
	return put_text(f, to, line, err);
}

static enum kv_rc begin_snapshot(struct fs_follow *f, struct fs_stream *to, struct kv_err *err)
{
	enum kv_rc rc = reserve(f, err);

	if (rc == KV_OK)
		rc = core_snapshot_open(f->shard, (struct core_as_of){.time = f->time}, &f->snapshot, err);
	if (rc != KV_OK)
		return rc;
	remember(f, NULL);
	return put_snapshot_begin(f, to, err);
}

static enum kv_rc begin_step(struct fs_follow *f, struct fs_stream *to, bool *ended, struct kv_err *err)
{
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN], line[160];
	struct core_step step;
	struct core_place *place;
	enum kv_rc rc = KV_OK;

	if (f->replay < f->past_count) {
		place = f->past[f->replay++].place;
		if (place == NULL) {
			core_snapshot_rewind(f->snapshot);
			return put_snapshot_begin(f, to, err);
		}
		core_listen_go(f->listen, place);
		step = core_place_step(place);
	} else {
		rc = reserve(f, err);
		if (rc == KV_OK)
			rc = core_listen_step(f->listen, &step, ended, err);
		if (rc != KV_OK || *ended)
			return rc;
		place = core_listen_place(f->listen);
		f->broken = place == NULL;
		if (f->broken)
			return kv_fail_rc(err, KV_NOMEM);
		remember(f, place);
	}
	snprintf(line, sizeof line, "begin lower=%s upper=%s\n", core_frontier_format(step.lower, lower),
		 core_frontier_format(step.upper, upper));
	f->phase = ROWS;
	return put_text(f, to, line, err);
}

static enum kv_rc put_row(struct fs_follow *f, struct fs_stream *to, struct kv_err *err)
{
	struct core_update u;
	bool end = false;
	enum kv_rc rc = f->phase == ROWS ? core_listen_next(f->listen, &u, &end, err)
					 : core_snapshot_next(f->snapshot, &u, &end, err);

	if (rc != KV_OK)
		return rc;
	if (end) {
		f->phase = STEP;
		return put_text(f, to, "commit\n", err);
	}
	rc = fs_stream_put_row(to, &u, err);
	if (rc == KV_OK)
		f->offset += core_row_text_len(&u);
	return rc;
}

static enum kv_rc produce(struct fs_source *source, struct fs_stream *to, bool *ended, struct kv_err *err)
{
	struct fs_follow *f = (struct fs_follow *)source;

	if (f->broken)
		return kv_fail_rc(err, KV_NOMEM);
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

static bool rewind_to(struct fs_source *source, uint64_t offset, uint64_t *from)
{
	struct fs_follow *f = (struct fs_follow *)source;
	size_t i = f->past_count;

	while (i > f->first && f->past[i - 1].offset > offset)
		i--;
	if (i == f->first || f->broken)
		return false;
	f->replay = i - 1;
	f->phase = STEP;
	f->offset = f->past[i - 1].offset;
	*from = f->offset;
	return true;
}

static size_t held(const struct fs_source *source)
{
	const struct fs_follow *f = (const struct fs_follow *)source;

	return core_listen_held(f->listen) + (f->snapshot != NULL ? core_snapshot_held(f->snapshot) : 0);
}

static size_t need(const struct fs_source *source)
{
	const struct fs_follow *f = (const struct fs_follow *)source;

	if (f->phase != SNAPSHOT_ROWS)
		return core_listen_need(f->listen) + held(source) - core_listen_held(f->listen);
	return core_listen_need(f->listen) + core_snapshot_need(f->snapshot);
}

static void rest(struct fs_source *source)
{
	struct fs_follow *f = (struct fs_follow *)source;

	core_listen_rest(f->listen);
	if (f->snapshot != NULL)
		core_snapshot_rest(f->snapshot);
}

static void close_follow(struct fs_source *source)
{
	struct fs_follow *f = (struct fs_follow *)source;

	while (f->first < f->past_count)
		forget_first(f);
	free(f->past);
	core_snapshot_close(f->snapshot);
	core_listen_close(f->listen);
	free(f);
}

static enum kv_rc follow_new(struct core_shard *shard, struct core_frontier from,
			     const struct core_reader *reader, struct fs_budget *budget,
			     struct fs_follow **out, struct kv_err *err)
{
	static const struct fs_source_ops ops = {produce, rewind_to, held, need, rest, close_follow};
	struct fs_follow *f = calloc(1, sizeof *f);
	enum kv_rc rc;

	*out = NULL;
	if (f == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	f->source.ops = &ops;
	f->budget = budget;
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
			     struct fs_budget *budget, struct fs_follow **out, struct kv_err *err)
{
	struct core_info info, again;
	enum kv_rc rc = core_shard_info(shard, true, &info, err);

	while (rc == KV_OK) {
		rc = follow_new(shard, info.upper, reader, budget, out, err);
		if (rc != KV_COMPACTED || core_shard_info(shard, true, &again, err) != KV_OK ||
		    core_frontier_eq(again.upper, info.upper))
			break;
		info = again;
		rc = KV_OK;
	}
	return rc;
}

enum kv_rc fs_follow_listen(struct core_shard *shard, struct core_frontier from, bool now,
			    const struct core_reader *reader, struct fs_budget *budget,
			    struct fs_follow **out, struct kv_err *err)
{
	return now ? listen_now(shard, reader, budget, out, err)
		   : follow_new(shard, from, reader, budget, out, err);
}

static enum kv_rc subscribe_at(struct core_shard *shard, uint64_t time, const struct core_reader *reader,
			       struct fs_budget *budget, struct fs_follow **out, struct kv_err *err)
{
	struct core_frontier from = time == UINT64_MAX ? core_frontier_empty() : core_frontier_at(time + 1);
	struct core_info info;
	enum kv_rc rc = follow_new(shard, from, reader, budget, out, err);

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
				struct fs_budget *budget, struct fs_follow **out, struct kv_err *err)
{
	struct core_info info, again;
	enum kv_rc rc = core_shard_info(shard, true, &info, err);

	while (rc == KV_OK) {
		if (!info.upper.empty && info.upper.t == 0)
			return follow_new(shard, info.upper, reader, budget, out, err);
		rc = subscribe_at(shard, info.upper.empty ? UINT64_MAX : info.upper.t - 1, reader, budget,
				  out, err);
		if (rc != KV_COMPACTED || core_shard_info(shard, true, &again, err) != KV_OK ||
		    core_frontier_eq(again.upper, info.upper))
			break;
		info = again;
		rc = KV_OK;
	}
	return rc;
}

enum kv_rc fs_follow_subscribe(struct core_shard *shard, struct core_as_of as_of,
			       const struct core_reader *reader, struct fs_budget *budget,
			       struct fs_follow **out, struct kv_err *err)
{
	return as_of.latest ? subscribe_now(shard, reader, budget, out, err)
			    : subscribe_at(shard, as_of.time, reader, budget, out, err);
}

struct fs_source *fs_follow_source(struct fs_follow *f)
{
	return &f->source;
}

uint64_t fs_follow_waits_for(const struct fs_follow *f)
{
	return f->phase == SNAPSHOT ? f->time : core_listen_frontier(f->listen).t;
}
