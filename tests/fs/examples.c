/*
 * examples.c - the programs of examples/: what they say is what happened, in each language and at each size.
 *
 * The C and Java ones are compiled by make, into examples/ beside SHARDFS; the others run as they lie in the
 * tree.
 */
#include <libgen.h>
#include <limits.h>

#include "tests/fs/fixture.h"

enum { CONFLICT = 75 };

#define JAVA "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp $BUILT " /* starts fast */

static const struct language {
	const char *append; /* SHARD EXPECTED_UPPER NEW_UPPER [ROWS] */
	const char *put;    /* SHARD KEY VAL */
} languages[] = {
	{"examples/bash/append.sh", "examples/bash/put.sh"},
	{"examples/dash/append.sh", "examples/dash/put.sh"},
	{"/usr/bin/python3 examples/python/append.py", "/usr/bin/python3 examples/python/put.py"},
	{"examples/perl/append.pl", "examples/perl/put.pl"},
	{"examples/node/append.js", "examples/node/put.js"},
	{JAVA "Append", JAVA "Put"},
	{"$BUILT/append", "$BUILT/put"},
};
enum { LANGUAGES = sizeof languages / sizeof languages[0] };

/* Of the rows. A write(2) takes 1 MiB at most. */
static const size_t sizes[] = {10, 100, 4 << 10, 64 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 4 << 20};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* Rows of some 500 bytes, in the order of a snapshot; len bytes with all of them. Given. */
static char *rows_new(size_t len, int time)
{
	char *text = malloc(len + 1), *p = text;

	ck_assert_ptr_nonnull(text);
	for (int key = 0; p < text + len; key++) {
		size_t left = (size_t)(text + len - p), row = left < 1000 ? left : 500;
		char *end = p + row - 1;

		p += sprintf(p, "%d\t1\t%04d\t", time, key);
		for (int byte = key; p < end; p++, byte++) /* bytes of which no encoding is true */
			*p = byte % 224 + ' ' == '\\' ? '/' : (char)(byte % 224 + ' ');
		*p++ = '\n';
	}
	*p = '\0';
	return text;
}

/* The middle row loses its last field. */
static void spoil(char *rows)
{
	size_t len = strlen(rows), end = len / 2;

	while (rows[end] != '\n')
		end++;
	while (rows[end] != '\t')
		end--;
	rows[end] = ' ';
}

static void set_built(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s", shardfs_path());
	setenv("BUILT", at(dirname(path), "examples"), 1);
}

/* Run a language's append, and hold what it says against want: 0, CONFLICT, or -1 for all else. What it
 * printed, given. */
static char *append(const struct language *l, const char *args, int want)
{
	char *out;
	int status = sh(&out, "%s %s/%s", l->append, shard, args);

	ck_assert_msg(want >= 0 ? status == want : status != 0 && status != CONFLICT && status < 126,
		      "%s %s: exit %d: %.500s", l->append, args, status, out);
	return out;
}

static void want_said(char *out, const char *want)
{
	ck_assert_msg(strstr(out, want) != NULL, "said %.500s, not %s", out, want);
	free(out);
}

/* Nothing of the shard is another than before, which is freed. */
static void want_as_before(char *before)
{
	char *after = print_shard(shard);

	ck_assert_msg(strcmp(before, after) == 0, "the shard is another one: %.500s, not %.500s", after,
		      before);
	free(before);
	free(after);
}

static void want_truth(const struct language *l, size_t len)
{
	char name[32], args[PATH_MAX], *rows, *text = rows_new(len, 0), *before;

	snprintf(name, sizeof name, "rows-%zu", len);
	rows = check_path(w.dir, name);
	check_write(rows, text);
	snprintf(args, sizeof args, " 0 1 %s", rows);
	free(append(l, args, 0));
	want_file(shard, "upper", "1\n");
	want_file(shard, "snapshot", text);
	want_file(shard, "errors", "");
	free(text);

	text = rows_new(len, 1);
	check_write(rows, text);
	before = print_shard(shard);
	snprintf(args, sizeof args, " 0 2 %s", rows);
	want_said(append(l, args, CONFLICT), " UpperMismatch errno=ESTALE expected_upper=0 current_upper=1 ");
	want_as_before(before);

	spoil(text);
	check_write(rows, text);
	before = print_shard(shard);
	snprintf(args, sizeof args, " 1 2 %s", rows);
	want_said(append(l, args, -1), " BadSyntax errno=EINVAL ");
	want_as_before(before);
	free(text);
	free(rows);
}

START_TEST(each_language_tells_a_success_and_a_conflict_apart)
{
	set_built();
	for (int i = 0; i < SIZES; i++) {
		free(shard);
		shard = shard_new(&w);
		want_truth(&languages[_i], sizes[i]);
	}
}
END_TEST

/* Whatever else goes wrong is neither a success nor a conflict. */
static const struct wrong {
	const char *rows; /* on stdin */
	const char *args;
} wrongs[] = {
	{"0\t1\tk\tv", " 0 1"}, /* commit is a part of the row then, and every write succeeds */
	{"", " 1 0"},           {"", " 0"},
	{"", "/none 0 1"},      {"", " 0 1 /none"}, /* the rows cannot be read */
	{"", " 0 1 /"},
};
enum { WRONGS = sizeof wrongs / sizeof wrongs[0] };

START_TEST(each_language_tells_that_nothing_was_committed)
{
	char *rows = check_path(w.dir, "rows"), *before = print_shard(shard), args[PATH_MAX];

	set_built();
	for (const struct wrong *g = wrongs; g < wrongs + WRONGS; g++) {
		check_write(rows, g->rows);
		snprintf(args, sizeof args, "%s < %s", g->args, rows);
		free(append(&languages[_i], args, -1));
	}
	want_as_before(before);

	check_write(rows, "0\t1\tk\tv\n");
	snprintf(args, sizeof args, " 0 1 < %s", rows);
	free(append(&languages[_i], args, 0));
	want_file(shard, "snapshot", "0\t1\tk\tv\n");
	free(rows);
}
END_TEST

START_TEST(put_replaces_what_the_key_had_and_nothing_else)
{
	char *out;

	set_built();
	want_txn(shard,
		 "begin expected_upper=0 new_upper=1\n0\t3\tkey\\t\told\n0\t-1\tkey\\t\t\\N\n0\t1\tkey\tx\n"
		 "0\t1\t\tkey\\t\ncommit\n");
	out = want_sh("%s %s 'key\\t' 'a val'", languages[_i].put, shard);
	ck_assert_str_eq(out, "");
	want_file(shard, "snapshot", "1\t1\t\tkey\\t\n1\t1\tkey\tx\n1\t1\tkey\\t\ta val\n");
	want_file(shard, "upper", "2\n");
	free(out);
}
END_TEST

static void want_put_fails(const char *put, const char *path, const char *key)
{
	char *out;
	int status = sh(&out, "timeout 10 %s %s '%s' val", put, path, key);

	ck_assert_msg(status != 0 && status != 124 && status != 126 && status != 127, "%s: exit %d: %s", put,
		      status, out);
	free(out);
}

/* It tries again after a conflict, but not for ever where there is none. */
START_TEST(put_fails_where_it_cannot_succeed)
{
	const char *put = languages[_i].put;

	set_built();
	want_put_fails(put, at(shard, "none"), "key");
	want_put_fails(put, shard, "\\q"); /* EINVAL */
	want_txn(
		shard,
		"begin expected_upper=0 new_upper=1\n0\t9223372036854775807\tkey\tx\n0\t1\tkey\tx\ncommit\n");
	want_put_fails(put, shard, "key"); /* the snapshot is EOVERFLOW */
	want_txn(shard, "begin expected_upper=1 new_upper=-\n1\t-1\tkey\tx\ncommit\n");
	want_put_fails(put, shard, "key"); /* finished */
	want_file(shard, "upper", "-\n");
}
END_TEST

/* Were one update lost, the key would have several values, or one of them a count of less than 0. */
START_TEST(puts_of_all_languages_at_once_lose_no_update)
{
	enum { PUTS = 3 };
	char *line = NULL, *out, *snapshot, want[32];
	size_t len;
	FILE *f = open_memstream(&line, &len);

	set_built();
	for (int i = 0; i < LANGUAGES; i++)
		fprintf(f,
			"{ for i in 1 2 3; do %s %s key val%d.$i 2>/dev/null || echo %s: failed; done; } & ",
			languages[i].put, shard, i, languages[i].put);
	fclose(f);
	out = want_sh("%s wait", line);
	ck_assert_str_eq(out, "");
	snprintf(want, sizeof want, "%d\n", LANGUAGES * PUTS);
	want_file(shard, "upper", want);
	snapshot = slurp(at(shard, "snapshot"));
	ck_assert_uint_eq(count_lines(snapshot), 1);
	snprintf(want, sizeof want, "%d\t1\tkey\tval", LANGUAGES * PUTS - 1);
	ck_assert_msg(strncmp(snapshot, want, strlen(want)) == 0, "%s", snapshot);
	free(snapshot);
	free(out);
	free(line);
}
END_TEST

Suite *examples_suite(void)
{
	Suite *s = suite_create("examples");
	TCase *tc = shard_case(s, "examples", 60);

	tcase_add_loop_test(tc, each_language_tells_a_success_and_a_conflict_apart, 0, LANGUAGES);
	tcase_add_loop_test(tc, each_language_tells_that_nothing_was_committed, 0, LANGUAGES);
	tcase_add_loop_test(tc, put_replaces_what_the_key_had_and_nothing_else, 0, LANGUAGES);
	tcase_add_loop_test(tc, put_fails_where_it_cannot_succeed, 0, LANGUAGES);
	tcase_add_test(tc, puts_of_all_languages_at_once_lose_no_update);
	return s;
}
