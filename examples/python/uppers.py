#!/usr/bin/env python3
"""uppers.py SHARD... - print the upper of each shard, and again whenever it is another one, until all are finished.

For those who want to know that something happened, not what: a cache to be thrown away, a snapshot to be read anew.
"""
import os
import selectors
import sys

with selectors.DefaultSelector() as selector:
    for shard in sys.argv[1:]:
        selector.register(os.open(f"{shard}/upper", os.O_RDONLY), selectors.EVENT_READ, shard)
    while selector.get_map():
        for key, _ in selector.select():
            # Reading at 0 shows the upper as it is now. It is ready again when it is another than was read here:
            # what happens between two looks gives one event, and none is missed.
            upper = os.pread(key.fd, 32, 0).decode().strip()
            print(key.data, upper, sep="\t", flush=True)
            if upper == "-":
                selector.unregister(key.fd)
                os.close(key.fd)
