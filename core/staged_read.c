/*
 * staged_read.c - staged batches as they are read, and the end of their blobs.
 *
 * What was committed, removed or replaced leaves a manifest and perhaps parts that
 * nobody names. While somebody in this process reads the batch (a pin) parts stay;
 * the last one deletes them. Another process that reads them may find them gone.
 */
#include <stdlib.h>
#include <string.h>

#include "core/builder.h"
#include "core/stage_impl.h"

/* Those who read one staged batch; under the shard's mu. */
struct core_staged_pin {
	struct core_staged_pin *next;
	struct core_uuid id;
	unsigned users;
	struct core_batch **doomed; /* to be deleted when there are none */
	size_t doomed_count;
	uint64_t seqno; /* the version in which all stands that they may read */
	struct core_batch *
		*read; /* what they read, borrowed from their views: once it is committed, gc.c asks */
	size_t read_count;
};

/* --- deleting -------------------------------------------------------------------------------------- */

static struct core_staged_pin *pin_locked(struct core_shard *s, struct core_uuid id)
{
	struct core_staged_pin *pin = s->pins;

	while (pin != NULL && !core_uuid_eq(pin->id, id))
		pin = pin->next;
	return pin;
}

/* Delete the blobs of parts nobody names any more, at once or when those who read the batch are done. */
void core_staged_doom(struct core_shard *s, struct core_uuid id, struct core_batch *parts)
{
	struct core_staged_pin *pin;
	struct core_batch **grown = NULL;

	pthread_mutex_lock(&s->mu);
	pin = pin_locked(s, id);
	if (pin != NULL) {
		grown = reallocarray(pin->doomed, pin->doomed_count + 1, sizeof(struct core_batch *));
		if (grown != NULL) {
			pin->doomed = grown;
			grown[pin->doomed_count++] = core_batch_ref(parts);
		} /* else a leak, which the sweep finds */
	}
	pthread_mutex_unlock(&s->mu);
	if (pin == NULL)
		core_batch_delete_blobs(&s->home, parts);
}

void core_staged_delete_manifest(struct core_shard *s, const struct core_staged *entry)
{
	char key[CORE_BLOB_KEY_LEN];

	if (entry->manifest_bytes == 0)
		return;
	/* What fails to go is a blob that nobody names, which the sweep finds. */
	enum kv_rc rc =
		kv_blob_delete(s->home.blobs, core_manifest_key(s->home.shard, entry, key), NULL, NULL, NULL);
	(void)rc;
}

void core_staged_consumed(struct core_shard *s, const struct core_staged *entry, struct core_batch *parts)
{
	core_staged_delete_manifest(s, entry);
	if (parts != NULL)
		core_staged_doom(s, entry->id, parts);
}

/* --- reading --------------------------------------------------------------------------------------- */

enum kv_rc core_staged_read(struct core_shard *s, struct core_uuid id, struct core_staged *entry,
			    struct core_manifest *manifest, struct kv_err *err)
{
	struct core_uuid before = {0};
	enum kv_rc rc;

	for (;;) {
		const struct core_staged *there;

		*entry = (struct core_staged){0};
		pthread_mutex_lock(&s->mu);
		there = core_state_staged_by_id(&s->state, id);
		if (there != NULL)
			*entry = *there;
		pthread_mutex_unlock(&s->mu);
		if (core_uuid_eq(entry->id, (struct core_uuid){0}))
			return kv_fail_rc(err, KV_NO_BATCH);
		if (core_uuid_eq(entry->manifest, before))
			return kv_fail(err, KV_CORRUPT, "the manifest of batch %s is missing", entry->name);
		rc = core_manifest_read(&s->home, entry, manifest, err);
		if (rc != KV_NOTFOUND)
			return rc;
		before = entry->manifest; /* another one may have come meanwhile, here or on another host */
		rc = core_machine_load(s, true, err);
		if (rc != KV_OK)
			return rc;
	}
}

static struct core_staged_pin *pin(struct core_shard *s, struct core_uuid id)
{
	struct core_staged_pin *fresh = calloc(1, sizeof *fresh), *p;

	if (fresh == NULL)
		return NULL;
	pthread_mutex_lock(&s->mu);
	p = pin_locked(s, id);
	if (p == NULL) {
		p = fresh;
		p->id = id;
		p->seqno = s->state.seqno;
		p->next = s->pins;
		s->pins = p;
	}
	p->users++;
	pthread_mutex_unlock(&s->mu);
	if (p != fresh)
		free(fresh);
	return p;
}

static void unpin(struct core_shard *s, struct core_staged_pin *pin)
{
	bool last;

	pthread_mutex_lock(&s->mu);
	last = --pin->users == 0;
	for (struct core_staged_pin **p = &s->pins; last && *p != NULL; p = &(*p)->next) {
		if (*p == pin) {
			*p = pin->next;
			break;
		}
	}
	pthread_mutex_unlock(&s->mu);
	if (!last)
		return;
	for (size_t i = 0; i < pin->doomed_count; i++) {
		core_batch_delete_blobs(&s->home, pin->doomed[i]);
		core_batch_unref(pin->doomed[i]);
	}
	free(pin->doomed);
	free(pin->read);
	free(pin);
}

/* The view's parts are read from now on. KV_NOMEM */
static enum kv_rc note_read(struct core_shard *s, struct core_staged_pin *pin, struct core_batch *b,
			    struct kv_err *err)
{
	struct core_batch **grown;

	pthread_mutex_lock(&s->mu);
	grown = reallocarray(pin->read, pin->read_count + 1, sizeof(struct core_batch *));
	if (grown != NULL) {
		pin->read = grown;
		grown[pin->read_count++] = b;
	}
	pthread_mutex_unlock(&s->mu);
	return grown != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static void forget_read(struct core_shard *s, struct core_staged_pin *pin, const struct core_batch *b)
{
	pthread_mutex_lock(&s->mu);
	for (size_t i = 0; i < pin->read_count; i++) {
		if (pin->read[i] == b) {
			pin->read[i] = pin->read[--pin->read_count];
			break;
		}
	}
	pthread_mutex_unlock(&s->mu);
}

uint64_t core_staged_seqno(const struct core_shard *s)
{
	uint64_t least = s->state.seqno;

	for (const struct core_staged_pin *pin = s->pins; pin != NULL; pin = pin->next)
		least = pin->seqno < least ? pin->seqno : least;
	return least;
}

bool core_staged_is_opening(const struct core_shard *s)
{
	for (const struct core_staged_pin *pin = s->pins; pin != NULL; pin = pin->next)
		if (pin->users != pin->read_count)
			return true;
	return false;
}

bool core_staged_each_pinned(struct core_shard *s, bool (*each)(void *arg, const struct core_batch *b),
			     void *arg)
{
	bool ok = true;

	for (const struct core_staged_pin *pin = s->pins; pin != NULL && ok; pin = pin->next)
		for (size_t i = 0; i < pin->read_count && ok; i++)
			ok = each(arg, pin->read[i]);
	for (const struct core_staged_pin *pin = s->pins; pin != NULL && ok; pin = pin->next)
		for (size_t i = 0; i < pin->doomed_count && ok; i++)
			ok = each(arg, pin->doomed[i]);
	return ok;
}

/* Where others may delete what is read: a lease. */
static enum kv_rc lease_view(struct core_shard *s, struct core_staged_view *view, struct kv_err *err)
{
	const struct core_engine *e = s->engine;
	enum kv_rc rc;

	if (e->traits.sole_owner || e->traits.read_only)
		return KV_OK;
	view->need = calloc(1, sizeof *view->need);
	if (view->need == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	view->need->pins_only = true;
	view->need->reader.since_ms = core_now_us(e) / 1000;
	core_copy_text(view->need->reader.purpose, sizeof view->need->reader.purpose, "a staged batch");
	rc = core_shard_need(s, view->need, 0, err);
	if (rc != KV_OK) {
		free(view->need);
		view->need = NULL;
	}
	return rc;
}

static void end_lease(struct core_shard *s, struct core_staged_view *view)
{
	if (view->need != NULL)
		core_shard_release(s, view->need);
	free(view->need);
	view->need = NULL;
}

enum kv_rc core_staged_open(struct core_shard *s, struct core_uuid id, struct core_staged_view *out,
			    struct kv_err *err)
{
	struct core_manifest manifest = {0};
	struct core_stage *g = core_stage_get(s, id);
	enum kv_rc rc = KV_OK;

	*out = (struct core_staged_view){0};
	if (g != NULL) { /* with what its writer has not stored yet */
		pthread_mutex_lock(&g->mu);
		if (!g->lost && !g->taken)
			rc = core_stage_flush_locked(g, err);
		pthread_mutex_unlock(&g->mu);
		core_stage_put(g);
	}
	if (rc != KV_OK)
		return rc;
	out->pin = pin(s, id); /* before the entry is read: what it names then stays */
	if (out->pin == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	rc = lease_view(s, out, err);
	if (rc == KV_OK)
		rc = core_staged_read(s, id, &out->entry, &manifest, err);
	if (rc == KV_OK) {
		rc = note_read(s, out->pin, manifest.batch, err);
		if (rc != KV_OK)
			core_manifest_fini(&manifest);
	}
	if (rc != KV_OK) {
		end_lease(s, out);
		unpin(s, out->pin);
		out->pin = NULL;
		return rc;
	}
	out->batch = manifest.batch;
	out->rest = manifest.rest.data;
	out->rest_len = manifest.rest.len;
	return KV_OK;
}

void core_staged_close(struct core_shard *s, struct core_staged_view *view)
{
	if (view->pin == NULL)
		return;
	forget_read(s, view->pin, view->batch);
	core_batch_unref(view->batch);
	free(view->rest);
	end_lease(s, view);
	unpin(s, view->pin);
	*view = (struct core_staged_view){0};
}
