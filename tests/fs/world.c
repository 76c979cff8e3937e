/* world.c - see world.h. */
#include "tests/fs/world.h"

#include <dirent.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <mntent.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

/* --- chance and time ------------------------------------------------------------------------------- */

static uint64_t seed;

void seed_init(void)
{
	const char *given = getenv("SEED");

	seed = given != NULL ? strtoull(given, NULL, 10)
			     : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
	printf("tests/fs: SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
}

struct rng rng_new(uint64_t salt)
{
	return (struct rng){seed ^ (salt * 0x9e3779b97f4a7c15u)};
}

uint64_t rng_below(struct rng *r, uint64_t limit)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return limit != 0 ? (z ^ (z >> 31)) % limit : z ^ (z >> 31);
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

bool until_deadline(uint64_t *since)
{
	const struct timespec rest = {.tv_nsec = 1000000};

	if (*since == 0)
		*since = now_ms();
	else
		nanosleep(&rest, NULL);
	return now_ms() - *since < DEADLINE_MS;
}

/* --- programs -------------------------------------------------------------------------------------- */

static const char *program(const char *variable, char path[PATH_MAX])
{
	const char *given = getenv(variable);

	if (given == NULL || realpath(given, path) == NULL) {
		fprintf(stderr, "tests/fs: %s names no program\n", variable);
		abort();
	}
	return path;
}

const char *shardfs_path(void)
{
	static char path[PATH_MAX];

	return path[0] != '\0' ? path : program("SHARDFS", path);
}

const char *shardctl_path(void)
{
	static char path[PATH_MAX];

	return path[0] != '\0' ? path : program("SHARDCTL", path);
}

__attribute__((format(printf, 2, 0))) static int run_sh(char **out, const char *fmt, va_list ap)
{
	char *line = NULL, *text = NULL;
	size_t len = 0, cap = 0;
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	ck_assert_int_ge(vasprintf(&line, fmt, ap), 0);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		dup2(fds[1], 1);
		dup2(fds[1], 2);
		execl("/bin/sh", "sh", "-c", line, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	do {
		if (cap - len < 4096) {
			cap = cap * 2 + 8192;
			text = realloc(text, cap);
			ck_assert_ptr_nonnull(text);
		}
		n = read(fds[0], text + len, cap - len - 1);
		len += n > 0 ? (size_t)n : 0;
	} while (n > 0 || (n < 0 && errno == EINTR));
	text[len] = '\0';
	close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	free(line);
	if (out != NULL)
		*out = text;
	else
		free(text);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int sh(char **out, const char *fmt, ...)
{
	va_list ap;
	int status;

	va_start(ap, fmt);
	status = run_sh(out, fmt, ap);
	va_end(ap);
	return status;
}

char *want_sh(const char *fmt, ...)
{
	va_list ap;
	char *out;
	int status;

	va_start(ap, fmt);
	status = run_sh(&out, fmt, ap);
	va_end(ap);
	ck_assert_msg(status == 0, "%s: exit %d: %s", fmt, status, out);
	return out;
}

pid_t spawn(int (*fn)(void *arg), void *arg)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(fn(arg));
	return pid;
}

int join(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "a child died of signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

int as_user(unsigned id, int (*fn)(void *arg), void *arg)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (setgroups(0, NULL) != 0 || setgid(id) != 0 || setuid(id) != 0)
			_exit(255);
		_exit(fn(arg));
	}
	return join(pid);
}

void want_in_call(pid_t pid, long number)
{
	char path[64], want[32], text[256];
	uint64_t since = 0;

	snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
	snprintf(want, sizeof want, "%ld ", number);
	while (until_deadline(&since)) {
		FILE *f = fopen(path, "re");
		bool in = f != NULL && fgets(text, sizeof text, f) != NULL &&
			  strncmp(text, want, strlen(want)) == 0;

		if (f != NULL)
			fclose(f);
		if (in)
			return;
	}
	ck_abort_msg("process %d did not come to wait in call %ld", (int)pid, number);
}

/* --- the mount ------------------------------------------------------------------------------------- */

bool is_mounted(const char *dir)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool found = false;

	while (mounts != NULL && (m = getmntent(mounts)) != NULL)
		found = found || strcmp(m->mnt_dir, dir) == 0;
	if (mounts != NULL)
		endmntent(mounts);
	return found;
}

/* Whether one of the words of a process is word, or, with below, begins with it; not a zombie. */
static bool has_word(pid_t pid, const char *word, bool below)
{
	char path[64], text[8192];
	size_t len;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	len = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
	if (f != NULL)
		fclose(f);
	text[len] = '\0';
	if (strcmp(text, "shardfs\n") != 0)
		return false;
	snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
	f = fopen(path, "re");
	len = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
	if (f != NULL)
		fclose(f);
	text[len] = '\0';
	for (char *p = text; p < text + len; p += strlen(p) + 1)
		if (below ? strncmp(p, word, strlen(word)) == 0 : strcmp(p, word) == 0)
			return true;
	return false;
}

static pid_t find_program(const char *word, bool below)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	pid_t found = 0;

	while (proc != NULL && found == 0 && (e = readdir(proc)) != NULL) {
		pid_t pid = (pid_t)atoi(e->d_name);

		if (pid > 0 && has_word(pid, word, below))
			found = pid;
	}
	if (proc != NULL)
		closedir(proc);
	return found;
}

pid_t world_find(const struct world *w)
{
	return find_program(w->mnt, false);
}

void world_new(struct world *w)
{
	*w = (struct world){.dir = check_dir()};
	w->store = check_path(w->dir, "store");
	w->mnt = check_path(w->dir, "mnt");
	if (getenv("SHARDFS_CHECK_DIR") != NULL)
		ck_works(chmod(getenv("SHARDFS_CHECK_DIR"), 0755));
	ck_works(chmod(w->dir, 0755));
	ck_works(mkdir(w->mnt, 0755));
	/* The processes that serve become our children when their parents end. */
	ck_works(prctl(PR_SET_CHILD_SUBREAPER, 1));
}

void world_start(struct world *w, const char *opts)
{
	char *out;
	int status = sh(&out, "%s %s %s %s %s", shardfs_path(), opts != NULL ? "-o" : "",
			opts != NULL ? opts : "", w->store, w->mnt);

	ck_assert_msg(status == 0, "start: exit %d: %s", status, out);
	ck_assert_str_eq(out, "");
	free(out);
	w->pid = world_find(w);
	ck_assert_int_ne(w->pid, 0);
}

void world_open(struct world *w)
{
	world_new(w);
	world_start(w, NULL);
}

/* Where the threads of a process are: its name, its state, what it waits for in the kernel and by which call. */
static char *threads_of(pid_t pid)
{
	char *out;

	(void)sh(&out,
		 "cd /proc/%d/task && for t in *; do echo $(cat $t/comm; grep State $t/status; cat $t/wchan; "
		 "cut -d' ' -f1-3 $t/syscall); done; cat /proc/loadavg",
		 (int)pid);
	return out;
}

int world_wait(struct world *w)
{
	uint64_t since = 0;
	int status = 0;
	pid_t got = 0;

	while (got == 0 && until_deadline(&since))
		got = waitpid(w->pid, &status, WNOHANG);
	if (got != w->pid) {
		char *threads = threads_of(w->pid);

		kill(w->pid, SIGABRT); /* a core shows more */
		ck_abort_msg("the process that serves did not end:\n%s", threads);
	}
	w->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void world_stop(struct world *w)
{
	ck_works(kill(w->pid, SIGTERM));
	ck_assert_int_eq(world_wait(w), 0);
	ck_assert(!is_mounted(w->mnt));
}

void world_kill(struct world *w)
{
	ck_works(kill(w->pid, SIGKILL));
	ck_assert_int_eq(world_wait(w), 128 + SIGKILL);
}

void world_close(struct world *w)
{
	if (w->pid != 0)
		world_stop(w);
	while (is_mounted(w->mnt))
		ck_works(umount2(w->mnt, MNT_DETACH));
	check_rmtree(w->dir);
	free(w->store);
	free(w->mnt);
	free(w->dir);
}

/* The last mount below dir; false: there is none. */
static bool mount_below(const char *dir, char found[PATH_MAX])
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool any = false;

	while (mounts != NULL && (m = getmntent(mounts)) != NULL) {
		if (strncmp(m->mnt_dir, dir, strlen(dir)) == 0) {
			snprintf(found, PATH_MAX, "%s", m->mnt_dir);
			any = true;
		}
	}
	if (mounts != NULL)
		endmntent(mounts);
	return any;
}

void world_sweep(void)
{
	const char *dir = getenv("SHARDFS_CHECK_DIR");
	char path[PATH_MAX];
	pid_t pid;

	if (dir == NULL || dir[0] == '\0')
		return;
	for (int i = 0; i < 100 && (pid = find_program(dir, true)) != 0; i++) {
		kill(pid, SIGKILL);
		usleep(10000);
	}
	for (int i = 0; i < 100 && mount_below(dir, path); i++)
		umount2(path, MNT_DETACH);
}

TCase *world_case(Suite *s, const char *name, double seconds)
{
	TCase *tc = tcase_create(name);

	tcase_add_unchecked_fixture(tc, NULL, world_sweep);
	tcase_set_timeout(tc, seconds);
	suite_add_tcase(s, tc);
	return tc;
}

unsigned long status_kib(const struct world *w, const char *name)
{
	char path[64], line[128];
	unsigned long kib = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)w->pid);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	while (kib == 0 && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, name, strlen(name)) == 0)
			kib = strtoul(line + strlen(name), NULL, 10);
	fclose(f);
	return kib;
}

bool keeps_freed(const struct world *w)
{
	return status_kib(w, "VmSize:") >= 1ul << 30; /* what they map tells them */
}
