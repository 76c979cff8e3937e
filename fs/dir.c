/*
 * dir.c - listing directories.
 *
 * Fixed entries come first, at offsets 1, 2, ...; after them the names that the
 * engine gives. Those of /shard come page by page, so that a million of them cost
 * no memory; those of batches/, writers/, readers/, holds/ and /name are a list made
 * when the directory is opened. as_of, listen, subscribe and wait list nothing: their
 * names are only looked up, so that what walks a tree comes to an end.
 *
 * The offset of an entry is its number in this listing. Going back starts the
 * listing over; what was added or removed since then may show or not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/names.h"
#include "core/staged.h"
#include "fs/attr.h"
#include "fs/files.h"
#include "fs/text.h"

enum { SHARDS_PAGE = 512, NAME_COST = 64 };

struct dir {
	struct fs_open open; /* first: dir_end() is handed it */
	struct fs *fs;
	pthread_mutex_t mu; /* all below */
	struct fs_node node;
	char **names; /* owned; of /shard, the page in hand */
	size_t count;
	off_t base;                /* offset before names[0] */
	char last[KV_KEY_MAX + 1]; /* the last name before the page after this one */
	bool more;                 /* /shard: there may be another page */
	bool begun;                /* something was read */
};

static struct dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct dir *)(uintptr_t)fi->fh;
}

static void drop_names(struct dir *d)
{
	for (size_t i = 0; i < d->count; i++)
		free(d->names[i]);
	free(d->names);
	d->names = NULL;
	d->count = 0;
}

static void dir_end(struct fs_open *o)
{
	struct dir *d = (struct dir *)o;

	fs_open_remove(d->fs, o);
	drop_names(d);
	pthread_mutex_destroy(&d->mu);
	free(d);
}

/* Add a name, for which there is room. */
static bool add_name(struct dir *d, const char *name)
{
	d->names[d->count] = strdup(name);
	if (d->names[d->count] == NULL)
		return false;
	d->count++;
	return true;
}

/* Committed batches in order, then staged ones. */
static enum kv_rc add_batches(struct dir *d, struct core_shard *shard, struct kv_err *err)
{
	struct core_state state;
	struct core_staged *staged = NULL;
	size_t staged_count = 0;
	char name[FS_BATCH_FILE_LEN];
	bool ok;
	enum kv_rc rc = core_shard_state(shard, &state, err);

	if (rc != KV_OK)
		return rc;
	rc = core_staged_list(shard, &staged, &staged_count, err);
	d->names = calloc(state.batch_count + staged_count + 1, sizeof(char *));
	ok = d->names != NULL;
	for (size_t i = 0; ok && i < state.batch_count; i++)
		ok = add_name(d, fs_text_batch(state.batches[i]->lower, state.batches[i]->upper, name));
	for (size_t i = 0; ok && i < staged_count; i++)
		ok = add_name(d, staged[i].name);
	free(staged);
	core_state_fini(&state);
	return rc == KV_OK && !ok ? kv_fail_rc(err, KV_NOMEM) : rc;
}

static enum kv_rc add_writers(struct dir *d, struct core_shard *shard, struct kv_err *err)
{
	struct core_writer_state *writers;
	char name[CORE_ID_LEN];
	size_t count;
	bool ok;
	enum kv_rc rc = core_shard_writers(shard, &writers, &count, err);

	if (rc != KV_OK)
		return rc;
	d->names = calloc(count + 1, sizeof(char *));
	ok = d->names != NULL;
	for (size_t i = 0; ok && i < count; i++)
		ok = add_name(d, core_uuid_format('w', writers[i].id, name));
	free(writers);
	return ok ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static enum kv_rc add_readers(struct dir *d, struct core_shard *shard, struct kv_err *err)
{
	struct core_reading *readers;
	char name[CORE_ID_LEN];
	size_t count;
	bool ok;
	enum kv_rc rc = core_shard_readers(shard, &readers, &count, err);

	if (rc != KV_OK)
		return rc;
	d->names = calloc(count + 1, sizeof(char *));
	ok = d->names != NULL;
	for (size_t i = 0; ok && i < count; i++)
		ok = add_name(d, core_uuid_format('r', readers[i].id, name));
	free(readers);
	return ok ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static enum kv_rc add_holds(struct dir *d, struct core_shard *shard, struct kv_err *err)
{
	struct core_hold *holds;
	size_t count;
	bool ok;
	enum kv_rc rc = core_hold_list(shard, &holds, &count, err);

	if (rc != KV_OK)
		return rc;
	d->names = calloc(count + 1, sizeof(char *));
	ok = d->names != NULL;
	for (size_t i = 0; ok && i < count; i++)
		ok = add_name(d, holds[i].name);
	free(holds);
	return ok ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

/* The lists that a shard has; NULL: d is none. */
typedef enum kv_rc add_fn(struct dir *d, struct core_shard *shard, struct kv_err *err);

static add_fn *list_fn(enum fs_kind kind)
{
	if (kind == FS_BATCHES)
		return add_batches;
	if (kind == FS_WRITERS)
		return add_writers;
	if (kind == FS_READERS)
		return add_readers;
	return kind == FS_HOLDS ? add_holds : NULL;
}

/* batches/, writers/ and the like. */
static enum kv_rc list_of_shard(struct fs *fs, struct dir *d, struct kv_err *err)
{
	struct core_shard *shard;
	struct core_info info;
	enum kv_rc rc = fs_node_shard(fs, &d->node, &shard, &info, err);

	if (rc != KV_OK)
		return rc;
	rc = list_fn(d->node.kind)(d, shard, err);
	core_shard_close(shard);
	return rc;
}

static enum kv_rc list_names(struct fs *fs, struct dir *d, struct kv_err *err)
{
	struct core_name *names;
	size_t count;
	bool ok;
	enum kv_rc rc = core_name_list(fs->engine, &names, &count, err);

	if (rc != KV_OK)
		return rc;
	d->names = calloc(count + 1, sizeof(char *));
	ok = d->names != NULL;
	for (size_t i = 0; ok && i < count; i++)
		ok = add_name(d, names[i].name);
	free(names);
	return ok ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

/* The next page of /shard in place of the one in hand. */
static enum kv_rc next_page(struct fs *fs, struct dir *d, struct kv_err *err)
{
	struct kv_keys keys;
	enum kv_rc rc = core_shard_list(fs->engine, d->last, SHARDS_PAGE, &keys, err);

	if (rc != KV_OK)
		return rc;
	d->base += (off_t)d->count;
	drop_names(d);
	d->names = keys.keys;
	d->count = keys.count;
	d->more = keys.count != 0;
	if (keys.count != 0)
		snprintf(d->last, sizeof d->last, "%s", keys.keys[keys.count - 1]);
	return KV_OK;
}

/* Make the listing, or make it anew. */
static enum kv_rc start(struct fs *fs, struct dir *d, struct kv_err *err)
{
	size_t fixed;

	fs_fixed_of(d->node.kind, &fixed);
	drop_names(d);
	d->base = (off_t)fixed + 2;
	d->last[0] = '\0';
	d->more = false;
	if (list_fn(d->node.kind) != NULL)
		return list_of_shard(fs, d, err);
	if (d->node.kind == FS_NAMES)
		return list_names(fs, d, err);
	return d->node.kind == FS_SHARDS ? next_page(fs, d, err) : KV_OK;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct dir *d = calloc(1, sizeof *d);
	struct kv_err err;
	enum kv_rc rc;

	if (d == NULL) {
		fs_reply_rc(req, KV_NOMEM);
		return;
	}
	rc = fs_limits_enter(&fs->limits, fuse_req_ctx(req)->uid, &d->open.user, &err);
	if (rc != KV_OK) {
		free(d);
		fs_reply_rc(req, rc);
		return;
	}
	d->open.weight = 1;
	pthread_mutex_init(&d->mu, NULL);
	d->fs = fs;
	fs_open_add(fs, &d->open, dir_end);
	rc = fs_node_get(&fs->nodes, ino, &d->node) ? start(fs, d, &err) : KV_NOTFOUND;
	if (rc == KV_OK)
		rc = fs_limits_weigh(&fs->limits, d->open.user, d->count * NAME_COST, &d->open.weight, &err);
	fi->fh = (uintptr_t)d;
	if (rc == KV_OK && fs_reply_opened(req, fi))
		return;
	if (rc != KV_OK)
		fs_reply_rc(req, rc);
	dir_end(&d->open);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_end(&dir_of(fi)->open);
	fs_reply_done(req);
}

/* The entry at offset at + 1; NULL: there is none (in the page in hand). */
static const char *entry_at(const struct dir *d, off_t at, mode_t *type)
{
	size_t count;
	const struct fs_fixed *fixed = fs_fixed_of(d->node.kind, &count);

	*type = S_IFDIR;
	if (at < 2)
		return at == 0 ? "." : "..";
	if (at < 2 + (off_t)count) {
		*type = fixed[at - 2].mode & S_IFMT;
		return fixed[at - 2].name;
	}
	if (at < d->base || at >= d->base + (off_t)d->count)
		return NULL;
	if (d->node.kind != FS_SHARDS)
		*type = d->node.kind == FS_NAMES ? S_IFLNK : S_IFREG;
	return d->names[at - d->base];
}

/* Bring the page with offset at into hand. */
static enum kv_rc seek(struct fs *fs, struct dir *d, off_t at, struct kv_err *err)
{
	size_t fixed;
	enum kv_rc rc = KV_OK;

	fs_fixed_of(d->node.kind, &fixed);
	if ((at == 0 && d->begun) || (at >= (off_t)fixed + 2 && at < d->base))
		rc = start(fs, d, err);
	d->begun = true;
	while (rc == KV_OK && d->more && at >= d->base + (off_t)d->count)
		rc = next_page(fs, d, err);
	return rc;
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct dir *d = dir_of(fi);
	struct kv_err err;
	char *buf = malloc(size);
	size_t used = 0;
	enum kv_rc rc = buf != NULL ? KV_OK : KV_NOMEM;

	(void)ino;
	pthread_mutex_lock(&d->mu);
	while (rc == KV_OK) {
		struct stat st = {.st_ino = UINT32_MAX}; /* not known here; stat tells it */
		const char *name;
		size_t need;

		rc = seek(fs, d, offset, &err);
		name = rc == KV_OK ? entry_at(d, offset, &st.st_mode) : NULL;
		if (name == NULL)
			break;
		need = fuse_add_direntry(req, buf + used, size - used, name, &st, ++offset);
		if (need > size - used)
			break;
		used += need;
	}
	pthread_mutex_unlock(&d->mu);
	if (rc != KV_OK && used == 0)
		fs_reply_rc(req, rc);
	else
		fs_reply_listing(req, buf, used);
	free(buf);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fs_reply_done(req);
}

void fs_fill_dir_ops(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->releasedir = op_releasedir;
	ops->fsyncdir = op_fsyncdir;
}
