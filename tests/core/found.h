/*
 * found.h - for the tests of the checker and of repairs: what was found, and how stored things are damaged.
 *
 * Threads: the main thread of a test.
 */
#ifndef TESTS_CORE_FOUND_H
#define TESTS_CORE_FOUND_H

#include "core/check.h"
#include "tests/core/batches.h"
#include "tests/core/chores.h"

struct found {
	struct core_checked sum;
	/* Of the last damage. */
	char file[256];
	char what[600];
	bool has_offset;
	uint64_t offset;
};

/* Check the store; it must be possible. */
struct found check_all(struct core_engine *e);
/* No damage, and as many notes. */
void want_clean(struct core_engine *e, uint64_t notes);
/* One damage at least, the last one in that file ("": in any). */
void want_damage(struct core_engine *e, const char *file);

/* All bytes of a blob; given. The other way round: in place of what is there. */
struct core_buf blob_bytes(struct disk *d, const char *key);
void blob_put(struct disk *d, const char *key, const void *data, size_t len);
void blob_flip(struct disk *d, const char *key, uint64_t at, unsigned bit);
void blob_drop(struct disk *d, const char *key);

/* The only blob of the shard whose key's last word begins with that letter; `nth` of them. */
char *blob_named(struct rig *r, const char *infix, unsigned nth, char key[KV_KEY_MAX + 1]);

#endif
