/* holds.c - since that follows, lags or jumps; named holds with fencing tokens; rm -rf; words to ctl. */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <sys/statvfs.h>

/* --- since ----------------------------------------------------------------------------------------- */

void *since_main(void *arg)
{
	struct worker *w = arg;
	uint64_t last = 0, since = 0, upper = 0;
	char line[64];
	int e;

	while (!atomic_load(&w->s->stop)) {
		bool jump = w->s->style == LARGE || rng_below(&w->r, 6) == 0;

		if (read_frontier(w->s, "upper", &upper) != 0 || read_frontier(w->s, "since", &since) != 0)
			program_fail("%s: upper and since cannot be read", w->s->id);
		if (since < last)
			program_fail("%s: since went from %" PRIu64 " to %" PRIu64, w->s->id, last, since);
		last = since;
		if (jump)
			snprintf(line, sizeof line, "%" PRIu64,
				 upper > 4 ? upper - 1 - rng_below(&w->r, 3) : 0);
		else
			snprintf(line, sizeof line, "upper-%" PRIu64, 1 + rng_below(&w->r, 300));
		e = say(w->s, "since", line);
		if (e != 0)
			program_fail("%s: since %s: %s", w->s->id, line, strerrorname_np(e));
		counted(N_SINCE, 1);
		for (uint64_t i = 0, n = rng_below(&w->r, jump ? 200 : 100);
		     i < n && !atomic_load(&w->s->stop); i++)
			rest_ms(50);
	}
	return NULL;
}

/* --- named holds ----------------------------------------------------------------------------------- */

struct holder {
	struct worker *w;
	char name[40];
	uint64_t token, at;
	bool fenced;
};

static void expect(const struct holder *h, const char *line, int e, int want)
{
	if (e != want)
		program_fail("%s/%s: \"%s\" is %s, not %s", h->w->s->id, h->name, line, strerrorname_np(e),
			     strerrorname_np(want));
}

static void want_content(const struct holder *h)
{
	char want[64], *got;
	unsigned mount;

	snprintf(want, sizeof want, "%s\t%" PRIu64 "\n", frontier_text(h->at), h->token);
	do {
		mount = mount_up();
		got = slurp_rc(at(h->w->s->dir, h->name));
	} while (got == NULL && excused(mount, errno));
	if (got == NULL || strcmp(got, want) != 0)
		program_fail("%s/%s is \"%s\", not \"%s\"", h->w->s->id, h->name,
			     got != NULL ? got : strerrorname_np(errno), want);
	free(got);
}

/* A hold at `to` with a new token; what another token asks for is refused. */
static void move_fenced(struct holder *h, uint64_t to)
{
	uint64_t token = 1 + rng_below(&h->w->r, UINT64_MAX);
	char line[160];

	snprintf(line, sizeof line, "expected=%" PRIu64 " token=5 since=%s",
		 token != h->token ? token : token ^ 1, frontier_text(to));
	if (rng_below(&h->w->r, 4) == 0) {
		expect(h, line, say(h->w->s, h->name, line), ESTALE);
		counted(N_HOLD_FENCED, 1);
	}
	snprintf(line, sizeof line, "expected=%" PRIu64 " token=%" PRIu64 " since=%s", h->token, token,
		 frontier_text(to));
	unsigned mount = mount_up();
	int e = say(h->w->s, h->name, line);

	/* Done before the restart that ended the call: then the new token is the right one. */
	if (e == ESTALE && !mount_is(mount))
		e = 0;
	expect(h, line, e, 0);
	h->token = token;
}

static void move_plain(struct holder *h, uint64_t to)
{
	char line[64];

	snprintf(line, sizeof line, to != NEVER && rng_below(&h->w->r, 2) == 0 ? "listen=%s" : "%s",
		 frontier_text(to != NEVER ? to + 1 : to));
	if (line[0] != 'l')
		snprintf(line, sizeof line, "%s", frontier_text(to));
	expect(h, line, say(h->w->s, h->name, line), 0);
}

static void hold_move(struct holder *h, uint64_t to)
{
	if (to == 0 && h->at == 0 && !h->fenced)
		return;
	if (h->fenced)
		move_fenced(h, to);
	else
		move_plain(h, to);
	h->at = to;
	counted(N_HOLD_MOVES, 1);
	want_content(h);
}

/* What is held can be read, whatever since the others want. */
static void read_held(struct holder *h, struct text *text)
{
	struct shard *s = h->w->s;
	uint64_t upper = 0, since = 0, t = h->at;
	unsigned mount;
	char name[40];
	int e;

	if (read_frontier(s, "since", &since) != 0 || since > h->at)
		program_fail("%s: since is %" PRIu64 ", and %s holds %" PRIu64, s->id, since, h->name, h->at);
	if (read_frontier(s, "upper", &upper) != 0 || upper <= t)
		return;
	if (rng_below(&h->w->r, 2) == 0)
		t += rng_below(&h->w->r, upper - t);
	snprintf(name, sizeof name, "as_of/%" PRIu64, t);
	do {
		mount = mount_up();
		int fd = open(at(s->dir, name), O_RDONLY | O_CLOEXEC);

		text->len = 0;
		e = fd < 0 ? errno : read_all(fd, text, 1 << 20);
		if (fd >= 0)
			close(fd);
	} while (e != 0 && excused(mount, e));
	if (e != 0)
		program_fail("%s: %s: %s, and %s holds %" PRIu64, s->id, name, strerrorname_np(e), h->name,
			     h->at);
	check_content(s, name, t, text->p, text->len);
	counted(N_HOLD_READS, 1);
}

static void give_up_hold(struct holder *h)
{
	unsigned mount;

	if (h->fenced && unlink(at(h->w->s->dir, h->name)) == 0)
		program_fail("%s/%s: a fenced hold could be removed", h->w->s->id, h->name);
	hold_move(h, NEVER);
	do
		mount = mount_up();
	while (unlink(at(h->w->s->dir, h->name)) != 0 && errno != ENOENT && excused(mount, errno));
	if (access(at(h->w->s->dir, h->name), F_OK) == 0)
		program_fail("%s/%s is still there", h->w->s->id, h->name);
}

void *holder_main(void *arg)
{
	struct worker *w = arg;
	struct holder h = {.w = w, .fenced = w->index % 2 == 0 || w->s->style == SOLO};
	struct text text = {0};
	uint64_t upper = 0;

	snprintf(h.name, sizeof h.name, "holds/h%u", w->index);
	/* It is made before since moves: life.c starts the holders first, and waits for them. */
	if (h.fenced)
		move_fenced(&h, 0);
	else
		expect(&h, "0", say(w->s, h.name, "0"), 0);
	atomic_fetch_add(&w->s->held, 1);
	while (!atomic_load(&w->s->stop)) {
		uint64_t lag = rng_below(&w->r, 4) == 0 ? 1 : 1 + rng_below(&w->r, 2000);

		read_held(&h, &text);
		rest_ms(rng_below(&w->r, 400));
		if (read_frontier(w->s, "upper", &upper) == 0 && upper > h.at + lag &&
		    rng_below(&w->r, 3) == 0)
			hold_move(&h, upper - lag);
	}
	if (read_frontier(w->s, "upper", &upper) == 0)
		read_held(&h, &text);
	give_up_hold(&h);
	text_free(&text);
	return NULL;
}

/* --- and the rest ---------------------------------------------------------------------------------- */

void *rmrf_main(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&w->s->stop)) {
		mount_up();
		if (sh(NULL, "rm -rf %s >/dev/null 2>&1", w->s->dir) == 0)
			program_fail("%s: rm -rf of a live shard says that it worked", w->s->id);
		counted(N_RMRF, 1);
		for (uint64_t i = 0, n = 20 + rng_below(&w->r, 100); i < n && !atomic_load(&w->s->stop); i++)
			rest_ms(50);
	}
	return NULL;
}

void upkeep_of(const struct shard *s, const char *word)
{
	int e;

	do /* a signal that is for another read of ours ends the wait, not the work */
		e = say(s, "ctl", word);
	while (e == EINTR);

	counted(e == ENOENT ? N_CTL_NONE : N_CTL, 1);
	if (e != 0 && e != ENOENT)
		program_fail("%s: %s > ctl: %s", s->id, word, strerrorname_np(e));
}

void look_around(const struct shard *s, struct rng *r)
{
	static const char *const words[] = {"compact", "gc", "rollup"};
	unsigned mount = mount_up();
	struct statvfs sv;
	char *text;

	if (rng_below(r, 3) == 0) {
		upkeep_of(s, words[rng_below(r, 3)]);
		return;
	}
	text = slurp_rc(at(s->dir, rng_below(r, 2) == 0 ? "state" : "errors"));
	if (text == NULL && !excused(mount, errno))
		program_fail("%s: state or errors: %s", s->id, strerrorname_np(errno));
	free(text);
	mount = mount_up();
	if (statvfs(world.mnt, &sv) != 0 && !excused(mount, errno))
		program_fail("statfs: %s", strerrorname_np(errno));
	sh(NULL, "ls -l %s/readers %s/writers %s/holds >/dev/null 2>&1", s->dir, s->dir, s->dir);
	counted(N_LOOKS, 1);
	mount = mount_up();
	text = slurp_rc(at(world.mnt, "metrics"));
	if (text == NULL && errno != ENOENT && !excused(mount, errno))
		program_fail("metrics: %s", strerrorname_np(errno));
	counted(text != NULL ? N_METRICS : N_METRICS_NONE, 1);
	free(text);
}
