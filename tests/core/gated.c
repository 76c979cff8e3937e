/* gated.c - see gated.h. */
#include "tests/core/gated.h"

#include <unistd.h>

#include "tests/core/suites.h"

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

struct scene *scene_new(void)
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

void scene_reopen(struct scene *s)
{
	struct kv_err err;

	core_shard_close(s->shard);
	core_engine_close(s->engine);
	open_gated(s);
	ck_ok(core_shard_open(s->engine, s->id, &s->shard, &err), err);
}

void scene_open_others(struct scene *s)
{
	struct kv_err err;

	for (int i = 0; i < OTHERS; i++) {
		struct core_shard_id id = {.u = core_uuid_new()};

		ck_ok(core_shard_create(s->engine, id, any_owner, &err), err);
		ck_ok(core_shard_open(s->engine, id, &s->others[i], &err), err);
	}
}

void scene_close_others(struct scene *s)
{
	for (int i = 0; i < OTHERS; i++)
		core_shard_close(s->others[i]);
}

void scene_free(struct scene *s)
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

void client_submit(struct client *c, struct core_shard *shard)
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

void client_wait_told(struct client *c)
{
	while (atomic_load(&c->told) == 0)
		usleep(200);
}

void scene_begin(struct scene *s, enum trouble trouble)
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

void scene_join_at(struct scene *s, struct core_shard *shard, const char *options, const char *rows)
{
	start(&s->clients[s->count++], shard, options, rows);
	while (waiting(&s->engine->group) < s->count)
		usleep(200);
}

void scene_join(struct scene *s, const char *options, const char *rows)
{
	scene_join_at(s, s->shard, options, rows);
}

void scene_open_gate(struct scene *s, size_t shuts_again)
{
	struct gated *g = &s->gated;

	pthread_mutex_lock(&g->mu);
	g->shut = false;
	g->waits = false;
	g->shuts_again = shuts_again;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->mu);
}

void scene_let_go(struct scene *s)
{
	scene_open_gate(s, 0);
	pthread_join(s->first.thread, NULL);
	for (size_t i = 0; i < s->count; i++)
		pthread_join(s->clients[i].thread, NULL);
	ck_ok(s->first.rc, s->first.err);
}

const char *client_said(const struct client *c)
{
	return verdict_of(c->rc, &c->r, &c->err);
}
