/*
 * main.c - runs the suites of tests/core. SEED=<n> repeats a random run.
 */
#include "tests/check_util.h"
#include "tests/core/model.h"
#include "tests/core/suites.h"

static Suite *(*const suites[])(void) = {
	frontier_suite,
	row_suite,
	builder_suite,
	part_suite,
	merge_suite,
	scan_suite,
	state_suite,
	state_staged_suite,
	codec_suite,
	manifest_suite,
	state_leases_suite,
	lease_suite,
	lease_life_suite,
	transition_suite,
	usage_suite,
	machine_suite,
	group_suite,
	write_suite,
	built_suite,
	transmit_suite,
	staged_suite,
	staged_faults_suite,
	staged_threads_suite,
	upkeep_suite,
	life_suite,
	snapshot_suite,
	names_suite,
	property_suite,
	listen_suite,
	holds_suite,
	read_suite,
	listen_random_suite,
	waiters_suite,
	sweep_suite,
	gc_suite,
	compact_suite,
	compaction_suite,
	background_suite,
	upkeep_faults_suite,
	upkeep_hosts_suite,
	upkeep_random_suite,
	upkeep_stress_suite,
	check_suite,
	repair_suite,
	export_suite,
	limits_suite,
	nth_suite,
	load_suite,
	pace_suite,
	builder_faults_suite,
};

int main(void)
{
	model_seed_init();
	return check_main(suites, sizeof(suites) / sizeof(suites[0]));
}
