/*
 * test_holds.c - the durable holds of named consumers: where they may be made, how they move and are fenced,
 * and since, which is the least of them and of what readers need.
 */
#include "core/transition.h"
#include "tests/core/batches.h"
#include "tests/core/suites.h"

static struct core_frontier at(uint64_t t)
{
	return core_frontier_at(t);
}

static const char *hold_text(enum kv_rc rc, const struct core_hold *h)
{
	static char line[100];
	char since[CORE_FRONTIER_LEN];

	snprintf(line, sizeof line, "%s %s %llu", kv_rc_name(rc), core_frontier_format(h->since, since),
		 (unsigned long long)h->token);
	return line;
}

/* "5", or "expected token since" to compare; the answer as "Ok 5 0". */
static const char *set_err(struct core_shard *s, const char *name, const char *words, struct kv_err *err)
{
	char since[CORE_FRONTIER_LEN];
	unsigned long long expected, token;
	struct core_hold_ask ask = {0};
	struct core_hold out;

	ask.compare = sscanf(words, "%llu %llu %23s", &expected, &token, since) == 3;
	if (ask.compare) {
		ask.expected = expected;
		ask.token = token;
	}
	words = ask.compare ? since : words;
	ck_assert(core_frontier_parse(words, strlen(words), &ask.since));
	return hold_text(core_hold_set(s, name, &ask, &out, err), &out);
}

static const char *set(struct core_shard *s, const char *name, const char *words)
{
	struct kv_err err;

	return set_err(s, name, words, &err);
}

static const char *get(struct core_shard *s, const char *name)
{
	struct core_hold out;
	struct kv_err err;
	enum kv_rc rc = core_hold_get(s, name, &out, &err);

	return rc == KV_OK ? hold_text(rc, &out) : kv_rc_name(rc);
}

static const char *drop(struct core_shard *s, const char *name)
{
	struct kv_err err;

	return kv_rc_name(core_hold_drop(s, name, &err));
}

static const char *move(struct core_shard *s, struct core_frontier to, uint64_t follow)
{
	struct kv_err err;

	return kv_rc_name(core_shard_move_hold(s, CORE_DEFAULT_HOLD, to, follow, &err));
}

static void advance(struct core_shard *s, uint64_t by)
{
	char options[60];

	sprintf(options, "expected_upper=* new_upper=+%llu", (unsigned long long)by);
	ck_assert(strncmp(verdict(s, options, ""), "ok", 2) == 0);
}

static uint64_t seqno_of(struct core_shard *s)
{
	struct core_info info;
	struct kv_err err;

	ck_ok(core_shard_info(s, true, &info, &err), err);
	return info.seqno;
}

/* --- making and moving ----------------------------------------------------------------------------- */

START_TEST(a_hold_is_made_at_or_above_since)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_shard *s = rig.shard;
	struct kv_err err;

	ck_assert_str_eq(get(s, CORE_DEFAULT_HOLD), "Ok 0 0");
	ck_assert_str_eq(get(s, "a"), kv_rc_name(KV_NOTFOUND));
	advance(s, 10);
	ck_assert_str_eq(move(s, at(5), 0), "Ok");
	ck_assert_str_eq(set_err(s, "a", "4", &err), "CompactedAway 0 0");
	ck_assert_str_eq(err.detail, "since=4 shard_since=5");
	ck_assert_str_eq(set(s, "a", "0 7 4"), "CompactedAway 0 0");
	ck_assert_str_eq(get(s, "a"), kv_rc_name(KV_NOTFOUND));
	ck_assert_str_eq(set(s, "a", "5"), "Ok 5 0");
	ck_assert_str_eq(set(s, "b", "0 18446744073709551615 7"), "Ok 7 18446744073709551615");
	ck_assert_str_eq(set(s, "c", "30"), "Ok 30 0");
	ck_assert_str_eq(set(s, "d", "-"), "Ok - 0");
	ck_assert_str_eq(move(s, at(20), 0), "Ok");
	ck_assert_str_eq(frontiers(s), "5 10");
	check_sound(s);
	rig_free(&rig);
}
END_TEST

START_TEST(a_hold_only_moves_forward)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard *s = rig.shard;
	uint64_t seqno;

	ck_assert_str_eq(set(s, "a", "3"), "Ok 3 0");
	seqno = seqno_of(s);
	ck_assert_str_eq(set(s, "a", "2"), "Ok 3 0");
	ck_assert_str_eq(set(s, "a", "3"), "Ok 3 0");
	ck_assert_str_eq(set(s, "a", "0 0 1"), "Ok 3 0");
	ck_assert_uint_eq(seqno_of(s), seqno);            /* no version for nothing */
	ck_assert_str_eq(set(s, "a", "0 9 1"), "Ok 3 9"); /* its token is set all the same */
	ck_assert_str_eq(set(s, "a", "9 9 8"), "Ok 8 9");
	ck_assert_str_eq(set(s, "a", "9 0 -"), "Ok - 0");
	ck_assert_str_eq(set(s, "a", "3"), "Ok - 0");
	ck_assert_str_eq(get(s, "a"), "Ok - 0");
	rig_free(&rig);
}
END_TEST

START_TEST(a_token_keeps_others_away)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_shard *s = rig.shard;
	struct kv_err err;

	ck_assert_str_eq(set_err(s, "new", "1 2 3", &err),
			 "HoldFenced 0 0"); /* one that is not there has 0 */
	ck_assert_str_eq(err.detail, "hold=new since=0 token=0");
	ck_assert_str_eq(set(s, "a", "0 1 3"), "Ok 3 1");
	ck_assert_str_eq(set_err(s, "a", "5", &err), "HoldFenced 3 1");
	ck_assert_str_eq(err.detail, "hold=a since=3 token=1");
	ck_assert_str_eq(set(s, "a", "1"), "HoldFenced 3 1"); /* also where it would change nothing */
	ck_assert_str_eq(set(s, "a", "0 2 5"), "HoldFenced 3 1");
	ck_assert_str_eq(set(s, "a", "1 18446744073709551615 5"), "Ok 5 18446744073709551615");
	ck_assert_str_eq(set(s, "a", "1 2 6"), "HoldFenced 5 18446744073709551615");
	ck_assert_str_eq(set(s, "a", "18446744073709551615 1 6"), "Ok 6 1");
	ck_assert_str_eq(drop(s, "a"), kv_rc_name(KV_NOT_HERE));
	ck_assert_str_eq(set(s, "a", "1 1 -"), "Ok - 1");
	ck_assert_str_eq(drop(s, "a"), "Ok");
	ck_assert_str_eq(set(s, "a", "4"), "Ok 4 0"); /* begun anew */
	ck_assert_str_eq(set(s, "a", "0 5 4"), "Ok 4 5");
	ck_assert_str_eq(set(s, "a", "5 0 4"), "Ok 4 0"); /* given back to the plain forms */
	ck_assert_str_eq(set(s, "a", "6"), "Ok 6 0");
	rig_free(&rig);
}
END_TEST

START_TEST(the_default_hold_is_fenced_like_any)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_shard *s = rig.shard;
	uint64_t seqno;

	ck_assert_str_eq(verdict(s, "expected_upper=0 new_upper=10 since=2 token=1", "1 1 a x;"),
			 "ok 0 10 updates=1");
	ck_assert_str_eq(set(s, CORE_DEFAULT_HOLD, "0 7 3"), "Ok 3 7");
	ck_assert_str_eq(move(s, at(5), 0), "HoldFenced");
	ck_assert_str_eq(move(s, at(1), 0), "HoldFenced");
	ck_assert_str_eq(move(s, at(0), 2), "HoldFenced");

	/* The since option is a plain form too, and goes with the whole append. */
	seqno = seqno_of(s);
	ck_assert_str_eq(verdict(s, "expected_upper=10 new_upper=12 since=5", "10 1 b x;"),
			 "HoldFenced hold=default since=3 token=7");
	ck_assert_str_eq(verdict(s, "expected_upper=10 new_upper=10 since=1", ""),
			 "HoldFenced hold=default since=3 token=7");
	ck_assert_str_eq(verdict(s, "expected_upper=* new_upper=+1 since=-", "* 1 b x;"),
			 "HoldFenced hold=default since=3 token=7");
	ck_assert_str_eq(verdict(s, "lower=5 upper=12 since=5 token=2", "11 1 b x;"),
			 "HoldFenced hold=default since=3 token=7");
	stage_whole(s, "staged", NULL, "10 1 b x;");
	ck_assert_str_eq(verdict_staged(s, "expected_upper=10 new_upper=12 since=5", "staged", ""),
			 "HoldFenced hold=default since=3 token=7");
	ck_assert(staged_there(s, "staged"));
	ck_assert_uint_ge(seqno_of(s), seqno);
	ck_assert_str_eq(frontiers(s), "3 10");
	/* What says nothing of it, or does nothing, is answered as ever. */
	ck_assert_str_eq(verdict(s, "expected_upper=0 new_upper=10 since=2 token=1", "1 1 a x;"),
			 "same 0 10 updates=1");
	ck_assert_str_eq(verdict(s, "expected_upper=3 new_upper=12 since=5", ""),
			 "UpperMismatch expected_upper=3 current_upper=10");
	ck_assert_str_eq(verdict(s, "lower=5 upper=10 since=5", "6 1 a x;"), "same 10 10 updates=0");
	ck_assert_str_eq(verdict_staged(s, "expected_upper=10 new_upper=12", "staged", "11 1 b x;"),
			 "ok 10 12 updates=2");
	ck_assert_str_eq(frontiers(s), "3 12");

	ck_assert_str_eq(drop(s, CORE_DEFAULT_HOLD), kv_rc_name(KV_NOT_HERE));
	ck_assert_str_eq(set(s, CORE_DEFAULT_HOLD, "7 7 -"), "Ok - 7");
	ck_assert_str_eq(drop(s, CORE_DEFAULT_HOLD), kv_rc_name(KV_NOT_HERE));
	check_sound(s);
	rig_free(&rig);
}
END_TEST

START_TEST(names_are_as_of_staged_batches)
{
	struct rig rig = rig_new(DISK_MEM);
	char longest[CORE_HOLD_NAME_LEN + 1];
	struct core_hold out;
	struct kv_err err;

	memset(longest, 'a', sizeof longest);
	longest[CORE_HOLD_NAME_LEN] = '\0';
	ck_assert_int_eq(core_hold_set(rig.shard, longest, &(struct core_hold_ask){0}, &out, &err),
			 KV_BAD_NAME);
	longest[CORE_HOLD_NAME_LEN - 1] = '\0';
	ck_assert_str_eq(set(rig.shard, longest, "1"), "Ok 1 0");
	ck_assert_str_eq(get(rig.shard, longest), "Ok 1 0");
	ck_assert_int_eq(core_hold_set(rig.shard, "", &(struct core_hold_ask){0}, NULL, &err), KV_BAD_NAME);
	ck_assert_int_eq(core_hold_set(rig.shard, "a/b", &(struct core_hold_ask){0}, NULL, &err),
			 KV_BAD_NAME);
	ck_assert_str_eq(get(rig.shard, "a/b"), kv_rc_name(KV_NOTFOUND));
	ck_assert_str_eq(drop(rig.shard, "nobody"), kv_rc_name(KV_NOTFOUND));
	rig_free(&rig);
}
END_TEST

START_TEST(there_are_so_many_and_no_more)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_hold *list, out;
	struct core_state state;
	struct core_diff d;
	struct kv_err err;
	size_t count;
	bool changed;

	/* On a bare state: that many commits are checked too slowly. */
	ck_ok(core_shard_state(rig.shard, &state, &err), err);
	free(state.holds);
	state.holds = calloc(CORE_HOLDS_MAX, sizeof *state.holds);
	state.hold_count = CORE_HOLDS_MAX;
	for (int i = 0; i < CORE_HOLDS_MAX; i++)
		snprintf(state.holds[i].name, CORE_HOLD_NAME_LEN, i == 0 ? "default" : "h%04d", i);
	for (int i = 0; i < 2; i++) {
		core_diff_init(&d);
		state.hold_count = (size_t)(CORE_HOLDS_MAX - i);
		ck_assert_int_eq(core_do_set_hold(&state, "one more", &(struct core_hold_ask){0}, &d, &out,
						  &changed, &err),
				 i == 0 ? KV_QUOTA : KV_OK);
		ck_assert_int_eq(changed, i == 1);
		core_diff_fini(&d);
	}
	core_diff_init(&d); /* those that are there go on */
	state.hold_count = CORE_HOLDS_MAX;
	ck_ok(core_do_set_hold(&state, "h0007", &(struct core_hold_ask){.since = at(3)}, &d, &out, &changed,
			       &err),
	      err);
	ck_assert(changed);
	core_diff_fini(&d);
	core_state_fini(&state);

	for (int i = 0; i < 60; i++) {
		char name[20], since[20];

		sprintf(name, "h%d", i);
		sprintf(since, "%d", 60 - i);
		set(rig.shard, name, since);
	}
	ck_ok(core_hold_list(rig.shard, &list, &count, &err), err);
	ck_assert_uint_eq(count, 61);
	free(list);
	check_sound(rig.shard);
	rig_free(&rig);
}
END_TEST

/* --- the policy ------------------------------------------------------------------------------------ */

START_TEST(the_policy_ends_with_a_frontier_of_any_form)
{
	static const char *const ends[] = {"move 9",    "move 2",    "set 9",    "set 2",   "set 5",
					   "compare 9", "compare 2", "option 9", "option 2"};
	const char *how = ends[_i];
	uint64_t to = strtoull(strchr(how, ' ') + 1, NULL, 10);
	char words[60];
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard *s = rig.shard;

	advance(s, 7);
	ck_assert_str_eq(move(s, at(0), 2), "Ok");
	ck_assert_str_eq(get(s, CORE_DEFAULT_HOLD), "Ok 5 0");
	if (how[0] == 'm') {
		ck_assert_str_eq(move(s, at(to), 0), "Ok");
	} else if (how[0] == 's') {
		ck_assert(strncmp(set(s, CORE_DEFAULT_HOLD, strchr(how, ' ') + 1), "Ok", 2) == 0);
	} else if (how[0] == 'c') {
		sprintf(words, "0 1 %d", (int)to);
		ck_assert(strncmp(set(s, CORE_DEFAULT_HOLD, words), "Ok", 2) == 0);
	} else {
		sprintf(words, "expected_upper=7 new_upper=7 since=%d", (int)to);
		ck_assert(strncmp(verdict(s, words, ""), "ok", 2) == 0);
	}
	advance(s, 20);
	ck_assert_str_eq(frontiers(s), to == 9 ? "9 27" : "5 27");
	rig_free(&rig);
}
END_TEST

START_TEST(the_policy_keeps_its_distance_and_goes_no_further_than_the_finish)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_shard *s = rig.shard;

	ck_assert_str_eq(move(s, at(0), 5), "Ok");
	advance(s, 5);
	ck_assert_str_eq(frontiers(s), "0 5");
	advance(s, 1);
	ck_assert_str_eq(frontiers(s), "1 6");
	ck_assert_str_eq(move(s, at(0), UINT64_MAX), "Ok");
	advance(s, 100);
	ck_assert_str_eq(frontiers(s), "1 106");
	ck_assert_str_eq(move(s, at(0), 1), "Ok");
	ck_assert_str_eq(frontiers(s), "105 106");
	rig_crash_and_reopen(&rig);
	s = rig.shard;
	advance(s, 4);
	ck_assert_str_eq(frontiers(s), "109 110");
	ck_assert_str_eq(set(s, "a", "108"), "CompactedAway 0 0");
	ck_assert_str_eq(set(s, "a", "109"), "Ok 109 0");
	ck_assert_str_eq(verdict(s, "expected_upper=110 new_upper=-", ""), "ok 110 - updates=0");
	ck_assert_str_eq(get(s, CORE_DEFAULT_HOLD), "Ok 109 0");
	rig_free(&rig);
}
END_TEST

/* --- since ----------------------------------------------------------------------------------------- */

START_TEST(since_is_the_least_of_holds_and_needs_and_never_goes_back)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct core_shard *s = rig.shard;
	struct core_need need = {.reader.purpose = "a reader"};
	struct kv_err err;

	advance(s, 50);
	ck_ok(core_shard_need(s, &need, 6, &err), err);
	set(s, "a", "10");
	set(s, "b", "0 1 4");
	ck_assert_str_eq(frontiers(s), "0 50");
	move(s, at(30), 0);
	ck_assert_str_eq(frontiers(s), "4 50");
	set(s, "b", "1 1 20");
	ck_assert_str_eq(frontiers(s), "6 50");
	core_shard_release(s, &need);
	set(s, "b", "1 1 21");
	ck_assert_str_eq(frontiers(s), "10 50");
	ck_assert_str_eq(drop(s, "a"), "Ok");
	ck_assert_str_eq(frontiers(s), "21 50");
	set(s, "b", "1 1 -");
	ck_assert_str_eq(frontiers(s), "30 50");
	ck_assert_str_eq(set(s, "c", "20"), "CompactedAway 0 0");
	ck_assert_str_eq(set(s, "c", "40"), "Ok 40 0");
	ck_assert_str_eq(frontiers(s), "30 50");
	move(s, core_frontier_empty(), 0);
	ck_assert_str_eq(frontiers(s), "40 50");
	ck_assert_str_eq(drop(s, "c"), "Ok");
	ck_assert_str_eq(frontiers(s), "- 50");
	ck_assert_str_eq(drop(s, "b"), "Ok");
	ck_assert_str_eq(frontiers(s), "- 50");
	ck_assert_str_eq(set(s, "d", "60"), "CompactedAway 0 0");
	ck_assert_str_eq(set(s, "d", "-"), "Ok - 0");
	check_sound(s);
	rig_free(&rig);
}
END_TEST

START_TEST(at_random_since_is_the_least_of_all)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct second other = _i == 0 ? (struct second){.shard = rig.shard} : second_open(&rig);
	struct rng r = rng_new(40 + (uint64_t)_i);
	uint64_t least = 0, model[6] = {0}; /* the default, then a..e: since + 1, or 0: not there */
	char name[8], since[30];

	model[0] = 1;
	for (int step = 0; step < 400; step++) {
		struct core_shard *s = rng_below(&r, 2) == 0 ? rig.shard : other.shard;
		size_t i = rng_below(&r, 6);
		uint64_t to = rng_below(&r, 6 + (uint64_t)step), was = model[i];
		const char *want = "Ok", *got;
		uint64_t now = UINT64_MAX;

		snprintf(name, sizeof name, "%s", i == 0 ? CORE_DEFAULT_HOLD : (char[]){(char)('a' + i), 0});
		sprintf(since, "%llu", (unsigned long long)to);
		if (i != 0 && rng_below(&r, 3) == 0) {
			want = was != 0 ? "Ok" : kv_rc_name(KV_NOTFOUND);
			model[i] = 0;
			got = drop(s, name);
		} else {
			if (was == 0 && to < least)
				want = "CompactedAway";
			else if (to + 1 > was)
				model[i] = to + 1;
			got = set(s, name, since);
		}
		ck_assert_msg(strncmp(got, want, strlen(want)) == 0, "step %d: %s %s: %s", step, name, since,
			      got);
		for (size_t j = 0; j < 6; j++)
			now = model[j] != 0 && model[j] - 1 < now ? model[j] - 1 : now;
		least = now > least ? now : least;
		sprintf(since, "%llu 0", (unsigned long long)least);
		ck_assert_str_eq(frontiers(rng_below(&r, 2) == 0 ? rig.shard : other.shard), since);
	}
	if (_i != 0)
		second_close(&other);
	rig_free(&rig);
}
END_TEST

/* --- durable, and on a shared store ---------------------------------------------------------------- */

START_TEST(holds_outlive_their_engine)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_EMBEDDED);
	struct core_shard *s = rig.shard;

	advance(s, 9);
	set(s, "a", "0 18446744073709551615 4");
	set(s, "b", "7");
	set(s, "gone", "2");
	move(s, at(8), 0);
	ck_assert_str_eq(drop(s, "gone"), "Ok");
	rig_crash_and_reopen(&rig);
	s = rig.shard;
	ck_assert_str_eq(get(s, "a"), "Ok 4 18446744073709551615");
	ck_assert_str_eq(get(s, "b"), "Ok 7 0");
	ck_assert_str_eq(get(s, CORE_DEFAULT_HOLD), "Ok 8 0");
	ck_assert_str_eq(get(s, "gone"), kv_rc_name(KV_NOTFOUND));
	ck_assert_str_eq(frontiers(s), "4 9");
	for (int i = 0; i < 2 * CORE_ROLLUP_VERSIONS; i++) /* over a rollup */
		advance(s, 1);
	rig_settle(&rig);
	rig_crash_and_reopen(&rig);
	ck_assert_str_eq(get(rig.shard, "a"), "Ok 4 18446744073709551615");
	rig_free(&rig);
}
END_TEST

START_TEST(no_stale_state_answers_on_a_shared_store)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct second other = second_open(&rig);
	struct core_shard *a = rig.shard, *b = other.shard;
	struct core_hold *list;
	struct kv_err err;
	size_t count;

	ck_assert_str_eq(set(a, "h", "0 1 3"), "Ok 3 1");
	ck_assert_str_eq(get(b, "h"), "Ok 3 1");
	ck_assert_str_eq(set(a, "h", "1 2 4"), "Ok 4 2");
	ck_assert_str_eq(set(b, "h", "1 9 8"), "HoldFenced 4 2"); /* who was fenced off is told */
	ck_assert_str_eq(set(a, "h", "2 3 5"), "Ok 5 3");
	ck_assert_str_eq(set(b, "h", "3 4 5"), "Ok 5 4"); /* a stale refusal would be wrong */
	ck_assert_str_eq(set(a, "p", "6"), "Ok 6 0");
	ck_assert_str_eq(set(b, "p", "6"), "Ok 6 0");
	ck_assert_str_eq(set(a, "p", "7"), "Ok 7 0");
	ck_assert_str_eq(set(b, "p", "6"), "Ok 7 0"); /* nor "nothing to do" from one */
	ck_assert_str_eq(drop(a, "p"), "Ok");
	ck_assert_str_eq(get(b, "p"), kv_rc_name(KV_NOTFOUND));
	ck_assert_str_eq(set(a, "p", "7"), "Ok 7 0");
	ck_ok(core_hold_list(b, &list, &count, &err), err);
	ck_assert_uint_eq(count, 3);
	free(list);
	ck_assert_str_eq(drop(b, "p"), "Ok");
	ck_assert_str_eq(drop(a, "p"), kv_rc_name(KV_NOTFOUND));
	ck_assert_str_eq(move(a, at(2), 0), "Ok");
	ck_assert_str_eq(set(b, "below", "1"), "CompactedAway 0 0");
	second_close(&other);
	rig_free(&rig);
}
END_TEST

START_TEST(a_removed_shard_has_no_holds)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct second other = _i == 0 ? (struct second){.shard = rig.shard} : second_open(&rig);
	struct core_hold *list;
	struct kv_err err;
	size_t count;

	set(other.shard, "a", "3");
	ck_assert_str_eq(verdict(rig.shard, "expected_upper=0 new_upper=- since=-", ""), "ok 0 - updates=0");
	ck_assert_int_eq(core_shard_remove(rig.shard, &err), KV_NOT_FINISHED);
	set(rig.shard, "a", "-");
	ck_ok(core_shard_remove(rig.shard, &err), err); /* its versions stay while a handle is open */
	ck_assert_str_eq(get(other.shard, "a"), kv_rc_name(KV_NO_SHARD));
	ck_assert_int_eq(core_hold_list(other.shard, &list, &count, &err), KV_NO_SHARD);
	ck_assert_ptr_null(list);
	ck_assert_str_eq(set(other.shard, "b", "-"), "UnknownShard 0 0");
	ck_assert_str_eq(drop(other.shard, "a"), kv_rc_name(KV_NO_SHARD));
	if (_i != 0)
		second_close(&other);
	rig_free(&rig);
}
END_TEST

Suite *holds_suite(void)
{
	Suite *s = suite_create("holds");
	TCase *t = tcase_create("holds");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, a_hold_is_made_at_or_above_since, 0, 2);
	tcase_add_test(t, a_hold_only_moves_forward);
	tcase_add_loop_test(t, a_token_keeps_others_away, 0, 2);
	tcase_add_loop_test(t, the_default_hold_is_fenced_like_any, 0, 2);
	tcase_add_test(t, names_are_as_of_staged_batches);
	tcase_add_test(t, there_are_so_many_and_no_more);
	tcase_add_loop_test(t, the_policy_ends_with_a_frontier_of_any_form, 0, 9);
	tcase_add_test(t, the_policy_keeps_its_distance_and_goes_no_further_than_the_finish);
	tcase_add_loop_test(t, since_is_the_least_of_holds_and_needs_and_never_goes_back, 0, 2);
	tcase_add_loop_test(t, at_random_since_is_the_least_of_all, 0, 2);
	tcase_add_loop_test(t, holds_outlive_their_engine, 0, 2);
	tcase_add_test(t, no_stale_state_answers_on_a_shared_store);
	tcase_add_loop_test(t, a_removed_shard_has_no_holds, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
