/*
 * seeds.c - first inputs for the fuzz targets: what the engine itself writes, and lines of every grammar.
 *
 *     seeds DIR      makes DIR/<target>/<name>
 *
 * What is kept in tests/fuzz/corpus began with these; make fuzz-seeds makes them again, when a format
 * changed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/codec_impl.h"
#include "core/manifest.h"
#include "core/names.h"
#include "core/staged.h"
#include "core/upkeep.h"
#include "tests/fuzz/fuzz.h"

static const struct core_shard_id shard_id = {.u.b = {7}};

struct out {
	const char *dir;
	int number;
};

static FILE *seed(struct out *o, const char *target)
{
	char *path;
	FILE *f;

	must(asprintf(&path, "%s/%s", o->dir, target) > 0);
	must(mkdir(path, 0777) == 0 || errno == EEXIST);
	free(path);
	must(asprintf(&path, "%s/%s/seed-%03d", o->dir, target, o->number++) > 0);
	f = fopen(path, "wb");
	must(f != NULL);
	free(path);
	return f;
}

static void put(FILE *f, const void *bytes, size_t len)
{
	must(fwrite(bytes, 1, len, f) == len);
}

static void text(struct out *o, const char *target, int first, const char *line)
{
	FILE *f = seed(o, target);

	if (first >= 0)
		putc(first, f);
	put(f, line, strlen(line));
	must(fclose(f) == 0);
}

/* --- documents ------------------------------------------------------------------------------------- */

/* A document without its frame, alone for `state`, and as an entry of a list for `load`. */
static void document(struct out *o, FILE *list, uint8_t load_kind, uint8_t state_kind, const uint8_t *data,
		     size_t len)
{
	FILE *f = seed(o, "state");

	must(len > CORE_FRAME_LEN && len - CORE_FRAME_LEN <= UINT16_MAX);
	data += CORE_FRAME_LEN;
	len -= CORE_FRAME_LEN;
	putc(state_kind, f);
	put(f, data, len);
	must(fclose(f) == 0);
	if (list == NULL)
		return;
	putc(load_kind, list);
	putc((int)(len & 0xff), list);
	putc((int)(len >> 8), list);
	put(list, data, len);
}

static uint64_t fixed_time(void *arg)
{
	uint64_t *now = arg;

	return *now += 1000;
}

static void append(struct core_shard *s, unsigned n, bool star, bool token, const char *staged)
{
	struct core_append ask = {.lower_star = true, .upper_plus = true, .plus = 2, .has_token = token};
	struct core_appended appended;
	struct core_txn *t;
	char key[32];

	ask.token.u.b[3] = (uint8_t)n;
	ask.rewrite_star = staged != NULL;
	must(core_txn_begin(s, &ask, &t, NULL) == KV_OK);
	for (unsigned i = 0; i < n; i++) {
		struct core_row row = {.star = star,
				       .update = {.key = {.data = (uint8_t *)key},
						  .val = {.len = i % 3 == 0 ? CORE_ABSENT : 0},
						  .time = star ? 0 : UINT64_MAX - 1,
						  .diff = i % 2 == 0 ? 1 : -1}};

		row.update.key.len = (uint32_t)snprintf(key, sizeof key, "key%u", i % 5);
		if (star)
			must(core_txn_add(t, &row, NULL) == KV_OK);
	}
	if (staged != NULL)
		must(core_txn_add_staged(t, staged, NULL) == KV_OK);
	must(core_txn_commit(t, &appended, NULL) == KV_OK);
	core_txn_free(t);
}

static void stage(struct core_shard *s, const char *name, bool bounds)
{
	const struct core_row row = {.update = {.key = {.data = (const uint8_t *)"staged", .len = 6},
						.val = {.len = CORE_ABSENT},
						.time = 3,
						.diff = 2}};
	struct core_staged entry;
	struct core_stage *g;

	must(core_staged_create(s, name, &entry, NULL) == KV_OK);
	must(core_stage_open(s, entry.id, &g, NULL) == KV_OK);
	if (bounds)
		must(core_stage_bounds(g, core_frontier_at(1), core_frontier_empty(), NULL) == KV_OK);
	must(core_stage_add(g, &row, NULL) == KV_OK);
	must(core_stage_keep(g, "5\t1\tha", 6, NULL) == KV_OK);
	must(core_stage_sync(g, NULL) == KV_OK);
	core_stage_close(g);
}

static void work(struct core_engine *e, struct core_shard *s, unsigned how)
{
	const struct core_hold_ask hold = {.since = core_frontier_at(1), .token = 4, .compare = true};
	struct core_name name = {.name = "fruit", .target = shard_id};
	struct core_upkeep_result done;

	for (unsigned i = 0; i <= how; i++)
		append(s, 1 + 3 * i, true, i % 2 == 0, NULL);
	if (how > 0) {
		must(core_name_add(e, &name, NULL) == KV_OK);
		strcpy(name.name, "\xc3\xa4pfel");
		must(core_name_add(e, &name, NULL) == KV_OK);
		stage(s, "monday", how % 2 == 0);
		must(core_hold_set(s, "mine", &hold, NULL, NULL) == KV_OK);
	}
	if (how > 1) {
		must(core_upkeep_run(s, CORE_ROLLUP, &done, NULL) == KV_OK);
		must(core_shard_move_hold(s, "default", core_frontier_at(2), 0, NULL) == KV_OK);
		must(core_upkeep_run(s, CORE_COMPACT, &done, NULL) == KV_OK);
		stage(s, "tuesday", true);
	}
	if (how > 2) {
		must(core_staged_rename(s, "tuesday", "sunday", false, false, NULL) == KV_OK);
		must(core_shard_set_owner(s, (struct core_owner){1, 2, 0640}, NULL) == KV_OK);
		must(core_staged_remove(s, "sunday", NULL) == KV_OK);
	}
}

static void manifests(struct out *o, FILE *list, struct kv_store *store)
{
	struct kv_blob_list blobs;

	must(kv_blob_list(kv_store_blobs(store), "", "", 100, &blobs, NULL) == KV_OK);
	for (size_t i = 0; i < blobs.count; i++) {
		uint8_t *data = malloc(blobs.e[i].size);
		size_t got;

		must(data != NULL);
		must(kv_blob_get(kv_store_blobs(store), blobs.e[i].key, 0, data, blobs.e[i].size, &got,
				 NULL) == KV_OK);
		if (got > CORE_FRAME_LEN && memcmp(data, "SFdM", 4) == 0)
			document(o, list, 3, 2, data, got);
		free(data);
	}
	kv_blob_list_free(&blobs);
}

static void documents(struct out *o, unsigned how)
{
	uint64_t now = 1000000;
	const struct core_engine_config config = {.no_upkeep = true, .now_us = fixed_time, .now_arg = &now};
	struct kv_store *store = kv_store_mem_new();
	struct kv_consensus *c = kv_store_consensus(store);
	struct core_engine *e;
	struct core_shard *s;
	struct kv_version names;
	struct kv_versions versions;
	struct core_state state;
	struct core_buf bytes;
	char key[CORE_ID_LEN];
	FILE *list = seed(o, "load");

	must(core_engine_open(store, &config, &e, NULL) == KV_OK);
	must(core_shard_create(e, shard_id, (struct core_owner){0, 0, 0755}, NULL) == KV_OK);
	must(core_shard_open(e, shard_id, &s, NULL) == KV_OK);
	must(core_shard_state(s, &state, NULL) == KV_OK);
	must(core_state_encode(shard_id, &state, &bytes, NULL) == KV_OK);
	document(o, list, 1, 0, bytes.data, bytes.len);
	core_state_fini(&state);
	core_buf_fini(&bytes);
	work(e, s, how);
	if (kv_consensus_head(c, "names", &names, NULL) == KV_OK) {
		document(o, list, 0, 4, names.data, names.len);
		free(names.data);
	}
	manifests(o, list, store); /* before the versions that name them */
	must(kv_consensus_scan(c, core_uuid_format('s', shard_id.u, key), 0, 100, &versions, NULL) == KV_OK);
	for (size_t i = 0; i < versions.count; i++)
		document(o, list, 2, 1, versions.v[i].data, versions.v[i].len);
	kv_versions_free(&versions);
	must(core_shard_state(s, &state, NULL) == KV_OK);
	must(core_state_encode(shard_id, &state, &bytes, NULL) == KV_OK);
	document(o, NULL, 1, 0, bytes.data, bytes.len);
	core_state_fini(&state);
	core_buf_fini(&bytes);
	must(fclose(list) == 0);
	core_shard_close(s);
	core_engine_close(e);
}

/* --- parts ----------------------------------------------------------------------------------------- */

static void part(struct out *o, size_t count, size_t val_len, bool compress, uint8_t flags)
{
	const struct core_home home = {.shard = shard_id};
	struct core_update *rows = calloc(count, sizeof *rows);
	bool *star = calloc(count, 1);
	uint8_t *val = calloc(1, val_len + 1), *data;
	struct core_part made;
	size_t len;
	FILE *f = seed(o, "part");

	must(rows != NULL && val != NULL && star != NULL);
	for (size_t i = 0; i < count; i++)
		rows[i] = (struct core_update){
			.key = {.data = (const uint8_t *)"aaaaa", .len = (uint32_t)(i % 6)},
			.val = {.data = val, .len = (uint32_t)val_len},
			.time = i,
			.diff = 1};
	rows[0].key.len = CORE_ABSENT;
	star[0] = true;
	for (size_t i = 1; i < count; i++) /* ascending */
		rows[i].key.len = (uint32_t)(i * 5 / count);
	must(core_part_encode(&home, rows, star, count, compress, &made, &data, &len, NULL) == KV_OK);
	putc(flags, f);
	put(f, made.id.u.b, 16);
	put(f, data, len);
	must(fclose(f) == 0);
	core_part_fini(&made);
	free(data);
	free(val);
	free(star);
	free(rows);
}

/* --- text ------------------------------------------------------------------------------------------ */

static void texts(struct out *o)
{
	static const char *const rows[] = {"0\t1\tapple\tred", "*\t-3\t\\N\t",
					   "7\t+0\t\\x41\\101\\b\\f\\v\\\\\\t\\n\\r\t\\N",
					   "18446744073709551615\t-9223372036854775808\ta\tb\n1\t1\t\t"};
	static const char *const grammars[][4] = {
		{"18446744073709551615", "-", "0"},
		{"s01234567-89ab-cdef-0123-456789abcdef", "i01234567-89ab-cdef-0123-456789abcdef"},
		{"0-17", "3--", "s01234567-89ab-cdef-0123-456789abcdef", "monday_1.x-"},
		{"begin expected_upper=* new_upper=+1 rewrite_ts=* "
		 "token=i01234567-89ab-cdef-0123-456789abcdef",
		 "begin lower=0 upper=- since=3 rewrite_ts=5", "begin expected_upper=5 new_upper=-"},
		{"batch monday", "bounds 0 -", "bounds 3 18446744073709551615"},
		{"upper-10\n", "7", "-\n"},
		{"listen=7\n", "expected=0 token=42 since=7", "12", "since=- token=1 expected=2\n"},
		{"compact", "gc\n", "rollup", "expire w01234567-89ab-cdef-0123-456789abcdef"},
		{"a \"quoted\" word \\ and\nmore"},
		{"host\tname \xff\xfe purpose \xc3\xa4"},
		{"-f\n-o\nro,allow_other,uid=5,umask=077,fsname=x\n/store\n/mnt", "--help", "a\nb\nc"}};
	static const char *const appends[] = {
		"begin expected_upper=0 new_upper=1\n0\t1\tapple\tred\n0\t1\tpear\tgreen\ncommit\n",
		"begin expected_upper=* new_upper=+1\n*\t1\tk\tv\ncommit\n"
		"begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch x\ncommit\n",
		"begin lower=0 upper=5 token=i01234567-89ab-cdef-0123-456789abcdef\n3\t2\tk\tv\ncommit\n"
		"begin lower=0 upper=5 token=i01234567-89ab-cdef-0123-456789abcdef\n3\t2\tk\tv\ncommit\n",
		"begin expected_upper=* new_upper=- since=-\ncommit\n",
		"begin expected_upper=0 new_upper=0\ncommit\n",
		"begin expected_upper=0 new_upper=3 "
		"rewrite_ts=2\n0\t1\ta\\tb\t\\N\n1\t-1\ta\\tb\t\\N\ncommit\nx\n"};
	static const char *const staged[] = {"1\t1\ta\tb\n2\t-1\t\\x41\t\\N\n",
					     "bounds 0 -\n5\t1\tx\ty\n5\t1\tx\ty\n", "3\t1\ta\tb\n4\t1\tun"};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		text(o, "row", -1, rows[i]);
	for (size_t g = 0; g < sizeof grammars / sizeof grammars[0]; g++)
		for (size_t i = 0; i < 4 && grammars[g][i] != NULL; i++)
			text(o, "grammar", (int)g, grammars[g][i]);
	for (size_t i = 0; i < sizeof appends / sizeof appends[0]; i++) {
		char *cut;

		must(asprintf(&cut, "\x02\x07\x03%s", appends[i]) >
		     0); /* two cuts, and some of every length */
		text(o, "append", (int)(i + 1) << 2, cut);
		free(cut);
	}
	for (size_t i = 0; i < sizeof staged / sizeof staged[0]; i++) {
		char *cut;

		must(asprintf(&cut, "\x02\x07\x03%s", staged[i]) > 0);
		text(o, "append", (int)(i + 1) << 2 | 1, cut);
		free(cut);
	}
}

/* --- programs -------------------------------------------------------------------------------------- */

/* Of fuzz_fuse.c, by the numbers of its tables, after its furnishing: there node 1 is /shard, 2 the shard, 4
 * its batches/, 5 the staged batch, 6 /name; file 0 is append, 1 the staged batch. */
static void programs(struct out *o)
{
	static const char start[] = "\x00\xff\xff\xff\xff\x00\x02";
#define PROGRAM(text)                  \
	{                              \
		text, sizeof(text) - 1 \
	}
	static const struct {
		const char *p;
		size_t len;
	} all[] = {
		/* finish, rmdir */
		PROGRAM("\x14\x00\x04\x09\x01\x01\x04"),
		/* poll upper, append */
		PROGRAM("\x01\x04\x00\x0e\x03\x02\x00\x02\x00\x00\x00\x00\x14\x00\x00"),
		/* writers */
		PROGRAM("\x00\x02\x12\x0c\x08\x0d\x00\x02\xc8\x00\x08\xef\x02\x09\x00\x04\x02\x00\xc8"
			"\x00"),
		/* as_of/3, interrupted */
		PROGRAM("\x01\x12\x00\x04\x02\x00\x64\x00\x12\x01"),
		/* wait/3, woken */
		PROGRAM("\x01\x18\x00\x04\x02\x00\x64\x00\x14\x00\x00\x14\x00\x00"),
		/* listen/0 */
		PROGRAM("\x01\x1a\x00\x04\x02\x00\xc8\x00\x14\x00\x00\x04\x02\x32\xc8\x00"),
		/* ctl */
		PROGRAM("\x14\x07\x11\x14\x07\x12\x14\x07\x13\x01\x0c\x00"),
		/* a hold */
		PROGRAM("\x00\x02\x14\x03\x08\x21\x01\x00\x05\x02\x00\x0b\x05\x02\x00\x0e\x09\x00\x08"
			"\x21"),
		/* stage, commit */
		PROGRAM("\x05\x01\x08\x09\x05\x01\x08\x0a\x0e\x01\x01\x00\x00\x00\x00\x00\x00\x14\x00"
			"\x03"),
		/* 201 transactions at once */
		PROGRAM("\x05\x00\x00\xef\x00\xc8\x04\x00\x00\xf4\x00"),
		/* rename, symlink */
		PROGRAM("\x0b\x04\x00\x04\x1e\x1f\x0b\x06\x00\x06\x1e\x1f\x0a\x02\x06\x20\x00"),
		/* batches/x, as_of/0, holds/default, looked at and refused */
		PROGRAM("\xf1\x27\xf1\x11\xf1\x2f\xf1\x26\x00"),
	};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		FILE *f = seed(o, "fuse");

		put(f, start, sizeof start - 1);
		put(f, all[i].p, all[i].len);
		must(fclose(f) == 0);
	}
}

int main(int argc, char **argv)
{
	struct out o = {.dir = argc > 1 ? argv[1] : "."};

	must(mkdir(o.dir, 0777) == 0 || errno == EEXIST);
	for (unsigned how = 0; how < 4; how++)
		documents(&o, how);
	part(&o, 1, 0, false, 0);
	part(&o, 20, 3, false, 1);
	part(&o, 200, 10, true, 3);
	part(&o, 4, 40000, true, 7);
	part(&o, 50, 5, false, 0x1b);
	texts(&o);
	programs(&o);
	return 0;
}
