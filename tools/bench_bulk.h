/*
 * bench_bulk.h - a large transaction, and how the peers take it and give it back.
 *
 * All of them get the same text from memory, and give the collection back as the same text, byte for byte:
 * consolidated, sorted by key and val.
 */
#ifndef TOOLS_BENCH_BULK_H
#define TOOLS_BENCH_BULK_H

#include "tools/bench.h"

/* Rows of time 0 and diff 1, with distinct keys. */
struct bench_rows {
	char *text; /* in the order they are handed over: shuffled; closed by a NUL */
	size_t len;
	uint64_t count;
	char *sorted; /* as they are to come back */
};
struct bench_rows bench_rows_new(uint64_t count);
void bench_rows_end(struct bench_rows *rows);

/* The numbers below count, shuffled; always in the same way; given (free). */
uint32_t *bench_shuffled(uint64_t count);

/* Print one row; returns its length. */
size_t bench_row_text(char line[BENCH_TEXT_MAX], uint64_t time, int diff, uint64_t key, uint64_t val);

/* What all hand over and take at once where the interface lets them choose: as cat and cp do. */
enum { BENCH_PIECE = 128 << 10 };

/* bench_sqlite.c: a database for one collection; the seconds the transaction took; reading it, into as many
 * bytes as are to come and BENCH_TEXT_MAX more. */
void *bench_sqlite_new(const struct bench_place *place);
double bench_sqlite_import(void *self, const struct bench_rows *rows);
struct bench_reading bench_sqlite_read(void *self, char *into);
uint64_t bench_sqlite_bytes(void *self); /* on disk, with its log */
void bench_sqlite_end(void *self);

/*
 * bench_pg.c: a session in PostgreSQL. Only where bench_pg_there.
 */
struct bench_session;
bool bench_pg_there(const struct bench_place *place);
struct bench_session *bench_pg_session(const struct bench_place *place);
void bench_pg_end(struct bench_session *s);
void bench_pg_exec(struct bench_session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A table for the updates of one collection, empty, and the row with its upper; its number. */
unsigned bench_pg_collection(struct bench_session *s);

/* BEGIN, compare and set the upper, COPY, COMMIT; the seconds. */
double bench_pg_import(struct bench_session *s, unsigned collection, uint64_t time, const char *text,
		       size_t len);

/* The same with the table made in the same transaction, which needs no log (wal_level = minimal). */
double bench_pg_import_new(struct bench_session *s, const char *text, size_t len);

/* The collection as of a time, by COPY TO STDOUT, into `into`. */
struct bench_reading bench_pg_read(struct bench_session *s, unsigned collection, uint64_t time, char *into);

/* The last plan's first line for that; given (free). */
char *bench_pg_plan(struct bench_session *s, unsigned collection, uint64_t time);

uint64_t bench_pg_bytes(struct bench_session *s, unsigned collection);

#endif
