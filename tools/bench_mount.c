/*
 * bench_mount.c - the work through the mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
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

static void *kept_open(const struct bench_place *place, void *first)
{
	struct mounted *m = mounted_open(place);

	(void)first;
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
	.tag = "mount",
	.open = kept_open,
	.one = kept_one,
	.close = mounted_close,
};

/* --- open, write, close each time ------------------------------------------------------------------- */

static void *each_open(const struct bench_place *place, void *first)
{
	(void)first;
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
	.tag = "mount, open-write-close",
	.open = each_open,
	.one = each_one,
	.close = mounted_close,
};

/* --- many to one shard, at whatever upper it has ---------------------------------------------------- */

static void *blind_open(const struct bench_place *place, void *first)
{
	const struct mounted *shared = first;
	struct mounted *m;

	if (first == NULL)
		return kept_open(place, NULL);
	m = calloc(1, sizeof *m);
	if (m == NULL || (m->append = strdup(shared->append)) == NULL)
		bench_die_errno(shared->append);
	m->fd = open_append(m);
	return m;
}

static void blind_one(void *self, uint64_t i)
{
	const struct mounted *m = self;
	char text[BENCH_TEXT_MAX], key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1];

	bench_key(i, key);
	bench_val(i, val);
	bench_write(m->fd, text,
		    (size_t)snprintf(text, sizeof text,
				     "begin expected_upper=* new_upper=+1\n*\t1\t%s\t%s\ncommit\n", key, val),
		    m->append);
}

const struct bench_kind bench_blind = {
	.name = "mount, one shard, each its descriptor",
	.tag = "mount",
	.open = blind_open,
	.one = blind_one,
	.close = mounted_close,
};

/* --- one WRITE request that touches no store: a row of a transaction that never commits ------------- */

static void *write_only_open(const struct bench_place *place, void *first)
{
	static const char begin[] = "begin expected_upper=0 new_upper=1\n";
	struct mounted *m = kept_open(place, first);

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
	.name = "floor: FUSE write that touches no store",
	.tag = "floor: FUSE write",
	.open = write_only_open,
	.one = write_only_one,
	.close = mounted_close,
};

/* --- a shard, its rows and its reader --------------------------------------------------------------- */

enum { CHUNK = 1 << 20, READ = 128 << 10 };

void bench_writer_open(struct bench_writer *w)
{
	char *append = bench_path(w->dir, "append");

	w->fd = open(append, O_WRONLY | O_CLOEXEC);
	if (w->fd < 0)
		bench_die_errno(append);
	free(append);
}

void bench_writer_close(struct bench_writer *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
}

struct bench_writer bench_writer_new(const struct bench_place *place)
{
	struct bench_writer w = {.dir = bench_make_shard(place)};

	bench_writer_open(&w);
	return w;
}

void bench_writer_end(struct bench_writer *w)
{
	bench_writer_close(w);
	free(w->dir);
}

double bench_append_us(struct bench_writer *w)
{
	char text[BENCH_TEXT_MAX];
	size_t len = bench_transaction(w->upper++, text);
	uint64_t start = bench_now_ns();

	bench_write(w->fd, text, len, w->dir);
	return (double)(bench_now_ns() - start) / 1e3;
}

struct bench_text bench_text_new(int fd, const char *to)
{
	struct bench_text t = {.fd = fd, .to = to, .chunk = malloc(CHUNK)};

	if (t.chunk == NULL)
		bench_die_errno("memory for text");
	return t;
}

void bench_text_flush(struct bench_text *t)
{
	if (t->len != 0)
		bench_write(t->fd, t->chunk, t->len, t->to);
	t->len = 0;
}

void bench_text_add(struct bench_text *t, const char *format, ...)
{
	va_list args;

	if (t->len + BENCH_TEXT_MAX > CHUNK)
		bench_text_flush(t);
	va_start(args, format);
	t->len += (size_t)vsnprintf(t->chunk + t->len, BENCH_TEXT_MAX, format, args);
	va_end(args);
}

void bench_text_row(struct bench_text *t, uint64_t time, int diff, uint64_t key, uint64_t val)
{
	char k[BENCH_KEY_LEN + 1], v[BENCH_VAL_LEN + 1];
	size_t before;

	if (t->len + BENCH_TEXT_MAX > CHUNK)
		bench_text_flush(t);
	before = t->len;
	bench_key(key, k);
	bench_val(val, v);
	bench_text_add(t, "%" PRIu64 "\t%d\t%s\t%s\n", time, diff, k, v);
	t->row_bytes += t->len - before;
}

void bench_text_end(struct bench_text *t)
{
	bench_text_flush(t);
	free(t->chunk);
	t->chunk = NULL;
}

/* As cat reads, into the same buffer again and again, or one part after the other. */
static struct bench_reading read_file(const char *path, char *buf, size_t room, bool onward)
{
	struct bench_reading r = {0};
	uint64_t start = bench_now_ns();
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		bench_die_errno(path);
	for (;;) {
		size_t at = onward ? r.bytes : 0, most = room - at < READ ? room - at : READ;

		n = read(fd, buf + at, most);
		if (n <= 0)
			break;
		if (r.bytes == 0)
			r.first_byte_s = (double)(bench_now_ns() - start) / 1e9;
		r.bytes += (uint64_t)n;
	}
	if (n < 0)
		bench_die_errno(path);
	r.all_s = (double)(bench_now_ns() - start) / 1e9;
	close(fd);
	return r;
}

struct bench_reading bench_read_all(const char *path)
{
	char *buf = malloc(READ);
	struct bench_reading r;

	if (buf == NULL)
		bench_die_errno("memory for reading");
	memset(buf, 0, READ);
	r = read_file(path, buf, READ, false);
	free(buf);
	return r;
}

struct bench_reading bench_read_into(const char *path, char *into, size_t room)
{
	return read_file(path, into, room, true);
}

/* --- its process ------------------------------------------------------------------------------------ */

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

/* What it has used of the processors. */
static uint64_t ticks(pid_t pid)
{
	unsigned long long user = 0, sys = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
	f = fopen(path, "re");
	if (f == NULL ||
	    fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &sys) != 2)
		bench_die_errno(path);
	fclose(f);
	return user + sys;
}

void bench_settle(const struct bench_place *place)
{
	uint64_t before = UINT64_MAX;

	for (int tries = 0; tries < 50 && ticks(place->pid) != before; tries++) {
		before = ticks(place->pid);
		bench_rest(200000);
	}
}
