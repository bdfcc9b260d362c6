//! Whatever the line, the `evaluate` example answers it, with finite numbers or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/objective/examples/evaluate/protocol.rs"]
mod protocol;

fuzz_target!(|line: &[u8]| {
    let answer = protocol::answer(line).expect("an answer can be written");
    // JSON has no infinity and no not-a-number: serde writes null.
    assert!(!answer.contains("null"), "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("the answer is JSON");
    assert!(answer.get("error").is_some() != answer.get("loss").is_some());
});
