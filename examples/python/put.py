#!/usr/bin/env python3
"""put.py SHARD KEY VAL - from now on KEY has the one value VAL, whatever it had before and whoever else puts.

This is the loop of a writer whose rows depend on those that are there: read the upper, read the rows, append at that
upper, and begin anew if somebody else was faster. KEY and VAL are given as rows have them, escapes and all.
"""
import errno
import os
import sys


def put(shard, key, val):
    while True:
        # The upper first: when somebody commits before the snapshot is opened, the append is refused.
        with open(shard + b"/upper", "rb") as f:
            upper = int(f.read())
        with open(shard + b"/snapshot", "rb") as f:
            old = [row.rstrip(b"\n").split(b"\t") for row in f]
        rows = [b"%d\t%d\t%s\t%s\n" % (upper, -int(d), k, v) for _, d, k, v in old if k == key]
        rows.append(b"%d\t1\t%s\t%s\n" % (upper, key, val))
        try:
            with open(shard + b"/append", "wb") as f:
                f.write(b"begin expected_upper=%d new_upper=%d\n%scommit\n" % (upper, upper + 1, b"".join(rows)))
            return  # not before the file is closed: write only fills a buffer
        except OSError as e:
            if e.errno != errno.ESTALE:
                raise


put(*(os.fsencode(word) for word in sys.argv[1:]))
