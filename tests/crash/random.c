/*
 * random.c - kills at random moments under mixed load. After most restarts all is at rest for a look, after
 * the others the clients come at once. At some kills the next start is killed too; some mounts run under the
 * interposed library (tests/shim/) and die of themselves, at one of their calls.
 */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

enum { SLOTS_MAX = 3, FSCK_EACH = 10 };

static struct slot slots[SLOTS_MAX];
static struct client clients[SLOTS_MAX][CLIENT_KINDS];
static pthread_t threads[SLOTS_MAX][CLIENT_KINDS];
static unsigned slot_count;
static char point[32]; /* where the mount will die of itself; "": it will not */

static void start_clients(struct rng *r)
{
	gate_begin();
	slot_count = options.quick ? 2 : SLOTS_MAX;
	for (unsigned i = 0; i < slot_count; i++) {
		slots[i].rounds = i * 5; /* not all end at once */
		for (unsigned k = 0; k < CLIENT_KINDS; k++) {
			struct client *c = &clients[i][k];

			*c = (struct client){.slot = &slots[i], .kind = k, .index = k, .fd = -1};
			c->r.state = rng_below(r, 0);
			ck_assert_int_eq(pthread_create(&threads[i][k], NULL, client_main, c), 0);
		}
	}
}

/* A shard is finished and heard to its end: its life goes on behind a look. */
static bool is_over(const struct shard *s)
{
	return s != NULL && s->setup == 5 && s->finished == THERE && s->heard_to == NEVER;
}

static bool look_is_due(void)
{
	for (unsigned i = 0; i < slot_count; i++)
		if (is_over(slots[i].shard))
			return true;
	return false;
}

/* Somewhere in what is under way. */
static void await_moment(struct rng *r)
{
	enum { STOPPED_MS = 120000, LOOK_MS = 300 };
	uint64_t target = count_of(N_ACKED) + rng_below(r, 40), begun = now_ms();
	unsigned what = (unsigned)rng_below(r, DOINGS);

	switch (rng_below(r, 10)) {
	case 0: /* at once */
		break;
	case 1:
	case 2:
	case 3:
	case 4: /* while something certain is done */
		while (atomic_load(&doing[what]) == 0 && now_ms() - begun < LOOK_MS)
			rest_us(50);
		break;
	default:
		while (count_of(N_ACKED) < target && !look_is_due()) {
			rest_us(50);
			if (now_ms() - begun > STOPPED_MS)
				program_fail("the clients came to a stop");
		}
	}
	rest_us(rng_below(r, rng_below(r, 4) == 0 ? 20000 : 2000));
}

/* Until it has died at its point; what it does not come to in that time is killed as others are. */
static bool await_death(void)
{
	enum { PATIENCE_MS = 2000 };
	uint64_t begun = now_ms();
	siginfo_t info = {0};

	while (info.si_pid == 0 && now_ms() - begun < PATIENCE_MS && !look_is_due()) {
		ck_works(waitid(P_PID, (id_t)world.pid, &info, WEXITED | WNOHANG | WNOWAIT));
		rest_us(500);
	}
	return info.si_pid != 0;
}

static void kill_now(struct rng *r)
{
	bool died = point[0] != '\0' && await_death(), stopping = !died && rng_below(r, 10) == 0;

	gate_shut();
	for (int i = 0; i < DOINGS; i++)
		if (atomic_load(&doing[i]) != 0)
			killed_at("under load", doing_words[i]);
	if (stopping) {
		ck_works(kill(world.pid, SIGTERM));
		rest_us(rng_below(r, 20000));
	}
	(void)kill(world.pid, SIGKILL);
	(void)mount_reap();
	counted(died ? N_KILLS_LOADED : stopping ? N_KILLS_STOP : N_KILLS_RANDOM, 1);
	if (died)
		killed_at("under load, at", point);
	point[0] = '\0';
	atomic_store(&death_expected, false);
}

/* Start a mount that is to die at a call; false: it died in its start. */
static bool start_to_die(struct rng *r)
{
	static const struct {
		const char *class;
		unsigned calls;
	} classes[] = {
		{"write-log", 150}, {"write-blob", 60}, {"write-other", 40}, {"sync-log", 150},
		{"sync-blob", 30},  {"sync-dir", 30},   {"rename", 20},      {"unlink", 20},
		{"mkdir", 15},      {"truncate", 20},   {"create", 30},      {"reply", 300},
	};
	static const char *const modes[] = {"before", "after", "torn"};
	unsigned class = (unsigned)rng_below(r, sizeof classes / sizeof *classes),
		 mode = (unsigned)rng_below(r, 3);
	char env[2 * PATH_MAX + 100], *said;
	int status;

	mode = mode == 2 && strncmp(classes[class].class, "write", 5) != 0 ? 0 : mode;
	snprintf(point, sizeof point, "%s, %s", classes[class].class, modes[mode]);
	snprintf(env, sizeof env, "SHIM_DIR=%s SHIM_KILL=%s:%u:%s LD_PRELOAD=%s", world.store,
		 classes[class].class, 1 + (unsigned)rng_below(r, classes[class].calls), modes[mode],
		 options.shim);
	atomic_store(&death_expected, true);
	status = mount_start(env, &said);
	if (status != 0 && strstr(said, "died of signal 9") == NULL)
		program_fail("it does not start: exit %d: %s", status, said);
	free(said);
	if (world.pid != 0)
		return true;
	counted(N_KILLS_LOADED, 1);
	killed_at("start, at", point);
	point[0] = '\0';
	/* Nobody has begun anything: the gate is shut. */
	atomic_store(&death_expected, false);
	return false;
}

/* A start that is killed on its way. */
static void kill_start(struct rng *r)
{
	world.pid = fork();
	ck_assert_int_ge(world.pid, 0);
	if (world.pid == 0) {
		execl(shardfs_path(), "shardfs", "-f", world.store, world.mnt, (char *)NULL);
		_exit(127);
	}
	rest_us(rng_below(r, 60000));
	(void)kill(world.pid, SIGKILL);
	(void)mount_reap();
	counted(N_KILLS_START, 1);
	killed_at("start", "of a store in use");
}

static void look_at_all(void)
{
	for (unsigned i = 0; i < slot_count; i++) {
		struct shard *s = slots[i].shard;

		if (s == NULL)
			continue;
		if (is_over(s)) {
			shard_look_finished(s);
			s->setup = 6;
		} else {
			shard_look(s);
		}
	}
	counted(N_LOOKS, 1);
}

static void one_round(struct rng *r, uint64_t done)
{
	if (point[0] == '\0')
		await_moment(r);
	kill_now(r);
	if (done % FSCK_EACH == FSCK_EACH / 2)
		fsck_now();
	if (rng_below(r, 10) == 0)
		kill_start(r);
	if (options.shim == NULL || look_is_due() || rng_below(r, 3) != 0 || !start_to_die(r))
		mount_restart();
	/* A mount that is to die may do so at a look. */
	if (point[0] == '\0' && (look_is_due() || rng_below(r, 3) != 0)) {
		gate_wait();
		look_at_all();
	}
	for (unsigned i = 0; i < slot_count; i++)
		slots[i].rounds++;
	gate_open();
}

static uint64_t kills(void)
{
	return count_of(N_KILLS_RANDOM) + count_of(N_KILLS_STOP) + count_of(N_KILLS_START) +
	       count_of(N_KILLS_LOADED);
}

/* All clients end, at a last kill, and what they leave is looked at. */
static void end_all(void)
{
	struct shard *live[SLOTS_MAX];
	size_t count = 0;

	gate_shut();
	gate_end();
	(void)kill(world.pid, SIGKILL);
	(void)mount_reap();
	counted(N_KILLS_RANDOM, 1);
	point[0] = '\0';
	gate_wait();
	atomic_store(&death_expected, false);
	for (unsigned i = 0; i < slot_count; i++)
		for (unsigned k = 0; k < CLIENT_KINDS; k++)
			pthread_join(threads[i][k], NULL);
	fsck_now();
	mount_restart();
	look_at_all();
	mount_stop();
	mount_restart();
	look_at_all();
	for (unsigned i = 0; i < slot_count; i++)
		if (slots[i].shard != NULL && slots[i].shard->promises[P_SHARD].acked[0] != '\0')
			live[count++] = slots[i].shard;
	end_clean(live, count);
	fsck_now();
}

void run_random(unsigned wanted, uint64_t seed)
{
	struct rng r = {.state = seed};
	uint64_t before = kills();

	memset(slots, 0, sizeof slots);
	mount_restart();
	start_clients(&r);
	gate_open();
	while (kills() - before + 1 < wanted) {
		one_round(&r, kills());
		progress("%" PRIu64 " of %u kills under load, %" PRIu64 " transactions acknowledged, %" PRIu64
			 " unknown",
			 kills() - before, wanted, count_of(N_ACKED), count_of(N_UNKNOWN));
	}
	end_all();
	for (unsigned i = 0; i < slot_count; i++)
		if (slots[i].shard != NULL)
			shard_free(slots[i].shard);
}
