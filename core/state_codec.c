/*
 * state_codec.c - see state_codec.h.
 *
 * The frame of every stored document, little endian:
 *
 *     offset  bytes  what
 *     0       3      "SFd"
 *     3       1      kind: 'D' diff, 'R' rollup (a whole state), 'M' manifest, 'N' names
 *     4       4      format, CORE_FORMAT at most: 1 is without staged batches, writers and leases
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

#include "core/codec_impl.h"

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

enum kv_rc core_frame_new(size_t len, struct core_buf *out, struct kv_err *err)
{
	*out = (struct core_buf){.data = malloc(CORE_FRAME_LEN + len), .len = CORE_FRAME_LEN + len};
	if (out->data != NULL)
		return KV_OK;
	out->len = 0;
	return kv_fail_rc(err, KV_NOMEM);
}

void core_frame_seal(char kind, uint64_t seed, struct core_buf *b)
{
	memcpy(b->data, "SFd", 3);
	b->data[3] = (uint8_t)kind;
	put_le(b->data + 4, CORE_FORMAT, 4);
	put_le(b->data + 8,
	       checksum(kind, CORE_FORMAT, seed, b->data + CORE_FRAME_LEN, b->len - CORE_FRAME_LEN), 8);
}

enum kv_rc core_frame(char kind, uint64_t seed, const void *payload, size_t len, struct core_buf *out,
		      struct kv_err *err)
{
	enum kv_rc rc = core_frame_new(len, out, err);

	if (rc != KV_OK)
		return rc;
	memcpy(out->data + CORE_FRAME_LEN, payload, len);
	core_frame_seal(kind, seed, out);
	return KV_OK;
}

enum kv_rc core_unframe(char kind, uint64_t seed, const void *data, size_t len, const uint8_t **payload,
			size_t *payload_len, struct kv_err *err)
{
	const uint8_t *p = data;
	uint64_t format;

	*payload = NULL;
	*payload_len = 0;
	if (len < CORE_FRAME_LEN || memcmp(p, "SFd", 3) != 0 || p[3] != (uint8_t)kind)
		return kv_fail(err, KV_CORRUPT, "%zu bytes that are no document of kind %c", len, kind);
	format = get_le(p + 4, 4);
	if (format > CORE_FORMAT)
		return kv_fail(err, KV_NEWER, "written in format %" PRIu64 "; this program reads up to %d",
			       format, CORE_FORMAT);
	if (get_le(p + 8, 8) != checksum(kind, format, seed, p + CORE_FRAME_LEN, len - CORE_FRAME_LEN))
		return kv_fail(err, KV_CORRUPT, "%zu bytes that fail their checksum", len);
	*payload = p + CORE_FRAME_LEN;
	*payload_len = len - CORE_FRAME_LEN;
	return KV_OK;
}

uint64_t core_shard_seed(struct core_shard_id shard)
{
	return XXH3_64bits(shard.u.b, sizeof shard.u.b);
}

/* --- to protobuf: messages that point into the engine's own structures ----------------------------- */

struct core_arena_block {
	struct core_arena_block *next;
	size_t cap;
	_Alignas(16) uint8_t data[];
};

void *core_arena_take(struct core_arena *a, size_t count, size_t size)
{
	size_t bytes = (count * size + 15) & ~(size_t)15;
	void *p;

	if (a->blocks == NULL || a->used + bytes > a->blocks->cap) {
		size_t cap = bytes > 8192 ? bytes : 8192;
		struct core_arena_block *block = malloc(sizeof *block + cap);

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

void core_arena_fini(struct core_arena *a)
{
	while (a->blocks != NULL) {
		struct core_arena_block *next = a->blocks->next;

		free(a->blocks);
		a->blocks = next;
	}
}

ProtobufCBinaryData core_pb_bytes(const void *data, size_t len)
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

static Pb__Frontier *pb_frontier(struct core_arena *a, struct core_frontier f)
{
	Pb__Frontier *pb = core_arena_take(a, 1, sizeof *pb + sizeof(uint64_t));

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
	pb->id = core_pb_bytes(part->id.u.b, sizeof part->id.u.b);
	pb->instance = core_pb_bytes(part->instance.u.b, sizeof part->instance.u.b);
	pb->size = part->size;
	if (part->inline_data != NULL && !part->loose)
		pb->inline_data = core_pb_bytes(part->inline_data, part->size);
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

Pb__Batch *core_pb_batch(struct core_arena *a, const struct core_batch *b)
{
	Pb__Batch *pb = core_arena_take(a, 1, sizeof *pb);
	Pb__Part *parts = core_arena_take(a, b->part_count, sizeof *parts);
	Pb__Part **list = core_arena_take(a, b->part_count, sizeof(Pb__Part *));

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

static Pb__Batch **pb_batches(struct core_arena *a, struct core_batch *const *batches, size_t count)
{
	Pb__Batch **list = core_arena_take(a, count, sizeof(Pb__Batch *));

	for (size_t i = 0; list != NULL && i < count; i++) {
		list[i] = core_pb_batch(a, batches[i]);
		if (list[i] == NULL)
			return NULL;
	}
	return list;
}

static Pb__Hold **pb_holds(struct core_arena *a, const struct core_hold *holds, size_t count)
{
	Pb__Hold **list = core_arena_take(a, count, sizeof(Pb__Hold *));

	for (size_t i = 0; list != NULL && i < count; i++) {
		Pb__Hold *pb = core_arena_take(a, 1, sizeof *pb);

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

static Pb__Token *pb_token(struct core_arena *a, const struct core_done *done)
{
	Pb__Token *pb = core_arena_take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__token__init(pb);
	pb->id = core_pb_bytes(done->token.u.b, sizeof done->token.u.b);
	pb->asked = core_pb_bytes(done->asked.b, sizeof done->asked.b);
	pb->rows = done->rows;
	pb->batch_rows = done->batch_rows;
	pb->lower = pb_frontier(a, done->lower);
	pb->upper = pb_frontier(a, done->upper);
	pb->seqno = done->seqno;
	return pb->lower != NULL && pb->upper != NULL ? pb : NULL;
}

static Pb__Rollup *pb_rollup(struct core_arena *a, const struct core_rollup *rollup)
{
	Pb__Rollup *pb = core_arena_take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__rollup__init(pb);
	pb->seqno = rollup->seqno;
	pb->key = text_of(rollup->key);
	return pb;
}

static Pb__Owner *pb_owner(struct core_arena *a, struct core_owner owner)
{
	Pb__Owner *pb = core_arena_take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__owner__init(pb);
	pb->uid = owner.uid;
	pb->gid = owner.gid;
	pb->mode = owner.mode;
	return pb;
}

static Pb__Staged *pb_staged_one(struct core_arena *a, const struct core_staged *staged)
{
	Pb__Staged *pb = core_arena_take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__staged__init(pb);
	pb->id = core_pb_bytes(staged->id.b, sizeof staged->id.b);
	pb->name = text_of(staged->name);
	pb->manifest = core_pb_bytes(staged->manifest.b, sizeof staged->manifest.b);
	pb->instance = core_pb_bytes(staged->instance.u.b, sizeof staged->instance.u.b);
	pb->manifest_bytes = staged->manifest_bytes;
	pb->rows = staged->rows;
	pb->size = staged->size;
	pb->unfinished = staged->unfinished;
	pb->lost = staged->lost;
	pb->changed_ms = staged->changed_ms;
	if (!staged->has_bounds)
		return pb;
	pb->lower = pb_frontier(a, staged->lower);
	pb->upper = pb_frontier(a, staged->upper);
	return pb->lower != NULL && pb->upper != NULL ? pb : NULL;
}

static Pb__Staged **pb_staged(struct core_arena *a, const struct core_staged *staged, size_t count)
{
	Pb__Staged **list = core_arena_take(a, count, sizeof(Pb__Staged *));

	for (size_t i = 0; list != NULL && i < count; i++) {
		list[i] = pb_staged_one(a, &staged[i]);
		if (list[i] == NULL)
			return NULL;
	}
	return list;
}

static Pb__Writer *pb_writer(struct core_arena *a, const struct core_writer_state *writer)
{
	Pb__Writer *pb = core_arena_take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__writer__init(pb);
	pb->id = core_pb_bytes(writer->id.b, sizeof writer->id.b);
	pb->host = text_of(writer->host);
	pb->purpose = text_of(writer->purpose);
	pb->lease_ms = writer->lease_ms;
	pb->heartbeat_ms = writer->heartbeat_ms;
	pb->last_upper = pb_frontier(a, writer->last_upper);
	return pb->last_upper != NULL ? pb : NULL;
}

static Pb__Lease *pb_lease(struct core_arena *a, const struct core_lease *lease)
{
	Pb__Lease *pb = core_arena_take(a, 1, sizeof *pb);

	if (pb == NULL)
		return NULL;
	pb__lease__init(pb);
	pb->id = core_pb_bytes(lease->id.b, sizeof lease->id.b);
	pb->host = text_of(lease->host);
	pb->purpose = text_of(lease->purpose);
	pb->lease_ms = lease->lease_ms;
	pb->heartbeat_ms = lease->heartbeat_ms;
	pb->since = pb_frontier(a, lease->since);
	pb->seqno = lease->seqno;
	return pb->since != NULL ? pb : NULL;
}

static bool fill_diff_lease(struct core_arena *a, const struct core_diff *d, Pb__Diff *pb)
{
	pb->lease = d->has_lease ? pb_lease(a, &d->lease) : NULL;
	if (d->ends_lease)
		pb->ended_lease = core_pb_bytes(d->ended_lease.b, sizeof d->ended_lease.b);
	return !d->has_lease || pb->lease != NULL;
}

static Pb__Dead **pb_dead(struct core_arena *a, const struct core_dead *dead, size_t count)
{
	Pb__Dead **list = core_arena_take(a, count, sizeof(Pb__Dead *));
	Pb__Dead *pb = core_arena_take(a, count, sizeof *pb);

	if (list == NULL || pb == NULL)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		pb__dead__init(&pb[i]);
		pb[i].id = core_pb_bytes(dead[i].id.u.b, sizeof dead[i].id.u.b);
		pb[i].instance = core_pb_bytes(dead[i].instance.u.b, sizeof dead[i].instance.u.b);
		pb[i].size = dead[i].size;
		pb[i].seqno = dead[i].seqno;
		list[i] = &pb[i];
	}
	return list;
}

static bool fill_diff_staged(struct core_arena *a, const struct core_diff *d, Pb__Diff *pb)
{
	ProtobufCBinaryData *removed =
		core_arena_take(a, d->staged_removed_count, sizeof(ProtobufCBinaryData));

	pb->staged = pb_staged(a, d->staged, d->staged_count);
	if (removed == NULL || pb->staged == NULL)
		return false;
	pb->n_staged = d->staged_count;
	for (size_t i = 0; i < d->staged_removed_count; i++)
		removed[i] = core_pb_bytes(d->staged_removed[i].b, sizeof d->staged_removed[i].b);
	pb->staged_removed = removed;
	pb->n_staged_removed = d->staged_removed_count;
	pb->writer = d->has_writer ? pb_writer(a, &d->writer) : NULL;
	if (d->expires_writer)
		pb->expired_writer = core_pb_bytes(d->expired_writer.b, sizeof d->expired_writer.b);
	return !d->has_writer || pb->writer != NULL;
}

static bool fill_diff(struct core_arena *a, const struct core_diff *d, Pb__Diff *pb)
{
	Pb__Splice **splices = core_arena_take(a, d->splice_count, sizeof(Pb__Splice *));
	Pb__Token **tokens = core_arena_take(a, 1, sizeof(Pb__Token *));
	Pb__Rollup **rollups = core_arena_take(a, 1, sizeof(Pb__Rollup *));
	char **removed = core_arena_take(a, d->removed_count, sizeof(char *));

	if (splices == NULL || tokens == NULL || rollups == NULL || removed == NULL)
		return false;
	pb->seqno = d->seqno;
	pb->walltime_ms = d->walltime_ms;
	pb->attempt = core_pb_bytes(d->attempt.b, sizeof d->attempt.b);
	pb->rollup = pb_rollup(a, &d->newest_rollup);
	pb->since = d->has_since ? pb_frontier(a, d->since) : NULL;
	pb->upper = d->has_upper ? pb_frontier(a, d->upper) : NULL;
	for (size_t i = 0; i < d->splice_count; i++) {
		Pb__Splice *splice = core_arena_take(a, 1, sizeof *splice);

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
	if (d->gone_count != 0)
		pb->gone = core_pb_bytes(d->gone, d->gone_count * sizeof *d->gone);
	pb->rollups_from = d->rollups_from;
	return fill_diff_staged(a, d, pb) && fill_diff_lease(a, d, pb) && pb->rollup != NULL &&
	       pb->holds != NULL && (!d->has_since || pb->since != NULL) &&
	       (!d->has_upper || pb->upper != NULL) && (!d->has_token || tokens[0] != NULL) &&
	       (!d->has_rollup || rollups[0] != NULL) && (!d->has_owner || pb->owner != NULL);
}

enum kv_rc core_diff_encode(struct core_shard_id shard, const struct core_diff *d, struct core_buf *out,
			    struct kv_err *err)
{
	struct core_arena a = {0};
	Pb__Diff pb = PB__DIFF__INIT;
	enum kv_rc rc = KV_NOMEM;

	*out = (struct core_buf){0};
	if (fill_diff(&a, d, &pb))
		rc = core_frame_new(pb__diff__get_packed_size(&pb), out, err);
	else
		kv_fail_rc(err, rc);
	if (rc == KV_OK) {
		pb__diff__pack(&pb, out->data + CORE_FRAME_LEN);
		core_frame_seal('D', core_shard_seed(shard), out);
	}
	core_arena_fini(&a);
	return rc;
}

/* Those who write and those who read, and what is left of what was replaced. */
static bool fill_leased(struct core_arena *a, const struct core_state *s, Pb__State *pb)
{
	Pb__Writer **writers = core_arena_take(a, s->writer_count, sizeof(Pb__Writer *));
	Pb__Lease **leases = core_arena_take(a, s->lease_count, sizeof(Pb__Lease *));

	if (writers == NULL || leases == NULL)
		return false;
	for (size_t i = 0; i < s->writer_count; i++) {
		writers[i] = pb_writer(a, &s->writers[i]);
		if (writers[i] == NULL)
			return false;
	}
	pb->writers = writers;
	pb->n_writers = s->writer_count;
	for (size_t i = 0; i < s->lease_count; i++) {
		leases[i] = pb_lease(a, &s->leases[i]);
		if (leases[i] == NULL)
			return false;
	}
	pb->leases = leases;
	pb->n_leases = s->lease_count;
	pb->dead = pb_dead(a, s->dead, s->dead_count);
	pb->n_dead = s->dead_count;
	return pb->dead != NULL;
}

static bool fill_state(struct core_arena *a, const struct core_state *s, Pb__State *pb)
{
	Pb__Token **tokens = core_arena_take(a, s->token_count, sizeof(Pb__Token *));
	Pb__Rollup **rollups = core_arena_take(a, s->rollup_count, sizeof(Pb__Rollup *));

	if (tokens == NULL || rollups == NULL || !fill_leased(a, s, pb))
		return false;
	pb->seqno = s->seqno;
	pb->first_seqno = s->first_seqno;
	pb->walltime_ms = s->walltime_ms;
	pb->created_ms = s->created_ms;
	pb->attempt = core_pb_bytes(s->attempt.b, sizeof s->attempt.b);
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
	pb->staged = pb_staged(a, s->staged, s->staged_count);
	pb->n_staged = s->staged_count;
	pb->owner = pb_owner(a, s->owner);
	pb->tombstone = s->tombstone;
	return pb->since != NULL && pb->upper != NULL && pb->batches != NULL && pb->holds != NULL &&
	       pb->owner != NULL && pb->staged != NULL;
}

enum kv_rc core_state_encode(struct core_shard_id shard, const struct core_state *s, struct core_buf *out,
			     struct kv_err *err)
{
	struct core_arena a = {0};
	Pb__State pb = PB__STATE__INIT;
	enum kv_rc rc = KV_NOMEM;

	*out = (struct core_buf){0};
	if (fill_state(&a, s, &pb))
		rc = core_frame_new(pb__state__get_packed_size(&pb), out, err);
	else
		kv_fail_rc(err, rc);
	if (rc == KV_OK) {
		pb__state__pack(&pb, out->data + CORE_FRAME_LEN);
		core_frame_seal('R', core_shard_seed(shard), out);
	}
	core_arena_fini(&a);
	return rc;
}
