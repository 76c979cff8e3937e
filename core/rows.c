/*
 * rows.c - a heap of updates and their sorting.
 *
 * Keys and vals are copied to chunks, which double from CHUNK_MIN to CHUNK_MAX,
 * so that one row takes little and pointers into them stay.
 *
 * Sorting orders pairs (prefix, row number): the prefix is the eight key bytes
 * behind the longest prefix that all keys share, as a big-endian number. Many are
 * ordered by it digit by digit, few by merging, so that most of them touch no row at
 * all; those with one prefix are then merged by what the rows say. At last the rows
 * are copied to their places and summed on the way, which follows no pointer of a row
 * whose prefix is its own. Rows that came in order, as those of a merge do, are only
 * looked through.
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
enum { DIGITS = 8, DIGIT_VALUES = 256, DIGITS_WORTH = 512 /* fewer rows are merged */ };
enum { AHEAD = 16 }; /* so many rows ahead memory is asked for */

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

static unsigned digit(uint64_t prefix, unsigned k)
{
	return (unsigned)(prefix >> (8 * k)) & (DIGIT_VALUES - 1);
}

/* Order by prefix, least digit first, those with one prefix left as they came. Gives what of o and spare,
 * both as long, has the result. */
static struct order *sort_digits(struct order *o, size_t count, struct order *spare)
{
	uint32_t counts[DIGITS][DIGIT_VALUES] = {0};
	const uint64_t any = o[0].prefix;

	for (size_t i = 0; i < count; i++)
		for (unsigned k = 0; k < DIGITS; k++)
			counts[k][digit(o[i].prefix, k)]++;
	for (unsigned k = 0; k < DIGITS; k++) {
		uint32_t *at = counts[k], sum = 0;
		struct order *from = o;

		if (at[digit(any, k)] == count)
			continue; /* all have the same */
		for (unsigned v = 0; v < DIGIT_VALUES; v++) {
			uint32_t n = at[v];

			at[v] = sum;
			sum += n;
		}
		for (size_t i = 0; i < count; i++)
			spare[at[digit(from[i].prefix, k)]++] = from[i];
		o = spare;
		spare = from;
	}
	return o;
}

/* Merge each stretch of one prefix. */
static void sort_equals(const struct core_rows *r, struct order *o, struct order *spare)
{
	for (size_t i = 0, from; i < r->count;) {
		for (from = i++; i < r->count && o[i].prefix == o[from].prefix; i++)
			;
		if (i - from > 1)
			merge_sort(r, o + from, i - from, spare);
	}
}

/* Have o tell the order of the rows; spare is as long. */
static void sort(const struct core_rows *r, struct order *o, struct order *spare)
{
	size_t skip = shared_prefix(r);
	struct order *sorted;

	for (size_t i = 0; i < r->count; i++)
		o[i] = (struct order){.prefix = prefix(r->u[i].key, skip), .row = i};
	if (r->count < DIGITS_WORTH || r->count > UINT32_MAX) {
		merge_sort(r, o, r->count, spare);
		return;
	}
	sorted = sort_digits(o, r->count, spare);
	if (sorted != o)
		memcpy(o, sorted, r->count * sizeof(*o));
	sort_equals(r, o, spare);
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

/* The row that comes i-th; o is NULL where they stand in order. */
static size_t row_at(const struct order *o, size_t i)
{
	return o == NULL ? i : o[i].row;
}

static bool same(const struct core_rows *r, const struct order *o, size_t i, size_t j)
{
	if (o != NULL && o[i].prefix != o[j].prefix)
		return false;
	return cmp(r, row_at(o, i), row_at(o, j)) == 0;
}

/* Sum what is the same, to u and star, which have room for all rows; they may be those of r if o is NULL.
 * Gives the number of what is left. */
static size_t consolidate(const struct core_rows *r, const struct order *o, struct core_update *u, bool *star,
			  struct core_pace *pace)
{
	size_t kept = 0, looked = 0;

	for (size_t i = 0; i < r->count;) {
		if (++looked % GIVE_WAY_ROWS == 0)
			core_give_way(pace);
		if (i + AHEAD < r->count) /* the rows of an order lie anywhere */
			__builtin_prefetch(&r->u[row_at(o, i + AHEAD)]);
		struct core_update row = r->u[row_at(o, i)];
		bool starred = is_star(r, row_at(o, i));
		__int128 sum = row.diff;
		size_t from = i++;

		for (; i < r->count && same(r, o, from, i); i++)
			sum += r->u[row_at(o, i)].diff;
		/* As many rows as were summed, at most: places below i. */
		while (sum != 0) {
			row.diff = core_sum_take(&sum);
			u[kept] = row;
			if (star != NULL)
				star[kept] = starred;
			kept++;
		}
		assert(kept <= i);
	}
	return kept;
}

/* Sort and consolidate, into new arrays. */
static bool rearrange(struct core_rows *r)
{
	_Static_assert(sizeof(*r->u) >= sizeof(struct order), "before the rows, the spare of the sort");
	struct order *o = malloc(r->count * sizeof(*o));
	void *room = malloc(r->cap * sizeof(*r->u));
	bool *star = r->star == NULL ? NULL : malloc(r->cap * sizeof(*star));
	bool done = o != NULL && room != NULL && (r->star == NULL || star != NULL);

	if (done) {
		sort(r, o, room);
		r->count = consolidate(r, o, room, star, NULL);
		free(r->u);
		free(r->star);
		r->u = room;
		r->star = star;
	} else {
		free(room);
		free(star);
	}
	free(o);
	return done;
}

bool core_rows_settle(struct core_rows *r, struct core_pace *pace)
{
	if (r->count == 0 || r->settled)
		return true;
	if (in_order(r, pace))
		r->count = consolidate(r, NULL, r->u, r->star, pace);
	else if (!rearrange(r))
		return false;
	r->settled = true;
	return true;
}
