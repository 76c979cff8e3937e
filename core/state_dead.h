/*
 * state_dead.h - the part of state.c that deals with dead parts; for state.c.
 *
 * Threads: as in state.h.
 */
#ifndef CORE_STATE_DEAD_H
#define CORE_STATE_DEAD_H

#include "core/state.h"

/* Blobs of the batches [first, end). */
size_t core_state_count_blobs(const struct core_state *s, size_t first, size_t end);

/* Make room for so many dead parts more. KV_NOMEM. */
enum kv_rc core_state_reserve_dead(struct core_state *s, size_t count, struct kv_err *err) KV_MUST_CHECK;

/* The batches [first, end) are replaced by version seqno; there is room. */
void core_state_apply_dead(struct core_state *s, size_t first, size_t end, uint64_t seqno);

/* The blobs of these were deleted. */
void core_state_forget_dead(struct core_state *s, const struct core_part_id *gone, size_t count);

/* Forget the rollups of versions below `from`, but for the newest. */
void core_state_forget_rollups(struct core_state *s, uint64_t from);

/* Invariant 9: KV_CORRUPT; KV_NOMEM. */
enum kv_rc core_state_check_dead(const struct core_state *s, struct kv_err *err) KV_MUST_CHECK;

#endif
