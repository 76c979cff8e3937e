#!/bin/sh
# The benchmark: a mount beside SQLite, PostgreSQL, etcd, RocksDB and the bare disk, in one run on one file system.
#   BENCH_DIR=DIR      where everyone's files are for that time, instead of build/bench; not on a tmpfs
#   SHARDFS=PROGRAM    instead of build/shardfs
#   BENCH_ONLY=PARTS   these alone, parted by commas: append open clients blind import read batch disk asof listen
#                      many, which are run unasked, and readers, upkeep
#   BENCH_FULL=1       readers and upkeep too, and a history of 1,000,000 versions; more than half an hour
#   BENCH_ROUNDS=3 BENCH_ROWS=1000000 ...   sizes: tools/bench_report.h
#   UPKEEP_...         the sizes of upkeep (bench_upkeep.h), and UPKEEP_PARTS: a overwriting, b single rows,
#                      c many shards, d many versions
# The report is build/bench/report.md, with plots beside it. Servers are private to the run and end with it. What
# cannot be installed is left out, and the report says so.
set -eu
[ -z "${SHARDFS:-}" ] || SHARDFS=$(realpath "$SHARDFS")
[ -z "${BENCH_DIR:-}" ] || BENCH_DIR=$(realpath "$BENCH_DIR")
cd "$(dirname "$0")/.."
sh tools/deps.sh --bench
${MAKE:-make} --no-print-directory -s all build/release/bench

shardfs=$(realpath "${SHARDFS:-build/shardfs}")
mkdir -p build/bench
out=$PWD/build/bench
rm -f "$out"/*.md "$out"/*.dat "$out"/*.svg
work=$(mktemp -d "${BENCH_DIR:-$out}/run.XXXXXX")
chmod 711 "$work"
pid='' bench=''
# shellcheck source=tools/bench_servers.sh
. tools/bench_servers.sh

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
	stop_servers
	# Stores that the benchmark mounted itself, if it could not end as it should.
	for owner in "$work"/peers/*.store/OWNER; do
		[ ! -s "$owner" ] || stop_owner "$(sed -n 's/.* pid=\([0-9]*\) .*/\1/p' "$owner")"
	done
	for mnt in "$work/mnt" "$work"/peers/*.mnt; do
		! grep -qF " $mnt fuse" /proc/mounts || fusermount3 -u -z "$mnt"
	done
	[ ! -e "$out/header.md" ] || write_report
	rm -rf "$work"
	exit "$status"
}

version() {
	dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo '?'
}

missing() {
	[ -z "$2" ] || echo "**$1 is missing**: $2."
}

header() {
	echo "# shardfs: benchmark"
	echo
	cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
	echo "$(date -u '+%Y-%m-%d %H:%M UTC'), $(nproc) x ${cpu:-$(uname -m)}, Linux $(uname -r)," \
		"all files on $fs, load average at the start $(cut -d ' ' -f 1 /proc/loadavg), commit $(git rev-parse --short HEAD 2>/dev/null || echo '?')."
	echo "SQLite $(version libsqlite3-0) (WAL, synchronous=FULL), RocksDB $(version librocksdb-dev) (sync)," \
		"PostgreSQL $(version postgresql-15) (fsync, synchronous_commit=on), etcd $(version etcd-server) (one member)."
	[ "$(cut -d . -f 1 /proc/loadavg)" -lt "$(nproc)" ] ||
		echo "**The machine was busy with something else**: the figures mean little."
	missing PostgreSQL "$pg_missing"
	missing etcd "$etcd_missing"
	echo
	echo "Everyone does the same work with the same durability on the same disk in this run, in turn, round by round."
	echo "A figure is the median of the rounds (least..most). A ratio is taken inside each round; their median decides."
	echo
	echo "| work | measured | target | | figures | floor in this run |"
	echo "|:-|:-|:-|:-|:-|:-|"
}

plots() {
	command -v gnuplot >/dev/null || { printf '\ngnuplot is missing: no plots.\n'; return; }
	gnuplot -e "dir='$out'" tools/bench_plot.gp >&2 || printf '\ngnuplot failed: not all plots are there.\n'
	for plot in latency clients blind bulk; do
		[ ! -s "$out/$plot.svg" ] || printf '\n![%s](%s.svg)\n' "$plot" "$plot"
	done
}

write_report() {
	{
		cat "$out/header.md" "$out/targets.md" 2>/dev/null || true
		[ "$status" -eq 0 ] || printf '\n**The run did not come to its end (status %s).**\n' "$status"
		printf '\nLoad average at the end: %s.\n' "$(cut -d ' ' -f 1 /proc/loadavg)"
		plots
		cat "$out/details.md" 2>/dev/null || true
	} >"$out/report.md"
	rm -f "$out/header.md" "$out/targets.md" "$out/details.md"
	echo "bench: the report is $out/report.md" >&2
}

trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fs=$(findmnt -n -o FSTYPE -T "$work" || stat -f -c %T "$work")
if [ "$fs" = tmpfs ]; then
	echo "bench: $work is on a tmpfs, where nothing is durable; choose another BENCH_DIR" >&2
	exit 1
fi
mkdir "$work/mnt" "$work/peers"
# Maintenance and readers are measured with nobody else on the machine.
case ${BENCH_ONLY:-all} in
upkeep | readers | readers,upkeep | listen) pg_missing='it is not asked for' etcd_missing='it is not asked for' ;;
*)
	start_pg
	start_etcd
	;;
esac
"$shardfs" -f "$work/store" "$work/mnt" &
pid=$!
if ! wait_for "$pid" sh -c "grep -qF ' $work/mnt fuse' /proc/mounts && [ -r '$work/mnt/README' ]"; then
	echo "bench: the mount did not start" >&2
	exit 1
fi
header | tee "$out/header.md"
# In the background, so that a signal to this script is not kept waiting until the end.
build/release/bench "$work/peers" "$work/mnt" "$pid" "$out" "$shardfs" &
bench=$!
wait "$bench"
bench=
