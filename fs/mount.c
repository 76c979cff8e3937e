/*
 * mount.c - see mount.h.
 *
 * Start: options and mount point are checked before anything is touched; then the
 * store is opened, so that one that is in use is refused; then what an earlier
 * process left mounted and dead on the mount point is cleared; then we mount. The kernel's first request,
 * INIT, says that the mount answers.
 *
 * Stop (TERM, INT, HUP), in a thread of its own: refuse new commits, answer those
 * who wait, wait for commits in flight, then end the loop. The loop's thread only
 * notices when a signal interrupts it. After the loop: unmount (lazily, so open
 * files and working directories do not matter) and close the store.
 */
#include "fs/mount.h"

#include <errno.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <syslog.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "fs/batches.h"
#include "fs/files.h"
#include "fs/large.h"
#include "fs/tree.h"

enum { MAX_THREADS = 64, MAX_BACKGROUND = 1024, OPEN_TRIES = 30 };

/* Signals of the stopping thread; USR1 tells it that the loop has ended by itself. */
static sigset_t stop_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	return set;
}

/* --- commits in flight ----------------------------------------------------------------------------- */

bool fs_commit_begin(struct fs *fs)
{
	bool may;

	pthread_mutex_lock(&fs->stop_mu);
	may = !fs->stopping;
	fs->commits += may;
	pthread_mutex_unlock(&fs->stop_mu);
	return may;
}

void fs_commit_end(struct fs *fs)
{
	pthread_mutex_lock(&fs->stop_mu);
	if (--fs->commits == 0)
		pthread_cond_broadcast(&fs->idle);
	pthread_mutex_unlock(&fs->stop_mu);
}

void fs_stop_commits(struct fs *fs)
{
	pthread_mutex_lock(&fs->stop_mu);
	fs->stopping = true;
	pthread_mutex_unlock(&fs->stop_mu);
	fs_waits_close(&fs->waits);
	pthread_mutex_lock(&fs->stop_mu);
	while (fs->commits != 0)
		pthread_cond_wait(&fs->idle, &fs->stop_mu);
	pthread_mutex_unlock(&fs->stop_mu);
	core_engine_drain(fs->engine);
	fs_waits_stop(&fs->waits);
}

/* --- what is open ---------------------------------------------------------------------------------- */

void fs_open_add(struct fs *fs, struct fs_open *o, void (*end)(struct fs_open *o))
{
	pthread_mutex_lock(&fs->open_mu);
	o->end = end;
	o->next = fs->open;
	o->at = &fs->open;
	if (o->next != NULL)
		o->next->at = &o->next;
	fs->open = o;
	fs->open_count++;
	pthread_mutex_unlock(&fs->open_mu);
}

void fs_open_remove(struct fs *fs, struct fs_open *o)
{
	pthread_mutex_lock(&fs->open_mu);
	*o->at = o->next;
	if (o->next != NULL)
		o->next->at = o->at;
	fs->open_count--;
	pthread_mutex_unlock(&fs->open_mu);
	(void)!fs_open_hold(fs, o, 0, NULL);
	fs_limits_leave(&fs->limits, o->user, o->weight);
}

enum kv_rc fs_open_hold(struct fs *fs, struct fs_open *o, size_t bytes, struct kv_err *err)
{
	/* Most transactions come whole, in one small write: these cost no lock. */
	if (bytes == o->held)
		return KV_OK;

	enum kv_rc rc = fs_limits_hold(&fs->limits, o->user, &o->held, bytes, err);

	atomic_store(&o->large, o->held > FS_LARGE);
	return rc;
}

/* After the last request: what the kernel did not close any more. */
static void end_open(struct fs *fs)
{
	while (fs->open != NULL)
		fs->open->end(fs->open);
}

/* --- the session ----------------------------------------------------------------------------------- */

struct life {
	struct fs fs;
	struct fs_command *command;
	void (*ready)(void *arg);
	void *ready_arg;
	pthread_t loop_thread;
	_Atomic(bool) looping;
};

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct life *life = userdata; /* its first member is the struct fs */

	/* With it, the pieces of one large io_uring or libaio write come in any order. */
	conn->want &= ~(unsigned)FUSE_CAP_ASYNC_DIO;
	/* With it, each read of a cached file asks for its attributes; all that we let be cached is committed
	 * batches, which never change. */
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	conn->max_background =
		life->command->max_background != 0 ? life->command->max_background : MAX_BACKGROUND;
	life->ready(life->ready_arg);
}

/* libfuse explains failures in its log, in pieces; they are kept for our sentence. */
static _Thread_local char *log_line;

KV_PRINTF(2, 0)
static void keep_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	size_t used = log_line != NULL ? strlen(log_line) : 0;

	if (log_line != NULL)
		vsnprintf(log_line + used, 256 - used, fmt, ap);
	else
		vsyslog((int)level, fmt, ap);
}

void fs_notice(const char *sentence)
{
	syslog(LOG_WARNING, "%s", sentence);
	fprintf(stderr, "shardfs: %s\n", sentence); /* /dev/null once in the background */
}

static void notice(void *arg, const char *sentence)
{
	(void)arg;
	fs_notice(sentence);
}

static void nothing(int sig)
{
	(void)sig;
}

static void *stop_thread(void *arg)
{
	struct life *life = arg;
	sigset_t set = stop_signals();
	const struct timespec pause = {.tv_nsec = 5000000};
	int sig = 0;

	sigwait(&set, &sig);
	if (sig == SIGUSR1)
		return NULL;
	sd_notify(0, "STOPPING=1");
	fs_stop_commits(&life->fs);
	fuse_session_exit(life->fs.session);
	/* The loop's thread looks only when a signal interrupts its wait; it may not be in it yet. */
	while (atomic_load(&life->looping)) {
		pthread_kill(life->loop_thread, SIGUSR2);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* Serve until unmounted or told to stop. */
static int serve(struct life *life, char why[1024])
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct sigaction wake = {.sa_handler = nothing};
	pthread_t stopper;
	int rc;

	if (config == NULL)
		return -1;
	fuse_loop_cfg_set_max_threads(config, MAX_THREADS);
	sigaction(SIGUSR2, &wake, NULL);
	life->loop_thread = pthread_self();
	atomic_store(&life->looping, true);
	if (pthread_create(&stopper, NULL, stop_thread, life) != 0) {
		snprintf(why, 1024, "no thread for stopping could be made");
		fuse_loop_cfg_destroy(config);
		return -1;
	}
	rc = fuse_session_loop_mt(life->fs.session, config);
	atomic_store(&life->looping, false);
	pthread_kill(stopper, SIGUSR1);
	pthread_join(stopper, NULL);
	fuse_loop_cfg_destroy(config);
	/* The kernel has ended the connection: so a lazy umount of a busy mount looks at times, to a thread
	 * that was reading. ENODEV, as it is called otherwise, libfuse takes for what it is. */
	if (rc == -ECONNABORTED)
		rc = 0;
	if (rc < 0)
		snprintf(why, 1024, "the connection to the kernel broke: %s", strerror(-rc));
	return rc < 0 ? -1 : 0;
}

/* --- what an earlier mount left -------------------------------------------------------------------- */

/* Whether there is a shardfs mount on dir, and the topmost one there is dead. */
static bool is_mounted(const char *dir, bool *dead)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	struct statfs st;
	bool found = false;

	*dead = false;
	if (mounts == NULL)
		return false;
	while ((m = getmntent(mounts)) != NULL)
		if (strcmp(m->mnt_dir, dir) == 0)
			found = strcmp(m->mnt_type, "fuse.shardfs") == 0;
	endmntent(mounts);
	if (found && statfs(dir, &st) != 0)
		*dead = errno == ENOTCONN;
	return found;
}

static bool unmount_dead(const char *dir)
{
	pid_t pid;
	int status;

	if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return true;
	/* Not root: the helper that mounted for us unmounts too. */
	pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-z", "-q", dir, (char *)NULL);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool clear_mountpoint(const char *dir, char why[1024])
{
	bool dead;

	while (is_mounted(dir, &dead)) {
		if (!dead) {
			snprintf(why, 1024, "%s is a shardfs mount already", dir);
			return false;
		}
		if (!unmount_dead(dir)) {
			snprintf(why, 1024, "a dead mount on %s could not be cleared: %s", dir,
				 strerror(errno));
			return false;
		}
	}
	return true;
}

/* --- all of it ------------------------------------------------------------------------------------- */

static bool within(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* umount returns before the process that served the mount has closed its store: give it a moment. */
static enum kv_rc open_store(const struct fs_options *o, const char *purpose, struct kv_store **out,
			     struct kv_err *err)
{
	const struct timespec pause = {.tv_nsec = 50000000};
	enum kv_rc rc = KV_BUSY;

	for (unsigned tries = 0; rc == KV_BUSY && tries < OPEN_TRIES; tries++) {
		if (tries != 0)
			nanosleep(&pause, NULL);
		rc = kv_store_embedded_open(o->store, o->read_only, purpose, out, err);
	}
	return rc;
}

/* The engine tells others on a shared store who writes: this host, this mount. */
static enum kv_rc start_engine(struct fs *fs, struct kv_store *store, struct kv_err *err)
{
	char host[CORE_HOST_LEN] = "", purpose[CORE_PURPOSE_LEN];
	struct core_engine_config config = {.host = host, .purpose = purpose, .notice = notice};

	if (gethostname(host, sizeof host - 1) != 0)
		host[0] = '\0';
	snprintf(purpose, sizeof purpose, "shardfs mounted on %s (pid %d)", fs->options.mountpoint,
		 (int)getpid());
	return core_engine_open(store, &config, &fs->engine, err);
}

static bool open_engine(struct life *life, char why[1024])
{
	const struct fs_options *o = &life->fs.options;
	struct kv_store *store;
	struct kv_err err;
	char *purpose = NULL;
	enum kv_rc rc;

	if (within(o->store, o->mountpoint) || within(o->mountpoint, o->store)) {
		snprintf(why, 1024, "STORE %s and MOUNTPOINT %s must not lie within each other", o->store,
			 o->mountpoint);
		return false;
	}
	if (asprintf(&purpose, "mounted on %s", o->mountpoint) < 0)
		return false;
	rc = open_store(o, purpose, &store, &err);
	free(purpose);
	if (rc == KV_OK)
		rc = start_engine(&life->fs, store, &err);
	if (rc != KV_OK)
		snprintf(why, 1024, "%s", err.msg);
	return rc == KV_OK;
}

/* Before the store is touched, so that a mistyped mount point does not make one. The kernel would mount on a
 * file too, and then nothing is found below it. */
static bool check_mountpoint(const char *dir, char why[1024])
{
	struct stat st;
	bool there = stat(dir, &st) == 0;

	if (!there && errno == ENOTCONN)
		return true; /* a dead mount, which will be cleared */

	if (there && S_ISDIR(st.st_mode))
		return true;
	snprintf(why, 1024, "%s could not be mounted on: %s", dir, strerror(there ? ENOTDIR : errno));
	return false;
}

/* Whether libfuse and the kernel's options accept what was asked for; nothing is touched yet. */
static bool make_session(struct life *life, char why[1024])
{
	struct fuse_lowlevel_ops ops = {.init = op_init};
	char line[256] = "";

	fs_fill_tree_ops(&ops);
	fs_fill_batch_ops(&ops);
	fs_fill_file_ops(&ops);
	fs_fill_dir_ops(&ops);
	fs_count_ops(&life->fs.counts, &ops);
	fuse_set_log_func(keep_log);
	log_line = line;
	life->fs.session = fuse_session_new(&life->command->session_args, &ops, sizeof ops, life);
	log_line = NULL;
	line[strcspn(line, "\n")] = '\0';
	if (life->fs.session == NULL)
		snprintf(why, 1024, "the options were refused: %s", line);
	return life->fs.session != NULL;
}

static bool mount_session(struct life *life, char why[1024])
{
	char line[256] = "";
	bool ok;

	log_line = line;
	ok = fuse_session_mount(life->fs.session, life->fs.options.mountpoint) == 0;
	log_line = NULL;
	line[strcspn(line, "\n")] = '\0';
	if (!ok)
		snprintf(why, 1024, "%s could not be mounted on: %s", life->fs.options.mountpoint,
			 line[0] != '\0' ? line : strerror(errno));
	return ok;
}

/* Everything up to the loop: what can be refused first, then the store, then the mount. */
static bool start(struct life *life, char why[1024])
{
	const char *dir = life->fs.options.mountpoint;
	bool dead;

	if (!fs_waits_init(&life->fs.waits)) {
		snprintf(why, 1024, "no thread could be made");
		return false;
	}
	if (!make_session(life, why) || !check_mountpoint(dir, why))
		return false;
	if (is_mounted(dir, &dead) && !dead) {
		snprintf(why, 1024, "%s is a shardfs mount already", dir);
		return false;
	}
	return open_engine(life, why) && clear_mountpoint(dir, why) && mount_session(life, why);
}

/* What needs neither store nor kernel; finish() takes it down again. */
static void prepare(struct life *life)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	life->fs.options = life->command->options;
	life->fs.mounted_ms = (uint64_t)now.tv_sec * 1000;
	pthread_mutex_init(&life->fs.stop_mu, NULL);
	pthread_cond_init(&life->fs.idle, NULL);
	pthread_mutex_init(&life->fs.open_mu, NULL);
	fs_nodes_init(&life->fs.nodes);
	fs_errors_init(&life->fs.errors);
	fs_stages_init(&life->fs.stages);
	fs_budget_init(&life->fs.reading);
	fs_counts_init(&life->fs.counts);
	fs_turns_init(&life->fs.turns, fs_turns_for_cores(), fs_turns_for_cores());
	fs_large_init(&life->fs);
	fs_limits_init(&life->fs.limits, life->command->options.max_user_open,
		       life->command->options.max_open);
}

static void finish(struct life *life)
{
	fs_stop_commits(&life->fs);
	fs_waits_fini(&life->fs.waits);
	end_open(&life->fs);
	core_engine_close(life->fs.engine); /* its threads may be telling the kernel of news */
	if (life->fs.session != NULL)
		fuse_session_destroy(life->fs.session);
	fs_nodes_fini(&life->fs.nodes);
	fs_errors_fini(&life->fs.errors);
	fs_stages_fini(&life->fs.stages);
	fs_budget_fini(&life->fs.reading);
	fs_counts_fini(&life->fs.counts);
	fs_turns_fini(&life->fs.turns);
	fs_large_fini(&life->fs);
	fs_limits_fini(&life->fs.limits);
	pthread_cond_destroy(&life->fs.idle);
	pthread_mutex_destroy(&life->fs.stop_mu);
	pthread_mutex_destroy(&life->fs.open_mu);
}

int fs_mount_run(struct fs_command *command, void (*ready)(void *arg), void *arg, char why[1024])
{
	struct life life = {.command = command, .ready = ready, .ready_arg = arg};
	sigset_t set = stop_signals();
	int status = 1;

	why[0] = '\0';
	prepare(&life);
	/* Before any thread is made, so that all of them leave these to the stopping one. */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (start(&life, why)) {
		status = serve(&life, why) == 0 ? 0 : 1;
		fuse_session_unmount(life.fs.session);
	}
	finish(&life);
	return status;
}

/* --- without a kernel ------------------------------------------------------------------------------ */

static void ready_for_nobody(void *arg)
{
	(void)arg;
}

struct fs *fs_mount_detached(struct fs_command *command, struct kv_store *store, char why[1024])
{
	struct life *life = calloc(1, sizeof *life);
	struct kv_err err;

	why[0] = '\0';
	if (life == NULL) {
		kv_store_close(store);
		return NULL;
	}
	life->command = command;
	life->ready = ready_for_nobody;
	prepare(life);
	if (!fs_waits_init(&life->fs.waits) || !make_session(life, why)) {
		kv_store_close(store);
	} else if (start_engine(&life->fs, store, &err) != KV_OK) {
		snprintf(why, 1024, "%s", err.msg);
	} else {
		return &life->fs;
	}
	fs_unmount_detached(&life->fs);
	return NULL;
}

void fs_unmount_detached(struct fs *fs)
{
	struct life *life = (struct life *)fs; /* its first member */

	finish(life);
	free(life);
}
