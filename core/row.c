/*
 * row.c - rows as text, at the speed of memory.
 *
 * Fields are found with memchr. A key or val without a backslash is borrowed
 * from the line; only the others are copied, unescaped, to the scratch. Writing
 * looks at eight bytes at a time and copies them whole unless one of them may
 * need an escape.
 *
 * 1. Unescaping never lengthens, so the scratch need be no longer than the
 *    escaped fields; nor than CORE_ROW_MAX, beyond which bytes are only counted.
 * 2. A syntax error comes before KV_ROW_TOO_LARGE: what is not in the grammar
 *    has no size.
 */
#include "core/row.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/frontier.h"

enum { FIELDS = 4, QUOTE_TEXT_MAX = 48 };

enum { FIELD_TIME, FIELD_DIFF, FIELD_KEY, FIELD_VAL };
static const char *const field_names[FIELDS] = {"time", "diff", "key", "val"};

struct field {
	const char *p;
	size_t len;
};

/* --- order ------------------------------------------------------------------------------------------ */

int core_bytes_cmp(struct core_bytes a, struct core_bytes b)
{
	bool a_absent = a.len == CORE_ABSENT;
	bool b_absent = b.len == CORE_ABSENT;

	if (a_absent || b_absent)
		return (int)b_absent - (int)a_absent;
	uint32_t common = a.len < b.len ? a.len : b.len;
	int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
	return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

int core_update_cmp_row(const struct core_update *a, const struct core_update *b)
{
	int order = core_bytes_cmp(a->key, b->key);

	return order != 0 ? order : core_bytes_cmp(a->val, b->val);
}

int core_update_cmp(const struct core_update *a, const struct core_update *b)
{
	int order = core_update_cmp_row(a, b);

	return order != 0 ? order : (a->time > b->time) - (a->time < b->time);
}

static size_t bytes_len(struct core_bytes b)
{
	return b.len == CORE_ABSENT ? 0 : b.len;
}

size_t core_update_bytes(const struct core_update *u)
{
	return bytes_len(u->key) + bytes_len(u->val);
}

/* --- reading ---------------------------------------------------------------------------------------- */

void core_row_scratch_free(struct core_row_scratch *s)
{
	free(s->data);
	*s = (struct core_row_scratch){0};
}

static bool scratch_reserve(struct core_row_scratch *s, size_t len)
{
	size_t cap = s->cap == 0 ? 256 : s->cap;

	if (len <= s->cap)
		return true;
	while (cap < len)
		cap *= 2;
	uint8_t *data = malloc(cap); /* not realloc: what is there is not needed any more */
	if (data == NULL)
		return false;
	free(s->data);
	*s = (struct core_row_scratch){.data = data, .cap = cap};
	return true;
}

char *core_quote(const void *data, size_t len, char buf[CORE_QUOTE_LEN])
{
	static const char hex[] = "0123456789abcdef";
	const uint8_t *bytes = data;
	size_t at = 0;

	_Static_assert(CORE_QUOTE_LEN > QUOTE_TEXT_MAX + 3 + 3 + 1, "room for an escape, dots, quote, NUL");
	buf[at++] = '"';
	size_t i = 0;
	for (; i < len && at < QUOTE_TEXT_MAX; i++) {
		uint8_t c = bytes[i];

		if (c >= ' ' && c < 0x7f && c != '\\' && c != '"') {
			buf[at++] = (char)c;
		} else {
			buf[at++] = '\\';
			buf[at++] = 'x';
			buf[at++] = hex[c >> 4];
			buf[at++] = hex[c & 15];
		}
	}
	for (int dots = 0; i < len && dots < 3; dots++)
		buf[at++] = '.';
	buf[at++] = '"';
	buf[at] = '\0';
	return buf;
}

static enum kv_rc fail_field(struct kv_err *err, int field, struct field found, const char *wanted)
{
	char quoted[CORE_QUOTE_LEN];

	kv_fail(err, KV_BAD_SYNTAX, "%s: wanted %s, found %s", field_names[field], wanted,
		core_quote(found.p, found.len, quoted));
	kv_detail(err, "field=%s", field_names[field]);
	return KV_BAD_SYNTAX;
}

static enum kv_rc fail_count(struct kv_err *err, const char *line, size_t len)
{
	size_t fields = 1;

	for (size_t i = 0; i < len; i++)
		fields += line[i] == '\t';
	kv_fail(err, KV_BAD_SYNTAX, "a row has 4 fields with a tab between them, this one has %zu", fields);
	kv_detail(err, "fields=%zu", fields);
	return KV_BAD_SYNTAX;
}

static bool split(const char *line, size_t len, struct field f[FIELDS])
{
	const char *at = line;
	const char *end = line + len;

	for (int i = 0; i < FIELDS - 1; i++) {
		const char *tab = at == end ? NULL : memchr(at, '\t', (size_t)(end - at));

		if (tab == NULL)
			return false;
		f[i] = (struct field){.p = at, .len = (size_t)(tab - at)};
		at = tab + 1;
	}
	f[FIELD_VAL] = (struct field){.p = at, .len = (size_t)(end - at)};
	return at == end || memchr(at, '\t', (size_t)(end - at)) == NULL;
}

static bool parse_diff(struct field f, int64_t *out)
{
	bool negative = f.len > 0 && f.p[0] == '-';
	size_t sign = negative || (f.len > 0 && f.p[0] == '+') ? 1 : 0;
	uint64_t magnitude;

	if (!core_u64_parse(f.p + sign, f.len - sign, &magnitude))
		return false;
	if (magnitude > (uint64_t)INT64_MAX + (negative ? 1 : 0))
		return false;
	if (magnitude > INT64_MAX)
		*out = INT64_MIN;
	else
		*out = negative ? -(int64_t)magnitude : (int64_t)magnitude;
	return true;
}

static int octal_value(char c)
{
	return c >= '0' && c <= '7' ? c - '0' : -1;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Up to max digits at *at (moved past them); false: there is none. */
static bool digits_value(const char **at, const char *end, int base, int max, int *value)
{
	const char *p = *at;

	*value = 0;
	for (int n = 0; n < max && p < end; n++, p++) {
		int digit = base == 8 ? octal_value(*p) : hex_value(*p);

		if (digit < 0)
			break;
		*value = *value * base + digit;
	}
	bool some = p != *at;
	*at = p;
	return some;
}

/* The byte that the escape at *at (behind the backslash; moved past it) stands for; NULL or what was wanted.
 */
static const char *escape_value(const char **at, const char *end, int *value)
{
	static const char letters[] = "\\\\t\tn\nr\rb\bf\fv\v"; /* in pairs: letter, byte */

	if (*at == end)
		return "an escape behind the backslash at the end";
	if (octal_value(**at) >= 0) {
		digits_value(at, end, 8, 3, value);
		return *value <= 0377 ? NULL : "an octal escape of at most \\377";
	}
	if (**at == 'x') {
		++*at;
		return digits_value(at, end, 16, 2, value) ? NULL : "one or two hex digits behind \\x";
	}
	for (size_t i = 0; i + 1 < sizeof(letters); i += 2) {
		if (**at == letters[i]) {
			*value = (unsigned char)letters[i + 1];
			++*at;
			return NULL;
		}
	}
	return **at == 'N' ? "\\N only as the whole field"
			   : "one of \\\\ \\t \\n \\r \\b \\f \\v \\ooo \\xhh";
}

/* Unescape f to dst, which has room bytes; beyond them only count. */
static enum kv_rc unescape(struct field f, int field, uint8_t *dst, size_t room, size_t *len,
			   struct kv_err *err)
{
	const char *at = f.p;
	const char *end = f.p + f.len;
	size_t n = 0;

	while (at < end) {
		const char *slash = memchr(at, '\\', (size_t)(end - at));
		size_t plain = (size_t)((slash == NULL ? end : slash) - at);

		if (n < room)
			memcpy(dst + n, at, plain < room - n ? plain : room - n);
		n += plain;
		if (slash == NULL)
			break;
		at = slash + 1;
		int value;
		const char *wanted = escape_value(&at, end, &value);
		if (wanted != NULL)
			return fail_field(err, field,
					  (struct field){.p = slash, .len = (size_t)(end - slash)}, wanted);
		if (n < room)
			dst[n] = (uint8_t)value;
		n++;
	}
	*len = n;
	return KV_OK;
}

static bool is_absent(struct field f)
{
	return f.len == 2 && f.p[0] == '\\' && f.p[1] == 'N';
}

/* Replace each field that has an escape by its bytes in the scratch. */
static enum kv_rc unescape_fields(struct field f[FIELDS], struct core_row_scratch *s, struct kv_err *err)
{
	size_t room = f[FIELD_KEY].len + f[FIELD_VAL].len;
	size_t used = 0;

	if (room > CORE_ROW_MAX)
		room = CORE_ROW_MAX;
	if (!scratch_reserve(s, room))
		return kv_fail_rc(err, KV_NOMEM);
	for (int i = FIELD_KEY; i <= FIELD_VAL; i++) {
		size_t len = 0;

		if (f[i].len == 0 || is_absent(f[i]) || memchr(f[i].p, '\\', f[i].len) == NULL)
			continue;
		enum kv_rc rc = unescape(f[i], i, s->data + used, room - used, &len, err);
		if (rc != KV_OK)
			return rc;
		f[i] = (struct field){.p = (const char *)s->data + used, .len = len};
		used += len < room - used ? len : room - used;
	}
	return KV_OK;
}

static struct core_bytes field_bytes(struct field f, bool absent)
{
	if (absent)
		return (struct core_bytes){.data = NULL, .len = CORE_ABSENT};
	return (struct core_bytes){.data = (const uint8_t *)f.p, .len = (uint32_t)f.len};
}

enum kv_rc core_row_parse(const char *line, size_t len, struct core_row_scratch *s, struct core_row *out,
			  struct kv_err *err)
{
	struct field f[FIELDS];

	*out = (struct core_row){0};
	if (!split(line, len, f))
		return fail_count(err, line, len);

	struct core_row row = {.star = f[FIELD_TIME].len == 1 && f[FIELD_TIME].p[0] == '*'};
	if (!row.star && !core_u64_parse(f[FIELD_TIME].p, f[FIELD_TIME].len, &row.update.time))
		return fail_field(err, FIELD_TIME, f[FIELD_TIME],
				  "a number below 2^64 without sign or leading zeros, or *");
	if (!parse_diff(f[FIELD_DIFF], &row.update.diff))
		return fail_field(err, FIELD_DIFF, f[FIELD_DIFF],
				  "a 64-bit number, with or without sign, without leading zeros");

	size_t both = (size_t)(line + len - f[FIELD_KEY].p);
	bool key_absent = is_absent(f[FIELD_KEY]);
	bool val_absent = is_absent(f[FIELD_VAL]);
	if (memchr(f[FIELD_KEY].p, '\\', both) != NULL) {
		enum kv_rc rc = unescape_fields(f, s, err);
		if (rc != KV_OK)
			return rc;
	}
	size_t bytes = (key_absent ? 0 : f[FIELD_KEY].len) + (val_absent ? 0 : f[FIELD_VAL].len);
	if (bytes > CORE_ROW_MAX) {
		kv_fail(err, KV_ROW_TOO_LARGE, "key and val have %zu bytes, at most %zu are allowed", bytes,
			CORE_ROW_MAX);
		kv_detail(err, "bytes=%zu limit=%zu", bytes, CORE_ROW_MAX);
		return KV_ROW_TOO_LARGE;
	}
	row.update.key = field_bytes(f[FIELD_KEY], key_absent);
	row.update.val = field_bytes(f[FIELD_VAL], val_absent);
	*out = row;
	return KV_OK;
}

/* --- writing ---------------------------------------------------------------------------------------- */

static bool needs_escape(uint8_t c)
{
	return c == '\\' || c == '\t' || c == '\n' || c == '\r';
}

/* Whether one of eight bytes may need an escape: is below 14 or a backslash. Never says no wrongly. */
static bool word_may_need_escape(uint64_t w)
{
	const uint64_t ones = UINT64_MAX / 255;
	const uint64_t tops = ones * 0x80;
	uint64_t low = (w - ones * ('\r' + 1)) & ~w;
	uint64_t x = w ^ (ones * '\\');

	return ((low | ((x - ones) & ~x)) & tops) != 0;
}

static uint64_t load_word(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return w;
}

/* Whether the bytes behind the last whole word need no escape, as the word that ends where they do has none.
 */
static bool rest_is_plain(struct core_bytes b)
{
	return b.len >= sizeof(uint64_t) &&
	       !word_may_need_escape(load_word(b.data + b.len - sizeof(uint64_t)));
}

static size_t escapes(const uint8_t *p, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += needs_escape(p[i]);
	return n;
}

static size_t text_len(struct core_bytes b)
{
	size_t i = 0;

	if (b.len == CORE_ABSENT)
		return 2;
	size_t len = b.len;
	for (; b.len - i >= sizeof(uint64_t); i += sizeof(uint64_t))
		if (word_may_need_escape(load_word(b.data + i)))
			len += escapes(b.data + i, sizeof(uint64_t));
	return i == b.len || rest_is_plain(b) ? len : len + escapes(b.data + i, b.len - i);
}

static char *put_byte(char *p, uint8_t c)
{
	if (needs_escape(c)) {
		*p++ = '\\';
		c = c == '\t' ? 't' : c == '\n' ? 'n' : c == '\r' ? 'r' : c;
	}
	*p++ = (char)c;
	return p;
}

static char *put_bytes(char *p, struct core_bytes b)
{
	size_t i = 0;

	if (b.len == CORE_ABSENT) {
		*p++ = '\\';
		*p++ = 'N';
		return p;
	}
	while (b.len - i >= sizeof(uint64_t)) {
		if (!word_may_need_escape(load_word(b.data + i))) {
			memcpy(p, b.data + i, sizeof(uint64_t));
			p += sizeof(uint64_t);
			i += sizeof(uint64_t);
		} else {
			p = put_byte(p, b.data[i++]);
		}
	}
	if (i < b.len && rest_is_plain(b)) {
		/* what of the word is before the rest is plain too, and stands there already */
		p += b.len - i;
		memcpy(p - sizeof(uint64_t), b.data + b.len - sizeof(uint64_t), sizeof(uint64_t));
		return p;
	}
	for (; i < b.len; i++)
		p = put_byte(p, b.data[i]);
	return p;
}

static char *put_u64(char *p, uint64_t v)
{
	unsigned digits = core_u64_digits(v);

	for (unsigned i = digits; i > 0; i--) {
		p[i - 1] = (char)('0' + v % 10);
		v /= 10;
	}
	return p + digits;
}

static uint64_t magnitude(int64_t v)
{
	return v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
}

size_t core_row_text_len_timeless(const struct core_update *u)
{
	return (u->diff < 0 ? 1u : 0u) + core_u64_digits(magnitude(u->diff)) + text_len(u->key) +
	       text_len(u->val) + FIELDS; /* three tabs and a newline */
}

size_t core_row_text_len(const struct core_update *u)
{
	return core_row_text_len_timeless(u) + core_u64_digits(u->time);
}

size_t core_row_format(const struct core_update *u, char *buf)
{
	char *p = put_u64(buf, u->time);

	*p++ = '\t';
	if (u->diff < 0)
		*p++ = '-';
	p = put_u64(p, magnitude(u->diff));
	*p++ = '\t';
	p = put_bytes(p, u->key);
	*p++ = '\t';
	p = put_bytes(p, u->val);
	*p++ = '\n';
	return (size_t)(p - buf);
}
