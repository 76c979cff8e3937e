#!/usr/bin/env python3
"""The second part of the demo's loading: demo.py SHARD EVENTS

EVENTS has lines time, key, val (empty: the key goes; no key: all is told up to this time), in time order. What
the shard already holds is asked of the shard itself, so this begins wherever another writer has stopped. All
transactions go through one descriptor, which gives the verdict on each.
"""
import os
import sys
import time

TRANSACTIONS_MAX = 2000  # in a longer history several seconds share one; each update keeps its own time


def resume(shard):
    """The upper, and the collection, as {key: val}; both as text of rows, escapes and all."""
    with open(shard + "/upper", "rb") as f:
        upper = int(f.read())
    have = {}
    with open(shard + "/snapshot", "rb") as f:
        for line in f:
            _, diff, key, val = line.rstrip(b"\n").split(b"\t")
            if diff != b"1" or key in have:
                sys.exit(f"demo.py: {key.decode()} is in the collection more than once")
            have[key] = val
    return upper, have


def seconds_after(events, upper, have):
    """Lists of (time, rows), one for each second at or after upper."""
    out = []
    with open(events, "rb") as f:
        for line in f:
            t, key, val = line.rstrip(b"\n").split(b"\t")
            if int(t) < upper:
                continue
            if not out or out[-1][0] != int(t):
                out.append((int(t), []))
            old = have.pop(key, b"")
            if val:
                have[key] = val
            if old != val:
                out[-1][1].extend(b"%s\t-1\t%s\t%s\n" % (t, key, old) for _ in range(bool(old)))
                out[-1][1].extend(b"%s\t1\t%s\t%s\n" % (t, key, val) for _ in range(bool(val)))
    return out


def main(shard, events):
    upper, have = resume(shard)
    seconds = seconds_after(events, upper, have)
    share = -(-len(seconds) // TRANSACTIONS_MAX)
    transactions = updates = 0
    verdict = "none"
    start = time.monotonic()
    fd = os.open(shard + "/append", os.O_RDWR)
    for i in range(0, len(seconds), max(share, 1)):
        group = seconds[i : i + share]
        rows = [row for _, of_second in group for row in of_second]
        if not rows and i + share < len(seconds):
            continue  # the next one's interval covers it
        new_upper = group[-1][0] + 1
        text = b"begin expected_upper=%d new_upper=%d\n%scommit\n" % (upper, new_upper, b"".join(rows))
        try:
            if os.write(fd, text) != len(text):
                sys.exit("demo.py: a transaction was taken in part")
        except OSError as e:
            sys.exit(f"demo.py: {e.strerror}: {os.read(fd, 65536).decode()}")
        verdict = os.read(fd, 65536).decode().rstrip("\n")
        if not verdict.startswith(f"ok lower={upper} new_upper={new_upper} "):
            sys.exit(f"demo.py: an unexpected verdict: {verdict}")
        upper = new_upper
        transactions += 1
        updates += len(rows)
    os.close(fd)
    took = time.monotonic() - start
    print(
        f"python:     {updates} updates in {transactions} transactions through one descriptor"
        f" ({took / max(transactions, 1) * 1e6:.0f} us each)"
    )
    print(f"            its last verdict: {verdict}")


main(sys.argv[1], sys.argv[2])
