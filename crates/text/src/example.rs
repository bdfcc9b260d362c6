//! Training examples: the tokens of a prompt and of the response that is learned.
//!
//! Everything that the template writes after the prompt belongs to the response, including its end markers: a model
//! that is not trained on them never stops. The response mask covers the positions of the response, so a padding token
//! that equals `eos_token` masks nothing.

use crate::chat::{ChatTemplate, Ending, Message, Role};
use crate::data::unusable::Unusable;
use crate::error::{TextError, refuse};
use crate::tokens::Tokenizer;

/// A prompt with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Plain text, which is not rendered by a template.
    Text {
        /// Text before the response.
        prompt: String,
        /// Text that is learned.
        response: String,
    },
    /// Turns of a conversation, which the model's chat template renders.
    Conversation {
        /// Turns before the response.
        prompt: Vec<Message>,
        /// Turns that are learned. The first and the last are the assistant's.
        response: Vec<Message>,
    },
    /// Token ids, which are not changed: no token is added at the beginning of the prompt or at the end of the
    /// response.
    Ids {
        /// Tokens before the response.
        prompt: Vec<u32>,
        /// Tokens that are learned.
        response: Vec<u32>,
    },
}

/// Encoder of passages for one model.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// Tokenizer, for text and conversations. Token ids need none.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Chat template, for conversations.
    pub template: Option<&'a ChatTemplate>,
    /// Size of the model's vocabulary: every token id is below it.
    pub vocabulary: usize,
}

impl<'a> Encoder<'a> {
    /// Rejects token ids that are outside of the model's vocabulary.
    pub(crate) fn known(&self, field: &str, ids: &[u32]) -> Result<(), TextError> {
        match ids.iter().find(|id| **id as usize >= self.vocabulary) {
            None => Ok(()),
            Some(unknown) => {
                let allowed = format!("token ids below {}, the size of the model's vocabulary", self.vocabulary);
                Err(Unusable::Encoding.because(refuse(field, allowed, unknown)))
            }
        }
    }

    pub(crate) fn template(&self) -> Result<&'a ChatTemplate, TextError> {
        let refused = || refuse("record", "text, as the model has no chat template", "messages");
        self.template.ok_or_else(|| Unusable::Encoding.because(refused()))
    }

    pub(crate) fn tokenizer(&self, given: &str) -> Result<&'a Tokenizer, TextError> {
        let allowed = "token ids (prompt_ids, response_ids), as there is no tokenizer.json to encode text";
        self.tokenizer.ok_or_else(|| Unusable::Encoding.because(refuse("record", allowed, given)))
    }
}

/// Tokens of a prompt and of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Tokens of the prompt, which are not learned. They begin with `bos_token` if the model has one.
    pub prompt: Vec<u32>,
    /// Tokens of the response, which are learned.
    pub response: Vec<u32>,
    /// Number of end markers at the end of the response: at least one, except for given token ids, whose end markers
    /// are unknown and which have 0.
    pub end: usize,
}

impl Example {
    /// Encodes a passage.
    ///
    /// # Errors
    ///
    /// [`TextError::Unusable`] for a prompt or response without tokens, text without a tokenizer, a conversation
    /// without a chat template, and a token id outside of the vocabulary; [`TextError::Record`] for turns whose order
    /// leaves no response; [`TextError::Boundary`]; errors of the template and of the tokenizer.
    pub fn new(passage: &Passage, encoder: &Encoder<'_>) -> Result<Self, TextError> {
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

    /// Whether the example has no tokens, which is never true: every response has a token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Truncates the example to `max_length` tokens. Only the response's last tokens before its end markers are
    /// removed; the end markers and the whole prompt, with its role markers, remain.
    ///
    /// # Errors
    ///
    /// [`TextError::Length`] if no token of the response would remain before its end markers.
    pub fn truncated(mut self, max_length: usize) -> Result<Self, TextError> {
        let Self { prompt, response, end } = &mut self;
        let content = response.len() - *end;
        let room = max_length.saturating_sub(prompt.len() + *end);
        if room == 0 {
            return Err(TextError::Length { prompt: prompt.len(), end: *end, max_length });
        }
        response.drain(room.min(content)..content);
        Ok(self)
    }
}

fn text(prompt: &str, response: &str, tokenizer: &Tokenizer) -> Result<Example, TextError> {
    if response.trim().is_empty() {
        return Err(Unusable::Empty.because(refuse("response", "text", format!("{response:?}"))));
    }
    let mut ids = if prompt.is_empty() {
        // Without a prompt, the text begins with the response.
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
) -> Result<Example, TextError> {
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
        return Err(TextError::Boundary { prompt: rendered, whole });
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

fn ids(prompt: &[u32], response: &[u32]) -> Result<Example, TextError> {
    for (field, ids) in [("prompt", prompt), ("response", response)] {
        if ids.is_empty() {
            return Err(Unusable::Empty.because(refuse(field, "at least 1 token id", "none")));
        }
    }
    Ok(Example { prompt: prompt.to_vec(), response: response.to_vec(), end: 0 })
}

fn example(prompt: Vec<u32>, response: Vec<u32>, end: usize) -> Result<Example, TextError> {
    // The first prediction needs a token before it.
    if prompt.is_empty() {
        return Err(no_prompt());
    }
    if response.len() == end {
        return Err(Unusable::Empty.because(refuse("response", "a token before its end", "none")));
    }
    Ok(Example { prompt, response, end })
}

/// The error of a prompt without tokens.
pub(crate) fn no_prompt() -> TextError {
    let refused = refuse("prompt", "a token, as the model has no bos_token to begin with", "nothing");
    Unusable::Empty.because(refused)
}

/// Number of end markers, including white space after a marker.
fn end_markers(ids: &[u32], tokenizer: &Tokenizer) -> Result<usize, TextError> {
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
