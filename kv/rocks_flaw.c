/*
 * rocks_flaw.c - RocksDB's manifest, looked at as a file.
 *
 * A manifest is a log of what files there are. RocksDB reads it up to what looks like a write that a crash
 * cut off, and tells nobody that it stopped. A record whose length was damaged looks so, and so does a page
 * of zeros: the tables behind it would be gone without a word. And where it does tell, it names no place. So
 * they are looked at here, before it opens them. (What it committed last is in the logs: rocks_mend.c.)
 *
 * The bytes, little endian: blocks of 32 KiB; in a block records, and less than 7 bytes of zeros at its end.
 *
 *     offset  bytes  record
 *          0      4  CRC-32C of type and payload, turned by 15 bits, plus 0xa282ead8
 *          4      2  bytes of payload
 *          6      1  type: 1 whole, 2 first, 3 middle, 4 last piece; 0 with length 0: nothing more in this
 * block 7      .  payload
 *
 * 1. A record that reaches beyond the end of the file is a write that was cut off, unless a shorter
 *    length makes its checksum right and ends where the file or the record before another one does: no cut
 * does that.
 * 2. Zeros end what was written. With anything behind them they are a hole.
 */
#include "kv/rocks_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 32 << 10, HEAD = 7, TYPE_LAST = 4, AT_LENGTH = 4, AT_TYPE = 6 };

static const uint32_t castagnoli = 0x82f63b78u, mask_delta = 0xa282ead8u;

struct reader {
	const uint8_t *block;
	size_t len;
	uint64_t base; /* where the block begins in the file */
	bool ends;     /* it is the file's last */
	bool hole;     /* zeros were met */
	uint64_t hole_at;
	struct rocks_flaw *flaw;
};

static uint32_t crc_step(uint32_t crc, uint8_t byte)
{
	crc ^= byte;
	for (unsigned i = 0; i < 8; i++)
		crc = crc >> 1 ^ (crc & 1 ? castagnoli : 0);
	return crc;
}

struct crc {
	uint32_t table[256];
};

static void crc_init(struct crc *c)
{
	for (unsigned i = 0; i < 256; i++)
		c->table[i] = crc_step(0, (uint8_t)i);
}

static uint32_t crc_next(const struct crc *c, uint32_t crc, uint8_t byte)
{
	return crc >> 8 ^ c->table[(crc ^ byte) & 0xff];
}

uint32_t rocks_crc(const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	uint32_t crc = ~(uint32_t)0;
	struct crc c;

	crc_init(&c);
	for (size_t i = 0; i < len; i++)
		crc = crc_next(&c, crc, p[i]);
	return ~crc;
}

static uint32_t crc_masked(uint32_t crc)
{
	crc = ~crc;
	return (crc >> 15 | crc << 17) + mask_delta;
}

static uint32_t stored_crc(const uint8_t *record)
{
	return (uint32_t)record[0] | (uint32_t)record[1] << 8 | (uint32_t)record[2] << 16 |
	       (uint32_t)record[3] << 24;
}

static size_t payload_len(const uint8_t *record)
{
	return (size_t)record[AT_LENGTH] | (size_t)record[AT_LENGTH + 1] << 8;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

static bool flawed(struct reader *r, uint64_t offset, const char *what)
{
	r->flaw->offset = offset;
	r->flaw->what = what;
	return true;
}

/* Whether the record at pos is right with a payload of len bytes, which are there. */
static bool is_right(const struct crc *c, const struct reader *r, size_t pos, size_t len)
{
	uint32_t crc = ~(uint32_t)0;

	for (size_t i = pos + AT_TYPE; i < pos + HEAD + len; i++)
		crc = crc_next(c, crc, r->block[i]);
	return crc_masked(crc) == stored_crc(r->block + pos);
}

/* Whether a record may begin at pos, or nothing is there any more. */
static bool goes_on(const struct reader *r, size_t pos)
{
	const uint8_t *record = r->block + pos;

	if (r->len - pos < HEAD)
		return is_zero(record, r->len - pos);
	return (record[AT_TYPE] != 0 && record[AT_TYPE] <= TYPE_LAST) || is_zero(record, r->len - pos);
}

/* Invariant 1: whether the record at pos, which reaches beyond the end, was whole once. */
static bool was_whole(const struct crc *c, const struct reader *r, size_t pos)
{
	uint32_t crc = crc_next(c, ~(uint32_t)0, r->block[pos + AT_TYPE]);

	for (size_t end = pos + HEAD; end <= r->len; end++) {
		if (crc_masked(crc) == stored_crc(r->block + pos) && goes_on(r, end))
			return true;
		if (end < r->len)
			crc = crc_next(c, crc, r->block[end]);
	}
	return false;
}

/* Look at one block; true: there is a flaw. */
static bool look_at_block(const struct crc *c, struct reader *r)
{
	size_t pos = 0;

	if (r->hole && !is_zero(r->block, r->len))
		return flawed(r, r->hole_at, "zeros where a record should be");
	while (!r->hole && r->len - pos >= HEAD) {
		const uint8_t *record = r->block + pos;
		size_t len = payload_len(record);

		if (record[AT_TYPE] == 0 && len == 0) {
			r->hole = true;
			r->hole_at = r->base + pos;
			if (!is_zero(record, r->len - pos))
				return flawed(r, r->hole_at, "zeros where a record should be");
		} else if (len > r->len - pos - HEAD) {
			if (r->ends)
				return was_whole(c, r, pos) &&
				       flawed(r, r->base + pos, "the length of a record is wrong");
			return flawed(r, r->base + pos, "a record is longer than its block");
		} else if (!is_right(c, r, pos, len)) {
			return flawed(r, r->base + pos, "the checksum of a record is wrong");
		}
		pos += HEAD + len;
	}
	return false;
}

/* Fill the block, or what is left. */
static bool read_block(int fd, uint8_t *block, struct reader *r)
{
	r->len = 0;
	while (r->len < BLOCK) {
		ssize_t n = pread(fd, block + r->len, BLOCK - r->len, (off_t)(r->base + r->len));

		if (n == 0)
			break;
		if (n > 0)
			r->len += (size_t)n;
		else if (errno != EINTR)
			return false;
	}
	r->ends = r->len < BLOCK;
	return true;
}

static bool look_at_file(int dir, const char *name, struct rocks_flaw *flaw)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	uint8_t *block = fd >= 0 ? malloc(BLOCK) : NULL;
	struct reader r = {.flaw = flaw, .block = block};
	struct crc crc;
	bool found = false;

	crc_init(&crc);
	/* What cannot be read now is left to RocksDB: it may be another's, who deletes it. */
	while (block && !found && read_block(fd, block, &r)) {
		found = look_at_block(&crc, &r);
		if (r.ends)
			break;
		r.base += BLOCK;
	}
	free(block);
	if (fd >= 0)
		close(fd);
	if (found)
		snprintf(flaw->file, sizeof(flaw->file), "%.63s", name);
	return found;
}

bool rocks_manifest_flaw(const char *dir, struct rocks_flaw *flaw)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[ROCKS_NAME_LEN];
	bool found = fd >= 0 && rocks_current_manifest(fd, name) && look_at_file(fd, name, flaw);

	if (fd >= 0)
		close(fd);
	return found;
}

bool rocks_record_was_whole(const uint8_t *record, size_t len)
{
	const struct reader r = {.block = record, .len = len};
	struct crc crc;

	crc_init(&crc);
	return len >= HEAD && was_whole(&crc, &r, 0);
}

bool rocks_has_log(const char *dir)
{
	DIR *d = opendir(dir);
	bool found = !d;

	for (struct dirent *e = d ? readdir(d) : NULL; e && !found; e = readdir(d)) {
		const char *dot = strrchr(e->d_name, '.');

		found = dot && strcmp(dot, ".log") == 0;
	}
	if (d)
		closedir(d);
	return found;
}
