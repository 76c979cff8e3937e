/*
 * holds.c - see holds.h.
 */
#include "fs/holds.h"

#include "core/staged.h"
#include "fs/attr.h"
#include "fs/grammar.h"

static enum kv_rc find(struct fs *fs, const struct fs_node *dir, const char *name, struct kv_err *err)
{
	struct core_shard *shard;
	struct core_info info;
	struct core_hold hold;
	enum kv_rc rc;

	if (!core_staged_name_ok(name))
		return kv_fail_rc(err, KV_NOTFOUND);
	rc = fs_node_shard(fs, dir, &shard, &info, err);
	if (rc != KV_OK)
		return rc;
	rc = core_hold_get(shard, name, &hold, err);
	core_shard_close(shard);
	return rc;
}

enum kv_rc fs_holds_look(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
			 struct kv_err *err)
{
	enum kv_rc rc = find(fs, dir, name, err);

	if (rc == KV_OK)
		*nodeid = fs_nodeid_hold(&fs->nodes, dir->shard, dir->first_seqno, name);
	return rc;
}

enum kv_rc fs_holds_make(struct fs *fs, const struct fs_node *dir, const char *name, bool exclusive,
			 uint64_t *nodeid, struct kv_err *err)
{
	enum kv_rc rc;

	if (core_engine_read_only(fs->engine))
		return kv_fail_rc(err, KV_READONLY);
	rc = find(fs, dir, name, err);
	if (rc == KV_OK && exclusive)
		return kv_fail_rc(err, KV_EXISTS);
	if (rc != KV_OK && rc != KV_NOTFOUND)
		return rc;
	*nodeid = fs_nodeid_hold(&fs->nodes, dir->shard, dir->first_seqno, name);
	return *nodeid != 0 ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

enum kv_rc fs_hold_write(struct fs *fs, struct core_shard *shard, const char *name, const char *text,
			 size_t len, struct kv_err *err)
{
	struct core_hold_ask ask;
	enum kv_rc rc = fs_parse_hold(text, len, &ask, err);

	if (rc != KV_OK)
		return rc;
	if (!fs_commit_begin(fs))
		return kv_fail_rc(err, KV_SHUTDOWN);
	rc = core_hold_set(shard, name, &ask, NULL, err);
	fs_commit_end(fs);
	return rc;
}

enum kv_rc fs_holds_unlink(struct fs *fs, const struct fs_node *dir, const char *name, struct kv_err *err)
{
	struct core_shard *shard;
	struct core_info info;
	enum kv_rc rc = fs_node_shard(fs, dir, &shard, &info, err);

	if (rc != KV_OK)
		return rc;
	if (fs_commit_begin(fs)) {
		rc = core_hold_drop(shard, name, err);
		fs_commit_end(fs);
	} else {
		rc = kv_fail_rc(err, KV_SHUTDOWN);
	}
	core_shard_close(shard);
	return rc;
}
