/*
 * test_usage.c - every way to use an append wrongly, and which one is told when
 * there are several, on shards in every state.
 *
 * Each attempt is made on four shards of a store that others may write to:
 *     fresh     nothing was appended
 *     advanced  [0, 3) was, under token 1
 *     finished  the same, and then the empty upper
 *     removed   the same, and then it was removed; its handle stays
 * What is refused must leave versions, staged batches and blobs as they were, and
 * what depends on the arguments alone must be refused without a look at the store.
 *
 * Each shard has the staged batches
 *     free   "1 1 a x;"
 *     bound  "1 1 a x;" with bounds [0, 5)
 *     half   a row without its end
 *     none   no rows
 */
#include "tests/core/batches.h"
#include "tests/core/suites.h"

enum { FRESH, ADVANCED, FINISHED, REMOVED, STATES };

/* A batch built ahead; of another shard, twice the same, or rewritten to `ts` with `new_upper`. */
struct ahead {
	const char *lower, *upper, *rows;
	bool other, again;
	uint64_t ts;
	const char *new_upper;
};

struct attempt {
	const char *promise;
	const char *options;
	const char *rows;
	const char *names; /* staged batches, or NULL */
	struct ahead ahead[2];
	const char
		*want[STATES]; /* how the verdict begins; only the first: everywhere, and nobody is asked */
};

#define MISMATCH(at)                                                                          \
	{                                                                                     \
		"UpperMismatch expected_upper=" at " current_upper=0",                        \
			"UpperMismatch expected_upper=" at " current_upper=3",                \
			"UpperMismatch expected_upper=" at " current_upper=-", "UnknownShard" \
	}

static const struct attempt attempts[] = {
	/* Bounds, rows, rewrites. */
	{"the study: an update below the lower", "lower=4 upper=5", "3 1 a x;",
	 .want = {"UpdateNotBeyondLower time=3 lower=4"}},
	{"the study: an update at the upper", "lower=2 upper=3", "3 1 a x;",
	 .want = {"UpdateBeyondUpper time=3 upper=3"}},
	{"the study: the upper below the lower", "lower=3 upper=2", "",
	 .want = {"InvalidBounds lower=3 upper=2"}},
	{"the same of compare-and-append", "expected_upper=4 new_upper=5", "3 1 a x;",
	 .want = {"UpdateNotBeyondLower time=3 lower=4"}},
	{"and of its upper", "expected_upper=2 new_upper=3", "3 1 a x;",
	 .want = {"UpdateBeyondUpper time=3 upper=3"}},
	{"and of its bounds", "expected_upper=3 new_upper=2", "", .want = {"InvalidBounds lower=3 upper=2"}},
	{"the second of two rows counts too", "expected_upper=0 new_upper=5", "1 1 a x;7 1 a x;",
	 .want = {"UpdateBeyondUpper time=7 upper=5"}},
	{"data in an empty interval", "expected_upper=3 new_upper=3", "3 1 a x;",
	 .want = {"InvalidEmptyTimeInterval lower=3 upper=3"}},
	{"bounds come before rows", "expected_upper=9 new_upper=8", "1 1 a x;",
	 .want = {"InvalidBounds lower=9 upper=8"}},
	{"bounds come before the rewrite", "expected_upper=9 new_upper=8 rewrite_ts=99", "",
	 .want = {"InvalidBounds lower=9 upper=8"}},
	{"a rewrite below the lower", "expected_upper=4 new_upper=8 rewrite_ts=3", "",
	 .want = {"InvalidRewrite rewrite_ts=3 lower=4 upper=8"}},
	{"a rewrite at the upper", "lower=4 upper=8 rewrite_ts=8", "",
	 .want = {"InvalidRewrite rewrite_ts=8 lower=4 upper=8"}},
	{"a rewrite does not lower", "expected_upper=4 new_upper=8 rewrite_ts=5", "9 1 a x;",
	 .want = {"UpdateBeyondUpper time=9 upper=8"}},
	{"the last time needs the empty upper", "expected_upper=0 new_upper=18446744073709551615",
	 "18446744073709551615 1 a x;", .want = {"UpdateBeyondUpper time=18446744073709551615"}},
	{"a star needs a star", "expected_upper=0 new_upper=5", "* 1 a x;", .want = {"BadSyntax"}},
	/* Batches built ahead. */
	{"the study: wider below", "expected_upper=2 new_upper=3", "",
	 .ahead = {{"3", "4", .rows = "3 1 a x;"}},
	 .want = {"InvalidBatchBounds lower=2 upper=3 batch_lower=3"}},
	{"the study: wider above", "expected_upper=4 new_upper=5", "",
	 .ahead = {{"3", "4", .rows = "3 1 a x;"}},
	 .want = {"InvalidBatchBounds lower=4 upper=5 batch_lower=3"}},
	{"the study: an empty interval", "expected_upper=3 new_upper=3", "",
	 .ahead = {{"3", "4", .rows = "3 1 a x;"}}, .want = {"InvalidEmptyTimeInterval"}},
	{"append refuses the same: below", "lower=2 upper=3", "", .ahead = {{"3", "4", .rows = "3 1 a x;"}},
	 .want = {"InvalidBatchBounds"}},
	{"append refuses the same: above", "lower=4 upper=5", "", .ahead = {{"3", "4", .rows = "3 1 a x;"}},
	 .want = {"InvalidBatchBounds"}},
	{"append refuses the same: empty", "lower=3 upper=3", "", .ahead = {{"3", "4", .rows = "3 1 a x;"}},
	 .want = {"InvalidEmptyTimeInterval"}},
	{"an empty batch is not wider either", "expected_upper=0 new_upper=-", "",
	 .ahead = {{"0", "9", .rows = ""}},
	 .want = {"InvalidBatchBounds lower=0 upper=- batch_lower=0 batch_upper=9"}},
	{"one of two is enough", "expected_upper=0 new_upper=5", "",
	 .ahead = {{"0", "5", .rows = "1 1 a x;"}, {"1", "5", .rows = "1 1 a x;"}},
	 .want = {"InvalidBatchBounds"}},
	{"a batch of another shard", "expected_upper=0 new_upper=5", "",
	 .ahead = {{"0", "5", "1 1 a x;", .other = true}}, .want = {"BatchNotFromThisShard"}},
	{"also as the second", "lower=0 upper=5", "",
	 .ahead = {{"0", "5", .rows = "1 1 a x;"}, {"0", "5", "1 1 a x;", .other = true}},
	 .want = {"BatchNotFromThisShard"}},
	{"bounds come before the other shard", "expected_upper=6 new_upper=5", "",
	 .ahead = {{"0", "5", "1 1 a x;", .other = true}}, .want = {"InvalidBounds lower=6 upper=5"}},
	{"the other shard before the batch's bounds", "expected_upper=0 new_upper=9", "",
	 .ahead = {{"0", "5", "1 1 a x;", .other = true}}, .want = {"BatchNotFromThisShard"}},
	{"the other shard before the rewrite", "expected_upper=0 new_upper=5 rewrite_ts=5", "",
	 .ahead = {{"0", "5", "1 1 a x;", .other = true}}, .want = {"BatchNotFromThisShard"}},
	{"the batch's bounds before the empty interval", "expected_upper=9 new_upper=9", "",
	 .ahead = {{"3", "4", .rows = "3 1 a x;"}}, .want = {"InvalidBatchBounds"}},
	{"a batch given twice", "expected_upper=0 new_upper=5", "",
	 .ahead = {{"0", "5", .rows = "1 1 a x;"}, {.again = true}}, .want = {"BadSyntax"}},
	{"a rewritten batch ends where the append does", "expected_upper=0 new_upper=5", "",
	 .ahead = {{"0", "5", "1 1 a x;", .ts = 2, .new_upper = "7"}}, .want = {"InvalidRewrite lower=0"}},
	{"and so does every other batch with it", "expected_upper=0 new_upper=5", "",
	 .ahead = {{"0", "5", "1 1 a x;", .ts = 2, .new_upper = "5"}, {"0", "9", .rows = "1 1 b x;"}},
	 .want = {"InvalidRewrite lower=0 upper=5 batch_lower=0 batch_upper=9"}},
	{"a rewritten batch is not cut above its times", "expected_upper=3 new_upper=5", "",
	 .ahead = {{"0", "5", "1 1 a x;", .ts = 2, .new_upper = "5"}}, .want = {"InvalidRewrite"}},
	{"nor one beside it above its lower", "expected_upper=3 new_upper=5", "",
	 .ahead = {{"0", "5", "4 1 a x;", .ts = 4, .new_upper = "5"}, {"2", "5", .rows = "2 1 a x;"}},
	 .want = {"InvalidRewrite lower=3 upper=5 batch_lower=2"}},
	{"nor is it wider", "expected_upper=1 new_upper=5", "",
	 .ahead = {{"2", "5", "2 1 a x;", .ts = 3, .new_upper = "5"}}, .want = {"InvalidBatchBounds"}},
	{"the append's rewrite asks the same", "expected_upper=0 new_upper=5 rewrite_ts=4", "",
	 .ahead = {{"0", "9", .rows = "1 1 a x;"}}, .want = {"InvalidRewrite lower=0 upper=5"}},
	{"a rewrite below the batch", "expected_upper=1 new_upper=5 rewrite_ts=1", "",
	 .ahead = {{"2", "5", .rows = "2 1 a x;"}}, .want = {"InvalidRewrite"}},
	{"an unfit batch is refused under a known token", "expected_upper=0 new_upper=3 token=1", "",
	 .ahead = {{"1", "3", .rows = "1 1 a x;"}}, .want = {"InvalidBatchBounds"}},
	/* The token. */
	{"usage comes before a known token", "expected_upper=4 new_upper=3 token=1", "",
	 .want = {"InvalidBounds"}},
	{"a token with other bounds", "expected_upper=99 new_upper=100 token=1", "",
	 .want = {"UpperMismatch expected_upper=99 current_upper=0", "TokenReused", "TokenReused",
		  "UnknownShard"}},
	{"a token with other rows", "expected_upper=0 new_upper=3 token=1", "1 1 a x;2 1 b y;",
	 .want = {NULL, "TokenReused", "TokenReused", "UnknownShard"}},
	{"a token with a batch more", "expected_upper=0 new_upper=3 token=1", "1 1 a x;",
	 .ahead = {{"0", "3", .rows = "1 1 a x;"}},
	 .want = {NULL, "TokenReused", "TokenReused", "UnknownShard"}},
	{"a token with a name more, known or not", "expected_upper=0 new_upper=3 token=1", "1 1 a x;",
	 "nobody", .want = {"UnknownBatch batch=nobody", "TokenReused", "TokenReused", "UnknownShard"}},
	{"a known token", "expected_upper=0 new_upper=3 token=1", "1 1 a x;",
	 .want = {NULL, "same 0 3 updates=1", "same 0 3 updates=1", "UnknownShard"}},
	/* Names. */
	{"an unknown name before the upper", "expected_upper=99 new_upper=100", "", "nobody",
	 .want = {"UnknownBatch batch=nobody", "UnknownBatch", "UnknownBatch", "UnknownShard"}},
	{"an unknown name behind a known one", "expected_upper=99 new_upper=100", "", "free nobody",
	 .want = {"UnknownBatch batch=nobody", "UnknownBatch", "UnknownBatch", "UnknownShard"}},
	{"an unknown name in an append that is done", "lower=0 upper=0", "", "nobody",
	 .want = {"UnknownBatch batch=nobody", "UnknownBatch", "UnknownBatch", "UnknownShard"}},
	{"a row beside an unknown name", "expected_upper=9 new_upper=10", "1 1 a x;", "nobody",
	 .want = {"UpdateNotBeyondLower"}},
	{"a row of a staged batch below", "expected_upper=99 new_upper=100", "", "free",
	 .want = {"UpdateNotBeyondLower time=1 lower=99", "UpdateNotBeyondLower", "UpdateNotBeyondLower",
		  "UnknownShard"}},
	{"a row of a staged batch beyond", "expected_upper=0 new_upper=1", "", "none free",
	 .want = {"UpdateBeyondUpper time=1 upper=1", "UpdateBeyondUpper", "UpdateBeyondUpper",
		  "UnknownShard"}},
	{"a row of a staged batch in an append that is done", "lower=0 upper=0", "", "free",
	 .want = {"InvalidEmptyTimeInterval", "InvalidEmptyTimeInterval", "InvalidEmptyTimeInterval",
		  "UnknownShard"}},
	{"a staged batch with bounds is not extended", "expected_upper=99 new_upper=100", "", "bound",
	 .want = {"InvalidBatchBounds lower=99 upper=100 batch_lower=0 batch_upper=5", "InvalidBatchBounds",
		  "InvalidBatchBounds", "UnknownShard"}},
	{"nor in an append", "lower=0 upper=6", "", "bound",
	 .want = {"InvalidBatchBounds", "InvalidBatchBounds", "InvalidBatchBounds", "UnknownShard"}},
	{"a staged batch in an empty interval", "expected_upper=1 new_upper=1", "", "free",
	 .want = {"InvalidEmptyTimeInterval", "InvalidEmptyTimeInterval", "InvalidEmptyTimeInterval",
		  "UnknownShard"}},
	{"a row that is not whole", "expected_upper=99 new_upper=100", "", "half",
	 .want = {"BadSyntax batch=half", "BadSyntax", "BadSyntax", "UnknownShard"}},
	{"a name given twice", "expected_upper=99 new_upper=100", "", "free bound free",
	 .want = {"BadSyntax"}},
	/* The upper. */
	{"another upper", "expected_upper=99 new_upper=100", "99 1 a x;", .want = MISMATCH("99")},
	{"a heartbeat elsewhere", "expected_upper=99 new_upper=99", "", .want = MISMATCH("99")},
	{"the empty frontier", "expected_upper=- new_upper=3", "7 1 a x;", .want = MISMATCH("-")},
	{"a gap", "lower=99 upper=100", "",
	 .want = {"UpperMismatch lower=99 current_upper=0", "UpperMismatch lower=99 current_upper=3",
		  "same - - updates=0", "UnknownShard"}},
	{"another upper, with a fitting name", "expected_upper=1 new_upper=2", "", "free",
	 .want = MISMATCH("1")},
	{"another upper, with a fitting batch", "expected_upper=1 new_upper=2", "",
	 .ahead = {{"0", "5", .rows = "1 1 a x;"}}, .want = MISMATCH("1")},
	{"an append that is done", "lower=0 upper=0", "",
	 .want = {"same 0 0 updates=0", "same 3 3 updates=0", "same - - updates=0", "UnknownShard"}},
};

/* --- the shards ------------------------------------------------------------------------------------ */

struct fixture {
	struct rig rig;
	struct core_writer *writer;
	struct core_shard *other; /* another shard of the same engine */
	struct core_writer *other_writer;
};

static struct fixture fixture_new(int state)
{
	struct fixture f = {.rig = rig_new(DISK_SHARED)};
	struct core_shard_id id = {.u = core_uuid_new()};
	struct core_stage *half;
	struct kv_err err;

	stage_whole(f.rig.shard, "free", NULL, "1 1 a x;");
	stage_whole(f.rig.shard, "bound", "0 5", "1 1 a x;");
	stage_whole(f.rig.shard, "none", NULL, "");
	half = stage_new(f.rig.shard, "half");
	ck_ok(core_stage_keep(half, "1\t1\ta", 5, &err), err);
	core_stage_close(half);
	ck_ok(core_shard_create(f.rig.engine, id, any_owner, &err), err);
	ck_ok(core_shard_open(f.rig.engine, id, &f.other, &err), err);
	f.writer = writer_on(f.rig.shard);
	f.other_writer = writer_on(f.other);
	if (state >= ADVANCED)
		verdict(f.rig.shard, "expected_upper=0 new_upper=3 token=1", "1 1 a x;");
	if (state >= FINISHED)
		verdict(f.rig.shard, "expected_upper=3 new_upper=- since=-", "");
	if (state >= REMOVED)
		ck_ok(core_shard_remove(f.rig.shard, &err), err);
	return f;
}

static void fixture_free(struct fixture *f)
{
	core_writer_close(f->writer);
	core_writer_close(f->other_writer);
	core_shard_close(f->other);
	rig_free(&f->rig);
}

/* All that an append could change, and nothing that asks the store. */
struct traces {
	uint64_t seqno;
	size_t staged;
	size_t blobs;
	size_t writers;
};

static struct traces traces_of(struct fixture *f)
{
	const struct core_state *s = &f->rig.shard->state;

	return (struct traces){s->seqno, s->staged_count, disk_blob_count(f->rig.disk), s->writer_count};
}

/* --- attempts -------------------------------------------------------------------------------------- */

static struct core_built *build_ahead(struct fixture *f, const struct ahead *a)
{
	struct core_built *b = build(a->other ? f->other_writer : f->writer, a->lower, a->upper, a->rows);
	struct core_frontier upper;
	struct kv_err err;

	if (a->new_upper != NULL) {
		ck_assert(core_frontier_parse(a->new_upper, strlen(a->new_upper), &upper));
		ck_ok(core_built_rewrite_ts(b, a->ts, upper, &err), err);
	}
	return b;
}

/* Rows by the calls of the write handle that take all at once, where these can say it. */
static const char *by_handle(struct fixture *f, const struct attempt *a)
{
	struct core_append ask = parse_ask(a->options);
	struct core_appended r = {0};
	struct model m = {0};
	struct kv_err err = {0};
	enum kv_rc rc;

	parse_rows(a->rows, &m);
	if (ask.idempotent)
		rc = core_writer_append(f->writer, m.u, m.count, ask.lower, ask.upper, &r, &err);
	else
		rc = core_writer_compare_and_append(f->writer, m.u, m.count, ask.lower, ask.upper, &r, &err);
	model_free(&m);
	return verdict_of(rc, &r, &err);
}

static const char *with_batches(struct fixture *f, const struct attempt *a, struct core_built **built,
				bool short_way)
{
	struct core_append ask = parse_ask(a->options);
	size_t count = a->ahead[1].lower != NULL || a->ahead[1].again ? 2 : 1;
	struct core_appended r = {0};
	struct kv_err err = {0};
	enum kv_rc rc;

	if (short_way && ask.idempotent && count == 1)
		rc = core_writer_append_batch(f->writer, built[0], ask.lower, ask.upper, &r, &err);
	else if (short_way && !ask.idempotent)
		rc = core_writer_compare_and_append_batch(f->writer, built, count, ask.lower, ask.upper, &r,
							  &err);
	else
		rc = core_writer_commit(f->writer, &ask, built, count, &r, &err);
	return verdict_of(rc, &r, &err);
}

static bool is_plain(const struct attempt *a)
{
	return strchr(a->rows, '*') == NULL && strstr(a->options, "token") == NULL &&
	       strstr(a->options, "rewrite") == NULL;
}

/* One attempt, by one of two ways; the verdict and what it cost. */
static const char *try(struct fixture *f, const struct attempt *a, bool short_way, unsigned *calls)
{
	struct core_built *built[2] = {NULL, NULL};
	const char *got;

	for (size_t i = 0; i < 2; i++)
		if (a->ahead[i].lower != NULL)
			built[i] = build_ahead(f, &a->ahead[i]);
	if (a->ahead[1].again)
		built[1] = built[0];
	disk_heal(f->rig.disk); /* and count anew */
	if (built[0] != NULL)
		got = with_batches(f, a, built, short_way && is_plain(a));
	else if (a->names != NULL)
		got = verdict_staged(f->rig.shard, a->options, a->names, a->rows);
	else if (short_way && is_plain(a))
		got = by_handle(f, a);
	else
		got = verdict(f->rig.shard, a->options, a->rows);
	*calls = kv_faults_calls(f->rig.disk->faults);
	core_built_free(built[0]);
	if (built[1] != built[0])
		core_built_free(built[1]);
	return got;
}

static void check_attempt(struct fixture *f, const struct attempt *a, int state, bool short_way)
{
	static const char *const words[] = {"fresh", "advanced", "finished", "removed"};
	bool pure = a->want[1] == NULL;
	const char *want = pure ? a->want[0] : a->want[state], *got;
	struct traces before = traces_of(f), after;
	unsigned calls;

	if (want == NULL)
		return;
	got = try(f, a, short_way, &calls);
	after = traces_of(f);
	ck_assert_msg(strncmp(got, want, strlen(want)) == 0, "%s, %s: got \"%s\", not \"%s\"", a->promise,
		      words[state], got, want);
	ck_assert_msg(!pure || calls == 0, "%s, %s: asks the store %u times", a->promise, words[state],
		      calls);
	ck_assert_msg(memcmp(&before, &after, sizeof(before)) == 0, "%s, %s: changes something", a->promise,
		      words[state]);
}

START_TEST(each_wrong_use_has_its_answer_and_changes_nothing)
{
	struct fixture f = fixture_new(_i);

	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		check_attempt(&f, &attempts[i], _i, false);
		check_attempt(&f, &attempts[i], _i, true);
	}
	if (_i != REMOVED) {
		check_sound(f.rig.shard);
		check_staged(f.rig.shard, "free", "1 1 a x;");
		check_staged(f.rig.shard, "bound", "bounds 0 5;1 1 a x;");
	}
	fixture_free(&f);
}
END_TEST

/* --- rows that are too large, and bounds of a builder ------------------------------------------------ */

static struct core_update row_of(size_t len)
{
	return (struct core_update){.key = {.len = CORE_ABSENT},
				    .val = {.data = calloc(len, 1), .len = (uint32_t)len},
				    .time = 1,
				    .diff = 1};
}

START_TEST(a_row_above_the_limit_is_refused_everywhere)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_update u = row_of(CORE_ROW_MAX + 1);
	struct core_writer *w = writer_on(rig.shard);
	struct core_stage *g = stage_new(rig.shard, "a");
	struct core_batch_builder *b;
	struct core_appended r;
	struct kv_err err;

	ck_assert_int_eq(core_writer_append(w, &u, 1, core_frontier_at(0), core_frontier_at(5), &r, &err),
			 KV_ROW_TOO_LARGE);
	ck_assert_int_eq(core_stage_add(g, &(struct core_row){.update = u}, &err), KV_ROW_TOO_LARGE);
	ck_ok(core_writer_builder(w, core_frontier_at(0), &b, &err), err);
	ck_assert_int_eq(core_batch_builder_add(b, &u, &err), KV_ROW_TOO_LARGE);
	u.val.len = CORE_ROW_MAX;
	ck_ok(core_batch_builder_add(b, &u, &err), err);
	core_batch_builder_free(b);
	ck_ok(core_stage_add(g, &(struct core_row){.update = u}, &err), err);
	ck_ok(core_writer_append(w, &u, 1, core_frontier_at(0), core_frontier_at(5), &r, &err), err);
	free((void *)(uintptr_t)u.val.data);
	core_stage_close(g);
	core_writer_close(w);
	rig_free(&rig);
}
END_TEST

struct bounds {
	const char *lower, *upper, *rows, *want;
};

static const struct bounds built[] = {
	{"4", "5", "3 1 a x;", "UpdateNotBeyondLower"},
	{"4", "5", "3 0 a x;", "UpdateNotBeyondLower"},
	{"2", "3", "3 1 a x;", "UpdateBeyondUpper"},
	{"3", "2", "", "InvalidBounds"},
	{"3", "2", "7 1 a x;", "InvalidBounds"},
	{"-", "7", "", "InvalidBounds"},
	{"-", "-", "", "Ok"},
	{"3", "3", "", "Ok"},
	{"3", "3", "3 1 a x;", "UpdateBeyondUpper"},
	{"0", "18446744073709551615", "18446744073709551615 1 a x;", "UpdateBeyondUpper"},
	{"0", "-", "18446744073709551615 1 a x;", "Ok"},
	{"0", "3", "4 1 a x;4 -1 a x;", "UpdateBeyondUpper"}, /* each update, not their sum */
	{"0", "3", "4 0 a x;", "Ok"},
};

START_TEST(a_builder_refuses_what_lies_outside_and_leaves_no_blob)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_writer *w = writer_on(rig.shard);
	const struct bounds *b = &built[_i];
	struct core_frontier lower, upper;
	struct core_built *out;
	struct model m = {0};
	struct kv_err err;
	enum kv_rc rc;

	ck_assert(core_frontier_parse(b->lower, strlen(b->lower), &lower));
	ck_assert(core_frontier_parse(b->upper, strlen(b->upper), &upper));
	parse_rows(b->rows, &m);
	rc = core_writer_batch(w, m.u, m.count, lower, upper, &out, &err);
	model_free(&m);
	ck_assert_str_eq(rc == KV_OK ? "Ok" : kv_rc_name(rc), b->want);
	ck_assert((out != NULL) == (rc == KV_OK));
	core_built_free(out);
	core_writer_close(w);
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

Suite *usage_suite(void)
{
	Suite *s = suite_create("usage");
	TCase *t = tcase_create("usage");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, each_wrong_use_has_its_answer_and_changes_nothing, 0, STATES);
	tcase_add_test(t, a_row_above_the_limit_is_refused_everywhere);
	tcase_add_loop_test(t, a_builder_refuses_what_lies_outside_and_leaves_no_blob, 0,
			    sizeof(built) / sizeof(built[0]));
	suite_add_tcase(s, t);
	return s;
}
