# What scripts of experiments share: the programs that they run. To be sourced.

# A Python whose packages pass a check: $PYTHON where it does, otherwise one of its own, made once.
# usage: a_python NAME CHECK PACKAGE...
a_python() {
  local python=${PYTHON:-python3} name=$1 check=$2
  shift 2
  if ! "$python" -c "$check" 2>/dev/null; then
    python=${XDG_CACHE_HOME:-$HOME/.cache}/objective-lake/$name/bin/python
    if ! "$python" -c "$check" 2>/dev/null; then
      python3 -m venv "$(dirname "$python")/.." >&2
      "$python" -m pip install --quiet --disable-pip-version-check "$@" >&2
    fi
  fi
  printf '%s\n' "$python"
}

# A Python with PyTorch 2.11 and transformers; without one, a virtual environment of 5 GB is made once.
a_python_with_torch() {
  a_python peer-2.11.0 'import torch, transformers; assert torch.__version__.startswith("2.11.")' \
    torch==2.11.0 transformers==5.23.0 safetensors==0.8.0
}

# A program of the workspace, built with these options.
# usage: a_program NAME [--release]
a_program() {
  local root name=$1
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  # Cargo looks for its configuration from where it is called.
  (cd "$root" && cargo build --quiet -p "$@" >&2 && printf '%s/%s/%s\n' "$(realpath "${CARGO_TARGET_DIR:-target}")" "$([ "${2:-}" = --release ] && echo release || echo debug)" "$name")
}
