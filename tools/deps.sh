#!/bin/sh
# Install by apt what building, testing or the demo lacks. Silent, and no root needed, when nothing is missing.
# --check adds what only the tests run, --bench what only `make bench` compares with, --clang what only `make clang`
# compiles with, --fuzz what `make fuzz` does,
# --analyse and --valgrind what those two run. Servers to compare with, and gnuplot, are tried one by one: what
# cannot be had is said, and is no failure.
set -eu

need="gcc make pkg-config libc6-dev protobuf-c-compiler libprotobuf-c-dev libfuse3-dev fuse3 libzstd-dev
uuid-dev librocksdb-dev libjansson-dev libxxhash-dev libsystemd-dev uthash-dev check python3"
[ "${1:-}" = --check ] && need="$need nodejs openjdk-17-jre-headless golang-go python3-prometheus-client"
[ "${1:-}" = --bench ] && need="$need libsqlite3-dev libpq-dev libcurl4-openssl-dev"
[ "${1:-}" = --clang ] && need="$need clang"
[ "${1:-}" = --fuzz ] && need="$need clang libclang-rt-dev"
[ "${1:-}" = --analyse ] && need="$need cppcheck clang-tidy libsqlite3-dev libpq-dev libcurl4-openssl-dev"
[ "${1:-}" = --valgrind ] && need="$need valgrind libc6-dbg"

absent() {
	for package in $1; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf ' %s' "$package"
	done
}
missing=$(absent "$need")
wished=
[ "${1:-}" = --bench ] && wished=$(absent "postgresql-15 etcd-server gnuplot-nox")
[ -n "$missing$wished" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "to install$missing$wished, run as root or install sudo" >&2
		[ -z "$missing" ] && exit 0 || exit 1
	fi
	as_root=sudo
fi
log=$(mktemp)
guard=/usr/sbin/policy-rc.d guarded=
finish() {
	rm -f "$log"
	[ -z "$guarded" ] || $as_root rm -f "$guard"
}
trap finish EXIT

install() {
	# shellcheck disable=SC2086
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $1 >"$log" 2>&1
}
$as_root apt-get update -q >"$log" 2>&1 || [ -z "$missing" ] || { tail -n 20 "$log" >&2; exit 1; }
if [ -n "$missing" ]; then
	echo "installing$missing"
	install "$missing" || { tail -n 20 "$log" >&2; exit 1; }
fi
[ -n "$wished" ] || exit 0
# The benchmark starts servers of its own; those of Debian are not started by being installed.
if [ ! -e "$guard" ]; then
	printf '#!/bin/sh\nexit 101\n' | $as_root tee "$guard" >/dev/null
	guarded=yes
	$as_root chmod 755 "$guard"
fi
for package in $wished; do
	echo "installing $package"
	install "$package" || echo "$package cannot be installed, and is left out: $(tail -n 1 "$log")" >&2
done
