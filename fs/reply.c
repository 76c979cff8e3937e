/*
 * reply.c - see reply.h.
 */
#include "fs/reply.h"

#include "fs/fs.h"

/* Before the answer: with it the request may be gone, and another one stand at its place. */
static void answered(fuse_req_t req)
{
	fs_count_answered(&fs_of(req)->counts, req);
}

static void reply(fuse_req_t req, enum kv_rc rc, int errnum)
{
	if (errnum != 0)
		fs_count(&fs_of(req)->counts.errors[rc], 1);
	answered(req);
	fuse_reply_err(req, errnum);
}

void fs_reply_write_rc(fuse_req_t req, enum kv_rc rc)
{
	reply(req, rc, kv_rc_errno(rc));
}

void fs_reply_read_rc(fuse_req_t req, enum kv_rc rc, const struct kv_err *err)
{
	if (rc == KV_CORRUPT)
		fs_notice(err->msg);
	if (rc == KV_GONE)
		reply(req, rc, kv_rc_errno(rc));
	else
		fs_reply_rc(req, rc);
}

void fs_reply_rc(fuse_req_t req, enum kv_rc rc)
{
	int errnum = kv_rc_errno(rc);

	reply(req, rc, errnum == ESTALE ? ENOENT : errnum);
}

void fs_reply_errno(fuse_req_t req, int errnum)
{
	size_t rc = KV_RC_COUNT - 1;

	/* Those of the mount stand last. */
	while (rc != KV_OK && kv_rc_errno((enum kv_rc)rc) != errnum)
		rc--;
	reply(req, (enum kv_rc)rc, errnum);
}

void fs_reply_read(fuse_req_t req, const void *data, size_t len)
{
	fs_count(&fs_of(req)->counts.read_bytes, len);
	answered(req);
	fuse_reply_buf(req, data, len);
}

void fs_reply_written(fuse_req_t req, size_t len)
{
	fs_count(&fs_of(req)->counts.written_bytes, len);
	answered(req);
	fuse_reply_write(req, len);
}

void fs_reply_listing(fuse_req_t req, const void *data, size_t len)
{
	answered(req);
	fuse_reply_buf(req, data, len);
}

void fs_reply_done(fuse_req_t req)
{
	answered(req);
	fuse_reply_err(req, 0);
}

void fs_reply_forgot(fuse_req_t req)
{
	answered(req);
	fuse_reply_none(req);
}

void fs_reply_attr(fuse_req_t req, const struct stat *st, double timeout)
{
	answered(req);
	fuse_reply_attr(req, st, timeout);
}

void fs_reply_link(fuse_req_t req, const char *target)
{
	answered(req);
	fuse_reply_readlink(req, target);
}

void fs_reply_statfs(fuse_req_t req, const struct statvfs *st)
{
	answered(req);
	fuse_reply_statfs(req, st);
}

void fs_reply_poll(fuse_req_t req, unsigned events)
{
	answered(req);
	fuse_reply_poll(req, events);
}

bool fs_reply_opened(fuse_req_t req, const struct fuse_file_info *fi)
{
	answered(req);
	return fuse_reply_open(req, fi) == 0;
}

bool fs_reply_found(fuse_req_t req, const struct fuse_entry_param *e)
{
	answered(req);
	return fuse_reply_entry(req, e) == 0;
}

bool fs_reply_created(fuse_req_t req, const struct fuse_entry_param *e, const struct fuse_file_info *fi)
{
	answered(req);
	return fuse_reply_create(req, e, fi) == 0;
}
