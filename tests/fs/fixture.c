/* fixture.c - see fixture.h. */
#include "tests/fs/fixture.h"

struct world w;
char *shard;

static void setup(void)
{
	world_open(&w);
	shard = shard_new(&w);
}

static void teardown(void)
{
	free(shard);
	world_close(&w);
}

TCase *shard_case(Suite *s, const char *name, double seconds)
{
	TCase *tc = world_case(s, name, seconds);

	tcase_add_checked_fixture(tc, setup, teardown);
	return tc;
}
