/*
 * export.h - shards as one stream of text that another store can take in.
 *
 *     shardfs-export 1\n
 *     shard <id> since=<f> upper=<f> uid=<n> gid=<n> mode=<octal> created_ms=<n>\n        of each shard
 *     hold <name> since=<f> token=<n> follow=<n>\n                                         any number
 *     token <id> asked=<hex> rows=<n> batch_rows=<n> lower=<f> upper=<f>\n                 any number
 *     <time>\t<diff>\t<key>\t<val>\n                                                       any number
 *     end updates=<n> xxh3=<16 hex digits>\n
 *     name <name> target=<id> uid=<n> gid=<n> made_ms=<n>\n                                any number
 *     total shards=<n> updates=<n> names=<n> moment=<one|several> xxh3=<16 hex digits>\n
 *
 * Rows are those of core/row.h: sorted by key, val and time, equal ones summed, times below since advanced to
 * it. So as of each time from since on it is the same collection. In a name a byte that is a space, a control
 * character or a backslash is \ooo. The first checksum is the XXH3-64 of the shard's bytes from `shard` to
 * before `end`, the second of all bytes before `total`. Behind that line nothing comes.
 *
 *     again\n
 *
 * in place of a row or of `end` takes back what came of the shard: its owner has changed it while it was
 * read, and it comes anew.
 *
 * What is not in it: staged batches, writers, readers.
 *
 * Each shard is as of one version. With moment=one all of them, and the names, are as of one moment of the
 * store; with several, shards were changed by an owner so fast that some are as of a later one.
 *
 * Threads: an export belongs to one thread at a time.
 */
#ifndef CORE_EXPORT_H
#define CORE_EXPORT_H

#include "core/shard.h"

struct core_export_sink {
	/* Take len bytes. A code other than KV_OK ends the export with it. */
	enum kv_rc (*write)(void *arg, const void *data, size_t len, struct kv_err *err);
	/* How many updates of how many, before summing, were read; NULL: not told. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct core_exported {
	uint64_t shards;
	uint64_t updates;
	uint64_t names;
	uint64_t bytes;
	uint64_t retries; /* of shards that were changed meanwhile */
	bool one_moment;
};

/*
 * Export these shards and the names that lead to them; ids NULL: all shards, and all names.
 * KV_NO_SHARD  one of them is not there
 * KV_GONE      a shard changed faster than it could be read
 * KV_CORRUPT   something cannot be read; what was written is no whole export
 */
enum kv_rc core_export(struct core_engine *e, const struct core_shard_id *ids, size_t count,
		       const struct core_export_sink *sink, struct core_exported *out,
		       struct kv_err *err) KV_MUST_CHECK;

#endif
