/* mount.c - the mount that is soaked: its restarts, and what it takes of memory, descriptors and disk. */
#include "tests/soak/soak.h"

#include <dirent.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>

/* --- up and down ----------------------------------------------------------------------------------- */

static _Atomic unsigned number; /* odd: it is down */

unsigned mount_up(void)
{
	unsigned n;

	while ((n = atomic_load(&number)) % 2 != 0)
		rest_ms(2);
	return n;
}

bool mount_is(unsigned mount)
{
	return atomic_load(&number) == mount;
}

bool excused(unsigned mount, int e)
{
	bool may = e == ENOTCONN || e == ECONNABORTED || e == ESHUTDOWN || e == EIO || e == ENOENT ||
		   e == ENODEV;

	if (!may || atomic_load(&number) == mount)
		return false;
	counted(N_EXCUSED, 1);
	return true;
}

void mount_restart(bool killed)
{
	atomic_fetch_add(&number, 1);
	if (killed)
		world_kill(&world);
	else
		world_stop(&world);
	world_start(&world, NULL);
	atomic_fetch_add(&number, 1);
	counted(killed ? N_KILLS : N_RESTARTS, 1);
}

/* --- looking at it --------------------------------------------------------------------------------- */

static _Thread_local uint64_t used;

static int add_blocks(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)type;
	(void)ftw;
	used += (uint64_t)st->st_blocks * 512;
	return 0;
}

uint64_t disk_used(const char *dir)
{
	used = 0;
	nftw(dir, add_blocks, 16, FTW_PHYS);
	return used;
}

unsigned mount_fds(struct text *list)
{
	char path[64], to[4096];
	unsigned count = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)world.pid);
	dir = opendir(path);
	while (dir != NULL && (e = readdir(dir)) != NULL) {
		ssize_t n = e->d_name[0] != '.' ? readlinkat(dirfd(dir), e->d_name, to, sizeof to - 1) : -1;

		if (n < 0)
			continue;
		to[n] = '\0';
		/* RocksDB keeps its tables open, as many as there are just now. */
		if (strstr(to, ".sst") != NULL)
			continue;
		count++;
		if (list != NULL)
			text_add(list, "    %s\n", to);
	}
	if (dir != NULL)
		closedir(dir);
	return count;
}

static uint64_t kib_of(const char *text, const char *name)
{
	const char *p = strstr(text, name);

	return p != NULL ? strtoull(p + strlen(name), NULL, 10) : 0;
}

struct sample {
	double s;
	unsigned mount;
	double rss; /* KiB */
};

static struct {
	struct sample *samples;
	size_t count, cap;
	uint64_t rss_max, hwm_max;
	unsigned fds_max;
} seen;

static void sample(FILE *csv, uint64_t begun)
{
	char path[64], text[4096];
	unsigned mount = atomic_load(&number);
	size_t len = 0;
	uint64_t rss, hwm;
	unsigned fds = mount_fds(NULL);
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)world.pid);
	f = fopen(path, "re");
	if (f != NULL) {
		len = fread(text, 1, sizeof text - 1, f);
		fclose(f);
	}
	text[len] = '\0';
	rss = kib_of(text, "VmRSS:");
	hwm = kib_of(text, "VmHWM:");
	if (rss == 0 || mount % 2 != 0 || mount != atomic_load(&number))
		return;
	if (seen.count == seen.cap) {
		seen.cap = seen.cap * 2 + 1024;
		seen.samples = realloc(seen.samples, seen.cap * sizeof *seen.samples);
	}
	seen.samples[seen.count++] =
		(struct sample){.s = (double)(now_ms() - begun) / 1000, .mount = mount, .rss = (double)rss};
	seen.rss_max = rss > seen.rss_max ? rss : seen.rss_max;
	seen.hwm_max = hwm > seen.hwm_max ? hwm : seen.hwm_max;
	seen.fds_max = fds > seen.fds_max ? fds : seen.fds_max;
	fprintf(csv, "%.1f,%d,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%u,%" PRIu64 "\n",
		(double)(now_ms() - begun) / 1000, (int)world.pid, rss, kib_of(text, "RssAnon:"), hwm, fds,
		seen.count % 10 == 1 ? disk_used(world.store) / 1024 : 0);
	fflush(csv);
}

void *sampler_main(void *arg)
{
	uint64_t begun = now_ms();
	FILE *csv = fopen(at(options.out, "samples.csv"), "we");

	(void)arg;
	if (csv == NULL)
		program_fail("%s/samples.csv: %s", options.out, strerrorname_np(errno));
	fprintf(csv, "seconds,pid,rss_kib,rss_anon_kib,hwm_kib,fds,store_kib\n");
	while (!atomic_load(&ending)) {
		sample(csv, begun);
		rest_ms(1000);
	}
	fclose(csv);
	return NULL;
}

/* --- the trend ------------------------------------------------------------------------------------- */

/*
 * The slope of RSS over the last two thirds of each life of a mount, all lives in one fit: each has a mean of
 * its own, so that what a start gives back is not taken for a trend. KiB per second; *span: of the longest
 * such stretch.
 */
static double slope_of_lives(double *span)
{
	enum { SHORT = 20 }; /* samples: a life that says nothing */
	double sxy = 0, sxx = 0;

	*span = 0;
	for (size_t i = 0, end; i < seen.count; i = end) {
		double mx = 0, my = 0, n, length;
		size_t from;

		for (end = i; end < seen.count && seen.samples[end].mount == seen.samples[i].mount; end++)
			;
		from = i + (end - i) / 3;
		if (end - i < SHORT)
			continue;
		n = (double)(end - from);
		for (size_t k = from; k < end; k++) {
			mx += seen.samples[k].s / n;
			my += seen.samples[k].rss / n;
		}
		for (size_t k = from; k < end; k++) {
			sxy += (seen.samples[k].s - mx) * (seen.samples[k].rss - my);
			sxx += (seen.samples[k].s - mx) * (seen.samples[k].s - mx);
		}
		length = seen.samples[end - 1].s - seen.samples[from].s;
		*span = length > *span ? length : *span;
	}
	return sxx > 0 ? sxy / sxx : 0;
}

/*
 * Flat: the fit rises by less than 16 MiB over the longest stretch, which is 20 minutes without restarts
 * (SOAK_KILLS=0) and some 3 with those that are made by default. Transactions of 100,000 rows come and go at
 * random, and with them some 10 MiB each, so that the ends of a fit differ by several MiB with nothing lost;
 * of 1,000 transactions a second each would lose 14 bytes in 20 minutes, or 90 in 3. What is shorter than 2
 * minutes is told, not judged: caches and pools fill for as long.
 */
void sampler_summary(bool *good)
{
	enum { RISE_MIB = 16, HWM_MIB = 256, STRETCH_S = 120 };
	double span, slope = slope_of_lives(&span), rise = slope * span / 1024;
	bool judged = span >= STRETCH_S, flat = rise < RISE_MIB, low = seen.hwm_max < HWM_MIB * 1024;

	note("## Memory and descriptors of the mount\n\n");
	note("- RSS at most %.1f MiB, HWM %.1f MiB (limit %d): %s\n", (double)seen.rss_max / 1024,
	     (double)seen.hwm_max / 1024, HWM_MIB, low ? "good" : "**TOO MUCH**");
	note("- trend of RSS over the last two thirds of each life of the mount: %+.3f MiB/min, %+.1f MiB "
	     "over the longest "
	     "stretch of %.0f s (limit %d MiB): %s\n",
	     slope * 60 / 1024, rise, span, RISE_MIB,
	     !judged ? "too short to judge"
	     : flat  ? "flat"
		     : "**RISES**");
	note("- descriptors: at most %u while it was used\n", seen.fds_max);
	*good = *good && low && (flat || !judged);
}
