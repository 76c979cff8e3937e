/*
 * bench_crowd.h - readers that wait in read(2): threads of a process of their own, each with a descriptor.
 *
 * They are ended as readers are in life, by SIGKILL.
 */
#ifndef TOOLS_BENCH_CROWD_H
#define TOOLS_BENCH_CROWD_H

#include <stdatomic.h>

#include "tools/bench.h"

enum { BENCH_LISTENERS_MAX = 10, BENCH_DELIVERIES = 5000 };

/* Shared with the crowd's process. */
struct bench_board {
	_Atomic(uint64_t) seen; /* times that were passed, by all readers together */
	uint64_t first;         /* the time whose arrivals are at[0] */
	uint64_t at_ns[BENCH_LISTENERS_MAX][BENCH_DELIVERIES];
};

struct bench_crowd {
	pid_t pid;
	size_t count;
	struct bench_board *board;
};

/* `count` readers of the shard's file `name`, when all of them wait. `upper`: the first time they are to
 * note. */
struct bench_crowd bench_crowd_new(const char *dir, const char *name, size_t count, uint64_t upper);

/* Readers of what w appends from now on. */
struct bench_crowd bench_listeners_new(const struct bench_writer *w, size_t count);

/* Wait until each of them has seen the times below the upper. */
void bench_crowd_wait(const struct bench_crowd *c, uint64_t upper);

/* Returns the milliseconds it took them to be gone. */
double bench_crowd_end(struct bench_crowd *c);

#endif
