/*
 * files.c - open files: what is behind a descriptor, and its reads and writes.
 *
 * An open file is a struct fs_handle; what it shows is made in show.c.
 *
 * Invariants:
 *  1. One thread at a time works on a handle, under its lock; the kernel may send
 *     several requests for one (dup, threads, read-ahead).
 *  2. OPEN, FLUSH and RELEASE never wait. What waits is a read, a write to `ctl`,
 *     or one of much (large.c), and it holds neither a thread nor the lock while it
 *     does.
 *  3. A commit happens in WRITE, nowhere else; FLUSH has no effect. The commit that ends a small write to
 *     `append` may go on without its thread, and another one answers.
 */
#include "fs/files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "fs/attr.h"
#include "fs/grammar.h"
#include "fs/handle.h"
#include "fs/holds.h"
#include "fs/large.h"

enum { STREAM_COST = 3 * FS_OPEN_BYTES };

static struct fs_handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct fs_handle *)(uintptr_t)fi->fh;
}

static void handle_put(struct fs_handle *h)
{
	if (atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	if (h->append != NULL)
		fs_append_close(h->append);
	fs_ctl_close(h->ctl);
	fs_staged_close(h->staged);
	if (h->shard != NULL)
		fs_poll_fini(&h->poll, h->shard);
	fs_show_end(h);
	core_shard_close(h->shard);
	pthread_mutex_destroy(&h->mu);
	free(h);
}

/* The descriptor is closed. */
static void handle_end(struct fs_open *o)
{
	struct fs_handle *h = (struct fs_handle *)o;

	fs_open_remove(h->fs, o);
	handle_put(h);
}

/* --- opening and closing --------------------------------------------------------------------------- */

static enum kv_rc open_handle(struct fs *fs, const struct fs_node *node, int flags, pid_t pid,
			      struct fs_handle **out, struct kv_err *err)
{
	struct fs_handle *h;
	struct core_info info;
	enum kv_rc rc = KV_OK;

	*out = NULL;
	/* Others are stopped by the mode; root is not. */
	if ((flags & O_ACCMODE) != O_RDONLY && !fs_kind_writable(node->kind))
		return kv_fail_rc(err, KV_NOT_HERE);
	h = calloc(1, sizeof *h);
	if (h == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	atomic_store(&h->refs, 1);
	pthread_mutex_init(&h->mu, NULL);
	h->fs = fs;
	h->kind = node->kind;
	h->first_seqno = node->first_seqno;
	h->when = node->when;
	memcpy(h->name, node->name, sizeof h->name);
	if (node->kind > FS_SHARD)
		rc = fs_node_shard(fs, node, &h->shard, &info, err);
	if (rc == KV_OK)
		rc = fs_show(h, node, flags, pid, err);
	if (rc == KV_OK)
		*out = h;
	else
		handle_put(h);
	return rc;
}

static bool is_stream(enum fs_kind kind)
{
	return kind == FS_SNAPSHOT || kind == FS_AS_OF || kind == FS_LISTEN || kind == FS_SUBSCRIBE;
}

/* Bytes that h keeps until it is closed: its text, or the least that a stream keeps of its own. */
static size_t cost(const struct fs_handle *h)
{
	return is_stream(h->kind) ? STREAM_COST : h->text_len;
}

/* The same, within the limits of the user. */
static enum kv_rc open_counted(struct fs *fs, const struct fs_node *node, int flags,
			       const struct fuse_ctx *ctx, struct fs_handle **out, struct kv_err *err)
{
	struct fs_user *user;
	size_t weight = 1;
	enum kv_rc rc = fs_limits_enter(&fs->limits, ctx->uid, &user, err);

	*out = NULL;
	if (rc != KV_OK)
		return rc;
	rc = open_handle(fs, node, flags, ctx->pid, out, err);
	if (rc == KV_OK)
		rc = fs_limits_weigh(&fs->limits, user, cost(*out), &weight, err);
	if (rc == KV_OK) {
		(*out)->open.user = user;
		(*out)->open.weight = weight;
		if ((*out)->staged != NULL)
			rc = fs_open_hold(fs, &(*out)->open, fs_staged_kept((*out)->staged), err);
	}
	if (rc == KV_OK)
		return KV_OK;
	if (*out != NULL)
		handle_put(*out);
	*out = NULL;
	fs_limits_leave(&fs->limits, user, weight);
	return rc;
}

enum kv_rc fs_handle_open(struct fs *fs, const struct fs_node *node, struct fuse_file_info *fi,
			  const struct fuse_ctx *ctx, struct kv_err *err)
{
	struct fs_handle *h;
	enum kv_rc rc = open_counted(fs, node, fi->flags, ctx, &h, err);

	if (rc != KV_OK)
		return rc;
	fs_open_add(fs, &h->open, handle_end);
	fi->fh = (uintptr_t)h;
	/* What never changes the kernel may keep; the rest comes from us each time. */
	fi->direct_io = h->kind != FS_BATCH;
	fi->keep_cache = h->kind == FS_BATCH;
	fi->noflush = h->kind != FS_STAGED;
	return KV_OK;
}

void fs_handle_close(struct fuse_file_info *fi)
{
	handle_end(&handle_of(fi)->open);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fs_node node;
	struct kv_err err;
	enum kv_rc rc = KV_NOTFOUND;

	if (fs_node_get(&fs->nodes, ino, &node))
		rc = fs_handle_open(fs, &node, fi, fuse_req_ctx(req), &err);
	if (rc == KV_GONE) /* the kernel looks the name up again */
		fs_reply_write_rc(req, rc);
	else if (rc != KV_OK)
		fs_reply_rc(req, rc);
	else if (!fs_reply_opened(req, fi))
		fs_handle_close(fi);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);

	fs_handle_close(fi);
	fs_node_closed(&fs->nodes, ino);
	fs_reply_done(req);
}

enum kv_rc fs_handle_cut(struct fuse_file_info *fi, uint64_t size, struct kv_err *err)
{
	struct fs_handle *h = handle_of(fi);
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&h->mu);
	if (h->staged != NULL)
		rc = fs_staged_cut(h->staged, size, err);
	else if (h->append != NULL && size == 0)
		fs_append_reset(h->append);
	pthread_mutex_unlock(&h->mu);
	return rc;
}

/* --- reading --------------------------------------------------------------------------------------- */

/* Whether reading at 0 again makes the text anew. */
static bool refreshes(enum fs_kind kind)
{
	return kind == FS_UPPER || kind == FS_SINCE || kind == FS_HOLD || kind == FS_WAIT;
}

/* True: it was answered; false: it has to wait. */
static bool read_text(fuse_req_t req, struct fs_handle *h, size_t size, off_t offset)
{
	struct kv_err err;
	enum kv_rc rc = KV_OK;
	size_t from, n;

	if (h->text == NULL || (offset == 0 && h->text_read && refreshes(h->kind)))
		rc = fs_show_line(h, &err);
	if (rc == KV_WOULD_BLOCK)
		return false;
	if (rc != KV_OK) {
		fs_reply_read_rc(req, rc, &err);
		return true;
	}
	h->text_read = true;
	from = (uint64_t)offset < h->text_len ? (size_t)offset : h->text_len;
	n = h->text_len - from < size ? h->text_len - from : size;
	fs_reply_read(req, h->text + from, n);
	return true;
}

static void read_verdicts(fuse_req_t req, struct fs_handle *h, size_t size)
{
	char line[FS_VERDICT_LEN + 1];
	size_t len = size < sizeof line ? size : sizeof line;
	size_t n = h->append != NULL ? fs_append_read(h->append, line, len) : fs_ctl_read(h->ctl, line, len);

	fs_reply_read(req, line, n);
}

static void read_batch(fuse_req_t req, struct fs_handle *h, size_t size, off_t offset)
{
	struct kv_err err;
	char *buf = malloc(size + 1);
	size_t got = 0;
	enum kv_rc rc = KV_NOMEM;

	if (buf != NULL && h->staged != NULL)
		rc = fs_staged_read(h->staged, (uint64_t)offset, buf, size, &got, &err);
	else if (buf != NULL)
		rc = core_scan_read(h->scan, (uint64_t)offset, buf, size, &got, &err);
	if (rc == KV_OK)
		fs_reply_read(req, buf, got);
	else
		fs_reply_read_rc(req, rc, &err);
	free(buf);
}

static void read_again(fuse_req_t req, const struct fs_read *read);

/* A read of what is made while it is read. True: it was answered; false: it has to wait. */
static bool read_stream(fuse_req_t req, struct fs_handle *h, size_t size, off_t offset)
{
	struct kv_err err;
	enum kv_rc rc = KV_OK;
	const char *data = NULL;
	size_t got = 0;

	if (h->stream == NULL)
		rc = fs_show_snapshot(h, &err);
	if (rc == KV_OK)
		rc = fs_stream_read(h->stream, (uint64_t)offset, size, &data, &got, &err);
	if (rc == KV_WOULD_BLOCK)
		return false;
	if (rc == KV_OK)
		fs_reply_read(req, data, got);
	else
		fs_reply_read_rc(req, rc, &err);
	return true;
}

static void read_now(fuse_req_t req, size_t size, off_t offset, const struct fuse_file_info *fi)
{
	struct fs_handle *h = handle_of(fi);
	bool answered = true;
	uint64_t time = 0;

	atomic_fetch_add(&h->refs, 1);
	pthread_mutex_lock(&h->mu);
	if (h->append != NULL || h->ctl != NULL)
		read_verdicts(req, h, size);
	else if (h->kind == FS_BATCH || h->kind == FS_STAGED)
		read_batch(req, h, size, offset);
	else if (is_stream(h->kind))
		answered = read_stream(req, h, size, offset);
	else
		answered = read_text(req, h, size, offset);
	if (!answered)
		time = fs_show_waits_for(h);
	pthread_mutex_unlock(&h->mu);
	if (!answered && (fi->flags & O_NONBLOCK) != 0)
		fs_reply_rc(req, KV_WOULD_BLOCK);
	else if (!answered)
		fs_wait_read(&fs_of(req)->waits, req, h->shard, time,
			     &(struct fs_read){.size = size, .offset = offset, .fi = *fi, .run = read_again});
	handle_put(h);
}

/* A read of a stream whose turn has not come. */
struct queued_read {
	struct fs_turn turn; /* first: the functions below are handed it */
	size_t size;
	off_t offset;
	struct fuse_file_info fi;
};

static bool queue_begin(struct fs_parked *p)
{
	return fs_turns_queue(&fs_of(p->req)->turns, (struct fs_turn *)p);
}

static bool queue_cancel(struct fs_parked *p)
{
	return fs_turns_leave_queue(&fs_of(p->req)->turns, (struct fs_turn *)p);
}

/* The thread of fs_waits has others to wake, and begins what is next only behind those. */
static void pass_on(struct fs *fs, uid_t uid)
{
	struct fs_turn *next = fs_turns_next(&fs->turns, uid);

	if (next == NULL)
		return;
	next->at_once = true;
	fs_park_wake(&next->parked);
}

static void queue_end(struct fs_parked *p, enum kv_rc rc)
{
	struct queued_read *q = (struct queued_read *)p;
	struct fs *fs = fs_of(p->req);

	if (rc != KV_OK)
		fs_reply_rc(p->req, rc);
	else
		read_now(p->req, q->size, q->offset, &q->fi);
	if (q->turn.at_once)
		pass_on(fs, q->turn.uid);
}

static void queue_free(struct fs_parked *p)
{
	free(p);
}

static void queue_read(fuse_req_t req, size_t size, off_t offset, const struct fuse_file_info *fi)
{
	static const struct fs_park_ops ops = {.kind = FS_PARKED_TURN,
					       .begin = queue_begin,
					       .cancel = queue_cancel,
					       .end = queue_end,
					       .free = queue_free};
	struct queued_read *q = calloc(1, sizeof *q);

	if (q == NULL) {
		fs_reply_rc(req, KV_NOMEM);
		return;
	}
	q->turn.uid = fuse_req_ctx(req)->uid;
	q->size = size;
	q->offset = offset;
	q->fi = *fi;
	fs_park(&fs_of(req)->waits, &q->turn.parked, &ops, req);
}

/* With go_on, also those that wait for their turn when this one is done; not on the thread of fs_waits. */
static void do_read(fuse_req_t req, size_t size, off_t offset, const struct fuse_file_info *fi, bool go_on)
{
	struct fs *fs = fs_of(req);
	uid_t uid = fuse_req_ctx(req)->uid;
	struct fs_turn *next;

	if (!is_stream(handle_of(fi)->kind)) {
		read_now(req, size, offset, fi);
		return;
	}
	if (!fs_turns_enter(&fs->turns, uid)) {
		queue_read(req, size, offset, fi);
		return;
	}
	read_now(req, size, offset, fi);
	if (!go_on) {
		pass_on(fs, uid);
		return;
	}
	while ((next = fs_turns_next(&fs->turns, uid)) != NULL) {
		uid = next->uid;
		fs_count_parked(); /* the time is not that of the first request any more */
		fs_park_run(&next->parked);
	}
}

static void read_again(fuse_req_t req, const struct fs_read *read)
{
	do_read(req, read->size, read->offset, &read->fi, false);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)ino;
	do_read(req, size, offset, fi, true);
}

/* Whether a read would be answered now; if not, ph (taken) is told when it would. upper has an event when it
 * is another one. A listener has one again whenever there is more: an edge-triggered epoll asks only when it
 * was told, so that is arranged for also when it is ready, and before looking whether it is. */
static bool is_ready(struct fs_handle *h, struct fuse_pollhandle *ph)
{
	if (h->kind == FS_UPPER)
		return fs_poll_change(&h->poll, h->shard, h->text_read ? &h->at : NULL, ph);
	/* as far as can be told without asking for the upper */
	if (h->kind == FS_WAIT || (h->kind == FS_AS_OF && h->stream == NULL))
		return fs_poll_until(&h->poll, h->shard, fs_show_waits_for(h), ph);
	if (h->follow != NULL) {
		fs_poll_more(&h->poll, h->shard, fs_show_waits_for(h), ph);
		return fs_stream_ready(h->stream);
	}
	if (ph != NULL)
		fuse_pollhandle_destroy(ph);
	return true;
}

static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct fs_handle *h = handle_of(fi);
	bool ready;

	(void)ino;
	pthread_mutex_lock(&h->mu);
	ready = is_ready(h, ph);
	pthread_mutex_unlock(&h->mu);
	fs_reply_poll(req, ready ? POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM : POLLOUT | POLLWRNORM);
}

/* --- writing --------------------------------------------------------------------------------------- */

/* One write is one whole line. */
static enum kv_rc write_since(struct fs *fs, struct fs_handle *h, const char *buf, size_t len,
			      struct kv_err *err)
{
	struct core_frontier since;
	uint64_t follow;
	enum kv_rc rc = fs_parse_since(buf, len, &since, &follow, err);

	if (rc != KV_OK)
		return rc;
	if (!fs_commit_begin(fs))
		return kv_fail_rc(err, KV_SHUTDOWN);
	rc = core_shard_move_hold(h->shard, CORE_DEFAULT_HOLD, since, follow, err);
	fs_commit_end(fs);
	return rc;
}

/* The commit at the end of a write is over. */
static void append_over(const struct fs_append_asker *asker, enum kv_rc rc, size_t done)
{
	struct fs *fs = fs_of(asker->req);

	handle_put(asker->handle); /* which the kernel keeps open until the answer */
	fs_count_took(&fs->counts, FS_OP_write, asker->began_us);
	if (rc != KV_OK)
		fs_reply_write_rc(asker->req, rc);
	else
		fs_reply_written(asker->req, done);
}

/* Transactions are a sequence, wherever the client thinks it is. */
static void write_append(fuse_req_t req, struct fs_handle *h, const char *buf, size_t size)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	const struct fs_append_asker asker = {
		.over = append_over, .handle = h, .req = req, .began_us = core_ticks_us()};
	size_t done;
	bool commits;
	enum kv_rc rc;

	pthread_mutex_lock(&h->mu);
	rc = fs_append_write(h->append, ctx->pid, ctx->uid, buf, size, &done, &commits);
	pthread_mutex_unlock(&h->mu);
	if (commits) {
		atomic_fetch_add(&h->refs, 1);
		fs_count_parked();
		fs_append_commit(h->append, &asker);
	} else if (rc != KV_OK) {
		fs_reply_write_rc(req, rc);
	} else {
		fs_reply_written(req, done);
	}
}

static enum kv_rc write_run(const struct fs_write *w, struct kv_err *refused, size_t *done)
{
	struct fs_handle *h = (struct fs_handle *)w->open;
	struct kv_err err;
	enum kv_rc rc;

	*done = w->size;
	pthread_mutex_lock(&h->mu);
	if (h->append != NULL && refused != NULL)
		rc = fs_append_refuse(h->append, w->pid, w->uid, refused);
	else if (h->append != NULL) /* transactions are a sequence, wherever the client thinks it is */
		rc = fs_append_write(h->append, w->pid, w->uid, w->buf, w->size, done, NULL);
	else if (h->staged != NULL && refused != NULL)
		rc = fs_staged_refuse(h->staged, w->pid, w->uid, refused);
	else if (h->staged != NULL)
		rc = fs_staged_write(h->staged, w->pid, w->uid, w->append, (uint64_t)w->offset, w->buf,
				     w->size, done);
	else if (refused != NULL)
		rc = refused->rc;
	else if (h->kind == FS_HOLD)
		rc = fs_hold_write(h->fs, h->shard, h->name, w->buf, w->size, &err);
	else
		rc = write_since(h->fs, h, w->buf, w->size, &err);
	if (rc == KV_OK && refreshes(h->kind))
		h->text_read = true; /* what was there at the open is not what is read after that */
	pthread_mutex_unlock(&h->mu);
	return rc;
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs_handle *h = handle_of(fi);
	const struct fs_write w = {.open = &h->open,
				   .pid = ctx->pid,
				   .uid = ctx->uid,
				   .append = (fi->flags & O_APPEND) != 0,
				   .slow = h->append != NULL && core_shard_is_slow(h->shard),
				   .offset = offset,
				   .buf = buf,
				   .size = size,
				   .run = write_run};

	(void)ino;
	if (h->ctl != NULL) /* answered when it is done */
		fs_ctl_write(h->ctl, req, buf, size);
	else if (h->append != NULL && fs_write_is_small(h->fs, &w))
		write_append(req, h, buf, size);
	else
		fs_write_in_turn(req, &w);
}

/* Sent at every close of every duplicate, also before the first byte: it says nothing, but that the last
 * close may be near. Then is the last moment to tell that rows of a staged batch have no room. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_handle *h = handle_of(fi);
	struct kv_err err;
	enum kv_rc rc = KV_OK;

	(void)ino;
	if (h->staged != NULL)
		rc = fs_staged_flushed(h->staged, &err);
	fs_reply_rc(req, rc);
}

/* But for staged batches, what was acknowledged is durable already. */
static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs_handle *h = handle_of(fi);
	struct kv_err err;
	enum kv_rc rc = KV_OK;

	(void)ino;
	(void)datasync;
	if (h->staged != NULL)
		rc = fs_staged_sync(h->staged, &err);
	fs_reply_rc(req, rc);
}

void fs_fill_file_ops(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->release = op_release;
	ops->read = op_read;
	ops->write = op_write;
	ops->flush = op_flush;
	ops->fsync = op_fsync;
	ops->poll = op_poll;
}
