/*
 * disk.c - what a power cut may leave.
 *
 * How it works: strictly as POSIX has it. Bytes and size of a file are on stable storage by a sync of that
 * file alone, names by a sync of their directory alone; a sync counts for what was done before it began, once
 * it has ended. A rename is one step: its new name is never there with the old one lost without it, or the
 * other way round, but if only the new directory was synced the old name may still be there too. Everything
 * else may be there or not, in any combination: names one by one, bytes in blocks, sizes with or without
 * their bytes.
 *
 * Each file has its synced bytes and a list of what came after; each directory has the names as they are now,
 * and those that are synced. The changes of names after that are one list, in order.
 */
#include "tests/power/power.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const loss_names[LOSSES] = {"all",  "none", "data",  "bytes", "names",
					"last", "logs", "order", "random"};

/* --- files and directories ------------------------------------------------------------------------- */

struct name {
	const char *text; /* of the history */
	struct node *node;
};

struct names {
	struct name *e;
	size_t count;
};

struct node {
	struct node *next; /* all nodes */
	bool is_dir, is_log;
	bool in_order; /* RocksDB's directory */
	/* a file */
	uint8_t *bytes; /* as synced */
	size_t len;
	size_t *pending; /* numbers of operations */
	size_t pending_count;
	/* a directory */
	struct names now, synced, cut;
};

/* A change of names: `node` came to to_dir, or left from_dir, or both. */
struct move {
	size_t op;
	struct node *node, *to_dir, *from_dir;
	const char *to, *from;
};

struct sync {
	struct node *node; /* NULL: the file system */
	size_t begin;
};

enum { HANDLES = 1 << 20, SYNCS = 1 << 20 };

struct disk {
	const struct history *h;
	const char *missing;
	size_t at, matched, missed;
	struct node *root, *all;
	struct node **handles;
	struct sync *syncs;
	struct move *moves; /* that are not synced */
	size_t move_count;
};

static struct node *node_new(struct disk *d, bool is_dir, const char *path)
{
	struct node *n = calloc(1, sizeof *n);

	if (!n)
		power_die("no memory", path);
	n->is_dir = is_dir;
	n->is_log = fnmatch("*.log", path, 0) == 0;
	n->in_order = is_dir && fnmatch("*/consensus", path, 0) == 0;
	n->next = d->all;
	d->all = n;
	return n;
}

static struct name *find(struct names *names, const char *text, size_t len)
{
	for (size_t i = 0; i < names->count; i++)
		if (strncmp(names->e[i].text, text, len) == 0 && names->e[i].text[len] == '\0')
			return &names->e[i];
	return NULL;
}

static void put(struct names *names, const char *text, struct node *node)
{
	struct name *e = find(names, text, strlen(text));

	if (!e) {
		names->e = reallocarray(names->e, names->count + 1, sizeof *names->e);
		e = &names->e[names->count++];
	}
	*e = (struct name){text, node};
}

/* Only if it still is that node's. */
static void take(struct names *names, const char *text, const struct node *node)
{
	struct name *e = find(names, text, strlen(text));

	if (e && e->node == node)
		*e = names->e[--names->count];
}

/* The directory of path, and the last component; *node: what it is now, or NULL. */
static struct node *walk(struct disk *d, const char *path, const char **last, struct node **node)
{
	struct node *dir = d->root;

	for (;;) {
		size_t len = strcspn(path, "/");
		struct name *e = find(&dir->now, path, len);

		if (path[len] == '\0') {
			*last = path;
			*node = strcmp(path, ".") == 0 ? dir : e ? e->node : NULL;
			return dir;
		}
		if (!e)
			power_die("the record knows no directory", path);
		dir = e->node;
		path += len + 1;
	}
}

/* --- replaying ------------------------------------------------------------------------------------- */

static void move_name(struct disk *d, struct move m)
{
	if ((d->move_count & (d->move_count - 1)) == 0)
		d->moves = reallocarray(d->moves, d->move_count ? 2 * d->move_count : 1, sizeof *d->moves);
	d->moves[d->move_count++] = m;
	if (m.from_dir)
		take(&m.from_dir->now, m.from, m.node);
	if (m.to_dir)
		put(&m.to_dir->now, m.to, m.node);
}

static void write_bytes(uint8_t **bytes, size_t *len, uint64_t offset, const uint8_t *data, size_t n)
{
	if (offset + n > *len) {
		*bytes = realloc(*bytes, offset + n);
		memset(*bytes + *len, 0, offset + n - *len);
		*len = offset + n;
	}
	memcpy(*bytes + offset, data, n);
}

static void set_size(uint8_t **bytes, size_t *len, uint64_t size)
{
	*bytes = realloc(*bytes, size + 1);
	if (size > *len)
		memset(*bytes + *len, 0, size - *len);
	*len = size;
}

static void apply(const struct op *op, uint8_t **bytes, size_t *len)
{
	if (op->kind == SHIM_WRITE)
		write_bytes(bytes, len, op->offset, op->data, op->len);
	else
		set_size(bytes, len, op->offset);
}

static void sync_file(struct disk *d, struct node *n, size_t before)
{
	size_t done = 0;

	for (; done < n->pending_count && n->pending[done] < before; done++)
		apply(&d->h->ops[n->pending[done]], &n->bytes, &n->len);
	memmove(n->pending, n->pending + done, (n->pending_count - done) * sizeof *n->pending);
	n->pending_count -= done;
}

/* dir NULL: all of them. */
static void sync_names(struct disk *d, const struct node *dir, size_t before)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->move_count; i++) {
		struct move m = d->moves[i];
		bool old = m.op < before;
		bool leaves = old && m.from_dir && (!dir || m.from_dir == dir);
		bool comes = old && m.to_dir && (!dir || m.to_dir == dir || leaves);

		if (leaves) {
			take(&m.from_dir->synced, m.from, m.node);
			m.from_dir = NULL;
		}
		if (comes) {
			put(&m.to_dir->synced, m.to, m.node);
			m.to_dir = NULL;
		}
		if (m.from_dir || m.to_dir)
			d->moves[kept++] = m;
	}
	d->move_count = kept;
}

/* Whether the sync is one of those to be taken as not done. */
static bool is_missing(struct disk *d, const struct op *op, const struct node *n)
{
	const char *kind = !n ? "fs" : n->is_dir ? "dir" : "file";
	size_t len = strlen(kind);
	char glob[256] = "";
	unsigned nth = 0;

	if (!d->missing || strncmp(d->missing, kind, len) != 0 || d->missing[len] != '@')
		return false;
	sscanf(d->missing + len + 1, "%255[^#]#%u", glob, &nth);
	if (n && fnmatch(glob, op->path, 0) != 0)
		return false;
	d->matched++;
	return nth == 0 || d->matched == nth;
}

static void end_sync(struct disk *d, const struct op *op)
{
	struct sync s = d->syncs[op->offset];

	if (is_missing(d, op, s.node)) {
		d->missed++;
		return;
	}
	if (!s.node) {
		for (struct node *n = d->all; n; n = n->next)
			sync_file(d, n, s.begin);
		sync_names(d, NULL, s.begin);
	} else if (s.node->is_dir) {
		sync_names(d, s.node, s.begin);
	} else {
		sync_file(d, s.node, s.begin);
	}
}

static void change_file(struct disk *d, const struct op *op)
{
	struct node *n = d->handles[op->handle];

	if ((n->pending_count & (n->pending_count - 1)) == 0)
		n->pending = reallocarray(n->pending, n->pending_count ? 2 * n->pending_count : 1,
					  sizeof *n->pending);
	n->pending[n->pending_count++] = d->at;
}

static void change_names(struct disk *d, const struct op *op)
{
	const char *from = NULL, *to = NULL;
	struct node *node, *target, *dir = walk(d, op->path, &from, &node), *to_dir;
	struct move m = {.op = d->at, .node = node};

	switch (op->kind) {
	case SHIM_OPEN:
		d->handles[op->handle] = node;
		return;
	case SHIM_CREATE:
	case SHIM_MKDIR:
		m.node = node_new(d, op->kind == SHIM_MKDIR, op->path);
		if (op->kind == SHIM_CREATE)
			d->handles[op->handle] = m.node;
		m.to_dir = dir;
		m.to = from;
		break;
	case SHIM_UNLINK:
	case SHIM_RMDIR:
		m.from_dir = dir;
		m.from = from;
		break;
	case SHIM_RENAME:
	case SHIM_LINK:
		to_dir = walk(d, op->path2, &to, &target);
		m.to_dir = to_dir;
		m.to = to;
		m.from_dir = op->kind == SHIM_RENAME ? dir : NULL;
		m.from = from;
		break;
	default:
		power_die("the record has an unknown operation at", op->path);
	}
	move_name(d, m);
}

static void replay(struct disk *d, const struct op *op)
{
	switch (op->kind) {
	case SHIM_WRITE:
	case SHIM_SIZE:
		change_file(d, op);
		break;
	case SHIM_SYNC_BEGIN:
		d->syncs[op->offset] = (struct sync){op->handle ? d->handles[op->handle] : NULL, d->at};
		break;
	case SHIM_SYNC_END:
		end_sync(d, op);
		break;
	case SHIM_MARK:
		break;
	default:
		change_names(d, op);
	}
}

struct disk *disk_new(const struct history *h, const char *missing)
{
	struct disk *d = calloc(1, sizeof *d);

	if (!d)
		power_die("no memory", "");
	d->h = h;
	d->missing = missing;
	d->root = node_new(d, true, ".");
	d->handles = calloc(HANDLES, sizeof(struct node *));
	d->syncs = calloc(SYNCS, sizeof *d->syncs);
	return d;
}

void disk_free(struct disk *d)
{
	for (struct node *n = d->all, *next; n; n = next) {
		next = n->next;
		free(n->bytes);
		free(n->pending);
		free(n->now.e);
		free(n->synced.e);
		free(n->cut.e);
		free(n);
	}
	free(d->handles);
	free(d->syncs);
	free(d->moves);
	free(d);
}

void disk_advance(struct disk *d, size_t end)
{
	for (; d->at < end; d->at++)
		replay(d, &d->h->ops[d->at]);
}

size_t disk_missed(const struct disk *d)
{
	return d->missed;
}

/* --- the cut --------------------------------------------------------------------------------------- */

struct image {
	uint8_t *bytes;
	size_t len;
};

/* Some blocks of a write reach the disk; p of 8. The size may be that of all of it. */
static void write_blocks(const struct op *op, struct image *im, size_t block, unsigned p, bool sized,
			 struct rng *rng)
{
	uint64_t end = op->offset + op->len;

	if (op->kind == SHIM_SIZE) {
		if (sized)
			set_size(&im->bytes, &im->len, op->offset);
		return;
	}
	if (sized && end > im->len)
		set_size(&im->bytes, &im->len, end);
	for (uint64_t at = op->offset; at < end;) {
		uint64_t next = (at / block + 1) * block;

		next = next < end ? next : end;
		if (rng_below(rng, 8) < p)
			write_bytes(&im->bytes, &im->len, at, op->data + (at - op->offset), next - at);
		at = next;
	}
}

/*
 * Only the first bytes of a write; the size may be that of all of it. Of a log whole sectors where it has a
 * length already: rocks_mend.c rests on a disk that keeps that.
 */
static void write_torn(const struct op *op, const struct node *n, struct image *im, struct rng *rng)
{
	size_t cut = op->len ? (size_t)rng_below(rng, op->len) : 0;
	uint64_t sector;

	if (op->kind == SHIM_SIZE)
		return;
	if (rng_below(rng, 2))
		cut = cut / 512 * 512;
	if (rng_below(rng, 2) && op->offset + op->len > im->len)
		set_size(&im->bytes, &im->len, op->offset + op->len);
	sector = (op->offset + cut) / 512 * 512;
	if (n->is_log && sector < im->len)
		cut = sector > op->offset ? (size_t)(sector - op->offset) : 0;
	write_bytes(&im->bytes, &im->len, op->offset, op->data, cut);
}

static void cut_file(const struct disk *d, const struct node *n, enum loss loss, struct rng *rng,
		     struct image *im)
{
	static const size_t blocks[] = {512, 4096, 4096, 32768};
	size_t block = blocks[rng_below(rng, 4)];
	unsigned p = (unsigned)rng_below(rng, 9);
	bool sized = rng_below(rng, 2);

	for (size_t i = 0; i < n->pending_count; i++) {
		const struct op *op = &d->h->ops[n->pending[i]];
		bool last = i + 1 == n->pending_count;

		switch (loss) {
		case LOSE_NONE:
		case LOSE_NAMES:
			apply(op, &im->bytes, &im->len);
			break;
		case LOSE_BYTES:
			write_blocks(op, im, block, 0, true, rng);
			break;
		case LOSE_LAST:
			if (last)
				write_torn(op, n, im, rng);
			else
				apply(op, &im->bytes, &im->len);
			break;
		case LOSE_LOGS:
			write_blocks(op, im, block, n->is_log ? p : 8, !n->is_log || sized, rng);
			break;
		case LOSE_RANDOM:
			write_blocks(op, im, block, p, sized, rng);
			break;
		case LOSE_ALL:
		case LOSE_DATA:
		case LOSE_ORDER:
		case LOSSES:
			break;
		}
	}
}

/* p: of 8. */
static bool keeps_move(const struct disk *d, size_t i, enum loss loss, unsigned p, struct rng *rng)
{
	const struct move *m = &d->moves[i];
	bool in_order = (m->to_dir && m->to_dir->in_order) || (m->from_dir && m->from_dir->in_order);

	switch (loss) {
	case LOSE_ALL:
	case LOSE_NAMES:
		return false;
	case LOSE_ORDER:
		return in_order ? i * 8 < d->move_count * p : i * 8 >= d->move_count * (8 - p);
	case LOSE_RANDOM:
		return in_order ? i * 8 < d->move_count * p : rng_below(rng, 8) < p;
	case LOSE_NONE:
	case LOSE_DATA:
	case LOSE_BYTES:
	case LOSE_LAST:
	case LOSE_LOGS:
	case LOSSES:
		break;
	}
	return true;
}

static void make_file(const struct disk *d, const struct node *n, enum loss loss, struct rng *rng,
		      const char *path)
{
	static const enum loss ways[] = {LOSE_ALL,  LOSE_NONE,   LOSE_BYTES,
					 LOSE_LAST, LOSE_RANDOM, LOSE_RANDOM};
	struct image im = {malloc(n->len + 1), n->len};

	if (!im.bytes)
		power_die("no memory", path);
	if (n->len)
		memcpy(im.bytes, n->bytes, n->len);
	cut_file(d, n, loss == LOSE_RANDOM ? ways[rng_below(rng, 6)] : loss, rng, &im);

	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, im.bytes, im.len) != (ssize_t)im.len)
		power_die("cannot make", path);
	close(fd);
	free(im.bytes);
}

static void make_dir(const struct disk *d, const struct node *dir, enum loss loss, struct rng *rng,
		     const char *path)
{
	if (mkdir(path, 0700) != 0)
		power_die("cannot make", path);
	for (size_t i = 0; i < dir->cut.count; i++) {
		const struct name *e = &dir->cut.e[i];
		char *below;

		if (asprintf(&below, "%s/%s", path, e->text) < 0)
			power_die("no memory", path);
		if (e->node->is_dir)
			make_dir(d, e->node, loss, rng, below);
		else
			make_file(d, e->node, loss, rng, below);
		free(below);
	}
}

void disk_cut(struct disk *d, enum loss loss, struct rng *rng, const char *to)
{
	unsigned p = (unsigned)rng_below(rng, 9);

	for (struct node *n = d->all; n; n = n->next) {
		n->cut.e = reallocarray(n->cut.e, n->synced.count + 1, sizeof *n->cut.e);
		n->cut.count = n->synced.count;
		if (n->synced.count)
			memcpy(n->cut.e, n->synced.e, n->synced.count * sizeof *n->cut.e);
	}
	for (size_t i = 0; i < d->move_count; i++) {
		const struct move *m = &d->moves[i];

		if (!keeps_move(d, i, loss, p, rng))
			continue;
		if (m->from_dir)
			take(&m->from_dir->cut, m->from, m->node);
		if (m->to_dir)
			put(&m->to_dir->cut, m->to, m->node);
	}
	make_dir(d, d->root, loss, rng, to);
}
