/*
 * shardctl_move.c - export and import.
 *
 * A file that is exported to gets its name when it is whole. What is imported is read twice, first without a
 * store; so what cannot be read twice, a pipe, is copied to a file without a name in $TMPDIR or /var/tmp.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/export.h"
#include "core/import.h"
#include "tools/shardctl.h"

/* --- export ---------------------------------------------------------------------------------------- */

struct exporting {
	struct ctl *ctl;
	struct ctl_bar bar;
	struct ctl_out *out;
	int fd;
	char *part; /* the file until it is whole; NULL: stdout */
	struct core_shard_id *ids;
	struct core_exported sum;
};

static enum kv_rc write_out(void *arg, const void *data, size_t len, struct kv_err *err)
{
	return ctl_out_write(((struct exporting *)arg)->out, data, len, err);
}

static void export_progress(void *arg, uint64_t done, uint64_t total)
{
	ctl_bar_draw(&((struct exporting *)arg)->bar, done, total);
}

static int open_output(struct exporting *x)
{
	struct ctl *c = x->ctl;

	x->fd = STDOUT_FILENO;
	if (c->output == NULL && c->compress && isatty(STDOUT_FILENO)) {
		fprintf(stderr, "shardctl: compressed bytes are not for a terminal: use -o FILE\n");
		return CTL_USAGE;
	}
	if (c->output != NULL) {
		if (asprintf(&x->part, "%s.part", c->output) < 0) {
			x->part = NULL;
			return CTL_WRONG;
		}
		x->fd = open(x->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (x->fd < 0) {
			fprintf(stderr, "shardctl: %s cannot be made: %s\n", x->part, strerrordesc_np(errno));
			free(x->part);
			x->part = NULL;
			return CTL_WRONG;
		}
	}
	x->out = ctl_out_new(x->fd, c->compress);
	return x->out != NULL ? CTL_OK : CTL_WRONG;
}

/* The file gets its name, on stable storage. */
static int finish_output(struct exporting *x, int status)
{
	char *slash = x->part != NULL ? strrchr(x->part, '/') : NULL;
	int dir;

	if (x->part == NULL)
		return status;
	close(x->fd);
	if (status == CTL_OK && rename(x->part, x->ctl->output) != 0) {
		fprintf(stderr, "shardctl: %s cannot be made: %s\n", x->ctl->output, strerrordesc_np(errno));
		status = CTL_WRONG;
	}
	if (status != CTL_OK)
		unlink(x->part);
	if (slash != NULL)
		slash[slash == x->part] = '\0';
	dir = open(slash != NULL ? x->part : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (status == CTL_OK && (dir < 0 || fsync(dir) != 0)) {
		fprintf(stderr, "shardctl: the directory of %s cannot be synced: %s\n", x->ctl->output,
			strerrordesc_np(errno));
		status = CTL_WRONG;
	}
	if (dir >= 0)
		close(dir);
	free(x->part);
	return status;
}

static int export_summary(struct exporting *x)
{
	const struct core_exported *s = &x->sum;
	FILE *to = x->ctl->output != NULL ? stdout : stderr;
	json_t *json;

	if (!x->ctl->json) {
		fprintf(to,
			"exported %" PRIu64 " shards, %" PRIu64 " updates, %" PRIu64 " names, %" PRIu64
			" bytes%s\n",
			s->shards, s->updates, s->names, ctl_out_bytes(x->out),
			s->one_moment ? ""
				      : "; shards are as of several moments, since they changed meanwhile");
		return CTL_OK;
	}
	json = json_pack("{s:o,s:o,s:o,s:o,s:b}", "shards", ctl_number(s->shards), "updates",
			 ctl_number(s->updates), "names", ctl_number(s->names), "bytes",
			 ctl_number(ctl_out_bytes(x->out)), "one_moment", s->one_moment);
	if (json == NULL || json_dumpf(json, to, JSON_COMPACT) != 0 || fputc('\n', to) == EOF ||
	    fflush(to) != 0) {
		json_decref(json);
		return CTL_WRONG;
	}
	json_decref(json);
	return CTL_OK;
}

static int find_shards(struct exporting *x)
{
	size_t count = (size_t)x->ctl->arg_count;
	int status = CTL_OK;

	x->ids = count != 0 ? calloc(count, sizeof *x->ids) : NULL;
	if (count != 0 && x->ids == NULL)
		return CTL_WRONG;
	for (size_t i = 0; i < count && status == CTL_OK; i++) {
		status = ctl_shard_id(x->ctl, x->ctl->args[i], &x->ids[i]);
		for (size_t j = 0; j < i && status == CTL_OK; j++) {
			if (!core_uuid_eq(x->ids[i].u, x->ids[j].u))
				continue;
			fprintf(stderr, "shardctl: %s is named twice\n", x->ctl->args[i]);
			status = CTL_USAGE;
		}
	}
	return status;
}

int ctl_export(struct ctl *c)
{
	struct exporting x = {.ctl = c, .bar = ctl_bar_new("exporting")};
	const struct core_export_sink sink = {
		.write = write_out, .progress = x.bar.shown ? export_progress : NULL, .arg = &x};
	struct kv_err err;
	int status = ctl_open(c, false, false, "shardctl export");

	if (status == CTL_OK)
		status = find_shards(&x);
	if (status == CTL_OK)
		status = open_output(&x);
	if (status == CTL_OK) {
		bool ok = core_export(c->engine, x.ids, (size_t)c->arg_count, &sink, &x.sum, &err) == KV_OK &&
			  ctl_out_end(x.out, &err) == KV_OK;

		ctl_bar_clear(&x.bar);
		status = finish_output(&x, ok ? CTL_OK : ctl_fail(&err));
	}
	if (status == CTL_OK && (c->json || c->output != NULL))
		status = export_summary(&x);
	ctl_out_free(x.out);
	free(x.ids);
	return status;
}

/* --- import ---------------------------------------------------------------------------------------- */

struct importing {
	struct ctl *ctl;
	struct ctl_bar bar;
	struct ctl_in *in;
	int fd;
	uint64_t size;
	uint64_t before;         /* bytes of the first reading */
	struct core_shard_id as; /* --as */
};

static enum kv_rc read_in(void *arg, void *buf, size_t len, size_t *got, struct kv_err *err)
{
	struct importing *x = arg;
	enum kv_rc rc = ctl_in_read(x->in, buf, len, got, err);

	ctl_bar_draw(&x->bar, x->before + ctl_in_bytes(x->in), 2 * x->size);
	return rc;
}

/* A file without a name, with all that is left in fd; -1: it was said why. */
static int spool(int fd)
{
	const char *dir = getenv("TMPDIR");
	int to = open(dir != NULL && dir[0] != '\0' ? dir : "/var/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	char buf[64 << 10];
	ssize_t n = to < 0 ? -1 : 1;

	while (n > 0) {
		n = read(fd, buf, sizeof buf);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n > 0 && write(to, buf, (size_t)n) != n)
			n = -1;
	}
	if (n == 0)
		return to;
	fprintf(stderr, "shardctl: stdin cannot be copied to %s: %s\n",
		dir != NULL && dir[0] != '\0' ? dir : "/var/tmp", strerrordesc_np(errno));
	if (to >= 0)
		close(to);
	return -1;
}

static int open_input(struct importing *x)
{
	const char *file = x->ctl->arg_count == 1 ? x->ctl->args[0] : "-";
	struct stat st;

	x->fd = strcmp(file, "-") == 0 ? dup(STDIN_FILENO) : open(file, O_RDONLY | O_CLOEXEC);
	if (x->fd < 0) {
		fprintf(stderr, "shardctl: %s cannot be opened: %s\n", file, strerrordesc_np(errno));
		return CTL_ABSENT;
	}
	if (fstat(x->fd, &st) != 0 || !S_ISREG(st.st_mode) || lseek(x->fd, 0, SEEK_CUR) != 0) {
		int copy = spool(x->fd);

		close(x->fd);
		x->fd = copy;
		if (copy < 0 || fstat(copy, &st) != 0)
			return CTL_WRONG;
	}
	x->size = (uint64_t)st.st_size;
	return CTL_OK;
}

static bool rewind_input(struct importing *x)
{
	ctl_in_free(x->in);
	x->in = ctl_in_new(x->fd);
	return x->in != NULL;
}

static int import_summary(const struct ctl *c, const struct core_imported *s)
{
	if (s->names_taken != 0)
		fprintf(stderr, "shardctl: %" PRIu64 " names lead elsewhere already, and were left so\n",
			s->names_taken);
	if (c->json)
		return ctl_print_json(json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "shards", ctl_number(s->shards),
						"updates", ctl_number(s->updates), "names",
						ctl_number(s->names), "skipped", ctl_number(s->skipped),
						"names_taken", ctl_number(s->names_taken), "bytes",
						ctl_number(s->bytes)),
				      JSON_COMPACT);
	printf("imported %" PRIu64 " shards, %" PRIu64 " updates, %" PRIu64 " names", s->shards, s->updates,
	       s->names);
	if (s->skipped != 0)
		printf("; %" PRIu64 " shards were there", s->skipped);
	putchar('\n');
	return ctl_printed();
}

static int import_checked(struct importing *x, struct core_import *how,
			  const struct core_import_source *source)
{
	struct core_imported sum;
	struct kv_err err;
	int status;

	if (x->ctl->as != NULL) {
		if (!core_uuid_parse('s', x->ctl->as, strlen(x->ctl->as), &x->as.u) || how->id_count != 1) {
			fprintf(stderr, how->id_count != 1 ? "shardctl: --as is for an export of one shard\n"
							   : "shardctl: ID is s and a lower-case uuid\n");
			return CTL_USAGE;
		}
		how->as = &x->as;
	}
	status = ctl_open(x->ctl, true, true, "shardctl import");
	if (status != CTL_OK)
		return status;
	x->before = x->size;
	if (!rewind_input(x))
		return CTL_WRONG;
	if (core_import(x->ctl->engine, how, source, &sum, &err) != KV_OK)
		status = ctl_fail(&err);
	ctl_bar_clear(&x->bar);
	return status == CTL_OK ? import_summary(x->ctl, &sum) : status;
}

int ctl_import(struct ctl *c)
{
	struct importing x = {.ctl = c, .bar = ctl_bar_new("importing"), .fd = -1};
	const struct core_import_source source = {.read = read_in, .arg = &x};
	struct core_import how = {.skip_existing = c->skip_existing};
	struct core_shard_id *ids = NULL;
	struct core_imported sum;
	struct kv_err err;
	int status = open_input(&x);

	if (status == CTL_OK && !rewind_input(&x))
		status = CTL_WRONG;
	if (status == CTL_OK && core_import_check(&source, &sum, &ids, &err) != KV_OK) {
		ctl_bar_clear(&x.bar);
		status = ctl_fail(&err);
	}
	if (status == CTL_OK) {
		how.ids = ids;
		how.id_count = (size_t)sum.shards;
		status = import_checked(&x, &how, &source);
	}
	free(ids);
	ctl_in_free(x.in);
	if (x.fd >= 0)
		close(x.fd);
	return status;
}
