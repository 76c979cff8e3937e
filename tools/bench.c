/*
 * bench.c - the program: what all parts use, the sizes, and the order of the parts.
 *
 * In every part the kinds take turns, round by round: all of them see the same moods of the disk and of the
 * machine. Every round begins with another one, so none always follows the same.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench_report.h"

enum { FULL_HISTORY = 1000000 };

static const double memory_aim_mib = 256;

/* --- common ----------------------------------------------------------------------------------------- */

void bench_die_errno(const char *what)
{
	bench_die(what, strerror(errno));
}

void bench_die(const char *what, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "bench: %s: %s\n", what, why);
	exit(1);
}

uint64_t bench_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void bench_rest(long us)
{
	nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}

char *bench_path(const char *dir, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		bench_die_errno("a path");
	return path;
}

char *bench_new_path(const char *dir, const char *name)
{
	char *path = NULL;

	for (unsigned i = 0;; i++) {
		if (asprintf(&path, "%s/%s.%u", dir, name, i) < 0)
			bench_die_errno("a path");
		if (access(path, F_OK) != 0)
			return path;
		free(path);
	}
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

double *bench_array(size_t count)
{
	double *a = calloc(count, sizeof *a);

	if (a == NULL)
		bench_die_errno("memory for measurements");
	return a;
}

/* --- the run ---------------------------------------------------------------------------------------- */

static const char *setting(const char *variable)
{
	const char *text = getenv(variable);

	return text == NULL || *text == '\0' ? NULL : text;
}

static uint64_t size_of(const char *variable, uint64_t usual)
{
	const char *text = setting(variable);
	char *end;
	uint64_t n;

	if (text == NULL)
		return usual;
	n = strtoull(text, &end, 10);
	if (*end != '\0' || n == 0)
		bench_die(variable, "it is not a number above 0");
	return n;
}

static void set_sizes(struct bench_run *run)
{
	const char *lead = "\nNot of the usual size:";
	struct bench_sizes *s = &run->sizes;

#define BENCH_SIZE(name, variable, usual)                                                \
	s->name = size_of("BENCH_" variable, usual);                                     \
	if (s->name != (usual)) {                                                        \
		bench_say(run->report, "%s BENCH_%s=%" PRIu64, lead, variable, s->name); \
		lead = ",";                                                              \
	}
	BENCH_SIZES(BENCH_SIZE)
#undef BENCH_SIZE
	if (*lead == ',')
		bench_say(run->report, "; the figures say little about the targets.\n");
	if (s->rounds > BENCH_ROUNDS_MAX)
		bench_die("BENCH_ROUNDS", "too many rounds");
	if (run->full && setting("BENCH_HISTORY") == NULL)
		s->history = FULL_HISTORY;
}

static void memory(struct bench_run *run)
{
	double main_kib = (double)bench_memory_kib(run->place.pid, "VmHWM:"),
	       other_kib = (double)*run->place.peak_kib,
	       most = (main_kib > other_kib ? main_kib : other_kib) / 1024;

	bench_target(
		run,
		&(struct bench_target){.work = "memory of the mount over all of it (VmHWM)",
				       .value = bench_one(most),
				       .bound = memory_aim_mib,
				       .unit = " MiB"},
		"",
		"the mount of most parts %.0f MiB; the largest of those with a store of their own %.0f MiB",
		main_kib / 1024, other_kib / 1024);
}

static void all_parts(struct bench_run *run)
{
	static const struct {
		const char *parts[4];
		void (*measure)(struct bench_run *run);
	} sections[] = {
		{{"append", "open"}, bench_appends},
		{{"clients", "blind"}, bench_clients},
		{{"import", "read", "batch", "disk"}, bench_bulk},
		{{"asof"}, bench_as_of},
		{{"listen"}, bench_listen},
		{{"many"}, bench_many},
	};

	bench_floors(run);
	for (size_t s = 0; s < sizeof sections / sizeof *sections; s++) {
		bool wanted = false;

		for (int p = 0; p < 4 && sections[s].parts[p] != NULL; p++)
			wanted = wanted || bench_wanted(run, sections[s].parts[p], true);
		if (wanted)
			sections[s].measure(run);
	}
	if (bench_wanted(run, "readers", false))
		bench_readers(&run->place, run->report);
	memory(run);
	if (bench_wanted(run, "upkeep", false))
		bench_upkeep(&run->place, run->report);
}

int main(int argc, char **argv)
{
	uint64_t peak_kib = 0;
	struct bench_run run;

	if (argc != 6) {
		fputs("usage: bench DIR MOUNT PID OUT SHARDFS (tools/bench.sh prepares these)\n", stderr);
		return 2;
	}
	run = (struct bench_run){.place = {.dir = argv[1],
					   .mount = argv[2],
					   .pid = (pid_t)strtol(argv[3], NULL, 10),
					   .shardfs = argv[5],
					   .pg = setting("BENCH_PG"),
					   .etcd = setting("BENCH_ETCD"),
					   .peak_kib = &peak_kib},
				 .out = argv[4],
				 .only = setting("BENCH_ONLY"),
				 .full = setting("BENCH_FULL") != NULL};
	run.report = bench_data(&run, "details.md");
	run.table = bench_data(&run, "targets.md");
	set_sizes(&run);
	all_parts(&run);
	if (fclose(run.report) != 0 || fclose(run.table) != 0)
		bench_die_errno(run.out);
	return 0;
}
