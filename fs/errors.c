/*
 * errors.c - see errors.h. A ring of lines per shard that ever had one.
 */
#include "fs/errors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct fs_errors_of {
	struct core_shard_id shard;
	char *lines[FS_ERRORS_KEPT];
	size_t next; /* where the next line goes: the oldest, or an empty place */
	UT_hash_handle hh;
};

void fs_errors_init(struct fs_errors *e)
{
	*e = (struct fs_errors){0};
	pthread_mutex_init(&e->mu, NULL);
}

static void of_free(struct fs_errors_of *of)
{
	for (size_t i = 0; i < FS_ERRORS_KEPT; i++)
		free(of->lines[i]);
	free(of);
}

void fs_errors_fini(struct fs_errors *e)
{
	struct fs_errors_of *of, *next;

	HASH_ITER(hh, e->shards, of, next)
	{
		HASH_DEL(e->shards, of);
		of_free(of);
	}
	pthread_mutex_destroy(&e->mu);
}

static struct fs_errors_of *find_locked(struct fs_errors *e, struct core_shard_id shard)
{
	struct fs_errors_of *of;

	HASH_FIND(hh, e->shards, &shard, sizeof shard, of);
	return of;
}

void fs_errors_add(struct fs_errors *e, struct core_shard_id shard, pid_t pid, uid_t uid, const char *what)
{
	struct fs_errors_of *of;
	struct timespec now;
	struct tm tm;
	char when[32], *line;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
	if (asprintf(&line, "%s.%03ldZ pid=%d uid=%u %s\n", when, now.tv_nsec / 1000000, (int)pid,
		     (unsigned)uid, what) < 0)
		return;
	pthread_mutex_lock(&e->mu);
	of = find_locked(e, shard);
	if (of == NULL) {
		of = calloc(1, sizeof *of);
		if (of != NULL) {
			of->shard = shard;
			HASH_ADD(hh, e->shards, shard, sizeof shard, of);
			if (!core_hashed(of)) {
				free(of);
				of = NULL;
			}
		}
	}
	if (of != NULL) {
		char *oldest = of->lines[of->next];

		of->lines[of->next] = line;
		of->next = (of->next + 1) % FS_ERRORS_KEPT;
		line = oldest;
	}
	pthread_mutex_unlock(&e->mu);
	free(line);
}

char *fs_errors_text(struct fs_errors *e, struct core_shard_id shard)
{
	struct fs_errors_of *of;
	size_t len = 0;
	char *text;

	pthread_mutex_lock(&e->mu);
	of = find_locked(e, shard);
	for (size_t i = 0; of != NULL && i < FS_ERRORS_KEPT; i++)
		len += of->lines[i] != NULL ? strlen(of->lines[i]) : 0;
	text = malloc(len + 1);
	if (text == NULL)
		goto out;
	len = 0;
	for (size_t i = 0; of != NULL && i < FS_ERRORS_KEPT; i++) {
		const char *line = of->lines[(of->next + i) % FS_ERRORS_KEPT];

		if (line != NULL) {
			memcpy(text + len, line, strlen(line));
			len += strlen(line);
		}
	}
	text[len] = '\0';
out:
	pthread_mutex_unlock(&e->mu);
	return text;
}

void fs_errors_forget(struct fs_errors *e, struct core_shard_id shard)
{
	struct fs_errors_of *of;

	pthread_mutex_lock(&e->mu);
	of = find_locked(e, shard);
	if (of != NULL)
		HASH_DEL(e->shards, of);
	pthread_mutex_unlock(&e->mu);
	if (of != NULL)
		of_free(of);
}
