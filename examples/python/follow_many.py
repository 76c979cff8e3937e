#!/usr/bin/env python3
"""follow_many.py FROM SHARD... - print the updates of several shards as they are committed, in one thread.

Each row has its shard in front. FROM is a frontier, or `now`. Exit status: 0 all the shards are finished; 1 one cannot
be followed, and stderr says why.
"""
import os
import re
import selectors
import sys


class Follower:
    def __init__(self, shard, start):
        self.shard = shard
        # With O_NONBLOCK a read never waits, whatever happened since select() said that it need not.
        self.fd = os.open(f"{shard}/listen/{start}", os.O_RDONLY | os.O_NONBLOCK)
        self.upper, self.rows, self.rest = start.encode(), [], b""

    def transactions(self):
        """The upper and the rows of each transaction that one read completes; ends the follower at the end."""
        try:
            piece = os.read(self.fd, 1 << 20)
        except BlockingIOError:
            return
        if not piece:
            os.close(self.fd)
            self.fd = None
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"begin "):
                self.upper, self.rows = re.search(rb" upper=(\S+)", line)[1], []
            elif line == b"commit":
                yield self.upper, self.rows
            else:
                self.rows.append(line)


def main(start, *shards):
    with selectors.DefaultSelector() as selector:  # epoll; poll and select do as well
        for f in [Follower(shard, start) for shard in shards]:
            selector.register(f.fd, selectors.EVENT_READ, f)
        while selector.get_map():
            for key, _ in selector.select():
                f = key.data
                for _, rows in f.transactions():
                    for row in rows:
                        sys.stdout.buffer.write(b"%s\t%s\n" % (os.fsencode(f.shard), row))
                    sys.stdout.buffer.flush()  # here the upper would be kept, as follow.py does
                if f.fd is None:
                    selector.unregister(key.fd)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as e:
        sys.exit(f"follow_many.py: {e}")
