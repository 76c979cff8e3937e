#include "tests/core/suites.h"
Suite *machine_suite(void) { return suite_create("machine"); }
