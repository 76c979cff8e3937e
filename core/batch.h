/*
 * batch.h - what the engine keeps in memory about batches, runs and parts.
 *
 * A part is a sorted sequence of updates, by (key, val, time): the bytes of a
 * blob (hollow), or kept with its description (inline). A run is a sequence of
 * parts in order, so sorted as a whole. A batch is a description [lower, upper)
 * with since, and runs. A reader of a batch sees, of every row, the time
 * max(time, part.rewrite_ts) and drops the row if that lies outside
 * [lower, upper). All parts of one run have the same rewrite_ts, or else no (key,
 * val) in common (what core_builder puts in one run when a part has stars): then
 * a run stays sorted when it is read so.
 *
 * A batch never changes once a second holder may see it. Readers that hold a
 * reference may read its parts for as long as they hold it.
 *
 * Threads: references may be taken and dropped by any thread.
 */
#ifndef CORE_BATCH_H
#define CORE_BATCH_H

#include <stdatomic.h>

#include "core/frontier.h"
#include "core/id.h"
#include "core/row.h"

enum { CORE_BLOB_KEY_LEN = 120, CORE_KEY_BOUND_LEN = 32 };

struct core_part {
	struct core_part_id id;
	struct core_instance_id instance; /* who wrote it */
	uint64_t size;                    /* bytes of the blob, or of inline_data */
	uint8_t *inline_data;             /* owned; NULL: hollow */
	bool loose; /* inline_data are the bytes of a blob that is to be stored with the commit; then it is
		       hollow */
	uint64_t rows;
	uint64_t stars;       /* rows whose time was `*`; stored at time 0, lifted by rewrite_ts */
	uint64_t text_base;   /* bytes of all rows' text without the digits of their times */
	uint64_t time_digits; /* digits of the stored times of rows that are not stars */
	uint64_t min_time;    /* least stored time of rows that are not stars; 0 if there is none */
	uint64_t max_time;    /* greatest stored time */
	uint64_t diffs_sum;   /* of all diffs, modulo 2^64 */
	uint64_t checksum;    /* of the footer, which has those of the blocks */
	uint64_t rewrite_ts;  /* every time is read as the greater of itself and this; 0: as it is */
};

struct core_batch {
	_Atomic(unsigned) refs;
	struct core_frontier lower;
	struct core_frontier upper;
	struct core_frontier since; /* how far times were advanced */
	struct core_part *parts;    /* owned, run after run */
	size_t part_count;
	uint32_t *run_starts;  /* owned: index of the first part of each run; run_starts[0] == 0 */
	size_t run_count;      /* 0 iff there are no parts */
	uint64_t rows;         /* sum over the parts, hidden ones too */
	uint64_t bytes;        /* likewise, of the parts as they are stored */
	uint64_t committed_ms; /* when it was committed, ms since 1970; 0: not yet */
};

/* A batch without parts and one reference. NULL: out of memory. */
struct core_batch *core_batch_new(struct core_frontier lower, struct core_frontier upper);
struct core_batch *core_batch_ref(struct core_batch *b);
void core_batch_unref(struct core_batch *b);           /* NULL is allowed */
bool core_batch_is_shared(const struct core_batch *b); /* whether there is more than one reference */

/*
 * Add a part at the end, as a new run or to the last one. *part is taken (its inline_data too) and zeroed.
 * Only before a second holder sees the batch. False: out of memory; *part stays the caller's.
 */
bool core_batch_push(struct core_batch *b, struct core_part *part, bool new_run);

/* Take the last part off again; it is forgotten, as core_part_fini does. Under the same rule. */
void core_batch_pop(struct core_batch *b);

/* Forget the part's memory; the blob stays. */
void core_part_fini(struct core_part *part);

/* Whether [lower, upper) can hide rows of the part. */
bool core_part_may_hide(const struct core_part *part, struct core_frontier lower, struct core_frontier upper);

/* Whether [lower, upper) hides every row of the part. */
bool core_part_hidden(const struct core_part *part, struct core_frontier lower, struct core_frontier upper);

/*
 * Bytes of the part's visible rows as text. False: only reading it would tell (bounds that hide some rows, or
 * a rewrite that lifts some times but not all of them).
 */
bool core_part_text_len(const struct core_part *part, struct core_frontier lower, struct core_frontier upper,
			uint64_t *len);

/* Bytes of inline data in all parts; what is loose is on its way to be a blob. */
uint64_t core_batch_inline_bytes(const struct core_batch *b);

/* The blob key of a part: <shard>/<instance>/<part>. Returns buf. */
char *core_part_key(struct core_shard_id shard, const struct core_part *part, char buf[CORE_BLOB_KEY_LEN]);

#endif
