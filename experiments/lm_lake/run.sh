#!/usr/bin/env bash
# Trains a language model on the lake, and the lake's own policy beside it: each method trains both from the same
# trajectories, and `lake measure` measures both.
#
# usage: run.sh MODEL OUT [SEEDS [STEPS]]
#
# MODEL is a folder (tiny.py writes a small random model) or a model of the hub. OUT is the folder of the data, the
# trained models' scores and table.md; an interrupted script continues when it is called again. LAKE and LM are the
# programs, built in the checkout if they are not set; STATE is the form of states, `words` or `map`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=${1:?usage: run.sh MODEL OUT [SEEDS [STEPS]]} out=${2:?usage: run.sh MODEL OUT [SEEDS [STEPS]]} seeds=${3:-2} steps=${4:-48}
methods=(sft ift orpo dpo)
declare -A data=([sft]=demonstrations [ift]=demonstrations [orpo]=preferences [dpo]=preferences)
. "$here/../programs.sh"
LAKE=${LAKE:-$(a_program lake)} LM=${LM:-$(a_program lm)}
[ -d "$model" ] && model=$(realpath "$model")
mkdir -p "$out"
# Recipes name their data in the current folder.
cd "$out"

asked="$model, $steps steps, states in ${STATE:=words}"
[ -e asked ] || echo "$asked" >asked
[ "$(cat asked)" = "$asked" ] || { echo "run.sh: OUT: expected a new folder or one of $asked, got one of $(cat asked)" >&2; exit 2; }

[ -e evaluation.jsonl ] || "$LAKE" export --map 4x4 --format lm --state "$STATE" .
# A file of scores appears whole or not at all.
score() { [ -e "$2" ] || "$LM" score --model "$1" --data evaluation.jsonl --out "$2"; }

score "$model" scores-untrained.jsonl
policies=(--policy base=scores-untrained.jsonl)
for ((seed = 0; seed < seeds; seed++)); do
  for method in "${methods[@]}"; do
    scores=scores-$method-$seed.jsonl
    policies+=(--policy "$method=$scores")
    [ ! -e "$scores" ] || continue
    rm -rf trained
    "$LM" train "$here/${data[$method]}.toml" --set stage.0.method.name="$method" --set model="$model" --set seed="$seed" --set steps="$steps" --out trained
    score trained/model "$scores"
    rm -r trained
  done
done
"$LAKE" --method "$(IFS=,; echo "${methods[*]}")" --json >lake-result.json
"$LAKE" measure "${policies[@]}" --json >lm-result.json
"$LAKE" measure "${policies[@]}"
python3 "$here/table.py" lake-result.json lm-result.json | tee table.md
