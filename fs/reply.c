/*
 * reply.c - see reply.h.
 */
#include "fs/reply.h"

#include "fs/fs.h"

static void reply(fuse_req_t req, enum kv_rc rc, int errnum)
{
	if (errnum != 0)
		fs_count(&fs_of(req)->counts.errors[rc], 1);
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
	fuse_reply_buf(req, data, len);
}

void fs_reply_written(fuse_req_t req, size_t len)
{
	fs_count(&fs_of(req)->counts.written_bytes, len);
	fuse_reply_write(req, len);
}
