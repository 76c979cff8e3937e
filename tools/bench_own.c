/*
 * bench_own.c - see bench_own.h.
 */
#include "tools/bench_own.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DU_BLOCK = 512, REST_S_MAX = 600, REST_LOOK_MS = 500, STOP_S_MAX = 120, TEXT_MAX = 1 << 20 };

/* Up to TEXT_MAX bytes of a file as text, given (free); NULL: there is none. */
static char *text_of(const char *path)
{
	char *text = calloc(1, TEXT_MAX + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = 0;

	if (text == NULL || (fd < 0 && errno != ENOENT))
		bench_die_errno(path);
	while (fd >= 0 && len < TEXT_MAX && (n = read(fd, text + len, TEXT_MAX - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		bench_die_errno(path);
	if (fd >= 0) {
		close(fd);
		return text;
	}
	free(text);
	return NULL;
}

/* --- starting and stopping -------------------------------------------------------------------------- */

double bench_command_s(const char *program, const char *arg1, const char *arg2)
{
	uint64_t start = bench_now_ns();
	char *const argv[] = {strdup(program), strdup(arg1), arg2 != NULL ? strdup(arg2) : NULL, NULL};
	posix_spawn_file_actions_t to_null;
	pid_t child;
	int status;

	/* Not by fork, which takes the longer the more memory this process has. */
	posix_spawn_file_actions_init(&to_null);
	posix_spawn_file_actions_addopen(&to_null, 1, "/dev/null", O_WRONLY, 0);
	errno = posix_spawnp(&child, program, &to_null, NULL, argv, environ);
	if (errno != 0)
		bench_die_errno(program);
	posix_spawn_file_actions_destroy(&to_null);
	for (size_t i = 0; i < 3; i++)
		free(argv[i]);
	if (waitpid(child, &status, 0) != child)
		bench_die_errno("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_die(program, "it failed");
	return (double)(bench_now_ns() - start) / 1e9;
}

struct bench_own bench_own_new(const struct bench_place *place, const char *name)
{
	struct bench_own o = {.place = *place};
	char *base = bench_path(place->dir, name);

	if (asprintf(&o.store, "%s.store", base) < 0 || asprintf(&o.mountpoint, "%s.mnt", base) < 0)
		bench_die_errno("a path");
	if (mkdir(o.mountpoint, 0700) != 0)
		bench_die_errno(o.mountpoint);
	o.place.mount = o.mountpoint;
	o.place.pid = 0;
	free(base);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return o;
}

void bench_own_start(struct bench_own *o)
{
	char *path = bench_path(o->store, "OWNER"), *text, *pid;

	o->start_s = bench_command_s(o->place.shardfs, o->store, o->mountpoint);
	text = text_of(path);
	pid = text != NULL ? strstr(text, "pid=") : NULL;
	if (pid == NULL)
		bench_die(path, "it does not name the owner's pid");
	o->place.pid = (pid_t)strtol(pid + strlen("pid="), NULL, 10);
	free(text);
	free(path);
}

void bench_own_stop(struct bench_own *o)
{
	uint64_t start = bench_now_ns();
	int status = 0;
	pid_t ended;

	if (o->place.peak_kib != NULL) {
		uint64_t kib = bench_memory_kib(o->place.pid, "VmHWM:");

		*o->place.peak_kib = kib > *o->place.peak_kib ? kib : *o->place.peak_kib;
	}
	kill(o->place.pid, SIGTERM);
	while ((ended = waitpid(o->place.pid, &status, WNOHANG)) == 0) {
		if (bench_now_ns() - start > (uint64_t)STOP_S_MAX * 1000000000)
			bench_die(o->mountpoint, "its process does not end");
		bench_rest(10000);
	}
	if (ended < 0)
		bench_die_errno("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_die(o->mountpoint, "its process did not end well");
	o->place.pid = 0;
}

/* Every file below root and root; returns the bytes they take. */
static uint64_t walk(char *root, bool delete)
{
	char *roots[] = {root, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	uint64_t blocks = 0;
	FTSENT *e;

	if (fts == NULL)
		bench_die_errno(root);
	while ((e = fts_read(fts)) != NULL) {
		if (e->fts_info == FTS_DP) { /* a directory, after what is in it */
			if (delete)
				rmdir(e->fts_accpath);
			continue;
		}
		if (e->fts_info == FTS_NS || e->fts_info == FTS_ERR || e->fts_info == FTS_DNR)
			continue; /* it has gone meanwhile */
		blocks += (uint64_t)e->fts_statp->st_blocks;
		if (delete &&e->fts_info != FTS_D)
			unlink(e->fts_accpath);
	}
	fts_close(fts);
	return blocks * DU_BLOCK;
}

void bench_own_remove(struct bench_own *o)
{
	if (o->place.pid != 0)
		bench_own_stop(o);
	walk(o->store, true);
	rmdir(o->mountpoint);
	free(o->store);
	free(o->mountpoint);
}

/* --- what is known from outside --------------------------------------------------------------------- */

uint64_t bench_own_bytes(const struct bench_own *o, const char *part)
{
	char *root = bench_path(o->store, part != NULL ? part : "");
	uint64_t bytes = walk(root, false);

	free(root);
	return bytes;
}

uint64_t bench_own_written(const struct bench_own *o)
{
	uint64_t written, cancelled;
	char path[64], *text, *at;

	snprintf(path, sizeof path, "/proc/%ld/io", (long)o->place.pid);
	text = text_of(path);
	at = text != NULL ? strstr(text, "\nwrite_bytes: ") : NULL;
	if (at == NULL || sscanf(at, " write_bytes: %" SCNu64 " cancelled_write_bytes: %" SCNu64, &written,
				 &cancelled) != 2)
		bench_die(path, "it does not tell what was written");
	free(text);
	return written - cancelled;
}

/* Something is due or runs, as far as the mount tells. */
static bool busy(const struct bench_own *o)
{
	static const char *const gauges[] = {"shardfs_upkeep_queue_shards", "shardfs_compactions_running",
					     "shardfs_background_jobs"};

	for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++)
		if (bench_metric(o, gauges[i]) > 0)
			return true;
	return false;
}

double bench_own_at_rest(const struct bench_own *o, uint64_t quiet_s)
{
	uint64_t start = bench_now_ns(), changed = start, now = start, bytes = 0, written = 0;

	while (now - changed < quiet_s * 1000000000) {
		uint64_t b = bench_own_bytes(o, NULL), w = bench_own_written(o);

		now = bench_now_ns();
		if (b != bytes || w != written || busy(o))
			changed = now;
		bytes = b;
		written = w;
		if (now - start > (uint64_t)REST_S_MAX * 1000000000) {
			fprintf(stderr, "bench: %s does not come to rest\n", o->store);
			break;
		}
		bench_rest(REST_LOOK_MS * 1000L);
	}
	return (double)(changed - start) / 1e9;
}

/* The number behind the first `key` in the file's text. */
static double number_in(const char *path, const char *key)
{
	char *text = text_of(path), *at = text != NULL ? strstr(text, key) : NULL, *end;
	double n = NAN;

	if (at != NULL) {
		n = strtod(at + strlen(key), &end);
		if (end == at + strlen(key))
			n = NAN;
	}
	free(text);
	return n;
}

double bench_metric(const struct bench_own *o, const char *name)
{
	char *path = bench_path(o->mountpoint, "metrics"), key[128];
	double n;

	snprintf(key, sizeof key, "\n%s ", name);
	n = number_in(path, key);
	free(path);
	return n;
}

double bench_state_number(const char *shard, const char *name)
{
	char *path = bench_path(shard, "state"), key[128];
	double n;

	snprintf(key, sizeof key, "\"%s\":", name);
	n = number_in(path, key);
	free(path);
	return n;
}

bool bench_ctl(const char *shard, const char *verb)
{
	char *path = bench_path(shard, "ctl"), line[64];
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 && errno != ENOENT)
		bench_die_errno(path);
	if (fd >= 0) {
		bench_write(fd, line, (size_t)snprintf(line, sizeof line, "%s\n", verb), path);
		close(fd);
	}
	free(path);
	return fd >= 0;
}

void bench_since_follows(const char *shard)
{
	static const char policy[] = "upper-1\n";
	char *path = bench_path(shard, "since");
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		bench_die_errno(path);
	bench_write(fd, policy, strlen(policy), path);
	close(fd);
	free(path);
}
