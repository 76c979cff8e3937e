/*
 * bench_report.c - see bench_report.h.
 */
#include "tools/bench_report.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool bench_wanted(const struct bench_run *run, const char *part, bool usual)
{
	size_t len = strlen(part);

	if (run->only == NULL)
		return usual || run->full;
	for (const char *p = run->only; *p != '\0'; p += strcspn(p, ","), p += *p == ',')
		if (strncmp(p, part, len) == 0 && (p[len] == ',' || p[len] == '\0'))
			return true;
	return false;
}

/* --- series ----------------------------------------------------------------------------------------- */

void bench_add(struct bench_series *s, double value)
{
	if (s->count == BENCH_FIGURES_MAX)
		bench_die("BENCH_ROUNDS", "too many rounds");
	s->of[s->count++] = value;
}

static struct bench_series sorted(const struct bench_series *s)
{
	struct bench_series copy = *s;

	bench_quantile(copy.of, copy.count, 0.5);
	return copy;
}

double bench_median(const struct bench_series *s)
{
	struct bench_series in_order;

	if (s->count == 0)
		return NAN;
	in_order = sorted(s);
	return (in_order.of[(s->count - 1) / 2] + in_order.of[s->count / 2]) / 2;
}

struct bench_series bench_ratio(const struct bench_series *of, const struct bench_series *to)
{
	struct bench_series ratio = {0};

	for (size_t i = 0; i < of->count && i < to->count; i++)
		bench_add(&ratio, of->of[i] / to->of[i]);
	return ratio;
}

struct bench_series bench_sum(const struct bench_series *a, const struct bench_series *b)
{
	struct bench_series sum = {0};

	for (size_t i = 0; i < a->count && i < b->count; i++)
		bench_add(&sum, a->of[i] + b->of[i]);
	return sum;
}

struct bench_series bench_least(const struct bench_series *a, const struct bench_series *b)
{
	struct bench_series least = a->count != 0 ? *a : *b;

	for (size_t i = 0; i < least.count && i < b->count; i++)
		least.of[i] = fmin(least.of[i], b->of[i]);
	return least;
}

struct bench_series bench_one(double value)
{
	struct bench_series s = {0};

	bench_add(&s, value);
	return s;
}

char *bench_spread(const struct bench_series *s, int digits, char text[BENCH_SPREAD_MAX])
{
	struct bench_series in_order;

	if (s->count == 0) {
		snprintf(text, BENCH_SPREAD_MAX, "missing");
		return text;
	}
	in_order = sorted(s);
	if (s->count == 1)
		snprintf(text, BENCH_SPREAD_MAX, "%.*f", digits, in_order.of[0]);
	else
		snprintf(text, BENCH_SPREAD_MAX, "%.*f (%.*f..%.*f)", digits, bench_median(s), digits,
			 in_order.of[0], digits, in_order.of[s->count - 1]);
	return text;
}

/* --- tables ----------------------------------------------------------------------------------------- */

void bench_say(FILE *report, const char *format, ...)
{
	FILE *const to[] = {stdout, report};

	for (int i = 0; i < 2; i++) {
		va_list args;

		va_start(args, format);
		vfprintf(to[i], format, args);
		va_end(args);
		fflush(to[i]);
	}
}

static bool whole(double x)
{
	return x == rint(x);
}

static bool meets(const struct bench_target *t, double value)
{
	return t->sense == BENCH_AT_MOST ? value <= t->bound : value >= t->bound;
}

static bool in_all_rounds(const struct bench_target *t)
{
	for (size_t i = 0; i < t->value.count; i++)
		if (!meets(t, t->value.of[i]))
			return false;
	return true;
}

void bench_target(struct bench_run *run, const struct bench_target *t, const char *floor, const char *beside,
		  ...)
{
	const char *verdict = "not measured", *unit = t->unit != NULL ? t->unit : "";
	char spread[BENCH_SPREAD_MAX], text[512];
	double value = bench_median(&t->value);
	va_list args;

	va_start(args, beside);
	vsnprintf(text, sizeof text, beside, args);
	va_end(args);
	for (char *p = text; (p = strstr(p, "nan")) != NULL;)
		memcpy(p, "—", strlen("nan")); /* a dash, of three bytes too: not measured */
	if (!isnan(value))
		verdict = !meets(t, value)   ? "**NOT MET**"
			  : in_all_rounds(t) ? "met"
					     : "met, not in all rounds";
	bench_spread(&t->value, t->digits, spread);
	fprintf(run->table, "| %s | %s%s | %s %.*f%s | %s | %s | %s |\n", t->work, spread, unit,
		t->sense == BENCH_AT_MOST ? "≤" : "≥", whole(t->bound) ? 0 : t->digits, t->bound, unit,
		verdict, text, floor);
	fflush(run->table);
	printf("target: %s: %s%s, %s\n", t->work, spread, unit, verdict);
	fflush(stdout);
}

void bench_row(struct bench_run *run, const char *name, size_t count,
	       const struct bench_series *const figures[], const int digits[])
{
	char spread[BENCH_SPREAD_MAX];

	bench_say(run->report, "| %s |", name);
	for (size_t i = 0; i < count; i++)
		bench_say(run->report, " %s |", bench_spread(figures[i], digits[i], spread));
	bench_say(run->report, "\n");
}

FILE *bench_data(const struct bench_run *run, const char *name)
{
	char *path = bench_path(run->out, name);
	FILE *f = fopen(path, "we");

	if (f == NULL)
		bench_die_errno(path);
	free(path);
	return f;
}
