/*
 * write.c - the write handle: who writes, the upper, appends of rows; see
 * write.h. Batches that are built ahead are in built.c.
 */
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"
#include "core/txn.h"
#include "core/write_impl.h"

/* --- the handle ------------------------------------------------------------------------------------ */

void core_copy_text(char *to, size_t size, const char *from)
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

	core_copy_text(w.host, sizeof w.host, host);
	core_copy_text(w.purpose, sizeof w.purpose, purpose);
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

enum kv_rc core_writer_wait_for_upper_past(struct core_writer *w, struct core_frontier frontier,
					   int timeout_ms, struct kv_err *err)
{
	struct core_frontier upper;
	enum kv_rc rc;

	if (frontier.empty)
		return kv_fail(err, KV_BAD_BOUNDS, "no upper passes the empty frontier");
	rc = core_shard_wait_past(w->shard, frontier.t, timeout_ms, &upper, err);
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
