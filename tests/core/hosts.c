/*
 * hosts.c - see hosts.h.
 */
#include "tests/core/hosts.h"

uint64_t host_clock(void *arg)
{
	return atomic_load(&((struct host *)arg)->now_ms) * 1000;
}

static void host_start(struct hosts *h, struct host *host)
{
	host->engine = disk_open(h->disk);
	host->engine->config.now_us = host_clock; /* before anybody has asked */
	host->engine->config.now_arg = host;
	if (atomic_load(&host->now_ms) == 0)
		atomic_store(&host->now_ms, 1700000000000);
}

static void host_enter(struct hosts *h, struct host *host)
{
	struct kv_err err;

	ck_ok(core_shard_open(host->engine, h->id, &host->shard, &err), err);
}

void host_leave(struct host *host)
{
	core_shard_close(host->shard);
	core_engine_close(host->engine);
	host->shard = NULL;
	host->engine = NULL;
}

/* With [0, 10) appended. In place: the engines know the hosts. */
void hosts_begin(struct hosts *h, enum disk_kind kind)
{
	struct kv_err err;

	*h = (struct hosts){.disk = disk_new(kind), .id.u = core_uuid_new()};
	host_start(h, &h->a);
	snprintf(h->a.engine->writer.host, CORE_HOST_LEN, "a.example");
	snprintf(h->a.engine->writer.purpose, CORE_PURPOSE_LEN, "a test");
	ck_ok(core_shard_create(h->a.engine, h->id, any_owner, &err), err);
	host_enter(h, &h->a);
	ck_assert_str_eq(verdict(h->a.shard, "expected_upper=0 new_upper=10", "1 1 k v;7 1 l v;"),
			 "ok 0 10 updates=2");
	if (kind != DISK_SHARED)
		return;
	host_start(h, &h->b);
	host_enter(h, &h->b);
}

void hosts_end(struct hosts *h)
{
	disk_heal(h->disk);
	host_leave(&h->a);
	host_leave(&h->b);
	disk_free(h->disk);
}

void later(struct hosts *h, uint64_t ms)
{
	atomic_fetch_add(&h->a.now_ms, ms);
	atomic_fetch_add(&h->b.now_ms, ms);
}

struct core_info info_of(struct host *host)
{
	struct core_info info;
	struct kv_err err;

	ck_ok(core_shard_info(host->shard, true, &info, &err), err);
	return info;
}

uint64_t since_of(struct host *host)
{
	return info_of(host).since.t;
}

/* A version by that host that lets since go to `since` as far as it is concerned. */
void step(struct host *host, uint64_t since)
{
	char options[80];

	snprintf(options, sizeof(options), "expected_upper=* new_upper=+1 since=%llu",
		 (unsigned long long)since);
	ck_assert(strncmp(verdict(host->shard, options, ""), "ok", 2) == 0);
}

/* As `viewer` sees it. False: there is none. */
bool find_lease(struct host *viewer, struct core_uuid id, struct core_lease *out)
{
	struct core_state state;
	const struct core_lease *lease;
	struct kv_err err;

	(void)info_of(viewer);
	ck_ok(core_shard_state(viewer->shard, &state, &err), err);
	ck_ok(core_state_check(&state, &err), err);
	lease = core_state_lease(&state, id);
	if (lease != NULL)
		*out = *lease;
	core_state_fini(&state);
	return lease != NULL;
}

struct core_lease lease_of(struct host *host)
{
	struct core_lease lease;

	ck_assert(find_lease(host, host->engine->instance.u, &lease));
	return lease;
}

bool has_lease(struct host *viewer, struct host *host)
{
	struct core_lease lease;

	return find_lease(viewer, host->engine->instance.u, &lease);
}

void need_at(struct host *host, struct core_need *need, uint64_t time)
{
	struct kv_err err;

	*need = (struct core_need){.reader.purpose = "a reader"};
	ck_ok(core_shard_need(host->shard, need, time, &err), err);
}

size_t need_count(struct core_shard *s)
{
	size_t count = 0;

	for (const struct core_need *need = s->needs; need != NULL; need = need->next)
		count++;
	return count;
}
