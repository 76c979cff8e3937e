#!/bin/sh
# The benchmark: a mount beside SQLite, RocksDB and the bare disk, in one run on one file system.
#   BENCH_DIR=DIR      where everyone's files are for that time, instead of build/bench; not on a tmpfs
#   SHARDFS=PROGRAM    instead of build/shardfs
#   BENCH_ONLY=PART    one part alone: appends; readers, those that wait; upkeep, what maintenance keeps small
#   UPKEEP_...         the sizes of the last one (bench_upkeep.h), and UPKEEP_PARTS: a overwriting, b single rows,
#                      c many shards, d many versions
# The report is also in build/bench/report.md.
set -eu
[ -z "${SHARDFS:-}" ] || SHARDFS=$(realpath "$SHARDFS")
[ -z "${BENCH_DIR:-}" ] || BENCH_DIR=$(realpath "$BENCH_DIR")
cd "$(dirname "$0")/.."
sh tools/deps.sh --bench
${MAKE:-make} --no-print-directory -s all build/release/bench

shardfs=$(realpath "${SHARDFS:-build/shardfs}")
mkdir -p build/bench
report=$PWD/build/bench/report.md
work=$(mktemp -d "${BENCH_DIR:-$PWD/build/bench}/run.XXXXXX")
pid='' bench=''

stop_owner() {
	kill "$1" 2>/dev/null || return 0
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ -e "/proc/$1/exe" ] || return 0
		sleep 1
	done
	echo "bench: process $1 did not end by TERM, and is killed" >&2
	kill -KILL "$1" 2>/dev/null || true
}

finish() {
	status=$?
	trap '' HUP INT TERM
	if [ -n "$bench" ] && kill "$bench" 2>/dev/null; then
		wait "$bench" || true
	fi
	if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
		wait "$pid" || { echo "bench: the mount ended with status $?" >&2; [ "$status" -ne 0 ] || status=1; }
	fi
	# Stores that the benchmark mounted itself, if it could not end as it should.
	for owner in "$work"/peers/*.store/OWNER; do
		[ ! -s "$owner" ] || stop_owner "$(sed -n 's/.* pid=\([0-9]*\) .*/\1/p' "$owner")"
	done
	for mnt in "$work/mnt" "$work"/peers/*.mnt; do
		! grep -qF " $mnt fuse" /proc/mounts || fusermount3 -u -z "$mnt"
	done
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fs=$(stat -f -c %T "$work")
if [ "$fs" = tmpfs ]; then
	echo "bench: $work is on a tmpfs, where nothing is durable; choose another BENCH_DIR" >&2
	exit 1
fi
mkdir "$work/mnt" "$work/peers"
"$shardfs" -f "$work/store" "$work/mnt" &
pid=$!
tries=0
until grep -qF " $work/mnt fuse" /proc/mounts && [ -r "$work/mnt/README" ]; do
	tries=$((tries + 1))
	if ! kill -0 "$pid" 2>/dev/null || [ "$tries" -gt 100 ]; then
		echo "bench: the mount did not start" >&2
		exit 1
	fi
	sleep 0.1
done

{
	echo "# shardfs: benchmark"
	echo
	cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
	echo "$(date -u '+%Y-%m-%d %H:%M UTC'), $(nproc) x ${cpu:-$(uname -m)}, Linux $(uname -r), files on $fs;"
	version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo '?'; }
	echo "SQLite $(version libsqlite3-dev) (WAL, synchronous=FULL), RocksDB $(version librocksdb-dev)," \
		"load average at the start $(cut -d ' ' -f 1 /proc/loadavg)."
	echo
} | tee "$report"
# In the background, so that a signal to this script is not kept waiting until the end.
build/release/bench "$work/peers" "$work/mnt" "$pid" "$report" "$shardfs" &
bench=$!
wait "$bench"
bench=
