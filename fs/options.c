/*
 * options.c - see options.h.
 *
 * Three kinds of -o options: ours (uid=, gid=, umask=, max_background=, max_user_open=,
 * max_open=); those
 * that fstab, mount(8) and systemd put there for themselves, which mean nothing
 * to a file system and are dropped; and the kernel's and libfuse's, which are
 * handed on. What nobody knows is refused by fuse_session_new.
 */
#include "fs/options.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char fs_usage[] =
	"usage: shardfs [options] STORE MOUNTPOINT\n"
	"Mount the shards of STORE, a directory (made if it is missing), on MOUNTPOINT.\n"
	"\n"
	"  -f                 stay in the foreground\n"
	"  -o OPT[,OPT...]    ro, allow_other, uid=N, gid=N, umask=M, fsname=S, nosuid, nodev,\n"
	"                     noexec, noatime, max_background=N, max_user_open=N, max_open=N,\n"
	"                     and what fstab needs (_netdev ...)\n"
	"  -h, --help         this\n"
	"  -V, --version      the version\n"
	"\n"
	"It returns once the mount answers. Stop it with umount MOUNTPOINT, or TERM.\n";

enum { KEY_FOREGROUND, KEY_HELP, KEY_VERSION, KEY_RO, KEY_DROP };

struct parsed {
	struct fs_command *command;
	unsigned uid;
	unsigned gid;
	unsigned umask;
	unsigned max_background;
	unsigned max_user_open;
	unsigned max_open;
	char *fsname;
	unsigned words;
};

#define OURS(text, field)                               \
	{                                               \
		text, offsetof(struct parsed, field), 1 \
	}
#define KEY(text, key)                             \
	{                                          \
		text, (unsigned long)UINT_MAX, key \
	} /* FUSE_OPT_KEY, without its narrowing */

static const struct fuse_opt spec[] = {
	KEY("-f", KEY_FOREGROUND),
	KEY("-h", KEY_HELP),
	KEY("--help", KEY_HELP),
	KEY("-V", KEY_VERSION),
	KEY("--version", KEY_VERSION),
	OURS("uid=%u", uid),
	OURS("gid=%u", gid),
	OURS("umask=%o", umask),
	OURS("max_background=%u", max_background),
	OURS("max_user_open=%u", max_user_open),
	OURS("max_open=%u", max_open),
	OURS("fsname=%s", fsname),
	KEY("ro", KEY_RO),
	KEY("_netdev", KEY_DROP),
	KEY("auto", KEY_DROP),
	KEY("noauto", KEY_DROP),
	KEY("nofail", KEY_DROP),
	KEY("user", KEY_DROP),
	KEY("nouser", KEY_DROP),
	KEY("users", KEY_DROP),
	KEY("owner", KEY_DROP),
	KEY("group", KEY_DROP),
	KEY("defaults", KEY_DROP),
	KEY("relatime", KEY_DROP),
	KEY("norelatime", KEY_DROP),
	KEY("strictatime", KEY_DROP),
	KEY("nostrictatime", KEY_DROP),
	KEY("lazytime", KEY_DROP),
	KEY("nolazytime", KEY_DROP),
	KEY("diratime", KEY_DROP),
	KEY("nodiratime", KEY_DROP),
	KEY("silent", KEY_DROP),
	KEY("loud", KEY_DROP),
	KEY("mand", KEY_DROP),
	KEY("nomand", KEY_DROP),
	KEY("default_permissions", KEY_DROP), /* always on */
	FUSE_OPT_END,
};

static bool starts(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* 0: dropped, 1: handed on to the session, -1: too many words. */
static int take(void *data, const char *arg, int key, struct fuse_args *out)
{
	struct parsed *p = data;
	struct fs_command *c = p->command;

	(void)out;
	switch (key) {
	case KEY_FOREGROUND:
		c->foreground = true;
		return 0;
	case KEY_HELP:
		c->help = true;
		return 0;
	case KEY_VERSION:
		c->version = true;
		return 0;
	case KEY_RO:
		c->options.read_only = true;
		return 1;
	case KEY_DROP:
		return 0;
	case FUSE_OPT_KEY_NONOPT:
		p->words++;
		if (p->words > 2)
			return -1;
		if (p->words == 1)
			c->options.store = strdup(arg);
		else
			c->options.mountpoint = strdup(arg);
		return 0;
	default:
		return starts(arg, "x-") || starts(arg, "comment=") ? 0 : 1;
	}
}

bool fs_command_complete(struct fs_command *c)
{
	const char *fsname = c->fsname != NULL ? c->fsname : c->options.store;
	char *opts = NULL;
	char *named = NULL;
	bool ok;

	ok = fuse_opt_add_opt(&opts, "default_permissions,subtype=shardfs") == 0 &&
	     asprintf(&named, "fsname=%s", fsname) >= 0 && fuse_opt_add_opt_escaped(&opts, named) == 0 &&
	     fuse_opt_add_arg(&c->session_args, "-o") == 0 && fuse_opt_add_arg(&c->session_args, opts) == 0;
	free(named);
	free(opts);
	return ok;
}

/* libfuse prints a line of its own beside our sentence. */
static void no_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)fmt;
	(void)ap;
}

bool fs_command_parse(int argc, char **argv, struct fs_command *out, char why[512])
{
	struct parsed p = {.command = out, .uid = getuid(), .gid = getgid(), .umask = 0};
	struct fuse_args given = FUSE_ARGS_INIT(argc, argv);
	bool ok = false;

	*out = (struct fs_command){0};
	fuse_set_log_func(no_log);
	if (fuse_opt_parse(&given, &p, spec, take) != 0) {
		snprintf(why, 512,
			 p.words > 2 ? "more than a STORE and a MOUNTPOINT were given; see shardfs --help"
				     : "an option has no proper value; see shardfs --help");
		goto out;
	}
	out->session_args = given;
	given = (struct fuse_args)FUSE_ARGS_INIT(0, NULL);
	out->options.uid = p.uid;
	out->options.gid = p.gid;
	out->options.umask = p.umask;
	out->options.max_user_open = p.max_user_open;
	out->options.max_open = p.max_open;
	out->max_background = p.max_background;
	if (out->help || out->version) {
		ok = true;
		goto out;
	}
	if (out->options.store == NULL || out->options.mountpoint == NULL) {
		snprintf(why, 512, "a STORE and a MOUNTPOINT are needed; see shardfs --help");
		goto out;
	}
	out->fsname = p.fsname;
	p.fsname = NULL;
	ok = true;
out:
	free(p.fsname);
	fuse_opt_free_args(&given);
	return ok;
}

void fs_command_fini(struct fs_command *c)
{
	free(c->options.store);
	free(c->options.mountpoint);
	free(c->fsname);
	fuse_opt_free_args(&c->session_args);
}
