/*
 * blob_file_impl.h - what the files of the blobs in files share. Private to kv/blob_file*.c; the invariants
 * stand in blob_file.c.
 */
#ifndef KV_BLOB_FILE_IMPL_H
#define KV_BLOB_FILE_IMPL_H

#include <fcntl.h>
#include <pthread.h>

#include "kv/blob_impl.h"

struct kv_files {
	struct kv_blobs base;
	pthread_rwlock_t tree; /* the directories in data/: invariants 2 and 3 */
	_Atomic uint64_t next_tmp;

	/* constant while open */
	bool read_only;
	int data_fd;
	int tmp_fd; /* -1 if read_only */
};

enum { KV_DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW };

/* blob_file.c: not there, or it is the directory of other keys: both are "no such blob". */
bool kv_files_absent(int errnum);

/* blob_file.c: remove the directories above key as far as they are empty, `tree` not being held. Failing is
 * harmless: an empty directory is no blob, and the next delete or listing in it tries again. */
void kv_files_prune(struct kv_files *f, const char *key);

/* blob_file_list.c: the list operation. */
enum kv_rc kv_files_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			 struct kv_blob_list *out, struct kv_err *err) KV_MUST_CHECK;

#endif
