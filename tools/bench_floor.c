/*
 * bench_floor.c - what the machine takes by itself, in the same run: the disk, a FUSE request, memory, zstd,
 * cat, and GNU sort.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "tools/bench_bulk.h"
#include "tools/bench_own.h"
#include "tools/bench_rounds.h"

enum { COUNT = 500, LEVEL = 3 };

static void disk(struct bench_run *run)
{
	struct bench_turns turns[] = {
		{.kind = &bench_overwrite_sync}, {.kind = &bench_append_sync}, {.kind = &bench_write_only}};

	bench_take_turns(run, turns, 3, COUNT);
	run->floors.overwrite_us = turns[0].p50_us;
	run->floors.append_us = turns[1].p50_us;
	run->floors.request_us = turns[2].p50_us;
	for (int i = 0; i < 3; i++)
		free(turns[i].us);
}

static double since_s(uint64_t start)
{
	return (double)(bench_now_ns() - start) / 1e9;
}

/* The text in a file, from which it comes back out of the page cache. */
static char *file_of(const struct bench_run *run, const struct bench_rows *rows)
{
	char *path = bench_new_path(run->place.dir, "text");
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		bench_die_errno(path);
	bench_write(fd, rows->text, rows->len, path);
	if (fsync(fd) != 0 || close(fd) != 0)
		bench_die_errno(path);
	return path;
}

static void text(struct bench_run *run)
{
	struct bench_rows rows = bench_rows_new(run->sizes.rows);
	size_t room = ZSTD_compressBound(rows.len), packed = 0;
	char *path = file_of(run, &rows), *to = malloc(room);
	struct bench_floors *f = &run->floors;

	if (to == NULL)
		bench_die_errno("memory for text");
	memset(to, 1, room);
	setenv("LC_ALL", "C", 1);
	for (size_t round = 0; round < run->sizes.rounds; round++) {
		uint64_t start = bench_now_ns();

		memcpy(to, rows.text, rows.len);
		bench_add(&f->memcpy_s, since_s(start));
		start = bench_now_ns();
		packed = ZSTD_compress(to, room, rows.sorted, rows.len, LEVEL);
		bench_add(&f->zstd_s, since_s(start));
		bench_add(&f->cat_s, bench_command_s("cat", path, NULL));
		bench_add(&f->sort_s, bench_command_s("sort", path, NULL));
	}
	f->text_bytes = (double)rows.len;
	f->zstd_bytes = (double)packed;
	unlink(path);
	free(path);
	free(to);
	bench_rows_end(&rows);
}

static void say(struct bench_run *run)
{
	const struct {
		const char *what;
		const struct bench_series *s;
		double scale;
	} floors[] = {
		{"fdatasync of an overwritten block of 4 KiB, p50, µs", &run->floors.overwrite_us, 1},
		{"fdatasync of 200 B appended, p50, µs", &run->floors.append_us, 1},
		{"FUSE write that touches no store (a row that nobody commits), p50, µs",
		 &run->floors.request_us, 1},
		{"memcpy of the text, ms", &run->floors.memcpy_s, 1e3},
		{"zstd -3 of the text (sorted), one thread, ms", &run->floors.zstd_s, 1e3},
		{"`cat` of the text in the page cache, ms", &run->floors.cat_s, 1e3},
		{"GNU `sort` of the text, LC_ALL=C, ms", &run->floors.sort_s, 1e3},
	};

	bench_say(run->report,
		  "\n## Floors\n\nWhat the machine takes by itself. The text is the %.1f MB of the large "
		  "transaction; zstd -3 makes %.2f MB of it.\n\n| floor | |\n|:-|-:|\n",
		  run->floors.text_bytes / 1e6, run->floors.zstd_bytes / 1e6);
	for (size_t i = 0; i < sizeof floors / sizeof *floors; i++) {
		struct bench_series s = *floors[i].s;
		const struct bench_series *const figures[] = {&s};

		for (size_t k = 0; k < s.count; k++)
			s.of[k] *= floors[i].scale;
		bench_row(run, floors[i].what, 1, figures, (const int[]){1});
	}
}

void bench_floors(struct bench_run *run)
{
	fprintf(stderr, "bench: the floors\n");
	disk(run);
	text(run);
	say(run);
}
