#!/usr/bin/env bash
# Builds `objective`, `training` and the library part of `lake` for wasm32-unknown-unknown, and compares their results
# in Node with native ones. Needs Node, and the wasm32 target: `rustup target add wasm32-unknown-unknown`, or, on
# Debian, the packages rustc-web, cargo-web, rust-web-src and lld-19, which build the standard library from source.
set -euo pipefail
cd "$(dirname "$0")"
target=wasm32-unknown-unknown
# ndarray-rand turns on rand's defaults; nothing here asks the system for randomness.
flags='--cfg getrandom_backend="unsupported"'
build=(build --lib --locked --target "$target")
if [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
  RUSTFLAGS=$flags cargo "${build[@]}"
elif [ -x /usr/bin/rustc ] && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src" ]; then
  RUSTFLAGS=$flags RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
    /usr/bin/cargo "${build[@]}" -Zbuild-std=std,panic_abort
else
  echo "no standard library for $target: rustup target add $target" >&2
  exit 2
fi
cargo run --locked -- "${CARGO_TARGET_DIR:-target}/$target/debug/wasm.wasm"
