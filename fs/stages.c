/*
 * stages.c - see stages.h.
 */
#include "fs/stages.h"

#include <time.h>

/* How long a RELEASE may take to come after its FLUSH. */
enum { LATE_RELEASE_MS = 250 };

void fs_stages_init(struct fs_stages *s)
{
	pthread_condattr_t attr;

	*s = (struct fs_stages){0};
	pthread_mutex_init(&s->mu, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
}

void fs_stages_fini(struct fs_stages *s)
{
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->mu);
}

static struct fs_stage_writer *find_locked(struct fs_stages *s, struct core_uuid id)
{
	struct fs_stage_writer *w = s->writers;

	while (w != NULL && !core_uuid_eq(w->id, id))
		w = w->next;
	return w;
}

static struct timespec late_release(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += LATE_RELEASE_MS * 1000000L;
	t.tv_sec += t.tv_nsec / 1000000000L;
	t.tv_nsec %= 1000000000L;
	return t;
}

bool fs_stages_claim(struct fs_stages *s, struct fs_stage_writer *w, bool briefly)
{
	const struct timespec until = late_release();
	struct fs_stage_writer *other;
	bool late = false;

	pthread_mutex_lock(&s->mu);
	for (;;) {
		other = find_locked(s, w->id);
		if (other == NULL)
			break;
		if (other->closing)
			pthread_cond_wait(&s->changed, &s->mu);
		else if (late || !atomic_load(&other->flushed))
			break;
		else
			late = pthread_cond_timedwait(&s->changed, &s->mu, &until) != 0;
	}
	if (other == NULL) {
		w->closing = briefly;
		w->next = s->writers;
		s->writers = w;
	}
	pthread_mutex_unlock(&s->mu);
	return other == NULL;
}

void fs_stages_ending(struct fs_stages *s, struct fs_stage_writer *w)
{
	pthread_mutex_lock(&s->mu);
	w->closing = true;
	while (w->users != 0)
		pthread_cond_wait(&s->changed, &s->mu);
	pthread_mutex_unlock(&s->mu);
}

void fs_stages_unclaim(struct fs_stages *s, struct fs_stage_writer *w)
{
	struct fs_stage_writer **at = &s->writers;

	pthread_mutex_lock(&s->mu);
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->mu);
}

struct fs_stage_writer *fs_stages_borrow(struct fs_stages *s, struct core_uuid id)
{
	struct fs_stage_writer *w;

	pthread_mutex_lock(&s->mu);
	w = find_locked(s, id);
	if (w != NULL && w->closing)
		w = NULL;
	if (w != NULL)
		w->users++;
	pthread_mutex_unlock(&s->mu);
	return w;
}

void fs_stages_give_back(struct fs_stages *s, struct fs_stage_writer *w)
{
	pthread_mutex_lock(&s->mu);
	w->users--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->mu);
}
