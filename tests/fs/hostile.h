/*
 * hostile.h - a mount that all share, with a shard of ALICE's that BOB has no business in; it has a row, a
 * staged batch `mine` and a hold `h`.
 */
#ifndef TESTS_FS_HOSTILE_H
#define TESTS_FS_HOSTILE_H

#include "tests/fs/fixture.h"

enum { ALICE = 4001, BOB = 4002 };

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* Mount with `-o opts`; the fixture's w and shard are it. */
void hostile_start(const char *opts);
void hostile_stop(void);
/* Write a hold that need not be there. 0, or errno. */
int hostile_hold(const char *name, const char *text);

#endif
