/*
 * row.h - updates, and the text they have in files.
 *
 * One update is one line of four fields, separated by one tab and ended by one
 * newline:  <time> TAB <diff> TAB <key> TAB <val> LF
 *
 * In key and val a backslash begins an escape: \\ \t \n \r \b \f \v, \ooo (1 to
 * 3 octal digits, at most 377), \xhh (1 or 2 hex digits); \N as the whole field
 * is an absent key or val. Any other byte, NUL too, stands for itself. Writing
 * is canonical: only \\ \t \n \r and \N are used. This is the text PostgreSQL's
 * COPY uses, and Materialize for a SUBSCRIBE.
 *
 * Any thread; nothing is shared.
 */
#ifndef CORE_ROW_H
#define CORE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/rc.h"

/* A byte string or none; borrowed, by the rules of who hands it out. */
struct core_bytes {
	const uint8_t *data; /* not read when absent or empty */
	uint32_t len;        /* CORE_ABSENT: there is none, which differs from an empty one */
};

#define CORE_ABSENT UINT32_MAX
#define CORE_ROW_MAX ((size_t)16 << 20) /* bytes of key plus val */

struct core_update {
	struct core_bytes key;
	struct core_bytes val;
	uint64_t time;
	int64_t diff;
};

/* Order by bytes, absent first. */
int core_bytes_cmp(struct core_bytes a, struct core_bytes b);
/* Order by key, then val (the order of snapshots), and by time after that (the order within a run). */
int core_update_cmp_row(const struct core_update *a, const struct core_update *b);
int core_update_cmp(const struct core_update *a, const struct core_update *b);

/* Bytes of key plus val; an absent one counts 0. */
size_t core_update_bytes(const struct core_update *u);

enum { CORE_QUOTE_LEN = 64 };

/* Bytes for a sentence: in quotes, printable, cut short with "..."; NUL-terminated. Returns buf. */
char *core_quote(const void *data, size_t len, char buf[CORE_QUOTE_LEN]);

struct core_row {
	struct core_update update;
	bool star; /* the time was `*`: update.time is 0, to be resolved at commit */
};

/* Room for unescaped text, grown as needed and used again for each row; {0} to begin with. */
struct core_row_scratch {
	uint8_t *data;
	size_t cap;
};
void core_row_scratch_free(struct core_row_scratch *s);

/*
 * Parse one line of len bytes, without its newline. The key and val of *out are borrowed from line or from
 * s, until the next call with s. A diff of 0 is accepted.
 * KV_BAD_SYNTAX     the sentence says which field and why
 * KV_ROW_TOO_LARGE  key and val together exceed CORE_ROW_MAX
 * KV_NOMEM
 */
enum kv_rc core_row_parse(const char *line, size_t len, struct core_row_scratch *s, struct core_row *out,
			  struct kv_err *err) KV_MUST_CHECK;

/* Bytes of u's text, newline included; the same less the digits of its time. */
size_t core_row_text_len(const struct core_update *u);
size_t core_row_text_len_timeless(const struct core_update *u);

/* Write the text to buf, which has room for it; returns its length. */
size_t core_row_format(const struct core_update *u, char *buf);

#endif
