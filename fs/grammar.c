/*
 * grammar.c - see grammar.h.
 */
#include "fs/grammar.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/staged.h"

/* A piece of a line. */
struct word {
	const char *p;
	size_t len;
};

static bool is(struct word w, const char *text)
{
	return w.len == strlen(text) && memcmp(w.p, text, w.len) == 0;
}

static bool starts(const char *line, size_t len, const char *text)
{
	return len >= strlen(text) && memcmp(line, text, strlen(text)) == 0;
}

enum fs_line fs_line_kind(const char *line, size_t len)
{
	if (len != 0 && ((line[0] >= '0' && line[0] <= '9') || line[0] == '*'))
		return FS_LINE_ROW;
	if (len == 6 && starts(line, len, "commit"))
		return FS_LINE_COMMIT;
	if (starts(line, len, "begin ") || (len == 5 && starts(line, len, "begin")))
		return FS_LINE_BEGIN;
	if (starts(line, len, "batch "))
		return FS_LINE_BATCH;
	return FS_LINE_BAD;
}

/* Text of a word for a sentence: cut short, printable. */
static const char *show(struct word w, char buf[64])
{
	size_t n = w.len < 40 ? w.len : 40;

	for (size_t i = 0; i < n; i++)
		buf[i] = w.p[i] >= ' ' && w.p[i] < 127 && w.p[i] != '"' ? w.p[i] : '?';
	buf[n] = '\0';
	if (w.len > n)
		strcpy(buf + n, "..."); /* fits: 64 > 40 + 4 */
	return buf;
}

static enum kv_rc bad(struct kv_err *err, const char *what, struct word w)
{
	char buf[64];

	return kv_fail(err, KV_BAD_SYNTAX, "%s: \"%s\"", what, show(w, buf));
}

/* --- begin ----------------------------------------------------------------------------------------- */

enum option { O_EXPECTED, O_NEW_UPPER, O_LOWER, O_UPPER, O_TOKEN, O_REWRITE, O_SINCE, O_COUNT };

static const char *const option_names[O_COUNT] = {"expected_upper", "new_upper",  "lower", "upper",
						  "token",          "rewrite_ts", "since"};

/* The words of a begin line by option; a word that is not there has p == NULL. */
static enum kv_rc split_options(const char *line, size_t len, struct word values[O_COUNT], struct kv_err *err)
{
	const char *p = line + 6, *end = line + len; /* behind "begin " */

	while (p <= end) {
		const char *space = memchr(p, ' ', (size_t)(end - p));
		const char *stop = space != NULL ? space : end;
		const char *eq = memchr(p, '=', (size_t)(stop - p));
		struct word whole = {.p = p, .len = (size_t)(stop - p)};
		struct word name = {.p = p, .len = eq != NULL ? (size_t)(eq - p) : 0};
		size_t i = 0;

		while (i < O_COUNT && !is(name, option_names[i]))
			i++;
		if (i == O_COUNT)
			return bad(err, "no option of begin", whole);
		if (values[i].p != NULL)
			return bad(err, "an option that stands twice", whole);
		values[i] = (struct word){.p = eq + 1, .len = (size_t)(stop - eq - 1)};
		p = stop + 1;
	}
	return KV_OK;
}

static enum kv_rc parse_cas_bounds(struct word expected, struct word new_upper, struct core_append *a,
				   struct kv_err *err)
{
	a->lower_star = is(expected, "*");
	if (!a->lower_star && !core_frontier_parse(expected.p, expected.len, &a->lower))
		return bad(err, "expected_upper is no frontier, nor *", expected);
	if (new_upper.len != 0 && new_upper.p[0] == '+') {
		a->upper_plus = true;
		if (!a->lower_star)
			return bad(err, "new_upper=+<n> needs expected_upper=*", new_upper);
		if (!core_u64_parse(new_upper.p + 1, new_upper.len - 1, &a->plus) || a->plus == 0)
			return bad(err, "new_upper=+<n> needs a number from 1", new_upper);
		return KV_OK;
	}
	if (!core_frontier_parse(new_upper.p, new_upper.len, &a->upper))
		return bad(err, "new_upper is no frontier", new_upper);
	return KV_OK;
}

static enum kv_rc parse_bounds(const struct word v[O_COUNT], struct core_append *a, struct kv_err *err)
{
	bool cas = v[O_EXPECTED].p != NULL && v[O_NEW_UPPER].p != NULL;
	bool app = v[O_LOWER].p != NULL && v[O_UPPER].p != NULL;
	bool mixed = (v[O_EXPECTED].p != NULL || v[O_NEW_UPPER].p != NULL) &&
		     (v[O_LOWER].p != NULL || v[O_UPPER].p != NULL);

	if (mixed || cas == app)
		return kv_fail(err, KV_BAD_SYNTAX,
			       "begin needs expected_upper= and new_upper=, or lower= and upper=");
	if (cas)
		return parse_cas_bounds(v[O_EXPECTED], v[O_NEW_UPPER], a, err);
	a->idempotent = true;
	if (!core_frontier_parse(v[O_LOWER].p, v[O_LOWER].len, &a->lower))
		return bad(err, "lower is no frontier", v[O_LOWER]);
	if (!core_frontier_parse(v[O_UPPER].p, v[O_UPPER].len, &a->upper))
		return bad(err, "upper is no frontier", v[O_UPPER]);
	return KV_OK;
}

enum kv_rc fs_parse_begin(const char *line, size_t len, struct core_append *out, struct kv_err *err)
{
	struct word v[O_COUNT] = {{0}};
	enum kv_rc rc;

	*out = (struct core_append){0};
	rc = split_options(line, len, v, err);
	if (rc == KV_OK)
		rc = parse_bounds(v, out, err);
	if (rc != KV_OK)
		return rc;
	if (v[O_TOKEN].p != NULL) {
		out->has_token = true;
		if (!core_uuid_parse('i', v[O_TOKEN].p, v[O_TOKEN].len, &out->token.u))
			return bad(err, "token is not i<uuid>", v[O_TOKEN]);
	}
	if (v[O_SINCE].p != NULL) {
		out->has_since = true;
		if (!core_frontier_parse(v[O_SINCE].p, v[O_SINCE].len, &out->since))
			return bad(err, "since is no frontier", v[O_SINCE]);
	}
	if (v[O_REWRITE].p == NULL)
		return KV_OK;
	if (is(v[O_REWRITE], "*")) {
		out->rewrite_star = true;
		return out->lower_star ? KV_OK
				       : bad(err, "rewrite_ts=* needs expected_upper=*", v[O_REWRITE]);
	}
	out->has_rewrite = true;
	if (!core_u64_parse(v[O_REWRITE].p, v[O_REWRITE].len, &out->rewrite_ts))
		return bad(err, "rewrite_ts is no time", v[O_REWRITE]);
	return KV_OK;
}

/* --- the other lines ------------------------------------------------------------------------------- */

enum kv_rc fs_parse_batch(const char *line, size_t len, char name[FS_BATCH_NAME_LEN], struct kv_err *err)
{
	struct word w = {.p = line + 6, .len = len - 6}; /* behind "batch " */

	if (w.len >= FS_BATCH_NAME_LEN || memchr(w.p, '\0', w.len) != NULL)
		return bad(err, "no name of a staged batch", w);
	memcpy(name, w.p, w.len);
	name[w.len] = '\0';
	return core_staged_name_ok(name) ? KV_OK : bad(err, "no name of a staged batch", w);
}

bool fs_is_bounds(const char *line, size_t len)
{
	return starts(line, len, "bounds ") || (len == 6 && starts(line, len, "bounds"));
}

enum kv_rc fs_parse_bounds(const char *line, size_t len, struct core_frontier *lower,
			   struct core_frontier *upper, struct kv_err *err)
{
	struct word a = {.p = line + 7}, b; /* behind "bounds " */
	const char *space = len > 7 ? memchr(a.p, ' ', len - 7) : NULL;

	*lower = *upper = core_frontier_at(0);
	if (space == NULL)
		return bad(err, "not bounds <lower> <upper>", (struct word){.p = line, .len = len});
	a.len = (size_t)(space - a.p);
	b = (struct word){.p = space + 1, .len = (size_t)(line + len - space - 1)};
	if (!core_frontier_parse(a.p, a.len, lower))
		return bad(err, "lower is no frontier", a);
	if (!core_frontier_parse(b.p, b.len, upper))
		return bad(err, "upper is no frontier", b);
	return KV_OK;
}

enum kv_rc fs_parse_since(const char *text, size_t len, struct core_frontier *since, uint64_t *follow,
			  struct kv_err *err)
{
	struct word w = {.p = text, .len = len};

	*follow = 0;
	*since = core_frontier_at(0);
	if (w.len != 0 && w.p[w.len - 1] == '\n')
		w.len--;
	if (starts(w.p, w.len, "upper-")) {
		if (core_u64_parse(w.p + 6, w.len - 6, follow) && *follow != 0)
			return KV_OK;
		return bad(err, "upper-<n> needs a number from 1", w);
	}
	if (core_frontier_parse(w.p, w.len, since))
		return KV_OK;
	return bad(err, "neither a frontier nor upper-<n>", w);
}

/* The value of `name=` at the start of a word; false: it is another word. */
static bool value_of(struct word w, const char *name, struct word *value)
{
	size_t len = strlen(name);

	if (!starts(w.p, w.len, name))
		return false;
	*value = (struct word){.p = w.p + len, .len = w.len - len};
	return true;
}

/* rest->p is NULL behind the last one; a blank at the end is followed by an empty one. */
static struct word next_word(struct word *rest)
{
	const char *blank = memchr(rest->p, ' ', rest->len);
	struct word w = {.p = rest->p, .len = blank != NULL ? (size_t)(blank - rest->p) : rest->len};

	rest->p = blank != NULL ? blank + 1 : NULL;
	rest->len -= w.len + (blank != NULL);
	return w;
}

/* expected=<token> token=<token> since=<f>, in any order, each once. */
static enum kv_rc parse_compare(struct word rest, struct core_hold_ask *out, struct kv_err *err)
{
	unsigned seen = 0, before;

	out->compare = true;
	do {
		struct word w = next_word(&rest), v;
		bool good = false;

		before = seen;
		if (value_of(w, "expected=", &v)) {
			good = core_u64_parse(v.p, v.len, &out->expected);
			seen |= 1;
		} else if (value_of(w, "token=", &v)) {
			good = core_u64_parse(v.p, v.len, &out->token);
			seen |= 2;
		} else if (value_of(w, "since=", &v)) {
			good = core_frontier_parse(v.p, v.len, &out->since);
			seen |= 4;
		}
		if (!good || seen == before)
			return bad(err, "not a new expected=<token>, token=<token> or since=<frontier>", w);
	} while (rest.p != NULL);
	return seen == 7 ? KV_OK
			 : kv_fail(err, KV_BAD_SYNTAX, "expected=, token= and since= belong together");
}

enum kv_rc fs_parse_hold(const char *text, size_t len, struct core_hold_ask *out, struct kv_err *err)
{
	struct word w = {.p = text, .len = len}, v;

	*out = (struct core_hold_ask){0};
	if (w.len != 0 && w.p[w.len - 1] == '\n')
		w.len--;
	if (value_of(w, "listen=", &v)) {
		if (!core_frontier_parse(v.p, v.len, &out->since))
			return bad(err, "listen= needs a frontier", w);
		if (!out->since.empty && out->since.t != 0)
			out->since.t--; /* what listen/<f> needs */
		return KV_OK;
	}
	if (core_frontier_parse(w.p, w.len, &out->since))
		return KV_OK;
	return memchr(w.p, '=', w.len) != NULL ? parse_compare(w, out, err)
					       : bad(err, "neither a frontier nor listen=<frontier>", w);
}

enum kv_rc fs_parse_ctl(const char *text, size_t len, struct fs_ctl_ask *out, struct kv_err *err)
{
	static const struct {
		const char *name;
		struct fs_ctl_ask ask;
	} verbs[] = {
		{"compact", {.verb = FS_VERB_COMPACT, .upkeep = CORE_COMPACT}},
		{"gc", {.verb = FS_VERB_GC, .upkeep = CORE_GC}},
		{"rollup", {.verb = FS_VERB_ROLLUP, .upkeep = CORE_ROLLUP}},
	};
	struct word w = {.p = text, .len = len}, id;

	*out = (struct fs_ctl_ask){0};
	if (w.len != 0 && w.p[w.len - 1] == '\n')
		w.len--;
	for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
		if (is(w, verbs[i].name)) {
			*out = verbs[i].ask;
			return KV_OK;
		}
	}
	if (!value_of(w, "expire ", &id))
		return bad(err, "none of compact, gc, rollup, expire <id>", w);
	out->verb = FS_VERB_EXPIRE;
	out->expired_kind = id.len != 0 && id.p[0] == 'r' ? 'r' : 'w';
	if (core_uuid_parse(out->expired_kind, id.p, id.len, &out->expired))
		return KV_OK;
	return bad(err, "neither w<uuid> nor r<uuid>", id);
}

/* --- verdicts -------------------------------------------------------------------------------------- */

char *fs_verdict_ok(const struct core_appended *r, char buf[FS_VERDICT_LEN])
{
	char lower[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];

	snprintf(buf, FS_VERDICT_LEN, "ok lower=%s new_upper=%s seqno=%" PRIu64 " updates=%" PRIu64,
		 core_frontier_format(r->lower, lower), core_frontier_format(r->upper, upper), r->seqno,
		 r->updates);
	return buf;
}

char *fs_verdict_done(const struct fs_ctl_ask *ask, const struct core_upkeep_result *r,
		      char buf[FS_VERDICT_LEN])
{
	char id[CORE_ID_LEN];

	switch (ask->verb) {
	case FS_VERB_COMPACT:
		snprintf(buf, FS_VERDICT_LEN,
			 "ok compact seqno=%" PRIu64 " merges=%" PRIu64 " in_updates=%" PRIu64
			 " in_bytes=%" PRIu64 " out_updates=%" PRIu64 " out_bytes=%" PRIu64,
			 r->seqno, r->merges, r->in_updates, r->in_bytes, r->out_updates, r->out_bytes);
		break;
	case FS_VERB_GC:
		snprintf(buf, FS_VERDICT_LEN,
			 "ok gc seqno=%" PRIu64 " blobs=%" PRIu64 " blob_bytes=%" PRIu64 " versions=%" PRIu64
			 " rollups=%" PRIu64 " kept_blobs=%" PRIu64,
			 r->seqno, r->blobs, r->blob_bytes, r->versions, r->rollups, r->kept_blobs);
		break;
	case FS_VERB_ROLLUP:
		snprintf(buf, FS_VERDICT_LEN, "ok rollup seqno=%" PRIu64, r->seqno);
		break;
	case FS_VERB_EXPIRE:
		snprintf(buf, FS_VERDICT_LEN, "ok expire id=%s",
			 core_uuid_format(ask->expired_kind, ask->expired, id));
		break;
	}
	return buf;
}

char *fs_verdict_error(const struct kv_err *err, char buf[FS_VERDICT_LEN])
{
	const char *errnum = strerrorname_np(kv_rc_errno(err->rc));
	size_t n =
		(size_t)snprintf(buf, FS_VERDICT_LEN, "error %s errno=%s%s%s message=\"", kv_rc_name(err->rc),
				 errnum, err->detail[0] != '\0' ? " " : "", err->detail);

	for (const char *p = err->msg; *p != '\0' && n < FS_VERDICT_LEN - 3; p++) {
		if (*p == '"' || *p == '\\')
			buf[n++] = '\\';
		buf[n++] = *p >= ' ' || *p < 0 ? *p : '?';
	}
	buf[n++] = '"';
	buf[n] = '\0';
	return buf;
}
