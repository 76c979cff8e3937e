/*
 * linear.c - random short histories of several clients of a shard, each of which must be linearizable; and that
 * the checker of that can say no.
 *
 * SEED=<n> makes the same calls again, if not the same meetings of them. LINEAR=<n> runs so many histories instead
 * of the default. A seed that failed becomes a line of tests/regress/linear.seeds.
 */
#include "tests/fs/linear_client.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

enum { HISTORIES = 1000, AT_ONCE = 3, KILLS = 40, AGAIN = 20 };

/* --- the checker can say no ------------------------------------------------------------------------ */

/*
 * A right history, by a clock that counts tens:
 *
 *     10-20  a   [0, 2)    acknowledged, x at 0, and k +1
 *     30-40  b   [2, 3)    unknown; it took effect: y at 2, k -1
 *     50-60  c   [2, 5)    refused, the upper is 3
 *     70-80  d   lower 2, upper 6: cut to [3, 6): z at 3, 4, 5
 *     90-99  e   ends it: w at 6
 */
enum { A, B, C, D, E };

static struct lin_append *make_append(struct lin_history *h, enum lin_form form, enum lin_outcome outcome,
				      uint64_t start, uint64_t lower, uint64_t upper)
{
	struct lin_append *a = lin_add_append(h);

	*a = (struct lin_append){
		.form = form, .outcome = outcome, .start = start, .last_start = start, .end = start + 10, .lower = lower,
		.upper = upper};
	return a;
}

static void make_step(struct lin_listener *l, uint64_t lower, uint64_t upper, uint64_t seen)
{
	static const struct lin_row rows[] = {{0, 1, "x"}, {0, 1, "k"}, {2, 1, "y"}, {2, -1, "k"}, {3, 1, "z"},
					      {4, 1, "z"}, {5, 1, "z"}, {6, 1, "w"}};

	*lin_add_step(l) = (struct lin_step){.lower = lower, .upper = upper, .seen = seen};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (lower <= rows[i].time && rows[i].time < upper)
			lin_add_step_row(l, &rows[i]);
}

static void make_read(struct lin_history *h, enum lin_kind kind, uint64_t start, uint64_t end, uint64_t value,
		      const char *text)
{
	*lin_add_read(h) =
		(struct lin_read){.kind = kind, .start = start, .end = end, .value = value, .text = strdup(text)};
}

enum { UPPER_0, UPPER_3, SNAPSHOT_1, SNAPSHOT_5, AS_OF_3, EMPTY };

static struct lin_history right_history(void)
{
	struct lin_history h = {0};
	struct lin_listener *l = lin_add_listener(&h);
	struct lin_append *a;

	l->ended = true;
	make_step(l, 0, LIN_END, 200);
	l = lin_add_listener(&h);
	make_step(l, 0, 2, 25);
	make_step(l, 2, 3, 45);
	make_step(l, 3, 6, 75);
	a = make_append(&h, LIN_CAS, LIN_DONE, 10, 0, 2);
	a->told = true;
	a->told_upper = 2;
	lin_add_row(a, 0, 1, "x");
	lin_add_row(a, 0, 1, "k");
	a = make_append(&h, LIN_CAS, LIN_UNKNOWN, 30, 2, 3);
	lin_add_row(a, 2, 1, "y");
	lin_add_row(a, 2, -1, "k");
	a = make_append(&h, LIN_CAS, LIN_REFUSED, 50, 2, 5);
	a->told = true;
	a->told_upper = 3;
	lin_add_row(a, 2, 1, "v");
	a = make_append(&h, LIN_INTERVAL, LIN_DONE, 70, 2, 6);
	a->told = true;
	a->told_lower = 3;
	a->told_upper = 6;
	for (uint64_t t = 2; t < 6; t++)
		lin_add_row(a, t, 1, "z");
	a = make_append(&h, LIN_BLIND, LIN_DONE, 90, 0, LIN_END);
	lin_add_row(a, LIN_STAR, 1, "w");
	make_read(&h, LIN_UPPER, 5, 12, 0, "");
	make_read(&h, LIN_UPPER, 32, 45, 3, "");
	make_read(&h, LIN_SNAPSHOT, 15, 35, 0, "1\t1\tk\tv\n1\t1\tx\tv\n");
	make_read(&h, LIN_SNAPSHOT, 75, 82, 0, "5\t1\tx\tv\n5\t1\ty\tv\n5\t3\tz\tv\n");
	make_read(&h, LIN_AS_OF, 1, 90, 3, "3\t1\tx\tv\n3\t1\ty\tv\n3\t1\tz\tv\n");
	make_read(&h, LIN_SNAPSHOT, 1, 11, 0, "");
	return h;
}

static struct lin_history h;

static void want_wrong(const char *what, const char *like)
{
	char why[LIN_WHY] = "";

	ck_assert_msg(!lin_check(&h, why), "the checker takes %s", what);
	ck_assert_msg(strstr(why, like) != NULL, "%s: it says: %s", what, why);
	lin_free(&h);
	h = right_history();
}

static void set_text(size_t read, const char *text)
{
	free(h.reads[read].text);
	h.reads[read].text = strdup(text);
}

START_TEST(a_right_history_is_right)
{
	char why[LIN_WHY] = "";

	h = right_history();
	ck_assert_msg(lin_check(&h, why), "%s", why);
	/* the unknown one without effect, and an advance of unknown outcome in its place */
	h.appends[B].row_count = 0;
	for (size_t i = 0; i < 2; i++) {
		struct lin_listener *l = &h.listeners[i];
		size_t n = 0;

		for (size_t k = 0; k < l->row_count; k++)
			if (l->rows[k].time != 2)
				l->rows[n++] = l->rows[k];
		l->row_count = n;
	}
	h.listeners[0].steps[0].row_count -= 2;
	h.listeners[1].steps[1].row_count -= 2;
	set_text(SNAPSHOT_5, "5\t1\tk\tv\n5\t1\tx\tv\n5\t3\tz\tv\n");
	set_text(AS_OF_3, "3\t1\tk\tv\n3\t1\tx\tv\n3\t1\tz\tv\n");
	ck_assert_msg(lin_check(&h, why), "%s", why);
	lin_free(&h);
}
END_TEST

START_TEST(wrong_moments_are_found)
{
	h = right_history();
	h.reads[UPPER_0].start = 21;
	h.reads[UPPER_0].end = 24;
	want_wrong("a read that misses what was acknowledged", "a read of the upper");
	h.reads[UPPER_3].start = 22;
	h.reads[UPPER_3].end = 29;
	want_wrong("a read of what was not begun", "its start");
	make_read(&h, LIN_UPPER, 46, 49, 2, "");
	want_wrong("an upper that goes back", "a read of the upper");
	make_read(&h, LIN_UPPER, 47, 49, 2, "");
	h.reads[UPPER_3].end = 200;
	want_wrong("an upper that is behind a listener", "a listener");
	h.reads[SNAPSHOT_1].start = 46;
	h.reads[SNAPSHOT_1].end = 48;
	want_wrong("a snapshot of long ago", "a snapshot");
	h.reads[EMPTY].start = 22;
	h.reads[EMPTY].end = 24;
	want_wrong("an empty snapshot when there was something", "empty");
	h.reads[AS_OF_3].end = 65;
	want_wrong("an as_of that did not wait", "an as_of");
	h.appends[C].told_upper = 6;
	want_wrong("a refusal by what was not yet", "refus");
	h.appends[C].start = h.appends[C].last_start = 81;
	h.appends[C].end = 88;
	want_wrong("a refusal by what was not any more", "refus");
	h.listeners[1].steps[1].seen = 29;
	want_wrong("a listener ahead of the writer", "a listener");
	h.appends[A].end = 200;
	h.appends[B].end = 28;
	h.appends[B].start = 5;
	h.appends[B].outcome = LIN_DONE;
	h.appends[A].start = 29;
	want_wrong("commits against the order of their calls", "its start");
	lin_free(&h);
}
END_TEST

START_TEST(wrong_outcomes_are_found)
{
	h = right_history();
	h.appends[B].outcome = LIN_REFUSED;
	want_wrong("a refused append that is there", "was refused, and is there");
	h.appends[C].outcome = LIN_DONE;
	want_wrong("an acknowledged append that is lost", "is not there");
	h.appends[C].told_upper = 4;
	want_wrong("an upper that never was", "never was");
	h.appends[C].lower = 3;
	want_wrong("a refusal without a reason", "was refused at");
	h.appends[D].told_lower = 2;
	want_wrong("a verdict that is not true", "was told");
	h.appends[A].upper = h.appends[A].told_upper = 3;
	want_wrong("two in one place", "two appends");
	h.appends[B].upper = 4;
	want_wrong("overlapping appends", "two appends");
	h.appends[A].upper = h.appends[A].told_upper = 1;
	want_wrong("a hole", "nothing moved");
	h.appends[D].told_lower = h.appends[D].told_upper = 6;
	want_wrong("an append that says it did nothing", "had nothing to do");
	lin_add_step_row(&h.listeners[0], &(struct lin_row){4, 1, "y"});
	want_wrong("one that was done twice", "more than once");
	h.appends[E].upper = 3;
	want_wrong("a shard that is not finished", "not finished");
	lin_free(&h);
}
END_TEST

START_TEST(wrong_contents_are_found)
{
	h = right_history();
	set_text(SNAPSHOT_5, "5\t1\tx\tv\n5\t3\tz\tv\n");
	want_wrong("a reader for whom the unknown was not done", "a snapshot at 5: line 2");
	set_text(SNAPSHOT_5, "5\t1\tx\tv\n5\t1\ty\tv\n5\t3\tz\tv\n5\t1\tw\tv\n");
	want_wrong("a snapshot of more", "a snapshot at 5: line 4");
	set_text(SNAPSHOT_1, "1\t2\tk\tv\n1\t1\tx\tv\n");
	want_wrong("a sum that is not", "a snapshot at 1: line 1");
	set_text(AS_OF_3, "3\t1\tx\tv\n3\t1\ty\tv\n3\t3\tz\tv\n");
	want_wrong("an as_of of later times", "an as_of at 3: line 3");
	set_text(AS_OF_3, "3\t1\ty\tv\n3\t1\tx\tv\n3\t1\tz\tv\n");
	want_wrong("an as_of out of order", "an as_of at 3: line 1");
	lin_add_step_row(&h.listeners[1], &(struct lin_row){4, 1, "z"});
	want_wrong("a listener with a row twice", "has not just z at 4");
	h.listeners[1].rows[6].time = 5;
	h.listeners[1].rows[5].time = 5;
	want_wrong("a listener with a row at another time", "has not just z at 4");
	h.listeners[1].row_count--;
	h.listeners[1].steps[2].row_count--;
	want_wrong("a listener without a row", "has not just z at 5");
	lin_add_step_row(&h.listeners[1], &(struct lin_row){4, 1, "zz"});
	want_wrong("a listener with a row from nowhere", "which never was");
	h.listeners[1].steps[1].row_count--;
	h.listeners[1].steps[2].row_count++;
	want_wrong("a row outside its step", "got k at 2 in [3, 6)");
	h.listeners[1].steps[2].lower = 4;
	want_wrong("a gap between steps", "a listener at 3 got [4, 6)");
	h.listeners[1].steps[2].upper = 7;
	want_wrong("a step that ends nowhere", "never was 7");
	h.listeners[1].ended = true;
	want_wrong("a listener that ends early", "ended at 6");
	h.listeners[0].ended = false;
	want_wrong("nothing", "the truth");
	lin_free(&h);
}
END_TEST

/* --- histories ------------------------------------------------------------------------------------- */

static struct world w;
static struct lin_play plays[AT_ONCE];
static unsigned histories, calls, kills, unknown;

static void end_play(struct lin_play *p)
{
	char why[LIN_WHY];
	uint64_t seed = p->seed;
	bool cut = p->cut;

	if (!lin_play_end(p, why))
		ck_abort_msg("history %" PRIu64 " %d: %s; the mount's process %s", seed, cut, why,
			     waitpid(w.pid, NULL, WNOHANG) == 0 ? "lives" : "has died");
	histories++;
	calls += atomic_load(&p->calls);
	unknown += p->unknown;
}

/* Some at once on one mount, each on a shard of its own; it dies in the middle of a history that is cut. */
static void run_plays(struct rng *r, const uint64_t *seeds, unsigned count, bool cut)
{
	unsigned at = 0, of = 0;
	uint64_t since = 0;

	for (unsigned i = 0; i < count; i++) {
		lin_play_begin(&plays[i], shard_new(&w), seeds[i], cut);
		of += lin_play_calls(&plays[i]);
	}
	if (cut)
		at = (unsigned)rng_below(r, of);
	for (unsigned made = 0; cut && made < at && until_deadline(&since);) {
		made = 0;
		for (unsigned i = 0; i < count; i++)
			made += atomic_load(&plays[i].calls);
	}
	if (cut) {
		nanosleep(&(struct timespec){.tv_nsec = (long)rng_below(r, 500000)}, NULL);
		world_kill(&w);
		world_start(&w, NULL);
		kills++;
	}
	for (unsigned i = 0; i < count; i++)
		end_play(&plays[i]);
}

static void run_again(void)
{
	FILE *f = fopen("tests/regress/linear.seeds", "r");
	struct rng r = rng_new(500);
	char line[200];
	uint64_t seed;
	int cut;

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		for (int i = 0; i < AGAIN && sscanf(line, "%" SCNu64 " %d", &seed, &cut) == 2; i++)
			run_plays(&r, &seed, 1, cut != 0);
	if (f != NULL)
		fclose(f);
}

START_TEST(every_history_is_that_of_a_plain_shard)
{
	const char *given = getenv("LINEAR");
	unsigned count = given != NULL ? (unsigned)strtoul(given, NULL, 10) : HISTORIES, rounds = count / AT_ONCE + 1;
	struct rng r = rng_new(501);

	world_open(&w);
	run_again();
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t seeds[AT_ONCE];
		bool cut = (uint64_t)(i + 1) * KILLS / rounds != (uint64_t)i * KILLS / rounds;

		for (unsigned k = 0; k < AT_ONCE; k++)
			seeds[k] = rng_below(&r, 0);
		run_plays(&r, seeds, AT_ONCE, cut);
	}
	printf("tests/fs: %u histories, %u calls, %u kills, %u outcomes never known\n", histories, calls, kills, unknown);
	world_stop(&w);
	free(want_sh("%s fsck %s", shardctl_path(), w.store));
	world_close(&w);
}
END_TEST

Suite *linear_suite(void)
{
	Suite *s = suite_create("linear");
	TCase *tc = world_case(s, "linear", 600);

	tcase_add_test(tc, a_right_history_is_right);
	tcase_add_test(tc, wrong_moments_are_found);
	tcase_add_test(tc, wrong_outcomes_are_found);
	tcase_add_test(tc, wrong_contents_are_found);
	tcase_add_test(tc, every_history_is_that_of_a_plain_shard);
	return s;
}
