/*
 * turns.h - reads that cost work take turns, and so do large writes.
 *
 * Reading a snapshot or a listener merges, decodes and formats, and may wait for memory (budget.h); a large
 * write parses, and waits until what it fills is stored. Each keeps a thread of FUSE for as long as that
 * takes. There are 64 of these; a crowd would have them all, and a small append waited behind all of it. So
 * few such requests are worked on at a time. Those that come meanwhile are parked without a thread; whoever
 * ends one begins the next, of another user than the last one if there is any. One user may be kept from
 * having all turns: where one of them may last long, others of his may not keep everybody out.
 *
 * Threads: any.
 */
#ifndef FS_TURNS_H
#define FS_TURNS_H

#include <sys/types.h>

#include "fs/park.h"

enum { FS_TURNS_MAX = 40 };

/* One that waits for its turn: what is parked begins with it. */
struct fs_turn {
	struct fs_parked parked; /* first */
	bool at_once; /* it is woken with its turn, not run: whoever ends it calls fs_turns_next too */
	uid_t uid;
	struct fs_turn *next; /* in the queue; under fs_turns.mu */
	bool queued;
};

struct fs_turns {
	pthread_mutex_t mu; /* all below; held for moments, also under fs_waits.mu */
	unsigned running;
	unsigned max;
	unsigned max_each;               /* of one user */
	uid_t running_for[FS_TURNS_MAX]; /* so many as are running, in no order */
	struct fs_turn *first;
	struct fs_turn **last;
	uid_t served; /* the last one whose turn came */
};

/* So many turns, at most FS_TURNS_MAX, and of these so many at most for one user, at least 2. */
void fs_turns_init(struct fs_turns *t, unsigned max, unsigned max_each);
/* For what keeps a core at work: two for each, 4 to 16. */
unsigned fs_turns_for_cores(void);
void fs_turns_fini(struct fs_turns *t);

/* False: not now. Then park it with an op whose begin is fs_turns_queue and cancel fs_turns_leave_queue. */
bool fs_turns_enter(struct fs_turns *t, uid_t uid);

/* For struct fs_park_ops. What then ends with KV_OK has its turn. */
bool fs_turns_queue(struct fs_turns *t, struct fs_turn *turn);
bool fs_turns_leave_queue(struct fs_turns *t, struct fs_turn *turn);

/*
 * What had a turn has ended, of user uid. The next one that waits is given, with the turn: fs_park_run it and
 * call this again, or set its at_once and fs_park_wake it. NULL: none waits that may have it, and the turn is
 * over.
 */
struct fs_turn *fs_turns_next(struct fs_turns *t, uid_t uid);

#endif
