/*
 * append.c - see append.h.
 *
 *                begin            row, batch
 *     idle ----------------> open ----------. <-
 *      ^                      |             |
 *      |       commit ok      |             '----
 *      '----------------------'
 *     any failure: spent, until reset
 *
 * The commit that ends a write is done with the handle's lock let go, and may end on another thread, which
 * answers the write. Until then it has the turn, for which all calls wait.
 *
 * Invariants:
 *  1. txn != NULL iff the state is open.
 *  2. once spent, nothing is parsed, and txn == NULL.
 *  3. who has the turn, and nobody else, looks at what is below it.
 */
#include "fs/append.h"

#include <assert.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"
#include "fs/grammar.h"
#include "fs/large.h"
#include "fs/verdicts.h"

enum {
	LINE_KEEP = 64 << 10, /* a longer line's room is given back */
};

/* A row's text is at most four times its bytes (\ooo), and a little for its numbers. */
#define LINE_MAX_BYTES (4 * CORE_ROW_MAX + 256)

struct fs_append {
	struct fs *fs;
	struct core_shard *shard;
	struct fs_open *open;
	sem_t turn; /* 1, or 0 while a call or a commit works on all below; any thread may give it back */
	struct core_txn *txn;
	uint64_t rows;
	size_t text;    /* of the lines of the transaction */
	bool swallowed; /* the last row ends in `commit`: perhaps it has no newline of its own */
	pid_t pid;      /* who wrote last */
	uid_t uid;

	char *line; /* the beginning of a line whose end has not come */
	size_t line_len;
	size_t line_cap;
	struct core_row_scratch scratch;

	enum kv_rc spent; /* KV_OK: it is not */

	bool may_go_on; /* the write under way may leave its last commit to be done, */
	bool commits;   /* and has */
	size_t done;    /* of its bytes, those before that transaction; and all */
	size_t len;
	struct fs_append_asker asker;

	struct fs_verdicts verdicts;
};

struct fs_append *fs_append_open(struct fs *fs, struct core_shard *shard, struct fs_open *open)
{
	struct fs_append *a = calloc(1, sizeof *a);

	if (a == NULL)
		return NULL;
	a->fs = fs;
	a->shard = shard;
	a->open = open;
	sem_init(&a->turn, 0, 1);
	return a;
}

static void take_turn(struct fs_append *a)
{
	while (sem_wait(&a->turn) != 0)
		; /* a signal */
}

static void give_turn(struct fs_append *a)
{
	sem_post(&a->turn);
}

static void drop_txn(struct fs_append *a)
{
	core_txn_free(a->txn);
	a->txn = NULL;
	a->rows = 0;
	a->text = 0;
}

static void drop_line(struct fs_append *a)
{
	a->line_len = 0;
	if (a->line_cap > LINE_KEEP) {
		free(a->line);
		a->line = NULL;
		a->line_cap = 0;
	}
}

size_t fs_append_read(struct fs_append *a, char *buf, size_t len)
{
	size_t got;

	take_turn(a);
	got = fs_verdicts_read(&a->verdicts, buf, len);
	give_turn(a);
	return got;
}

/* --- lines ----------------------------------------------------------------------------------------- */

static enum kv_rc do_begin(struct fs_append *a, const char *line, size_t len, struct kv_err *err)
{
	struct core_append ask;
	enum kv_rc rc;

	if (a->txn != NULL)
		return kv_fail(err, KV_BAD_SYNTAX, "begin inside a transaction: its commit line is missing");
	rc = fs_parse_begin(line, len, &ask, err);
	return rc == KV_OK ? core_txn_begin(a->shard, &ask, &a->txn, err) : rc;
}

static enum kv_rc do_row(struct fs_append *a, const char *line, size_t len, struct kv_err *err)
{
	struct core_row row;
	enum kv_rc rc;

	if (a->txn == NULL)
		return kv_fail(err, KV_BAD_SYNTAX, "a row outside a transaction: its begin line is missing");
	rc = core_row_parse(line, len, &a->scratch, &row, err);
	if (rc == KV_OK)
		rc = core_txn_add(a->txn, &row, err);
	a->rows += rc == KV_OK;
	a->swallowed = len > 6 && memcmp(line + len - 6, "commit", 6) == 0;
	return rc;
}

static enum kv_rc do_batch(struct fs_append *a, const char *line, size_t len, struct kv_err *err)
{
	char name[FS_BATCH_NAME_LEN];
	enum kv_rc rc;

	if (a->txn == NULL)
		return kv_fail(err, KV_BAD_SYNTAX,
			       "a batch line outside a transaction: its begin line is missing");
	rc = fs_parse_batch(line, len, name, err);
	return rc == KV_OK ? core_txn_add_staged(a->txn, name, err) : rc;
}

/* last: nothing comes behind it. */
static enum kv_rc do_commit(struct fs_append *a, bool last, struct kv_err *err)
{
	struct core_appended appended;
	char verdict[FS_VERDICT_LEN];
	enum kv_rc rc;

	if (a->txn == NULL)
		return kv_fail(err, KV_BAD_SYNTAX, "commit outside a transaction: its begin line is missing");
	if (!fs_commit_begin(a->fs))
		return kv_fail(err, KV_SHUTDOWN, "the mount is shutting down; nothing was applied");
	if (last && a->may_go_on) {
		a->commits = true;
		return KV_OK;
	}
	fs_large_raise();
	rc = core_txn_commit(a->txn, &appended, err);
	fs_commit_end(a->fs);
	drop_txn(a);
	if (rc == KV_OK)
		fs_verdicts_add(&a->verdicts, fs_verdict_ok(&appended, verdict));
	return rc;
}

/* One line without its newline; last: of what was written. *committed: it ended a transaction. */
static enum kv_rc do_line(struct fs_append *a, const char *line, size_t len, bool last, bool *committed,
			  struct kv_err *err)
{
	*committed = false;
	switch (fs_line_kind(line, len)) {
	case FS_LINE_ROW:
		return do_row(a, line, len, err);
	case FS_LINE_BEGIN:
		return do_begin(a, line, len, err);
	case FS_LINE_BATCH:
		return do_batch(a, line, len, err);
	case FS_LINE_COMMIT:
		*committed = true;
		return do_commit(a, last, err);
	case FS_LINE_BAD:
		break;
	}
	return kv_fail(err, KV_BAD_SYNTAX, "line \"%.*s\" is none of begin, a row, batch <name>, commit",
		       (int)(len < 40 ? len : 40), line);
}

/* Keep the beginning of a line for the next call. */
static enum kv_rc keep(struct fs_append *a, const char *p, size_t len, struct kv_err *err)
{
	if (a->line_len + len > LINE_MAX_BYTES)
		return kv_fail(err, KV_ROW_TOO_LARGE, "a line of more than %zu bytes", LINE_MAX_BYTES);
	if (a->line_len + len > a->line_cap) {
		size_t cap = a->line_cap != 0 ? a->line_cap : 256;
		char *grown;

		while (cap < a->line_len + len)
			cap *= 2;
		grown = realloc(a->line, cap);
		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		a->line = grown;
		a->line_cap = cap;
	}
	memcpy(a->line + a->line_len, p, len);
	a->line_len += len;
	return KV_OK;
}

/* The failure of a transaction: remembered, told, noted. */
static void spend(struct fs_append *a, enum kv_rc rc, struct kv_err *err)
{
	char verdict[FS_VERDICT_LEN];

	assert(rc != KV_OK);
	if (err->rc != rc) /* whatever failed to say why */
		kv_fail_rc(err, rc);
	a->spent = rc;
	drop_txn(a);
	drop_line(a);
	fs_verdict_error(err, verdict);
	fs_verdicts_add(&a->verdicts, verdict);
	fs_errors_add(&a->fs->errors, a->shard, a->pid, a->uid, verdict + strlen("error "));
}

/* What is not finished takes so much memory, about. */
static size_t unfinished(const struct fs_append *a)
{
	return a->line_len + (a->text < FS_ROWS_HELD ? a->text : FS_ROWS_HELD);
}

/* What was written is taken in, but for a commit at its end. */
static enum kv_rc take_in(struct fs_append *a, const char *buf, size_t len, struct kv_err *err)
{
	const char *p = buf, *end = buf + len;
	enum kv_rc rc = KV_OK;

	if (unfinished(a) != 0 || len > FS_LARGE) /* else what it finishes need not be counted */
		rc = fs_open_hold(a->fs, a->open, unfinished(a) + len, err);
	while (p < end && rc == KV_OK) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t piece = (size_t)((nl != NULL ? nl : end) - p);
		bool committed = false, last = nl != NULL && nl + 1 == end;

		if (nl == NULL || a->line_len != 0)
			rc = keep(a, p, piece, err);
		if (rc == KV_OK && nl != NULL) {
			rc = a->line_len != 0 ? do_line(a, a->line, a->line_len, last, &committed, err)
					      : do_line(a, p, piece, last, &committed, err);
			drop_line(a);
		}
		a->text += a->txn != NULL ? piece : 0;
		p += piece + (nl != NULL);
		if (rc == KV_OK && committed && !a->commits)
			a->done = (size_t)(p - buf);
	}
	return rc;
}

/* The write ended with rc: what it returns, and how many bytes were taken. */
static enum kv_rc ended(struct fs_append *a, enum kv_rc rc, struct kv_err *err, size_t *done)
{
	if (rc == KV_OK) /* one that left its rows unfinished is refused like one that came with them */
		rc = fs_open_hold(a->fs, a->open, unfinished(a), err);
	if (rc == KV_OK) {
		*done = a->len;
		return KV_OK;
	}
	spend(a, rc, err);
	(void)!fs_open_hold(a->fs, a->open, 0, NULL);
	*done = a->done;
	return *done != 0 ? KV_OK : rc;
}

enum kv_rc fs_append_write(struct fs_append *a, pid_t pid, uid_t uid, const char *buf, size_t len,
			   size_t *done, bool *commits)
{
	struct kv_err err = {0};
	enum kv_rc rc;

	take_turn(a);
	*done = 0;
	a->may_go_on = commits != NULL;
	if (commits != NULL)
		*commits = false;
	a->pid = pid;
	a->uid = uid;
	a->done = 0;
	a->len = len;
	rc = a->spent;
	if (rc == KV_OK) {
		rc = take_in(a, buf, len, &err);
		if (a->commits) {
			assert(commits != NULL); /* else it was done in take_in */
			*commits = true;
			return KV_OK; /* the turn goes on */
		}
		rc = ended(a, rc, &err, done);
	}
	give_turn(a);
	return rc;
}

static void commit_over(void *arg, enum kv_rc rc, const struct core_appended *r, struct kv_err *err)
{
	struct fs_append *a = arg;
	struct fs *fs = a->fs;
	const struct fs_append_asker asker = a->asker;
	struct kv_err why = {0};
	char verdict[FS_VERDICT_LEN];
	size_t done;

	if (rc == KV_OK)
		fs_verdicts_add(&a->verdicts, fs_verdict_ok(r, verdict));
	else
		why = *err; /* the transaction's */
	drop_txn(a);
	a->commits = false;
	rc = ended(a, rc, &why, &done);
	give_turn(a); /* before the answer, which the next write may follow at once */
	asker.over(&asker, rc, done);
	fs_commit_end(fs);
}

void fs_append_commit(struct fs_append *a, const struct fs_append_asker *asker)
{
	assert(a->commits);
	a->asker = *asker;
	core_txn_submit(a->txn, commit_over, a);
}

enum kv_rc fs_append_refuse(struct fs_append *a, pid_t pid, uid_t uid, struct kv_err *why)
{
	enum kv_rc rc;

	take_turn(a);
	rc = a->spent;
	if (rc == KV_OK) {
		a->pid = pid;
		a->uid = uid;
		rc = why->rc;
		spend(a, rc, why);
		(void)!fs_open_hold(a->fs, a->open, 0, NULL);
	}
	give_turn(a);
	return rc;
}

void fs_append_reset(struct fs_append *a)
{
	take_turn(a);
	drop_txn(a);
	drop_line(a);
	a->spent = KV_OK;
	fs_verdicts_clear(&a->verdicts);
	(void)!fs_open_hold(a->fs, a->open, 0, NULL);
	give_turn(a);
}

/* Why a transaction that was begun came to nothing. */
static const char *why_abandoned(const struct fs_append *a)
{
	if (a->line_len == 6 && memcmp(a->line, "commit", 6) == 0)
		return "closed before the newline of the commit line";
	if (a->line_len == 0 && a->rows != 0 && a->swallowed)
		return "closed before the commit line; the last row ends in commit, as if its newline were "
		       "missing";
	return "closed before the commit line";
}

void fs_append_close(struct fs_append *a)
{
	char what[224];

	if (a->txn != NULL || a->line_len != 0) {
		snprintf(what, sizeof what,
			 "Abandoned updates=%" PRIu64 " message=\"%s; nothing was applied\"", a->rows,
			 why_abandoned(a));
		fs_errors_add(&a->fs->errors, a->shard, a->pid, a->uid, what);
	}
	drop_txn(a);
	free(a->line);
	core_row_scratch_free(&a->scratch);
	fs_verdicts_fini(&a->verdicts);
	sem_destroy(&a->turn);
	free(a);
}
