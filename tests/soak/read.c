/* read.c - readers: as_of, snapshot, wait, committed batches; slow ones that keep a snapshot open. */
#include "tests/soak/soak.h"

#include <dirent.h>
#include <inttypes.h>

/* --- files of a shard ------------------------------------------------------------------------------ */

int read_all(int fd, struct text *t, size_t chunk)
{
	ssize_t n;

	do {
		text_room(t, chunk + 1);
		n = read(fd, t->p + t->len, chunk);
		t->len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	t->p[t->len] = '\0';
	return n < 0 ? errno : 0;
}

/* Open and read all of it, through restarts; 0 or errno. */
static int read_file(const char *path, struct text *t)
{
	unsigned mount;
	int e;

	do {
		mount = mount_up();
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		t->len = 0;
		e = fd < 0 ? errno : read_all(fd, t, 256 << 10);
		if (fd >= 0)
			close(fd);
	} while (e != 0 && excused(mount, e));
	return e;
}

const char *frontier_text(uint64_t f)
{
	static _Thread_local char text[4][24];
	static _Thread_local unsigned next;

	next = (next + 1) % 4;
	snprintf(text[next], sizeof text[0], f == NEVER ? "-" : "%" PRIu64, f);
	return text[next];
}

int read_frontier(const struct shard *s, const char *name, uint64_t *out)
{
	struct text t = {0};
	int e = read_file(at(s->dir, name), &t);

	if (e == 0 && t.len == 0)
		program_fail("%s/%s is empty", s->id, name);
	if (e == 0)
		*out = t.p[0] == '-' ? NEVER : strtoull(t.p, NULL, 10);
	text_free(&t);
	return e;
}

int say(const struct shard *s, const char *name, const char *line)
{
	unsigned mount;
	int e;

	do {
		mount = mount_up();
		int fd = open(at(s->dir, name),
			      O_WRONLY | O_CLOEXEC | (strncmp(name, "holds/", 6) == 0 ? O_CREAT : 0), 0644);

		e = fd < 0 ? errno : put_all(fd, line, strlen(line));
		if (fd >= 0)
			close(fd);
	} while (e != 0 && excused(mount, e));
	return e;
}

/* --- the comparison -------------------------------------------------------------------------------- */

_Noreturn static void differs(const struct shard *s, const char *what, uint64_t t, const char *text,
			      size_t len)
{
	struct text want = {0}, words = {0};
	FILE *f = fopen(at(options.out, "found.tsv"), "we");
	char *out = NULL;

	model_explain(s->m, rows_read(what, text, len).sums, model_at(s->m, t), &words);
	model_content(s->m, t, &want);
	if (f != NULL) {
		fwrite(text, 1, len, f);
		fclose(f);
	}
	f = fopen(at(options.out, "expected.tsv"), "we");
	if (f != NULL) {
		fwrite(want.p, 1, want.len, f);
		fclose(f);
	}
	sh(&out,
	   "cd %s && for f in found expected; do LC_ALL=C sort -o $f.tsv $f.tsv; done; wc -l found.tsv "
	   "expected.tsv; "
	   "diff -a expected.tsv found.tsv | cut -c 1-120 | head -30",
	   options.out);
	program_fail("%s: %s is not what was committed at times <= %" PRIu64
		     ": %s; expected.tsv, found.tsv:\n%s",
		     s->id, what, t, words.p, out);
}

void check_content(const struct shard *s, const char *what, uint64_t t, const char *text, size_t len)
{
	struct rows rows = rows_read(what, text, len);

	model_wait(s->m, t == NEVER ? t : t + 1);
	if (!sums_eq(rows.sums, model_at(s->m, t)))
		differs(s, what, t, text, len);
	if (rows.count != 0 && (rows.first != t || rows.last != t || !rows.sorted))
		program_fail("%s: %s: times %" PRIu64 " to %" PRIu64 ", %s", s->id, what, rows.first,
			     rows.last, rows.sorted ? "sorted" : "not sorted");
}

void check_between(const struct shard *s, const char *what, uint64_t lower, uint64_t upper, struct sums found)
{
	struct text words = {0};
	struct sums wanted;

	model_wait(s->m, upper);
	wanted = sums_sub(model_below(s->m, upper), model_below(s->m, lower));
	if (sums_eq(found, wanted))
		return;
	model_explain(s->m, found, wanted, &words);
	program_fail("%s: %s: not what was committed at times from %" PRIu64 " to before %s: %s", s->id, what,
		     lower, frontier_text(upper), words.p);
}

/* --- as_of, snapshot, wait ------------------------------------------------------------------------- */

/* ENODATA is right if since is beyond t now. */
static void want_compacted(const struct shard *s, const char *what, uint64_t t, int e)
{
	uint64_t since = 0;

	if (e == ENODATA && read_frontier(s, "since", &since) == 0 && since > t) {
		counted(N_AS_OF_NODATA, 1);
		return;
	}
	program_fail("%s: %s: %s, since is %s", s->id, what, strerrorname_np(e), frontier_text(since));
}

static void read_as_of(struct worker *w, struct text *text)
{
	uint64_t upper = 0, since = 0, t;
	char name[40];
	int e;

	e = read_frontier(w->s, "since", &since);
	e = e == 0 ? read_frontier(w->s, "upper", &upper) : e;
	if (e != 0)
		program_fail("%s: upper and since: %s", w->s->id, strerrorname_np(e));
	if (upper == NEVER)
		upper = model_last(w->s->m) + 3;
	if (since >= upper)
		return;
	t = since + rng_below(&w->r, upper - since);
	if (rng_below(&w->r, 8) == 0) /* one that waits a little */
		t = upper + rng_below(&w->r, 2);
	snprintf(name, sizeof name, "as_of/%" PRIu64, t);
	e = read_file(at(w->s->dir, name), text);
	if (e == EINTR && atomic_load(&w->s->done))
		return;
	if (e != 0) {
		want_compacted(w->s, name, t, e);
		return;
	}
	check_content(w->s, name, t, text->p, text->len);
	counted(N_AS_OF, 1);
}

static void read_snapshot(struct worker *w, struct text *text)
{
	const char *name = rng_below(&w->r, 2) == 0 ? "snapshot" : "as_of/now";
	uint64_t upper = 0, t;
	int e = read_frontier(w->s, "upper", &upper);

	e = e == 0 ? read_file(at(w->s->dir, name), text) : e;
	if (e == EINTR && atomic_load(&w->s->done))
		return;
	if (e != 0)
		program_fail("%s: %s: %s", w->s->id, name, strerrorname_np(e));
	t = text->len != 0 ? strtoull(text->p, NULL, 10) : upper == NEVER ? NEVER : upper - (upper != 0);
	if (upper != NEVER && upper != 0 && t < upper - 1)
		program_fail("%s: %s is as of %" PRIu64 ", and the upper was %" PRIu64 " before", w->s->id,
			     name, t, upper);
	if (text->len != 0 || upper != 0)
		check_content(w->s, name, t, text->p, text->len);
	counted(N_SNAPSHOT, 1);
}

static void read_wait(struct worker *w, struct text *text)
{
	uint64_t upper = 0, t, got;
	char name[40];
	int e = read_frontier(w->s, "upper", &upper);

	t = upper == NEVER ? rng_below(&w->r, 100) : upper + rng_below(&w->r, 3) - (upper > 1);
	snprintf(name, sizeof name, "wait/%" PRIu64, t);
	e = e == 0 ? read_file(at(w->s->dir, name), text) : e;
	if (e == EINTR && atomic_load(&w->s->done))
		return;
	if (e != 0 || text->len == 0)
		program_fail("%s: %s: %s", w->s->id, name, strerrorname_np(e));
	got = text->p[0] == '-' ? NEVER : strtoull(text->p, NULL, 10);
	if (got <= t || got < upper)
		program_fail("%s: %s said %s, and the upper was %s before", w->s->id, name, text->p,
			     frontier_text(upper));
	counted(N_WAITS, 1);
}

/* --- committed batches ----------------------------------------------------------------------------- */

enum { LISTED_MAX = 20000 };

struct listed {
	uint64_t lower, upper;
};

static int by_lower(const void *a, const void *b)
{
	const struct listed *x = a, *y = b;

	return x->lower != y->lower ? (x->lower > y->lower) - (x->lower < y->lower)
				    : (x->upper > y->upper) - (x->upper < y->upper);
}

/* SIZE_MAX: a restart came between. */
static size_t list_batches(const struct shard *s, struct listed *list)
{
	unsigned mount = mount_up();
	DIR *dir = opendir(at(s->dir, "batches"));
	size_t count = 0;
	struct dirent *e;

	if (dir == NULL && !excused(mount, errno))
		program_fail("%s/batches: %s", s->id, strerrorname_np(errno));
	errno = 0;
	while (dir != NULL && (e = readdir(dir)) != NULL && count < LISTED_MAX) {
		char *end;

		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		list[count].lower = strtoull(e->d_name, &end, 10);
		list[count++].upper = end[1] == '-' ? NEVER : strtoull(end + 1, NULL, 10);
	}
	if (dir != NULL)
		closedir(dir);
	return mount_is(mount) ? count : SIZE_MAX;
}

/* A batch is all that was committed at its times, whatever compaction has made of the times. */
static void read_batch(struct worker *w, struct listed b, struct text *text)
{
	unsigned mount = mount_up();
	struct stat st = {0};
	struct rows rows;
	char name[64];
	int fd, e;

	snprintf(name, sizeof name, "%" PRIu64 "-%s", b.lower, frontier_text(b.upper));
	fd = open(at(at(w->s->dir, "batches"), name), O_RDONLY | O_CLOEXEC);
	e = fd < 0 ? errno : 0;
	if (e == ENOENT) {
		counted(N_BATCH_GONE, 1);
		return;
	}
	text->len = 0;
	if (e == 0 && fstat(fd, &st) != 0)
		e = errno;
	if (e == 0 && rng_below(&w->r, 4) == 0)
		rest_ms(rng_below(&w->r, 300));
	e = e == 0 ? read_all(fd, text, 1 + rng_below(&w->r, 200000)) : e;
	if (fd >= 0)
		close(fd);
	if (e != 0 && excused(mount, e))
		return;
	if (e != 0 || (size_t)st.st_size != text->len)
		program_fail("%s/batches/%s: %s, %zu bytes, size %jd", w->s->id, name, strerrorname_np(e),
			     text->len, (intmax_t)st.st_size);
	rows = rows_read(name, text->p, text->len);
	check_between(w->s, name, b.lower, b.upper, rows.sums);
	if (rows.count != 0 && rows.first < b.lower)
		program_fail("%s/batches/%s: a row at %" PRIu64, w->s->id, name, rows.first);
	counted(N_BATCH, 1);
}

static void read_batches(struct worker *w, struct text *text)
{
	struct listed *list = malloc(LISTED_MAX * sizeof *list);
	size_t count = list_batches(w->s, list);

	/* a copy made by subscribe has times before its first in one batch too */
	if (count != SIZE_MAX && count < LISTED_MAX) {
		qsort(list, count, sizeof *list, by_lower);
		for (size_t i = 0; i < count; i++)
			if (list[i].lower != (i != 0 ? list[i - 1].upper : 0))
				program_fail("%s/batches: %s-%s comes after -%s", w->s->id,
					     frontier_text(list[i].lower), frontier_text(list[i].upper),
					     frontier_text(i != 0 ? list[i - 1].upper : 0));
		for (size_t i = 0, n = count < 6 ? count : 6; i < n; i++)
			read_batch(w, list[rng_below(&w->r, count)], text);
		counted(N_BATCHES, 1);
	}
	free(list);
}

/* --- threads --------------------------------------------------------------------------------------- */

void *reader_main(void *arg)
{
	struct worker *w = arg;
	struct text text = {0};

	while (!atomic_load(&w->s->done)) {
		uint64_t what = rng_below(&w->r, 20);

		if (what < 9)
			read_as_of(w, &text);
		else if (what < 13)
			read_snapshot(w, &text);
		else if (what < 15)
			read_wait(w, &text);
		else if (what < 19)
			read_batches(w, &text);
		else
			look_around(w->s, &w->r);
	}
	text_free(&text);
	return NULL;
}

/* Read on in small pieces, then once more from the beginning. */
static int finish_slowly(int fd, struct text *text, struct text *second)
{
	int e = read_all(fd, text, 8000);

	if (e == 0 && lseek(fd, 0, SEEK_SET) != 0)
		return errno;
	return e == 0 ? read_all(fd, second, 100000) : e;
}

void *slow_main(void *arg)
{
	struct worker *w = arg;
	struct text text = {0}, second = {0};

	while (!atomic_load(&w->s->done)) {
		unsigned mount = mount_up();
		int fd = open(at(w->s->dir, "snapshot"), O_RDONLY | O_CLOEXEC), e = fd < 0 ? errno : 0;
		ssize_t n = -1;

		text.len = second.len = 0;
		text_room(&text, 4096);
		if (e == 0)
			n = read(fd, text.p, 4096);
		if (e == 0 && n < 0)
			e = errno;
		text.len = n > 0 ? (size_t)n : 0;
		for (uint64_t i = 0, rests = 10 + rng_below(&w->r, 300);
		     i < rests && e == 0 && !atomic_load(&w->s->removed); i++)
			rest_ms(50);
		bool after = atomic_load(&w->s->removed);

		e = e == 0 ? finish_slowly(fd, &text, &second) : e;
		if (fd >= 0)
			close(fd);
		if (e != 0 &&
		    (excused(mount, e) || ((e == EINTR || e == ENOENT) && atomic_load(&w->s->done))))
			continue;
		if (e != 0)
			program_fail("%s: a slow snapshot%s: %s", w->s->id, after ? " after rmdir" : "",
				     strerrorname_np(e));
		if (text.len != second.len || memcmp(text.p, second.p, text.len) != 0)
			program_fail("%s: a snapshot read again is another", w->s->id);
		if (text.len != 0)
			check_content(w->s, "a slow snapshot", strtoull(text.p, NULL, 10), text.p, text.len);
		counted(N_SLOW, 1);
		counted(N_SLOW_AFTER, after);
	}
	text_free(&text);
	text_free(&second);
	return NULL;
}
