/*
 * crash.c - kill -9 of the mount at random moments under load, and a start on the same mount point, many times.
 *
 * Writers are processes that live through all of it. Each numbers its transactions and notes in a file of its
 * own: "b n" begun, "a n" acknowledged, "r n" refused. A transaction of writer w and number n is `rows` rows
 * (w, n.i), and moves the upper by 1. So for each shard: what was acknowledged is there once, what was refused is
 * not, all others are there whole or not at all, and the upper is the number of those that are.
 */
#include "tests/fs/world.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { SHARDS = 3, WRITERS = 6, KILLS = 110, LARGE_ROWS = 24, LARGE_VAL = 64 << 10, NUMBERS_MAX = 200000 };

struct shared {
	_Atomic unsigned acked;
	_Atomic unsigned round; /* large transactions are made once a round, to bound the store */
	_Atomic bool stop;
};

struct writer {
	int id;
	bool cas; /* compare-and-append with the upper it read; else blind */
	int rows;
	char *shard;
	char *log;
	pid_t pid;
};

static struct world w;
static struct shared *shared;
static struct writer writers[WRITERS];

/* --- a writer -------------------------------------------------------------------------------------- */

static void note(int log, char what, unsigned n)
{
	char line[32];
	int len = snprintf(line, sizeof line, "%c %u\n", what, n);

	if (write(log, line, (size_t)len) != len)
		_exit(3);
}

static char *make_text(const struct writer *me, unsigned n, uint64_t upper, char *buf)
{
	char *p = buf;

	if (me->cas)
		p += sprintf(p, "begin expected_upper=%" PRIu64 " new_upper=%" PRIu64 "\n", upper, upper + 1);
	else
		p += sprintf(p, "begin expected_upper=* new_upper=+1\n");
	for (int i = 0; i < me->rows; i++) {
		p += me->cas ? sprintf(p, "%" PRIu64, upper) : sprintf(p, "*");
		p += sprintf(p, "\t1\tw%d\t%u.%d.", me->id, n, i);
		if (me->rows > 1) {
			memset(p, 'x', LARGE_VAL);
			p += LARGE_VAL;
		}
		*p++ = '\n';
	}
	return stpcpy(p, "commit\n");
}

/* 0: done, or why not. *begun: the write of the commit line may have reached it. */
static int try_once(const struct writer *me, unsigned n, char *buf, int log, bool *begun)
{
	char *upper = me->cas ? slurp_rc(at(me->shard, "upper")) : NULL;
	int fd, e;
	char *end;

	*begun = false;
	if (me->cas && (upper == NULL || upper[0] == '\0')) {
		free(upper);
		return ENOTCONN;
	}
	fd = open(at(me->shard, "append"), O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		free(upper);
		return errno;
	}
	end = make_text(me, n, me->cas ? strtoull(upper, NULL, 10) : 0, buf);
	free(upper);
	note(log, 'b', n);
	*begun = true;
	e = put_all(fd, buf, (size_t)(end - buf));
	/* The kernel too says EIO, where the server died while it took the bytes; then there is no verdict. */
	if (e == EIO && read(fd, buf, 1) < 0)
		e = ECONNABORTED;
	close(fd);
	return e;
}

static int writer_main(void *arg)
{
	const struct writer *me = arg;
	char *buf = malloc((size_t)me->rows * (LARGE_VAL + 128) + 1024);
	int log = open(me->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	const struct timespec rest = {.tv_nsec = 500000};
	unsigned round = 0;

	if (buf == NULL || log < 0)
		return 2;
	for (unsigned n = 0; n < NUMBERS_MAX && !atomic_load(&shared->stop);) {
		bool begun;

		if (me->rows > 1 && atomic_load(&shared->round) == round) {
			nanosleep(&rest, NULL);
			continue;
		}
		int e = try_once(me, n, buf, log, &begun);

		if (e == 0) {
			note(log, 'a', n);
			atomic_fetch_add(&shared->acked, 1);
			round = atomic_load(&shared->round);
		} else if (begun && e == ESTALE) {
			note(log, 'r', n);
		} else if (begun && e != ENOTCONN && e != ECONNABORTED && e != ESHUTDOWN) {
			fprintf(stderr, "writer %d: %s\n", me->id, strerrorname_np(e));
			return 4;
		}
		if (begun)
			n++;
		else
			nanosleep(&rest, NULL); /* the mount is dead just now */
	}
	close(log);
	free(buf);
	return 0;
}

/* --- the look -------------------------------------------------------------------------------------- */

/* What became of each number of a writer: 'b', 'a' or 'r'; *count: how many there are. */
static char *read_log(const struct writer *wr, unsigned *count)
{
	char *fate = calloc(NUMBERS_MAX, 1), *text = slurp(wr->log);

	*count = 0;
	for (char *p = text; *p != '\0'; p = strchr(p, '\n') + 1) {
		unsigned n = (unsigned)strtoul(p + 2, NULL, 10);

		fate[n] = *p;
		*count = n + 1 > *count ? n + 1 : *count;
	}
	free(text);
	return fate;
}

/* Rows of each number of writer id in the snapshot text. */
static void count_rows(const char *text, const struct writer *wr, unsigned *rows)
{
	char key[16];
	size_t key_len = (size_t)snprintf(key, sizeof key, "w%d\t", wr->id);

	for (const char *p = text; *p != '\0'; p = strchr(p, '\n') + 1) {
		const char *diff = strchr(p, '\t') + 1, *k = strchr(diff, '\t') + 1;
		unsigned n;

		if (strncmp(k, key, key_len) != 0)
			continue;
		n = (unsigned)strtoul(k + key_len, NULL, 10);
		ck_assert_msg(strtol(diff, NULL, 10) == 1, "writer %d: transaction %u is there more than once", wr->id, n);
		ck_assert_uint_lt(n, NUMBERS_MAX);
		rows[n]++;
	}
}

/* The writers may go on meanwhile: logs are read first and again after, so a number is judged by what is known. */
static void check_shard(const char *shard, bool at_rest)
{
	char *fates[WRITERS] = {NULL}, *upper, *text;
	unsigned counts[WRITERS] = {0}, *rows = calloc(NUMBERS_MAX, sizeof *rows);
	uint64_t present = 0;

	for (int i = 0; i < WRITERS; i++)
		if (strcmp(writers[i].shard, shard) == 0)
			fates[i] = read_log(&writers[i], &counts[i]);
	text = slurp(at(shard, "snapshot"));
	upper = slurp(at(shard, "upper"));
	for (int i = 0; i < WRITERS; i++) {
		const struct writer *wr = &writers[i];

		if (fates[i] == NULL)
			continue;
		memset(rows, 0, NUMBERS_MAX * sizeof *rows);
		count_rows(text, wr, rows);
		for (unsigned n = 0; n < (at_rest ? NUMBERS_MAX : counts[i]); n++) {
			present += rows[n] != 0;
			ck_assert_msg(rows[n] == 0 || rows[n] == (unsigned)wr->rows, "writer %d: %u rows of transaction %u",
				      wr->id, rows[n], n);
			ck_assert_msg(fates[i][n] != 'a' || rows[n] != 0, "writer %d: transaction %u was acknowledged and is lost",
				      wr->id, n);
			ck_assert_msg(fates[i][n] != 'r' || rows[n] == 0, "writer %d: transaction %u was refused and is there",
				      wr->id, n);
			ck_assert_msg(fates[i][n] != 0 || rows[n] == 0, "writer %d: transaction %u came from nowhere", wr->id, n);
		}
		free(fates[i]);
	}
	if (at_rest)
		ck_assert_uint_eq(strtoull(upper, NULL, 10), present);
	else
		ck_assert_uint_ge(strtoull(upper, NULL, 10), present);
	free(rows);
	free(text);
	free(upper);
}

static void start_writers(void)
{
	static const struct {
		int shard;
		bool cas;
		int rows;
	} kinds[WRITERS] = {{0, true, 1}, {0, true, 1}, {1, false, 1}, {1, false, 1}, {1, true, 1}, {2, false, LARGE_ROWS}};
	char *shards[SHARDS], name[32];

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(shared != MAP_FAILED);
	for (int i = 0; i < SHARDS; i++)
		shards[i] = shard_new(&w);
	for (int i = 0; i < WRITERS; i++) {
		snprintf(name, sizeof name, "log%d", i);
		writers[i] = (struct writer){.id = i,
					     .cas = kinds[i].cas,
					     .rows = kinds[i].rows,
					     .shard = shards[kinds[i].shard],
					     .log = check_path(w.dir, name)};
		check_write(writers[i].log, "");
		writers[i].pid = spawn(writer_main, &writers[i]);
	}
}

START_TEST(what_was_acknowledged_survives_kill_9_at_any_moment)
{
	struct rng r = rng_new(400);

	world_open(&w);
	start_writers();
	for (unsigned round = 0; round < KILLS; round++) {
		unsigned target = atomic_load(&shared->acked) + (unsigned)rng_below(&r, 30);
		const struct timespec more = {.tv_nsec = (long)rng_below(&r, 3000000)};
		uint64_t since = 0;

		if (round % 4 != 0)
			atomic_fetch_add(&shared->round, 1);
		while (atomic_load(&shared->acked) < target && until_deadline(&since))
			;
		ck_assert_msg(atomic_load(&shared->acked) >= target, "the writers came to a stop");
		nanosleep(&more, NULL); /* somewhere in the next commit */
		world_kill(&w);
		world_start(&w, NULL);
		if (round % 20 == 10)
			for (int i = 0; i < WRITERS; i += 2)
				check_shard(writers[i].shard, false);
	}
	atomic_store(&shared->stop, true);
	for (int i = 0; i < WRITERS; i++)
		ck_assert_int_eq(join(writers[i].pid), 0);
	check_shard(writers[0].shard, true);
	check_shard(writers[2].shard, true);
	check_shard(writers[5].shard, true);
	world_kill(&w);
	world_start(&w, NULL);
	check_shard(writers[0].shard, true);
	check_shard(writers[5].shard, true);
	printf("tests/fs: %d kills, %u transactions acknowledged\n", KILLS, atomic_load(&shared->acked));
	world_stop(&w);
	char *out = want_sh("%s fsck %s", shardctl_path(), w.store);

	ck_assert_msg(strncmp(out, "clean: 3 shards", 15) == 0, "%s", out);
	free(out);
	for (int i = 0; i < WRITERS; i++)
		free(writers[i].log);
	world_close(&w);
}
END_TEST

/* The start itself is killed, too. */
START_TEST(a_start_that_is_killed_half_way_harms_nothing)
{
	struct rng r = rng_new(401);

	world_open(&w);
	char *shard = shard_new(&w);

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	world_kill(&w);
	for (int i = 0; i < 40; i++) {
		const struct timespec some = {.tv_nsec = (long)rng_below(&r, 40000000)};
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			execl(shardfs_path(), "shardfs", "-f", w.store, w.mnt, (char *)NULL);
			_exit(127);
		}
		nanosleep(&some, NULL);
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	}
	world_start(&w, NULL);
	want_file(shard, "snapshot", "0\t1\ta\tb\n");
	ck_assert_int_eq(sh(NULL, "test $(grep -c ' %s ' /proc/self/mounts) = 1", w.mnt), 0);
	free(shard);
	world_close(&w);
}
END_TEST

static int say_txn(void *shard)
{
	return txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\tc\td\ncommit\n");
}

START_TEST(a_mount_that_was_suspended_goes_on_where_it_was)
{
	const struct timespec while_ = {.tv_sec = 2};
	char buf[200];
	ssize_t n;

	world_open(&w);
	char *shard = shard_new(&w);

	want_txn(shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n");
	int snapshot = open(at(shard, "snapshot"), O_RDONLY), listen = open(at(shard, "listen/1"), O_RDONLY);

	ck_assert(snapshot >= 0 && listen >= 0);
	ck_works(kill(w.pid, SIGSTOP));
	pid_t pid = spawn(say_txn, shard);

	nanosleep(&while_, NULL);
	ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
	ck_works(kill(w.pid, SIGCONT));
	ck_errno(join(pid), 0);
	n = read(snapshot, buf, sizeof buf);
	ck_assert(n == 8 && memcmp(buf, "0\t1\ta\tb\n", 8) == 0);
	n = read(listen, buf, sizeof buf);
	ck_assert(n > 0 && memcmp(buf, "begin lower=1 upper=2\n", 22) == 0);
	close(snapshot);
	close(listen);
	free(shard);
	world_close(&w);
}
END_TEST

Suite *crash_suite(void)
{
	Suite *s = suite_create("crash");
	TCase *tc = world_case(s, "crash", 400);

	tcase_add_test(tc, what_was_acknowledged_survives_kill_9_at_any_moment);
	tcase_add_test(tc, a_start_that_is_killed_half_way_harms_nothing);
	tcase_add_test(tc, a_mount_that_was_suspended_goes_on_where_it_was);
	return s;
}
