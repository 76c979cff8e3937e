/*
 * corrupt.c - bytes that rot: every kind of stored file, flipped, cut, zeroed and deleted.
 *
 * A store with every kind of file is built once, and killed, so that it has a log. Then one thing is damaged
 * in a copy of it. Each read of a mount on the copy must give what was written, or EUCLEAN; a start may be
 * refused with a sentence that names the file; and `shardctl fsck` must find whatever had an effect, and
 * where.
 *
 * CORRUPT_ALL=1 damages every byte of small files and many of the large ones; else a sample.
 */
#include <dirent.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>

#include "tests/fs/world.h"

enum { KINDS = 12, SHARDS = 4, TOKENS = 1024, HOLDS = 700, SMALL = 4096, READS_MAX = 64 };

enum harm { FLIP, CUT, ZERO, DELETE, HARMS };

static const char *const harm_names[HARMS] = {"flip", "cut", "zero 4 KiB", "delete"};

/* Files that are of one kind: how their paths in the store look. */
struct kind {
	const char *name;
	const char *dir;
	const char *begins;
	const char *ends;
	bool may_lose_end; /* cut off or deleted it looks as a crash would have left it: the store is that of
			      an earlier moment */
	bool inert;        /* nothing depends on it */
};

static const struct kind kinds[KINDS] = {
	{"FORMAT", "", "FORMAT", "", false, false},
	{"OWNER", "", "OWNER", "", false, true},
	{"CURRENT", "consensus/", "CURRENT", "", false, false},
	{"IDENTITY", "consensus/", "IDENTITY", "", false, true},
	{"OPTIONS", "consensus/", "OPTIONS", "", false, true},
	{"MANIFEST", "consensus/", "MANIFEST", "", false, false},
	{"SEAL", "consensus/", "SEAL", "", false, true},
	{"log", "consensus/", "", ".log", true, false},
	{"table", "consensus/", "", ".sst", false, false},
	{"part", "blobs/data/", "/p", "", false, false},
	{"manifest", "blobs/data/", "/m", "", false, false},
	{"rollup", "blobs/data/", "/v", "", false, false},
};

struct outcome {
	unsigned tried;
	unsigned refused;
	unsigned eucleans; /* damaged copies of which some reads failed */
	unsigned earlier;  /* the store is that of an earlier moment */
	unsigned unaffected;
	unsigned found; /* by fsck */
};

/* A file that can be read through the mount, and what is in it. */
struct reading {
	char *path; /* below the mount */
	char *text;
};

static struct world w;
static char *base; /* the undamaged store */
static struct reading readings[READS_MAX];
static size_t reading_count;
static char *files[4096];
static size_t file_count;
static struct outcome outcomes[KINDS][HARMS];

/* --- the store ------------------------------------------------------------------------------------- */

static void token_appends(const char *shard, unsigned from, unsigned to)
{
	int fd = append_open(shard);
	char text[512];

	for (unsigned i = from; i < to; i++) {
		snprintf(text, sizeof text,
			 "begin expected_upper=%u new_upper=%u "
			 "token=i00000000-0000-4000-8000-%012u\n%u\t1\tk%u\t%0100u\n"
			 "commit\n",
			 i, i + 1, i, i, i, i);
		ck_errno(put_all(fd, text, strlen(text)), 0);
	}
	close(fd);
}

/* Its state is larger than what goes into the database, so that its rollup is a file. */
static void fill_large_state(const char *shard)
{
	token_appends(shard, 0, TOKENS);
	free(want_sh("long=$(printf '%%0110d' 0); for i in $(seq %d); do echo 0 > '%s'/holds/h$long$i; done",
		     HOLDS, shard));
	ck_errno(write_once(at(shard, "ctl"), "rollup\n"), 0);
}

/* Rows that do not compress: parts as files, and in the database. */
static void fill_large_parts(const char *shard)
{
	free(want_sh("head -c 3000000 /dev/urandom | base64 -w 1000 | awk '{ print \"0\\t1\\t\" NR \"\\t\" "
		     "$0 }' > "
		     "'%s/batches/big'",
		     shard));
	want_txn(shard, "begin expected_upper=0 new_upper=1\nbatch big\ncommit\n");
	free(want_sh(
		"{ echo 'begin expected_upper=1 new_upper=2'; head -c 90000 /dev/urandom | base64 -w 1000 | "
		"awk '{ print \"1\\t1\\tm\" NR \"\\t\" $0 }'; echo commit; } > '%s/append'",
		shard));
	/* A row that is not whole stays in the manifest, which is too large for the database then. */
	free(want_sh("{ printf '5\\t1\\tlong\\t'; head -c 400000 /dev/urandom | base64 -w 0; } > "
		     "'%s/batches/half' && "
		     "sync '%s/batches/half'",
		     shard, shard));
	free(want_sh("head -c 2000000 /dev/urandom | base64 -w 1000 | awk '{ print \"5\\t1\\ts\" NR \"\\t\" "
		     "$0 }' > "
		     "'%s/batches/waits' && sync '%s/batches/waits'",
		     shard, shard));
}

static void remember(const char *shard, const char *name)
{
	struct reading *r = &readings[reading_count++];

	ck_assert_uint_lt(reading_count, READS_MAX);
	r->path = check_path(shard + strlen(w.mnt) + 1, name);
	r->text = slurp(at(shard, name));
}

static void build(void)
{
	char *shards[SHARDS];

	world_open(&w);
	for (unsigned i = 0; i < SHARDS; i++)
		shards[i] = shard_new(&w);
	fill_large_state(shards[0]);
	fill_large_parts(shards[1]);
	free(want_sh("ln -s ../shard/%s %s/name/fruit", strrchr(shards[1], '/') + 1, w.mnt));
	token_appends(shards[2], 0, 20);
	world_kill(&w); /* the next start makes a table of the log */
	world_start(&w, NULL);
	token_appends(shards[2], 20, 60);
	token_appends(shards[3], 0, 40);
	for (unsigned i = 0; i < SHARDS; i++) {
		remember(shards[i], "upper");
		remember(shards[i], "snapshot");
		remember(shards[i], "since");
	}
	remember(shards[1], "batches/waits");
	remember(shards[1], "batches/half");
	remember(shards[1], "as_of/0");
	world_kill(&w);
	base = check_path(w.dir, "base");
	ck_works(rename(w.store, base));
	for (unsigned i = 0; i < SHARDS; i++)
		free(shards[i]);
}

static int note_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_F && st->st_size != 0 && file_count < sizeof files / sizeof files[0])
		files[file_count++] = strdup(path + strlen(base) + 1);
	return 0;
}

static bool is_of_kind(const struct kind *k, const char *path)
{
	const char *name = path + strlen(k->dir);
	size_t len = strlen(path), ends = strlen(k->ends);

	if (strncmp(path, k->dir, strlen(k->dir)) != 0 || len < ends ||
	    strcmp(path + len - ends, k->ends) != 0)
		return false;
	if (k->begins[0] == '/') /* in a directory of its shard */
		return strstr(name, k->begins) != NULL;
	return strncmp(name, k->begins, strlen(k->begins)) == 0;
}

/* --- damage ---------------------------------------------------------------------------------------- */

/* Blobs are never written again: links of them do. */
static void copy_base(void)
{
	check_rmtree(w.store);
	free(want_sh("mkdir '%s' '%s/blobs' && cp -a '%s/FORMAT' '%s/OWNER' '%s/consensus' '%s/' && "
		     "cp -al '%s/blobs/data' '%s/blobs/' && mkdir '%s/blobs/tmp'",
		     w.store, w.store, base, base, base, w.store, base, w.store, w.store));
}

static void harm(const char *file, enum harm how, uint64_t offset, unsigned bit)
{
	char *path = check_path(w.store, file), *copy = check_path(w.dir, "copy"), zeros[4096] = {0};
	struct stat st;
	unsigned char byte;
	int fd;

	ck_works(stat(path, &st));
	free(want_sh("cp '%s' '%s' && mv '%s' '%s'", path, copy, copy, path)); /* no link any more */
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	if (how == FLIP) {
		ck_assert_int_eq(pread(fd, &byte, 1, (off_t)offset), 1);
		byte ^= (unsigned char)(1u << bit);
		ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
	} else if (how == CUT) {
		ck_works(ftruncate(fd, (off_t)offset));
	} else if (how == ZERO) {
		size_t len = (uint64_t)st.st_size - offset < sizeof zeros
				     ? (size_t)((uint64_t)st.st_size - offset)
				     : sizeof zeros;

		ck_assert_int_eq(pwrite(fd, zeros, len, (off_t)offset), (ssize_t)len);
	} else {
		ck_works(unlink(path));
	}
	close(fd);
	free(path);
	free(copy);
}

/* --- what comes of it ------------------------------------------------------------------------------ */

struct trial {
	const struct kind *kind;
	const char *file;
	enum harm how;
	uint64_t offset;
	char words[256]; /* for the one who reads a failure */
};

#define tell_if(condition, t, ...)                           \
	do {                                                 \
		if (!(condition))                            \
			fprintf(stderr, "%s\n", (t)->words); \
		ck_assert_msg(condition, __VA_ARGS__);       \
	} while (0)

/* A finding in JSON names the file, and a place in it that is not behind the damage; of the database one
 * finding does, others are of what could not be read because of it. */
static bool names_place(const struct trial *t, const json_t *json)
{
	const char *file = json_string_value(json_object_get(json, "file"));
	json_t *offset = json_object_get(json, "offset");
	bool blob = strncmp(t->file, "blobs/data/", 11) == 0;

	if (file != NULL && !blob &&
	    t->how == DELETE) /* the name stands in the sentence, if anybody knows it */
		return strcmp(file, "consensus") == 0;
	return file != NULL && strcmp(file, t->file + (blob ? 11 : 0)) == 0 &&
	       (offset == NULL || t->how != FLIP || (uint64_t)json_integer_value(offset) <= t->offset);
}

/* Whether fsck finds damage; and then where. */
static bool fsck_finds(const struct trial *t)
{
	char *out, *line, *rest, *said = check_path(w.dir, "said"), *words;
	int status = sh(&out, "%s fsck --json '%s' 2>'%s'", shardctl_path(), w.store, said);
	unsigned damages = 0, named = 0;
	char last[800] = "";

	tell_if(status == 0 || status == 1 || status == 4, t, "fsck: %d: %s", status, out);
	for (line = strtok_r(out, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		json_t *json = json_loads(line, 0, NULL);
		const char *kind;

		tell_if(json != NULL, t, "not JSON: %s", line);
		kind = json_string_value(json_object_get(json, "finding"));
		if (kind != NULL && strcmp(kind, "damage") == 0) {
			damages++;
			snprintf(last, sizeof last, "%s", line);
			named += names_place(t, json);
			tell_if(strncmp(t->file, "blobs/data/", 11) != 0 || names_place(t, json), t,
				"other place: %s", line);
		}
		json_decref(json);
	}
	words = slurp(said); /* where the store could not be opened at all */
	tell_if(damages == 0 || (status == 1 && named != 0), t, "damage, but not of this file; status %d: %s",
		status, last);
	tell_if(status == 0 || damages != 0 || words[0] != '\0', t, "status %d without a word", status);
	free(words);
	free(said);
	free(out);
	return status != 0;
}

/* The sentence of a start that was refused names what is wrong. */
static void check_sentence(const struct trial *t, const char *out)
{
	const char *name = strrchr(t->file, '/') != NULL ? strrchr(t->file, '/') + 1 : t->file;
	char stem[64];
	bool names;

	/* Of a table that is missing RocksDB gives the ending it had in older stores. */
	snprintf(stem, sizeof stem, "%.*s", (int)strcspn(name, "."), name);
	names = strstr(out, stem) != NULL;

	/* CURRENT names a manifest: then that is what is missed. */
	names = names || (strcmp(name, "CURRENT") == 0 && strstr(out, "MANIFEST") != NULL);
	/* A manifest names tables. */
	names = names || (strncmp(name, "MANIFEST", 8) == 0 && strstr(out, ".sst") != NULL);
	tell_if(names && strncmp(out, "shardfs: ", 9) == 0, t, "refused in these words: %s", out);
}

/* Read everything: how many reads failed, which must be with EUCLEAN; *wrong: how many gave something else.
 */
static unsigned read_all(const struct trial *t, unsigned *wrong)
{
	unsigned failed = 0;

	*wrong = 0;
	for (size_t i = 0; i < reading_count; i++) {
		char *path = check_path(w.mnt, readings[i].path), *text = slurp_rc(path);
		int errnum = errno;

		if (text == NULL && errnum == EUCLEAN) {
			failed++;
		} else if (text == NULL && !(t->kind->may_lose_end && t->how != FLIP)) {
			tell_if(false, t, "%s: %s", path, strerrorname_np(errnum));
		} else if (text == NULL || strcmp(text, readings[i].text) != 0) {
			(*wrong)++;
			tell_if(t->kind->may_lose_end && t->how != FLIP, t, "WRONG DATA in %s", path);
		}
		free(text);
		free(path);
	}
	free(want_sh("find '%s/shard' -path '*/batches/*' -exec cat '{}' + >/dev/null 2>&1; ls '%s/name' "
		     ">/dev/null 2>&1; cat '%s'/shard/*/state >/dev/null 2>&1; true",
		     w.mnt, w.mnt, w.mnt));
	return failed;
}

static void try(const struct trial *t, unsigned bit)
{
	struct outcome *o = &outcomes[t->kind - kinds][t->how];
	unsigned failed = 0, wrong = 0;
	bool found, refused;
	char *out;

	copy_base();
	harm(t->file, t->how, t->offset, bit);
	found = fsck_finds(t);
	refused = sh(&out, "%s '%s' '%s'", shardfs_path(), w.store, w.mnt) != 0;
	if (refused) {
		check_sentence(t, out);
	} else {
		w.pid = world_find(&w);
		tell_if(w.pid != 0, t, "it started, and died");
		failed = read_all(t, &wrong);
		tell_if(world_find(&w) == w.pid, t, "the mount died");
		world_stop(&w);
	}
	o->tried++;
	o->refused += refused;
	o->eucleans += failed != 0;
	o->earlier += !refused && failed == 0 && wrong != 0;
	o->unaffected += !refused && failed == 0 && wrong == 0;
	o->found += found;
	tell_if(found || (!refused && failed == 0), t, "fsck finds nothing where %s",
		refused ? out : "reads fail");
	free(out);
	tell_if(!t->kind->inert || (!refused && failed == 0), t, "nothing depends on it");
}

static void try_at(const struct kind *k, const char *file, enum harm how, uint64_t offset, unsigned bit)
{
	struct trial t = {.kind = k, .file = file, .how = how, .offset = offset};

	snprintf(t.words, sizeof t.words, "%s, %s at %" PRIu64 " bit %u: %s", k->name, harm_names[how],
		 offset, bit, file);
	try(&t, bit);
}

/* All harms to one file. */
static void harm_file(const struct kind *k, const char *file, struct rng *r, bool all)
{
	char *path = check_path(base, file);
	struct stat st;
	uint64_t size, random;

	ck_works(stat(path, &st));
	free(path);
	size = (uint64_t)st.st_size;
	random = all ? 60 : 2;
	if (all && size <= SMALL)
		for (uint64_t i = 0; i < size; i++)
			try_at(k, file, FLIP, i, (unsigned)rng_below(r, 8));
	else
		for (uint64_t i = 0; i < random; i++)
			try_at(k, file, FLIP, rng_below(r, size), (unsigned)rng_below(r, 8));
	try_at(k, file, FLIP, 0, (unsigned)rng_below(r, 8));
	try_at(k, file, FLIP, size - 1, (unsigned)rng_below(r, 8));
	try_at(k, file, CUT, rng_below(r, size), 0);
	try_at(k, file, ZERO, rng_below(r, (size + 4095) / 4096) * 4096, 0);
	try_at(k, file, DELETE, 0, 0);
	if (all) {
		try_at(k, file, CUT, 0, 0);
		try_at(k, file, CUT, size - 1, 0);
		for (uint64_t at = 0; at < size && at < 40 * 4096; at += 4096)
			try_at(k, file, ZERO, at, 0);
	}
}

static void report(void)
{
	for (unsigned i = 0; i < KINDS; i++)
		for (unsigned j = 0; j < HARMS; j++) {
			const struct outcome *o = &outcomes[i][j];

			if (o->tried != 0)
				printf("corrupt: %-9s %-10s tried %u: refused %u, EUCLEAN %u, earlier %u, "
				       "unaffected %u; fsck found %u\n",
				       kinds[i].name, harm_names[j], o->tried, o->refused, o->eucleans,
				       o->earlier, o->unaffected, o->found);
		}
	fflush(stdout);
}

START_TEST(a_damaged_store_gives_what_was_written_or_euclean_and_fsck_says_where)
{
	struct rng r = rng_new(5005);
	bool all = getenv("CORRUPT_ALL") != NULL;
	const char *only = getenv("CORRUPT_ONLY"); /* one kind */

	build();
	ck_works(nftw(base, note_file, 16, FTW_PHYS));
	for (unsigned k = 0; k < KINDS; k++) {
		const char *of_kind[64];
		size_t count = 0;

		for (size_t i = 0; i < file_count && count < 64; i++)
			if (is_of_kind(&kinds[k], files[i]))
				of_kind[count++] = files[i];
		ck_assert_msg(count != 0, "no file of kind %s", kinds[k].name);
		if (count == 0 || (only != NULL && strcmp(only, kinds[k].name) != 0))
			continue;
		if (!all) /* one of the kind */
			of_kind[0] = of_kind[rng_below(&r, count)];
		for (size_t i = 0; i < (all ? count : 1); i++)
			harm_file(&kinds[k], of_kind[i], &r, all);
	}
	report();
	for (size_t i = 0; i < reading_count; i++) {
		free(readings[i].path);
		free(readings[i].text);
	}
	for (size_t i = 0; i < file_count; i++)
		free(files[i]);
	free(base);
	world_close(&w);
}
END_TEST

Suite *corrupt_suite(void)
{
	Suite *s = suite_create("corrupt");
	TCase *tc = world_case(s, "corrupt", getenv("CORRUPT_ALL") != NULL ? 7200 : 600);

	tcase_add_test(tc, a_damaged_store_gives_what_was_written_or_euclean_and_fsck_says_where);
	return s;
}
