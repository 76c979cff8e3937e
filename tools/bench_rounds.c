/*
 * bench_rounds.c - see bench_rounds.h.
 */
#include "tools/bench_rounds.h"

#include <stdlib.h>

enum { WARM_UP = 200, BETWEEN_MS = 150 };

void bench_between(void)
{
	bench_rest(BETWEEN_MS * 1000L);
}

/* Do it `count` times; us[i] is what the i-th took. Returns the seconds of all. */
static double repeat(struct bench_turns *t, size_t count, double *us)
{
	uint64_t start = bench_now_ns(), before = start;

	for (size_t i = 0; i < count; i++) {
		uint64_t after;

		t->kind->one(t->self, t->done++);
		after = bench_now_ns();
		us[i] = (double)(after - before) / 1e3;
		before = after;
	}
	return (double)(before - start) / 1e9;
}

static void one_turn(struct bench_turns *t, size_t count)
{
	double *us = t->us + t->samples;

	bench_between();
	bench_add(&t->per_s, (double)count / repeat(t, count, us));
	bench_add(&t->p50_us, bench_quantile(us, count, 0.5));
	bench_add(&t->p99_us, bench_quantile(us, count, 0.99));
	t->samples += count;
}

void bench_take_turns(const struct bench_run *run, struct bench_turns *turns, size_t count_kinds,
		      size_t count)
{
	double warm_up[WARM_UP];

	for (size_t k = 0; k < count_kinds; k++) {
		struct bench_turns *t = &turns[k];

		if (t->kind->there != NULL && !t->kind->there(&run->place))
			continue;
		t->us = bench_array(run->sizes.rounds * count);
		t->self = t->kind->open(&run->place, NULL);
		repeat(t, WARM_UP, warm_up);
	}
	for (size_t round = 0; round < run->sizes.rounds; round++)
		for (size_t k = 0; k < count_kinds; k++)
			if (turns[(k + round) % count_kinds].self != NULL)
				one_turn(&turns[(k + round) % count_kinds], count);
	for (size_t k = 0; k < count_kinds; k++)
		if (turns[k].self != NULL) {
			turns[k].kind->close(turns[k].self);
			bench_quantile(turns[k].us, turns[k].samples, 0.5);
		}
}
