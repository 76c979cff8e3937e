/* ops.c - what a client does to a shard, each with what it notes before and after. */
#include "tests/crash/crash.h"

#include <inttypes.h>
#include <limits.h>

_Atomic int doing[DOINGS];
const char *const doing_words[DOINGS] = {
	"append",
	"append with a token",
	"append of MiB",
	"staging",
	"commit of staged batches",
	"ctl compact",
	"ctl gc",
	"ctl rollup",
	"hold moved",
	"name, mode",
	"mkdir",
	"finish, rmdir",
};
_Atomic bool death_expected;

bool excused(struct client *c, int e)
{
	bool expected = atomic_load(&death_expected); /* before the number: it ends after that has changed */
	/* ECONNREFUSED: it died before it had answered the first request, which tells what it can. */
	bool died = e == ENOTCONN || e == ECONNABORTED || e == EIO || e == ENODEV || e == ESHUTDOWN ||
		    e == ECONNREFUSED;

	/* A mount that is started clears the dead one away; then the path leads to nothing. */
	if (!died && e != ENOENT)
		return false;
	c->broken = c->mount != atomic_load(&mount_number) || (died && expected);
	return c->broken;
}

int frontier_of(const struct shard *s, const char *file, uint64_t *out)
{
	char *text = slurp_rc(at(s->dir, file));

	if (text == NULL)
		return errno;
	*out = text[0] == '-' ? NEVER : strtoull(text, NULL, 10);
	if (strchr("-0123456789", text[0]) == NULL || text[0] == '\0')
		program_fail("%s: %s is \"%s\"", s->id, file, text);
	free(text);
	return 0;
}

/* --- transactions ---------------------------------------------------------------------------------- */

char *tx_text(struct shard *s, const struct send *how, size_t *len)
{
	const struct tx *tx = &s->txs[how->n];
	bool blind = how->lower[0] == '*';
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	ck_assert_ptr_nonnull(f);
	if (blind)
		fprintf(f, "begin expected_upper=* new_upper=+1");
	else
		fprintf(f, "begin expected_upper=%s new_upper=%llu", how->lower,
			strtoull(how->lower, NULL, 10) + 1);
	if (how->pieces)
		fprintf(f, " rewrite_ts=%s", how->lower);
	fprintf(f, how->token != NULL ? " token=%s\n" : "\n", how->token);
	rows_put(f, s, how->n, 0, how->pieces ? s->pieces[0].from : tx->rows, how->lower, 1);
	if (tx->undoes != NONE)
		rows_put(f, s, tx->undoes, 0, s->txs[tx->undoes].rows, how->lower, -1);
	for (int i = 0; how->pieces && i < PIECES; i++)
		fprintf(f, "batch %s\n", s->pieces[i].name[s->pieces[i].which]);
	fprintf(f, "commit\n");
	fclose(f);
	return text;
}

static void note_verdict(struct shard *s, unsigned n, int fd)
{
	char line[TEXT_MAX];
	ssize_t len = read(fd, line, sizeof line - 1);
	uint64_t lower = NEVER;

	if (len > 0) {
		line[len] = '\0';
		if (sscanf(line, "ok lower=%" SCNu64 " ", &lower) != 1)
			program_fail("%s: transaction %u was done, and its verdict is %s", s->id, n, line);
	}
	tx_told(s, n, THERE, lower);
	counted(N_ACKED, 1);
}

int tx_send(struct client *c, struct shard *s, unsigned n, const char *text, size_t len)
{
	int fd = open(at(s->dir, "append"), O_RDWR | O_CLOEXEC), e = fd < 0 ? errno : 0;

	if (fd < 0) {
		if (!s->txs[n].again)
			tx_told(s, n, ABSENT, NEVER);
		return e;
	}
	tx_told(s, n, UNKNOWN, NEVER);
	e = put_all(fd, text, len);
	if (e == 0) {
		note_verdict(s, n, fd);
	} else if (e == ESTALE) {
		tx_told(s, n, ABSENT, NEVER);
		counted(N_REFUSED, 1);
	} else if (excused(c, e)) {
		counted(N_UNKNOWN, 1);
	}
	close(fd);
	return e;
}

/* --- promises -------------------------------------------------------------------------------------- */

static void name_path(const struct shard *s, char which, char *path, size_t size)
{
	snprintf(path, size, "%s/name/crash-%.8s-%c", world.mnt, s->id + 1, which);
}

static int look_name(const struct shard *s, char *out)
{
	char path[PATH_MAX], target[PATH_MAX];
	size_t len = 0;

	for (char which = 'a'; which <= 'b'; which++) {
		ssize_t n;

		name_path(s, which, path, sizeof path);
		n = readlink(path, target, sizeof target - 1);
		if (n < 0 && errno != ENOENT)
			return errno;
		if (n < 0)
			continue;
		target[n] = '\0';
		if (strstr(target, s->id) == NULL)
			program_fail("%s: a name of it leads to %s", s->id, target);
		out[len++] = which;
	}
	out[len] = '\0';
	return 0;
}

static int look_hold(const struct shard *s, const char *name, char *out)
{
	char *text = slurp_rc(at(at(s->dir, "holds"), name));

	out[0] = '\0';
	if (text == NULL)
		return errno == ENOENT ? 0 : errno;
	snprintf(out, PROMISE_LEN, "%.*s", (int)strcspn(text, "\n"), text);
	free(text);
	return 0;
}

static int look_dir(const struct shard *s, bool mode, char *out)
{
	struct stat st;

	out[0] = '\0';
	if (stat(s->dir, &st) != 0)
		return errno == ENOENT ? 0 : errno;
	if (mode)
		snprintf(out, PROMISE_LEN, "%o", (unsigned)st.st_mode & 0777);
	else
		snprintf(out, PROMISE_LEN, "there");
	return 0;
}

static int look(const struct shard *s, int which, char *out)
{
	switch (which) {
	case P_NAME:
		return look_name(s, out);
	case P_KEEP:
		return look_hold(s, "keep", out);
	case P_PLAIN:
		return look_hold(s, "plain", out);
	case P_EARS:
		return look_hold(s, "ears", out);
	default:
		return look_dir(s, which == P_MODE, out);
	}
}

bool promise_settle(struct client *c, struct shard *s, int which)
{
	static const char *const words[PROMISES] = {"the shard",   "its name",   "holds/keep",
						    "holds/plain", "holds/ears", "its mode"};
	struct promise *p = &s->promises[which];
	char found[PROMISE_LEN];
	int e = look(s, which, found);

	if (c->mount != atomic_load(&mount_number) || (e != 0 && excused(c, e))) {
		c->broken = true;
		errno = e;
		return false;
	}
	if (e != 0)
		program_fail("%s: %s: %s", s->id, words[which], strerrorname_np(e));
	if (strcmp(found, p->acked) != 0 && !(p->unsure && strcmp(found, p->tried) == 0))
		program_fail("%s: %s is \"%s\"; acknowledged was \"%s\"%s%s%s", s->id, words[which], found,
			     p->acked, p->unsure ? ", tried \"" : "", p->unsure ? p->tried : "",
			     p->unsure ? "\"" : "");
	snprintf(p->acked, sizeof p->acked, "%s", found);
	p->unsure = false;
	return true;
}

void promise_try(struct promise *p, const char *then)
{
	snprintf(p->tried, sizeof p->tried, "%s", then);
	p->unsure = true;
}

void promise_end(struct client *c, struct promise *p, int e)
{
	if (e == 0) {
		snprintf(p->acked, sizeof p->acked, "%s", p->tried);
		p->unsure = false;
		counted(N_PROMISES, 1);
	} else if (excused(c, e)) {
		counted(N_UNSURE, 1);
	} else {
		p->unsure = false;
	}
}

/* One write(2) to a file that the first write makes; 0 or errno. */
static int say(const struct shard *s, const char *file, const char *text)
{
	int fd = open(at(s->dir, file), O_WRONLY | O_CREAT | O_CLOEXEC, 0666), e;
	ssize_t n;

	if (fd < 0)
		return errno;
	n = put(fd, text);
	e = n < 0 ? (int)-n : 0;
	close(fd);
	return e;
}

int promise_write(struct client *c, struct shard *s, int which, const char *file, const char *text,
		  const char *then)
{
	struct promise *p = &s->promises[which];
	int e;

	if (p->unsure && !promise_settle(c, s, which))
		return ENOTCONN;
	atomic_fetch_add(&doing[D_HOLD], 1);
	promise_try(p, then);
	e = text != NULL ? say(s, file, text) : unlink(at(s->dir, file)) == 0 ? 0 : errno;
	promise_end(c, p, e);
	atomic_fetch_sub(&doing[D_HOLD], 1);
	return e;
}

int op_keep(struct client *c, struct shard *s, uint64_t since)
{
	struct promise *p = &s->promises[P_KEEP];
	uint64_t token, now;
	char ask[80], then[PROMISE_LEN];
	char *tab;

	if (p->unsure && !promise_settle(c, s, P_KEEP))
		return ENOTCONN;
	tab = strchr(p->acked, '\t');
	token = tab != NULL ? strtoull(tab + 1, NULL, 10) : 0;
	now = p->acked[0] == '-' ? NEVER : strtoull(p->acked, NULL, 10);
	since = since < now ? now : since;
	if (since == NEVER) {
		snprintf(ask, sizeof ask, "expected=%" PRIu64 " token=%" PRIu64 " since=-", token, token + 1);
		snprintf(then, sizeof then, "-\t%" PRIu64, token + 1);
	} else {
		snprintf(ask, sizeof ask, "expected=%" PRIu64 " token=%" PRIu64 " since=%" PRIu64, token,
			 token + 1, since);
		snprintf(then, sizeof then, "%" PRIu64 "\t%" PRIu64, since, token + 1);
	}
	return promise_write(c, s, P_KEEP, "holds/keep", ask, then);
}

/* From no name to a, from there to b and back, or to none again. */
int op_name(struct client *c, struct shard *s)
{
	struct promise *p = &s->promises[P_NAME];
	char target[64], from[PATH_MAX], to[PATH_MAX], other;
	bool made, removed;
	int rc;

	if (p->unsure && !promise_settle(c, s, P_NAME))
		return ENOTCONN;
	made = p->acked[0] == '\0';
	removed = !made && rng_below(&c->r, 4) == 0;
	other = p->acked[0] == 'a' ? 'b' : 'a';
	snprintf(target, sizeof target, "../shard/%s", s->id);
	name_path(s, p->acked[0], from, sizeof from);
	name_path(s, other, to, sizeof to);
	atomic_fetch_add(&doing[D_NAME], 1);
	promise_try(p, removed ? "" : (char[]){other, '\0'});
	if (made)
		rc = symlink(target, to);
	else
		rc = removed ? unlink(from) : rename(from, to);
	rc = rc == 0 ? 0 : errno;
	promise_end(c, p, rc);
	atomic_fetch_sub(&doing[D_NAME], 1);
	return rc;
}

/* --- maintenance, begin and end -------------------------------------------------------------------- */

int op_ctl(struct client *c, struct shard *s, const char *word)
{
	enum doing what = word[0] == 'c' ? D_COMPACT : word[0] == 'g' ? D_GC : D_ROLLUP;
	int e;

	(void)c;
	atomic_fetch_add(&doing[what], 1);
	e = say(s, "ctl", word);
	atomic_fetch_sub(&doing[what], 1);
	counted(N_CTL, e == 0);
	return e;
}

int op_make(struct client *c, struct shard *s)
{
	struct promise *p = &s->promises[P_SHARD];
	int e;

	if (p->unsure && !promise_settle(c, s, P_SHARD))
		return ENOTCONN;
	if (p->acked[0] != '\0')
		return 0;
	atomic_fetch_add(&doing[D_MKDIR], 1);
	promise_try(p, "there");
	e = mkdir(s->dir, 0755) == 0 ? 0 : errno;
	promise_end(c, p, e);
	atomic_fetch_sub(&doing[D_MKDIR], 1);
	counted(N_CREATED, e == 0);
	snprintf(s->promises[P_MODE].acked, PROMISE_LEN, "755");
	return e;
}

int steps_of_setup(struct client *c, struct shard *s)
{
	int e = 0;

	for (; e == 0 && s->setup < 5; s->setup += e == 0) {
		switch (s->setup) {
		case 0:
			e = op_make(c, s);
			break;
		case 1:
			e = promise_write(c, s, P_EARS, "holds/ears", "listen=0", "0\t0");
			break;
		case 2:
			e = op_keep(c, s, 0);
			break;
		case 3:
			e = say(s, "since", "upper-20");
			break;
		default:
			e = op_name(c, s);
		}
	}
	s->ready = s->setup == 5;
	return e;
}

int op_finish(struct client *c, struct shard *s)
{
	int fd = open(at(s->dir, "append"), O_RDWR | O_CLOEXEC), e;

	if (fd < 0)
		return errno;
	atomic_fetch_add(&doing[D_RMDIR], 1);
	if (s->finished == ABSENT)
		s->finished = UNKNOWN;
	e = put(fd, "begin expected_upper=* new_upper=-\ncommit\n") > 0 ? 0 : errno;
	close(fd);
	if (e == 0 || (e == ESTALE && s->finished == UNKNOWN)) {
		s->finished = THERE;
		e = 0;
	} else if (!excused(c, e)) {
		program_fail("%s: it cannot be finished: %s", s->id, strerrorname_np(e));
	}
	atomic_fetch_sub(&doing[D_RMDIR], 1);
	return e;
}

int op_let_go(struct client *c, struct shard *s)
{
	static const struct {
		int which;
		const char *file;
	} plain[] = {{P_PLAIN, "holds/plain"}, {P_EARS, "holds/ears"}};
	int e = 0;

	for (size_t i = 0; i < 2 && e == 0; i++) {
		if (s->promises[plain[i].which].unsure && !promise_settle(c, s, plain[i].which))
			return ENOTCONN;
		if (s->promises[plain[i].which].acked[0] != '\0')
			e = promise_write(c, s, plain[i].which, plain[i].file, NULL, "");
	}
	if (e == 0)
		e = op_keep(c, s, NEVER);
	return e != 0 ? e : say(s, "since", "-");
}

int op_remove(struct client *c, struct shard *s)
{
	struct promise *p = &s->promises[P_SHARD];
	int e;

	if (p->unsure && !promise_settle(c, s, P_SHARD))
		return ENOTCONN;
	if (p->acked[0] == '\0')
		return 0;
	atomic_fetch_add(&doing[D_RMDIR], 1);
	promise_try(p, "");
	e = rmdir(s->dir) == 0 ? 0 : errno;
	promise_end(c, p, e);
	atomic_fetch_sub(&doing[D_RMDIR], 1);
	counted(N_REMOVED, e == 0);
	return e;
}
