#!/bin/sh
# The tests of kv/ and suites of core/ under memcheck: a wrong access, a value used before it is set and a definite
# leak fail the test that made them. valgrind.sh <where the runners are>; VALGRIND_CORE names other suites of core/.
# Each test is a process of its own: it exits by _exit when it fails, and then what it leaves is no leak.
set -eu

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
suites=${VALGRIND_CORE-"group machine upkeep_stress write staged compact gc names read lease export check"}
export CK_TIMEOUT_MULTIPLIER=20

# run <runner> [suite]
run() {
	CK_RUN_SUITE=${2-} && export CK_RUN_SUITE
	[ -n "$CK_RUN_SUITE" ] || unset CK_RUN_SUITE
	nice valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite \
		--error-exitcode=99 --child-silent-after-fork=no \
		--log-file="$log/%p" "$1" || status=1
	for f in "$log"/*; do
		[ ! -s "$f" ] || { head -n 60 "$f" >&2; status=1; }
	done
	rm -f "$log"/*
}

status=0
[ -n "${VALGRIND_ONLY_CORE-}" ] || run "$1/run-kv"
for suite in $suites; do
	run "$1/run-core" "$suite"
done
exit $status
