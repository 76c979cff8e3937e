/*
 * gated.h - a store that is held at its commit until those who are to meet there have come, and clients who
 * append.
 */
#ifndef TESTS_CORE_GATED_H
#define TESTS_CORE_GATED_H

#include <pthread.h>

#include "kv/store_impl.h"
#include "tests/core/world.h"

enum { CLIENTS_MAX = 40, STEPS_MAX = 8, OTHERS = 4 };

enum trouble { NO_TROUBLE, REFUSED, DONE_UNKNOWN, LOST_UNKNOWN };

/* An embedded store whose commits wait at a gate. */
struct gated {
	struct kv_store base;
	struct kv_store *inner;
	pthread_mutex_t mu;
	pthread_cond_t changed;
	bool shut;
	bool waits;              /* a commit stands at the gate */
	size_t shuts_again;      /* it closes behind so many commits more */
	enum trouble trouble;    /* of the next one but one: that of the group */
	size_t steps[STEPS_MAX]; /* how many versions each commit since had, and of how many shards */
	size_t shards[STEPS_MAX];
	size_t step_count;
};

struct client {
	pthread_t thread;
	struct core_shard *shard;
	const char *options;
	const char *rows;
	enum kv_rc rc;
	struct core_appended r;
	struct kv_err err;
	struct core_txn *txn; /* of one who does not wait: not ended yet */
	_Atomic(unsigned) told;
};

struct scene {
	struct disk *disk;
	struct gated gated;
	struct core_engine *engine;
	struct core_shard_id id;
	struct core_shard *shard;
	struct core_shard *others[OTHERS];
	struct client first;
	struct client clients[CLIENTS_MAX];
	size_t count;
};

/* An embedded store, an engine, a shard. */
struct scene *scene_new(void);
void scene_free(struct scene *s);

/* The store is closed, and opened again. */
void scene_reopen(struct scene *s);

/* More shards of the same engine. */
void scene_open_others(struct scene *s);
void scene_close_others(struct scene *s);

/* An append that nobody waits for. */
void client_submit(struct client *c, struct core_shard *shard);
void client_wait_told(struct client *c);

/* One append that stands at the gate. */
void scene_begin(struct scene *s, enum trouble trouble);

/* Another one that waits behind those before it. */
void scene_join_at(struct scene *s, struct core_shard *shard, const char *options, const char *rows);
void scene_join(struct scene *s, const char *options, const char *rows);

/* All go on; behind so many commits more it shuts again (0: never). */
void scene_open_gate(struct scene *s, size_t shuts_again);

/* It stays open until all have been told, the first one OK. */
void scene_let_go(struct scene *s);

/* As verdict() says it. */
const char *client_said(const struct client *c);

#endif
