/*
 * rocks_beside.c - reading a database beside its owner, or one that is not to be changed.
 *
 * How it works: the database is opened for reading, logs and all, as it is at that moment. It is opened
 * again, and takes the place of the first, when the owner's newest log is another one or has changed.
 * (RocksDB can follow a log, but once it has read the zeros that lie ahead of it - rocks_ahead.c - it never
 * looks there again.)
 *
 * Invariants:
 * 1. A reader inside goes on with the database that it found; the old one is closed when all have left.
 * 2. What is noted of the log was seen before the database was opened: a write that came between is taken in
 * the next time.
 * 3. The manifest did not change while the database was opened. RocksDB reads it first and lists the logs last:
 * of a flush that ends in between it would see neither the table nor the log.
 */
#include "kv/rocks_impl.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	OPEN_TRIES = 5,
	OPEN_PAUSE_MS = 2,
	FOLLOW_MS = 50,   /* the log is looked at so often at most, */
	FOLLOW_SHARE = 4, /* and opening takes no more than this part of the time */
	SETTLED_MS = 20,  /* what a file's time of change cannot tell apart, with room */
};

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What a reader may tell a log by that was written to. */
static struct rocks_seen look(const struct kv_rocks *r)
{
	struct rocks_seen seen = {.number = rocks_newest_log(r->dir)};
	struct stat st;
	char *path;

	if (asprintf(&path, "%s/%06" PRIu64 ".log", r->dir, seen.number) < 0)
		return seen;
	if (stat(path, &st) == 0) {
		seen.size = st.st_size;
		seen.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
		seen.settled = (int64_t)clock_ms(CLOCK_REALTIME) > seen.mtime_ns / 1000000 + SETTLED_MS;
	}
	free(path);
	return seen;
}

static bool is_same(const struct rocks_seen *a, const struct rocks_seen *b)
{
	return a->settled && b->settled && a->number == b->number && a->size == b->size &&
	       a->mtime_ns == b->mtime_ns;
}

struct manifest {
	char name[ROCKS_NAME_LEN];
	off_t bytes;
};

static bool look_at_manifest(const struct kv_rocks *r, struct manifest *m)
{
	int dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	bool found = dir >= 0 && rocks_current_manifest(dir, m->name) && fstatat(dir, m->name, &st, 0) == 0;

	m->bytes = found ? st.st_size : 0;
	if (dir >= 0)
		close(dir);
	return found;
}

/* As it is at one moment, or NULL. */
static rocksdb_t *open_once(const struct kv_rocks *r, char **text)
{
	struct manifest before, after;
	bool seen = look_at_manifest(r, &before);
	rocksdb_t *db = rocksdb_open_for_read_only(r->options, r->dir, 0, text);

	if (!db || (seen && look_at_manifest(r, &after) && before.bytes == after.bytes &&
		    strcmp(before.name, after.name) == 0))
		return db;
	rocksdb_close(db);
	*text = strdup("IO error: its owner changed it while it was opened");
	return NULL;
}

rocksdb_t *rocks_open_beside(struct kv_rocks *r, bool torn, char **text)
{
	const struct timespec pause = {.tv_nsec = OPEN_PAUSE_MS * 1000000L};
	rocksdb_t *db = NULL;
	struct rocks_seen seen = {0};

	rocksdb_options_set_wal_recovery_mode(r->options, torn ? ROCKS_WAL_POINT_IN_TIME
							       : ROCKS_WAL_TOLERATE_CORRUPTED_TAIL);
	/* The owner may remove a file between our reading its name and opening it, or be writing a record. */
	for (int i = 0; i < OPEN_TRIES && !db; i++) {
		if (i != 0)
			clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		rocksdb_free(*text);
		*text = NULL;
		seen = look(r);
		db = open_once(r, text);
	}
	if (db)
		r->beside.seen = seen;
	return db;
}

static void follow_locked(struct kv_rocks *r)
{
	uint64_t began = clock_ms(CLOCK_MONOTONIC), ended;
	struct rocks_seen seen;
	char *text = NULL;
	rocksdb_t *db = NULL, *old = NULL;

	if (began < r->beside.next_ms)
		return;
	seen = look(r);
	if (!is_same(&seen, &r->beside.seen))
		db = rocks_open_beside(r, false, &text);
	rocksdb_free(text); /* the next time may be better */
	if (db) {
		pthread_rwlock_wrlock(&r->lock);
		old = r->db;
		r->db = db;
		pthread_rwlock_unlock(&r->lock);
	}
	if (old)
		rocksdb_close(old);
	ended = clock_ms(CLOCK_MONOTONIC);
	r->beside.next_ms = ended + (ended - began) * FOLLOW_SHARE;
	if (r->beside.next_ms < began + FOLLOW_MS)
		r->beside.next_ms = began + FOLLOW_MS;
}

void rocks_follow(struct kv_rocks *r)
{
	if (!r->read_only || atomic_load(&r->still) || pthread_mutex_trylock(&r->beside.mu) != 0)
		return;
	if (!atomic_load(&r->still)) /* it may have been told before we had mu */
		follow_locked(r);
	pthread_mutex_unlock(&r->beside.mu);
}

void kv_rocks_keep_still(struct kv_rocks *r, bool still)
{
	pthread_mutex_lock(&r->beside.mu); /* whoever is bringing it forward has done so */
	atomic_store(&r->still, still);
	pthread_mutex_unlock(&r->beside.mu);
}
