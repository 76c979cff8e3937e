/*
 * bench.h - what the parts of the benchmark share.
 *
 * tools/bench.sh starts the mount and the peers, all with their files on one
 * disk, and then this program, which measures them beside each other. Whatever
 * happens, the script clears everything away: so anything that goes wrong here
 * is said in one sentence and ends the program.
 *
 * The work that is compared most: one compare-and-append transaction with one
 * row, durable when the call returns.
 */
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct bench_place {
	const char *dir;     /* for files of our own */
	const char *mount;   /* on a store in the same file system as dir */
	pid_t pid;           /* of the mount */
	const char *shardfs; /* the program that mounts */
	const char *pg;      /* how to reach PostgreSQL, for libpq; NULL: it is missing */
	const char *etcd;    /* the URL of etcd; NULL: it is missing */
	uint64_t *peak_kib;  /* the most memory of any mount that has ended; NULL: nobody asks */
};

/*
 * One who does the work. `one` does it for the i-th time since open, i counted from 0.
 *
 * Each open makes a collection of its own, empty. Where several clients work at once, `first` is the self of
 * the first one, for what they share (a store in the process, a shard that all append to); of the first it is
 * NULL, and it is closed last. Each self is used by one thread at a time.
 */
struct bench_kind {
	const char *name;
	const char *tag;                                /* in plots; NULL: not drawn */
	bool (*there)(const struct bench_place *place); /* NULL: always */
	void *(*open)(const struct bench_place *place, void *first);
	void (*one)(void *self, uint64_t i);
	void (*close)(void *self);
};

/* bench_mount.c */
extern const struct bench_kind bench_kept_open, bench_open_write_close, bench_write_only, bench_blind;
/* bench_sqlite.c, bench_pg.c, bench_etcd.c */
extern const struct bench_kind bench_sqlite, bench_pg, bench_pg_blind, bench_etcd;
/* bench_disk.c */
extern const struct bench_kind bench_rocks_put, bench_file_flock, bench_append_sync, bench_overwrite_sync;

/* The i-th row's key and val as everyone stores them, with a NUL: 9 and 39 bytes. */
enum { BENCH_KEY_LEN = 9, BENCH_VAL_LEN = 39, BENCH_TEXT_MAX = 256 };
void bench_key(uint64_t i, char key[BENCH_KEY_LEN + 1]);
void bench_val(uint64_t i, char val[BENCH_VAL_LEN + 1]);

/* The i-th transaction, at time i, as text; returns its length. */
size_t bench_transaction(uint64_t i, char text[BENCH_TEXT_MAX]);

/* dir/name; given (free). */
char *bench_path(const char *dir, const char *name);

/* The same, with something behind the name that nobody has used. */
char *bench_new_path(const char *dir, const char *name);

/* Write it all or end the program. */
void bench_write(int fd, const void *data, size_t len, const char *to);

uint64_t bench_now_ns(void);

/* Room for so many measurements (free). */
double *bench_array(size_t count);

/* The value that a part `q` of them does not exceed; sorts them. */
double bench_quantile(double *values, size_t count, double q);

/* Into the report, and to stdout. */
void bench_say(FILE *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Make a shard; its directory, given (free). */
char *bench_make_shard(const struct bench_place *place);

/* A new shard whose `append` is kept open. */
struct bench_writer {
	char *dir;
	int fd;
	uint64_t upper;
};
struct bench_writer bench_writer_new(const struct bench_place *place);
void bench_writer_end(struct bench_writer *w);

/* The descriptor alone, as around a new start of the mount. */
void bench_writer_open(struct bench_writer *w);
void bench_writer_close(struct bench_writer *w);

/* Append a row at the upper; the microseconds it took. */
double bench_append_us(struct bench_writer *w);

/* Text for a file of the mount, in writes of up to 1 MiB: what is added may go at once, the rest by flush. */
struct bench_text {
	int fd;
	const char *to; /* borrowed: the file's name, for errors */
	char *chunk;
	size_t len;
	uint64_t row_bytes; /* of all rows so far */
};
struct bench_text bench_text_new(int fd, const char *to);
void bench_text_add(struct bench_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bench_text_row(struct bench_text *t, uint64_t time, int diff, uint64_t key, uint64_t val);
void bench_text_flush(struct bench_text *t);
void bench_text_end(struct bench_text *t); /* flush, and free what it holds; fd stays open */

/* Read a file from its open to its end. */
struct bench_reading {
	uint64_t bytes;
	double first_byte_s;
	double all_s;
};
struct bench_reading bench_read_all(const char *path);

/* The same, and what was read goes to `into`, which has `room` for it. */
struct bench_reading bench_read_into(const char *path, char *into, size_t room);

/* One of the figures of /proc/<pid>/status in KiB, by its name with the colon. */
uint64_t bench_memory_kib(pid_t pid, const char *name);

void bench_rest(long us);

/* Until the mount's process has nothing left to do, for ten seconds at most. */
void bench_settle(const struct bench_place *place);

/* Say "bench: what: errno's text" and end the program; the other one leaves errno out. */
_Noreturn void bench_die_errno(const char *what);
_Noreturn void bench_die(const char *what, const char *why);

/* bench_readers.c: those who wait, and what they cost a writer; and a snapshot of many batches. */
void bench_readers(const struct bench_place *place, FILE *report);

/* bench_upkeep.c: what compaction and collection keep small, and what they cost; large stores. */
void bench_upkeep(const struct bench_place *place, FILE *report);

#endif
