/*
 * crash.h - what the files of the crash test share. `make check-crash` kills a mount, at random moments and
 * at each of its system calls, and compares what the next start finds with what was acknowledged.
 *
 * What is acknowledged is kept in this process, which lives through all of it. Of each transaction the
 * **fate** is known: it is THERE, ABSENT (refused, or never sent) or UNKNOWN, because the mount died under
 * the write. Transaction n of a shard puts rows whose key is k<n> and whose vals follow from n, and may undo
 * an earlier one by retracting its rows. It moves the upper by 1. So a snapshot tells of each transaction
 * whether it is there, whole, once; and the upper is the number of those that are. All else that is durable
 * is a
 * **promise**: a short text (a hold's line, where a name leads) that one client changes.
 *
 * Threads: in the random part each client is one; those of a slot share its shard. A look at everything is
 * taken while the mount is down for all of them (gate.c).
 */
#ifndef TESTS_CRASH_H
#define TESTS_CRASH_H

#include <pthread.h>
#include <stdatomic.h>

#include "tests/fs/program.h"

#define NEVER UINT64_MAX

/* --- telling (report.c) ---------------------------------------------------------------------------- */

struct options {
	uint64_t seed;
	unsigned kills; /* at random and at failpoints together, at least */
	bool quick;     /* a sample */
	bool no_points; /* random kills alone */
	bool no_random;
	const char *out;
	const char *shim; /* NULL: there is none; then failpoints are not tried */
};
extern struct options options;
extern struct world world;

/* X(name, words) */
#define CRASH_COUNTS(X)                                          \
	X(ACKED, "transactions acknowledged")                    \
	X(REFUSED, "transactions refused")                       \
	X(UNKNOWN, "outcomes unknown")                           \
	X(FOUND, "of these found there, whole")                  \
	X(AGAIN, "sent again under their token, acknowledged")   \
	X(STAGED, "commits of staged batches acknowledged")      \
	X(RESTAGED, "staged batches that were gone, made again") \
	X(HEARD, "transactions heard by listeners")              \
	X(WAITED, "waits for the upper that ended")              \
	X(PROMISES, "holds, names, modes and since moved")       \
	X(UNSURE, "of these with unknown outcome")               \
	X(CTL, "compact, gc and rollup done")                    \
	X(CREATED, "shards made")                                \
	X(REMOVED, "shards finished and removed")                \
	X(KILLS_RANDOM, "kills under load")                      \
	X(KILLS_START, "kills of a start")                       \
	X(KILLS_STOP, "kills of a clean stop")                   \
	X(KILLS_LOADED, "kills at a failpoint under load")       \
	X(KILLS_POINT, "kills at a failpoint")                   \
	X(POINT_RUNS, "runs to a failpoint that was not met")    \
	X(LOOKS, "looks at all that was acknowledged")           \
	X(FSCK, "fsck, clean")
enum crash_count {
#define X(name, words) N_##name,
	CRASH_COUNTS(X)
#undef X
		N_COUNTS
};
void counted(enum crash_count what, uint64_t n);
uint64_t count_of(enum crash_count what);
/* A restart took so long. */
void restart_took(uint64_t us);
/* For the report: kills of `what` at, or while, `where`. */
void killed_at(const char *what, const char *where);
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void report(const char *result);
uint64_t now_us(void);
void rest_us(uint64_t us);

/* --- the model (model.c) --------------------------------------------------------------------------- */

enum { TXS_MAX = 6000, PROMISE_LEN = 96, NONE = UINT32_MAX };

enum fate { UNSENT, UNKNOWN, THERE, ABSENT };

struct tx {
	unsigned rows, bytes; /* of each val */
	unsigned undoes;      /* NONE, or the one whose rows it retracts */
	unsigned undone_by;   /* NONE, or the last that tried */
	unsigned seen;        /* rows, for the one who looks */
	unsigned heard;       /* rows, by the listener */
	enum fate fate;
	bool again;    /* will be sent again: that it is not there yet says nothing */
	uint64_t time; /* NEVER: not known */
};

struct promise {
	char acked[PROMISE_LEN]; /* "": not there */
	char tried[PROMISE_LEN]; /* it may be this if it is unsure */
	bool unsure;
};
enum { P_SHARD, P_NAME, P_KEEP, P_PLAIN, P_EARS, P_MODE, PROMISES };

enum { PIECES = 3, PIECE_NAME = 32 };

/* A staged batch that a commit is to name. */
struct piece {
	char name[2][PIECE_NAME];
	unsigned which;    /* its name */
	bool renaming;     /* it may have the other */
	bool made, synced; /* synced: acknowledged */
	unsigned from, to; /* rows of the transaction */
};

struct shard {
	pthread_mutex_t lock;
	char id[40];
	char *dir;
	uint64_t salt;
	struct tx txs[TXS_MAX];
	unsigned count;
	struct promise promises[PROMISES];
	unsigned setup; /* steps of its life done; 5: it is ready */
	bool ready;     /* for others than the one who makes it */
	enum fate finished;
	uint64_t upper_seen, since_seen; /* somebody was told that */
	uint64_t heard_to;               /* all below was heard */
	/* what is staged for transaction staged_for (NONE) */
	struct piece pieces[PIECES];
	unsigned staged_for;
};

struct shard *shard_plan(struct rng *r);
void shard_free(struct shard *s);

/* A new transaction; its number. NONE: there are too many. */
unsigned tx_plan(struct shard *s, unsigned rows, unsigned bytes, unsigned undoes);
/* What the one who sent it was told, or saw. */
void tx_told(struct shard *s, unsigned n, enum fate fate, uint64_t time);
enum fate tx_fate(struct shard *s, unsigned n);

/* Rows [from, to) of transaction n as text, or those it retracts. */
void rows_put(FILE *f, const struct shard *s, unsigned n, unsigned from, unsigned to, const char *time,
	      int diff);

struct row {
	uint64_t time;
	long diff;
	unsigned n, i;
};
/* The next row of *p, whose bytes must be what was written; false: *p stands at something else. */
bool row_next(const struct shard *s, const char **p, struct row *out);

/* Compare all of a shard with the mount, which nobody else uses; outcomes that were unknown become known. */
void shard_look(struct shard *s);
/* It is finished, and the listener has come to its end. */
void shard_look_finished(struct shard *s);
/* Somebody read a snapshot: what is in it was promised by that. */
void snapshot_seen(struct shard *s, const char *text);
/* A listener read the rows of a step. */
void step_heard(struct shard *s, uint64_t lower, uint64_t upper, const char *rows);
void upper_told(struct shard *s, uint64_t upper);

/* --- what clients do (ops.c) ----------------------------------------------------------------------- */

struct slot;
struct client {
	struct slot *slot;
	struct rng r;
	unsigned kind, index;
	unsigned mount; /* that it works on */
	bool broken;    /* the mount died under it */
	/* kept over a crash */
	struct shard *of; /* what the rest is about */
	unsigned pending; /* sent again until its fate is known; NONE */
	char *text;       /* of pending */
	size_t text_len;
	unsigned own[8], own_count; /* to be undone */
	int fd;                     /* of the listener, -1; on that mount */
	unsigned fd_mount;
	struct text_in {
		char *p;
		size_t len;
	} in;
};

/* Whether errno e came because the mount has died; then the outcome is unknown, and the client's turn is
 * over. */
bool excused(struct client *c, int e);

/* The mount may die of itself (points.c). */
extern _Atomic bool death_expected;

/* What is under way just now, for the report of random kills. */
enum doing {
	D_APPEND,
	D_TOKEN,
	D_LARGE,
	D_STAGE,
	D_COMMIT,
	D_COMPACT,
	D_GC,
	D_ROLLUP,
	D_HOLD,
	D_NAME,
	D_MKDIR,
	D_RMDIR,
	DOINGS
};
extern _Atomic int doing[DOINGS];
extern const char *const doing_words[DOINGS];

struct send {
	unsigned n;
	const char *lower; /* "*", or the upper that is expected */
	const char *token; /* NULL */
	bool pieces;       /* with the staged batches of the shard */
};
/* The transaction as text; given. */
char *tx_text(struct shard *s, const struct send *how, size_t *len);
/* Send it; 0 or errno. Notes the fate, unless outcome and excuse are unknown. */
int tx_send(struct client *c, struct shard *s, unsigned n, const char *text, size_t len);

/* Change a promise by writing text to a file; 0 or errno. */
int promise_write(struct client *c, struct shard *s, int which, const char *file, const char *text,
		  const char *then);
void promise_try(struct promise *p, const char *then);
void promise_end(struct client *c, struct promise *p, int e);
/* It must be what was acknowledged, or tried; then that is acknowledged. False: the mount died meanwhile. */
bool promise_settle(struct client *c, struct shard *s, int which);

int op_make(struct client *c, struct shard *s);
int op_remove(struct client *c, struct shard *s);
int op_finish(struct client *c, struct shard *s);
/* Make all holds empty. */
int op_let_go(struct client *c, struct shard *s);
int op_keep(struct client *c, struct shard *s, uint64_t since);
int op_name(struct client *c, struct shard *s);
int op_ctl(struct client *c, struct shard *s, const char *word);
/* Plan a transaction of staged pieces; again: its commit will be sent again. False: there are too many. */
bool pieces_plan(struct shard *s, unsigned rows, unsigned bytes, unsigned undoes, bool again);
/* Stage what is not there; 0 or errno. */
int op_stage(struct client *c, struct shard *s);
/* The same, after a crash: what was not synced is made anew. */
int op_restage(struct client *c, struct shard *s);
/* fsync those that are not synced. */
int op_sync(struct shard *s);
/* The pieces, looked at: those synced are there, unless their transaction is. */
void pieces_look(struct shard *s, bool committed);
int frontier_of(const struct shard *s, const char *file, uint64_t *out);
int steps_of_setup(struct client *c, struct shard *s);
/* Read what the listener has; 0, EAGAIN, or errno. *end: the shard is finished. */
int op_listen(struct client *c, struct shard *s, bool *end);
void listen_close(struct client *c);

/* --- the parts ------------------------------------------------------------------------------------- */

/* Start the mount with env before its name; the exit status, and what it said, given. world.pid 0: it is
 * dead. */
int mount_start(const char *env, char **said);
/* It must start; the time is noted. */
void mount_restart(void);
/* Wait for its end, which must come; the wait status. */
int mount_reap(void);
/* With TERM; it must end with 0. */
void mount_stop(void);
void fsck_now(void);
/* `gc` of the shards that are there, a clean stop; then nothing lies in the store that none of them names. */
void end_clean(struct shard *const *live, size_t count);
/* Whether blobs of a shard that is not one of them lie in files. */
bool files_of_others(struct shard *const *live, size_t count);
/* The store is not owned. What lies in it that nobody names, in words, given; NULL: nothing. (leftover.c) */
char *leftover(struct shard *const *live, size_t count);

void run_random(unsigned kills, uint64_t seed);
void run_points(void);

/* --- the gate (gate.c) ----------------------------------------------------------------------------- */

struct slot {
	struct shard *shard; /* NULL: between two */
	unsigned users;
	bool alone;      /* one has it alone */
	unsigned rounds; /* kills that its shard has seen */
};
/* A turn begins: the mount is up, and the slot has a shard that is ready (any: or not). False: all ends. */
bool turn_begin(struct client *c, bool any, bool alone);
void turn_end(struct client *c, bool alone);
extern _Atomic unsigned mount_number; /* another one from the moment it is killed */
void gate_begin(void);
void gate_shut(void);
void gate_open(void);
void gate_end(void);
/* Until no turn is under way. */
void gate_wait(void);

void *client_main(void *client);
enum { CLIENT_KINDS = 13 };
/* One thing done about staged batches: made, committed, or what a crash left of that. */
void staged_turn(struct client *c);
char *new_token(char token[40]);

#endif
