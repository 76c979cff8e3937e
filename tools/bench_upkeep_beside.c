/*
 * bench_upkeep_beside.c - single appends while a large shard is compacted, to it and to another one.
 *
 * A cycle: a whole round that overwrites the large shard is staged, synced, and the mount has come to rest.
 * Then come appends without compaction. Then another thread commits the staged round, which costs next to
 * nothing by itself, and writes `compact`; appends go on until that returns. So all that differs is the
 * merging, whether it was the mount's own idea or ours. Appends go to both shards in turn, one after the
 * other without a pause. The ratio of p99 is taken in each cycle: the two sets of it saw the same mood of the
 * machine.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_upkeep.h"

enum {
	COUNT_MAX = 1 << 18, /* appends to a shard in one cycle */
	COUNT_MIN = 100,     /* fewer tell nothing of p99 */
};

static const double aim = 2;

enum { OTHER, SAME, SHARDS };
enum { QUIET, BUSY, PHASES };

struct series {
	double *us; /* of the cycle */
	size_t count;
	double *p50; /* by cycle; of those that count */
	double *p99;
	double longest;
	size_t all;
};

struct beside {
	const struct bench_own *own;
	const struct bench_knobs *knobs;
	const char *shard; /* the large one */
	struct bench_writer to[SHARDS];
	struct series series[SHARDS][PHASES];
	size_t cycles; /* that count */
	uint64_t appended;
};

/* --- the compaction --------------------------------------------------------------------------------- */

/* The round, and its rows, as a staged batch. */
static void stage(const struct beside *b, uint64_t round)
{
	const struct bench_knobs *k = b->knobs;
	char *path = bench_path(b->shard, "batches/round");
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct bench_text t = bench_text_new(fd, path);

	if (fd < 0)
		bench_die_errno(path);
	for (uint64_t i = 0; i < k->keys; i++) {
		bench_text_row(&t, 0, -1, i, (round - 1) * k->keys + i);
		bench_text_row(&t, 0, 1, i, round * k->keys + i);
	}
	bench_text_end(&t);
	if (fsync(fd) != 0 || close(fd) != 0)
		bench_die_errno(path);
	free(path);
}

struct compactor {
	const char *shard;
	atomic_bool done;
};

static void *compact(void *arg)
{
	static const char commit[] =
		"begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch round\ncommit\n";
	struct compactor *c = arg;
	struct bench_writer w = {.dir = strdup(c->shard)};

	if (w.dir == NULL)
		bench_die_errno("a path");
	bench_writer_open(&w);
	bench_write(w.fd, commit, strlen(commit), w.dir);
	bench_ctl(w.dir, "compact");
	bench_writer_end(&w);
	atomic_store(&c->done, true);
	return NULL;
}

/* --- the appends ------------------------------------------------------------------------------------ */

/* A row of its own at the upper, as it is; what it took. */
static double append_us(struct beside *b, const struct bench_writer *w)
{
	char text[BENCH_TEXT_MAX], val[BENCH_VAL_LEN + 1];
	uint64_t i = b->appended++, start;
	size_t len;

	bench_val(i, val);
	len = (size_t)snprintf(text, sizeof text,
			       "begin expected_upper=* new_upper=+1\n*\t1\tsingle%09" PRIu64 "\t%s\ncommit\n",
			       i, val);
	start = bench_now_ns();
	bench_write(w->fd, text, len, w->dir);
	return (double)(bench_now_ns() - start) / 1e3;
}

/* One to each. */
static void append_both(struct beside *b, int phase)
{
	for (int to = 0; to < SHARDS; to++) {
		struct series *s = &b->series[to][phase];
		double us = append_us(b, &b->to[to]);

		s->us[s->count++] = us;
		s->longest = us > s->longest ? us : s->longest;
	}
}

static void cycle(struct beside *b, uint64_t round)
{
	struct compactor c = {.shard = b->shard};
	pthread_t thread;

	for (int to = 0; to < SHARDS; to++)
		for (int phase = 0; phase < PHASES; phase++)
			b->series[to][phase].count = 0;
	stage(b, round);
	bench_own_at_rest(b->own, 1);
	for (uint64_t i = 0; i < b->knobs->samples && i < COUNT_MAX; i++)
		append_both(b, QUIET);
	if (pthread_create(&thread, NULL, compact, &c) != 0)
		bench_die("a thread", "it cannot be made");
	while (!atomic_load(&c.done) && b->series[SAME][BUSY].count < COUNT_MAX)
		append_both(b, BUSY);
	pthread_join(thread, NULL);
}

/* Take what the cycle gave into account. */
static void reckon(struct beside *b)
{
	if (b->series[SAME][BUSY].count < COUNT_MIN) {
		fprintf(stderr, "bench: a compaction left time for %zu appends only\n",
			b->series[SAME][BUSY].count);
		return;
	}
	for (int to = 0; to < SHARDS; to++)
		for (int phase = 0; phase < PHASES; phase++) {
			struct series *s = &b->series[to][phase];

			s->p50[b->cycles] = bench_quantile(s->us, s->count, 0.5);
			s->p99[b->cycles] = bench_quantile(s->us, s->count, 0.99);
			s->all += s->count;
		}
	fprintf(stderr,
		"bench: p99 beside %.0f, without %.0f us; the same shard %.0f, %.0f us; %zu appends\n",
		b->series[OTHER][BUSY].p99[b->cycles], b->series[OTHER][QUIET].p99[b->cycles],
		b->series[SAME][BUSY].p99[b->cycles], b->series[SAME][QUIET].p99[b->cycles],
		b->series[SAME][BUSY].count);
	b->cycles++;
}

/* --- figures ---------------------------------------------------------------------------------------- */

static double middle(double *by_cycle, size_t cycles)
{
	return bench_quantile(by_cycle, cycles, 0.5);
}

static void say(FILE *report, struct beside *b, int to, const char *why_not)
{
	struct series *quiet = &b->series[to][QUIET], *busy = &b->series[to][BUSY];
	double *ratio = bench_array(b->cycles + 1), p50;
	struct bench_figure f = {.what = to == SAME
						 ? "append's p99 beside compaction of its shard, over without"
						 : "append's p99 beside compaction of another, over without",
				 .aim = aim,
				 .digits = 2,
				 .unit = ""};

	for (size_t i = 0; i < b->cycles; i++)
		ratio[i] = busy->p99[i] / quiet->p99[i];
	if (b->cycles == 0) {
		bench_no_figure(report, &f, why_not);
	} else {
		f.value = middle(ratio, b->cycles);
		p50 = middle(busy->p50, b->cycles) / middle(quiet->p50, b->cycles);
		bench_figure(
			report, &f,
			"%.2f to %.2f; %.0f us over %.0f us (medians of %zu cycles, %zu and %zu appends); "
			"p50 %.2f; the longest %.1f ms, without %.1f ms",
			ratio[0], ratio[b->cycles - 1], middle(busy->p99, b->cycles),
			middle(quiet->p99, b->cycles), b->cycles, busy->all, quiet->all, p50,
			busy->longest / 1e3, quiet->longest / 1e3);
	}
	free(ratio);
}

void bench_beside(const struct bench_own *o, FILE *report, const struct bench_knobs *k, const char *shard,
		  uint64_t round)
{
	struct beside b = {.own = o, .knobs = k, .shard = shard};
	const char *why_not = "";

	b.to[OTHER] = bench_writer_new(&o->place);
	bench_since_follows(b.to[OTHER].dir);
	b.to[SAME].dir = strdup(shard);
	if (b.to[SAME].dir == NULL)
		bench_die_errno("a path");
	bench_writer_open(&b.to[SAME]);
	for (int to = 0; to < SHARDS; to++)
		for (int phase = 0; phase < PHASES; phase++)
			b.series[to][phase] = (struct series){.us = bench_array(COUNT_MAX),
							      .p50 = bench_array(k->cycles),
							      .p99 = bench_array(k->cycles)};
	if (bench_ctl(shard, "compact")) {
		why_not = "each compaction was over before it could be measured";
		for (uint64_t i = 0; i < k->cycles; i++) {
			cycle(&b, round + i);
			reckon(&b);
		}
	}
	say(report, &b, OTHER, why_not);
	say(report, &b, SAME, why_not);
	bench_figure_memory(report, o, "compacting");
	for (int to = 0; to < SHARDS; to++) {
		for (int phase = 0; phase < PHASES; phase++) {
			free(b.series[to][phase].us);
			free(b.series[to][phase].p50);
			free(b.series[to][phase].p99);
		}
		bench_writer_end(&b.to[to]);
	}
}
