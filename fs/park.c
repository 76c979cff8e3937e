/*
 * park.c - see park.h.
 *
 * What is parked is on the list of its fs_waits until the one who will end it has
 * taken it off, under mu: the waker, an interrupt or the close. So an interrupt,
 * which may come late, early and on any thread, finds it there or leaves it alone.
 * Until it is armed, that is, until its begin has returned, the others only mark it
 * and the parking thread looks at the mark.
 */
#include "fs/park.h"

#include <stddef.h>

#include "fs/fs.h"

bool fs_waits_init(struct fs_waits *w)
{
	*w = (struct fs_waits){0};
	pthread_mutex_init(&w->mu, NULL);
	pthread_cond_init(&w->empty, NULL);
	w->worker = core_worker_start();
	return w->worker != NULL;
}

void fs_waits_fini(struct fs_waits *w)
{
	pthread_cond_destroy(&w->empty);
	pthread_mutex_destroy(&w->mu);
}

static void put_on_locked(struct fs_waits *w, struct fs_parked *p)
{
	p->next = w->parked;
	p->at = &w->parked;
	if (p->next != NULL)
		p->next->at = &p->next;
	w->parked = p;
	w->counts[p->ops->kind]++;
}

static void take_off_locked(struct fs_waits *w, struct fs_parked *p)
{
	*p->at = p->next;
	if (p->next != NULL)
		p->next->at = p->at;
	p->at = NULL;
	w->counts[p->ops->kind]--;
	if (w->parked == NULL)
		pthread_cond_broadcast(&w->empty);
}

/* p is only compared: it may be gone. */
static bool on_list_locked(const struct fs_waits *w, const struct fs_parked *p)
{
	const struct fs_parked *at = w->parked;

	while (at != NULL && at != p)
		at = at->next;
	return at != NULL;
}

static void put(struct fs_parked *p)
{
	if (atomic_fetch_sub(&p->refs, 1) == 1)
		p->ops->free(p);
}

static void end(struct fs_parked *p, enum kv_rc rc)
{
	p->ops->end(p, rc);
	put(p);
}

static void run(struct core_job *job, bool stopping)
{
	end((struct fs_parked *)job, stopping ? KV_SHUTDOWN : KV_OK);
}

static void hand_on_locked(struct fs_waits *w, struct fs_parked *p)
{
	take_off_locked(w, p);
	core_worker_queue(w->worker, &p->job); /* which may end it at once */
}

void fs_park_wake(struct fs_parked *p)
{
	struct fs_waits *w = p->waits;

	pthread_mutex_lock(&w->mu);
	hand_on_locked(w, p);
	pthread_mutex_unlock(&w->mu);
}

void fs_park_run(struct fs_parked *p)
{
	struct fs_waits *w = p->waits;

	pthread_mutex_lock(&w->mu);
	take_off_locked(w, p);
	pthread_mutex_unlock(&w->mu);
	end(p, KV_OK);
}

/* Take p off if nobody will wake it. */
static bool cancel_locked(struct fs_waits *w, struct fs_parked *p)
{
	if (!p->armed || !p->ops->cancel(p))
		return false;
	take_off_locked(w, p);
	return true;
}

static void interrupted(fuse_req_t req, void *data)
{
	struct fs_waits *w = &fs_of(req)->waits;
	struct fs_parked *p = data;
	bool mine = false;

	pthread_mutex_lock(&w->mu);
	/* not another one in the place of one that was answered */
	if (on_list_locked(w, p) && p->req == req) {
		p->interrupted = true;
		mine = cancel_locked(w, p);
	}
	pthread_mutex_unlock(&w->mu);
	if (mine)
		end(p, KV_INTERRUPTED);
}

/* Behind begin: what came before it could be cancelled. True: it ends here, with *rc. */
static bool settle(struct fs_waits *w, struct fs_parked *p, bool waits, enum kv_rc *rc)
{
	bool mine = false;

	pthread_mutex_lock(&w->mu);
	*rc = w->closed ? KV_SHUTDOWN : KV_INTERRUPTED;
	p->armed = waits;
	if (p->at != NULL && !waits && p->ops->uninterrupted) {
		take_off_locked(w, p);
		*rc = KV_OK;
		mine = true;
	} else if (p->at != NULL && !waits) { /* else it was woken meanwhile */
		hand_on_locked(w, p);
	}
	if (p->at != NULL && waits && (w->closed || p->interrupted))
		mine = cancel_locked(w, p);
	pthread_mutex_unlock(&w->mu);
	return mine;
}

void fs_park(struct fs_waits *w, struct fs_parked *p, const struct fs_park_ops *ops, fuse_req_t req)
{
	enum kv_rc rc = KV_SHUTDOWN;
	bool closed;

	*p = (struct fs_parked){.job.run = run, .ops = ops, .req = req, .waits = w};
	atomic_store(&p->refs, 2);
	fs_count_parked();
	pthread_mutex_lock(&w->mu);
	closed = w->closed;
	if (!closed)
		put_on_locked(w, p);
	pthread_mutex_unlock(&w->mu);
	if (!closed && !ops->uninterrupted)
		fuse_req_interrupt_func(req, interrupted, p); /* may call it at once */
	if (closed || settle(w, p, ops->begin(p), &rc))
		end(p, rc);
	put(p);
}

size_t fs_parked_count(struct fs_waits *w, enum fs_park_kind kind)
{
	size_t count;

	pthread_mutex_lock(&w->mu);
	count = w->counts[kind];
	pthread_mutex_unlock(&w->mu);
	return count;
}

void fs_waits_close(struct fs_waits *w)
{
	struct fs_parked *mine = NULL, *next;

	pthread_mutex_lock(&w->mu);
	w->closed = true;
	for (struct fs_parked *p = w->parked; p != NULL; p = next) {
		next = p->next;
		/* Others are being woken, or parking: ended by those who do that. */
		if (!cancel_locked(w, p))
			continue;
		p->next = mine;
		mine = p;
	}
	pthread_mutex_unlock(&w->mu);
	for (; mine != NULL; mine = next) {
		next = mine->next;
		end(mine, KV_SHUTDOWN);
	}
}

void fs_waits_stop(struct fs_waits *w)
{
	pthread_mutex_lock(&w->mu);
	while (w->parked != NULL)
		pthread_cond_wait(&w->empty, &w->mu);
	pthread_mutex_unlock(&w->mu);
	core_worker_stop(w->worker);
	w->worker = NULL;
}
