/*
 * bench_etcd.c - the same work by etcd: a transaction that compares the upper's value and puts it and the
 * row.
 *
 * It goes over etcd's own gateway, JSON in a POST over a connection that is kept open: a little more than a
 * client with gRPC has to pay, and both are small beside its commit.
 */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench.h"

enum { ID = 40, BASE64_MAX = 128, BODY_MAX = 2048, ANSWER_MAX = 2048 };

struct etcd {
	CURL *curl;
	struct curl_slist *headers;
	char *url;
	char id[ID]; /* of the collection */
	char answer[ANSWER_MAX];
	size_t answer_len;
};

static void base64(const char *bytes, size_t len, char text[BASE64_MAX])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *p = text;

	for (size_t i = 0; i < len; i += 3) {
		uint32_t three = 0;

		for (size_t k = 0; k < 3; k++)
			three = three << 8 | (i + k < len ? (uint8_t)bytes[i + k] : 0);
		for (size_t k = 0; k < 4; k++)
			*p++ = k <= len - i ? digits[three >> (18 - 6 * k) & 63] : '=';
	}
	*p = '\0';
}

static size_t take(char *data, size_t one, size_t count, void *self)
{
	struct etcd *e = self;
	size_t len = one * count, room = sizeof e->answer - 1 - e->answer_len;

	memcpy(e->answer + e->answer_len, data, len < room ? len : room);
	e->answer_len += len < room ? len : room;
	return len;
}

/* The answer, as text. */
static const char *post(struct etcd *e, const char *body)
{
	CURLcode rc;

	e->answer_len = 0;
	curl_easy_setopt(e->curl, CURLOPT_POSTFIELDS, body);
	rc = curl_easy_perform(e->curl);
	if (rc != CURLE_OK)
		bench_die("etcd", curl_easy_strerror(rc));
	e->answer[e->answer_len] = '\0';
	return e->answer;
}

static bool etcd_there(const struct bench_place *place)
{
	return place->etcd != NULL;
}

/* If the upper is `expected`, it becomes the one behind it, and the row is put. "": there is no upper yet. */
static void commit(struct etcd *e, const char *expected, const char *upper, uint64_t i)
{
	char row[ID + 24], key[BENCH_KEY_LEN + 1], val[BENCH_VAL_LEN + 1], update[BASE64_MAX], body[BODY_MAX],
		upper_key[BASE64_MAX], row_key[BASE64_MAX], row_val[BASE64_MAX], old[BASE64_MAX],
		new[BASE64_MAX], compare[BODY_MAX / 4];
	int len = snprintf(row, sizeof row, "%s/%020" PRIu64, e->id, i);

	bench_key(i, key);
	bench_val(i, val);
	base64(row, (size_t)len, row_key);
	base64(e->id, strlen(e->id), upper_key);
	len = snprintf(update, sizeof update, "1\t%s\t%s", key, val);
	base64(update, (size_t)len, row_val);
	base64(expected, strlen(expected), old);
	base64(upper, strlen(upper), new);
	if (*expected == '\0')
		snprintf(compare, sizeof compare,
			 "{\"key\":\"%s\",\"target\":\"CREATE\",\"create_revision\":\"0\"}", upper_key);
	else
		snprintf(compare, sizeof compare, "{\"key\":\"%s\",\"target\":\"VALUE\",\"value\":\"%s\"}",
			 upper_key, old);
	snprintf(body, sizeof body,
		 "{\"compare\":[%s],\"success\":[{\"request_put\":{\"key\":\"%s\",\"value\":\"%s\"}},"
		 "{\"request_put\":{\"key\":\"%s\",\"value\":\"%s\"}}]}",
		 compare, upper_key, new, row_key, row_val);
	if (strstr(post(e, body), "\"succeeded\":true") == NULL)
		bench_die("etcd", e->answer);
}

static void *etcd_open(const struct bench_place *place, void *first)
{
	struct etcd *e = calloc(1, sizeof *e);
	FILE *f = fopen("/proc/sys/kernel/random/uuid", "re");

	(void)first;
	if (e == NULL || f == NULL || fgets(e->id, sizeof e->id, f) == NULL)
		bench_die_errno("etcd");
	fclose(f);
	e->id[strcspn(e->id, "\n")] = '\0';
	e->url = bench_path(place->etcd, "v3/kv/txn");
	e->curl = curl_easy_init();
	if (e->curl == NULL)
		bench_die("etcd", "no connection");
	e->headers = curl_slist_append(NULL, "Content-Type: application/json");
	e->headers = curl_slist_append(e->headers, "Expect:");
	curl_easy_setopt(e->curl, CURLOPT_HTTPHEADER, e->headers);
	curl_easy_setopt(e->curl, CURLOPT_URL, e->url);
	curl_easy_setopt(e->curl, CURLOPT_POST, 1L);
	curl_easy_setopt(e->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(e->curl, CURLOPT_FAILONERROR, 1L);
	curl_easy_setopt(e->curl, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(e->curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(e->curl, CURLOPT_WRITEDATA, e);
	return e;
}

static void etcd_one(void *self, uint64_t i)
{
	char expected[24] = "", upper[24];

	if (i != 0)
		snprintf(expected, sizeof expected, "%" PRIu64, i);
	snprintf(upper, sizeof upper, "%" PRIu64, i + 1);
	commit(self, expected, upper, i);
}

static void etcd_close(void *self)
{
	struct etcd *e = self;

	curl_easy_cleanup(e->curl);
	curl_slist_free_all(e->headers);
	free(e->url);
	free(e);
}

const struct bench_kind bench_etcd = {
	.name = "etcd, transaction, HTTP kept open",
	.tag = "etcd",
	.there = etcd_there,
	.open = etcd_open,
	.one = etcd_one,
	.close = etcd_close,
};
