/*
 * repair.h - making good what can be made good of what check.h finds.
 *
 * Without drop_damaged nothing that can be read is lost:
 *  - a rollup that is broken is written anew from an older one, or from the first version, and the versions
 * behind it;
 *  - blobs that nobody names are deleted, if the database is sound: else what names them may be what is lost.
 * With it, what is damaged goes, so that the rest can be read:
 *  - a batch with a damaged part is written anew without the rows that cannot be read;
 *  - a staged batch that cannot be read whole is removed;
 *  - names that cannot be read are all forgotten.
 * What is left unreadable of a shard (a version is lost) is not touched at all.
 *
 * The engine is the owner of the store, and nothing else uses it.
 */
#ifndef CORE_REPAIR_H
#define CORE_REPAIR_H

#include "core/check.h"

struct core_mending {
	bool loses;        /* data, names or owners go */
	const char *shard; /* its id, or "" */
	const char *what;  /* one sentence */
};

struct core_repair {
	bool drop_damaged;
	/* Told before it is done where it loses something, so that it can be noted first, else after. A code
	 * other than KV_OK keeps it from being done, and ends the repair. */
	enum kv_rc (*mending)(void *arg, const struct core_mending *mending, struct kv_err *err);
	void *arg;
};

/* Codes: what keeps it from going on. What cannot be repaired is left, and is no failure. */
enum kv_rc core_repair_store(struct core_engine *e, const struct core_repair *repair,
			     struct kv_err *err) KV_MUST_CHECK;

#endif
