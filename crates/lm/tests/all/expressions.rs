//! Agreement with transformers' sandbox of Jinja2; `tests/oracles/expressions.py` recorded it.

use lm::chat::{ChatTemplate, Ending, Message, Role};
use serde_json::Value;

#[test]
fn expressions_filters_tests_and_methods_render_as_jinja2_does() {
    let path = crate::oracle::oracles().join("expressions.json");
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let preamble = answers["preamble"].as_str().unwrap();
    let messages = [(Role::User, "hi"), (Role::Assistant, "ho")];
    let messages = messages.map(|(role, content)| Message { role, content: content.to_owned() });
    let now = jiff::civil::date(2024, 7, 26).at(13, 5, 0, 0);
    let cases = answers["cases"].as_array().unwrap();
    assert!(cases.len() > 1000, "{}", cases.len());
    let mut differences = Vec::new();
    for case in cases {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.into(), token.into()));
        let source = format!("{preamble}{}", case["source"].as_str().unwrap());
        let rendered = ChatTemplate::new("template".as_ref(), &source, tokens.to_vec(), now)
            .and_then(|template| template.render(&messages, Ending::Turn));
        if rendered.as_deref().ok() != case["rendered"].as_str() {
            let (name, expected) = (&case["name"], &case["rendered"]);
            differences.push(format!("{name}\n    {rendered:?}\n    {expected}"));
        }
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
}
