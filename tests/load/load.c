/*
 * load.c - many clients of one mount for a long time, and what is left of them: `make check-load`.
 *
 * LOAD_CLIENTS processes (200) do random things of all kinds for LOAD_S seconds (600): appends, refused and
 * abandoned ones too, reads, listeners, waits that a signal ends, polls, staged batches, holds, ctl, opens
 * that are closed unread. Now and then one is killed with SIGKILL, and another takes its place. Then all end,
 * and:
 *
 *   - no request is in flight, nothing is open, nobody waits (else it fails; the mount under test also
 * asserts that each request is answered once)
 *   - what the kernel remembers of the mount (reported)
 *   - memory and descriptors of the mount, the means of each third (reported)
 *
 * Then the neighbours: a small append again and again (LOAD_NEAR_S seconds, 10, each), alone and while
 * another user reads a large snapshot with 500 processes, writes 100 transactions without end, or holds 5,000
 * listeners open that nobody reads (reported).
 *
 * The report is build/load/report.md. SEED repeats the choices, though not their order.
 */
#include "tests/load/load.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES_MAX = 20000, CLIENTS_MAX = 1000 };

#define KINDS(X)  \
	X(append) \
	X(refused) X(abandoned) X(read) X(listen) X(interrupted) X(poll) X(staged) X(hold) X(ctl) X(unread)
#define KIND(name) K_##name,
enum kind { KINDS(KIND) KIND_COUNT };
#define WORD(name) #name,
static const char *const words[] = {KINDS(WORD)};

struct board {
	struct tally kinds[KIND_COUNT];
	_Atomic(bool) stop;
};

struct sample {
	unsigned long rss_kib;
	unsigned fds;
};

static struct board *board;
static char mnt[512], store[512];
char shards[SHARDS][600];
static uint64_t seed;

/* --- small things ---------------------------------------------------------------------------------- */

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "load: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(1);
}

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t chance(uint64_t limit)
{
	uint64_t z = (seed += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31)) % limit;
}

void chance_salt(uint64_t salt)
{
	seed += salt * 1000003;
}

uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

void count(struct tally *t, uint64_t begun, int errnum)
{
	uint64_t us = now_us() - begun;
	unsigned i = us < 2 ? 0 : (unsigned)(8 * log2((double)us));

	atomic_fetch_add(&t->us[i < BUCKETS ? i : BUCKETS - 1], 1);
	atomic_fetch_add(&t->done, 1);
	if (errnum != 0) {
		atomic_fetch_add(&t->failed, 1);
		atomic_store(&t->last_errno, errnum);
	}
}

void add_tally(struct tally *to, const struct tally *t)
{
	atomic_fetch_add(&to->done, atomic_load(&t->done));
	atomic_fetch_add(&to->failed, atomic_load(&t->failed));
	for (unsigned i = 0; i < BUCKETS; i++)
		atomic_fetch_add(&to->us[i], atomic_load(&t->us[i]));
}

double quantile_ms(const struct tally *t, double q)
{
	uint64_t all = atomic_load(&t->done), sum = 0;

	for (unsigned i = 0; i < BUCKETS; i++) {
		sum += atomic_load(&t->us[i]);
		if (sum != 0 && (double)sum >= q * (double)all)
			return exp2((i + 1) / 8.0) / 1000;
	}
	return 0;
}

static double metric(const char *name)
{
	char path[600], line[512];
	size_t len = strlen(name);
	double value = -1;
	FILE *f;

	snprintf(path, sizeof path, "%s/metrics", mnt);
	f = fopen(path, "re");
	if (f == NULL)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, name, len) == 0 && line[len] == ' ')
			value = strtod(line + len, NULL);
	fclose(f);
	return value;
}

/* --- clients --------------------------------------------------------------------------------------- */

static const char *a_file(const char *name)
{
	static char path[700];

	snprintf(path, sizeof path, "%s/%s", shards[chance(SHARDS)], name);
	return path;
}

/* Write text to a file in one write(2): 0, or errno. */
static int write_to(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | flags, 0666), rc = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = errno;
	close(fd);
	return rc;
}

static int append_rows(const char *end)
{
	char text[4096], *p = text + sprintf(text, "begin expected_upper=* new_upper=+1\n");

	for (uint64_t n = 1 + chance(20); n > 0; n--)
		p += sprintf(p, "*\t1\tkey%u\tval%u\n", (unsigned)chance(50), (unsigned)chance(5));
	strcpy(p, end);
	return write_to(a_file("append"), 0, text);
}

int read_all(const char *path, size_t most)
{
	static char buf[64 << 10];
	int fd = open(path, O_RDONLY), rc = 0;
	ssize_t n = 1;

	if (fd < 0)
		return errno;
	for (size_t got = 0; n > 0 && got < most; got += (size_t)n)
		n = read(fd, buf, sizeof buf);
	rc = n < 0 ? errno : 0;
	close(fd);
	return rc;
}

static void rang(int sig)
{
	(void)sig;
}

/* A read that waits, until a signal of our own ends it. */
static int wait_and_be_interrupted(void)
{
	struct itimerval never = {0}, soon = {.it_value.tv_usec = 1000 + (long)chance(100000),
					      .it_interval.tv_usec = 50000};
	int fd = open(a_file("wait/18446744073709551614"), O_RDONLY), rc;
	char c;

	if (fd < 0)
		return errno;
	setitimer(ITIMER_REAL, &soon, NULL);
	rc = read(fd, &c, 1) < 0 && errno == EINTR ? 0 : EPROTO;
	setitimer(ITIMER_REAL, &never, NULL);
	close(fd);
	return rc;
}

static int poll_upper(void)
{
	struct pollfd p = {.events = POLLIN, .fd = open(a_file("upper"), O_RDONLY)};
	char buf[32];
	int rc = 0;

	if (p.fd < 0)
		return errno;
	for (int i = 0; i < 3 && rc == 0; i++) {
		if (pread(p.fd, buf, sizeof buf, 0) < 0 || poll(&p, 1, 50) < 0)
			rc = errno;
	}
	close(p.fd);
	return rc;
}

static int stage_and_commit(void)
{
	char name[64], path[700], append[700], text[200];
	const char *shard = shards[chance(SHARDS)];
	int rc;

	snprintf(name, sizeof name, "b%d_%u", (int)getpid(), (unsigned)chance(1000000));
	snprintf(path, sizeof path, "%s/batches/%s", shard, name);
	rc = write_to(path, O_CREAT, "0\t1\tstaged\tx\n0\t1\tstaged\ty\n");
	if (rc != 0)
		return rc;
	if (chance(4) == 0)
		return unlink(path) == 0 ? 0 : errno;
	snprintf(text, sizeof text, "begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch %s\ncommit\n",
		 name);
	snprintf(append, sizeof append, "%s/append", shard);
	rc = write_to(append, 0, text);
	/* The kernel, and we, remember a name until somebody looks again. */
	return rc != 0 ? rc : access(path, F_OK) == 0 || errno != ENOENT ? EPROTO : 0;
}

static int hold_and_drop(void)
{
	char path[800];
	int rc;

	snprintf(path, sizeof path, "%s/holds/c%d", shards[chance(SHARDS)], (int)getpid());
	rc = write_to(path, O_CREAT, "listen=18446744073709551614\n");
	if (rc != 0)
		return rc;
	return unlink(path) == 0 ? 0 : errno;
}

static int open_and_close(void)
{
	static const char *const names[] = {
		"snapshot", "listen/now", "subscribe/now", "append", "as_of/now", "batches", ""};
	int fd = open(a_file(names[chance(7)]), O_RDONLY);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

/* What a listener was given at once: the text of the last steps. */
static int listen_a_while(void)
{
	int fd = open(a_file("subscribe/now"), O_RDONLY | O_NONBLOCK);
	char buf[4096];
	ssize_t n = 1;

	if (fd < 0)
		return errno;
	for (int i = 0; i < 20 && n > 0; i++)
		n = read(fd, buf, sizeof buf);
	n = n < 0 && errno != EAGAIN ? errno : 0;
	close(fd);
	return (int)n;
}

static int do_one(enum kind kind)
{
	static const char *const reads[] = {"snapshot", "as_of/now", "upper", "state", "errors", "since"};
	int rc;

	switch (kind) {
	case K_append:
		return append_rows("commit\n");
	case K_refused:
		rc = write_to(a_file("append"), 0,
			      "begin expected_upper=18446744073709551614 new_upper=-\ncommit\n");
		return rc == ESTALE ? 0 : rc != 0 ? rc : EPROTO;
	case K_abandoned:
		return append_rows("");
	case K_read:
		return read_all(a_file(reads[chance(6)]), 1 << 20);
	case K_listen:
		return listen_a_while();
	case K_interrupted:
		return wait_and_be_interrupted();
	case K_poll:
		return poll_upper();
	case K_staged:
		return stage_and_commit();
	case K_hold:
		return hold_and_drop();
	case K_ctl:
		return write_to(a_file("ctl"), 0, chance(2) == 0 ? "gc\n" : "rollup\n");
	case K_unread:
		return open_and_close();
	case KIND_COUNT:
		break;
	}
	return EPROTO;
}

static void client(uint64_t number)
{
	static const enum kind deck[] = {K_append,    K_append, K_append, K_append, K_refused,
					 K_abandoned, K_read,   K_read,   K_listen, K_interrupted,
					 K_poll,      K_staged, K_hold,   K_unread};
	struct sigaction sa = {.sa_handler = rang};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGALRM, &sa, NULL);
	chance_salt(number);
	while (!atomic_load(&board->stop)) {
		enum kind kind = chance(200) == 0 ? K_ctl : deck[chance(sizeof deck / sizeof deck[0])];
		uint64_t begun = now_us();

		count(&board->kinds[kind], begun, do_one(kind));
	}
	_exit(0);
}

/* --- the mount -------------------------------------------------------------------------------------- */

static pid_t server;

static struct sample look(void)
{
	struct sample s = {0};
	char path[64], line[128];
	struct dirent *e;
	FILE *f;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/status", (int)server);
	f = fopen(path, "re");
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, "VmRSS:", 6) == 0)
			s.rss_kib = strtoul(line + 6, NULL, 10);
	if (f == NULL || s.rss_kib == 0)
		die("the mount has ended");
	fclose(f);
	snprintf(path, sizeof path, "/proc/%d/fd", (int)server);
	d = opendir(path);
	while (d != NULL && (e = readdir(d)) != NULL)
		s.fds += e->d_name[0] != '.';
	if (d != NULL)
		closedir(d);
	return s;
}

unsigned long server_rss_kib(void)
{
	return look().rss_kib;
}

static void start(void)
{
	char line[2000], path[13000];
	FILE *f;

	snprintf(line, sizeof line, "%s -o allow_other %s %s", getenv("SHARDFS"), store, mnt);
	if (system(line) != 0)
		die("the mount did not start");
	snprintf(path, sizeof path, "%s/OWNER", store);
	f = fopen(path, "re");
	if (f == NULL || fgets(line, sizeof line, f) == NULL || strstr(line, "pid=") == NULL)
		die("who serves the mount is not known");
	fclose(f);
	server = (pid_t)strtol(strstr(line, "pid=") + 4, NULL, 10);
	for (int i = 0; i < SHARDS; i++) {
		snprintf(shards[i], sizeof shards[i], "%s/shard/s%08x-0000-4000-8000-%012x", mnt, i, i);
		if (mkdir(shards[i], 0777) != 0 || chmod(shards[i], 0777) != 0)
			die("%s: %s", shards[i], strerror(errno));
		snprintf(path, sizeof path, "%s/since", shards[i]);
		if (write_to(path, 0, "upper-1\n") != 0)
			die("%s: %s", path, strerror(errno));
	}
}

/* Until a gauge of /metrics is at most this; a minute at most. */
static bool settles(const char *name, double most)
{
	for (int i = 0; i < 600 && metric(name) > most; i++)
		usleep(100000);
	return metric(name) <= most;
}

bool all_gone(FILE *out)
{
	static const struct {
		const char *name;
		double most; /* the read of /metrics itself */
	} gauges[] = {{"shardfs_requests_in_flight", 1},
		      {"shardfs_open_files", 1},
		      {"shardfs_waiting_reads", 0},
		      {"shardfs_waiting_commands", 0},
		      {"shardfs_unfinished_bytes", 0}};
	bool ok = true;

	for (size_t i = 0; i < sizeof gauges / sizeof gauges[0]; i++) {
		bool gone = settles(gauges[i].name, gauges[i].most);

		fprintf(out, "- %s at the end: %.0f%s\n", gauges[i].name, metric(gauges[i].name),
			gone ? "" : ", which is WRONG");
		ok = ok && gone;
	}
	return ok;
}

/* --- the long load ---------------------------------------------------------------------------------- */

static pid_t spawn_client(uint64_t number)
{
	pid_t pid = fork();

	if (pid == 0)
		client(number);
	if (pid < 0)
		die("no process: %s", strerror(errno));
	return pid;
}

static void means(const struct sample *all, size_t from, size_t to, double *rss_mib, double *fds)
{
	*rss_mib = *fds = 0;
	for (size_t i = from; i < to; i++) {
		*rss_mib += (double)all[i].rss_kib / 1024 / (double)(to - from);
		*fds += (double)all[i].fds / (double)(to - from);
	}
}

static bool long_load(FILE *out)
{
	static struct sample samples[SAMPLES_MAX];
	static pid_t pids[CLIENTS_MAX];
	uint64_t seconds = setting("LOAD_S", 600), clients = setting("LOAD_CLIENTS", 200), number = 0,
		 killed = 0;
	uint64_t end = now_us() + seconds * 1000000, next = 0;
	size_t n = 0;
	double rss[3], fds[3];

	if (clients > CLIENTS_MAX)
		die("at most %d clients", CLIENTS_MAX);
	for (uint64_t i = 0; i < clients; i++)
		pids[i] = spawn_client(++number);
	while (now_us() < end) {
		uint64_t i = chance(clients);

		usleep(100000);
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		pids[i] = spawn_client(++number);
		killed++;
		if (now_us() >= next && n < SAMPLES_MAX) {
			samples[n++] = look();
			next = now_us() + 1000000;
		}
	}
	atomic_store(&board->stop, true);
	for (uint64_t i = 0; i < clients; i++)
		waitpid(pids[i], NULL, 0);
	fprintf(out,
		"## %llu clients for %llu s, %llu of them killed\n\n| what | per s | p50 ms | p99 ms | "
		"failed |\n|---|---|---|---|---|\n",
		(unsigned long long)clients, (unsigned long long)seconds, (unsigned long long)killed);
	for (int k = 0; k < KIND_COUNT; k++) {
		const struct tally *t = &board->kinds[k];

		fprintf(out, "| %s | %.1f | %.2f | %.2f | %llu %s |\n", words[k],
			(double)t->done / (double)seconds, quantile_ms(t, 0.5), quantile_ms(t, 0.99),
			(unsigned long long)t->failed, t->failed != 0 ? strerrorname_np(t->last_errno) : "");
	}
	for (size_t i = 0; i < 3; i++)
		means(samples, i * n / 3, (i + 1) * n / 3, &rss[i], &fds[i]);
	fprintf(out,
		"\n- memory of the mount: %.1f MiB in the first third, %.1f in the second, %.1f in the last\n"
		"- descriptors: %.1f, %.1f and %.1f\n",
		rss[0], rss[1], rss[2], fds[0], fds[1], fds[2]);
	fprintf(out, "- names that the kernel remembers: %.0f\n", metric("shardfs_nodes"));
	return all_gone(out);
}

int main(int argc, char **argv)
{
	char path[700];
	FILE *out;
	bool ok;

	if (argc != 2 || getenv("SHARDFS") == NULL || geteuid() != 0)
		die("as root: SHARDFS=<program> load DIR");
	seed = setting("SEED", (uint64_t)time(NULL));
	printf("load: SEED=%llu\n", (unsigned long long)seed);
	snprintf(mnt, sizeof mnt, "%s/mnt", argv[1]);
	snprintf(store, sizeof store, "%s/store", argv[1]);
	if ((mkdir(mnt, 0755) != 0 && errno != EEXIST))
		die("%s: %s", mnt, strerror(errno));
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	snprintf(path, sizeof path, "%s/report.md", argv[1]);
	out = fopen(path, "we");
	if (board == MAP_FAILED || out == NULL)
		die("%s: %s", path, strerror(errno));
	setvbuf(out, NULL, _IOLBF, 0);
	fprintf(out, "# Load (SEED=%llu, %s)\n\n", (unsigned long long)seed, getenv("SHARDFS"));
	fflush(out);
	start();
	ok = setting("LOAD_S", 600) == 0 || long_load(out);
	ok = (setting("LOAD_NEAR_S", 10) == 0 || neighbours(out)) && ok;
	fclose(out);
	kill(server, SIGTERM);
	printf("load: %s; see %s\n", ok ? "all was answered and given back" : "something was left", path);
	return ok ? 0 : 1;
}
