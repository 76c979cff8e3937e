/*
 * bench_pg.c - the same work by PostgreSQL, over its unix socket by libpq.
 *
 * Its tables are what favours it: texts of collation "C" in encoding SQL_ASCII, which is bytes compared as
 * bytes, and an int for the diff, which it sums much faster than a bigint. Queries sort once for grouping and
 * order, which was measured to be faster than the hashing that it would choose (enable_hashagg). How the
 * server is set up is in bench_servers.sh.
 *
 * An append is one prepared statement, one round trip: the upper is compared and set, and the row goes in
 * only then.
 */
#include "tools/bench_bulk.h"

#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct bench_session {
	PGconn *conn;
	char id[16]; /* of the collection it appends to, as text */
};

bool bench_pg_there(const struct bench_place *place)
{
	return place->pg != NULL;
}

static void done(const struct bench_session *s, PGresult *r, ExecStatusType wanted)
{
	if (PQresultStatus(r) != wanted)
		bench_die("PostgreSQL", PQerrorMessage(s->conn));
	PQclear(r);
}

void bench_pg_exec(struct bench_session *s, const char *format, ...)
{
	char *sql = NULL;
	va_list args;
	int len;

	va_start(args, format);
	len = vasprintf(&sql, format, args);
	va_end(args);
	if (len < 0)
		bench_die_errno("a statement");
	done(s, PQexec(s->conn, sql), PGRES_COMMAND_OK);
	free(sql);
}

/* The only value of a query's only row, as text; given (free). */
static char *value(struct bench_session *s, const char *sql)
{
	PGresult *r = PQexec(s->conn, sql);
	char *text;

	if (PQresultStatus(r) != PGRES_TUPLES_OK || PQntuples(r) < 1)
		bench_die("PostgreSQL", PQerrorMessage(s->conn));
	text = strdup(PQgetvalue(r, 0, 0));
	if (text == NULL)
		bench_die_errno("a value");
	PQclear(r);
	return text;
}

struct bench_session *bench_pg_session(const struct bench_place *place)
{
	struct bench_session *s = calloc(1, sizeof *s);

	if (s == NULL)
		bench_die_errno("PostgreSQL");
	s->conn = PQconnectdb(place->pg);
	if (PQstatus(s->conn) != CONNECTION_OK)
		bench_die("PostgreSQL", PQerrorMessage(s->conn));
	bench_pg_exec(s, "SET client_min_messages = warning");
	bench_pg_exec(s, "SET enable_hashagg = off");
	bench_pg_exec(s, "CREATE TABLE IF NOT EXISTS shard (id serial PRIMARY KEY, upper bigint NOT NULL)");
	bench_pg_exec(s, "CREATE TABLE IF NOT EXISTS updates (id int, time bigint, diff int, "
			 "key text COLLATE \"C\", val text COLLATE \"C\")");
	return s;
}

void bench_pg_end(struct bench_session *s)
{
	PQfinish(s->conn);
	free(s);
}

/* --- single appends --------------------------------------------------------------------------------- */

static const char append_sql[] =
	"WITH u AS (UPDATE shard SET upper = $2 + 1 WHERE id = $1 AND upper = $2 RETURNING id) "
	"INSERT INTO updates SELECT u.id, $2, 1, $3, $4 FROM u";
static const char blind_sql[] =
	"WITH u AS (UPDATE shard SET upper = upper + 1 WHERE id = $1 RETURNING id, upper - 1 AS time) "
	"INSERT INTO updates SELECT u.id, u.time, 1, $2, $3 FROM u";

static void *prepared(const struct bench_place *place, const struct bench_session *same, const char *sql)
{
	struct bench_session *s = bench_pg_session(place);

	if (same == NULL) {
		char *id = value(s, "INSERT INTO shard (upper) VALUES (0) RETURNING id");

		snprintf(s->id, sizeof s->id, "%s", id);
		free(id);
	} else {
		memcpy(s->id, same->id, sizeof s->id);
	}
	done(s, PQprepare(s->conn, "append", sql, 0, NULL), PGRES_COMMAND_OK);
	return s;
}

static void *pg_open(const struct bench_place *place, void *first)
{
	(void)first;
	return prepared(place, NULL, append_sql);
}

static void *pg_blind_open(const struct bench_place *place, void *first)
{
	return prepared(place, first, blind_sql);
}

/* One row must have gone in. */
static void run(const struct bench_session *s, int count, const char *const values[])
{
	PGresult *r = PQexecPrepared(s->conn, "append", count, values, NULL, NULL, 0);

	if (PQresultStatus(r) != PGRES_COMMAND_OK)
		bench_die("PostgreSQL", PQerrorMessage(s->conn));
	if (strcmp(PQcmdTuples(r), "1") != 0)
		bench_die("PostgreSQL", "the upper is another one than expected");
	PQclear(r);
}

static void pg_one(void *self, uint64_t i)
{
	const struct bench_session *s = self;
	char time[24], key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1];
	const char *const values[] = {s->id, time, key, val};

	snprintf(time, sizeof time, "%" PRIu64, i);
	bench_key(i, key);
	bench_val(i, val);
	run(s, 4, values);
}

static void pg_blind_one(void *self, uint64_t i)
{
	const struct bench_session *s = self;
	char key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1];
	const char *const values[] = {s->id, key, val};

	bench_key(i, key);
	bench_val(i, val);
	run(s, 3, values);
}

static void pg_close(void *self)
{
	bench_pg_end(self);
}

/* --- a large transaction, and the collection -------------------------------------------------------- */

#define COLUMNS "(time bigint, diff int, key text COLLATE \"C\", val text COLLATE \"C\")"

unsigned bench_pg_collection(struct bench_session *s)
{
	char *id = value(s, "INSERT INTO shard (upper) VALUES (0) RETURNING id");
	unsigned collection = (unsigned)strtoul(id, NULL, 10);

	free(id);
	bench_pg_exec(s, "CREATE TABLE updates_%u " COLUMNS, collection);
	return collection;
}

static void copy_in(struct bench_session *s, unsigned collection, const char *text, size_t len)
{
	char sql[64];

	snprintf(sql, sizeof sql, "COPY updates_%u FROM STDIN", collection);
	done(s, PQexec(s->conn, sql), PGRES_COPY_IN);
	for (size_t at = 0; at < len; at += BENCH_PIECE) {
		size_t piece = len - at < BENCH_PIECE ? len - at : BENCH_PIECE;

		if (PQputCopyData(s->conn, text + at, (int)piece) != 1)
			bench_die("PostgreSQL", PQerrorMessage(s->conn));
	}
	if (PQputCopyEnd(s->conn, NULL) != 1)
		bench_die("PostgreSQL", PQerrorMessage(s->conn));
	done(s, PQgetResult(s->conn), PGRES_COMMAND_OK);
	done(s, PQgetResult(s->conn), PGRES_FATAL_ERROR); /* no result more: NULL counts as this */
}

double bench_pg_import(struct bench_session *s, unsigned collection, uint64_t time, const char *text,
		       size_t len)
{
	uint64_t start = bench_now_ns();
	char sql[160];
	PGresult *r;

	bench_pg_exec(s, "BEGIN");
	snprintf(sql, sizeof sql, "UPDATE shard SET upper = %" PRIu64 " WHERE id = %u AND upper = %" PRIu64,
		 time + 1, collection, time);
	r = PQexec(s->conn, sql);
	if (PQresultStatus(r) != PGRES_COMMAND_OK || strcmp(PQcmdTuples(r), "1") != 0)
		bench_die("PostgreSQL", "the upper is another one than expected");
	PQclear(r);
	copy_in(s, collection, text, len);
	bench_pg_exec(s, "COMMIT");
	return (double)(bench_now_ns() - start) / 1e9;
}

double bench_pg_import_new(struct bench_session *s, const char *text, size_t len)
{
	uint64_t start = bench_now_ns();
	double took_s;

	bench_pg_exec(s, "BEGIN");
	bench_pg_exec(s, "CREATE TABLE updates_0 " COLUMNS);
	copy_in(s, 0, text, len);
	bench_pg_exec(s, "COMMIT");
	took_s = (double)(bench_now_ns() - start) / 1e9;
	bench_pg_exec(s, "DROP TABLE updates_0");
	return took_s;
}

/* Given (free). */
static char *query(const char *before, unsigned collection, uint64_t time, const char *after)
{
	char *sql = NULL;

	if (asprintf(&sql,
		     "%sSELECT %" PRIu64 ", sum(diff), key, val FROM updates_%u WHERE time <= %" PRIu64
		     " GROUP BY key, val HAVING sum(diff) <> 0 ORDER BY key, val%s",
		     before, time, collection, time, after) < 0)
		bench_die_errno("a query");
	return sql;
}

struct bench_reading bench_pg_read(struct bench_session *s, unsigned collection, uint64_t time, char *into)
{
	char *sql = query("COPY (", collection, time, ") TO STDOUT"), *row = NULL;
	struct bench_reading r = {0};
	uint64_t start = bench_now_ns();
	int n;

	done(s, PQexec(s->conn, sql), PGRES_COPY_OUT);
	while ((n = PQgetCopyData(s->conn, &row, 0)) > 0) {
		memcpy(into + r.bytes, row, (size_t)n);
		PQfreemem(row);
		if (r.bytes == 0)
			r.first_byte_s = (double)(bench_now_ns() - start) / 1e9;
		r.bytes += (uint64_t)n;
	}
	if (n != -1)
		bench_die("PostgreSQL", PQerrorMessage(s->conn));
	done(s, PQgetResult(s->conn), PGRES_COMMAND_OK);
	r.all_s = (double)(bench_now_ns() - start) / 1e9;
	done(s, PQgetResult(s->conn), PGRES_FATAL_ERROR);
	free(sql);
	return r;
}

char *bench_pg_plan(struct bench_session *s, unsigned collection, uint64_t time)
{
	char *sql = query("EXPLAIN (COSTS off) ", collection, time, ""), *lines = calloc(1, 1024);
	PGresult *r = PQexec(s->conn, sql);

	if (lines == NULL || PQresultStatus(r) != PGRES_TUPLES_OK)
		bench_die("PostgreSQL", PQerrorMessage(s->conn));
	for (int i = 0; i < PQntuples(r); i++) {
		const char *line = PQgetvalue(r, i, 0), *node = strstr(line, "->  ");
		size_t len = strlen(lines);

		if (i == 0 || node != NULL)
			snprintf(lines + len, 1024 - len, "%s%s", i == 0 ? "" : ", ",
				 node != NULL ? node + 4 : line);
	}
	PQclear(r);
	free(sql);
	return lines;
}

uint64_t bench_pg_bytes(struct bench_session *s, unsigned collection)
{
	char sql[64], *text;
	uint64_t bytes;

	snprintf(sql, sizeof sql, "SELECT pg_total_relation_size('updates_%u')", collection);
	text = value(s, sql);
	bytes = strtoull(text, NULL, 10);
	free(text);
	return bytes;
}

const struct bench_kind bench_pg = {
	.name = "PostgreSQL, prepared statement, unix socket",
	.tag = "PostgreSQL",
	.there = bench_pg_there,
	.open = pg_open,
	.one = pg_one,
	.close = pg_close,
};

const struct bench_kind bench_pg_blind = {
	.name = "PostgreSQL, one row's upper counted up",
	.tag = "PostgreSQL",
	.there = bench_pg_there,
	.open = pg_blind_open,
	.one = pg_blind_one,
	.close = pg_close,
};
