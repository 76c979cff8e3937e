/*
 * rocks_mend.c - the logs of RocksDB after a power cut.
 *
 * A log that was not synced to its end may come back with any of its last blocks missing: cut, or with zeros
 * in their place. RocksDB does not take that well. In the recovery mode that we use it refuses a record whose
 * sum is wrong, also where nobody was promised it; and in every mode it skips zeros silently and applies what
 * comes behind them, a version without the one before. The modes that stop at damage do so in synced data as
 * well.
 *
 * How it works: before RocksDB reads the logs, they are read here. Up to the first fault they are whole. What
 * is behind it is given up if it was never synced: the log is cut there, later ones are emptied. If it was
 * synced, it is damage, and is reported. Two things tell. A write that was torn lacks whole sectors, or its
 * end: where none is missing, bytes were changed. And the marks (kv/rocks_log.h): a record that is found,
 * before the fault or behind it, vouches for everything up to its mark.
 *
 * Logs that RocksDB does not need any more may lie there, of which anything may be missing. Only where a
 * fault is found is RocksDB asked which those are: the database is opened for reading, without its logs.
 *
 * Invariants:
 * 1. No sequence number at or below a mark that was found is given up.
 * 2. Where a record has no mark (older programs made none) nothing is given up: RocksDB decides, and refuses.
 *
 * What cannot be told from a torn write is a sector of zeros, or a lost end, behind the last mark that can be
 * found: in the last synced group of writes, or the last two while there are many writers. A clean close
 * leaves a mark behind everything. And a log whose first record is damaged is trusted to begin where the
 * tables ended when RocksDB last wrote its manifest. Logs are short-lived: an open writes them to tables.
 */
#include "kv/rocks_impl.h"
#include "kv/rocks_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct logs {
	struct rocks_log *e; /* ascending by number */
	size_t count;
};

/* Where the logs end: the first fault, in e[at]. at == count: there is none. */
struct fault {
	size_t at;
	size_t offset;
	bool known;    /* the sequence number before it: */
	uint64_t last; /* this one */
};

/* --- marks ---------------------------------------------------------------------------------------------- */

static void put_mark(struct kv_rocks *r, rocksdb_writebatch_t *batch)
{
	char mark[ROCKS_MARK_LEN];

	rocks_mark_make(r->nonce, atomic_load(&r->synced), mark);
	rocksdb_writebatch_put_log_data(batch, mark, sizeof(mark));
}

rocksdb_writebatch_t *rocks_batch_new(struct kv_rocks *r)
{
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();

	put_mark(r, batch);
	return batch;
}

void rocks_batch_clear(struct kv_rocks *r, rocksdb_writebatch_t *batch)
{
	rocksdb_writebatch_clear(batch);
	put_mark(r, batch);
}

static void raise_synced(struct kv_rocks *r, uint64_t seq)
{
	uint64_t was = atomic_load(&r->synced);

	while (was < seq && !atomic_compare_exchange_weak(&r->synced, &was, seq))
		;
}

/* RocksDB has written into the batch which sequence number it got: 8 bytes and the count of them, 4 bytes. */
void rocks_batch_synced(struct kv_rocks *r, rocksdb_writebatch_t *batch)
{
	size_t len;
	const unsigned char *bytes = (const unsigned char *)rocksdb_writebatch_data(batch, &len);
	uint64_t seq = 0, count = 0;

	for (unsigned i = 0; i < 8; i++)
		seq |= (uint64_t)bytes[i] << 8 * i;
	for (unsigned i = 0; i < 4; i++)
		count |= (uint64_t)bytes[8 + i] << 8 * i;
	if (seq != 0 && count != 0)
		raise_synced(r, seq + count - 1);
}

void rocks_all_synced(struct kv_rocks *r)
{
	raise_synced(r, rocksdb_get_latest_sequence_number(r->db));
}

bool rocks_vouch_for_all(struct kv_rocks *r)
{
	rocksdb_writebatch_t *batch;
	char *text = NULL;

	rocksdb_flush_wal(r->db, 1, &text); /* a courtesy to what still rides; nobody was promised it */
	if (!text) {
		rocks_all_synced(r);
		batch = rocks_batch_new(r); /* a mark alone */
		rocksdb_write(r->db, r->write_sync, batch, &text);
		rocksdb_writebatch_destroy(batch);
	}

	bool done = !text;

	rocksdb_free(text);
	return done;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static enum kv_rc fail_log(struct kv_err *err, const char *what, const char *dir, uint64_t number)
{
	return kv_fail_errno(err, errno, KV_IO, "the log %s/%06" PRIu64 ".log cannot be %s", dir, number,
			     what);
}

static int by_number(const void *a, const void *b)
{
	uint64_t m = ((const struct rocks_log *)a)->number, n = ((const struct rocks_log *)b)->number;

	return m < n ? -1 : m > n;
}

/* Only their numbers. A directory that is not there has none. */
static enum kv_rc list_logs(const char *dir, struct logs *out, struct kv_err *err)
{
	DIR *d = opendir(dir);

	if (!d)
		return errno == ENOENT ? KV_OK : kv_fail_errno(err, errno, KV_IO, "%s cannot be listed", dir);
	for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
		uint64_t number;
		int end = 0;

		if (sscanf(e->d_name, "%" SCNu64 ".log%n", &number, &end) != 1 || end == 0 || e->d_name[end])
			continue;

		struct rocks_log *grown = reallocarray(out->e, out->count + 1, sizeof(*grown));

		if (!grown) {
			closedir(d);
			return kv_fail_rc(err, KV_NOMEM);
		}
		out->e = grown;
		out->e[out->count++] = (struct rocks_log){.number = number};
	}
	closedir(d);
	if (out->count)
		qsort(out->e, out->count, sizeof(*out->e), by_number);
	return KV_OK;
}

static int open_log(const char *dir, uint64_t number, int flags)
{
	char *path;
	int fd;

	if (asprintf(&path, "%s/%06" PRIu64 ".log", dir, number) < 0) {
		errno = ENOMEM;
		return -1;
	}
	fd = open(path, flags | O_CLOEXEC);
	free(path);
	return fd;
}

/* The bytes that it has now; an owner may add to it meanwhile. Given. NULL: errno says why. */
static uint8_t *read_bytes(int fd, size_t *len)
{
	struct stat st;
	uint8_t *bytes;
	size_t done = 0;

	if (fstat(fd, &st) != 0)
		return NULL;
	*len = (size_t)st.st_size;
	bytes = malloc(*len + 1);
	while (bytes && done < *len) {
		ssize_t n = pread(fd, bytes + done, *len - done, (off_t)done);

		if (n == 0)
			*len = done;
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EINTR) {
			free(bytes);
			return NULL;
		}
	}
	return bytes;
}

static enum kv_rc read_log(const char *dir, struct rocks_log *log, struct kv_err *err)
{
	int fd = open_log(dir, log->number, O_RDONLY);
	size_t len = 0;
	uint8_t *bytes = fd < 0 ? NULL : read_bytes(fd, &len);
	enum kv_rc rc = KV_OK;

	if (bytes)
		rocks_log_read(bytes, len, log);
	else if (errno == ENOENT) /* an owner has removed it: it was not needed */
		*log = (struct rocks_log){.number = log->number};
	else
		rc = fail_log(err, "read", dir, log->number);
	free(bytes);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* --- deciding ------------------------------------------------------------------------------------------- */

/* from: the first that counts. */
static struct fault find_fault(const struct logs *logs, size_t from)
{
	struct fault f = {.at = from};

	for (; f.at < logs->count; f.at++) {
		const struct rocks_log *log = &logs->e[f.at];

		f.offset = 0;
		if (log->any && f.known && log->first != f.last + 1)
			return f;
		if (log->any) {
			f.known = true;
			f.last = log->next - 1;
		}
		f.offset = log->good;
		/* A log that ends in a record is what the kill of its writer left; the next start went on
		 * behind it, in another log, without a gap. RocksDB takes it so too. */
		if (log->end == ROCKS_LOG_FAULT)
			return f;
	}
	return f;
}

/* Opens the database for reading, without its logs: the first log that it needs, and a sequence number up to
 * which it needs none. */
static enum kv_rc ask_tables(struct kv_rocks *r, uint64_t *first_log, uint64_t *last, struct kv_err *err)
{
	rocksdb_options_t *options = rocksdb_options_create_copy(r->options);
	char *text = NULL;
	enum kv_rc rc = KV_OK;

	rocksdb_options_set_wal_dir(options, ROCKS_NO_LOGS);
	rocksdb_options_set_db_log_dir(options, ROCKS_NO_LOGS);
	rocksdb_options_set_create_if_missing(options, 0);

	rocksdb_t *db = rocksdb_open_for_read_only(options, r->dir, 0, &text);

	if (db) {
		if (rocksdb_property_int(db, "rocksdb.min-log-number-to-keep", first_log) != 0)
			*first_log = 0;
		*last = rocksdb_get_latest_sequence_number(db);
		rocksdb_close(db);
	} else {
		rc = rocks_fail_open(r, text, err);
	}
	rocksdb_options_destroy(options);
	return rc;
}

/* Whether something that was synced is behind the fault: invariant 1. */
static bool was_synced(const struct logs *logs, size_t from, const struct fault *f)
{
	const struct rocks_log *log = &logs->e[f->at];
	uint64_t mark = 0;

	for (size_t i = from; i < logs->count; i++)
		mark = logs->e[i].mark > mark ? logs->e[i].mark : mark;
	/* What is missing ends where the records behind it begin. */
	return mark > f->last || (f->offset == 0 && log->behind && mark + 1 >= log->behind_first);
}

static bool has_unmarked(const struct logs *logs, size_t from)
{
	for (size_t i = from; i < logs->count; i++)
		if (logs->e[i].unmarked)
			return true;
	return false;
}

static enum kv_rc cut_log(const char *dir, uint64_t number, size_t len, struct kv_err *err)
{
	int fd = open_log(dir, number, O_WRONLY);
	enum kv_rc rc = KV_OK;

	if (fd < 0 || ftruncate(fd, (off_t)len) != 0 || fsync(fd) != 0)
		rc = fail_log(err, "cut", dir, number);
	if (fd >= 0)
		close(fd);
	return rc;
}

static enum kv_rc damaged(struct kv_err *err, const char *dir, uint64_t number, size_t offset,
			  const char *why)
{
	return kv_fail(err, KV_CORRUPT,
		       "the database %s cannot be opened: %06" PRIu64 ".log, byte %zu: damaged, %s", dir,
		       number, offset, why);
}

/* Faults that no write leaves which was torn, whatever the marks say. */
static enum kv_rc check_torn(const struct kv_rocks *r, const struct logs *logs, size_t from,
			     struct kv_err *err)
{
	for (size_t i = from; i < logs->count; i++) {
		const struct rocks_log *log = &logs->e[i];

		if (log->end != ROCKS_LOG_WHOLE && !log->torn)
			return damaged(err, r->dir, log->number, log->good, "and nothing of it is missing");
	}
	return KV_OK;
}

static enum kv_rc mend(struct kv_rocks *r, const struct logs *logs, bool *torn, struct kv_err *err)
{
	struct fault f = find_fault(logs, 0);
	uint64_t first_log = 0, last = 0;
	size_t from = 0;
	enum kv_rc rc;

	if (f.at == logs->count && check_torn(r, logs, 0, NULL) == KV_OK)
		return KV_OK;
	rc = ask_tables(r, &first_log, &last, err);
	if (rc != KV_OK)
		return rc;
	while (from < logs->count && logs->e[from].number < first_log)
		from++;
	rc = check_torn(r, logs, from, err);
	if (rc != KV_OK)
		return rc;
	f = find_fault(logs, from);
	if (f.at == logs->count || has_unmarked(logs, from))
		return KV_OK;
	if (!f.known)
		f.last = last;
	if (was_synced(logs, from, &f))
		return damaged(err, r->dir, logs->e[f.at].number, f.offset, "in what was synced");
	*torn = true;
	/* The last first: a gap between two of them says the same as the fault, should this be cut short. */
	for (size_t i = logs->count; !r->read_only && rc == KV_OK && i > f.at; i--)
		rc = cut_log(r->dir, logs->e[i - 1].number, i - 1 == f.at ? f.offset : 0, err);
	return rc;
}

enum kv_rc rocks_mend_logs(struct kv_rocks *r, bool *torn, struct kv_err *err)
{
	struct logs logs = {0};
	enum kv_rc rc = list_logs(r->dir, &logs, err);

	*torn = false;
	for (size_t i = 0; rc == KV_OK && i < logs.count; i++)
		rc = read_log(r->dir, &logs.e[i], err);
	if (rc == KV_OK)
		rc = mend(r, &logs, torn, err);
	free(logs.e);
	return rc;
}
