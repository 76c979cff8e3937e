/*
 * shardctl - look at a store without a mount.
 *
 * It reads: the store may be mounted meanwhile, and what it shows is a past
 * state, as kv/store.h says. Exit status: 0 all is well, 1 something is wrong with the
 * store or the question, 2 wrong usage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/part.h"
#include "core/scan.h"
#include "core/shard.h"
#include "core/staged.h"

static const char usage[] =
	"usage: shardctl COMMAND STORE [...]\n"
	"  ls STORE                 the shards, one line each: id, since, upper, batches, updates\n"
	"  cat STORE SHARD [TIME]   what a shard holds as of TIME, or of the latest complete one\n"
	"  fsck STORE               check every shard's state and every byte of its parts and staged batches\n";

static int fail(const struct kv_err *err)
{
	fprintf(stderr, "shardctl: %s\n", err->msg);
	return 1;
}

/* --- each shard ------------------------------------------------------------------------------------ */

/* Called with each shard; what it returns is the worst of all. */
typedef int each_fn(struct core_shard *shard, const char *name, void *arg);

static int for_each_shard(struct core_engine *e, each_fn *fn, void *arg)
{
	char after[CORE_ID_LEN] = "";
	struct kv_err err;
	struct kv_keys keys;
	int worst = 0;

	do {
		if (core_shard_list(e, after, 256, &keys, &err) != KV_OK)
			return fail(&err);
		for (size_t i = 0; i < keys.count; i++) {
			struct core_shard_id id;
			struct core_shard *shard = NULL;
			enum kv_rc rc;
			int status = 0;

			if (!core_uuid_parse('s', keys.keys[i], strlen(keys.keys[i]), &id.u))
				continue;
			rc = core_shard_open(e, id, &shard, &err);
			if (rc == KV_OK)
				status = fn(shard, keys.keys[i], arg);
			else if (rc != KV_NO_SHARD)
				status = fail(&err);
			core_shard_close(shard);
			worst = status > worst ? status : worst;
			snprintf(after, sizeof after, "%s", keys.keys[i]);
		}
		kv_keys_free(&keys);
	} while (keys.count != 0);
	return worst;
}

static int list_one(struct core_shard *shard, const char *name, void *arg)
{
	char since[CORE_FRONTIER_LEN], upper[CORE_FRONTIER_LEN];
	struct core_state state;
	struct kv_err err;

	(void)arg;
	if (core_shard_state(shard, &state, &err) != KV_OK)
		return fail(&err);
	printf("%s since=%s upper=%s batches=%zu updates=%" PRIu64 "\n", name,
	       core_frontier_format(state.since, since), core_frontier_format(state.upper, upper),
	       state.batch_count, core_state_totals(&state).rows);
	core_state_fini(&state);
	return 0;
}

/* --- cat ------------------------------------------------------------------------------------------- */

static int print_rows(struct core_snapshot *snapshot)
{
	struct core_update u;
	struct kv_err err;
	bool end = false;
	char *line = NULL;

	for (;;) {
		char *grown;

		if (core_snapshot_next(snapshot, &u, &end, &err) != KV_OK) {
			free(line);
			return fail(&err);
		}
		if (end)
			break;
		grown = realloc(line, core_row_text_len(&u));
		if (grown == NULL)
			break;
		line = grown;
		fwrite(line, 1, core_row_format(&u, line), stdout);
	}
	free(line);
	if (end && fflush(stdout) == 0)
		return 0;
	fprintf(stderr, "shardctl: not all rows could be written\n");
	return 1;
}

static int cat(struct core_engine *e, const char *name, const char *time)
{
	struct core_as_of as_of = {.latest = time == NULL};
	struct core_shard_id id;
	struct core_shard *shard = NULL;
	struct core_snapshot *snapshot = NULL;
	struct kv_err err;
	int status;

	if (!core_uuid_parse('s', name, strlen(name), &id.u) ||
	    (time != NULL && !core_u64_parse(time, strlen(time), &as_of.time))) {
		fprintf(stderr, "shardctl: SHARD is s and a lower-case uuid, TIME a number\n");
		return 2;
	}
	if (core_shard_open(e, id, &shard, &err) != KV_OK)
		return fail(&err);
	status = core_snapshot_open(shard, as_of, &snapshot, &err) == KV_OK ? print_rows(snapshot)
									    : fail(&err);
	core_snapshot_close(snapshot);
	core_shard_close(shard);
	return status;
}

/* --- fsck ------------------------------------------------------------------------------------------ */

struct checked {
	uint64_t shards;
	uint64_t parts;
	uint64_t rows;
	uint64_t staged;
};

static enum kv_rc check_part(const struct core_home *home, const struct core_part *part, struct kv_err *err)
{
	struct core_part_reader *reader;
	struct core_update u;
	uint64_t rows = 0, sum = 0;
	bool end = false;
	enum kv_rc rc = core_part_open(home, part, &reader, err);

	if (rc != KV_OK)
		return rc;
	while (rc == KV_OK && !end) {
		rc = core_part_next(reader, &u, &end, err);
		if (rc == KV_OK && !end) {
			rows++;
			sum += (uint64_t)u.diff;
		}
	}
	core_part_close(reader);
	if (rc == KV_OK && (rows != part->rows || sum != part->diffs_sum))
		rc = kv_fail(err, KV_CORRUPT, "a part has %" PRIu64 " rows where its shard counts %" PRIu64,
			     rows, part->rows);
	return rc;
}

/* Every part of a batch; the status. */
static int check_batch(const struct core_home *home, const struct core_batch *b, struct checked *checked)
{
	struct kv_err err;
	int status = 0;

	for (size_t i = 0; i < b->part_count; i++) {
		checked->parts++;
		checked->rows += b->parts[i].rows;
		if (check_part(home, &b->parts[i], &err) != KV_OK)
			status = fail(&err);
	}
	return status;
}

static int check_staged(struct core_shard *shard, const struct core_staged *entry, struct checked *checked)
{
	const struct core_home *home = core_shard_home(shard);
	char line[CORE_BOUNDS_LINE_LEN];
	struct core_staged_view view;
	struct kv_err err;
	uint64_t size = 0;
	enum kv_rc rc = core_staged_open(shard, entry->id, &view, &err);
	int status;

	if (rc != KV_OK) {
		fprintf(stderr, "shardctl: staged batch %s: %s\n", entry->name, err.msg);
		return 1;
	}
	checked->staged++;
	status = check_batch(home, view.batch, checked);
	rc = core_scan_size(home, view.batch, &size, &err);
	size += strlen(core_staged_bounds_line(entry, line)) + view.rest_len;
	if (rc == KV_OK && size != entry->size) {
		fprintf(stderr,
			"shardctl: staged batch %s has %" PRIu64 " bytes of text where its shard counts %" PRIu64
			"\n",
			entry->name, size, entry->size);
		status = 1;
	} else if (rc != KV_OK) {
		status = fail(&err);
	}
	core_staged_close(shard, &view);
	return status;
}

static int check_one(struct core_shard *shard, const char *name, void *arg)
{
	struct checked *checked = arg;
	struct core_state state;
	struct kv_err err;
	enum kv_rc rc = core_shard_state(shard, &state, &err);
	int status = 0, found;

	if (rc == KV_OK)
		rc = core_state_check(&state, &err);
	if (rc != KV_OK) {
		fprintf(stderr, "shardctl: shard %s: %s\n", name, err.msg);
		return 1;
	}
	checked->shards++;
	for (size_t i = 0; i < state.batch_count; i++) {
		found = check_batch(core_shard_home(shard), state.batches[i], checked);
		status = found > status ? found : status;
	}
	for (size_t i = 0; i < state.staged_count; i++) {
		found = check_staged(shard, &state.staged[i], checked);
		status = found > status ? found : status;
	}
	core_state_fini(&state);
	return status;
}

static int fsck(struct core_engine *e)
{
	struct checked checked = {0};
	int status = for_each_shard(e, check_one, &checked);

	printf("%s: %" PRIu64 " shards, %" PRIu64 " parts, %" PRIu64 " updates, %" PRIu64 " staged batches\n",
	       status == 0 ? "clean" : "damage was found in what was read", checked.shards, checked.parts,
	       checked.rows, checked.staged);
	return status;
}

int main(int argc, char **argv)
{
	struct kv_store *store;
	struct core_engine *engine;
	struct kv_err err;
	const char *command = argc > 1 ? argv[1] : "";
	int status;

	if (strcmp(command, "-h") == 0 || strcmp(command, "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (!((strcmp(command, "ls") == 0 && argc == 3) || (strcmp(command, "fsck") == 0 && argc == 3) ||
	      (strcmp(command, "cat") == 0 && (argc == 4 || argc == 5)))) {
		fputs(usage, stderr);
		return 2;
	}
	if (kv_store_embedded_open(argv[2], true, "shardctl", &store, &err) != KV_OK ||
	    core_engine_open(store, NULL, &engine, &err) != KV_OK)
		return fail(&err);
	if (strcmp(command, "ls") == 0)
		status = for_each_shard(engine, list_one, NULL);
	else if (strcmp(command, "fsck") == 0)
		status = fsck(engine);
	else
		status = cat(engine, argv[3], argc == 5 ? argv[4] : NULL);
	core_engine_close(engine);
	return status;
}
