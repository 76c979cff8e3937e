/*
 * kernel_user.c - see kernel_user.h.
 */
#include "tests/fuzz/kernel_user.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* --- arguments ------------------------------------------------------------------------------------- */

static const char *const names[] = {
	"shard",
	"name",
	"README",
	"metrics",
	SHARD_0,
	SHARD_1,
	"upper",
	"since",
	"append",
	"snapshot",
	"state",
	"errors",
	"ctl",
	"as_of",
	"wait",
	"listen",
	"subscribe",
	"batches",
	"writers",
	"readers",
	"holds",
	"now",
	"0",
	"1",
	"2",
	"5",
	"-",
	"0-1",
	"1-2",
	"0-2",
	"x",
	"y",
	"default",
	"h",
	"18446744073709551615",
	".",
	"..",
	"w00000000-0000-4000-8000-000000000000",
};

const char *const user_texts[USER_TEXTS] = {
	"begin expected_upper=* new_upper=+1\n*\t1\tkey\tval\ncommit\n",
	"begin expected_upper=0 new_upper=1\n0\t1\tapple\tred\n0\t-1\t\\N\t\\x41\ncommit\n",
	"begin lower=0 upper=3 token=i01234567-89ab-cdef-0123-456789abcdef\n2\t1\ta\tb\ncommit\n",
	"begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch x\ncommit\n",
	"begin expected_upper=* new_upper=- since=-\ncommit\n",
	"begin lower=0 upper=4\n3\t1\tk\tv\ncommit\n",
	"begin expected_upper=* new_upper=+1\n*\t1\tk\tv\n",
	"commit\n",
	"3\t1\tk\tv\n",
	"0\t9223372036854775807\tk\tv\n0\t1\tk\tw\n1\t1\tk\t",
	"bounds 0 9\n",
	"2",
	"-\n",
	"upper-1\n",
	"listen=1\n",
	"expected=0 token=1 since=1",
	"expected=1 token=2 since=-",
	"compact\n",
	"gc",
	"rollup\n",
	"expire w00000000-0000-4000-8000-000000000000",
};

uint64_t user_node(struct user *u)
{
	uint8_t which = fuzz_u8(&u->in);
	int known = 0;

	if (which == WILD)
		return fuzz_u64(&u->in);
	for (int i = 0; i < KERNEL_NODES; i++)
		known += u->k->nodes[i].nodeid != 0;
	which %= (uint8_t)known;
	for (int i = 0;; i++)
		if (u->k->nodes[i].nodeid != 0 && which-- == 0)
			return u->k->nodes[i].nodeid;
}

int user_file(struct user *u, bool dir)
{
	uint8_t which = fuzz_u8(&u->in);
	int open = 0;

	for (int i = 0; i < KERNEL_FILES; i++)
		open += u->k->files[i].used && u->k->files[i].dir == dir;
	if (open == 0)
		return KERNEL_NONE;
	which %= (uint8_t)open;
	for (int i = 0;; i++)
		if (u->k->files[i].used && u->k->files[i].dir == dir && which-- == 0)
			return i;
}

/* Given. */
char *user_name(struct user *u)
{
	uint8_t which = fuzz_u8(&u->in);
	size_t len = which == WILD ? KERNEL_NAME_MAX : which - RAW + 1u;
	char *raw, *name;

	if (which == LISTED && u->k->listed[0] != '\0')
		return strdup(u->k->listed);
	if (which < RAW)
		return strdup(names[which % COUNT(names)]);
	if (which == WILD)
		len = fuzz_u16(&u->in) % len + 1;
	raw = fuzz_copy(&u->in, len, &len);
	name = strndup(raw, len);
	free(raw);
	must(name != NULL);
	for (char *p = name; *p != '\0'; p++)
		if (*p == '/')
			*p = '+';
	if (name[0] == '\0') {
		free(name);
		name = strdup("z");
	}
	return name;
}

/* What is written; given. */
char *user_text(struct user *u, size_t *len)
{
	uint8_t which = fuzz_u8(&u->in);
	size_t times = 1, one;
	char *text;

	if (which >= RAW)
		return fuzz_copy(&u->in, which == WILD ? fuzz_u16(&u->in) : which - RAW + 1u, len);
	if (which == REPEATED) {
		which = fuzz_u8(&u->in);
		times = fuzz_u8(&u->in) % u->times + 1;
		u->times -= times == u->times ? times - 1 : times;
	}
	one = strlen(user_texts[which % USER_TEXTS]);
	*len = times * one;
	text = malloc(*len);
	must(text != NULL);
	for (size_t at = 0; at < *len; at += one)
		memcpy(text + at, user_texts[which % USER_TEXTS], one);
	return text;
}

/* As the kernel's checks leave it: not negative, nor is its end. */
uint64_t user_offset(struct user *u)
{
	return fuzz_number(&u->in) & (INT64_MAX >> 1);
}

uint32_t user_flags(struct user *u)
{
	static const uint32_t flags[] = {O_RDONLY,
					 O_WRONLY,
					 O_RDWR,
					 O_RDWR | O_TRUNC,
					 O_WRONLY | O_APPEND,
					 O_RDONLY | O_NONBLOCK,
					 O_RDWR | O_NONBLOCK | O_APPEND,
					 O_WRONLY | O_SYNC | O_DIRECT};
	uint8_t which = fuzz_u8(&u->in);

	return which == WILD ? (fuzz_u32(&u->in) & ~(uint32_t)(O_CREAT | O_EXCL | O_NOCTTY)) % O_PATH
			     : flags[which % COUNT(flags)];
}

/* --- sending --------------------------------------------------------------------------------------- */

struct kernel_request *user_ask(struct user *u, uint32_t opcode, uint64_t nodeid, const void *arg, size_t len,
				const char *name, const char *name2)
{
	struct kernel_request r = {.opcode = opcode, .file = KERNEL_NONE, .refuse = u->refuse};
	struct kernel_body body = {
		.p = {arg, name, name2},
		.len = {len, name != NULL ? strlen(name) + 1 : 0, name2 != NULL ? strlen(name2) + 1 : 0}};

	return kernel_send(u->k, r, nodeid, 1000, body);
}

struct kernel_request *user_ask_file(struct user *u, struct kernel_request r, const void *arg, size_t len,
				     const void *data)
{
	return kernel_send(u->k, r, u->k->files[r.file].nodeid, 1000,
			   (struct kernel_body){.p = {arg, data}, .len = {len, data != NULL ? r.asked : 0}});
}

int user_lookup(struct user *u, uint64_t parent, const char *name)
{
	return kernel_node_of(u->k, user_ask(u, FUSE_LOOKUP, parent, NULL, 0, name, NULL));
}

bool user_may_open(const struct user *u)
{
	for (int i = 0; i < KERNEL_FILES; i++)
		if (!u->k->files[i].used)
			return true;
	return false;
}

int user_open(struct user *u, uint64_t nodeid, uint32_t flags)
{
	struct fuse_open_in in = {.flags = flags};

	if (!user_may_open(u))
		return KERNEL_NONE;
	return kernel_file_of(u->k, user_ask(u, FUSE_OPEN, nodeid, &in, sizeof in, NULL, NULL), nodeid, flags,
			      false);
}

/* From the root, piece by piece; the last node, or KERNEL_NONE. */
int user_walk(struct user *u, const char *path)
{
	char *copy = strdup(path), *rest = copy, *name;
	bool refuse = u->refuse;
	int node = 0;

	must(copy != NULL);
	while (node != KERNEL_NONE && (name = strsep(&rest, "/")) != NULL) {
		u->refuse = refuse && rest == NULL;
		node = user_lookup(u, u->k->nodes[node].nodeid, name);
	}
	u->refuse = refuse;
	free(copy);
	return node;
}

int user_open_path(struct user *u, const char *path, uint32_t flags)
{
	bool refuse = u->refuse;
	int node;

	u->refuse = false;
	node = user_walk(u, path);
	u->refuse = refuse;
	return node != KERNEL_NONE ? user_open(u, u->k->nodes[node].nodeid, flags) : KERNEL_NONE;
}

bool user_may(const struct user *u, int file, uint32_t unless)
{
	return file != KERNEL_NONE && (u->k->files[file].flags & O_ACCMODE) != unless;
}

void user_write(struct user *u, int file, uint64_t offset, const char *data, size_t len)
{
	const struct kernel_request r = {.opcode = FUSE_WRITE, .asked = (uint32_t)len, .file = file};
	struct fuse_write_in in = {.offset = offset, .size = (uint32_t)len};

	if (!user_may(u, file, O_RDONLY))
		return;
	in.fh = u->k->files[file].fh;
	in.flags = u->k->files[file].flags;
	user_ask_file(u, r, &in, sizeof in, data);
}
