/*
 * test_load.c - reading what a state is loaded from.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"
#include "kv/blob_impl.h"
#include "tests/core/suites.h"

/* Blobs of one length, whatever the key. */
struct long_blobs {
	struct kv_blobs base;
	uint64_t len;
	uint64_t handed;
};

static enum kv_rc long_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			   size_t *got, struct kv_err *err)
{
	struct long_blobs *l = (struct long_blobs *)b;

	(void)key;
	(void)err;
	*got = offset >= l->len ? 0 : l->len - offset < len ? (size_t)(l->len - offset) : len;
	memset(buf, 'x', *got);
	l->handed += *got;
	return KV_OK;
}

static const struct kv_blob_ops long_ops = {.name = "long", .get = long_get};

START_TEST(a_blob_is_read_whole_whatever_its_length)
{
	const uint64_t lens[] = {
		0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1 << 20, (5 << 20) + 3, KV_VALUE_MAX};

	for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
		struct long_blobs l = {.base.ops = &long_ops, .len = lens[i]};
		struct core_buf got;
		struct kv_err err;

		ck_assert_int_eq(core_blob_read(&l.base, "k", &got, &err), KV_OK);
		ck_assert_uint_eq(got.len, lens[i]);
		ck_assert_uint_eq(l.handed, lens[i]);
		core_buf_fini(&got);
	}
}
END_TEST

START_TEST(a_blob_larger_than_one_can_be_is_damage_and_does_not_fill_the_memory)
{
	struct long_blobs l = {.base.ops = &long_ops, .len = UINT64_MAX / 2};
	struct core_buf got;
	struct kv_err err;

	ck_assert_int_eq(core_blob_read(&l.base, "k", &got, &err), KV_CORRUPT);
	ck_assert_ptr_null(got.data);
	ck_assert_uint_le(l.handed, KV_VALUE_MAX + 1);
}
END_TEST

Suite *load_suite(void)
{
	Suite *s = suite_create("load");
	TCase *tc = tcase_create("blobs");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_blob_is_read_whole_whatever_its_length);
	tcase_add_test(tc, a_blob_larger_than_one_can_be_is_damage_and_does_not_fill_the_memory);
	suite_add_tcase(s, tc);
	return s;
}
