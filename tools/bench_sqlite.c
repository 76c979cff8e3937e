/*
 * bench_sqlite.c - the same work by SQLite in this process: write-ahead log, synchronous=FULL.
 *
 * A collection is a database with the updates and the upper. The text of a large transaction is cut into its
 * fields here, and printed again by the reader, since that is what the mount does with it. Its cache is made
 * large, so that nothing of that transaction is spilled and read back.
 */
#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/bench_bulk.h"

enum { BEGIN, SELECT, INSERT, UPDATE, COMMIT, STATEMENTS };

static const char *const sqlite_sql[STATEMENTS] = {
	"BEGIN IMMEDIATE",
	"SELECT upper FROM shard WHERE id = 1",
	"INSERT INTO updates (time, diff, key, val) VALUES (?1, 1, ?2, ?3)",
	"UPDATE shard SET upper = ?1 WHERE id = 1",
	"COMMIT",
};

struct sqlite {
	char *path;
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
};

static void sqlite_check(const struct sqlite *s, bool ok)
{
	if (!ok)
		bench_die("SQLite", sqlite3_errmsg(s->db));
}

static void sqlite_exec(const struct sqlite *s, const char *sql)
{
	sqlite_check(s, sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK);
}

static void *sqlite_open(const struct bench_place *place, void *first)
{
	struct sqlite *s = calloc(1, sizeof *s);

	(void)first;
	if (s == NULL)
		bench_die_errno("SQLite");
	s->path = bench_new_path(place->dir, "sqlite");
	sqlite_check(s, sqlite3_open(s->path, &s->db) == SQLITE_OK);
	sqlite_exec(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
		       "PRAGMA cache_size = -262144;"
		       "CREATE TABLE shard (id INTEGER PRIMARY KEY, upper INTEGER NOT NULL);"
		       "CREATE TABLE updates (time INTEGER, diff INTEGER, key BLOB, val BLOB);"
		       "INSERT INTO shard VALUES (1, 0);");
	for (int i = 0; i < STATEMENTS; i++)
		sqlite_check(s, sqlite3_prepare_v2(s->db, sqlite_sql[i], -1, &s->statements[i], NULL) ==
					SQLITE_OK);
	return s;
}

static void sqlite_run(struct sqlite *s, int which)
{
	sqlite_check(s, sqlite3_step(s->statements[which]) == SQLITE_DONE);
	sqlite3_reset(s->statements[which]);
}

static void expect_upper(struct sqlite *s, uint64_t upper)
{
	sqlite_check(s, sqlite3_step(s->statements[SELECT]) == SQLITE_ROW);
	if (sqlite3_column_int64(s->statements[SELECT], 0) != (sqlite3_int64)upper)
		bench_die("SQLite", "the upper is another one than expected");
	sqlite3_reset(s->statements[SELECT]);
}

static void insert(struct sqlite *s, uint64_t time, const char *key, size_t key_len, const char *val,
		   size_t val_len)
{
	sqlite3_bind_int64(s->statements[INSERT], 1, (sqlite3_int64)time);
	sqlite3_bind_blob(s->statements[INSERT], 2, key, (int)key_len, SQLITE_STATIC);
	sqlite3_bind_blob(s->statements[INSERT], 3, val, (int)val_len, SQLITE_STATIC);
	sqlite_run(s, INSERT);
}

static void set_upper(struct sqlite *s, uint64_t upper)
{
	sqlite3_bind_int64(s->statements[UPDATE], 1, (sqlite3_int64)upper);
	sqlite_run(s, UPDATE);
}

static void sqlite_one(void *self, uint64_t i)
{
	struct sqlite *s = self;
	char key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1];

	bench_key(i, key);
	bench_val(i, val);
	sqlite_run(s, BEGIN);
	expect_upper(s, i);
	insert(s, i, key, BENCH_KEY_LEN, val, BENCH_VAL_LEN);
	set_upper(s, i + 1);
	sqlite_run(s, COMMIT);
}

static void sqlite_close(void *self)
{
	struct sqlite *s = self;

	for (int i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(s->statements[i]);
	sqlite3_close(s->db);
	unlink(s->path);
	free(s->path);
	free(s);
}

const struct bench_kind bench_sqlite = {
	.name = "SQLite, in the process",
	.tag = "SQLite",
	.open = sqlite_open,
	.one = sqlite_one,
	.close = sqlite_close,
};

/* --- a large transaction, and the collection -------------------------------------------------------- */

void *bench_sqlite_new(const struct bench_place *place)
{
	return sqlite_open(place, NULL);
}

void bench_sqlite_end(void *self)
{
	sqlite_close(self);
}

/* The field that ends at a tab or a newline; *p is put behind that. */
static const char *field(const char **p, char end, size_t *len)
{
	const char *at = *p, *stop = strchr(at, end);

	if (stop == NULL)
		bench_die("SQLite", "a row without its end");
	*len = (size_t)(stop - at);
	*p = stop + 1;
	return at;
}

double bench_sqlite_import(void *self, const struct bench_rows *rows)
{
	struct sqlite *s = self;
	const char *p = rows->text;
	uint64_t start = bench_now_ns();
	size_t len, key_len, val_len;

	sqlite_run(s, BEGIN);
	expect_upper(s, 0);
	while (*p != '\0') {
		uint64_t time = strtoull(field(&p, '\t', &len), NULL, 10);
		const char *key, *val;

		field(&p, '\t', &len); /* the diff is 1 in each */
		key = field(&p, '\t', &key_len);
		val = field(&p, '\n', &val_len);
		insert(s, time, key, key_len, val, val_len);
	}
	set_upper(s, 1);
	sqlite_run(s, COMMIT);
	return (double)(bench_now_ns() - start) / 1e9;
}

struct bench_reading bench_sqlite_read(void *self, char *into)
{
	static const char sql[] =
		"SELECT 0, sum(diff), key, val FROM updates WHERE time <= 0 GROUP BY key, val "
		"HAVING sum(diff) <> 0 ORDER BY key, val";
	struct sqlite *s = self;
	struct bench_reading r = {0};
	uint64_t start = bench_now_ns();
	sqlite3_stmt *q;
	int rc;

	sqlite_check(s, sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) == SQLITE_OK);
	while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
		char *line = into + r.bytes, *p = line;

		p += snprintf(p, 48, "%lld\t%lld\t", sqlite3_column_int64(q, 0), sqlite3_column_int64(q, 1));
		for (int column = 2; column < 4; column++) {
			const void *bytes = sqlite3_column_blob(q, column);
			size_t len = (size_t)sqlite3_column_bytes(q, column);

			memcpy(p, bytes, len);
			p[len] = column == 2 ? '\t' : '\n';
			p += len + 1;
		}
		if (r.bytes == 0)
			r.first_byte_s = (double)(bench_now_ns() - start) / 1e9;
		r.bytes += (uint64_t)(p - line);
	}
	sqlite_check(s, rc == SQLITE_DONE);
	r.all_s = (double)(bench_now_ns() - start) / 1e9;
	sqlite3_finalize(q);
	return r;
}

static uint64_t blocks_of(const char *path, const char *suffix)
{
	char *whole = NULL;
	struct stat st;
	uint64_t bytes = 0;

	if (asprintf(&whole, "%s%s", path, suffix) < 0)
		bench_die_errno("a path");
	if (stat(whole, &st) == 0)
		bytes = (uint64_t)st.st_blocks * 512;
	free(whole);
	return bytes;
}

uint64_t bench_sqlite_bytes(void *self)
{
	const struct sqlite *s = self;

	return blocks_of(s->path, "") + blocks_of(s->path, "-wal");
}
