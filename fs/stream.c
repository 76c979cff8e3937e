/*
 * stream.c - see stream.h.
 *
 * The buffer holds the text from `from` to `from + len`; the source stands behind
 * its last byte. A read makes text until its end is in the buffer; what lies more
 * than a window before that is dropped, some slack at a time. There may be thousands
 * of listeners, so the window is WINDOW only while all streams together keep less
 * than STREAMS_KEEP; what a smaller one has dropped the source makes again.
 */
#include "fs/stream.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum {
	STREAMS_KEEP = 16 << 20,
	WINDOW = 1 << 20,
	SLACK = 256 << 10,
	SMALL_WINDOW = 8 << 10,
	SMALL_SLACK = 8 << 10,
	CAP_MIN = 16 << 10,
	CHECK = 64 << 10, /* of text, between two looks at what the source takes */
	/* The kernel cuts a read(2) into pieces of a MiB, the first of which is up to a page shorter, and
	 * asks for the next piece when one was answered in full. */
	PIECE = (1 << 20) - 4096
};

struct fs_stream {
	struct fs_source *source;
	struct fs_share share;
	uint64_t check_at; /* see CHECK */
	char *buf;
	size_t cap;
	size_t len;
	uint64_t from;
	uint64_t read_to; /* the end of the last read */
	bool ended;
	struct kv_err failed; /* rc != KV_OK: what came instead of more text, and comes again */
};

static struct fs_source *source_of(const struct fs_share *share)
{
	return ((const struct fs_stream *)((const char *)share - offsetof(struct fs_stream, share)))->source;
}

static size_t share_held(const struct fs_share *share)
{
	const struct fs_source *source = source_of(share);

	return source->ops->held(source);
}

static size_t share_need(const struct fs_share *share)
{
	const struct fs_source *source = source_of(share);

	return source->ops->need(source);
}

static void share_rest(struct fs_share *share)
{
	struct fs_source *source = source_of(share);

	source->ops->rest(source);
}

struct fs_stream *fs_stream_open(struct fs_source *source, struct fs_budget *budget)
{
	static const struct fs_share_ops ops = {share_held, share_need, share_rest};
	struct fs_stream *s = source != NULL ? calloc(1, sizeof *s) : NULL;

	if (s != NULL) {
		s->source = source;
		fs_share_init(&s->share, budget, &ops);
	} else if (source != NULL) {
		source->ops->close(source);
	}
	return s;
}

/* How large a buffer is for so much text: by doubling, then by steps. */
static size_t cap_for(size_t len)
{
	size_t cap = CAP_MIN;

	while (cap < len && cap < SLACK)
		cap *= 2;
	return cap >= len ? cap : (len + SLACK - 1) / SLACK * SLACK;
}

static bool set_cap(struct fs_stream *s, size_t cap)
{
	char *buf = realloc(s->buf, cap);

	if (buf == NULL)
		return false;
	atomic_fetch_add(&s->share.budget->text, cap - s->cap); /* modulo 2^64: less too */
	s->buf = buf;
	s->cap = cap;
	return true;
}

void fs_stream_grows(struct fs_stream *s)
{
	s->check_at = 0;
}

char *fs_stream_put(struct fs_stream *s, size_t len)
{
	if (s->len + len > s->cap && !set_cap(s, cap_for(s->len + len)))
		return NULL;
	s->len += len;
	return s->buf + s->len - len;
}

enum kv_rc fs_stream_put_row(struct fs_stream *s, const struct core_update *u, struct kv_err *err)
{
	char *to = fs_stream_put(s, core_row_text_len(u));

	if (to == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	core_row_format(u, to);
	return KV_OK;
}

/* Keep at most a window before `offset`, but only when that is worth a move; and give back room that is not
 * needed any more. */
static void trim(struct fs_stream *s, uint64_t offset)
{
	bool small = atomic_load(&s->share.budget->text) > STREAMS_KEEP;
	size_t window = small ? SMALL_WINDOW : WINDOW, slack = small ? SMALL_SLACK : SLACK, drop;

	if (offset < s->from + window + slack)
		return;
	drop = (size_t)(offset - s->from - window);
	if (drop > s->len)
		drop = s->len;
	memmove(s->buf, s->buf + drop, s->len - drop);
	s->len -= drop;
	s->from += drop;
	if (s->cap > s->len + 2 * window)
		(void)set_cap(s, cap_for(s->len + slack)); /* or it stays as it is */
}

static bool go_back(struct fs_stream *s, uint64_t offset)
{
	if (!s->source->ops->rewind(s->source, offset, &s->from))
		return false;
	s->len = 0;
	s->ended = false;
	s->failed.rc = KV_OK;
	s->check_at = 0;
	return true;
}

/* Make text until `until`, the end, a failure, or there is none yet. Within a share's read. */
static void make(struct fs_stream *s, uint64_t offset, uint64_t until)
{
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && s->failed.rc == KV_OK && !s->ended && s->from + s->len < until) {
		struct kv_err err = {0};

		if (s->from + s->len >= s->check_at) {
			s->check_at = s->from + s->len + CHECK;
			fs_share_check(&s->share);
		}
		trim(s, s->from + s->len < offset ? s->from + s->len : offset);
		rc = s->source->ops->produce(s->source, s, &s->ended, &err);
		if (rc != KV_OK && rc != KV_WOULD_BLOCK) {
			s->failed = err;
			s->failed.rc = rc;
		}
	}
}

/* The same, from wherever offset is. False: it lies before what can be made again. */
static bool make_from(struct fs_stream *s, uint64_t offset, uint64_t until)
{
	bool there = offset >= s->from;

	if (there && (s->from + s->len >= until || s->ended || s->failed.rc != KV_OK))
		return true;
	fs_share_begin(&s->share);
	s->check_at = s->from + s->len + CHECK;
	there = there || go_back(s, offset);
	if (there)
		make(s, offset, until);
	fs_share_end(&s->share);
	fs_budget_tidy(s->share.budget);
	return there;
}

enum kv_rc fs_stream_read(struct fs_stream *s, uint64_t offset, size_t len, const char **data, size_t *got,
			  struct kv_err *err)
{
	uint64_t have;

	*data = NULL;
	*got = 0;
	if (!make_from(s, offset, offset + len + (len >= PIECE)))
		return kv_fail(err, KV_BAD_OFFSET, "what lies so far back cannot be read again");
	have = s->from + s->len;
	if (offset >= have) {
		/* What came before a failure is given first; then the failure, each time. */
		if (s->failed.rc != KV_OK && err != NULL)
			*err = s->failed;
		if (s->failed.rc != KV_OK)
			return s->failed.rc;
		return s->ended ? KV_OK : kv_fail_rc(err, KV_WOULD_BLOCK);
	}
	*data = s->buf + (offset - s->from);
	*got = have - offset < len ? (size_t)(have - offset) : len;
	/* What is there is to be given even where the next piece would have to wait. */
	if (len >= PIECE && have == offset + len && !s->ended && s->failed.rc == KV_OK)
		(*got)--;
	s->read_to = offset + *got;
	return KV_OK;
}

bool fs_stream_ready(struct fs_stream *s)
{
	(void)make_from(s, s->read_to, s->read_to + 1); /* it is there, or behind */
	return s->ended || s->failed.rc != KV_OK || s->from + s->len > s->read_to;
}

void fs_stream_close(struct fs_stream *s)
{
	struct fs_budget *budget;

	if (s == NULL)
		return;
	budget = s->share.budget;
	fs_share_leave(&s->share, s->cap);
	s->source->ops->close(s->source);
	free(s->buf);
	free(s);
	fs_budget_tidy(budget);
}

/* --- snapshots ------------------------------------------------------------------------------------- */

struct snapshot_source {
	struct fs_source source;
	struct core_snapshot *snapshot;
};

static enum kv_rc snapshot_produce(struct fs_source *source, struct fs_stream *to, bool *ended,
				   struct kv_err *err)
{
	struct snapshot_source *s = (struct snapshot_source *)source;
	struct core_update u;
	enum kv_rc rc = core_snapshot_next(s->snapshot, &u, ended, err);

	return rc != KV_OK || *ended ? rc : fs_stream_put_row(to, &u, err);
}

static bool snapshot_rewind(struct fs_source *source, uint64_t offset, uint64_t *from)
{
	(void)offset;
	*from = 0;
	core_snapshot_rewind(((struct snapshot_source *)source)->snapshot);
	return true;
}

static size_t snapshot_held(const struct fs_source *source)
{
	return core_snapshot_held(((const struct snapshot_source *)source)->snapshot);
}

static size_t snapshot_need(const struct fs_source *source)
{
	return core_snapshot_need(((const struct snapshot_source *)source)->snapshot);
}

static void snapshot_rest(struct fs_source *source)
{
	core_snapshot_rest(((struct snapshot_source *)source)->snapshot);
}

static void snapshot_close(struct fs_source *source)
{
	core_snapshot_close(((struct snapshot_source *)source)->snapshot);
	free(source);
}

struct fs_source *fs_source_snapshot(struct core_snapshot *snapshot)
{
	static const struct fs_source_ops ops = {snapshot_produce, snapshot_rewind, snapshot_held,
						 snapshot_need,    snapshot_rest,   snapshot_close};
	struct snapshot_source *s = calloc(1, sizeof *s);

	if (s == NULL) {
		core_snapshot_close(snapshot);
		return NULL;
	}
	s->source.ops = &ops;
	s->snapshot = snapshot;
	return &s->source;
}
