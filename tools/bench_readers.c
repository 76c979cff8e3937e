/*
 * bench_readers.c - readers that wait in read(2): what they cost a writer, how soon they have what was
 * written, how soon they end; and the snapshot of a shard of many batches.
 *
 * A round without a crowd comes before each with one, so that both see the same mood of the machine.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tools/bench_crowd.h"

enum {
	READERS = 2000,
	ROUNDS = 5,
	APPENDS = 1000,
	APPENDS_WATCHED = 50, /* when each wakes all of the readers */
	KILLS = 100,
	BATCHES = 1000,
	BATCH_ROWS = 1000,
	SNAPSHOTS = 5,
};

static const char far_away[] = "wait/9999999999";

/* --- what a crowd costs a writer -------------------------------------------------------------------- */

enum where { FAR_AWAY, OTHER_SHARD, SAME_SHARD };

struct cost {
	double p50_us[2][ROUNDS]; /* without, with */
	double p99_us[2][ROUNDS];
	double ratio[ROUNDS];
	double all_ms[ROUNDS]; /* until all have an append, if they listen to it */
	double end_ms[ROUNDS]; /* until they are gone */
};

/* Where a crowd listens to them, each comes when all have the one before and wait again. */
static void some_appends(struct bench_writer *w, size_t count, const struct bench_crowd *listeners,
			 struct cost *cost, int with, int round)
{
	double *us = bench_array(count), *all_ms = bench_array(count);

	for (size_t i = 0; i < count; i++) {
		uint64_t start = bench_now_ns();

		us[i] = bench_append_us(w);
		if (listeners == NULL)
			continue;
		bench_crowd_wait(listeners, w->upper);
		all_ms[i] = (double)(bench_now_ns() - start) / 1e6;
		bench_rest(10000);
	}
	cost->p50_us[with][round] = bench_quantile(us, count, 0.5);
	cost->p99_us[with][round] = bench_quantile(us, count, 0.99);
	cost->all_ms[round] = bench_quantile(all_ms, count, 0.5);
	free(all_ms);
	free(us);
}

static void cost_round(const struct bench_place *place, enum where where, size_t readers, struct cost *cost,
		       int round)
{
	struct bench_writer w = bench_writer_new(place), other = bench_writer_new(place);
	bool same = where == SAME_SHARD;
	struct bench_crowd c;

	bench_append_us(&w);
	bench_append_us(&other);
	some_appends(&w, APPENDS, NULL, cost, false, round);
	if (where == FAR_AWAY)
		c = bench_crowd_new(w.dir, far_away, readers, 0);
	else
		c = bench_listeners_new(same ? &w : &other, readers);
	bench_settle(place);
	some_appends(&w, same ? APPENDS_WATCHED : APPENDS, same ? &c : NULL, cost, true, round);
	cost->ratio[round] = cost->p99_us[true][round] / cost->p99_us[false][round];
	cost->end_ms[round] = bench_crowd_end(&c);
	fprintf(stderr, "bench: p50 %.0f, with %.0f; p99 %.0f, with %.0f us\n", cost->p50_us[0][round],
		cost->p50_us[1][round], cost->p99_us[0][round], cost->p99_us[1][round]);
	bench_settle(place);
	bench_writer_end(&w);
	bench_writer_end(&other);
}

static double median(double rounds[ROUNDS])
{
	return bench_quantile(rounds, ROUNDS, 0.5);
}

static void cost_of(const struct bench_place *place, FILE *report, enum where where, size_t readers,
		    const char *name)
{
	struct cost cost = {0};
	char all[32] = "";

	fprintf(stderr, "bench: %zu readers: %s\n", readers, name);
	for (int round = 0; round < ROUNDS; round++)
		cost_round(place, where, readers, &cost, round);
	if (where == SAME_SHARD)
		snprintf(all, sizeof all, "%.1f", median(cost.all_ms));
	bench_say(report, "| %5zu | %-30s | %6.0f | %6.0f | %6.0f | %6.0f |", readers, name,
		  median(cost.p50_us[false]), median(cost.p50_us[true]), median(cost.p99_us[false]),
		  median(cost.p99_us[true]));
	bench_say(report, " %6.2f | %7s | %7.0f |\n", median(cost.ratio), all, median(cost.end_ms));
}

static void costs(const struct bench_place *place, FILE *report)
{
	bench_say(report,
		  "\nAppends, descriptor kept open, while readers wait in read(2): medians of %d rounds of "
		  "%d, a round\n"
		  "without before each with. Where the readers listen to the appends, %d, each when all have "
		  "the one before\n"
		  "and wait again.\n\n",
		  (int)ROUNDS, (int)APPENDS, (int)APPENDS_WATCHED);
	bench_say(report, "| %5s | %-30s | %6s | %6s | %6s | %6s | %6s | %7s | %7s |\n", "count",
		  "they wait for", "p50,us", "with", "p99,us", "with", "ratio", "all, ms", "end, ms");
	bench_say(report, "|------:|:------------------------------|-------:|-------:|-------:|-------:|-----"
			  "--:|--------:"
			  "|--------:|\n");
	cost_of(place, report, FAR_AWAY, READERS, "a time far away, this shard");
	cost_of(place, report, OTHER_SHARD, READERS, "the next update of another");
	cost_of(place, report, SAME_SHARD, READERS, "the next update of this shard");
	cost_of(place, report, SAME_SHARD, 100, "the next update of this shard");
	cost_of(place, report, SAME_SHARD, 10, "the next update of this shard");
	bench_say(
		report,
		"\nall: from an append's begin until all of them have it; end: from SIGKILL to their process "
		"until it is gone.\n");
}

/* --- SIGKILL ---------------------------------------------------------------------------------------- */

static void kills(const struct bench_place *place, FILE *report, size_t others)
{
	struct bench_writer w = bench_writer_new(place);
	double *ms = bench_array(KILLS), p50, p99;
	struct bench_crowd crowd = {0};

	fprintf(stderr, "bench: %d kills of a reader, beside %zu others\n", (int)KILLS, others);
	bench_append_us(&w);
	if (others != 0)
		crowd = bench_crowd_new(w.dir, far_away, others, 0);
	bench_settle(place);
	for (size_t i = 0; i < KILLS; i++) {
		struct bench_crowd one = bench_crowd_new(w.dir, far_away, 1, 0);

		ms[i] = bench_crowd_end(&one);
	}
	p50 = bench_quantile(ms, KILLS, 0.5);
	p99 = bench_quantile(ms, KILLS, 0.99);
	bench_say(report,
		  "SIGKILL of a reader that waits, beside %zu others: gone after %.2f ms (p50), %.2f ms (p99 "
		  "of %d).\n",
		  others, p50, p99, (int)KILLS);
	if (others != 0)
		bench_crowd_end(&crowd);
	bench_settle(place);
	bench_writer_end(&w);
	free(ms);
}

/* --- from a write to its listeners ------------------------------------------------------------------ */

static void deliveries(const struct bench_place *place, FILE *report, size_t listeners)
{
	struct bench_writer w = bench_writer_new(place);
	double *commit = bench_array(BENCH_DELIVERIES);
	double *last = bench_array(BENCH_DELIVERIES);
	double *each = bench_array(BENCH_DELIVERIES * listeners);
	struct bench_crowd c;

	fprintf(stderr, "bench: %d appends to %zu listeners\n", (int)BENCH_DELIVERIES, listeners);
	bench_append_us(&w);
	c = bench_listeners_new(&w, listeners);
	for (size_t i = 0; i < BENCH_DELIVERIES; i++) {
		uint64_t done;

		commit[i] = bench_append_us(&w);
		done = bench_now_ns();
		bench_crowd_wait(&c, w.upper);
		for (size_t k = 0; k < listeners; k++) {
			double late = (double)(int64_t)(c.board->at_ns[k][i] - done) / 1e3;

			each[i * listeners + k] = late;
			last[i] = k == 0 || late > last[i] ? late : last[i];
		}
		bench_rest(200); /* all are back in their reads */
	}
	bench_say(report, "| %9zu | %8.0f | %8.0f | %8.0f | %8.0f | %8.0f | %8.0f |\n", listeners,
		  bench_quantile(commit, BENCH_DELIVERIES, 0.5),
		  bench_quantile(commit, BENCH_DELIVERIES, 0.99),
		  bench_quantile(each, BENCH_DELIVERIES * listeners, 0.5),
		  bench_quantile(each, BENCH_DELIVERIES * listeners, 0.99),
		  bench_quantile(last, BENCH_DELIVERIES, 0.5), bench_quantile(last, BENCH_DELIVERIES, 0.99));
	bench_crowd_end(&c);
	bench_writer_end(&w);
	free(commit);
	free(each);
	free(last);
}

static void say_deliveries(const struct bench_place *place, FILE *report)
{
	bench_say(report,
		  "\nFrom the return of an append's write(2) to that of a listener's read(2), in us; %d "
		  "appends, the next "
		  "one when\nall have it. Below 0: the reader had it before the writer had its verdict.\n\n",
		  (int)BENCH_DELIVERIES);
	bench_say(report, "| %9s | %8s | %8s | %8s | %8s | %8s | %8s |\n", "listeners", "append50",
		  "append99", "each p50", "each p99", "last p50", "last p99");
	bench_say(report,
		  "|----------:|---------:|---------:|---------:|---------:|---------:|---------:|\n");
	deliveries(place, report, 1);
	deliveries(place, report, BENCH_LISTENERS_MAX);
}

/* --- a snapshot of many batches --------------------------------------------------------------------- */

static void write_batches(struct bench_writer *w)
{
	struct bench_text t = bench_text_new(w->fd, w->dir);

	for (uint64_t b = 0; b < BATCHES; b++) {
		bench_text_add(&t, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", b, b + 1);
		for (uint64_t i = 0; i < BATCH_ROWS; i++)
			bench_text_row(&t, b, 1, i * BATCHES + b, i);
		bench_text_add(&t, "commit\n");
		bench_text_flush(&t);
	}
	bench_text_end(&t);
}

static void snapshots(const struct bench_place *place, FILE *report)
{
	struct bench_writer w = bench_writer_new(place);
	char *path = bench_path(w.dir, "snapshot");
	double first[SNAPSHOTS], all[SNAPSHOTS], fresh;

	fprintf(stderr, "bench: snapshots of %d batches of %d rows\n", (int)BATCHES, (int)BATCH_ROWS);
	write_batches(&w);
	for (int i = 0; i < SNAPSHOTS; i++) {
		struct bench_reading r = bench_read_all(path);

		first[i] = r.first_byte_s * 1e3;
		all[i] = r.all_s;
	}
	fresh = first[0];
	bench_say(report,
		  "\nA snapshot of %d rows in %d batches, each with keys from all over: first byte %.1f ms "
		  "after the "
		  "open\n(%.1f ms the first time), all of it after %.2f s; medians of %d.\n",
		  BATCHES * BATCH_ROWS, (int)BATCHES, bench_quantile(first, SNAPSHOTS, 0.5), fresh,
		  bench_quantile(all, SNAPSHOTS, 0.5), (int)SNAPSHOTS);
	free(path);
	bench_writer_end(&w);
}

void bench_readers(const struct bench_place *place, FILE *report)
{
	struct rlimit files;

	bench_say(report, "\n## Readers that wait\n");
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	costs(place, report);
	bench_say(report, "\n");
	kills(place, report, 0);
	kills(place, report, READERS);
	say_deliveries(place, report);
	bench_say(report, "\nThe mount's resident memory after that: %.0f MiB, at its peak %.0f MiB.\n",
		  (double)bench_memory_kib(place->pid, "VmRSS:") / 1024,
		  (double)bench_memory_kib(place->pid, "VmHWM:") / 1024);
	snapshots(place, report);
	bench_say(report, "The mount's resident memory at the end: %.0f MiB, at its peak %.0f MiB.\n",
		  (double)bench_memory_kib(place->pid, "VmRSS:") / 1024,
		  (double)bench_memory_kib(place->pid, "VmHWM:") / 1024);
}
