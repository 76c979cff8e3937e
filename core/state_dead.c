/*
 * state_dead.c - parts that were replaced, until their blobs are deleted; see state.h.
 *
 * What dies follows from the splice and the state before it, so no diff says it:
 * every blob of the batches that are replaced.
 */
#include "core/state_dead.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static size_t blobs_of(const struct core_batch *b)
{
	size_t count = 0;

	for (size_t i = 0; i < b->part_count; i++)
		count += b->parts[i].inline_data == NULL;
	return count;
}

size_t core_state_count_blobs(const struct core_state *s, size_t first, size_t end)
{
	size_t count = 0;

	for (size_t i = first; i < end; i++)
		count += blobs_of(s->batches[i]);
	return count;
}

enum kv_rc core_state_reserve_dead(struct core_state *s, size_t count, struct kv_err *err)
{
	size_t want = s->dead_count + count, cap = s->dead_cap != 0 ? s->dead_cap : 8;
	struct core_dead *grown;

	if (want <= s->dead_cap)
		return KV_OK;
	while (cap < want)
		cap *= 2;
	grown = reallocarray(s->dead, cap, sizeof *grown);
	if (grown == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	s->dead = grown;
	s->dead_cap = cap;
	return KV_OK;
}

void core_state_apply_dead(struct core_state *s, size_t first, size_t end, uint64_t seqno)
{
	for (size_t i = first; i < end; i++) {
		const struct core_batch *b = s->batches[i];

		for (size_t j = 0; j < b->part_count; j++)
			if (b->parts[j].inline_data == NULL)
				s->dead[s->dead_count++] = (struct core_dead){
					.id = b->parts[j].id,
					.instance = b->parts[j].instance,
					.size = b->parts[j].size,
					.seqno = seqno,
				};
	}
}

static int cmp_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct core_part_id));
}

void core_state_forget_dead(struct core_state *s, const struct core_part_id *gone, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->dead_count; i++)
		if (bsearch(&s->dead[i].id, gone, count, sizeof *gone, cmp_id) == NULL)
			s->dead[kept++] = s->dead[i];
	s->dead_count = kept;
	if (kept == 0) { /* most of the time there are none */
		free(s->dead);
		s->dead = NULL;
		s->dead_cap = 0;
	}
}

void core_state_forget_rollups(struct core_state *s, uint64_t from)
{
	size_t first = 0;

	while (first + 1 < s->rollup_count && s->rollups[first].seqno < from)
		first++;
	if (first == 0)
		return;
	s->rollup_count -= first;
	memmove(s->rollups, s->rollups + first, s->rollup_count * sizeof *s->rollups);
}

static enum kv_rc check_order(const struct core_state *s, struct kv_err *err)
{
	for (size_t i = 0; i < s->dead_count; i++)
		if (s->dead[i].seqno > s->seqno || (i > 0 && s->dead[i].seqno < s->dead[i - 1].seqno))
			return kv_fail(err, KV_CORRUPT, "dead parts are out of order at version %" PRIu64,
				       s->dead[i].seqno);
	return KV_OK;
}

enum kv_rc core_state_check_dead(const struct core_state *s, struct kv_err *err)
{
	struct core_part_id *ids;
	enum kv_rc rc = check_order(s, err);

	if (rc != KV_OK || s->dead_count == 0)
		return rc;
	ids = calloc(s->dead_count, sizeof *ids);
	if (ids == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	for (size_t i = 0; i < s->dead_count; i++)
		ids[i] = s->dead[i].id;
	qsort(ids, s->dead_count, sizeof *ids, cmp_id);
	for (size_t i = 1; i < s->dead_count && rc == KV_OK; i++)
		if (cmp_id(&ids[i - 1], &ids[i]) == 0)
			rc = kv_fail(err, KV_CORRUPT, "a part died twice");
	for (size_t i = 0; i < s->batch_count && rc == KV_OK; i++) {
		const struct core_batch *b = s->batches[i];

		for (size_t j = 0; j < b->part_count && rc == KV_OK; j++)
			if (bsearch(&b->parts[j].id, ids, s->dead_count, sizeof *ids, cmp_id) != NULL)
				rc = kv_fail(err, KV_CORRUPT, "a part that is in a batch is dead");
	}
	free(ids);
	return rc;
}
