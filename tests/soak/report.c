/* report.c - what was done and found: counts, notes, the report, and the end when something differs. */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <time.h>

static _Atomic uint64_t counts[N_COUNTS];
static struct text notes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t begun;
static _Atomic bool failing;

void counted(enum soak_count what, uint64_t n)
{
	if (begun == 0)
		begun = now_ms();
	atomic_fetch_add_explicit(&counts[what], n, memory_order_relaxed);
}

uint64_t count_of(enum soak_count what)
{
	return atomic_load(&counts[what]);
}

void rest_ms(uint64_t ms)
{
	const struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

void note(const char *fmt, ...)
{
	char line[TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&lock);
	text_add(&notes, "%s", line);
	pthread_mutex_unlock(&lock);
}

void report(const char *result)
{
	static const char *const words[] = {
#define X(name, text) text,
		SOAK_COUNTS(X)
#undef X
	};
	double seconds = (double)(now_ms() - begun) / 1000;
	FILE *f = fopen(at(options.out, "report.md"), "we");

	if (f == NULL)
		return;
	fprintf(f,
		"# Soak\n\nSEED=%" PRIu64 ", %" PRIu64 " s asked for, %.0f s with all that goes round it\n\n",
		options.seed, options.seconds, seconds);
	fprintf(f, "**%s**\n\n%.*s\n## Counts\n\n| what | count | per second |\n|---|---:|---:|\n", result,
		(int)notes.len, notes.p != NULL ? notes.p : "");
	for (int i = 0; i < N_COUNTS; i++)
		fprintf(f, "| %s | %" PRIu64 " | %.1f |\n", words[i], count_of((enum soak_count)i),
			(double)count_of((enum soak_count)i) / seconds);
	fclose(f);
}

/* Kill the mount and leave the store as it is. */
_Noreturn static void give_up(const char *why)
{
	fflush(stdout);
	fprintf(stderr, "soak: %s\nsoak: SEED=%" PRIu64 "; the store is kept: %s\n", why, options.seed,
		world.store != NULL ? world.store : "(none)");
	report(why);
	if (world.pid > 0)
		kill(world.pid, SIGKILL);
	if (world.mnt != NULL)
		umount2(world.mnt, MNT_DETACH);
	_exit(1);
}

void soak_fail(const char *fmt, ...)
{
	char line[TEXT_MAX];
	va_list ap;

	if (atomic_exchange(&failing, true))
		for (;;) /* another thread ends it all */
			pause();
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	give_up(line);
}

/*
 * What the helpers of tests/ say when they fail, and when they do not: they run outside of Check here, so the
 * linker puts these two in the place of Check's.
 */
void __wrap__mark_point(const char *file, int line);
void __wrap__mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}

_Noreturn void __wrap__ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
	__attribute__((format(printf, 4, 5)));
void __wrap__ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	char text[TEXT_MAX] = "";
	va_list ap;

	va_start(ap, msg);
	if (msg != NULL)
		vsnprintf(text, sizeof text, msg, ap);
	va_end(ap);
	soak_fail("%s:%d: %s %s", file, line, expr, text);
}
