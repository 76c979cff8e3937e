/*
 * consensus_fault.c - a consensus that fails as its plan says, over any other.
 *
 * How it works: each method asks the plan, then either answers at once, or
 * calls the inner consensus and spoils the answer.
 *
 * Invariants:
 * 1. A call that is reported as not done has not reached the inner consensus.
 * 2. A spoiled answer leaves no outputs behind.
 */
#include "kv/consensus_impl.h"
#include "kv/fault.h"

#include <stdlib.h>

struct faulty {
	struct kv_consensus base;
	struct kv_consensus *inner;
	struct kv_faults *plan; /* borrowed */
};

static struct faulty *of(struct kv_consensus *c)
{
	return (struct faulty *)c;
}

/* The answer to a change that does not reach the inner consensus, KV_OK if it must. */
static enum kv_rc refuse_change(enum kv_fault kind, struct kv_err *err)
{
	switch (kind) {
	case KV_FAULT_BEFORE:
		return kv_fail(err, KV_UNREACHABLE, "fault: consensus did not answer");
	case KV_FAULT_NOSPACE:
		return kv_fail(err, KV_NOSPACE, "fault: consensus is full");
	case KV_FAULT_LOST_UNKNOWN:
	case KV_FAULT_TORN:
		return kv_fail(err, KV_UNKNOWN, "fault: the request to consensus was lost");
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
		return kv_fail(err, KV_UNREACHABLE, "fault: consensus did not answer");
	case KV_FAULT_NONE:
	case KV_FAULT_SLOW:
	case KV_FAULT_TORN:
		break;
	}
	return KV_OK;
}

/* What the caller hears of a change that was done (or refused) with rc. */
static enum kv_rc reply(enum kv_fault kind, enum kv_rc rc, struct kv_err *err)
{
	if (kind == KV_FAULT_DONE_UNKNOWN)
		return kv_fail(err, KV_UNKNOWN, "fault: the reply of consensus was lost");
	return rc;
}

static void flip(struct kv_version *v)
{
	if (v->len)
		v->data[v->len / 2] ^= 0x40;
}

static enum kv_rc faulty_head(struct kv_consensus *c, const char *key, struct kv_version *out,
			      struct kv_err *err)
{
	struct faulty *f = of(c);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_read(kind, err);

	if (rc == KV_OK)
		rc = kv_consensus_head(f->inner, key, out, err);
	if (kind == KV_FAULT_TORN)
		flip(out);
	return rc;
}

static enum kv_rc faulty_compare_and_set(struct kv_consensus *c, const char *key, uint64_t expected,
					 uint64_t seqno, const void *data, size_t len, enum kv_sync sync,
					 struct kv_err *err)
{
	struct faulty *f = of(c);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_change(kind, err);

	if (rc != KV_OK)
		return rc;
	rc = kv_consensus_compare_and_set(f->inner, key, expected, seqno, data, len, sync, err);
	return reply(kind, rc, err);
}

static enum kv_rc faulty_scan(struct kv_consensus *c, const char *key, uint64_t from, size_t limit,
			      struct kv_versions *out, struct kv_err *err)
{
	struct faulty *f = of(c);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_read(kind, err);

	if (rc == KV_OK)
		rc = kv_consensus_scan(f->inner, key, from, limit, out, err);
	if (kind == KV_FAULT_TORN && out->count)
		flip(&out->v[out->count / 2]);
	return rc;
}

static enum kv_rc faulty_truncate(struct kv_consensus *c, const char *key, uint64_t seqno, uint64_t *removed,
				  struct kv_err *err)
{
	struct faulty *f = of(c);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_change(kind, err);

	if (rc != KV_OK)
		return rc;
	rc = reply(kind, kv_consensus_truncate(f->inner, key, seqno, removed, err), err);
	if (rc != KV_OK)
		*removed = 0;
	return rc;
}

static enum kv_rc faulty_remove(struct kv_consensus *c, const char *key, uint64_t expected,
				struct kv_err *err)
{
	struct faulty *f = of(c);
	enum kv_fault kind = kv_faults_strike(f->plan);
	enum kv_rc rc = refuse_change(kind, err);

	if (rc != KV_OK)
		return rc;
	return reply(kind, kv_consensus_remove(f->inner, key, expected, err), err);
}

static enum kv_rc faulty_list_keys(struct kv_consensus *c, const char *after, size_t limit,
				   struct kv_keys *out, struct kv_err *err)
{
	struct faulty *f = of(c);
	enum kv_rc rc = refuse_read(kv_faults_strike(f->plan), err);

	if (rc == KV_OK)
		rc = kv_consensus_list_keys(f->inner, after, limit, out, err);
	return rc;
}

static void faulty_close(struct kv_consensus *c)
{
	struct faulty *f = of(c);

	kv_consensus_close(f->inner);
	free(f);
}

static const struct kv_consensus_ops faulty_ops = {
	.name = "fault",
	.head = faulty_head,
	.compare_and_set = faulty_compare_and_set,
	.scan = faulty_scan,
	.truncate = faulty_truncate,
	.remove = faulty_remove,
	.list_keys = faulty_list_keys,
	.close = faulty_close,
};

struct kv_consensus *kv_consensus_fault_new(struct kv_consensus *inner, struct kv_faults *f)
{
	struct faulty *c = inner ? malloc(sizeof(*c)) : NULL;

	if (!c) {
		kv_consensus_close(inner);
		return NULL;
	}
	*c = (struct faulty){.base.ops = &faulty_ops, .inner = inner, .plan = f};
	return &c->base;
}
