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
 * are first needed and removed with their last blob; those that a crash left
 * empty, by the first listing that meets them (blob_file_list.c).
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
#include "kv/blob_file_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 256 << 10, TMP_NAME_LEN = 16 + 1 };
enum { SYNC_ONE = SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER };

static struct kv_files *of(struct kv_blobs *b)
{
	return (struct kv_files *)b;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* --- get ------------------------------------------------------------------------------------------------ */

bool kv_files_absent(int errnum)
{
	return errnum == ENOENT || errnum == ENOTDIR || errnum == EISDIR || errnum == ELOOP;
}

static enum kv_rc fail_get(struct kv_err *err, int errnum, const char *key)
{
	if (kv_files_absent(errnum))
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

/* The kernel tells a descriptor once that a page could not be written: who does not listen here is told by
 * fsync that all is well. */
static bool reach_device(int fd, off_t at, off_t len)
{
	return sync_file_range(fd, at, len, SYNC_ONE) == 0 || errno == ENOSYS || errno == EINVAL ||
	       errno == ESPIPE;
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
		if (len > PIECE && !reach_device(fd, (off_t)done, n))
			return false;
		done += (size_t)n;
	}
	return true;
}

/* A synced file in tmp/. On failure it is gone again. */
static enum kv_rc write_tmp(struct kv_files *f, const char *tmp, const char *key, const void *data,
			    size_t len, struct kv_err *err)
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

static int open_parent(const struct kv_files *f, const char *key)
{
	char path[KV_KEY_MAX + 1];

	parent_of(key, path);
	return openat(f->data_fd, path, KV_DIR_FLAGS);
}

/* Make directory path and sync its parent, or leave nothing. False: errno says why. */
static bool make_dir_locked(const struct kv_files *f, const char *path)
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

static bool make_parents_locked(const struct kv_files *f, const char *key)
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
static int place_locked(const struct kv_files *f, const char *tmp, const char *key, int *dir)
{
	const char *slash = strrchr(key, '/');

	close_fd(*dir);
	*dir = open_parent(f, key);
	if (*dir < 0 || renameat(f->tmp_fd, tmp, *dir, slash ? slash + 1 : key) != 0)
		return errno;
	return 0;
}

static int place(struct kv_files *f, const char *tmp, const char *key, int *dir)
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
	struct kv_files *f = of(b);
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

void kv_files_prune(struct kv_files *f, const char *key)
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
	struct kv_files *f = of(b);
	struct stat st;

	if (f->read_only)
		return kv_fail_rc(err, KV_READONLY);
	if (fstatat(f->data_fd, key, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		if (kv_files_absent(errno))
			return KV_OK;
		return fail_change(err, errno, "it cannot be looked at", key);
	}
	if (!S_ISREG(st.st_mode))
		return KV_OK;
	if (unlinkat(f->data_fd, key, 0) != 0) {
		if (kv_files_absent(errno)) /* another one was faster */
			return KV_OK;

		enum kv_rc rc = fail_change(err, errno, "it cannot be removed", key);

		return rc == KV_UNREACHABLE ? kv_wrap(err, KV_UNKNOWN, "done or not") : rc;
	}
	*existed = true;
	*size = (uint64_t)st.st_size;
	if (strchr(key, '/'))
		kv_files_prune(f, key);
	return KV_OK;
}

/* --- open and close ------------------------------------------------------------------------------------- */

static void file_close(struct kv_blobs *b)
{
	struct kv_files *f = of(b);

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
	.list = kv_files_list,
	.close = file_close,
};

/* Empty tmp/, after what invariant 4 asks for. False: errno says why. */
static bool empty_tmp(int tmp_fd)
{
	int fd = openat(tmp_fd, ".", KV_DIR_FLAGS);
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
static bool open_dirs(struct kv_files *f, int root)
{
	if (f->read_only) {
		f->data_fd = openat(root, "data", KV_DIR_FLAGS);
		return f->data_fd >= 0;
	}
	if ((mkdirat(root, "data", 0700) != 0 && errno != EEXIST) ||
	    (mkdirat(root, "tmp", 0700) != 0 && errno != EEXIST))
		return false;
	f->data_fd = openat(root, "data", KV_DIR_FLAGS);
	f->tmp_fd = openat(root, "tmp", KV_DIR_FLAGS);
	return f->data_fd >= 0 && f->tmp_fd >= 0 && fsync(root) == 0 && empty_tmp(f->tmp_fd);
}

enum kv_rc kv_blob_file_open(const char *dir, bool read_only, struct kv_blobs **out, struct kv_err *err)
{
	*out = NULL;

	int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (root < 0)
		return kv_fail_errno(err, errno, KV_IO, "the blobs in %s cannot be opened", dir);

	struct kv_files *f = calloc(1, sizeof(*f));

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
