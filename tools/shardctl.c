/*
 * shardctl - look at a store without a mount, check it, mend it, carry shards away and bring them back.
 *
 * Here: words and options, opening the store, and how it ends. What reads may run beside a mount, and sees a
 * past state, as kv/store.h says; fsck --repair and import need the store for themselves.
 */
#include "tools/shardctl.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char exits[] =
	"Exit status: 0 all is well; 1 something is wrong with the store, or failed; 2 wrong usage;\n"
	"3 another process has the store, or changes it too fast; 4 no such store, shard or time;\n"
	"5 what is to be imported is no whole export; 6 what is to be made is there already.\n";

struct command {
	const char *name;
	int (*run)(struct ctl *c);
	int least; /* arguments behind STORE */
	int most;
	const char *options; /* letters of those it takes */
	const char *usage;
	const char *help;
};

static const struct command commands[] = {
	{
		"ls",
		ctl_ls,
		0,
		0,
		"j",
		"ls [--json] STORE",
		"the shards, one line each",
	},
	{"state", ctl_state, 1, 1, "j", "state [--json] STORE SHARD", "what is known of a shard"},
	{"cat", ctl_cat, 1, 2, "j", "cat [--json] STORE SHARD [TIME]",
	 "what a shard holds as of TIME, or of the latest complete one"},
	{"fsck", ctl_fsck, 0, 0, "jvrd", "fsck [--json] [-v] [--repair [--drop-damaged]] STORE",
	 "check every byte that is stored, and mend what can be"},
	{"export", ctl_export, 0, 1 << 20, "jzo", "export [-z] [-o FILE] [--json] STORE [SHARD...]",
	 "write shards, or all of them, to FILE or stdout"},
	{"import", ctl_import, 0, 1, "jas", "import [--as ID] [--skip-existing] [--json] STORE [FILE]",
	 "make the shards of an export (FILE or stdin)"},
};

static const char *const details[] = {
	/* as commands */
	"  --json  one document a line: shard, since, upper, batches, updates, bytes, names\n"
	"A shard that cannot be loaded is told on stderr, and the others are listed all the same.\n",
	"  --json  one document\nSHARD is an id (s...) or a name.\n",
	"  --json  one document a line: time, diff, key, val\n"
	"SHARD is an id (s...) or a name. Rows are those of the file snapshot, sorted and summed.\n"
	"TIME is a number from the shard's since on, below its upper.\n",
	"  --json          one document a line: each finding, each repair, and last a summary\n"
	"  -v, --verbose   lists notes too: what is there in vain, and harms nothing\n"
	"  --repair        mend what can be without losing anything that can be read: write broken rollups\n"
	"                  anew, delete blobs that nobody names. Not beside a mount\n"
	"  --drop-damaged  with --repair: write batches with damaged parts anew without the updates that "
	"cannot be\n"
	"                  read, remove staged batches that cannot be, forget names that cannot be. It tells "
	"what is\n"
	"                  lost, and notes it in STORE/REPAIRS\n"
	"Exit status 1 if damage is left.\n",
	"  -o, --output FILE  write FILE, which appears when it is whole; else stdout\n"
	"  -z, --zstd         compressed; import sees that by itself\n"
	"  --json             a summary, on stdout with -o, else on stderr\n"
	"SHARD is an id (s...) or a name; none: all shards, and all names. docs/shardctl.md tells the "
	"format.\n"
	"Each shard is as of one version, all of them as of one moment, unless the summary says otherwise.\n",
	"  --as ID          the only shard of FILE gets this id; its names are left out\n"
	"  --skip-existing  leave shards alone that are there; else nothing is done if one is\n"
	"  --json           a summary\n"
	"FILE is read twice: nothing is made before all of it was checked. A STORE that is missing is made.\n"
	"Without FILE, or with -, stdin is read. Not beside a mount.\n",
};

static const struct option long_options[] = {
	{"json", no_argument, NULL, 'j'},     {"verbose", no_argument, NULL, 'v'},
	{"repair", no_argument, NULL, 'r'},   {"drop-damaged", no_argument, NULL, 'd'},
	{"zstd", no_argument, NULL, 'z'},     {"output", required_argument, NULL, 'o'},
	{"as", required_argument, NULL, 'a'}, {"skip-existing", no_argument, NULL, 's'},
	{"help", no_argument, NULL, 'h'},     {0},
};

/* --- words ----------------------------------------------------------------------------------------- */

static void print_usage(FILE *to)
{
	fputs("usage: shardctl COMMAND [OPTION...] STORE [...]\n", to);
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		fprintf(to, "  %-62s %s\n", commands[i].usage, commands[i].help);
	fputs("`shardctl COMMAND --help` tells more, `shardctl --version` the version.\n", to);
	fputs(exits, to);
}

static void print_help(const struct command *command)
{
	printf("usage: shardctl %s\n%s\n%s%s", command->usage, command->help, details[command - commands],
	       exits);
}

static int misused(const struct command *command, const char *why)
{
	if (why != NULL)
		fprintf(stderr, "shardctl: %s\n", why);
	fprintf(stderr, "usage: shardctl %s\n", command->usage);
	return CTL_USAGE;
}

static void set_option(struct ctl *c, int letter)
{
	c->json = c->json || letter == 'j';
	c->verbose = c->verbose || letter == 'v';
	c->repair = c->repair || letter == 'r';
	c->drop_damaged = c->drop_damaged || letter == 'd';
	c->compress = c->compress || letter == 'z';
	c->skip_existing = c->skip_existing || letter == 's';
	if (letter == 'o')
		c->output = optarg;
	if (letter == 'a')
		c->as = optarg;
}

/* -1: to be run; else how it ends. */
static int parse(const struct command *command, int argc, char **argv, struct ctl *c)
{
	int letter;

	while ((letter = getopt_long(argc, argv, "hvzo:", long_options, NULL)) != -1) {
		if (letter == 'h') {
			print_help(command);
			return ctl_printed();
		}
		if (letter == '?')
			return misused(command, NULL);
		if (strchr(command->options, letter) == NULL)
			return misused(command, "this command does not have that option");
		set_option(c, letter);
	}
	if (optind == argc)
		return misused(command, "which store?");
	c->dir = argv[optind];
	c->args = argv + optind + 1;
	c->arg_count = argc - optind - 1;
	if (c->arg_count < command->least || c->arg_count > command->most)
		return misused(command, c->arg_count < command->least ? "which shard?" : "too many words");
	if (c->drop_damaged && !c->repair)
		return misused(command, "--drop-damaged goes with --repair");
	return -1;
}

/* --- the store ------------------------------------------------------------------------------------- */

int ctl_open(struct ctl *c, bool own, bool make, const char *purpose)
{
	const struct core_engine_config config = {.purpose = purpose, .no_upkeep = true};
	struct kv_store *store;
	struct kv_err err;
	char *format = NULL;
	bool there;

	if (asprintf(&format, "%s/FORMAT", c->dir) < 0)
		return CTL_WRONG;
	there = access(format, F_OK) == 0;
	free(format);
	if (own && !make && !there) {
		fprintf(stderr, "shardctl: there is no store in %s\n", c->dir);
		return CTL_ABSENT;
	}
	if (kv_store_embedded_open(c->dir, !own, purpose, &store, &err) != KV_OK ||
	    core_engine_open(store, &config, &c->engine, &err) != KV_OK)
		return ctl_fail(&err);
	return CTL_OK;
}

int ctl_shard_id(struct ctl *c, const char *word, struct core_shard_id *out)
{
	struct core_name name;
	struct kv_err err;

	if (core_uuid_parse('s', word, strlen(word), &out->u))
		return CTL_OK;
	if (core_name_get(c->engine, word, &name, &err) != KV_OK) {
		if (err.rc == KV_NOTFOUND)
			kv_fail(&err, KV_NOTFOUND, "%.200s is neither the id nor the name of a shard", word);
		return ctl_fail(&err);
	}
	*out = name.target;
	return CTL_OK;
}

/* --- how it ends ----------------------------------------------------------------------------------- */

int ctl_status_of(enum kv_rc rc)
{
	if (rc == KV_OK)
		return CTL_OK;
	if (rc == KV_BUSY || rc == KV_GONE)
		return CTL_BUSY;
	if (rc == KV_NOTFOUND || rc == KV_NO_SHARD || rc == KV_COMPACTED || rc == KV_WOULD_BLOCK)
		return CTL_ABSENT;
	if (rc == KV_BAD_SYNTAX)
		return CTL_INPUT;
	return rc == KV_SHARD_EXISTS ? CTL_EXISTS : CTL_WRONG;
}

int ctl_fail(const struct kv_err *err)
{
	fprintf(stderr, "shardctl: %s\n", err->msg);
	return ctl_status_of(err->rc);
}

int ctl_printed(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return CTL_OK;
	fprintf(stderr, "shardctl: not all of it could be written\n");
	return CTL_WRONG;
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";
	struct ctl c = {0};
	int status;

	if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
		print_usage(stdout);
		return ctl_printed();
	}
	if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0) {
		puts("shardctl " SHARDFS_VERSION);
		return ctl_printed();
	}
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(word, commands[i].name) != 0)
			continue;
		status = parse(&commands[i], argc - 1, argv + 1, &c);
		if (status >= 0)
			return status;
		status = commands[i].run(&c);
		core_engine_close(c.engine);
		return status;
	}
	if (word[0] != '\0')
		fprintf(stderr, "shardctl: no command is called %.40s\n", word);
	print_usage(stderr);
	return CTL_USAGE;
}
