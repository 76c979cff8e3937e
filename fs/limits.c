/*
 * limits.c - see limits.h. A user is in the table while he has something open.
 */
#include "fs/limits.h"

#include <assert.h>
#include <stdlib.h>

#include "core/hash.h"

struct fs_user {
	uid_t uid;
	size_t open;
	size_t held;
	UT_hash_handle hh; /* by uid */
};

void fs_limits_init(struct fs_limits *l, unsigned max_user_open, unsigned max_open)
{
	*l = (struct fs_limits){
		.max_user_open = max_user_open != 0 ? max_user_open : FS_MAX_USER_OPEN,
		.max_open = max_open != 0 ? max_open : FS_MAX_OPEN,
	};
	pthread_mutex_init(&l->mu, NULL);
}

void fs_limits_fini(struct fs_limits *l)
{
	assert(l->open == 0 && l->held == 0 && l->users == NULL);
	pthread_mutex_destroy(&l->mu);
}

/* Whether there is room for so many more. */
static enum kv_rc check_locked(const struct fs_limits *l, const struct fs_user *user, uid_t uid, size_t more,
			       struct kv_err *err)
{
	size_t has = user != NULL ? user->open : 0;

	size_t max = uid == 0 ? (size_t)l->max_open + FS_ROOT_OPEN : l->max_open;

	if (uid != 0 && has + more > l->max_user_open)
		return kv_fail(err, KV_TOO_MANY_OPEN, "user %u has %u files open, which is the limit",
			       (unsigned)uid, l->max_user_open);
	if (l->open + more > max)
		return kv_fail(err, KV_ALL_TOO_MANY, "%zu files are open, which is the limit", l->open);
	return KV_OK;
}

static struct fs_user *user_locked(struct fs_limits *l, uid_t uid)
{
	struct fs_user *user = calloc(1, sizeof *user);

	if (user != NULL) {
		user->uid = uid;
		HASH_ADD(hh, l->users, uid, sizeof user->uid, user);
		if (!core_hashed(user)) {
			free(user);
			user = NULL;
		}
	}
	return user;
}

enum kv_rc fs_limits_enter(struct fs_limits *l, uid_t uid, struct fs_user **user, struct kv_err *err)
{
	struct fs_user *u;
	enum kv_rc rc;

	*user = NULL;
	pthread_mutex_lock(&l->mu);
	HASH_FIND(hh, l->users, &uid, sizeof uid, u);
	rc = check_locked(l, u, uid, 1, err);
	if (rc == KV_OK && u == NULL) {
		u = user_locked(l, uid);
		rc = u != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	}
	if (rc == KV_OK) {
		u->open++;
		l->open++;
		*user = u;
	} else {
		l->refused++;
	}
	pthread_mutex_unlock(&l->mu);
	return rc;
}

enum kv_rc fs_limits_weigh(struct fs_limits *l, struct fs_user *user, size_t bytes, size_t *weight,
			   struct kv_err *err)
{
	size_t now = 1 + bytes / FS_OPEN_BYTES, more = now > *weight ? now - *weight : 0;
	enum kv_rc rc;

	pthread_mutex_lock(&l->mu);
	rc = check_locked(l, user, user->uid, more, err);
	if (rc == KV_OK) {
		user->open = user->open - *weight + now;
		l->open = l->open - *weight + now;
		*weight = now;
	} else {
		l->refused++;
	}
	pthread_mutex_unlock(&l->mu);
	return rc;
}

enum kv_rc fs_limits_hold(struct fs_limits *l, struct fs_user *user, size_t *held, size_t bytes,
			  struct kv_err *err)
{
	size_t more = bytes > *held ? bytes - *held : 0;
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&l->mu);
	if (more != 0 && user->uid != 0 && user->held + more > FS_MAX_USER_HELD)
		rc = kv_fail(err, KV_NOMEM, "what user %u has written and not finished exceeds %zu MiB",
			     (unsigned)user->uid, FS_MAX_USER_HELD >> 20);
	else if (more != 0 && l->held + more > FS_MAX_HELD)
		rc = kv_fail(err, KV_NOMEM, "what all users have written and not finished exceeds %zu MiB",
			     FS_MAX_HELD >> 20);
	if (rc == KV_OK) {
		user->held = user->held - *held + bytes;
		l->held = l->held - *held + bytes;
		*held = bytes;
	} else {
		l->refused++;
	}
	pthread_mutex_unlock(&l->mu);
	return rc;
}

void fs_limits_leave(struct fs_limits *l, struct fs_user *user, size_t weight)
{
	if (user == NULL)
		return;
	pthread_mutex_lock(&l->mu);
	assert(user->open >= weight && l->open >= weight);
	l->open -= weight;
	user->open -= weight;
	if (user->open == 0) {
		HASH_DEL(l->users, user);
		free(user);
	}
	pthread_mutex_unlock(&l->mu);
}

struct fs_limits_count fs_limits_count(struct fs_limits *l)
{
	struct fs_limits_count c;

	pthread_mutex_lock(&l->mu);
	c = (struct fs_limits_count){.users = HASH_COUNT(l->users), .held = l->held, .refused = l->refused};
	pthread_mutex_unlock(&l->mu);
	return c;
}
