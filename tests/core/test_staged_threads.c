/*
 * test_staged_threads.c - staged batches with several threads at them.
 */
#include "tests/core/batches.h"
#include "tests/core/suites.h"

struct writing {
	struct core_shard *shard;
	unsigned batches;
	unsigned rows; /* that were taken */
	_Atomic(bool) done;
};

static void write_one(struct writing *w, unsigned number)
{
	struct core_stage *g;
	struct kv_err err;
	char text[60];
	enum kv_rc rc = KV_OK;

	snprintf(text, sizeof(text), "n%u", number);
	struct core_staged entry;
	ck_ok(core_staged_create(w->shard, text, &entry, &err), err);
	rc = core_stage_open(w->shard, entry.id, &g, &err);
	if (rc != KV_OK) { /* committed already, empty */
		ck_assert_int_eq(rc, KV_NO_BATCH);
		return;
	}
	for (unsigned i = 0; i < 20 && rc == KV_OK; i++) {
		snprintf(text, sizeof(text), "0 1 k%u-%u x;", number, i);
		rc = stage_rows(g, text, &err);
		w->rows += rc == KV_OK;
		(void)core_stage_size(g);
		size_t len;
		(void)core_stage_kept(g, &len);
		if (rc == KV_OK && i % 3 == 0)
			rc = core_stage_sync(g, &err);
	}
	ck_assert_msg(rc == KV_OK || rc == KV_BATCH_TAKEN, "%s", err.msg);
	core_stage_close(g);
}

static void *write_batches(void *arg)
{
	struct writing *w = arg;

	for (unsigned i = 0; i < w->batches; i++)
		write_one(w, i);
	atomic_store(&w->done, true);
	return NULL;
}

/* Rename, look at, read and commit what is there. False: there was nothing. */
static bool commit_some(struct core_shard *s, unsigned *upper)
{
	struct core_staged *list, entry;
	struct core_staged_view view;
	struct core_appended r;
	struct kv_err err;
	size_t count;

	ck_ok(core_staged_list(s, &list, &count, &err), err);
	if (count != 0) {
		ck_ok(core_staged_rename(s, list[0].name, "now", true, false, &err), err);
		ck_ok(core_staged_get(s, "now", &entry, &err), err);
		ck_ok(core_staged_open(s, entry.id, &view, &err), err);
		free(view_text(s, &view));
		ck_ok(append_staged(s, "expected_upper=* new_upper=+1 rewrite_ts=*", "now", "", &r, &err),
		      err);
		ck_assert_uint_eq(r.upper.t, ++*upper);
		core_staged_close(s, &view);
	}
	free(list);
	return count != 0;
}

START_TEST(what_one_thread_writes_another_commits_to_the_last_row)
{
	struct rig rig = rig_new(_i == 0 ? DISK_SOLE : DISK_SHARED);
	struct writing w = {.shard = rig.shard, .batches = 60};
	unsigned upper = 0, rows = 0;
	pthread_t thread;
	bool more = true;
	char *got;

	pthread_create(&thread, NULL, write_batches, &w);
	while (more) {
		bool done = atomic_load(&w.done);

		more = commit_some(rig.shard, &upper) || !done;
	}
	pthread_join(thread, NULL);
	got = content_latest(rig.shard);
	for (const char *p = got; *p != '\0'; p++)
		rows += *p == ';';
	free(got);
	ck_assert_uint_eq(rows, w.rows);
	rig_settle(&rig);
	check_blobs(rig.disk, rig.shard, true);
	rig_free(&rig);
}
END_TEST

/* Nobody cares for the loss of a shard that is gone. */

Suite *staged_threads_suite(void)
{
	Suite *s = suite_create("staged_threads");
	TCase *t = tcase_create("staged_threads");

	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, what_one_thread_writes_another_commits_to_the_last_row, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
