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

#endif
