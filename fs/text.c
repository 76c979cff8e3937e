/*
 * text.c - see text.h.
 */
#include "fs/text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *fs_text_readme(void)
{
	return "shardfs: shards as files. A shard is a durable collection of updates\n"
	       "((key, val), time, diff). Its upper: all times below it are complete.\n"
	       "\n"
	       "  id=s$(cat /proc/sys/kernel/random/uuid)\n"
	       "  mkdir shard/$id; cd shard/$id                     make a shard\n"
	       "  cat upper                                         0\n"
	       "\n"
	       "  A transaction is text; the write(2) that brings `commit` commits it, and\n"
	       "  returns its verdict. Fields of a row are parted by one tab:\n"
	       "\n"
	       "  printf 'begin expected_upper=0 new_upper=1\\n0\\t1\\tapple\\tred\\ncommit\\n' > append\n"
	       "\n"
	       "  A wrong expected_upper is ESTALE (\"Stale file handle\"), and nothing is\n"
	       "  changed. `cat errors` tells what was expected and what was found.\n"
	       "  expected_upper=* with new_upper=+1 appends at whatever the upper is; a row's\n"
	       "  time may then be * too. Other options: token=i<uuid> (do it once), since=<t>,\n"
	       "  rewrite_ts=<t>. begin lower=<f> upper=<f> appends what is not there yet.\n"
	       "\n"
	       "  cp rows.tsv batches/x                             stage rows under a name\n"
	       "  printf 'begin expected_upper=1 new_upper=9\\nbatch x\\ncommit\\n' > append\n"
	       "\n"
	       "  commits them. Their first line may be bounds <lower> <upper>. Until then x is\n"
	       "  written at its end only, renamed, removed; durable after fsync.\n"
	       "\n"
	       "  cat snapshot          the collection now, summed and sorted\n"
	       "  cat as_of/7           the same as of time 7 (waits until 7 is complete)\n"
	       "  cat wait/7            waits until 7 is complete, then prints the upper\n"
	       "  cat listen/7          every update from time 7 on, for ever, as transactions:\n"
	       "  cat listen/$(cat ../$b/upper) > ../$b/append      make shard $b a copy of it\n"
	       "  cat subscribe/now     the collection now, then what follows, for a new shard\n"
	       "  echo listen=7 > holds/me; ls readers/     keep listen/7 possible; who reads\n"
	       "  ls -l batches/        what was committed, by interval; readable files\n"
	       "  cat state; ls writers/    the shard's state as JSON; who appends to it\n"
	       "  echo compact > ctl    merge what can be merged, and wait until that is done\n"
	       "                        (also gc, rollup, expire <id>; counters: ../../metrics)\n"
	       "  echo 5 > since        give up history below 5 (upper-10: always keep 10)\n"
	       "\n"
	       "  ln -s ../shard/$id ../../name/fruit               a name for a shard\n"
	       "  Finish with new_upper=- and echo - > since; then rmdir removes it all.\n"
	       "\n"
	       "tar, rsync and sendfile see generated files (snapshot, state ...) as empty:\n"
	       "archive batches/, whose files have true sizes.\n";
}

size_t fs_text_frontier(struct core_frontier f, char buf[FS_FRONTIER_LINE])
{
	size_t len;

	core_frontier_format(f, buf);
	len = strlen(buf);
	buf[len] = '\n';
	return len + 1;
}

char *fs_text_batch(struct core_frontier lower, struct core_frontier upper, char buf[FS_BATCH_FILE_LEN])
{
	char a[CORE_FRONTIER_LEN], b[CORE_FRONTIER_LEN];

	snprintf(buf, FS_BATCH_FILE_LEN, "%s-%s", core_frontier_format(lower, a),
		 core_frontier_format(upper, b));
	return buf;
}

bool fs_parse_batch_file(const char *name, struct core_frontier *lower, struct core_frontier *upper)
{
	const char *dash = strchr(name, '-');

	return dash != NULL && core_frontier_parse(name, (size_t)(dash - name), lower) &&
	       core_frontier_parse(dash + 1, strlen(dash + 1), upper);
}

/* --- writers --------------------------------------------------------------------------------------- */

/* Words of another program, made harmless in place: no control characters, and UTF-8. */
static char *harmless(char *text)
{
	json_t *utf8 = json_string(text); /* NULL: it is none */

	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p < ' ' || *p == 127 || (utf8 == NULL && (unsigned char)*p > 127))
			*p = '?';
	json_decref(utf8);
	return text;
}

enum { TIME_LEN = 40 };

/* Milliseconds since 1970 as ISO 8601, in UTC. */
static const char *iso_time(uint64_t ms, char buf[TIME_LEN])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm = {0};
	char day[32]; /* of a year of nine digits, should another program's clock say so */

	gmtime_r(&seconds, &tm);
	strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf, TIME_LEN, "%s.%03uZ", day, (unsigned)(ms % 1000));
	return buf;
}

char *fs_text_writer(const struct core_writer_state *w)
{
	char host[CORE_HOST_LEN], purpose[CORE_PURPOSE_LEN], heartbeat[TIME_LEN], upper[CORE_FRONTIER_LEN],
		*text;

	memcpy(host, w->host, sizeof host);
	memcpy(purpose, w->purpose, sizeof purpose);
	if (asprintf(&text, "host=%s\npurpose=%s\nheartbeat=%s\nlease_s=%" PRIu64 "\nlast_upper=%s\n",
		     harmless(host), harmless(purpose), iso_time(w->heartbeat_ms, heartbeat),
		     w->lease_ms / 1000, core_frontier_format(w->last_upper, upper)) < 0)
		return NULL;
	return text;
}

size_t fs_text_hold(const struct core_hold *hold, char buf[FS_HOLD_LINE])
{
	char since[CORE_FRONTIER_LEN];

	return (size_t)snprintf(buf, FS_HOLD_LINE, "%s\t%" PRIu64 "\n",
				core_frontier_format(hold->since, since), hold->token);
}

char *fs_text_reader(const struct core_reading *r)
{
	char host[CORE_HOST_LEN], purpose[CORE_PURPOSE_LEN], since[TIME_LEN], beat[TIME_LEN], time[24] = "-";
	char *text;

	memcpy(host, r->host, sizeof host);
	memcpy(purpose, r->reader.purpose, sizeof purpose);
	if (!r->pins_only && (r->heartbeat_ms == 0 || r->time != UINT64_MAX))
		snprintf(time, sizeof time, "%" PRIu64, r->time);
	if (r->heartbeat_ms != 0) { /* the lease of another process */
		if (asprintf(&text, "host=%s\npurpose=%s\nneeds=%s\nheartbeat=%s\n", harmless(host),
			     harmless(purpose), time, iso_time(r->heartbeat_ms, beat)) < 0)
			return NULL;
		return text;
	}
	if (asprintf(&text, "host=%s\npid=%" PRId64 "\npurpose=%s\nneeds=%s\nsince=%s\n", harmless(host),
		     r->reader.pid, harmless(purpose), time, iso_time(r->reader.since_ms, since)) < 0)
		return NULL;
	return text;
}

/* --- state ----------------------------------------------------------------------------------------- */

/* JSON has no integers of 64 bits that everyone reads right, but jansson writes them exactly. */
static json_t *number(uint64_t n)
{
	char text[24];

	if (n <= INT64_MAX)
		return json_integer((json_int_t)n);
	snprintf(text, sizeof text, "%" PRIu64, n);
	return json_string(text);
}

static json_t *frontier(struct core_frontier f)
{
	return f.empty ? json_string("-") : number(f.t);
}

static json_t *holds_json(const struct core_state *s)
{
	json_t *holds = json_object();

	for (size_t i = 0; i < s->hold_count; i++) {
		json_t *hold = json_pack("{s:o,s:o}", "since", frontier(s->holds[i].since), "token",
					 number(s->holds[i].token));

		if (s->holds[i].follow != 0)
			json_object_set_new(hold, "follows_upper_at", number(s->holds[i].follow));
		json_object_set_new(holds, s->holds[i].name, hold);
	}
	return holds;
}

/* The hold, or else the reader, that since stands at; "": none, it waits for the next append. */
static json_t *pinned_by(const struct core_state *s, const struct core_reading *readers, size_t reader_count)
{
	char id[CORE_ID_LEN];

	for (size_t i = 0; i < s->hold_count; i++)
		if (core_frontier_eq(s->holds[i].since, s->since))
			return json_string(s->holds[i].name);
	for (size_t i = 0; i < reader_count; i++)
		if (!readers[i].pins_only && core_frontier_eq(core_frontier_at(readers[i].time), s->since))
			return json_string(core_uuid_format('r', readers[i].id, id));
	return json_string("");
}

static json_t *rollups_json(const struct core_state *s)
{
	json_t *rollups = json_array();

	for (size_t i = 0; i < s->rollup_count; i++)
		json_array_append_new(rollups, number(s->rollups[i].seqno));
	return rollups;
}

static json_t *staged_json(const struct core_state *s)
{
	json_t *all = json_object();

	for (size_t i = 0; i < s->staged_count; i++) {
		const struct core_staged *b = &s->staged[i];
		json_t *batch = json_pack("{s:o,s:o,s:b,s:b}", "rows", number(b->rows), "size",
					  number(b->size), "unfinished", b->unfinished, "lost", b->lost);

		if (b->has_bounds) {
			json_object_set_new(batch, "lower", frontier(b->lower));
			json_object_set_new(batch, "upper", frontier(b->upper));
		}
		json_object_set_new(all, b->name, batch);
	}
	return all;
}

static json_t *writers_json(const struct core_state *s)
{
	json_t *all = json_object();

	for (size_t i = 0; i < s->writer_count; i++) {
		const struct core_writer_state *w = &s->writers[i];
		char host[CORE_HOST_LEN], purpose[CORE_PURPOSE_LEN], heartbeat[TIME_LEN], id[CORE_ID_LEN];

		memcpy(host, w->host, sizeof host);
		memcpy(purpose, w->purpose, sizeof purpose);
		json_object_set_new(all, core_uuid_format('w', w->id, id),
				    json_pack("{s:s,s:s,s:s,s:o,s:o}", "host", harmless(host), "purpose",
					      harmless(purpose), "heartbeat",
					      iso_time(w->heartbeat_ms, heartbeat), "lease_s",
					      number(w->lease_ms / 1000), "last_upper",
					      frontier(w->last_upper)));
	}
	return all;
}

static json_t *merges_json(const struct fs_shard_view *v)
{
	json_t *all = json_array();

	for (size_t i = 0; i < v->merge_count; i++) {
		const struct core_merging *m = &v->merges[i];
		json_t *merge = json_pack("{s:b,s:o,s:o,s:o,s:o,s:o,s:o}", "running", m->running, "lower",
					  frontier(m->lower), "upper", frontier(m->upper), "batches",
					  number(m->batches), "runs", number(m->runs), "updates",
					  number(m->updates), "bytes", number(m->bytes));

		if (m->running) {
			json_object_set_new(merge, "begun_ms", number(m->begun_ms));
			json_object_set_new(merge, "updates_done", number(m->updates_done));
		}
		json_array_append_new(all, merge);
	}
	return all;
}

/* What maintenance has before it. */
static void add_upkeep(json_t *root, const struct fs_shard_view *v)
{
	const struct core_state *s = &v->state;
	uint64_t dead_bytes = 0;

	for (size_t i = 0; i < s->dead_count; i++)
		dead_bytes += s->dead[i].size;
	json_object_set_new(root, "merges", merges_json(v));
	json_object_set_new(root, "dead_parts", number(s->dead_count));
	json_object_set_new(root, "dead_bytes", number(dead_bytes));
	json_object_set_new(root, "state_bytes", number(v->state_bytes));
}

char *fs_text_state(const struct fs_shard_view *v)
{
	const struct core_state *s = &v->state;
	struct core_totals totals = core_state_totals(s);
	char text[CORE_ID_LEN], *dump, *line = NULL;
	json_t *root;

	root = json_pack(
		"{s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}",
		"shard", core_uuid_format('s', v->id.u, text), "seqno", number(s->seqno), "first_seqno",
		number(s->first_seqno), "upper", frontier(s->upper), "since", frontier(s->since),
		"since_pinned_by", pinned_by(s, v->readers, v->reader_count), "readers",
		number(v->reader_count), "holds", holds_json(s), "batches", number(s->batch_count), "runs",
		number(totals.runs), "parts", number(totals.parts), "inline_parts",
		number(totals.inline_parts), "updates", number(totals.rows), "inline_bytes",
		number(totals.inline_bytes), "blob_bytes", number(totals.blob_bytes), "tokens",
		number(s->token_count), "rollups", rollups_json(s), "changed_ms", number(s->walltime_ms),
		"staged_batches", number(s->staged_count), "staged", staged_json(s), "writer_count",
		number(s->writer_count), "writers", writers_json(s));
	if (root == NULL)
		return NULL;
	add_upkeep(root, v);
	dump = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (dump != NULL && asprintf(&line, "%s\n", dump) < 0)
		line = NULL;
	free(dump);
	return line;
}
