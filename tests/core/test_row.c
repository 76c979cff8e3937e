/*
 * test_row.c - the text of rows: tables of every form, random rows and random lines.
 */
#include <inttypes.h>

#include "core/row.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

struct good_row {
	const char *line;
	uint64_t time;
	int64_t diff;
	const char *key; /* NULL: absent */
	const char *val;
	bool star;
};

static const struct good_row good_rows[] = {
	{"0\t1\tk\tv", 0, 1, "k", "v", false},
	{"18446744073709551615\t+1\tk\tv", UINT64_MAX, 1, "k", "v", false},
	{"*\t-1\tk\tv", 0, -1, "k", "v", true},
	{"1\t0\tk\tv", 1, 0, "k", "v", false},
	{"1\t-0\tk\tv", 1, 0, "k", "v", false},
	{"1\t9223372036854775807\tk\tv", 1, INT64_MAX, "k", "v", false},
	{"1\t-9223372036854775808\tk\tv", 1, INT64_MIN, "k", "v", false},
	{"1\t1\t\t", 1, 1, "", "", false},
	{"1\t1\t\\N\t\\N", 1, 1, NULL, NULL, false},
	{"1\t1\t\\N\tv", 1, 1, NULL, "v", false},
	{"1\t1\tk\t\\N", 1, 1, "k", NULL, false},
	{"1\t1\tN\t\\\\N", 1, 1, "N", "\\N", false},
	{"1\t1\t\\\\\\t\\n\\r\t\\b\\f\\v", 1, 1, "\\\t\n\r", "\b\f\v", false},
	{"1\t1\t\\1\\12\\123\\1234\t\\377", 1, 1, "\1\12\123\1234", "\377", false},
	{"1\t1\t\\18\t\\0018", 1, 1,
	 "\1"
	 "8",
	 "\1"
	 "8",
	 false},
	{"1\t1\t\\x4\\x41\\x411\t\\xfF\\xag", 1, 1, "\4AA1",
	 "\xff\n"
	 "g",
	 false},
	{"1\t1\tx\\tx\tplain", 1, 1, "x\tx", "plain", false},
	{"1\t1\tplain\tx\\\\", 1, 1, "plain", "x\\", false},
	{"1\t1\t\r\t\xff\xfe", 1, 1, "\r", "\xff\xfe", false},
};

START_TEST(every_form_of_a_row_is_read)
{
	struct core_row_scratch s = {0};

	for (size_t i = 0; i < sizeof(good_rows) / sizeof(good_rows[0]); i++) {
		const struct good_row *g = &good_rows[i];
		struct core_row row;
		struct kv_err err;

		ck_ok(core_row_parse(g->line, strlen(g->line), &s, &row, &err), err);
		ck_assert_msg(row.update.time == g->time && row.update.diff == g->diff && row.star == g->star,
			      "%s", g->line);
		ck_assert_msg(core_bytes_cmp(row.update.key, bytes_of(g->key)) == 0, "%s", g->line);
		ck_assert_msg(core_bytes_cmp(row.update.val, bytes_of(g->val)) == 0, "%s", g->line);
	}
	core_row_scratch_free(&s);
}
END_TEST

static const struct {
	const char *line;
	const char *word; /* that the sentence has */
} bad_rows[] = {
	{"", "4 fields"},
	{"1", "4 fields"},
	{"1\t1\tk", "3"},
	{"1\t1\tk\tv\t", "5"},
	{"1\t1\tk\tv\tx", "5"},
	{"\t1\tk\tv", "time"},
	{"01\t1\tk\tv", "time"},
	{"+1\t1\tk\tv", "time"},
	{"-1\t1\tk\tv", "time"},
	{"-\t1\tk\tv", "time"},
	{"**\t1\tk\tv", "time"},
	{" 1\t1\tk\tv", "time"},
	{"18446744073709551616\t1\tk\tv", "time"},
	{"1\t\tk\tv", "diff"},
	{"1\t+\tk\tv", "diff"},
	{"1\t-\tk\tv", "diff"},
	{"1\t+-1\tk\tv", "diff"},
	{"1\t01\tk\tv", "diff"},
	{"1\t-01\tk\tv", "diff"},
	{"1\t1.5\tk\tv", "diff"},
	{"1\t9223372036854775808\tk\tv", "diff"},
	{"1\t-9223372036854775809\tk\tv", "diff"},
	{"1\t1\t\\\tv", "key"},
	{"1\t1\tk\tv\\", "val"},
	{"1\t1\t\\400\tv", "key"},
	{"1\t1\t\\777\tv", "key"},
	{"1\t1\t\\x\tv", "key"},
	{"1\t1\t\\xg\tv", "key"},
	{"1\t1\t\\q\tv", "key"},
	{"1\t1\t\\8\tv", "key"},
	{"1\t1\t\\n\t\\a", "val"},
	{"1\t1\t\\Nx\tv", "key"},
	{"1\t1\tx\\N\tv", "key"},
	{"1\t1\tk\t\\N\\N", "val"},
	{"1\t1\tk\t\\ ", "val"},
};

START_TEST(what_is_not_a_row_is_refused_by_the_name_of_its_field)
{
	struct core_row_scratch s = {0};

	for (size_t i = 0; i < sizeof(bad_rows) / sizeof(bad_rows[0]); i++) {
		struct core_row row;
		struct kv_err err;
		const char *line = bad_rows[i].line;

		ck_assert_msg(core_row_parse(line, strlen(line), &s, &row, &err) == KV_BAD_SYNTAX, "%s",
			      line);
		ck_assert_msg(strstr(err.msg, bad_rows[i].word) != NULL, "%s: %s", line, err.msg);
		for (const char *p = err.msg; *p != '\0'; p++)
			ck_assert(*p >= ' ' && *p < 0x7f);
		ck_assert_ptr_eq(row.update.key.data, NULL);
	}
	core_row_scratch_free(&s);
}
END_TEST

/* A line with a key of key_len and a val of val_len bytes, each written as `unit`, which stands for one. */
static char *long_line(const char *unit, size_t key_len, size_t val_len, size_t *len)
{
	size_t each = strlen(unit);
	char *line = malloc(16 + each * (key_len + val_len));
	char *p = line + sprintf(line, "1\t1\t");

	for (size_t i = 0; i < key_len; i++, p += each)
		memcpy(p, unit, each);
	*p++ = '\t';
	for (size_t i = 0; i < val_len; i++, p += each)
		memcpy(p, unit, each);
	*len = (size_t)(p - line);
	return line;
}

START_TEST(sixteen_mebibytes_fit_and_one_byte_more_does_not)
{
	static const char *const units[] = {"x", "\\t", "\\101", "\\x41"};
	struct core_row_scratch s = {0};
	struct core_row row;
	struct kv_err err;

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t len;
		char *line = long_line(units[i], 1000, CORE_ROW_MAX - 1000, &len);

		ck_ok(core_row_parse(line, len, &s, &row, &err), err);
		ck_assert_uint_eq(core_update_bytes(&row.update), CORE_ROW_MAX);
		ck_assert_uint_le(s.cap, CORE_ROW_MAX);
		free(line);
		line = long_line(units[i], 1000, CORE_ROW_MAX - 999, &len);
		ck_assert_int_eq(core_row_parse(line, len, &s, &row, &err), KV_ROW_TOO_LARGE);
		ck_assert_str_eq(err.detail, "bytes=16777217 limit=16777216");
		free(line);
	}
	core_row_scratch_free(&s);
}
END_TEST

START_TEST(absent_comes_before_empty_comes_before_bytes)
{
	static const char *const ascending[] = {NULL, "", "a", "aa", "b", "\x80", "\xff"};
	const size_t n = sizeof(ascending) / sizeof(ascending[0]);

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < n; j++) {
			int order = core_bytes_cmp(bytes_of(ascending[i]), bytes_of(ascending[j]));
			ck_assert_int_eq((order > 0) - (order < 0), (i > j) - (i < j));
		}
	}
}
END_TEST

START_TEST(writing_is_canonical)
{
	struct core_update u = {.key = bytes_of("a\\b\tc\nd\re\bf\x01gh\x7f\xff"),
				.val = bytes_of(NULL),
				.time = 12,
				.diff = INT64_MIN};
	char buf[256];

	size_t len = core_row_format(&u, buf);
	static const char want[] = "12\t-9223372036854775808\ta\\\\b\\tc\\nd\\re\bf\x01gh\x7f\xff\t\\N\n";
	ck_assert_uint_eq(len, strlen(want));
	ck_assert_mem_eq(buf, want, len);
}
END_TEST

START_TEST(any_update_comes_back_from_its_text)
{
	struct rng r = rng_new(1);
	struct core_row_scratch s = {0};
	char text[4096];

	for (int i = 0; i < 20000; i++) {
		uint8_t buf[512];
		struct core_update u = random_update(&r, i % 2 == 0, buf);
		struct core_row back;
		struct kv_err err;

		size_t len = core_row_format(&u, text);
		ck_assert_uint_eq(len, core_row_text_len(&u));
		ck_assert_uint_eq(len, core_row_text_len_timeless(&u) + core_u64_digits(u.time));
		ck_assert_int_eq(text[len - 1], '\n');
		ck_assert_ptr_eq(memchr(text, '\n', len - 1), NULL);
		ck_ok(core_row_parse(text, len - 1, &s, &back, &err), err);
		ck_assert_int_eq(core_update_cmp(&u, &back.update), 0);
		ck_assert_int_eq(u.diff, back.update.diff);
	}
	core_row_scratch_free(&s);
}
END_TEST

START_TEST(random_lines_are_read_or_refused_and_what_is_read_writes_the_same_row)
{
	static const char alphabet[] = "\t\t\t\\\\Nxtn0123789*-+abF \xff";
	struct rng r = rng_new(2);
	struct core_row_scratch s = {0};

	for (int i = 0; i < 200000; i++) {
		char line[40], text[256];
		size_t len = 0;
		struct core_row row, again;
		struct kv_err err;

		if (i % 2 == 0)
			len = (size_t)sprintf(line, "1\t1\t");
		for (size_t n = rng_below(&r, 24); n > 0; n--)
			line[len++] = alphabet[rng_below(&r, sizeof(alphabet))];
		enum kv_rc rc = core_row_parse(line, len, &s, &row, &err);
		if (rc != KV_OK) {
			ck_assert_int_eq(rc, KV_BAD_SYNTAX);
			continue;
		}
		struct model held = {0};
		model_add(&held, &row.update, false);
		size_t n = core_row_format(&row.update, text);
		ck_ok(core_row_parse(text, n - 1, &s, &again, &err), err);
		ck_assert_int_eq(core_update_cmp(&held.u[0], &again.update), 0);
		model_free(&held);
	}
	core_row_scratch_free(&s);
}
END_TEST

Suite *row_suite(void)
{
	Suite *s = suite_create("core/row");
	TCase *t = tcase_create("text");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, every_form_of_a_row_is_read);
	tcase_add_test(t, what_is_not_a_row_is_refused_by_the_name_of_its_field);
	tcase_add_test(t, sixteen_mebibytes_fit_and_one_byte_more_does_not);
	tcase_add_test(t, absent_comes_before_empty_comes_before_bytes);
	tcase_add_test(t, writing_is_canonical);
	tcase_add_test(t, any_update_comes_back_from_its_text);
	tcase_add_test(t, random_lines_are_read_or_refused_and_what_is_read_writes_the_same_row);
	suite_add_tcase(s, t);
	return s;
}
