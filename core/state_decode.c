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
#include <xxhash.h>

#include "core/state.pb-c.h"
#include "core/state_codec.h"

static bool get_frontier(const Pb__Frontier *pb, struct core_frontier *out)
{
	if (pb == NULL || pb->n_times > 1)
		return false;
	*out = pb->n_times == 0 ? core_frontier_empty() : core_frontier_at(pb->times[0]);
	return true;
}

static bool get_bytes(const ProtobufCBinaryData *pb, void *out, size_t len)
{
	if (pb->len != len)
		return false;
	memcpy(out, pb->data, len);
	return true;
}

static bool get_text(const char *pb, char *out, size_t room)
{
	size_t len = pb != NULL ? strlen(pb) : 0;

	if (len == 0 || len >= room)
		return false;
	memcpy(out, pb, len + 1);
	return true;
}

/* What a decoder of a repeated field says. */
enum got { GOT_IT, GOT_BAD, GOT_NOMEM };

static enum got get_part(const Pb__Part *pb, struct core_part *out)
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
	if (!get_bytes(&pb->id, out->id.u.b, sizeof out->id.u.b) ||
	    !get_bytes(&pb->instance, out->instance.u.b, sizeof out->instance.u.b))
		return GOT_BAD;
	if (pb->inline_data.len == 0)
		return GOT_IT;
	if (pb->inline_data.len != pb->size)
		return GOT_BAD;
	out->inline_data = malloc(pb->size);
	if (out->inline_data == NULL)
		return GOT_NOMEM;
	memcpy(out->inline_data, pb->inline_data.data, pb->size);
	return GOT_IT;
}

static enum got get_batch(const Pb__Batch *pb, struct core_batch **out)
{
	struct core_frontier lower, upper, since;
	struct core_batch *b;
	size_t run = 0;

	*out = NULL;
	if (!get_frontier(pb->lower, &lower) || !get_frontier(pb->upper, &upper) ||
	    !get_frontier(pb->since, &since))
		return GOT_BAD;
	b = core_batch_new(lower, upper);
	if (b == NULL)
		return GOT_NOMEM;
	b->since = since;
	b->committed_ms = pb->committed_ms;
	for (size_t i = 0; i < pb->n_parts; i++) {
		bool new_run = run < pb->n_run_starts && pb->run_starts[run] == i;
		struct core_part part;
		enum got got = get_part(pb->parts[i], &part);

		run += new_run;
		if (got == GOT_IT && i == 0 && !new_run)
			got = GOT_BAD;
		if (got == GOT_IT && !core_batch_push(b, &part, new_run))
			got = GOT_NOMEM;
		if (got != GOT_IT) {
			core_part_fini(&part);
			core_batch_unref(b);
			return got;
		}
	}
	if (run != pb->n_run_starts) {
		core_batch_unref(b);
		return GOT_BAD;
	}
	*out = b;
	return GOT_IT;
}

/* A list of batches with a reference each; on failure nothing is left. */
static enum got get_batches(Pb__Batch *const *pb, size_t count, struct core_batch ***out)
{
	struct core_batch **list = calloc(count + 1, sizeof(struct core_batch *));
	enum got got = list != NULL ? GOT_IT : GOT_NOMEM;

	*out = NULL;
	for (size_t i = 0; i < count && got == GOT_IT; i++)
		got = get_batch(pb[i], &list[i]);
	if (got == GOT_IT) {
		*out = list;
		return GOT_IT;
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
	*out = (struct core_done){.rows = pb->rows, .seqno = pb->seqno};
	return get_bytes(&pb->id, out->token.u.b, sizeof out->token.u.b) &&
	       get_bytes(&pb->asked, out->asked.b, sizeof out->asked.b) &&
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

static enum got get_splices(const Pb__Diff *pb, struct core_diff *out)
{
	if (pb->n_splices > CORE_DIFF_SPLICES)
		return GOT_BAD;
	for (size_t i = 0; i < pb->n_splices; i++) {
		struct core_splice *splice = &out->splices[i];
		enum got got;

		if (!get_frontier(pb->splices[i]->lower, &splice->lower) ||
		    !get_frontier(pb->splices[i]->upper, &splice->upper) || pb->splices[i]->n_batches == 0)
			return GOT_BAD;
		got = get_batches(pb->splices[i]->batches, pb->splices[i]->n_batches, &splice->batches);
		if (got != GOT_IT)
			return got;
		splice->count = pb->splices[i]->n_batches;
		out->splice_count++;
	}
	return GOT_IT;
}

static enum got get_diff_holds(const Pb__Diff *pb, struct core_diff *out)
{
	for (size_t i = 0; i < pb->n_holds; i++) {
		struct core_hold hold;

		if (!get_hold(pb->holds[i], &hold))
			return GOT_BAD;
		if (core_diff_hold(out, &hold, NULL) != KV_OK)
			return GOT_NOMEM;
	}
	if (pb->n_holds_removed == 0)
		return GOT_IT;
	out->holds_removed = calloc(pb->n_holds_removed, sizeof *out->holds_removed);
	if (out->holds_removed == NULL)
		return GOT_NOMEM;
	for (size_t i = 0; i < pb->n_holds_removed; i++)
		if (!get_text(pb->holds_removed[i], out->holds_removed[out->removed_count++],
			      sizeof out->holds_removed[0]))
			return GOT_BAD;
	return GOT_IT;
}

static enum got get_diff(const Pb__Diff *pb, struct core_diff *out)
{
	enum got got;

	out->seqno = pb->seqno;
	out->walltime_ms = pb->walltime_ms;
	out->tombstone = pb->tombstone;
	out->has_since = pb->since != NULL;
	out->has_upper = pb->upper != NULL;
	out->has_token = pb->n_tokens != 0;
	out->has_rollup = pb->n_rollups != 0;
	out->has_owner = pb->owner != NULL;
	if (pb->n_tokens > 1 || pb->n_rollups > 1 ||
	    !get_bytes(&pb->attempt, out->attempt.b, sizeof out->attempt.b) || pb->rollup == NULL ||
	    !get_rollup(pb->rollup, &out->newest_rollup))
		return GOT_BAD;
	if ((out->has_since && !get_frontier(pb->since, &out->since)) ||
	    (out->has_upper && !get_frontier(pb->upper, &out->upper)) ||
	    (out->has_token && !get_token(pb->tokens[0], &out->token)) ||
	    (out->has_rollup && !get_rollup(pb->rollups[0], &out->rollup)))
		return GOT_BAD;
	if (out->has_owner)
		out->owner = get_owner(pb->owner);
	got = get_diff_holds(pb, out);
	return got == GOT_IT ? get_splices(pb, out) : got;
}

static enum kv_rc say(enum got got, const char *what, struct kv_err *err)
{
	if (got == GOT_NOMEM)
		return kv_fail_rc(err, KV_NOMEM);
	return got == GOT_IT ? KV_OK : kv_fail(err, KV_CORRUPT, "a %s that is not well-formed", what);
}

enum kv_rc core_diff_decode(struct core_shard_id shard, const void *data, size_t len, struct core_diff *out,
			    struct kv_err *err)
{
	const uint8_t *payload;
	size_t payload_len;
	Pb__Diff *pb;
	enum kv_rc rc;

	core_diff_init(out);
	rc = core_unframe('D', XXH3_64bits(shard.u.b, sizeof shard.u.b), data, len, &payload, &payload_len,
			  err);
	if (rc != KV_OK)
		return rc;
	pb = pb__diff__unpack(NULL, payload_len, payload);
	rc = say(pb != NULL ? get_diff(pb, out) : GOT_BAD, "version", err);
	if (pb != NULL)
		pb__diff__free_unpacked(pb, NULL);
	if (rc != KV_OK)
		core_diff_fini(out);
	return rc;
}

static enum got get_state_lists(const Pb__State *pb, struct core_state *s)
{
	enum got got = get_batches(pb->batches, pb->n_batches, &s->batches);

	if (got != GOT_IT)
		return got;
	s->batch_count = pb->n_batches;
	s->batch_cap = pb->n_batches + 1;
	s->holds = calloc(pb->n_holds + 1, sizeof *s->holds);
	s->rollups = calloc(pb->n_rollups + 1, sizeof *s->rollups);
	if (s->holds == NULL || s->rollups == NULL)
		return GOT_NOMEM;
	for (; s->hold_count < pb->n_holds; s->hold_count++)
		if (!get_hold(pb->holds[s->hold_count], &s->holds[s->hold_count]))
			return GOT_BAD;
	for (; s->rollup_count < pb->n_rollups; s->rollup_count++)
		if (!get_rollup(pb->rollups[s->rollup_count], &s->rollups[s->rollup_count]))
			return GOT_BAD;
	if (pb->n_tokens == 0)
		return GOT_IT;
	if (pb->n_tokens > CORE_TOKENS_MAX)
		return GOT_BAD;
	s->tokens = calloc(pb->n_tokens, sizeof *s->tokens);
	if (s->tokens == NULL)
		return GOT_NOMEM;
	s->token_cap = pb->n_tokens;
	for (; s->token_count < pb->n_tokens; s->token_count++)
		if (!get_token(pb->tokens[s->token_count], &s->tokens[s->token_count]))
			return GOT_BAD;
	return GOT_IT;
}

static enum got get_state(const Pb__State *pb, struct core_state *s)
{
	s->seqno = pb->seqno;
	s->first_seqno = pb->first_seqno;
	s->walltime_ms = pb->walltime_ms;
	s->created_ms = pb->created_ms;
	s->tombstone = pb->tombstone;
	if (!get_bytes(&pb->attempt, s->attempt.b, sizeof s->attempt.b) ||
	    !get_frontier(pb->since, &s->since) || !get_frontier(pb->upper, &s->upper) || pb->owner == NULL)
		return GOT_BAD;
	s->owner = get_owner(pb->owner);
	return get_state_lists(pb, s);
}

enum kv_rc core_state_decode(struct core_shard_id shard, const void *data, size_t len, struct core_state *out,
			     struct kv_err *err)
{
	const uint8_t *payload;
	size_t payload_len;
	Pb__State *pb;
	enum kv_rc rc;

	*out = (struct core_state){0};
	rc = core_unframe('R', XXH3_64bits(shard.u.b, sizeof shard.u.b), data, len, &payload, &payload_len,
			  err);
	if (rc != KV_OK)
		return rc;
	pb = pb__state__unpack(NULL, payload_len, payload);
	rc = say(pb != NULL ? get_state(pb, out) : GOT_BAD, "rollup", err);
	if (pb != NULL)
		pb__state__free_unpacked(pb, NULL);
	if (rc == KV_OK)
		rc = core_state_check(out, err);
	if (rc != KV_OK)
		core_state_fini(out);
	return rc;
}
