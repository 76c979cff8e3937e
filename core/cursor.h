/*
 * cursor.h - private to merge.c and scan.c: rows as bounds and rewrites show
 * them.
 *
 * Threads: a cursor belongs to one thread at a time.
 */
#ifndef CORE_CURSOR_H
#define CORE_CURSOR_H

#include "core/merge.h"

/* Lift *time as the part says; whether the bounds show it then. */
static inline bool core_time_shown(const struct core_part *part, struct core_frontier lower,
				   struct core_frontier upper, uint64_t *time)
{
	if (*time < part->rewrite_ts)
		*time = part->rewrite_ts;
	return core_frontier_covers(lower, *time) && !core_frontier_covers(upper, *time);
}

/* One run of a batch, read in order. */
struct core_cursor {
	uint64_t prefix;        /* of row.key: a smaller one means a smaller key */
	struct core_update row; /* where the cursor stands; key and val borrowed until it moves */
	struct core_part_reader *reader;
	const struct core_home *home;
	const struct core_batch *batch;
	size_t part; /* the one in reader, or next to open */
	size_t end;
	size_t window;
	enum core_merge_mode mode;
	uint64_t time;
	bool rests; /* the reader was closed, to go on at pos */
	struct core_part_pos pos;
};

/* A cursor before the first row of parts [first, end) of the batch; all borrowed. */
struct core_cursor core_cursor_at(const struct core_home *home, const struct core_batch *batch, size_t first,
				  size_t end, enum core_merge_mode mode, uint64_t time, size_t window);

/* Move to the next row that the merge sees, with its time as the mode wants it; or *end. */
enum kv_rc core_cursor_next(struct core_cursor *c, bool *end, struct kv_err *err) KV_MUST_CHECK;

/* Give back what the cursor keeps of the part it is in, its row too, until it moves on: that costs a seek. */
void core_cursor_rest(struct core_cursor *c);

/* The same, but the row comes again: that is what moving on then does. There must be one. */
void core_cursor_rest_on_row(struct core_cursor *c);

/* Bytes of memory that the cursor keeps; and about how many it will when it moves on. */
size_t core_cursor_held(const struct core_cursor *c);
size_t core_cursor_need(const struct core_cursor *c);

void core_cursor_fini(struct core_cursor *c);

#endif
