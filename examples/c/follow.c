/*
 * follow SHARD [FROM [SEEN]] - print the updates of a shard as they are committed, from the frontier FROM on.
 *
 * FROM is `now` if it is not given. SEEN is a file that keeps the upper of what was printed; when it is there
 * already, it says where to go on. Exit status: 0 the shard is finished; 1 it cannot be followed, and stderr
 * says why.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What came and is not printed yet: rows, then the line that is not whole yet. */
static char *text, upper[24];
static size_t len, cap, line;

/* With O_NONBLOCK and poll, so that other descriptors, or a time limit, fit in here. */
static ssize_t read_more(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (cap - len < 64 << 10 && (text = realloc(text, cap = cap * 2 + (256 << 10))) == NULL)
		err(1, "no memory");
	do {
		if (poll(&p, 1, -1) < 0)
			err(1, "poll");
		n = read(fd, text + len, cap - len - 1);
	} while (n < 0 && errno == EAGAIN);
	len += n > 0 ? (size_t)n : 0;
	text[len] = '\0';
	return n;
}

static void drop(size_t n)
{
	len -= n;
	memmove(text, text + n, len + 1);
	line = 0;
}

static void keep(const char *seen)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof path, "%s.new", seen);
	f = fopen(path, "w");
	if (f == NULL || fprintf(f, "%s\n", upper) < 0 || fclose(f) != 0 || rename(path, seen) != 0)
		err(1, "%s", path);
}

/* The line is whole: it ends before next. */
static void take_line(size_t next, const char *seen)
{
	if (strncmp(text + line, "begin ", 6) == 0) {
		sscanf(text + line, "begin lower=%*s upper=%23s", upper);
		drop(next);
	} else if (strncmp(text + line, "commit\n", 7) ==
		   0) { /* not before it: the transaction may break off */
		if (fwrite(text, 1, line, stdout) != line || fflush(stdout) != 0)
			err(1, "stdout");
		/* Behind the rows: whoever dies in between prints this transaction again, and loses none. */
		if (seen != NULL)
			keep(seen);
		drop(next);
	} else {
		line = next;
	}
}

static void get_line(const char *path, const char *name, char *out, int size)
{
	char file[4096];
	FILE *f;

	snprintf(file, sizeof file, "%s%s", path, name);
	f = fopen(file, "r");
	if (f != NULL && fgets(out, size, f) != NULL)
		out[strcspn(out, "\n")] = '\0';
	if (f != NULL)
		fclose(f);
}

int main(int argc, char **argv)
{
	const char *seen = argc > 3 ? argv[3] : NULL;
	char path[4096], from[24], since[24] = "";
	ssize_t n;
	char *end;
	int fd;

	if (argc < 2)
		errx(1, "usage: follow SHARD [FROM [SEEN]]");
	snprintf(from, sizeof from, "%s", argc > 2 ? argv[2] : "now");
	if (seen != NULL)
		get_line(seen, "", from, sizeof from);
	snprintf(path, sizeof path, "%s/listen/%s", argv[1], from);
	fd = open(path, O_RDONLY | O_NONBLOCK);
	if (fd < 0 && errno == ENODATA) { /* FROM is not above since */
		get_line(argv[1], "/since", since, sizeof since);
		errx(1, "%s: its history was given up, since is %s", path, since);
	}
	while (fd >= 0 && (n = read_more(fd)) > 0)
		while ((end = memchr(text + line, '\n', len - line)) != NULL)
			take_line((size_t)(end + 1 - text), seen);
	if (fd < 0 || n < 0)
		err(1, "%s", path);
	return 0;
}
