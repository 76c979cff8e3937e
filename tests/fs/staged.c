/* staged.c - staged batches as files: writing, reading, names; and what a commit takes. */
#include "tests/fs/stage.h"

#include <dirent.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

/* --- writing --------------------------------------------------------------------------------------- */

START_TEST(rows_come_back_canonical_and_summed)
{
	stage("x", "3\t+2\t\\x41\tb\\b\n1\t1\t\\N\t\n1\t0\tnothing\t\n3\t1\tA\tb\b\n5\t1\ta\tb\n5\t-1\ta\tb\n");
	want_batch("x", "1\t1\t\\N\t\n3\t3\tA\tb\b\n");
	stage("empty", "");
	want_batch("empty", "");
}
END_TEST

START_TEST(text_may_be_cut_anywhere)
{
	static const char text[] = "bounds 0 9\n8\t1\t\\N\t\\N\n0\t1\tone\tx\n3\t-4\ttwo\ty\\n\n8\t1\tz\tpart";
	struct rng r = rng_new(500);
	char name[16];

	for (int i = 0; i < 60; i++) {
		size_t done = 0;
		int fd = -1;

		snprintf(name, sizeof name, "x%d", i);
		while (done < strlen(text)) {
			size_t n = i == 0 ? 1 : 1 + rng_below(&r, i % 2 != 0 ? 5 : 60);

			/* now and then with a new descriptor */
			if (fd < 0 || rng_below(&r, 4) == 0) {
				if (fd >= 0)
					close(fd);
				fd = stage_open(name, O_WRONLY | O_CREAT | O_APPEND);
			}
			n = n < strlen(text) - done ? n : strlen(text) - done;
			ck_assert_int_eq(put_len(fd, text + done, n), n);
			done += n;
		}
		close(fd);
		want_batch(name, text);
	}
}
END_TEST

struct bad_line {
	const char *line;
	int errnum;
};

static const struct bad_line bad_lines[] = {
	{"", EINVAL},
	{"hello", EINVAL},
	{"begin expected_upper=0 new_upper=5", EINVAL},
	{"begin", EINVAL},
	{"commit", EINVAL},
	{"batch y", EINVAL},
	{"bounds 0 9", EINVAL},
	{"bounds", EINVAL},
	{"*\t1\ta\tb", EINVAL},
	{"0\t1\ta", EINVAL},
	{"0\t1\ta\tb\tc", EINVAL},
	{"0 1 a b", EINVAL},
	{"00\t1\ta\tb", EINVAL},
	{"-\t1\ta\tb", EINVAL},
	{"0\tx\ta\tb", EINVAL},
	{"0\t9223372036854775808\ta\tb", EINVAL},
	{"0\t1\ta\\q\tb", EINVAL},
	{"18446744073709551616\t1\ta\tb", EINVAL},
};
enum { BAD_LINES = sizeof bad_lines / sizeof bad_lines[0] };

/* The good rows before it are taken, what follows is not; the same bytes again meet the same error. */
START_TEST(a_bad_line_is_refused_by_the_write_that_ends_it)
{
	const struct bad_line *bad = &bad_lines[_i];
	const char *good = "0\t1\ta\tb\n1\t1\tc\td\n";
	char text[200], *line;
	int fd = stage_open("x", O_WRONLY | O_CREAT);

	snprintf(text, sizeof text, "%s%s\n2\t1\te\tf\n", good, bad->line);
	ck_assert_int_eq(put(fd, text), strlen(good));
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(put(fd, text + strlen(good)), -bad->errnum);
	want_batch("x", good);
	line = last_error(shard);
	ck_assert_msg(strstr(line, " message=\"batches/x: ") != NULL, "%s", line);
	free(line);
	ck_assert_uint_eq(count_lines(line = slurp(at(shard, "errors"))), 1); /* not once for each try */
	free(line);
	ck_assert_int_eq(put(fd, "2\t1\te\tf\n"), 8);
	close(fd);
	want_batch("x", "0\t1\ta\tb\n1\t1\tc\td\n2\t1\te\tf\n");
}
END_TEST

START_TEST(a_bad_line_that_began_before_stays_as_it_was)
{
	int fd = stage_open("x", O_WRONLY | O_CREAT);

	ck_assert_int_eq(put(fd, "0\t1\ta\tb\n1\t1\tc"), 13);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(put(fd, "\n2\t1\te\tf\n"), -EINVAL);
	want_batch("x", "0\t1\ta\tb\n1\t1\tc");
	ck_assert_int_eq(put(fd, "\td\nbad\n"), 3);
	ck_assert_int_eq(put(fd, "bad\n"), -EINVAL);
	close(fd);
	want_batch("x", "0\t1\ta\tb\n1\t1\tc\td\n");
	/* an open descriptor or a new one */
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "2\t"), 2);
	close(fd);
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "\n"), -EINVAL);
	ck_assert_int_eq(put(fd, "1\te\tf\n"), 6);
	close(fd);
	want_batch("x", "0\t1\ta\tb\n1\t1\tc\td\n2\t1\te\tf\n");
}
END_TEST

START_TEST(a_row_of_16_mib_is_taken_and_one_byte_more_is_not)
{
	const size_t max = (size_t)16 << 20;
	char *text = malloc(max + 100);
	struct stat st;
	int fd = stage_open("x", O_WRONLY | O_CREAT);

	memcpy(text, "0\t1\tk\t", 6);
	memset(text + 6, 'v', max);
	memcpy(text + 6 + max, "\n", 2);
	ck_errno(put_all(fd, text, 6 + max + 1), EMSGSIZE);
	close(fd);
	ck_works(truncate(batch("x"), 0));
	fd = stage_open("x", O_WRONLY);
	ck_errno(put_all(fd, text, 6 + max - 1), 0); /* the newline is missing */
	ck_works(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 6 + max - 1);
	ck_errno(put_all(fd, "\n", 1), 0);
	ck_works(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 6 + max);
	close(fd);
	want_txn(shard, "begin expected_upper=0 new_upper=1\nbatch x\ncommit\n");
	ck_works(stat(batch("0-1"), &st));
	ck_assert_int_eq(st.st_size, 6 + max);
	free(text);
}
END_TEST

START_TEST(it_is_written_at_its_end)
{
	char buf[64];
	int fd;

	stage("x", "0\t+1\ta\tb\n"); /* one byte more than it has then */
	fd = stage_open("x", O_RDWR);
	ck_fails(pwrite(fd, "1\t1\ta\tb\n", 8, 0), EINVAL);
	ck_fails(pwrite(fd, "1\t1\ta\tb\n", 8, 9), EINVAL);
	ck_fails(pwrite(fd, "1\t1\ta\tb\n", 8, 7), EINVAL);
	ck_assert_int_eq(pwrite(fd, "1\t+1\ta\tb\n", 9, 8), 9);
	ck_assert_int_eq(pwrite(fd, "2\t+1\ta\tb\n", 9, 17), 9); /* where the one who writes thinks it is */
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), 24);
	ck_assert_int_eq(write(fd, "3\t+1\ta\tb\n", 9), 9); /* and where it is */
	ck_assert_int_eq(write(fd, "4\t", 2), 2);
	ck_assert_int_eq(write(fd, "1\ta\tb\nbad\n", 10), 6);
	ck_fails(write(fd, "bad\n", 4), EINVAL);
	ck_assert_int_eq(write(fd, "5\t1\ta\tb\n", 8), 8); /* f_pos is behind what was taken */
	ck_fails(lseek(fd, -1, SEEK_SET), EINVAL);
	ck_works(lseek(fd, 100, SEEK_SET));
	ck_fails(write(fd, "5\t1\ta\tb\n", 8), EINVAL);
	close(fd);
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(pwrite(fd, "6\t1\ta\tb\n", 8, 3), 8);
	ck_assert_int_eq(write(fd, "7\t1\ta\tb\n", 8), 8);
	ck_works(fcntl(fd, F_SETFL, 0));
	ck_fails(pwrite(fd, "8\t1\ta\tb\n", 8, 3), EINVAL);
	close(fd);
	want_batch("x", "0\t1\ta\tb\n1\t1\ta\tb\n2\t1\ta\tb\n3\t1\ta\tb\n4\t1\ta\tb\n5\t1\ta\tb\n6\t1\ta\tb\n7\t1\ta\tb\n");
	fd = stage_open("x", O_RDONLY);
	ck_assert_int_eq(pread(fd, buf, 8, 56), 8);
	ck_assert_int_eq(memcmp(buf, "7\t1\ta\tb\n", 8), 0);
	close(fd);
}
END_TEST

START_TEST(what_is_open_for_both_reads_what_it_wrote)
{
	char buf[64] = "";
	int fd = stage_open("x", O_RDWR | O_CREAT), other;

	ck_assert_int_eq(write(fd, "1\t1\tc\td\n0\t1", 11), 11);
	ck_assert_int_eq(pread(fd, buf, sizeof buf, 0), 11);
	ck_assert_str_eq(buf, "1\t1\tc\td\n0\t1");
	other = stage_open("x", O_RDONLY);
	ck_assert_int_eq(write(fd, "\ta\tb\n", 5), 5);
	ck_assert_int_eq(pread(fd, buf, sizeof buf, 8), 3); /* what was there at 0 */
	ck_assert_int_eq(pread(fd, buf, sizeof buf, 0), 16);
	ck_assert_str_eq(buf, "0\t1\ta\tb\n1\t1\tc\td\n");
	ck_assert_int_eq(read(other, buf, sizeof buf), 11); /* as it was when it was opened */
	ck_assert_int_eq(memcmp(buf, "1\t1\tc\td\n0\t1", 11), 0);
	close(fd);
	close(other);
}
END_TEST

START_TEST(the_first_line_may_give_bounds)
{
	static const char *const bad[] = {"bounds 5 3\n", "bounds 5\n", "bounds  3 5\n", "bounds 3 5 \n", "bounds 3 x\n",
					  "bounds * 5\n", "bounds 3\t5\n", "bounds 03 5\n", "bounds\n"};
	int fd = stage_open("x", O_WRONLY | O_CREAT);

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_msg(put(fd, bad[i]) == -EINVAL, "%s", bad[i]);
	want_batch("x", "");
	ck_assert_int_eq(put(fd, "bounds 3 5\n"), 11);
	want_batch("x", "bounds 3 5\n");
	ck_assert_int_eq(put(fd, "bounds 3 5\n"), -EINVAL);
	ck_assert_int_eq(put(fd, "2\t1\ta\tb\n"), -EINVAL);
	ck_assert_int_eq(put(fd, "5\t1\ta\tb\n"), -EINVAL);
	ck_assert_int_eq(put(fd, "3\t1\ta\tb\n4\t1\ta\tb\n"), 16);
	close(fd);
	want_batch("x", "bounds 3 5\n3\t1\ta\tb\n4\t1\ta\tb\n");
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "5\t1\ta\tb\n"), -EINVAL);
	ck_assert_int_eq(put(fd, "bounds 0 9\n"), -EINVAL);
	close(fd);
	stage("y", "bounds 3 -\n18446744073709551615\t1\ta\tb\n");
	want_batch("y", "bounds 3 -\n18446744073709551615\t1\ta\tb\n");
}
END_TEST

START_TEST(one_at_a_time_writes)
{
	struct stat st;
	int fd = stage_open("x", O_WRONLY | O_CREAT), fd2;

	ck_fails(open(batch("x"), O_WRONLY), EBUSY);
	ck_fails(open(batch("x"), O_RDWR | O_CREAT | O_TRUNC, 0666), EBUSY);
	ck_fails(truncate(batch("x"), 0), EBUSY);
	fd2 = dup(fd);
	close(fd); /* a FLUSH, but not the end */
	ck_fails(open(batch("x"), O_WRONLY), EBUSY);
	ck_assert_int_eq(put(fd2, "0\t1\ta\tb\n"), 8);
	ck_fails(open(batch("x"), O_WRONLY), EBUSY);
	want_batch("x", "0\t1\ta\tb\n");
	close(fd2);
	/* the end of a descriptor lets the next one in at once */
	for (int i = 0; i < 500; i++) {
		fd = stage_open("x", O_WRONLY | O_APPEND);
		ck_assert_int_eq(put(fd, "0\t1\ta\tb\n"), 8);
		close(fd);
	}
	want_batch("x", "0\t501\ta\tb\n");
	free(want_sh("cd %s/batches; for i in $(seq 300); do echo \"$i	1	a	b\" >> x; done; truncate -s 0 x", shard));
	ck_works(stat(batch("x"), &st));
	ck_assert_int_eq(st.st_size, 0);
}
END_TEST

static int write_and_pause(void *arg)
{
	int fd = open(arg, O_WRONLY | O_APPEND);

	if (put(fd, "0\t1\ta\tb\n1\t") != 10)
		return 1;
	pause();
	return 2;
}

START_TEST(a_killed_writer_leaves_room_for_the_next)
{
	char *path;
	int status, fd;

	stage("x", "");
	path = strdup(batch("x"));
	for (int i = 0; i < 20; i++) {
		pid_t pid = spawn(write_and_pause, path);

		want_in_call(pid, SYS_pause);
		ck_fails(open(path, O_WRONLY), EBUSY);
		ck_works(kill(pid, SIGKILL));
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		fd = stage_open("x", O_WRONLY | O_APPEND);
		ck_assert_int_eq(put(fd, "1\tc\td\n"), 6);
		close(fd);
	}
	want_batch("x", "0\t20\ta\tb\n1\t20\tc\td\n");
	free(path);
}
END_TEST

START_TEST(it_is_emptied_but_not_cut)
{
	int fd, ro;

	stage("x", "bounds 0 9\n0\t1\ta\tb\n");
	ck_fails(truncate(batch("x"), 5), EINVAL);
	ck_fails(truncate(batch("x"), 100), EINVAL);
	ck_works(truncate(batch("x"), 19));
	ro = stage_open("x", O_RDONLY);
	ck_works(truncate(batch("x"), 0));
	want_batch("x", "");
	ck_assert_int_eq(lseek(ro, 0, SEEK_CUR), 0);
	close(ro);
	fd = stage_open("x", O_RDWR);
	ck_assert_int_eq(put(fd, "0\t+1\ta\tb\n1\t"), 11);
	ck_fails(ftruncate(fd, 5), EINVAL);
	ck_works(ftruncate(fd, 11)); /* as long as the writer made it */
	ck_works(ftruncate(fd, 10)); /* as long as it is */
	ck_works(ftruncate(fd, 0));
	want_batch("x", "");
	ck_fails(pwrite(fd, "2\t1\ta\tb\n", 8, 11), EINVAL);
	ck_assert_int_eq(pwrite(fd, "bounds 5 6\n", 11, 0), 11);
	ck_assert_int_eq(pwrite(fd, "5\t1\ta\tb\n", 8, 11), 8);
	close(fd);
	fd = stage_open("x", O_WRONLY | O_TRUNC | O_CREAT);
	want_batch("x", "");
	ck_assert_int_eq(put(fd, "2\t1\ta\tb\n"), 8);
	close(fd);
	want_batch("x", "2\t1\ta\tb\n");
}
END_TEST

/* --- names ----------------------------------------------------------------------------------------- */

START_TEST(names_are_checked)
{
	static const struct {
		const char *name;
		int errnum;
	} names[] = {{"5-6", EINVAL}, {"0-1", EINVAL}, {"7--", EINVAL},	 {"4913", EINVAL},	{".x.swp", EINVAL},
		     {"x~", EINVAL},  {"-x", EINVAL},  {"a b", EINVAL},	 {"\xc3\xa4", EINVAL},	{"a\nb", EINVAL},
		     {"x:y", EINVAL}, {".x", EINVAL},  {"x,y", EINVAL}};
	char name[132];
	struct stat st;

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const char *path = batch(names[i].name);

		ck_fails(open(path, O_WRONLY | O_CREAT, 0666), names[i].errnum);
		ck_fails(mknod(path, S_IFREG | 0666, 0), names[i].errnum);
		ck_fails(stat(path, &st), ENOENT);
	}
	memset(name, 'a', 131);
	name[129] = '\0';
	ck_fails(open(batch(name), O_WRONLY | O_CREAT, 0666), ENAMETOOLONG);
	name[128] = '\0';
	stage(name, "");
	want_batch(name, "");
	stage("_X-1.2_y", "");
	want_batch("_X-1.2_y", "");
	stage("now", "");
	ck_fails(open(batch("now"), O_WRONLY | O_CREAT | O_EXCL, 0666), EEXIST);
	ck_works(mknod(batch("node"), S_IFREG | 0600, 0));
	ck_fails(mknod(batch("node"), S_IFREG | 0600, 0), EEXIST);
	want_batch("node", "");
	ck_fails(mknod(batch("pipe"), S_IFIFO | 0600, 0), EPERM);
	ck_fails(mkdir(batch("dir"), 0777), EPERM);
	ck_fails(symlink("x", batch("link")), EPERM);
	ck_fails(link(batch("now"), batch("link")), EPERM);
	ck_fails(open(at(shard, "x"), O_WRONLY | O_CREAT, 0666), EPERM);
	ck_fails(open(at(shard, "writers/x"), O_WRONLY | O_CREAT, 0666), EPERM);
	ck_fails(open(at(shard, "wait/x"), O_WRONLY | O_CREAT, 0666), EPERM);
	ck_fails(open(at(shard, "as_of/x"), O_WRONLY | O_CREAT, 0666), EPERM);
}
END_TEST

static int rename2(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, batch(from), AT_FDCWD, batch(to), flags);
}

START_TEST(staged_batches_are_renamed)
{
	char *second = shard_new(&w);
	int fd, ro;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tz\tz\ncommit\n");
	stage("x", "0\t1\tx\t\n");
	stage("y", "0\t1\ty\t\n");
	ck_works(rename(batch("x"), batch("z")));
	want_gone("x");
	want_batch("z", "0\t1\tx\t\n");
	ck_fails(rename2("z", "y", RENAME_NOREPLACE), EEXIST);
	ck_works(rename2("z", "y", RENAME_EXCHANGE));
	want_batch("y", "0\t1\tx\t\n");
	want_batch("z", "0\t1\ty\t\n");
	ck_fails(rename2("z", "none", RENAME_EXCHANGE), ENOENT);
	ck_fails(rename2("z", "w", RENAME_WHITEOUT), EINVAL);
	ck_works(rename2("z", "w", RENAME_NOREPLACE));
	ro = stage_open("y", O_RDONLY);
	ck_works(rename(batch("w"), batch("y")));
	want_gone("w");
	want_batch("y", "0\t1\ty\t\n");
	ck_assert_int_eq(read(ro, (char[64]){0}, 64), 7); /* the one that was replaced */
	close(ro);
	ck_fails(rename(batch("y"), batch("0-1")), EINVAL);
	ck_fails(rename(batch("y"), batch("5-7")), EINVAL);
	ck_fails(rename(batch("y"), batch(".y")), EINVAL);
	ck_fails(rename(batch("0-1"), batch("q")), EPERM);
	ck_fails(rename(batch("none"), batch("q")), ENOENT);
	ck_fails(rename(batch("y"), at(shard, "y")), EPERM);
	ck_fails(rename(batch("y"), at(at(second, "batches"), "y")), EXDEV);
	free(want_sh("mv %s/batches/y %s/batches/moved", shard, second)); /* copies, and removes */
	want_gone("y");
	want_file(second, "batches/moved", "0\t1\ty\t\n");
	/* while it is written */
	fd = stage_open("a", O_WRONLY | O_CREAT);
	ck_assert_int_eq(put(fd, "1\t1\ta\tb\n2\t"), 10);
	ck_works(rename(batch("a"), batch("b")));
	ck_assert_int_eq(put(fd, "1\ta\tb\n"), 6);
	close(fd);
	want_batch("b", "1\t1\ta\tb\n2\t1\ta\tb\n");
	free(second);
}
END_TEST

START_TEST(staged_batches_are_removed)
{
	char buf[64];
	struct stat st;
	int fd, ro;

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\tz\tz\ncommit\n");
	stage("x", "0\t1\tx\t\n");
	ck_fails(unlink(batch("0-1")), EPERM);
	ck_fails(unlink(batch("none")), ENOENT);
	ck_fails(rmdir(batch("x")), ENOTDIR);
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "1\t1\tx\t\n"), 7);
	ro = stage_open("x", O_RDONLY);
	ck_works(unlink(batch("x")));
	want_gone("x");
	ck_works(fstat(ro, &st));
	ck_assert_int_eq(st.st_nlink, 0);
	ck_assert_int_eq(st.st_size, 14);
	ck_assert_int_eq(read(ro, buf, sizeof buf), 14);
	ck_works(fstat(fd, &st));
	ck_assert_int_eq(put(fd, "2\t1\tx\t\n"), 7); /* for nobody, as anywhere */
	stage("x", "5\t1\tnew\t\n"); /* another one */
	ck_assert_int_eq(put(fd, "3\t1\tx\t\n"), 7);
	close(fd);
	close(ro);
	want_batch("x", "5\t1\tnew\t\n");
	want_txn(shard, "begin expected_upper=1 new_upper=9\nbatch x\ncommit\n");
	want_file(shard, "snapshot", "8\t1\tnew\t\n8\t1\tz\tz\n");
}
END_TEST

START_TEST(it_has_the_attributes_of_a_file_of_its_shard)
{
	struct timeval times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
	struct stat st, st2;
	int fd;

	ck_works(chmod(shard, 0750));
	ck_works(chown(shard, 5, 6));
	stage("x", "0\t1\tx\t\n");
	ck_works(stat(batch("x"), &st));
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0640);
	ck_assert_uint_eq(st.st_uid, 5);
	ck_assert_uint_eq(st.st_gid, 6);
	ck_assert_int_eq(st.st_nlink, 1);
	ck_works(chmod(batch("x"), 0777)); /* taken and ignored */
	ck_works(chown(batch("x"), 0, 0));
	ck_works(utimes(batch("x"), times));
	fd = stage_open("x", O_WRONLY | O_APPEND);
	ck_assert_int_eq(put(fd, "1\t1\tx\t\n"), 7);
	ck_works(fstat(fd, &st2));
	ck_assert_uint_eq(st2.st_ino, st.st_ino);
	ck_assert_int_eq(st2.st_size, 14);
	ck_works(rename(batch("x"), batch("y")));
	close(fd);
	ck_works(stat(batch("y"), &st2));
	ck_assert_uint_eq(st2.st_ino, st.st_ino);
	ck_assert_uint_eq(st2.st_mode, st.st_mode);
	ck_assert_uint_eq(st2.st_uid, 5);
	ck_assert_int_ge(st2.st_mtim.tv_sec, st.st_mtim.tv_sec);
	ck_assert_int_gt(st2.st_mtim.tv_sec, 1000000000);
}
END_TEST

START_TEST(staged_ones_are_listed_after_committed_ones)
{
	char list[256] = "";
	struct dirent *e;
	DIR *dir;

	want_txn(shard, "begin expected_upper=0 new_upper=5\n0\t1\ta\tb\ncommit\n");
	want_txn(shard, "begin expected_upper=5 new_upper=7\n5\t1\ta\tb\ncommit\n");
	stage("x", "");
	dir = opendir(at(shard, "batches"));
	while ((e = readdir(dir)) != NULL) {
		ck_assert_int_eq(e->d_type, e->d_name[0] == '.' ? DT_DIR : DT_REG);
		strcat(strcat(list, e->d_name), " ");
	}
	closedir(dir);
	ck_assert_str_eq(list, ". .. 0-5 5-7 x ");
}
END_TEST

START_TEST(a_shard_holds_1024)
{
	char name[16];

	for (int i = 0; i < 1024; i++) {
		snprintf(name, sizeof name, "b%d", i);
		ck_works(mknod(batch(name), S_IFREG | 0666, 0));
	}
	ck_fails(open(batch("more"), O_WRONLY | O_CREAT, 0666), EDQUOT);
	char *out = want_sh("ls %s/batches | wc -l", shard);

	ck_assert_str_eq(out, "1024\n");
	free(out);
	ck_works(unlink(batch("b7")));
	stage("more", "0\t1\ta\tb\n");
	free(want_sh("rm -rf %s/batches/* && test -z \"$(ls %s/batches)\"", shard, shard));
}
END_TEST

Suite *staged_suite(void)
{
	Suite *s = suite_create("staged batches");
	TCase *tc = shard_case(s, "staged batches", 120);

	tcase_add_test(tc, rows_come_back_canonical_and_summed);
	tcase_add_test(tc, text_may_be_cut_anywhere);
	tcase_add_loop_test(tc, a_bad_line_is_refused_by_the_write_that_ends_it, 0, BAD_LINES);
	tcase_add_test(tc, a_bad_line_that_began_before_stays_as_it_was);
	tcase_add_test(tc, a_row_of_16_mib_is_taken_and_one_byte_more_is_not);
	tcase_add_test(tc, it_is_written_at_its_end);
	tcase_add_test(tc, what_is_open_for_both_reads_what_it_wrote);
	tcase_add_test(tc, the_first_line_may_give_bounds);
	tcase_add_test(tc, one_at_a_time_writes);
	tcase_add_test(tc, a_killed_writer_leaves_room_for_the_next);
	tcase_add_test(tc, it_is_emptied_but_not_cut);
	tcase_add_test(tc, names_are_checked);
	tcase_add_test(tc, staged_batches_are_renamed);
	tcase_add_test(tc, staged_batches_are_removed);
	tcase_add_test(tc, it_has_the_attributes_of_a_file_of_its_shard);
	tcase_add_test(tc, staged_ones_are_listed_after_committed_ones);
	tcase_add_test(tc, a_shard_holds_1024);
	return s;
}
