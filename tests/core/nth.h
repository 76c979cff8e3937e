/*
 * nth.h - scenes of which the n-th call fails, for n = 1, 2, ... until none does: store calls and
 * allocations.
 *
 * A scene is one thing that users do, on a world that is always the same. Whichever call fails, and however,
 * the world is then as before or as after, what was read is what is there, and the next try works.
 *
 * Threads: the main thread of a test.
 */
#ifndef TESTS_CORE_NTH_H
#define TESTS_CORE_NTH_H

#include "tests/alloc.h"
#include "tests/core/chores.h"

/* A shard with batches that have blobs, runs, an inline tail, staged batches, holds and a name; and the id of
 * another that is not there. */
struct nth_world {
	struct rig rig; /* the shard may be NULL when it was removed */
	struct core_shard_id other;
	FILE *heard; /* what a run has read */
};

struct nth_scene {
	const char *name;
	void (*prepare)(struct nth_world *w); /* NULL: nothing more */
	enum kv_rc (*run)(struct nth_world *w, struct kv_err *err);
	enum kv_rc done; /* what running it says when it is done already */
	bool steps;      /* it changes the world in several steps: a failure may leave it between two */
};

extern const struct nth_scene nth_scenes[];
extern const size_t nth_scene_count;
extern const struct nth_scene nth_writes[];
extern const size_t nth_write_count;

/* What the files of scenes use: several runs, always the same; the engine knows nothing; an append of [6, 8)
 * under a token. */
void nth_put_runs(struct core_shard *s, unsigned runs, size_t len);
void nth_forget(struct nth_world *w);
enum kv_rc nth_append_inline(struct nth_world *w, struct kv_err *err);

/* Ways for a call to fail; those of stores, and memory. */
enum nth_way { NTH_BEFORE, NTH_NOSPACE, NTH_DONE, NTH_LOST, NTH_TORN, NTH_MEMORY, NTH_WAYS };

struct nth_world nth_world_new(enum disk_kind kind);
void nth_world_free(struct nth_world *w);
/* All that can be seen of the world; given. */
char *nth_print(struct nth_world *w);

/* Run the scene in that way. Not all n unless the environment says NTH_ALL=1. How many calls failed. */
unsigned nth_run(const struct nth_scene *scene, enum disk_kind kind, enum nth_way way);

#endif
