#!/bin/bash
# follow.sh SHARD [FROM [SEEN]] - print the updates of a shard as they are committed, from the frontier FROM on.
#
# FROM is `now` if it is not given. SEEN is a file that keeps the upper of what was printed; when it is there already,
# it says where to go on. Exit status: 0 the shard is finished; else it cannot be followed, and stderr says why. NUL
# bytes, which no variable of bash can hold, are left out.
export LC_ALL=C # bytes, of whatever encoding

from=${2:-now}
[[ -n $3 && -e $3 ]] && from=$(<"$3")

exec {listen}<"$1/listen/$from" || { [[ -e $1/since ]] && echo "since is $(<"$1/since")" >&2; exit 1; }

# Rows are kept until their commit line comes: before that the transaction may still break off.
while IFS= read -r line; do
	case $line in
	'begin '*) rows=() upper=${line##* upper=} ;;
	commit)
		[[ ${#rows[@]} -eq 0 ]] || printf '%s\n' "${rows[@]}" || exit 1
		# Behind the rows: whoever dies in between prints this transaction again, and loses none.
		[[ -z $3 ]] || { echo "$upper" >"$3.new" && mv "$3.new" "$3"; } || exit 1
		;;
	*) rows+=("$line") ;;
	esac
done <&"$listen"

# The loop ends in the same way when the shard is finished and when a read failed.
[[ ${upper:-$(<"$1/upper")} == - ]]
