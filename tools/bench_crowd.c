/*
 * bench_crowd.c - see bench_crowd.h.
 */
#include "tools/bench_crowd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK = 64 << 10 };

struct reader {
	const char *path;
	struct bench_board *board;
	size_t number;
};

/* What a listener reads, when it has it: `begin lower=<a> upper=<b>`, and more of the kind. */
static void note(const struct reader *r, const char *text)
{
	uint64_t now = bench_now_ns(), lower, upper, i;

	for (const char *p = text; (p = strstr(p, "begin ")) != NULL; p++) {
		if (sscanf(p, "begin lower=%" SCNu64 " upper=%" SCNu64, &lower, &upper) != 2)
			continue;
		for (i = lower - r->board->first; i < upper - r->board->first; i++)
			if (r->number < BENCH_LISTENERS_MAX && i < BENCH_DELIVERIES)
				r->board->at_ns[r->number][i] = now;
		atomic_fetch_add(&r->board->seen, upper - lower);
	}
}

static void *read_on(void *arg)
{
	const struct reader *r = arg;
	char text[4096];
	int fd = open(r->path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		bench_die_errno(r->path);
	while ((n = read(fd, text, sizeof text - 1)) > 0) {
		text[n] = '\0';
		note(r, text);
	}
	bench_die(r->path, n == 0 ? "it ended" : strerror(errno));
}

_Noreturn static void crowd_main(const char *path, size_t count, struct bench_board *board)
{
	pthread_attr_t small;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	for (size_t i = 0; i < count; i++) {
		struct reader *r = malloc(sizeof *r);

		if (r == NULL)
			bench_die_errno("a reader");
		*r = (struct reader){.path = path, .board = board, .number = i};
		errno = pthread_create(&thread, &small, read_on, r);
		if (errno != 0)
			bench_die_errno("a thread");
	}
	for (;;)
		pause();
}

/* How many threads of a process are in read(2). */
static size_t in_read(pid_t pid)
{
	char path[300], text[64];
	size_t count = 0;
	struct dirent *e;
	DIR *tasks;

	snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
	tasks = opendir(path);
	if (tasks == NULL)
		bench_die_errno(path);
	while ((e = readdir(tasks)) != NULL) {
		FILE *f;

		snprintf(path, sizeof path, "/proc/%ld/task/%s/syscall", (long)pid, e->d_name);
		f = e->d_name[0] != '.' ? fopen(path, "re") : NULL;
		count += f != NULL && fgets(text, sizeof text, f) != NULL &&
			 strtol(text, NULL, 10) == SYS_read && text[0] != 'r';
		if (f != NULL)
			fclose(f);
	}
	closedir(tasks);
	return count;
}

/* `count` readers of the shard's file `name`, when all of them wait. */
struct bench_crowd bench_crowd_new(const char *dir, const char *name, size_t count, uint64_t upper)
{
	struct bench_crowd c = {.count = count};
	char *path = bench_path(dir, name);

	c.board = mmap(NULL, sizeof *c.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c.board == MAP_FAILED)
		bench_die_errno("memory for arrivals");
	c.board->first = upper;
	fflush(NULL);
	c.pid = fork();
	if (c.pid < 0)
		bench_die_errno("fork");
	if (c.pid == 0)
		crowd_main(path, count, c.board);
	for (int tries = 0; in_read(c.pid) < count; tries++) {
		if (tries == 1000)
			bench_die(path, "not all came to wait");
		bench_rest(20000);
	}
	bench_rest(100000); /* the last one's request is on its way */
	free(path);
	return c;
}

struct bench_crowd bench_listeners_new(const struct bench_writer *w, size_t count)
{
	char name[40];

	snprintf(name, sizeof name, "listen/%" PRIu64, w->upper);
	return bench_crowd_new(w->dir, name, count, w->upper);
}

/* Returns the milliseconds it took them to be gone. */
double bench_crowd_end(struct bench_crowd *c)
{
	uint64_t start = bench_now_ns();

	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	munmap(c->board, sizeof *c->board);
	return (double)(bench_now_ns() - start) / 1e6;
}

/* Wait until each of them has seen the times below the upper. */
void bench_crowd_wait(const struct bench_crowd *c, uint64_t upper)
{
	uint64_t start = bench_now_ns();

	while (atomic_load(&c->board->seen) < (upper - c->board->first) * c->count) {
		if (bench_now_ns() - start > 60000000000)
			bench_die("listeners", "not all have what was written");
		bench_rest(50);
	}
}
