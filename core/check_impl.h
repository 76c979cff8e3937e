/*
 * check_impl.h - what check.c and repair.c share.
 */
#ifndef CORE_CHECK_IMPL_H
#define CORE_CHECK_IMPL_H

#include "core/chain.h"
#include "core/check.h"
#include "core/manifest.h"

enum { CORE_CHECK_TRIES = 8 }; /* beside an owner who changes what is looked at */

/*
 * Read all of a part, and count: rows in order, sums, times and text as its description says. last: the last
 * row of the part before it in its run, or NULL; see check_part.c. KV_CORRUPT; KV_GONE; and what reading can
 * fail with
 */
struct core_last_row;
enum kv_rc core_check_part(const struct core_home *home, const struct core_part *part,
			   struct core_last_row *last, struct kv_err *err) KV_MUST_CHECK;
struct core_last_row *core_last_row_new(void); /* NULL: out of memory */
void core_last_row_forget(struct core_last_row *last);
void core_last_row_free(struct core_last_row *last); /* NULL is allowed */

/* Whether rc is of the stored bytes or of the device that has them: a finding. */
bool core_is_damage(enum kv_rc rc);

/* Ids of all shards that have versions, ascending, each once; rc of each() ends it. */
typedef enum kv_rc core_each_id_fn(void *arg, struct core_shard_id id, struct kv_err *err);
enum kv_rc core_each_shard(struct core_engine *e, core_each_id_fn *each, void *arg,
			   struct kv_err *err) KV_MUST_CHECK;

/* A blob that nobody names. */
typedef enum kv_rc core_orphan_fn(void *arg, const char *key, uint64_t size, struct kv_err *err);

/* Those below the shard's id, which has that state. KV_GONE: a staged batch was changed meanwhile. */
enum kv_rc core_orphans_of(struct core_engine *e, struct core_shard_id id, const struct core_state *state,
			   core_orphan_fn *each, void *arg, struct kv_err *err) KV_MUST_CHECK;

/* Those below ids without versions. */
enum kv_rc core_orphans_of_nobody(struct core_engine *e, core_orphan_fn *each, void *arg,
				  struct kv_err *err) KV_MUST_CHECK;

#endif
