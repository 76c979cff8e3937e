/*
 * names.h - names for shards: a small versioned document beside them.
 *
 * The whole document is one value in consensus under the key "names", changed
 * by compare-and-set; a change that meets a newer version is made again on it.
 *
 * Threads: any.
 */
#ifndef CORE_NAMES_H
#define CORE_NAMES_H

#include "core/shard.h"

enum { CORE_NAME_LEN = 256, CORE_NAMES_MAX = 100000 };

struct core_name {
	char name[CORE_NAME_LEN];
	struct core_shard_id target;
	uint64_t id; /* never used again in this store */
	uint32_t uid;
	uint32_t gid;
	uint64_t made_ms;
};

/* KV_NOTFOUND */
enum kv_rc core_name_get(struct core_engine *e, const char *name, struct core_name *out,
			 struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_name_get_by_id(struct core_engine *e, uint64_t id, struct core_name *out,
			       struct kv_err *err) KV_MUST_CHECK;

/* All names, ascending by bytes; *out is given (free), *count of them. */
enum kv_rc core_name_list(struct core_engine *e, struct core_name **out, size_t *count,
			  struct kv_err *err) KV_MUST_CHECK;

/* Make a name; its id and made_ms are filled in. KV_EXISTS; KV_QUOTA: CORE_NAMES_MAX are there. */
enum kv_rc core_name_add(struct core_engine *e, struct core_name *name, struct kv_err *err) KV_MUST_CHECK;

/* Make all of them in one step, but those that are there already; *taken: how many of these have another
 * target. KV_QUOTA */
enum kv_rc core_name_add_all(struct core_engine *e, const struct core_name *names, size_t count,
			     uint64_t *added, uint64_t *taken, struct kv_err *err) KV_MUST_CHECK;

/* KV_NOTFOUND */
enum kv_rc core_name_remove(struct core_engine *e, const char *name, struct kv_err *err) KV_MUST_CHECK;

/*
 * Rename, in one step. What is under `to` is replaced, unless no_replace (KV_EXISTS); exchange swaps the two.
 * KV_NOTFOUND
 */
enum kv_rc core_name_rename(struct core_engine *e, const char *from, const char *to, bool no_replace,
			    bool exchange, struct kv_err *err) KV_MUST_CHECK;

/* A name as a word of a line: spaces, control characters and backslashes are \ooo. */
void core_name_escape(const char *name, char out[4 * CORE_NAME_LEN]);

#endif
