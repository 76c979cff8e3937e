/*
 * world.h - a mount of its own for a test: start, stop, kill, and the shorthands to write, read and look.
 *
 * A test runs in a process of its own (CK_FORK); what it leaves mounted when it fails is cleared by
 * world_sweep, which runs in the runner behind each test case. Every world lies in a directory below that of
 * the run, so nothing else is ever unmounted or killed.
 *
 * "want_" fails the test. Threads: the main thread of a test, and children it forks.
 */
#ifndef TESTS_FS_WORLD_H
#define TESTS_FS_WORLD_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check_util.h"

enum { TEXT_MAX = 4096, DEADLINE_MS = 60000 };

struct world {
	char *dir;
	char *store; /* dir/store; need not be there */
	char *mnt;   /* dir/mnt; an empty directory */
	pid_t pid;   /* who serves it, while it is started */
};

/* Directories, nothing started. Others can look into them. */
void world_new(struct world *w);
/* Start with `-o opts` (NULL: none), and it must work. */
void world_start(struct world *w, const char *opts);
/* world_new, world_start without options. */
void world_open(struct world *w);
/* TERM, and it must end with 0 and leave nothing mounted. */
void world_stop(struct world *w);
/* kill -9. What it had mounted stays, dead. */
void world_kill(struct world *w);
/* Stop, if it is started, and remove all. */
void world_close(struct world *w);
/* The exit status of w->pid, once it has ended. */
int world_wait(struct world *w);
/* Find who serves w->mnt. */
pid_t world_find(const struct world *w);
bool is_mounted(const char *dir);
/* Kill and unmount all that a run has left; for tcase_add_unchecked_fixture. */
void world_sweep(void);
/* A case named name, with that fixture and a time limit. */
TCase *world_case(Suite *s, const char *name, double seconds);

/* --- programs -------------------------------------------------------------------------------------- */

/* Run a line of sh; its exit status. *out: what it printed to both, given. out may be NULL. */
int sh(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, and it must exit with 0; what it printed, given. */
char *want_sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *shardfs_path(void);
const char *shardctl_path(void);

/* Run fn(arg) in a child as uid and gid `id`; what it returned (0..255). */
int as_user(unsigned id, int (*fn)(void *arg), void *arg);
/* Run fn(arg) in a child and go on; its pid. join: what it returned. */
pid_t spawn(int (*fn)(void *arg), void *arg);
int join(pid_t pid);
/* Wait until pid sleeps in the system call with this number. */
void want_in_call(pid_t pid, long number);

/* --- shards ---------------------------------------------------------------------------------------- */

/* Make a shard; its directory, given. */
char *shard_new(const struct world *w);
/* A random id s..., given. */
char *shard_id(void);
/* "dir/name", in a buffer of which there are a few. */
const char *at(const char *dir, const char *name);

/* The value of a line of /metrics, by its name with its labels; it has to be there. */
double world_metric(const struct world *w, const char *name);

/* One write(2): the count, or -errno. */
ssize_t put_len(int fd, const char *text, size_t len);
ssize_t put(int fd, const char *text);
/* As a good client writes: on through short counts. 0, or errno. */
int put_all(int fd, const char *text, size_t len);
/* Open `append`, put_all, close. 0, or errno. */
int txn(const char *shard, const char *text);
/* txn() must give 0. */
void want_txn(const char *shard, const char *text);
int append_open(const char *shard);
/* Open, one write(2), close: 0, or errno. */
int write_once(const char *path, const char *text);

/* One read(2) of a verdict; "" at the end. Given. Numbers of seqno= are replaced by N. */
char *verdict(int fd);
void want_verdict(int fd, const char *want);
/* The verdict begins with want, and ends as one line. */
void want_verdict_like(int fd, const char *want);

/* The whole file, read with read(2); given, and NUL-terminated. slurp_rc: NULL and errno. */
char *slurp_len(const char *path, size_t *len);
char *slurp_rc(const char *path);
char *slurp(const char *path);
void want_file(const char *shard, const char *name, const char *want);
/* The last line of `errors` without its time, pid and uid; given. */
char *last_error(const char *shard);
size_t count_lines(const char *text);
/* upper, snapshot, batches with sizes, and seqno - first_seqno: what a refusal must not change. Given. */
char *print_shard(const char *shard);
uint64_t json_number(const char *json, const char *key);

/* --- chance ---------------------------------------------------------------------------------------- */

void seed_init(void); /* takes SEED, prints it */
struct rng {
	uint64_t state;
};
struct rng rng_new(uint64_t salt);
uint64_t rng_below(struct rng *r, uint64_t limit);

/* A figure of the process that serves w, in KiB, as /proc/<pid>/status has it: "VmRSS:". */
unsigned long status_kib(const struct world *w, const char *name);
/* Whether it runs under a sanitizer, which keeps what was freed. */
bool keeps_freed(const struct world *w);

uint64_t now_ms(void);
/* True until DEADLINE_MS after *since (0 to begin with), with a short rest each time. */
bool until_deadline(uint64_t *since);

#define ck_errno(call, want)                                                                \
	do {                                                                                \
		int rc_ = (call);                                                           \
		ck_assert_msg(rc_ == (want), "%s: %s, not %s", #call, strerrorname_np(rc_), \
			      strerrorname_np(want));                                       \
	} while (0)
/* A call that returns -1 and errno. */
#define ck_fails(call, want)                                                              \
	do {                                                                              \
		long rc_ = (call);                                                        \
		int e_ = errno;                                                           \
		ck_assert_msg(rc_ == -1, "%s: worked", #call);                            \
		ck_assert_msg(e_ == (want), "%s: %s, not %s", #call, strerrorname_np(e_), \
			      strerrorname_np(want));                                     \
	} while (0)
#define ck_works(call)                                                             \
	do {                                                                       \
		long rc_ = (call);                                                 \
		ck_assert_msg(rc_ != -1, "%s: %s", #call, strerrorname_np(errno)); \
	} while (0)

Suite *start_suite(void);
Suite *append_suite(void);
Suite *options_suite(void);
Suite *split_suite(void);
Suite *spent_suite(void);
Suite *files_suite(void);
Suite *wait_suite(void);
Suite *batches_suite(void);
Suite *owner_suite(void);
Suite *names_suite(void);
Suite *clients_suite(void);
Suite *linear_suite(void);
Suite *beside_suite(void);
Suite *blind_suite(void);
Suite *shared_fd_suite(void);
Suite *property_suite(void);
Suite *examples_suite(void);
Suite *follows_suite(void);
Suite *crash_suite(void);
Suite *faults_suite(void);
Suite *staged_suite(void);
Suite *staged_commit_suite(void);
Suite *staged_clients_suite(void);
Suite *writers_suite(void);
Suite *listen_suite(void);
Suite *listen_wait_suite(void);
Suite *listen_many_suite(void);
Suite *read_many_suite(void);
Suite *replicate_suite(void);
Suite *holds_suite(void);
Suite *readers_suite(void);
Suite *ctl_suite(void);
Suite *metrics_suite(void);
Suite *corrupt_suite(void);
Suite *shardctl_suite(void);
Suite *export_harm_suite(void);
Suite *nth_suite(void);
Suite *nth_calls_suite(void);
Suite *hostile_suite(void);
Suite *greedy_suite(void);
Suite *full_suite(void);
Suite *ordinary_suite(void);
Suite *large_writes_suite(void);

#endif
