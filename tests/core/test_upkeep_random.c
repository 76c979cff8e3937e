/*
 * test_upkeep_random.c - one shard, thousands of random steps of those who write, hold, read, listen, merge,
 * collect, crash and start again, on one or two engines, with and without maintenance that comes by itself.
 * All that can be read is compared with a plain list. SEED=<n> repeats a run, STEPS=<n> makes it longer.
 */
#include <inttypes.h>
#include <unistd.h>

#include "tests/core/chores.h"
#include "tests/core/suites.h"

enum { SNAPSHOTS = 4, EARS = 3, PLACES = 3, STAGED = 3, ROUND = 250 };

struct ear_at {
	struct core_listen *l;
	uint64_t from;
	struct core_place *place;
	struct model got;
	struct model again; /* of the place */
};

struct life {
	struct rng rng;
	struct rig rig;
	struct core_engine *engines[2];
	struct core_shard *shards[2];
	struct model facts; /* all updates at their times */
	uint64_t upper;
	struct core_snapshot *snapshots[SNAPSHOTS];
	char *texts[SNAPSHOTS];
	struct ear_at ears[EARS];
	unsigned next_name;
	char last[120];
};

static struct core_shard *any(struct life *o)
{
	return o->shards[o->engines[1] != NULL ? rng_below(&o->rng, 2) : 0];
}

static uint64_t below(struct life *o, uint64_t n)
{
	return rng_below(&o->rng, n);
}

/* --- what should be there ----------------------------------------------------------------------------- */

static void print_update(FILE *out, const struct core_update *u, bool with_time)
{
	fprintf(out, "%.*s %u", (int)u->key.len, (const char *)u->key.data, (unsigned)u->val.len);
	if (with_time)
		fprintf(out, " %" PRIu64, u->time);
	fprintf(out, " %" PRId64 ";", u->diff);
}

static char *expected(struct life *o, uint64_t t)
{
	struct model m = {0};
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	for (size_t i = 0; i < o->facts.count; i++) {
		struct core_update u = o->facts.u[i];

		if (u.time > t)
			continue;
		u.time = t;
		model_add(&m, &u, false);
	}
	model_settle(&m);
	for (size_t i = 0; i < m.count; i++)
		print_update(out, &m.u[i], false);
	fclose(out);
	model_free(&m);
	return text;
}

static char *read_snapshot(struct core_snapshot *n)
{
	struct core_update u;
	struct kv_err err;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	bool end = false;
	enum kv_rc rc = KV_OK;

	core_snapshot_rewind(n);
	while (rc == KV_OK && !end) {
		rc = core_snapshot_next(n, &u, &end, &err);
		if (rc == KV_OK && !end)
			print_update(out, &u, false);
	}
	if (rc != KV_OK)
		fprintf(out, "%s", err.msg);
	fclose(out);
	return text;
}

static void same(struct life *o, const char *what, const char *got, const char *want)
{
	ck_assert_msg(strcmp(got, want) == 0, "after %s: %s: %.300s, not %.300s", o->last, what, got, want);
}

/* --- steps ---------------------------------------------------------------------------------------------- */

static void fact(struct life *o, const char *row, uint64_t time)
{
	struct model m = {0};

	parse_rows(row, &m);
	for (size_t i = 0; i < m.count; i++) {
		if (m.star[i])
			m.u[i].time = time;
		model_add(&o->facts, &m.u[i], false);
	}
	model_free(&m);
}

/* Rows within [lower, lower + span), some of them large. */
static char *some_rows(struct life *o, uint64_t lower, uint64_t span)
{
	char *text = malloc(9 * 7000), *at = text;
	uint64_t count = below(o, 8);

	*at = '\0';
	for (uint64_t i = 0; i < count; i++) {
		int64_t diff = below(o, 2) == 0 ? 1 : -1;

		at += sprintf(at, "%" PRIu64 " %" PRId64 " k%" PRIu64 " ", lower + below(o, span), diff,
			      below(o, 5));
		size_t len = below(o, 12) == 0 ? 6000 : 3;
		for (size_t j = 0; j < len; j++) /* the same bytes for the same length */
			*at++ = (char)('a' + (j * j * 31 + j * 7 + (j >> 3) * 11) % 26);
		*at++ = ';';
		*at = '\0';
	}
	return text;
}

static void step_append(struct life *o)
{
	uint64_t span = 1 + below(o, 4);
	char *rows = some_rows(o, o->upper, span), options[120];
	struct core_appended r;
	struct kv_err err;

	snprintf(options, sizeof options, "expected_upper=%" PRIu64 " new_upper=%" PRIu64, o->upper,
		 o->upper + span);
	if (below(o, 5) == 0)
		snprintf(options + strlen(options), 40, " since=%" PRIu64, below(o, o->upper + 3));
	ck_ok(append(any(o), options, rows, &r, &err), err);
	fact(o, rows, o->upper);
	o->upper += span;
	free(rows);
}

static void step_staged(struct life *o)
{
	uint64_t span = 1 + below(o, 4);
	struct core_shard *s = any(o);
	char *rows = some_rows(o, o->upper, span), options[120], name[20];
	struct core_appended r;
	struct kv_err err;

	sprintf(name, "s%u", o->next_name++);
	stage_whole(s, name, NULL, rows);
	if (below(o, 5) == 0) {
		ck_ok(core_staged_remove(s, name, &err), err);
	} else {
		if (below(o, 3) == 0)
			(void)!chore_rc(any(o), CORE_GC, &err);
		snprintf(options, sizeof options, "expected_upper=%" PRIu64 " new_upper=%" PRIu64, o->upper,
			 o->upper + span);
		ck_ok(append_staged(s, options, name, "", &r, &err), err);
		fact(o, rows, o->upper);
		o->upper += span;
	}
	free(rows);
}

static void step_snapshot(struct life *o)
{
	unsigned i = (unsigned)below(o, SNAPSHOTS);
	struct core_shard *s = any(o);
	struct kv_err err;

	if (o->snapshots[i] != NULL) {
		char *got = read_snapshot(o->snapshots[i]);
		same(o, "a snapshot that was open", got, o->texts[i]);
		free(got);
		if (below(o, 2) == 0)
			return;
		core_snapshot_close(o->snapshots[i]);
		free(o->texts[i]);
		o->texts[i] = NULL;
		o->snapshots[i] = NULL;
		return;
	}
	uint64_t since = since_now(s).t;
	if (since >= o->upper)
		return;
	uint64_t t = since + below(o, o->upper - since);
	enum kv_rc rc = core_snapshot_open(s, (struct core_as_of){.time = t}, &o->snapshots[i], &err);
	if (rc == KV_COMPACTED) { /* by maintenance that comes by itself, a lease ended */
		o->snapshots[i] = NULL;
		return;
	}
	ck_ok(rc, err);
	o->texts[i] = expected(o, t);
	char *got = read_snapshot(o->snapshots[i]);
	same(o, "a snapshot", got, o->texts[i]);
	free(got);
}

static void hear(struct ear_at *e, struct model *to)
{
	struct core_update u;
	struct kv_err err;
	bool done = false;

	while (!done) {
		ck_ok(core_listen_next(e->l, &u, &done, &err), err);
		if (!done)
			model_add(to, &u, false);
	}
}

static void check_ear(struct life *o, struct ear_at *e)
{
	struct model want = {0}, got = {0};
	uint64_t to = core_listen_frontier(e->l).t;

	for (size_t i = 0; i < o->facts.count; i++)
		if (o->facts.u[i].time >= e->from && o->facts.u[i].time < to)
			model_add(&want, &o->facts.u[i], false);
	for (size_t i = 0; i < e->got.count; i++)
		model_add(&got, &e->got.u[i], false);
	model_settle(&want);
	model_settle(&got);
	model_same(&got, &want);
	model_free(&want);
	model_free(&got);
}

static void close_ear(struct ear_at *e)
{
	core_place_free(e->place);
	core_listen_close(e->l);
	model_free(&e->got);
	model_free(&e->again);
	*e = (struct ear_at){0};
}

static void step_listen(struct life *o)
{
	struct ear_at *e = &o->ears[below(o, EARS)];
	struct core_step step;
	struct kv_err err;
	bool end;

	if (e->l == NULL) {
		struct core_shard *s = any(o);
		enum kv_rc rc;

		e->from = since_now(s).t + 1 + below(o, 4);
		rc = core_listen_open(s, core_frontier_at(e->from), &who, &e->l, &err);
		if (rc != KV_OK) {
			ck_assert_int_eq(rc, KV_COMPACTED);
			e->l = NULL;
		}
		return;
	}
	if (e->place != NULL && below(o, 2) == 0) { /* back: the same again */
		struct model got = {0};

		core_listen_go(e->l, e->place);
		hear(e, &got);
		model_same(&got, &e->again);
		model_free(&got);
	}
	for (uint64_t steps = 1 + below(o, 6); steps > 0; steps--) {
		struct model got = {0};
		enum kv_rc rc = core_listen_step(e->l, &step, &end, &err);

		if (rc == KV_WOULD_BLOCK)
			break;
		ck_ok(rc, err);
		if (end)
			break;
		bool keep = below(o, 4) == 0;
		struct core_place *place = keep ? core_listen_place(e->l) : NULL;
		hear(e, &got);
		for (size_t i = 0; i < got.count; i++)
			model_add(&e->got, &got.u[i], false);
		if (keep) {
			core_place_free(e->place);
			model_free(&e->again);
			e->place = place;
			e->again = got;
		} else {
			model_free(&got);
		}
	}
	if (below(o, 4) == 0)
		check_ear(o, e);
	if (below(o, 8) == 0)
		close_ear(e);
}

static void open_all(struct life *o)
{
	struct kv_err err;

	o->engines[0] = o->rig.engine;
	o->shards[0] = o->rig.shard;
	o->engines[1] = o->rig.disk->kind == DISK_SHARED ? disk_open(o->rig.disk) : NULL;
	if (o->engines[1] != NULL)
		ck_ok(core_shard_open(o->engines[1], o->rig.id, &o->shards[1], &err), err);
}

static void close_all(struct life *o)
{
	for (int i = 0; i < SNAPSHOTS; i++) {
		core_snapshot_close(o->snapshots[i]);
		free(o->texts[i]);
		o->snapshots[i] = NULL;
		o->texts[i] = NULL;
	}
	for (int i = 0; i < EARS; i++)
		close_ear(&o->ears[i]);
	if (o->engines[1] != NULL) {
		core_shard_close(o->shards[1]);
		core_engine_close(o->engines[1]);
	}
}

static void step_reopen(struct life *o, bool crash)
{
	o->rig.disk->upkeep = below(o, 2) == 0;
	if (o->rig.disk->kind == DISK_SHARED || o->rig.disk->faults == NULL)
		crash = false; /* or its leases would hold since */
	if (crash)
		kv_faults_arm(o->rig.disk->faults, 1 + (unsigned)below(o, 4), KV_FAULT_BEFORE, true);
	if (crash && below(o, 2) == 0) {
		struct kv_err err;
		(void)!chore_rc(o->shards[0], (enum core_upkeep_kind)below(o, 3), &err);
	}
	if (crash)
		kv_faults_arm(o->rig.disk->faults, 1, KV_FAULT_BEFORE, true);
	close_all(o);
	if (crash)
		rig_crash_and_reopen(&o->rig);
	else
		reopen_well(&o->rig);
	open_all(o);
}

static void check_now(struct life *o)
{
	struct core_shard *s = any(o);
	struct core_info info;
	struct kv_err err;

	ck_ok(core_shard_info(s, true, &info, &err), err);
	ck_assert_uint_eq(info.upper.t, o->upper);
	check_sound(s);
	for (uint64_t t = info.since.t; t < o->upper; t += 1 + below(o, 9)) {
		struct core_snapshot *n;
		enum kv_rc rc = core_snapshot_open(s, (struct core_as_of){.time = t}, &n, &err);

		if (rc == KV_COMPACTED)
			continue;
		ck_ok(rc, err);
		char *got = read_snapshot(n), *want = expected(o, t);
		same(o, "content", got, want);
		core_snapshot_close(n);
		free(got);
		free(want);
	}
}

static void step(struct life *o)
{
	static const char *const kinds[] = {"compact", "gc", "rollup"};
	uint64_t what = below(o, 100);
	struct kv_err err;

	if (what < 40) {
		strcpy(o->last, "an append");
		step_append(o);
	} else if (what < 47) {
		strcpy(o->last, "a staged batch");
		step_staged(o);
	} else if (what < 55) {
		strcpy(o->last, "a hold");
		hold_at(any(o), core_frontier_at(below(o, o->upper + 2)));
	} else if (what < 67) {
		step_snapshot(o);
	} else if (what < 79) {
		step_listen(o);
	} else if (what < 91) {
		unsigned kind = (unsigned)below(o, 3);
		bool fails = o->rig.disk->faults != NULL && !o->rig.disk->upkeep && below(o, 3) == 0;
		unsigned nth = 1 + (unsigned)below(o, 15), way = 1 + (unsigned)below(o, KV_FAULT_TORN);

		snprintf(o->last, sizeof o->last, "%s%s (call %u, kind %u)", kinds[kind],
			 fails ? " that failed" : "", nth, way);
		if (fails)
			kv_faults_arm(o->rig.disk->faults, nth, (enum kv_fault)way, false);
		if (fails)
			(void)!chore_rc(any(o), (enum core_upkeep_kind)kind, &err);
		else
			chore(any(o), (enum core_upkeep_kind)kind);
		disk_heal(o->rig.disk);
	} else if (what < 93) {
		fold_to_blob(any(o));
	} else if (what < 95) {
		core_upkeep_settle(o->engines[0]);
	} else if (what < 98) {
		check_now(o);
	} else if (below(o, 2) == 0) {
		bool crash = below(o, 2) == 0;
		strcpy(o->last, crash ? "a crash" : "a restart");
		step_reopen(o, crash);
	}
}

/* When all is quiet only what is named is there. */
static void check_end(struct life *o)
{
	check_now(o);
	close_all(o);
	o->rig.disk->upkeep = false;
	reopen_well(&o->rig);
	hold_at(o->rig.shard, core_frontier_at(o->upper - (o->upper != 0)));
	chore(o->rig.shard, CORE_COMPACT);
	chore(o->rig.shard, CORE_GC);
	ck_assert_uint_eq(dead_of(o->rig.shard), 0);
	if (o->rig.disk->kind == DISK_SOLE)
		check_blobs(o->rig.disk, o->rig.shard, true);
	if (since_now(o->rig.shard).t < o->upper) {
		char *want = expected(o, o->upper - 1);
		struct core_snapshot *n;
		struct kv_err err;

		ck_ok(core_snapshot_open(o->rig.shard, (struct core_as_of){.latest = true}, &n, &err), err);
		char *got = read_snapshot(n);
		same(o, "the end", got, want);
		core_snapshot_close(n);
		free(got);
		free(want);
	}
}

static void run_life(enum disk_kind kind, uint64_t seed)
{
	struct life *o = calloc(1, sizeof *o);
	struct disk *d = disk_new(kind);

	printf("upkeep_random: kind %d, seed %" PRIu64 "\n", (int)kind, seed);
	fflush(stdout);
	o->rng.state = seed;
	d->upkeep = below(o, 2) == 0;
	o->rig = rig_on(d);
	open_all(o);
	for (unsigned i = 0; i < ROUND; i++)
		step(o);
	check_end(o);
	rig_free(&o->rig);
	model_free(&o->facts);
	free(o);
}

static const enum disk_kind disks[] = {DISK_SOLE, DISK_SHARED, DISK_EMBEDDED};

START_TEST(whatever_is_merged_and_collected_all_that_is_read_is_the_model_s)
{
	const char *steps = getenv("STEPS");
	uint64_t rounds = (steps != NULL ? strtoull(steps, NULL, 10) : 5000) / ROUND;
	struct rng seeds = rng_new(8800 + (uint64_t)_i);

	if (disks[_i] == DISK_EMBEDDED)
		rounds = rounds / 5 + 1;
	for (uint64_t i = 0; i < rounds; i++)
		run_life(disks[_i], rng_next(&seeds));
}
END_TEST

START_TEST(what_was_found_before_stays_found)
{
	FILE *f = fopen("tests/regress/upkeep.seeds", "r");
	char line[200];
	uint64_t seed;
	int kind;

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "%" SCNu64 " %d", &seed, &kind) == 2)
			run_life((enum disk_kind)kind, seed);
	if (f != NULL)
		fclose(f);
}
END_TEST

Suite *upkeep_random_suite(void)
{
	Suite *s = suite_create("upkeep_random");
	TCase *t = tcase_create("upkeep_random");

	tcase_set_timeout(t, getenv("STEPS") != NULL ? 3600 : 60);
	tcase_add_test(t, what_was_found_before_stays_found);
	tcase_add_loop_test(t, whatever_is_merged_and_collected_all_that_is_read_is_the_model_s, 0, 3);
	suite_add_tcase(s, t);
	return s;
}
