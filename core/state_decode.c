/*
 * state_decode.c - bytes of states and diffs back to structures; see state_codec.h.
 *
 * The frame's checksum has passed before protobuf sees a byte, so what does not
 * fit here was written wrong or forged: it is KV_CORRUPT all the same. Nothing
 * from the bytes is trusted as a length, an index or a name before it is checked.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec_impl.h"

static bool get_frontier(const Pb__Frontier *pb, struct core_frontier *out)
{
	if (pb == NULL || pb->n_times > 1)
		return false;
	*out = pb->n_times == 0 ? core_frontier_empty() : core_frontier_at(pb->times[0]);
	return true;
}

bool core_get_bytes(const ProtobufCBinaryData *pb, void *out, size_t len)
{
	if (pb->len != len)
		return false;
	memcpy(out, pb->data, len);
	return true;
}

/* Text that may be empty. */
static bool get_any_text(const char *pb, char *out, size_t room)
{
	size_t len = pb != NULL ? strlen(pb) : 0;

	if (len >= room)
		return false;
	memcpy(out, pb != NULL ? pb : "", len + 1);
	return true;
}

static bool get_text(const char *pb, char *out, size_t room)
{
	return get_any_text(pb, out, room) && out[0] != '\0';
}

static enum core_got get_part(const Pb__Part *pb, struct core_part *out)
{
	*out = (struct core_part){
		.size = pb->size,
		.rows = pb->rows,
		.stars = pb->stars,
		.text_base = pb->text_base,
		.time_digits = pb->time_digits,
		.min_time = pb->min_time,
		.max_time = pb->max_time,
		.diffs_sum = pb->diffs_sum,
		.checksum = pb->checksum,
		.rewrite_ts = pb->rewrite_ts,
	};
	if (!core_get_bytes(&pb->id, out->id.u.b, sizeof out->id.u.b) ||
	    !core_get_bytes(&pb->instance, out->instance.u.b, sizeof out->instance.u.b))
		return CORE_GOT_BAD;
	if (pb->inline_data.len == 0)
		return CORE_GOT_IT;
	if (pb->inline_data.len != pb->size)
		return CORE_GOT_BAD;
	out->inline_data = malloc(pb->size);
	if (out->inline_data == NULL)
		return CORE_GOT_NOMEM;
	memcpy(out->inline_data, pb->inline_data.data, pb->size);
	return CORE_GOT_IT;
}

enum core_got core_get_batch(const Pb__Batch *pb, struct core_batch **out)
{
	struct core_frontier lower, upper, since;
	struct core_batch *b;
	size_t run = 0;

	*out = NULL;
	if (!get_frontier(pb->lower, &lower) || !get_frontier(pb->upper, &upper) ||
	    !get_frontier(pb->since, &since))
		return CORE_GOT_BAD;
	b = core_batch_new(lower, upper);
	if (b == NULL)
		return CORE_GOT_NOMEM;
	b->since = since;
	b->committed_ms = pb->committed_ms;
	for (size_t i = 0; i < pb->n_parts; i++) {
		bool new_run = run < pb->n_run_starts && pb->run_starts[run] == i;
		struct core_part part;
		enum core_got got = get_part(pb->parts[i], &part);

		run += new_run;
		if (got == CORE_GOT_IT && i == 0 && !new_run)
			got = CORE_GOT_BAD;
		if (got == CORE_GOT_IT && !core_batch_push(b, &part, new_run))
			got = CORE_GOT_NOMEM;
		if (got != CORE_GOT_IT) {
			core_part_fini(&part);
			core_batch_unref(b);
			return got;
		}
	}
	if (run != pb->n_run_starts) {
		core_batch_unref(b);
		return CORE_GOT_BAD;
	}
	*out = b;
	return CORE_GOT_IT;
}

/* A list of batches with a reference each; on failure nothing is left. */
static enum core_got get_batches(Pb__Batch *const *pb, size_t count, struct core_batch ***out)
{
	struct core_batch **list = calloc(count + 1, sizeof(struct core_batch *));
	enum core_got got = list != NULL ? CORE_GOT_IT : CORE_GOT_NOMEM;

	*out = NULL;
	for (size_t i = 0; i < count && got == CORE_GOT_IT; i++)
		got = core_get_batch(pb[i], &list[i]);
	if (got == CORE_GOT_IT) {
		*out = list;
		return CORE_GOT_IT;
	}
	for (size_t i = 0; list != NULL && i < count; i++)
		core_batch_unref(list[i]);
	free(list);
	return got;
}

static bool get_hold(const Pb__Hold *pb, struct core_hold *out)
{
	*out = (struct core_hold){.token = pb->token, .follow = pb->follow};
	return get_text(pb->name, out->name, sizeof out->name) && get_frontier(pb->since, &out->since);
}

static bool get_token(const Pb__Token *pb, struct core_done *out)
{
	*out = (struct core_done){.rows = pb->rows, .batch_rows = pb->batch_rows, .seqno = pb->seqno};
	return core_get_bytes(&pb->id, out->token.u.b, sizeof out->token.u.b) &&
	       core_get_bytes(&pb->asked, out->asked.b, sizeof out->asked.b) &&
	       get_frontier(pb->lower, &out->lower) && get_frontier(pb->upper, &out->upper);
}

/* Keys of rollups are made of ids and a number; the blob store takes no others for granted. */
static bool is_rollup_key(const char *key)
{
	size_t len = strspn(key, "0123456789abcdefghijklmnopqrstuvwxyz-/");

	return key[len] == '\0' && key[0] != '/' && key[len - 1] != '/' && strstr(key, "//") == NULL;
}

static bool get_rollup(const Pb__Rollup *pb, struct core_rollup *out)
{
	out->seqno = pb->seqno;
	return get_text(pb->key, out->key, sizeof out->key) && is_rollup_key(out->key);
}

static struct core_owner get_owner(const Pb__Owner *pb)
{
	return (struct core_owner){.uid = pb->uid, .gid = pb->gid, .mode = pb->mode & 07777};
}

static bool get_staged(const Pb__Staged *pb, struct core_staged *out)
{
	*out = (struct core_staged){
		.manifest_bytes = pb->manifest_bytes,
		.rows = pb->rows,
		.size = pb->size,
		.has_bounds = pb->lower != NULL,
		.unfinished = pb->unfinished,
		.lost = pb->lost,
		.changed_ms = pb->changed_ms,
	};
	if ((pb->lower != NULL) != (pb->upper != NULL))
		return false;
	if (out->has_bounds &&
	    (!get_frontier(pb->lower, &out->lower) || !get_frontier(pb->upper, &out->upper)))
		return false;
	return get_text(pb->name, out->name, sizeof out->name) &&
	       core_get_bytes(&pb->id, out->id.b, sizeof out->id.b) &&
	       core_get_bytes(&pb->manifest, out->manifest.b, sizeof out->manifest.b) &&
	       core_get_bytes(&pb->instance, out->instance.u.b, sizeof out->instance.u.b);
}

/* *out is owned by the caller, however far it got. */
static enum core_got get_staged_list(Pb__Staged *const *pb, size_t count, struct core_staged **out,
				     size_t *out_count)
{
	if (count == 0)
		return CORE_GOT_IT;
	if (count > CORE_STAGED_MAX)
		return CORE_GOT_BAD;
	*out = calloc(count, sizeof **out);
	if (*out == NULL)
		return CORE_GOT_NOMEM;
	for (; *out_count < count; (*out_count)++)
		if (!get_staged(pb[*out_count], &(*out)[*out_count]))
			return CORE_GOT_BAD;
	return CORE_GOT_IT;
}

static bool get_writer(const Pb__Writer *pb, struct core_writer_state *out)
{
	*out = (struct core_writer_state){.lease_ms = pb->lease_ms, .heartbeat_ms = pb->heartbeat_ms};
	return core_get_bytes(&pb->id, out->id.b, sizeof out->id.b) &&
	       get_any_text(pb->host, out->host, sizeof out->host) &&
	       get_any_text(pb->purpose, out->purpose, sizeof out->purpose) &&
	       get_frontier(pb->last_upper, &out->last_upper);
}

static bool get_lease(const Pb__Lease *pb, struct core_lease *out)
{
	*out = (struct core_lease){
		.lease_ms = pb->lease_ms, .heartbeat_ms = pb->heartbeat_ms, .seqno = pb->seqno};
	return core_get_bytes(&pb->id, out->id.b, sizeof out->id.b) &&
	       get_any_text(pb->host, out->host, sizeof out->host) &&
	       get_any_text(pb->purpose, out->purpose, sizeof out->purpose) &&
	       get_frontier(pb->since, &out->since);
}

static bool get_diff_lease(const Pb__Diff *pb, struct core_diff *out)
{
	out->has_lease = pb->lease != NULL;
	if (out->has_lease && !get_lease(pb->lease, &out->lease))
		return false;
	out->ends_lease = pb->ended_lease.len != 0;
	return !out->ends_lease ||
	       core_get_bytes(&pb->ended_lease, out->ended_lease.b, sizeof out->ended_lease.b);
}

static enum core_got get_diff_staged(const Pb__Diff *pb, struct core_diff *out)
{
	enum core_got got = get_staged_list(pb->staged, pb->n_staged, &out->staged, &out->staged_count);

	if (got != CORE_GOT_IT)
		return got;
	out->has_writer = pb->writer != NULL;
	if (out->has_writer && !get_writer(pb->writer, &out->writer))
		return CORE_GOT_BAD;
	out->expires_writer = pb->expired_writer.len != 0;
	if (out->expires_writer &&
	    !core_get_bytes(&pb->expired_writer, out->expired_writer.b, sizeof out->expired_writer.b))
		return CORE_GOT_BAD;
	if (pb->n_staged_removed == 0)
		return CORE_GOT_IT;
	if (pb->n_staged_removed > CORE_STAGED_MAX)
		return CORE_GOT_BAD;
	out->staged_removed = calloc(pb->n_staged_removed, sizeof *out->staged_removed);
	if (out->staged_removed == NULL)
		return CORE_GOT_NOMEM;
	for (; out->staged_removed_count < pb->n_staged_removed; out->staged_removed_count++) {
		struct core_uuid *id = &out->staged_removed[out->staged_removed_count];

		if (!core_get_bytes(&pb->staged_removed[out->staged_removed_count], id->b, sizeof id->b))
			return CORE_GOT_BAD;
	}
	return CORE_GOT_IT;
}

static enum core_got get_splices(const Pb__Diff *pb, struct core_diff *out)
{
	if (pb->n_splices > CORE_DIFF_SPLICES)
		return CORE_GOT_BAD;
	for (size_t i = 0; i < pb->n_splices; i++) {
		struct core_splice *splice = &out->splices[i];
		enum core_got got;

		if (!get_frontier(pb->splices[i]->lower, &splice->lower) ||
		    !get_frontier(pb->splices[i]->upper, &splice->upper) || pb->splices[i]->n_batches == 0)
			return CORE_GOT_BAD;
		got = get_batches(pb->splices[i]->batches, pb->splices[i]->n_batches, &splice->batches);
		if (got != CORE_GOT_IT)
			return got;
		splice->count = pb->splices[i]->n_batches;
		out->splice_count++;
	}
	return CORE_GOT_IT;
}

static enum core_got get_diff_holds(const Pb__Diff *pb, struct core_diff *out)
{
	for (size_t i = 0; i < pb->n_holds; i++) {
		struct core_hold hold;

		if (!get_hold(pb->holds[i], &hold))
			return CORE_GOT_BAD;
		if (core_diff_hold(out, &hold, NULL) != KV_OK)
			return CORE_GOT_NOMEM;
	}
	if (pb->n_holds_removed == 0)
		return CORE_GOT_IT;
	out->holds_removed = calloc(pb->n_holds_removed, sizeof *out->holds_removed);
	if (out->holds_removed == NULL)
		return CORE_GOT_NOMEM;
	for (size_t i = 0; i < pb->n_holds_removed; i++)
		if (!get_text(pb->holds_removed[i], out->holds_removed[out->removed_count++],
			      sizeof out->holds_removed[0]))
			return CORE_GOT_BAD;
	return CORE_GOT_IT;
}

static enum core_got get_gone(const Pb__Diff *pb, struct core_diff *out)
{
	size_t count = pb->gone.len / sizeof *out->gone;

	if (pb->gone.len == 0)
		return CORE_GOT_IT;
	if (pb->gone.len % sizeof *out->gone != 0)
		return CORE_GOT_BAD;
	out->gone = calloc(count, sizeof *out->gone);
	if (out->gone == NULL)
		return CORE_GOT_NOMEM;
	memcpy(out->gone, pb->gone.data, pb->gone.len);
	out->gone_count = count;
	for (size_t i = 1; i < count; i++)
		if (memcmp(&out->gone[i - 1], &out->gone[i], sizeof *out->gone) >= 0)
			return CORE_GOT_BAD;
	return CORE_GOT_IT;
}

static enum core_got get_diff(const Pb__Diff *pb, struct core_diff *out)
{
	enum core_got got;

	out->seqno = pb->seqno;
	out->walltime_ms = pb->walltime_ms;
	out->tombstone = pb->tombstone;
	out->rollups_from = pb->rollups_from;
	out->has_since = pb->since != NULL;
	out->has_upper = pb->upper != NULL;
	out->has_token = pb->n_tokens != 0;
	out->has_rollup = pb->n_rollups != 0;
	out->has_owner = pb->owner != NULL;
	if (pb->n_tokens > 1 || pb->n_rollups > 1 ||
	    !core_get_bytes(&pb->attempt, out->attempt.b, sizeof out->attempt.b) || pb->rollup == NULL ||
	    !get_rollup(pb->rollup, &out->newest_rollup))
		return CORE_GOT_BAD;
	if ((out->has_since && !get_frontier(pb->since, &out->since)) ||
	    (out->has_upper && !get_frontier(pb->upper, &out->upper)) ||
	    (out->has_token && !get_token(pb->tokens[0], &out->token)) ||
	    (out->has_rollup && !get_rollup(pb->rollups[0], &out->rollup)) || !get_diff_lease(pb, out))
		return CORE_GOT_BAD;
	if (out->has_owner)
		out->owner = get_owner(pb->owner);
	got = get_gone(pb, out);
	if (got == CORE_GOT_IT)
		got = get_diff_holds(pb, out);
	if (got == CORE_GOT_IT)
		got = get_diff_staged(pb, out);
	return got == CORE_GOT_IT ? get_splices(pb, out) : got;
}

enum kv_rc core_got_rc(enum core_got got, const char *what, struct kv_err *err)
{
	if (got == CORE_GOT_NOMEM)
		return kv_fail_rc(err, KV_NOMEM);
	return got == CORE_GOT_IT ? KV_OK : kv_fail(err, KV_CORRUPT, "a %s that is not well-formed", what);
}

static void *unpacking_take(void *arg, size_t size)
{
	struct core_unpacking *u = arg;
	void *p = malloc(size);

	u->nomem = u->nomem || p == NULL;
	return p;
}

static void unpacking_give(void *arg, void *p)
{
	(void)arg;
	free(p);
}

void core_unpacking_init(struct core_unpacking *u)
{
	*u = (struct core_unpacking){
		.memory = {.alloc = unpacking_take, .free = unpacking_give, .allocator_data = u}};
}

enum core_got core_not_unpacked(const struct core_unpacking *u)
{
	return u->nomem ? CORE_GOT_NOMEM : CORE_GOT_BAD;
}

enum kv_rc core_diff_decode(struct core_shard_id shard, const void *data, size_t len, struct core_diff *out,
			    struct kv_err *err)
{
	const uint8_t *payload;
	size_t payload_len;
	struct core_unpacking u;
	Pb__Diff *pb;
	enum kv_rc rc;

	core_diff_init(out);
	rc = core_unframe('D', core_shard_seed(shard), data, len, &payload, &payload_len, err);
	if (rc != KV_OK)
		return rc;
	core_unpacking_init(&u);
	pb = pb__diff__unpack(&u.memory, payload_len, payload);
	rc = core_got_rc(pb != NULL ? get_diff(pb, out) : core_not_unpacked(&u), "version", err);
	if (pb != NULL)
		pb__diff__free_unpacked(pb, &u.memory);
	if (rc != KV_OK)
		core_diff_fini(out);
	return rc;
}

static enum core_got get_state_lists(const Pb__State *pb, struct core_state *s)
{
	enum core_got got = get_batches(pb->batches, pb->n_batches, &s->batches);

	if (got != CORE_GOT_IT)
		return got;
	s->batch_count = pb->n_batches;
	s->batch_cap = pb->n_batches + 1;
	s->holds = calloc(pb->n_holds + 1, sizeof *s->holds);
	s->rollups = calloc(pb->n_rollups + 1, sizeof *s->rollups);
	if (s->holds == NULL || s->rollups == NULL)
		return CORE_GOT_NOMEM;
	for (; s->hold_count < pb->n_holds; s->hold_count++)
		if (!get_hold(pb->holds[s->hold_count], &s->holds[s->hold_count]))
			return CORE_GOT_BAD;
	for (; s->rollup_count < pb->n_rollups; s->rollup_count++)
		if (!get_rollup(pb->rollups[s->rollup_count], &s->rollups[s->rollup_count]))
			return CORE_GOT_BAD;
	if (pb->n_tokens == 0)
		return CORE_GOT_IT;
	if (pb->n_tokens > CORE_TOKENS_MAX)
		return CORE_GOT_BAD;
	s->tokens = calloc(pb->n_tokens, sizeof *s->tokens);
	if (s->tokens == NULL)
		return CORE_GOT_NOMEM;
	s->token_cap = pb->n_tokens;
	for (; s->token_count < pb->n_tokens; s->token_count++)
		if (!get_token(pb->tokens[s->token_count], &s->tokens[s->token_count]))
			return CORE_GOT_BAD;
	return CORE_GOT_IT;
}

static enum core_got get_state_leases(const Pb__State *pb, struct core_state *s)
{
	if (pb->n_leases == 0)
		return CORE_GOT_IT;
	if (pb->n_leases > CORE_READERS_MAX)
		return CORE_GOT_BAD;
	s->leases = calloc(pb->n_leases, sizeof *s->leases);
	if (s->leases == NULL)
		return CORE_GOT_NOMEM;
	s->lease_cap = pb->n_leases;
	for (; s->lease_count < pb->n_leases; s->lease_count++)
		if (!get_lease(pb->leases[s->lease_count], &s->leases[s->lease_count]))
			return CORE_GOT_BAD;
	return CORE_GOT_IT;
}

static enum core_got get_state_staged(const Pb__State *pb, struct core_state *s)
{
	enum core_got got = get_staged_list(pb->staged, pb->n_staged, &s->staged, &s->staged_count);

	s->staged_cap = s->staged_count;
	if (got != CORE_GOT_IT || pb->n_writers == 0)
		return got;
	if (pb->n_writers > CORE_WRITERS_MAX)
		return CORE_GOT_BAD;
	s->writers = calloc(pb->n_writers, sizeof *s->writers);
	if (s->writers == NULL)
		return CORE_GOT_NOMEM;
	s->writer_cap = pb->n_writers;
	for (; s->writer_count < pb->n_writers; s->writer_count++)
		if (!get_writer(pb->writers[s->writer_count], &s->writers[s->writer_count]))
			return CORE_GOT_BAD;
	return CORE_GOT_IT;
}

static enum core_got get_state_dead(const Pb__State *pb, struct core_state *s)
{
	if (pb->n_dead == 0)
		return CORE_GOT_IT;
	s->dead = calloc(pb->n_dead, sizeof *s->dead);
	if (s->dead == NULL)
		return CORE_GOT_NOMEM;
	s->dead_cap = pb->n_dead;
	for (; s->dead_count < pb->n_dead; s->dead_count++) {
		const Pb__Dead *from = pb->dead[s->dead_count];
		struct core_dead *dead = &s->dead[s->dead_count];

		dead->size = from->size;
		dead->seqno = from->seqno;
		if (!core_get_bytes(&from->id, dead->id.u.b, sizeof dead->id.u.b) ||
		    !core_get_bytes(&from->instance, dead->instance.u.b, sizeof dead->instance.u.b))
			return CORE_GOT_BAD;
	}
	return CORE_GOT_IT;
}

static enum core_got get_state(const Pb__State *pb, struct core_state *s)
{
	enum core_got got;

	s->seqno = pb->seqno;
	s->first_seqno = pb->first_seqno;
	s->walltime_ms = pb->walltime_ms;
	s->created_ms = pb->created_ms;
	s->tombstone = pb->tombstone;
	if (!core_get_bytes(&pb->attempt, s->attempt.b, sizeof s->attempt.b) ||
	    !get_frontier(pb->since, &s->since) || !get_frontier(pb->upper, &s->upper) || pb->owner == NULL)
		return CORE_GOT_BAD;
	s->owner = get_owner(pb->owner);
	got = get_state_lists(pb, s);
	if (got == CORE_GOT_IT)
		got = get_state_staged(pb, s);
	if (got == CORE_GOT_IT)
		got = get_state_leases(pb, s);
	return got == CORE_GOT_IT ? get_state_dead(pb, s) : got;
}

enum kv_rc core_state_decode(struct core_shard_id shard, const void *data, size_t len, struct core_state *out,
			     struct kv_err *err)
{
	const uint8_t *payload;
	size_t payload_len;
	struct core_unpacking u;
	Pb__State *pb;
	enum kv_rc rc;

	*out = (struct core_state){0};
	rc = core_unframe('R', core_shard_seed(shard), data, len, &payload, &payload_len, err);
	if (rc != KV_OK)
		return rc;
	core_unpacking_init(&u);
	pb = pb__state__unpack(&u.memory, payload_len, payload);
	rc = core_got_rc(pb != NULL ? get_state(pb, out) : core_not_unpacked(&u), "rollup", err);
	if (pb != NULL)
		pb__state__free_unpacked(pb, &u.memory);
	if (rc == KV_OK)
		rc = core_state_check(out, err);
	if (rc != KV_OK)
		core_state_fini(out);
	return rc;
}
