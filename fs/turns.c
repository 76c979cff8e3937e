/*
 * turns.c - see turns.h.
 *
 * 1. Who is in the queue came when max were running; at least one of these goes on until the queue is empty.
 * 2. running <= max, and max >= 2, so that one may run that does not go on.
 */
#include "fs/turns.h"

#include <assert.h>
#include <unistd.h>

enum { LEAST = 4, MOST = 16 };

void fs_turns_init(struct fs_turns *t)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	*t = (struct fs_turns){.max = LEAST};
	t->last = &t->first;
	if (cores > LEAST / 2)
		t->max = cores < MOST / 2 ? 2 * (unsigned)cores : MOST;
	pthread_mutex_init(&t->mu, NULL);
}

void fs_turns_fini(struct fs_turns *t)
{
	assert(t->running == 0 && t->first == NULL);
	pthread_mutex_destroy(&t->mu);
}

bool fs_turns_enter(struct fs_turns *t)
{
	bool now;

	pthread_mutex_lock(&t->mu);
	now = t->running < t->max;
	t->running += now;
	pthread_mutex_unlock(&t->mu);
	return now;
}

bool fs_turns_queue(struct fs_turns *t, struct fs_turn *turn)
{
	bool waits;

	pthread_mutex_lock(&t->mu);
	waits = t->running == t->max; /* else it is tried again at once */
	if (waits) {
		turn->next = NULL;
		turn->queued = true;
		*t->last = turn;
		t->last = &turn->next;
	}
	pthread_mutex_unlock(&t->mu);
	return waits;
}

static void take_off_locked(struct fs_turns *t, struct fs_turn **at)
{
	struct fs_turn *turn = *at;

	*at = turn->next;
	if (t->last == &turn->next)
		t->last = at;
	turn->queued = false;
}

bool fs_turns_leave_queue(struct fs_turns *t, struct fs_turn *turn)
{
	struct fs_turn **at;
	bool there;

	pthread_mutex_lock(&t->mu);
	there = turn->queued;
	if (there) {
		for (at = &t->first; *at != turn;)
			at = &(*at)->next;
		take_off_locked(t, at);
	}
	pthread_mutex_unlock(&t->mu);
	return there;
}

struct fs_turn *fs_turns_next(struct fs_turns *t, bool go_on)
{
	struct fs_turn **at, *turn = NULL;

	pthread_mutex_lock(&t->mu);
	for (at = &t->first; *at != NULL && (*at)->uid == t->served;)
		at = &(*at)->next;
	if (*at == NULL)
		at = &t->first;
	if (go_on && *at != NULL) {
		turn = *at;
		take_off_locked(t, at);
		turn->has = true;
		t->served = turn->uid;
	} else {
		t->running--;
	}
	pthread_mutex_unlock(&t->mu);
	return turn;
}
