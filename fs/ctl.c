/*
 * ctl.c - see ctl.h.
 *
 * expire is a commit like any other and done in its write. The other verbs are
 * asked of the engine and parked (park.h). A stop does not wait for them: it takes
 * back what was asked and answers KV_SHUTDOWN; they are no commits in flight.
 */
#include "fs/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/upkeep.h"
#include "fs/fs.h"
#include "fs/grammar.h"
#include "fs/verdicts.h"

struct fs_ctl {
	struct fs *fs;
	struct core_shard *shard;
	pthread_mutex_t mu; /* verdicts; held for moments */
	struct fs_verdicts verdicts;
};

/* A line whose verb is being done. */
struct command {
	struct fs_parked parked; /* first: the functions below are handed it */
	struct core_upkeep upkeep;
	bool done; /* the engine has said how it ended */
	struct fs_ctl *ctl;
	struct fs_ctl_ask ask;
	size_t len; /* of the line */
	pid_t pid;
	uid_t uid;
};

struct fs_ctl *fs_ctl_open(struct fs *fs, struct core_shard *shard)
{
	struct fs_ctl *c = calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	c->fs = fs;
	c->shard = shard;
	pthread_mutex_init(&c->mu, NULL);
	return c;
}

void fs_ctl_close(struct fs_ctl *c)
{
	if (c == NULL)
		return;
	fs_verdicts_fini(&c->verdicts);
	pthread_mutex_destroy(&c->mu);
	free(c);
}

static void add_verdict(struct fs_ctl *c, const char *line)
{
	pthread_mutex_lock(&c->mu);
	fs_verdicts_add(&c->verdicts, line);
	pthread_mutex_unlock(&c->mu);
}

size_t fs_ctl_read(struct fs_ctl *c, char *buf, size_t len)
{
	size_t n;

	pthread_mutex_lock(&c->mu);
	n = fs_verdicts_read(&c->verdicts, buf, len);
	pthread_mutex_unlock(&c->mu);
	return n;
}

/* The verdict must be there before the answer: who has that reads at once. */
static void succeed(struct command *d)
{
	char line[FS_VERDICT_LEN];

	add_verdict(d->ctl, fs_verdict_done(&d->ask, &d->upkeep.result, line));
	fs_reply_written(d->parked.req, d->len);
}

static void fail(struct command *d, enum kv_rc rc, struct kv_err *err)
{
	char verdict[FS_VERDICT_LEN];
	struct fs_ctl *c = d->ctl;

	if (err->rc != rc) /* whatever failed to say why */
		kv_fail_rc(err, rc);
	fs_verdict_error(err, verdict);
	add_verdict(c, verdict);
	if (rc != KV_INTERRUPTED && rc != KV_SHUTDOWN)
		fs_errors_add(&c->fs->errors, c->shard, d->pid, d->uid, verdict + strlen("error "));
	fs_reply_write_rc(d->parked.req, rc);
}

/* --- verbs that take their time -------------------------------------------------------------------- */

/* On a thread of the engine's, so only hand it on. */
static void upkeep_done(struct core_upkeep *u)
{
	struct command *d = (struct command *)(void *)((char *)u - offsetof(struct command, upkeep));

	d->done = true;
	fs_park_wake(&d->parked);
}

static bool command_begin(struct fs_parked *p)
{
	struct command *d = (struct command *)p;

	core_upkeep_begin(d->ctl->shard, &d->upkeep);
	return true;
}

static bool command_cancel(struct fs_parked *p)
{
	return core_upkeep_cancel(&((struct command *)p)->upkeep);
}

static void command_end(struct fs_parked *p, enum kv_rc rc)
{
	struct command *d = (struct command *)p;
	struct kv_err err = {0};

	if (d->done) { /* then that is the answer, whatever came behind it */
		rc = d->upkeep.rc;
		err = d->upkeep.err;
	} else if (rc == KV_INTERRUPTED) {
		kv_fail(&err, rc, "interrupted; what was begun goes on");
	}
	if (rc == KV_OK)
		succeed(d);
	else
		fail(d, rc, &err);
}

static void command_free(struct fs_parked *p)
{
	free(p);
}

/* --- lines ----------------------------------------------------------------------------------------- */

static enum kv_rc expire(struct fs_ctl *c, const struct fs_ctl_ask *ask, struct kv_err *err)
{
	enum kv_rc rc;

	if (!fs_commit_begin(c->fs))
		return kv_fail_rc(err, KV_SHUTDOWN);
	rc = core_shard_expire(c->shard, ask->expired_kind, ask->expired, err);
	fs_commit_end(c->fs);
	return rc;
}

void fs_ctl_write(struct fs_ctl *c, fuse_req_t req, const char *line, size_t len)
{
	static const struct fs_park_ops ops = {.kind = FS_PARKED_CTL,
					       .begin = command_begin,
					       .cancel = command_cancel,
					       .end = command_end,
					       .free = command_free};
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct command now = {.parked.req = req, .ctl = c, .len = len, .pid = ctx->pid, .uid = ctx->uid}, *d;
	struct kv_err err = {0};
	enum kv_rc rc = fs_parse_ctl(line, len, &now.ask, &err);

	if (rc == KV_OK && now.ask.verb == FS_VERB_EXPIRE) {
		rc = expire(c, &now.ask, &err);
		if (rc == KV_OK) {
			succeed(&now);
			return;
		}
	}
	d = rc == KV_OK ? malloc(sizeof *d) : NULL;
	if (rc == KV_OK && d == NULL)
		rc = kv_fail_rc(&err, KV_NOMEM);
	if (rc != KV_OK) {
		fail(&now, rc, &err);
		return;
	}
	*d = now;
	d->upkeep = (struct core_upkeep){.kind = now.ask.upkeep, .done = upkeep_done};
	fs_park(&c->fs->waits, &d->parked, &ops, req);
}
