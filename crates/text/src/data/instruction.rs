//! Instructions of benchmark sets: AlpacaEval's, and Reddit posts to summarise (TL;DR).
//!
//! | layout | fields | as on the hub | prompt |
//! |---|---|---|---|
//! | `alpaca_eval` | `instruction`, and `dataset` or none | `tatsu-lab/alpaca_eval` | a user's turn, which the chat template renders |
//! | `tldr` | `prompt`, the text that ends in `TL;DR:` | `trl-lib/tldr` | text to continue, as in training |
//! | `tldr` | `subreddit`, `title`, `post` | OpenAI's `tldr_3_filtered` | the same text, composed of them |
//! | `tldr` | `info` with `subreddit`, `title`, `post` | `openai/summarize_from_feedback` | the same |
//!
//! A file is a JSON list, JSON lines or Parquet. Other fields of a record are reference answers, which are ignored; an
//! `input` beside an instruction is rejected, because it would be part of the prompt. A post that several records
//! repeat is one instruction. The articles that OpenAI's comparisons contain beside posts are rejected.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use strum::{EnumString, IntoStaticStr, VariantNames};

use super::prompt::Prompt;
use super::{at, objects};
use crate::chat::{Message, Role};
use crate::error::{TextError, refuse};
use crate::example::Encoder;

/// Layout of a set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Layout {
    /// AlpacaEval's instructions.
    AlpacaEval,
    /// Posts to be summarised.
    Tldr,
}

/// An instruction, and the prompt that it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Number of the instruction's record in the file, from 1.
    pub record: usize,
    /// The instruction as a judge reads it.
    pub text: String,
    /// Name of the part of the set that contains the instruction, if the file has one.
    pub dataset: Option<String>,
    /// The prompt that the model continues.
    pub prompt: Prompt,
}

/// Reads the instructions of a set.
///
/// # Errors
///
/// As [`read_records`](super::read_records).
pub fn read_instructions(path: &Path, layout: Layout) -> Result<Vec<Instruction>, TextError> {
    let read = match layout {
        Layout::AlpacaEval => alpaca_eval,
        Layout::Tldr => tldr,
    };
    let mut instructions = objects(path, |fields| Ok(vec![read(fields)?]))?
        .into_iter()
        .map(|(record, Fields { text, dataset, prompt })| Instruction { record, text, dataset, prompt })
        .collect::<Vec<_>>();
    if layout == Layout::Tldr {
        let mut seen = HashSet::new();
        instructions.retain(|instruction| seen.insert(instruction.text.clone()));
    }
    Ok(instructions)
}

/// Encodes the prompt of each instruction.
///
/// # Errors
///
/// [`TextError::Line`], [`TextError::Entry`] or [`TextError::Row`] with an error of [`Encoder::prompt`].
pub fn encode_instructions(
    path: &Path,
    instructions: &[Instruction],
    encoder: &Encoder<'_>,
) -> Result<Vec<Vec<u32>>, TextError> {
    let encode = |Instruction { record, prompt, .. }: &Instruction| {
        encoder.prompt(prompt).map_err(|source| at(path, *record, source))
    };
    instructions.iter().map(encode).collect()
}

/// Reads the instruction of a record.
struct Fields {
    text: String,
    dataset: Option<String>,
    prompt: Prompt,
}

fn alpaca_eval(fields: &Map<String, Value>) -> Result<Fields, TextError> {
    let text = text(fields, "instruction")?;
    let dataset = fields.contains_key("dataset").then(|| self::text(fields, "dataset")).transpose()?;
    no_input(fields)?;
    let prompt = Prompt::Conversation(vec![Message { role: Role::User, content: text.clone() }]);
    Ok(Fields { text, dataset, prompt })
}

/// Rejects a part of the instruction in a separate field `input`, which older sets have.
pub fn no_input(fields: &Map<String, Value>) -> Result<(), TextError> {
    match fields.get("input") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text.is_empty() => Ok(()),
        Some(other) => Err(refuse("input", "no input beside the instruction", other)),
    }
}

/// Reads a post in the layout of OpenAI's files.
#[derive(Deserialize)]
struct Post {
    subreddit: String,
    title: String,
    post: String,
}

fn tldr(fields: &Map<String, Value>) -> Result<Fields, TextError> {
    let text = match (fields.get("prompt"), fields.get("info")) {
        (Some(_), _) => text(fields, "prompt")?,
        (None, Some(info)) => post(info, "info")?,
        (None, None) if fields.contains_key("post") => post(&Value::Object(fields.clone()), "record")?,
        (None, None) => {
            let allowed = "a prompt, or subreddit, title and post, or info with these";
            let named = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(refuse("record", allowed, if named.is_empty() { "nothing".to_owned() } else { named }));
        }
    };
    let end = "TL;DR:";
    if !text.trim_end().ends_with(end) {
        let last = text.trim_end().chars().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<String>();
        return Err(refuse("prompt", format!("text that ends in {end}"), format!("\"...{last}\"")));
    }
    Ok(Fields { prompt: Prompt::Text(text.clone()), text, dataset: None })
}

fn post(fields: &Value, place: &str) -> Result<String, TextError> {
    let Post { subreddit, title, post } = Post::deserialize(fields)
        .map_err(|error| refuse(place, "a post's subreddit, title and post, each text", error))?;
    Ok(format!("SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"))
}

/// Reads a field that must be text.
pub fn text(fields: &Map<String, Value>, field: &str) -> Result<String, TextError> {
    match fields.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(refuse(field, "text", other.map_or_else(|| "nothing".to_owned(), Value::to_string))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, content: &str, layout: Layout) -> Result<Vec<Instruction>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let place = format!("{}/", folder.path().display());
        read_instructions(&path, layout).map_err(|error| error.to_string().replace(&place, ""))
    }

    const POST: &str = "SUBREDDIT: r/tifu\n\nTITLE: A\n\nPOST: B\nC\n\nTL;DR:";

    #[test]
    fn a_list_and_lines_of_instructions_are_the_same_and_answers_in_them_are_passed_over() {
        let records = [
            json!({"dataset": "koala", "instruction": "Say hi", "output": "hi", "generator": "davinci"}),
            json!({"instruction": "Say no", "input": ""}),
        ];
        let lines = format!("{}\n{}\n", records[0], records[1]);
        let list = read("set.json", &json!(records).to_string(), Layout::AlpacaEval).unwrap();
        assert_eq!(read("set.jsonl", &lines, Layout::AlpacaEval).unwrap(), list);
        assert_eq!(read("set.json", &lines, Layout::AlpacaEval).unwrap(), list);
        let user = |text: &str| Prompt::Conversation(vec![Message { role: Role::User, content: text.to_owned() }]);
        assert_eq!(
            list.iter().map(|asked| (asked.record, asked.dataset.as_deref(), &asked.prompt)).collect::<Vec<_>>(),
            [(1, Some("koala"), &user("Say hi")), (2, None, &user("Say no"))]
        );
    }

    #[test]
    fn posts_of_every_layout_are_the_same_text_and_asked_once() {
        let prompt = json!({"prompt": POST, "completion": " D"});
        let fields = json!({"id": "t3", "subreddit": "tifu", "title": "A", "post": "B\nC", "summary": "D"});
        let info = json!({
            "info": {"id": "t3", "post": "B\nC", "title": "A", "subreddit": "tifu", "site": null, "article": null},
            "summaries": [{"text": " D", "policy": "sup2", "note": null}], "choice": 0, "batch": "batch3"
        });
        for list in [json!([prompt]), json!([fields]), json!([info]), json!([prompt, fields, info])] {
            let asked = read("posts.json", &list.to_string(), Layout::Tldr).unwrap();
            assert_eq!(asked.iter().map(|asked| asked.text.as_str()).collect::<Vec<_>>(), [POST]);
            assert_eq!(asked[0].prompt, Prompt::Text(POST.to_owned()));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_record() {
        let good = json!({"instruction": "a"});
        let alpaca =
            |second: Value| read("a.json", &json!([good, second]).to_string(), Layout::AlpacaEval).unwrap_err();
        assert_eq!(alpaca(json!({"output": "b"})), "a.json: record 2: instruction: expected text, got nothing");
        assert_eq!(alpaca(json!({"instruction": 7})), "a.json: record 2: instruction: expected text, got 7");
        assert_eq!(
            alpaca(json!({"instruction": "a", "input": "b"})),
            "a.json: record 2: input: expected no input beside the instruction, got \"b\""
        );
        assert_eq!(alpaca(json!(3)), "a.json: record 2: record: expected a JSON object, got 3");
        assert_eq!(
            read("a.json", "[]", Layout::AlpacaEval).unwrap_err(),
            "a.json: records: expected at least 1, got 0"
        );
        let tldr = |record: Value| read("a.jsonl", &record.to_string(), Layout::Tldr).unwrap_err();
        assert_eq!(
            tldr(json!({"prompt": "Summarise the following, please"})),
            "a.jsonl:1: prompt: expected text that ends in TL;DR:, got \"...he following, please\""
        );
        assert_eq!(
            tldr(json!({"info": {"article": "b", "post": null, "title": "c", "subreddit": null}})),
            "a.jsonl:1: info: expected a post's subreddit, title and post, each text, got invalid type: null, \
             expected a string"
        );
        assert_eq!(
            tldr(json!({"text": "b"})),
            "a.jsonl:1: record: expected a prompt, or subreddit, title and post, or info with these, got text"
        );
    }
}
