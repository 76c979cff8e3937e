/*
 * batches.h - for the tests of staged batches and of batches built ahead: making
 * them in words, reading them back, and the blobs that should be there.
 *
 * Threads: the main thread of a test, but for staged_text().
 */
#ifndef TESTS_CORE_BATCHES_H
#define TESTS_CORE_BATCHES_H

#include "core/staged.h"
#include "core/write.h"
#include "tests/core/world.h"

/* Rows are "time diff key val;..." as in world.h. */

struct core_writer *writer_on(struct core_shard *s);
struct core_built *build(struct core_writer *w, const char *lower, const char *upper, const char *rows);
/* The commit of count batches with options as in world.h: its verdict. */
const char *commit_built(struct core_writer *w, const char *options, struct core_built *const *batches,
			 size_t count);
const char *commit_one(struct core_writer *w, const char *options, struct core_built *batch);

/* Make a staged batch and open it; or open it by name. */
struct core_stage *stage_new(struct core_shard *s, const char *name);
struct core_stage *stage_at(struct core_shard *s, const char *name);
enum kv_rc stage_rows(struct core_stage *g, const char *rows, struct kv_err *err);
void stage_put(struct core_stage *g, const char *rows); /* that has to succeed */
/* Made, written, synced and closed. bounds: "0 5", or NULL. */
void stage_whole(struct core_shard *s, const char *name, const char *bounds, const char *rows);

/* An append with staged batches, "a b c", and rows. */
enum kv_rc append_staged(struct core_shard *s, const char *options, const char *names, const char *rows,
			 struct core_appended *r, struct kv_err *err);
const char *verdict_staged(struct core_shard *s, const char *options, const char *names, const char *rows);

struct core_staged staged_entry(struct core_shard *s, const char *name);
bool staged_there(struct core_shard *s, const char *name);
size_t staged_count(struct core_shard *s);

/* The text of an open view with spaces for tabs and ';' for newlines, part by part; it has the size that the
 * entry says. Given. */
char *view_text(struct core_shard *s, struct core_staged_view *view);
/* The same of a batch by name, or the name of the code. */
char *staged_text(struct core_shard *s, const char *name);
void check_staged(struct core_shard *s, const char *name, const char *want);

/* Every blob that the shard's state and its staged batches name is there; with exact, no other one is. */
void check_blobs(struct disk *d, struct core_shard *s, bool exact);

/* Another engine on the same disk, and its handle on the same shard. */
struct second {
	struct core_engine *engine;
	struct core_shard *shard;
};
struct second second_open(struct rig *r);
void second_close(struct second *o);

#endif
