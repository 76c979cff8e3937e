/*
 * rocks_log.c - reading a write-ahead log of RocksDB.
 *
 *   a log         blocks of 32 KiB; a fragment does not cross them, less than 7 bytes at their end are not
 * used a fragment    crc32c of type and bytes (masked, 4 bytes little-endian), length (2), type (1), bytes
 *   type          1 a whole record; 2 its first fragment, 3 one in the middle, 4 its last; 0 nothing was
 * written a record      sequence number (8, little-endian), count of numbers it takes (4), operations a mark
 * the operation 3 (log data), its length 20, "sync", the nonce (8), the number (8, little-endian)
 *
 * How it works: fragment by fragment, each against its sum. Behind a fault records are found by their marks,
 * wherever they begin.
 *
 * Behind the last record there may be zeros, put there ahead of it (rocks_ahead.c).
 *
 * Invariant: the sequence numbers of records follow each other without gap. A gap is a fault.
 */
#include "kv/rocks_log.h"
#include "kv/rocks_impl.h"

#include <string.h>

enum {
	BLOCK = 32 << 10,
	SECTOR = 512,
	HOLE_MIN = 16, /* bytes of a sector that are missing at least */
	FRAGMENT_HEADER = 7,
	RECORD_HEADER = 12,
	RECORD_BEGIN = RECORD_HEADER + 2 + ROCKS_MARK_LEN,
	LOG_DATA = 3,
	NONCE_LEN = 8,
	AT_MARK = FRAGMENT_HEADER + RECORD_HEADER + 2,
};
enum { NOTHING, ALL, FIRST, MIDDLE, LAST };

static const char mark_word[4] = {'s', 'y', 'n', 'c'};

struct reader {
	const uint8_t *bytes;
	size_t len, at;
};

struct record {
	size_t from;                 /* where its first fragment is */
	uint8_t begin[RECORD_BEGIN]; /* its first bytes */
	size_t len;
};

enum found { RECORD, END, CUT, FAULT };

static uint64_t get_le(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes-- > 0)
		v = v << 8 | p[bytes];
	return v;
}

void rocks_mark_make(uint64_t nonce, uint64_t synced, char mark[ROCKS_MARK_LEN])
{
	memcpy(mark, mark_word, sizeof(mark_word));
	memcpy(mark + sizeof(mark_word), &nonce, NONCE_LEN);
	for (unsigned i = 0; i < 8; i++)
		mark[sizeof(mark_word) + NONCE_LEN + i] = (char)(unsigned char)(synced >> 8 * i);
}

/* --- sums ----------------------------------------------------------------------------------------------- */

static uint32_t sum_plain(uint32_t sum, const uint8_t *p, size_t len)
{
	static const uint32_t nibbles[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
					     0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
					     0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
					     0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

	for (; len > 0; len--, p++) {
		sum ^= *p;
		sum = nibbles[sum & 15] ^ sum >> 4;
		sum = nibbles[sum & 15] ^ sum >> 4;
	}
	return sum;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t sum_quick(uint32_t sum, const uint8_t *p, size_t len)
{
	uint64_t wide = sum, word;

	for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		wide = __builtin_ia32_crc32di(wide, word);
	}
	sum = (uint32_t)wide;
	for (; len > 0; len--, p++)
		sum = __builtin_ia32_crc32qi(sum, *p);
	return sum;
}
#endif

/* CRC-32C, masked as RocksDB does it. */
static uint32_t masked_sum(const uint8_t *p, size_t len)
{
	uint32_t sum;

#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		sum = ~sum_quick(UINT32_MAX, p, len);
	else
#endif
		sum = ~sum_plain(UINT32_MAX, p, len);
	return (sum >> 15 | sum << 17) + 0xa282ead8u;
}

/* --- records -------------------------------------------------------------------------------------------- */

static bool is_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Whether a fragment of this type may come now. */
static bool fits(unsigned type, bool inside)
{
	return inside ? type == MIDDLE || type == LAST : type == ALL || type == FIRST;
}

/* The fragment at r->at, which then is behind it: its type; or END, CUT, FAULT, and nothing moves. */
static enum found next_fragment(struct reader *r, unsigned *type, const uint8_t **bytes, size_t *len)
{
	size_t room = BLOCK - r->at % BLOCK;

	if (room < FRAGMENT_HEADER) {
		r->at += room;
		room = BLOCK;
	}
	if (r->at >= r->len)
		return END;

	const uint8_t *p = r->bytes + r->at;
	size_t left = r->len - r->at;

	if (left < FRAGMENT_HEADER)
		return is_zero(p, left) ? END : CUT;
	*len = (size_t)get_le(p + 4, 2);
	*type = p[6];
	if (*type == NOTHING && is_zero(p, left))
		return END;
	if (*type < ALL || *type > LAST || FRAGMENT_HEADER + *len > room)
		return FAULT;
	if (FRAGMENT_HEADER + *len > left)
		return CUT;
	if (get_le(p, 4) != masked_sum(p + 6, 1 + *len))
		return FAULT;
	*bytes = p + FRAGMENT_HEADER;
	r->at += FRAGMENT_HEADER + *len;
	return RECORD;
}

/* The record at r->at, which then is behind it. */
static enum found next_record(struct reader *r, struct record *out)
{
	const uint8_t *bytes;
	unsigned type;
	size_t len, start = r->at;
	bool inside = false;

	out->len = 0;
	do {
		size_t from = r->at;
		enum found found = next_fragment(r, &type, &bytes, &len);

		if (found == END && inside) /* at the end of the file it was cut; zeros are not its end */
			found = r->at >= r->len ? CUT : FAULT;
		if (found == RECORD && !fits(type, inside)) {
			found = FAULT;
			if (inside) /* it may begin the next record; else it is passed over */
				r->at = from;
		}
		if (found != RECORD) {
			out->from = start;
			return found;
		}

		size_t room = sizeof(out->begin) - out->len;

		memcpy(out->begin + out->len, bytes, len < room ? len : room);
		out->len += len < room ? len : room;
		inside = true;
	} while (type != ALL && type != LAST);
	out->from = start;
	return out->len >= RECORD_HEADER ? RECORD : FAULT;
}

static uint64_t seq_of(const struct record *rec)
{
	return get_le(rec->begin, 8);
}

static uint64_t next_of(const struct record *rec)
{
	return seq_of(rec) + get_le(rec->begin + 8, 4);
}

static void take_mark(const struct record *rec, struct rocks_log *out)
{
	const uint8_t *p = rec->begin + RECORD_HEADER;
	uint64_t mark;

	if (rec->len < RECORD_BEGIN || p[0] != LOG_DATA || p[1] != ROCKS_MARK_LEN ||
	    memcmp(p + 2, mark_word, sizeof(mark_word)) != 0) {
		out->unmarked = true;
		return;
	}
	if (!out->any)
		memcpy(&out->nonce, p + 2 + sizeof(mark_word), NONCE_LEN);
	mark = get_le(p + 2 + sizeof(mark_word) + NONCE_LEN, 8);
	if (mark > out->mark)
		out->mark = mark;
}

/* --- torn or damaged ------------------------------------------------------------------------------------ */

static size_t left_of_block(const struct reader *r)
{
	size_t room = BLOCK - r->at % BLOCK, left = r->len - r->at;

	if (r->at >= r->len) /* the rest of a block that no header fits in may lie behind the end */
		return 0;
	return left < room ? left : room;
}

/* How many bytes from p on are zeros, step by step. */
static size_t zeros(const uint8_t *p, size_t len, int step)
{
	size_t n = 0;

	while (n < len && *p == 0) {
		n++;
		p += step;
	}
	return n;
}

/* Whether something was never written there: a device writes sectors whole or not at all, and what a log has
 * not been given yet is zeros. Two writes may share a sector: then it is its begin or its end that is
 * missing. */
static bool has_hole(const uint8_t *bytes, size_t from, size_t len)
{
	while (from < len) {
		size_t end = (from / SECTOR + 1) * SECTOR, least;

		end = end < len ? end : len;
		least = end - from < HOLE_MIN ? end - from : HOLE_MIN;
		if (zeros(bytes + from, end - from, 1) >= least ||
		    zeros(bytes + end - 1, end - from, -1) >= least)
			return true;
		from = end;
	}
	return false;
}

/*
 * How far the log was written, as far as that can be seen: zeros behind it were put ahead of it
 * (rocks_ahead.c), or are what a torn write lacks at its end, of which the fragment at `at` tells how far it
 * went.
 */
static size_t written(const uint8_t *bytes, size_t at, size_t len)
{
	size_t end = len - zeros(bytes + len - 1, len - at, -1);
	size_t room = BLOCK - at % BLOCK, want = FRAGMENT_HEADER;

	if (len - at < FRAGMENT_HEADER)
		return len;
	if (bytes[at + 6] >= ALL && bytes[at + 6] <= LAST)
		want += (size_t)get_le(bytes + at + 4, 2);
	if (want > room || want > len - at)
		want = FRAGMENT_HEADER;
	return at + want > end ? at + want : end;
}

/* Whether the fault at `at` may be what is left of a write that was not synced; `good` bytes are whole. */
static bool is_torn(const uint8_t *bytes, size_t good, const struct reader *r)
{
	return has_hole(bytes, good, written(bytes, r->at, r->len)) &&
	       !rocks_record_was_whole(bytes + r->at, left_of_block(r));
}

/* --- the log -------------------------------------------------------------------------------------------- */

/* Records wherever their marks can be found from there on. By the nonce, which users cannot know, nothing
 * that they store passes for one; where no record tells it, by the word. */
static void read_behind(const uint8_t *bytes, size_t from, size_t len, struct rocks_log *out)
{
	const uint8_t *end = bytes + len, *hit = bytes + from;
	uint8_t want[sizeof(mark_word) + NONCE_LEN];
	size_t want_len = sizeof(mark_word) + (out->any ? NONCE_LEN : 0);

	memcpy(want, mark_word, sizeof(mark_word));
	memcpy(want + sizeof(mark_word), &out->nonce, NONCE_LEN);
	while ((hit = memmem(hit, (size_t)(end - hit), want, want_len)) != NULL) {
		size_t at = (size_t)(hit++ - bytes);
		struct reader r = {.bytes = bytes, .len = len, .at = at - AT_MARK};
		struct record rec = {0};
		const uint8_t *p;
		unsigned type;
		size_t got;

		if (at < from + AT_MARK || BLOCK - r.at % BLOCK < FRAGMENT_HEADER ||
		    next_fragment(&r, &type, &p, &got) != RECORD || (type != ALL && type != FIRST) ||
		    got < RECORD_BEGIN)
			continue;
		memcpy(rec.begin, p, RECORD_BEGIN);
		rec.len = got;
		if (!out->behind || seq_of(&rec) < out->behind_first)
			out->behind_first = seq_of(&rec);
		out->behind = true;
		take_mark(&rec, out);
	}
}

void rocks_log_read(const uint8_t *bytes, size_t len, struct rocks_log *out)
{
	struct reader r = {bytes, len, 0};
	struct record rec;
	enum found found = RECORD;

	*out = (struct rocks_log){.number = out->number};
	while (found == RECORD) {
		found = next_record(&r, &rec);
		if (found == RECORD && out->any && seq_of(&rec) != out->next) {
			found = FAULT;
			r.at = rec.from;
		}
		if (found != RECORD)
			break;
		take_mark(&rec, out);
		if (!out->any)
			out->first = seq_of(&rec);
		out->any = true;
		out->next = next_of(&rec);
		out->good = r.at;
	}
	if (found == CUT)
		out->torn = !rocks_record_was_whole(bytes + r.at, left_of_block(&r));
	else if (found == FAULT)
		out->torn = is_torn(bytes, out->good, &r);
	out->end = found == END ? ROCKS_LOG_WHOLE : found == CUT ? ROCKS_LOG_CUT : ROCKS_LOG_FAULT;
	if (found == FAULT)
		read_behind(bytes, r.at, len, out);
}
