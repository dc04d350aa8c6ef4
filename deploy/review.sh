#!/bin/sh
# Writes what this tree changes against a Git revision: build/review/figures.md, and its plots in
# index.html beside it if DVC's cache or remote has their data. A pull request shows the first.
set -eu
cd "$(dirname "$0")/.."
base=$1
short=$(git rev-parse --short "$base")
out=build/review
rm -rf "$out" && mkdir -p "$out"

# Says a table of DVC's, if it has rows.
table() {
  text=$(dvc "$1" diff --md "$base")
  printf '\n### %s\n\n' "$2"
  if [ "$(printf '%s\n' "$text" | wc -l)" -gt 2 ]; then printf '%s\n' "$text"; else echo "No difference."; fi
}

{
  printf '## Figures against `%s`\n' "$short"
  table metrics Metrics
  table params "Picks, and settings of the best run"
  # What is only absent, as all data in a fresh clone, is no sign of a change.
  status=$(dvc status)
  stale=$(printf '%s\n' "$status" | sed -n 's/^.*modified: *\(.*\)/- `\1`/p' | sort -u)
  [ -z "$stale" ] || printf '\n### Not rebuilt\n\n%s\n\n%s\n' \
    'These changed after the figures were recorded. Run `make repro`, commit `dvc.lock` and `reports`:' "$stale"
} > "$out/figures.md"
dvc plots diff --out "$out" "$base"
grep -qs '"values"\|<img' "$out/index.html" || rm -f "$out/index.html"  # DVC also writes a page of nothing
cat "$out/figures.md"
