/*
 * id.h - the names of things: a random uuid behind a letter that says of what.
 *
 *     s…  shard       struct core_shard_id
 *     p…  part        struct core_part_id
 *     i…  idempotency token    struct core_token
 *     w…  writer      (core_uuid with 'w')
 *     n…  instance    one open engine; parts carry the one that wrote them (struct core_instance_id)
 *
 * Text is the letter and 36 lower-case characters. Pure values; any thread.
 */
#ifndef CORE_ID_H
#define CORE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct core_uuid {
	uint8_t b[16];
};

struct core_shard_id {
	struct core_uuid u;
};
struct core_part_id {
	struct core_uuid u;
};
struct core_token {
	struct core_uuid u;
};
struct core_instance_id {
	struct core_uuid u;
};

enum { CORE_ID_LEN = 38 }; /* letter, 36 characters, NUL */

struct core_uuid core_uuid_new(void); /* random */
bool core_uuid_eq(struct core_uuid a, struct core_uuid b);

/* False: not `letter` and a lower-case uuid, exactly. */
bool core_uuid_parse(char letter, const char *text, size_t len, struct core_uuid *out);

/* Writes the text and a NUL to buf; returns buf. */
char *core_uuid_format(char letter, struct core_uuid u, char buf[CORE_ID_LEN]);

#endif
