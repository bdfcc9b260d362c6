//! The paper's benchmarks as EleutherAI's harness requests them from a server: every answer equals that of transformers
//! in the harness. `tests/oracles/harness.py` recorded both.

use lm::serve::Limits;
use reqwest::StatusCode;
use serde_json::Value;

use super::run;
use super::running::{Running, limits};
use crate::oracle::{answers, ids, numbers, speaking};

/// Bound of the differences between two summation orders of a continuation's 32-bit log-probabilities, nats. Rotary
/// frequencies that differ in the last bit cause 1.3e-4 after a thousand tokens.
const ROUNDING: f64 = 4e-5;

/// Parts of a response that the harness reads: the log-likelihood of the tokens after `context` tokens, and whether
/// each of these is the most probable. The last token is one that had to follow.
fn likelihood(choice: &Value, context: usize) -> (f64, bool) {
    let told = &choice["logprobs"];
    let list = |field: &str| told[field].as_array().unwrap().clone();
    let (log_probs, tops) = (list("token_logprobs"), list("top_logprobs"));
    let continuation = context..log_probs.len() - 1;
    let log_probs = numbers(&Value::from(&log_probs[continuation.clone()]));
    let is_greedy = log_probs.iter().zip(&tops[continuation]).all(|(own, tops)| {
        let tops = tops.as_object().unwrap().values().map(|value| value.as_f64().unwrap());
        *own == tops.fold(f64::MIN, f64::max)
    });
    (log_probs.iter().sum(), is_greedy)
}

#[test]
fn recorded_requests_are_answered_as_transformers_did() {
    let recorded = answers("harness.json");
    let folder = tempfile::tempdir().unwrap();
    for (name, expected) in recorded["answers"].as_object().unwrap() {
        let limits = Limits { cache_tokens: 1 << 15, body_bytes: 1 << 20, ..limits() };
        let running = Running::of(&speaking(folder.path(), name), limits, None);
        run(async {
            for request in recorded["requests"].as_array().unwrap() {
                let route = if request["body"]["messages"].is_null() { "completions" } else { "chat/completions" };
                let (status, answer) = running.post(&format!("/v1/{route}"), &request["body"]).await;
                let what = format!("{name}: {}", request["name"]);
                assert_eq!(status, StatusCode::OK, "{what}: {answer}");
                let choices = answer["choices"].as_array().unwrap();
                let expected = ids(&request["answers"])
                    .into_iter()
                    .map(|place| &expected[request["task"].as_str().unwrap()][place as usize]);
                assert_eq!(choices.len(), expected.len(), "{what}");
                for (index, (choice, expected)) in choices.iter().zip(expected).enumerate() {
                    assert_eq!(choice["index"], index, "{what}");
                    match expected {
                        Value::String(text) => {
                            let found = choice.get("text").unwrap_or(&choice["message"]["content"]);
                            assert_eq!(found, text, "{what}");
                        }
                        scored => {
                            let context = request["context_tokens"][index].as_u64().unwrap() as usize;
                            let (log_likelihood, is_greedy) = likelihood(choice, context);
                            let error = (log_likelihood - scored[0].as_f64().unwrap()).abs();
                            assert!(error <= ROUNDING, "{what}, {index}: {log_likelihood} is not {scored}");
                            assert_eq!(is_greedy, scored[1], "{what}");
                        }
                    }
                }
            }
        });
    }
}
