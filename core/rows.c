/*
 * rows.c - a heap of updates and their sorting.
 *
 * Keys and vals are copied to chunks, which double from CHUNK_MIN to CHUNK_MAX,
 * so that one row takes little and pointers into them stay.
 *
 * Sorting orders pairs (prefix, row number) by merging: the prefix is the eight
 * key bytes behind the longest prefix that all keys share, as a big-endian
 * number, so that most comparisons touch no row at all. Then the rows are moved
 * to their places in circles, in the array they stand in. Rows that came in
 * order, as those of a merge do, are only looked through.
 *
 * 1. A smaller prefix means a smaller key; equal ones mean nothing. (An absent
 *    key has prefix 0, as has the empty one; padding is 0.)
 * 2. star == NULL or star has at least cap elements.
 */
#include "core/rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/pace.h"

enum { CHUNK_MIN = 2 << 10, CHUNK_MAX = 1 << 20, ROWS_MIN = 8, INSERTION_MAX = 16, GIVE_WAY_ROWS = 512 };

struct core_rows_chunk {
	struct core_rows_chunk *older;
	size_t used;
	size_t cap;
	uint8_t data[];
};

struct order {
	uint64_t prefix;
	size_t row;
};

static void free_chunks(struct core_rows_chunk *chunk)
{
	while (chunk != NULL) {
		struct core_rows_chunk *older = chunk->older;

		free(chunk);
		chunk = older;
	}
}

void core_rows_fini(struct core_rows *r)
{
	free_chunks(r->chunks);
	free_chunks(r->spare);
	free(r->u);
	free(r->star);
	*r = (struct core_rows){0};
}

/* To give a megabyte back and have it again costs more than to fill it: the kernel clears each page. */
void core_rows_clear(struct core_rows *r)
{
	while (r->chunks != NULL) {
		struct core_rows_chunk *chunk = r->chunks;

		r->chunks = chunk->older;
		if (chunk->cap == CHUNK_MAX) {
			chunk->older = r->spare;
			chunk->used = 0;
			r->spare = chunk;
		} else {
			free(chunk);
		}
	}
	r->count = 0;
	r->bytes = 0;
	r->settled = false;
}

/* --- adding ----------------------------------------------------------------------------------------- */

static bool grow_to(struct core_rows *r, size_t cap)
{
	if (r->star != NULL) {
		bool *star = realloc(r->star, cap * sizeof(*star));
		if (star == NULL)
			return false;
		r->star = star;
	}
	struct core_update *u = realloc(r->u, cap * sizeof(*u));
	if (u == NULL)
		return false; /* a longer star does no harm */
	r->u = u;
	r->cap = cap;
	return true;
}

void core_rows_expect(struct core_rows *r, size_t count)
{
	if (count > r->cap)
		grow_to(r, count);
}

/* A chunk of at least cap bytes; it says how many. */
static struct core_rows_chunk *take_chunk(struct core_rows *r, size_t *cap)
{
	struct core_rows_chunk *chunk = r->spare;

	if (chunk != NULL && *cap <= CHUNK_MAX) {
		r->spare = chunk->older;
		*cap = CHUNK_MAX;
		return chunk;
	}
	/* The heap is to take no more than without spare ones. */
	for (size_t freed = 0; r->spare != NULL && freed < *cap; freed += CHUNK_MAX) {
		chunk = r->spare;
		r->spare = chunk->older;
		free(chunk);
	}
	return malloc(sizeof(*chunk) + *cap);
}

/* Room for len bytes that stay where they are; NULL: out of memory. */
static uint8_t *reserve(struct core_rows *r, size_t len)
{
	struct core_rows_chunk *chunk = r->chunks;

	if (chunk != NULL && len <= chunk->cap - chunk->used)
		return chunk->data + chunk->used;
	size_t cap = chunk == NULL ? CHUNK_MIN : 2 * chunk->cap;
	if (cap > CHUNK_MAX)
		cap = CHUNK_MAX;
	if (cap < len)
		cap = len;
	chunk = take_chunk(r, &cap);
	if (chunk == NULL)
		return NULL;
	*chunk = (struct core_rows_chunk){.older = r->chunks, .used = 0, .cap = cap};
	r->chunks = chunk;
	return chunk->data;
}

static struct core_bytes put_bytes(uint8_t **p, struct core_bytes b)
{
	struct core_bytes copy = {.data = *p, .len = b.len};

	if (b.len == CORE_ABSENT || b.len == 0)
		return (struct core_bytes){.data = NULL, .len = b.len};
	memcpy(*p, b.data, b.len);
	*p += b.len;
	return copy;
}

bool core_rows_add(struct core_rows *r, const struct core_update *u, bool star)
{
	size_t len = core_update_bytes(u);

	if (r->count == r->cap && !grow_to(r, r->cap == 0 ? ROWS_MIN : 2 * r->cap))
		return false;
	if (star && r->star == NULL) {
		r->star = calloc(r->cap, sizeof(*r->star));
		if (r->star == NULL)
			return false;
	}
	uint8_t *p = reserve(r, len);
	if (p == NULL)
		return false;
	struct core_update *copy = &r->u[r->count];
	copy->key = put_bytes(&p, u->key);
	copy->val = put_bytes(&p, u->val);
	copy->time = u->time;
	copy->diff = u->diff;
	if (r->star != NULL)
		r->star[r->count] = star;
	r->settled = false;
	r->chunks->used += len;
	r->bytes += sizeof(*copy) + len;
	r->count++;
	return true;
}

/* --- sorting ---------------------------------------------------------------------------------------- */

static bool is_star(const struct core_rows *r, size_t i)
{
	return r->star != NULL && r->star[i];
}

static int cmp(const struct core_rows *r, size_t i, size_t j)
{
	int order = core_update_cmp(&r->u[i], &r->u[j]);

	return order != 0 ? order : (int)is_star(r, i) - (int)is_star(r, j);
}

static bool in_order(const struct core_rows *r, struct core_pace *pace)
{
	for (size_t i = 1; i < r->count; i++) {
		if (i % GIVE_WAY_ROWS == 0)
			core_give_way(pace);
		if (cmp(r, i - 1, i) > 0)
			return false;
	}
	return true;
}

/* Bytes that all keys begin with; 0 if one is absent. */
static size_t shared_prefix(const struct core_rows *r)
{
	struct core_bytes first = r->u[0].key;
	size_t shared = first.len == CORE_ABSENT ? 0 : first.len;

	for (size_t i = 1; i < r->count && shared > 0; i++) {
		struct core_bytes key = r->u[i].key;
		size_t n = 0;

		if (key.len == CORE_ABSENT)
			return 0;
		if (key.len >= shared && memcmp(key.data, first.data, shared) == 0)
			continue;
		while (n < key.len && n < shared && key.data[n] == first.data[n])
			n++;
		shared = n;
	}
	return shared;
}

static uint64_t prefix(struct core_bytes key, size_t skip)
{
	uint64_t word = 0;

	if (key.len == CORE_ABSENT || key.len <= skip)
		return 0;
	size_t len = key.len - skip;
	if (len >= sizeof(word)) {
		memcpy(&word, key.data + skip, sizeof(word));
		return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(word) : word;
	}
	for (size_t i = 0; i < len; i++)
		word |= (uint64_t)key.data[skip + i] << (56 - 8 * i);
	return word;
}

static bool above(const struct core_rows *r, const struct order *a, const struct order *b)
{
	if (a->prefix != b->prefix)
		return a->prefix > b->prefix;
	return cmp(r, a->row, b->row) > 0;
}

static void sort_few(const struct core_rows *r, struct order *o, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct order moving = o[i];
		size_t at = i;

		for (; at > 0 && above(r, &o[at - 1], &moving); at--)
			o[at] = o[at - 1];
		o[at] = moving;
	}
}

/* Merge the sorted [0, mid) and [mid, count) of o; spare has room for the first of them. */
static void merge(const struct core_rows *r, struct order *o, size_t mid, size_t count, struct order *spare)
{
	size_t left = 0, right = mid, at = 0;

	if (!above(r, &o[mid - 1], &o[mid]))
		return;
	memcpy(spare, o, mid * sizeof(*o));
	while (left < mid && right < count)
		o[at++] = above(r, &spare[left], &o[right]) ? o[right++] : spare[left++];
	memcpy(o + at, spare + left, (mid - left) * sizeof(*o));
}

static void merge_sort(const struct core_rows *r, struct order *o, size_t count, struct order *spare)
{
	size_t step = INSERTION_MAX;

	for (size_t at = 0; at < count; at += step)
		sort_few(r, o + at, count - at < step ? count - at : step);
	for (; step < count; step *= 2) {
		for (size_t at = 0; at + step < count; at += 2 * step) {
			size_t n = count - at < 2 * step ? count - at : 2 * step;

			merge(r, o + at, step, n, spare);
		}
	}
}

/* Put row o[i].row in place i, for all i; o is used up. */
static void arrange(struct core_rows *r, struct order *o)
{
	for (size_t i = 0; i < r->count; i++) {
		size_t at = i;

		if (o[i].row == i)
			continue;
		struct core_update u = r->u[i];
		bool star = is_star(r, i);
		while (o[at].row != i) {
			size_t from = o[at].row;

			r->u[at] = r->u[from];
			if (r->star != NULL)
				r->star[at] = r->star[from];
			o[at].row = at;
			at = from;
		}
		r->u[at] = u;
		if (r->star != NULL)
			r->star[at] = star;
		o[at].row = at;
	}
}

static bool sort(struct core_rows *r)
{
	/* A merge copies its left part away: the greatest step below count, at most count elements. */
	struct order *o = malloc(2 * r->count * sizeof(*o));

	if (o == NULL)
		return false;
	size_t skip = shared_prefix(r);
	for (size_t i = 0; i < r->count; i++)
		o[i] = (struct order){.prefix = prefix(r->u[i].key, skip), .row = i};
	merge_sort(r, o, r->count, o + r->count);
	arrange(r, o);
	free(o);
	return true;
}

/* --- consolidating ---------------------------------------------------------------------------------- */

int64_t core_sum_take(__int128 *sum)
{
	__int128 take = *sum;

	if (take > INT64_MAX)
		take = INT64_MAX;
	if (take < INT64_MIN)
		take = INT64_MIN;
	*sum -= take;
	return (int64_t)take;
}

static void consolidate(struct core_rows *r, struct core_pace *pace)
{
	size_t kept = 0, looked = 0;

	for (size_t i = 0; i < r->count;) {
		if (++looked % GIVE_WAY_ROWS == 0)
			core_give_way(pace);

		struct core_update u = r->u[i];
		bool star = is_star(r, i);
		__int128 sum = 0;
		size_t from = i;

		for (; i < r->count && cmp(r, from, i) == 0; i++)
			sum += r->u[i].diff;
		/* As many rows as were summed, at most: places below i. */
		while (sum != 0) {
			u.diff = core_sum_take(&sum);
			r->u[kept] = u;
			if (r->star != NULL)
				r->star[kept] = star;
			kept++;
		}
		assert(kept <= i);
	}
	r->count = kept;
}

bool core_rows_settle(struct core_rows *r, struct core_pace *pace)
{
	if (r->count == 0 || r->settled)
		return true;
	if (!in_order(r, pace) && !sort(r))
		return false;
	consolidate(r, pace);
	r->settled = true;
	return true;
}
