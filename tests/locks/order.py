#!/usr/bin/env python3
"""order.py <file>: what tests/locks/locks.c noted. Prints which lock was taken under which, by the line that
makes each, in an order that all of them keep. Fails with a circle, with a lock taken under one of its own class, and
with what core/LOCKS.md forbids: it has an order, and lower folders take no lock of upper ones."""
import graphlib
import os
import re
import subprocess
import sys


def places(program, offsets):
    """The line that made each class; the noted address is the one behind the call."""
    asked = [hex(int(o, 16) - 1) for o in offsets]
    lines = subprocess.run(["addr2line", "-e", program, *asked], check=True, capture_output=True, text=True)
    found = {}
    for offset, line in zip(offsets, lines.stdout.split("\n")):
        file, number = re.match(r"(\S*):(\d+|\?)", line).groups()
        # Compiled elsewhere, and taken from a cache: the path begins elsewhere too.
        file = re.sub(r"^.*?/((tests/)?(kv|core|fs|locks)/[^/]*)$", r"\1", os.path.normpath(file))
        text = open(file).readlines()[int(number) - 1]
        lock = re.search(r"lock_init\(&?([^,]*),|mutex_init\(&?([^,]*),", text)
        found[offset] = f"{file}: {lock.group(1) or lock.group(2)}" if lock else f"{file}:{number}"
    return found


def forbidden(pairs, table):
    """What is not as the document has it."""
    rows = re.findall(r"^\|[^|]*\| `([^`]*)` \|", open(table).read(), re.MULTILINE)
    layers = ["fs", "core", "kv"]
    for held, taken in sorted(pairs):
        upper, lower = held.split("/")[0], taken.split("/")[0]
        if upper not in layers or lower not in layers:
            continue
        if layers.index(upper) > layers.index(lower):
            yield f"{taken} is taken under {held}, which lies below it"
        for lock in (held, taken):
            if lock.startswith("core/") and lock not in rows:
                yield f"{lock} is not in {table}"
        if held in rows and taken in rows and rows.index(held) >= rows.index(taken):
            yield f"{taken} is taken under {held}, against the order of {table}"


def main():
    noted = {tuple(line.split()) for line in open(sys.argv[1])}
    by_program = {}
    for end in {end for pair in noted for end in pair}:
        program, offset = end.rsplit("+", 1)
        by_program.setdefault(program, set()).add(offset)
    name = {}
    for program, offsets in by_program.items():
        for offset, place in places(program, sorted(offsets)).items():
            name[f"{program}+{offset}"] = place
    above = {}
    for held, taken in noted:
        above.setdefault(name[taken], set()).add(name[held])
    wrong = list(forbidden({(name[held], name[taken]) for held, taken in noted}, "core/LOCKS.md"))
    if wrong:
        sys.exit("\n".join(f"locks: {line}" for line in wrong))
    itself = [lock for lock, held in above.items() if lock in held]
    if itself:
        sys.exit("\n".join(f"locks: {lock} is taken under another of its own" for lock in itself))
    try:
        order = list(graphlib.TopologicalSorter(above).static_order())
    except graphlib.CycleError as e:
        sys.exit("locks: taken in a circle:\n  " + "\n  ".join(e.args[1]))
    for lock in order:
        held = sorted(above.get(lock, ()), key=order.index)
        print(lock + (f"  (under {', '.join(held)})" if held else ""))
    print(f"{len(order)} locks, {sum(map(len, above.values()))} pairs, no circle")


main()
