/*
 * large.c - see large.h.
 */
#include "fs/large.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Of the 64 threads these leave some, whatever one user does, and a few, whatever many do. */
enum { MEDIUM = 8 << 10, MEDIUM_MAX = 40, MEDIUM_EACH = 24 };

/* What is large may take longer than what is small. */
enum { LARGE_NICE = 10 };

static _Thread_local bool is_lowered;

static void set_lowered(bool lowered)
{
	if (setpriority(PRIO_PROCESS, (id_t)gettid(), lowered ? LARGE_NICE : 0) == 0)
		is_lowered = lowered;
}

void fs_large_raise(void)
{
	if (is_lowered)
		set_lowered(false);
}

/* Whether a thread that is lowered can be raised again. Tried on one that ends. */
static void *try_to_raise(void *arg)
{
	bool *may = arg;

	set_lowered(true);
	*may = is_lowered;
	set_lowered(false);
	*may = *may && !is_lowered;
	return NULL;
}

static bool may_lower(void)
{
	pthread_t thread;
	bool may = false;

	if (getpriority(PRIO_PROCESS, 0) != 0 || pthread_create(&thread, NULL, try_to_raise, &may) != 0)
		return false;
	pthread_join(thread, NULL);
	return may;
}

struct queued_write {
	struct fs_turn turn; /* first: the functions below are handed it */
	struct fs_turns *turns;
	struct fs_write write;
	size_t held;     /* counted for the user */
	char *bytes;     /* what write.buf is, or NULL */
	enum kv_rc kept; /* KV_OK: there is a copy; else it is refused */
	struct kv_err why;
};

void fs_large_init(struct fs *fs)
{
	unsigned large = fs_turns_for_cores();

	fs_turns_init(&fs->large, large, large / 2);
	fs_turns_init(&fs->medium, MEDIUM_MAX, MEDIUM_EACH);
	fs->lowers_large = may_lower();
}

void fs_large_fini(struct fs *fs)
{
	fs_turns_fini(&fs->large);
	fs_turns_fini(&fs->medium);
}

/* NULL: it is small. */
static struct fs_turns *turns_of(struct fs *fs, const struct fs_write *w)
{
	if (w->size > FS_LARGE || atomic_load(&w->open->large))
		return &fs->large;
	return w->size > MEDIUM || w->slow ? &fs->medium : NULL;
}

bool fs_write_is_small(struct fs *fs, const struct fs_write *w)
{
	return turns_of(fs, w) == NULL;
}

static void answer(fuse_req_t req, enum kv_rc rc, size_t done)
{
	if (rc != KV_OK)
		fs_reply_write_rc(req, rc);
	else
		fs_reply_written(req, done);
}

static void write_now(fuse_req_t req, const struct fs_write *w)
{
	size_t done = 0;
	enum kv_rc rc = w->run(w, NULL, &done);

	answer(req, rc, done);
}

/* With a turn. */
static enum kv_rc run(struct fs *fs, const struct fs_turns *turns, const struct fs_write *w, size_t *done)
{
	enum kv_rc rc;

	if (turns == &fs->large && fs->lowers_large)
		set_lowered(true);
	rc = w->run(w, NULL, done);
	fs_large_raise();
	return rc;
}

/* A turn of user uid's has ended: do what waits, as long as something does. */
static void go_on(struct fs_turns *turns, uid_t uid)
{
	struct fs_turn *next;

	while ((next = fs_turns_next(turns, uid)) != NULL) {
		uid = next->uid;
		fs_count_parked(); /* the time is not that of the first request any more */
		fs_park_run(&next->parked);
	}
}

static bool queue_begin(struct fs_parked *p)
{
	struct queued_write *q = (struct queued_write *)p;

	return fs_turns_queue(q->turns, &q->turn);
}

static bool queue_cancel(struct fs_parked *p)
{
	struct queued_write *q = (struct queued_write *)p;

	return fs_turns_leave_queue(q->turns, &q->turn);
}

static void queue_end(struct fs_parked *p, enum kv_rc rc)
{
	struct queued_write *q = (struct queued_write *)p;
	struct fs *fs = fs_of(p->req);
	uid_t uid = q->turn.uid;
	size_t done = 0;

	if (rc == KV_OK)
		rc = q->kept;
	else
		kv_fail_rc(&q->why, rc);
	rc = rc == KV_OK ? run(fs, q->turns, &q->write, &done) : q->write.run(&q->write, &q->why, &done);
	/* before the answer: with that the file may be closed */
	(void)!fs_limits_hold(&fs->limits, q->write.open->user, &q->held, 0, NULL);
	answer(p->req, rc, done);
	if (q->turn.at_once)
		go_on(q->turns, uid);
}

static void queue_free(struct fs_parked *p)
{
	free(((struct queued_write *)p)->bytes);
	free(p);
}

/* Keep a copy of what is to be written, counted; or why there is none. */
static enum kv_rc keep(struct fs *fs, struct queued_write *q, struct kv_err *err)
{
	enum kv_rc rc = fs_limits_hold(&fs->limits, q->write.open->user, &q->held, q->write.size, err);

	if (rc != KV_OK)
		return rc;
	q->bytes = malloc(q->write.size);
	if (q->bytes == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	q->write.buf = memcpy(q->bytes, q->write.buf, q->write.size);
	return KV_OK;
}

/* What is refused waits too, for its answer: else a crowd would do nothing but try again. */
static void queue(fuse_req_t req, struct fs_turns *turns, const struct fs_write *w)
{
	static const struct fs_park_ops ops = {.kind = FS_PARKED_TURN,
					       .uninterrupted = true,
					       .begin = queue_begin,
					       .cancel = queue_cancel,
					       .end = queue_end,
					       .free = queue_free};
	struct queued_write *q = calloc(1, sizeof *q);
	struct kv_err why;
	size_t done = 0;

	if (q == NULL) {
		kv_fail_rc(&why, KV_NOMEM);
		answer(req, w->run(w, &why, &done), 0);
		return;
	}
	q->turn.uid = w->uid;
	q->turns = turns;
	q->write = *w;
	q->kept = keep(fs_of(req), q, &q->why);
	fs_park(&fs_of(req)->waits, &q->turn.parked, &ops, req);
}

void fs_write_in_turn(fuse_req_t req, const struct fs_write *w)
{
	struct fs *fs = fs_of(req);
	struct fs_turns *turns = turns_of(fs, w);
	uid_t uid = w->uid;
	size_t done = 0;
	enum kv_rc rc;

	if (turns == NULL) {
		write_now(req, w);
	} else if (fs_turns_enter(turns, uid)) {
		rc = run(fs, turns, w, &done);
		answer(req, rc, done);
		go_on(turns, uid);
	} else {
		queue(req, turns, w);
	}
}
