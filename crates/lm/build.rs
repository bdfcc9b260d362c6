//! Passes the location of libtorch to the linker, and says where to get libtorch if it is missing.

use std::path::PathBuf;

/// Version of libtorch that `tch` supports.
const VERSION: &str = "2.11.0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let folder = PathBuf::from(std::env::var_os("LIBTORCH").unwrap_or_default());
    let version = folder.join("version.py");
    println!("cargo::rerun-if-changed={}", version.display());
    let text = std::fs::read_to_string(&version).unwrap_or_default();
    if !text.contains(&format!("'{VERSION}")) {
        println!("cargo::error=no libtorch {VERSION} at \"{}\": run crates/lm/libtorch.sh", folder.display());
        return;
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.join("lib").display());
}
