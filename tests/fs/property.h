/*
 * property.h - what the files of the property test of the mount share: a round, which is one mount with two
 * shards, those who write to them, and the models they are compared with.
 */
#ifndef TESTS_FS_PROPERTY_H
#define TESTS_FS_PROPERTY_H

#include "tests/fs/world.h"
#include "tests/shadow.h"

enum { PM_SHARDS = 2, PM_WRITERS = 5, PM_STAGES = 3, PM_TRACE = 20, PM_VERDICTS = 64, PM_LINES = 40 };

enum pm_kind { PM_BEGIN, PM_ROW, PM_BATCH, PM_COMMIT, PM_JUNK };

/* A line that was or is to be written to `append`. */
struct pm_line {
	enum pm_kind kind;
	size_t end; /* behind its newline, in the text of the writer */
	struct sh_ask ask;
	struct sh_row row;
	char name[130];
};

/* A descriptor of `append`. */
struct pm_writer {
	int fd;
	int shard;
	int spent;  /* the errno it has for ever */
	char *text; /* all of it not yet done; owned */
	size_t at;  /* what was written of it */
	struct pm_line lines[PM_LINES];
	size_t line_count, line_at;
	/* The transaction that is open. */
	struct sh_ask ask;
	struct sh_rows rows;
	char names[4][130];
	size_t name_count;
	char *verdicts[PM_VERDICTS]; /* not yet read */
	size_t verdict_count;
};

/* A descriptor of a staged batch that is open for writing. */
struct pm_stage {
	int fd;
	int shard;
	unsigned staged; /* 0: it was removed or committed */
	bool sealed;
	uint64_t at; /* written by it; for pwrite */
	bool begun;  /* a line was taken: bounds are no more */
};

struct pm {
	uint64_t seed;
	bool known;
	bool killed; /* nobody serves the mount */
	struct rng r;
	struct world w;
	char *shards[PM_SHARDS];
	struct shadow m[PM_SHARDS];
	struct pm_writer writers[PM_WRITERS];
	struct pm_stage stages[PM_STAGES];
	unsigned step;
	char trace[PM_TRACE][700];
	unsigned traced;
};

void pm_tell(struct pm *o, const char *fmt, ...) KV_PRINTF(2, 3);
void pm_more(struct pm *o, const char *fmt, ...) KV_PRINTF(2, 3);
void pm_differs(struct pm *o, const char *what, const char *got, const char *want);
void pm_same(struct pm *o, const char *what, const char *got, const char *want);
void pm_errno(struct pm *o, const char *what, long got,
	      int want); /* -errno or not negative; want 0: worked */

uint64_t pm_below(struct pm *o, uint64_t n);
bool pm_one_in(struct pm *o, uint64_t n);
struct core_frontier pm_around(struct pm *o, struct core_frontier f);
struct sh_row pm_row(struct pm *o, uint64_t base, bool star);
/* Behind text, of which there is len; returns the new length. */
size_t pm_print_row(const struct sh_row *row, char *text, size_t len);
/* One write(2) of some sort, or one in a child; the count or -errno. */
ssize_t pm_write(struct pm *o, int fd, bool seek, uint64_t at, const char *text, size_t len);
const char *pm_batch(const struct pm *o, int shard, const char *name);

/* property_append.c */
void pm_step_append(struct pm *o);
void pm_close_writers(struct pm *o);
void pm_open_writers(struct pm *o);

/* property_staged.c */
void pm_step_staged(struct pm *o);
void pm_close_stages(struct pm *o);
void pm_compare_staged(struct pm *o, int shard);
void pm_crashed(struct pm *o);
void pm_sealed(struct pm *o, int shard, unsigned id);   /* a commit named it */
void pm_consumed(struct pm *o, int shard, unsigned id); /* and it is gone */

#endif
