/*
 * load.c - a mount under the shim, and clients that note what they are told.
 *
 * Two lives of the mount: the first makes the store and is killed, by the shim, right behind the making of a
 * shard's directory for blobs (that is where the next start must sync what it did not do itself); the second
 * begins with what is left, writes to that shard at once, and is stopped. It would come upon that directory,
 * empty as it is, and remove it, as a rule before the write; the shim lets that fail. Each life has clients
 * of its own, which end when they have done their share or when the mount has gone.
 *
 * Transaction n of client c has rows with the key c<c>; row i has the value <n>.<i>. and padding. A client
 * that churns retracts the row of its last transaction in each.
 */
#include "tests/power/power.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SHARED = 3, LIVES_EACH = 8, SHARDS = SHARED + 2 * LIVES_EACH, CLIENTS_MAX = 32, DEADLINE_S = 60 };

/* The shard whose directory for blobs is the last thing the first life makes. */
enum { UNSYNCED = SHARED + LIVES_EACH - 3 };

struct life {
	const char *dir;
	struct notes *notes;
	struct client *client;
};

static void die(const char *what)
{
	fprintf(stderr, "tests/power: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void rest(void)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	nanosleep(&ms, NULL);
}

__attribute__((format(printf, 1, 2))) static char *text(const char *fmt, ...)
{
	char *out;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&out, fmt, ap) < 0)
		die("no memory");
	va_end(ap);
	return out;
}

/* --- clients --------------------------------------------------------------------------------------- */

/* All bytes, through short counts: 0 or errno. */
static int put_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0)
			return errno;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Open dir/shard/<id>/<name>, write, close: 0 or errno. */
static int say(const struct life *l, unsigned shard, const char *name, const char *bytes, size_t len)
{
	char *path = text("%s/mnt/shard/%s/%s", l->dir, l->notes->shards[shard].id, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int e = fd < 0 ? errno : put_all(fd, bytes, len);

	if (fd >= 0)
		close(fd);
	free(path);
	return e;
}

static char *add_row(char *p, const struct client *c, unsigned n, unsigned i, const char *time, int diff)
{
	p += sprintf(p, "%s\t%d\tc%u\t%u.%u.", time, diff, c->id, n, i);
	row_pad(c, n, i, p);
	p += c->pad;
	*p++ = '\n';
	*p = '\0';
	return p;
}

static uint64_t read_upper(const struct life *l)
{
	char *path = text("%s/mnt/shard/%s/upper", l->dir, l->notes->shards[l->client->shard].id),
	     buf[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);

	if (fd >= 0)
		close(fd);
	free(path);
	return n > 0 ? strtoull(buf, NULL, 10) : UINT64_MAX;
}

static char *make_txn(const struct life *l, unsigned n, char *buf)
{
	const struct client *c = l->client;
	char time[24] = "*", *p = buf;

	if (c->kind == COMPARES) {
		uint64_t upper = read_upper(l);

		sprintf(time, "%" PRIu64, upper);
		p += sprintf(p, "begin expected_upper=%s new_upper=%" PRIu64 "\n", time, upper + 1);
	} else {
		p += sprintf(p, "begin expected_upper=* new_upper=+1\n");
	}
	for (unsigned i = 0; i < c->rows; i++)
		p = add_row(p, c, n, i, time, 1);
	if (c->kind == CHURNS && n > 0)
		p = add_row(p, c, n - 1, 0, time, -1);
	return p + sprintf(p, "commit\n");
}

static int append(struct life *l, unsigned n, char *buf)
{
	struct client *c = l->client;
	struct txn_note *t = &c->txns[n];
	char *end = make_txn(l, n, buf);
	int e;

	t->rows = c->rows;
	t->pad = c->pad;
	t->begun = now_ns();
	c->begun = n + 1;
	e = say(l, c->shard, "append", buf, (size_t)(end - buf));
	if (e == 0)
		t->done = now_ns();
	t->refused = e == ESTALE;
	return e == ESTALE ? 0 : e;
}

/* Half of the rows, fsync, the other half, fsync; then a commit by name. */
static int stage(struct life *l, unsigned n, char *buf)
{
	struct client *c = l->client;
	struct txn_note *t = &c->txns[n];
	char *path = text("%s/mnt/shard/%s/batches/b%u_%u", l->dir, l->notes->shards[c->shard].id, c->id, n);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), e = fd < 0 ? errno : 0;

	t->rows = c->rows;
	t->pad = c->pad;
	t->staged = true;
	c->begun = n + 1;
	for (unsigned half = 0, i = 0; half < 2 && e == 0; half++) {
		for (; i < c->rows * (half + 1) / 2 && e == 0; i++)
			e = put_all(fd, buf, (size_t)(add_row(buf, c, n, i, "0", 1) - buf));
		if (e == 0 && fsync(fd) != 0)
			e = errno;
		t->synced_rows[half] = i;
		t->synced[half] = e == 0 ? now_ns() : NEVER;
	}
	if (fd >= 0 && close(fd) != 0 && e == 0)
		e = errno;
	free(path);
	if (e != 0)
		return e;
	t->begun = now_ns();
	sprintf(buf, "begin expected_upper=* new_upper=+1 rewrite_ts=*\nbatch b%u_%u\ncommit\n", c->id, n);
	e = say(l, c->shard, "append", buf, strlen(buf));
	if (e == 0)
		t->done = now_ns();
	return e;
}

static int make_shard(struct life *l, unsigned shard)
{
	char *path = text("%s/mnt/shard/%s", l->dir, l->notes->shards[shard].id);
	int e = mkdir(path, 0700) == 0 ? 0 : errno;

	if (e == 0)
		l->notes->shards[shard].made = now_ns();
	free(path);
	return e;
}

static int name_shard(struct life *l, unsigned shard)
{
	struct shard_note *s = &l->notes->shards[shard];
	char *path = text("%s/mnt/name/n%s", l->dir, s->id), *target = text("../shard/%s", s->id);
	int e = symlink(target, path) == 0 ? 0 : errno;

	if (e == 0)
		s->named = now_ns();
	free(path);
	free(target);
	return e;
}

static int remove_shard(struct life *l, unsigned shard)
{
	static const char end[] = "begin expected_upper=* new_upper=- since=-\ncommit\n";
	struct shard_note *s = &l->notes->shards[shard];
	char *path = text("%s/mnt/shard/%s", l->dir, s->id);
	int e;

	s->finishing = now_ns();
	e = say(l, shard, "append", end, strlen(end));
	if (e == 0) {
		s->finished = now_ns();
		s->removing = now_ns();
		e = rmdir(path) == 0 ? 0 : errno;
	}
	if (e == 0)
		s->removed = now_ns();
	free(path);
	return e;
}

/* A shard is made, written, and removed, but every other one; UNSYNCED arms the kill. */
static int live(struct life *l, unsigned n, char *buf)
{
	struct client *c = l->client;
	unsigned first = c->shard;
	int e;

	c->shard = first + n;
	e = make_shard(l, c->shard);
	if (e == 0)
		e = name_shard(l, c->shard);
	if (e == 0 && c->shard == UNSYNCED) {
		char *arm = text("%s/arm", l->dir);
		int fd = open(arm, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		close(fd);
		free(arm);
	}
	if (e == 0)
		e = append(l, n, buf);
	if (e == 0 && n % 2 == 0)
		e = remove_shard(l, c->shard);
	c->shard = first;
	return e;
}

/* Maintenance of the shared shards; what it answers is of no matter. */
static int keep(struct life *l, unsigned n)
{
	static const char *const verbs[] = {"compact\n", "gc\n", "rollup\n", "gc\n"};
	const char *verb = verbs[n % 4];
	unsigned shard = (n / 4) % SHARED;
	int e = say(l, shard, "ctl", verb, strlen(verb));

	if (n % 4 == 3)
		e = say(l, shard, "since", "upper-2\n", 8);
	for (int i = 0; i < 20; i++)
		rest();
	return e == ENOTCONN || e == ECONNABORTED || e == ENOENT ? e : 0;
}

static void *client_main(void *arg)
{
	struct life *l = arg;
	struct client *c = l->client;
	char *buf = malloc((size_t)(c->rows + 1) * (c->pad + 128) + 1024);
	int e = buf ? 0 : ENOMEM;

	for (unsigned n = 0; n < c->count && e == 0; n++) {
		switch (c->kind) {
		case STAGES:
			e = stage(l, n, buf);
			break;
		case LIVES:
			e = live(l, n, buf);
			break;
		case KEEPS:
			e = keep(l, n);
			break;
		case APPENDS:
		case COMPARES:
		case CHURNS:
			e = append(l, n, buf);
		}
	}
	/* The kernel says EIO too where the mount died while it took bytes. */
	if (e != 0 && e != ENOTCONN && e != ECONNABORTED && e != ESHUTDOWN && e != EIO && e != ENOENT) {
		errno = e;
		die("a client was refused");
	}
	free(buf);
	return NULL;
}

/* --- the mount ------------------------------------------------------------------------------------- */

static bool answers(const char *dir)
{
	char *path = text("%s/mnt/README", dir);
	struct stat st;
	bool up = stat(path, &st) == 0;

	free(path);
	return up;
}

/* The shim is told a rule in its variable. */
static pid_t mount_start(const char *dir, const char *variable, const char *rule)
{
	char *top = text("%s/top", dir), *record = text("%s/record", dir), *arm = text("%s/arm", dir);
	char *store = text("%s/top/store", dir), *mnt = text("%s/mnt", dir);
	uint64_t begun = now_ns();
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		setenv("LD_PRELOAD", getenv("SHIM"), 1);
		setenv("SHIM_DIR", top, 1);
		setenv("SHIM_RECORD", record, 1);
		setenv("SHIM_ARM", arm, 1);
		setenv(variable, rule, 1);
		execl(getenv("SHARDFS"), "shardfs", "-f", store, mnt, (char *)NULL);
		_exit(127);
	}
	while (!answers(dir)) {
		if (waitpid(pid, NULL, WNOHANG) != 0 || now_ns() - begun > DEADLINE_S * 1000000000ull)
			die("the mount does not answer");
		rest();
	}
	free(top);
	free(record);
	free(arm);
	free(store);
	free(mnt);
	return pid;
}

static void mount_end(const char *dir, pid_t pid)
{
	char *mnt = text("%s/mnt", dir);
	int status;

	kill(pid, SIGTERM);
	if (waitpid(pid, &status, 0) != pid)
		die("wait");
	if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) &&
	    !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
		fprintf(stderr, "tests/power: the mount ended with status %x\n", (unsigned)status);
		exit(2);
	}
	umount2(mnt, MNT_DETACH);
	free(mnt);
}

/* --- both lives ------------------------------------------------------------------------------------ */

static void add_client(struct notes *n, enum client_kind kind, unsigned shard, unsigned count, unsigned rows,
		       unsigned pad)
{
	struct client *c = &n->clients[n->client_count];

	*c = (struct client){.kind = kind,
			     .id = (unsigned)n->client_count,
			     .shard = shard,
			     .count = count,
			     .rows = rows,
			     .pad = pad};
	c->txns = calloc(count, sizeof *c->txns);
	n->client_count++;
}

static void live_once(const char *dir, struct notes *n, unsigned number)
{
	pthread_t threads[CLIENTS_MAX];
	struct life lives[CLIENTS_MAX];
	const struct shard_note *unsynced = &n->shards[UNSYNCED];
	char *rule =
		text(number == 0 ? "mkdir@*blobs/data/%s:1:after" : "unlink@*blobs/data/%s:1:EBUSY:always",
		     unsynced->id);
	pid_t pid = mount_start(dir, number == 0 ? "SHIM_KILL" : "SHIM_FAIL", rule);
	struct life maker = {dir, n, NULL};

	if (number > 0)
		n->again = now_ns();
	if (number == 0) {
		n->made = now_ns();
		for (unsigned i = 0; i < SHARED; i++)
			if (make_shard(&maker, i) != 0)
				die("a shard cannot be made");
	}
	/* First of all into the directory that the first life made last and did not sync. */
	if (number > 0 && unsynced->made != NEVER) {
		add_client(n, APPENDS, UNSYNCED, 2, 6, 80000);
		client_main(&(struct life){dir, n, &n->clients[n->client_count - 1]});
	}

	size_t first = n->client_count;

	add_client(n, APPENDS, 0, 60, 1, 20);
	add_client(n, COMPARES, 0, 60, 2, 30);
	add_client(n, CHURNS, 0, 60, 1, 700);
	add_client(n, COMPARES, 1, 40, 4, 40000);
	add_client(n, APPENDS, 1, 60, 5, 20000);
	add_client(n, APPENDS, 2, 8, 6, 80000);
	add_client(n, CHURNS, 2, 30, 1, 40000);
	add_client(n, STAGES, 2, 6, 10, 60000);
	add_client(n, STAGES, 1, 10, 6, 300);
	add_client(n, LIVES, SHARED + number * LIVES_EACH, LIVES_EACH, 6, 80000);
	add_client(n, KEEPS, 0, 24, 0, 0);
	for (size_t i = first; i < n->client_count; i++) {
		lives[i] = (struct life){dir, n, &n->clients[i]};
		if (pthread_create(&threads[i], NULL, client_main, &lives[i]) != 0)
			die("no thread");
	}
	for (size_t i = first; i < n->client_count; i++)
		pthread_join(threads[i], NULL);
	mount_end(dir, pid);
	free(rule);
}

struct notes load_run(const char *dir, uint64_t seed)
{
	struct rng rng = {seed};
	struct notes n = {.shards = calloc(SHARDS, sizeof *n.shards),
			  .shard_count = SHARDS,
			  .clients = calloc(CLIENTS_MAX, sizeof *n.clients)};

	for (unsigned i = 0; i < SHARDS; i++)
		snprintf(n.shards[i].id, sizeof n.shards[i].id, "s%08x-%04x-4%03x-8%03x-%012x",
			 (unsigned)rng_below(&rng, 1u << 31), (unsigned)rng_below(&rng, 65536),
			 (unsigned)rng_below(&rng, 4096), (unsigned)rng_below(&rng, 4096), i);
	for (unsigned number = 0; number < 2; number++)
		live_once(dir, &n, number);
	for (size_t i = 0; i < n.client_count; i++)
		for (unsigned t = 0; t < n.clients[i].begun; t++)
			n.acked += n.clients[i].txns[t].done != NEVER;
	return n;
}

void notes_free(struct notes *n)
{
	for (size_t i = 0; i < n->client_count; i++)
		free(n->clients[i].txns);
	free(n->clients);
	free(n->shards);
}
