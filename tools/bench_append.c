/*
 * bench_append.c - durable appends of one row by one client, beside others that do the same, and the floors.
 *
 * The floors take their turns with the others: the disk as it was in that round.
 */
#include <stdlib.h>

#include "tools/bench_rounds.h"

enum {
	KEPT_OPEN,
	OPEN_WRITE_CLOSE,
	SQLITE,
	ROCKS_PUT,
	PG,
	ETCD,
	FILE_FLOCK,
	APPEND_SYNC,
	OVERWRITE_SYNC,
	WRITE_ONLY,
	KINDS
};

static const struct bench_kind *const kinds[KINDS] = {
	[KEPT_OPEN] = &bench_kept_open,
	[OPEN_WRITE_CLOSE] = &bench_open_write_close,
	[SQLITE] = &bench_sqlite,
	[ROCKS_PUT] = &bench_rocks_put,
	[PG] = &bench_pg,
	[ETCD] = &bench_etcd,
	[FILE_FLOCK] = &bench_file_flock,
	[APPEND_SYNC] = &bench_append_sync,
	[OVERWRITE_SYNC] = &bench_overwrite_sync,
	[WRITE_ONLY] = &bench_write_only,
};

static const double kept_aim = 0.9, floor_aim = 1.3, open_aim = 1.2;

/* For the plot of latencies: of each kind a block, of points where the figure is reached by all but 1 of n.
 */
static void draw(const struct bench_run *run, const struct bench_turns turns[KINDS])
{
	FILE *f = bench_data(run, "append.dat");
	const char *lead = "";

	for (int k = 0; k < KINDS; k++) {
		const struct bench_turns *t = &turns[k];

		if (t->samples == 0 || t->kind->tag == NULL)
			continue;
		fprintf(f, "%s\"%s\"\n", lead, t->kind->tag);
		lead = "\n\n";
		for (double n = 1.02; n <= (double)t->samples / 5; n *= 1.12)
			fprintf(f, "%.4f %.2f\n", n, t->us[(size_t)((1 - 1 / n) * (double)t->samples)]);
	}
	fclose(f);
}

static void say_turns(struct bench_run *run, const struct bench_turns turns[KINDS])
{
	static const int digits[] = {0, 0, 0};

	bench_say(run->report,
		  "\n## One client\n\nDurable appends of one row, one at a time, by one thread: %d rounds of "
		  "%d by each, "
		  "in turn, after 200 that do\nnot count. Each compares the upper it expects and sets the "
		  "next one; RocksDB's put "
		  "compares nothing. Median of the\nrounds (least..most).\n\n",
		  (int)run->sizes.rounds, (int)run->sizes.appends);
	bench_say(run->report, "| | appends per second | p50, µs | p99, µs |\n|:-|-:|-:|-:|\n");
	for (int k = 0; k < KINDS; k++) {
		const struct bench_series *const figures[] = {&turns[k].per_s, &turns[k].p50_us,
							      &turns[k].p99_us};

		bench_row(run, turns[k].kind->name, 3, figures, digits);
	}
	bench_say(run->report,
		  "\nSQLite writes its log over again after each checkpoint: its floor is the overwritten "
		  "block. "
		  "RocksDB, PostgreSQL\nand etcd write ahead in files of which some are made in advance.\n");
}

static void say_targets(struct bench_run *run, const struct bench_turns turns[KINDS])
{
	const struct bench_series *kept = &turns[KEPT_OPEN].p50_us, *shell = &turns[OPEN_WRITE_CLOSE].p50_us,
				  *sqlite = &turns[SQLITE].p50_us;
	struct bench_series floor = bench_sum(&turns[OVERWRITE_SYNC].p50_us, &turns[WRITE_ONLY].p50_us);
	char text[BENCH_SPREAD_MAX];

	snprintf(text, sizeof text, "%.0f + %.0f µs: overwrite + FUSE write",
		 bench_median(&turns[OVERWRITE_SYNC].p50_us), bench_median(&turns[WRITE_ONLY].p50_us));
	if (bench_wanted(run, "append", true)) {
		bench_target(
			run,
			&(struct bench_target){
				.work = "durable compare-and-append of one row, one client, descriptor "
					"kept open, p50: over SQLite in the process",
				.value = bench_ratio(kept, sqlite),
				.bound = kept_aim,
				.digits = 2},
			text,
			"ours %.0f µs, SQLite %.0f, RocksDB put %.0f, PostgreSQL %.0f, etcd %.0f, file %.0f",
			bench_median(kept), bench_median(sqlite), bench_median(&turns[ROCKS_PUT].p50_us),
			bench_median(&turns[PG].p50_us), bench_median(&turns[ETCD].p50_us),
			bench_median(&turns[FILE_FLOCK].p50_us));
		bench_target(
			run,
			&(struct bench_target){
				.work = "the same: over fdatasync of an overwritten block + one FUSE write",
				.value = bench_ratio(kept, &floor),
				.bound = floor_aim,
				.digits = 2},
			text, "ours %.0f µs, the floor %.0f", bench_median(kept), bench_median(&floor));
	}
	if (bench_wanted(run, "open", true))
		bench_target(run,
			     &(struct bench_target){.work = "the same by open, write, close each time: over "
							    "SQLite in the process",
						    .value = bench_ratio(shell, sqlite),
						    .bound = open_aim,
						    .digits = 2},
			     text, "ours %.0f µs, SQLite %.0f", bench_median(shell), bench_median(sqlite));
}

void bench_appends(struct bench_run *run)
{
	struct bench_turns turns[KINDS] = {{0}};

	fprintf(stderr, "bench: appends by one client\n");
	for (int k = 0; k < KINDS; k++)
		turns[k].kind = kinds[k];
	bench_take_turns(run, turns, KINDS, run->sizes.appends);
	say_turns(run, turns);
	say_targets(run, turns);
	draw(run, turns);
	for (int k = 0; k < KINDS; k++)
		free(turns[k].us);
}
