/*
 * state_codec.h - states and diffs as bytes.
 *
 * The frame around them is described in state_codec.c. Reading accepts every
 * format up to CORE_FORMAT and refuses a newer one in words; unknown bytes are
 * KV_CORRUPT, never a crash.
 *
 * Any thread; nothing is shared.
 */
#ifndef CORE_STATE_CODEC_H
#define CORE_STATE_CODEC_H

#include "core/buf.h"
#include "core/state.h"

enum { CORE_FORMAT = 3 };

enum kv_rc core_diff_encode(struct core_shard_id shard, const struct core_diff *d, struct core_buf *out,
			    struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_state_encode(struct core_shard_id shard, const struct core_state *s, struct core_buf *out,
			     struct kv_err *err) KV_MUST_CHECK;

/* KV_CORRUPT, KV_NEWER, KV_NOMEM; *out is then as core_diff_init leaves it, or all zero. */
enum kv_rc core_diff_decode(struct core_shard_id shard, const void *data, size_t len, struct core_diff *out,
			    struct kv_err *err) KV_MUST_CHECK;
enum kv_rc core_state_decode(struct core_shard_id shard, const void *data, size_t len, struct core_state *out,
			     struct kv_err *err) KV_MUST_CHECK;

/* The frame, for other documents: kind is a letter; seed binds the bytes to their place. */
enum kv_rc core_frame(char kind, uint64_t seed, const void *payload, size_t len, struct core_buf *out,
		      struct kv_err *err) KV_MUST_CHECK;
/* *payload is borrowed from data. KV_CORRUPT, KV_NEWER. */
enum kv_rc core_unframe(char kind, uint64_t seed, const void *data, size_t len, const uint8_t **payload,
			size_t *payload_len, struct kv_err *err) KV_MUST_CHECK;

#endif
