/*
 * bench_upkeep_space.c - a shard whose keys are overwritten again and again while its since follows: what is
 * left of that on disk, what it took to get there, and what reading costs, beside a store with the final
 * content alone.
 *
 * The final content is written as of the same time as the last overwrite, so that both snapshots are the same
 * bytes, which is checked too. Each transaction has its keys from all over, so that every batch overlaps
 * every other; they are in order, which the store with the final content gains most from.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_upkeep.h"

enum { PIECE = 1 << 20 };

static const double space_aim = 1.5, reading_aim = 1.2, mib = 1 << 20;

static const char *const counters[] = {"shardfs_append_bytes_total", "shardfs_fold_bytes_total",
				       "shardfs_compaction_out_bytes_total", "shardfs_append_stalls_total",
				       "shardfs_compactions_total"};
enum { APPEND, FOLD, MERGE, STALLS, MERGES, COUNTERS };

/* What a mount has done so far. */
struct work {
	double counted[COUNTERS];
	double written; /* bytes, by the kernel's account */
};

static struct work work_so_far(const struct bench_own *o)
{
	struct work w = {.written = (double)bench_own_written(o)};

	for (int i = 0; i < COUNTERS; i++)
		w.counted[i] = bench_metric(o, counters[i]);
	return w;
}

static struct work work_since(const struct bench_own *o, const struct work *before)
{
	struct work w = work_so_far(o);

	w.written -= before->written;
	for (int i = 0; i < COUNTERS; i++)
		w.counted[i] -= before->counted[i];
	return w;
}

/* The one of `cuts` transactions of a round, which has every cuts-th key. */
static void overwrite(struct bench_writer *w, struct bench_text *t, const struct bench_knobs *k,
		      uint64_t cuts, uint64_t round, uint64_t cut)
{
	uint64_t time = w->upper++;

	bench_text_add(t, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", time, time + 1);
	for (uint64_t i = cut; i < k->keys; i += cuts) {
		if (round > 0)
			bench_text_row(t, time, -1, i, (round - 1) * k->keys + i);
		bench_text_row(t, time, 1, i, round * k->keys + i);
	}
	bench_text_add(t, "commit\n");
	bench_text_flush(t);
}

static void overwrite_all(struct bench_writer *w, const struct bench_knobs *k, uint64_t cuts)
{
	struct bench_text t = bench_text_new(w->fd, w->dir);

	for (uint64_t round = 0; round < k->rounds; round++)
		for (uint64_t cut = 0; cut < cuts; cut++)
			overwrite(w, &t, k, cuts, round, cut);
	bench_text_end(&t);
}

/* What is there after the last round, by one transaction. */
static void write_once(struct bench_writer *w, const struct bench_knobs *k, uint64_t upper)
{
	struct bench_text t = bench_text_new(w->fd, w->dir);

	bench_text_add(&t, "begin expected_upper=0 new_upper=%" PRIu64 "\n", upper);
	for (uint64_t i = 0; i < k->keys; i++)
		bench_text_row(&t, upper - 1, 1, i, (k->rounds - 1) * k->keys + i);
	bench_text_add(&t, "commit\n");
	bench_text_end(&t);
}

/* As many bytes as there are up to PIECE. */
static size_t read_piece(int fd, char *piece, const char *path)
{
	size_t len = 0;
	ssize_t n;

	while (len < PIECE && (n = read(fd, piece + len, PIECE - len)) != 0) {
		if (n < 0)
			bench_die_errno(path);
		len += (size_t)n;
	}
	return len;
}

static void must_be_same(char *const paths[2])
{
	char *pieces[2] = {malloc(PIECE), malloc(PIECE)};
	size_t len[2] = {1, 1};
	int fds[2];

	for (int i = 0; i < 2; i++) {
		fds[i] = open(paths[i], O_RDONLY | O_CLOEXEC);
		if (fds[i] < 0 || pieces[i] == NULL)
			bench_die_errno(paths[i]);
	}
	while (len[0] != 0) {
		for (int i = 0; i < 2; i++)
			len[i] = read_piece(fds[i], pieces[i], paths[i]);
		if (len[0] != len[1] || memcmp(pieces[0], pieces[1], len[0]) != 0)
			bench_die(paths[0], "it is not what the last round wrote");
	}
	for (int i = 0; i < 2; i++) {
		close(fds[i]);
		free(pieces[i]);
	}
}

/* --- figures ---------------------------------------------------------------------------------------- */

/* What a store takes. */
struct taken {
	double all;
	double blobs; /* of it: RocksDB keeps room for its log as long as it is open */
};

static struct taken taken(const struct bench_own *o)
{
	return (struct taken){.all = (double)bench_own_bytes(o, NULL),
			      .blobs = (double)bench_own_bytes(o, "blobs")};
}

static void say_space(FILE *report, const char *what, double aim, struct taken overwritten, struct taken once)
{
	bench_figure(report,
		     &(struct bench_figure){.what = what,
					    .value = overwritten.all / once.all,
					    .aim = aim,
					    .digits = 2,
					    .unit = ""},
		     "%.1f MiB over %.1f MiB; the blobs alone %.2f, %.1f MiB over %.1f MiB",
		     overwritten.all / mib, once.all / mib, overwritten.blobs / once.blobs,
		     overwritten.blobs / mib, once.blobs / mib);
}

static void say_work(FILE *report, const struct work *w, uint64_t appends)
{
	const double *c = w->counted, aim = log2((double)appends) + 2;

	bench_figure(report,
		     &(struct bench_figure){.what = "write amplification, as counted",
					    .value = (c[APPEND] + c[FOLD] + c[MERGE]) / c[APPEND],
					    .aim = aim,
					    .digits = 2,
					    .unit = ""},
		     "appended %.0f MiB, folded %.1f MiB, merged %.0f MiB by %.0f merges", c[APPEND] / mib,
		     c[FOLD] / mib, c[MERGE] / mib, c[MERGES]);
	bench_figure(report,
		     &(struct bench_figure){.what = "write amplification, by the kernel's account",
					    .value = w->written / c[APPEND],
					    .aim = aim,
					    .digits = 2,
					    .unit = ""},
		     "the process wrote %.0f MiB, its logs and tables included", w->written / mib);
	bench_figure(report,
		     &(struct bench_figure){.what = "appends that waited for a merge",
					    .value = c[STALLS],
					    .aim = NAN,
					    .unit = ""},
		     "of %" PRIu64, appends);
}

/* Both in turn, the first of each time another one. */
static void say_reading(FILE *report, char *const paths[2], uint64_t reads)
{
	double *all[2] = {bench_array(reads), bench_array(reads)}, *first = bench_array(reads), p50[2];

	for (uint64_t i = 0; i < 2 * reads; i++) {
		uint64_t which = (i + i / 2) % 2;
		struct bench_reading r = bench_read_all(paths[which]);

		all[which][i / 2] = r.all_s;
		if (which == 0)
			first[i / 2] = r.first_byte_s;
	}
	for (int i = 0; i < 2; i++)
		p50[i] = bench_quantile(all[i], reads, 0.5);
	bench_figure(report,
		     &(struct bench_figure){.what = "reading the snapshot, over that of the fresh store",
					    .value = p50[0] / p50[1],
					    .aim = reading_aim,
					    .digits = 2,
					    .unit = ""},
		     "%.0f ms over %.0f ms (medians of %" PRIu64 "), its first byte after %.1f ms",
		     p50[0] * 1e3, p50[1] * 1e3, reads, bench_quantile(first, reads, 0.5) * 1e3);
	free(all[0]);
	free(all[1]);
	free(first);
}

/* What is left to give back when all is asked for; only in a mount that has ctl. */
static void say_asked(FILE *report, const struct bench_own *o, const char *shard, struct taken once,
		      uint64_t rest_s)
{
	static const char what[] = "the same after `compact` and `gc` were asked for";

	if (!bench_ctl(shard, "compact") || !bench_ctl(shard, "gc")) {
		bench_no_figure(report, &(struct bench_figure){.what = what, .aim = NAN}, "");
		return;
	}
	bench_own_at_rest(o, rest_s);
	say_space(report, what, NAN, taken(o), once);
}

enum { OVERWRITTEN, ONCE, STORES };

/* Write all, and let it come to rest; `work` is what that took. */
static void write_both(struct bench_own own[STORES], struct bench_writer w[STORES],
		       const struct bench_knobs *k, uint64_t cuts, struct work *work, FILE *report)
{
	const struct work before = work_so_far(&own[OVERWRITTEN]);
	uint64_t start = bench_now_ns();
	double write_s, rest_s;

	overwrite_all(&w[OVERWRITTEN], k, cuts);
	write_s = (double)(bench_now_ns() - start) / 1e9;
	rest_s = bench_own_at_rest(&own[OVERWRITTEN], k->rest_s);
	*work = work_since(&own[OVERWRITTEN], &before);
	write_once(&w[ONCE], k, k->rounds * cuts);
	bench_own_at_rest(&own[ONCE], k->rest_s);
	bench_figures_begin(report,
			    "%" PRIu64 " keys overwritten %" PRIu64 " times in %" PRIu64
			    " transactions: written in %.1f s, at rest %.1f s after that",
			    k->keys, k->rounds, k->rounds * cuts, write_s, rest_s);
}

void bench_overwritten(const struct bench_place *place, FILE *report, const struct bench_knobs *k,
		       uint64_t cuts)
{
	struct bench_own own[STORES] = {bench_own_new(place, "overwritten"), bench_own_new(place, "once")};
	struct taken at_rest[STORES], stopped[STORES];
	struct bench_writer w[STORES];
	char *snapshots[STORES];
	struct work work;

	fprintf(stderr, "bench: overwriting, %" PRIu64 " transactions\n", k->rounds * cuts);
	for (int i = 0; i < STORES; i++) {
		bench_own_start(&own[i]);
		w[i] = bench_writer_new(&own[i].place);
		bench_since_follows(w[i].dir);
		snapshots[i] = bench_path(w[i].dir, "snapshot");
	}
	write_both(own, w, k, cuts, &work, report);
	for (int i = 0; i < STORES; i++)
		at_rest[i] = taken(&own[i]);
	say_space(report, "on disk at rest, over what was written once", space_aim, at_rest[OVERWRITTEN],
		  at_rest[ONCE]);
	say_work(report, &work, k->rounds * cuts);
	must_be_same(snapshots);
	say_reading(report, snapshots, k->reads);
	bench_figure_memory(report, &own[OVERWRITTEN], "writing and reading");
	say_asked(report, &own[OVERWRITTEN], w[OVERWRITTEN].dir, at_rest[ONCE], k->rest_s);
	for (int i = 0; i < STORES; i++) {
		bench_writer_close(&w[i]);
		bench_own_stop(&own[i]);
		stopped[i] = taken(&own[i]);
	}
	say_space(report, "on disk when unmounted", space_aim, stopped[OVERWRITTEN], stopped[ONCE]);
	bench_own_start(&own[OVERWRITTEN]);
	bench_beside(&own[OVERWRITTEN], report, k, w[OVERWRITTEN].dir, k->rounds);
	for (int i = 0; i < STORES; i++) {
		free(snapshots[i]);
		bench_writer_end(&w[i]);
		bench_own_remove(&own[i]);
	}
}
