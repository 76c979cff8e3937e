/*
 * bench_clients.c - many clients at once: each with a shard of its own, and all with blind appends to one
 * shard.
 *
 * A client is a thread with a self of its own (a descriptor, a connection). In a turn so many of them work
 * until the time is up; what counts is all they did, over the time until the last was done.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tools/bench_rounds.h"

enum { CLIENTS = 16, STEPS = 3, WARM_UP = 50, SAMPLES = 1 << 16 };

static const size_t steps[STEPS] = {1, 4, CLIENTS};

static const double clients_aim = 1.2, blind_aim = 3;

struct client {
	const struct bench_kind *kind;
	void *self;
	uint64_t done;
	atomic_bool *go;
	uint64_t ns; /* how long to work */
	uint64_t count;
	double *us;
	size_t samples;
};

struct group {
	const struct bench_kind *kind;
	struct client clients[CLIENTS]; /* self NULL: the kind is not there */
	struct bench_series per_s[STEPS], p99_us[STEPS];
};

static void *work(void *arg)
{
	struct client *c = arg;
	uint64_t start, before, now;

	while (!atomic_load_explicit(c->go, memory_order_acquire))
		bench_rest(100);
	start = before = bench_now_ns();
	c->count = 0;
	c->samples = 0;
	do {
		c->kind->one(c->self, c->done++);
		now = bench_now_ns();
		if (c->samples < SAMPLES)
			c->us[c->samples++] = (double)(now - before) / 1e3;
		before = now;
		c->count++;
	} while (now - start < c->ns);
	return NULL;
}

static double p99_of(const struct client *clients, size_t count)
{
	size_t samples = 0;
	double *us, p99;

	for (size_t i = 0; i < count; i++)
		samples += clients[i].samples;
	us = bench_array(samples);
	samples = 0;
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < clients[i].samples; k++)
			us[samples++] = clients[i].us[k];
	p99 = bench_quantile(us, samples, 0.99);
	free(us);
	return p99;
}

/* So many of them, for a time. Returns what they did in a second. */
static double turn(struct group *g, size_t count, uint64_t ns)
{
	pthread_t threads[CLIENTS];
	atomic_bool go = false;
	uint64_t start, all = 0;
	double took_s;

	for (size_t i = 0; i < count; i++) {
		g->clients[i].go = &go;
		g->clients[i].ns = ns;
		errno = pthread_create(&threads[i], NULL, work, &g->clients[i]);
		if (errno != 0)
			bench_die_errno("a thread");
	}
	bench_between();
	start = bench_now_ns();
	atomic_store_explicit(&go, true, memory_order_release);
	for (size_t i = 0; i < count; i++) {
		pthread_join(threads[i], NULL);
		all += g->clients[i].count;
	}
	took_s = (double)(bench_now_ns() - start) / 1e9;
	return (double)all / took_s;
}

static void group_open(struct bench_run *run, struct group *g)
{
	void *first = NULL;

	if (g->kind->there != NULL && !g->kind->there(&run->place))
		return;
	for (size_t i = 0; i < CLIENTS; i++) {
		struct client *c = &g->clients[i];

		c->kind = g->kind;
		c->self = g->kind->open(&run->place, first);
		c->us = bench_array(SAMPLES);
		first = g->clients[0].self;
		for (int k = 0; k < WARM_UP; k++)
			g->kind->one(c->self, c->done++);
	}
}

static void group_close(struct group *g)
{
	if (g->clients[0].self == NULL)
		return;
	for (size_t i = CLIENTS; i-- > 0;) {
		g->kind->close(g->clients[i].self);
		free(g->clients[i].us);
	}
}

static void all_turns(struct bench_run *run, struct group *groups, size_t kinds)
{
	uint64_t ns = run->sizes.turn_ms * 1000000;

	for (size_t k = 0; k < kinds; k++)
		group_open(run, &groups[k]);
	for (size_t round = 0; round < run->sizes.rounds; round++)
		for (size_t s = 0; s < STEPS; s++)
			for (size_t k = 0; k < kinds; k++) {
				struct group *g = &groups[(k + round) % kinds];

				if (g->clients[0].self == NULL)
					continue;
				bench_add(&g->per_s[s], turn(g, steps[s], ns));
				bench_add(&g->p99_us[s], p99_of(g->clients, steps[s]));
			}
	for (size_t k = 0; k < kinds; k++)
		group_close(&groups[k]);
}

static void draw(const struct bench_run *run, const struct group *groups, size_t kinds, const char *name)
{
	FILE *f = bench_data(run, name);
	const char *lead = "";

	for (size_t k = 0; k < kinds; k++) {
		const struct group *g = &groups[k];

		if (g->per_s[0].count == 0)
			continue;
		fprintf(f, "%s\"%s\"\n", lead, g->kind->tag);
		lead = "\n\n";
		for (size_t s = 0; s < STEPS; s++) {
			struct bench_series in_order = g->per_s[s];
			double least = bench_quantile(in_order.of, in_order.count, 0),
			       most = bench_quantile(in_order.of, in_order.count, 1);

			fprintf(f, "%zu %.1f %.1f %.1f\n", steps[s], bench_median(&g->per_s[s]), least, most);
		}
	}
	fclose(f);
}

static void say(struct bench_run *run, const struct group *groups, size_t kinds)
{
	static const int digits[] = {0, 0, 0, 0};

	bench_say(run->report, "| | 1 client, per second | 4 clients | 16 clients | p99 with 16, µs |\n"
			       "|:-|-:|-:|-:|-:|\n");
	for (size_t k = 0; k < kinds; k++) {
		const struct group *g = &groups[k];
		const struct bench_series *const figures[] = {&g->per_s[0], &g->per_s[1], &g->per_s[2],
							      &g->p99_us[2]};

		bench_row(run, g->kind->name, 4, figures, digits);
	}
}

static char *sync_floor(const struct bench_run *run, char text[BENCH_SPREAD_MAX])
{
	snprintf(text, BENCH_SPREAD_MAX, "fdatasync one after the other: %.0f/s (overwrite), %.0f/s (append)",
		 1e6 / bench_median(&run->floors.overwrite_us), 1e6 / bench_median(&run->floors.append_us));
	return text;
}

/* --- a shard each ----------------------------------------------------------------------------------- */

static void own_shards(struct bench_run *run)
{
	enum { OURS, PG, ETCD, ROCKS, SQLITE, FILES, KINDS };
	static const struct bench_kind *const kinds[KINDS] = {
		[OURS] = &bench_kept_open,  [PG] = &bench_pg,         [ETCD] = &bench_etcd,
		[ROCKS] = &bench_rocks_put, [SQLITE] = &bench_sqlite, [FILES] = &bench_file_flock,
	};
	struct group *groups = calloc(KINDS, sizeof *groups);
	const struct bench_series *all[KINDS];
	char text[BENCH_SPREAD_MAX];

	if (groups == NULL)
		bench_die_errno("memory for clients");
	fprintf(stderr, "bench: %d clients, each with its shard\n", (int)CLIENTS);
	for (int k = 0; k < KINDS; k++) {
		groups[k].kind = kinds[k];
		all[k] = &groups[k].per_s[STEPS - 1];
	}
	all_turns(run, groups, KINDS);
	bench_say(run->report, "\n## Many clients, a shard each\n\nDurable compare-and-appends of one row; "
			       "each client is a thread with a "
			       "descriptor, connection or database of its\nown. SQLite: a database for each "
			       "client, since one takes one "
			       "writer at a time. RocksDB: one store for all.\n\n");
	say(run, groups, KINDS);
	bench_target(run,
		     &(struct bench_target){
			     .work = "16 clients on 16 shards, durable: over PostgreSQL with 16 clients",
			     .value = bench_ratio(all[OURS], all[PG]),
			     .sense = BENCH_AT_LEAST,
			     .bound = clients_aim,
			     .digits = 2},
		     sync_floor(run, text),
		     "per second: ours %.0f, PostgreSQL %.0f, etcd %.0f, RocksDB %.0f, 16 SQLite databases "
		     "%.0f, 16 files %.0f",
		     bench_median(all[OURS]), bench_median(all[PG]), bench_median(all[ETCD]),
		     bench_median(all[ROCKS]), bench_median(all[SQLITE]), bench_median(all[FILES]));
	draw(run, groups, KINDS, "clients.dat");
	free(groups);
}

/* --- one shard for all ------------------------------------------------------------------------------ */

static void one_shard(struct bench_run *run)
{
	enum { OURS, PG, KINDS };
	struct group *groups = calloc(KINDS, sizeof *groups);
	char text[BENCH_SPREAD_MAX];

	if (groups == NULL)
		bench_die_errno("memory for clients");
	fprintf(stderr, "bench: %d clients, one shard for all\n", (int)CLIENTS);
	groups[OURS].kind = &bench_blind;
	groups[PG].kind = &bench_pg_blind;
	all_turns(run, groups, KINDS);
	bench_say(
		run->report,
		"\n## Many clients, one shard\n\nBlind appends of one row: at whatever upper the shard has. "
		"Each client has a descriptor of its own.\n\n");
	say(run, groups, KINDS);
	bench_target(run,
		     &(struct bench_target){
			     .work = "16 clients, blind appends to one shard: over one client on it",
			     .value = bench_ratio(&groups[OURS].per_s[STEPS - 1], &groups[OURS].per_s[0]),
			     .sense = BENCH_AT_LEAST,
			     .bound = blind_aim,
			     .digits = 2},
		     sync_floor(run, text),
		     "per second: ours %.0f from one, %.0f from 16; PostgreSQL %.0f, %.0f",
		     bench_median(&groups[OURS].per_s[0]), bench_median(&groups[OURS].per_s[STEPS - 1]),
		     bench_median(&groups[PG].per_s[0]), bench_median(&groups[PG].per_s[STEPS - 1]));
	draw(run, groups, KINDS, "blind.dat");
	free(groups);
}

void bench_clients(struct bench_run *run)
{
	if (bench_wanted(run, "clients", true))
		own_shards(run);
	if (bench_wanted(run, "blind", true))
		one_shard(run);
}
