/*
 * consensus.h - a linearizable, versioned value per key.
 *
 * Each key has a log of versions (seqno, bytes). The newest is the head; a new
 * one is added by compare-and-set on the head's seqno. Seqnos of a key strictly
 * increase (gaps are allowed) and start anywhere above 0.
 *
 * Implementations: consensus_mem.c, rocks.c; a layer over any: consensus_fault.c.
 * Writing one? See consensus_impl.h.
 *
 * Keys are 1 to KV_KEY_MAX bytes of [A-Za-z0-9._/-], NUL-terminated. Values are
 * 0 to KV_VALUE_MAX bytes.
 *
 * Threads: any function, any thread. Closing must come after the last call has
 * returned.
 *
 * Codes that every call may return besides those listed with it: KV_NOMEM,
 * KV_CORRUPT, KV_UNREACHABLE (the store did not answer); a read: KV_IO; a
 * change: KV_NOSPACE, KV_QUOTA, KV_READONLY. After all of them surely nothing
 * was done: only KV_UNKNOWN leaves that open.
 */
#ifndef KV_CONSENSUS_H
#define KV_CONSENSUS_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/rc.h"

enum { KV_KEY_MAX = 200 };
#define KV_VALUE_MAX ((size_t)64 << 20)

/* "There is no version yet", where a seqno is expected. */
#define KV_NO_VERSION ((uint64_t)0)

struct kv_consensus;

struct kv_version {
	uint64_t seqno;
	uint8_t *data;
	size_t len;
};

/* Versions in ascending seqno; given, free with kv_versions_free. */
struct kv_versions {
	struct kv_version *v;
	size_t count;
};

/* Keys in ascending byte order; given, free with kv_keys_free. */
struct kv_keys {
	char **keys;
	size_t count;
};

/* How long a commit may stay in the air. */
enum kv_sync {
	KV_SYNC,    /* on stable storage when the call returns */
	KV_RIDE,    /* ordered before every later commit of this process, durable with the next KV_SYNC one */
	KV_RELEASE, /* as KV_SYNC, for what lets space be given back: may use a store's reserve */
};

/*
 * The newest version of key, in *out (given: free out->data).
 * KV_NOTFOUND  the key has no version
 */
enum kv_rc kv_consensus_head(struct kv_consensus *c, const char *key, struct kv_version *out,
			     struct kv_err *err) KV_MUST_CHECK;

/*
 * Make (seqno, data) the head of key iff its head is `expected` (KV_NO_VERSION: iff it has none).
 * seqno > expected. data is borrowed for the call.
 * KV_MISMATCH     the head is another one; nothing was done
 * KV_UNKNOWN      done or not, and it may still be done later by a network store
 */
enum kv_rc kv_consensus_compare_and_set(struct kv_consensus *c, const char *key, uint64_t expected,
					uint64_t seqno, const void *data, size_t len, enum kv_sync sync,
					struct kv_err *err) KV_MUST_CHECK;

/*
 * Up to limit (>= 1) versions of key with seqno >= from, ascending. An unknown key or a `from` beyond the
 * head gives none and KV_OK.
 */
enum kv_rc kv_consensus_scan(struct kv_consensus *c, const char *key, uint64_t from, size_t limit,
			     struct kv_versions *out, struct kv_err *err) KV_MUST_CHECK;

/*
 * Forget the versions of key below seqno; *removed (may be NULL) counts them. Not durable by itself, but
 * ordered as KV_RIDE: after a power cut forgotten versions may come back.
 * KV_NOTFOUND  the key has no version
 * KV_RANGE     seqno is beyond the head; nothing was done
 * KV_UNKNOWN   some, all or none were forgotten; calling again is safe
 */
enum kv_rc kv_consensus_truncate(struct kv_consensus *c, const char *key, uint64_t seqno, uint64_t *removed,
				 struct kv_err *err) KV_MUST_CHECK;

/*
 * Forget the key with all its versions iff its head is `expected`. Durable on return.
 * KV_NOTFOUND, KV_MISMATCH  nothing was done
 * KV_UNKNOWN   done or not; calling again is safe
 */
enum kv_rc kv_consensus_remove(struct kv_consensus *c, const char *key, uint64_t expected,
			       struct kv_err *err) KV_MUST_CHECK;

/* Up to limit (>= 1) keys greater than `after` ("" for all) that have a version, ascending. */
enum kv_rc kv_consensus_list_keys(struct kv_consensus *c, const char *after, size_t limit,
				  struct kv_keys *out, struct kv_err *err) KV_MUST_CHECK;

void kv_consensus_close(struct kv_consensus *c); /* NULL is allowed */
void kv_versions_free(struct kv_versions *versions);
void kv_keys_free(struct kv_keys *keys);

struct kv_consensus *kv_consensus_mem_new(void); /* NULL: out of memory */

#endif
