/*
 * view.h - the text of a staged batch at one moment: its bounds line, if it has
 * one, its rows, and the beginning of a row whose end was not written yet.
 *
 * Threads: one at a time per view.
 */
#ifndef FS_VIEW_H
#define FS_VIEW_H

#include "core/scan.h"
#include "core/staged.h"

/* {0}: not open. */
struct fs_view {
	bool open;
	struct core_staged_view staged;
	char bounds[CORE_BOUNDS_LINE_LEN];
	size_t bounds_len;
	uint64_t rows_len;
	struct core_scan *scan;
};

/* What is in the batch now; shard is the same at each call. Codes of core_staged_open. */
enum kv_rc fs_view_open(struct fs_view *v, struct core_shard *shard, struct core_uuid id,
			struct kv_err *err) KV_MUST_CHECK;
uint64_t fs_view_size(const struct fs_view *v);

/* Up to len bytes from offset; *got is less than len only at the end. */
enum kv_rc fs_view_read(struct fs_view *v, uint64_t offset, char *buf, size_t len, size_t *got,
			struct kv_err *err) KV_MUST_CHECK;
void fs_view_close(struct fs_view *v, struct core_shard *shard);

#endif
