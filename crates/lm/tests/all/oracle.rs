//! Code that the tests of models share: tiny checkpoints, recorded answers, and comparison with a tolerance.

use std::path::{Path, PathBuf};

use lm::checkpoint::config::Dtype;
use lm::transformer::model::Transformer;
use serde_json::Value;
use tch::Device;

/// Environment variable with the device of the suite, if it is not a CPU.
pub(crate) const DEVICE: &str = "LM_TEST_DEVICE";

pub(crate) fn device() -> Device {
    let name = std::env::var(DEVICE).unwrap_or_else(|_| "cpu".to_owned());
    lm::device::device(&name).unwrap()
}

pub(crate) fn oracles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracles")
}

pub(crate) fn checkpoint(name: &str) -> PathBuf {
    oracles().join("checkpoints").join(name)
}

pub(crate) fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A tiny checkpoint in a new folder within `parent`, with a tokenizer of the same vocabulary size and room for long
/// prompts.
pub(crate) fn speaking(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).unwrap();
    copy_files(&checkpoint(name), &folder);
    copy_files(&oracles().join("tokenizers/small"), &folder);
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = (1 << 15).into();
    std::fs::write(path, config.to_string()).unwrap();
    folder
}

pub(crate) fn adapter(name: &str) -> PathBuf {
    oracles().join("adapters").join(name)
}

pub(crate) fn model(name: &str) -> Transformer {
    model_in(name, Dtype::Float32)
}

pub(crate) fn model_in(name: &str, dtype: Dtype) -> Transformer {
    Transformer::read(&checkpoint(name), dtype, device()).unwrap()
}

pub(crate) fn answers(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(oracles().join(file)).unwrap()).unwrap()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
pub(crate) fn close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{what}, {index}: {found} is not {expected}");
    }
}
