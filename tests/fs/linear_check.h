/*
 * linear_check.h - was what many clients of a shard saw at the same time a history that one plain shard, asked
 * one thing after the other, could have given?
 *
 * A history is what each call did between its start and its end by one clock (CLOCK_MONOTONIC). It ends with the
 * shard finished, and holds one listener from 0 to the end: the truth.
 */
#ifndef TESTS_FS_LINEAR_CHECK_H
#define TESTS_FS_LINEAR_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LIN_WHY = 512, LIN_KEY = 16 };
#define LIN_END UINT64_MAX  /* the empty frontier, `-`; also the time of what it completes */
#define LIN_STAR UINT64_MAX /* as the time of an append's row: its lower */

struct lin_row {
	uint64_t time;
	int64_t diff;
	char key[LIN_KEY];
};

enum lin_form { LIN_CAS, LIN_INTERVAL, LIN_BLIND };
enum lin_outcome { LIN_DONE, LIN_REFUSED, LIN_UNKNOWN };

/* One append; with all the tries of one that was repeated by its token. */
struct lin_append {
	uint64_t start;
	uint64_t last_start; /* of the last try: what it was told was so after this */
	uint64_t end;
	enum lin_form form;
	enum lin_outcome outcome;
	uint64_t lower; /* as asked; not of a blind one */
	uint64_t upper;
	bool told;           /* the verdict was read */
	uint64_t told_lower; /* if done */
	uint64_t told_upper; /* if refused, current_upper */
	/* The first row's key is this append's alone; of LIN_INTERVAL it is there at each of its times. */
	struct lin_row *rows;
	size_t row_count;
};

enum lin_kind { LIN_UPPER, LIN_SNAPSHOT, LIN_AS_OF };

struct lin_read {
	enum lin_kind kind;
	uint64_t start;
	uint64_t end;
	uint64_t value; /* the upper; the time of an as_of */
	char *text;     /* of the other kinds; rows have val "v" */
};

struct lin_step {
	uint64_t lower;
	uint64_t upper;
	uint64_t seen;
	size_t row_count;
};

struct lin_listener {
	uint64_t from;
	bool ended; /* it came to its end */
	struct lin_step *steps;
	size_t step_count, step_cap;
	struct lin_row *rows; /* of all steps, in order */
	size_t row_count, row_cap;
};

struct lin_history {
	struct lin_append *appends;
	size_t append_count, append_cap;
	struct lin_read *reads;
	size_t read_count, read_cap;
	struct lin_listener *listeners; /* the first one is the truth */
	size_t listener_count, listener_cap;
};

/* Room for one more, zeroed; given to the history. */
struct lin_append *lin_add_append(struct lin_history *h);
struct lin_read *lin_add_read(struct lin_history *h);
struct lin_listener *lin_add_listener(struct lin_history *h);
void lin_add_row(struct lin_append *a, uint64_t time, int64_t diff, const char *key);
struct lin_step *lin_add_step(struct lin_listener *l);
void lin_add_step_row(struct lin_listener *l, const struct lin_row *row);
/* All of from, which is empty then. */
void lin_move(struct lin_history *to, struct lin_history *from);
void lin_free(struct lin_history *h);

/* False: it was none, and why. */
bool lin_check(const struct lin_history *h, char why[LIN_WHY]);

#endif
