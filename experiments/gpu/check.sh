#!/usr/bin/env bash
# Checks `lm` on a GPU, and writes what it found as one JSON: whether the device answers, losses beside those of the CPU, the attention
# kernel, peak memory of a 7B at 4 x 1024 tokens with checkpointing, and tokens/s beside the same step in PyTorch.
# usage: check.sh [--device cuda|cpu] [--out FILE]    cpu goes the same ways with tiny models
# The Python is $PYTHON where that has PyTorch 2.11 and transformers; otherwise one of its own is made once, of 5 GB.
set -euo pipefail
cd "$(dirname "$0")/../.."
device=cuda
[ "${1:-}" = --device ] && device=${2:-}
case $device in cuda|cpu) ;; *) echo "check.sh: --device: expected cuda or cpu, got $device" >&2; exit 2 ;; esac

. experiments/programs.sh
python=$(a_python peer-2.11.0 'import torch, transformers; assert torch.__version__.startswith("2.11.")' \
  torch==2.11.0 transformers==5.23.0 safetensors==0.8.0)
if [ "$device" = cuda ]; then
  # The engine with the libraries that a GPU needs is the one that is compared with.
  LIBTORCH=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')
  export LIBTORCH
fi
cargo build --quiet -p lm --example steps
exec "$python" experiments/gpu/check.py "$@"
