/*
 * tree.c - the operations on names: lookup, attributes, directories, links.
 *
 * Each handler resolves its node, asks the engine, and answers exactly once. No
 * handler here waits for anything but the store.
 */
#include "fs/tree.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h> /* RENAME_NOREPLACE */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/names.h"
#include "fs/attr.h"
#include "fs/batches.h"
#include "fs/files.h"
#include "fs/holds.h"
#include "fs/look.h"
#include "fs/staged.h"

/* --- lookup ---------------------------------------------------------------------------------------- */

/* How long the kernel may keep a name without asking again. */
static double entry_timeout(enum fs_kind kind)
{
	switch (kind) {
	case FS_README:
	case FS_METRICS:
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
		return 1.0;
	/* `append` and `ctl` must have a fresh nodeid each time; of the others the size or the mode can have
	 * changed. */
	case FS_APPEND:
	case FS_CTL:
	case FS_UPPER:
	case FS_SINCE:
	case FS_SNAPSHOT:
	case FS_STATE:
	case FS_ERRORS:
	case FS_AS_OF:
	case FS_WAIT:
	case FS_BATCH:
	case FS_STAGED:
	case FS_WRITER:
	case FS_LISTEN:
	case FS_SUBSCRIBE:
	case FS_READER:
	case FS_HOLD:
	case FS_NONE:
	case FS_ROOT:
	case FS_KIND_COUNT:
		break;
	}
	return 0;
}

enum kv_rc fs_entry(struct fs *fs, struct fuse_entry_param *e, struct kv_err *err)
{
	struct fs_node node;
	enum kv_rc rc;

	if (!fs_node_get(&fs->nodes, e->ino, &node))
		return kv_fail_rc(err, KV_NOTFOUND);
	rc = fs_attr(fs, &node, &e->attr, &e->attr_timeout, err);
	e->entry_timeout = entry_timeout(node.kind);
	return rc;
}

static void reply_entry(struct fs *fs, fuse_req_t req, uint64_t nodeid, bool made)
{
	struct fuse_entry_param e = {.ino = nodeid};
	struct kv_err err;
	enum kv_rc rc = fs_entry(fs, &e, &err);

	if (rc != KV_OK) {
		fs_node_forget(&fs->nodes, nodeid, 1);
		fs_reply_rc(req, made ? KV_UNKNOWN : rc);
	} else if (!fs_reply_found(req, &e)) {
		fs_node_forget(&fs->nodes, nodeid, 1); /* interrupted: the kernel never saw it */
	}
}

void fs_reply_entry(struct fs *fs, fuse_req_t req, uint64_t nodeid)
{
	reply_entry(fs, req, nodeid, false);
}

void fs_reply_made(struct fs *fs, fuse_req_t req, uint64_t nodeid)
{
	reply_entry(fs, req, nodeid, true);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fs_node dir;
	struct kv_err err;
	uint64_t nodeid = 0;
	enum kv_rc rc = KV_NOTFOUND;

	/* The kernel lets 1,024 bytes pass. It looks before it makes or moves anything, so this is enough. */
	if (strlen(name) > NAME_MAX) {
		fs_reply_errno(req, ENAMETOOLONG);
		return;
	}
	if (fs_node_get(&fs->nodes, parent, &dir))
		rc = fs_look(fs, &dir, name, &nodeid, &err);
	if (rc != KV_OK)
		fs_reply_rc(req, rc);
	else
		fs_reply_entry(fs, req, nodeid);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	fs_node_forget(&fs_of(req)->nodes, ino, nlookup);
	fs_reply_forgot(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		fs_node_forget(&fs_of(req)->nodes, forgets[i].ino, forgets[i].nlookup);
	fs_reply_forgot(req);
}

/* --- attributes ------------------------------------------------------------------------------------ */

static void reply_attr(struct fs *fs, fuse_req_t req, const struct fs_node *node)
{
	struct stat st;
	struct kv_err err;
	double timeout;
	enum kv_rc rc = fs_attr(fs, node, &st, &timeout, &err);

	/* Open readers read to their end; most of them ask for the size first. By path nobody comes here: the
	 * lookup before has failed. */
	if (fs_attr_is_gone(node, rc)) {
		fs_attr_removed(node, &st);
		timeout = 0;
		rc = KV_OK;
	}
	if (rc != KV_OK)
		fs_reply_rc(req, rc);
	else
		fs_reply_attr(req, &st, timeout);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fs_node node;

	(void)fi;
	if (!fs_node_get(&fs->nodes, ino, &node)) {
		fs_reply_rc(req, KV_NOTFOUND);
		return;
	}
	reply_attr(fs, req, &node);
}

static enum kv_rc change_owner(struct fs *fs, const struct fs_node *node, const struct stat *attr, int to_set,
			       struct kv_err *err)
{
	struct core_shard *shard;
	struct core_info info;
	enum kv_rc rc = fs_node_shard(fs, node, &shard, &info, err);

	if (rc != KV_OK)
		return rc;
	if ((to_set & FUSE_SET_ATTR_MODE) != 0)
		info.owner.mode = attr->st_mode & 07777;
	if ((to_set & FUSE_SET_ATTR_UID) != 0)
		info.owner.uid = attr->st_uid;
	if ((to_set & FUSE_SET_ATTR_GID) != 0)
		info.owner.gid = attr->st_gid;
	if (fs_commit_begin(fs)) {
		rc = core_shard_set_owner(shard, info.owner, err);
		fs_commit_end(fs);
	} else {
		rc = KV_SHUTDOWN;
	}
	core_shard_close(shard);
	return rc;
}

/* truncate and ftruncate (which has an fi). */
static enum kv_rc set_size(struct fs *fs, const struct fs_node *node, uint64_t size,
			   struct fuse_file_info *fi, struct kv_err *err)
{
	struct core_shard *shard;
	struct core_info info;
	enum kv_rc rc;

	if (!fs_kind_writable(node->kind))
		return kv_fail_rc(err, KV_NOT_HERE);
	if (fi != NULL)
		return fs_handle_cut(fi, size, err);
	if (node->kind != FS_STAGED)
		return KV_OK;
	rc = fs_node_shard(fs, node, &shard, &info, err);
	if (rc != KV_OK)
		return rc;
	rc = fs_staged_cut_path(fs, shard, node->id, size, err);
	core_shard_close(shard);
	return rc;
}

/*
 * Owner and mode of a shard's directory are kept. Those of control files, and times and lengths, are taken
 * and ignored, for the tools that set them after a write; what cannot be written cannot be cut.
 */
static enum kv_rc set_attr(struct fs *fs, const struct fs_node *node, const struct stat *attr, int to_set,
			   struct fuse_file_info *fi, struct kv_err *err)
{
	int owner = to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID);
	enum kv_rc rc = KV_OK;

	if ((to_set & FUSE_SET_ATTR_SIZE) != 0)
		rc = set_size(fs, node, (uint64_t)attr->st_size, fi, err);
	if (rc != KV_OK || owner == 0)
		return rc;
	if (node->kind == FS_SHARD)
		return change_owner(fs, node, attr, owner, err);
	return node->kind > FS_SHARD ? KV_OK : KV_NOT_HERE;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fs_node node;
	struct kv_err err;
	enum kv_rc rc;

	if (!fs_node_get(&fs->nodes, ino, &node)) {
		fs_reply_rc(req, KV_NOTFOUND);
		return;
	}
	rc = set_attr(fs, &node, attr, to_set, fi, &err);
	if (rc != KV_OK)
		fs_reply_rc(req, rc);
	else
		reply_attr(fs, req, &node);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct fs_node node;
	struct core_name name;
	struct kv_err err;
	char target[16 + CORE_ID_LEN] = "../shard/";
	enum kv_rc rc = KV_NOTFOUND;

	if (fs_node_get(&fs->nodes, ino, &node) && node.kind == FS_NAME)
		rc = core_name_get_by_id(fs->engine, node.name_id, &name, &err);
	if (rc != KV_OK) {
		fs_reply_rc(req, rc);
		return;
	}
	core_uuid_format('s', name.target.u, target + strlen(target));
	fs_reply_link(req, target);
}

/* --- making and removing --------------------------------------------------------------------------- */

/* The kind of a directory by nodeid; FS_NONE: it is none. */
static enum fs_kind kind_of(struct fs *fs, fuse_ino_t ino)
{
	struct fs_node node;

	if (!fs_node_get(&fs->nodes, ino, &node))
		return FS_NONE;
	return node.kind;
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs *fs = fs_of(req);
	struct core_owner owner = {.uid = ctx->uid, .gid = ctx->gid, .mode = mode & 07777};
	struct core_shard_id id;
	struct kv_err err;
	uint64_t nodeid = 0;
	enum kv_rc rc;

	if (kind_of(fs, parent) != FS_SHARDS) {
		fs_reply_rc(req, KV_NOT_HERE);
		return;
	}
	if (!fs_parse_shard_id(name, &id)) {
		fs_reply_rc(req, KV_BAD_NAME);
		return;
	}
	if (!fs_commit_begin(fs)) {
		fs_reply_rc(req, KV_SHUTDOWN);
		return;
	}
	rc = core_shard_create(fs->engine, id, owner, &err);
	fs_commit_end(fs);
	if (rc == KV_OK && fs_look_shard(fs, name, &nodeid, &err) != KV_OK)
		rc = KV_UNKNOWN; /* it is made, and cannot be shown */
	if (rc != KV_OK)
		fs_reply_rc(req, rc);
	else
		fs_reply_made(fs, req, nodeid);
}

static enum kv_rc remove_shard(struct fs *fs, const char *name, struct kv_err *err)
{
	struct core_shard_id id;
	struct core_shard *shard;
	struct core_info info;
	enum kv_rc rc;

	if (!fs_parse_shard_id(name, &id))
		return KV_NOTFOUND;
	rc = core_shard_open(fs->engine, id, &shard, err);
	if (rc != KV_OK)
		return rc;
	rc = core_shard_info(shard, false, &info, err);
	if (rc != KV_OK) {
		core_shard_close(shard);
	} else if (fs_commit_begin(fs)) {
		rc = core_shard_remove(shard, err);
		core_shard_close(shard); /* the last one to close deletes it */
		fs_commit_end(fs);
	} else {
		rc = KV_SHUTDOWN;
		core_shard_close(shard);
	}
	if (rc == KV_OK)
		fs_errors_forget(&fs->errors, id, info.first_seqno);
	return rc;
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct kv_err err;

	if (kind_of(fs, parent) == FS_SHARDS)
		fs_reply_rc(req, remove_shard(fs, name, &err));
	else
		fs_reply_rc(req, KV_NOT_HERE);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fs_node dir;
	struct kv_err err;
	enum kv_rc rc = KV_NOT_HERE;

	if (!fs_node_get(&fs->nodes, parent, &dir)) {
		fs_reply_rc(req, KV_NOTFOUND);
		return;
	}
	if (dir.kind == FS_BATCHES) {
		rc = fs_batches_unlink(fs, &dir, name, &err);
	} else if (dir.kind == FS_HOLDS) {
		rc = fs_holds_unlink(fs, &dir, name, &err);
	} else if (dir.kind == FS_NAMES) {
		rc = KV_SHUTDOWN;
		if (fs_commit_begin(fs)) {
			rc = core_name_remove(fs->engine, name, &err);
			fs_commit_end(fs);
		}
	}
	fs_reply_rc(req, rc);
}

/* The shard a link's text leads to: any path whose end is shard/<id>. */
static bool parse_target(const char *target, struct core_shard_id *id)
{
	size_t len = strlen(target), name_len = CORE_ID_LEN - 1;
	const char *dir = "shard/";

	while (len != 0 && target[len - 1] == '/')
		len--;
	if (len < name_len + strlen(dir) || !core_uuid_parse('s', target + len - name_len, name_len, &id->u))
		return false;
	len -= name_len + strlen(dir);
	return memcmp(target + len, dir, strlen(dir)) == 0 && (len == 0 || target[len - 1] == '/');
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs *fs = fs_of(req);
	struct core_name link = {.uid = ctx->uid, .gid = ctx->gid};
	struct kv_err err;
	enum kv_rc rc = KV_SHUTDOWN;

	if (kind_of(fs, parent) != FS_NAMES) {
		fs_reply_rc(req, KV_NOT_HERE);
		return;
	}
	if (strlen(name) >= sizeof link.name) {
		fs_reply_errno(req, ENAMETOOLONG);
		return;
	}
	if (!parse_target(target, &link.target)) {
		fs_reply_rc(req, KV_BAD_NAME);
		return;
	}
	strcpy(link.name, name); /* its length was checked */
	if (fs_commit_begin(fs)) {
		rc = core_name_add(fs->engine, &link, &err);
		fs_commit_end(fs);
	}
	if (rc != KV_OK)
		fs_reply_rc(req, rc);
	else
		fs_reply_made(fs, req, fs_nodeid_top(FS_NAME, link.id));
}

/* Whether names of these directories may be changed to this one: 0, or the errno why not. *dir: the first
 * one. Between the batches/ of two shards mv may copy. */
static int rename_refusal(struct fs *fs, fuse_ino_t parent, fuse_ino_t to_parent, const char *to_name,
			  unsigned flags, struct fs_node *dir)
{
	enum fs_kind to = kind_of(fs, to_parent);
	size_t name_len;

	if (!fs_node_get(&fs->nodes, parent, dir))
		return ENOENT;
	if (dir->kind != to || (to != FS_NAMES && to != FS_BATCHES))
		return EPERM;
	if (parent != to_parent)
		return EXDEV;
	name_len = to == FS_NAMES ? CORE_NAME_LEN : CORE_STAGED_NAME_LEN;
	if (strlen(to_name) >= name_len)
		return ENAMETOOLONG;
	return (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0 ? EINVAL : 0;
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
		      const char *to_name, unsigned flags)
{
	struct fs *fs = fs_of(req);
	struct fs_node dir;
	struct kv_err err;
	enum kv_rc rc = KV_SHUTDOWN;
	int errnum = rename_refusal(fs, parent, to_parent, to_name, flags, &dir);

	if (errnum != 0) {
		fs_reply_errno(req, errnum);
		return;
	}
	if (dir.kind == FS_BATCHES) {
		rc = fs_batches_rename(fs, &dir, name, to_name, flags, &err);
	} else if (fs_commit_begin(fs)) {
		rc = core_name_rename(fs->engine, name, to_name, (flags & RENAME_NOREPLACE) != 0,
				      (flags & RENAME_EXCHANGE) != 0, &err);
		fs_commit_end(fs);
	}
	fs_reply_rc(req, rc);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	(void)ino;
	(void)parent;
	(void)name;
	fs_reply_rc(req, KV_NOT_HERE);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct kv_usage usage;
	struct kv_err err;
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
	enum kv_rc rc = core_engine_usage(fs_of(req)->engine, &usage, &err);

	(void)ino;
	if (rc != KV_OK) {
		fs_reply_rc(req, rc);
		return;
	}
	st.f_blocks = usage.total_bytes / st.f_frsize;
	st.f_bfree = usage.free_bytes / st.f_frsize;
	st.f_bavail = usage.avail_bytes / st.f_frsize;
	fs_reply_statfs(req, &st);
}

void fs_fill_tree_ops(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->readlink = op_readlink;
	ops->mkdir = op_mkdir;
	ops->rmdir = op_rmdir;
	ops->unlink = op_unlink;
	ops->symlink = op_symlink;
	ops->rename = op_rename;
	ops->link = op_link;
	ops->statfs = op_statfs;
}
