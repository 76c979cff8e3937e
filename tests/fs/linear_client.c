/*
 * linear_client.c - see linear_client.h.
 *
 * What an append changes can be told afterwards: its first row has a key of its own ("m<client>.<n>"), at each
 * time of an interval that may be cut. Other rows have keys that all share, so that sums and cancellations matter.
 */
#include "tests/fs/linear_client.h"

#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <time.h>

enum { TRIES_MS = DEADLINE_MS };

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void rest_us(uint64_t us)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

static bool chance(struct lin_client *c, unsigned percent)
{
	return rng_below(&c->r, 100) < percent;
}

static void wrong(struct lin_client *c, const char *what, const char *text)
{
	if (c->failed[0] == '\0')
		snprintf(c->failed, sizeof c->failed, "%s: %.300s", what, text);
}

/* Whether that is what a mount says that is dead, or not back yet. */
static bool is_cut(const struct lin_client *c, int e)
{
	return c->play->cut &&
	       (e == ENOTCONN || e == ECONNABORTED || e == ESHUTDOWN || e == EIO || e == ENOENT || e == ENODEV);
}

/* Open one of the shard's files; -1: it failed for good. */
static int open_file(struct lin_client *c, const char *name, int flags)
{
	uint64_t since = now_ms();
	char path[512];
	int fd;

	snprintf(path, sizeof path, "%s/%s", c->play->shard, name);
	while ((fd = open(path, flags | O_CLOEXEC)) < 0) {
		if (!is_cut(c, errno) || now_ms() - since > TRIES_MS) {
			wrong(c, path, strerrorname_np(errno));
			return -1;
		}
		rest_us(1000);
	}
	return fd;
}

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static uint64_t parse_frontier(const char *text)
{
	return text[0] == '-' ? LIN_END : strtoull(text, NULL, 10);
}

static char *put_frontier(char *to, uint64_t f)
{
	return f == LIN_END ? stpcpy(to, "-") : to + sprintf(to, "%" PRIu64, f);
}

/* --- appends --------------------------------------------------------------------------------------- */

enum { APPEND_MAX = 2048 };

static size_t append_text(const struct lin_append *a, const char *token, char text[APPEND_MAX])
{
	char *p = text;

	if (a->form == LIN_BLIND) {
		p = stpcpy(p, "begin expected_upper=* new_upper=");
		if (a->upper != LIN_END)
			*p++ = '+';
	} else {
		p = stpcpy(p, a->form == LIN_CAS ? "begin expected_upper=" : "begin lower=");
		p = put_frontier(p, a->lower);
		p = stpcpy(p, a->form == LIN_CAS ? " new_upper=" : " upper=");
	}
	p = put_frontier(p, a->upper);
	if (token[0] != '\0')
		p += sprintf(p, " token=%s", token);
	*p++ = '\n';
	for (size_t i = 0; i < a->row_count; i++) {
		p = a->rows[i].time == LIN_STAR ? stpcpy(p, "*") : p + sprintf(p, "%" PRIu64, a->rows[i].time);
		p += sprintf(p, "\t%" PRId64 "\t%s\tv\n", a->rows[i].diff, a->rows[i].key);
	}
	return (size_t)(stpcpy(p, "commit\n") - text);
}

/* The value behind a name in a verdict; false: it has none. */
static bool value_of(const char *line, const char *name, uint64_t *value)
{
	const char *at = strstr(line, name);

	if (at != NULL)
		*value = parse_frontier(at + strlen(name));
	return at != NULL;
}

static void read_verdict(struct lin_client *c, struct lin_append *a)
{
	char line[1024];
	ssize_t n = read(c->append, line, sizeof line - 1);

	if (n < 0 && is_cut(c, errno))
		return;
	if (n <= 0) {
		wrong(c, "a verdict", n == 0 ? "there is none" : strerrorname_np(errno));
		return;
	}
	line[n] = '\0';
	if (a->outcome == LIN_DONE)
		a->told = strncmp(line, "ok ", 3) == 0 && value_of(line, " lower=", &a->told_lower) &&
			  value_of(line, " new_upper=", &a->told_upper);
	else
		a->told = strncmp(line, "error UpperMismatch errno=ESTALE ", 33) == 0 &&
			  value_of(line, " current_upper=", &a->told_upper);
	if (!a->told)
		wrong(c, "a verdict", line);
	else
		c->guess = a->told_upper;
}

/* One write(2) of it. */
static void try_append(struct lin_client *c, struct lin_append *a, const char *text, size_t len)
{
	ssize_t n;
	int e;

	if (c->append < 0)
		c->append = open_file(c, "append", O_RDWR);
	a->last_start = now_ns();
	if (a->start == 0)
		a->start = a->last_start;
	n = write(c->append, text, len);
	e = n < 0 ? errno : 0;
	a->end = now_ns();
	if (n >= 0 && (size_t)n != len)
		wrong(c, "an append", "it was taken in part");
	a->outcome = n >= 0 ? LIN_DONE : e == ESTALE ? LIN_REFUSED : LIN_UNKNOWN;
	if (a->outcome == LIN_UNKNOWN && !is_cut(c, e))
		wrong(c, strerrorname_np(e), text);
	if (a->outcome != LIN_UNKNOWN)
		read_verdict(c, a);
	/* After a failure the descriptor is spent. */
	if (a->outcome == LIN_UNKNOWN || (a->outcome == LIN_REFUSED && (chance(c, 50) || ftruncate(c->append, 0) != 0)))
		shut(&c->append);
}

/* The same again, under its token, must say the same and do nothing. */
static void repeat(struct lin_client *c, const struct lin_append *a, const char *text, size_t len)
{
	struct lin_append again = {.form = a->form};
	uint64_t guess = c->guess;

	try_append(c, &again, text, len);
	if (again.outcome == LIN_REFUSED ||
	    (again.told && (again.told_lower != a->told_lower || again.told_upper != a->told_upper)))
		wrong(c, "a repeat was answered otherwise", text);
	c->guess = guess;
}

static void make_token(struct lin_client *c, char token[64])
{
	snprintf(token, 64, "i%08x-%04x-4%03x-8%03x-%08x%04x", (unsigned)rng_below(&c->r, 1ull << 32),
		 (unsigned)rng_below(&c->r, 1 << 16), (unsigned)rng_below(&c->r, 1 << 12),
		 (unsigned)rng_below(&c->r, 1 << 12), (unsigned)rng_below(&c->r, 1ull << 32), c->number);
}

static void run_append(struct lin_client *c, struct lin_append *a, bool has_token)
{
	char text[APPEND_MAX], token[64] = "";
	uint64_t since = now_ms();
	size_t len;

	if (has_token)
		make_token(c, token);
	len = append_text(a, token, text);
	do
		try_append(c, a, text, len);
	while (has_token && a->outcome == LIN_UNKNOWN && c->failed[0] == '\0' && now_ms() - since < TRIES_MS);
	if (has_token && a->told && a->outcome == LIN_DONE && a->told_lower < a->told_upper && chance(c, 30))
		repeat(c, a, text, len);
}

/* Its own key, and some that are everybody's. */
static void add_rows(struct lin_client *c, struct lin_append *a)
{
	static const char *const shared[] = {"k0", "k1", "k2"};
	char key[LIN_KEY];
	uint64_t more = rng_below(&c->r, 4), span = a->upper - a->lower;

	snprintf(key, sizeof key, "m%u.%u", c->number, c->appends++);
	if (a->form == LIN_BLIND)
		lin_add_row(a, LIN_STAR, 1, key);
	else if (a->form == LIN_CAS)
		lin_add_row(a, a->lower + rng_below(&c->r, span), 1, key);
	for (uint64_t t = a->lower; a->form == LIN_INTERVAL && t < a->upper; t++)
		lin_add_row(a, t, 1, key);
	for (uint64_t i = 0; i < more; i++)
		lin_add_row(a, a->form == LIN_BLIND ? LIN_STAR : a->lower + rng_below(&c->r, span),
			    (int64_t)rng_below(&c->r, 5) - 2, shared[rng_below(&c->r, 3)]);
}

static void append(struct lin_client *c)
{
	struct lin_append *a = lin_add_append(&c->saw);
	uint64_t kind = rng_below(&c->r, 100), back = rng_below(&c->r, 3);
	uint64_t ahead = 1 + rng_below(&c->r, 4), guess = c->guess;

	a->form = kind < 55 ? LIN_CAS : kind < 75 ? LIN_INTERVAL : LIN_BLIND;
	a->lower = guess;
	a->upper = guess + ahead;
	if (kind < 10 && chance(c, 50)) { /* wrong, one way or the other */
		a->lower = guess > back ? guess - back - 1 : guess + 1 + back;
		a->upper = a->lower + ahead;
	} else if (a->form == LIN_INTERVAL && chance(c, 90)) { /* it overlaps, or has nothing to do */
		a->lower = guess > back ? guess - back : 0;
		a->upper = a->lower + ahead;
	} else if (a->form == LIN_INTERVAL) { /* a gap */
		a->lower += ahead;
		a->upper += ahead;
	} else if (a->form == LIN_BLIND) {
		a->lower = 0;
		a->upper = ahead;
	}
	if (kind >= 50 && kind < 55) /* a heartbeat */
		a->upper = a->lower;
	else if (a->form == LIN_BLIND || chance(c, 85))
		add_rows(c, a);
	run_append(c, a, chance(c, 25));
}

/* --- reads ----------------------------------------------------------------------------------------- */

/* All of an open file; NULL: the mount died, or it is wrong. */
static char *read_all(struct lin_client *c, int fd)
{
	size_t len = 0, cap = 4096;
	char *text = malloc(cap);
	ssize_t n;

	while (text != NULL && (n = read(fd, text + len, cap - len - 1)) > 0) {
		len += (size_t)n;
		if (cap - len < 1024) {
			cap *= 2;
			text = realloc(text, cap);
		}
	}
	if (text == NULL)
		abort();
	text[len] = '\0';
	if (n == 0)
		return text;
	if (!is_cut(c, errno))
		wrong(c, "a read", strerrorname_np(errno));
	free(text);
	return NULL;
}

/* Open, read all, close. NULL as above. */
static char *read_file(struct lin_client *c, const char *name, uint64_t *start, uint64_t *end)
{
	char *text;
	int fd;

	*start = now_ns();
	fd = open_file(c, name, O_RDONLY);
	if (fd < 0)
		return NULL;
	text = read_all(c, fd);
	*end = now_ns();
	close(fd);
	return text;
}

static void saw_upper(struct lin_client *c, const char *text, uint64_t start, uint64_t end)
{
	struct lin_read *r = lin_add_read(&c->saw);

	*r = (struct lin_read){.kind = LIN_UPPER, .start = start, .end = end, .value = parse_frontier(text)};
	if (r->value != LIN_END)
		c->guess = r->value;
	if (strchr(text, '\n') == NULL)
		wrong(c, "an upper", text);
}

/* By a descriptor that is kept, from 0 again. */
static void read_kept_upper(struct lin_client *c)
{
	uint64_t start = now_ns();
	char text[32];
	ssize_t n;

	if (c->upper < 0)
		c->upper = open_file(c, "upper", O_RDONLY);
	n = pread(c->upper, text, sizeof text - 1, 0);
	if (n <= 0 && !is_cut(c, errno))
		wrong(c, "upper", strerrorname_np(errno));
	if (n <= 0) {
		shut(&c->upper);
		return;
	}
	text[n] = '\0';
	saw_upper(c, text, start, now_ns());
}

/* upper, or wait/<t>, which is past t. */
static void read_upper(struct lin_client *c, const char *name, uint64_t least)
{
	uint64_t start, end;
	char *text = read_file(c, name, &start, &end);

	if (text != NULL)
		saw_upper(c, text, start, end);
	if (text != NULL && parse_frontier(text) < least)
		wrong(c, name, text);
	free(text);
}

static void read_content(struct lin_client *c, const char *name, enum lin_kind kind, uint64_t time)
{
	uint64_t start, end;
	char *text = read_file(c, name, &start, &end);

	if (text != NULL)
		*lin_add_read(&c->saw) =
			(struct lin_read){.kind = kind, .start = start, .end = end, .value = time, .text = text};
}

/* Writers do not wait for what is to come. */
static void read_something(struct lin_client *c)
{
	uint64_t kind = rng_below(&c->r, 100), ahead = c->role == LIN_READER ? rng_below(&c->r, 4) : 0;
	uint64_t t = c->guess != 0 && ahead == 0 ? rng_below(&c->r, c->guess) : c->guess + ahead;
	char name[48];

	if (kind < 25) {
		read_kept_upper(c);
	} else if (kind < 45) {
		read_upper(c, "upper", 0);
	} else if (kind < 65) {
		read_content(c, "snapshot", LIN_SNAPSHOT, 0);
	} else if (c->role == LIN_WRITER && c->guess == 0) {
		read_upper(c, "upper", 0);
	} else if (kind < 85) {
		snprintf(name, sizeof name, "as_of/%" PRIu64, t);
		read_content(c, name, LIN_AS_OF, t);
	} else {
		snprintf(name, sizeof name, "wait/%" PRIu64, t);
		read_upper(c, name, t + 1);
	}
}

/* --- listeners ------------------------------------------------------------------------------------- */

/* One whole transaction of what a listener gets. */
static void take_step(struct lin_client *c, struct lin_listener *l, char *text, uint64_t seen)
{
	uint64_t lower, upper;
	char *p = strchr(text, '\n') + 1;

	if (!value_of(text, "begin lower=", &lower) || !value_of(text, " upper=", &upper)) {
		wrong(c, "a step", text);
		return;
	}
	*lin_add_step(l) = (struct lin_step){.lower = lower, .upper = upper, .seen = seen};
	while (strcmp(p, "commit\n") != 0) {
		struct lin_row row = {0};
		int n = 0;

		if (sscanf(p, "%" SCNu64 "\t%" SCNd64 "\t%15[^\t]\tv\n%n", &row.time, &row.diff, row.key, &n) != 3 || n == 0) {
			wrong(c, "a row", p);
			return;
		}
		lin_add_step_row(l, &row);
		p += n;
	}
}

/* The snapshot that a subscription begins with; as the as_of it is. */
static void take_snapshot(struct lin_client *c, char *text, uint64_t time, uint64_t seen)
{
	char want[128], *rows = strchr(text, '\n') + 1;

	snprintf(want, sizeof want, "begin expected_upper=0 new_upper=%" PRIu64 " since=%" PRIu64 "\n", time + 1, time);
	if (strncmp(text, want, strlen(want)) != 0) {
		wrong(c, "a subscription", text);
		return;
	}
	rows[strlen(rows) - strlen("commit\n")] = '\0';
	*lin_add_read(&c->saw) =
		(struct lin_read){.kind = LIN_AS_OF, .end = seen, .value = time, .text = strdup(rows)};
}

/* Take the whole transactions off the front of the text. */
static void take_all(struct lin_client *c, struct lin_listener *l, bool *subscribing, char *text, size_t *len,
		     uint64_t seen)
{
	char *end;

	while ((end = strstr(text, "commit\n")) != NULL) {
		char *whole = strndup(text, (size_t)(end + 7 - text));

		if (*subscribing)
			take_snapshot(c, whole, l->from - 1, seen);
		else
			take_step(c, l, whole, seen);
		*subscribing = false;
		free(whole);
		*len -= (size_t)(end + 7 - text);
		memmove(text, end + 7, *len + 1);
	}
}

/* Follow by one descriptor until the end, or the mount dies. */
static void follow(struct lin_client *c, struct lin_listener *l, bool *subscribing)
{
	uint64_t at = l->step_count != 0 ? l->steps[l->step_count - 1].upper : l->from;
	bool polls = chance(c, 30), small = chance(c, 30);
	char name[48], text[65536] = "";
	size_t len = 0;
	ssize_t n = 1;
	int fd;

	snprintf(name, sizeof name, "%s/%" PRIu64, *subscribing ? "subscribe" : "listen", *subscribing ? at - 1 : at);
	fd = open_file(c, at == LIN_END ? "listen/-" : name, O_RDONLY | (polls ? O_NONBLOCK : 0));
	while (fd >= 0 && c->failed[0] == '\0') {
		struct pollfd ready = {.fd = fd, .events = POLLIN};

		if (polls && poll(&ready, 1, DEADLINE_MS) == 0)
			wrong(c, name, "poll told nothing");
		n = read(fd, text + len, small ? 1 + rng_below(&c->r, 40) : sizeof text - len - 1);
		if (n < 0 && errno == EAGAIN && polls)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		text[len] = '\0';
		take_all(c, l, subscribing, text, &len, now_ns());
	}
	if (n < 0 && !is_cut(c, errno))
		wrong(c, name, strerrorname_np(errno));
	l->ended = n == 0;
	if (n == 0 && len != 0)
		wrong(c, "it ended within", text);
	if (fd >= 0)
		close(fd);
}

static void listen_from(struct lin_client *c, uint64_t from, bool subscribing)
{
	struct lin_listener *l = lin_add_listener(&c->saw);

	l->from = from;
	while (!l->ended && c->failed[0] == '\0')
		follow(c, l, &subscribing);
}

static void listen_somewhere(struct lin_client *c)
{
	bool subscribing = chance(c, 40);
	uint64_t from;

	if (chance(c, 50))
		rest_us(rng_below(&c->r, 5000));
	read_kept_upper(c);
	from = rng_below(&c->r, c->guess + 3);
	listen_from(c, subscribing ? from + 1 : from, subscribing);
}

/* --- the play -------------------------------------------------------------------------------------- */

static void *client_main(void *arg)
{
	struct lin_client *c = arg;

	for (unsigned i = 0; i < c->calls && c->failed[0] == '\0'; i++) {
		if (c->role == LIN_LISTENER)
			listen_somewhere(c);
		else if (c->role == LIN_WRITER && chance(c, 60))
			append(c);
		else
			read_something(c);
		if (chance(c, 10))
			rest_us(rng_below(&c->r, 300));
		atomic_fetch_add(&c->play->calls, 1);
	}
	shut(&c->append);
	shut(&c->upper);
	return NULL;
}

void lin_play_begin(struct lin_play *p, char *shard, uint64_t seed, bool cut)
{
	struct rng r = {seed};
	pthread_attr_t attr;

	*p = (struct lin_play){.shard = shard, .seed = seed, .cut = cut};
	p->client_count = 3 + (unsigned)rng_below(&r, LIN_CLIENTS_MAX - 2);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 512 << 10);
	for (unsigned i = 0; i < p->client_count; i++) {
		struct lin_client *c = &p->clients[i];
		uint64_t role = rng_below(&r, 10);

		*c = (struct lin_client){.play = p, .number = i, .append = -1, .upper = -1};
		c->role = i < 2 || role < 4 ? LIN_WRITER : role < 7 ? LIN_READER : LIN_LISTENER;
		c->calls = c->role == LIN_LISTENER ? 1 : 10 + (unsigned)rng_below(&r, 31);
		c->r = (struct rng){rng_below(&r, 0)};
		ck_assert_int_eq(pthread_create(&c->thread, &attr, client_main, c), 0);
	}
	pthread_attr_destroy(&attr);
}

unsigned lin_play_calls(const struct lin_play *p)
{
	unsigned calls = 0;

	for (unsigned i = 0; i < p->client_count; i++)
		calls += p->clients[i].role == LIN_WRITER ? p->clients[i].calls : 0;
	return calls;
}

static bool join_all(struct lin_play *p, bool writers, char why[LIN_WHY])
{
	for (unsigned i = 0; i < p->client_count; i++) {
		struct lin_client *c = &p->clients[i];

		if ((c->role == LIN_WRITER) != writers)
			continue;
		ck_assert_int_eq(pthread_join(c->thread, NULL), 0);
		if (c->failed[0] != '\0')
			snprintf(why, LIN_WHY, "%s", c->failed);
	}
	return why[0] == '\0';
}

/* The last append; then the truth. */
static void finish(struct lin_client *last)
{
	struct lin_append *a = lin_add_append(&last->saw);

	*a = (struct lin_append){.form = LIN_BLIND, .upper = LIN_END};
	lin_add_row(a, LIN_STAR, 1, "mlast");
	run_append(last, a, true);
	if (a->outcome != LIN_DONE)
		wrong(last, "the end", "it was not acknowledged");
}

bool lin_play_end(struct lin_play *p, char why[LIN_WHY])
{
	struct lin_client last = {.play = p, .number = LIN_CLIENTS_MAX, .append = -1, .upper = -1, .r = {p->seed + 1}};
	bool ok;

	why[0] = '\0';
	join_all(p, true, why);
	finish(&last); /* else the others do not come to their ends */
	join_all(p, false, why);
	if (last.failed[0] == '\0')
		listen_from(&last, 0, false);
	shut(&last.append);
	if (last.failed[0] != '\0')
		snprintf(why, LIN_WHY, "%s", last.failed);
	for (unsigned i = 0; i < p->client_count; i++)
		lin_move(&last.saw, &p->clients[i].saw);
	for (size_t i = 0; i < last.saw.append_count; i++)
		p->unknown += last.saw.appends[i].outcome == LIN_UNKNOWN;
	ok = why[0] == '\0' && lin_check(&last.saw, why);
	lin_free(&last.saw);
	free(p->shard);
	return ok;
}
