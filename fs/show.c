/*
 * show.c - what an open file shows: a text, a stream, a batch; see handle.h.
 *
 * It is fixed at the open, but for files of one line, which are made anew when they
 * are read from 0 again, and for what waits: an as_of whose time is not complete has
 * its snapshot from its first read on that finds it so.
 *
 * Who reads a time stands on the shard's list of needs: as_of while it waits, a
 * listener always. What is pinned needs none, and is listed for those who look.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/attr.h"
#include "fs/handle.h"
#include "fs/metrics.h"
#include "fs/text.h"

static enum kv_rc set_text(struct fs_handle *h, char *text, struct kv_err *err)
{
	free(h->text);
	h->text = text;
	h->text_len = text != NULL ? strlen(text) : 0;
	return text != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

/* since, or else the upper, as it is now; of the upper, not older than any append acknowledged before. */
static enum kv_rc show_frontier(struct fs_handle *h, struct kv_err *err)
{
	char line[FS_FRONTIER_LINE + 1];
	struct core_info info;
	enum kv_rc rc = core_shard_info(h->shard, true, &info, err);

	if (rc != KV_OK)
		return rc;
	h->at = h->kind == FS_SINCE ? info.since : info.upper;
	line[fs_text_frontier(h->at, line)] = '\0';
	return set_text(h, strdup(line), err);
}

static enum kv_rc show_wait(struct fs_handle *h, struct kv_err *err)
{
	enum kv_rc rc = show_frontier(h, err);

	if (rc != KV_OK || !core_frontier_covers(h->at, h->when.at.t))
		return rc;
	free(h->text);
	h->text = NULL;
	return KV_WOULD_BLOCK;
}

/* A hold that is not made yet, or was given up, is empty. */
static enum kv_rc show_hold(struct fs_handle *h, struct kv_err *err)
{
	char line[FS_HOLD_LINE] = "";
	struct core_hold hold;
	enum kv_rc rc = core_hold_get(h->shard, h->name, &hold, err);

	if (rc == KV_OK)
		fs_text_hold(&hold, line);
	return rc == KV_OK || rc == KV_NOTFOUND ? set_text(h, strdup(line), err) : rc;
}

enum kv_rc fs_show_line(struct fs_handle *h, struct kv_err *err)
{
	if (h->kind == FS_WAIT)
		return show_wait(h, err);
	return h->kind == FS_HOLD ? show_hold(h, err) : show_frontier(h, err);
}

static enum kv_rc show_listed(struct fs_handle *h, struct core_uuid id, struct kv_err *err)
{
	uint64_t ms;
	char *text;
	enum kv_rc rc = fs_listed_text(h->shard, h->kind, id, &text, &ms, err);

	return rc == KV_OK ? set_text(h, text, err) : rc;
}

static enum kv_rc show_state(struct fs_handle *h, struct kv_err *err)
{
	struct fs_shard_view v = {.id = core_shard_id(h->shard)};
	bool stated = false;
	enum kv_rc rc = core_shard_readers(h->shard, &v.readers, &v.reader_count, err);

	if (rc == KV_OK)
		rc = core_shard_merging(h->shard, &v.merges, &v.merge_count, err);
	if (rc == KV_OK) {
		rc = core_shard_state(h->shard, &v.state, err);
		stated = rc == KV_OK;
	}
	if (rc == KV_OK)
		rc = core_state_size(v.id, &v.state, &v.state_bytes, err);
	if (rc == KV_OK)
		rc = set_text(h, fs_text_state(&v), err);
	if (stated)
		core_state_fini(&v.state);
	free(v.merges);
	free(v.readers);
	return rc;
}

/* --- streams --------------------------------------------------------------------------------------- */

static void stop_needing(struct fs_handle *h)
{
	if (h->needing)
		core_shard_release(h->shard, &h->need);
	h->needing = false;
}

static enum kv_rc need(struct fs_handle *h, bool pins_only, uint64_t time, struct kv_err *err)
{
	enum kv_rc rc;

	stop_needing(h);
	h->need.pins_only = pins_only;
	rc = core_shard_need(h->shard, &h->need, time, err);
	h->needing = rc == KV_OK;
	return rc;
}

enum kv_rc fs_show_snapshot(struct fs_handle *h, struct kv_err *err)
{
	struct core_as_of as_of = {.latest = h->when.now, .time = h->when.at.t};
	struct core_snapshot *snapshot;
	enum kv_rc rc = KV_OK;

	if (!as_of.latest && !h->needing)
		rc = need(h, false, as_of.time, err);
	if (rc == KV_OK)
		rc = core_snapshot_open(h->shard, as_of, &snapshot, err);
	if (rc == KV_WOULD_BLOCK)
		return rc;
	if (rc == KV_OK) {
		h->stream = fs_stream_open(fs_source_snapshot(snapshot), &h->fs->reading);
		rc = h->stream != NULL ? need(h, true, 0, err) : kv_fail_rc(err, KV_NOMEM);
	} else {
		stop_needing(h);
	}
	return rc;
}

static enum kv_rc show_follow(struct fs_handle *h, struct kv_err *err)
{
	struct core_as_of as_of = {.latest = h->when.now, .time = h->when.at.t};
	enum kv_rc rc = h->kind == FS_LISTEN
				? fs_follow_listen(h->shard, h->when.at, h->when.now, &h->need.reader,
						   &h->fs->reading, &h->follow, err)
				: fs_follow_subscribe(h->shard, as_of, &h->need.reader, &h->fs->reading,
						      &h->follow, err);

	if (rc != KV_OK)
		return rc;
	h->stream = fs_stream_open(fs_follow_source(h->follow), &h->fs->reading);
	return h->stream != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static enum kv_rc show_batch(struct fs_handle *h, const struct fs_node *node, struct kv_err *err)
{
	struct fs_batch now;
	enum kv_rc rc = core_shard_batch(h->shard, node->batch.lower, node->batch.upper, &h->batch, err);

	if (rc != KV_OK)
		return rc;
	/* Another one under the name has an inode of its own. At ESTALE the kernel looks the name up again, and
	 * opens that one. */
	now = fs_batch_of(h->batch);
	if (!fs_batch_eq(&now, &node->batch))
		return kv_fail(err, KV_GONE, "the batch was replaced since it was looked up");
	return core_scan_open(core_shard_home(h->shard), h->batch, &h->scan, err);
}

uint64_t fs_show_waits_for(const struct fs_handle *h)
{
	return h->follow != NULL ? fs_follow_waits_for(h->follow) : h->when.at.t;
}

/* The process of a thread, which is what the kernel tells. */
static pid_t process_of(pid_t thread)
{
	char path[40], line[64];
	FILE *f;
	long pid = thread;

	/* Mostly it is the first of its process and has its number. A null signal tells, for 0.3 us; the file
	 * costs 13. */
	if (tgkill(thread, thread, 0) == 0 || errno == EPERM)
		return thread;
	snprintf(path, sizeof path, "/proc/%ld/status", (long)thread);
	f = fopen(path, "re");
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, "Tgid:", 5) == 0) {
			pid = strtol(line + 5, NULL, 10);
			break;
		}
	if (f != NULL)
		fclose(f);
	return (pid_t)pid;
}

/* Who reads, as readers/ says it. */
static void introduce(struct fs_handle *h, pid_t pid)
{
	static const char *const dirs[FS_KIND_COUNT] = {
		[FS_AS_OF] = "as_of", [FS_LISTEN] = "listen", [FS_SUBSCRIBE] = "subscribe"};
	struct core_reader *r = &h->need.reader;
	char at[CORE_FRONTIER_LEN];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	r->since_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (h->kind != FS_SNAPSHOT && dirs[h->kind] == NULL)
		return; /* it does not come on the list */
	r->pid = process_of(pid);
	if (h->kind == FS_SNAPSHOT)
		snprintf(r->purpose, sizeof r->purpose, "snapshot");
	else
		snprintf(r->purpose, sizeof r->purpose, "%s/%s", dirs[h->kind],
			 h->when.now ? "now" : core_frontier_format(h->when.at, at));
}

enum kv_rc fs_show(struct fs_handle *h, const struct fs_node *node, int flags, pid_t pid, struct kv_err *err)
{
	enum kv_rc rc;

	introduce(h, pid);
	switch (node->kind) {
	case FS_README:
		return set_text(h, strdup(fs_text_readme()), err);
	case FS_METRICS:
		return set_text(h, fs_metrics_text(h->fs), err);
	case FS_UPPER:
	case FS_SINCE:
	case FS_HOLD:
		return fs_show_line(h, err);
	case FS_WAIT:
		return KV_OK; /* its text is made by its reads */
	case FS_STATE:
		return show_state(h, err);
	case FS_ERRORS:
		return set_text(h, fs_errors_text(&h->fs->errors, node->shard, node->first_seqno), err);
	case FS_APPEND:
		h->append = fs_append_open(h->fs, h->shard, &h->open);
		return h->append != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	case FS_CTL:
		h->ctl = fs_ctl_open(h->fs, h->shard);
		return h->ctl != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	case FS_SNAPSHOT:
		h->when.now = true;
		return fs_show_snapshot(h, err);
	case FS_AS_OF:
		rc = fs_show_snapshot(h, err);
		return rc == KV_WOULD_BLOCK ? KV_OK : rc;
	case FS_LISTEN:
	case FS_SUBSCRIBE:
		return show_follow(h, err);
	case FS_BATCH:
		return show_batch(h, node, err);
	case FS_STAGED:
		return fs_staged_open(h->fs, h->shard, node, flags, &h->open, &h->staged, err);
	case FS_WRITER:
	case FS_READER:
		return show_listed(h, node->id, err);
	case FS_NONE:
	case FS_ROOT:
	case FS_NAMES:
	case FS_SHARDS:
	case FS_NAME:
	case FS_SHARD:
	case FS_AS_OF_DIR:
	case FS_WAIT_DIR:
	case FS_LISTEN_DIR:
	case FS_SUBSCRIBE_DIR:
	case FS_BATCHES:
	case FS_WRITERS:
	case FS_READERS:
	case FS_HOLDS:
	case FS_KIND_COUNT:
		break;
	}
	return kv_fail_rc(err, KV_NOT_HERE);
}

void fs_show_end(struct fs_handle *h)
{
	stop_needing(h);
	fs_stream_close(h->stream);
	core_scan_close(h->scan);
	core_batch_unref(h->batch);
	free(h->text);
}
