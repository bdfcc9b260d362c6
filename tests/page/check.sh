#!/usr/bin/env bash
# Opens report pages in headless Chromium and checks what only a browser can check (see check.mjs). Screenshots are
# written to the given folder. Needs Chromium and Node.
set -euo pipefail
shots=$(realpath -m "${1:?usage: tests/page/check.sh FOLDER}")
cd "$(dirname "$0")/../.."
mkdir -p "$shots"
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT

report() { cargo run --quiet --locked -p lake -- --out "$reports/$1" "${@:2}" >/dev/null; }
report few --recipe experiments/paper.toml --seeds 16 --explain
report one --method ift --seeds 1 --steps 1
report many --method all --map 8x8 --slippery --seeds 2 --steps 60 --explain

node tests/page/check.mjs "$shots" "$reports"/{few,one,many}/report.html
