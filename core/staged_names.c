/*
 * staged_names.c - the names of staged batches: finding, making, renaming and
 * removing them; see staged.h.
 *
 * What loses its name loses its manifest at once and its parts when nobody here
 * reads them. To know the parts, the change reads the manifest under commit_mu,
 * where no writer can put another in its place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_impl.h"
#include "core/manifest.h"
#include "core/staged.h"
#include "core/staged_impl.h"

bool core_staged_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len >= CORE_STAGED_NAME_LEN || (name[0] >= '0' && name[0] <= '9') || name[0] == '.' ||
	    name[0] == '-')
		return false;
	return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

char *core_staged_bounds_line(const struct core_staged *entry, char buf[CORE_BOUNDS_LINE_LEN])
{
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];

	buf[0] = '\0';
	if (entry->has_bounds)
		snprintf(buf, CORE_BOUNDS_LINE_LEN, "bounds %s %s\n",
			 core_frontier_format(entry->lower, lower),
			 core_frontier_format(entry->upper, upper));
	return buf;
}

/* --- finding --------------------------------------------------------------------------------------- */

static enum kv_rc find_once(struct core_shard *s, bool recent, const char *name, struct core_uuid id,
			    struct core_staged *out, struct kv_err *err)
{
	const struct core_staged *entry;
	enum kv_rc rc = core_machine_load(s, recent, err);

	*out = (struct core_staged){0};
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	entry = name != NULL ? core_state_staged(&s->state, name) : core_state_staged_by_id(&s->state, id);
	if (entry == NULL)
		rc = KV_NO_BATCH;
	else
		*out = *entry;
	pthread_mutex_unlock(&s->mu);
	if (rc != KV_OK)
		return kv_fail_rc(err, rc);
	core_stage_describe(s, out);
	return KV_OK;
}

/* Another host may have made it a moment ago: "no" must not come from a stale state. */
static enum kv_rc find(struct core_shard *s, const char *name, struct core_uuid id, struct core_staged *out,
		       struct kv_err *err)
{
	enum kv_rc rc = find_once(s, false, name, id, out, err);

	if (rc == KV_NO_BATCH && !s->engine->traits.sole_owner)
		rc = find_once(s, true, name, id, out, err);
	return rc;
}

enum kv_rc core_staged_get(struct core_shard *s, const char *name, struct core_staged *out,
			   struct kv_err *err)
{
	return find(s, name, (struct core_uuid){0}, out, err);
}

enum kv_rc core_staged_get_by_id(struct core_shard *s, struct core_uuid id, struct core_staged *out,
				 struct kv_err *err)
{
	return find(s, NULL, id, out, err);
}

enum kv_rc core_staged_list(struct core_shard *s, struct core_staged **out, size_t *count, struct kv_err *err)
{
	enum kv_rc rc = core_machine_load(s, true, err);

	*out = NULL;
	*count = 0;
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&s->mu);
	*out = calloc(s->state.staged_count + 1, sizeof **out);
	if (*out != NULL) {
		*count = s->state.staged_count;
		if (*count != 0)
			memcpy(*out, s->state.staged, *count * sizeof **out);
	}
	pthread_mutex_unlock(&s->mu);
	return *out != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

/* --- changing -------------------------------------------------------------------------------------- */

struct name_change {
	struct core_change change;
	const char *from;
	const char *to; /* NULL: remove */
	bool noreplace;
	bool exchange;
	struct core_shard *shard;
	struct core_staged gone; /* all zero: none is */
	struct core_manifest manifest;
};

/* What goes, with its parts. */
static enum kv_rc note_gone(struct name_change *c, const struct core_staged *entry, struct kv_err *err)
{
	enum kv_rc rc;

	core_manifest_fini(&c->manifest);
	c->gone = (struct core_staged){0};
	if (entry == NULL)
		return KV_OK;
	rc = core_manifest_read(&c->shard->home, entry, &c->manifest, err);
	/* Removing must be possible also where its content is damaged; what it had is left to the sweep. */
	if (rc == KV_NOTFOUND || rc == KV_CORRUPT)
		rc = KV_OK;
	if (rc == KV_OK)
		c->gone = *entry;
	return rc;
}

static enum kv_rc run_name(struct core_change *change, const struct core_state *s, struct core_diff *d,
			   bool *skip, struct kv_err *err)
{
	struct name_change *n = (struct name_change *)change;
	const struct core_staged *from = core_state_staged(s, n->from);
	const struct core_staged *to = n->to != NULL ? core_state_staged(s, n->to) : NULL;
	enum kv_rc rc;

	*skip = n->to != NULL && from != NULL && from == to; /* renamed to itself */
	if (*skip)
		return n->noreplace ? kv_fail_rc(err, KV_EXISTS) : KV_OK;
	if (n->to == NULL)
		rc = note_gone(n, from, err);
	else
		rc = note_gone(n, n->exchange || n->noreplace || from == NULL ? NULL : to, err);
	if (rc != KV_OK)
		return rc;
	if (n->to != NULL)
		return core_do_rename_staged(s, n->from, n->to, n->noreplace, n->exchange, d, err);
	if (from == NULL)
		return kv_fail(err, KV_NO_BATCH, "no staged batch %s", n->from);
	return core_do_unstage(s, from->id, d, err);
}

static enum kv_rc change_names(struct core_shard *s, struct name_change c, struct kv_err *err)
{
	enum kv_rc rc;

	c.shard = s;
	c.change = (struct core_change){.run = run_name, .sync = c.to == NULL ? KV_RELEASE : KV_SYNC};
	rc = core_machine_commit(s, &c.change, err);
	if (rc == KV_OK && c.gone.name[0] != '\0') {
		core_stage_removed(s, c.gone.id);
		core_staged_consumed(s, &c.gone, c.manifest.batch);
	}
	core_manifest_fini(&c.manifest);
	return rc;
}

enum kv_rc core_staged_remove(struct core_shard *s, const char *name, struct kv_err *err)
{
	return change_names(s, (struct name_change){.from = name}, err);
}

enum kv_rc core_staged_rename(struct core_shard *s, const char *from, const char *to, bool noreplace,
			      bool exchange, struct kv_err *err)
{
	struct name_change c = {.from = from, .to = to, .noreplace = noreplace, .exchange = exchange};

	if (!core_staged_name_ok(to))
		return kv_fail(err, KV_BAD_NAME, "a staged batch cannot be called that");
	return change_names(s, c, err);
}

struct create_change {
	struct core_change change;
	struct core_staged now;
};

static enum kv_rc run_create(struct core_change *change, const struct core_state *s, struct core_diff *d,
			     bool *skip, struct kv_err *err)
{
	struct create_change *c = (struct create_change *)change;

	*skip = false;
	return core_do_stage(s, (struct core_uuid){0}, &c->now, d, err);
}

enum kv_rc core_staged_create(struct core_shard *s, const char *name, struct core_staged *out,
			      struct kv_err *err)
{
	struct create_change c = {
		.change = {.run = run_create, .sync = KV_RIDE},
		.now = {.id = core_uuid_new(),
			.manifest = core_uuid_new(),
			.instance = s->home.instance,
			.changed_ms = core_now_us(s->engine) / 1000},
	};
	enum kv_rc rc;

	*out = (struct core_staged){0};
	if (!core_staged_name_ok(name))
		return kv_fail(err, KV_BAD_NAME, "a staged batch cannot be called that");
	memcpy(c.now.name, name, strlen(name) + 1);
	rc = core_machine_commit(s, &c.change, err);
	if (rc == KV_OK)
		*out = c.now;
	return rc;
}
