/*
 * codec_impl.h - what the files that make documents share: state_codec.c, state_decode.c, manifest.c.
 *
 * Threads: nothing is shared; an arena belongs to one document that is being made.
 */
#ifndef CORE_CODEC_IMPL_H
#define CORE_CODEC_IMPL_H

#include "core/state.pb-c.h"
#include "core/state_codec.h"

enum { CORE_FRAME_LEN = 16 };

/* Room for a frame around len bytes of payload, at data + CORE_FRAME_LEN; fill them in, then seal. KV_NOMEM
 */
enum kv_rc core_frame_new(size_t len, struct core_buf *out, struct kv_err *err) KV_MUST_CHECK;
void core_frame_seal(char kind, uint64_t seed, struct core_buf *b);

/* What the documents of a shard are seeded with. */
uint64_t core_shard_seed(struct core_shard_id shard);

/* Scratch for one message tree: every block is freed together at the end. {0} to begin with. */
struct core_arena {
	struct core_arena_block *blocks;
	size_t used;
};
void *core_arena_take(struct core_arena *a, size_t count, size_t size); /* NULL: out of memory */
void core_arena_fini(struct core_arena *a);

/* Messages that point into the engine's own structures, which are borrowed; NULL: out of memory. */
ProtobufCBinaryData core_pb_bytes(const void *data, size_t len);
Pb__Batch *core_pb_batch(struct core_arena *a, const struct core_batch *b);

/* What a decoder of a part of a document says. */
enum core_got { CORE_GOT_IT, CORE_GOT_BAD, CORE_GOT_NOMEM };

/* What protobuf-c unpacks with. It takes want of memory for bytes that are not a message, so that is noted
 * here. */
struct core_unpacking {
	ProtobufCAllocator memory;
	bool nomem;
};
void core_unpacking_init(struct core_unpacking *u); /* in place */
/* Of bytes that were not unpacked: why. */
enum core_got core_not_unpacked(const struct core_unpacking *u);

bool core_get_bytes(const ProtobufCBinaryData *pb, void *out, size_t len);  /* false: another length */
enum core_got core_get_batch(const Pb__Batch *pb, struct core_batch **out); /* a reference; NULL if not it */

/* KV_CORRUPT with "a <what> that is not well-formed", KV_NOMEM. */
enum kv_rc core_got_rc(enum core_got got, const char *what, struct kv_err *err) KV_MUST_CHECK;

#endif
