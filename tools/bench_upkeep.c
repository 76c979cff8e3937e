/*
 * bench_upkeep.c - what maintenance keeps small, and what it costs: the parts, their knobs, and the table.
 *
 * Everything is seen from outside: files of the mount, files of the store, /proc. Each part has stores of its
 * own, deleted at its end.
 */
#include "tools/bench_upkeep.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const double memory_aim_mib = 256;

static uint64_t knob(const char *variable, uint64_t usual)
{
	const char *text = getenv(variable);
	char *end;
	uint64_t n;

	if (text == NULL || *text == '\0')
		return usual;
	n = strtoull(text, &end, 10);
	if (*end != '\0' || n == 0)
		bench_die(variable, "it is not a number above 0");
	return n;
}

static struct bench_knobs knobs(FILE *report)
{
	struct bench_knobs k = {0};
	const char *lead = "Not of the usual size:";

#define BENCH_KNOB(name, variable, usual)                                           \
	k.name = knob("UPKEEP_" variable, usual);                                   \
	if (k.name != (usual)) {                                                    \
		bench_say(report, "%s UPKEEP_%s=%" PRIu64, lead, variable, k.name); \
		lead = ",";                                                         \
	}
	BENCH_KNOBS(BENCH_KNOB)
#undef BENCH_KNOB
	if (*lead == ',')
		bench_say(report, "; the figures say little about the aims.\n");
	return k;
}

void bench_figures_begin(FILE *report, const char *title, ...)
{
	char text[256];
	va_list args;

	va_start(args, title);
	vsnprintf(text, sizeof text, title, args);
	va_end(args);
	fprintf(stderr, "bench: %s\n", text);
	bench_say(report, "\n%s:\n\n| %-56s | %9s | %9s | %-7s | |\n", text, "", "figure", "aim", "");
	bench_say(report, "|:%.57s|%.10s:|%.10s:|:%.8s|:-|\n",
		  "---------------------------------------------------------", "----------", "----------",
		  "--------");
}

static void say_row(FILE *report, const struct bench_figure *f, const char *figure, const char *verdict,
		    const char *remark)
{
	char aim[64] = "";

	if (!isnan(f->aim))
		snprintf(aim, sizeof aim, "%.*f%s", f->digits, f->aim, f->unit);
	bench_say(report, "| %-56s | %9s | %9s | %-7s | %s |\n", f->what, figure, aim, verdict, remark);
}

void bench_figure(FILE *report, const struct bench_figure *f, const char *remark, ...)
{
	char figure[64], text[256];
	const char *verdict = "";
	va_list args;

	if (isnan(f->value)) {
		bench_no_figure(report, f, "");
		return;
	}
	va_start(args, remark);
	vsnprintf(text, sizeof text, remark, args);
	va_end(args);
	snprintf(figure, sizeof figure, "%.*f%s", f->digits, f->value, f->unit);
	if (!isnan(f->aim))
		verdict = f->value <= f->aim ? "reached" : "MISSED";
	say_row(report, f, figure, verdict, text);
}

void bench_no_figure(FILE *report, const struct bench_figure *f, const char *why)
{
	say_row(report, f, "not there", "", why);
}

void bench_figure_memory(FILE *report, const struct bench_own *o, const char *during)
{
	char what[64];
	struct bench_figure f = {.what = what,
				 .value = (double)bench_memory_kib(o->place.pid, "VmHWM:") / 1024,
				 .aim = memory_aim_mib,
				 .unit = " MiB"};

	snprintf(what, sizeof what, "peak of the mount's memory, %s", during);
	bench_figure(report, &f, "VmHWM");
}

/* UPKEEP_PARTS: letters of the parts to run; unset: all. */
static bool wanted(char part)
{
	const char *parts = getenv("UPKEEP_PARTS");

	return parts == NULL || *parts == '\0' || strchr(parts, part) != NULL;
}

void bench_upkeep(const struct bench_place *place, FILE *report)
{
	struct bench_knobs k;

	bench_say(report,
		  "\n## Maintenance\n\nEach figure beside the most it is to be. Sizes on disk are those "
		  "of the store's directory by du; `at\nrest` is when nothing in it has changed for a while, "
		  "without having been asked to.\n");
	k = knobs(report);
	if (wanted('a')) {
		bench_overwritten(place, report, &k, 1);
		bench_overwritten(place, report, &k, k.cuts);
	}
	if (wanted('b'))
		bench_single_rows(place, report, &k);
	if (wanted('c'))
		bench_many_shards(place, report, &k);
	if (wanted('d'))
		bench_many_versions(place, report, &k);
}
