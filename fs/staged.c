/*
 * staged.c - see staged.h.
 *
 *     bytes written --> line --(newline)--> the engine's stage
 *                         `--(at the end of a write)--> kept by the engine
 *
 * Invariants:
 *  1. `line` is what was taken of a line whose end has not come. The engine keeps
 *     its first kept_len bytes, and at least one byte if there are any: so a
 *     commit sees that the last row is not whole.
 *  2. A line is given to the engine first, and only then is the engine told that
 *     nothing is kept any more: a commit in between refuses, and takes nothing
 *     twice or half.
 *  3. One who has a stage is on the list of fs_stages, from before it is opened
 *     until after it is closed.
 */
#include "fs/staged.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"
#include "fs/grammar.h"
#include "fs/view.h"

enum {
	LINE_KEEP = 64 << 10,  /* a longer line's room is given back */
	KEEP_ALWAYS = 1 << 20, /* up to here the engine keeps all of the line after each write */
	KEEP_LESS = 64 << 10,  /* of the 64 MiB that the engine would keep */
};

/* A row's text is at most four times its bytes (\ooo), less what the engine does not keep. */
#define LINE_MAX_BYTES (4 * CORE_ROW_MAX - KEEP_LESS)

struct fs_staged {
	struct fs_stage_writer writer; /* first: lock_writer() is handed it */
	struct fs *fs;
	struct core_shard *shard;
	struct fs_open *open; /* what it counts for; NULL: opened briefly */
	uint64_t nodeid;

	pthread_mutex_t mu;       /* all below */
	struct core_stage *stage; /* NULL: open for reading only */
	uint64_t end;             /* where the text ends for the one who writes it */
	size_t rows_text;         /* of the lines that were taken since the open */
	bool begun;               /* a line was taken: the next one is not the first */
	char *line;
	size_t line_len;
	size_t line_cap;
	size_t kept_len;
	struct core_row_scratch scratch;
	enum kv_rc lost; /* what lost rows, as long as they are lost; KV_OK: nothing known */
	bool noted;      /* the refusal stands in `errors`, and nothing was taken since */

	struct fs_view view; /* what is read */
};

/* --- the stage ------------------------------------------------------------------------------------- */

static enum kv_rc open_stage(struct fs_staged *s, bool briefly, struct kv_err *err)
{
	enum kv_rc rc;

	if (!fs_stages_claim(&s->fs->stages, &s->writer, briefly))
		return kv_fail_rc(err, KV_BATCH_BUSY);
	pthread_mutex_lock(&s->mu);
	rc = core_stage_open(s->shard, s->writer.id, &s->stage, err);
	pthread_mutex_unlock(&s->mu);
	if (rc == KV_OK)
		return KV_OK;
	fs_stages_ending(&s->fs->stages, &s->writer);
	fs_stages_unclaim(&s->fs->stages, &s->writer);
	return rc;
}

static enum kv_rc hand_over(struct fs_staged *s, bool all, struct kv_err *err) KV_MUST_CHECK;

static void close_stage(struct fs_staged *s)
{
	if (s->stage == NULL)
		return;
	fs_stages_ending(&s->fs->stages, &s->writer);
	(void)!hand_over(s, true, NULL); /* what cannot be kept, the engine marks as lost */
	core_stage_close(s->stage);
	s->stage = NULL;
	fs_stages_unclaim(&s->fs->stages, &s->writer);
}

enum kv_rc fs_staged_flushed(struct fs_staged *s, struct kv_err *err)
{
	atomic_store(&s->writer.flushed, true);
	return s->stage != NULL ? core_stage_room(s->stage, 0, err) : KV_OK;
}

/* Whoever writes the batch, locked, until given back with let_go; NULL: nobody, or not for long. */
static struct fs_staged *lock_writer(struct fs *fs, struct core_uuid id, bool wait)
{
	struct fs_staged *s = (struct fs_staged *)fs_stages_borrow(&fs->stages, id);
	bool locked;

	if (s == NULL)
		return NULL;
	locked = wait ? pthread_mutex_lock(&s->mu) == 0 : pthread_mutex_trylock(&s->mu) == 0;
	if (locked && s->stage != NULL)
		return s;
	if (locked)
		pthread_mutex_unlock(&s->mu);
	fs_stages_give_back(&fs->stages, &s->writer);
	return NULL;
}

static void let_go(struct fs_staged *w)
{
	pthread_mutex_unlock(&w->mu);
	fs_stages_give_back(&w->fs->stages, &w->writer);
}

void fs_staged_settle(struct fs *fs, struct core_uuid id)
{
	struct fs_staged *w = lock_writer(fs, id, false);

	if (w == NULL)
		return;
	(void)!hand_over(w, true, NULL); /* else it shows as far as the engine has it */
	let_go(w);
}

/* ESTALE is for write(2) alone. */
static enum kv_rc not_stale(enum kv_rc rc, struct kv_err *err)
{
	return rc == KV_BATCH_TAKEN ? kv_fail(err, KV_IO, "the batch was committed or removed meanwhile")
				    : rc;
}

/* After a failure: whether rows are lost. Then the failure is told again and again, in place of the mere
 * loss: the kernel cuts a write at 1 MiB, and drops the errno of a later piece. */
static bool is_lost(struct fs_staged *s, enum kv_rc *rc)
{
	struct core_staged entry;

	if (s->lost == KV_OK && core_staged_get_by_id(s->shard, s->writer.id, &entry, NULL) == KV_OK &&
	    entry.lost)
		s->lost = *rc;
	if (*rc == KV_BATCH_LOST && s->lost != KV_OK)
		*rc = s->lost;
	return s->lost != KV_OK;
}

/* --- lines ----------------------------------------------------------------------------------------- */

/* Whether the text ends here: for the one who wrote it, or truly. (The engine keeps it canonical and summed.)
 */
static bool ends_at(struct fs_staged *s, uint64_t offset)
{
	return offset == s->end || offset == core_stage_size(s->stage) + s->line_len - s->kept_len;
}

/* Bytes behind what there is of the line, which is not longer by that yet. */
static enum kv_rc put_behind(struct fs_staged *s, const char *p, size_t len, struct kv_err *err)
{
	size_t cap = s->line_cap != 0 ? s->line_cap : 256;
	char *grown;

	if (s->line_len + len > LINE_MAX_BYTES)
		return kv_fail(err, KV_ROW_TOO_LARGE, "a line of more than %zu bytes", LINE_MAX_BYTES);
	if (s->line_len + len > s->line_cap) {
		while (cap < s->line_len + len)
			cap *= 2;
		grown = realloc(s->line, cap);
		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		s->line = grown;
		s->line_cap = cap;
	}
	if (len != 0)
		memcpy(s->line + s->line_len, p, len);
	return KV_OK;
}

static void drop_line(struct fs_staged *s)
{
	s->line_len = 0;
	if (s->line_cap > LINE_KEEP) {
		free(s->line);
		s->line = NULL;
		s->line_cap = 0;
	}
}

/* Have the engine keep what there is of the line; of a long one that grew little only if all is asked for. */
static enum kv_rc hand_over(struct fs_staged *s, bool all, struct kv_err *err)
{
	bool little =
		s->kept_len != 0 && s->line_len > KEEP_ALWAYS && s->line_len - s->kept_len < s->kept_len / 8;
	enum kv_rc rc;

	if (s->line_len == s->kept_len || (little && !all))
		return KV_OK;
	rc = core_stage_keep(s->stage, s->line, s->line_len, err);
	if (rc == KV_OK)
		s->kept_len = s->line_len;
	return rc;
}

static enum kv_rc do_bounds(struct fs_staged *s, const char *line, size_t len, struct kv_err *err)
{
	struct core_frontier lower, upper;
	enum kv_rc rc;

	if (s->begun)
		return kv_fail(err, KV_BAD_SYNTAX, "only the first line may be a bounds line");
	rc = fs_parse_bounds(line, len, &lower, &upper, err);
	return rc == KV_OK ? core_stage_bounds(s->stage, lower, upper, err) : rc;
}

/* One line without its newline. */
static enum kv_rc do_line(struct fs_staged *s, const char *line, size_t len, struct kv_err *err)
{
	char quoted[CORE_QUOTE_LEN];
	struct core_row row;
	enum kv_rc rc;

	if (fs_is_bounds(line, len)) {
		rc = do_bounds(s, line, len, err);
	} else if (fs_line_kind(line, len) == FS_LINE_ROW) {
		rc = core_row_parse(line, len, &s->scratch, &row, err);
		if (rc == KV_OK)
			rc = core_stage_add(s->stage, &row, err);
	} else {
		rc = kv_fail(err, KV_BAD_SYNTAX, "line %s is no row; a staged batch has rows only",
			     core_quote(line, len, quoted));
	}
	s->begun = s->begun || rc == KV_OK;
	return rc;
}

/* The end of a line, which may have begun before. */
static enum kv_rc take_end(struct fs_staged *s, const char *p, size_t len, struct kv_err *err)
{
	enum kv_rc rc;

	if (s->line_len == 0)
		return do_line(s, p, len, err);
	rc = put_behind(s, p, len, err);
	if (rc == KV_OK)
		rc = do_line(s, s->line, s->line_len + len, err);
	if (rc != KV_OK)
		return rc;
	drop_line(s);
	s->kept_len = 0;
	return core_stage_keep(s->stage, NULL, 0, err);
}

/* The beginning of a line, or more of one. */
static enum kv_rc take_beginning(struct fs_staged *s, const char *p, size_t len, struct kv_err *err)
{
	enum kv_rc rc = put_behind(s, p, len, err);

	if (rc != KV_OK)
		return rc;
	s->line_len += len;
	rc = hand_over(s, false, err);
	if (rc != KV_OK)
		s->line_len -= len;
	return rc;
}

/* *done: the bytes of what was taken, line by line. */
static enum kv_rc take_in(struct fs_staged *s, const char *buf, size_t len, size_t *done, struct kv_err *err)
{
	const char *p = buf, *end = buf + len;
	enum kv_rc rc = core_stage_room(s->stage, len, err);

	while (p < end && rc == KV_OK) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));

		rc = nl != NULL ? take_end(s, p, (size_t)(nl - p), err)
				: take_beginning(s, p, (size_t)(end - p), err);
		if (rc == KV_OK) {
			s->rows_text += nl != NULL ? (size_t)(nl - p) : 0;
			p = nl != NULL ? nl + 1 : end;
			*done = (size_t)(p - buf);
		}
	}
	return rc;
}

/* A refusal in `errors`; once, though most clients write the same bytes again. */
static void note(struct fs_staged *s, pid_t pid, uid_t uid, enum kv_rc rc, struct kv_err *err)
{
	char verdict[FS_VERDICT_LEN];
	struct core_staged entry;

	if (s->noted)
		return;
	s->noted = true;
	if (err->rc != rc) /* whatever failed to say why */
		kv_fail_rc(err, rc);
	if (core_staged_get_by_id(s->shard, s->writer.id, &entry, NULL) == KV_OK)
		kv_wrap(err, rc, "batches/%s", entry.name);
	fs_verdict_error(err, verdict);
	fs_errors_add(&s->fs->errors, s->shard, pid, uid, verdict + strlen("error "));
}

size_t fs_staged_kept(const struct fs_staged *s)
{
	return s->line_len + s->view.staged.rest_len;
}

/* What is not stored takes so much memory, about. */
static size_t unfinished(const struct fs_staged *s)
{
	return fs_staged_kept(s) + (s->rows_text < FS_ROWS_HELD ? s->rows_text : FS_ROWS_HELD);
}

enum kv_rc fs_staged_write(struct fs_staged *s, pid_t pid, uid_t uid, bool append, uint64_t offset,
			   const char *buf, size_t len, size_t *done)
{
	struct kv_err err = {0};
	enum kv_rc rc;

	*done = 0;
	pthread_mutex_lock(&s->mu);
	atomic_store(&s->writer.flushed, false);
	if (s->lost != KV_OK) {
		rc = kv_fail_rc(&err, s->lost);
	} else if (!append && !ends_at(s, offset)) {
		rc = kv_fail(&err, KV_BAD_SYNTAX, "written at %llu, but it ends at %llu",
			     (unsigned long long)offset, (unsigned long long)s->end);
	} else if (!fs_commit_begin(s->fs)) {
		rc = kv_fail_rc(&err, KV_SHUTDOWN);
	} else {
		rc = fs_open_hold(s->fs, s->open, unfinished(s) + len, &err);
		if (rc == KV_OK)
			rc = take_in(s, buf, len, done, &err);
		(void)!fs_open_hold(s->fs, s->open, unfinished(s), NULL);
		fs_commit_end(s->fs);
	}
	if (rc != KV_OK && is_lost(s, &rc))
		*done = 0; /* the reason is worth more than the count */
	if (*done != 0) {
		s->end = offset + *done;
		s->noted = false;
	}
	if (rc != KV_OK)
		note(s, pid, uid, rc, &err);
	pthread_mutex_unlock(&s->mu);
	return *done != 0 ? KV_OK : rc;
}

enum kv_rc fs_staged_refuse(struct fs_staged *s, pid_t pid, uid_t uid, struct kv_err *why)
{
	pthread_mutex_lock(&s->mu);
	note(s, pid, uid, why->rc, why);
	pthread_mutex_unlock(&s->mu);
	return why->rc;
}

/* --- sync and cut ---------------------------------------------------------------------------------- */

/* To be opened briefly: what the engine keeps of a line is left with it. */
static struct fs_staged brief_stage(struct fs *fs, struct core_shard *shard, struct core_uuid id)
{
	return (struct fs_staged){
		.writer = {.id = id}, .fs = fs, .shard = shard, .mu = PTHREAD_MUTEX_INITIALIZER};
}

static enum kv_rc sync_stage(struct fs_staged *s, struct kv_err *err)
{
	enum kv_rc rc;

	if (!fs_commit_begin(s->fs))
		return kv_fail_rc(err, KV_SHUTDOWN);
	rc = hand_over(s, true, err);
	if (rc == KV_OK)
		rc = core_stage_sync(s->stage, err);
	if (rc == KV_OK)
		s->rows_text = 0; /* stored; what is open goes on counting until its next write */
	fs_commit_end(s->fs);
	if (rc != KV_OK)
		is_lost(s, &rc);
	return rc;
}

/* For one who reads: what others wrote, who may be at it. */
static enum kv_rc sync_others(const struct fs_staged *s, struct kv_err *err)
{
	struct fs_staged brief = brief_stage(s->fs, s->shard, s->writer.id);
	struct fs_staged *w = NULL;
	enum kv_rc rc = KV_BATCH_BUSY;

	if (core_engine_read_only(s->fs->engine))
		return KV_OK;
	while (rc == KV_BATCH_BUSY && w == NULL) { /* a writer may come in between */
		w = lock_writer(s->fs, s->writer.id, true);
		rc = w != NULL ? sync_stage(w, err) : open_stage(&brief, true, err);
	}
	if (w != NULL) {
		let_go(w);
	} else if (rc == KV_OK) {
		rc = sync_stage(&brief, err);
		close_stage(&brief);
	}
	pthread_mutex_destroy(&brief.mu);
	/* Committed meanwhile it is on stable storage, and of what was removed nothing needs to be. */
	return rc == KV_NO_BATCH || rc == KV_BATCH_TAKEN ? KV_OK : rc;
}

enum kv_rc fs_staged_sync(struct fs_staged *s, struct kv_err *err)
{
	enum kv_rc rc;

	pthread_mutex_lock(&s->mu);
	rc = s->stage != NULL ? sync_stage(s, err) : sync_others(s, err);
	pthread_mutex_unlock(&s->mu);
	return not_stale(rc, err);
}

static enum kv_rc bad_size(struct kv_err *err)
{
	return kv_fail(err, KV_BAD_SYNTAX, "a staged batch can be emptied, but not cut");
}

static enum kv_rc clear(struct fs_staged *s, struct kv_err *err)
{
	enum kv_rc rc;

	if (!fs_commit_begin(s->fs))
		return kv_fail_rc(err, KV_SHUTDOWN);
	rc = core_stage_clear(s->stage, err);
	fs_commit_end(s->fs);
	if (rc != KV_OK)
		return not_stale(rc, err);
	drop_line(s);
	s->kept_len = 0;
	s->begun = false;
	s->rows_text = 0;
	s->lost = KV_OK;
	s->end = 0;
	return KV_OK;
}

enum kv_rc fs_staged_cut(struct fs_staged *s, uint64_t size, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	pthread_mutex_lock(&s->mu);
	if (s->stage == NULL)
		rc = bad_size(err);
	else if (size == 0)
		rc = clear(s, err);
	else if (!ends_at(s, size))
		rc = bad_size(err);
	pthread_mutex_unlock(&s->mu);
	return rc;
}

enum kv_rc fs_staged_cut_path(struct fs *fs, struct core_shard *shard, struct core_uuid id, uint64_t size,
			      struct kv_err *err)
{
	struct fs_staged brief = brief_stage(fs, shard, id);
	struct core_staged entry;
	enum kv_rc rc;

	if (size != 0) {
		fs_staged_settle(fs, id);
		rc = core_staged_get_by_id(shard, id, &entry, err);
		return rc == KV_OK && size != entry.size ? bad_size(err) : rc;
	}
	rc = open_stage(&brief, true, err);
	if (rc == KV_OK) {
		rc = clear(&brief, err);
		if (rc == KV_OK)
			rc = sync_stage(&brief, err);
		close_stage(&brief);
	}
	pthread_mutex_destroy(&brief.mu);
	return rc;
}

/* --- reading --------------------------------------------------------------------------------------- */

static enum kv_rc open_view(struct fs_staged *s, struct kv_err *err)
{
	enum kv_rc rc;

	fs_view_close(&s->view, s->shard);
	rc = fs_view_open(&s->view, s->shard, s->writer.id, err);
	if (rc == KV_OK)
		fs_node_note_size(&s->fs->nodes, s->nodeid, fs_view_size(&s->view));
	return rc;
}

enum kv_rc fs_staged_read(struct fs_staged *s, uint64_t offset, char *buf, size_t len, size_t *got,
			  struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	*got = 0;
	pthread_mutex_lock(&s->mu);
	if (s->stage != NULL && (offset == 0 || !s->view.open)) {
		rc = hand_over(s, true, err);
		if (rc == KV_OK)
			rc = open_view(s, err);
	}
	if (rc == KV_OK)
		rc = fs_view_read(&s->view, offset, buf, len, got, err);
	pthread_mutex_unlock(&s->mu);
	return not_stale(rc, err);
}

/* --- open and close -------------------------------------------------------------------------------- */

/* Go on where the text ends. */
static enum kv_rc go_on(struct fs_staged *s, struct kv_err *err)
{
	enum kv_rc lost = KV_BATCH_LOST;
	size_t kept_len;
	const void *kept = core_stage_kept(s->stage, &kept_len);
	enum kv_rc rc = put_behind(s, kept, kept_len, err);

	if (rc != KV_OK)
		return rc;
	s->kept_len = kept_len;
	s->line_len = kept_len;
	s->end = core_stage_size(s->stage);
	s->begun = s->end != kept_len;
	is_lost(s, &lost);
	return KV_OK;
}

static enum kv_rc open_writer(struct fs_staged *s, bool truncate, struct kv_err *err)
{
	enum kv_rc rc = open_stage(s, false, err);

	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	rc = truncate ? clear(s, err) : go_on(s, err);
	pthread_mutex_unlock(&s->mu);
	return rc;
}

/* Between two writes of the one who writes, if somebody does. */
static enum kv_rc open_reader(struct fs_staged *s, struct kv_err *err)
{
	struct fs_staged *w = lock_writer(s->fs, s->writer.id, true);
	enum kv_rc rc;

	if (w == NULL)
		return open_view(s, err);
	(void)!hand_over(w, true, NULL); /* else it shows as far as the engine has it */
	rc = open_view(s, err);
	let_go(w);
	return rc;
}

enum kv_rc fs_staged_open(struct fs *fs, struct core_shard *shard, const struct fs_node *node, int flags,
			  struct fs_open *open, struct fs_staged **out, struct kv_err *err)
{
	struct fs_staged *s = calloc(1, sizeof *s);
	enum kv_rc rc = KV_OK;

	*out = NULL;
	if (s == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	pthread_mutex_init(&s->mu, NULL);
	s->fs = fs;
	s->shard = shard;
	s->writer.id = node->id;
	s->nodeid = node->nodeid;
	s->open = open;
	if ((flags & O_ACCMODE) != O_RDONLY) {
		rc = open_writer(s, (flags & O_TRUNC) != 0, err);
	} else {
		if ((flags & O_TRUNC) != 0)
			rc = fs_staged_cut_path(fs, shard, node->id, 0, err);
		if (rc == KV_OK)
			rc = open_reader(s, err);
	}
	if (rc == KV_OK)
		*out = s;
	else
		fs_staged_close(s);
	return rc;
}

void fs_staged_close(struct fs_staged *s)
{
	if (s == NULL)
		return;
	close_stage(s);
	fs_view_close(&s->view, s->shard);
	free(s->line);
	core_row_scratch_free(&s->scratch);
	pthread_mutex_destroy(&s->mu);
	free(s);
}
