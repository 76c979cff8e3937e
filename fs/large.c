/*
 * large.c - see large.h.
 */
#include "fs/large.h"

#include <stdlib.h>
#include <string.h>

struct queued_write {
	struct fs_turn turn; /* first: the functions below are handed it */
	struct fs_write write;
	size_t held; /* counted for the user */
	char bytes[];
};

bool fs_write_is_large(const struct fs_write *w)
{
	return w->size > FS_SMALL || atomic_load(&w->open->large);
}

static void answer(fuse_req_t req, enum kv_rc rc, size_t done)
{
	if (rc != KV_OK)
		fs_reply_write_rc(req, rc);
	else
		fs_reply_written(req, done);
}

void fs_write_now(fuse_req_t req, const struct fs_write *w)
{
	size_t done = 0;
	enum kv_rc rc = w->run(w, NULL, &done);

	answer(req, rc, done);
}

/* A turn of user uid's has ended: do what waits, as long as something does. */
static void go_on(struct fs *fs, uid_t uid)
{
	struct fs_turn *next;

	while ((next = fs_turns_next(&fs->writing, uid, true)) != NULL) {
		uid = next->uid;
		fs_count_parked(); /* the time is not that of the first request any more */
		fs_park_run(&next->parked);
	}
}

static bool queue_begin(struct fs_parked *p)
{
	return fs_turns_queue(&fs_of(p->req)->writing, (struct fs_turn *)p);
}

static bool queue_cancel(struct fs_parked *p)
{
	return fs_turns_leave_queue(&fs_of(p->req)->writing, (struct fs_turn *)p);
}

static void queue_end(struct fs_parked *p, enum kv_rc rc)
{
	struct queued_write *q = (struct queued_write *)p;
	struct fs *fs = fs_of(p->req);
	uid_t uid = q->turn.uid;
	struct kv_err why;
	size_t done = 0;

	if (rc != KV_OK)
		kv_fail_rc(&why, rc);
	rc = q->write.run(&q->write, rc != KV_OK ? &why : NULL, &done);
	/* before the answer: with that the file may be closed */
	(void)!fs_limits_hold(&fs->limits, q->write.open->user, &q->held, 0, NULL);
	answer(p->req, rc, done);
	if (q->turn.at_once)
		go_on(fs, uid);
}

static void queue_free(struct fs_parked *p)
{
	free(p);
}

static void queue(fuse_req_t req, const struct fs_write *w)
{
	static const struct fs_park_ops ops = {.kind = FS_PARKED_TURN,
					       .uninterrupted = true,
					       .begin = queue_begin,
					       .cancel = queue_cancel,
					       .end = queue_end,
					       .free = queue_free};
	struct fs *fs = fs_of(req);
	struct queued_write *q = malloc(sizeof *q + w->size);
	struct kv_err why;
	size_t done = 0;
	enum kv_rc rc;

	if (q == NULL) {
		rc = kv_fail_rc(&why, KV_NOMEM);
	} else {
		*q = (struct queued_write){.turn.uid = w->uid, .write = *w};
		rc = fs_limits_hold(&fs->limits, w->open->user, &q->held, w->size, &why);
	}
	if (rc != KV_OK) {
		free(q);
		answer(req, w->run(w, &why, &done), 0);
		return;
	}
	q->write.buf = memcpy(q->bytes, w->buf, w->size);
	fs_park(&fs->waits, &q->turn.parked, &ops, req);
}

void fs_large_write(fuse_req_t req, const struct fs_write *w)
{
	struct fs *fs = fs_of(req);
	uid_t uid = w->uid;

	if (!fs_turns_enter(&fs->writing, uid)) {
		queue(req, w);
		return;
	}
	fs_write_now(req, w);
	go_on(fs, uid);
}
