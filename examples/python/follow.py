#!/usr/bin/env python3
"""follow.py SHARD [FROM [SEEN]] - print the updates of a shard as they are committed, from the frontier FROM on.

FROM is `now` if it is not given. SEEN is a file that keeps the upper of what was printed; when it is there already, it
says where to go on. Exit status: 0 the shard is finished; 1 it cannot be followed, and stderr says why.
"""
import errno
import os
import re
import sys


def transactions(lines):
    """The upper and the rows of each transaction: no sooner than its commit line, for until then it may break off."""
    for line in lines:
        if line.startswith(b"begin "):
            upper, rows = re.search(rb" upper=(\S+)", line)[1], []
        elif line == b"commit\n":
            yield upper, rows
        else:
            rows.append(line)


def follow(shard, start="now", seen=None):
    if seen and os.path.exists(seen):
        with open(seen) as f:
            start = f.read().strip()
    # In bytes: values are of any encoding, and universal newlines would cut them.
    with open(f"{shard}/listen/{start}", "rb") as lines:
        for upper, rows in transactions(lines):
            sys.stdout.buffer.writelines(rows)
            sys.stdout.buffer.flush()
            # Behind the rows: whoever dies in between prints this transaction again, and loses none.
            if seen:
                with open(seen + ".new", "wb") as f:
                    f.write(upper + b"\n")
                os.rename(seen + ".new", seen)


if __name__ == "__main__":
    try:
        follow(*sys.argv[1:])
    except OSError as e:
        why = f"follow.py: {e}"
        if e.errno == errno.ENODATA:  # FROM is not above it
            with open(f"{sys.argv[1]}/since") as f:
                why += f"; since is {f.read().strip()}"
        sys.exit(why)
