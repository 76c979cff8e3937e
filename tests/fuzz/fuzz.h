/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target is one file, fuzz_<name>.c, with LLVMFuzzerTestOneInput. It is linked to libFuzzer (make fuzz) or
 * to replay.c, which runs it over kept inputs (make check). It takes any bytes; what must hold is said with
 * must(). The same bytes do the same each time, threads of the engine aside.
 *
 * Threads: one, but for must().
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise; broken, it says which and aborts. */
#define must(held) ((held) ? (void)0 : fuzz_broken(#held, __FILE__, __LINE__))
_Noreturn void fuzz_broken(const char *promise, const char *file, int line);

/* rc with what it says: one line of printable text, unless rc is KV_OK. Returns whether it is KV_OK. */
bool fuzz_said(enum kv_rc rc, const struct kv_err *err);

/* The input, taken from the front. Beyond its end come zeros. */
struct fuzz_in {
	const uint8_t *p;
	size_t left;
};
uint8_t fuzz_u8(struct fuzz_in *in);
uint16_t fuzz_u16(struct fuzz_in *in);
uint32_t fuzz_u32(struct fuzz_in *in);
uint64_t fuzz_u64(struct fuzz_in *in);

/* A time or a size: small, round or near the ends more often than not. */
uint64_t fuzz_number(struct fuzz_in *in);

/* Up to len bytes, as many as there are, in memory of that length, so that a read beyond is found. Given. */
void *fuzz_copy(struct fuzz_in *in, size_t len, size_t *got);

bool fuzz_same_bytes(struct core_bytes a, struct core_bytes b);
bool fuzz_same_row(const struct core_update *a, const struct core_update *b);

#endif
