/*
 * fuzz_state.c - the documents of the engine as bytes: states, diffs, manifests.
 *
 * The input: a byte of flags, the document's payload. It is framed here (RAW: taken as it is, frame and all),
 * since nothing gets past the frame's checksum by chance. What decodes is encoded, decodes again, and then is
 * the same bytes. A diff is applied to a state of its version: it fits, or nothing was changed.
 */
#include <stdlib.h>
#include <string.h>

#include "core/codec_impl.h"
#include "core/manifest.h"
#include "tests/fuzz/fuzz.h"

enum { KIND = 3, RAW = 4 };

static const struct core_shard_id shard = {.u.b = {7}};

static bool decoded(enum kv_rc rc, const struct kv_err *err)
{
	must(rc == KV_OK || rc == KV_CORRUPT || rc == KV_NEWER);
	return fuzz_said(rc, err);
}

static void same(struct core_buf *a, struct core_buf *b)
{
	must(a->len == b->len && memcmp(a->data, b->data, a->len) == 0);
	core_buf_fini(a);
	core_buf_fini(b);
}

static struct core_buf state_bytes(const struct core_state *s)
{
	struct core_buf out;

	must(core_state_encode(shard, s, &out, NULL) == KV_OK);
	return out;
}

/* A state with the first batches and other things that a diff of the corpus may meet. */
static void apply(const struct core_diff *d)
{
	struct core_state s;
	struct core_buf before;
	struct kv_err err;
	enum kv_rc rc;

	must(core_state_init(&s, d->seqno - 1, 5, (struct core_owner){0}, &err) == KV_OK);
	s.first_seqno = 1;
	before = state_bytes(&s);
	rc = core_state_apply(&s, d, &err);
	must(rc == KV_OK || rc == KV_CORRUPT);
	if (fuzz_said(rc, &err)) {
		must(s.seqno == d->seqno);
		(void)fuzz_said(core_state_check(&s, &err), &err);
		core_buf_fini(&before);
	} else {
		struct core_buf after = state_bytes(&s);

		same(&before, &after);
	}
	core_state_fini(&s);
}

/* Encoding has lost nothing that decoding has got. */
static void same_diff(const struct core_diff *a, const struct core_diff *b)
{
	must(a->seqno == b->seqno && a->walltime_ms == b->walltime_ms &&
	     core_uuid_eq(a->attempt, b->attempt));
	must(a->has_since == b->has_since && core_frontier_eq(a->since, b->since));
	must(a->has_upper == b->has_upper && core_frontier_eq(a->upper, b->upper));
	must(a->splice_count == b->splice_count && a->hold_count == b->hold_count);
	must(a->removed_count == b->removed_count && a->gone_count == b->gone_count);
	must(a->has_token == b->has_token && a->has_rollup == b->has_rollup &&
	     a->has_writer == b->has_writer);
	must(a->newest_rollup.seqno == b->newest_rollup.seqno && a->rollups_from == b->rollups_from);
	must(a->staged_count == b->staged_count && a->staged_removed_count == b->staged_removed_count);
	must(a->expires_writer == b->expires_writer && a->has_lease == b->has_lease);
	must(a->ends_lease == b->ends_lease && a->has_owner == b->has_owner && a->tombstone == b->tombstone);
}

static void same_state(const struct core_state *a, const struct core_state *b)
{
	struct core_totals x = core_state_totals(a), y = core_state_totals(b);

	must(a->seqno == b->seqno && a->first_seqno == b->first_seqno && a->tombstone == b->tombstone);
	must(a->walltime_ms == b->walltime_ms && a->created_ms == b->created_ms);
	must(core_frontier_eq(a->since, b->since) && core_frontier_eq(a->upper, b->upper));
	must(a->batch_count == b->batch_count && a->hold_count == b->hold_count);
	must(a->token_count == b->token_count && a->rollup_count == b->rollup_count);
	must(a->staged_count == b->staged_count && a->writer_count == b->writer_count);
	must(a->lease_count == b->lease_count && a->dead_count == b->dead_count);
	must(x.rows == y.rows && x.runs == y.runs && x.parts == y.parts && x.inline_bytes == y.inline_bytes &&
	     x.blob_bytes == y.blob_bytes);
}

static void try_diff(const uint8_t *bytes, size_t len)
{
	struct core_diff d, again;
	struct core_buf once, twice;
	struct kv_err err;

	if (decoded(core_diff_decode(shard, bytes, len, &d, &err), &err)) {
		must(core_diff_encode(shard, &d, &once, &err) == KV_OK);
		must(core_diff_decode(shard, once.data, once.len, &again, &err) == KV_OK);
		must(core_diff_encode(shard, &again, &twice, &err) == KV_OK);
		same(&once, &twice);
		same_diff(&d, &again);
		core_diff_fini(&again);
		if (d.seqno > 1)
			apply(&d);
	}
	core_diff_fini(&d);
}

/* The next version of a state that was read: a heartbeat, which must leave it as sound as it was. */
static void go_on(struct core_state *s)
{
	struct core_diff d;
	struct kv_err err;
	bool sound = core_state_check(s, &err) == KV_OK;

	core_diff_init(&d);
	d.seqno = s->seqno + 1;
	d.walltime_ms = s->walltime_ms;
	if (core_state_apply(s, &d, &err) == KV_OK)
		must(!sound || core_state_check(s, &err) == KV_OK);
	core_diff_fini(&d);
}

static void try_state(const uint8_t *bytes, size_t len)
{
	struct core_state s, again;
	struct core_buf once, twice;
	struct kv_err err;

	if (decoded(core_state_decode(shard, bytes, len, &s, &err), &err)) {
		once = state_bytes(&s);
		must(core_state_decode(shard, once.data, once.len, &again, &err) == KV_OK);
		twice = state_bytes(&again);
		same(&once, &twice);
		same_state(&s, &again);
		core_state_fini(&again);
		go_on(&s);
	}
	core_state_fini(&s);
}

static void try_manifest(const uint8_t *bytes, size_t len)
{
	struct core_uuid manifest_id = {0}; /* the one that it says: protobuf writes its first field first */
	struct core_manifest m, again;
	struct core_buf once, twice;
	struct kv_err err;

	if (len >= CORE_FRAME_LEN + 2 + sizeof manifest_id)
		memcpy(&manifest_id, bytes + CORE_FRAME_LEN + 2, sizeof manifest_id);
	if (decoded(core_manifest_decode(shard, manifest_id, bytes, len, &m, &err), &err)) {
		must(core_manifest_encode(shard, manifest_id, m.batch, m.rest.data, m.rest.len, &once,
					  &err) == KV_OK);
		must(core_manifest_decode(shard, manifest_id, once.data, once.len, &again, &err) == KV_OK);
		must(core_manifest_encode(shard, manifest_id, again.batch, again.rest.data, again.rest.len,
					  &twice, &err) == KV_OK);
		same(&once, &twice);
		core_manifest_fini(&again);
	}
	core_manifest_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const tries[])(const uint8_t *, size_t) = {try_state, try_diff, try_manifest,
								 try_state};
	static const char kinds[] = "RDMR";
	struct fuzz_in in = {.p = data, .left = size};
	uint8_t flags = fuzz_u8(&in);
	struct core_buf framed = {0};
	size_t len;
	uint8_t *bytes = fuzz_copy(&in, in.left, &len);

	if ((flags & RAW) == 0) {
		must(core_frame(kinds[flags & KIND], core_shard_seed(shard), bytes, len, &framed, NULL) ==
		     KV_OK);
		free(bytes);
		bytes = framed.data;
		len = framed.len;
	}
	tries[flags & KIND](bytes, len);
	free(bytes);
	return 0;
}
