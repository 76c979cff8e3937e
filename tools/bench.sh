#!/bin/sh
# The benchmark: a mount beside SQLite, RocksDB and the bare disk, in one run on one file system.
#   BENCH_DIR=DIR      where everyone's files are for that time, instead of build/bench; not on a tmpfs
#   SHARDFS=PROGRAM    instead of build/shardfs
#   BENCH_ONLY=readers the part with readers that wait, alone
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

finish() {
	status=$?
	trap '' HUP INT TERM
	[ -z "$bench" ] || kill "$bench" 2>/dev/null || true
	if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
		wait "$pid" || { echo "bench: the mount ended with status $?" >&2; [ "$status" -ne 0 ] || status=1; }
	fi
	! grep -qF " $work/mnt fuse" /proc/mounts || fusermount3 -u -z "$work/mnt"
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
build/release/bench "$work/peers" "$work/mnt" "$pid" "$report" &
bench=$!
wait "$bench"
bench=
