/*
 * bench_readers.c - readers that wait in read(2): what they cost a writer, how soon they have what was
 * written, how soon they end; and the snapshot of a shard of many batches.
 *
 * Readers are threads of a process of their own, a crowd: each has a descriptor and sits in a blocking read.
 * They are ended as readers are in life, by SIGKILL. A round without a crowd comes before each with one, so
 * that both see the same mood of the machine.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench.h"

enum {
	READERS = 2000,
	STACK = 64 << 10,
	ROUNDS = 5,
	APPENDS = 1000,
	APPENDS_WATCHED = 50, /* when each wakes all of the readers */
	KILLS = 100,
	DELIVERIES = 5000,
	LISTENERS_MAX = 10,
	BATCHES = 1000,
	BATCH_ROWS = 1000,
	SNAPSHOTS = 5,
};

static const char far_away[] = "wait/9999999999";

/* --- a crowd ---------------------------------------------------------------------------------------- */

/* Shared with the crowd's process. */
struct board {
	_Atomic(uint64_t) seen; /* times that were passed, by all readers together */
	uint64_t first;         /* the time whose arrivals are at[0] */
	uint64_t at_ns[LISTENERS_MAX][DELIVERIES];
};

struct crowd {
	pid_t pid;
	size_t count;
	struct board *board;
};

struct reader {
	const char *path;
	struct board *board;
	size_t number;
};

/* What a listener reads, when it has it: `begin lower=<a> upper=<b>`, and more of the kind. */
static void note(const struct reader *r, const char *text)
{
	uint64_t now = bench_now_ns(), lower, upper, i;

	for (const char *p = text; (p = strstr(p, "begin ")) != NULL; p++) {
		if (sscanf(p, "begin lower=%" SCNu64 " upper=%" SCNu64, &lower, &upper) != 2)
			continue;
		for (i = lower - r->board->first; i < upper - r->board->first; i++)
			if (r->number < LISTENERS_MAX && i < DELIVERIES)
				r->board->at_ns[r->number][i] = now;
		atomic_fetch_add(&r->board->seen, upper - lower);
	}
}

static void *read_on(void *arg)
{
	const struct reader *r = arg;
	char text[4096];
	int fd = open(r->path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		bench_die_errno(r->path);
	while ((n = read(fd, text, sizeof text - 1)) > 0) {
		text[n] = '\0';
		note(r, text);
	}
	bench_die(r->path, n == 0 ? "it ended" : strerror(errno));
}

_Noreturn static void crowd_main(const char *path, size_t count, struct board *board)
{
	pthread_attr_t small;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	for (size_t i = 0; i < count; i++) {
		struct reader *r = malloc(sizeof *r);

		if (r == NULL)
			bench_die_errno("a reader");
		*r = (struct reader){.path = path, .board = board, .number = i};
		errno = pthread_create(&thread, &small, read_on, r);
		if (errno != 0)
			bench_die_errno("a thread");
	}
	for (;;)
		pause();
}

/* How many threads of a process are in read(2). */
static size_t in_read(pid_t pid)
{
	char path[300], text[64];
	size_t count = 0;
	struct dirent *e;
	DIR *tasks;

	snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
	tasks = opendir(path);
	if (tasks == NULL)
		bench_die_errno(path);
	while ((e = readdir(tasks)) != NULL) {
		FILE *f;

		snprintf(path, sizeof path, "/proc/%ld/task/%s/syscall", (long)pid, e->d_name);
		f = e->d_name[0] != '.' ? fopen(path, "re") : NULL;
		count += f != NULL && fgets(text, sizeof text, f) != NULL &&
			 strtol(text, NULL, 10) == SYS_read && text[0] != 'r';
		if (f != NULL)
			fclose(f);
	}
	closedir(tasks);
	return count;
}

/* `count` readers of the shard's file `name`, when all of them wait. */
static struct crowd crowd_new(const char *dir, const char *name, size_t count, uint64_t upper)
{
	struct crowd c = {.count = count};
	char *path = bench_path(dir, name);

	c.board = mmap(NULL, sizeof *c.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c.board == MAP_FAILED)
		bench_die_errno("memory for arrivals");
	c.board->first = upper;
	fflush(NULL);
	c.pid = fork();
	if (c.pid < 0)
		bench_die_errno("fork");
	if (c.pid == 0)
		crowd_main(path, count, c.board);
	for (int tries = 0; in_read(c.pid) < count; tries++) {
		if (tries == 1000)
			bench_die(path, "not all came to wait");
		bench_rest(20000);
	}
	bench_rest(100000); /* the last one's request is on its way */
	free(path);
	return c;
}

static struct crowd listeners_new(const struct bench_writer *w, size_t count)
{
	char name[40];

	snprintf(name, sizeof name, "listen/%" PRIu64, w->upper);
	return crowd_new(w->dir, name, count, w->upper);
}

/* Returns the milliseconds it took them to be gone. */
static double crowd_end(struct crowd *c)
{
	uint64_t start = bench_now_ns();

	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	munmap(c->board, sizeof *c->board);
	return (double)(bench_now_ns() - start) / 1e6;
}

/* Wait until each of them has seen the times below the upper. */
static void crowd_wait(const struct crowd *c, uint64_t upper)
{
	uint64_t start = bench_now_ns();

	while (atomic_load(&c->board->seen) < (upper - c->board->first) * c->count) {
		if (bench_now_ns() - start > 60000000000)
			bench_die("listeners", "not all have what was written");
		bench_rest(50);
	}
}

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
static void some_appends(struct bench_writer *w, size_t count, const struct crowd *listeners,
			 struct cost *cost, int with, int round)
{
	double *us = bench_array(count), *all_ms = bench_array(count);

	for (size_t i = 0; i < count; i++) {
		uint64_t start = bench_now_ns();

		us[i] = bench_append_us(w);
		if (listeners == NULL)
			continue;
		crowd_wait(listeners, w->upper);
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
	struct crowd c;

	bench_append_us(&w);
	bench_append_us(&other);
	some_appends(&w, APPENDS, NULL, cost, false, round);
	if (where == FAR_AWAY)
		c = crowd_new(w.dir, far_away, readers, 0);
	else
		c = listeners_new(same ? &w : &other, readers);
	bench_settle(place);
	some_appends(&w, same ? APPENDS_WATCHED : APPENDS, same ? &c : NULL, cost, true, round);
	cost->ratio[round] = cost->p99_us[true][round] / cost->p99_us[false][round];
	cost->end_ms[round] = crowd_end(&c);
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
	struct crowd crowd = {0};

	fprintf(stderr, "bench: %d kills of a reader, beside %zu others\n", (int)KILLS, others);
	bench_append_us(&w);
	if (others != 0)
		crowd = crowd_new(w.dir, far_away, others, 0);
	bench_settle(place);
	for (size_t i = 0; i < KILLS; i++) {
		struct crowd one = crowd_new(w.dir, far_away, 1, 0);

		ms[i] = crowd_end(&one);
	}
	p50 = bench_quantile(ms, KILLS, 0.5);
	p99 = bench_quantile(ms, KILLS, 0.99);
	bench_say(report,
		  "SIGKILL of a reader that waits, beside %zu others: gone after %.2f ms (p50), %.2f ms (p99 "
		  "of %d).\n",
		  others, p50, p99, (int)KILLS);
	if (others != 0)
		crowd_end(&crowd);
	bench_settle(place);
	bench_writer_end(&w);
	free(ms);
}

/* --- from a write to its listeners ------------------------------------------------------------------ */

static void deliveries(const struct bench_place *place, FILE *report, size_t listeners)
{
	struct bench_writer w = bench_writer_new(place);
	double *commit = bench_array(DELIVERIES);
	double *last = bench_array(DELIVERIES);
	double *each = bench_array(DELIVERIES * listeners);
	struct crowd c;

	fprintf(stderr, "bench: %d appends to %zu listeners\n", (int)DELIVERIES, listeners);
	bench_append_us(&w);
	c = listeners_new(&w, listeners);
	for (size_t i = 0; i < DELIVERIES; i++) {
		uint64_t done;

		commit[i] = bench_append_us(&w);
		done = bench_now_ns();
		crowd_wait(&c, w.upper);
		for (size_t k = 0; k < listeners; k++) {
			double late = (double)(int64_t)(c.board->at_ns[k][i] - done) / 1e3;

			each[i * listeners + k] = late;
			last[i] = k == 0 || late > last[i] ? late : last[i];
		}
		bench_rest(200); /* all are back in their reads */
	}
	bench_say(report, "| %9zu | %8.0f | %8.0f | %8.0f | %8.0f | %8.0f | %8.0f |\n", listeners,
		  bench_quantile(commit, DELIVERIES, 0.5), bench_quantile(commit, DELIVERIES, 0.99),
		  bench_quantile(each, DELIVERIES * listeners, 0.5),
		  bench_quantile(each, DELIVERIES * listeners, 0.99), bench_quantile(last, DELIVERIES, 0.5),
		  bench_quantile(last, DELIVERIES, 0.99));
	crowd_end(&c);
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
		  (int)DELIVERIES);
	bench_say(report, "| %9s | %8s | %8s | %8s | %8s | %8s | %8s |\n", "listeners", "append50",
		  "append99", "each p50", "each p99", "last p50", "last p99");
	bench_say(report,
		  "|----------:|---------:|---------:|---------:|---------:|---------:|---------:|\n");
	deliveries(place, report, 1);
	deliveries(place, report, LISTENERS_MAX);
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
