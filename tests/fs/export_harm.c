/*
 * export_harm.c - exports that are cut off or have a bit flipped: `shardctl import` tells it, and touches no
 * store.
 *
 * A compressed file has bits that say nothing (reserved ones, ways to write the same another way). A flip of
 * one of those leaves an export that is whole: all it says is under the checksums. So here zstd itself is the
 * judge: what unpacks to the very bytes of the export is taken for what it is, all else is refused. That no
 * flip unpacks to other bytes is seen for each bit; the program is then asked about each flip that changes
 * nothing, and about a sample of the others: CORRUPT_ALL=1 asks about all.
 */
#include <inttypes.h>
#include <zstd.h>

#include "tests/fs/fixture.h"

enum { TXNS = 40, STRIDE = 11, BITS = 8 };

enum unpacked { REFUSED, SAME, OTHER };

struct file {
	const char *name; /* in the world's directory */
	char *bytes;
	size_t len;
};

/* Two exports of one store, and the store without its mount. */
struct exports {
	struct file plain;
	struct file packed;
	char *said; /* room for what packed unpacks to, and for one byte more */
	char *store;
	char *image;
	struct rng r;
	bool all;
};

/* What a store consists of, with all its bytes. */
static char *image(const char *store)
{
	return want_sh("cd %s && find . -type f ! -name OWNER | sort | xargs md5sum", store);
}

static struct file exported(const char *name, const char *how)
{
	struct file f = {.name = name};

	free(want_sh("%s export %s -o %s/%s %s", shardctl_path(), how, w.dir, name, w.store));
	f.bytes = slurp_len(at(w.dir, name), &f.len);
	return f;
}

/* What zstd makes of the packed file as it is now. */
static enum unpacked unpack(struct exports *x)
{
	size_t len = ZSTD_decompress(x->said, x->plain.len + 1, x->packed.bytes, x->packed.len);

	if (ZSTD_isError(len))
		return REFUSED;
	return len == x->plain.len && memcmp(x->said, x->plain.bytes, len) == 0 ? SAME : OTHER;
}

static struct exports exports_new(void)
{
	struct exports x = {.r = rng_new(6006), .all = getenv("CORRUPT_ALL") != NULL};

	for (int i = 0; i < TXNS; i++) {
		char row[200];

		snprintf(row, sizeof row, "begin expected_upper=%d new_upper=%d\n%d\t1\tkey%d\t%d\ncommit\n",
			 i, i + 1, i, i, i * i);
		want_txn(shard, row);
	}
	x.plain = exported("plain", "");
	x.packed = exported("packed", "-z");
	x.said = malloc(x.plain.len + 1);
	ck_assert_ptr_nonnull(x.said);
	ck_assert_int_eq(unpack(&x), SAME);
	world_stop(&w);
	x.store = check_path(w.dir, "store");
	x.image = image(x.store);
	free(want_sh("cp -a %s %s/copy", x.store, w.dir));
	return x;
}

/* Nothing of all that left a trace. */
static void exports_free(struct exports *x)
{
	char *now = image(x->store);

	ck_fails(access(at(w.dir, "new"), F_OK), ENOENT);
	ck_assert_str_eq(x->image, now);
	world_start(&w, NULL);
	free(now);
	free(x->image);
	free(x->store);
	free(x->said);
	free(x->plain.bytes);
	free(x->packed.bytes);
}

/*
 * Import the first len bytes as they are now. same: they say what was exported; then a store is opened and
 * has the shard already, and that is a copy, since each start writes something.
 */
static void want_told(struct exports *x, const struct file *f, size_t len, bool same, const char *how,
		      size_t where)
{
	const char *into = same ? "copy" : rng_below(&x->r, 2) == 0 ? "store" : "new";
	int fd = open(at(w.dir, "bad"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), status;
	char *said;

	ck_works(fd);
	ck_assert_int_eq(write(fd, f->bytes, len), (ssize_t)len);
	close(fd);
	status = sh(&said, "%s import %s/%s %s/bad", shardctl_path(), w.dir, into, w.dir);
	/* A newer format is not damage: the flip of the first line's number. */
	ck_assert_msg(status == (same ? 6 : 5) ||
			      (f == &x->plain && status == 1 && strstr(said, "format") != NULL),
		      "%s of %s at %zu: exit %d: %s", how, f->name, where, status, said);
	ck_assert_str_ne(said, "");
	free(said);
}

static void flip(const struct file *f, size_t bit)
{
	f->bytes[bit / BITS] ^= (char)(1u << bit % BITS);
}

START_TEST(cut_off_anywhere_is_5_and_leaves_no_trace)
{
	struct exports x = exports_new();
	const struct file *const files[] = {&x.plain, &x.packed};

	for (size_t i = 0; i < 2; i++)
		for (size_t len = x.all ? 0 : rng_below(&x.r, STRIDE); len < files[i]->len;
		     len += x.all ? 1 : STRIDE)
			want_told(&x, files[i], len, false, "cut", len);
	exports_free(&x);
}
END_TEST

START_TEST(a_flipped_bit_is_5_and_leaves_no_trace)
{
	struct exports x = exports_new();

	for (size_t at = x.all ? 0 : rng_below(&x.r, STRIDE); at < x.plain.len; at += x.all ? 1 : STRIDE) {
		size_t bit = at * BITS + rng_below(&x.r, BITS);

		flip(&x.plain, bit);
		want_told(&x, &x.plain, x.plain.len, false, "flip", bit);
		flip(&x.plain, bit);
	}
	exports_free(&x);
}
END_TEST

START_TEST(a_flipped_bit_of_a_compressed_one_is_5_unless_it_says_the_same)
{
	struct exports x = exports_new();
	size_t alike = 0;

	for (size_t bit = 0; bit < x.packed.len * BITS; bit++) {
		enum unpacked is;

		flip(&x.packed, bit);
		is = unpack(&x);
		alike += is == SAME;
		ck_assert_msg(is != OTHER, "the flip of bit %zu gives other bytes", bit);
		if (is == SAME || x.all || rng_below(&x.r, (uint64_t)STRIDE * BITS) == 0)
			want_told(&x, &x.packed, x.packed.len, is == SAME, "flip", bit);
		flip(&x.packed, bit);
	}
	ck_assert_uint_lt(alike, x.packed.len); /* they are few */
	exports_free(&x);
}
END_TEST

Suite *export_harm_suite(void)
{
	Suite *s = suite_create("export_harm");
	TCase *tc = shard_case(s, "export_harm", getenv("CORRUPT_ALL") != NULL ? 1200 : 120);

	tcase_add_test(tc, cut_off_anywhere_is_5_and_leaves_no_trace);
	tcase_add_test(tc, a_flipped_bit_is_5_and_leaves_no_trace);
	tcase_add_test(tc, a_flipped_bit_of_a_compressed_one_is_5_unless_it_says_the_same);
	return s;
}
