/*
 * test_compact.c - which merges are due, and what may take whose place: pure functions on states made by
 * hand.
 */
#include "tests/core/chores.h"
#include "tests/core/states.h"
#include "tests/core/suites.h"

/* --- states made by hand ---------------------------------------------------------------------------- */

/* A batch [lower, upper) with one row per part and the diff 1, so many runs of one part each. */
static struct core_batch *batch_of(uint64_t lower, uint64_t upper, uint64_t bytes, unsigned runs)
{
	struct core_batch *b = core_batch_new(core_frontier_at(lower), core_frontier_at(upper));

	for (unsigned i = 0; i < runs; i++) {
		struct core_part part = {.id.u = core_uuid_new(),
					 .instance.u = core_uuid_new(),
					 .size = bytes / runs,
					 .rows = 1,
					 .min_time = lower,
					 .max_time = upper - 1,
					 .diffs_sum = 1};
		ck_assert(core_batch_push(b, &part, true));
	}
	return b;
}

static struct core_state state_new(void)
{
	struct core_state s = {0};
	struct kv_err err;

	ck_ok(core_state_init(&s, 1000, 1, any_owner, &err), err);
	return s;
}

static void apply(struct core_state *s, struct core_diff *d)
{
	struct kv_err err;

	d->attempt = core_uuid_new();
	ck_ok(core_state_apply(s, d, &err), err);
	core_diff_fini(d);
	ck_ok(core_state_check(s, &err), err);
}

static bool pick(const struct core_state *s, size_t from, size_t end, enum core_merge_aim aim,
		 struct core_merge_range *m)
{
	struct core_merge_ask ask = {.aim = aim, .since = core_frontier_empty()};

	return core_merge_pick(s, from, end, &ask, m);
}

/* A batch more at the end; taken. */
static void push(struct core_state *s, struct core_batch *b)
{
	struct core_diff d;
	struct kv_err err;

	core_diff_init(&d);
	d.seqno = s->seqno + 1;
	d.has_upper = true;
	d.upper = b->upper;
	ck_ok(core_diff_splice(&d, b->lower, b->lower, &b, 1, &err), err);
	apply(s, &d);
}

/* The same without checks, for many. */
static void push_fast(struct core_state *s, uint64_t bytes, unsigned runs)
{
	uint64_t at = s->upper.t;

	if (s->batch_count == s->batch_cap) {
		s->batch_cap = s->batch_cap != 0 ? 2 * s->batch_cap : 16;
		s->batches = realloc(s->batches, s->batch_cap * sizeof *s->batches);
	}
	s->batches[s->batch_count++] = batch_of(at, at + 1, bytes, runs);
	s->upper = core_frontier_at(at + 1);
}

/* Do a merge of which so many bytes are left, whatever they were. */
static void merge_fast(struct core_state *s, struct core_merge_range m, uint64_t bytes)
{
	uint64_t lower = s->batches[m.first]->lower.t, upper = s->batches[m.end - 1]->upper.t;
	struct core_batch *b = bytes != 0 ? batch_of(lower, upper, bytes, 1)
					  : core_batch_new(core_frontier_at(lower), core_frontier_at(upper));

	b->since = core_frontier_at(core_merge_advance(s, b->upper));
	if (bytes != 0 && b->since.t > b->parts[0].min_time)
		b->parts[0].min_time = b->since.t < upper ? b->since.t : upper - 1;
	for (size_t i = m.first; i < m.end; i++)
		core_batch_unref(s->batches[i]);
	s->batches[m.first] = b;
	memmove(s->batches + m.first + 1, s->batches + m.end, (s->batch_count - m.end) * sizeof *s->batches);
	s->batch_count -= m.end - m.first - 1;
}

static uint64_t bytes_of_range(const struct core_state *s, struct core_merge_range m)
{
	uint64_t bytes = 0;

	for (size_t i = m.first; i < m.end; i++)
		bytes += s->batches[i]->bytes;
	return bytes;
}

static unsigned log2_of(uint64_t n)
{
	unsigned log = 0;

	while (n > 1) {
		n = (n + 1) / 2;
		log++;
	}
	return log;
}

/* Pick and do until there is nothing more; bytes written. Fails if it does not end. */
static uint64_t settle(struct core_state *s, enum core_merge_aim aim)
{
	struct core_merge_range m;
	uint64_t written = 0;

	for (unsigned rounds = 0; pick(s, 0, core_merge_prefix(s), aim, &m); rounds++) {
		ck_assert(m.first < m.end && m.end <= s->batch_count);
		ck_assert_uint_lt(rounds, 10000);
		written += bytes_of_range(s, m);
		merge_fast(s, m, bytes_of_range(s, m));
	}
	return written;
}

/* --- policy ------------------------------------------------------------------------------------------- */

static uint64_t size_of_append(struct rng *rng, int kind, unsigned i)
{
	static const uint64_t equal[] = {150, 1000, 64 << 10, 1 << 20, 9 << 20};

	if (kind < 5)
		return equal[kind];
	if (kind == 5)
		return 1 + rng_below(rng, 1 << 20);
	if (kind == 6)
		return (uint64_t)1 << rng_below(rng, 24); /* any magnitude */
	return i % 100 == 0 ? 50 << 20 : 5000;            /* a large one now and then */
}

START_TEST(batches_stay_few_and_a_row_is_written_few_times)
{
	enum { APPENDS = 3000 };
	struct core_state s = state_new();
	struct rng rng = rng_new(40 + (uint64_t)_i);
	uint64_t appended = 0, written = 0;
	size_t most = 0;

	for (unsigned i = 0; i < APPENDS; i++) {
		uint64_t bytes = size_of_append(&rng, _i, i);

		appended += bytes;
		push_fast(&s, bytes, 1);
		written += settle(&s, CORE_AIM_LEVELS);
		most = s.batch_count > most ? s.batch_count : most;
	}
	ck_assert_msg(most <= log2_of(APPENDS) + 2 + CORE_MERGE_COUNT, "%zu batches", most);
	ck_assert_msg(written <= appended * (log2_of(APPENDS) + 2), "a row was written %.1f times",
		      (double)written / (double)appended);
	core_state_fini(&s);
}
END_TEST

START_TEST(no_blob_of_rows_is_smaller_than_what_the_policy_is_tried_with)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_state state;

	verdict(rig.shard, "expected_upper=0 new_upper=1", "0 1 a x;");
	fold_to_blob(rig.shard);
	state = state_of(rig.shard);
	ck_assert_uint_ge(state.batches[0]->bytes, 150);
	core_state_fini(&state);
	rig_free(&rig);
}
END_TEST

START_TEST(the_oldest_is_merged_when_those_behind_it_weigh_half_of_it)
{
	struct core_state s = state_new();
	struct core_merge_range m;

	push_fast(&s, 100 << 20, 1);
	push_fast(&s, 30 << 20, 1);
	push_fast(&s, 15 << 20, 1);
	ck_assert(!pick(&s, 0, 3, CORE_AIM_LEVELS, &m));
	push_fast(&s, 6 << 20, 1);
	ck_assert(pick(&s, 0, 4, CORE_AIM_LEVELS, &m));
	ck_assert_uint_eq(m.first, 0);
	ck_assert_uint_eq(m.end, 4);
	core_state_fini(&s);
}
END_TEST

/* Space: what every append replaces whole takes at most that half besides. */
START_TEST(replaced_rows_take_at_most_half_of_what_is_there)
{
	struct core_state s = state_new();
	struct core_merge_range m;
	const uint64_t live = 64 << 20;

	push_fast(&s, live, 1);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t total;

		push_fast(&s, 1 << 20, 1);
		while (pick(&s, 0, core_merge_prefix(&s), CORE_AIM_LEVELS, &m)) {
			total = bytes_of_range(&s, m);
			merge_fast(&s, m, m.first == 0 ? live : total);
		}
		total = bytes_of_range(&s, (struct core_merge_range){.end = s.batch_count});
		ck_assert_uint_le(total, live + live / 2 + (2 << 20));
	}
	core_state_fini(&s);
}
END_TEST

START_TEST(one_batch_with_many_runs_is_merged)
{
	struct core_state s = state_new();
	struct core_merge_range m;

	push_fast(&s, 1 << 20, CORE_MERGE_RUNS);
	ck_assert(!pick(&s, 0, 1, CORE_AIM_LEVELS, &m));
	ck_assert(pick(&s, 0, 1, CORE_AIM_REST, &m));
	ck_assert(pick(&s, 0, 1, CORE_AIM_ONE, &m));
	push_fast(&s, 1000, CORE_MERGE_RUNS + 1);
	ck_assert(pick(&s, 0, 2, CORE_AIM_LEVELS, &m));
	ck_assert_uint_eq(m.first, 1);
	ck_assert_uint_eq(m.end, 2);
	core_state_fini(&s);
}
END_TEST

START_TEST(of_a_shard_given_up_all_with_rows_is_picked_and_then_nothing)
{
	struct core_state s = state_new();
	struct core_merge_range m;

	for (int i = 0; i < 10; i++)
		push_fast(&s, 1000, 1);
	s.since = core_frontier_empty();
	for (int aim = CORE_AIM_LEVELS; aim <= CORE_AIM_ONE; aim++) {
		ck_assert(pick(&s, 0, 10, (enum core_merge_aim)aim, &m));
		ck_assert(m.first == 0 && m.end == 10);
	}
	merge_fast(&s, m, 0);
	for (int aim = CORE_AIM_LEVELS; aim <= CORE_AIM_ONE; aim++)
		ck_assert(!pick(&s, 0, s.batch_count, (enum core_merge_aim)aim, &m));
	core_state_fini(&s);
}
END_TEST

START_TEST(nothing_is_picked_of_the_tail_nor_outside_of_what_is_asked_for)
{
	struct core_state s = state_new();
	struct rng rng = rng_new(77);
	struct core_merge_range m;

	for (int i = 0; i < 40; i++)
		push_fast(&s, 1 + rng_below(&rng, 100000), 1 + (unsigned)rng_below(&rng, 6));
	for (int i = 0; i < 8; i++) {
		push_fast(&s, 100, 1);
		s.batches[s.batch_count - 1]->parts[0].inline_data = malloc(100);
	}
	ck_assert_uint_eq(core_merge_prefix(&s), 40);
	for (size_t from = 0; from <= 40; from++)
		for (size_t end = from; end <= 40; end++)
			for (int aim = CORE_AIM_LEVELS; aim <= CORE_AIM_ONE; aim++)
				if (pick(&s, from, end, (enum core_merge_aim)aim, &m))
					ck_assert(from <= m.first && m.first < m.end && m.end <= end);
	core_state_fini(&s);
}
END_TEST

START_TEST(picking_and_merging_ends_whatever_there_is)
{
	for (unsigned round = 0; round < 300; round++) {
		struct core_state s = state_new();
		struct rng rng = rng_new(500 + round);
		unsigned batches = 1 + (unsigned)rng_below(&rng, 60);

		for (unsigned i = 0; i < batches; i++) {
			push_fast(&s, (uint64_t)1 << rng_below(&rng, 25), 1 + (unsigned)rng_below(&rng, 8));
			if (rng_below(&rng, 4) == 0) { /* one without rows */
				struct core_batch *was = s.batches[i];
				s.batches[i] = core_batch_new(was->lower, was->upper);
				core_batch_unref(was);
			}
		}
		s.since = rng_below(&rng, 5) == 0 ? core_frontier_empty()
						  : core_frontier_at(rng_below(&rng, 2 * batches));
		if (!s.since.empty)
			settle(&s, (enum core_merge_aim)(round % 3));
		core_state_fini(&s);
	}
}
END_TEST

START_TEST(at_rest_one_run_is_left_unless_the_rest_is_small)
{
	struct core_state s = state_new();

	for (int i = 0; i < 3; i++)
		push_fast(&s, 100000, 2);
	settle(&s, CORE_AIM_REST);
	ck_assert_uint_eq(s.batch_count, 1);
	ck_assert_uint_eq(s.batches[0]->run_count, 1);
	push_fast(&s, 100, 1);
	settle(&s, CORE_AIM_REST);
	ck_assert_uint_eq(s.batch_count, 2);
	settle(&s, CORE_AIM_ONE);
	ck_assert_uint_eq(s.batch_count, 1);
	core_state_fini(&s);
}
END_TEST

/* --- what may take whose place ----------------------------------------------------------------------------
 */

struct fitting {
	struct core_state s;
	struct core_batch *inputs[4]; /* [0,1) ... [3,4) */
	struct core_batch *output;    /* of the two in the middle */
};

static struct core_batch *output_of(struct core_batch *const *inputs, size_t count,
				    struct core_frontier since)
{
	struct core_batch *b = batch_of(inputs[0]->lower.t, inputs[count - 1]->upper.t, 1000, 1);

	b->parts[0].diffs_sum = 0;
	b->parts[0].rows = 0;
	b->rows = 0;
	for (size_t i = 0; i < count; i++) {
		b->parts[0].diffs_sum += inputs[i]->parts[0].diffs_sum;
		b->parts[0].rows += inputs[i]->rows;
		b->rows += inputs[i]->rows;
	}
	b->since = since;
	return b;
}

static struct fitting fitting_new(void)
{
	struct fitting f = {.s = state_new()};

	for (uint64_t i = 0; i < 4; i++) {
		push(&f.s, batch_of(i, i + 1, 5000, 1));
		f.inputs[i] = core_batch_ref(f.s.batches[i]);
	}
	f.output = output_of(f.inputs + 1, 2, core_frontier_at(0));
	return f;
}

static void fitting_free(struct fitting *f)
{
	for (int i = 0; i < 4; i++)
		core_batch_unref(f->inputs[i]);
	core_batch_unref(f->output);
	core_state_fini(&f->s);
}

/* "ok", "there", "no", or the code; ok was applied. */
static const char *try(struct core_state *s, struct core_batch *const *inputs, size_t count,
		       struct core_batch *output, bool forgets)
{
	struct core_merged m = {.inputs = inputs, .count = count, .output = output, .forgets = forgets};
	struct core_diff d;
	struct kv_err err;
	bool fits, there;
	enum kv_rc rc;

	core_diff_init(&d);
	rc = core_do_merge(s, &m, &d, &fits, &there, &err);
	if (rc == KV_OK && fits && !there) {
		apply(s, &d);
		return "ok";
	}
	core_diff_fini(&d);
	return rc != KV_OK ? kv_rc_name(rc) : there ? "there" : "no";
}

START_TEST(a_merge_takes_the_place_of_exactly_what_it_read)
{
	struct fitting f = fitting_new();

	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "ok");
	ck_assert_uint_eq(f.s.batch_count, 3);
	ck_assert_uint_eq(f.s.dead_count, 2);
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "there");
	ck_assert_uint_eq(f.s.batch_count, 3);
	fitting_free(&f);
}
END_TEST

START_TEST(a_result_that_comes_again_after_another_merge_brings_nothing_back)
{
	struct fitting f = fitting_new();
	struct core_batch *all, *again[3];

	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "ok");
	for (int i = 0; i < 3; i++)
		again[i] = core_batch_ref(f.s.batches[i]);
	all = output_of(again, 3, core_frontier_at(0));
	ck_assert_str_eq(try(&f.s, again, 3, all, false), "ok");
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "no");
	ck_assert_str_eq(try(&f.s, again, 3, all, false), "there");
	ck_assert_uint_eq(f.s.batch_count, 1);
	for (int i = 0; i < 3; i++)
		core_batch_unref(again[i]);
	core_batch_unref(all);
	fitting_free(&f);
}
END_TEST

/* Bounds alone are not enough: another part in one input, the same bounds. */
START_TEST(inputs_with_the_same_bounds_and_other_parts_do_not_fit)
{
	struct fitting f = fitting_new();
	struct core_batch *other = batch_of(2, 3, 5000, 1), *in[2] = {f.inputs[1], other};
	struct core_batch *more = batch_of(2, 3, 5000, 2);

	ck_assert_str_eq(try(&f.s, in, 2, f.output, false), "no");
	in[1] = more;
	ck_assert_str_eq(try(&f.s, in, 2, f.output, false), "no");
	ck_assert_str_eq(try(&f.s, &other, 1, other, false), "no");
	ck_assert_uint_eq(f.s.batch_count, 4);
	core_batch_unref(other);
	core_batch_unref(more);
	fitting_free(&f);
}
END_TEST

START_TEST(a_part_of_what_was_read_does_not_fit_when_the_rest_has_changed)
{
	struct fitting f = fitting_new();
	struct core_batch *one = output_of(f.inputs + 2, 1, core_frontier_at(0));
	struct core_batch *last = output_of(f.inputs + 3, 1, core_frontier_at(0));

	/* A neighbour outside may change; one inside may not. */
	ck_assert_str_eq(try(&f.s, f.inputs + 3, 1, last, false), "ok");
	ck_assert_str_eq(try(&f.s, f.inputs + 2, 1, one, false), "ok");
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "no");
	core_batch_unref(one);
	core_batch_unref(last);
	fitting_free(&f);
}
END_TEST

START_TEST(inputs_that_reach_beyond_the_end_do_not_fit)
{
	struct fitting f = fitting_new();
	struct core_batch *beyond = batch_of(4, 5, 100, 1), *in[2] = {f.inputs[3], beyond};
	struct core_batch *out = output_of(in, 2, core_frontier_at(0));

	ck_assert_str_eq(try(&f.s, in, 2, out, false), "no");
	ck_assert_str_eq(try(&f.s, &beyond, 1, beyond, false), "no");
	core_batch_unref(beyond);
	core_batch_unref(out);
	fitting_free(&f);
}
END_TEST

START_TEST(a_state_read_back_from_bytes_still_fits)
{
	struct fitting f = fitting_new();
	struct core_buf bytes = state_bytes(&f.s);
	struct core_state again;
	struct kv_err err;

	ck_ok(core_state_decode(states_shard, bytes.data, bytes.len, &again, &err), err);
	ck_assert_str_eq(try(&again, f.inputs + 1, 2, f.output, false), "ok");
	core_buf_fini(&bytes);
	bytes = state_bytes(&again);
	core_state_fini(&again);
	ck_ok(core_state_decode(states_shard, bytes.data, bytes.len, &again, &err), err);
	ck_assert_str_eq(try(&again, f.inputs + 1, 2, f.output, false), "there");
	core_state_fini(&again);
	core_buf_fini(&bytes);
	fitting_free(&f);
}
END_TEST

START_TEST(results_that_cannot_be_right_are_refused)
{
	struct fitting f = fitting_new();
	struct core_batch *none = core_batch_new(core_frontier_at(1), core_frontier_at(3));

	f.output->parts[0].diffs_sum++;
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "Corrupt");
	f.output->parts[0].diffs_sum--;
	f.output->since = core_frontier_at(1); /* the shard's is 0 */
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "Corrupt");
	f.output->since = core_frontier_at(0);
	f.output->rows = f.output->parts[0].rows = 3; /* of 2 */
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "Corrupt");
	f.output->rows = f.output->parts[0].rows = 2;
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, none, true), "Corrupt"); /* readable still */
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, none, false), "Corrupt");
	f.s.tombstone = true;
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "no");
	f.s.tombstone = false;
	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "ok");
	core_batch_unref(none);
	fitting_free(&f);
}
END_TEST

START_TEST(sums_need_not_agree_where_bounds_hide_rows)
{
	struct core_state s = state_new();
	struct core_batch *b = batch_of(0, 1, 100, 1), *out;

	b->parts[0].max_time = 5; /* the batch was cut */
	b->parts[0].rows = b->rows = 3;
	b->parts[0].diffs_sum = 3;
	push(&s, core_batch_ref(b));
	out = output_of(&b, 1, core_frontier_at(0));
	out->parts[0].diffs_sum = 1;
	out->parts[0].rows = out->rows = 1;
	ck_assert_str_eq(try(&s, &b, 1, out, false), "ok");
	core_batch_unref(b);
	core_batch_unref(out);
	core_state_fini(&s);
}
END_TEST

START_TEST(what_was_collected_is_forgotten_and_what_the_state_does_not_have_is_passed_over)
{
	struct fitting f = fitting_new();
	struct core_part_id ids[3];
	struct core_diff d;
	struct kv_err err;
	bool changed;

	ck_assert_str_eq(try(&f.s, f.inputs + 1, 2, f.output, false), "ok");
	ids[0] = f.inputs[1]->parts[0].id;
	ids[1].u = core_uuid_new();
	ids[2] = f.inputs[0]->parts[0].id; /* that is alive */
	core_diff_init(&d);
	ck_ok(core_do_collect(&f.s, ids, 1, 0, &d, &changed, &err), err);
	ck_assert(changed);
	apply(&f.s, &d);
	ck_assert_uint_eq(f.s.dead_count, 1);
	core_diff_init(&d);
	ck_ok(core_do_collect(&f.s, ids, 1, 0, &d, &changed, &err), err);
	ck_assert(!changed);
	core_diff_fini(&d);
	core_diff_init(&d);
	ck_ok(core_do_collect(&f.s, ids + 1, 2, 0, &d, &changed, &err), err);
	ck_assert(!changed);
	core_diff_fini(&d);
	f.s.tombstone = true;
	core_diff_init(&d);
	ck_assert_int_eq(core_do_collect(&f.s, ids, 1, 0, &d, &changed, &err), KV_NO_SHARD);
	core_diff_fini(&d);
	f.s.tombstone = false;
	fitting_free(&f);
}
END_TEST

Suite *compact_suite(void)
{
	Suite *s = suite_create("compact");
	TCase *t = tcase_create("policy");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, batches_stay_few_and_a_row_is_written_few_times, 0, 8);
	tcase_add_test(t, no_blob_of_rows_is_smaller_than_what_the_policy_is_tried_with);
	tcase_add_test(t, the_oldest_is_merged_when_those_behind_it_weigh_half_of_it);
	tcase_add_test(t, replaced_rows_take_at_most_half_of_what_is_there);
	tcase_add_test(t, one_batch_with_many_runs_is_merged);
	tcase_add_test(t, of_a_shard_given_up_all_with_rows_is_picked_and_then_nothing);
	tcase_add_test(t, nothing_is_picked_of_the_tail_nor_outside_of_what_is_asked_for);
	tcase_add_test(t, picking_and_merging_ends_whatever_there_is);
	tcase_add_test(t, at_rest_one_run_is_left_unless_the_rest_is_small);
	suite_add_tcase(s, t);
	t = tcase_create("fitting");
	tcase_add_test(t, a_merge_takes_the_place_of_exactly_what_it_read);
	tcase_add_test(t, a_result_that_comes_again_after_another_merge_brings_nothing_back);
	tcase_add_test(t, inputs_with_the_same_bounds_and_other_parts_do_not_fit);
	tcase_add_test(t, a_part_of_what_was_read_does_not_fit_when_the_rest_has_changed);
	tcase_add_test(t, inputs_that_reach_beyond_the_end_do_not_fit);
	tcase_add_test(t, a_state_read_back_from_bytes_still_fits);
	tcase_add_test(t, results_that_cannot_be_right_are_refused);
	tcase_add_test(t, sums_need_not_agree_where_bounds_hide_rows);
	tcase_add_test(t, what_was_collected_is_forgotten_and_what_the_state_does_not_have_is_passed_over);
	suite_add_tcase(s, t);
	return s;
}
