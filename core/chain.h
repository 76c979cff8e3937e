/*
 * chain.h - a shard's state from what is stored, link by link, for those who look for damage: what load.c
 * does, but told where it broke, and without a shard that is open.
 *
 * Threads: any; nothing is shared.
 */
#ifndef CORE_CHAIN_H
#define CORE_CHAIN_H

#include "core/engine_impl.h"

struct core_chain {
	struct core_state state;   /* whole only if rc was KV_OK */
	uint64_t head;             /* the newest version */
	struct core_rollup rollup; /* where loading begins; seqno 0: the head does not tell */
	uint64_t rollup_bytes;
	uint64_t version_bytes;
	uint64_t versions; /* read, the rollup's own included */
	bool tombstone;    /* the shard is being removed */
	/* Where it broke: a blob's key, or "version <n>", or "". */
	char link[CORE_BLOB_KEY_LEN];
};

/*
 * Read the chain of the shard, as it is in consensus now.
 * KV_NOTFOUND  the shard has no version
 * KV_GONE      beside an owner: it was changed while it was read; again
 * KV_CORRUPT, KV_NEWER; KV_IO and what else reading can fail with. out->link says of what
 * *out is given in every case: core_chain_fini
 */
enum kv_rc core_chain_read(struct core_engine *e, struct core_shard_id id, struct core_chain *out,
			   struct kv_err *err) KV_MUST_CHECK;

/*
 * The same from an older rollup, or from the first version, where the newest rollup is broken: the same
 * state. *owner_lost: but that nothing tells the owner any more, who is root then, with mode 0700. KV_CORRUPT
 * there is none, or the versions behind it are not all there
 */
enum kv_rc core_chain_rebuild(struct core_engine *e, struct core_shard_id id, struct core_chain *out,
			      bool *owner_lost, struct kv_err *err) KV_MUST_CHECK;

void core_chain_fini(struct core_chain *c);

#endif
