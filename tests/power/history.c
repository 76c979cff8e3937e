/*
 * history.c - the record of a load, as tests/shim wrote it, read back.
 */
#include "tests/power/power.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void power_die(const char *what, const char *which)
{
	fprintf(stderr, "tests/power: %s %s: %s\n", what, which, strerror(errno));
	exit(2);
}

static char *copy_text(const char *from, size_t len)
{
	char *text = strndup(from, len);

	if (!text)
		power_die("no memory", "");
	return text;
}

struct history history_read(const char *path)
{
	struct history h = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		power_die("cannot read", path);
	h.map_len = (size_t)st.st_size;
	h.map = mmap(NULL, h.map_len, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (h.map == MAP_FAILED)
		power_die("cannot map", path);
	for (const char *p = h.map, *end = p + h.map_len; p < end;) {
		struct shim_record r;

		if ((size_t)(end - p) < sizeof r)
			break; /* killed while it was written */
		memcpy(&r, p, sizeof r);
		p += sizeof r;
		if ((size_t)(end - p) < r.path_len + r.path2_len + r.data_len)
			break;
		if ((h.count & (h.count - 1)) == 0)
			h.ops = reallocarray(h.ops, h.count ? 2 * h.count : 1, sizeof *h.ops);
		h.ops[h.count++] = (struct op){
			.kind = r.op,
			.time_ns = r.time_ns,
			.handle = r.handle,
			.offset = r.offset,
			.path = copy_text(p, r.path_len),
			.path2 = copy_text(p + r.path_len, r.path2_len),
			.data = (const uint8_t *)p + r.path_len + r.path2_len,
			.len = r.data_len,
		};
		p += r.path_len + r.path2_len + r.data_len;
	}
	return h;
}

void history_free(struct history *h)
{
	for (size_t i = 0; i < h->count; i++) {
		free((char *)(uintptr_t)h->ops[i].path);
		free((char *)(uintptr_t)h->ops[i].path2);
	}
	free(h->ops);
	munmap(h->map, h->map_len);
}
