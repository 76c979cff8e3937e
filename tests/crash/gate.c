/* gate.c - who may work on which shard, and when: turns begin while the mount is up, and are waited for when
 * a look is to be taken at rest. */
#include "tests/crash/crash.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool up, ended;
static unsigned active;

_Atomic unsigned mount_number;

static bool may_begin(const struct slot *slot, bool any, bool alone)
{
	if (!up || slot->alone || (alone && slot->users != 0))
		return false;
	return any || (slot->shard != NULL && slot->shard->ready);
}

bool turn_begin(struct client *c, bool any, bool alone)
{
	bool begun;

	pthread_mutex_lock(&lock);
	while (!ended && !may_begin(c->slot, any, alone))
		pthread_cond_wait(&changed, &lock);
	begun = !ended;
	if (begun) {
		active++;
		c->slot->users++;
		c->slot->alone = alone;
		c->mount = atomic_load(&mount_number);
		c->broken = false;
	}
	pthread_mutex_unlock(&lock);
	return begun;
}

void turn_end(struct client *c, bool alone)
{
	pthread_mutex_lock(&lock);
	active--;
	c->slot->users--;
	if (alone)
		c->slot->alone = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void gate_shut(void)
{
	pthread_mutex_lock(&lock);
	up = false;
	atomic_fetch_add(&mount_number, 1);
	pthread_mutex_unlock(&lock);
}

/* Before the clients are made: they would find that those of the run before had ended. */
void gate_begin(void)
{
	pthread_mutex_lock(&lock);
	up = false;
	ended = false;
	pthread_mutex_unlock(&lock);
}

void gate_open(void)
{
	pthread_mutex_lock(&lock);
	up = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void gate_end(void)
{
	pthread_mutex_lock(&lock);
	ended = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void gate_wait(void)
{
	enum { WAIT_S = 180 };
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&lock);
	while (active != 0)
		if (pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT)
			program_fail("%u clients hang in calls after the mount has died", active);
	pthread_mutex_unlock(&lock);
}
