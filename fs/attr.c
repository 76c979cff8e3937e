/*
 * attr.c - see attr.h.
 *
 * The owner, group and mode of a shard's directory govern its files: a file has
 * the directory's bits, less what makes no sense for it. The kernel enforces
 * them (default_permissions).
 */
#include "fs/attr.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/names.h"
#include "core/staged.h"
#include "fs/staged.h"
#include "fs/text.h"

/* A large block size makes Python, cp and cat write in pieces of 1 MiB. */
enum { APPEND_BLKSIZE = 1 << 20, TEXT_BLKSIZE = 128 << 10 };

/* From a lookup to the open that it is for. */
static const double opening_s = 0.005;

static const struct fs_fixed root_entries[] = {
	{"README", FS_README, S_IFREG | 0444},
	{"metrics", FS_METRICS, S_IFREG | 0444},
	{"name", FS_NAMES, S_IFDIR | 01777},
	{"shard", FS_SHARDS, S_IFDIR | 01777},
};

static const struct fs_fixed shard_entries[] = {
	{"append", FS_APPEND, S_IFREG | 0666},     {"as_of", FS_AS_OF_DIR, S_IFDIR | 0777},
	{"batches", FS_BATCHES, S_IFDIR | 0777},   {"ctl", FS_CTL, S_IFREG | 0666},
	{"errors", FS_ERRORS, S_IFREG | 0444},     {"holds", FS_HOLDS, S_IFDIR | 0777},
	{"listen", FS_LISTEN_DIR, S_IFDIR | 0777}, {"readers", FS_READERS, S_IFDIR | 0777},
	{"since", FS_SINCE, S_IFREG | 0666},       {"snapshot", FS_SNAPSHOT, S_IFREG | 0444},
	{"state", FS_STATE, S_IFREG | 0444},       {"subscribe", FS_SUBSCRIBE_DIR, S_IFDIR | 0777},
	{"upper", FS_UPPER, S_IFREG | 0444},       {"wait", FS_WAIT_DIR, S_IFDIR | 0777},
	{"writers", FS_WRITERS, S_IFDIR | 0777},
};

enum { SHARD_DIRS = 8 }; /* of them */

const struct fs_fixed *fs_fixed_of(enum fs_kind dir, size_t *count)
{
	if (dir == FS_ROOT) {
		*count = sizeof root_entries / sizeof root_entries[0];
		return root_entries;
	}
	*count = dir == FS_SHARD ? sizeof shard_entries / sizeof shard_entries[0] : 0;
	return shard_entries;
}

bool fs_kind_writable(enum fs_kind kind)
{
	return kind == FS_APPEND || kind == FS_SINCE || kind == FS_STAGED || kind == FS_HOLD ||
	       kind == FS_CTL;
}

enum kv_rc fs_node_shard(struct fs *fs, const struct fs_node *node, struct core_shard **out,
			 struct core_info *info, struct kv_err *err)
{
	enum kv_rc rc = core_shard_open(fs->engine, node->shard, out, err);

	if (rc != KV_OK)
		return rc;
	rc = core_shard_info(*out, false, info, err);
	if (rc == KV_OK && info->first_seqno != node->first_seqno)
		rc = kv_fail_rc(err, KV_NO_SHARD);
	if (rc != KV_OK) {
		core_shard_close(*out);
		*out = NULL;
	}
	return rc;
}

static struct timespec at_ms(uint64_t ms)
{
	return (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
}

static void set_times(struct stat *st, uint64_t ms)
{
	st->st_mtim = at_ms(ms);
	st->st_ctim = st->st_mtim;
	st->st_atim = st->st_mtim;
}

static void set_size(struct stat *st, uint64_t size)
{
	st->st_size = (off_t)size;
	st->st_blocks = (blkcnt_t)((size + 511) / 512);
}

/* The top directories and README belong to whom the mount's options say. */
static void top_attr(struct fs *fs, enum fs_kind kind, struct stat *st)
{
	size_t count;
	const struct fs_fixed *fixed = fs_fixed_of(FS_ROOT, &count);

	st->st_mode = S_IFDIR | 0755;
	for (size_t i = 0; i < count; i++)
		if (fixed[i].kind == kind)
			st->st_mode = fixed[i].mode;
	st->st_mode &= ~(fs->options.umask & 0777);
	st->st_uid = fs->options.uid;
	st->st_gid = fs->options.gid;
	st->st_nlink = S_ISDIR(st->st_mode) ? 2 : 1;
	set_times(st, fs->mounted_ms);
	if (kind == FS_README)
		set_size(st, strlen(fs_text_readme()));
}

static enum kv_rc name_attr(struct fs *fs, const struct fs_node *node, struct stat *st, struct kv_err *err)
{
	struct core_name name;
	enum kv_rc rc = core_name_get_by_id(fs->engine, node->name_id, &name, err);

	if (rc != KV_OK)
		return rc;
	st->st_mode = S_IFLNK | 0777;
	st->st_uid = name.uid;
	st->st_gid = name.gid;
	st->st_nlink = 1;
	st->st_size = (off_t)(strlen("../shard/") + CORE_ID_LEN - 1);
	set_times(st, name.made_ms);
	return KV_OK;
}

static mode_t kind_mode(enum fs_kind kind)
{
	size_t count;
	const struct fs_fixed *fixed = fs_fixed_of(FS_SHARD, &count);

	if (kind == FS_STAGED || kind == FS_HOLD)
		return S_IFREG | 0666;
	for (size_t i = 0; i < count; i++)
		if (fixed[i].kind == kind)
			return fixed[i].mode;
	return kind == FS_SHARD ? S_IFDIR | 07777 : S_IFREG | 0444;
}

static void shard_attr(const struct fs_node *node, const struct core_info *info, struct stat *st)
{
	char line[FS_FRONTIER_LINE];

	st->st_mode = kind_mode(node->kind);
	st->st_mode &= S_IFMT | info->owner.mode;
	st->st_uid = info->owner.uid;
	st->st_gid = info->owner.gid;
	st->st_nlink = S_ISDIR(st->st_mode) ? 2 : 1;
	set_times(st, info->changed_ms);
	if (node->kind == FS_SHARD)
		st->st_nlink = 2 + SHARD_DIRS;
	if (node->kind == FS_UPPER)
		set_size(st, fs_text_frontier(info->upper, line));
	if (node->kind == FS_SINCE)
		set_size(st, fs_text_frontier(info->since, line));
	if (node->kind == FS_BATCH) {
		set_size(st, node->size);
		st->st_blocks = (blkcnt_t)((node->batch.stored + 511) / 512);
		set_times(st, node->batch.committed_ms);
	}
	if (node->kind == FS_APPEND || node->kind == FS_STAGED)
		st->st_blksize = APPEND_BLKSIZE;
}

static enum kv_rc staged_attr(struct fs *fs, const struct fs_node *node, struct core_shard *shard,
			      struct stat *st, struct kv_err *err)
{
	struct core_staged entry;
	enum kv_rc rc;

	fs_staged_settle(fs, node->id);
	rc = core_staged_get_by_id(shard, node->id, &entry, err);
	if (rc != KV_OK)
		return rc;
	set_size(st, entry.size);
	set_times(st, entry.changed_ms);
	fs_node_note_size(&fs->nodes, node->nodeid, entry.size);
	return KV_OK;
}

static enum kv_rc writer_text(struct core_shard *shard, struct core_uuid id, char **text, uint64_t *ms,
			      struct kv_err *err)
{
	struct core_writer_state *all;
	size_t count, i = 0;
	enum kv_rc rc = core_shard_writers(shard, &all, &count, err);

	if (rc != KV_OK)
		return rc;
	while (i < count && !core_uuid_eq(all[i].id, id))
		i++;
	if (i < count) {
		*text = fs_text_writer(&all[i]);
		*ms = all[i].heartbeat_ms;
	} else {
		rc = kv_fail(err, KV_NOTFOUND, "no such writer is registered");
	}
	free(all);
	return rc;
}

static enum kv_rc reader_text(struct core_shard *shard, struct core_uuid id, char **text, uint64_t *ms,
			      struct kv_err *err)
{
	struct core_reading *all;
	size_t count, i = 0;
	enum kv_rc rc = core_shard_readers(shard, &all, &count, err);

	if (rc != KV_OK)
		return rc;
	while (i < count && !core_uuid_eq(all[i].id, id))
		i++;
	if (i < count) {
		*text = fs_text_reader(&all[i]);
		*ms = all[i].heartbeat_ms != 0 ? all[i].heartbeat_ms : all[i].reader.since_ms;
	} else {
		rc = kv_fail(err, KV_NOTFOUND, "no such reader");
	}
	free(all);
	return rc;
}

enum kv_rc fs_listed_text(struct core_shard *shard, enum fs_kind kind, struct core_uuid id, char **text,
			  uint64_t *ms, struct kv_err *err)
{
	enum kv_rc rc;

	*text = NULL;
	*ms = 0;
	rc = kind == FS_WRITER ? writer_text(shard, id, text, ms, err)
			       : reader_text(shard, id, text, ms, err);
	return rc == KV_OK && *text == NULL ? kv_fail_rc(err, KV_NOMEM) : rc;
}

static enum kv_rc listed_attr(const struct fs_node *node, struct core_shard *shard, struct stat *st,
			      struct kv_err *err)
{
	uint64_t ms;
	char *text;
	enum kv_rc rc = fs_listed_text(shard, node->kind, node->id, &text, &ms, err);

	if (rc != KV_OK)
		return rc;
	assert(text != NULL);
	set_size(st, strlen(text));
	set_times(st, ms);
	free(text);
	return KV_OK;
}

/* One that is not made yet, or was given up, is empty. */
static enum kv_rc hold_attr(const struct fs_node *node, struct core_shard *shard, struct stat *st,
			    struct kv_err *err)
{
	char line[FS_HOLD_LINE];
	struct core_hold hold;
	enum kv_rc rc = core_hold_get(shard, node->name, &hold, err);

	if (rc == KV_OK)
		set_size(st, fs_text_hold(&hold, line));
	return rc == KV_NOTFOUND ? KV_OK : rc;
}

enum kv_rc fs_attr(struct fs *fs, const struct fs_node *node, struct stat *st, double *timeout,
		   struct kv_err *err)
{
	struct core_shard *shard;
	struct core_info info;
	enum kv_rc rc;

	*st = (struct stat){.st_ino = fs_node_ino(node->nodeid), .st_blksize = TEXT_BLKSIZE};
	*timeout = 1.0;
	if (node->kind == FS_NAME)
		return name_attr(fs, node, st, err);
	if (node->kind < FS_SHARD) {
		top_attr(fs, node->kind, st);
		return KV_OK;
	}
	/* Modes of a shard's files follow its directory at once; the directory itself is changed through the
	 * kernel, which then knows. On a store with other writers they come with the timeout. Those that are
	 * looked up for each open keep what that lookup said until they are open. A batch never changes, and
	 * its mode comes with the lookup that each opening of it begins with. */
	if (node->kind != FS_SHARD && node->kind != FS_BATCH)
		*timeout = node->kind == FS_APPEND || node->kind == FS_CTL ? opening_s : 0;
	rc = fs_node_shard(fs, node, &shard, &info, err);
	if (rc != KV_OK)
		return rc;
	shard_attr(node, &info, st);
	if (node->kind == FS_STAGED)
		rc = staged_attr(fs, node, shard, st, err);
	if (node->kind == FS_WRITER || node->kind == FS_READER)
		rc = listed_attr(node, shard, st, err);
	if (node->kind == FS_HOLD)
		rc = hold_attr(node, shard, st, err);
	core_shard_close(shard);
	return rc;
}

bool fs_attr_is_gone(const struct fs_node *node, enum kv_rc rc)
{
	return (rc == KV_NO_SHARD && node->kind > FS_SHARD) ||
	       (rc == KV_NO_BATCH && node->kind == FS_STAGED) ||
	       (rc == KV_NOTFOUND && (node->kind == FS_WRITER || node->kind == FS_READER));
}

void fs_attr_removed(const struct fs_node *node, struct stat *st)
{
	*st = (struct stat){
		.st_ino = fs_node_ino(node->nodeid),
		.st_mode = kind_mode(node->kind) & (S_IFMT | 0444),
		.st_blksize = TEXT_BLKSIZE,
	};
	if (node->kind == FS_BATCH || node->kind == FS_STAGED)
		set_size(st, node->size);
}
