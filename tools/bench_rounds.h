/*
 * bench_rounds.h - kinds that take turns, one thread each.
 */
#ifndef TOOLS_BENCH_ROUNDS_H
#define TOOLS_BENCH_ROUNDS_H

#include "tools/bench_report.h"

/* What one kind took, in each round. Nothing was measured, if it is not there. */
struct bench_turns {
	const struct bench_kind *kind;
	void *self;
	uint64_t done;
	struct bench_series per_s, p50_us, p99_us;
	double *us; /* of all rounds, `samples` of them; sorted at the end (free) */
	size_t samples;
};

/* Every kind `count` times in every round, warmed up before. The kinds are opened and closed here. */
void bench_take_turns(const struct bench_run *run, struct bench_turns *turns, size_t kinds, size_t count);

/* So many milliseconds, that what one did does not go on in the background of the next. */
void bench_between(void);

#endif
