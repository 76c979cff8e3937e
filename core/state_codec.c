/*
 * state_codec.c - see state_codec.h.
 *
 * The frame of every stored document, little endian:
 *
 *     offset  bytes  what
 *     0       3      "SFd"
 *     3       1      kind: 'D' diff, 'R' rollup (a whole state), 'N' names
 *     4       4      format, CORE_FORMAT at most
 *     8       8      XXH3-64 of the payload, seeded with the format, the kind and the
 *                    place (a hash of the shard's id), so that a document that strayed fails
 *     16      …      payload: a message of state.proto
 *
 * In memory and in protobuf the same things have different shapes: here a
 * frontier is {empty, t}, there a list of times; here batches are shared by
 * reference, there they are bytes. This file is nothing but that mapping.
 */
#include "core/state_codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/state.pb-c.h"

enum { FRAME_LEN = 16 };

void core_buf_fini(struct core_buf *b)
{
	free(b->data);
	*b = (struct core_buf){0};
}

/* --- the frame ----------------------------------------------------------------------------------- */

static void put_le(uint8_t *p, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static uint64_t checksum(char kind, uint64_t format, uint64_t seed, const void *payload, size_t len)
{
	return XXH3_64bits_withSeed(payload, len, seed ^ (format << 8) ^ (uint64_t)(unsigned char)kind);
}

/* Room for a frame around len bytes of payload; the payload is filled in by the caller, then sealed. */
static enum kv_rc frame_new(size_t len, struct core_buf *out, struct kv_err *err)
{
	*out = (struct core_buf){.data = malloc(FRAME_LEN + len), .len = FRAME_LEN + len};
	if (out->data != NULL)
		return KV_OK;
	out->len = 0;
	return kv_fail_rc(err, KV_NOMEM);
}

static void frame_seal(char kind, uint64_t seed, struct core_buf *b)
{
	memcpy(b->data, "SFd", 3);
	b->data[3] = (uint8_t)kind;
	put_le(b->data + 4, CORE_FORMAT, 4);
	put_le(b->data + 8, checksum(kind, CORE_FORMAT, seed, b->data + FRAME_LEN, b->len - FRAME_LEN), 8);
}

enum kv_rc core_frame(char kind, uint64_t seed, const void *payload, size_t len, struct core_buf *out,
		      struct kv_err *err)
{
	enum kv_rc rc = frame_new(len, out, err);

	if (rc != KV_OK)
		return rc;
	memcpy(out->data + FRAME_LEN, payload, len);
	frame_seal(kind, seed, out);
	return KV_OK;
}

enum kv_rc core_unframe(char kind, uint64_t seed, const void *data, size_t len, const uint8_t **payload,
			size_t *payload_len, struct kv_err *err)
{
	const uint8_t *p = data;
	uint64_t format;

	*payload = NULL;
	*payload_len = 0;
	if (len < FRAME_LEN || memcmp(p, "SFd", 3) != 0 || p[3] != (uint8_t)kind)
		return kv_fail(err, KV_CORRUPT, "%zu bytes that are no document of kind %c", len, kind);
	format = get_le(p + 4, 4);
	if (format > CORE_FORMAT)
		return kv_fail(err, KV_NEWER, "written in format %" PRIu64 "; this program reads up to %d",
			       format, CORE_FORMAT);
	if (get_le(p + 8, 8) != checksum(kind, format, seed, p + FRAME_LEN, len - FRAME_LEN))
		return kv_fail(err, KV_CORRUPT, "%zu bytes that fail their checksum", len);
	*payload = p + FRAME_LEN;
	*payload_len = len - FRAME_LEN;
	return KV_OK;
}

static uint64_t shard_seed(struct core_shard_id shard)
{
	return XXH3_64bits(shard.u.b, sizeof shard.u.b);
}

/* --- to protobuf: messages that point into the engine's own structures ----------------------------- */

/* Scratch for one message tree: every block is freed together at the end. */
struct arena {
	struct arena_block *blocks;
	size_t used;
};
struct arena_block {
	struct arena_block *next;
	size_t cap;
	_Alignas(16) uint8_t data[];
};

static void *take(struct arena *a, size_t count, size_t size)
{
	size_t bytes = (count * size + 15) & ~(size_t)15;
	void *p;

	if (a->blocks == NULL || a->used + bytes > a->blocks->cap) {
		size_t cap = bytes > 8192 ? bytes : 8192;
		struct arena_block *block = malloc(sizeof *block + cap);

		if (block == NULL)
			return NULL;
		block->next = a->blocks;
		block->cap = cap;
		a->blocks = block;
		a->used = 0;
	}
	p = a->blocks->data + a->used;
	a->used += bytes;
	return p;
}

static void arena_fini(struct arena *a)
{
	while (a->blocks != NULL) {
		struct arena_block *next = a->blocks->next;

		free(a->blocks);
		a->blocks = next;
	}
}

static ProtobufCBinaryData bytes_of(const void *data, size_t len)
{
	union {
		const void *in;
		uint8_t *out;
	} borrowed = {.in = data}; /* protobuf-c only reads it */

	return (ProtobufCBinaryData){.data = borrowed.out, .len = len};
}

static char *text_of(const char *text)
{
	union {
		const char *in;
		char *out;
	} borrowed = {.in = text};

	return borrowed.out;
}

static Pb__Frontier *pb_frontier(struct arena *a, struct core_frontier f)
{
	Pb__Frontier *pb = take(a, 1, sizeof *pb + sizeof(uint64_t));

	if (pb == NULL)
		return NULL;
	pb__frontier__init(pb);
	pb->times = (uint64_t *)(void *)(pb + 1);
	pb->n_times = f.empty ? 0 : 1;
	pb->times[0] = f.t;
	return pb;
}

static void pb_part(const struct core_part *part, Pb__Part *pb)
{
	pb__part__init(pb);
	pb->id = bytes_of(part->id.u.b, sizeof part->id.u.b);
	pb->instance = bytes_of(part->instance.u.b, sizeof part->instance.u.b);
	pb->size = part->size;
	if (part->inline_data != NULL && !part->loose)
		pb->inline_data = bytes_of(part->inline_data, part->size);
	pb->rows = part->rows;
	pb->stars = part->stars;
	pb->text_base = part->text_base;
	pb->time_digits = part->time_digits;
	pb->min_time = part->min_time;
	pb->max_time = part->max_time;
	pb->diffs_sum = part->diffs_sum;
	pb->checksum = part->checksum;
	pb->rewrite_ts = part->rewrite_ts;
}

static Pb__Batch *pb_batch(struct arena *a, const struct core_batch *b)
{
	Pb__Batch *pb = take(a, 1, sizeof *pb);
	Pb__Part *parts = take(a, b->part_count, sizeof *parts);
	Pb__Part **list = take(a, b->part_count, sizeof(Pb__Part *));

	if (pb == NULL || parts == NULL || list == NULL)
		return NULL;
	pb__batch__init(pb);
	pb->lower = pb_frontier(a, b->lower);
	pb->upper = pb_frontier(a, b->upper);
	pb->since = pb_frontier(a, b->since);
	if (pb->lower == NULL || pb->upper == NULL || pb->since == NULL)
		return NULL;
	for (size_t i = 0; i < b->part_count; i++) {
		pb_part(&b->parts[i], &parts[i]);
		list[i] = &parts[i];
	}
	pb->parts = list;
	pb->n_parts = b->part_count;
	pb->run_starts = b->run_starts;
	pb->n_run_starts = b->run_count;
	pb->committed_ms = b->committed_ms;
	return pb;
}

static Pb__Batch **pb_batches(struct arena *a, struct core_batch *const *batches, size_t count)
{
	Pb__Batch **list = take(a, count, sizeof(Pb__Batch *));

	for (size_t i = 0; list != NULL && i < count; i++) {
		list[i] = pb_batch(a, batches[i]);
		if (list[i] == NULL)
			return NULL;
	}
	return list;
}

static Pb__Hold **pb_holds(struct arena *a, const struct core_hold *holds, size_t count)
{
	Pb__Hold **list = take(a, count, sizeof(Pb__Hold *));

	for (size_t i = 0; list != NULL && i < count; i++) {
		Pb__Hold *pb = take(a, 1, sizeof *pb);

		if (pb == NULL)
			return NULL;
		pb__hold__init(pb);
		pb->name = text_of(holds[i].name);
		pb->since = pb_frontier(a, holds[i].since);
		pb->token = holds[i].token;
		pb->follow = holds[i].follow;
		if (pb->since == NULL)
			return NULL;
		list[i] = pb;
	}
	return list;
}

static Pb__Token *pb_token(struct arena *a, const struct core_done *done)
{
	Pb__Token *pb = take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__token__init(pb);
	pb->id = bytes_of(done->token.u.b, sizeof done->token.u.b);
	pb->asked = bytes_of(done->asked.b, sizeof done->asked.b);
	pb->rows = done->rows;
	pb->lower = pb_frontier(a, done->lower);
	pb->upper = pb_frontier(a, done->upper);
	pb->seqno = done->seqno;
	return pb->lower != NULL && pb->upper != NULL ? pb : NULL;
}

static Pb__Rollup *pb_rollup(struct arena *a, const struct core_rollup *rollup)
{
	Pb__Rollup *pb = take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__rollup__init(pb);
	pb->seqno = rollup->seqno;
	pb->key = text_of(rollup->key);
	return pb;
}

static Pb__Owner *pb_owner(struct arena *a, struct core_owner owner)
{
	Pb__Owner *pb = take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__owner__init(pb);
	pb->uid = owner.uid;
	pb->gid = owner.gid;
	pb->mode = owner.mode;
	return pb;
}

static bool fill_diff(struct arena *a, const struct core_diff *d, Pb__Diff *pb)
{
	Pb__Splice **splices = take(a, d->splice_count, sizeof(Pb__Splice *));
	Pb__Token **tokens = take(a, 1, sizeof(Pb__Token *));
	Pb__Rollup **rollups = take(a, 1, sizeof(Pb__Rollup *));
	char **removed = take(a, d->removed_count, sizeof(char *));

	if (splices == NULL || tokens == NULL || rollups == NULL || removed == NULL)
		return false;
	pb->seqno = d->seqno;
	pb->walltime_ms = d->walltime_ms;
	pb->attempt = bytes_of(d->attempt.b, sizeof d->attempt.b);
	pb->rollup = pb_rollup(a, &d->newest_rollup);
	pb->since = d->has_since ? pb_frontier(a, d->since) : NULL;
	pb->upper = d->has_upper ? pb_frontier(a, d->upper) : NULL;
	for (size_t i = 0; i < d->splice_count; i++) {
		Pb__Splice *splice = take(a, 1, sizeof *splice);

		if (splice == NULL)
			return false;
		pb__splice__init(splice);
		splice->lower = pb_frontier(a, d->splices[i].lower);
		splice->upper = pb_frontier(a, d->splices[i].upper);
		splice->batches = pb_batches(a, d->splices[i].batches, d->splices[i].count);
		splice->n_batches = d->splices[i].count;
		if (splice->lower == NULL || splice->upper == NULL || splice->batches == NULL)
			return false;
		splices[i] = splice;
	}
	pb->splices = splices;
	pb->n_splices = d->splice_count;
	pb->holds = pb_holds(a, d->holds, d->hold_count);
	pb->n_holds = d->hold_count;
	for (size_t i = 0; i < d->removed_count; i++)
		removed[i] = d->holds_removed[i];
	pb->holds_removed = removed;
	pb->n_holds_removed = d->removed_count;
	tokens[0] = d->has_token ? pb_token(a, &d->token) : NULL;
	pb->tokens = tokens;
	pb->n_tokens = d->has_token ? 1 : 0;
	rollups[0] = d->has_rollup ? pb_rollup(a, &d->rollup) : NULL;
	pb->rollups = rollups;
	pb->n_rollups = d->has_rollup ? 1 : 0;
	pb->owner = d->has_owner ? pb_owner(a, d->owner) : NULL;
	pb->tombstone = d->tombstone;
	return pb->rollup != NULL && pb->holds != NULL && (!d->has_since || pb->since != NULL) &&
	       (!d->has_upper || pb->upper != NULL) && (!d->has_token || tokens[0] != NULL) &&
	       (!d->has_rollup || rollups[0] != NULL) && (!d->has_owner || pb->owner != NULL);
}

enum kv_rc core_diff_encode(struct core_shard_id shard, const struct core_diff *d, struct core_buf *out,
			    struct kv_err *err)
{
	struct arena a = {0};
	Pb__Diff pb = PB__DIFF__INIT;
	enum kv_rc rc = KV_NOMEM;

	*out = (struct core_buf){0};
	if (fill_diff(&a, d, &pb))
		rc = frame_new(pb__diff__get_packed_size(&pb), out, err);
	else
		kv_fail_rc(err, rc);
	if (rc == KV_OK) {
		pb__diff__pack(&pb, out->data + FRAME_LEN);
		frame_seal('D', shard_seed(shard), out);
	}
	arena_fini(&a);
	return rc;
}

static bool fill_state(struct arena *a, const struct core_state *s, Pb__State *pb)
{
	Pb__Token **tokens = take(a, s->token_count, sizeof(Pb__Token *));
	Pb__Rollup **rollups = take(a, s->rollup_count, sizeof(Pb__Rollup *));

	if (tokens == NULL || rollups == NULL)
		return false;
	pb->seqno = s->seqno;
	pb->first_seqno = s->first_seqno;
	pb->walltime_ms = s->walltime_ms;
	pb->created_ms = s->created_ms;
	pb->attempt = bytes_of(s->attempt.b, sizeof s->attempt.b);
	pb->since = pb_frontier(a, s->since);
	pb->upper = pb_frontier(a, s->upper);
	pb->batches = pb_batches(a, s->batches, s->batch_count);
	pb->n_batches = s->batch_count;
	pb->holds = pb_holds(a, s->holds, s->hold_count);
	pb->n_holds = s->hold_count;
	for (size_t i = 0; i < s->token_count; i++) {
		tokens[i] = pb_token(a, &s->tokens[(s->token_first + i) % CORE_TOKENS_MAX]);
		if (tokens[i] == NULL)
			return false;
	}
	pb->tokens = tokens;
	pb->n_tokens = s->token_count;
	for (size_t i = 0; i < s->rollup_count; i++) {
		rollups[i] = pb_rollup(a, &s->rollups[i]);
		if (rollups[i] == NULL)
			return false;
	}
	pb->rollups = rollups;
	pb->n_rollups = s->rollup_count;
	pb->owner = pb_owner(a, s->owner);
	pb->tombstone = s->tombstone;
	return pb->since != NULL && pb->upper != NULL && pb->batches != NULL && pb->holds != NULL &&
	       pb->owner != NULL;
}

enum kv_rc core_state_encode(struct core_shard_id shard, const struct core_state *s, struct core_buf *out,
			     struct kv_err *err)
{
	struct arena a = {0};
	Pb__State pb = PB__STATE__INIT;
	enum kv_rc rc = KV_NOMEM;

	*out = (struct core_buf){0};
	if (fill_state(&a, s, &pb))
		rc = frame_new(pb__state__get_packed_size(&pb), out, err);
	else
		kv_fail_rc(err, rc);
	if (rc == KV_OK) {
		pb__state__pack(&pb, out->data + FRAME_LEN);
		frame_seal('R', shard_seed(shard), out);
	}
	arena_fini(&a);
	return rc;
}
