/*
 * errors.h - the last refused or abandoned transactions of each shard.
 *
 * In memory, per mount: 32 lines per shard, for those who saw only an errno. Of all shards together a few MiB
 * are kept: beyond that those of the shard go where nothing failed for the longest time.
 *
 * A shard that is made anew under an old id begins without.
 *
 * Threads: any.
 */
#ifndef FS_ERRORS_H
#define FS_ERRORS_H

#include <pthread.h>
#include <sys/types.h>

#include "core/hash.h"
#include "core/shard.h"

enum { FS_ERRORS_KEPT = 32, FS_ERRORS_BYTES = 4 << 20 };

struct fs_errors_of; /* those of one shard */

struct fs_errors {
	pthread_mutex_t mu;
	struct fs_errors_of *shards; /* in the order of their last line */
	size_t bytes;
};

void fs_errors_init(struct fs_errors *e);
void fs_errors_fini(struct fs_errors *e);

/* Note what (a line without newline, copied) befell a transaction of process pid of user uid. Best effort:
 * without memory it is lost, and so it is when the shard was removed. Without locks of core/. */
void fs_errors_add(struct fs_errors *e, struct core_shard *shard, pid_t pid, uid_t uid, const char *what);

/* All lines of this life of a shard, oldest first, as one text (given, free); NULL: out of memory. */
char *fs_errors_text(struct fs_errors *e, struct core_shard_id shard, uint64_t first_seqno);

/* The shard was removed. */
void fs_errors_forget(struct fs_errors *e, struct core_shard_id shard, uint64_t first_seqno);

#endif
