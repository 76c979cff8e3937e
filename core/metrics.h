/*
 * metrics.h - what an engine counts, for those who watch it.
 *
 * One list of counters, one of gauges, one of times; who shows them (fs/metrics.c)
 * adds a prefix and needs nothing else. Names and units follow Prometheus: counters
 * end in _total, times are histograms in seconds.
 *
 * Threads: any; counting takes no lock.
 */
#ifndef CORE_METRICS_H
#define CORE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

struct core_engine;

/* X(name of the constant, name as shown, help) */
#define CORE_COUNTERS(X)                                                                                  \
	X(APPENDS, "appends_total", "Appends committed, heartbeats included.")                            \
	X(APPENDS_REFUSED, "appends_refused_total", "Appends refused or failed, whatever the reason.")    \
	X(APPEND_UPDATES, "append_updates_total", "Updates committed by appends.")                        \
	X(APPEND_BYTES, "append_bytes_total", "Encoded bytes of the parts that appends committed.")       \
	X(APPEND_STALLS, "append_stalls_total", "Appends that waited because a shard had too many runs.") \
	X(VERSIONS, "versions_total", "Versions of shards committed, of whatever kind.")                  \
	X(VERSION_BYTES, "version_bytes_total", "Bytes of those versions.")                               \
	X(CONFLICTS, "version_conflicts_total", "Versions that another one was faster than.")             \
	X(UNKNOWN, "unknown_outcomes_total", "Commits whose outcome the store did not tell.")             \
	X(LOADS, "state_loads_total", "States of shards loaded from the store.")                          \
	X(FOLDS, "folds_total", "Times small batches at the end of a shard were folded into one.")        \
	X(FOLD_BYTES, "fold_bytes_total", "Bytes that folds wrote, in the state or as parts.")            \
	X(ROLLUPS, "rollups_total", "Rollups written.")                                                   \
	X(ROLLUP_BYTES, "rollup_bytes_total", "Bytes of those rollups.")                                  \
	X(MERGES, "compactions_total", "Compactions whose result was committed.")                         \
	X(MERGES_DROPPED, "compactions_dropped_total", "Compactions whose inputs were gone at the end.")  \
	X(MERGES_FAILED, "compactions_failed_total", "Compactions that failed.")                          \
	X(MERGE_IN_UPDATES, "compaction_in_updates_total", "Updates that compactions read.")              \
	X(MERGE_OUT_UPDATES, "compaction_out_updates_total", "Updates that compactions wrote.")           \
	X(MERGE_IN_BYTES, "compaction_in_bytes_total", "Bytes of the parts that compactions replaced.")   \
	X(MERGE_OUT_BYTES, "compaction_out_bytes_total", "Bytes of the parts that compactions wrote.")    \
	X(MERGE_PAUSES, "compaction_pauses_total", "Times that compactions stood aside for appends.")     \
	X(GC_RUNS, "gc_runs_total", "Collections of what shards do not need any more.")                   \
	X(GC_FAILED, "gc_failed_total", "Collections that failed, to be tried again.")                    \
	X(GC_BLOBS, "gc_blobs_total", "Blobs of replaced parts deleted.")                                 \
	X(GC_BYTES, "gc_bytes_total", "Bytes of those blobs.")                                            \
	X(GC_VERSIONS, "gc_versions_total", "Old versions forgotten.")                                    \
	X(GC_ROLLUPS, "gc_rollups_total", "Old rollups deleted.")                                         \
	X(SWEEPS, "sweeps_total", "Sweeps for blobs that nobody names.")                                  \
	X(SWEPT_BLOBS, "swept_blobs_total", "Blobs that nobody named, deleted by sweeps.")                \
	X(SWEPT_BYTES, "swept_bytes_total", "Bytes of those blobs.")                                      \
	X(BURIED, "shards_buried_total", "Removed shards of which everything was deleted.")               \
	X(LEASES, "reader_leases_total", "Leases of readers taken, renewed or moved.")                    \
	X(LEASES_ENDED, "reader_leases_ended_total", "Leases of readers that ended or ran out.")          \
	X(WRITERS, "writers_registered_total", "Writers registered.")                                     \
	X(WRITERS_ENDED, "writers_ended_total", "Writers struck, or dropped when their lease was over.")

#define CORE_GAUGES(X)                                                                                 \
	X(SHARDS, "shards_in_memory", "Shards whose state is in memory.")                              \
	X(STATE_BYTES, "idle_state_bytes", "Memory of the states that are kept without being in use.") \
	X(BURYING, "shards_dying", "Removed shards that are still read or not deleted yet.")           \
	X(JOBS, "background_jobs", "Rollups and other small jobs waiting or running.")                 \
	X(UPKEEP_QUEUE, "upkeep_queue_shards", "Shards that wait for compaction or collection.")       \
	X(MERGES_RUNNING, "compactions_running", "Compactions that run now.")                          \
	X(STALLED, "appends_stalled", "Appends that wait now because a shard has too many runs.")

#define CORE_TIMES(X)                                                                             \
	X(COMMIT, "commit_seconds", "Committing a version, waiting for its turn included.")       \
	X(APPEND, "append_seconds", "Committing an append, from its commit line to the verdict.") \
	X(LOAD, "state_load_seconds", "Loading the state of a shard.")                            \
	X(MERGE, "compaction_seconds", "One compaction.")                                         \
	X(GC, "gc_seconds", "One collection of a shard.")                                         \
	X(ROLLUP, "rollup_seconds", "Writing one rollup.")

#define CORE_METRIC_NAME(name, shown, help) CORE_M_##name,
enum core_counter { CORE_COUNTERS(CORE_METRIC_NAME) CORE_COUNTER_COUNT };
#undef CORE_METRIC_NAME
#define CORE_METRIC_NAME(name, shown, help) CORE_G_##name,
enum core_gauge { CORE_GAUGES(CORE_METRIC_NAME) CORE_GAUGE_COUNT };
#undef CORE_METRIC_NAME
#define CORE_METRIC_NAME(name, shown, help) CORE_T_##name,
enum core_time { CORE_TIMES(CORE_METRIC_NAME) CORE_TIME_COUNT };
#undef CORE_METRIC_NAME

/* Bucket i counts what took at most 2^i times CORE_BUCKET_US; the last one what took longer. */
enum { CORE_BUCKETS = 22, CORE_BUCKET_US = 16 };

struct core_histogram {
	_Atomic(uint64_t) counts[CORE_BUCKETS + 1]; /* each what fell into it, not into those before */
	_Atomic(uint64_t) sum_us;
};

void core_histogram_add(struct core_histogram *h, uint64_t us);

struct core_metrics {
	_Atomic(uint64_t) counters[CORE_COUNTER_COUNT];
	_Atomic(uint64_t) gauges[CORE_GAUGE_COUNT]; /* those that are counted up and down */
	struct core_histogram times[CORE_TIME_COUNT];
};

/* Those of the engine; they live as long as it does. */
const struct core_metrics *core_engine_metrics(const struct core_engine *e);

/* The gauges as they are now. */
void core_engine_gauges(struct core_engine *e, uint64_t out[CORE_GAUGE_COUNT]);

/* A clock for durations, in us. */
uint64_t core_ticks_us(void);

#endif
