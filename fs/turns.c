/*
 * turns.c - see turns.h.
 *
 * 1. Who is in the queue came when max were running, or max_each of his user; of these at least one goes on
 *    until nobody waits who could have its turn.
 * 2. running <= max, of one user <= max_each, and max_each >= 2, so that one may run that does not go on.
 */
#include "fs/turns.h"

#include <assert.h>
#include <unistd.h>

enum { LEAST = 4, MOST = 16 };

unsigned fs_turns_for_cores(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (cores <= LEAST / 2)
		return LEAST;
	return cores < MOST / 2 ? 2 * (unsigned)cores : MOST;
}

void fs_turns_init(struct fs_turns *t, unsigned max, unsigned max_each)
{
	assert(max_each >= 2 && max_each <= max && max <= FS_TURNS_MAX);
	*t = (struct fs_turns){.max = max, .max_each = max_each};
	t->last = &t->first;
	pthread_mutex_init(&t->mu, NULL);
}

void fs_turns_fini(struct fs_turns *t)
{
	assert(t->running == 0 && t->first == NULL);
	pthread_mutex_destroy(&t->mu);
}

static bool may_run_locked(const struct fs_turns *t, uid_t uid)
{
	unsigned count = 0;

	for (unsigned i = 0; i < t->running; i++)
		count += t->running_for[i] == uid;
	return t->running < t->max && count < t->max_each;
}

static void begin_locked(struct fs_turns *t, uid_t uid)
{
	t->running_for[t->running++] = uid;
}

static void end_locked(struct fs_turns *t, uid_t uid)
{
	unsigned i = 0;

	while (t->running_for[i] != uid)
		i++;
	t->running_for[i] = t->running_for[--t->running];
}

bool fs_turns_enter(struct fs_turns *t, uid_t uid)
{
	bool now;

	pthread_mutex_lock(&t->mu);
	now = may_run_locked(t, uid);
	if (now)
		begin_locked(t, uid);
	pthread_mutex_unlock(&t->mu);
	return now;
}

bool fs_turns_queue(struct fs_turns *t, struct fs_turn *turn)
{
	bool waits;

	pthread_mutex_lock(&t->mu);
	waits = !may_run_locked(t, turn->uid);
	turn->at_once = !waits;
	turn->queued = waits;
	if (waits) {
		turn->next = NULL;
		*t->last = turn;
		t->last = &turn->next;
	} else {
		begin_locked(t, turn->uid);
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

/* The first one that may run: of another user than was served last, if there is one. NULL: there is none. */
static struct fs_turn **find_locked(struct fs_turns *t)
{
	struct fs_turn **found = NULL;

	for (struct fs_turn **at = &t->first; *at != NULL; at = &(*at)->next) {
		bool other = (*at)->uid != t->served;

		if ((found != NULL && !other) || !may_run_locked(t, (*at)->uid))
			continue;
		found = at;
		if (other)
			break;
	}
	return found;
}

struct fs_turn *fs_turns_next(struct fs_turns *t, uid_t uid)
{
	struct fs_turn **at, *turn = NULL;

	pthread_mutex_lock(&t->mu);
	end_locked(t, uid);
	at = find_locked(t);
	if (at != NULL) {
		turn = *at;
		take_off_locked(t, at);
		begin_locked(t, turn->uid);
		t->served = turn->uid;
	}
	pthread_mutex_unlock(&t->mu);
	return turn;
}
