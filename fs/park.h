/*
 * park.h - requests that wait without a thread.
 *
 * A request that must wait is parked. It ends in exactly one of these ways: what
 * it waits for wakes it, and it ends on the thread of fs_waits; the kernel
 * interrupts it: KV_INTERRUPTED, if it may; the mount stops: KV_SHUTDOWN.
 *
 * Threads: any.
 */
#ifndef FS_PARK_H
#define FS_PARK_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/worker.h"
#include "kv/rc.h"

enum fs_park_kind { FS_PARKED_READ, FS_PARKED_CTL, FS_PARKED_TURN, FS_PARK_KINDS };

struct fs_parked;

struct fs_park_ops {
	enum fs_park_kind kind;
	/* Signals do not end it; and where there is nothing to wait for, it ends on the thread that parks it.
	 */
	bool uninterrupted;
	/* Begin to wait, without locks. From here on fs_park_wake may come, once, on any thread. False: there
	 * is nothing to wait for, and it does not come. */
	bool (*begin)(struct fs_parked *p);
	/* Under fs_waits.mu. True: fs_park_wake will not come. False: it came, or is about to. */
	bool (*cancel)(struct fs_parked *p);
	/* Answer the request. KV_OK: it was woken. */
	void (*end)(struct fs_parked *p, enum kv_rc rc);
	void (*free)(struct fs_parked *p); /* after that, and after begin */
};

/* The beginning of what is parked; all of it is park.c's, but for req. */
struct fs_parked {
	struct core_job job;
	const struct fs_park_ops *ops;
	fuse_req_t req;
	struct fs_waits *waits;
	_Atomic(unsigned) refs; /* who parks it, and who ends it */
	struct fs_parked *next; /* these under fs_waits.mu */
	struct fs_parked **at;  /* what points to it on the list; NULL: it is off */
	bool armed;             /* it was begun, so that it can be cancelled */
	bool interrupted;       /* before that */
};

struct fs_waits {
	pthread_mutex_t mu; /* all but worker */
	struct fs_parked *parked;
	size_t counts[FS_PARK_KINDS];
	pthread_cond_t empty; /* parked is */
	bool closed;
	struct core_worker *worker;
};

bool fs_waits_init(struct fs_waits *w); /* false: no memory or no thread */

/* Park req as p, which is taken. */
void fs_park(struct fs_waits *w, struct fs_parked *p, const struct fs_park_ops *ops, fuse_req_t req);

/* What p waited for has come. Does not wait for anything. */
void fs_park_wake(struct fs_parked *p);

/* The same, but it ends here and now, on this thread. In place of fs_park_wake. */
void fs_park_run(struct fs_parked *p);

/* How many are parked now. */
size_t fs_parked_count(struct fs_waits *w, enum fs_park_kind kind);

/* Answer all that wait, and those who come: KV_SHUTDOWN. */
void fs_waits_close(struct fs_waits *w);

/* Then, when those who were about to be woken have been: end them too. */
void fs_waits_stop(struct fs_waits *w);
void fs_waits_fini(struct fs_waits *w);

#endif
