/*
 * pace.h - background work that gives way to those who append.
 *
 * Idle priority is not enough: it counts among the threads of one session or control group. To a
 * client, which has one of its own, a merge is a process like any other, that may keep the processor for
 * milliseconds. So whoever works for long in the background says so every now and then, and is stopped for a
 * moment while commits come. When none come, nothing is lost.
 *
 * Threads: any, several at a time.
 */
#ifndef CORE_PACE_H
#define CORE_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct core_pace {
	const _Atomic(uint64_t) *commits; /* a counter that goes up with each; borrowed */
	_Atomic(uint64_t) seen;           /* of them */
	_Atomic(uint64_t) until_us;       /* others count as being there */
	_Atomic(uint64_t) since_us;       /* it has worked */
	_Atomic(uint64_t) pauses;         /* made so far */
	_Atomic(bool) off;                /* it is waited for, and makes none */
};

void core_pace_init(struct core_pace *p, const _Atomic(uint64_t) *commits);

/* To be called every few microseconds of work, at least as often as CORE_STINT_US. NULL is allowed: nothing
 * is done. */
void core_give_way(struct core_pace *p);

enum { CORE_STINT_US = 200 };

#endif
