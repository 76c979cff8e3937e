/*
 * frontier.h - antichains over u64 times: one element, or none.
 *
 * The frontier {t} stands for all times >= t; the empty one for no time at all,
 * so it is the greatest: a shard with an empty upper is finished. As text it is
 * the number in decimal without sign or leading zeros, or "-".
 *
 * Pure values; any thread.
 */
#ifndef CORE_FRONTIER_H
#define CORE_FRONTIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct core_frontier {
	bool empty;
	uint64_t t; /* 0 when empty, so that equal frontiers are equal bytes field by field */
};

enum { CORE_FRONTIER_LEN = 24 }; /* room for the text and its NUL */

struct core_frontier core_frontier_at(uint64_t t);
struct core_frontier core_frontier_empty(void);

/* The frontier of all times above t: {t + 1}, empty above the last time. */
struct core_frontier core_frontier_above(uint64_t t);

/* <0, 0, >0 as a lies below, at or above b. */
int core_frontier_cmp(struct core_frontier a, struct core_frontier b);
bool core_frontier_eq(struct core_frontier a, struct core_frontier b);
bool core_frontier_lt(struct core_frontier a, struct core_frontier b);
bool core_frontier_le(struct core_frontier a, struct core_frontier b);
struct core_frontier core_frontier_min(struct core_frontier a, struct core_frontier b);
struct core_frontier core_frontier_max(struct core_frontier a, struct core_frontier b);

/* Whether time t is at or beyond f, that is, f <= {t}. */
bool core_frontier_covers(struct core_frontier f, uint64_t t);

/* Text of len bytes to a value. False: not in the form above, or beyond u64; *out is then untouched. */
bool core_u64_parse(const char *text, size_t len, uint64_t *out);
bool core_frontier_parse(const char *text, size_t len, struct core_frontier *out);

/* Write the text and a NUL to buf; returns buf. */
char *core_frontier_format(struct core_frontier f, char buf[CORE_FRONTIER_LEN]);

/* Decimal digits of t. */
unsigned core_u64_digits(uint64_t t);

#endif
