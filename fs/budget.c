/*
 * budget.c - see budget.h.
 *
 * 1. held is the sum of bytes of all shares. Of one that runs these are what it was expected to take or what
 * it was seen to take, whichever is more; of an idle one what it keeps.
 * 2. Who waits keeps nothing. Who runs waits for nobody, and ends with its read. So turns come round.
 * 3. Turns are taken in the order of coming: drawn numbers, of which those below served had theirs.
 */
#include "fs/budget.h"

#include <assert.h>
#include <malloc.h>
#include <time.h>

enum { LIMIT = 32 << 20, TIDY_BYTES = 32 << 20, TIDY_MS = 300 };

void fs_budget_init(struct fs_budget *b)
{
	*b = (struct fs_budget){0};
	pthread_mutex_init(&b->mu, NULL);
	pthread_cond_init(&b->turn, NULL);
}

void fs_budget_fini(struct fs_budget *b)
{
	pthread_cond_destroy(&b->turn);
	pthread_mutex_destroy(&b->mu);
}

size_t fs_budget_held(struct fs_budget *b)
{
	size_t held;

	pthread_mutex_lock(&b->mu);
	held = b->held;
	pthread_mutex_unlock(&b->mu);
	return held;
}

void fs_share_init(struct fs_share *s, struct fs_budget *b, const struct fs_share_ops *ops)
{
	*s = (struct fs_share){.ops = ops, .budget = b};
}

static void set_locked(struct fs_budget *b, struct fs_share *s, size_t bytes)
{
	b->held = b->held - s->bytes + bytes;
	s->bytes = bytes;
}

static void put_on_locked(struct fs_budget *b, struct fs_share *s)
{
	struct fs_share *first = b->idle;

	s->next = first != NULL ? first : s;
	s->prev = first != NULL ? first->prev : s;
	s->next->prev = s;
	s->prev->next = s;
	b->idle = s->next; /* s itself where it is the only one: else it is the last */
}

static void take_off_locked(struct fs_budget *b, struct fs_share *s)
{
	if (s->next == NULL)
		return;
	if (b->idle == s)
		b->idle = s->next != s ? s->next : NULL;
	s->next->prev = s->prev;
	s->prev->next = s->next;
	s->next = NULL;
	s->prev = NULL;
}

static void rest_locked(struct fs_budget *b, struct fs_share *s)
{
	b->freed += s->ops->held(s);
	s->ops->rest(s);
	take_off_locked(b, s);
	set_locked(b, s, 0);
}

/* Whether s may take so many bytes while so many others run; idle ones make room for it. */
static bool fits_locked(struct fs_budget *b, const struct fs_share *s, size_t bytes, size_t others)
{
	while (b->held - s->bytes + bytes > LIMIT && b->idle != NULL)
		rest_locked(b, b->idle);
	return b->held - s->bytes + bytes <= LIMIT || others == 0;
}

/* Wait for the turn of s; then it runs. */
static void run_locked(struct fs_budget *b, struct fs_share *s, size_t need)
{
	uint64_t number = b->drawn++;

	while (b->served != number || !fits_locked(b, s, need, b->running)) {
		if (s->bytes != 0)
			rest_locked(b, s);
		pthread_cond_wait(&b->turn, &b->mu);
	}
	b->served++;
	b->running++;
	set_locked(b, s, need);
	if (b->served != b->drawn) /* the next one may fit too */
		pthread_cond_broadcast(&b->turn);
}

void fs_share_begin(struct fs_share *s)
{
	struct fs_budget *b = s->budget;

	pthread_mutex_lock(&b->mu);
	take_off_locked(b, s);
	run_locked(b, s, s->ops->need(s));
	pthread_mutex_unlock(&b->mu);
}

static void stop_locked(struct fs_budget *b)
{
	assert(b->running > 0);
	b->running--;
	if (b->served != b->drawn)
		pthread_cond_broadcast(&b->turn);
}

void fs_share_check(struct fs_share *s)
{
	struct fs_budget *b = s->budget;
	size_t need;

	pthread_mutex_lock(&b->mu);
	need = s->ops->need(s);
	if (need <= s->bytes) {
		/* as was expected */
	} else if (fits_locked(b, s, need, b->running - 1)) {
		set_locked(b, s, need);
	} else {
		rest_locked(b, s);
		stop_locked(b);
		run_locked(b, s, need);
	}
	pthread_mutex_unlock(&b->mu);
}

void fs_share_end(struct fs_share *s)
{
	struct fs_budget *b = s->budget;
	size_t held;

	pthread_mutex_lock(&b->mu);
	held = s->ops->held(s);
	if (held == 0)
		b->freed += s->bytes; /* it is at its end */
	set_locked(b, s, held);
	if (held != 0)
		put_on_locked(b, s);
	stop_locked(b);
	pthread_mutex_unlock(&b->mu);
}

void fs_share_leave(struct fs_share *s, size_t text)
{
	struct fs_budget *b = s->budget;

	pthread_mutex_lock(&b->mu);
	take_off_locked(b, s);
	b->freed += s->bytes + text;
	set_locked(b, s, 0);
	pthread_mutex_unlock(&b->mu);
	atomic_fetch_sub(&b->text, text);
}

void fs_budget_tidy(struct fs_budget *b)
{
	struct timespec now;
	uint64_t ms;
	bool due;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	pthread_mutex_lock(&b->mu);
	/* The last one does not leave it to one who may never come. */
	due = b->freed >= TIDY_BYTES && (ms - b->tidied_ms >= TIDY_MS || b->held == 0);
	if (due) {
		b->freed = 0;
		b->tidied_ms = ms;
	}
	pthread_mutex_unlock(&b->mu);
	if (due)
		malloc_trim(0);
}
