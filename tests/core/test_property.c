#include "tests/core/suites.h"
Suite *property_suite(void) { return suite_create("property"); }
