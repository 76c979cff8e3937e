/*
 * batch.c - batches in memory: reference counts, growing, what bounds hide.
 *
 * 1. run_starts[0] == 0 and run_starts strictly ascends; run_count == 0 iff
 *    part_count == 0.
 * 2. Both arrays have room for the next power of two, so no capacity is kept.
 * 3. A reader sees times from max(least stored, rewrite_ts) to
 *    max(greatest stored, rewrite_ts); rows that were `*` are stored at 0. Both
 *    ends are times of real rows, so a part is hidden in part, in whole or not
 *    at all exactly as they say.
 */
#include "core/batch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct core_batch *core_batch_new(struct core_frontier lower, struct core_frontier upper)
{
	struct core_batch *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return NULL;
	atomic_init(&b->refs, 1);
	b->lower = lower;
	b->upper = upper;
	b->since = core_frontier_at(0);
	return b;
}

struct core_batch *core_batch_ref(struct core_batch *b)
{
	unsigned before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);

	assert(before > 0);
	(void)before;
	return b;
}

bool core_batch_is_shared(const struct core_batch *b)
{
	return atomic_load(&b->refs) > 1;
}

void core_batch_unref(struct core_batch *b)
{
	if (b == NULL)
		return;
	/* Release what this holder did, acquire what all others did, before the memory goes. */
	if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < b->part_count; i++)
		core_part_fini(&b->parts[i]);
	free(b->parts);
	free(b->run_starts);
	free(b);
}

/* Room for one more than count elements. False: out of memory, nothing changed. */
static bool grow(void **array, size_t count, size_t element)
{
	size_t bytes;

	if ((count & (count - 1)) != 0) /* not at a power of two (or 0): there is room */
		return true;
	if (__builtin_mul_overflow(count == 0 ? 1 : 2 * count, element, &bytes))
		return false;
	void *grown = realloc(*array, bytes);
	if (grown == NULL)
		return false;
	*array = grown;
	return true;
}

bool core_batch_push(struct core_batch *b, struct core_part *part, bool new_run)
{
	void *parts = b->parts;
	void *run_starts = b->run_starts;

	new_run = new_run || b->part_count == 0;
	if (b->part_count >= UINT32_MAX || !grow(&parts, b->part_count, sizeof(*b->parts)))
		return false;
	b->parts = parts;
	if (new_run) {
		if (!grow(&run_starts, b->run_count, sizeof(*b->run_starts)))
			return false;
		b->run_starts = run_starts;
		b->run_starts[b->run_count++] = (uint32_t)b->part_count;
	}
	b->parts[b->part_count++] = *part;
	b->rows += part->rows;
	b->bytes += part->size;
	*part = (struct core_part){0};
	return true;
}

void core_batch_pop(struct core_batch *b)
{
	assert(b->part_count > 0);
	b->part_count--;
	b->rows -= b->parts[b->part_count].rows;
	b->bytes -= b->parts[b->part_count].size;
	if (b->run_starts[b->run_count - 1] == b->part_count)
		b->run_count--;
	core_part_fini(&b->parts[b->part_count]);
}

void core_part_fini(struct core_part *part)
{
	free(part->inline_data);
	*part = (struct core_part){0};
}

/* The least and greatest time a reader sees before bounds hide rows. */
static void seen_times(const struct core_part *part, uint64_t *least, uint64_t *greatest)
{
	uint64_t stored = part->stars > 0 ? 0 : part->min_time;

	*least = stored > part->rewrite_ts ? stored : part->rewrite_ts;
	*greatest = part->max_time > part->rewrite_ts ? part->max_time : part->rewrite_ts;
}

bool core_part_may_hide(const struct core_part *part, struct core_frontier lower, struct core_frontier upper)
{
	uint64_t least, greatest;

	seen_times(part, &least, &greatest);
	return !core_frontier_covers(lower, least) || core_frontier_covers(upper, greatest);
}

bool core_part_hidden(const struct core_part *part, struct core_frontier lower, struct core_frontier upper)
{
	uint64_t least, greatest;

	seen_times(part, &least, &greatest);
	return !core_frontier_covers(lower, greatest) || core_frontier_covers(upper, least);
}

bool core_part_text_len(const struct core_part *part, struct core_frontier lower, struct core_frontier upper,
			uint64_t *len)
{
	uint64_t rewrite = part->rewrite_ts;
	uint64_t timed = part->rows - part->stars;
	uint64_t lifted = part->stars;
	uint64_t digits = part->time_digits;

	*len = 0;
	if (core_part_hidden(part, lower, upper))
		return true;
	if (core_part_may_hide(part, lower, upper))
		return false;
	if (timed > 0 && part->min_time < rewrite) {
		if (part->max_time > rewrite)
			return false;
		lifted += timed; /* all of them become rewrite_ts */
		digits = 0;
	}
	*len = part->text_base + digits + lifted * core_u64_digits(rewrite);
	return true;
}

uint64_t core_batch_inline_bytes(const struct core_batch *b)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < b->part_count; i++)
		bytes += b->parts[i].inline_data == NULL || b->parts[i].loose ? 0 : b->parts[i].size;
	return bytes;
}

char *core_part_key(struct core_shard_id shard, const struct core_part *part, char buf[CORE_BLOB_KEY_LEN])
{
	char *p = buf;

	_Static_assert(CORE_BLOB_KEY_LEN >= 3 * CORE_ID_LEN, "three ids and what divides them");
	core_uuid_format('s', shard.u, p);
	p += CORE_ID_LEN - 1;
	*p++ = '/';
	core_uuid_format('n', part->instance.u, p);
	p += CORE_ID_LEN - 1;
	*p++ = '/';
	core_uuid_format('p', part->id.u, p);
	return buf;
}
