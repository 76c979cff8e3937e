/*
 * embed.c - shards without a mount: make one, append to it, read it back.
 *
 *     embed STOREDIR
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/listen.h"
#include "core/write.h"

static enum kv_rc append(struct core_writer *writer, uint64_t at, const char *key, struct kv_err *err)
{
	struct core_update row = {
		.key = {.data = (const uint8_t *)key, .len = 5},
		.val = {.len = CORE_ABSENT},
		.time = at,
		.diff = 1,
	};

	return core_writer_compare_and_append(writer, &row, 1, core_frontier_at(at), core_frontier_at(at + 1),
					      NULL, err);
}

static enum kv_rc print(struct core_shard *shard, struct kv_err *err)
{
	struct core_snapshot *snapshot;
	struct core_update u;
	bool end = false;
	enum kv_rc rc = core_snapshot_open(shard, (struct core_as_of){.latest = true}, &snapshot, err);

	while (rc == KV_OK && !end) {
		rc = core_snapshot_next(snapshot, &u, &end, err);
		if (rc == KV_OK && !end)
			printf("%.*s %+" PRId64 "\n", (int)u.key.len, (const char *)u.key.data, u.diff);
	}
	core_snapshot_close(snapshot);
	return rc;
}

/* All that was appended, as one who follows the shard gets it. */
static enum kv_rc follow(struct core_shard *shard, struct kv_err *err)
{
	struct core_reader who = {.purpose = "an example"};
	struct core_listen *listen;
	struct core_step step;
	struct core_update u;
	bool end = false, step_end;
	enum kv_rc rc = core_listen_open(shard, core_frontier_at(0), &who, &listen, err);

	if (rc != KV_OK)
		return rc;
	while (rc == KV_OK && !end) {
		rc = core_listen_step(listen, &step, &end, err);
		for (step_end = rc != KV_OK || end; !step_end;) {
			rc = core_listen_next(listen, &u, &step_end, err);
			if (rc == KV_OK && !step_end)
				printf("at %" PRIu64 ": %.*s\n", u.time, (int)u.key.len, (const char *)u.key.data);
			step_end = step_end || rc != KV_OK;
		}
	}
	core_listen_close(listen);
	return rc == KV_WOULD_BLOCK ? KV_OK : rc; /* no more for now */
}

int main(int argc, char **argv)
{
	struct core_shard_id id = {.u = core_uuid_new()};
	struct core_engine *engine = NULL;
	struct core_shard *shard = NULL;
	struct core_writer *writer = NULL;
	struct kv_store *store;
	struct kv_err err;
	enum kv_rc rc;

	if (argc != 2)
		return 2;
	rc = kv_store_embedded_open(argv[1], false, "embed", &store, &err);
	if (rc == KV_OK)
		rc = core_engine_open(store, NULL, &engine, &err);
	if (rc == KV_OK)
		rc = core_shard_create(engine, id, (struct core_owner){.mode = 0700}, &err);
	if (rc == KV_OK)
		rc = core_shard_open(engine, id, &shard, &err);
	if (rc == KV_OK)
		rc = core_writer_open(shard, "an example", &writer, &err);
	if (rc == KV_OK)
		rc = append(writer, 0, "hello", &err);
	if (rc == KV_OK)
		rc = append(writer, 1, "world", &err);
	if (rc == KV_OK)
		rc = print(shard, &err);
	if (rc == KV_OK)
		rc = follow(shard, &err);
	if (rc == KV_OK && append(writer, 1, "again", &err) == KV_UPPER_MISMATCH)
		printf("refused: %s\n", err.msg);
	core_writer_close(writer);
	core_shard_close(shard);
	core_engine_close(engine);
	if (rc != KV_OK)
		fprintf(stderr, "%s: %s\n", kv_rc_name(rc), err.msg);
	return rc == KV_OK ? 0 : 1;
}
