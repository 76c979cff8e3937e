/*
 * blob.h - byte strings that never change once set, by key.
 *
 * Callers set a blob before, or in the same step as, the state that names it: a
 * crash can leave a blob nobody names, never a name without its blob. Keys are
 * write-once: nobody sets one key to two different values. Setting the same
 * value again (a retry after KV_UNKNOWN) is allowed. The store is linearizable.
 *
 * Implementations: blob_mem.c, blob_file.c, and the small blobs of rocks.c; a
 * layer over any: blob_fault.c. Writing one? See blob_impl.h.
 *
 * Keys have the form consensus.h gives; no component between slashes is empty,
 * "." or "..", and no key is another one plus "/...". Blobs are 0 to
 * KV_VALUE_MAX bytes long.
 *
 * Threads: any function, any thread. Closing must come after the last call has
 * returned.
 *
 * Codes that every call may return besides those listed with it: KV_NOMEM,
 * KV_CORRUPT, KV_UNREACHABLE (the store did not answer); a read: KV_IO; a
 * change: KV_NOSPACE, KV_QUOTA, KV_READONLY. After all of them surely nothing
 * was done: only KV_UNKNOWN leaves that open.
 */
#ifndef KV_BLOB_H
#define KV_BLOB_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/consensus.h"
#include "kv/rc.h"

struct kv_blobs;

struct kv_blob_entry {
	char *key;
	uint64_t size; /* bytes */
};

/* Entries in ascending byte order of key; given, free with kv_blob_list_free. */
struct kv_blob_list {
	struct kv_blob_entry *e;
	size_t count;
};

/*
 * Read up to len bytes from offset into buf; *got says how many, less than len only where the blob ends.
 * An offset at or beyond the end gives 0 bytes.
 * KV_NOTFOUND  no such blob
 */
enum kv_rc kv_blob_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
		       size_t *got, struct kv_err *err) KV_MUST_CHECK;

/*
 * Store len bytes under key: atomic, and on stable storage when it returns KV_OK. data is borrowed.
 * KV_UNKNOWN  all of it was stored or nothing
 */
enum kv_rc kv_blob_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
		       struct kv_err *err) KV_MUST_CHECK;

/*
 * Remove the blob; idempotent. *existed (may be NULL) tells whether it was there, *size (may be NULL) its
 * bytes. Removal need not survive a power cut: a blob nobody names may come back.
 * KV_UNKNOWN  it is there or not; calling again is safe
 */
enum kv_rc kv_blob_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			  struct kv_err *err) KV_MUST_CHECK;

/* Up to limit (>= 1) blobs whose key begins with prefix ("" for all) and is greater than `after` (""). */
enum kv_rc kv_blob_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			struct kv_blob_list *out, struct kv_err *err) KV_MUST_CHECK;

void kv_blobs_close(struct kv_blobs *b); /* NULL is allowed */
void kv_blob_list_free(struct kv_blob_list *list);

struct kv_blobs *kv_blob_mem_new(void); /* NULL: out of memory */

/* Blobs as files under dir, which exists. The slashes of a key are directories. */
enum kv_rc kv_blob_file_open(const char *dir, bool read_only, struct kv_blobs **out,
			     struct kv_err *err) KV_MUST_CHECK;

#endif
