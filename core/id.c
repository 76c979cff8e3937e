/*
 * id.c - random uuids (RFC 4122, version 4) and their text.
 *
 * The kernel is asked each time: a copy of a process or of a machine must not repeat an id. libuuid asks it
 * too, but under a lock of the process and stirring in rand(): 1.9 us an id against 0.3, and an append takes
 * two. Its reader takes upper case and skips the length, which names must not.
 */
#include "core/id.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

static const char hex_digits[] = "0123456789abcdef";

/* Whether a dash comes before byte i of a uuid's text. */
static bool dash_before(size_t i)
{
	return i == 4 || i == 6 || i == 8 || i == 10;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

struct core_uuid core_uuid_new(void)
{
	struct core_uuid u;
	int rc = getentropy(u.b, sizeof(u.b));

	assert(rc == 0); /* 256 bytes and fewer are always there: getrandom(2) */
	u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
	u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
	return u;
}

bool core_uuid_eq(struct core_uuid a, struct core_uuid b)
{
	return memcmp(a.b, b.b, sizeof(a.b)) == 0;
}

bool core_uuid_parse(char letter, const char *text, size_t len, struct core_uuid *out)
{
	struct core_uuid u;
	size_t at = 1;

	if (len != CORE_ID_LEN - 1 || text[0] != letter)
		return false;
	for (size_t i = 0; i < sizeof(u.b); i++) {
		if (dash_before(i) && text[at++] != '-')
			return false;
		int high = hex_value(text[at]);
		int low = hex_value(text[at + 1]);
		if (high < 0 || low < 0)
			return false;
		u.b[i] = (uint8_t)(high << 4 | low);
		at += 2;
	}
	assert(at == len);
	*out = u;
	return true;
}

char *core_uuid_format(char letter, struct core_uuid u, char buf[CORE_ID_LEN])
{
	char *p = buf;

	*p++ = letter;
	for (size_t i = 0; i < sizeof(u.b); i++) {
		if (dash_before(i))
			*p++ = '-';
		*p++ = hex_digits[u.b[i] >> 4];
		*p++ = hex_digits[u.b[i] & 15];
	}
	*p = '\0';
	return buf;
}
