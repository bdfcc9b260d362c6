#!/usr/bin/env bash
# Checks the wheel: builds it from the sources, installs it from its file into a fresh virtual environment without Rust,
# and runs its tests there. TORCH_PYTHON names an interpreter that has PyTorch (and TRL, JAX, ...), by default python3:
# the tests of what it has run too, and the others say what they skip.
set -euo pipefail
cd "$(dirname "$0")"
interpreter=${TORCH_PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$interpreter" -m venv "$folder/venv"
bin=$folder/venv/bin
# The development profile checks arithmetic and assertions, and the gate has compiled most of it already.
MATURIN_PEP517_ARGS="--profile dev --locked" "$bin/pip" wheel --quiet --no-deps --wheel-dir "$folder/wheels" .
env -i PATH=/usr/bin:/bin HOME="$folder" "$bin/pip" install --quiet "$folder"/wheels/*.whl pytest hypothesis

# What the interpreter has beside the standard library, behind what the environment has itself.
if "$interpreter" -c 'import torch' 2>/dev/null; then
  "$interpreter" -c 'import sys; print(*[path for path in sys.path if path.endswith("-packages")], sep="\n")' \
    > "$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/more.pth"
fi
"$bin/python" -m pytest -p no:cacheprovider -rs "$@"
