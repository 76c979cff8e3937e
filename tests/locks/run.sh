#!/bin/sh
# Notes in which order locks are taken while the tests run, and fails when there is a circle. run.sh <build>;
# LOCKS_FS names other suites of fs/ ("all": all of them), one a line.
set -eu

build=$(realpath "$1") out=$(mktemp -d)
export LOCKS_DIR="$build"
trap 'rm -rf "$out"' EXIT
noting() {
	LOCKS_OUT=$1 && shift
	export LOCKS_OUT
	LD_PRELOAD=$build/locks.so "$@"
}

# It has to see what it is there for.
noting "$out/good" "$build/inverted"
python3 tests/locks/order.py "$out/good" >/dev/null
noting "$out/bad" "$build/inverted" inverted
if python3 tests/locks/order.py "$out/bad" 2>/dev/null; then
	echo "locks: a circle is not seen" >&2
	exit 1
fi

status=0
noting "$out/pairs" "$build/tests/run-kv" || status=1
noting "$out/pairs" "$build/tests/run-core" || status=1
fs=${LOCKS_FS-"clients
staged batches
staged commits
writers and wait
holds
ctl
listen
follows
files
metrics
names
batches
options"}
if [ "$fs" = all ]; then
	noting "$out/pairs" "$build/tests/run-fs" || status=1
else
	while read -r suite; do
		CK_RUN_SUITE=$suite noting "$out/pairs" "$build/tests/run-fs" || status=1
	done <<END
$fs
END
fi
python3 tests/locks/order.py "$out/pairs" || status=1
exit $status
