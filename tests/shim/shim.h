/*
 * shim.h - what the interposed library records: the changes of one directory, in the order of their
 * completion.
 *
 * A record is a header and behind it path, path2 and data, without padding. Paths are relative to SHIM_DIR,
 * "." is the directory itself. A handle stands for one open: it names the same file whatever it is renamed
 * to.
 *
 *   op            fields that count
 *   OPEN          handle, path: an existing file or directory was opened
 *   CREATE        handle, path: the same, and it was made
 *   WRITE         handle, offset, data
 *   SIZE          handle, offset: the size is now offset (truncated, or extended with zeros)
 *   SYNC_BEGIN    handle, offset: a number that its end names; handle 0: the whole file system
 *   SYNC_END      the same; only of a sync that worked. What was recorded before its begin is on stable
 * storage RENAME LINK   path, path2 UNLINK MKDIR RMDIR   path MARK          nothing: a moment
 *
 * time_ns is CLOCK_MONOTONIC at the recording, behind the operation and before its caller hears of it.
 */
#ifndef TESTS_SHIM_SHIM_H
#define TESTS_SHIM_SHIM_H

#include <stdint.h>

enum shim_op {
	SHIM_OPEN = 1,
	SHIM_CREATE,
	SHIM_WRITE,
	SHIM_SIZE,
	SHIM_SYNC_BEGIN,
	SHIM_SYNC_END,
	SHIM_RENAME,
	SHIM_LINK,
	SHIM_UNLINK,
	SHIM_MKDIR,
	SHIM_RMDIR,
	SHIM_MARK,
};

struct shim_record {
	uint32_t op;
	uint32_t thread;
	uint64_t time_ns;
	uint64_t handle;
	uint64_t offset;
	uint32_t path_len;
	uint32_t path2_len;
	uint64_t data_len;
};

#endif
