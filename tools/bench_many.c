/*
 * bench_many.c - is an append as fast in a store that holds much? One store has many shards, and one of them
 * a long history; the other store is new. Both are mounted, and take their appends in turn, one by one.
 *
 * Nobody lets go of the history: each version adds a row that stays.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "tools/bench_own.h"
#include "tools/bench_report.h"

enum { LONG, ONE_OF_MANY, EMPTY, SHARDS };

enum { WARM_UP = 100, SETTLE_S = 2 };

static const double many_aim = 1.1;

static void many_shards(const struct bench_own *own, uint64_t count, struct bench_writer *middle)
{
	for (uint64_t i = 0; i < count; i++) {
		struct bench_writer w = bench_writer_new(&own->place);

		bench_append_us(&w);
		if (i == count / 2)
			*middle = w;
		else
			bench_writer_end(&w);
	}
}

static void long_history(struct bench_writer *w, uint64_t count)
{
	struct bench_text t = bench_text_new(w->fd, w->dir);

	while (w->upper < count) {
		uint64_t time = w->upper++;

		bench_text_add(&t, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", time,
			       time + 1);
		bench_text_row(&t, time, 1, time, time);
		bench_text_add(&t, "commit\n");
	}
	bench_text_end(&t);
}

/* One to each in turn. */
static void one_round(struct bench_writer w[SHARDS], size_t count, struct bench_series p50[SHARDS])
{
	double *us[SHARDS];

	for (int s = 0; s < SHARDS; s++)
		us[s] = bench_array(count);
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < SHARDS; k++) {
			size_t s = (i + k) % SHARDS;

			us[s][i] = bench_append_us(&w[s]);
		}
	for (int s = 0; s < SHARDS; s++) {
		bench_add(&p50[s], bench_quantile(us[s], count, 0.5));
		free(us[s]);
	}
}

static void say(struct bench_run *run, struct bench_series p50[SHARDS], double made_s)
{
	static const char *const names[SHARDS] = {"the shard with the long history", "another one beside it",
						  "the only shard of a new store"};
	struct bench_series ratios[2] = {bench_ratio(&p50[LONG], &p50[EMPTY]),
					 bench_ratio(&p50[ONE_OF_MANY], &p50[EMPTY])};
	bool worse = bench_median(&ratios[1]) > bench_median(&ratios[0]);
	char floor[BENCH_SPREAD_MAX], work[160];

	bench_say(run->report,
		  "\n## A store that holds much\n\n%" PRIu64 " shards in one store, one of them with %" PRIu64
		  " versions, each a row that stays; beside it a new store.\nAppends to each in turn, one by "
		  "one. Making it took "
		  "%.0f s.\n\n| appends to | p50, µs |\n|:-|-:|\n",
		  run->sizes.shards, run->sizes.history, made_s);
	for (int s = 0; s < SHARDS; s++)
		bench_row(run, names[s], 1, (const struct bench_series *const[]){&p50[s]}, (const int[]){0});
	snprintf(floor, sizeof floor, "fdatasync of 200 B appended %.0f µs",
		 bench_median(&run->floors.append_us));
	snprintf(work, sizeof work,
		 "append p50 at %" PRIu64 " versions and %" PRIu64 " shards: over an empty store%s",
		 run->sizes.history, run->sizes.shards,
		 run->sizes.history < 1000000 ? " (BENCH_FULL=1 makes 1,000,000 versions)" : "");
	bench_target(
		run,
		&(struct bench_target){.work = work, .value = ratios[worse], .bound = many_aim, .digits = 2},
		floor,
		"the long shard %.0f µs, one beside it %.0f, the empty store %.0f; the worse of the two "
		"counts",
		bench_median(&p50[LONG]), bench_median(&p50[ONE_OF_MANY]), bench_median(&p50[EMPTY]));
}

void bench_many(struct bench_run *run)
{
	struct bench_own full = bench_own_new(&run->place, "full"),
			 empty = bench_own_new(&run->place, "empty");
	struct bench_series p50[SHARDS] = {{0}};
	struct bench_writer w[SHARDS];
	uint64_t start = bench_now_ns();
	double made_s;

	fprintf(stderr, "bench: %" PRIu64 " shards, %" PRIu64 " versions\n", run->sizes.shards,
		run->sizes.history);
	bench_own_start(&full);
	bench_own_start(&empty);
	many_shards(&full, run->sizes.shards, &w[ONE_OF_MANY]);
	w[LONG] = bench_writer_new(&full.place);
	long_history(&w[LONG], run->sizes.history);
	made_s = (double)(bench_now_ns() - start) / 1e9;
	w[EMPTY] = bench_writer_new(&empty.place);
	for (int i = 0; i < WARM_UP; i++)
		for (int s = 0; s < SHARDS; s++)
			bench_append_us(&w[s]);
	bench_own_at_rest(&full, SETTLE_S);
	for (size_t round = 0; round < run->sizes.rounds; round++)
		one_round(w, run->sizes.appends, p50);
	say(run, p50, made_s);
	for (int s = 0; s < SHARDS; s++)
		bench_writer_end(&w[s]);
	bench_own_remove(&full);
	bench_own_remove(&empty);
}
