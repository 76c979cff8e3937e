/*
 * rows.h - a heap of updates, copied, and their sorting: for the builder and the fold.
 *
 * Cheap for one row, bounded by what was added for many.
 *
 * Threads: a heap belongs to one thread at a time. It may be moved by
 * assignment.
 */
#ifndef CORE_ROWS_H
#define CORE_ROWS_H

#include "core/row.h"

struct core_pace;
struct core_rows_chunk;

struct core_rows {
	struct core_update *u;
	bool *star; /* as long as u; NULL: none is a star */
	size_t count;
	size_t cap;
	size_t bytes; /* of memory that the rows take */
	bool settled; /* core_rows_settle has nothing to do */
	struct core_rows_chunk *chunks;
	struct core_rows_chunk *spare; /* of a heap that was cleared */
};

/* {0} is an empty heap. */
void core_rows_fini(struct core_rows *r);

/* Make it empty, for another heap of about that size: the memory stays with it. */
void core_rows_clear(struct core_rows *r);

/* Have room for count rows, as far as memory allows: growing in steps holds two copies for a while. */
void core_rows_expect(struct core_rows *r, size_t count);

/* Copy an update. False: out of memory, the heap is as before. */
bool core_rows_add(struct core_rows *r, const struct core_update *u, bool star);

/*
 * Sort by (key, val, time, star) and consolidate: rows equal in all four become their sum, none if that is
 * 0; a sum that leaves i64 becomes as many rows as it takes. False: out of memory, the heap is as before.
 * pace (or NULL): it gives way to others while the rows are in order already, as those of a merge are.
 */
bool core_rows_settle(struct core_rows *r, struct core_pace *pace);

/*
 * Take the next i64 off a sum of many: all of it if it fits, else the farthest i64 towards it. The number of
 * takes until 0 is at most the number of i64 summed.
 */
int64_t core_sum_take(__int128 *sum);

#endif
