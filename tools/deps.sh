#!/bin/sh
# Install by apt what building, testing or the demo lacks. Silent, and no root needed, when nothing is missing.
# --check adds what only the tests run, --bench what only `make bench` compares with, --clang what only `make clang`
# compiles with, --fuzz what `make fuzz` does.
set -eu

need="gcc make pkg-config libc6-dev protobuf-c-compiler libprotobuf-c-dev libfuse3-dev fuse3 libzstd-dev
uuid-dev librocksdb-dev libjansson-dev libxxhash-dev libsystemd-dev uthash-dev check python3"
[ "${1:-}" = --check ] && need="$need nodejs openjdk-17-jre-headless golang-go python3-prometheus-client"
[ "${1:-}" = --bench ] && need="$need libsqlite3-dev"
[ "${1:-}" = --clang ] && need="$need clang"
[ "${1:-}" = --fuzz ] && need="$need clang libclang-rt-dev"

missing=
for package in $need; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || { echo "to install$missing, run as root or install sudo" >&2; exit 1; }
	as_root=sudo
fi
echo "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
if ! { $as_root apt-get update -q &&
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	exit 1
fi
