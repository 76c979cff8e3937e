/*
 * shadow.h - a plain model of a shard: what the contract says of appends, batches and reads, in arrays and
 * loops. Written from docs/interface.md and docs/engine.md, not from the engine. The property tests of the
 * engine and of the mount compare answers with it.
 *
 * Rows are few: kind k stands for one key and val; the last one has a val that fits into no inline part.
 *
 * Threads: one at a time.
 */
#ifndef TESTS_SHADOW_H
#define TESTS_SHADOW_H

#include "core/frontier.h"
#include "kv/rc.h"

enum { SH_KEYS = 4, SH_VALS = 2, SH_KINDS = SH_KEYS * SH_VALS, SH_TOKENS = 6, SH_STAGED = 12, SH_TEXT = 300 };

const char *sh_key(unsigned kind);
const char *sh_val(unsigned kind);
/* The kind of a val as text, or -1. */
int sh_kind(const char *key, size_t key_len, const char *val, size_t val_len);
/* A kind; seldom the large one. `chance` is any number. */
unsigned sh_kind_of(uint64_t chance);

struct sh_row {
	bool star;
	unsigned kind;
	uint64_t time;
	int64_t diff;
};

struct sh_rows {
	struct sh_row *r;
	size_t count;
};
void sh_rows_add(struct sh_rows *rows, struct sh_row row);
struct sh_rows sh_rows_copy(const struct sh_rows *rows);
void sh_rows_free(struct sh_rows *rows);
/* Sorted by kind, time, star; equal ones summed, zeros dropped, sums beyond i64 as several. */
struct sh_rows sh_rows_settled(const struct sh_rows *rows);

/* What was built ahead or staged. */
struct sh_batch {
	bool has_bounds, has_rewrite;
	struct core_frontier lower, upper;
	uint64_t rewrite_ts;
	struct sh_rows rows; /* handed over */
	bool vague;          /* after a crash: their number may be another, if not what they say */
};
struct sh_batch sh_batch_copy(const struct sh_batch *b);
void sh_batch_free(struct sh_batch *b);
/* As a file shows it, rows in the order of sh_rows_settled, then rest; given. */
char *sh_batch_text(const struct sh_batch *b, const char *rest);

struct sh_staged {
	bool there;
	unsigned id; /* the same through renames */
	char name[130];
	struct sh_batch now;
	char rest[40]; /* the beginning of a row */
	bool transmitted;
	/* What a crash may go back to: what was synced, what was stored because somebody looked, what was
	 * stored before the last close, if nobody waited for that, and, if it was not emptied since it was
	 * synced, some of the rows since. */
	bool was_synced, was_stored, was_closed, cleared;
	struct sh_batch synced, stored, closed;
	char synced_rest[40], stored_rest[40], closed_rest[40];
};

struct sh_ask {
	bool idempotent, star, plus, rewrite, rewrite_star, has_token, has_since;
	struct core_frontier lower, upper, since;
	uint64_t n, rewrite_ts;
	unsigned token;
};
/* As in a begin line, tokens as numbers. */
char *sh_ask_text(const struct sh_ask *ask, char out[SH_TEXT]);

struct sh_input {
	const struct sh_batch *batch; /* NULL: there is none of that name */
	bool staged, unfinished;
	bool gone;    /* a staged one that one had in hand, and is not there any more */
	bool foreign; /* of another shard */
	unsigned id;  /* of a staged one; 0: none. The same one twice is refused */
};

struct sh_answer {
	enum kv_rc rc;
	bool same;     /* nothing was committed */
	bool by_token; /* it says what was done then */
	bool looked;   /* at the staged batches, so that nobody may add to them any more */
	bool vague;    /* updates is not known for sure */
	struct core_frontier lower, upper;
	uint64_t updates;
	char detail[200]; /* "": not said */
};
/* "ok 0 3 updates=2", "same 3 3 updates=0", or name and detail. */
char *sh_answer_text(const struct sh_answer *a, char out[SH_TEXT]);

struct sh_token {
	bool used;
	char asked[200];
	struct sh_ask ask; /* to ask again */
	size_t inputs;
	uint64_t own, built;
	struct sh_answer answer;
};

struct shadow {
	struct core_frontier upper, since;
	uint64_t follow;
	struct sh_token tokens[SH_TOKENS];
	struct sh_rows facts;
	struct core_frontier *edges; /* uppers it has had */
	size_t edge_count;
	struct sh_staged staged[SH_STAGED];
	unsigned next_id;
};

/* {0} but for the upper 0. */
void shadow_init(struct shadow *m);
void shadow_free(struct shadow *m);

/* What the text of an append tells by itself, before its commit: the begin line, and after it the rows. */
bool shadow_text(const struct sh_ask *ask, const struct sh_rows *rows, struct sh_answer *a);

/* Append rows and inputs. What is consumed on success (the staged ones, unless by_token) the caller drops. */
void shadow_append(struct shadow *m, const struct sh_ask *ask, const struct sh_rows *rows,
		   const struct sh_input *in, size_t count, struct sh_answer *a);

void shadow_move_hold(struct shadow *m, struct core_frontier to, uint64_t follow);

/* The sums as of t. KV_COMPACTED, KV_WOULD_BLOCK. */
enum kv_rc shadow_sums(const struct shadow *m, uint64_t t, __int128 sums[SH_KINDS]);
/* The sums of times in [lower, upper). */
void shadow_sums_between(const struct shadow *m, struct core_frontier lower, struct core_frontier upper,
			 __int128 sums[SH_KINDS]);
/* Whether the upper was f, or f is 0. */
bool shadow_has_edge(const struct shadow *m, struct core_frontier f);

/* --- staged batches -------------------------------------------------------------------------------- */

struct sh_staged *shadow_staged(struct shadow *m, const char *name); /* NULL: there is none */
struct sh_staged *shadow_staged_by_id(struct shadow *m, unsigned id);
/* KV_EXISTS, KV_BAD_NAME; KV_QUOTA: the model has no room (not the engine's) */
enum kv_rc shadow_create(struct shadow *m, const char *name, struct sh_staged **out);
enum kv_rc shadow_rename(struct shadow *m, const char *from, const char *to, bool noreplace, bool exchange);
void shadow_drop(struct sh_staged *s);
/* What is said of a row that is to be added. */
enum kv_rc shadow_stage_row(const struct sh_staged *s, const struct sh_row *row);
enum kv_rc shadow_stage_bounds(struct sh_staged *s, struct core_frontier lower, struct core_frontier upper);
void shadow_stage_clear(struct sh_staged *s);
void shadow_synced(struct sh_staged *s);
/* Somebody looked, or named it in a commit that failed. */
void shadow_stored(struct sh_staged *s);
/* It will be stored, soon: close(2) does not wait for it. */
void shadow_closed(struct sh_staged *s);
/* After a crash: whether `text` (sorted as sh_batch_text is, NULL: it is gone) of so many rows handed over
 * (SIZE_MAX: not known) may be left. It becomes so. */
bool shadow_crashed(struct sh_staged *s, const char *text, size_t rows);
/* Lines behind a bounds line sorted, in place: for comparisons of files whose order is not promised. */
char *sh_sort_lines(char *text);

#endif
