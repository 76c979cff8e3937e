/*
 * fuzz.c - see fuzz.h.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void fuzz_broken(const char *promise, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, promise);
	abort();
}

bool fuzz_said(enum kv_rc rc, const struct kv_err *err)
{
	if (rc == KV_OK)
		return true;
	must(rc < KV_RC_COUNT);
	must(err->rc == rc);
	must(err->msg[0] != '\0' && strlen(err->msg) < sizeof err->msg);
	must(strchr(err->msg, '\n') == NULL && strchr(err->detail, '\n') == NULL);
	return false;
}

uint8_t fuzz_u8(struct fuzz_in *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->p++;
}

static uint64_t take(struct fuzz_in *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)fuzz_u8(in) << (8 * i);
	return v;
}

uint16_t fuzz_u16(struct fuzz_in *in)
{
	return (uint16_t)take(in, 2);
}

uint32_t fuzz_u32(struct fuzz_in *in)
{
	return (uint32_t)take(in, 4);
}

uint64_t fuzz_u64(struct fuzz_in *in)
{
	return take(in, 8);
}

uint64_t fuzz_number(struct fuzz_in *in)
{
	uint8_t how = fuzz_u8(in);

	if (how < 0xe0)
		return how;
	if (how < 0xf0)
		return (uint64_t)1 << (4 * (how & 0xf));
	if (how < 0xf8)
		return UINT64_MAX - (how & 7);
	return how < 0xfc ? INT64_MAX - (uint64_t)(how & 3) : fuzz_u64(in);
}

void *fuzz_copy(struct fuzz_in *in, size_t len, size_t *got)
{
	void *p;

	*got = len < in->left ? len : in->left;
	p = malloc(*got != 0 ? *got : 1);
	must(p != NULL);
	if (*got != 0)
		memcpy(p, in->p, *got);
	in->p += *got;
	in->left -= *got;
	return p;
}

bool fuzz_same_bytes(struct core_bytes a, struct core_bytes b)
{
	if (a.len != b.len || a.len == CORE_ABSENT || a.len == 0)
		return a.len == b.len;
	return memcmp(a.data, b.data, a.len) == 0;
}

bool fuzz_same_row(const struct core_update *a, const struct core_update *b)
{
	return a->time == b->time && a->diff == b->diff && fuzz_same_bytes(a->key, b->key) &&
	       fuzz_same_bytes(a->val, b->val);
}
