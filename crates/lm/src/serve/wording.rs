//! Tokens as text, all at once and one by one.
//!
//! A model without a tokenizer speaks in token ids: its text is their numbers, those of an answer with a space before each.

use std::collections::HashMap;

use text::data::prompt::Prompt;
use text::error::TextError;
use text::example::Encoder;
use text::tokens::Pieces;

use super::refusal::Refusal;
use crate::checkpoint::folder::Text;

/// What makes text of tokens and tokens of text.
pub(super) struct Wording {
    text: Text,
    /// Each token by itself.
    words: Vec<String>,
    /// Bytes of the tokens that are parts of characters, whose words have other bytes.
    parts: HashMap<u32, Vec<u8>>,
}

/// A text that grows by tokens.
pub(super) struct Growing<'a> {
    wording: &'a Wording,
    pieces: Option<Pieces<'a>>,
}

/// Limit of the mean number of bytes of a prompt's token. Ordinary text has about 4; the limit bounds the memory of
/// tokenizing, which grows with the text.
const BYTES: usize = 32;
/// OpenAI's error code for a prompt that is too long.
pub(super) const TOO_LONG: &str = "context_length_exceeded";
/// Tokens of a prompt whose text the first tokens of the answer go on from.
const CONTEXT: usize = 8;

impl Wording {
    pub(super) fn new(text: Text, vocabulary: usize) -> Result<Self, TextError> {
        let word = |token: usize| match &text.tokenizer {
            Some(tokenizer) => tokenizer.word(token as u32),
            None => Ok(token.to_string()),
        };
        let words = (0..vocabulary).map(word).collect::<Result<Vec<_>, _>>()?;
        let mut parts = HashMap::new();
        if let Some(tokenizer) = &text.tokenizer {
            for (token, word) in (0..).zip(&words) {
                let bytes = tokenizer.bytes(token)?;
                if bytes != word.as_bytes() {
                    parts.insert(token, bytes);
                }
            }
        }
        Ok(Self { text, words, parts })
    }

    /// The special token with this text, which no response has as text.
    pub(super) fn special_token(&self, text: &str) -> Option<u32> {
        self.text.tokenizer.as_ref().and_then(|tokenizer| tokenizer.special_token(text))
    }

    /// The tokens of a prompt, at most `longest`. A text too long for so few tokens is refused before it is tokenized.
    pub(super) fn encode(&self, prompt: &Prompt, name: &str, longest: usize) -> Result<Vec<u32>, Refusal> {
        let Text { tokenizer, template, .. } = &self.text;
        let encoder =
            Encoder { tokenizer: tokenizer.as_ref(), template: template.as_ref(), vocabulary: self.words.len() };
        let refuse = |error| Refusal::of_text(&error, name);
        let bounded = |bytes: usize| {
            let most = longest.saturating_mul(BYTES);
            let allowed = format!("at most {most} bytes of text for the {longest} tokens that there is room for");
            match bytes > most {
                true => Err(Refusal::field(name, allowed, bytes).with_code(TOO_LONG)),
                false => Ok(()),
            }
        };
        let encode = |text: &str| bounded(text.len()).and_then(|()| encoder.encoded(text).map_err(refuse));
        match prompt {
            Prompt::Ids(_) => encoder.prompt(prompt).map_err(refuse),
            Prompt::Text(text) => encode(text),
            Prompt::Conversation(turns) => {
                if turns.len() > longest {
                    return Err(
                        Refusal::field(name, format!("at most {longest} turns"), turns.len()).with_code(TOO_LONG)
                    );
                }
                bounded(turns.iter().map(|turn| turn.content.len()).sum())?;
                encode(&encoder.rendered(turns).map_err(refuse)?)
            }
        }
    }

    /// A token by itself.
    pub(super) fn word(&self, token: u32) -> &str {
        self.words.get(token as usize).map_or("", String::as_str)
    }

    /// The bytes of a token.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        self.parts.get(&token).map_or_else(|| self.word(token).as_bytes(), Vec::as_slice)
    }

    /// Number of characters whose first byte is among the token's.
    pub(super) fn characters(&self, token: u32) -> u32 {
        const CONTINUATION: u8 = 0b10;
        self.bytes(token).iter().filter(|byte| **byte >> 6 != CONTINUATION).count() as u32
    }

    /// Whether a token is no part of a response's text.
    pub(super) fn is_special(&self, token: u32) -> bool {
        self.special_token(self.word(token)) == Some(token)
    }

    /// The text of tokens.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        match &self.text.tokenizer {
            Some(tokenizer) => tokenizer.decode(tokens),
            None => Ok(tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        }
    }

    /// A text that goes on from a prompt.
    pub(super) fn grow(&self, prompt: &[u32]) -> Result<Growing<'_>, TextError> {
        let mut pieces = self.text.tokenizer.as_ref().map(|tokenizer| tokenizer.pieces());
        if let Some(pieces) = &mut pieces {
            for token in &prompt[prompt.len().saturating_sub(CONTEXT)..] {
                _ = pieces.push(*token)?;
            }
            _ = pieces.rest()?;
        }
        Ok(Growing { wording: self, pieces })
    }
}

impl Growing<'_> {
    /// What one more token adds: nothing, where the text is not whole characters.
    pub(super) fn push(&mut self, token: u32) -> Result<String, TextError> {
        match &mut self.pieces {
            Some(pieces) => pieces.push(token),
            None => Ok(format!(" {}", self.wording.word(token))),
        }
    }

    /// What is left at the end.
    pub(super) fn rest(&mut self) -> Result<String, TextError> {
        self.pieces.as_mut().map_or_else(|| Ok(String::new()), Pieces::rest)
    }
}
