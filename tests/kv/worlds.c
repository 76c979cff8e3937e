/* worlds.c - see worlds.h. */
#include "tests/kv/worlds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv/rocks_log.h"

static void open_here(struct world *w)
{
	struct kv_err err = {0};

	switch (w->kind) {
	case WORLD_MEM:
		w->store = kv_store_mem_new();
		break;
	case WORLD_FAULT:
		w->faults = kv_faults_new();
		w->store = kv_store_pair(kv_consensus_fault_new(kv_consensus_mem_new(), w->faults),
					 kv_blob_fault_new(kv_blob_mem_new(), w->faults),
					 (struct kv_store_traits){.sole_owner = true});
		break;
	case WORLD_ROCKS:
		ck_assert_msg(kv_rocks_open(w->dir, false, &w->rocks, &err) == KV_OK, "%s", err.msg);
		w->c = kv_rocks_consensus(w->rocks);
		w->b = kv_rocks_blobs(w->rocks);
		return;
	case WORLD_EMBEDDED:
		ck_assert_msg(kv_store_embedded_open(w->dir, false, "a test", &w->store, &err) == KV_OK, "%s",
			      err.msg);
		break;
	case WORLD_FILE:
		ck_assert_msg(kv_blob_file_open(w->dir, false, &w->b, &err) == KV_OK, "%s", err.msg);
		return;
	case WORLD_COUNT:
		abort();
	}
	ck_assert_ptr_nonnull(w->store);
	w->c = kv_store_consensus(w->store);
	w->b = kv_store_blobs(w->store);
}

static void close_here(struct world *w)
{
	if (w->store)
		kv_store_close(w->store);
	else if (!w->rocks)
		kv_blobs_close(w->b);
	kv_rocks_close(w->rocks);
	kv_faults_free(w->faults);
	*w = (struct world){.kind = w->kind, .dir = w->dir};
}

void world_open(struct world *w, enum world_kind kind)
{
	*w = (struct world){.kind = kind, .dir = check_dir()};
	open_here(w);
}

void world_reopen(struct world *w)
{
	close_here(w);
	open_here(w);
}

void world_close(struct world *w)
{
	close_here(w);
	check_rmtree(w->dir);
	free(w->dir);
	w->dir = NULL;
}

static void want_rc(enum kv_rc rc, enum kv_rc want, const char *key, const struct kv_err *err)
{
	ck_assert_msg(rc == want, "%s: %s, wanted %s: %s", key, kv_rc_name(rc), kv_rc_name(want), err->msg);
	if (rc != KV_OK)
		ck_assert_int_gt((int)strlen(err->msg), 0);
}

void want_cas(struct kv_consensus *c, const char *key, uint64_t expected, uint64_t seqno, const char *text,
	      enum kv_rc want)
{
	struct kv_err err = {0};

	want_rc(kv_consensus_compare_and_set(c, key, expected, seqno, text, strlen(text), KV_SYNC, &err),
		want, key, &err);
}

void want_head(struct kv_consensus *c, const char *key, uint64_t seqno, const char *text)
{
	struct kv_err err = {0};
	struct kv_version v;
	enum kv_rc rc = kv_consensus_head(c, key, &v, &err);

	want_rc(rc, seqno ? KV_OK : KV_NOTFOUND, key, &err);
	ck_assert_uint_eq(v.seqno, seqno);
	if (seqno) {
		ck_assert_uint_eq(v.len, strlen(text));
		ck_assert_mem_eq(v.data, text, v.len);
	}
	free(v.data);
}

void want_set(struct kv_blobs *b, const char *key, const char *text, enum kv_rc want)
{
	struct kv_err err = {0};

	want_rc(kv_blob_set(b, key, text, strlen(text), &err), want, key, &err);
}

void want_blob(struct kv_blobs *b, const char *key, const char *text)
{
	struct kv_err err = {0};
	char buf[256];
	size_t got;

	want_rc(kv_blob_get(b, key, 0, buf, sizeof(buf), &got, &err), text ? KV_OK : KV_NOTFOUND, key, &err);
	ck_assert_uint_eq(got, text ? strlen(text) : 0);
	if (got)
		ck_assert_mem_eq(buf, text, got);
}

static char line[4096];

static void add_word(const char *word)
{
	size_t len = strlen(line);

	snprintf(line + len, sizeof(line) - len, "%s%s", len ? " " : "", word);
}

const char *seqnos(struct kv_consensus *c, const char *key, uint64_t from, size_t limit)
{
	struct kv_versions v;
	char word[32];

	ck_assert_int_eq(kv_consensus_scan(c, key, from, limit, &v, NULL), KV_OK);
	line[0] = '\0';
	for (size_t i = 0; i < v.count; i++) {
		snprintf(word, sizeof(word), "%llu", (unsigned long long)v.v[i].seqno);
		add_word(word);
	}
	kv_versions_free(&v);
	return line;
}

const char *keys(struct kv_consensus *c, const char *after, size_t limit)
{
	struct kv_keys k;

	ck_assert_int_eq(kv_consensus_list_keys(c, after, limit, &k, NULL), KV_OK);
	line[0] = '\0';
	for (size_t i = 0; i < k.count; i++)
		add_word(k.keys[i]);
	kv_keys_free(&k);
	return line;
}

const char *blobs(struct kv_blobs *b, const char *prefix, const char *after, size_t limit)
{
	struct kv_blob_list l;

	ck_assert_int_eq(kv_blob_list(b, prefix, after, limit, &l, NULL), KV_OK);
	line[0] = '\0';
	for (size_t i = 0; i < l.count; i++)
		add_word(l.e[i].key);
	kv_blob_list_free(&l);
	return line;
}

off_t log_end(int fd)
{
	struct rocks_log log = {0};
	off_t len = lseek(fd, 0, SEEK_END);
	uint8_t *bytes = malloc((size_t)len + 1);

	ck_assert_ptr_nonnull(bytes);
	ck_assert_int_eq(pread(fd, bytes, (size_t)len, 0), len);
	rocks_log_read(bytes, (size_t)len, &log);
	free(bytes);
	return (off_t)log.good;
}
