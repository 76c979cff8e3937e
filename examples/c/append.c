/*
 * append SHARD EXPECTED_UPPER NEW_UPPER [ROWS] - commit the rows of a file, or of stdin, as one transaction.
 *
 * Exit status: 0 it is committed; 75 the upper was another one, nothing was changed; 1 all else. The verdict
 * of the shard is on stderr when it is not 0.
 */
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char path[4096], piece[65536], verdict[65536];
	FILE *rows = stdin, *append;
	char name[16];
	const char *why;
	bool written;
	ssize_t len;
	size_t n;

	if (argc < 4)
		errx(1, "usage: append SHARD EXPECTED_UPPER NEW_UPPER [ROWS]");
	if (argc > 4 && (rows = fopen(argv[4], "r")) == NULL)
		err(1, "%s", argv[4]);
	snprintf(path, sizeof path, "%s/append", argv[1]);
	/* For reading too: the descriptor that takes a transaction gives the verdict on it. */
	append = fopen(path, "r+");
	if (append == NULL)
		err(1, "%s", path);

	/* Each of these may be the one that writes, and fails; after fflush nothing is left to be written. */
	written = fprintf(append, "begin expected_upper=%s new_upper=%s\n", argv[2], argv[3]) > 0;
	while (written && (n = fread(piece, 1, sizeof piece, rows)) > 0)
		written = fwrite(piece, 1, n, append) == n;
	if (ferror(rows)) /* and so no commit: half of the rows is not what was asked for */
		err(1, "the rows");
	written = written && fputs("commit\n", append) >= 0 && fflush(append) == 0;
	why = written ? "not committed: is the last row whole?" : strerror(errno);

	/*
	 * That all was written is no proof: when the last row lacks its newline, the word commit belongs to
	 * that row, and there is no verdict.
	 */
	len = read(fileno(append), verdict, sizeof verdict - 1);
	verdict[len > 0 ? len - 1 : 0] = '\0'; /* without its newline */
	if (written && strncmp(verdict, "ok ", 3) == 0)
		return 0;
	fprintf(stderr, "append: %s\n", verdict[0] != '\0' ? verdict : why);
	return sscanf(verdict, "error %*s errno=%15s", name) == 1 && strcmp(name, "ESTALE") == 0 ? 75 : 1;
}
