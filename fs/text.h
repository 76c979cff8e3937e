/*
 * text.h - the generated texts: README, upper, since, state.
 *
 * Pure functions of what the engine says; any thread. What is given is freed by
 * the caller.
 */
#ifndef FS_TEXT_H
#define FS_TEXT_H

#include "core/shard.h"
#include "core/upkeep.h"

/* The screen of /README. */
const char *fs_text_readme(void);

/* A frontier and a newline to buf; returns its length. */
enum { FS_FRONTIER_LINE = CORE_FRONTIER_LEN + 1 };
size_t fs_text_frontier(struct core_frontier f, char buf[FS_FRONTIER_LINE]);

/* What is known of a shard: its state, who reads it, and the merges that run or are due. */
struct fs_shard_view {
	struct core_shard_id id;
	struct core_state state;
	struct core_reading *readers;
	size_t reader_count;
	struct core_merging *merges;
	size_t merge_count;
	uint64_t state_bytes; /* of a rollup of that state */
};

/* That as JSON, with a newline; NULL: out of memory. */
char *fs_text_state(const struct fs_shard_view *v);

/* What is known of a writer, a line for each; NULL: out of memory. */
char *fs_text_writer(const struct core_writer_state *w);

/* The line of a hold, `<since> TAB <token>`, and a newline to buf; returns its length. */
enum { FS_HOLD_LINE = CORE_FRONTIER_LEN + 24 };
size_t fs_text_hold(const struct core_hold *hold, char buf[FS_HOLD_LINE]);

/* What is known of one who reads, a line for each; NULL: out of memory. */
char *fs_text_reader(const struct core_reading *r);

/* The name of a committed batch as a file, `<lower>-<upper>`, to buf; back. */
enum { FS_BATCH_FILE_LEN = 2 * CORE_FRONTIER_LEN };
char *fs_text_batch(struct core_frontier lower, struct core_frontier upper, char buf[FS_BATCH_FILE_LEN]);
bool fs_parse_batch_file(const char *name, struct core_frontier *lower, struct core_frontier *upper);

#endif
