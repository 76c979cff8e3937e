/*
 * put SHARD KEY VAL - from now on KEY has the one value VAL, whatever it had before and whoever else puts.
 *
 * This is the loop of a writer whose rows depend on those that are there: read the upper, read the rows,
 * append at that upper, and begin anew if somebody else was faster. KEY and VAL are given as rows have them,
 * escapes and all.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Print the row that takes back each row of key. */
static void retract(FILE *snapshot, const char *key, uint64_t time, FILE *out)
{
	size_t len = strlen(key), cap = 0;
	char *row = NULL;
	ssize_t n;

	while ((n = getline(&row, &cap, snapshot)) > 0) {
		char *end, *p = strchr(row, '\t') + 1;
		long long diff = strtoll(p, &end, 10);

		p = end + 1;
		if (strncmp(p, key, len) != 0 || p[len] != '\t')
			continue;
		fprintf(out, "%" PRIu64 "\t%lld\t", time, -diff);
		fwrite(p, 1, (size_t)(row + n - p), out); /* a value may have NULs */
	}
	if (ferror(snapshot))
		err(1, "snapshot");
	free(row);
}

int main(int argc, char **argv)
{
	size_t len;
	ssize_t n;
	int fd;

	if (argc != 4)
		errx(1, "usage: put SHARD KEY VAL");
	if (chdir(argv[1]) != 0 || (fd = open("append", O_WRONLY)) < 0)
		err(1, "%s", argv[1]);
	do {
		uint64_t upper;
		char *text;
		FILE *in = fopen("upper", "r"), *out = open_memstream(&text, &len);

		/* The upper first: when somebody commits before the snapshot is opened, the append is
		 * refused. */
		if (in == NULL || out == NULL || fscanf(in, "%" SCNu64, &upper) != 1)
			errx(1, "no upper: is the shard finished?");
		if (freopen("snapshot", "r", in) == NULL)
			err(1, "snapshot");
		fprintf(out, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", upper, upper + 1);
		retract(in, argv[2], upper, out);
		fprintf(out, "%" PRIu64 "\t1\t%s\t%s\ncommit\n", upper, argv[2], argv[3]);
		fclose(in);
		if (fclose(out) != 0)
			err(1, "the rows");
		/* The kernel cuts a write at 1 MiB: on with what is left. */
		for (char *p = text; len > 0 && (n = write(fd, p, len)) > 0; len -= (size_t)n)
			p += n;
		free(text);
		/* A descriptor that has refused refuses all else, until ftruncate. */
	} while (len > 0 && errno == ESTALE && ftruncate(fd, 0) == 0);
	if (len > 0)
		err(1, "append");
	return 0;
}
