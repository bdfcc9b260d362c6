#!/usr/bin/env bash
# Keeps the best checkpoint of a run by its average over the paper's benchmarks, as in the paper: run.sh exports and
# evaluates each, and the best becomes RUN/best-by-benchmarks. `keep_last` of the recipe determines how many checkpoints
# a run keeps. An interrupted script continues when it is called again.
# usage: best.sh RUN [OPTIONS of run.sh]
set -euo pipefail
[ $# -ge 1 ] && [ -d "$1/checkpoints" ] || { echo 'best.sh: usage: best.sh RUN [OPTIONS of run.sh], RUN with checkpoints' >&2; exit 2; }
run=$1 here=$(cd "$(dirname "$0")" && pwd)
shift
. "$here/../programs.sh"
LM=${LM:-$(a_program lm --release)}
export LM
results=()
for name in $(cd "$run/checkpoints" && printf '%s\n' *-* | sort -V); do
  folder=$run/benchmarks/$name
  if [ ! -e "$folder/done" ]; then
    mkdir -p "$folder"
    rm -rf "$folder/model"
    "$LM" export --run "$run" --checkpoint "$name" --out "$folder/model"
    "$here/run.sh" "$folder/model" "$folder/results" "$@"
    touch "$folder/done"
  fi
  results+=("$name=$folder/results")
done
"$LM" compare "${results[@]}" --out "$run/benchmarks"
best=$("$LM" compare "${results[@]}" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["best"])')
rm -rf "$run/best-by-benchmarks"
cp -r "$run/benchmarks/$best/model" "$run/best-by-benchmarks"
echo "best: $best, now $run/best-by-benchmarks"
