#!/bin/dash
# put.sh SHARD KEY VAL - from now on KEY has the one value VAL, whatever it had before and whoever else puts.
#
# This is the loop of a writer whose rows depend on those that are there: read the upper, read the rows, append at
# that upper, and begin anew if somebody else was faster. KEY and VAL are given as rows have them, escapes and all.

here=$(dirname "$0")
status=75
while [ "$status" -eq 75 ]; do
	# The upper first: when somebody commits before the snapshot is opened, the append is refused.
	upper=$(cat "$1/upper") && [ "$upper" != - ] || exit 1
	# Into a variable: at the end of a pipe append.sh would commit what an awk that failed had printed so far.
	rows=$(KEY=$2 VAL=$3 awk -F '\t' -v t="$upper" '
		$3 "" == ENVIRON["KEY"] { print t "\t" (-$2) "\t" $3 "\t" $4 }
		END { print t "\t1\t" ENVIRON["KEY"] "\t" ENVIRON["VAL"] }' "$1/snapshot") || exit 1
	printf '%s\n' "$rows" | "$here/append.sh" "$1" "$upper" "$((upper + 1))"
	status=$?
done
exit "$status"
