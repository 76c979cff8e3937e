/* fault.c - every fault does what fault.h says of it, to reads and to changes. */
#include "tests/kv/worlds.h"

#include <stdlib.h>
#include <string.h>

static struct world w;

static void setup(void)
{
	world_open(&w, WORLD_FAULT);
}

static void teardown(void)
{
	world_close(&w);
}

static void arm(enum kv_fault kind)
{
	kv_faults_arm(w.faults, 1, kind, false);
}

struct expectation {
	enum kv_fault kind;
	enum kv_rc change;
	bool done;
	enum kv_rc read;
};

static const struct expectation expectations[] = {
	{KV_FAULT_NONE, KV_OK, true, KV_OK},
	{KV_FAULT_BEFORE, KV_UNREACHABLE, false, KV_UNREACHABLE},
	{KV_FAULT_NOSPACE, KV_NOSPACE, false, KV_UNREACHABLE},
	{KV_FAULT_DONE_UNKNOWN, KV_UNKNOWN, true, KV_UNREACHABLE},
	{KV_FAULT_LOST_UNKNOWN, KV_UNKNOWN, false, KV_UNREACHABLE},
	{KV_FAULT_SLOW, KV_OK, true, KV_OK},
	{KV_FAULT_TORN, KV_UNKNOWN, false, KV_OK},
};

enum { EXPECTATIONS = sizeof(expectations) / sizeof(expectations[0]) };

START_TEST(changes_of_consensus_end_as_planned)
{
	const struct expectation *e = &expectations[_i];

	arm(e->kind);
	want_cas(w.c, "k", 0, 1, "v", e->change);
	ck_assert(kv_faults_fired(w.faults) == (e->kind != KV_FAULT_NONE));
	want_head(w.c, "k", e->done ? 1 : 0, "v");
	if (!e->done)
		want_cas(w.c, "k", 0, 1, "v", KV_OK);
	want_cas(w.c, "k", 1, 2, "w", KV_OK);

	uint64_t removed;

	arm(e->kind);
	ck_assert_int_eq(kv_consensus_truncate(w.c, "k", 2, &removed, NULL), e->change);
	ck_assert_str_eq(seqnos(w.c, "k", 0, 9), e->done ? "2" : "1 2");
	arm(e->kind);
	ck_assert_int_eq(kv_consensus_remove(w.c, "k", 2, NULL), e->change);
	ck_assert_str_eq(keys(w.c, "", 9), e->done ? "" : "k");
}
END_TEST

START_TEST(changes_of_blobs_end_as_planned)
{
	const struct expectation *e = &expectations[_i];
	bool existed;

	arm(e->kind);
	want_set(w.b, "k", "v", e->change);
	want_blob(w.b, "k", e->done ? "v" : NULL);
	want_set(w.b, "k", "v", KV_OK);
	arm(e->kind);
	ck_assert_int_eq(kv_blob_delete(w.b, "k", &existed, NULL, NULL), e->change);
	want_blob(w.b, "k", e->done ? NULL : "v");
}
END_TEST

START_TEST(what_becomes_of_one_key_of_a_commit_concerns_no_other)
{
	const struct expectation *e = &expectations[_i];
	const struct kv_version_put version = {1, "v", 1};
	struct kv_run runs[3];
	static const char *const key[] = {"a", "b", "c"};

	for (int i = 0; i < 3; i++)
		runs[i] = (struct kv_run){.key = key[i], .versions = &version, .version_count = 1};
	kv_faults_arm(w.faults, 2, e->kind, false);
	kv_store_commit_runs(w.store, runs, 3, KV_SYNC);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(runs[i].rc, i == 1 ? e->change : KV_OK);
		want_head(w.c, key[i], i != 1 || e->done ? 1 : 0, "v");
	}
}
END_TEST

START_TEST(reads_end_as_planned)
{
	const struct expectation *e = &expectations[_i];
	bool torn = e->kind == KV_FAULT_TORN;
	struct kv_version v;
	struct kv_versions vs;
	struct kv_keys ks;
	struct kv_blob_list l;
	char buf[8];
	size_t got;

	want_cas(w.c, "k", 0, 1, "value", KV_OK);
	want_set(w.b, "k", "bytes", KV_OK);
	arm(e->kind);
	ck_assert_int_eq(kv_consensus_head(w.c, "k", &v, NULL), e->read);
	if (e->read == KV_OK)
		ck_assert((memcmp(v.data, "value", 5) != 0) == torn);
	free(v.data);
	arm(e->kind);
	ck_assert_int_eq(kv_consensus_scan(w.c, "k", 0, 9, &vs, NULL), e->read);
	if (e->read == KV_OK)
		ck_assert((memcmp(vs.v[0].data, "value", 5) != 0) == torn);
	kv_versions_free(&vs);
	arm(e->kind);
	ck_assert_int_eq(kv_consensus_list_keys(w.c, "", 9, &ks, NULL), e->read);
	kv_keys_free(&ks);
	arm(e->kind);
	ck_assert_int_eq(kv_blob_get(w.b, "k", 0, buf, sizeof(buf), &got, NULL), e->read);
	ck_assert_uint_eq(got, e->read == KV_OK ? 5 : 0);
	if (e->read == KV_OK)
		ck_assert((memcmp(buf, "bytes", 5) != 0) == torn);
	arm(e->kind);
	ck_assert_int_eq(kv_blob_list(w.b, "", "", 9, &l, NULL), e->read);
	kv_blob_list_free(&l);
	want_head(w.c, "k", 1, "value");
	want_blob(w.b, "k", "bytes");
}
END_TEST

START_TEST(the_nth_call_of_all_layers_fails_once_or_from_then_on)
{
	kv_faults_arm(w.faults, 3, KV_FAULT_BEFORE, false);
	want_cas(w.c, "k", 0, 1, "v", KV_OK);
	want_set(w.b, "k", "v", KV_OK);
	ck_assert(!kv_faults_fired(w.faults));
	want_set(w.b, "l", "v", KV_UNREACHABLE);
	ck_assert(kv_faults_fired(w.faults));
	want_set(w.b, "l", "v", KV_OK);
	ck_assert_uint_eq(kv_faults_calls(w.faults), 4);

	kv_faults_arm(w.faults, 2, KV_FAULT_BEFORE, true);
	ck_assert_uint_eq(kv_faults_calls(w.faults), 0);
	ck_assert(!kv_faults_fired(w.faults));
	want_set(w.b, "m", "v", KV_OK);
	want_set(w.b, "n", "v", KV_UNREACHABLE);
	want_cas(w.c, "k", 1, 2, "v", KV_UNREACHABLE);
}
END_TEST

/* Whichever call fails and however: a commit that is done has its blobs; one said not to be done is not. */
START_TEST(a_commit_of_a_pair_never_lies_whichever_call_fails)
{
	const enum kv_fault kind = expectations[_i].kind;
	bool fired = true;

	for (unsigned nth = 1; fired && kind != KV_FAULT_NONE; nth++) {
		const struct kv_blob_put puts[] = {{"p/1", "one", 3}, {"p/2", "two", 3}};

		teardown();
		setup();
		kv_faults_arm(w.faults, nth, kind, false);

		enum kv_rc rc = kv_store_commit(w.store, "k", 0, 1, "v", 1, puts, 2, KV_SYNC, NULL);

		fired = kv_faults_fired(w.faults);
		kv_faults_arm(w.faults, 1, KV_FAULT_NONE, false);

		bool there = *keys(w.c, "", 9) != '\0';

		if (rc == KV_OK)
			ck_assert(there);
		else if (rc != KV_UNKNOWN)
			ck_assert(!there);
		if (rc == KV_UNKNOWN)
			ck_assert_uint_eq(nth, 3);
		if (there)
			ck_assert_str_eq(blobs(w.b, "", "", 9), "p/1 p/2");
		ck_assert(fired || rc == KV_OK);
	}
}
END_TEST

Suite *fault_suite(void)
{
	Suite *s = suite_create("kv/fault");
	TCase *t = tcase_create("fault");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, changes_of_consensus_end_as_planned, 0, EXPECTATIONS);
	tcase_add_loop_test(t, changes_of_blobs_end_as_planned, 0, EXPECTATIONS);
	tcase_add_loop_test(t, what_becomes_of_one_key_of_a_commit_concerns_no_other, 0, EXPECTATIONS);
	tcase_add_loop_test(t, reads_end_as_planned, 0, EXPECTATIONS);
	tcase_add_test(t, the_nth_call_of_all_layers_fails_once_or_from_then_on);
	tcase_add_loop_test(t, a_commit_of_a_pair_never_lies_whichever_call_fails, 0, EXPECTATIONS);
	suite_add_tcase(s, t);
	return s;
}
