/*
 * buf.h - bytes somebody gives away.
 */
#ifndef CORE_BUF_H
#define CORE_BUF_H

#include <stddef.h>
#include <stdint.h>

/* Given where a function fills one: free with core_buf_fini. {0} is empty. */
struct core_buf {
	uint8_t *data;
	size_t len;
};
void core_buf_fini(struct core_buf *b);

#endif
