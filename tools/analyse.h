/*
 * analyse.h - what tools/analyse.sh tells the analysers beyond the code: included before each file it looks
 * at.
 *
 * Each of them looks at one file at a time, and so cannot know that a failure is returned as it was given.
 */
#ifndef TOOLS_ANALYSE_H
#define TOOLS_ANALYSE_H

#include "kv/rc.h"

#ifndef SHARDFS_VERSION
#define SHARDFS_VERSION "0"
#endif

#define kv_fail(err, rc, ...) (kv_fail(err, rc, __VA_ARGS__), (rc))
#define kv_fail_rc(err, rc) (kv_fail_rc(err, rc), (rc))

#endif
