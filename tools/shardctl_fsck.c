/*
 * shardctl_fsck.c - fsck: what core/check.h finds and core/repair.h mends, in words or JSON.
 *
 * What a repair gives up is noted in STORE/REPAIRS, one line of JSON each, on stable storage before it is
 * done: so that whoever wonders later why rows are missing finds an answer beside the store.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/check.h"
#include "core/repair.h"
#include "tools/shardctl.h"

struct fsck {
	struct ctl *ctl;
	struct ctl_bar bar;
	bool quiet; /* findings of the look behind a repair that were told before are told again: what is left
		     */
	int status;
	bool finished; /* the check got to the end */
};

/* --- findings -------------------------------------------------------------------------------------- */

static void found_json(const struct core_finding *f)
{
	json_t *json =
		json_pack("{s:s,s:o,s:o,s:o,s:o}", "finding", f->kind == CORE_DAMAGE ? "damage" : "note",
			  "shard", f->shard[0] != '\0' ? ctl_text(f->shard) : json_null(), "file",
			  f->file[0] != '\0' ? ctl_text(f->file) : json_null(), "message", ctl_text(f->what),
			  "remedy", ctl_text(f->remedy));

	if (json != NULL && f->has_offset)
		json_object_set_new(json, "offset", ctl_number(f->offset));
	(void)ctl_print_json(json, JSON_COMPACT); /* a failure stays with stdout, and is said at the end */
}

static void found(void *arg, const struct core_finding *f)
{
	struct fsck *x = arg;

	if (f->kind == CORE_DAMAGE)
		x->status = CTL_WRONG;
	ctl_bar_clear(&x->bar);
	if (x->ctl->json) {
		found_json(f);
		return;
	}
	if (f->kind == CORE_NOTE && !x->ctl->verbose)
		return;
	fprintf(f->kind == CORE_DAMAGE ? stderr : stdout, "%s%s",
		f->kind == CORE_DAMAGE ? "shardctl: " : "note: ", f->what);
	if (f->file[0] != '\0')
		fprintf(f->kind == CORE_DAMAGE ? stderr : stdout, " [%s%s", f->file,
			f->has_offset ? "" : "]");
	if (f->file[0] != '\0' && f->has_offset)
		fprintf(f->kind == CORE_DAMAGE ? stderr : stdout, ", byte %" PRIu64 "]", f->offset);
	fprintf(f->kind == CORE_DAMAGE ? stderr : stdout, "; %s\n", f->remedy);
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
	struct fsck *x = arg;

	ctl_bar_draw(&x->bar, done, total);
}

/* --- repairs --------------------------------------------------------------------------------------- */

static json_t *mending_json(const struct core_mending *m)
{
	return json_pack("{s:s,s:o,s:b}", "repair", m->what, "shard",
			 m->shard[0] != '\0' ? ctl_text(m->shard) : json_null(), "loses", m->loses);
}

/* One line more in STORE/REPAIRS. */
static enum kv_rc note(const struct ctl *c, const struct core_mending *m, struct kv_err *err)
{
	json_t *json = mending_json(m);
	char *text = NULL, *line = NULL, *path = NULL;
	enum kv_rc rc = KV_OK;
	int fd = -1, len = -1;

	if (json != NULL) {
		json_object_set_new(json, "time_s", json_integer((json_int_t)time(NULL)));
		text = json_dumps(json, JSON_COMPACT);
	}
	if (text != NULL && asprintf(&path, "%s/REPAIRS", c->dir) >= 0)
		len = asprintf(&line, "%s\n", text);
	if (len >= 0)
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, line, (size_t)len) != len || fsync(fd) != 0)
		rc = kv_fail(err, KV_IO, "%s/REPAIRS cannot be written, so nothing is dropped: %s", c->dir,
			     strerrordesc_np(errno));
	if (fd >= 0)
		close(fd);
	json_decref(json);
	free(text);
	free(len >= 0 ? line : NULL);
	free(path);
	return rc;
}

static enum kv_rc mending(void *arg, const struct core_mending *m, struct kv_err *err)
{
	struct fsck *x = arg;
	enum kv_rc rc = m->loses ? note(x->ctl, m, err) : KV_OK;

	if (rc != KV_OK)
		return rc;
	ctl_bar_clear(&x->bar);
	if (x->ctl->json)
		(void)ctl_print_json(mending_json(m), JSON_COMPACT); /* as above */
	else
		printf("%s: %s%s%s\n", m->loses ? "LOST" : "repaired", m->shard,
		       m->shard[0] != '\0' ? ": " : "", m->what);
	return KV_OK;
}

/* --- all of it ------------------------------------------------------------------------------------- */

static void summary(const struct ctl *c, const struct core_checked *sum)
{
	const char *verdict = sum->damages == 0 ? "clean" : "damaged";

	if (c->json) {
		(void)ctl_print_json(
			json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "verdict", verdict,
				  "shards", ctl_number(sum->shards), "versions", ctl_number(sum->versions),
				  "parts", ctl_number(sum->parts), "updates", ctl_number(sum->updates),
				  "staged", ctl_number(sum->staged), "names", ctl_number(sum->names), "bytes",
				  ctl_number(sum->bytes), "damages", ctl_number(sum->damages), "notes",
				  ctl_number(sum->notes), "orphans", ctl_number(sum->orphans), "orphan_bytes",
				  ctl_number(sum->orphan_bytes)),
			JSON_COMPACT);
		return;
	}
	printf("%s: %" PRIu64 " shards, %" PRIu64 " parts, %" PRIu64 " updates, %" PRIu64
	       " staged batches, %" PRIu64 " bytes read",
	       verdict, sum->shards, sum->parts, sum->updates, sum->staged, sum->bytes);
	if (sum->damages != 0)
		printf("; %" PRIu64 " damages", sum->damages);
	if (sum->notes != 0)
		printf("; %" PRIu64 " notes%s", sum->notes, c->verbose ? "" : " (-v)");
	putchar('\n');
}

static int check(struct fsck *x, struct core_checked *sum)
{
	struct core_check how = {.found = found, .progress = x->bar.shown ? progress : NULL, .arg = x};
	struct kv_err err;

	x->status = CTL_OK;
	x->finished = core_check_store(x->ctl->engine, &how, sum, &err) == KV_OK;
	if (!x->finished) {
		ctl_bar_clear(&x->bar);
		return ctl_fail(&err);
	}
	ctl_bar_clear(&x->bar);
	return x->status;
}

/* That the store cannot be opened is a finding too. */
static int open_store(struct ctl *c)
{
	int status = ctl_open(c, c->repair, false, c->repair ? "shardctl fsck --repair" : "shardctl fsck");

	if (c->json && status == CTL_WRONG)
		(void)ctl_print_json(json_pack("{s:s,s:o,s:o}", "verdict", "damaged", "shards", ctl_number(0),
					       "damages", ctl_number(1)),
				     JSON_COMPACT);
	return status;
}

int ctl_fsck(struct ctl *c)
{
	struct fsck x = {.ctl = c, .bar = ctl_bar_new("checking")};
	const struct core_repair how = {.drop_damaged = c->drop_damaged, .mending = mending, .arg = &x};
	struct core_checked sum;
	struct kv_err err;
	int status = open_store(c), printed;

	if (status != CTL_OK)
		return status;
	status = check(&x, &sum);
	if (!x.finished)
		return status;
	if (c->repair && (status == CTL_WRONG || sum.notes != 0)) {
		if (core_repair_store(c->engine, &how, &err) != KV_OK)
			return ctl_fail(&err);
		x.bar.what = "checking again";
		status = check(&x, &sum);
		if (!x.finished)
			return status;
	}
	summary(c, &sum);
	printed = ctl_printed();
	return status != CTL_OK ? status : printed;
}
