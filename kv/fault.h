/*
 * fault.h - stores that fail on request: ordinary layers over any other store.
 *
 * A plan says which call of all layers that share it fails, and how. Calls are
 * counted from 1 in the order they arrive.
 *
 * Threads: a plan may be shared by layers and threads; its functions lock.
 */
#ifndef KV_FAULT_H
#define KV_FAULT_H

#include "kv/blob.h"
#include "kv/consensus.h"

enum kv_fault {
	KV_FAULT_NONE,
	KV_FAULT_BEFORE,       /* not done, and says so: KV_UNREACHABLE */
	KV_FAULT_NOSPACE,      /* not done, and says so: KV_NOSPACE (reads: KV_UNREACHABLE) */
	KV_FAULT_DONE_UNKNOWN, /* done, but the reply is lost: KV_UNKNOWN (reads: KV_UNREACHABLE) */
	KV_FAULT_LOST_UNKNOWN, /* not done, reported KV_UNKNOWN (reads: KV_UNREACHABLE) */
	KV_FAULT_SLOW,         /* done and reported, after plan delay */
	KV_FAULT_TORN,         /* reads: the bytes come back with one flipped (lists and empty results: as
				* NONE); changes: as LOST_UNKNOWN */
};

struct kv_faults;

struct kv_faults *kv_faults_new(void); /* NULL: out of memory */
void kv_faults_free(struct kv_faults *f);

/* From now on: count anew, and let the nth call (1 = the next) fail; with `forever` all after it too. */
void kv_faults_arm(struct kv_faults *f, unsigned nth, enum kv_fault kind, bool forever);
void kv_faults_set_delay_us(struct kv_faults *f, unsigned delay_us);

/* Whether the armed fault has struck; how many calls were counted since it was armed. */
bool kv_faults_fired(struct kv_faults *f);
unsigned kv_faults_calls(struct kv_faults *f);

/* For layers: count this call and tell how it must end. A slow one has been slept through in here. */
enum kv_fault kv_faults_strike(struct kv_faults *f);

/* The layers: inner is taken, f is borrowed until the layer is closed. NULL: out of memory (inner closed), or
 * inner is NULL. */
struct kv_consensus *kv_consensus_fault_new(struct kv_consensus *inner, struct kv_faults *f);
struct kv_blobs *kv_blob_fault_new(struct kv_blobs *inner, struct kv_faults *f);

#endif
