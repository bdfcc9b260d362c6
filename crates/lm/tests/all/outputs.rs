//! Outputs to paths that are not regular files.

use std::os::unix::fs::{FileTypeExt, symlink};

use serde_json::json;

use crate::command::{fails, lines, succeeds, write};
use crate::oracle::checkpoint;

#[test]
fn scores_are_written_through_a_device_and_behind_a_link_and_no_folder_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let data = write(&folder, "data.jsonl", &lines([json!({"prompt_ids": [1], "response_ids": [2, 3]})]));
    let model = checkpoint("llama").display().to_string();
    let score = |name: &str| {
        ["score", "--model", &model, "--data", &data, "--out", at(name).to_str().unwrap()].map(str::to_owned)
    };
    let run = |name: &str| succeeds(&score(name).each_ref().map(String::as_str));

    symlink("/dev/null", at("device")).unwrap();
    symlink("kept.jsonl", at("link")).unwrap();
    run("device");
    run("link");
    for name in ["device", "link"] {
        assert!(std::fs::symlink_metadata(at(name)).unwrap().is_symlink(), "{name}");
    }
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(std::fs::read_to_string(at("kept.jsonl")).unwrap().contains("log_prob"));
    // A path that leads to standard output is appended to.
    assert!(succeeds(&["score", "--model", &model, "--data", &data, "--out", "/dev/stdout"]).contains("log_prob"));

    std::fs::create_dir(at("folder")).unwrap();
    let expected = "folder: expected a regular file, a character device or a pipe, got a folder";
    fails(&score("folder").each_ref().map(String::as_str), expected);
    let merged = ["merge", "--model", &model, "--adapter", &model, "--out", at("kept.jsonl").to_str().unwrap()]
        .map(str::to_owned);
    fails(&merged.each_ref().map(String::as_str), "");
    assert!(at("kept.jsonl").is_file());
}
