/*
 * verdicts.h - the answers that wait to be read on a descriptor: a line for each
 * transaction or command that ended.
 *
 * Threads: one at a time; whose they are has a lock.
 */
#ifndef FS_VERDICTS_H
#define FS_VERDICTS_H

#include <stddef.h>

struct fs_verdicts {
	char *text;
	size_t from; /* what was read */
	size_t len;
	size_t cap;
};

/* Begun with {0}. At most this many bytes are kept; the oldest lines go first. */
enum { FS_VERDICTS_MAX = 64 << 10 };

/* Add a line (without newline, copied). Without memory it is lost: the errno has told already. */
void fs_verdicts_add(struct fs_verdicts *v, const char *line);

/* The oldest line, or what fits of it, to buf; 0: there is none. */
size_t fs_verdicts_read(struct fs_verdicts *v, char *buf, size_t len);

void fs_verdicts_clear(struct fs_verdicts *v);
void fs_verdicts_fini(struct fs_verdicts *v);

#endif
