/*
 * rocks_seal.c - how long the files of the database were, so that those that were cut off or lost are missed.
 *
 * A manifest or log that was cut off at its end, and a log that is gone, look to RocksDB as after a crash: it
 * goes on with what is left, and even deletes the tables that a cut manifest does not name. So the owner
 * notes the length of the manifest when it has opened the database, and that of each file when it has closed
 * it.
 *
 *     SEAL in the database's directory, text:
 *     manifest <name> <bytes>
 *     file <name> <bytes>         each log and table; only of a database that was closed
 *     crc <8 hex digits>          CRC-32C of the lines before
 *
 * Invariants:
 * 1. A seal counts only while CURRENT names its manifest: each opening makes another one, so a seal says
 * nothing of a database that was opened since by whoever.
 * 2. Files are sealed when they are on stable storage at that length. They only grow. So a crash leaves none
 * shorter.
 * 3. A seal with lines for files is gone, durably, before the database is opened: then these may be deleted.
 *
 * What is written after an opening, until the next close, is sealed by nothing but its checksums. Without a
 * seal, or with one that is damaged, nothing is checked.
 */
#include "kv/rocks_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CRC_LINE = 13 };

static const char seal_name[] = "SEAL", seal_tmp[] = "SEAL.tmp";

static int open_dir(const char *dir)
{
	return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* The file's text; given. NULL: none. */
static char *read_text(int dir, const char *name, size_t *len)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	char *text = NULL;

	*len = 0;
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size < (off_t)1 << 24)
		text = malloc((size_t)st.st_size + 1);
	if (text) {
		ssize_t n = pread(fd, text, (size_t)st.st_size, 0);

		*len = n > 0 ? (size_t)n : 0;
		text[*len] = '\0';
	}
	close_fd(fd);
	return text;
}

bool rocks_current_manifest(int dir, char manifest[ROCKS_NAME_LEN])
{
	size_t len;
	char *text = read_text(dir, "CURRENT", &len);
	bool ok = text && len > 1 && len <= ROCKS_NAME_LEN && text[len - 1] == '\n';

	if (ok) {
		memcpy(manifest, text, len - 1);
		manifest[len - 1] = '\0';
	}
	free(text);
	return ok;
}

/* --- sealing -------------------------------------------------------------------------------------------- */

static bool is_sealed(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && strlen(name) < ROCKS_NAME_LEN && (strcmp(dot, ".log") == 0 || strcmp(dot, ".sst") == 0);
}

struct lines {
	char *text;
	size_t len;
	size_t cap;
	bool failed;
};

static void add_line(struct lines *l, const char *word, const char *name, off_t bytes)
{
	char line[ROCKS_NAME_LEN + 40];
	int n = snprintf(line, sizeof(line), "%s %s %jd\n", word, name, (intmax_t)bytes);
	size_t need = l->len + (size_t)n + CRC_LINE + 1;

	if (need > l->cap) {
		char *grown = realloc(l->text, 2 * need);

		l->failed |= !grown;
		if (!grown)
			return;
		l->text = grown;
		l->cap = 2 * need;
	}
	memcpy(l->text + l->len, line, (size_t)n);
	l->len += (size_t)n;
}

/* RocksDB may be adding to it just now: what is noted must last as long as the note. */
static bool synced_size(int dir, const char *manifest, struct stat *st)
{
	int fd = openat(dir, manifest, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool ok = fd >= 0 && fstat(fd, st) == 0 && fsync(fd) == 0;

	close_fd(fd);
	return ok;
}

static bool add_lines(struct lines *l, int dir, const char *path, bool closed)
{
	char manifest[ROCKS_NAME_LEN];
	struct stat st;
	DIR *d;

	if (!rocks_current_manifest(dir, manifest) || !synced_size(dir, manifest, &st))
		return false;
	add_line(l, "manifest", manifest, st.st_size);
	d = closed ? opendir(path) : NULL;
	/* An empty file may have no name that lasts. */
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
		if (is_sealed(e->d_name) && fstatat(dir, e->d_name, &st, 0) == 0 && st.st_size != 0)
			add_line(l, "file", e->d_name, st.st_size);
	if (d)
		closedir(d);
	return !l->failed && (d || !closed);
}

static bool store(int dir, const char *text, size_t len)
{
	int fd = openat(dir, seal_tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok = fd >= 0 && write(fd, text, len) == (ssize_t)len && fsync(fd) == 0;

	close_fd(fd);
	return ok && renameat(dir, seal_tmp, dir, seal_name) == 0 && fsync(dir) == 0;
}

void rocks_seal(const char *path, bool closed)
{
	int dir = open_dir(path);
	struct lines l = {0};
	bool ok = dir >= 0 && add_lines(&l, dir, path, closed);

	if (ok)
		l.len += (size_t)snprintf(l.text + l.len, CRC_LINE + 1, "crc %08" PRIx32 "\n",
					  rocks_crc(l.text, l.len));
	/* What cannot be written is done without. */
	if (!ok || !store(dir, l.text, l.len))
		rocks_unseal(path);
	free(l.text);
	close_fd(dir);
}

void rocks_unseal(const char *path)
{
	int dir = open_dir(path);

	if (dir < 0)
		return;
	if (unlinkat(dir, seal_name, 0) == 0)
		(void)fsync(dir); /* if it fails the database will not be opened either */
	close(dir);
}

/* --- looking -------------------------------------------------------------------------------------------- */

/* The lines of a seal that is right; given. */
static char *read_seal(int dir)
{
	size_t len;
	char *text = read_text(dir, seal_name, &len), line[CRC_LINE + 1];

	if (text && len > CRC_LINE) {
		snprintf(line, sizeof(line), "crc %08" PRIx32 "\n", rocks_crc(text, len - CRC_LINE));
		if (strcmp(text + len - CRC_LINE, line) == 0) {
			text[len - CRC_LINE] = '\0';
			return text;
		}
	}
	free(text);
	return NULL;
}

static bool is_short(int dir, const char *name, uint64_t want, struct rocks_flaw *flaw)
{
	struct stat st;
	bool there = fstatat(dir, name, &st, 0) == 0;

	if (there && (uint64_t)st.st_size >= want)
		return false;
	if (!there && errno != ENOENT)
		return false;
	snprintf(flaw->file, sizeof(flaw->file), "%s", name);
	flaw->offset = there ? (uint64_t)st.st_size : 0;
	flaw->what = there ? "it ends here, and was longer" : "it is missing";
	return true;
}

static bool look(int dir, bool all, char *text, struct rocks_flaw *flaw)
{
	char manifest[ROCKS_NAME_LEN], name[ROCKS_NAME_LEN], *rest = NULL;
	uint64_t bytes;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (sscanf(line, "manifest %63s %" SCNu64, name, &bytes) == 2) {
			if (!rocks_current_manifest(dir, manifest) || strcmp(manifest, name) != 0)
				return false; /* invariant 1 */
		} else if (!all || sscanf(line, "file %63s %" SCNu64, name, &bytes) != 2) {
			continue;
		}
		if (is_short(dir, name, bytes, flaw))
			return true;
	}
	return false;
}

bool rocks_seal_flaw(const char *path, bool all, struct rocks_flaw *flaw)
{
	int dir = open_dir(path);
	char *text = dir >= 0 ? read_seal(dir) : NULL;
	bool found = text && look(dir, all, text, flaw);

	free(text);
	/* Beside an owner: it may have gone on just now. */
	text = found ? read_seal(dir) : NULL;
	found = found && text && look(dir, all, text, flaw);
	free(text);
	close_fd(dir);
	return found;
}
