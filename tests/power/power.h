/*
 * power.h - what may be left of a store after a power cut, and whether that keeps what was promised.
 *
 * load.c runs a mount under the shim (tests/shim), which records every change of the store's directory, and
 * notes what clients were told, when. disk.c replays the record up to some moment and makes one of the
 * directories that a power cut may leave there. look.c opens that store and holds it against the notes.
 * main.c chooses the moments.
 *
 * Threads: load_run has clients of its own; all else is for one thread.
 */
#ifndef TESTS_POWER_POWER_H
#define TESTS_POWER_POWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/shim/shim.h"

/* --- chance ---------------------------------------------------------------------------------------- */

struct rng {
	uint64_t state;
};
static inline uint64_t rng_below(struct rng *r, uint64_t limit)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31)) % limit;
}

/* --- the record ------------------------------------------------------------------------------------ */

struct op {
	unsigned kind; /* enum shim_op */
	uint64_t time_ns;
	uint64_t handle;
	uint64_t offset;
	const char *path;
	const char *path2;
	const uint8_t *data;
	size_t len;
};

struct history {
	struct op *ops;
	size_t count;
	void *map;
	size_t map_len;
};

/* Says what went wrong (errno), and of which file; ends the process with 2. */
void power_die(const char *what, const char *which);

struct history history_read(const char *path);
void history_free(struct history *h);

/* --- the disk -------------------------------------------------------------------------------------- */

/* What becomes of that which was not synced. */
enum loss {
	LOSE_ALL,    /* all of it is lost */
	LOSE_NONE,   /* all of it is there: a kill, not a power cut */
	LOSE_DATA,   /* names are as they were last, bytes and sizes as synced */
	LOSE_BYTES,  /* names and sizes are as they were last, bytes are zeros or older ones */
	LOSE_NAMES,  /* bytes are there, names as synced */
	LOSE_LAST,   /* of each file its last write is torn */
	LOSE_LOGS,   /* blocks of RocksDB's logs at random, all else is there */
	LOSE_ORDER,  /* the newest names are there and the older ones are not */
	LOSE_RANDOM, /* each name, and each file in one of these ways or block by block, at random */
	LOSSES,
};

extern const char *const loss_names[LOSSES];

struct disk;

/*
 * missing: syncs that are taken as not done, "<file|dir|fs>@<glob>[#n]" for the path, the n-th of them or
 * all; NULL: none.
 */
struct disk *disk_new(const struct history *h, const char *missing);
void disk_free(struct disk *d);
/* Replay the operations before number `end`, which never goes back. */
void disk_advance(struct disk *d, size_t end);
/* Make the directory `to` (not there yet) as it may be after a power cut now. */
void disk_cut(struct disk *d, enum loss loss, struct rng *rng, const char *to);
/* How many syncs were taken as not done so far. */
size_t disk_missed(const struct disk *d);

/* --- what clients were told ------------------------------------------------------------------------ */

enum { NEVER = 0 };

/* A transaction; times in ns, NEVER if that did not come. */
struct txn_note {
	unsigned rows;
	unsigned pad; /* bytes in each row */
	bool refused; /* it was told so; then it must not be there */
	bool staged;
	unsigned synced_rows[2]; /* of a staged batch, at its fsyncs */
	uint64_t synced[2];
	uint64_t begun;
	uint64_t done;
};

enum client_kind { APPENDS, COMPARES, CHURNS, STAGES, LIVES, KEEPS };

struct client {
	enum client_kind kind;
	unsigned id;
	unsigned shard; /* of the notes */
	unsigned count; /* transactions it is to do */
	unsigned rows, pad;
	struct txn_note *txns;
	unsigned begun; /* so many of them count */
};

struct shard_note {
	char id[40];
	uint64_t made;  /* mkdir has returned */
	uint64_t named; /* its link in name/, which is "n" and its id, has been made */
	uint64_t finishing, finished;
	uint64_t removing, removed;
};

struct notes {
	struct shard_note *shards;
	size_t shard_count;
	struct client *clients;
	size_t client_count;
	uint64_t made;  /* the mount has answered for the first time */
	uint64_t again; /* the same of its second life */
	uint64_t acked; /* all that was told */
};

/* The padding of row i of transaction n: letters that do not compress away. */
static inline void row_pad(const struct client *c, unsigned n, unsigned i, char *out)
{
	struct rng rng = {((uint64_t)c->id << 40) + ((uint64_t)n << 20) + i};

	for (unsigned at = 0; at < c->pad; at++)
		out[at] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-+"[rng_below(&rng,
												       64)];
}

/* Run the load; the record is dir/record, the store's parent dir/top, the mount dir/mnt. */
struct notes load_run(const char *dir, uint64_t seed);
void notes_free(struct notes *n);

/* --- the look -------------------------------------------------------------------------------------- */

/*
 * Whether the store dir/store keeps what was told before limit_ns; *why: a sentence if not, given. Opens
 * the store, so it is for a process of its own. thorough: with upkeep, and again after it.
 */
bool look(const char *dir, const struct notes *n, uint64_t limit_ns, bool thorough, char **why);

#endif
