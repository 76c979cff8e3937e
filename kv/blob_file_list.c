/*
 * blob_file_list.c - the blobs in files, listed.
 *
 * Keys ascend: a directory is read whole, its entries sorted, and each of its directories walked in its
 * place. Within one directory, names sort as the keys below them do once a directory's name ends in its
 * slash: no name holds a slash and no blob shares its name with a directory, so two entries differ within
 * both.
 *
 * A kill between the removal of a last blob and that of its directory, or between the making of a directory
 * and the blob that comes to it, leaves an empty one. A listing that meets one removes it. It may be one that
 * a set has just made: that one holds `tree` until its blob is there, and then it is not empty (invariant 3).
 */
#include "kv/blob_file_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
	char name[KV_KEY_MAX + 2]; /* a directory's ends in '/' */
};

struct entries {
	struct entry *e;
	size_t count;
	bool empty; /* the directory is, whatever is wanted */
};

struct walk {
	struct kv_files *files;
	const char *prefix, *after;
	size_t limit;
	struct kv_blob_list *out;
	struct kv_err *err;
	char path[KV_KEY_MAX + 2]; /* of the directory walked, ends in '/'; "" at the top */
};

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* Whether path + name can hold, or is, a key that is asked for. */
static bool is_wanted(const struct walk *w, const char *name)
{
	char full[2 * (KV_KEY_MAX + 2)];
	int n = snprintf(full, sizeof(full), "%s%s", w->path, name);
	size_t len = (size_t)n;
	size_t prefix_len = strlen(w->prefix);
	bool is_dir = full[len - 1] == '/';

	if (len > KV_KEY_MAX)
		return false;
	if (!is_dir)
		return strncmp(full, w->prefix, prefix_len) == 0 && strcmp(full, w->after) > 0;
	/* All keys below begin with full. */
	if (strncmp(full, w->prefix, len < prefix_len ? len : prefix_len) != 0)
		return false;
	return strncmp(full, w->after, len) >= 0;
}

static int type_of(int dir, const struct dirent *d)
{
	struct stat st;

	if (d->d_type != DT_UNKNOWN)
		return d->d_type;
	if (fstatat(dir, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return DT_UNKNOWN;
	return S_ISDIR(st.st_mode) ? DT_DIR : S_ISREG(st.st_mode) ? DT_REG : DT_UNKNOWN;
}

static bool push_entry(struct entries *all, const struct entry *e)
{
	if ((all->count & (all->count - 1)) == 0) {
		struct entry *grown = reallocarray(all->e, all->count ? 2 * all->count : 1, sizeof(*grown));

		if (!grown)
			return false;
		all->e = grown;
	}
	all->e[all->count++] = *e;
	return true;
}

/* Add what d is if it is wanted. "." and "..", and what is not ours, are no keys. */
static enum kv_rc add_entry(const struct walk *w, int dir, const struct dirent *d, struct entries *all)
{
	struct entry e;
	int type = kv_blob_key_valid(d->d_name) ? type_of(dir, d) : DT_UNKNOWN;

	if (type != DT_DIR && type != DT_REG)
		return KV_OK;
	snprintf(e.name, sizeof(e.name), "%.*s%s", KV_KEY_MAX, d->d_name, type == DT_DIR ? "/" : "");
	if (is_wanted(w, e.name) && !push_entry(all, &e))
		return kv_fail_rc(w->err, KV_NOMEM);
	return KV_OK;
}

/* The entries of the directory w->path that are wanted, sorted. One that is gone has none. */
static enum kv_rc read_entries(const struct walk *w, struct entries *all)
{
	int fd = openat(w->files->data_fd, w->path[0] ? w->path : ".", KV_DIR_FLAGS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	enum kv_rc rc = KV_OK;
	int errnum = errno;

	all->empty = dir;
	for (bool more = dir; more && rc == KV_OK;) {
		errno = 0;

		const struct dirent *d = readdir(dir);

		errnum = errno;
		more = d;
		if (d && strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
			all->empty = false;
		if (d)
			rc = add_entry(w, fd, d, all);
	}
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	if (rc == KV_OK && errnum && !kv_files_absent(errnum))
		rc = kv_fail_errno(w->err, errnum, KV_IO, "the blobs in \"%s\" cannot be listed", w->path);
	if (rc == KV_OK && all->count)
		qsort(all->e, all->count, sizeof(*all->e), compare_entries);
	return rc;
}

static enum kv_rc take_blob(struct walk *w, const char *name)
{
	char key[2 * (KV_KEY_MAX + 2)];
	struct stat st;

	snprintf(key, sizeof(key), "%s%s", w->path, name);
	if (fstatat(w->files->data_fd, key, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		if (kv_files_absent(errno)) /* deleted meanwhile */
			return KV_OK;
		return kv_fail_errno(w->err, errno, KV_IO, "blob %s cannot be looked at", key);
	}
	if (!kv_blob_list_push(w->out, key, (uint64_t)st.st_size))
		return kv_fail_rc(w->err, KV_NOMEM);
	return KV_OK;
}

/* Recurses as deep as a key has slashes; no directory stays open meanwhile. */
static enum kv_rc walk_dir(struct walk *w)
{
	struct entries all = {0};
	size_t path_len = strlen(w->path);
	enum kv_rc rc = read_entries(w, &all);

	if (rc == KV_OK && all.empty && path_len != 0 && !w->files->read_only)
		kv_files_prune(w->files, w->path);
	for (size_t i = 0; rc == KV_OK && i < all.count && w->out->count < w->limit; i++) {
		const char *name = all.e[i].name;
		size_t len = strlen(name);

		if (name[len - 1] != '/') {
			rc = take_blob(w, name);
			continue;
		}
		memcpy(w->path + path_len, name, len + 1); /* fits: it is wanted */
		rc = walk_dir(w);
		w->path[path_len] = '\0';
	}
	free(all.e);
	return rc;
}

enum kv_rc kv_files_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			 struct kv_blob_list *out, struct kv_err *err)
{
	struct walk w = {.files = (struct kv_files *)b,
			 .prefix = prefix,
			 .after = after,
			 .limit = limit,
			 .out = out,
			 .err = err};
	const char *slash = strrchr(prefix, '/');

	if (slash) { /* begin in the directory that all keys share */
		size_t len = (size_t)(slash - prefix);

		memcpy(w.path, prefix, len);
		if (!kv_blob_key_valid(w.path)) /* no key begins so, and ".." leads elsewhere */
			return KV_OK;
		w.path[len] = '/';
	}

	enum kv_rc rc = walk_dir(&w);

	if (rc != KV_OK)
		kv_blob_list_free(out);
	return rc;
}
