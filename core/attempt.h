/*
 * attempt.h - one try to store the next version of a shard, or several that follow each other, in one step.
 *
 * All under the shard's commit_mu.
 */
#ifndef CORE_ATTEMPT_H
#define CORE_ATTEMPT_H

#include "core/engine_impl.h"

enum {
	CORE_GROUP_MAX = 32, /* versions of one attempt */
	CORE_PUTS_INSIDE = 4 /* blobs of all but a few attempts */
};

struct core_attempt {
	struct core_shard *shard;
	enum kv_sync sync;
	const struct core_diff *last; /* borrowed */
	size_t count;
	struct core_buf bytes[CORE_GROUP_MAX]; /* of the versions; the first count */
	struct kv_version_put versions[CORE_GROUP_MAX];
	struct kv_blob_put *blobs;
	size_t blob_count;
	struct core_buf fold_blob;
	char (*keys)[CORE_BLOB_KEY_LEN]; /* of the fold and of loose parts */
	size_t key_count;
	struct kv_blob_put blob_space[CORE_PUTS_INSIDE];
	char key_space[CORE_PUTS_INSIDE][CORE_BLOB_KEY_LEN];
};

void core_attempt_init(struct core_attempt *a, struct core_shard *s, enum kv_sync sync);
void core_attempt_fini(struct core_attempt *a);

/* Fill in what makes d a version of its own, next after st. */
void core_attempt_stamp(struct core_shard *s, const struct core_state *st, const struct core_change *c,
			struct core_diff *d);

/*
 * Add the version d, which c has made, and the blobs that go with it; d is borrowed until the end. Only the
 * first may bring blobs, and folds the tail where that is due; large parts are stored at once.
 * After a failure the attempt is as before, but for those: an empty one has to be begun anew. KV_NOMEM, and
 * the codes of the blob store, none of which leaves open whether the version was stored.
 */
enum kv_rc core_attempt_add(struct core_attempt *a, struct core_change *c, struct core_diff *d,
			    struct kv_err *err) KV_MUST_CHECK;

/*
 * Store them, all or none. An unknown outcome is looked up, and tried again.
 * KV_OK        they landed
 * KV_MISMATCH  another version did
 * KV_UNKNOWN   the store does not tell
 * and the codes of kv_store_commit, after which nothing was stored
 */
enum kv_rc core_attempt_store(struct core_attempt *a, struct kv_err *err) KV_MUST_CHECK;

/* Take back what was added last. */
void core_attempt_drop(struct core_attempt *a);

/* The loose parts of what c appended by d are blobs now, before anybody else sees the batch. */
void core_attempt_settle_loose(const struct core_change *c, const struct core_diff *d);

#endif
