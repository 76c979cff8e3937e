/*
 * rocks.h - one RocksDB database that serves as consensus and as a store for
 * small blobs, and commits both in one synced write. Private to kv/.
 *
 * Threads: any function, any thread. The views are borrowed until close.
 */
#ifndef KV_ROCKS_H
#define KV_ROCKS_H

#include <sys/statvfs.h>

#include "kv/store.h"

struct kv_rocks;

/*
 * Open or make the database in dir. read_only takes no lock, and sees a past state: that of the open, brought
 * forward by reads of consensus. What the owner wrote last may be seen before it is on stable storage.
 *
 * KV_NOTFOUND  read_only and there is none; or the parent of dir is missing
 * KV_BUSY, KV_CORRUPT, KV_IO, KV_NOMEM, KV_NOSPACE, KV_QUOTA, KV_READONLY
 */
enum kv_rc kv_rocks_open(const char *dir, bool read_only, struct kv_rocks **out,
			 struct kv_err *err) KV_MUST_CHECK;
void kv_rocks_close(struct kv_rocks *r); /* NULL is allowed; closes the views */

struct kv_consensus *kv_rocks_consensus(struct kv_rocks *r); /* closing the view does nothing */
struct kv_blobs *kv_rocks_blobs(struct kv_rocks *r);         /* closing the view does nothing */

/*
 * Whether the device can take len more bytes and still keep the reserve that opening the database needs (it
 * writes what its log holds, at most a write buffer). A write that ran into the end of the device could not
 * be recovered from; so changes that grow the store are refused (KV_NOSPACE) before that point.
 */
bool kv_rocks_room(struct kv_rocks *r, size_t len);
/* How many bytes that are, of a device. */
uint64_t kv_rocks_avail(const struct statvfs *vfs);

/* As kv_store_verify and kv_store_keep_still. */
enum kv_rc kv_rocks_verify(struct kv_rocks *r, kv_damage_fn *found, void *arg,
			   struct kv_err *err) KV_MUST_CHECK;
void kv_rocks_keep_still(struct kv_rocks *r, bool still);

/* As kv_store_tidy. */
enum kv_rc kv_rocks_tidy(struct kv_rocks *r, struct kv_err *err) KV_MUST_CHECK;

/* As kv_store_commit_runs, but leaves alone those whose rc is not KV_OK already, and blobs longer than
 * blob_max, which are elsewhere. */
void kv_rocks_commit(struct kv_rocks *r, struct kv_run *runs, size_t count, size_t blob_max,
		     enum kv_sync sync);

#endif
