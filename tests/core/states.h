/*
 * states.h - random states and diffs for the tests of state.c and its bytes.
 */
#ifndef TESTS_CORE_STATES_H
#define TESTS_CORE_STATES_H

#include "core/state_codec.h"
#include "tests/core/world.h"

/* The shard they are of. */
extern const struct core_shard_id states_shard;

struct core_uuid random_uuid(struct rng *r);
/* Number n of the staged batches, writers and leases that random states and diffs have. */
struct core_uuid staged_id(uint8_t n);
struct core_uuid writer_id(uint8_t n);
struct core_uuid lease_id(uint8_t n);
struct core_staged random_staged(struct rng *r, uint8_t id, const char *name);
struct core_writer_state random_writer(struct rng *r, uint8_t id);
struct core_lease random_lease(struct rng *r, uint8_t id);
struct core_batch *random_batch(struct rng *r, struct core_frontier lower, struct core_frontier upper);
struct core_state random_state(struct rng *r, size_t batches);
void random_diff(struct rng *r, size_t batches, struct core_diff *d);
struct core_buf state_bytes(const struct core_state *s);
struct core_buf diff_bytes(const struct core_diff *d);
void same_bytes(struct core_buf a, struct core_buf b);

#endif
