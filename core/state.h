/*
 * state.h - what is known of a shard at one version, and how versions differ.
 *
 * A state changes only by applying a diff; diffs are made by the transitions
 * (transition.h) and stored as versions in consensus (machine.c). Applying is
 * deterministic: the same state and diff give the same state everywhere.
 *
 * Invariants (core_state_check):
 *  1. batches tile [0, upper): the first lower is 0, each next one the upper
 *     before, the last upper the shard's; no batch is empty in time.
 *  2. each batch's since is at most the shard's.
 *  3. the shard's since is at most that of every hold.
 *  4. no part is in two batches; counts and sums of batches are those of their
 *     parts; runs are not empty.
 *  5. at most CORE_TOKENS_MAX tokens; names of holds differ.
 *  6. seqno >= first_seqno > 0; rollups ascend and are at most seqno.
 *  7. at most CORE_STAGED_MAX staged batches, CORE_WRITERS_MAX writers and
 *     CORE_READERS_MAX leases; ids and names of staged batches differ, and so do
 *     ids of writers and of leases.
 *  8. the shard's since is at most that of every lease.
 *  9. dead parts ascend by the version that replaced them, which is at most seqno;
 *     none stands twice, and none is in a batch.
 *
 * Threads: a state belongs to one holder at a time; its batches are shared by
 * reference.
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include "core/batch.h"

enum {
	CORE_TOKENS_MAX = 1024,
	CORE_INLINE_TOTAL = 128 << 10, /* bytes of inline parts that a shard may have */
	CORE_ASKED_LEN = 32,
	CORE_HOLD_NAME_LEN = 129, /* with its NUL, as the lengths below */
	CORE_STAGED_MAX = 1024,
	CORE_STAGED_NAME_LEN = 129,
	CORE_WRITERS_MAX = 1024,
	CORE_READERS_MAX = 1024,
	CORE_HOLDS_MAX = 1024,
	CORE_HOST_LEN = 65,
	CORE_PURPOSE_LEN = 129,
};

#define CORE_DEFAULT_HOLD "default"

struct core_hold {
	char name[CORE_HOLD_NAME_LEN];
	struct core_frontier since;
	uint64_t token;  /* fencing token */
	uint64_t follow; /* n: since follows the upper at this distance; 0: it does not */
};

/* Bounds as asked for, in a form that is compared byte by byte (made by core_append_asked). */
struct core_asked {
	uint8_t b[CORE_ASKED_LEN];
};

struct core_done {
	struct core_token token;
	struct core_asked asked;
	uint64_t rows;              /* handed over one by one */
	uint64_t batch_rows;        /* in the batches that were built before */
	struct core_frontier lower; /* as used */
	struct core_frontier upper;
	uint64_t seqno;
};

struct core_rollup {
	uint64_t seqno;
	char key[CORE_BLOB_KEY_LEN];
};

struct core_owner {
	uint32_t uid;
	uint32_t gid;
	uint32_t mode; /* permission bits */
};

/*
 * A staged batch: rows that are stored already and wait under a name to be committed. Its parts stand in a
 * blob of their own, the manifest (manifest.h), so that the state stays small however large the batch is.
 */
struct core_staged {
	struct core_uuid id; /* the same through renames and changes */
	char name[CORE_STAGED_NAME_LEN];
	/* Another one at each change of the content. The blob's key has it and the instance that wrote it. */
	struct core_uuid manifest;
	struct core_instance_id instance;
	uint64_t manifest_bytes; /* 0: there is no such blob, and no rows */
	uint64_t rows;           /* handed over */
	uint64_t size;           /* bytes of its text: the bounds line, the rows, the row that is not whole */
	bool has_bounds;         /* then all rows lie in [lower, upper) */
	struct core_frontier lower;
	struct core_frontier upper;
	bool unfinished; /* its last row has no newline yet */
	bool lost;       /* something that was written to it is not in it */
	uint64_t changed_ms;
};

/*
 * Who appends. The attempt ids of its versions begin with the first CORE_WRITER_TAG bytes of its id: so each
 * version renews its writer, and none has to say so.
 */
enum { CORE_WRITER_TAG = 8 };

struct core_writer_state {
	struct core_uuid id;
	char host[CORE_HOST_LEN];
	char purpose[CORE_PURPOSE_LEN];
	uint64_t lease_ms; /* a version later than heartbeat_ms + lease_ms drops the writer */
	uint64_t heartbeat_ms;
	struct core_frontier last_upper; /* the shard's upper after its last append */
};

/*
 * What the readers of one process need, as a lease: since does not pass it while it is renewed. Only where
 * several processes write to one store; a sole owner knows its readers itself.
 */
struct core_lease {
	struct core_uuid id; /* of the process' engine */
	char host[CORE_HOST_LEN];
	char purpose[CORE_PURPOSE_LEN];
	uint64_t lease_ms; /* a version later than heartbeat_ms + lease_ms drops it */
	uint64_t heartbeat_ms;
	struct core_frontier since;
	uint64_t seqno; /* of the oldest version whose parts may still be read */
};

/*
 * The blob of a part that a version has replaced. It stays until nobody reads it any more (gc.c), and is on
 * this list so that it is found however often the program ends before that.
 */
struct core_dead {
	struct core_part_id id;
	struct core_instance_id instance;
	uint64_t size;
	uint64_t seqno; /* of the version that replaced it: those before name it */
};

struct core_state {
	uint64_t seqno;
	uint64_t first_seqno; /* tells this shard from an earlier one under the same id */
	uint64_t walltime_ms; /* of the newest version */
	uint64_t created_ms;
	struct core_uuid attempt; /* that made the newest version */
	struct core_frontier since;
	struct core_frontier upper;
	struct core_batch **batches; /* a reference each, in order */
	size_t batch_count;
	size_t batch_cap;
	struct core_hold *holds;
	size_t hold_count;
	size_t hold_cap;
	struct core_done *tokens; /* oldest first, from token_first on; round the end once there are all */
	size_t token_count;
	size_t token_cap;
	size_t token_first; /* 0 until there are CORE_TOKENS_MAX */
	struct core_rollup *rollups;
	size_t rollup_count;
	size_t rollup_cap;
	struct core_staged *staged; /* in no order */
	size_t staged_count;
	size_t staged_cap;
	struct core_writer_state *writers; /* in no order */
	size_t writer_count;
	size_t writer_cap;
	struct core_lease *leases; /* of readers, in no order */
	size_t lease_count;
	size_t lease_cap;
	struct core_dead *dead; /* ascending by seqno */
	size_t dead_count;
	size_t dead_cap;
	struct core_owner owner;
	bool tombstone;
};

/* Replace the batches that tile [lower, upper) by these; lower == upper: insert there. Blobs of parts that
 * are replaced become dead. */
struct core_splice {
	struct core_frontier lower;
	struct core_frontier upper;
	struct core_batch **batches; /* a reference each */
	size_t count;
};

enum { CORE_DIFF_SPLICES = 2, CORE_DIFF_HOLDS = 4 };

/* From one version to the next. Small things are held in place: a diff of an append allocates nothing. */
struct core_diff {
	uint64_t seqno;
	uint64_t walltime_ms;
	struct core_uuid attempt;
	struct core_rollup newest_rollup; /* where loading begins; seqno 0: unknown to an old diff */
	bool has_since;
	struct core_frontier since;
	bool has_upper;
	struct core_frontier upper;
	struct core_splice splices[CORE_DIFF_SPLICES];
	size_t splice_count;
	struct core_hold *holds; /* made or changed; points at hold_space or is owned */
	size_t hold_count;
	struct core_hold hold_space[CORE_DIFF_HOLDS];
	char (*holds_removed)[CORE_HOLD_NAME_LEN]; /* owned */
	size_t removed_count;
	bool has_token;
	struct core_done token;
	bool has_rollup;
	struct core_rollup rollup;
	uint64_t rollups_from;     /* those of versions below it are forgotten, but for the newest */
	struct core_part_id *gone; /* dead parts whose blobs were deleted; owned */
	size_t gone_count;
	struct core_staged *staged; /* made or changed, by id; owned */
	size_t staged_count;
	struct core_uuid *staged_removed; /* by id; owned; applied before those made or changed */
	size_t staged_removed_count;
	bool has_writer; /* this one is new; heartbeat and last upper are taken from the version */
	struct core_writer_state writer;
	bool expires_writer;
	struct core_uuid expired_writer;
	bool has_lease; /* made or renewed; its heartbeat is the version's time */
	struct core_lease lease;
	bool ends_lease;
	struct core_uuid ended_lease;
	bool has_owner;
	struct core_owner owner;
	bool tombstone;
};

/* An empty shard at version seqno: since 0, upper 0, the default hold at 0. KV_NOMEM. */
enum kv_rc core_state_init(struct core_state *s, uint64_t seqno, uint64_t now_ms, struct core_owner owner,
			   struct kv_err *err) KV_MUST_CHECK;
void core_state_fini(struct core_state *s);

void core_diff_init(struct core_diff *d);
void core_diff_fini(struct core_diff *d); /* drops its references */

/* Add to a diff. The batches' references are taken. KV_NOMEM: nothing changed, they stay the caller's. */
enum kv_rc core_diff_splice(struct core_diff *d, struct core_frontier lower, struct core_frontier upper,
			    struct core_batch *const *batches, size_t count,
			    struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_diff_hold(struct core_diff *d, const struct core_hold *hold,
			  struct kv_err *err) KV_MUST_CHECK;

enum kv_rc core_diff_staged(struct core_diff *d, const struct core_staged *staged,
			    struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_diff_staged_removed(struct core_diff *d, struct core_uuid id,
				    struct kv_err *err) KV_MUST_CHECK;

/* Make room for d, so that applying it cannot fail for want of memory. s looks as before. KV_NOMEM. */
enum kv_rc core_state_reserve(struct core_state *s, const struct core_diff *d,
			      struct kv_err *err) KV_MUST_CHECK;

/*
 * Make s the next version. The writer whose tag the version's attempt has is renewed; then writers whose
 * lease is over at the version's time are dropped, and above CORE_WRITERS_MAX the one renewed longest ago.
 * Leases of readers likewise: made or renewed, ended, dropped, and at most CORE_READERS_MAX.
 * KV_CORRUPT  the diff does not fit (wrong seqno, a splice that meets no batch bounds); s is unchanged
 * KV_NOMEM    s is unchanged
 */
enum kv_rc core_state_apply(struct core_state *s, const struct core_diff *d,
			    struct kv_err *err) KV_MUST_CHECK;

/* Check the invariants above: KV_CORRUPT with the one that fails. */
enum kv_rc core_state_check(const struct core_state *s, struct kv_err *err) KV_MUST_CHECK;

/* Find things; NULL or batch_count: there is none. */
struct core_hold *core_state_hold(const struct core_state *s, const char *name);
const struct core_done *core_state_token(const struct core_state *s, struct core_token token);
const struct core_staged *core_state_staged(const struct core_state *s, const char *name);
const struct core_staged *core_state_staged_by_id(const struct core_state *s, struct core_uuid id);
const struct core_writer_state *core_state_writer(const struct core_state *s, struct core_uuid id);
const struct core_lease *core_state_lease(const struct core_state *s, struct core_uuid id);
size_t core_state_batch_at(const struct core_state *s, struct core_frontier lower); /* whose lower it is */
/* Where a splice goes: [*first, *end) of the batches tile its bounds. False: they do not. */
bool core_state_splice_range(const struct core_state *s, const struct core_splice *splice, size_t *first,
			     size_t *end);

/* Totals over all batches. */
struct core_totals {
	uint64_t rows;
	uint64_t runs;
	uint64_t parts;
	uint64_t inline_parts;
	uint64_t inline_bytes;
	uint64_t blob_bytes;
};
struct core_totals core_state_totals(const struct core_state *s);

#endif
