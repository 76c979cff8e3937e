/*
 * bench_peers.c - the same work by others in this process, and the floors: what the disk takes by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <rocksdb/c.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench.h"

/* --- SQLite: write-ahead log, synchronous=FULL ------------------------------------------------------ */

enum { BEGIN, SELECT, INSERT, UPDATE, COMMIT, STATEMENTS };

static const char *const sqlite_sql[STATEMENTS] = {
	"BEGIN IMMEDIATE",
	"SELECT upper FROM shard WHERE id = 1",
	"INSERT INTO updates (time, diff, key, val) VALUES (?1, 1, ?2, ?3)",
	"UPDATE shard SET upper = ?1 WHERE id = 1",
	"COMMIT",
};

struct sqlite {
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
};

static void sqlite_check(const struct sqlite *s, bool ok)
{
	if (!ok)
		bench_die("SQLite", sqlite3_errmsg(s->db));
}

static void *sqlite_open(const struct bench_place *place)
{
	struct sqlite *s = calloc(1, sizeof *s);
	char *path = bench_path(place->dir, "sqlite.db");

	if (s == NULL)
		bench_die_errno("SQLite");
	sqlite_check(s, sqlite3_open(path, &s->db) == SQLITE_OK);
	sqlite_check(s, sqlite3_exec(s->db,
				     "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
				     "CREATE TABLE shard (id INTEGER PRIMARY KEY, upper INTEGER NOT NULL);"
				     "CREATE TABLE updates (time INTEGER, diff INTEGER, key BLOB, val BLOB);"
				     "INSERT INTO shard VALUES (1, 0);",
				     NULL, NULL, NULL) == SQLITE_OK);
	for (int i = 0; i < STATEMENTS; i++)
		sqlite_check(s, sqlite3_prepare_v2(s->db, sqlite_sql[i], -1, &s->statements[i], NULL) ==
					SQLITE_OK);
	free(path);
	return s;
}

static void sqlite_run(struct sqlite *s, int which)
{
	sqlite_check(s, sqlite3_step(s->statements[which]) == SQLITE_DONE);
	sqlite3_reset(s->statements[which]);
}

static void sqlite_one(void *self, uint64_t i)
{
	struct sqlite *s = self;
	char key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1];

	bench_key(i, key);
	bench_val(i, val);
	sqlite_run(s, BEGIN);
	sqlite_check(s, sqlite3_step(s->statements[SELECT]) == SQLITE_ROW);
	if (sqlite3_column_int64(s->statements[SELECT], 0) != (sqlite3_int64)i)
		bench_die("SQLite", "the upper is another one than expected");
	sqlite3_reset(s->statements[SELECT]);
	sqlite3_bind_int64(s->statements[INSERT], 1, (sqlite3_int64)i);
	sqlite3_bind_blob(s->statements[INSERT], 2, key, BENCH_KEY_LEN, SQLITE_STATIC);
	sqlite3_bind_blob(s->statements[INSERT], 3, val, BENCH_VAL_LEN, SQLITE_STATIC);
	sqlite_run(s, INSERT);
	sqlite3_bind_int64(s->statements[UPDATE], 1, (sqlite3_int64)i + 1);
	sqlite_run(s, UPDATE);
	sqlite_run(s, COMMIT);
}

static void sqlite_close(void *self)
{
	struct sqlite *s = self;

	for (int i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(s->statements[i]);
	sqlite3_close(s->db);
	free(s);
}

const struct bench_kind bench_sqlite = {
	.name = "SQLite, in the process",
	.open = sqlite_open,
	.one = sqlite_one,
	.close = sqlite_close,
};

/* --- RocksDB: the transaction's text, put with sync ------------------------------------------------- */

struct rocks {
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *sync;
};

static void *rocks_open(const struct bench_place *place)
{
	struct rocks *r = calloc(1, sizeof *r);
	char *path = bench_path(place->dir, "rocksdb"), *err = NULL;

	if (r == NULL)
		bench_die_errno("RocksDB");
	r->options = rocksdb_options_create();
	rocksdb_options_set_create_if_missing(r->options, 1);
	r->sync = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(r->sync, 1);
	r->db = rocksdb_open(r->options, path, &err);
	if (err != NULL)
		bench_die("RocksDB", err);
	free(path);
	return r;
}

static void rocks_one(void *self, uint64_t i)
{
	struct rocks *r = self;
	char key[24], text[BENCH_TEXT_MAX], *err = NULL;
	size_t len = bench_transaction(i, text);

	snprintf(key, sizeof key, "%020" PRIu64, i);
	rocksdb_put(r->db, r->sync, key, strlen(key), text, len, &err);
	if (err != NULL)
		bench_die("RocksDB", err);
}

static void rocks_close(void *self)
{
	struct rocks *r = self;

	rocksdb_close(r->db);
	rocksdb_writeoptions_destroy(r->sync);
	rocksdb_options_destroy(r->options);
	free(r);
}

const struct bench_kind bench_rocks_put = {
	.name = "RocksDB put with sync, in the process",
	.open = rocks_open,
	.one = rocks_one,
	.close = rocks_close,
};

/* --- the disk --------------------------------------------------------------------------------------- */

enum { APPENDED = 200, BLOCK = 4096 };

struct file {
	int fd;
	char block[BLOCK];
};

static void *file_open(const struct bench_place *place, const char *name)
{
	struct file *f = calloc(1, sizeof *f);
	char *path = bench_path(place->dir, name);

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

static void *append_open(const struct bench_place *place)
{
	return file_open(place, "appended");
}

static void append_one(void *self, uint64_t i)
{
	const struct file *f = self;

	(void)i;
	bench_write(f->fd, f->block, APPENDED, "a file");
	sync_data(f);
}

static void *overwrite_open(const struct bench_place *place)
{
	struct file *f = file_open(place, "overwritten");

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

const struct bench_kind bench_append_sync = {
	.name = "floor: 200 B appended, fdatasync",
	.open = append_open,
	.one = append_one,
	.close = file_close,
};

const struct bench_kind bench_overwrite_sync = {
	.name = "floor: 4 KiB overwritten, fdatasync",
	.open = overwrite_open,
	.one = overwrite_one,
	.close = file_close,
};
