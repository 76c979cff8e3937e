/*
 * fuzz_append.c - what is written to `append`, and to a staged batch: cut into pieces it does what it does
 * whole.
 *
 * The input: a byte of flags and of how often it is cut, the number of cuts before that and a byte for each,
 * the text. Two shards of one engine take the same text, one of them whole. All that shows after it must be
 * the same: the verdicts (with seqnos and upper), the code that spent the descriptor, the rows, the tokens,
 * what is staged.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/scan.h"
#include "core/staged.h"
#include "fs/append.h"
#include "fs/fs.h"
#include "fs/staged.h"
#include "tests/fuzz/fuzz.h"

enum { STAGED = 1, EVERY_SHIFT = 2, CUTS_MAX = 64, EVERY_MAX = 4096 };

/* What of a mount the two kinds of file need. */
struct bench {
	struct fs fs;
	struct core_shard *shard[2];
};

static uint64_t fixed_time(void *arg)
{
	(void)arg;
	return 1000000;
}

static struct bench *bench_new(void)
{
	const struct core_engine_config config = {.no_upkeep = true, .now_us = fixed_time};
	struct bench *b = calloc(1, sizeof *b);
	struct kv_err err;

	must(b != NULL);
	must(core_engine_open(kv_store_mem_new(), &config, &b->fs.engine, &err) == KV_OK);
	pthread_mutex_init(&b->fs.stop_mu, NULL);
	pthread_cond_init(&b->fs.idle, NULL);
	fs_errors_init(&b->fs.errors);
	fs_stages_init(&b->fs.stages);
	fs_nodes_init(&b->fs.nodes);
	pthread_mutex_init(&b->fs.open_mu, NULL);
	fs_limits_init(&b->fs.limits, 16, 16);
	for (uint8_t i = 0; i < 2; i++) {
		const struct core_shard_id id = {.u.b = {i}};
		struct core_staged staged;

		must(core_shard_create(b->fs.engine, id, (struct core_owner){0}, &err) == KV_OK);
		must(core_shard_open(b->fs.engine, id, &b->shard[i], &err) == KV_OK);
		must(core_staged_create(b->shard[i], "x", &staged, &err) == KV_OK);
	}
	return b;
}

/* What the mount does around an open, and around its close. */
static void open_counted(struct bench *b, struct fs_open *open)
{
	struct kv_err err;

	*open = (struct fs_open){.weight = 1};
	must(fs_limits_enter(&b->fs.limits, 2, &open->user, &err) == KV_OK);
	fs_open_add(&b->fs, open, NULL);
}

static void bench_free(struct bench *b)
{
	for (int i = 0; i < 2; i++)
		core_shard_close(b->shard[i]);
	core_engine_close(b->fs.engine);
	fs_nodes_fini(&b->fs.nodes);
	fs_limits_fini(&b->fs.limits);
	pthread_mutex_destroy(&b->fs.open_mu);
	fs_stages_fini(&b->fs.stages);
	fs_errors_fini(&b->fs.errors);
	pthread_cond_destroy(&b->fs.idle);
	pthread_mutex_destroy(&b->fs.stop_mu);
	free(b);
}

/* --- what shows ------------------------------------------------------------------------------------ */

static void same_snapshots(struct bench *b)
{
	struct core_snapshot *s[2];
	struct core_update u[2];
	bool end[2] = {false, false};
	struct kv_err err[2];
	enum kv_rc rc[2];

	for (int i = 0; i < 2; i++)
		rc[i] = core_snapshot_open(b->shard[i], (struct core_as_of){.latest = true}, &s[i], &err[i]);
	must(rc[0] == rc[1]);
	if (rc[0] != KV_OK)
		return;
	do {
		for (int i = 0; i < 2; i++)
			rc[i] = core_snapshot_next(s[i], &u[i], &end[i], &err[i]);
		must(rc[0] == rc[1] && end[0] == end[1]);
		must(rc[0] == KV_OK || rc[0] == KV_OVERFLOW);
		must(rc[0] != KV_OK || end[0] || fuzz_same_row(&u[0], &u[1]));
	} while (rc[0] == KV_OK && !end[0]);
	core_snapshot_close(s[0]);
	core_snapshot_close(s[1]);
}

/* Text of all batches; rows have no promised order, but the same rows have the same one. */
static void same_batches(struct bench *b, const struct core_state s[2])
{
	must(s[0].batch_count == s[1].batch_count);
	for (size_t n = 0; n < s[0].batch_count; n++) {
		struct core_scan *scan;
		char text[2][4096];
		size_t got[2];
		struct kv_err err;

		for (int i = 0; i < 2; i++) {
			must(core_scan_open(core_shard_home(b->shard[i]), s[i].batches[n], &scan, &err) ==
			     KV_OK);
			must(core_scan_read(scan, 0, text[i], sizeof text[i], &got[i], &err) == KV_OK);
			core_scan_close(scan);
		}
		must(core_frontier_eq(s[0].batches[n]->lower, s[1].batches[n]->lower));
		must(core_frontier_eq(s[0].batches[n]->upper, s[1].batches[n]->upper));
		must(got[0] == got[1] && memcmp(text[0], text[1], got[0]) == 0);
	}
}

static void same_states(struct bench *b)
{
	struct core_state s[2];
	struct kv_err err;

	for (int i = 0; i < 2; i++) {
		must(core_shard_state(b->shard[i], &s[i], &err) == KV_OK);
		must(core_state_check(&s[i], &err) == KV_OK);
	}
	must(s[0].seqno == s[1].seqno);
	must(core_frontier_eq(s[0].upper, s[1].upper) && core_frontier_eq(s[0].since, s[1].since));
	must(s[0].token_count == s[1].token_count && s[0].staged_count == s[1].staged_count);
	for (size_t i = 0; i < s[0].token_count; i++) {
		const struct core_done *x = &s[0].tokens[i], *y = &s[1].tokens[i];

		must(core_uuid_eq(x->token.u, y->token.u) && x->rows == y->rows && x->seqno == y->seqno &&
		     memcmp(&x->asked, &y->asked, sizeof x->asked) == 0);
	}
	same_batches(b, s);
	for (int i = 0; i < 2; i++)
		core_state_fini(&s[i]);
	same_snapshots(b);
}

/* --- writing --------------------------------------------------------------------------------------- */

/* Where the text is cut. */
struct cuts {
	size_t count;
	uint8_t at[CUTS_MAX];
	size_t every; /* from there on; 0: no more */
};

static size_t piece(const struct cuts *c, size_t n, size_t left)
{
	size_t len = n < c->count ? c->at[n] : c->every != 0 ? c->every : left;

	return len < left ? len : left;
}

struct answer {
	enum kv_rc rc;
	size_t done;
	unsigned count;
};

static void answered(const struct fs_append_asker *asker, enum kv_rc rc, size_t done)
{
	struct answer *answer = (struct answer *)(void *)asker->handle;

	answer->rc = rc;
	answer->done = done;
	answer->count++;
}

/* One write, and the commit that it may leave: with nobody else there it is over when that returns. */
static enum kv_rc write_once(struct fs_append *a, const char *text, size_t len, size_t *done)
{
	struct answer answer = {.rc = KV_OK};
	bool commits;
	enum kv_rc rc = fs_append_write(a, 1, 2, text, len, done, &commits);

	if (!commits)
		return rc;
	must(rc == KV_OK);
	fs_append_commit(a, &(struct fs_append_asker){.over = answered,
						      .handle = (struct fs_handle *)(void *)&answer});
	must(answer.count == 1);
	*done = answer.done;
	return answer.rc;
}

/* A write of a piece in memory of its length; a short one is tried again for the rest, as clients do. */
static enum kv_rc write_append(struct fs_append *a, const char *text, size_t len)
{
	enum kv_rc rc = KV_OK;

	while (rc == KV_OK) {
		char *copy = malloc(len != 0 ? len : 1);
		size_t done;

		must(copy != NULL);
		memcpy(copy, text, len);
		rc = write_once(a, copy, len, &done);
		free(copy);
		must(rc != KV_OK || (done <= len && (done != 0 || len == 0)));
		must(rc != KV_WOULD_BLOCK && rc != KV_INTERRUPTED);
		if (rc != KV_OK || done == len)
			break;
		text += done;
		len -= done;
	}
	return rc;
}

static void run_append(struct bench *b, const struct cuts *cuts, const char *text, size_t len)
{
	struct fs_append *a[2];
	struct fs_open open[2];
	enum kv_rc rc[2] = {KV_OK, KV_OK};
	char line[2][1100];
	size_t n[2];

	for (int i = 0; i < 2; i++) {
		open_counted(b, &open[i]);
		a[i] = fs_append_open(&b->fs, b->shard[i], &open[i]);
		must(a[i] != NULL);
	}
	rc[0] = write_append(a[0], text, len);
	for (size_t at = 0, i = 0; at < len; i++) {
		size_t some = piece(cuts, i, len - at);

		rc[1] = write_append(a[1], text + at, some);
		must(rc[1] == KV_OK || write_append(a[1], "commit\n", 7) == rc[1]); /* spent */
		at += some;
	}
	must(rc[0] == rc[1]);
	do {
		for (int i = 0; i < 2; i++)
			n[i] = fs_append_read(a[i], line[i], sizeof line[i]);
		must(n[0] == n[1] && memcmp(line[0], line[1], n[0]) == 0);
		must(n[0] == 0 || memchr(line[0], '\n', n[0]) == line[0] + n[0] - 1);
	} while (n[0] != 0);
	fs_append_reset(a[0]);
	must(write_append(a[0], "", 0) == KV_OK); /* not spent any more */
	for (int i = 0; i < 2; i++) {
		fs_append_close(a[i]);
		fs_open_remove(&b->fs, &open[i]);
	}
}

/* Pieces until one is refused; what was taken is text to the refused line. Given. */
static char *write_staged(struct bench *b, int i, const struct cuts *cuts, const char *text, size_t len,
			  enum kv_rc *rc, size_t *shown)
{
	struct fs_node node = {.kind = FS_STAGED};
	struct core_staged entry;
	struct fs_staged *s;
	struct fs_open open;
	struct kv_err err;
	char *buf = malloc(2 * len + 64);
	size_t at = 0;

	must(core_staged_get(b->shard[i], "x", &entry, &err) == KV_OK);
	node.id = entry.id;
	open_counted(b, &open);
	must(buf != NULL && fs_staged_open(&b->fs, b->shard[i], &node, O_RDWR, &open, &s, &err) == KV_OK);
	*rc = KV_OK;
	for (size_t n = 0; at < len && *rc == KV_OK; n++) {
		size_t some = piece(cuts, n, len - at), done = 0;
		char *copy = malloc(some != 0 ? some : 1);

		must(copy != NULL);
		memcpy(copy, text + at, some);
		*rc = fs_staged_write(s, 1, 2, true, 0, copy, some, &done);
		free(copy);
		must(*rc != KV_OK || (done <= some && (done != 0 || some == 0)));
		at += *rc == KV_OK ? done : 0;
	}
	must(fs_staged_sync(s, &err) == KV_OK);
	must(fs_staged_read(s, 0, buf, 2 * len + 64, shown, &err) == KV_OK);
	must(*rc != KV_OK || fs_staged_cut(s, 1u << 30, &err) == KV_BAD_SYNTAX);
	fs_staged_close(s);
	fs_open_remove(&b->fs, &open);
	must(core_staged_get(b->shard[i], "x", &entry, &err) == KV_OK);
	must(entry.size == *shown && !entry.lost);
	return buf;
}

static void run_staged(struct bench *b, const struct cuts *cuts, const char *text, size_t len)
{
	static const struct cuts none = {0};
	static const char commit[] = "begin expected_upper=* new_upper=-\nbatch x\ncommit\n";
	enum kv_rc rc[2];
	char *shown[2];
	size_t n[2];

	for (int i = 0; i < 2; i++)
		shown[i] = write_staged(b, i, i == 0 ? &none : cuts, text, len, &rc[i], &n[i]);
	/* Where a line is refused, a piece that began before it keeps what came before the line; the rest of
	 * it is as of that. So only the whole text taken is the same to the last byte. */
	must((rc[0] == KV_OK) == (rc[1] == KV_OK));
	must(rc[0] != KV_OK || (n[0] == n[1] && memcmp(shown[0], shown[1], n[0]) == 0));
	if (rc[0] == KV_OK)
		run_append(b, &none, commit, strlen(commit));
	free(shown[0]);
	free(shown[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {.p = data, .left = size};
	uint8_t flags = fuzz_u8(&in);
	struct cuts cuts = {.every = size < EVERY_MAX ? flags >> EVERY_SHIFT : 0};
	struct bench *b = bench_new();
	char *text;
	size_t len;
	uint8_t count = fuzz_u8(&in);

	for (uint8_t i = 0; i < count % CUTS_MAX; i++)
		cuts.at[cuts.count++] = fuzz_u8(&in);
	text = fuzz_copy(&in, in.left, &len);
	if ((flags & STAGED) != 0)
		run_staged(b, &cuts, text, len);
	else
		run_append(b, &cuts, text, len);
	same_states(b);
	free(text);
	bench_free(b);
	return 0;
}
