/*
 * bench_disk.c - the same work by RocksDB and by a plain file, and the floors: what the disk takes by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/bench.h"

/* --- RocksDB: the transaction's text, put with sync; nothing is compared ---------------------------- */

struct rocks {
	rocksdb_t *db; /* one for all clients; the first one closes it */
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *sync;
	struct rocks *first;
	unsigned clients; /* of the first */
	unsigned client;
};

static void *rocks_open(const struct bench_place *place, void *first)
{
	struct rocks *r = calloc(1, sizeof *r);
	char *path = bench_new_path(place->dir, "rocksdb"), *err = NULL;

	if (r == NULL)
		bench_die_errno("RocksDB");
	r->first = first != NULL ? first : r;
	r->client = r->first->clients++;
	r->sync = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(r->sync, 1);
	if (first == NULL) {
		r->options = rocksdb_options_create();
		rocksdb_options_set_create_if_missing(r->options, 1);
		r->db = rocksdb_open(r->options, path, &err);
	}
	if (err != NULL)
		bench_die("RocksDB", err);
	r->db = r->first->db;
	free(path);
	return r;
}

static void rocks_one(void *self, uint64_t i)
{
	struct rocks *r = self;
	char key[40], text[BENCH_TEXT_MAX], *err = NULL;
	size_t len = bench_transaction(i, text);

	snprintf(key, sizeof key, "%04u%020" PRIu64, r->client, i);
	rocksdb_put(r->db, r->sync, key, strlen(key), text, len, &err);
	if (err != NULL)
		bench_die("RocksDB", err);
}

static void rocks_close(void *self)
{
	struct rocks *r = self;

	rocksdb_writeoptions_destroy(r->sync);
	if (r->first == r) {
		rocksdb_close(r->db);
		rocksdb_options_destroy(r->options);
	}
	free(r);
}

const struct bench_kind bench_rocks_put = {
	.name = "RocksDB put with sync, in the process",
	.tag = "RocksDB put",
	.open = rocks_open,
	.one = rocks_one,
	.close = rocks_close,
};

/* --- a file ----------------------------------------------------------------------------------------- */

enum { APPENDED = 200, BLOCK = 4096 };

struct file {
	int fd;
	char block[BLOCK];
};

static void *file_open(const struct bench_place *place, const char *name)
{
	struct file *f = calloc(1, sizeof *f);
	char *path = bench_new_path(place->dir, name);

	if (f == NULL)
		bench_die_errno(path);
	memset(f->block, 'x', sizeof f->block);
	f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (f->fd < 0)
		bench_die_errno(path);
	free(path);
	return f;
}

static void sync_data(const struct file *f)
{
	if (fdatasync(f->fd) != 0)
		bench_die_errno("fdatasync");
}

static void *append_open(const struct bench_place *place, void *first)
{
	(void)first;
	return file_open(place, "appended");
}

static void append_one(void *self, uint64_t i)
{
	const struct file *f = self;

	(void)i;
	bench_write(f->fd, f->block, APPENDED, "a file");
	sync_data(f);
}

static void *overwrite_open(const struct bench_place *place, void *first)
{
	struct file *f = file_open(place, "overwritten");

	(void)first;
	bench_write(f->fd, f->block, BLOCK, "a file");
	if (fsync(f->fd) != 0)
		bench_die_errno("fsync");
	return f;
}

static void overwrite_one(void *self, uint64_t i)
{
	struct file *f = self;

	memcpy(f->block, &i, sizeof i);
	if (pwrite(f->fd, f->block, BLOCK, 0) != BLOCK)
		bench_die_errno("pwrite");
	sync_data(f);
}

static void file_close(void *self)
{
	struct file *f = self;

	close(f->fd);
	free(f);
}

/* --- a file of rows: a lock, a look at the last time, a row more, fdatasync -------------------------- */

static void *rows_open(const struct bench_place *place, void *first)
{
	(void)first;
	return file_open(place, "rows");
}

/* The upper of what is in it: the last row's time and one. */
static uint64_t rows_upper(const struct file *f)
{
	char tail[BENCH_TEXT_MAX + 1] = "";
	const char *end;
	struct stat st;
	off_t from;
	ssize_t n;

	if (fstat(f->fd, &st) != 0)
		bench_die_errno("fstat");
	if (st.st_size == 0)
		return 0;
	from = st.st_size > BENCH_TEXT_MAX ? st.st_size - BENCH_TEXT_MAX : 0;
	n = pread(f->fd, tail, BENCH_TEXT_MAX, from);
	if (n <= 0)
		bench_die_errno("pread");
	end = tail + n - 1;
	while (end > tail && end[-1] != '\n')
		end--;
	return strtoull(end, NULL, 10) + 1;
}

static void rows_one(void *self, uint64_t i)
{
	const struct file *f = self;
	char key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1], row[BENCH_TEXT_MAX];

	bench_key(i, key);
	bench_val(i, val);
	if (flock(f->fd, LOCK_EX) != 0)
		bench_die_errno("flock");
	if (rows_upper(f) != i)
		bench_die("a file of rows", "the upper is another one than expected");
	bench_write(f->fd, row, (size_t)snprintf(row, sizeof row, "%" PRIu64 "\t1\t%s\t%s\n", i, key, val),
		    "a file");
	sync_data(f);
	if (flock(f->fd, LOCK_UN) != 0)
		bench_die_errno("flock");
}

const struct bench_kind bench_file_flock = {
	.name = "plain file, flock, append, fdatasync",
	.tag = "plain file with flock",
	.open = rows_open,
	.one = rows_one,
	.close = file_close,
};

const struct bench_kind bench_append_sync = {
	.name = "floor: 200 B appended, fdatasync",
	.tag = "floor: append, fdatasync",
	.open = append_open,
	.one = append_one,
	.close = file_close,
};

const struct bench_kind bench_overwrite_sync = {
	.name = "floor: 4 KiB overwritten, fdatasync",
	.tag = "floor: overwrite, fdatasync",
	.open = overwrite_open,
	.one = overwrite_one,
	.close = file_close,
};
