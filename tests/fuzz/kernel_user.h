/*
 * kernel_user.h - a user whose wishes are bytes of the input: which node, file, name, text; for fuzz_fuse.c.
 *
 * Of a table of words each kind of argument has the number of one in a byte; from RAW on bytes of its own
 * follow.
 *
 * Threads: one.
 */
#ifndef TESTS_FUZZ_KERNEL_USER_H
#define TESTS_FUZZ_KERNEL_USER_H

#include "tests/fuzz/kernel.h"

#define SHARD_0 "s00000000-0000-4000-8000-000000000000"
#define SHARD_1 "s11111111-1111-4111-8111-111111111111"
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { LISTED = 0xef, REPEATED = 0xef, RAW = 0xf0, WILD = 0xff, USER_TIMES_MAX = 256, USER_TEXTS = 21 };

struct user {
	struct kernel *k;
	struct fuzz_in in;
	bool refuse;  /* the next reply; of several that of the last */
	size_t times; /* so often may texts be repeated, lest it takes long; at least once */
};

/* --- arguments ------------------------------------------------------------------------------------- */

extern const char *const user_texts[USER_TEXTS]; /* what is written, or begins what is */

uint64_t user_node(struct user *u); /* one that it was given, or (WILD) any number */
int user_file(struct user *u, bool dir);
char *user_name(struct user *u);              /* given */
char *user_text(struct user *u, size_t *len); /* given */
uint64_t user_offset(struct user *u); /* as the kernel's checks leave it: not negative, nor is its end */
uint32_t user_flags(struct user *u);  /* of open(2) */

/* --- sending --------------------------------------------------------------------------------------- */

/* About a nodeid: what is fixed, then names, or NULL. */
struct kernel_request *user_ask(struct user *u, uint32_t opcode, uint64_t nodeid, const void *arg, size_t len,
				const char *name, const char *name2);

/* About the file r.file: what is fixed, then r.asked bytes of data, or NULL. */
struct kernel_request *user_ask_file(struct user *u, struct kernel_request r, const void *arg, size_t len,
				     const void *data);

int user_lookup(struct user *u, uint64_t parent, const char *name); /* a node */
int user_walk(struct user *u, const char *path);                    /* the last node, from the root */
int user_open(struct user *u, uint64_t nodeid, uint32_t flags);     /* a file */
int user_open_path(struct user *u, const char *path, uint32_t flags);
void user_write(struct user *u, int file, uint64_t offset, const char *data, size_t len);

/* Whether there is room for another open file; whether one is open, and with other access than that. */
bool user_may_open(const struct user *u);
bool user_may(const struct user *u, int file, uint32_t unless);

#endif
