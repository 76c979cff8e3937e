/*
 * append.h - one open `append` file: transactions in, verdicts out.
 *
 * Text arrives in any pieces; lines that are whole in one piece are parsed where
 * they lie. The commit happens inside the call that brings the commit line, or, if
 * that is the last of it, behind it, when the caller has let its locks go. After
 * any failure the file is spent: it answers every write with the same code and
 * looks at nothing, until it is reset. Why: many clients write the same bytes
 * again unasked, and a refused transaction must not be applied by that.
 *
 * Threads: one at a time per open file (the handle's lock). While a commit goes on behind a write, other
 * calls wait for it.
 */
#ifndef FS_APPEND_H
#define FS_APPEND_H

#include <sys/types.h>

#include "core/shard.h"
#include "fs/reply.h"

struct fs;
struct fs_append;

struct fs_open;

/* shard and open, which its memory counts for, are borrowed until close. NULL: out of memory. */
struct fs_append *fs_append_open(struct fs *fs, struct core_shard *shard, struct fs_open *open);

/*
 * Take in len bytes from process pid of user uid. *done: how many were taken: len, or less where a
 * transaction failed after others of this call were committed (KV_OK then too). Otherwise the code of the
 * failure. *commits: this is not over; with its lock let go, the caller is to call fs_append_commit. NULL: it
 * is over when this returns.
 */
enum kv_rc fs_append_write(struct fs_append *a, pid_t pid, uid_t uid, const char *buf, size_t len,
			   size_t *done, bool *commits);

/* Who is answered when a commit is over; copied. */
struct fs_append_asker {
	/* What fs_append_write would have given. On any thread; the next call on the file may have begun. */
	void (*over)(const struct fs_append_asker *asker, enum kv_rc rc, size_t done);
	struct fs_handle *handle; /* these are the caller's; the file stays open until `over` is back */
	fuse_req_t req;
	uint64_t began_us;
};

/* Commit what the write before left to be committed. This thread may then commit for others; see
 * core_txn_submit. */
void fs_append_commit(struct fs_append *a, const struct fs_append_asker *asker);

/* A write that failed before it came here: as if it had failed in the transaction. The code of the failure.
 */
enum kv_rc fs_append_refuse(struct fs_append *a, pid_t pid, uid_t uid, struct kv_err *why);

/* One verdict line, or what fits of it, to buf; 0: there is none. */
size_t fs_append_read(struct fs_append *a, char *buf, size_t len);

/* Drop what was begun, the verdicts, and being spent. */
void fs_append_reset(struct fs_append *a);

/* What was begun and not committed is dropped, and noted for the one who wrote last. */
void fs_append_close(struct fs_append *a);

#endif
