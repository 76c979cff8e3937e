/*
 * replica.c - writers of the same definite data: at time t is step t of one stream, and each of them appends
 * it from where it believes that the shard is, plain or as staged batches with bounds.
 */
#include "tests/soak/soak.h"

#include <inttypes.h>

static const struct stream stream = {.id = 0, .blocks = 200, .rows = 40, .val = 50};

static void make_rows(uint64_t lower, uint64_t upper, struct text *out, uint64_t *rows)
{
	char time[24];

	for (uint64_t t = lower; t < upper; t++) {
		snprintf(time, sizeof time, "%" PRIu64, t);
		stream_step(&stream, t, time, out, rows);
	}
}

static void append_interval(struct worker *job, struct pen *pen, uint64_t lower, uint64_t upper)
{
	bool staged = rng_below(&job->r, 15) == 0;
	uint64_t rows = 0;
	struct verdict v;
	char name[64];
	int e;

	pen->tx.len = 0;
	if (staged) {
		snprintf(name, sizeof name, "r%u.%" PRIu64 ".%" PRIu64, job->index, lower,
			 rng_below(&job->r, 1 << 30));
		text_add(&pen->tx, "bounds %" PRIu64 " %" PRIu64 "\n", lower, upper);
		make_rows(lower, upper, &pen->tx, &rows);
		if (!stage(job->s, name, &pen->tx, true))
			return;
		pen->tx.len = 0;
		text_add(&pen->tx, "begin lower=%" PRIu64 " upper=%" PRIu64 "\nbatch %s\n", lower, upper,
			 name);
	} else {
		text_add(&pen->tx, "begin lower=%" PRIu64 " upper=%" PRIu64 "\n", lower, upper);
		make_rows(lower, upper, &pen->tx, &rows);
	}
	text_add(&pen->tx, "commit\n");
	bool excuse;

	e = pen_send(pen, &v, &excuse);
	if (e != 0 && excuse && !staged) /* it may be done again, whatever was done */
		e = pen_commit(pen, &v);
	else if (e != 0 && excuse)
		return; /* its batch is gone if it was committed; somebody else goes on from the upper */
	if (e != 0)
		program_fail("%s: append of %" PRIu64 " to %" PRIu64 ": %s: %s", job->s->id, lower, upper,
			     strerrorname_np(e), v.line);
	if (v.updates != 0 ? v.upper != upper : v.upper < upper || v.lower != v.upper)
		program_fail("%s: append of %" PRIu64 " to %" PRIu64 ": the verdict is %s", job->s->id, lower,
			     upper, v.line);
	model_fill(job->s->m, v.upper);
	counted(N_IDEMPOTENT, 1);
	counted(N_IDEMPOTENT_NONE, v.updates == 0);
	counted(N_STAGED, staged);
	counted(N_ROWS, v.updates);
}

void *replica_main(void *arg)
{
	struct worker *job = arg;
	struct pen pen = {.s = job->s, .r = &job->r, .fd = -1};

	while (!atomic_load(&job->s->stop)) {
		uint64_t upper = model_upper(job->s->m), back = rng_below(&job->r, 4);

		/* What was committed while nobody could be told is known from here on. */
		if (rng_below(&job->r, 50) == 0 && read_frontier(job->s, "upper", &upper) == 0)
			model_fill(job->s->m, upper);
		append_interval(job, &pen, upper < back ? 0 : upper - back,
				upper + 1 + rng_below(&job->r, 6));
		if (rng_below(&job->r, 100) == 0)
			pen_close(&pen);
	}
	pen_close(&pen);
	text_free(&pen.tx);
	return NULL;
}
