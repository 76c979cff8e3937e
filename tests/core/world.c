/*
 * world.c - see world.h. The stores in memory are lent to each engine: a layer
 * that hands every call on and whose close closes nothing.
 */
#include "tests/core/world.h"

#include "kv/blob_impl.h"
#include "kv/consensus_impl.h"
#include "tests/check_util.h"

const struct core_owner any_owner = {.uid = 1, .gid = 2, .mode = 0755};

/* --- lending --------------------------------------------------------------------------------------- */

struct lent_consensus {
	struct kv_consensus base;
	struct kv_consensus *to;
};

static struct kv_consensus *to(struct kv_consensus *c)
{
	return ((struct lent_consensus *)c)->to;
}

static enum kv_rc lent_head(struct kv_consensus *c, const char *key, struct kv_version *out,
			    struct kv_err *err)
{
	return kv_consensus_head(to(c), key, out, err);
}

static enum kv_rc lent_cas(struct kv_consensus *c, const char *key, uint64_t expected, uint64_t seqno,
			   const void *data, size_t len, enum kv_sync sync, struct kv_err *err)
{
	return kv_consensus_compare_and_set(to(c), key, expected, seqno, data, len, sync, err);
}

static enum kv_rc lent_scan(struct kv_consensus *c, const char *key, uint64_t from, size_t limit,
			    struct kv_versions *out, struct kv_err *err)
{
	return kv_consensus_scan(to(c), key, from, limit, out, err);
}

static enum kv_rc lent_truncate(struct kv_consensus *c, const char *key, uint64_t seqno, uint64_t *removed,
				struct kv_err *err)
{
	return kv_consensus_truncate(to(c), key, seqno, removed, err);
}

static enum kv_rc lent_remove(struct kv_consensus *c, const char *key, uint64_t expected, struct kv_err *err)
{
	return kv_consensus_remove(to(c), key, expected, err);
}

static enum kv_rc lent_list_keys(struct kv_consensus *c, const char *after, size_t limit, struct kv_keys *out,
				 struct kv_err *err)
{
	return kv_consensus_list_keys(to(c), after, limit, out, err);
}

static void lent_close(struct kv_consensus *c)
{
	free(c);
}

static const struct kv_consensus_ops lent_consensus_ops = {
	.name = "lent",
	.head = lent_head,
	.compare_and_set = lent_cas,
	.scan = lent_scan,
	.truncate = lent_truncate,
	.remove = lent_remove,
	.list_keys = lent_list_keys,
	.close = lent_close,
};

struct lent_blobs {
	struct kv_blobs base;
	struct kv_blobs *to;
};

static enum kv_rc lent_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			   size_t *got, struct kv_err *err)
{
	return kv_blob_get(((struct lent_blobs *)b)->to, key, offset, buf, len, got, err);
}

static enum kv_rc lent_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			   struct kv_err *err)
{
	return kv_blob_set(((struct lent_blobs *)b)->to, key, data, len, err);
}

static enum kv_rc lent_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
			      struct kv_err *err)
{
	return kv_blob_delete(((struct lent_blobs *)b)->to, key, existed, size, err);
}

static enum kv_rc lent_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			    struct kv_blob_list *out, struct kv_err *err)
{
	return kv_blob_list(((struct lent_blobs *)b)->to, prefix, after, limit, out, err);
}

static void lent_blobs_close(struct kv_blobs *b)
{
	free(b);
}

static const struct kv_blob_ops lent_blob_ops = {
	.name = "lent",
	.get = lent_get,
	.set = lent_set,
	.delete = lent_delete,
	.list = lent_list,
	.close = lent_blobs_close,
};

/* --- disks ----------------------------------------------------------------------------------------- */

struct disk *disk_new(enum disk_kind kind)
{
	struct disk *d = calloc(1, sizeof(*d));

	d->kind = kind;
	if (kind == DISK_EMBEDDED) {
		d->dir = check_dir();
		return d;
	}
	d->consensus = kv_consensus_mem_new();
	d->blobs = kv_blob_mem_new();
	if (kind != DISK_MEM)
		d->faults = kv_faults_new();
	return d;
}

void disk_free(struct disk *d)
{
	kv_consensus_close(d->consensus);
	kv_blobs_close(d->blobs);
	kv_faults_free(d->faults);
	if (d->dir != NULL)
		check_rmtree(d->dir);
	free(d->dir);
	free(d);
}

static struct kv_store *lend(struct disk *d)
{
	struct lent_consensus *lc = calloc(1, sizeof(*lc));
	struct lent_blobs *lb = calloc(1, sizeof(*lb));
	struct kv_consensus *c = &lc->base;
	struct kv_blobs *b = &lb->base;

	*lc = (struct lent_consensus){.base.ops = &lent_consensus_ops, .to = d->consensus};
	*lb = (struct lent_blobs){.base.ops = &lent_blob_ops, .to = d->blobs};
	if (d->faults != NULL) {
		c = kv_consensus_fault_new(c, d->faults);
		b = kv_blob_fault_new(b, d->faults);
	}
	return kv_store_pair(c, b, (struct kv_store_traits){.sole_owner = d->kind != DISK_SHARED});
}

static uint64_t tick(void *arg)
{
	return ((struct disk *)arg)->now_us++;
}

enum kv_rc disk_try_open(struct disk *d, struct core_engine **out, struct kv_err *err)
{
	struct core_engine_config config = {.no_upkeep = !d->upkeep,
					    .rest_ms = 1,
					    .host = d->host,
					    .purpose = d->purpose,
					    .now_us = d->now_us != 0 ? tick : NULL,
					    .now_arg = d};
	struct kv_store *store = NULL;
	enum kv_rc rc = KV_OK;

	*out = NULL;
	if (d->kind == DISK_EMBEDDED)
		rc = kv_store_embedded_open(d->dir, false, "a test", &store, err);
	else if ((store = lend(d)) == NULL)
		rc = kv_fail_rc(err, KV_NOMEM);
	return rc == KV_OK ? core_engine_open(store, &config, out, err) : rc;
}

struct core_engine *disk_open(struct disk *d)
{
	struct core_engine *e;
	struct kv_err err;

	ck_ok(disk_try_open(d, &e, &err), err);
	return e;
}

void disk_fail(struct disk *d, unsigned nth, enum kv_fault kind)
{
	kv_faults_arm(d->faults, nth, kind, false);
}

void disk_heal(struct disk *d)
{
	if (d->faults != NULL)
		kv_faults_arm(d->faults, 1, KV_FAULT_NONE, false);
}

size_t disk_blob_count(struct disk *d)
{
	struct kv_blob_list list;
	struct kv_err err;

	ck_ok(kv_blob_list(d->blobs, "", "", 1000000, &list, &err), err);
	size_t count = list.count;
	kv_blob_list_free(&list);
	return count;
}

size_t disk_key_count(struct disk *d)
{
	struct kv_keys keys;
	struct kv_err err;

	ck_ok(kv_consensus_list_keys(d->consensus, "", 1000000, &keys, &err), err);
	size_t count = keys.count;
	kv_keys_free(&keys);
	return count;
}

/* --- rigs ------------------------------------------------------------------------------------------ */

struct rig rig_new(enum disk_kind kind)
{
	return rig_on(disk_new(kind));
}

struct rig rig_on(struct disk *d)
{
	struct rig r = {.disk = d, .id.u = core_uuid_new()};
	struct kv_err err;

	r.engine = disk_open(r.disk);
	ck_ok(core_shard_create(r.engine, r.id, any_owner, &err), err);
	ck_ok(core_shard_open(r.engine, r.id, &r.shard, &err), err);
	return r;
}

void rig_free(struct rig *r)
{
	disk_heal(r->disk);
	core_shard_close(r->shard);
	core_engine_close(r->engine);
	disk_free(r->disk);
}

void rig_crash(struct rig *r)
{
	if (r->disk->faults != NULL)
		kv_faults_arm(r->disk->faults, 1, KV_FAULT_BEFORE, true);
	core_shard_close(r->shard);
	core_engine_close(r->engine);
	r->shard = NULL;
	r->engine = NULL;
	disk_heal(r->disk);
}

void rig_open(struct rig *r)
{
	struct kv_err err;

	r->engine = disk_open(r->disk);
	ck_ok(core_shard_open(r->engine, r->id, &r->shard, &err), err);
}

void rig_crash_and_reopen(struct rig *r)
{
	rig_crash(r);
	rig_open(r);
}

void rig_settle(struct rig *r)
{
	core_worker_drain(r->engine->worker);
}

/* --- words ----------------------------------------------------------------------------------------- */

struct core_token token_of(uint64_t n)
{
	struct core_token token = {.u.b = {1}};

	memcpy(token.u.b + 8, &n, 8);
	return token;
}

static struct core_frontier frontier_of(const char *word)
{
	struct core_frontier f;

	ck_assert_msg(core_frontier_parse(word, strlen(word), &f), "%s", word);
	return f;
}

static void parse_word(struct core_append *a, char *word)
{
	char *value = strchr(word, '=');

	ck_assert_msg(value != NULL, "%s", word);
	*value++ = '\0';
	if (strcmp(word, "expected_upper") == 0 && strcmp(value, "*") == 0) {
		a->lower_star = true;
	} else if (strcmp(word, "expected_upper") == 0) {
		a->lower = frontier_of(value);
	} else if (strcmp(word, "lower") == 0) {
		a->lower = frontier_of(value);
		a->idempotent = true;
	} else if (strcmp(word, "upper") == 0 || (strcmp(word, "new_upper") == 0 && value[0] != '+')) {
		a->upper = frontier_of(value);
	} else if (strcmp(word, "new_upper") == 0) {
		a->upper_plus = true;
		a->plus = strtoull(value + 1, NULL, 10);
	} else if (strcmp(word, "token") == 0) {
		a->has_token = true;
		a->token = token_of(strtoull(value, NULL, 10));
	} else if (strcmp(word, "since") == 0) {
		a->has_since = true;
		a->since = frontier_of(value);
	} else if (strcmp(word, "rewrite_ts") == 0 && strcmp(value, "*") == 0) {
		a->rewrite_star = true;
	} else if (strcmp(word, "rewrite_ts") == 0) {
		a->has_rewrite = true;
		a->rewrite_ts = strtoull(value, NULL, 10);
	} else {
		ck_abort_msg("what is %s?", word);
	}
}

struct core_append parse_ask(const char *options)
{
	struct core_append a = {0};
	char *copy = strdup(options), *rest = copy, *word;

	while ((word = strsep(&rest, " ")) != NULL)
		if (word[0] != '\0')
			parse_word(&a, word);
	free(copy);
	return a;
}

void parse_rows(const char *rows, struct model *out)
{
	struct core_row_scratch scratch = {0};
	char *copy = strdup(rows), *rest = copy, *line;
	struct core_row row;
	struct kv_err err;

	while ((line = strsep(&rest, ";")) != NULL) {
		line += strspn(line, " ");
		if (line[0] == '\0')
			continue;
		for (char *p = line; *p != '\0'; p++)
			*p = *p == ' ' ? '\t' : *p;
		ck_ok(core_row_parse(line, strlen(line), &scratch, &row, &err), err);
		model_add(out, &row.update, row.star);
	}
	core_row_scratch_free(&scratch);
	free(copy);
}

enum kv_rc append(struct core_shard *s, const char *options, const char *rows, struct core_appended *r,
		  struct kv_err *err)
{
	struct core_append ask = parse_ask(options);
	struct model m = {0};
	struct core_txn *t;
	enum kv_rc rc;

	*r = (struct core_appended){0};
	parse_rows(rows, &m);
	rc = core_txn_begin(s, &ask, &t, err);
	for (size_t i = 0; i < m.count && rc == KV_OK; i++)
		rc = core_txn_add(t, &(struct core_row){.update = m.u[i], .star = m.star[i]}, err);
	if (rc == KV_OK)
		rc = core_txn_commit(t, r, err);
	core_txn_free(t);
	model_free(&m);
	return rc;
}

const char *verdict_of(enum kv_rc rc, const struct core_appended *r, const struct kv_err *err)
{
	static char line[400];
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];

	if (rc == KV_OK)
		snprintf(line, sizeof(line), "%s %s %s updates=%llu", r->committed ? "ok" : "same",
			 core_frontier_format(r->lower, lower), core_frontier_format(r->upper, upper),
			 (unsigned long long)r->updates);
	else
		snprintf(line, sizeof(line), "%s%s%s", kv_rc_name(rc), err->detail[0] != '\0' ? " " : "",
			 err->detail);
	return line;
}

const char *verdict(struct core_shard *s, const char *options, const char *rows)
{
	struct core_appended r;
	struct kv_err err = {0};
	enum kv_rc rc = append(s, options, rows, &r, &err);

	return verdict_of(rc, &r, &err);
}

static char *read_content(struct core_shard *s, struct core_as_of as_of)
{
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	bool end = false;
	enum kv_rc rc = core_snapshot_open(s, as_of, &n, &err);

	while (rc == KV_OK && !end) {
		rc = core_snapshot_next(n, &u, &end, &err);
		if (rc == KV_OK && !end) {
			ck_assert(as_of.latest || u.time == as_of.time);
			fprintf(out, "%.*s %.*s %lld;", (int)u.key.len, (const char *)u.key.data,
				(int)u.val.len, (const char *)u.val.data, (long long)u.diff);
		}
	}
	core_snapshot_close(n);
	if (rc != KV_OK)
		fprintf(out, "%s", kv_rc_name(rc));
	fclose(out);
	return text;
}

char *content(struct core_shard *s, uint64_t t)
{
	return read_content(s, (struct core_as_of){.time = t});
}

char *content_latest(struct core_shard *s)
{
	return read_content(s, (struct core_as_of){.latest = true});
}

void check_content(struct core_shard *s, uint64_t t, const char *want)
{
	char *got = content(s, t);

	ck_assert_str_eq(got, want);
	free(got);
}

const char *frontiers(struct core_shard *s)
{
	static char line[2 * CORE_FRONTIER_LEN];
	char since[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];
	struct core_info info;
	struct kv_err err;

	ck_ok(core_shard_info(s, true, &info, &err), err);
	snprintf(line, sizeof(line), "%s %s", core_frontier_format(info.since, since),
		 core_frontier_format(info.upper, upper));
	return line;
}

void check_sound(struct core_shard *s)
{
	struct core_state state;
	struct kv_err err;

	ck_ok(core_shard_state(s, &state, &err), err);
	ck_ok(core_state_check(&state, &err), err);
	core_state_fini(&state);
}

/* --- numbered appends ------------------------------------------------------------------------------ */

enum kv_rc append_nth(struct core_shard *s, uint64_t i, size_t len, struct core_appended *r,
		      struct kv_err *err)
{
	char options[100];
	char *rows = malloc(len + 60);
	int at;

	snprintf(options, sizeof(options), "expected_upper=%llu new_upper=%llu token=%llu",
		 (unsigned long long)i, (unsigned long long)i + 1, (unsigned long long)i);
	at = sprintf(rows, "%llu 1 k%06llu ", (unsigned long long)i, (unsigned long long)i);
	for (size_t j = 0; j < len; j++)
		rows[at++] = (char)('a' + (i * 7 + j * j * (i + 3)) % 23);
	strcpy(rows + at, ";");
	enum kv_rc rc = append(s, options, rows, r, err);
	free(rows);
	return rc;
}

void append_many(struct core_shard *s, uint64_t from, uint64_t to, size_t len)
{
	struct core_appended r;
	struct kv_err err;

	for (uint64_t i = from; i < to; i++)
		ck_ok(append_nth(s, i, len, &r, &err), err);
}

uint64_t upper_of(struct core_shard *s)
{
	struct core_info info;
	struct kv_err err;

	ck_ok(core_shard_info(s, true, &info, &err), err);
	return info.upper.t;
}

void check_appends(struct core_shard *s, uint64_t count)
{
	struct core_snapshot *n;
	struct core_update u;
	struct kv_err err;
	char key[30];
	bool end = false;

	ck_assert_uint_eq(upper_of(s), count);
	check_sound(s);
	ck_ok(core_snapshot_open(s, (struct core_as_of){.latest = true}, &n, &err), err);
	for (uint64_t i = 0; i <= count; i++) {
		ck_ok(core_snapshot_next(n, &u, &end, &err), err);
		ck_assert_int_eq(end, i == count);
		if (end)
			break;
		snprintf(key, sizeof(key), "k%06llu", (unsigned long long)i);
		ck_assert_msg(u.key.len == 7 && memcmp(u.key.data, key, 7) == 0 && u.diff == 1, "row %llu",
			      (unsigned long long)i);
	}
	core_snapshot_close(n);
}
