/* stage.c - see stage.h. */
#include "tests/fs/stage.h"

const char *batch(const char *name)
{
	return at(at(shard, "batches"), name);
}

int stage_open(const char *name, int flags)
{
	int fd = open(batch(name), flags, 0666);

	ck_assert_msg(fd >= 0, "open %s: %s", name, strerrorname_np(errno));
	return fd;
}

void stage(const char *name, const char *text)
{
	int fd = stage_open(name, O_WRONLY | O_CREAT | O_EXCL);

	ck_errno(put_all(fd, text, strlen(text)), 0);
	ck_works(close(fd));
}

void want_batch(const char *name, const char *want)
{
	struct stat st;
	char *got = slurp(batch(name));

	ck_assert_str_eq(got, want);
	ck_works(stat(batch(name), &st));
	ck_assert_int_eq(st.st_size, strlen(want));
	ck_assert_int_eq(st.st_blocks, (st.st_size + 511) / 512);
	free(got);
}

void want_gone(const char *name)
{
	struct stat st;

	ck_fails(stat(batch(name), &st), ENOENT);
	ck_fails(open(batch(name), O_RDONLY), ENOENT);
}
