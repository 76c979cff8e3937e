/* rc.c - the table of codes and the filling of errors. */
#include "tests/kv/worlds.h"

#include <errno.h>
#include <string.h>

START_TEST(every_code_has_a_name_of_its_own_an_errno_and_a_sentence)
{
	ck_assert_str_eq(kv_rc_name(KV_OK), "Ok");
	ck_assert_int_eq(kv_rc_errno(KV_OK), 0);
	for (int i = 1; i < KV_RC_COUNT; i++) {
		ck_assert_int_gt(kv_rc_errno((enum kv_rc)i), 0);
		ck_assert_uint_gt(strlen(kv_rc_sentence((enum kv_rc)i)), 5);
		for (int j = 0; j < i; j++)
			ck_assert_str_ne(kv_rc_name((enum kv_rc)i), kv_rc_name((enum kv_rc)j));
	}
}
END_TEST

START_TEST(failing_fills_code_and_sentence_and_returns_the_code)
{
	struct kv_err err;

	ck_assert_int_eq(kv_fail(&err, KV_BUSY, "a %d", 1), KV_BUSY);
	ck_assert_int_eq(err.rc, KV_BUSY);
	ck_assert_str_eq(err.msg, "a 1");
	ck_assert_str_eq(err.detail, "");
	kv_detail(&err, "x=%d", 2);
	ck_assert_int_eq(kv_wrap(&err, KV_IO, "here"), KV_IO);
	ck_assert_str_eq(err.msg, "here: a 1");
	ck_assert_str_eq(err.detail, "x=2");
	ck_assert_int_eq(err.rc, KV_IO);
	ck_assert_int_eq(kv_fail_rc(&err, KV_BUSY), KV_BUSY);
	ck_assert_str_eq(err.msg, kv_rc_sentence(KV_BUSY));
	ck_assert_str_eq(err.detail, "");
}
END_TEST

START_TEST(errors_need_no_struct)
{
	ck_assert_int_eq(kv_fail(NULL, KV_BUSY, "x"), KV_BUSY);
	ck_assert_int_eq(kv_fail_rc(NULL, KV_BUSY), KV_BUSY);
	ck_assert_int_eq(kv_wrap(NULL, KV_BUSY, "x"), KV_BUSY);
	ck_assert_int_eq(kv_fail_errno(NULL, ENOSPC, KV_IO, "x"), KV_NOSPACE);
	kv_detail(NULL, "x");
}
END_TEST

START_TEST(overlong_text_is_cut_and_lines_are_joined)
{
	char text[2 * KV_ERR_MSG_LEN];
	struct kv_err err;

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	text[1] = '\n';
	kv_fail(&err, KV_IO, "%s", text);
	ck_assert_uint_eq(strlen(err.msg), KV_ERR_MSG_LEN - 1);
	ck_assert_int_eq(err.msg[1], ' ');
	kv_wrap(&err, KV_IO, "%s", text);
	ck_assert_uint_eq(strlen(err.msg), KV_ERR_MSG_LEN - 1);
	kv_detail(&err, "%s", text);
	ck_assert_uint_eq(strlen(err.detail), KV_ERR_DETAIL_LEN - 1);
	kv_fail_errno(&err, EIO, KV_IO, "%s", text);
	ck_assert_uint_eq(strlen(err.msg), KV_ERR_MSG_LEN - 1);
}
END_TEST

START_TEST(an_errno_finds_its_code)
{
	static const struct {
		int errnum;
		enum kv_rc rc;
	} rows[] = {{ENOSPC, KV_NOSPACE},    {EDQUOT, KV_QUOTA},    {ENOMEM, KV_NOMEM},
		    {EROFS, KV_READONLY},    {ENOENT, KV_NOTFOUND}, {EIO, KV_UNREACHABLE},
		    {EACCES, KV_UNREACHABLE}};
	struct kv_err err;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		ck_assert_int_eq(kv_fail_errno(&err, rows[i].errnum, KV_UNREACHABLE, "open %s", "f"),
				 rows[i].rc);
		ck_assert_int_eq(err.rc, rows[i].rc);
		ck_assert_ptr_nonnull(strstr(err.msg, strerrordesc_np(rows[i].errnum)));
		ck_assert_int_eq(strncmp(err.msg, "open f: ", 8), 0);
	}
}
END_TEST

Suite *rc_suite(void)
{
	Suite *s = suite_create("kv/rc");
	TCase *t = tcase_create("rc");

	tcase_add_test(t, every_code_has_a_name_of_its_own_an_errno_and_a_sentence);
	tcase_add_test(t, failing_fills_code_and_sentence_and_returns_the_code);
	tcase_add_test(t, errors_need_no_struct);
	tcase_add_test(t, overlong_text_is_cut_and_lines_are_joined);
	tcase_add_test(t, an_errno_finds_its_code);
	suite_add_tcase(s, t);
	return s;
}
