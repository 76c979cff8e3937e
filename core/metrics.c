/*
 * metrics.c - see metrics.h. Counters are relaxed: each is right by itself, and
 * nobody draws conclusions from two of them.
 */
#include "core/metrics.h"

#include <time.h>

#include "core/engine_impl.h"

void core_histogram_add(struct core_histogram *h, uint64_t us)
{
	unsigned i = 0;

	while (i < CORE_BUCKETS && us > ((uint64_t)CORE_BUCKET_US << i))
		i++;
	atomic_fetch_add_explicit(&h->counts[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum_us, us, memory_order_relaxed);
}

const struct core_metrics *core_engine_metrics(const struct core_engine *e)
{
	return &e->metrics;
}

void core_engine_gauges(struct core_engine *e, uint64_t out[CORE_GAUGE_COUNT])
{
	for (unsigned i = 0; i < CORE_GAUGE_COUNT; i++)
		out[i] = atomic_load_explicit(&e->metrics.gauges[i], memory_order_relaxed);
	pthread_mutex_lock(&e->mu);
	out[CORE_G_SHARDS] = HASH_COUNT(e->shards);
	out[CORE_G_STATE_BYTES] = e->idle_bytes;
	for (const struct core_shard *s = e->dying; s != NULL; s = s->next_dying)
		out[CORE_G_BURYING]++;
	pthread_mutex_unlock(&e->mu);
}

uint64_t core_ticks_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}
