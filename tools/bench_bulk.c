/*
 * bench_bulk.c - a transaction of a million rows: taking it, giving it back consolidated and sorted, reading
 * its batch again, and what it takes on disk.
 *
 * In each round everyone takes it into a collection that is new and empty, in turn; then everyone gives it
 * back. Before that each gets the maintenance that its authors would have it get: the mount comes to rest,
 * PostgreSQL's table is vacuumed and analyzed. What comes back is compared byte by byte in the first round,
 * before the readings that count.
 */
#include "tools/bench_bulk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_own.h"
#include "tools/bench_report.h"

static const double import_aim = 0.5, read_aim = 0.2, first_byte_aim_ms = 20, batch_aim = 0.8, disk_aim = 1.1;

/* --- the rows --------------------------------------------------------------------------------------- */

uint32_t *bench_shuffled(uint64_t count)
{
	uint32_t *numbers = malloc(count * sizeof *numbers);
	uint64_t x = 88172645463325252; /* xorshift64 */

	if (numbers == NULL)
		bench_die_errno("memory for rows");
	for (uint64_t i = 0; i < count; i++)
		numbers[i] = (uint32_t)i;
	for (uint64_t i = count; i > 1; i--) {
		uint64_t k;
		uint32_t other;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		k = x % i;
		other = numbers[k];
		numbers[k] = numbers[i - 1];
		numbers[i - 1] = other;
	}
	return numbers;
}

size_t bench_row_text(char line[BENCH_TEXT_MAX], uint64_t time, int diff, uint64_t key, uint64_t val)
{
	char k[BENCH_KEY_LEN + 1], v[BENCH_VAL_LEN + 1];

	bench_key(key, k);
	bench_val(val, v);
	return (size_t)snprintf(line, BENCH_TEXT_MAX, "%" PRIu64 "\t%d\t%s\t%s\n", time, diff, k, v);
}

/* The text of the rows, in the order of numbers[], or their own; given (free). */
static char *text_of(uint64_t count, const uint32_t *numbers, size_t *len)
{
	char line[BENCH_TEXT_MAX], *text = malloc(count * bench_row_text(line, 0, 1, 0, 0) + 1), *p = text;

	if (text == NULL)
		bench_die_errno("memory for rows");
	for (uint64_t i = 0; i < count; i++) {
		uint64_t n = numbers != NULL ? numbers[i] : i;
		size_t row = bench_row_text(line, 0, 1, n, n);

		memcpy(p, line, row);
		p += row;
	}
	*p = '\0';
	*len = (size_t)(p - text);
	return text;
}

struct bench_rows bench_rows_new(uint64_t count)
{
	uint32_t *numbers = bench_shuffled(count);
	struct bench_rows rows = {.count = count};

	rows.text = text_of(count, numbers, &rows.len);
	rows.sorted = text_of(count, NULL, &rows.len);
	free(numbers);
	return rows;
}

void bench_rows_end(struct bench_rows *rows)
{
	free(rows->text);
	free(rows->sorted);
}

/* --- through the mount ------------------------------------------------------------------------------ */

static double mount_import(struct bench_writer *w, const struct bench_rows *rows)
{
	static const char begin[] = "begin expected_upper=0 new_upper=1\n", commit[] = "commit\n";
	uint64_t start = bench_now_ns();

	bench_write(w->fd, begin, strlen(begin), w->dir);
	for (size_t at = 0; at < rows->len; at += BENCH_PIECE)
		bench_write(w->fd, rows->text + at,
			    rows->len - at < BENCH_PIECE ? rows->len - at : BENCH_PIECE, w->dir);
	bench_write(w->fd, commit, strlen(commit), w->dir);
	return (double)(bench_now_ns() - start) / 1e9;
}

/* The only file in batches/; given (free). */
static char *only_batch(const char *shard)
{
	char *dir = bench_path(shard, "batches"), *path = NULL;
	DIR *d = opendir(dir);
	struct dirent *e;

	if (d == NULL)
		bench_die_errno(dir);
	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.' && path == NULL)
			path = bench_path(dir, e->d_name);
	closedir(d);
	if (path == NULL)
		bench_die(dir, "there is no batch in it");
	free(dir);
	return path;
}

/* --- everyone --------------------------------------------------------------------------------------- */

enum who { OURS, PG, SQLITE, KINDS };

static const char *const names[KINDS] = {"mount", "PostgreSQL, COPY", "SQLite, in the process"};

/* The collections of one round. */
struct stage {
	struct bench_writer w;
	void *sqlite;
	unsigned collection;
};

struct bulk {
	struct bench_run *run;
	struct bench_rows rows;
	struct bench_session *pg; /* NULL: missing */
	char *into;
	struct bench_series import_s[KINDS], new_table_s, read_s[KINDS], first_ms[KINDS], batch_s, plain_s,
		cat_batch_s, cat_plain_s;
};

static struct stage stage_new(struct bulk *b)
{
	return (struct stage){.w = bench_writer_new(&b->run->place),
			      .sqlite = bench_sqlite_new(&b->run->place),
			      .collection = b->pg != NULL ? bench_pg_collection(b->pg) : 0};
}

static void stage_end(struct bulk *b, struct stage *s)
{
	bench_writer_end(&s->w);
	bench_sqlite_end(s->sqlite);
	if (b->pg != NULL)
		bench_pg_exec(b->pg, "DROP TABLE updates_%u", s->collection);
}

static double import(struct bulk *b, struct stage *s, enum who who)
{
	if (who == OURS)
		return mount_import(&s->w, &b->rows);
	if (who == SQLITE)
		return bench_sqlite_import(s->sqlite, &b->rows);
	return bench_pg_import(b->pg, s->collection, 0, b->rows.text, b->rows.len);
}

static void imports(struct bulk *b, struct stage *s, size_t round)
{
	for (unsigned k = 0; k < KINDS; k++) {
		enum who who = (k + round) % KINDS;

		if (who == PG && b->pg == NULL)
			continue;
		bench_settle(&b->run->place);
		sync(); /* what others wrote is not to be in the way */
		bench_add(&b->import_s[who], import(b, s, who));
		if (who == PG)
			bench_add(&b->new_table_s, bench_pg_import_new(b->pg, b->rows.text, b->rows.len));
	}
}

static struct bench_reading reading(struct bulk *b, struct stage *s, enum who who)
{
	char *path;
	struct bench_reading r;

	if (who == SQLITE)
		return bench_sqlite_read(s->sqlite, b->into);
	if (who == PG)
		return bench_pg_read(b->pg, s->collection, 0, b->into);
	path = bench_path(s->w.dir, "snapshot");
	r = bench_read_into(path, b->into, b->rows.len + BENCH_TEXT_MAX);
	free(path);
	return r;
}

static void same(const struct bulk *b, const struct bench_reading *r, const char *who)
{
	if (r->bytes != b->rows.len || memcmp(b->into, b->rows.sorted, b->rows.len) != 0)
		bench_die(who, "what came back is not what went in");
}

static void reads(struct bulk *b, struct stage *s, size_t round)
{
	for (unsigned k = 0; k < KINDS; k++) {
		enum who who = (k + round) % KINDS;
		struct bench_reading r;

		if (who == PG && b->pg == NULL)
			continue;
		bench_rest(100000);
		r = reading(b, s, who);
		if (round == 0) { /* everything has been touched once, also the memory it goes to */
			same(b, &r, names[who]);
			r = reading(b, s, who);
		}
		if (r.bytes != b->rows.len)
			bench_die(names[who], "not as many bytes came back as went in");
		bench_add(&b->read_s[who], r.all_s);
		bench_add(&b->first_ms[who], r.first_byte_s * 1e3);
	}
}

/* The batch, read before, and a plain file with the same text, read before: both come out of the page cache.
 */
static void batches(struct bulk *b, struct stage *s, size_t round)
{
	char *paths[2] = {only_batch(s->w.dir), bench_new_path(b->run->place.dir, "plain")};
	int fd = open(paths[1], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		bench_die_errno(paths[1]);
	bench_write(fd, b->rows.text, b->rows.len, paths[1]);
	if (fsync(fd) != 0 || close(fd) != 0)
		bench_die_errno(paths[1]);
	for (int i = 0; i < 2; i++)
		if (bench_read_all(paths[i]).bytes != b->rows.len)
			bench_die(paths[i], "not as many bytes came back as went in");
	for (int i = 0; i < 6; i++) { /* in turn; a reading takes milliseconds */
		int which = (i + (int)round) % 2;

		bench_add(which == 0 ? &b->batch_s : &b->plain_s, bench_read_all(paths[which]).all_s);
		bench_add(which == 0 ? &b->cat_batch_s : &b->cat_plain_s,
			  bench_command_s("cat", paths[which], NULL));
	}
	unlink(paths[1]);
	free(paths[0]);
	free(paths[1]);
}

static void one_round(struct bulk *b, size_t round)
{
	struct stage s = stage_new(b);

	imports(b, &s, round);
	bench_settle(&b->run->place);
	if (b->pg != NULL)
		bench_pg_exec(b->pg, "VACUUM (ANALYZE) updates_%u", s.collection);
	if (bench_wanted(b->run, "read", true))
		reads(b, &s, round);
	if (bench_wanted(b->run, "batch", true))
		batches(b, &s, round);
	stage_end(b, &s);
}

/* --- on disk ---------------------------------------------------------------------------------------- */

static void disk(struct bulk *b)
{
	const struct bench_floors *f = &b->run->floors;
	struct bench_own own = bench_own_new(&b->run->place, "disk");
	struct bench_writer w;
	struct stage s = stage_new(b);
	double before, committed, compacted;
	char floor[BENCH_SPREAD_MAX];

	fprintf(stderr, "bench: bytes on disk\n");
	bench_own_start(&own);
	w = bench_writer_new(&own.place);
	before = (double)bench_own_bytes(&own, NULL);
	mount_import(&w, &b->rows);
	committed = (double)bench_own_bytes(&own, NULL) - before;
	bench_ctl(w.dir, "compact");
	bench_ctl(w.dir, "gc");
	bench_settle(&own.place);
	compacted = (double)bench_own_bytes(&own, NULL) - before;
	bench_writer_end(&w);
	bench_own_remove(&own);
	snprintf(floor, sizeof floor, "zstd -3: %.2f MB of %.1f MB", f->zstd_bytes / 1e6,
		 f->text_bytes / 1e6);
	bench_target(b->run,
		     &(struct bench_target){.work = "on-disk bytes of these rows, right after the commit: "
						    "over `zstd -3` of the text",
					    .value = bench_one(committed / f->zstd_bytes),
					    .bound = disk_aim,
					    .digits = 2},
		     floor, "the store grew by %.2f MB", committed / 1e6);
	bench_target(b->run,
		     &(struct bench_target){.work = "the same after `echo compact > ctl`",
					    .value = bench_one(compacted / f->zstd_bytes),
					    .bound = disk_aim,
					    .digits = 2},
		     floor, "it had grown by %.2f MB", compacted / 1e6);
	import(b, &s, SQLITE);
	bench_say(b->run->report,
		  "\nOn disk, MB: the mount's store %.2f, compacted %.2f; SQLite %.2f with its log",
		  committed / 1e6, compacted / 1e6, (double)bench_sqlite_bytes(s.sqlite) / 1e6);
	if (b->pg != NULL) {
		import(b, &s, PG);
		bench_say(b->run->report, "; PostgreSQL %.2f without its log",
			  (double)bench_pg_bytes(b->pg, s.collection) / 1e6);
	}
	bench_say(b->run->report, "; zstd -3 of the text, sorted, %.2f.\n", f->zstd_bytes / 1e6);
	stage_end(b, &s);
}

/* --- what is said ----------------------------------------------------------------------------------- */

static void say(const struct bulk *b)
{
	static const int digits[] = {3, 3, 1};
	struct bench_run *run = b->run;

	bench_say(run->report,
		  "\n## A transaction of %" PRIu64
		  " rows\n\n%.1f MB of text with keys in shuffled order, handed over in pieces of %d KiB "
		  "into a collection that is empty,\ndurable at the end; then given back as the same text, "
		  "summed and sorted. Everything "
		  "is in the page cache.\nFields are told apart and printed by the mount and by PostgreSQL; "
		  "for SQLite this program does "
		  "it, in its time.\n\n",
		  b->rows.count, (double)b->rows.len / 1e6, (int)BENCH_PIECE / 1024);
	bench_say(run->report, "| | import, s | read all, s | first byte, ms |\n|:-|-:|-:|-:|\n");
	for (int k = 0; k < KINDS; k++) {
		const struct bench_series *const figures[] = {&b->import_s[k], &b->read_s[k],
							      &b->first_ms[k]};

		bench_row(run, names[k], 3, figures, digits);
	}
	bench_row(run, "PostgreSQL, into a table made in the same transaction, which needs no log", 1,
		  (const struct bench_series *const[]){&b->new_table_s}, digits);
}

static void targets(struct bulk *b)
{
	const struct bench_floors *f = &b->run->floors;
	struct bench_series peers = bench_least(&b->read_s[PG], &b->read_s[SQLITE]);
	char floor[3 * BENCH_SPREAD_MAX], work[BENCH_SPREAD_MAX];

	snprintf(floor, sizeof floor, "memcpy %.0f ms, zstd -3 %.0f ms, fdatasync %.2f ms",
		 bench_median(&f->memcpy_s) * 1e3, bench_median(&f->zstd_s) * 1e3,
		 bench_median(&f->append_us) / 1e3);
	snprintf(work, sizeof work,
		 "transaction of %" PRIu64 " rows (%.0f MB), durable: over PostgreSQL COPY", b->rows.count,
		 (double)b->rows.len / 1e6);
	if (bench_wanted(b->run, "import", true))
		bench_target(
			b->run,
			&(struct bench_target){.work = work,
					       .value = bench_ratio(&b->import_s[OURS], &b->import_s[PG]),
					       .bound = import_aim,
					       .digits = 2},
			floor, "ours %.3f s, PostgreSQL %.3f (a new table, without a log: %.3f), SQLite %.3f",
			bench_median(&b->import_s[OURS]), bench_median(&b->import_s[PG]),
			bench_median(&b->new_table_s), bench_median(&b->import_s[SQLITE]));
	snprintf(floor, sizeof floor, "cat %.0f ms, GNU sort %.0f ms, memcpy %.0f ms",
		 bench_median(&f->cat_s) * 1e3, bench_median(&f->sort_s) * 1e3,
		 bench_median(&f->memcpy_s) * 1e3);
	if (bench_wanted(b->run, "read", true)) {
		bench_target(b->run,
			     &(struct bench_target){
				     .work = "`cat snapshot` of it: over the faster of SQLite and PostgreSQL",
				     .value = bench_ratio(&b->read_s[OURS], &peers),
				     .bound = read_aim,
				     .digits = 2},
			     floor, "ours %.3f s, PostgreSQL %.3f, SQLite %.3f",
			     bench_median(&b->read_s[OURS]), bench_median(&b->read_s[PG]),
			     bench_median(&b->read_s[SQLITE]));
		bench_target(b->run,
			     &(struct bench_target){.work = "the same: its first byte",
						    .value = b->first_ms[OURS],
						    .bound = first_byte_aim_ms,
						    .digits = 1,
						    .unit = " ms"},
			     floor, "PostgreSQL %.0f ms, SQLite %.0f", bench_median(&b->first_ms[PG]),
			     bench_median(&b->first_ms[SQLITE]));
	}
	if (bench_wanted(b->run, "batch", true))
		bench_target(
			b->run,
			&(struct bench_target){
				.work = "reading a committed batch again: speed over that of a plain file",
				.value = bench_ratio(&b->plain_s, &b->batch_s),
				.sense = BENCH_AT_LEAST,
				.bound = batch_aim,
				.digits = 2},
			floor,
			"ours %.1f ms, the plain file %.1f; by `cat`, from its start to its end, %.1f and "
			"%.1f",
			bench_median(&b->batch_s) * 1e3, bench_median(&b->plain_s) * 1e3,
			bench_median(&b->cat_batch_s) * 1e3, bench_median(&b->cat_plain_s) * 1e3);
}

static void draw(const struct bulk *b)
{
	FILE *f;

	if (b->import_s[OURS].count == 0 || b->read_s[OURS].count == 0)
		return;
	f = bench_data(b->run, "bulk.dat");
	fprintf(f, "who import read\n");
	for (int k = 0; k < KINDS; k++)
		if (b->import_s[k].count != 0)
			fprintf(f, "\"%s\" %.4f %.4f\n", names[k], bench_median(&b->import_s[k]),
				bench_median(&b->read_s[k]));
	fclose(f);
}

void bench_bulk(struct bench_run *run)
{
	struct bulk *b = calloc(1, sizeof *b);

	if (b == NULL)
		bench_die_errno("memory for the large transaction");
	fprintf(stderr, "bench: a transaction of %" PRIu64 " rows\n", run->sizes.rows);
	b->run = run;
	b->rows = bench_rows_new(run->sizes.rows);
	b->into = calloc(1, b->rows.len + (size_t)2 * BENCH_TEXT_MAX);
	if (b->into == NULL)
		bench_die_errno("memory for reading");
	if (bench_pg_there(&run->place))
		b->pg = bench_pg_session(&run->place);
	if (bench_wanted(run, "import", true) || bench_wanted(run, "read", true) ||
	    bench_wanted(run, "batch", true)) {
		for (size_t round = 0; round < run->sizes.rounds; round++)
			one_round(b, round);
		say(b);
		targets(b);
		draw(b);
	}
	if (bench_wanted(run, "disk", true))
		disk(b);
	if (b->pg != NULL)
		bench_pg_end(b->pg);
	bench_rows_end(&b->rows);
	free(b->into);
	free(b);
}
