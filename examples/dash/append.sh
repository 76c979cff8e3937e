#!/bin/dash
# append.sh SHARD EXPECTED_UPPER NEW_UPPER [ROWS] - commit the rows of a file, or of stdin, as one transaction.
#
# Exit status: 0 it is committed; 75 the upper was another one, nothing was changed; else another one. The verdict
# of the shard is on stderr when it is not 0. Any POSIX shell runs this.

# For reading too: the descriptor that takes a transaction gives the verdict on it. Where this fails the shell ends.
exec 3<>"$1/append"

# With && and in this order. Behind ; the commit would follow also when cat could not read the rows, and would
# commit as many as came.
{ printf 'begin expected_upper=%s new_upper=%s\n' "$2" "$3" && cat -- "${4:--}" && printf 'commit\n'; } >&3
written=$?

# Asked in any case. The status alone is no proof: when the last row lacks its newline, all is written well and
# the word commit belongs to that row. Then there is no verdict.
read -r outcome reason errno detail <&3
[ "$written" -eq 0 ] && [ "$outcome" = ok ] && exit 0

echo "append.sh: ${outcome:-not committed: is the last row whole?} $reason $errno $detail" >&2
[ "$errno" = errno=ESTALE ] && exit 75
exit 1
