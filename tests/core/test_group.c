/*
 * test_group.c - appends that come while another one is being stored share the next step, to whichever shards
 * they go, and whether somebody waits for them or not. The store is held at its commit until those who are to
 * meet have come.
 */
#include <unistd.h>

#include "kv/store_impl.h"
#include "tests/core/suites.h"
#include "tests/core/world.h"

enum { CLIENTS_MAX = 40, STEPS_MAX = 8, OTHERS = 4 };

enum trouble { NO_TROUBLE, REFUSED, DONE_UNKNOWN, LOST_UNKNOWN };

/* An embedded store whose commits wait at a gate. */
struct gated {
	struct kv_store base;
	struct kv_store *inner;
	pthread_mutex_t mu;
	pthread_cond_t changed;
	bool shut;
	bool waits;              /* a commit stands at the gate */
	size_t shuts_again;      /* it closes behind so many commits more */
	enum trouble trouble;    /* of the next one but one: that of the group */
	size_t steps[STEPS_MAX]; /* how many versions each commit since had, and of how many shards */
	size_t shards[STEPS_MAX];
	size_t step_count;
};

struct client {
	pthread_t thread;
	struct core_shard *shard;
	const char *options;
	const char *rows;
	enum kv_rc rc;
	struct core_appended r;
	struct kv_err err;
	struct core_txn *txn; /* of one who does not wait: not ended yet */
	_Atomic(unsigned) told;
};

struct scene {
	struct disk *disk;
	struct gated gated;
	struct core_engine *engine;
	struct core_shard_id id;
	struct core_shard *shard;
	struct core_shard *others[OTHERS];
	struct client first;
	struct client clients[CLIENTS_MAX];
	size_t count;
};

static void gated_commit(struct kv_store *s, struct kv_run *runs, size_t count, enum kv_sync sync)
{
	struct gated *g = (struct gated *)s;
	enum trouble trouble = NO_TROUBLE;
	size_t versions = 0;

	for (size_t i = 0; i < count; i++)
		versions += runs[i].version_count;
	pthread_mutex_lock(&g->mu);
	if (g->step_count != 0) {
		trouble = g->trouble;
		g->trouble = NO_TROUBLE;
	}
	if (g->step_count < STEPS_MAX) {
		g->shards[g->step_count] = count;
		g->steps[g->step_count++] = versions;
	}
	while (g->shut) {
		g->waits = true;
		pthread_cond_broadcast(&g->changed);
		pthread_cond_wait(&g->changed, &g->mu);
	}
	g->shut = g->shuts_again != 0 && --g->shuts_again == 0;
	pthread_mutex_unlock(&g->mu);
	if (trouble == NO_TROUBLE || trouble == DONE_UNKNOWN)
		kv_store_commit_runs(g->inner, runs, count, sync);
	for (size_t i = 0; i < count && trouble != NO_TROUBLE; i++) {
		if (trouble == REFUSED)
			runs[i].rc = kv_fail(runs[i].err, KV_NOSPACE, "there is no room");
		else if (runs[i].rc == KV_OK)
			runs[i].rc = kv_fail(runs[i].err, KV_UNKNOWN, "nobody knows");
	}
}

static enum kv_rc gated_tidy(struct kv_store *s, struct kv_err *err)
{
	return kv_store_tidy(((struct gated *)s)->inner, err);
}

static enum kv_rc gated_usage(struct kv_store *s, struct kv_usage *out, struct kv_err *err)
{
	return kv_store_usage(((struct gated *)s)->inner, out, err);
}

static void gated_close(struct kv_store *s)
{
	kv_store_close(((struct gated *)s)->inner);
}

static const struct kv_store_ops gated_ops = {
	.name = "gated",
	.commit = gated_commit,
	.tidy = gated_tidy,
	.usage = gated_usage,
	.close = gated_close,
};

static void open_gated(struct scene *s)
{
	struct core_engine_config config = {.no_upkeep = true};
	struct gated *g = &s->gated;
	struct kv_err err;

	ck_ok(kv_store_embedded_open(s->disk->dir, false, "a test", &g->inner, &err), err);
	g->base = (struct kv_store){.ops = &gated_ops,
				    .traits = kv_store_traits(g->inner),
				    .consensus = kv_store_consensus(g->inner),
				    .blobs = kv_store_blobs(g->inner)};
	ck_ok(core_engine_open(&g->base, &config, &s->engine, &err), err);
}

static struct scene *scene_new(void)
{
	struct scene *s = calloc(1, sizeof *s);
	struct kv_err err;

	s->disk = disk_new(DISK_EMBEDDED);
	s->id.u = core_uuid_new();
	pthread_mutex_init(&s->gated.mu, NULL);
	pthread_cond_init(&s->gated.changed, NULL);
	open_gated(s);
	ck_ok(core_shard_create(s->engine, s->id, any_owner, &err), err);
	ck_ok(core_shard_open(s->engine, s->id, &s->shard, &err), err);
	return s;
}

static void reopen(struct scene *s)
{
	struct kv_err err;

	core_shard_close(s->shard);
	core_engine_close(s->engine);
	open_gated(s);
	ck_ok(core_shard_open(s->engine, s->id, &s->shard, &err), err);
}

/* More shards of the same engine. */
static void open_others(struct scene *s)
{
	struct kv_err err;

	for (int i = 0; i < OTHERS; i++) {
		struct core_shard_id id = {.u = core_uuid_new()};

		ck_ok(core_shard_create(s->engine, id, any_owner, &err), err);
		ck_ok(core_shard_open(s->engine, id, &s->others[i], &err), err);
	}
}

static void close_others(struct scene *s)
{
	for (int i = 0; i < OTHERS; i++)
		core_shard_close(s->others[i]);
}

static void scene_free(struct scene *s)
{
	core_shard_close(s->shard);
	core_engine_close(s->engine);
	disk_free(s->disk);
	free(s);
}

static void *client_main(void *arg)
{
	struct client *c = arg;

	c->rc = append(c->shard, c->options, c->rows, &c->r, &c->err);
	return NULL;
}

static void start(struct client *c, struct core_shard *shard, const char *options, const char *rows)
{
	*c = (struct client){.shard = shard, .options = options, .rows = rows};
	pthread_create(&c->thread, NULL, client_main, c);
}

static void told(void *arg, enum kv_rc rc, const struct core_appended *r, struct kv_err *err)
{
	struct client *c = arg;

	c->rc = rc;
	c->r = *r;
	if (rc != KV_OK)
		c->err = *err;
	core_txn_free(c->txn);
	c->txn = NULL;
	atomic_fetch_add(&c->told, 1);
}

/* An append that nobody waits for. */
static void submit(struct client *c, struct core_shard *shard)
{
	struct core_append ask = parse_ask("expected_upper=* new_upper=+1");
	const struct core_row row = {
		.update = {.diff = 1, .key = {(const uint8_t *)"a", 1}, .val = {(const uint8_t *)"x", 1}},
		.star = true};
	struct kv_err err;

	*c = (struct client){.shard = shard};
	ck_ok(core_txn_begin(shard, &ask, &c->txn, &err), err);
	ck_ok(core_txn_add(c->txn, &row, &err), err);
	core_txn_submit(c->txn, told, c);
}

static void wait_told(struct client *c)
{
	while (atomic_load(&c->told) == 0)
		usleep(200);
}

/* One append that stands at the gate. */
static void begin(struct scene *s, enum trouble trouble)
{
	struct gated *g = &s->gated;

	pthread_mutex_lock(&g->mu);
	g->shut = true;
	g->waits = false;
	g->trouble = trouble;
	g->step_count = 0;
	pthread_mutex_unlock(&g->mu);
	s->count = 0;
	start(&s->first, s->shard, "expected_upper=* new_upper=+1", "* 1 first x;");
	pthread_mutex_lock(&g->mu);
	while (!g->waits)
		pthread_cond_wait(&g->changed, &g->mu);
	pthread_mutex_unlock(&g->mu);
}

static size_t waiting(struct core_group *g)
{
	size_t count = 0;

	pthread_mutex_lock(&g->mu);
	for (const struct core_change *c = g->first; c != NULL; c = c->turn.next)
		count++;
	pthread_mutex_unlock(&g->mu);
	return count;
}

/* Another one that waits behind those before it. */
static void join_in_at(struct scene *s, struct core_shard *shard, const char *options, const char *rows)
{
	start(&s->clients[s->count++], shard, options, rows);
	while (waiting(&s->engine->group) < s->count)
		usleep(200);
}

static void join_in(struct scene *s, const char *options, const char *rows)
{
	join_in_at(s, s->shard, options, rows);
}

static void open_gate(struct scene *s, size_t shuts_again)
{
	struct gated *g = &s->gated;

	pthread_mutex_lock(&g->mu);
	g->shut = false;
	g->waits = false;
	g->shuts_again = shuts_again;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->mu);
}

static void let_go(struct scene *s)
{
	open_gate(s, 0);
	pthread_join(s->first.thread, NULL);
	for (size_t i = 0; i < s->count; i++)
		pthread_join(s->clients[i].thread, NULL);
	ck_ok(s->first.rc, s->first.err);
}

static const char *said(const struct client *c)
{
	return verdict_of(c->rc, &c->r, &c->err);
}

START_TEST(appends_that_wait_share_the_next_step_in_the_order_they_came)
{
	struct scene *s = scene_new();
	char want[40];

	begin(s, NO_TROUBLE);
	for (int i = 0; i < 5; i++)
		join_in(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	let_go(s);
	ck_assert_uint_eq(s->gated.step_count, 2);
	ck_assert_uint_eq(s->gated.steps[0], 1);
	ck_assert_uint_eq(s->gated.steps[1], 5);
	for (int i = 0; i < 5; i++) {
		snprintf(want, sizeof want, "ok %d %d updates=1", i + 1, i + 2);
		ck_assert_str_eq(said(&s->clients[i]), want);
	}
	check_sound(s->shard);
	for (int round = 0; round < 2; round++, reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "0 6");
		check_content(s->shard, 0, "first x 1;");
		check_content(s->shard, 3, "a x 3;first x 1;");
		check_content(s->shard, 5, "a x 5;first x 1;");
	}
	scene_free(s);
}
END_TEST

START_TEST(each_of_a_group_is_judged_by_what_those_before_it_left)
{
	struct scene *s = scene_new();
	const struct client *c = s->clients;

	begin(s, NO_TROUBLE);
	join_in(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	join_in(s, "expected_upper=1 new_upper=2", "1 1 late x;");
	join_in(s, "expected_upper=2 new_upper=4", "3 1 b x;");
	join_in(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	join_in(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	join_in(s, "expected_upper=5 new_upper=5 since=4", "");
	let_go(s);
	ck_assert_uint_eq(s->gated.steps[1], 4);
	ck_assert_str_eq(said(&c[0]), "ok 1 2 updates=1");
	ck_assert_int_eq(c[1].rc, KV_UPPER_MISMATCH);
	ck_assert_ptr_nonnull(strstr(c[1].err.detail, "current_upper=2"));
	ck_assert_str_eq(said(&c[2]), "ok 2 4 updates=1");
	ck_assert_str_eq(said(&c[3]), "ok 4 5 updates=1");
	ck_assert_str_eq(said(&c[4]), "same 4 5 updates=1");
	ck_assert_int_eq(c[5].rc, KV_OK);
	for (int round = 0; round < 2; round++, reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "4 5");
		check_content(s->shard, 4, "a x 1;b x 1;first x 1;once x 1;");
	}
	scene_free(s);
}
END_TEST

START_TEST(a_group_that_the_store_refuses_is_not_done_and_each_is_told)
{
	struct scene *s = scene_new();

	begin(s, REFUSED);
	for (int i = 0; i < 4; i++)
		join_in(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	let_go(s);
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(s->clients[i].rc, KV_NOSPACE);
		ck_assert_str_eq(s->clients[i].err.msg, "there is no room");
	}
	ck_assert_str_eq(frontiers(s->shard), "0 1");
	ck_assert_str_eq(verdict(s->shard, "expected_upper=1 new_upper=2", "1 1 a x;"), "ok 1 2 updates=1");
	reopen(s);
	check_content(s->shard, 1, "a x 1;first x 1;");
	scene_free(s);
}
END_TEST

START_TEST(who_was_judged_by_what_the_store_then_refused_is_judged_anew)
{
	struct scene *s = scene_new();
	const struct client *c = s->clients;

	begin(s, REFUSED);
	join_in(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	join_in(s, "expected_upper=* new_upper=+1 token=7", "* 1 once x;");
	join_in(s, "expected_upper=2 new_upper=3", "2 1 b x;");
	join_in(s, "expected_upper=1 new_upper=2", "1 1 late x;");
	let_go(s);
	ck_assert_int_eq(c[0].rc, KV_NOSPACE);
	ck_assert_str_eq(said(&c[1]), "ok 1 2 updates=1");
	ck_assert_int_eq(c[2].rc, KV_NOSPACE);
	ck_assert_int_eq(c[3].rc, KV_UPPER_MISMATCH);
	ck_assert_ptr_nonnull(strstr(c[3].err.detail, "current_upper=2"));
	for (int round = 0; round < 2; round++, reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "0 2");
		check_content(s->shard, 1, "first x 1;once x 1;");
	}
	scene_free(s);
}
END_TEST

/* A row of 3 to 4 KB as it is encoded; given. */
static char *large_row(struct rng *r)
{
	enum { LEN = 3900 };
	static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
	char *text = malloc(LEN + 16), *p = text + sprintf(text, "* 1 ");

	for (int i = 0; i < LEN; i++)
		*p++ = letters[rng_below(r, 64)];
	strcpy(p, " x;");
	return text;
}

START_TEST(rows_beyond_what_a_shard_keeps_inline_are_no_part_of_a_group)
{
	enum { BEFORE = 30, TOGETHER = 16 };
	struct scene *s = scene_new();
	struct rng r = rng_new(901);
	char *rows[TOGETHER], want[40];
	struct core_appended done;
	struct kv_err err;

	for (int i = 0; i < BEFORE; i++) {
		rows[0] = large_row(&r);
		ck_ok(append(s->shard, "expected_upper=* new_upper=+1", rows[0], &done, &err), err);
		free(rows[0]);
	}
	begin(s, NO_TROUBLE);
	for (int i = 0; i < TOGETHER; i++)
		join_in(s, "expected_upper=* new_upper=+1", rows[i] = large_row(&r));
	let_go(s);
	ck_assert_uint_gt(s->gated.step_count, 2); /* one of them had to be stored by itself */
	for (int i = 0; i < TOGETHER; i++) {
		ck_ok(s->clients[i].rc, s->clients[i].err);
		free(rows[i]);
	}
	snprintf(want, sizeof want, "0 %d", BEFORE + 1 + TOGETHER);
	for (int round = 0; round < 2; round++, reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), want);
		check_sound(s->shard);
	}
	scene_free(s);
}
END_TEST

START_TEST(a_group_of_unknown_outcome_is_done_once)
{
	struct scene *s = scene_new();

	begin(s, _i == 0 ? DONE_UNKNOWN : LOST_UNKNOWN);
	for (int i = 0; i < 4; i++)
		join_in(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	let_go(s);
	for (int i = 0; i < 4; i++)
		ck_ok(s->clients[i].rc, s->clients[i].err);
	ck_assert_uint_eq(s->gated.step_count, _i == 0 ? 2 : 3);
	for (int round = 0; round < 2; round++, reopen(s)) {
		ck_assert_str_eq(frontiers(s->shard), "0 5");
		check_content(s->shard, 4, "a x 4;first x 1;");
	}
	scene_free(s);
}
END_TEST

START_TEST(more_than_one_step_can_take_share_several)
{
	struct scene *s = scene_new();
	size_t sum = 0;

	begin(s, NO_TROUBLE);
	for (int i = 0; i < CLIENTS_MAX; i++)
		join_in(s, "expected_upper=* new_upper=+1", "* 1 a x;");
	let_go(s);
	for (size_t i = 0; i < s->gated.step_count; i++)
		sum += s->gated.steps[i];
	ck_assert_uint_eq(sum, CLIENTS_MAX + 1);
	ck_assert_uint_le(s->gated.step_count, 3);
	check_sound(s->shard);
	reopen(s);
	check_content(s->shard, CLIENTS_MAX, "a x 40;first x 1;");
	scene_free(s);
}
END_TEST

START_TEST(appends_to_several_shards_share_the_next_step)
{
	struct scene *s = scene_new();

	open_others(s);
	begin(s, NO_TROUBLE);
	for (int i = 0; i < OTHERS; i++)
		join_in_at(s, s->others[i], "expected_upper=0 new_upper=1", "0 1 a x;");
	join_in(s, "expected_upper=1 new_upper=2", "1 1 a x;");
	join_in_at(s, s->others[0], "expected_upper=* new_upper=+1", "* 1 b x;");
	join_in_at(s, s->others[1], "expected_upper=0 new_upper=1", "0 1 late x;");
	let_go(s);
	ck_assert_uint_eq(s->gated.step_count, 2);
	ck_assert_uint_eq(s->gated.shards[1], OTHERS + 1);
	ck_assert_uint_eq(s->gated.steps[1], OTHERS + 2);
	for (int i = 0; i < OTHERS; i++) {
		ck_assert_str_eq(said(&s->clients[i]), "ok 0 1 updates=1");
		check_content(s->others[i], 0, "a x 1;");
		check_sound(s->others[i]);
	}
	ck_assert_str_eq(said(&s->clients[OTHERS]), "ok 1 2 updates=1");
	ck_assert_str_eq(said(&s->clients[OTHERS + 1]), "ok 1 2 updates=1");
	ck_assert_int_eq(s->clients[OTHERS + 2].rc, KV_UPPER_MISMATCH);
	check_content(s->others[0], 1, "a x 1;b x 1;");
	check_content(s->shard, 1, "a x 1;first x 1;");
	close_others(s);
	scene_free(s);
}
END_TEST

START_TEST(a_step_of_several_shards_that_fails_does_so_for_each_and_is_done_once_if_nobody_knows)
{
	static const enum trouble troubles[] = {REFUSED, DONE_UNKNOWN, LOST_UNKNOWN};
	struct scene *s = scene_new();
	bool refused = troubles[_i] == REFUSED;

	open_others(s);
	begin(s, troubles[_i]);
	for (int i = 0; i < OTHERS; i++)
		join_in_at(s, s->others[i], "expected_upper=* new_upper=+1", "* 1 a x;");
	let_go(s);
	for (int i = 0; i < OTHERS; i++) {
		ck_assert_int_eq(s->clients[i].rc, refused ? KV_NOSPACE : KV_OK);
		ck_assert_str_eq(frontiers(s->others[i]), refused ? "0 0" : "0 1");
		if (refused)
			ck_assert_str_eq(s->clients[i].err.msg, "there is no room");
		else
			check_content(s->others[i], 0, "a x 1;");
		ck_assert_int_eq(
			strncmp(verdict(s->others[i], "expected_upper=* new_upper=+1", "* 1 b x;"), "ok", 2),
			0);
		check_sound(s->others[i]);
	}
	close_others(s);
	scene_free(s);
}
END_TEST

START_TEST(who_submits_goes_on_and_each_is_told_once_how_it_ended)
{
	struct scene *s = scene_new();
	struct client *c = s->clients;

	open_others(s);
	submit(&c[0], s->shard); /* with nobody there it is over at once */
	ck_assert_uint_eq(c[0].told, 1);
	ck_assert_str_eq(said(&c[0]), "ok 0 1 updates=1");
	begin(s, _i == 0 ? NO_TROUBLE : REFUSED);
	for (int i = 1; i <= OTHERS; i++)
		submit(&c[i], s->others[i % 2]);
	for (int i = 1; i <= OTHERS; i++)
		ck_assert_uint_eq(c[i].told, 0);
	let_go(s);
	for (int i = 1; i <= OTHERS; i++)
		wait_told(&c[i]);
	for (int i = 1; i <= OTHERS; i++)
		ck_assert_int_eq(c[i].rc, _i == 0 ? KV_OK : KV_NOSPACE);
	for (int i = 0; i < 2 && _i == 0; i++)
		check_content(s->others[i], 1, "a x 2;");
	close_others(s);
	for (int i = 0; i <= OTHERS; i++)
		ck_assert_uint_eq(c[i].told, 1);
	scene_free(s); /* which closes the engine: after the last step was left */
}
END_TEST

START_TEST(who_waits_for_his_own_is_not_kept_by_what_others_submit)
{
	struct scene *s = scene_new();
	struct client *c = s->clients;

	open_others(s);
	begin(s, NO_TROUBLE);
	submit(&c[0], s->others[0]);
	open_gate(s, 1); /* it is shut again for the step of those who came */
	pthread_join(s->first.thread, NULL);
	ck_ok(s->first.rc, s->first.err);
	ck_assert_uint_eq(c[0].told, 0);
	submit(&c[1], s->others[1]);
	open_gate(s, 0);
	wait_told(&c[0]);
	wait_told(&c[1]);
	check_content(s->others[0], 0, "a x 1;");
	check_content(s->others[1], 0, "a x 1;");
	close_others(s);
	scene_free(s);
}
END_TEST

START_TEST(a_shard_that_is_busy_keeps_no_other_one_waiting)
{
	struct scene *s = scene_new();
	struct client *c = s->clients;

	open_others(s);
	begin(s, NO_TROUBLE);
	submit(&c[0], s->others[0]);
	submit(&c[1], s->others[1]);
	submit(&c[2], s->others[0]);
	pthread_mutex_lock(&s->others[0]->commit_mu);
	let_go(s);
	wait_told(&c[1]);
	check_content(s->others[1], 0, "a x 1;");
	ck_assert_uint_eq(c[0].told + c[2].told, 0);
	pthread_mutex_unlock(&s->others[0]->commit_mu);
	wait_told(&c[0]);
	wait_told(&c[2]);
	check_content(s->others[0], 1, "a x 2;");
	close_others(s);
	scene_free(s);
}
END_TEST

Suite *group_suite(void)
{
	Suite *s = suite_create("group");
	TCase *t = tcase_create("group");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, appends_that_wait_share_the_next_step_in_the_order_they_came);
	tcase_add_test(t, each_of_a_group_is_judged_by_what_those_before_it_left);
	tcase_add_test(t, a_group_that_the_store_refuses_is_not_done_and_each_is_told);
	tcase_add_test(t, who_was_judged_by_what_the_store_then_refused_is_judged_anew);
	tcase_add_test(t, rows_beyond_what_a_shard_keeps_inline_are_no_part_of_a_group);
	tcase_add_loop_test(t, a_group_of_unknown_outcome_is_done_once, 0, 2);
	tcase_add_test(t, more_than_one_step_can_take_share_several);
	tcase_add_test(t, appends_to_several_shards_share_the_next_step);
	tcase_add_loop_test(
		t, a_step_of_several_shards_that_fails_does_so_for_each_and_is_done_once_if_nobody_knows, 0,
		3);
	tcase_add_loop_test(t, who_submits_goes_on_and_each_is_told_once_how_it_ended, 0, 2);
	tcase_add_test(t, who_waits_for_his_own_is_not_kept_by_what_others_submit);
	tcase_add_test(t, a_shard_that_is_busy_keeps_no_other_one_waiting);
	suite_add_tcase(s, t);
	return s;
}
