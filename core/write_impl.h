/*
 * write_impl.h - the write handle, for write.c and built.c.
 */
#ifndef CORE_WRITE_IMPL_H
#define CORE_WRITE_IMPL_H

#include "core/write.h"

struct core_writer {
	struct core_shard *shard; /* a reference */
	struct core_writer_state state;
	struct core_frontier upper; /* met last */
};

#endif
