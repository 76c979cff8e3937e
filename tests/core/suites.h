/*
 * suites.h - the suites of tests/core, for main.c.
 */
#ifndef TESTS_CORE_SUITES_H
#define TESTS_CORE_SUITES_H

#include <check.h>

Suite *frontier_suite(void);
Suite *row_suite(void);
Suite *pace_suite(void);
Suite *part_suite(void);
Suite *builder_suite(void);
Suite *builder_faults_suite(void);
Suite *merge_suite(void);
Suite *scan_suite(void);
Suite *state_suite(void);
Suite *state_staged_suite(void);
Suite *state_leases_suite(void);
Suite *lease_suite(void);
Suite *lease_life_suite(void);
Suite *codec_suite(void);
Suite *manifest_suite(void);
Suite *transition_suite(void);
Suite *usage_suite(void);
Suite *machine_suite(void);
Suite *group_suite(void);
Suite *write_suite(void);
Suite *built_suite(void);
Suite *transmit_suite(void);
Suite *staged_suite(void);
Suite *staged_faults_suite(void);
Suite *staged_threads_suite(void);
Suite *upkeep_suite(void);
Suite *life_suite(void);
Suite *snapshot_suite(void);
Suite *names_suite(void);
Suite *property_suite(void);
Suite *listen_suite(void);
Suite *listen_random_suite(void);
Suite *holds_suite(void);
Suite *read_suite(void);
Suite *waiters_suite(void);
Suite *sweep_suite(void);
Suite *compact_suite(void);
Suite *compaction_suite(void);
Suite *gc_suite(void);
Suite *upkeep_faults_suite(void);
Suite *upkeep_random_suite(void);
Suite *background_suite(void);
Suite *upkeep_hosts_suite(void);
Suite *upkeep_stress_suite(void);
Suite *check_suite(void);
Suite *repair_suite(void);
Suite *export_suite(void);
Suite *load_suite(void);
Suite *limits_suite(void);
Suite *nth_suite(void);

#endif
