/* linear_history.c - see linear_check.h: how a history grows and goes. */
#include "tests/fs/linear_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for one more in an array; its place, zeroed. */
static void *more(void *array, size_t *count, size_t *cap, size_t size)
{
	char **a = array, *at;

	if (*count == *cap) {
		*cap = *cap * 2 + 16;
		*a = realloc(*a, *cap * size);
		if (*a == NULL)
			abort();
	}
	at = *a + (*count)++ * size;
	memset(at, 0, size);
	return at;
}

struct lin_append *lin_add_append(struct lin_history *h)
{
	return more(&h->appends, &h->append_count, &h->append_cap, sizeof *h->appends);
}

struct lin_read *lin_add_read(struct lin_history *h)
{
	return more(&h->reads, &h->read_count, &h->read_cap, sizeof *h->reads);
}

struct lin_listener *lin_add_listener(struct lin_history *h)
{
	return more(&h->listeners, &h->listener_count, &h->listener_cap, sizeof *h->listeners);
}

struct lin_step *lin_add_step(struct lin_listener *l)
{
	return more(&l->steps, &l->step_count, &l->step_cap, sizeof *l->steps);
}

void lin_add_step_row(struct lin_listener *l, const struct lin_row *row)
{
	*(struct lin_row *)more(&l->rows, &l->row_count, &l->row_cap, sizeof *l->rows) = *row;
	l->steps[l->step_count - 1].row_count++;
}

void lin_add_row(struct lin_append *a, uint64_t time, int64_t diff, const char *key)
{
	a->rows = realloc(a->rows, (a->row_count + 1) * sizeof *a->rows);
	if (a->rows == NULL)
		abort();
	a->rows[a->row_count] = (struct lin_row){.time = time, .diff = diff};
	snprintf(a->rows[a->row_count++].key, LIN_KEY, "%s", key);
}

void lin_move(struct lin_history *to, struct lin_history *from)
{
	for (size_t i = 0; i < from->append_count; i++)
		*lin_add_append(to) = from->appends[i];
	for (size_t i = 0; i < from->read_count; i++)
		*lin_add_read(to) = from->reads[i];
	for (size_t i = 0; i < from->listener_count; i++)
		*lin_add_listener(to) = from->listeners[i];
	free(from->appends);
	free(from->reads);
	free(from->listeners);
	*from = (struct lin_history){0};
}

void lin_free(struct lin_history *h)
{
	for (size_t i = 0; i < h->append_count; i++)
		free(h->appends[i].rows);
	for (size_t i = 0; i < h->read_count; i++)
		free(h->reads[i].text);
	for (size_t i = 0; i < h->listener_count; i++) {
		free(h->listeners[i].steps);
		free(h->listeners[i].rows);
	}
	free(h->appends);
	free(h->reads);
	free(h->listeners);
	*h = (struct lin_history){0};
}
