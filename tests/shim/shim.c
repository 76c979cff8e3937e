/*
 * shim.c - an interposed library (LD_PRELOAD) over the file system calls below one directory, for tests: it
 * counts them, kills the process at one, lets them fail, leaves syncs out, and records all changes with their
 * data. Linux on x86-64, glibc. All is read from the environment once, at load:
 *
 *   SHIM_DIR=<dir>         the directory; absolute. It need not be there yet. Nothing outside of it is
 *                          touched, but the class reply
 *   SHIM_COUNT=<file>      calls by class, one line each, "<class> <number>"; always up to date, also after
 *                          kill -9
 *   SHIM_KILL=<calls>:<n>[:before|after|torn]
 *                          kill -9 of the process at its n-th such call: before it (the default), after it,
 *                          or with half of the bytes of the write done (else as before)
 *   SHIM_FAIL=<calls>:<n>:<ERRNO>[:always][:short|count]
 *                          the n-th such call fails, nothing done; always: all from the n-th on. Of a write,
 *                          short: half of its bytes are written and it fails; count: half are written and
 *                          their number is returned, as on a full disk, and the next such call fails
 *   SHIM_SKIP=<calls>      such syncs do nothing, return 0 and are not recorded: a missing fsync. From the
 *                          start on
 *   SHIM_ARM=<file>        counts (also those of KILL and FAIL) begin only when this file is there
 *   SHIM_RECORD=<file>     appends every change, see shim.h. From the start on
 *
 * KILL, FAIL and SKIP take several, parted by commas. <calls> is <class>[@glob]; the glob (fnmatch, * passes
 * /) is for the path relative to SHIM_DIR: `sync-other@*MANIFEST*`. The classes:
 *
 *   write-log write-blob write-other
 *                      write, pwrite, writev, pwritev: of *.log, of what lies below a blobs/, of others
 *   sync-log sync-blob sync-dir sync-other
 *                      fsync, fdatasync, sync_file_range of the same and of directories (those below blobs/
 *                      too: sync-dir@*blobs*)
 *   sync-fs            syncfs and sync
 *   rename link unlink mkdir
 *                      unlink is rmdir too
 *   truncate           ftruncate, truncate, fallocate, posix_fallocate
 *   create open read   open that makes a file; any other open; read and pread
 *   reply              write, writev, splice to /dev/fuse: the answer to a request, or a notice
 *   any                all but open, read and reply
 *
 * How it works: calls of libc that other objects make are wrapped; those inside libc are not (stdio), so a
 * stream that is opened for writing, like a shared writable mapping and what copies from file to file, aborts
 * the process with a sentence. A recorded change is made and recorded under one lock: the record has the
 * order of the changes. A sync is recorded at its begin and, if it worked, at its end.
 */
#include "tests/shim/shim_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A call on paths: judged, made and recorded. */
#define PATH_CALL(class, op_, path, path2, call)                                                           \
	({                                                                                                 \
		struct verdict v_ = shim_judge(class, path);                                               \
		int rc_ = -1;                                                                              \
		if (!shim_stops(v_) && v_.fate != KILL_TORN) {                                             \
			shim_lock();                                                                       \
			rc_ = (call);                                                                      \
			int e_ = errno;                                                                    \
			if (rc_ == 0)                                                                      \
				shim_record_locked((struct shim_record){.op = (op_)}, path, path2, "", 0); \
			shim_unlock();                                                                     \
			errno = e_;                                                                        \
		} else if (v_.fate == KILL_TORN) {                                                         \
			shim_die();                                                                        \
		}                                                                                          \
		shim_done(v_, rc_);                                                                        \
	})

/* --- open and close -------------------------------------------------------------------------------- */

static int note_open(int dir_fd, const char *path, int flags, mode_t mode, const char *rel, bool is_new)
{
	struct shim_record r = {.op = is_new ? SHIM_CREATE : SHIM_OPEN, .handle = shim_new_handle()};
	int fd = NEXT(openat)(dir_fd, path, flags, mode);

	if (fd < 0)
		return fd;
	shim_file_add(fd, r.handle, rel);
	shim_record_locked(r, rel, "", "", 0);
	if (!is_new && flags & O_TRUNC)
		shim_record_locked((struct shim_record){.op = SHIM_SIZE, .handle = r.handle}, rel, "", "", 0);
	return fd;
}

static int open_any(int dir_fd, const char *path, int flags, mode_t mode)
{
	char rel[PATH_MAX];
	struct stat st;
	int fd;

	if (path && strcmp(path, "/dev/fuse") == 0) {
		fd = NEXT(openat)(dir_fd, path, flags, mode);
		shim_fuse_set(fd);
		return fd;
	}
	if (!shim_path(dir_fd, path, rel)) {
		fd = NEXT(openat)(dir_fd, path, flags, mode);
		shim_file_remove(fd);
		return fd;
	}
	if ((flags & O_TMPFILE) == O_TMPFILE)
		shim_abort("O_TMPFILE is not modelled", rel);

	bool is_new = flags & O_CREAT && fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) != 0;
	struct verdict v = shim_judge(is_new ? CREATE : OPEN, rel);

	if (shim_stops(v))
		return -1;
	if (v.fate == KILL_TORN)
		shim_die();
	shim_lock();
	fd = note_open(dir_fd, path, flags, mode, rel, is_new);
	int e = errno;
	shim_unlock();
	errno = e;
	return shim_done(v, fd);
}

static mode_t mode_of(int flags, va_list args)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return open_any(AT_FDCWD, path, flags, mode);
}

EXPORT int openat(int dir_fd, const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return open_any(dir_fd, path, flags, mode);
}

EXPORT int creat(const char *path, mode_t mode)
{
	return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* What a compiler with _FORTIFY_SOURCE calls. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
	return open_any(AT_FDCWD, path, flags, 0);
}

EXPORT int __openat_2(int dir_fd, const char *path, int flags);
EXPORT int __openat_2(int dir_fd, const char *path, int flags)
{
	return open_any(dir_fd, path, flags, 0);
}

ALIAS(open) int open64(const char *path, int flags, ...);
ALIAS(openat) int openat64(int dir_fd, const char *path, int flags, ...);
ALIAS(creat) int creat64(const char *path, mode_t mode);
ALIAS(__open_2) int __open64_2(const char *path, int flags);
ALIAS(__openat_2) int __openat64_2(int dir_fd, const char *path, int flags);

EXPORT FILE *fopen(const char *path, const char *mode)
{
	char rel[PATH_MAX];

	if (strpbrk(mode, "wa+") && shim_path(AT_FDCWD, path, rel))
		shim_abort("a stream for writing is not modelled", rel);
	return NEXT(fopen)(path, mode);
}

ALIAS(fopen) FILE *fopen64(const char *path, const char *mode);

EXPORT FILE *fdopen(int fd, const char *mode)
{
	if (strpbrk(mode, "wa+") && shim_file_of(fd))
		shim_abort("a stream for writing is not modelled", shim_file_of(fd)->path);
	return NEXT(fdopen)(fd, mode);
}

EXPORT int close(int fd)
{
	shim_file_remove(fd);
	return NEXT(close)(fd);
}

EXPORT int fclose(FILE *f)
{
	shim_file_remove(fileno(f));
	return NEXT(fclose)(f);
}

EXPORT int closedir(DIR *d)
{
	shim_file_remove(dirfd(d));
	return NEXT(closedir)(d);
}

EXPORT int dup(int fd)
{
	int copy = NEXT(dup)(fd);

	shim_file_copy(fd, copy);
	return copy;
}

EXPORT int dup2(int fd, int to)
{
	int copy = NEXT(dup2)(fd, to);

	shim_file_copy(fd, copy);
	return copy;
}

EXPORT int dup3(int fd, int to, int flags)
{
	int copy = NEXT(dup3)(fd, to, flags);

	shim_file_copy(fd, copy);
	return copy;
}

EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list args;

	va_start(args, cmd);
	void *arg = va_arg(args, void *); /* an int comes the same way */
	va_end(args);

	int rc = NEXT(fcntl)(fd, cmd, arg);

	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		shim_file_copy(fd, rc);
	return rc;
}

ALIAS(fcntl) int fcntl64(int fd, int cmd, ...);

/* --- names ----------------------------------------------------------------------------------------- */

EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	char a[PATH_MAX], b[PATH_MAX];
	bool a_ours = shim_path(from_dir, from, a), b_ours = shim_path(to_dir, to, b);

	if (!a_ours && !b_ours)
		return NEXT(renameat2)(from_dir, from, to_dir, to, flags);
	if (a_ours != b_ours || (flags & ~(unsigned)RENAME_NOREPLACE))
		shim_abort("such a rename is not modelled", from);
	return PATH_CALL(RENAME, SHIM_RENAME, a, b, NEXT(renameat2)(from_dir, from, to_dir, to, flags));
}

EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return renameat2(from_dir, from, to_dir, to, 0);
}

EXPORT int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	char a[PATH_MAX], b[PATH_MAX];

	if (!shim_path(to_dir, to, b))
		return NEXT(linkat)(from_dir, from, to_dir, to, flags);
	if (!shim_path(from_dir, from, a) || flags)
		shim_abort("such a link is not modelled", b);
	return PATH_CALL(LINK, SHIM_LINK, a, b, NEXT(linkat)(from_dir, from, to_dir, to, flags));
}

EXPORT int link(const char *from, const char *to)
{
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int symlink(const char *text, const char *to)
{
	char rel[PATH_MAX];

	if (shim_path(AT_FDCWD, to, rel))
		shim_abort("symlink is not modelled", rel);
	return NEXT(symlink)(text, to);
}

EXPORT int unlinkat(int dir_fd, const char *path, int flags)
{
	char rel[PATH_MAX];

	if (!shim_path(dir_fd, path, rel))
		return NEXT(unlinkat)(dir_fd, path, flags);
	return PATH_CALL(UNLINK, flags & AT_REMOVEDIR ? SHIM_RMDIR : SHIM_UNLINK, rel, "",
			 NEXT(unlinkat)(dir_fd, path, flags));
}

EXPORT int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

EXPORT int rmdir(const char *path)
{
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

EXPORT int mkdirat(int dir_fd, const char *path, mode_t mode)
{
	char rel[PATH_MAX];

	if (!shim_path(dir_fd, path, rel))
		return NEXT(mkdirat)(dir_fd, path, mode);
	return PATH_CALL(MKDIR, SHIM_MKDIR, rel, "", NEXT(mkdirat)(dir_fd, path, mode));
}

EXPORT int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}
