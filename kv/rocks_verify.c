/*
 * rocks_verify.c - looking for damage in the files of the database.
 *
 * Logs and manifests are read as files (rocks_log.c). Of each table all rows between its first and its last
 * key are read, with checksums: RocksDB stops at the first bad block, and names it, so one finding is told
 * for each table. What the database has no more need of is not read.
 */
#include "kv/rocks_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOLD_LEN = 512 };

struct verify {
	struct kv_rocks *rocks;
	kv_damage_fn *found;
	void *arg;
	char told[TOLD_LEN]; /* tables overlap: what was told last is not told again */
};

/* RocksDB's sentence ends in "in <path> offset <n> size <n>" where it knows. */
static void tell(struct verify *v, const char *name, const char *text)
{
	struct kv_damage damage = {.file = name, .what = text};
	const char *offset = strstr(text, " offset "), *in = offset, *slash;
	char file[128];

	if (strncmp(v->told, text, sizeof(v->told) - 1) == 0)
		return;
	snprintf(v->told, sizeof(v->told), "%s", text);
	while (in && in > text && strncmp(in, " in ", 4) != 0)
		in--;
	if (offset && in > text) {
		slash = in + 4;
		for (const char *p = slash; p < offset; p++)
			slash = *p == '/' ? p + 1 : slash;
		snprintf(file, sizeof(file), "consensus/%.*s", (int)(offset - slash), slash);
		damage.file = file;
		damage.has_offset = true;
		damage.offset = strtoull(offset + strlen(" offset "), NULL, 10);
	}
	v->found(v->arg, &damage);
}

/* Read all rows between two keys. */
static void read_range(struct verify *v, const char *name, const char *from, size_t from_len, const char *to,
		       size_t to_len)
{
	rocksdb_readoptions_t *options = rocksdb_readoptions_create();
	rocksdb_iterator_t *it;
	char *text = NULL;

	rocksdb_readoptions_set_verify_checksums(options, 1);
	rocksdb_readoptions_set_fill_cache(options, 0);
	it = rocksdb_create_iterator(v->rocks->db, options);
	for (rocksdb_iter_seek(it, from, from_len); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
		size_t len, common;
		const char *key = rocksdb_iter_key(it, &len);
		int order;

		common = len < to_len ? len : to_len;
		order = memcmp(key, to, common);
		if (order > 0 || (order == 0 && len > to_len))
			break;
	}
	rocksdb_iter_get_error(it, &text);
	if (text)
		tell(v, name, text);
	rocksdb_free(text);
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(options);
}

static void read_tables(struct verify *v)
{
	const rocksdb_livefiles_t *files = rocksdb_livefiles(v->rocks->db);
	int count = rocksdb_livefiles_count(files);

	for (int i = 0; i < count; i++) {
		size_t from_len, to_len;
		const char *from = rocksdb_livefiles_smallestkey(files, i, &from_len);
		const char *to = rocksdb_livefiles_largestkey(files, i, &to_len);
		char name[128];

		snprintf(name, sizeof(name), "consensus%s", rocksdb_livefiles_name(files, i));
		read_range(v, name, from, from_len, to, to_len);
	}
	rocksdb_livefiles_destroy(files);
}

/* A secondary passes over tables that it cannot open: an owner may have deleted them. If there is none, or it
 * did not, they are missing each time. */
static void check_opening(struct verify *v)
{
	const struct timespec rest = {.tv_nsec = 100000000};
	char *text = rocks_open_flaw(v->rocks->dir);

	for (int i = 0; i < 3 && text; i++) {
		rocksdb_free(text);
		nanosleep(&rest, NULL);
		text = rocks_open_flaw(v->rocks->dir);
	}
	if (text)
		tell(v, "consensus", text);
	rocksdb_free(text);
}

enum kv_rc kv_rocks_verify(struct kv_rocks *r, kv_damage_fn *found, void *arg, struct kv_err *err)
{
	struct verify v = {.rocks = r, .found = found, .arg = arg};
	struct rocks_flaw flaw;
	char name[sizeof(flaw.file) + 16];
	enum kv_rc rc;

	if (rocks_seal_flaw(r->dir, false, &flaw) || rocks_manifest_flaw(r->dir, &flaw)) {
		snprintf(name, sizeof(name), "consensus/%s", flaw.file);
		found(arg,
		      &(struct kv_damage){
			      .file = name, .has_offset = true, .offset = flaw.offset, .what = flaw.what});
	}
	if (!rocks_has_log(r->dir))
		found(arg,
		      &(struct kv_damage){.file = "consensus",
					  .what = "there is no log: what was committed last may be missing"});
	if (r->read_only)
		check_opening(&v);
	rc = rocks_enter(r, err);
	if (rc != KV_OK)
		return rc;
	read_tables(&v);
	rocks_leave(r);
	return KV_OK;
}
