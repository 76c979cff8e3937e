/*
 * write.c - the write handle: who writes, the upper, appends of rows; see
 * write.h. Batches that are built ahead are in built.c.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/engine_impl.h"
#include "core/txn.h"
#include "core/write_impl.h"

/* --- the handle ------------------------------------------------------------------------------------ */

static void copy_text(char *to, size_t size, const char *from)
{
	size_t len = from != NULL ? strlen(from) : 0;

	len = len < size ? len : size - 1;
	/* Not in the middle of a UTF-8 character. */
	while (from != NULL && len != 0 && from[len] != '\0' && ((unsigned char)from[len] & 0xc0) == 0x80)
		len--;
	if (len != 0)
		memcpy(to, from, len);
	to[len] = '\0';
}

struct core_writer_state core_writer_describe(struct core_uuid id, const char *host, const char *purpose)
{
	struct core_writer_state w = {.id = id, .lease_ms = CORE_WRITER_LEASE_MS};

	copy_text(w.host, sizeof w.host, host);
	copy_text(w.purpose, sizeof w.purpose, purpose);
	return w;
}

enum kv_rc core_writer_open(struct core_shard *s, const char *purpose, struct core_writer **out,
			    struct kv_err *err)
{
	struct core_writer *w = calloc(1, sizeof *w);
	struct core_info info;
	enum kv_rc rc;

	*out = NULL;
	if (w == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	rc = core_shard_info(s, false, &info, err);
	if (rc != KV_OK) {
		free(w);
		return rc;
	}
	w->shard = core_shard_ref(s);
	w->state = core_writer_describe(core_uuid_new(), s->engine->config.host, purpose);
	w->upper = info.upper;
	*out = w;
	return KV_OK;
}

void core_writer_close(struct core_writer *w)
{
	if (w == NULL)
		return;
	if (!w->shard->engine->traits.read_only && core_expire(w->shard, w->state.id, KV_RIDE, NULL) != KV_OK)
		core_notice(w->shard->engine, "a writer was not struck from a shard; its lease will be");
	core_shard_close(w->shard);
	free(w);
}

struct core_uuid core_writer_id(const struct core_writer *w)
{
	return w->state.id;
}

enum kv_rc core_writer_expire(struct core_writer *w, struct kv_err *err)
{
	return core_expire(w->shard, w->state.id, KV_SYNC, err);
}

/* --- the upper ------------------------------------------------------------------------------------- */

static void met(struct core_writer *w, struct core_frontier upper)
{
	w->upper = core_frontier_max(w->upper, upper);
}

struct core_frontier core_writer_upper(const struct core_writer *w)
{
	return w->upper;
}

static enum kv_rc ask_upper(struct core_writer *w, bool recent, struct core_frontier *out, struct kv_err *err)
{
	struct core_info info;
	enum kv_rc rc = core_shard_info(w->shard, recent, &info, err);

	if (rc != KV_OK)
		return rc;
	*out = info.upper;
	if (recent)
		met(w, info.upper);
	return KV_OK;
}

enum kv_rc core_writer_shared_upper(struct core_writer *w, struct core_frontier *out, struct kv_err *err)
{
	return ask_upper(w, false, out, err);
}

enum kv_rc core_writer_fetch_recent_upper(struct core_writer *w, struct core_frontier *out,
					  struct kv_err *err)
{
	return ask_upper(w, true, out, err);
}

/* A thread that waits for the upper. */
struct sleeper {
	struct core_waiter waiter; /* first: woken() is handed it */
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool woken;
};

static void woken(struct core_waiter *waiter)
{
	struct sleeper *s = (struct sleeper *)waiter;

	pthread_mutex_lock(&s->mu);
	s->woken = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->mu);
}

/* How long to sleep before consensus is asked, where others may write. */
enum { POLL_MS = 250 };

static struct timespec after_ms(struct timespec t, int64_t ms)
{
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

/* Sleep until woken or `until` (NULL: for ever). False: the time was over. */
static bool sleep_until(struct sleeper *s, const struct timespec *until)
{
	int rc = 0;
	bool is_woken;

	pthread_mutex_lock(&s->mu);
	while (!s->woken && rc == 0)
		rc = until != NULL ? pthread_cond_timedwait(&s->cond, &s->mu, until)
				   : pthread_cond_wait(&s->cond, &s->mu);
	is_woken = s->woken;
	pthread_mutex_unlock(&s->mu);
	return is_woken;
}

static int64_t left_ms(struct timespec deadline)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)(deadline.tv_sec - now.tv_sec) * 1000 + (deadline.tv_nsec - now.tv_nsec) / 1000000;
}

/* One sleep: until the shard wakes us, the deadline, or it is time to ask consensus. */
static void sleep_once(struct core_writer *w, uint64_t time, const struct timespec *deadline)
{
	struct sleeper s = {.waiter = {.time = time, .wake = woken}};
	bool poll = !w->shard->engine->traits.sole_owner;
	pthread_condattr_t attr;
	struct timespec until = {0};

	pthread_mutex_init(&s.mu, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s.cond, &attr);
	pthread_condattr_destroy(&attr);
	if (poll) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until = after_ms(until, POLL_MS);
	}
	if (deadline != NULL && (!poll || left_ms(*deadline) < POLL_MS))
		until = *deadline;
	if (core_shard_wait(w->shard, &s.waiter) &&
	    !sleep_until(&s, poll || deadline != NULL ? &until : NULL) &&
	    !core_shard_unwait(w->shard, &s.waiter))
		(void)sleep_until(&s, NULL); /* it is being woken: let that end first */
	pthread_mutex_lock(&s.mu);           /* and leave the waker its lock */
	pthread_mutex_unlock(&s.mu);
	pthread_cond_destroy(&s.cond);
	pthread_mutex_destroy(&s.mu);
}

enum kv_rc core_writer_wait_for_upper_past(struct core_writer *w, struct core_frontier frontier,
					   int timeout_ms, struct kv_err *err)
{
	struct timespec deadline;
	struct core_frontier upper;
	enum kv_rc rc = ask_upper(w, false, &upper, err);

	if (frontier.empty)
		return kv_fail(err, KV_BAD_BOUNDS, "no upper passes the empty frontier");
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline = after_ms(deadline, timeout_ms);
	while (rc == KV_OK && !core_frontier_lt(frontier, upper)) {
		if (timeout_ms >= 0 && left_ms(deadline) <= 0)
			return kv_fail(err, KV_WOULD_BLOCK, "the upper has not passed yet");
		sleep_once(w, frontier.t, timeout_ms >= 0 ? &deadline : NULL);
		rc = ask_upper(w, !w->shard->engine->traits.sole_owner, &upper, err);
	}
	if (rc == KV_OK)
		met(w, upper);
	return rc;
}

/* --- appends of rows ------------------------------------------------------------------------------- */

enum kv_rc core_writer_begin(struct core_writer *w, const struct core_append *ask, struct core_txn **out,
			     struct kv_err *err)
{
	return core_txn_begin_as(w->shard, ask, &w->state, &w->upper, out, err);
}

static enum kv_rc append_rows(struct core_writer *w, const struct core_append *ask,
			      const struct core_update *rows, size_t count, struct core_appended *r,
			      struct kv_err *err)
{
	struct core_appended ignored;
	struct core_txn *t;
	enum kv_rc rc = core_writer_begin(w, ask, &t, err);

	for (size_t i = 0; i < count && rc == KV_OK; i++)
		rc = core_txn_add(t, &(struct core_row){.update = rows[i]}, err);
	if (rc == KV_OK)
		rc = core_txn_commit(t, r != NULL ? r : &ignored, err);
	core_txn_free(t);
	return rc;
}

enum kv_rc core_writer_append(struct core_writer *w, const struct core_update *rows, size_t count,
			      struct core_frontier lower, struct core_frontier upper, struct core_appended *r,
			      struct kv_err *err)
{
	struct core_append ask = {.idempotent = true, .lower = lower, .upper = upper};

	return append_rows(w, &ask, rows, count, r, err);
}

enum kv_rc core_writer_compare_and_append(struct core_writer *w, const struct core_update *rows, size_t count,
					  struct core_frontier expected_upper, struct core_frontier new_upper,
					  struct core_appended *r, struct kv_err *err)
{
	struct core_append ask = {.lower = expected_upper, .upper = new_upper};

	return append_rows(w, &ask, rows, count, r, err);
}
