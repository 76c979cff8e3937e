/*
 * model.h - what the tests of the data layer share: randomness, a plain model
 * of updates (an array, sorted and summed), and a store that can fail.
 */
#ifndef TESTS_CORE_MODEL_H
#define TESTS_CORE_MODEL_H

#include "core/builder.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/part.h"
#include "kv/fault.h"

/* Take SEED from the environment or make one up; print it. */
void model_seed_init(void);

struct rng {
	uint64_t state;
};
/* A generator that depends on the seed and on salt. */
struct rng rng_new(uint64_t salt);
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t limit);

/* Updates, copied. {0} is empty. */
struct model {
	struct core_update *u;
	bool *star;
	size_t count;
	size_t cap;
};
void model_add(struct model *m, const struct core_update *u, bool star);
/* Sort by (key, val, time, star), sum what is equal, drop zeros; sums that leave i64 stay apart. */
void model_settle(struct model *m);
void model_free(struct model *m);
/* Fails the test unless the two are the same, row by row. */
void model_same(const struct model *got, const struct model *want);

/* Key and val for tests; `text` may hold any bytes. NULL is absent. */
struct core_bytes bytes_of(const char *text);
/* A random update over few keys (many equal ones) or, with wide, over any; buf has room for 512 bytes. */
struct core_update random_update(struct rng *r, bool wide, uint8_t buf[512]);

/* count of them, with stars a third of them is starred; given (model_free). */
struct model model_random(struct rng *r, size_t count, bool wide, bool stars);

struct world {
	struct kv_faults *faults;
	struct core_home home;
};
struct world world_new(void);
void world_free(struct world *w);
size_t world_blobs(struct world *w);
/* No more faults. */
void world_heal(struct world *w);

/* All rows of a part or a batch as stored / as shown; fails the test if that fails. */
enum kv_rc part_rows(const struct core_home *home, const struct core_part *part, struct model *out,
		     struct kv_err *err);
void batch_rows(const struct core_home *home, const struct core_batch *batch, struct model *out);

#define ck_ok(call, err) ck_assert_msg((call) == KV_OK, "%s: %s", #call, (err).msg)

/* What a batch of m is to hold; the caller frees it. */
struct model settled_of(const struct model *m);

/* A batch that was built holds that; it and its blobs are gone then. */
void check_and_drop(struct world *w, struct core_batch *batch, const struct model *settled);

struct core_builder *builder_of(struct world *w, struct core_builder_config config);

#endif
