/*
 * main.c - shardfs STORE MOUNTPOINT.
 *
 * Without -f the process forks at once, before any thread or lock is made; the
 * child does everything and reports through a pipe: one byte when the mount
 * answers, or the sentence why it does not. The parent returns that.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "fs/mount.h"

static const char ready_byte = '\001';

struct report {
	int fd; /* to the parent, or -1 in the foreground */
};

/* The mount answers: let the parent go, and leave the terminal. */
static void report_ready(void *arg)
{
	struct report *r = arg;
	int null;

	sd_notify(0, "READY=1");
	if (r->fd < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		close(null);
	}
	if (write(r->fd, &ready_byte, 1) != 1)
		syslog(LOG_WARNING, "the parent did not wait for the mount");
	close(r->fd);
	r->fd = -1;
}

/* An absolute path without links, but for its last component, which need not be there (a store to be made)
 * or need not answer (a dead mount). */
static char *resolve(const char *path)
{
	char *copy = strdup(path), *copy2 = strdup(path), *dir = NULL, *full = NULL;
	const char *base;

	if (copy == NULL || copy2 == NULL)
		goto out;
	base = basename(copy2);
	if (strcmp(base, ".") == 0 || strcmp(base, "..") == 0 || strcmp(base, "/") == 0) {
		full = realpath(path, NULL);
		goto out;
	}
	dir = realpath(dirname(copy), NULL);
	if (dir != NULL && asprintf(&full, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, base) < 0)
		full = NULL;
out:
	free(copy);
	free(copy2);
	free(dir);
	return full;
}

/* Both may be reached by a link; the true place is what counts. */
static char *resolve_links(const char *path)
{
	char *full = realpath(path, NULL);

	return full != NULL ? full : resolve(path);
}

/* The same; without it, says why. */
static char *must_resolve(const char *path)
{
	char *full = resolve_links(path);

	if (full == NULL)
		fprintf(stderr, "shardfs: %s: %s\n", path, strerror(errno));
	return full;
}

static int run(struct fs_command *command, struct report *r)
{
	char why[1024];
	int status = fs_mount_run(command, report_ready, r, why);

	if (status == 0)
		return 0;
	if (r->fd >= 0) {
		if (write(r->fd, why, strlen(why)) < 0)
			syslog(LOG_ERR, "%s", why);
	} else {
		fprintf(stderr, "shardfs: %s\n", why);
		syslog(LOG_ERR, "%s", why);
	}
	return status;
}

/* Wait for what the child has to say. */
static int await(int fd, pid_t child)
{
	char said[1024];
	ssize_t n, len = 0;
	int status;

	while ((n = read(fd, said + len, sizeof said - 1 - (size_t)len)) > 0 || (n < 0 && errno == EINTR)) {
		len += n > 0 ? n : 0;
		if (len > 0 && said[0] == ready_byte)
			return 0;
	}
	said[len] = '\0';
	waitpid(child, &status, 0);
	if (len > 0)
		fprintf(stderr, "shardfs: %s\n", said);
	else if (WIFSIGNALED(status))
		fprintf(stderr, "shardfs: the process that was to serve the mount died of signal %d\n",
			WTERMSIG(status));
	else
		fprintf(stderr, "shardfs: the process that was to serve the mount ended without a word\n");
	return 1;
}

static int start_in_background(struct fs_command *command)
{
	struct report r;
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) != 0) {
		fprintf(stderr, "shardfs: no pipe: %s\n", strerror(errno));
		return 1;
	}
	child = fork();
	if (child < 0) {
		fprintf(stderr, "shardfs: no process: %s\n", strerror(errno));
		return 1;
	}
	if (child > 0) {
		close(fds[1]);
		return await(fds[0], child);
	}
	close(fds[0]);
	setsid();
	r.fd = fds[1];
	return chdir("/") == 0 ? run(command, &r) : 1;
}

int main(int argc, char **argv)
{
	struct fs_command command;
	struct report here = {.fd = -1};
	char why[512], *store, *mountpoint;
	int status = 1;

	if (!fs_command_parse(argc, argv, &command, why)) {
		fprintf(stderr, "shardfs: %s\n", why);
		goto out;
	}
	if (command.help || command.version) {
		fputs(command.help ? fs_usage : "shardfs " SHARDFS_VERSION "\n", stdout);
		status = 0;
		goto out;
	}
	store = must_resolve(command.options.store);
	mountpoint = store != NULL ? must_resolve(command.options.mountpoint) : NULL;
	if (mountpoint == NULL) {
		free(store);
		goto out;
	}
	free(command.options.store);
	free(command.options.mountpoint);
	command.options.store = store;
	command.options.mountpoint = mountpoint;
	if (!fs_command_complete(&command)) {
		fprintf(stderr, "shardfs: out of memory\n");
		goto out;
	}
	openlog("shardfs", LOG_PID, LOG_DAEMON);
	/* Threads of FUSE take turns: with an arena for each, what one has freed no other can use, and a
	 * mount that reads much keeps twice the memory it needs. */
	mallopt(M_ARENA_MAX, 2);
	/* Heaps of rows and what is encoded of them come and go: from the kernel, they leave no holes. Lower,
	 * and transactions of a MiB pay for fresh pages each time (a quarter more time at 256 KiB). */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	signal(SIGPIPE, SIG_IGN); /* a parent or a terminal that has gone is no reason to end a mount */
	umask(0);
	status = command.foreground ? run(&command, &here) : start_in_background(&command);
out:
	fs_command_fini(&command);
	return status;
}
