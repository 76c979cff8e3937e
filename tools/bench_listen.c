/*
 * bench_listen.c - from an append's verdict to the reader who listens to the shard.
 *
 * Measured from the return of the writer's write(2) to the return of the listener's read(2), in another
 * process; the next append comes when the listener waits again. Below 0: the reader had it before the writer
 * had its verdict.
 */
#include <stdlib.h>

#include "tools/bench_crowd.h"
#include "tools/bench_report.h"

enum { REST_US = 200, WARM_UP = 100 };

static const double wake_aim_us = 300;

struct wakes {
	struct bench_series append50, wake50, wake99;
};

static void one_round(struct bench_run *run, size_t count, struct wakes *wakes)
{
	struct bench_writer w = bench_writer_new(&run->place);
	double *append = bench_array(count), *late = bench_array(count);
	struct bench_crowd c;

	for (int i = 0; i < WARM_UP; i++)
		bench_append_us(&w);
	bench_settle(&run->place);
	c = bench_listeners_new(&w, 1);
	for (size_t i = 0; i < count; i++) {
		uint64_t done;

		append[i] = bench_append_us(&w);
		done = bench_now_ns();
		bench_crowd_wait(&c, w.upper);
		late[i] = (double)(int64_t)(c.board->at_ns[0][i] - done) / 1e3;
		bench_rest(REST_US); /* it is back in its read */
	}
	bench_add(&wakes->append50, bench_quantile(append, count, 0.5));
	bench_add(&wakes->wake50, bench_quantile(late, count, 0.5));
	bench_add(&wakes->wake99, bench_quantile(late, count, 0.99));
	bench_crowd_end(&c);
	bench_writer_end(&w);
	free(append);
	free(late);
}

void bench_listen(struct bench_run *run)
{
	static const int digits[] = {0, 0, 0};
	size_t count = run->sizes.wakes < BENCH_DELIVERIES ? run->sizes.wakes : BENCH_DELIVERIES;
	struct wakes wakes = {0};
	const struct bench_series *const figures[] = {&wakes.append50, &wakes.wake50, &wakes.wake99};

	fprintf(stderr, "bench: a listener\n");
	for (size_t round = 0; round < run->sizes.rounds; round++)
		one_round(run, count, &wakes);
	bench_say(run->report,
		  "\n## A listener\n\nFrom the return of an append's write(2) to that of its listener's "
		  "read(2); %d rounds of %d "
		  "appends, the next one when\nthe listener waits again.\n\n"
		  "| | append p50, µs | behind it p50, µs | behind it p99, µs |\n|:-|-:|-:|-:|\n",
		  (int)run->sizes.rounds, (int)count);
	bench_row(run, "one listener", 3, figures, digits);
	bench_target(run,
		     &(struct bench_target){.work = "from a write to its listener, p99 beyond the commit",
					    .value = wakes.wake99,
					    .bound = wake_aim_us,
					    .unit = " µs"},
		     "", "p50 %.0f µs", bench_median(&wakes.wake50));
}
