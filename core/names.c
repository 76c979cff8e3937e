/*
 * names.c - see names.h.
 *
 * Reading takes the document as decoded before, where the store has no other
 * writer and nothing was changed since; otherwise it reads it afresh, so that
 * every process on a shared store sees the same. A change makes a new document;
 * who still reads the old one holds it by reference. Old versions are forgotten
 * after each change.
 */
#include "core/names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec_impl.h"
#include "core/engine_impl.h"

#define NAMES_KEY "names"
enum { NAMES_SEED = 0x6e616d65 };

/* The document in memory. Its names ascend, each once: place() and who changes it rely on that. */
struct core_names_doc {
	unsigned refs;    /* under core_engine.names_mu once it is shared */
	uint64_t version; /* KV_NO_VERSION: there is none yet */
	uint64_t next_id;
	struct core_name *names; /* ascending */
	size_t count;
	const struct core_name **by_id; /* ascending by id; made when it is shared */
};

static void doc_fini(struct core_names_doc *doc)
{
	free(doc->names);
	free(doc->by_id);
	*doc = (struct core_names_doc){0};
}

static enum core_got doc_fill(struct core_names_doc *doc, const Pb__Names *pb)
{
	doc->next_id = pb->next_id;
	doc->names = calloc(pb->n_names + 2, sizeof *doc->names); /* room for one more */
	if (doc->names == NULL)
		return CORE_GOT_NOMEM;
	for (; doc->count < pb->n_names; doc->count++) {
		struct core_name *name = &doc->names[doc->count];
		const Pb__Name *from = pb->names[doc->count];

		if (strlen(from->name) >= sizeof name->name ||
		    (doc->count != 0 && strcmp(name[-1].name, from->name) >= 0) ||
		    !core_uuid_parse('s', from->target, strlen(from->target), &name->target.u))
			return CORE_GOT_BAD;
		strcpy(name->name, from->name); /* its length was checked */
		name->id = from->id;
		name->uid = from->uid;
		name->gid = from->gid;
		name->made_ms = from->made_ms;
	}
	return CORE_GOT_IT;
}

static enum kv_rc doc_read(struct core_engine *e, struct core_names_doc *doc, struct kv_err *err)
{
	struct kv_version head;
	const uint8_t *payload;
	size_t len;
	enum kv_rc rc = kv_consensus_head(kv_store_consensus(e->store), NAMES_KEY, &head, err);
	struct core_unpacking u;
	Pb__Names *pb;

	*doc = (struct core_names_doc){.next_id = 1};
	if (rc == KV_NOTFOUND) {
		doc->names = calloc(2, sizeof *doc->names);
		return doc->names != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
	}
	if (rc != KV_OK)
		return rc;
	doc->version = head.seqno;
	rc = core_unframe('N', NAMES_SEED, head.data, head.len, &payload, &len, err);
	if (rc == KV_OK) {
		core_unpacking_init(&u);
		pb = pb__names__unpack(&u.memory, len, payload);
		rc = core_got_rc(pb != NULL ? doc_fill(doc, pb) : core_not_unpacked(&u), "text", err);
		if (pb != NULL)
			pb__names__free_unpacked(pb, &u.memory);
	}
	free(head.data);
	if (rc != KV_OK) {
		doc_fini(doc);
		return kv_wrap(err, rc, "the document of names");
	}
	return KV_OK;
}

static enum kv_rc doc_pack(const struct core_names_doc *doc, struct core_buf *out, struct kv_err *err)
{
	Pb__Names pb = PB__NAMES__INIT;
	Pb__Name *all = calloc(doc->count + 1, sizeof *all);
	Pb__Name **list = calloc(doc->count + 1, sizeof(Pb__Name *));
	char(*targets)[CORE_ID_LEN] = calloc(doc->count + 1, sizeof *targets);
	uint8_t *payload = NULL;
	enum kv_rc rc = KV_NOMEM;

	*out = (struct core_buf){0};
	if (all == NULL || list == NULL || targets == NULL)
		goto out;
	for (size_t i = 0; i < doc->count; i++) {
		pb__name__init(&all[i]);
		all[i].name = doc->names[i].name;
		all[i].target = core_uuid_format('s', doc->names[i].target.u, targets[i]);
		all[i].id = doc->names[i].id;
		all[i].uid = doc->names[i].uid;
		all[i].gid = doc->names[i].gid;
		all[i].made_ms = doc->names[i].made_ms;
		list[i] = &all[i]; /* NOLINT(clang-analyzer-unix.Malloc): count + 1 does not wrap */
	}
	pb.next_id = doc->next_id;
	pb.names = list;
	pb.n_names = doc->count;
	payload = malloc(pb__names__get_packed_size(&pb) + 1);
	if (payload == NULL)
		goto out;
	rc = core_frame('N', NAMES_SEED, payload, pb__names__pack(&pb, payload), out, err);
out:
	free(payload);
	free(targets);
	free(list);
	free(all);
	return rc == KV_NOMEM ? kv_fail_rc(err, rc) : rc;
}

/* Where name is, or where it would go. */
static size_t place(const struct core_names_doc *doc, const char *name, bool *found)
{
	size_t lo = 0, hi = doc->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(doc->names[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*found = lo < doc->count && strcmp(doc->names[lo].name, name) == 0;
	return lo;
}

static void insert(struct core_names_doc *doc, const struct core_name *name)
{
	bool found;
	size_t at = place(doc, name->name, &found);

	memmove(&doc->names[at + 1], &doc->names[at], (doc->count - at) * sizeof *doc->names);
	doc->names[at] = *name;
	doc->count++;
}

static void take_out(struct core_names_doc *doc, size_t at)
{
	doc->count--;
	memmove(&doc->names[at], &doc->names[at + 1], (doc->count - at) * sizeof *doc->names);
}

/* --- changing -------------------------------------------------------------------------------------- */

struct edit {
	enum kv_rc (*run)(struct edit *edit, struct core_names_doc *doc, struct kv_err *err);
	struct core_name *name;      /* add */
	const struct core_name *all; /* add_all */
	size_t count;
	uint64_t added;
	uint64_t taken;
	const char *from; /* remove, rename */
	const char *to;
	bool no_replace;
	bool exchange;
};

/* Run the edit on the newest document and store the result; again if somebody else came first. */
static enum kv_rc change(struct core_engine *e, struct edit *edit, struct kv_err *err)
{
	struct kv_consensus *consensus = kv_store_consensus(e->store);
	enum kv_rc rc = KV_MISMATCH;

	if (e->traits.read_only)
		return kv_fail_rc(err, KV_READONLY);
	while (rc == KV_MISMATCH) {
		struct core_buf bytes = {0};
		struct core_names_doc doc;

		rc = doc_read(e, &doc, err);
		if (rc == KV_OK)
			rc = edit->run(edit, &doc, err);
		if (rc == KV_OK)
			rc = doc_pack(&doc, &bytes, err);
		if (rc == KV_OK)
			rc = kv_consensus_compare_and_set(consensus, NAMES_KEY, doc.version, doc.version + 1,
							  bytes.data, bytes.len, KV_SYNC, err);
		if (rc != KV_MISMATCH)
			core_names_forget(e); /* also when nobody knows whether it changed */
		/* Old versions serve nobody; failing to forget them now is made up for by the next change. */
		if (rc == KV_OK &&
		    kv_consensus_truncate(consensus, NAMES_KEY, doc.version + 1, NULL, NULL) != KV_OK)
			core_notice(e, "old versions of the names were not forgotten yet");
		core_buf_fini(&bytes);
		doc_fini(&doc);
	}
	return rc;
}

static enum kv_rc run_add(struct edit *edit, struct core_names_doc *doc, struct kv_err *err)
{
	bool found;

	(void)place(doc, edit->name->name, &found);
	if (found)
		return kv_fail(err, KV_EXISTS, "the name %s exists", edit->name->name);
	if (doc->count >= CORE_NAMES_MAX)
		return kv_fail(err, KV_QUOTA, "%d names are there", CORE_NAMES_MAX);
	edit->name->id = doc->next_id++;
	insert(doc, edit->name);
	return KV_OK;
}

enum kv_rc core_name_add(struct core_engine *e, struct core_name *name, struct kv_err *err)
{
	struct edit edit = {.run = run_add, .name = name};

	name->made_ms = core_now_us(e) / 1000;
	return change(e, &edit, err);
}

static int cmp_name(const void *a, const void *b)
{
	const struct core_name *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static enum kv_rc run_add_all(struct edit *edit, struct core_names_doc *doc, struct kv_err *err)
{
	struct core_name *grown = reallocarray(doc->names, doc->count + edit->count + 2, sizeof *grown);
	size_t before = doc->count, kept = 0;

	if (grown == NULL)
		return kv_fail_rc(err, KV_NOMEM);
	doc->names = grown;
	edit->added = edit->taken = 0;
	for (size_t i = 0; i < edit->count; i++) {
		struct core_names_doc old = {.names = doc->names, .count = before};
		bool found;
		size_t at = place(&old, edit->all[i].name, &found);

		if (found) {
			edit->taken += !core_uuid_eq(doc->names[at].target.u, edit->all[i].target.u);
			continue;
		}
		doc->names[doc->count] = edit->all[i];
		doc->names[doc->count++].id = doc->next_id++;
	}
	qsort(doc->names, doc->count, sizeof *doc->names, cmp_name);
	for (size_t i = 0; i < doc->count; i++) /* one that was asked for twice is made once */
		if (kept == 0 || strcmp(doc->names[kept - 1].name, doc->names[i].name) != 0)
			doc->names[kept++] = doc->names[i];
	doc->count = kept;
	edit->added = doc->count - before;
	if (doc->count > CORE_NAMES_MAX)
		return kv_fail(err, KV_QUOTA, "with these there would be more than %d names", CORE_NAMES_MAX);
	return KV_OK;
}

enum kv_rc core_name_add_all(struct core_engine *e, const struct core_name *names, size_t count,
			     uint64_t *added, uint64_t *taken, struct kv_err *err)
{
	struct edit edit = {.run = run_add_all, .all = names, .count = count};
	enum kv_rc rc = change(e, &edit, err);

	*added = rc == KV_OK ? edit.added : 0;
	*taken = rc == KV_OK ? edit.taken : 0;
	return rc;
}

static enum kv_rc run_remove(struct edit *edit, struct core_names_doc *doc, struct kv_err *err)
{
	bool found;
	size_t at = place(doc, edit->from, &found);

	if (!found)
		return kv_fail(err, KV_NOTFOUND, "no name %s", edit->from);
	take_out(doc, at);
	return KV_OK;
}

enum kv_rc core_name_remove(struct core_engine *e, const char *name, struct kv_err *err)
{
	struct edit edit = {.run = run_remove, .from = name};

	return change(e, &edit, err);
}

static enum kv_rc run_rename(struct edit *edit, struct core_names_doc *doc, struct kv_err *err)
{
	bool found, to_found;
	size_t at = place(doc, edit->from, &found), to_at = place(doc, edit->to, &to_found);
	struct core_name moved, other = {0};

	if (!found || (edit->exchange && !to_found))
		return kv_fail(err, KV_NOTFOUND, "no name %s", found ? edit->to : edit->from);
	if (to_found && edit->no_replace)
		return kv_fail(err, KV_EXISTS, "the name %s exists", edit->to);
	if (strcmp(edit->from, edit->to) == 0)
		return KV_OK;
	assert(doc->names != NULL);
	moved = doc->names[at];
	strcpy(moved.name, edit->to); /* the caller checked its length */
	if (to_found) {
		other = doc->names[to_at];
		take_out(doc, to_at);
		at = place(doc, edit->from, &found);
	}
	take_out(doc, at);
	insert(doc, &moved);
	if (edit->exchange) {
		strcpy(other.name, edit->from);
		insert(doc, &other);
	}
	return KV_OK;
}

enum kv_rc core_name_rename(struct core_engine *e, const char *from, const char *to, bool no_replace,
			    bool exchange, struct kv_err *err)
{
	struct edit edit = {
		.run = run_rename, .from = from, .to = to, .no_replace = no_replace, .exchange = exchange};

	return change(e, &edit, err);
}

/* --- reading --------------------------------------------------------------------------------------- */

static int cmp_id(const void *a, const void *b)
{
	const struct core_name *const *x = a, *const *y = b;

	return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

static void doc_put(struct core_engine *e, struct core_names_doc *doc)
{
	bool last;

	pthread_mutex_lock(&e->names_mu);
	last = --doc->refs == 0;
	pthread_mutex_unlock(&e->names_mu);
	if (last) {
		doc_fini(doc);
		free(doc);
	}
}

void core_names_forget(struct core_engine *e)
{
	struct core_names_doc *old;

	pthread_mutex_lock(&e->names_mu);
	e->names_changes++;
	old = e->names;
	e->names = NULL;
	pthread_mutex_unlock(&e->names_mu);
	if (old != NULL)
		doc_put(e, old);
}

/* A decoded document to share: a reference for the caller. */
static enum kv_rc doc_new(struct core_engine *e, struct core_names_doc **out, struct kv_err *err)
{
	struct core_names_doc *doc = calloc(1, sizeof *doc);
	enum kv_rc rc = doc != NULL ? doc_read(e, doc, err) : kv_fail_rc(err, KV_NOMEM);

	if (rc != KV_OK) {
		free(doc);
		return rc;
	}
	doc->refs = 1;
	doc->by_id = calloc(doc->count + 1, sizeof(const struct core_name *));
	if (doc->by_id == NULL) {
		doc_fini(doc);
		free(doc);
		return kv_fail_rc(err, KV_NOMEM);
	}
	for (size_t i = 0; i < doc->count; i++)
		doc->by_id[i] = &doc->names[i];
	qsort(doc->by_id, doc->count, sizeof(const struct core_name *), cmp_id);
	*out = doc;
	return KV_OK;
}

/* The document as it is now, a reference (doc_put). */
static enum kv_rc doc_get(struct core_engine *e, struct core_names_doc **out, struct kv_err *err)
{
	uint64_t changes;
	enum kv_rc rc;

	pthread_mutex_lock(&e->names_mu);
	changes = e->names_changes;
	*out = e->traits.sole_owner ? e->names : NULL;
	if (*out != NULL)
		(*out)->refs++;
	pthread_mutex_unlock(&e->names_mu);
	if (*out != NULL)
		return KV_OK;
	rc = doc_new(e, out, err);
	if (rc != KV_OK)
		return rc;
	pthread_mutex_lock(&e->names_mu);
	/* Keep it, unless it was changed while we read. */
	if (e->traits.sole_owner && e->names == NULL && e->names_changes == changes) {
		e->names = *out;
		e->names->refs++;
	}
	pthread_mutex_unlock(&e->names_mu);
	return KV_OK;
}

enum kv_rc core_name_get(struct core_engine *e, const char *name, struct core_name *out, struct kv_err *err)
{
	struct core_names_doc *doc;
	bool found;
	enum kv_rc rc = doc_get(e, &doc, err);
	size_t at;

	if (rc != KV_OK)
		return rc;
	at = place(doc, name, &found);
	if (found)
		*out = doc->names[at];
	doc_put(e, doc);
	return found ? KV_OK : kv_fail(err, KV_NOTFOUND, "no name %s", name);
}

enum kv_rc core_name_get_by_id(struct core_engine *e, uint64_t id, struct core_name *out, struct kv_err *err)
{
	const struct core_name key = {.id = id}, *wanted = &key, **found;
	struct core_names_doc *doc;
	enum kv_rc rc = doc_get(e, &doc, err);

	if (rc != KV_OK)
		return rc;
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): the array is of pointers */
	found = bsearch(&wanted, doc->by_id, doc->count, sizeof wanted, cmp_id);
	if (found != NULL)
		*out = **found;
	doc_put(e, doc);
	return found != NULL ? KV_OK : kv_fail_rc(err, KV_NOTFOUND);
}

enum kv_rc core_name_list(struct core_engine *e, struct core_name **out, size_t *count, struct kv_err *err)
{
	struct core_names_doc doc;
	enum kv_rc rc = doc_read(e, &doc, err);

	*out = rc == KV_OK ? doc.names : NULL;
	*count = rc == KV_OK ? doc.count : 0;
	return rc;
}

void core_name_escape(const char *name, char out[4 * CORE_NAME_LEN])
{
	for (; *name != '\0'; name++) {
		unsigned char c = (unsigned char)*name;

		if (c <= ' ' || c == 127 || c == '\\')
			out += snprintf(out, 5, "\\%03o", c);
		else
			*out++ = *name;
	}
	*out = '\0';
}
