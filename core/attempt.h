/*
 * attempt.h - one try to store the next version of a shard, or several that follow each other, in one step.
 *
 * All under the shard's commit_mu.
 */
#ifndef CORE_ATTEMPT_H
#define CORE_ATTEMPT_H

#include "core/engine_impl.h"

enum {
	CORE_GROUP_MAX = 32,    /* versions of one attempt */
	CORE_GROUP_SHARDS = 32, /* attempts of one step */
	CORE_PUTS_INSIDE = 4    /* blobs of all but a few attempts */
};

struct core_attempt {
	struct core_shard *shard;
	size_t count;
	const struct core_diff *diffs[CORE_GROUP_MAX]; /* of the versions; borrowed */
	struct core_buf bytes[CORE_GROUP_MAX];         /* of the versions; the first count */
	struct kv_version_put versions[CORE_GROUP_MAX];
	struct kv_blob_put *blobs;
	size_t blob_count;
	struct core_buf fold_blob;
	char (*keys)[CORE_BLOB_KEY_LEN]; /* of the fold and of loose parts */
	size_t key_count;
	struct kv_blob_put blob_space[CORE_PUTS_INSIDE];
	char key_space[CORE_PUTS_INSIDE][CORE_BLOB_KEY_LEN];
	enum kv_rc rc; /* how storing them ended, and why not */
	struct kv_err err;
#ifdef CORE_SLOW_CHECKS
	struct core_state shadow; /* machine.c: what the stored bytes make of the state before */
	bool shadowed;
#endif
};

void core_attempt_init(struct core_attempt *a, struct core_shard *s);
void core_attempt_fini(struct core_attempt *a);

/* Fill in what makes d a version of its own, next after st. */
void core_attempt_stamp(struct core_shard *s, const struct core_state *st, const struct core_change *c,
			struct core_diff *d);

/* Whether d, which c has made, can be in one attempt with those before it: only the first may bring blobs. */
bool core_attempt_takes(const struct core_attempt *a, const struct core_change *c, const struct core_diff *d);

/*
 * Add the version d, which c has made and the attempt takes, and the blobs that go with it; d is borrowed
 * until the end. The first folds the tail where that is due; large parts are stored at once.
 * After a failure the attempt is as before, but for those: an empty one has to be begun anew. KV_NOMEM, and
 * the codes of the blob store, none of which leaves open whether the version was stored.
 */
enum kv_rc core_attempt_add(struct core_attempt *a, struct core_change *c, struct core_diff *d,
			    struct kv_err *err) KV_MUST_CHECK;

/*
 * Store the versions of attempts on different shards, in one step where the store can: those of each all or
 * none. An unknown outcome is looked up, and tried again. The rc of each:
 * KV_OK        they landed
 * KV_MISMATCH  another version did
 * KV_UNKNOWN   the store does not tell
 * and the codes of kv_store_commit, after which nothing was stored
 */
void core_attempts_store(struct core_attempt *const *attempts, size_t count, enum kv_sync sync);

/* Take back what was added last. */
void core_attempt_drop(struct core_attempt *a);

/* Changes of one shard, and what some of them make that is committed together. */
struct core_making {
	struct core_shard *shard;
	struct core_change *members[CORE_GROUP_MAX];
	size_t count;
	size_t from, to;         /* the members whose turn it is */
	struct core_state ahead; /* what the next one is to see; a copy of the shard's if they are several */
	struct core_attempt attempt;
	struct core_change *changes[CORE_GROUP_MAX]; /* of the versions */
	struct core_diff one;
	struct core_diff *diffs; /* of the versions: &one, or owned */
	bool due;                /* something is to be merged now */
};

/*
 * machine.c: run the members, one on the other's result, from m->from to m->to: as many as one attempt takes,
 * which are some. What is to be stored is in m->attempt, if it has any versions, and when that was tried
 * core_machine_made comes. Then their turns say what became of each: a refusal is its member's own outcome,
 * and stands only if what it was judged by does. Under commit_mu.
 */
void core_machine_make(struct core_making *m);
void core_machine_made(struct core_making *m);

/* The loose parts of what c appended by d are blobs now, before anybody else sees the batch. */
void core_attempt_settle_loose(const struct core_change *c, const struct core_diff *d);

#endif
