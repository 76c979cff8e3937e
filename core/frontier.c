/*
 * frontier.c - antichains over u64 times.
 *
 * 1. An empty frontier has t == 0, so two equal frontiers are equal field by
 *    field. All constructors here keep that.
 * 2. The empty frontier is the greatest: {t} < empty for every t.
 */
#include "core/frontier.h"

#include <inttypes.h>
#include <stdio.h>

enum { U64_DIGITS_MAX = 20, U64_DIGITS_SAFE = 19 };

struct core_frontier core_frontier_at(uint64_t t)
{
	return (struct core_frontier){.empty = false, .t = t};
}

struct core_frontier core_frontier_empty(void)
{
	return (struct core_frontier){.empty = true, .t = 0};
}

struct core_frontier core_frontier_above(uint64_t t)
{
	return t == UINT64_MAX ? core_frontier_empty() : core_frontier_at(t + 1);
}

int core_frontier_cmp(struct core_frontier a, struct core_frontier b)
{
	if (a.empty || b.empty)
		return (int)a.empty - (int)b.empty;
	return (a.t > b.t) - (a.t < b.t);
}

bool core_frontier_eq(struct core_frontier a, struct core_frontier b)
{
	return core_frontier_cmp(a, b) == 0;
}

bool core_frontier_lt(struct core_frontier a, struct core_frontier b)
{
	return core_frontier_cmp(a, b) < 0;
}

bool core_frontier_le(struct core_frontier a, struct core_frontier b)
{
	return core_frontier_cmp(a, b) <= 0;
}

struct core_frontier core_frontier_min(struct core_frontier a, struct core_frontier b)
{
	return core_frontier_le(a, b) ? a : b;
}

struct core_frontier core_frontier_max(struct core_frontier a, struct core_frontier b)
{
	return core_frontier_le(a, b) ? b : a;
}

bool core_frontier_covers(struct core_frontier f, uint64_t t)
{
	return !f.empty && f.t <= t;
}

bool core_u64_parse(const char *text, size_t len, uint64_t *out)
{
	uint64_t value = 0;

	if (len == 0 || len > U64_DIGITS_MAX || (text[0] == '0' && len > 1))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)(unsigned char)text[i] - '0';

		if (digit > 9)
			return false;
		if (i < U64_DIGITS_SAFE)
			value = value * 10 + digit;
		else if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
			 __builtin_add_overflow(value, (uint64_t)digit, &value))
			return false;
	}
	*out = value;
	return true;
}

bool core_frontier_parse(const char *text, size_t len, struct core_frontier *out)
{
	uint64_t t;

	if (len == 1 && text[0] == '-') {
		*out = core_frontier_empty();
		return true;
	}
	if (!core_u64_parse(text, len, &t))
		return false;
	*out = core_frontier_at(t);
	return true;
}

char *core_frontier_format(struct core_frontier f, char buf[CORE_FRONTIER_LEN])
{
	if (f.empty)
		snprintf(buf, CORE_FRONTIER_LEN, "-");
	else
		snprintf(buf, CORE_FRONTIER_LEN, "%" PRIu64, f.t);
	return buf;
}

unsigned core_u64_digits(uint64_t t)
{
	unsigned digits = 1;

	for (; t >= 10000; t /= 10000)
		digits += 4;
	return digits + (t >= 10) + (t >= 100) + (t >= 1000);
}
