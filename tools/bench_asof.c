/*
 * bench_asof.c - the collection as of the middle of its history.
 *
 * All keys are there from time 0 on; each later version overwrites some of them, a retraction and an
 * insertion each, so that in the end nearly all have been. Nobody lets go of the history. PostgreSQL has the
 * same updates in a table with an index on time, vacuumed and analyzed, and is asked for the same rows in the
 * same order: the sums by key and val of the updates up to that time.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_bulk.h"
#include "tools/bench_report.h"

static const double as_of_aim = 0.3;

struct history {
	uint64_t keys, versions, each; /* each: keys that a version overwrites */
	uint32_t *order;
	char *text;
	size_t len;
};

/* The k-th overwriting of all is of this key, for the g-th time. */
static void overwritten(const struct history *h, uint64_t k, uint64_t *key, uint64_t *g)
{
	*key = h->order[k % h->keys];
	*g = k / h->keys;
}

/* The rows of one version, into h->text. */
static void make_version(struct history *h, uint64_t time)
{
	uint64_t count = time == 0 ? h->keys : h->each, key, g;

	h->len = 0;
	for (uint64_t i = 0; i < count; i++) {
		if (time == 0) {
			h->len += bench_row_text(h->text + h->len, 0, 1, h->order[i], h->order[i]);
			continue;
		}
		overwritten(h, (time - 1) * h->each + i, &key, &g);
		h->len += bench_row_text(h->text + h->len, time, -1, key, key + g * h->keys);
		h->len += bench_row_text(h->text + h->len, time, 1, key, key + (g + 1) * h->keys);
	}
}

static void append_version(struct bench_writer *w, const struct history *h, uint64_t time)
{
	char line[80];

	bench_write(w->fd, line,
		    (size_t)snprintf(line, sizeof line,
				     "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", time,
				     time + 1),
		    w->dir);
	for (size_t at = 0; at < h->len; at += BENCH_PIECE)
		bench_write(w->fd, h->text + at, h->len - at < BENCH_PIECE ? h->len - at : BENCH_PIECE,
			    w->dir);
	bench_write(w->fd, "commit\n", strlen("commit\n"), w->dir);
}

static void fill(const struct bench_place *place, struct history *h, struct bench_writer *w,
		 struct bench_session *pg, unsigned collection)
{
	for (uint64_t time = 0; time < h->versions; time++) {
		make_version(h, time);
		append_version(w, h, time);
		if (pg != NULL)
			bench_pg_import(pg, collection, time, h->text, h->len);
	}
	bench_settle(place);
	if (pg == NULL)
		return;
	bench_pg_exec(pg, "CREATE INDEX ON updates_%u (time)", collection);
	bench_pg_exec(pg, "VACUUM (ANALYZE) updates_%u", collection);
}

struct answers {
	struct bench_series ours_s, first_ms, pg_s, pg_first_ms;
};

static void ask(struct bench_run *run, const char *file, struct bench_session *pg, unsigned collection,
		uint64_t time, struct answers *a)
{
	size_t room = run->sizes.keys * BENCH_TEXT_MAX;
	char *into[2] = {calloc(1, room), calloc(1, room)};
	struct bench_reading r, p;

	if (into[0] == NULL || into[1] == NULL)
		bench_die_errno("memory for reading");
	r = bench_read_into(file, into[0], room);
	if (pg != NULL) {
		p = bench_pg_read(pg, collection, time, into[1]);
		if (r.bytes != p.bytes || memcmp(into[0], into[1], r.bytes) != 0)
			bench_die(file, "PostgreSQL has another answer");
	}
	for (size_t round = 0; round < run->sizes.rounds; round++)
		for (size_t k = 0; k < 2; k++) {
			bench_rest(100000);
			if ((k + round) % 2 == 0) {
				r = bench_read_into(file, into[0], room);
				bench_add(&a->ours_s, r.all_s);
				bench_add(&a->first_ms, r.first_byte_s * 1e3);
			} else if (pg != NULL) {
				p = bench_pg_read(pg, collection, time, into[1]);
				bench_add(&a->pg_s, p.all_s);
				bench_add(&a->pg_first_ms, p.first_byte_s * 1e3);
			}
		}
	free(into[0]);
	free(into[1]);
}

static void say(struct bench_run *run, const struct history *h, const struct answers *a, const char *plan)
{
	static const int digits[] = {3, 1};
	const struct bench_floors *f = &run->floors;
	char floor[BENCH_SPREAD_MAX], work[160];

	bench_say(
		run->report,
		"\n## As of the middle of a history\n\n%" PRIu64 " keys and %" PRIu64
		" versions, each of which after the first overwrites %" PRIu64
		" keys; all of the history is kept. Asked for:\nthe rows as of version %" PRIu64
		", summed and sorted. Both have it in memory.\n\n| | all, s | first byte, ms |\n|:-|-:|-:|\n",
		h->keys, h->versions, h->each, h->versions / 2);
	bench_row(run, "mount, as_of", 2, (const struct bench_series *const[]){&a->ours_s, &a->first_ms},
		  digits);
	bench_row(run, "PostgreSQL, index on time", 2,
		  (const struct bench_series *const[]){&a->pg_s, &a->pg_first_ms}, digits);
	if (plan != NULL)
		bench_say(run->report, "\nPostgreSQL's plan: %s.\n", plan);
	snprintf(floor, sizeof floor, "of the text of the large transaction: cat %.0f ms, GNU sort %.0f ms",
		 bench_median(&f->cat_s) * 1e3, bench_median(&f->sort_s) * 1e3);
	snprintf(work, sizeof work,
		 "as_of in the middle of %" PRIu64 " versions, %" PRIu64
		 " keys: over the same query in PostgreSQL with an index on time",
		 h->versions, h->keys);
	bench_target(run,
		     &(struct bench_target){.work = work,
					    .value = bench_ratio(&a->ours_s, &a->pg_s),
					    .bound = as_of_aim,
					    .digits = 2},
		     floor, "ours %.3f s, first byte %.1f ms; PostgreSQL %.3f s", bench_median(&a->ours_s),
		     bench_median(&a->first_ms), bench_median(&a->pg_s));
}

void bench_as_of(struct bench_run *run)
{
	struct history h = {.keys = run->sizes.keys,
			    .versions = run->sizes.versions,
			    .each = (run->sizes.keys + run->sizes.versions - 1) / run->sizes.versions,
			    .order = bench_shuffled(run->sizes.keys)};
	struct bench_session *pg = bench_pg_there(&run->place) ? bench_pg_session(&run->place) : NULL;
	struct bench_writer w = bench_writer_new(&run->place);
	unsigned collection = pg != NULL ? bench_pg_collection(pg) : 0;
	uint64_t time = h.versions / 2;
	struct answers a = {0};
	char name[40], *file, *plan = NULL;

	fprintf(stderr, "bench: as of the middle of %" PRIu64 " versions\n", h.versions);
	h.text = malloc((h.keys + 2 * h.each) * BENCH_TEXT_MAX / 2);
	if (h.text == NULL)
		bench_die_errno("memory for versions");
	fill(&run->place, &h, &w, pg, collection);
	snprintf(name, sizeof name, "as_of/%" PRIu64, time);
	file = bench_path(w.dir, name);
	ask(run, file, pg, collection, time, &a);
	if (pg != NULL)
		plan = bench_pg_plan(pg, collection, time);
	say(run, &h, &a, plan);
	if (pg != NULL) {
		bench_pg_exec(pg, "DROP TABLE updates_%u", collection);
		bench_pg_end(pg);
	}
	bench_writer_end(&w);
	free(file);
	free(plan);
	free(h.text);
	free(h.order);
}
