/*
 * shardctl.c - the command line of shardctl: what it prints, in words and JSON, how it ends, and that it
 * leaves a running mount alone.
 */
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <pty.h>
#include <sys/wait.h>

#include "tests/fs/fixture.h"

/* Run it with these words; what it printed to stdout and its status. */
__attribute__((format(printf, 2, 3))) static int ctl(char **out, const char *fmt, ...)
{
	char words[PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	return sh(out, "%s %s 2>%s/stderr", shardctl_path(), words, w.dir);
}

/* What it printed to stderr then. */
static char *said(void)
{
	char *path = check_path(w.dir, "stderr"), *text = slurp(path);

	free(path);
	return text;
}

__attribute__((format(printf, 2, 3))) static void want_status(int want, const char *fmt, ...)
{
	char words[PATH_MAX], *out, *err;
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	status = ctl(&out, "%s", words);
	err = said();
	ck_assert_msg(status == want, "shardctl %s: exit %d, not %d: %s%s", words, status, want, out, err);
	/* A failure has a sentence. */
	ck_assert_msg(want == 0 || err[0] != '\0', "shardctl %s: exit %d without a word", words, status);
	free(out);
	free(err);
}

/* It must end well, with one document. */
__attribute__((format(printf, 1, 2))) static json_t *want_json(const char *fmt, ...)
{
	char words[PATH_MAX], *out;
	json_error_t error;
	va_list ap;
	json_t *json;
	int status;

	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	status = ctl(&out, "%s", words);
	ck_assert_msg(status == 0, "shardctl %s: exit %d: %s", words, status, out);
	json = json_loads(out, 0, &error);
	ck_assert_msg(json != NULL, "shardctl %s: %s: %s", words, error.text, out);
	free(out);
	return json;
}

static json_int_t number(const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);

	ck_assert_msg(json_is_integer(value), "no number %s", key);
	return json_integer_value(value);
}

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	ck_assert_msg(text != NULL, "no text %s", key);
	return text;
}

static const char *id(void)
{
	return strrchr(shard, '/') + 1;
}

static void fill(void)
{
	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tapple\tred\n0\t2\tpear\tgreen\ncommit\n");
	want_txn(
		shard,
		"begin expected_upper=1 new_upper=5 since=0\n3\t-1\tapple\tred\n3\t1\tapple\tgold\ncommit\n");
	free(want_sh("ln -s ../shard/%s %s/name/fruit", id(), w.mnt));
}

/* --- beside a mount -------------------------------------------------------------------------------- */

START_TEST(what_reads_works_beside_a_mount_and_sees_what_it_sees)
{
	char *out, *want;
	json_t *json;

	fill();
	json = want_json("ls --json %s", w.store);
	ck_assert_str_eq(text_of(json, "shard"), id());
	ck_assert_int_eq(number(json, "upper"), 5);
	ck_assert_int_eq(number(json, "updates"), 4);
	ck_assert_str_eq(json_string_value(json_array_get(json_object_get(json, "names"), 0)), "fruit");
	json_decref(json);
	ck_assert_int_eq(ctl(&out, "ls %s", w.store), 0);
	ck_assert_ptr_nonnull(strstr(out, " since=0 upper=5 batches=2 updates=4 name=fruit\n"));
	free(out);
	for (int i = 0; i < 2; i++) { /* by id and by name */
		ck_assert_int_eq(ctl(&out, "cat %s %s", w.store, i == 0 ? id() : "fruit"), 0);
		want = slurp(at(shard, "snapshot"));
		ck_assert_str_eq(out, want);
		free(out);
		free(want);
		ck_assert_int_eq(ctl(&out, "cat %s %s 0", w.store, i == 0 ? id() : "fruit"), 0);
		ck_assert_str_eq(out, "0\t1\tapple\tred\n0\t2\tpear\tgreen\n");
		free(out);
	}
	json = want_json("state --json %s fruit", w.store);
	ck_assert_str_eq(text_of(json, "mode"), "0755");
	ck_assert_int_eq(number(json_object_get(json_object_get(json, "holds"), "default"), "token"), 0);
	json_decref(json);
	want_status(0, "state %s fruit", w.store);
	want_status(0, "fsck %s", w.store);
	want_status(0, "export %s", w.store);
	want_txn(shard, "begin expected_upper=5 new_upper=6\n5\t1\tplum\tblue\ncommit\n");
	ck_assert_int_eq(ctl(&out, "cat %s fruit", w.store), 0);
	ck_assert_ptr_nonnull(strstr(out, "plum"));
	free(out);
}
END_TEST

START_TEST(what_changes_the_store_is_refused_beside_a_mount_with_its_name)
{
	char *err;

	fill();
	free(want_sh("%s export %s >%s/x", shardctl_path(), w.store, w.dir));
	want_status(3, "fsck --repair %s", w.store);
	err = said();
	ck_assert_ptr_nonnull(strstr(err, "has another owner: host="));
	ck_assert_ptr_nonnull(strstr(err, w.mnt));
	free(err);
	want_status(3, "import %s %s/x", w.store, w.dir);
	want_file(shard, "upper", "5\n");
}
END_TEST

/* --- JSON ------------------------------------------------------------------------------------------ */

START_TEST(rows_as_json_tell_bytes_that_are_no_text_and_absent_ones_apart)
{
	static const char *const want[] = {
		"{\"time\":0,\"diff\":1,\"key\":null,\"val\":\"\"}",
		"{\"time\":0,\"diff\":-9223372036854775807,\"key\":\"a\\tb\\\"\",\"val\":\"\\u0000\"}",
		"{\"time\":0,\"diff\":1,\"key\":{\"hex\":\"ff00\"},\"val\":\"\xc3\xa4\"}",
	};
	char *out, *line, *rest;
	size_t n = 0;

	want_txn(shard,
		 "begin expected_upper=0 new_upper=1\n0\t1\t\\N\t\n0\t-9223372036854775807\ta\\tb\"\t\\000\n"
		 "0\t1\t\\377\\000\t\xc3\xa4\ncommit\n");
	ck_assert_int_eq(ctl(&out, "cat --json %s %s", w.store, id()), 0);
	for (line = strtok_r(out, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		json_t *got = json_loads(line, JSON_ALLOW_NUL, NULL),
		       *wanted = json_loads(want[n], JSON_ALLOW_NUL, NULL);

		ck_assert_uint_lt(n, 3);
		ck_assert_msg(got != NULL && json_equal(got, wanted), "%s", line);
		json_decref(got);
		json_decref(wanted);
		n++;
	}
	ck_assert_uint_eq(n, 3);
	free(out);
}
END_TEST

/* Python reads it too: a second opinion. */
START_TEST(every_json_is_lines_that_python_reads)
{
	static const char *const words[][2] = {
		{"ls --json", ""}, {"fsck --json -v", ""}, {"cat --json", "fruit"}};

	fill();
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		free(want_sh(
			"%s %s %s %s | python3 -c 'import json,sys; n=[json.loads(l) for l in sys.stdin]; "
			"assert n and all(type(x) is dict for x in n)'",
			shardctl_path(), words[i][0], w.store, words[i][1]));
	free(want_sh("%s state --json %s fruit | python3 -m json.tool", shardctl_path(), w.store));
}
END_TEST

/* --- how it ends ----------------------------------------------------------------------------------- */

START_TEST(wrong_usage_is_2_and_says_what_is_right)
{
	static const char *const words[] = {
		"",          "nonsense",    "ls",
		"ls a b",    "cat a",       "cat a b c d",
		"fsck",      "fsck -z a",   "fsck --nope a",
		"export",    "import",      "import a b c",
		"state a",   "ls --as x y", "fsck --drop-damaged a",
		"export -o", "cat a b 01x",
	};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		want_status(2, "%s", words[i]);
	fill();
	want_status(2, "export %s fruit fruit", w.store);
	free(want_sh("%s export %s fruit >%s/x", shardctl_path(), w.store, w.dir));
	want_status(2, "import --as nonsense %s/new %s/x", w.dir, w.dir);
	ck_fails(access(at(w.dir, "new"), F_OK), ENOENT);
}
END_TEST

START_TEST(help_is_on_stdout_and_lists_the_exit_statuses)
{
	static const char *const words[] = {"--help",     "-h",          "ls --help",     "state --help",
					    "cat --help", "fsck --help", "export --help", "import --help"};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		char *out, *err;

		ck_assert_int_eq(ctl(&out, "%s", words[i]), 0);
		err = said();
		ck_assert_str_eq(err, "");
		ck_assert_ptr_nonnull(strstr(out, "usage: shardctl"));
		ck_assert_ptr_nonnull(strstr(out, "Exit status: 0 all is well"));
		free(out);
		free(err);
	}
}
END_TEST

START_TEST(it_tells_its_version_and_the_word_it_does_not_know)
{
	char *err;

	free(want_sh("%s --version | grep -q '^shardctl [0-9]'", shardctl_path()));
	want_status(2, "nonsense");
	err = said();
	ck_assert_ptr_nonnull(strstr(err, "no command is called nonsense"));
	free(err);
}
END_TEST

START_TEST(what_is_not_there_is_4_and_nothing_is_made)
{
	static const char *const commands[] = {"ls", "fsck", "fsck --repair", "export"};

	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		want_status(4, "%s %s/none", commands[i], w.dir);
	ck_fails(access(at(w.dir, "none"), F_OK), ENOENT);
	want_status(4, "import %s/new %s/none", w.dir, w.dir);
	want_status(4, "cat %s fruit", w.store);
	want_status(4, "state %s s00000000-0000-4000-8000-000000000000", w.store);
	fill();
	want_status(4, "cat %s fruit 5", w.store);
	ck_errno(write_once(at(shard, "since"), "3\n"), 0);
	want_status(4, "cat %s fruit 2", w.store);
	want_status(4, "export -o %s/x %s nobody", w.dir, w.store);
	ck_fails(access(at(w.dir, "x"), F_OK), ENOENT);
	ck_fails(access(at(w.dir, "x.part"), F_OK), ENOENT);
}
END_TEST

START_TEST(a_full_stdout_is_no_success)
{
	fill();
	ck_assert_int_eq(sh(NULL, "%s cat %s fruit >/dev/full", shardctl_path(), w.store), 1);
	ck_assert_int_eq(sh(NULL, "%s ls --json %s >/dev/full", shardctl_path(), w.store), 1);
	ck_assert_int_eq(sh(NULL, "%s fsck %s >/dev/full", shardctl_path(), w.store), 1);
	ck_assert_int_eq(sh(NULL, "%s export %s >/dev/full", shardctl_path(), w.store), 1);
}
END_TEST

/* --- export and import ------------------------------------------------------------------------------ */

/* Mount the store `name` in place of the one of the fixture. */
static void mount_instead(const char *name)
{
	world_stop(&w);
	free(w.store);
	w.store = check_path(w.dir, name);
	world_start(&w, NULL);
}

START_TEST(a_store_that_was_carried_over_is_the_same_to_those_who_mount_it)
{
	char *other = shard_new(&w), *snapshot, *as_of, *listing;
	json_t *json;

	fill();
	want_txn(other, "begin expected_upper=0 new_upper=-\n7\t1\tx\ty\ncommit\n");
	ck_works(chmod(shard, 0700));
	ck_works(chown(shard, 12, 34));
	snapshot = slurp(at(shard, "snapshot"));
	as_of = slurp(at(shard, "as_of/1"));
	listing = want_sh("cd %s && ls -ln shard | awk 'NR>1 { print $1, $3, $4, $9 }'; readlink name/*; cat "
			  "shard/*/upper "
			  "shard/*/since",
			  w.mnt);
	json = want_json("export --json -z -o %s/all %s", w.dir, w.store);
	ck_assert_int_eq(number(json, "shards"), 2);
	ck_assert_int_eq(number(json, "updates"), 5);
	ck_assert_int_eq(number(json, "names"), 1);
	ck_assert(json_is_true(json_object_get(json, "one_moment")));
	json_decref(json);
	json = want_json("import --json %s/new %s/all", w.dir, w.dir);
	ck_assert_int_eq(number(json, "shards"), 2);
	ck_assert_int_eq(number(json, "names"), 1);
	json_decref(json);
	mount_instead("new");
	want_file(shard, "snapshot", snapshot);
	want_file(shard, "as_of/1", as_of);
	{
		char *now = want_sh(
			"cd %s && ls -ln shard | awk 'NR>1 { print $1, $3, $4, $9 }'; readlink name/*; cat "
			"shard/*/upper shard/*/since",
			w.mnt);

		ck_assert_str_eq(now, listing);
		free(now);
	}
	want_txn(shard, "begin expected_upper=5 new_upper=6\n5\t1\tplum\tblue\ncommit\n");
	free(snapshot);
	free(as_of);
	free(listing);
	free(other);
}
END_TEST

START_TEST(stdout_and_stdin_are_files_too)
{
	char *id2 = shard_id(), *path;

	fill();
	free(want_sh("%s export %s | %s import %s/new", shardctl_path(), w.store, shardctl_path(), w.dir));
	free(want_sh("%s export -z %s fruit | %s import --as %s %s/new -", shardctl_path(), w.store,
		     shardctl_path(), id2, w.dir));
	want_status(0, "fsck %s/new", w.dir);
	mount_instead("new");
	ck_assert_int_ge(asprintf(&path, "%s/shard/%s", w.mnt, id2), 0);
	want_file(path, "snapshot", "4\t1\tapple\tgold\n4\t2\tpear\tgreen\n");
	want_file(shard, "snapshot", "4\t1\tapple\tgold\n4\t2\tpear\tgreen\n");
	free(path);
	free(id2);
}
END_TEST

START_TEST(shards_that_are_there_are_6_unless_they_are_to_be_skipped)
{
	fill();
	want_status(0, "export -o %s/x %s", w.dir, w.store);
	want_status(0, "import %s/new %s/x", w.dir, w.dir);
	want_status(6, "import %s/new %s/x", w.dir, w.dir);
	want_status(0, "import --skip-existing %s/new %s/x", w.dir, w.dir);
	want_status(0, "fsck %s/new", w.dir);
}
END_TEST

/* --- fsck ------------------------------------------------------------------------------------------ */

/* A part that is a file; given. */
static char *part_file(void)
{
	char *blob;

	free(want_sh("head -c 3000000 /dev/urandom | base64 -w 1000 | awk '{ print \"0\\t1\\t\" NR \"\\t\" "
		     "$0 }' > "
		     "'%s/batches/big' && sync '%s/batches/big'",
		     shard, shard));
	want_txn(shard, "begin expected_upper=0 new_upper=1\nbatch big\ncommit\n");
	blob = want_sh("find %s/blobs/data -name 'p*' -size +100k", w.store);
	blob[strcspn(blob, "\n")] = '\0';
	return blob;
}

START_TEST(damage_is_1_with_the_place_and_is_cut_out_only_when_asked_with_a_note)
{
	char *blob = part_file(), *out, *line, *rest, *repairs;
	unsigned findings = 0;

	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\tsmall\tone\ncommit\n");
	world_stop(&w);
	free(want_sh("printf X | dd of='%s' bs=1 seek=1500000 conv=notrunc 2>&1", blob));
	ck_assert_int_eq(ctl(&out, "fsck --json %s", w.store), 1);
	for (line = strtok_r(out, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		json_t *json = json_loads(line, 0, NULL);

		ck_assert_ptr_nonnull(json);
		if (json_object_get(json, "finding") != NULL) {
			findings++;
			ck_assert_str_eq(text_of(json, "shard"), id());
			ck_assert_ptr_nonnull(strstr(blob, text_of(json, "file")));
			ck_assert_int_le(number(json, "offset"), 1500000);
			ck_assert_int_gt(number(json, "offset"), 1200000);
			ck_assert_ptr_nonnull(strstr(text_of(json, "remedy"), "--drop-damaged"));
		} else {
			ck_assert_str_eq(text_of(json, "verdict"), "damaged");
		}
		json_decref(json);
	}
	ck_assert_uint_eq(findings, 1);
	free(out);
	want_status(1, "export %s", w.store);
	want_status(1, "fsck --repair %s", w.store); /* nothing is given up unasked */
	ck_fails(access(at(w.store, "REPAIRS"), F_OK), ENOENT);
	ck_assert_int_eq(ctl(&out, "fsck --repair --drop-damaged %s", w.store), 0);
	ck_assert_ptr_nonnull(strstr(out, "LOST: s"));
	ck_assert_ptr_nonnull(strstr(out, "of times 0 to 0"));
	free(out);
	repairs = slurp(at(w.store, "REPAIRS"));
	ck_assert_ptr_nonnull(strstr(repairs, "\"loses\":true"));
	ck_assert_uint_eq(count_lines(repairs), 1);
	want_status(0, "fsck %s", w.store);
	world_start(&w, NULL);
	free(want_sh("tail -1 %s/snapshot | grep -q small", shard));
	want_file(shard, "upper", "2\n");
	free(repairs);
	free(blob);
}
END_TEST

START_TEST(orphans_are_notes_that_a_repair_deletes)
{
	char *dir;

	fill();
	world_stop(&w);
	ck_assert_int_ge(
		asprintf(&dir, "%s/blobs/data/%s/n00000000-0000-4000-8000-000000000000", w.store, id()), 0);
	free(want_sh("mkdir -p %s && echo x > %s/p00000000-0000-4000-8000-000000000000", dir, dir));
	{
		json_t *json;
		char *out, *line;

		ck_assert_int_eq(ctl(&out, "fsck --json %s", w.store), 0);
		line = strchr(out, '\n');
		ck_assert_ptr_nonnull(line);
		*line = '\0';
		json = json_loads(out, 0, NULL);
		ck_assert_str_eq(text_of(json, "finding"), "note");
		json_decref(json);
		free(out);
	}
	want_status(0, "fsck --repair %s", w.store);
	ck_fails(access(dir, F_OK), ENOENT);
	world_start(&w, NULL);
	want_file(shard, "upper", "5\n");
	free(dir);
}
END_TEST

/* --- the bar --------------------------------------------------------------------------------------- */

/* What it prints where stderr is a terminal; given. */
static char *on_terminal(const char *command, const char *store)
{
	char *text = calloc(1, 1 << 16);
	size_t len = 0;
	ssize_t n;
	int fd, status;
	pid_t pid;

	ck_assert_ptr_nonnull(text);
	pid = forkpty(&fd, NULL, NULL, NULL);
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		execl(shardctl_path(), "shardctl", command, store, (char *)NULL);
		_exit(127);
	}
	while (len < (1 << 16) - 1 && (n = read(fd, text + len, (1 << 16) - 1 - len)) > 0)
		len += (size_t)n;
	close(fd);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return text;
}

START_TEST(a_bar_is_drawn_on_a_terminal_and_nowhere_else)
{
	char *out, *err;

	fill();
	out = on_terminal("fsck", w.store);
	ck_assert_msg(strstr(out, "checking [") != NULL && strstr(out, "100%") != NULL, "%s", out);
	ck_assert_ptr_nonnull(strstr(out, "clean: 1 shards"));
	free(out);
	out = on_terminal("export", w.store);
	ck_assert_msg(strstr(out, "exporting [") != NULL, "%s", out);
	free(out);
	ck_assert_int_eq(ctl(&out, "fsck %s", w.store), 0);
	err = said();
	ck_assert_str_eq(err, "");
	free(out);
	free(err);
}
END_TEST

Suite *shardctl_suite(void)
{
	Suite *s = suite_create("shardctl");
	TCase *tc = shard_case(s, "shardctl", 120);

	tcase_add_test(tc, what_reads_works_beside_a_mount_and_sees_what_it_sees);
	tcase_add_test(tc, what_changes_the_store_is_refused_beside_a_mount_with_its_name);
	tcase_add_test(tc, rows_as_json_tell_bytes_that_are_no_text_and_absent_ones_apart);
	tcase_add_test(tc, every_json_is_lines_that_python_reads);
	tcase_add_test(tc, wrong_usage_is_2_and_says_what_is_right);
	tcase_add_test(tc, help_is_on_stdout_and_lists_the_exit_statuses);
	tcase_add_test(tc, it_tells_its_version_and_the_word_it_does_not_know);
	tcase_add_test(tc, what_is_not_there_is_4_and_nothing_is_made);
	tcase_add_test(tc, a_full_stdout_is_no_success);
	tcase_add_test(tc, a_store_that_was_carried_over_is_the_same_to_those_who_mount_it);
	tcase_add_test(tc, stdout_and_stdin_are_files_too);
	tcase_add_test(tc, shards_that_are_there_are_6_unless_they_are_to_be_skipped);
	tcase_add_test(tc, damage_is_1_with_the_place_and_is_cut_out_only_when_asked_with_a_note);
	tcase_add_test(tc, orphans_are_notes_that_a_repair_deletes);
	tcase_add_test(tc, a_bar_is_drawn_on_a_terminal_and_nowhere_else);
	return s;
}
