/*
 * states.c - see states.h.
 */
#include "tests/core/states.h"

const struct core_shard_id states_shard = {.u.b = {7}};

struct core_uuid random_uuid(struct rng *r)
{
	struct core_uuid u;
	uint64_t a = rng_next(r), b = rng_next(r);

	memcpy(u.b, &a, 8);
	memcpy(u.b + 8, &b, 8);
	return u;
}

static struct core_frontier random_frontier(struct rng *r, uint64_t limit)
{
	return rng_below(r, 8) == 0 ? core_frontier_empty() : core_frontier_at(rng_below(r, limit));
}

struct core_batch *random_batch(struct rng *r, struct core_frontier lower, struct core_frontier upper)
{
	struct core_batch *b = core_batch_new(lower, upper);

	for (uint64_t i = rng_below(r, 4); i > 0; i--) {
		struct core_part part = {.id.u = random_uuid(r),
					 .instance.u = random_uuid(r),
					 .size = 1 + rng_below(r, 40),
					 .rows = 1 + rng_below(r, 100),
					 .text_base = rng_next(r),
					 .time_digits = rng_below(r, 1000),
					 .min_time = rng_next(r),
					 .max_time = rng_next(r),
					 .diffs_sum = rng_next(r),
					 .checksum = rng_next(r)};

		part.stars = rng_below(r, part.rows + 1);
		part.rewrite_ts = rng_below(r, 2) * rng_next(r);
		if (rng_below(r, 2) == 0)
			part.inline_data = calloc(1, part.size);
		ck_assert(core_batch_push(b, &part, rng_below(r, 2) == 0));
	}
	b->committed_ms = rng_next(r) | 1;
	return b;
}

static void random_key(struct rng *r, struct core_rollup *rollup)
{
	char shard[CORE_ID_LEN], instance[CORE_ID_LEN];

	snprintf(rollup->key, sizeof(rollup->key), "%s/v%llu/%s", core_uuid_format('s', states_shard.u, shard),
		 (unsigned long long)rollup->seqno, core_uuid_format('n', random_uuid(r), instance));
}

static struct core_done random_done(struct rng *r)
{
	struct core_done done = {.token.u = random_uuid(r),
				 .rows = rng_next(r),
				 .batch_rows = rng_next(r),
				 .seqno = rng_next(r)};

	memcpy(done.asked.b, &done.token, 16);
	done.lower = random_frontier(r, 100);
	done.upper = random_frontier(r, 100);
	return done;
}

struct core_uuid staged_id(uint8_t n)
{
	return (struct core_uuid){.b = {0x5a, n}};
}

struct core_uuid writer_id(uint8_t n)
{
	return (struct core_uuid){.b = {0x33, n, [CORE_WRITER_TAG] = 1}};
}

struct core_uuid lease_id(uint8_t n)
{
	return (struct core_uuid){.b = {0x1e, n}};
}

struct core_staged random_staged(struct rng *r, uint8_t id, const char *name)
{
	struct core_staged staged = {.id = staged_id(id),
				     .manifest = random_uuid(r),
				     .instance.u = random_uuid(r),
				     .manifest_bytes = rng_below(r, 2) * rng_next(r),
				     .rows = rng_next(r),
				     .size = rng_next(r),
				     .has_bounds = rng_below(r, 2) == 0,
				     .unfinished = rng_below(r, 2) == 0,
				     .lost = rng_below(r, 2) == 0,
				     .changed_ms = rng_next(r)};

	snprintf(staged.name, sizeof(staged.name), "%s", name);
	if (staged.has_bounds) {
		staged.lower = random_frontier(r, 100);
		staged.upper = random_frontier(r, 100);
	}
	return staged;
}

struct core_writer_state random_writer(struct rng *r, uint8_t id)
{
	struct core_writer_state w = {.id = writer_id(id),
				      .lease_ms = rng_below(r, 2) == 0 ? UINT64_MAX : rng_next(r) >> 20,
				      .heartbeat_ms = rng_next(r) >> 20,
				      .last_upper = random_frontier(r, 100)};

	if (rng_below(r, 4) != 0) { /* neither has to be known */
		snprintf(w.host, sizeof(w.host), "host%d", (int)id);
		snprintf(w.purpose, sizeof(w.purpose), "shardfs /mnt/%d", (int)id);
	}
	return w;
}

struct core_lease random_lease(struct rng *r, uint8_t id)
{
	struct core_lease lease = {.id = lease_id(id),
				   .lease_ms = rng_below(r, 2) == 0 ? UINT64_MAX : rng_next(r) >> 20,
				   .heartbeat_ms = rng_next(r) >> 20,
				   .since = random_frontier(r, 100),
				   .seqno = rng_next(r)};

	if (rng_below(r, 4) != 0) { /* neither has to be known */
		snprintf(lease.host, sizeof(lease.host), "host%d", (int)id);
		snprintf(lease.purpose, sizeof(lease.purpose), "shardfs /mnt/%d", (int)id);
	}
	return lease;
}

/* Of a writer that may be known, or of none. */
static struct core_uuid random_attempt(struct rng *r)
{
	struct core_uuid attempt = random_uuid(r);

	if (rng_below(r, 2) == 0)
		memcpy(attempt.b, writer_id((uint8_t)rng_below(r, 6)).b, CORE_WRITER_TAG);
	return attempt;
}

static void add_writers(struct rng *r, struct core_diff *d)
{
	d->has_writer = rng_below(r, 2) == 0;
	if (d->has_writer)
		d->writer = random_writer(r, (uint8_t)rng_below(r, 6));
	d->expires_writer = rng_below(r, 5) == 0;
	if (d->expires_writer)
		d->expired_writer = writer_id((uint8_t)rng_below(r, 6));
}

static void add_leases(struct rng *r, struct core_diff *d)
{
	d->has_lease = rng_below(r, 2) == 0;
	if (d->has_lease)
		d->lease = random_lease(r, (uint8_t)rng_below(r, 6));
	d->ends_lease = rng_below(r, 5) == 0;
	if (d->ends_lease)
		d->ended_lease = lease_id((uint8_t)rng_below(r, 6));
}

/* A sound state at version 1000 whose batches end at 10, 20, ...; with a staged batch s<i> of id i for each.
 */
struct core_state random_state(struct rng *r, size_t batches)
{
	struct core_state s;
	struct kv_err err;

	ck_ok(core_state_init(&s, 1000, 5, (struct core_owner){1, 2, 0644}, &err), err);
	s.first_seqno = 1 + rng_below(r, 1000);
	for (size_t i = 0; i < batches; i++) {
		struct core_frontier lower = core_frontier_at(10 * i), upper = core_frontier_at(10 * i + 10);
		struct core_batch *b = random_batch(r, lower, upper);
		struct core_staged staged;
		struct core_diff d;
		char name[32];

		core_diff_init(&d);
		d.seqno = s.seqno + 1;
		d.has_upper = true;
		d.upper = upper;
		d.walltime_ms = rng_next(r) >> 20;
		d.attempt = random_attempt(r);
		ck_ok(core_diff_splice(&d, lower, lower, &b, 1, &err), err);
		d.has_token = rng_below(r, 2) == 0;
		d.token = random_done(r);
		d.has_rollup = rng_below(r, 4) == 0;
		d.rollup.seqno = s.seqno;
		random_key(r, &d.rollup);
		for (uint64_t h = rng_below(r, 3); h > 0; h--) {
			struct core_hold hold = {.since = random_frontier(r, 100),
						 .token = rng_next(r),
						 .follow = rng_below(r, 9)};

			snprintf(hold.name, sizeof(hold.name), "h%d", (int)rng_below(r, 12));
			ck_ok(core_diff_hold(&d, &hold, &err), err);
		}
		snprintf(name, sizeof(name), "s%zu", i);
		staged = random_staged(r, (uint8_t)i, name);
		ck_ok(core_diff_staged(&d, &staged, &err), err);
		add_writers(r, &d);
		add_leases(r, &d);
		ck_ok(core_state_apply(&s, &d, &err), err);
		core_diff_fini(&d);
	}
	ck_ok(core_state_check(&s, &err), err);
	return s;
}

/* Staged batches come, change, swap their names and go, each one of random_state(.., batches) once at most.
 */
static void add_staged(struct rng *r, size_t batches, struct core_diff *d)
{
	for (size_t i = 0; i < batches; i++) {
		struct core_staged staged;
		struct kv_err err;
		char name[32];
		uint64_t what = rng_below(r, 5);

		if (what == 0)
			ck_ok(core_diff_staged_removed(d, staged_id((uint8_t)i), &err), err);
		if (what > 2)
			continue;
		if (what == 2 && i + 1 < batches) {
			snprintf(name, sizeof(name), "s%zu", i + 1);
			staged = random_staged(r, (uint8_t)i, name);
			ck_ok(core_diff_staged(d, &staged, &err), err);
			snprintf(name, sizeof(name), "s%zu", i++);
			staged = random_staged(r, (uint8_t)i, name);
		} else { /* beside the one that may have gone, or in its place */
			snprintf(name, sizeof(name), "%c%zu", what == 0 ? 's' : 'n', i);
			staged = random_staged(r, (uint8_t)(what == 0 ? 100 + i : i), name);
		}
		ck_ok(core_diff_staged(d, &staged, &err), err);
	}
}

/* Any diff that the codec takes and that fits a state of version 1000 + batches. In place, as it holds
 * pointers into itself. */
void random_diff(struct rng *r, size_t batches, struct core_diff *d)
{
	struct kv_err err;

	core_diff_init(d);
	d->seqno = 1000 + batches + 1;
	d->walltime_ms = rng_next(r) >> 20;
	d->attempt = random_attempt(r);
	d->newest_rollup.seqno = rng_next(r);
	random_key(r, &d->newest_rollup);
	d->has_since = rng_below(r, 2) == 0;
	d->since = random_frontier(r, 100);
	d->has_owner = rng_below(r, 2) == 0;
	d->owner = (struct core_owner){(uint32_t)rng_next(r), (uint32_t)rng_next(r),
				       (uint32_t)rng_below(r, 07777)};
	d->has_token = rng_below(r, 2) == 0;
	d->token = random_done(r);
	d->has_rollup = rng_below(r, 2) == 0;
	d->rollup.seqno = rng_next(r);
	random_key(r, &d->rollup);
	d->tombstone = rng_below(r, 9) == 0;
	add_staged(r, batches, d);
	add_writers(r, d);
	add_leases(r, d);
	for (uint64_t i = rng_below(r, 7); i > 0; i--) {
		struct core_hold hold = {.since = random_frontier(r, 100)};

		snprintf(hold.name, sizeof(hold.name), "h%d", (int)rng_below(r, 12));
		ck_ok(core_diff_hold(d, &hold, &err), err);
	}
	d->removed_count = rng_below(r, 3);
	d->holds_removed = calloc(d->removed_count + 1, sizeof(*d->holds_removed));
	for (size_t i = 0; i < d->removed_count; i++)
		snprintf(d->holds_removed[i], CORE_HOLD_NAME_LEN, "h%d", (int)rng_below(r, 12));
	if (batches > 0 && rng_below(r, 2) == 0) {
		size_t first = rng_below(r, batches), end = first + 1 + rng_below(r, batches - first);
		struct core_frontier lower = core_frontier_at(10 * first), upper = core_frontier_at(10 * end);
		struct core_batch *b = random_batch(r, lower, upper);

		ck_ok(core_diff_splice(d, lower, upper, &b, 1, &err), err);
	}
	if (rng_below(r, 2) == 0) {
		struct core_frontier at = core_frontier_at(10 * batches),
				     upper = core_frontier_at(10 * batches + 7);
		struct core_batch *b = random_batch(r, at, upper);

		ck_ok(core_diff_splice(d, at, at, &b, 1, &err), err);
		d->has_upper = true;
		d->upper = upper;
	}
}

struct core_buf state_bytes(const struct core_state *s)
{
	struct core_buf b;
	struct kv_err err;

	ck_ok(core_state_encode(states_shard, s, &b, &err), err);
	return b;
}

struct core_buf diff_bytes(const struct core_diff *d)
{
	struct core_buf b;
	struct kv_err err;

	ck_ok(core_diff_encode(states_shard, d, &b, &err), err);
	return b;
}

void same_bytes(struct core_buf a, struct core_buf b)
{
	ck_assert_uint_eq(a.len, b.len);
	ck_assert_mem_eq(a.data, b.data, a.len);
}
