/* copy.c - `cat a/listen/$(cat b/upper) > b/append`, killed and started again at random. */
#include "tests/soak/soak.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>

struct copier {
	struct worker *w;
	const struct shard *a, *b;
	char *errors;
	pid_t pid;
	unsigned mount;
	bool whole; /* begun with a subscription */
};

static void start(struct copier *c)
{
	char line[2048], from[32];
	const char *a = c->a->dir, *b = c->b->dir;
	uint64_t upper = 0;

	if (read_frontier(c->b, "upper", &upper) != 0)
		program_fail("%s: the upper of the copy cannot be read", c->a->id);
	c->mount = mount_up();
	/* An empty copy may begin with a subscription; hold copy keeps since from passing it. */
	c->whole = upper == 0 && c->a->salt % 2 == 1;
	snprintf(from, sizeof from, "%s", c->whole ? "subscribe/now" : "listen/$(cat $B/upper)");
	snprintf(line, sizeof line, "exec 2>%s; A=%s; B=%s; exec cat $A/%s >$B/append", c->errors, a, b,
		 from);
	c->pid = fork();
	if (c->pid == 0) {
		execl("/bin/sh", "sh", "-c", line, (char *)NULL);
		_exit(127);
	}
	if (c->pid < 0)
		program_fail("fork: %s", strerrorname_np(errno));
	counted(N_REPLICATORS, 1);
}

/* Keep what b needs of a. */
static void move_hold(const struct copier *c)
{
	uint64_t upper = 0;
	char line[64];
	int e = read_frontier(c->b, "upper", &upper);

	if (e == 0 && upper != 0) {
		snprintf(line, sizeof line, "listen=%s", frontier_text(upper));
		e = say(c->a, "holds/copy", line);
		counted(N_HOLD_MOVES, 1);
	}
	if (e != 0)
		program_fail("%s: the hold of a copy at %s: %s", c->a->id, frontier_text(upper),
			     strerrorname_np(e));
}

/* True: it came to the end of time. */
static bool ended(struct copier *c, bool kill_it)
{
	int status;
	pid_t got;
	char *said;

	if (kill_it)
		kill(c->pid, SIGKILL);
	got = waitpid(c->pid, &status, kill_it ? 0 : WNOHANG);
	if (got == 0)
		return false;
	c->pid = 0;
	if (WIFSIGNALED(status) && kill_it) {
		counted(N_REPLICATOR_KILLS, 1);
		return false;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (mount_is(c->mount)) {
		said = slurp_rc(c->errors);
		/* The one before was killed, and its commit was done after all: a subscription is for an
		 * empty shard. */
		if (c->whole && said != NULL && strstr(said, "Stale file handle") != NULL) {
			free(said);
			return false;
		}
		program_fail("%s: its copier ended: %x: %s", c->a->id, (unsigned)status,
			     said != NULL ? said : "");
	}
	return false;
}

static bool b_is_finished(const struct copier *c)
{
	uint64_t upper = 0;

	return read_frontier(c->b, "upper", &upper) == 0 && upper == NEVER;
}

void *copier_main(void *arg)
{
	struct worker *w = arg;
	struct copier c = {.w = w, .a = w->s, .b = w->s->copy};
	uint64_t begun = 0, at = 0, patience = 1;
	bool over = false;

	if (asprintf(&c.errors, "%s/copier%u.%s", world.dir, w->index, w->s->id) < 0)
		abort();
	/* Until a is finished and all of it is there, or the time is over. */
	while (!over) {
		uint64_t life = rng_below(&w->r, 4) == 0 ? 20 : 1 + rng_below(&w->r, 60), upper = at;

		/* One that never lives to the end of a step comes nowhere: merged batches make long ones. */
		if (read_frontier(c.b, "upper", &upper) == 0)
			patience = upper != at ? 1 : patience < 64 ? 2 * patience : patience;
		at = upper;
		life *= patience;
		start(&c);
		for (uint64_t i = 0; i < life && c.pid != 0 && !over; i++) {
			rest_ms(25);
			move_hold(&c);
			over = ended(&c, false);
		}
		if (c.pid != 0)
			over = ended(&c, true) || over;
		if (over && !b_is_finished(&c))
			program_fail("%s: its copier ended, and the copy is not finished", w->s->id);
		if (atomic_load(&w->s->finished) && begun == 0)
			begun = now_ms();
		if (begun != 0 && !over && now_ms() - begun > 120000)
			program_fail("%s: not copied two minutes after its end", w->s->id);
		over = over || (atomic_load(&w->s->done) && !atomic_load(&w->s->finished));
	}
	unlink(c.errors);
	free(c.errors);
	return NULL;
}
