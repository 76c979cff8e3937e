/*
 * look.c - what a name in a directory stands for.
 *
 * A directory's fixed entries come first; then each kind of directory asks the
 * engine in its own way. A name that means a time is taken as it is: whether it
 * can be read is for the open to say.
 */
#include "fs/look.h"

#include <stdlib.h>
#include <string.h>

#include "core/names.h"
#include "fs/attr.h"
#include "fs/batches.h"
#include "fs/holds.h"

bool fs_parse_shard_id(const char *name, struct core_shard_id *id)
{
	return core_uuid_parse('s', name, strlen(name), &id->u);
}

enum kv_rc fs_look_shard(struct fs *fs, const char *name, uint64_t *nodeid, struct kv_err *err)
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
	core_shard_close(shard);
	if (rc == KV_OK)
		*nodeid = fs_nodeid_shard(&fs->nodes, FS_SHARD, id, info.first_seqno);
	return rc;
}

/* What is named by a time, `now` where that has a meaning, or for a listener a frontier. */
static enum kv_rc look_time(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid)
{
	static const enum fs_kind kinds[FS_KIND_COUNT] = {[FS_AS_OF_DIR] = FS_AS_OF,
							  [FS_WAIT_DIR] = FS_WAIT,
							  [FS_LISTEN_DIR] = FS_LISTEN,
							  [FS_SUBSCRIBE_DIR] = FS_SUBSCRIBE};
	enum fs_kind kind = kinds[dir->kind];
	struct fs_when when = {.now = kind != FS_WAIT && strcmp(name, "now") == 0};

	if (!when.now &&
	    (!core_frontier_parse(name, strlen(name), &when.at) || (when.at.empty && kind != FS_LISTEN)))
		return KV_NOTFOUND;
	*nodeid = fs_nodeid_time(&fs->nodes, kind, dir->shard, dir->first_seqno, when);
	return KV_OK;
}

/* w<uuid> in writers/, r<uuid> in readers/. */
static enum kv_rc look_listed(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
			      struct kv_err *err)
{
	enum fs_kind kind = dir->kind == FS_WRITERS ? FS_WRITER : FS_READER;
	struct core_shard *shard;
	struct core_info info;
	struct core_uuid id;
	uint64_t ms;
	char *text;
	enum kv_rc rc;

	if (!core_uuid_parse(kind == FS_WRITER ? 'w' : 'r', name, strlen(name), &id))
		return KV_NOTFOUND;
	rc = fs_node_shard(fs, dir, &shard, &info, err);
	if (rc != KV_OK)
		return rc;
	rc = fs_listed_text(shard, kind, id, &text, &ms, err);
	core_shard_close(shard);
	free(text);
	if (rc == KV_OK)
		*nodeid = fs_nodeid_id(&fs->nodes, kind, dir->shard, dir->first_seqno, id);
	return rc;
}

static enum kv_rc look_name(struct fs *fs, const char *name, uint64_t *nodeid, struct kv_err *err)
{
	struct core_name link;
	enum kv_rc rc = core_name_get(fs->engine, name, &link, err);

	if (rc == KV_OK)
		*nodeid = fs_nodeid_top(FS_NAME, link.id);
	return rc;
}

/* A name that is not a fixed one. */
static enum kv_rc look_made(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
			    struct kv_err *err)
{
	if (dir->kind == FS_SHARDS)
		return fs_look_shard(fs, name, nodeid, err);
	if (dir->kind == FS_NAMES)
		return look_name(fs, name, nodeid, err);
	if (dir->kind == FS_BATCHES)
		return fs_batches_look(fs, dir, name, nodeid, err);
	if (dir->kind == FS_WRITERS || dir->kind == FS_READERS)
		return look_listed(fs, dir, name, nodeid, err);
	if (dir->kind == FS_HOLDS)
		return fs_holds_look(fs, dir, name, nodeid, err);
	if (dir->kind == FS_AS_OF_DIR || dir->kind == FS_WAIT_DIR || dir->kind == FS_LISTEN_DIR ||
	    dir->kind == FS_SUBSCRIBE_DIR)
		return look_time(fs, dir, name, nodeid);
	return kv_fail_rc(err, KV_NOTFOUND);
}

enum kv_rc fs_look(struct fs *fs, const struct fs_node *dir, const char *name, uint64_t *nodeid,
		   struct kv_err *err)
{
	size_t count;
	const struct fs_fixed *fixed = fs_fixed_of(dir->kind, &count);
	enum kv_rc rc;

	*nodeid = 0;
	for (size_t i = 0; i < count; i++) {
		if (strcmp(fixed[i].name, name) != 0)
			continue;
		*nodeid = dir->kind == FS_ROOT
				  ? fs_nodeid_top(fixed[i].kind, 0)
				  : fs_nodeid_shard(&fs->nodes, fixed[i].kind, dir->shard, dir->first_seqno);
		return *nodeid != 0 ? KV_OK : KV_NOMEM;
	}
	rc = look_made(fs, dir, name, nodeid, err);
	return rc == KV_OK && *nodeid == 0 ? KV_NOMEM : rc;
}
