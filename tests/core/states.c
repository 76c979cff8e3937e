/*
 * states.c - see states.h.
 */
#include "tests/core/states.h"

const struct core_shard_id states_shard = {.u.b = {7}};

static struct core_uuid random_uuid(struct rng *r)
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
	struct core_done done = {.token.u = random_uuid(r), .rows = rng_next(r), .seqno = rng_next(r)};

	memcpy(done.asked.b, &done.token, 16);
	done.lower = random_frontier(r, 100);
	done.upper = random_frontier(r, 100);
	return done;
}

/* A sound state at version 1000 whose batches end at 10, 20, ... */
struct core_state random_state(struct rng *r, size_t batches)
{
	struct core_state s;
	struct kv_err err;

	ck_ok(core_state_init(&s, 1000, 5, (struct core_owner){1, 2, 0644}, &err), err);
	s.first_seqno = 1 + rng_below(r, 1000);
	for (size_t i = 0; i < batches; i++) {
		struct core_frontier lower = core_frontier_at(10 * i), upper = core_frontier_at(10 * i + 10);
		struct core_batch *b = random_batch(r, lower, upper);
		struct core_diff d;

		core_diff_init(&d);
		d.seqno = s.seqno + 1;
		d.has_upper = true;
		d.upper = upper;
		d.walltime_ms = rng_next(r) >> 20;
		d.attempt = random_uuid(r);
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
		ck_ok(core_state_apply(&s, &d, &err), err);
		core_diff_fini(&d);
	}
	ck_ok(core_state_check(&s, &err), err);
	return s;
}

/* Any diff that the codec takes and that fits a state of version 1000 + batches. In place, as it holds
 * pointers into itself. */
void random_diff(struct rng *r, size_t batches, struct core_diff *d)
{
	struct kv_err err;

	core_diff_init(d);
	d->seqno = 1000 + batches + 1;
	d->walltime_ms = rng_next(r) >> 20;
	d->attempt = random_uuid(r);
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
