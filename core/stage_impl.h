/*
 * stage_impl.h - one staged batch that is open for writing, for staged.c and
 * staged_flush.c. The invariants stand in staged_flush.c.
 */
#ifndef CORE_STAGE_IMPL_H
#define CORE_STAGE_IMPL_H

#include "core/builder.h"
#include "core/engine_impl.h"
#include "core/staged.h"
#include "core/staged_impl.h"

struct core_stage {
	pthread_mutex_t mu;      /* held across store calls: there is one writer, and who asks waits for it */
	struct core_stage *next; /* on the shard's list; with refs and is_open under the shard's mu */
	unsigned refs;
	bool is_open; /* false: closed, but the mark of its loss is not stored yet; it holds the shard then */
	struct core_shard *shard;
	struct core_uuid id;
	_Atomic(bool) sealed;        /* set under mu */
	_Atomic(bool) removed;       /* here, by name: what is written is for nobody */
	_Atomic(uint64_t) seen_size; /* bytes of its text when they were counted last */

	struct core_staged entry; /* as stored last, but its name */
	struct core_uuid maybe;   /* manifest of an entry whose storing has an unknown outcome */
	struct core_batch *base;
	uint64_t base_text; /* bytes of its rows as text, lifted where the parts were rewritten */
	size_t stored_parts;
	struct core_batch *cleared;   /* what the stored manifest names and nobody needs any more, or NULL */
	struct core_builder *builder; /* NULL: no rows since */
	uint64_t builder_text;        /* if measured */
	bool measured;
	uint64_t rows;
	bool has_bounds;
	struct core_frontier lower;
	struct core_frontier upper;
	char *rest;
	size_t rest_len;
	bool dirty;
	bool taken; /* the entry is gone or another writer's */
	bool lost;
};

/* The stage on the shard's list. Under the shard's mu. */
struct core_stage *core_stage_locked(struct core_shard *s, struct core_uuid id);

/* With a reference, or NULL. Without locks. */
struct core_stage *core_stage_get(struct core_shard *s, struct core_uuid id);
void core_stage_put(struct core_stage *g);           /* the last one frees it */
void core_stage_delist_locked(struct core_stage *g); /* off the shard's list. Under the shard's mu */
void core_stage_free(struct core_stage *g);

/* The rest is under the stage's mu. */

/* A builder for the rows that come, with those of a last small part. */
enum kv_rc core_stage_start_builder(struct core_stage *g, struct kv_err *err) KV_MUST_CHECK;

/* Take the parts that no stored manifest names off base, and delete them. */
void core_stage_drop_own_parts(struct core_stage *g);

/* staged_read.c: what those who read staged batches read; false: each said so, and that ends it. Under mu. */
bool core_staged_each_pinned(struct core_shard *s, bool (*each)(void *arg, const struct core_batch *b),
			     void *arg);

/* staged_read.c: the newest version in which all stands that they read. Under mu. */
uint64_t core_staged_seqno(const struct core_shard *s);

/* staged_read.c: whether somebody is about to read one and has not said what. Under mu. */
bool core_staged_is_opening(const struct core_shard *s);

/* Whether rows may still be added: KV_BATCH_TAKEN, KV_BATCH_LOST. */
enum kv_rc core_stage_check(const struct core_stage *g, struct kv_err *err) KV_MUST_CHECK;

/* How many of base's parts are blobs, if all of it is stored. */
size_t core_stage_blobs(const struct core_stage *g);

/* Bytes of the text. */
uint64_t core_stage_size_locked(struct core_stage *g);

/* Have the entry say all that the stage has. Codes as staged.h says. */
enum kv_rc core_stage_flush_locked(struct core_stage *g, struct kv_err *err) KV_MUST_CHECK;

/* Say in the entry that rows were lost. */
enum kv_rc core_stage_mark_lost(struct core_stage *g, struct kv_err *err) KV_MUST_CHECK;

#endif
