/* main.c - the runner of tests/fs. SHARDFS and SHARDCTL are the programs; SEED=<n> repeats a random run. */
#include "tests/fs/world.h"

int main(void)
{
	static Suite *(*const suites[])(void) = {
		start_suite, append_suite,  options_suite, split_suite, spent_suite,   files_suite,
		wait_suite,  batches_suite, owner_suite,   names_suite, clients_suite, crash_suite,
	};
	const char *asan = getenv("ASAN_OPTIONS");
	char options[1024];
	int status;

	/* A mount that is stopped with files open ends without their RELEASE: what they hold is no leak. */
	snprintf(options, sizeof options, "%s:detect_leaks=0", asan != NULL ? asan : "");
	setenv("ASAN_OPTIONS", options, 1); /* of the programs we start */
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) {
		fprintf(stderr, "tests/fs needs root and /dev/fuse\n");
		return 1;
	}
	seed_init();
	status = check_main(suites, sizeof(suites) / sizeof(suites[0]));
	return status;
}
