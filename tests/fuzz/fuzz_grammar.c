/*
 * fuzz_grammar.c - the small grammars: what stands in paths, in begin lines, in files of one line, in ctl, on
 * the command line; and the texts that show what others wrote.
 *
 * The first byte chooses. What has one canonical form and parses is written as it was read.
 */
#include <stdlib.h>
#include <string.h>

#include "core/staged.h"
#include "fs/grammar.h"
#include "fs/look.h"
#include "fs/options.h"
#include "fs/text.h"
#include "tests/fuzz/fuzz.h"

/* A line of `len` bytes, in memory of that length. */
struct line {
	char *p;
	size_t len;
};

static bool said_syntax(enum kv_rc rc, const struct kv_err *err)
{
	must(rc == KV_OK || rc == KV_BAD_SYNTAX);
	return fuzz_said(rc, err);
}

static void frontiers(struct line l)
{
	struct core_frontier f;
	uint64_t t = 7;
	char buf[CORE_FRONTIER_LEN];

	if (core_frontier_parse(l.p, l.len, &f)) {
		must(strlen(core_frontier_format(f, buf)) == l.len && memcmp(buf, l.p, l.len) == 0);
		must(core_u64_parse(l.p, l.len, &t) == !f.empty);
		must(f.empty ? f.t == 0 : t == f.t && core_u64_digits(t) == l.len);
	} else {
		must(!core_u64_parse(l.p, l.len, &t) && t == 7);
	}
}

static void ids(struct line l)
{
	static const char letters[] = "spiwnr";
	char buf[CORE_ID_LEN];
	struct core_uuid u;

	for (const char *c = letters; *c != '\0'; c++)
		if (core_uuid_parse(*c, l.p, l.len, &u))
			must(l.len == CORE_ID_LEN - 1 &&
			     memcmp(core_uuid_format(*c, u, buf), l.p, l.len) == 0);
}

/* Names in paths; NUL ends them. */
static void names(struct line l)
{
	char *name = strndup(l.p, l.len), buf[FS_BATCH_FILE_LEN], id_text[CORE_ID_LEN];
	struct core_frontier lower, upper;
	struct core_shard_id id;

	must(name != NULL);
	if (fs_parse_batch_file(name, &lower, &upper)) {
		must(strcmp(fs_text_batch(lower, upper, buf), name) == 0);
		must(!core_staged_name_ok(name)); /* a staged batch never hides a committed one */
	}
	if (fs_parse_shard_id(name, &id))
		must(strcmp(core_uuid_format('s', id.u, id_text), name) == 0);
	if (core_staged_name_ok(name))
		must(strlen(name) < CORE_STAGED_NAME_LEN && strpbrk(name, "/\n\t ") == NULL &&
		     name[0] != '.');
	free(name);
}

static void begin(struct line l)
{
	struct core_append a;
	struct kv_err err;

	if (fs_line_kind(l.p, l.len) != FS_LINE_BEGIN)
		return;
	if (!said_syntax(fs_parse_begin(l.p, l.len, &a, &err), &err))
		return;
	must(!a.upper_plus || (a.lower_star && a.plus != 0));
	must(!a.rewrite_star || (a.lower_star && !a.has_rewrite));
	must(!a.idempotent || (!a.lower_star && !a.upper_plus));
}

static void batch(struct line l)
{
	char name[FS_BATCH_NAME_LEN], line[CORE_BOUNDS_LINE_LEN];
	struct core_staged entry = {.has_bounds = true};
	struct kv_err err;

	if (fs_line_kind(l.p, l.len) == FS_LINE_BATCH &&
	    said_syntax(fs_parse_batch(l.p, l.len, name, &err), &err))
		must(core_staged_name_ok(name) && strlen(name) == l.len - 6 &&
		     memcmp(name, l.p + 6, l.len - 6) == 0);
	if (!fs_is_bounds(l.p, l.len))
		return;
	if (said_syntax(fs_parse_bounds(l.p, l.len, &entry.lower, &entry.upper, &err), &err)) {
		core_staged_bounds_line(&entry, line);
		must(strlen(line) == l.len + 1 && memcmp(line, l.p, l.len) == 0);
	}
}

static void since(struct line l)
{
	struct core_frontier f;
	struct kv_err err;
	uint64_t follow;

	if (said_syntax(fs_parse_since(l.p, l.len, &f, &follow, &err), &err))
		must(follow == 0 || (!f.empty && f.t == 0));
}

static void hold(struct line l)
{
	struct core_hold_ask ask;
	struct core_hold shown = {0};
	char line[FS_HOLD_LINE];
	struct kv_err err;

	if (!said_syntax(fs_parse_hold(l.p, l.len, &ask, &err), &err))
		return;
	shown.since = ask.since;
	shown.token = ask.token;
	must(fs_text_hold(&shown, line) < sizeof line);
}

static void ctl(struct line l)
{
	struct core_upkeep_result result = {0};
	char verdict[FS_VERDICT_LEN];
	struct fs_ctl_ask ask;
	struct kv_err err;

	memset(&result, 0xff, sizeof result);
	if (!said_syntax(fs_parse_ctl(l.p, l.len, &ask, &err), &err))
		fs_verdict_error(&err, verdict);
	else
		fs_verdict_done(&ask, &result, verdict);
	must(strlen(verdict) < FS_VERDICT_LEN && strchr(verdict, '\n') == NULL);
}

/* A sentence of any bytes becomes one line whose message ends at the one quote that is not escaped. */
static void verdict(struct line l)
{
	struct kv_err err = {.rc = KV_IO};
	char line[FS_VERDICT_LEN], *p;

	memcpy(err.msg, l.p, l.len < sizeof err.msg - 1 ? l.len : sizeof err.msg - 1);
	fs_verdict_error(&err, line);
	must(strlen(line) < FS_VERDICT_LEN && strchr(line, '\n') == NULL);
	p = strstr(line, " message=\"");
	must(p != NULL);
	for (p += strlen(" message=\""); *p != '"' && *p != '\0'; p++)
		if (*p == '\\')
			must(*++p != '\0');
	must(p[0] == '"' && p[1] == '\0');
}

/* What another program says of itself shows as the lines there are, none of its own. */
static void writers(struct line l)
{
	struct core_writer_state w = {.last_upper = core_frontier_empty()};
	struct core_reading r = {0};
	size_t half = l.len / 2, lines = 0;
	char *text;

	memcpy(w.host, l.p, half < sizeof w.host - 1 ? half : sizeof w.host - 1);
	memcpy(w.purpose, l.p + half,
	       l.len - half < sizeof w.purpose - 1 ? l.len - half : sizeof w.purpose - 1);
	memcpy(r.host, w.host, sizeof r.host);
	memcpy(r.reader.purpose, w.purpose, sizeof w.purpose);
	memcpy(&w.heartbeat_ms, l.p, l.len < 8 ? l.len : 8);
	memcpy(&w.lease_ms, l.p, l.len < 8 ? l.len : 8);
	r.heartbeat_ms = w.heartbeat_ms;
	text = fs_text_writer(&w);
	must(text != NULL);
	for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
		lines++;
	must(lines == 5);
	const char *beat = strstr(text, "\nheartbeat=") + strlen("\nheartbeat=");
	size_t len = strcspn(beat, "\n");
	must(strspn(beat, "0123456789-T:.Z") == len && len >= strlen("1970-01-01T00:00:00.000Z"));
	free(text);
	text = fs_text_reader(&r);
	must(text != NULL && text[strlen(text) - 1] == '\n');
	free(text);
}

enum { WORDS = 12 };

/* Words of a command line, parted by newlines. */
static void options(struct line l)
{
	char program[] = "shardfs", why[512] = "";
	char *text = strndup(l.p, l.len), *argv[WORDS + 1] = {program}, *rest = text;
	struct fs_command command;
	int argc = 1;

	must(text != NULL);
	while (argc < WORDS && rest != NULL)
		argv[argc++] = strsep(&rest, "\n");
	if (!fs_command_parse(argc, argv, &command, why))
		must(why[0] != '\0' && strchr(why, '\n') == NULL);
	else if (!command.help && !command.version)
		must(command.options.store != NULL && command.options.mountpoint != NULL &&
		     fs_command_complete(&command));
	fs_command_fini(&command);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const grammars[])(struct line l) = {frontiers, ids, names,   begin,   batch,  since,
							  hold,      ctl, verdict, writers, options};
	struct fuzz_in in = {.p = data, .left = size};
	uint8_t which = fuzz_u8(&in);
	struct line l;

	l.p = fuzz_copy(&in, in.left, &l.len);
	grammars[which % (sizeof grammars / sizeof grammars[0])](l);
	free(l.p);
	return 0;
}
