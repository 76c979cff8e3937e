/*
 * model.c - see model.h.
 */
#include "tests/core/model.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed;

void model_seed_init(void)
{
	const char *given = getenv("SEED");

	if (given != NULL) {
		seed = strtoull(given, NULL, 10);
	} else {
		struct timespec now;

		clock_gettime(CLOCK_REALTIME, &now);
		seed = ((uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000) ^ (uint64_t)getpid()
												 << 40;
	}
	printf("SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
}

struct rng rng_new(uint64_t salt)
{
	return (struct rng){.state = seed ^ (salt * 0x9e3779b97f4a7c15u)};
}

uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t limit)
{
	return rng_next(r) % limit;
}

static struct core_bytes copy_bytes(struct core_bytes b)
{
	if (b.len == CORE_ABSENT)
		return b;
	uint8_t *data = malloc(b.len + 1u);
	if (b.len > 0)
		memcpy(data, b.data, b.len);
	return (struct core_bytes){.data = data, .len = b.len};
}

static void free_bytes(struct core_bytes b)
{
	if (b.len != CORE_ABSENT)
		free((void *)(uintptr_t)b.data);
}

void model_add(struct model *m, const struct core_update *u, bool star)
{
	if (m->count == m->cap) {
		m->cap = m->cap == 0 ? 64 : 2 * m->cap;
		m->u = realloc(m->u, m->cap * sizeof(*m->u));
		m->star = realloc(m->star, m->cap * sizeof(*m->star));
		ck_assert(m->u != NULL && m->star != NULL);
	}
	m->u[m->count] = (struct core_update){
		.key = copy_bytes(u->key), .val = copy_bytes(u->val), .time = u->time, .diff = u->diff};
	m->star[m->count++] = star;
}

struct starred {
	struct core_update u;
	bool star;
};

static int starred_cmp(const void *a, const void *b)
{
	const struct starred *x = a;
	const struct starred *y = b;
	int order = core_update_cmp(&x->u, &y->u);

	return order != 0 ? order : (int)x->star - (int)y->star;
}

void model_settle(struct model *m)
{
	struct starred *s = calloc(m->count + 1, sizeof(*s));
	struct model out = {0};

	for (size_t i = 0; i < m->count; i++)
		s[i] = (struct starred){.u = m->u[i], .star = m->star[i]};
	qsort(s, m->count, sizeof(*s), starred_cmp);
	for (size_t i = 0; i < m->count;) {
		struct core_update u = s[i].u;
		__int128 sum = 0;
		size_t first = i;

		while (i < m->count && starred_cmp(&s[first], &s[i]) == 0)
			sum += s[i++].u.diff;
		while (sum != 0) {
			__int128 part = sum > INT64_MAX ? INT64_MAX : sum < INT64_MIN ? INT64_MIN : sum;

			u.diff = (int64_t)part;
			sum -= part;
			model_add(&out, &u, s[first].star);
		}
	}
	free(s);
	model_free(m);
	*m = out;
}

void model_free(struct model *m)
{
	for (size_t i = 0; i < m->count; i++) {
		free_bytes(m->u[i].key);
		free_bytes(m->u[i].val);
	}
	free(m->u);
	free(m->star);
	*m = (struct model){0};
}

void model_same(const struct model *got, const struct model *want)
{
	for (size_t i = 0; i < got->count && i < want->count; i++) {
		ck_assert_msg(
			core_update_cmp(&got->u[i], &want->u[i]) == 0 && got->u[i].diff == want->u[i].diff,
			"row %zu of %zu/%zu differs: time %" PRIu64 "/%" PRIu64 " diff %" PRId64 "/%" PRId64,
			i, got->count, want->count, got->u[i].time, want->u[i].time, got->u[i].diff,
			want->u[i].diff);
	}
	ck_assert_uint_eq(got->count, want->count);
}

struct core_bytes bytes_of(const char *text)
{
	if (text == NULL)
		return (struct core_bytes){.len = CORE_ABSENT};
	return (struct core_bytes){.data = (const uint8_t *)text, .len = (uint32_t)strlen(text)};
}

static struct core_bytes random_bytes(struct rng *r, bool wide, uint8_t *buf)
{
	static const uint8_t few[] = {'a', 0, '\\', '\t'};
	uint32_t len = (uint32_t)rng_below(r, wide ? 250 : 3);

	if (rng_below(r, 8) == 0)
		return (struct core_bytes){.len = CORE_ABSENT};
	for (uint32_t i = 0; i < len; i++)
		buf[i] = wide && i % 7 != 0 ? (uint8_t)rng_next(r) : few[rng_below(r, sizeof(few))];
	return (struct core_bytes){.data = buf, .len = len};
}

struct core_update random_update(struct rng *r, bool wide, uint8_t buf[512])
{
	struct core_update u = {.key = random_bytes(r, wide, buf), .val = random_bytes(r, wide, buf + 256)};

	u.time = rng_below(r, 4) == 0 ? rng_below(r, 1000) : rng_below(r, 12);
	if (wide && rng_below(r, 10) == 0)
		u.time = rng_next(r);
	u.diff = (int64_t)rng_below(r, 7) - 3;
	if (wide && rng_below(r, 10) == 0)
		u.diff = (int64_t)rng_next(r);
	return u;
}

struct world world_new(void)
{
	struct world w = {.faults = kv_faults_new()};

	w.home.blobs = kv_blob_fault_new(kv_blob_mem_new(), w.faults);
	w.home.shard.u = core_uuid_new();
	w.home.instance.u = core_uuid_new();
	ck_assert(w.home.blobs != NULL);
	return w;
}

void world_free(struct world *w)
{
	kv_blobs_close(w->home.blobs);
	kv_faults_free(w->faults);
}

void world_heal(struct world *w)
{
	kv_faults_arm(w->faults, 1, KV_FAULT_NONE, false);
}

size_t world_blobs(struct world *w)
{
	struct kv_blob_list list;
	struct kv_err err;

	ck_ok(kv_blob_list(w->home.blobs, "", "", 1000000, &list, &err), err);
	size_t count = list.count;
	kv_blob_list_free(&list);
	return count;
}

enum kv_rc part_rows(const struct core_home *home, const struct core_part *part, struct model *out,
		     struct kv_err *err)
{
	struct core_part_reader *r;
	struct core_update u;
	bool end = false;

	enum kv_rc rc = core_part_open(home, part, &r, err);
	while (rc == KV_OK) {
		rc = core_part_next(r, &u, &end, err);
		if (rc != KV_OK || end)
			break;
		model_add(out, &u, false);
	}
	core_part_close(r);
	return rc;
}

void batch_rows(const struct core_home *home, const struct core_batch *batch, struct model *out)
{
	struct kv_err err;

	for (size_t i = 0; i < batch->part_count; i++)
		ck_ok(part_rows(home, &batch->parts[i], out, &err), err);
}

struct model model_random(struct rng *r, size_t count, bool wide, bool stars)
{
	struct model m = {0};
	uint8_t buf[512];

	for (size_t i = 0; i < count; i++) {
		struct core_update u = random_update(r, wide, buf);
		bool star = stars && rng_below(r, 3) == 0;

		if (star)
			u.time = 0;
		model_add(&m, &u, star);
	}
	return m;
}

struct core_builder *builder_of(struct world *w, struct core_builder_config config)
{
	struct core_builder *b;
	struct kv_err err;

	ck_ok(core_builder_new(&w->home, config, &b, &err), err);
	return b;
}

struct model settled_of(const struct model *m)
{
	struct model settled = {0};

	for (size_t i = 0; i < m->count; i++)
		model_add(&settled, &m->u[i], false);
	model_settle(&settled);
	return settled;
}

void check_and_drop(struct world *w, struct core_batch *batch, const struct model *settled)
{
	struct model got = {0};

	batch_rows(&w->home, batch, &got);
	model_settle(&got);
	model_same(&got, settled);
	model_free(&got);
	core_batch_delete_blobs(&w->home, batch);
	core_batch_unref(batch);
}
