/* mount.c - the mount that is killed: its starts and ends, and the looks at its store. */
#include "tests/crash/crash.h"

#include <signal.h>
#include <sys/wait.h>

int mount_start(const char *env, char **said)
{
	int status = sh(said, "%s %s %s %s", env, shardfs_path(), world.store, world.mnt);

	world.pid = status == 0 ? world_find(&world) : 0;
	/* It died as soon as it had answered. */
	while (status == 0 && world.pid == 0 && waitpid(-1, NULL, WNOHANG) == 0)
		rest_us(500);
	return status;
}

void mount_restart(void)
{
	uint64_t begun = now_us();
	char *said;
	int status = mount_start("", &said);

	restart_took(now_us() - begun);
	if (status != 0 || said[0] != '\0' || world.pid == 0)
		program_fail("it does not start: exit %d: %s", status, said);
	free(said);
}

int mount_reap(void)
{
	enum { WAIT_MS = 120000 };
	uint64_t begun = now_ms();
	int status = 0;
	pid_t got = 0;

	while (got == 0 && now_ms() - begun < WAIT_MS) {
		got = waitpid(world.pid, &status, WNOHANG);
		if (got == 0)
			rest_us(500);
	}
	if (got != world.pid)
		program_fail("process %d, which serves, does not end", (int)world.pid);
	world.pid = 0;
	return status;
}

void mount_stop(void)
{
	int status;

	ck_works(kill(world.pid, SIGTERM));
	status = mount_reap();
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		program_fail("a clean stop ended with wait status %d", status);
}

void fsck_now(void)
{
	char *said;
	int status = sh(&said, "%s fsck %s", shardctl_path(), world.store);

	if (status != 0 || strncmp(said, "clean", 5) != 0)
		program_fail("fsck: exit %d: %s", status, said);
	counted(N_FSCK, 1);
	free(said);
}

bool files_of_others(struct shard *const *live, size_t count)
{
	/* Directories that a kill left empty do not count. */
	char *out = want_sh("cd %s/blobs/data && find . -type f | cut -c3-", world.store);
	bool found = false;

	for (char *p = out; *p != '\0'; p = strchr(p, '\n') + 1) {
		size_t i = 0;

		while (i < count && strncmp(p, live[i]->id, strlen(live[i]->id)) != 0)
			i++;
		found = found || i == count;
	}
	free(out);
	return found;
}

void end_clean(struct shard *const *live, size_t count)
{
	uint64_t since = 0;
	char *left;

	for (size_t i = 0; i < count; i++) {
		int e = write_once(at(live[i]->dir, "ctl"), "gc\n");

		if (e != 0)
			program_fail("%s: gc: %s", live[i]->id, strerrorname_np(e));
	}
	/* Removed shards are deleted in the background. */
	while (files_of_others(live, count) && until_deadline(&since))
		;
	mount_stop();
	left = leftover(live, count);
	if (left != NULL)
		program_fail("left over in the store: %s", left);
}
