/*
 * bench_upkeep_shards.c - a store with many shards: how soon it is mounted and listed, and what memory they
 * take while nobody uses them.
 *
 * Beside it an empty store, which is asked the same things at the same moments: the difference in resident
 * memory is what the shards take.
 */
#include <math.h>
#include <stdlib.h>

#include "tools/bench_upkeep.h"

static const double start_aim_ms = 1000, list_aim_ms = 100, memory_aim = 2048;

enum { MANY, NONE, STORES };

/* Shards with a row each, made by mkdir and an append. */
static char **make_shards(const struct bench_own *o, uint64_t count)
{
	char **shards = calloc(count, sizeof *shards);

	if (shards == NULL)
		bench_die_errno("names of shards");
	for (uint64_t i = 0; i < count; i++) {
		struct bench_writer w = bench_writer_new(&o->place);

		bench_append_us(&w);
		shards[i] = bench_path(w.dir, "upper");
		bench_writer_end(&w);
	}
	return shards;
}

/* Each start with a first `ls`, in turn with those of the empty store. Both are left mounted. */
static void say_starts(FILE *report, struct bench_own own[STORES], uint64_t starts)
{
	double *ms[STORES] = {bench_array(starts), bench_array(starts)}, *first = bench_array(starts),
	       *again = bench_array(starts), middle[STORES] = {0}, list_ms;
	char *list = bench_path(own[MANY].mountpoint, "shard");

	for (uint64_t i = 0; i < starts; i++) {
		for (int s = 0; s < STORES; s++) {
			bench_own_stop(&own[s]);
			bench_own_start(&own[s]);
			ms[s][i] = own[s].start_s * 1e3;
		}
		if (i + 1 == starts)
			break; /* this one's memory is looked at before anything is asked of it */
		first[i] = bench_command_s("ls", list, NULL) * 1e3;
		again[i] = bench_command_s("ls", list, NULL) * 1e3;
	}
	for (int s = 0; s < STORES; s++)
		middle[s] = bench_quantile(ms[s], starts, 0.5);
	bench_figure(report,
		     &(struct bench_figure){.what = "the mounting command, from exec to its end",
					    .value = middle[MANY],
					    .aim = start_aim_ms,
					    .unit = " ms"},
		     "median of %d, at most %.0f ms; of the empty store %.0f ms", (int)starts,
		     ms[MANY][starts - 1], middle[NONE]);
	if (starts > 1) {
		list_ms = bench_quantile(first, starts - 1, 0.5);
		bench_figure(report,
			     &(struct bench_figure){.what = "the first `ls /shard`",
						    .value = list_ms,
						    .aim = list_aim_ms,
						    .unit = " ms"},
			     "median of %d, at most %.0f ms; a second one %.0f ms", (int)starts - 1,
			     first[starts - 2], bench_quantile(again, starts - 1, 0.5));
	}
	free(list);
	free(ms[MANY]);
	free(ms[NONE]);
	free(first);
	free(again);
}

static void say_memory(FILE *report, const struct bench_own own[STORES], uint64_t shards, const char *when,
		       double aim)
{
	double kib[STORES] = {0};

	for (int s = 0; s < STORES; s++)
		kib[s] = (double)bench_memory_kib(own[s].place.pid, "VmRSS:");
	bench_figure(report,
		     &(struct bench_figure){.what = when,
					    .value = (kib[MANY] - kib[NONE]) * 1024 / (double)shards,
					    .aim = aim,
					    .unit = " B"},
		     "%.1f MiB, of the empty store %.1f MiB", kib[MANY] / 1024, kib[NONE] / 1024);
}

static void idle(const struct bench_knobs *k)
{
	bench_rest((long)k->idle_s * 1000000);
}

static void say_memories(FILE *report, const struct bench_own own[STORES], const struct bench_knobs *k,
			 char *const *shards)
{
	say_memory(report, own, k->shards, "memory of a shard, right after mounting", memory_aim);
	for (int s = 0; s < STORES; s++) {
		char *list = bench_path(own[s].mountpoint, "shard");

		bench_command_s("ls", "-l", list);
		free(list);
	}
	say_memory(report, own, k->shards, "memory of a shard, after `ls -l` of all", memory_aim);
	idle(k);
	say_memory(report, own, k->shards, "memory of a shard, idle for a while after that", memory_aim);
	for (uint64_t i = 0; i < k->shards; i++)
		bench_read_all(shards[i]);
	say_memory(report, own, k->shards, "memory of a shard, after reading the upper of all", NAN);
	idle(k);
	say_memory(report, own, k->shards, "memory of a shard, idle for a while after that too", NAN);
}

void bench_many_shards(const struct bench_place *place, FILE *report, const struct bench_knobs *k)
{
	struct bench_own own[STORES] = {bench_own_new(place, "many"), bench_own_new(place, "none")};
	uint64_t start;
	char **shards;
	double made_s;

	bench_figures_begin(report, "%d shards in one store, idle for %d s", (int)k->shards, (int)k->idle_s);
	for (int s = 0; s < STORES; s++)
		bench_own_start(&own[s]);
	start = bench_now_ns();
	shards = make_shards(&own[MANY], k->shards);
	made_s = (double)(bench_now_ns() - start) / 1e9;
	bench_own_at_rest(&own[MANY], k->rest_s);
	say_starts(report, own, k->starts);
	say_memories(report, own, k, shards);
	bench_say(report, "\nMaking them, with a row in each, took %.1f s; the store takes %.1f MiB.\n",
		  made_s, (double)bench_own_bytes(&own[MANY], NULL) / (1 << 20));
	for (uint64_t i = 0; i < k->shards; i++)
		free(shards[i]);
	free(shards);
	for (int s = 0; s < STORES; s++)
		bench_own_remove(&own[s]);
}
