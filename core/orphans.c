/*
 * orphans.c - blobs that no state names; for check.c and repair.c.
 *
 * What is named is kept as hashes: one that collides hides an orphan, and harms nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/check_impl.h"

enum { PAGE = 4096 };

struct hashes {
	uint64_t *v;
	size_t count;
	size_t cap;
};

static bool name(struct hashes *h, const char *key)
{
	if (h->count == h->cap) {
		size_t cap = h->cap != 0 ? 2 * h->cap : 64;
		uint64_t *grown = reallocarray(h->v, cap, sizeof *grown);

		if (grown == NULL)
			return false;
		h->v = grown;
		h->cap = cap;
	}
	h->v[h->count++] = XXH3_64bits(key, strlen(key));
	return true;
}

static int cmp_hash(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static bool is_named(const struct hashes *h, const char *key)
{
	uint64_t hash = XXH3_64bits(key, strlen(key));

	return h->count != 0 && bsearch(&hash, h->v, h->count, sizeof *h->v, cmp_hash) != NULL;
}

static bool name_parts(struct core_shard_id id, const struct core_batch *b, struct hashes *h)
{
	char key[CORE_BLOB_KEY_LEN];
	bool ok = true;

	for (size_t i = 0; i < b->part_count && ok; i++)
		ok = b->parts[i].inline_data != NULL || name(h, core_part_key(id, &b->parts[i], key));
	return ok;
}

static enum kv_rc name_staged(struct core_engine *e, struct core_shard_id id, const struct core_staged *entry,
			      struct hashes *h, struct kv_err *err)
{
	struct core_home home = core_home_of(e, id);
	struct core_manifest manifest;
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc = name(h, core_manifest_key(id, entry, key)) ? KV_OK : kv_fail_rc(err, KV_NOMEM);

	if (rc == KV_OK)
		rc = core_manifest_read(&home, entry, &manifest, err);
	if (rc == KV_NOTFOUND && !e->traits.sole_owner)
		return kv_fail_rc(err, KV_GONE);
	if (rc != KV_OK)
		return rc;
	if (!name_parts(id, manifest.batch, h))
		rc = kv_fail_rc(err, KV_NOMEM);
	core_manifest_fini(&manifest);
	return rc;
}

static enum kv_rc name_all(struct core_engine *e, struct core_shard_id id, const struct core_state *s,
			   struct hashes *h, struct kv_err *err)
{
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc = KV_OK;
	bool ok = true;

	for (size_t i = 0; i < s->batch_count && ok; i++)
		ok = name_parts(id, s->batches[i], h);
	for (size_t i = 0; i < s->dead_count && ok; i++) {
		struct core_part part = {.id = s->dead[i].id, .instance = s->dead[i].instance};

		ok = name(h, core_part_key(id, &part, key));
	}
	for (size_t i = 0; i < s->rollup_count && ok; i++)
		ok = name(h, s->rollups[i].key);
	if (!ok)
		return kv_fail_rc(err, KV_NOMEM);
	for (size_t i = 0; i < s->staged_count && rc == KV_OK; i++)
		rc = name_staged(e, id, &s->staged[i], h, err);
	if (rc == KV_OK && h->count != 0)
		qsort(h->v, h->count, sizeof *h->v, cmp_hash);
	return rc;
}

/* Every blob below prefix that h (NULL: nothing) does not name. */
static enum kv_rc each_below(struct core_engine *e, const char *prefix, const struct hashes *h,
			     core_orphan_fn *each, void *arg, struct kv_err *err)
{
	char after[KV_KEY_MAX + 1] = "";
	size_t count = PAGE;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count == PAGE) {
		struct kv_blob_list list;

		rc = kv_blob_list(kv_store_blobs(e->store), prefix, after, PAGE, &list, err);
		count = list.count;
		for (size_t i = 0; i < list.count && rc == KV_OK; i++) {
			snprintf(after, sizeof after, "%s", list.e[i].key);
			if (h == NULL || !is_named(h, list.e[i].key))
				rc = each(arg, list.e[i].key, list.e[i].size, err);
		}
		kv_blob_list_free(&list);
	}
	return rc;
}

enum kv_rc core_orphans_of(struct core_engine *e, struct core_shard_id id, const struct core_state *state,
			   core_orphan_fn *each, void *arg, struct kv_err *err)
{
	char text[CORE_ID_LEN], prefix[CORE_ID_LEN + 1];
	struct hashes h = {0};
	enum kv_rc rc = name_all(e, id, state, &h, err);

	snprintf(prefix, sizeof prefix, "%s/", core_uuid_format('s', id.u, text));
	if (rc == KV_OK)
		rc = each_below(e, prefix, &h, each, arg, err);
	free(h.v);
	return rc;
}

/* The first word of a key has versions. KV_NOTFOUND: it has not. */
static enum kv_rc has_versions(struct core_engine *e, const char *word, size_t len, struct kv_err *err)
{
	struct core_uuid id;
	struct kv_version head;
	char key[CORE_ID_LEN];
	enum kv_rc rc;

	if (!core_uuid_parse('s', word, len, &id))
		return kv_fail_rc(err, KV_NOTFOUND);
	rc = kv_consensus_head(kv_store_consensus(e->store), core_uuid_format('s', id, key), &head, err);
	if (rc == KV_OK)
		free(head.data);
	return rc;
}

enum kv_rc core_orphans_of_nobody(struct core_engine *e, core_orphan_fn *each, void *arg, struct kv_err *err)
{
	char after[KV_KEY_MAX + 2] = "", prefix[KV_KEY_MAX + 2];
	size_t count = PAGE;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count != 0) {
		struct kv_blob_list list;

		rc = kv_blob_list(kv_store_blobs(e->store), "", after, PAGE, &list, err);
		count = list.count;
		for (size_t i = 0; i < list.count && rc == KV_OK; i++) {
			size_t len = strcspn(list.e[i].key, "/");

			if (strcmp(after, list.e[i].key) > 0)
				continue; /* of a word that was seen to */
			rc = has_versions(e, list.e[i].key, len, err);
			snprintf(prefix, sizeof prefix, "%.*s/", (int)len, list.e[i].key);
			if (rc == KV_NOTFOUND)
				rc = list.e[i].key[len] == '/'
					     ? each_below(e, prefix, NULL, each, arg, err)
					     : each(arg, list.e[i].key, list.e[i].size, err);
			else if (core_is_damage(rc))
				rc = KV_OK; /* found with the shards */
			/* '0' comes right behind '/': the next page begins behind all of this word. */
			snprintf(after, sizeof after, "%.*s0", (int)(len < KV_KEY_MAX ? len : KV_KEY_MAX - 1),
				 list.e[i].key);
		}
		kv_blob_list_free(&list);
	}
	return rc;
}

enum kv_rc core_each_shard(struct core_engine *e, core_each_id_fn *each, void *arg, struct kv_err *err)
{
	char after[KV_KEY_MAX + 1] = "s";
	size_t count = PAGE;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count == PAGE) {
		struct kv_keys keys;

		rc = kv_consensus_list_keys(kv_store_consensus(e->store), after, PAGE, &keys, err);
		count = keys.count;
		for (size_t i = 0; i < keys.count && rc == KV_OK; i++) {
			struct core_shard_id id;

			snprintf(after, sizeof after, "%s", keys.keys[i]);
			if (core_uuid_parse('s', keys.keys[i], strlen(keys.keys[i]), &id.u))
				rc = each(arg, id, err);
		}
		kv_keys_free(&keys);
	}
	return rc;
}
