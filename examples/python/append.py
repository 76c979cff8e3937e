#!/usr/bin/env python3
"""append.py SHARD EXPECTED_UPPER NEW_UPPER [ROWS] - commit the rows of a file, or of stdin, as one transaction.

Exit status: 0 it is committed; 75 the upper was another one, nothing was changed; 1 all else. The verdict of the
shard is on stderr when it is not 0.
"""
import re
import shutil
import sys


def append(shard, expected_upper, new_upper, rows):
    """The verdict: it begins with "ok " if, and only if, all of the file object `rows` was committed."""
    failure = None
    # For reading too: the descriptor that takes a transaction gives the verdict on it.
    with open(f"{shard}/append", "r+b", buffering=0) as raw:
        try:
            # Python sends what was refused again, in flush and in close. A descriptor that has refused once
            # refuses all else, so that is harmless; but it must be over before the verdict can be read.
            with open(raw.fileno(), "wb", closefd=False) as f:
                f.write(f"begin expected_upper={expected_upper} new_upper={new_upper}\n".encode())
                shutil.copyfileobj(rows, f)
                f.write(b"commit\n")
        except OSError as e:
            failure = e
        verdict = raw.read(65536).decode(errors="replace").rstrip("\n")
    if failure and not verdict.startswith("error "):
        return str(failure)
    # No failure is no proof: when the last row lacks its newline, the word commit belongs to that row.
    return verdict or "not committed: is the last row whole?"


def main(shard, expected_upper, new_upper, rows=None):
    with open(rows, "rb") if rows else sys.stdin.buffer as f:
        verdict = append(shard, expected_upper, new_upper, f)
    if verdict.startswith("ok "):
        return 0
    print(f"append.py: {verdict}", file=sys.stderr)
    return 75 if re.match(r"error \w+ errno=ESTALE ", verdict) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
