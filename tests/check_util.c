/*
 * check_util.c - see check_util.h. The directory of the run is known to its tests by an environment variable,
 * since they run in processes of their own.
 *
 * In it lies a file that is locked for as long as the runner or one of its tests lives: one whose lock is
 * free belongs to a run that was killed, and the next run takes it away.
 */
#include "tests/check_util.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <mntent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

static const char run_dir[] = "SHARDFS_CHECK_DIR";

char *check_path(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		abort();
	return path;
}

#define PREFIX "shardfs-check-"

static char *make_dir(const char *parent)
{
	char *path = check_path(parent, PREFIX "XXXXXX");

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

/* --- runs that were killed -------------------------------------------------------------------------- */

/* Locked before it has its name, so that a free lock is that of a run that is over. It is left open. */
static void lock_run(const char *dir)
{
	char *path = check_path(dir, "runner"), *making = check_path(dir, "runner.new");
	int fd = open(making, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || flock(fd, LOCK_EX) != 0 || rename(making, path) != 0) {
		perror(path);
		abort();
	}
	free(path);
	free(making);
}

static bool is_over(const char *dir)
{
	char *path = check_path(dir, "runner");
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool over = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;

	if (fd >= 0)
		close(fd);
	free(path);
	return over;
}

/* Detach one that is mounted below; what serves it ends by that. False: there is none. */
static bool unmount_one(const char *dir)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	size_t len = strlen(dir);
	bool done = false;
	struct mntent *m;

	while (f != NULL && !done && (m = getmntent(f)) != NULL)
		done = strncmp(m->mnt_dir, dir, len) == 0 && m->mnt_dir[len] == '/' &&
		       umount2(m->mnt_dir, MNT_DETACH) == 0;
	if (f != NULL)
		endmntent(f);
	return done;
}

static void sweep_runs(void)
{
	DIR *d = opendir(tmp());
	struct dirent *e;

	while (d != NULL && (e = readdir(d)) != NULL) {
		char *path;

		if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		path = check_path(tmp(), e->d_name);
		if (is_over(path)) {
			while (unmount_one(path))
				;
			check_rmtree(path);
		}
		free(path);
	}
	if (d != NULL)
		closedir(d);
}

int check_main(Suite *(*const *suites)(void), size_t count)
{
	char *dir, *programs;
	SRunner *runner = srunner_create(NULL);

	sweep_runs();
	dir = make_dir(tmp());
	lock_run(dir);
	programs = check_path(dir, "tmp"); /* what programs leave that are killed goes with the run */
	if (mkdir(programs, 0700) != 0)
		abort();
	setenv(run_dir, dir, 1);
	setenv("TMPDIR", programs, 1);
	for (size_t i = 0; i < count; i++)
		srunner_add_suite(runner, suites[i]());
	srunner_run_all(runner, CK_NORMAL);

	int failed = srunner_ntests_failed(runner);

	srunner_free(runner);
	check_rmtree(dir);
	free(programs);
	free(dir);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
