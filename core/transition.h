/*
 * transition.h - the changes a shard can undergo, as pure functions.
 *
 * Each takes the state and inputs and makes a diff, or says why not; it changes
 * nothing and asks nobody. The machine commits the diff and applies it, or runs
 * the transition again on a newer state.
 *
 * The order of the checks of an append is that of the contract: docs/engine.md.
 *
 * Any thread; a diff belongs to its caller.
 */
#ifndef CORE_TRANSITION_H
#define CORE_TRANSITION_H

#include "core/state.h"

/* A batch that was built before the append: staged, or by the C API. Borrowed by the append. */
struct core_input {
	struct core_batch *batch; /* its parts; copied where they are committed */
	bool is_staged;           /* consumes the entry of the state with this id */
	struct core_uuid staged;
	const char *name;          /* of a staged one */
	struct core_uuid manifest; /* that batch was read from */
	bool has_bounds;           /* all rows lie in [lower, upper); else it vouches for nothing */
	struct core_frontier lower;
	struct core_frontier upper;
	bool has_rewrite; /* its parts were rewritten to rewrite_ts before (C API) */
	uint64_t rewrite_ts;
	uint64_t rows; /* handed over */
};

/* What an append asks for. */
struct core_append {
	bool idempotent; /* append: data below the current upper is there already; else compare-and-append */
	bool lower_star; /* compare-and-append at whatever the upper is */
	bool upper_plus; /* with lower_star: new upper = upper + plus */
	bool rewrite_star; /* lift every time to the upper it meets */
	bool has_rewrite;  /* times were lifted to rewrite_ts before they came here */
	bool has_token;
	bool has_since;
	struct core_frontier lower;
	struct core_frontier upper;
	uint64_t plus;
	uint64_t rewrite_ts;
	struct core_token token;
	struct core_frontier since; /* to move the default hold to */
	uint64_t rows;              /* handed over one by one, for the verdict and the token */

	/* Batches to commit with the rows; borrowed. */
	const struct core_input *inputs;
	size_t input_count;

	/* Who appends; registered if the state does not know it. Borrowed; NULL: nobody. */
	const struct core_writer_state *writer;

	/* The rows as an uncommitted batch, or NULL: none. A reference; its parts' rewrite_ts and its bounds
	 * are set by the transition, so nobody else may hold it yet. */
	struct core_batch *batch;
};

struct core_appended {
	struct core_frontier lower; /* as used */
	struct core_frontier upper;
	uint64_t seqno;
	uint64_t updates;
	bool committed; /* false: its data were not committed (a no-op append, a token seen before) */
	bool known;     /* the token was seen before: it says what was done then */
	bool changes;   /* there is a version to commit, if only for the staged batches that go */
};

/* The bounds as asked, for the comparison of tokens. */
struct core_asked core_append_asked(const struct core_append *a);

/*
 * The checks that depend on the bounds and options alone, before any row:
 * KV_BAD_BOUNDS, KV_BAD_REWRITE.
 */
enum kv_rc core_append_check(const struct core_append *a, struct kv_err *err) KV_MUST_CHECK;

/*
 * One row's time against bounds known so far (a star's is not): KV_NOT_BEYOND_LOWER, KV_BEYOND_UPPER.
 */
enum kv_rc core_append_check_time(const struct core_append *a, uint64_t time,
				  struct kv_err *err) KV_MUST_CHECK;

/*
 * compare-and-append and append.
 * KV_OK  with r->changes: d is to be committed, and r says what it will have done; else r says what was
 *        done before, and d is unused
 * KV_BATCH_TAKEN  a staged input is not what the state has under its id any more
 * KV_TOKEN_REUSED, KV_NO_BATCH, KV_BATCH_LOST, KV_UPPER_MISMATCH (detail: expected_upper, current_upper),
 * KV_BAD_BOUNDS, KV_BATCH_BOUNDS, KV_BAD_REWRITE, KV_NOT_BEYOND_LOWER, KV_BEYOND_UPPER, KV_EMPTY_INTERVAL,
 * KV_BAD_SYNTAX (a staged batch whose last row is not whole), KV_FENCED (since is asked for, and the default
 * hold has a token), KV_NOMEM
 */
enum kv_rc core_do_append(const struct core_state *s, struct core_append *a, struct core_diff *d,
			  struct core_appended *r, struct kv_err *err) KV_MUST_CHECK;

/* Move a hold forward, or give it a policy. A frontier ends the policy; one that is not beyond its since
 * changes nothing else. *changed: there is a version to commit. KV_NOTFOUND: no hold of that name.
 * KV_FENCED: its token is not 0. */
enum kv_rc core_do_hold(const struct core_state *s, const char *name, struct core_frontier since,
			uint64_t follow, struct core_diff *d, bool *changed,
			struct kv_err *err) KV_MUST_CHECK;

/* How a named hold is asked to move. */
struct core_hold_ask {
	struct core_frontier since; /* where to */
	bool compare;               /* only if its token is `expected`, and then it gets `token` */
	uint64_t expected;
	uint64_t token;
};

/* Move or make a hold (core_hold_set in shard.h). out: as it is then, or was. KV_FENCED, KV_COMPACTED,
 * KV_QUOTA, KV_NO_SHARD */
enum kv_rc core_do_set_hold(const struct core_state *s, const char *name, const struct core_hold_ask *ask,
			    struct core_diff *d, struct core_hold *out, bool *changed,
			    struct kv_err *err) KV_MUST_CHECK;

/* Give a hold up. KV_NOT_HERE: the default one, or fenced and not at the empty frontier. KV_NOTFOUND,
 * KV_NO_SHARD */
enum kv_rc core_do_drop_hold(const struct core_state *s, const char *name, struct core_diff *d,
			     struct kv_err *err) KV_MUST_CHECK;

/*
 * Make a staged batch (was: all zero), or put `now` in the place of the one that has its id, of which the
 * content was that of manifest `was`.
 * KV_EXISTS, KV_QUOTA, KV_NO_BATCH, KV_BATCH_TAKEN (its content is another one now), KV_NO_SHARD
 */
enum kv_rc core_do_stage(const struct core_state *s, struct core_uuid was, const struct core_staged *now,
			 struct core_diff *d, struct kv_err *err) KV_MUST_CHECK;

/* Remove one. KV_NO_BATCH, KV_NO_SHARD */
enum kv_rc core_do_unstage(const struct core_state *s, struct core_uuid id, struct core_diff *d,
			   struct kv_err *err) KV_MUST_CHECK;

/* Rename one; what has the name `to` is removed, or swapped. KV_NO_BATCH, KV_EXISTS, KV_NO_SHARD */
enum kv_rc core_do_rename_staged(const struct core_state *s, const char *from, const char *to, bool noreplace,
				 bool exchange, struct core_diff *d, struct kv_err *err) KV_MUST_CHECK;

/* Strike a writer. KV_NOTFOUND: there is none of that id. KV_NO_SHARD */
enum kv_rc core_do_expire(const struct core_state *s, struct core_uuid writer, struct core_diff *d,
			  struct kv_err *err) KV_MUST_CHECK;

/* Take a lease, or renew it; its since lies at or above the shard's. KV_NO_SHARD */
enum kv_rc core_do_lease(const struct core_state *s, const struct core_lease *now, struct core_diff *d,
			 struct kv_err *err) KV_MUST_CHECK;

/* End one. KV_NOTFOUND: there is none of that id. KV_NO_SHARD */
enum kv_rc core_do_end_lease(const struct core_state *s, struct core_uuid id, struct core_diff *d,
			     struct kv_err *err) KV_MUST_CHECK;

enum kv_rc core_do_owner(const struct core_state *s, struct core_owner owner, struct core_diff *d,
			 struct kv_err *err) KV_MUST_CHECK;

/* End the shard. KV_NOT_FINISHED: the upper or a hold is not empty; the sentence says which. */
enum kv_rc core_do_remove(const struct core_state *s, struct core_diff *d, struct kv_err *err) KV_MUST_CHECK;

enum kv_rc core_do_rollup(const struct core_state *s, const struct core_rollup *rollup, struct core_diff *d,
			  struct kv_err *err) KV_MUST_CHECK;

/* A merge that was done. Its output is to take the place of exactly what it read. Borrowed. */
struct core_merged {
	struct core_batch *const *inputs; /* neighbours, as they were read */
	size_t count;
	struct core_batch *output; /* from the first lower to the last upper */
	bool forgets; /* since was empty: nothing is readable ever again, and the output has no rows */
};

/* Whether the inputs are there still, all of them, as they were. The output is not looked at. */
bool core_merge_is_open(const struct core_state *s, const struct core_merged *m);

/*
 * Put the output in the place of the inputs, which are known by their bounds and their parts.
 * *fits: false: they are not there any more (all of them, as they were): d is unused, and the output is
 * nobody's. True if the output itself is there already, then with *there. KV_CORRUPT  the output cannot be
 * what the inputs hold: diffs do not add up, its since is beyond the shard's
 */
enum kv_rc core_do_merge(const struct core_state *s, const struct core_merged *m, struct core_diff *d,
			 bool *fits, bool *there, struct kv_err *err) KV_MUST_CHECK;

/*
 * The blobs of these dead parts (ascending by id) were deleted, and rollups of versions below rollups_from
 * were. Those the state does not have are passed over. *changed: there is a version to commit. KV_NO_SHARD
 */
enum kv_rc core_do_collect(const struct core_state *s, const struct core_part_id *gone, size_t count,
			   uint64_t rollups_from, struct core_diff *d, bool *changed,
			   struct kv_err *err) KV_MUST_CHECK;

#endif
