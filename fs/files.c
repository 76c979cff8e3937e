/*
 * files.c - open files: what is behind a descriptor, and its reads and writes.
 *
 * An open file is a struct fs_handle. What it shows is fixed when it is opened:
 * a text, a pinned snapshot, a pinned batch; an open as_of of a time that is not
 * complete yet has its snapshot from its first read on, which waits for it.
 *
 * Invariants:
 *  1. One thread at a time works on a handle, under its lock; the kernel may send
 *     several requests for one (dup, threads, read-ahead).
 *  2. OPEN, FLUSH and RELEASE never wait. What waits is a read, and it holds
 *     neither a thread nor the lock while it does.
 *  3. A commit happens in WRITE, nowhere else; FLUSH has no effect.
 */
#include "fs/files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/scan.h"
#include "fs/append.h"
#include "fs/attr.h"
#include "fs/grammar.h"
#include "fs/stream.h"
#include "fs/text.h"

struct fs_handle {
	struct fs_open open; /* first: handle_end() is handed it */
	struct fs *fs;
	/* The descriptor's, and one for a read that is being answered: its answer borrows from the handle,
	 * and the client may have closed the file before the answering call is back. */
	_Atomic(unsigned) refs;
	pthread_mutex_t mu; /* all below that can change */
	enum fs_kind kind;
	struct core_shard *shard; /* a reference; NULL: /README */
	uint64_t first_seqno;
	struct core_as_of as_of;

	char *text; /* upper, since, state, errors, README */
	size_t text_len;
	bool text_read;          /* reading at 0 again refreshes upper and since */
	struct core_frontier at; /* upper: what the text says */
	struct fs_append *append;
	struct fs_stream *stream; /* NULL: an as_of that still has to wait */
	struct core_need need;    /* its time, while it waits */
	bool needing;
	struct core_batch *batch; /* a reference */
	struct core_scan *scan;
	struct fs_poll poll;
};

static struct fs_handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct fs_handle *)(uintptr_t)fi->fh;
}

static void stop_needing(struct fs_handle *h)
{
	if (h->needing)
		core_shard_release(h->shard, &h->need);
	h->needing = false;
}

static void handle_put(struct fs_handle *h)
{
	if (atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	if (h->append != NULL)
		fs_append_close(h->append);
	if (h->shard != NULL)
		fs_poll_fini(&h->poll, h->shard);
	stop_needing(h);
	fs_stream_close(h->stream);
	core_scan_close(h->scan);
	core_batch_unref(h->batch);
	core_shard_close(h->shard);
	free(h->text);
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

/* --- what an open shows ---------------------------------------------------------------------------- */

static enum kv_rc set_text(struct fs_handle *h, char *text, struct kv_err *err)
{
	free(h->text);
	h->text = text;
	h->text_len = text != NULL ? strlen(text) : 0;
	return text != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

/* upper or since as it is now; of the upper, not older than any append acknowledged before. */
static enum kv_rc show_frontier(struct fs_handle *h, struct kv_err *err)
{
	char line[FS_FRONTIER_LINE + 1];
	struct core_info info;
	enum kv_rc rc = core_shard_info(h->shard, true, &info, err);

	if (rc != KV_OK)
		return rc;
	h->at = h->kind == FS_UPPER ? info.upper : info.since;
	line[fs_text_frontier(h->at, line)] = '\0';
	return set_text(h, strdup(line), err);
}

static enum kv_rc show_state(struct fs_handle *h, struct kv_err *err)
{
	struct core_state state;
	enum kv_rc rc = core_shard_state(h->shard, &state, err);

	if (rc != KV_OK)
		return rc;
	rc = set_text(h, fs_text_state(core_shard_id(h->shard), &state), err);
	core_state_fini(&state);
	return rc;
}

/* KV_WOULD_BLOCK: the time is not complete; h->stream stays NULL, and since stays below the time until it is.
 */
static enum kv_rc show_snapshot(struct fs_handle *h, struct kv_err *err)
{
	struct core_snapshot *snapshot;
	enum kv_rc rc;

	if (!h->as_of.latest && !h->needing) {
		rc = core_shard_need(h->shard, &h->need, h->as_of.time, err);
		if (rc != KV_OK)
			return rc;
		h->needing = true;
	}
	rc = core_snapshot_open(h->shard, h->as_of, &snapshot, err);
	if (rc == KV_WOULD_BLOCK)
		return rc;
	stop_needing(h);
	if (rc != KV_OK)
		return rc;
	h->stream = fs_stream_open(snapshot);
	return h->stream != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static enum kv_rc show_batch(struct fs_handle *h, const struct fs_node *node, struct kv_err *err)
{
	h->batch = core_batch_ref(node->batch);
	return core_scan_open(core_shard_home(h->shard), h->batch, &h->scan, err);
}

static enum kv_rc show(struct fs *fs, struct fs_handle *h, const struct fs_node *node, struct kv_err *err)
{
	enum kv_rc rc;

	switch (node->kind) {
	case FS_README:
		return set_text(h, strdup(fs_text_readme()), err);
	case FS_UPPER:
	case FS_SINCE:
		return show_frontier(h, err);
	case FS_STATE:
		return show_state(h, err);
	case FS_ERRORS:
		return set_text(h, fs_errors_text(&fs->errors, node->shard), err);
	case FS_APPEND:
		h->append = fs_append_open(fs, h->shard);
		return h->append != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	case FS_SNAPSHOT:
		h->as_of = (struct core_as_of){.latest = true};
		return show_snapshot(h, err);
	case FS_AS_OF:
		h->as_of = node->as_of;
		rc = show_snapshot(h, err);
		return rc == KV_WOULD_BLOCK ? KV_OK : rc;
	case FS_BATCH:
		return show_batch(h, node, err);
	case FS_NONE:
	case FS_ROOT:
	case FS_NAMES:
	case FS_SHARDS:
	case FS_NAME:
	case FS_SHARD:
	case FS_AS_OF_DIR:
	case FS_BATCHES:
	case FS_KIND_COUNT:
		break;
	}
	return kv_fail_rc(err, KV_NOT_HERE);
}

static enum kv_rc open_handle(struct fs *fs, const struct fs_node *node, int flags, struct fs_handle **out,
			      struct kv_err *err)
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
	h->kind = node->kind;
	h->first_seqno = node->first_seqno;
	if (node->kind != FS_README)
		rc = fs_node_shard(fs, node, &h->shard, &info, err);
	if (rc == KV_OK)
		rc = show(fs, h, node, err);
	if (rc == KV_OK)
		*out = h;
	else
		handle_put(h);
	return rc;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fs_node node;
	struct fs_handle *h = NULL;
	struct kv_err err;
	enum kv_rc rc = KV_NOTFOUND;

	if (fs_node_get(&fs->nodes, ino, &node)) {
		rc = open_handle(fs, &node, fi->flags, &h, &err);
		fs_node_fini(&node);
	}
	if (rc != KV_OK) {
		fs_reply_rc(req, rc);
		return;
	}
	h->fs = fs;
	fs_open_add(fs, &h->open, handle_end);
	fi->fh = (uintptr_t)h;
	/* What never changes the kernel may keep; the rest comes from us each time. */
	fi->direct_io = h->kind != FS_BATCH;
	fi->keep_cache = h->kind == FS_BATCH;
	fi->noflush = 1;
	if (fuse_reply_open(req, fi) != 0)
		handle_end(&h->open);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	handle_end(&handle_of(fi)->open);
	fuse_reply_err(req, 0);
}

void fs_handle_reset(struct fuse_file_info *fi)
{
	struct fs_handle *h = handle_of(fi);

	if (h == NULL || h->append == NULL)
		return;
	pthread_mutex_lock(&h->mu);
	fs_append_reset(h->append);
	pthread_mutex_unlock(&h->mu);
}

/* --- reading --------------------------------------------------------------------------------------- */

static void read_text(fuse_req_t req, struct fs_handle *h, size_t size, off_t offset)
{
	struct kv_err err;
	enum kv_rc rc = KV_OK;
	size_t from, n;

	if (offset == 0 && h->text_read && (h->kind == FS_UPPER || h->kind == FS_SINCE))
		rc = show_frontier(h, &err);
	if (rc != KV_OK) {
		fs_reply_rc(req, rc);
		return;
	}
	h->text_read = true;
	from = (uint64_t)offset < h->text_len ? (size_t)offset : h->text_len;
	n = h->text_len - from < size ? h->text_len - from : size;
	fuse_reply_buf(req, h->text + from, n);
}

static void read_verdicts(fuse_req_t req, struct fs_handle *h, size_t size)
{
	char line[FS_VERDICT_LEN + 1];
	size_t n = fs_append_read(h->append, line, size < sizeof line ? size : sizeof line);

	fuse_reply_buf(req, line, n);
}

static void read_batch(fuse_req_t req, struct fs_handle *h, size_t size, off_t offset)
{
	struct kv_err err;
	char *buf = malloc(size + 1);
	size_t got = 0;
	enum kv_rc rc = KV_NOMEM;

	if (buf != NULL)
		rc = core_scan_read(h->scan, (uint64_t)offset, buf, size, &got, &err);
	if (rc == KV_OK)
		fuse_reply_buf(req, buf, got);
	else
		fs_reply_rc(req, rc);
	free(buf);
}

static void read_again(fuse_req_t req, const struct fs_read *read);

/* A read of snapshot or as_of. True: it was answered; false: it has to wait. */
static bool read_stream(fuse_req_t req, struct fs_handle *h, size_t size, off_t offset)
{
	struct kv_err err;
	enum kv_rc rc = KV_OK;
	const char *data = NULL;
	size_t got = 0;

	if (h->stream == NULL)
		rc = show_snapshot(h, &err);
	if (rc == KV_WOULD_BLOCK)
		return false;
	if (rc == KV_OK)
		rc = fs_stream_read(h->stream, (uint64_t)offset, size, &data, &got, &err);
	if (rc == KV_OK)
		fuse_reply_buf(req, data, got);
	else
		fs_reply_rc(req, rc);
	return true;
}

static void do_read(fuse_req_t req, size_t size, off_t offset, const struct fuse_file_info *fi)
{
	struct fs_handle *h = handle_of(fi);
	bool answered = true;

	atomic_fetch_add(&h->refs, 1);
	pthread_mutex_lock(&h->mu);
	if (h->append != NULL)
		read_verdicts(req, h, size);
	else if (h->kind == FS_BATCH)
		read_batch(req, h, size, offset);
	else if (h->kind == FS_SNAPSHOT || h->kind == FS_AS_OF)
		answered = read_stream(req, h, size, offset);
	else
		read_text(req, h, size, offset);
	pthread_mutex_unlock(&h->mu);
	if (!answered && (fi->flags & O_NONBLOCK) != 0)
		fs_reply_rc(req, KV_WOULD_BLOCK);
	else if (!answered)
		fs_wait_read(&fs_of(req)->waits, req, h->shard, h->as_of.time,
			     &(struct fs_read){.size = size, .offset = offset, .fi = *fi, .run = read_again});
	handle_put(h);
}

static void read_again(fuse_req_t req, const struct fs_read *read)
{
	do_read(req, read->size, read->offset, &read->fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)ino;
	do_read(req, size, offset, fi);
}

/* Files that have no events are always ready; upper has one when it is another, as_of when it is complete. */
static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct fs_handle *h = handle_of(fi);
	bool ready = true;

	(void)ino;
	pthread_mutex_lock(&h->mu);
	if (h->kind == FS_AS_OF && h->stream == NULL) {
		ready = fs_poll_until(&h->poll, h->shard, h->as_of.time, ph);
		ph = NULL;
	} else if (h->kind == FS_UPPER) {
		ready = fs_poll_change(&h->poll, h->shard, h->text_read ? &h->at : NULL, ph);
		ph = NULL;
	}
	pthread_mutex_unlock(&h->mu);
	if (ph != NULL)
		fuse_pollhandle_destroy(ph);
	fuse_reply_poll(req, ready ? POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM : POLLOUT | POLLWRNORM);
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

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs_handle *h = handle_of(fi);
	struct kv_err err;
	size_t done = size;
	enum kv_rc rc;

	(void)ino;
	(void)offset; /* transactions are a sequence, wherever the client thinks it is */
	pthread_mutex_lock(&h->mu);
	if (h->append != NULL)
		rc = fs_append_write(h->append, ctx->pid, ctx->uid, buf, size, &done);
	else
		rc = write_since(fs_of(req), h, buf, size, &err);
	pthread_mutex_unlock(&h->mu);
	if (rc != KV_OK)
		fs_reply_write_rc(req, rc);
	else
		fuse_reply_write(req, done);
}

/* Sent at every close of every duplicate, also before the first byte: it says nothing. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* What was acknowledged is durable already. */
static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	op_flush(req, ino, fi);
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
