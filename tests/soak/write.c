/*
 * write.c - writers: blind appends, compare-and-appends, staged batches, tokens again, and one without
 * tokens.
 *
 * A writer has three streams of its own: few rows, some hundred, some ten thousand. A step counts once its
 * transaction is known to be committed, so what is refused is made anew from the same steps at other times.
 */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <uuid/uuid.h>

enum { SMALL, MIDDLE, BIG, KINDS };

struct writer {
	struct shard *s;
	struct rng r;
	unsigned index;
	struct stream streams[KINDS];
	uint64_t next[KINDS];
	struct pen pen;
	struct plan plan;
	struct verdict v;
	unsigned staged; /* names used so far */
	bool committed;  /* pen.tx is what was committed last */
};

/* --- a pen ----------------------------------------------------------------------------------------- */

void pen_close(struct pen *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

/* All of it, now and then cut anywhere. */
static int put_cut(struct pen *p)
{
	const char *at = p->tx.p;
	size_t len = p->tx.len;
	int e = 0;

	if (rng_below(p->r, 10) != 0)
		return put_all(p->fd, at, len);
	while (len != 0 && e == 0) {
		size_t n = 1 + rng_below(p->r, 1 + len / (1 + rng_below(p->r, 8)));

		n = n < len ? n : len;
		e = put_all(p->fd, at, n);
		at += n;
		len -= n;
	}
	return e;
}

static uint64_t frontier_in(const char *line, const char *name)
{
	const char *p = strstr(line, name);

	if (p == NULL)
		program_fail("no %s in the verdict %s", name, line);
	p += strlen(name);
	return *p == '-' ? NEVER : strtoull(p, NULL, 10);
}

/* A descriptor of that mount; 0 or errno. */
static int pen_open(struct pen *p, unsigned mount)
{
	if (p->fd >= 0 && p->mount != mount)
		pen_close(p);
	if (p->fd >= 0)
		return 0;
	p->fd = open(at(p->s->dir, "append"), O_RDWR | O_CLOEXEC);
	if (p->fd < 0)
		return errno;
	p->mount = mount;
	if (mount_is(mount))
		return 0;
	pen_close(p);
	return ENOTCONN;
}

int pen_send(struct pen *p, struct verdict *v, bool *excuse)
{
	unsigned mount = mount_up();
	ssize_t n;
	int e, verdict_e;

	e = p->pinned && mount != p->pinned_to ? ENOTCONN : pen_open(p, mount);
	*excuse = e != 0 && (p->pinned || excused(mount, e));
	if (e != 0)
		return e;
	e = put_cut(p);
	n = read(p->fd, v->line, sizeof v->line - 1);
	verdict_e = n < 0 ? errno : 0;
	e = e == 0 ? verdict_e : e;
	v->line[n > 0 ? n : 0] = '\0';
	if (e == 0) {
		if (strncmp(v->line, "ok ", 3) != 0)
			program_fail("%s: committed, and the verdict is \"%s\"", p->s->id, v->line);
		v->lower = frontier_in(v->line, "lower=");
		v->upper = frontier_in(v->line, "new_upper=");
		v->updates = frontier_in(v->line, "updates=");
		return 0;
	}
	/* A verdict that was refused by the mount's end: what the write said is then asked for again, too. */
	*excuse = excused(mount, e) || (verdict_e != 0 && excused(mount, verdict_e));
	if (*excuse || rng_below(p->r, 2) == 0 || ftruncate(p->fd, 0) != 0)
		pen_close(p);
	return e;
}

int pen_commit(struct pen *p, struct verdict *v)
{
	bool excuse, unknown = false;
	int e;

	while ((e = pen_send(p, v, &excuse)) != 0 && excuse) {
		if (!unknown)
			atomic_fetch_add(&p->s->unresolved, 1);
		unknown = true;
	}
	if (unknown) {
		atomic_fetch_sub(&p->s->unresolved, 1);
		counted(N_UNKNOWN, 1);
	}
	return e;
}

/* --- plans ----------------------------------------------------------------------------------------- */

static bool one_in(struct writer *w, uint64_t n)
{
	return rng_below(&w->r, n) == 0;
}

static int kind_of(struct writer *w)
{
	if (w->s->style == LASTING)
		return one_in(w, 6) ? MIDDLE : SMALL;
	if (w->s->style == LARGE)
		return one_in(w, 8) ? BIG : MIDDLE;
	return one_in(w, 3000) ? BIG : one_in(w, 25) ? MIDDLE : SMALL;
}

static void token(char out[48])
{
	uuid_t u;

	uuid_generate_random(u);
	out[0] = 'i';
	uuid_unparse_lower(u, out + 1);
}

/* Rows of a few steps into text; at `base` and after, or, if blind, all at what `time` says. */
static void plan_steps(struct writer *w, uint64_t base, const char *time, struct text *out)
{
	struct plan *p = &w->plan;
	uint64_t next[KINDS];
	char own[24];

	memcpy(next, w->next, sizeof next);
	p->rows = p->count = 0;
	p->upper = base + 1;
	for (size_t i = 0, n = 1 + rng_below(&w->r, STEPS_MAX - 1); i < n; i++) {
		int kind = kind_of(w);
		struct step *s = &p->steps[p->count++];

		*s = (struct step){.time = base, .stream = w->streams[kind].id, .n = next[kind]++};
		if (time == NULL) {
			s->time = p->upper - 1 + rng_below(&w->r, 2);
			p->upper = s->time + 1;
		}
		snprintf(own, sizeof own, "%" PRIu64, s->time);
		s->delta = stream_step(&w->streams[kind], s->n, time != NULL ? time : own, out, &p->rows);
	}
}

/* Its steps are committed at what the verdict says. */
static void plan_done(struct writer *w)
{
	struct plan *p = &w->plan;

	w->committed = true;
	if (w->v.updates != p->rows || w->v.lower != p->lower || w->v.upper != p->upper)
		program_fail("%s: %" PRIu64 " rows at %" PRIu64 " to %" PRIu64 ", and the verdict is %s",
			     w->s->id, p->rows, p->lower, p->upper, w->v.line);
	for (size_t i = 0; i < p->count; i++)
		for (int k = 0; k < KINDS; k++)
			if (w->streams[k].id == p->steps[i].stream)
				w->next[k] = p->steps[i].n + 1;
	model_add(w->s->m, p->lower, p->upper, p->steps, p->count);
	counted(N_ROWS, p->rows);
	counted(N_LARGE, p->rows > 50000);
}

/* For a blind one: where it went, the verdict tells. */
static void plan_place(struct writer *w, uint64_t advance)
{
	w->plan.lower = w->v.lower;
	w->plan.upper = w->v.lower + advance;
	for (size_t i = 0; i < w->plan.count; i++)
		w->plan.steps[i].time = w->v.lower;
}

static void want_ok(struct writer *w, const char *what, int e)
{
	if (e != 0)
		program_fail("%s: %s: %s: %s", w->s->id, what, strerrorname_np(e), w->v.line);
}

/* --- tokens again ---------------------------------------------------------------------------------- */

/* What was committed under this token is said again, and is not done again; with other rows it is refused. */
static void again(struct writer *w)
{
	struct verdict before = w->v;
	struct text *tx = &w->pen.tx;
	bool other = one_in(w, 5) && memmem(tx->p, tx->len, "\nbatch ", 7) == NULL;
	const char *commit = "commit\n";
	int e;

	if (other) { /* the same again, with one row more */
		size_t len = strlen(commit);
		char row[64];

		tx->len -= len;
		snprintf(row, sizeof row, "%" PRIu64 "\t1\tother\t\n", before.lower);
		text_add(tx, "%s%s",
			 tx->len != 0 && memcmp(tx->p, "begin expected_upper=*", 22) == 0 ? "*\t1\tother\t\n"
											  : row,
			 commit);
	}
	/* Others wait: they must not use up what is remembered of tokens. */
	atomic_fetch_add(&w->s->unresolved, 1);
	e = pen_commit(&w->pen, &w->v);
	atomic_fetch_sub(&w->s->unresolved, 1);
	if (other) {
		if (e != EINVAL)
			program_fail("%s: a token with other rows: %s, not EINVAL: %s", w->s->id,
				     strerrorname_np(e), w->v.line);
		counted(N_REUSED, 1);
		return;
	}
	want_ok(w, "the same token again", e);
	if (w->v.lower != before.lower || w->v.upper != before.upper || w->v.updates != before.updates)
		program_fail("%s: the same token again: %sbefore: %s", w->s->id, w->v.line, before.line);
	counted(N_AGAIN, 1);
}

/* --- ways to write --------------------------------------------------------------------------------- */

static void write_blind(struct writer *w)
{
	uint64_t advance = 1 + rng_below(&w->r, 3);

	w->pen.tx.len = 0;
	token(w->plan.token);
	text_add(&w->pen.tx, "begin expected_upper=* new_upper=+%" PRIu64 " token=%s\n", advance,
		 w->plan.token);
	plan_steps(w, 0, "*", &w->pen.tx);
	text_add(&w->pen.tx, "commit\n");
	want_ok(w, "a blind append", pen_commit(&w->pen, &w->v));
	plan_place(w, advance);
	plan_done(w);
	counted(N_BLIND, 1);
}

static bool upper_of(struct writer *w, uint64_t *upper)
{
	int e = read_frontier(w->s, "upper", upper);

	if (e != 0)
		program_fail("%s: upper: %s", w->s->id, strerrorname_np(e));
	return *upper != NEVER;
}

/* Another one was faster: the upper must be another than expected. */
static void want_lost(struct writer *w, int e, uint64_t expected)
{
	if (e != ESTALE || strstr(w->v.line, "error UpperMismatch errno=ESTALE") == NULL ||
	    frontier_in(w->v.line, "current_upper=") == expected)
		program_fail("%s: a compare-and-append at %" PRIu64 ": %s: %s", w->s->id, expected,
			     strerrorname_np(e), w->v.line);
	counted(N_CAS_LOST, 1);
}

static void write_cas(struct writer *w)
{
	struct plan *p = &w->plan;
	struct text rows = {0};
	int e;

	if (!upper_of(w, &p->lower))
		return;
	w->pen.tx.len = 0;
	token(p->token);
	plan_steps(w, p->lower, NULL, &rows);
	text_add(&w->pen.tx, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 " token=%s\n", p->lower,
		 p->upper, p->token);
	text_room(&w->pen.tx, rows.len);
	memcpy(w->pen.tx.p + w->pen.tx.len, rows.p, rows.len);
	w->pen.tx.len += rows.len;
	text_free(&rows);
	text_add(&w->pen.tx, "commit\n");
	e = pen_commit(&w->pen, &w->v);
	if (e != 0) {
		want_lost(w, e, p->lower);
		return;
	}
	plan_done(w);
	counted(N_CAS, 1);
}

/* The upper tells what became of it, since nobody else writes. */
static void write_solo(struct writer *w)
{
	struct plan *p = &w->plan;
	struct text rows = {0};
	uint64_t upper;
	bool excuse;
	int e;

	if (!upper_of(w, &p->lower))
		return;
	plan_steps(w, p->lower, NULL, &rows);
	w->pen.tx.len = 0;
	text_add(&w->pen.tx, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", p->lower, p->upper);
	text_room(&w->pen.tx, rows.len);
	memcpy(w->pen.tx.p + w->pen.tx.len, rows.p, rows.len);
	w->pen.tx.len += rows.len;
	text_free(&rows);
	text_add(&w->pen.tx, "commit\n");
	e = pen_send(&w->pen, &w->v, &excuse);
	if (e != 0 && excuse) {
		upper_of(w, &upper);
		counted(N_UNKNOWN, 1);
		if (upper == p->lower)
			return;
		w->v = (struct verdict){.lower = p->lower, .upper = upper, .updates = p->rows};
		e = 0;
	}
	want_ok(w, "a compare-and-append of one alone", e);
	plan_done(w);
	counted(N_SOLO, 1);
}

/* --- staged ---------------------------------------------------------------------------------------- */

bool stage(const struct shard *s, const char *name, const struct text *text, bool sync)
{
	unsigned mount = mount_up();
	int fd = open(at(at(s->dir, "batches"), name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int e = fd < 0 ? errno : put_all(fd, text->p, text->len);

	if (e == 0 && sync && fsync(fd) != 0)
		e = errno;
	if (fd >= 0)
		close(fd);
	if (e == 0)
		return true;
	/* rm -rf may have taken it away, or be about to look at what is not there any more */
	if (!excused(mount, e) && s->style != SOLO)
		program_fail("%s: staging %s: %s", s->id, name, strerrorname_np(e));
	unlink(at(at(s->dir, "batches"), name));
	counted(N_STAGED_GONE, 1);
	return false;
}

/* The commit of a staged batch; ENOENT: the batch is not there any more, and nothing was done. */
static int commit_staged(struct writer *w, const char *name, bool sync, unsigned mount)
{
	struct pen *pen = &w->pen;
	bool excuse;
	int e;

	/* Without fsync a restart may take the end of it, so only the mount that has it may be asked. */
	pen->pinned = !sync;
	pen->pinned_to = mount;
	e = pen_send(pen, &w->v, &excuse);
	pen->pinned = false;
	if (e == 0 || !excuse)
		return e;
	atomic_fetch_add(&w->s->unresolved, 1);
	do /* then the token says what was done, or there is none */
		mount = mount_up();
	while (!sync && unlink(at(at(w->s->dir, "batches"), name)) != 0 && !mount_is(mount));
	e = pen_commit(pen, &w->v);
	atomic_fetch_sub(&w->s->unresolved, 1);
	counted(N_UNKNOWN, 1);
	if (e == ENOENT && !sync)
		counted(N_STAGED_GONE, 1);
	return e == ENOENT && sync && w->s->style != SOLO ? ENODATA : e;
}

/* Rows with times 0, which rewrite_ts lifts; by compare-and-append until nobody is faster, or blind. */
static void write_staged(struct writer *w)
{
	bool sync = one_in(w, 2), blind = one_in(w, 2);
	struct text rows = {0};
	unsigned mount;
	char name[64];
	int e;

	snprintf(name, sizeof name, "w%u.%u", w->index, w->staged++);
	plan_steps(w, 0, "0", &rows);
	do
		mount = mount_up();
	while (!stage(w->s, name, &rows, sync) || !mount_is(mount));
	text_free(&rows);
	do {
		token(w->plan.token);
		w->pen.tx.len = 0;
		if (!upper_of(w, &w->plan.lower))
			return;
		if (blind)
			text_add(&w->pen.tx, "begin expected_upper=* new_upper=+1 rewrite_ts=*");
		else
			text_add(&w->pen.tx,
				 "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 " rewrite_ts=%" PRIu64,
				 w->plan.lower, w->plan.lower + 1, w->plan.lower);
		text_add(&w->pen.tx, " token=%s\nbatch %s\ncommit\n", w->plan.token, name);
		e = commit_staged(w, name, sync, mount);
		if (e == ESTALE && !blind)
			want_lost(w, e, w->plan.lower);
	} while (e == ESTALE && !blind);
	if (e == ENOENT && (!sync || w->s->style == SOLO))
		return;
	want_ok(w, "a commit of a staged batch", e);
	plan_place(w, 1);
	plan_done(w);
	counted(N_STAGED, 1);
}

/* --- all of it ------------------------------------------------------------------------------------- */

static void writer_begin(struct writer *w)
{
	static const struct stream kinds[KINDS] = {[SMALL] = {.blocks = 60, .rows = 7, .val = 60},
						   [MIDDLE] = {.blocks = 8, .rows = 300, .val = 120},
						   [BIG] = {.blocks = 1, .rows = 5000, .val = 30}};

	for (int k = 0; k < KINDS; k++) {
		w->streams[k] = kinds[k];
		w->streams[k].id = w->index * KINDS + (unsigned)k;
		if (k == BIG && w->s->style == LARGE) /* with what it retracts, above 100,000 rows */
			w->streams[k].rows = 52000 + (unsigned)rng_below(&w->r, 20000);
		if (k == SMALL && w->s->style == SOLO)
			w->streams[k].val = 90000;
		if (k == MIDDLE && w->s->style == LASTING)
			w->streams[k] = (struct stream){
				.id = w->streams[k].id, .blocks = 40, .rows = 5000, .val = 400};
		model_stream(w->s->m, w->streams[k]);
	}
}

static void write_one(struct writer *w)
{
	uint64_t what = rng_below(&w->r, 100);

	if (w->s->style == SOLO) {
		what < 90 ? write_solo(w) : write_staged(w);
		return;
	}
	if (what < (w->s->style == LARGE ? 40 : 5)) {
		write_staged(w);
		return;
	}
	/* one of three writers compares; more would mostly lose */
	if (w->index == 0 ? what < 80 : what < 10)
		write_cas(w);
	else
		write_blind(w);
}

void *writer_main(void *arg)
{
	struct worker *job = arg;
	struct writer *w = calloc(1, sizeof *w);

	*w = (struct writer){.s = job->s, .r = job->r, .index = job->index};
	w->pen = (struct pen){.s = w->s, .r = &w->r, .fd = -1};
	writer_begin(w);
	while (!atomic_load(&w->s->stop)) {
		while (atomic_load(&w->s->unresolved) != 0)
			rest_ms(1);
		w->committed = false;
		write_one(w);
		if (w->committed && w->s->style != SOLO && one_in(w, 40))
			again(w);
		if (one_in(w, 200))
			pen_close(&w->pen);
		if (w->s->style == LARGE || w->s->style == LASTING)
			rest_ms(rng_below(&w->r, w->s->style == LARGE ? 300 : 150));
	}
	pen_close(&w->pen);
	text_free(&w->pen.tx);
	free(w);
	return NULL;
}
