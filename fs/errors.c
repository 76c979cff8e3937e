/*
 * errors.c - see errors.h. A ring of lines per life of a shard that ever had one.
 */
#include "fs/errors.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct fs_errors_of {
	struct core_shard_id shard;
	uint64_t first_seqno;
	char *lines[FS_ERRORS_KEPT];
	size_t next; /* where the next line goes: the oldest, or an empty place */
	size_t bytes;
	UT_hash_handle hh; /* by shard and first_seqno */
};

enum { KEY_LEN = offsetof(struct fs_errors_of, lines) - offsetof(struct fs_errors_of, shard) };

void fs_errors_init(struct fs_errors *e)
{
	*e = (struct fs_errors){0};
	pthread_mutex_init(&e->mu, NULL);
}

/* Take it off the list; to be freed without the lock. */
static void take_off_locked(struct fs_errors *e, struct fs_errors_of *of)
{
	HASH_DEL(e->shards, of);
	assert(e->bytes >= of->bytes);
	e->bytes -= of->bytes;
}

static void of_free(struct fs_errors_of *of)
{
	for (size_t i = 0; of != NULL && i < FS_ERRORS_KEPT; i++)
		free(of->lines[i]);
	free(of);
}

void fs_errors_fini(struct fs_errors *e)
{
	struct fs_errors_of *of, *next;

	HASH_ITER(hh, e->shards, of, next)
	{
		take_off_locked(e, of);
		of_free(of);
	}
	pthread_mutex_destroy(&e->mu);
}

static struct fs_errors_of *find_locked(struct fs_errors *e, struct core_shard_id shard, uint64_t first_seqno)
{
	struct fs_errors_of key = {.shard = shard, .first_seqno = first_seqno}, *of;

	HASH_FIND(hh, e->shards, &key.shard, KEY_LEN, of);
	return of;
}

/* The ring of a shard, which is now the newest; made if there is none. NULL: out of memory. */
static struct fs_errors_of *renew_locked(struct fs_errors *e, struct core_shard_id shard,
					 uint64_t first_seqno)
{
	struct fs_errors_of *of = find_locked(e, shard, first_seqno);

	if (of != NULL) {
		HASH_DEL(e->shards, of);
	} else {
		of = calloc(1, sizeof *of);
		if (of == NULL)
			return NULL;
		of->shard = shard;
		of->first_seqno = first_seqno;
		of->bytes = sizeof *of;
		e->bytes += of->bytes;
	}
	HASH_ADD(hh, e->shards, shard, KEY_LEN, of);
	if (!core_hashed(of)) {
		e->bytes -= of->bytes;
		of_free(of);
		return NULL;
	}
	return of;
}

/* Put line (taken) in place of the oldest one, which is returned. */
static char *put_locked(struct fs_errors *e, struct fs_errors_of *of, char *line)
{
	char *oldest = of->lines[of->next];
	size_t more = strlen(line) + 1, less = oldest != NULL ? strlen(oldest) + 1 : 0;

	of->lines[of->next] = line;
	of->next = (of->next + 1) % FS_ERRORS_KEPT;
	of->bytes = of->bytes + more - less;
	e->bytes = e->bytes + more - less;
	return oldest;
}

void fs_errors_add(struct fs_errors *e, struct core_shard *shard, pid_t pid, uid_t uid, const char *what)
{
	struct fs_errors_of *of, *over = NULL;
	struct core_info info;
	struct timespec now;
	struct tm tm;
	char when[32], *line;

	if (core_shard_info(shard, false, &info, NULL) != KV_OK)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
	if (asprintf(&line, "%s.%03ldZ pid=%d uid=%u %s\n", when, now.tv_nsec / 1000000, (int)pid,
		     (unsigned)uid, what) < 0)
		return;
	pthread_mutex_lock(&e->mu);
	of = renew_locked(e, core_shard_id(shard), info.first_seqno);
	if (of != NULL)
		line = put_locked(e, of, line);
	/* One is as much as comes in with a line, or nearly; it is not this shard's, which is the last. */
	if (e->bytes > FS_ERRORS_BYTES && e->shards != of) {
		over = e->shards;
		take_off_locked(e, over);
	}
	pthread_mutex_unlock(&e->mu);
	of_free(over);
	free(line);
}

char *fs_errors_text(struct fs_errors *e, struct core_shard_id shard, uint64_t first_seqno)
{
	struct fs_errors_of *of;
	size_t len = 0;
	char *text;

	pthread_mutex_lock(&e->mu);
	of = find_locked(e, shard, first_seqno);
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

void fs_errors_forget(struct fs_errors *e, struct core_shard_id shard, uint64_t first_seqno)
{
	struct fs_errors_of *of;

	pthread_mutex_lock(&e->mu);
	of = find_locked(e, shard, first_seqno);
	if (of != NULL)
		take_off_locked(e, of);
	pthread_mutex_unlock(&e->mu);
	of_free(of);
}
