/*
 * rocks_log.h - what a write-ahead log of RocksDB holds, up to its first fault and behind it. Private to
 * kv/rocks*.c.
 *
 * Threads: any function, any thread.
 */
#ifndef KV_ROCKS_LOG_H
#define KV_ROCKS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A mark: a piece of log data, which RocksDB keeps in its log alone, at the beginning of a batch. It names
 * the last sequence number that was on stable storage when the batch was made.
 */
enum { ROCKS_MARK_LEN = 12 };
void rocks_mark_make(uint64_t synced, char mark[ROCKS_MARK_LEN]);

enum rocks_log_end {
	ROCKS_LOG_WHOLE, /* nothing but zeros behind the last record */
	ROCKS_LOG_CUT,   /* the file ends in a record */
	ROCKS_LOG_FAULT, /* something else */
};

struct rocks_log {
	uint64_t number; /* of the file; the reader leaves it alone */
	/* the records before the first fault, or the end */
	bool any;
	uint64_t first; /* their first sequence number */
	uint64_t next;  /* that of the record that comes */
	size_t good;    /* their bytes */
	enum rocks_log_end end;
	/* the records that can be found behind it */
	bool behind;
	uint64_t behind_first; /* the least of their sequence numbers */
	/* all records */
	bool unmarked; /* one has no mark */
	uint64_t mark; /* the greatest */
};

/* The log of len bytes. */
void rocks_log_read(const uint8_t *bytes, size_t len, struct rocks_log *out);

#endif
