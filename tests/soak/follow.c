/* follow.c - listeners: they add up what listen/ and subscribe/ print, and compare at every commit. */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <poll.h>

struct listener {
	struct worker *w;
	int fd;
	unsigned mount;
	bool nonblock, first, subscribed, in;
	uint64_t from;  /* sums holds what came at times from here on */
	uint64_t next;  /* the lower of the next transaction */
	uint64_t upper; /* of the one that is being read */
	struct sums sums;
	struct text rest; /* not taken in yet */
};

enum { MORE, END, INTERRUPTED };

/* --- taking in ------------------------------------------------------------------------------------- */

static uint64_t frontier_after(const struct listener *l, const char *line, const char *name)
{
	const char *p = strstr(line, name);

	if (p == NULL)
		program_fail("%s: a listener got \"%.200s\"", l->w->s->id, line);
	p += strlen(name);
	return *p == '-' ? NEVER : strtoull(p, NULL, 10);
}

static void take_begin(struct listener *l, const char *line)
{
	bool whole = strncmp(line, "begin expected_upper=0 ", 23) == 0;
	uint64_t lower = whole ? 0 : frontier_after(l, line, " lower=");

	if (whole && (!l->first || !l->subscribed))
		program_fail("%s: a listener got \"%.200s\" in the middle", l->w->s->id, line);
	l->upper = frontier_after(l, line, whole ? " new_upper=" : " upper=");
	if (l->first && (whole || l->next == NEVER))
		l->from = l->next = lower;
	if (lower != l->next || l->upper <= lower)
		program_fail("%s: a listener got \"%.100s\" after %" PRIu64, l->w->s->id, line, l->next);
	if (whole && frontier_after(l, line, " since=") != (l->upper == NEVER ? NEVER : l->upper - 1))
		program_fail("%s: a subscription begins with \"%.100s\"", l->w->s->id, line);
	l->first = false;
	l->in = true;
}

static void take_rows(struct listener *l, const char *p, size_t len)
{
	struct rows rows;

	if (len == 0)
		return;
	if (!l->in)
		program_fail("%s: a listener got a row outside of a transaction: \"%.200s\"", l->w->s->id, p);
	rows = rows_read("a listener", p, len);
	if (rows.first < l->next || (rows.last >= l->upper && l->upper != NEVER))
		program_fail("%s: a listener got times %" PRIu64 " to %" PRIu64 " in %" PRIu64 " to %s",
			     l->w->s->id, rows.first, rows.last, l->next, frontier_text(l->upper));
	l->sums = sums_add(l->sums, rows.sums);
}

static void take_commit(struct listener *l)
{
	if (!l->in)
		program_fail("%s: a listener got a commit without begin", l->w->s->id);
	l->in = false;
	l->next = l->upper;
	check_between(l->w->s, "a listener", l->from, l->upper, l->sums);
	counted(N_FOLLOWED, 1);
}

/* All whole lines. Rows in a run are taken at once. */
static void take_in(struct listener *l)
{
	const char *p = l->rest.p, *stop = p + l->rest.len, *rows = p, *end;

	for (; p < stop && (end = memchr(p, '\n', (size_t)(stop - p))) != NULL; p = end + 1) {
		if (*p != 'b' && *p != 'c')
			continue;
		take_rows(l, rows, (size_t)(p - rows));
		rows = end + 1;
		if (*p == 'b')
			take_begin(l, p);
		else
			take_commit(l);
	}
	take_rows(l, rows, (size_t)(p - rows));
	l->rest.len = (size_t)(stop - p);
	memmove(l->rest.p, p, l->rest.len);
}

static int take_more(struct listener *l, int *e)
{
	const size_t chunk = 128 << 10;
	struct pollfd pfd = {.fd = l->fd, .events = POLLIN};
	ssize_t n;

	text_room(&l->rest, chunk + 1);
	n = read(l->fd, l->rest.p + l->rest.len, chunk);
	if (n > 0) {
		l->rest.len += (size_t)n;
		l->rest.p[l->rest.len] = '\0';
		take_in(l);
		return MORE;
	}
	*e = n < 0 ? errno : 0;
	if (n == 0)
		return END;
	if (*e == EAGAIN && l->nonblock) {
		(void)poll(&pfd, 1, 200);
		return MORE;
	}
	return INTERRUPTED;
}

/* --- one life -------------------------------------------------------------------------------------- */

static void choose(struct listener *l, char name[48])
{
	uint64_t since = 0, upper = 0, what = rng_below(&l->w->r, 6);

	l->subscribed = false;
	l->sums = (struct sums){0};
	l->first = true;
	l->in = false;
	l->rest.len = 0;
	if (read_frontier(l->w->s, "since", &since) != 0 || read_frontier(l->w->s, "upper", &upper) != 0)
		program_fail("%s: since and upper cannot be read", l->w->s->id);
	if (upper == NEVER)
		upper = model_last(l->w->s->m);
	l->from = l->next = NEVER; /* the first begin tells */
	if (what == 0) {
		snprintf(name, 48, "listen/now");
	} else if (what == 1) {
		snprintf(name, 48, "subscribe/now");
		l->subscribed = true;
	} else if (what == 2 && since < upper) {
		snprintf(name, 48, "subscribe/%" PRIu64, since + rng_below(&l->w->r, upper - since));
		l->subscribed = true;
	} else {
		l->from = since == 0 && what < 5
				  ? 0
				  : since + 1 + (since < upper ? rng_below(&l->w->r, upper - since) : 0);
		l->next = l->from;
		snprintf(name, 48, "listen/%" PRIu64, l->from);
	}
}

/* ENODATA is right if since has passed it meanwhile. */
static void want_gone(const struct listener *l, const char *name, int e)
{
	const char *slash = strchr(name, '/') + 1;
	uint64_t since = 0, f = strtoull(slash, NULL, 10) + l->subscribed;

	if (*slash == 'n' || e != ENODATA || read_frontier(l->w->s, "since", &since) != 0 || since < f)
		program_fail("%s: %s: %s, since is %" PRIu64, l->w->s->id, name, strerrorname_np(e), since);
	counted(N_LISTEN_NODATA, 1);
}

static void follow(struct listener *l)
{
	struct shard *s = l->w->s;
	uint64_t patience = rng_below(&l->w->r, 4) == 0 ? rng_below(&l->w->r, 3000) : NEVER;
	char name[48];
	int what = MORE, e = 0;

	l->mount = mount_up();
	choose(l, name);
	l->nonblock = rng_below(&l->w->r, 2) == 0;
	l->fd = open(at(s->dir, name), O_RDONLY | O_CLOEXEC | (l->nonblock ? O_NONBLOCK : 0));
	if (l->fd < 0) {
		e = errno;
		if (!excused(l->mount, e))
			want_gone(l, name, e);
		return;
	}
	counted(l->subscribed ? N_SUBSCRIBES : N_LISTENS, 1);
	for (; what == MORE && patience > 0; patience--) {
		what = take_more(l, &e);
		if (atomic_load(&s->done) && !atomic_load(&s->finished))
			break;
	}
	close(l->fd);
	if (what == END) {
		if (!atomic_load(&s->finished) && !(l->next == NEVER || model_upper(s->m) == NEVER))
			program_fail("%s: %s ended at %s", s->id, name, frontier_text(l->next));
		if (l->in || l->rest.len != 0 || (l->next != NEVER && !l->first))
			program_fail("%s: %s ended at %s, in the middle", s->id, name,
				     frontier_text(l->next));
		counted(N_FOLLOW_ENDS, 1);
	} else if (what == INTERRUPTED && !(e == EINTR && atomic_load(&s->done)) && !excused(l->mount, e)) {
		want_gone(l, name, e);
	}
}

void *listener_main(void *arg)
{
	struct listener l = {.w = arg};

	do
		follow(&l);
	while (!atomic_load(&l.w->s->done));
	text_free(&l.rest);
	return NULL;
}
