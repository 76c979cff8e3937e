/*
 * bench_own.h - stores of one's own, with a mount each, and what is known of them from outside.
 *
 * Mounts are started as a user starts them, in the background. Their processes become children of this one
 * when their parents have gone, so that their end is seen, and that it was a good one. tools/bench.sh stops
 * those that are left when this program dies.
 */
#ifndef TOOLS_BENCH_OWN_H
#define TOOLS_BENCH_OWN_H

#include <stdbool.h>

#include "tools/bench.h"

struct bench_own {
	char *store;
	char *mountpoint;
	struct bench_place place; /* pid 0: not mounted */
	double start_s;           /* from exec to the end of the mounting command, of the last start */
};

/* A store that is not there yet, named `name`, beside the files of place; not mounted. */
struct bench_own bench_own_new(const struct bench_place *place, const char *name);
void bench_own_start(struct bench_own *o);
void bench_own_stop(struct bench_own *o);
void bench_own_remove(struct bench_own *o); /* stops it first; the store is deleted */

/* What du says of the store, or of the directory `part` in it, in bytes. */
uint64_t bench_own_bytes(const struct bench_own *o, const char *part);

/* Wait until nothing in the store has changed for so many seconds, ten minutes at most; the seconds before
 * that. */
double bench_own_at_rest(const struct bench_own *o, uint64_t quiet_s);

/* What the mount's process made the kernel write, without what was deleted before it was written. */
uint64_t bench_own_written(const struct bench_own *o);

/* Run a program with an argument, stdout to /dev/null; it must end well. Returns the seconds it took. */
double bench_command_s(const char *program, const char *arg1, const char *arg2);

/*
 * What may not be there in an older mount: then false, or NAN.
 */
double bench_metric(const struct bench_own *o, const char *name); /* of /metrics, by its whole name */
double bench_state_number(const char *shard, const char *name);   /* of a shard's state */
bool bench_ctl(const char *shard, const char *verb);              /* returns when it is done */

/* echo upper-1 > since */
void bench_since_follows(const char *shard);

#endif
