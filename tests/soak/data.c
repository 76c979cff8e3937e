/* data.c - rows made by number, and sums of rows that were read. */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <stdarg.h>
#include <xxhash.h>

struct sums sums_add(struct sums a, struct sums b)
{
	return (struct sums){a.sum + b.sum, a.count + b.count};
}

struct sums sums_sub(struct sums a, struct sums b)
{
	return (struct sums){a.sum - b.sum, a.count - b.count};
}

bool sums_eq(struct sums a, struct sums b)
{
	return a.sum == b.sum && a.count == b.count;
}

static struct sums sums_of(const char *body, size_t len, int64_t diff)
{
	XXH128_hash_t h = XXH3_128bits(body, len);
	unsigned __int128 wide = (unsigned __int128)h.high64 << 64 | h.low64;

	return (struct sums){wide * (unsigned __int128)(__int128)diff, diff};
}

/* --- text ------------------------------------------------------------------------------------------ */

void text_room(struct text *t, size_t more)
{
	if (t->cap - t->len >= more)
		return;
	t->cap = t->cap * 2 + more;
	t->p = realloc(t->p, t->cap);
	if (t->p == NULL)
		program_fail("no memory for %zu bytes", t->cap);
}

void text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;

	text_room(t, TEXT_MAX);
	va_start(ap, fmt);
	t->len += (size_t)vsnprintf(t->p + t->len, TEXT_MAX, fmt, ap);
	va_end(ap);
}

void text_free(struct text *t)
{
	free(t->p);
	*t = (struct text){0};
}

/* --- making ---------------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct rng r = {a * 0x9e3779b97f4a7c15u ^ b * 0xc2b2ae3d27d4eb4fu ^ c * 0x165667b19e3779f9u ^ d};

	return rng_below(&r, 0);
}

static char *put_number(char *p, uint64_t n)
{
	char digits[20];
	int len = 0;

	do
		digits[len++] = (char)('0' + n % 10);
	while ((n /= 10) != 0);
	while (len > 0)
		*p++ = digits[--len];
	return p;
}

static char *put_name(char *p, const struct stream *s, uint64_t block, uint64_t i)
{
	p = put_number(p, s->id);
	*p++ = '.';
	p = put_number(p, block);
	*p++ = '.';
	return put_number(p, i);
}

static char *put_filler(char *p, size_t len, uint64_t salt)
{
	static const char letters[65] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+";
	struct rng r = {salt};

	for (size_t i = 0; i < len; i += 10)
		for (uint64_t j = 0, w = rng_below(&r, 0); j < 10 && i + j < len; j++, w >>= 6)
			*p++ = letters[w & 63];
	return p;
}

/* Key, tab and val of row i of a block as step n leaves it. Every name is in the key or in the val. */
static char *put_body(char *p, const struct stream *s, uint64_t n, uint64_t i)
{
	static const char odd[] = "\\t\\\\\\n\\r\xc3\xa9\x01\x00\xff'";
	uint64_t block = n % s->blocks, which = mixed(s->id, block, i, 1), salt = mixed(s->id, n, i, 2);

	if (which % 97 == 0) {
		p = stpcpy(p, "\\N");
	} else {
		*p++ = 'k';
		p = put_name(p, s, block, i);
	}
	*p++ = '\t';
	if (which % 97 == 1)
		return stpcpy(p, "\\N");
	if (which % 97 == 2)
		return p;
	p = put_name(p, s, block, i);
	*p++ = ':';
	p = put_number(p, n);
	if (salt % 13 == 0) {
		memcpy(p, odd, sizeof odd - 1);
		p += sizeof odd - 1;
	}
	return s->val != 0 ? put_filler(p, salt % s->val, salt) : p;
}

/* One row; its weight depends on its key only, so that what is retracted goes away whole. */
static struct sums put_row(const struct stream *s, uint64_t n, uint64_t i, bool retract, const char *time,
			   struct text *out)
{
	int64_t weight = mixed(s->id, n % s->blocks, i, 3) % 8 == 0 ? 7 : 1;
	char *p, *body;

	text_room(out, s->val + 256);
	p = stpcpy(out->p + out->len, time);
	*p++ = '\t';
	if (retract)
		*p++ = '-';
	p = put_number(p, (uint64_t)weight);
	*p++ = '\t';
	body = p;
	p = put_body(p, s, n, i);
	*p++ = '\n';
	out->len = (size_t)(p - out->p);
	return sums_of(body, (size_t)(p - body) - 1, retract ? -weight : weight);
}

static uint64_t rows_of(const struct stream *s, uint64_t n)
{
	return s->rows < 8 ? 1 + mixed(s->id, n % s->blocks, 0, 4) % s->rows : s->rows - n % s->blocks % 7;
}

struct sums stream_step(const struct stream *s, uint64_t n, const char *time, struct text *out,
			uint64_t *rows)
{
	uint64_t count = rows_of(s, n);
	struct sums sums = {0};
	struct text own = {0}, *to = out != NULL ? out : &own;

	for (uint64_t i = 0; i < count; i++) {
		if (out == NULL)
			own.len = 0;
		if (n >= s->blocks)
			sums = sums_add(sums, put_row(s, n - s->blocks, i, true, time, to));
		sums = sums_add(sums, put_row(s, n, i, false, time, to));
		*rows += n >= s->blocks ? 2 : 1;
	}
	text_free(&own);
	return sums;
}

void stream_content(const struct stream *s, uint64_t n, const char *time, struct text *out)
{
	for (uint64_t k = n < s->blocks ? 0 : n - s->blocks; k < n; k++)
		for (uint64_t i = 0; i < rows_of(s, k); i++)
			put_row(s, k, i, false, time, out);
}

/* --- reading --------------------------------------------------------------------------------------- */

/* Keys and vals as they are escaped here sort as they are, but for \N, which comes first. */
static int field_cmp(const char *a, size_t a_len, const char *b, size_t b_len)
{
	bool a_none = a_len == 2 && memcmp(a, "\\N", 2) == 0, b_none = b_len == 2 && memcmp(b, "\\N", 2) == 0;
	int c;

	if (a_none || b_none)
		return b_none - a_none;
	c = memcmp(a, b, a_len < b_len ? a_len : b_len);
	return c != 0 ? c : (a_len > b_len) - (a_len < b_len);
}

struct line {
	const char *key, *val;
	size_t key_len, val_len;
};

static bool line_parse(const char *p, const char *end, uint64_t *time, int64_t *diff, struct line *l)
{
	char *q;

	*time = strtoull(p, &q, 10);
	if (q == p || *q != '\t')
		return false;
	*diff = strtoll(q + 1, &q, 10);
	if (*q != '\t' || *diff == 0)
		return false;
	l->key = q + 1;
	q = memchr(l->key, '\t', (size_t)(end - l->key));
	if (q == NULL)
		return false;
	l->key_len = (size_t)(q - l->key);
	l->val = q + 1;
	l->val_len = (size_t)(end - l->val);
	return true;
}

struct rows rows_read(const char *what, const char *p, size_t len)
{
	struct rows rows = {.first = NEVER, .sorted = true};
	struct line before = {0};

	for (const char *stop = p + len, *end; p < stop; p = end + 1) {
		struct line l;
		uint64_t time;
		int64_t diff;
		int order;

		end = memchr(p, '\n', (size_t)(stop - p));
		if (end == NULL || !line_parse(p, end, &time, &diff, &l))
			program_fail("%s: not a row: \"%.200s\"", what, p);
		order = rows.count == 0 ? -1 : field_cmp(before.key, before.key_len, l.key, l.key_len);
		if (order == 0)
			order = field_cmp(before.val, before.val_len, l.val, l.val_len);
		rows.sorted = rows.sorted && order < 0;
		rows.sums = sums_add(rows.sums, sums_of(l.key, l.key_len + 1 + l.val_len, diff));
		rows.first = time < rows.first ? time : rows.first;
		rows.last = time > rows.last ? time : rows.last;
		rows.count++;
		before = l;
	}
	return rows;
}
