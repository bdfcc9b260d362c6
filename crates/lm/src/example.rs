//! What a model is trained on: tokens of a prompt, and of the response that is learnt.
//!
//! Whatever the template writes after the prompt belongs to the response, its end markers included: a model that is not trained on
//! them never stops. The response mask is where the response is, so a padding token that equals `eos_token` masks nothing.

use crate::chat::{ChatTemplate, Ending, Message, Role};
use crate::data::unusable::Unusable;
use crate::error::{LmError, refuse};
use crate::tokens::Tokenizer;

/// A prompt with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// As plain text, which is not rendered.
    Text {
        /// What comes before.
        prompt: String,
        /// What is learnt.
        response: String,
    },
    /// As turns of a conversation, which the model's chat template renders.
    Conversation {
        /// The turns before.
        prompt: Vec<Message>,
        /// The turns that are learnt: the first and the last are the assistant's.
        response: Vec<Message>,
    },
    /// As token ids, which are taken as they are: nothing begins the prompt or ends the response that is not given.
    Ids {
        /// What comes before.
        prompt: Vec<u32>,
        /// What is learnt.
        response: Vec<u32>,
    },
}

/// What makes tokens of passages.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// For text and conversations; passages that are token ids need none.
    pub tokenizer: Option<&'a Tokenizer>,
    /// For conversations.
    pub template: Option<&'a ChatTemplate>,
    /// How many tokens the model knows: every id is below.
    pub vocabulary: usize,
}

impl<'a> Encoder<'a> {
    /// Refuses tokens that the model does not know.
    pub(crate) fn known(&self, field: &str, ids: &[u32]) -> Result<(), LmError> {
        match ids.iter().find(|id| **id as usize >= self.vocabulary) {
            None => Ok(()),
            Some(unknown) => {
                let allowed = format!("token ids below {}, the size of the model's vocabulary", self.vocabulary);
                Err(Unusable::Encoding.because(refuse(field, allowed, unknown)))
            }
        }
    }

    pub(crate) fn template(&self) -> Result<&'a ChatTemplate, LmError> {
        let refused = || refuse("record", "text, as the model has no chat template", "messages");
        self.template.ok_or_else(|| Unusable::Encoding.because(refused()))
    }

    pub(crate) fn tokenizer(&self, given: &str) -> Result<&'a Tokenizer, LmError> {
        let allowed = "token ids (prompt_ids, response_ids), as there is no tokenizer.json to encode text";
        self.tokenizer.ok_or_else(|| Unusable::Encoding.because(refuse("record", allowed, given)))
    }
}

/// The tokens of a prompt and of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Not learnt. Begins with `bos_token` where the model has one.
    pub prompt: Vec<u32>,
    /// Learnt, token by token.
    pub response: Vec<u32>,
    /// How many of the response's tokens are its end markers: at least one, but none where ids were given, as nothing says which
    /// of them mark an end.
    pub end: usize,
}

impl Example {
    /// The example's tokens.
    ///
    /// # Errors
    ///
    /// [`LmError::Unusable`] for a prompt or response without tokens, text where there is no tokenizer, a conversation
    /// where the model has no chat template, and a token that the model does not know; [`LmError::Record`] for turns in
    /// an order that has no response; [`LmError::Boundary`]; the template's and the tokenizer's own.
    pub fn new(passage: &Passage, encoder: &Encoder<'_>) -> Result<Self, LmError> {
        let example = match passage {
            Passage::Text { prompt, response } => text(prompt, response, encoder.tokenizer("text")?)?,
            Passage::Conversation { prompt, response } => {
                let tokenizer = encoder.tokenizer("messages")?;
                conversation(prompt, response, tokenizer, encoder.template()?)?
            }
            Passage::Ids { prompt, response } => ids(prompt, response)?,
        };
        for (field, ids) in [("prompt", &example.prompt), ("response", &example.response)] {
            encoder.known(field, ids)?;
        }
        Ok(example)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.prompt.len() + self.response.len()
    }

    /// Never: a response has a token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The example within `max_length` tokens. The response's last tokens before its end markers are cut; the markers stay, and
    /// so does the whole prompt, with the markers of its roles.
    ///
    /// # Errors
    ///
    /// [`LmError::Length`] where not one token of the response would be left before its end.
    pub fn truncated(mut self, max_length: usize) -> Result<Self, LmError> {
        let Self { prompt, response, end } = &mut self;
        let content = response.len() - *end;
        let room = max_length.saturating_sub(prompt.len() + *end);
        if room == 0 {
            return Err(LmError::Length { prompt: prompt.len(), end: *end, max_length });
        }
        response.drain(room.min(content)..content);
        Ok(self)
    }
}

fn text(prompt: &str, response: &str, tokenizer: &Tokenizer) -> Result<Example, LmError> {
    if response.trim().is_empty() {
        return Err(Unusable::Empty.because(refuse("response", "text", format!("{response:?}"))));
    }
    let mut ids = if prompt.is_empty() {
        // Nothing is gone on from: the text begins with the response.
        tokenizer.encode_first(response)?
    } else {
        tokenizer.encode_on(response)?
    };
    if ids.last() != Some(&tokenizer.eos()) {
        ids.push(tokenizer.eos());
    }
    example(tokenizer.encode(prompt)?, ids, 1)
}

fn conversation(
    prompt: &[Message],
    response: &[Message],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> Result<Example, LmError> {
    let is_assistant = |message: Option<&Message>| message.is_some_and(|message| message.role == Role::Assistant);
    let role = |message: Option<&Message>| message.map_or("nothing", |message| message.role.into()).to_owned();
    if prompt.is_empty() || is_assistant(prompt.last()) {
        return Err(refuse("prompt", "turns of which the last is not the assistant's", role(prompt.last())));
    }
    for (name, message) in [("first", response.first()), ("last", response.last())] {
        if !is_assistant(message) {
            return Err(refuse("response", format!("a {name} turn of the assistant"), role(message)));
        }
    }
    for message in response.iter().filter(|message| message.role == Role::Assistant) {
        if message.content.trim().is_empty() {
            return Err(Unusable::Empty.because(refuse("response", "text", format!("{:?}", message.content))));
        }
    }
    let rendered = template.render(prompt, Ending::GenerationPrompt)?;
    let whole: Vec<_> = prompt.iter().chain(response).cloned().collect();
    let whole = template.render(&whole, Ending::Turn)?;
    let Some(rest) = whole.strip_prefix(rendered.as_str()) else {
        return Err(LmError::Boundary { prompt: rendered, whole });
    };
    let mut ids = tokenizer.encode_on(rest)?;
    let end = match end_markers(&ids, tokenizer)? {
        0 => {
            ids.push(tokenizer.eos());
            1
        }
        end => end,
    };
    example(tokenizer.encode(&rendered)?, ids, end)
}

fn ids(prompt: &[u32], response: &[u32]) -> Result<Example, LmError> {
    for (field, ids) in [("prompt", prompt), ("response", response)] {
        if ids.is_empty() {
            return Err(Unusable::Empty.because(refuse(field, "at least 1 token id", "none")));
        }
    }
    Ok(Example { prompt: prompt.to_vec(), response: response.to_vec(), end: 0 })
}

fn example(prompt: Vec<u32>, response: Vec<u32>, end: usize) -> Result<Example, LmError> {
    // The first prediction is made from a token.
    if prompt.is_empty() {
        return Err(no_prompt());
    }
    if response.len() == end {
        return Err(Unusable::Empty.because(refuse("response", "a token before its end", "none")));
    }
    Ok(Example { prompt, response, end })
}

/// The refusal of a prompt without tokens.
pub(crate) fn no_prompt() -> LmError {
    let refused = refuse("prompt", "a token, as the model has no bos_token to begin with", "nothing");
    Unusable::Empty.because(refused)
}

/// How many tokens at the end are markers, or white space behind a marker.
fn end_markers(ids: &[u32], tokenizer: &Tokenizer) -> Result<usize, LmError> {
    let mut end = 0;
    for (index, id) in ids.iter().rev().enumerate() {
        if tokenizer.is_marker(*id) {
            end = index + 1;
        } else if !tokenizer.is_white_space(*id)? {
            break;
        }
    }
    Ok(end)
}
