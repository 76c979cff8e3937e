/*
 * locks.c - an interposed library (LD_PRELOAD) that notes in which order the program takes its locks, for
 * tests/locks/run.sh. Linux, glibc.
 *
 * How it works: as in the kernel's lockdep, what is ordered are not locks but classes of them, so that two
 * threads need not meet to be found out, and an order between two shards counts as one. The class of a lock
 * is the place in the program that makes it. Each time a lock is taken while others are held, the pairs
 * (held, taken) not seen before are appended to the file LOCKS_OUT, as "<program>+<offset>
 * <program>+<offset>": the processes of a test, and programs, write to one file. Programs not below LOCKS_DIR
 * are left alone. Locks made by libraries, and those that are initialised without a call, have no class and
 * are left out. Who only tries, or waits for a limited time, cannot hang by it, but holds it then; who waits
 * on a condition takes its lock again at the end.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))
#define HERE ((uintptr_t)__builtin_return_address(0))

enum { LOCKS = 1 << 20, EDGES = 1 << 12, HELD = 64 };

static struct {
	atomic_flag busy; /* all below */
	struct {
		const void *lock;
		uintptr_t class; /* 0: none */
	} of[LOCKS];
	struct {
		uintptr_t held, taken;
	} edges[EDGES];
	size_t count;
} seen;

static struct {
	char program[512];
	uintptr_t base;
	const char *out;
} self;

static _Thread_local struct {
	const void *lock[HELD];
	uintptr_t class[HELD];
	size_t count;
} mine;

static void die(const char *why)
{
	fprintf(stderr, "locks: %s\n", why);
	abort();
}

__attribute__((constructor)) static void start(void)
{
	Dl_info info;
	ssize_t n = readlink("/proc/self/exe", self.program, sizeof self.program - 1);

	if (n <= 0 || dladdr((void *)getauxval(AT_ENTRY), &info) == 0)
		die("the program is not known");
	self.base = (uintptr_t)info.dli_fbase;
	const char *dir = getenv("LOCKS_DIR"), *out = getenv("LOCKS_OUT");

	if (dir != NULL && out != NULL && strncmp(self.program, dir, strlen(dir)) == 0)
		self.out = out;
}

/* The libc's own; those of conditions have an older version, which dlsym would give. */
static void *real(const char *name)
{
	void *f = strncmp(name, "pthread_cond", strlen("pthread_cond")) == 0
			  ? dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2")
			  : dlsym(RTLD_NEXT, name);

	if (f == NULL)
		die(name);
	return f;
}

/* Looked up once for each place that calls it. */
#define REAL(name)                                             \
	({                                                     \
		static _Atomic(void *) found;                  \
		void *f = atomic_load(&found);                 \
		if (f == NULL)                                 \
			atomic_store(&found, f = real(#name)); \
		(__typeof__(&name))f;                          \
	})

static void enter(void)
{
	while (atomic_flag_test_and_set(&seen.busy))
		;
}

static void leave(void)
{
	atomic_flag_clear(&seen.busy);
}

/* Where the class of a lock is, or is to be. */
static size_t slot(const void *lock)
{
	size_t i = ((uintptr_t)lock >> 3) * 0x9e3779b97f4a7c15U >> 44;

	for (size_t n = 0; n < LOCKS; n++, i = (i + 1) % LOCKS)
		if (seen.of[i].lock == lock || seen.of[i].lock == NULL)
			return i;
	die("too many locks");
	return 0;
}

static void made(const void *lock, uintptr_t at)
{
	Dl_info info;
	bool ours =
		self.out != NULL && dladdr((void *)at, &info) != 0 && (uintptr_t)info.dli_fbase == self.base;

	enter();
	size_t i = slot(lock);

	if (ours || seen.of[i].lock != NULL) {
		seen.of[i].lock = lock;
		seen.of[i].class = ours ? at - self.base : 0;
	}
	leave();
}

static uintptr_t class_of(const void *lock)
{
	uintptr_t class;

	enter();
	class = seen.of[slot(lock)].class;
	leave();
	return class;
}

static bool is_new(uintptr_t held, uintptr_t taken)
{
	size_t i = 0;

	enter();
	while (i < seen.count && (seen.edges[i].held != held || seen.edges[i].taken != taken))
		i++;
	bool fresh = i == seen.count;

	if (fresh && i == EDGES)
		die("too many pairs of locks");
	if (fresh) {
		seen.edges[i].held = held;
		seen.edges[i].taken = taken;
		seen.count++;
	}
	leave();
	return fresh;
}

static void say(uintptr_t held, uintptr_t taken)
{
	char line[2 * sizeof self.program + 64];
	int n = snprintf(line, sizeof line, "%s+%#lx %s+%#lx\n", self.program, held, self.program, taken);
	int fd = open(self.out, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);

	if (fd < 0 || write(fd, line, (size_t)n) != n)
		die("LOCKS_OUT cannot be written");
	close(fd);
}

/* may_wait: the caller would stand still until it has the lock. */
static void take(const void *lock, bool may_wait)
{
	uintptr_t class = class_of(lock);
	int kept = errno;

	if (class == 0)
		return;
	for (size_t i = 0; may_wait && i < mine.count; i++)
		if (is_new(mine.class[i], class))
			say(mine.class[i], class);
	if (mine.count == HELD)
		die("too many locks are held at once");
	mine.lock[mine.count] = lock;
	mine.class[mine.count++] = class;
	errno = kept;
}

static void drop(const void *lock)
{
	for (size_t i = mine.count; i > 0; i--) {
		if (mine.lock[i - 1] != lock)
			continue;
		mine.count--;
		memmove(mine.lock + i - 1, mine.lock + i, (mine.count - i + 1) * sizeof mine.lock[0]);
		memmove(mine.class + i - 1, mine.class + i, (mine.count - i + 1) * sizeof mine.class[0]);
		return;
	}
}

/* --- what is wrapped --------------------------------------------------------------------------------- */

SHOWN int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
	made(m, HERE);
	return REAL(pthread_mutex_init)(m, attr);
}

SHOWN int pthread_rwlock_init(pthread_rwlock_t *l, const pthread_rwlockattr_t *attr)
{
	made(l, HERE);
	return REAL(pthread_rwlock_init)(l, attr);
}

SHOWN int pthread_mutex_destroy(pthread_mutex_t *m)
{
	made(m, 0);
	return REAL(pthread_mutex_destroy)(m);
}

SHOWN int pthread_rwlock_destroy(pthread_rwlock_t *l)
{
	made(l, 0);
	return REAL(pthread_rwlock_destroy)(l);
}

/* The order is noted first: who hangs has said why. */
#define TAKES(name, type)             \
	SHOWN int name(type *l)       \
	{                             \
		take(l, true);        \
		return REAL(name)(l); \
	}
#define TRIES(name, type, params, ...)            \
	SHOWN int name params                     \
	{                                         \
		int rc = REAL(name)(__VA_ARGS__); \
		if (rc == 0)                      \
			take(l, false);           \
		return rc;                        \
	}
#define DROPS(name, type)             \
	SHOWN int name(type *l)       \
	{                             \
		drop(l);              \
		return REAL(name)(l); \
	}
#define WAITS(name, params, ...)                  \
	SHOWN int name params                     \
	{                                         \
		drop(l);                          \
		int rc = REAL(name)(__VA_ARGS__); \
		take(l, true);                    \
		return rc;                        \
	}

TAKES(pthread_mutex_lock, pthread_mutex_t)
TAKES(pthread_rwlock_rdlock, pthread_rwlock_t)
TAKES(pthread_rwlock_wrlock, pthread_rwlock_t)
TRIES(pthread_mutex_trylock, pthread_mutex_t, (pthread_mutex_t * l), l)
TRIES(pthread_mutex_timedlock, pthread_mutex_t, (pthread_mutex_t * l, const struct timespec *until), l, until)
TRIES(pthread_mutex_clocklock, pthread_mutex_t,
      (pthread_mutex_t * l, clockid_t clock, const struct timespec *until), l, clock, until)
DROPS(pthread_mutex_unlock, pthread_mutex_t)
DROPS(pthread_rwlock_unlock, pthread_rwlock_t)
WAITS(pthread_cond_wait, (pthread_cond_t * c, pthread_mutex_t *l), c, l)
WAITS(pthread_cond_timedwait, (pthread_cond_t * c, pthread_mutex_t *l, const struct timespec *until), c, l,
      until)
