/*
 * bench_upkeep.h - what the parts of the benchmark of maintenance share: its knobs, and how a figure is told.
 */
#ifndef TOOLS_BENCH_UPKEEP_H
#define TOOLS_BENCH_UPKEEP_H

#include "tools/bench_own.h"

/* Each is an environment variable, UPKEEP_ and its name in capitals; for trials on a small scale. */
#define BENCH_KNOBS(X)                                                                        \
	X(keys, "KEYS", 1000000)         /* of the shard that is overwritten */               \
	X(rounds, "ROUNDS", 20)          /* how often */                                      \
	X(cuts, "CUTS", 100)             /* transactions of a round, in the second variant */ \
	X(reads, "READS", 7)             /* of each snapshot */                               \
	X(cycles, "CYCLES", 10)          /* of appends without compaction, and with it */     \
	X(samples, "SAMPLES", 2000)      /* appends to each shard in a cycle, without it */   \
	X(appends, "APPENDS", 100000)    /* of single rows, to one shard */                   \
	X(shards, "SHARDS", 10000)       /* in one store */                                   \
	X(starts, "STARTS", 5)           /* of its mount */                                   \
	X(idle_s, "IDLE_S", 30)          /* until it counts as idle */                        \
	X(versions, "VERSIONS", 1000000) /* of a shard that is loaded */                      \
	X(rest_s, "REST_S", 10)          /* without a change, until a store counts as at rest */

struct bench_knobs {
#define BENCH_KNOB(name, variable, usual) uint64_t name;
	BENCH_KNOBS(BENCH_KNOB)
#undef BENCH_KNOB
};

/* A row of the table: a figure beside its aim, which it must not exceed. */
struct bench_figure {
	const char *what;
	double value; /* NAN: what it takes is not there */
	double aim;   /* NAN: none */
	int digits;
	const char *unit;
};
/* With a remark behind it. */
void bench_figure(FILE *report, const struct bench_figure *f, const char *remark, ...)
	__attribute__((format(printf, 3, 4)));
void bench_no_figure(FILE *report, const struct bench_figure *f, const char *why);
void bench_figures_begin(FILE *report, const char *title, ...) __attribute__((format(printf, 2, 3)));

/* The peak of the mount's resident memory, as a row. */
void bench_figure_memory(FILE *report, const struct bench_own *o, const char *during);

/* The parts. */
void bench_overwritten(const struct bench_place *place, FILE *report, const struct bench_knobs *k,
		       uint64_t cuts); /* space, work and reading */
void bench_beside(const struct bench_own *o, FILE *report, const struct bench_knobs *k, const char *shard,
		  uint64_t round); /* appends while it is compacted; bench_overwritten calls it */
void bench_single_rows(const struct bench_place *place, FILE *report, const struct bench_knobs *k);
void bench_many_shards(const struct bench_place *place, FILE *report, const struct bench_knobs *k);
void bench_many_versions(const struct bench_place *place, FILE *report, const struct bench_knobs *k);

#endif
