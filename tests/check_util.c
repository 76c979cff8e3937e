/* check_util.c - see check_util.h. The directory of the run is known to its tests by an environment variable,
 * since they run in processes of their own. */
#include "tests/check_util.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char run_dir[] = "SHARDFS_CHECK_DIR";

char *check_path(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		abort();
	return path;
}

static char *make_dir(const char *parent)
{
	char *path = check_path(parent, "shardfs-check-XXXXXX");

	if (!mkdtemp(path)) { /* ck_assert works inside of tests only */
		perror(path);
		abort();
	}
	return path;
}

static const char *tmp(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && dir[0] ? dir : "/tmp";
}

char *check_dir(void)
{
	const char *dir = getenv(run_dir);

	return make_dir(dir ? dir : tmp());
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void check_rmtree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

char *check_read(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = NULL;
	size_t size = 0;

	ck_assert_msg(f != NULL, "open %s", path);
	if (getdelim(&text, &size, '\0', f) < 0) {
		free(text);
		text = strdup("");
	}
	fclose(f);
	return text;
}

void check_write(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_msg(f != NULL, "make %s", path);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

int check_main(Suite *(*const *suites)(void), size_t count)
{
	char *dir = make_dir(tmp());
	SRunner *runner = srunner_create(NULL);

	setenv(run_dir, dir, 1);
	for (size_t i = 0; i < count; i++)
		srunner_add_suite(runner, suites[i]());
	srunner_run_all(runner, CK_NORMAL);

	int failed = srunner_ntests_failed(runner);

	srunner_free(runner);
	check_rmtree(dir);
	free(dir);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
