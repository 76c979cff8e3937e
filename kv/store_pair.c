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

static enum kv_rc commit_one(struct kv_store *s, const struct kv_run *run, enum kv_sync sync)
{
	const struct kv_version_put *version = run->versions; /* one: nothing joins several here */

	for (size_t i = 0; i < run->blob_count; i++) {
		const struct kv_blob_put *blob = &run->blobs[i];
		enum kv_rc rc = kv_blob_set(s->blobs, blob->key, blob->data, blob->len, run->err);

		if (rc == KV_UNKNOWN)
			rc = KV_UNREACHABLE; /* invariant 2 */
		if (rc != KV_OK)
			return kv_wrap(run->err, rc, "blob %s of a commit", blob->key);
	}
	return kv_consensus_compare_and_set(s->consensus, run->key, run->expected, version->seqno,
					    version->data, version->len, sync, run->err);
}

static void pair_commit(struct kv_store *s, struct kv_run *runs, size_t count, enum kv_sync sync)
{
	for (size_t i = 0; i < count; i++)
		runs[i].rc = commit_one(s, &runs[i], sync);
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
