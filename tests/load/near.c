/* near.c - what a small append costs while another user does his worst; see load.c. */
#include "tests/load/load.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CROWD_MAX = 500, OTHER_UID = 4002 };

static void be_another(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (setgroups(0, NULL) != 0 || setgid(OTHER_UID) != 0 || setuid(OTHER_UID) != 0)
		_exit(1);
}

static void crowd_reads(void)
{
	char path[700];

	snprintf(path, sizeof path, "%s/snapshot", shards[0]);
	for (;;)
		(void)read_all(path, SIZE_MAX);
}

static void crowd_writes(void)
{
	char path[700], *text = malloc(1 << 20), *p = text;
	int fd;

	snprintf(path, sizeof path, "%s/append", shards[1]);
	while (p < text + (1 << 20) - 64)
		p += sprintf(p, "*\t1\t%llx\tv\n", (unsigned long long)chance(UINT64_MAX));
	for (;;) {
		fd = open(path, O_WRONLY);
		if (write(fd, "begin expected_upper=* new_upper=+1\n", 36) == 36)
			for (int i = 0; i < 64 && write(fd, text, (size_t)(p - text)) > 0;)
				i++;
		close(fd);
	}
}

static void crowd_listens(void)
{
	char path[700];

	snprintf(path, sizeof path, "%s/listen/now", shards[2]);
	for (int i = 0; i < 50; i++)
		if (open(path, O_RDONLY) < 0)
			break;
	for (;;)
		pause();
}

static void near_appends(struct tally *t)
{
	uint64_t end = now_us() + setting("LOAD_NEAR_S", 10) * 1000000, begun;
	char path[700];
	int fd;

	snprintf(path, sizeof path, "%s/append", shards[3]);
	fd = open(path, O_WRONLY);
	while ((begun = now_us()) < end) {
		static const char text[] = "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n";

		count(t, begun, write(fd, text, sizeof text - 1) < 0 ? errno : 0);
		usleep(2000);
	}
	close(fd);
}

static void fill_shard(void)
{
	char path[700], *text = malloc(9 << 20), *p = text;
	int fd;

	snprintf(path, sizeof path, "%s/append", shards[0]);
	p += sprintf(p, "begin expected_upper=* new_upper=+1\n");
	while (p < text + (8 << 20))
		p += sprintf(p, "*\t1\t%llx\tv\n", (unsigned long long)chance(UINT64_MAX));
	p = stpcpy(p, "commit\n");
	fd = open(path, O_WRONLY);
	for (char *at = text; at < p;) {
		ssize_t n = write(fd, at, (size_t)(p - at) < 1 << 20 ? (size_t)(p - at) : 1 << 20);

		if (n < 0)
			die("the large shard: %s", strerror(errno));
		at += n;
	}
	close(fd);
	free(text);
}

bool neighbours(FILE *out)
{
	static const struct {
		const char *what;
		unsigned processes;
		void (*run)(void);
	} crowds[] = {{"nobody else", 0, NULL},
		      {"500 processes that read a snapshot of 8 MiB", CROWD_MAX, crowd_reads},
		      {"100 transactions of 64 MiB, never committed", 100, crowd_writes},
		      {"5,000 listeners that are not read", 100, crowd_listens}};
	static pid_t pids[CROWD_MAX];
	static struct tally tallies[4];

	fill_shard();
	fprintf(out, "\n## A small append while another user's crowd is at it\n\n| crowd | appends | p50 ms "
		     "| p99 ms | failed | memory MiB |\n|---|---|---|---|---|---|\n");
	for (size_t c = 0; c < 4; c++) {
		struct tally *t = &tallies[c];

		for (unsigned i = 0; i < crowds[c].processes; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				be_another();
				chance_salt(i);
				crowds[c].run();
			}
		}
		usleep(crowds[c].processes != 0 ? 2000000 : 0);
		near_appends(t);
		fprintf(out, "| %s | %llu | %.2f | %.2f | %llu | %lu |\n", crowds[c].what,
			(unsigned long long)t->done, quantile_ms(t, 0.5), quantile_ms(t, 0.99),
			(unsigned long long)t->failed, server_rss_kib() >> 10);
		for (unsigned i = 0; i < crowds[c].processes; i++)
			kill(pids[i], SIGKILL);
		for (unsigned i = 0; i < crowds[c].processes; i++)
			waitpid(pids[i], NULL, 0);
	}
	fputs("\n", out);
	return all_gone(out);
}
