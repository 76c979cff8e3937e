/*
 * nodes.h - what the kernel's numbers stand for.
 *
 * The kernel names an inode by a 64-bit nodeid, which we choose. Most of ours
 * are computed and need no memory:
 *
 *     bits 63..56   kind
 *     top of the tree, and names:   bits 55..0   0, or the id of the name
 *     files of a shard:             bits 55..32  slot of the shard
 *                                   bits 31..0   0; for `append` and `ctl` a number of its own for each
 *                                                lookup, but that the last one closed is given once more
 *     batches, writers, readers,    bits 55..0   number of an entry in a table, kept until FORGET; made from
 *     holds, as_of/<t> and others                an id, a name or what is in it, so that it stays the same
 *     that are named by a time:
 *
 * The root is 1 by FUSE's rule. st_ino is the nodeid, but that of every
 * `append` of a shard is the same, and that of every `ctl`. A slot stands for one life of a shard: one
 * that is removed and made anew gets another. It is there while the kernel knows a file of it, and serves
 * another shard after that: slots count what is looked up and forgotten, as entries do.
 *
 * Why these two get a fresh nodeid for each lookup: the kernel lets one write at a
 * time into one inode, and who waits for his turn there cannot even be killed; so
 * each open is a file of its own, and writers do not wait for each other. Where the
 * last one is closed before the next is opened, as by a shell, the kernel is told the
 * nodeid that it knows: another one would cost it a second lookup.
 *
 * Threads: any.
 */
#ifndef FS_NODES_H
#define FS_NODES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/hash.h"
#include "core/shard.h"

enum fs_kind {
	FS_NONE,
	FS_ROOT,
	FS_README,
	FS_METRICS,
	FS_NAMES,
	FS_SHARDS,
	FS_NAME, /* a symlink */
	FS_SHARD,
	FS_UPPER,
	FS_SINCE,
	FS_APPEND,
	FS_SNAPSHOT,
	FS_STATE,
	FS_ERRORS,
	FS_CTL,
	FS_AS_OF_DIR,
	FS_WAIT_DIR,
	FS_LISTEN_DIR,
	FS_SUBSCRIBE_DIR,
	FS_BATCHES,
	FS_WRITERS,
	FS_READERS,
	FS_HOLDS,
	FS_AS_OF,     /* one of as_of/<t>; from here on with an entry in the table */
	FS_WAIT,      /* one of wait/<t> */
	FS_LISTEN,    /* one of listen/<f> */
	FS_SUBSCRIBE, /* one of subscribe/<t> */
	FS_BATCH,     /* a committed batch */
	FS_STAGED,    /* a staged batch */
	FS_WRITER,
	FS_READER,
	FS_HOLD,
	FS_KIND_COUNT
};

/* What a name of a time says. */
struct fs_when {
	bool now;
	struct core_frontier at; /* else this; empty only of listen/- */
};

struct fs_slot {
	struct core_shard_id id;
	uint64_t first_seqno;
	uint32_t number;
	uint64_t lookups;   /* of its computed nodeids, and one for each of its entries */
	uint32_t closed[2]; /* of `append` and `ctl`: the number to be given once more; 0: none */
	UT_hash_handle hh;  /* by id and first_seqno */
};

/*
 * A committed batch as those see it who look. It is no reference: the kernel may remember an inode for as
 * long as it likes, and nothing that was replaced stays on disk for that. Whoever opens it looks for the
 * batch.
 */
struct fs_batch {
	struct core_frontier lower;
	struct core_frontier upper;
	uint64_t mark;   /* of its parts and how they are read; the same when the state is loaded again */
	uint64_t stored; /* bytes on disk */
	uint64_t committed_ms;
};
struct fs_batch fs_batch_of(const struct core_batch *b);
bool fs_batch_eq(const struct fs_batch *a, const struct fs_batch *b);

/* An entry of the table of batches, writers and times. */
struct fs_entry {
	uint64_t nodeid;
	uint32_t slot;
	uint64_t lookups;
	struct fs_when when;
	struct fs_batch batch;
	struct core_uuid id; /* of a staged batch, a writer or a reader */
	char *name;          /* of a hold; owned, or NULL */
	uint64_t size;       /* bytes of the text: of a batch; of a staged batch when it was seen last */
	UT_hash_handle hh;   /* by nodeid */
};

struct fs_nodes {
	pthread_mutex_t mu;
	struct fs_slot **slots; /* by number; NULL: that one is free */
	uint32_t *free_next;    /* by number of a free one: 1 + the next free one, or 0 */
	uint32_t slot_free;     /* 1 + the number of a free one; 0: none */
	uint32_t slot_count;    /* numbers that were ever given */
	uint32_t slot_cap;
	struct fs_slot *slots_by_id;
	struct fs_entry *entries;
	uint32_t next_fresh;
};

/* What a nodeid stands for. */
struct fs_node {
	enum fs_kind kind;
	uint64_t nodeid;
	uint64_t name_id; /* FS_NAME */
	struct core_shard_id shard;
	uint64_t first_seqno;
	struct fs_when when;           /* FS_AS_OF, FS_WAIT, FS_LISTEN, FS_SUBSCRIBE */
	struct fs_batch batch;         /* FS_BATCH */
	struct core_uuid id;           /* FS_STAGED, FS_WRITER, FS_READER */
	char name[CORE_HOLD_NAME_LEN]; /* FS_HOLD */
	uint64_t size;                 /* FS_BATCH, FS_STAGED */
};

void fs_nodes_init(struct fs_nodes *n);
void fs_nodes_fini(struct fs_nodes *n);

/* The nodeid of a thing at the top, or of the name with this id. */
uint64_t fs_nodeid_top(enum fs_kind kind, uint64_t name_id);

/* The nodeid of a file of a shard, counted as looked up once; a fresh one for FS_APPEND and FS_CTL. 0: out of
 * memory, or the kernel knows 2^24 shards. */
uint64_t fs_nodeid_shard(struct fs_nodes *n, enum fs_kind kind, struct core_shard_id id,
			 uint64_t first_seqno);

/*
 * A nodeid in the table, counted as looked up once: for a time; for a batch whose text has size bytes; for
 * what has an id (FS_STAGED, FS_WRITER, FS_READER); for a hold by name. The same time, batch, id or name has
 * the same nodeid, as cp wants of what it looks at twice. 0: out of memory.
 */
uint64_t fs_nodeid_time(struct fs_nodes *n, enum fs_kind kind, struct core_shard_id id, uint64_t first_seqno,
			struct fs_when when);
uint64_t fs_nodeid_batch(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno,
			 const struct fs_batch *batch, uint64_t size);

uint64_t fs_nodeid_id(struct fs_nodes *n, enum fs_kind kind, struct core_shard_id id, uint64_t first_seqno,
		      struct core_uuid of);

uint64_t fs_nodeid_hold(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno, const char *name);

/* Remember the size of a staged batch, for those who still have it open when it is gone. */
void fs_node_note_size(struct fs_nodes *n, uint64_t nodeid, uint64_t size);

/* The size of a batch's text if the kernel knows the batch; false: it does not. */
bool fs_node_batch_size(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno,
			const struct fs_batch *batch, uint64_t *size);

/* What nodeid stands for; false: nothing (any more). */
bool fs_node_get(struct fs_nodes *n, uint64_t nodeid, struct fs_node *out);

/* How many there are: entries of the table, and shards that have a slot, for as long as the kernel knows a
 * file of theirs. */
struct fs_nodes_count {
	size_t entries;
	size_t shards;
};
struct fs_nodes_count fs_nodes_count(struct fs_nodes *n);

/* st_ino for a nodeid. */
uint64_t fs_node_ino(uint64_t nodeid);

/* A file with this nodeid was closed: nobody has it open, as a rule. */
void fs_node_closed(struct fs_nodes *n, uint64_t nodeid);

/* The kernel forgets `lookups` of its lookups. */
void fs_node_forget(struct fs_nodes *n, uint64_t nodeid, uint64_t lookups);

#endif
