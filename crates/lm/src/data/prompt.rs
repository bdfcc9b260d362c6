//! Prompts that a model is asked to go on from.

use std::path::Path;

use serde_json::{Map, Value};

use super::field::{Content, content, ids};
use super::{at, objects};
use crate::chat::{Ending, Message, Role};
use crate::error::{LmError, refuse};
use crate::example::Encoder;

/// What is gone on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Plain text, which is not rendered.
    Text(String),
    /// Turns of a conversation, which the model's chat template renders. If the last is the assistant's, that turn itself goes on.
    Conversation(Vec<Message>),
    /// Token ids, which are taken as they are.
    Ids(Vec<u32>),
}

/// Reads prompts from JSON lines or Parquet: `prompt` as text or turns, `messages`, or `prompt_ids`, and no other field.
///
/// # Errors
///
/// As [`read_records`](super::read_records).
pub fn read_prompts(path: &Path) -> Result<Vec<Prompt>, LmError> {
    let prompts = objects(path, |fields| Ok(vec![prompt(fields)?]))?;
    Ok(prompts.into_iter().map(|(_, prompt)| prompt).collect())
}

/// The tokens of prompts, of which each is from its own line of the file.
///
/// # Errors
///
/// [`LmError::Line`] or [`LmError::Row`] with what is wrong: as [`Encoder::prompt`].
pub fn encode_prompts(path: &Path, prompts: &[Prompt], encoder: &Encoder<'_>) -> Result<Vec<Vec<u32>>, LmError> {
    let encode = |(index, prompt)| encoder.prompt(prompt).map_err(|error| at(path, index + 1, error));
    prompts.iter().enumerate().map(encode).collect()
}

fn prompt(fields: &Map<String, Value>) -> Result<Prompt, LmError> {
    const KNOWN: [&str; 3] = ["prompt", "messages", "prompt_ids"];
    let named: Vec<&str> = fields.keys().map(String::as_str).collect();
    match &named[..] {
        ["prompt_ids"] => Ok(Prompt::Ids(ids(fields, "prompt_ids")?)),
        [field @ ("prompt" | "messages")] => match content(fields, field)? {
            Content::Text(_) if *field == "messages" => Err(refuse(field, "a list of turns", "text")),
            Content::Text(text) => Ok(Prompt::Text(text)),
            Content::Turns(turns) => match turns.last() {
                Some(last) if last.role != Role::Assistant => Ok(Prompt::Conversation(turns)),
                last => Err(refuse(
                    field,
                    "turns of which the last is not the assistant's",
                    last.map_or("none", |last| last.role.into()),
                )),
            },
        },
        [] => Err(refuse("line", format!("one of the fields {}", KNOWN.join(", ")), "none")),
        named => Err(refuse("line", format!("one of the fields {} alone", KNOWN.join(", ")), named.join(", "))),
    }
}

impl Encoder<'_> {
    /// The tokens of a prompt, to be gone on from.
    ///
    /// # Errors
    ///
    /// [`LmError::Record`] for text where there is no tokenizer, turns where there is no chat template, and a prompt without tokens;
    /// the template's and the tokenizer's own.
    pub fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, LmError> {
        match prompt {
            Prompt::Ids(ids) => self.validated(ids.clone()),
            Prompt::Text(text) => self.encoded(text),
            Prompt::Conversation(turns) => self.encoded(&self.rendered(turns)?),
        }
    }

    /// The text of a conversation that is to be gone on from.
    pub(crate) fn rendered(&self, turns: &[Message]) -> Result<String, LmError> {
        self.tokenizer("messages")?;
        let is_begun = turns.last().is_some_and(|last| last.role == Role::Assistant);
        let ending = if is_begun { Ending::Continued } else { Ending::GenerationPrompt };
        self.template()?.render(turns, ending)
    }

    /// The tokens of a text, rendered or plain.
    pub(crate) fn encoded(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.validated(self.tokenizer("text")?.encode(text)?)
    }

    /// Token ids, where there are some and the model knows them.
    fn validated(&self, ids: Vec<u32>) -> Result<Vec<u32>, LmError> {
        if ids.is_empty() {
            return Err(refuse("prompt", "a token, as the model has no bos_token to begin with", "nothing"));
        }
        self.known("prompt", &ids)?;
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(line: &Value) -> Result<Prompt, String> {
        prompt(line.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn prompts_are_text_turns_or_ids() {
        let turns = json!([{"role": "user", "content": "hi"}]);
        let conversation = Prompt::Conversation(vec![Message { role: Role::User, content: "hi".to_owned() }]);
        assert_eq!(read(&json!({"prompt": "hi"})).unwrap(), Prompt::Text("hi".to_owned()));
        assert_eq!(read(&json!({"prompt": turns})).unwrap(), conversation);
        assert_eq!(read(&json!({"messages": turns})).unwrap(), conversation);
        assert_eq!(read(&json!({"prompt_ids": [1, 2]})).unwrap(), Prompt::Ids(vec![1, 2]));
    }

    #[test]
    fn other_lines_are_refused_by_name() {
        let known = "one of the fields prompt, messages, prompt_ids";
        for (line, message) in [
            (json!({}), format!("line: expected {known}, got none")),
            (
                json!({"prompt": "a", "completion": "b"}),
                format!("line: expected {known} alone, got completion, prompt"),
            ),
            (json!({"text": "a"}), format!("line: expected {known} alone, got text")),
            (json!({"messages": "a"}), "messages: expected a list of turns, got text".to_owned()),
            (
                json!({"prompt": [{"role": "assistant", "content": "a"}]}),
                "prompt: expected turns of which the last is not the assistant's, got assistant".to_owned(),
            ),
            (
                json!({"messages": []}),
                "messages: expected turns of which the last is not the assistant's, got none".to_owned(),
            ),
            (json!({"prompt_ids": []}), "prompt_ids: expected at least 1 token id, got none".to_owned()),
        ] {
            assert_eq!(read(&line).unwrap_err(), message);
        }
    }
}
