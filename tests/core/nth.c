/*
 * nth.c - see nth.h. Of each scene a run without failures tells what it reads and what the world is then; the
 * others are held against that.
 */
#include "tests/core/nth.h"

#include "core/names.h"

/* --- worlds ------------------------------------------------------------------------------------------- */

static char *same_row(void *arg, unsigned i, const char *time, const char *key)
{
	return large_row(time, key, *(const size_t *)arg + i);
}

/* As put_large_runs, and the same each time. */
void nth_put_runs(struct core_shard *s, unsigned runs, size_t len)
{
	put_runs_of(s, runs, same_row, &len);
}

static void furnish(struct nth_world *w)
{
	struct core_shard *s = w->rig.shard;
	struct core_name name = {.name = "one", .target = w->rig.id};
	struct core_hold hold;
	struct kv_err err;
	char options[60], row[80];

	for (int i = 0; i < 4; i++) {
		snprintf(options, sizeof options, "expected_upper=%d new_upper=%d", i, i + 1);
		snprintf(row, sizeof row, "%d 1 k%d v;%d %d k0 w;", i, i, i, i % 2 == 0 ? 1 : -1);
		ck_assert_int_eq(strncmp(verdict(s, options, row), "ok", 2), 0);
		if (i < 2)
			fold_to_blob(s);
	}
	nth_put_runs(s, 2, 5000);
	stage_whole(s, "there", NULL, "19 1 s s;");
	stage_whole(s, "also", "2 90", "7 1 t t;6 1 t t;");
	ck_ok(core_hold_set(s, "ear", &(struct core_hold_ask){.since = core_frontier_at(1)}, &hold, &err),
	      err);
	ck_ok(core_name_add(w->rig.engine, &name, &err), err);
}

struct nth_world nth_world_new(enum disk_kind kind)
{
	struct nth_world w = {.rig = rig_new(kind), .other.u = core_uuid_new()};

	furnish(&w);
	return w;
}

void nth_world_free(struct nth_world *w)
{
	rig_free(&w->rig);
}

/* What was closed by a failure is opened again; a shard that was removed stays NULL. */
static void mend(struct nth_world *w)
{
	struct kv_err err;
	enum kv_rc rc = KV_OK;

	if (w->rig.engine == NULL)
		w->rig.engine = disk_open(w->rig.disk);
	if (w->rig.shard == NULL)
		rc = core_shard_open(w->rig.engine, w->rig.id, &w->rig.shard, &err);
	ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD, "%s", err.msg);
}

static void crash(struct nth_world *w)
{
	rig_crash(&w->rig);
	mend(w);
}

static void print_holds(FILE *out, struct core_shard *s)
{
	struct core_hold *holds;
	struct kv_err err;
	size_t count;
	char since[CORE_FRONTIER_LEN];

	ck_ok(core_hold_list(s, &holds, &count, &err), err);
	for (size_t i = 0; i < count; i++)
		fprintf(out, "\nhold %s %s %llu", holds[i].name, core_frontier_format(holds[i].since, since),
			(unsigned long long)holds[i].token);
	free(holds);
}

static void print_shard(FILE *out, struct core_shard *s)
{
	static const char *const staged[] = {"there", "also", "new"};
	struct core_info info;
	struct kv_err err;
	char *text;

	ck_ok(core_shard_info(s, true, &info, &err), err);
	check_sound(s);
	text = picture(s);
	fprintf(out, "%s\nof %u %u %o", text, info.owner.uid, info.owner.gid, info.owner.mode);
	free(text);
	print_holds(out, s);
	for (size_t i = 0; i < sizeof staged / sizeof staged[0]; i++) {
		text = staged_text(s, staged[i]);
		fprintf(out, "\nstaged %s: %s", staged[i], text);
		free(text);
	}
}

static bool is_gone(struct core_shard *s)
{
	struct core_info info;
	struct kv_err err;
	enum kv_rc rc = s != NULL ? core_shard_info(s, true, &info, &err) : KV_NO_SHARD;

	ck_assert_msg(rc == KV_OK || rc == KV_NO_SHARD, "%s", err.msg);
	return rc == KV_NO_SHARD;
}

char *nth_print(struct nth_world *w)
{
	struct core_shard *other = NULL;
	struct core_name *names;
	struct kv_err err;
	size_t len, count;
	char *text;
	FILE *out = open_memstream(&text, &len);

	ck_ok(core_name_list(w->rig.engine, &names, &count, &err), err);
	for (size_t i = 0; i < count; i++)
		fprintf(out, "name %s to %d\n", names[i].name, core_uuid_eq(names[i].target.u, w->rig.id.u));
	free(names);
	if (core_shard_open(w->rig.engine, w->other, &other, &err) == KV_OK)
		fprintf(out, "another %s\n", frontiers(other));
	core_shard_close(other);
	if (is_gone(w->rig.shard))
		fprintf(out, "gone");
	else
		print_shard(out, w->rig.shard);
	fclose(out);
	return text;
}

/* --- one failure -------------------------------------------------------------------------------------- */

static const char *const way_names[NTH_WAYS] = {"before", "no space", "done", "lost", "torn", "memory"};

static void arm(struct nth_world *w, enum nth_way way, unsigned nth)
{
	static const enum kv_fault faults[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
					       KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};

	if (way == NTH_MEMORY)
		alloc_fail(alloc_plan(), nth);
	else
		disk_fail(w->rig.disk, nth, faults[way]);
}

/* Whether it struck. */
static bool disarm(struct nth_world *w, enum nth_way way)
{
	bool fired = way == NTH_MEMORY ? atomic_load(&alloc_plan()->failed) != 0
				       : kv_faults_fired(w->rig.disk->faults);

	atomic_store(&alloc_plan()->nth, 0);
	disk_heal(w->rig.disk);
	return fired;
}

static bool may_say(enum nth_way way, enum kv_rc rc)
{
	switch (way) {
	case NTH_BEFORE:
		return rc == KV_UNREACHABLE;
	case NTH_NOSPACE:
		return rc == KV_NOSPACE || rc == KV_UNREACHABLE;
	case NTH_DONE:
	case NTH_LOST:
		return rc == KV_UNKNOWN || rc == KV_UNREACHABLE;
	case NTH_TORN:
		return rc == KV_CORRUPT || rc == KV_UNKNOWN || rc == KV_UNREACHABLE;
	case NTH_MEMORY:
		return rc == KV_NOMEM;
	case NTH_WAYS:
		break;
	}
	return false;
}

struct trial {
	const struct nth_scene *scene;
	enum disk_kind kind;
	enum nth_way way;
	unsigned nth;
	char *before;
	char *after;
	char *heard;
	char when[120];
};

/* Run the scene; what it read, given. */
static char *play(const struct nth_scene *scene, struct nth_world *w, enum kv_rc *rc, struct kv_err *err)
{
	size_t len;
	char *heard;

	w->heard = open_memstream(&heard, &len);
	*err = (struct kv_err){0};
	*rc = scene->run(w, err);
	if (w->rig.engine != NULL)
		rig_settle(&w->rig);
	fclose(w->heard);
	return heard;
}

static void want(const struct trial *t, const char *what, const char *got, const char *want)
{
	size_t at = 0;

	while (got[at] != '\0' && got[at] == want[at])
		at++;
	at -= at < 60 ? at : 60;
	ck_assert_msg(strcmp(got, want) == 0, "%s: %s: ...%.250s... instead of ...%.250s...", t->when, what,
		      got + at, want + at);
}

/* The world is as before or as after; which of them rc tells, unless it says that it does not know. */
static void check_world(const struct trial *t, struct nth_world *w, enum kv_rc rc, const char *what)
{
	char *got = nth_print(w);

	if (rc == KV_OK)
		want(t, what, got, t->after);
	else if (!t->scene->steps && (rc != KV_UNKNOWN || strcmp(got, t->after) != 0))
		want(t, what, got, t->before);
	free(got);
}

static void try_again(const struct trial *t, struct nth_world *w)
{
	struct kv_err err;
	enum kv_rc rc;
	char *heard, *got;

	if (w->rig.shard == NULL)
		return;
	heard = play(t->scene, w, &rc, &err);
	ck_assert_msg(rc == KV_OK || (t->scene->done != KV_OK && rc == t->scene->done), "%s: again: %s: %s",
		      t->when, kv_rc_name(rc), err.msg);
	if (rc == KV_OK && strcmp(t->before, t->after) == 0)
		want(t, "heard again", heard, t->heard);
	got = nth_print(w);
	want(t, "again", got, t->after);
	free(heard);
	free(got);
}

/* Nothing stays in the store that nobody names, once all has been started anew and tidied up. */
static void check_leaves_nothing(const struct trial *t, struct nth_world *w)
{
	struct core_shard *other;
	struct kv_err err;
	char *got;

	crash(w);
	if (core_shard_open(w->rig.engine, w->other, &other, &err) == KV_OK) {
		verdict(other, "expected_upper=0 new_upper=- since=-", "");
		ck_ok(core_shard_remove(other, &err), err);
		core_shard_close(other);
		rig_settle(&w->rig);
	}
	if (w->rig.shard == NULL) {
		rig_settle(&w->rig);
		ck_assert_msg(disk_blob_count(w->rig.disk) == 0, "%s: blobs are left", t->when);
		return;
	}
	for (int i = 0; i < 2; i++)
		chore(w->rig.shard, CORE_ROLLUP);
	chore(w->rig.shard, CORE_GC);
	reopen_well(&w->rig);
	chore(w->rig.shard, CORE_GC);
	check_tidy(&w->rig);
	if (t->scene->done != KV_SHARD_EXISTS) {
		got = nth_print(w);
		want(t, "tidied up", got, t->after);
		free(got);
	}
}

/* One failure: whether it struck. */
static bool trial(struct trial *t)
{
	struct nth_world w = nth_world_new(t->kind);
	struct kv_err err;
	enum kv_rc rc;
	bool fired;
	char *heard;

	if (t->scene->prepare != NULL)
		t->scene->prepare(&w);
	arm(&w, t->way, t->nth);
	heard = play(t->scene, &w, &rc, &err);
	fired = disarm(&w, t->way);
	snprintf(t->when, sizeof t->when, "%s: call %u, %s, %s at %#lx: %s", t->scene->name, t->nth,
		 way_names[t->way], t->kind == DISK_SHARED ? "shared" : "sole",
		 (unsigned long)atomic_load(&alloc_plan()->where), kv_rc_name(rc));
	ck_assert_msg(rc == KV_OK || (fired && may_say(t->way, rc)), "%s: %s", t->when, err.msg);
	ck_assert_msg(rc == KV_OK || err.msg[0] != '\0', "%s: no sentence", t->when);
	if (rc == KV_OK)
		want(t, "heard", heard, t->heard);
	free(heard);
	mend(&w);
	check_world(t, &w, rc, "then");
	if (t->nth % 2 == 0 && t->kind == DISK_SOLE) { /* elsewhere the lease of the dead one stays */
		crash(&w);
		check_world(t, &w, rc, "after a crash");
	}
	try_again(t, &w);
	if (t->kind == DISK_SOLE)
		check_leaves_nothing(t, &w);
	nth_world_free(&w);
	return fired;
}

/* --- all ---------------------------------------------------------------------------------------------- */

static void rehearse(struct trial *t)
{
	struct nth_world w = nth_world_new(t->kind);
	struct kv_err err;
	enum kv_rc rc;

	if (t->scene->prepare != NULL)
		t->scene->prepare(&w);
	t->before = nth_print(&w);
	t->heard = play(t->scene, &w, &rc, &err);
	ck_assert_msg(rc == KV_OK, "%s: %s", t->scene->name, err.msg);
	t->after = nth_print(&w);
	nth_world_free(&w);
}

unsigned nth_run(const struct nth_scene *scene, enum disk_kind kind, enum nth_way way)
{
	struct trial t = {.scene = scene, .kind = kind, .way = way};
	struct rng rng = rng_new((uint64_t)way * 1000 + strlen(scene->name));
	bool all = getenv("NTH_ALL") != NULL;
	unsigned failed = 0, skip = way == NTH_MEMORY ? 60 : 6;

	rehearse(&t);
	t.nth = all ? 1 : 1 + (unsigned)rng_below(&rng, skip);
	while (trial(&t)) {
		failed++;
		t.nth += all ? 1 : 1 + (unsigned)rng_below(&rng, skip);
	}
	free(t.before);
	free(t.after);
	free(t.heard);
	return failed;
}
