/*
 * alloc.c - see alloc.h. Each function stands in for the one whose name it has behind alloc_, by objcopy.
 */
#include "tests/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

static struct alloc_plan own, *plan = &own;

extern const char __executable_start[]; /* the linker's */

static struct alloc_plan *map(const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
	void *p = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, sizeof(struct alloc_plan)) == 0)
		p = mmap(NULL, sizeof(struct alloc_plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		abort();
	return p;
}

struct alloc_plan *alloc_plan(void)
{
	return plan;
}

struct alloc_plan *alloc_plan_at(const char *path)
{
	return map(path, O_CREAT);
}

void alloc_fail(struct alloc_plan *p, unsigned nth)
{
	atomic_store(&p->nth, 0);
	atomic_store(&p->calls, 0);
	atomic_store(&p->failed, 0);
	atomic_store(&p->where, 0);
	atomic_store(&p->nth, nth);
}

/* Whether the call that returns to `to` is to fail. */
static bool strikes(const void *to)
{
	unsigned nth = atomic_load(&plan->nth), call;

	if (nth == 0)
		return false;
	call = atomic_fetch_add(&plan->calls, 1) + 1;
	if (call < nth || (call > nth && atomic_load(&plan->forever) == 0))
		return false;
	if (atomic_fetch_add(&plan->failed, 1) == 0)
		atomic_store(&plan->where, (uintptr_t)to - (uintptr_t)__executable_start);
	errno = ENOMEM;
	return true;
}

#define STRIKES strikes(__builtin_return_address(0))

void *alloc_malloc(size_t size);
void *alloc_calloc(size_t count, size_t size);
void *alloc_realloc(void *p, size_t size);
void *alloc_reallocarray(void *p, size_t count, size_t size);
char *alloc_strdup(const char *s);
char *alloc_strndup(const char *s, size_t n);
int alloc_asprintf(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int alloc___asprintf_chk(char **out, int flag, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
FILE *alloc_open_memstream(char **text, size_t *len);
int alloc_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
DIR *alloc_opendir(const char *path);
DIR *alloc_fdopendir(int fd);
char *alloc_realpath(const char *path, char *resolved);
ZSTD_CCtx *alloc_ZSTD_createCCtx(void);
ZSTD_DCtx *alloc_ZSTD_createDCtx(void);

void *alloc_malloc(size_t size)
{
	return STRIKES ? NULL : malloc(size);
}

void *alloc_calloc(size_t count, size_t size)
{
	return STRIKES ? NULL : calloc(count, size);
}

void *alloc_realloc(void *p, size_t size)
{
	return STRIKES ? NULL : realloc(p, size);
}

void *alloc_reallocarray(void *p, size_t count, size_t size)
{
	return STRIKES ? NULL : reallocarray(p, count, size);
}

char *alloc_strdup(const char *s)
{
	return STRIKES ? NULL : strdup(s);
}

char *alloc_strndup(const char *s, size_t n)
{
	return STRIKES ? NULL : strndup(s, n);
}

int alloc_asprintf(char **out, const char *fmt, ...)
{
	va_list args;
	int n = -1;

	*out = (char *)(uintptr_t)0xdead; /* "the contents are undefined" */
	if (STRIKES)
		return n;
	va_start(args, fmt);
	n = vasprintf(out, fmt, args);
	va_end(args);
	return n;
}

int alloc___asprintf_chk(char **out, int flag, const char *fmt, ...)
{
	va_list args;
	int n = -1;

	(void)flag;
	*out = (char *)(uintptr_t)0xdead;
	if (STRIKES)
		return n;
	va_start(args, fmt);
	n = vasprintf(out, fmt, args);
	va_end(args);
	return n;
}

FILE *alloc_open_memstream(char **text, size_t *len)
{
	return STRIKES ? NULL : open_memstream(text, len);
}

int alloc_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	return STRIKES ? EAGAIN : pthread_create(thread, attr, run, arg);
}

DIR *alloc_opendir(const char *path)
{
	return STRIKES ? NULL : opendir(path);
}

DIR *alloc_fdopendir(int fd)
{
	return STRIKES ? NULL : fdopendir(fd);
}

char *alloc_realpath(const char *path, char *resolved)
{
	return STRIKES ? NULL : realpath(path, resolved);
}

ZSTD_CCtx *alloc_ZSTD_createCCtx(void)
{
	return STRIKES ? NULL : ZSTD_createCCtx();
}

ZSTD_DCtx *alloc_ZSTD_createDCtx(void)
{
	return STRIKES ? NULL : ZSTD_createDCtx();
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("ALLOC_PLAN");

	if (path == NULL)
		return;
	plan = map(path, 0);
	json_set_alloc_funcs(alloc_malloc, free);
}
