/*
 * property.h - what the files of the property test of the engine share: a round, which is one shard, those
 * who use it, and the model it is compared with.
 */
#ifndef TESTS_CORE_PROPERTY_H
#define TESTS_CORE_PROPERTY_H

#include "core/staged.h"
#include "core/write.h"
#include "tests/core/world.h"
#include "tests/shadow.h"

enum {
	PR_HANDLES = 3,
	PR_WRITERS = 4,
	PR_BUILT = 8,
	PR_STAGES = 3,
	PR_SENT = 4,
	PR_REGISTERED = 400,
	PR_TRACE = 20
};

struct pr_writer {
	struct core_writer *w;
	int handle;
	char purpose[20];
	struct core_frontier met; /* at least this */
};

/* A writer as the state should have it. */
struct pr_registered {
	struct core_uuid id;
	const char *purpose; /* NULL: one of the engines' own */
	struct core_frontier last;
};

struct pr_built {
	struct core_built *b;
	struct sh_batch m;
	bool foreign; /* of another shard */
	bool received;
	unsigned staged; /* received: which entry of the model */
	struct core_uuid entry_id;
};

struct pr_stage {
	struct core_stage *g;
	int handle;
	unsigned staged; /* 0: removed; what is written is for nobody */
	bool sealed;     /* a commit named it */
};

struct pr_sent {
	struct core_buf bytes;
	unsigned staged;
	bool foreign;
};

struct round {
	uint64_t seed;
	bool reopen, known; /* known: the seed is in the file already */
	bool crashed;       /* nothing reaches the disk */
	struct rng r;
	struct rig rig;
	struct core_engine *engines[2];
	struct core_shard *handles[PR_HANDLES];
	struct core_shard *other; /* another shard, or NULL */
	struct pr_writer writers[PR_WRITERS];
	struct pr_built built[PR_BUILT];
	struct pr_stage stages[PR_STAGES];
	struct pr_sent sent[PR_SENT];
	struct pr_registered registered[PR_REGISTERED];
	size_t registered_count;
	struct shadow m;
	unsigned step;
	char trace[PR_TRACE][700];
	unsigned traced;
	char purposes[64][20];
	unsigned purpose_count;
};

/* --- telling --------------------------------------------------------------------------------------- */

/* Begin the next line of the trace; go on with it. */
void tell(struct round *o, const char *fmt, ...) KV_PRINTF(2, 3);
void tell_more(struct round *o, const char *fmt, ...) KV_PRINTF(2, 3);
/* The end: seed, step, trace; the seed goes to the file. */
void differs(struct round *o, const char *what, const char *got, const char *want);
void compare(struct round *o, const char *what, const char *got, const char *want);
/* rc must be want; it becomes part of the trace. */
void want_rc(struct round *o, const char *what, enum kv_rc rc, const struct kv_err *err, enum kv_rc want);
void works(struct round *o, const char *what, enum kv_rc rc, const struct kv_err *err);

/* --- chance ---------------------------------------------------------------------------------------- */

bool one_in(struct round *o, uint64_t n);
uint64_t below(struct round *o, uint64_t n);
struct core_frontier around(struct round *o, struct core_frontier f);
/* A row about the times from base on; stars only with `star`. */
struct sh_row random_row(struct round *o, uint64_t base, bool star);
struct core_update update_of(const struct sh_row *row);

/* --- the parts of a round -------------------------------------------------------------------------- */

int any_handle(struct round *o);
/* See what others did. */
void freshen(struct round *o, int handle);

/* test_property_write.c */
void step_append(struct round *o);
void step_writer(struct round *o);
void open_writers(struct round *o);
void close_writers(struct round *o, bool crashed);
void compare_writers(struct round *o);
struct sh_ask pr_random_ask(struct round *o);
/* Such that the batch fits, more often than by chance. */
void pr_fit(struct round *o, struct sh_ask *a, const struct sh_batch *b);
struct core_append pr_append_of(const struct sh_ask *a);
void pr_answer_of(enum kv_rc rc, const struct core_appended *r, const struct kv_err *err,
		  struct sh_answer *a);
void pr_compare_answers(struct round *o, const char *what, struct sh_answer *got,
			const struct sh_answer *want);
struct sh_rows pr_random_rows(struct round *o, uint64_t base, bool star, unsigned most);
void pr_tell_rows(struct round *o, const struct sh_rows *rows);
/* Now and then the store fails once, or does not say what it did: which the engine finds out. */
void pr_arm(struct round *o);
/* Whether it failed by that: then nothing was done. */
bool pr_failed(struct round *o, enum kv_rc rc);
/* What came of an append for its writer. */
void pr_note_writer(struct round *o, int writer, int handle, const struct sh_answer *a, bool consumed);
void pr_check_met(struct round *o, struct pr_writer *w, bool now);

/* test_property_upkeep.c */
void step_upkeep(struct round *o);

/* test_property_built.c */
void step_built(struct round *o);
/* Free what was built and received. */
void drop_built(struct round *o);

/* test_property_staged.c */
void step_staged(struct round *o);
void close_stages(struct round *o);
void compare_staged(struct round *o);
/* Choose staged batches to commit, and know what comes of it. */
void name_staged(struct round *o, int handle, const char **names, size_t *count);
/* A commit came to look at it: its writer can only close. */
void staged_sealed(struct round *o, unsigned id);
void staged_consumed(struct round *o, unsigned id);
void adopt_after_crash(struct round *o);
/* The name of the entry that came with a transmission. */
void adopt_transmitted(struct round *o, int handle, struct sh_batch *b, unsigned *id);
/* Whoever writes to it in another engine closes it first. */
void close_elsewhere(struct round *o, unsigned id, int handle);

#endif
