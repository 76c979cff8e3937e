/*
 * shardctl.h - what the files of shardctl share: one run of it, how it ends, and what it prints.
 *
 * Threads: one.
 */
#ifndef TOOLS_SHARDCTL_H
#define TOOLS_SHARDCTL_H

#include <jansson.h>
#include <stdio.h>

#include "core/names.h"
#include "core/shard.h"

/* Exit statuses, as --help lists them. */
enum ctl_status {
	CTL_OK = 0,
	CTL_WRONG = 1, /* something is wrong with the store, or failed */
	CTL_USAGE = 2,
	CTL_BUSY = 3,   /* another process has the store, or changes it too fast */
	CTL_ABSENT = 4, /* no such store, shard or time */
	CTL_INPUT = 5,  /* what is to be imported is no whole export */
	CTL_EXISTS = 6, /* what is to be made is there already */
};

struct ctl {
	const char *dir; /* of the store */
	char **args;     /* behind it */
	int arg_count;
	bool json;
	bool verbose;
	bool repair;
	bool drop_damaged;
	bool compress;
	bool skip_existing;
	const char *as;
	const char *output;
	struct core_engine *engine;
};

int ctl_ls(struct ctl *c);
int ctl_state(struct ctl *c);
int ctl_cat(struct ctl *c);
int ctl_fsck(struct ctl *c);
int ctl_export(struct ctl *c);
int ctl_import(struct ctl *c);

/* Open the store: to read it beside its owner, or as its owner; as an owner too it must be there, unless
 * make. CTL_OK: c->engine is open, and closed by main. Else it was said why. */
int ctl_open(struct ctl *c, bool own, bool make, const char *purpose);

/* Say what failed; its exit status. */
int ctl_fail(const struct kv_err *err);
int ctl_status_of(enum kv_rc rc);

/* All that was printed is out: CTL_OK. */
int ctl_printed(void);

/* The shard of an id or a name. Else it was said why. */
int ctl_shard_id(struct ctl *c, const char *word, struct core_shard_id *out);

/* Print a line of JSON, which is taken. NULL (no memory): CTL_WRONG. */
int ctl_print_json(json_t *json, size_t flags);

/* A number; beyond 2^63 - 1, where JSON's readers differ, its digits. A frontier: that, or "-". Bytes: a
 * string, if they are UTF-8, else {"hex": ...}; absent: null. */
json_t *ctl_number(uint64_t n);
json_t *ctl_frontier(struct core_frontier f);
json_t *ctl_bytes(struct core_bytes bytes);
json_t *ctl_text(const char *text);

/* --- how far it is, on a terminal ------------------------------------------------------------------- */

/* On stderr if that is a terminal, else nothing. */
struct ctl_bar {
	bool shown;
	int percent; /* as drawn; -1: nothing is */
	const char *what;
};
struct ctl_bar ctl_bar_new(const char *what);
void ctl_bar_draw(struct ctl_bar *bar, uint64_t done, uint64_t total);
void ctl_bar_clear(struct ctl_bar *bar); /* before anything else is printed, and at the end */

/* --- files that may be compressed -------------------------------------------------------------------- */

struct ctl_out;
/* Write to fd, by zstd or as it is. NULL: no memory. */
struct ctl_out *ctl_out_new(int fd, bool compress);
enum kv_rc ctl_out_write(void *out, const void *data, size_t len, struct kv_err *err);
enum kv_rc ctl_out_end(struct ctl_out *out,
		       struct kv_err *err); /* what is left; on stable storage, if a file */
uint64_t ctl_out_bytes(const struct ctl_out *out);
void ctl_out_free(struct ctl_out *out);

struct ctl_in;
/* Read fd from its beginning; what zstd has compressed is seen to be that. NULL: no memory. */
struct ctl_in *ctl_in_new(int fd);
/* As core_import_source.read. KV_BAD_SYNTAX: it is cut off or damaged. */
enum kv_rc ctl_in_read(void *in, void *buf, size_t len, size_t *got, struct kv_err *err);
uint64_t ctl_in_bytes(const struct ctl_in *in); /* of the file, so far */
void ctl_in_free(struct ctl_in *in);

#endif
