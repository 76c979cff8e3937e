/*
 * linear_client.h - clients of one shard, each a thread with descriptors of its own, that do random calls and
 * record them: a history for linear_check.h.
 *
 * In a history that is cut, the mount may be killed and started again at any moment: clients then take what the
 * dead one's descriptors say (ENOTCONN and the like) for an unknown outcome, open anew and go on.
 */
#ifndef TESTS_FS_LINEAR_CLIENT_H
#define TESTS_FS_LINEAR_CLIENT_H

#include <pthread.h>

#include "tests/fs/linear_check.h"
#include "tests/fs/world.h"

enum { LIN_CLIENTS_MAX = 8 };

struct lin_play;

enum lin_role { LIN_WRITER, LIN_READER, LIN_LISTENER };

struct lin_client {
	pthread_t thread;
	struct lin_play *play;
	enum lin_role role;
	unsigned number;
	unsigned calls;
	struct rng r;
	uint64_t guess; /* the upper that it was told last */
	int append;     /* kept open; -1 */
	int upper;
	unsigned appends;
	struct lin_history saw;
	char failed[LIN_WHY]; /* "": nothing was wrong in itself */
};

struct lin_play {
	char *shard;
	uint64_t seed;
	bool cut;
	_Atomic unsigned calls; /* that were made, by all */
	unsigned unknown;       /* appends of which nobody was told, when it is over */
	struct lin_client clients[LIN_CLIENTS_MAX];
	unsigned client_count;
};

/* Start the clients of a history on a new shard (its path; taken). */
void lin_play_begin(struct lin_play *p, char *shard, uint64_t seed, bool cut);
/* How many calls they make. */
unsigned lin_play_calls(const struct lin_play *p);
/* When the writers are done, finish the shard; wait for all; check. False: why. */
bool lin_play_end(struct lin_play *p, char why[LIN_WHY]);

#endif
