/* main.c - the runner of tests/kv. */
#include "tests/kv/worlds.h"

int main(void)
{
	static Suite *(*const suites[])(void) = {
		rc_suite,
		consensus_conformance_suite,
		blob_conformance_suite,
		store_conformance_suite,
		fault_suite,
		rocks_suite,
		log_suite,
		rocks_mend_suite,
		blob_file_suite,
		store_embedded_suite,
		crash_suite,
	};

	return check_main(suites, sizeof(suites) / sizeof(suites[0]));
}
