/*
 * main.c - the soak: `make soak`. SOAK_S seconds (1800), SEED, SOAK_SLOTS shards at a time (5), SOAK_KILLS
 * kills of the mount and as many clean restarts (one each 5 minutes, at least one), SOAK_OUT for the report
 * (build/soak). SOAK_STYLE makes all shards of one style (0 to 4, enum style), to find out which of them does
 * something.
 */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <signal.h>
#include <time.h>

struct options options;
struct world world;
_Atomic bool ending;

enum { SLOTS_MAX = 16 };

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *given = getenv(name);

	return given != NULL && given[0] != '\0' ? strtoull(given, NULL, 10) : otherwise;
}

static void options_init(void)
{
	static struct program program;
	char text[32];

	options.seconds = number_of("SOAK_S", 1800);
	options.seed = number_of("SEED", (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid());
	options.slots = (unsigned)number_of("SOAK_SLOTS", 5);
	options.kills = (int)number_of("SOAK_KILLS", (uint64_t)-1);
	options.style = (int)number_of("SOAK_STYLE", (uint64_t)-1);
	if (options.style >= STYLES)
		options.style = -1;
	options.out = getenv("SOAK_OUT") != NULL ? getenv("SOAK_OUT") : "build/soak";
	if (options.slots > SLOTS_MAX)
		options.slots = SLOTS_MAX;
	if (options.kills < 0)
		options.kills = options.seconds < 300 ? 1 : (int)(options.seconds / 300);
	snprintf(text, sizeof text, "%" PRIu64, options.seed);
	setenv("SEED", text, 1);
	seed_init();
	program = (struct program){.name = "soak", .seed = options.seed, .world = &world, .report = report};
	program_begin(&program);
}

/*
 * A kill and, soon after, a clean restart, spread over the run: so between them the mount lives long enough
 * to tell whether its memory grows.
 */
static void run(uint64_t begun)
{
	struct rng r = rng_new(77);
	uint64_t kills = (uint64_t)options.kills, each = kills != 0 ? options.seconds * 1000 / kills : 0;

	for (uint64_t i = 0; i < kills; i++) {
		uint64_t first = begun + i * each + each / 3 + rng_below(&r, each / 3 + 1),
			 second = first + each / 20;

		while (now_ms() < first)
			rest_ms(20);
		mount_restart(true);
		while (now_ms() < second)
			rest_ms(20);
		mount_restart(false);
	}
	while (now_ms() < begun + options.seconds * 1000)
		rest_ms(20);
}

static void nothing(int sig)
{
	(void)sig;
}

/* The same descriptors as at the begin, a little after all clients have gone. */
static void compare_fds(unsigned before, const struct text *list, bool *good)
{
	struct text after = {0};
	unsigned now = 0;

	for (int i = 0; i < 100; i++) {
		after.len = 0;
		now = mount_fds(&after);
		if (now == before)
			break;
		rest_ms(100);
	}
	note("- descriptors at the begin %u, at the end %u (RocksDB's tables are not counted): %s\n", before,
	     now, now == before ? "good" : "**DIFFERENT**");
	if (now != before) {
		note("  At the begin:\n\n%.1500s\n  At the end:\n\n%.1500s\n", list->p, after.p);
		*good = false;
	}
	text_free(&after);
}

static bool soak(void)
{
	pthread_t slots[SLOTS_MAX + 1], sampler;
	unsigned numbers[SLOTS_MAX + 1], threads = options.slots + (options.style < 0), fds;
	struct text list = {0};
	bool good = true;

	world_open(&world);
	printf("soak: %" PRIu64 " s on %s\n", options.seconds, world.store);
	fflush(stdout);
	rest_ms(500);
	fds = mount_fds(&list);
	pthread_create(&sampler, NULL, sampler_main, NULL);
	for (unsigned i = 0; i < threads; i++) {
		numbers[i] = i;
		pthread_create(&slots[i], NULL, slot_main, &numbers[i]);
	}
	run(now_ms());
	atomic_store(&ending, true);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(slots[i], NULL);
	pthread_join(sampler, NULL);
	sampler_summary(&good);
	compare_fds(fds, &list, &good);
	settle_and_look();
	world_stop(&world);
	judge_store(&good);
	text_free(&list);
	return good;
}

int main(void)
{
	struct sigaction sa = {.sa_handler = nothing};
	bool good;

	sigaction(SIGUSR1, &sa, NULL);
	options_init();
	free(want_sh("mkdir -p %s", options.out));
	good = soak();
	note("- words to ctl that met ENOENT: %" PRIu64 ", reads of metrics: %" PRIu64
	     "\n- differences: none\n",
	     count_of(N_CTL_NONE), count_of(N_METRICS_NONE));
	report(good ? "Good: nothing differs from what was acknowledged, and all limits are kept."
		    : "NOT GOOD: no read differs, but a limit is not kept, see below.");
	printf("soak: %s; report in %s/report.md\n", good ? "good" : "NOT GOOD", options.out);
	if (good)
		world_close(&world);
	else
		printf("soak: SEED=%" PRIu64 "; the store is kept: %s\n", options.seed, world.store);
	return good ? 0 : 1;
}
