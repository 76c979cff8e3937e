/*
 * counts.c - see counts.h.
 *
 * libfuse calls the counting one, which calls the handler. When that is back the
 * request is answered and gone, or it is parked, which park.c says through a
 * variable of the thread: a thread serves one request at a time.
 *
 * A request is in flight from here to its reply, on whatever thread that comes. In test builds each one is
 * in a table meanwhile, by its address, which libfuse gives to the next one only after the reply.
 */
#include "fs/counts.h"

#include <assert.h>
#include <stdlib.h>

#include "core/hash.h"
#include "fs/fs.h"

static _Thread_local bool parked;

void fs_count_parked(void)
{
	parked = true;
}

void fs_count_took(struct fs_counts *c, enum fs_op op, uint64_t began_us)
{
	core_histogram_add(&c->times[op], core_ticks_us() - began_us);
}

#ifdef CORE_SLOW_CHECKS

struct fs_count_flight {
	fuse_req_t req;
	UT_hash_handle hh;
};

static void check_begun(struct fs_counts *c, fuse_req_t req)
{
	struct fs_count_flight *f = malloc(sizeof *f), *there;

	pthread_mutex_lock(&c->mu);
	HASH_FIND(hh, c->flights, &req, sizeof(fuse_req_t), there);
	assert(there == NULL); /* else the one before was not answered */
	if (f != NULL) {
		f->req = req;
		HASH_ADD(hh, c->flights, req, sizeof(fuse_req_t), f);
	}
	if (f == NULL || !core_hashed(f)) {
		free(f);
		c->unchecked++;
	}
	pthread_mutex_unlock(&c->mu);
}

static void check_answered(struct fs_counts *c, fuse_req_t req)
{
	struct fs_count_flight *f;

	pthread_mutex_lock(&c->mu);
	HASH_FIND(hh, c->flights, &req, sizeof(fuse_req_t), f);
	assert(f != NULL || c->unchecked > 0); /* else it was answered before */
	if (f != NULL)
		HASH_DEL(c->flights, f);
	else
		c->unchecked--;
	pthread_mutex_unlock(&c->mu);
	free(f);
}

#else

static void check_begun(struct fs_counts *c, fuse_req_t req)
{
	(void)c;
	(void)req;
}

static void check_answered(struct fs_counts *c, fuse_req_t req)
{
	(void)c;
	(void)req;
}

#endif

void fs_counts_init(struct fs_counts *c)
{
#ifdef CORE_SLOW_CHECKS
	pthread_mutex_init(&c->mu, NULL);
#else
	(void)c;
#endif
}

void fs_counts_fini(struct fs_counts *c)
{
	assert(fs_counts_in_flight(c) == 0);
#ifdef CORE_SLOW_CHECKS
	pthread_mutex_destroy(&c->mu);
#endif
}

void fs_count_answered(struct fs_counts *c, fuse_req_t req)
{
	check_answered(c, req);
	fs_count(&c->answered, 1);
}

uint64_t fs_counts_in_flight(const struct fs_counts *c)
{
	uint64_t answered = atomic_load(&c->answered), begun = 0;

	for (size_t i = 0; i < FS_OP_COUNT; i++)
		begun += atomic_load(&c->requests[i]);
	return begun > answered ? begun - answered : 0;
}

static uint64_t begin(struct fs_counts *c, enum fs_op op, fuse_req_t req)
{
	parked = false;
	check_begun(c, req);
	fs_count(&c->requests[op], 1);
	return core_ticks_us();
}

static void end(struct fs_counts *c, enum fs_op op, uint64_t begun_us)
{
	if (!parked)
		core_histogram_add(&c->times[op], core_ticks_us() - begun_us);
}

#define COUNTED(name, parameters, arguments)                     \
	static void counted_##name parameters                    \
	{                                                        \
		struct fs_counts *c = &fs_of(req)->counts;       \
		uint64_t begun_us = begin(c, FS_OP_##name, req); \
                                                                 \
		c->handlers.name arguments;                      \
		end(c, FS_OP_##name, begun_us);                  \
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
