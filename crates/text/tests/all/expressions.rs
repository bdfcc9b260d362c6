//! Agreement with transformers' sandbox of Jinja2; `tests/oracles/expressions.py` recorded it.

use serde_json::Value;
use text::chat::{ChatTemplate, Ending, Message, Role};

/// Differences from Jinja2: the case, the reason, and the error; `None` if the text is rendered anyway.
const DEPARTURES: [(&str, &str, Option<&str>); 11] = [
    (
        r"'\N{BULLET}|\N{LATIN SMALL LETTER E WITH ACUTE}'",
        "the names of characters are a large table",
        Some(r"\N is not supported"),
    ),
    ("numbers | pprint", "it is for debugging", Some("filter pprint is unknown")),
    ("tool | pprint", "it is for debugging", Some("filter pprint is unknown")),
    ("'a' | pprint", "it is for debugging", Some("filter pprint is unknown")),
    ("'a'.encode()", "a conversation is text, not bytes", Some("no method named encode")),
    ("'abc'.translate({97: 'x'})", "replace does it", Some("no method named translate")),
    ("(1).real", "no template reads attributes of numbers", None),
    ("lipsum(n=0)", "it is random text", Some("lipsum is unknown")),
    (
        "a block",
        "blocks are for templates that extend others",
        Some("{% block %} is not a statement of chat templates"),
    ),
    ("autoescape", "conversations are not HTML", Some("{% autoescape %} is not a statement of chat templates")),
    ("self", "it is for templates that extend others", Some("self is not supported")),
];

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
    let (mut differences, mut departures) = (Vec::new(), Vec::new());
    for case in cases {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.into(), token.into()));
        let source = format!("{preamble}{}", case["source"].as_str().unwrap());
        let rendered = ChatTemplate::new("template".as_ref(), &source, tokens.to_vec(), now)
            .and_then(|template| template.render(&messages, Ending::Turn));
        if rendered.as_deref().ok() == case["rendered"].as_str() {
            continue;
        }
        let (name, expected) = (case["name"].as_str().unwrap(), &case["rendered"]);
        let is_stated = |refused: Option<&str>| match (refused, &rendered) {
            (None, Ok(_)) => true,
            (Some(part), Err(error)) => error.to_string().contains(part),
            _ => false,
        };
        match DEPARTURES.iter().find(|(departure, _, refused)| *departure == name && is_stated(*refused)) {
            Some(_) => departures.push(name),
            None => differences.push(format!("{name}\n    {rendered:?}\n    {expected}")),
        }
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
    assert_eq!(departures, DEPARTURES.map(|(name, ..)| name), "every departure differs, in the order of the record");
}
