/*
 * rocks_table.c - what RocksDB does not check at the end of a table.
 *
 * Of a table's blocks RocksDB checks the checksums, but it goes on without the properties when they cannot be
 * read; and these say how the index is to be read. So a flipped bit in the footer, which has no checksum, or
 * in the properties made keys vanish. They are looked at here before it opens the tables.
 *
 *     the end of a table: ... blocks, footer of 53 bytes
 *     footer: checksum type (4: XXH3), where the metaindex and where the index stand (varints: offset, size),
 * zeros up to byte 41; format 5 (4 bytes, little endian); 8 bytes that end a table block:  its bytes,
 * compression type (1 byte), checksum of both (4 bytes, little endian) metaindex: entries of varints 0, bytes
 * of key, bytes of value; key; value. That of "rocksdb.properties" says where the properties stand
 *
 * A file that does not end as one of format 5 is wrong if RocksDB cannot open the database either, else it
 * knows more than this. (A secondary does not say: it goes on from what was before the table.) One that
 * nobody names may be what a crash has left of a table: whether the database has it is asked last.
 */
#include "kv/rocks_impl.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { FOOTER = 53, AT_FORMAT = 41, TRAILER = 5, XXH3_TYPE = 4, BLOCK_MAX = 64 << 20 };

struct place {
	uint64_t offset;
	uint64_t size;
};

/* The next varint; false: there is none. */
static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
		uint8_t byte = *(*p)++;

		*out |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool place(const uint8_t **p, const uint8_t *end, struct place *out)
{
	return varint(p, end, &out->offset) && varint(p, end, &out->size);
}

/* Bytes of a block whose checksum is right; given. NULL: it is not, or it cannot be had (*unread). */
static uint8_t *read_block(int fd, uint64_t file_size, struct place at, bool *unread)
{
	uint8_t *bytes;
	uint32_t stored, sum;
	ssize_t got = -1;

	if (at.size > BLOCK_MAX || at.offset > file_size || at.size + TRAILER > file_size - at.offset)
		return NULL;
	bytes = malloc((size_t)at.size + TRAILER);
	if (bytes)
		got = pread(fd, bytes, (size_t)at.size + TRAILER, (off_t)at.offset);
	*unread = got < 0;
	if (got == (ssize_t)(at.size + TRAILER)) {
		/* The compression type, the last byte under the checksum, is mixed in by hand. */
		sum = (uint32_t)XXH3_64bits(bytes, (size_t)at.size) ^ (uint32_t)bytes[at.size] * 0x6b9083d9u;
		stored = (uint32_t)bytes[at.size + 1] | (uint32_t)bytes[at.size + 2] << 8 |
			 (uint32_t)bytes[at.size + 3] << 16 | (uint32_t)bytes[at.size + 4] << 24;
		if (sum == stored)
			return bytes;
	}
	free(bytes);
	return NULL;
}

/* Where the metaindex says the properties are. */
static bool find_properties(const uint8_t *p, const uint8_t *end, struct place *out)
{
	static const char name[] = "rocksdb.properties";
	uint64_t shared, key, value;

	while (varint(&p, end, &shared) && varint(&p, end, &key) && varint(&p, end, &value) && shared == 0 &&
	       key <= (uint64_t)(end - p) && value <= (uint64_t)(end - p) - key) {
		const uint8_t *v = p + key;

		if (key == sizeof(name) - 1 && memcmp(p, name, (size_t)key) == 0)
			return place(&v, v + value, out);
		p = v + value;
	}
	return false;
}

static const char no_table[] = "it does not end as a table does";

/* NULL: it is right, or not for us to say. */
static const char *look_at_tail(int fd, uint64_t size, struct rocks_flaw *flaw)
{
	static const uint8_t ending[] = {5, 0, 0, 0, 0xf7, 0xcf, 0xf4, 0x85, 0xb7, 0x41, 0xe2, 0x88};
	uint8_t footer[FOOTER], *block;
	const uint8_t *p = footer + 1;
	struct place metaindex, index, properties = {0};
	bool unread = false, found;
	ssize_t got;

	flaw->offset = size < FOOTER ? 0 : size - FOOTER;
	if (size < FOOTER)
		return no_table;
	got = pread(fd, footer, FOOTER, (off_t)flaw->offset);
	if (got < 0)
		return NULL;
	if (got != FOOTER || memcmp(footer + AT_FORMAT, ending, sizeof(ending)) != 0)
		return no_table;
	if (footer[0] != XXH3_TYPE || !place(&p, footer + AT_FORMAT, &metaindex) ||
	    !place(&p, footer + AT_FORMAT, &index))
		return "the footer of the table is wrong";
	block = read_block(fd, size, index, &unread);
	free(block);
	if (!block)
		return unread ? NULL : "the index of the table, or its place in the footer, is wrong";
	block = read_block(fd, size, metaindex, &unread);
	if (!block)
		return unread ? NULL : "the metaindex of the table, or its place in the footer, is wrong";
	found = find_properties(block, block + metaindex.size, &properties);
	free(block);
	flaw->offset = properties.offset;
	block = found ? read_block(fd, size, properties, &unread) : NULL;
	free(block);
	return block || unread ? NULL : "the properties of the table are wrong";
}

/* Whether the database can be opened as it is; and then whether it has the table (name may be NULL). *text:
 * why not; given. */
static bool opens(const char *dir, const char *name, bool *live, char **text)
{
	rocksdb_options_t *options = rocksdb_options_create();
	rocksdb_t *db;
	const rocksdb_livefiles_t *files;

	*live = false;
	*text = NULL;
	rocksdb_options_set_info_log_level(options, 5); /* as in rocks.c */
	db = rocksdb_open_for_read_only(options, dir, 0, text);
	files = db && name ? rocksdb_livefiles(db) : NULL;
	for (int i = 0; files && i < rocksdb_livefiles_count(files); i++)
		*live = *live || strcmp(rocksdb_livefiles_name(files, i) + 1, name) == 0;
	if (files)
		rocksdb_livefiles_destroy(files);
	if (db)
		rocksdb_close(db);
	rocksdb_options_destroy(options);
	return db != NULL;
}

char *rocks_open_flaw(const char *dir)
{
	bool live;
	char *text;

	return opens(dir, NULL, &live, &text) ? NULL : text;
}

static bool is_wanted(const char *dir, const struct rocks_flaw *flaw)
{
	bool live, opened;
	char *text;

	opened = opens(dir, flaw->file, &live, &text);
	rocksdb_free(text);
	return flaw->what == no_table ? !opened : !opened || live;
}

bool rocks_tail_flaw(const char *dir, struct rocks_flaw *flaw)
{
	DIR *d = opendir(dir);
	bool found = false;

	for (struct dirent *e = d ? readdir(d) : NULL; e && !found; e = readdir(d)) {
		const char *dot = strrchr(e->d_name, '.');
		int fd = dot && strcmp(dot, ".sst") == 0 ? openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC)
							 : -1;
		struct stat st;

		if (fd < 0)
			continue;
		flaw->what = fstat(fd, &st) == 0 ? look_at_tail(fd, (uint64_t)st.st_size, flaw) : NULL;
		close(fd);
		if (!flaw->what)
			continue;
		snprintf(flaw->file, sizeof(flaw->file), "%.63s", e->d_name);
		found = is_wanted(dir, flaw);
	}
	if (d)
		closedir(d);
	return found;
}
