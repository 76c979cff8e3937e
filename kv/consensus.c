/*
 * consensus.c - the door to every consensus: checks on the way in and out.
 *
 * How it works: each wrapper asserts its arguments, clears its outputs, calls
 * the method and asserts what came back. `allowed` is the contract of
 * consensus.h as a table: which codes each method may return.
 *
 * Invariants, asserted after every call:
 * 1. The code is one its contract lists; a failure has filled err with it.
 * 2. A failing method leaves its outputs cleared.
 * 3. Versions are ascending, at or above `from`, at most `limit`; keys are
 *    ascending, above `after`, at most `limit`.
 */
#include "kv/consensus_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BIT(rc) (UINT64_C(1) << (rc))

#define ANY_CALL (BIT(KV_OK) | BIT(KV_NOMEM) | BIT(KV_CORRUPT) | BIT(KV_UNREACHABLE))
#define ANY_READ (ANY_CALL | BIT(KV_IO))
#define ANY_CHANGE (ANY_CALL | BIT(KV_NOSPACE) | BIT(KV_QUOTA) | BIT(KV_READONLY) | BIT(KV_UNKNOWN))

static_assert(KV_RC_COUNT <= 64, "a code is a bit of uint64_t");

enum method { HEAD, COMPARE_AND_SET, SCAN, TRUNCATE, REMOVE, LIST_KEYS };

static const uint64_t allowed[] = {
	[HEAD] = ANY_READ | BIT(KV_NOTFOUND),
	[COMPARE_AND_SET] = ANY_CHANGE | BIT(KV_MISMATCH),
	[SCAN] = ANY_READ,
	[TRUNCATE] = ANY_CHANGE | BIT(KV_NOTFOUND) | BIT(KV_RANGE),
	[REMOVE] = ANY_CHANGE | BIT(KV_NOTFOUND) | BIT(KV_MISMATCH),
	[LIST_KEYS] = ANY_READ,
};

static enum kv_rc checked(enum method m, enum kv_rc rc, const struct kv_err *err)
{
	assert((unsigned)rc < KV_RC_COUNT && (allowed[m] & BIT(rc)));
	assert(rc == KV_OK || !err || err->rc == rc);
	return rc;
}

bool kv_key_valid(const char *key)
{
	static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-";

	if (!key)
		return false;

	size_t len = strspn(key, chars);

	return len >= 1 && len <= KV_KEY_MAX && key[len] == '\0';
}

/* --- growing results ------------------------------------------------------------------------------------ */

/* Results grow at powers of two, so that the count alone tells when; a longer array does no harm. */
static bool is_full(size_t count)
{
	return (count & (count - 1)) == 0;
}

static size_t grown(size_t count)
{
	return count ? 2 * count : 1;
}

bool kv_versions_push(struct kv_versions *versions, uint64_t seqno, const void *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		return false;
	if (is_full(versions->count)) {
		struct kv_version *v = reallocarray(versions->v, grown(versions->count), sizeof(*v));

		if (!v) {
			free(copy);
			return false;
		}
		versions->v = v;
	}
	if (len)
		memcpy(copy, data, len);
	versions->v[versions->count++] = (struct kv_version){.seqno = seqno, .data = copy, .len = len};
	return true;
}

bool kv_keys_push(struct kv_keys *keys, const char *key, size_t len)
{
	char *copy = strndup(key, len);

	if (!copy)
		return false;
	if (is_full(keys->count)) {
		char **k = reallocarray(keys->keys, grown(keys->count), sizeof(*k));

		if (!k) {
			free(copy);
			return false;
		}
		keys->keys = k;
	}
	keys->keys[keys->count++] = copy;
	return true;
}

void kv_versions_free(struct kv_versions *versions)
{
	if (!versions)
		return;
	for (size_t i = 0; i < versions->count; i++)
		free(versions->v[i].data);
	free(versions->v);
	*versions = (struct kv_versions){0};
}

void kv_keys_free(struct kv_keys *keys)
{
	if (!keys)
		return;
	for (size_t i = 0; i < keys->count; i++)
		free(keys->keys[i]);
	free(keys->keys);
	*keys = (struct kv_keys){0};
}

/* --- the calls ------------------------------------------------------------------------------------------ */

enum kv_rc kv_consensus_head(struct kv_consensus *c, const char *key, struct kv_version *out,
			     struct kv_err *err)
{
	assert(c && out && kv_key_valid(key));
	*out = (struct kv_version){0};

	enum kv_rc rc = checked(HEAD, c->ops->head(c, key, out, err), err);

	assert(rc == KV_OK ? out->seqno > KV_NO_VERSION && out->len <= KV_VALUE_MAX
			   : !out->seqno && !out->data && !out->len);
	return rc;
}

enum kv_rc kv_consensus_compare_and_set(struct kv_consensus *c, const char *key, uint64_t expected,
					uint64_t seqno, const void *data, size_t len, enum kv_sync sync,
					struct kv_err *err)
{
	assert(c && kv_key_valid(key) && seqno > expected);
	assert((data || !len) && len <= KV_VALUE_MAX);
	assert(sync == KV_SYNC || sync == KV_RIDE || sync == KV_RELEASE);
	return checked(COMPARE_AND_SET,
		       c->ops->compare_and_set(c, key, expected, seqno, data, len, sync, err), err);
}

enum kv_rc kv_consensus_scan(struct kv_consensus *c, const char *key, uint64_t from, size_t limit,
			     struct kv_versions *out, struct kv_err *err)
{
	assert(c && out && kv_key_valid(key) && limit >= 1);
	*out = (struct kv_versions){0};

	enum kv_rc rc = checked(SCAN, c->ops->scan(c, key, from, limit, out, err), err);

	assert(rc == KV_OK ? out->count <= limit : !out->count && !out->v);
	for (size_t i = 0; i < out->count; i++)
		assert(out->v[i].seqno >= from && (i == 0 || out->v[i - 1].seqno < out->v[i].seqno));
	return rc;
}

enum kv_rc kv_consensus_truncate(struct kv_consensus *c, const char *key, uint64_t seqno, uint64_t *removed,
				 struct kv_err *err)
{
	uint64_t unused;

	assert(c && kv_key_valid(key));
	if (!removed)
		removed = &unused;
	*removed = 0;

	enum kv_rc rc = checked(TRUNCATE, c->ops->truncate(c, key, seqno, removed, err), err);

	assert(rc == KV_OK || !*removed);
	return rc;
}

enum kv_rc kv_consensus_remove(struct kv_consensus *c, const char *key, uint64_t expected, struct kv_err *err)
{
	assert(c && kv_key_valid(key));
	return checked(REMOVE, c->ops->remove(c, key, expected, err), err);
}

enum kv_rc kv_consensus_list_keys(struct kv_consensus *c, const char *after, size_t limit,
				  struct kv_keys *out, struct kv_err *err)
{
	assert(c && out && after && strlen(after) <= KV_KEY_MAX && limit >= 1);
	*out = (struct kv_keys){0};

	enum kv_rc rc = checked(LIST_KEYS, c->ops->list_keys(c, after, limit, out, err), err);

	assert(rc == KV_OK ? out->count <= limit : !out->count && !out->keys);
	for (size_t i = 0; i < out->count; i++)
		assert(strcmp(i ? out->keys[i - 1] : after, out->keys[i]) < 0);
	return rc;
}

void kv_consensus_close(struct kv_consensus *c)
{
	if (c)
		c->ops->close(c);
}
