/*
 * builder.h - turns updates in any order into a batch, in bounded memory.
 *
 * Updates are collected up to a budget, then sorted, consolidated (equal key,
 * val and time summed, zeros dropped; sums that leave i64 stay apart), encoded
 * and shipped to the blob store as a part; parts that happen to follow each
 * other in order make one run. A batch that is small as a whole stays inline, as
 * one part.
 *
 * Builders of one engine share memory: the more there are that hold much, the
 * smaller the parts that each of them ships; and few at a time sort, encode and
 * store what they ship, which takes most of it, while the others wait their turn.
 *
 * Threads: a builder belongs to one thread at a time; it may ship from helper
 * threads of its own.
 */
#ifndef CORE_BUILDER_H
#define CORE_BUILDER_H

#include <pthread.h>

#include "core/part.h"

struct core_builder;

struct core_builders {
	pthread_mutex_t mu; /* placing; held for moments */
	pthread_cond_t turn;
	unsigned placing;
	_Atomic(unsigned) large; /* how many hold much */
};

void core_builders_init(struct core_builders *s);
void core_builders_fini(struct core_builders *s);
/* A turn of work that takes much memory. False, and none was had: unwanted was set while it was waited for,
 * which is to be told by look_again. NULL: nobody to share with. */
bool core_builders_enter(struct core_builders *s, const _Atomic(bool) *unwanted);
void core_builders_leave(struct core_builders *s);
void core_builders_look_again(struct core_builders *s);
/* Whether more than one holds much, so that each is to keep little. */
bool core_builders_are_many(const struct core_builders *s);
/* Bytes of rows after which a builder, which has so many, ships: no fewer than LEAST. *is_large is set with
 * the first LEAST of them, and large counts it then until it is freed. */
size_t core_builders_share(struct core_builders *s, size_t target, size_t bytes, bool *is_large);
enum { CORE_BUILDERS_LEAST = 256 << 10 };

struct core_builder_config {
	/* Bytes of memory that rows take (key, val and 48 each) after which a part is shipped, at most 32
	 * MiB. Three times as much is in use while parts are shipped. 0: CORE_PART_TARGET */
	size_t target_bytes;
	size_t inline_max; /* an only part that encodes to fewer bytes stays inline; 0: CORE_INLINE_MAX */
	bool never_inline;
	/* An only part that is not inline and encodes to at most this many bytes is left loose, for the one
	 * who commits to store it in the same step. 0: none is. */
	size_t loose_max;
	bool no_helper;  /* all is done in the thread that adds, and one heap of rows is in memory, not three
			  */
	bool loose_tail; /* the last part is left loose also behind others, and no part is inline */
	/* What a full store (KV_NOSPACE, KV_QUOTA) does not take stays in memory, and a call that fails so
	 * has changed nothing: each later one tries to store it first, and then goes on. */
	bool patient;
};

#define CORE_PART_TARGET ((size_t)12 << 20)
enum { CORE_INLINE_MAX = 4096 };

/* home is borrowed until the builder is freed. */
enum kv_rc core_builder_new(const struct core_home *home, struct core_builder_config config,
			    struct core_builder **out, struct kv_err *err) KV_MUST_CHECK;

/*
 * Add one update (copied), key and val of at most CORE_ROW_MAX bytes. star (with time 0): its time is to be
 * resolved at commit. A diff of 0 drops out.
 * Fails by what shipping a full part can fail with: KV_NOSPACE, KV_UNKNOWN, KV_UNREACHABLE, KV_NOMEM ...;
 * the builder can then only be freed, if it is not patient (core_builder_keeps).
 */
enum kv_rc core_builder_add(struct core_builder *b, const struct core_update *u, bool star,
			    struct kv_err *err) KV_MUST_CHECK;

/* Whether a patient builder that failed so has all that was added to it before. */
bool core_builder_keeps(enum kv_rc rc);

/* Updates added so far, those with diff 0 and those that cancel out included. */
uint64_t core_builder_added(const struct core_builder *b);

/* Bytes of memory of the rows that are not on their way to the store. */
size_t core_builder_waiting(const struct core_builder *b);

/* Bytes that the rows added so far take as text, as they will be stored. Waits for parts on their way. */
uint64_t core_builder_text_len(struct core_builder *b);

/*
 * End: the batch [lower, upper) with all that was added, durable but for inline and loose parts (given; drop
 * with core_batch_unref). The builder is left empty, and must still be freed. That the times lie within the
 * bounds is for the caller to check (core_append_check_time).
 * Only what is left at the end can be inline. Fails as core_builder_add does.
 */
enum kv_rc core_builder_finish(struct core_builder *b, struct core_frontier lower, struct core_frontier upper,
			       struct core_batch **out, struct kv_err *err) KV_MUST_CHECK;

/* Free it; parts it shipped and did not hand over are deleted, as well as that goes. NULL is allowed. */
void core_builder_free(struct core_builder *b);

/* Delete the blobs of a batch that was never committed and never will be, as well as that goes. */
void core_batch_delete_blobs(const struct core_home *home, const struct core_batch *batch);

/*
 * Store the inline parts of batch as blobs, in place: the same bytes under the same ids. Only before a second
 * holder sees it. On failure some may be stored already; calling again goes on with the others.
 */
enum kv_rc core_batch_flush_inline(const struct core_home *home, struct core_batch *batch,
				   struct kv_err *err) KV_MUST_CHECK;

#endif
