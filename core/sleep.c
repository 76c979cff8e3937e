/*
 * sleep.c - threads that wait for a shard's upper.
 *
 * A thread puts itself on the shard's list (waiters.c) and sleeps. Where others
 * write to the store too, nobody here wakes it for what they do: then it looks
 * into consensus every now and then.
 */
#include <pthread.h>
#include <time.h>

#include "core/engine_impl.h"

/* A thread that waits for the upper. */
struct sleeper {
	struct core_waiter waiter; /* first: woken() is handed it */
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool woken;
};

static void woken(struct core_waiter *waiter)
{
	struct sleeper *s = (struct sleeper *)waiter;

	pthread_mutex_lock(&s->mu);
	s->woken = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->mu);
}

/* How long to sleep before consensus is asked, where others may write. */
enum { POLL_MS = 250 };

static struct timespec after_ms(struct timespec t, int64_t ms)
{
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

/* Sleep until woken or `until` (NULL: for ever). False: the time was over. */
static bool sleep_until(struct sleeper *s, const struct timespec *until)
{
	int rc = 0;
	bool is_woken;

	pthread_mutex_lock(&s->mu);
	while (!s->woken && rc == 0)
		rc = until != NULL ? pthread_cond_timedwait(&s->cond, &s->mu, until)
				   : pthread_cond_wait(&s->cond, &s->mu);
	is_woken = s->woken;
	pthread_mutex_unlock(&s->mu);
	return is_woken;
}

static int64_t left_ms(struct timespec deadline)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)(deadline.tv_sec - now.tv_sec) * 1000 + (deadline.tv_nsec - now.tv_nsec) / 1000000;
}

/* One sleep: until the shard wakes us, the deadline, or it is time to ask consensus. */
static void sleep_once(struct core_shard *shard, uint64_t time, const struct timespec *deadline)
{
	struct sleeper s = {.waiter = {.time = time, .wake = woken}};
	bool poll = !shard->engine->traits.sole_owner;
	pthread_condattr_t attr;
	struct timespec until = {0};

	pthread_mutex_init(&s.mu, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s.cond, &attr);
	pthread_condattr_destroy(&attr);
	if (poll) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until = after_ms(until, POLL_MS);
	}
	if (deadline != NULL && (!poll || left_ms(*deadline) < POLL_MS))
		until = *deadline;
	if (core_shard_wait(shard, &s.waiter) &&
	    !sleep_until(&s, poll || deadline != NULL ? &until : NULL) &&
	    !core_shard_unwait(shard, &s.waiter))
		(void)sleep_until(&s, NULL); /* it is being woken: let that end first */
	pthread_mutex_lock(&s.mu);           /* and leave the waker its lock */
	pthread_mutex_unlock(&s.mu);
	pthread_cond_destroy(&s.cond);
	pthread_mutex_destroy(&s.mu);
}

enum kv_rc core_shard_wait_past(struct core_shard *s, uint64_t time, int timeout_ms,
				struct core_frontier *upper, struct kv_err *err)
{
	bool others = !s->engine->traits.sole_owner;
	struct timespec deadline;
	struct core_info info;
	enum kv_rc rc = core_shard_info(s, false, &info, err);

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline = after_ms(deadline, timeout_ms);
	if (rc == KV_OK && others && core_frontier_covers(info.upper, time))
		rc = core_shard_info(s, true, &info, err); /* what is known here may be old */
	while (rc == KV_OK && core_frontier_covers(info.upper, time)) {
		if (timeout_ms >= 0 && left_ms(deadline) <= 0) {
			rc = kv_fail(err, KV_WOULD_BLOCK, "the upper has not passed yet");
			break;
		}
		sleep_once(s, time, timeout_ms >= 0 ? &deadline : NULL);
		rc = core_shard_info(s, others, &info, err);
	}
	*upper = info.upper;
	return rc;
}
