/* model.c - what was committed to a shard: the sum of all rows up to each step, by time. */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <time.h>

enum { PATIENCE_S = 240 };

struct told {
	struct told *next;
	uint64_t lower, upper;
	size_t count;
	struct step steps[];
};

struct model {
	pthread_mutex_t lock;
	pthread_cond_t grew;
	_Atomic unsigned refs;
	uint64_t upper;
	struct step *steps; /* delta: the sum of all up to it */
	size_t count, cap;
	struct told *told; /* what begins beyond upper */
	struct stream streams[STREAMS];
};

struct model *model_new(void)
{
	struct model *m = calloc(1, sizeof *m);
	pthread_condattr_t attr;

	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->grew, &attr);
	m->refs = 1;
	return m;
}

void model_keep(struct model *m)
{
	atomic_fetch_add(&m->refs, 1);
}

void model_drop(struct model *m)
{
	if (atomic_fetch_sub(&m->refs, 1) != 1)
		return;
	for (struct told *t = m->told, *next; t != NULL; t = next) {
		next = t->next;
		free(t);
	}
	free(m->steps);
	free(m);
}

void model_stream(struct model *m, struct stream s)
{
	pthread_mutex_lock(&m->lock);
	m->streams[s.id] = s;
	pthread_mutex_unlock(&m->lock);
}

static void push(struct model *m, struct step step)
{
	if (m->count == m->cap) {
		m->cap = m->cap * 2 + 1024;
		m->steps = realloc(m->steps, m->cap * sizeof *m->steps);
		if (m->steps == NULL)
			program_fail("no memory for %zu steps", m->cap);
	}
	if (m->count != 0)
		step.delta = sums_add(step.delta, m->steps[m->count - 1].delta);
	m->steps[m->count++] = step;
}

/* Take in what follows on. */
static void settle(struct model *m)
{
	struct told **at = &m->told;

	while (*at != NULL) {
		struct told *t = *at;

		if (t->lower < m->upper)
			program_fail("two were told that they committed at %" PRIu64 ": known until %" PRIu64,
				     t->lower, m->upper);
		if (t->lower > m->upper) {
			at = &t->next;
			continue;
		}
		for (size_t i = 0; i < t->count; i++)
			push(m, t->steps[i]);
		m->upper = t->upper;
		*at = t->next;
		free(t);
		at = &m->told;
	}
	pthread_cond_broadcast(&m->grew);
}

void model_add(struct model *m, uint64_t lower, uint64_t upper, const struct step *steps, size_t count)
{
	struct told *t = malloc(sizeof *t + count * sizeof *steps);

	*t = (struct told){.lower = lower, .upper = upper, .count = count};
	if (count != 0)
		memcpy(t->steps, steps, count * sizeof *steps);
	pthread_mutex_lock(&m->lock);
	t->next = m->told;
	m->told = t;
	settle(m);
	pthread_mutex_unlock(&m->lock);
}

void model_fill(struct model *m, uint64_t upper)
{
	uint64_t rows = 0;

	pthread_mutex_lock(&m->lock);
	while (m->upper < upper && upper != NEVER) {
		uint64_t t = m->upper++;

		push(m, (struct step){.time = t,
				      .n = t,
				      .delta = stream_step(&m->streams[0], t, "0", NULL, &rows)});
	}
	m->upper = upper > m->upper ? upper : m->upper;
	pthread_cond_broadcast(&m->grew);
	pthread_mutex_unlock(&m->lock);
}

uint64_t model_upper(struct model *m)
{
	uint64_t upper;

	pthread_mutex_lock(&m->lock);
	upper = m->upper;
	pthread_mutex_unlock(&m->lock);
	return upper;
}

void model_wait(struct model *m, uint64_t upper)
{
	struct timespec until;
	int e = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&m->lock);
	while (m->upper < upper && e == 0)
		e = pthread_cond_timedwait(&m->grew, &m->lock, &until);
	if (m->upper < upper)
		program_fail("the mount shows times below %" PRIu64
			     ", of which nobody was told: known until %" PRIu64 ", then from %" PRIu64,
			     upper, m->upper, m->told != NULL ? m->told->lower : 0);
	pthread_mutex_unlock(&m->lock);
}

/* How many steps are at times < upper. */
static size_t steps_below(const struct model *m, uint64_t upper)
{
	size_t low = 0, high = m->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->steps[mid].time < upper)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct sums model_below(struct model *m, uint64_t upper)
{
	struct sums sums = {0};
	size_t n;

	pthread_mutex_lock(&m->lock);
	n = steps_below(m, upper);
	if (n != 0)
		sums = m->steps[n - 1].delta;
	pthread_mutex_unlock(&m->lock);
	return sums;
}

struct sums model_at(struct model *m, uint64_t t)
{
	return model_below(m, t == NEVER ? t : t + 1);
}

uint64_t model_last(struct model *m)
{
	uint64_t last;

	pthread_mutex_lock(&m->lock);
	last = m->count != 0 ? m->steps[m->count - 1].time : 0;
	pthread_mutex_unlock(&m->lock);
	return last;
}

void model_content(struct model *m, uint64_t t, struct text *out)
{
	uint64_t next[STREAMS] = {0};
	char time[24];

	snprintf(time, sizeof time, "%" PRIu64, t);
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0, n = steps_below(m, t == NEVER ? t : t + 1); i < n; i++)
		next[m->steps[i].stream] = m->steps[i].n + 1;
	for (unsigned i = 0; i < STREAMS; i++)
		if (next[i] != 0)
			stream_content(&m->streams[i], next[i], time, out);
	pthread_mutex_unlock(&m->lock);
}

void model_explain(struct model *m, struct sums found, struct sums wanted, struct text *out)
{
	struct sums more = sums_sub(found, wanted), less = sums_sub(wanted, found);

	text_add(out, "diffs sum up to %" PRId64 ", not %" PRId64, found.count, wanted.count);
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < m->count; i++) {
		struct sums own =
			i == 0 ? m->steps[0].delta : sums_sub(m->steps[i].delta, m->steps[i - 1].delta);

		if (sums_eq(own, more) || sums_eq(own, less))
			text_add(out, "; just step %" PRIu64 " of stream %u at %" PRIu64 " is %s",
				 m->steps[i].n, m->steps[i].stream, m->steps[i].time,
				 sums_eq(own, more) ? "too much" : "missing");
	}
	pthread_mutex_unlock(&m->lock);
}
