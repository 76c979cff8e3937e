/*
 * property.c - random operations on a mount, by plain file I/O, compared with the plain model of a shard
 * (tests/shadow.h): transactions cut anywhere, verdicts, spent descriptors, reads, staged batches, remounts
 * and kills.
 *
 * A round is one mount with two shards and one seed. A round that differs prints its seed, the step and the
 * last operations, and is added to tests/regress/mount.seeds, which later runs do first. SEED=<n> repeats a
 * whole run; STEPS=<n> makes a run of n steps in all instead of the default.
 */
#include "tests/fs/property.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { ROUND = 1000, STEPS = 10000 };

/* --- telling --------------------------------------------------------------------------------------- */

static const char *const seeds_file = "tests/regress/mount.seeds";

void pm_tell(struct pm *o, const char *fmt, ...)
{
	char *line = o->trace[o->traced++ % PM_TRACE];
	va_list ap;
	int at = snprintf(line, sizeof o->trace[0], "%u: ", o->step);

	va_start(ap, fmt);
	vsnprintf(line + at, sizeof o->trace[0] - (size_t)at, fmt, ap);
	va_end(ap);
}

void pm_more(struct pm *o, const char *fmt, ...)
{
	char *line = o->trace[(o->traced - 1) % PM_TRACE];
	size_t at = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + at, sizeof o->trace[0] - at, fmt, ap);
	va_end(ap);
}

void pm_differs(struct pm *o, const char *what, const char *got, const char *want)
{
	FILE *f = o->known ? NULL : fopen(seeds_file, "a");

	fprintf(stderr, "mount property: seed %" PRIu64 ", step %u; the last operations:\n", o->seed,
		o->step);
	for (unsigned i = o->traced < PM_TRACE ? 0 : o->traced - PM_TRACE; i < o->traced; i++)
		fprintf(stderr, "  %s\n", o->trace[i % PM_TRACE]);
	fflush(stderr);
	if (f != NULL) {
		fprintf(f, "%" PRIu64 "\n", o->seed);
		fclose(f);
	}
	ck_abort_msg("seed %" PRIu64 ", step %u: %s: got \"%s\", not \"%s\"", o->seed, o->step, what, got,
		     want);
}

void pm_same(struct pm *o, const char *what, const char *got, const char *want)
{
	if (strcmp(got, want) != 0)
		pm_differs(o, what, got, want);
}

void pm_errno(struct pm *o, const char *what, long got, int want)
{
	int errnum = got < 0 ? (int)-got : 0;

	pm_more(o, " -> %s", errnum == 0 ? "ok" : strerrorname_np(errnum));
	if (errnum != want)
		pm_differs(o, what, errnum == 0 ? "no error" : strerrorname_np(errnum),
			   want == 0 ? "no error" : strerrorname_np(want));
}

/* --- chance ---------------------------------------------------------------------------------------- */

uint64_t pm_below(struct pm *o, uint64_t n)
{
	return rng_below(&o->r, n);
}

bool pm_one_in(struct pm *o, uint64_t n)
{
	return pm_below(o, n) == 0;
}

struct core_frontier pm_around(struct pm *o, struct core_frontier f)
{
	uint64_t t = f.empty ? pm_below(o, 50) : f.t + (pm_one_in(o, 4) ? pm_below(o, 6) : 2);

	return pm_one_in(o, 300) ? core_frontier_empty() : core_frontier_at(t < 2 ? 0 : t - 2);
}

struct sh_row pm_row(struct pm *o, uint64_t base, bool star)
{
	struct sh_row row = {.star = pm_one_in(o, 2) && (star || pm_one_in(o, 100))};

	row.kind = sh_kind_of(pm_below(o, 1 << 20));
	row.time = row.star ? 0 : pm_one_in(o, 15) ? pm_below(o, base + 6) : base + pm_below(o, 3);
	row.diff = (int64_t)pm_below(o, 7) - 3;
	if (pm_one_in(o, 150))
		row.diff = pm_one_in(o, 2) ? INT64_MAX : INT64_MIN;
	return row;
}

size_t pm_print_row(const struct sh_row *row, char *text, size_t len)
{
	char time[24] = "*";

	if (!row->star)
		snprintf(time, sizeof time, "%" PRIu64, row->time);
	return len + (size_t)sprintf(text + len, "%s\t%" PRId64 "\t%s\t%s\n", time, row->diff,
				     sh_key(row->kind), sh_val(row->kind));
}

/* --- writing --------------------------------------------------------------------------------------- */

static ssize_t or_errno(ssize_t n)
{
	return n < 0 ? -errno : n;
}

/* By a child that has the descriptor too. */
static ssize_t write_in_child(int fd, bool seek, uint64_t at, const char *text, size_t len)
{
	ssize_t *result =
			mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		n;
	pid_t pid;
	int status;

	ck_assert(result != MAP_FAILED);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		*result = or_errno(seek ? pwrite(fd, text, len, (off_t)at) : write(fd, text, len));
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	n = *result;
	munmap(result, sizeof *result);
	return n;
}

ssize_t pm_write(struct pm *o, int fd, bool seek, uint64_t at, const char *text, size_t len)
{
	size_t half = len / 2;
	struct iovec iov[2] = {{(void *)(uintptr_t)text, half},
			       {(void *)(uintptr_t)(text + half), len - half}};
	ssize_t n;
	int other;

	switch (pm_below(o, 12)) {
	case 0:
		return or_errno(seek ? pwritev(fd, iov, 2, (off_t)at) : writev(fd, iov, 2));
	case 1:
		other = dup(fd);
		n = or_errno(seek ? pwrite(other, text, len, (off_t)at) : write(other, text, len));
		close(other);
		return n;
	case 2:
		return pm_one_in(o, 3)
			       ? write_in_child(fd, seek, at, text, len)
			       : or_errno(seek ? pwrite(fd, text, len, (off_t)at) : write(fd, text, len));
	default:
		return or_errno(seek ? pwrite(fd, text, len, (off_t)at) : write(fd, text, len));
	}
}

const char *pm_batch(const struct pm *o, int shard, const char *name)
{
	return at(at(o->shards[shard], "batches"), name);
}

/* --- reading --------------------------------------------------------------------------------------- */

static void print_sums(const __int128 sums[SH_KINDS], uint64_t time, char *out)
{
	size_t len = 0;

	out[0] = '\0';
	for (unsigned kind = 0; kind < SH_KINDS; kind++) {
		struct sh_row row = {.kind = kind, .time = time, .diff = (int64_t)sums[kind]};

		if (sums[kind] > INT64_MAX || sums[kind] < INT64_MIN) {
			sprintf(out, "EOVERFLOW");
			return;
		}
		if (sums[kind] != 0)
			len = pm_print_row(&row, out, len);
	}
}

static void compare_snapshot(struct pm *o, int shard)
{
	const struct shadow *m = &o->m[shard];
	uint64_t latest = m->upper.empty ? UINT64_MAX : m->upper.t - 1, t = pm_below(o, m->upper.t + 3);
	bool now = pm_one_in(o, 3) && m->upper.t + m->upper.empty > 0;
	char name[40], want[20000], *got;
	__int128 sums[SH_KINDS];
	enum kv_rc rc;
	int fd;

	t = now ? latest : t;
	snprintf(name, sizeof name, "as_of/%" PRIu64, t);
	if (now)
		snprintf(name, sizeof name, pm_one_in(o, 2) ? "snapshot" : "as_of/now");
	rc = shadow_sums(m, t, sums);
	pm_tell(o, "read %s of %d", name, shard);
	if (rc == KV_WOULD_BLOCK) {
		char c;

		fd = open(at(o->shards[shard], name), O_RDONLY | O_NONBLOCK);
		pm_errno(o, "open as_of", or_errno(fd), 0);
		pm_errno(o, "read of an incomplete time", or_errno(read(fd, &c, 1)), EAGAIN);
		close(fd);
		return;
	}
	/* What waits for since to be below the upper again is not for this test. */
	if (now && rc == KV_COMPACTED)
		return;
	got = slurp_rc(at(o->shards[shard], name));
	if (rc == KV_COMPACTED) {
		pm_errno(o, "as_of", got == NULL ? -errno : 0, ENODATA);
	} else {
		print_sums(sums, t, want);
		pm_same(o, name, got != NULL ? got : strerrorname_np(errno), want);
	}
	free(got);
}

static void compare_file(struct pm *o, int shard, const char *name, struct core_frontier f)
{
	char want[CORE_FRONTIER_LEN + 1], *got = slurp_rc(at(o->shards[shard], name));

	strcat(core_frontier_format(f, want), "\n");
	pm_same(o, name, got != NULL ? got : strerrorname_np(errno), want);
	free(got);
}

struct committed {
	struct core_frontier lower, upper;
	char name[60];
};

static int by_lower(const void *a, const void *b)
{
	const struct committed *x = a, *y = b;

	return core_frontier_cmp(x->lower, y->lower);
}

static void sum_text(struct pm *o, const struct committed *b, const char *text, __int128 sums[SH_KINDS])
{
	memset(sums, 0, SH_KINDS * sizeof *sums);
	while (*text != '\0') {
		const char *key, *val, *end = strchr(text, '\n');
		uint64_t time = strtoull(text, NULL, 10);
		int64_t diff = strtoll(strchr(text, '\t') + 1, NULL, 10);
		int kind;

		key = strchr(strchr(text, '\t') + 1, '\t') + 1;
		val = strchr(key, '\t') + 1;
		kind = sh_kind(key, (size_t)(val - key - 1), val, (size_t)(end - val));
		if (kind < 0 || !core_frontier_covers(b->lower, time) || core_frontier_covers(b->upper, time))
			pm_differs(o, "a row of a batch", text, "one within it");
		sums[kind] += diff;
		text = end + 1;
	}
}

static bool is_listed(struct pm *o, int shard, const char *name)
{
	DIR *dir = opendir(at(o->shards[shard], "batches"));
	struct dirent *e;
	bool found = false;

	if (dir == NULL)
		pm_differs(o, "list batches", strerrorname_np(errno), "a directory");
	while (!found && (e = readdir(dir)) != NULL)
		found = strcmp(e->d_name, name) == 0;
	closedir(dir);
	return found;
}

/*
 * -1: merged since it was listed, and so not listed any more. One that is still listed can be opened: it may
 * be another one of that name, which came between looking the name up and opening what was found, but not
 * each time.
 */
static int open_listed(struct pm *o, int shard, const char *name)
{
	int fd = -1;

	for (int tries = 0; fd < 0 && tries < 5; tries++) {
		fd = open(pm_batch(o, shard, name), O_RDONLY | O_CLOEXEC);
		if (fd < 0 && errno != ENOENT)
			pm_differs(o, name, strerrorname_np(errno), "a batch");
		if (fd < 0 && !is_listed(o, shard, name))
			return -1;
	}
	if (fd < 0)
		pm_differs(o, name, "listed, and not there", "a batch");
	return fd;
}

static void compare_one_batch(struct pm *o, int shard, const struct committed *b)
{
	__int128 got[SH_KINDS], want[SH_KINDS];
	struct stat st = {0};
	/* Of one open file: by its name there may be another one, merged, a moment later. */
	int fd = open_listed(o, shard, b->name);
	char *text;

	if (fd < 0)
		return;
	if (fstat(fd, &st) != 0)
		pm_differs(o, b->name, strerrorname_np(errno), "a batch");
	text = calloc(1, (size_t)st.st_size + 2);
	if (text == NULL || pread(fd, text, (size_t)st.st_size + 1, 0) != st.st_size)
		pm_differs(o, b->name, "another size", "a batch");
	close(fd);
	sum_text(o, b, text, got);
	shadow_sums_between(&o->m[shard], b->lower, b->upper, want);
	if (memcmp(got, want, sizeof got) != 0)
		pm_differs(o, b->name, text, "what was appended");
	free(text);
}

/* Committed ones tile; every other name is staged, and there. */
static void compare_listing(struct pm *o, int shard)
{
	DIR *dir = opendir(at(o->shards[shard], "batches"));
	struct committed list[1000];
	struct core_frontier next = core_frontier_at(0);
	size_t count = 0, staged = 0, want = 0;
	struct dirent *e;

	pm_tell(o, "list batches of %d", shard);
	while (dir != NULL && (e = readdir(dir)) != NULL && count < 1000) {
		const char *name = e->d_name, *dash = strchr(name, '-');
		struct committed b = {0};

		if (name[0] == '.')
			continue;
		if (dash == NULL || name[0] < '0' || name[0] > '9') {
			staged++;
			if (shadow_staged(&o->m[shard], name) == NULL)
				pm_differs(o, "a staged name", name, "nothing of that name");
			continue;
		}
		if (!core_frontier_parse(name, (size_t)(dash - name), &b.lower) ||
		    !core_frontier_parse(dash + 1, strlen(dash + 1), &b.upper))
			pm_differs(o, "a name", name, "<lower>-<upper>");
		snprintf(b.name, sizeof b.name, "%.59s", name);
		list[count++] = b;
	}
	closedir(dir);
	for (int i = 0; i < SH_STAGED; i++)
		want += o->m[shard].staged[i].there;
	if (staged != want)
		pm_differs(o, "staged names", "fewer", "all");
	qsort(list, count, sizeof *list, by_lower);
	for (size_t i = 0; i < count; i++) {
		if (!core_frontier_eq(list[i].lower, next) || !shadow_has_edge(&o->m[shard], list[i].upper))
			pm_differs(o, "batches", list[i].name, "what tiles, and ends where appends did");
		next = list[i].upper;
		if (i + 4 > count || pm_one_in(o, 6))
			compare_one_batch(o, shard, &list[i]);
	}
	if (!core_frontier_eq(next, o->m[shard].upper))
		pm_differs(o, "batches", "others", "up to the upper");
}

static void step_since(struct pm *o, int shard)
{
	struct shadow *m = &o->m[shard];
	uint64_t n = pm_one_in(o, 2) ? 1 + pm_below(o, 9) : 0;
	struct core_frontier to = core_frontier_at(pm_below(o, m->upper.t + 2));
	char text[40], word[CORE_FRONTIER_LEN];

	if (n != 0)
		snprintf(text, sizeof text, "upper-%" PRIu64 "%s", n, pm_one_in(o, 2) ? "\n" : "");
	else
		snprintf(text, sizeof text, "%s\n", core_frontier_format(to, word));
	pm_tell(o, "since of %d: %s", shard, text);
	pm_errno(o, "write of since", -write_once(at(o->shards[shard], "since"), text), 0);
	shadow_move_hold(m, to, n);
}

/* --- rounds ---------------------------------------------------------------------------------------- */

static void remount(struct pm *o, bool killed)
{
	pm_tell(o, "%s", killed ? "kill -9 and mount" : "unmount and mount");
	if (killed)
		world_kill(&o->w);
	o->killed = killed;
	pm_close_writers(o);
	pm_close_stages(o);
	o->killed = false;
	if (!killed)
		world_stop(&o->w);
	world_start(&o->w, NULL);
	pm_open_writers(o);
	if (killed)
		pm_crashed(o);
}

/* A finished shard is removed, and one made in its place. */
static void replace_shard(struct pm *o, int shard)
{
	bool may = o->m[shard].upper.empty;

	if (!may && !pm_one_in(o, 200))
		return;
	pm_tell(o, "rmdir of shard %d", shard);
	if (may)
		pm_errno(o, "since", -write_once(at(o->shards[shard], "since"), "-"), 0);
	pm_close_writers(o);
	pm_close_stages(o);
	pm_errno(o, "rmdir", or_errno(rmdir(o->shards[shard])), may ? 0 : ENOTEMPTY);
	if (may) {
		free(o->shards[shard]);
		o->shards[shard] = shard_new(&o->w);
		shadow_free(&o->m[shard]);
		shadow_init(&o->m[shard]);
	}
	pm_open_writers(o);
}

static void step(struct pm *o)
{
	uint64_t what = pm_below(o, 1000);
	int shard = (int)pm_below(o, PM_SHARDS);

	if (what < 500)
		pm_step_append(o);
	else if (what < 780)
		pm_step_staged(o);
	else if (what < 810)
		step_since(o, shard);
	else if (what < 880)
		compare_file(o, shard, "upper", o->m[shard].upper);
	else if (what < 910)
		compare_file(o, shard, "since", o->m[shard].since);
	else if (what < 975)
		compare_snapshot(o, shard);
	else if (what < 980)
		compare_listing(o, shard);
	else if (what < 985)
		pm_compare_staged(o, shard);
	else if (what < 995)
		replace_shard(o, shard);
	else
		remount(o, pm_one_in(o, 2));
}

static void run_round(uint64_t seed, unsigned steps, bool known)
{
	struct pm *o = calloc(1, sizeof *o);

	o->seed = o->r.state = seed;
	o->known = known;
	world_open(&o->w);
	pm_tell(o, "begin");
	for (int i = 0; i < PM_SHARDS; i++) {
		o->shards[i] = shard_new(&o->w);
		shadow_init(&o->m[i]);
	}
	for (int i = 0; i < PM_STAGES; i++)
		o->stages[i].fd = -1;
	pm_open_writers(o);
	for (o->step = 1; o->step <= steps; o->step++)
		step(o);
	for (int i = 0; i < PM_SHARDS; i++) {
		compare_listing(o, i);
		pm_compare_staged(o, i);
		compare_snapshot(o, i);
		shadow_free(&o->m[i]);
		free(o->shards[i]);
	}
	pm_close_writers(o);
	pm_close_stages(o);
	world_close(&o->w);
	free(o);
}

START_TEST(every_answer_is_the_model_s)
{
	const char *given = getenv("STEPS");
	uint64_t steps = given != NULL ? strtoull(given, NULL, 10) : STEPS;
	struct rng seeds = rng_new(900);

	for (uint64_t done = 0; done < steps; done += ROUND)
		run_round(rng_below(&seeds, 0), ROUND, false);
}
END_TEST

START_TEST(what_was_found_before_stays_found)
{
	FILE *f = fopen(seeds_file, "r");
	char line[200];
	uint64_t seed;

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "%" SCNu64, &seed) == 1)
			run_round(seed, ROUND, true);
	if (f != NULL)
		fclose(f);
}
END_TEST

Suite *property_suite(void)
{
	Suite *s = suite_create("property");
	TCase *tc = world_case(s, "property", getenv("STEPS") != NULL ? 3600 : 240);

	tcase_add_test(tc, what_was_found_before_stays_found);
	tcase_add_test(tc, every_answer_is_the_model_s);
	return s;
}
