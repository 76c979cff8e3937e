/*
 * import_text.c - the text of an export (export.h), line by line.
 *
 * 1. A shard's end is told only when its checksum was right, so what was told of it before is as it was
 * written.
 * 2. The end is the line `total` with the checksum of all, and nothing behind it: a stream that was cut off
 * has none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/import_impl.h"
#include "core/staged.h"

#define TEXT_MAX (2 * CORE_ROW_MAX + 4096) /* of a line: escapes double a row */
enum { READ_LEN = 256 << 10, XXH_DIGITS = 16 };

struct text {
	const struct core_import_source *source;
	const struct core_import_lines *lines;
	void *arg;
	XXH3_state_t *all;
	XXH3_state_t *one;
	struct core_row_scratch scratch;
	struct core_import_shard shard;
	bool in_shard;
	uint64_t updates; /* of the shard at hand */
	uint64_t shards, all_updates, names;

	char *buf;
	size_t cap;
	size_t len;
	size_t at; /* the next line */
	bool ended;
	uint64_t bytes;
	uint64_t line; /* its number */
};

static enum kv_rc bad(const struct text *t, const char *what, struct kv_err *err)
{
	return kv_fail(err, KV_BAD_SYNTAX, "not a whole export: line %" PRIu64 ": %s", t->line, what);
}

/* --- lines ----------------------------------------------------------------------------------------- */

static enum kv_rc fill(struct text *t, struct kv_err *err)
{
	size_t got = 0;
	enum kv_rc rc;

	if (t->at != 0) {
		memmove(t->buf, t->buf + t->at, t->len - t->at);
		t->len -= t->at;
		t->at = 0;
	}
	if (t->cap - t->len < READ_LEN) {
		size_t cap = 2 * t->cap > READ_LEN ? 2 * t->cap : (size_t)2 * READ_LEN;
		char *grown = realloc(t->buf, cap);

		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		t->buf = grown;
		t->cap = cap;
	}
	rc = t->source->read(t->source->arg, t->buf + t->len, READ_LEN, &got, err);
	if (rc != KV_OK)
		return rc;
	t->len += got;
	t->bytes += got;
	t->ended = got == 0;
	return KV_OK;
}

/* The next line without its newline, borrowed until the next call; *line NULL: the end. */
static enum kv_rc next_line(struct text *t, const char **line, size_t *len, struct kv_err *err)
{
	size_t looked = 0;
	enum kv_rc rc = KV_OK;

	*line = NULL;
	for (;;) {
		char *from = t->buf != NULL ? t->buf + t->at : NULL;
		char *end = from != NULL ? memchr(from + looked, '\n', t->len - t->at - looked) : NULL;

		if (end != NULL) {
			*line = from;
			*len = (size_t)(end - from);
			t->at += *len + 1;
			t->line++;
			return KV_OK;
		}
		looked = t->len - t->at;
		if (t->ended && looked == 0)
			return KV_OK;
		t->line += t->ended;
		if (t->ended)
			return bad(t, "it ends in the middle of the line", err);
		if (looked > TEXT_MAX)
			return bad(t, "a line that is too long", err);
		rc = fill(t, err);
		if (rc != KV_OK)
			return rc;
	}
}

/* --- words ----------------------------------------------------------------------------------------- */

struct words {
	const char *p;
	const char *end;
	bool ok;
};

/* The next word, which begins with key; the rest of it. NULL: it does not, and all later ones neither. */
static const char *word(struct words *w, const char *key, size_t *len)
{
	size_t key_len = strlen(key);
	const char *from = w->p, *space;

	*len = 0;
	if (w->ok && from != NULL && (size_t)(w->end - from) >= key_len && memcmp(from, key, key_len) == 0) {
		from += key_len;
		space = memchr(from, ' ', (size_t)(w->end - from));
		*len = (size_t)((space != NULL ? space : w->end) - from);
		w->p = space != NULL ? space + 1 : NULL;
		return from;
	}
	w->ok = false;
	return NULL;
}

static void take_u64(struct words *w, const char *key, uint64_t *out)
{
	size_t len;
	const char *p = word(w, key, &len);

	w->ok = w->ok && core_u64_parse(p, len, out);
}

static void take_u32(struct words *w, const char *key, uint32_t *out)
{
	uint64_t n = 0;

	take_u64(w, key, &n);
	w->ok = w->ok && n <= UINT32_MAX;
	*out = (uint32_t)n;
}

static void take_frontier(struct words *w, const char *key, struct core_frontier *out)
{
	size_t len;
	const char *p = word(w, key, &len);

	w->ok = w->ok && core_frontier_parse(p, len, out);
}

static void take_id(struct words *w, const char *key, char letter, struct core_uuid *out)
{
	size_t len;
	const char *p = word(w, key, &len);

	w->ok = w->ok && core_uuid_parse(letter, p, len, out);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void take_hex(struct words *w, const char *key, uint8_t *out, size_t bytes)
{
	size_t len;
	const char *p = word(w, key, &len);

	w->ok = w->ok && len == 2 * bytes;
	for (size_t i = 0; w->ok && i < bytes; i++) {
		int high = hex_digit(p[2 * i]), low = hex_digit(p[2 * i + 1]);

		w->ok = high >= 0 && low >= 0;
		out[i] = (uint8_t)(w->ok ? high << 4 | low : 0);
	}
}

static void take_mode(struct words *w, uint32_t *out)
{
	size_t len;
	const char *p = word(w, "mode=", &len);

	*out = 0;
	w->ok = w->ok && len > 0 && len <= 4;
	for (size_t i = 0; w->ok && i < len; i++) {
		w->ok = p[i] >= '0' && p[i] <= '7';
		*out = *out * 8 + (uint32_t)(p[i] - '0');
	}
}

/* The checksum, which ends the line. */
static bool checksum_is(struct words *w, uint64_t want)
{
	uint8_t stored[8] = {0};
	uint64_t n = 0;

	take_hex(w, "xxh3=", stored, sizeof stored);
	for (size_t i = 0; i < sizeof stored; i++)
		n = n << 8 | stored[i];
	return w->ok && n == want;
}

static bool all_taken(const struct words *w)
{
	return w->ok && w->p == NULL;
}

/* --- a shard --------------------------------------------------------------------------------------- */

static void forget_shard(struct text *t)
{
	free(t->shard.holds);
	free(t->shard.tokens);
	t->shard = (struct core_import_shard){0};
	t->in_shard = false;
	t->updates = 0;
}

static enum kv_rc shard_line(struct text *t, struct words *w, struct kv_err *err)
{
	struct core_import_shard *s = &t->shard;

	take_id(w, "", 's', &s->id.u);
	take_frontier(w, "since=", &s->since);
	take_frontier(w, "upper=", &s->upper);
	take_u32(w, "uid=", &s->owner.uid);
	take_u32(w, "gid=", &s->owner.gid);
	take_mode(w, &s->owner.mode);
	take_u64(w, "created_ms=", &s->created_ms);
	if (!all_taken(w))
		return bad(t, "not the line of a shard", err);
	t->in_shard = true;
	s->holds = calloc(CORE_HOLDS_MAX, sizeof *s->holds);
	s->tokens = calloc(CORE_TOKENS_MAX, sizeof *s->tokens);
	if (s->holds == NULL || s->tokens == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	return t->lines->begin(t->arg, s, err);
}

static enum kv_rc hold_line(struct text *t, struct words *w, struct kv_err *err)
{
	struct core_hold hold = {0};
	size_t len;
	const char *name = word(w, "", &len);

	take_frontier(w, "since=", &hold.since);
	take_u64(w, "token=", &hold.token);
	take_u64(w, "follow=", &hold.follow);
	if (!all_taken(w) || len >= sizeof hold.name || t->shard.hold_count == CORE_HOLDS_MAX)
		return bad(t, "not the line of a hold", err);
	memcpy(hold.name, name, len);
	if (strlen(hold.name) != len || !core_staged_name_ok(hold.name))
		return bad(t, "not the name of a hold", err);
	t->shard.holds[t->shard.hold_count++] = hold;
	return KV_OK;
}

static enum kv_rc token_line(struct text *t, struct words *w, struct kv_err *err)
{
	struct core_done done = {0};

	take_id(w, "", 'i', &done.token.u);
	take_hex(w, "asked=", done.asked.b, sizeof done.asked.b);
	take_u64(w, "rows=", &done.rows);
	take_u64(w, "batch_rows=", &done.batch_rows);
	take_frontier(w, "lower=", &done.lower);
	take_frontier(w, "upper=", &done.upper);
	if (!all_taken(w) || t->shard.token_count == CORE_TOKENS_MAX)
		return bad(t, "not the line of a token", err);
	t->shard.tokens[t->shard.token_count++] = done;
	return KV_OK;
}

static enum kv_rc row_line(struct text *t, const char *line, size_t len, struct kv_err *err)
{
	struct core_row row;
	enum kv_rc rc = core_row_parse(line, len, &t->scratch, &row, err);

	if (rc == KV_OK && row.star)
		rc = kv_fail(err, KV_BAD_SYNTAX, "a time of `*`");
	if (rc == KV_OK) {
		t->updates++;
		rc = t->lines->row(t->arg, &t->shard, &row.update, err);
	}
	if (rc == KV_BAD_SYNTAX || rc == KV_ROW_TOO_LARGE)
		return kv_wrap(err, KV_BAD_SYNTAX, "not a whole export: line %" PRIu64, t->line);
	return rc;
}

static enum kv_rc end_line(struct text *t, struct words *w, struct kv_err *err)
{
	uint64_t updates = 0;
	enum kv_rc rc;

	take_u64(w, "updates=", &updates);
	if (!checksum_is(w, XXH3_64bits_digest(t->one)) || !all_taken(w))
		return bad(t, "the shard's checksum is wrong", err);
	if (updates != t->updates)
		return bad(t, "the shard has another number of updates", err);
	rc = t->lines->end(t->arg, &t->shard, err);
	if (rc == KV_BAD_SYNTAX)
		kv_wrap(err, rc, "line %" PRIu64, t->line);
	t->shards++;
	t->all_updates += t->updates;
	forget_shard(t);
	return rc;
}

/* --- names and the end ------------------------------------------------------------------------------ */

static bool unescape(const char *text, size_t len, char out[CORE_NAME_LEN])
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned c = (unsigned char)text[i];

		if (c == '\\') {
			c = 0;
			for (size_t j = i + 1; j <= i + 3; j++) {
				if (j >= len || text[j] < '0' || text[j] > '7')
					return false;
				c = c * 8 + (unsigned)(text[j] - '0');
			}
			i += 3;
		}
		if (n == CORE_NAME_LEN - 1 || c == 0 || c > 255 || c == '/')
			return false;
		out[n++] = (char)c;
	}
	out[n] = '\0';
	return n != 0 && strcmp(out, ".") != 0 && strcmp(out, "..") != 0;
}

static enum kv_rc name_line(struct text *t, struct words *w, struct kv_err *err)
{
	struct core_name name = {0};
	size_t len;
	const char *p = word(w, "", &len);

	take_id(w, "target=", 's', &name.target.u);
	take_u32(w, "uid=", &name.uid);
	take_u32(w, "gid=", &name.gid);
	take_u64(w, "made_ms=", &name.made_ms);
	if (!all_taken(w) || !unescape(p, len, name.name))
		return bad(t, "not the line of a name", err);
	t->names++;
	return t->lines->name(t->arg, &name, err);
}

static enum kv_rc total_line(struct text *t, struct words *w, bool *one_moment, struct kv_err *err)
{
	uint64_t shards = 0, updates = 0, names = 0;
	size_t len;
	const char *moment;

	take_u64(w, "shards=", &shards);
	take_u64(w, "updates=", &updates);
	take_u64(w, "names=", &names);
	moment = word(w, "moment=", &len);
	*one_moment = w->ok && len == 3 && memcmp(moment, "one", 3) == 0;
	w->ok = w->ok && (*one_moment || (len == 7 && memcmp(moment, "several", 7) == 0));
	if (!checksum_is(w, XXH3_64bits_digest(t->all)) || !all_taken(w))
		return bad(t, "the checksum of all is wrong", err);
	if (shards != t->shards || updates != t->all_updates || names != t->names)
		return bad(t, "it does not have as many shards, updates or names as it says", err);
	return KV_OK;
}

static bool begins(const char *line, size_t len, const char *with, struct words *w)
{
	size_t n = strlen(with);

	if (len < n || memcmp(line, with, n) != 0)
		return false;
	*w = (struct words){.p = line + n, .end = line + len, .ok = true};
	return true;
}

static void hash(struct text *t, const char *line, size_t len)
{
	XXH3_64bits_update(t->all, line, len + 1); /* its newline stands behind it */
	if (t->in_shard)
		XXH3_64bits_update(t->one, line, len + 1);
}

/* A line between `shard` and `end`. */
static enum kv_rc shard_part(struct text *t, const char *line, size_t len, struct kv_err *err)
{
	struct words w;
	enum kv_rc rc;

	if (begins(line, len, "end ", &w)) {
		XXH3_64bits_update(t->all, line, len + 1);
		return end_line(t, &w, err);
	}
	hash(t, line, len);
	if (len == 5 && memcmp(line, "again", 5) == 0) {
		t->lines->again(t->arg);
		forget_shard(t);
		return KV_OK;
	}
	if (len != 0 && line[0] >= '0' && line[0] <= '9')
		return row_line(t, line, len, err);
	rc = bad(t, "neither a row nor the end of the shard", err);
	if (t->updates == 0 && begins(line, len, "hold ", &w))
		rc = hold_line(t, &w, err);
	else if (t->updates == 0 && begins(line, len, "token ", &w))
		rc = token_line(t, &w, err);
	return rc;
}

static enum kv_rc outer_part(struct text *t, const char *line, size_t len, bool *done, bool *one_moment,
			     struct kv_err *err)
{
	struct words w;

	if (begins(line, len, "total ", &w)) {
		*done = true;
		return total_line(t, &w, one_moment, err);
	}
	if (begins(line, len, "shard ", &w)) {
		XXH3_64bits_reset(t->one);
		XXH3_64bits_update(t->one, line, len + 1);
		hash(t, line, len);
		if (t->names != 0)
			return bad(t, "a shard behind the names", err);
		return shard_line(t, &w, err);
	}
	hash(t, line, len);
	if (begins(line, len, "name ", &w))
		return name_line(t, &w, err);
	return bad(t, "neither a shard nor a name", err);
}

static enum kv_rc first_line(struct text *t, struct kv_err *err)
{
	const char *line;
	size_t len;
	struct words w;
	uint64_t format = 0;
	enum kv_rc rc = next_line(t, &line, &len, err);

	if (rc != KV_OK)
		return rc;
	if (line == NULL || !begins(line, len, "shardfs-export ", &w))
		return kv_fail(err, KV_BAD_SYNTAX, "not an export: the first line is another one");
	hash(t, line, len);
	take_u64(&w, "", &format);
	if (!all_taken(&w) || format == 0)
		return bad(t, "not the first line of an export", err);
	if (format > 1)
		return kv_fail(err, KV_NEWER, "an export of format %" PRIu64 ", and this program knows 1",
			       format);
	return KV_OK;
}

static enum kv_rc read_all(struct text *t, bool *one_moment, struct kv_err *err)
{
	bool done = false;
	const char *line;
	size_t len;
	enum kv_rc rc = first_line(t, err);

	while (rc == KV_OK) {
		rc = next_line(t, &line, &len, err);
		if (rc != KV_OK)
			break;
		if (line == NULL)
			return done ? KV_OK : bad(t, "it ends before its last line, `total`", err);
		if (done)
			return bad(t, "something comes behind the end", err);
		rc = t->in_shard ? shard_part(t, line, len, err)
				 : outer_part(t, line, len, &done, one_moment, err);
	}
	return rc;
}

enum kv_rc core_import_read(const struct core_import_source *source, const struct core_import_lines *lines,
			    void *arg, uint64_t *bytes, bool *one_moment, struct kv_err *err)
{
	struct text t = {.source = source, .lines = lines, .arg = arg};
	enum kv_rc rc = KV_NOMEM;

	t.all = XXH3_createState();
	t.one = XXH3_createState();
	if (t.all != NULL && t.one != NULL) {
		XXH3_64bits_reset(t.all);
		rc = read_all(&t, one_moment, err);
	} else {
		kv_fail_rc(err, rc);
	}
	*bytes = t.bytes;
	forget_shard(&t);
	core_row_scratch_free(&t.scratch);
	XXH3_freeState(t.all);
	XXH3_freeState(t.one);
	free(t.buf);
	return rc;
}
