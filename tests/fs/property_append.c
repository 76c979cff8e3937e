/* property_append.c - the random operations of property.c on `append`: transactions, verdicts, spent
 * descriptors. */
#include "tests/fs/property.h"

#include <inttypes.h>

/* --- descriptors ----------------------------------------------------------------------------------- */

static void drop_txn(struct pm_writer *w)
{
	sh_rows_free(&w->rows);
	w->name_count = 0;
}

static void drop_text(struct pm_writer *w)
{
	free(w->text);
	w->text = NULL;
	w->at = w->line_at = w->line_count = 0;
}

static void drop_verdicts(struct pm_writer *w)
{
	for (size_t i = 0; i < w->verdict_count; i++)
		free(w->verdicts[i]);
	w->verdict_count = 0;
}

static void open_one(struct pm *o, struct pm_writer *w)
{
	static const int flags[] = {0, 0, O_APPEND, O_TRUNC, O_NONBLOCK, O_SYNC};

	*w = (struct pm_writer){.shard = (int)pm_below(o, PM_SHARDS)};
	w->fd = open(at(o->shards[w->shard], "append"), O_RDWR | O_CLOEXEC | flags[pm_below(o, 6)]);
	if (w->fd < 0)
		pm_differs(o, "open of append", strerrorname_np(errno), "no error");
}

static void close_one(struct pm_writer *w)
{
	drop_txn(w);
	drop_text(w);
	drop_verdicts(w);
	close(w->fd);
}

void pm_open_writers(struct pm *o)
{
	for (int i = 0; i < PM_WRITERS; i++)
		open_one(o, &o->writers[i]);
}

void pm_close_writers(struct pm *o)
{
	for (int i = 0; i < PM_WRITERS; i++)
		close_one(&o->writers[i]);
}

/* --- text ------------------------------------------------------------------------------------------ */

static struct sh_ask random_ask(struct pm *o, const struct shadow *m)
{
	struct sh_ask a = {.star = pm_one_in(o, 3)};

	a.idempotent = !a.star && pm_one_in(o, 3);
	a.lower = pm_one_in(o, 6) ? pm_around(o, m->upper) : m->upper;
	a.upper = core_frontier_at((a.lower.empty ? 3 : a.lower.t) +
				   (pm_one_in(o, 10) ? 0 : 1 + pm_below(o, 4)));
	if (pm_one_in(o, 150))
		a.upper = core_frontier_empty();
	if (pm_one_in(o, 30))
		a.upper = pm_around(o, a.upper);
	a.plus = a.star && !pm_one_in(o, 3);
	a.n = 1 + pm_below(o, 3);
	a.rewrite = pm_one_in(o, 10);
	a.rewrite_ts = m->upper.t + pm_below(o, 3);
	if (pm_one_in(o, 3) && a.rewrite_ts >= 2)
		a.rewrite_ts -= 2;
	a.rewrite_star = a.star && !a.rewrite && pm_one_in(o, 4);
	a.has_token = pm_one_in(o, 12);
	a.token = (unsigned)pm_below(o, SH_TOKENS);
	a.has_since = pm_one_in(o, 25);
	a.since = core_frontier_at(pm_below(o, m->upper.t + 3));
	return a;
}

/* Such that the staged batch fits, more often than by chance. */
static void fit(struct pm *o, struct sh_ask *a, const struct sh_batch *b, const struct shadow *m)
{
	if (pm_one_in(o, 4))
		return;
	a->star = a->rewrite = a->plus = a->rewrite_star = a->idempotent = false;
	if (!b->has_bounds) {
		a->star = a->plus = a->rewrite_star = true;
		return;
	}
	a->idempotent = core_frontier_le(b->upper, m->upper) || pm_one_in(o, 3);
	a->lower = a->idempotent ? b->lower : m->upper;
	a->upper = b->upper;
}

static struct pm_line *add_line(struct pm_writer *w, enum pm_kind kind)
{
	struct pm_line *line = &w->lines[w->line_count++];

	*line = (struct pm_line){.kind = kind};
	return line;
}

static size_t print_begin(struct pm_writer *w, const struct sh_ask *ask, char *text, size_t len)
{
	struct sh_ask plain = *ask;
	char words[SH_TEXT];
	struct pm_line *line = add_line(w, PM_BEGIN);

	plain.has_token = false; /* numbers stand for tokens */
	line->ask = *ask;
	len += (size_t)sprintf(text + len, "begin %s", sh_ask_text(&plain, words));
	if (ask->has_token)
		len += (size_t)sprintf(text + len, " token=i00000000-0000-4000-8000-%012x", ask->token);
	len += (size_t)sprintf(text + len, "\n");
	line->end = len;
	return len;
}

static size_t print_names(struct pm *o, struct pm_writer *w, struct sh_ask *ask, char names[2][130])
{
	size_t count = 0;

	for (uint64_t n = pm_one_in(o, 4) ? 1 + pm_below(o, 2) : 0; n > 0; n--) {
		struct sh_staged *s = &o->m[w->shard].staged[pm_below(o, SH_STAGED)];

		for (int i = 0; i < 3 && !s->there; i++)
			s = &o->m[w->shard].staged[pm_below(o, SH_STAGED)];
		if (!s->there && !pm_one_in(o, 8))
			continue;
		if (s->there && count == 0)
			fit(o, ask, &s->now, &o->m[w->shard]);
		memcpy(names[count], "nosuch", 7);
		if (s->there)
			memcpy(names[count], s->name, sizeof s->name);
		count++;
	}
	return count;
}

/* What was done under a token, asked again. */
static size_t print_again(struct pm *o, struct pm_writer *w, char *text, size_t len)
{
	const struct sh_token *token = &o->m[w->shard].tokens[pm_below(o, SH_TOKENS)];

	if (!token->used || token->own > 10 || token->inputs > 3 || token->ask.rewrite)
		return len;
	len = print_begin(w, &token->ask, text, len);
	for (uint64_t i = 0; i < token->own; i++) {
		struct pm_line *line = add_line(w, PM_ROW);

		line->row = (struct sh_row){.star = token->ask.star,
					    .time = token->ask.star ? 0 : token->ask.lower.t};
		len = pm_print_row(&line->row, text, len);
		line->end = len;
	}
	for (size_t i = 0; i < token->inputs; i++) {
		struct pm_line *line = add_line(w, PM_BATCH);

		snprintf(line->name, sizeof line->name, "gone%zu", i);
		len += (size_t)sprintf(text + len, "batch %s\n", line->name);
		line->end = len;
	}
	len += (size_t)sprintf(text + len, "commit\n");
	add_line(w, PM_COMMIT)->end = len;
	return len;
}

static size_t print_txn(struct pm *o, struct pm_writer *w, char *text, size_t len)
{
	const struct shadow *m = &o->m[w->shard];
	struct sh_ask ask = random_ask(o, m);
	char names[2][130];
	size_t name_count = print_names(o, w, &ask, names);

	len = print_begin(w, &ask, text, len);
	for (uint64_t n = pm_below(o, 5); n > 0; n--) {
		struct pm_line *line = add_line(w, PM_ROW);

		line->row = pm_row(o, ask.star || ask.lower.empty ? m->upper.t : ask.lower.t, ask.star);
		len = pm_print_row(&line->row, text, len);
		line->end = len;
	}
	for (size_t i = 0; i < name_count; i++) {
		struct pm_line *line = add_line(w, PM_BATCH);

		memcpy(line->name, names[i], sizeof line->name);
		len += (size_t)sprintf(text + len, "batch %s\n", names[i]);
		line->end = len;
	}
	if (pm_one_in(o, 40)) {
		static const char *const junk[] = {"\n",        "hello\n",      "0 1 a b\n",
						   "batch 7\n", "1\tx\ta\tb\n", "bounds 0 1\n"};

		len += (size_t)sprintf(text + len, "%s", junk[pm_below(o, 6)]);
		add_line(w, PM_JUNK)->end = len;
	}
	len += (size_t)sprintf(text + len, "commit\n");
	add_line(w, PM_COMMIT)->end = len;
	return len;
}

static void new_text(struct pm *o, struct pm_writer *w)
{
	size_t len = 0;

	drop_text(w);
	w->text = malloc(200000);
	if (pm_one_in(o, 40))
		len = print_again(o, w, w->text, len);
	for (uint64_t n = pm_one_in(o, 4) ? 2 : 1; n > 0; n--)
		len = print_txn(o, w, w->text, len);
	w->text[len] = '\0';
}

/* --- what should come of it ------------------------------------------------------------------------ */

static void add_verdict(struct pm *o, struct pm_writer *w, const struct sh_answer *a)
{
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN], *line;

	if (a->rc == KV_OK && a->vague)
		ck_assert(asprintf(&line, "ok lower=%s new_upper=%s seqno=N updates=",
				   core_frontier_format(a->lower, lower),
				   core_frontier_format(a->upper, upper)) > 0);
	else if (a->rc == KV_OK)
		ck_assert(asprintf(&line, "ok lower=%s new_upper=%s seqno=N updates=%" PRIu64 "\n",
				   core_frontier_format(a->lower, lower),
				   core_frontier_format(a->upper, upper), a->updates) > 0);
	else
		ck_assert(asprintf(&line, "error %s errno=%s %s", kv_rc_name(a->rc),
				   strerrorname_np(kv_rc_errno(a->rc)), a->detail) > 0);
	if (w->verdict_count == PM_VERDICTS)
		pm_differs(o, "the test", "too many verdicts", "read them before");
	w->verdicts[w->verdict_count++] = line;
	pm_more(o, " [%.150s]", line);
}

static void commit(struct pm *o, struct pm_writer *w, struct sh_answer *a)
{
	struct shadow *m = &o->m[w->shard];
	struct sh_input in[4] = {{0}};
	unsigned ids[4] = {0};

	for (size_t i = 0; i < w->name_count; i++) {
		struct sh_staged *s = shadow_staged(m, w->names[i]);

		in[i].staged = true;
		if (s == NULL)
			continue;
		ids[i] = s->id;
		in[i].batch = &s->now;
		in[i].unfinished = s->rest[0] != '\0';
	}
	shadow_append(m, &w->ask, &w->rows, in, w->name_count, a);
	for (size_t i = 0; i < w->name_count && a->looked; i++)
		pm_sealed(o, w->shard, ids[i]);
	for (size_t i = 0; i < w->name_count && a->rc == KV_OK && !a->by_token; i++)
		pm_consumed(o, w->shard, ids[i]);
}

static void take_line(struct pm *o, struct pm_writer *w, const struct pm_line *line, struct sh_answer *a)
{
	*a = (struct sh_answer){0};
	switch (line->kind) {
	case PM_BEGIN:
		drop_txn(w);
		w->ask = line->ask;
		shadow_text(&w->ask, &w->rows, a);
		break;
	case PM_ROW:
		sh_rows_add(&w->rows, line->row);
		shadow_text(&w->ask, &w->rows, a);
		break;
	case PM_BATCH:
		for (size_t i = 0; i < w->name_count; i++)
			if (strcmp(w->names[i], line->name) == 0)
				a->rc = KV_BAD_SYNTAX;
		memcpy(w->names[w->name_count++], line->name, sizeof line->name);
		break;
	case PM_COMMIT:
		commit(o, w, a);
		add_verdict(o, w, a);
		drop_txn(w);
		break;
	case PM_JUNK:
		a->rc = KV_BAD_SYNTAX;
		break;
	}
	if (a->rc != KV_OK && line->kind != PM_COMMIT)
		add_verdict(o, w, a);
}

/* What a write of text[at, end) must return. */
static ssize_t expect(struct pm *o, struct pm_writer *w, size_t end)
{
	ssize_t done = 0;
	struct sh_answer a;

	while (w->line_at < w->line_count && w->lines[w->line_at].end <= end) {
		const struct pm_line *line = &w->lines[w->line_at++];

		take_line(o, w, line, &a);
		if (a.rc != KV_OK) {
			w->spent = kv_rc_errno(a.rc);
			drop_txn(w);
			return done != 0 ? done : -w->spent;
		}
		if (line->kind == PM_COMMIT)
			done = (ssize_t)(line->end - w->at);
	}
	return (ssize_t)(end - w->at);
}

/* --- steps ----------------------------------------------------------------------------------------- */

static size_t piece(struct pm *o, const struct pm_writer *w)
{
	size_t left = strlen(w->text) - w->at;

	switch (pm_below(o, 6)) {
	case 0:
		return 1 + pm_below(o, left);
	case 1:
		return 1 + pm_below(o, left < 30 ? left : 30);
	default:
		return left;
	}
}

/* One write. False: it failed, or all is written. */
static bool write_piece(struct pm *o, struct pm_writer *w, size_t len)
{
	bool seek = pm_one_in(o, 5);
	ssize_t want = expect(o, w, w->at + len), got;
	char wants[40], gots[40];

	got = pm_write(o, w->fd, seek, pm_below(o, 1000), w->text + w->at, len);
	snprintf(wants, sizeof wants, "%zd", want);
	snprintf(gots, sizeof gots, "%zd", got);
	pm_same(o, "what a write returns", gots, wants);
	if (got > 0)
		w->at += (size_t)got;
	if (w->spent != 0 || w->text[w->at] == '\0') {
		drop_text(w);
		return false;
	}
	return true;
}

static void write_some(struct pm *o, struct pm_writer *w)
{
	bool bytes = pm_one_in(o, 40);

	if (w->text == NULL)
		new_text(o, w);
	pm_tell(o, "append %td of shard %d: %.300s ...", w - o->writers, w->shard, w->text + w->at);
	while (write_piece(o, w, bytes ? 1 : piece(o, w)))
		if (pm_one_in(o, 10)) { /* the rest another time */
			pm_more(o, " (so far)");
			return;
		}
}

static void read_verdict(struct pm *o, struct pm_writer *w)
{
	const char *want = w->verdict_count != 0 ? w->verdicts[0] : "";
	char *got = verdict(w->fd), *message = strstr(got, "message=");

	pm_tell(o, "verdict of %td", w - o->writers);
	if (strncmp(got, want, strlen(want)) != 0 || (want[0] == '\0' && got[0] != '\0') ||
	    (strncmp(want, "error", 5) == 0 && (message == NULL || got[strlen(got) - 1] != '\n')))
		pm_differs(o, "a verdict", got, want);
	free(got);
	if (w->verdict_count == 0)
		return;
	free(w->verdicts[0]);
	memmove(w->verdicts, w->verdicts + 1, --w->verdict_count * sizeof *w->verdicts);
}

/* Refused for ever, and nothing is done; reading verdicts does not change that. */
static void try_spent(struct pm *o, struct pm_writer *w)
{
	static const char text[] = "begin expected_upper=* new_upper=+1\ncommit\n";

	pm_tell(o, "write to spent %td", w - o->writers);
	pm_errno(o, "write to a spent descriptor", pm_write(o, w->fd, false, 0, text, strlen(text)),
		 w->spent);
}

static void reset(struct pm *o, struct pm_writer *w)
{
	pm_tell(o, "ftruncate of %td", w - o->writers);
	pm_errno(o, "ftruncate", ftruncate(w->fd, 0) < 0 ? -errno : 0, 0);
	drop_txn(w);
	drop_text(w);
	drop_verdicts(w);
	w->spent = 0;
}

void pm_step_append(struct pm *o)
{
	struct pm_writer *w = &o->writers[pm_below(o, PM_WRITERS)];
	uint64_t what = pm_below(o, 100);

	if (w->verdict_count > PM_VERDICTS / 2)
		what = 99;
	if (w->spent != 0 && what < 40)
		try_spent(o, w);
	else if (w->spent != 0 && what < 90)
		reset(o, w);
	else if (what < 75)
		write_some(o, w);
	else if (what < 78)
		reset(o, w);
	else if (what < 81) {
		close_one(w);
		open_one(o, w);
	} else
		for (int i = 0; i < 3; i++)
			read_verdict(o, w);
}
