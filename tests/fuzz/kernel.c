/*
 * kernel.c - see kernel.h.
 *
 * Each request is in memory of its own length, so that who reads beyond it is found. The session's userdata
 * is the mount's, so the replies come to the one kernel that there is.
 */
#include "tests/fuzz/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/mount.h"

static struct kernel *the_kernel;

/* --- replies --------------------------------------------------------------------------------------- */

static ssize_t take_reply(int fd, struct iovec *iov, int count, void *userdata)
{
	struct kernel *k = the_kernel;
	struct kernel_request *r;
	struct fuse_out_header out;
	size_t len = 0, at = 0;
	uint8_t *bytes;
	bool refused = false;

	(void)fd;
	(void)userdata;
	for (int i = 0; i < count; i++)
		len += iov[i].iov_len;
	must(len >= sizeof out);
	bytes = malloc(len);
	must(bytes != NULL);
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len != 0)
			memcpy(bytes + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	memcpy(&out, bytes, sizeof out);
	pthread_mutex_lock(&k->mu);
	kernel_judge(k, &out, bytes + sizeof out, len - sizeof out);
	if (out.unique != 0) {
		r = &k->requests[out.unique / 2];
		refused = r->refuse;
		k->pending -= !r->optional;
		pthread_cond_broadcast(&k->answered);
	}
	pthread_mutex_unlock(&k->mu);
	free(bytes);
	if (!refused)
		return (ssize_t)len;
	errno = ENOENT;
	return -1;
}

/* Requests are handed to the session, it never asks. */
static ssize_t no_request(int fd, void *buf, size_t len, void *userdata)
{
	(void)fd;
	(void)buf;
	(void)len;
	(void)userdata;
	errno = ENODEV;
	return -1;
}

/* --- requests -------------------------------------------------------------------------------------- */

static struct kernel_request *enter(struct kernel *k, struct kernel_request ask, uint64_t *unique)
{
	struct kernel_request *r = NULL;

	pthread_mutex_lock(&k->mu);
	if (k->count < KERNEL_REQUESTS) {
		*unique = 2 * k->count;
		r = &k->requests[k->count++];
		*r = ask;
		r->answered = false;
		k->pending += !r->optional && !r->none;
	}
	pthread_mutex_unlock(&k->mu);
	return r;
}

struct kernel_request *kernel_send(struct kernel *k, struct kernel_request ask, uint64_t nodeid, uint32_t uid,
				   struct kernel_body body)
{
	struct fuse_in_header in = {
		.opcode = ask.opcode, .nodeid = nodeid, .uid = uid, .gid = uid, .pid = 77};
	struct kernel_request *r = enter(k, ask, &in.unique);
	struct fuse_buf buf = {.size = sizeof in};
	uint8_t *p;

	if (r == NULL)
		return NULL;
	for (int i = 0; i < 3; i++)
		buf.size += body.len[i];
	in.len = (uint32_t)buf.size;
	p = malloc(buf.size);
	must(p != NULL);
	buf.mem = p;
	memcpy(p, &in, sizeof in);
	p += sizeof in;
	for (int i = 0; i < 3; i++) {
		if (body.len[i] != 0)
			memcpy(p, body.p[i], body.len[i]);
		p += body.len[i];
	}
	fuse_session_process_buf(k->fs->session, &buf);
	free(buf.mem);
	return r;
}

/* Whether it is answered well, for those answers that come at once. */
static bool is_good(struct kernel *k, const struct kernel_request *r)
{
	bool good;

	pthread_mutex_lock(&k->mu);
	good = r->answered && r->error == 0 && !r->refuse;
	pthread_mutex_unlock(&k->mu);
	return good;
}

int kernel_node_of(struct kernel *k, const struct kernel_request *r)
{
	struct fuse_entry_out e;
	int at = KERNEL_NONE;

	if (r == NULL || !is_good(k, r))
		return KERNEL_NONE;
	memcpy(&e, r->body, sizeof e);
	for (int i = 0; i < KERNEL_NODES; i++)
		if (k->nodes[i].nodeid == e.nodeid || (at == KERNEL_NONE && k->nodes[i].nodeid == 0))
			at = i;
	if (at == KERNEL_NONE) { /* no room: forgotten at once */
		const struct fuse_forget_in forget = {.nlookup = 1};

		kernel_send(k,
			    (struct kernel_request){.opcode = FUSE_FORGET, .none = true, .file = KERNEL_NONE},
			    e.nodeid, 0, (struct kernel_body){.p = {&forget}, .len = {sizeof forget}});
		return KERNEL_NONE;
	}
	k->nodes[at].nodeid = e.nodeid;
	k->nodes[at].lookups++;
	k->nodes[at].mode = e.attr.mode;
	return at;
}

static void count_open(struct kernel *k, uint64_t nodeid, int by)
{
	for (int i = 0; i < KERNEL_NODES; i++)
		if (k->nodes[i].nodeid == nodeid)
			k->nodes[i].opens += (unsigned)by;
}

int kernel_file_of(struct kernel *k, const struct kernel_request *r, uint64_t nodeid, uint32_t flags,
		   bool dir)
{
	struct fuse_open_out open;
	int at = 0;

	if (r == NULL || !is_good(k, r))
		return KERNEL_NONE;
	memcpy(&open, r->body + (r->opcode == FUSE_CREATE ? sizeof(struct fuse_entry_out) : 0), sizeof open);
	while (at < KERNEL_FILES && k->files[at].used)
		at++;
	must(at < KERNEL_FILES); /* who opens has looked */
	for (int i = 0; i < KERNEL_FILES; i++)
		must(!k->files[i].used || k->files[i].fh != open.fh);
	k->files[at] = (struct kernel_file){.used = true,
					    .dir = dir,
					    .fh = open.fh,
					    .nodeid = nodeid,
					    .flags = flags & ~(uint32_t)O_CREAT};
	count_open(k, nodeid, 1);
	return at;
}

size_t kernel_waiting(struct kernel *k, int file)
{
	size_t waiting = 0;

	pthread_mutex_lock(&k->mu);
	for (size_t i = 0; i < k->count && k->pending != 0; i++)
		waiting += k->requests[i].file == file && !k->requests[i].answered &&
			   !k->requests[i].optional && !k->requests[i].none;
	pthread_mutex_unlock(&k->mu);
	return waiting;
}

void kernel_interrupt(struct kernel *k, size_t i, bool late)
{
	const struct kernel_request ask = {.opcode = FUSE_INTERRUPT, .optional = true, .file = KERNEL_NONE};
	struct fuse_interrupt_in in = {.unique = 2 * i};
	bool send = false;

	pthread_mutex_lock(&k->mu);
	if (i < k->count && !k->requests[i].none && !k->requests[i].optional) {
		send = late || !k->requests[i].answered;
		k->requests[i].interrupted = true;
	}
	pthread_mutex_unlock(&k->mu);
	if (send)
		kernel_send(k, ask, 0, 0, (struct kernel_body){.p = {&in}, .len = {sizeof in}});
}

void kernel_forget(struct kernel *k, int node, uint64_t lookups)
{
	const struct kernel_request ask = {.opcode = FUSE_FORGET, .none = true, .file = KERNEL_NONE};
	struct kernel_node *n = &k->nodes[node];
	struct fuse_forget_in in;

	if (node == 0 || n->nodeid == 0 || n->opens != 0)
		return;
	in.nlookup = lookups < n->lookups ? lookups : n->lookups;
	n->lookups -= in.nlookup;
	if (kernel_send(k, ask, n->nodeid, 0, (struct kernel_body){.p = {&in}, .len = {sizeof in}}) != NULL &&
	    n->lookups == 0)
		*n = (struct kernel_node){0};
}

void kernel_release(struct kernel *k, int file)
{
	struct kernel_file *f = &k->files[file];
	const struct kernel_request ask = {.opcode = f->dir ? FUSE_RELEASEDIR : FUSE_RELEASE,
					   .file = KERNEL_NONE};
	const struct fuse_release_in in = {.fh = f->fh, .flags = f->flags};

	if (!f->used || kernel_waiting(k, file) != 0)
		return;
	if (kernel_send(k, ask, f->nodeid, 0, (struct kernel_body){.p = {&in}, .len = {sizeof in}}) == NULL)
		return;
	count_open(k, f->nodeid, -1);
	f->used = false;
}

/* --- a life ---------------------------------------------------------------------------------------- */

struct kernel *kernel_start(uint32_t init_flags, uint32_t max_readahead)
{
	static const struct fuse_custom_io io = {.writev = take_reply, .read = no_request};
	char *argv[] = {(char[]){"shardfs"}, (char[]){"-oallow_other"}, (char[]){"/store"}, (char[]){"/mnt"}};
	const struct fuse_init_in init = {.major = FUSE_KERNEL_VERSION,
					  .minor = FUSE_KERNEL_MINOR_VERSION,
					  .max_readahead = max_readahead,
					  .flags = init_flags & ~(uint32_t)FUSE_INIT_EXT};
	struct kernel *k = calloc(1, sizeof *k);
	char why[1024];

	must(k != NULL && the_kernel == NULL);
	the_kernel = k;
	must(fs_command_parse(4, argv, &k->command, why) && fs_command_complete(&k->command));
	pthread_mutex_init(&k->mu, NULL);
	pthread_cond_init(&k->answered, NULL);
	k->nodes[0] = (struct kernel_node){.nodeid = FUSE_ROOT_ID, .lookups = 1, .mode = S_IFDIR};
	k->count = 1; /* unique 0 is that of notices */
	k->requests[0].none = true;
	k->fs = fs_mount_detached(&k->command, kv_store_mem_new(), why);
	must(k->fs != NULL);
	must(fuse_session_custom_io(k->fs->session, &io, open("/dev/null", O_RDWR | O_CLOEXEC)) == 0);
	kernel_send(k, (struct kernel_request){.opcode = FUSE_INIT, .file = KERNEL_NONE}, 0, 0,
		    (struct kernel_body){.p = {&init}, .len = {sizeof init}});
	must(k->pending == 0 && k->requests[1].error == 0);
	return k;
}

void kernel_quiesce(struct kernel *k)
{
	size_t count = k->count;

	for (size_t i = 1; i < count; i++)
		kernel_interrupt(k, i, false);
	pthread_mutex_lock(&k->mu);
	while (k->pending != 0)
		pthread_cond_wait(&k->answered, &k->mu);
	pthread_mutex_unlock(&k->mu);
}

void kernel_let_go(struct kernel *k)
{
	kernel_quiesce(k);
	for (int i = 0; i < KERNEL_FILES; i++)
		kernel_release(k, i);
	for (int i = 1; i < KERNEL_NODES; i++)
		kernel_forget(k, i, UINT64_MAX);
	must(k->fs->open_count == 0);
	must(fs_nodes_count(&k->fs->nodes).entries == 0);
	must(fs_parked_count(&k->fs->waits, FS_PARKED_READ) == 0);
	must(fs_parked_count(&k->fs->waits, FS_PARKED_CTL) == 0);
}

/* An INTERRUPT that came late stays with libfuse until another request comes; at its end it would be leaked.
 */
static void flush_interrupts(struct kernel *k)
{
	const struct kernel_request ask = {.opcode = FUSE_STATFS, .file = KERNEL_NONE};
	size_t answered = 0, before;

	do {
		before = answered;
		answered = 0;
		kernel_send(k, ask, FUSE_ROOT_ID, 0, (struct kernel_body){0});
		for (size_t i = 0; i < k->count; i++)
			answered += k->requests[i].opcode == FUSE_INTERRUPT && k->requests[i].answered;
	} while (answered != before);
}

void kernel_stop(struct kernel *k)
{
	flush_interrupts(k);
	pthread_mutex_lock(&k->mu);
	k->stopping = true;
	pthread_mutex_unlock(&k->mu);
	fs_unmount_detached(k->fs);
	must(k->pending == 0);
	fs_command_fini(&k->command);
	the_kernel = NULL;
	pthread_cond_destroy(&k->answered);
	pthread_mutex_destroy(&k->mu);
	free(k);
}
