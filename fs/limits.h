/*
 * limits.h - what one user may take of a mount that all share.
 *
 * An open file costs the mount memory until it is closed, and closing is up to the client. So each user may
 * have so many open at a time, and all users together so many; a few are left to root, who then can still
 * look and clean up.
 *
 * What is open counts once, and once more for each FS_OPEN_BYTES of text that was made for it (a long
 * listing, `state`) or will be kept for it (a snapshot, a listener): so the limit is one of memory too.
 *
 * What is written and not finished takes memory besides: the beginning of a line, and the rows of a
 * transaction or of a staged batch before they are shipped. Of that each user may have so much, and all
 * together so much, whatever is open. The longest row there can be is within it.
 *
 * Threads: any.
 */
#ifndef FS_LIMITS_H
#define FS_LIMITS_H

#include <pthread.h>
#include <stddef.h>
#include <sys/types.h>

#include "kv/rc.h"

enum { FS_MAX_USER_OPEN = 16384, FS_MAX_OPEN = 49152, FS_ROOT_OPEN = 64, FS_OPEN_BYTES = 4096 };

/* Of what is not finished; and what rows count at most, for more are shipped. */
#define FS_MAX_USER_HELD ((size_t)80 << 20)
#define FS_MAX_HELD ((size_t)160 << 20)
#define FS_ROWS_HELD ((size_t)512 << 10)

/* What is written in one piece, or is not finished and is more: it is parsed for long, or shipped. */
#define FS_LARGE ((size_t)64 << 10)

struct fs_user; /* one who has something open */

struct fs_limits {
	unsigned max_user_open; /* constant while mounted */
	unsigned max_open;
	pthread_mutex_t mu; /* all below; held for moments */
	struct fs_user *users;
	size_t open;
	size_t held;
	size_t refused;
};

void fs_limits_init(struct fs_limits *l, unsigned max_user_open, unsigned max_open);
void fs_limits_fini(struct fs_limits *l);

/*
 * One more is open for user uid; *user: to be given back with fs_limits_leave.
 * KV_TOO_MANY_OPEN   the user has as many as he may
 * KV_ALL_TOO_MANY    all users together have
 * KV_NOMEM
 */
enum kv_rc fs_limits_enter(struct fs_limits *l, uid_t uid, struct fs_user **user,
			   struct kv_err *err) KV_MUST_CHECK;

/* It takes so many bytes. *weight, at first 1, is what it counts then. Codes as above; nothing changed then.
 */
enum kv_rc fs_limits_weigh(struct fs_limits *l, struct fs_user *user, size_t bytes, size_t *weight,
			   struct kv_err *err) KV_MUST_CHECK;

void fs_limits_leave(struct fs_limits *l, struct fs_user *user, size_t weight); /* NULL is allowed */

/*
 * What is written through something open holds so many bytes now, *held before. Less always works.
 * KV_NOMEM   the user, or all together, would hold too much; nothing changed
 */
enum kv_rc fs_limits_hold(struct fs_limits *l, struct fs_user *user, size_t *held, size_t bytes,
			  struct kv_err *err) KV_MUST_CHECK;

/* How many users have something open, and how many opens were refused since the start. */
struct fs_limits_count {
	size_t users;
	size_t held;
	size_t refused;
};
struct fs_limits_count fs_limits_count(struct fs_limits *l);

#endif
