/*
 * counts.c - see counts.h.
 *
 * libfuse calls the counting one, which calls the handler. When that is back the
 * request is answered and gone, or it is parked, which park.c says through a
 * variable of the thread: a thread serves one request at a time.
 */
#include "fs/counts.h"

#include <assert.h>

#include "fs/fs.h"

static _Thread_local bool parked;

void fs_count_parked(void)
{
	parked = true;
}

static uint64_t begin(struct fs_counts *c, enum fs_op op)
{
	parked = false;
	fs_count(&c->requests[op], 1);
	return core_ticks_us();
}

static void end(struct fs_counts *c, enum fs_op op, uint64_t begun_us)
{
	if (!parked)
		core_histogram_add(&c->times[op], core_ticks_us() - begun_us);
}

#define COUNTED(name, parameters, arguments)                \
	static void counted_##name parameters               \
	{                                                   \
		struct fs_counts *c = &fs_of(req)->counts;  \
		uint64_t begun_us = begin(c, FS_OP_##name); \
                                                            \
		c->handlers.name arguments;                 \
		end(c, FS_OP_##name, begun_us);             \
	}

FS_OPS(COUNTED)

void fs_count_ops(struct fs_counts *c, struct fuse_lowlevel_ops *ops)
{
	c->handlers = *ops;
#define COUNT(name, parameters, arguments) \
	assert(ops->name != NULL);         \
	ops->name = counted_##name;
	FS_OPS(COUNT)
#undef COUNT
}
