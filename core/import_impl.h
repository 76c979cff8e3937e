/*
 * import_impl.h - the lines of an export, for import.c.
 */
#ifndef CORE_IMPORT_IMPL_H
#define CORE_IMPORT_IMPL_H

#include "core/engine_impl.h"
#include "core/import.h"
#include "core/names.h"

/* What stands before the rows of a shard. */
struct core_import_shard {
	struct core_shard_id id;
	struct core_frontier since;
	struct core_frontier upper;
	struct core_owner owner;
	uint64_t created_ms;
	struct core_hold *holds;
	size_t hold_count;
	struct core_done *tokens;
	size_t token_count;
};

/* Told of each line. A code other than KV_OK ends the reading with it. */
struct core_import_lines {
	enum kv_rc (*begin)(void *arg, struct core_import_shard *s,
			    struct kv_err *err); /* holds come later */
	enum kv_rc (*row)(void *arg, const struct core_import_shard *s, const struct core_update *u,
			  struct kv_err *err);
	void (*again)(void *arg); /* what came of the shard is taken back */
	enum kv_rc (*end)(void *arg, const struct core_import_shard *s,
			  struct kv_err *err); /* it was right */
	enum kv_rc (*name)(void *arg, const struct core_name *name, struct kv_err *err);
};

/* Read a whole stream, up to its end. KV_BAD_SYNTAX, KV_NEWER, KV_NOMEM, and those of source and lines. */
enum kv_rc core_import_read(const struct core_import_source *source, const struct core_import_lines *lines,
			    void *arg, uint64_t *bytes, bool *one_moment, struct kv_err *err) KV_MUST_CHECK;

#endif
