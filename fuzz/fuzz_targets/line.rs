//! For every line, the `evaluate` example answers with finite numbers or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/objective/examples/evaluate/protocol.rs"]
mod protocol;

fuzz_target!(|line: &[u8]| {
    let text = protocol::answer(line).expect("an answer can be written");
    let answer: serde_json::Value = serde_json::from_str(&text).expect("the answer is JSON");
    if answer.get("error").is_none() {
        // JSON has no infinity and no not-a-number: serde writes null.
        assert!(answer["loss"].is_number() && !text.contains("null"), "{text}");
    }
});
