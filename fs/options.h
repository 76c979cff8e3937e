/*
 * options.h - the command line of shardfs.
 */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include "fs/fs.h"

struct fs_command {
	struct fs_options options;
	bool foreground;
	bool help;
	bool version;
	unsigned max_background;       /* 0: ours */
	char *fsname;                  /* NULL: the store's path */
	struct fuse_args session_args; /* for fuse_session_new */
};

/* False: one sentence is in why. Free with fs_command_fini either way. */
bool fs_command_parse(int argc, char **argv, struct fs_command *out, char why[512]);
void fs_command_fini(struct fs_command *c);

/* Once the store's path is the true one: add what the kernel is told beside the user's options, who we are
 * and that modes are to be enforced. False: out of memory. */
bool fs_command_complete(struct fs_command *c);

extern const char fs_usage[];

#endif
