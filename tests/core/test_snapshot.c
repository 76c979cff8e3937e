#include "tests/core/suites.h"
Suite *snapshot_suite(void) { return suite_create("snapshot"); }
