/*
 * storer.h - a thread that stores blobs one after the other, while who makes them makes the next.
 *
 * A blob takes its time of the device, not of a processor. One blob is with the
 * storer at a time: who gives another waits until it is stored.
 *
 * Threads: give, end and fini by one at a time.
 */
#ifndef CORE_STORER_H
#define CORE_STORER_H

#include <pthread.h>

#include "core/part.h"

struct core_storer {
	pthread_mutex_t mu; /* data .. err */
	pthread_cond_t changed;
	uint8_t *data; /* NULL: it has nothing to do */
	size_t len;
	char key[CORE_BLOB_KEY_LEN];
	bool stop;
	enum kv_rc rc; /* what it failed with */
	struct kv_err err;

	bool runs; /* the rest is for who calls */
	pthread_t thread;
	struct kv_blobs *blobs;
};

/* blobs is borrowed until the end. */
void core_storer_init(struct core_storer *s, struct kv_blobs *blobs);
/* What was given and is not being stored yet is dropped. */
void core_storer_fini(struct core_storer *s);

/* Have data (taken, also by a failure) stored under key. Fails by what kv_blob_set of it, or of one before,
 * failed with; after that nothing is stored any more. */
enum kv_rc core_storer_give(struct core_storer *s, const char *key, uint8_t *data, size_t len,
			    struct kv_err *err) KV_MUST_CHECK;

/* Wait until all is stored, or was not: fails as core_storer_give. More may be given after that. */
enum kv_rc core_storer_end(struct core_storer *s, struct kv_err *err) KV_MUST_CHECK;

#endif
