/*
 * load.h - what the long load (load.c) and the neighbours (near.c) share.
 */
#ifndef TESTS_LOAD_H
#define TESTS_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { SHARDS = 20, BUCKETS = 256 };

struct tally {
	_Atomic(uint64_t) done;
	_Atomic(uint64_t) failed;
	_Atomic(int) last_errno;
	_Atomic(uint64_t) us[BUCKETS]; /* eighths of powers of two */
};

extern char shards[SHARDS][600]; /* their directories */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);
uint64_t now_us(void);
uint64_t chance(uint64_t limit);
void chance_salt(uint64_t salt);
uint64_t setting(const char *name, uint64_t otherwise); /* of the environment */

/* What began at begun has ended, with this errno. */
void count(struct tally *t, uint64_t begun, int errnum);
void add_tally(struct tally *to, const struct tally *t);
double quantile_ms(const struct tally *t, double q);

/* Read a file, up to most bytes: 0, or errno. */
int read_all(const char *path, size_t most);

unsigned long server_rss_kib(void);

/* Whether nothing is left in the mount of those who have ended; a line for each gauge. */
bool all_gone(FILE *out);

/* near.c: a small append beside the crowds of another user. */
bool neighbours(FILE *out);

#endif
