#!/usr/bin/env bash
# Downloads libtorch 2.11.0 for `lm` from PyTorch's wheel on PyPI, once for all checkouts of a user, and writes its
# location to .cargo/libtorch.toml for cargo. Prints the environment variables for builds without cargo's configuration.
# usage: libtorch.sh [--cuda]    --cuda also downloads the libraries that a GPU needs (5 GB in all, 1.4 GB without)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
version=2.11.0
packages=(torch==$version nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
deps=(--no-deps)
name=libtorch-$version
case "${1:-}" in
  '') ;;
  --cuda) packages=(torch==$version) deps=() name+=-cuda ;;
  *) echo "usage: libtorch.sh [--cuda]" >&2; exit 2 ;;
esac
cache=${XDG_CACHE_HOME:-$HOME/.cache}/objective-lake
folder=$cache/$name

if [ ! -d "$folder" ]; then
  command -v python3 >/dev/null || { echo 'libtorch.sh: python3 with pip is needed to fetch a wheel' >&2; exit 2; }
  mkdir -p "$cache"
  fetched=$(mktemp -d "$cache/.$name-XXXXXX")
  trap 'rm -rf "$fetched"' EXIT
  python3 -m pip install --quiet --disable-pip-version-check --no-compile --only-binary=:all: "${deps[@]}" \
    --target "$fetched" "${packages[@]}" >&2
  # By this name, and beside the engine, it is found without a development package.
  nccl=nvidia/nccl/lib/libnccl.so.2
  [ ! -e "$fetched/$nccl" ] || ln -s "../../$nccl" "$fetched/torch/lib/libnccl.so"
  # Somebody else may have been faster.
  mv -T "$fetched" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
# A path in TOML's literal quotes is taken as it is.
printf "# Written by crates/lm/libtorch.sh.\n[env]\nLIBTORCH = { value = '%s', relative = false }\n" "$folder/torch" > "$root/.cargo/.libtorch.toml"
mv "$root/.cargo/.libtorch.toml" "$root/.cargo/libtorch.toml"
printf 'export LIBTORCH=%q OMP_WAIT_POLICY=passive\n' "$folder/torch"
