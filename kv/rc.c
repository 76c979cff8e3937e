/*
 * rc.c - the table of codes, and filling a struct kv_err.
 *
 * How it works: KV_RC_LIST is expanded once more into a table indexed by code.
 * Sentences are formatted into the fixed buffers of the caller's kv_err.
 *
 * Invariants:
 * 1. A filled kv_err holds one line: control characters of whatever text went
 *    into it (paths, texts of RocksDB) are blanks.
 * 2. msg and detail are always NUL-terminated; overlong text is cut, never an
 *    error.
 */
#include "kv/rc.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct rc_row {
	const char *name;
	int errnum;
	const char *sentence;
};

static const struct rc_row rows[KV_RC_COUNT] = {[KV_OK] = {"Ok", 0, "done"},
#define RC_ROW(code, name, errnum, sentence) [KV_##code] = {name, errnum, sentence},
						KV_RC_LIST(RC_ROW)
#undef RC_ROW
};

static const struct rc_row *row(enum kv_rc rc)
{
	assert((unsigned)rc < KV_RC_COUNT);
	return &rows[rc];
}

const char *kv_rc_name(enum kv_rc rc)
{
	return row(rc)->name;
}

int kv_rc_errno(enum kv_rc rc)
{
	return row(rc)->errnum;
}

const char *kv_rc_sentence(enum kv_rc rc)
{
	return row(rc)->sentence;
}

/* Invariant 1. */
static void one_line(char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = ' ';
	}
}

KV_PRINTF(3, 0) static void format(char *buf, size_t size, const char *fmt, va_list args)
{
	int n = vsnprintf(buf, size, fmt, args);

	if (n < 0)
		buf[0] = '\0';
	one_line(buf);
}

enum kv_rc kv_fail(struct kv_err *err, enum kv_rc rc, const char *fmt, ...)
{
	va_list args;

	assert(rc != KV_OK);
	if (!err)
		return rc;
	err->rc = rc;
	err->detail[0] = '\0';
	va_start(args, fmt);
	format(err->msg, sizeof(err->msg), fmt, args);
	va_end(args);
	return rc;
}

enum kv_rc kv_fail_rc(struct kv_err *err, enum kv_rc rc)
{
	return kv_fail(err, rc, "%s", kv_rc_sentence(rc));
}

void kv_detail(struct kv_err *err, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return;
	va_start(args, fmt);
	format(err->detail, sizeof(err->detail), fmt, args);
	va_end(args);
}

enum kv_rc kv_wrap(struct kv_err *err, enum kv_rc rc, const char *fmt, ...)
{
	char old[KV_ERR_MSG_LEN];
	va_list args;

	assert(rc != KV_OK);
	if (!err)
		return rc;
	memcpy(old, err->msg, sizeof(old));
	va_start(args, fmt);
	format(err->msg, sizeof(err->msg), fmt, args);
	va_end(args);

	size_t len = strlen(err->msg);

	snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", old);
	err->rc = rc;
	return rc;
}

static enum kv_rc rc_of_errno(int errnum, enum kv_rc otherwise)
{
	switch (errnum) {
	case ENOSPC:
		return KV_NOSPACE;
	case EDQUOT:
		return KV_QUOTA;
	case ENOMEM:
		return KV_NOMEM;
	case EROFS:
		return KV_READONLY;
	case ENOENT:
		return KV_NOTFOUND;
	default:
		return otherwise;
	}
}

enum kv_rc kv_fail_errno(struct kv_err *err, int errnum, enum kv_rc otherwise, const char *fmt, ...)
{
	enum kv_rc rc = rc_of_errno(errnum, otherwise);
	const char *text = strerrordesc_np(errnum);
	va_list args;

	assert(rc != KV_OK);
	if (!err)
		return rc;
	err->rc = rc;
	err->detail[0] = '\0';
	va_start(args, fmt);
	format(err->msg, sizeof(err->msg), fmt, args);
	va_end(args);

	size_t len = strlen(err->msg);

	if (text)
		snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", text);
	else
		snprintf(err->msg + len, sizeof(err->msg) - len, ": error %d", errnum);
	return rc;
}
