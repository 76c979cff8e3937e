/*
 * hosts.h - for the tests of leases: engines with clocks of their own on one store,
 * and what they need.
 *
 * Threads: the clocks any; the rest the main thread of a test.
 */
#ifndef TESTS_CORE_HOSTS_H
#define TESTS_CORE_HOSTS_H

#include <stdatomic.h>

#include "tests/core/world.h"

enum { MINUTE_MS = 60 * 1000, HOUR_MS = 60 * MINUTE_MS };

struct host {
	struct core_engine *engine;
	struct core_shard *shard;
	_Atomic(uint64_t) now_ms;
};

/* Two engines on one store; only a where there can be no second. */
struct hosts {
	struct disk *disk;
	struct core_shard_id id;
	struct host a;
	struct host b;
};

/* A shard with [0, 10) appended. In place: the engines know the hosts. */
void hosts_begin(struct hosts *h, enum disk_kind kind);
void hosts_end(struct hosts *h);
void host_leave(struct host *host); /* closes its engine */
uint64_t host_clock(void *arg);           /* the clock of a host, for an engine */
void later(struct hosts *h, uint64_t ms);

struct core_info info_of(struct host *host);
uint64_t since_of(struct host *host);

/* A version by that host that lets since go to `since` as far as it is concerned. */
void step(struct host *host, uint64_t since);

/* As viewer sees it. False: there is none. */
bool find_lease(struct host *viewer, struct core_uuid id, struct core_lease *out);
struct core_lease lease_of(struct host *host);
bool has_lease(struct host *viewer, struct host *host);

void need_at(struct host *host, struct core_need *need, uint64_t time);
size_t need_count(struct core_shard *s);

#endif
