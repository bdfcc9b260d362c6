//! Agreement with transformers' tokens of conversations and texts; `tests/oracles/tokens.py` recorded it.

use std::path::Path;

use objective::TokenConstants;
use serde_json::{Value, json};
use text::chat::{ChatTemplate, Ending, Message, read_chat_template};
use text::data::{Learnt, Line, Record, encode_lines, parse_lines, read_records};
use text::example::{Encoder, Example, Passage};
use text::tokens::{Tokenizer, read_settings};

use crate::oracle::{answers, ids, oracles};

struct Model {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl Model {
    fn read(folder: &Path) -> Self {
        let settings = read_settings(folder).unwrap();
        let template =
            read_chat_template(None, folder, &settings, jiff::civil::date(2024, 7, 26).at(0, 0, 0, 0)).unwrap();
        Self { tokenizer: Tokenizer::read(folder, &settings).unwrap(), template }
    }

    fn tiny(name: &str) -> Self {
        Self::read(&oracles().join("tokenizers").join(name))
    }

    fn encoder(&self) -> Encoder<'_> {
        Encoder { tokenizer: Some(&self.tokenizer), template: self.template.as_ref(), vocabulary: usize::MAX }
    }

    /// The example of one line of data.
    fn example(&self, line: &Value) -> Result<Example, String> {
        let path = "data.jsonl".as_ref();
        let lines = parse_lines(path, &line.to_string(), Learnt::Last).map_err(|error| error.to_string())?;
        let lines = encode_lines(path, &lines, &self.encoder(), 4096);
        match lines.map_err(|error| error.to_string())?.remove(0).record {
            Record::Demonstration(example) => Ok(example),
            other => panic!("{other:?}"),
        }
    }
}

fn messages(value: &Value) -> Vec<Message> {
    let line = json!({"prompt": value, "completion": []}).to_string();
    let record = parse_lines("".as_ref(), &line, Learnt::Last).unwrap().remove(0).record;
    match record {
        Record::Demonstration(Passage::Conversation { prompt, .. }) => prompt,
        other => panic!("{other:?}"),
    }
}

fn agrees(model: &Model, answers: &Value) {
    let Model { tokenizer, template } = model;
    assert_eq!(json!(tokenizer.eos()), answers["eos"]);
    for case in answers["conversations"].as_array().unwrap() {
        let name = &case["name"];
        let rendered = template.as_ref().unwrap().render(&messages(&case["messages"]), Ending::Turn).unwrap();
        assert_eq!(json!(rendered), case["rendered"], "{name}");
        let example = model.example(&json!({"messages": case["messages"]})).unwrap();
        assert_eq!(example.prompt, ids(&case["prompt"]), "{name}");
        let whole = [example.prompt.as_slice(), &example.response].concat();
        assert_eq!(whole, ids(&case["whole"]), "{name}");
        let end = &example.response[example.response.len() - example.end..];
        assert!(end.contains(&tokenizer.eos()), "{name}: {end:?}");
        if let Some(mask) = case.get("assistant") {
            // Tokens that the template marks as generated, and the white space that it writes after them.
            let mask = ids(mask);
            let last = mask.iter().rposition(|learnt| *learnt == 1).unwrap();
            assert!(mask[example.prompt.len()..=last].iter().all(|learnt| *learnt == 1), "{name}");
            assert_eq!(mask[example.prompt.len() - 1], 0, "{name}");
            assert!(tokenizer.decode(&whole[last + 1..]).unwrap().trim().is_empty(), "{name}");
        }
    }
    for case in answers["passages"].as_array().unwrap() {
        let example = model.example(&json!({"prompt": case["prompt"], "completion": case["response"]}));
        if ids(&case["prompt_ids"]).is_empty() {
            let message =
                "data.jsonl:1: prompt: expected a token, as the model has no bos_token to begin with, got nothing";
            assert_eq!(example.unwrap_err(), message);
            continue;
        }
        let example = example.unwrap();
        assert_eq!(example.prompt, ids(&case["prompt_ids"]), "{}", case["name"]);
        // The peer's tokens of the whole text, whose boundary no token of these cases crosses, and the end token that
        // it omits.
        let whole = [ids(&case["whole_ids"]), vec![tokenizer.eos()]].concat();
        assert_eq!([example.prompt, example.response].concat(), whole, "{}", case["name"]);
    }
}

#[test]
fn a_tokenizer_of_bytes_agrees_with_transformers() {
    agrees(&Model::tiny("chatml"), &answers("tokens.json")["chatml"]);
}

#[test]
fn a_tokenizer_that_writes_a_space_before_a_text_agrees_with_transformers() {
    agrees(&Model::tiny("llama"), &answers("tokens.json")["llama"]);
}

#[test]
fn a_tokenizer_with_few_tokens_and_an_unknown_one_agrees_with_transformers() {
    agrees(&Model::tiny("small"), &answers("tokens.json")["small"]);
}

#[test]
fn smollm2_agrees_with_transformers() {
    let Some(folder) = std::env::var_os("SMOLLM2") else {
        eprintln!("skipped: SMOLLM2 is not the folder of SmolLM2-135M-Instruct");
        return;
    };
    agrees(&Model::read(folder.as_ref()), &answers("smollm2_tokens.json")["smollm2"]);
}

#[test]
fn real_preferences_are_read_and_encoded() {
    let (Some(folder), Some(data)) = (std::env::var_os("SMOLLM2"), std::env::var_os("PREFERENCES")) else {
        eprintln!("skipped: SMOLLM2 and PREFERENCES are not a model's folder and a file of JSON lines");
        return;
    };
    let model = Model::read(folder.as_ref());
    let lines = read_records(data.as_ref(), Learnt::Last).unwrap();
    let encoded = encode_lines(data.as_ref(), &lines, &model.encoder(), 512).unwrap();
    assert_eq!(encoded.len(), lines.len());
    for Line { line, record } in encoded {
        let Record::Preference { chosen, rejected } = record else { panic!("line {line}: a preference") };
        assert_eq!(chosen.prompt, rejected.prompt, "line {line}");
    }
}

#[test]
fn a_token_never_crosses_from_the_prompt_into_the_response() {
    for name in ["chatml", "llama"] {
        let model = Model::tiny(name);
        let example = model.example(&json!({"prompt": "The cap", "completion": "ital of France"})).unwrap();
        assert_eq!(example.prompt, model.tokenizer.encode("The cap").unwrap(), "{name}");
        let joint = model.tokenizer.encode("The capital of France").unwrap();
        assert!(!joint.starts_with(&example.prompt), "{name}: a joint encoding merges over the boundary");
        let whole = [example.prompt, example.response].concat();
        let text = model.tokenizer.decode(&whole).unwrap();
        assert!(text.contains("The capital of France"), "{name}: {text}");
    }
}

#[test]
fn a_prompt_begins_with_exactly_one_bos() {
    let model = Model::tiny("llama");
    let bos = model.tokenizer.bos().unwrap();
    for text in ["hello", "<s>hello", "<s><s>hello"] {
        let ids = model.tokenizer.encode(text).unwrap();
        assert_eq!(ids.iter().filter(|id| **id == bos).count(), 1, "{text}");
        assert_eq!(ids[0], bos, "{text}");
    }
    assert_eq!(
        Model::tiny("chatml").tokenizer.bos(),
        None,
        "its bos_token is a marker of roles, which it adds to no text"
    );
}

#[test]
fn eos_is_learnt_once_even_where_it_is_the_padding_token() {
    for name in ["chatml", "llama"] {
        assert_eq!(answers("tokens.json")[name]["eos"], answers("tokens.json")[name]["pad"], "{name}");
        let model = Model::tiny(name);
        let eos = model.tokenizer.eos();
        let written = model.tokenizer.decode(&[eos]).unwrap();
        for response in ["blue.".to_owned(), format!("blue.{written}")] {
            let example = model.example(&json!({"prompt": "The sky is", "completion": response})).unwrap();
            assert_eq!(example.response.iter().filter(|id| **id == eos).count(), 1, "{name}: {response}");
            assert_eq!((example.response.last(), example.end), (Some(&eos), 1), "{name}: {response}");
        }
    }
}

#[test]
fn truncation_keeps_the_prompt_and_the_end_and_a_token_between() {
    for name in ["chatml", "llama"] {
        let model = Model::tiny(name);
        let messages = json!([{"role": "user", "content": "Write."},
            {"role": "assistant", "content": "one two three four five six one two three"}]);
        let full = model.example(&json!({"messages": messages})).unwrap();
        assert_eq!(full.clone().truncated(full.len()).unwrap(), full, "{name}");
        let least = full.prompt.len() + full.end + 1;
        for max_length in least..full.len() {
            let cut = full.clone().truncated(max_length).unwrap();
            assert_eq!((cut.len(), &cut.prompt, cut.end), (max_length, &full.prompt, full.end), "{name}");
            let content = cut.response.len() - cut.end;
            assert_eq!(cut.response[..content], full.response[..content], "{name}");
            assert_eq!(cut.response[content..], full.response[full.response.len() - full.end..], "{name}");
        }
        let refused = full.clone().truncated(least - 1).unwrap_err().to_string();
        assert!(refused.ends_with(&format!("are more than max_length = {}", least - 1)), "{name}: {refused}");
    }
}

#[test]
fn responses_without_text_are_refused_with_their_line() {
    let model = Model::tiny("llama");
    let good = json!({"prompt": "a", "completion": "b"});
    let turns = |content: &str| json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]});
    for (bad, given) in [
        (json!({"prompt": "a", "completion": ""}), "\"\""),
        (json!({"prompt": "a", "completion": " \n"}), "\" \\n\""),
        (turns(""), "\"\""),
        (turns("  "), "\"  \""),
    ] {
        let path = "data.jsonl".as_ref();
        let lines = parse_lines(path, &format!("{good}\n{bad}\n"), Learnt::Last).unwrap();
        let error = encode_lines(path, &lines, &model.encoder(), 64).unwrap_err();
        assert_eq!(error.to_string(), format!("data.jsonl:2: response: expected text, got {given}"));
    }
    let only_an_end = model.example(&json!({"prompt": "a", "completion": "</s>"})).unwrap_err();
    assert_eq!(only_an_end, "data.jsonl:1: response: expected a token before its end, got none");
}

#[test]
fn a_token_that_the_model_does_not_know_is_refused_with_its_line() {
    let model = Model::tiny("llama");
    let path = "data.jsonl".as_ref();
    let line = json!({"prompt": "a", "completion": "b"}).to_string();
    let lines = parse_lines(path, &line, Learnt::Last).unwrap();
    let example = model.example(&json!({"prompt": "a", "completion": "b"})).unwrap();
    let largest = *example.prompt.iter().chain(&example.response).max().unwrap();
    let field = if example.prompt.contains(&largest) { "prompt" } else { "response" };
    let encode = |vocabulary: u32| {
        let encoder = Encoder { vocabulary: vocabulary as usize, ..model.encoder() };
        encode_lines(path, &lines, &encoder, 64)
    };
    encode(largest + 1).unwrap();
    assert_eq!(
        encode(largest).unwrap_err().to_string(),
        format!(
            "data.jsonl:1: {field}: expected token ids below {largest}, the size of the model's vocabulary, got {largest}"
        )
    );
}

#[test]
fn labelled_responses_and_groups_are_encoded_as_demonstrations_are() {
    let model = Model::tiny("chatml");
    let path = "data.jsonl".as_ref();
    let encode = |line: &Value| {
        let lines = parse_lines(path, &line.to_string(), Learnt::Last).unwrap();
        encode_lines(path, &lines, &model.encoder(), 4096).unwrap().remove(0).record
    };
    let prompt = json!([{"role": "user", "content": "a"}]);
    let [good, bad] = ["b", "c"].map(|content| json!([{"role": "assistant", "content": content}]));
    let [first, second] =
        [&good, &bad].map(|said| model.example(&json!({"prompt": prompt, "completion": said})).unwrap());
    let labelled = encode(&json!({"prompt": prompt, "completion": good, "label": false}));
    assert_eq!(labelled, Record::Labelled { response: first.clone(), desirable: false });
    let group = encode(&json!({"prompt": prompt, "completions": [good, bad], "rewards": [0.5, -1]}));
    let known = |reward| TokenConstants { reward: vec![reward], ..TokenConstants::default() };
    assert_eq!(group, Record::Group(vec![(first, known(0.5)), (second, known(-1.0))]));
}

#[test]
fn conversations_that_have_no_response_are_refused() {
    let model = Model::tiny("chatml");
    let (user, assistant) = (json!({"role": "user", "content": "a"}), json!({"role": "assistant", "content": "b"}));
    for (prompt, completion, message) in [
        (json!([]), json!([assistant]), "prompt: expected turns of which the last is not the assistant's, got nothing"),
        (
            json!([assistant]),
            json!([assistant]),
            "prompt: expected turns of which the last is not the assistant's, got assistant",
        ),
        (json!([user]), json!([]), "response: expected a first turn of the assistant, got nothing"),
        (json!([user]), json!([user]), "response: expected a first turn of the assistant, got user"),
        (json!([user]), json!([assistant, user]), "response: expected a last turn of the assistant, got user"),
    ] {
        let refused = model.example(&json!({"prompt": prompt, "completion": completion})).unwrap_err();
        assert_eq!(refused, format!("data.jsonl:1: {message}"));
    }
}

#[test]
fn a_template_without_markers_gets_an_end_and_one_that_rewrites_the_prompt_is_refused() {
    let Model { tokenizer, .. } = Model::tiny("llama");
    let line = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let now = jiff::civil::date(2024, 7, 26).at(0, 0, 0, 0);
    let encode = |source: &str| {
        let template = ChatTemplate::new("t.jinja".as_ref(), source, Vec::new(), now).unwrap();
        Model { template: Some(template), ..Model::tiny("llama") }.example(&line)
    };
    let example = encode("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}").unwrap();
    assert_eq!((example.response.last(), example.end), (Some(&tokenizer.eos()), 1));
    assert_eq!(example.prompt.first(), tokenizer.bos().as_ref(), "a template that forgets bos_token");
    let refused = encode("{{ messages | length }}{{ messages[0].content }}").unwrap_err();
    assert_eq!(
        refused,
        "data.jsonl:1: the chat template renders the prompt as \"1a\", but the whole conversation begins differently: \"2a\""
    );
}

#[test]
fn folders_whose_tokens_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let read = || match read_settings(folder.path()).and_then(|settings| Tokenizer::read(folder.path(), &settings)) {
        Ok(_) => panic!("refused"),
        Err(error) => error.to_string(),
    };
    assert!(read().contains("tokenizer_config.json: "), "{}", read());
    write("tokenizer_config.json", r#"{"eos_token": 3}"#);
    assert!(read().contains("tokenizer_config.json: eos_token: "), "{}", read());
    write("tokenizer_config.json", r#"{"eos_token": {"content": "<end>"}}"#);
    write("tokenizer.json", "{");
    assert!(read().contains("tokenizer.json: "), "{}", read());
    std::fs::copy(oracles().join("tokenizers/llama/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(
        read().ends_with("tokenizer_config.json: eos_token: expected a token of tokenizer.json, got <end>"),
        "{}",
        read()
    );
    write("tokenizer_config.json", "{}");
    assert!(read().ends_with("eos_token: expected a token that ends responses, got nothing"), "{}", read());
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "rag", "template": ""}]}"#);
    assert!(read().ends_with("chat_template: expected one named default, got rag"), "{}", read());
}

/// The model of `tokenizers/llama` with another post-processor and these settings of `tokenizer_config.json`.
fn changed(post_processor: &Value, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Model {
    let source = oracles().join("tokenizers/llama");
    let json = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(source.join(name)).unwrap()).unwrap() };
    let folder = tempfile::tempdir().unwrap();
    let (mut vocabulary, mut settings) = (json("tokenizer.json"), json("tokenizer_config.json"));
    vocabulary["post_processor"] = post_processor.clone();
    change(settings.as_object_mut().unwrap());
    std::fs::write(folder.path().join("tokenizer.json"), vocabulary.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    Model::read(folder.path())
}

#[test]
fn what_stands_before_a_text_is_what_transformers_writes_where_settings_and_post_processor_disagree() {
    let answers = answers("bos.json");
    for case in answers["cases"].as_array().unwrap() {
        let settings = case["settings"].as_object().unwrap();
        let model = changed(&answers["post_processors"][case["post_processor"].as_str().unwrap()], |all| {
            all.extend(settings.clone());
        });
        for (text, expected) in answers["texts"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap()) {
            let mut expected = ids(expected);
            // A prompt begins with one `bos_token`, also if its text has one already and transformers adds a second.
            expected.dedup_by(|next, id| (*next, *id) == (1, 1));
            assert_eq!(model.tokenizer.encode(text.as_str().unwrap()).unwrap(), expected, "{case}, {text}");
        }
    }
}

#[test]
fn settings_that_speak_of_bos_change_nothing_whatever_the_class_as_in_transformers() {
    let answers = answers("bos.json");
    let classes = answers["classes"].as_array().unwrap();
    assert!(classes.len() > 50, "{}", classes.len());
    for case in classes {
        let model = changed(&answers["post_processors"][case["post_processor"].as_str().unwrap()], |all| {
            all.insert("tokenizer_class".to_owned(), case["class"].clone());
            all.extend(case["settings"].as_object().unwrap().clone());
        });
        let encode = |text| model.tokenizer.encode(text).unwrap();
        let prefix = [ids(&case["prefix"]), model.tokenizer.encode_first("a").unwrap()].concat();
        assert_eq!(encode("a"), prefix, "{case}");
    }
}

#[test]
fn a_pattern_that_backtracks_or_repeats_without_end_gives_tokens_or_the_file_s_error_within_seconds() {
    let source = oracles().join("tokenizers/llama");
    for pattern in ["(a|a)+(?=b)", "(?:a+)+(?!a)b", "((?:a{1000}){1000}){1000}"] {
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read(source.join("tokenizer.json")).unwrap();
        let mut vocabulary: Value = serde_json::from_slice(&text).unwrap();
        vocabulary["pre_tokenizer"] =
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        std::fs::write(folder.path().join("tokenizer.json"), vocabulary.to_string()).unwrap();
        std::fs::copy(source.join("tokenizer_config.json"), folder.path().join("tokenizer_config.json")).unwrap();
        let started = std::time::Instant::now();
        let encode = || Tokenizer::read(folder.path(), &read_settings(folder.path())?)?.encode(&"a".repeat(10_000));
        if let Err(error) = encode() {
            let message = error.to_string();
            assert!(message.contains("tokenizer.json: ") && message.len() < 1000, "{pattern}: {message}");
        }
        assert!(started.elapsed().as_secs() < 20, "{pattern}: {:?}", started.elapsed());
    }
}
