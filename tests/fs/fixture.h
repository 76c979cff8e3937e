/*
 * fixture.h - what most tests of the mount have: a mount, and in it a shard.
 */
#ifndef TESTS_FS_FIXTURE_H
#define TESTS_FS_FIXTURE_H

#include "tests/fs/world.h"

extern struct world w;
extern char *shard; /* its path */

/* A case (world_case) whose tests have them. */
TCase *shard_case(Suite *s, const char *name, double seconds);

#endif
