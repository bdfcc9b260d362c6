//! Prompts for a model to continue, alone or from records of any layout.

use std::path::Path;

use serde_json::{Map, Value};

use super::field::{Content, content, ids};
use super::{Learnt, Record, at, layout, objects};
use crate::chat::{Ending, Message, Role};
use crate::error::{TextError, refuse};
use crate::example::{Encoder, Passage, no_prompt};

/// A prompt that a model continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Plain text, which is not rendered by a template.
    Text(String),
    /// Turns of a conversation, which the model's chat template renders. If the last turn is the assistant's, the model
    /// continues that turn.
    Conversation(Vec<Message>),
    /// Token ids, which are not changed.
    Ids(Vec<u32>),
}

/// Reads the prompt of each record of a file: `prompt` as text or turns, `messages`, or `prompt_ids` alone, or the
/// prompt of a training record.
///
/// # Errors
///
/// As [`read_records`](super::read_records).
pub fn read_prompts(path: &Path) -> Result<Vec<Prompt>, TextError> {
    let prompts = objects(path, |fields| Ok(vec![prompt(fields)?]))?;
    Ok(prompts.into_iter().map(|(_, prompt)| prompt).collect())
}

/// Encodes prompts, each with the number of its line in the file.
///
/// # Errors
///
/// [`TextError::Line`], [`TextError::Entry`] or [`TextError::Row`] with an error of [`Encoder::prompt`].
pub fn encode_prompts(path: &Path, prompts: &[Prompt], encoder: &Encoder<'_>) -> Result<Vec<Vec<u32>>, TextError> {
    let encode = |(index, prompt)| encoder.prompt(prompt).map_err(|error| at(path, index + 1, error));
    prompts.iter().enumerate().map(encode).collect()
}

fn prompt(fields: &Map<String, Value>) -> Result<Prompt, TextError> {
    const KNOWN: [&str; 3] = ["prompt", "messages", "prompt_ids"];
    let named: Vec<&str> = fields.keys().map(String::as_str).collect();
    match &named[..] {
        ["prompt_ids"] => Ok(Prompt::Ids(ids(fields, "prompt_ids")?)),
        [field @ ("prompt" | "messages")] => match content(fields, field)? {
            Content::Text(_) if *field == "messages" => Err(refuse(field, "a list of turns", "text")),
            Content::Text(text) => Ok(Prompt::Text(text)),
            Content::Turns(turns) => match turns.last() {
                Some(last) if last.role != Role::Assistant => Ok(Prompt::Conversation(turns)),
                Some(_) if *field == "messages" => before_response(fields),
                last => Err(refuse(
                    field,
                    "turns of which the last is not the assistant's",
                    last.map_or("none", |last| last.role.into()),
                )),
            },
        },
        named if !named.iter().any(|field| layout::is_read(field)) => {
            let allowed = format!("one of the fields {}, or those of training data", KNOWN.join(", "));
            let given = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
            let format = "; --format alpaca_eval reads instructions";
            let format = if named.contains(&"instruction") { format } else { "" };
            Err(refuse("record", allowed, given + format))
        }
        _ => before_response(fields),
    }
}

/// The prompt of a training record.
fn before_response(fields: &Map<String, Value>) -> Result<Prompt, TextError> {
    let passage = match layout::records(fields, Learnt::Last)?.into_iter().next() {
        Some(Record::Demonstration(passage)) => Some(passage),
        Some(Record::Preference { chosen, .. }) => Some(chosen),
        Some(Record::Labelled { response, .. }) => Some(response),
        Some(Record::Group(responses)) => responses.into_iter().next().map(|(response, _)| response),
        None => None,
    };
    match passage {
        Some(Passage::Text { prompt, .. }) => Ok(Prompt::Text(prompt)),
        Some(Passage::Conversation { prompt, .. }) if prompt.is_empty() => Err(no_prompt()),
        Some(Passage::Conversation { prompt, .. }) => Ok(Prompt::Conversation(prompt)),
        Some(Passage::Ids { prompt, .. }) => Ok(Prompt::Ids(prompt)),
        None => Err(no_prompt()),
    }
}

impl Encoder<'_> {
    /// Encodes a prompt for the model to continue.
    ///
    /// # Errors
    ///
    /// [`TextError::Unusable`] for text without a tokenizer, turns without a chat template, and a prompt without
    /// tokens; errors of the template and of the tokenizer.
    pub fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, TextError> {
        match prompt {
            Prompt::Ids(ids) => self.validated(ids.clone()),
            Prompt::Text(text) => self.encoded(text),
            Prompt::Conversation(turns) => self.encoded(&self.rendered(turns)?),
        }
    }

    /// Renders a conversation as the text that the model continues.
    pub fn rendered(&self, turns: &[Message]) -> Result<String, TextError> {
        self.tokenizer("messages")?;
        let is_begun = turns.last().is_some_and(|last| last.role == Role::Assistant);
        let ending = if is_begun { Ending::Continued } else { Ending::GenerationPrompt };
        self.template()?.render(turns, ending)
    }

    /// Encodes a text, whether rendered by a template or plain.
    pub fn encoded(&self, text: &str) -> Result<Vec<u32>, TextError> {
        self.validated(self.tokenizer("text")?.encode(text)?)
    }

    /// Token ids, checked to be in the model's vocabulary and at least one.
    fn validated(&self, ids: Vec<u32>) -> Result<Vec<u32>, TextError> {
        if ids.is_empty() {
            return Err(no_prompt());
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
    fn the_prompt_of_every_layout_of_data_is_what_comes_before_the_response() {
        let user = Message { role: Role::User, content: "hi".to_owned() };
        let answer = json!({"role": "assistant", "content": "ho"});
        let (text, turns) = (Prompt::Text("hi".to_owned()), Prompt::Conversation(vec![user.clone()]));
        for (line, expected) in [
            (json!({"prompt": "hi", "completion": "ho"}), &text),
            (json!({"prompt": "hi", "completion": "", "label": true}), &text),
            (json!({"prompt": "hi", "chosen": "ho", "rejected": "no"}), &text),
            (json!({"prompt": "hi", "completions": ["ho", "no"], "rewards": [1, 0]}), &text),
            (json!({"messages": [user, answer]}), &turns),
            (json!({"prompt": "hi", "prompt_id": "5f", "messages": [user, answer]}), &turns),
            (json!({"prompt": [user], "completion": [answer]}), &turns),
            (json!({"chosen": [user, answer], "rejected": [user, {"role": "assistant", "content": "no"}]}), &turns),
            (json!({"prompt_ids": [1, 2], "response_ids": [3]}), &Prompt::Ids(vec![1, 2])),
            (json!({"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]}), &Prompt::Ids(vec![1, 2])),
            (json!({"prompt_ids": [1, 2], "completions_ids": [[3], [4]], "rewards": [1, 0]}), &Prompt::Ids(vec![1, 2])),
        ] {
            assert_eq!(read(&line).as_ref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn other_lines_are_refused_by_name() {
        let known = "one of the fields prompt, messages, prompt_ids, or those of training data";
        for (line, message) in [
            (json!({}), format!("record: expected {known}, got none")),
            (
                json!({"prompt": "a", "response": "b"}),
                "response: expected one of the fields prompt, completion, label, got an unknown field".to_owned(),
            ),
            (json!({"text": "a"}), format!("record: expected {known}, got text")),
            (
                json!({"instruction": "a", "output": "b"}),
                format!("record: expected {known}, got instruction, output; --format alpaca_eval reads instructions"),
            ),
            (json!({"messages": "a"}), "messages: expected a list of turns, got text".to_owned()),
            (
                json!({"prompt": [{"role": "assistant", "content": "a"}]}),
                "prompt: expected turns of which the last is not the assistant's, got assistant".to_owned(),
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "a"}]}),
                "prompt: expected a token, as the model has no bos_token to begin with, got nothing".to_owned(),
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
