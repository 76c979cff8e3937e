/*
 * turns.h - reads that cost work take turns.
 *
 * Reading a snapshot or a listener merges, decodes and formats, and may wait for memory (budget.h): it keeps
 * a thread of FUSE for as long as that takes. There are 64 of these; a crowd of readers would have them all,
 * and a small append waited behind all of it. So few such reads are worked on at a time. Those that come
 * meanwhile are parked without a thread; whoever ends one begins the next, of another user than the last one
 * if there is any.
 *
 * Threads: any.
 */
#ifndef FS_TURNS_H
#define FS_TURNS_H

#include <sys/types.h>

#include "fs/park.h"

/* One that waits for its turn: what is parked begins with it. */
struct fs_turn {
	struct fs_parked parked; /* first */
	bool has; /* its turn has come: whoever ends it works with the turn of the one before */
	uid_t uid;
	struct fs_turn *next; /* in the queue; under fs_turns.mu */
	bool queued;
};

struct fs_turns {
	pthread_mutex_t mu; /* all below; held for moments, also under fs_waits.mu */
	unsigned running;
	unsigned max;
	struct fs_turn *first;
	struct fs_turn **last;
	uid_t served; /* the last one whose turn came */
};

void fs_turns_init(struct fs_turns *t);
void fs_turns_fini(struct fs_turns *t);

/* False: not now. Then park it with an op whose begin is fs_turns_queue and cancel fs_turns_leave_queue. */
bool fs_turns_enter(struct fs_turns *t);

/* For struct fs_park_ops. */
bool fs_turns_queue(struct fs_turns *t, struct fs_turn *turn);
bool fs_turns_leave_queue(struct fs_turns *t, struct fs_turn *turn);

/*
 * The read that had a turn has ended. With go_on the next one that waits is given, with the turn: fs_park_run
 * it, and call this again. NULL: none waits, and the turn is over. At least one of those who have turns must
 * ask to go on, so without go_on there may be one at a time.
 */
struct fs_turn *fs_turns_next(struct fs_turns *t, bool go_on);

#endif
