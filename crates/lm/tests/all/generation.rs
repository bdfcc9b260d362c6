//! Sampling by a `generation_config.json` agrees with transformers; `tests/oracles/generation.py` recorded it.

use std::collections::BTreeMap;

use lm::checkpoint::generation_config::{GENERATION_CONFIG_FILE, GenerationConfig, SamplingParameters};
use lm::engine::generate::{GenerationSettings, generate};
use lm::engine::sampling::{Sampling, penalise};
use serde_json::{Value, json};

use crate::command::{lines, succeeds, write};
use crate::oracle::{answers, checkpoint, close, copy_files, ids, model, numbers};

fn config(file: &Value) -> GenerationConfig {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(GENERATION_CONFIG_FILE), file.to_string()).unwrap();
    GenerationConfig::of(folder.path()).unwrap()
}

#[test]
fn probabilities_of_what_is_drawn_agree_with_transformers() {
    let answers = answers("generation.json");
    let (prompt, logits) = (ids(&answers["ids"]), numbers(&answers["logits"]));
    let greatest = logits.iter().copied().fold(f64::MIN, f64::max);
    for case in answers["cases"].as_array().unwrap() {
        let parameters = config(&case["file"]).as_transformers(SamplingParameters::default());
        let (sampling, penalty) = Sampling::of(parameters).unwrap();
        let Some(expected) = case["drawn"].as_object() else {
            assert_eq!(sampling, None, "{}", case["file"]);
            continue;
        };
        let mut logits: Vec<f32> = logits.iter().map(|logit| (logit - greatest) as f32).collect();
        if penalty != 1.0 {
            penalise(&mut logits, greatest as f32, &prompt, penalty);
        }
        let candidates = sampling.unwrap().candidates(&logits);
        let sum: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let found: BTreeMap<u32, f64> =
            candidates.iter().map(|candidate| (candidate.token, candidate.weight / sum)).collect();
        let expected: BTreeMap<u32, f64> =
            expected.iter().map(|(token, share)| (token.parse().unwrap(), share.as_f64().unwrap())).collect();
        let what = case["file"].to_string();
        assert!(found.keys().eq(expected.keys()), "{what}: {found:?} is not {expected:?}");
        close(&found.into_values().collect::<Vec<_>>(), &expected.into_values().collect::<Vec<_>>(), 1e-6, &what);
    }
}

#[test]
fn repetition_is_penalised_as_by_transformers() {
    let answers = answers("generation.json");
    let model = model(answers["checkpoint"].as_str().unwrap());
    for case in answers["cases"].as_array().unwrap() {
        let SamplingParameters { repetition_penalty, .. } = config(&case["file"]).sampling;
        for batch in [1, 3] {
            let settings =
                GenerationSettings { max_tokens: 12, repetition_penalty, batch, ..GenerationSettings::default() };
            let prompts = vec![ids(&answers["ids"]); batch];
            for found in generate(&model, &prompts, &settings).unwrap() {
                assert_eq!(found.response, ids(&case["greedy"]), "{}", case["file"]);
            }
        }
    }
}

#[test]
fn generate_reads_the_file_and_options_take_its_place() {
    let folder = tempfile::tempdir().unwrap();
    copy_files(&checkpoint("llama"), folder.path());
    let prompts = write(&folder, "prompts.jsonl", &lines([json!({"prompt_ids": [20, 21, 22]})]));
    let model = folder.path().display().to_string();
    let response = |more: &[&str]| {
        let printed =
            succeeds(&[&["generate", "--model", &model, "--data", &prompts, "--max-tokens", "9"], more].concat());
        ids(&serde_json::from_str::<Value>(&printed).unwrap()["response_ids"])
    };
    let plain = response(&[]);
    let file = |value: Value| std::fs::write(folder.path().join(GENERATION_CONFIG_FILE), value.to_string()).unwrap();
    file(json!({"do_sample": true, "temperature": 9.0, "eos_token_id": [plain[1]]}));
    let drawn = response(&["--seed", "1"]);
    assert_ne!(drawn, response(&["--seed", "2"]));
    // The end token of the file replaces that of the configuration.
    let ended = response(&["--temperature", "0"]);
    assert!(plain.starts_with(&ended) && ended.len() <= 2, "{ended:?}");
    assert_eq!(response(&["--generation-config", "none"]), plain);
    file(json!({"do_sample": true, "temperature": 9.0, "top_k": 1}));
    assert_eq!(response(&["--seed", "5"]), plain);
    assert_ne!(response(&["--seed", "5", "--top-k", "0"]), plain);
}
