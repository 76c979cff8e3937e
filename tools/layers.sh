#!/bin/sh
# The walls of docs/architecture.md: who may include whom. Prints each line that breaks one, and fails.
set -eu
cd "$(dirname "$0")/.."
bad=0

# forbid WHAT PATTERN FILES...: no #include in the files may match the pattern.
forbid() {
	what=$1 pattern=$2
	shift 2
	if grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]$pattern" "$@" /dev/null; then
		echo "layers: $what" >&2
		bad=1
	fi
}

forbid 'kv/ knows nothing above it' '(core|fs|tools|tests)/' kv/*.[ch]
forbid 'core/ knows only kv/' '(fs|tools|tests)/' core/*.[ch]
forbid 'fs/ does not know tools/ and tests/' '(tools|tests)/' fs/*.[ch]
forbid 'tools/ do not know fs/ and tests/' '(fs|tests)/' tools/*.[ch]
forbid 'only fs/ knows FUSE' 'fuse' kv/*.[ch] core/*.[ch] tools/*.[ch]
# shellcheck disable=SC2046
forbid 'only kv/rocks*.c and the benchmark know RocksDB' 'rocksdb/' $(ls kv/*.[ch] core/*.[ch] fs/*.[ch] tools/*.[ch] | grep -vE '^(kv/rocks|tools/bench)')
forbid 'core/ and fs/ see seams, not those who implement them' 'kv/([a-z]*_impl|rocks)\.h' core/*.[ch] fs/*.[ch] tools/*.[ch]
forbid 'fs/ and tools/ see the engine from outside' 'core/([a-z_]*_impl|state_codec|block|cursor|manifest|txn)\.h' fs/*.[ch] tools/*.[ch]

# kv/ and core/ never print, exit or read the environment.
if grep -nE '(^|[^a-z_A-Z0-9])(printf|fprintf|puts|perror|exit|_exit|getenv|secure_getenv|syslog)[[:space:]]*\(' kv/*.[ch] core/*.[ch]; then
	echo 'layers: kv/ and core/ never print, exit or read the environment' >&2
	bad=1
fi
# Calls that cannot be used safely, with nobody to check.
if grep -nE '(^|[^a-z_A-Z0-9])(strcat|sprintf|vsprintf|strtok|atoi|atol|gets|alloca)[[:space:]]*\(' kv/*.[ch] core/*.[ch] fs/*.[ch] tools/*.[ch]; then
	echo 'layers: a banned call' >&2
	bad=1
fi
exit $bad
