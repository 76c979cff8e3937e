/*
 * staged.h - staged batches: rows stored under a name, to be committed later.
 *
 * A staged batch is written in sequence by one writer at a time, in bounded
 * memory, and lasts from core_stage_sync on. An append names it (core/txn: by
 * core_txn_add_staged), which takes the parts as they are. With bounds it is a
 * batch [lower, upper) that an append may cut; without, it vouches for nothing.
 *
 * Its text is its bounds line, if it has bounds, its rows in no promised order,
 * and the beginning of a row whose end was not written yet.
 *
 * Threads: any. A struct core_stage and a struct core_staged_view are used by
 * one thread at a time, but a commit, a reader and core_staged_get may meet a
 * stage that is written to. The shard must stay open until both are closed.
 *
 * Codes as in shard.h; KV_NO_BATCH: there is no such staged batch (any more).
 */
#ifndef CORE_STAGED_H
#define CORE_STAGED_H

#include "core/shard.h"

/* Whether name may be that of a staged batch: [A-Za-z_][A-Za-z0-9._-]{0,127}. */
bool core_staged_name_ok(const char *name);

/* The line that stands before its rows, if it has bounds; else "". Returns buf. */
enum { CORE_BOUNDS_LINE_LEN = 64 };
char *core_staged_bounds_line(const struct core_staged *entry, char buf[CORE_BOUNDS_LINE_LEN]);

/* --- names ----------------------------------------------------------------------------------------- */

/* What is known of a staged batch: what is stored, and what its writer has added since. */
enum kv_rc core_staged_get(struct core_shard *s, const char *name, struct core_staged *out,
			   struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_staged_get_by_id(struct core_shard *s, struct core_uuid id, struct core_staged *out,
				 struct kv_err *err) KV_MUST_CHECK;

/* All that are stored, in no order; given, free with free(). */
enum kv_rc core_staged_list(struct core_shard *s, struct core_staged **out, size_t *count,
			    struct kv_err *err) KV_MUST_CHECK;

/* Remove it and its parts; its writer goes on in vain, its readers read to their end. KV_NO_BATCH. */
enum kv_rc core_staged_remove(struct core_shard *s, const char *name, struct kv_err *err) KV_MUST_CHECK;

/*
 * Give it another name; what has that name is removed.
 * KV_NO_BATCH, KV_BAD_NAME (to)
 * KV_EXISTS   with noreplace: `to` is there
 * With exchange both must be there, and swap their names.
 */
enum kv_rc core_staged_rename(struct core_shard *s, const char *from, const char *to, bool noreplace,
			      bool exchange, struct kv_err *err) KV_MUST_CHECK;

/* --- writing --------------------------------------------------------------------------------------- */

struct core_stage;

/*
 * Make an empty staged batch; it is there for all to see when this returns, if not on stable storage.
 * KV_EXISTS, KV_BAD_NAME
 * KV_QUOTA    the shard has CORE_STAGED_MAX
 */
enum kv_rc core_staged_create(struct core_shard *s, const char *name, struct core_staged *out,
			      struct kv_err *err) KV_MUST_CHECK;

/*
 * Open it for writing, at its end.
 * KV_NO_BATCH
 * KV_BATCH_BUSY  somebody in this process has it open for writing
 */
enum kv_rc core_stage_open(struct core_shard *s, struct core_uuid id, struct core_stage **out,
			   struct kv_err *err) KV_MUST_CHECK;

/*
 * All of these fail with
 * KV_BATCH_TAKEN  since this open a commit named the batch, or it was removed or changed elsewhere and that
 *                 was found out
 * KV_BATCH_LOST   the store failed before, and took rows with it; core_stage_clear begins anew
 * and by what shipping a full part can fail with: then rows are lost. Not so after KV_NOSPACE and KV_QUOTA,
 * which changed nothing: while it stays open, what was added before waits in memory for room.
 */

/* Whether the store has room for what of it waits in memory and for len bytes more. What waits when it is closed
 * and has none is lost, so to ask before them and before the close is to know. KV_NOSPACE: not now. */
enum kv_rc core_stage_room(struct core_stage *g, size_t len, struct kv_err *err) KV_MUST_CHECK;

/* Give it bounds; only while it has no rows. What was kept is forgotten: it has become the line.
 * KV_BAD_SYNTAX: it has. KV_BAD_BOUNDS */
enum kv_rc core_stage_bounds(struct core_stage *g, struct core_frontier lower, struct core_frontier upper,
			     struct kv_err *err) KV_MUST_CHECK;

/* Add a row, copied; what was kept is forgotten: it has become the row. KV_NOT_BEYOND_LOWER, KV_BEYOND_UPPER,
 * KV_ROW_TOO_LARGE; KV_BAD_SYNTAX: a `*` time. It is not in then. */
enum kv_rc core_stage_add(struct core_stage *g, const struct core_row *row, struct kv_err *err) KV_MUST_CHECK;

/* Keep the beginning of a row, in place of what was kept before; len 0: none. At most 64 MiB less a
 * little. */
enum kv_rc core_stage_keep(struct core_stage *g, const void *rest, size_t len,
			   struct kv_err *err) KV_MUST_CHECK;

/* What is kept now; borrowed until the next change. */
const void *core_stage_kept(struct core_stage *g, size_t *len);

/* Empty it: no rows, no bounds, nothing kept, nothing lost. On stable storage with the next sync. */
enum kv_rc core_stage_clear(struct core_stage *g, struct kv_err *err) KV_MUST_CHECK;

/* Have all of it on stable storage. After a failure it may be tried again; should rows have been lost (a
 * large part could not be stored, and not because the store was full), that says KV_BATCH_LOST. */
enum kv_rc core_stage_sync(struct core_stage *g, struct kv_err *err) KV_MUST_CHECK;

/* Bytes of its text now. */
uint64_t core_stage_size(struct core_stage *g);

/* Store what was added, as well as that goes, and let go. What did not go is marked as lost. NULL is
 * allowed. */
void core_stage_close(struct core_stage *g);

/* --- reading --------------------------------------------------------------------------------------- */

/* Its content at one moment. It stays until close, whatever happens to the name. */
struct core_staged_view {
	struct core_staged entry;
	struct core_batch *batch; /* its rows, for core_scan */
	void *rest;               /* the beginning of a row; owned */
	size_t rest_len;
	struct core_staged_pin *pin; /* the engine's; NULL: the view is closed */
	struct core_need *need;      /* where a lease must say that this is read; NULL elsewhere */
};

enum kv_rc core_staged_open(struct core_shard *s, struct core_uuid id, struct core_staged_view *out,
			    struct kv_err *err) KV_MUST_CHECK;
void core_staged_close(struct core_shard *s, struct core_staged_view *view); /* {0} is allowed */

#endif
