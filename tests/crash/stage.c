/* stage.c - staged batches, made for a transaction that commits several with a row of its own; and the
 * listener. */
#include "tests/crash/crash.h"

#include <inttypes.h>

/* --- staging --------------------------------------------------------------------------------------- */

static const char *piece_path(const struct shard *s, const struct piece *p, bool other)
{
	return at(at(s->dir, "batches"), p->name[p->which ^ (unsigned)other]);
}

static char *piece_text(const struct shard *s, const struct piece *p, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	ck_assert_ptr_nonnull(f);
	rows_put(f, s, s->staged_for, p->from, p->to, "0", 1);
	fclose(f);
	return text;
}

bool pieces_plan(struct shard *s, unsigned rows, unsigned bytes, unsigned undoes, bool again)
{
	unsigned n = tx_plan(s, 1 + PIECES * rows, bytes, undoes);

	if (n == NONE)
		return false;
	for (unsigned i = 0; i < PIECES; i++) {
		struct piece *p = &s->pieces[i];

		*p = (struct piece){.from = 1 + i * rows, .to = 1 + (i + 1) * rows};
		snprintf(p->name[0], PIECE_NAME, "t%u.%u", n, i);
		snprintf(p->name[1], PIECE_NAME, "t%u.%u_", n, i);
	}
	s->txs[n].again = again;
	s->staged_for = n;
	return true;
}

/* Which name it has, if it died while it got the other; 0 or errno. */
static int settle_name(struct client *c, struct shard *s, struct piece *p)
{
	bool old = access(piece_path(s, p, false), F_OK) == 0, new;
	int e = old ? 0 : errno;

	if (!old && e != ENOENT)
		return e;
	new = access(piece_path(s, p, true), F_OK) == 0;
	e = new ? 0 : errno;
	if (!new &&e != ENOENT)
		return e;
	if (c->mount != atomic_load(&mount_number))
		return ENOTCONN;
	if (old && new)
		program_fail("%s: %s has two names after its rename", s->id, p->name[0]);
	if (p->synced && !old && !new)
		program_fail("%s: %s is lost, though it was synced", s->id, p->name[0]);
	p->which ^= new;
	p->made = p->synced;
	p->renaming = false;
	return 0;
}

static int write_piece(struct client *c, struct shard *s, struct piece *p)
{
	int fd = open(piece_path(s, p, false), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	int e = fd < 0 ? errno : 0;
	char *text;
	size_t len;

	if (fd < 0)
		return e;
	text = piece_text(s, p, &len);
	e = put_all(fd, text, len / 2);
	if (e == 0)
		e = put_all(fd, text + len / 2, len - len / 2);
	free(text);
	p->made = e == 0;
	if (e == 0 && rng_below(&c->r, 3) != 0) {
		e = fsync(fd) == 0 ? 0 : errno;
		p->synced = e == 0;
	}
	close(fd);
	/* Not once its name stands in a transaction that is sent again. */
	if (e == 0 && c->pending == NONE && rng_below(&c->r, 4) == 0) {
		p->renaming = true;
		e = rename(piece_path(s, p, false), piece_path(s, p, true)) == 0 ? 0 : errno;
		if (e == 0) {
			p->which ^= 1;
			p->renaming = false;
		}
	}
	return e;
}

int op_stage(struct client *c, struct shard *s)
{
	int e = 0;

	atomic_fetch_add(&doing[D_STAGE], 1);
	for (int i = 0; i < PIECES && e == 0; i++) {
		struct piece *p = &s->pieces[i];

		if (p->renaming)
			e = settle_name(c, s, p);
		if (e == 0 && !p->made)
			e = write_piece(c, s, p);
	}
	atomic_fetch_sub(&doing[D_STAGE], 1);
	return e;
}

int op_restage(struct client *c, struct shard *s)
{
	for (int i = 0; i < PIECES; i++) {
		counted(N_RESTAGED, s->pieces[i].made && !s->pieces[i].synced);
		s->pieces[i].made = s->pieces[i].synced;
	}
	return op_stage(c, s);
}

int op_sync(struct shard *s)
{
	int e = 0;

	atomic_fetch_add(&doing[D_STAGE], 1);
	for (int i = 0; i < PIECES && e == 0; i++) {
		struct piece *p = &s->pieces[i];
		int fd = p->synced ? -1 : open(piece_path(s, p, false), O_RDONLY | O_CLOEXEC);

		if (p->synced)
			continue;
		e = fd < 0 || fsync(fd) != 0 ? errno : 0;
		p->synced = e == 0;
		if (fd >= 0)
			close(fd);
	}
	atomic_fetch_sub(&doing[D_STAGE], 1);
	return e;
}

void pieces_look(struct shard *s, bool committed)
{
	for (int i = 0; i < PIECES; i++) {
		struct piece *p = &s->pieces[i];
		char *found = slurp_rc(piece_path(s, p, false)), *want;
		size_t len;

		if (found == NULL && p->renaming)
			found = slurp_rc(piece_path(s, p, true));
		if (found == NULL)
			ck_assert_msg(errno == ENOENT, "%s: %s", p->name[p->which], strerrorname_np(errno));
		if (found != NULL && committed)
			program_fail("%s: %s is committed, and is there still", s->id, p->name[p->which]);
		if (found == NULL && p->synced && !committed)
			program_fail("%s: %s was synced, and is lost", s->id, p->name[p->which]);
		if (found != NULL && p->synced) {
			want = piece_text(s, p, &len);
			if (strcmp(found, want) != 0)
				program_fail("%s: %s is not what was synced", s->id, p->name[p->which]);
			free(want);
		}
		free(found);
	}
}

/* --- the listener ---------------------------------------------------------------------------------- */

void listen_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	free(c->in.p);
	c->in.p = NULL;
	c->in.len = 0;
}

/* Take the whole transactions of what was read. */
static void hear(struct client *c, struct shard *s)
{
	char *p = c->in.p, *end, *rows;

	while (c->in.len != 0 && (end = strstr(p, "\ncommit\n")) != NULL) {
		uint64_t lower, upper = NEVER;

		if (sscanf(p, "begin lower=%" SCNu64 " upper=%" SCNu64 "\n", &lower, &upper) < 1)
			program_fail("%s: a listener got %.100s", s->id, p);
		rows = strchr(p, '\n') + 1;
		step_heard(s, lower, upper, rows);
		p = end + 8;
	}
	c->in.len -= (size_t)(p - c->in.p);
	memmove(c->in.p, p, c->in.len + 1);
}

int op_listen(struct client *c, struct shard *s, bool *end)
{
	enum { CHUNK = 256 << 10 };
	char name[48];
	ssize_t n = 1;

	if (c->fd_mount != c->mount)
		listen_close(c);
	c->fd_mount = c->mount;
	*end = s->heard_to == NEVER;
	if (c->fd < 0 && !*end) {
		snprintf(name, sizeof name, "listen/%" PRIu64, s->heard_to);
		c->fd = open(at(s->dir, name), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (c->fd < 0)
			return errno;
	}
	while (n > 0 && !*end) {
		c->in.p = realloc(c->in.p, c->in.len + CHUNK + 1);
		ck_assert_ptr_nonnull(c->in.p);
		n = read(c->fd, c->in.p + c->in.len, CHUNK);
		if (n < 0)
			return errno;
		c->in.len += (size_t)n;
		c->in.p[c->in.len] = '\0';
		if (n > 0)
			hear(c, s);
		if (n == 0 && s->heard_to != NEVER)
			program_fail("%s: a listener came to an end at %" PRIu64, s->id, s->heard_to);
		*end = n == 0;
	}
	return 0;
}
