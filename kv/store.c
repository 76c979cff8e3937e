/*
 * store.c - the door to every store: checks on the way in and out.
 *
 * How it works: as consensus.c. A store open for reading refuses commits here,
 * so that no implementation can forget to.
 *
 * Invariant, asserted after every call: the code is one store.h lists, and a
 * failure has filled err with it.
 */
#include "kv/blob_impl.h"
#include "kv/consensus_impl.h"
#include "kv/store_impl.h"

#include <assert.h>
#include <string.h>

#define BIT(rc) (UINT64_C(1) << (rc))

static const uint64_t commit_allowed = BIT(KV_OK) | BIT(KV_NOMEM) | BIT(KV_CORRUPT) | BIT(KV_UNREACHABLE) |
				       BIT(KV_NOSPACE) | BIT(KV_QUOTA) | BIT(KV_READONLY) | BIT(KV_UNKNOWN) |
				       BIT(KV_MISMATCH);
static const uint64_t usage_allowed = BIT(KV_OK) | BIT(KV_NOMEM) | BIT(KV_IO) | BIT(KV_UNREACHABLE);

static const uint64_t tidy_allowed =
	BIT(KV_OK) | BIT(KV_NOMEM) | BIT(KV_IO) | BIT(KV_CORRUPT) | BIT(KV_UNREACHABLE);

static enum kv_rc checked(uint64_t allowed, enum kv_rc rc, const struct kv_err *err)
{
	assert((unsigned)rc < KV_RC_COUNT && (allowed & BIT(rc)));
	assert(rc == KV_OK || !err || err->rc == rc);
	return rc;
}

struct kv_consensus *kv_store_consensus(struct kv_store *s)
{
	return s->consensus;
}

struct kv_blobs *kv_store_blobs(struct kv_store *s)
{
	return s->blobs;
}

struct kv_store_traits kv_store_traits(const struct kv_store *s)
{
	return s->traits;
}

static void check_run(const struct kv_store *s, const struct kv_run *run)
{
	uint64_t before = run->expected;

	assert(kv_key_valid(run->key));
	assert(run->version_count == 1 ||
	       (run->version_count > 1 && run->version_count <= KV_RUN_MAX && s->traits.commits_runs));
	for (size_t i = 0; i < run->version_count; before = run->versions[i++].seqno) {
		assert(run->versions[i].seqno > before);
		assert((run->versions[i].data || !run->versions[i].len) &&
		       run->versions[i].len <= KV_VALUE_MAX);
	}
	assert(run->blobs || !run->blob_count);
	for (size_t i = 0; i < run->blob_count; i++) {
		assert(kv_blob_key_valid(run->blobs[i].key));
		assert((run->blobs[i].data || !run->blobs[i].len) && run->blobs[i].len <= KV_VALUE_MAX);
	}
}

void kv_store_commit_runs(struct kv_store *s, struct kv_run *runs, size_t count, enum kv_sync sync)
{
	assert(s && count >= 1 && count <= KV_RUNS_MAX);
	assert(sync == KV_SYNC || sync == KV_RIDE || sync == KV_RELEASE);
	for (size_t i = 0; i < count; i++) {
		check_run(s, &runs[i]);
		for (size_t j = 0; j < i; j++)
			assert(strcmp(runs[i].key, runs[j].key) != 0);
		runs[i].rc = s->traits.read_only ? kv_fail_rc(runs[i].err, KV_READONLY) : KV_OK;
	}
	if (!s->traits.read_only)
		s->ops->commit(s, runs, count, sync);
	for (size_t i = 0; i < count; i++)
		checked(commit_allowed, runs[i].rc, runs[i].err);
}

enum kv_rc kv_store_commit_run(struct kv_store *s, const char *key, uint64_t expected,
			       const struct kv_version_put *versions, size_t version_count,
			       const struct kv_blob_put *blobs, size_t count, enum kv_sync sync,
			       struct kv_err *err)
{
	struct kv_run run = {
		.key = key,
		.expected = expected,
		.versions = versions,
		.version_count = version_count,
		.blobs = blobs,
		.blob_count = count,
		.err = err,
	};

	kv_store_commit_runs(s, &run, 1, sync);
	return run.rc;
}

enum kv_rc kv_store_commit(struct kv_store *s, const char *key, uint64_t expected, uint64_t seqno,
			   const void *data, size_t len, const struct kv_blob_put *blobs, size_t count,
			   enum kv_sync sync, struct kv_err *err)
{
	const struct kv_version_put version = {.seqno = seqno, .data = data, .len = len};

	return kv_store_commit_run(s, key, expected, &version, 1, blobs, count, sync, err);
}

enum kv_rc kv_store_tidy(struct kv_store *s, struct kv_err *err)
{
	assert(s);
	if (s->traits.read_only)
		return KV_OK;
	return checked(tidy_allowed, s->ops->tidy(s, err), err);
}

enum kv_rc kv_store_usage(struct kv_store *s, struct kv_usage *out, struct kv_err *err)
{
	assert(s && out);
	*out = (struct kv_usage){0};

	enum kv_rc rc = checked(usage_allowed, s->ops->usage(s, out, err), err);

	assert(rc == KV_OK || (!out->total_bytes && !out->free_bytes && !out->avail_bytes));
	return rc;
}

enum kv_rc kv_store_verify(struct kv_store *s, kv_damage_fn *found, void *arg, struct kv_err *err)
{
	assert(s && found);
	return checked(tidy_allowed, s->ops->verify(s, found, arg, err), err);
}

void kv_store_keep_still(struct kv_store *s, bool still)
{
	assert(s);
	s->ops->keep_still(s, still);
}

void kv_store_close(struct kv_store *s)
{
	if (s)
		s->ops->close(s);
}
