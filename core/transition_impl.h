/*
 * transition_impl.h - what the transitions share.
 */
#ifndef CORE_TRANSITION_IMPL_H
#define CORE_TRANSITION_IMPL_H

#include "core/transition.h"

/* The since that the holds allow, as d changes them; it never goes back. */
void core_settle_since(const struct core_state *s, struct core_diff *d);

/* Where a hold that follows the upper at distance n stands; it stays where it was when the shard finishes. */
struct core_frontier core_followed(struct core_frontier was, struct core_frontier upper, uint64_t n);

/* KV_FENCED: who the hold belongs to says so by its token; the sentence and the detail tell where it is. */
enum kv_rc core_hold_fenced(const struct core_hold *hold, struct kv_err *err) KV_MUST_CHECK;

/* One time against bounds: KV_NOT_BEYOND_LOWER, KV_BEYOND_UPPER. */
enum kv_rc core_check_time(uint64_t time, struct core_frontier lower, struct core_frontier upper,
			   struct kv_err *err) KV_MUST_CHECK;

/* The first of the checks of core_do_append: those on bounds, rows and batches alone, where no state is
 * needed to know them. Staged batches are not looked at. */
enum kv_rc core_check_inputs(const struct core_append *a, struct kv_err *err) KV_MUST_CHECK;

#endif
