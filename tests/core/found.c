/* found.c - see found.h. */
#include "tests/core/found.h"

static void note_finding(void *arg, const struct core_finding *f)
{
	struct found *found = arg;

	ck_assert_str_ne(f->what, "");
	ck_assert_str_ne(f->remedy, "");
	if (f->kind != CORE_DAMAGE)
		return;
	snprintf(found->file, sizeof found->file, "%s", f->file);
	snprintf(found->what, sizeof found->what, "%s", f->what);
	found->has_offset = f->has_offset;
	found->offset = f->offset;
}

struct found check_all(struct core_engine *e)
{
	struct found found = {0};
	const struct core_check check = {.found = note_finding, .arg = &found};
	struct kv_err err;

	ck_ok(core_check_store(e, &check, &found.sum, &err), err);
	return found;
}

void want_clean(struct core_engine *e, uint64_t notes)
{
	struct found found = check_all(e);

	ck_assert_msg(found.sum.damages == 0, "%s", found.what);
	ck_assert_uint_eq(found.sum.notes, notes);
}

void want_damage(struct core_engine *e, const char *file)
{
	struct found found = check_all(e);

	ck_assert_uint_ge(found.sum.damages, 1);
	if (file[0] != '\0')
		ck_assert_str_eq(found.file, file);
}

struct core_buf blob_bytes(struct disk *d, const char *key)
{
	struct core_buf b = {.data = malloc(1 << 20)};
	struct kv_err err;

	ck_assert_ptr_nonnull(b.data);
	ck_ok(kv_blob_get(d->blobs, key, 0, b.data, 1 << 20, &b.len, &err), err);
	return b;
}

void blob_drop(struct disk *d, const char *key)
{
	bool existed = false;
	struct kv_err err;

	ck_ok(kv_blob_delete(d->blobs, key, &existed, NULL, &err), err);
	ck_assert(existed);
}

void blob_put(struct disk *d, const char *key, const void *data, size_t len)
{
	struct kv_err err;

	blob_drop(d, key);
	ck_ok(kv_blob_set(d->blobs, key, data, len, &err), err);
}

void blob_flip(struct disk *d, const char *key, uint64_t at, unsigned bit)
{
	struct core_buf b = blob_bytes(d, key);

	ck_assert_uint_lt(at, b.len);
	b.data[at] ^= (uint8_t)(1u << bit);
	blob_put(d, key, b.data, b.len);
	core_buf_fini(&b);
}

char *blob_named(struct rig *r, const char *infix, unsigned nth, char key[KV_KEY_MAX + 1])
{
	struct kv_blob_list list;
	struct kv_err err;
	unsigned seen = 0;

	key[0] = '\0';
	ck_ok(kv_blob_list(r->disk->blobs, "", "", 1000, &list, &err), err);
	for (size_t i = 0; i < list.count; i++)
		if (strstr(list.e[i].key, infix) != NULL && seen++ == nth)
			snprintf(key, KV_KEY_MAX + 1, "%s", list.e[i].key);
	kv_blob_list_free(&list);
	ck_assert_msg(key[0] != '\0', "no blob with %s", infix);
	return key;
}
