/*
 * main.c - kills of the mount: `make check-crash`. CRASH_KILLS kills (1000), SEED, CRASH_QUICK=1 for a
 * sample, CRASH_OUT for the report (build/crash), CRASH_ONLY=random or points for one part, SHIM the
 * interposed library by which failpoints are met. Seeds that found something are in
 * tests/regress/crash.seeds; a quick run begins with them.
 */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <limits.h>
#include <time.h>

struct options options;
struct world world;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *given = getenv(name);

	return given != NULL && given[0] != '\0' ? strtoull(given, NULL, 10) : otherwise;
}

static void options_init(void)
{
	static struct program program;
	static char shim[PATH_MAX];
	const char *only = getenv("CRASH_ONLY") != NULL ? getenv("CRASH_ONLY") : "";
	char text[32];

	options.seed = number_of("SEED", (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid());
	options.quick = number_of("CRASH_QUICK", 0) != 0;
	options.kills = (unsigned)number_of("CRASH_KILLS", options.quick ? 44 : 1000);
	options.no_points = strcmp(only, "random") == 0;
	options.no_random = strcmp(only, "points") == 0;
	options.out = getenv("CRASH_OUT") != NULL ? getenv("CRASH_OUT") : "build/crash";
	if (getenv("SHIM") != NULL && realpath(getenv("SHIM"), shim) != NULL)
		options.shim = shim;
	snprintf(text, sizeof text, "%" PRIu64, options.seed);
	setenv("SEED", text, 1);
	seed_init();
	program = (struct program){.name = "crash", .seed = options.seed, .world = &world, .report = report};
	program_begin(&program);
}

static void loaded(unsigned kills, uint64_t seed)
{
	world_new(&world);
	run_random(kills, seed);
	world_close(&world);
}

/* The seeds of random kills that found something: the same plan, if not the same meetings of threads. */
static void run_again(void)
{
	enum { KILLS = 12 };
	FILE *f = fopen("tests/regress/crash.seeds", "re");
	char line[200];
	uint64_t seed;

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "%" SCNu64, &seed) == 1)
			loaded(KILLS, seed);
	if (f != NULL)
		fclose(f);
}

/* Both parts, each on a store of its own. */
static void run(void)
{
	unsigned random;

	if (!options.no_points && options.shim != NULL) {
		world_new(&world);
		run_points();
		world_close(&world);
	}
	random = options.kills / 2;
	if (random + count_of(N_KILLS_POINT) < options.kills)
		random = options.kills - (unsigned)count_of(N_KILLS_POINT);
	if (!options.no_random) {
		if (options.quick)
			run_again();
		loaded(random, rng_below(&(struct rng){.state = options.seed}, 0));
	}
}

static uint64_t kills_loaded(void)
{
	return count_of(N_KILLS_RANDOM) + count_of(N_KILLS_START) + count_of(N_KILLS_STOP) +
	       count_of(N_KILLS_LOADED);
}

int main(void)
{
	uint64_t begun = now_ms();

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) {
		fprintf(stderr, "crash: it needs root and /dev/fuse\n");
		return 1;
	}
	options_init();
	free(want_sh("mkdir -p %s", options.out));
	run();
	report("Good: nothing that was acknowledged is lost, nothing else is there.");
	printf("crash: good: %" PRIu64 " kills under load, %" PRIu64 " at failpoints, %" PRIu64
	       " transactions acknowledged, %" PRIu64 " s; report in %s/report.md\n",
	       kills_loaded(), count_of(N_KILLS_POINT), count_of(N_ACKED), (now_ms() - begun) / 1000,
	       options.out);
	return 0;
}
