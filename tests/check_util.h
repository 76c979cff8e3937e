/*
 * check_util.h - what the test runners share: a main, and directories that go away.
 *
 * Threads: for the main thread of a test.
 */
#ifndef TESTS_CHECK_UTIL_H
#define TESTS_CHECK_UTIL_H

#include <check.h>
#include <stddef.h>

/*
 * Run the suites; the exit status of the runner. Around them lives one directory under $TMPDIR or /tmp that
 * all check_dir() come from, and $TMPDIR of what they run; it is removed whether tests passed, failed or
 * crashed, and by the next run if this one is killed.
 */
int check_main(Suite *(*const *suites)(void), size_t count);

/* A new empty directory; given. Outside check_main it stays. */
char *check_dir(void);

/* "dir/name"; given. */
char *check_path(const char *dir, const char *name);

/* Remove path and all below it. */
void check_rmtree(const char *path);

/* The whole file as a string (given), and the other way round. Failing fails the test. */
char *check_read(const char *path);
void check_write(const char *path, const char *text);

#endif
