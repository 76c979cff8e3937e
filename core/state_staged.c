/*
 * state_staged.c - staged batches, writers and leases in states and diffs; see state.h and state_staged.h.
 *
 * 1. None of the arrays has an order: what goes is replaced by the last one.
 * 2. Staged batches change seldom, by whoever works with them; then all names are looked through.
 *    Writers and leases are looked through at each version: a few comparisons of numbers each, and no memory.
 */
#include "core/state_staged.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- finding ------------------------------------------------------------------------------------- */

const struct core_staged *core_state_staged(const struct core_state *s, const char *name)
{
	for (size_t i = 0; i < s->staged_count; i++)
		if (strcmp(s->staged[i].name, name) == 0)
			return &s->staged[i];
	return NULL;
}

/* Where in list the id is; count: nowhere. */
static size_t staged_at(const struct core_staged *list, size_t count, struct core_uuid id)
{
	size_t i = 0;

	while (i < count && !core_uuid_eq(list[i].id, id))
		i++;
	return i;
}

static size_t uuid_at(const struct core_uuid *list, size_t count, struct core_uuid id)
{
	size_t i = 0;

	while (i < count && !core_uuid_eq(list[i], id))
		i++;
	return i;
}

const struct core_staged *core_state_staged_by_id(const struct core_state *s, struct core_uuid id)
{
	size_t at = staged_at(s->staged, s->staged_count, id);

	return at < s->staged_count ? &s->staged[at] : NULL;
}

static struct core_writer_state *find_writer(const struct core_state *s, struct core_uuid id)
{
	for (size_t i = 0; i < s->writer_count; i++)
		if (core_uuid_eq(s->writers[i].id, id))
			return &s->writers[i];
	return NULL;
}

const struct core_writer_state *core_state_writer(const struct core_state *s, struct core_uuid id)
{
	return find_writer(s, id);
}

static struct core_lease *find_lease(const struct core_state *s, struct core_uuid id)
{
	for (size_t i = 0; i < s->lease_count; i++)
		if (core_uuid_eq(s->leases[i].id, id))
			return &s->leases[i];
	return NULL;
}

const struct core_lease *core_state_lease(const struct core_state *s, struct core_uuid id)
{
	return find_lease(s, id);
}

/* --- diffs --------------------------------------------------------------------------------------- */

enum kv_rc core_diff_staged(struct core_diff *d, const struct core_staged *staged, struct kv_err *err)
{
	size_t at = staged_at(d->staged, d->staged_count, staged->id);
	struct core_staged *grown;

	if (at == d->staged_count) {
		grown = reallocarray(d->staged, d->staged_count + 1, sizeof *grown);
		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		d->staged = grown;
		d->staged_count++;
	}
	d->staged[at] = *staged;
	return KV_OK;
}

enum kv_rc core_diff_staged_removed(struct core_diff *d, struct core_uuid id, struct kv_err *err)
{
	size_t at = staged_at(d->staged, d->staged_count, id);
	struct core_uuid *grown;

	if (uuid_at(d->staged_removed, d->staged_removed_count, id) == d->staged_removed_count) {
		grown = reallocarray(d->staged_removed, d->staged_removed_count + 1, sizeof *grown);
		if (grown == NULL)
			return kv_fail_rc(err, KV_NOMEM);
		grown[d->staged_removed_count++] = id;
		d->staged_removed = grown;
	}
	if (at < d->staged_count) /* removing comes first when the diff is applied: it must not come back */
		d->staged[at] = d->staged[--d->staged_count];
	return KV_OK;
}

/* --- applying: staged batches -------------------------------------------------------------------- */

/* Whether the entry that s has is there no more, or is another one, after d. */
static bool is_touched(const struct core_diff *d, struct core_uuid id)
{
	return uuid_at(d->staged_removed, d->staged_removed_count, id) < d->staged_removed_count ||
	       staged_at(d->staged, d->staged_count, id) < d->staged_count;
}

/* Whether no other entry has the id of d->staged[i] in d, or its name after d. */
static bool differs(const struct core_state *s, const struct core_diff *d, size_t i)
{
	const struct core_staged *staged = &d->staged[i];

	for (size_t j = 0; j < i; j++)
		if (core_uuid_eq(d->staged[j].id, staged->id) || strcmp(d->staged[j].name, staged->name) == 0)
			return false;
	for (size_t j = 0; j < s->staged_count; j++)
		if (strcmp(s->staged[j].name, staged->name) == 0 && !is_touched(d, s->staged[j].id))
			return false;
	return true;
}

enum kv_rc core_state_plan_staged(const struct core_state *s, const struct core_diff *d, struct kv_err *err)
{
	size_t count = s->staged_count;

	for (size_t i = 0; i < d->staged_removed_count; i++, count--)
		if (core_state_staged_by_id(s, d->staged_removed[i]) == NULL ||
		    uuid_at(d->staged_removed, i, d->staged_removed[i]) < i)
			return kv_fail(err, KV_CORRUPT,
				       "version %" PRIu64 " removes a staged batch that is not there",
				       d->seqno);
	for (size_t i = 0; i < d->staged_count; i++) {
		struct core_uuid id = d->staged[i].id;

		if (!differs(s, d, i))
			return kv_fail(err, KV_CORRUPT,
				       "version %" PRIu64 " has two staged batches of one name or id",
				       d->seqno);
		count += core_state_staged_by_id(s, id) == NULL ||
			 uuid_at(d->staged_removed, d->staged_removed_count, id) < d->staged_removed_count;
	}
	if (count > CORE_STAGED_MAX)
		return kv_fail(err, KV_CORRUPT, "version %" PRIu64 " makes %zu staged batches", d->seqno,
			       count);
	return KV_OK;
}

void core_state_apply_staged(struct core_state *s, const struct core_diff *d)
{
	for (size_t i = 0; i < d->staged_removed_count; i++) {
		size_t at = staged_at(s->staged, s->staged_count, d->staged_removed[i]);

		s->staged[at] = s->staged[--s->staged_count];
	}
	for (size_t i = 0; i < d->staged_count; i++) {
		size_t at = staged_at(s->staged, s->staged_count, d->staged[i].id);

		s->staged_count += at == s->staged_count;
		s->staged[at] = d->staged[i];
	}
}

/* --- applying: writers --------------------------------------------------------------------------- */

static void renew_writer(struct core_state *s, const struct core_diff *d)
{
	for (size_t i = 0; i < s->writer_count; i++) {
		struct core_writer_state *w = &s->writers[i];

		if (memcmp(w->id.b, d->attempt.b, CORE_WRITER_TAG) != 0)
			continue;
		if (w->heartbeat_ms < d->walltime_ms)
			w->heartbeat_ms = d->walltime_ms;
		if (d->has_upper)
			w->last_upper = d->upper;
	}
}

static void register_writer(struct core_state *s, const struct core_diff *d)
{
	struct core_writer_state *w = find_writer(s, d->writer.id);

	if (w == NULL)
		w = &s->writers[s->writer_count++];
	*w = d->writer;
	w->heartbeat_ms = d->walltime_ms;
	if (d->has_upper)
		w->last_upper = d->upper;
}

/* Whether heartbeat_ms + lease_ms < now_ms, as numbers without end. */
static bool is_over(uint64_t heartbeat_ms, uint64_t lease_ms, uint64_t now_ms)
{
	return lease_ms < now_ms && heartbeat_ms < now_ms - lease_ms;
}

void core_state_apply_writers(struct core_state *s, const struct core_diff *d)
{
	struct core_writer_state *gone;

	renew_writer(s, d);
	if (d->has_writer)
		register_writer(s, d);
	gone = d->expires_writer ? find_writer(s, d->expired_writer) : NULL;
	if (gone != NULL)
		*gone = s->writers[--s->writer_count];
	for (size_t i = 0; i < s->writer_count;)
		if (is_over(s->writers[i].heartbeat_ms, s->writers[i].lease_ms, d->walltime_ms))
			s->writers[i] = s->writers[--s->writer_count];
		else
			i++;
	while (s->writer_count > CORE_WRITERS_MAX) {
		size_t oldest = 0;

		for (size_t i = 1; i < s->writer_count; i++)
			if (s->writers[i].heartbeat_ms < s->writers[oldest].heartbeat_ms)
				oldest = i;
		s->writers[oldest] = s->writers[--s->writer_count];
	}
}

/* --- applying: leases ---------------------------------------------------------------------------- */

bool core_lease_is_over(const struct core_lease *lease, uint64_t now_ms)
{
	return is_over(lease->heartbeat_ms, lease->lease_ms, now_ms);
}

void core_state_apply_leases(struct core_state *s, const struct core_diff *d)
{
	struct core_lease *lease;

	if (d->has_lease) {
		lease = find_lease(s, d->lease.id);
		if (lease == NULL)
			lease = &s->leases[s->lease_count++];
		*lease = d->lease;
		lease->heartbeat_ms = d->walltime_ms;
	}
	lease = d->ends_lease ? find_lease(s, d->ended_lease) : NULL;
	if (lease != NULL)
		*lease = s->leases[--s->lease_count];
	for (size_t i = 0; i < s->lease_count;)
		if (core_lease_is_over(&s->leases[i], d->walltime_ms))
			s->leases[i] = s->leases[--s->lease_count];
		else
			i++;
	while (s->lease_count > CORE_READERS_MAX) {
		size_t oldest = 0;

		for (size_t i = 1; i < s->lease_count; i++)
			if (s->leases[i].heartbeat_ms < s->leases[oldest].heartbeat_ms)
				oldest = i;
		s->leases[oldest] = s->leases[--s->lease_count];
	}
}

/* --- checking ------------------------------------------------------------------------------------ */

static int cmp_staged_id(const void *a, const void *b)
{
	const struct core_staged *const *x = a, *const *y = b;

	return memcmp((*x)->id.b, (*y)->id.b, sizeof(*x)->id.b);
}

static int cmp_staged_name(const void *a, const void *b)
{
	const struct core_staged *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static int cmp_writer_id(const void *a, const void *b)
{
	const struct core_writer_state *const *x = a, *const *y = b;

	return memcmp((*x)->id.b, (*y)->id.b, sizeof(*x)->id.b);
}

static int cmp_lease_id(const void *a, const void *b)
{
	const struct core_lease *const *x = a, *const *y = b;

	return memcmp((*x)->id.b, (*y)->id.b, sizeof(*x)->id.b);
}

/* Sorts list; whether two neighbours then compare equal. */
static bool has_twins(const void **list, size_t count, int (*cmp)(const void *, const void *))
{
	qsort(list, count, sizeof *list, cmp);
	for (size_t i = 1; i < count; i++)
		if (cmp(&list[i - 1], &list[i]) == 0)
			return true;
	return false;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

enum kv_rc core_state_check_staged(const struct core_state *s, struct kv_err *err)
{
	size_t most = larger(larger(s->staged_count, s->writer_count), s->lease_count);
	const void **list;
	enum kv_rc rc = KV_OK;

	if (s->staged_count > CORE_STAGED_MAX || s->writer_count > CORE_WRITERS_MAX ||
	    s->lease_count > CORE_READERS_MAX)
		return kv_fail(err, KV_CORRUPT, "%zu staged batches, %zu writers and %zu leases",
			       s->staged_count, s->writer_count, s->lease_count);
	if (most == 0)
		return KV_OK;
	list = calloc(most, sizeof *list);
	if (list == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	for (size_t i = 0; i < s->staged_count; i++)
		list[i] = &s->staged[i];
	if (has_twins(list, s->staged_count, cmp_staged_id) ||
	    has_twins(list, s->staged_count, cmp_staged_name))
		rc = kv_fail(err, KV_CORRUPT, "two staged batches have one id or name");
	for (size_t i = 0; i < s->writer_count; i++)
		list[i] = &s->writers[i];
	if (rc == KV_OK && has_twins(list, s->writer_count, cmp_writer_id))
		rc = kv_fail(err, KV_CORRUPT, "two writers have one id");
	for (size_t i = 0; i < s->lease_count; i++) {
		list[i] = &s->leases[i];
		if (rc == KV_OK && core_frontier_lt(s->leases[i].since, s->since))
			rc = kv_fail(err, KV_CORRUPT, "a lease lies below the shard's since");
	}
	if (rc == KV_OK && has_twins(list, s->lease_count, cmp_lease_id))
		rc = kv_fail(err, KV_CORRUPT, "two leases have one id");
	free(list);
	return rc;
}
