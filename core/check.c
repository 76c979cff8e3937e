/*
 * check.c - see check.h.
 *
 *     store's own files -> names -> each shard: chain (chain.c), parts, staged batches, orphans -> blobs of
 * nobody
 *
 * Beside an owner a shard changes while it is looked at. What is gone then is no finding if a newer state
 * does not name it: the shard is read again, without the parts that were checked before, until nothing was
 * missed.
 */
#include "core/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/check_impl.h"
#include "core/names.h"
#include "core/scan.h"
#include "core/staged.h"

enum { WHAT_LEN = KV_ERR_MSG_LEN + 160 };

static const char restore[] = "remove the shard and import it from an export";
static const char restore_all[] =
	"import what can still be exported into a new store, or restore a copy of the store";
static const char cut_out[] = "fsck --repair --drop-damaged keeps what can be read of it, and drops the rest";

struct checking {
	struct core_engine *engine;
	const struct core_check *check;
	struct core_checked *sum;
	uint64_t total;
	/* The shard at hand. */
	struct core_shard_id id;
	char shard[CORE_ID_LEN];
	struct core_part_id *seen; /* parts that were checked, sorted up to sorted */
	size_t seen_count;
	size_t seen_cap;
	size_t sorted;
	bool missed; /* something was gone: its state is read again */
	bool still;  /* it was gone before, and no newer state came: it is missing */
};

bool core_is_damage(enum kv_rc rc)
{
	return rc == KV_CORRUPT || rc == KV_NEWER || rc == KV_IO || rc == KV_NOTFOUND;
}

static void tell(struct checking *c, struct core_finding finding)
{
	finding.shard = c->shard;
	c->sum->damages += finding.kind == CORE_DAMAGE;
	c->sum->notes += finding.kind == CORE_NOTE;
	c->check->found(c->check->arg, &finding);
}

/* A failed call as damage of a file. The offset stands in the detail where it is known. */
static void tell_err(struct checking *c, const char *file, const struct kv_err *err, const char *remedy)
{
	const char *offset = strstr(err->detail, "offset=");
	struct core_finding finding = {.kind = CORE_DAMAGE, .file = file, .what = err->msg, .remedy = remedy};

	if (offset != NULL) {
		finding.has_offset = true;
		finding.offset = strtoull(offset + strlen("offset="), NULL, 10);
	}
	tell(c, finding);
}

static void advance(struct checking *c, uint64_t bytes)
{
	c->sum->bytes += bytes;
	if (c->sum->bytes > c->total)
		c->total = c->sum->bytes;
	if (c->check->progress != NULL)
		c->check->progress(c->check->arg, c->sum->bytes, c->total);
}

/* --- parts ----------------------------------------------------------------------------------------- */

static int cmp_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct core_part_id));
}

static bool was_seen(const struct checking *c, struct core_part_id id)
{
	return c->sorted != 0 && bsearch(&id, c->seen, c->sorted, sizeof *c->seen, cmp_id) != NULL;
}

/* Only where a shard may be read again. False: out of memory. */
static bool see(struct checking *c, struct core_part_id id)
{
	if (c->engine->traits.sole_owner)
		return true;
	if (c->seen_count == c->seen_cap) {
		size_t cap = c->seen_cap != 0 ? 2 * c->seen_cap : 64;
		struct core_part_id *grown = reallocarray(c->seen, cap, sizeof *grown);

		if (grown == NULL)
			return false;
		c->seen = grown;
		c->seen_cap = cap;
	}
	c->seen[c->seen_count++] = id;
	return true;
}

static struct core_home home_of(const struct checking *c)
{
	struct core_home home = core_home_of(c->engine, c->id);

	home.may_vanish = home.may_vanish && !c->still;
	return home;
}

static enum kv_rc check_part(struct checking *c, const struct core_batch *b, size_t at,
			     struct core_last_row *last, const char *remedy, struct kv_err *err)
{
	struct core_home home = home_of(c);
	const struct core_part *part = &b->parts[at];
	char key[CORE_BLOB_KEY_LEN];
	enum kv_rc rc;

	if (was_seen(c, part->id))
		return KV_OK;
	rc = core_check_part(&home, part, last, err);
	if (rc == KV_GONE) {
		c->missed = true;
		return KV_OK;
	}
	if (rc != KV_OK && !core_is_damage(rc))
		return rc;
	if (rc != KV_OK) {
		core_last_row_forget(last);
		tell_err(c, core_part_key(c->id, part, key), err, remedy);
	}
	c->sum->parts++;
	c->sum->updates += part->rows;
	if (part->inline_data == NULL)
		advance(c, part->size);
	return see(c, part->id) ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static enum kv_rc check_batch(struct checking *c, const struct core_batch *b, const char *remedy,
			      struct kv_err *err)
{
	struct core_last_row *last = core_last_row_new();
	enum kv_rc rc = last != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	size_t run = 0;

	for (size_t i = 0; i < b->part_count && rc == KV_OK; i++) {
		if (run < b->run_count && b->run_starts[run] == i) {
			core_last_row_forget(last);
			run++;
		}
		rc = check_part(c, b, i, last, remedy, err);
		if (rc == KV_OK && core_upkeep_stops(c->engine))
			rc = kv_fail_rc(err, KV_SHUTDOWN);
	}
	core_last_row_free(last);
	return rc;
}

/* --- staged batches -------------------------------------------------------------------------------- */

static void check_text(struct checking *c, const struct core_staged *entry,
		       const struct core_manifest *manifest, const char *file)
{
	struct core_home home = core_home_of(c->engine, c->id);
	char line[CORE_BOUNDS_LINE_LEN], what[WHAT_LEN];
	struct kv_err err;
	uint64_t size = 0;

	if (core_scan_size(&home, manifest->batch, &size, &err) != KV_OK)
		return; /* its parts were found */
	size += strlen(core_staged_bounds_line(entry, line)) + manifest->rest.len;
	if (size == entry->size)
		return;
	snprintf(what, sizeof what,
		 "shard %s: staged batch %s has %" PRIu64 " bytes of text where its shard counts %" PRIu64,
		 c->shard, entry->name, size, entry->size);
	tell(c, (struct core_finding){.file = file, .what = what, .remedy = "remove the staged batch"});
}

static enum kv_rc check_staged(struct checking *c, const struct core_staged *entry, struct kv_err *err)
{
	static const char remedy[] = "remove the staged batch, or fsck --repair --drop-damaged does";
	struct core_home home = home_of(c);
	struct core_manifest manifest;
	char key[CORE_BLOB_KEY_LEN] = "";
	enum kv_rc rc = core_manifest_read(&home, entry, &manifest, err);

	if (entry->manifest_bytes != 0)
		core_manifest_key(c->id, entry, key);
	if (rc == KV_NOTFOUND && home.may_vanish) {
		c->missed = true;
		return KV_OK;
	}
	if (core_is_damage(rc)) {
		kv_wrap(err, rc, "shard %s, staged batch %s", c->shard, entry->name);
		tell_err(c, key, err, remedy);
		return KV_OK;
	}
	if (rc != KV_OK)
		return rc;
	c->sum->staged++;
	advance(c, entry->manifest_bytes);
	rc = check_batch(c, manifest.batch, remedy, err);
	if (rc == KV_OK && !c->missed)
		check_text(c, entry, &manifest, key);
	core_manifest_fini(&manifest);
	return rc;
}

/* --- what is not needed to load a shard ------------------------------------------------------------- */

static enum kv_rc note_orphan(void *arg, const char *key, uint64_t size, struct kv_err *err)
{
	struct checking *c = arg;
	char what[WHAT_LEN];

	(void)err;
	snprintf(what, sizeof what, "%s%s%sa blob of %" PRIu64 " bytes that nobody names",
		 c->shard[0] != '\0' ? "shard " : "", c->shard, c->shard[0] != '\0' ? ": " : "", size);
	c->sum->orphans++;
	c->sum->orphan_bytes += size;
	tell(c, (struct core_finding){.kind = CORE_NOTE,
				      .file = key,
				      .what = what,
				      .remedy = c->engine->traits.sole_owner
							? "fsck --repair deletes it"
							: "an owner may be about to name it; else the next "
							  "start or fsck --repair deletes it"});
	return KV_OK;
}

/* Older rollups, and the versions before the newest: nobody reads them any more. */
static enum kv_rc check_old(struct checking *c, const struct core_chain *chain, struct kv_err *err)
{
	static const char remedy[] = "nobody needs it; it goes with the next collection";
	char what[WHAT_LEN];

	for (size_t i = 0; i < chain->state.rollup_count; i++) {
		const struct core_rollup *rollup = &chain->state.rollups[i];
		struct core_buf bytes = {0};
		struct core_state state = {0};
		enum kv_rc rc;

		if (rollup->seqno == chain->rollup.seqno)
			continue;
		rc = core_blob_read(kv_store_blobs(c->engine->store), rollup->key, &bytes, err);
		if (rc == KV_OK)
			rc = core_state_decode(c->id, bytes.data, bytes.len, &state, err);
		core_state_fini(&state);
		core_buf_fini(&bytes);
		if (rc == KV_NOMEM)
			return rc;
		if (rc == KV_OK || rc == KV_NOTFOUND) /* it may have been collected already */
			continue;
		snprintf(what, sizeof what, "shard %s: an old rollup: %s", c->shard, err->msg);
		tell(c, (struct core_finding){
				.kind = CORE_NOTE, .file = rollup->key, .what = what, .remedy = remedy});
	}
	return KV_OK;
}

/* --- a shard --------------------------------------------------------------------------------------- */

/* What broke the chain, and whether it can be rebuilt. */
static enum kv_rc tell_chain(struct checking *c, const struct core_chain *chain, struct kv_err *err)
{
	char file[CORE_BLOB_KEY_LEN];
	const char *remedy = restore;
	struct core_chain other;
	struct kv_err why;
	bool owner_lost;

	snprintf(file, sizeof file, "%s", chain->link);
	if (chain->rollup.seqno != 0 && strcmp(chain->link, chain->rollup.key) == 0) {
		enum kv_rc rc = core_chain_rebuild(c->engine, c->id, &other, &owner_lost, &why);

		core_chain_fini(&other);
		if (rc == KV_NOMEM)
			return kv_fail_rc(err, rc);
		if (rc == KV_OK)
			remedy = owner_lost ? "fsck --repair writes it anew from the versions; the shard's "
					      "owner and "
					      "mode are lost, and become root and 0700"
					    : "fsck --repair writes it anew from what was before it; nothing "
					      "is lost";
	}
	kv_wrap(err, err->rc == KV_GONE ? KV_CORRUPT : err->rc, "shard %s: %s", c->shard,
		file[0] != '\0' ? file : "its state");
	tell_err(c, file, err, remedy);
	return KV_OK;
}

static enum kv_rc check_content(struct checking *c, const struct core_chain *chain, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	for (size_t i = 0; i < chain->state.batch_count && rc == KV_OK; i++)
		rc = check_batch(c, chain->state.batches[i], cut_out, err);
	for (size_t i = 0; i < chain->state.staged_count && rc == KV_OK; i++)
		rc = check_staged(c, &chain->state.staged[i], err);
	if (rc == KV_OK && !c->missed)
		rc = check_old(c, chain, err);
	if (rc != KV_OK || c->missed)
		return rc;
	rc = core_orphans_of(c->engine, c->id, &chain->state, note_orphan, c, err);
	if (rc == KV_GONE && !c->still)
		c->missed = true;
	return rc == KV_GONE || core_is_damage(rc) ? KV_OK : rc; /* damage was found before */
}

/* One look at it. *again: something was gone, and may have been replaced. *head: the newest version then. */
static enum kv_rc look(struct checking *c, bool *again, uint64_t *head, struct kv_err *err)
{
	struct core_chain chain;
	enum kv_rc rc = core_chain_read(c->engine, c->id, &chain, err);

	*head = chain.head;
	*again = rc == KV_GONE && !c->still;
	if (rc == KV_NOTFOUND || *again) {
		rc = KV_OK; /* removed meanwhile */
	} else if (rc == KV_GONE || core_is_damage(rc)) {
		rc = tell_chain(c, &chain, err);
	} else if (rc == KV_OK && (chain.tombstone || chain.state.tombstone)) {
		tell(c, (struct core_finding){.kind = CORE_NOTE,
					      .file = "",
					      .what = "a removed shard that is not deleted yet",
					      .remedy = "the next start deletes it"});
	} else if (rc == KV_OK) {
		c->sum->versions += chain.versions + 1;
		advance(c, chain.rollup_bytes);
		c->missed = false;
		*head = chain.state.seqno;
		rc = check_content(c, &chain, err);
		*again = c->missed;
	}
	core_chain_fini(&chain);
	return rc;
}

static enum kv_rc check_shard(void *arg, struct core_shard_id id, struct kv_err *err)
{
	/* Longer than what consensus takes to notice an owner's writes (kv/rocks.h). */
	const struct timespec rest = {.tv_nsec = 100000000};
	struct checking *c = arg;
	uint64_t head = 0, before = 0;
	bool again = true;
	enum kv_rc rc = KV_OK;

	c->id = id;
	core_uuid_format('s', id.u, c->shard);
	c->seen_count = c->sorted = 0;
	c->still = false;
	for (unsigned tries = 0; rc == KV_OK && again && tries < CORE_CHECK_TRIES; tries++) {
		if (tries != 0)
			nanosleep(&rest, NULL);
		rc = look(c, &again, &head, err);
		c->still = head == before; /* the last look saw the same */
		before = head;
		if (again && c->seen_count != 0)
			qsort(c->seen, c->seen_count, sizeof *c->seen, cmp_id);
		c->sorted = c->seen_count;
	}
	if (rc == KV_OK && again)
		tell(c, (struct core_finding){.kind = CORE_NOTE,
					      .file = "",
					      .what = "the shard changed faster than it could be checked",
					      .remedy = "check again, or without the mount"});
	c->sum->shards++;
	c->shard[0] = '\0';
	return rc;
}

/* --- the store ------------------------------------------------------------------------------------- */

static void found_in_store(void *arg, const struct kv_damage *damage)
{
	struct core_finding finding = {
		.file = damage->file,
		.has_offset = damage->has_offset,
		.offset = damage->offset,
		.what = damage->what,
		.remedy = restore_all,
	};

	tell(arg, finding);
}

static enum kv_rc check_names(struct checking *c, struct kv_err *err)
{
	struct core_name *names;
	size_t count;
	enum kv_rc rc = core_name_list(c->engine, &names, &count, err);

	c->sum->names = count;
	free(names);
	if (core_is_damage(rc)) {
		tell_err(c, "names", err,
			 "fsck --repair --drop-damaged forgets all names; no shard is touched");
		rc = KV_OK;
	}
	return rc;
}

/* Bytes of all blobs, for the one who shows how far it is. */
static enum kv_rc measure(struct checking *c, struct kv_err *err)
{
	char after[KV_KEY_MAX + 1] = "";
	size_t count = 1;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && count != 0) {
		struct kv_blob_list list;

		rc = kv_blob_list(kv_store_blobs(c->engine->store), "", after, 4096, &list, err);
		count = list.count;
		for (size_t i = 0; i < list.count; i++) {
			c->total += list.e[i].size;
			snprintf(after, sizeof after, "%s", list.e[i].key);
		}
		kv_blob_list_free(&list);
	}
	return core_is_damage(rc) ? KV_OK : rc;
}

/* What walks over the whole store may be stopped by damage, which is then a finding. */
static enum kv_rc settle(struct checking *c, enum kv_rc rc, const char *what, struct kv_err *err)
{
	if (!core_is_damage(rc))
		return rc;
	kv_wrap(err, rc, "%s", what);
	tell_err(c, "consensus", err, restore_all);
	return KV_OK;
}

enum kv_rc core_check_store(struct core_engine *e, const struct core_check *check, struct core_checked *out,
			    struct kv_err *err)
{
	struct checking c = {.engine = e, .check = check, .sum = out};
	enum kv_rc rc;

	*out = (struct core_checked){0};
	rc = check->progress != NULL ? measure(&c, err) : KV_OK;
	if (rc == KV_OK)
		rc = settle(&c, kv_store_verify(e->store, found_in_store, &c, err), "the database", err);
	if (rc == KV_OK)
		rc = check_names(&c, err);
	if (rc == KV_OK)
		rc = settle(&c, core_each_shard(e, check_shard, &c, err), "the list of shards", err);
	c.shard[0] = '\0';
	if (rc == KV_OK)
		rc = settle(&c, core_orphans_of_nobody(e, note_orphan, &c, err), "the list of blobs", err);
	free(c.seen);
	return rc;
}
