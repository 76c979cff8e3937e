/*
 * budget.h - the memory of what is read: one budget for all streams of a mount.
 *
 * A stream that is read keeps buffers to go on quickly (a merge a window and a block of each of its runs),
 * also between two reads of its file. When a read would take all of them together beyond the limit, those
 * that no read works on give theirs back, the one that was read longest ago first; if that is not enough the
 * read waits for its turn, until those before it have ended. One alone may take what it needs, so that each
 * comes to its end.
 *
 * The text that streams keep to be read again is counted here too; stream.c looks after it. malloc keeps most
 * of what is freed, between what stays, so it is told now and then to give it back.
 *
 * Threads: any; a share belongs to one thread at a time. Its ops are called by any, one at a time, under the
 * budget's lock: they take no other.
 */
#ifndef FS_BUDGET_H
#define FS_BUDGET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fs_share;

struct fs_budget {
	pthread_mutex_t mu; /* all below but text and past */
	pthread_cond_t turn;
	size_t held;    /* by all shares, or set aside for those that run */
	size_t running; /* reads */
	uint64_t drawn; /* numbers of those who waited or did not have to, in the order they came */
	uint64_t served;
	struct fs_share *idle; /* a ring: idle is the one that ran longest ago; NULL: none */
	size_t freed;          /* given back to malloc, and not by it to the system, since tidied_ms */
	uint64_t tidied_ms;
	_Atomic(size_t) text;
	_Atomic(size_t) past; /* what listeners remember of steps they have given */
};

struct fs_share_ops {
	size_t (*held)(const struct fs_share *s); /* bytes that it keeps now */
	size_t (*need)(const struct fs_share *s); /* about how many it takes to go on, not below held */
	void (*rest)(struct fs_share *s);         /* give them back */
};

/* Of one stream. */
struct fs_share {
	const struct fs_share_ops *ops;
	struct fs_budget *budget;
	struct fs_share *next; /* in the ring; NULL: a read works on it, or it keeps nothing */
	struct fs_share *prev;
	size_t bytes; /* counted in held */
};

void fs_budget_init(struct fs_budget *b);
void fs_budget_fini(struct fs_budget *b);
size_t fs_budget_held(struct fs_budget *b);

void fs_share_init(struct fs_share *s, struct fs_budget *b, const struct fs_share_ops *ops);

/* Around each read; may wait. */
void fs_share_begin(struct fs_share *s);
void fs_share_end(struct fs_share *s);

/* Now and then within one, and before it takes more than was to be expected: it may be made to rest, and
 * wait. */
void fs_share_check(struct fs_share *s);

/* It is closed, and frees so many bytes of text; outside of a read. */
void fs_share_leave(struct fs_share *s, size_t text);

/* When streams have freed much: see that the system gets it. */
void fs_budget_tidy(struct fs_budget *b);

#endif
