#!/bin/bash
# append.sh SHARD EXPECTED_UPPER NEW_UPPER [ROWS] - commit the rows of a file, or of stdin, as one transaction.
#
# Exit status: 0 it is committed; 75 the upper was another one, nothing was changed; 1 all else. The verdict of
# the shard is on stderr when it is not 0.

# For reading too: the descriptor that takes a transaction gives the verdict on it.
exec {append}<>"$1/append" || exit 1

# With && and in this order. Behind ; the commit would follow also when cat could not read the rows, and would
# commit as many as came.
{ echo "begin expected_upper=$2 new_upper=$3" && cat -- "${4:--}" && echo commit; } >&"$append"
written=$?

# Asked in any case. The status alone is no proof: when the last row lacks its newline, all is written well and
# the word commit belongs to that row. Then there is no verdict.
read -r outcome reason errno detail <&"$append"
[[ $written -eq 0 && $outcome == ok ]] && exit 0

echo "append.sh: ${outcome:-not committed: is the last row whole?} $reason $errno $detail" >&2
[[ $errno == errno=ESTALE ]] && exit 75
exit 1
