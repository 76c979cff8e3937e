/*
 * check.h - a whole store held against what must hold: every shard's head, rollup and versions, the state
 * they make, every byte of every part and staged batch, the names, the store's own files; and what nobody
 * names.
 *
 * It reads only, and may run beside the owner of the store: what he replaced meanwhile is looked up anew.
 * Memory is bounded by the state of one shard.
 *
 * Threads: any; the callbacks run in the thread that checks.
 */
#ifndef CORE_CHECK_H
#define CORE_CHECK_H

#include "core/shard.h"

enum core_finding_kind {
	CORE_DAMAGE, /* something cannot be read, or is wrong */
	CORE_NOTE,   /* nothing is lost: what is there in vain */
};

/* What was found, where, and what can be done. All borrowed for the call; "" where nothing is to be said. */
struct core_finding {
	enum core_finding_kind kind;
	const char *shard; /* its id */
	const char *file;  /* below the store's directory; the key of a blob below blobs/data/, which may also
			      lie  in the database; or "version <n>", which does */
	bool has_offset;
	uint64_t offset; /* in it */
	const char *what;
	const char *remedy;
};

struct core_check {
	void (*found)(void *arg, const struct core_finding *finding);
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* bytes; NULL: not told */
	void *arg;
};

struct core_checked {
	uint64_t shards;
	uint64_t versions;
	uint64_t parts;
	uint64_t updates;
	uint64_t staged;
	uint64_t names;
	uint64_t bytes; /* read of blobs */
	uint64_t damages;
	uint64_t notes;
	uint64_t orphans; /* blobs that nobody names */
	uint64_t orphan_bytes;
};

/* Check all. What is damaged is found, not returned; codes are of what keeps it from looking: KV_NOMEM,
 * KV_SHUTDOWN (the engine closes). */
enum kv_rc core_check_store(struct core_engine *e, const struct core_check *check, struct core_checked *out,
			    struct kv_err *err) KV_MUST_CHECK;

#endif
