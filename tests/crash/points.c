#include "tests/crash/crash.h"
_Atomic int points_dummy;
void run_points(void)
{
}
