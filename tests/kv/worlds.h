/*
 * worlds.h - every implementation behind the seams, for the conformance suites and for tests of one.
 */
#ifndef TESTS_KV_WORLDS_H
#define TESTS_KV_WORLDS_H

#include "kv/fault.h"
#include "kv/rocks.h"
#include "kv/store.h"
#include "tests/check_util.h"

enum world_kind {
	WORLD_MEM,      /* memory */
	WORLD_FAULT,    /* fault layers that do nothing, over memory */
	WORLD_ROCKS,    /* RocksDB alone */
	WORLD_EMBEDDED, /* the embedded store */
	WORLD_FILE,     /* files alone; no consensus */
	WORLD_COUNT,
	WORLD_CONSENSUS_COUNT = WORLD_FILE,
};

/* What the kind does not have is NULL. */
struct world {
	enum world_kind kind;
	char *dir;
	struct kv_rocks *rocks;
	struct kv_faults *faults;
	struct kv_store *store;
	struct kv_consensus *c;
	struct kv_blobs *b;
};

void world_open(struct world *w, enum world_kind kind); /* in a new directory */
void world_reopen(struct world *w);                     /* closes; memory is lost */
void world_close(struct world *w);

/* Shorthands that fail the test unless the call gives `want`. The text is the value. */
void want_cas(struct kv_consensus *c, const char *key, uint64_t expected, uint64_t seqno, const char *text,
	      enum kv_rc want);
void want_head(struct kv_consensus *c, const char *key, uint64_t seqno, const char *text); /* 0: no version */
void want_set(struct kv_blobs *b, const char *key, const char *text, enum kv_rc want);
void want_blob(struct kv_blobs *b, const char *key, const char *text); /* NULL: no such blob */

/* The keys / seqnos found, as "a b c" in a static buffer. */
const char *seqnos(struct kv_consensus *c, const char *key, uint64_t from, size_t limit);
const char *keys(struct kv_consensus *c, const char *after, size_t limit);
const char *blobs(struct kv_blobs *b, const char *prefix, const char *after, size_t limit);

Suite *rc_suite(void);
Suite *consensus_conformance_suite(void);
Suite *blob_conformance_suite(void);
Suite *store_conformance_suite(void);
Suite *fault_suite(void);
Suite *rocks_suite(void);
Suite *log_suite(void);
Suite *rocks_mend_suite(void);
Suite *blob_file_suite(void);
Suite *store_embedded_suite(void);
Suite *crash_suite(void);

/* Where the last record of a log of RocksDB ends that is whole; behind it may be zeros. */
off_t log_end(int fd);

#endif
