/*
 * compact.h - which batches to merge, as a function of the state alone.
 *
 * The levels of a shard are the sizes of its batches, oldest first: each is larger
 * than all behind it together. A merge takes the longest end of the list for which
 * that does not hold. So there are O(log n) batches; and as each merge leaves its
 * first batch at least twice as large, unless rows cancel out, a row is written
 * O(log n) times. The oldest batch is merged already when those behind it weigh half of it: so what
 * is replaced or retracted takes at most that half.
 *
 * Nothing of this is stored beside the batches: what is due after a restart, or on
 * another host, is what was due before.
 *
 * Threads: pure functions; the caller keeps the state still.
 */
#ifndef CORE_COMPACT_H
#define CORE_COMPACT_H

#include "core/state.h"

enum {
	CORE_RUNS_MAX = 256,  /* above that many runs appends wait for a merge */
	CORE_RUNS_SLOW = 192, /* and above that many it is near */
	CORE_MERGE_COUNT = 4, /* small batches wait until there are so many of them to merge */
	CORE_MERGE_RUNS = 4,  /* runs that one batch may have for long */
};

/* What the one who asks is after. */
enum core_merge_aim {
	CORE_AIM_LEVELS, /* what is due at once */
	CORE_AIM_REST,   /* what is worth its while when nothing else is to be done */
	CORE_AIM_ONE,    /* one run, as far advanced as since allows */
};

/* Batches [first, end) of a state. */
struct core_merge_range {
	size_t first;
	size_t end;
};

/* Batches that are no tail: those behind them are folded by appends (fold.c). */
size_t core_merge_prefix(const struct core_state *s);

struct core_merge_ask {
	enum core_merge_aim aim;
	struct core_frontier since; /* CORE_AIM_ONE: what can be advanced beyond it need not be */
	uint64_t bytes_max;         /* what is due at once, as far as it weighs no more; 0: any weight */
};

/* The merge to do among batches [from, end); false: there is none. */
bool core_merge_pick(const struct core_state *s, size_t from, size_t end, const struct core_merge_ask *ask,
		     struct core_merge_range *out);

/* Whether a merge of the batch alone would change it: make one run of it, or of rows that since tells apart
 * no more. */
bool core_merge_would_change(const struct core_state *s, const struct core_batch *b);

/* Whether one is due at once among all batches that are no tail. */
bool core_merge_is_due(const struct core_state *s);

/* Where a merge of batches [.., upper) advances times to: since, but never out of the batch. */
uint64_t core_merge_advance(const struct core_state *s, struct core_frontier upper);

#endif
