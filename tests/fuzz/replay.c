/*
 * replay.c - run a fuzz target over kept inputs, without libFuzzer: each file named, and each file in a
 * folder named. A folder that is not there has none. Prints how many there were.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

enum { HANG_S = 300 };

static const char *running;

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *data;
	size_t size;

	if (f == NULL || fstat(fileno(f), &st) != 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	size = (size_t)st.st_size;
	data = malloc(size != 0 ? size : 1); /* not longer: a read beyond is found by ASan */
	if (data == NULL || fread(data, 1, size, f) != size) {
		fprintf(stderr, "%s could not be read\n", path);
		exit(1);
	}
	fclose(f);
	running = path;
	alarm(HANG_S);
	(void)LLVMFuzzerTestOneInput(data, size);
	alarm(0);
	running = NULL;
	free(data);
	return 1;
}

static int run_folder(const char *path)
{
	struct dirent **entries;
	int count = scandir(path, &entries, NULL, alphasort), runs = 0;

	for (int i = 0; i < count; i++) {
		char *file;

		if (entries[i]->d_name[0] != '.' && asprintf(&file, "%s/%s", path, entries[i]->d_name) >= 0) {
			runs += run_file(file);
			free(file);
		}
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return runs;
}

/* What breaks, or hangs, says where; this says with which input. */
static void name_input(int sig)
{
	static const char what[] = "while running ";

	if (running != NULL && write(2, what, sizeof what - 1) > 0 &&
	    write(2, running, strlen(running)) > 0 && write(2, "\n", 1) > 0 && sig != SIGABRT)
		_exit(1);
}

int main(int argc, char **argv)
{
	int runs = 0;

	signal(SIGABRT, name_input);
	signal(SIGALRM, name_input);
	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) != 0)
			continue;
		runs += S_ISDIR(st.st_mode) ? run_folder(argv[i]) : run_file(argv[i]);
	}
	printf("%s: %d inputs\n", strrchr(argv[0], '/') != NULL ? strrchr(argv[0], '/') + 1 : argv[0], runs);
	return runs > 0 ? 0 : 1;
}
