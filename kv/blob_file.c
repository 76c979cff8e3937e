/*
 * blob_file.c - blobs as files.
 *
 * Files under the directory given at open:
 *
 *   data/<key>       a blob; each slash of its key is a directory
 *   tmp/<16 hex>     a blob on its way; left behind only by a crash
 *
 * How it works: a blob is written to tmp/, synced and renamed into place; then
 * the directory it came to is synced. Directories of keys are made when they
 * are first needed and removed with their last blob.
 *
 * Invariants:
 * 1. A file in data/ is whole and its bytes are on stable storage.
 * 2. While `tree` is held shared, every directory in data/ is durable: whoever
 *    makes one holds `tree` exclusively until its parent is synced. Without
 *    this another set could rely on a directory that a power cut undoes. The
 *    sync under the lock is rare: once for each directory.
 * 3. Directories are removed with `tree` held exclusively, so between finding
 *    the directory and renaming into it (shared, or exclusive where it must be
 *    made) it cannot vanish.
 * 4. A set that has not ended has its file in tmp/. So where tmp/ is empty at
 *    open, every directory was synced after it was made; where it is not, a
 *    crash may have come in between, and the file system is synced as a whole.
 *
 * One process at a time may have it open for writing; its caller sees to that.
 */
#include "kv/blob_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct files {
	struct kv_blobs base;
	pthread_rwlock_t tree; /* the directories in data/: invariants 2 and 3 */
	_Atomic uint64_t next_tmp;

	/* constant while open */
	bool read_only;
	int data_fd;
	int tmp_fd; /* -1 if read_only */
};

enum { PIECE = 256 << 10, TMP_NAME_LEN = 16 + 1 };
enum { SYNC_ONE = SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER };
enum { DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW };

static struct files *of(struct kv_blobs *b)
{
	return (struct files *)b;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* --- get ------------------------------------------------------------------------------------------------ */

/* Not there, or it is the directory of other keys: both are "no such blob". */
static bool is_absent(int errnum)
{
	return errnum == ENOENT || errnum == ENOTDIR || errnum == EISDIR || errnum == ELOOP;
}

static enum kv_rc fail_get(struct kv_err *err, int errnum, const char *key)
{
	if (is_absent(errnum))
		return kv_fail(err, KV_NOTFOUND, "no blob %s", key);
	return kv_fail_errno(err, errnum, KV_IO, "blob %s cannot be read", key);
}

static enum kv_rc file_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			   size_t *got, struct kv_err *err)
{
	int fd = openat(of(b)->data_fd, key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	size_t done = 0;
	enum kv_rc rc = KV_OK;

	if (fd < 0)
		return fail_get(err, errno, key);
	if (fstat(fd, &st) != 0)
		rc = fail_get(err, errno, key);
	else if (!S_ISREG(st.st_mode))
		rc = fail_get(err, EISDIR, key);
	else if (offset >= (uint64_t)st.st_size)
		len = 0;
	while (rc == KV_OK && done < len) {
		ssize_t n = pread(fd, (uint8_t *)buf + done, len - done, (off_t)(offset + done));

		if (n == 0)
			break;
		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			rc = fail_get(err, errno, key);
	}
	close(fd);
	if (rc == KV_OK)
		*got = done;
	return rc;
}

/* --- set ------------------------------------------------------------------------------------------------ */

/* A change that failed before anything could be seen of it. */
static enum kv_rc fail_change(struct kv_err *err, int errnum, const char *what, const char *key)
{
	/* The directories are ours and were open: one that is gone is a store that does not answer. */
	if (errnum == ENOENT)
		return kv_fail(err, KV_UNREACHABLE, "blob %s: %s: the directory is gone", key, what);
	return kv_fail_errno(err, errnum, KV_UNREACHABLE, "blob %s: %s", key, what);
}

/* In pieces that reach the device one by one: a sync of somebody else's waits behind one at most. */
static bool write_all(int fd, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const uint8_t *)data + done, len - done < PIECE ? len - done : PIECE);

		if (n < 0 && errno != EINTR)
			return false;
		if (n <= 0)
			continue;
		if (len > PIECE)
			(void)sync_file_range(fd, (off_t)done, n, SYNC_ONE);
		done += (size_t)n;
	}
	return true;
}

/* A synced file in tmp/. On failure it is gone again. */
static enum kv_rc write_tmp(struct files *f, const char *tmp, const char *key, const void *data, size_t len,
			    struct kv_err *err)
{
	int fd = openat(f->tmp_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int errnum = 0;

	if (fd < 0)
		return fail_change(err, errno, "its file cannot be made", key);
	if (!write_all(fd, data, len) || fsync(fd) != 0)
		errnum = errno;
	if (close(fd) != 0 && !errnum)
		errnum = errno;
	if (!errnum)
		return KV_OK;
	unlinkat(f->tmp_fd, tmp, 0);
	return fail_change(err, errnum, "it cannot be written", key);
}

/* The directory part of key in path: "." if it has none. */
static void parent_of(const char *key, char path[KV_KEY_MAX + 1])
{
	const char *slash = strrchr(key, '/');
	size_t len = slash ? (size_t)(slash - key) : 1;

	memcpy(path, slash ? key : ".", len);
	path[len] = '\0';
}

static int open_parent(const struct files *f, const char *key)
{
	char path[KV_KEY_MAX + 1];

	parent_of(key, path);
	return openat(f->data_fd, path, DIR_FLAGS);
}

/* Make directory path and sync its parent, or leave nothing. False: errno says why. */
static bool make_dir_locked(const struct files *f, const char *path)
{
	if (mkdirat(f->data_fd, path, 0700) != 0)
		return errno == EEXIST;

	int fd = open_parent(f, path);

	if (fd >= 0 && fsync(fd) == 0) {
		close(fd);
		return true;
	}

	int errnum = errno;

	close_fd(fd);
	unlinkat(f->data_fd, path, AT_REMOVEDIR);
	errno = errnum;
	return false;
}

static bool make_parents_locked(const struct files *f, const char *key)
{
	for (const char *slash = strchr(key, '/'); slash; slash = strchr(slash + 1, '/')) {
		char path[KV_KEY_MAX + 1];
		size_t len = (size_t)(slash - key);

		memcpy(path, key, len);
		path[len] = '\0';
		if (!make_dir_locked(f, path))
			return false;
	}
	return true;
}

/* Rename tmp to its place in *dir (given, also on failure; -1: none). 0 or an errno: nothing was done. */
static int place_locked(const struct files *f, const char *tmp, const char *key, int *dir)
{
	const char *slash = strrchr(key, '/');

	close_fd(*dir);
	*dir = open_parent(f, key);
	if (*dir < 0 || renameat(f->tmp_fd, tmp, *dir, slash ? slash + 1 : key) != 0)
		return errno;
	return 0;
}

static int place(struct files *f, const char *tmp, const char *key, int *dir)
{
	pthread_rwlock_rdlock(&f->tree);

	int errnum = place_locked(f, tmp, key, dir);

	pthread_rwlock_unlock(&f->tree);
	if (errnum != ENOENT)
		return errnum;

	pthread_rwlock_wrlock(&f->tree);
	errnum = make_parents_locked(f, key) ? place_locked(f, tmp, key, dir) : errno;
	pthread_rwlock_unlock(&f->tree);
	return errnum;
}

static enum kv_rc file_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			   struct kv_err *err)
{
	struct files *f = of(b);
	char tmp[TMP_NAME_LEN];
	int dir = -1;

	if (f->read_only)
		return kv_fail_rc(err, KV_READONLY);
	snprintf(tmp, sizeof(tmp), "%016llx", (unsigned long long)atomic_fetch_add(&f->next_tmp, 1));

	enum kv_rc rc = write_tmp(f, tmp, key, data, len, err);

	if (rc != KV_OK)
		return rc;

	int errnum = place(f, tmp, key, &dir);

	if (errnum) {
		unlinkat(f->tmp_fd, tmp, 0);
		rc = fail_change(err, errnum, "it cannot be moved to its place", key);
		if (errnum == EIO) /* a device may fail halfway; every other reason comes before the work */
			rc = kv_wrap(err, KV_UNKNOWN, "done or not");
	} else if (fsync(dir) != 0) {
		rc = kv_fail(err, KV_UNKNOWN, "blob %s: its directory cannot be synced: %s", key,
			     strerrordesc_np(errno));
	}
	close_fd(dir);
	return rc;
}

/* --- delete --------------------------------------------------------------------------------------------- */

/* Remove the directories above key as far as they are empty. Failing is harmless: an empty directory is no
 * blob, and the next delete in it tries again. */
static void remove_parents(struct files *f, const char *key)
{
	char path[KV_KEY_MAX + 1];

	pthread_rwlock_wrlock(&f->tree);
	for (parent_of(key, path); strcmp(path, ".") != 0;) {
		char child[KV_KEY_MAX + 1];

		if (unlinkat(f->data_fd, path, AT_REMOVEDIR) != 0)
			break;
		memcpy(child, path, sizeof(child));
		parent_of(child, path);
	}
	pthread_rwlock_unlock(&f->tree);
}

static enum kv_rc file_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			      struct kv_err *err)
{
	struct files *f = of(b);
	struct stat st;

	if (f->read_only)
		return kv_fail_rc(err, KV_READONLY);
	if (fstatat(f->data_fd, key, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		if (is_absent(errno))
			return KV_OK;
		return fail_change(err, errno, "it cannot be looked at", key);
	}
	if (!S_ISREG(st.st_mode))
		return KV_OK;
	if (unlinkat(f->data_fd, key, 0) != 0) {
		if (is_absent(errno)) /* another one was faster */
			return KV_OK;

		enum kv_rc rc = fail_change(err, errno, "it cannot be removed", key);

		return rc == KV_UNREACHABLE ? kv_wrap(err, KV_UNKNOWN, "done or not") : rc;
	}
	*existed = true;
	*size = (uint64_t)st.st_size;
	if (strchr(key, '/'))
		remove_parents(f, key);
	return KV_OK;
}

/* --- list ----------------------------------------------------------------------------------------------- */

/*
 * Within one directory, names sort as the keys below them do once a directory's name ends in its slash: no
 * name holds a slash and no blob shares its name with a directory, so two entries differ within both.
 */
struct entry {
	char name[KV_KEY_MAX + 2]; /* a directory's ends in '/' */
};

struct entries {
	struct entry *e;
	size_t count;
};

struct walk {
	const struct files *files;
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
	int fd = openat(w->files->data_fd, w->path[0] ? w->path : ".", DIR_FLAGS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	enum kv_rc rc = KV_OK;
	int errnum = errno;

	for (bool more = dir; more && rc == KV_OK;) {
		errno = 0;

		const struct dirent *d = readdir(dir);

		errnum = errno;
		more = d;
		if (d)
			rc = add_entry(w, fd, d, all);
	}
	if (dir)
		closedir(dir);
	else
		close_fd(fd);
	if (rc == KV_OK && errnum && !is_absent(errnum))
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
		if (is_absent(errno)) /* deleted meanwhile */
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

static enum kv_rc file_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			    struct kv_blob_list *out, struct kv_err *err)
{
	struct walk w = {
		.files = of(b), .prefix = prefix, .after = after, .limit = limit, .out = out, .err = err};
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

/* --- open and close ------------------------------------------------------------------------------------- */

static void file_close(struct kv_blobs *b)
{
	struct files *f = of(b);

	close_fd(f->data_fd);
	close_fd(f->tmp_fd);
	pthread_rwlock_destroy(&f->tree);
	free(f);
}

static const struct kv_blob_ops file_ops = {
	.name = "file",
	.get = file_get,
	.set = file_set,
	.delete = file_delete,
	.list = file_list,
	.close = file_close,
};

/* Empty tmp/, after what invariant 4 asks for. False: errno says why. */
static bool empty_tmp(int tmp_fd)
{
	int fd = openat(tmp_fd, ".", DIR_FLAGS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;
	bool synced = false;

	if (!dir) {
		close_fd(fd);
		return false;
	}
	errno = 0;
	for (d = readdir(dir); d; d = readdir(dir)) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (!synced && syncfs(fd) != 0)
			break;
		synced = true;
		if (unlinkat(fd, d->d_name, 0) != 0)
			break;
		errno = 0;
	}

	int errnum = errno;

	closedir(dir);
	errno = errnum;
	return !errnum;
}

/* False: errno says why. */
static bool open_dirs(struct files *f, int root)
{
	if (f->read_only) {
		f->data_fd = openat(root, "data", DIR_FLAGS);
		return f->data_fd >= 0;
	}
	if ((mkdirat(root, "data", 0700) != 0 && errno != EEXIST) ||
	    (mkdirat(root, "tmp", 0700) != 0 && errno != EEXIST))
		return false;
	f->data_fd = openat(root, "data", DIR_FLAGS);
	f->tmp_fd = openat(root, "tmp", DIR_FLAGS);
	return f->data_fd >= 0 && f->tmp_fd >= 0 && fsync(root) == 0 && empty_tmp(f->tmp_fd);
}

enum kv_rc kv_blob_file_open(const char *dir, bool read_only, struct kv_blobs **out, struct kv_err *err)
{
	*out = NULL;

	int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (root < 0)
		return kv_fail_errno(err, errno, KV_IO, "the blobs in %s cannot be opened", dir);

	struct files *f = calloc(1, sizeof(*f));

	if (!f) {
		close(root);
		return kv_fail_rc(err, KV_NOMEM);
	}
	f->base.ops = &file_ops;
	f->read_only = read_only;
	f->data_fd = -1;
	f->tmp_fd = -1;
	pthread_rwlock_init(&f->tree, NULL);

	enum kv_rc rc = KV_OK;

	if (!open_dirs(f, root))
		rc = kv_fail_errno(err, errno, KV_IO, "the blobs in %s cannot be opened", dir);
	close(root);
	if (rc != KV_OK) {
		file_close(&f->base);
		return rc;
	}
	*out = &f->base;
	return KV_OK;
}
