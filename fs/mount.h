/*
 * mount.h - the life of a mount: start, serve, stop.
 */
#ifndef FS_MOUNT_H
#define FS_MOUNT_H

#include "fs/options.h"

/*
 * Open the store, mount it and serve until it is unmounted or told to stop. Called in the process that
 * stays. ready(arg) is called once, when the mount answers. Returns the exit status; not 0: nothing is
 * mounted (any more) and one sentence is in why.
 */
int fs_mount_run(struct fs_command *command, void (*ready)(void *arg), void *arg, char why[1024]);

/*
 * All of a mount but the mount: the session with its handlers, over a store that is taken (also on failure).
 * Whoever calls it brings the requests and takes the replies (fuse_session_custom_io). command is borrowed.
 * NULL: why not.
 */
struct fs *fs_mount_detached(struct fs_command *command, struct kv_store *store, char why[1024]);
void fs_unmount_detached(struct fs *fs);

#endif
