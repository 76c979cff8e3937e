/*
 * blob_fault.c - a blob store that fails as its plan says, over any other.
 *
 * How it works, and invariants: as consensus_fault.c.
 */
#include "kv/blob_impl.h"
#include "kv/fault.h"

#include <stdlib.h>

struct faulty {
	struct kv_blobs base;
	struct kv_blobs *inner;
	struct kv_faults *plan; /* borrowed */
};

static struct faulty *of(struct kv_blobs *b)
{
	return (struct faulty *)b;
}

/* The answer to a change that does not reach the inner store, KV_OK if it must. */
static enum kv_rc refuse_change(enum kv_fault kind, struct kv_err *err)
{
	switch (kind) {
	case KV_FAULT_BEFORE:
		return kv_fail(err, KV_UNREACHABLE, "fault: the blob store did not answer");
	case KV_FAULT_NOSPACE:
		return kv_fail(err, KV_NOSPACE, "fault: the blob store is full");
	case KV_FAULT_LOST_UNKNOWN:
	case KV_FAULT_TORN:
		return kv_fail(err, KV_UNKNOWN, "fault: the request to the blob store was lost");
	case KV_FAULT_NONE:
	case KV_FAULT_DONE_UNKNOWN:
	case KV_FAULT_SLOW:
		break;
	}
	return KV_OK;
}

/* As refuse_change for reads: all a read can say is that there is no answer. */
static enum kv_rc refuse_read(enum kv_fault kind, struct kv_err *err)
{
	switch (kind) {
	case KV_FAULT_BEFORE:
	case KV_FAULT_NOSPACE:
	case KV_FAULT_DONE_UNKNOWN:
	case KV_FAULT_LOST_UNKNOWN:
		return kv_fail(err, KV_UNREACHABLE, "fault: the blob store did not answer");
	case KV_FAULT_NONE:
	case KV_FAULT_SLOW:
	case KV_FAULT_TORN:
		break;
	}
	return KV_OK;
}

static enum kv_rc reply(enum kv_fault kind, enum kv_rc rc, struct kv_err *err)
{
	if (kind == KV_FAULT_DONE_UNKNOWN)
		return kv_fail(err, KV_UNKNOWN, "fault: the reply of the blob store was lost");
	return rc;
}

static enum kv_rc faulty_get(struct kv_blobs *b, const char *key, uint64_t offset, void *buf, size_t len,
			     size_t *got, struct kv_err *err)
{
	struct faulty *f = of(b);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_read(kind, err);

	if (rc == KV_OK)
		rc = kv_blob_get(f->inner, key, offset, buf, len, got, err);
	if (kind == KV_FAULT_TORN && *got)
		((uint8_t *)buf)[*got / 2] ^= 0x40;
	return rc;
}

static enum kv_rc faulty_set(struct kv_blobs *b, const char *key, const void *data, size_t len,
			     struct kv_err *err)
{
	struct faulty *f = of(b);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_change(kind, err);

	if (rc != KV_OK)
		return rc;
	return reply(kind, kv_blob_set(f->inner, key, data, len, err), err);
}

static enum kv_rc faulty_delete(struct kv_blobs *b, const char *key, bool *existed, uint64_t *size,
				struct kv_err *err)
{
	struct faulty *f = of(b);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_change(kind, err);

	if (rc != KV_OK)
		return rc;
	rc = reply(kind, kv_blob_delete(f->inner, key, existed, size, err), err);
	if (rc != KV_OK) {
		*existed = false;
		*size = 0;
	}
	return rc;
}

static enum kv_rc faulty_list(struct kv_blobs *b, const char *prefix, const char *after, size_t limit,
			      struct kv_blob_list *out, struct kv_err *err)
{
	struct faulty *f = of(b);
	enum kv_rc rc = refuse_read(kv_faults_strike(f->plan), err);

	if (rc == KV_OK)
		rc = kv_blob_list(f->inner, prefix, after, limit, out, err);
	return rc;
}

static void faulty_close(struct kv_blobs *b)
{
	struct faulty *f = of(b);

	kv_blobs_close(f->inner);
	free(f);
}

static const struct kv_blob_ops faulty_ops = {
	.name = "fault",
	.get = faulty_get,
	.set = faulty_set,
	.delete = faulty_delete,
	.list = faulty_list,
	.close = faulty_close,
};

struct kv_blobs *kv_blob_fault_new(struct kv_blobs *inner, struct kv_faults *f)
{
	struct faulty *b = inner ? malloc(sizeof(*b)) : NULL;

	if (!b) {
		kv_blobs_close(inner);
		return NULL;
	}
	*b = (struct faulty){.base.ops = &faulty_ops, .inner = inner, .plan = f};
	return &b->base;
}
