/* data.c - the rows of a transaction: written, and told again. */
#include "tests/crash/crash.h"

#include <inttypes.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The bytes of row i of transaction n; each follows from the one before. */
static uint64_t seed_of(const struct shard *s, unsigned n, unsigned i)
{
	uint64_t x = s->salt ^ ((uint64_t)n << 32 | i) * 0x9e3779b97f4a7c15u;

	return x != 0 ? x : 1;
}

static uint64_t next_of(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ (x << 17);
}

void rows_put(FILE *f, const struct shard *s, unsigned n, unsigned from, unsigned to, const char *time,
	      int diff)
{
	for (unsigned i = from; i < to; i++) {
		uint64_t x = seed_of(s, n, i);

		fprintf(f, "%s\t%d\tk%u\t%05u.", time, diff, n, i);
		for (unsigned b = 0; b < s->txs[n].bytes; b++) {
			x = next_of(x);
			putc_unlocked(letters[x % 64], f);
		}
		putc_unlocked('\n', f);
	}
}

bool row_next(const struct shard *s, const char **p, struct row *out)
{
	char *end;
	uint64_t x;

	if (**p < '0' || **p > '9')
		return false;
	out->time = strtoull(*p, &end, 10);
	out->diff = strtol(end + 1, &end, 10);
	if (end[0] != '\t' || end[1] != 'k')
		program_fail("%s: not a row: %.100s", s->id, *p);
	out->n = (unsigned)strtoul(end + 2, &end, 10);
	if (*end != '\t')
		program_fail("%s: not a row: %.100s", s->id, *p);
	out->i = (unsigned)strtoul(end + 1, &end, 10);
	if (out->n >= s->count || s->txs[out->n].fate == UNSENT || out->i >= s->txs[out->n].rows ||
	    *end != '.')
		program_fail("%s: a row that nobody wrote: %.100s", s->id, *p);
	x = seed_of(s, out->n, out->i);
	end++;
	for (unsigned b = 0; b < s->txs[out->n].bytes; b++, end++) {
		x = next_of(x);
		if (*end != letters[x % 64])
			program_fail("%s: row %u of transaction %u has other bytes than were written", s->id,
				     out->i, out->n);
	}
	if (*end != '\n')
		program_fail("%s: row %u of transaction %u is too long", s->id, out->i, out->n);
	*p = end + 1;
	return true;
}
