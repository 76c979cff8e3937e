/*
 * wait.c - see wait.h.
 */
#include "fs/wait.h"

#include <stdlib.h>

#include "fs/fs.h"

struct read {
	struct fs_parked parked; /* first: the functions below are handed it */
	struct core_waiter waiter;
	struct core_shard *shard;
	struct fs_read read;
};

/* The upper passed; on a thread of the engine's, so only hand it on. */
static void woken(struct core_waiter *waiter)
{
	fs_park_wake((struct fs_parked *)(void *)((char *)waiter - offsetof(struct read, waiter)));
}

static bool read_begin(struct fs_parked *p)
{
	struct read *r = (struct read *)p;

	return core_shard_wait(r->shard, &r->waiter);
}

static bool read_cancel(struct fs_parked *p)
{
	struct read *r = (struct read *)p;

	return core_shard_unwait(r->shard, &r->waiter);
}

static void read_end(struct fs_parked *p, enum kv_rc rc)
{
	struct read *r = (struct read *)p;

	if (rc == KV_OK)
		r->read.run(p->req, &r->read);
	else
		fs_reply_rc(p->req, rc);
}

static void read_free(struct fs_parked *p)
{
	free(p);
}

void fs_wait_read(struct fs_waits *w, fuse_req_t req, struct core_shard *shard, uint64_t time,
		  const struct fs_read *read)
{
	static const struct fs_park_ops ops = {.kind = FS_PARKED_READ,
					       .begin = read_begin,
					       .cancel = read_cancel,
					       .end = read_end,
					       .free = read_free};
	struct read *r = calloc(1, sizeof *r);

	if (r == NULL) {
		fs_reply_rc(req, KV_NOMEM);
		return;
	}
	r->waiter = (struct core_waiter){.time = time, .wake = woken};
	r->shard = shard;
	r->read = *read;
	fs_park(w, &r->parked, &ops, req);
}

/* --- poll ------------------------------------------------------------------------------------------ */

struct fs_poll_wait {
	struct core_waiter waiter;
	struct fuse_pollhandle *ph;
	_Atomic(int) holders; /* the file and the waiter: the last one frees it */
};

static void poll_drop(struct fs_poll_wait *wait)
{
	if (atomic_fetch_sub(&wait->holders, 1) != 1)
		return;
	fuse_pollhandle_destroy(wait->ph);
	free(wait);
}

static void poll_woken(struct core_waiter *waiter)
{
	struct fs_poll_wait *wait = (struct fs_poll_wait *)waiter;

	fuse_lowlevel_notify_poll(wait->ph);
	poll_drop(wait);
}

void fs_poll_fini(struct fs_poll *p, struct core_shard *shard)
{
	if (p->wait == NULL)
		return;
	if (core_shard_unwait(shard, &p->wait->waiter))
		poll_drop(p->wait); /* the waiter's share */
	poll_drop(p->wait);         /* NOLINT(clang-analyzer-unix.Malloc): it does not count the holders */
	p->wait = NULL;
}

/* ph becomes the one that p has going, in place of the one before. NULL: out of memory, and ph is gone. */
static struct fs_poll_wait *poll_new(struct fs_poll *p, struct core_shard *shard, struct fuse_pollhandle *ph)
{
	struct fs_poll_wait *wait = calloc(1, sizeof *wait);

	fs_poll_fini(p, shard);
	if (wait == NULL) {
		fuse_pollhandle_destroy(ph);
		return NULL;
	}
	wait->waiter.wake = poll_woken;
	wait->ph = ph;
	atomic_store(&wait->holders, 2);
	p->wait = wait;
	return wait;
}

bool fs_poll_until(struct fs_poll *p, struct core_shard *shard, uint64_t time, struct fuse_pollhandle *ph)
{
	struct core_info info;
	struct fs_poll_wait *wait;

	if (ph == NULL)
		return core_shard_info(shard, false, &info, NULL) != KV_OK ||
		       !core_frontier_covers(info.upper, time);
	wait = poll_new(p, shard, ph);
	if (wait == NULL)
		return true; /* a read will tell */
	wait->waiter.time = time;
	if (core_shard_wait(shard, &wait->waiter))
		return false;
	poll_drop(wait); /* the waiter's share */
	return true;
}

bool fs_poll_change(struct fs_poll *p, struct core_shard *shard, const struct core_frontier *seen,
		    struct fuse_pollhandle *ph)
{
	struct fs_poll_wait *wait = ph != NULL ? poll_new(p, shard, ph) : NULL;
	struct core_info info;
	bool ready = true, armed = false;

	while (!armed && core_shard_info(shard, false, &info, NULL) == KV_OK) {
		ready = seen == NULL || info.upper.empty || !core_frontier_eq(info.upper, *seen);
		if (wait == NULL || info.upper.empty)
			break;
		wait->waiter.time = info.upper.t;
		armed = core_shard_wait(shard, &wait->waiter);
	}
	if (wait != NULL && !armed)
		poll_drop(wait); /* the waiter's share */
	return ready;
}

void fs_poll_more(struct fs_poll *p, struct core_shard *shard, uint64_t time, struct fuse_pollhandle *ph)
{
	struct fs_poll_wait *wait = ph != NULL ? poll_new(p, shard, ph) : NULL;
	struct core_info info;
	bool armed = false;

	while (wait != NULL && !armed && core_shard_info(shard, false, &info, NULL) == KV_OK &&
	       !info.upper.empty) {
		wait->waiter.time = info.upper.t > time ? info.upper.t : time;
		armed = core_shard_wait(shard, &wait->waiter);
	}
	if (wait != NULL && !armed)
		poll_drop(wait); /* the waiter's share */
}
