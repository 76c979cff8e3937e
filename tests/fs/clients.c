/*
 * clients.c - the programs people write with: the exit status tells the truth, and what was refused is not applied
 * by a client that writes the same bytes again unasked.
 */
#include "tests/fs/fixture.h"

static void setup(void)
{
	world_open(&w);
	shard = shard_new(&w);
}

static void teardown(void)
{
	unsetenv("A");
	free(shard);
	world_close(&w);
}

/* Each writes the file $F, whose text is $T, to $A. */
static const char *const clients[] = {
	"bash -c 'printf %s \"$T\" > \"$A\"'",
	"bash -c 'set -e; while IFS= read -r l; do echo \"$l\"; done < \"$F\" > \"$A\"'",
	"bash -c 'set -e; exec 3<> \"$A\"; printf %s \"$T\" >&3; read -r v <&3; test \"${v%% *}\" = ok'",
	"dash -c 'printf %s \"$T\" > \"$A\"'",
	"dash -c 'printf %s \"$T\" >> \"$A\"'",
	"cat \"$F\" > \"$A\"",
	"cat < \"$F\" >> \"$A\"",
	"cp \"$F\" \"$A\"",
	"cp -p \"$F\" \"$A\"",
	"dd if=\"$F\" of=\"$A\" status=none",
	"dd if=\"$F\" of=\"$A\" bs=7 status=none",
	"dd if=\"$F\" of=\"$A\" bs=1 conv=notrunc,fsync status=none",
	"tee \"$A\" < \"$F\" > /dev/null",
	"tee -a \"$A\" < \"$F\" > /dev/null",
	"sed '' \"$F\" > \"$A\"",
	"awk '{ print }' \"$F\" > \"$A\"",
	"head -n 1000000 \"$F\" > \"$A\"",
	"python3 -c 'import os; f = open(os.environ[\"A\"], \"w\"); f.write(os.environ[\"T\"]); f.close()'",
	"python3 -c 'import os\nwith open(os.environ[\"A\"], \"r+\") as f: f.write(os.environ[\"T\"])'",
	"python3 -c 'import os\nwith open(os.environ[\"A\"], \"wb\", 0) as f: f.write(os.environ[\"T\"].encode())'",
	"python3 -c 'import os, pathlib; pathlib.Path(os.environ[\"A\"]).write_text(os.environ[\"T\"])'",
	"python3 -c 'import os, shutil; shutil.copyfile(os.environ[\"F\"], os.environ[\"A\"])'",
	("python3 -c 'import os\nf = os.open(os.environ[\"A\"], os.O_RDWR); os.write(f, os.environ[\"T\"].encode())\n"
	 "assert os.read(f, 4096).startswith(b\"ok \")'"),
	"perl -e 'open(F, \">\", $ENV{A}) or die; print F $ENV{T} or die; close F or die'",
	"perl -e 'open(F, \">>\", $ENV{A}) or die; syswrite(F, $ENV{T}) == length $ENV{T} or die'",
};
enum { CLIENTS = sizeof clients / sizeof clients[0] };

static void give(const char *text)
{
	char *file = check_path(w.dir, "text"), *append = check_path(shard, "append");

	check_write(file, text);
	setenv("F", file, 1);
	setenv("T", text, 1);
	setenv("A", append, 1);
	free(file);
	free(append);
}

START_TEST(a_good_transaction_is_applied_once_and_a_refused_one_not)
{
	char *out;
	int status;

	give("begin expected_upper=0 new_upper=1\n0\t1\tone\tx\n0\t1\ttwo\ty\ncommit\n");
	status = sh(&out, "%s", clients[_i]);
	ck_assert_msg(status == 0, "%s: exit %d: %s", clients[_i], status, out);
	free(out);
	want_file(shard, "snapshot", "0\t1\tone\tx\n0\t1\ttwo\ty\n");
	want_file(shard, "upper", "1\n");
	want_file(shard, "errors", "");

	give("begin expected_upper=0 new_upper=2\n1\t1\tthree\tz\ncommit\n");
	status = sh(&out, "%s", clients[_i]);
	ck_assert_msg(status != 0, "%s: a refusal gives exit 0", clients[_i]);
	free(out);
	give("begin expected_upper=1 new_upper=2\n1\t1\tthree\ncommit\n");
	status = sh(&out, "%s", clients[_i]);
	ck_assert_msg(status != 0, "%s: a refusal gives exit 0", clients[_i]);
	free(out);
	want_file(shard, "snapshot", "0\t1\tone\tx\n0\t1\ttwo\ty\n");
	want_file(shard, "upper", "1\n");
	out = slurp(at(shard, "errors"));
	ck_assert_ptr_nonnull(strstr(out, " UpperMismatch errno=ESTALE expected_upper=0 current_upper=1 "));
	free(out);
}
END_TEST

/* GNU sort given a file of size 0 by name takes a tiny buffer and half a minute; hence cat. */
START_TEST(a_large_one_too)
{
	char *text = malloc(4 << 20), *p = text, *out;
	int status;

	p += sprintf(p, "begin expected_upper=0 new_upper=1\n");
	for (int i = 0; p < text + (3 << 20); i++)
		p += sprintf(p, "0\t1\tkey%d\tsome value of a row\n", i);
	strcpy(p, "commit\n");
	give("");
	check_write(getenv("F"), text);
	for (int round = 0; round < 2; round++) {
		if (strstr(clients[_i], "$T") != NULL || strstr(clients[_i], "ENV{T}") != NULL ||
		    strstr(clients[_i], "\"T\"") != NULL || strstr(clients[_i], "bs=1 ") != NULL ||
		    strstr(clients[_i], "bs=7 ") != NULL || strstr(clients[_i], "while") != NULL)
			break; /* by the environment or in tiny pieces it takes too long */
		status = sh(&out, "timeout 30 sh -c \"$(cat <<'END'\n%s\nEND\n)\"", clients[_i]);
		ck_assert_msg(status != 124, "%s: round %d: does not end", clients[_i], round);
		ck_assert_msg((status == 0) == (round == 0), "%s: round %d: exit %d: %s", clients[_i], round, status, out);
		free(out);
		want_file(shard, "upper", "1\n");
		out = want_sh("sed 1d \"$F\" | sed '$d' | sort > %s/a; cat %s/snapshot | sort | cmp - %s/a", w.dir, shard, w.dir);
		free(out);
	}
	free(text);
}
END_TEST

/* Refused at flush; then the upper becomes the expected one; then the client writes again. */
static const char *const retriers[] = {
	"f = open(A, 'w'); f.write(T)\nfails(f.flush); other(); fails(f.close); fails(f.close)",
	"f = open(A, 'wb'); f.write(T.encode())\nfails(f.flush); other(); fails(f.flush); fails(f.close)",
	"f = os.open(A, os.O_RDWR); b = T.encode()\nfails(lambda: os.write(f, b)); other()\n"
	"for i in range(5): fails(lambda: os.write(f, b))\nos.close(f)",
	"f = open(A, 'r+b', 0); fails(lambda: f.write(T.encode())); f.seek(0); f.read(); other()\n"
	"fails(lambda: f.write(T.encode())); f.close()",
};
enum { RETRIERS = sizeof retriers / sizeof retriers[0] };

START_TEST(what_was_refused_is_not_applied_by_a_retry)
{
	char *out, *script = check_path(w.dir, "script.py"), *text;

	give("begin expected_upper=1 new_upper=2\n1\t1\trefused\tx\ncommit\n");
	ck_assert_int_ge(asprintf(&text,
				  "import os, errno\nA = os.environ['A']; T = os.environ['T']\n"
				  "def other():\n  f = os.open(A, os.O_WRONLY)\n"
				  "  os.write(f, b'begin expected_upper=* new_upper=+1\\ncommit\\n'); os.close(f)\n"
				  "def fails(call):\n  try: call()\n  except OSError as e: assert e.errno == errno.ESTALE, e\n"
				  "  except ValueError: pass\n"
				  "%s\n",
				  retriers[_i]),
			 0);
	check_write(script, text);
	out = want_sh("python3 %s", script);
	free(out);
	want_file(shard, "snapshot", "");
	want_file(shard, "upper", "1\n");
	free(text);
	free(script);
}
END_TEST

/* Many processes, each by compare-and-append with the upper it read: each change is applied once. */
START_TEST(scripts_that_compare_and_append_lose_no_update)
{
	char *out = want_sh("cd %s; for p in 1 2 3 4; do bash -c '"
			    "for i in 1 2 3 4 5 6 7 8 9 10; do until u=$(cat upper) && "
			    "printf \"begin expected_upper=%%d new_upper=%%d\\n%%d\\t1\\tp%%d\\ti%%d\\ncommit\\n\" $u $((u+1)) $u $0 $i "
			    "2>/dev/null > append; do :; done; done' $p 2>/dev/null & done; wait; cat upper; wc -l < snapshot; "
			    "cut -f2 snapshot | sort -u",
			    shard);

	ck_assert_str_eq(out, "40\n40\n1\n");
	free(out);
}
END_TEST

START_TEST(a_writer_does_not_wait_for_an_open_transaction)
{
	char *out = want_sh("cd %s; exec 3> append; printf 'begin expected_upper=* new_upper=+1\\n*\\t1\\tslow\\tx\\n' >&3; "
			    "printf 'begin expected_upper=* new_upper=+1\\n*\\t1\\tfast\\tx\\ncommit\\n' > append; cat upper; "
			    "touch append; chmod 644 append; ls > /dev/null; stat append > /dev/null; "
			    "printf 'commit\\n' >&3; cat upper; cat snapshot",
			    shard);

	ck_assert_str_eq(out, "1\n2\n1\t1\tfast\tx\n1\t1\tslow\tx\n");
	free(out);
}
END_TEST

Suite *clients_suite(void)
{
	Suite *s = suite_create("clients");
	TCase *tc = world_case(s, "clients", 120);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_good_transaction_is_applied_once_and_a_refused_one_not, 0, CLIENTS);
	tcase_add_loop_test(tc, a_large_one_too, 0, CLIENTS);
	tcase_add_loop_test(tc, what_was_refused_is_not_applied_by_a_retry, 0, RETRIERS);
	tcase_add_test(tc, scripts_that_compare_and_append_lose_no_update);
	tcase_add_test(tc, a_writer_does_not_wait_for_an_open_transaction);
	return s;
}
