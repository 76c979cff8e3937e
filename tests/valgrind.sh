#!/bin/sh
# Suites of kv/ and core/ under memcheck: a wrong access, a value used before it is set and a definite leak fail.
# valgrind.sh <where the runners are>; VALGRIND_KV and VALGRIND_CORE name other suites. Left out are those that open
# hundreds of databases or kill: they would take hours, and run under ASan.
set -eu

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
kv=${VALGRIND_KV-"kv/rc kv/consensus kv/blob kv/store kv/fault kv/rocks kv/blob_file kv/store_embedded"}
core=${VALGRIND_CORE-"group machine upkeep_stress write staged compact gc names read lease export check"}
export CK_TIMEOUT_MULTIPLIER=20

run() {
	runner=$1 && shift
	for suite in "$@"; do
		CK_RUN_SUITE=$suite nice valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite \
			--show-leak-kinds=definite --error-exitcode=99 --log-file="$log/%p" "$runner" || status=1
		for f in "$log"/*; do
			grep -qv "unimplemented fcntl command: 1036$" "$f" || continue # F_SET_RW_HINT of RocksDB
			{ head -n 60 "$f" >&2; status=1; }
		done
		rm -f "$log"/*
	done
}

status=0
# shellcheck disable=SC2086
run "$1/run-kv" $kv
# shellcheck disable=SC2086
run "$1/run-core" $core
exit $status
