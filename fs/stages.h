/*
 * stages.h - who writes to which staged batch: one at a time.
 *
 * close(2) returns before its RELEASE has come and has been served. So one who
 * wants to write and meets a writer whose descriptor was just closed waits for it
 * a moment; one who meets a writer at work is refused.
 *
 * Threads: any.
 */
#ifndef FS_STAGES_H
#define FS_STAGES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/id.h"

struct fs_stages {
	pthread_mutex_t mu;
	pthread_cond_t changed; /* one has ended, or is not worked on by others any more */
	struct fs_stage_writer *writers;
};

/* One who writes, within what he has open. */
struct fs_stage_writer {
	struct core_uuid id;   /* of the batch; set before the claim */
	_Atomic(bool) flushed; /* a descriptor was closed, and nothing written since; set by the owner */

	struct fs_stage_writer *next; /* all below under fs_stages.mu */
	unsigned users;               /* others that work on it */
	bool closing;                 /* will end soon */
};

void fs_stages_init(struct fs_stages *s);
void fs_stages_fini(struct fs_stages *s);

/* Become the writer of w->id, perhaps only for a moment; false: somebody is. */
bool fs_stages_claim(struct fs_stages *s, struct fs_stage_writer *w, bool briefly);

/* Before what is claimed is closed: nobody new borrows it, and nobody has it borrowed. Then let it go. */
void fs_stages_ending(struct fs_stages *s, struct fs_stage_writer *w);
void fs_stages_unclaim(struct fs_stages *s, struct fs_stage_writer *w);

/* The batch's writer, who stays until given back; NULL: there is none, or not for long. */
struct fs_stage_writer *fs_stages_borrow(struct fs_stages *s, struct core_uuid id);
void fs_stages_give_back(struct fs_stages *s, struct fs_stage_writer *w);

#endif
