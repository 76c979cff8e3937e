/* report.c - what was done and found: counts, the report, and the end when something is wrong. */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <time.h>

enum { PLACES_MAX = 400, RESTARTS_MAX = 20000 };

struct place {
	char what[24], where[40];
	unsigned kills;
};

static _Atomic uint64_t counts[N_COUNTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct place places[PLACES_MAX];
static size_t place_count;
static uint32_t restarts[RESTARTS_MAX];
static size_t restart_count;
static _Atomic bool failing;

void counted(enum crash_count what, uint64_t n)
{
	atomic_fetch_add_explicit(&counts[what], n, memory_order_relaxed);
}

uint64_t count_of(enum crash_count what)
{
	return atomic_load(&counts[what]);
}

uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void rest_us(uint64_t us)
{
	const struct timespec t = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};

	nanosleep(&t, NULL);
}

void restart_took(uint64_t us)
{
	pthread_mutex_lock(&lock);
	if (restart_count < RESTARTS_MAX)
		restarts[restart_count++] = (uint32_t)us;
	pthread_mutex_unlock(&lock);
}

void killed_at(const char *what, const char *where)
{
	size_t i = 0;

	pthread_mutex_lock(&lock);
	while (i < place_count && (strcmp(places[i].what, what) != 0 || strcmp(places[i].where, where) != 0))
		i++;
	if (i == place_count && i < PLACES_MAX) {
		snprintf(places[i].what, sizeof places[i].what, "%s", what);
		snprintf(places[i].where, sizeof places[i].where, "%s", where);
		place_count++;
	}
	if (i < PLACES_MAX)
		places[i].kills++;
	pthread_mutex_unlock(&lock);
}

void progress(const char *fmt, ...)
{
	static uint64_t last;
	bool terminal = isatty(1) == 1;
	va_list ap;

	if (now_ms() - last < (terminal ? 200 : 20000))
		return;
	last = now_ms();
	va_start(ap, fmt);
	printf(terminal ? "\rcrash: " : "crash: ");
	vprintf(fmt, ap);
	printf(terminal ? "\033[K" : "\n");
	fflush(stdout);
	va_end(ap);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int by_place(const void *a, const void *b)
{
	const struct place *x = a, *y = b;
	int first = strcmp(x->what, y->what);

	return first != 0 ? first : strcmp(x->where, y->where);
}

void report(const char *result)
{
	static const char *const words[] = {
#define X(name, text) text,
		CRASH_COUNTS(X)
#undef X
	};
	FILE *f = fopen(at(options.out, "report.md"), "we");

	if (f == NULL)
		return;
	fprintf(f, "# Crash\n\nSEED=%" PRIu64 "\n\n**%s**\n\n", options.seed, result);
	qsort(restarts, restart_count, sizeof *restarts, by_number);
	qsort(places, place_count, sizeof *places, by_place);
	if (restart_count != 0)
		fprintf(f,
			"Restart: median %.1f ms, 99 of 100 within %.1f ms, at most %.1f ms (%zu "
			"restarts)\n\n",
			restarts[restart_count / 2] / 1000.0, restarts[restart_count * 99 / 100] / 1000.0,
			restarts[restart_count - 1] / 1000.0, restart_count);
	fprintf(f, "| what | count |\n|---|---:|\n");
	for (int i = 0; i < N_COUNTS; i++)
		fprintf(f, "| %s | %" PRIu64 " |\n", words[i], count_of((enum crash_count)i));
	fprintf(f, "\n| killed | where, or meanwhile | kills |\n|---|---|---:|\n");
	for (size_t i = 0; i < place_count; i++)
		fprintf(f, "| %s | %s | %u |\n", places[i].what, places[i].where, places[i].kills);
	fclose(f);
}

/* Kill the mount and leave the store as it is. */
_Noreturn static void give_up(const char *why)
{
	fflush(stdout);
	fprintf(stderr, "\ncrash: %s\ncrash: SEED=%" PRIu64 "; the store is kept: %s\n", why, options.seed,
		world.store != NULL ? world.store : "(none)");
	report(why);
	if (world.pid > 0)
		kill(world.pid, SIGKILL);
	if (world.mnt != NULL)
		umount2(world.mnt, MNT_DETACH);
	_exit(1);
}

void crash_fail(const char *fmt, ...)
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

/* Check's way to fail is not that of a program of its own: the linker puts these two in its place. */
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
	char text[TEXT_MAX / 2] = "";
	va_list ap;

	va_start(ap, msg);
	if (msg != NULL)
		vsnprintf(text, sizeof text, msg, ap);
	va_end(ap);
	crash_fail("%s:%d: %s %s", file, line, expr, text);
}
