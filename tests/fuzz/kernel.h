/*
 * kernel.h - the other side of /dev/fuse, without the kernel: it sends requests to the handlers of a mount,
 * takes the replies, and knows what the kernel knows: which nodeids it was given and how often, which files
 * are open, which requests wait.
 *
 * What it promises, as the kernel does: strings end with a NUL and have no slash, bodies are as long as they
 * say, file handles are those of open files, opened for what is asked of them, and RELEASE and FORGET come
 * when nothing uses a file or node any more. What it demands of each reply is in kernel_reply.c.
 *
 * Threads: replies come on any; all else is of one.
 */
#ifndef TESTS_FUZZ_KERNEL_H
#define TESTS_FUZZ_KERNEL_H

#include <linux/fuse.h>
#include <pthread.h>

#include "fs/options.h"
#include "tests/fuzz/fuzz.h"

enum {
	KERNEL_REQUESTS = 2048, /* in one life; INIT and what ends it included */
	KERNEL_ENOUGH = 700,    /* so many leave room for what ends it */
	KERNEL_NODES = 64,
	KERNEL_FILES = 32,
	KERNEL_NAME_MAX = 1024,
	KERNEL_IO_MAX = 1 << 20,
	KERNEL_NONE = -1,
};

struct kernel_node {
	uint64_t nodeid; /* 0: free */
	uint64_t lookups;
	uint32_t mode;
	unsigned opens;
};

struct kernel_file {
	bool used;
	bool dir;
	uint64_t fh;
	uint64_t nodeid;
	uint32_t flags;
};

/* What was asked, for judging the reply. */
struct kernel_request {
	uint32_t opcode;
	uint32_t asked; /* bytes to read or written */
	int file;       /* or KERNEL_NONE */
	bool nonblock;
	bool interrupted;
	bool refuse;   /* the reply meets ENOENT: the one who asked was killed */
	bool optional; /* none has to come */
	bool none;     /* none may come */

	bool answered;
	int32_t error;
	size_t body_len;
	uint8_t body[sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out)]; /* the beginning */
};

struct kernel {
	struct fs *fs;
	struct fs_command command;              /* its own, as a mount's is */
	struct kernel_node nodes[KERNEL_NODES]; /* [0] is the root */
	struct kernel_file files[KERNEL_FILES];

	pthread_mutex_t mu; /* all below */
	pthread_cond_t answered;
	struct kernel_request requests[KERNEL_REQUESTS]; /* their unique is twice the index: it is even */
	size_t count;
	size_t pending;
	bool stopping;
	char listed[KERNEL_NAME_MAX + 1]; /* the last name of the last listing */
};

/* A mount over an empty store in memory, and INIT with these flags. */
struct kernel *kernel_start(uint32_t init_flags, uint32_t max_readahead);

/* The mount stops, and answers whatever waits. */
void kernel_stop(struct kernel *k);

/* What follows the header, in pieces. */
struct kernel_body {
	const void *p[3];
	size_t len[3];
};

/* Send a request of user uid. ask: its opcode, and what of the members below it is known. NULL: there were
 * KERNEL_REQUESTS. Its answer may be there already, or come later. */
struct kernel_request *kernel_send(struct kernel *k, struct kernel_request ask, uint64_t nodeid, uint32_t uid,
				   struct kernel_body body);

/* What a reply with an entry, or a handle, gave; the index, or KERNEL_NONE. */
int kernel_node_of(struct kernel *k, const struct kernel_request *r);
int kernel_file_of(struct kernel *k, const struct kernel_request *r, uint64_t nodeid, uint32_t flags,
		   bool dir);

/* Requests of this file that wait. */
size_t kernel_waiting(struct kernel *k, int file);

/* INTERRUPT request number i, if it waits or `late` whatever it does. */
void kernel_interrupt(struct kernel *k, size_t i, bool late);
void kernel_forget(struct kernel *k, int node, uint64_t lookups);
void kernel_release(struct kernel *k, int file);

/* Interrupt what waits and wait for all answers. */
void kernel_quiesce(struct kernel *k);

/* Close every file and forget every node: then nothing may be left in the mount. */
void kernel_let_go(struct kernel *k);

/* kernel_reply.c: a reply, or a notice, as the mount writes it. Under mu. */
void kernel_judge(struct kernel *k, const struct fuse_out_header *out, const uint8_t *body, size_t len);

#endif
