/* shards.c - making, writing and reading shards; see world.h. */
#include "tests/fs/world.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <uuid/uuid.h>

/* Not inlined: at -O2 gcc takes two of the buffers for one. */
__attribute__((noinline)) const char *at(const char *dir, const char *name)
{
	static _Thread_local char buf[8][PATH_MAX];
	static _Thread_local unsigned next;

	next = (next + 1) % 8;
	snprintf(buf[next], PATH_MAX, "%s/%s", dir, name);
	return buf[next];
}

char *shard_id(void)
{
	char *id = malloc(38);
	uuid_t u;

	ck_assert_ptr_nonnull(id);
	uuid_generate_random(u);
	id[0] = 's';
	uuid_unparse_lower(u, id + 1);
	return id;
}

char *shard_new(const struct world *w)
{
	char *id = shard_id(), *path;

	ck_assert_int_ge(asprintf(&path, "%s/shard/%s", w->mnt, id), 0);
	ck_works(mkdir(path, 0755));
	free(id);
	return path;
}

ssize_t put_len(int fd, const char *text, size_t len)
{
	ssize_t n = write(fd, text, len);

	return n < 0 ? -errno : n;
}

ssize_t put(int fd, const char *text)
{
	return put_len(fd, text, strlen(text));
}

int put_all(int fd, const char *text, size_t len)
{
	while (len != 0) {
		ssize_t n = put_len(fd, text, len);

		if (n < 0)
			return (int)-n;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

int append_open(const char *shard)
{
	int fd = open(at(shard, "append"), O_RDWR | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "open append: %s", strerrorname_np(errno));
	return fd;
}

int txn(const char *shard, const char *text)
{
	int fd = append_open(shard);
	int e = put_all(fd, text, strlen(text));

	ck_assert_int_eq(close(fd), 0);
	return e;
}

void want_txn(const char *shard, const char *text)
{
	int e = txn(shard, text);

	ck_assert_msg(e == 0, "%.200s: %s", text, strerrorname_np(e));
}

int write_once(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return errno;
	n = put(fd, text);
	close(fd);
	if (n >= 0)
		ck_assert_int_eq(n, strlen(text));
	return n < 0 ? (int)-n : 0;
}

char *verdict(int fd)
{
	char *line = calloc(1, TEXT_MAX + 1), *seqno;
	ssize_t n = read(fd, line, TEXT_MAX);

	ck_assert_msg(n >= 0, "read of a verdict: %s", strerrorname_np(errno));
	seqno = strstr(line, "seqno=");
	if (seqno != NULL) {
		char *end = seqno + 6 + strspn(seqno + 6, "0123456789");

		seqno[6] = 'N';
		memmove(seqno + 7, end, strlen(end) + 1);
	}
	return line;
}

void want_verdict(int fd, const char *want)
{
	char *got = verdict(fd);

	ck_assert_str_eq(got, want);
	free(got);
}

void want_verdict_like(int fd, const char *want)
{
	char *got = verdict(fd);

	ck_assert_msg(strncmp(got, want, strlen(want)) == 0, "verdict \"%s\", not \"%s...\"", got, want);
	ck_assert_msg(strchr(got, '\n') == got + strlen(got) - 1, "not one line: \"%s\"", got);
	free(got);
}

char *slurp_len(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), e;
	size_t cap = 64 << 10;
	char *text = malloc(cap + 1);
	ssize_t n = fd < 0 ? -1 : 1;

	*len = 0;
	while (n > 0) {
		if (cap - *len < cap / 4) {
			cap *= 2;
			text = realloc(text, cap + 1);
		}
		ck_assert_ptr_nonnull(text);
		n = read(fd, text + *len, cap - *len);
		*len += n > 0 ? (size_t)n : 0;
	}
	e = errno;
	if (fd >= 0)
		close(fd);
	errno = e;
	text[*len] = '\0';
	if (n == 0)
		return text;
	free(text);
	errno = e;
	return NULL;
}

char *slurp_rc(const char *path)
{
	size_t len;

	return slurp_len(path, &len);
}

char *slurp(const char *path)
{
	char *text = slurp_rc(path);

	ck_assert_msg(text != NULL, "%s: %s", path, strerrorname_np(errno));
	return text;
}

void want_file(const char *shard, const char *name, const char *want)
{
	char *got = slurp(at(shard, name));

	ck_assert_msg(strcmp(got, want) == 0, "%s is \"%s\", not \"%s\"", name, got, want);
	free(got);
}

char *last_error(const char *shard)
{
	char *text = slurp(at(shard, "errors")), *line, *what;

	if (text[0] == '\0')
		return text;
	text[strlen(text) - 1] = '\0';
	line = strrchr(text, '\n');
	line = line != NULL ? line + 1 : text;
	what = strstr(line, " uid=");
	ck_assert_msg(what != NULL && strstr(line, " pid=") != NULL, "a line of errors: %s", line);
	what = strdup(strchr(what + 1, ' ') + 1);
	free(text);
	return what;
}

size_t count_lines(const char *text)
{
	size_t n = 0;

	for (const char *p = strchr(text, '\n'); p != NULL; p = strchr(p + 1, '\n'))
		n++;
	return n;
}

uint64_t json_number(const char *json, const char *key)
{
	char quoted[64];
	const char *p;

	snprintf(quoted, sizeof quoted, "\"%s\": ", key);
	p = strstr(json, quoted);
	ck_assert_msg(p != NULL, "no %s in %s", key, json);
	return strtoull(p + strlen(quoted), NULL, 10);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *print_shard(const char *shard)
{
	char *upper = slurp(at(shard, "upper")), *snapshot = slurp(at(shard, "snapshot"));
	char *state = slurp(at(shard, "state")), *names[256], *out = NULL;
	DIR *dir = opendir(at(shard, "batches"));
	size_t len, count = 0;
	struct dirent *e;
	struct stat st;
	FILE *f = open_memstream(&out, &len);

	ck_assert(dir != NULL && f != NULL);
	while ((e = readdir(dir)) != NULL && count < 256)
		if (e->d_name[0] != '.')
			names[count++] = strdup(e->d_name);
	closedir(dir);
	qsort(names, count, sizeof *names, by_name);
	fprintf(f, "upper %s%sseqno +%" PRIu64 "\n", upper, snapshot,
		json_number(state, "seqno") - json_number(state, "first_seqno"));
	for (size_t i = 0; i < count; i++) {
		st.st_size = -1;
		stat(at(at(shard, "batches"), names[i]), &st);
		fprintf(f, "%s %jd\n", names[i], (intmax_t)st.st_size);
		free(names[i]);
	}
	fclose(f);
	free(upper);
	free(snapshot);
	free(state);
	return out;
}

double world_metric(const struct world *w, const char *name)
{
	char *text = slurp(at(w->mnt, "metrics")), *p = text;
	size_t len = strlen(name);
	double value = -1;

	while (p != NULL && value < 0) {
		if (strncmp(p, name, len) == 0 && p[len] == ' ')
			value = strtod(p + len, NULL);
		p = strchr(p, '\n');
		p = p != NULL ? p + 1 : NULL;
	}
	free(text);
	ck_assert_msg(value >= 0, "no %s in /metrics", name);
	return value;
}
