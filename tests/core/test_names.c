/*
 * test_names.c - names for shards: each change is one step, kept, and made on the newest document.
 */
#include "tests/core/suites.h"
#include "tests/core/world.h"

static struct core_name name_of(const char *text, uint8_t target)
{
	struct core_name name = {.target.u.b = {target}, .uid = 3, .gid = 4};

	snprintf(name.name, sizeof(name.name), "%s", text);
	return name;
}

static enum kv_rc add(struct core_engine *e, const char *text, uint8_t target)
{
	struct core_name name = name_of(text, target);
	struct kv_err err;

	return core_name_add(e, &name, &err);
}

/* "a=1 b=2": names and the first byte of what they stand for. In a buffer that the next call uses again. */
static const char *all(struct core_engine *e)
{
	static char line[4000];
	struct core_name *names;
	struct kv_err err;
	size_t count, at = 0;

	ck_ok(core_name_list(e, &names, &count, &err), err);
	line[0] = '\0';
	for (size_t i = 0; i < count; i++)
		at += (size_t)snprintf(line + at, sizeof(line) - at, "%s%s=%d", i > 0 ? " " : "",
				       names[i].name, names[i].target.u.b[0]);
	free(names);
	return line;
}

START_TEST(names_are_added_found_and_removed)
{
	struct rig rig = rig_new(DISK_SOLE);
	struct core_name got, name = name_of("b", 1);
	struct kv_err err;

	ck_assert_str_eq(all(rig.engine), "");
	ck_assert_int_eq(core_name_get(rig.engine, "b", &got, &err), KV_NOTFOUND);
	ck_assert_int_eq(core_name_remove(rig.engine, "b", &err), KV_NOTFOUND);
	ck_ok(core_name_add(rig.engine, &name, &err), err);
	ck_assert_int_eq(add(rig.engine, "b", 2), KV_EXISTS);
	ck_assert_int_eq(add(rig.engine, "c", 3), KV_OK);
	ck_assert_int_eq(add(rig.engine, "a", 2), KV_OK);
	ck_assert_str_eq(all(rig.engine), "a=2 b=1 c=3");
	ck_ok(core_name_get(rig.engine, "b", &got, &err), err);
	ck_assert_uint_eq(got.id, name.id);
	ck_assert_uint_eq(got.uid, 3);
	ck_assert_uint_eq(got.gid, 4);
	ck_assert_uint_gt(got.made_ms, 0);
	ck_ok(core_name_get_by_id(rig.engine, name.id, &got, &err), err);
	ck_assert_str_eq(got.name, "b");
	ck_ok(core_name_remove(rig.engine, "b", &err), err);
	ck_assert_int_eq(core_name_get_by_id(rig.engine, name.id, &got, &err), KV_NOTFOUND);
	ck_assert_str_eq(all(rig.engine), "a=2 c=3");
	rig_free(&rig);
}
END_TEST

START_TEST(names_survive_reopening_and_ids_are_never_used_again)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_EMBEDDED);
	struct core_name one = name_of("one", 1), two = name_of("two", 2);
	struct kv_err err;

	ck_ok(core_name_add(rig.engine, &one, &err), err);
	ck_ok(core_name_remove(rig.engine, "one", &err), err);
	rig_crash_and_reopen(&rig);
	ck_ok(core_name_add(rig.engine, &two, &err), err);
	ck_assert_uint_gt(two.id, one.id);
	rig_crash_and_reopen(&rig);
	ck_assert_str_eq(all(rig.engine), "two=2");
	rig_free(&rig);
}
END_TEST

START_TEST(renaming_replaces_refuses_or_exchanges_as_asked)
{
	static const struct {
		const char *from, *to;
		bool no_replace, exchange;
		enum kv_rc want;
		const char *after;
	} cases[] = {
		{"a", "x", false, false, KV_OK, "b=2 c=3 x=1"},
		{"a", "b", false, false, KV_OK, "b=1 c=3"},
		{"c", "a", false, false, KV_OK, "a=3 b=2"},
		{"a", "b", true, false, KV_EXISTS, "a=1 b=2 c=3"},
		{"a", "x", true, false, KV_OK, "b=2 c=3 x=1"},
		{"a", "c", false, true, KV_OK, "a=3 b=2 c=1"},
		{"c", "a", false, true, KV_OK, "a=3 b=2 c=1"},
		{"a", "x", false, true, KV_NOTFOUND, "a=1 b=2 c=3"},
		{"x", "a", false, false, KV_NOTFOUND, "a=1 b=2 c=3"},
		{"a", "a", false, false, KV_OK, "a=1 b=2 c=3"},
		{"a", "a", true, false, KV_EXISTS, "a=1 b=2 c=3"},
		{"a", "a", false, true, KV_OK, "a=1 b=2 c=3"},
		{"b", "bb", false, false, KV_OK, "a=1 bb=2 c=3"},
		{"b", "A", false, false, KV_OK, "A=2 a=1 c=3"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig rig = rig_new(DISK_MEM);
		struct core_name a = name_of("a", 1), got;
		struct kv_err err;

		ck_ok(core_name_add(rig.engine, &a, &err), err);
		add(rig.engine, "c", 3);
		add(rig.engine, "b", 2);
		enum kv_rc rc = core_name_rename(rig.engine, cases[i].from, cases[i].to, cases[i].no_replace,
						 cases[i].exchange, &err);
		ck_assert_msg(rc == cases[i].want, "case %zu: %s", i, kv_rc_name(rc));
		ck_assert_str_eq(all(rig.engine), cases[i].after);
		if (core_name_get_by_id(rig.engine, a.id, &got, &err) == KV_OK)
			ck_assert_uint_eq(got.target.u.b[0], 1);
		rig_free(&rig);
	}
}
END_TEST

START_TEST(the_longest_name_is_kept_whole)
{
	struct rig rig = rig_new(DISK_MEM);
	struct core_name name = {.target.u.b = {1}}, got;
	struct kv_err err;
	char to[CORE_NAME_LEN];

	memset(name.name, 'n', CORE_NAME_LEN - 1);
	memset(to, 'm', sizeof(to) - 1);
	to[sizeof(to) - 1] = '\0';
	ck_ok(core_name_add(rig.engine, &name, &err), err);
	ck_ok(core_name_get(rig.engine, name.name, &got, &err), err);
	ck_ok(core_name_rename(rig.engine, name.name, to, false, false, &err), err);
	ck_ok(core_name_get(rig.engine, to, &got, &err), err);
	rig_free(&rig);
}
END_TEST

/* add, rename, exchange, remove; "before" and "after" of each are the only outcomes. */
static bool fail_names(unsigned what, enum kv_fault kind, unsigned nth)
{
	static const char *const before = "a=1 b=2";
	static const char *const after[] = {"a=1 b=2 c=3", "b=1", "a=2 b=1", "b=2"};
	struct rig rig = rig_new(nth % 2 == 0 ? DISK_SOLE : DISK_SHARED);
	struct kv_err err;
	enum kv_rc rc;
	bool fired;

	add(rig.engine, "a", 1);
	add(rig.engine, "b", 2);
	disk_fail(rig.disk, nth, kind);
	if (what == 0)
		rc = add(rig.engine, "c", 3);
	else if (what == 3)
		rc = core_name_remove(rig.engine, "a", &err);
	else
		rc = core_name_rename(rig.engine, "a", "b", false, what == 2, &err);
	fired = kv_faults_fired(rig.disk->faults);
	rig_crash_and_reopen(&rig);
	const char *got = all(rig.engine);
	bool done = strcmp(got, after[what]) == 0;
	ck_assert_msg(done || strcmp(got, before) == 0, "%s", got);
	ck_assert_msg(rc == KV_UNKNOWN || done == (rc == KV_OK), "change %u, call %u, kind %d: %s, but %s",
		      what, nth, (int)kind, kv_rc_name(rc), got);
	rig_free(&rig);
	return fired;
}

START_TEST(whichever_call_fails_a_change_of_names_is_whole_or_absent)
{
	static const enum kv_fault kinds[] = {KV_FAULT_BEFORE, KV_FAULT_NOSPACE, KV_FAULT_DONE_UNKNOWN,
					      KV_FAULT_LOST_UNKNOWN, KV_FAULT_TORN};

	for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++)
		for (unsigned nth = 1; fail_names((unsigned)_i, kinds[kind], nth); nth++)
			;
}
END_TEST

struct namer {
	pthread_t thread;
	struct core_engine *e;
	unsigned number;
};

static void *give_names(void *arg)
{
	struct namer *n = arg;

	for (unsigned i = 0; i < 40; i++) {
		char text[30];

		snprintf(text, sizeof(text), "n%u-%u", n->number, i);
		ck_assert_int_eq(add(n->e, text, 1), KV_OK);
	}
	return NULL;
}

START_TEST(threads_and_engines_that_add_names_lose_none)
{
	struct rig rig = rig_new(DISK_SHARED);
	struct core_engine *other = disk_open(rig.disk);
	struct core_name *names;
	struct namer n[4];
	struct kv_err err;
	size_t count;

	for (unsigned i = 0; i < 4; i++) {
		n[i] = (struct namer){.e = i % 2 == 0 ? rig.engine : other, .number = i};
		pthread_create(&n[i].thread, NULL, give_names, &n[i]);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(n[i].thread, NULL);
	ck_ok(core_name_list(rig.engine, &names, &count, &err), err);
	ck_assert_uint_eq(count, 160);
	uint64_t ids = 0;
	for (size_t i = 0; i < count; i++) {
		ck_assert(i == 0 || strcmp(names[i - 1].name, names[i].name) < 0);
		ids += names[i].id;
	}
	ck_assert_uint_eq(ids, 160 * 161 / 2);
	free(names);
	core_engine_close(other);
	rig_free(&rig);
}
END_TEST

Suite *names_suite(void)
{
	Suite *s = suite_create("names");
	TCase *t = tcase_create("names");

	tcase_set_timeout(t, 30);
	tcase_add_test(t, names_are_added_found_and_removed);
	tcase_add_loop_test(t, names_survive_reopening_and_ids_are_never_used_again, 0, 2);
	tcase_add_test(t, renaming_replaces_refuses_or_exchanges_as_asked);
	tcase_add_test(t, the_longest_name_is_kept_whole);
	tcase_add_loop_test(t, whichever_call_fails_a_change_of_names_is_whole_or_absent, 0, 4);
	tcase_add_test(t, threads_and_engines_that_add_names_lose_none);
	suite_add_tcase(s, t);
	return s;
}
