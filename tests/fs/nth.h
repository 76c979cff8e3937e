/*
 * nth.h - what users do on a mount, by plain file calls, while its n-th allocation or system call fails.
 *
 * Each scene has a shard of its own, always prepared the same. If it fails the shard is as before, if it
 * works as after, and after EIO one of the two; the next try works.
 *
 * Threads: the main thread of a test.
 */
#ifndef TESTS_FS_NTH_H
#define TESTS_FS_NTH_H

#include "tests/fs/fixture.h"

struct stage_set {
	char *shard;
	char *name;    /* a name of it, /mnt/name/... */
	char *removed; /* another one, finished */
	char *fresh;   /* not made yet */
	char heard[1 << 16];
};

struct nth_scene {
	const char *name;
	int (*run)(struct stage_set *s); /* 0 or errno */
	int done;                        /* what it says when it is done already */
	bool steps;                      /* a failure may leave it between two steps */
};

extern const struct nth_scene nth_scenes[];
extern const size_t nth_scene_count;

struct stage_set nth_prepare(void);
void nth_free(struct stage_set *s); /* while it is mounted */
/* All that is to be seen of it; given. */
char *nth_print(const struct stage_set *s);
/* Shards are as they are, but the mount is another one. */
int nth_run(const struct nth_scene *scene, struct stage_set *s);

/* What scenes say and leave when nothing fails; for each of nth_scenes. */
struct nth_want {
	char *before;
	char *after;
	char *heard;
};
struct nth_want *nth_rehearse(void);
/* Held against that: rc is what nth_run said; when: for the message. */
void nth_check(const struct nth_scene *scene, const struct nth_want *want, struct stage_set *s, int rc,
	       const char *when);
/* Again, and it works. */
void nth_again(const struct nth_scene *scene, const struct nth_want *want, struct stage_set *s,
	       const char *when);

#endif
