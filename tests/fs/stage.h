/*
 * stage.h - shorthands for the tests of staged batches, in the shard of the fixture.
 */
#ifndef TESTS_FS_STAGE_H
#define TESTS_FS_STAGE_H

#include "tests/fs/fixture.h"

/* batches/<name>, as at() gives it. */
const char *batch(const char *name);

/* open(2) with mode 0666; it must work. */
int stage_open(const char *name, int flags);

/* A new staged batch with this text, which may be "". */
void stage(const char *name, const char *text);

/* The content by read(2), and a size that is that of the content. */
void want_batch(const char *name, const char *want);
void want_gone(const char *name);

#endif
