#!/usr/bin/env bash
# Checks `lm` on a GPU, and writes the results as one JSON file: whether the device works, its losses beside those of
# the CPU, the attention kernel, the peak memory of a 7B model at 4 x 1024 tokens with checkpointing, and tokens per
# second beside the same step in PyTorch.
# usage: check.sh [--device cuda|cpu] [--out FILE]    cpu runs the same checks with tiny models
# $PYTHON is a Python with PyTorch 2.11 and transformers; if it is not set, a virtual environment of 5 GB is made once.
set -euo pipefail
cd "$(dirname "$0")/../.."
device=cuda
[ "${1:-}" = --device ] && device=${2:-}
case $device in cuda|cpu) ;; *) echo "check.sh: --device: expected cuda or cpu, got $device" >&2; exit 2 ;; esac

. experiments/programs.sh
python=$(a_python_with_torch)
if [ "$device" = cuda ]; then
  # The engine with the libraries that a GPU needs is the one that is compared with.
  LIBTORCH=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')
  export LIBTORCH
fi
cargo build --quiet -p lm --example steps
exec "$python" experiments/gpu/check.py "$@"
