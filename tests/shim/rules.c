/*
 * rules.c - what happens to a call: SHIM_COUNT, SHIM_KILL, SHIM_FAIL, SHIM_SKIP, SHIM_ARM.
 *
 * How it works: the rules are parsed once, at load. Each has a count of its own of the calls that it matches.
 * A call that no rule speaks of costs a few comparisons and no lock.
 */
#include "tests/shim/shim_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RULES_MAX = 32, LINE = 32 };

static const char *const names[CLASSES] = {
	"write-log",  "write-blob", "write-other", "sync-log", "sync-blob", "sync-dir",
	"sync-other", "sync-fs",    "rename",      "link",     "unlink",    "mkdir",
	"truncate",   "create",     "open",        "read",     "reply",
};

struct rule {
	bool in_class[CLASSES];
	char *glob; /* NULL: all */
	unsigned long nth;
	bool always;
	struct verdict verdict;
	bool then_fails; /* FAIL_COUNT: the call after it fails */
	_Atomic unsigned long count;
};

static struct rule rules[RULES_MAX];
static unsigned rule_count;
static char *counts; /* a shared mapping: CLASSES lines of LINE bytes; NULL: not counted */
static pthread_mutex_t counts_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *arm_path;
static _Atomic bool armed;

void shim_abort(const char *what, const char *path)
{
	dprintf(2, "shim: %s: %s\n", what, path);
	abort();
}

void shim_die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* "any" is what changes or syncs the directory. */
static bool is_any(enum class class)
{
	return class != OPEN && class != READ && class != REPLY;
}

/* Takes `<class|any>[@glob]` off the front of text: the rest of it. */
static void parse_class(struct rule *r, const char *text)
{
	const char *at = strchr(text, '@');
	size_t len = at ? (size_t)(at - text) : strlen(text);
	bool known = false;

	for (enum class c = 0; c < CLASSES; c++) {
		r->in_class[c] = (len == 3 && strncmp(text, "any", 3) == 0 && is_any(c)) ||
				 (strlen(names[c]) == len && strncmp(text, names[c], len) == 0);
		known |= r->in_class[c];
	}
	if (!known)
		shim_abort("no such class", text);
	r->glob = at ? strdup(at + 1) : NULL;
}

static int errno_of(const char *name)
{
	for (int e = 1; e < 200; e++) {
		const char *known = strerrorname_np(e);

		if (known && strcmp(known, name) == 0)
			return e;
	}
	shim_abort("no such errno", name);
}

static void parse_word(struct rule *r, const char *word, bool kills)
{
	if (kills && strcmp(word, "before") == 0)
		r->verdict.fate = KILL_BEFORE;
	else if (kills && strcmp(word, "after") == 0)
		r->verdict.fate = KILL_AFTER;
	else if (kills && strcmp(word, "torn") == 0)
		r->verdict.fate = KILL_TORN;
	else if (!kills && strcmp(word, "always") == 0)
		r->always = true;
	else if (!kills && strcmp(word, "short") == 0)
		r->verdict.fate = FAIL_SHORT;
	else if (!kills && strcmp(word, "count") == 0)
		r->verdict.fate = FAIL_COUNT;
	else if (!kills)
		r->verdict.errnum = errno_of(word);
	else
		shim_abort("no such word", word);
}

/* A list of `<class>[@glob]:<n>[:word...]`, parted by commas. */
static void parse_rules(const char *variable, enum fate fate)
{
	char *text = getenv(variable) ? strdup(getenv(variable)) : NULL, *rest = NULL;

	for (char *one = text ? strtok_r(text, ",", &rest) : NULL; one; one = strtok_r(NULL, ",", &rest)) {
		char *words = NULL, *word = strtok_r(one, ":", &words);
		struct rule *r = &rules[rule_count++];

		if (rule_count == RULES_MAX)
			shim_abort("too many rules", variable);
		parse_class(r, word);
		r->verdict = (struct verdict){fate, EIO};
		if (fate == SKIP)
			continue;
		word = strtok_r(NULL, ":", &words);
		r->nth = word ? strtoul(word, NULL, 10) : 0;
		if (r->nth == 0)
			shim_abort("a number from 1 on is missing", variable);
		while ((word = strtok_r(NULL, ":", &words)) != NULL)
			parse_word(r, word, fate == KILL_BEFORE);
		r->then_fails = r->verdict.fate == FAIL_COUNT;
	}
	free(text);
}

static void open_counts(const char *path)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0 || syscall(SYS_ftruncate, fd, (off_t)CLASSES * LINE) != 0)
		shim_abort("the counts cannot be made", path);
	/* As wide as they are taken: what is on the stack beside an int is anything. */
	counts = (char *)syscall(SYS_mmap, NULL, (size_t)CLASSES * LINE, PROT_READ | PROT_WRITE, MAP_SHARED,
				 fd, (off_t)0);
	if (counts == MAP_FAILED)
		shim_abort("the counts cannot be mapped", path);
	syscall(SYS_close, fd);
	for (unsigned c = 0; c < CLASSES; c++) {
		char line[LINE + 1];

		if (counts[c * LINE] != '\0') /* of the process before us, which goes on as us */
			continue;
		snprintf(line, sizeof line, "%-15s%16u\n", names[c], 0);
		memcpy(counts + (size_t)c * LINE, line, LINE);
	}
}

__attribute__((constructor)) static void load(void)
{
	parse_rules("SHIM_KILL", KILL_BEFORE);
	parse_rules("SHIM_FAIL", FAIL);
	parse_rules("SHIM_SKIP", SKIP);
	arm_path = getenv("SHIM_ARM");
	atomic_store(&armed, arm_path == NULL);
	if (getenv("SHIM_COUNT"))
		open_counts(getenv("SHIM_COUNT"));
}

static bool is_armed(void)
{
	if (atomic_load_explicit(&armed, memory_order_relaxed))
		return true;

	int e = errno;
	bool now = access(arm_path, F_OK) == 0;

	errno = e;
	if (now)
		atomic_store(&armed, true);
	return now;
}

static void count(enum class class)
{
	char *line = counts + (size_t) class * LINE, number[LINE];

	pthread_mutex_lock(&counts_lock);
	snprintf(number, sizeof number, "%16lu", strtoul(line + 15, NULL, 10) + 1);
	memcpy(line + 15, number, 16);
	pthread_mutex_unlock(&counts_lock);
}

static bool applies(struct rule *r)
{
	unsigned long n = atomic_fetch_add(&r->count, 1) + 1;

	return n == r->nth || (n > r->nth && r->always) || (n == r->nth + 1 && r->then_fails);
}

struct verdict shim_judge(enum class class, const char *path)
{
	struct verdict found = {GO, 0};
	bool live = is_armed();

	if (counts && live)
		count(class);
	for (unsigned i = 0; i < rule_count; i++) {
		struct rule *r = &rules[i];

		if (!r->in_class[class] || (r->glob && fnmatch(r->glob, path, 0) != 0))
			continue;
		if (r->verdict.fate == SKIP)
			found = class >= SYNC_LOG && class <= SYNC_FS ? r->verdict : found;
		else if (live && applies(r))
			found = r->verdict;
		else
			continue;
		if (found.fate == FAIL_COUNT && atomic_load(&r->count) != r->nth)
			found.fate = FAIL;
	}
	return found;
}

bool shim_stops(struct verdict v)
{
	if (v.fate == KILL_BEFORE)
		shim_die();
	if (v.fate != FAIL)
		return false;
	errno = v.errnum;
	return true;
}
