/* model.c - what a shard must hold, and the look that compares it with the mount. */
#include "tests/crash/crash.h"

#include <inttypes.h>

struct shard *shard_plan(struct rng *r)
{
	struct shard *s = calloc(1, sizeof *s);
	char *id = shard_id();

	ck_assert_ptr_nonnull(s);
	pthread_mutex_init(&s->lock, NULL);
	snprintf(s->id, sizeof s->id, "%s", id);
	free(id);
	ck_assert_int_gt(asprintf(&s->dir, "%s/shard/%s", world.mnt, s->id), 0);
	s->salt = rng_below(r, 0);
	s->staged_for = NONE;
	s->finished = ABSENT;
	return s;
}

void shard_free(struct shard *s)
{
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
	free(s);
}

unsigned tx_plan(struct shard *s, unsigned rows, unsigned bytes, unsigned undoes)
{
	unsigned n;

	pthread_mutex_lock(&s->lock);
	n = s->count < TXS_MAX ? s->count++ : NONE;
	if (n != NONE) {
		s->txs[n] = (struct tx){
			.rows = rows, .bytes = bytes, .undoes = undoes, .undone_by = NONE, .time = NEVER};
		if (undoes != NONE)
			s->txs[undoes].undone_by = n;
	}
	pthread_mutex_unlock(&s->lock);
	return n;
}

static void told_locked(struct shard *s, unsigned n, enum fate fate, uint64_t time)
{
	struct tx *tx = &s->txs[n];

	if (fate == THERE && tx->fate == ABSENT)
		program_fail("%s: transaction %u was refused or lost, and is there", s->id, n);
	if (fate == ABSENT && tx->fate == THERE)
		program_fail("%s: transaction %u is there, and is refused under its token", s->id, n);
	if (time != NEVER && tx->time != NEVER && tx->time != time)
		program_fail("%s: transaction %u is at %" PRIu64 " and at %" PRIu64, s->id, n, tx->time,
			     time);
	if (tx->fate == UNSENT || fate != UNKNOWN)
		tx->fate = fate;
	if (time != NEVER)
		tx->time = time;
}

void tx_told(struct shard *s, unsigned n, enum fate fate, uint64_t time)
{
	pthread_mutex_lock(&s->lock);
	told_locked(s, n, fate, time);
	pthread_mutex_unlock(&s->lock);
}

enum fate tx_fate(struct shard *s, unsigned n)
{
	enum fate fate;

	pthread_mutex_lock(&s->lock);
	fate = s->txs[n].fate;
	pthread_mutex_unlock(&s->lock);
	return fate;
}

/* --- the look -------------------------------------------------------------------------------------- */

/* Count the rows of each transaction in a snapshot: all there once, or none. */
static void count_rows(struct shard *s, const char *what, const char *text)
{
	struct row row;

	for (unsigned n = 0; n < s->count; n++)
		s->txs[n].seen = 0;
	while (row_next(s, &text, &row)) {
		if (row.diff != 1)
			program_fail("%s: %s has row %u of transaction %u %ld times", s->id, what, row.i,
				     row.n, row.diff);
		s->txs[row.n].seen++;
	}
	if (*text != '\0')
		program_fail("%s: %s ends with %.100s", s->id, what, text);
	for (unsigned n = 0; n < s->count; n++)
		if (s->txs[n].seen != 0 && s->txs[n].seen != s->txs[n].rows)
			program_fail("%s: %s has %u of %u rows of transaction %u", s->id, what,
				     s->txs[n].seen, s->txs[n].rows, n);
}

static bool is_undone(const struct shard *s, unsigned n, const bool *there)
{
	return s->txs[n].undone_by != NONE && there[s->txs[n].undone_by];
}

/*
 * Which are there, by the rows: seen, or undone by one that is there (which has a greater number). What was
 * unknown is known now, but for those who will be sent again. The number of those that are there.
 */
static uint64_t judge(struct shard *s, bool *there)
{
	uint64_t count = 0;

	for (unsigned n = s->count; n-- > 0;) {
		struct tx *tx = &s->txs[n];

		there[n] = tx->seen != 0 || is_undone(s, n, there);
		if (tx->seen != 0 && is_undone(s, n, there))
			program_fail("%s: transaction %u is there without what it retracts, %u", s->id,
				     tx->undone_by, n);
		if (tx->fate == THERE && !there[n])
			program_fail("%s: transaction %u was acknowledged or seen, and is lost", s->id, n);
		if (tx->fate == ABSENT && there[n])
			program_fail("%s: transaction %u was refused or not there before, and is there",
				     s->id, n);
		if (tx->fate == UNSENT && there[n])
			program_fail("%s: transaction %u was never sent, and is there", s->id, n);
		if (tx->fate == UNKNOWN && there[n])
			counted(N_FOUND, 1);
		if (tx->fate == UNKNOWN && (there[n] || !tx->again))
			tx->fate = there[n] ? THERE : ABSENT;
		count += there[n];
	}
	return count;
}

/* The collection as of t, which is held: each transaction by its time, where that is known. */
static void look_as_of(struct shard *s, uint64_t t, const bool *there)
{
	char name[40], *text;

	snprintf(name, sizeof name, "as_of/%" PRIu64, t);
	text = slurp_rc(at(s->dir, name));
	if (text == NULL)
		program_fail("%s: %s is held, and cannot be read: %s", s->id, name, strerrorname_np(errno));
	count_rows(s, name, text);
	free(text);
	for (unsigned n = 0; n < s->count; n++) {
		const struct tx *tx = &s->txs[n];
		uint64_t undone = is_undone(s, n, there) ? s->txs[tx->undone_by].time : NEVER;
		bool show = there[n] && tx->time <= t && !(is_undone(s, n, there) && undone <= t);

		if ((there[n] && tx->time == NEVER) || (is_undone(s, n, there) && undone == NEVER))
			continue;
		if (show != (tx->seen != 0))
			program_fail("%s: %s %s transaction %u of time %" PRIu64, s->id, name,
				     show ? "lacks" : "has", n, tx->time);
	}
}

static void look_since(struct shard *s, uint64_t upper, const bool *there)
{
	static const int holds[] = {P_KEEP, P_PLAIN, P_EARS};
	uint64_t since;

	ck_assert_int_eq(frontier_of(s, "since", &since), 0);
	if (since < s->since_seen)
		program_fail("%s: since went back from %" PRIu64 " to %" PRIu64, s->id, s->since_seen, since);
	s->since_seen = since;
	for (size_t i = 0; i < sizeof holds / sizeof *holds; i++) {
		const char *hold = s->promises[holds[i]].acked;
		uint64_t t = hold[0] == '-' ? NEVER : strtoull(hold, NULL, 10);

		if (hold[0] == '\0')
			continue;
		if (since > t)
			program_fail("%s: since is %" PRIu64 ", though a hold was acknowledged at %s", s->id,
				     since, hold);
		if (t < upper && upper != NEVER)
			look_as_of(s, t, there);
	}
}

static uint64_t look_upper(struct shard *s)
{
	uint64_t upper;

	ck_assert_int_eq(frontier_of(s, "upper", &upper), 0);
	if (upper < s->upper_seen)
		program_fail("%s: the upper went back from %" PRIu64 " to %" PRIu64, s->id, s->upper_seen,
			     upper);
	if ((upper == NEVER && s->finished == ABSENT) || (upper != NEVER && s->finished == THERE))
		program_fail("%s: the upper is %" PRIu64 ", which is wrong", s->id, upper);
	s->finished = upper == NEVER ? THERE : ABSENT;
	s->upper_seen = upper;
	return upper;
}

void shard_look(struct shard *s)
{
	static const int order[] = {P_SHARD, P_NAME, P_KEEP, P_PLAIN, P_EARS, P_MODE};
	struct client looker = {.mount = atomic_load(&mount_number)};
	bool *there = calloc(TXS_MAX, sizeof *there);
	uint64_t upper, count, since;
	char *text;

	for (size_t i = 0; i < sizeof order / sizeof *order; i++)
		if (s->promises[P_SHARD].acked[0] != '\0' || i <= 1)
			if (!promise_settle(&looker, s, order[i]))
				program_fail("%s: the mount does not answer: %s", s->id,
					     strerrorname_np(errno));
	if (s->promises[P_SHARD].acked[0] == '\0') {
		free(there);
		return;
	}
	upper = look_upper(s);
	ck_assert_int_eq(frontier_of(s, "since", &since), 0);
	if (since != NEVER && (upper == NEVER || upper == 0 || since < upper)) {
		text = slurp(at(s->dir, "snapshot")); /* empty if upper is 0 */
		count_rows(s, "snapshot", text);
		free(text);
		count = judge(s, there);
		if (upper != NEVER && upper != count)
			program_fail("%s: the upper is %" PRIu64 ", of %" PRIu64 " transactions", s->id,
				     upper, count);
		if (s->staged_for != NONE)
			pieces_look(s, there[s->staged_for]);
		look_since(s, upper, there);
	}
	free(there);
}

void shard_look_finished(struct shard *s)
{
	shard_look(s);
	for (unsigned n = 0; n < s->count; n++)
		if (s->txs[n].fate == THERE && s->txs[n].heard == 0)
			program_fail("%s: the listener did not hear transaction %u", s->id, n);
}

/* --- what others were told ------------------------------------------------------------------------- */

void upper_told(struct shard *s, uint64_t upper)
{
	pthread_mutex_lock(&s->lock);
	s->upper_seen = upper > s->upper_seen ? upper : s->upper_seen;
	pthread_mutex_unlock(&s->lock);
}

void snapshot_seen(struct shard *s, const char *text)
{
	pthread_mutex_lock(&s->lock);
	count_rows(s, "snapshot", text);
	for (unsigned n = 0; n < s->count; n++)
		if (s->txs[n].seen != 0)
			told_locked(s, n, THERE, NEVER);
	pthread_mutex_unlock(&s->lock);
}

void step_heard(struct shard *s, uint64_t lower, uint64_t upper, const char *rows)
{
	struct row row;

	pthread_mutex_lock(&s->lock);
	if (lower != s->heard_to || upper < lower)
		program_fail("%s: a listener got [%" PRIu64 ", %" PRIu64 ") after %" PRIu64, s->id, lower,
			     upper, s->heard_to);
	while (row_next(s, &rows, &row)) {
		struct tx *tx = &s->txs[row.n];

		if (row.time < lower || row.time >= upper)
			program_fail("%s: a listener got time %" PRIu64 " too early or late", s->id,
				     row.time);
		if (row.diff == 1 && tx->heard++ == 0)
			counted(N_HEARD, 1);
		if (row.diff == 1)
			told_locked(s, row.n, THERE, row.time);
		else if (row.diff != -1)
			program_fail("%s: a listener got a row of transaction %u %ld times", s->id, row.n,
				     row.diff);
	}
	if (strncmp(rows, "commit\n", 7) != 0)
		program_fail("%s: a listener got %.100s", s->id, rows);
	for (unsigned n = 0; n < s->count; n++)
		if (s->txs[n].heard != 0 && s->txs[n].heard != s->txs[n].rows)
			program_fail("%s: a listener got %u of %u rows of transaction %u", s->id,
				     s->txs[n].heard, s->txs[n].rows, n);
	s->heard_to = upper;
	if (upper > s->upper_seen)
		s->upper_seen = upper;
	pthread_mutex_unlock(&s->lock);
}
