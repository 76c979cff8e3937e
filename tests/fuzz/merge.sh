#!/bin/sh
# Make the corpora anew: what covers most, of what is kept, of DIR/<target> and of the seeds. After `make fuzz`.
#     merge.sh DIR
set -eu
cd "$(dirname "$0")/../.."
from=$1
make -s V=fuzz build/fuzz/replay/seeds
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
build/fuzz/replay/seeds "$scratch/seeds"
for program in build/fuzz/fuzz/*; do
	t=${program##*/}
	mkdir -p "$scratch/$t" "$from/$t" "tests/fuzz/corpus/$t"
	"$program" -set_cover_merge=1 -rss_limit_mb=1024 -timeout=10 "$scratch/$t" "$scratch/seeds/$t" "tests/fuzz/corpus/$t" \
		"$from/$t" >"$scratch/$t.log" 2>&1 || { tail -n 20 "$scratch/$t.log" >&2; exit 1; }
	rm -rf "tests/fuzz/corpus/$t"
	mv "$scratch/$t" "tests/fuzz/corpus/$t"
	echo "$t: $(find "tests/fuzz/corpus/$t" -type f | wc -l) inputs"
done
