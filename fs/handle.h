/*
 * handle.h - an open file, for files.c and show.c.
 */
#ifndef FS_HANDLE_H
#define FS_HANDLE_H

#include "core/scan.h"
#include "fs/append.h"
#include "fs/ctl.h"
#include "fs/follow.h"
#include "fs/fs.h"
#include "fs/staged.h"
#include "fs/stream.h"

struct fs_handle {
	struct fs_open open; /* first: handle_end() is handed it */
	struct fs *fs;
	/* The descriptor's, and one for a read that is being answered: its answer borrows from the handle,
	 * and the client may have closed the file before the answering call is back. */
	_Atomic(unsigned) refs;
	pthread_mutex_t mu; /* all below that can change */
	enum fs_kind kind;
	struct core_shard *shard; /* a reference; NULL: /README, /metrics */
	uint64_t first_seqno;
	struct fs_when when;
	char name[CORE_HOLD_NAME_LEN]; /* of a hold */

	char *text; /* of files of a few lines; wait/<t>: once it is over */
	size_t text_len;
	bool text_read;          /* reading at 0 again refreshes some of them */
	struct core_frontier at; /* upper: what the text says */
	struct fs_append *append;
	struct fs_ctl *ctl;       /* has a lock of its own */
	struct fs_stream *stream; /* snapshot, as_of, listen, subscribe; NULL: an as_of that has to wait */
	struct fs_follow *follow; /* of listen and subscribe; the stream's */
	struct core_need need;    /* the time an as_of waits for; then what is pinned, for those who look */
	bool needing;
	struct core_batch *batch; /* a reference */
	struct core_scan *scan;
	struct fs_staged *staged;
	struct fs_poll poll;
};

/* --- show.c: what an open file shows ---------------------------------------------------------------- */

/* At its open by process pid. Codes of the engine; KV_NOT_HERE: nothing to open. */
enum kv_rc fs_show(struct fs_handle *h, const struct fs_node *node, int flags, pid_t pid,
		   struct kv_err *err) KV_MUST_CHECK;

/* The text of upper, since, a hold or wait/<t> anew. KV_WOULD_BLOCK: wait/<t> is not over, and has none. */
enum kv_rc fs_show_line(struct fs_handle *h, struct kv_err *err) KV_MUST_CHECK;

/* The snapshot of an as_of that had to wait. KV_WOULD_BLOCK: it still has to. */
enum kv_rc fs_show_snapshot(struct fs_handle *h, struct kv_err *err) KV_MUST_CHECK;

/* The time that the upper has to pass for a read to go on that has to wait. */
uint64_t fs_show_waits_for(const struct fs_handle *h);

/* Nothing is shown any more. */
void fs_show_end(struct fs_handle *h);

#endif
