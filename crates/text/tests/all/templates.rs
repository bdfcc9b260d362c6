//! Agreement with transformers' rendering of chat templates; `tests/oracles/templates.py` recorded it.

use serde_json::Value;
use text::chat::{ChatTemplate, Ending, Message};

fn messages(value: &Value) -> Vec<Message> {
    let text = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
    let message =
        |message: &Value| Message { role: text(message, "role").parse().unwrap(), content: text(message, "content") };
    value.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn conversations_are_rendered_as_transformers_does() {
    let path = crate::oracle::oracles().join("templates.json");
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let conversations = answers["conversations"].as_array().unwrap();
    let now = jiff::civil::date(2024, 7, 26).at(0, 0, 0, 0);
    let mut differences = Vec::new();
    for case in answers["templates"].as_array().unwrap() {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.into(), token.into()));
        let source = case["template"].as_str().unwrap();
        let template = ChatTemplate::new("template".as_ref(), source, tokens.to_vec(), now).unwrap();
        let endings =
            [(Ending::Turn, "turn"), (Ending::GenerationPrompt, "generation_prompt"), (Ending::Continued, "continued")];
        for (ending, field) in endings {
            for (conversation, expected) in conversations.iter().zip(case[field].as_array().into_iter().flatten()) {
                let rendered = template.render(&messages(&conversation["messages"]), ending);
                if rendered.as_deref().ok() != expected.as_str() {
                    let (template, name) = (&case["name"], &conversation["name"]);
                    differences.push(format!("{template}, {name}, {field}: {rendered:?}, expected {expected}"));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
