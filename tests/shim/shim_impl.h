/*
 * shim_impl.h - the parts of the interposed library: rules (what happens to a call), files (which descriptor
 * is which file), record. shim.c has the wrapped calls.
 *
 * Threads: all from any.
 */
#ifndef TESTS_SHIM_SHIM_IMPL_H
#define TESTS_SHIM_SHIM_IMPL_H

#include <dlfcn.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "tests/shim/shim.h"

enum class {
	WRITE_LOG,
	WRITE_BLOB,
	WRITE_OTHER,
	SYNC_LOG,
	SYNC_BLOB,
	SYNC_DIR,
	SYNC_OTHER,
	SYNC_FS,
	RENAME,
	LINK,
	UNLINK,
	MKDIR,
	TRUNCATE,
	CREATE,
	OPEN,
	READ,
	REPLY,
	CLASSES,
};

enum fate {
	GO,
	FAIL,       /* with errnum, nothing done */
	FAIL_SHORT, /* half is written, then errnum */
	FAIL_COUNT, /* half is written and the count returned */
	KILL_BEFORE,
	KILL_AFTER,
	KILL_TORN,
	SKIP, /* a sync: nothing done, 0 returned */
};

struct verdict {
	enum fate fate;
	int errnum;
};

/* Counts the call and tells what becomes of it. path: relative to SHIM_DIR; of a reply "". */
struct verdict shim_judge(enum class class, const char *path);
/* Does KILL_BEFORE and FAIL: true if the call is not to be made, and errno is set. */
bool shim_stops(struct verdict v);
void shim_die(void) __attribute__((noreturn));
/* Says why on stderr and aborts: something the shim does not model. */
void shim_abort(const char *what, const char *path) __attribute__((noreturn));

/* --- wrapping ------------------------------------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name) __attribute__((visibility("default"), alias(#name)))

/* The function behind ours. */
#define NEXT(name)                                                           \
	({                                                                   \
		static _Atomic(void *) next_;                                \
		void *at_ = atomic_load(&next_);                             \
		if (!at_)                                                    \
			atomic_store(&next_, at_ = dlsym(RTLD_NEXT, #name)); \
		(__typeof__(&name))at_;                                      \
	})

static inline int shim_done(struct verdict v, int result)
{
	if (v.fate == KILL_AFTER)
		shim_die();
	return result;
}

/* --- files ----------------------------------------------------------------------------------------- */

struct shim_file {
	uint64_t handle;
	bool is_dir;
	char path[]; /* relative to SHIM_DIR */
};

/* The path, if it lies in SHIM_DIR, relative to it. The last component need not be there. */
bool shim_path(int dir_fd, const char *path, char rel[PATH_MAX]);
void shim_file_add(int fd, uint64_t handle, const char *rel);
void shim_file_copy(int fd, int copy);
void shim_file_remove(int fd);
const struct shim_file *shim_file_of(int fd); /* NULL: not of SHIM_DIR. Never freed */
uint64_t shim_new_handle(void);
void shim_fuse_set(int fd);
bool shim_is_fuse(int fd);
enum class shim_write_class(const struct shim_file *f);
enum class shim_sync_class(const struct shim_file *f);

/* --- record ---------------------------------------------------------------------------------------- */

bool shim_recording(void);
/* Changes hold it, so that the order of the records is that of the changes. Does nothing when not recording.
 */
void shim_lock(void);
void shim_unlock(void);
/* Under the lock. Takes what it needs of r; lengths are set here. */
void shim_record_locked(struct shim_record r, const char *path, const char *path2, const void *data,
			size_t len);
uint64_t shim_sync_begin(const struct shim_file *f); /* f NULL: the file system. Takes the lock */
void shim_sync_end(const struct shim_file *f, uint64_t number);

#endif
