/*
 * program.h - a test that is a program of its own (crash, soak): how it fails, outside of Check.
 *
 * What the helpers of tests/ find wrong ends it the same way: the linker puts the two functions behind
 * Check's assertions in the place of Check's own (--wrap, see the Makefile).
 *
 * Threads: any of them may fail; the first one ends the program.
 */
#ifndef TESTS_FS_PROGRAM_H
#define TESTS_FS_PROGRAM_H

#include "tests/fs/world.h"

struct program {
	const char *name;
	uint64_t seed;
	const struct world *world;       /* its mount is killed, its store kept */
	void (*report)(const char *why); /* write what is known so far */
};

/* Before anything can fail. *p is borrowed for ever. */
void program_begin(const struct program *p);
/* Something is wrong: says so with the seed, keeps the store, ends the program with 1. */
_Noreturn void program_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
