/*
 * store_pair.c - any consensus and any blob store as one store.
 *
 * How it works: commit sets the blobs one after the other and then
 * compares-and-sets. Nothing joins the two, so the order does: a crash between
 * them leaves blobs nobody names.
 *
 * Invariants:
 * 1. The compare-and-set begins only after every blob is stored for sure.
 * 2. Hence a blob whose outcome is unknown ends the commit as surely not done:
 *    KV_UNKNOWN of a commit speaks of the compare-and-set alone.
 */
#include "kv/store_impl.h"

#include <assert.h>
#include <stdlib.h>

static enum kv_rc pair_commit(struct kv_store *s, const char *key, uint64_t expected,
			      const struct kv_version_put *versions, size_t version_count,
			      const struct kv_blob_put *blobs, size_t count, enum kv_sync sync,
			      struct kv_err *err)
{
	(void)version_count; /* one: nothing joins several here */
	for (size_t i = 0; i < count; i++) {
		enum kv_rc rc = kv_blob_set(s->blobs, blobs[i].key, blobs[i].data, blobs[i].len, err);

		if (rc == KV_UNKNOWN)
			rc = KV_UNREACHABLE; /* invariant 2 */
		if (rc != KV_OK)
			return kv_wrap(err, rc, "blob %s of a commit", blobs[i].key);
	}
	return kv_consensus_compare_and_set(s->consensus, key, expected, versions->seqno, versions->data,
					    versions->len, sync, err);
}

/* Neither of the two can tell: all zero, which is "unknown". */
static enum kv_rc pair_usage(struct kv_store *s, struct kv_usage *out, struct kv_err *err)
{
	(void)s;
	(void)out;
	(void)err;
	return KV_OK;
}

static void pair_close(struct kv_store *s)
{
	kv_consensus_close(s->consensus);
	kv_blobs_close(s->blobs);
	free(s);
}

static enum kv_rc pair_tidy(struct kv_store *s, struct kv_err *err)
{
	(void)s; /* what is deleted there takes no space */
	(void)err;
	return KV_OK;
}

/* There are no files. */
static enum kv_rc pair_verify(struct kv_store *s, kv_damage_fn *found, void *arg, struct kv_err *err)
{
	(void)s;
	(void)found;
	(void)arg;
	(void)err;
	return KV_OK;
}

static void pair_keep_still(struct kv_store *s, bool still)
{
	(void)s; /* who shares it sees all at once */
	(void)still;
}

static const struct kv_store_ops pair_ops = {
	.name = "pair",
	.commit = pair_commit,
	.tidy = pair_tidy,
	.usage = pair_usage,
	.verify = pair_verify,
	.keep_still = pair_keep_still,
	.close = pair_close,
};

struct kv_store *kv_store_pair(struct kv_consensus *c, struct kv_blobs *b, struct kv_store_traits traits)
{
	struct kv_store *s = c && b ? malloc(sizeof(*s)) : NULL;

	if (!s) {
		kv_consensus_close(c);
		kv_blobs_close(b);
		return NULL;
	}
	traits.commits_runs = false;
	*s = (struct kv_store){.ops = &pair_ops, .traits = traits, .consensus = c, .blobs = b};
	return s;
}

struct kv_store *kv_store_mem_new(void)
{
	return kv_store_pair(kv_consensus_mem_new(), kv_blob_mem_new(),
			     (struct kv_store_traits){.sole_owner = true});
}
