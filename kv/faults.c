/*
 * faults.c - the plan that fault layers share: which call fails, and how.
 *
 * How it works: each layer asks kv_faults_strike at the start of every call;
 * the plan counts and answers with the fault to play, KV_FAULT_NONE mostly.
 *
 * Invariants (whenever the lock is free):
 * 1. `calls` is the number of strikes since the plan was armed.
 * 2. `fired` is true iff a strike since then answered with the armed fault.
 */
#include "kv/fault.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct kv_faults {
	pthread_mutex_t lock; /* all below */
	enum kv_fault kind;
	unsigned nth;
	bool forever;
	unsigned delay_us;
	unsigned calls;
	bool fired;
};

struct kv_faults *kv_faults_new(void)
{
	struct kv_faults *f = calloc(1, sizeof(*f));

	if (f)
		pthread_mutex_init(&f->lock, NULL);
	return f;
}

void kv_faults_free(struct kv_faults *f)
{
	if (!f)
		return;
	pthread_mutex_destroy(&f->lock);
	free(f);
}

void kv_faults_arm(struct kv_faults *f, unsigned nth, enum kv_fault kind, bool forever)
{
	assert(nth >= 1);
	pthread_mutex_lock(&f->lock);
	f->kind = kind;
	f->nth = nth;
	f->forever = forever;
	f->calls = 0;
	f->fired = false;
	pthread_mutex_unlock(&f->lock);
}

void kv_faults_set_delay_us(struct kv_faults *f, unsigned delay_us)
{
	pthread_mutex_lock(&f->lock);
	f->delay_us = delay_us;
	pthread_mutex_unlock(&f->lock);
}

bool kv_faults_fired(struct kv_faults *f)
{
	pthread_mutex_lock(&f->lock);

	bool fired = f->fired;

	pthread_mutex_unlock(&f->lock);
	return fired;
}

unsigned kv_faults_calls(struct kv_faults *f)
{
	pthread_mutex_lock(&f->lock);

	unsigned calls = f->calls;

	pthread_mutex_unlock(&f->lock);
	return calls;
}

static void sleep_us(unsigned delay_us)
{
	struct timespec left = {.tv_sec = delay_us / 1000000, .tv_nsec = (long)(delay_us % 1000000) * 1000};

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

enum kv_fault kv_faults_strike(struct kv_faults *f)
{
	enum kv_fault kind = KV_FAULT_NONE;

	pthread_mutex_lock(&f->lock);
	f->calls++;
	if (f->kind != KV_FAULT_NONE && (f->calls == f->nth || (f->forever && f->calls > f->nth))) {
		kind = f->kind;
		f->fired = true;
	}

	unsigned delay_us = f->delay_us;

	pthread_mutex_unlock(&f->lock);
	if (kind == KV_FAULT_SLOW)
		sleep_us(delay_us);
	return kind;
}
