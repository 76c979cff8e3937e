/*
 * fuzz_row.c - a line to a row and back.
 *
 * What parses is written canonically, parses again to the same row, and then is the same text.
 */
#include <stdlib.h>
#include <string.h>

#include "core/frontier.h"
#include "core/row.h"
#include "tests/fuzz/fuzz.h"

/* The text of u, given, without its newline. */
static char *text_of(const struct core_update *u, size_t *len)
{
	size_t room = core_row_text_len(u);
	char *text = malloc(room);

	must(text != NULL);
	*len = core_row_format(u, text);
	must(*len == room && text[room - 1] == '\n');
	must(core_row_text_len_timeless(u) + core_u64_digits(u->time) == room);
	(*len)--;
	must(memchr(text, '\n', *len) == NULL);
	return text;
}

static void check_row(const struct core_update *u)
{
	struct core_row_scratch scratch = {0};
	struct core_row again;
	struct kv_err err;
	size_t len, len2;
	char *text = text_of(u, &len), *text2;

	must(core_update_bytes(u) <= CORE_ROW_MAX);
	must(core_row_parse(text, len, &scratch, &again, &err) == KV_OK);
	must(!again.star && fuzz_same_row(u, &again.update));
	must(core_update_cmp(u, &again.update) == 0);
	text2 = text_of(&again.update, &len2);
	must(len2 == len && memcmp(text, text2, len) == 0);
	core_row_scratch_free(&scratch);
	free(text);
	free(text2);
}

/* Two lines, so that the scratch of the first is used again; their order is one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct core_row_scratch scratch[2] = {{0}};
	struct fuzz_in in = {.p = data, .left = size};
	struct core_row row[2];
	bool good[2] = {false, false};
	char *line[2], quoted[CORE_QUOTE_LEN];
	size_t len[2];

	for (int i = 0; i < 2; i++) {
		const uint8_t *nl = memchr(in.p, '\n', in.left);
		struct kv_err err;
		enum kv_rc rc;

		line[i] = fuzz_copy(&in, nl != NULL ? (size_t)(nl - in.p) : in.left, &len[i]);
		fuzz_u8(&in);
		rc = core_row_parse(line[i], len[i], &scratch[0], &row[i], &err);
		must(rc == KV_OK || rc == KV_BAD_SYNTAX || rc == KV_ROW_TOO_LARGE);
		good[i] = fuzz_said(rc, &err);
		if (good[i]) {
			must(!row[i].star || row[i].update.time == 0);
			check_row(&row[i].update);
			must(core_row_parse(line[i], len[i], &scratch[i], &row[i], &err) == KV_OK);
		}
		must(strlen(core_quote(line[i], len[i], quoted)) < CORE_QUOTE_LEN);
	}
	if (good[0] && good[1]) {
		must(core_row_parse(line[0], len[0], &scratch[0], &row[0], NULL) == KV_OK);
		int order = core_update_cmp(&row[0].update, &row[1].update);
		int back = core_update_cmp(&row[1].update, &row[0].update);

		must((order < 0) == (back > 0) && (order == 0) == (back == 0));
	}
	for (int i = 0; i < 2; i++) {
		core_row_scratch_free(&scratch[i]);
		free(line[i]);
	}
	return 0;
}
