/*
 * embed.c - shards without a mount: make one, append to it, read it back.
 *
 *     embed STOREDIR
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/shard.h"

static enum kv_rc append(struct core_shard *shard, uint64_t at, const char *key, struct kv_err *err)
{
	struct core_append ask = {.lower = core_frontier_at(at), .upper = core_frontier_at(at + 1)};
	struct core_row row = {
		.update = {
			.key = {.data = (const uint8_t *)key, .len = 5},
			.val = {.len = CORE_ABSENT},
			.time = at,
			.diff = 1,
		}};
	struct core_appended done;
	struct core_txn *txn;
	enum kv_rc rc = core_txn_begin(shard, &ask, &txn, err);

	if (rc != KV_OK)
		return rc;
	rc = core_txn_add(txn, &row, err);
	if (rc == KV_OK)
		rc = core_txn_commit(txn, &done, err);
	core_txn_free(txn);
	return rc;
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

int main(int argc, char **argv)
{
	struct core_shard_id id = {.u = core_uuid_new()};
	struct core_engine *engine = NULL;
	struct core_shard *shard = NULL;
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
		rc = append(shard, 0, "hello", &err);
	if (rc == KV_OK)
		rc = append(shard, 1, "world", &err);
	if (rc == KV_OK)
		rc = print(shard, &err);
	if (rc == KV_OK && append(shard, 1, "again", &err) == KV_UPPER_MISMATCH)
		printf("refused: %s\n", err.msg);
	core_shard_close(shard);
	core_engine_close(engine);
	if (rc != KV_OK)
		fprintf(stderr, "%s: %s\n", kv_rc_name(rc), err.msg);
	return rc == KV_OK ? 0 : 1;
}
