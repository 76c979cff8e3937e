/*
 * fs.h - what the files of the mount share: one struct for one running mount.
 *
 * fs/ translates: paths to nodes, text to transactions and back, codes to
 * errno. It knows core/ and FUSE; core/ knows neither.
 *
 * Locks, none held while another of them or one of core/ is taken, unless said:
 *   fs_handle.mu   one per open file; held across engine calls: one descriptor, one producer
 *   fs_append.turn no lock but a semaphore, of an open append; also under fs_handle.mu. A commit has it until
 * it is over, on whichever thread; that thread may be one that commits with an fs_handle.mu of its own
 *   fs_staged.mu   one per open staged batch; as fs_handle.mu, which may be held when it is taken
 *   fs_stages.mu   stages.c
 *   fs_nodes.mu    nodes.c
 *   fs_ctl.mu      the verdicts of an open ctl
 *   fs.stop_mu     commits in flight
 *   fs.open_mu     what is open
 *   fs_waits.mu    park.c; held while what is parked is cancelled, in its shard
 *   fs_turns.mu    turns.c; also under fs_waits.mu
 *   fs_errors.mu   errors.c
 *   fs_limits.mu   limits.c
 *   fs_budget.mu   budget.c; held while idle streams give back buffers. Waiting for a turn there, a read
 * holds fs_handle.mu
 */
#ifndef FS_FS_H
#define FS_FS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/shard.h"
#include "fs/budget.h"
#include "fs/counts.h"
#include "fs/errors.h"
#include "fs/limits.h"
#include "fs/nodes.h"
#include "fs/reply.h"
#include "fs/stages.h"
#include "fs/turns.h"
#include "fs/wait.h"

struct fs_options {
	char *store;
	char *mountpoint;
	uid_t uid; /* of the top directories */
	gid_t gid;
	mode_t umask;           /* of the top directories */
	unsigned max_user_open; /* limits.h; 0: ours */
	unsigned max_open;
	bool read_only;
};

/* What is behind an open descriptor, on the mount's list, so that a stop with files open frees it. */
struct fs_open {
	struct fs_open *next;
	struct fs_open **at;
	void (*end)(struct fs_open *o); /* as if it were closed */
	struct fs_user *user;           /* whom it counts for, and how much; limits.h */
	size_t weight;
	size_t held;         /* bytes of what was written through it and is not finished */
	_Atomic(bool) large; /* these are many; for those who do not write */
};

struct fs {
	struct fs_options options;
	struct core_engine *engine;
	struct fuse_session *session;
	uint64_t mounted_ms;
	struct fs_nodes nodes;
	struct fs_errors errors;
	struct fs_waits waits;
	struct fs_budget reading; /* the memory of all streams */
	struct fs_stages stages;
	struct fs_limits limits;
	struct fs_turns turns; /* of reads of streams */
	struct fs_turns large; /* of writes; large.h */
	struct fs_turns medium;
	bool lowers_large; /* threads while they work on large writes */

	pthread_mutex_t stop_mu; /* the two below */
	bool stopping;
	unsigned commits;
	pthread_cond_t idle; /* no commit is in flight */

	pthread_mutex_t open_mu; /* the list */
	struct fs_open *open;
	size_t open_count;

	struct fs_counts counts;
};

void fs_open_add(struct fs *fs, struct fs_open *o, void (*end)(struct fs_open *o));
void fs_open_remove(struct fs *fs, struct fs_open *o);

/* What was written through o, and is not finished, takes so many bytes. KV_NOMEM: too many for its user. */
enum kv_rc fs_open_hold(struct fs *fs, struct fs_open *o, size_t bytes, struct kv_err *err) KV_MUST_CHECK;

/* Around each change to the store: false once the mount is stopping, then nothing may be begun. */
bool fs_commit_begin(struct fs *fs);
void fs_commit_end(struct fs *fs);

/* Refuse new commits, answer those who wait, and return when the commits in flight are done. */
void fs_stop_commits(struct fs *fs);

/* One sentence for whoever runs the mount: to syslog, and stderr in the foreground. Any thread. */
void fs_notice(const char *sentence);

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

#endif
