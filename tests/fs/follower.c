/* follower.c - see follower.h. */
#include "tests/fs/follower.h"

#include <inttypes.h>

void follower_open(struct follower *f, const char *path, uint64_t from, int flags)
{
	*f = (struct follower){.fd = open(path, O_RDONLY | O_CLOEXEC | flags), .at = from};
	ck_assert_msg(f->fd >= 0, "open %s: %s", path, strerrorname_np(errno));
}

/* "<f>" at p, ended by `end`; where it goes on. */
static const char *frontier(const char *p, char end, uint64_t *time, bool *none)
{
	char *stop;

	*none = *p == '-';
	*time = strtoull(p, &stop, 10);
	stop += *none;
	ck_assert_msg(stop != p && *stop == end, "no frontier: %s", p);
	return stop + 1;
}

static void begin(struct follower *f, const char *line)
{
	uint64_t lower;
	bool none;
	const char *p = line;

	ck_assert_msg(strncmp(p, "begin lower=", 12) == 0, "%s", line);
	p = frontier(p + 12, ' ', &lower, &none);
	ck_assert_msg(!f->finished && !none && lower == f->at, "at %" PRIu64 ": %s", f->at, line);
	ck_assert_msg(strncmp(p, "upper=", 6) == 0, "%s", line);
	frontier(p + 6, '\0', &f->upper, &f->finishing);
	ck_assert_msg(f->finishing || f->upper > lower, "%s", line);
	f->inside = true;
}

static void one_row(struct follower *f, char *line)
{
	struct row row;
	char *p;

	row.time = strtoull(line, &p, 10);
	ck_assert_msg(p != line && *p == '\t', "%s", line);
	ck_assert_msg(row.time >= f->at && (f->finishing || row.time < f->upper), "from %" PRIu64 " to %" PRIu64 ": %s",
		      f->at, f->upper, line);
	row.diff = strtoll(p + 1, &p, 10);
	ck_assert_msg(*p == '\t' && row.diff != 0, "%s", line);
	row.key = p + 1;
	p = strchr(p + 1, '\t');
	ck_assert_ptr_nonnull(p);
	*p = '\0';
	row.val = p + 1;
	ck_assert_ptr_null(strchr(p + 1, '\t'));
	f->rows++;
	if (f->row != NULL)
		f->row(f, &row);
}

static void one_line(struct follower *f, char *line)
{
	if (!f->inside) {
		begin(f, line);
	} else if (strcmp(line, "commit") != 0) {
		one_row(f, line);
	} else {
		f->at = f->upper;
		f->finished = f->finishing;
		f->inside = false;
		f->steps++;
	}
}

static void feed(struct follower *f, const char *text, size_t len)
{
	char *newline;
	size_t done = 0;

	if (f->len + len + 1 > f->cap) {
		f->cap = 2 * (f->len + len + 1);
		f->line = realloc(f->line, f->cap);
		ck_assert_ptr_nonnull(f->line);
	}
	memcpy(f->line + f->len, text, len);
	f->len += len;
	while ((newline = memchr(f->line + done, '\n', f->len - done)) != NULL) {
		*newline = '\0';
		one_line(f, f->line + done);
		done = (size_t)(newline + 1 - f->line);
	}
	memmove(f->line, f->line + done, f->len - done);
	f->len -= done;
}

ssize_t follower_read(struct follower *f, size_t size)
{
	char *buf = malloc(size);
	ssize_t n = read(f->fd, buf, size);
	int e = errno;

	ck_assert_ptr_nonnull(buf);
	if (n > 0) {
		f->bytes += (size_t)n;
		feed(f, buf, (size_t)n);
	}
	free(buf);
	if (n == 0) {
		ck_assert_msg(f->finished && !f->inside && f->len == 0, "an end at %" PRIu64, f->at);
		f->ended = true;
	}
	return n < 0 ? -e : n;
}

void follower_drain(struct follower *f, struct rng *r)
{
	ssize_t n = 1;

	while (n > 0)
		n = follower_read(f, r == NULL ? 64 << 10 : 1 + rng_below(r, rng_below(r, 9) == 0 ? 2 << 20 : 9000));
	ck_assert_msg(n == 0 || n == -EAGAIN, "%s", strerrorname_np((int)-n));
}

void follower_to(struct follower *f, uint64_t time)
{
	while (!f->finished && f->at < time)
		ck_assert_int_gt(follower_read(f, 64 << 10), 0);
	ck_assert(f->finished || f->at == time);
	ck_assert_uint_eq(f->len, 0);
}

void follower_close(struct follower *f)
{
	close(f->fd);
	free(f->line);
}

const char *read_text(int fd)
{
	static char text[TEXT_MAX];
	ssize_t n = read(fd, text, sizeof text - 1);

	ck_assert_msg(n >= 0, "read: %s", strerrorname_np(errno));
	text[n] = '\0';
	return text;
}

void want_text(int fd, const char *want)
{
	ck_assert_str_eq(read_text(fd), want);
}

int follow(const char *name, int flags)
{
	int fd = open(at(shard, name), O_RDONLY | O_CLOEXEC | flags);

	ck_assert_msg(fd >= 0, "open %s: %s", name, strerrorname_np(errno));
	return fd;
}

int try_follow(const char *name)
{
	int fd = open(at(shard, name), O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}
