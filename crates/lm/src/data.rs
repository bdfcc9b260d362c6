//! Data as JSON lines, in TRL's two conventions and in the layouts of UltraChat and UltraFeedback.
//!
//! | fields | are | where |
//! |---|---|---|
//! | `prompt`, `completion` | both text, or both lists of turns | a demonstration |
//! | `messages` | a list of turns | a demonstration, or one for each of the assistant's turns |
//! | `prompt`, `chosen`, `rejected` | all text, or all lists of turns | a preference |
//! | `chosen`, `rejected` | lists of turns that begin alike | a preference; the prompt is what they share |
//!
//! A turn is `{"role": ..., "content": ...}`. Where lists hold whole conversations, `prompt` may repeat the first user's turn as
//! text, and a preference may repeat `chosen` as `messages`, as on the hub; each is held against what it repeats. Any other field
//! is refused, as one that is not read may be one that was meant. A file's every error names it and the line.

use std::path::Path;

use serde_json::{Map, Value};
use strum::VariantNames;

use crate::chat::{ChatTemplate, Message, Role};
use crate::error::LmError;
use crate::example::{Example, Passage};
use crate::tokens::Tokenizer;

/// What objectives learn from: passages as read, examples as encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<T> {
    /// One response to a prompt.
    Demonstration(T),
    /// Two responses to one prompt.
    Preference {
        /// The better one.
        chosen: T,
        /// The worse one.
        rejected: T,
    },
}

impl<T> Record<T> {
    /// The record of what `convert` makes of each part.
    ///
    /// # Errors
    ///
    /// The first of `convert`.
    pub fn try_map<U, E>(&self, mut convert: impl FnMut(&T) -> Result<U, E>) -> Result<Record<U>, E> {
        Ok(match self {
            Self::Demonstration(part) => Record::Demonstration(convert(part)?),
            Self::Preference { chosen, rejected } => {
                Record::Preference { chosen: convert(chosen)?, rejected: convert(rejected)? }
            }
        })
    }
}

/// A record with the line that it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<T> {
    /// The line of the file, from 1.
    pub line: usize,
    /// What it holds.
    pub record: Record<T>,
}

/// Which of the assistant's turns in `messages` are learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// The last, which must end the conversation.
    Last,
    /// Every one, each a demonstration with all turns before it as prompt.
    Every,
}

/// Fields of the hub's data sets that say nothing about the text.
const ABOUT: [&str; 3] = ["prompt_id", "score_chosen", "score_rejected"];

/// Reads a file of JSON lines.
///
/// # Errors
///
/// [`LmError::File`], and as [`parse_lines`].
pub fn read_lines(path: &Path, learnt: Learnt) -> Result<Vec<Line<Passage>>, LmError> {
    let text = std::fs::read_to_string(path).map_err(|source| LmError::File { path: path.to_owned(), source })?;
    parse_lines(path, &text, learnt)
}

/// The records of JSON lines. `path` is what errors call the file.
///
/// # Errors
///
/// [`LmError::Line`] with the line and what is wrong: no JSON object, a field that is missing, unknown, or of another type.
/// [`LmError::Field`] for a file without a line.
///
/// # Examples
///
/// ```
/// use lm::data::{Learnt, Record, parse_lines};
/// use lm::example::Passage;
///
/// let text = r#"{"prompt": "The sky is", "completion": " blue."}"#;
/// let lines = parse_lines("sky.jsonl".as_ref(), text, Learnt::Last)?;
/// let passage = Passage::Text { prompt: "The sky is".to_owned(), response: " blue.".to_owned() };
/// assert_eq!(lines[0].record, Record::Demonstration(passage));
/// # Ok::<(), lm::error::LmError>(())
/// ```
pub fn parse_lines(path: &Path, text: &str, learnt: Learnt) -> Result<Vec<Line<Passage>>, LmError> {
    let mut lines = Vec::new();
    for (index, source) in text.lines().enumerate() {
        let line = index + 1;
        let records = parse_line(source, learnt).map_err(|error| at(path, line, error))?;
        lines.extend(records.into_iter().map(|record| Line { line, record }));
    }
    if lines.is_empty() {
        return Err(LmError::Field {
            path: path.to_owned(),
            field: "lines".to_owned(),
            allowed: "at least 1".to_owned(),
            given: "0".to_owned(),
        });
    }
    Ok(lines)
}

/// The tokens of records, each example within `max_length` tokens.
///
/// # Errors
///
/// [`LmError::Line`] with what is wrong: as [`Example::new`] and [`Example::truncated`].
pub fn encode_lines(
    path: &Path,
    lines: &[Line<Passage>],
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    max_length: usize,
) -> Result<Vec<Line<Example>>, LmError> {
    lines
        .iter()
        .map(|Line { line, record }| {
            let encode = |passage: &_| Example::new(passage, tokenizer, template)?.truncated(max_length);
            let record = record.try_map(encode).map_err(|error| at(path, *line, error))?;
            Ok(Line { line: *line, record })
        })
        .collect()
}

fn at(path: &Path, line: usize, source: LmError) -> LmError {
    LmError::Line { path: path.to_owned(), line, source: Box::new(source) }
}

fn refuse(field: &str, allowed: impl Into<String>, given: impl Into<String>) -> LmError {
    LmError::Record { field: field.to_owned(), allowed: allowed.into(), given: given.into() }
}

fn parse_line(source: &str, learnt: Learnt) -> Result<Vec<Record<Passage>>, LmError> {
    let fields: Map<String, Value> =
        serde_json::from_str(source).map_err(|error| refuse("line", "a JSON object", error.to_string()))?;
    let has = |field: &str| fields.contains_key(field);
    let known: &[&str] = if has("chosen") || has("rejected") {
        &["prompt", "chosen", "rejected", "messages"]
    } else if has("messages") {
        &["messages", "prompt"]
    } else {
        &["prompt", "completion"]
    };
    if let Some(unknown) =
        fields.keys().map(String::as_str).find(|field| !known.contains(field) && !ABOUT.contains(field))
    {
        return Err(refuse(unknown, format!("one of the fields {}", known.join(", ")), "an unknown field"));
    }
    if has("chosen") || has("rejected") {
        preference(&fields).map(|record| vec![record])
    } else if has("messages") {
        demonstrations(&fields, learnt)
    } else {
        completion(&fields).map(|record| vec![record])
    }
}

/// A field's content.
enum Content {
    Text(String),
    Turns(Vec<Message>),
}

impl Content {
    fn is(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Turns(_) => "a list of turns",
        }
    }
}

fn completion(fields: &Map<String, Value>) -> Result<Record<Passage>, LmError> {
    let prompt = content(fields, "prompt")?;
    passage(&prompt, content(fields, "completion")?, "completion").map(Record::Demonstration)
}

fn preference(fields: &Map<String, Value>) -> Result<Record<Passage>, LmError> {
    let (chosen, rejected) = (content(fields, "chosen")?, content(fields, "rejected")?);
    if fields.contains_key("messages") {
        match (&chosen, content(fields, "messages")?) {
            (Content::Turns(chosen), Content::Turns(messages)) if *chosen == messages => {}
            _ => return Err(refuse("messages", "the turns of chosen, or no such field", "others")),
        }
    }
    match (fields.contains_key("prompt"), chosen, rejected) {
        (false, Content::Turns(chosen), Content::Turns(rejected)) => shared(chosen, rejected),
        (false, ..) => Err(refuse("prompt", "text, as chosen and rejected are text", "nothing")),
        (true, chosen, rejected) => match (content(fields, "prompt")?, chosen, rejected) {
            // On the hub, lists hold the prompt too, and the field repeats it as text.
            (Content::Text(prompt), Content::Turns(chosen), Content::Turns(rejected)) => {
                repeats_the_user("chosen", &prompt, &chosen)?;
                shared(chosen, rejected)
            }
            (prompt, chosen, rejected) => Ok(Record::Preference {
                chosen: passage(&prompt, chosen, "chosen")?,
                rejected: passage(&prompt, rejected, "rejected")?,
            }),
        },
    }
}

fn demonstrations(fields: &Map<String, Value>, learnt: Learnt) -> Result<Vec<Record<Passage>>, LmError> {
    let Content::Turns(messages) = content(fields, "messages")? else {
        return Err(refuse("messages", "a list of turns", "text"));
    };
    if fields.contains_key("prompt") {
        let Content::Text(prompt) = content(fields, "prompt")? else {
            return Err(refuse("prompt", "text beside messages", "a list of turns"));
        };
        repeats_the_user("messages", &prompt, &messages)?;
    }
    let ends: Vec<usize> = (0..messages.len()).filter(|&index| messages[index].role == Role::Assistant).collect();
    let demonstration = |index: usize| {
        let (prompt, response) = (messages[..index].to_vec(), vec![messages[index].clone()]);
        Record::Demonstration(Passage::Conversation { prompt, response })
    };
    match (learnt, ends.last()) {
        (Learnt::Last, Some(&last)) if last + 1 == messages.len() => Ok(vec![demonstration(last)]),
        (Learnt::Every, Some(_)) => Ok(ends.into_iter().map(demonstration).collect()),
        (Learnt::Last, _) => Err(refuse("messages", "a last turn of the assistant", "one of another role, or none")),
        (Learnt::Every, None) => Err(refuse("messages", "a turn of the assistant", "none")),
    }
}

fn passage(prompt: &Content, response: Content, field: &str) -> Result<Passage, LmError> {
    match (prompt, response) {
        (Content::Text(prompt), Content::Text(response)) => Ok(Passage::Text { prompt: prompt.clone(), response }),
        (Content::Turns(prompt), Content::Turns(response)) => {
            Ok(Passage::Conversation { prompt: prompt.clone(), response })
        }
        (prompt, response) => Err(refuse(field, format!("{}, as prompt is", prompt.is()), response.is())),
    }
}

/// The turns that both begin with are the prompt.
fn shared(mut chosen: Vec<Message>, mut rejected: Vec<Message>) -> Result<Record<Passage>, LmError> {
    let count = chosen.iter().zip(&rejected).take_while(|(chosen, rejected)| chosen == rejected).count();
    if count == 0 {
        return Err(refuse("rejected", "a first turn that is that of chosen", "another"));
    }
    let prompt: Vec<_> = chosen.drain(..count).collect();
    rejected.drain(..count);
    for (field, other, rest) in [("chosen", "rejected", &chosen), ("rejected", "chosen", &rejected)] {
        if rest.is_empty() {
            return Err(refuse(field, format!("turns beyond those that {other} begins with too"), "none"));
        }
    }
    Ok(Record::Preference {
        chosen: Passage::Conversation { prompt: prompt.clone(), response: chosen },
        rejected: Passage::Conversation { prompt, response: rejected },
    })
}

fn repeats_the_user(field: &str, prompt: &str, messages: &[Message]) -> Result<(), LmError> {
    match messages.iter().find(|message| message.role == Role::User) {
        Some(first) if first.content == prompt => Ok(()),
        _ => Err(refuse("prompt", format!("the first user's turn of {field}"), format!("{prompt:?}"))),
    }
}

fn content(fields: &Map<String, Value>, field: &str) -> Result<Content, LmError> {
    match fields.get(field) {
        Some(Value::String(text)) => Ok(Content::Text(text.clone())),
        Some(Value::Array(turns)) => turns
            .iter()
            .enumerate()
            .map(|(index, turn)| message(turn, &format!("{field}[{index}]")))
            .collect::<Result<_, _>>()
            .map(Content::Turns),
        Some(other) => Err(refuse(field, "text or a list of turns", other.to_string())),
        None => Err(refuse(field, "text or a list of turns", "nothing")),
    }
}

fn message(turn: &Value, place: &str) -> Result<Message, LmError> {
    let Value::Object(fields) = turn else {
        return Err(refuse(place, "a turn {\"role\": ..., \"content\": ...}", turn.to_string()));
    };
    if let Some(unknown) = fields.keys().find(|field| !["role", "content"].contains(&field.as_str())) {
        return Err(refuse(&format!("{place}.{unknown}"), "one of the fields role, content", "an unknown field"));
    }
    let text = |field: &str, allowed: &str| match fields.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(refuse(&format!("{place}.{field}"), allowed, other.to_string())),
        None => Err(refuse(&format!("{place}.{field}"), allowed, "nothing")),
    };
    let roles = format!("one of {}", Role::VARIANTS.join(", "));
    let name = text("role", &roles)?;
    let role = name.parse().map_err(|_| refuse(&format!("{place}.role"), roles, name))?;
    Ok(Message { role, content: text("content", "text")? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(line: &Value) -> Result<Vec<Record<Passage>>, LmError> {
        parse_line(&line.to_string(), Learnt::Last)
    }

    fn user(content: &str) -> Message {
        Message { role: Role::User, content: content.to_owned() }
    }

    fn assistant(content: &str) -> Message {
        Message { role: Role::Assistant, content: content.to_owned() }
    }

    fn said(prompt: &[Message], response: &[Message]) -> Passage {
        Passage::Conversation { prompt: prompt.to_vec(), response: response.to_vec() }
    }

    fn text(prompt: &str, response: &str) -> Passage {
        Passage::Text { prompt: prompt.to_owned(), response: response.to_owned() }
    }

    #[test]
    fn both_conventions_of_prompts_and_completions_are_read() {
        let plain = json!({"prompt": "The sky is", "completion": " blue."});
        assert_eq!(read(&plain).unwrap(), [Record::Demonstration(text("The sky is", " blue."))]);
        let turns = json!({"prompt": [user("hi")], "completion": [assistant("ho")]});
        assert_eq!(read(&turns).unwrap(), [Record::Demonstration(said(&[user("hi")], &[assistant("ho")]))]);
    }

    #[test]
    fn both_conventions_of_preferences_are_read() {
        let plain = json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."});
        let expected =
            Record::Preference { chosen: text("The sky is", " blue."), rejected: text("The sky is", " green.") };
        assert_eq!(read(&plain).unwrap(), [expected]);
        let expected = [Record::Preference {
            chosen: said(&[user("hi")], &[assistant("ho")]),
            rejected: said(&[user("hi")], &[assistant("no")]),
        }];
        let explicit = json!({"prompt": [user("hi")], "chosen": [assistant("ho")], "rejected": [assistant("no")]});
        assert_eq!(read(&explicit).unwrap(), expected);
        let (chosen, rejected) = ([user("hi"), assistant("ho")], [user("hi"), assistant("no")]);
        let implicit = json!({"chosen": chosen, "rejected": rejected});
        assert_eq!(read(&implicit).unwrap(), expected);
        let ultrafeedback = json!({"prompt": "hi", "prompt_id": "a", "chosen": chosen, "rejected": rejected,
            "messages": chosen, "score_chosen": 8.0, "score_rejected": 7.5});
        assert_eq!(read(&ultrafeedback).unwrap(), expected);
    }

    #[test]
    fn messages_are_one_demonstration_or_one_for_each_turn_of_the_assistant() {
        let messages = [user("1"), assistant("2"), user("3"), assistant("4")];
        let line = json!({"prompt": "1", "prompt_id": "a", "messages": messages}).to_string();
        let last = Record::Demonstration(said(&messages[..3], &messages[3..]));
        assert_eq!(parse_line(&line, Learnt::Last).unwrap(), std::slice::from_ref(&last));
        let first = Record::Demonstration(said(&messages[..1], &messages[1..2]));
        assert_eq!(parse_line(&line, Learnt::Every).unwrap(), [first, last]);
    }

    #[test]
    fn what_is_unknown_missing_or_of_another_type_is_refused_by_name() {
        let fields = "chosen, rejected, messages";
        let roles = "system, developer, user, assistant, tool";
        let turns = json!([user("hi"), assistant("ho")]);
        let cases = [
            (json!({}), "prompt: expected text or a list of turns, got nothing".to_owned()),
            (json!({"prompt": "a"}), "completion: expected text or a list of turns, got nothing".to_owned()),
            (json!({"prompt": "a", "completion": 3}), "completion: expected text or a list of turns, got 3".to_owned()),
            (
                json!({"prompt": "a", "completion": null}),
                "completion: expected text or a list of turns, got null".to_owned(),
            ),
            (
                json!({"prompt": "a", "response": "b"}),
                "response: expected one of the fields prompt, completion, got an unknown field".to_owned(),
            ),
            (
                json!({"prompt": "a", "chosen": "b"}),
                "rejected: expected text or a list of turns, got nothing".to_owned(),
            ),
            (
                json!({"chosen": "b", "rejected": "c"}),
                "prompt: expected text, as chosen and rejected are text, got nothing".to_owned(),
            ),
            (
                json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1}),
                format!("margin: expected one of the fields prompt, {fields}, got an unknown field"),
            ),
            (
                json!({"prompt": "a", "completion": turns}),
                "completion: expected text, as prompt is, got a list of turns".to_owned(),
            ),
            (
                json!({"prompt": turns, "chosen": "b", "rejected": "c"}),
                "chosen: expected a list of turns, as prompt is, got text".to_owned(),
            ),
            (json!({"messages": "a"}), "messages: expected a list of turns, got text".to_owned()),
            (
                json!({"messages": []}),
                "messages: expected a last turn of the assistant, got one of another role, or none".to_owned(),
            ),
            (
                json!({"messages": [user("a")]}),
                "messages: expected a last turn of the assistant, got one of another role, or none".to_owned(),
            ),
            (
                json!({"messages": turns, "prompt": "ho"}),
                "prompt: expected the first user's turn of messages, got \"ho\"".to_owned(),
            ),
            (
                json!({"messages": ["a"]}),
                "messages[0]: expected a turn {\"role\": ..., \"content\": ...}, got \"a\"".to_owned(),
            ),
            (
                json!({"messages": [{"role": "bot", "content": "a"}]}),
                format!("messages[0].role: expected one of {roles}, got bot"),
            ),
            (
                json!({"messages": [{"content": "a"}]}),
                format!("messages[0].role: expected one of {roles}, got nothing"),
            ),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content: expected text, got nothing".to_owned()),
            (
                json!({"messages": [{"role": "user", "content": "a", "name": "b"}]}),
                "messages[0].name: expected one of the fields role, content, got an unknown field".to_owned(),
            ),
            (
                json!({"chosen": turns, "rejected": [assistant("no")]}),
                "rejected: expected a first turn that is that of chosen, got another".to_owned(),
            ),
            (
                json!({"chosen": turns, "rejected": turns}),
                "chosen: expected turns beyond those that rejected begins with too, got none".to_owned(),
            ),
            (
                json!({"chosen": turns, "rejected": [user("hi"), assistant("no")], "messages": [user("hi")]}),
                "messages: expected the turns of chosen, or no such field, got others".to_owned(),
            ),
        ];
        for (line, message) in cases {
            assert_eq!(read(&line).unwrap_err().to_string(), message, "{line}");
        }
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let good = r#"{"prompt": "a", "completion": "b"}"#;
        let parse = |text: &str| parse_lines("data.jsonl".as_ref(), text, Learnt::Last);
        assert_eq!(parse(&format!("{good}\n{good}\n")).unwrap().len(), 2);
        let cut = parse(&format!("{good}\n{{\"prompt\": \"a")).unwrap_err().to_string();
        assert!(cut.starts_with("data.jsonl:2: line: expected a JSON object, got EOF"), "{cut}");
        let blank = parse(&format!("{good}\n\n{good}\n")).unwrap_err().to_string();
        assert!(blank.starts_with("data.jsonl:2: line: expected a JSON object"), "{blank}");
        assert_eq!(parse("").unwrap_err().to_string(), "data.jsonl: lines: expected at least 1, got 0");
    }
}
