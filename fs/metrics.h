/*
 * metrics.h - the text of /metrics.
 *
 * Threads: any.
 */
#ifndef FS_METRICS_H
#define FS_METRICS_H

struct fs;

/* All that the engine, the mount and the process count, as it is now, in the text format 0.0.4 of Prometheus.
 * Given; NULL: out of memory. */
char *fs_metrics_text(struct fs *fs);

#endif
