/*
 * bench_mount.c - the work through the mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/bench.h"

char *bench_make_shard(const struct bench_place *place)
{
	char uuid[37] = "", *dir = NULL;
	FILE *f = fopen("/proc/sys/kernel/random/uuid", "re");

	if (f == NULL || fgets(uuid, sizeof uuid, f) == NULL)
		bench_die_errno("/proc/sys/kernel/random/uuid");
	fclose(f);
	if (asprintf(&dir, "%s/shard/s%s", place->mount, uuid) < 0)
		bench_die_errno("a path");
	if (mkdir(dir, 0700) != 0)
		bench_die_errno(dir);
	return dir;
}

struct mounted {
	char *append; /* its path */
	int fd;       /* kept open, or -1 */
};

static struct mounted *mounted_open(const struct bench_place *place)
{
	struct mounted *m = calloc(1, sizeof *m);
	char *dir = bench_make_shard(place);

	if (m == NULL)
		bench_die_errno(dir);
	m->append = bench_path(dir, "append");
	m->fd = -1;
	free(dir);
	return m;
}

static void mounted_close(void *self)
{
	struct mounted *m = self;

	if (m->fd >= 0)
		close(m->fd);
	free(m->append);
	free(m);
}

/* As the > of a shell. */
static int open_append(const struct mounted *m)
{
	int fd = open(m->append, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		bench_die_errno(m->append);
	return fd;
}

static void append_one(const struct mounted *m, int fd, uint64_t i)
{
	char text[BENCH_TEXT_MAX];

	bench_write(fd, text, bench_transaction(i, text), m->append);
}

/* --- a descriptor kept open ------------------------------------------------------------------------- */

static void *kept_open(const struct bench_place *place)
{
	struct mounted *m = mounted_open(place);

	m->fd = open_append(m);
	return m;
}

static void kept_one(void *self, uint64_t i)
{
	const struct mounted *m = self;

	append_one(m, m->fd, i);
}

const struct bench_kind bench_kept_open = {
	.name = "mount, descriptor kept open",
	.open = kept_open,
	.one = kept_one,
	.close = mounted_close,
};

/* --- open, write, close each time ------------------------------------------------------------------- */

static void *each_open(const struct bench_place *place)
{
	return mounted_open(place);
}

static void each_one(void *self, uint64_t i)
{
	const struct mounted *m = self;
	int fd = open_append(m);

	append_one(m, fd, i);
	if (close(fd) != 0)
		bench_die_errno(m->append);
}

const struct bench_kind bench_open_write_close = {
	.name = "mount, open + write + close each",
	.open = each_open,
	.one = each_one,
	.close = mounted_close,
};

/* --- one WRITE request that touches no store: a row of a transaction that never commits ------------- */

static void *write_only_open(const struct bench_place *place)
{
	static const char begin[] = "begin expected_upper=0 new_upper=1\n";
	struct mounted *m = kept_open(place);

	bench_write(m->fd, begin, strlen(begin), m->append);
	return m;
}

static void write_only_one(void *self, uint64_t i)
{
	static const char row[] = "0\t1\tk\tv\n";
	const struct mounted *m = self;

	(void)i;
	bench_write(m->fd, row, strlen(row), m->append);
}

const struct bench_kind bench_write_only = {
	.name = "floor: mount, write of a row, no commit",
	.open = write_only_open,
	.one = write_only_one,
	.close = mounted_close,
};

/* --- a large transaction ---------------------------------------------------------------------------- */

enum { CHUNK = 1 << 20, READ = 128 << 10 };

uint64_t bench_memory_kib(pid_t pid, const char *name)
{
	char path[64], line[256];
	uint64_t kib = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
	f = fopen(path, "re");
	if (f == NULL)
		bench_die_errno(path);
	while (fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, name, strlen(name)) == 0)
			kib = strtoull(line + strlen(name), NULL, 10);
	fclose(f);
	return kib;
}

/* The rows as text in writes of up to CHUNK bytes; returns how many bytes. */
static uint64_t write_rows(int fd, uint64_t rows, const char *to)
{
	char key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1], *chunk = malloc(CHUNK);
	uint64_t bytes = 0;
	size_t len = 0;

	if (chunk == NULL)
		bench_die_errno("a large transaction");
	for (uint64_t i = 0; i < rows; i++) {
		if (len + BENCH_TEXT_MAX > CHUNK) {
			bench_write(fd, chunk, len, to);
			len = 0;
		}
		bench_key(i, key);
		bench_val(i, val);
		size_t n = (size_t)snprintf(chunk + len, BENCH_TEXT_MAX, "0\t1\t%s\t%s\n", key, val);
		len += n;
		bytes += n;
	}
	bench_write(fd, chunk, len, to);
	free(chunk);
	return bytes;
}

static void commit_big(const char *append, struct bench_big *out)
{
	static const char begin[] = "begin expected_upper=0 new_upper=1\n", commit[] = "commit\n";
	char verdict[1024] = "";
	uint64_t start = bench_now_ns();
	int fd = open(append, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		bench_die_errno(append);
	bench_write(fd, begin, strlen(begin), append);
	out->bytes = write_rows(fd, out->rows, append);
	bench_write(fd, commit, strlen(commit), append);
	out->commit_s = (double)(bench_now_ns() - start) / 1e9;
	if (read(fd, verdict, sizeof verdict - 1) < 0)
		bench_die_errno(append);
	if (strncmp(verdict, "ok ", 3) != 0)
		bench_die(append, verdict);
	close(fd);
}

static void read_big(const char *snapshot, struct bench_big *out)
{
	char *buf = malloc(READ);
	uint64_t start = bench_now_ns(), bytes = 0;
	int fd = open(snapshot, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0 || buf == NULL)
		bench_die_errno(snapshot);
	while ((n = read(fd, buf, READ)) > 0) {
		if (bytes == 0)
			out->first_byte_s = (double)(bench_now_ns() - start) / 1e9;
		bytes += (uint64_t)n;
	}
	if (n < 0)
		bench_die_errno(snapshot);
	out->read_s = (double)(bench_now_ns() - start) / 1e9;
	if (bytes != out->bytes)
		bench_die(snapshot, "not as many bytes came back as went in");
	close(fd);
	free(buf);
}

void bench_big_run(const struct bench_place *place, uint64_t rows, struct bench_big *out)
{
	char *dir = bench_make_shard(place), *append = bench_path(dir, "append"),
	     *snapshot = bench_path(dir, "snapshot");

	*out = (struct bench_big){.rows = rows, .before_kib = bench_memory_kib(place->pid, "VmHWM:")};
	commit_big(append, out);
	out->committed_kib = bench_memory_kib(place->pid, "VmHWM:");
	read_big(snapshot, out);
	out->after_kib = bench_memory_kib(place->pid, "VmHWM:");
	free(snapshot);
	free(append);
	free(dir);
}
