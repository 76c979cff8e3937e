/*
 * bench_report.h - the run, the figures of its rounds, and the table of targets.
 *
 * A figure is the median over the rounds, with the least and the most beside it. A ratio is taken inside each
 * round, where both saw the same mood of the machine, and then the median of the ratios.
 */
#ifndef TOOLS_BENCH_REPORT_H
#define TOOLS_BENCH_REPORT_H

#include "tools/bench.h"

/* Each is an environment variable, BENCH_ and its name in capitals. */
#define BENCH_SIZES(X)                                                                 \
	X(rounds, "ROUNDS", 3)                                                         \
	X(appends, "APPENDS", 2000)   /* of each kind in a round */                    \
	X(turn_ms, "TURN_MS", 1000)   /* of each kind in a round, where many work */   \
	X(rows, "ROWS", 1000000)      /* of the large transaction */                   \
	X(keys, "KEYS", 1000000)      /* of the shard that is read as of the middle */ \
	X(versions, "VERSIONS", 1000) /* of it */                                      \
	X(wakes, "WAKES", 3000)       /* appends to a listener in a round */           \
	X(shards, "SHARDS", 10000)    /* in one store */                               \
	X(history, "HISTORY", 20000)  /* versions of one of them; 1000000 with BENCH_FULL */

struct bench_sizes {
#define BENCH_SIZE(name, variable, usual) uint64_t name;
	BENCH_SIZES(BENCH_SIZE)
#undef BENCH_SIZE
};

enum { BENCH_ROUNDS_MAX = 64, BENCH_FIGURES_MAX = 4 * BENCH_ROUNDS_MAX };

/* One figure of each round, or some. */
struct bench_series {
	size_t count;
	double of[BENCH_FIGURES_MAX];
};

/* What the machine takes by itself, in the same run. */
struct bench_floors {
	struct bench_series overwrite_us, append_us, request_us; /* p50: fdatasync, fdatasync, a FUSE write */
	struct bench_series memcpy_s, zstd_s, cat_s, sort_s;     /* of the text of the large transaction */
	double text_bytes, zstd_bytes;
};

struct bench_run {
	struct bench_place place;
	struct bench_sizes sizes;
	struct bench_floors floors;
	FILE *report;     /* the details */
	FILE *table;      /* the targets */
	const char *out;  /* the directory of both and of what is drawn */
	const char *only; /* the parts to run, parted by commas; NULL: the usual ones */
	bool full;
};

/* Is this part to be run? `usual`: it is one of those that run unasked. */
bool bench_wanted(const struct bench_run *run, const char *part, bool usual);

void bench_add(struct bench_series *s, double value);
double bench_median(const struct bench_series *s); /* NAN: it is empty */
struct bench_series bench_ratio(const struct bench_series *of, const struct bench_series *to);
struct bench_series bench_sum(const struct bench_series *a, const struct bench_series *b);
struct bench_series bench_least(const struct bench_series *a, const struct bench_series *b); /* an empty one
												is left out */
struct bench_series bench_one(double value);

enum { BENCH_SPREAD_MAX = 96 };
/* "median (least..most)", "missing" for an empty one. */
char *bench_spread(const struct bench_series *s, int digits, char text[BENCH_SPREAD_MAX]);

enum bench_sense { BENCH_AT_MOST, BENCH_AT_LEAST };

/* A row of the table of targets. An empty value: it was not measured, because a peer is missing. */
struct bench_target {
	const char *work;
	struct bench_series value;
	enum bench_sense sense;
	double bound;
	int digits;
	const char *unit; /* NULL: none */
};
/* With what is to be read beside it: the figures themselves, and the floor. */
void bench_target(struct bench_run *run, const struct bench_target *t, const char *floor, const char *beside,
		  ...) __attribute__((format(printf, 4, 5)));

/* A row of a table in the details: a name and some series. */
void bench_row(struct bench_run *run, const char *name, size_t count,
	       const struct bench_series *const figures[], const int digits[]);

/* A file in run->out to be drawn from. */
FILE *bench_data(const struct bench_run *run, const char *name);

/* Each of the sections. */
void bench_floors(struct bench_run *run);
void bench_appends(struct bench_run *run); /* append, open */
void bench_clients(struct bench_run *run); /* clients, blind */
void bench_bulk(struct bench_run *run);    /* import, read, batch, disk */
void bench_as_of(struct bench_run *run);
void bench_listen(struct bench_run *run);
void bench_many(struct bench_run *run);

#endif
