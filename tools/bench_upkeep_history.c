/*
 * bench_upkeep_history.c - shards with a long history: many single rows, and many versions.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_upkeep.h"

enum {
	EDGE = 1000,  /* appends at either end of the history */
	CONTROLS = 3, /* new shards beside the end of the history */
	LOOKS = 10,   /* at the state on the way */
	WARM_UP = 500,
	LIVE = 1000, /* keys of a shard with many versions, and versions of the other one */
	LOADS = 8,
	MORE = 16, /* versions between loads: over all of them, one interval between rollups */
};

static const double state_aim_kib = 128, p50_aim = 1.1, load_aim = 1.2;

/* --- many single rows ------------------------------------------------------------------------------- */

/*
 * The encoded size of the state without inline rows: the state tells it; or else a rollup that is asked for
 * is counted. NAN: neither is there.
 */
static double state_kib(const struct bench_own *o, const char *shard)
{
	static const char bytes_name[] = "shardfs_rollup_bytes_total", count_name[] = "shardfs_rollups_total";
	double bytes = bench_state_number(shard, "state_bytes"), count;

	if (isnan(bytes)) {
		bytes = bench_metric(o, bytes_name);
		count = bench_metric(o, count_name);
		if (isnan(bytes) || !bench_ctl(shard, "rollup"))
			return NAN;
		bytes = (bench_metric(o, bytes_name) - bytes) / (bench_metric(o, count_name) - count);
	}
	return (bytes - bench_state_number(shard, "inline_bytes")) / 1024;
}

/* us[i] is what the i-th took, of `count`; *largest: of the states on the way. */
static void append_rows(const struct bench_own *o, struct bench_writer *w, size_t count, double *us,
			double *largest_kib)
{
	size_t between = count / LOOKS + 1;

	*largest_kib = NAN;
	for (size_t i = 0; i < count; i++) {
		us[i] = bench_append_us(w);
		if (i % between == between - 1)
			*largest_kib = fmax(*largest_kib, state_kib(o, w->dir));
	}
}

/* A thousand to w and to a new shard, in turn; p50 of the first over that of the second. */
static double beside_new(const struct bench_own *o, struct bench_writer *w, double *p50)
{
	struct bench_writer fresh = bench_writer_new(&o->place);
	double *us[2] = {bench_array(EDGE), bench_array(EDGE)}, fresh_p50;

	bench_since_follows(fresh.dir);
	for (size_t i = 0; i < EDGE; i++) {
		us[0][i] = bench_append_us(w);
		us[1][i] = bench_append_us(&fresh);
	}
	*p50 = bench_quantile(us[0], EDGE, 0.5);
	fresh_p50 = bench_quantile(us[1], EDGE, 0.5);
	free(us[0]);
	free(us[1]);
	bench_writer_end(&fresh);
	return *p50 / fresh_p50;
}

void bench_single_rows(const struct bench_place *place, FILE *report, const struct bench_knobs *k)
{
	struct bench_own own = bench_own_new(place, "rows");
	size_t count =
		k->appends < (CONTROLS + 1UL) * EDGE ? EDGE : (size_t)k->appends - (size_t)CONTROLS * EDGE;
	double *us = bench_array(count), beside[CONTROLS], first, last = 0, largest_kib;
	struct bench_writer warm, w;

	bench_figures_begin(report, "%zu appends of one row to one shard, descriptor kept open",
			    count + (size_t)CONTROLS * EDGE);
	bench_own_start(&own);
	warm = bench_writer_new(&own.place);
	for (int i = 0; i < WARM_UP; i++)
		bench_append_us(&warm);
	bench_writer_end(&warm);
	w = bench_writer_new(&own.place);
	bench_since_follows(w.dir);
	append_rows(&own, &w, count, us, &largest_kib);
	for (int i = 0; i < CONTROLS; i++)
		beside[i] = beside_new(&own, &w, &last);
	largest_kib = fmax(largest_kib, state_kib(&own, w.dir));
	first = bench_quantile(us, EDGE, 0.5);
	bench_figure(report,
		     &(struct bench_figure){.what = "the state without inline rows, encoded",
					    .value = largest_kib,
					    .aim = state_aim_kib,
					    .digits = 1,
					    .unit = " KiB"},
		     "the largest of %d looks; at the end %.0f batches, %.0f inline bytes", LOOKS,
		     bench_state_number(w.dir, "batches"), bench_state_number(w.dir, "inline_bytes"));
	bench_figure(report,
		     &(struct bench_figure){.what = "p50 of the last thousands, over that of a new shard",
					    .value = bench_quantile(beside, CONTROLS, 0.5),
					    .aim = p50_aim,
					    .digits = 2,
					    .unit = ""},
		     "one to each in turn; median of %d thousands, each with another new shard", CONTROLS);
	bench_figure(report,
		     &(struct bench_figure){.what = "p50 of the last thousand, over that of the first",
					    .value = last / first,
					    .aim = p50_aim,
					    .digits = 2,
					    .unit = ""},
		     "%.0f us over %.0f us; in other moods of the machine", last, first);
	bench_figure_memory(report, &own, "appending");
	free(us);
	bench_writer_end(&w);
	bench_own_remove(&own);
}

/* --- many versions ---------------------------------------------------------------------------------- */

/* Each version overwrites one key of LIVE, so that the content stays as large; the first ones make them. */
static void add_versions(struct bench_writer *w, uint64_t count)
{
	struct bench_text t = bench_text_new(w->fd, w->dir);

	for (uint64_t i = 0; i < count; i++) {
		uint64_t time = w->upper++;

		bench_text_add(&t, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", time,
			       time + 1);
		if (time >= LIVE)
			bench_text_row(&t, time, -1, time % LIVE, time - LIVE);
		bench_text_row(&t, time, 1, time % LIVE, time);
		bench_text_add(&t, "commit\n");
	}
	bench_text_end(&t);
}

/* Reading upper and then snapshot of a shard that nobody has touched since the mount. */
static double load_ms(const char *shard)
{
	char *upper = bench_path(shard, "upper"), *snapshot = bench_path(shard, "snapshot");
	uint64_t start = bench_now_ns();
	double ms;

	bench_read_all(upper);
	bench_read_all(snapshot);
	ms = (double)(bench_now_ns() - start) / 1e6;
	free(upper);
	free(snapshot);
	return ms;
}

enum { LONG, SHORT, OTHER, SHARDS };

/* What both take after a start of the mount; a third shard is loaded before, for what only the first load
 * does. */
static void load_once(struct bench_own *o, struct bench_writer w[SHARDS], int round, double *ms[2])
{
	int first = round % 2 == 0 ? LONG : SHORT;

	for (int i = 0; i < SHARDS; i++)
		bench_writer_close(&w[i]);
	bench_own_stop(o);
	bench_own_start(o);
	load_ms(w[OTHER].dir);
	ms[first][round] = load_ms(w[first].dir);
	ms[1 - first][round] = load_ms(w[1 - first].dir);
	for (int i = 0; i < SHARDS; i++) {
		bench_writer_open(&w[i]);
		add_versions(&w[i], MORE);
	}
}

void bench_many_versions(const struct bench_place *place, FILE *report, const struct bench_knobs *k)
{
	struct bench_own own = bench_own_new(place, "versions");
	const uint64_t versions[SHARDS] = {k->versions, LIVE, LIVE};
	double *ms[2] = {bench_array(LOADS), bench_array(LOADS)}, took_s, p50[2], starts_ms[LOADS], bytes;
	struct bench_writer w[SHARDS];
	uint64_t start;

	bench_figures_begin(report, "A shard with %" PRIu64 " versions behind it, and one with %d",
			    k->versions, LIVE);
	bench_own_start(&own);
	start = bench_now_ns();
	for (int i = 0; i < SHARDS; i++) {
		w[i] = bench_writer_new(&own.place);
		bench_since_follows(w[i].dir);
		add_versions(&w[i], versions[i]);
	}
	took_s = (double)(bench_now_ns() - start) / 1e9;
	bench_own_at_rest(&own, k->rest_s);
	for (int i = 0; i < LOADS; i++) {
		load_once(&own, w, i, ms);
		starts_ms[i] = own.start_s * 1e3;
	}
	bytes = (double)bench_own_bytes(&own, NULL);
	for (int i = 0; i < 2; i++)
		p50[i] = bench_quantile(ms[i], LOADS, 0.5);
	bench_figure(
		report,
		&(struct bench_figure){.what = "first reading of upper and snapshot, over the short one's",
				       .value = p50[LONG] / p50[SHORT],
				       .aim = load_aim,
				       .digits = 2,
				       .unit = ""},
		"%.2f ms over %.2f ms (medians of %d starts, %d versions between them), at most %.2f and "
		"%.2f ms",
		p50[LONG], p50[SHORT], LOADS, MORE, ms[LONG][LOADS - 1], ms[SHORT][LOADS - 1]);
	bench_figure(report,
		     &(struct bench_figure){.what = "the mounting command",
					    .value = bench_quantile(starts_ms, LOADS, 0.5),
					    .aim = NAN,
					    .unit = " ms"},
		     "median of %d; the store takes %.1f MiB", LOADS, bytes / (1 << 20));
	bench_figure_memory(report, &own, "loading");
	bench_say(report, "\nMaking the versions took %.0f s. Each overwrites one of %d keys.\n", took_s,
		  LIVE);
	for (int i = 0; i < 2; i++)
		free(ms[i]);
	for (int i = 0; i < SHARDS; i++)
		bench_writer_end(&w[i]);
	bench_own_remove(&own);
}
