/*
 * grammar.h - the lines of a transaction, as text.
 *
 *     begin expected_upper=<f> new_upper=<f> [option=value ...]      compare-and-append
 *     begin lower=<f> upper=<f> [option=value ...]                   append
 *     <row>                                                          core/row.h
 *     batch <name>
 *     commit
 *
 * and the first line of a staged batch that has bounds:
 *
 *     bounds <lower> <upper>
 *
 * and those of the files of one line.
 *
 * Pure functions; any thread.
 */
#ifndef FS_GRAMMAR_H
#define FS_GRAMMAR_H

#include "core/shard.h"
#include "core/upkeep.h"

enum fs_line { FS_LINE_BEGIN, FS_LINE_ROW, FS_LINE_BATCH, FS_LINE_COMMIT, FS_LINE_BAD };

/* What kind a line is, by its first word. */
enum fs_line fs_line_kind(const char *line, size_t len);

/* A whole begin line to what it asks for. KV_BAD_SYNTAX: the sentence says which word and why. */
enum kv_rc fs_parse_begin(const char *line, size_t len, struct core_append *out,
			  struct kv_err *err) KV_MUST_CHECK;

/* The name in a batch line: [A-Za-z_][A-Za-z0-9._-]{0,127}, copied with a NUL. KV_BAD_SYNTAX. */
enum { FS_BATCH_NAME_LEN = 129 };
enum kv_rc fs_parse_batch(const char *line, size_t len, char name[FS_BATCH_NAME_LEN],
			  struct kv_err *err) KV_MUST_CHECK;

/* A bounds line, by its first word; and its frontiers (KV_BAD_SYNTAX). */
bool fs_is_bounds(const char *line, size_t len);
enum kv_rc fs_parse_bounds(const char *line, size_t len, struct core_frontier *lower,
			   struct core_frontier *upper, struct kv_err *err) KV_MUST_CHECK;

/* `<f>` or `upper-<n>` with an optional newline, as written to `since`. KV_BAD_SYNTAX. */
enum kv_rc fs_parse_since(const char *text, size_t len, struct core_frontier *since, uint64_t *follow,
			  struct kv_err *err) KV_MUST_CHECK;

/* What is written to a hold: `<f>`, `listen=<f>`, or `expected=<token> token=<token> since=<f>`, with an
 * optional newline. KV_BAD_SYNTAX. */
enum kv_rc fs_parse_hold(const char *text, size_t len, struct core_hold_ask *out,
			 struct kv_err *err) KV_MUST_CHECK;

/* A line written to `ctl`, with an optional newline. KV_BAD_SYNTAX. */
enum fs_verb { FS_VERB_COMPACT, FS_VERB_GC, FS_VERB_ROLLUP, FS_VERB_EXPIRE };
struct fs_ctl_ask {
	enum fs_verb verb;
	enum core_upkeep_kind upkeep; /* what that asks for, but for FS_VERB_EXPIRE */
	char expired_kind;            /* FS_VERB_EXPIRE: 'w' or 'r', of the id */
	struct core_uuid expired;
};
enum kv_rc fs_parse_ctl(const char *text, size_t len, struct fs_ctl_ask *out,
			struct kv_err *err) KV_MUST_CHECK;

/*
 * The verdict on a transaction, one line without newline, cut to the room there is; returns buf.
 *     ok lower=<f> new_upper=<f> seqno=<n> updates=<n>
 *     error <Reason> errno=<NAME> key=value ... message="..."
 */
enum { FS_VERDICT_LEN = 1024 };
char *fs_verdict_ok(const struct core_appended *r, char buf[FS_VERDICT_LEN]);
/*
 * The verdict on a line of `ctl`; of an expired id there is no result.
 *     ok compact seqno=<n> merges=<n> in_updates=<n> in_bytes=<n> out_updates=<n> out_bytes=<n>
 *     ok gc seqno=<n> blobs=<n> blob_bytes=<n> versions=<n> rollups=<n> kept_blobs=<n>
 *     ok rollup seqno=<n>
 *     ok expire id=<id>
 */
char *fs_verdict_done(const struct fs_ctl_ask *ask, const struct core_upkeep_result *r,
		      char buf[FS_VERDICT_LEN]);
char *fs_verdict_error(const struct kv_err *err, char buf[FS_VERDICT_LEN]);

#endif
