/* metrics.c - /metrics: that its text keeps the rules of Prometheus, and that it counts what happens. */
#include "tests/fs/fixture.h"

#include <inttypes.h>
#include <math.h>
#include <sys/syscall.h>

/* --- the rules ------------------------------------------------------------------------------------- */

enum { SERIES_MAX = 4000, NAME_LEN = 96, KEY_LEN = 256 };

enum type { NO_TYPE, COUNTER, GAUGE, HISTOGRAM };

struct series {
	char key[KEY_LEN]; /* name and labels, as they stand */
	enum type type;    /* of its family; of a histogram all but _sum only grow too */
	double value;
};

/* The text of a read, parsed. */
struct parsed {
	struct series all[SERIES_MAX];
	size_t count;
	char family[NAME_LEN]; /* the one whose samples come now */
	enum type type;
	char seen[SERIES_MAX][NAME_LEN]; /* families */
	size_t seen_count;
	/* of the histogram whose buckets come now, by its labels */
	char labels[KEY_LEN];
	double le, cumulative, sum_count;
	bool has_inf;
};

static struct parsed first, second; /* large */

static bool ends(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

/* The length of the name that text begins with. */
static size_t name_len(const char *text)
{
	static const char first_of[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";

	if (strspn(text, first_of) == 0)
		return 0;
	return strspn(text,
		      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"); /* no colons */
}

static void want_unit(const char *name)
{
	static const char *const others[] = {
		"_ms",  "_us", "_ns",  "_milliseconds", "_microseconds", "_minutes",   "_hours",  "_kb",
		"_kib", "_mb", "_mib", "_gb",           "_kilobytes",    "_megabytes", "_percent"};
	static const char *const types[] = {"_counter", "_gauge", "_histogram", "_count", "_sum", "_bucket"};
	char base[NAME_LEN];

	snprintf(base, sizeof base, "%s", name);
	if (ends(base, "_total"))
		base[strlen(base) - strlen("_total")] = '\0';
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		ck_assert_msg(!ends(base, others[i]), "%s is not in a base unit", name);
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		ck_assert_msg(!ends(base, types[i]), "%s has its type in its name", name);
}

/* # HELP name text */
static void take_help(struct parsed *p, const char *line)
{
	const char *name = line + strlen("# HELP ");
	size_t len = name_len(name);

	ck_assert_msg(len != 0 && len < NAME_LEN && name[len] == ' ', "%s", line);
	ck_assert_msg(p->type != NO_TYPE || p->seen_count == 0, "%s: no TYPE for the one before", line);
	snprintf(p->family, sizeof p->family, "%.*s", (int)len, name);
	p->type = NO_TYPE;
	for (size_t i = 0; i < p->seen_count; i++)
		ck_assert_msg(strcmp(p->seen[i], p->family) != 0, "%s stands twice", p->family);
	ck_assert_uint_lt(p->seen_count, SERIES_MAX);
	strcpy(p->seen[p->seen_count++], p->family);
	ck_assert_msg(name[len + 1] != '\0' && name[len + 1] != ' ' && ends(name, "."), "%s", line);
	ck_assert_msg(strncmp(name, "shardfs_", 8) == 0 || strncmp(name, "process_", 8) == 0, "%s", line);
	want_unit(p->family);
}

/* # TYPE name type, of the family whose HELP was before */
static void take_type(struct parsed *p, const char *line)
{
	static const char *const types[] = {
		[COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram"};
	char want[2 * NAME_LEN];

	ck_assert_msg(p->type == NO_TYPE, "%s: twice", line);
	for (int t = COUNTER; t <= HISTOGRAM; t++) {
		snprintf(want, sizeof want, "# TYPE %s %s", p->family, types[t]);
		if (strcmp(line, want) == 0)
			p->type = (enum type)t;
	}
	ck_assert_msg(p->type != NO_TYPE, "%s", line);
	ck_assert_msg((p->type == COUNTER) == ends(p->family, "_total"),
		      "%s: counters end in _total, others do not", line);
	p->labels[0] = '\0';
	p->has_inf = true;
}

/* {name="value",...}: le's value to *le (NaN: none), the others copied to rest. Returns what follows. */
static const char *take_labels(const char *at_brace, double *le, char rest[KEY_LEN])
{
	const char *p = at_brace;
	size_t used = 0;

	*le = NAN;
	rest[0] = '\0';
	if (*p != '{')
		return p;
	do {
		size_t len = name_len(++p);
		const char *value = p + len + 2, *end;

		ck_assert_msg(len != 0 && strncmp(p + len, "=\"", 2) == 0, "%s", at_brace);
		end = strchr(value, '"');
		ck_assert_msg(end != NULL && memchr(value, '\\', (size_t)(end - value)) == NULL, "%s",
			      at_brace);
		if (strncmp(p, "le=", 3) == 0)
			*le = strncmp(value, "+Inf\"", 5) == 0 ? INFINITY : strtod(value, NULL);
		else
			used += (size_t)snprintf(rest + used, KEY_LEN - used, "%.*s,", (int)(end - p), p);
		p = end + 1;
	} while (*p == ',');
	ck_assert_msg(*p == '}', "%s", at_brace);
	return p + 1;
}

/* A sample of a histogram: buckets ascend and are cumulative, +Inf, then _sum, then _count, which is +Inf's.
 */
static void take_histogram(struct parsed *p, const char *suffix, double le, const char *labels, double value)
{
	if (strcmp(suffix, "_bucket") == 0) {
		if (p->has_inf || strcmp(p->labels, labels) != 0) { /* the next one's first */
			ck_assert_msg(p->has_inf, "%s %s has no +Inf", p->family, p->labels);
			strcpy(p->labels, labels);
			p->le = -INFINITY;
			p->cumulative = 0;
			p->has_inf = false;
		}
		ck_assert_msg(le > p->le && value >= p->cumulative, "%s %s le=%g", p->family, labels, le);
		p->le = le;
		p->cumulative = value;
		p->has_inf = isinf(le);
		return;
	}
	ck_assert_msg(isnan(le) && p->has_inf && strcmp(p->labels, labels) == 0, "%s%s", p->family, suffix);
	if (strcmp(suffix, "_count") == 0)
		ck_assert_msg(value == p->cumulative, "%s %s: %g, not %g", p->family, labels, value,
			      p->cumulative);
	else
		ck_assert_msg(strcmp(suffix, "_sum") == 0, "%s%s", p->family, suffix);
}

static void take_sample(struct parsed *p, const char *line)
{
	size_t len = name_len(line), family_len = strlen(p->family);
	struct series *s = &p->all[p->count++];
	char suffix[NAME_LEN], labels[KEY_LEN], *end;
	const char *rest;
	double le;

	ck_assert_uint_lt(p->count, SERIES_MAX);
	ck_assert_msg(p->type != NO_TYPE && len >= family_len && strncmp(line, p->family, family_len) == 0,
		      "%s: not of the family %s", line, p->family);
	snprintf(suffix, sizeof suffix, "%.*s", (int)(len - family_len), line + family_len);
	rest = take_labels(line + len, &le, labels);
	ck_assert_msg(rest[0] == ' ' && rest[1] != ' ', "%s", line);
	s->value = strtod(rest + 1, &end);
	ck_assert_msg(*end == '\0' && s->value >= 0 && isfinite(s->value), "%s", line);
	snprintf(s->key, sizeof s->key, "%.*s", (int)(rest - line), line);
	s->type = p->type;
	if (p->type == HISTOGRAM)
		take_histogram(p, suffix, le, labels, s->value);
	else
		ck_assert_msg(suffix[0] == '\0' && isnan(le), "%s", line);
	for (size_t i = 0; i + 1 < p->count; i++)
		ck_assert_msg(strcmp(p->all[i].key, s->key) != 0, "%s stands twice", s->key);
}

static void parse(struct parsed *p)
{
	char *text = slurp(at(w.mnt, "metrics")), *line = text, *nl;

	p->count = p->seen_count = 0;
	p->type = NO_TYPE;
	ck_assert(ends(text, "\n"));
	for (; (nl = strchr(line, '\n')) != NULL; line = nl + 1) {
		*nl = '\0';
		if (strncmp(line, "# HELP ", 7) == 0)
			take_help(p, line);
		else if (strncmp(line, "# TYPE ", 7) == 0)
			take_type(p, line);
		else
			take_sample(p, line);
	}
	ck_assert_int_eq(*line, '\0');
	free(text);
}

static const struct series *find(const struct parsed *p, const char *key)
{
	for (size_t i = 0; i < p->count; i++)
		if (strcmp(p->all[i].key, key) == 0)
			return &p->all[i];
	return NULL;
}

static double value(const struct parsed *p, const char *key)
{
	const struct series *s = find(p, key);

	ck_assert_msg(s != NULL, "%s is not there", key);
	return s->value;
}

/* By how much it grew from the first to the second. */
static double grew(const char *key)
{
	return value(&second, key) - value(&first, key);
}

/* --- work ------------------------------------------------------------------------------------------ */

static void work(void)
{
	free(slurp(at(shard, "snapshot")));
	want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n");
	want_txn(shard, "begin expected_upper=* new_upper=+1\n*\t1\ta\tb\ncommit\n");
	ck_errno(txn(shard, "begin expected_upper=0 new_upper=1\ncommit\n"), ESTALE);
	free(slurp(at(shard, "state")));
	free(want_sh("ls -lR %s; df %s; cp %s/upper %s/upper; echo x | cat > %s/batches/x; rm %s/batches/x",
		     w.mnt, w.mnt, shard, w.dir, shard, shard));
	ck_errno(write_once(at(shard, "ctl"), "compact\n"), 0);
}

START_TEST(it_keeps_the_rules_of_the_format)
{
	parse(&first);
	ck_assert_uint_gt(first.count, 300);
	work();
	parse(&second);
	ck_assert_uint_eq(first.count, second.count); /* every series is there from the start */
}
END_TEST

START_TEST(counters_never_go_back)
{
	parse(&first);
	work();
	parse(&second);
	for (size_t i = 0; i < first.count; i++) {
		const struct series *a = &first.all[i];

		if (a->type != GAUGE)
			ck_assert_msg(value(&second, a->key) >= a->value, "%s", a->key);
	}
}
END_TEST

START_TEST(another_parser_takes_it_too)
{
	char *out;

	work();
	/* Debian's python3 has it, whichever one comes first in PATH */
	out = want_sh("/usr/bin/python3 -c 'import sys\n"
		      "from prometheus_client.parser import text_string_to_metric_families as parse\n"
		      "all = list(parse(open(sys.argv[1]).read()))\n"
		      "assert len(all) > 60 and all[0].name == \"shardfs_build_info\", all[0]\n"
		      "assert not [m for m in all if m.type == \"unknown\" or not m.documentation or not "
		      "m.samples]\n"
		      "print(sum(len(m.samples) for m in all))' %s/metrics",
		      w.mnt);
	parse(&first);
	ck_assert_int_eq(atoi(out), (int)first.count);
	free(out);
}
END_TEST

/* --- what it counts -------------------------------------------------------------------------------- */

static unsigned lookups(void)
{
	static const char key[] = "shardfs_fuse_requests_total{op=\"lookup\"} ";
	char *text = slurp(at(w.mnt, "metrics")), *line = strstr(text, key);
	unsigned count;

	ck_assert_ptr_nonnull(line);
	count = (unsigned)atoi(line + strlen(key));
	free(text);
	return count;
}

/* As a shell does it. The close before may not have come to its end, and directories are looked up again
 * after a second: so as a rule. */
START_TEST(an_append_that_is_opened_each_time_is_looked_up_once)
{
	unsigned once = 0, more = 0;

	while (once + more < 21) {
		unsigned before = lookups();
		int fd = append_open(shard);

		if (lookups() == before + 1)
			once++;
		else
			more++;
		close(fd);
		usleep(2000);
	}
	ck_assert_uint_gt(once, more);
}
END_TEST

START_TEST(requests_bytes_and_errors_are_counted)
{
	static const char text[] = "begin expected_upper=0 new_upper=1\n0\t1\ta\tb\ncommit\n";
	int fd = append_open(shard);
	char buf[64];

	parse(&first);
	ck_assert_int_eq(put(fd, text), strlen(text));
	ck_assert_int_eq(put(fd, text), -ESTALE);
	do /* the reply comes before the note of its time */
		parse(&second);
	while (grew("shardfs_fuse_request_seconds_count{op=\"write\"}") < 2);
	ck_assert(grew("shardfs_fuse_requests_total{op=\"write\"}") == 2);
	ck_assert(grew("shardfs_fuse_request_seconds_count{op=\"write\"}") == 2);
	ck_assert(grew("shardfs_fuse_request_seconds_sum{op=\"write\"}") > 0);
	ck_assert(grew("shardfs_written_bytes_total") == (double)strlen(text));
	ck_assert(grew("shardfs_errors_total{reason=\"UpperMismatch\"}") == 1);
	close(fd);

	fd = open(at(shard, "snapshot"), O_RDONLY);
	parse(&first);
	ck_assert_int_eq(read(fd, buf, sizeof buf), 8);
	parse(&second);
	/* and the text of the first itself, until its end is seen */
	ck_assert(grew("shardfs_read_bytes_total") > 8 + 1000);
	ck_assert(grew("shardfs_fuse_requests_total{op=\"read\"}") >= 3);
	close(fd);
	ck_fails(mkdir(at(w.mnt, "shard/x"), 0777), EINVAL);
	ck_fails(rename(at(shard, "upper"), at(w.mnt, "name/x")), EPERM);
	parse(&first);
	ck_assert(value(&first, "shardfs_errors_total{reason=\"InvalidName\"}") == 1);
	ck_assert(value(&first, "shardfs_errors_total{reason=\"NotSupportedHere\"}") == 1);
}
END_TEST

static int read_wait(void *path)
{
	char *text = slurp_rc(path);

	return text != NULL ? 0 : errno;
}

START_TEST(a_read_that_waits_is_a_gauge_and_no_latency)
{
	char *path = check_path(shard, "wait/0");
	uint64_t since = 0;
	pid_t pid;

	parse(&first);
	ck_assert(value(&first, "shardfs_waiting_reads") == 0);
	pid = spawn(read_wait, path);
	do /* it is in the system call a moment before it is with us */
		parse(&second);
	while (value(&second, "shardfs_waiting_reads") == 0 && until_deadline(&since));
	ck_assert(value(&second, "shardfs_waiting_reads") == 1);
	ck_assert(value(&second, "shardfs_open_files") >= 1);
	usleep(100000);
	want_txn(shard, "begin expected_upper=0 new_upper=1\ncommit\n");
	ck_errno(join(pid), 0);
	parse(&second);
	ck_assert(value(&second, "shardfs_waiting_reads") == 0);
	ck_assert(value(&second, "shardfs_fuse_requests_total{op=\"read\"}") >
		  value(&second, "shardfs_fuse_request_seconds_count{op=\"read\"}"));
	ck_assert(grew("shardfs_fuse_request_seconds_sum{op=\"read\"}") < 0.1);
	free(path);
}
END_TEST

START_TEST(a_batch_that_was_read_is_read_again_without_asking_the_mount)
{
	enum { ROWS = 4000, VAL = 1000, FEW = 20 };
	char *text = malloc(ROWS * (VAL + 32) + 128), *p = text, buf[4096];
	size_t pieces = 0;
	int fd;

	p += sprintf(p, "begin expected_upper=0 new_upper=1\n");
	for (int i = 0; i < ROWS; i++)
		p += sprintf(p, "0\t1\t%d\t%0*d\n", i, VAL, i);
	strcpy(p, "commit\n");
	want_txn(shard, text);
	free(text);
	free(slurp(at(shard, "batches/0-1")));
	parse(&first);
	fd = open(at(shard, "batches/0-1"), O_RDONLY);
	for (ssize_t n = 1; n > 0; pieces++) {
		n = read(fd, buf, sizeof buf);
		ck_assert_int_ge(n, 0);
	}
	close(fd);
	parse(&second);
	ck_assert_uint_gt(pieces, 50 * FEW / 2);
	/* those of reading /metrics among them */
	ck_assert(grew("shardfs_fuse_requests_total{op=\"read\"}") < FEW);
	ck_assert(grew("shardfs_fuse_requests_total{op=\"getattr\"}") < FEW);
}
END_TEST

START_TEST(the_process_is_told_under_the_usual_names)
{
	struct stat st;

	parse(&first);
	ck_assert(value(&first, "process_resident_memory_bytes") > 1 << 20);
	ck_assert(value(&first, "process_virtual_memory_bytes") >
		  value(&first, "process_resident_memory_bytes"));
	ck_assert(value(&first, "process_open_fds") > 3);
	ck_assert(value(&first, "process_open_fds") < value(&first, "process_max_fds"));
	ck_assert(value(&first, "process_cpu_seconds_total") > 0);
	ck_works(stat(w.dir, &st));
	ck_assert(fabs(value(&first, "process_start_time_seconds") - (double)st.st_ctime) < 60);
	ck_assert(value(&first, "shardfs_store_size_bytes") >= value(&first, "shardfs_store_free_bytes"));
	ck_assert_int_eq(strncmp(first.all[0].key, "shardfs_build_info{version=\"", 28), 0);
	ck_assert(first.all[0].value == 1);
}
END_TEST

START_TEST(its_content_is_fixed_at_the_open)
{
	char a[64], b[64];
	struct stat st;
	int fd = open(at(w.mnt, "metrics"), O_RDONLY), fd2;
	char *path = check_path(w.mnt, "metrics"), *text, *whole;
	size_t len = 0;
	ssize_t n;

	ck_assert_int_ge(fd, 0);
	ck_works(fstat(fd, &st));
	ck_assert(S_ISREG(st.st_mode) && st.st_size == 0 && (st.st_mode & 0777) == 0444);
	whole = calloc(1, 1 << 20);
	while ((n = read(fd, whole + len, 4096)) > 0) {
		len += (size_t)n;
		work();
	}
	text = calloc(1, len + 1);
	ck_assert_int_eq(pread(fd, text, len + 1, 0), len);
	ck_assert_str_eq(text, whole);
	fd2 = open(path, O_RDONLY);
	ck_assert_int_eq(pread(fd, a, sizeof a, 0), sizeof a);
	ck_assert_int_eq(pread(fd2, b, sizeof b, 0), sizeof b);
	close(fd);
	close(fd2);
	ck_fails(open(path, O_WRONLY), EPERM);
	ck_fails(unlink(path), EPERM);
	ck_fails(truncate(path, 0), EPERM);
	free(text);
	free(whole);
	free(path);
}
END_TEST

START_TEST(a_mount_for_reading_tells_it_too)
{
	want_txn(shard, "begin expected_upper=0 new_upper=1\ncommit\n");
	world_stop(&w);
	world_start(&w, "ro");
	want_file(shard, "upper", "1\n");
	parse(&first);
	ck_assert(value(&first, "shardfs_fuse_requests_total{op=\"open\"}") >= 1);
}
END_TEST

Suite *metrics_suite(void)
{
	Suite *s = suite_create("metrics");
	TCase *tc = shard_case(s, "metrics", 60);

	tcase_add_test(tc, it_keeps_the_rules_of_the_format);
	tcase_add_test(tc, counters_never_go_back);
	tcase_add_test(tc, another_parser_takes_it_too);
	tcase_add_test(tc, an_append_that_is_opened_each_time_is_looked_up_once);
	tcase_add_test(tc, requests_bytes_and_errors_are_counted);
	tcase_add_test(tc, a_read_that_waits_is_a_gauge_and_no_latency);
	tcase_add_test(tc, a_batch_that_was_read_is_read_again_without_asking_the_mount);
	tcase_add_test(tc, the_process_is_told_under_the_usual_names);
	tcase_add_test(tc, its_content_is_fixed_at_the_open);
	tcase_add_test(tc, a_mount_for_reading_tells_it_too);
	return s;
}
