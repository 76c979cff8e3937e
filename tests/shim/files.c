/*
 * files.c - which descriptor is which file of SHIM_DIR.
 *
 * How it works: a table by descriptor of pointers that are never freed, so that a call may look while another
 * closes. A path is made absolute by the kernel's name for its directory, and cleaned of "." and "..".
 */
#include "tests/shim/shim_impl.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FDS = 1 << 16 };

static _Atomic(struct shim_file *) table[FDS];
static _Atomic bool fuse[FDS];
static _Atomic uint64_t handles;
static char root[PATH_MAX];
static size_t root_len;

/* The directory of path without links, and its last component. */
static bool resolve(const char *path, char out[PATH_MAX])
{
	char dir[PATH_MAX], real[PATH_MAX];
	const char *slash = strrchr(path, '/');

	if (!slash || slash == path || strlen(path) >= PATH_MAX)
		return false;
	memcpy(dir, path, (size_t)(slash - path));
	dir[slash - path] = '\0';
	return realpath(dir, real) && snprintf(out, PATH_MAX, "%s%s", real, slash) < PATH_MAX;
}

__attribute__((constructor)) static void load(void)
{
	const char *dir = getenv("SHIM_DIR");

	if (!dir)
		return;
	if (dir[0] != '/')
		shim_abort("SHIM_DIR is no absolute path", dir);
	if (!realpath(dir, root) && !resolve(dir, root))
		snprintf(root, sizeof root, "%s", dir);
	root_len = strlen(root);
}

/* In place: "//", "." and ".." go away. */
static void clean(char *path)
{
	char *out = path, *p = path;

	while (*p) {
		size_t len = strcspn(++p, "/");

		if (len == 2 && p[0] == '.' && p[1] == '.') {
			while (out > path && *--out != '/')
				;
		} else if (len > 0 && !(len == 1 && p[0] == '.')) {
			*out++ = '/';
			memmove(out, p, len);
			out += len;
		}
		p += len;
	}
	*out = '\0';
}

static bool below_root(const char *full, char rel[PATH_MAX])
{
	if (strncmp(full, root, root_len) != 0 || (full[root_len] != '/' && full[root_len] != '\0'))
		return false;
	strcpy(rel, full[root_len] ? full + root_len + 1 : ".");
	return true;
}

bool shim_path(int dir_fd, const char *path, char rel[PATH_MAX])
{
	char base[PATH_MAX] = "", full[2 * PATH_MAX], real[PATH_MAX], link[64];

	if (!root_len || !path)
		return false;
	if (path[0] != '/' && dir_fd == AT_FDCWD && !getcwd(base, sizeof base))
		return false;
	if (path[0] != '/' && dir_fd != AT_FDCWD) {
		snprintf(link, sizeof link, "/proc/self/fd/%d", dir_fd);

		ssize_t n = readlink(link, base, sizeof base - 1);

		if (n < 0)
			return false;
		base[n] = '\0';
	}
	if (snprintf(full, sizeof full, "%s/%s", base, path) >= PATH_MAX)
		return false;
	clean(full);
	return below_root(full, rel) || (path[0] == '/' && resolve(full, real) && below_root(real, rel));
}

uint64_t shim_new_handle(void)
{
	return atomic_fetch_add(&handles, 1) + 1;
}

void shim_file_add(int fd, uint64_t handle, const char *rel)
{
	struct shim_file *f = malloc(sizeof *f + strlen(rel) + 1);
	struct stat st;

	if (!f || fd >= FDS)
		shim_abort("no room for a descriptor", rel);
	f->handle = handle;
	f->is_dir = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
	strcpy(f->path, rel);
	atomic_store(&table[fd], f);
}

void shim_file_copy(int fd, int copy)
{
	if (fd < 0 || fd >= FDS || copy < 0 || copy >= FDS)
		return;
	atomic_store(&table[copy], atomic_load(&table[fd]));
	atomic_store(&fuse[copy], atomic_load(&fuse[fd]));
}

void shim_file_remove(int fd)
{
	if (fd < 0 || fd >= FDS)
		return;
	atomic_store(&table[fd], NULL);
	atomic_store(&fuse[fd], false);
}

const struct shim_file *shim_file_of(int fd)
{
	return fd < 0 || fd >= FDS ? NULL : atomic_load_explicit(&table[fd], memory_order_acquire);
}

void shim_fuse_set(int fd)
{
	if (fd >= 0 && fd < FDS)
		atomic_store(&fuse[fd], true);
}

bool shim_is_fuse(int fd)
{
	return fd >= 0 && fd < FDS && atomic_load_explicit(&fuse[fd], memory_order_relaxed);
}

static bool is_log(const struct shim_file *f)
{
	return fnmatch("*.log", f->path, 0) == 0;
}

static bool is_blob(const struct shim_file *f)
{
	return strncmp(f->path, "blobs/", 6) == 0 || strstr(f->path, "/blobs/");
}

enum class shim_write_class(const struct shim_file *f) {
	return is_log(f)    ? WRITE_LOG
	       : is_blob(f) ? WRITE_BLOB
			    : WRITE_OTHER;
}

enum class shim_sync_class(const struct shim_file *f) {
	return f->is_dir    ? SYNC_DIR
	       : is_log(f)  ? SYNC_LOG
	       : is_blob(f) ? SYNC_BLOB
			    : SYNC_OTHER;
}
