#!/usr/bin/env bash
# Checks the wheel: builds it from the sources, installs it from its file into a fresh virtual environment without Rust,
# and runs its tests there beside TRL.
# usage: check.sh [--long] [PYTEST_ARGUMENT...]    --long also runs the tests with JAX, Tinker and verl
# $PYTHON is a Python with PyTorch 2.11 and transformers; if it is not set, a virtual environment of 5 GB is made once.
set -euo pipefail
cd "$(dirname "$0")"
. ../../experiments/programs.sh
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false  # tiny models
long=
[ "${1:-}" != --long ] || { long=1; shift; }

python=$(a_python_with_torch)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
bin=$folder/venv/bin
# The development profile checks arithmetic and assertions.
MATURIN_PEP517_ARGS="--profile dev --locked" "$bin/pip" wheel --quiet --no-deps --wheel-dir "$folder/wheels" .

# usage: install ENVIRONMENT PACKAGE...    the wheel from its file, and packages, without Rust
install() {
  local environment=$1
  shift
  env -i PATH=/usr/bin:/bin HOME="$HOME" "$environment/bin/pip" install --quiet --disable-pip-version-check \
    "$folder"/wheels/*.whl pytest hypothesis "$@"
}

# The environment reads PyTorch where it is, so that it is not copied.
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
  > "$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth"
install "$folder/venv" trl==1.16.0 matplotlib ${long:+jax==0.10.2 tinker==0.38.0}
"$bin/python" -m pytest -p no:cacheprovider -rs "$@"

# verl needs another transformers.
if [ -n "$long" ]; then
  verl=$(a_python verl-0.9.1 'import verl.workers.config' verl==0.9.1 torch==2.11.0)
  "$verl" -m venv "$folder/verl"
  "$verl" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    > "$("$folder/verl/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/verl.pth"
  install "$folder/verl"
  "$folder/verl/bin/python" -m pytest -p no:cacheprovider -rs tests/test_verl.py
fi
