/*
 * test_property_built.c - the random operations of test_property.c on batches that are built ahead: building,
 * rewriting, appending one or several, transmitting.
 */
#include "tests/core/property.h"

#include <inttypes.h>

/* --- batches built ahead --------------------------------------------------------------------------- */

static void drop_one_built(struct pr_built *b)
{
	core_built_free(b->b);
	sh_batch_free(&b->m);
	*b = (struct pr_built){0};
}

void drop_built(struct round *o)
{
	for (int i = 0; i < PR_BUILT; i++)
		drop_one_built(&o->built[i]);
}

static struct pr_built *find_built(struct round *o, bool used)
{
	for (uint64_t i = 0, from = below(o, PR_BUILT); i < PR_BUILT; i++)
		if ((o->built[(from + i) % PR_BUILT].b != NULL) == used)
			return &o->built[(from + i) % PR_BUILT];
	return NULL;
}

static void check_built(struct round *o, const struct pr_built *b)
{
	if (!core_frontier_eq(core_built_lower(b->b), b->m.lower) ||
	    !core_frontier_eq(core_built_upper(b->b), b->m.upper) || core_built_rows(b->b) != b->m.rows.count)
		differs(o, "bounds and rows of a built batch", "others", "as built");
}

/* Rows one by one; *most: the greatest time, of those that count, plus 1. */
static void add_to_builder(struct round *o, struct core_batch_builder *builder, struct pr_built *b,
			   uint64_t *most)
{
	struct sh_rows rows = pr_random_rows(o, b->m.lower.t, false, 5);
	struct kv_err err;

	pr_tell_rows(o, &rows);
	for (size_t i = 0; i < rows.count; i++) {
		struct sh_row row = rows.r[i];
		struct core_update u = update_of(&row);
		bool in = row.time >= b->m.lower.t;

		want_rc(o, "add to a builder", core_batch_builder_add(builder, &u, &err), &err,
			in ? KV_OK : KV_NOT_BEYOND_LOWER);
		row.star = false;
		if (in)
			sh_rows_add(&b->m.rows, row);
		if (in && row.diff != 0 && row.time + 1 > *most)
			*most = row.time + 1;
	}
	sh_rows_free(&rows);
}

static void open_other(struct round *o)
{
	struct core_shard_id id = {.u = core_uuid_new()};
	struct kv_err err;

	works(o, "make another", core_shard_create(o->engines[0], id, any_owner, &err), &err);
	works(o, "open another", core_shard_open(o->engines[0], id, &o->other, &err), &err);
}

static void build(struct round *o)
{
	struct pr_built *b = find_built(o, false);
	struct core_writer *w = o->writers[below(o, PR_WRITERS)].w, *foreign = NULL;
	struct core_batch_builder *builder;
	struct core_built *made = NULL;
	struct kv_err err;
	uint64_t most = 0;
	enum kv_rc want = KV_OK;

	if (b == NULL)
		return;
	b->m = (struct sh_batch){.has_bounds = true,
				 .lower = one_in(o, 3) ? around(o, o->m.upper) : o->m.upper};
	b->m.lower.empty = false;
	b->m.upper = core_frontier_at(b->m.lower.t + (one_in(o, 20) ? 0 : 1 + below(o, 5)));
	b->m.upper = one_in(o, 40)    ? around(o, b->m.upper)
		     : one_in(o, 100) ? core_frontier_empty()
				      : b->m.upper;
	b->foreign = one_in(o, 40);
	tell(o, "build %td [%" PRIu64 ", %" PRIu64 ")%s", b - o->built, b->m.lower.t, b->m.upper.t,
	     b->foreign ? " elsewhere" : "");
	if (b->foreign && o->other == NULL)
		open_other(o);
	if (b->foreign)
		works(o, "a writer", core_writer_open(o->other, NULL, &foreign, &err), &err);
	works(o, "builder", core_writer_builder(b->foreign ? foreign : w, b->m.lower, &builder, &err), &err);
	add_to_builder(o, builder, b, &most);
	if (core_frontier_lt(b->m.upper, b->m.lower))
		want = KV_BAD_BOUNDS;
	else if (!b->m.upper.empty && most > b->m.upper.t)
		want = KV_BEYOND_UPPER;
	if (!one_in(o, 30))
		want_rc(o, "finish", core_batch_builder_finish(builder, b->m.upper, &made, &err), &err, want);
	core_batch_builder_free(builder);
	b->b = made;
	if (made != NULL)
		check_built(o, b);
	else
		drop_one_built(b);
	core_writer_close(foreign);
}

static void rewrite(struct round *o)
{
	struct pr_built *b = find_built(o, true);
	struct core_frontier upper;
	struct kv_err err;
	uint64_t ts;
	bool right;

	if (b == NULL || b->received)
		return;
	ts = b->m.lower.t + below(o, 5) - (one_in(o, 6) && b->m.lower.t > 0);
	upper = one_in(o, 5) ? around(o, b->m.upper) : b->m.upper;
	if (!upper.empty && one_in(o, 2))
		upper.t += below(o, 3);
	right = core_frontier_covers(b->m.lower, ts) && !core_frontier_covers(upper, ts) &&
		!core_frontier_lt(upper, b->m.upper) && (!b->m.has_rewrite || ts >= b->m.rewrite_ts);
	tell(o, "rewrite %td to %" PRIu64 " below %" PRIu64, b - o->built, ts, upper.t);
	want_rc(o, "rewrite", core_built_rewrite_ts(b->b, ts, upper, &err), &err,
		right ? KV_OK : KV_BAD_REWRITE);
	if (right) {
		b->m.has_rewrite = true;
		b->m.rewrite_ts = ts;
		b->m.upper = upper;
	}
	check_built(o, b);
}

/* --- several in one append ------------------------------------------------------------------------- */

struct one_commit {
	struct sh_ask ask;
	struct pr_built *b[3];
	struct core_built *raw[3];
	size_t count;
	struct pr_writer *w;
	bool plain; /* by the call without options */
};

static void choose_batches(struct round *o, struct one_commit *c)
{
	for (uint64_t n = one_in(o, 2) ? 1 : 1 + below(o, 3); n > 0; n--) {
		struct pr_built *b = find_built(o, true);

		if (b != NULL && core_frontier_le(b->m.upper, o->m.upper) && !one_in(o, 4))
			b = find_built(o, true); /* one that is not old is more to the point */

		for (size_t i = 0; i < c->count; i++)
			b = b == c->b[i] ? NULL : b;
		if (b == NULL)
			continue;
		c->raw[c->count] = b->b;
		c->b[c->count++] = b;
	}
}

static bool same_entry_twice(const struct one_commit *c)
{
	for (size_t i = 0; i < c->count; i++)
		for (size_t j = 0; j < i; j++)
			if (c->b[i]->received && c->b[j]->received && c->b[i]->staged == c->b[j]->staged)
				return true;
	return false;
}

static enum kv_rc run_commit(struct one_commit *c, struct core_appended *r, struct kv_err *err)
{
	struct core_append ask = pr_append_of(&c->ask);

	if (c->plain && c->ask.idempotent)
		return core_writer_append_batch(c->w->w, c->raw[0], c->ask.lower, c->ask.upper, r, err);
	if (c->plain)
		return core_writer_compare_and_append_batch(c->w->w, c->raw, c->count, c->ask.lower,
							    c->ask.upper, r, err);
	return core_writer_commit(c->w->w, &ask, c->raw, c->count, r, err);
}

static void judge_commit(struct round *o, struct one_commit *c, struct sh_answer *want)
{
	struct sh_input in[3] = {{0}};
	const struct sh_rows none = {0};

	for (size_t i = 0; i < c->count; i++) {
		struct sh_staged *s = shadow_staged_by_id(&o->m, c->b[i]->staged);

		in[i] = (struct sh_input){.batch = &c->b[i]->m, .staged = c->b[i]->received};
		in[i].gone = c->b[i]->received && s == NULL;
		in[i].foreign = c->b[i]->foreign;
		in[i].id = c->b[i]->staged;
	}
	shadow_append(&o->m, &c->ask, &none, in, c->count, want);
}

static void consume(struct round *o, struct one_commit *c, const struct sh_answer *a)
{
	bool consumed = false;

	for (size_t i = 0; i < c->count; i++) {
		consumed = consumed || c->b[i]->received;
		if (c->b[i]->received && !a->by_token)
			staged_consumed(o, c->b[i]->staged);
		drop_one_built(c->b[i]);
	}
	pr_note_writer(o, (int)(c->w - o->writers), c->w->handle, a, consumed);
}

static void commit_built(struct round *o)
{
	struct one_commit c = {.w = &o->writers[below(o, PR_WRITERS)]};
	struct core_appended r = {0};
	struct sh_answer got, want;
	struct kv_err err;
	char text[SH_TEXT];
	bool received = false;
	enum kv_rc rc;

	choose_batches(o, &c);
	if (c.count == 0)
		return;
	c.ask = pr_random_ask(o);
	pr_fit(o, &c.ask, &c.b[0]->m);
	c.plain = one_in(o, 3) && !c.ask.star && !c.ask.rewrite && !c.ask.has_token && !c.ask.has_since &&
		  (!c.ask.idempotent || c.count == 1);
	tell(o, "%s |", sh_ask_text(&c.ask, text));
	for (size_t i = 0; i < c.count; i++) {
		tell_more(o, " built %td [%" PRIu64 ", %" PRIu64 ")%s", c.b[i] - o->built, c.b[i]->m.lower.t,
			  c.b[i]->m.upper.t, c.b[i]->received ? " received" : "");
		received = received || c.b[i]->received;
		if (c.b[i]->received)
			close_elsewhere(o, c.b[i]->staged, c.w->handle);
	}
	if (!received)
		pr_arm(o);
	rc = run_commit(&c, &r, &err);
	if (pr_failed(o, rc))
		return;
	pr_answer_of(rc, &r, &err, &got);
	judge_commit(o, &c, &want);
	if (same_entry_twice(&c) && rc != KV_OK && want.rc != KV_OK)
		want = got; /* any refusal will do */
	pr_compare_answers(o, "append of batches", &got, &want);
	if (rc == KV_OK) {
		consume(o, &c, &want);
	} else {
		for (size_t i = 0; i < c.count; i++)
			check_built(o, c.b[i]);
		pr_check_met(o, c.w, rc == KV_UPPER_MISMATCH);
	}
}

/* --- transmitting ---------------------------------------------------------------------------------- */

static void transmit(struct round *o)
{
	struct pr_built *b = find_built(o, true);
	struct pr_sent *sent = &o->sent[below(o, PR_SENT)];
	struct sh_rows settled;
	struct kv_err err;

	if (b == NULL || b->received)
		return;
	for (size_t i = 0, room = 0; i <= SH_STAGED; i++) {
		if (i == SH_STAGED && room < 3)
			return; /* the model is full */
		room += i < SH_STAGED && !o->m.staged[i].there;
	}
	tell(o, "transmit %td", b - o->built);
	core_buf_fini(&sent->bytes);
	*sent = (struct pr_sent){.foreign = b->foreign};
	works(o, "transmit", core_built_transmit(b->b, &sent->bytes, &err), &err);
	settled = sh_rows_settled(&b->m.rows);
	/* A rewrite that has nothing to lift leaves no trace. */
	b->m.has_rewrite = b->m.has_rewrite && settled.count != 0 && b->m.rewrite_ts != 0;
	sh_rows_free(&settled);
	if (!b->foreign)
		adopt_transmitted(o, any_handle(o), &b->m, &sent->staged);
	drop_one_built(b);
}

static void receive(struct round *o)
{
	const struct pr_sent *sent = &o->sent[below(o, PR_SENT)];
	struct pr_writer *w = &o->writers[below(o, PR_WRITERS)];
	struct pr_built *b = find_built(o, false);
	struct sh_staged *s = shadow_staged_by_id(&o->m, sent->staged);
	struct core_built *got = NULL;
	struct kv_err err;
	enum kv_rc rc;

	if (b == NULL || sent->bytes.len == 0)
		return;
	tell(o, "receive %td as %td", sent - o->sent, b - o->built);
	if (one_in(o, 10)) { /* damaged */
		uint8_t *copy = malloc(sent->bytes.len);

		memcpy(copy, sent->bytes.data, sent->bytes.len);
		copy[below(o, sent->bytes.len)] ^= (uint8_t)(1 + below(o, 255));
		rc = core_writer_receive(w->w, copy, sent->bytes.len, &got, &err);
		free(copy);
		if (rc == KV_OK)
			differs(o, "damaged bytes", "Ok", "Corrupt");
		return;
	}
	rc = core_writer_receive(w->w, sent->bytes.data, sent->bytes.len, &got, &err);
	want_rc(o, "receive", rc, &err, sent->foreign ? KV_OTHER_SHARD : s == NULL ? KV_NO_BATCH : KV_OK);
	if (rc != KV_OK)
		return;
	*b = (struct pr_built){
		.b = got, .received = true, .staged = sent->staged, .m = sh_batch_copy(&s->now)};
	check_built(o, b);
}

/* A batch of its own, now and then of as many rows as before, under a token that stands for another one. */
static void commit_again(struct round *o)
{
	const struct sh_token *token = &o->m.tokens[below(o, SH_TOKENS)];
	struct sh_ask ask = token->ask;
	struct one_commit c = {.ask = ask, .count = 1, .w = &o->writers[below(o, PR_WRITERS)]};
	struct sh_row row = {.time = ask.lower.t, .diff = 1};
	struct core_update rows[4];
	struct sh_answer got, want;
	struct core_appended r;
	struct kv_err err;
	char text[SH_TEXT];

	c.b[0] = find_built(o, false);
	if (!token->used || token->inputs != 1 || token->own != 0 || ask.star || ask.rewrite ||
	    core_frontier_eq(ask.lower, ask.upper) || c.b[0] == NULL)
		return;
	c.b[0]->m = (struct sh_batch){.has_bounds = true, .lower = ask.lower, .upper = ask.upper};
	for (uint64_t n = one_in(o, 2) ? token->built % 4 : below(o, 4); n > 0; n--) {
		rows[c.b[0]->m.rows.count] = update_of(&row);
		sh_rows_add(&c.b[0]->m.rows, row);
	}
	works(o, "batch",
	      core_writer_batch(c.w->w, rows, c.b[0]->m.rows.count, ask.lower, ask.upper, &c.b[0]->b, &err),
	      &err);
	c.raw[0] = c.b[0]->b;
	tell(o, "%s | %zu rows again", sh_ask_text(&ask, text), c.b[0]->m.rows.count);
	enum kv_rc rc = run_commit(&c, &r, &err);
	pr_answer_of(rc, &r, &err, &got);
	judge_commit(o, &c, &want);
	pr_compare_answers(o, "append of batches", &got, &want);
	if (rc == KV_OK)
		consume(o, &c, &want);
}

void step_built(struct round *o)
{
	uint64_t what = below(o, 100);
	struct pr_built *b;

	if (what < 42) {
		build(o);
	} else if (what < 78) {
		commit_built(o);
	} else if (what < 80) {
		commit_again(o);
	} else if (what < 88) {
		rewrite(o);
	} else if (what < 92) {
		transmit(o);
	} else if (what < 97) {
		receive(o);
	} else {
		b = find_built(o, true);
		if (b != NULL) {
			tell(o, "free built %td", b - o->built);
			drop_one_built(b);
		}
	}
}
