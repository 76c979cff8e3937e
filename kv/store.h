/*
 * store.h - a consensus and a blob store that belong together.
 *
 * What the two guarantee beyond their own contracts is asked by traits, once at
 * open. Nothing above may assume that it is the only process on a store unless
 * traits.sole_owner says so.
 *
 * Implementations: store_embedded.c (RocksDB and files in one directory, sole
 * owner); kv_store_pair for any two (memory, faults; later PostgreSQL and S3).
 *
 * Threads: any function, any thread. Closing must come after the last call has
 * returned.
 */
#ifndef KV_STORE_H
#define KV_STORE_H

#include "kv/blob.h"
#include "kv/consensus.h"

struct kv_store;

struct kv_store_traits {
	bool sole_owner;   /* no other process can write while this one is open */
	bool read_only;    /* every change is KV_READONLY; what is seen is a past state */
	bool commits_runs; /* kv_store_commit_run takes more than one version, kv_store_commit_runs is one
			      step */
};

/* A version to be stored; data is borrowed for the call. */
struct kv_version_put {
	uint64_t seqno;
	const void *data;
	size_t len;
};

/* A blob that goes with a commit; key and data are borrowed for the call. */
struct kv_blob_put {
	const char *key;
	const void *data;
	size_t len;
};

struct kv_usage {
	uint64_t total_bytes; /* of the device; 0: unknown */
	uint64_t free_bytes;
	uint64_t avail_bytes; /* that the store may still take: beyond them it refuses to grow */
};

struct kv_consensus *kv_store_consensus(struct kv_store *s); /* borrowed until close */
struct kv_blobs *kv_store_blobs(struct kv_store *s);         /* borrowed until close */
struct kv_store_traits kv_store_traits(const struct kv_store *s);

/*
 * Set the blobs and then compare-and-set, as kv_consensus_compare_and_set: in one step where the store can
 * (traits do not matter to the caller), else one after the other. The blobs are seen by get, list and
 * delete like any. count may be 0.
 * KV_OK        all done
 * KV_UNKNOWN   the compare-and-set may have been done, and if so the blobs are there
 * otherwise    the compare-and-set was surely not done; blobs may be there, named by nobody
 */
enum kv_rc kv_store_commit(struct kv_store *s, const char *key, uint64_t expected, uint64_t seqno,
			   const void *data, size_t len, const struct kv_blob_put *blobs, size_t count,
			   enum kv_sync sync, struct kv_err *err) KV_MUST_CHECK;

/*
 * The same for versions that follow each other, ascending: all of them land, in one step, or none. The last
 * one becomes the head. version_count is 1 to KV_RUN_MAX, and 1 where the traits have not commits_runs.
 */
enum { KV_RUN_MAX = 64 };
enum kv_rc kv_store_commit_run(struct kv_store *s, const char *key, uint64_t expected,
			       const struct kv_version_put *versions, size_t version_count,
			       const struct kv_blob_put *blobs, size_t count, enum kv_sync sync,
			       struct kv_err *err) KV_MUST_CHECK;

/* One key's share in a commit of several; all borrowed for the call. */
struct kv_run {
	const char *key;
	uint64_t expected;
	const struct kv_version_put *versions;
	size_t version_count;
	const struct kv_blob_put *blobs;
	size_t blob_count;
	struct kv_err *err; /* NULL is allowed */
	enum kv_rc rc;      /* given */
};

/*
 * Commit for 1 to KV_RUNS_MAX different keys at once, each as kv_store_commit_run does; where the traits have
 * commits_runs all who can share one durable step. Each rc is that key's own: what a mismatch or a lost blob
 * of one leaves undone concerns no other. A step that fails does so for all who share it.
 */
enum { KV_RUNS_MAX = 64 };
void kv_store_commit_runs(struct kv_store *s, struct kv_run *runs, size_t count, enum kv_sync sync);

/*
 * Give back the space that deleted blobs and versions still take, if that is worth its while. For when
 * nothing else is to be done: it may take long. Nothing that is seen changes, whatever it returns.
 */
enum kv_rc kv_store_tidy(struct kv_store *s, struct kv_err *err) KV_MUST_CHECK;

enum kv_rc kv_store_usage(struct kv_store *s, struct kv_usage *out, struct kv_err *err) KV_MUST_CHECK;

/* What is wrong with a file of the store itself. All borrowed for the call. */
struct kv_damage {
	const char *file; /* below the store's directory */
	bool has_offset;
	uint64_t offset;
	const char *what;
};
typedef void kv_damage_fn(void *arg, const struct kv_damage *damage);

/*
 * Read what the store keeps in files of its own make (not the blobs, whose checksums their owners know), and
 * tell what is damaged. KV_OK says only that it was looked at.
 */
enum kv_rc kv_store_verify(struct kv_store *s, kv_damage_fn *found, void *arg,
			   struct kv_err *err) KV_MUST_CHECK;

/*
 * Beside an owner: what is read of consensus stays as it is now, all of it as of one moment, until it is let
 * go on. Large blobs may be deleted all the same. Elsewhere nothing changes.
 */
void kv_store_keep_still(struct kv_store *s, bool still);

void kv_store_close(struct kv_store *s); /* NULL is allowed */

/*
 * The two as one store; both are taken, also on failure (NULL: out of memory).
 */
struct kv_store *kv_store_pair(struct kv_consensus *c, struct kv_blobs *b, struct kv_store_traits traits);

/* Both in memory, sole owner. NULL: out of memory. */
struct kv_store *kv_store_mem_new(void);

/*
 * The embedded store in directory dir, made if it is missing or empty.
 * purpose: words for the one who is refused while we hold the store ("mounted on /mnt").
 * KV_BUSY     another process owns it; the sentence names host, pid and purpose
 * KV_NEWER    a newer program wrote it; the sentence says which format
 * KV_NOTFOUND read_only and there is no store; or the parent of dir is missing
 * KV_CORRUPT  dir holds something else, or a store that cannot be opened
 * read_only lets a second process in beside an owner: it holds nothing and sees a past state,
 * brought forward by reads of consensus where that can be (kv/rocks.h).
 */
enum kv_rc kv_store_embedded_open(const char *dir, bool read_only, const char *purpose, struct kv_store **out,
				  struct kv_err *err) KV_MUST_CHECK;

#endif
