#!/bin/sh
# What reads the code without running it: cppcheck, gcc's -fanalyzer and clang-tidy (.clang-tidy says what it looks
# for) over kv/, core/, fs/ and tools/. Every finding is a failure. A false one is rewritten so that it can be seen
# to be false, or left out on its line with the reason. ANALYSE names the tools to run, JOBS how many at once.
set -eu

gen=build/check/gen
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c17 -D_GNU_SOURCE -DCORE_SLOW_CHECKS -I. -I$gen $(pkg-config --cflags libzstd \
	libprotobuf-c libxxhash fuse3 jansson libsystemd sqlite3 libpq libcurl)"
# Leaks are left to LeakSanitizer, with every allocation failing in turn: gcc 12 takes what is given away as its
# first member (&job->job) for lost.
gcc="-O1 -g -fanalyzer -Wno-analyzer-malloc-leak -Werror"

run_cppcheck() {
	# shellcheck disable=SC2086
	nice cppcheck -q -j "$JOBS" --std=c11 --enable=warning,performance,portability --inline-suppr \
		--library=tools/cppcheck.cfg --error-exitcode=1 -I. -D_GNU_SOURCE \
		"-D_Noreturn=__attribute__((noreturn))" kv core fs tools
}

# The header tells what they cannot see; the file that defines it cannot have it.
each() {
	for file in kv/*.c core/*.c fs/*.c tools/*.c; do
		with="-include tools/analyse.h"
		[ "$file" = kv/rc.c ] && with=
		echo "$file${with:+ $with}"
	done
}
run_fanalyzer() {
	# shellcheck disable=SC2086
	each | nice xargs -P "$JOBS" -L 1 gcc $gcc $flags -c -o /dev/null 2>"$out/log" || {
		grep -A 3 'error:' "$out/log"
		return 1
	}
}
run_tidy() {
	# shellcheck disable=SC2016,SC2086
	each | FLAGS=$flags nice xargs -P "$JOBS" -L 1 sh -c \
		'file=$1 && shift && exec clang-tidy --quiet "$file" -- $FLAGS "$@" 2>/dev/null' tidy
}

JOBS=${JOBS:-2}
status=0
for tool in ${ANALYSE:-cppcheck fanalyzer tidy}; do
	if "run_$tool"; then
		echo "$tool: clean"
	else
		echo "$tool: see above" >&2
		status=1
	fi
done
exit $status
