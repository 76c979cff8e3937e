/*
 * wait.c - see wait.h.
 *
 * A parked read is on the list of its fs_waits until the one who will answer it
 * has taken it off, under mu: the wake-up, an interrupt or the close. So an
 * interrupt, which may come late, early and on any thread, finds it there or
 * leaves it alone. Until it is armed, that is, until its waiter is in the shard's
 * list, the others only mark it and the parking thread answers.
 */
#include "fs/wait.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/fs.h"

struct fs_parked {
	struct core_waiter waiter; /* first: woken() is handed it */
	struct core_job job;
	struct fs_parked *next;
	struct fs_parked **at; /* what points to it on the list; NULL: it is off */
	struct fs_waits *waits;
	fuse_req_t req;
	struct core_shard *shard;
	struct fs_read read;
	bool armed;
	int answer; /* errno marked before it was armed, or 0 */
};

bool fs_waits_init(struct fs_waits *w)
{
	*w = (struct fs_waits){0};
	pthread_mutex_init(&w->mu, NULL);
	w->worker = core_worker_start();
	return w->worker != NULL;
}

void fs_waits_stop(struct fs_waits *w)
{
	pthread_mutex_lock(&w->mu);
	w->stopped = true;
	pthread_mutex_unlock(&w->mu);
	core_worker_stop(w->worker);
	w->worker = NULL;
}

void fs_waits_fini(struct fs_waits *w)
{
	pthread_mutex_destroy(&w->mu);
}

static void put_on_locked(struct fs_waits *w, struct fs_parked *p)
{
	p->next = w->parked;
	p->at = &w->parked;
	if (p->next != NULL)
		p->next->at = &p->next;
	w->parked = p;
}

static void take_off_locked(struct fs_parked *p)
{
	if (p->at == NULL)
		return;
	*p->at = p->next;
	if (p->next != NULL)
		p->next->at = p->at;
	p->at = NULL;
}

/* p is only compared: it may be gone. */
static bool on_list_locked(const struct fs_waits *w, const struct fs_parked *p)
{
	const struct fs_parked *at = w->parked;

	while (at != NULL && at != p)
		at = at->next;
	return at != NULL;
}

static void answer(struct fs_parked *p, int errnum)
{
	fuse_reply_err(p->req, errnum);
	free(p);
}

static void run_again(struct core_job *job, bool stopping)
{
	struct fs_parked *p = (struct fs_parked *)(void *)((char *)job - offsetof(struct fs_parked, job));

	if (stopping) {
		answer(p, ESHUTDOWN);
		return;
	}
	p->read.run(p->req, &p->read);
	free(p);
}

/* Off the list, and to the worker; or answered here if there is none any more. */
static void hand_on(struct fs_parked *p)
{
	struct fs_waits *w = p->waits;
	bool stopped;

	pthread_mutex_lock(&w->mu);
	take_off_locked(p);
	stopped = w->stopped;
	if (!stopped)
		core_worker_queue(w->worker, &p->job);
	pthread_mutex_unlock(&w->mu);
	if (stopped)
		run_again(&p->job, true);
}

/* The upper passed; on a thread of the engine's, so only hand it on. */
static void woken(struct core_waiter *waiter)
{
	hand_on((struct fs_parked *)waiter);
}

static void interrupted(fuse_req_t req, void *data)
{
	struct fs_waits *w = &fs_of(req)->waits;
	struct fs_parked *p = data;
	bool mine = false;

	pthread_mutex_lock(&w->mu);
	if (on_list_locked(w, p) &&
	    p->req == req) { /* not another one in the place of one that was answered */
		mine = p->armed && core_shard_unwait(p->shard, &p->waiter);
		if (mine)
			take_off_locked(p);
		else if (!p->armed)
			p->answer = EINTR;
	}
	pthread_mutex_unlock(&w->mu);
	if (mine)
		answer(p, EINTR);
}

void fs_wait_read(struct fs_waits *w, fuse_req_t req, struct core_shard *shard, uint64_t time,
		  const struct fs_read *read)
{
	struct fs_parked *p = calloc(1, sizeof *p);
	int errnum;

	if (p == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	p->waiter = (struct core_waiter){.time = time, .wake = woken};
	p->job.run = run_again;
	p->waits = w;
	p->req = req;
	p->shard = shard;
	p->read = *read;
	pthread_mutex_lock(&w->mu);
	put_on_locked(w, p);
	pthread_mutex_unlock(&w->mu);

	fuse_req_interrupt_func(req, interrupted, p); /* may call it at once */

	pthread_mutex_lock(&w->mu);
	errnum = w->closed ? ESHUTDOWN : p->answer;
	p->armed = errnum == 0 && core_shard_wait(shard, &p->waiter);
	if (p->armed)
		p = NULL; /* not ours any more */
	else
		take_off_locked(p);
	pthread_mutex_unlock(&w->mu);
	if (p == NULL)
		return;
	if (errnum != 0)
		answer(p, errnum);
	else /* it has passed meanwhile */
		hand_on(p);
}

void fs_waits_close(struct fs_waits *w)
{
	struct fs_parked *mine = NULL, *next;

	pthread_mutex_lock(&w->mu);
	w->closed = true;
	for (struct fs_parked *p = w->parked; p != NULL; p = next) {
		next = p->next;
		/* Others are being woken, or parking: answered by those who do that. */
		if (!p->armed || !core_shard_unwait(p->shard, &p->waiter))
			continue;
		take_off_locked(p);
		p->next = mine;
		mine = p;
	}
	pthread_mutex_unlock(&w->mu);
	for (; mine != NULL; mine = next) {
		next = mine->next;
		answer(mine, ESHUTDOWN);
	}
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
	poll_drop(p->wait);
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
