/*
 * soak.h - what the files of the soak share. `make soak` mounts a fresh store and drives it at full speed by
 * plain file I/O for a long time; everything read is compared with a model in memory.
 *
 * The data is made so that the model is small and exact. A **stream** is an endless list of **steps**; step n
 * overwrites one of its blocks of keys: it retracts what step n - blocks wrote there, and inserts anew. What
 * a shard holds as of t follows from which step each stream has come to. The model keeps for each committed
 * step its time, and the sum of all rows until then: of a 128 bit hash of each (key, val), times its diff.
 * Two collections with the same sum are the same, but for 1 in 2^128; where sums differ, both are written out
 * in rows.
 *
 * Threads: any, but for what is said elsewhere. A shard's own threads end before it is freed.
 */
#ifndef TESTS_SOAK_H
#define TESTS_SOAK_H

#include <pthread.h>
#include <stdatomic.h>

#include "tests/fs/program.h"

#define NEVER UINT64_MAX /* the empty frontier: time 2^64-1 is not written here */

/* --- telling (report.c) ---------------------------------------------------------------------------- */

/* X(name, words) */
#define SOAK_COUNTS(X)                                                             \
	X(CAS, "compare-and-appends")                                              \
	X(CAS_LOST, "compare-and-appends refused: another was faster")             \
	X(BLIND, "blind appends")                                                  \
	X(SOLO, "compare-and-appends without a token")                             \
	X(IDEMPOTENT, "idempotent appends by replicas")                            \
	X(IDEMPOTENT_NONE, "of these: nothing new")                                \
	X(STAGED, "staged batches committed")                                      \
	X(STAGED_GONE, "staged batches gone by a restart or rm -rf, staged again") \
	X(LARGE, "transactions above 50,000 rows")                                 \
	X(ROWS, "rows committed")                                                  \
	X(AGAIN, "tokens sent again after success")                                \
	X(REUSED, "tokens used for something else, refused")                       \
	X(UNKNOWN, "outcomes unknown, resolved")                                   \
	X(AS_OF, "as_of read and equal")                                           \
	X(AS_OF_NODATA, "as_of refused: compacted since")                          \
	X(SNAPSHOT, "snapshots read and equal")                                    \
	X(SLOW, "slow snapshots read twice and equal")                             \
	X(SLOW_AFTER, "of these: after the rmdir")                                 \
	X(BATCHES, "listings of batches that tile")                                \
	X(BATCH, "committed batches read and equal")                               \
	X(BATCH_GONE, "committed batches gone since ls")                           \
	X(WAITS, "waits")                                                          \
	X(LISTENS, "listens opened")                                               \
	X(SUBSCRIBES, "subscribes opened")                                         \
	X(LISTEN_NODATA, "listens refused: compacted since")                       \
	X(FOLLOWED, "transactions followed and equal")                             \
	X(FOLLOW_ENDS, "followed to the end of time")                              \
	X(REPLICATORS, "replications started")                                     \
	X(REPLICATOR_KILLS, "replications killed")                                 \
	X(REPLICATED, "shards replicated to the end, and equal")                   \
	X(HOLD_MOVES, "named holds moved")                                         \
	X(HOLD_READS, "reads at a held time")                                      \
	X(HOLD_FENCED, "holds refused to a wrong token")                           \
	X(SINCE, "moves of since, policies set")                                   \
	X(CREATED, "shards created")                                               \
	X(REMOVED, "shards finished and removed")                                  \
	X(RMRF, "rm -rf of live shards")                                           \
	X(CTL, "words to ctl")                                                     \
	X(CTL_NONE, "words to ctl: ENOENT, it is not built yet")                   \
	X(METRICS, "reads of /metrics")                                            \
	X(METRICS_NONE, "reads of /metrics: ENOENT, it is not built yet")          \
	X(LOOKS, "looks at state, errors, readers, writers, statfs")               \
	X(EXCUSED, "calls ended by a restart of the mount")                        \
	X(KILLS, "kill -9 of the mount")                                           \
	X(RESTARTS, "clean restarts")
enum soak_count {
#define X(name, words) N_##name,
	SOAK_COUNTS(X)
#undef X
		N_COUNTS
};
void counted(enum soak_count what, uint64_t n);
uint64_t count_of(enum soak_count what);

/* For the report. */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void report(const char *result);

struct options {
	uint64_t seconds, seed;
	unsigned slots;
	int style; /* of all shards; -1: each in turn */
	int kills; /* of the mount over the whole time, as many clean restarts; -1: one each 5 minutes */
	const char *out;
};
extern struct options options;
extern struct world world;
extern _Atomic bool ending; /* the time is over */
void rest_ms(uint64_t ms);

/* --- rows (data.c) --------------------------------------------------------------------------------- */

struct sums {
	unsigned __int128 sum;
	int64_t count; /* of diffs */
};
struct sums sums_add(struct sums a, struct sums b);
struct sums sums_sub(struct sums a, struct sums b);
bool sums_eq(struct sums a, struct sums b);

struct text {
	char *p;
	size_t len, cap;
};
void text_room(struct text *t, size_t more);
void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_free(struct text *t);

struct stream {
	unsigned id, blocks, rows, val; /* rows of a block, bytes of a val: up to */
};
/* The rows of step n into out (NULL: only sums), with `time` as they say it. *rows is increased. */
struct sums stream_step(const struct stream *s, uint64_t n, const char *time, struct text *out,
			uint64_t *rows);
/* What is left of steps 0..n-1. */
void stream_content(const struct stream *s, uint64_t n, const char *time, struct text *out);

struct rows {
	struct sums sums;
	uint64_t count, first, last; /* least and greatest time */
	bool sorted;
};
/* Whole lines. Fails where one is not a row. */
struct rows rows_read(const char *what, const char *p, size_t len);

/* --- the model (model.c) --------------------------------------------------------------------------- */

enum { STREAMS = 24, STEPS_MAX = 4 };

struct step {
	uint64_t time;
	unsigned stream;
	uint64_t n; /* its number in the stream */
	struct sums delta;
};

struct model;
struct shard;
struct model *model_new(void);
void model_keep(struct model *m);
void model_drop(struct model *m);
/* Known before any step of it is added. */
void model_stream(struct model *m, struct stream s);
/* Somebody was told that [lower, upper) is committed, with these steps. In any order. */
void model_add(struct model *m, uint64_t lower, uint64_t upper, const struct step *steps, size_t count);
/* For replicas: time t is step t of stream 0. All below upper is committed. */
void model_fill(struct model *m, uint64_t upper);
uint64_t model_upper(struct model *m);
/* Until all below upper is known; fails after some minutes. */
void model_wait(struct model *m, uint64_t upper);
struct sums model_at(struct model *m, uint64_t t);
struct sums model_below(struct model *m, uint64_t upper); /* all at times < upper */
uint64_t model_last(struct model *m);                     /* the time of the last step */
/* Words on how two sums differ: it looks for one step that is missing or there twice. */
void model_explain(struct model *m, struct sums found, struct sums wanted, struct text *out);
/* Unless found is what was committed at times in [lower, upper), the end. */
void check_between(const struct shard *s, const char *what, uint64_t lower, uint64_t upper,
		   struct sums found);
/* The rows as of t, unsorted. */
void model_content(struct model *m, uint64_t t, struct text *out);

/* --- the mount (mount.c) --------------------------------------------------------------------------- */

/* Waits until the mount is up; its number. */
unsigned mount_up(void);
/* Whether that mount is still the one, and up. */
bool mount_is(unsigned mount);
/* Whether errno e came because the mount of that number has ended. Counts it. */
bool excused(unsigned mount, int e);
void mount_restart(bool killed);
void *sampler_main(void *arg);
void sampler_summary(bool *good);
/* The end: fsck, what is left, and the same content written once to a fresh store. ending.c */
void settle_and_look(void);
void judge_store(bool *good);
/* Open descriptors of the mount, without those of RocksDB's files, and listed in text if that is not NULL. */
unsigned mount_fds(struct text *list);
uint64_t disk_used(const char *dir);

/* --- shards (life.c) ------------------------------------------------------------------------------- */

enum style {
	MIXED,    /* blind appends, compare-and-appends and staged batches by several; since follows */
	REPLICAS, /* idempotent appends of the same by several; named holds */
	LARGE,    /* some 100,000 rows at once; since lags and jumps */
	SOURCE,   /* as MIXED, and copied to another shard by `cat` */
	SOLO,     /* one writer without tokens; rm -rf */
	STYLES,
	LASTING = STYLES /* one there is from the beginning to the end, with some 50 MB: for the disk */
};

struct shard {
	char *dir, *id;
	enum style style;
	struct model *m;
	struct shard *copy; /* of a SOURCE */
	uint64_t salt;
	_Atomic bool stop;           /* writers end, then readers */
	_Atomic bool done;           /* readers end */
	_Atomic bool finished;       /* its upper is, or is about to be, at the end of time */
	_Atomic bool removed;        /* slow readers end */
	_Atomic unsigned held;       /* holds that were made at 0 */
	_Atomic unsigned unresolved; /* writers that do not know an outcome: others wait, tokens are 1,024 */
};

/* A thread of a shard. */
struct worker {
	struct shard *s;
	struct rng r;
	unsigned index;
};
void *slot_main(void *arg); /* makes and ends shards, one after the other */
/* Those left at the end; and the ids of those that were removed, one a line. */
struct shard **live_shards(size_t *count);
const struct text *removed_ids(void);

void *writer_main(void *arg);  /* write.c */
void *replica_main(void *arg); /* replica.c */
void *reader_main(void *arg);  /* read.c */
void *slow_main(void *arg);
void *listener_main(void *arg); /* follow.c */
void *copier_main(void *arg);   /* copy.c */
void *holder_main(void *arg);   /* holds.c */
void *since_main(void *arg);
void *rmrf_main(void *arg);
void upkeep_of(const struct shard *s, const char *word);
void look_around(const struct shard *s, struct rng *r);

/* Write one line to a file of the shard, through restarts; errno. */
int say(const struct shard *s, const char *name, const char *line);
/* A frontier in a file of the shard; 0 or errno. */
int read_frontier(const struct shard *s, const char *name, uint64_t *out);
const char *frontier_text(uint64_t f);
/* The content of as_of/t is `text`, else the end. */
void check_content(const struct shard *s, const char *what, uint64_t t, const char *text, size_t len);
/* Until EOF; 0 or errno. `chunk` bytes at once at most. */
int read_all(int fd, struct text *t, size_t chunk);

/* --- writing (write.c) ----------------------------------------------------------------------------- */

/* One who appends, with a descriptor that is kept. */
struct pen {
	struct shard *s;
	struct rng *r;
	int fd;
	unsigned mount;
	bool pinned; /* only to this mount */
	unsigned pinned_to;
	struct text tx;
};
struct verdict {
	uint64_t lower, upper, updates;
	char line[TEXT_MAX];
};
void pen_close(struct pen *p);
/* Send p->tx once. 0 and the verdict, or errno; *excuse: the mount was restarted meanwhile. */
int pen_send(struct pen *p, struct verdict *v, bool *excuse);
/* Send it until an outcome is known. */
int pen_commit(struct pen *p, struct verdict *v);

/* What a writer is about to commit. */
struct plan {
	struct step steps[STEPS_MAX];
	size_t count;
	uint64_t rows, lower, upper;
	char token[48];
};
/* Stage text as a batch of that name; false: it has to be done again. */
bool stage(const struct shard *s, const char *name, const struct text *text, bool sync);

#endif
