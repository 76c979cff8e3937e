/*
 * test_property.c - random operations on a shard by several writers through several handles and engines, each
 * answer and what is read now and then compared with a plain model of the contract (tests/shadow.h).
 *
 * A round is one shard and one seed. A round that differs prints its seed, the step and the last operations,
 * and is added to tests/regress/property.seeds, which later runs do first. SEED=<n> repeats a whole run.
 * STEPS=<n> makes a run of n steps in all instead of the default, also under the sanitizers:
 *     SEED=1 STEPS=100000 CK_RUN_SUITE=property build/asan/tests/run-core
 */
#include "tests/core/property.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>

#include "core/scan.h"
#include "tests/core/suites.h"

enum { ROUND = 500, STEPS = 120000 };

/* --- telling --------------------------------------------------------------------------------------- */

static const char *const seeds_file = "tests/regress/property.seeds";
static struct round *current; /* for the handler of SIGABRT */

void tell(struct round *o, const char *fmt, ...)
{
	char *line = o->trace[o->traced++ % PR_TRACE];
	va_list ap;
	int at = snprintf(line, sizeof o->trace[0], "%u: ", o->step);

	va_start(ap, fmt);
	vsnprintf(line + at, sizeof o->trace[0] - (size_t)at, fmt, ap);
	va_end(ap);
}

void tell_more(struct round *o, const char *fmt, ...)
{
	char *line = o->trace[(o->traced - 1) % PR_TRACE];
	size_t at = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + at, sizeof o->trace[0] - at, fmt, ap);
	va_end(ap);
}

static void print_end(const struct round *o)
{
	FILE *f = o->known ? NULL : fopen(seeds_file, "a");

	fprintf(stderr, "property: seed %" PRIu64 " disk %d reopen %d, step %u; the last operations:\n",
		o->seed, (int)o->rig.disk->kind, o->reopen, o->step);
	for (unsigned i = o->traced < PR_TRACE ? 0 : o->traced - PR_TRACE; i < o->traced; i++)
		fprintf(stderr, "  %s\n", o->trace[i % PR_TRACE]);
	if (f != NULL) {
		fprintf(f, "%" PRIu64 " %d %d\n", o->seed, (int)o->rig.disk->kind, o->reopen);
		fclose(f);
	}
	fflush(stderr);
}

/* An assertion of the engine is a find too. */
static void aborted(int sig)
{
	signal(sig, SIG_DFL);
	if (current != NULL)
		print_end(current);
	raise(sig);
}

void differs(struct round *o, const char *what, const char *got, const char *want)
{
	print_end(o);
	current = NULL;
	ck_abort_msg("seed %" PRIu64 ", disk %d, step %u: %s: got \"%s\", not \"%s\"", o->seed,
		     (int)o->rig.disk->kind, o->step, what, got, want);
}

void compare(struct round *o, const char *what, const char *got, const char *want)
{
	if (strcmp(got, want) != 0)
		differs(o, what, got, want);
}

void want_rc(struct round *o, const char *what, enum kv_rc rc, const struct kv_err *err, enum kv_rc want)
{
	char got[600];

	tell_more(o, " -> %s", kv_rc_name(rc));
	if (rc == want)
		return;
	snprintf(got, sizeof got, "%s: %.400s", kv_rc_name(rc), rc != KV_OK ? err->msg : "");
	differs(o, what, got, kv_rc_name(want));
}

void works(struct round *o, const char *what, enum kv_rc rc, const struct kv_err *err)
{
	if (rc != KV_OK)
		want_rc(o, what, rc, err, KV_OK);
}

/* --- chance ---------------------------------------------------------------------------------------- */

uint64_t below(struct round *o, uint64_t n)
{
	return rng_below(&o->r, n);
}

bool one_in(struct round *o, uint64_t n)
{
	return below(o, n) == 0;
}

struct core_frontier around(struct round *o, struct core_frontier f)
{
	if (one_in(o, 300))
		return core_frontier_empty();
	uint64_t t = f.empty ? below(o, 50) : f.t + (one_in(o, 4) ? below(o, 6) : 2);
	return core_frontier_at(t < 2 ? 0 : t - 2);
}

struct sh_row random_row(struct round *o, uint64_t base, bool star)
{
	struct sh_row row = {.star = one_in(o, 2) && (star || one_in(o, 100)),
			     .kind = sh_kind_of(rng_next(&o->r) >> 8)};

	row.time = row.star ? 0 : base + below(o, 3);
	if (!row.star && one_in(o, 15))
		row.time = below(o, base + 6);
	row.diff = (int64_t)below(o, 7) - 3;
	if (one_in(o, 150))
		row.diff = one_in(o, 2) ? INT64_MAX : INT64_MIN;
	return row;
}

struct core_update update_of(const struct sh_row *row)
{
	return (struct core_update){.key = bytes_of(sh_key(row->kind)),
				    .val = bytes_of(sh_val(row->kind)),
				    .time = row->time,
				    .diff = row->diff};
}

int any_handle(struct round *o)
{
	return (int)below(o, PR_HANDLES);
}

void freshen(struct round *o, int handle)
{
	struct core_info info;
	struct kv_err err;

	if (o->engines[1] != NULL)
		works(o, "info", core_shard_info(o->handles[handle], true, &info, &err), &err);
}

/* --- reading --------------------------------------------------------------------------------------- */

static size_t print_sums(const __int128 sums[SH_KINDS], char *out, size_t room)
{
	size_t at = 0;

	out[0] = '\0';
	for (unsigned kind = 0; kind < SH_KINDS; kind++) {
		if (sums[kind] > INT64_MAX || sums[kind] < INT64_MIN)
			return at + (size_t)snprintf(out + at, room - at, "DiffOverflow");
		if (sums[kind] != 0)
			at += (size_t)snprintf(out + at, room - at, "%s %s %" PRId64 ";", sh_key(kind),
					       sh_val(kind), (int64_t)sums[kind]);
	}
	return at;
}

static void compare_content(struct round *o, int handle, uint64_t t)
{
	char want[8000], what[50];
	__int128 sums[SH_KINDS];
	enum kv_rc rc = shadow_sums(&o->m, t, sums);

	freshen(o, handle);
	char *got = content(o->handles[handle], t);
	if (rc == KV_OK)
		print_sums(sums, want, sizeof want);
	else
		snprintf(want, sizeof want, "%s", kv_rc_name(rc));
	snprintf(what, sizeof what, "as of %" PRIu64, t);
	compare(o, what, got, want);
	free(got);
}

static void compare_frontiers(struct round *o, int handle)
{
	char want[2 * CORE_FRONTIER_LEN], since[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];

	snprintf(want, sizeof want, "%s %s", core_frontier_format(o->m.since, since),
		 core_frontier_format(o->m.upper, upper));
	compare(o, "frontiers", frontiers(o->handles[handle]), want);
}

/* The sums of a batch's file, and that its rows lie within. */
static void sum_batch(struct round *o, struct core_shard *s, struct core_batch *b, __int128 sums[SH_KINDS])
{
	char *text = malloc(1 << 20), *line = text;
	struct core_row_scratch scratch = {0};
	struct core_scan *scan;
	struct kv_err err;
	uint64_t size;
	size_t len;

	memset(sums, 0, SH_KINDS * sizeof *sums);
	works(o, "scan", core_scan_open(core_shard_home(s), b, &scan, &err), &err);
	works(o, "read a batch", core_scan_read(scan, 0, text, (1 << 20) - 1, &len, &err), &err);
	text[len] = '\0';
	core_scan_close(scan);
	works(o, "size of a batch", core_scan_size(core_shard_home(s), b, &size, &err), &err);
	if (size != len)
		differs(o, "size of a batch", "other", "that of its text");
	while (*line != '\0') {
		struct core_row row;
		size_t row_len = strcspn(line, "\n");
		int kind;

		works(o, "a row", core_row_parse(line, row_len, &scratch, &row, &err), &err);
		kind = sh_kind((const char *)row.update.key.data, row.update.key.len,
			       (const char *)row.update.val.data, row.update.val.len);
		if (kind < 0 || !core_frontier_covers(b->lower, row.update.time) ||
		    core_frontier_covers(b->upper, row.update.time))
			differs(o, "a row of a batch", line, "one within it");
		sums[kind] += row.update.diff;
		line += row_len + 1;
	}
	core_row_scratch_free(&scratch);
	free(text);
}

/* They tile [0, upper), end where appends ended, and hold what was appended between. */
static void compare_batches(struct round *o, int handle)
{
	struct core_frontier at = core_frontier_at(0);
	__int128 got[SH_KINDS], want[SH_KINDS];
	struct core_state s;
	struct kv_err err;

	freshen(o, handle);
	works(o, "state", core_shard_state(o->handles[handle], &s, &err), &err);
	works(o, "soundness", core_state_check(&s, &err), &err);
	for (size_t i = 0; i < s.batch_count; i++) {
		struct core_batch *b = s.batches[i];

		if (!core_frontier_eq(b->lower, at) || !shadow_has_edge(&o->m, b->upper))
			differs(o, "bounds of batches", "others", "those of appends");
		at = b->upper;
		if (s.batch_count > 8 && i + 8 < s.batch_count && !one_in(o, 4))
			continue;
		sum_batch(o, o->handles[handle], b, got);
		shadow_sums_between(&o->m, b->lower, b->upper, want);
		/* Of a shard given up maintenance leaves nothing. */
		if (memcmp(got, want, sizeof got) != 0 && !(s.since.empty && b->rows == 0))
			differs(o, "rows of a batch", "others", "those appended");
	}
	if (!core_frontier_eq(at, o->m.upper))
		differs(o, "bounds of batches", "end elsewhere", "up to the upper");
	core_state_fini(&s);
}

/* --- handles and engines --------------------------------------------------------------------------- */

static void open_all(struct round *o)
{
	struct kv_err err;

	o->engines[0] = o->rig.engine;
	o->engines[1] = o->rig.disk->kind == DISK_SHARED ? disk_open(o->rig.disk) : NULL;
	for (int i = 0; i < PR_HANDLES; i++)
		works(o, "open",
		      core_shard_open(o->engines[o->engines[1] != NULL ? i % 2 : 0], o->rig.id,
				      &o->handles[i], &err),
		      &err);
	open_writers(o);
}

static void close_all(struct round *o, bool crashed)
{
	close_stages(o);
	drop_built(o);
	close_writers(o, crashed);
	for (int i = 0; i < PR_HANDLES; i++)
		core_shard_close(o->handles[i]);
	core_shard_close(o->other);
	o->other = NULL;
	core_engine_close(o->engines[1]);
}

/* An engine that ends well strikes its own writer. */
static void strike_engine(struct round *o, struct core_engine *e)
{
	for (size_t i = 0; e != NULL && i < o->registered_count; i++)
		if (core_uuid_eq(o->registered[i].id, e->writer.id))
			o->registered[i] = o->registered[--o->registered_count];
}

/* With crash: nothing more reaches the disk. */
static void reopen(struct round *o, bool crash)
{
	crash = crash && o->rig.disk->faults != NULL;
	tell(o, "%s", crash ? "crash and open" : "close and open");
	if (crash)
		kv_faults_arm(o->rig.disk->faults, 1, KV_FAULT_BEFORE, true);
	o->crashed = crash;
	if (!crash) {
		close_stages(o);
		strike_engine(o, o->engines[0]);
		strike_engine(o, o->engines[1]);
	}
	close_all(o, crash);
	if (crash) {
		rig_crash(&o->rig);
	} else {
		core_shard_close(o->rig.shard);
		core_engine_close(o->rig.engine);
	}
	rig_open(&o->rig);
	o->crashed = false;
	open_all(o);
	adopt_after_crash(o);
}

/* Finished and given up it can be removed, and made anew. */
static void remove_shard(struct round *o)
{
	struct core_frontier end = core_frontier_empty();
	struct core_appended r;
	struct kv_err err;
	bool may = o->m.upper.empty;
	enum kv_rc rc;

	tell(o, "remove the shard");
	if (may)
		works(o, "give up", core_shard_move_hold(o->handles[0], CORE_DEFAULT_HOLD, end, 0, &err),
		      &err);
	freshen(o, 1);
	want_rc(o, "remove", core_shard_remove(o->handles[1], &err), &err, may ? KV_OK : KV_NOT_FINISHED);
	if (!may)
		return;
	rc = append(o->handles[0], "expected_upper=* new_upper=+1", "", &r, &err);
	if (rc != KV_NO_SHARD && rc != KV_SHARD_REPLACED && rc != KV_UPPER_MISMATCH)
		want_rc(o, "append to a removed shard", rc, &err, KV_NO_SHARD);
	close_all(o, true);
	core_shard_close(o->rig.shard);
	core_engine_close(o->rig.engine);
	o->rig.engine = disk_open(o->rig.disk);
	works(o, "make anew", core_shard_create(o->rig.engine, o->rig.id, any_owner, &err), &err);
	works(o, "open anew", core_shard_open(o->rig.engine, o->rig.id, &o->rig.shard, &err), &err);
	shadow_free(&o->m);
	shadow_init(&o->m);
	o->registered_count = 0;
	for (int i = 0; i < PR_SENT; i++)
		core_buf_fini(&o->sent[i].bytes);
	memset(o->sent, 0, sizeof o->sent);
	open_all(o);
}

static void step_hold(struct round *o)
{
	bool policy = one_in(o, 2);
	uint64_t n = policy ? 1 + below(o, 9) : 0;
	struct core_frontier to = core_frontier_at(below(o, o->m.upper.t + 2));
	struct core_shard *s = o->handles[any_handle(o)];
	struct kv_err err;

	tell(o, "hold to %" PRIu64 " or follow %" PRIu64, to.t, n);
	works(o, "hold", core_shard_move_hold(s, CORE_DEFAULT_HOLD, to, n, &err), &err);
	shadow_move_hold(&o->m, to, n);
}

/* Often one of the last. */
static uint64_t random_time(struct round *o)
{
	uint64_t least = one_in(o, 3) ? 0 : o->m.since.t;

	if (o->m.upper.t > least + 8 && one_in(o, 2))
		least = o->m.upper.t - 8;
	return least < o->m.upper.t + 2 ? least + below(o, o->m.upper.t + 2 - least) : least;
}

/* --- rounds ---------------------------------------------------------------------------------------- */

static void step(struct round *o)
{
	uint64_t what = below(o, 100);

	if (one_in(o, 25))
		step_upkeep(o);
	if (what < 36)
		step_append(o);
	else if (what < 56)
		step_built(o);
	else if (what < 79)
		step_staged(o);
	else if (what < 82)
		step_writer(o);
	else if (what < 84)
		step_hold(o);
	else if (what < 88)
		compare_frontiers(o, any_handle(o));
	else if (what < 95)
		compare_content(o, any_handle(o), random_time(o));
	else if (what < 96)
		compare_batches(o, any_handle(o));
	else if (what < 97)
		compare_writers(o);
	else if (what < 98)
		compare_staged(o);
	else if (o->reopen && one_in(o, 2))
		reopen(o, one_in(o, 2));
	else if (one_in(o, 40))
		remove_shard(o);
	if (o->m.upper.empty && one_in(o, 25))
		remove_shard(o);
}

static void run_round(enum disk_kind kind, uint64_t seed, unsigned steps, bool reopens, bool known)
{
	struct round *o = calloc(1, sizeof *o);

	*o = (struct round){
		.seed = seed, .r.state = seed, .rig = rig_new(kind), .reopen = reopens, .known = known};
	current = o;
	signal(SIGABRT, aborted);
	shadow_init(&o->m);
	tell(o, "begin");
	open_all(o);
	for (o->step = 1; o->step <= steps; o->step++)
		step(o);
	for (uint64_t t = o->m.upper.empty ? 0 : o->m.since.t; t < o->m.upper.t; t += 1 + t / 9)
		compare_content(o, 0, t);
	compare_batches(o, 1);
	compare_staged(o);
	compare_writers(o);
	close_all(o, false);
	rig_free(&o->rig);
	for (int i = 0; i < PR_SENT; i++)
		core_buf_fini(&o->sent[i].bytes);
	shadow_free(&o->m);
	current = NULL;
	free(o);
}

/* Which part of all steps a kind of disk gets, in hundredths. */
static const struct {
	enum disk_kind kind;
	unsigned share;
	bool reopen;
} runs[] = {{DISK_MEM, 42, false}, {DISK_SOLE, 28, true}, {DISK_SHARED, 27, true}, {DISK_EMBEDDED, 3, true}};

START_TEST(every_answer_is_the_model_s)
{
	const char *given = getenv("STEPS");
	uint64_t all = given != NULL ? strtoull(given, NULL, 10) : STEPS;
	uint64_t steps = (all * runs[_i].share + 99) / 100;
	struct rng seeds = rng_new(700 + (uint64_t)_i);

	for (uint64_t done = 0; done < steps; done += ROUND)
		run_round(runs[_i].kind, rng_next(&seeds), ROUND, runs[_i].reopen, false);
}
END_TEST

START_TEST(what_was_found_before_stays_found)
{
	FILE *f = fopen(seeds_file, "r");
	uint64_t seed;
	int kind, reopens;
	char line[200];

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "%" SCNu64 " %d %d", &seed, &kind, &reopens) == 3)
			run_round((enum disk_kind)kind, seed, ROUND, reopens != 0, true);
	if (f != NULL)
		fclose(f);
}
END_TEST

Suite *property_suite(void)
{
	Suite *s = suite_create("property");
	TCase *t = tcase_create("property");

	tcase_set_timeout(t, getenv("STEPS") != NULL ? 3600 : 180);
	tcase_add_test(t, what_was_found_before_stays_found);
	tcase_add_loop_test(t, every_answer_is_the_model_s, 0, 4);
	suite_add_tcase(s, t);
	return s;
}
