//! Recorded answers of other programs.

use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) fn oracles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracles")
}

pub(crate) fn answers(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(oracles().join(file)).unwrap()).unwrap()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}
