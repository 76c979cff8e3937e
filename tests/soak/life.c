/* life.c - the life of a shard: it is made, its threads work on it, it is finished and removed, or left at
 * the end. */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <signal.h>

enum group { WRITING, READING, SLOWLY, COPYING };

enum { JOBS_MAX = 40 };

struct job {
	struct worker w;
	pthread_t thread;
	enum group group;
};

struct life {
	struct rng *r;
	struct shard *s;
	struct job jobs[JOBS_MAX];
	size_t count;
};

static struct {
	pthread_mutex_t lock;
	struct shard **live;
	size_t count;
	struct text removed;
} left = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct shard **live_shards(size_t *count)
{
	*count = left.count;
	return left.live;
}

const struct text *removed_ids(void)
{
	return &left.removed;
}

/* --- beginning ------------------------------------------------------------------------------------- */

static struct shard *make(enum style style, uint64_t salt, struct model *m)
{
	struct shard *s = calloc(1, sizeof *s);
	unsigned mount;

	s->style = style;
	s->salt = salt;
	s->m = m;
	s->id = shard_id();
	if (asprintf(&s->dir, "%s/shard/%s", world.mnt, s->id) < 0)
		abort();
	for (;;) {
		mount = mount_up();
		if (mkdir(s->dir, 0755) == 0)
			break;
		if (errno == EEXIST && !mount_is(mount))
			break;
		if (!excused(mount, errno) && errno != EEXIST)
			program_fail("%s: mkdir: %s", s->id, strerrorname_np(errno));
	}
	counted(N_CREATED, 1);
	return s;
}

static void start(struct life *l, struct shard *s, enum group group, void *(*fn)(void *arg), unsigned index)
{
	struct job *job = &l->jobs[l->count];

	if (l->count == JOBS_MAX)
		program_fail("too many threads for one shard");
	*job = (struct job){.group = group};
	job->w = (struct worker){.s = s, .r = rng_new(s->salt * 1000 + l->count), .index = index};
	if (pthread_create(&job->thread, NULL, fn, &job->w) != 0)
		program_fail("no thread");
	l->count++;
}

static void start_holders(struct life *l, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		start(l, l->s, WRITING, holder_main, i);
	while (atomic_load(&l->s->held) < count)
		rest_ms(1);
}

static void start_readers(struct life *l, struct shard *s)
{
	unsigned each = s->style == LASTING ? 1 : 2;

	for (unsigned i = 0; i < each; i++)
		start(l, s, READING, reader_main, i);
	for (unsigned i = 0; i < each; i++)
		start(l, s, READING, listener_main, i);
	start(l, s, SLOWLY, slow_main, 0);
	start(l, s, WRITING, since_main, 0);
}

/* A copy made by a subscription tells no times before its first: its readers begin when it has that. */
static void start_copy(struct life *l)
{
	struct shard *b = l->s->copy;
	uint64_t upper = 0;

	start(l, l->s, COPYING, copier_main, 0);
	while (read_frontier(b, "upper", &upper) == 0 && upper == 0)
		rest_ms(10);
	if (rng_below(l->r, 2) == 0)
		start(l, l->s, COPYING, copier_main, 1);
	start_readers(l, b);
}

static void begin(struct life *l, enum style style)
{
	static const unsigned writers[] = {
		[MIXED] = 3, [REPLICAS] = 2, [LARGE] = 2, [SOURCE] = 3, [SOLO] = 1, [LASTING] = 1};
	struct shard *s;

	l->s = s = make(style, rng_below(l->r, 1 << 20), model_new());
	if (style == SOURCE) {
		s->copy = make(REPLICAS, s->salt + 1, s->m);
		model_keep(s->m);
		if (say(s, "holds/copy", "0") != 0)
			program_fail("%s: a hold for a copy cannot be made", s->id);
	}
	if (style == REPLICAS)
		model_stream(s->m, (struct stream){.id = 0, .blocks = 200, .rows = 40, .val = 50});
	start_holders(l, style == MIXED || style == REPLICAS || style == SOLO ? 2 : 1);
	for (unsigned i = 0; i < writers[style]; i++)
		start(l, s, WRITING, style == REPLICAS ? replica_main : writer_main, i);
	start_readers(l, s);
	if (style == SOLO)
		start(l, s, WRITING, rmrf_main, 0);
	if (style == SOURCE)
		start_copy(l);
}

/* --- ending ---------------------------------------------------------------------------------------- */

/* Readers that wait are woken by signals. */
static void join_group(struct life *l, enum group group, bool wake)
{
	for (size_t i = 0; i < l->count; i++) {
		struct job *job = &l->jobs[i];
		uint64_t begun = now_ms();
		struct timespec until;

		if (job->group != group)
			continue;
		for (;;) {
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_sec += wake ? 0 : 1;
			until.tv_nsec += 20000000;
			until.tv_sec += until.tv_nsec / 1000000000;
			until.tv_nsec %= 1000000000;
			if (pthread_timedjoin_np(job->thread, NULL, &until) == 0)
				break;
			if (wake)
				pthread_kill(job->thread, SIGUSR1);
			if (now_ms() - begun > 300000)
				program_fail("%s: a thread (group %d, number %zu) hangs", job->w.s->id,
					     (int)group, i);
		}
	}
}

/* Blind, and the same as often as it takes: when it is finished it is finished. */
static void finish(struct life *l)
{
	struct pen pen = {.s = l->s, .r = l->r, .fd = -1};
	uint64_t upper = model_upper(l->s->m), now = 0;
	struct verdict v;
	bool excuse;
	int e;

	if (read_frontier(l->s, "upper", &now) != 0)
		program_fail("%s: the upper cannot be read", l->s->id);
	if (l->s->style == REPLICAS) { /* the last one may have committed what it was not told of */
		model_fill(l->s->m, now);
		upper = now;
	}
	if (now != upper)
		program_fail("%s: the upper is %" PRIu64 ", and %" PRIu64 " was told", l->s->id, now, upper);
	atomic_store(&l->s->finished, true);
	if (l->s->copy != NULL)
		atomic_store(&l->s->copy->finished, true);
	text_add(&pen.tx, "begin expected_upper=* new_upper=-\ncommit\n");
	do
		e = pen_send(&pen, &v, &excuse);
	while (e != 0 && excuse);
	if (e != 0 && e != ESTALE)
		program_fail("%s: it cannot be finished: %s", l->s->id, strerrorname_np(e));
	pen_close(&pen);
	text_free(&pen.tx);
	model_add(l->s->m, upper, NEVER, NULL, 0);
}

/* What it holds at last. */
static void check_last(const struct shard *s)
{
	unsigned mount;
	char *text;
	size_t len;

	do {
		mount = mount_up();
		text = slurp_len(at(s->dir, "snapshot"), &len);
	} while (text == NULL && excused(mount, errno));
	if (text == NULL)
		program_fail("%s: the last snapshot: %s", s->id, strerrorname_np(errno));
	check_content(s, "the last snapshot", len != 0 ? strtoull(text, NULL, 10) : NEVER, text, len);
	free(text);
}

static void drop_hold(const struct shard *s, const char *name)
{
	unsigned mount;
	int e = say(s, name, "-");

	if (e != 0)
		program_fail("%s/%s: -: %s", s->id, name, strerrorname_np(e));
	do
		mount = mount_up();
	while (unlink(at(s->dir, name)) != 0 && errno != ENOENT && excused(mount, errno));
}

static void remove_shard(struct shard *s)
{
	unsigned mount, first = mount_up();
	int e;

	check_last(s);
	e = say(s, "since", "-");
	if (e != 0)
		program_fail("%s: since -: %s", s->id, strerrorname_np(e));
	do {
		mount = mount_up();
		e = rmdir(s->dir) == 0 ? 0 : errno;
	} while (e != 0 && excused(mount, e));
	if (e == ENOENT && !mount_is(first)) /* done, and a restart came before the answer */
		e = 0;
	if (e != 0) {
		char *holds = NULL, *words = slurp_rc(at(s->dir, "state"));

		sh(&holds, "cd %s; head holds/*", s->dir);
		program_fail("%s: rmdir: %s\n%s\n%s", s->id, strerrorname_np(e), holds, words);
	}
	mount_up();
	if (access(s->dir, F_OK) == 0)
		program_fail("%s: it is there after rmdir", s->id);
	counted(N_REMOVED, 1);
	pthread_mutex_lock(&left.lock);
	text_add(&left.removed, "%s\n", s->id);
	pthread_mutex_unlock(&left.lock);
}

static void leave(struct shard *s)
{
	say(s, "since", "upper-1");
	pthread_mutex_lock(&left.lock);
	left.live = realloc(left.live, (left.count + 1) * sizeof(struct shard *));
	left.live[left.count++] = s;
	pthread_mutex_unlock(&left.lock);
}

static void shard_free(struct shard *s)
{
	model_drop(s->m);
	free(s->dir);
	free(s->id);
	free(s);
}

static void all_stores(struct life *l, size_t offset)
{
	atomic_store((_Atomic bool *)((char *)l->s + offset), true);
	if (l->s->copy != NULL)
		atomic_store((_Atomic bool *)((char *)l->s->copy + offset), true);
}

static void end(struct life *l, bool stays)
{
	struct shard *s = l->s, *b = s->copy;

	all_stores(l, offsetof(struct shard, stop));
	join_group(l, WRITING, false);
	if (stays) {
		all_stores(l, offsetof(struct shard, done));
		join_group(l, COPYING, false);
	} else {
		finish(l);
		join_group(l, COPYING, false); /* it has all */
		counted(N_REPLICATED, b != NULL);
		all_stores(l, offsetof(struct shard, done));
	}
	join_group(l, READING, true);
	if (b != NULL)
		drop_hold(s, "holds/copy");
	if (stays) {
		all_stores(l, offsetof(struct shard, removed));
		join_group(l, SLOWLY, true);
		leave(s);
		if (b != NULL)
			leave(b);
		return;
	}
	remove_shard(s);
	if (b != NULL)
		remove_shard(b);
	all_stores(l, offsetof(struct shard, removed));
	join_group(l, SLOWLY, true);
	if (b != NULL)
		shard_free(b);
	shard_free(s);
}

static void live(struct rng *r, enum style style, uint64_t ms, bool stays)
{
	struct life *l = calloc(1, sizeof *l);
	uint64_t until = now_ms() + ms;

	l->r = r;
	begin(l, style);
	while (!atomic_load(&ending) && now_ms() < until)
		rest_ms(50);
	end(l, stays && atomic_load(&ending));
	free(l);
}

void *slot_main(void *arg)
{
	unsigned index = *(unsigned *)arg;
	struct rng r = rng_new(5000 + index);
	uint64_t unit = options.seconds < 600 ? options.seconds / 5 : 120;

	if (index == options.slots) /* the last one */
		live(&r, LASTING, NEVER / 2, true);
	for (unsigned round = 0; !atomic_load(&ending); round++)
		live(&r,
		     options.style >= 0 ? (enum style)options.style : (enum style)((index + round) % STYLES),
		     (unit / 2 + rng_below(&r, unit + 1)) * 1000, index % 2 == 0);
	return NULL;
}
