/*
 * rocks_ahead.c - zeros ahead of RocksDB's log.
 *
 * A log that grows with each write makes each sync one of the file's length and of new blocks too, half as
 * long again as a sync of bytes that were there before. So the log is made longer in steps, with written
 * zeros, and RocksDB, which writes at the place that it counts itself, overwrites them. It cuts them off when
 * it closes the log; what a crash leaves of them is the end of the log to its reader and to rocks_mend.c.
 *
 * How it works: the bytes given to RocksDB are counted, at least as many as it writes. Every LOOK of them the
 * writer who crosses that line looks whether there is another log, and whether the zeros come to an end. If
 * so it keeps everyone out for a moment, and adds STEP bytes to the end of the file.
 *
 * Invariants:
 * 1. Zeros are written at the end of the file only, while nobody writes: never over a record.
 * 2. Nothing depends on them. They are not synced here: the next commit does that. Where they cannot be
 * written, the log grows as it did; an error of the device is RocksDB's to find when it syncs.
 */
#include "kv/rocks_impl.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	STEP = 256 << 10,
	LOOK = 32 << 10,
	LOW = 2 * LOOK,   /* with fewer zeros left it is time */
	BLOCK = 32 << 10, /* of the log, each with a header for the fragment that lies in it */
	HEADER = 7,
};

uint64_t rocks_newest_log(const char *dir)
{
	DIR *d = opendir(dir);
	uint64_t newest = 0;

	if (!d)
		return 0;
	for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
		uint64_t number;
		int end = 0;

		if (sscanf(e->d_name, "%" SCNu64 ".log%n", &number, &end) == 1 && end != 0 &&
		    !e->d_name[end] && number > newest)
			newest = number;
	}
	closedir(d);
	return newest;
}

/* How many zeros there are at least between the log's place and its end. */
static uint64_t left(const struct rocks_ahead *a)
{
	uint64_t place = a->start + atomic_load(&a->written);

	return place < a->end ? a->end - place : 0;
}

static bool extend(struct rocks_ahead *a)
{
	uint8_t zeros[PAGE] = {0};
	struct iovec parts[STEP / PAGE];

	for (size_t i = 0; i < STEP / PAGE; i++)
		parts[i] = (struct iovec){.iov_base = zeros, .iov_len = PAGE};
	return pwritev(a->fd, parts, STEP / PAGE, (off_t)a->end) > 0;
}

static void look_locked(struct kv_rocks *r)
{
	struct rocks_ahead *a = &r->ahead;
	struct stat st;

	if (a->fd < 0 || fstat(a->fd, &st) != 0)
		return;
	if ((uint64_t)st.st_size > a->end) { /* no zeros are left: the log's place is its end */
		a->end = (uint64_t)st.st_size;
		a->start = a->end;
		atomic_store(&a->written, 0);
	}
	atomic_store(&a->looked, atomic_load(&a->written));
	if (left(a) < LOW && kv_rocks_room(r, STEP) && extend(a) && fstat(a->fd, &st) == 0)
		a->end = (uint64_t)st.st_size;
}

void rocks_ahead_begin_locked(struct kv_rocks *r)
{
	uint64_t number = rocks_newest_log(r->dir);
	char path[sizeof("18446744073709551615.log")];
	int dir;

	rocks_ahead_end_locked(r);
	snprintf(path, sizeof(path), "%06" PRIu64 ".log", number);
	dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return;
	r->ahead.fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
	close(dir);
	atomic_store(&r->ahead.number, number);
	look_locked(r);
}

void rocks_ahead_end_locked(struct kv_rocks *r)
{
	struct rocks_ahead *a = &r->ahead;

	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
	a->end = a->start = 0;
	atomic_store(&a->written, 0);
	atomic_store(&a->looked, 0);
}

bool rocks_ahead_is_due(struct kv_rocks *r, rocksdb_writebatch_t *batch)
{
	struct rocks_ahead *a = &r->ahead;
	uint64_t looked = atomic_load(&a->looked), written;
	size_t len;

	(void)rocksdb_writebatch_data(batch, &len);
	written = atomic_fetch_add(&a->written, len + HEADER * (2 + len / BLOCK)) + len;
	/* One looks for all who cross the line. */
	return written >= looked + LOOK && !atomic_load(&r->tidying) &&
	       atomic_compare_exchange_strong(&a->looked, &looked, written) &&
	       (left(a) < LOW || rocks_newest_log(r->dir) != atomic_load(&a->number));
}

void rocks_ahead_extend(struct kv_rocks *r)
{
	pthread_rwlock_wrlock(&r->lock);
	if (r->db && r->ahead.fd >= 0 && rocks_newest_log(r->dir) == atomic_load(&r->ahead.number))
		look_locked(r);
	else if (r->db)
		rocks_ahead_begin_locked(r);
	pthread_rwlock_unlock(&r->lock);
}
