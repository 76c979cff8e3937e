/*
 * alloc.h - memory and threads that run out on request.
 *
 * The Makefile makes a second libshard-alloc.a, and a mount alloc/shardfs, in which the allocating calls of
 * our own objects go through here: malloc and its like, strdup, asprintf, open_memstream, pthread_create,
 * and the contexts of zstd. Libraries and tests keep their own. What is freed is freed as always.
 *
 * A plan says which of these calls fails; they are counted from 1 in the order they arrive, in all threads.
 * The plan of a process lies in a file that others may map when ALLOC_PLAN names it as the process starts.
 *
 * Threads: any.
 */
#ifndef TESTS_ALLOC_H
#define TESTS_ALLOC_H

#include <stdatomic.h>
#include <stdint.h>

struct alloc_plan {
	_Atomic(unsigned) nth;     /* this call fails; 0: none, and none is counted */
	_Atomic(unsigned) forever; /* and all after it */
	_Atomic(unsigned) calls;
	_Atomic(unsigned) failed;
	_Atomic(uintptr_t) where; /* who made the first that failed, as an address in the program's file */
};

/* The plan of this process. */
struct alloc_plan *alloc_plan(void);

/* The plan of processes that are started with ALLOC_PLAN=path in their environment. */
struct alloc_plan *alloc_plan_at(const char *path);

/* Count anew from now on, and let the nth call fail; 0: let all be well. */
void alloc_fail(struct alloc_plan *p, unsigned nth);

#endif
