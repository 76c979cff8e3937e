/*
 * builder.c - updates in any order become parts, in bounded memory.
 *
 * Updates gather in one heap of rows. A heap that reaches the target goes to a
 * helper thread, started by the first such heap, which settles and encodes it,
 * while the next one gathers; one that is full too early is settled meanwhile. What
 * is encoded is stored by a thread of its own, which mostly waits for the device.
 * The heap that is left at the end is placed by the caller's thread, as far as that
 * can be beside the helper; a small transaction so knows no thread.
 *
 * 1. At most three heaps exist: one gathering, one waiting, one at the helper, the
 *    spare being one of them: a new heap is made only where there is no spare, and
 *    only one is kept. Beside them at most two parts are encoded at a time, and one
 *    is being stored.
 * 2. Only the placer touches made, last and storer: the helper while it runs; once
 *    it is joined, the builder's thread.
 * 3. A part is in made before its blob is set, so whatever may have been stored
 *    is known by name and can be deleted, KV_UNKNOWN included.
 * 4. A part continues the run iff the last row before it and its first row are
 *    in order by (key, val), or equal in them, in order by time and both parts
 *    without stars. For a star's time is stored as 0, and what it is lifted to
 *    need not lift the part before or behind it; with (key, val) in order no
 *    times matter, whatever parts are rewritten to.
 * 5. After a failure nothing more is encoded by the helper; failed is set last,
 *    under the lock, and never cleared, but by 6.
 * 6. The heap that a full store did not take from a patient builder is stuck. While
 *    there is one nothing moves; the next call of the builder's thread, which then
 *    has no helper, places it and what waits behind it, or fails before it adds.
 *    Its rows are needed until they are stored, so who places them stores them, too.
 */
#include "core/builder.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/pace.h"
#include "core/rows.h"
#include "core/storer.h"

/* Rows and their encoding beyond this could leave KV_VALUE_MAX. */
#define TARGET_MAX ((size_t)32 << 20)

/* The last row of the part before, copied. */
struct last_row {
	struct core_rows row; /* none or one */
	bool part_has_stars;
};

/* A part as it is stored. */
struct encoded {
	struct core_part part;
	uint8_t *data; /* NULL: there is none */
	size_t len;
};

enum { HELPER_NICE = 10 };

struct core_builder {
	pthread_mutex_t lock; /* waiting .. err */
	pthread_cond_t changed;
	struct core_rows waiting;
	bool is_waiting;
	struct core_rows spare; /* an empty heap, for its memory */
	struct core_rows stuck; /* what a full store did not take (invariant 6) */
	bool is_stuck;
	bool stop;
	enum kv_rc rc; /* what the helper failed with */
	struct kv_err err;

	_Atomic(bool) failed;
	_Atomic(bool) unwanted; /* it is being freed */
	bool helper_runs;       /* the rest is the builder's thread's, but for what invariant 2 says */
	pthread_t helper;
	const struct core_home *home;
	struct core_builder_config config;
	struct core_rows rows;
	bool is_large; /* counted in the home */
	uint64_t added;
	struct core_batch *made;
	struct last_row last;
	struct core_storer storer;
};

/* --- placing: a heap of rows becomes a part ---------------------------------------------------------- */

static bool continues_run(const struct last_row *last, const struct core_update *first, bool has_stars)
{
	if (last->row.count == 0)
		return false;
	const struct core_update *before = &last->row.u[0];
	int order = core_update_cmp_row(before, first);
	if (order != 0)
		return order < 0;
	return before->time <= first->time && !last->part_has_stars && !has_stars;
}

static bool remember_last(struct last_row *last, const struct core_rows *rows, bool has_stars)
{
	core_rows_fini(&last->row);
	last->part_has_stars = has_stars;
	return core_rows_add(&last->row, &rows->u[rows->count - 1], false);
}

/* Whether the keys and vals alone leave room below inline_max: if not, encoding is not worth trying. */
static bool may_stay_inline(const struct core_builder *b, const struct core_rows *rows)
{
	size_t bytes = 0;

	for (size_t i = 0; i < rows->count && bytes < b->config.inline_max; i++)
		bytes += core_update_bytes(&rows->u[i]) + 1;
	return !b->config.never_inline && !b->config.loose_tail && bytes < b->config.inline_max;
}

/* Encode settled rows as inline bytes if they are to stay inline; else *data stays NULL. */
static enum kv_rc encode_inline(struct core_builder *b, const struct core_rows *rows, struct core_part *part,
				struct kv_err *err)
{
	uint8_t *data;
	size_t len;

	enum kv_rc rc =
		core_part_encode(b->home, rows->u, rows->star, rows->count, false, part, &data, &len, err);
	if (rc != KV_OK)
		return rc;
	if (len < b->config.inline_max) {
		part->inline_data = data;
	} else {
		free(data);
		*part = (struct core_part){0};
	}
	return KV_OK;
}

static enum kv_rc push(struct core_builder *b, const struct core_rows *rows, bool at_end,
		       struct core_part *part, struct kv_err *err)
{
	bool has_stars = part->stars > 0;
	bool continues = continues_run(&b->last, &rows->u[0], has_stars);

	if (!core_batch_push(b->made, part, !continues) ||
	    (!at_end && !remember_last(&b->last, rows, has_stars))) {
		core_part_fini(part);
		return kv_fail_rc(err, KV_NOMEM);
	}
	return KV_OK;
}

static enum kv_rc encode(struct core_builder *b, const struct core_rows *r, struct encoded *e,
			 struct kv_err *err)
{
	return core_part_encode(b->home, r->u, r->star, r->count, true, &e->part, &e->data, &e->len, err);
}

/* Have a part that is in made stored; data is taken. The end is waited for, as nothing comes after it. Many
 * builders store in their turns, so that they hold little, and few threads. */
static enum kv_rc store(struct core_builder *b, const char *key, uint8_t *data, size_t len, bool at_end,
			struct kv_err *err)
{
	bool is_alone = !core_builders_are_many(b->home->builders);
	enum kv_rc rc;

	if (!at_end && is_alone && !b->config.no_helper && !b->config.patient)
		return core_storer_give(&b->storer, key, data, len, err);
	core_give_way(b->home->pace);
	rc = kv_blob_set(b->home->blobs, key, data, len, err);
	free(data);
	if (b->config.patient && core_builder_keeps(rc)) { /* surely nothing was stored */
		core_batch_pop(b->made);
		core_rows_fini(&b->last.row); /* of the part before nothing is known any more: a new run */
	}
	core_give_way(b->home->pace);
	return rc;
}

/* Make a part of the rows and have it stored, or inline if it is the end; nothing if they cancel out. *e is
 * what of the rows is encoded already. */
static enum kv_rc place_now(struct core_builder *b, struct core_rows *rows, bool at_end, struct encoded *e,
			    struct kv_err *err)
{
	struct core_part part = {0};
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc = KV_OK;

	if (!core_rows_settle(rows, b->home->pace))
		return kv_fail_rc(err, KV_NOMEM);
	if (rows->count == 0)
		return KV_OK;
	/* A batch is inline as a whole or not at all: what was shipped has paid for its blobs already. */
	if (at_end && b->made->part_count == 0 && may_stay_inline(b, rows)) {
		rc = encode_inline(b, rows, &part, err);
		if (rc != KV_OK)
			return rc;
		if (part.inline_data != NULL)
			return push(b, rows, at_end, &part, err);
	}
	if (e->data == NULL)
		rc = encode(b, rows, e, err);
	if (rc != KV_OK)
		return rc;
	if (at_end && (b->made->part_count == 0 || b->config.loose_tail) && e->len <= b->config.loose_max) {
		e->part.inline_data = e->data;
		e->part.loose = true;
		return push(b, rows, at_end, &e->part, err);
	}
	core_part_key(b->home->shard, &e->part, key);
	rc = push(b, rows, at_end, &e->part, err);
	if (rc == KV_OK)
		return store(b, key, e->data, e->len, at_end, err);
	free(e->data);
	return rc;
}

static bool holds_much(const struct core_rows *rows)
{
	return rows->bytes >= CORE_BUILDERS_LEAST;
}

/* The same, where it takes much memory in turn with other builders. ahead is taken, or NULL. */
static enum kv_rc place(struct core_builder *b, struct core_rows *rows, bool at_end,
			const struct encoded *ahead, struct kv_err *err)
{
	struct core_builders *others = holds_much(rows) ? b->home->builders : NULL;
	struct encoded e = ahead != NULL ? *ahead : (struct encoded){0};
	enum kv_rc rc;

	if (!core_builders_enter(others, &b->unwanted)) {
		free(e.data);
		return kv_fail_rc(err, KV_INTERRUPTED);
	}
	rc = place_now(b, rows, at_end, &e, err);
	core_builders_leave(others);
	return rc;
}

/* Rows that were placed: their memory is for those to come, unless many builders hold much. */
static void give_back(struct core_builder *b, struct core_rows *rows)
{
	struct core_rows surplus = *rows;

	*rows = (struct core_rows){0};
	if (!core_builders_are_many(b->home->builders)) {
		struct core_rows kept = surplus;

		core_rows_clear(&kept);
		pthread_mutex_lock(&b->lock);
		surplus = b->spare;
		b->spare = kept;
		pthread_mutex_unlock(&b->lock);
	}
	core_rows_fini(&surplus);
}

/* --- the helper -------------------------------------------------------------------------------------- */

static void *help(void *arg)
{
	struct core_builder *b = arg;

	/* What is large may take longer than what is small. What fails leaves it as it is. */
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), HELPER_NICE);
	pthread_mutex_lock(&b->lock);
	for (;;) {
		while ((!b->is_waiting || b->is_stuck) && !b->stop)
			pthread_cond_wait(&b->changed, &b->lock);
		if (!b->is_waiting || b->is_stuck)
			break;
		struct core_rows rows = b->waiting;
		b->waiting = (struct core_rows){0};
		b->is_waiting = false;
		bool skip = b->rc != KV_OK;
		pthread_cond_signal(&b->changed);
		pthread_mutex_unlock(&b->lock);

		struct kv_err err = {0};
		enum kv_rc rc = skip ? KV_OK : place(b, &rows, false, NULL, &err);
		bool stuck = b->config.patient && core_builder_keeps(rc);
		if (!stuck)
			give_back(b, &rows);

		pthread_mutex_lock(&b->lock);
		if (stuck) {
			b->stuck = rows;
			b->is_stuck = true;
			pthread_cond_signal(&b->changed);
		}
		if (rc != KV_OK && b->rc == KV_OK) {
			b->rc = rc;
			b->err = err;
			atomic_store_explicit(&b->failed, true, memory_order_release);
		}
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* False: no thread is to be had, or wanted. */
static bool start_helper(struct core_builder *b)
{
	sigset_t all, before;

	if (b->helper_runs)
		return true;
	if (b->config.no_helper)
		return false;
	/* Signals are for the threads of the program. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	b->helper_runs = pthread_create(&b->helper, NULL, help, b) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return b->helper_runs;
}

static void join_helper(struct core_builder *b)
{
	if (!b->helper_runs)
		return;
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_signal(&b->changed);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->helper, NULL);
	b->helper_runs = false;
	b->stop = false;
}

static enum kv_rc failure(struct core_builder *b, struct kv_err *err)
{
	pthread_mutex_lock(&b->lock);
	enum kv_rc rc = b->rc;
	if (err != NULL)
		*err = b->err;
	pthread_mutex_unlock(&b->lock);
	return rc;
}

/* Note a failure of the builder's own thread; the first failure is the one reported. */
static enum kv_rc fail_for_good(struct core_builder *b, enum kv_rc rc, const struct kv_err *own,
				struct kv_err *err)
{
	pthread_mutex_lock(&b->lock);
	if (b->rc == KV_OK) {
		b->rc = rc;
		b->err = *own;
	}
	pthread_mutex_unlock(&b->lock);
	atomic_store_explicit(&b->failed, true, memory_order_release);
	return failure(b, err);
}

/* Place what a full store did not take, or fail as before. */
static enum kv_rc place_stuck(struct core_builder *b, struct kv_err *err)
{
	struct kv_err own = {0};
	enum kv_rc rc = failure(b, err);

	if (!b->config.patient || !core_builder_keeps(rc))
		return rc;
	join_helper(b);
	rc = b->is_stuck ? place(b, &b->stuck, false, NULL, &own) : KV_OK;
	if (rc == KV_OK) {
		core_rows_fini(&b->stuck);
		b->is_stuck = false;
		rc = b->is_waiting ? place(b, &b->waiting, false, NULL, &own) : KV_OK;
	}
	if (rc == KV_OK) {
		core_rows_fini(&b->waiting);
		b->is_waiting = false;
	}
	b->rc = rc;
	b->err = own;
	atomic_store_explicit(&b->failed, rc != KV_OK, memory_order_release);
	if (rc != KV_OK && err != NULL)
		*err = own;
	return rc;
}

/* The gathered rows in the builder's own thread. Those that a full store does not take are told of by the
 * next call: this one has added its row. */
static enum kv_rc ship_alone(struct core_builder *b, struct kv_err *err)
{
	struct kv_err own = {0};
	enum kv_rc rc = place(b, &b->rows, false, NULL, &own);

	if (b->config.patient && core_builder_keeps(rc)) {
		(void)!fail_for_good(b, rc, &own, NULL);
		b->stuck = b->rows;
		b->is_stuck = true;
		b->rows = (struct core_rows){0};
		return KV_OK;
	}
	core_rows_clear(&b->rows);
	return rc == KV_OK ? KV_OK : fail_for_good(b, rc, &own, err);
}

/* Hand the gathered rows on; waits while two heaps are outstanding. */
static enum kv_rc ship(struct core_builder *b, struct kv_err *err)
{
	size_t expected = b->rows.count + b->rows.count / 16; /* the next heap will be like this one */

	if (!start_helper(b))
		return ship_alone(b, err);
	pthread_mutex_lock(&b->lock);
	if (b->is_waiting && !b->is_stuck && !core_builders_are_many(b->home->builders)) {
		pthread_mutex_unlock(&b->lock);
		/* Some of the helper's work; without memory for it: there. */
		(void)core_rows_settle(&b->rows, b->home->pace);
		pthread_mutex_lock(&b->lock);
	}
	while (b->is_waiting && !b->is_stuck)
		pthread_cond_wait(&b->changed, &b->lock);
	if (b->is_stuck) { /* the next call tells */
		pthread_mutex_unlock(&b->lock);
		return KV_OK;
	}
	b->waiting = b->rows;
	b->is_waiting = true;
	b->rows = b->spare;
	b->spare = (struct core_rows){0};
	pthread_cond_signal(&b->changed);
	pthread_mutex_unlock(&b->lock);
	core_rows_expect(&b->rows, expected);
	return KV_OK;
}

/* --- the builder's thread ---------------------------------------------------------------------------- */

enum kv_rc core_builder_new(const struct core_home *home, struct core_builder_config config,
			    struct core_builder **out, struct kv_err *err)
{
	struct core_builder *b = calloc(1, sizeof(*b));

	*out = NULL;
	if (b == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	b->made = core_batch_new(core_frontier_at(0), core_frontier_empty());
	if (b->made == NULL) {
		free(b);
		return kv_fail_rc(err, KV_NOMEM);
	}
	if (config.target_bytes == 0)
		config.target_bytes = CORE_PART_TARGET;
	if (config.target_bytes > TARGET_MAX)
		config.target_bytes = TARGET_MAX;
	if (config.inline_max == 0)
		config.inline_max = CORE_INLINE_MAX;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
	core_storer_init(&b->storer, home->blobs);
	b->home = home;
	b->config = config;
	*out = b;
	return KV_OK;
}

enum kv_rc core_builder_add(struct core_builder *b, const struct core_update *u, bool star,
			    struct kv_err *err)
{
	assert(!star || u->time == 0);
	assert(core_update_bytes(u) <= CORE_ROW_MAX);
	enum kv_rc rc = KV_OK;

	if (atomic_load_explicit(&b->failed, memory_order_acquire))
		rc = place_stuck(b, err);
	if (rc != KV_OK)
		return rc;
	b->added++;
	if (u->diff == 0)
		return KV_OK;
	if (!core_rows_add(&b->rows, u, star)) {
		struct kv_err own = {0};

		return fail_for_good(b, kv_fail_rc(&own, KV_NOMEM), &own, err);
	}
	size_t full =
		core_builders_share(b->home->builders, b->config.target_bytes, b->rows.bytes, &b->is_large);
	return b->rows.bytes < full ? KV_OK : ship(b, err);
}

uint64_t core_builder_added(const struct core_builder *b)
{
	return b->added;
}

size_t core_builder_waiting(const struct core_builder *b)
{
	return b->rows.bytes;
}

/* Without memory to settle them: the text before they are consolidated. */
static uint64_t rows_text_len(struct core_rows *rows, struct core_pace *pace)
{
	uint64_t sum = 0;

	(void)core_rows_settle(rows, pace);
	for (size_t i = 0; i < rows->count; i++)
		sum += core_row_text_len(&rows->u[i]);
	return sum;
}

uint64_t core_builder_text_len(struct core_builder *b)
{
	uint64_t sum = rows_text_len(&b->rows, b->home->pace), len;

	join_helper(b);
	for (size_t i = 0; i < b->made->part_count; i++)
		if (core_part_text_len(&b->made->parts[i], core_frontier_at(0), core_frontier_empty(), &len))
			sum += len;
	return sum + rows_text_len(&b->stuck, b->home->pace) + rows_text_len(&b->waiting, b->home->pace);
}

/* What is left, as far as it can be encoded while the helper is still at work. */
static enum kv_rc encode_ahead(struct core_builder *b, struct encoded *e, struct kv_err *err)
{
	enum kv_rc rc;

	if (!core_rows_settle(&b->rows, b->home->pace))
		return kv_fail_rc(err, KV_NOMEM);
	if (!b->helper_runs || !holds_much(&b->rows) || b->rows.count == 0 || may_stay_inline(b, &b->rows))
		return KV_OK;
	if (!core_builders_enter(b->home->builders, &b->unwanted))
		return kv_fail_rc(err, KV_INTERRUPTED);
	rc = encode(b, &b->rows, e, err);
	core_builders_leave(b->home->builders);
	return rc;
}

static void free_rows(struct core_builder *b)
{
	core_rows_fini(&b->rows);
	core_rows_fini(&b->spare);
	core_rows_fini(&b->last.row);
}

enum kv_rc core_builder_finish(struct core_builder *b, struct core_frontier lower, struct core_frontier upper,
			       struct core_batch **out, struct kv_err *err)
{
	struct encoded e = {0};
	struct kv_err own = {0};

	*out = NULL;
	enum kv_rc ahead = encode_ahead(b, &e, &own), rc = KV_OK;
	join_helper(b);
	if (atomic_load_explicit(&b->failed, memory_order_acquire))
		rc = place_stuck(b, err);
	if (rc != KV_OK) {
		free(e.data);
		return rc;
	}
	rc = ahead == KV_OK ? place(b, &b->rows, true, &e, &own) : ahead;
	if (rc == KV_OK)
		rc = core_storer_end(&b->storer, &own);
	if (rc != KV_OK && b->config.patient && core_builder_keeps(rc)) {
		if (err != NULL)
			*err = own;
		return rc;
	}
	if (rc != KV_OK)
		return fail_for_good(b, rc, &own, err);
	struct core_batch *empty = core_batch_new(core_frontier_at(0), core_frontier_empty());
	if (empty == NULL)
		return fail_for_good(b, kv_fail_rc(&own, KV_NOMEM), &own, err);
	*out = b->made;
	(*out)->lower = lower;
	(*out)->upper = upper;
	b->made = empty;
	free_rows(b);
	return KV_OK;
}

void core_builder_free(struct core_builder *b)
{
	if (b == NULL)
		return;
	pthread_mutex_lock(&b->lock);
	if (b->rc == KV_OK)
		b->rc = KV_INTERRUPTED; /* what still waits is not worth storing */
	pthread_mutex_unlock(&b->lock);
	/* The helper must not wait for a turn: a crowd that is killed would hold all threads of its host. */
	atomic_store(&b->unwanted, true);
	if (b->home->builders != NULL && b->helper_runs)
		core_builders_look_again(b->home->builders);
	join_helper(b);
	core_storer_fini(&b->storer);
	if (b->is_large)
		atomic_fetch_sub(&b->home->builders->large, 1);
	core_batch_delete_blobs(b->home, b->made);
	core_batch_unref(b->made);
	free_rows(b);
	core_rows_fini(&b->waiting);
	core_rows_fini(&b->stuck);
	pthread_cond_destroy(&b->changed);
	pthread_mutex_destroy(&b->lock);
	free(b);
}
