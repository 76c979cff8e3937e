#!/bin/bash
# The demo: this machine's own package history in a shard, written and read through a mount.
#
#   make demo                      leaves the mount running, and says how to go on and how to stop
#   DEMO_STOP=1 make demo          unmounts and removes everything at the end
#   DEMO_SOURCE=dpkg|git           instead of choosing: the package log, or this project's history
#   DEMO_LOGS=DIR                  where dpkg.log* are, instead of /var/log
#   SHARDFS=PROGRAM                instead of build/shardfs
#
# What is stored: the set of installed packages as dpkg logged it, key = name:architecture, val = version,
# time = second. A package is in the set at version V from the second of a line `status installed P V` to
# the second of the line that says what is done to it next, `upgrade`, `remove`, `purge` or `disappear`,
# or of another `status installed`; in one second the last such line counts. So a package that is
# configured again, or whose triggers run, stays once in the set, and one in the middle of its upgrade is
# not in it. What was installed before the log begins and never touched since is unknown to the log, and
# not in the set. dpkg writes local time without a zone: it is read as UTC, and a clock that went back
# stands still at the latest second it had shown.
#
# Without a package log: the files of this project, key = path, val = its blob's id, time = the commit's
# second.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
export LC_ALL=C TZ=UTC

root=$(cd "$(dirname "$0")/.." && pwd)
shardfs=$(realpath "${SHARDFS:-$root/build/shardfs}")
logs=${DEMO_LOGS:-/var/log}
shell_most=100 # transactions: the shell makes half of them up to this many, python the rest

fail() {
	echo "demo: $*" >&2
	exit 1
}

# --- the mount --------------------------------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/shardfs-demo.XXXXXX")
mnt=$work/mnt store=$work/store
mkdir "$mnt"
keep=

start() {
	"$shardfs" "$store" "$mnt" || fail "the mount did not start"
}

mount_pid() {
	sed -n 's/.* pid=\([0-9]*\) .*/\1/p' "$store/OWNER"
}

# Unmount, and wait until the process has let go of the store. A dead mount counts as one, too.
stop() {
	local pid

	grep -qF " $mnt fuse" /proc/mounts || return 0
	pid=$(mount_pid)
	fusermount3 -u "$mnt" || return 1
	for _ in {1..200}; do
		[ -e "/proc/$pid/exe" ] || return 0
		sleep 0.05
	done
	echo "demo: process $pid is still there, 10 s after it was unmounted" >&2
	return 1
}

finish() {
	local status=$?

	cd /
	if [ -z "$keep" ]; then
		stop || fusermount3 -u -z "$mnt"
		rm -rf "$work"
	fi
	exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# show COMMAND: print it and run it, in the shard, as a person would.
show() {
	printf '$ %s\n' "$1"
	(cd "$shard" && bash -c "$1") 2>&1 | cut -c -170 || true
}

# --- where the data comes from ----------------------------------------------------------------------------
# Each source NAME has  NAME_read         the history as it is, to $work/history; false if there is none
#                       NAME_events       from that: lines time, key, val in time order; val is empty when it goes
#                       NAME_truth TIME   the set as of TIME, lines key, val in order, by other means
# Key and val are written as in a row, with a backslash doubled.

# The logs in the order of their first times, whatever the rotation calls them.
dpkg_read() {
	local file first='/^[0-9-]\{10\} [0-9:]\{8\} /{ s/^\(.\{19\}\).*/\1/p; q }'

	for file in "$logs"/dpkg.log*; do
		[ -r "$file" ] && printf '%s\t%s\n' "$(zcat -f "$file" | sed -n "$first")" "$file"
	done | sort | cut -f 2- | while IFS= read -r file; do
		zcat -f "$file"
	done >"$work/history"
	grep -q '^....-..-.. ..:..:.. status installed ' "$work/history"
}

dpkg_events() {
	awk -v OFS='\t' '
		$1 !~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]$/ || $2 !~ /^[0-9][0-9]:[0-9][0-9]:[0-9][0-9]$/ { next }
		{
			gsub(/\\/, "&&")
			clock = $1 " " $2
			if (clock != before) {
				before = clock
				gsub(/[-:]/, " ", clock)
				t = mktime(clock)
				if (t > now)
					now = t
			}
		}
		$3 == "status" && $4 == "installed" { print now, $5, $6 }
		$3 == "upgrade" || $3 == "remove" || $3 == "purge" || $3 == "disappear" { print now, $4, "" }
		END { print now, "", "" }
	' "$work/history"
}

dpkg_truth() {
	awk -v until="$(date -d "@$1" '+%Y-%m-%d %H:%M:%S')" '
		{ stamp = substr($0, 1, 19) }
		stamp !~ /^[0-9-]+ [0-9:]+$/ { next }
		stamp > latest { latest = stamp }
		latest > until { exit }
		/ status installed / { last[$5] = $6 }
		$3 ~ /^(upgrade|remove|purge|disappear)$/ { delete last[$4] }
		END { for (p in last) printf "%s\t%s\n", p, last[p] }
	' "$work/history" | sed 's/\\/\\\\/g' | sort
}

in_git() {
	git -C "$root" "$@"
}

git_read() {
	command -v git >/dev/null && in_git log --first-parent -m --root --reverse --raw --no-renames --no-abbrev \
		--format=%ct >"$work/history" 2>/dev/null && [ -s "$work/history" ]
}

git_events() {
	awk -F '\t' -v OFS='\t' '
		/^[0-9]+$/ && $1 > now { now = $1 }
		/^:/ {
			split($1, change, " ")
			path = $2
			gsub(/\\/, "&&", path)
			print now, path, change[5] == "D" ? "" : substr(change[4], 1, 12)
		}
		END { print now, "", "" }
	' "$work/history"
}

git_truth() {
	local commit

	commit=$(in_git log --first-parent --reverse --format='%ct %H' |
		awk -v until="$1" '$1 > now { now = $1 } now <= until { h = $2 } END { print h }')
	in_git ls-tree -r "$commit" | sed 's/\\/\\\\/g' | awk -F '[ \t]' -v OFS='\t' \
		'{ id = substr($3, 1, 12); sub(/^[^\t]*\t/, ""); print $0, id }' | sort
}

choose_source() {
	case ${DEMO_SOURCE:-} in
	dpkg) dpkg_read || fail "$logs has no dpkg.log that tells of an installed package" ;;
	git) git_read || fail "$root has no git history, or git is not installed" ;;
	'') if dpkg_read; then DEMO_SOURCE=dpkg; elif git_read; then DEMO_SOURCE=git; else
		fail "neither $logs/dpkg.log nor a git history of $root is there to be loaded"
	fi ;;
	*) fail "DEMO_SOURCE is dpkg or git" ;;
	esac
	case $DEMO_SOURCE in
	dpkg) name=packages what=packages truth='awk over the log' story="the package log of this machine" ;;
	git) name=files what=files truth='git ls-tree' story="the git history of $root" ;;
	esac
	"${DEMO_SOURCE}_events" >"$work/events"
	cut -f 1 "$work/events" | uniq >"$work/seconds"
}

# --- loading ----------------------------------------------------------------------------------------------

# The first seconds of the history, one transaction each: printf > append.
load_by_shell() {
	local -A version=()
	local upper now='' rows='' t key val old seconds=0 transactions=0 updates=0 half

	half=$(($(wc -l <"$work/seconds") / 2))
	cd "$shard"
	upper=$(cat upper)
	while IFS=$'\t' read -r t key val; do
		if [ "$t" != "$now" ]; then
			if [ -n "$rows" ]; then
				printf 'begin expected_upper=%s new_upper=%s\n%scommit\n' "$upper" $((now + 1)) "$rows" >append
				upper=$((now + 1)) rows=''
				transactions=$((transactions + 1))
			fi
			[ $((seconds += 1)) -le $((half < shell_most ? half : shell_most)) ] || break
			now=$t
		fi
		old=${version[$key]-}
		[ "$old" != "$val" ] || continue
		if [ -n "$old" ]; then
			rows+="$t"$'\t-1\t'"$key"$'\t'"$old"$'\n'
			updates=$((updates + 1))
		fi
		if [ -n "$val" ]; then
			rows+="$t"$'\t1\t'"$key"$'\t'"$val"$'\n'
			updates=$((updates + 1))
		fi
		version[$key]=$val
	done <"$work/events"
	cd /
	echo "the shell:  $updates updates in $transactions transactions, each of them printf > append"
}

# --- checking ---------------------------------------------------------------------------------------------

# check TIME: the shard as of TIME against the independent computation.
check() {
	cut -f 3- "$shard/as_of/$1" >"$work/have"
	"${DEMO_SOURCE}_truth" "$1" >"$work/want"
	if ! cmp -s "$work/have" "$work/want"; then
		diff "$work/have" "$work/want" | head -n 10 >&2 || true
		fail "WRONG: $what as of $1 differ from $truth (< the shard, > $truth)"
	fi
	echo "checked: $(wc -l <"$work/have") $what as of $1 ($(date -d "@$1" '+%F %T')) agree with $truth"
}

# The nth part of four of the seconds in which something happened.
second_at() {
	sed -n "$((1 + ($(wc -l <"$work/seconds") - 1) * $1 / 4))p" "$work/seconds"
}

# --- the demo ---------------------------------------------------------------------------------------------

[ -x "$shardfs" ] || fail "$shardfs is not there: make all"
choose_source
awk -v mine="$mnt" '$3 == "fuse.shardfs" && $2 ~ /\/shardfs-demo\.[^\/]*\/mnt$/ && $2 != mine {
	dir = substr($2, 1, length($2) - 4)
	print "(an earlier demo is still mounted; to stop it: fusermount3 -u " $2 " && rm -r " dir ")"
}' /proc/mounts

echo "== $story: $(wc -l <"$work/history") lines, $(date -d "@$(second_at 0)" +%F) to $(date -d "@$(second_at 4)" +%F)"
echo "\$ shardfs $store $mnt"
start
id=s$(cat /proc/sys/kernel/random/uuid)
mkdir "$mnt/shard/$id"
ln -s "../shard/$id" "$mnt/name/$name"
shard=$mnt/name/$name
echo "\$ mkdir shard/$id; ln -s ../shard/$id name/$name; cd name/$name"
load_by_shell

cat "$shard/snapshot" >"$work/before"
upper=$(cat "$shard/upper")
pid=$(mount_pid)
echo "\$ kill -9 $pid; shardfs $store $mnt"
kill -9 "$pid"
start
cat "$shard/snapshot" >"$work/after"
if [ "$(cat "$shard/upper")" != "$upper" ] || ! cmp -s "$work/before" "$work/after"; then
	fail "WRONG: after the kill the upper is $(cat "$shard/upper"), not $upper, or the snapshot is another"
fi
echo "after kill -9 and a new start: the upper is $upper, the snapshot has $(wc -l <"$work/before") $what, as before"
python3 "$root/tools/demo.py" "$shard" "$work/events"

echo "== the files of a shard"
show 'ls -C'
show 'cat upper'
show "ls -l batches | head -n 4; ls batches | wc -l"
show "grep -E '(seqno|upper|pinned_by|batches|updates|_bytes)\"' state"
echo "== a writer who is late is refused, and nothing is changed"
show "printf 'begin expected_upper=0 new_upper=9\\n0\\t1\\tlate\\t1.0\\ncommit\\n' > append"
show 'tail -n 1 errors'
show "exec 3<>append; printf 'begin expected_upper=0 new_upper=9\\ncommit\\n' >&3; cat <&3"

a=$(second_at 2) b=$(second_at 4)
echo "== $what as of two times: $(date -d "@$a" '+%F %T') and $(date -d "@$b" '+%F %T')"
show "wc -l < as_of/$a; wc -l < as_of/$b; head -n 3 as_of/$b"
show "comm -3 <(cut -f 3- as_of/$a) <(cut -f 3- as_of/$b) | head -n 6"
show "comm -3 <(cut -f 3- as_of/$a) <(cut -f 3- as_of/$b) | wc -l"
echo "== is it right?"
# A second before a change and the change itself; times all over the history; the end.
{ for n in 0 1 2 3 4; do second_at $n; done; echo $(($(second_at 3) - 1)); } | sort -nu >"$work/times"
while read -r t; do
	check "$t"
done <"$work/times"

if [ "${DEMO_STOP:-}" = 1 ]; then
	stop
	echo "stopped; $work is removed"
	exit 0
fi
keep=1
rm -f "$work"/{have,want,before,after,events,history,seconds,times}
cat <<END
== the mount is still there. Go on by hand:
  cd $shard; cat ../../README
  printf 'begin expected_upper=* new_upper=+1\\n*\\t1\\tmine\\t1.0\\ncommit\\n' > append; grep mine snapshot
To stop it, and to remove everything:
  cd /; fusermount3 -u $mnt && rm -r $work
END
