/* faults.c - a store that is full, and one whose bytes rotted: what the mount says, and that it goes on. */
#include <dirent.h>
#include <sys/mount.h>

#include "tests/fs/fixture.h"

/* A transaction at time t whose rows do not compress; given. */
static char *random_txn(struct rng *r, unsigned t, unsigned rows)
{
	char *text = malloc(120 + rows * 120), *p = text;

	p += sprintf(p, "begin expected_upper=%u new_upper=%u\n", t, t + 1);
	for (unsigned i = 0; i < rows; i++) {
		p += sprintf(p, "%u\t1\t%u\t", t, i);
		for (int k = 0; k < 80; k++)
			*p++ = (char)('0' + rng_below(r, 75));
		for (char *q = p - 80; q < p; q++)
			*q = *q == '\\' ? 'x' : *q;
		*p++ = '\n';
	}
	strcpy(p, "commit\n");
	return text;
}

START_TEST(a_full_store_is_enospc_loses_nothing_and_goes_on_when_there_is_room)
{
	struct rng r = rng_new(77);
	char *disk, *before, *after, *text;
	unsigned t = 0;
	int fd, rc = 0;

	world_new(&w);
	ck_assert_int_gt(asprintf(&disk, "%s/disk", w.dir), 0);
	ck_works(mkdir(disk, 0755));
	ck_works(mount("tmpfs", disk, "tmpfs", 0, "size=96m"));
	free(w.store);
	ck_assert_int_gt(asprintf(&w.store, "%s/store", disk), 0);
	free(want_sh("head -c 30000000 /dev/zero > %s/filler", disk));
	world_start(&w, NULL);
	shard = shard_new(&w);
	for (fd = append_open(shard); rc == 0; t += rc == 0) {
		ck_assert_uint_lt(t, 200);
		text = random_txn(&r, t, 10000);
		before = print_shard(shard);
		rc = put_all(fd, text, strlen(text));
		after = print_shard(shard);
		if (rc != 0)
			ck_assert_str_eq(after, before);
		free(before);
		free(after);
		if (rc == 0) {
			free(verdict(fd));
			free(text);
		}
	}
	ck_errno(rc, ENOSPC);
	want_verdict_like(fd, "error StoreFull errno=ENOSPC ");
	ck_errno(put_all(fd, text, strlen(text)), ENOSPC); /* spent */
	close(fd);
	ck_works(unlink(at(disk, "filler")));
	want_txn(shard, text); /* without a new start */
	free(text);
	world_stop(&w);
	world_start(&w, NULL);
	text = slurp(at(shard, "upper"));
	ck_assert_uint_eq(strtoul(text, NULL, 10), t + 1);
	free(text);
	world_stop(&w);
	ck_works(umount2(disk, MNT_DETACH));
	free(shard);
	free(disk);
	world_close(&w);
}
END_TEST

START_TEST(rotten_bytes_are_euclean_never_wrong_rows)
{
	struct rng r = rng_new(78);
	char *text = random_txn(&r, 0, 10000), *blob, byte;
	int fd;

	world_open(&w);
	shard = shard_new(&w);
	want_txn(shard, text);
	world_stop(&w);
	blob = want_sh("find %s/blobs/data -name 'p*' -size +100k", w.store);
	blob[strcspn(blob, "\n")] = '\0';
	fd = open(blob, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &byte, 1, 200000), 1);
	byte ^= 1;
	ck_assert_int_eq(pwrite(fd, &byte, 1, 200000), 1);
	world_start(&w, NULL);
	ck_assert_ptr_eq(slurp_rc(at(shard, "snapshot")), NULL);
	ck_errno(errno, EUCLEAN);
	want_file(shard, "upper", "1\n");
	want_txn(shard, "begin expected_upper=1 new_upper=2\n1\t1\ta\tb\ncommit\n");
	world_stop(&w);
	ck_assert_int_eq(sh(NULL, "%s fsck %s", shardctl_path(), w.store), 1);
	byte ^= 1;
	ck_assert_int_eq(pwrite(fd, &byte, 1, 200000), 1);
	close(fd);
	free(want_sh("%s fsck %s", shardctl_path(), w.store));
	free(blob);
	free(text);
	free(shard);
	world_close(&w);
}
END_TEST

Suite *faults_suite(void)
{
	Suite *s = suite_create("faults");
	TCase *tc = world_case(s, "faults", 400);

	tcase_add_test(tc, a_full_store_is_enospc_loses_nothing_and_goes_on_when_there_is_room);
	tcase_add_test(tc, rotten_bytes_are_euclean_never_wrong_rows);
	return s;
}
