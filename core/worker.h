/*
 * worker.h - one background thread that runs jobs one after the other.
 *
 * What it runs may be dropped at any time: nothing that correctness needs.
 *
 * Threads: any may queue; jobs run on the worker's own.
 */
#ifndef CORE_WORKER_H
#define CORE_WORKER_H

#include <stdbool.h>

struct core_worker;

struct core_job {
	struct core_job *next;                            /* the worker's, while it is queued */
	void (*run)(struct core_job *job, bool stopping); /* owns job; stopping: only clean up */
};

struct core_worker *core_worker_start(void); /* NULL: no memory or no thread */
void core_worker_queue(struct core_worker *w, struct core_job *job);
void core_worker_drain(struct core_worker *w); /* until nothing is queued or running */
void core_worker_stop(struct core_worker *w);  /* runs what is queued with stopping set; NULL is allowed */

#endif
