/*
 * follower.h - one who reads listen/<f> or subscribe/<t>, and checks all of its grammar: each lower is the upper
 * before, each row lies in its step, and nothing else is said.
 */
#ifndef TESTS_FS_FOLLOWER_H
#define TESTS_FS_FOLLOWER_H

#include "tests/fs/fixture.h"

struct row {
	uint64_t time;
	int64_t diff;
	const char *key; /* until row() is back; as written */
	const char *val;
};

struct follower {
	int fd;
	uint64_t at;   /* where the next step begins */
	bool finished; /* or: at -, and there is none */
	bool ended;    /* EOF was read */
	bool inside;   /* a step */
	uint64_t upper; /* of the step; with finishing, none */
	bool finishing;
	uint64_t rows;
	uint64_t steps;
	uint64_t bytes;
	void (*row)(struct follower *f, const struct row *row); /* may be NULL */
	void *arg;
	char *line; /* one that is not whole yet */
	size_t len, cap;
};

/* Open path, which follows from a time on. */
void follower_open(struct follower *f, const char *path, uint64_t from, int flags);
/* One read(2): what it returned, or -errno. */
ssize_t follower_read(struct follower *f, size_t size);
/* Read until EAGAIN or the end; with a random size each time if r is not NULL. */
void follower_drain(struct follower *f, struct rng *r);
/* Read, waiting, until it is at this time, and whole. */
void follower_to(struct follower *f, uint64_t time);
void follower_close(struct follower *f);

/* Up to 4095 bytes, by one read(2), in a buffer of its own: as text. It must work. */
const char *read_text(int fd);
void want_text(int fd, const char *want);
/* Open listen/<name> or the like of the fixture's shard, O_RDONLY | flags; it must work. */
int follow(const char *name, int flags);
/* The same: 0, or errno. */
int try_follow(const char *name);

#endif
