/*
 * state_staged.h - the part of state.c that deals with staged batches, writers and leases; for state.c, and
 * for leases.c, which has to know beforehand what is over.
 *
 * Nothing here fails but for the plan and the check: core_state_reserve has made room before.
 *
 * Threads: as in state.h.
 */
#ifndef CORE_STATE_STAGED_H
#define CORE_STATE_STAGED_H

#include "core/state.h"

/* Whether the diff's staged batches fit: KV_CORRUPT, and nothing was changed. */
enum kv_rc core_state_plan_staged(const struct core_state *s, const struct core_diff *d,
				  struct kv_err *err) KV_MUST_CHECK;

/* What was planned. */
void core_state_apply_staged(struct core_state *s, const struct core_diff *d);

/* Renew, register, expire and drop writers, in this order. */
void core_state_apply_writers(struct core_state *s, const struct core_diff *d);

/* Make or renew, end and drop leases, in this order. */
void core_state_apply_leases(struct core_state *s, const struct core_diff *d);

/* Whether a version at that time drops the lease, if it does not renew it. */
bool core_lease_is_over(const struct core_lease *lease, uint64_t now_ms);

/* Invariants 7 and 8: KV_CORRUPT; KV_NOMEM. */
enum kv_rc core_state_check_staged(const struct core_state *s, struct kv_err *err) KV_MUST_CHECK;

#endif
