/* shardctl_look.c - ls, state and cat. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/shardctl.h"

enum { LIST_PAGE = 256 };

/* --- names, by the shard they lead to ---------------------------------------------------------------- */

struct names {
	struct core_name *v;
	size_t count;
};

static int cmp_target(const void *a, const void *b)
{
	const struct core_name *x = a, *y = b;
	int order = memcmp(&x->target, &y->target, sizeof x->target);

	return order != 0 ? order : strcmp(x->name, y->name);
}

static int load_names(struct ctl *c, struct names *out)
{
	struct kv_err err;

	if (core_name_list(c->engine, &out->v, &out->count, &err) != KV_OK)
		return ctl_fail(&err);
	if (out->count > 1)
		qsort(out->v, out->count, sizeof *out->v, cmp_target);
	return CTL_OK;
}

/* The first name of id, or where it would be. */
static size_t first_of(const struct names *names, struct core_shard_id id)
{
	size_t lo = 0, hi = names->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (memcmp(&names->v[mid].target, &id, sizeof id) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool is_of(const struct names *names, size_t i, struct core_shard_id id)
{
	return i < names->count && core_uuid_eq(names->v[i].target.u, id.u);
}

static json_t *names_json(const struct names *names, struct core_shard_id id)
{
	json_t *all = json_array();

	for (size_t i = first_of(names, id); is_of(names, i, id); i++)
		json_array_append_new(all, ctl_text(names->v[i].name));
	return all;
}

/* --- ls -------------------------------------------------------------------------------------------- */

static int list_json(const char *text, const struct core_state *s, const struct names *names,
		     struct core_shard_id id)
{
	struct core_totals totals = core_state_totals(s);

	return ctl_print_json(json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:o}", "shard", text, "since",
					ctl_frontier(s->since), "upper", ctl_frontier(s->upper), "batches",
					ctl_number(s->batch_count), "updates", ctl_number(totals.rows),
					"bytes", ctl_number(totals.inline_bytes + totals.blob_bytes), "names",
					names_json(names, id)),
			      JSON_COMPACT);
}

static void list_plain(const char *text, const struct core_state *s, const struct names *names,
		       struct core_shard_id id)
{
	char since[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN], word[4 * CORE_NAME_LEN];

	printf("%s since=%s upper=%s batches=%zu updates=%" PRIu64, text,
	       core_frontier_format(s->since, since), core_frontier_format(s->upper, upper), s->batch_count,
	       core_state_totals(s).rows);
	for (size_t i = first_of(names, id); is_of(names, i, id); i++) {
		core_name_escape(names->v[i].name, word);
		printf(" name=%s", word);
	}
	putchar('\n');
}

static int list_one(struct ctl *c, const char *text, const struct names *names)
{
	struct core_shard *shard;
	struct core_shard_id id;
	struct core_state state;
	struct kv_err err;
	enum kv_rc rc;
	int status = CTL_OK;

	if (!core_uuid_parse('s', text, strlen(text), &id.u))
		return CTL_OK;
	rc = core_shard_open(c->engine, id, &shard, &err);
	if (rc != KV_OK)
		return rc == KV_NO_SHARD ? CTL_OK : ctl_fail(&err);
	rc = core_shard_state(shard, &state, &err);
	if (rc != KV_OK)
		status = ctl_fail(&err);
	else if (c->json)
		status = list_json(text, &state, names, id);
	else
		list_plain(text, &state, names, id);
	core_state_fini(&state);
	core_shard_close(shard);
	return status;
}

int ctl_ls(struct ctl *c)
{
	char after[CORE_ID_LEN] = "";
	struct names names = {0};
	struct kv_err err;
	size_t count = 1;
	int worst = ctl_open(c, false, false, "shardctl ls");

	if (worst != CTL_OK)
		return worst;
	worst = load_names(c, &names);
	while (count != 0) {
		struct kv_keys keys;

		if (core_shard_list(c->engine, after, LIST_PAGE, &keys, &err) != KV_OK) {
			worst = ctl_fail(&err);
			break;
		}
		count = keys.count;
		for (size_t i = 0; i < count; i++) {
			int status = list_one(c, keys.keys[i], &names);

			worst = worst != CTL_OK ? worst : status;
			snprintf(after, sizeof after, "%s", keys.keys[i]);
		}
		kv_keys_free(&keys);
	}
	free(names.v);
	return worst != CTL_OK ? worst : ctl_printed();
}

/* --- state ----------------------------------------------------------------------------------------- */

static json_t *holds_json(const struct core_state *s)
{
	json_t *all = json_object();

	for (size_t i = 0; i < s->hold_count; i++)
		json_object_set_new(all, s->holds[i].name,
				    json_pack("{s:o,s:o,s:o}", "since", ctl_frontier(s->holds[i].since),
					      "token", ctl_number(s->holds[i].token), "follow",
					      ctl_number(s->holds[i].follow)));
	return all;
}

static json_t *staged_json(const struct core_state *s)
{
	json_t *all = json_object();

	for (size_t i = 0; i < s->staged_count; i++) {
		const struct core_staged *b = &s->staged[i];
		json_t *one = json_pack("{s:o,s:o,s:b,s:b}", "updates", ctl_number(b->rows), "size",
					ctl_number(b->size), "unfinished", b->unfinished, "lost", b->lost);

		if (b->has_bounds) {
			json_object_set_new(one, "lower", ctl_frontier(b->lower));
			json_object_set_new(one, "upper", ctl_frontier(b->upper));
		}
		json_object_set_new(all, b->name, one);
	}
	return all;
}

static json_t *writers_json(const struct core_state *s)
{
	json_t *all = json_object();
	char id[CORE_ID_LEN];

	for (size_t i = 0; i < s->writer_count; i++) {
		const struct core_writer_state *w = &s->writers[i];

		json_object_set_new(all, core_uuid_format('w', w->id, id),
				    json_pack("{s:o,s:o,s:o,s:o}", "host", ctl_text(w->host), "purpose",
					      ctl_text(w->purpose), "heartbeat_ms",
					      ctl_number(w->heartbeat_ms), "last_upper",
					      ctl_frontier(w->last_upper)));
	}
	return all;
}

static json_t *batches_json(const struct core_state *s)
{
	json_t *all = json_array();

	for (size_t i = 0; i < s->batch_count; i++) {
		const struct core_batch *b = s->batches[i];

		json_array_append_new(all, json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "lower",
						     ctl_frontier(b->lower), "upper", ctl_frontier(b->upper),
						     "updates", ctl_number(b->rows), "bytes",
						     ctl_number(b->bytes), "runs", ctl_number(b->run_count),
						     "parts", ctl_number(b->part_count)));
	}
	return all;
}

static json_t *state_json(const char *id, const struct core_state *s, const struct names *names,
			  struct core_shard_id shard)
{
	struct core_totals totals = core_state_totals(s);
	char mode[8];
	json_t *root;

	snprintf(mode, sizeof mode, "%04o", s->owner.mode & 07777);
	root = json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:s}", "shard", id, "names",
			 names_json(names, shard), "since", ctl_frontier(s->since), "upper",
			 ctl_frontier(s->upper), "seqno", ctl_number(s->seqno), "first_seqno",
			 ctl_number(s->first_seqno), "created_ms", ctl_number(s->created_ms), "changed_ms",
			 ctl_number(s->walltime_ms), "uid", ctl_number(s->owner.uid), "gid",
			 ctl_number(s->owner.gid), "mode", mode);
	if (root == NULL)
		return NULL;
	json_object_set_new(root, "updates", ctl_number(totals.rows));
	json_object_set_new(root, "inline_bytes", ctl_number(totals.inline_bytes));
	json_object_set_new(root, "blob_bytes", ctl_number(totals.blob_bytes));
	json_object_set_new(root, "tokens", ctl_number(s->token_count));
	json_object_set_new(root, "dead_parts", ctl_number(s->dead_count));
	json_object_set_new(root, "rollups", ctl_number(s->rollup_count));
	json_object_set_new(root, "leases", ctl_number(s->lease_count));
	json_object_set_new(root, "holds", holds_json(s));
	json_object_set_new(root, "staged", staged_json(s));
	json_object_set_new(root, "writers", writers_json(s));
	json_object_set_new(root, "batches", batches_json(s));
	return root;
}

static void state_plain(const char *id, const struct core_state *s)
{
	char a[CORE_FRONTIER_LEN], b[CORE_FRONTIER_LEN];
	struct core_totals totals = core_state_totals(s);

	printf("shard %s\nsince %s\nupper %s\nseqno %" PRIu64 "\nowner %u:%u %04o\n", id,
	       core_frontier_format(s->since, a), core_frontier_format(s->upper, b), s->seqno, s->owner.uid,
	       s->owner.gid, s->owner.mode & 07777);
	printf("updates %" PRIu64 "\nbytes %" PRIu64 "\ntokens %zu\ndead_parts %zu\n", totals.rows,
	       totals.inline_bytes + totals.blob_bytes, s->token_count, s->dead_count);
	for (size_t i = 0; i < s->hold_count; i++)
		printf("hold %s since=%s token=%" PRIu64 "\n", s->holds[i].name,
		       core_frontier_format(s->holds[i].since, a), s->holds[i].token);
	for (size_t i = 0; i < s->batch_count; i++)
		printf("batch %s-%s updates=%" PRIu64 " runs=%zu parts=%zu bytes=%" PRIu64 "\n",
		       core_frontier_format(s->batches[i]->lower, a),
		       core_frontier_format(s->batches[i]->upper, b), s->batches[i]->rows,
		       s->batches[i]->run_count, s->batches[i]->part_count, s->batches[i]->bytes);
	for (size_t i = 0; i < s->staged_count; i++)
		printf("staged %s updates=%" PRIu64 " size=%" PRIu64 "\n", s->staged[i].name,
		       s->staged[i].rows, s->staged[i].size);
}

int ctl_state(struct ctl *c)
{
	struct core_shard *shard = NULL;
	struct core_state state = {0};
	struct names names = {0};
	struct core_shard_id id;
	char text[CORE_ID_LEN];
	struct kv_err err;
	int status = ctl_open(c, false, false, "shardctl state");

	if (status == CTL_OK)
		status = ctl_shard_id(c, c->args[0], &id);
	if (status == CTL_OK)
		status = load_names(c, &names);
	if (status != CTL_OK)
		return status;
	core_uuid_format('s', id.u, text);
	if (core_shard_open(c->engine, id, &shard, &err) != KV_OK ||
	    core_shard_state(shard, &state, &err) != KV_OK)
		status = ctl_fail(&err);
	else if (c->json)
		status = ctl_print_json(state_json(text, &state, &names, id), JSON_INDENT(2));
	else
		state_plain(text, &state);
	core_state_fini(&state);
	core_shard_close(shard);
	free(names.v);
	return status != CTL_OK ? status : ctl_printed();
}

/* --- cat ------------------------------------------------------------------------------------------- */

static int print_row(const struct core_update *u, char **line, size_t *cap)
{
	size_t need = core_row_text_len(u);

	if (*line == NULL || need > *cap) {
		char *grown = realloc(*line, need);

		if (grown == NULL)
			return CTL_WRONG;
		*line = grown;
		*cap = need;
	}
	return fwrite(*line, 1, core_row_format(u, *line), stdout) == need ? CTL_OK : CTL_WRONG;
}

static int print_rows(const struct ctl *c, struct core_snapshot *snapshot)
{
	struct core_update u;
	struct kv_err err;
	bool end = false;
	char *line = NULL;
	size_t cap = 0;
	int status = CTL_OK;

	while (status == CTL_OK) {
		if (core_snapshot_next(snapshot, &u, &end, &err) != KV_OK)
			status = ctl_fail(&err);
		if (status != CTL_OK || end)
			break;
		if (c->json)
			status = ctl_print_json(json_pack("{s:o,s:I,s:o,s:o}", "time", ctl_number(u.time),
							  "diff", (json_int_t)u.diff, "key", ctl_bytes(u.key),
							  "val", ctl_bytes(u.val)),
						JSON_COMPACT);
		else
			status = print_row(&u, &line, &cap);
	}
	free(line);
	return end ? ctl_printed() : status;
}

int ctl_cat(struct ctl *c)
{
	struct core_as_of as_of = {.latest = c->arg_count == 1};
	struct core_shard *shard = NULL;
	struct core_snapshot *snapshot = NULL;
	struct core_shard_id id;
	struct kv_err err;
	int status;

	if (c->arg_count == 2 && !core_u64_parse(c->args[1], strlen(c->args[1]), &as_of.time)) {
		fprintf(stderr, "shardctl: TIME is a number\n");
		return CTL_USAGE;
	}
	status = ctl_open(c, false, false, "shardctl cat");
	if (status == CTL_OK)
		status = ctl_shard_id(c, c->args[0], &id);
	if (status != CTL_OK)
		return status;
	if (core_shard_open(c->engine, id, &shard, &err) != KV_OK ||
	    core_snapshot_open(shard, as_of, &snapshot, &err) != KV_OK)
		status = ctl_fail(&err);
	else
		status = print_rows(c, snapshot);
	core_snapshot_close(snapshot);
	core_shard_close(shard);
	return status;
}
