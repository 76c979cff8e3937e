/*
 * fuzz_fuse.c - the requests of a hostile user, through the session and the handlers of a mount to an empty
 * store in memory.
 *
 * The input: flags, what INIT offers, and then a program: each byte is an operation, what follows are its
 * arguments. Nodes and files are picked from those that earlier replies gave. What the kernel would not send
 * is not sent (kernel.h); nodeids it was never given are, as a parent or to be looked at. At the end either
 * all is let go, and nothing may be left, or the mount stops under those who wait.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/kernel_user.h"

enum { BARE = 1, STOPPED = 2 }; /* flags */

/* Below a shard, to be opened at once. */
static const char *const places[] = {"append",     "append",      "upper",       "since",         "snapshot",
				     "state",      "errors",      "ctl",         "as_of/0",       "as_of/3",
				     "as_of/now",  "wait/0",      "wait/3",      "listen/0",      "listen/1",
				     "listen/now", "listen/-",    "subscribe/0", "subscribe/now", "batches/x",
				     "batches/y",  "batches/0-1", "holds/h",     "holds/default"};

/* --- operations ------------------------------------------------------------------------------------ */

static void op_lookup(struct user *u)
{
	uint64_t parent = user_node(u);
	char *name = user_name(u);

	(void)user_lookup(u, parent, name);
	free(name);
}

static void op_place(struct user *u)
{
	char path[128] = "shard/" SHARD_0 "/";
	uint8_t which = fuzz_u8(&u->in);

	if (which >= 0x80)
		memcpy(path + strlen("shard/"), SHARD_1, strlen(SHARD_1));
	strcat(path, places[which / 2 % COUNT(places)]); /* fits: they are short */
	if (which % 2 == 0)
		(void)user_open_path(u, path, user_flags(u));
	else
		(void)user_walk(u, path);
}

static void op_open(struct user *u)
{
	uint64_t nodeid = user_node(u);

	(void)user_open(u, nodeid, user_flags(u));
}

static void op_create(struct user *u)
{
	struct fuse_create_in in = {.mode = S_IFREG | 0644};
	uint64_t parent = user_node(u);
	char *name = user_name(u);
	struct kernel_request *r;
	int node;

	in.flags = user_flags(u) | O_CREAT | (fuzz_u8(&u->in) % 2 == 0 ? O_EXCL : 0);
	if (user_may_open(u)) {
		r = user_ask(u, FUSE_CREATE, parent, &in, sizeof in, name, NULL);
		if (r != NULL && r->error == 0 && !r->refuse) {
			struct fuse_entry_out e;

			memcpy(&e, r->body, sizeof e);
			/* First open, so that the node is not forgotten for want of room. */
			node = kernel_node_of(u->k, r);
			(void)node;
			(void)kernel_file_of(u->k, r, e.nodeid, in.flags, false);
		}
	}
	free(name);
}

static void op_read(struct user *u)
{
	struct kernel_request r = {.opcode = FUSE_READ, .file = user_file(u, false)};
	struct fuse_read_in in = {.offset = user_offset(u)};

	in.size = (uint32_t)(fuzz_number(&u->in) % KERNEL_IO_MAX) + 1;
	if (!user_may(u, r.file, O_WRONLY))
		return;
	in.fh = u->k->files[r.file].fh;
	in.flags = u->k->files[r.file].flags;
	if (fuzz_u8(&u->in) % 4 == 3)
		in.flags |= O_NONBLOCK;
	r.asked = in.size;
	r.nonblock = (in.flags & O_NONBLOCK) != 0;
	user_ask_file(u, r, &in, sizeof in, NULL);
}

static void op_write(struct user *u)
{
	int file = user_file(u, false);
	uint64_t offset = user_offset(u);
	size_t len;
	char *text = user_text(u, &len);

	if (len != 0)
		user_write(u, file, offset, text, len);
	free(text);
}

static void op_setattr(struct user *u)
{
	struct fuse_setattr_in in = {.valid = fuzz_u16(&u->in) & 0xffff & ~(uint32_t)FATTR_FH};
	int file = user_file(u, false);
	uint64_t nodeid = user_node(u);

	in.size = user_offset(u);
	in.mode = fuzz_u16(&u->in);
	in.uid = fuzz_u8(&u->in);
	in.gid = in.uid;
	if (file != KERNEL_NONE && user_may(u, file, O_RDONLY) && (in.valid & FATTR_SIZE) != 0 &&
	    in.uid % 2 == 0) {
		in.valid |= FATTR_FH;
		in.fh = u->k->files[file].fh;
		nodeid = u->k->files[file].nodeid;
	}
	user_ask(u, FUSE_SETATTR, nodeid, &in, sizeof in, NULL, NULL);
}

static void op_getattr(struct user *u)
{
	struct fuse_getattr_in in = {0};

	user_ask(u, FUSE_GETATTR, user_node(u), &in, sizeof in, NULL, NULL);
}

/* Requests of a nodeid, and of a nodeid and a name. */
static void op_plain(struct user *u)
{
	static const uint32_t opcodes[] = {FUSE_READLINK, FUSE_STATFS};

	user_ask(u, opcodes[fuzz_u8(&u->in) % COUNT(opcodes)], user_node(u), NULL, 0, NULL, NULL);
}

static void op_remove(struct user *u)
{
	uint32_t opcode = fuzz_u8(&u->in) % 2 == 0 ? FUSE_UNLINK : FUSE_RMDIR;
	uint64_t parent = user_node(u);
	char *name = user_name(u);

	user_ask(u, opcode, parent, NULL, 0, name, NULL);
	free(name);
}

static void op_make(struct user *u)
{
	struct fuse_mkdir_in dir = {.mode = 0755};
	struct fuse_mknod_in node = {0};
	struct fuse_link_in link = {0};
	uint8_t how = fuzz_u8(&u->in) % 4;
	uint64_t parent = user_node(u);
	char *name = user_name(u), *target;
	struct kernel_request *r;

	if (how == 0) {
		r = user_ask(u, FUSE_MKDIR, parent, &dir, sizeof dir, name, NULL);
	} else if (how == 1) {
		node.mode = fuzz_u16(&u->in);
		r = user_ask(u, FUSE_MKNOD, parent, &node, sizeof node, name, NULL);
	} else if (how == 2) {
		static const char *const targets[] = {"../shard/" SHARD_0, "shard/" SHARD_1 "//", SHARD_0,
						      "x"};
		uint8_t which = fuzz_u8(&u->in);

		target = which < RAW ? strdup(targets[which % COUNT(targets)]) : user_name(u);
		r = user_ask(u, FUSE_SYMLINK, parent, NULL, 0, name, target);
		free(target);
	} else {
		link.oldnodeid = user_node(u);
		r = user_ask(u, FUSE_LINK, parent, &link, sizeof link, name, NULL);
	}
	(void)kernel_node_of(u->k, r);
	free(name);
}

static void op_rename(struct user *u)
{
	struct fuse_rename2_in in = {.newdir = user_node(u), .flags = fuzz_u8(&u->in) % 8};
	uint64_t parent = user_node(u);
	char *from = user_name(u), *to = user_name(u);

	if (in.flags == 0)
		user_ask(u, FUSE_RENAME, parent, &in, sizeof(struct fuse_rename_in), from, to);
	else
		user_ask(u, FUSE_RENAME2, parent, &in, sizeof in, from, to);
	free(from);
	free(to);
}

static void op_opendir(struct user *u)
{
	struct fuse_open_in in = {.flags = O_RDONLY | O_DIRECTORY};
	uint64_t nodeid = user_node(u);

	for (int i = 0; i < KERNEL_NODES; i++) /* of what is no directory the kernel does not ask it */
		if (u->k->nodes[i].nodeid == nodeid && S_ISDIR(u->k->nodes[i].mode) && user_may_open(u)) {
			(void)kernel_file_of(u->k,
					     user_ask(u, FUSE_OPENDIR, nodeid, &in, sizeof in, NULL, NULL),
					     nodeid, in.flags, true);
			return;
		}
}

static void op_readdir(struct user *u)
{
	struct kernel_request r = {.opcode = FUSE_READDIR, .file = user_file(u, true)};
	struct fuse_read_in in = {.offset = user_offset(u)};

	in.size = r.asked = (uint32_t)(fuzz_number(&u->in) % 8192) + 1;
	if (r.file == KERNEL_NONE)
		return;
	in.fh = u->k->files[r.file].fh;
	user_ask_file(u, r, &in, sizeof in, NULL);
}

/* FLUSH, FSYNC, FSYNCDIR, POLL, IOCTL of an open file. */
static void op_file(struct user *u)
{
	uint8_t how = fuzz_u8(&u->in) % 5;
	struct kernel_request r = {.file = user_file(u, how == 2)};
	struct fuse_flush_in flush = {0};
	struct fuse_fsync_in sync = {.fsync_flags = fuzz_u8(&u->in) % 2};
	struct fuse_poll_in poll_in = {.kh = fuzz_u8(&u->in), .events = POLLIN};
	struct fuse_ioctl_in ioctl = {.cmd = fuzz_u32(&u->in)};

	if (r.file == KERNEL_NONE)
		return;
	flush.fh = sync.fh = poll_in.fh = ioctl.fh = u->k->files[r.file].fh;
	poll_in.flags = poll_in.kh % 2 == 0 ? FUSE_POLL_SCHEDULE_NOTIFY : 0;
	r.opcode = (uint32_t[]){FUSE_FLUSH, FUSE_FSYNC, FUSE_FSYNCDIR, FUSE_POLL, FUSE_IOCTL}[how];
	if (how == 0)
		user_ask_file(u, r, &flush, sizeof flush, NULL);
	else if (how == 3)
		user_ask_file(u, r, &poll_in, sizeof poll_in, NULL);
	else if (how == 4)
		user_ask_file(u, r, &ioctl, sizeof ioctl, NULL);
	else
		user_ask_file(u, r, &sync, sizeof sync, NULL);
}

static void op_release(struct user *u)
{
	int file = user_file(u, fuzz_u8(&u->in) % 4 == 0);

	if (file != KERNEL_NONE)
		kernel_release(u->k, file);
}

static void op_forget(struct user *u)
{
	kernel_forget(u->k, fuzz_u8(&u->in) % KERNEL_NODES, fuzz_number(&u->in));
}

/* Several at once. */
static void op_batch_forget(struct user *u)
{
	const struct kernel_request r = {.opcode = FUSE_BATCH_FORGET, .none = true, .file = KERNEL_NONE};
	struct fuse_forget_one one[KERNEL_NODES];
	struct fuse_batch_forget_in in = {0};

	for (int i = 1; i < KERNEL_NODES; i++) {
		struct kernel_node *n = &u->k->nodes[i];

		if (n->nodeid == 0 || n->opens != 0 || fuzz_u8(&u->in) % 2 == 0)
			continue;
		one[in.count++] = (struct fuse_forget_one){.nodeid = n->nodeid, .nlookup = n->lookups};
		*n = (struct kernel_node){0};
	}
	kernel_send(u->k, r, 0, 0,
		    (struct kernel_body){.p = {&in, one}, .len = {sizeof in, in.count * sizeof one[0]}});
}

static void op_interrupt(struct user *u)
{
	uint8_t back = fuzz_u8(&u->in);

	kernel_interrupt(u->k, u->k->count > back ? u->k->count - back : 0, back % 2 == 0);
}

/* What the mount does not have, or nobody has: a body of zeros, long enough for all of them. */
static void op_unknown(struct user *u)
{
	static const uint32_t opcodes[] = {FUSE_ACCESS,
					   FUSE_GETXATTR,
					   FUSE_SETXATTR,
					   FUSE_LISTXATTR,
					   FUSE_REMOVEXATTR,
					   FUSE_GETLK,
					   FUSE_SETLK,
					   FUSE_BMAP,
					   FUSE_FALLOCATE,
					   FUSE_LSEEK,
					   FUSE_READDIRPLUS,
					   FUSE_COPY_FILE_RANGE,
					   FUSE_SYNCFS,
					   FUSE_TMPFILE,
					   9,
					   53,
					   4095,
					   UINT32_MAX};
	static const char zeros[256];

	user_ask(u, opcodes[fuzz_u8(&u->in) % COUNT(opcodes)], user_node(u), zeros, sizeof zeros, NULL, NULL);
}

/* Text to a file that is opened for it. */
static void op_write_place(struct user *u)
{
	char path[128] = "shard/" SHARD_0 "/";
	uint8_t which = fuzz_u8(&u->in);
	size_t len;
	char *text = user_text(u, &len);
	int file;

	strcat(path, places[which % COUNT(places)]); /* fits: they are short */
	file = user_open_path(u, path, O_RDWR);
	if (len != 0)
		user_write(u, file, 0, text, len);
	free(text);
}

/* --- a mount with something in it ------------------------------------------------------------------ */

static void furnish(struct user *u)
{
	const char *shard = "shard/" SHARD_0;
	struct fuse_mkdir_in dir = {.mode = 0755};
	struct fuse_create_in create = {.mode = S_IFREG | 0644, .flags = O_RDWR | O_CREAT};
	struct kernel_request *r;
	int file, node;

	node = user_walk(u, "shard");
	(void)kernel_node_of(
		u->k, user_ask(u, FUSE_MKDIR, u->k->nodes[node].nodeid, &dir, sizeof dir, SHARD_0, NULL));
	must(user_walk(u, shard) != KERNEL_NONE);
	file = user_open_path(u, "shard/" SHARD_0 "/append", O_RDWR);
	must(file != KERNEL_NONE);
	for (int i = 0; i < 3; i++)
		user_write(u, file, 0, user_texts[0], strlen(user_texts[0]));
	node = user_walk(u, "shard/" SHARD_0 "/batches");
	r = user_ask(u, FUSE_CREATE, u->k->nodes[node].nodeid, &create, sizeof create, "x", NULL);
	must(r != NULL && r->error == 0);
	node = kernel_node_of(u->k, r);
	file = kernel_file_of(u->k, r, u->k->nodes[node].nodeid, create.flags, false);
	user_write(u, file, 0, user_texts[8], strlen(user_texts[8]));
	node = user_walk(u, "name");
	r = user_ask(u, FUSE_SYMLINK, u->k->nodes[node].nodeid, NULL, 0, "x", "../shard/" SHARD_0);
	(void)kernel_node_of(u->k, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const ops[])(struct user * u) = {
		op_lookup,    op_place,   op_open,        op_create,  op_read,   op_write,
		op_setattr,   op_getattr, op_plain,       op_remove,  op_make,   op_rename,
		op_opendir,   op_readdir, op_file,        op_release, op_forget, op_batch_forget,
		op_interrupt, op_unknown, op_write_place, op_read,    op_place,  op_write};
	struct user u = {.in = {.p = data, .left = size}, .times = USER_TIMES_MAX};
	uint8_t flags = fuzz_u8(&u.in);
	uint32_t init = fuzz_u32(&u.in);

	u.k = kernel_start(init, fuzz_u16(&u.in));
	if ((flags & BARE) == 0)
		furnish(&u);
	while (u.in.left != 0 && u.k->count < KERNEL_ENOUGH) {
		uint8_t op = fuzz_u8(&u.in);

		u.refuse = op >= 0xe0; /* the user is killed as the reply comes */
		ops[op % COUNT(ops)](&u);
	}
	u.refuse = false;
	if ((flags & STOPPED) == 0)
		kernel_let_go(u.k);
	kernel_stop(u.k);
	return 0;
}
