#!/bin/sh
# Run fuzz targets one after the other for FUZZ_S seconds each (60), over the inputs that are kept:
#     run.sh FOLDER-OF-PROGRAMS TARGET...
# FUZZ_CORPUS: a folder where new inputs are kept from run to run, by target; without it they go with the run. What
# breaks a promise, leaks, hangs for 10 s or takes 1 GiB ends its target and is left in FUZZ_OUT (build/fuzz/found).
set -u
programs=$1
shift
here=$(dirname "$0")
seconds=${FUZZ_S:-60}
found=${FUZZ_OUT:-build/fuzz/found}
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
corpus=${FUZZ_CORPUS:-$scratch}
mkdir -p "$found" || exit 1
status=0

printf '%-10s %10s %8s %9s %6s  %s\n' target execs exec/s coverage new result
for t in "$@"; do
	log=$found/$t.log
	kept=
	for d in "$here/corpus/$t" "$here/../regress/fuzz/$t"; do
		[ -d "$d" ] && kept="$kept $d"
	done
	[ -f "$here/$t.dict" ] && kept="$kept -dict=$here/$t.dict"
	mkdir -p "$corpus/$t" || exit 1
	# shellcheck disable=SC2086
	if "$programs/$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 \
		-print_final_stats=1 -artifact_prefix="$found/$t-" "$corpus/$t" $kept >"$log" 2>&1; then
		result=clean
	else
		result="broken: see $log"
		status=1
	fi
	awk -v t="$t" -v result="$result" '
		/ cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
		/^stat::number_of_executed_units:/ { execs = $2 }
		/^stat::average_exec_per_sec:/ { rate = $2 }
		/^stat::new_units_added:/ { new = $2 }
		END { printf "%-10s %10d %8d %9d %6d  %s\n", t, execs, rate, cov, new, result }' "$log"
done
exit $status
