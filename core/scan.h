/*
 * scan.h - the rows of one batch as text, part by part, in no promised order.
 *
 * What a committed batch is as a file: only visible rows, times as rewritten.
 * The same batch always gives the same text. Reading may jump: places that were
 * passed are remembered block by block, so that going back costs one block.
 *
 * Threads: a scan belongs to one thread at a time.
 */
#ifndef CORE_SCAN_H
#define CORE_SCAN_H

#include "core/part.h"

struct core_scan;

/* batch and home are borrowed until close. */
enum kv_rc core_scan_open(const struct core_home *home, const struct core_batch *batch,
			  struct core_scan **out, struct kv_err *err) KV_MUST_CHECK;

/* Up to len bytes of the text from offset; *got is less than len only at its end. */
enum kv_rc core_scan_read(struct core_scan *s, uint64_t offset, char *buf, size_t len, size_t *got,
			  struct kv_err *err) KV_MUST_CHECK;

/* Bytes of the whole text: from the parts' descriptions where they tell, else by reading those that do not.
 */
enum kv_rc core_scan_size(const struct core_home *home, const struct core_batch *batch, uint64_t *size,
			  struct kv_err *err) KV_MUST_CHECK;

void core_scan_close(struct core_scan *s); /* NULL is allowed */

#endif
