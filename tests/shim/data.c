/*
 * data.c - the wrapped calls on what is in files: writing, reading, sizes, syncs. See shim.c.
 */
#include "tests/shim/shim_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- writing --------------------------------------------------------------------------------------- */

struct piece {
	int fd;
	const struct iovec *iov;
	int count;
	off_t offset; /* -1: where the descriptor stands */
};

static ssize_t write_next(const struct piece *p, size_t limit)
{
	size_t total = 0;

	for (int i = 0; i < p->count; i++)
		total += p->iov[i].iov_len;
	if (limit >= total)
		return p->offset < 0 ? NEXT(writev)(p->fd, p->iov, p->count)
				     : NEXT(pwritev)(p->fd, p->iov, p->count, p->offset);

	char *flat = malloc(total + 1);
	size_t at = 0;

	if (!flat)
		shim_abort("no memory", "write");
	for (int i = 0; i < p->count; at += p->iov[i++].iov_len)
		memcpy(flat + at, p->iov[i].iov_base, p->iov[i].iov_len);

	ssize_t n =
		p->offset < 0 ? NEXT(write)(p->fd, flat, limit) : NEXT(pwrite)(p->fd, flat, limit, p->offset);

	free(flat);
	return n;
}

static void record_write(const struct piece *p, const struct shim_file *f, size_t n)
{
	/* Behind the write, so that it is right for O_APPEND too. */
	off_t offset = p->offset < 0 ? lseek(p->fd, 0, SEEK_CUR) - (off_t)n : p->offset;
	struct shim_record r = {.op = SHIM_WRITE, .handle = f->handle, .offset = (uint64_t)offset};

	for (int i = 0; i < p->count && n > 0; i++) {
		size_t len = p->iov[i].iov_len < n ? p->iov[i].iov_len : n;

		shim_record_locked(r, "", "", p->iov[i].iov_base, len);
		r.offset += len;
		n -= len;
	}
}

static ssize_t write_file(const struct piece *p, const struct shim_file *f)
{
	struct verdict v = shim_judge(shim_write_class(f), f->path);
	bool half = v.fate == KILL_TORN || v.fate == FAIL_SHORT || v.fate == FAIL_COUNT;
	size_t total = 0;

	if (shim_stops(v))
		return -1;
	for (int i = 0; i < p->count; i++)
		total += p->iov[i].iov_len;
	shim_lock();

	ssize_t n = write_next(p, half ? total / 2 : total);
	int e = errno;

	if (n > 0 && shim_recording())
		record_write(p, f, (size_t)n);
	shim_unlock();
	if (v.fate == KILL_TORN || v.fate == KILL_AFTER)
		shim_die();
	errno = v.fate == FAIL_SHORT ? v.errnum : e;
	return v.fate == FAIL_SHORT ? -1 : n;
}

static ssize_t write_any(const struct piece *p)
{
	const struct shim_file *f = shim_file_of(p->fd);

	if (f)
		return write_file(p, f);
	if (!shim_is_fuse(p->fd))
		return write_next(p, SIZE_MAX);

	struct verdict v = shim_judge(REPLY, "");

	if (shim_stops(v))
		return -1;
	if (v.fate == KILL_TORN) /* the kernel takes a reply whole or not at all */
		shim_die();

	ssize_t n = write_next(p, SIZE_MAX);

	return v.fate == KILL_AFTER ? shim_done(v, 0) : n;
}

EXPORT ssize_t write(int fd, const void *data, size_t len)
{
	const struct iovec iov = {(void *)(uintptr_t)data, len};

	return write_any(&(struct piece){fd, &iov, 1, -1});
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	const struct iovec iov = {(void *)(uintptr_t)data, len};

	return write_any(&(struct piece){fd, &iov, 1, offset});
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	return write_any(&(struct piece){fd, iov, count, -1});
}

EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	return write_any(&(struct piece){fd, iov, count, offset});
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	if (shim_file_of(fd))
		shim_abort("pwritev2 is not modelled", shim_file_of(fd)->path);
	return NEXT(pwritev2)(fd, iov, count, offset, flags);
}

ALIAS(pwrite) ssize_t pwrite64(int fd, const void *data, size_t len, off_t offset);
ALIAS(pwritev) ssize_t pwritev64(int fd, const struct iovec *iov, int count, off_t offset);

EXPORT ssize_t splice(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned flags)
{
	struct verdict v = {GO, 0};

	if (shim_file_of(out))
		shim_abort("splice is not modelled", shim_file_of(out)->path);
	if (shim_is_fuse(out))
		v = shim_judge(REPLY, "");
	if (shim_stops(v))
		return -1;
	if (v.fate == KILL_TORN)
		shim_die();

	ssize_t n = NEXT(splice)(in, in_at, out, out_at, len, flags);

	return v.fate == KILL_AFTER ? shim_done(v, 0) : n;
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t len)
{
	if (shim_file_of(out))
		shim_abort("sendfile is not modelled", shim_file_of(out)->path);
	return NEXT(sendfile)(out, in, offset, len);
}

ALIAS(sendfile) ssize_t sendfile64(int out, int in, off_t *offset, size_t len);

EXPORT ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned flags)
{
	if (shim_file_of(out))
		shim_abort("copy_file_range is not modelled", shim_file_of(out)->path);
	return NEXT(copy_file_range)(in, in_at, out, out_at, len, flags);
}

EXPORT void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	const struct shim_file *f = flags & MAP_ANONYMOUS ? NULL : shim_file_of(fd);

	if (f && prot & PROT_WRITE && (flags & MAP_TYPE) != MAP_PRIVATE)
		shim_abort("a shared writable mapping is not modelled", f->path);
	return NEXT(mmap)(at, len, prot, flags, fd, offset);
}

ALIAS(mmap) void *mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);

/* --- reading --------------------------------------------------------------------------------------- */

static bool read_fails(int fd)
{
	const struct shim_file *f = shim_file_of(fd);
	struct verdict v = {GO, 0};

	if (f)
		v = shim_judge(READ, f->path);
	if (v.fate == KILL_AFTER || v.fate == KILL_TORN)
		shim_die();
	return shim_stops(v);
}

EXPORT ssize_t read(int fd, void *data, size_t len)
{
	return read_fails(fd) ? -1 : NEXT(read)(fd, data, len);
}

EXPORT ssize_t pread(int fd, void *data, size_t len, off_t offset)
{
	return read_fails(fd) ? -1 : NEXT(pread)(fd, data, len, offset);
}

ALIAS(pread) ssize_t pread64(int fd, void *data, size_t len, off_t offset);

/* --- sizes ----------------------------------------------------------------------------------------- */

/* A call that returns 0 and may have changed the size of fd. */
#define SIZE_CALL(fd, f, call)                                                                               \
	({                                                                                                   \
		struct verdict v_ = shim_judge(TRUNCATE, (f)->path);                                         \
		struct stat before_ = {0}, after_ = {0};                                                     \
		int rc_ = -1;                                                                                \
		if (v_.fate == KILL_TORN)                                                                    \
			shim_die();                                                                          \
		if (!shim_stops(v_)) {                                                                       \
			shim_lock();                                                                         \
			fstat(fd, &before_);                                                                 \
			rc_ = (call);                                                                        \
			int e_ = errno;                                                                      \
			fstat(fd, &after_);                                                                  \
			if (before_.st_size != after_.st_size)                                               \
				shim_record_locked((struct shim_record){.op = SHIM_SIZE,                     \
									.handle = (f)->handle,               \
									.offset = (uint64_t)after_.st_size}, \
						   "", "", "", 0);                                           \
			shim_unlock();                                                                       \
			errno = e_;                                                                          \
		}                                                                                            \
		shim_done(v_, rc_);                                                                          \
	})

EXPORT int ftruncate(int fd, off_t size)
{
	const struct shim_file *f = shim_file_of(fd);

	return f ? SIZE_CALL(fd, f, NEXT(ftruncate)(fd, size)) : NEXT(ftruncate)(fd, size);
}

EXPORT int truncate(const char *path, off_t size)
{
	char rel[PATH_MAX];

	if (!shim_path(AT_FDCWD, path, rel))
		return NEXT(truncate)(path, size);

	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = fd < 0 ? -1 : ftruncate(fd, size);
	int e = errno;

	if (fd >= 0)
		close(fd);
	errno = e;
	return rc;
}

/* A hole where nothing but zeros is: room that was taken ahead is given back. RocksDB does so where
 * truncating failed. */
static bool is_unused(int fd, int mode, off_t offset)
{
	unsigned char bytes[4096];
	bool unused = mode == (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE);
	char path[40];
	int in;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* it need not be open for reading */
	in = unused ? NEXT(open)(path, O_RDONLY | O_CLOEXEC) : -1;
	while (in >= 0 && unused && (n = NEXT(pread)(in, bytes, sizeof bytes, offset)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			unused = unused && bytes[i] == 0;
		offset += n;
	}
	if (in >= 0)
		NEXT(close)(in);
	return unused && in >= 0;
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t len)
{
	const struct shim_file *f = shim_file_of(fd);

	if (f && mode & ~FALLOC_FL_KEEP_SIZE && !is_unused(fd, mode, offset))
		shim_abort("this mode of fallocate is not modelled", f->path);
	return f ? SIZE_CALL(fd, f, NEXT(fallocate)(fd, mode, offset, len))
		 : NEXT(fallocate)(fd, mode, offset, len);
}

/* This one returns the errno. */
EXPORT int posix_fallocate(int fd, off_t offset, off_t len)
{
	const struct shim_file *f = shim_file_of(fd);

	if (!f)
		return NEXT(posix_fallocate)(fd, offset, len);

	int rc = SIZE_CALL(fd, f, NEXT(posix_fallocate)(fd, offset, len));

	return rc < 0 ? errno : rc;
}

ALIAS(ftruncate) int ftruncate64(int fd, off_t size);
ALIAS(truncate) int truncate64(const char *path, off_t size);
ALIAS(fallocate) int fallocate64(int fd, int mode, off_t offset, off_t len);
ALIAS(posix_fallocate) int posix_fallocate64(int fd, off_t offset, off_t len);

/* --- syncs ----------------------------------------------------------------------------------------- */

/* durable: false for one that promises nothing and so is not recorded. */
#define SYNC_CALL(class, f, path, durable, call)                               \
	({                                                                     \
		struct verdict v_ = shim_judge(class, path);                   \
		int rc_ = v_.fate == SKIP ? 0 : -1;                            \
		if (v_.fate == KILL_TORN)                                      \
			shim_die();                                            \
		if (v_.fate != SKIP && !shim_stops(v_)) {                      \
			uint64_t number_ = (durable) ? shim_sync_begin(f) : 0; \
			rc_ = (call);                                          \
			int e_ = errno;                                        \
			if (rc_ == 0 && (durable))                             \
				shim_sync_end(f, number_);                     \
			errno = e_;                                            \
		}                                                              \
		shim_done(v_, rc_);                                            \
	})

EXPORT int fsync(int fd)
{
	const struct shim_file *f = shim_file_of(fd);

	return f ? SYNC_CALL(shim_sync_class(f), f, f->path, true, NEXT(fsync)(fd)) : NEXT(fsync)(fd);
}

EXPORT int fdatasync(int fd)
{
	const struct shim_file *f = shim_file_of(fd);

	return f ? SYNC_CALL(shim_sync_class(f), f, f->path, true, NEXT(fdatasync)(fd)) : NEXT(fdatasync)(fd);
}

/* Without flags it does nothing, so it cannot fail: RocksDB asks so whether there is such a call. */
EXPORT int sync_file_range(int fd, off_t offset, off_t len, unsigned flags)
{
	const struct shim_file *f = flags != 0 ? shim_file_of(fd) : NULL;

	return f ? SYNC_CALL(shim_sync_class(f), f, f->path, false,
			     NEXT(sync_file_range)(fd, offset, len, flags))
		 : NEXT(sync_file_range)(fd, offset, len, flags);
}

EXPORT int syncfs(int fd)
{
	const struct shim_file *f = shim_file_of(fd);

	return f ? SYNC_CALL(SYNC_FS, NULL, f->path, true, NEXT(syncfs)(fd)) : NEXT(syncfs)(fd);
}
