/*
 * batches.c - see batches.h. Making files is here too, of batches/ and of holds/.
 */
#include "fs/batches.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h> /* RENAME_NOREPLACE */
#include <string.h>

#include "core/scan.h"
#include "core/staged.h"
#include "fs/attr.h"
#include "fs/files.h"
#include "fs/holds.h"
#include "fs/text.h"
#include "fs/tree.h"

static enum kv_rc look_committed(struct fs *fs, const struct fs_node *dir, struct core_shard *shard,
				 struct core_frontier lower, struct core_frontier upper, uint64_t *nodeid,
				 struct kv_err *err)
{
	struct core_batch *batch;
	struct fs_batch of;
	uint64_t size;
	enum kv_rc rc = core_shard_batch(shard, lower, upper, &batch, err);

	if (rc != KV_OK)
		return rc;
	/* What the description does not tell takes reading the batch; once is enough. */
	of = fs_batch_of(batch);
	if (!fs_node_batch_size(&fs->nodes, dir->shard, dir->first_seqno, &of, &size))
		rc = core_scan_size(core_shard_home(shard), batch, &size, err);
	if (rc == KV_OK)
		*nodeid = fs_nodeid_batch(&fs->nodes, dir->shard, dir->first_seqno, &of, size);
	core_batch_unref(batch);
	return rc;
}

static enum kv_rc look_staged(struct fs *fs, const struct fs_node *dir, struct core_shard *shard,
			      const char *name, uint64_t *nodeid, struct kv_err *err)
{
	struct core_staged entry;
	enum kv_rc rc = core_staged_get(shard, name, &entry, err);

	if (rc == KV_OK)
		*nodeid = fs_nodeid_id(&fs->nodes, FS_STAGED, dir->shard, dir->first_seqno, entry.id);
	return rc;
}

enum kv_rc fs_batches_look(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
			   struct kv_err *err)
{
	struct core_frontier lower, upper;
	struct core_shard *shard;
	struct core_info info;
	bool committed = fs_parse_batch_file(name, &lower, &upper);
	enum kv_rc rc;

	if (!committed && !core_staged_name_ok(name))
		return KV_NOTFOUND;
	rc = fs_node_shard(fs, dir, &shard, &info, err);
	if (rc != KV_OK)
		return rc;
	rc = committed ? look_committed(fs, dir, shard, lower, upper, nodeid, err)
		       : look_staged(fs, dir, shard, name, nodeid, err);
	core_shard_close(shard);
	return rc;
}

/* Around a change to the names: the shard, unless the mount is stopping. */
static enum kv_rc begin_change(struct fs *fs, const struct fs_node *dir, struct core_shard **shard,
			       struct kv_err *err)
{
	struct core_info info;
	enum kv_rc rc = fs_node_shard(fs, dir, shard, &info, err);

	if (rc == KV_OK && !fs_commit_begin(fs)) {
		core_shard_close(*shard);
		rc = kv_fail_rc(err, KV_SHUTDOWN);
	}
	return rc;
}

static void end_change(struct fs *fs, struct core_shard *shard)
{
	fs_commit_end(fs);
	core_shard_close(shard);
}

enum kv_rc fs_batches_unlink(struct fs *fs, const struct fs_node *dir, const char *name, struct kv_err *err)
{
	struct core_frontier lower, upper;
	struct core_shard *shard;
	enum kv_rc rc;

	if (fs_parse_batch_file(name, &lower, &upper))
		return kv_fail_rc(err, KV_NOT_HERE);
	if (!core_staged_name_ok(name))
		return kv_fail_rc(err, KV_NOTFOUND);
	rc = begin_change(fs, dir, &shard, err);
	if (rc != KV_OK)
		return rc;
	rc = core_staged_remove(shard, name, err);
	end_change(fs, shard);
	return rc;
}

enum kv_rc fs_batches_rename(struct fs *fs, const struct fs_node *dir, const char *name, const char *to,
			     unsigned flags, struct kv_err *err)
{
	struct core_frontier lower, upper;
	struct core_shard *shard;
	enum kv_rc rc;

	if (fs_parse_batch_file(name, &lower, &upper))
		return kv_fail_rc(err, KV_NOT_HERE);
	if (!core_staged_name_ok(to))
		return kv_fail_rc(err, KV_BAD_NAME);
	rc = begin_change(fs, dir, &shard, err);
	if (rc != KV_OK)
		return rc;
	rc = core_staged_rename(shard, name, to, (flags & RENAME_NOREPLACE) != 0,
				(flags & RENAME_EXCHANGE) != 0, err);
	end_change(fs, shard);
	return rc;
}

/* --- making ---------------------------------------------------------------------------------------- */

/* Make an empty staged batch; with exclusive not if the name is there. The nodeid is counted as looked up. */
static enum kv_rc make(struct fs *fs, const struct fs_node *dir, const char *name, bool exclusive,
		       uint64_t *nodeid, struct kv_err *err)
{
	struct core_shard *shard;
	struct core_staged entry;
	enum kv_rc rc = begin_change(fs, dir, &shard, err);

	if (rc != KV_OK)
		return rc;
	rc = core_staged_create(shard, name, &entry, err);
	if (rc == KV_EXISTS && !exclusive)
		rc = core_staged_get(shard, name, &entry, err);
	end_change(fs, shard);
	if (rc == KV_OK)
		*nodeid = fs_nodeid_id(&fs->nodes, FS_STAGED, dir->shard, dir->first_seqno, entry.id);
	/* Who insists on a new one cannot simply try again. */
	return rc == KV_OK && *nodeid == 0 ? kv_fail_rc(err, exclusive ? KV_UNKNOWN : KV_NOMEM) : rc;
}

/* Whether a file of this name may be made in dir: 0, or the errno why not. */
static int refusal(const struct fs_node *dir, const char *name, mode_t mode)
{
	if ((dir->kind != FS_BATCHES && dir->kind != FS_HOLDS) || ((mode & S_IFMT) != 0 && !S_ISREG(mode)))
		return EPERM;
	if (strlen(name) >= CORE_STAGED_NAME_LEN)
		return ENAMETOOLONG;
	return core_staged_name_ok(name) ? 0 : EINVAL;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct fs *fs = fs_of(req);
	struct fs_node dir;
	struct kv_err err;
	uint64_t nodeid = 0;
	enum kv_rc rc;
	int errnum;

	(void)rdev;
	if (!fs_node_get(&fs->nodes, parent, &dir)) {
		fs_reply_rc(req, KV_NOTFOUND);
		return;
	}
	errnum = dir.kind == FS_HOLDS ? EPERM : refusal(&dir, name, mode);
	rc = errnum == 0 ? make(fs, &dir, name, true, &nodeid, &err) : KV_OK;
	if (errnum != 0)
		fs_reply_errno(req, errnum);
	else if (rc != KV_OK)
		fs_reply_rc(req, rc);
	else
		fs_reply_made(fs, req, nodeid);
}

/* A new file of either directory. Holds are there only when they are written. */
static enum kv_rc make_in(struct fs *fs, const struct fs_node *dir, const char *name, bool exclusive,
			  uint64_t *nodeid, struct kv_err *err)
{
	return dir->kind == FS_HOLDS ? fs_holds_make(fs, dir, name, exclusive, nodeid, err)
				     : make(fs, dir, name, exclusive, nodeid, err);
}

/* Make, or meet, and open. */
static enum kv_rc create(struct fs *fs, const struct fs_node *dir, const char *name,
			 struct fuse_file_info *fi, const struct fuse_ctx *ctx, struct fuse_entry_param *e,
			 struct kv_err *err)
{
	struct fs_node node;
	enum kv_rc rc = make_in(fs, dir, name, (fi->flags & O_EXCL) != 0, &e->ino, err);

	if (rc != KV_OK)
		return rc;
	rc = KV_NOTFOUND;
	if (fs_node_get(&fs->nodes, e->ino, &node))
		rc = fs_handle_open(fs, &node, fi, ctx, err);
	if (rc == KV_OK) {
		rc = fs_entry(fs, e, err);
		if (rc != KV_OK)
			fs_handle_close(fi);
	}
	if (rc == KV_OK)
		return KV_OK;
	fs_node_forget(&fs->nodes, e->ino, 1);
	return dir->kind == FS_BATCHES && (fi->flags & O_EXCL) != 0 ? kv_fail_rc(err, KV_UNKNOWN) : rc;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e = {0};
	struct fs_node dir;
	struct kv_err err;
	enum kv_rc rc;
	int errnum;

	if (!fs_node_get(&fs->nodes, parent, &dir)) {
		fs_reply_rc(req, KV_NOTFOUND);
		return;
	}
	errnum = refusal(&dir, name, mode);
	rc = errnum == 0 ? create(fs, &dir, name, fi, fuse_req_ctx(req), &e, &err) : KV_OK;
	if (errnum != 0) {
		fs_reply_errno(req, errnum);
	} else if (rc != KV_OK) {
		fs_reply_rc(req, rc);
	} else if (!fs_reply_created(req, &e, fi)) {
		fs_handle_close(fi);
		fs_node_forget(&fs->nodes, e.ino, 1);
	}
}

void fs_fill_batch_ops(struct fuse_lowlevel_ops *ops)
{
	ops->mknod = op_mknod;
	ops->create = op_create;
}
