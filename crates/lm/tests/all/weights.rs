//! Invalid checkpoints are rejected with the tensor's name, and written ones can be read back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lm::checkpoint::config::{Dtype, read_config};
use lm::checkpoint::folder;
use lm::checkpoint::weights::{INDEX_FILE, WEIGHTS_FILE, write};
use lm::train::policy::LmPolicy;
use lm::transformer::model::Transformer;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as StoredDtype, TensorView};
use serde_json::{Value, json};
use tch::Device;
use tempfile::TempDir;

use crate::oracle::{checkpoint, copy_files, model};

/// A copy of a checkpoint for damaging.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_files(&checkpoint(name), folder.path());
    folder
}

#[track_caller]
fn refused(folder: &Path, message: &str) {
    let error = Transformer::read(folder, Dtype::Float32, Device::Cpu).unwrap_err().to_string();
    let message = message.replace("FOLDER", &folder.display().to_string());
    assert_eq!(error, message);
}

/// Replaces a file by its tensors after `change`.
fn rewrite(path: &Path, change: impl FnOnce(&mut HashMap<String, (StoredDtype, Vec<usize>, Vec<u8>)>)) {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: HashMap<_, _> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut all);
    let views: Vec<_> = all
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()))
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn weights(folder: &TempDir) -> PathBuf {
    folder.path().join(WEIGHTS_FILE)
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = copy("llama");
    std::fs::remove_file(weights(&folder)).unwrap();
    refused(folder.path(), "FOLDER/model.safetensors: No such file or directory (os error 2)");
}

#[test]
fn a_file_that_was_cut_is_refused_wherever_it_was() {
    let folder = copy("llama");
    let bytes = std::fs::read(weights(&folder)).unwrap();
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(weights(&folder), &bytes[..length]).unwrap();
        let error = Transformer::read(folder.path(), Dtype::Float32, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(WEIGHTS_FILE), "{error}");
        assert!(error.contains(&length.to_string()), "{error}");
    }
    std::fs::write(weights(&folder), b"not safetensors at all").unwrap();
    let error = Transformer::read(folder.path(), Dtype::Float32, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("does not fit in a file of 22 bytes"), "{error}");
}

#[test]
fn tensors_that_are_missing_strange_or_of_another_shape_are_named() {
    let folder = copy("mistral");
    rewrite(&weights(&folder), |tensors| _ = tensors.remove("model.layers.1.mlp.up_proj.weight"));
    refused(folder.path(), "FOLDER: model.layers.1.mlp.up_proj.weight is missing");

    let folder = copy("mistral");
    rewrite(&weights(&folder), |tensors| {
        tensors.insert("model.layers.9.mlp.up_proj.weight".to_owned(), (StoredDtype::F32, vec![1], vec![0; 4]));
    });
    refused(
        folder.path(),
        "FOLDER/model.safetensors: model.layers.9.mlp.up_proj.weight is not a parameter of this model",
    );

    let folder = copy("mistral");
    rewrite(&weights(&folder), |tensors| {
        tensors.insert("model.norm.weight".to_owned(), (StoredDtype::F32, vec![4, 8], vec![0; 128]));
    });
    refused(folder.path(), "FOLDER/model.safetensors: model.norm.weight expected the shape [32], got [4, 8]");

    let folder = copy("mistral");
    rewrite(&weights(&folder), |tensors| {
        tensors.insert("model.norm.weight".to_owned(), (StoredDtype::I32, vec![32], vec![0; 128]));
    });
    refused(folder.path(), "FOLDER/model.safetensors: model.norm.weight expected F32, F16 or BF16, got I32");
}

#[test]
fn a_table_that_is_stored_twice_or_computed_is_passed_over() {
    let folder = copy("gemma");
    rewrite(&weights(&folder), |tensors| {
        let table = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".to_owned(), table);
        tensors.insert(
            "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(),
            (StoredDtype::F32, vec![8], vec![0; 32]),
        );
    });
    Transformer::read(folder.path(), Dtype::Float32, Device::Cpu).unwrap();
}

#[test]
fn an_index_that_lies_is_refused() {
    let index = |folder: &TempDir, change: &dyn Fn(&mut Value)| {
        let path = folder.path().join(INDEX_FILE);
        let mut index: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut index);
        std::fs::write(path, index.to_string()).unwrap();
    };
    let folder = copy("llama-sharded");
    index(&folder, &|index| index["weight_map"]["model.norm.weight"] = json!("../model.safetensors"));
    let path = folder.path().join(INDEX_FILE);
    refused(
        folder.path(),
        &format!(
            "{}: weight_map: expected names of files in the same folder, got ../model.safetensors",
            path.display()
        ),
    );

    let folder = copy("llama-sharded");
    index(&folder, &|index| *index = json!({"weights": {}}));
    let error = Transformer::read(folder.path(), Dtype::Float32, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("missing field `weight_map`"), "{error}");

    let folder = copy("llama-sharded");
    let shard = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .unwrap();
    std::fs::remove_file(&shard).unwrap();
    refused(folder.path(), &format!("{}: No such file or directory (os error 2)", shard.display()));
}

#[test]
fn what_is_written_is_read_back_whole_or_in_shards() {
    for name in ["llama", "gemma", "qwen2-sliding"] {
        let policy = LmPolicy::frozen(model(name));
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        folder::write(&target, &checkpoint(name), &policy.parameters(), Dtype::Float32).unwrap();
        assert_eq!(read_config(&target).unwrap().dtype, Some(Dtype::Float32));
        let again = Transformer::read(&target, Dtype::Float32, Device::Cpu).unwrap();
        assert!(policy.model().parameters().into_iter().zip(again.parameters()).all(|(a, b)| a == b));
        // An existing folder is not overwritten.
        let error = folder::write(&target, &checkpoint(name), &policy.parameters(), Dtype::Float32).unwrap_err();
        assert!(error.to_string().contains("model"), "{error}");

        let sharded = copy(name);
        std::fs::remove_file(weights(&sharded)).unwrap();
        write(sharded.path(), &policy.parameters(), Dtype::Float32, 20_000).unwrap();
        assert!(sharded.path().join(INDEX_FILE).exists());
        let again = Transformer::read(sharded.path(), Dtype::Float32, Device::Cpu).unwrap();
        assert!(policy.model().parameters().into_iter().zip(again.parameters()).all(|(a, b)| a == b));
    }
}

/// A file of these tensors of one number, whose header is the given text.
fn with_header(header: &str, bytes: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    length.into_iter().chain(header.bytes()).chain(std::iter::repeat_n(0, bytes)).collect()
}

#[test]
fn headers_with_a_name_twice_or_null_metadata_are_refused() {
    let one = |name: &str| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#);
    for (header, problem) in [
        (format!("{{{},{}}}", one("a"), one("a")), "header: duplicate key \"a\""),
        (format!(r#"{{"__metadata__":{{"x":"1","x":"2"}},{}}}"#, one("a")), "header: duplicate key \"x\""),
        (
            format!(r#"{{"__metadata__":null,{}}}"#, one("a")),
            "header: __metadata__: expected an object of strings, or the key to be absent, got null",
        ),
    ] {
        let folder = copy("llama");
        std::fs::write(weights(&folder), with_header(&header, 4)).unwrap();
        let error = Transformer::read(folder.path(), Dtype::Float32, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(&format!("model.safetensors: {problem}")), "{error}");
    }
}

#[test]
fn an_index_must_name_the_shard_of_each_tensor_and_no_tensor_twice() {
    let folder = copy("llama-sharded");
    let path = folder.path().join(INDEX_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let norm = index["weight_map"]["model.norm.weight"].as_str().unwrap();
    let other = index["weight_map"].as_object().unwrap().values().find(|file| *file != norm).unwrap().as_str().unwrap();
    let mut wrong = index.clone();
    wrong["weight_map"]["model.norm.weight"] = json!(other);
    std::fs::write(&path, wrong.to_string()).unwrap();
    refused(
        folder.path(),
        &format!(
            "FOLDER/{other}: model.norm.weight should be in this file according to {INDEX_FILE}, but is in FOLDER/{norm}"
        ),
    );
    let mut null = index;
    null["metadata"] = Value::Null;
    std::fs::write(&path, null.to_string()).unwrap();
    refused(
        folder.path(),
        &format!("FOLDER/{INDEX_FILE}: metadata: expected an object, or the field to be absent, got null"),
    );
    let twice = text.replacen("\"weight_map\": {", "\"weight_map\": {\"model.norm.weight\": \"a\",", 1);
    std::fs::write(&path, twice).unwrap();
    let error = Transformer::read(folder.path(), Dtype::Float32, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("duplicate key \"model.norm.weight\""), "{error}");
}

#[test]
fn pointers_of_git_lfs_are_refused_as_what_they_are() {
    for name in [WEIGHTS_FILE, "config.json"] {
        let folder = copy("llama");
        std::fs::write(folder.path().join(name), "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
            .unwrap();
        let problem =
            "expected the file itself, got a pointer of git-lfs: `git lfs pull` in its folder fetches the file";
        refused(folder.path(), &format!("FOLDER/{name}: {problem}"));
    }
}

/// A checkpoint of 32-bit numbers, with one number of a norm replaced.
pub(crate) fn with_number(name: &str, number: f32) -> TempDir {
    let folder = copy(name);
    rewrite(&weights(&folder), |tensors| {
        let (_, _, bytes) = tensors.get_mut("model.norm.weight").unwrap();
        bytes[12..16].copy_from_slice(&number.to_le_bytes());
    });
    folder
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_their_tensor_when_they_are_read_and_written() {
    for number in [f32::NAN, f32::INFINITY] {
        let folder = with_number("llama", number);
        let problem = "expected finite numbers, got infinity or NaN at [3]";
        refused(folder.path(), &format!("FOLDER/model.safetensors: model.norm.weight {problem}"));
    }
    let large = with_number("llama", 1e6);
    let model = Transformer::read(large.path(), Dtype::Float32, Device::Cpu).unwrap();
    let error = Transformer::read(large.path(), Dtype::Float16, Device::Cpu).unwrap_err().to_string();
    assert!(error.ends_with("model.norm.weight has numbers that overflow in float16"), "{error}");
    let target = large.path().join("narrow");
    let error = folder::write(&target, large.path(), &model.trained(), Dtype::Float16).unwrap_err().to_string();
    let problem = "cannot be written as float16: expected finite numbers, got infinity or NaN at [3]";
    assert!(error.ends_with(&format!("model.norm.weight {problem}")), "{error}");
    assert!(!target.exists());
    folder::write(&target, large.path(), &model.trained(), Dtype::Bfloat16).unwrap();
}
