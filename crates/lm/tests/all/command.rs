//! Running of the program as a user does, and comparison of what its runs write.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::oracle::checkpoint;

pub(crate) fn lm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lm")).args(arguments).output().unwrap()
}

#[track_caller]
pub(crate) fn succeeds(arguments: &[&str]) -> String {
    let output = lm(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn fails(arguments: &[&str], expected: &str) {
    let output = lm(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty() && !error.contains("panicked"), "{arguments:?}: {error}");
    assert!(error.contains(expected), "{arguments:?}\n  {error}\n  lacks {expected}");
}

pub(crate) fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

pub(crate) fn lines(values: impl IntoIterator<Item = Value>) -> String {
    values.into_iter().map(|value| value.to_string() + "\n").collect()
}

/// A recipe of two stages, the second with a reference, in the same folder as its data.
pub(crate) fn two_stages(folder: &TempDir, model: &str, more: &str) -> String {
    let ids =
        |index: u32, least: u32| -> Vec<u32> { (0..3 + index % 3).map(|k| least + (7 * index + k) % 40).collect() };
    let pair = |index: u32| json!({"prompt_ids": [5 + index % 9, 6 + index % 4], "chosen_ids": ids(index, 3), "rejected_ids": ids(index, 50)});
    let pairs = write(folder, "pairs.jsonl", &lines((0..12).map(pair)));
    let held_out = write(folder, "held_out.jsonl", &lines((3..9).map(pair)));
    // Fields of `more` replace those here. On shared cores, many threads spend more time waiting for each other than
    // working.
    let own: String =
        ["threads = 1", "batch = 4", "micro_batch = 2", "steps = 8", "learning_rate = 1e-3", "evaluate_every = 3"]
            .into_iter()
            .filter(|line| {
                line.split_once(' ').is_some_and(|(key, _)| more.lines().all(|given| !given.starts_with(key)))
            })
            .map(|line| format!("{line}\n"))
            .collect();
    let text = format!(
        r#"
        model = "{}"
        {own}
        optimizer = {{ name = "adamw" }}
        {more}
        [[stage]]
        method = {{ name = "ift" }}
        data = [{{ path = "{pairs}", learnt = "chosen" }}]
        evaluation = [{{ path = "{held_out}", learnt = "chosen" }}]
        [[stage]]
        method = {{ name = "tdpo" }}
        data = [{{ path = "{pairs}" }}]
        evaluation = [{{ path = "{held_out}" }}]
        "#,
        checkpoint(model).display()
    );
    write(folder, "recipe.toml", &text)
}

/// A recipe of one stage of this method on the pairs of [`two_stages`], whose adapters are trained.
pub(crate) fn adapters(folder: &TempDir, method: &str) -> String {
    let data = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        r#"
        model = "{model}"
        threads = 1
        batch = 4
        micro_batch = 2
        steps = 6
        learning_rate = 1e-2
        lora = {{ rank = 4, alpha = 8 }}
        [[stage]]
        method = {{ name = "{method}" }}
        data = [{{ path = "{pairs}" }}]
        evaluation = [{{ path = "{held_out}" }}]
        "#,
        model = checkpoint("llama").display(),
        pairs = data("pairs.jsonl"),
        held_out = data("held_out.jsonl")
    );
    write(folder, &format!("adapters_{method}.toml"), &text)
}

pub(crate) fn metrics(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asserts that two runs of one recipe have written the same bytes.
#[track_caller]
pub(crate) fn same(one: &Path, other: &Path, trained: &[&str]) {
    for file in ["metrics.jsonl", "recipe.toml"].iter().chain(trained) {
        assert!(std::fs::read(one.join(file)).unwrap() == std::fs::read(other.join(file)).unwrap(), "{file} differs");
    }
}

/// Files of a trained model.
pub(crate) const MODEL: [&str; 2] = ["model/model.safetensors", "model/config.json"];
