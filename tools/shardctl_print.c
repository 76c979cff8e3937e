/* shardctl_print.c - JSON, and the bar that shows how far it is; see shardctl.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/shardctl.h"

enum { BAR_LEN = 40 };

int ctl_print_json(json_t *json, size_t flags)
{
	int status = json != NULL && json_dumpf(json, stdout, flags) == 0 && putchar('\n') != EOF ? CTL_OK
												  : CTL_WRONG;

	json_decref(json);
	if (status != CTL_OK)
		fprintf(stderr, "shardctl: not all of it could be written\n");
	return status;
}

json_t *ctl_number(uint64_t n)
{
	char text[24];

	if (n <= INT64_MAX)
		return json_integer((json_int_t)n);
	snprintf(text, sizeof text, "%" PRIu64, n);
	return json_string(text);
}

json_t *ctl_frontier(struct core_frontier f)
{
	return f.empty ? json_string("-") : ctl_number(f.t);
}

json_t *ctl_bytes(struct core_bytes bytes)
{
	json_t *json;
	char *hex;

	if (bytes.len == CORE_ABSENT)
		return json_null();
	json = json_stringn(bytes.len != 0 ? (const char *)bytes.data : "", bytes.len); /* NULL: no UTF-8 */
	if (json != NULL)
		return json;
	hex = malloc(2 * (size_t)bytes.len + 1);
	if (hex == NULL)
		return NULL;
	for (size_t i = 0; i < bytes.len; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes.data[i]);
	json = json_pack("{s:s}", "hex", hex);
	free(hex);
	return json;
}

json_t *ctl_text(const char *text)
{
	return ctl_bytes((struct core_bytes){.data = (const uint8_t *)text, .len = (uint32_t)strlen(text)});
}

struct ctl_bar ctl_bar_new(const char *what)
{
	return (struct ctl_bar){.shown = isatty(STDERR_FILENO) == 1, .percent = -1, .what = what};
}

void ctl_bar_draw(struct ctl_bar *bar, uint64_t done, uint64_t total)
{
	int percent = total != 0 ? (int)((double)done * 100 / (double)total) : 0;
	char drawn[BAR_LEN + 1];
	int filled;

	percent = percent > 100 ? 100 : percent;
	if (!bar->shown || percent == bar->percent)
		return;
	bar->percent = percent;
	filled = percent * BAR_LEN / 100;
	memset(drawn, '.', BAR_LEN);
	memset(drawn, '#', (size_t)filled);
	drawn[BAR_LEN] = '\0';
	fprintf(stderr, "\r%s [%s] %3d%%", bar->what, drawn, percent);
}

void ctl_bar_clear(struct ctl_bar *bar)
{
	if (bar->shown && bar->percent >= 0)
		fprintf(stderr, "\r\033[K");
	bar->percent = -1;
}
