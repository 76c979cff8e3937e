/*
 * chain.c - see chain.h. The links: head record -> newest version -> the rollup it names -> the versions from
 * that one's on to the head.
 *
 * A version or rollup is right if its checksum is, if it is of this shard, and if it fits what it is applied
 * to; the whole, if core_state_check says so.
 */
#include "core/chain.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCAN_PAGE = 256, LIST_PAGE = 256 };

void core_chain_fini(struct core_chain *c)
{
	core_state_fini(&c->state);
	*c = (struct core_chain){0};
}

static void at_version(struct core_chain *c, uint64_t seqno)
{
	snprintf(c->link, sizeof c->link, "version %" PRIu64, seqno);
}

static enum kv_rc read_head(struct core_engine *e, struct core_shard_id id, struct core_chain *c,
			    struct kv_err *err)
{
	struct kv_version head;
	struct core_diff d;
	char key[CORE_ID_LEN];
	enum kv_rc rc =
		kv_consensus_head(kv_store_consensus(e->store), core_uuid_format('s', id.u, key), &head, err);

	if (rc != KV_OK)
		return rc;
	c->head = head.seqno;
	at_version(c, c->head);
	rc = core_diff_decode(id, head.data, head.len, &d, err);
	if (rc == KV_OK) {
		c->rollup = d.newest_rollup;
		c->tombstone = d.tombstone;
		c->link[0] = '\0';
	}
	core_diff_fini(&d);
	free(head.data);
	return rc;
}

static enum kv_rc read_rollup(struct core_engine *e, struct core_shard_id id, struct core_chain *c,
			      struct kv_err *err)
{
	struct core_buf bytes;
	enum kv_rc rc;

	snprintf(c->link, sizeof c->link, "%s", c->rollup.key);
	rc = core_blob_read(kv_store_blobs(e->store), c->rollup.key, &bytes, err);
	if (rc == KV_NOTFOUND)
		return kv_fail(err, e->traits.sole_owner ? KV_CORRUPT : KV_GONE,
			       "the newest rollup is missing");
	if (rc == KV_OK)
		rc = core_state_decode(id, bytes.data, bytes.len, &c->state, err);
	if (rc == KV_OK && c->state.seqno != c->rollup.seqno)
		rc = kv_fail(err, KV_CORRUPT, "it is of version %" PRIu64 ", not %" PRIu64, c->state.seqno,
			     c->rollup.seqno);
	c->rollup_bytes = bytes.len;
	core_buf_fini(&bytes);
	if (rc == KV_OK)
		c->link[0] = '\0';
	return rc;
}

/* Apply one version behind the state. */
static enum kv_rc apply(struct core_shard_id id, struct core_chain *c, const struct kv_version *v,
			struct kv_err *err)
{
	struct core_diff d;
	enum kv_rc rc;

	at_version(c, v->seqno);
	rc = core_diff_decode(id, v->data, v->len, &d, err);
	if (rc == KV_OK && d.seqno != v->seqno)
		rc = kv_fail(err, KV_CORRUPT, "it says to be version %" PRIu64, d.seqno);
	if (rc == KV_OK)
		rc = core_state_reserve(&c->state, &d, err);
	if (rc == KV_OK)
		rc = core_state_apply(&c->state, &d, err);
	core_diff_fini(&d);
	c->versions++;
	c->version_bytes += v->len;
	if (rc == KV_OK)
		c->link[0] = '\0';
	return rc;
}

/* From the state's version on to the head, or farther if there is more by now. */
static enum kv_rc read_versions(struct core_engine *e, struct core_shard_id id, struct core_chain *c,
				struct kv_err *err)
{
	char key[CORE_ID_LEN];
	size_t count = SCAN_PAGE;
	enum kv_rc rc = KV_OK;

	core_uuid_format('s', id.u, key);
	while (rc == KV_OK && count == SCAN_PAGE && !c->state.tombstone) {
		struct kv_versions versions;

		rc = kv_consensus_scan(kv_store_consensus(e->store), key, c->state.seqno, SCAN_PAGE,
				       &versions, err);
		count = versions.count;
		if (rc == KV_OK && (count == 0 || versions.v[0].seqno != c->state.seqno)) {
			at_version(c, c->state.seqno);
			rc = kv_fail(err, e->traits.sole_owner ? KV_CORRUPT : KV_GONE,
				     "the version is missing");
		}
		for (size_t i = 1; i < count && rc == KV_OK && !c->state.tombstone; i++)
			rc = apply(id, c, &versions.v[i], err);
		kv_versions_free(&versions);
	}
	if (rc == KV_OK && c->state.seqno < c->head) {
		at_version(c, c->state.seqno + 1);
		rc = kv_fail(err, KV_CORRUPT, "the version is missing");
	}
	return rc == KV_OK ? core_state_check(&c->state, err) : rc;
}

enum kv_rc core_chain_read(struct core_engine *e, struct core_shard_id id, struct core_chain *out,
			   struct kv_err *err)
{
	enum kv_rc rc;

	*out = (struct core_chain){0};
	rc = read_head(e, id, out, err);
	if (rc != KV_OK || out->tombstone)
		return rc;
	rc = read_rollup(e, id, out, err);
	return rc == KV_OK ? read_versions(e, id, out, err) : rc;
}

/* --- from elsewhere -------------------------------------------------------------------------------- */

/* Rollups that are there, by their keys <shard>/v<seqno>/<instance>-<try>. */
struct rollups {
	struct core_rollup *v;
	size_t count;
};

static int cmp_newest_first(const void *a, const void *b)
{
	const struct core_rollup *x = a, *y = b;

	return x->seqno < y->seqno ? 1 : x->seqno > y->seqno ? -1 : strcmp(x->key, y->key);
}

static enum kv_rc add_rollups(const struct kv_blob_list *list, size_t prefix_len, struct rollups *out,
			      struct kv_err *err)
{
	struct core_rollup *grown = reallocarray(out->v, out->count + list->count + 1, sizeof *grown);

	if (grown == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	out->v = grown;
	for (size_t i = 0; i < list->count; i++) {
		const char *digits = list->e[i].key + prefix_len;
		struct core_rollup *rollup = &out->v[out->count];
		size_t len = strspn(digits, "0123456789");

		if (digits[len] != '/' || !core_u64_parse(digits, len, &rollup->seqno) ||
		    strlen(list->e[i].key) >= sizeof rollup->key)
			continue;
		snprintf(rollup->key, sizeof rollup->key, "%s", list->e[i].key);
		out->count++;
	}
	return KV_OK;
}

static enum kv_rc list_rollups(struct core_engine *e, struct core_shard_id id, struct rollups *out,
			       struct kv_err *err)
{
	char key[CORE_ID_LEN], prefix[CORE_ID_LEN + 2], after[KV_KEY_MAX + 1] = "";
	size_t count = LIST_PAGE;
	enum kv_rc rc = KV_OK;

	snprintf(prefix, sizeof prefix, "%s/v", core_uuid_format('s', id.u, key));
	while (rc == KV_OK && count == LIST_PAGE) {
		struct kv_blob_list list;

		rc = kv_blob_list(kv_store_blobs(e->store), prefix, after, LIST_PAGE, &list, err);
		count = list.count;
		if (rc == KV_OK && count != 0)
			snprintf(after, sizeof after, "%s", list.e[count - 1].key);
		if (rc == KV_OK)
			rc = add_rollups(&list, strlen(prefix), out, err);
		kv_blob_list_free(&list);
	}
	if (out->count != 0)
		qsort(out->v, out->count, sizeof *out->v, cmp_newest_first);
	return rc;
}

/* The state that the first version made, if that is still there (life.c). */
static enum kv_rc begin_anew(struct core_engine *e, struct core_shard_id id, struct core_chain *c,
			     bool *owner_lost, struct kv_err *err)
{
	static const struct core_owner root = {.mode = 0700};
	struct kv_versions versions;
	struct core_diff d;
	char key[CORE_ID_LEN];
	enum kv_rc rc = kv_consensus_scan(kv_store_consensus(e->store), core_uuid_format('s', id.u, key), 0,
					  1, &versions, err);

	core_diff_init(&d);
	if (rc == KV_OK && versions.count == 0)
		rc = kv_fail(err, KV_CORRUPT, "there are no versions");
	if (rc == KV_OK)
		rc = core_diff_decode(id, versions.v[0].data, versions.v[0].len, &d, err);
	/* A later version that brings a rollup brings one of a version before it; the first version of a
	 * shard that was made with content (life.c) has an upper, and does not say what the content is. */
	if (rc == KV_OK && (!d.has_rollup || d.rollup.seqno != d.seqno || d.has_upper))
		rc = kv_fail(err, KV_CORRUPT, "the first versions are not there any more");
	if (rc == KV_OK)
		rc = core_state_init(&c->state, d.seqno, d.walltime_ms, d.has_owner ? d.owner : root, err);
	if (rc == KV_OK) {
		*owner_lost = !d.has_owner;
		c->state.attempt = d.attempt;
		c->state.rollups = calloc(1, sizeof *c->state.rollups);
		if (c->state.rollups == NULL)
			rc = kv_fail_rc(err, KV_NOMEM);
		else
			c->state.rollups[c->state.rollup_count++] = d.rollup;
	}
	core_diff_fini(&d);
	kv_versions_free(&versions);
	return rc;
}

/* Whether the chain leads to the head from that rollup on. */
static enum kv_rc try_rollup(struct core_engine *e, struct core_shard_id id, const struct core_rollup *rollup,
			     struct core_chain *c, struct kv_err *err)
{
	enum kv_rc rc;

	core_state_fini(&c->state);
	c->rollup = *rollup;
	rc = read_rollup(e, id, c, err);
	return rc == KV_OK ? read_versions(e, id, c, err) : rc;
}

enum kv_rc core_chain_rebuild(struct core_engine *e, struct core_shard_id id, struct core_chain *out,
			      bool *owner_lost, struct kv_err *err)
{
	struct rollups rollups = {0};
	struct core_rollup broken;
	enum kv_rc rc;

	*out = (struct core_chain){0};
	*owner_lost = false;
	rc = read_head(e, id, out, err);
	if (rc == KV_OK)
		rc = list_rollups(e, id, &rollups, err);
	if (rc != KV_OK)
		goto out;
	broken = out->rollup;
	rc = KV_CORRUPT;
	for (size_t i = 0; i < rollups.count && rc == KV_CORRUPT; i++)
		if (strcmp(rollups.v[i].key, broken.key) != 0)
			rc = try_rollup(e, id, &rollups.v[i], out, err);
	if (rc == KV_CORRUPT) {
		core_state_fini(&out->state);
		rc = begin_anew(e, id, out, owner_lost, err);
		if (rc == KV_OK)
			rc = read_versions(e, id, out, err);
	}
	out->rollup = broken;
out:
	free(rollups.v);
	return rc;
}
