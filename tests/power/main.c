/*
 * main.c - power cuts at many moments of a recorded load; and the proof that a missing sync would be found.
 *
 * The record is made once. For each chosen moment and way of losing, the directory that a power cut may leave
 * is made (in memory, POWER_DIR or /dev/shm), and a process of its own looks at it. Then the same for each
 * sync that the store makes, with that one taken as not done: each time a state must be found that breaks a
 * promise.
 *
 * Environment: SHARDFS, SHARDCTL, SHIM (the programs), SEED, POWER_STATES (1000; of the store as it is),
 * POWER_MUTANT_STATES (the most for one missing sync), POWER_ONLY (part of the name of a missing sync, or
 * "none"), POWER_KEEP=1 (the record and the first bad state stay), POWER_DIR. Exit status 0: all as promised.
 */
#include "tests/power/power.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/check_util.h"

enum { WORKERS = 2, LOOK_S = 300, FOUND_MAX = 20, ROUND = 48 };

/* Where moments are chosen. */
enum when { EVER, MAKING, MADE, AGAIN };

struct missing {
	const char *name;
	const char *syncs; /* see disk_new */
	enum when when;
	const char *why; /* NULL: a promise needs it. Else why none does */
};

static const struct missing missing[] = {
	{"RocksDB's log", "file@*.log", EVER, NULL},
	{"RocksDB's tables", "file@*.sst", EVER, NULL},
	{"RocksDB's MANIFEST", "file@*MANIFEST*", EVER, NULL},
	{"RocksDB's CURRENT", "file@*.dbtmp", EVER, NULL},
	{"RocksDB's directory", "dir@*consensus", EVER, NULL},
	{"the bytes of a blob", "file@*blobs/*", EVER, NULL},
	{"the directory a blob came to", "dir@*blobs/data/s*/n*", EVER, NULL},
	{"the directory of a shard's blobs", "dir@*blobs/data/s????????????????????????????????????", EVER,
	 NULL},
	{"the directory of all blobs", "dir@*blobs/data", EVER, NULL},
	{"the directory of data/ and tmp/", "dir@*/blobs", MAKING, NULL},
	{"the file system, after a crash", "fs@", AGAIN, NULL},
	{"FORMAT", "file@*FORMAT.tmp", MADE, NULL},
	{"the store's directory, behind OWNER", "dir@store#1", MAKING, NULL},
	{"the store's directory, before FORMAT", "dir@store#2", MADE, NULL},
	{"the store's directory, behind FORMAT", "dir@store#3", MADE,
	 "a store that has lost FORMAT alone is completed with all that is in it"},
	{"the directory the store came to", "dir@.", MAKING, NULL},
};

struct moment {
	size_t op; /* the first that is not done */
	enum loss loss;
	uint64_t seed;
};

struct found {
	size_t states;
	size_t bad;
	char first[600];
};

static char *work;   /* the record and the mount */
static char *states; /* the cuts */
static uint64_t seed;

static void die(const char *what)
{
	fprintf(stderr, "tests/power: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t number(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

/* --- moments --------------------------------------------------------------------------------------- */

static bool is_interesting(const struct op *op)
{
	return op->kind != SHIM_OPEN && op->kind != SHIM_WRITE;
}

static int by_op(const void *a, const void *b)
{
	const struct moment *m = a, *n = b;

	return m->op < n->op ? -1 : m->op > n->op;
}

/* The first operation after a time. */
static size_t op_at(const struct history *h, uint64_t time_ns)
{
	size_t op = 0;

	while (op < h->count && h->ops[op].time_ns < time_ns)
		op++;
	return op;
}

/* A sixth while the store is made; most of the others before or behind a sync or a change of names. */
static struct moment *choose(const struct history *h, const struct notes *n, size_t count, uint64_t salt,
			     enum when when)
{
	struct moment *m = calloc(count, sizeof *m);
	struct rng rng = {seed ^ salt};
	size_t made = op_at(h, n->made) + 20, again = op_at(h, n->again);

	for (size_t i = 0; i < count; i++) {
		size_t from = when == AGAIN ? again : when == MADE ? made - 36 : 0;
		size_t len = when == AGAIN                  ? 200
			     : when == MADE                 ? 30
			     : when == MAKING || i % 6 == 0 ? made
							    : h->count;
		size_t op = from + (size_t)rng_below(&rng, len);

		for (int try = 0; try < 50 && i % 8 != 1 && !is_interesting(&h->ops[op]); try++)
			op = from + (size_t)rng_below(&rng, len);
		m[i] = (struct moment){op + (size_t)rng_below(&rng, 2), (enum loss)rng_below(&rng, LOSSES),
				       rng_below(&rng, UINT64_MAX)};
	}
	qsort(m, count, sizeof *m, by_op);
	return m;
}

/* --- one state ------------------------------------------------------------------------------------- */

/* In a process of its own: false, and why, if the state breaks a promise. */
static bool look_apart(const char *dir, const struct notes *n, uint64_t limit, bool thorough, char why[512])
{
	int fds[2], status;
	pid_t pid;
	ssize_t len;

	if (pipe2(fds, O_CLOEXEC) != 0)
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		char *text;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(LOOK_S);
		if (look(dir, n, limit, thorough, &text))
			_exit(0);
		len = write(fds[1], text, strlen(text));
		_exit(len > 0 ? 1 : 3);
	}
	close(fds[1]);
	len = read(fds[0], why, 511);
	why[len > 0 ? len : 0] = '\0';
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid)
		die("wait");
	if (status != 0 && !why[0])
		snprintf(why, 512, "who looked ended with status %x", (unsigned)status);
	return status == 0;
}

/* The store has been closed; the tool finds it clean. */
static bool fsck(const char *dir, char why[512])
{
	char line[4096];
	FILE *f;
	size_t len;

	snprintf(line, sizeof line, "%s fsck %s/store 2>&1", getenv("SHARDCTL"), dir);
	f = popen(line, "r");
	if (!f)
		die("shardctl");
	len = fread(why, 1, 511, f);
	why[len] = '\0';
	return pclose(f) == 0;
}

static bool try_moment(struct disk *d, const struct history *h, const struct notes *n, const struct moment *m,
		       bool thorough, const char *dir, char why[512])
{
	struct rng rng = {m->seed};
	uint64_t limit = m->op < h->count ? h->ops[m->op].time_ns : UINT64_MAX;

	disk_advance(d, m->op);
	disk_cut(d, m->loss, &rng, dir);
	return look_apart(dir, n, limit, thorough, why) && (!thorough || fsck(dir, why));
}

/* --- many ------------------------------------------------------------------------------------------ */

static void report_bad(int out, const struct history *h, const struct moment *m, const char *why)
{
	const struct op *op = &h->ops[m->op < h->count ? m->op : h->count - 1];
	char line[1024];
	int len = snprintf(line, sizeof line,
			   "op %zu of %zu (before kind %d %s), lost: %s, seed %" PRIu64 ": %s\n", m->op,
			   h->count, (int)op->kind, op->path, loss_names[m->loss], m->seed, why);

	if (write(out, line, (size_t)len) != len)
		die("pipe");
}

/* Every WORKERS-th moment; one line for each bad one, and a dot for each good one. */
static void worker(const struct history *h, const struct notes *n, const struct moment *m, size_t count,
		   const char *syncs, unsigned self, int out)
{
	struct disk *d = disk_new(h, syncs);
	bool keep = number("POWER_KEEP", 0) && !syncs;

	for (size_t i = self; i < count; i += WORKERS) {
		char why[512], *dir;

		if (asprintf(&dir, "%s/%s-%u-%zu", states, syncs ? "missing" : "all", self, i) < 0)
			die("no memory");
		if (try_moment(d, h, n, &m[i], i % 16 < WORKERS, dir, why)) {
			if (write(out, ".\n", 2) != 2)
				die("pipe");
		} else {
			report_bad(out, h, &m[i], why);
		}
		if (!keep)
			check_rmtree(dir);
		free(dir);
	}
	disk_free(d);
	_exit(0);
}

static void take_line(struct found *f, const char *line, bool show)
{
	f->states++;
	if (line[0] == '.')
		return;
	if (f->bad++ == 0)
		snprintf(f->first, sizeof f->first, "%.590s", line);
	if (show && f->bad <= FOUND_MAX)
		printf("tests/power: %s\n", line);
}

/* x: not NULL: without its syncs, and only to the first that is bad. */
static struct found try_all(const struct history *h, const struct notes *n, size_t count, uint64_t salt,
			    const struct missing *x)
{
	struct moment *m = choose(h, n, count, salt, x ? x->when : EVER);
	struct found f = {0};
	pid_t pids[WORKERS];
	char *line = NULL;
	size_t cap = 0;
	int fds[2];

	if (pipe(fds) != 0)
		die("pipe");
	fflush(stdout);
	for (unsigned i = 0; i < WORKERS; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(fds[0]);
			worker(h, n, m, count, x ? x->syncs : NULL, i, fds[1]);
		}
	}
	close(fds[1]);

	FILE *in = fdopen(fds[0], "r");

	while (!(x && f.bad) && getline(&line, &cap, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		take_line(&f, line, !x);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		int status;

		if (x && f.bad)
			kill(pids[i], SIGKILL);
		if (waitpid(pids[i], &status, 0) != pids[i] || (status != 0 && !(x && f.bad)))
			die("a worker failed");
	}
	fclose(in);
	free(line);
	free(m);
	if (x) { /* what who was killed has left; its name comes again */
		check_rmtree(states);
		mkdir(states, 0700);
	}
	return f;
}

/* --- all ------------------------------------------------------------------------------------------- */

static double seconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

/* Whether it is as it should be. */
static bool try_missing(const struct history *h, const struct notes *n, const struct missing *x, size_t most)
{
	struct disk *d = disk_new(h, x->syncs);
	size_t missed, states_done = 0;
	struct found f = {0};

	disk_advance(d, h->count);
	missed = disk_missed(d);
	disk_free(d);
	while (!f.bad && states_done < most) {
		f = try_all(h, n, ROUND, ((uint64_t)(x - missing) << 32) + states_done + 77, x);
		states_done += f.states;
	}
	if (f.bad)
		printf("tests/power: without the %zu syncs of %s: found within %zu states: %s\n", missed,
		       x->name, states_done, f.first);
	else
		printf("tests/power: without the %zu syncs of %s: %zu states, nothing found%s%s\n", missed,
		       x->name, states_done, x->why ? ", as it should be: " : "", x->why ? x->why : "");
	return (f.bad != 0) == (x->why == NULL);
}

static bool try_each_missing(const struct history *h, const struct notes *n)
{
	const char *only = getenv("POWER_ONLY");
	size_t most = number("POWER_MUTANT_STATES", 1500);
	bool good = true;

	for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
		if (!only || strstr(missing[i].name, only))
			good &= try_missing(h, n, &missing[i], most);
	return good;
}

static char *make_dir(const char *parent)
{
	char *path = check_path(parent, "shardfs-power-XXXXXX");

	if (!mkdtemp(path))
		die(path);
	return path;
}

int main(void)
{
	size_t count = number("POWER_STATES", 1000);
	const char *memory = getenv("POWER_DIR") ? getenv("POWER_DIR") : "/dev/shm", *tmp = getenv("TMPDIR");
	struct timespec begun;
	struct history h;
	struct notes n;
	char *path;
	bool good;

	signal(SIGPIPE, SIG_DFL);
	seed = number("SEED", (uint64_t)time(NULL));
	printf("tests/power: SEED=%" PRIu64 "\n", seed);
	work = make_dir(tmp ? tmp : "/tmp");
	states = make_dir(memory);
	for (const char *const *name = (const char *const[]){"top", "mnt", NULL}; *name; name++) {
		path = check_path(work, *name);
		mkdir(path, 0700);
		free(path);
	}
	clock_gettime(CLOCK_MONOTONIC, &begun);
	n = load_run(work, seed);
	path = check_path(work, "record");
	h = history_read(path);
	free(path);
	printf("tests/power: a load of %.1f s: %" PRIu64
	       " transactions acknowledged, %zu operations recorded, %zu bytes\n",
	       seconds_since(&begun), n.acked, h.count, h.map_len);

	clock_gettime(CLOCK_MONOTONIC, &begun);
	struct found f = try_all(&h, &n, count, 0, NULL);

	printf("tests/power: %zu states, %zu of them bad, %.1f s\n", f.states, f.bad, seconds_since(&begun));
	good = f.bad == 0 && try_each_missing(&h, &n);
	if (!number("POWER_KEEP", 0)) {
		check_rmtree(work);
		check_rmtree(states);
	} else {
		printf("tests/power: kept: %s %s\n", work, states);
	}
	history_free(&h);
	notes_free(&n);
	free(work);
	free(states);
	return good ? 0 : 1;
}
