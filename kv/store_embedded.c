/*
 * store_embedded.c - a store in one directory of the local file system, with one owner.
 *
 * The directory:
 *
 *   FORMAT       "shardfs-store 1\n": what this is; written last when it is made
 *   FORMAT.tmp   FORMAT on its way; left behind only by a crash
 *   OWNER        locked by the owner (OFD lock on the whole file) for as long as
 *                it has the store open; its text, "host=H pid=P purpose=W\n", is
 *                for the one who is refused
 *   consensus/   the RocksDB database: versions and small blobs; see rocks.c
 *   blobs/       large blobs; see blob_file.c
 *
 * How it works: kv_store_commit puts the blobs it brings (up to SMALL_MAX bytes
 * each) into the same RocksDB write as the version. kv_blob_set makes files.
 * The blobs of the store are a view of both.
 *
 * Invariants:
 * 1. Nothing but OWNER is written without holding the lock on OWNER.
 * 2. FORMAT is there iff the store was made completely. So a directory without
 *    it is made from the beginning, and one with it must hold a database and
 *    blobs: lost ones are reported, not replaced by empty ones.
 * 3. OWNER is the first file made, and synced before any other is. Without FORMAT and OWNER only an empty
 *    directory (lost+found does not count) is taken.
 * 4. A blob may lie in both places, after a commit with an unknown outcome:
 *    then with the same bytes. It is listed once and deleted from both.
 */
#include "kv/blob_impl.h"
#include "kv/rocks.h"
#include "kv/store_impl.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FORMAT_VERSION = 1, OWNER_TEXT_MAX = 512 };

static const size_t small_max = (size_t)256 << 10;
static const char format_word[] = "shardfs-store ";

struct both_blobs {
	struct kv_blobs base;
	struct kv_rocks *rocks;
	struct kv_blobs *small; /* of rocks */
	struct kv_blobs *large;
};

struct embedded {
	struct kv_store base;
	struct both_blobs blobs;
	struct kv_rocks *rocks;
	int dir_fd;
	int owner_fd; /* -1 if read_only */
};

static struct both_blobs *both(struct kv_blobs *b)
{
	return (struct both_blobs *)b;
}

static struct embedded *of(struct kv_store *s)
{
	return (struct embedded *)s;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* --- the blobs of both places --------------------------------------------------------------------------- */

static enum kv_rc both_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			   size_t *got, struct kv_err *err)
{
	struct kv_err first = {0};
	enum kv_rc rc = kv_blob_get(both(b)->small, key, offset, buf, len, got, &first);

	if (rc == KV_NOTFOUND)
		return kv_blob_get(both(b)->large, key, offset, buf, len, got, err);
	if (rc != KV_OK && err)
		*err = first;
	return rc;
}

static enum kv_rc both_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			   struct kv_err *err)
{
	if (!kv_rocks_room(both(b)->rocks, len))
		return kv_fail(err, KV_NOSPACE, "the device is full: blob %s of %zu bytes does not fit", key,
			       len);
	return kv_blob_set(both(b)->large, key, data, len, err);
}

static enum kv_rc both_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			      struct kv_err *err)
{
	bool in_small = false, in_large = false;
	uint64_t small_size = 0, large_size = 0;
	enum kv_rc rc = kv_blob_delete(both(b)->small, key, &in_small, &small_size, err);

	if (rc != KV_OK)
		return rc;
	rc = kv_blob_delete(both(b)->large, key, &in_large, &large_size, err);
	if (rc != KV_OK) /* "nothing was done" is true of this half only */
		return in_small ? kv_wrap(err, KV_UNKNOWN, "deleted in one place of two") : rc;
	*existed = in_small || in_large;
	*size = in_small ? small_size : large_size;
	return KV_OK;
}

/* Invariant 4: an entry in both is taken once. */
static enum kv_rc merge(const struct kv_blob_list *a, const struct kv_blob_list *b, size_t limit,
			struct kv_blob_list *out, struct kv_err *err)
{
	size_t i = 0, j = 0;

	while (out->count < limit && (i < a->count || j < b->count)) {
		int order = i == a->count ? 1 : j == b->count ? -1 : strcmp(a->e[i].key, b->e[j].key);
		const struct kv_blob_entry *e = order <= 0 ? &a->e[i] : &b->e[j];

		if (!kv_blob_list_push(out, e->key, e->size)) {
			kv_blob_list_free(out);
			return kv_fail_rc(err, KV_NOMEM);
		}
		i += order <= 0;
		j += order >= 0;
	}
	return KV_OK;
}

static enum kv_rc both_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			    struct kv_blob_list *out, struct kv_err *err)
{
	struct kv_blob_list small = {0}, large = {0};
	enum kv_rc rc = kv_blob_list(both(b)->small, prefix, after, limit, &small, err);

	if (rc == KV_OK)
		rc = kv_blob_list(both(b)->large, prefix, after, limit, &large, err);
	if (rc == KV_OK)
		rc = merge(&small, &large, limit, out, err);
	kv_blob_list_free(&small);
	kv_blob_list_free(&large);
	return rc;
}

/* The view belongs to its store. */
static void both_close(struct kv_blobs *b)
{
	(void)b;
}

static const struct kv_blob_ops both_ops = {
	.name = "embedded",
	.get = both_get,
	.set = both_set,
	.delete = both_delete,
	.list = both_list,
	.close = both_close,
};

/* --- the store ------------------------------------------------------------------------------------------ */

/* Blobs too large for RocksDB become files first. */
static enum kv_rc set_large(struct embedded *s, const struct kv_run *run)
{
	for (size_t i = 0; i < run->blob_count; i++) {
		const struct kv_blob_put *blob = &run->blobs[i];

		if (blob->len <= small_max)
			continue;

		enum kv_rc rc = kv_blob_set(s->base.blobs, blob->key, blob->data, blob->len, run->err);

		if (rc == KV_UNKNOWN)
			rc = KV_UNREACHABLE; /* of the commit: it did not begin */
		if (rc != KV_OK)
			return kv_wrap(run->err, rc, "blob %s of a commit", blob->key);
	}
	return KV_OK;
}

static void embedded_commit(struct kv_store *store, struct kv_run *runs, size_t count, enum kv_sync sync)
{
	for (size_t i = 0; i < count; i++)
		runs[i].rc = set_large(of(store), &runs[i]);
	kv_rocks_commit(of(store)->rocks, runs, count, small_max, sync);
}

static enum kv_rc embedded_usage(struct kv_store *store, struct kv_usage *out, struct kv_err *err)
{
	struct statvfs vfs;

	if (fstatvfs(of(store)->dir_fd, &vfs) != 0)
		return kv_fail(err, KV_IO, "the device cannot be asked for its space: %s",
			       strerrordesc_np(errno));
	out->total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
	out->free_bytes = (uint64_t)vfs.f_bfree * vfs.f_frsize;
	out->avail_bytes = kv_rocks_avail(&vfs);
	return KV_OK;
}

static void embedded_close(struct kv_store *store)
{
	struct embedded *s = of(store);

	kv_blobs_close(s->blobs.large);
	kv_rocks_close(s->rocks);
	/* Last: now another may have it. The text would name an owner that is no more. */
	if (s->owner_fd >= 0 && ftruncate(s->owner_fd, 0) != 0) {
		/* It is read only by one who is refused, when another has written its own. */
	}
	close_fd(s->owner_fd);
	close_fd(s->dir_fd);
	free(s);
}

static enum kv_rc embedded_tidy(struct kv_store *store, struct kv_err *err)
{
	return kv_rocks_tidy(of(store)->rocks, err);
}

static enum kv_rc embedded_verify(struct kv_store *store, kv_damage_fn *found, void *arg, struct kv_err *err)
{
	return kv_rocks_verify(of(store)->rocks, found, arg, err);
}

static void embedded_keep_still(struct kv_store *store, bool still)
{
	kv_rocks_keep_still(of(store)->rocks, still);
}

static const struct kv_store_ops embedded_ops = {
	.name = "embedded",
	.commit = embedded_commit,
	.tidy = embedded_tidy,
	.usage = embedded_usage,
	.verify = embedded_verify,
	.keep_still = embedded_keep_still,
	.close = embedded_close,
};

/* --- what is in the directory --------------------------------------------------------------------------- */

enum content { EMPTY, HALF_MADE, COMPLETE };

/* Up to size - 1 bytes of a file, NUL-terminated. -1: errno says why. */
static ssize_t read_text(int dir_fd, const char *name, char *text, size_t size)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	text[0] = '\0';
	if (fd < 0)
		return -1;

	ssize_t n = pread(fd, text, size - 1, 0);
	int errnum = errno;

	close(fd);
	errno = errnum;
	if (n >= 0)
		text[n] = '\0';
	return n;
}

static enum kv_rc check_format(const char *dir, const char *text, struct kv_err *err)
{
	const size_t word = sizeof(format_word) - 1;
	const char *digits = text + word;
	size_t n = strncmp(text, format_word, word) == 0 ? strspn(digits, "0123456789") : 0;

	if (n == 0 || n > 9 || digits[0] == '0' || strcmp(digits + n, "\n") != 0)
		return kv_fail(err, KV_CORRUPT, "%s/FORMAT is not that of a shardfs store", dir);
	if (strtoul(digits, NULL, 10) > FORMAT_VERSION)
		return kv_fail(err, KV_NEWER, "%s/FORMAT says store format %.*s, and this program knows %d",
			       dir, (int)n, digits, FORMAT_VERSION);
	return KV_OK;
}

static bool is_one_of(const char *name, const char *const *names)
{
	for (; *names; names++) {
		if (strcmp(name, *names) == 0)
			return true;
	}
	return false;
}

/* What a directory without FORMAT is: invariant 3. */
static enum kv_rc inspect_unfinished(int dir_fd, const char *dir, enum content *out, struct kv_err *err)
{
	static const char *const nothing[] = {".", "..", "lost+found", NULL};
	static const char *const ours[] = {"FORMAT.tmp", "OWNER", "consensus", "blobs", NULL};
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	bool foreign = false, owned = false, any = false;

	if (!d) {
		int errnum = errno;

		close_fd(fd);
		return kv_fail_errno(err, errnum, KV_IO, "%s cannot be listed", dir);
	}
	for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
		if (is_one_of(e->d_name, nothing))
			continue;
		any = true;
		owned |= strcmp(e->d_name, "OWNER") == 0;
		foreign |= !is_one_of(e->d_name, ours);
	}
	closedir(d);
	if (foreign || (any && !owned))
		return kv_fail(err, KV_NOTFOUND, "%s holds no shardfs store and is not empty", dir);
	*out = any ? HALF_MADE : EMPTY;
	return KV_OK;
}

static enum kv_rc inspect(int dir_fd, const char *dir, enum content *out, struct kv_err *err)
{
	static const char *const must[] = {"consensus/CURRENT", "blobs/data"};
	char text[64];
	struct stat st;

	if (read_text(dir_fd, "FORMAT", text, sizeof(text)) < 0) {
		if (errno == ENOENT)
			return inspect_unfinished(dir_fd, dir, out, err);
		return kv_fail(err, KV_CORRUPT, "%s/FORMAT cannot be read: %s", dir, strerrordesc_np(errno));
	}

	enum kv_rc rc = check_format(dir, text, err);

	if (rc != KV_OK)
		return rc;
	for (size_t i = 0; i < sizeof(must) / sizeof(must[0]); i++)
		if (fstatat(dir_fd, must[i], &st, 0) != 0)
			return kv_fail(err, KV_CORRUPT, "the store %s has lost its %s: %s", dir, must[i],
				       strerrordesc_np(errno));
	*out = COMPLETE;
	return KV_OK;
}

/* --- owning --------------------------------------------------------------------------------------------- */

static enum kv_rc refused(int dir_fd, const char *dir, struct kv_err *err)
{
	char text[OWNER_TEXT_MAX];

	if (read_text(dir_fd, "OWNER", text, sizeof(text)) <= 0)
		return kv_fail(err, KV_BUSY, "the store %s has another owner", dir);
	text[strcspn(text, "\n")] = '\0';
	kv_fail(err, KV_BUSY, "the store %s has another owner: %s", dir, text);
	kv_detail(err, "%s", text);
	return KV_BUSY;
}

/* Write who we are; what stood there named an owner before us. */
static bool sign(int fd, const char *purpose)
{
	char host[HOST_NAME_MAX + 1];
	char text[OWNER_TEXT_MAX];

	if (gethostname(host, sizeof(host)) != 0)
		snprintf(host, sizeof(host), "?");

	int n = snprintf(text, sizeof(text) - 1, "host=%s pid=%ld purpose=%s", host, (long)getpid(), purpose);
	size_t len = n < (int)sizeof(text) - 1 ? (size_t)n : sizeof(text) - 2;

	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < 0x20)
			text[i] = ' ';
	}
	text[len++] = '\n';
	return ftruncate(fd, 0) == 0 && pwrite(fd, text, len, 0) == (ssize_t)len;
}

static enum kv_rc own(struct embedded *s, const char *dir, const char *purpose, struct kv_err *err)
{
	const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	s->owner_fd = openat(s->dir_fd, "OWNER", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->owner_fd < 0)
		return kv_fail_errno(err, errno, KV_IO, "%s/OWNER cannot be opened", dir);
	if (fcntl(s->owner_fd, F_OFD_SETLK, &whole) != 0) {
		int errnum = errno;

		close(s->owner_fd);
		s->owner_fd = -1; /* closing must not wipe the text of another */
		if (errnum == EAGAIN || errnum == EACCES)
			return refused(s->dir_fd, dir, err);
		return kv_fail_errno(err, errnum, KV_IO, "%s/OWNER cannot be locked", dir);
	}
	if (!sign(s->owner_fd, purpose))
		return kv_fail_errno(err, errno, KV_IO, "%s/OWNER cannot be written", dir);
	return KV_OK;
}

/* --- making and opening --------------------------------------------------------------------------------- */

static enum kv_rc open_dir(struct embedded *s, const char *dir, bool read_only, struct kv_err *err)
{
	if (!read_only && mkdir(dir, 0700) != 0 && errno != EEXIST)
		return kv_fail_errno(err, errno, KV_IO, "the directory %s cannot be made", dir);
	s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd >= 0)
		return KV_OK;
	if (errno == ENOTDIR)
		return kv_fail(err, KV_CORRUPT, "%s is no directory", dir);
	return kv_fail_errno(err, errno, KV_IO, "the directory %s cannot be opened", dir);
}

/* Make the directory itself last. A parent we may not read cannot be synced. */
static bool sync_parent(int dir_fd)
{
	int fd = openat(dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errno == EACCES;

	bool ok = fsync(fd) == 0;

	close(fd);
	return ok;
}

/* Invariant 2: all else is on stable storage before FORMAT gets its name. False: errno says why. */
static bool finish(int dir_fd)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%s%d\n", format_word, FORMAT_VERSION);
	int fd = openat(dir_fd, "FORMAT.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (fd < 0)
		return false;

	bool ok = write(fd, text, (size_t)n) == n && fsync(fd) == 0;

	close(fd);
	return ok && sync_parent(dir_fd) && fsync(dir_fd) == 0 &&
	       renameat(dir_fd, "FORMAT.tmp", dir_fd, "FORMAT") == 0 && fsync(dir_fd) == 0;
}

static enum kv_rc open_parts(struct embedded *s, const char *dir, bool read_only, struct kv_err *err)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/consensus", dir) >= (int)sizeof(path))
		return kv_fail(err, KV_IO, "the path %.40s... is too long", dir);

	enum kv_rc rc = kv_rocks_open(path, read_only, &s->rocks, err);

	if (rc != KV_OK)
		return rc;
	snprintf(path, sizeof(path), "%s/blobs", dir); /* shorter */
	rc = kv_blob_file_open(path, read_only, &s->blobs.large, err);
	if (rc != KV_OK)
		return rc;
	s->blobs.base.ops = &both_ops;
	s->blobs.rocks = s->rocks;
	s->blobs.small = kv_rocks_blobs(s->rocks);
	s->base.consensus = kv_rocks_consensus(s->rocks);
	s->base.blobs = &s->blobs.base;
	return KV_OK;
}

static enum kv_rc open_reader(struct embedded *s, const char *dir, struct kv_err *err)
{
	enum content content;
	enum kv_rc rc = inspect(s->dir_fd, dir, &content, err);

	if (rc != KV_OK)
		return rc;
	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): given, as nothing failed */
	if (content != COMPLETE)
		return kv_fail(err, KV_NOTFOUND, "there is no store in %s", dir);
	return open_parts(s, dir, true, err);
}

static enum kv_rc open_owner(struct embedded *s, const char *dir, const char *purpose, struct kv_err *err)
{
	enum content content;
	/* First look without the lock, so as to leave no OWNER in a directory that is not ours. */
	enum kv_rc rc = inspect(s->dir_fd, dir, &content, err);

	if (rc == KV_OK)
		rc = own(s, dir, purpose, err);
	if (rc == KV_OK)
		rc = inspect(s->dir_fd, dir, &content, err);
	if (rc != KV_OK)
		return rc;
	if (content != COMPLETE && fsync(s->dir_fd) != 0) /* invariant 3, after a power cut too */
		return kv_fail_errno(err, errno, KV_IO, "%s cannot be synced", dir);
	if (mkdirat(s->dir_fd, "blobs", 0700) != 0 && errno != EEXIST)
		return kv_fail_errno(err, errno, KV_IO, "%s/blobs cannot be made", dir);
	rc = open_parts(s, dir, false, err);
	if (rc == KV_OK && content != COMPLETE && !finish(s->dir_fd))
		rc = kv_fail_errno(err, errno, KV_IO, "%s/FORMAT cannot be written", dir);
	return rc;
}

enum kv_rc kv_store_embedded_open(const char *dir, bool read_only, const char *purpose, struct kv_store **out,
				  struct kv_err *err)
{
	assert(dir && purpose && out);
	*out = NULL;

	struct embedded *s = calloc(1, sizeof(*s));

	if (!s)
		return kv_fail_rc(err, KV_NOMEM);
	s->base.ops = &embedded_ops;
	s->base.traits = (struct kv_store_traits){
		.sole_owner = !read_only, .read_only = read_only, .commits_runs = true};
	s->dir_fd = -1;
	s->owner_fd = -1;

	enum kv_rc rc = open_dir(s, dir, read_only, err);

	if (rc == KV_OK)
		rc = read_only ? open_reader(s, dir, err) : open_owner(s, dir, purpose, err);
	if (rc != KV_OK) {
		kv_store_close(&s->base);
		return rc;
	}
	*out = &s->base;
	return KV_OK;
}
