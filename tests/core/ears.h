/*
 * ears.h - for the tests of listeners: a shard with a plain list of all that was committed to it, and
 * listeners that keep what they get to compare.
 *
 * Threads: the main thread of a test.
 */
#ifndef TESTS_CORE_EARS_H
#define TESTS_CORE_EARS_H

#include "core/listen.h"
#include "tests/core/batches.h"

/* --- what was committed ---------------------------------------------------------------------------- */

struct feed {
	struct rig rig;
	struct second other;   /* on a shared disk */
	struct core_shard *by; /* who appends */
	struct model all;
	unsigned batches; /* staged so far */
};

struct feed feed_new(enum disk_kind kind);
void feed_free(struct feed *d);

/* Note rows that [lower, upper) shows: a star at its lower, none below lift. */
void remember(struct feed *d, struct core_frontier lower, struct core_frontier upper, uint64_t lift,
	      const char *rows);

/* An append in words (world.h) that has to succeed, noted; or many of one time each. */
void put(struct feed *d, const char *options, const char *rows);
void put_many(struct feed *d, unsigned count, const char *rows);

void move_since(struct feed *d, struct core_frontier to);
struct core_frontier since_now(struct core_shard *s);

/* Rows that no compressor makes small: "<time> 1 <key> <len bytes>;". Given. */
char *large_row(const char *time, const char *key, size_t len);

/* --- who listens ----------------------------------------------------------------------------------- */

struct ear {
	struct core_listen *l;
	struct core_shard *s;
	struct core_frontier from;
	struct core_step step;
	bool reading;
	size_t steps;
	size_t rows;
	struct model got;
};

extern const struct core_reader who;

struct ear ear_at(struct core_shard *s, struct core_frontier from);
void ear_free(struct ear *e);

/* The next step: KV_OK, KV_WOULD_BLOCK, or KV_NOTFOUND at the end. Checked: it follows, and is one of whole
 * batches. */
enum kv_rc ear_step(struct ear *e);

/* Up to `limit` rows of the step in hand. */
void ear_read(struct ear *e, size_t limit);

/* All there is, and what the last step said. */
enum kv_rc ear_drain(struct ear *e);

/* What it has got so far is what was committed from its beginning to its frontier. */
void ear_check(struct ear *e, const struct feed *d);
void ear_check_all(struct ear *e, const struct feed *d);

#endif
