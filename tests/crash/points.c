/*
 * points.c - kills at failpoints: each system call of the mount that changes or syncs its store, or answers
 * the kernel, while one thing is done.
 *
 * How it works: a **scenario** prepares a store once; the store is kept as a template with what is known of
 * it. One run without a kill counts the calls of each class (tests/shim/) that the act makes. Then for each
 * class, for n = 1, 2, ... until the act ends without a kill: the n-th call kills the process before it is
 * made, after it, and, if it writes, with half of it done. Behind each kill: fsck; a start; what was left
 * open is sent again; a look at all; gc, a clean stop, and nothing is left over.
 *
 * Threads of the background make calls too, so counts differ a little from run to run; what is not met is not
 * counted as a kill.
 */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

enum { CLASSES_MAX = 32, ALL_UP_TO = 24, SAMPLED = 10, QUICK_POINTS = 24 };

/* What a run works on. */
struct run {
	struct slot slot;
	struct client c;
	struct shard *s, *other; /* other: made or not yet */
	struct rng r;
};

struct scenario {
	const char *name;
	void (*prepare)(struct run *run);
	void (*act)(struct run *run);
	void (*after)(struct run *run); /* the restart; NULL */
	bool at_start;                  /* the start is part of the act */
	bool new_store;
};

static void expect(struct run *run, const char *what, int e)
{
	if (e != 0 && !run->c.broken && !excused(&run->c, e))
		program_fail("%s: %s", what, strerrorname_np(e));
}

/* --- scenarios ------------------------------------------------------------------------------------- */

/* Send a transaction with a token; sent again by send_again. */
static void send(struct run *run, unsigned rows, unsigned bytes, unsigned undoes)
{
	struct send how = {.n = tx_plan(run->s, rows, bytes, undoes), .lower = "*"};
	char token[40];

	how.token = new_token(token);
	run->s->txs[how.n].again = true;
	run->c.text = tx_text(run->s, &how, &run->c.text_len);
	run->c.pending = how.n;
	expect(run, "append", tx_send(&run->c, run->s, how.n, run->c.text, run->c.text_len));
}

static void forget(struct run *run)
{
	free(run->c.text);
	run->c.text = NULL;
	run->c.pending = NONE;
}

static void send_again(struct run *run)
{
	if (run->c.pending == NONE)
		return;
	expect(run, "append again", tx_send(&run->c, run->s, run->c.pending, run->c.text, run->c.text_len));
	counted(N_AGAIN, 1);
	forget(run);
}

static void prepare_shard(struct run *run)
{
	expect(run, "a shard", steps_of_setup(&run->c, run->s));
	for (unsigned i = 0; i < 5; i++) {
		send(run, 2, 20, NONE);
		forget(run);
	}
}

/* Blobs of all kinds, some of them undone, so that there is something to merge and to delete. */
static void prepare_much(struct run *run)
{
	prepare_shard(run);
	for (unsigned i = 0; i < 30; i++) {
		send(run, i % 10 == 4 ? 40 : 2,
		     i % 10 == 4  ? 16 << 10
		     : i % 3 == 0 ? 9000
				  : 30,
		     i >= 10 ? 5 + i - 10 : NONE);
		forget(run);
	}
	expect(run, "compact", op_ctl(&run->c, run->s, "compact"));
	for (unsigned i = 0; i < 6; i++) {
		send(run, 3, 9000, 25 + i);
		forget(run);
	}
}

static void prepare_finished(struct run *run)
{
	prepare_much(run);
	expect(run, "finish", op_finish(&run->c, run->s));
}

static void act_small(struct run *run)
{
	send(run, 2, 20, 0);
}

static void act_hollow(struct run *run)
{
	send(run, 1, 9000, NONE);
}

static void act_large(struct run *run)
{
	send(run, 140, 128 << 10, NONE);
}

static void act_staged(struct run *run)
{
	staged_turn(&run->c);
}

/* Parts in files, and three batches at once. */
static void act_staged_large(struct run *run)
{
	(void)pieces_plan(run->s, 40, 16 << 10, NONE, true);
	staged_turn(&run->c);
}

static void after_staged(struct run *run)
{
	while (run->c.pending != NONE || run->s->staged_for != NONE)
		staged_turn(&run->c);
}

static void act_compact(struct run *run)
{
	expect(run, "compact", op_ctl(&run->c, run->s, "compact"));
}

/* With something to collect: what a reader had kept, versions and rollups before the newest. */
static void act_gc(struct run *run)
{
	static const char *const words[] = {"compact", "gc", "rollup", "gc"};
	int fd = open(at(run->s->dir, "snapshot"), O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		expect(run, "snapshot", errno);
	for (size_t i = 0; i < sizeof words / sizeof *words && !run->c.broken; i++) {
		expect(run, words[i], op_ctl(&run->c, run->s, words[i]));
		if (i == 1)
			close(fd);
	}
	if (run->c.broken)
		close(fd);
}

static void act_rollup(struct run *run)
{
	expect(run, "rollup", op_ctl(&run->c, run->s, "rollup"));
}

static bool lives(void)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)world.pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

static void act_rmdir(struct run *run)
{
	uint64_t since = 0;

	expect(run, "holds", op_let_go(&run->c, run->s));
	if (!run->c.broken)
		expect(run, "rmdir", op_remove(&run->c, run->s));
	while (!run->c.broken && files_of_others(NULL, 0) && lives() && until_deadline(&since))
		;
	rest_us(20000); /* its versions, and the mark that it dies */
}

static void after_rmdir(struct run *run)
{
	expect(run, "holds", run->s->promises[P_SHARD].acked[0] != '\0' ? op_let_go(&run->c, run->s) : 0);
	expect(run, "rmdir", op_remove(&run->c, run->s));
}

/* What crashes leave: a blob on its way, and one that nobody names. */
static void plant(struct run *run)
{
	char *id = shard_id();

	free(want_sh("touch %s/blobs/tmp/0123456789abcdef && mkdir -p %s/blobs/data/%s/n%s && "
		     "head -c 5000 /dev/zero >%s/blobs/data/%s/n%s/p%s",
		     world.store, world.store, run->s->id, id + 1, world.store, run->s->id, id + 1, id + 1));
	check_write(at(world.dir, "planted"), id + 1);
	free(id);
}

/* Until the sweep has taken what was planted. */
static void act_swept(struct run *run)
{
	char *id = check_read(at(world.dir, "planted")), path[PATH_MAX];
	uint64_t since = 0;

	act_small(run);
	snprintf(path, sizeof path, "%s/blobs/data/%s/n%s", world.store, run->s->id, id);
	free(id);
	while (!run->c.broken && access(path, F_OK) == 0 && lives() && until_deadline(&since))
		;
}

static void act_mkdir(struct run *run)
{
	expect(run, "mkdir", steps_of_setup(&run->c, run->other));
}

static void after_mkdir(struct run *run)
{
	expect(run, "mkdir", steps_of_setup(&run->c, run->other));
}

static void act_holds(struct run *run)
{
	expect(run, "hold", op_keep(&run->c, run->s, 3));
	if (!run->c.broken)
		expect(run, "name", op_name(&run->c, run->s));
}

static void act_stop(struct run *run)
{
	(void)run;
	ck_works(kill(world.pid, SIGTERM));
}

static void nothing(struct run *run)
{
	(void)run;
}

static const struct scenario scenarios[] = {
	{"append, small", prepare_shard, act_small, send_again, false, false},
	{"append, a small blob", prepare_shard, act_hollow, send_again, false, false},
	{"append of 17 MiB", prepare_shard, act_large, send_again, false, false},
	{"stage and commit", prepare_shard, act_staged, after_staged, false, false},
	{"stage and commit MiB", prepare_shard, act_staged_large, after_staged, false, false},
	{"ctl compact", prepare_much, act_compact, NULL, false, false},
	{"ctl gc", prepare_much, act_gc, NULL, false, false},
	{"ctl rollup", prepare_much, act_rollup, NULL, false, false},
	{"rmdir", prepare_finished, act_rmdir, after_rmdir, false, false},
	{"mkdir, holds, name", prepare_shard, act_mkdir, after_mkdir, false, false},
	{"hold and name moved", prepare_shard, act_holds, NULL, false, false},
	{"clean stop", prepare_much, act_stop, NULL, false, false},
	{"start after a kill", prepare_much, act_swept, send_again, true, false},
	{"first start", nothing, act_mkdir, after_mkdir, true, true},
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

/* --- a run ----------------------------------------------------------------------------------------- */

struct template
{
	const struct scenario *sc;
	struct shard *s;
	char *store;
};

static struct shard *copy_shard(const struct shard *from)
{
	struct shard *s = malloc(sizeof *s);

	ck_assert_ptr_nonnull(s);
	memcpy(s, from, sizeof *s);
	pthread_mutex_init(&s->lock, NULL);
	s->dir = strdup(from->dir);
	return s;
}

static void run_init(struct run *run, uint64_t salt)
{
	*run = (struct run){.r = rng_new(salt)};
	run->c = (struct client){
		.slot = &run->slot, .pending = NONE, .fd = -1, .mount = atomic_load(&mount_number)};
	run->c.r.state = rng_below(&run->r, 0);
}

static void make_template(struct template *t, const struct scenario *sc)
{
	struct run run;

	t->sc = sc;
	t->store = check_path(world.dir, "template");
	run_init(&run, 700);
	run.s = shard_plan(&run.r);
	t->s = run.s;
	if (sc->new_store)
		return;
	check_rmtree(world.store);
	mount_restart();
	sc->prepare(&run);
	if (sc->at_start) {
		ck_works(kill(world.pid, SIGKILL));
		(void)mount_reap();
		plant(&run);
	} else {
		mount_stop();
	}
	check_rmtree(t->store);
	free(want_sh("cp -a %s %s", world.store, t->store));
}

static void template_fini(struct template *t)
{
	shard_free(t->s);
	check_rmtree(t->store);
	free(t->store);
}

/* Lines of "class number". */
static unsigned long count_of_class(const char *counts, const char *class)
{
	size_t len = strlen(class);

	for (const char *p = counts; p != NULL && *p != '\0';
	     p = strchr(p, '\n') != NULL ? strchr(p, '\n') + 1 : NULL)
		if (strncmp(p, class, len) == 0 && p[len] == ' ')
			return strtoul(p + len, NULL, 10);
	return 0;
}

static void arm(void)
{
	check_write(at(world.dir, "arm"), "");
}

/*
 * Start under the library, with this rule (NULL: none), and do it. True: it has met the kill, and is dead.
 * What calls were made: *counts, given.
 */
static bool do_act(struct run *run, const struct template *t, const char *rule, const char *class,
		   unsigned long nth, char **counts)
{
	char env[4 * PATH_MAX], *said = NULL;
	int status;
	bool met;

	unlink(at(world.dir, "arm"));
	unlink(at(world.dir, "counts"));
	snprintf(env, sizeof env, "SHIM_DIR=%s SHIM_ARM=%s/arm SHIM_COUNT=%s/counts %s%s LD_PRELOAD=%s",
		 world.store, world.dir, world.dir, rule != NULL ? "SHIM_KILL=" : "",
		 rule != NULL ? rule : "", options.shim);
	if (t->sc->at_start)
		arm();
	atomic_store(&death_expected, rule != NULL);
	status = mount_start(env, &said);
	if (!t->sc->at_start)
		arm();
	if (status != 0 && (!t->sc->at_start || strstr(said, "died of signal 9") == NULL))
		program_fail("%s: it does not start: exit %d: %s", t->sc->name, status, said);
	free(said);
	run->c.broken = world.pid == 0;
	if (world.pid != 0)
		t->sc->act(run);
	if (rule == NULL && t->sc->act == act_stop)
		(void)mount_reap();
	*counts = check_read(at(world.dir, "counts"));
	met = rule != NULL && (world.pid == 0 || count_of_class(*counts, class) >= nth);
	if (rule != NULL && t->sc->act == act_stop) {
		status = mount_reap();
		met = WIFSIGNALED(status);
	} else if (world.pid != 0 && !met) {
		if (run->c.broken)
			program_fail("%s: a call failed, and nothing was killed", t->sc->name);
		ck_works(kill(world.pid, SIGKILL));
		(void)mount_reap();
	} else if (world.pid != 0) {
		status = mount_reap();
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			program_fail("%s: wait status %d", t->sc->name, status);
	}
	atomic_store(&death_expected, false);
	return met;
}

static void look_after(struct run *run, const struct template *t)
{
	struct shard *live[2];
	size_t count = 0;

	if (!t->sc->new_store)
		fsck_now();
	mount_restart();
	atomic_fetch_add(&mount_number, 1);
	run->c.mount = atomic_load(&mount_number);
	run->c.broken = false;
	shard_look(run->s);
	shard_look(run->other);
	if (t->sc->after != NULL) {
		t->sc->after(run);
		shard_look(run->s);
		shard_look(run->other);
	}
	if (run->s->promises[P_SHARD].acked[0] != '\0')
		live[count++] = run->s;
	if (run->other->promises[P_SHARD].acked[0] != '\0')
		live[count++] = run->other;
	end_clean(live, count);
	counted(N_LOOKS, 1);
}

/* One run to the nth call of a class; false: it was not met. */
static bool run_to(const struct template *t, const char *class, unsigned long nth, const char *mode,
		   char **counts)
{
	char rule[64], where[40];
	struct run run;
	bool met;

	snprintf(rule, sizeof rule, "%s:%lu:%s", class, nth, mode);
	check_rmtree(world.store);
	if (!t->sc->new_store)
		free(want_sh("cp -a %s %s", t->store, world.store));
	run_init(&run, 800 + nth);
	run.s = run.slot.shard = copy_shard(t->s);
	run.other = shard_plan(&run.r);
	met = do_act(&run, t, nth != 0 ? rule : NULL, class, nth, counts);
	look_after(&run, t);
	snprintf(where, sizeof where, "%s, %s", class, mode);
	if (met)
		killed_at(t->sc->name, where);
	counted(met ? N_KILLS_POINT : N_POINT_RUNS, 1);
	free(run.c.text);
	shard_free(run.s);
	shard_free(run.other);
	return met;
}

/* --- all of them ----------------------------------------------------------------------------------- */

static const char *const classes[] = {
	"write-log", "write-blob", "write-other", "sync-log", "sync-blob",
	"sync-dir",  "sync-other", "sync-fs",     "rename",   "link",
	"unlink",    "mkdir",      "truncate",    "create",   "reply",
};
enum { CLASSES = sizeof classes / sizeof *classes };

static bool tears(const char *class)
{
	return strncmp(class, "write", 5) == 0;
}

/* The calls 1, 2, ... of a class; of very many, the first and some. */
static void each_call(struct template *t, const char *class, unsigned long count, const char *mode,
		      struct rng *r)
{
	char *counts = NULL;
	bool met = true;

	for (unsigned long n = 1; met && n <= ALL_UP_TO; n++) {
		met = run_to(t, class, n, mode, &counts);
		free(counts);
		progress("%" PRIu64 " kills at failpoints; %s: %s %lu, %s", count_of(N_KILLS_POINT),
			 t->sc->name, class, n, mode);
	}
	for (unsigned i = 0; i < SAMPLED && count > ALL_UP_TO; i++) {
		(void)run_to(t, class, ALL_UP_TO + 1 + rng_below(r, count - ALL_UP_TO), mode, &counts);
		free(counts);
	}
}

static void all_points(const struct scenario *sc, struct rng *r)
{
	struct template t;
	char *counts;

	make_template(&t, sc);
	(void)run_to(&t, "", 0, "", &counts);
	for (int i = 0; i < CLASSES; i++) {
		unsigned long count = count_of_class(counts, classes[i]);

		if (count == 0)
			continue;
		each_call(&t, classes[i], count, "before", r);
		each_call(&t, classes[i], count, "after", r);
		if (tears(classes[i]))
			each_call(&t, classes[i], count, "torn", r);
	}
	free(counts);
	template_fini(&t);
}

/* One call of those a scenario makes, each class alike. */
static void some_point(struct template *t, const char *profile, struct rng *r)
{
	const char *class;
	unsigned long count;
	char *counts;
	unsigned mode;

	do {
		class = classes[rng_below(r, CLASSES)];
		count = count_of_class(profile, class);
	} while (count == 0);
	mode = (unsigned)rng_below(r, tears(class) ? 3 : 2);
	(void)run_to(t, class, 1 + rng_below(r, count),
		     mode == 0   ? "before"
		     : mode == 1 ? "after"
				 : "torn",
		     &counts);
	free(counts);
	progress("%" PRIu64 " kills at failpoints; %s", count_of(N_KILLS_POINT), t->sc->name);
}

static void sample(struct rng *r)
{
	enum { SCENARIOS_TRIED = 4 };
	unsigned first = (unsigned)rng_below(r, SCENARIOS);

	for (unsigned i = 0; i < SCENARIOS_TRIED; i++) {
		struct template t;
		char *profile;

		make_template(&t, &scenarios[(first + i * SCENARIOS / SCENARIOS_TRIED) % SCENARIOS]);
		(void)run_to(&t, "", 0, "", &profile);
		for (unsigned k = 0; k < QUICK_POINTS / SCENARIOS_TRIED; k++)
			some_point(&t, profile, r);
		free(profile);
		template_fini(&t);
	}
}

void run_points(void)
{
	const char *only = getenv("CRASH_SCENARIO");
	struct rng r = rng_new(601);

	if (options.quick && only == NULL) {
		sample(&r);
		return;
	}
	for (unsigned i = 0; i < SCENARIOS; i++)
		if (only == NULL || strcmp(only, scenarios[i].name) == 0)
			all_points(&scenarios[i], &r);
}
