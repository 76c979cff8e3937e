/*
 * txn.h - transactions, for the write handle; what everybody may use is in
 * shard.h.
 *
 * Threads: as shard.h says.
 */
#ifndef CORE_TXN_H
#define CORE_TXN_H

#include "core/shard.h"

/* As core_txn_begin, by a writer of one's own; *writer is copied. *met (or NULL; borrowed until the commit)
 * is moved forward to the upper that the commit meets or makes. */
enum kv_rc core_txn_begin_as(struct core_shard *s, const struct core_append *ask,
			     const struct core_writer_state *writer, struct core_frontier *met,
			     struct core_txn **out, struct kv_err *err) KV_MUST_CHECK;

/* Add a batch that was built before; its batch and name are borrowed until the transaction is freed. Of a
 * staged one the entry is consumed, and its blobs left to the caller. KV_BAD_SYNTAX: too many, or it was
 * added before. */
enum kv_rc core_txn_add_input(struct core_txn *t, const struct core_input *in,
			      struct kv_err *err) KV_MUST_CHECK;

/* rc of storing a part that nobody names yet: an unknown outcome of that is none of what was asked for, of
 * which surely nothing was done. */
enum kv_rc core_surely_not(enum kv_rc rc, struct kv_err *err);

/* Delete the blobs of a batch that was not committed and never will be. combined: it was tried with others,
 * and what is inline may have become a blob of that commit. */
void core_delete_refused(const struct core_home *home, struct core_batch *batch, bool combined);

/* An input for what a staged entry's manifest gave; both are borrowed. */
struct core_input core_input_of(const struct core_staged *entry, struct core_batch *batch);

#endif
