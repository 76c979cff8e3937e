/* leftover.c - what lies in a store and is named by nobody: the space that crashes would eat. */
#include <dirent.h>

#include "core/manifest.h"
#include "core/shard.h"
#include "tests/crash/crash.h"

struct names {
	char (*v)[CORE_BLOB_KEY_LEN];
	size_t count;
};

static char *one_more(struct names *n)
{
	n->v = reallocarray(n->v, n->count + 1, sizeof *n->v);
	ck_assert_ptr_nonnull(n->v);
	return n->v[n->count++];
}

static void name_batch(struct core_shard_id id, const struct core_batch *b, struct names *n)
{
	for (size_t i = 0; i < b->part_count; i++)
		if (b->parts[i].inline_data == NULL)
			core_part_key(id, &b->parts[i], one_more(n));
}

static void name_staged(struct core_shard *shard, const struct core_staged *entry, struct names *n)
{
	struct core_manifest m;
	struct kv_err err;

	core_manifest_key(core_shard_id(shard), entry, one_more(n));
	if (core_manifest_read(core_shard_home(shard), entry, &m, &err) != KV_OK)
		program_fail("staged batch %s: %s", entry->name, err.msg);
	name_batch(core_shard_id(shard), m.batch, n);
	core_manifest_fini(&m);
}

static void name_shard(struct core_shard *shard, struct names *n)
{
	struct core_state state;
	struct kv_err err;

	if (core_shard_state(shard, &state, &err) != KV_OK)
		program_fail("state: %s", err.msg);
	for (size_t i = 0; i < state.batch_count; i++)
		name_batch(core_shard_id(shard), state.batches[i], n);
	for (size_t i = 0; i < state.staged_count; i++)
		name_staged(shard, &state.staged[i], n);
	for (size_t i = 0; i < state.rollup_count; i++)
		memcpy(one_more(n), state.rollups[i].key, CORE_BLOB_KEY_LEN);
	for (size_t i = 0; i < state.dead_count; i++) {
		struct core_part part = {.id = state.dead[i].id, .instance = state.dead[i].instance};

		core_part_key(core_shard_id(shard), &part, one_more(n));
	}
	core_state_fini(&state);
}

static bool is_named(const struct names *n, const char *key)
{
	for (size_t i = 0; i < n->count; i++)
		if (strcmp(n->v[i], key) == 0)
			return true;
	return false;
}

static bool is_shard(struct shard *const *live, size_t count, const char *key)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(live[i]->id, key) == 0)
			return true;
	return false;
}

static void look_blobs(struct kv_store *store, const struct names *n, FILE *out)
{
	char after[CORE_BLOB_KEY_LEN] = "";
	struct kv_blob_list list;
	struct kv_err err;
	size_t count;

	do {
		if (kv_blob_list(kv_store_blobs(store), "", after, 256, &list, &err) != KV_OK)
			program_fail("blobs: %s", err.msg);
		count = list.count;
		for (size_t i = 0; i < count; i++)
			if (!is_named(n, list.e[i].key))
				fprintf(out, "blob %s; ", list.e[i].key);
		if (count != 0)
			snprintf(after, sizeof after, "%s", list.e[count - 1].key);
		kv_blob_list_free(&list);
	} while (count != 0);
}

static void look_keys(struct kv_store *store, struct shard *const *live, size_t count, FILE *out)
{
	char after[256] = "";
	struct kv_keys keys;
	struct kv_err err;
	size_t got, found = 0;

	do {
		if (kv_consensus_list_keys(kv_store_consensus(store), after, 256, &keys, &err) != KV_OK)
			program_fail("keys: %s", err.msg);
		got = keys.count;
		for (size_t i = 0; i < got; i++) {
			bool is = is_shard(live, count, keys.keys[i]);

			found += is;
			if (!is && strcmp(keys.keys[i], "names") != 0)
				fprintf(out, "key %s; ", keys.keys[i]);
			snprintf(after, sizeof after, "%s", keys.keys[i]);
		}
		kv_keys_free(&keys);
	} while (got != 0);
	if (found != count)
		program_fail("of %zu shards the store has %zu", count, found);
}

static void look_tmp(FILE *out)
{
	DIR *dir = opendir(at(world.store, "blobs/tmp"));
	struct dirent *e;

	ck_assert_ptr_nonnull(dir);
	while ((e = readdir(dir)) != NULL)
		if (e->d_name[0] != '.')
			fprintf(out, "blobs/tmp/%s; ", e->d_name);
	closedir(dir);
}

char *leftover(struct shard *const *live, size_t count)
{
	struct kv_store *store = NULL;
	struct core_engine *engine = NULL;
	struct names names = {0};
	struct kv_err err;
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	ck_assert_ptr_nonnull(out);
	if (kv_store_embedded_open(world.store, true, "crash", &store, &err) != KV_OK ||
	    core_engine_open(store, NULL, &engine, &err) != KV_OK)
		program_fail("the store: %s", err.msg);
	for (size_t i = 0; i < count; i++) {
		struct core_shard_id id;
		struct core_shard *shard = NULL;

		ck_assert(core_uuid_parse('s', live[i]->id, strlen(live[i]->id), &id.u));
		if (core_shard_open(engine, id, &shard, &err) != KV_OK)
			program_fail("%s: %s", live[i]->id, err.msg);
		name_shard(shard, &names);
		core_shard_close(shard);
	}
	look_blobs(store, &names, out);
	look_keys(store, live, count, out);
	look_tmp(out);
	core_engine_close(engine);
	free(names.v);
	fclose(out);
	if (len != 0)
		return text;
	free(text);
	return NULL;
}
