/*
 * bench.c - see bench.h. The rounds, the statistics and the report.
 *
 * Everyone does a fixed number of appends in each round, and the rounds go around: all of them see the same
 * moods of the disk and of the machine. Every round begins with another one, so none always follows the same.
 * A figure is the median over the rounds; a ratio is taken inside each round, then its median.
 */
#include "tools/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	ROUNDS = 5,
	WARM_UP = 100,
	APPENDS_MIN = 100,
	APPENDS_MAX = 2000,
	HISTORY_MIN = 2000,
	HISTORY_MAX = 20000,
	HISTORY_EDGE = 1000,
	BIG_ROWS = 1000000,
};

/* How long the rounds, and the growing history, may take on a slow disk. */
static const double rounds_s = 50, history_s = 30;

enum { KEPT_OPEN, OPEN_WRITE_CLOSE, SQLITE, ROCKS_PUT, APPEND_SYNC, OVERWRITE_SYNC, WRITE_ONLY, KINDS };

static const struct bench_kind *const kinds[KINDS] = {
	[KEPT_OPEN] = &bench_kept_open,     [OPEN_WRITE_CLOSE] = &bench_open_write_close,
	[SQLITE] = &bench_sqlite,           [ROCKS_PUT] = &bench_rocks_put,
	[APPEND_SYNC] = &bench_append_sync, [OVERWRITE_SYNC] = &bench_overwrite_sync,
	[WRITE_ONLY] = &bench_write_only,
};

struct runner {
	const struct bench_kind *kind;
	void *self;
	uint64_t done;
	double per_s[ROUNDS];
	double p50_us[ROUNDS];
	double p99_us[ROUNDS];
};

/* --- common ----------------------------------------------------------------------------------------- */

void bench_die_errno(const char *what)
{
	bench_die(what, strerror(errno));
}

void bench_die(const char *what, const char *why)
{
	fprintf(stderr, "bench: %s: %s\n", what, why);
	exit(1);
}

uint64_t bench_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

char *bench_path(const char *dir, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		bench_die_errno("a path");
	return path;
}

void bench_write(int fd, const void *data, size_t len, const char *to)
{
	ssize_t n = write(fd, data, len);

	if (n < 0)
		bench_die_errno(to);
	if ((size_t)n != len)
		bench_die(to, "a write was taken in part");
}

/* Digits that do not compress too well, the same in each run (the finalizer of MurmurHash3). */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
	x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53;
	return x ^ (x >> 33);
}

void bench_key(uint64_t i, char key[BENCH_KEY_LEN + 1])
{
	snprintf(key, BENCH_KEY_LEN + 1, "k%08" PRIu64, i % 100000000);
}

void bench_val(uint64_t i, char val[BENCH_VAL_LEN + 1])
{
	snprintf(val, BENCH_VAL_LEN + 1, "v%016" PRIx64 "%016" PRIx64 "%06" PRIx64, mix(3 * i + 1),
		 mix(3 * i + 2), mix(3 * i + 3) & 0xffffff);
}

size_t bench_transaction(uint64_t i, char text[BENCH_TEXT_MAX])
{
	char key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1];

	bench_key(i, key);
	bench_val(i, val);
	return (size_t)snprintf(text, BENCH_TEXT_MAX,
				"begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n%" PRIu64
				"\t1\t%s\t%s\ncommit\n",
				i, i + 1, i, key, val);
}

/* --- measuring -------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_quantile(double *values, size_t count, double q)
{
	qsort(values, count, sizeof *values, by_size);
	return values[(size_t)(q * (double)(count - 1) + 0.5)];
}

/* Do it `count` times; us[i] is what the i-th took. Returns the seconds of all. */
static double run(struct runner *r, size_t count, double *us)
{
	uint64_t start = bench_now_ns(), before = start;

	for (size_t i = 0; i < count; i++) {
		uint64_t after;

		r->kind->one(r->self, r->done++);
		after = bench_now_ns();
		us[i] = (double)(after - before) / 1e3;
		before = after;
	}
	return (double)(before - start) / 1e9;
}

double *bench_array(size_t count)
{
	double *a = calloc(count, sizeof *a);

	if (a == NULL)
		bench_die_errno("memory for measurements");
	return a;
}

static size_t clamp(double n, size_t least, size_t most)
{
	if (n < (double)least)
		return least;
	return n > (double)most ? most : (size_t)n;
}

/* All rounds of all; returns how many appends one round has. *kept_s: what one append of the first takes. */
static size_t run_rounds(const struct bench_place *place, struct runner runners[KINDS], double *kept_s)
{
	double *us = bench_array(APPENDS_MAX), one_of_each_s = 0;
	size_t count;

	for (int k = 0; k < KINDS; k++) {
		double s;

		runners[k] = (struct runner){.kind = kinds[k], .self = kinds[k]->open(place)};
		s = run(&runners[k], WARM_UP, us) / WARM_UP;
		one_of_each_s += s;
		if (k == KEPT_OPEN)
			*kept_s = s;
	}
	count = clamp(rounds_s / (ROUNDS * one_of_each_s), APPENDS_MIN, APPENDS_MAX);
	for (int round = 0; round < ROUNDS; round++) {
		fprintf(stderr, "bench: round %d of %d, %zu appends by each of %d\n", round + 1, ROUNDS,
			count, (int)KINDS);
		for (int i = 0; i < KINDS; i++) {
			struct runner *r = &runners[(i + round) % KINDS];

			r->per_s[round] = (double)count / run(r, count, us);
			r->p50_us[round] = bench_quantile(us, count, 0.5);
			r->p99_us[round] = bench_quantile(us, count, 0.99);
		}
	}
	for (int k = 0; k < KINDS; k++)
		runners[k].kind->close(runners[k].self);
	free(us);
	return count;
}

/* --- the report ------------------------------------------------------------------------------------- */

void bench_say(FILE *report, const char *format, ...)
{
	FILE *const to[] = {stdout, report};

	for (int i = 0; i < 2; i++) {
		va_list args;

		va_start(args, format);
		vfprintf(to[i], format, args);
		va_end(args);
	}
	fflush(stdout);
}

/* "median (least..most)" of the rounds. */
static char *spread(const double rounds[ROUNDS], int digits, char text[64])
{
	double sorted[ROUNDS];

	memcpy(sorted, rounds, sizeof sorted);
	bench_quantile(sorted, ROUNDS, 0.5);
	snprintf(text, 64, "%.*f (%.*f..%.*f)", digits, sorted[ROUNDS / 2], digits, sorted[0], digits,
		 sorted[ROUNDS - 1]);
	return text;
}

static void say_rounds(FILE *report, const struct runner runners[KINDS], size_t count)
{
	char per_s[64], p50[64], p99[64];

	bench_say(report,
		  "Durable appends of one row, one at a time, by one thread: %d rounds of %zu by each, in "
		  "turn.\n",
		  (int)ROUNDS, count);
	bench_say(report, "Median of the rounds (least..most).\n\n");
	bench_say(report, "| %-39s | %-22s | %-18s | %-20s |\n", "", "appends per second", "p50, us",
		  "p99, us");
	bench_say(report, "|:%.40s|%.23s:|%.19s:|%.21s:|\n", "----------------------------------------",
		  "-----------------------", "-------------------", "---------------------");
	for (int k = 0; k < KINDS; k++)
		bench_say(report, "| %-39s | %22s | %18s | %20s |\n", runners[k].kind->name,
			  spread(runners[k].per_s, 0, per_s), spread(runners[k].p50_us, 0, p50),
			  spread(runners[k].p99_us, 0, p99));
	bench_say(
		report,
		"\nSQLite writes its log over again after each checkpoint, RocksDB and the mount's store "
		"append "
		"to theirs:\n"
		"so the floor of the one is the overwritten block, that of the others the appended 200 B.\n");
}

static void say_ratio(FILE *report, const struct runner runners[KINDS], int of, int to)
{
	double ratio[ROUNDS];
	char text[64];

	for (int i = 0; i < ROUNDS; i++)
		ratio[i] = runners[of].per_s[i] / runners[to].per_s[i];
	bench_say(report, "| %-32s | %-37s | %18s |\n", runners[of].kind->name, runners[to].kind->name,
		  spread(ratio, 2, text));
}

static void say_ratios(FILE *report, const struct runner runners[KINDS])
{
	bench_say(report,
		  "\nAppends per second, one over the other, in the same round (over 1: the first is the "
		  "faster).\n\n");
	bench_say(report, "| %-32s | %-37s | %-18s |\n", "of", "over", "ratio");
	bench_say(report, "|:%.33s|:%.38s|%.19s:|\n", "---------------------------------",
		  "--------------------------------------", "-------------------");
	say_ratio(report, runners, KEPT_OPEN, SQLITE);
	say_ratio(report, runners, KEPT_OPEN, ROCKS_PUT);
	say_ratio(report, runners, KEPT_OPEN, APPEND_SYNC);
	say_ratio(report, runners, OPEN_WRITE_CLOSE, SQLITE);
}

/* One shard, and its appends from the first to the count-th. */
static void history(const struct bench_place *place, FILE *report, size_t count)
{
	struct runner r = {.kind = &bench_kept_open, .self = bench_kept_open.open(place)};
	double *us = bench_array(count), first, last, s;

	fprintf(stderr, "bench: %zu appends to one shard\n", count);
	s = run(&r, count, us);
	r.kind->close(r.self);
	first = bench_quantile(us, HISTORY_EDGE, 0.5);
	last = bench_quantile(us + count - HISTORY_EDGE, HISTORY_EDGE, 0.5);
	bench_say(report,
		  "\nDoes an append get slower with the history? %zu appends to one shard, descriptor kept "
		  "open, "
		  "in %.1f s:\n",
		  count, s);
	bench_say(report, "p50 of the first %d %.0f us, of the last %d %.0f us: last over first %.2f.\n",
		  (int)HISTORY_EDGE, first, (int)HISTORY_EDGE, last, last / first);
	free(us);
}

static void big(const struct bench_place *place, FILE *report)
{
	struct bench_big b;
	double mb;

	fprintf(stderr, "bench: a transaction of %d rows\n", (int)BIG_ROWS);
	bench_big_run(place, BIG_ROWS, &b);
	mb = (double)b.bytes / 1e6;
	bench_say(report,
		  "\nOne transaction of %" PRIu64
		  " rows (%.1f MB of text) through the mount, then its snapshot read.\n\n",
		  b.rows, mb);
	bench_say(report, "| %-26s | %9s | %8s |\n", "", "seconds", "MB/s");
	bench_say(report, "|:%.27s|%.10s:|%.9s:|\n", "---------------------------", "----------",
		  "---------");
	bench_say(report, "| %-26s | %9.2f | %8.0f |\n", "write and commit", b.commit_s, mb / b.commit_s);
	bench_say(report, "| %-26s | %9.3f | %8s |\n", "snapshot: the first byte", b.first_byte_s, "");
	bench_say(report, "| %-26s | %9.2f | %8.0f |\n", "snapshot: all of it", b.read_s, mb / b.read_s);
	bench_say(report,
		  "\nThe mount's peak of resident memory (VmHWM): %.0f MiB before that, %.0f MiB after the "
		  "commit, "
		  "%.0f MiB at the end.\n",
		  (double)b.before_kib / 1024, (double)b.committed_kib / 1024, (double)b.after_kib / 1024);
}

/* BENCH_ONLY names one part; unset: all. */
static bool wanted(const char *part)
{
	const char *only = getenv("BENCH_ONLY");

	return only == NULL || *only == '\0' || strcmp(only, part) == 0;
}

int main(int argc, char **argv)
{
	struct bench_place place;
	struct runner runners[KINDS];
	double kept_s = 0;
	size_t count;
	FILE *report;

	if (argc != 6) {
		fputs("usage: bench DIR MOUNT PID REPORT SHARDFS (tools/bench.sh prepares these)\n", stderr);
		return 2;
	}
	place = (struct bench_place){.dir = argv[1],
				     .mount = argv[2],
				     .pid = (pid_t)strtol(argv[3], NULL, 10),
				     .shardfs = argv[5]};
	report = fopen(argv[4], "ae");
	if (report == NULL)
		bench_die_errno(argv[4]);
	if (wanted("appends")) {
		count = run_rounds(&place, runners, &kept_s);
		say_rounds(report, runners, count);
		say_ratios(report, runners);
		history(&place, report, clamp(history_s / kept_s, HISTORY_MIN, HISTORY_MAX));
		big(&place, report);
	}
	if (wanted("readers"))
		bench_readers(&place, report);
	if (wanted("upkeep"))
		bench_upkeep(&place, report);
	if (ferror(report) != 0 || fclose(report) != 0)
		bench_die_errno(argv[4]);
	return 0;
}
