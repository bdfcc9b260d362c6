//! Reading and writing of models' folders: nothing is lost, half-written, or copied from outside.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{adapters, fails, lines, succeeds, two_stages, write};
use crate::oracle::{adapter, checkpoint, copy_files, ids, oracles};
use crate::weights::with_number;

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn score_and_merge_refuse_weights_that_are_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let broken = with_number("llama", f32::NAN);
    let data = write(&folder, "data.jsonl", &lines([json!({"prompt_ids": [3], "response_ids": [4]})]));
    let (model, adapter, merged) = (text(broken.path()), text(adapter("llama")), text(folder.path().join("merged")));
    let named = "model.safetensors: model.norm.weight expected finite numbers, got infinity or NaN at [3]";
    fails(&["score", "--model", &model, "--data", &data], named);
    fails(&["merge", "--model", &model, "--adapter", &adapter, "--out", &merged], named);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn score_refuses_what_is_beyond_the_model_s_positions_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let response: Vec<u32> = (0..130).map(|place| 3 + place % 90).collect();
    let lines =
        lines([json!({"prompt_ids": [3], "response_ids": [4]}), json!({"prompt_ids": [3], "response_ids": response})]);
    let data = write(&folder, "data.jsonl", &lines);
    let model = text(checkpoint("gemma"));
    let refused =
        "data.jsonl:2: expected at most 128 tokens, the model's max_position_embeddings, got 131; --max-length 131";
    fails(&["score", "--model", &model, "--data", &data], refused);
    let scored = |length: &str| {
        let printed = succeeds(&["score", "--model", &model, "--data", &data, "--max-length", length]);
        let last: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        ids(&last["response_ids"]).len()
    };
    assert_eq!((scored("131"), scored("100")), (130, 99));
}

#[test]
fn what_is_there_already_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let there = write(&folder, "there", "mine");
    let (none, out) = (text(folder.path()), text(folder.path().join("deep/er/merged")));
    fails(
        &["merge", "--model", &none, "--adapter", &none, "--out", &there],
        "there: it exists already: remove it, or name a new folder",
    );
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
    let (model, adapter) = (text(checkpoint("llama")), text(adapter("llama")));
    succeeds(&["merge", "--model", &model, "--adapter", &adapter, "--out", &out]);
    fails(&["merge", "--model", &model, "--adapter", &adapter, "--out", &out], "it exists already");
}

#[test]
fn a_merge_clears_what_a_killed_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let (model, adapter, out) = (text(checkpoint("llama")), text(adapter("llama")), text(folder.path().join("merged")));
    let arguments = ["merge", "--model", &model, "--adapter", &adapter, "--out", &out];
    let left = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| name.starts_with(".unfinished-"))
            .collect()
    };
    // A process that ends before it is seen at work is started again.
    while left().is_empty() {
        _ = std::fs::remove_dir_all(&out);
        let mut merge = Command::new(env!("CARGO_BIN_EXE_lm")).args(arguments).stdout(Stdio::null()).spawn().unwrap();
        while left().is_empty() && merge.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        merge.kill().unwrap();
        merge.wait().unwrap();
    }
    assert_eq!(left().len(), 1);
    succeeds(&arguments);
    assert_eq!(left(), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn no_file_from_outside_of_a_model_s_folder_goes_over_to_another() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "{\"key\": 1}");
    let (adapter, out) = (text(adapter("llama")), text(folder.path().join("merged")));
    for (index, name) in ["vocab.json", "generation_config.json", "config.json"].into_iter().enumerate() {
        let model = folder.path().join(index.to_string());
        std::fs::create_dir(&model).unwrap();
        copy_files(&checkpoint("llama"), &model);
        let recipe = two_stages(&folder, "llama", "steps = 1");
        let [run, again] = ["run", "again"].map(|name| text(folder.path().join(format!("{name}-{index}"))));
        let set = format!("model={}", model.display());
        succeeds(&["train", &recipe, "--out", &run, "--set", &set]);
        if name == "config.json" {
            std::fs::copy(model.join(name), &secret).unwrap();
            std::fs::remove_file(model.join(name)).unwrap();
        }
        symlink(&secret, model.join(name)).unwrap();
        let refused = format!("{name}: leads to ");
        fails(&["merge", "--model", &text(&model), "--adapter", &adapter, "--out", &out], &refused);
        fails(&["export", "--run", &run, "--out", &out], &refused);
        fails(&["train", &recipe, "--out", &again, "--set", &set], &refused);
        assert!(!Path::new(&out).exists() && !Path::new(&again).join("checkpoints").exists());
    }
    // The hub's cache consists of such links.
    let (blobs, snapshot) = (folder.path().join("hub/blobs"), folder.path().join("hub/snapshots/0123"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    for entry in std::fs::read_dir(checkpoint("llama")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        std::fs::copy(entry.path(), blobs.join(&name)).unwrap();
        symlink(Path::new("../../blobs").join(&name), snapshot.join(&name)).unwrap();
    }
    std::fs::write(blobs.join("words"), "{}").unwrap();
    symlink("../../blobs/words", snapshot.join("vocab.json")).unwrap();
    succeeds(&["merge", "--model", &text(&snapshot), "--adapter", &adapter, "--out", &out]);
    assert!(Path::new(&out).join("vocab.json").symlink_metadata().unwrap().is_file());
}

#[test]
fn a_checkpoint_that_is_not_there_is_refused_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "checkpoint_every = 2\nsteps = 4");
    let (run, out) = (text(folder.path().join("run")), text(folder.path().join("out")));
    fails(&["export", "--run", &run, "--out", &out], "run/checkpoints: there is no checkpoint");
    succeeds(&["train", &recipe, "--out", &run]);
    let refused = "run/checkpoints: there is no checkpoint 0-7; existing ones: 1-2, 1-4";
    fails(&["export", "--run", &run, "--out", &out, "--checkpoint", "0-7"], refused);
    succeeds(&["export", "--run", &run, "--out", &out, "--checkpoint", "1-2"]);
}

#[test]
fn dropout_of_attention_is_refused_for_training_alone_and_ranks_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = two_stages(&folder, "llama", "");
    let low_rank = adapters(&folder, "dpo");
    let out = text(folder.path().join("out"));
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    copy_files(&checkpoint("llama"), &model);
    let mut config = json_of(model.join("config.json"));
    config["attention_dropout"] = json!(0.1);
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    let set = format!("model={}", model.display());
    let refused = "config.json: attention_dropout: expected 0, as dropout is not supported in training";
    fails(&["train", &recipe, "--out", &out, "--set", &set], refused);
    let data = write(&folder, "data.jsonl", &lines([json!({"prompt_ids": [3], "response_ids": [4]})]));
    let scores = |model: &Path| succeeds(&["score", "--model", &text(model), "--data", &data]);
    assert_eq!(scores(&model), scores(&checkpoint("llama")));
    let refused = "lora.rank: expected at most 32, the greatest rank of an adapted map of this model, got 33";
    fails(&["train", &low_rank, "--out", &out, "--set", "lora.rank=33"], refused);
    fails(&["inspect", "--recipe", &low_rank, "--set", "lora.rank=33"], refused);
}

/// A base model whose tokenizer's `eos_token` differs from the marker with which its chat template ends turns.
fn base(folder: &TempDir) -> String {
    let source = oracles().join("tokenizers/chatml");
    let model = folder.path().join("base");
    std::fs::create_dir(&model).unwrap();
    copy_files(&checkpoint("llama"), &model);
    std::fs::copy(source.join("tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let mut settings = json_of(source.join("tokenizer_config.json"));
    settings["eos_token"] = json!("<|endoftext|>");
    std::fs::write(model.join("tokenizer_config.json"), settings.to_string()).unwrap();
    let mut config = json_of(model.join("config.json"));
    config["vocab_size"] = json!(420);
    config["eos_token_id"] = json!(0);
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    tch::manual_seed(0);
    let shapes = lm::transformer::model::shapes(&lm::checkpoint::config::read_config(&model).unwrap());
    let tensors: Vec<_> = shapes
        .iter()
        .map(|shape| tch::Tensor::randn(&shape.size[..], (tch::Kind::Float, tch::Device::Cpu)) * 0.1)
        .collect();
    let parameters: Vec<_> = shapes.into_iter().zip(&tensors).collect();
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    lm::checkpoint::weights::write(&model, &parameters, lm::checkpoint::config::Dtype::Float32, 1 << 30).unwrap();
    text(model)
}

#[test]
fn a_base_model_that_is_tuned_with_a_chat_template_ends_its_turns_wherever_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let turns = json!([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "you"}]);
    let data = write(&folder, "data.jsonl", &lines([json!({"messages": turns})]));
    let model = base(&folder);
    let recipe = format!(
        "model = \"{model}\"\nthreads = 1\nbatch = 1\nsteps = 40\nlearning_rate = 3e-3\noptimizer = {{ name = \"adamw\" }}\n\
         chat_template = \"{}\"\n[[stage]]\nmethod = {{ name = \"sft\" }}\ndata = [{{ path = \"{data}\" }}]\n",
        oracles().join("tokenizers/chatml/chat_template.jinja").display()
    );
    let recipe = write(&folder, "recipe.toml", &recipe);
    let trained = |name: &str, set: &[&str]| {
        let out = folder.path().join(name);
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        succeeds(&[&["train", &recipe, "--out", &text(&out)], &set[..]].concat());
        out
    };
    let answer = |arguments: &[&str]| -> Value {
        let printed = succeeds(&[&["generate", "--prompt", "hello", "--max-tokens", "30"], arguments].concat());
        serde_json::from_str(&printed).unwrap()
    };
    let out = trained("whole", &[]);
    let written = out.join("model");
    assert_eq!(json_of(written.join("generation_config.json")), json!({"bos_token_id": 1, "eos_token_id": [2, 0]}));
    assert_eq!(json_of(written.join("tokenizer_config.json"))["eos_token"], "<|endoftext|>");
    let found = answer(&["--model", &text(&written)]);
    assert_eq!((&found["finish"], &found["text"]), (&json!("stop"), &json!("you")));
    // A checkpoint is written as the run itself writes it.
    let exported = folder.path().join("exported");
    succeeds(&["export", "--run", &text(&out), "--out", &text(&exported)]);
    for name in ["generation_config.json", "chat_template.jinja", "model.safetensors"] {
        assert!(std::fs::read(exported.join(name)).unwrap() == std::fs::read(written.join(name)).unwrap(), "{name}");
    }
    // The recipe's `eos_token` replaces the tokenizer's, as in TRL.
    let renamed = trained("renamed", &["eos_token=<|im_end|>"]).join("model");
    assert_eq!(json_of(renamed.join("tokenizer_config.json"))["eos_token"], "<|im_end|>");
    assert_eq!(json_of(renamed.join("config.json"))["eos_token_id"], 2);
    assert_eq!(json_of(renamed.join("generation_config.json"))["eos_token_id"], json!([2, 0]));
    let none = text(folder.path().join("none"));
    let refused = "eos_token: expected a token of tokenizer.json, got <|no|>";
    fails(&["train", &recipe, "--out", &none, "--set", "eos_token=<|no|>"], refused);
    // Adapters, and the model that they are merged into, have the template and the end tokens of their training.
    let adapted = trained("adapted", &["lora.rank=8", "lora.alpha=64", "steps=80"]).join("adapter");
    let merged = text(folder.path().join("merged"));
    succeeds(&["merge", "--model", &model, "--adapter", &text(&adapted), "--out", &merged]);
    let ends = |folder: &Path| json_of(folder.join("generation_config.json"))["eos_token_id"].clone();
    assert_eq!((ends(&adapted), ends(Path::new(&merged))), (json!([2, 0]), json!([2, 0])));
    let found = answer(&["--model", &merged]);
    let applied = answer(&["--model", &model, "--adapter", &text(&adapted)]);
    assert_eq!(found["response_ids"], applied["response_ids"]);
    // The base's file names no end token that the model was not trained with.
    assert_ne!(answer(&["--model", &model])["text"], found["text"]);
}
