/* shardctl_files.c - files that may be compressed by zstd; see shardctl.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "tools/shardctl.h"

enum { PIECE = 128 << 10, MAGIC_LEN = 4, LEVEL = 3 };

/* --- out ------------------------------------------------------------------------------------------- */

struct ctl_out {
	int fd;
	uint64_t bytes;
	ZSTD_CCtx *zstd; /* NULL: not compressed */
	char piece[PIECE];
};

struct ctl_out *ctl_out_new(int fd, bool compress)
{
	struct ctl_out *o = calloc(1, sizeof *o);

	if (o == NULL)
		return NULL;
	o->fd = fd;
	o->zstd = compress ? ZSTD_createCCtx() : NULL;
	if (compress && o->zstd == NULL) {
		free(o);
		return NULL;
	}
	if (compress) {
		ZSTD_CCtx_setParameter(o->zstd, ZSTD_c_compressionLevel, LEVEL);
		ZSTD_CCtx_setParameter(o->zstd, ZSTD_c_checksumFlag, 1);
	}
	return o;
}

static enum kv_rc write_all(struct ctl_out *o, const char *data, size_t len, struct kv_err *err)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(o->fd, data + done, len - done);

		if (n < 0 && errno != EINTR)
			return kv_fail_errno(err, errno, KV_IO, "the export cannot be written");
		done += n > 0 ? (size_t)n : 0;
	}
	o->bytes += len;
	return KV_OK;
}

static enum kv_rc squeeze(struct ctl_out *o, ZSTD_inBuffer *in, ZSTD_EndDirective how, size_t *left,
			  struct kv_err *err)
{
	ZSTD_outBuffer out = {.dst = o->piece, .size = PIECE};

	*left = ZSTD_compressStream2(o->zstd, &out, in, how);
	if (ZSTD_isError(*left))
		return kv_fail(err, KV_NOMEM, "zstd: %s", ZSTD_getErrorName(*left));
	return write_all(o, o->piece, out.pos, err);
}

enum kv_rc ctl_out_write(void *out, const void *data, size_t len, struct kv_err *err)
{
	struct ctl_out *o = out;
	ZSTD_inBuffer in = {.src = data, .size = len};
	size_t left;
	enum kv_rc rc = KV_OK;

	if (o->zstd == NULL)
		return write_all(o, data, len, err);
	while (rc == KV_OK && in.pos < in.size)
		rc = squeeze(o, &in, ZSTD_e_continue, &left, err);
	return rc;
}

enum kv_rc ctl_out_end(struct ctl_out *o, struct kv_err *err)
{
	ZSTD_inBuffer none = {0};
	size_t left = o->zstd != NULL;
	struct stat st;
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && left != 0)
		rc = squeeze(o, &none, ZSTD_e_end, &left, err);
	if (rc == KV_OK && fstat(o->fd, &st) == 0 && S_ISREG(st.st_mode) && fsync(o->fd) != 0)
		rc = kv_fail_errno(err, errno, KV_IO, "the export cannot be synced");
	return rc;
}

uint64_t ctl_out_bytes(const struct ctl_out *o)
{
	return o->bytes;
}

void ctl_out_free(struct ctl_out *o)
{
	if (o != NULL)
		ZSTD_freeCCtx(o->zstd);
	free(o);
}

/* --- in -------------------------------------------------------------------------------------------- */

struct ctl_in {
	int fd;
	uint64_t offset;
	bool looked; /* whether it is compressed */
	bool in_frame;
	ZSTD_DCtx *zstd; /* NULL: it is not */
	size_t at;
	size_t len;
	char piece[PIECE];
};

struct ctl_in *ctl_in_new(int fd)
{
	struct ctl_in *in = calloc(1, sizeof *in);

	if (in != NULL)
		in->fd = fd;
	return in;
}

/* Fill the piece as far as the file goes; len 0: its end. */
static enum kv_rc fill(struct ctl_in *in, struct kv_err *err)
{
	in->at = in->len = 0;
	while (in->len < PIECE) {
		ssize_t n = pread(in->fd, in->piece + in->len, PIECE - in->len, (off_t)in->offset);

		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			return kv_fail_errno(err, errno, KV_IO, "what is to be imported cannot be read");
		in->len += n > 0 ? (size_t)n : 0;
		in->offset += n > 0 ? (uint64_t)n : 0;
	}
	return KV_OK;
}

static enum kv_rc look(struct ctl_in *in, struct kv_err *err)
{
	static const unsigned char magic[MAGIC_LEN] = {0x28, 0xb5, 0x2f, 0xfd};
	enum kv_rc rc = fill(in, err);

	in->looked = true;
	if (rc != KV_OK || in->len < MAGIC_LEN || memcmp(in->piece, magic, MAGIC_LEN) != 0)
		return rc;
	in->zstd = ZSTD_createDCtx();
	return in->zstd != NULL ? KV_OK : kv_fail_rc(err, KV_NOMEM);
}

static enum kv_rc unsqueeze(struct ctl_in *in, ZSTD_outBuffer *out, struct kv_err *err)
{
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK && out->pos == 0) {
		ZSTD_inBuffer from = {.src = in->piece, .size = in->len, .pos = in->at};
		size_t left;

		if (in->at == in->len)
			rc = fill(in, err);
		from.size = in->len;
		from.pos = in->at;
		if (rc != KV_OK || (in->len == 0 && !in->in_frame))
			return rc;
		left = ZSTD_decompressStream(in->zstd, out, &from);
		if (ZSTD_isError(left))
			return kv_fail(err, KV_BAD_SYNTAX, "not a whole export: zstd: %s",
				       ZSTD_getErrorName(left));
		if (in->len == 0 && out->pos == 0 && left != 0)
			return kv_fail(err, KV_BAD_SYNTAX,
				       "not a whole export: the compressed file is cut off");
		in->at = from.pos;
		in->in_frame = left != 0;
	}
	return rc;
}

enum kv_rc ctl_in_read(void *arg, void *buf, size_t len, size_t *got, struct kv_err *err)
{
	struct ctl_in *in = arg;
	ZSTD_outBuffer out = {.dst = buf, .size = len};
	enum kv_rc rc = in->looked ? KV_OK : look(in, err);

	*got = 0;
	if (rc == KV_OK && in->zstd != NULL) {
		rc = unsqueeze(in, &out, err);
		*got = out.pos;
		return rc;
	}
	if (rc == KV_OK && in->at == in->len)
		rc = fill(in, err);
	if (rc != KV_OK)
		return rc;
	*got = in->len - in->at < len ? in->len - in->at : len;
	memcpy(buf, in->piece + in->at, *got);
	in->at += *got;
	return KV_OK;
}

uint64_t ctl_in_bytes(const struct ctl_in *in)
{
	return in->offset;
}

void ctl_in_free(struct ctl_in *in)
{
	if (in != NULL)
		ZSTD_freeDCtx(in->zstd);
	free(in);
}
