/*
 * near.c - what a small append costs while another user does his worst; see load.c.
 *
 * The machine is rarely quiet by itself, so each crowd is measured in rounds, quiet and beside it in turn,
 * and what counts is p99 beside the crowd over p99 of the quiet just before: the median of the rounds.
 */
#include "tests/load/load.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CROWD_MAX = 500, OTHER_UID = 4002, ROUNDS_MAX = 9, LISTENS_EACH = 40 };

/* Processes of a crowd that are at it. */
static _Atomic(unsigned) *ready;

static void be_another(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (setgroups(0, NULL) != 0 || setgid(OTHER_UID) != 0 || setuid(OTHER_UID) != 0)
		_exit(1);
}

static void crowd_reads(void)
{
	char path[700];

	snprintf(path, sizeof path, "%s/snapshot", shards[0]);
	atomic_fetch_add(ready, 1);
	for (;;)
		(void)read_all(path, SIZE_MAX);
}

static void crowd_writes(void)
{
	char path[700], *text = malloc(1 << 20), *p = text;
	int fd;

	snprintf(path, sizeof path, "%s/append", shards[1]);
	while (p < text + (1 << 20) - 64)
		p += sprintf(p, "*\t1\t%llx\tv\n", (unsigned long long)chance(UINT64_MAX));
	atomic_fetch_add(ready, 1);
	for (;;) {
		fd = open(path, O_WRONLY);
		if (write(fd, "begin expected_upper=* new_upper=+1\n", 36) == 36)
			for (int i = 0; i < 64 && write(fd, text, (size_t)(p - text)) > 0;)
				i++;
		close(fd);
	}
}

/* More of them than can be merged. */
static void crowd_appends(void)
{
	char path[700], *text = malloc(40 << 10), *p = text;
	int fd;

	snprintf(path, sizeof path, "%s/append", shards[4]);
	p += sprintf(p, "begin expected_upper=* new_upper=+1\n");
	while (p < text + (32 << 10))
		p += sprintf(p, "*\t1\t%llx\tv\n", (unsigned long long)chance(UINT64_MAX));
	p = stpcpy(p, "commit\n");
	fd = open(path, O_WRONLY);
	atomic_fetch_add(ready, 1);
	while (write(fd, text, (size_t)(p - text)) > 0)
		;
	_exit(1);
}

static void crowd_opens(void)
{
	char path[700];

	snprintf(path, sizeof path, "%s/listen/now", shards[2]);
	atomic_fetch_add(ready, 1);
	for (;;)
		close(open(path, O_RDONLY));
}

/* The least that can be asked of a mount: the floor of what a crowd of processes costs. */
static void crowd_asks(void)
{
	char path[700];
	struct statx stx;

	snprintf(path, sizeof path, "%s/upper", shards[2]);
	atomic_fetch_add(ready, 1);
	for (;;)
		(void)statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx);
}

/* Of one shard, that nobody appends to, or of the one of the small appends. */
static void listens(const char *shard)
{
	char path[700];

	snprintf(path, sizeof path, "%s/listen/now", shard);
	for (int i = 0; i < LISTENS_EACH; i++)
		if (open(path, O_RDONLY) < 0)
			break;
	atomic_fetch_add(ready, 1);
	for (;;)
		pause();
}

static void crowd_listens(void)
{
	listens(shards[2]);
}

static void crowd_listens_here(void)
{
	listens(shards[3]);
}

/* Nothing of the mount, only the cores: what any two programs cost a third, whatever the mount does. */
static void crowd_computes(void)
{
	volatile unsigned n = 0;

	atomic_fetch_add(ready, 1);
	for (;;)
		n++;
}

static void near_appends(struct tally *t)
{
	uint64_t end = now_us() + setting("LOAD_NEAR_S", 10) * 1000000, begun;
	char path[700];
	int fd;

	snprintf(path, sizeof path, "%s/append", shards[3]);
	fd = open(path, O_WRONLY);
	while ((begun = now_us()) < end) {
		static const char text[] = "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n";

		count(t, begun, write(fd, text, sizeof text - 1) < 0 ? errno : 0);
		usleep(2000);
	}
	close(fd);
}

static void fill_shard(void)
{
	char path[700], *text = malloc(9 << 20), *p = text;
	int fd;

	snprintf(path, sizeof path, "%s/append", shards[0]);
	p += sprintf(p, "begin expected_upper=* new_upper=+1\n");
	while (p < text + (8 << 20))
		p += sprintf(p, "*\t1\t%llx\tv\n", (unsigned long long)chance(UINT64_MAX));
	p = stpcpy(p, "commit\n");
	fd = open(path, O_WRONLY);
	for (char *at = text; at < p;) {
		ssize_t n = write(fd, at, (size_t)(p - at) < 1 << 20 ? (size_t)(p - at) : 1 << 20);

		if (n < 0)
			die("the large shard: %s", strerror(errno));
		at += n;
	}
	close(fd);
	free(text);
}

/* --- the crowds ------------------------------------------------------------------------------------- */

struct crowd {
	const char *what;
	unsigned processes; /* 0: as many as there are cores */
	void (*run)(void);
};

static const struct crowd crowds[] = {
	{"500 processes that read a snapshot of 8 MiB", CROWD_MAX, crowd_reads},
	{"100 transactions of 64 MiB, never committed", 100, crowd_writes},
	{"100 processes that append 32 KiB each again and again", 100, crowd_appends},
	{"100 processes that ask for a file's attributes", 100, crowd_asks},
	{"100 processes that open and close listeners", 100, crowd_opens},
	{"4,000 listeners that are not read", 100, crowd_listens},
	{"4,000 listeners of the same shard that are not read", 100, crowd_listens_here},
	{"a process for each core that computes and asks nothing of the mount", 0, crowd_computes},
};

static pid_t pids[CROWD_MAX];

static unsigned size_of(const struct crowd *c)
{
	return c->processes != 0 ? c->processes : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

static void gather(const struct crowd *c)
{
	atomic_store(ready, 0);
	for (unsigned i = 0; i < size_of(c); i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			be_another();
			chance_salt(i);
			c->run();
		}
	}
	while (atomic_load(ready) < size_of(c))
		usleep(10000);
	usleep(1000000);
}

static void scatter(const struct crowd *c)
{
	for (unsigned i = 0; i < size_of(c); i++)
		kill(pids[i], SIGKILL);
	for (unsigned i = 0; i < size_of(c); i++)
		waitpid(pids[i], NULL, 0);
	usleep(1000000);
}

static int by_size(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void measure(const struct crowd *c, FILE *out)
{
	struct tally quiet = {0}, beside = {0};
	uint64_t rounds = setting("LOAD_NEAR_ROUNDS", 3);
	double ratios[ROUNDS_MAX];
	unsigned long rss = 0;

	rounds = rounds < 1 ? 1 : rounds < ROUNDS_MAX ? rounds : ROUNDS_MAX;
	for (uint64_t i = 0; i < rounds; i++) {
		struct tally q = {0}, b = {0};

		near_appends(&q);
		gather(c);
		near_appends(&b);
		rss = server_rss_kib() > rss ? server_rss_kib() : rss;
		scatter(c);
		ratios[i] = quantile_ms(&b, 0.99) / quantile_ms(&q, 0.99);
		add_tally(&quiet, &q);
		add_tally(&beside, &b);
	}
	qsort(ratios, rounds, sizeof *ratios, by_size);
	fprintf(out, "| %s | %llu | %.2f | %.2f | %.2f | %.2f | %.1f (%.1f to %.1f) | %llu | %lu |\n",
		c->what, (unsigned long long)beside.done, quantile_ms(&quiet, 0.5), quantile_ms(&beside, 0.5),
		quantile_ms(&quiet, 0.99), quantile_ms(&beside, 0.99), ratios[rounds / 2], ratios[0],
		ratios[rounds - 1], (unsigned long long)(quiet.failed + beside.failed), rss >> 10);
}

bool neighbours(FILE *out)
{
	uint64_t which = setting("LOAD_NEAR", UINT64_MAX);

	ready = mmap(NULL, sizeof *ready, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ready == MAP_FAILED)
		die("no memory: %s", strerror(errno));
	fill_shard();
	fprintf(out,
		"\n## A small append while another user's crowd is at it\n\n| crowd | appends | quiet p50 ms "
		"| beside | quiet p99 ms | beside | over quiet | failed | memory MiB |\n"
		"|---|---|---|---|---|---|---|---|---|\n");
	for (size_t c = 0; c < sizeof crowds / sizeof crowds[0]; c++)
		if (which >> c & 1)
			measure(&crowds[c], out);
	fputs("\n", out);
	return all_gone(out);
}
