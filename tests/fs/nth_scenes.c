/* nth_scenes.c - see nth.h. */
#include "tests/fs/nth.h"

#include <ctype.h>
#include <dirent.h>
#include <poll.h>
#include <sys/statvfs.h>

#define TOKEN "token=i00000000-0000-0000-0000-000000000007"

/* --- helpers ------------------------------------------------------------------------------------------ */

static void hear(struct stage_set *s, const char *text)
{
	size_t len = strlen(s->heard);

	snprintf(s->heard + len, sizeof s->heard - len, "%s", text);
}

static int read_into(struct stage_set *s, const char *name)
{
	char *text = slurp_rc(at(s->shard, name));

	if (text == NULL)
		return errno;
	hear(s, text);
	free(text);
	return 0;
}

/* The same of what differs from run to run. */
static int read_any(struct stage_set *s, const char *name)
{
	char *text = slurp_rc(at(s->shard, name));
	int rc = text == NULL ? errno : 0;

	free(text);
	return rc;
}

static int list(struct stage_set *s, const char *dir)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	struct stat st;
	int rc = d == NULL ? errno : 0;

	while (rc == 0) {
		errno = 0;
		e = readdir(d);
		if (e == NULL) {
			rc = errno;
			break;
		}
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			rc = errno == ENOENT ? 0 : errno; /* batches are folded */
		else if (isalpha((unsigned char)e->d_name[0]) && strlen(e->d_name) < 20)
			hear(s, e->d_name); /* not of batches, which are folded; nor those with ids */
	}
	if (d != NULL)
		closedir(d);
	return rc;
}

static int or_errno(long result)
{
	return result < 0 ? errno : 0;
}

/* As txn(), but open may fail too. */
static int commit(struct stage_set *s, const char *text)
{
	int fd = open(at(s->shard, "append"), O_RDWR), rc = fd < 0 ? errno : 0;

	if (fd < 0)
		return rc;
	rc = put_all(fd, text, strlen(text));
	close(fd);
	return rc;
}

/* --- appends ------------------------------------------------------------------------------------------ */

static int append_inline(struct stage_set *s)
{
	return commit(s, "begin expected_upper=3 new_upper=5 " TOKEN "\n3\t1\td\tx\n4\t1\te\ty\ncommit\n");
}

/* A transaction with one row, more than goes with a version; given. */
static char *blob_txn(const char *begin, unsigned time)
{
	enum { LEN = 500000 };
	struct rng r = rng_new(5);
	char *text = malloc(LEN + 200);
	int n = sprintf(text, "begin %s\n%u\t1\tlarge\t", begin, time);

	for (int i = 0; i < LEN; i++)
		text[n++] = (char)('0' + rng_below(&r, 40));
	strcpy(text + n, "\ncommit\n");
	return text;
}

static int append_blob(struct stage_set *s)
{
	char *text = blob_txn("expected_upper=3 new_upper=4 " TOKEN, 3);
	int rc = commit(s, text);

	free(text);
	return rc;
}

static int append_and_read_verdict(struct stage_set *s)
{
	int fd = open(at(s->shard, "append"), O_RDWR), rc = fd < 0 ? errno : 0;
	char line[400];
	ssize_t n = 0;

	if (fd < 0)
		return rc;
	rc = put_all(fd, "begin lower=3 upper=4\n3\t1\td\tx\ncommit\n", 37);
	if (rc == 0) {
		n = read(fd, line, sizeof line - 1);
		rc = n <= 0 ? (n < 0 ? errno : EIO) : 0;
	}
	if (rc == 0)
		rc = strncmp(line, "ok ", 3) == 0 ? 0 : EPROTO;
	close(fd);
	return rc;
}

/* --- reading ------------------------------------------------------------------------------------------ */

static int snapshot(struct stage_set *s)
{
	return read_into(s, "snapshot");
}

static int as_of(struct stage_set *s)
{
	return read_into(s, "as_of/1");
}

static int waited(struct stage_set *s)
{
	return read_into(s, "wait/1");
}

static int small_files(struct stage_set *s)
{
	static const char *const names[] = {"upper", "since", "errors", "holds/x", "batches/there"};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof names / sizeof names[0]; i++)
		rc = read_into(s, names[i]);
	return rc;
}

static int state(struct stage_set *s)
{
	return read_any(s, "state");
}

static int metrics(struct stage_set *s)
{
	char *text = slurp_rc(at(w.mnt, "metrics"));
	struct statvfs vfs;
	int rc = text == NULL ? errno : 0;

	free(text);
	return rc != 0 ? rc : or_errno(statvfs(s->shard, &vfs));
}

static int append_and_read_blob(struct stage_set *s)
{
	int rc = append_blob(s);

	return rc != 0 ? rc : read_any(s, "snapshot");
}

/* Up to what is there. */
static int follow(struct stage_set *s, const char *name)
{
	int fd = open(at(s->shard, name), O_RDONLY | O_NONBLOCK), rc = fd < 0 ? errno : 0;
	char text[4097];
	ssize_t n = 1;

	while (fd >= 0 && n > 0) {
		n = read(fd, text, sizeof text - 1);
		if (n < 0 && errno != EAGAIN)
			rc = errno;
		text[n > 0 ? n : 0] = '\0';
		hear(s, text);
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

static int listen_there(struct stage_set *s)
{
	return follow(s, "listen/1");
}

static int subscribe(struct stage_set *s)
{
	return follow(s, "subscribe/1");
}

static int list_all(struct stage_set *s)
{
	static const char *const dirs[] = {"", "batches", "holds", "writers", "readers"};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof dirs / sizeof dirs[0]; i++)
		rc = list(s, at(s->shard, dirs[i]));
	return rc;
}

static int poll_upper(struct stage_set *s)
{
	int fd = open(at(s->shard, "upper"), O_RDONLY), rc = fd < 0 ? errno : 0;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		return rc;
	rc = or_errno(poll(&p, 1, 0));
	close(fd);
	return rc;
}

/* --- staged batches ----------------------------------------------------------------------------------- */

static int stage_write(struct stage_set *s)
{
	int fd = open(at(s->shard, "batches/new"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
	int rc = fd < 0 ? errno : 0;

	if (fd < 0)
		return rc;
	rc = put_all(fd, "bounds 0 9\n5\t1\tp\tq\n6\t1\tr\t", 26);
	if (rc == 0)
		rc = put_all(fd, "s\n", 2);
	if (rc == 0)
		rc = or_errno(fsync(fd));
	close(fd);
	return rc;
}

static int stage_make(struct stage_set *s)
{
	int fd = open(at(s->shard, "batches/new"), O_WRONLY | O_CREAT | O_EXCL, 0644);
	int rc = fd < 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	return rc;
}

static int stage_commit(struct stage_set *s)
{
	return commit(s, "begin expected_upper=3 new_upper=9 " TOKEN "\nbatch there\ncommit\n");
}

static int stage_rename(struct stage_set *s)
{
	char from[PATH_MAX];

	snprintf(from, sizeof from, "%s", at(s->shard, "batches/there"));
	return or_errno(rename(from, at(s->shard, "batches/moved")));
}

static int stage_remove(struct stage_set *s)
{
	return or_errno(unlink(at(s->shard, "batches/there")));
}

/* --- holds, names, owners ----------------------------------------------------------------------------- */

static int since(struct stage_set *s)
{
	return write_once(at(s->shard, "since"), "1\n");
}

static int hold_make(struct stage_set *s)
{
	int fd = open(at(s->shard, "holds/new"), O_WRONLY | O_CREAT, 0644), rc = fd < 0 ? errno : 0;

	if (fd < 0)
		return rc;
	rc = or_errno(write(fd, "2\n", 2));
	close(fd);
	return rc;
}

static int hold_fence(struct stage_set *s)
{
	return write_once(at(s->shard, "holds/x"), "expected=0 token=4 since=2");
}

static int hold_drop(struct stage_set *s)
{
	return or_errno(unlink(at(s->shard, "holds/x")));
}

static int name_make(struct stage_set *s)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s-also", s->name);
	return or_errno(symlink(s->shard, path));
}

static int name_move(struct stage_set *s)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s-moved", s->name);
	return or_errno(rename(s->name, path));
}

static int name_remove(struct stage_set *s)
{
	return or_errno(unlink(s->name));
}

static int own(struct stage_set *s)
{
	int rc = or_errno(chmod(s->shard, 0750));

	return rc != 0 ? rc : or_errno(chown(s->shard, 7, 8));
}

static int make_shard(struct stage_set *s)
{
	return or_errno(mkdir(s->fresh, 0700));
}

static int remove_shard(struct stage_set *s)
{
	return or_errno(rmdir(s->removed));
}

/* --- maintenance -------------------------------------------------------------------------------------- */

static int compact(struct stage_set *s)
{
	return write_once(at(s->shard, "ctl"), "compact");
}

static int collect(struct stage_set *s)
{
	return write_once(at(s->shard, "ctl"), "gc");
}

static int roll_up(struct stage_set *s)
{
	return write_once(at(s->shard, "ctl"), "rollup");
}

const struct nth_scene nth_scenes[] = {
	{"append", append_inline, 0, false},
	{"append a blob", append_blob, 0, false},
	{"append and read the verdict", append_and_read_verdict, 0, true},
	{"append and read a blob", append_and_read_blob, 0, true},
	{"snapshot", snapshot, 0, false},
	{"as_of", as_of, 0, false},
	{"wait", waited, 0, false},
	{"small files", small_files, 0, false},
	{"state", state, 0, false},
	{"metrics", metrics, 0, false},
	{"listen", listen_there, 0, false},
	{"subscribe", subscribe, 0, false},
	{"list", list_all, 0, false},
	{"poll", poll_upper, 0, false},
	{"write a staged batch", stage_write, 0, true},
	{"make a staged batch", stage_make, EEXIST, false},
	{"commit a staged batch", stage_commit, 0, false},
	{"rename a staged batch", stage_rename, ENOENT, false},
	{"remove a staged batch", stage_remove, ENOENT, false},
	{"since", since, 0, false},
	{"make a hold", hold_make, 0, false},
	{"fence a hold", hold_fence, ESTALE, false},
	{"drop a hold", hold_drop, ENOENT, false},
	{"make a name", name_make, EEXIST, false},
	{"move a name", name_move, ENOENT, false},
	{"remove a name", name_remove, ENOENT, false},
	{"owner", own, 0, true},
	{"mkdir", make_shard, EEXIST, false},
	{"rmdir", remove_shard, ENOENT, false},
	{"compact", compact, 0, false},
	{"gc", collect, 0, false},
	{"rollup", roll_up, 0, false},
};
const size_t nth_scene_count = sizeof nth_scenes / sizeof nth_scenes[0];

/* --- their shards ------------------------------------------------------------------------------------- */

/* Stored before anything fails: of a staged batch a close would do it later. */
static void put_new(const struct stage_set *s, const char *name, const char *text)
{
	int fd = open(at(s->shard, name), O_WRONLY | O_CREAT, 0644);

	ck_assert_int_eq(put_all(fd, text, strlen(text)), 0);
	(void)fsync(fd);
	close(fd);
}

struct stage_set nth_prepare(void)
{
	struct stage_set s = {.shard = shard_new(&w), .removed = shard_new(&w)};
	char *id = shard_id(), *fresh = shard_id();
	char *blob = blob_txn("expected_upper=0 new_upper=- since=-", 0);

	want_txn(s.shard, "begin expected_upper=0 new_upper=1\n0\t1\ta\tx\ncommit\n"
			  "begin expected_upper=1 new_upper=3\n1\t1\tb\tx\n2\t-1\ta\tx\ncommit\n");
	want_txn(s.removed, blob);
	free(blob);
	ck_errno(write_once(at(s.shard, "holds/default"), "0"), 0);
	s.name = NULL;
	ck_assert_int_gt(asprintf(&s.name, "%s/name/%s", w.mnt, id), 0);
	ck_assert_int_gt(asprintf(&s.fresh, "%s/shard/%s", w.mnt, fresh), 0);
	free(id);
	free(fresh);
	ck_works(symlink(s.shard, s.name));
	put_new(&s, "holds/x", "0\n");
	put_new(&s, "batches/there", "7\t1\tz\tz\n");
	return s;
}

/* Names go, since all of them are one document, which is not to grow from run to run. */
void nth_free(struct stage_set *s)
{
	static const char *const behind[] = {"", "-also", "-moved"};
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof behind / sizeof behind[0]; i++) {
		snprintf(path, sizeof path, "%s%s", s->name, behind[i]);
		(void)unlink(path);
	}
	free(s->shard);
	free(s->name);
	free(s->removed);
	free(s->fresh);
}

static void print_file(FILE *out, const char *dir, const char *name)
{
	char *text = slurp_rc(at(dir, name));

	if (text == NULL && (errno == EIO || errno == ETIMEDOUT)) /* the call that fails may be one of ours */
		text = slurp_rc(at(dir, name));
	fprintf(out, "%s: %.200s %zu\n", name, text != NULL ? text : strerrorname_np(errno),
		text != NULL ? strlen(text) : 0);
	free(text);
}

static void print_name(FILE *out, const char *name, const char *behind)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof path, "%s%s", name, behind);
	fprintf(out, "name%s: %s\n", behind, lstat(path, &st) == 0 ? "there" : strerrorname_np(errno));
}

char *nth_print(const struct stage_set *s)
{
	static const char *const files[] = {"upper",         "since",         "snapshot",
					    "holds/x",       "holds/new",     "holds/default",
					    "batches/there", "batches/moved", "batches/new"};
	char *text = NULL;
	size_t len;
	struct stat st;
	FILE *out = open_memstream(&text, &len);

	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		print_file(out, s->shard, files[i]);
	ck_works(stat(s->shard, &st));
	fprintf(out, "%o %u %u\n", st.st_mode, st.st_uid, st.st_gid);
	print_name(out, s->name, "");
	print_name(out, s->name, "-also");
	print_name(out, s->name, "-moved");
	fprintf(out, "removed: %s\n", stat(s->removed, &st) == 0 ? "there" : strerrorname_np(errno));
	fprintf(out, "fresh: %s\n", stat(s->fresh, &st) == 0 ? "there" : strerrorname_np(errno));
	fclose(out);
	return text;
}

/* Fails the test where the two differ. */
static void want_same(const struct nth_scene *scene, const char *when, int rc, const char *got,
		      const char *want)
{
	size_t i = 0;

	while (got[i] != '\0' && got[i] == want[i])
		i++;
	i -= i < 40 ? i : 40;
	ck_assert_msg(strcmp(got, want) == 0, "%s: %s: %s: ...%.120s... instead of ...%.120s...", scene->name,
		      when, strerrorname_np(rc), got + i, want + i);
}

/* --- held against what they should be ----------------------------------------------------------------- */

int nth_run(const struct nth_scene *scene, struct stage_set *s)
{
	s->heard[0] = '\0';
	return scene->run(s);
}

struct nth_want *nth_rehearse(void)
{
	struct nth_want *want = calloc(nth_scene_count, sizeof *want);

	for (size_t i = 0; i < nth_scene_count; i++) {
		struct stage_set s = nth_prepare();
		int rc;

		want[i].before = nth_print(&s);
		rc = nth_run(&nth_scenes[i], &s);
		ck_assert_msg(rc == 0, "%s: %s", nth_scenes[i].name, strerrorname_np(rc));
		want[i].after = nth_print(&s);
		want[i].heard = strdup(s.heard);
		nth_free(&s);
	}
	return want;
}

void nth_check(const struct nth_scene *scene, const struct nth_want *want, struct stage_set *s, int rc,
	       const char *when)
{
	char *got = nth_print(s);

	if (rc == 0 && strcmp(want->before, want->after) == 0)
		want_same(scene, when, rc, s->heard, want->heard);
	if (rc == 0)
		want_same(scene, when, rc, got, want->after);
	else if (!scene->steps && (rc != EIO || strcmp(got, want->after) != 0))
		want_same(scene, when, rc, got, want->before);
	free(got);
}

void nth_again(const struct nth_scene *scene, const struct nth_want *want, struct stage_set *s,
	       const char *when)
{
	int rc = nth_run(scene, s);
	char *said = slurp_rc(at(s->shard, "errors"));

	ck_assert_msg(rc == 0 || (scene->done != 0 && rc == scene->done), "%s: %s: again: %s\n%s",
		      scene->name, when, strerrorname_np(rc), said);
	free(said);
	nth_check(scene, want, s, 0, when);
}
