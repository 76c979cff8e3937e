/*
 * nodes.c - see nodes.h.
 */
#include "fs/nodes.h"

#include <stdlib.h>
#include <string.h>

enum { KIND_SHIFT = 56, SLOT_SHIFT = 32, SLOT_MAX = 1 << 24 };

#define LOW56 (((uint64_t)1 << KIND_SHIFT) - 1)

static uint64_t make(enum fs_kind kind, uint64_t low)
{
	return (uint64_t)kind << KIND_SHIFT | (low & LOW56);
}

void fs_nodes_init(struct fs_nodes *n)
{
	*n = (struct fs_nodes){0};
	pthread_mutex_init(&n->mu, NULL);
}

void fs_nodes_fini(struct fs_nodes *n)
{
	struct fs_entry *e, *next;

	HASH_ITER(hh, n->entries, e, next)
	{
		HASH_DEL(n->entries, e); /* NOLINT(clang-analyzer-*): it does not follow uthash */
		free(e->name);
		free(e);
	}
	HASH_CLEAR(hh, n->slots_by_id);
	for (uint32_t i = 0; i < n->slot_count; i++)
		free(n->slots[i]);
	free(n->slots);
	free(n->free_next);
	pthread_mutex_destroy(&n->mu);
}

uint64_t fs_nodeid_top(enum fs_kind kind, uint64_t name_id)
{
	return kind == FS_ROOT ? 1 : make(kind, name_id);
}

enum { SLOT_KEY_LEN = offsetof(struct fs_slot, number) - offsetof(struct fs_slot, id) };

/* A number that no slot has: of one that is over, or the next one. False: out of memory or of numbers. */
static bool free_number_locked(struct fs_nodes *n, uint32_t *number)
{
	uint32_t cap = n->slot_cap != 0 ? 2 * n->slot_cap : 64;
	struct fs_slot **grown;

	if (n->slot_free != 0) {
		*number = n->slot_free - 1;
		n->slot_free = n->free_next[*number];
		return true;
	}
	if (n->slot_count == n->slot_cap) {
		uint32_t *next;

		if (n->slot_count >= SLOT_MAX)
			return false;
		grown = reallocarray(n->slots, cap, sizeof(struct fs_slot *));
		if (grown == NULL)
			return false;
		n->slots = grown;
		next = reallocarray(n->free_next, cap, sizeof *next);
		if (next == NULL)
			return false;
		n->free_next = next;
		n->slot_cap = cap;
	}
	*number = n->slot_count++;
	return true;
}

static void slot_put_locked(struct fs_nodes *n, struct fs_slot *s, uint64_t lookups)
{
	s->lookups -= lookups < s->lookups ? lookups : s->lookups;
	if (s->lookups != 0)
		return;
	HASH_DEL(n->slots_by_id, s);
	n->slots[s->number] = NULL;
	n->free_next[s->number] = n->slot_free;
	n->slot_free = s->number + 1;
	free(s);
}

/* The slot for this life of the shard, looked up once more; NULL: out of memory or of slots. */
static struct fs_slot *slot_locked(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno)
{
	struct fs_slot key = {.id = id, .first_seqno = first_seqno}, *s;

	HASH_FIND(hh, n->slots_by_id, &key.id, SLOT_KEY_LEN, s);
	if (s != NULL) {
		s->lookups++;
		return s;
	}
	s = calloc(1, sizeof *s);
	if (s == NULL || !free_number_locked(n, &s->number)) {
		free(s);
		return NULL;
	}
	s->id = id;
	s->first_seqno = first_seqno;
	s->lookups = 1;
	HASH_ADD(hh, n->slots_by_id, id, SLOT_KEY_LEN, s);
	if (!core_hashed(s)) {
		n->free_next[s->number] = n->slot_free;
		n->slot_free = s->number + 1;
		free(s);
		return NULL;
	}
	n->slots[s->number] = s;
	return s;
}

/* Whether each lookup is a file of its own. */
static bool is_fresh(uint64_t kind)
{
	return kind == FS_APPEND || kind == FS_CTL;
}

static uint32_t fresh_locked(struct fs_nodes *n, struct fs_slot *s, enum fs_kind kind)
{
	uint32_t *closed = &s->closed[kind == FS_CTL], number = *closed;

	*closed = 0;
	return number != 0 ? number : ++n->next_fresh;
}

uint64_t fs_nodeid_shard(struct fs_nodes *n, enum fs_kind kind, struct core_shard_id id, uint64_t first_seqno)
{
	struct fs_slot *s;
	uint64_t nodeid = 0;

	pthread_mutex_lock(&n->mu);
	s = slot_locked(n, id, first_seqno);
	if (s != NULL)
		nodeid = make(kind, (uint64_t)s->number << SLOT_SHIFT |
					    (is_fresh(kind) ? fresh_locked(n, s, kind) : 0));
	pthread_mutex_unlock(&n->mu);
	return nodeid;
}

void fs_node_closed(struct fs_nodes *n, uint64_t nodeid)
{
	uint64_t kind = nodeid >> KIND_SHIFT;
	uint32_t slot = (uint32_t)((nodeid & LOW56) >> SLOT_SHIFT);

	if (!is_fresh(kind))
		return;
	pthread_mutex_lock(&n->mu);
	if (slot < n->slot_count && n->slots[slot] != NULL)
		n->slots[slot]->closed[kind == FS_CTL] = (uint32_t)nodeid;
	pthread_mutex_unlock(&n->mu);
}

static struct fs_entry *entry_new_locked(struct fs_nodes *n, enum fs_kind kind, struct core_shard_id id,
					 uint64_t first_seqno, uint64_t number)
{
	struct fs_slot *s = slot_locked(n, id, first_seqno);
	struct fs_entry *e = s != NULL ? calloc(1, sizeof *e) : NULL;

	if (e == NULL) {
		if (s != NULL)
			slot_put_locked(n, s, 1);
		return NULL;
	}
	e->nodeid = make(kind, number);
	e->slot = s->number;
	e->lookups = 1;
	HASH_ADD(hh, n->entries, nodeid, sizeof e->nodeid, e);
	if (!core_hashed(e)) {
		slot_put_locked(n, s, 1);
		free(e);
		return NULL;
	}
	return e;
}

/* Whether e is of this life of the shard. */
static bool is_of_locked(const struct fs_nodes *n, const struct fs_entry *e, struct core_shard_id id,
			 uint64_t first_seqno)
{
	const struct fs_slot *s = n->slots[e->slot];

	return core_uuid_eq(s->id.u, id.u) && s->first_seqno == first_seqno;
}

static bool same_when(struct fs_when a, struct fs_when b)
{
	return a.now == b.now && core_frontier_eq(a.at, b.at);
}

uint64_t fs_nodeid_time(struct fs_nodes *n, enum fs_kind kind, struct core_shard_id id, uint64_t first_seqno,
			struct fs_when when)
{
	uint64_t words[] = {first_seqno, when.now, when.at.empty, when.at.empty ? 0 : when.at.t};
	uint64_t number = XXH3_64bits_withSeed(words, sizeof words, XXH3_64bits(&id, sizeof id)), nodeid;
	struct fs_entry *e;

	pthread_mutex_lock(&n->mu);
	for (;; number++) { /* on, should two times ever come to the same number */
		nodeid = make(kind, number);
		HASH_FIND(hh, n->entries, &nodeid, sizeof nodeid, e);
		if (e == NULL || (same_when(e->when, when) && is_of_locked(n, e, id, first_seqno)))
			break;
	}
	if (e != NULL) {
		e->lookups++;
	} else {
		e = entry_new_locked(n, kind, id, first_seqno, number);
		if (e != NULL)
			e->when = when;
	}
	pthread_mutex_unlock(&n->mu);
	return e != NULL ? nodeid : 0;
}

struct fs_batch fs_batch_of(const struct core_batch *b)
{
	struct fs_batch of = {.lower = b->lower, .upper = b->upper, .committed_ms = b->committed_ms};

	/* With the bounds, all that the text follows from. */
	for (size_t i = 0; i < b->part_count; i++) {
		of.mark = XXH3_64bits_withSeed(&b->parts[i].id, sizeof b->parts[i].id,
					       of.mark ^ b->parts[i].rewrite_ts);
		of.stored += b->parts[i].size;
	}
	return of;
}

bool fs_batch_eq(const struct fs_batch *a, const struct fs_batch *b)
{
	return core_frontier_eq(a->lower, b->lower) && core_frontier_eq(a->upper, b->upper) &&
	       a->mark == b->mark;
}

/* The nodeid of a batch; *e: its entry, NULL if there is none. */
static uint64_t find_batch_locked(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno,
				  const struct fs_batch *batch, struct fs_entry **e)
{
	uint64_t words[] = {first_seqno,        batch->lower.empty, batch->lower.t,
			    batch->upper.empty, batch->upper.t,     batch->mark};
	uint64_t number = XXH3_64bits_withSeed(words, sizeof words, XXH3_64bits(&id, sizeof id)), nodeid;

	for (;; number++) { /* on, should two batches ever come to the same number */
		nodeid = make(FS_BATCH, number);
		HASH_FIND(hh, n->entries, &nodeid, sizeof nodeid, *e);
		if (*e == NULL || (fs_batch_eq(&(*e)->batch, batch) && is_of_locked(n, *e, id, first_seqno)))
			return nodeid;
	}
}

uint64_t fs_nodeid_batch(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno,
			 const struct fs_batch *batch, uint64_t size)
{
	struct fs_entry *e;
	uint64_t nodeid;

	pthread_mutex_lock(&n->mu);
	nodeid = find_batch_locked(n, id, first_seqno, batch, &e);
	if (e != NULL) {
		e->lookups++;
	} else {
		e = entry_new_locked(n, FS_BATCH, id, first_seqno, nodeid);
		if (e != NULL) {
			e->batch = *batch;
			e->size = size;
		}
	}
	pthread_mutex_unlock(&n->mu);
	return e != NULL ? nodeid : 0;
}

uint64_t fs_nodeid_id(struct fs_nodes *n, enum fs_kind kind, struct core_shard_id id, uint64_t first_seqno,
		      struct core_uuid of)
{
	uint64_t number = XXH3_64bits_withSeed(&of, sizeof of, XXH3_64bits(&id, sizeof id) ^ first_seqno);
	uint64_t nodeid;
	struct fs_entry *e;

	pthread_mutex_lock(&n->mu);
	for (;; number++) { /* on, should two ids ever come to the same number */
		nodeid = make(kind, number);
		HASH_FIND(hh, n->entries, &nodeid, sizeof nodeid, e);
		/* a mount writes to many shards under one id */
		if (e == NULL || (core_uuid_eq(e->id, of) && is_of_locked(n, e, id, first_seqno)))
			break;
	}
	if (e != NULL) {
		e->lookups++;
	} else {
		e = entry_new_locked(n, kind, id, first_seqno, number);
		if (e != NULL)
			e->id = of;
	}
	pthread_mutex_unlock(&n->mu);
	return e != NULL ? nodeid : 0;
}

uint64_t fs_nodeid_hold(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno, const char *name)
{
	uint64_t number = XXH3_64bits_withSeed(name, strlen(name), XXH3_64bits(&id, sizeof id) ^ first_seqno);
	uint64_t nodeid;
	struct fs_entry *e;

	pthread_mutex_lock(&n->mu);
	for (;; number++) { /* on, should two names ever come to the same number */
		nodeid = make(FS_HOLD, number & LOW56);
		HASH_FIND(hh, n->entries, &nodeid, sizeof nodeid, e);
		if (e == NULL || (strcmp(e->name, name) == 0 && is_of_locked(n, e, id, first_seqno)))
			break;
	}
	if (e != NULL) {
		e->lookups++;
	} else {
		char *copy = strdup(name);

		e = copy != NULL ? entry_new_locked(n, FS_HOLD, id, first_seqno, number & LOW56) : NULL;
		if (e != NULL)
			e->name = copy;
		else
			free(copy);
	}
	pthread_mutex_unlock(&n->mu);
	return e != NULL ? nodeid : 0;
}

void fs_node_note_size(struct fs_nodes *n, uint64_t nodeid, uint64_t size)
{
	struct fs_entry *e;

	pthread_mutex_lock(&n->mu);
	HASH_FIND(hh, n->entries, &nodeid, sizeof nodeid, e);
	if (e != NULL)
		e->size = size;
	pthread_mutex_unlock(&n->mu);
}

bool fs_node_batch_size(struct fs_nodes *n, struct core_shard_id id, uint64_t first_seqno,
			const struct fs_batch *batch, uint64_t *size)
{
	struct fs_entry *e;

	pthread_mutex_lock(&n->mu);
	(void)find_batch_locked(n, id, first_seqno, batch, &e);
	if (e != NULL)
		*size = e->size;
	pthread_mutex_unlock(&n->mu);
	return e != NULL;
}

bool fs_node_get(struct fs_nodes *n, uint64_t nodeid, struct fs_node *out)
{
	uint64_t kind = nodeid >> KIND_SHIFT;
	struct fs_entry *e = NULL;
	uint32_t slot;
	bool known;

	*out = (struct fs_node){.nodeid = nodeid, .kind = FS_ROOT};
	if (nodeid == 1)
		return true;
	if (kind <= FS_ROOT || kind >= FS_KIND_COUNT)
		return false;
	out->kind = (enum fs_kind)kind;
	if (out->kind < FS_SHARD) {
		out->name_id = nodeid & LOW56;
		return true;
	}
	pthread_mutex_lock(&n->mu);
	slot = (uint32_t)((nodeid & LOW56) >> SLOT_SHIFT);
	if (out->kind >= FS_AS_OF) {
		HASH_FIND(hh, n->entries, &nodeid, sizeof nodeid, e);
		slot = e != NULL ? e->slot : UINT32_MAX;
	}
	if (e != NULL) {
		out->when = e->when;
		out->batch = e->batch;
		out->id = e->id;
		out->size = e->size;
		if (e->name != NULL)
			memcpy(out->name, e->name, strlen(e->name) + 1);
	}
	known = slot < n->slot_count && n->slots[slot] != NULL;
	if (known) {
		out->shard = n->slots[slot]->id;
		out->first_seqno = n->slots[slot]->first_seqno;
	}
	pthread_mutex_unlock(&n->mu);
	return known;
}

struct fs_nodes_count fs_nodes_count(struct fs_nodes *n)
{
	struct fs_nodes_count c;

	pthread_mutex_lock(&n->mu);
	c = (struct fs_nodes_count){.entries = HASH_COUNT(n->entries),
				    .shards = HASH_CNT(hh, n->slots_by_id)};
	pthread_mutex_unlock(&n->mu);
	return c;
}

uint64_t fs_node_ino(uint64_t nodeid)
{
	if (is_fresh(nodeid >> KIND_SHIFT))
		return nodeid & ~(((uint64_t)1 << SLOT_SHIFT) - 1);
	return nodeid;
}

void fs_node_forget(struct fs_nodes *n, uint64_t nodeid, uint64_t lookups)
{
	uint64_t kind = nodeid >> KIND_SHIFT;
	uint32_t slot = (uint32_t)((nodeid & LOW56) >> SLOT_SHIFT);
	struct fs_entry *e = NULL;

	if (kind < FS_SHARD || kind >= FS_KIND_COUNT)
		return;
	pthread_mutex_lock(&n->mu);
	if (kind >= FS_AS_OF)
		HASH_FIND(hh, n->entries, &nodeid, sizeof nodeid, e);
	else if (slot < n->slot_count && n->slots[slot] != NULL)
		slot_put_locked(n, n->slots[slot], lookups);
	if (e != NULL) {
		e->lookups -= lookups < e->lookups ? lookups : e->lookups;
		if (e->lookups == 0) {
			HASH_DEL(n->entries, e);
			slot_put_locked(n, n->slots[e->slot], 1);
		} else {
			e = NULL;
		}
	}
	pthread_mutex_unlock(&n->mu);
	if (e != NULL) {
		free(e->name);
		free(e);
	}
}
