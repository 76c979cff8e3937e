/*
 * kernel_reply.c - what is demanded of a reply: see kernel.h.
 *
 *  1. There is one for each request, no more, and none for FORGET.
 *  2. It has the length that the kernel takes for this opcode; an error has no body. Errors are those that
 * the kernel takes.
 *  3. Reads are not longer than asked, writes took no more than they were given.
 *  4. Names in listings are names; attributes are possible ones; nodeids and handles are there.
 *  5. As the interface promises: ESTALE never from an operation by path, EAGAIN only where O_NONBLOCK asked
 * for it and never from a write, EINTR only after an INTERRUPT, ESHUTDOWN only when the mount stops, ENOSYS
 * only for what is not there at all. The store is sound and does not fail: no EUCLEAN, ENOSPC, ETIMEDOUT, no
 * EIO but for one thing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/kernel.h"

static bool is_handled(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_GETATTR:
	case FUSE_SETATTR:
	case FUSE_READLINK:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_OPEN:
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_STATFS:
	case FUSE_RELEASE:
	case FUSE_FSYNC:
	case FUSE_FLUSH:
	case FUSE_OPENDIR:
	case FUSE_READDIR:
	case FUSE_RELEASEDIR:
	case FUSE_FSYNCDIR:
	case FUSE_CREATE:
	case FUSE_POLL:
	case FUSE_INIT:
		return true;
	default:
		return false;
	}
}

static bool is_due(const struct kernel *k, const struct kernel_request *r, int error)
{
	switch (error) {
	case EIO: /* a staged batch was committed or removed, and ESTALE may not be said */
		return r->opcode == FUSE_SETATTR || r->opcode == FUSE_OPEN || r->opcode == FUSE_CREATE ||
		       r->opcode == FUSE_READ || r->opcode == FUSE_FSYNC;
	case EUCLEAN:
	case ENOSPC:
	case ETIMEDOUT:
	case ENOMEM:
		return false;
	case ESTALE:
		return r->opcode == FUSE_WRITE;
	case EINTR:
		return (r->opcode == FUSE_READ || r->opcode == FUSE_WRITE) && r->interrupted;
	case ESHUTDOWN:
		return k->stopping;
	case ENOSYS:
		return !is_handled(r->opcode);
	case EAGAIN: /* libfuse says it of an INTERRUPT whose request it does not know (yet) */
		return r->opcode == FUSE_INTERRUPT || (r->opcode == FUSE_READ && r->nonblock);
	default:
		return error > 0 && error < 512 && r->opcode != FUSE_INTERRUPT && r->opcode != FUSE_RELEASE &&
		       r->opcode != FUSE_RELEASEDIR && r->opcode != FUSE_FLUSH;
	}
}

static void judge_error(const struct kernel *k, const struct kernel_request *r, int error)
{
	bool due = is_due(k, r, error);

	if (!due)
		fprintf(stderr, "opcode %u was answered with %s\n", r->opcode, strerror(error));
	must(due);
}

static void judge_attr(const struct fuse_attr *attr)
{
	must(S_ISREG(attr->mode) || S_ISDIR(attr->mode) || S_ISLNK(attr->mode));
	must(attr->size <= INT64_MAX && attr->ino != 0);
}

static void judge_entry(const uint8_t *body)
{
	struct fuse_entry_out e;

	memcpy(&e, body, sizeof e);
	must(e.nodeid != 0 && e.nodeid != FUSE_ROOT_ID);
	judge_attr(&e.attr);
}

/* As parse_dirfile() of the kernel does. */
static void judge_listing(struct kernel *k, const uint8_t *body, size_t len)
{
	while (len >= FUSE_NAME_OFFSET) {
		struct fuse_dirent d;
		size_t size;

		memcpy(&d, body, FUSE_NAME_OFFSET);
		size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d.namelen);
		must(d.namelen != 0 && d.namelen <= KERNEL_NAME_MAX && size <= len);
		must(memchr(body + FUSE_NAME_OFFSET, '/', d.namelen) == NULL);
		must(memchr(body + FUSE_NAME_OFFSET, '\0', d.namelen) == NULL);
		must(d.off != 0 && d.off <= INT64_MAX && d.ino != 0);
		memcpy(k->listed, body + FUSE_NAME_OFFSET, d.namelen);
		k->listed[d.namelen] = '\0';
		body += size;
		len -= size;
	}
	must(len == 0);
}

static size_t fixed_len(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
		return sizeof(struct fuse_entry_out);
	case FUSE_CREATE:
		return sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out);
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		return sizeof(struct fuse_attr_out);
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		return sizeof(struct fuse_open_out);
	case FUSE_WRITE:
		return sizeof(struct fuse_write_out);
	case FUSE_STATFS:
		return sizeof(struct fuse_statfs_out);
	case FUSE_POLL:
		return sizeof(struct fuse_poll_out);
	case FUSE_INIT:
		return sizeof(struct fuse_init_out);
	default:
		return 0;
	}
}

static void judge_body(struct kernel *k, const struct kernel_request *r, const uint8_t *body, size_t len)
{
	struct fuse_attr_out attr;
	struct fuse_write_out written;

	if (r->opcode == FUSE_READ || r->opcode == FUSE_READDIR) {
		must(len <= r->asked);
		if (r->opcode == FUSE_READDIR)
			judge_listing(k, body, len);
		return;
	}
	if (r->opcode == FUSE_READLINK) {
		must(len > 0 && len < 4096);
		return;
	}
	must(len == fixed_len(r->opcode));
	if (len >= sizeof(struct fuse_entry_out) && r->opcode != FUSE_STATFS)
		judge_entry(body);
	if (r->opcode == FUSE_GETATTR || r->opcode == FUSE_SETATTR) {
		memcpy(&attr, body, sizeof attr);
		judge_attr(&attr.attr);
	}
	if (r->opcode == FUSE_WRITE) {
		memcpy(&written, body, sizeof written);
		must(written.size <= r->asked && (written.size != 0 || r->asked == 0));
	}
}

void kernel_judge(struct kernel *k, const struct fuse_out_header *out, const uint8_t *body, size_t len)
{
	struct kernel_request *r;

	must(out->len == sizeof *out + len);
	if (out->unique == 0) { /* a notice */
		must(out->error == FUSE_NOTIFY_POLL && len == sizeof(struct fuse_notify_poll_wakeup_out));
		return;
	}
	must(out->unique % 2 == 0 && out->unique / 2 < k->count);
	r = &k->requests[out->unique / 2];
	must(!r->answered && !r->none);
	must(out->error <= 0);
	if (out->error != 0) {
		must(len == 0);
		judge_error(k, r, -out->error);
	} else {
		must(r->opcode != FUSE_INTERRUPT);
		judge_body(k, r, body, len);
	}
	r->answered = true;
	r->error = out->error;
	r->body_len = len;
	memcpy(r->body, body, len < sizeof r->body ? len : sizeof r->body);
}
