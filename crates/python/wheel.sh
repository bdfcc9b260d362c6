#!/usr/bin/env bash
# Builds the wheel for every Linux of x86-64 with glibc 2.17 or newer (manylinux2014) and every CPython from 3.10, and
# installs it into a fresh virtual environment without Rust.
# usage: wheel.sh [FOLDER]    the folder of the wheel, by default target/wheels
set -euo pipefail
cd "$(dirname "$0")"
folder=$(realpath -m "${1:-../../target/wheels}")
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

# Zig links against the symbols of an old glibc, whatever glibc this machine has.
python3 -m venv "$tools/build"
"$tools/build/bin/pip" install --quiet --disable-pip-version-check 'maturin[zig]==1.16.0'
rustup target add x86_64-unknown-linux-gnu 2>/dev/null || true
PATH=$tools/build/bin:$PATH maturin build --release --locked --zig --compatibility manylinux2014 \
  --target x86_64-unknown-linux-gnu --out "$folder"

python3 -m venv "$tools/clean"
wheel=$(ls -t "$folder"/objective_lake-*-cp310-abi3-manylinux*_x86_64.whl | head -1)
env -i PATH=/usr/bin:/bin HOME="$tools" "$tools/clean/bin/pip" install --quiet --disable-pip-version-check "$wheel"
env -i PATH=/usr/bin:/bin "$tools/clean/bin/python" -c '
import objective_lake as ol
answer = ol.objective("sft").evaluate(log_prob=[[-1.0, -3.0]])
assert answer.loss == 2.0, answer'
printf '%s\n' "$wheel"
