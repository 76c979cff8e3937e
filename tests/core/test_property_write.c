/*
 * test_property_write.c - the random operations of test_property.c that append rows and staged batches by
 * name, and the writers that do it.
 */
#include "tests/core/property.h"

#include <inttypes.h>

/* --- writers --------------------------------------------------------------------------------------- */

static void open_writer(struct round *o, int i)
{
	struct pr_writer *w = &o->writers[i];
	struct kv_err err;

	w->handle = i % PR_HANDLES;
	snprintf(w->purpose, sizeof w->purpose, "writer %d", i);
	works(o, "open a writer", core_writer_open(o->handles[w->handle], w->purpose, &w->w, &err), &err);
	w->met = core_writer_upper(w->w);
}

void open_writers(struct round *o)
{
	for (int i = 0; i < PR_WRITERS; i++)
		open_writer(o, i);
}

static void strike(struct round *o, struct core_uuid id)
{
	for (size_t i = 0; i < o->registered_count; i++)
		if (core_uuid_eq(o->registered[i].id, id))
			o->registered[i] = o->registered[--o->registered_count];
}

static void close_writer(struct round *o, int i, bool crashed)
{
	if (!crashed)
		strike(o, core_writer_id(o->writers[i].w));
	core_writer_close(o->writers[i].w);
	o->writers[i].w = NULL;
}

void close_writers(struct round *o, bool crashed)
{
	for (int i = 0; i < PR_WRITERS; i++)
		close_writer(o, i, crashed);
}

static void registered(struct round *o, struct core_uuid id, const char *purpose)
{
	struct pr_registered *r = o->registered;

	while (r < o->registered + o->registered_count && !core_uuid_eq(r->id, id))
		r++;
	ck_assert(r < o->registered + PR_REGISTERED);
	if (r == o->registered + o->registered_count) {
		o->registered_count++;
		*r = (struct pr_registered){.id = id, .purpose = purpose};
	}
	r->last = o->m.upper;
}

void compare_writers(struct round *o)
{
	struct core_writer_state *got;
	int handle = any_handle(o);
	struct kv_err err;
	char a[CORE_FRONTIER_LEN], b[CORE_FRONTIER_LEN];
	size_t count, found = 0;

	freshen(o, handle);
	works(o, "writers", core_shard_writers(o->handles[handle], &got, &count, &err), &err);
	for (size_t i = 0; i < o->registered_count; i++)
		for (size_t j = 0; j < count; j++) {
			if (!core_uuid_eq(o->registered[i].id, got[j].id))
				continue;
			found++;
			compare(o, "the last upper of a writer", core_frontier_format(got[j].last_upper, a),
				core_frontier_format(o->registered[i].last, b));
			if (o->registered[i].purpose != NULL)
				compare(o, "the purpose of a writer", got[j].purpose,
					o->registered[i].purpose);
		}
	free(got);
	snprintf(a, sizeof a, "%zu of %zu", found, count);
	snprintf(b, sizeof b, "%zu of %zu", o->registered_count, o->registered_count);
	compare(o, "writers", a, b);
}

void pr_check_met(struct round *o, struct pr_writer *w, bool now)
{
	struct core_frontier upper = core_writer_upper(w->w);

	if (core_frontier_lt(o->m.upper, upper) || core_frontier_lt(upper, w->met) ||
	    (now && !core_frontier_eq(upper, o->m.upper)))
		differs(o, "the upper that a writer has met", "another",
			"between what it met and the shard's");
	w->met = upper;
}

void step_writer(struct round *o)
{
	int i = (int)below(o, PR_WRITERS);
	struct pr_writer *w = &o->writers[i];
	struct core_frontier f = around(o, o->m.upper), upper = {0};
	struct kv_err err;

	switch (below(o, 5)) {
	case 0:
		tell(o, "expire writer %d", i);
		works(o, "expire", core_writer_expire(w->w, &err), &err);
		strike(o, core_writer_id(w->w));
		break;
	case 1:
		tell(o, "writer %d again", i);
		close_writer(o, i, false);
		open_writer(o, i);
		break;
	case 2:
		works(o, "shared upper", core_writer_shared_upper(w->w, &upper, &err), &err);
		if (core_frontier_lt(o->m.upper, upper) || core_frontier_lt(upper, w->met) ||
		    (o->engines[1] == NULL && !core_frontier_eq(upper, o->m.upper)))
			differs(o, "shared upper", "another", "the shard's, or a little behind");
		break;
	case 3:
		works(o, "recent upper", core_writer_fetch_recent_upper(w->w, &upper, &err), &err);
		if (!core_frontier_eq(upper, o->m.upper))
			differs(o, "recent upper", "another", "the shard's");
		pr_check_met(o, w, true);
		break;
	default:
		tell(o, "writer %d waits", i);
		freshen(o, w->handle);
		want_rc(o, "wait for the upper", core_writer_wait_for_upper_past(w->w, f, 0, &err), &err,
			f.empty                           ? KV_BAD_BOUNDS
			: core_frontier_lt(f, o->m.upper) ? KV_OK
							  : KV_WOULD_BLOCK);
		break;
	}
}

/* --- what is asked --------------------------------------------------------------------------------- */

struct sh_ask pr_random_ask(struct round *o)
{
	struct sh_ask a = {.star = one_in(o, 3)};

	a.idempotent = !a.star && one_in(o, 3);
	a.lower = one_in(o, 5) ? around(o, o->m.upper) : o->m.upper;
	a.upper = core_frontier_at((a.lower.empty ? 3 : a.lower.t) + (one_in(o, 10) ? 0 : 1 + below(o, 4)));
	if (one_in(o, 300))
		a.upper = core_frontier_empty();
	if (one_in(o, 30))
		a.upper = around(o, a.upper);
	a.plus = a.star && !one_in(o, 3);
	a.n = 1 + below(o, 3);
	a.rewrite = one_in(o, 10);
	a.rewrite_ts = o->m.upper.t + below(o, 3);
	if (one_in(o, 3) && a.rewrite_ts >= 2)
		a.rewrite_ts -= 2;
	a.rewrite_star = a.star && !a.rewrite && one_in(o, 4);
	a.has_token = one_in(o, 15);
	a.token = (unsigned)below(o, SH_TOKENS);
	a.has_since = one_in(o, 25);
	a.since = core_frontier_at(below(o, o->m.upper.t + 3));
	if (a.has_since && a.upper.empty && one_in(o, 3))
		a.since = core_frontier_empty();
	return a;
}

/* Such that the batch fits, more often than by chance. */
void pr_fit(struct round *o, struct sh_ask *a, const struct sh_batch *b)
{
	bool stale = core_frontier_le(b->upper, o->m.upper);

	if (one_in(o, 4))
		return;
	a->star = a->plus = a->rewrite_star = false;
	a->rewrite = one_in(o, b->has_rewrite ? 3 : 10);
	if (a->rewrite && one_in(o, 2))
		a->rewrite_ts = o->m.upper.t;
	if (!b->has_bounds) { /* all is lifted to the upper */
		a->idempotent = a->rewrite = false;
		a->star = a->plus = a->rewrite_star = true;
		return;
	}
	a->idempotent = stale || one_in(o, 3);
	a->lower = a->idempotent && one_in(o, 2) ? b->lower : o->m.upper;
	if (stale && core_frontier_lt(b->lower, o->m.upper))
		a->lower = b->lower;
	a->upper = b->upper;
	if (!a->upper.empty && a->upper.t > 0 && one_in(o, 8))
		a->upper.t--;
}

struct core_append pr_append_of(const struct sh_ask *a)
{
	return (struct core_append){
		.idempotent = a->idempotent,
		.lower_star = a->star,
		.upper_plus = a->plus,
		.rewrite_star = a->rewrite_star,
		.has_rewrite = a->rewrite,
		.has_token = a->has_token,
		.has_since = a->has_since,
		.lower = a->star ? core_frontier_at(0) : a->lower,
		.upper = a->plus ? core_frontier_at(0) : a->upper,
		.plus = a->plus ? a->n : 0,
		.rewrite_ts = a->rewrite ? a->rewrite_ts : 0,
		.token = token_of(a->token),
		.since = a->since,
	};
}

void pr_answer_of(enum kv_rc rc, const struct core_appended *r, const struct kv_err *err, struct sh_answer *a)
{
	*a = (struct sh_answer){.rc = rc};
	if (rc == KV_OK)
		*a = (struct sh_answer){
			.same = !r->committed, .lower = r->lower, .upper = r->upper, .updates = r->updates};
	else
		snprintf(a->detail, sizeof a->detail, "%s", err->detail);
}

void pr_compare_answers(struct round *o, const char *what, struct sh_answer *got,
			const struct sh_answer *want)
{
	char g[SH_TEXT], w[SH_TEXT];

	if (want->rc != KV_OK && want->detail[0] == '\0') /* the contract does not say */
		got->detail[0] = '\0';
	tell_more(o, " -> %s", sh_answer_text(got, g));
	compare(o, what, g, sh_answer_text(want, w));
}

struct sh_rows pr_random_rows(struct round *o, uint64_t base, bool star, unsigned most)
{
	struct sh_rows rows = {0};

	for (uint64_t n = below(o, most + 1); n > 0; n--)
		sh_rows_add(&rows, random_row(o, base, star));
	return rows;
}

void pr_tell_rows(struct round *o, const struct sh_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++) {
		const struct sh_row *r = &rows->r[i];

		if (r->star)
			tell_more(o, " * %" PRId64 " #%u;", r->diff, r->kind);
		else
			tell_more(o, " %" PRIu64 " %" PRId64 " #%u;", r->time, r->diff, r->kind);
	}
}

/* Now and then the store fails once, or does not say what it did: which the engine finds out. */
void pr_arm(struct round *o)
{
	static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
					      KV_FAULT_LOST_UNKNOWN};
	unsigned nth = 1 + (unsigned)below(o, 3);
	enum kv_fault kind = kinds[below(o, sizeof kinds / sizeof kinds[0])];

	if (o->rig.disk->faults == NULL || !one_in(o, 15))
		return;
	tell_more(o, " [call %u fails, %d]", nth, (int)kind);
	kv_faults_arm(o->rig.disk->faults, nth, kind, false);
}

/* Whether it failed by that: then nothing was done. */
bool pr_failed(struct round *o, enum kv_rc rc)
{
	bool fired = o->rig.disk->faults != NULL && kv_faults_fired(o->rig.disk->faults);

	disk_heal(o->rig.disk);
	if (!fired || (rc != KV_UNREACHABLE && rc != KV_NOSPACE))
		return false;
	tell_more(o, " -> %s", kv_rc_name(rc));
	return true;
}

/* --- appends of rows and names --------------------------------------------------------------------- */

struct one_append {
	struct sh_ask ask;
	struct sh_rows rows;
	const char *names[3];
	size_t name_count;
	int writer; /* or PR_WRITERS: the engine's own */
	int handle;
	bool committed; /* it came to that */
};

static enum kv_rc run_append(struct round *o, struct one_append *a, struct core_appended *r,
			     struct kv_err *err)
{
	struct core_append ask = pr_append_of(&a->ask);
	struct core_txn *t = NULL;
	enum kv_rc rc;

	*r = (struct core_appended){0};
	rc = a->writer < PR_WRITERS ? core_writer_begin(o->writers[a->writer].w, &ask, &t, err)
				    : core_txn_begin(o->handles[a->handle], &ask, &t, err);
	for (size_t i = 0; i < a->rows.count && rc == KV_OK; i++) {
		struct core_row row = {.update = update_of(&a->rows.r[i]), .star = a->rows.r[i].star};

		rc = core_txn_add(t, &row, err);
	}
	for (size_t i = 0; i < a->name_count && rc == KV_OK; i++)
		rc = core_txn_add_staged(t, a->names[i], err);
	a->committed = rc == KV_OK && !one_in(o, 60);
	if (a->committed)
		rc = core_txn_commit(t, r, err);
	core_txn_free(t);
	return rc;
}

/* A name given twice: refused, and nothing else happens. */
static bool is_twice(const struct one_append *a)
{
	return a->name_count >= 2 && strcmp(a->names[0], a->names[1]) == 0;
}

static struct core_uuid writer_id(struct round *o, int writer, int handle)
{
	return writer < PR_WRITERS ? core_writer_id(o->writers[writer].w)
				   : o->handles[handle]->engine->writer.id;
}

/* What came of an append for its writer. */
void pr_note_writer(struct round *o, int writer, int handle, const struct sh_answer *a, bool consumed)
{
	if (a->rc == KV_OK && !a->by_token && (!a->same || consumed))
		registered(o, writer_id(o, writer, handle),
			   writer < PR_WRITERS ? o->writers[writer].purpose : NULL);
	if (writer < PR_WRITERS)
		pr_check_met(o, &o->writers[writer],
			     (a->rc == KV_OK && !a->by_token) || a->rc == KV_UPPER_MISMATCH);
}

static void judge_append(struct round *o, struct one_append *a, struct sh_answer *got)
{
	struct sh_input in[3] = {{0}};
	struct sh_answer want;
	unsigned ids[3] = {0};

	for (size_t i = 0; i < a->name_count; i++) {
		struct sh_staged *s = shadow_staged(&o->m, a->names[i]);

		in[i] = (struct sh_input){.staged = true};
		if (s == NULL)
			continue;
		ids[i] = s->id;
		in[i].batch = &s->now;
		in[i].unfinished = s->rest[0] != '\0';
	}
	shadow_append(&o->m, &a->ask, &a->rows, in, a->name_count, &want);
	for (size_t i = 0; i < a->name_count && want.looked; i++)
		staged_sealed(o, ids[i]);
	pr_compare_answers(o, "append", got, &want);
	for (size_t i = 0; i < a->name_count && want.rc == KV_OK && !want.by_token; i++)
		staged_consumed(o, ids[i]);
	pr_note_writer(o, a->writer, a->handle, &want, a->name_count != 0);
}

/* What was done under a token, asked again: with as many rows, and as many batches of whatever name. */
static void ask_again(struct round *o, struct one_append *a)
{
	static const char *const gone[3] = {"gone1", "gone2", "gone3"};
	const struct sh_token *token = &o->m.tokens[below(o, SH_TOKENS)];
	uint64_t time = token->ask.star || token->ask.lower.empty ? 0 : token->ask.lower.t;

	if (!token->used || token->own > 10 || token->inputs > 3 || token->ask.rewrite)
		return;
	a->ask = token->ask;
	sh_rows_free(&a->rows);
	for (uint64_t i = 0; i < token->own; i++)
		sh_rows_add(&a->rows, (struct sh_row){.time = time, .star = token->ask.star});
	a->name_count = token->inputs;
	memcpy(a->names, gone, sizeof gone);
}

void step_append(struct round *o)
{
	struct one_append a = {
		.ask = pr_random_ask(o), .writer = (int)below(o, PR_WRITERS + 2), .handle = any_handle(o)};
	struct core_appended r;
	struct sh_answer got;
	char text[SH_TEXT];
	struct kv_err err;
	bool twice;
	enum kv_rc rc;

	if (a.writer < PR_WRITERS)
		a.handle = o->writers[a.writer].handle;
	if (one_in(o, 4))
		name_staged(o, a.handle, a.names, &a.name_count);
	if (a.name_count != 0 && shadow_staged(&o->m, a.names[0]) != NULL)
		pr_fit(o, &a.ask, &shadow_staged(&o->m, a.names[0])->now);
	a.rows = pr_random_rows(o, a.ask.star || a.ask.lower.empty ? o->m.upper.t : a.ask.lower.t, a.ask.star,
				4);
	if (one_in(o, 40))
		ask_again(o, &a);
	tell(o, "%s |", sh_ask_text(&a.ask, text));
	pr_tell_rows(o, &a.rows);
	for (size_t i = 0; i < a.name_count; i++)
		tell_more(o, " batch %s;", a.names[i]);
	twice = is_twice(&a);
	if (a.name_count == 0)
		pr_arm(o);
	rc = run_append(o, &a, &r, &err);
	if (pr_failed(o, rc)) {
		sh_rows_free(&a.rows);
		return;
	}
	if (twice && rc == KV_OK)
		differs(o, "a batch named twice", "Ok", "BadSyntax");
	pr_answer_of(rc, &r, &err, &got);
	if (rc == KV_OK && !a.committed)
		tell_more(o, " -> dropped");
	else if (!a.committed && twice)
		tell_more(o, " -> %s", kv_rc_name(rc));
	else
		judge_append(o, &a, &got);
	sh_rows_free(&a.rows);
}
