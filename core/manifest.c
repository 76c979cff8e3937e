/*
 * manifest.c - see manifest.h; the frame around the bytes is described in state_codec.c.
 *
 * Part i of the batch has entry i of `loose`: the bytes it has in memory, or none
 * if it is a blob. So a part's own inline_data is not used here, and what was
 * inline before is loose after: whether it will be inline is said by the commit.
 * Bounds stand in the state's entry; here all rows show.
 */
#include "core/manifest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec_impl.h"

char *core_manifest_key(struct core_shard_id shard, const struct core_staged *entry,
			char buf[CORE_BLOB_KEY_LEN])
{
	char *p = buf;

	_Static_assert(CORE_BLOB_KEY_LEN >= 3 * CORE_ID_LEN, "three ids and what divides them");
	core_uuid_format('s', shard.u, p);
	p += CORE_ID_LEN - 1;
	*p++ = '/';
	core_uuid_format('n', entry->instance.u, p);
	p += CORE_ID_LEN - 1;
	*p++ = '/';
	core_uuid_format('m', entry->manifest, p);
	return buf;
}

/* Points into batch, for as long as the arena lives. */
static bool fill_manifest(struct core_arena *a, const struct core_batch *batch, Pb__Manifest *pb)
{
	ProtobufCBinaryData *loose = core_arena_take(a, batch->part_count, sizeof(ProtobufCBinaryData));

	pb->batch = core_pb_batch(a, batch);
	if (loose == NULL || pb->batch == NULL)
		return false;
	for (size_t i = 0; i < batch->part_count; i++) {
		const struct core_part *part = &batch->parts[i];

		loose[i] = core_pb_bytes(part->inline_data, part->inline_data != NULL ? part->size : 0);
		pb->batch->parts[i]->inline_data = (ProtobufCBinaryData){0};
	}
	pb->loose = loose;
	pb->n_loose = batch->part_count;
	/* All rows show. */
	pb->batch->lower->times[0] = 0;
	pb->batch->lower->n_times = 1;
	pb->batch->upper->n_times = 0;
	return true;
}

enum kv_rc core_manifest_encode(struct core_shard_id shard, struct core_uuid id,
				const struct core_batch *batch, const void *rest, size_t rest_len,
				struct core_buf *out, struct kv_err *err)
{
	struct core_arena a = {0};
	Pb__Manifest pb = PB__MANIFEST__INIT;
	enum kv_rc rc = KV_OK;
	size_t len = 0;

	*out = (struct core_buf){0};
	pb.id = core_pb_bytes(id.b, sizeof id.b);
	pb.rest = core_pb_bytes(rest, rest_len);
	if (!fill_manifest(&a, batch, &pb))
		rc = kv_fail_rc(err, KV_NOMEM);
	if (rc == KV_OK) {
		len = pb__manifest__get_packed_size(&pb);
		if (len > KV_VALUE_MAX - CORE_FRAME_LEN)
			rc = kv_fail(err, KV_QUOTA,
				     "the batch has %zu parts, and their list of %zu bytes is longer than a "
				     "blob may be (%zu)",
				     batch->part_count, len + CORE_FRAME_LEN, KV_VALUE_MAX);
	}
	if (rc == KV_OK)
		rc = core_frame_new(len, out, err);
	if (rc == KV_OK) {
		pb__manifest__pack(&pb, out->data + CORE_FRAME_LEN);
		core_frame_seal('M', core_shard_seed(shard), out);
	}
	core_arena_fini(&a);
	return rc;
}

/* Give the parts their loose bytes. */
static enum core_got get_loose(const Pb__Manifest *pb, struct core_batch *b)
{
	if (pb->n_loose != b->part_count)
		return CORE_GOT_BAD;
	for (size_t i = 0; i < b->part_count; i++) {
		struct core_part *part = &b->parts[i];

		if (part->inline_data != NULL || part->rows == 0 || part->stars > part->rows)
			return CORE_GOT_BAD;
		if (pb->loose[i].len == 0)
			continue;
		if (pb->loose[i].len != part->size)
			return CORE_GOT_BAD;
		part->inline_data = malloc(part->size);
		if (part->inline_data == NULL)
			return CORE_GOT_NOMEM;
		memcpy(part->inline_data, pb->loose[i].data, part->size);
		part->loose = true;
	}
	return CORE_GOT_IT;
}

static enum core_got get_manifest(const Pb__Manifest *pb, struct core_uuid id, struct core_manifest *out)
{
	struct core_uuid there;
	enum core_got got;

	/* cppcheck-suppress uninitvar; core_get_bytes has filled it when it says true */
	if (!core_get_bytes(&pb->id, there.b, sizeof there.b) || !core_uuid_eq(there, id) ||
	    pb->batch == NULL)
		return CORE_GOT_BAD;
	got = core_get_batch(pb->batch, &out->batch);
	if (got != CORE_GOT_IT)
		return got;
	if (!core_frontier_eq(out->batch->lower, core_frontier_at(0)) || !out->batch->upper.empty)
		return CORE_GOT_BAD;
	got = get_loose(pb, out->batch);
	if (got != CORE_GOT_IT || pb->rest.len == 0)
		return got;
	out->rest.data = malloc(pb->rest.len);
	if (out->rest.data == NULL)
		return CORE_GOT_NOMEM;
	memcpy(out->rest.data, pb->rest.data, pb->rest.len);
	out->rest.len = pb->rest.len;
	return CORE_GOT_IT;
}

enum kv_rc core_manifest_decode(struct core_shard_id shard, struct core_uuid id, const void *data, size_t len,
				struct core_manifest *out, struct kv_err *err)
{
	const uint8_t *payload;
	size_t payload_len;
	struct core_unpacking u;
	Pb__Manifest *pb;
	enum kv_rc rc;

	*out = (struct core_manifest){0};
	rc = core_unframe('M', core_shard_seed(shard), data, len, &payload, &payload_len, err);
	if (rc != KV_OK)
		return rc;
	core_unpacking_init(&u);
	pb = pb__manifest__unpack(&u.memory, payload_len, payload);
	rc = core_got_rc(pb != NULL ? get_manifest(pb, id, out) : core_not_unpacked(&u), "manifest", err);
	if (pb != NULL)
		pb__manifest__free_unpacked(pb, &u.memory);
	if (rc != KV_OK)
		core_manifest_fini(out);
	return rc;
}

/* All of a blob that has to be len bytes long. */
static enum kv_rc read_whole(struct kv_blobs *blobs, const char *key, uint64_t len, struct core_buf *out,
			     struct kv_err *err)
{
	enum kv_rc rc;

	if (len > KV_VALUE_MAX)
		return kv_fail(err, KV_CORRUPT, "%" PRIu64 " bytes, more than a blob can have", len);
	out->data = malloc(len + 1); /* one more, to see that it ends */
	if (out->data == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	rc = kv_blob_get(blobs, key, 0, out->data, len + 1, &out->len, err);
	if (rc == KV_OK && out->len != len)
		rc = kv_fail(err, KV_CORRUPT, "it does not have the %" PRIu64 " bytes the shard says it has",
			     len);
	if (rc != KV_OK)
		core_buf_fini(out);
	return rc;
}

enum kv_rc core_manifest_read(const struct core_home *home, const struct core_staged *entry,
			      struct core_manifest *out, struct kv_err *err)
{
	struct core_buf bytes = {0};
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc;

	*out = (struct core_manifest){0};
	if (entry->manifest_bytes == 0) {
		out->batch = core_batch_new(core_frontier_at(0), core_frontier_empty());
		return out->batch != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	}
	core_manifest_key(home->shard, entry, key);
	rc = read_whole(home->blobs, key, entry->manifest_bytes, &bytes, err);
	if (rc == KV_OK)
		rc = core_manifest_decode(home->shard, entry->manifest, bytes.data, bytes.len, out, err);
	core_buf_fini(&bytes);
	return rc == KV_OK ? KV_OK : kv_wrap(err, rc, "manifest %s", key);
}

void core_manifest_fini(struct core_manifest *m)
{
	core_batch_unref(m->batch);
	core_buf_fini(&m->rest);
	*m = (struct core_manifest){0};
}
