/* program.c - see program.h. */
#include "tests/fs/program.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mount.h>

static const struct program *program;
static _Atomic bool failing;

void program_begin(const struct program *p)
{
	program = p;
}

/* Kill the mount and leave the store as it is. */
_Noreturn static void give_up(const char *why)
{
	const struct program *p = program;

	fflush(stdout);
	fprintf(stderr, "\n%s: %s\n%s: SEED=%" PRIu64 "; the store is kept: %s\n", p->name, why, p->name,
		p->seed, p->world->store != NULL ? p->world->store : "(none)");
	p->report(why);
	if (p->world->pid > 0)
		kill(p->world->pid, SIGKILL);
	if (p->world->mnt != NULL)
		umount2(p->world->mnt, MNT_DETACH);
	_exit(1);
}

void program_fail(const char *fmt, ...)
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

void __wrap__mark_point(const char *file, int line);
void __wrap__mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}

__attribute__((format(printf, 4, 5))) _Noreturn void __wrap__ck_assert_failed(const char *file, int line,
									      const char *expr,
									      const char *msg, ...);
void __wrap__ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	char text[TEXT_MAX] = "";
	va_list ap;

	va_start(ap, msg);
	if (msg != NULL)
		vsnprintf(text, sizeof text, msg, ap);
	va_end(ap);
	program_fail("%s:%d: %s %s", file, line, expr, text);
}
