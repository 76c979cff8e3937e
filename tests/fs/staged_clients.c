/* staged_clients.c - the programs people write files with, on staged batches. */
#include "tests/fs/stage.h"

/* What they leave in $X must be the rows of $F; the file $F has 2 MiB. */
static const char *const writers[] = {
	"cp $F $X",
	"cp -p $F $X",
	"cp --sparse=always $F $X",
	"cat $F > $X",
	"cat $F >> $X",
	"echo '0\t1\told\t' > $X; cat $F > $X",
	"cat < $F | tee $X > /dev/null",
	"head -n 1000 $F > $X; tail -n +1001 $F | tee -a $X > /dev/null",
	"dd if=$F of=$X status=none",
	"dd if=$F of=$X bs=12345 status=none",
	"dd if=$F of=$X bs=1M oflag=append conv=notrunc,fsync status=none",
	"head -c 777 $F > $X; tail -c +778 $F | dd of=$X bs=4k oflag=append conv=notrunc status=none",
	"head -c 777 $F > $X; tail -c +778 $F | dd of=$X bs=777 seek=1 conv=notrunc status=none",
	"rsync --inplace $F $X",
	"rsync --inplace -a $F $X",
	"head -n 1000 $F > $X; rsync --append $F $X",
	"install -m 600 $F $X",
	"cp $F $D/copy; mv $D/copy $X",
	"cp $F ${X}_new; mv ${X}_new $X",
	"echo '0\t1\told\t' > $X; cp $F ${X}_new; sync ${X}_new; mv ${X}_new $X",
	"awk '{ print }' $F > $X",
	"awk '{ print >> ENVIRON[\"X\"] }' $F",
	"sed '' $F > $X",
	"cp $F $X; sed -i 's/^0/0/' $X",
	"perl -e 'open(F, \">\", $ENV{X}) or die; open(I, \"<\", $ENV{F}); print F $_ while <I>; close F or die'",
	"bash -c 'exec 3>$X; cat $F >&3'",
	"bash -c '(head -n 5 $F; tail -n +6 $F) > $X'",
	"bash -c 'while IFS= read -r l; do echo \"$l\" >> $X; done < <(head -n 300 $F); tail -n +301 $F >> $X'",
	"cp $F $X; touch $X; chmod 600 $X; truncate -s $(stat -c %s $X) $X",
	"cp $F $X; truncate -s 0 $X; cp $F $X",
	"python3 -c 'import os; f = open(os.environ[\"X\"], \"w\"); f.write(open(os.environ[\"F\"]).read()); f.close()'",
	"python3 -c 'import os; f = open(os.environ[\"X\"], \"x\"); f.write(open(os.environ[\"F\"]).read()); f.close()'",
	"python3 -c 'import os\nfor l in [open(os.environ[\"F\"]).read()]:\n  f = open(os.environ[\"X\"], \"a\"); f.write(l); f.close()'",
	("head -n 7 $F > $X; python3 -c 'import os\nt = open(os.environ[\"F\"]).read()\nwith open(os.environ[\"X\"], \"r+\") as f:\n"
	 "  n = len(f.read()); f.write(t[n:])'"),
	"python3 -c 'import os, shutil; shutil.copy(os.environ[\"F\"], os.environ[\"X\"])'",
	("python3 -c 'import os, pathlib, mmap; p = pathlib.Path(os.environ[\"X\"]); p.write_bytes(open(os.environ[\"F\"], \"rb\").read())\n"
	 "assert p.read_bytes() == open(os.environ[\"F\"], \"rb\").read()'"),
	"HOME=$D vim -es -u NONE -c 'wq! '$X $F",
	"HOME=$D; cp $F $X; vim -es -u NONE -c 'w!' -c 'q' $X",
};
enum { WRITERS = sizeof writers / sizeof writers[0] };

/* rsync and vim are not everywhere. */
static bool is_here(const char *line)
{
	return (strstr(line, "rsync ") == NULL || sh(NULL, "command -v rsync") == 0) &&
	       (strstr(line, "vim ") == NULL || sh(NULL, "command -v vim") == 0);
}

START_TEST(programs_write_them_as_any_file)
{
	char *file, *text, *p, *out, *x;
	int status;

	if (!is_here(writers[_i]))
		return;
	file = check_path(w.dir, "file");
	x = strdup(batch("x"));
	p = text = malloc(3 << 20);
	for (int i = 0; p < text + (2 << 20); i++) /* in the order in which they are given back */
		p += sprintf(p, "%d\t1\tkey%07d\tsome value of a row\n", i % 2, i);
	check_write(file, text);
	setenv("F", file, 1);
	setenv("X", x, 1);
	setenv("D", w.dir, 1);
	status = sh(&out, "timeout 60 sh -c \"$(cat <<'END'\nset -e\n%s\nEND\n)\"", writers[_i]);
	ck_assert_msg(status == 0, "%s: exit %d: %s", writers[_i], status, out);
	free(out);
	free(want_sh("set -e; cd %s; sort $F > want; sort $X > got; cmp got want; test $(wc -c < $X) = $(stat -c %%s $X); "
		     "test $(tail -n 3 $X | wc -l) = 3; test $(tail -c 20 $X | wc -c) = 20; test $(ls -A %s/batches) = x; "
		     "cp $X copy; cmp copy $X; tar cf - -C %s/batches x | tar xOf - | cmp - $X",
		     w.dir, shard, shard));
	free(x);
	free(text);
	free(file);
}
END_TEST

static const char *const refused[] = {
	"rsync $F $X", /* its temporary name */
	"perl -i -pe 's/^0/x/' $X",
	"sed -i 's/^0/x/' $X",
	"truncate -s 5 $X",
	"truncate -s +5 $X",
	"dd if=$F of=$X bs=1 seek=3 conv=notrunc status=none",
	"dd if=$F of=$X bs=1 seek=3 status=none",
	"python3 -c 'import os; f = open(os.environ[\"X\"], \"r+\"); f.write(\"0\\t1\\ta\\tb\\n\"); f.close()'",
	"printf '1\t1\tb\tb\nx\n' | cat >> ${X}2",
	"cp $F ${X}~",
	"ln $X ${X}3",
	"mkfifo ${X}3",
	"mkdir ${X}3",
};
enum { REFUSED = sizeof refused / sizeof refused[0] };

START_TEST(what_cannot_be_is_refused_and_leaves_it_whole)
{
	bool empties = strcmp(refused[_i], "dd if=$F of=$X bs=1 seek=3 status=none") == 0;
	char *file, *out, *x;
	int status;

	if (!is_here(refused[_i]))
		return;
	file = check_path(w.dir, "file");
	x = strdup(batch("x"));
	check_write(file, "0\t1\tnew\tb\n");
	setenv("F", file, 1);
	setenv("X", x, 1);
	stage("x", "0\t1\ta\tb\n");
	status = sh(&out, "timeout 60 sh -c \"$(cat <<'END'\nset -e\n%s\nEND\n)\"", refused[_i]);
	ck_assert_msg(status != 0 && status != 124, "%s: exit %d: %s", refused[_i], status, out);
	if (!empties)
		want_batch("x", "0\t1\ta\tb\n");
	free(out);
	free(x);
	free(file);
}
END_TEST

Suite *staged_clients_suite(void)
{
	Suite *s = suite_create("staged clients");
	TCase *tc = shard_case(s, "staged clients", 120);

	tcase_add_loop_test(tc, programs_write_them_as_any_file, 0, WRITERS);
	tcase_add_loop_test(tc, what_cannot_be_is_refused_and_leaves_it_whole, 0, REFUSED);
	return s;
}
