/*
 * metrics.c - see metrics.h.
 *
 * A family is a HELP and a TYPE line and its samples. Every series is there from
 * the start, at 0, so that a rate has something to begin with. What cannot be
 * found out (the store does not answer) is left out.
 */
#include "fs/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs.h"

#define PREFIX "shardfs_"

static void family(FILE *f, const char *prefix, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, type);
}

static void single(FILE *f, const char *name, const char *type, uint64_t value, const char *help)
{
	family(f, PREFIX, name, type, help);
	fprintf(f, PREFIX "%s %" PRIu64 "\n", name, value);
}

static uint64_t load(const _Atomic(uint64_t) *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Microseconds as seconds. */
static void put_seconds(FILE *f, uint64_t us)
{
	fprintf(f, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
}

/* The samples of a histogram; label is "" or a label and a comma; each step-th boundary is shown. */
static void put_histogram(FILE *f, const char *name, const char *label, const struct core_histogram *h,
			  unsigned step)
{
	uint64_t count = 0;
	size_t label_len = strlen(label);
	char whole[80] = "";

	for (unsigned i = 0; i < CORE_BUCKETS; i++) {
		count += load(&h->counts[i]);
		if (i % step != 0)
			continue;
		fprintf(f, PREFIX "%s_bucket{%sle=\"", name, label);
		put_seconds(f, (uint64_t)CORE_BUCKET_US << i);
		fprintf(f, "\"} %" PRIu64 "\n", count);
	}
	count += load(&h->counts[CORE_BUCKETS]);
	if (label_len != 0)
		snprintf(whole, sizeof whole, "{%.*s}", (int)label_len - 1, label);
	fprintf(f, PREFIX "%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n" PREFIX "%s_sum%s ", name, label, count,
		name, whole);
	put_seconds(f, load(&h->sum_us));
	fprintf(f, "\n" PREFIX "%s_count%s %" PRIu64 "\n", name, whole, count);
}

/* --- the engine ------------------------------------------------------------------------------------ */

static void put_engine(FILE *f, struct core_engine *e)
{
	const struct core_metrics *m = core_engine_metrics(e);
	uint64_t gauges[CORE_GAUGE_COUNT];

#define COUNTER(constant, shown, help) \
	single(f, shown, "counter", load(&m->counters[CORE_M_##constant]), help);
	CORE_COUNTERS(COUNTER)
#undef COUNTER
	core_engine_gauges(e, gauges);
#define GAUGE(constant, shown, help) single(f, shown, "gauge", gauges[CORE_G_##constant], help);
	CORE_GAUGES(GAUGE)
#undef GAUGE
#define TIME(constant, shown, help)                  \
	family(f, PREFIX, shown, "histogram", help); \
	put_histogram(f, shown, "", &m->times[CORE_T_##constant], 1);
	CORE_TIMES(TIME)
#undef TIME
}

static void put_store(FILE *f, struct core_engine *e)
{
	struct kv_usage usage;
	struct kv_err err;

	if (core_engine_usage(e, &usage, &err) != KV_OK)
		return;
	single(f, "store_size_bytes", "gauge", usage.total_bytes, "Space where the store lies, used or not.");
	single(f, "store_free_bytes", "gauge", usage.free_bytes, "Space that is not used there.");
	single(f, "store_avail_bytes", "gauge", usage.avail_bytes, "Space that the store may still use.");
}

/* --- the mount ------------------------------------------------------------------------------------- */

static const char *const op_names[FS_OP_COUNT] = {
#define OP_NAME(name, parameters, arguments) #name,
	FS_OPS(OP_NAME)
#undef OP_NAME
};

static void put_requests(FILE *f, const struct fs_counts *c)
{
	static const char requests[] = "fuse_requests_total", times[] = "fuse_request_seconds";
	char label[40];

	family(f, PREFIX, requests, "counter", "Requests of the kernel, by operation.");
	for (size_t i = 0; i < FS_OP_COUNT; i++)
		fprintf(f, PREFIX "%s{op=\"%s\"} %" PRIu64 "\n", requests, op_names[i],
			load(&c->requests[i]));
	family(f, PREFIX, times, "histogram",
	       "Serving a request, by operation; without those that waited for data or maintenance.");
	for (size_t i = 0; i < FS_OP_COUNT; i++) {
		snprintf(label, sizeof label, "op=\"%s\",", op_names[i]);
		put_histogram(f, times, label, &c->times[i], 2);
	}
}

static void put_errors(FILE *f, const struct fs_counts *c)
{
	static const char errors[] = "errors_total";

	family(f, PREFIX, errors, "counter", "Requests answered with an error, by reason.");
	for (size_t i = 0; i < KV_RC_COUNT; i++)
		fprintf(f, PREFIX "%s{reason=\"%s\"} %" PRIu64 "\n", errors,
			i == KV_OK ? "Other" : kv_rc_name((enum kv_rc)i), load(&c->errors[i]));
}

static void put_mount(FILE *f, struct fs *fs)
{
	struct fs_nodes_count nodes = fs_nodes_count(&fs->nodes);
	struct fs_limits_count users;
	size_t open;

	pthread_mutex_lock(&fs->open_mu);
	open = fs->open_count;
	pthread_mutex_unlock(&fs->open_mu);
	users = fs_limits_count(&fs->limits);
	family(f, PREFIX, "build_info", "gauge", "Always 1; the label tells which program this is.");
	fprintf(f, PREFIX "build_info{version=\"" SHARDFS_VERSION "\"} 1\n");
	put_requests(f, &fs->counts);
	put_errors(f, &fs->counts);
	single(f, "read_bytes_total", "counter", load(&fs->counts.read_bytes), "Bytes read from files.");
	single(f, "written_bytes_total", "counter", load(&fs->counts.written_bytes),
	       "Bytes written to files, those of refused writes left out.");
	single(f, "waiting_reads", "gauge", fs_parked_count(&fs->waits, FS_PARKED_READ),
	       "Reads that wait now for an upper to pass a time.");
	single(f, "waiting_commands", "gauge", fs_parked_count(&fs->waits, FS_PARKED_CTL),
	       "Writes to ctl that wait now for their maintenance to end.");
	single(f, "waiting_turns", "gauge", fs_parked_count(&fs->waits, FS_PARKED_TURN),
	       "Reads of snapshots and listeners, and large writes, that wait now for others to be done.");
	single(f, "requests_in_flight", "gauge", fs_counts_in_flight(&fs->counts),
	       "Requests of the kernel that are not answered yet, the one that made this text among them.");
	single(f, "open_files", "gauge", open, "Files and directories that are open.");
	single(f, "open_users", "gauge", users.users, "Users who have files open.");
	single(f, "unfinished_bytes", "gauge", users.held,
	       "Memory of what was written to transactions and staged batches and is not finished.");
	single(f, "limits_refused_total", "counter", users.refused,
	       "Opens and writes refused for a limit of a user, or of all.");
	single(f, "nodes", "gauge", nodes.entries,
	       "Batches, holds, times and others with names of their own that the kernel knows.");
	single(f, "node_shards", "gauge", nodes.shards, "Shards of which the kernel knows a file.");
	single(f, "stream_bytes", "gauge", atomic_load(&fs->reading.text),
	       "Memory of texts that open files keep to be read again.");
	single(f, "listen_past_bytes", "gauge", atomic_load(&fs->reading.past),
	       "Memory of the steps that listeners have given and may be asked for again, about.");
	single(f, "read_buffer_bytes", "gauge", fs_budget_held(&fs->reading),
	       "Memory of buffers of snapshots and listeners, to go on quickly.");
}

/* --- the process, under the names that all programs use -------------------------------------------- */

static void put_process(FILE *f, const char *name, const char *type, const char *help, double value,
			int decimals)
{
	family(f, "process_", name, type, help);
	fprintf(f, "process_%s %.*f\n", name, decimals, value);
}

/* Pages of memory: all, and those that are resident. */
static bool memory_pages(double *all, double *resident)
{
	FILE *f = fopen("/proc/self/statm", "re");
	bool ok = f != NULL && fscanf(f, "%lf %lf", all, resident) == 2;

	if (f != NULL)
		fclose(f);
	return ok;
}

static size_t open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t count = 0;

	while (dir != NULL && readdir(dir) != NULL)
		count++;
	if (dir != NULL)
		closedir(dir);
	return count > 3 ? count - 3 : 0; /* ".", ".." and the one that was open for this */
}

static void put_process_all(FILE *f, const struct fs *fs)
{
	double page = (double)sysconf(_SC_PAGESIZE), all, resident;
	struct timespec cpu = {0};
	struct rlimit limit;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	put_process(f, "cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.",
		    (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9, 6);
	if (memory_pages(&all, &resident)) {
		put_process(f, "virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", all * page,
			    0);
		put_process(f, "resident_memory_bytes", "gauge", "Resident memory size in bytes.",
			    resident * page, 0);
	}
	put_process(f, "open_fds", "gauge", "Number of open file descriptors.", (double)open_fds(), 0);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		put_process(f, "max_fds", "gauge", "Maximum number of open file descriptors.",
			    (double)limit.rlim_cur, 0);
	put_process(f, "start_time_seconds", "gauge",
		    "Start time of the process since unix epoch in seconds.", (double)fs->mounted_ms / 1e3,
		    0);
}

char *fs_metrics_text(struct fs *fs)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	bool ok;

	if (f == NULL)
		return NULL;
	put_mount(f, fs);
	put_engine(f, fs->engine);
	put_store(f, fs->engine);
	put_process_all(f, fs);
	ok = ferror(f) == 0;
	if (fclose(f) == 0 && ok)
		return text;
	free(text);
	return NULL;
}
