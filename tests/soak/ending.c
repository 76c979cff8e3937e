/* ending.c - the looks at the end: what is left in the store, and how much of the disk it takes. */
#include "tests/soak/soak.h"

#include <ftw.h>
#include <inttypes.h>

/*
 * The store may take 1.5 times what its content takes when it is written once, and 64 MiB: RocksDB keeps a
 * log of up to 64 MiB (its write buffer's size) and what its last compaction has not taken yet; a fresh store
 * has neither.
 */
enum { SLACK_MIB = 64, PERCENT = 150, SETTLE_S = 120, STILL_S = 5 };

static uint64_t fresh_used;

/* Until the store's size does not change any more. */
static void settle(void)
{
	uint64_t before = 0, still = 0;

	for (uint64_t i = 0; i < SETTLE_S && still < STILL_S; i++) {
		uint64_t now = disk_used(world.store);

		still = now == before ? still + 1 : 0;
		before = now;
		rest_ms(1000);
	}
	note("- the store came to rest at %.1f MiB\n", (double)before / 1048576);
}

/* As of the latest time, written at once to a shard of the fresh store. */
static void write_once_more(const struct shard *s, const struct world *fresh)
{
	char *dir = shard_new(fresh), head[128];
	uint64_t upper = 0;
	size_t len;
	char *text = slurp_len(at(s->dir, "snapshot"), &len);
	int fd = append_open(dir);

	if (text == NULL || read_frontier(s, "upper", &upper) != 0)
		program_fail("%s: the last snapshot: %s", s->id, strerrorname_np(errno));
	if (upper != 0)
		check_content(s, "the last snapshot", upper - 1, text, len);
	snprintf(head, sizeof head, "begin expected_upper=0 new_upper=%" PRIu64 " since=%" PRIu64 "\n", upper,
		 upper - (upper != 0));
	ck_assert_int_eq(put_all(fd, head, strlen(head)), 0);
	ck_assert_int_eq(put_all(fd, text, len), 0);
	ck_assert_int_eq(put_all(fd, "commit\n", 7), 0);
	close(fd);
	free(text);
	free(dir);
}

void settle_and_look(void)
{
	size_t count;
	struct shard **live = live_shards(&count);
	struct world fresh;

	note("\n## Disk\n\n");
	for (size_t i = 0; i < count; i++) {
		upkeep_of(live[i], "compact");
		upkeep_of(live[i], "rollup");
		upkeep_of(live[i], "gc");
	}
	settle();
	world_open(&fresh);
	for (size_t i = 0; i < count; i++)
		write_once_more(live[i], &fresh);
	world_stop(&fresh);
	fresh_used = disk_used(fresh.store);
	world_close(&fresh);
}

/* --- without the mount ----------------------------------------------------------------------------- */

static _Thread_local struct text *paths;

static int add_path(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	text_add(paths, "%s\n", path);
	return 0;
}

/* Files and folders named after a removed shard. */
static unsigned leavings(void)
{
	const struct text *ids = removed_ids();
	struct text all = {0};
	unsigned found = 0;

	paths = &all;
	text_add(&all, "%s", "");
	nftw(world.store, add_path, 16, FTW_PHYS);
	for (const char *id = ids->p; id != NULL && id < ids->p + ids->len; id = strchr(id, '\n') + 1) {
		char one[64];

		snprintf(one, sizeof one, "%.36s", id + 1); /* without the s */
		const char *hit = strstr(all.p, one);

		if (hit != NULL && found++ < 3)
			note("- of the removed shard s%s there is still: %.100s\n", one, hit);
	}
	text_free(&all);
	return found;
}

static void fsck(bool *good)
{
	char *said = NULL;
	int status = sh(&said, "%s fsck %s", shardctl_path(), world.store);
	bool clean = status == 0 && strncmp(said, "clean", 5) == 0;

	note("\n## The store\n\n- fsck: %.300s\n", said);
	if (!clean)
		*good = false;
	free(said);
}

/* fsck, which finds what is wrong with live shards; and that each shard in the store is one of those. */
static void only_live_ones(bool *good)
{
	size_t count, lines;
	char *said = NULL;
	unsigned found = leavings();

	live_shards(&count);
	sh(&said, "%s ls %s", shardctl_path(), world.store);
	lines = count_lines(said);
	note("- shards: %zu live, %" PRIu64 " removed; ls has %zu lines; leavings of removed shards: %u\n",
	     count, count_of(N_REMOVED), lines, found);
	if (found != 0)
		*good = false;
	for (const char *id = removed_ids()->p;
	     id != NULL && *id != '\0' && id < removed_ids()->p + removed_ids()->len;
	     id = strchr(id, '\n') + 1) {
		char one[64];

		snprintf(one, sizeof one, "%.37s", id);
		if (strstr(said, one) != NULL) {
			note("- **shardctl ls shows the removed shard %s**\n", one);
			*good = false;
		}
	}
	free(said);
}

void judge_store(bool *good)
{
	uint64_t used = disk_used(world.store),
		 limit = fresh_used * PERCENT / 100 + ((uint64_t)SLACK_MIB << 20);
	bool judged = count_of(N_CTL) != 0, little = used <= limit;

	fsck(good);
	only_live_ones(good);
	note("- disk: %.1f MiB; the same content written once: %.1f MiB; limit %.1f MiB: %s\n",
	     (double)used / 1048576, (double)fresh_used / 1048576, (double)limit / 1048576,
	     little   ? "good"
	     : judged ? "**TOO MUCH**"
		      : "too much; not judged, since compaction (ctl) is not built yet");
	*good = *good && (little || !judged);
}
