/* main.c - the runner of tests/fs. SHARDFS and SHARDCTL are the programs; SEED=<n> repeats a random run. */
#include "tests/fs/world.h"

int main(void)
{
	static Suite *(*const suites[])(void) = {
		start_suite,     append_suite,    options_suite,       split_suite,
		spent_suite,     files_suite,     wait_suite,          batches_suite,
		owner_suite,     names_suite,     clients_suite,       faults_suite,
		crash_suite,     staged_suite,    staged_commit_suite, staged_clients_suite,
		writers_suite,   listen_suite,    listen_wait_suite,   listen_many_suite,
		read_many_suite, replicate_suite, holds_suite,         readers_suite,
		ctl_suite,       metrics_suite,   linear_suite,        beside_suite,
		blind_suite,     property_suite,  shared_fd_suite,     examples_suite,
		follows_suite,   corrupt_suite,   shardctl_suite,      export_harm_suite,
		nth_suite,       nth_calls_suite, hostile_suite,       greedy_suite,
		full_suite,      ordinary_suite,  large_writes_suite,
	};
	int status;

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) {
		fprintf(stderr, "tests/fs needs root and /dev/fuse\n");
		return 1;
	}
	seed_init();
	status = check_main(suites, sizeof(suites) / sizeof(suites[0]));
	return status;
}
