/*
 * pace.c - see pace.h.
 *
 * Who wakes while the processor is ours gets it at the end of our slice: 3 or 4 ms, as long as several
 * appends take. After a stint of CORE_STINT_US we sleep, which hands it over at once. A commit shows that
 * somebody is there, and will be for a while: his next append does not show before it is done.
 */
#include "core/pace.h"

#include <stddef.h>
#include <time.h>

#include "core/metrics.h"

enum { PAUSE_NS = 50000, THERE_US = 100000 };

static uint64_t get(const _Atomic(uint64_t) *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

static void set(_Atomic(uint64_t) *n, uint64_t to)
{
	atomic_store_explicit(n, to, memory_order_relaxed);
}

void core_pace_init(struct core_pace *p, const _Atomic(uint64_t) *commits)
{
	*p = (struct core_pace){.commits = commits};
	set(&p->seen, get(commits));
	set(&p->since_us, core_ticks_us());
}

void core_give_way(struct core_pace *p)
{
	uint64_t now, commits;

	if (p == NULL || atomic_load_explicit(&p->off, memory_order_relaxed))
		return;
	now = core_ticks_us();
	if (now - get(&p->since_us) < CORE_STINT_US)
		return;
	commits = get(p->commits);
	if (commits != get(&p->seen)) {
		set(&p->seen, commits);
		set(&p->until_us, now + THERE_US);
	}
	if (now < get(&p->until_us)) {
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS},
			  NULL); /* cut short by a signal, it is enough */
		atomic_fetch_add_explicit(&p->pauses, 1, memory_order_relaxed);
		now = core_ticks_us();
	}
	set(&p->since_us, now);
}
