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

python=${PYTHON:-python3}
has() { "$1" -c 'import torch, transformers; assert torch.__version__.startswith("2.11.")' 2>/dev/null; }
if ! has "$python"; then
  python=${XDG_CACHE_HOME:-$HOME/.cache}/objective-lake/peer-2.11.0/bin/python
  if ! has "$python"; then
    python3 -m venv "$(dirname "$python")/.."
    "$python" -m pip install --quiet --disable-pip-version-check torch==2.11.0 transformers==5.23.0 safetensors==0.8.0
  fi
fi
if [ "$device" = cuda ]; then
  # The engine with the libraries that a GPU needs is the one that is compared with.
  LIBTORCH=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')
  export LIBTORCH
fi
cargo build --quiet -p lm --example steps
exec "$python" experiments/gpu/check.py "$@"
