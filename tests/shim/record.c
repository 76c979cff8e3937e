/*
 * record.c - the log of changes: SHIM_RECORD.
 *
 * Each record is appended by one writev, under the lock that the change was made under.
 */
#include "tests/shim/shim_impl.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t syncs;

__attribute__((constructor)) static void load(void)
{
	const char *path = getenv("SHIM_RECORD");

	if (!path)
		return;
	log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log_fd < 0)
		shim_abort("the record cannot be opened", path);
	/* Out of the way of programs that count their descriptors. */
	log_fd = (int)syscall(SYS_fcntl, log_fd, F_DUPFD_CLOEXEC, 900);
	if (log_fd < 0)
		shim_abort("the record cannot be opened", path);
}

bool shim_recording(void)
{
	return log_fd >= 0;
}

void shim_lock(void)
{
	if (shim_recording())
		pthread_mutex_lock(&lock);
}

void shim_unlock(void)
{
	if (shim_recording())
		pthread_mutex_unlock(&lock);
}

void shim_record_locked(struct shim_record r, const char *path, const char *path2, const void *data,
			size_t len)
{
	struct timespec now;
	struct iovec iov[4];

	if (!shim_recording())
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	r.thread = (uint32_t)syscall(SYS_gettid);
	r.time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	r.path_len = (uint32_t)strlen(path);
	r.path2_len = (uint32_t)strlen(path2);
	r.data_len = len;
	iov[0] = (struct iovec){&r, sizeof r};
	iov[1] = (struct iovec){(void *)(uintptr_t)path, r.path_len};
	iov[2] = (struct iovec){(void *)(uintptr_t)path2, r.path2_len};
	iov[3] = (struct iovec){(void *)(uintptr_t)data, len};
	if (syscall(SYS_writev, log_fd, iov, 4) != (long)(sizeof r + r.path_len + r.path2_len + len))
		shim_abort("the record cannot be written", path);
}

uint64_t shim_sync_begin(const struct shim_file *f)
{
	struct shim_record r = {
		.op = SHIM_SYNC_BEGIN, .handle = f ? f->handle : 0, .offset = atomic_fetch_add(&syncs, 1)};

	shim_lock();
	shim_record_locked(r, f ? f->path : "", "", "", 0);
	shim_unlock();
	return r.offset;
}

void shim_sync_end(const struct shim_file *f, uint64_t number)
{
	struct shim_record r = {.op = SHIM_SYNC_END, .handle = f ? f->handle : 0, .offset = number};

	shim_lock();
	shim_record_locked(r, f ? f->path : "", "", "", 0);
	shim_unlock();
}
