/*
 * blob.c - the door to every blob store: checks on the way in and out.
 *
 * How it works: as consensus.c; `allowed` is the contract of blob.h as a table.
 *
 * Invariants, asserted after every call:
 * 1. The code is one its contract lists; a failure has filled err with it.
 * 2. A failing method leaves its outputs cleared.
 * 3. got <= len; a listing is ascending, begins with prefix, lies above
 *    `after` and is at most `limit` long.
 */
#include "kv/blob_impl.h"
#include "kv/consensus_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BIT(rc) (UINT64_C(1) << (rc))

#define ANY_CALL (BIT(KV_OK) | BIT(KV_NOMEM) | BIT(KV_CORRUPT) | BIT(KV_UNREACHABLE))
#define ANY_READ (ANY_CALL | BIT(KV_IO))
#define ANY_CHANGE (ANY_CALL | BIT(KV_NOSPACE) | BIT(KV_QUOTA) | BIT(KV_READONLY) | BIT(KV_UNKNOWN))

static_assert(KV_RC_COUNT <= 64, "a code is a bit of uint64_t");

enum method { GET, SET, DELETE, LIST };

static const uint64_t allowed[] = {
	[GET] = ANY_READ | BIT(KV_NOTFOUND),
	[SET] = ANY_CHANGE,
	[DELETE] = ANY_CHANGE,
	[LIST] = ANY_READ,
};

static enum kv_rc checked(enum method m, enum kv_rc rc, const struct kv_err *err)
{
	assert((unsigned)rc < KV_RC_COUNT && (allowed[m] & BIT(rc)));
	assert(rc == KV_OK || !err || err->rc == rc);
	return rc;
}

bool kv_blob_key_valid(const char *key)
{
	if (!kv_key_valid(key))
		return false;
	for (;;) {
		size_t len = strcspn(key, "/");

		if (len == 0 || (len == 1 && key[0] == '.') || (len == 2 && key[0] == '.' && key[1] == '.'))
			return false;
		if (key[len] == '\0')
			return true;
		key += len + 1;
	}
}

bool kv_blob_list_push(struct kv_blob_list *list, const char *key, uint64_t size)
{
	char *copy = strdup(key);

	if (!copy)
		return false;
	/* The array grows to the next power of two: full when the count is one. */
	if ((list->count & (list->count - 1)) == 0) {
		size_t n = list->count ? 2 * list->count : 1;
		struct kv_blob_entry *e = reallocarray(list->e, n, sizeof(*e));

		if (!e) {
			free(copy);
			return false;
		}
		list->e = e;
	}
	list->e[list->count++] = (struct kv_blob_entry){.key = copy, .size = size};
	return true;
}

void kv_blob_list_free(struct kv_blob_list *list)
{
	if (!list)
		return;
	for (size_t i = 0; i < list->count; i++)
		free(list->e[i].key);
	free(list->e);
	*list = (struct kv_blob_list){0};
}

enum kv_rc kv_blob_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
		       size_t *got, struct kv_err *err)
{
	assert(b && got && kv_blob_key_valid(key) && (buf || !len));
	*got = 0;

	enum kv_rc rc = checked(GET, b->ops->get(b, key, offset, buf, len, got, err), err);

	assert(rc == KV_OK ? *got <= len : !*got);
	return rc;
}

enum kv_rc kv_blob_set(struct kv_blobs *b, const char *key, const void *data, size_t len, struct kv_err *err)
{
	assert(b && kv_blob_key_valid(key) && (data || !len) && len <= KV_VALUE_MAX);
	return checked(SET, b->ops->set(b, key, data, len, err), err);
}

enum kv_rc kv_blob_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			  struct kv_err *err)
{
	bool unused_existed;
	uint64_t unused_size;

	assert(b && kv_blob_key_valid(key));
	if (!existed)
		existed = &unused_existed;
	if (!size)
		size = &unused_size;
	*existed = false;
	*size = 0;

	enum kv_rc rc = checked(DELETE, b->ops->delete (b, key, existed, size, err), err);

	assert((rc == KV_OK && *existed) || (!*existed && !*size));
	return rc;
}

enum kv_rc kv_blob_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			struct kv_blob_list *out, struct kv_err *err)
{
	assert(b && out && prefix && after && limit >= 1);
	assert(strlen(prefix) <= KV_KEY_MAX && strlen(after) <= KV_KEY_MAX);
	*out = (struct kv_blob_list){0};

	enum kv_rc rc = checked(LIST, b->ops->list(b, prefix, after, limit, out, err), err);

	assert(rc == KV_OK ? out->count <= limit : !out->count && !out->e);
	for (size_t i = 0; i < out->count; i++) {
		assert(strcmp(i ? out->e[i - 1].key : after, out->e[i].key) < 0);
		assert(strncmp(out->e[i].key, prefix, strlen(prefix)) == 0);
	}
	return rc;
}

void kv_blobs_close(struct kv_blobs *b)
{
	if (b)
		b->ops->close(b);
}
