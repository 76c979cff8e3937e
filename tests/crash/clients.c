/* clients.c - who loads the mount: each turn of a client is one thing done, begun by the gate. What a crash
 * leaves open is taken up in the next turn. */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <poll.h>
#include <uuid/uuid.h>

enum { TXS_ENOUGH = 1200, ROUNDS_ENOUGH = 15, SMALL_WINDOW = 6 };

/* The shard is another one: forget what was about the last. */
static struct shard *mine(struct client *c)
{
	struct shard *s = c->slot->shard;

	if (c->of != s) {
		listen_close(c);
		free(c->text);
		c->text = NULL;
		c->pending = NONE;
		c->own_count = 0;
		c->of = s;
	}
	return s;
}

/* An error that nothing explains. */
static void expect(struct client *c, const struct shard *s, const char *what, int e)
{
	if (e != 0 && !excused(c, e))
		program_fail("%s: %s: %s", s->id, what, strerrorname_np(e));
}

/* --- transactions ---------------------------------------------------------------------------------- */

static unsigned to_undo(const struct client *c, unsigned window)
{
	return c->own_count > window ? c->own[0] : NONE;
}

/* What is now known of transaction n, which undid one of ours or none. */
static void settle_own(struct client *c, const struct shard *s, unsigned n, int e)
{
	bool undid = s->txs[n].undoes != NONE;

	if (undid && e != ESTALE) {
		memmove(c->own, c->own + 1, (c->own_count - 1) * sizeof *c->own);
		c->own_count--;
	}
	if (e == 0 && c->own_count < sizeof c->own / sizeof *c->own)
		c->own[c->own_count++] = n;
}

char *new_token(char token[40])
{
	uuid_t u;

	uuid_generate_random(u);
	token[0] = 'i';
	uuid_unparse_lower(u, token + 1);
	return token;
}

/* Send a new transaction; with a token its fate is asked for until it is known. */
static int send_new(struct client *c, struct shard *s, const char *lower, bool with_token, unsigned rows,
		    unsigned bytes, unsigned window)
{
	unsigned n = tx_plan(s, rows, bytes, to_undo(c, window));
	struct send how = {.n = n, .lower = lower};
	char token[40], *text;
	size_t len;
	int e;

	if (n == NONE)
		return 0;
	how.token = with_token ? new_token(token) : NULL;
	s->txs[n].again = with_token;
	text = tx_text(s, &how, &len);
	e = tx_send(c, s, n, text, len);
	if (e == 0 || e == ESTALE || !with_token) {
		settle_own(c, s, n, e);
		free(text);
	} else {
		c->pending = n;
		c->text = text;
		c->text_len = len;
	}
	if (e != ESTALE)
		expect(c, s, "append", e);
	return e;
}

static void send_again(struct client *c, struct shard *s)
{
	int e = tx_send(c, s, c->pending, c->text, c->text_len);

	counted(N_AGAIN, e == 0);
	if (e == 0 || e == ESTALE) {
		settle_own(c, s, c->pending, e);
		c->pending = NONE;
		free(c->text);
		c->text = NULL;
	} else {
		expect(c, s, "append, sent again", e);
	}
}

/* Mostly a few bytes, sometimes too much to be kept in the state. */
static unsigned some_bytes(struct client *c)
{
	return rng_below(&c->r, 8) == 0 ? 5000 + (unsigned)rng_below(&c->r, 8000)
					: (unsigned)rng_below(&c->r, 60);
}

static void append(struct client *c, bool cas, bool token)
{
	enum doing what = token ? D_TOKEN : D_APPEND;
	struct shard *s = mine(c);
	char lower[24] = "*";
	uint64_t upper;
	int e;

	atomic_fetch_add(&doing[what], 1);
	if (c->pending != NONE) {
		send_again(c, s);
	} else {
		e = cas ? frontier_of(s, "upper", &upper) : 0;
		if (cas && e == 0)
			snprintf(lower, sizeof lower, "%" PRIu64, upper);
		expect(c, s, "upper", e);
		if (e == 0 && (!cas || upper != NEVER))
			send_new(c, s, lower, token, 1 + (unsigned)rng_below(&c->r, 3), some_bytes(c),
				 SMALL_WINDOW);
	}
	atomic_fetch_sub(&doing[what], 1);
}

static void cas_turn(struct client *c)
{
	append(c, true, false);
}

static void blind_turn(struct client *c)
{
	append(c, false, false);
}

static void token_turn(struct client *c)
{
	append(c, c->index % 2 == 0, true);
}

/* Some MiB once in a while: parts are shipped while it comes in. */
static void large_turn(struct client *c)
{
	struct shard *s = mine(c);
	bool huge = rng_below(&c->r, 12) == 0;

	rest_us(rng_below(&c->r, 150000));
	if (rng_below(&c->r, 3) != 0)
		return;
	atomic_fetch_add(&doing[D_LARGE], 1);
	send_new(c, s, "*", false, huge ? 130 : 40, huge ? 128 << 10 : 16 << 10, 0);
	atomic_fetch_sub(&doing[D_LARGE], 1);
}

/* Waits until others have moved the upper, and goes on from there. */
static void waiter_turn(struct client *c)
{
	struct shard *s = mine(c);
	char name[48], lower[24], *text;
	uint64_t upper;
	int e = frontier_of(s, "upper", &upper);

	expect(c, s, "upper", e);
	if (e != 0 || upper == NEVER)
		return;
	upper_told(s, upper);
	snprintf(name, sizeof name, "wait/%" PRIu64, upper);
	text = slurp_rc(at(s->dir, name));
	if (text == NULL) {
		expect(c, s, name, errno);
		return;
	}
	counted(N_WAITED, 1);
	snprintf(lower, sizeof lower, "%llu", strtoull(text, NULL, 10));
	if (text[0] != '-' && text[0] != '\0') {
		upper_told(s, strtoull(text, NULL, 10));
		send_new(c, s, lower, false, 1, some_bytes(c), SMALL_WINDOW);
	}
	free(text);
}

/*
 * What was not synced is empty after a crash, and may be named so: who would send a commit again syncs
 * before. Who does not is not told what became of it.
 */
void staged_turn(struct client *c)
{
	struct shard *s = mine(c);
	struct send how = {.lower = "*", .pieces = true};
	unsigned rows = 1 + (unsigned)rng_below(&c->r, 30), n;
	char token[40];
	int e = 0;

	if (s->staged_for == NONE &&
	    !pieces_plan(s, rows, some_bytes(c), to_undo(c, 3), rng_below(&c->r, 4) != 0))
		return;
	n = s->staged_for;
	if (c->pending == NONE) {
		e = op_restage(c, s);
		if (e == 0 && s->txs[n].again)
			e = op_sync(s);
		expect(c, s, "staging", e);
		if (e != 0)
			return;
		how.n = n;
		how.token = s->txs[n].again ? new_token(token) : NULL;
		c->text = tx_text(s, &how, &c->text_len);
		c->pending = n;
	}
	atomic_fetch_add(&doing[D_COMMIT], 1);
	e = tx_send(c, s, n, c->text, c->text_len);
	atomic_fetch_sub(&doing[D_COMMIT], 1);
	counted(N_STAGED, e == 0);
	if (e != ESTALE)
		expect(c, s, "commit of staged batches", e);
	if (e == 0 || e == ESTALE || !s->txs[n].again) {
		settle_own(c, s, n, e);
		c->pending = s->staged_for = NONE;
		free(c->text);
		c->text = NULL;
	}
}

/* --- others ---------------------------------------------------------------------------------------- */

static void listener_turn(struct client *c)
{
	struct shard *s = mine(c);
	char ask[48], then[PROMISE_LEN];
	bool end;
	int e = op_listen(c, s, &end);

	if (e != EAGAIN && e != 0) {
		expect(c, s, "listen", e);
		listen_close(c);
		return;
	}
	if (e == EAGAIN && rng_below(&c->r, 10) == 0) {
		snprintf(ask, sizeof ask, "listen=%" PRIu64, s->heard_to);
		snprintf(then, sizeof then, "%" PRIu64 "\t0", s->heard_to != 0 ? s->heard_to - 1 : 0);
		expect(c, s, "holds/ears", promise_write(c, s, P_EARS, "holds/ears", ask, then));
	}
	if (e == EAGAIN && !c->broken) {
		struct pollfd fd = {.fd = c->fd, .events = POLLIN};

		(void)poll(&fd, 1, 20);
	} else {
		rest_us(5000);
	}
	if (c->broken)
		listen_close(c);
}

static void observer_turn(struct client *c)
{
	struct shard *s = mine(c);
	uint64_t upper;
	char *text;
	int e = frontier_of(s, "upper", &upper);

	if (e == 0)
		upper_told(s, upper);
	expect(c, s, "upper", e);
	text = e == 0 && upper != NEVER ? slurp_rc(at(s->dir, "snapshot")) : NULL;
	if (text != NULL)
		snapshot_seen(s, text);
	else if (e == 0 && upper != NEVER)
		expect(c, s, "snapshot", errno);
	free(text);
	rest_us(rng_below(&c->r, 60000));
}

static int move_plain(struct client *c, struct shard *s, uint64_t upper)
{
	struct promise *p = &s->promises[P_PLAIN];
	uint64_t now, since;
	char ask[40], then[PROMISE_LEN];

	if (p->unsure && !promise_settle(c, s, P_PLAIN))
		return ENOTCONN;
	if (p->acked[0] != '\0' && rng_below(&c->r, 3) == 0)
		return promise_write(c, s, P_PLAIN, "holds/plain", NULL, "");
	now = strtoull(p->acked, NULL, 10);
	since = upper > now ? now + rng_below(&c->r, upper - now) : now;
	snprintf(ask, sizeof ask, "%" PRIu64, since);
	snprintf(then, sizeof then, "%" PRIu64 "\t0", since);
	return promise_write(c, s, P_PLAIN, "holds/plain", ask, then);
}

static int change_mode(struct client *c, struct shard *s)
{
	struct promise *p = &s->promises[P_MODE];
	bool closed;
	int e;

	if (p->unsure && !promise_settle(c, s, P_MODE))
		return ENOTCONN;
	closed = strcmp(p->acked, "700") == 0;
	promise_try(p, closed ? "755" : "700");
	e = chmod(s->dir, closed ? 0755 : 0700) == 0 ? 0 : errno;
	promise_end(c, p, e);
	return e;
}

static void holder_turn(struct client *c)
{
	struct shard *s = mine(c);
	uint64_t upper;
	int e = frontier_of(s, "upper", &upper);

	if (e == 0 && upper != NEVER) {
		switch (rng_below(&c->r, 6)) {
		case 0:
			e = move_plain(c, s, upper);
			break;
		case 1:
			e = change_mode(c, s);
			break;
		case 2:
			e = op_name(c, s);
			break;
		default:
			e = op_keep(c, s, upper > 30 ? upper - 30 + rng_below(&c->r, 30) : 0);
		}
	}
	if (e != ENODATA) /* a hold cannot be made below since */
		expect(c, s, "holds, name, mode", e);
	rest_us(rng_below(&c->r, 20000));
}

static void ctl_turn(struct client *c)
{
	static const char *const words[] = {"compact", "gc", "rollup"};
	struct shard *s = mine(c);
	const char *word = words[rng_below(&c->r, 3)];

	expect(c, s, word, op_ctl(c, s, word));
	rest_us(rng_below(&c->r, 30000));
}

/* --- the life of shards ---------------------------------------------------------------------------- */

/*
 * Finished, and this client alone has it. Steps 5 to 7 of its life: the listener comes to its end; all is
 * compared, by the one who looks at rest (random.c); its holds go, and then it.
 */
static void end_life(struct client *c, struct shard *s)
{
	bool end = false;
	int e = 0;

	if (s->setup == 5 && s->heard_to != NEVER) {
		e = op_listen(c, s, &end);
		e = e == EAGAIN ? 0 : e;
	} else if (s->setup == 6) {
		e = op_let_go(c, s);
		s->setup += e == 0;
	} else if (s->setup == 7) {
		e = op_remove(c, s);
		s->setup += e == 0;
	} else if (s->setup == 8) {
		e = s->promises[P_NAME].acked[0] != '\0' || s->promises[P_NAME].unsure ? op_name(c, s) : 0;
		if (e == 0 && s->promises[P_NAME].acked[0] == '\0') {
			c->slot->rounds = 0;
			c->slot->shard = NULL; /* others may still look which one it was: it is not freed */
			c->of = NULL;
		}
	}
	expect(c, s, "the end of a shard", e);
	if (c->broken || c->of == NULL)
		listen_close(c);
	rest_us(1000);
}

static void life_turn(struct client *c)
{
	struct shard *s = c->slot->shard;

	if (s == NULL) {
		s = shard_plan(&c->r);
		c->slot->shard = s;
	}
	if (!s->ready && s->setup < 5) {
		expect(c, s, "making a shard", steps_of_setup(c, s));
	} else if (s->finished == UNKNOWN || s->count > TXS_ENOUGH || c->slot->rounds > ROUNDS_ENOUGH) {
		if (s->finished != THERE)
			expect(c, s, "finishing a shard", op_finish(c, s));
	}
	rest_us(2000);
}

void *client_main(void *arg)
{
	static void (*const turns[CLIENT_KINDS])(struct client * c) = {
		life_turn,  cas_turn,      cas_turn,      blind_turn,  token_turn, token_turn,  waiter_turn,
		large_turn, listener_turn, observer_turn, holder_turn, ctl_turn,   staged_turn,
	};
	struct client *c = arg;
	bool life = c->kind == 0, alone = false;

	c->pending = NONE;
	c->fd = -1;
	while (turn_begin(c, life, alone)) {
		if (alone)
			end_life(c, c->slot->shard);
		else
			turns[c->kind](c);
		turn_end(c, alone);
		/* The shard is finished: others end their turns, and find nothing to begin. */
		alone = life && c->slot->shard != NULL && c->slot->shard->finished == THERE;
		if (alone)
			c->slot->shard->ready = false;
	}
	listen_close(c);
	free(c->text);
	return NULL;
}
