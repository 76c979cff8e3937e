/* hostile_ordinary.c - a mount of an ordinary user: start, use, stop, and what a kill -9 leaves. */
#include "tests/fs/world.h"

/*
 * fusermount3 needs a /dev/fuse that all may open, as distributions have it, and user_allow_other; both are
 * put in place in a mount namespace of this script's own, where the mounts are made too. The user's id is
 * 4001.
 */
static const char as_root[] =
	"set -e; cd %s; mount --make-rprivate /; mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse "
	"/dev/fuse; "
	"echo user_allow_other > conf; mount --bind conf /etc/fuse.conf; cat /etc/passwd > pw; echo "
	"u4001:x:4001:4001::/:/bin/sh >> pw; mount --bind pw /etc/passwd; mkdir home; chown 4001:4001 home; "
	"install -m 755 %s home/shardfs; cp script home/; cd home; "
	"setpriv --reuid 4001 --regid 4001 --clear-groups env HOME=$PWD sh -e ./script; "
	"test -z \"$(grep home/mnt /proc/mounts)\"";

static const char script[] =
	"export PATH=$PWD:$PATH\n"
	"mkdir mnt\n"
	"serving() { sed 's/.*pid=\\([0-9]*\\) .*/\\1/' store/OWNER; }\n"
	"over() { case \"$(cut -d' ' -f3 /proc/$1/stat 2>/dev/null)\" in ''|Z) return 0;; esac; return 1; }\n"
	"ended() { i=0; while ! over $1 && [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done; over $1; }\n"
	"shardfs store mnt\n"
	"id=s$(cat /proc/sys/kernel/random/uuid)\n"
	"mkdir mnt/shard/$id; ln -s ../shard/$id mnt/name/fruit; cd mnt/name/fruit\n"
	"printf 'begin expected_upper=0 "
	"new_upper=1\\n0\\t1\\tapple\\tred\\n0\\t1\\tpear\\tgreen\\ncommit\\n' > append\n"
	"printf 'begin expected_upper=1 "
	"new_upper=2\\n1\\t-1\\tapple\\tred\\n1\\t1\\tapple\\tgold\\ncommit\\n' > append\n"
	"test \"$(cat upper)\" = 2\n"
	"test \"$(cat snapshot)\" = \"$(printf '1\\t1\\tapple\\tgold\\n1\\t1\\tpear\\tgreen')\"\n"
	"! (printf 'begin expected_upper=1 new_upper=2\\n1\\t1\\tplum\\tblue\\ncommit\\n' > append) "
	"2>/dev/null\n"
	"grep -q UpperMismatch errors\n"
	"printf '2\\t1\\tx\\ty\\n' > batches/b; echo compact > ctl; echo 0 > holds/h; chmod 700 .\n"
	"test $(stat -c %u .) = 4001\n"
	"cd - > /dev/null\n"
	"p=$(serving); fusermount3 -u mnt; ended $p\n"
	"shardfs -o allow_other store mnt\n"
	"test \"$(cat mnt/name/fruit/upper)\" = 2\n"
	"p=$(serving); kill -9 $p; ended $p\n"
	"! ls mnt 2>/dev/null\n"
	"shardfs -o allow_other store mnt\n" /* clears the dead mount */
	"test \"$(cat mnt/name/fruit/batches/b)\" = \"$(printf '2\\t1\\tx\\ty')\"\n"
	"p=$(serving); kill -TERM $p; ended $p\n"
	"! grep -q home/mnt /proc/mounts\n"
	"! shardfs -o allow_other store /etc 2> said\n" /* not his; fusermount3 says why, then we do */
	"test $(grep -c '^shardfs: ' said) = 1\n"
	"shardfs -o ro store mnt\n"
	"test \"$(cat mnt/name/fruit/upper)\" = 2\n"
	"fusermount3 -u mnt\n"
	"echo all done\n";

START_TEST(an_ordinary_user_starts_uses_and_stops_a_mount)
{
	struct world w;
	char *out;

	world_new(&w);
	check_write(at(w.dir, "script"), script);
	check_write(at(w.dir, "as_root"), "");
	FILE *f = fopen(at(w.dir, "as_root"), "we");

	ck_assert_ptr_nonnull(f);
	fprintf(f, as_root, w.dir, shardfs_path());
	fclose(f);
	out = want_sh("unshare -m sh %s/as_root", w.dir);
	ck_assert_msg(strstr(out, "all done\n") != NULL, "%s", out);
	free(out);
	world_close(&w);
}
END_TEST

Suite *ordinary_suite(void)
{
	Suite *s = suite_create("ordinary");
	TCase *tc = world_case(s, "ordinary", 120);

	tcase_add_test(tc, an_ordinary_user_starts_uses_and_stops_a_mount);
	return s;
}
