#include "tests/core/suites.h"
Suite *state_suite(void) { return suite_create("state"); }
